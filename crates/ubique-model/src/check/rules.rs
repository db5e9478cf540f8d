//! What the keys of checks and groups demand of each other.

use std::time::Duration;

use super::parse::{GroupDraft, Membership, Threshold};
use super::{Check, DnsTransport, Group};
use crate::diagnostic as code;
use crate::quantity::format_duration;
use crate::read::sink::{At, Finding};
use crate::read::suggest;
use crate::read::table::TableReader;

fn without_effect(table: &TableReader<'_>, key: &str, why: &str) {
    if table.has(key) {
        let finding = Finding::new(code::WITHOUT_EFFECT, format!("`{key}` has no effect here")).cause(why);
        table.sink().report(&table.span_of(key), finding.fix("remove it"));
    }
}

pub(super) fn retry(table: &TableReader<'_>, retry: &At<Duration>, every: Duration, fall: Option<u32>) {
    if table.variant() == Some("load") {
        without_effect(table, "retry", "a check of load has no failures to confirm");
    } else if fall == Some(1) {
        without_effect(table, "retry", "with fall = 1 there is nothing to confirm: one failure turns the check down");
    } else if retry.value >= every {
        let shown = format_duration(every);
        let message = format!("`retry` is not shorter than every = \"{shown}\"");
        let finding = Finding::new(code::WITHOUT_EFFECT, message).cause("the next poll comes after `every` anyway");
        table.sink().report(&retry.span, finding.fix("shorten it, or remove it"));
    }
}

pub(super) fn latency(table: &TableReader<'_>, latency: &At<Duration>, timeout: Duration) {
    if table.variant() == Some("load") {
        without_effect(table, "latency", "a check of load has no right answer that could be late");
    } else if latency.value >= timeout {
        let shown = format_duration(timeout);
        let message = format!("`latency` is not shorter than the timeout of {shown}");
        let finding =
            Finding::new(code::WITHOUT_EFFECT, message).cause("what takes longer has failed by the timeout already");
        table.sink().report(&latency.span, finding.fix("shorten it, or remove it"));
    }
}

pub(super) fn counts(table: &TableReader<'_>) {
    if table.variant() == Some("load") {
        for key in ["on-failure", "group", "weight"] {
            without_effect(table, key, "load is no failure: such a check never changes what the site is fit for");
        }
        return;
    }
    if table.has("group") && table.has("on-failure") {
        let finding = Finding::new(code::CONFLICTING_KEYS, "`on-failure` and `group` are both given")
            .cause("a check counts alone or in its group");
        table.sink().report(&table.span_of("on-failure"), finding.fix("remove one of the two"));
    }
    if !table.has("group") {
        without_effect(table, "weight", "it counts in a group, and the check is in none");
    }
}

pub(super) fn tls_keys(table: &TableReader<'_>, why: &str) {
    for key in ["server-name", "ca-file", "insecure"] {
        without_effect(table, key, why);
    }
}

pub(super) fn dns(table: &TableReader<'_>, transport: DnsTransport, flags: &[At<&'static str>]) {
    if !matches!(transport, DnsTransport::Tls | DnsTransport::Https) {
        tls_keys(table, &format!("the query goes over {}", transport.word()));
    }
    if transport != DnsTransport::Https {
        without_effect(table, "path", "only DNS over HTTPS has a path");
    }
    for (place, at) in flags.iter().enumerate() {
        let bare = |word: &'static str| word.trim_start_matches("no-");
        if flags[..place].iter().any(|earlier| bare(earlier.value) == bare(at.value)) {
            let finding = Finding::new(code::DUPLICATE, format!("flag {} is given twice", bare(at.value)));
            table.sink().report(&at.span, finding.fix("remove one of the two"));
        }
    }
}

pub(super) fn header_name(table: &TableReader<'_>, name: &At<String>) {
    let fits = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.value.is_empty() || !name.value.chars().all(fits) {
        let finding = Finding::new(code::BAD_TEXT, format!("\"{}\" is not the name of a header", name.value));
        table.sink().report(&name.span, finding.fix("write a name such as \"x-served-by\" (RFC 9110 §5.1)"));
    }
}

/// Which key a metric needs, and which it has no use for.
pub(super) fn load(table: &TableReader<'_>, metric: &str, high: Option<&At<u64>>, low: Option<&At<u64>>) {
    let owners = [("interface", "packets"), ("port", "backlog"), ("command", "command"), ("url", "page")];
    for (key, owner) in owners {
        if metric != owner {
            without_effect(table, key, &format!("it belongs to metric = \"{owner}\""));
        } else if key != "interface" && !table.has(key) {
            let finding = Finding::new(code::MISSING_KEY, format!("metric = \"{metric}\" lacks `{key}`"));
            let example = match key {
                "port" => "53",
                "command" => "[\"/usr/local/bin/queries-per-second\"]",
                _ => "\"http://127.0.0.1:8053/qps\"",
            };
            table.sink().report_absent(&table.span, finding.fix(format!("add {key} = {example}")));
        }
    }
    if metric != "page" {
        tls_keys(table, "only metric = \"page\" can speak TLS");
    }
    if let (Some(high), Some(low)) = (high, low)
        && low.value >= high.value
    {
        let message = format!("`low` is {}, not less than high = {}", low.value, high.value);
        let finding = Finding::new(code::IMPOSSIBLE_THRESHOLD, message)
            .cause("without a gap between the two, overload would come and go with every poll");
        table.sink().report(&low.span, finding.fix(format!("write low = {}", high.value.saturating_mul(4) / 5)));
    }
}

/// The groups, with thresholds as weights.
pub(super) fn groups(
    root: &TableReader<'_>,
    drafts: &[GroupDraft],
    members: &[Membership],
    checks: &[Option<Check>],
) -> Option<Vec<Group>> {
    let names: Vec<&str> = drafts.iter().filter_map(|g| g.name.as_ref()).map(|at| at.value.as_str()).collect();
    for member in members.iter().filter(|m| !names.contains(&m.group.value.as_str())) {
        let message = format!("there is no group \"{}\"", member.group.value);
        let finding = Finding::new(code::UNKNOWN_GROUP, message).cause("its thresholds are not known");
        let fix = match suggest::nearest(&member.group.value, names.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("add a [[group]] with name = \"{}\"", member.group.value),
        };
        root.sink().report_absent(&member.group.span, finding.fix(fix));
    }
    // Where a check was not readable, what its group adds up to is not known either.
    let complete = checks.iter().all(Option::is_some);
    drafts.iter().map(|draft| group(root, draft, members, complete)).collect()
}

fn group(root: &TableReader<'_>, draft: &GroupDraft, members: &[Membership], complete: bool) -> Option<Group> {
    let name = draft.name.as_ref()?;
    let total: u32 = members.iter().filter(|m| m.group.value == name.value).map(|m| m.weight).sum();
    if total == 0 && complete {
        let finding = Finding::new(code::UNKNOWN_GROUP, format!("no check is in group \"{}\"", name.value))
            .cause("nothing could ever be up in it");
        root.sink()
            .report_absent(&draft.span, finding.fix(format!("write group = \"{}\" in some [[check]]", name.value)));
        return None;
    }
    let weight = |threshold: &At<Threshold>| match threshold.value {
        Threshold::All => total,
        Threshold::Any => 1,
        Threshold::Weight(weight) => weight,
    };
    let healthy = draft.healthy.as_ref()?;
    let degraded = draft.degraded.as_ref();
    for threshold in std::iter::once(healthy).chain(degraded) {
        if weight(threshold) > total && complete {
            let message = format!("{} is more than the weight of all checks in the group, {total}", weight(threshold));
            let finding = Finding::new(code::IMPOSSIBLE_THRESHOLD, message).cause("it could never be reached");
            root.sink().report(&threshold.span, finding.fix(format!("write {total} or less, or \"all\"")));
        }
    }
    if let Some(degraded) = degraded.filter(|d| weight(d) > weight(healthy)) {
        let message = format!("`degraded` is {}, more than `healthy`, {}", weight(degraded), weight(healthy));
        let finding = Finding::new(code::IMPOSSIBLE_THRESHOLD, message)
            .cause("degraded is less than healthy: it needs less weight");
        root.sink().report(&degraded.span, finding.fix("swap the two, or remove `degraded`"));
    }
    let (healthy, degraded) = (weight(healthy), degraded.map_or_else(|| weight(healthy), weight));
    Some(Group { name: name.value.clone(), healthy, degraded })
}
