//! SYN cookies (RFC 4987 §3.6): what a SYN said, kept by the client instead of by us.
//!
//! The lower [`COOKIE_BITS`] of an initial sequence number ([`super::sequence`]). From the top: two bits that stand for the
//! client's maximum segment size, four for its window scale, one for selective acknowledgements; one, the lowest of the [`unit`] of
//! time in which the cookie was made; [`MAC_BITS`] of a hash of all that with the client's own initial sequence number and the
//! connection. The client returns both sequence numbers with its first acknowledgement, and with all it sends until it is answered.
//!
//! Whether timestamps were agreed on needs no bit: a client that agreed sends them in every segment (RFC 7323 §3.2), and the
//! hash knows. There is no bit for ECN: connections begun by a cookie are without.
//!
//! # What a forger can do
//!
//! Somebody who does not see our answers must guess a number in the window of this minute or the last: [`Mask::sequence`](super::Mask)
//! hides ten bits that must be exactly our site's, and the hash 14 more, so of 2²⁴ (16.8 million) packets one opens a connection, which
//! then has a wrong acknowledgement number for nothing else he knows. That is as good as the cookies of Linux (24 bits of hash,
//! two minutes). With timestamps he must also guess an echo of the last two minutes ([`is_recent`]), one in 2¹⁵. What he learns from
//! his own connections says nothing of others': both mask and hash depend on all of the flow, under two keys. The unit's lowest bit says
//! which of two units to try; one bit more of hash, and two tries, would be exactly as strong and twice the work.
//!
//! A cookie is good for 65 to 131 seconds, at its own site, for its own flow and client's sequence number: replaying it opens
//! what its rightful owner could have opened.

use super::Key;
use super::sequence::COOKIE_BITS;
use super::siphash::siphash13;

/// Bits of the hash in a cookie.
pub const MAC_BITS: u32 = 14;

/// Of a unit of time, ms, the power of two: 65.5 s.
const UNIT_SHIFT: u32 = 16;

/// Units are told apart for 34 years.
const UNIT_BITS: u32 = 24;

/// Window scale of a client that offers none; the largest there is, is 14 (RFC 7323 §2.3).
const NO_SCALE: u8 = 15;

/// The largest window scale (RFC 7323 §2.3).
pub const SCALE_MAX: u8 = 14;

/// Segment sizes a cookie can say for IPv4: those of Linux (net/ipv4/syncookies.c), which has them from measurements of what clients
/// offer: the least there is, tunnels, PPPoE, Ethernet. What a client offers is rounded down.
pub const SEGMENTS_V4: [u16; 4] = [536, 1300, 1440, 1460];

/// For IPv6, likewise (net/ipv6/syncookies.c): least MTU, tunnels, Ethernet, jumbo frames.
pub const SEGMENTS_V6: [u16; 4] = [1220, 1420, 1440, 8940];

/// What both sides agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which of the four segment sizes of the address family.
    pub segment: u8,
    /// How far the client's windows are shifted, at most [`SCALE_MAX`]; `None`: it does not offer window scaling.
    pub scale: Option<u8>,
    /// Selective acknowledgements (RFC 2018).
    pub sack: bool,
    /// Timestamps (RFC 7323).
    pub timestamps: bool,
}

/// What a cookie is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// [`super::Flow::hash`].
    pub flow: u64,
    /// The client's initial sequence number: in its SYN, or one less than in its first acknowledgement.
    pub sequence: u32,
}

impl Options {
    /// All eight bits; those of the cookie without the last.
    fn bits(self) -> u8 {
        let scale = self.scale.unwrap_or(NO_SCALE).min(NO_SCALE);
        self.segment << 6 | scale << 2 | u8::from(self.sack) << 1 | u8::from(self.timestamps)
    }

    fn of_bits(bits: u8) -> Options {
        let scale = bits >> 2 & NO_SCALE;
        Options {
            segment: bits >> 6,
            scale: (scale != NO_SCALE).then_some(scale),
            sack: bits & 2 != 0,
            timestamps: bits & 1 != 0,
        }
    }
}

/// The largest of `segments` that is no larger than what a client offers. `None`: it offers less than any; no cookie for it.
pub fn segment(offered: u16, segments: [u16; 4]) -> Option<u8> {
    segments.iter().rposition(|size| *size <= offered).map(|index| index as u8)
}

/// The cookie of a SYN. `wall_ms`: as for [`super::timestamp::encode`].
pub fn encode(key: Key, opening: Opening, options: Options, wall_ms: u64) -> u32 {
    let (bits, unit) = (options.bits(), unit(wall_ms));
    u32::from(bits >> 1) << (MAC_BITS + 1) | (unit & 1) << MAC_BITS | mac(key, opening, bits, unit)
}

/// What a client that returns `cookie` agreed on. `timestamps`: whether it sends them with it. `None`: the cookie is not ours, not
/// this client's, or too old.
pub fn decode(key: Key, opening: Opening, cookie: u32, timestamps: bool, wall_ms: u64) -> Option<Options> {
    let options = cookie >> (MAC_BITS + 1) & ((1 << (COOKIE_BITS - MAC_BITS - 1)) - 1);
    let bits = (options as u8) << 1 | u8::from(timestamps);
    let now = unit(wall_ms);
    // Of this unit and the one before, that with the right lowest bit.
    let made = now.wrapping_sub((now ^ cookie >> MAC_BITS) & 1) & ((1 << UNIT_BITS) - 1);
    (cookie & ((1 << MAC_BITS) - 1) == mac(key, opening, bits, made)).then(|| Options::of_bits(bits))
}

/// Whether `echo` (TSecr) can be what we said with a cookie that is still good. `said`: what our clock of timestamps says now
/// ([`super::timestamp::encode`]).
pub fn is_recent(echo: u32, said: u32) -> bool {
    said.wrapping_sub(echo) < 2 << UNIT_SHIFT
}

fn unit(wall_ms: u64) -> u32 {
    (wall_ms >> UNIT_SHIFT) as u32 & ((1 << UNIT_BITS) - 1)
}

fn mac(key: Key, opening: Opening, bits: u8, unit: u32) -> u32 {
    let rest = u64::from(opening.sequence) | u64::from(unit) << 32 | u64::from(bits) << (32 + UNIT_BITS);
    let octets: [[u8; 8]; 2] = [opening.flow.to_le_bytes(), rest.to_le_bytes()];
    siphash13(key, octets.as_flattened()) as u32 & ((1 << MAC_BITS) - 1)
}
