//! Whom a check asks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A server, or the same port of several: all of them must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// This one.
    Address(SocketAddr),
    /// Every service address.
    Service(u16),
    /// The loopback address of every family the service has.
    Loopback(u16),
}

impl Target {
    /// The port.
    pub fn port(self) -> u16 {
        match self {
            Target::Address(address) => address.port(),
            Target::Service(port) | Target::Loopback(port) => port,
        }
    }

    /// All of them, for a service with these addresses.
    pub fn servers(self, service: &[IpAddr]) -> Vec<SocketAddr> {
        match self {
            Target::Address(address) => vec![address],
            Target::Service(port) => service.iter().map(|ip| SocketAddr::new(*ip, port)).collect(),
            Target::Loopback(port) => {
                let has = |v4: bool| service.iter().any(|ip| ip.is_ipv4() == v4);
                let loopback: [(bool, IpAddr); 2] =
                    [(true, Ipv4Addr::LOCALHOST.into()), (false, Ipv6Addr::LOCALHOST.into())];
                loopback.into_iter().filter(|(v4, _)| has(*v4)).map(|(_, ip)| SocketAddr::new(ip, port)).collect()
            }
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Target {
        Target::Address(address)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(address) => address.fmt(f),
            Target::Service(port) => write!(f, "service:{port}"),
            Target::Loopback(port) => write!(f, "loopback:{port}"),
        }
    }
}
