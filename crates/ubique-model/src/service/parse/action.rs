//! `[level]`, `[[shed]]`, `[flap]` and `[guard]` as they are written.

use super::upstream::written;
use super::{narrow, values};
use crate::diagnostic as code;
use crate::net::{Prefix, Relation};
use crate::read::sink::{At, Finding};
use crate::read::table::{TableReader, report_duplicates};
use crate::read::text;
use crate::service::{Action, Flap, Guard, Levels, Shed, UpstreamSelector};

/// What the file says besides checks and sites, as far as it was readable.
pub(in crate::service) struct Rules {
    pub degraded: Option<At<Action>>,
    pub failed: Option<At<Action>>,
    /// With the place of each step.
    pub shed: Vec<At<Shed>>,
    /// The inner `None`: off.
    pub flap: Option<Option<At<Flap>>>,
    pub guard: Option<Guard>,
}

pub(super) fn read_rules(root: &TableReader<'_>) -> Rules {
    let levels = root.table("level");
    let level = |key| written(levels.as_ref()?, key).map(|(t, _)| read_action(&t));
    Rules {
        degraded: level("degraded"),
        failed: level("failed"),
        shed: root.tables("shed").iter().map(read_shed).collect(),
        flap: match root.switch_on("flap") {
            Some(table) => read_flap(&table).map(Some),
            None => Some(None),
        },
        guard: root.table("guard").and_then(|t| read_guard(&t)),
    }
}

impl Rules {
    pub(super) fn levels(&self) -> Levels {
        let default = Levels::default();
        let level = |at: &Option<At<Action>>, default| at.as_ref().map_or(default, |at| at.value.clone());
        Levels { degraded: level(&self.degraded, default.degraded), failed: level(&self.failed, default.failed) }
    }
}

/// The keys of an action, with the place of its longer prefixes; what is unreadable is reported and absent.
pub(super) fn read_action(table: &TableReader<'_>) -> At<Action> {
    let mut more_specifics = table.texts("more-specifics", text::prefix);
    for prefix in &mut more_specifics {
        if let Some(finding) = text::host_bits(prefix.value) {
            table.sink().report(&prefix.span, finding);
            prefix.value = prefix.value.trunc();
        }
    }
    let action = Action {
        prepend: narrow(table.integer("prepend")).map_or(0, |at| at.value),
        med: narrow(table.integer("med")).map(|at| at.value),
        communities: values(table.texts("communities", text::community)),
        large_communities: values(table.texts("large-communities", text::large_community)),
        withdraw: table.boolean("withdraw").is_some_and(|at| at.value),
        blackhole: table.boolean("blackhole").is_some_and(|at| at.value),
        more_specifics: more_specifics.iter().map(|at| at.value).collect(),
    };
    check_action(table, &action, &more_specifics);
    At { value: action, span: table.span_of("more-specifics") }
}

/// What the keys of an action demand of each other.
fn check_action(table: &TableReader<'_>, action: &Action, more_specifics: &[At<Prefix>]) {
    let plain = Action { withdraw: false, ..action.clone() } == Action::default();
    if action.withdraw && !plain {
        let finding = Finding::new(code::WITHOUT_EFFECT, "`withdraw` together with other keys")
            .cause("what is withdrawn has no attributes");
        table.sink().report(&table.span_of("withdraw"), finding.fix("keep `withdraw`, or the other keys"));
    }
    report_duplicates(table.sink(), "prefix", more_specifics);
}

fn read_shed(table: &TableReader<'_>) -> At<Shed> {
    let upstreams = table.asns_or("upstreams", relation);
    let upstreams = upstreams.into_iter().map(|at| match at.value {
        Ok(asn) => UpstreamSelector::Asn(asn),
        Err(relation) => UpstreamSelector::Relation(relation),
    });
    let value = Shed { upstreams: upstreams.collect(), action: read_action(table).value };
    At { value, span: table.span.clone() }
}

/// A relation by its word.
pub(super) fn relation(word: &str) -> Option<Relation> {
    [Relation::Transit, Relation::Peer, Relation::RouteServer, Relation::Internal]
        .into_iter()
        .find(|relation| relation.to_string() == word)
}

fn read_flap(table: &TableReader<'_>) -> Option<At<Flap>> {
    let half_life = table.duration("half-life");
    let suppress = narrow(table.integer("suppress"));
    let withdrawal = narrow(table.integer("withdrawal"));
    let change = narrow(table.integer("change"));
    let value = Flap {
        half_life: half_life?.value,
        suppress: suppress?.value,
        withdrawal: withdrawal?.value,
        change: change?.value,
    };
    Some(At { value, span: table.span_of("suppress") })
}

fn read_guard(table: &TableReader<'_>) -> Option<Guard> {
    let last_site = table.duration("last-site");
    let retry = table.duration("retry");
    let start = table.boolean("start").is_none_or(|at| at.value);
    Some(Guard { last_site: last_site?.value, retry: retry?.value, start })
}
