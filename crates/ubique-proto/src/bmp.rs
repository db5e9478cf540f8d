//! BMP, the BGP Monitoring Protocol: messages ↔ bytes (RFC 7854, RFC 8671).
//!
//! A monitored router tells a collector of its sessions and of every UPDATE on them, and never listens. [`encode`] writes
//! what ubique sends; [`decode`] reads what any router may send: it is for tests and tools.
//!
//! Deliberately absent: Loc-RIB monitoring (RFC 9069: an announcing edge has no Loc-RIB that anything follows), the TLVs
//! of version 4, and transport (`ubique-node`).

mod read;
mod write;

use std::net::{IpAddr, Ipv4Addr};

use ubique_model::Asn;

pub use read::{Fault, decode, length};
pub use write::encode;

/// The version of RFC 7854.
pub const VERSION: u8 = 3;

/// Octets of the common header: version, length, type (RFC 7854 §4.1).
pub const HEADER_LEN: usize = 6;

/// Longest message read, octets: a Route Mirroring message with several extended BGP messages has room.
pub const MAX_LENGTH: usize = 1 << 20;

/// A message (RFC 7854 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Type 0: an UPDATE as it was received or sent, or one that says the same.
    RouteMonitoring {
        /// On which session, and which RIB it belongs to.
        peer: Peer,
        /// A whole BGP message.
        update: Vec<u8>,
    },
    /// Type 1.
    StatisticsReport {
        /// Of which session.
        peer: Peer,
        /// Numbers.
        statistics: Vec<Statistic>,
    },
    /// Type 2.
    PeerDown {
        /// Which session.
        peer: Peer,
        /// Why.
        reason: DownReason,
    },
    /// Type 3.
    PeerUp {
        /// Which session.
        peer: Peer,
        /// Our address; its family is the one of the neighbour's.
        local: IpAddr,
        /// Our TCP port; 0: not known.
        local_port: u16,
        /// The neighbour's TCP port; 0: not known.
        remote_port: u16,
        /// Our OPEN, a whole BGP message.
        sent_open: Vec<u8>,
        /// The neighbour's.
        received_open: Vec<u8>,
        /// Information.
        information: Vec<Tlv>,
    },
    /// Type 4: what a connection begins with.
    Initiation(Vec<Tlv>),
    /// Type 5: what it ends with.
    Termination(Vec<Tlv>),
    /// Type 6: BGP messages as they came, with their faults.
    RouteMirroring {
        /// On which session.
        peer: Peer,
        /// BGP messages (type 0) and codes (type 1).
        parts: Vec<Tlv>,
    },
}

/// The per-peer header (RFC 7854 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Peer type: 0 global, 1 of a VRF, 2 local, 3 Loc-RIB (RFC 9069).
    pub kind: u8,
    /// Flags but the one that follows from `address`: see [`flag`].
    pub flags: u8,
    /// Route distinguisher of a VRF; 0 otherwise.
    pub distinguisher: u64,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its AS.
    pub asn: Asn,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// When, s since 1970; 0: not known.
    pub seconds: u32,
    /// And µs.
    pub microseconds: u32,
}

/// Flags of the per-peer header.
pub mod flag {
    /// V: the address is of IPv6. Written from the address.
    pub const IPV6: u8 = 0x80;
    /// L: after policy (RFC 7854 §4.2, RFC 8671 §4).
    pub const POST_POLICY: u8 = 0x40;
    /// A: the UPDATE has 2-octet AS numbers.
    pub const TWO_OCTET_AS: u8 = 0x20;
    /// O: Adj-RIB-Out (RFC 8671 §4).
    pub const ADJ_RIB_OUT: u8 = 0x10;
}

/// Why a session went down (RFC 7854 §4.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// 1: we sent this NOTIFICATION, a whole BGP message.
    LocalNotification(Vec<u8>),
    /// 2: we closed without one, by this event of the state machine (RFC 4271 §8.1); 0: none.
    LocalClosed(u16),
    /// 3: the neighbour sent this NOTIFICATION.
    RemoteNotification(Vec<u8>),
    /// 4: the neighbour closed without one.
    RemoteClosed,
    /// 5: it is not monitored any more; it may still be up.
    NotMonitored,
    /// Any other, with its data.
    Other(u8, Vec<u8>),
}

/// A number of a Statistics Report (RFC 7854 §4.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// A counter of four octets.
    Counter(u16, u32),
    /// A gauge of eight.
    Gauge(u16, u64),
    /// A gauge of one AFI and SAFI.
    FamilyGauge(u16, u16, u8, u64),
    /// Of another length.
    Other(u16, Vec<u8>),
}

/// Types of statistics that ubique reports.
pub mod statistic {
    /// Updates that contained a fault and were treated as withdrawals (counter).
    pub const TREATED_AS_WITHDRAW: u16 = 11;
    /// Routes in Adj-RIB-In (gauge).
    pub const ADJ_RIB_IN: u16 = 7;
    /// Routes in Adj-RIB-Out after policy (gauge; RFC 8671 §6.2).
    pub const ADJ_RIB_OUT_POST_POLICY: u16 = 15;
}

/// Type, length, value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlv {
    /// Type.
    pub kind: u16,
    /// Value.
    pub value: Vec<u8>,
}

impl Tlv {
    /// With a text.
    pub fn text(kind: u16, text: &str) -> Tlv {
        Tlv { kind, value: text.as_bytes().to_vec() }
    }
}

/// Types of information (RFC 7854 §4.4, §4.5).
pub mod information {
    /// Free text.
    pub const STRING: u16 = 0;
    /// sysDescr.
    pub const SYS_DESCR: u16 = 1;
    /// sysName.
    pub const SYS_NAME: u16 = 2;
    /// In a Termination: the reason, two octets.
    pub const REASON: u16 = 1;
    /// That reason: closed by the administrator.
    pub const ADMINISTRATIVELY_CLOSED: u16 = 0;
}

mod kind {
    pub(super) const ROUTE_MONITORING: u8 = 0;
    pub(super) const STATISTICS_REPORT: u8 = 1;
    pub(super) const PEER_DOWN: u8 = 2;
    pub(super) const PEER_UP: u8 = 3;
    pub(super) const INITIATION: u8 = 4;
    pub(super) const TERMINATION: u8 = 5;
    pub(super) const ROUTE_MIRRORING: u8 = 6;
}
