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
//! A neighbour that gives more prefixes than it may ([`PeerConfig::max_prefix`]) is disabled until [`In::StartPeer`], as
//! after a stop by the operator: it leaks, and would do so again. That is what BIRD (`disable`) and FRR (idle until
//! cleared) do, too.
//!
//! A speaker can be written down and read again between two inputs, and goes on as if nothing had happened: recordings
//! start from that.
//!
//! `run` is the core, `send` writes what neighbours are owed, `flows` are FlowSpec rules (RFC 8955), `graceful` keeps what
//! neighbours leave behind (RFC 4724, 9494), `ledger` follows our announcements to the neighbour, `status` holds the views.
//!
//! Deliberately absent: sending several paths to a prefix (RFC 7911), FlowSpec rules of others, waiting for the End-of-RIB
//! of neighbours after a restart (RFC 4724 §4.1): what an edge announces does not depend on them.

mod flows;
mod graceful;
mod ledger;
mod run;
mod send;
mod status;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::policy::Announcement;
use ubique_model::{Asn, Family, Prefix, Relation};

use super::attributes::NextHop;
use super::family::AddressFamilies;
use super::flowspec::FlowSpec;
use super::message::{Notification, Role};
use super::rib::MAX_OBSERVED_PREFIXES;

pub use flows::MAX_FLOWS;
pub use graceful::STALE_MAX;
pub use ledger::Delivery;
pub use run::{MAX_PEERS, Speaker};
pub use send::SEND_WINDOW;
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
    /// What [`In::Announce`] and the destinations of [`In::AnnounceFlow`] must lie in; `None`: anything, as a router of
    /// the lab. With it exports are limited to the service by construction: the rest is refused with [`Out::Refused`].
    pub scope: Option<Vec<Prefix>>,
    /// We come back from a restart (RFC 4724 §4.1): R is set in our OPENs until [`In::Settled`] or the restart time is
    /// over, and End-of-RIB waits for it.
    pub restarted: Option<Restarted>,
    /// Report every message with [`Out::Message`], for BMP and MRT.
    pub tap: bool,
}

impl SpeakerConfig {
    /// A speaker without neighbours, with everything optional off.
    pub fn new(asn: Asn, router_id: Ipv4Addr, seed: u64) -> SpeakerConfig {
        SpeakerConfig {
            asn,
            router_id,
            peers: vec![],
            seed,
            prefer_oldest: false,
            scope: None,
            restarted: None,
            tap: false,
        }
    }
}

/// What is true after a restart (RFC 4724 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarted {
    /// F: packets to what was announced before were served all the time, for these families.
    pub forwarding: AddressFamilies,
}

/// Configuration of a neighbour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerConfig {
    /// Its address.
    pub address: IpAddr,
    /// Its AS. Equal to ours: an internal session.
    pub asn: Asn,
    /// What it is to us: decides import preference and exports.
    pub relation: Relation,
    /// What is exchanged with it. At least one must be common, the others are dropped.
    pub families: AddressFamilies,
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
    /// Routes kept of a neighbour that is only observed; those to prefixes we announce come on top.
    pub keep: usize,
    /// More prefixes than this in one family end the session (RFC 4486 §4); `None`: no limit but
    /// [`super::rib::MAX_PREFIXES`].
    pub max_prefix: Option<u32>,
    /// Our role on an external session (RFC 9234): announced, checked, and OTC follows from it.
    pub role: Option<Role>,
    /// The neighbour must announce its role, too (RFC 9234 §4.2).
    pub strict_role: bool,
    /// Graceful restart; `None`: not offered, and a route is gone with its session.
    pub graceful_restart: Option<GracefulRestartConfig>,
    /// Offer to receive several paths to a prefix (RFC 7911).
    pub add_path: bool,
    /// Offer IPv6 next hops for IPv4 (RFC 8950).
    pub extended_next_hop: bool,
    /// On an internal session: it is our route-reflector client (RFC 4456).
    pub route_reflector_client: bool,
    /// The next hop of what we announce.
    pub next_hop: NextHopConfig,
}

impl PeerConfig {
    /// A neighbour with everything optional off: the routes of its address's family, only observed; it gets our own.
    pub fn new(address: IpAddr, asn: Asn, relation: Relation) -> PeerConfig {
        PeerConfig {
            address,
            asn,
            relation,
            families: AddressFamilies::only(Family::of_address(address)),
            passive: false,
            hold_time: Duration::from_secs(9),
            connect_retry: Duration::from_secs(1),
            import: Import::Observe,
            export: Export::OwnOnly,
            keep: MAX_OBSERVED_PREFIXES,
            max_prefix: None,
            role: None,
            strict_role: false,
            graceful_restart: None,
            add_path: false,
            extended_next_hop: false,
            route_reflector_client: false,
            next_hop: NextHopConfig::default(),
        }
    }
}

/// Graceful restart with one neighbour (RFC 4724, 8538, 9494).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GracefulRestartConfig {
    /// How long the neighbour keeps our routes while we are away, and how long we may take to settle; whole seconds, at
    /// most 4,095. As a helper we keep its routes for as long as it says, at most this long.
    pub restart_time: Duration,
    /// Long-lived stale time (RFC 9494), whole seconds; `None`: not offered.
    pub long_lived: Option<Duration>,
}

/// Next hops of our announcements to one neighbour (RFC 4271 §5.1.3, RFC 2545, RFC 8950). An unset one: our address of
/// that family on the session's interface, or, for IPv4 over an IPv6 session, our IPv6 address when RFC 8950 is agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHopConfig {
    /// For IPv4: a third party's address on the shared subnet, or ours where the session's is another.
    pub ipv4: Option<Ipv4Addr>,
    /// For IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// Routes we pass on to an internal neighbour keep their next hop (RFC 4271 §5.1.3, case 1); otherwise it is us.
    pub unchanged: bool,
}

/// Our addresses on the interface of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// The connection's own.
    pub address: IpAddr,
    /// An IPv4 address of the interface.
    pub ipv4: Option<Ipv4Addr>,
    /// A global IPv6 address of the interface.
    pub ipv6: Option<Ipv6Addr>,
    /// Its link-local address; set when the neighbour is on the link.
    pub link_local: Option<Ipv6Addr>,
}

impl From<IpAddr> for Local {
    fn from(address: IpAddr) -> Local {
        let (ipv4, ipv6, link_local) = match address.to_canonical() {
            IpAddr::V4(a) => (Some(a), None, None),
            IpAddr::V6(a) if a.is_unicast_link_local() => (None, None, Some(a)),
            IpAddr::V6(a) => (None, Some(a), None),
        };
        Local { address: address.to_canonical(), ipv4, ipv6, link_local }
    }
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
        /// Our addresses there: next hops of what we announce (RFC 4271 §5.1.3).
        local: Local,
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
        /// Our addresses there.
        local: Local,
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
    /// Announce a FlowSpec rule to a neighbour, with what is to happen (RFC 8955 §7, extended communities). Replaces an
    /// earlier one of the same rule.
    AnnounceFlow {
        /// To whom.
        peer: PeerId,
        /// Which packets.
        flow: FlowSpec,
        /// What happens to them.
        actions: Vec<[u8; 8]>,
    },
    /// Take a FlowSpec rule back.
    WithdrawFlow {
        /// From whom.
        peer: PeerId,
        /// Which.
        flow: FlowSpec,
    },
    /// A new neighbour: dynamic, or from a reload. `peer` is the lowest number without a neighbour, below [`MAX_PEERS`];
    /// otherwise it is refused. It is disabled until [`In::StartPeer`].
    AddPeer {
        /// Its number.
        peer: PeerId,
        /// What it is.
        config: Box<PeerConfig>,
    },
    /// What may be announced from now on ([`SpeakerConfig::scope`]): a reload. What was announced before stays until it is
    /// withdrawn.
    Rescope {
        /// The service's prefixes.
        scope: Vec<Prefix>,
    },
    /// Forget a neighbour: Cease, peer de-configured (RFC 4486), and everything it gave us is gone.
    RemovePeer {
        /// Which.
        peer: PeerId,
    },
    /// BFD says that the neighbour cannot be reached: Cease, BFD down (RFC 9384). Graceful restart applies as RFC 5882
    /// §4.3 says: not when `control_independent`, the neighbour's C bit, is set.
    BfdDown {
        /// Which.
        peer: PeerId,
        /// The C bit it last sent.
        control_independent: bool,
    },
    /// After a restart: everything that is to be announced has been ([`SpeakerConfig::restarted`]).
    Settled,
    /// Several announcements and withdrawals at once. A neighbour gets what concerns it in as few UPDATEs as hold that; one
    /// after the other each would be an UPDATE, a segment and a walk through all neighbours.
    Orders(Vec<Order>),
}

/// One of several [`In::Orders`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// As [`In::Announce`].
    Announce {
        /// To whom.
        peer: PeerId,
        /// What.
        announcement: Announcement,
    },
    /// As [`In::Withdraw`].
    Withdraw {
        /// From whom.
        peer: PeerId,
        /// What.
        prefix: Prefix,
    },
}

impl In {
    /// Nothing may be done before it that takes long: clients are being sent to a place that does not answer.
    pub fn is_urgent(&self) -> bool {
        match self {
            In::Withdraw { .. } | In::WithdrawFlow { .. } | In::StopPeer { .. } | In::BfdDown { .. } => true,
            In::Orders(orders) => orders.iter().any(|order| matches!(order, Order::Withdraw { .. })),
            _ => false,
        }
    }
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
    /// Refused: outside [`SpeakerConfig::scope`], a rule no neighbour would take (RFC 8955 §6), or one neighbour too many.
    Refused {
        /// For whom.
        peer: PeerId,
        /// What and why, in words.
        reason: String,
    },
    /// A message on the wire, only with [`SpeakerConfig::tap`]: a received one before the outputs it leads to, a sent one
    /// right after the [`Out::Send`] it was in, so that watching delays nothing.
    Message {
        /// Of which neighbour.
        peer: PeerId,
        /// On which connection: there are two while a collision is settled.
        conn: ConnId,
        /// We sent it.
        sent: bool,
        /// The whole message.
        bytes: Vec<u8>,
    },
    /// The neighbour's routes to the prefixes of [`SpeakerConfig::scope`] may have changed: they tell of other sites.
    Scope {
        /// Which neighbour.
        peer: PeerId,
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
    /// The neighbour connected again while Established: it restarted without a word (RFC 4724 §4.2).
    Replaced,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::Sent(notification) => write!(f, "sent {notification}"),
            DownReason::Received(notification) => write!(f, "received {notification}"),
            DownReason::TransportClosed => f.write_str("connection closed"),
            DownReason::Replaced => f.write_str("the neighbour restarted and connected again"),
        }
    }
}
