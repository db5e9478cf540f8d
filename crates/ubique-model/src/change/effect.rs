//! What a difference means for a running site.

use super::tables::Table;
use super::{Change, Fate, KeyChange, Sign, UpstreamChange, same};
use crate::net::Prefix;
use crate::policy::{Announcement, Stance, announcements};
use crate::service::{Service, Site, Upstream};

/// Keys of an upstream that only change what is announced to it.
pub(super) const ATTRIBUTES: &[&str] =
    &["communities", "extended-communities", "large-communities", "prepend", "med", "degraded", "failed", "full-view"];

/// Keys of an upstream that its session is made of.
pub(super) const SESSION: &[&str] = &[
    "asn",
    "local-address",
    "port",
    "passive",
    "relation",
    "families",
    "hold-time",
    "multihop",
    "ttl-security",
    "password-file",
    "tcp-ao",
    "max-prefix",
    "keep-routes",
    "role",
    "strict-role",
    "graceful-restart",
    "next-hop",
    "next-hop-unchanged",
    "extended-next-hop",
    "add-path",
    "route-reflector-client",
];

/// Keys of a check that change how its results are counted; any other key makes it another check.
const COUNTING: &[&str] = &["every", "timeout", "fall", "rise", "on-failure", "group", "weight"];

/// Keys of `[agent]` that count from the next drain or action on; the others need a restart: see [`super::effective`].
const LIVE: &[&str] = &["graceful-shutdown", "drain", "drain-hook", "confirm-share"];

/// Why a setting waits for a restart; `None`: it does not.
pub(super) fn needs_restart(header: &str, key: &str) -> Option<&'static str> {
    match (header, key) {
        ("[service]", "name") => Some("socket, state and metrics are named after it"),
        ("[service]", "asn") => Some("every session and every announcement carries it"),
        ("[agent]", key) if LIVE.contains(&key) => None,
        ("[agent]", "watchdog") => Some("the watchdog process is started with the agent"),
        ("[agent]", "sandbox") => Some("what was given up does not come back"),
        ("[agent]", "state") => Some("the state is read when the agent starts"),
        ("[agent]", _) => Some("it is opened when the agent starts"),
        ("[agent.mrt]" | "[agent.journal]" | "[[agent.bmp]]", _) => Some("records and exports begin with the agent"),
        (table, _) if table.starts_with("[agent.") || table.starts_with("[[agent.") => {
            Some("it is set up when the agent starts")
        }
        ("[sessions]", _) | ("[[site]]", "unicast" | "number") => {
            Some("the data plane is set up when the agent starts")
        }
        ("[[site]]", "router-id") => Some("every session is opened with it"),
        ("[[site.dynamic]]", key) if !ATTRIBUTES.contains(&key) => Some("ranges are set up when the agent starts"),
        _ => None,
    }
}

/// What a change of a table means, where it is told neither of an upstream nor of a restart.
pub(super) fn of_table(sign: Sign, table: &Table, keys: &[KeyChange]) -> String {
    let only = |which: &[&str]| keys.iter().all(|k| which.contains(&k.key.as_str()));
    let words = match (table.header.as_str(), sign) {
        ("[[check]]", Sign::Added) => "counts as up until its polls tell otherwise",
        ("[[check]]", Sign::Removed) => "is polled no more, and its state is forgotten",
        ("[[check]]", Sign::Changed) if only(COUNTING) => "keeps its state",
        ("[[check]]", Sign::Changed) => "is another check: it counts as up until its polls tell otherwise",
        ("[rehearse]", _) => "is for rehearsals only",
        ("[[site]]", _) if only(&["location", "capacity"]) => "changes nothing that is announced",
        ("[agent]", _) if only(LIVE) => "counts from the next drain, stop or action on",
        ("[service]" | "[[site]]" | "[[site.upstream]]", _) => "",
        (header, _) if keys.iter().all(|k| needs_restart(header, &k.key).is_some()) => "",
        _ => "applies at once",
    };
    words.to_owned()
}

/// `of`, with everything that is announced and nothing else from `from`.
pub(super) fn with_attributes(of: &Upstream, from: &Upstream) -> Upstream {
    Upstream {
        communities: from.communities.clone(),
        extended_communities: from.extended_communities.clone(),
        large_communities: from.large_communities.clone(),
        prepend: from.prepend,
        med: from.med,
        degraded: from.degraded.clone(),
        failed: from.failed.clone(),
        full_view: from.full_view,
        ..of.clone()
    }
}

/// An upstream in words: `AS1299 192.0.2.1`.
fn label(upstream: &Upstream) -> String {
    let interface = upstream.interface.as_ref().map(|i| format!("%{i}")).unwrap_or_default();
    format!("AS{} {}{interface}", upstream.asn, upstream.address)
}

/// Whether all but announcements and BFD is the same.
fn same_session(old: &Upstream, new: &Upstream) -> bool {
    Upstream { bfd: old.bfd, ..with_attributes(new, old) } == *old
}

/// The keys of the session that differ, as the file spells them.
fn session_keys(old: &Service, new: &Service, (before, after): (&Upstream, &Upstream)) -> Vec<String> {
    let printed = |service: &Service, upstream: &Upstream| {
        let site = Site { upstreams: vec![upstream.clone()], dynamic: vec![], ..service.sites[0].clone() };
        super::tables(&Service { sites: vec![site], ..service.clone() }.to_toml()).pop()
    };
    let (Some(before), Some(after)) = (printed(old, before), printed(new, after)) else { return Vec::new() };
    let keys = after.keys(Some(&before)).into_iter().map(|k| k.key);
    keys.filter(|key| SESSION.contains(&key.as_str())).collect()
}

/// What changes for one upstream, which may come or go; `None`: nothing.
pub(super) fn of_upstream(
    old: &Service,
    new: &Service,
    before: Option<&Upstream>,
    after: Option<&Upstream>,
) -> Option<UpstreamChange> {
    let was = before.map(|u| announcements(old, u, &Stance::HEALTHY)).unwrap_or_default();
    let is = after.map(|u| announcements(new, u, &Stance::HEALTHY)).unwrap_or_default();
    let fate = match (before, after) {
        (Some(before), Some(after)) if same_session(before, after) => Fate::Stays,
        (Some(_), Some(_)) => Fate::Resets,
        (None, Some(_)) => Fate::Comes,
        (_, None) => Fate::Goes,
    };
    let bfd = fate == Fate::Stays && before.map(|u| u.bfd) != after.map(|u| u.bfd);
    if fate == Fate::Stays && was == is && !bfd {
        return None;
    }
    let because = match (before, after) {
        (Some(before), Some(after)) if fate == Fate::Resets => session_keys(old, new, (before, after)),
        _ => Vec::new(),
    };
    let upstream = after.or(before)?;
    let only_in = |one: &[Announcement], other: &[Announcement]| -> Vec<Prefix> {
        one.iter().map(|a| a.prefix).filter(|p| !other.iter().any(|a| a.prefix == *p)).collect()
    };
    Some(UpstreamChange {
        asn: upstream.asn,
        address: upstream.address,
        interface: upstream.interface.clone(),
        fate,
        bfd,
        announces: only_in(&is, &was),
        withdraws: only_in(&was, &is),
        sentence: sentence(upstream, fate, &because, bfd, (&was, &is)),
        because,
    })
}

/// The session of an upstream resets for a reason that the files do not show.
pub(super) fn reset(service: &Service, upstream: &Upstream, because: Vec<String>) -> UpstreamChange {
    let now = announcements(service, upstream, &Stance::HEALTHY);
    UpstreamChange {
        asn: upstream.asn,
        address: upstream.address,
        interface: upstream.interface.clone(),
        fate: Fate::Resets,
        bfd: false,
        announces: vec![],
        withdraws: vec![],
        sentence: sentence(upstream, Fate::Resets, &because, false, (&now, &now)),
        because,
    }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn sentence(
    upstream: &Upstream,
    fate: Fate,
    because: &[String],
    bfd: bool,
    (was, is): (&[Announcement], &[Announcement]),
) -> String {
    let mut parts = Vec::new();
    let prefixes = |all: &[Announcement]| list(all.iter().map(|a| a.prefix));
    match fate {
        Fate::Stays => parts.push("session stays".to_owned()),
        Fate::Comes => parts.push("new session".to_owned()),
        Fate::Goes => parts.push("session ends for good".to_owned()),
        Fate::Resets => {
            let silent = prefixes(was);
            let meanwhile =
                if silent.is_empty() { String::new() } else { format!(": {silent} withdrawn until it is back") };
            parts.push(format!("session resets because of {}{meanwhile}", list(because)));
        }
    }
    if bfd {
        parts.push(match upstream.bfd {
            Some(_) => "BFD has other parameters".to_owned(),
            None => "BFD ends".to_owned(),
        });
    }
    let gone: Vec<_> = was.iter().filter(|a| !is.iter().any(|b| b.prefix == a.prefix)).cloned().collect();
    if !gone.is_empty() {
        parts.push(format!("withdraws {}", prefixes(&gone)));
    }
    // Prefixes that the same words fit are told together.
    let mut told: Vec<(String, Vec<Prefix>)> = Vec::new();
    for new in is {
        let words = match was.iter().find(|a| a.prefix == new.prefix) {
            Some(old) if old == new => continue,
            Some(old) => instead(old, new),
            None => attributes(new),
        };
        match told.iter_mut().find(|(w, _)| *w == words) {
            Some((_, prefixes)) => prefixes.push(new.prefix),
            None => told.push((words, vec![new.prefix])),
        }
    }
    for (words, prefixes) in told {
        let words = if words.is_empty() { words } else { format!(" with {words}") };
        parts.push(format!("announces {}{words}", list(prefixes)));
    }
    format!("{}: {}", label(upstream), parts.join("; "))
}

fn prepends(count: u8) -> String {
    if count == 1 { "1 prepend".to_owned() } else { format!("{count} prepends") }
}

/// What an announcement carries.
fn attributes(new: &Announcement) -> String {
    let mut words = Vec::new();
    if new.prepend > 0 {
        words.push(prepends(new.prepend));
    }
    words.extend(new.med.map(|med| format!("med {med}")));
    let kinds = [
        ("community", list(&new.communities)),
        ("extended community", list(&new.extended_communities)),
        ("large community", list(&new.large_communities)),
    ];
    words.extend(kinds.into_iter().filter(|(_, all)| !all.is_empty()).map(|(kind, all)| format!("{kind} {all}")));
    list(words)
}

/// What an announcement carries instead of what it carried.
fn instead(old: &Announcement, new: &Announcement) -> String {
    let mut words = Vec::new();
    if old.prepend != new.prepend {
        words.push(format!("{} instead of {}", prepends(new.prepend), old.prepend));
    }
    let med = |med: Option<u32>| med.map_or_else(|| "none".to_owned(), |med| med.to_string());
    if old.med != new.med {
        words.push(format!("med {} instead of {}", med(new.med), med(old.med)));
    }
    compare("community", &old.communities, &new.communities, &mut words);
    compare("extended community", &old.extended_communities, &new.extended_communities, &mut words);
    compare("large community", &old.large_communities, &new.large_communities, &mut words);
    list(words)
}

fn compare<T: PartialEq + ToString>(kind: &str, old: &[T], new: &[T], words: &mut Vec<String>) {
    let without = |one: &[T], other: &[T]| list(one.iter().filter(|c| !other.contains(c)).map(ToString::to_string));
    let (added, gone) = (without(new, old), without(old, new));
    if !added.is_empty() {
        words.push(format!("{kind} {added} added"));
    }
    if !gone.is_empty() {
        words.push(format!("{kind} {gone} removed"));
    }
}

/// What an operator must say yes to.
pub(super) fn surprises(change: &Change, old: &Service, new: &Service, after: &Site) -> Vec<String> {
    let mut all = Vec::new();
    for upstream in &change.upstreams {
        let who = format!("AS{} {}", upstream.asn, upstream.address);
        if !upstream.withdraws.is_empty() {
            all.push(format!("{} would be withdrawn from {who}", list(&upstream.withdraws)));
        }
        if !upstream.announces.is_empty() {
            all.push(format!("{} would be newly announced to {who}", list(&upstream.announces)));
        }
    }
    for address in old.addresses.iter().filter(|a| !new.addresses.contains(a)) {
        all.push(format!("the service address {address} would be taken off the loopback"));
    }
    let resets = |u: &Upstream| {
        let fate = change.upstreams.iter().find(|c| (c.address, &c.interface) == (u.address, &u.interface));
        fate.is_some_and(|c| c.fate == Fate::Resets)
    };
    let settled = |u: &&Upstream| old.site(&change.site).is_some_and(|s| s.upstreams.iter().any(|o| same(o, u)));
    let mut stay = after.upstreams.iter().filter(settled).peekable();
    if stay.peek().is_some() && stay.all(resets) {
        all.push("every session would reset at the same time: nothing is announced meanwhile".to_owned());
    }
    all
}
