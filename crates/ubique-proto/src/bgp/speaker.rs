//! One BGP speaker: a session for each neighbour and one RIB, as a single sans-IO core.
//!
//! A driver owns sockets and time: it carries out [`Out`], reports what happened as [`In`], and calls
//! [`Speaker::handle_deadline`] when [`Speaker::next_deadline`] has come. The agent and every embedded
//! router of the lab run the same core; only [`SpeakerConfig`] differs.
//!
//! What a driver owes the core:
//! - It drains [`Speaker::poll_output`] after every input and deadline, in order.
//! - It passes on what sockets have before it says that a deadline has come: a process that was paused must not
//!   declare a neighbour dead whose KEEPALIVE lies unread.
//! - It reports [`In::Acknowledged`] as long as anything is unacknowledged. Without it announcements never count as
//!   acknowledged, nothing more is sent beyond [`SEND_WINDOW`], and the send hold timer (RFC 9687) ends the session.
//! - After [`Out::Close`] it writes what is left for at most [`CLOSE_LINGER`]; a neighbour that does not read must
//!   not keep a socket for ever.
//!
//! There is no MinRouteAdvertisementInterval (RFC 4271 §9.2.1.1): it is zero, since a withdrawal must not wait, and an
//! announcing edge has few routes.
//!
//! `run` is the core, `ledger` follows our announcements to the neighbour, `status` holds the views.

mod ledger;
mod run;
mod status;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::policy::Announcement;
use ubique_model::{Asn, Prefix, Relation};

use super::attributes::NextHop;
use super::message::Notification;

pub use ledger::Delivery;
pub use run::{SEND_WINDOW, Speaker};
pub use status::{Faults, PeerStatus};

/// A neighbour, by its index in [`SpeakerConfig::peers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PeerId(pub u32);

/// A transport connection, numbered by the driver; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConnId(pub u64);

/// Configuration of a speaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpeakerConfig {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Our neighbours.
    pub peers: Vec<PeerConfig>,
    /// Seed of all jitter.
    pub seed: u64,
    /// Prefer the older of two otherwise equal external routes (RFC 5004). Off by default.
    pub prefer_oldest: bool,
}

/// Configuration of a neighbour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerConfig {
    /// Its address; the session carries the routes of this address's family.
    pub address: IpAddr,
    /// Its AS. Equal to ours: an internal session.
    pub asn: Asn,
    /// What it is to us: decides import preference and exports.
    pub relation: Relation,
    /// Never connect, only accept.
    pub passive: bool,
    /// Proposed hold time.
    pub hold_time: Duration,
    /// ConnectRetryTimer; jittered, and doubled up to [`CONNECT_RETRY_MAX`] while connections fail.
    pub connect_retry: Duration,
    /// Which routes it may give us.
    pub import: Import,
    /// Which routes it gets.
    pub export: Export,
}

/// Import policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Import {
    /// Keep in Adj-RIB-In for `ubique routes`, never eligible: an announcing edge installs and passes on nothing.
    Observe,
    /// Eligible, with LOCAL_PREF from [`ubique_model::policy::local_preference`].
    GaoRexford,
}

/// Export policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Export {
    /// Only what was originated with [`In::Announce`] for that neighbour: limited to the service by construction.
    OwnOnly,
    /// Our own routes and the best routes [`ubique_model::policy::exports`] allows.
    GaoRexford,
}

/// Upper bound of the connect retry back-off.
pub const CONNECT_RETRY_MAX: Duration = Duration::from_secs(30);

/// How long a driver goes on writing after [`Out::Close`].
pub const CLOSE_LINGER: Duration = Duration::from_secs(1);

/// What happened, told by the driver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum In {
    /// Start all neighbours (ManualStart).
    Start,
    /// Enable one neighbour.
    StartPeer(PeerId),
    /// Disable one neighbour: Cease with this subcode (RFC 4486) and, for 2 and 4, this message (RFC 9003).
    StopPeer {
        /// Which.
        peer: PeerId,
        /// Cease subcode.
        subcode: u8,
        /// Shutdown communication, at most 255 octets of UTF-8; cut on a character boundary.
        message: String,
    },
    /// The connection asked for by [`Out::Connect`] is up. `local` and `remote` addresses are the socket's.
    Connected {
        /// Which neighbour.
        peer: PeerId,
        /// Its number.
        conn: ConnId,
        /// Our address on it: the next hop we announce (RFC 4271 §5.1.3).
        local: IpAddr,
    },
    /// It failed.
    ConnectFailed {
        /// Which neighbour.
        peer: PeerId,
    },
    /// The neighbour connected to us.
    Accepted {
        /// Which neighbour, found by its address.
        peer: PeerId,
        /// Its number.
        conn: ConnId,
        /// Our address on it.
        local: IpAddr,
    },
    /// Bytes arrived.
    Received {
        /// Where.
        conn: ConnId,
        /// Bytes, any split.
        bytes: Vec<u8>,
    },
    /// The connection is gone: FIN, RST or an error.
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// The neighbour's TCP acknowledged all bytes up to this offset (count of bytes ever passed to [`Out::Send`]).
    Acknowledged {
        /// Where.
        conn: ConnId,
        /// Bytes acknowledged.
        offset: u64,
    },
    /// Announce to a neighbour, now or when its session is up. Replaces an earlier one of the same prefix.
    Announce {
        /// To whom.
        peer: PeerId,
        /// What.
        announcement: Announcement,
    },
    /// Take an announcement back.
    Withdraw {
        /// From whom.
        peer: PeerId,
        /// What.
        prefix: Prefix,
    },
    /// Originate a prefix of our own towards all neighbours that [`Export::GaoRexford`] applies to.
    Originate {
        /// What.
        prefix: Prefix,
    },
    /// Ask a neighbour to send its routes again (RFC 2918).
    RequestRefresh {
        /// Whom.
        peer: PeerId,
    },
}

/// What the driver must do, or may report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Out {
    /// Open a connection to the neighbour's address, port 179 unless configured otherwise.
    Connect {
        /// Which.
        peer: PeerId,
    },
    /// Give up a pending [`Out::Connect`].
    CancelConnect {
        /// Which.
        peer: PeerId,
    },
    /// Write these bytes.
    Send {
        /// Where.
        conn: ConnId,
        /// One or more whole messages.
        bytes: Vec<u8>,
    },
    /// Close the connection once everything sent has been written.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// A session came up or went down.
    Session {
        /// Which neighbour.
        peer: PeerId,
        /// What happened.
        event: SessionEvent,
    },
    /// The best route of a prefix changed: install, replace or remove (`None`). Only for eligible routes of others.
    Best {
        /// Destination.
        prefix: Prefix,
        /// Next hop and neighbour.
        next_hop: Option<(NextHop, PeerId)>,
    },
}

/// What happened to a session, for logs and metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SessionEvent {
    /// Established.
    Up {
        /// The neighbour's BGP identifier.
        router_id: Ipv4Addr,
        /// Negotiated hold time; zero: none.
        hold_time: Duration,
    },
    /// No longer established, or an attempt failed after the transport was up.
    Down {
        /// Whether it had been established.
        was_established: bool,
        /// Why.
        reason: DownReason,
    },
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownReason {
    /// We sent this.
    Sent(Notification),
    /// The neighbour sent this.
    Received(Notification),
    /// The transport closed without a word.
    TransportClosed,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::Sent(notification) => write!(f, "sent {notification}"),
            DownReason::Received(notification) => write!(f, "received {notification}"),
            DownReason::TransportClosed => f.write_str("connection closed"),
        }
    }
}
