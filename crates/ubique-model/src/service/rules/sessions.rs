//! What `[sessions]` demands of the sites, and what is true of their unicast addresses in any case.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::words;
use crate::diagnostic as code;
use crate::net::Family;
use crate::read::sink::{At, Finding, Sink, Span};
use crate::read::table::TableReader;
use crate::service::parse::{Head, SiteDraft};
use crate::service::sessions::TcpMethod;
use crate::service::spec::MAX_SESSION_SITES;

/// Checks `unicast` and `number` of all sites.
pub(super) fn check(root: &TableReader<'_>, head: &Head, sites: &[SiteDraft]) {
    let sink = root.sink();
    for site in sites {
        check_unicast(sink, head, site);
    }
    check_distinct(sink, sites);
    if !root.has("sessions") {
        return;
    }
    let span = root.span_of("sessions");
    if root.written("site") == 1 {
        let finding = Finding::new(code::ONE_SITE, "[sessions] with one site")
            .cause("there is no other site that packets could reach by mistake, or be passed on to");
        sink.report_absent(&span, finding.fix("add a [[site]], or remove [sessions]"));
    }
    for site in sites.iter().filter(|site| site.owner.unicast_known && site.owner.unicast.is_empty()) {
        let finding = Finding::new(code::MISSING_KEY, format!("{} lacks `unicast`", name(site)))
            .cause("with [sessions], the other sites pass on packets of its connections to there");
        let fix = "add unicast = [\"192.0.2.1\"], an address of that machine alone";
        sink.report_absent(&site.span, finding.fix(fix));
    }
    check_families(sink, sites);
    if let Some(beyond) = sites.get(usize::from(MAX_SESSION_SITES)) {
        let message = format!("{} sites with [sessions], at most {MAX_SESSION_SITES} are possible", sites.len());
        let finding = Finding::new(code::TOO_MANY, message).cause("packets have room for so many numbers of sites");
        sink.report(place(beyond), finding.fix(format!("keep at most {MAX_SESSION_SITES}, or remove [sessions]")));
    } else {
        check_numbers(sink, sites);
    }
}

/// Checks that `[sessions]` carries something, and no key does nothing.
pub(in crate::service) fn check_carriers(table: &TableReader<'_>, tcp: TcpMethod, mptcp: bool) {
    let cookies = matches!(tcp, TcpMethod::Auto | TcpMethod::Cookie);
    if table.has("tcp-ports") && !cookies {
        let finding = Finding::new(code::WITHOUT_EFFECT, format!("`tcp-ports` with tcp = \"{}\"", tcp.as_str()))
            .cause("they are the ports whose SYNs are answered by cookies");
        let fix = "remove `tcp-ports`, or write tcp = \"auto\" or \"cookie\"";
        table.sink().report(&table.span_of("tcp-ports"), finding.fix(fix));
    }
    if tcp == TcpMethod::Off && !mptcp && table.written("quic-ports") == 0 {
        let finding = Finding::new(code::WITHOUT_EFFECT, "[sessions] carries neither TCP nor QUIC")
            .cause("`tcp` is \"off\", there is no port in `quic-ports`, and `mptcp` is not on");
        table.sink().report(&table.span_of("tcp"), finding.fix("add `quic-ports`, or remove [sessions]"));
    }
}

fn name(site: &SiteDraft) -> &str {
    site.name.as_ref().map_or("a site", |at| at.value.as_str())
}

fn place(site: &SiteDraft) -> &Span {
    site.name.as_ref().map_or(&site.span, |at| &at.span)
}

fn check_unicast(sink: &Sink<'_>, head: &Head, site: &SiteDraft) {
    let mut seen = BTreeSet::new();
    for at in &site.owner.unicast {
        check_address(sink, head, at);
        let family = Family::of_address(at.value);
        if !seen.insert(family) {
            let message = format!("{} is a second {} address of {}", at.value, words(family), name(site));
            let finding =
                Finding::new(code::BAD_UNICAST, message).cause("the other sites send to one address of each family");
            sink.report(&at.span, finding.fix("keep the one that all other sites reach"));
        }
    }
}

fn check_address(sink: &Sink<'_>, head: &Head, at: &At<IpAddr>) {
    if let Some(prefix) = head.prefixes.iter().find(|p| p.value.contains(&at.value)) {
        let message = format!("{} lies in {}, a prefix of the service", at.value, prefix.value);
        let finding = Finding::new(code::UNICAST_IN_PREFIX, message)
            .cause("packets to it reach the nearest site, not this one: they would be passed on in circles");
        return sink.report(&at.span, finding.fix("write an address that belongs to one machine"));
    }
    let reason = match at.value {
        a if a.is_unspecified() => "it is no machine's address",
        a if a.is_loopback() => "it never leaves a machine",
        a if a.is_multicast() => "it is a multicast address",
        IpAddr::V4(a) if a.is_broadcast() => "it is the broadcast address",
        IpAddr::V4(a) if a.is_link_local() => "it is link-local: it never leaves a link",
        IpAddr::V6(a) if a.is_unicast_link_local() => "it is link-local: it never leaves a link",
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => "it is an IPv4 address in IPv6 clothes",
        _ => return,
    };
    let finding = Finding::new(code::BAD_UNICAST, format!("{} cannot be where other sites reach a site", at.value));
    sink.report(&at.span, finding.cause(reason).fix("write an address of that machine which the other sites reach"));
}

fn check_distinct(sink: &Sink<'_>, sites: &[SiteDraft]) {
    let mut seen: BTreeMap<IpAddr, &SiteDraft> = BTreeMap::new();
    for site in sites {
        for at in &site.owner.unicast {
            let Some(other) = seen.insert(at.value, site) else { continue };
            let message = if std::ptr::eq(other, site) {
                format!("{} is given twice", at.value)
            } else {
                format!("{} is the unicast address of {}, too", at.value, name(other))
            };
            let finding = Finding::new(code::DUPLICATE, message).cause("a unicast address belongs to one machine");
            sink.report(&at.span, finding.fix("remove or correct one of the two"));
        }
    }
}

/// Any two sites reach each other.
fn check_families(sink: &Sink<'_>, sites: &[SiteDraft]) {
    let known: Vec<_> = sites.iter().filter_map(|site| Some((site, site.owner.known()?))).collect();
    for (at, (site, unicast)) in known.iter().enumerate() {
        let apart = |(_, other): &&(&SiteDraft, _)| unicast.common(other).is_none();
        let (Some(own), Some((other, _))) =
            (unicast.addresses().next(), known[..at].iter().filter(|(s, _)| !s.owner.unicast.is_empty()).find(apart))
        else {
            continue;
        };
        let (has, lacks) = match Family::of_address(own) {
            Family::Ipv4 => (Family::Ipv4, Family::Ipv6),
            Family::Ipv6 => (Family::Ipv6, Family::Ipv4),
        };
        let (one, two) = (name(other), name(site));
        let finding = Finding::new(code::NO_COMMON_FAMILY, format!("{one} and {two} have no address family in common"))
            .cause(format!(
                "{one} has only {}, {two} only {}: neither can pass on packets to the other",
                words(lacks),
                words(has)
            ))
            .fix(format!("add an {} address to {two}, or an {} address to {one}", words(lacks), words(has)));
        let span = site.owner.unicast.first().map_or(&site.span, |at| &at.span);
        sink.report_absent(span, finding);
    }
}

/// No two sites have one number; all findings together propose different free ones.
fn check_numbers(sink: &Sink<'_>, sites: &[SiteDraft]) {
    let numbers = || sites.iter().map(|site| (site, site.owner.known_number(site.name.as_ref())));
    let used: BTreeSet<u8> = numbers().filter_map(|(_, number)| number).collect();
    let mut free = (0..MAX_SESSION_SITES).filter(|number| !used.contains(number));
    let mut owners: BTreeMap<u8, &SiteDraft> = BTreeMap::new();
    for (site, number) in numbers() {
        let Some(number) = number else { continue };
        let Some(other) = owners.get(&number) else {
            owners.insert(number, site);
            continue;
        };
        // Of one name: that is the mistake, and said already.
        if site.owner.number.is_none() && other.owner.number.is_none() && name(site) == name(other) {
            continue;
        }
        let Some(free) = free.next() else { return };
        let message = format!("{} and {} both have number {number}", name(other), name(site));
        let derived = |site: &SiteDraft| site.owner.number.is_none();
        let finding = Finding::new(code::SITE_NUMBER_TAKEN, message).cause(match (derived(other), derived(site)) {
            (true, true) => "both follow from the names; a packet could belong to either".to_owned(),
            (true, false) => format!("that of {} follows from its name; a packet could belong to either", name(other)),
            (false, true) => format!("that of {} follows from its name; a packet could belong to either", name(site)),
            (false, false) => "a packet could belong to either".to_owned(),
        });
        let span = site.owner.number.as_ref().map_or(place(site), |at| &at.span);
        sink.report_absent(span, finding.fix(format!("write number = {free} at {}", name(site))));
    }
}
