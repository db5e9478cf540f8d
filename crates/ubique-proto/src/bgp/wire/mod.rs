//! BGP messages ↔ bytes.
//!
//! [`Framer`] cuts a byte stream into messages, [`decode`] reads one, `encode_*` append one to a buffer;
//! [`encode_updates`] packs prefixes into as few UPDATEs as fit, [`encode_flows`] FlowSpec rules. Every fault of a received
//! message ends in exactly one of three ways: a [`Notification`] with the code, subcode and data the RFCs ask for; an
//! [`AttributeFault`](super::message::AttributeFault) that says whether the attribute was dropped or the routes
//! withdrawn (RFC 7606); or, where an RFC says so, silence (an unknown optional non-transitive attribute).
//!
//! What the codec cannot know is left to the session: whether the AS is the configured one, whether a message fits the
//! state, whether a next hop is on the shared subnet (RFC 4271 §5.1.3), whether the path starts with the neighbour's AS.
//!
//! Deliberately absent: families other than unicast and FlowSpec, path identifiers of FlowSpec rules, confederations of
//! our own. None is ever negotiated. NOTIFICATIONs of ours stay within [`MAX_MESSAGE`], which every neighbour reads.
//! AS_SETs are accepted (RFC 9774 wants them withdrawn; most neighbours still send some).
//!
//! Where to start: `update` for RFC 7606, `attributes` for its table.
//!
//! RFCs: 4271 §4 and §6, 4360, 4456, 4724 §2, 4760, 2545, 2918, 5065, 5492, 6286, 6793, 7313 §5, 7606, 7607, 8092, 9072,
//! 1997, 9234 §5 and those of `opaque`; 7911 §3, 8654, 8950 §3, 8955 §4, 8956 §3; capabilities: 4724 §3, 7313, 7911 §4,
//! 8538 §2, 8654, 8950 §4, 9234 §4.1, 9494 §3.1.

mod attributes;
mod capabilities;
mod encode;
mod flowspec;
mod framer;
mod nlri;
mod opaque;
mod open;
mod reader;
mod update;

pub use capabilities::{MAX_RESTART_TIME, MAX_STALE_TIME};
pub use encode::{
    EncodeError, encode_end_of_rib, encode_flows, encode_keepalive, encode_notification, encode_route_refresh,
    encode_updates,
};
pub use framer::{EXTENDED_FRAMER_CAPACITY, FRAMER_CAPACITY, Framer};
pub use open::encode_open;

use serde::{Deserialize, Serialize};

use super::family::AddressFamilies;
use super::message::{Message, Notification};
use super::notification::{code, header};
use reader::Reader;

/// Length of the header: marker, length, type (RFC 4271 §4.1).
pub const HEADER_LEN: usize = 19;

/// Longest message (RFC 4271 §4.1).
pub const MAX_MESSAGE: usize = 4096;

/// Longest message but OPEN and KEEPALIVE once both sides can (RFC 8654 §3).
pub const MAX_EXTENDED_MESSAGE: usize = 65_535;

/// Message types (RFC 4271 §4.1, RFC 2918).
pub(in crate::bgp) mod kind {
    pub(in crate::bgp) const OPEN: u8 = 1;
    pub(in crate::bgp) const UPDATE: u8 = 2;
    pub(in crate::bgp) const NOTIFICATION: u8 = 3;
    pub(in crate::bgp) const KEEPALIVE: u8 = 4;
    pub(in crate::bgp) const ROUTE_REFRESH: u8 = 5;
}

/// What was negotiated, as far as reading needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecodeContext {
    /// AS numbers have four octets: both sides sent the capability (RFC 6793).
    pub four_octet_as: bool,
    /// The neighbour is in another AS.
    pub external: bool,
    /// Families negotiated; routes of others are ignored.
    pub families: AddressFamilies,
    /// Unicast families whose prefixes come with a path identifier (RFC 7911). FlowSpec rules have none here.
    pub add_path: AddressFamilies,
    /// Families that may come with IPv6 next hops though they are not IPv6 (RFC 8950).
    pub extended_next_hop: AddressFamilies,
    /// Longest message accepted: [`MAX_MESSAGE`], or [`MAX_EXTENDED_MESSAGE`] once negotiated (RFC 8654).
    pub max_message: usize,
}

impl DecodeContext {
    /// Before anything is negotiated, with an external neighbour.
    pub const INITIAL: DecodeContext = DecodeContext {
        four_octet_as: false,
        external: true,
        families: AddressFamilies::UNICAST,
        add_path: AddressFamilies::NONE,
        extended_next_hop: AddressFamilies::NONE,
        max_message: MAX_MESSAGE,
    };
}

/// What was negotiated, as far as writing needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeContext {
    /// AS numbers have four octets: both sides sent the capability (RFC 6793).
    pub four_octet_as: bool,
    /// The neighbour is in another AS: LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST stay here.
    pub external: bool,
    /// Unicast families whose prefixes get a path identifier (RFC 7911).
    pub add_path: AddressFamilies,
    /// Families that may go out with IPv6 next hops though they are not IPv6 (RFC 8950).
    pub extended_next_hop: AddressFamilies,
    /// Longest message to send: [`MAX_MESSAGE`], or [`MAX_EXTENDED_MESSAGE`] once negotiated (RFC 8654).
    pub max_message: usize,
}

/// Reads one message, header included.
///
/// # Errors
/// The NOTIFICATION to send before the session is closed.
pub fn decode(message: &[u8], ctx: &DecodeContext) -> Result<Message, Notification> {
    let bad_length = |length: usize| bad_length(u16::try_from(length).unwrap_or(u16::MAX));
    let Some((head, body)) = message.split_first_chunk::<HEADER_LEN>() else {
        return Err(bad_length(message.len()));
    };
    let (length, kind) = check_header(head, ctx.max_message)?;
    if length != message.len() {
        return Err(bad_length(length));
    }
    Ok(match kind {
        kind::OPEN => Message::Open(open::decode(body)?),
        kind::UPDATE => Message::Update(update::decode(body, ctx)?),
        kind::NOTIFICATION => Message::Notification(decode_notification(body).ok_or_else(|| bad_length(length))?),
        kind::KEEPALIVE => Message::Keepalive,
        kind::ROUTE_REFRESH => decode_route_refresh(message, body).ok_or_else(|| bad_length(length))??,
        // check_header knows no other.
        other => return Err(bad_type(other)),
    })
}

/// Checks a header (RFC 4271 §6.1): length of the whole message and type.
fn check_header(head: &[u8; HEADER_LEN], max_message: usize) -> Result<(usize, u8), Notification> {
    let (marker, rest) = head.split_at(16);
    if marker.iter().any(|&octet| octet != 0xff) {
        return Err(Notification::new(code::MESSAGE_HEADER, header::CONNECTION_NOT_SYNCHRONIZED));
    }
    let length = u16::from_be_bytes([rest[0], rest[1]]);
    let octets = usize::from(length);
    let kind = rest[2];
    // RFC 8654 §4: these two never grow.
    let longest = if matches!(kind, kind::OPEN | kind::KEEPALIVE) { MAX_MESSAGE } else { max_message };
    if octets < HEADER_LEN || octets > longest {
        return Err(bad_length(length));
    }
    let fits = match kind {
        kind::OPEN => octets >= 29,
        kind::UPDATE => octets >= 23,
        kind::NOTIFICATION => octets >= 21,
        kind::KEEPALIVE => octets == HEADER_LEN,
        // Longer ones are judged with their body (RFC 7313 §5).
        kind::ROUTE_REFRESH => octets >= 23,
        other => return Err(bad_type(other)),
    };
    if fits { Ok((octets, kind)) } else { Err(bad_length(length)) }
}

fn bad_length(length: u16) -> Notification {
    Notification::with_data(code::MESSAGE_HEADER, header::BAD_MESSAGE_LENGTH, length.to_be_bytes())
}

fn bad_type(kind: u8) -> Notification {
    Notification::with_data(code::MESSAGE_HEADER, header::BAD_MESSAGE_TYPE, [kind])
}

fn decode_notification(body: &[u8]) -> Option<Notification> {
    let mut r = Reader::new(body);
    Some(Notification { code: r.u8()?, subcode: r.u8()?, data: r.rest().to_vec() })
}

/// `None`: a bad length by RFC 4271. A wrong length of the subtypes of RFC 7313 has a NOTIFICATION of its own.
fn decode_route_refresh(message: &[u8], body: &[u8]) -> Option<Result<Message, Notification>> {
    let mut r = Reader::new(body);
    let (afi, subtype, safi) = (r.u16()?, r.u8()?, r.u8()?);
    if r.is_empty() {
        return Some(Ok(Message::RouteRefresh { afi, subtype, safi }));
    }
    let own_error = matches!(subtype, 1 | 2);
    own_error.then(|| {
        let subcode = super::notification::route_refresh::INVALID_MESSAGE_LENGTH;
        Err(Notification::with_data(code::ROUTE_REFRESH, subcode, message))
    })
}
