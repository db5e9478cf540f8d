//! What the parts of a service file demand of each other.

mod action;
mod sessions;
mod upstream;

use std::net::IpAddr;
use std::path::PathBuf;

pub(super) use action::{check_actions, check_shedding};
pub(super) use sessions::check_carriers;

use super::parse::{DynamicDraft, Head, SiteDraft, UpstreamDraft};
use super::{Ask, Records, RehearseSettings};
use crate::diagnostic as code;
use crate::net::{Asn, Family, Prefix};
use crate::read::sink::{At, Finding, Sink};
use crate::read::table::{TableReader, report_duplicates};

/// Shortest lengths that can be an anycast service's own: nobody holds more than a /8 or an IPv6 /16.
const SHORTEST: [u8; 2] = [8, 16];
/// Longest lengths that most networks accept.
const LONGEST_ACCEPTED: [u8; 2] = [24, 48];

fn by_family(family: Family, table: [u8; 2]) -> u8 {
    match family {
        Family::Ipv4 => table[0],
        Family::Ipv6 => table[1],
    }
}

/// Checks everything that concerns more than one key.
pub(super) fn check(root: &TableReader<'_>, head: &Head, sites: &[SiteDraft]) {
    let sink = root.sink();
    check_asn(sink, head.asn.as_ref());
    check_prefixes(sink, &head.prefixes);
    check_addresses(sink, head);
    if !root.has("check") {
        let finding = Finding::new(code::NO_CHECK, "the service has no check")
            .cause("only the loss of its process or socket would withdraw a site; wrong answers go unnoticed");
        sink.report_absent(&root.span_of("service"), finding.fix("add a [[check]]"));
    }
    if !root.has("site") {
        let finding = Finding::new(code::NO_SITE, "the service has no site").cause("nothing is announced");
        sink.report_absent(&root.span_of("service"), finding.fix("add a [[site]] with a [[site.upstream]]"));
    }
    report_duplicates(sink, "site", sites.iter().filter_map(|s| s.name.as_ref()));
    for site in sites {
        check_site(sink, head, site);
    }
    sessions::check(root, head, sites);
}

/// The file of the state is replaced at each change: it must be nothing else's.
pub(super) fn check_state(sink: &Sink<'_>, state: &At<PathBuf>, socket: Option<&PathBuf>, records: Option<&Records>) {
    let mrt = records.and_then(|r| r.mrt.as_ref()).map(|file| ("mrt", &file.path));
    let journal = records.and_then(|r| r.journal.as_ref()).map(|journal| ("journal", &journal.file.path));
    let others = [socket.map(|path| ("socket", path)), mrt, journal];
    if let Some((other, _)) = others.into_iter().flatten().find(|(_, path)| **path == state.value) {
        let message = format!("`state` is the path of `{other}`, too");
        let finding =
            Finding::new(code::CONFLICTING_KEYS, message).cause("the file of the state is replaced as a whole");
        sink.report(&state.span, finding.fix("give it a path of its own"));
    }
}

/// What vantage points ask must be something that the service answers.
pub(super) fn check_rehearse(sink: &Sink<'_>, settings: &RehearseSettings, ask: Option<&At<&str>>) {
    let Some(ask) = ask.filter(|_| settings.ask != Ask::Dns && settings.command.is_empty()) else { return };
    let finding = Finding::new(code::MISSING_KEY, format!("ask = \"{}\" lacks `command`", ask.value))
        .cause("the built-in responder speaks DNS and nothing else");
    sink.report_absent(&ask.span, finding.fix("add a command that starts the service, or remove `ask`"));
}

fn check_asn(sink: &Sink<'_>, asn: Option<&At<Asn>>) {
    let Some(asn) = asn else { return };
    match asn.value.0 {
        64512..=65534 | 4_200_000_000..=4_294_967_294 => {
            let finding = Finding::new(code::PRIVATE_ASN, format!("AS {} is private", asn.value))
                .cause("private AS numbers are filtered on the public Internet (RFC 6996)");
            sink.report(&asn.span, finding.fix("fine inside one organisation; else use your public AS number"));
        }
        65552..=131_071 => {
            let message = format!("AS {} is reserved by IANA", asn.value);
            let finding = Finding::new(code::UNASSIGNED_ASN, message).cause("it is assigned to nobody");
            sink.report(&asn.span, finding.fix("check the number"));
        }
        _ => {}
    }
}

fn check_prefixes(sink: &Sink<'_>, prefixes: &[At<Prefix>]) {
    report_duplicates(sink, "prefix", prefixes);
    for (at, prefix) in prefixes.iter().enumerate() {
        check_prefix(sink, prefix);
        let others = prefixes.iter().enumerate().filter(|&(other, _)| other != at);
        let cover = others.map(|(_, p)| p.value).find(|p| *p != prefix.value && p.contains(&prefix.value));
        if let Some(cover) = cover {
            let message = format!("{} lies in {cover}, which is announced too", prefix.value);
            let finding = Finding::new(code::OVERLAPPING_PREFIXES, message)
                .cause("every site announces both, and routers follow the longer one");
            sink.report(&prefix.span, finding.fix("keep one of the two, unless this is meant"));
        }
    }
}

fn check_prefix(sink: &Sink<'_>, at: &At<Prefix>) {
    let (prefix, family) = (at.value, Family::of(&at.value));
    if let Some(reason) = never_announced(&prefix) {
        let finding = Finding::new(code::NOT_ANNOUNCEABLE, format!("{prefix} cannot be announced")).cause(reason);
        sink.report(&at.span, finding.fix("write a prefix that is yours"));
        return;
    }
    let longest = by_family(family, LONGEST_ACCEPTED);
    if prefix.prefix_len() > longest {
        let message = format!("{prefix} is longer than /{longest}");
        let finding = Finding::new(code::LONG_PREFIX, message).cause("most networks filter such routes");
        sink.report(&at.span, finding.fix(format!("announce a /{longest} to the public Internet")));
    }
    if is_private(&prefix) {
        let finding = Finding::new(code::PRIVATE_PREFIX, format!("{prefix} is private address space"))
            .cause("such routes are filtered on the public Internet");
        sink.report(&at.span, finding.fix("fine inside one organisation; else use a prefix of your own"));
    }
}

fn never_announced(prefix: &Prefix) -> Option<&'static str> {
    let shortest = by_family(Family::of(prefix), SHORTEST);
    if prefix.prefix_len() == 0 {
        return Some("it is the default route: it would attract all traffic of the Internet");
    }
    match prefix.addr() {
        address if address.is_multicast() => Some("it is multicast space"),
        address if address.is_loopback() => Some("it is loopback space, which never leaves a machine"),
        IpAddr::V4(a) if a.is_link_local() => Some("it is link-local space, which never leaves a link"),
        IpAddr::V6(a) if a.segments()[0] & 0xffc0 == 0xfe80 => {
            Some("it is link-local space, which never leaves a link")
        }
        IpAddr::V4(a) if a.octets()[0] == 0 || a.octets()[0] >= 240 => Some("it is reserved space (RFC 6890)"),
        _ if prefix.prefix_len() < shortest => Some("nobody holds so large a block"),
        _ => None,
    }
}

fn is_private(prefix: &Prefix) -> bool {
    match prefix.addr() {
        IpAddr::V4(a) => a.is_private() || (a.octets()[0] == 100 && a.octets()[1] & 0xC0 == 64),
        IpAddr::V6(a) => a.segments()[0] & 0xfe00 == 0xfc00,
    }
}

fn check_addresses(sink: &Sink<'_>, head: &Head) {
    report_duplicates(sink, "address", &head.addresses);
    if !head.complete || head.prefixes.is_empty() {
        return;
    }
    for address in &head.addresses {
        if !head.prefixes.iter().any(|p| p.value.contains(&address.value)) {
            let prefixes: Vec<String> = head.prefixes.iter().map(|p| p.value.to_string()).collect();
            let message = format!("{} lies in none of the service's prefixes", address.value);
            let finding = Finding::new(code::ADDRESS_OUTSIDE, message)
                .cause(format!("the sites announce {}; no client would reach it", prefixes.join(", ")));
            sink.report_absent(&address.span, finding.fix("correct the address, or add its prefix"));
        }
    }
    for prefix in &head.prefixes {
        if !head.addresses.is_empty() && !head.addresses.iter().any(|a| prefix.value.contains(&a.value)) {
            let message = format!("no service address lies in {}", prefix.value);
            let finding = Finding::new(code::PREFIX_WITHOUT_ADDRESS, message)
                .cause("the sites attract traffic to it that nothing answers");
            sink.report_absent(&prefix.span, finding.fix("add an address, or remove the prefix"));
        }
    }
}

fn check_site(sink: &Sink<'_>, head: &Head, site: &SiteDraft) {
    if let Some(name) = site.name.as_ref().filter(|n| n.value == "busiest") {
        let finding = Finding::new(code::RESERVED_NAME, "a site cannot be called \"busiest\"")
            .cause("scenario files mean the site with most clients by it");
        sink.report(&name.span, finding.fix("choose another name"));
    }
    if site.upstreams.is_empty() && site.dynamic.is_empty() {
        let name = site.name.as_ref().map_or("a site", |n| n.value.as_str());
        let finding = Finding::new(code::NO_UPSTREAM, format!("{name} has no upstream")).cause("it announces nothing");
        sink.report_absent(&site.span, finding.fix("add a [[site.upstream]] with `asn` and `address`"));
        return;
    }
    upstream::check(sink, head, site);
    check_families(sink, head, site);
}

/// Every family of the service is announced.
fn check_families(sink: &Sink<'_>, head: &Head, site: &SiteDraft) {
    let ends = |u: &UpstreamDraft| u.address.as_ref().map(|a| Family::of_address(a.value));
    let upstreams = site.upstreams.iter().map(|u| upstream::families(&u.session, ends(u)));
    let range = |d: &DynamicDraft| d.range.as_ref().map(|r| Family::of(&r.value));
    let dynamic = site.dynamic.iter().map(|d| upstream::families(&d.session, range(d)));
    let Some(carried) = upstreams.chain(dynamic).collect::<Option<Vec<_>>>() else {
        return;
    };
    for family in Family::ALL {
        let announced = head.prefixes.iter().any(|p| Family::of(&p.value) == family);
        if announced && !carried.iter().flatten().any(|f| *f == family.into()) {
            let message = format!("the site does not announce the {} prefixes", words(family));
            let finding = Finding::new(code::FAMILY_NOT_ANNOUNCED, message)
                .cause(format!("none of its sessions carries {} routes", words(family)));
            let span = site.name.as_ref().map_or(&site.span, |n| &n.span);
            sink.report_absent(
                span,
                finding.fix(format!("add an upstream over {0}, or {0} to `families`", words(family))),
            );
        }
    }
}

fn words(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}
