//! Contexts, hexadecimal and message builders shared by the tests.

use std::path::PathBuf;

use ubique_model::Family;
use ubique_proto::bgp::family::AddressFamilies;
use ubique_proto::bgp::message::{Message, Notification, Update};
use ubique_proto::bgp::wire::{DecodeContext, EncodeContext, Framer, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, decode};

/// A decoding context with both families.
pub fn context(four_octet_as: bool, external: bool) -> DecodeContext {
    DecodeContext {
        four_octet_as,
        external,
        families: AddressFamilies::UNICAST,
        max_message: MAX_MESSAGE,
        ..DecodeContext::INITIAL
    }
}

/// 4-octet, external: what ubique has with nearly every neighbour.
pub const EBGP: DecodeContext = DecodeContext {
    four_octet_as: true,
    external: true,
    families: AddressFamilies::UNICAST,
    max_message: MAX_MESSAGE,
    ..DecodeContext::INITIAL
};

/// 4-octet, internal.
pub const IBGP: DecodeContext = DecodeContext { external: false, ..EBGP };

/// 2-octet, external.
pub const OLD: DecodeContext = DecodeContext { four_octet_as: false, ..EBGP };

/// All four kinds of neighbour, one with a single family, and one with everything that can be negotiated.
pub fn contexts() -> [DecodeContext; 6] {
    let ipv6_only = DecodeContext { families: AddressFamilies::only(Family::Ipv6), ..EBGP };
    let everything = DecodeContext {
        families: AddressFamilies::ALL,
        add_path: AddressFamilies::UNICAST,
        extended_next_hop: AddressFamilies::only(Family::Ipv4),
        max_message: MAX_EXTENDED_MESSAGE,
        ..EBGP
    };
    [context(true, true), context(true, false), context(false, true), context(false, false), ipv6_only, everything]
}

/// The sender's side of a context.
pub fn sender(ctx: &DecodeContext) -> EncodeContext {
    EncodeContext {
        four_octet_as: ctx.four_octet_as,
        external: ctx.external,
        add_path: ctx.add_path,
        extended_next_hop: ctx.extended_next_hop,
        max_message: ctx.max_message,
    }
}

/// Octets of hexadecimal digits; anything else in between is skipped.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    assert!(digits.len().is_multiple_of(2), "odd number of digits in {text:?}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The reverse, upper case.
pub fn to_hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02X}")).collect()
}

/// A message of a type with a body.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend_from_slice(&(19 + body.len() as u16).to_be_bytes());
    message.push(kind);
    message.extend_from_slice(body);
    message
}

/// An UPDATE of its three fields.
pub fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut body = (withdrawn.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(withdrawn);
    body.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    body.extend_from_slice(attributes);
    body.extend_from_slice(nlri);
    message(2, &body)
}

/// The path attributes of an UPDATE: flags, code, value.
pub fn attributes(octets: &[u8]) -> Option<Vec<(u8, u8, &[u8])>> {
    let u16_at = |at: usize| Some(usize::from(u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?])));
    let start = 21 + u16_at(19)? + 2;
    let mut field = octets.get(start..start + u16_at(start - 2)?)?;
    let mut all = Vec::new();
    while let [flags, code, rest @ ..] = field {
        let (length, rest) = match (flags & 0x10, rest) {
            (0, [length, rest @ ..]) => (usize::from(*length), rest),
            (_, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        all.push((*flags, *code, value));
        field = rest;
    }
    Some(all)
}

/// Whether an UPDATE is of an internal session: LOCAL_PREF tells.
pub fn internal(octets: &[u8]) -> bool {
    attributes(octets).is_some_and(|all| all.iter().any(|(_, code, _)| *code == 5))
}

/// Decodes what must be a sound UPDATE or one with faults.
pub fn decode_update(message: &[u8], ctx: &DecodeContext) -> Result<Update, Notification> {
    match decode(message, ctx)? {
        Message::Update(update) => Ok(update),
        other => panic!("not an UPDATE: {other:?}"),
    }
}

/// Everything a stream holds; stops after an error.
pub fn decode_all(stream: &[u8], step: usize, ctx: &DecodeContext) -> Vec<Result<Message, Notification>> {
    let mut framer = Framer::new();
    let mut messages = Vec::new();
    for mut piece in stream.chunks(step.max(1)) {
        while !piece.is_empty() {
            piece = &piece[framer.push(piece)..];
            while let Some(result) = framer.next(ctx) {
                messages.push(result);
            }
        }
    }
    messages
}

/// A path of the shared data, or `None` with a line that says what is skipped.
pub fn shared(path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    if full.exists() {
        return Some(full);
    }
    eprintln!("skipped: {} is not there", full.display());
    None
}
