//! Path attributes (RFC 4271 §5) as the RIB keeps them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use ubique_model::{Asn, Community, LargeCommunity};

/// ORIGIN (RFC 4271 §5.1.1). Lower is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// Interior to the originating AS: what ubique always announces.
    Igp = 0,
    /// Learned via EGP (historic).
    Egp = 1,
    /// By some other means.
    Incomplete = 2,
}

/// A segment of an AS_PATH (RFC 4271 §4.3, RFC 5065).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Segment {
    /// Ordered.
    Sequence(Vec<Asn>),
    /// Unordered; counts as one hop.
    Set(Vec<Asn>),
    /// Confederation, ordered; counts as no hop.
    ConfedSequence(Vec<Asn>),
    /// Confederation, unordered; counts as no hop.
    ConfedSet(Vec<Asn>),
}

/// AS_PATH (RFC 4271 §5.1.2), 4-octet, after the merge with AS4_PATH (RFC 6793 §4.2.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct AsPath(pub Vec<Segment>);

impl AsPath {
    /// A path of one AS_SEQUENCE; empty for no AS.
    pub fn sequence(ases: impl IntoIterator<Item = Asn>) -> AsPath {
        let ases: Vec<Asn> = ases.into_iter().collect();
        AsPath(if ases.is_empty() { vec![] } else { vec![Segment::Sequence(ases)] })
    }

    /// Length for the decision process (RFC 4271 §9.1.2.2 a; RFC 5065 §5.3).
    pub fn hops(&self) -> usize {
        self.0
            .iter()
            .map(|s| match s {
                Segment::Sequence(a) => a.len(),
                Segment::Set(_) => 1,
                Segment::ConfedSequence(_) | Segment::ConfedSet(_) => 0,
            })
            .sum()
    }

    /// Every AS number in it, in order of appearance.
    pub fn ases(&self) -> impl Iterator<Item = Asn> + '_ {
        self.0.iter().flat_map(|s| match s {
            Segment::Sequence(a) | Segment::Set(a) | Segment::ConfedSequence(a) | Segment::ConfedSet(a) => {
                a.iter().copied()
            }
        })
    }

    /// The neighbour it came from: the first AS of a leading AS_SEQUENCE.
    pub fn neighbor(&self) -> Option<Asn> {
        match self.0.first() {
            Some(Segment::Sequence(a)) => a.first().copied(),
            _ => None,
        }
    }

    /// The path with `asn` prepended `times` times; a segment holds at most 255 (RFC 4271 §5.1.2).
    #[must_use]
    pub fn prepended(&self, asn: Asn, times: usize) -> AsPath {
        let mut segments = self.0.clone();
        for _ in 0..times {
            match segments.first_mut() {
                Some(Segment::Sequence(a)) if a.len() < 255 => a.insert(0, asn),
                _ => segments.insert(0, Segment::Sequence(vec![asn])),
            }
        }
        AsPath(segments)
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            let (open, ases, close) = match segment {
                Segment::Sequence(a) => ("", a, ""),
                Segment::Set(a) => ("{", a, "}"),
                Segment::ConfedSequence(a) => ("(", a, ")"),
                Segment::ConfedSet(a) => ("[", a, "]"),
            };
            let list: Vec<String> = ases.iter().map(Asn::to_string).collect();
            write!(f, "{}{open}{}{close}", if i > 0 { " " } else { "" }, list.join(" "))?;
        }
        Ok(())
    }
}

/// Where packets go next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NextHop {
    /// NEXT_HOP, or the IPv4 next hop of MP_REACH_NLRI.
    V4(Ipv4Addr),
    /// The next hop of MP_REACH_NLRI for IPv6 (RFC 2545 §3).
    V6 {
        /// Global address.
        global: Ipv6Addr,
        /// Link-local address, when sent.
        link_local: Option<Ipv6Addr>,
    },
}

impl NextHop {
    /// The (global) address.
    pub fn address(self) -> IpAddr {
        match self {
            NextHop::V4(a) => IpAddr::V4(a),
            NextHop::V6 { global, .. } => IpAddr::V6(global),
        }
    }
}

/// AGGREGATOR (RFC 4271 §5.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Aggregator {
    /// AS that aggregated.
    pub asn: Asn,
    /// Router that aggregated.
    pub router_id: Ipv4Addr,
}

/// An attribute this version does not interpret; kept when optional transitive (RFC 4271 §5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RawAttribute {
    /// Flags as received; the Partial bit is set when passed on.
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// Value.
    pub value: Vec<u8>,
}

/// All path attributes of a route but the next hop.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH.
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; never sent to external neighbours.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES (RFC 1997).
    pub communities: Vec<Community>,
    /// EXTENDED COMMUNITIES (RFC 4360), opaque.
    pub extended_communities: Vec<[u8; 8]>,
    /// LARGE_COMMUNITY (RFC 8092).
    pub large_communities: Vec<LargeCommunity>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456).
    pub cluster_list: Vec<Ipv4Addr>,
    /// ONLY_TO_CUSTOMER (RFC 9234 §5).
    pub only_to_customer: Option<Asn>,
    /// The rest, in the order received.
    pub unknown: Vec<RawAttribute>,
}

impl Attributes {
    /// What a route of our own starts with: ORIGIN IGP and an empty path. IGP always: a neighbour compares
    /// ORIGIN before MED, and `incomplete` loses there.
    pub fn originated() -> Attributes {
        Attributes {
            origin: Origin::Igp,
            as_path: AsPath::default(),
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: vec![],
            extended_communities: vec![],
            large_communities: vec![],
            originator_id: None,
            cluster_list: vec![],
            only_to_customer: None,
            unknown: vec![],
        }
    }
}
