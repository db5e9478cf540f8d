//! BGP messages as values (RFC 4271 §4).

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use ubique_model::{Asn, Prefix};

use super::attributes::{Attributes, NextHop};
use super::family::AddressFamily;
use super::flowspec::FlowSpec;

/// A BGP message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Type 1.
    Open(Open),
    /// Type 2.
    Update(Update),
    /// Type 3.
    Notification(Notification),
    /// Type 4.
    Keepalive,
    /// Type 5 (RFC 2918): AFI and SAFI as sent; unknown ones are ignored by the session.
    RouteRefresh {
        /// Address family identifier.
        afi: u16,
        /// RFC 7313 subtype; 0: a plain request.
        subtype: u8,
        /// Subsequent address family identifier.
        safi: u8,
    },
}

/// OPEN (RFC 4271 §4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The neighbour's AS: from the 4-octet capability when present (RFC 6793), else the 2-octet field.
    pub asn: Asn,
    /// Proposed hold time, s: 0 or at least 3.
    pub hold_time_s: u16,
    /// BGP identifier, not 0 (RFC 6286).
    pub router_id: Ipv4Addr,
    /// Capabilities in the order sent (RFC 5492).
    pub capabilities: Vec<Capability>,
}

/// A capability (RFC 5492).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Capability {
    /// Code 1 (RFC 4760), for a family ubique knows.
    Multiprotocol(AddressFamily),
    /// Code 2 (RFC 2918).
    RouteRefresh,
    /// Code 5 (RFC 8950): these families may have IPv6 next hops. Families ubique does not know are left out.
    ExtendedNextHop(Vec<AddressFamily>),
    /// Code 6 (RFC 8654): messages of up to 65,535 octets.
    ExtendedMessage,
    /// Code 9 (RFC 9234).
    Role(Role),
    /// Code 64 (RFC 4724, RFC 8538).
    GracefulRestart(GracefulRestart),
    /// Code 65 (RFC 6793).
    FourOctetAs(Asn),
    /// Code 69 (RFC 7911): families ubique knows, each with what the sender is able to do.
    AddPath(Vec<(AddressFamily, AddPath)>),
    /// Code 70 (RFC 7313).
    EnhancedRouteRefresh,
    /// Code 71 (RFC 9494): families ubique knows.
    LongLivedGracefulRestart(Vec<LongLived>),
    /// Any other.
    Unknown {
        /// Capability code.
        code: u8,
        /// Value.
        value: Vec<u8>,
    },
}

/// Graceful restart capability (RFC 4724 §3, RFC 8538 §2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GracefulRestart {
    /// R: the sender has restarted.
    pub restarting: bool,
    /// N: NOTIFICATIONs and the hold timer restart gracefully too; only a hard reset ends (RFC 8538).
    pub notification: bool,
    /// How long the session may take to come back, whole seconds, at most 4,095.
    pub restart_time: Duration,
    /// Families, each with F: the sender kept forwarding for it.
    pub families: Vec<(AddressFamily, bool)>,
}

/// A family of the long-lived graceful restart capability (RFC 9494 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongLived {
    /// Which.
    pub family: AddressFamily,
    /// F: the sender kept forwarding for it.
    pub forwarding: bool,
    /// How long its routes may be kept, whole seconds, at most 2^24 - 1.
    pub stale_time: Duration,
}

/// What a speaker is able to do with several paths to a prefix (RFC 7911 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddPath {
    /// 1: receive.
    Receive = 1,
    /// 2: send.
    Send = 2,
    /// 3: both.
    Both = 3,
}

/// Role of the sender on an external session (RFC 9234 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// 0: sells transit.
    Provider,
    /// 1: a route server.
    RouteServer,
    /// 2: client of a route server.
    RouteServerClient,
    /// 3: buys transit.
    Customer,
    /// 4: exchanges its own and its customers' routes.
    Peer,
    /// Any other, as sent.
    Unknown(u8),
}

/// A prefix as an UPDATE names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nlri {
    /// The prefix.
    pub prefix: Prefix,
    /// Path identifier (RFC 7911 §3); 0 when ADD-PATH is not in use.
    pub path_id: u32,
}

impl From<Prefix> for Nlri {
    fn from(prefix: Prefix) -> Nlri {
        Nlri { prefix, path_id: 0 }
    }
}

impl PartialEq<Prefix> for Nlri {
    /// Whether it is that prefix without a path identifier.
    fn eq(&self, prefix: &Prefix) -> bool {
        *self == Nlri::from(*prefix)
    }
}

impl fmt::Display for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path_id {
            0 => self.prefix.fmt(f),
            path_id => write!(f, "{} path {path_id}", self.prefix),
        }
    }
}

/// UPDATE (RFC 4271 §4.3), with MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760) folded in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Withdrawn prefixes of both encodings. A prefix that is also announced is not withdrawn.
    pub withdrawn: Vec<Nlri>,
    /// Announced prefixes by next hop: at most one entry of NLRI and one of MP_REACH_NLRI.
    pub announced: Vec<Reach>,
    /// Withdrawn FlowSpec rules.
    pub flows_withdrawn: Vec<FlowSpec>,
    /// Announced FlowSpec rules.
    pub flows_announced: Vec<FlowSpec>,
    /// Attributes of what is announced; `None` when nothing is.
    pub attributes: Option<Arc<Attributes>>,
    /// The message is an End-of-RIB marker of that family (RFC 4724 §2).
    pub end_of_rib: Option<AddressFamily>,
    /// What was wrong with it, short of ending the session (RFC 7606): `announced` is already moved to `withdrawn`
    /// where the treatment is treat-as-withdraw, and attributes to discard are already gone.
    pub faults: Vec<AttributeFault>,
}

/// Prefixes that share a next hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The next hop.
    pub next_hop: NextHop,
    /// The prefixes.
    pub prefixes: Vec<Nlri>,
}

/// A fault in an attribute and what RFC 7606 makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeFault {
    /// Type code of the attribute; 0 when the attributes as a whole are at fault.
    pub code: u8,
    /// What was done.
    pub treatment: Treatment,
    /// What was wrong, in words.
    pub reason: String,
}

/// Treatment of a malformed attribute, short of a session reset (RFC 7606 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Treatment {
    /// The attribute is dropped, the routes stay.
    AttributeDiscard,
    /// The routes of the message are withdrawn.
    TreatAsWithdraw,
}

/// NOTIFICATION (RFC 4271 §4.5): what ends a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// Data.
    pub data: Vec<u8>,
}
