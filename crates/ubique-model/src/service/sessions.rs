//! `[sessions]`: connections survive a route change, because each packet names the site that has its connection, and any
//! other site passes it on to there. What the sites need of each other: [`Unicast`] addresses and numbers ([`site_number`]).
//!
//! Deliberately absent: how a packet names its site, and what is done with it; the secret itself, of which only the file
//! is known here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::spec::MAX_SESSION_SITES;
use crate::net::Family;

/// `[sessions]`: TCP and QUIC connections that survive a route change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// File with the secret that all sites share.
    pub secret_file: PathBuf,
    /// How a TCP connection carries the number of its site.
    pub tcp: TcpMethod,
    /// TCP ports whose SYNs are answered by our own cookies; empty: all that a program listens on.
    pub tcp_ports: Vec<u16>,
    /// UDP ports that speak QUIC; empty: none.
    pub quic_ports: Vec<u16>,
    /// UDP port, at the unicast addresses of all sites, of what they pass on to each other.
    pub port: u16,
    /// Packets per second accepted from each other site.
    pub budget_per_s: u64,
    /// How the owner's replies to packets that were passed on travel to the client.
    pub return_path: ReturnPath,
    /// Smallest MTU of all paths between the sites, bytes, IP header included.
    pub mtu_bytes: u16,
    /// MPTCP clients are told the site's unicast addresses (ADD_ADDR, RFC 8684 §3.4.1).
    pub mptcp: bool,
    /// Interfaces that the programs of the data plane go onto; empty: those of the upstreams' sessions.
    pub interfaces: Vec<String>,
}

/// How a TCP connection carries the number of its site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TcpMethod {
    /// The best that the machine's kernel has.
    #[default]
    Auto,
    /// In initial sequence numbers and timestamps: SYNs are answered by our own SYN cookie. Linux 6.9 and later.
    Cookie,
    /// In timestamps (RFC 7323), by a constant offset. Linux 5.10 and later; clients without timestamps are searched for.
    Timestamp,
    /// Not at all.
    Off,
}

impl TcpMethod {
    /// Each with its word.
    pub const ALL: [(TcpMethod, &'static str); 4] = [
        (TcpMethod::Auto, "auto"),
        (TcpMethod::Cookie, "cookie"),
        (TcpMethod::Timestamp, "timestamp"),
        (TcpMethod::Off, "off"),
    ];

    /// As the service file spells it.
    pub fn as_str(self) -> &'static str {
        TcpMethod::ALL.iter().find(|(method, _)| *method == self).map_or("auto", |(_, word)| word)
    }
}

/// How the owner's replies to packets that were passed on travel to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReturnPath {
    /// From the owner, straight to the client.
    #[default]
    Direct,
    /// Back through the site that passed the packet on, for owners whose upstreams drop sources that they do not announce
    /// (strict uRPF, RFC 3704 §2.2).
    Through,
}

impl ReturnPath {
    /// Each with its word.
    pub const ALL: [(ReturnPath, &'static str); 2] = [(ReturnPath::Direct, "direct"), (ReturnPath::Through, "through")];

    /// As the service file spells it.
    pub fn as_str(self) -> &'static str {
        ReturnPath::ALL.iter().find(|(path, _)| *path == self).map_or("direct", |(_, word)| word)
    }
}

/// A site's own addresses, where the other sites reach it; at most one of each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unicast {
    /// Over IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// Over IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

impl Unicast {
    /// The last address of each family counts.
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Unicast {
        let mut unicast = Unicast::default();
        for address in addresses {
            match address {
                IpAddr::V4(v4) => unicast.ipv4 = Some(v4),
                IpAddr::V6(v6) => unicast.ipv6 = Some(v6),
            }
        }
        unicast
    }

    /// The address of this family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4 => self.ipv4.map(IpAddr::V4),
            Family::Ipv6 => self.ipv6.map(IpAddr::V6),
        }
    }

    /// What there is, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        Family::ALL.map(|family| self.address(family)).into_iter().flatten()
    }

    /// The family that two sites reach each other over: IPv4 where both have it, since its header is 20 octets shorter.
    pub fn common(&self, other: &Unicast) -> Option<Family> {
        Family::ALL.into_iter().find(|family| self.address(*family).is_some() && other.address(*family).is_some())
    }
}

/// The number of a site whose file says none: CRC-32 (ISO-HDLC, as in gzip and zlib) of its name, modulo
/// [`MAX_SESSION_SITES`]. It depends on nothing but the name, so that a site that comes changes no other one's.
pub fn site_number(name: &str) -> u8 {
    (crc32(name.as_bytes()) % u32::from(MAX_SESSION_SITES)) as u8
}

/// CRC-32 (ISO-HDLC): reflected, polynomial 0x04C11DB7, begun and ended with all ones (RFC 1952 §8).
fn crc32(octets: &[u8]) -> u32 {
    /// The polynomial, lowest power in the highest bit.
    const REFLECTED: u32 = 0xEDB8_8320;
    let bit = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ REFLECTED } else { crc >> 1 };
    !octets.iter().fold(u32::MAX, |crc, octet| (0..u8::BITS).fold(crc ^ u32::from(*octet), |crc, _| bit(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `python3 -c 'import zlib; print(zlib.crc32(b"123456789"))'`, and the check value of the catalogue of CRCs.
    #[test]
    fn numbers_follow_from_names_alone() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
        for (name, number) in [("ams", 41), ("dub", 41), ("lon", 33), ("site-0", 51)] {
            assert_eq!(site_number(name), number, "{name}");
        }
    }

    #[test]
    fn sites_meet_over_a_family_of_both() {
        let [v4, v6] = ["192.0.2.1", "2001:db8::1"].map(|a| a.parse::<IpAddr>().unwrap());
        let [only4, only6, both] = [Unicast::of([v4]), Unicast::of([v6]), Unicast::of([v6, v4])];
        assert_eq!(both.addresses().collect::<Vec<_>>(), [v4, v6]);
        assert_eq!((only4.common(&both), only6.common(&both)), (Some(Family::Ipv4), Some(Family::Ipv6)));
        assert_eq!((both.common(&both), only4.common(&only6)), (Some(Family::Ipv4), None));
        assert_eq!(Unicast::default().addresses().count(), 0);
    }
}
