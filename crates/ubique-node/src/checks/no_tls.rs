//! In the place of `tls` in a build without it: checks over TLS are refused when they are set up.

use std::convert::Infallible;
use std::net::SocketAddr;

use super::Failure;
use tokio::net::TcpStream;
use ubique_model::check::Trust;

/// Never there.
pub(super) struct Tls(Infallible);

impl Tls {
    pub(super) fn new(_trust: &Trust, _name: &str, _alpn: &[&str]) -> Result<Tls, String> {
        Err("this build of ubique cannot speak TLS (cargo feature `tls`)".to_owned())
    }

    pub(super) async fn connect(&self, _target: SocketAddr) -> Result<TcpStream, String> {
        match self.0 {}
    }

    pub(super) fn agreed_on(_stream: &TcpStream, _protocol: &str) -> bool {
        false
    }

    pub(super) async fn poll(&self, _target: SocketAddr, _days_left: u32) -> Result<(), Failure> {
        match self.0 {}
    }
}
