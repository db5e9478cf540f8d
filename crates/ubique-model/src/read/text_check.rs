//! Texts of `[[check]]` tables turned into values.

use std::net::{IpAddr, SocketAddr};

use super::sink::Finding;
use super::table::Scalar;
use super::text::{endpoint, port_zero};
use super::words::{did_you_mean, shorten};
use crate::check::{Statuses, Target, parse_octets};
use crate::diagnostic as code;

/// A word and what it means with a port.
type Named = (&'static str, fn(u16) -> Target);

/// What stands for all service addresses, and for the loopback.
const NAMED: [Named; 2] = [("service", Target::Service), ("loopback", Target::Loopback)];

/// An address with port, `service:PORT` or `loopback:PORT`.
pub(crate) fn target(word: &str) -> Result<Target, Finding> {
    let found = NAMED.iter().find_map(|(name, target)| Some((target, word.strip_prefix(name)?.strip_prefix(':')?)));
    let Some((named, port)) = found else {
        return endpoint(word).map(Target::Address);
    };
    match port.parse::<u16>() {
        Ok(0) => Err(port_zero(word)),
        Ok(port) => Ok(named(port)),
        Err(_) => Err(Finding::new(code::BAD_ENDPOINT, format!("\"{}\" has no port", shorten(word)))
            .fix("write e.g. \"service:53\"")),
    }
}

/// What an HTTP URL names.
pub(crate) struct HttpUrl {
    /// Server.
    pub target: Target,
    /// `https`.
    pub tls: bool,
    /// Path with query.
    pub path: String,
}

/// `http://ADDRESS[:PORT][/PATH]`, or `https://`; `service` and `loopback` for the address.
pub(crate) fn http_url(word: &str) -> Result<HttpUrl, Finding> {
    let bad = |message: &str| Finding::new(code::BAD_URL, format!("\"{}\": {message}", shorten(word)));
    let example = "write e.g. \"http://198.51.100.53:80/health\"";
    let schemes = [("http://", 80, false), ("https://", 443, true)];
    let scheme = schemes.into_iter().find_map(|(scheme, port, tls)| Some((word.strip_prefix(scheme)?, port, tls)));
    let (rest, default_port, tls) =
        scheme.ok_or_else(|| bad("the URL does not begin with http:// or https://").fix(example))?;
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => (&rest[..at], rest[at..].to_owned()),
        Some(at) => (&rest[..at], format!("/{}", &rest[at..])),
        None => (rest, "/".to_owned()),
    };
    let named = NAMED.iter().find(|(name, _)| authority.split(':').next() == Some(name));
    let address_only = authority.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let target = match (authority.parse::<SocketAddr>(), address_only, named) {
        (_, _, Some((name, named))) if *name == authority => named(default_port),
        (_, _, Some(_)) => target(authority)?,
        (Ok(address), ..) if address.port() == 0 => return Err(port_zero(authority)),
        (Ok(address), ..) => Target::Address(address),
        (_, Ok(address), _) if address.is_ipv4() || authority.starts_with('[') => {
            Target::Address(SocketAddr::new(address, default_port))
        }
        (_, Ok(address), _) => {
            return Err(bad("an IPv6 address needs brackets").fix(format!("write http://[{address}]/")));
        }
        _ => {
            return Err(bad("the host is not an IP address")
                .cause("names are not looked up: a node must not depend on the DNS it may be serving")
                .fix("write the address, or `service`, in the URL and the name in `host`"));
        }
    };
    check_path(&path).map_err(|message| bad(message).fix("percent-encode them"))?;
    Ok(HttpUrl { target, tls, path })
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.contains(|c: char| c.is_whitespace() || c == '#' || !c.is_ascii()) {
        return Err("the path holds blanks, `#` or characters other than ASCII");
    }
    Ok(())
}

/// Path of a URL.
pub(crate) fn url_path(word: &str) -> Result<String, Finding> {
    let bad = |message: &str| Finding::new(code::BAD_URL, format!("\"{}\": {message}", shorten(word)));
    if !word.starts_with('/') {
        return Err(bad("a path begins with /").fix("write e.g. \"/dns-query\""));
    }
    check_path(word).map_err(|message| bad(message).fix("percent-encode them"))?;
    Ok(word.to_owned())
}

/// Value of the Host header.
pub(crate) fn host(word: &str) -> Result<String, Finding> {
    if word.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c)) {
        return Ok(word.to_owned());
    }
    Err(Finding::new(code::BAD_TEXT, format!("\"{}\" is not a host name", shorten(word)))
        .fix("write a name such as \"www.example.com\""))
}

/// Longest name of a unit of systemd, bytes (`UNIT_NAME_MAX`).
const MAX_UNIT_BYTES: usize = 255;

/// A unit of systemd that can have processes.
pub(crate) fn unit(word: &str) -> Result<String, Finding> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let has_ending = [".service", ".scope"].iter().any(|e| word.strip_suffix(e).is_some_and(|name| !name.is_empty()));
    if has_ending && word.len() <= MAX_UNIT_BYTES && word.chars().all(fits) {
        return Ok(word.to_owned());
    }
    let finding = Finding::new(code::BAD_TEXT, format!("\"{}\" is not a unit with processes", shorten(word)));
    Err(if !word.contains('.') && word.chars().all(fits) {
        finding.fix(format!("write \"{}.service\"", shorten(word)))
    } else {
        finding.cause("services and scopes have processes").fix("write e.g. \"nsd.service\"")
    })
}

/// Text, or `hex:` and digits.
pub(crate) fn octets(word: &str) -> Result<Vec<u8>, Finding> {
    parse_octets(word).filter(|octets| !octets.is_empty()).ok_or_else(|| {
        Finding::new(code::BAD_TEXT, format!("\"{}\" is not hexadecimal", shorten(word)))
            .cause("after \"hex:\" stand two digits for each octet")
            .fix("write e.g. \"hex:1b00\", or text without \"hex:\" in front")
    })
}

/// Lowest and highest status code of HTTP (RFC 9110 §15).
const STATUSES: std::ops::RangeInclusive<u16> = 100..=599;

/// `200`, `"2xx"` or `"200-299"`.
pub(crate) fn statuses(written: Scalar<'_>) -> Result<Statuses, Finding> {
    let word = match written {
        Scalar::Integer(code) => code.to_string(),
        Scalar::Text(word) => word.to_owned(),
    };
    let class = word.strip_suffix("xx").and_then(|c| c.parse::<u16>().ok()).filter(|c| (1..=5).contains(c));
    let range = || word.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let single = || word.parse().ok().map(|code| (code, code));
    let found = class.map(|c| (c * 100, c * 100 + 99)).or_else(range).or_else(single);
    match found.filter(|(first, last)| first <= last && STATUSES.contains(first) && STATUSES.contains(last)) {
        Some((first, last)) => Ok(Statuses { first, last }),
        None => Err(Finding::new(code::BAD_TEXT, format!("\"{}\" is not a range of status codes", shorten(&word)))
            .fix("write 204, \"2xx\" or \"200-399\"")),
    }
}

/// What a DNS check asks.
pub(crate) struct DnsQuery {
    /// Name.
    pub name: String,
    /// Type mnemonic.
    pub qtype: String,
    /// Class mnemonic.
    pub class: String,
}

/// Query types that checks can ask.
pub(crate) const QUERY_TYPES: &[&str] =
    &["A", "AAAA", "CNAME", "DNSKEY", "DS", "HTTPS", "MX", "NS", "PTR", "SOA", "SRV", "SVCB", "TXT"];

/// Longest label of a domain name, octets (RFC 1035 §2.3.4).
const MAX_LABEL_OCTETS: usize = 63;
/// Longest domain name in text without its final dot (RFC 1035 §2.3.4: 255 octets on the wire).
const MAX_DOMAIN_CHARS: usize = 253;

/// `NAME TYPE [CLASS]`.
pub(crate) fn dns_query(word: &str) -> Result<DnsQuery, Finding> {
    let bad = |message: String| Finding::new(code::BAD_QUERY, message);
    let parts: Vec<&str> = word.split_whitespace().collect();
    let (name, qtype, class) = match parts[..] {
        [name, qtype] => (name, qtype, "IN"),
        [name, qtype, class] => (name, qtype, class),
        [name] => {
            return Err(bad(format!("\"{}\" lacks the query type", shorten(word)))
                .fix(format!("write \"{} A\"", shorten(name))));
        }
        _ => {
            return Err(bad(format!("\"{}\" is not a query", shorten(word)))
                .fix("write \"NAME TYPE\" or \"NAME TYPE CLASS\", e.g. \"example.com A\""));
        }
    };
    let qtype = qtype.to_ascii_uppercase();
    if !QUERY_TYPES.contains(&qtype.as_str()) {
        return Err(bad(format!("unknown query type \"{}\"", shorten(&qtype)))
            .fix(did_you_mean(&qtype, QUERY_TYPES.iter().copied())));
    }
    let class = class.to_ascii_uppercase();
    if class != "IN" && class != "CH" {
        return Err(bad(format!("unknown query class \"{}\"", shorten(&class))).fix("use \"IN\" or \"CH\""));
    }
    let labels = name.strip_suffix('.').unwrap_or(name);
    let fits = |label: &str| {
        (1..=MAX_LABEL_OCTETS).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_graphic() && !"\"\\();@$".contains(c))
    };
    if name != "." && (labels.len() > MAX_DOMAIN_CHARS || !labels.split('.').all(fits)) {
        return Err(bad(format!("\"{}\" is not a domain name", shorten(name)))
            .cause("labels have 1 to 63 ASCII characters, names at most 253 (RFC 1035)")
            .fix("write e.g. \"example.com A\"; names in other scripts in their xn-- form"));
    }
    Ok(DnsQuery { name: name.to_owned(), qtype, class })
}
