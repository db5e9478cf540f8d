//! FlowSpec rules (RFC 8955, RFC 8956): which packets, and what happens to them.

use serde::{Deserialize, Serialize};
use ubique_model::{Family, Prefix};

/// A rule: packets that match all components.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowSpec {
    /// Family of the packets.
    pub family: Family,
    /// Each kind at most once, in the order of their types.
    pub components: Vec<Component>,
}

/// One condition (RFC 8955 §4.2.2, RFC 8956 §3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Component {
    /// Type 1: destination; `offset` in bits, IPv6 only.
    Destination {
        /// Its address lies in this.
        prefix: Prefix,
        /// Leading bits left out of the comparison.
        offset: u8,
    },
    /// Type 2: source.
    Source {
        /// Its address lies in this.
        prefix: Prefix,
        /// Leading bits left out of the comparison.
        offset: u8,
    },
    /// Types 3 to 8, 10, 11, 13: a number of the packet.
    Numeric {
        /// Type of the component.
        kind: u8,
        /// Comparisons.
        terms: Vec<NumericTerm>,
    },
    /// Types 9 and 12: bits of the packet.
    Bitmask {
        /// Type of the component.
        kind: u8,
        /// Comparisons.
        terms: Vec<BitmaskTerm>,
    },
}

/// A comparison with a number (RFC 8955 §4.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NumericTerm {
    /// Together with the term before; otherwise one of the two suffices.
    pub and: bool,
    /// The packet's number is less.
    pub less: bool,
    /// It is greater.
    pub greater: bool,
    /// It is equal.
    pub equal: bool,
    /// The number.
    pub value: u64,
}

/// A comparison with bits (RFC 8955 §4.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BitmaskTerm {
    /// Together with the term before; otherwise one of the two suffices.
    pub and: bool,
    /// The term is negated.
    pub not: bool,
    /// All bits are set; otherwise any of them suffices.
    pub all: bool,
    /// The bits.
    pub value: u64,
}
