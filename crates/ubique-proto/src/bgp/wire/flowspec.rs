//! FlowSpec rules as octets (RFC 8955 §4, RFC 8956 §3).
//!
//! Two kinds of fault. Where a rule ends is said by its length; when the lengths do not add up nothing behind is
//! found, and the session ends (RFC 7606 §5.3). A rule that is found but not encoded as it must be (an unknown type, a
//! wrong order, operators without an end) is malformed: its message is treated as a withdrawal (RFC 8955 §10). A
//! malformed rule cannot be withdrawn itself, and need not: it was never taken. In MP_UNREACH_NLRI it is passed over.

use std::net::{Ipv4Addr, Ipv6Addr};

use ubique_model::{Family, Prefix};

use super::super::flowspec::{BitmaskField, BitmaskTerm, Component, FlowSpec, NumericField, NumericTerm};
use super::reader::Reader;

/// Longest rule: 12 bits (RFC 8955 §4.1).
pub(super) const MAX_RULE: usize = 0xfff;
/// Lengths from here on take two octets.
const LONG: usize = 0xf0;

/// Operators: the last of its component.
const END: u8 = 0x80;
/// Together with the term before.
const AND: u8 = 0x40;
/// Logarithm of the octets of the value.
const LENGTH_SHIFT: u8 = 4;
const LESS: u8 = 0x04;
const GREATER: u8 = 0x02;
const EQUAL: u8 = 0x01;
const NOT: u8 = 0x02;
const ALL: u8 = 0x01;

/// Rules of one attribute.
#[derive(Debug, Default)]
pub(super) struct Flows {
    /// Those that are well-formed.
    pub(super) rules: Vec<FlowSpec>,
    /// What is wrong with the first that is not.
    pub(super) malformed: Option<&'static str>,
}

/// Reads a field of rules to its end. `None`: the lengths do not add up.
pub(super) fn decode(field: &[u8], family: Family) -> Option<Flows> {
    let mut r = Reader::new(field);
    let mut flows = Flows::default();
    while let Some(first) = r.u8() {
        let first = usize::from(first);
        let length = if first < LONG { first } else { (first & 0xf) << 8 | usize::from(r.u8()?) };
        match rule(r.take(length)?, family) {
            Ok(flow) => flows.rules.push(flow),
            Err(reason) => {
                flows.malformed.get_or_insert(reason);
            }
        }
    }
    Some(flows)
}

fn rule(octets: &[u8], family: Family) -> Result<FlowSpec, &'static str> {
    let mut r = Reader::new(octets);
    let mut flow = FlowSpec { family, components: vec![] };
    while let Some(code) = r.u8() {
        flow.components.push(component(code, &mut r, family)?);
    }
    flow.well_formed().map_err(|_| "a rule without conditions, or not in the order of their types, each once")?;
    Ok(flow)
}

fn component(code: u8, r: &mut Reader<'_>, family: Family) -> Result<Component, &'static str> {
    if let 1 | 2 = code {
        let (prefix, offset) = prefix(r, family).ok_or("a prefix that is too long or cut off")?;
        return Ok(if code == 1 {
            Component::Destination { prefix, offset }
        } else {
            Component::Source { prefix, offset }
        });
    }
    if let Some(field) = BitmaskField::ALL.into_iter().find(|field| *field as u8 == code) {
        let widest = if field == BitmaskField::Fragment { 1 } else { 2 };
        let term = |(operator, value)| BitmaskTerm {
            and: operator & AND != 0,
            not: operator & NOT != 0,
            all: operator & ALL != 0,
            value,
        };
        let mut terms: Vec<BitmaskTerm> = operators(r, widest)?.into_iter().map(term).collect();
        // Has no meaning there (RFC 8955 §4.2.1.1).
        terms[0].and = false;
        return Ok(Component::Bitmask { field, terms });
    }
    let field =
        NumericField::ALL.into_iter().find(|field| *field as u8 == code).ok_or("a condition of unknown type")?;
    if field == NumericField::FlowLabel && family == Family::Ipv4 {
        return Err("a condition of unknown type");
    }
    let (widest, mask) = if field == NumericField::Dscp { (1, field.largest()) } else { (8, u64::MAX) };
    let term = |(operator, value)| NumericTerm {
        and: operator & AND != 0,
        less: operator & LESS != 0,
        greater: operator & GREATER != 0,
        equal: operator & EQUAL != 0,
        value: value & mask,
    };
    let mut terms: Vec<NumericTerm> = operators(r, widest)?.into_iter().map(term).collect();
    terms[0].and = false;
    Ok(Component::Numeric { field, terms })
}

/// Operators with their values, at least one; reserved bits mean nothing.
fn operators(r: &mut Reader<'_>, widest: usize) -> Result<Vec<(u8, u64)>, &'static str> {
    let mut all = Vec::new();
    loop {
        let operator = r.u8().ok_or("comparisons without an end")?;
        let octets = 1 << (operator >> LENGTH_SHIFT & 0b11);
        if octets > widest {
            return Err("a value of more octets than its type has");
        }
        let value = r.take(octets).ok_or("comparisons without an end")?;
        all.push((operator, value.iter().fold(0, |value, &octet| value << 8 | u64::from(octet))));
        if operator & END != 0 {
            return Ok(all);
        }
    }
}

/// `None`: cut off, or of lengths that cannot be.
fn prefix(r: &mut Reader<'_>, family: Family) -> Option<(Prefix, u8)> {
    let length = r.u8()?;
    match family {
        Family::Ipv4 => {
            let mut address = [0; 4];
            let octets = r.take(usize::from(length).div_ceil(8))?;
            address.get_mut(..octets.len())?.copy_from_slice(octets);
            Some((Prefix::new(Ipv4Addr::from(address).into(), length).ok()?.trunc(), 0))
        }
        // RFC 8956 §3.1: the pattern starts at the offset.
        Family::Ipv6 => {
            let offset = r.u8()?;
            let compared = length.checked_sub(offset).filter(|&bits| bits > 0 || length == 0)?;
            let mut pattern = [0; 16];
            let octets = r.take(usize::from(compared).div_ceil(8))?;
            pattern.get_mut(..octets.len())?.copy_from_slice(octets);
            let address = u128::from_be_bytes(pattern).checked_shr(offset.into())?;
            Some((Prefix::new(Ipv6Addr::from(address).into(), length).ok()?.trunc(), offset))
        }
    }
}

/// Appends a well-formed rule with its length.
///
/// # Errors
/// It has so many octets, more than [`MAX_RULE`]; what was appended is of no use.
pub(super) fn encode(flow: &FlowSpec, out: &mut Vec<u8>) -> Result<(), usize> {
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    for component in &flow.components {
        out.push(component.code());
        match component {
            Component::Destination { prefix, offset } | Component::Source { prefix, offset } => {
                encode_prefix(prefix, *offset, out);
            }
            Component::Numeric { field, terms } => {
                for (at, term) in terms.iter().enumerate() {
                    let kind = [(term.less, LESS), (term.greater, GREATER), (term.equal, EQUAL)];
                    // RFC 8956 §3.7 asks for 4 octets.
                    let least = if *field == NumericField::FlowLabel { 4 } else { 1 };
                    let place = (term.and && at > 0, at + 1 == terms.len());
                    operator(place, &kind, term.value, least, out);
                }
            }
            Component::Bitmask { terms, .. } => {
                for (at, term) in terms.iter().enumerate() {
                    let place = (term.and && at > 0, at + 1 == terms.len());
                    operator(place, &[(term.not, NOT), (term.all, ALL)], term.value, 1, out);
                }
            }
        }
    }
    let length = out.len() - start - 2;
    if length > MAX_RULE {
        return Err(length);
    }
    if length >= LONG {
        out[start] = 0xf0 | (length >> 8) as u8;
        out[start + 1] = length as u8;
    } else {
        out.remove(start);
        out[start] = length as u8;
    }
    Ok(())
}

fn encode_prefix(prefix: &Prefix, offset: u8, out: &mut Vec<u8>) {
    let length = prefix.prefix_len();
    out.push(length);
    match prefix.trunc() {
        Prefix::V4(net) => out.extend_from_slice(&net.addr().octets()[..usize::from(length).div_ceil(8)]),
        Prefix::V6(net) => {
            out.push(offset);
            let pattern = u128::from(net.addr()).checked_shl(offset.into()).unwrap_or(0).to_be_bytes();
            out.extend_from_slice(&pattern[..usize::from(length.saturating_sub(offset)).div_ceil(8)]);
        }
    }
}

/// An operator and its value in as few octets as hold it, `least` at least.
fn operator((and, end): (bool, bool), kind: &[(bool, u8)], value: u64, least: usize, out: &mut Vec<u8>) {
    let octets = value.to_be_bytes();
    let used = octets.len() - octets.iter().position(|&octet| octet != 0).unwrap_or(octets.len());
    let width = used.max(least).next_power_of_two();
    let places = [(and, AND), (end, END)];
    let bits = places.iter().chain(kind).filter(|(set, _)| *set).fold(0, |bits, (_, bit)| bits | bit);
    out.push(bits | (width.trailing_zeros() as u8) << LENGTH_SHIFT);
    out.extend_from_slice(&octets[octets.len() - width..]);
}
