//! For servers built on [quinn]: QUIC connections that survive an anycast route change.
//!
//! A route change takes packets of a connection to another site. There the data plane of ubique reads in the packet's
//! connection identifier which site owns it, and sends it there ([`ubique_proto::sessions::connection_id`]). For that, the server must
//! choose its identifiers accordingly, and leave room for the way from site to site:
//!
//! - [`ConnectionIds`] are such identifiers, for quinn to use;
//! - [`LastUsed`] is a socket that answers from the address a peer last used, without which clients that move to a
//!   preferred address (RFC 9000 §9.6) hear nothing there;
//! - [`Anycast`] sets up quinn with both.
//!
//! Start at [`Anycast::endpoint`]; `docs/sessions/quic.md` has a whole server, and what other QUIC stacks need.
//!
//! Deliberately absent: forwarding itself, which is the data plane's, and keys of TLS tickets and of stateless resets, which are the
//! server's. Keys of stateless resets stay with a site: one that all sites share is an oracle (RFC 9000 §21.11).
#![forbid(unsafe_code)]

mod connection_ids;
mod last_used;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::sync::Arc;

use quinn::{ConfigError, Endpoint, EndpointConfig, Runtime, ServerConfig};
pub use ubique_proto::sessions::connection_id::Config;
pub use ubique_proto::sessions::{Key, SITES_MAX, Site};

pub use connection_ids::ConnectionIds;
pub use last_used::{LastUsed, PEERS_MAX};

/// What a forwarded packet carries more, over IPv6: outer IPv6 (40) and UDP (8) headers, and the shim of the sites (24), octets.
pub const FORWARDING_BYTES: u16 = 72;

/// Largest UDP payload a client may send: it still fits into 1500 octets when forwarded, under its own IPv6 (40) and UDP (8) headers.
pub const UDP_PAYLOAD_MAX: u16 = 1500 - FORWARDING_BYTES - 48;

/// A key of 32 hexadecimal digits: its 16 octets in the order of the SipHash paper. `None`: something else.
pub fn key_from_hex(digits: &str) -> Option<Key> {
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let octets = u128::from_str_radix(digits, 16).ok()?.swap_bytes();
    Some(Key([octets as u64, (octets >> 64) as u64]))
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The preferred address would not reach this socket.
    #[error(
        "the socket is bound to {bound}: packets for the preferred address {preferred} would not reach it; \
         bind the wildcard address of its family, and use one port"
    )]
    Unreachable {
        /// The preferred address.
        preferred: SocketAddr,
        /// Where the socket is bound.
        bound: SocketAddr,
    },
    /// What quinn does not take.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What the socket or the runtime refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An anycast site's settings for quinn.
#[derive(Clone, Debug)]
pub struct Anycast {
    ids: ConnectionIds,
    preferred_v4: Option<SocketAddrV4>,
    preferred_v6: Option<SocketAddrV6>,
}

impl Anycast {
    /// Identifiers of this kind, no preferred address.
    pub fn new(ids: ConnectionIds) -> Anycast {
        Anycast { ids, preferred_v4: None, preferred_v6: None }
    }

    /// Tells clients to move to this address of the site alone (RFC 9000 §9.6), one for each family. Those that do are no longer concerned
    /// by routes of the anycast address. Everybody who connects learns it: it needs the same protection.
    pub fn prefer(mut self, address: SocketAddr) -> Anycast {
        match address {
            SocketAddr::V4(v4) => self.preferred_v4 = Some(v4),
            SocketAddr::V6(v6) => self.preferred_v6 = Some(v6),
        }
        self
    }

    fn preferred(&self) -> impl Iterator<Item = SocketAddr> {
        let v4 = self.preferred_v4.map(SocketAddr::V4);
        v4.into_iter().chain(self.preferred_v6.map(SocketAddr::V6))
    }

    /// Identifiers, largest payload ([`UDP_PAYLOAD_MAX`], unless it is smaller already) and preferred addresses. How large the server's
    /// own packets may be is not concerned: they take no detour.
    ///
    /// # Errors
    /// None are known: quinn takes all payloads from 1200 octets.
    pub fn configure(&self, endpoint: &mut EndpointConfig, server: &mut ServerConfig) -> Result<(), ConfigError> {
        let ids = self.ids.clone();
        endpoint.cid_generator(move || Box::new(ids.clone()));
        if endpoint.get_max_udp_payload_size() > u64::from(UDP_PAYLOAD_MAX) {
            endpoint.max_udp_payload_size(UDP_PAYLOAD_MAX)?;
        }
        if self.preferred().next().is_some() {
            server.preferred_address_v4(self.preferred_v4).preferred_address_v6(self.preferred_v6);
            // Clients may take another port of theirs to the preferred address.
            server.migration(true);
        }
        Ok(())
    }

    /// A server's endpoint at `socket`, configured, and answering from preferred addresses where clients use them.
    ///
    /// # Errors
    /// [`EndpointError`]: preferred addresses must reach the same socket.
    pub fn endpoint(
        &self,
        mut endpoint: EndpointConfig,
        mut server: ServerConfig,
        socket: UdpSocket,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Endpoint, EndpointError> {
        let bound = socket.local_addr()?;
        if let Some(preferred) = self.preferred().find(|preferred| !reaches(*preferred, bound)) {
            return Err(EndpointError::Unreachable { preferred, bound });
        }
        self.configure(&mut endpoint, &mut server)?;
        let mut socket = runtime.wrap_udp_socket(socket)?;
        let addresses: Vec<IpAddr> = self.preferred().map(|address| address.ip()).collect();
        if !addresses.is_empty() {
            socket = Arc::new(LastUsed::new(socket, addresses));
        }
        Ok(Endpoint::new_with_abstract_socket(endpoint, Some(server), socket, runtime)?)
    }
}

/// Whether packets for an address come to a socket; one at `[::]` may have IPv4, too.
fn reaches(address: SocketAddr, bound: SocketAddr) -> bool {
    let same_ip = match bound.ip() {
        IpAddr::V6(any) if any.is_unspecified() => true,
        IpAddr::V4(any) if any.is_unspecified() => address.is_ipv4(),
        ip => ip.to_canonical() == address.ip(),
    };
    same_ip && address.port() == bound.port()
}

/// The examples of the manual are compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/sessions/quic.md")]
struct Manual;
