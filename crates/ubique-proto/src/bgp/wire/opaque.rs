//! Attributes ubique does not interpret but knows: their shape is judged as their RFC says.
//!
//! What is sound and transitive is kept as it came, like an unknown one. A non-transitive one is left out, and must not
//! pass on by claiming to be transitive.

use super::super::notification::update;
use super::attributes::{Flaw, flag, list};
use super::reader::Reader;

/// Type codes.
mod typecode {
    pub(super) const PMSI_TUNNEL: u8 = 22;
    pub(super) const TUNNEL_ENCAPSULATION: u8 = 23;
    pub(super) const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub(super) const AIGP: u8 = 26;
    pub(super) const BGP_LS: u8 = 29;
    pub(super) const PREFIX_SID: u8 = 40;
    pub(super) const ATTR_SET: u8 = 128;
}

/// Never assigned: reserved, and reserved for development (RFC 2042).
const RESERVED: [u8; 2] = [0, 255];

/// PMSI_TUNNEL without a tunnel identifier: flags, type, label (RFC 6514 §5).
const PMSI_TUNNEL_LEAST: usize = 5;
/// Tunnel encapsulation sub-TLVs from here on have a length of two octets (RFC 9012 §2).
const LONG_SUB_TLV: u8 = 128;
/// The AIGP TLV with its value (RFC 7311 §3).
const AIGP_TLV: u8 = 1;
const AIGP_TLV_LENGTH: usize = 11;
/// Label-Index and Originator SRGB TLVs (RFC 8669 §3.1, §3.2).
const LABEL_INDEX_TLV: u8 = 1;
const LABEL_INDEX_LENGTH: usize = 7;
const SRGB_TLV: u8 = 3;
const SRGB_FLAGS: usize = 2;
const SRGB_RANGE: usize = 6;

/// Judges an optional attribute that no value is read from. `Ok`: kept when transitive.
pub(super) fn judge(flags: u8, code: u8, value: &[u8], external: bool) -> Result<(), Flaw> {
    use typecode::*;
    let kind = flags & flag::KIND;
    let wrong_flags = |expected: u8| format!("flags {flags:#04x} where {expected:#04x} belong");
    match code {
        AIGP | BGP_LS if kind != flag::OPTIONAL => Err(Flaw::Discard(wrong_flags(flag::OPTIONAL))),
        // RFC 9012 §13.
        TUNNEL_ENCAPSULATION if kind != flag::KIND => Err(Flaw::Discard(wrong_flags(flag::KIND))),
        PMSI_TUNNEL | IPV6_EXTENDED_COMMUNITIES | PREFIX_SID | ATTR_SET if kind != flag::KIND => {
            Err(Flaw::Withdraw(update::ATTRIBUTE_FLAGS, wrong_flags(flag::KIND)))
        }
        PMSI_TUNNEL if value.len() < PMSI_TUNNEL_LEAST => {
            Err(malformed(format!("{} octets, {PMSI_TUNNEL_LEAST} at least", value.len())))
        }
        TUNNEL_ENCAPSULATION if value.is_empty() => Err(Flaw::Discard("names no tunnel".into())),
        TUNNEL_ENCAPSULATION => tunnels(value).ok_or_else(|| malformed("lengths that do not add up".into())),
        // RFC 7606 §7.15.
        IPV6_EXTENDED_COMMUNITIES => list(value, |_: [u8; 20]| ()).map(|_| ()),
        // RFC 7311 §3: quietly ignored and not passed on.
        AIGP => aigp(value).ok_or_else(|| Flaw::Discard("TLVs that do not add up".into())),
        // RFC 8669 §4, §6.
        PREFIX_SID if external => Err(Flaw::Discard("from an external neighbour".into())),
        PREFIX_SID => prefix_sid(value).ok_or_else(|| Flaw::Discard("TLVs that do not add up".into())),
        ATTR_SET => attr_set(value).ok_or_else(|| malformed("attributes that do not add up".into())),
        code if RESERVED.contains(&code) => Err(Flaw::Discard("a reserved type".into())),
        _ => Ok(()),
    }
}

/// Whether [`judge`] knows it, so that flags of a well-known attribute are its fault and not that of an unknown one.
pub(super) fn known(code: u8) -> bool {
    use typecode::*;
    matches!(
        code,
        PMSI_TUNNEL | TUNNEL_ENCAPSULATION | IPV6_EXTENDED_COMMUNITIES | AIGP | BGP_LS | PREFIX_SID | ATTR_SET
    )
}

fn malformed(reason: String) -> Flaw {
    Flaw::Withdraw(update::OPTIONAL_ATTRIBUTE, reason)
}

/// RFC 9012 §2, §13: a tunnel's last sub-TLV ends where the tunnel does.
fn tunnels(value: &[u8]) -> Option<()> {
    let mut r = Reader::new(value);
    while !r.is_empty() {
        let (_kind, length) = (r.u16()?, r.u16()?);
        let mut tunnel = Reader::new(r.take(usize::from(length))?);
        while !tunnel.is_empty() {
            let long = tunnel.u8()? >= LONG_SUB_TLV;
            let length = if long { usize::from(tunnel.u16()?) } else { usize::from(tunnel.u8()?) };
            tunnel.take(length)?;
        }
    }
    Some(())
}

/// RFC 7311 §3: the length counts type and length, too.
fn aigp(value: &[u8]) -> Option<()> {
    let mut r = Reader::new(value);
    while !r.is_empty() {
        let (kind, length) = (r.u8()?, usize::from(r.u16()?));
        r.take(length.checked_sub(3)?)?;
        if kind == AIGP_TLV && length != AIGP_TLV_LENGTH {
            return None;
        }
    }
    Some(())
}

/// RFC 8669 §3: at least one TLV.
fn prefix_sid(value: &[u8]) -> Option<()> {
    let mut r = Reader::new(value);
    loop {
        let (kind, length) = (r.u8()?, usize::from(r.u16()?));
        r.take(length)?;
        let sound = match kind {
            LABEL_INDEX_TLV => length == LABEL_INDEX_LENGTH,
            SRGB_TLV => length > SRGB_FLAGS && (length - SRGB_FLAGS).is_multiple_of(SRGB_RANGE),
            _ => true,
        };
        if !sound || r.is_empty() {
            return sound.then_some(());
        }
    }
}

/// RFC 6368 §5: an AS and attributes, without those that say where routes go.
fn attr_set(value: &[u8]) -> Option<()> {
    use super::attributes::{
        next_attribute,
        typecode::{MP_REACH, MP_UNREACH, NEXT_HOP},
    };
    let mut r = Reader::new(value);
    let _origin_as = r.u32()?;
    while !r.is_empty() {
        let (_, code, _) = next_attribute(&mut r)?;
        if matches!(code, NEXT_HOP | MP_REACH | MP_UNREACH) {
            return None;
        }
    }
    Some(())
}
