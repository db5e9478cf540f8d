//! Texts of user files turned into values, each failure with its cause and fix.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::sink::Finding;
pub(crate) use super::text_check::*;
use super::words::{did_you_mean, shorten};
use super::{MAX_NAME_CHARS, MAX_TEXT_CHARS};
use crate::diagnostic as code;
use crate::location::Location;
use crate::net::{Asn, Community, ExtendedCommunity, LargeCommunity, Prefix, action};
use crate::quantity;

/// Text that fits in a line: not empty, bounded, without control characters.
pub(crate) fn plain(word: &str) -> Result<&str, Finding> {
    let bad = |message: String, fix: &str| Err(Finding::new(code::BAD_TEXT, message).fix(fix));
    if word.trim().is_empty() {
        return bad("the text is empty".to_owned(), "write a value, or remove the key");
    }
    if word.chars().nth(MAX_TEXT_CHARS).is_some() {
        return bad(format!("the text is longer than {MAX_TEXT_CHARS} characters"), "shorten it");
    }
    match word.chars().find(|c| c.is_control()) {
        Some(c) => bad(format!("the text contains the control character {}", c.escape_default()), "remove it"),
        None => Ok(word),
    }
}

/// Any plain text.
pub(crate) fn free(word: &str) -> Result<String, Finding> {
    Ok(word.to_owned())
}

/// Path of a file.
pub(crate) fn path(word: &str) -> Result<PathBuf, Finding> {
    Ok(PathBuf::from(word))
}

/// `[a-z0-9-]`, bounded.
pub(crate) fn name(word: &str) -> Result<String, Finding> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !word.starts_with('-') && !word.ends_with('-') && word.len() <= MAX_NAME_CHARS && word.chars().all(fits) {
        return Ok(word.to_owned());
    }
    let mut better: String =
        word.to_lowercase().chars().map(|c| if fits(c) { c } else { '-' }).take(MAX_NAME_CHARS).collect();
    better = better.trim_matches('-').to_owned();
    let message = format!("\"{}\" is not a name", shorten(word));
    let finding = Finding::new(code::BAD_NAME, message).cause(format!(
        "names appear in metrics and paths: a-z, 0-9 and `-`, at most {MAX_NAME_CHARS} characters, no `-` at the ends"
    ));
    Err(if better.is_empty() { finding.fix("e.g. \"ams\"") } else { finding.fix(format!("write \"{better}\"")) })
}

/// A duration within bounds.
pub(crate) fn duration_within(word: &str, min: Duration, max: Duration) -> Result<Duration, Finding> {
    let duration = quantity::parse_duration(word).map_err(|error| {
        let finding = Finding::new(code::BAD_DURATION, format!("\"{}\" is not a duration: {error}", shorten(word)));
        finding.fix(error.fix.unwrap_or_else(|| "write a number with unit, e.g. \"100ms\" or \"2s\"".to_owned()))
    })?;
    if duration < min || duration > max {
        let (min, max) = (quantity::format_duration(min), quantity::format_duration(max));
        let message = format!("\"{word}\" is outside {min} to {max}");
        return Err(Finding::new(code::OUT_OF_RANGE, message).fix(format!("choose a duration from {min} to {max}")));
    }
    Ok(duration)
}

/// Bits per second.
pub(crate) fn bit_rate(word: &str) -> Result<u64, Finding> {
    quantity::parse_bit_rate(word).map_err(|error| {
        let finding = Finding::new(code::BAD_RATE, format!("\"{}\" is not a bit rate: {error}", shorten(word)));
        finding.fix(error.fix.unwrap_or_else(|| "write e.g. \"40Gbit/s\" or \"500Mbit/s\"".to_owned()))
    })
}

/// Queries per second.
pub(crate) fn query_rate(word: &str) -> Result<u64, Finding> {
    rate("query", word)
}

/// Packets per second, written as query rates are.
pub(crate) fn packet_rate(word: &str) -> Result<u64, Finding> {
    rate("packet", word)
}

fn rate(what: &str, word: &str) -> Result<u64, Finding> {
    quantity::parse_query_rate(word).map_err(|error| {
        let finding = Finding::new(code::BAD_RATE, format!("\"{}\" is not a {what} rate: {error}", shorten(word)));
        finding.fix(error.fix.unwrap_or_else(|| "write e.g. \"1.2M/s\" or \"50k/s\"".to_owned()))
    })
}

/// A probability written as a percentage.
pub(crate) fn fraction(word: &str) -> Result<f64, Finding> {
    quantity::parse_percentage(word).map_err(|error| {
        let finding = Finding::new(code::BAD_FRACTION, format!("\"{}\" is not a percentage: {error}", shorten(word)));
        finding.fix(error.fix.unwrap_or_else(|| "write e.g. \"0.1%\"".to_owned()))
    })
}

/// An AS number that can take part in BGP.
pub(crate) fn asn(number: i128) -> Result<Asn, Finding> {
    let bad = |message: String, cause: &str| {
        let finding = Finding::new(code::BAD_ASN, message).cause(cause);
        Err(finding.fix("use your AS number; for tests, 64496 to 64511 are reserved for documentation"))
    };
    match number {
        0 => bad("AS 0 cannot be used".to_owned(), "RFC 7607 reserves it"),
        23456 => {
            bad("AS 23456 cannot be used".to_owned(), "it is AS_TRANS, which stands for 4-octet numbers (RFC 6793)")
        }
        65535 | 4_294_967_295 => bad(format!("AS {number} cannot be used"), "RFC 7300 reserves it"),
        i128::MIN..0 | 4_294_967_296.. => {
            bad("the number is not an AS number".to_owned(), "AS numbers go from 1 to 4294967294")
        }
        number => u32::try_from(number).map(Asn).or_else(|_| bad("not an AS number".to_owned(), "")),
    }
}

/// An IP address.
pub(crate) fn address(word: &str) -> Result<IpAddr, Finding> {
    if let Ok(address) = word.parse() {
        return Ok(address);
    }
    let finding = Finding::new(code::BAD_ADDRESS, format!("\"{}\" is not an IP address", shorten(word)));
    let address_part = word.split_once('/').map(|(address, _)| address).filter(|a| a.parse::<IpAddr>().is_ok());
    Err(if let Some(address) = address_part {
        finding.fix(format!("write the address without length: \"{address}\""))
    } else if let Ok(endpoint) = word.parse::<SocketAddr>() {
        finding.fix(format!("write the address without port: \"{}\"", endpoint.ip()))
    } else if looks_like_ipv4_with_zeros(word) {
        finding.cause("numbers with leading zeros are read as octal by some programs").fix("remove the leading zeros")
    } else {
        finding
            .cause("names are not looked up: a node must not depend on the DNS it may be serving")
            .fix("write an IPv4 or IPv6 address, e.g. \"192.0.2.1\" or \"2001:db8::1\"")
    })
}

fn looks_like_ipv4_with_zeros(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    parts.len() == 4 && parts.iter().all(|p| p.parse::<u8>().is_ok())
}

/// An address with a port other than 0.
pub(crate) fn endpoint(word: &str) -> Result<SocketAddr, Finding> {
    let endpoint = word.parse::<SocketAddr>().map_err(|_| {
        let finding = Finding::new(code::BAD_ENDPOINT, format!("\"{}\" is not an address with port", shorten(word)));
        match word.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => finding.cause("the port is missing").fix(format!("write e.g. \"{address}:53\"")),
            Ok(IpAddr::V6(address)) => {
                finding.cause("the port is missing").fix(format!("write e.g. \"[{address}]:53\""))
            }
            Err(_) => finding
                .cause("names are not looked up: a node must not depend on the DNS it may be serving")
                .fix("write e.g. \"198.51.100.53:53\" or \"[2001:db8:53::53]:53\""),
        }
    })?;
    if endpoint.port() == 0 {
        return Err(port_zero(&endpoint.to_string()));
    }
    Ok(endpoint)
}

pub(super) fn port_zero(what: &str) -> Finding {
    Finding::new(code::PORT_ZERO, format!("{what}: nothing can be reached at port 0"))
        .fix("write the port the service listens on")
}

/// A prefix without host bits.
pub(crate) fn prefix(word: &str) -> Result<Prefix, Finding> {
    word.parse::<Prefix>().map_err(|_| {
        let finding = Finding::new(code::BAD_PREFIX, format!("\"{}\" is not a prefix", shorten(word)));
        match word.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => finding.cause("the length is missing").fix(format!("write e.g. \"{word}/24\"")),
            Ok(IpAddr::V6(_)) => finding.cause("the length is missing").fix(format!("write e.g. \"{word}/48\"")),
            Err(_) => finding.fix("write e.g. \"198.51.100.0/24\" or \"2001:db8:53::/48\""),
        }
    })
}

/// What is wrong with a prefix that has host bits; the rest of the file is checked against the prefix that was meant.
pub(crate) fn host_bits(prefix: Prefix) -> Option<Finding> {
    let meant = prefix.trunc();
    (meant != prefix).then(|| {
        Finding::new(code::HOST_BITS, format!("{prefix} has bits set right of its length"))
            .cause(format!("the prefix that holds {} is {meant}", prefix.addr()))
            .fix(format!("write \"{meant}\""))
    })
}

/// A standard community.
pub(crate) fn community(word: &str) -> Result<Community, Finding> {
    word.parse().map_err(|_| {
        let message = format!("\"{}\" is not a community", shorten(word));
        let finding = Finding::new(code::BAD_COMMUNITY, message);
        if word.parse::<LargeCommunity>().is_ok() {
            return finding.cause("three numbers make a large community").fix("move it to `large-communities`");
        }
        let four_octets = word.split_once(':').is_some_and(|(h, _)| h.parse::<u32>().is_ok_and(|h| h > 0xFFFF));
        if four_octets {
            return finding
                .cause("a 4-octet AS number does not fit in a standard community (RFC 1997)")
                .fix("use a large community: large-communities = [\"ASN:VALUE:VALUE\"]");
        }
        let words = || Community::WORDS.iter().map(|(word, _)| *word);
        if let Some(Err(unknown)) = action::named(word) {
            return finding.cause(unknown.reason).fix(unknown.fix);
        }
        if word.contains(|c: char| c.is_ascii_alphabetic()) {
            return finding.fix(did_you_mean(word, words()));
        }
        finding.fix("write two numbers up to 65535, e.g. \"64500:100\"")
    })
}

/// An extended community.
pub(crate) fn extended_community(word: &str) -> Result<ExtendedCommunity, Finding> {
    word.parse().map_err(|_| {
        let message = format!("\"{}\" is not an extended community", shorten(word));
        Finding::new(code::BAD_COMMUNITY, message)
            .fix("write \"rt:ASN:VALUE\", \"ro:ASN:VALUE\", or its 8 octets as 0x and 16 hexadecimal digits")
    })
}

/// Name of a network interface, as the kernel takes it.
pub(crate) fn interface(word: &str) -> Result<String, Finding> {
    let fits = word.len() <= MAX_INTERFACE_BYTES && !word.contains(|c: char| c == '/' || c.is_whitespace());
    if fits && word != "." && word != ".." {
        return Ok(word.to_owned());
    }
    Err(Finding::new(code::BAD_TEXT, format!("\"{}\" is not the name of an interface", shorten(word)))
        .cause(format!("interface names have at most {MAX_INTERFACE_BYTES} bytes, no blank and no `/`"))
        .fix("write the name `ip link` shows, e.g. \"eth0\""))
}

/// Longest name of an interface, bytes (`IFNAMSIZ` less its NUL).
const MAX_INTERFACE_BYTES: usize = 15;

/// A large community.
pub(crate) fn large_community(word: &str) -> Result<LargeCommunity, Finding> {
    word.parse().map_err(|_| {
        let message = format!("\"{}\" is not a large community", shorten(word));
        let finding = Finding::new(code::BAD_COMMUNITY, message);
        if word.parse::<Community>().is_ok() {
            return finding.cause("two numbers make a standard community").fix("move it to `communities`");
        }
        finding.fix("write three numbers up to 4294967295, e.g. \"64500:1:2\"")
    })
}

/// A BGP identifier.
pub(crate) fn router_id(word: &str) -> Result<Ipv4Addr, Finding> {
    word.parse::<Ipv4Addr>().ok().filter(|id| !id.is_unspecified()).ok_or_else(|| {
        Finding::new(code::BAD_ROUTER_ID, format!("\"{}\" is not a router ID", shorten(word)))
            .cause("the BGP identifier is a non-zero 32-bit number written like an IPv4 address (RFC 6286)")
            .fix("write e.g. \"192.0.2.1\", or remove the key: one is derived")
    })
}

/// A place.
pub(crate) fn location(word: &str) -> Result<Location, Finding> {
    Location::resolve(word).map_err(|error| {
        let fix = error.fix();
        Finding::new(code::UNKNOWN_LOCATION, error.to_string()).fix(fix)
    })
}
