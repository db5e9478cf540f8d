//! From what was seen to the report.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ubique_model::catchment::{Catchment, Landing};
use ubique_model::check::CheckKind;
use ubique_model::service::Service;
use ubique_model::{Asn, Prefix};
use ubique_sys::clock::monotonic_ns;

use super::Setup;
use super::action::{action_name, is_fault};
use super::judge::{self, judge};
use super::stage::{LANDING_WINDOW, Played, Stage};
use crate::measure::{Effect, FaultWindow, Log, summary};
use crate::plan::Plan;
use crate::report::{
    AgentCost, Expectation, Fault, LinkInfo, NetworkInfo, Phase, ProbeQuality, Report, SCHEMA_VERSION, ServiceInfo,
    SiteInfo, Timeline, VantageInfo, Verdict, ms,
};

/// How far back the landing before a fault is looked for.
const BEFORE: Duration = Duration::from_secs(1);
/// The zone of the built-in responder when no check asks for one.
const DEFAULT_ZONE: &str = "example.com";
/// Buckets of the timeline.
const BUCKET: Duration = Duration::from_millis(50);

/// The longest prefix of the service that contains an address.
pub(super) fn prefix_of(service: &Service, address: IpAddr) -> Option<Prefix> {
    service.prefixes.iter().filter(|p| p.contains(&address)).max_by_key(|p| p.prefix_len()).copied()
}

/// The zone of the built-in responder: the name of the first DNS check, so that the check is answered.
pub(super) fn zone(service: &Service) -> String {
    let name = service.checks.iter().find_map(|check| match &check.kind {
        CheckKind::Dns(dns) if dns.class == "IN" => Some(dns.name.trim_end_matches('.').to_string()),
        _ => None,
    });
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT_ZONE.to_string())
}

/// An RFC 3339 time as nanoseconds since 1970.
pub(super) fn unix_ns(time: &str) -> Option<u64> {
    let time: jiff::Timestamp = time.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok()
}

/// The sites for the report.
pub(super) fn sites(service: &Service) -> Vec<SiteInfo> {
    let site = |s: &ubique_model::service::Site| SiteInfo {
        name: s.name.clone(),
        location: s.location.name.clone(),
        lat: s.location.latitude,
        lon: s.location.longitude,
    };
    service.sites.iter().map(site).collect()
}

/// The vantage points for the report, each with the site nearest to it.
pub(super) fn vantages(plan: &Plan, service: &Service) -> Vec<VantageInfo> {
    plan.vantages
        .iter()
        .map(|v| {
            let distances = service.sites.iter().map(|s| (s, s.location.distance_km(&v.location)));
            let nearest = distances.min_by(|a, b| a.1.total_cmp(&b.1));
            VantageInfo {
                name: v.name.clone(),
                asn: v.asn,
                lat: v.location.latitude,
                lon: v.location.longitude,
                nearest_site: nearest.map(|(s, _)| s.name.clone()).unwrap_or_default(),
                nearest_km: nearest.map_or(0.0, |(_, km)| km.round()),
            }
        })
        .collect()
}

/// The links for the report: between networks, and from networks to sites.
pub(super) fn links(setup: &Setup, plan: &Plan) -> Vec<LinkInfo> {
    let between = setup.internet.links.iter().map(|l| LinkInfo {
        a: l.a,
        b: Some(l.b),
        site: None,
        relation: l.relation,
        ixp: l.ixp.clone(),
    });
    let mut links: Vec<LinkInfo> = between.collect();
    for network in &plan.networks {
        for session in &network.sessions {
            let link = |b, site, relation| LinkInfo { a: network.asn, b, site, relation, ixp: None };
            let more = match &session.site {
                Some(site) => link(None, Some(site.clone()), session.relation),
                None if network.added => link(Some(session.asn), None, session.relation),
                None => continue,
            };
            if !links.contains(&more) {
                links.push(more);
            }
        }
    }
    links
}

/// Address of a site on a session with an upstream → site.
pub(super) fn site_links(plan: &Plan) -> BTreeMap<IpAddr, String> {
    let sessions = plan.networks.iter().flat_map(|n| &n.sessions);
    sessions.filter_map(|s| s.site.clone().map(|site| (s.remote, site))).collect()
}

/// The whole report.
pub(super) fn report(stage: &Stage) -> Report {
    let log = stage.prober.log();
    let setup = stage.setup;
    let sessions = stage.sessions_report();
    let mut faults = Vec::new();
    let mut expectations = Vec::new();
    for played in &stage.played {
        let step = &setup.scenario.steps[played.step];
        let effects = effects(&log, played);
        let fault = fault(stage, &log, played, &effects);
        let outcome = judge::Outcome {
            sessions: sessions.as_ref().and_then(|s| s.step(&step.label)),
            control: setup.control.as_ref().and_then(|s| s.step(&step.label)),
            ..judged(stage, &log, played, &effects, &fault)
        };
        expectations.extend(judge(&step.expect, &outcome));
        if is_fault(&step.action) {
            faults.push(fault);
        }
    }
    let mut events = stage.events.clone();
    events.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
    let mut report = Report {
        schema_version: SCHEMA_VERSION,
        ubique_version: env!("CARGO_PKG_VERSION").to_string(),
        service: ServiceInfo {
            name: setup.service.name.clone(),
            asn: setup.service.asn,
            prefixes: setup.service.prefixes.clone(),
            addresses: setup.service.addresses.clone(),
        },
        scenario: setup.scenario.name.clone(),
        internet: setup.internet.name.clone(),
        routers: setup.backend.to_string(),
        started: started(stage.started_ns),
        duration_ms: stage.ms(monotonic_ns()),
        convergence_ms: stage.convergence_ms,
        sites: sites(&setup.service),
        vantage_points: vantages(&stage.plan, &setup.service),
        networks: networks(&stage.plan),
        links: links(setup, &stage.plan),
        phases: stage.played.iter().map(|played| phase(stage, &log, played)).collect(),
        faults,
        verdict: verdict(stage, &expectations),
        events,
        surprises: stage.surprises.clone(),
        expectations,
        agents: agents(stage),
        sessions,
        control: setup.control.clone(),
        probe: quality(&log, super::prober::every(setup)),
        timeline: timeline(stage, &log),
    };
    report.surprises.sort_by(|a, b| b.rtt_ms.unwrap_or(0.0).total_cmp(&a.rtt_ms.unwrap_or(0.0)));
    report
}

/// What the agents cost. One that was started anew has spent less than before and is left out.
fn agents(stage: &Stage) -> Vec<AgentCost> {
    const MIB: f64 = 1024.0 * 1024.0;
    let Some((from_ns, before)) = &stage.idle_from else { return Vec::new() };
    let elapsed_ns = monotonic_ns().saturating_sub(*from_ns).max(1) as f64;
    let cost = |site: &String| {
        let cost = stage.world.agent_cost(site)?;
        let spent_ns = cost.cpu_ns.checked_sub(*before.get(site)?)?;
        Some(AgentCost {
            site: site.clone(),
            resident_mib: round(cost.resident_bytes as f64 / MIB),
            cpu_percent: round(spent_ns as f64 / elapsed_ns * 100.0),
        })
    };
    stage.sites.iter().filter_map(cost).collect()
}

/// Three decimals are enough for people, and survive a round trip through JSON.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn verdict(stage: &Stage, expectations: &[Expectation]) -> Verdict {
    let failed = expectations.iter().filter(|e| !e.ok);
    let mut failed: Vec<String> =
        failed.map(|e| format!("{}: {} is {}, expected {}", e.step, e.what, e.actual, e.expected)).collect();
    failed.extend(stage.troubles.iter().cloned());
    Verdict { ok: failed.is_empty(), failed }
}

fn started(started_ns: u64) -> String {
    let age = Duration::from_nanos(monotonic_ns().saturating_sub(started_ns));
    let now = jiff::Timestamp::now();
    let started = now.checked_sub(jiff::SignedDuration::try_from(age).unwrap_or_default()).unwrap_or(now);
    format!("{started:.3}")
}

fn networks(plan: &Plan) -> Vec<NetworkInfo> {
    let network = |n: &crate::plan::NetworkPlan| NetworkInfo {
        asn: n.asn,
        name: n.name.clone(),
        lat: n.location.latitude,
        lon: n.location.longitude,
    };
    plan.networks.iter().map(network).collect()
}

fn effects(log: &Log, played: &Played) -> Vec<Effect> {
    let window = FaultWindow {
        site: played.site.as_deref().and_then(|site| log.site_index(site)),
        at_ns: played.at_ns,
        until_ns: played.until_ns,
        before_ns: BEFORE.as_nanos() as u64,
    };
    log.effects(0, &window)
}

fn fault(stage: &Stage, log: &Log, played: &Played, effects: &[Effect]) -> Fault {
    let step = &stage.setup.scenario.steps[played.step];
    let named = || stage.plan.vantages.iter().map(|v| v.name.clone()).zip(effects);
    let on_site = || named().filter(|(_, e)| e.on_site);
    let total = summary(effects);
    Fault {
        label: step.label.clone(),
        kind: action_name(&step.action).to_string(),
        site: played.site.clone().unwrap_or_default(),
        at_ms: stage.ms(played.at_ns),
        outage_ms: on_site().map(|(name, e)| (name, ms(e.outage_ns))).collect(),
        moved_ms: on_site().filter_map(|(name, e)| Some((name, ms(e.first_other_ns?)))).collect(),
        median_ms: total.median_ns.map(ms),
        worst_ms: total.worst_ns.map(ms),
        lost: total.lost,
        unrecovered: on_site().filter(|(_, e)| e.open).map(|(name, _)| name).collect(),
        moved_to: named()
            .filter(|(_, e)| e.before != e.after)
            .map(|(name, e)| (name, e.after.and_then(|site| log.site_name(site)).map(str::to_string)))
            .collect(),
        doubtful: named().filter(|(_, e)| e.doubtful && (e.on_site || e.lost > 0)).map(|(name, _)| name).collect(),
    }
}

fn judged<'a>(
    stage: &'a Stage,
    log: &Log,
    played: &'a Played,
    effects: &[Effect],
    fault: &Fault,
) -> judge::Outcome<'a> {
    let landings = (0..stage.setup.service.addresses.len()).map(|address| {
        let landings = log.landings(address, played.until_ns, LANDING_WINDOW.as_nanos() as u64);
        let site = |site: Option<u16>| {
            let name = site.and_then(|site| log.site_name(site))?;
            stage.sites.iter().find(|s| *s == name).map(String::as_str)
        };
        stage.plan.vantages.iter().zip(landings).map(|(v, l)| (v.name.as_str(), site(l.site))).collect()
    });
    judge::Outcome {
        label: &stage.setup.scenario.steps[played.step].label,
        site: played.site.as_deref(),
        median_ms: fault.median_ms,
        worst_ms: effects.iter().map(|e| ms(e.outage_ns)).reduce(f64::max),
        unrecovered: fault.unrecovered.len(),
        open: effects.iter().filter(|e| e.open).count(),
        lost: fault.lost,
        sessions: None,
        control: None,
        landings: landings.collect(),
    }
}

fn phase(stage: &Stage, log: &Log, played: &Played) -> Phase {
    let step = &stage.setup.scenario.steps[played.step];
    let catchments = stage.setup.service.addresses.iter().enumerate().map(|(index, &address)| {
        let landings = log.landings(index, played.until_ns, LANDING_WINDOW.as_nanos() as u64);
        let catchment = stage.plan.vantages.iter().zip(landings).map(|(vantage, landing)| {
            let path = |paths: &BTreeMap<Asn, Vec<Asn>>| paths.get(&vantage.asn).cloned();
            let entry = Landing {
                site: landing.site.and_then(|site| log.site_name(site)).map(str::to_string),
                rtt_ms: landing.rtt_ns.map(|ns| ms(ns.into())),
                as_path: played.paths.get(&address).and_then(path).unwrap_or_default(),
            };
            (vantage.name.clone(), entry)
        });
        (address, Catchment(catchment.collect()))
    });
    Phase {
        label: step.label.clone(),
        action: action_name(&step.action).to_string(),
        site: played.site.clone(),
        at_ms: stage.ms(played.at_ns),
        duration_ms: ms(played.until_ns - played.at_ns),
        catchments: catchments.collect(),
    }
}

fn quality(log: &Log, every: Duration) -> ProbeQuality {
    let quality = log.quality();
    ProbeQuality {
        every_ms: every.as_secs_f64() * 1000.0,
        sent: quality.sent,
        answered: log.answered(),
        late_p99_ms: ms(quality.late_p99_ns),
        late_max_ms: ms(quality.late_max_ns),
        stalls: quality.stalls,
        dropped: quality.dropped,
    }
}

fn timeline(stage: &Stage, log: &Log) -> Timeline {
    let (Some(first), Some(last)) = (stage.played.first(), stage.played.last()) else {
        return Timeline::default();
    };
    let site = |site: u16| {
        let name = log.site_name(site)?;
        stage.sites.iter().position(|s| s == name).and_then(|index| i32::try_from(index).ok())
    };
    let lanes = log.timeline(0, first.at_ns..last.until_ns, BUCKET.as_nanos() as u64, site);
    Timeline {
        start_ms: stage.ms(first.at_ns),
        bucket_ms: BUCKET.as_secs_f64() * 1000.0,
        lanes: stage.plan.vantages.iter().map(|v| v.name.clone()).zip(lanes).collect(),
    }
}
