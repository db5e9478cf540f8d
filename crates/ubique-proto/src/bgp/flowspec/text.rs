//! The notation of rules: `dst 198.51.100.0/24 proto =udp port =53 =853 length >=512&<1500 tcp-flags =syn&!~ack`.
//!
//! A rule is words and comparisons. Comparisons of one word are alternatives; those joined by `&` hold together.
//! Numbers: `=` `!=` `<` `<=` `>` `>=`, and `true`, `false`. Bits: `=a+b` all of them, `~a+b` any of them, `!=` and `!~` the
//! contrary. An IPv6 address that is compared from an offset on is written `address/offset-length` (RFC 8956 §3.8.1).
//! A rule without a prefix starts with its family.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ubique_model::{Family, Prefix};

use super::{BitmaskField, BitmaskTerm, Component, FlowSpec, FlowSpecError, NumericField, NumericTerm, fragment};

/// Names of IP protocols in use.
const PROTOCOLS: [(&str, u64); 10] = [
    ("icmp", 1),
    ("igmp", 2),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("ospf", 89),
    ("sctp", 132),
];

/// Names of the TCP flags (RFC 9293 §3.1).
const TCP_FLAGS: [(&str, u64); 8] = [
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ece", 0x40),
    ("cwr", 0x80),
];

const FRAGMENTS: [(&str, u64); 4] =
    [("df", fragment::DONT), ("is", fragment::IS), ("first", fragment::FIRST), ("last", fragment::LAST)];

/// Comparisons of numbers: less, greater, equal.
const COMPARISONS: [(&str, [bool; 3]); 8] = [
    ("!=", [true, true, false]),
    ("<=", [true, false, true]),
    (">=", [false, true, true]),
    ("<", [true, false, false]),
    (">", [false, true, false]),
    ("=", [false, false, true]),
    ("true", [true, true, true]),
    ("false", [false, false, false]),
];

/// Comparisons of bits: not, all.
const BIT_COMPARISONS: [(&str, [bool; 2]); 4] =
    [("!=", [true, true]), ("!~", [true, false]), ("=", [false, true]), ("~", [false, false])];

/// What is wrong with a rule in text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseFlowSpecError {
    /// Not a condition.
    #[error(
        "{0:?} is no condition: dst, src, proto, port, dport, sport, icmp-type, icmp-code, tcp-flags, length, dscp, \
         fragment, flow-label"
    )]
    Word(String),
    /// `dst` or `src` without, or with something else.
    #[error("{word} {text:?}: a prefix belongs here, like 198.51.100.0/24 or 2001:db8::/32")]
    Prefix {
        /// The condition.
        word: &'static str,
        /// What is there.
        text: String,
    },
    /// Not a comparison.
    #[error("{word} {text:?}: a comparison belongs here, like {example}")]
    Comparison {
        /// The condition.
        word: &'static str,
        /// What is there.
        text: String,
        /// What could be.
        example: &'static str,
    },
    /// No prefix and no family.
    #[error("a rule without dst and src starts with ipv4 or ipv6")]
    NoFamily,
    /// The parts do not make a rule.
    #[error(transparent)]
    Rule(#[from] FlowSpecError),
}

impl NumericField {
    fn word(self) -> &'static str {
        match self {
            NumericField::Protocol => "proto",
            NumericField::Port => "port",
            NumericField::DestinationPort => "dport",
            NumericField::SourcePort => "sport",
            NumericField::IcmpType => "icmp-type",
            NumericField::IcmpCode => "icmp-code",
            NumericField::PacketLength => "length",
            NumericField::Dscp => "dscp",
            NumericField::FlowLabel => "flow-label",
        }
    }

    fn example(self) -> &'static str {
        match self {
            NumericField::Protocol => "=udp",
            NumericField::PacketLength => ">=512&<1500",
            NumericField::Dscp => "=46",
            NumericField::IcmpType | NumericField::IcmpCode => "=0",
            _ => "=53",
        }
    }
}

impl BitmaskField {
    fn word(self) -> &'static str {
        match self {
            BitmaskField::TcpFlags => "tcp-flags",
            BitmaskField::Fragment => "fragment",
        }
    }

    fn names(self) -> &'static [(&'static str, u64)] {
        match self {
            BitmaskField::TcpFlags => &TCP_FLAGS,
            BitmaskField::Fragment => &FRAGMENTS,
        }
    }

    fn example(self) -> &'static str {
        match self {
            BitmaskField::TcpFlags => "=syn&!~ack+rst",
            BitmaskField::Fragment => "~is+first",
        }
    }
}

impl Component {
    /// What it is called in the notation.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Component::Destination { .. } => "dst",
            Component::Source { .. } => "src",
            Component::Numeric { field, .. } => field.word(),
            Component::Bitmask { field, .. } => field.word(),
        }
    }
}

impl fmt::Display for FlowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        if !matches!(self.components.first(), Some(Component::Destination { .. } | Component::Source { .. })) {
            f.write_str(match self.family {
                Family::Ipv4 => "ipv4",
                Family::Ipv6 => "ipv6",
            })?;
            between = " ";
        }
        for component in &self.components {
            write!(f, "{between}{component}")?;
            between = " ";
        }
        Ok(())
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Component::Destination { prefix, offset: 0 } | Component::Source { prefix, offset: 0 } => {
                write!(f, " {prefix}")
            }
            Component::Destination { prefix, offset } | Component::Source { prefix, offset } => {
                write!(f, " {}/{offset}-{}", prefix.addr(), prefix.prefix_len())
            }
            Component::Numeric { field, terms } => terms.iter().enumerate().try_for_each(|(at, term)| {
                f.write_str(if term.and && at > 0 { "&" } else { " " })?;
                let kind = [term.less, term.greater, term.equal];
                f.write_str(COMPARISONS.iter().find(|(_, it)| *it == kind).map_or("", |(word, _)| word))?;
                let name = PROTOCOLS.iter().find(|(_, it)| *field == NumericField::Protocol && *it == term.value);
                match (kind, name) {
                    ([true, true, true] | [false, false, false], _) => Ok(()),
                    (_, Some((name, _))) => f.write_str(name),
                    (_, None) => write!(f, "{}", term.value),
                }
            }),
            Component::Bitmask { field, terms } => terms.iter().enumerate().try_for_each(|(at, term)| {
                f.write_str(if term.and && at > 0 { "&" } else { " " })?;
                let kind = [term.not, term.all];
                f.write_str(BIT_COMPARISONS.iter().find(|(_, it)| *it == kind).map_or("", |(word, _)| word))?;
                bits(f, *field, term.value)
            }),
        }
    }
}

fn bits(f: &mut fmt::Formatter<'_>, field: BitmaskField, mut value: u64) -> fmt::Result {
    let mut between = "";
    for (name, bit) in field.names() {
        if value & bit != 0 {
            write!(f, "{between}{name}")?;
            between = "+";
            value &= !bit;
        }
    }
    if value != 0 || between.is_empty() { write!(f, "{between}{value:#x}") } else { Ok(()) }
}

impl FromStr for FlowSpec {
    type Err = ParseFlowSpecError;

    /// Conditions may come in any order.
    fn from_str(text: &str) -> Result<FlowSpec, ParseFlowSpecError> {
        let mut words = text.split_ascii_whitespace().peekable();
        let mut family = words.next_if(|word| matches!(*word, "ipv4" | "ipv6")).map(|word| match word {
            "ipv4" => Family::Ipv4,
            _ => Family::Ipv6,
        });
        let mut components = Vec::new();
        while let Some(word) = words.next() {
            let numeric = NumericField::ALL.into_iter().find(|field| field.word() == word);
            let bitmask = BitmaskField::ALL.into_iter().find(|field| field.word() == word);
            // Every comparison starts with a sign, or is `true` or `false`; no condition does.
            let is_comparison = |text: &&str| {
                !text.starts_with(|c: char| c.is_ascii_alphanumeric())
                    || ["true", "false"].iter().any(|word| text.starts_with(word))
            };
            let mut comparisons = Vec::new();
            components.push(match (word, numeric, bitmask) {
                ("dst" | "src", ..) => {
                    let text = words.next().unwrap_or_default();
                    let word = if word == "dst" { "dst" } else { "src" };
                    let (prefix, offset) =
                        prefix(text).ok_or_else(|| ParseFlowSpecError::Prefix { word, text: text.to_owned() })?;
                    family.get_or_insert(Family::of(&prefix));
                    if word == "dst" {
                        Component::Destination { prefix, offset }
                    } else {
                        Component::Source { prefix, offset }
                    }
                }
                (_, Some(field), _) => {
                    comparisons.extend(std::iter::from_fn(|| words.next_if(is_comparison)));
                    let words_of = (field.word(), field.example());
                    let term = |and, text: &str| numeric_term(field, and, text);
                    Component::Numeric { field, terms: terms(words_of, &comparisons, words.peek(), term)? }
                }
                (_, _, Some(field)) => {
                    comparisons.extend(std::iter::from_fn(|| words.next_if(is_comparison)));
                    let words_of = (field.word(), field.example());
                    let term = |and, text: &str| bitmask_term(field, and, text);
                    Component::Bitmask { field, terms: terms(words_of, &comparisons, words.peek(), term)? }
                }
                _ => return Err(ParseFlowSpecError::Word(word.to_owned())),
            });
        }
        components.sort_by_key(Component::code);
        let flow = FlowSpec { family: family.ok_or(ParseFlowSpecError::NoFamily)?, components };
        flow.well_formed()?;
        Ok(flow)
    }
}

/// `address/length`, or `address/offset-length`; bits that are not compared are cleared.
fn prefix(text: &str) -> Option<(Prefix, u8)> {
    let Some((offset, length)) = text.split_once('/').and_then(|(_, lengths)| lengths.split_once('-')) else {
        return Some((text.parse::<Prefix>().ok()?.trunc(), 0));
    };
    let (offset, length): (u8, u8) = (offset.parse().ok()?, length.parse().ok()?);
    let address: Ipv6Addr = text.split_once('/')?.0.parse().ok()?;
    let compared = u128::MAX.checked_shr(offset.into()).unwrap_or(0);
    let address = Ipv6Addr::from(u128::from(address) & compared);
    Some((Prefix::new(IpAddr::V6(address), length).ok()?.trunc(), offset))
}

/// The terms of one condition. `next` is the word that stands where the first comparison is missing.
fn terms<T>(
    (word, example): (&'static str, &'static str),
    comparisons: &[&str],
    next: Option<&&str>,
    term: impl Fn(bool, &str) -> Option<T>,
) -> Result<Vec<T>, ParseFlowSpecError> {
    let wrong = |text: &str| ParseFlowSpecError::Comparison { word, text: text.to_owned(), example };
    if comparisons.is_empty() {
        return Err(wrong(next.copied().unwrap_or_default()));
    }
    // With whether each belongs to the one before.
    let parts = comparisons.iter().flat_map(|text| text.split('&').enumerate().map(|(at, part)| (at > 0, part)));
    parts.map(|(and, text)| term(and, text).ok_or_else(|| wrong(text))).collect()
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.starts_with('+') => None,
        None => text.parse().ok(),
    }
}

fn numeric_term(field: NumericField, and: bool, text: &str) -> Option<NumericTerm> {
    let (&[less, greater, equal], rest) =
        COMPARISONS.iter().find_map(|(sign, kind)| Some((kind, text.strip_prefix(sign)?)))?;
    let named = PROTOCOLS.iter().find(|(name, _)| field == NumericField::Protocol && *name == rest);
    let constant = less == greater && greater == equal;
    let value = match named {
        _ if constant => rest.is_empty().then_some(0)?,
        Some((_, value)) => *value,
        None => number(rest)?,
    };
    Some(NumericTerm { and, less, greater, equal, value })
}

fn bitmask_term(field: BitmaskField, and: bool, text: &str) -> Option<BitmaskTerm> {
    let (&[not, all], rest) = BIT_COMPARISONS.iter().find_map(|(sign, kind)| Some((kind, text.strip_prefix(sign)?)))?;
    let bit = |name: &str| {
        let named = field.names().iter().find(|(it, _)| *it == name);
        named.map_or_else(|| number(name), |(_, bit)| Some(*bit))
    };
    let value = rest.split('+').try_fold(0, |bits, name| Some(bits | bit(name)?))?;
    Some(BitmaskTerm { and, not, all, value })
}
