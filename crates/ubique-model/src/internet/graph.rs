//! What the links of an Internet must form: one piece, and no network that is its own provider.

use std::collections::{BTreeMap, BTreeSet};

use super::Network;
use super::parse::LinkDraft;
use crate::diagnostic as code;
use crate::net::{Asn, Relation};
use crate::read::sink::{At, Finding, Sink};

/// Most networks of a cycle that are listed.
const MAX_LISTED: usize = 8;

/// Reports provider cycles and networks apart from the rest.
pub(super) fn check(sink: &Sink<'_>, networks: &[At<Network>], links: &[&LinkDraft]) {
    report_cycles(sink, links);
    report_apart(sink, networks, links);
}

/// Removes networks without customers until none is left; what remains is on a provider cycle or above one.
fn on_or_above_cycles(sales: &[&&LinkDraft]) -> BTreeSet<Asn> {
    let mut customers: BTreeMap<Asn, usize> = BTreeMap::new();
    let mut providers: BTreeMap<Asn, Vec<Asn>> = BTreeMap::new();
    for sale in sales {
        *customers.entry(sale.link.a).or_default() += 1;
        customers.entry(sale.link.b).or_default();
        providers.entry(sale.link.b).or_default().push(sale.link.a);
    }
    let mut free: Vec<Asn> = customers.iter().filter(|(_, count)| **count == 0).map(|(asn, _)| *asn).collect();
    while let Some(asn) = free.pop() {
        customers.remove(&asn);
        for provider in providers.remove(&asn).unwrap_or_default() {
            if let Some(count) = customers.get_mut(&provider) {
                *count -= 1;
                if *count == 0 {
                    free.push(provider);
                }
            }
        }
    }
    customers.into_keys().collect()
}

fn report_cycles(sink: &Sink<'_>, links: &[&LinkDraft]) {
    let sales: Vec<&&LinkDraft> = links.iter().filter(|l| l.link.relation == Relation::Customer).collect();
    let remaining = on_or_above_cycles(&sales);
    // Each remaining network has a customer among the remaining ones: following customers must come back.
    let Some(&start) = remaining.first() else {
        return;
    };
    let mut path = vec![start];
    let cycle_start = loop {
        let last = path[path.len() - 1];
        let next = sales.iter().find(|s| s.link.a == last && remaining.contains(&s.link.b));
        let Some(next) = next.map(|s| s.link.b) else {
            return;
        };
        if let Some(at) = path.iter().position(|asn| *asn == next) {
            break at;
        }
        path.push(next);
    };
    let cycle = &path[cycle_start..];
    let closing = (cycle[cycle.len() - 1], cycle[0]);
    let Some(draft) = sales.iter().find(|s| (s.link.a, s.link.b) == closing) else {
        return;
    };
    let mut shown: Vec<String> = cycle.iter().take(MAX_LISTED).map(|asn| format!("AS {asn}")).collect();
    if cycle.len() > MAX_LISTED {
        shown.push("…".to_owned());
    }
    shown.push(format!("AS {}", cycle[0]));
    let message = format!("AS {} is its own provider: {}", cycle[0], shown.join(" sells to "));
    let finding = Finding::new(code::PROVIDER_CYCLE, message)
        .cause("routing by customer, peer and provider does not converge on a cycle (Gao and Rexford, 2001)");
    sink.report(&draft.at.span, finding.fix("turn one of these links round, or make it relation = \"peer\""));
}

fn report_apart(sink: &Sink<'_>, networks: &[At<Network>], links: &[&LinkDraft]) {
    let Some(first) = networks.first().map(|n| n.value.asn) else {
        return;
    };
    let mut neighbours: BTreeMap<Asn, Vec<Asn>> = BTreeMap::new();
    for draft in links {
        neighbours.entry(draft.link.a).or_default().push(draft.link.b);
        neighbours.entry(draft.link.b).or_default().push(draft.link.a);
    }
    let mut reached = BTreeSet::from([first]);
    let mut border = vec![first];
    while let Some(asn) = border.pop() {
        for &next in neighbours.get(&asn).into_iter().flatten() {
            if reached.insert(next) {
                border.push(next);
            }
        }
    }
    let apart: Vec<&At<Network>> = networks.iter().filter(|n| !reached.contains(&n.value.asn)).collect();
    let Some(one) = apart.first() else { return };
    let others = match apart.len() {
        1 => String::new(),
        n => format!(", nor do {} other networks", n - 1),
    };
    let message = format!("no links lead from AS {first} to AS {}{others}", one.value.asn);
    let finding =
        Finding::new(code::DISCONNECTED, message).cause("clients on one side could never reach sites on the other");
    sink.report_absent(&one.span, finding.fix("add a [[link]], or make it a member of an [[ixp]]"));
}
