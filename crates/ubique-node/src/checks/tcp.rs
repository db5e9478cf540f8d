//! The `tcp` check: a connection is accepted.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::words;

/// A `tcp` check.
pub(super) struct Tcp {
    target: SocketAddr,
}

impl Tcp {
    pub(super) fn new(target: SocketAddr) -> Tcp {
        Tcp { target }
    }

    pub(super) async fn poll(&mut self) -> Result<(), String> {
        TcpStream::connect(self.target).await.map(drop).map_err(|e| words(&e))
    }
}
