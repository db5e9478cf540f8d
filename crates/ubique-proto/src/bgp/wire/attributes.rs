//! Reading path attributes: the table of RFC 7606 §7.
//!
//! Each attribute's reader says either nothing (it is stored) or which [`Flaw`] it has. A flaw that withdraws carries
//! the subcode RFC 4271 §6.3 had for it, because the session must end with it when the message turns out to hold no
//! reachable prefix (RFC 7606 §5.2).

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ubique_model::{Asn, Community, Family, LargeCommunity};

use super::super::attributes::{Aggregator, AsPath, Attributes, NextHop, Origin, RawAttribute, Segment};
use super::super::family::AddressFamily;
use super::super::message::{AttributeFault, Nlri, Notification, Treatment};
use super::super::notification::{code, update};
use super::flowspec::{self, Flows};
use super::reader::Reader;
use super::{DecodeContext, nlri, opaque};

/// Attribute flags (RFC 4271 §4.3).
pub(super) mod flag {
    pub(in super::super) const OPTIONAL: u8 = 0x80;
    pub(in super::super) const TRANSITIVE: u8 = 0x40;
    pub(in super::super) const PARTIAL: u8 = 0x20;
    pub(in super::super) const EXTENDED_LENGTH: u8 = 0x10;
    /// The two that belong to the type.
    pub(in super::super) const KIND: u8 = OPTIONAL | TRANSITIVE;
}

/// Attribute type codes.
pub(super) mod typecode {
    pub(in super::super) const ORIGIN: u8 = 1;
    pub(in super::super) const AS_PATH: u8 = 2;
    pub(in super::super) const NEXT_HOP: u8 = 3;
    pub(in super::super) const MED: u8 = 4;
    pub(in super::super) const LOCAL_PREF: u8 = 5;
    pub(in super::super) const ATOMIC_AGGREGATE: u8 = 6;
    pub(in super::super) const AGGREGATOR: u8 = 7;
    pub(in super::super) const COMMUNITIES: u8 = 8;
    pub(in super::super) const ORIGINATOR_ID: u8 = 9;
    pub(in super::super) const CLUSTER_LIST: u8 = 10;
    pub(in super::super) const MP_REACH: u8 = 14;
    pub(in super::super) const MP_UNREACH: u8 = 15;
    pub(in super::super) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(in super::super) const AS4_PATH: u8 = 17;
    pub(in super::super) const AS4_AGGREGATOR: u8 = 18;
    pub(in super::super) const LARGE_COMMUNITIES: u8 = 32;
    pub(in super::super) const ONLY_TO_CUSTOMER: u8 = 35;
}

/// Segment types (RFC 4271 §4.3, RFC 5065 §3).
pub(super) mod segment {
    pub(in super::super) const SET: u8 = 1;
    pub(in super::super) const SEQUENCE: u8 = 2;
    pub(in super::super) const CONFED_SEQUENCE: u8 = 3;
    pub(in super::super) const CONFED_SET: u8 = 4;
}

/// Faults recorded for one message at most. More are treated all the same, a neighbour's noise just is not kept.
pub(super) const MAX_FAULTS: usize = 16;

/// So many large communities are compared with each other; a set would have to be allocated.
const FEW: usize = 16;

/// The flags a recognised attribute must have.
pub(super) fn flags_of(code: u8) -> Option<u8> {
    use typecode::*;
    Some(match code {
        ORIGIN | AS_PATH | NEXT_HOP | LOCAL_PREF | ATOMIC_AGGREGATE => flag::TRANSITIVE,
        MED | ORIGINATOR_ID | CLUSTER_LIST | MP_REACH | MP_UNREACH => flag::OPTIONAL,
        AGGREGATOR | COMMUNITIES | EXTENDED_COMMUNITIES | AS4_PATH | AS4_AGGREGATOR | LARGE_COMMUNITIES
        | ONLY_TO_CUSTOMER => flag::KIND,
        _ => return None,
    })
}

/// An UPDATE Message Error.
pub(super) fn update_error(subcode: u8, data: &[u8]) -> Notification {
    Notification::with_data(code::UPDATE, subcode, data)
}

/// The faults of a message that do not end the session.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// For logs; at most [`MAX_FAULTS`].
    pub(super) list: Vec<AttributeFault>,
    /// The first fault that asks for treat-as-withdraw, as RFC 4271 had it.
    pub(super) withdraw: Option<Notification>,
}

impl Faults {
    pub(super) fn discard(&mut self, code: u8, reason: impl Into<String>) {
        self.record(code, Treatment::AttributeDiscard, reason.into());
    }

    pub(super) fn withdraw(&mut self, code: u8, reason: impl Into<String>, notification: Notification) {
        self.withdraw.get_or_insert(notification);
        self.record(code, Treatment::TreatAsWithdraw, reason.into());
    }

    fn record(&mut self, code: u8, treatment: Treatment, reason: String) {
        let fault = AttributeFault { code, treatment, reason };
        if self.list.len() < MAX_FAULTS {
            self.list.push(fault);
        } else if treatment == Treatment::TreatAsWithdraw
            && !self.list.iter().any(|f| f.treatment == Treatment::TreatAsWithdraw)
        {
            // What decided over the routes must not be lost among what did not.
            self.list[MAX_FAULTS - 1] = fault;
        }
    }
}

/// What is wrong with one attribute.
pub(super) enum Flaw {
    /// Attribute discard.
    Discard(String),
    /// Treat-as-withdraw; the subcode is RFC 4271's.
    Withdraw(u8, String),
    /// Session reset: MP_REACH_NLRI or MP_UNREACH_NLRI cannot be read to its end (RFC 7606 §5.3, §7.11).
    Reset,
}

/// MP_REACH_NLRI or MP_UNREACH_NLRI.
#[derive(Debug)]
pub(super) enum Multiprotocol<N> {
    /// Of a unicast family in use.
    Routes(AddressFamily, N, Vec<Nlri>),
    /// Of a FlowSpec family in use; their next hop means nothing (RFC 8955 §4).
    Flows(AddressFamily, Flows),
    /// Of another: not looked at. Whether it holds any route.
    Ignored(bool),
}

/// What the attributes field held.
#[derive(Debug)]
pub(super) struct Parsed {
    /// Attributes met, malformed ones included.
    pub(super) count: usize,
    seen: [u64; 4],
    pub(super) origin: Option<Origin>,
    pub(super) as_path: Option<AsPath>,
    pub(super) next_hop: Option<Ipv4Addr>,
    pub(super) reach: Option<Multiprotocol<NextHop>>,
    pub(super) unreach: Option<Multiprotocol<()>>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    rest: Attributes,
}

impl Parsed {
    fn new() -> Parsed {
        Parsed {
            count: 0,
            seen: [0; 4],
            origin: None,
            as_path: None,
            next_hop: None,
            reach: None,
            unreach: None,
            as4_path: None,
            as4_aggregator: None,
            rest: Attributes::originated(),
        }
    }

    /// Whether an attribute of this type was met, malformed or not.
    pub(super) fn has(&self, code: u8) -> bool {
        self.seen[usize::from(code >> 6)] & (1 << (code & 63)) != 0
    }

    fn mark(&mut self, code: u8) {
        self.seen[usize::from(code >> 6)] |= 1 << (code & 63);
    }

    /// The attributes of the routes. Call when nothing mandatory is missing.
    pub(super) fn into_attributes(mut self) -> Attributes {
        let (origin, as_path) = (self.origin, self.as_path.take());
        let (as4_path, as4_aggregator) = (self.as4_path.take(), self.as4_aggregator);
        let mut attributes = self.rest;
        attributes.origin = origin.unwrap_or(Origin::Incomplete);
        attributes.as_path = as_path.unwrap_or_default();
        // RFC 6793 §4.2.3: an AGGREGATOR rewritten by an old speaker makes the AS4 attributes stale.
        let stale = as4_aggregator.is_some() && attributes.aggregator.is_some_and(|a| a.asn != Asn::TRANS);
        if !stale {
            if attributes.aggregator.is_some() {
                attributes.aggregator = as4_aggregator.or(attributes.aggregator);
            }
            if let Some(as4_path) = as4_path {
                attributes.as_path = merge(attributes.as_path, as4_path);
            }
        }
        attributes
    }
}

/// Reads the path attributes field.
///
/// # Errors
/// What must end the session whatever else the message holds.
pub(super) fn decode(field: &[u8], ctx: &DecodeContext, faults: &mut Faults) -> Result<Parsed, Notification> {
    let mut parsed = Parsed::new();
    let mut r = Reader::new(field);
    while !r.is_empty() {
        let at = r.rest();
        parsed.count += 1;
        let Some((flags, code, value)) = next_attribute(&mut r) else {
            // RFC 7606 §4. The total length still tells where the NLRI begin.
            let code = if at.len() > 1 { at[1] } else { 0 };
            faults.withdraw(code, "runs over the end of the attributes", malformed_list());
            break;
        };
        let raw = &at[..at.len() - r.rest().len()];
        if parsed.has(code) {
            if matches!(code, typecode::MP_REACH | typecode::MP_UNREACH) {
                return Err(malformed_list());
            }
            faults.discard(code, "came twice: the first counts");
            continue;
        }
        parsed.mark(code);
        match attribute(&mut parsed, flags, code, value, ctx) {
            Ok(()) => {}
            Err(Flaw::Discard(reason)) => faults.discard(code, reason),
            Err(Flaw::Withdraw(subcode, reason)) => {
                let data = if subcode == update::MALFORMED_AS_PATH { &[] } else { raw };
                faults.withdraw(code, reason, update_error(subcode, data));
            }
            Err(Flaw::Reset) if flags_of(code).is_none() => {
                return Err(update_error(update::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE, raw));
            }
            Err(Flaw::Reset) => return Err(update_error(update::OPTIONAL_ATTRIBUTE, raw)),
        }
    }
    Ok(parsed)
}

fn malformed_list() -> Notification {
    update_error(update::MALFORMED_ATTRIBUTE_LIST, &[])
}

pub(super) fn next_attribute<'a>(r: &mut Reader<'a>) -> Option<(u8, u8, &'a [u8])> {
    let (flags, code) = (r.u8()?, r.u8()?);
    let extended = flags & flag::EXTENDED_LENGTH != 0;
    let length = if extended { usize::from(r.u16()?) } else { usize::from(r.u8()?) };
    Some((flags, code, r.take(length)?))
}

fn attribute(parsed: &mut Parsed, flags: u8, code: u8, value: &[u8], ctx: &DecodeContext) -> Result<(), Flaw> {
    use typecode::*;
    match code {
        LOCAL_PREF | ORIGINATOR_ID | CLUSTER_LIST if ctx.external => {
            return Err(Flaw::Discard("from an external neighbour".into()));
        }
        AS4_PATH | AS4_AGGREGATOR if ctx.four_octet_as => {
            return Err(Flaw::Discard("from a neighbour with 4-octet AS numbers (RFC 6793 §6)".into()));
        }
        _ => {}
    }
    let Some(expected) = flags_of(code) else {
        return unknown(parsed, flags, code, value, ctx.external);
    };
    if flags & flag::KIND != expected {
        let reason = format!("flags {flags:#04x} where {expected:#04x} belong");
        return Err(match code {
            MP_REACH | MP_UNREACH => Flaw::Reset,
            // RFC 6793 §6 discards whatever is malformed in these.
            AS4_PATH | AS4_AGGREGATOR => Flaw::Discard(reason),
            _ => Flaw::Withdraw(update::ATTRIBUTE_FLAGS, reason),
        });
    }
    match code {
        ORIGIN => parsed.origin = Some(origin(value)?),
        AS_PATH => parsed.as_path = Some(as_path(value, ctx)?),
        NEXT_HOP => parsed.next_hop = Some(Ipv4Addr::from(fixed::<4>(value)?)),
        MED => parsed.rest.med = Some(u32::from_be_bytes(fixed(value)?)),
        LOCAL_PREF => parsed.rest.local_pref = Some(u32::from_be_bytes(fixed(value)?)),
        ATOMIC_AGGREGATE if value.is_empty() => parsed.rest.atomic_aggregate = true,
        ATOMIC_AGGREGATE => {
            return Err(Flaw::Discard(format!("{} octets where none belong", value.len())));
        }
        AGGREGATOR => parsed.rest.aggregator = Some(aggregator(value, ctx.four_octet_as)?),
        AS4_AGGREGATOR => parsed.as4_aggregator = Some(aggregator(value, true)?),
        AS4_PATH => parsed.as4_path = as4_path(value)?,
        COMMUNITIES => {
            parsed.rest.communities = list(value, |v| Community(u32::from_be_bytes(v)))?;
        }
        EXTENDED_COMMUNITIES => parsed.rest.extended_communities = list(value, |v: [u8; 8]| v)?,
        LARGE_COMMUNITIES => parsed.rest.large_communities = large_communities(value)?,
        // RFC 9234 §5.
        ONLY_TO_CUSTOMER => parsed.rest.only_to_customer = Some(Asn(u32::from_be_bytes(fixed(value)?))),
        ORIGINATOR_ID => parsed.rest.originator_id = Some(Ipv4Addr::from(fixed::<4>(value)?)),
        CLUSTER_LIST => parsed.rest.cluster_list = list(value, |v: [u8; 4]| Ipv4Addr::from(v))?,
        MP_REACH => parsed.reach = Some(mp_reach(value, ctx).ok_or(Flaw::Reset)?),
        MP_UNREACH => parsed.unreach = Some(mp_unreach(value, ctx).ok_or(Flaw::Reset)?),
        // flags_of knows no other.
        _ => {}
    }
    Ok(())
}

/// RFC 4271 §5, §6.3.
fn unknown(parsed: &mut Parsed, flags: u8, code: u8, value: &[u8], external: bool) -> Result<(), Flaw> {
    if flags & flag::OPTIONAL == 0 && !opaque::known(code) {
        return Err(Flaw::Reset);
    }
    opaque::judge(flags, code, value, external)?;
    if flags & flag::TRANSITIVE != 0 {
        let flags = flag::KIND | flag::PARTIAL;
        parsed.rest.unknown.push(RawAttribute { flags, code, value: value.to_vec() });
    }
    Ok(())
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], Flaw> {
    value
        .try_into()
        .map_err(|_| Flaw::Withdraw(update::ATTRIBUTE_LENGTH, format!("{} octets where {N} belong", value.len())))
}

/// A list of items of N octets; at least one (RFC 7606 §4).
pub(super) fn list<const N: usize, T>(value: &[u8], item: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Flaw> {
    let (items, rest) = value.as_chunks::<N>();
    if items.is_empty() || !rest.is_empty() {
        let reason = format!("{} octets, not a positive multiple of {N}", value.len());
        return Err(Flaw::Withdraw(update::OPTIONAL_ATTRIBUTE, reason));
    }
    Ok(items.iter().map(|v| item(*v)).collect())
}

fn origin(value: &[u8]) -> Result<Origin, Flaw> {
    match fixed::<1>(value)? {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        [other] => Err(Flaw::Withdraw(update::INVALID_ORIGIN, format!("ORIGIN {other} is not defined"))),
    }
}

fn aggregator(value: &[u8], four_octet_as: bool) -> Result<Aggregator, Flaw> {
    let mut r = Reader::new(value);
    let parsed = (|| {
        let asn = read_asn(&mut r, four_octet_as)?;
        let router_id = Ipv4Addr::from(r.u32()?);
        r.is_empty().then_some(Aggregator { asn, router_id })
    })();
    let expected = if four_octet_as { 8 } else { 6 };
    match parsed {
        None => Err(Flaw::Discard(format!("{} octets where {expected} belong", value.len()))),
        Some(Aggregator { asn: Asn(0), .. }) => Err(Flaw::Discard("names AS 0 (RFC 7607)".into())),
        Some(aggregator) => Ok(aggregator),
    }
}

/// RFC 8092 §3: repeated values are removed.
fn large_communities(value: &[u8]) -> Result<Vec<LargeCommunity>, Flaw> {
    let mut all = list(value, |v: [u8; 12]| {
        let part = |i: usize| u32::from_be_bytes([v[i], v[i + 1], v[i + 2], v[i + 3]]);
        LargeCommunity([part(0), part(4), part(8)])
    })?;
    if all.len() <= FEW {
        let mut kept = 0;
        for at in 0..all.len() {
            if !all[..kept].contains(&all[at]) {
                all[kept] = all[at];
                kept += 1;
            }
        }
        all.truncate(kept);
    } else {
        let mut seen = BTreeSet::new();
        all.retain(|community| seen.insert(*community));
    }
    Ok(all)
}

fn read_asn(r: &mut Reader<'_>, four_octet_as: bool) -> Option<Asn> {
    if four_octet_as { r.u32().map(Asn) } else { r.u16().map(|asn| Asn(u32::from(asn))) }
}

fn as_path(value: &[u8], ctx: &DecodeContext) -> Result<AsPath, Flaw> {
    let malformed = |reason: &str| Flaw::Withdraw(update::MALFORMED_AS_PATH, reason.to_owned());
    let path = segments(value, ctx.four_octet_as).map_err(malformed)?;
    if ctx.external && path.0.iter().any(is_confederation) {
        // RFC 5065 §5. We are in no confederation, so no external neighbour is in ours.
        return Err(malformed("confederation segment from an external neighbour"));
    }
    Ok(path)
}

/// `None` when nothing of it remains: confederation segments are taken out (RFC 6793 §6).
fn as4_path(value: &[u8]) -> Result<Option<AsPath>, Flaw> {
    if value.is_empty() {
        return Err(Flaw::Discard("is empty".into()));
    }
    let mut path = segments(value, true).map_err(|reason| Flaw::Discard(reason.to_owned()))?;
    path.0.retain(|segment| !is_confederation(segment));
    Ok((!path.0.is_empty()).then_some(path))
}

fn is_confederation(segment: &Segment) -> bool {
    matches!(segment, Segment::ConfedSequence(_) | Segment::ConfedSet(_))
}

fn segments(value: &[u8], four_octet_as: bool) -> Result<AsPath, &'static str> {
    let mut r = Reader::new(value);
    // Nearly always one.
    let mut path = Vec::with_capacity(1);
    while let Some(kind) = r.u8() {
        let count = r.u8().ok_or("one octet after the last segment")?;
        if count == 0 {
            return Err("empty segment");
        }
        let octets = usize::from(count) * if four_octet_as { 4 } else { 2 };
        let octets = r.take(octets).ok_or("segment runs over the end")?;
        let ases: Vec<Asn> = if four_octet_as {
            octets.as_chunks().0.iter().map(|asn| Asn(u32::from_be_bytes(*asn))).collect()
        } else {
            octets.as_chunks().0.iter().map(|asn| Asn(u16::from_be_bytes(*asn).into())).collect()
        };
        if ases.contains(&Asn(0)) {
            return Err("contains AS 0 (RFC 7607)");
        }
        path.push(match kind {
            segment::SET => Segment::Set(ases),
            segment::SEQUENCE => Segment::Sequence(ases),
            segment::CONFED_SEQUENCE => Segment::ConfedSequence(ases),
            segment::CONFED_SET => Segment::ConfedSet(ases),
            _ => return Err("segment of an undefined type"),
        });
    }
    Ok(AsPath(path))
}

/// The path of 4-octet numbers behind AS_PATH and AS4_PATH (RFC 6793 §4.2.3): the hops old speakers put in front of
/// AS4_PATH, then AS4_PATH. An AS4_PATH longer than AS_PATH is ignored.
fn merge(as_path: AsPath, as4_path: AsPath) -> AsPath {
    let Some(mut keep) = as_path.hops().checked_sub(as4_path.hops()) else {
        return as_path;
    };
    let mut merged: Vec<Segment> = Vec::new();
    for segment in as_path.0 {
        match segment {
            Segment::Sequence(mut ases) if keep > 0 => {
                let whole = ases.len() <= keep;
                ases.truncate(keep);
                keep -= ases.len();
                merged.push(Segment::Sequence(ases));
                if !whole {
                    break;
                }
            }
            Segment::Set(_) if keep > 0 => {
                keep -= 1;
                merged.push(segment);
            }
            // Leading, or next to a kept one.
            Segment::ConfedSequence(_) | Segment::ConfedSet(_) => merged.push(segment),
            Segment::Sequence(_) | Segment::Set(_) => break,
        }
    }
    let mut rest = as4_path.0.into_iter().peekable();
    if let (Some(Segment::Sequence(head)), Some(Segment::Sequence(tail))) = (merged.last_mut(), rest.peek())
        && head.len() + tail.len() <= usize::from(u8::MAX)
    {
        head.extend_from_slice(tail);
        rest.next();
    }
    merged.extend(rest);
    AsPath(merged)
}

/// RFC 4760 §3. `None`: the routes cannot be located, or not read to the end.
fn mp_reach(value: &[u8], ctx: &DecodeContext) -> Option<Multiprotocol<NextHop>> {
    let mut r = Reader::new(value);
    let (afi, safi) = (r.u16()?, r.u8()?);
    let length = r.u8()?;
    let next_hop = r.take(usize::from(length))?;
    let _reserved = r.u8()?;
    let Some(family) = in_use(afi, safi, ctx) else {
        return Some(Multiprotocol::Ignored(!r.is_empty()));
    };
    if !family.is_unicast() {
        return Some(Multiprotocol::Flows(family, flowspec::decode(r.rest(), family.family())?));
    }
    let next_hop = match family.family() {
        // RFC 8950 §3: the length of the next hop says what it is.
        Family::Ipv4 if next_hop.len() != 4 && ctx.extended_next_hop.contains(family) => next_hop_v6(next_hop)?,
        Family::Ipv4 => NextHop::V4(Ipv4Addr::from(<[u8; 4]>::try_from(next_hop).ok()?)),
        Family::Ipv6 => next_hop_v6(next_hop)?,
    };
    let prefixes = nlri::decode(r.rest(), family.family(), ctx.add_path.contains(family))?;
    Some(Multiprotocol::Routes(family, next_hop, prefixes))
}

/// The family in use with these numbers.
fn in_use(afi: u16, safi: u8, ctx: &DecodeContext) -> Option<AddressFamily> {
    AddressFamily::from_afi_safi(afi, safi).filter(|&family| ctx.families.contains(family))
}

/// RFC 2545 §3. A second address that is not link-local (some send `::`) is as good as none.
fn next_hop_v6(octets: &[u8]) -> Option<NextHop> {
    let mut r = Reader::new(octets);
    let global = Ipv6Addr::from(r.array::<16>()?);
    let second = if r.is_empty() { None } else { Some(Ipv6Addr::from(r.array::<16>()?)) };
    let link_local = second.filter(Ipv6Addr::is_unicast_link_local);
    r.is_empty().then_some(NextHop::V6 { global, link_local })
}

/// RFC 4760 §4.
fn mp_unreach(value: &[u8], ctx: &DecodeContext) -> Option<Multiprotocol<()>> {
    let mut r = Reader::new(value);
    let (afi, safi) = (r.u16()?, r.u8()?);
    let Some(family) = in_use(afi, safi, ctx) else {
        return Some(Multiprotocol::Ignored(!r.is_empty()));
    };
    if !family.is_unicast() {
        return Some(Multiprotocol::Flows(family, flowspec::decode(r.rest(), family.family())?));
    }
    let prefixes = nlri::decode(r.rest(), family.family(), ctx.add_path.contains(family))?;
    Some(Multiprotocol::Routes(family, (), prefixes))
}
