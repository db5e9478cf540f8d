//! What happens to the packets of a rule (RFC 8955 §7): extended communities.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ubique_model::Asn;

/// High octet of the type: generic transitive experimental, and its two further parts (RFC 7153, RFC 8955 §10.3).
const EXPERIMENTAL: u8 = 0x80;
const EXPERIMENTAL_IPV4: u8 = 0x81;
const EXPERIMENTAL_AS4: u8 = 0x82;

/// Low octets of the type (RFC 8955 §7).
const RATE_BYTES: u8 = 0x06;
const TRAFFIC_ACTION: u8 = 0x07;
const REDIRECT: u8 = 0x08;
const MARKING: u8 = 0x09;
const RATE_PACKETS: u8 = 0x0c;

/// Bits of the last octet of a traffic action (RFC 8955 §7.3).
const SAMPLE: u8 = 0x02;
const CONTINUE: u8 = 0x01;

/// The bits of a DSCP (RFC 2474 §3).
const DSCP: u8 = 0x3f;

/// A traffic filtering action.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// At most so many octets each second; 0 discards everything (§7.1).
    RateBytes {
        /// Who says so, for information; 0 when nobody.
        asn: u16,
        /// Octets each second, never negative.
        rate: f32,
    },
    /// At most so many packets each second; 0 discards everything (§7.2).
    RatePackets {
        /// Who says so, for information; 0 when nobody.
        asn: u16,
        /// Packets each second, never negative.
        rate: f32,
    },
    /// §7.3.
    Traffic {
        /// S: the packets are sampled and logged.
        sample: bool,
        /// T: later rules are applied, too; otherwise this one is the last.
        continues: bool,
    },
    /// Into the VPN with this route target (§7.4), 2-octet AS.
    Redirect {
        /// AS.
        asn: u16,
        /// Local administrator.
        value: u32,
    },
    /// The same, by IPv4 address.
    RedirectIpv4 {
        /// Address.
        address: Ipv4Addr,
        /// Local administrator.
        value: u16,
    },
    /// The same, by 4-octet AS.
    RedirectAs4 {
        /// AS.
        asn: Asn,
        /// Local administrator.
        value: u16,
    },
    /// The DSCP is set (§7.5).
    Marking {
        /// 6 bits.
        dscp: u8,
    },
    /// Another extended community.
    Other([u8; 8]),
}

impl Action {
    /// The packets are discarded.
    pub const DISCARD: Action = Action::RateBytes { asn: 0, rate: 0.0 };

    /// Reads an extended community. A rate below 0 means 0 (§7.1, §7.2), reserved bits mean nothing.
    pub fn from_community(community: [u8; 8]) -> Action {
        let [high, low, a, b, c, d, e, f] = community;
        let asn = u16::from_be_bytes([a, b]);
        // Not a number is no rate either.
        let rate = || Some(f32::from_be_bytes([c, d, e, f])).filter(|rate| *rate > 0.0).unwrap_or(0.0);
        match (high, low) {
            (EXPERIMENTAL, RATE_BYTES) => Action::RateBytes { asn, rate: rate() },
            (EXPERIMENTAL, RATE_PACKETS) => Action::RatePackets { asn, rate: rate() },
            (EXPERIMENTAL, TRAFFIC_ACTION) => Action::Traffic { sample: f & SAMPLE != 0, continues: f & CONTINUE != 0 },
            (EXPERIMENTAL, REDIRECT) => Action::Redirect { asn, value: u32::from_be_bytes([c, d, e, f]) },
            (EXPERIMENTAL_IPV4, REDIRECT) => {
                Action::RedirectIpv4 { address: [a, b, c, d].into(), value: u16::from_be_bytes([e, f]) }
            }
            (EXPERIMENTAL_AS4, REDIRECT) => {
                let asn = Asn(u32::from_be_bytes([a, b, c, d]));
                Action::RedirectAs4 { asn, value: u16::from_be_bytes([e, f]) }
            }
            (EXPERIMENTAL, MARKING) => Action::Marking { dscp: f & DSCP },
            _ => Action::Other(community),
        }
    }

    /// The extended community. A rate that is negative or not a number becomes 0.
    pub fn community(self) -> [u8; 8] {
        match self {
            Action::RateBytes { asn, rate } => octets(EXPERIMENTAL, RATE_BYTES, asn.to_be_bytes(), rate_octets(rate)),
            Action::RatePackets { asn, rate } => {
                octets(EXPERIMENTAL, RATE_PACKETS, asn.to_be_bytes(), rate_octets(rate))
            }
            Action::Traffic { sample, continues } => {
                let bits = if sample { SAMPLE } else { 0 } | if continues { CONTINUE } else { 0 };
                octets(EXPERIMENTAL, TRAFFIC_ACTION, [0; 2], [0, 0, 0, bits])
            }
            Action::Redirect { asn, value } => octets(EXPERIMENTAL, REDIRECT, asn.to_be_bytes(), value.to_be_bytes()),
            Action::RedirectIpv4 { address, value } => wide(EXPERIMENTAL_IPV4, address.into(), value),
            Action::RedirectAs4 { asn, value } => wide(EXPERIMENTAL_AS4, asn.0, value),
            Action::Marking { dscp } => octets(EXPERIMENTAL, MARKING, [0; 2], [0, 0, 0, dscp & DSCP]),
            Action::Other(community) => community,
        }
    }
}

fn octets(high: u8, low: u8, [a, b]: [u8; 2], [c, d, e, f]: [u8; 4]) -> [u8; 8] {
    [high, low, a, b, c, d, e, f]
}

fn rate_octets(rate: f32) -> [u8; 4] {
    if rate > 0.0 { rate } else { 0.0 }.to_be_bytes()
}

fn wide(high: u8, administrator: u32, value: u16) -> [u8; 8] {
    let ([a, b, c, d], [e, f]) = (administrator.to_be_bytes(), value.to_be_bytes());
    [high, REDIRECT, a, b, c, d, e, f]
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Action::RateBytes { asn: 0, rate: 0.0 } => f.write_str("discard"),
            Action::RateBytes { asn: 0, rate } => write!(f, "rate-bytes {rate}"),
            Action::RateBytes { asn, rate } => write!(f, "rate-bytes {rate} as {asn}"),
            Action::RatePackets { asn: 0, rate } => write!(f, "rate-packets {rate}"),
            Action::RatePackets { asn, rate } => write!(f, "rate-packets {rate} as {asn}"),
            Action::Traffic { sample: false, continues: false } => f.write_str("last"),
            Action::Traffic { sample: true, continues: false } => f.write_str("sample last"),
            Action::Traffic { sample: false, continues: true } => f.write_str("continue"),
            Action::Traffic { sample: true, continues: true } => f.write_str("sample continue"),
            Action::Redirect { asn, value } => write!(f, "redirect {asn}:{value}"),
            Action::RedirectIpv4 { address, value } => write!(f, "redirect {address}:{value}"),
            Action::RedirectAs4 { asn, value } => write!(f, "redirect {}L:{value}", asn.0),
            Action::Marking { dscp } => write!(f, "mark {dscp}"),
            Action::Other(community) => {
                f.write_str("0x")?;
                community.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}

/// What is wrong with an action in text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseActionError {
    /// Not an action.
    #[error(
        "{0:?} is no action: discard, rate-bytes N, rate-packets N, redirect ASN:N, redirect ADDRESS:N, mark DSCP, sample, \
         continue, sample continue, last, sample last, or 0x and 16 digits"
    )]
    Word(String),
    /// What follows does not fit.
    #[error("{word} {text:?}: {expected} belongs here")]
    Value {
        /// The action.
        word: &'static str,
        /// What is there.
        text: String,
        /// What could be.
        expected: &'static str,
    },
}

impl FromStr for Action {
    type Err = ParseActionError;

    /// As displayed. A redirect to an AS beyond 65,535 has the 4-octet form with or without `L`.
    fn from_str(text: &str) -> Result<Action, ParseActionError> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let value = |word, expected| {
            let text = words[1..].join(" ");
            ParseActionError::Value { word, text, expected }
        };
        match words.as_slice() {
            ["discard"] => Ok(Action::DISCARD),
            ["last"] => Ok(Action::Traffic { sample: false, continues: false }),
            ["sample"] | ["sample", "last"] => Ok(Action::Traffic { sample: true, continues: false }),
            ["continue"] => Ok(Action::Traffic { sample: false, continues: true }),
            ["sample", "continue"] => Ok(Action::Traffic { sample: true, continues: true }),
            ["rate-bytes", rest @ ..] => rate(rest)
                .map(|(asn, rate)| Action::RateBytes { asn, rate })
                .ok_or_else(|| value("rate-bytes", "octets each second")),
            ["rate-packets", rest @ ..] => rate(rest)
                .map(|(asn, rate)| Action::RatePackets { asn, rate })
                .ok_or_else(|| value("rate-packets", "packets each second")),
            ["redirect", rest @ ..] => {
                redirect(rest).ok_or_else(|| value("redirect", "a route target like 65000:1, 192.0.2.1:1 or 70000:1"))
            }
            ["mark", rest @ ..] => mark(rest).ok_or_else(|| value("mark", "a DSCP from 0 to 63")),
            [word] => opaque(word).ok_or_else(|| ParseActionError::Word((*word).to_owned())),
            _ => Err(ParseActionError::Word(text.trim().to_owned())),
        }
    }
}

fn rate(words: &[&str]) -> Option<(u16, f32)> {
    let (rate, asn) = match words {
        [rate] => (rate, 0),
        [rate, "as", asn] => (rate, asn.parse().ok()?),
        _ => return None,
    };
    let rate: f32 = rate.parse().ok()?;
    (rate.is_finite() && rate.is_sign_positive()).then_some((asn, rate))
}

fn redirect(words: &[&str]) -> Option<Action> {
    let [target] = words else { return None };
    let (administrator, value) = target.rsplit_once(':')?;
    if let Ok(address) = administrator.parse() {
        return Some(Action::RedirectIpv4 { address, value: value.parse().ok()? });
    }
    if let Ok(asn) = administrator.parse() {
        return Some(Action::Redirect { asn, value: value.parse().ok()? });
    }
    let asn = administrator.strip_suffix('L').unwrap_or(administrator).parse().ok()?;
    Some(Action::RedirectAs4 { asn: Asn(asn), value: value.parse().ok()? })
}

fn mark(words: &[&str]) -> Option<Action> {
    let [dscp] = words else { return None };
    let dscp = dscp.parse().ok().filter(|dscp| *dscp <= DSCP)?;
    Some(Action::Marking { dscp })
}

fn opaque(word: &str) -> Option<Action> {
    let digits = word.strip_prefix("0x").filter(|digits| digits.len() == 16 && !digits.starts_with('+'))?;
    Some(Action::from_community(u64::from_str_radix(digits, 16).ok()?.to_be_bytes()))
}
