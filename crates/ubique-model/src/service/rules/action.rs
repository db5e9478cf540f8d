//! What levels, steps of shedding and flap control demand of the service.

use super::{LONGEST_ACCEPTED, by_family};
use crate::diagnostic as code;
use crate::net::{Family, Prefix};
use crate::policy::{Level, Stance, is_silent};
use crate::read::sink::{At, Finding, Sink, Span};
use crate::service::parse::{Head, Rules, SiteDraft};
use crate::service::{Action, Flap, Service, Shed, UpstreamSelector};

/// Checks what can be said of single tables.
pub(crate) fn check_actions(sink: &Sink<'_>, head: &Head, rules: &Rules, sites: &[SiteDraft]) {
    let sessions = || {
        sites.iter().flat_map(|s| s.upstreams.iter().map(|u| &u.session).chain(s.dynamic.iter().map(|d| &d.session)))
    };
    let actions = rules.degraded.iter().chain(&rules.failed).chain(sessions().flat_map(|s| s.actions()));
    actions.for_each(|at| check_more_specifics(sink, head, &at.value, &at.span));
    for step in &rules.shed {
        check_more_specifics(sink, head, &step.value.action, &step.span);
        check_selectors(sink, step, sites);
    }
    if let Some(Some(flap)) = &rules.flap {
        check_flap(sink, flap);
    }
}

fn check_more_specifics(sink: &Sink<'_>, head: &Head, action: &Action, span: &Span) {
    for prefix in &action.more_specifics {
        let within = |at: &At<Prefix>| at.value.contains(prefix) && at.value.prefix_len() < prefix.prefix_len();
        if head.complete && !head.prefixes.is_empty() && !head.prefixes.iter().any(within) {
            let message = format!("{prefix} is no longer prefix within the service's");
            let prefixes: Vec<String> = head.prefixes.iter().map(|p| p.value.to_string()).collect();
            let finding = Finding::new(code::PREFIX_OUTSIDE, message)
                .cause(format!("the service has {}", prefixes.join(", ")))
                .fix("write a longer prefix within one of these, or remove it");
            sink.report_absent(span, finding);
            continue;
        }
        let longest = by_family(Family::of(prefix), LONGEST_ACCEPTED);
        if prefix.prefix_len() > longest {
            let finding = Finding::new(code::LONG_PREFIX, format!("{prefix} is longer than /{longest}"))
                .cause("most networks filter such routes");
            sink.report(span, finding.fix("fine with a neighbour that takes it by agreement; else remove it"));
        }
    }
}

/// A step that concerns nobody is a mistake.
fn check_selectors(sink: &Sink<'_>, step: &At<Shed>, sites: &[SiteDraft]) {
    for selector in &step.value.upstreams {
        let concerned = sites.iter().any(|site| {
            site.upstreams.iter().any(|u| match selector {
                UpstreamSelector::Relation(wanted) => u.session.relation.as_ref().is_none_or(|r| r.value == *wanted),
                UpstreamSelector::Asn(wanted) => u.asn.as_ref().is_none_or(|asn| asn.value == *wanted),
            }) || site.dynamic.iter().any(|d| match selector {
                UpstreamSelector::Relation(wanted) => d.session.relation.as_ref().is_none_or(|r| r.value == *wanted),
                UpstreamSelector::Asn(wanted) => d.asns.iter().any(|asn| asn.value == *wanted),
            })
        });
        if !concerned && !sites.is_empty() {
            let name = match selector {
                UpstreamSelector::Relation(relation) => format!("\"{relation}\""),
                UpstreamSelector::Asn(asn) => asn.to_string(),
            };
            let finding = Finding::new(code::WITHOUT_EFFECT, format!("no site has an upstream {name}"))
                .cause("the step would shed nothing there");
            sink.report_absent(&step.span, finding.fix("correct `upstreams`, or remove the word"));
        }
    }
}

fn check_flap(sink: &Sink<'_>, flap: &At<Flap>) {
    let Flap { suppress, withdrawal, change, .. } = flap.value;
    let needed = u64::from(withdrawal) + u64::from(change);
    if u64::from(suppress) <= needed {
        let message = format!("suppress = {suppress} leaves no room for a change and a withdrawal");
        let finding = Finding::new(code::NO_FLAP_BUDGET, message)
            .cause(format!("a change of {change} and a withdrawal of {withdrawal} make {needed}"));
        sink.report(&flap.span, finding.fix(format!("write suppress = {} or more, or flap = false", needed * 2)));
    }
}

/// No step of shedding may silence a site that would speak without it.
pub(crate) fn check_shedding(sink: &Sink<'_>, service: &Service, steps: &[Span]) {
    for site in &service.sites {
        for level in [Level::Healthy, Level::Degraded] {
            let at = |shed: usize| Stance { shed: u8::try_from(shed).unwrap_or(u8::MAX), ..Stance::at(level) };
            if is_silent(service, site, &at(0)) {
                continue;
            }
            let Some(first) = (1..=steps.len()).find(|&shed| is_silent(service, site, &at(shed))) else {
                continue;
            };
            let message = format!("step {first} withdraws {} from all of its upstreams", site.name);
            let finding = Finding::new(code::SHED_WITHDRAWS_ALL, message)
                .cause(format!("at level {level}; its clients would overload the next site"))
                .fix("prepend instead, or leave out one upstream");
            sink.report_absent(&steps[first - 1], finding);
            return;
        }
    }
}
