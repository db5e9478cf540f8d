//! OPEN (RFC 4271 §4.2, §6.2), with the long form of RFC 9072.

use std::net::Ipv4Addr;

use ubique_model::Asn;

use super::super::message::{Capability, Notification, Open};
use super::super::notification::{code, open};
use super::encode::{begin, finish};
use super::reader::Reader;
use super::{MAX_MESSAGE, capabilities, kind};

/// The version we speak, the only one.
const VERSION: u8 = 4;
/// Optional parameter "Capabilities" (RFC 5492 §4).
const PARAMETER_CAPABILITIES: u8 = 2;
/// "Extended length" (RFC 9072 §2), where a parameter type or length stands.
const EXTENDED: u8 = 255;

/// Reads the body of an OPEN.
pub(super) fn decode(body: &[u8]) -> Result<Open, Notification> {
    let mut r = Reader::new(body);
    let version = r.u8().ok_or_else(malformed)?;
    // Before anything else: other versions lay out the rest differently.
    if version != VERSION {
        let data = u16::from(VERSION).to_be_bytes();
        return Err(Notification::with_data(code::OPEN, open::UNSUPPORTED_VERSION_NUMBER, data));
    }
    let two_octet_as = r.u16().ok_or_else(malformed)?;
    let hold_time_s = r.u16().ok_or_else(malformed)?;
    let router_id = Ipv4Addr::from(r.u32().ok_or_else(malformed)?);
    if two_octet_as == 0 {
        return Err(Notification::new(code::OPEN, open::BAD_PEER_AS));
    }
    if matches!(hold_time_s, 1 | 2) {
        return Err(Notification::new(code::OPEN, open::UNACCEPTABLE_HOLD_TIME));
    }
    if router_id.is_unspecified() {
        return Err(Notification::new(code::OPEN, open::BAD_BGP_IDENTIFIER));
    }
    let capabilities = optional_parameters(r)?;
    let four_octet = capabilities.iter().find_map(|c| match c {
        Capability::FourOctetAs(asn) => Some(*asn),
        _ => None,
    });
    let asn = four_octet.unwrap_or(Asn(u32::from(two_octet_as)));
    if asn.0 == 0 {
        return Err(Notification::new(code::OPEN, open::BAD_PEER_AS));
    }
    Ok(Open { asn, hold_time_s, router_id, capabilities })
}

/// Subcode 0 is what RFC 4271 §6.2 asks for when a parameter is recognised but malformed.
fn malformed() -> Notification {
    Notification::new(code::OPEN, open::UNSPECIFIC)
}

fn optional_parameters(mut r: Reader<'_>) -> Result<Vec<Capability>, Notification> {
    let length = r.u8().ok_or_else(malformed)?;
    // The type decides, the one-octet length is ignored then (RFC 9072 §2).
    let extended = length != 0 && r.rest().first() == Some(&EXTENDED);
    let length = if extended {
        r.u8().ok_or_else(malformed)?;
        usize::from(r.u16().ok_or_else(malformed)?)
    } else {
        usize::from(length)
    };
    if r.rest().len() != length {
        return Err(malformed());
    }
    let mut all = Vec::new();
    while !r.is_empty() {
        let parameter = r.u8().ok_or_else(malformed)?;
        let length = if extended { r.u16().map(usize::from) } else { r.u8().map(usize::from) };
        let value = r.take(length.ok_or_else(malformed)?).ok_or_else(malformed)?;
        if parameter != PARAMETER_CAPABILITIES {
            return Err(Notification::new(code::OPEN, open::UNSUPPORTED_OPTIONAL_PARAMETER));
        }
        let mut r = Reader::new(value);
        while !r.is_empty() {
            all.push(capabilities::decode(&mut r).ok_or_else(malformed)?);
        }
    }
    Ok(all)
}

/// Appends an OPEN. Each capability has a parameter of its own, which every implementation understands; the long form
/// is used when they exceed 255 octets. A capability over 255 octets, or beyond the message, is left out.
pub fn encode_open(message: &Open, out: &mut Vec<u8>) {
    let start = begin(out, kind::OPEN);
    out.push(VERSION);
    let two_octet_as = u16::try_from(message.asn.0).unwrap_or(Asn::TRANS.0 as u16);
    out.extend_from_slice(&two_octet_as.to_be_bytes());
    out.extend_from_slice(&message.hold_time_s.to_be_bytes());
    out.extend_from_slice(&message.router_id.octets());

    let values: Vec<(u8, Vec<u8>)> = message.capabilities.iter().map(capabilities::encode).collect();
    let fitting = || values.iter().filter(|(_, value)| value.len() <= 255);
    let short: usize = fitting().map(|(_, value)| 4 + value.len()).sum();
    let extended = short > 255;
    let mut parameters = Vec::new();
    for (code, value) in fitting() {
        let capability = 2 + value.len();
        if out.len() - start + 4 + parameters.len() + 3 + capability > MAX_MESSAGE {
            break;
        }
        parameters.push(PARAMETER_CAPABILITIES);
        if extended {
            parameters.extend_from_slice(&(capability as u16).to_be_bytes());
        } else {
            parameters.push(capability as u8);
        }
        parameters.extend_from_slice(&[*code, value.len() as u8]);
        parameters.extend_from_slice(value);
    }
    if extended {
        out.extend_from_slice(&[EXTENDED, EXTENDED]);
        out.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
    } else {
        out.push(parameters.len() as u8);
    }
    out.extend_from_slice(&parameters);
    finish(out, start);
}
