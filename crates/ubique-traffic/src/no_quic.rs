//! Built without QUIC: it says so when it is asked for.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use ubique_model::scenario::{Exchange, SessionKind};

use crate::TrafficError;
use crate::client::Watch;

const ABSENT: &str = "this program was built without it (feature `quic`)";

#[derive(Clone)]
pub struct Client;

impl Client {
    pub fn new() -> Result<Client, TrafficError> {
        Ok(Client)
    }

    pub async fn session(
        &self,
        _: UdpSocket,
        _: SocketAddr,
        _: (SessionKind, Exchange),
        _: &mut Watch,
    ) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, ABSENT))
    }
}

pub fn listen(_: SocketAddr, _: Arc<str>, _: Option<(u8, &str)>) -> Result<(), TrafficError> {
    Err(TrafficError::Quic(ABSENT.to_owned()))
}
