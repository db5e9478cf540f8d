//! Extended communities (RFC 4360).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Subtypes with a word: route target and route origin (RFC 4360 §4, §5).
const WORDS: [(&str, u8); 2] = [("rt", 2), ("ro", 3)];

/// Types that these two exist in: 2-octet AS (RFC 4360 §3.1), IPv4 address (§3.2), 4-octet AS (RFC 5668 §2).
const TWO_OCTET_AS: u8 = 0;
const IPV4_ADDRESS: u8 = 1;
const FOUR_OCTET_AS: u8 = 2;

/// An extended community (RFC 4360), octets as sent. Printed as `rt:ASN:VALUE`, `ro:ASN:VALUE` (an IPv4 address can
/// stand in the place of the AS number), or, any other, as `0x` with 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ExtendedCommunity(pub [u8; 8]);

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, subtype, a, b, c, d, e, g] = self.0;
        let four = u32::from_be_bytes([a, b, c, d]);
        if let Some((word, _)) = WORDS.iter().find(|(_, s)| *s == subtype) {
            match kind {
                TWO_OCTET_AS => {
                    let (asn, value) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, g]));
                    return write!(f, "{word}:{asn}:{value}");
                }
                IPV4_ADDRESS => return write!(f, "{word}:{}:{}", Ipv4Addr::from(four), u16::from_be_bytes([e, g])),
                // A small number in the 4-octet form is another community than in the 2-octet form.
                FOUR_OCTET_AS if four > 0xFFFF => return write!(f, "{word}:{four}:{}", u16::from_be_bytes([e, g])),
                _ => {}
            }
        }
        write!(f, "0x{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ExtendedCommunity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).ok_or_else(|| {
            format!(
                "{text:?} is not an extended community: write \"rt:ASN:VALUE\", \"ro:ASN:VALUE\" or 0x and 16 digits"
            )
        })
    }
}

fn parse(text: &str) -> Option<ExtendedCommunity> {
    if let Some(digits) = text.strip_prefix("0x") {
        let fits = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let value = fits.then(|| u64::from_str_radix(digits, 16).ok())??;
        return Some(ExtendedCommunity(value.to_be_bytes()));
    }
    let mut parts = text.split(':');
    let word = parts.next()?;
    let subtype = WORDS.iter().find(|(w, _)| *w == word)?.1;
    let (global, value) = (parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let long = |kind: u8, global: [u8; 4], value: u16| {
        let ([a, b, c, d], [e, g]) = (global, value.to_be_bytes());
        Some(ExtendedCommunity([kind, subtype, a, b, c, d, e, g]))
    };
    if let Ok(address) = global.parse::<Ipv4Addr>() {
        return long(IPV4_ADDRESS, address.octets(), value.parse().ok()?);
    }
    match global.parse::<u32>().ok()? {
        asn @ 0..=0xFFFF => {
            let ([_, _, a, b], [c, d, e, g]) = (asn.to_be_bytes(), value.parse::<u32>().ok()?.to_be_bytes());
            Some(ExtendedCommunity([TWO_OCTET_AS, subtype, a, b, c, d, e, g]))
        }
        asn => long(FOUR_OCTET_AS, asn.to_be_bytes(), value.parse().ok()?),
    }
}

impl From<ExtendedCommunity> for String {
    fn from(c: ExtendedCommunity) -> String {
        c.to_string()
    }
}

impl TryFrom<String> for ExtendedCommunity {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_octets() {
        for (text, octets) in [
            ("rt:64500:1", [0, 2, 0xfb, 0xf4, 0, 0, 0, 1]),
            ("ro:64500:65537", [0, 3, 0xfb, 0xf4, 0, 1, 0, 1]),
            ("rt:4200000000:9", [2, 2, 0xfa, 0x56, 0xea, 0, 0, 9]),
            ("rt:192.0.2.1:7", [1, 2, 192, 0, 2, 1, 0, 7]),
            ("0x8006000000000000", [0x80, 6, 0, 0, 0, 0, 0, 0]),
            ("0x02020000fbf40001", [2, 2, 0, 0, 0xfb, 0xf4, 0, 1]),
        ] {
            assert_eq!(text.parse::<ExtendedCommunity>().unwrap().0, octets, "{text}");
            assert_eq!(ExtendedCommunity(octets).to_string(), text);
        }
    }

    #[test]
    fn what_is_not_one() {
        for text in
            ["", "rt", "rt:1", "rt:1:2:3", "xx:1:2", "rt:1:4294967296", "rt:70000:65536", "0x12", "0x+000000000000001"]
        {
            assert!(text.parse::<ExtendedCommunity>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_one_reads_back() {
        for kind in 0..=3 {
            for subtype in 0..=4 {
                for c in [0, 1, 0xff] {
                    let community = ExtendedCommunity([kind, subtype, c, 1, 2, c, 4, 5]);
                    assert_eq!(community.to_string().parse(), Ok(community));
                }
            }
        }
    }
}
