//! BGP messages as values (RFC 4271 §4).

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ubique_model::{Asn, Family, Prefix};

use super::attributes::{Attributes, NextHop};

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
    Multiprotocol(Family),
    /// Code 2 (RFC 2918).
    RouteRefresh,
    /// Code 65 (RFC 6793).
    FourOctetAs(Asn),
    /// Any other.
    Unknown {
        /// Capability code.
        code: u8,
        /// Value.
        value: Vec<u8>,
    },
}

/// UPDATE (RFC 4271 §4.3), with MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760) folded in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Withdrawn prefixes of both encodings. A prefix that is also announced is not withdrawn.
    pub withdrawn: Vec<Prefix>,
    /// Announced prefixes by next hop: at most one entry of NLRI and one of MP_REACH_NLRI.
    pub announced: Vec<Reach>,
    /// Attributes of `announced`; `None` when nothing is announced.
    pub attributes: Option<Arc<Attributes>>,
    /// The message is an End-of-RIB marker of that family (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
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
    pub prefixes: Vec<Prefix>,
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
