//! What the parts of a service file demand of each other.

use std::net::IpAddr;
use std::time::Duration;

use super::Bfd;
use super::parse::{Head, SiteDraft, UpstreamDraft};
use crate::diagnostic as code;
use crate::net::{Asn, Family, Prefix, Relation};
use crate::quantity::format_duration;
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
    if site.upstreams.is_empty() {
        let name = site.name.as_ref().map_or("a site", |n| n.value.as_str());
        let finding = Finding::new(code::NO_UPSTREAM, format!("{name} has no upstream")).cause("it announces nothing");
        sink.report_absent(&site.span, finding.fix("add a [[site.upstream]] with `asn` and `address`"));
        return;
    }
    check_duplicate_upstreams(sink, site);
    for upstream in &site.upstreams {
        check_upstream(sink, head, upstream);
    }
    let families: Vec<Family> =
        site.upstreams.iter().filter_map(|u| u.address.as_ref()).map(|a| Family::of_address(a.value)).collect();
    for family in Family::ALL {
        let announced = head.prefixes.iter().any(|p| Family::of(&p.value) == family);
        let readable = families.len() == site.upstreams.len();
        if announced && readable && !families.contains(&family) {
            let message = format!("the site does not announce the {} prefixes", words(family));
            let finding = Finding::new(code::FAMILY_NOT_ANNOUNCED, message)
                .cause(format!("none of its upstreams has an {} address", words(family)));
            let span = site.name.as_ref().map_or(&site.span, |n| &n.span);
            sink.report_absent(span, finding.fix(format!("add an upstream over {}", words(family))));
        }
    }
}

fn words(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}

fn check_duplicate_upstreams(sink: &Sink<'_>, site: &SiteDraft) {
    let mut seen = std::collections::BTreeSet::new();
    for upstream in &site.upstreams {
        let (Some(address), Some(port)) = (&upstream.address, &upstream.port) else {
            continue;
        };
        if !seen.insert((address.value, port.value)) {
            let message = format!("upstream {} is given twice at this site", address.value);
            let finding = Finding::new(code::DUPLICATE, message).cause("two BGP sessions would collide");
            sink.report(&address.span, finding.fix("remove one of the two"));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for upstream in &site.upstreams {
        let (Some(address), Some(bfd)) = (&upstream.address, &upstream.bfd) else {
            continue;
        };
        if !seen.insert(address.value) {
            let message = format!("BFD with {} is given twice at this site", address.value);
            let finding = Finding::new(code::DUPLICATE, message)
                .cause("between two addresses there is one BFD session (RFC 5881 §3)");
            sink.report(&bfd.span, finding.fix("remove one of the two"));
        }
    }
}

fn check_upstream(sink: &Sink<'_>, head: &Head, upstream: &UpstreamDraft) {
    if let (Some(asn), Some(own), Some(relation)) = (&upstream.asn, &head.asn, &upstream.relation)
        && asn.value == own.value
        && relation.value != Relation::Internal
    {
        let message = format!("AS {} is the service's own, but the relation is {}", asn.value, relation.value);
        let finding = Finding::new(code::OWN_ASN, message).cause("a session within one AS is internal BGP");
        sink.report(&asn.span, finding.fix("write relation = \"internal\", or the neighbour's own AS number"));
    }
    if let Some(hold_time) = upstream.hold_time.as_ref().filter(|h| h.value.is_zero()) {
        let finding = Finding::new(code::NO_HOLD_TIMER, "hold time 0 turns keepalives off")
            .cause("the upstream never notices a frozen machine and keeps sending clients to it");
        sink.report(&hold_time.span, finding.fix("remove the key: the default is \"9s\""));
    }
    if let Some(bfd) = &upstream.bfd {
        check_bfd(sink, bfd);
    }
    for address in [&upstream.address, &upstream.local_address].into_iter().flatten() {
        check_session_address(sink, head, address);
    }
    let Some(address) = &upstream.address else {
        return;
    };
    check_families(sink, head, address, upstream.local_address.as_ref());
}

fn check_bfd(sink: &Sink<'_>, bfd: &At<Bfd>) {
    /// A busy machine delays a packet by milliseconds now and then: below this, a delay looks like a loss.
    const FASTEST: Duration = Duration::from_millis(50);
    /// With fewer, one lost packet and one late one end the session.
    const FEWEST: u8 = 3;
    let shortest = bfd.value.interval.min(bfd.value.receive);
    if shortest < FASTEST {
        let message = format!("BFD every {} is faster than most machines keep up", format_duration(shortest));
        let finding = Finding::new(code::BFD_TOO_FAST, message)
            .cause("a delay of some milliseconds then looks like a lost neighbour, and routes flap");
        sink.report(&bfd.span, finding.fix(format!("write interval = \"{}\"", format_duration(FASTEST))));
    }
    if bfd.value.multiplier < FEWEST {
        let packets = if bfd.value.multiplier == 1 { "one lost packet ends" } else { "two lost packets end" };
        let finding = Finding::new(code::BFD_TOO_FAST, format!("{packets} the BFD session"))
            .cause("single packets are lost on healthy links, too");
        sink.report(&bfd.span, finding.fix(format!("write multiplier = {FEWEST}")));
    }
}

fn check_families(sink: &Sink<'_>, head: &Head, address: &At<IpAddr>, local: Option<&At<IpAddr>>) {
    let family = Family::of_address(address.value);
    if let Some(local) = local.filter(|l| Family::of_address(l.value) != family) {
        let other = words(Family::of_address(local.value));
        let message =
            format!("local-address {} is {other}, address {} is {}", local.value, address.value, words(family));
        let finding = Finding::new(code::FAMILY_MISMATCH, message).cause("both ends of a session have one family");
        sink.report(&local.span, finding.fix(format!("write an {} address of this machine", words(family))));
    }
    if let Some(local) = local.filter(|l| l.value == address.value) {
        let message = format!("{} is both the neighbour's address and ours", local.value);
        let finding = Finding::new(code::DUPLICATE, message).cause("a session has two different ends");
        sink.report(&local.span, finding.fix("write the address of this machine"));
    }
    if head.complete && !head.prefixes.is_empty() && !head.prefixes.iter().any(|p| Family::of(&p.value) == family) {
        let message = format!("there is nothing to announce to {}", address.value);
        let finding = Finding::new(code::NOTHING_TO_ANNOUNCE, message)
            .cause(format!("the session is {0}, the service has no {0} prefix", words(family)));
        sink.report_absent(
            &address.span,
            finding.fix(format!("add an {} prefix, or remove the upstream", words(family))),
        );
    }
}

fn check_session_address(sink: &Sink<'_>, head: &Head, at: &At<IpAddr>) {
    let address = at.value;
    if head.addresses.iter().any(|a| a.value == address) {
        let message = format!("{address} is an address of the service");
        let finding = Finding::new(code::SERVICE_ADDRESS_IN_SESSION, message)
            .cause("packets to an anycast address reach the nearest site, not this one");
        sink.report(&at.span, finding.fix("write an address that belongs to one machine"));
    }
    let reason = match address {
        a if a.is_unspecified() => "it is no machine's address",
        a if a.is_multicast() => "it is a multicast address",
        IpAddr::V4(a) if a.is_broadcast() => "it is the broadcast address",
        IpAddr::V6(a) if a.segments()[0] & 0xffc0 == 0xfe80 => {
            "a link-local address needs an interface, which the service file does not name"
        }
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => "it is an IPv4 address in IPv6 clothes",
        _ => return,
    };
    let finding = Finding::new(code::BAD_SESSION_ADDRESS, format!("{address} cannot be an end of a session"));
    sink.report(&at.span, finding.cause(reason).fix("write a global unicast address of the neighbour's interface"));
}
