//! What the keys of a session demand of each other, of the service, and of the site's other sessions.

use std::net::IpAddr;
use std::time::Duration;

use super::words;
use crate::diagnostic as code;
use crate::net::{AddressFamily, Asn, Family, Prefix, Relation};
use crate::quantity::format_duration;
use crate::read::sink::{At, Finding, Sink};
use crate::read::table::report_duplicates;
use crate::service::parse::{DynamicDraft, Head, SessionDraft, SiteDraft, UpstreamDraft};
use crate::service::spec::MAX_NEIGHBOURS;
use crate::service::upstream::{Bfd, Role};

/// Checks the neighbours of a site.
pub(super) fn check(sink: &Sink<'_>, head: &Head, site: &SiteDraft) {
    check_duplicates(sink, site);
    for upstream in &site.upstreams {
        check_upstream(sink, head, upstream);
    }
    for dynamic in &site.dynamic {
        check_dynamic(sink, head, dynamic);
    }
    check_ranges(sink, site);
    check_keys(sink, site);
    check_total(sink, site);
}

/// What a session carries, when that is certain.
pub(super) fn families(session: &SessionDraft, default: Option<Family>) -> Option<Vec<AddressFamily>> {
    match (session.families_known, default) {
        (true, _) => Some(session.families.iter().map(|at| at.value).collect()),
        (false, Some(family)) if session.families.is_empty() => Some(vec![family.into()]),
        _ => None,
    }
}

fn check_duplicates(sink: &Sink<'_>, site: &SiteDraft) {
    let mut seen = std::collections::BTreeMap::new();
    for upstream in &site.upstreams {
        let (Some(address), Some(port)) = (&upstream.address, &upstream.port) else {
            continue;
        };
        // The same link-local address can be another machine's on another link.
        let interface = upstream.interface.as_ref().filter(|_| is_link_local(address.value)).map(|at| &at.value);
        // Daemons on this machine may have a port each: they are only connected to.
        let daemon = address.value.is_loopback().then_some(port.value);
        let Some(before) = seen.insert((address.value, interface, daemon), port.value) else {
            continue;
        };
        let message = format!("upstream {} is given twice at this site", address.value);
        let cause = if before == port.value {
            "two BGP sessions would collide"
        } else {
            "a neighbour that calls is known by its address: the port it calls from says nothing"
        };
        let finding = Finding::new(code::DUPLICATE, message).cause(cause);
        sink.report(&address.span, finding.fix("remove one of the two, or give the neighbours addresses of their own"));
    }
    let mut seen = std::collections::BTreeSet::new();
    for upstream in &site.upstreams {
        let (Some(address), Some(bfd)) = (&upstream.address, &upstream.session.bfd) else {
            continue;
        };
        let interface = upstream.interface.as_ref().filter(|_| is_link_local(address.value)).map(|at| &at.value);
        if !seen.insert((address.value, interface)) {
            let message = format!("BFD with {} is given twice at this site", address.value);
            let finding = Finding::new(code::DUPLICATE, message)
                .cause("between two addresses there is one BFD session (RFC 5881 §3)");
            sink.report(&bfd.span, finding.fix("remove one of the two"));
        }
    }
}

fn check_ranges(sink: &Sink<'_>, site: &SiteDraft) {
    let ranges: Vec<&At<Prefix>> = site.dynamic.iter().filter_map(|d| d.range.as_ref()).collect();
    for (at, range) in ranges.iter().enumerate() {
        let clash = |other: &&&At<Prefix>| other.value.contains(&range.value) || range.value.contains(&other.value);
        if let Some(other) = ranges[..at].iter().find(clash) {
            let message = format!("range {} overlaps {}", range.value, other.value);
            let finding = Finding::new(code::DUPLICATE, message).cause("a caller would be of either");
            sink.report(&range.span, finding.fix("write ranges without common addresses"));
        }
    }
}

/// An upstream within a range: the kernel tells the keys of both by their IDs only (RFC 5925 §3.1).
fn check_keys(sink: &Sink<'_>, site: &SiteDraft) {
    for upstream in &site.upstreams {
        let (Some(address), Some(own)) = (&upstream.address, &upstream.session.tcp_ao) else {
            continue;
        };
        let around = site.dynamic.iter().find(|d| d.range.as_ref().is_some_and(|r| r.value.contains(&address.value)));
        let Some((range, key)) = around.and_then(|d| Some((d.range.as_ref()?, d.session.tcp_ao.as_ref()?))) else {
            continue;
        };
        let (own_ids, ids) = (&own.value, &key.value);
        let same = [
            (own_ids.send_id == ids.send_id).then_some("send-id"),
            (own_ids.receive_id == ids.receive_id).then_some("receive-id"),
        ];
        let same: Vec<&str> = same.into_iter().flatten().collect();
        if !same.is_empty() {
            let keys = same.join("` and `");
            let message = format!("`{keys}` of {} is that of range {}, too", address.value, range.value);
            let finding = Finding::new(code::DUPLICATE, message).cause(
                "keys of overlapping addresses need IDs of their own (RFC 5925 §3.1): the kernel refuses the second",
            );
            sink.report(&own.span, finding.fix(format!("write another `{keys}` here, and at the neighbour")));
        }
    }
}

fn check_total(sink: &Sink<'_>, site: &SiteDraft) {
    let mut total = site.upstreams.len();
    for limit in site.dynamic.iter().filter_map(|d| d.limit.as_ref()) {
        total += usize::from(limit.value);
        if total > MAX_NEIGHBOURS {
            let message = format!("upstreams and limits of this site add up to {total}, more than {MAX_NEIGHBOURS}");
            let finding =
                Finding::new(code::TOO_MANY, message).cause("a site has at most so many neighbours at a time");
            return sink.report(&limit.span, finding.fix("write smaller limits: the number of neighbours there are"));
        }
    }
}

fn check_upstream(sink: &Sink<'_>, head: &Head, upstream: &UpstreamDraft) {
    let session = &upstream.session;
    check_asn(sink, head, upstream.asn.as_ref(), session);
    for address in [&upstream.address, &upstream.local_address].into_iter().flatten() {
        check_session_address(sink, head, address, upstream.interface.is_some());
    }
    if let (Some(address), Some(multihop)) = (&upstream.address, &session.multihop)
        && is_link_local(address.value)
    {
        let finding = Finding::new(code::CONFLICTING_KEYS, "a link-local neighbour is never several hops away")
            .cause("routers do not forward packets with link-local addresses (RFC 4291 §2.5.6)");
        sink.report(&multihop.span, finding.fix("remove `multihop`"));
    }
    let address = upstream.address.as_ref();
    check_session(sink, head, session, address.map(|a| Family::of_address(a.value)));
    let Some(address) = address else {
        return;
    };
    check_ends(sink, address, upstream.local_address.as_ref());
    check_prefixes(sink, head, session, address, Family::of_address(address.value));
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

fn check_dynamic(sink: &Sink<'_>, head: &Head, dynamic: &DynamicDraft) {
    report_duplicates(sink, "AS", &dynamic.asns);
    for asn in &dynamic.asns {
        check_asn(sink, head, Some(asn), &dynamic.session);
    }
    let family = dynamic.range.as_ref().map(|r| Family::of(&r.value));
    check_session(sink, head, &dynamic.session, family);
    if let Some(range) = &dynamic.range {
        check_prefixes(sink, head, &dynamic.session, range, Family::of(&range.value));
    }
}

fn check_asn(sink: &Sink<'_>, head: &Head, asn: Option<&At<Asn>>, session: &SessionDraft) {
    let (Some(asn), Some(own), Some(relation)) = (asn, &head.asn, &session.relation) else {
        return;
    };
    if asn.value == own.value {
        if relation.value != Relation::Internal {
            let message = format!("AS {} is the service's own, but the relation is {}", asn.value, relation.value);
            let finding = Finding::new(code::OWN_ASN, message).cause("a session within one AS is internal BGP");
            sink.report(&asn.span, finding.fix("write relation = \"internal\", or the neighbour's own AS number"));
        }
        return;
    }
    let internal = [
        ("route-reflector-client", &session.route_reflector_client),
        ("next-hop-unchanged", &session.next_hop_unchanged),
    ];
    for (key, flag) in internal {
        if let Some(flag) = flag.as_ref().filter(|at| at.value) {
            let message = format!("`{key}` is for internal sessions, AS {} is another", asn.value);
            let cause = "route reflection and next hops of others stay within one AS (RFC 4456, RFC 4271 §5.1.3)";
            let finding = Finding::new(code::WITHOUT_EFFECT, message).cause(cause);
            sink.report(&flag.span, finding.fix(format!("remove `{key}`")));
        }
    }
}

/// Rules within one session; `family` is that of its addresses.
fn check_session(sink: &Sink<'_>, head: &Head, session: &SessionDraft, family: Option<Family>) {
    if let Some(bfd) = &session.bfd {
        check_bfd(sink, bfd);
    }
    if let Some(hold_time) = session.hold_time.as_ref().filter(|h| h.value.is_zero()) {
        let finding = Finding::new(code::NO_HOLD_TIMER, "hold time 0 turns keepalives off")
            .cause("the upstream never notices a frozen machine and keeps sending clients to it");
        sink.report(&hold_time.span, finding.fix("remove the key: the default is \"9s\""));
    }
    if let (Some(security), Some(_)) = (&session.ttl_security, &session.multihop) {
        let finding = Finding::new(code::CONFLICTING_KEYS, "`ttl-security` and `multihop` exclude each other")
            .cause("GTSM sends with TTL 255 and says itself how many hops away the neighbour may be (RFC 5082 §3)");
        sink.report(&security.span, finding.fix("keep `ttl-security` and remove `multihop`"));
    }
    if let (Some(key), Some(_)) = (&session.tcp_ao, &session.password_file) {
        let finding = Finding::new(code::CONFLICTING_KEYS, "`tcp-ao` and `password-file` exclude each other")
            .cause("a connection is authenticated with TCP-AO or with TCP MD5, never both (RFC 5925 §2.2)");
        sink.report(&key.span, finding.fix("keep the one the neighbour uses"));
    }
    report_duplicates(sink, "family", &session.families);
    check_role(sink, session);
    check_next_hops(sink, head, session, family);
    if let Some(restart) = &session.graceful_restart {
        let finding = Finding::new(code::GRACEFUL_RESTART, "graceful restart keeps routes of a site that is gone")
            .cause(format!(
                "when this machine dies, an upstream that takes part keeps sending clients here until the restart time \
                 is over: measured, 120 s with BIRD and FRR; here {}",
                crate::quantity::format_duration(restart.value.restart_time)
            ));
        sink.report(&restart.span, finding.fix("remove `graceful-restart`, unless restarts of the agent matter more"));
    }
}

fn check_role(sink: &Sink<'_>, session: &SessionDraft) {
    let Some(role) = &session.role else {
        if let Some(strict) = session.strict_role.as_ref().filter(|at| at.value) {
            let finding = Finding::new(code::WITHOUT_EFFECT, "`strict-role` without `role`")
                .cause("roles are compared only when we announce ours (RFC 9234 §4.2)");
            sink.report(&strict.span, finding.fix("add `role`, or remove `strict-role`"));
        }
        return;
    };
    let Some(relation) = &session.relation else { return };
    let fitting = Role::towards(relation.value);
    if fitting != Some(role.value) {
        let message = format!("role \"{}\" does not fit relation \"{}\"", role.value, relation.value);
        let (cause, fix) = match fitting {
            Some(fitting) => (
                format!(
                    "`role` is ours (RFC 9234 §4.1): towards a neighbour that is {} we are {fitting}",
                    relation.value
                ),
                format!("write role = \"{fitting}\", or correct `relation`"),
            ),
            None => ("roles exist on external sessions only (RFC 9234 §4.1)".to_owned(), "remove `role`".to_owned()),
        };
        sink.report(&role.span, Finding::new(code::ROLE_MISMATCH, message).cause(cause).fix(fix));
    }
}

fn check_next_hops(sink: &Sink<'_>, head: &Head, session: &SessionDraft, family: Option<Family>) {
    let carried = families(session, family);
    let lacks = |family: Family| carried.as_ref().is_some_and(|c| !c.contains(&family.into()));
    let hops = [("ipv4", Family::Ipv4, &session.next_hop_ipv4), ("ipv6", Family::Ipv6, &session.next_hop_ipv6)];
    for (key, wanted, hop) in hops {
        let Some(hop) = hop else { continue };
        check_session_address(sink, head, hop, false);
        if Family::of_address(hop.value) != wanted {
            let message =
                format!("next-hop.{key} is {}, an {} address", hop.value, words(Family::of_address(hop.value)));
            let finding = Finding::new(code::FAMILY_MISMATCH, message)
                .cause(format!("it is the next hop of {} routes", words(wanted)));
            sink.report(&hop.span, finding.fix(format!("write an {} address", words(wanted))));
        } else if lacks(wanted) {
            let message = format!("next-hop.{key} on a session without {} routes", words(wanted));
            sink.report(&hop.span, without_family(message, wanted, "remove the next hop"));
        }
    }
    if let Some(flag) = session.extended_next_hop.as_ref().filter(|at| at.value && lacks(Family::Ipv4)) {
        let message = "`extended-next-hop` on a session without IPv4 routes".to_owned();
        sink.report(&flag.span, without_family(message, Family::Ipv4, "remove `extended-next-hop`"));
    }
}

fn without_family(message: String, family: Family, otherwise: &str) -> Finding {
    let word = AddressFamily::unicast(family).word();
    let finding = Finding::new(code::WITHOUT_EFFECT, message);
    finding.cause("`families` does not list them").fix(format!("add \"{word}\" to `families`, or {otherwise}"))
}

fn check_ends(sink: &Sink<'_>, address: &At<IpAddr>, local: Option<&At<IpAddr>>) {
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
}

/// There is something to announce.
fn check_prefixes<T: std::fmt::Display>(
    sink: &Sink<'_>,
    head: &Head,
    session: &SessionDraft,
    at: &At<T>,
    family: Family,
) {
    let Some(carried) = families(session, Some(family)) else {
        return;
    };
    let announced = |p: &At<Prefix>| carried.contains(&Family::of(&p.value).into());
    let flow = carried.iter().any(|f| !f.is_unicast());
    if !flow && head.complete && !head.prefixes.is_empty() && !head.prefixes.iter().any(announced) {
        let names: Vec<&str> = carried.iter().map(|f| words(f.family())).collect();
        let name = names.join(" and ");
        let message = format!("there is nothing to announce to {}", at.value);
        let finding = Finding::new(code::NOTHING_TO_ANNOUNCE, message)
            .cause(format!("the session is {name}, the service has no {name} prefix"));
        sink.report_absent(&at.span, finding.fix(format!("add an {name} prefix, or remove the upstream")));
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unicast_link_local())
}

fn check_session_address(sink: &Sink<'_>, head: &Head, at: &At<IpAddr>, interface: bool) {
    let address = at.value;
    if head.addresses.iter().any(|a| a.value == address) {
        let message = format!("{address} is an address of the service");
        let finding = Finding::new(code::SERVICE_ADDRESS_IN_SESSION, message)
            .cause("packets to an anycast address reach the nearest site, not this one");
        sink.report(&at.span, finding.fix("write an address that belongs to one machine"));
    }
    let bad = |reason: &str, fix: &str| {
        let finding = Finding::new(code::BAD_SESSION_ADDRESS, format!("{address} cannot be an end of a session"));
        sink.report(&at.span, finding.cause(reason).fix(fix));
    };
    let usual = "write a global unicast address of the neighbour's interface";
    match address {
        a if a.is_unspecified() => bad("it is no machine's address", usual),
        a if a.is_multicast() => bad("it is a multicast address", usual),
        IpAddr::V4(a) if a.is_broadcast() => bad("it is the broadcast address", usual),
        a if is_link_local(a) && !interface => bad(
            "a link-local address exists on every link: only the interface says which one is meant",
            "add `interface`, the name of the interface towards the neighbour",
        ),
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => {
            bad("it is an IPv4 address in IPv6 clothes", usual);
        }
        _ => {}
    }
}
