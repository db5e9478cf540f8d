//! Writing messages. Everything appends to a buffer, so that a burst is one write.

use std::net::Ipv4Addr;

use ubique_model::{Asn, Family, Prefix};

use super::super::attributes::{Aggregator, AsPath, Attributes, NextHop, Origin, RawAttribute, Segment};
use super::super::family::AddressFamily;
use super::super::message::{Nlri, Notification};
use super::attributes::{flag, flags_of, segment, typecode};
use super::{EncodeContext, HEADER_LEN, MAX_MESSAGE, kind, nlri};

/// Routes that no UPDATE can carry. Nothing of them was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The attributes leave no room for a prefix. The caller withdraws what it announced before.
    #[error("the attributes take {octets} octets: no room for a prefix in a message of {max_message}")]
    AttributesTooLong {
        /// Length of the attributes.
        octets: usize,
        /// Limit of the session.
        max_message: usize,
    },
    /// IPv4 prefixes with an IPv6 next hop, or the reverse: RFC 8950 is not negotiated.
    #[error("{prefix} does not go with the next hop {next_hop}")]
    FamilyMismatch {
        /// A prefix of the other family.
        prefix: Prefix,
        /// The next hop.
        next_hop: std::net::IpAddr,
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
    debug_assert!((HEADER_LEN..=MAX_MESSAGE).contains(&length), "a message of {length} octets");
    put_length(out, start + 16, start);
}

/// Writes the length of everything after `from` into the place kept for it. No message exceeds [`MAX_MESSAGE`], so
/// two octets hold it.
fn put_length(out: &mut [u8], at: usize, from: usize) {
    let length = (out.len() - from) as u16;
    out[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

/// Appends a KEEPALIVE.
pub fn encode_keepalive(out: &mut Vec<u8>) {
    let start = begin(out, kind::KEEPALIVE);
    finish(out, start);
}

/// Appends a NOTIFICATION; data that would exceed [`MAX_MESSAGE`] is cut.
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
/// Prefixes keep their order within a family. IPv4 goes into the fields of RFC 4271, IPv6 into MP_REACH_NLRI, which
/// comes first (RFC 7606 §5.1), and MP_UNREACH_NLRI; the other attributes are in order of their type codes.
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
    while prefixes.peek().is_some() {
        let start = begin(out, kind::UPDATE);
        let limit = start + limit(ctx);
        match family {
            Family::Ipv4 => {
                let length_at = out.len();
                out.extend_from_slice(&[0, 0]);
                fill(&mut prefixes, limit - 2, out);
                put_length(out, length_at, length_at + 2);
                out.extend_from_slice(&[0, 0]);
            }
            Family::Ipv6 => {
                out.extend_from_slice(&[0, 0, 0, 0]);
                let attributes_at = out.len();
                multiprotocol(typecode::MP_UNREACH, family, None, &mut prefixes, limit, out);
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
    let family = Family::of_address(next_hop.address());
    if let Some(&Nlri { prefix, .. }) = prefixes.iter().find(|nlri| Family::of(&nlri.prefix) != family) {
        return Err(EncodeError::FamilyMismatch { prefix, next_hop: next_hop.address() });
    }
    let mut encoded = Vec::with_capacity(64);
    encode_attributes(attributes, next_hop, ctx, &mut encoded);
    // MP_REACH_NLRI: its header in the long form, AFI, SAFI, a next hop of two addresses, the reserved octet.
    let around = HEADER_LEN + 4 + if family == Family::Ipv6 { 4 + 3 + 1 + 32 + 1 } else { 0 };
    if around + encoded.len() + nlri::longest(family) > limit(ctx) {
        return Err(EncodeError::AttributesTooLong { octets: encoded.len(), max_message: ctx.max_message });
    }
    let mut prefixes = prefixes.iter().peekable();
    while prefixes.peek().is_some() {
        let start = begin(out, kind::UPDATE);
        let limit = start + limit(ctx);
        out.extend_from_slice(&[0, 0, 0, 0]);
        let attributes_at = out.len();
        if family == Family::Ipv6 {
            multiprotocol(typecode::MP_REACH, family, Some(next_hop), &mut prefixes, limit - encoded.len(), out);
        }
        out.extend_from_slice(&encoded);
        put_length(out, attributes_at - 2, attributes_at);
        if family == Family::Ipv4 {
            fill(&mut prefixes, limit, out);
        }
        finish(out, start);
    }
    Ok(())
}

/// A session's limit, never below what one prefix needs.
fn limit(ctx: &EncodeContext) -> usize {
    ctx.max_message.clamp(HEADER_LEN + 4 + 64, MAX_MESSAGE)
}

/// Appends prefixes while the buffer stays within `limit`.
fn fill<'a, I: Iterator<Item = &'a Nlri>>(prefixes: &mut std::iter::Peekable<I>, limit: usize, out: &mut Vec<u8>) {
    let fits = |nlri: &&Nlri, out: &[u8]| out.len() + 1 + usize::from(nlri.prefix.prefix_len()).div_ceil(8) <= limit;
    while let Some(nlri) = prefixes.next_if(|nlri| fits(nlri, out)) {
        nlri::encode(&nlri.prefix, out);
    }
}

/// Appends MP_REACH_NLRI or MP_UNREACH_NLRI with as many prefixes as fit (RFC 4760 §3, §4).
fn multiprotocol<'a, I: Iterator<Item = &'a Nlri>>(
    code: u8,
    family: Family,
    next_hop: Option<NextHop>,
    prefixes: &mut std::iter::Peekable<I>,
    limit: usize,
    out: &mut Vec<u8>,
) {
    // The length of the length is known only afterwards.
    let mut value = Vec::with_capacity(64);
    let (afi, safi) = AddressFamily::unicast(family).afi_safi();
    value.extend_from_slice(&afi.to_be_bytes());
    value.push(safi);
    match next_hop {
        Some(NextHop::V4(address)) => {
            value.push(4);
            value.extend_from_slice(&address.octets());
            value.push(0);
        }
        Some(NextHop::V6 { global, link_local }) => {
            value.push(if link_local.is_some() { 32 } else { 16 });
            value.extend_from_slice(&global.octets());
            value.extend(link_local.iter().flat_map(|address| address.octets()));
            value.push(0);
        }
        None => {}
    }
    fill(prefixes, limit - out.len() - 4, &mut value);
    attribute(out, flag::OPTIONAL, code, &value);
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
fn encode_attributes(a: &Attributes, next_hop: NextHop, ctx: &EncodeContext, out: &mut Vec<u8>) {
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
    if let NextHop::V4(address) = next_hop {
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
