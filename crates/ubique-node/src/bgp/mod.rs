//! The driver of a BGP speaker: sockets and time around [`ubique_proto::bgp::speaker`].
//!
//! [`Driver`] is one value that is polled: it owns the core, the listeners, the connections and one timer,
//! and has no task or channel of its own. Whoever owns it (the agent, an embedded router) feeds it with
//! [`Driver::handle`], which carries out what the core answers *before it returns*: a withdrawal is in the
//! socket when `handle` is back. [`Driver::poll`] reads, writes and accepts, and hands out [`Notice`]s.
//!
//! Deliberately absent: every protocol decision, and any thread. Sockets are opened inside a network
//! namespace when the driver has a [`Place`], so that one process can run many routers.
//!
//! RFC 4271 §8 (transport), RFC 2385 (TCP MD5), RFC 5925 (TCP-AO), RFC 5082 (GTSM), RFC 9687 (a neighbour that does not read).

mod callers;
mod connection;
mod driver;
mod interfaces;
mod listeners;
mod socket;

use ubique_proto::bgp::speaker::{PeerStatus, SessionEvent};

pub use callers::Range;
pub use driver::{Driver, DriverConfig, DriverError, Notice};
pub use socket::{BGP_PORT, Endpoint, Key, Place, Secret, SecretError};

/// Who follows what happens on the sessions: BMP and MRT. Called when the bytes are in the socket already; it must not
/// wait for anything.
pub trait Tap {
    /// A whole message was received or sent.
    fn message(&self, peer: &PeerStatus<'_>, sent: bool, bytes: &[u8]);
    /// A session came up or went down; TCP ports of its connection, ours first, 0 when not known.
    fn session(&self, peer: &PeerStatus<'_>, event: &SessionEvent, ports: (u16, u16));
}
