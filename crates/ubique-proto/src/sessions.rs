//! Which site a packet belongs to: what sessions carry with them, so that any site can tell without having seen them before.
//!
//! A route change takes packets of a connection to a site that never heard of it. Nothing is shared between sites but a
//! [`Key`] and the list of sites: the packet itself names its owner, in what the client must send back to us anyway.
//!
//! - [`timestamp`]: in the clock of TCP timestamps (RFC 7323); exact for as long as the connection is not idle for half an hour.
//! - [`sequence`]: in the initial sequence number, for clients without timestamps; exact for the first [`sequence::REACH`] octets
//!   that the server sends.
//! - [`cookie`]: in the rest of that number, what the client's SYN said, so that nothing is kept for it.
//! - [`connection_id`]: in the connection identifiers of QUIC (RFC 9000 §5.1).
//! - [`shim`]: what stands before a packet on its way to its owner.
//! - [`peers`]: which other sites are there.
//!
//! The kernel's side has the same functions in C (`crates/ubique-edge/bpf`), which must agree octet for octet.
//!
//! A [`Site`] is hidden behind a mask that depends on the connection ([`Flow`]), so that nobody learns from his own connections how
//! another one is to look. Numbers of sites are four apart on the wire: what is off by one means no site, not another one.
//!
//! Deliberately absent: what is done with a packet of another site.

pub mod connection_id;
pub mod cookie;
pub mod peers;
pub mod sequence;
pub mod shim;
pub mod siphash;
pub mod timestamp;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use self::siphash::siphash13;

/// Most sites of a service: numbers of sites are [`SPACING`] apart in eight bits.
pub const SITES_MAX: u8 = 64;

/// Distance of two codes.
pub const SPACING: u8 = 4;

/// A key of [`siphash13`], the same at all sites.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u64; 2]);

/// Never its octets.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The number of a site, below [`SITES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(u8);

impl Site {
    /// `None`: there are no more than [`SITES_MAX`].
    pub fn new(number: u8) -> Option<Site> {
        (number < SITES_MAX).then_some(Site(number))
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// As it is carried.
    fn code(self) -> u8 {
        self.0 * SPACING
    }

    /// `None`: no site has this code.
    fn of_code(code: u8) -> Option<Site> {
        code.is_multiple_of(SPACING).then_some(Site(code / SPACING))
    }
}

/// A connection, as its client's packets say it. Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source of what the client sends.
    pub client: SocketAddr,
    /// Its destination: the service.
    pub service: SocketAddr,
}

/// Octets of a [`Flow`] over IPv6: addresses and ports.
const FLOW_BYTES: usize = 36;

impl Flow {
    /// What hides the site in packets of this connection.
    pub fn mask(&self, key: Key) -> Mask {
        let hash = self.hash(key);
        Mask { code: hash as u8, sequence: (hash >> 32) as u32 }
    }

    /// As the data planes of two sites tell it each other (`struct flow`): both addresses, IPv4 in the first four octets of sixteen, both
    /// ports, the family (4 or 6), zeros.
    pub fn octets(&self) -> [u8; 40] {
        let mut octets = [0; 40];
        for (place, address) in octets.chunks_mut(16).zip([self.client.ip(), self.service.ip()]) {
            match address {
                IpAddr::V4(v4) => place[..4].copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => place.copy_from_slice(&v6.octets()),
            }
        }
        octets[32..34].copy_from_slice(&self.client.port().to_be_bytes());
        octets[34..36].copy_from_slice(&self.service.port().to_be_bytes());
        octets[36] = if self.client.is_ipv4() { 4 } else { 6 };
        octets
    }

    /// What [`Flow::octets`] made; `None`: nothing it could have made.
    pub fn of_octets(octets: &[u8; 40]) -> Option<Flow> {
        let address = |at: usize| match octets[36] {
            4 => Some(IpAddr::from(*octets[at..].first_chunk::<4>()?)),
            6 => Some(IpAddr::from(*octets[at..].first_chunk::<16>()?)),
            _ => None,
        };
        let end =
            |at, port: usize| Some(SocketAddr::new(address(at)?, u16::from_be_bytes([octets[port], octets[port + 1]])));
        let flow = Flow { client: end(0, 32)?, service: end(16, 34)? };
        (flow.octets() == *octets).then_some(flow)
    }

    /// SipHash-1-3 of source and destination address, source and destination port, as they stand in the headers: 12 octets for IPv4,
    /// 36 for IPv6.
    pub fn hash(&self, key: Key) -> u64 {
        let mut octets = [0; FLOW_BYTES];
        let mut length = 0;
        let mut put = |bytes: &[u8]| {
            octets[length..length + bytes.len()].copy_from_slice(bytes);
            length += bytes.len();
        };
        for address in [self.client.ip(), self.service.ip()] {
            match address {
                IpAddr::V4(v4) => put(&v4.octets()),
                IpAddr::V6(v6) => put(&v6.octets()),
            }
        }
        put(&self.client.port().to_be_bytes());
        put(&self.service.port().to_be_bytes());
        siphash13(key, &octets[..length])
    }
}

/// What hides the site in packets of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Added to the code of a site.
    pub code: u8,
    /// Added to an initial sequence number.
    pub sequence: u32,
}
