//! Numbers of the routing system: AS numbers, prefixes, address families, communities, relations.

pub mod action;
mod extended;
mod family;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use extended::ExtendedCommunity;
pub use family::AddressFamily;

/// An IP prefix in CIDR form. Host bits are cleared by whoever creates one.
pub type Prefix = ipnet::IpNet;

/// A 4-octet autonomous system number (RFC 6793).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Asn(pub u32);

impl Asn {
    /// AS_TRANS, the 2-octet stand-in for a 4-octet number (RFC 6793 §9).
    pub const TRANS: Asn = Asn(23456);
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AS{}", self.0)
    }
}

/// Address family with SAFI unicast (RFC 4760).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4,
    /// AFI 2, SAFI 1.
    Ipv6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// The family of an address.
    pub fn of_address(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }

    /// The family of a prefix.
    pub fn of(prefix: &Prefix) -> Family {
        match prefix {
            Prefix::V4(_) => Family::Ipv4,
            Prefix::V6(_) => Family::Ipv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        })
    }
}

/// A standard community (RFC 1997), printed as `high:low`, read as that, as one of
/// [`Community::WORDS`], or as what a network calls it ([`action`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Community(pub u32);

impl Community {
    /// NO_EXPORT (RFC 1997).
    pub const NO_EXPORT: Community = Community(0xFFFF_FF01);
    /// NO_ADVERTISE (RFC 1997).
    pub const NO_ADVERTISE: Community = Community(0xFFFF_FF02);
    /// NOPEER (RFC 3765).
    pub const NO_PEER: Community = Community(0xFFFF_FF04);
    /// BLACKHOLE (RFC 7999).
    pub const BLACKHOLE: Community = Community(0xFFFF_029A);
    /// GRACEFUL_SHUTDOWN (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xFFFF_0000);
    /// Well-known communities that can be written as words.
    pub const WORDS: [(&'static str, Community); 5] = [
        ("no-export", Community::NO_EXPORT),
        ("no-advertise", Community::NO_ADVERTISE),
        ("no-peer", Community::NO_PEER),
        ("blackhole", Community::BLACKHOLE),
        ("graceful-shutdown", Community::GRACEFUL_SHUTDOWN),
    ];
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xFFFF)
    }
}

impl fmt::Debug for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Community {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, community)) = Community::WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*community);
        }
        if let Some(named) = action::named(text) {
            return named
                .map_err(|unknown| format!("{text:?} is not a community: {}; {}", unknown.reason, unknown.fix));
        }
        let bad = || format!("{text:?} is not a community: write \"ASN:VALUE\", both at most 65535");
        let (high, low) = text.split_once(':').ok_or_else(bad)?;
        let high: u16 = high.parse().map_err(|_| bad())?;
        let low: u16 = low.parse().map_err(|_| bad())?;
        Ok(Community(u32::from(high) << 16 | u32::from(low)))
    }
}

impl From<Community> for String {
    fn from(c: Community) -> String {
        c.to_string()
    }
}

impl TryFrom<String> for Community {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A large community (RFC 8092), printed as `global:local1:local2`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LargeCommunity(pub [u32; 3]);

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.0[0], self.0[1], self.0[2])
    }
}

impl fmt::Debug for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LargeCommunity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a large community: write \"ASN:VALUE:VALUE\"");
        let mut parts = text.split(':').map(|p| p.parse::<u32>().map_err(|_| bad()));
        let mut next = || parts.next().unwrap_or_else(|| Err(bad()));
        let value = [next()?, next()?, next()?];
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(LargeCommunity(value))
    }
}

impl From<LargeCommunity> for String {
    fn from(c: LargeCommunity) -> String {
        c.to_string()
    }
}

impl TryFrom<String> for LargeCommunity {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What a neighbour is to us, commercially: it decides local preference and exports (Gao and Rexford, 2001).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// The neighbour sells us transit: it is our provider.
    Transit,
    /// The neighbour exchanges traffic for its own customers and ours.
    Peer,
    /// The neighbour is the route server of an IXP: as a peer, its own AS number may be absent from paths (RFC 7947).
    RouteServer,
    /// The neighbour is in our own organisation.
    Internal,
    /// The neighbour buys transit from us.
    Customer,
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Relation::Transit => "transit",
            Relation::Peer => "peer",
            Relation::RouteServer => "route-server",
            Relation::Internal => "internal",
            Relation::Customer => "customer",
        })
    }
}

#[cfg(test)]
mod tests;
