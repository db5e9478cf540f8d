//! A synthetic report with everything in it: the quickstart as it might have gone.

use std::collections::{BTreeMap, BTreeSet};

use ubique_model::catchment::{Catchment, Landing};
use ubique_model::location::Location;
use ubique_model::{Asn, Relation};

use super::*;
use crate::explain::Reason;
use ubique_model::traffic::How;

const SITES: [(&str, &str, f64, f64); 6] = [
    ("nyc", "New York, US", 40.71, -74.01),
    ("lon", "London, GB", 51.51, -0.13),
    ("tyo", "Tokyo, JP", 35.69, 139.69),
    ("sin", "Singapore, SG", 1.29, 103.85),
    ("sao", "São Paulo, BR", -23.55, -46.64),
    ("bom", "Mumbai, IN", 19.07, 72.88),
];

const VANTAGES: [(&str, u32, f64, f64); 16] = [
    ("New York", 64701, 40.71, -74.01),
    ("Los Angeles", 64702, 34.05, -118.24),
    ("Toronto", 64703, 43.7, -79.42),
    ("São Paulo", 64704, -23.55, -46.64),
    ("Buenos Aires", 64705, -34.61, -58.38),
    ("London", 64706, 51.51, -0.13),
    ("Frankfurt", 64707, 50.11, 8.68),
    ("Lagos", 64708, 6.45, 3.39),
    ("Johannesburg", 64709, -26.2, 28.04),
    ("Dubai", 64710, 25.07, 55.17),
    ("Singapore", 64711, 1.29, 103.85),
    ("Tokyo", 64712, 35.69, 139.69),
    ("Sydney", 64713, -33.87, 151.21),
    ("Delhi", 64714, 28.65, 77.23),
    ("Mumbai", 64715, 19.07, 72.88),
    ("Seoul", 64716, 37.57, 126.98),
];

/// (label, action, site, start, length, unreachable site, longest outage of those on it); all times ms.
type Step = (&'static str, &'static str, Option<&'static str>, f64, f64, Option<&'static str>, f64);

const STEPS: [Step; 8] = [
    ("converge", "converge", None, 0.0, 3400.0, None, 0.0),
    ("who-lands-where", "wait", None, 3400.0, 1000.0, None, 0.0),
    ("kill", "kill-service", Some("lon"), 4400.0, 2000.0, Some("lon"), 15.0),
    ("restart", "start-service", Some("lon"), 6400.0, 3000.0, None, 0.0),
    ("drain", "drain", Some("nyc"), 9400.0, 2000.0, Some("nyc"), 0.0),
    ("undrain", "undrain", Some("nyc"), 11400.0, 2000.0, None, 0.0),
    ("freeze", "freeze-site", Some("tyo"), 13400.0, 12000.0, Some("tyo"), 9100.0),
    ("thaw", "thaw-site", Some("tyo"), 25400.0, 4000.0, None, 0.0),
];

fn location((name, lat, lon): (&str, f64, f64)) -> Location {
    Location { name: name.into(), latitude: lat, longitude: lon }
}

fn km(vantage: usize, site: usize) -> f64 {
    let (v, s) = (VANTAGES[vantage], SITES[site]);
    location((v.0, v.2, v.3)).distance_km(&location((s.0, s.2, s.3)))
}

/// The site a vantage point lands on: the nearest that is up, but Mumbai goes to Singapore.
fn landing_site(vantage: usize, down: Option<&str>) -> usize {
    let up = |site: &usize| Some(SITES[*site].0) != down;
    if VANTAGES[vantage].0 == "Mumbai" && up(&3) {
        return 3;
    }
    (0..SITES.len()).filter(up).min_by(|a, b| km(vantage, *a).total_cmp(&km(vantage, *b))).expect("a site is up")
}

fn catchment(down: Option<&str>) -> Catchment {
    let landing = |vantage: usize| {
        let site = landing_site(vantage, down);
        let transit = [64611, 64613, 64617, 64616, 64612, 64615][site];
        let as_path = vec![Asn(transit), Asn(64500)];
        Landing {
            site: Some(SITES[site].0.into()),
            rtt_ms: Some(ms(300_000 + (km(vantage, site) * 14_000.0) as u64)),
            as_path,
        }
    };
    Catchment((0..VANTAGES.len()).map(|v| (VANTAGES[v].0.into(), landing(v))).collect())
}

/// How long a vantage point on the faulty site is cut off in a step.
fn outage_ms(vantage: usize, step: &Step) -> f64 {
    let share = [0.4, 0.7, 1.0][vantage % 3];
    ((step.6 * share) / 5.0).round() * 5.0
}

fn fault(step: &Step) -> Fault {
    let site = step.2.expect("a fault has a site");
    let on_site: BTreeSet<usize> = (0..VANTAGES.len()).filter(|v| SITES[landing_site(*v, None)].0 == site).collect();
    let name = |v: usize| VANTAGES[v].0.to_owned();
    let outage: BTreeMap<String, f64> = on_site.iter().map(|v| (name(*v), outage_ms(*v, step))).collect();
    let mut sorted: Vec<f64> = outage.values().copied().collect();
    sorted.sort_by(f64::total_cmp);
    Fault {
        label: step.0.into(),
        kind: step.1.into(),
        site: site.into(),
        at_ms: step.3,
        moved_ms: BTreeMap::new(),
        median_ms: Some(sorted[sorted.len() / 2]),
        worst_ms: sorted.last().copied(),
        lost: outage.values().map(|ms| (ms / 5.0) as u64).sum(),
        unrecovered: vec![],
        moved_to: on_site.iter().map(|v| (name(*v), Some(SITES[landing_site(*v, step.5)].0.into()))).collect(),
        doubtful: if step.0 == "freeze" { vec!["Seoul".into()] } else { vec![] },
        outage_ms: outage,
    }
}

fn lane(vantage: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for step in &STEPS {
        let buckets = (step.4 / 50.0) as u32;
        let home = landing_site(vantage, None);
        let outage = if Some(SITES[home].0) == step.5 { outage_ms(vantage, step) } else { 0.0 };
        let lost = if step.0 == "converge" { 20 + vantage as u32 } else { (outage / 50.0).ceil() as u32 };
        for (value, count) in [(LOST, lost), (landing_site(vantage, step.5) as i32, buckets - lost)] {
            match runs.last_mut() {
                Some(run) if run.0 == value => run.1 += count,
                _ if count > 0 => runs.push(Run(value, count)),
                _ => {}
            }
        }
    }
    runs
}

fn events() -> Vec<Event> {
    let event = |at_ms, kind, text: &str| Event { at_ms, text: text.into(), kind };
    vec![
        event(412.0, EventKind::Routing, "62 of 62 BGP sessions are established"),
        event(3391.2, EventKind::Routing, "routing is quiet, every vantage point is answered"),
        event(4400.0, EventKind::Action, "kill-service lon: SIGKILL to 1 process"),
        event(
            4400.9,
            EventKind::Agent,
            "lon: service address 198.51.100.53:53 lost its socket; withdrawn from 2 upstreams",
        ),
        event(4415.0, EventKind::Clients, "London, Frankfurt, Lagos moved from lon to nyc"),
        event(6400.0, EventKind::Action, "start-service lon"),
        event(9400.0, EventKind::Action, "drain nyc"),
        event(13400.0, EventKind::Action, "freeze-site tyo: SIGSTOP to 2 processes"),
        event(16100.0, EventKind::Warning, "the prober stood still for 12 ms"),
        event(22420.0, EventKind::Routing, "AS64617: hold timer of tyo expired"),
    ]
}

fn surprise() -> Surprise {
    Surprise {
        vantage: "Mumbai".into(),
        site: "sin".into(),
        rtt_ms: Some(61.2),
        km: 3907.0,
        nearest_site: "bom".into(),
        nearest_km: 3.0,
        nearest_rtt_ms: 0.2,
        reason: Reason::Decision,
        decided_by: Some(Asn(64715)),
        chosen: vec![Asn(64616), Asn(64500)],
        rejected: vec![Asn(64621), Asn(64615), Asn(64500)],
        step: "AS path 2 < 3".into(),
        text: "Mumbai lands on sin (61 ms) although bom is 3 km away: AS64715 chose [AS64616 AS64500] over \
               [AS64621 AS64615 AS64500]: AS path 2 < 3"
            .into(),
    }
}

fn phase(step: &Step) -> Phase {
    let catchments =
        ["198.51.100.53", "2001:db8:53::53"].map(|address| (address.parse().expect("an address"), catchment(step.5)));
    Phase {
        label: step.0.into(),
        action: step.1.into(),
        site: step.2.map(Into::into),
        at_ms: step.3,
        duration_ms: step.4,
        catchments: catchments.into(),
    }
}

fn vantage(v: usize) -> VantageInfo {
    let nearest = (0..SITES.len()).min_by(|a, b| km(v, *a).total_cmp(&km(v, *b))).expect("sites");
    let (name, asn, lat, lon) = VANTAGES[v];
    VantageInfo {
        name: name.into(),
        asn: Asn(asn),
        lat,
        lon,
        nearest_site: SITES[nearest].0.into(),
        nearest_km: km(v, nearest).round(),
    }
}

fn networks() -> Vec<NetworkInfo> {
    let transits = [
        (64611, "Northeast Transit", 40.71, -74.01),
        (64612, "Rio Prata Transit", -23.55, -46.64),
        (64613, "Europa Transit", 51.51, -0.13),
        (64615, "Bharat Transit", 19.07, 72.88),
        (64616, "Straits Transit", 1.29, 103.85),
        (64617, "Nippon Transit", 35.69, 139.69),
    ];
    let access = VANTAGES.iter().map(|v| (v.1, "Access network", v.2, v.3));
    let all = transits.into_iter().chain(access);
    all.map(|(asn, name, lat, lon)| NetworkInfo { asn: Asn(asn), name: name.into(), lat, lon }).collect()
}

fn expectations() -> Vec<Expectation> {
    let expectation = |step: &str, what: &str, expected: &str, actual: &str, ok| Expectation {
        step: step.into(),
        what: what.into(),
        expected: expected.into(),
        actual: actual.into(),
        ok,
    };
    vec![
        expectation("kill", "outage-median", "at most 150 ms", "10.0 ms", true),
        expectation("drain", "lost", "at most 0", "0", true),
        expectation("freeze", "outage-worst", "at most 9 s", "9.10 s", false),
    ]
}

/// Two kinds from two vantage points; from the second one so many of each were lost.
fn sessions(how: How, lost: u64) -> SessionsReport {
    let figures = |lost| {
        let how = if lost > 0 { BTreeMap::from([(how, lost)]) } else { BTreeMap::new() };
        let sites = BTreeMap::from([("lon".to_owned(), 8)]);
        SessionFigures { sessions: 8, done: 2, lost, how, longest_wait_ms: 81.5, content_bytes: 1_000_000, sites }
    };
    let pairs = ["London", "Johannesburg"].into_iter().flat_map(|v| [(v, "tcp"), (v, "tcp-short")]);
    let row = |(vantage, kind): (&str, &str)| {
        let figures = figures(if vantage == "London" { 0 } else { lost });
        SessionRow { vantage: vantage.into(), kind: kind.into(), figures }
    };
    let step = |step: &Step| SessionStep {
        label: step.0.into(),
        figures: figures(if step.0 == "kill" { 2 * lost } else { 0 }),
    };
    let plane = |site: &str| {
        let troubles = vec!["cookies: an old kernel".to_owned()];
        DataPlaneInfo { site: site.into(), state: "native".into(), tcp: "timestamp".into(), troubles }
    };
    SessionsReport {
        data_plane: SITES.iter().map(|site| plane(site.0)).collect(),
        rows: pairs.map(row).collect(),
        total: SessionFigures { sessions: 32, ..figures(2 * lost) },
        steps: STEPS.iter().skip(1).map(step).collect(),
    }
}

/// The report.
pub(super) fn report() -> Report {
    let transit = LinkInfo { a: Asn(64611), b: Some(Asn(64701)), site: None, relation: Relation::Customer, ixp: None };
    let site_link = LinkInfo { b: None, site: Some("nyc".into()), ..transit.clone() };
    Report {
        schema_version: SCHEMA_VERSION,
        ubique_version: "0.1.0".into(),
        service: ServiceInfo {
            name: "quickstart".into(),
            asn: Asn(64500),
            prefixes: ["198.51.100.0/24", "2001:db8:53::/48"].map(|p| p.parse().expect("a prefix")).into(),
            addresses: ["198.51.100.53", "2001:db8:53::53"].map(|a| a.parse().expect("an address")).into(),
        },
        scenario: "quickstart".into(),
        internet: "quickstart".into(),
        routers: "embedded".into(),
        started: "2026-03-01T12:00:00Z".into(),
        duration_ms: 29400.0,
        convergence_ms: Some(3391.2),
        sites: SITES
            .map(|(name, place, lat, lon)| SiteInfo { name: name.into(), location: place.into(), lat, lon })
            .into(),
        vantage_points: (0..VANTAGES.len()).map(vantage).collect(),
        networks: networks(),
        links: vec![transit, site_link],
        phases: STEPS.iter().map(phase).collect(),
        faults: STEPS.iter().filter(|s| s.5.is_some()).map(fault).collect(),
        events: events(),
        surprises: vec![surprise()],
        expectations: expectations(),
        sessions: Some(sessions(How::Timeout, 0)),
        control: Some(SessionsReport { data_plane: vec![], ..sessions(How::Reset, 3) }),
        agents: vec![AgentCost { site: "lon".into(), resident_mib: 5.7, cpu_percent: 0.3 }],
        verdict: Verdict { ok: false, failed: vec!["freeze: outage-worst should be at most 9 s, is 9.10 s".into()] },
        probe: ProbeQuality {
            every_ms: 5.0,
            sent: 112_896,
            answered: 103_220,
            late_p99_ms: 0.21,
            late_max_ms: 12.3,
            stalls: 1,
            dropped: 0,
        },
        timeline: Timeline {
            start_ms: 0.0,
            bucket_ms: 50.0,
            lanes: (0..VANTAGES.len()).map(|v| (VANTAGES[v].0.into(), lane(v))).collect(),
        },
    }
}
