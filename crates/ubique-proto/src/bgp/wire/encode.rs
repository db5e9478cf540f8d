//! Writing messages. Everything appends to a buffer, so that a burst is one write.

use std::net::Ipv4Addr;

use ubique_model::{Asn, Family, Prefix};

use super::super::attributes::{Aggregator, AsPath, Attributes, NextHop, Origin, RawAttribute, Segment};
use super::super::family::AddressFamily;
use super::super::flowspec::{FlowSpec, FlowSpecError};
use super::super::message::{Nlri, Notification};
use super::attributes::{flag, flags_of, segment, typecode};
use super::{EncodeContext, HEADER_LEN, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, flowspec, kind, nlri};

/// Routes that no UPDATE can carry. Nothing of them was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The attributes leave no room for a prefix. The caller withdraws what it announced before.
    #[error("the attributes take {octets} octets: no room for a prefix in a message of {max_message}")]
    AttributesTooLong {
        /// Length of the attributes.
        octets: usize,
        /// Limit of the session.
        max_message: usize,
    },
    /// IPv4 prefixes with an IPv6 next hop when RFC 8950 is not negotiated, or IPv6 prefixes with an IPv4 one.
    #[error("{prefix} does not go with the next hop {next_hop}")]
    FamilyMismatch {
        /// A prefix of the other family.
        prefix: Prefix,
        /// The next hop.
        next_hop: std::net::IpAddr,
    },
    /// A rule that is not well-formed.
    #[error(transparent)]
    Flow(#[from] FlowSpecError),
    /// A rule that is longer than any may be, or than this message has room for.
    #[error("a FlowSpec rule of {octets} octets: {room} at most")]
    FlowTooLong {
        /// Length of the rule.
        octets: usize,
        /// What there is room for.
        room: usize,
    },
}

/// Starts a message; [`finish`] with the same value ends it.
pub(super) fn begin(out: &mut Vec<u8>, kind: u8) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind]);
    start
}

pub(super) fn finish(out: &mut [u8], start: usize) {
    let length = out.len() - start;
    debug_assert!((HEADER_LEN..=MAX_EXTENDED_MESSAGE).contains(&length), "a message of {length} octets");
    put_length(out, start + 16, start);
}

/// Writes the length of everything after `from` into the place kept for it. No message exceeds
/// [`MAX_EXTENDED_MESSAGE`], so two octets hold it.
fn put_length(out: &mut [u8], at: usize, from: usize) {
    let length = (out.len() - from) as u16;
    out[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

/// Appends a KEEPALIVE.
pub fn encode_keepalive(out: &mut Vec<u8>) {
    let start = begin(out, kind::KEEPALIVE);
    finish(out, start);
}

/// Appends a NOTIFICATION; data that would exceed [`MAX_MESSAGE`] is cut, also where longer ones could be sent (RFC 8654
/// §4): it is for people to read.
pub fn encode_notification(notification: &Notification, out: &mut Vec<u8>) {
    let start = begin(out, kind::NOTIFICATION);
    out.extend_from_slice(&[notification.code, notification.subcode]);
    let room = MAX_MESSAGE - HEADER_LEN - 2;
    out.extend_from_slice(&notification.data[..notification.data.len().min(room)]);
    finish(out, start);
}

/// Appends a ROUTE-REFRESH for a family: subtype 0 asks (RFC 2918), 1 and 2 frame the answer (RFC 7313 §4).
pub fn encode_route_refresh(family: AddressFamily, subtype: u8, out: &mut Vec<u8>) {
    let start = begin(out, kind::ROUTE_REFRESH);
    let (afi, safi) = family.afi_safi();
    out.extend_from_slice(&afi.to_be_bytes());
    out.extend_from_slice(&[subtype, safi]);
    finish(out, start);
}

/// Appends the End-of-RIB marker of a family (RFC 4724 §2).
pub fn encode_end_of_rib(family: AddressFamily, out: &mut Vec<u8>) {
    let start = begin(out, kind::UPDATE);
    match family {
        AddressFamily::Ipv4Unicast => out.extend_from_slice(&[0, 0, 0, 0]),
        family => {
            let (afi, safi) = family.afi_safi();
            let [high, low] = afi.to_be_bytes();
            out.extend_from_slice(&[0, 0, 0, 6, flag::OPTIONAL, typecode::MP_UNREACH, 3, high, low, safi]);
        }
    }
    finish(out, start);
}

/// Appends as few UPDATEs as hold these routes: withdrawals first, in messages of their own, then announcements.
///
/// Prefixes keep their order within a family. IPv4 goes into the fields of RFC 4271, IPv6, and IPv4 with an IPv6 next hop
/// (RFC 8950), into MP_REACH_NLRI, which comes first (RFC 7606 §5.1), and MP_UNREACH_NLRI; the other attributes are in
/// order of their type codes.
///
/// # Errors
/// The announced routes cannot be sent; withdrawals are written even so.
pub fn encode_updates(
    withdrawn: &[Nlri],
    announced: Option<(&Attributes, NextHop, &[Nlri])>,
    ctx: &EncodeContext,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    encode_withdrawals(withdrawn, Family::Ipv4, ctx, out);
    encode_withdrawals(withdrawn, Family::Ipv6, ctx, out);
    match announced {
        None | Some((_, _, [])) => Ok(()),
        Some((attributes, next_hop, prefixes)) => encode_announcements(attributes, next_hop, prefixes, ctx, out),
    }
}

fn encode_withdrawals(prefixes: &[Nlri], family: Family, ctx: &EncodeContext, out: &mut Vec<u8>) {
    let mut prefixes = prefixes.iter().filter(|nlri| Family::of(&nlri.prefix) == family).peekable();
    let family = AddressFamily::unicast(family);
    let add_path = ctx.add_path.contains(family);
    while prefixes.peek().is_some() {
        let start = begin(out, kind::UPDATE);
        let limit = start + limit(ctx);
        match family {
            AddressFamily::Ipv4Unicast => {
                let length_at = out.len();
                out.extend_from_slice(&[0, 0]);
                fill(&mut prefixes, add_path, limit - 2, out);
                put_length(out, length_at, length_at + 2);
                out.extend_from_slice(&[0, 0]);
            }
            family => {
                out.extend_from_slice(&[0, 0, 0, 0]);
                let attributes_at = out.len();
                let mut value = multiprotocol(family, None);
                fill(&mut prefixes, add_path, limit - out.len() - 4, &mut value);
                attribute(out, flag::OPTIONAL, typecode::MP_UNREACH, &value);
                put_length(out, attributes_at - 2, attributes_at);
            }
        }
        finish(out, start);
    }
}

fn encode_announcements(
    attributes: &Attributes,
    next_hop: NextHop,
    prefixes: &[Nlri],
    ctx: &EncodeContext,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let family = prefixes.first().map_or(Family::Ipv4, |nlri| Family::of(&nlri.prefix));
    let classic = matches!(next_hop, NextHop::V4(_));
    let goes = |nlri: &Nlri| match (Family::of(&nlri.prefix), classic) {
        (Family::Ipv4, true) => true,
        (Family::Ipv4, false) => family == Family::Ipv4 && ctx.extended_next_hop.contains(Family::Ipv4),
        (Family::Ipv6, _) => family == Family::Ipv6 && !classic,
    };
    if let Some(&Nlri { prefix, .. }) = prefixes.iter().find(|nlri| !goes(nlri)) {
        return Err(EncodeError::FamilyMismatch { prefix, next_hop: next_hop.address() });
    }
    let add_path = ctx.add_path.contains(family);
    let encoded = attributes_within(attributes, Some(next_hop), nlri::longest(family, add_path), ctx)?;
    let mut prefixes = prefixes.iter().peekable();
    while prefixes.peek().is_some() {
        let start = begin(out, kind::UPDATE);
        let limit = start + limit(ctx);
        out.extend_from_slice(&[0, 0, 0, 0]);
        let attributes_at = out.len();
        if !classic {
            let mut value = multiprotocol(family.into(), Some(Some(next_hop)));
            fill(&mut prefixes, add_path, limit - encoded.len() - out.len() - 4, &mut value);
            attribute(out, flag::OPTIONAL, typecode::MP_REACH, &value);
        }
        out.extend_from_slice(&encoded);
        put_length(out, attributes_at - 2, attributes_at);
        if classic {
            fill(&mut prefixes, add_path, limit, out);
        }
        finish(out, start);
    }
    Ok(())
}

/// The attributes but MP_REACH_NLRI, when they leave room for it and for routes of `least` octets.
fn attributes_within(
    attributes: &Attributes,
    next_hop: Option<NextHop>,
    least: usize,
    ctx: &EncodeContext,
) -> Result<Vec<u8>, EncodeError> {
    let mut encoded = Vec::with_capacity(64);
    encode_attributes(attributes, next_hop, ctx, &mut encoded);
    // MP_REACH_NLRI: its header in the long form, AFI, SAFI, a next hop of two addresses, the reserved octet.
    let around = match next_hop {
        Some(NextHop::V4(_)) => HEADER_LEN + 4,
        Some(NextHop::V6 { .. }) => HEADER_LEN + 4 + 4 + 3 + 1 + 32 + 1,
        None => HEADER_LEN + 4 + 4 + 3 + 1 + 1,
    };
    if around + encoded.len() + least > limit(ctx) {
        return Err(EncodeError::AttributesTooLong { octets: encoded.len(), max_message: ctx.max_message });
    }
    Ok(encoded)
}

/// Appends as few UPDATEs as hold these FlowSpec rules: withdrawals first, in messages of their own, then announcements.
///
/// # Errors
/// A rule is not well-formed or longer than fits, or the attributes leave no room. Nothing was written then.
pub fn encode_flows(
    withdrawn: &[FlowSpec],
    announced: Option<(&Attributes, &[FlowSpec])>,
    ctx: &EncodeContext,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    let result = flow_updates(withdrawn, None, ctx, out).and_then(|()| match announced {
        None | Some((_, [])) => Ok(()),
        Some((attributes, flows)) => {
            let encoded = attributes_within(attributes, None, 0, ctx)?;
            flow_updates(flows, Some(&encoded), ctx, out)
        }
    });
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Rules with the attributes they are announced with; `None` takes them back.
fn flow_updates(
    flows: &[FlowSpec],
    attributes: Option<&[u8]>,
    ctx: &EncodeContext,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    // Lengths, the header of the attribute in the long form, AFI, SAFI, an empty next hop, the reserved octet.
    let around = HEADER_LEN + 4 + 4 + 3 + 2 + attributes.map_or(0, <[u8]>::len);
    let room = limit(ctx).saturating_sub(around);
    for family in Family::ALL {
        let head = multiprotocol(AddressFamily::flowspec(family), attributes.map(|_| None));
        let mut value = head.clone();
        for flow in flows.iter().filter(|flow| flow.family == family) {
            flow.well_formed()?;
            let mut rule = Vec::new();
            let too_long = |octets| EncodeError::FlowTooLong { octets, room: room.min(flowspec::MAX_RULE) };
            flowspec::encode(flow, &mut rule).map_err(too_long)?;
            if rule.len() > room {
                return Err(too_long(rule.len()));
            }
            if value.len() - head.len() + rule.len() > room {
                flow_update(&value, attributes, out);
                value.truncate(head.len());
            }
            value.extend_from_slice(&rule);
        }
        if value.len() > head.len() {
            flow_update(&value, attributes, out);
        }
    }
    Ok(())
}

fn flow_update(value: &[u8], attributes: Option<&[u8]>, out: &mut Vec<u8>) {
    let start = begin(out, kind::UPDATE);
    out.extend_from_slice(&[0, 0, 0, 0]);
    let attributes_at = out.len();
    let code = if attributes.is_some() { typecode::MP_REACH } else { typecode::MP_UNREACH };
    attribute(out, flag::OPTIONAL, code, value);
    out.extend_from_slice(attributes.unwrap_or_default());
    put_length(out, attributes_at - 2, attributes_at);
    finish(out, start);
}

/// A session's limit, never below what one prefix needs.
fn limit(ctx: &EncodeContext) -> usize {
    ctx.max_message.clamp(HEADER_LEN + 4 + 64, MAX_EXTENDED_MESSAGE)
}

/// Appends prefixes while the buffer stays within `limit`.
fn fill<'a, I: Iterator<Item = &'a Nlri>>(
    prefixes: &mut std::iter::Peekable<I>,
    add_path: bool,
    limit: usize,
    out: &mut Vec<u8>,
) {
    while let Some(nlri) = prefixes.next_if(|nlri| out.len() + nlri::length(nlri, add_path) <= limit) {
        nlri::encode(nlri, add_path, out);
    }
}

/// What MP_UNREACH_NLRI, or with a next hop MP_REACH_NLRI, starts with (RFC 4760 §3, §4). FlowSpec has an empty next hop
/// (RFC 8955 §4).
fn multiprotocol(family: AddressFamily, next_hop: Option<Option<NextHop>>) -> Vec<u8> {
    let mut value = Vec::with_capacity(64);
    let (afi, safi) = family.afi_safi();
    value.extend_from_slice(&afi.to_be_bytes());
    value.push(safi);
    match next_hop {
        Some(Some(NextHop::V4(address))) => {
            value.push(4);
            value.extend_from_slice(&address.octets());
            value.push(0);
        }
        Some(Some(NextHop::V6 { global, link_local })) => {
            value.push(if link_local.is_some() { 32 } else { 16 });
            value.extend_from_slice(&global.octets());
            value.extend(link_local.iter().flat_map(|address| address.octets()));
            value.push(0);
        }
        Some(None) => value.extend_from_slice(&[0, 0]),
        None => {}
    }
    value
}

/// Appends one attribute; the length takes two octets only when it must.
fn attribute(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => out.extend_from_slice(&[flags, code, length]),
        Err(_) => {
            out.extend_from_slice(&[flags | flag::EXTENDED_LENGTH, code]);
            out.extend_from_slice(&(value.len().min(usize::from(u16::MAX)) as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(value);
}

/// Writes attributes in order of their type codes, those ubique does not know in between.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    unknown: std::iter::Peekable<std::vec::IntoIter<&'a RawAttribute>>,
}

impl Writer<'_> {
    fn known(&mut self, code: u8, value: &[u8]) {
        self.unknown_before(code.into());
        attribute(self.out, flags_of(code).unwrap_or(flag::KIND), code, value);
    }

    fn unknown_before(&mut self, code: u16) {
        while let Some(raw) = self.unknown.next_if(|raw| u16::from(raw.code) < code) {
            // We pass on what we did not understand (RFC 4271 §5).
            attribute(self.out, raw.flags & !flag::EXTENDED_LENGTH | flag::PARTIAL, raw.code, &raw.value);
        }
    }
}

/// Everything but MP_REACH_NLRI.
fn encode_attributes(a: &Attributes, next_hop: Option<NextHop>, ctx: &EncodeContext, out: &mut Vec<u8>) {
    use typecode::*;
    let mut unknown: Vec<&RawAttribute> = a.unknown.iter().filter(|raw| flags_of(raw.code).is_none()).collect();
    unknown.sort_by_key(|raw| raw.code);
    let mut w = Writer { out, unknown: unknown.into_iter().peekable() };
    w.known(
        ORIGIN,
        &[match a.origin {
            Origin::Igp => 0,
            Origin::Egp => 1,
            Origin::Incomplete => 2,
        }],
    );
    w.known(AS_PATH, &path(&a.as_path, ctx.four_octet_as));
    if let Some(NextHop::V4(address)) = next_hop {
        w.known(NEXT_HOP, &address.octets());
    }
    if let Some(med) = a.med {
        w.known(MED, &med.to_be_bytes());
    }
    if let Some(local_pref) = a.local_pref.filter(|_| !ctx.external) {
        w.known(LOCAL_PREF, &local_pref.to_be_bytes());
    }
    if a.atomic_aggregate {
        w.known(ATOMIC_AGGREGATE, &[]);
    }
    if let Some(it) = a.aggregator {
        w.known(AGGREGATOR, &aggregator(it, ctx.four_octet_as));
    }
    if !a.communities.is_empty() {
        w.known(COMMUNITIES, &octets(&a.communities, |c| c.0.to_be_bytes()));
    }
    if let Some(id) = a.originator_id.filter(|_| !ctx.external) {
        w.known(ORIGINATOR_ID, &id.octets());
    }
    if !a.cluster_list.is_empty() && !ctx.external {
        w.known(CLUSTER_LIST, &octets(&a.cluster_list, Ipv4Addr::octets));
    }
    if !a.extended_communities.is_empty() {
        w.known(EXTENDED_COMMUNITIES, &a.extended_communities.concat());
    }
    if !ctx.four_octet_as {
        as4(a, &mut w);
    }
    if !a.large_communities.is_empty() {
        let parts: Vec<u32> = a.large_communities.iter().flat_map(|c| c.0).collect();
        w.known(LARGE_COMMUNITIES, &octets(&parts, |part| part.to_be_bytes()));
    }
    if let Some(asn) = a.only_to_customer {
        w.known(ONLY_TO_CUSTOMER, &asn.0.to_be_bytes());
    }
    w.unknown_before(u16::MAX);
}

/// What a 2-octet neighbour passes on unread (RFC 6793 §4.2.2). Confederation segments are not part of it.
fn as4(a: &Attributes, w: &mut Writer<'_>) {
    if a.as_path.ases().any(|asn| two_octets(asn).is_none()) {
        let plain = a.as_path.0.iter().filter(|s| matches!(s, Segment::Sequence(_) | Segment::Set(_)));
        let plain = path(&AsPath(plain.cloned().collect()), true);
        if !plain.is_empty() {
            w.known(typecode::AS4_PATH, &plain);
        }
    }
    if let Some(it) = a.aggregator.filter(|it| two_octets(it.asn).is_none()) {
        w.known(typecode::AS4_AGGREGATOR, &aggregator(it, true));
    }
}

fn two_octets(asn: Asn) -> Option<u16> {
    u16::try_from(asn.0).ok()
}

fn push_asn(asn: Asn, four_octet_as: bool, out: &mut Vec<u8>) {
    if four_octet_as {
        out.extend_from_slice(&asn.0.to_be_bytes());
    } else {
        out.extend_from_slice(&two_octets(asn).unwrap_or(Asn::TRANS.0 as u16).to_be_bytes());
    }
}

fn octets<T: Copy, const N: usize>(items: &[T], f: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    items.iter().flat_map(f).collect()
}

fn aggregator(it: Aggregator, four_octet_as: bool) -> Vec<u8> {
    let mut value = Vec::with_capacity(8);
    push_asn(it.asn, four_octet_as, &mut value);
    value.extend_from_slice(&it.router_id.octets());
    value
}

/// Segments of more than 255 numbers are written as several; empty ones are malformed and left out.
fn path(path: &AsPath, four_octet_as: bool) -> Vec<u8> {
    let mut value = Vec::new();
    for it in &path.0 {
        let (kind, ases) = match it {
            Segment::Set(ases) => (segment::SET, ases),
            Segment::Sequence(ases) => (segment::SEQUENCE, ases),
            Segment::ConfedSequence(ases) => (segment::CONFED_SEQUENCE, ases),
            Segment::ConfedSet(ases) => (segment::CONFED_SET, ases),
        };
        for chunk in ases.chunks(usize::from(u8::MAX)) {
            value.extend_from_slice(&[kind, chunk.len() as u8]);
            for &asn in chunk {
                push_asn(asn, four_octet_as, &mut value);
            }
        }
    }
    value
}
