//! Attributes and next hop of a route in one allocation of a few dozen octets, as Adj-RIB-In keeps them.
//!
//! A private form: numbers big-endian, counts in groups of seven bits, only what is present. Equal routes have equal
//! octets, so comparing and hashing need not look inside.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ubique_model::{Asn, Community, LargeCommunity};

use crate::bgp::attributes::{Aggregator, AsPath, Attributes, NextHop, Origin, RawAttribute, Segment};

/// What the leading 16 bits say is there; the lowest two are ORIGIN.
mod present {
    pub const ORIGIN: u16 = 0b11;
    pub const MED: u16 = 1 << 2;
    pub const LOCAL_PREF: u16 = 1 << 3;
    pub const ATOMIC_AGGREGATE: u16 = 1 << 4;
    pub const AGGREGATOR: u16 = 1 << 5;
    pub const COMMUNITIES: u16 = 1 << 6;
    pub const EXTENDED_COMMUNITIES: u16 = 1 << 7;
    pub const LARGE_COMMUNITIES: u16 = 1 << 8;
    pub const ORIGINATOR_ID: u16 = 1 << 9;
    pub const CLUSTER_LIST: u16 = 1 << 10;
    pub const ONLY_TO_CUSTOMER: u16 = 1 << 11;
    pub const UNKNOWN: u16 = 1 << 12;
    pub const NEXT_HOP_V6: u16 = 1 << 13;
    pub const NEXT_HOP_LINK_LOCAL: u16 = 1 << 14;
}

/// A packed route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed(Box<[u8]>);

impl Packed {
    /// From what [`pack`] wrote.
    pub(super) fn new(octets: &[u8]) -> Packed {
        Packed(octets.into())
    }

    pub(super) fn octets(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn unpack(&self) -> (Attributes, NextHop) {
        unpack(&mut Reader(&self.0))
    }
}

impl Serialize for Packed {
    /// Unpacked: a recording does not depend on the private form.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.unpack().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Packed, D::Error> {
        let (attributes, next_hop) = <(Attributes, NextHop)>::deserialize(deserializer)?;
        let mut octets = vec![];
        pack(&attributes, next_hop, &mut octets);
        Ok(Packed::new(&octets))
    }
}

/// Writes a route to the empty `out`.
pub(super) fn pack(attributes: &Attributes, next_hop: NextHop, out: &mut Vec<u8>) {
    // Named one by one, so that none is forgotten.
    let Attributes {
        origin,
        as_path,
        med,
        local_pref,
        atomic_aggregate,
        aggregator,
        communities,
        extended_communities,
        large_communities,
        originator_id,
        cluster_list,
        only_to_customer,
        unknown,
    } = attributes;
    let mut flags = *origin as u16;
    out.extend_from_slice(&[0, 0]);
    let mut has = |bit: u16, is: bool| {
        flags |= if is { bit } else { 0 };
        is
    };
    put_next_hop(next_hop, &mut has, out);
    put_path(as_path, out);
    has(present::ATOMIC_AGGREGATE, *atomic_aggregate);
    let numbers = [
        (present::MED, *med),
        (present::LOCAL_PREF, *local_pref),
        (present::ORIGINATOR_ID, originator_id.map(Ipv4Addr::to_bits)),
        (present::ONLY_TO_CUSTOMER, only_to_customer.map(|asn| asn.0)),
    ];
    for (bit, value) in numbers {
        if has(bit, value.is_some()) {
            number(value.unwrap_or_default(), out);
        }
    }
    if let Some(Aggregator { asn, router_id }) = aggregator {
        has(present::AGGREGATOR, true);
        number(asn.0, out);
        number(router_id.to_bits(), out);
    }
    if has(present::COMMUNITIES, !communities.is_empty()) {
        list(communities, out, |c, out| number(c.0, out));
    }
    if has(present::EXTENDED_COMMUNITIES, !extended_communities.is_empty()) {
        list(extended_communities, out, |c, out| out.extend_from_slice(c));
    }
    if has(present::LARGE_COMMUNITIES, !large_communities.is_empty()) {
        list(large_communities, out, |c, out| c.0.iter().for_each(|&part| number(part, out)));
    }
    if has(present::CLUSTER_LIST, !cluster_list.is_empty()) {
        list(cluster_list, out, |id, out| number(id.to_bits(), out));
    }
    if has(present::UNKNOWN, !unknown.is_empty()) {
        list(unknown, out, |raw, out| {
            out.extend_from_slice(&[raw.flags, raw.code]);
            count(raw.value.len(), out);
            out.extend_from_slice(&raw.value);
        });
    }
    out[..2].copy_from_slice(&flags.to_be_bytes());
}

fn put_next_hop(next_hop: NextHop, has: &mut impl FnMut(u16, bool) -> bool, out: &mut Vec<u8>) {
    match next_hop {
        NextHop::V4(address) => out.extend_from_slice(&address.octets()),
        NextHop::V6 { global, link_local } => {
            has(present::NEXT_HOP_V6, true);
            out.extend_from_slice(&global.octets());
            if let Some(link_local) = link_local {
                has(present::NEXT_HOP_LINK_LOCAL, true);
                out.extend_from_slice(&link_local.octets());
            }
        }
    }
}

fn put_path(as_path: &AsPath, out: &mut Vec<u8>) {
    list(&as_path.0, out, |segment, out| {
        let (kind, ases) = match segment {
            Segment::Sequence(ases) => (0, ases),
            Segment::Set(ases) => (1, ases),
            Segment::ConfedSequence(ases) => (2, ases),
            Segment::ConfedSet(ases) => (3, ases),
        };
        out.push(kind);
        list(ases, out, |asn, out| number(asn.0, out));
    });
}

fn number(value: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn count(mut value: usize, out: &mut Vec<u8>) {
    while value > 0x7F {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn list<T>(items: &[T], out: &mut Vec<u8>, put: impl Fn(&T, &mut Vec<u8>)) {
    count(items.len(), out);
    items.iter().for_each(|item| put(item, out));
}

fn unpack(r: &mut Reader<'_>) -> (Attributes, NextHop) {
    let flags = u16::from_be_bytes(r.octets());
    let has = |bit: u16| flags & bit != 0;
    let next_hop = if has(present::NEXT_HOP_V6) {
        let global = Ipv6Addr::from(r.octets());
        NextHop::V6 { global, link_local: has(present::NEXT_HOP_LINK_LOCAL).then(|| Ipv6Addr::from(r.octets())) }
    } else {
        NextHop::V4(Ipv4Addr::from(r.octets()))
    };
    let as_path = AsPath(r.list(|r| {
        let kind = r.octet();
        let ases = r.list(|r| Asn(r.number()));
        match kind {
            0 => Segment::Sequence(ases),
            1 => Segment::Set(ases),
            2 => Segment::ConfedSequence(ases),
            _ => Segment::ConfedSet(ases),
        }
    }));
    let mut optional = |bit: u16| has(bit).then(|| r.number());
    let (med, local_pref) = (optional(present::MED), optional(present::LOCAL_PREF));
    let (originator_id, only_to_customer) = (optional(present::ORIGINATOR_ID), optional(present::ONLY_TO_CUSTOMER));
    let attributes = Attributes {
        origin: match flags & present::ORIGIN {
            0 => Origin::Igp,
            1 => Origin::Egp,
            _ => Origin::Incomplete,
        },
        as_path,
        med,
        local_pref,
        atomic_aggregate: has(present::ATOMIC_AGGREGATE),
        originator_id: originator_id.map(Ipv4Addr::from_bits),
        only_to_customer: only_to_customer.map(Asn),
        aggregator: has(present::AGGREGATOR).then(|| {
            let asn = Asn(r.number());
            Aggregator { asn, router_id: Ipv4Addr::from_bits(r.number()) }
        }),
        communities: r.list_if(has(present::COMMUNITIES), |r| Community(r.number())),
        extended_communities: r.list_if(has(present::EXTENDED_COMMUNITIES), Reader::octets),
        large_communities: r
            .list_if(has(present::LARGE_COMMUNITIES), |r| LargeCommunity([r.number(), r.number(), r.number()])),
        cluster_list: r.list_if(has(present::CLUSTER_LIST), |r| Ipv4Addr::from_bits(r.number())),
        unknown: r.list_if(has(present::UNKNOWN), |r| {
            let [flags, code] = r.octets();
            RawAttribute { flags, code, value: r.list(Reader::octet) }
        }),
    };
    (attributes, next_hop)
}

/// Reads what [`pack`] wrote; past the end, which that never reaches, are zeros.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn octets<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((octets, rest)) => {
                self.0 = rest;
                *octets
            }
            None => {
                self.0 = &[];
                [0; N]
            }
        }
    }

    fn octet(&mut self) -> u8 {
        self.octets::<1>()[0]
    }

    fn number(&mut self) -> u32 {
        u32::from_be_bytes(self.octets())
    }

    fn count(&mut self) -> usize {
        let mut value = 0;
        for shift in (0..usize::BITS).step_by(7) {
            let octet = self.octet();
            value |= usize::from(octet & 0x7F) << shift;
            if octet & 0x80 == 0 {
                break;
            }
        }
        value
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        // Each item has at least one octet.
        let count = self.count().min(self.0.len());
        (0..count).map(|_| item(self)).collect()
    }

    fn list_if<T>(&mut self, present: bool, item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        if present { self.list(item) } else { vec![] }
    }
}
