//! FlowSpec rules (RFC 8955, RFC 8956): which packets, and what happens to them.
//!
//! A [`FlowSpec`] is a list of [`Component`]s that must all match; an [`Action`] is an extended community beside it.
//! Both have a notation that reads back: `dst 198.51.100.0/24 proto =udp port =53`, `rate-bytes 0`.
//! [`FlowSpec::well_formed`] is what any rule on the wire must be, [`FlowSpec::validate`] what one of ours must be.
//!
//! Deliberately absent: rules of VPNs (SAFI 134), path identifiers, the order among rules (RFC 8955 §5.1) and the check
//! of received ones against routes (§6): ubique announces rules and installs none.

mod action;
mod text;

pub use action::{Action, ParseActionError};
pub use text::ParseFlowSpecError;

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
        /// Its address lies in this; bits left out are 0.
        prefix: Prefix,
        /// Leading bits left out of the comparison.
        offset: u8,
    },
    /// Type 2: source.
    Source {
        /// Its address lies in this; bits left out are 0.
        prefix: Prefix,
        /// Leading bits left out of the comparison.
        offset: u8,
    },
    /// A number of the packet.
    Numeric {
        /// Which.
        field: NumericField,
        /// Comparisons, at least one.
        terms: Vec<NumericTerm>,
    },
    /// Bits of the packet.
    Bitmask {
        /// Which.
        field: BitmaskField,
        /// Comparisons, at least one.
        terms: Vec<BitmaskTerm>,
    },
}

/// Numbers of a packet, with the types of their components (RFC 8955 §4.2.2, RFC 8956 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NumericField {
    /// IP protocol; IPv6: the last next-header value.
    Protocol = 3,
    /// Source or destination port.
    Port = 4,
    /// Destination port.
    DestinationPort = 5,
    /// Source port.
    SourcePort = 6,
    /// ICMP or ICMPv6 type.
    IcmpType = 7,
    /// ICMP or ICMPv6 code.
    IcmpCode = 8,
    /// IP packet length, octets, without layer 2 but with the IP header.
    PacketLength = 10,
    /// Differentiated services code point, 6 bits.
    Dscp = 11,
    /// IPv6 flow label, 20 bits.
    FlowLabel = 13,
}

/// Bit fields of a packet, with the types of their components.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BitmaskField {
    /// Octets 13 and 14 of the TCP header.
    TcpFlags = 9,
    /// How the packet is fragmented: [`fragment`].
    Fragment = 12,
}

/// Bits of [`BitmaskField::Fragment`] (RFC 8955 §4.2.2.12).
pub mod fragment {
    /// DF: must not be fragmented; IPv4 only.
    pub const DONT: u64 = 1;
    /// IsF: a fragment other than the first.
    pub const IS: u64 = 2;
    /// FF: the first fragment.
    pub const FIRST: u64 = 4;
    /// LF: the last fragment.
    pub const LAST: u64 = 8;
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

/// Why a rule cannot be sent, or should not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowSpecError {
    /// It would match every packet.
    #[error("the rule has no condition")]
    Empty,
    /// RFC 8955 §4.2: in the order of their types, each at most once.
    #[error("{second} after {first}: conditions come in the order of their types, each once")]
    Order {
        /// The earlier one.
        first: &'static str,
        /// The later one.
        second: &'static str,
    },
    /// Numbers or bits compared with nothing.
    #[error("{component} is compared with nothing")]
    NoTerms {
        /// Which.
        component: &'static str,
    },
    /// A condition of the other family.
    #[error("{component} does not belong into a rule about {family} packets")]
    Family {
        /// Which.
        component: &'static str,
        /// Of the rule.
        family: Family,
    },
    /// RFC 8956 §3.1: the offset is less than the length.
    #[error("offset {offset} leaves nothing of {prefix}")]
    Offset {
        /// The prefix.
        prefix: Prefix,
        /// Its offset.
        offset: u8,
    },
    /// A number larger than its field.
    #[error("{component} {value} is too large: at most {largest}")]
    Value {
        /// Which.
        component: &'static str,
        /// The number.
        value: u64,
        /// What the field holds.
        largest: u64,
    },
    /// Bits its field does not have; IPv6 has no "don't fragment".
    #[error("{component} has no bits {bits:#x}")]
    Bits {
        /// Which.
        component: &'static str,
        /// The bits.
        bits: u64,
    },
    /// RFC 8955 §6: without a destination nobody can tell who may announce it.
    #[error("no destination: neighbours accept a rule only from whom they route its destination to")]
    NoDestination,
    /// No packet has such a number.
    #[error("no packet has such a {component}")]
    NeverMatches {
        /// Which.
        component: &'static str,
    },
    /// Conditions on the headers of different protocols.
    #[error("no packet matches: the conditions ask for the headers of different protocols")]
    Protocols,
    /// Conditions on ports, ICMP or TCP of packets that have no such header.
    #[error("no packet matches: only the first fragment has the header of its protocol")]
    Fragments,
}

const TCP: u64 = 6;
const UDP: u64 = 17;
const ICMP: u64 = 1;
const ICMPV6: u64 = 58;

impl NumericField {
    /// All, in the order of their types.
    pub const ALL: [NumericField; 9] = [
        NumericField::Protocol,
        NumericField::Port,
        NumericField::DestinationPort,
        NumericField::SourcePort,
        NumericField::IcmpType,
        NumericField::IcmpCode,
        NumericField::PacketLength,
        NumericField::Dscp,
        NumericField::FlowLabel,
    ];

    /// The largest number it holds.
    pub fn largest(self) -> u64 {
        match self {
            NumericField::Protocol | NumericField::IcmpType | NumericField::IcmpCode => 0xff,
            NumericField::Port
            | NumericField::DestinationPort
            | NumericField::SourcePort
            | NumericField::PacketLength => 0xffff,
            NumericField::Dscp => 0x3f,
            NumericField::FlowLabel => 0xf_ffff,
        }
    }
}

impl BitmaskField {
    /// All, in the order of their types.
    pub const ALL: [BitmaskField; 2] = [BitmaskField::TcpFlags, BitmaskField::Fragment];

    /// All bits it has; IPv6 has no "don't fragment".
    pub fn largest(self, family: Family) -> u64 {
        match (self, family) {
            (BitmaskField::TcpFlags, _) => 0xfff,
            (BitmaskField::Fragment, Family::Ipv4) => 0xf,
            (BitmaskField::Fragment, Family::Ipv6) => 0xf & !fragment::DONT,
        }
    }
}

impl NumericTerm {
    /// The number is `value`.
    pub fn equal(value: u64) -> NumericTerm {
        NumericTerm { and: false, less: false, greater: false, equal: true, value }
    }

    fn holds(&self, number: u64) -> bool {
        self.less && number < self.value || self.greater && number > self.value || self.equal && number == self.value
    }
}

impl BitmaskTerm {
    /// All of `bits` are set.
    pub fn all(bits: u64) -> BitmaskTerm {
        BitmaskTerm { and: false, not: false, all: true, value: bits }
    }

    fn holds(&self, bits: u64) -> bool {
        let set = bits & self.value;
        self.not != if self.all { set == self.value } else { set != 0 }
    }
}

/// "And" binds stronger than "or" (RFC 8955 §4.2.1.1).
fn any_holds<T>(terms: &[T], and: impl Fn(&T) -> bool, holds: impl Fn(&T) -> bool) -> bool {
    terms.chunk_by(|_, next| and(next)).any(|together| together.iter().all(&holds))
}

fn numbers_hold(terms: &[NumericTerm], number: u64) -> bool {
    any_holds(terms, |term| term.and, |term| term.holds(number))
}

fn bits_hold(terms: &[BitmaskTerm], bits: u64) -> bool {
    any_holds(terms, |term| term.and, |term| term.holds(bits))
}

impl Component {
    /// Its type (IANA registry "Flow Spec Component Types").
    pub fn code(&self) -> u8 {
        match self {
            Component::Destination { .. } => 1,
            Component::Source { .. } => 2,
            Component::Numeric { field, .. } => *field as u8,
            Component::Bitmask { field, .. } => *field as u8,
        }
    }

    /// What any rule on the wire keeps to.
    fn well_formed(&self, family: Family) -> Result<(), FlowSpecError> {
        let component = self.word();
        match self {
            Component::Destination { prefix, offset } | Component::Source { prefix, offset } => {
                if Family::of(prefix) != family {
                    return Err(FlowSpecError::Family { component, family });
                }
                let whole = *offset == 0;
                if !whole && (family == Family::Ipv4 || *offset >= prefix.prefix_len()) {
                    return Err(FlowSpecError::Offset { prefix: *prefix, offset: *offset });
                }
                Ok(())
            }
            Component::Numeric { field: NumericField::FlowLabel, .. } if family == Family::Ipv4 => {
                Err(FlowSpecError::Family { component, family })
            }
            Component::Numeric { terms, .. } if terms.is_empty() => Err(FlowSpecError::NoTerms { component }),
            Component::Bitmask { terms, .. } if terms.is_empty() => Err(FlowSpecError::NoTerms { component }),
            // These have a width of their own (RFC 8955 §4.2.2.9, §4.2.2.11, §4.2.2.12).
            Component::Numeric { field: NumericField::Dscp, terms } => {
                within(component, terms.iter().map(|term| term.value), 0xff)
            }
            Component::Bitmask { field, terms } => {
                let widest = if *field == BitmaskField::Fragment { 0xff } else { 0xffff };
                within(component, terms.iter().map(|term| term.value), widest)
            }
            Component::Numeric { .. } => Ok(()),
        }
    }

    fn in_range(&self, family: Family) -> Result<(), FlowSpecError> {
        match self {
            Component::Destination { .. } | Component::Source { .. } => Ok(()),
            Component::Numeric { field, terms } => {
                within(self.word(), terms.iter().map(|term| term.value), field.largest())
            }
            Component::Bitmask { field, terms } => {
                let largest = field.largest(family);
                match terms.iter().map(|term| term.value & !largest).find(|&bits| bits != 0) {
                    Some(bits) => Err(FlowSpecError::Bits { component: self.word(), bits }),
                    None => Ok(()),
                }
            }
        }
    }

    /// Whether some packet has it, whatever else it has.
    fn matches_any(&self) -> bool {
        match self {
            Component::Destination { .. } | Component::Source { .. } => true,
            // The outcome changes next to the numbers compared with, nowhere else.
            Component::Numeric { field, terms } => terms
                .iter()
                .flat_map(|term| [term.value.saturating_sub(1), term.value, term.value.saturating_add(1)])
                .chain([0, field.largest()])
                .any(|number| number <= field.largest() && numbers_hold(terms, number)),
            Component::Bitmask { field, terms } => (0..=field.largest(Family::Ipv4)).any(|bits| bits_hold(terms, bits)),
        }
    }

    /// Whether a packet of that IP protocol can have it.
    fn allows(&self, protocol: u64, family: Family) -> bool {
        match self {
            Component::Numeric { field: NumericField::Protocol, terms } => numbers_hold(terms, protocol),
            Component::Numeric {
                field: NumericField::Port | NumericField::DestinationPort | NumericField::SourcePort,
                ..
            } => matches!(protocol, TCP | UDP),
            Component::Numeric { field: NumericField::IcmpType | NumericField::IcmpCode, .. } => {
                protocol == if family == Family::Ipv4 { ICMP } else { ICMPV6 }
            }
            Component::Bitmask { field: BitmaskField::TcpFlags, .. } => protocol == TCP,
            _ => true,
        }
    }
}

fn within(component: &'static str, values: impl IntoIterator<Item = u64>, largest: u64) -> Result<(), FlowSpecError> {
    match values.into_iter().find(|&value| value > largest) {
        Some(value) => Err(FlowSpecError::Value { component, value, largest }),
        None => Ok(()),
    }
}

impl FlowSpec {
    /// Whether it can be written at all.
    ///
    /// # Errors
    /// The first thing against it.
    pub fn well_formed(&self) -> Result<(), FlowSpecError> {
        if self.components.is_empty() {
            return Err(FlowSpecError::Empty);
        }
        if let Some(pair) = self.components.windows(2).find(|pair| pair[0].code() >= pair[1].code()) {
            return Err(FlowSpecError::Order { first: pair[0].word(), second: pair[1].word() });
        }
        self.components.iter().try_for_each(|component| component.well_formed(self.family))
    }

    /// Whether it is fit to be announced by us: well-formed, with a destination, and some packet matches it.
    ///
    /// # Errors
    /// The first thing against it.
    pub fn validate(&self) -> Result<(), FlowSpecError> {
        self.well_formed()?;
        if self.destination().is_none() {
            return Err(FlowSpecError::NoDestination);
        }
        for component in &self.components {
            component.in_range(self.family)?;
            if !component.matches_any() {
                return Err(FlowSpecError::NeverMatches { component: component.word() });
            }
        }
        if !(0..=0xff).any(|protocol| self.components.iter().all(|c| c.allows(protocol, self.family))) {
            return Err(FlowSpecError::Protocols);
        }
        // No condition but the protocol's own headers is impossible for some protocol by itself.
        let beyond_ip = self.components.iter().any(|c| match c {
            Component::Numeric { field, .. } => *field != NumericField::Protocol && !c.allows(0, self.family),
            Component::Bitmask { field, .. } => *field == BitmaskField::TcpFlags,
            _ => false,
        });
        let fragments = self.components.iter().find_map(|component| match component {
            Component::Bitmask { field: BitmaskField::Fragment, terms } => Some(terms),
            _ => None,
        });
        match fragments {
            Some(terms) if beyond_ip && ![0, fragment::DONT, fragment::FIRST].iter().any(|&f| bits_hold(terms, f)) => {
                Err(FlowSpecError::Fragments)
            }
            _ => Ok(()),
        }
    }

    /// The destination, when the rule has one. With an offset it is no prefix of the routing table.
    pub fn destination(&self) -> Option<(Prefix, u8)> {
        match self.components.first() {
            Some(Component::Destination { prefix, offset }) => Some((*prefix, *offset)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
