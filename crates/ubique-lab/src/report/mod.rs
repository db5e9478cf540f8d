//! The result of a rehearsal: one serialisable value, and its renderings.
//!
//! [`Report`] is the public JSON of `ubique rehearse --output json`, documented in `docs/rehearse-json.md`: fields are
//! added, never renamed or removed, without a new [`SCHEMA_VERSION`]. Everything shown on a terminal ([`text()`],
//! [`live`]) or in a browser ([`html()`]) comes from this value, so that the pictures cannot disagree with the data.
//!
//! Deliberately absent: measuring (see [`crate::measure`]), files, clocks, terminals.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use ubique_model::catchment::Catchment;
use ubique_model::{Asn, Prefix, Relation};

pub use crate::explain::Surprise;

mod geo;
mod html;
pub mod live;
mod paint;
mod sessions;
mod text;

pub use html::html;
pub use sessions::{DataPlaneInfo, SessionFigures, SessionRow, SessionStep, SessionsReport};
pub use text::text;

/// Version of the JSON form of [`Report`].
pub const SCHEMA_VERSION: u32 = 1;

/// Everything a rehearsal found out. Times `*_ms` of moments count from `started`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Version of ubique that made it.
    pub ubique_version: String,
    /// The service rehearsed.
    pub service: ServiceInfo,
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the emulated Internet.
    pub internet: String,
    /// What routed: `embedded`, `bird` or `frr`.
    pub routers: String,
    /// When the rehearsal started, UTC, RFC 3339.
    pub started: String,
    /// How long it took, ms.
    pub duration_ms: f64,
    /// Time from the start of the routers until every vantage point was answered and routing was quiet; `None`: never.
    pub convergence_ms: Option<f64>,
    /// The sites, in the order of the service file; timelines refer to them by index.
    pub sites: Vec<SiteInfo>,
    /// The vantage points.
    pub vantage_points: Vec<VantageInfo>,
    /// The networks of the emulated Internet.
    pub networks: Vec<NetworkInfo>,
    /// Links between networks, and between sites and their upstreams.
    pub links: Vec<LinkInfo>,
    /// The steps of the scenario, in order, each with the catchments at its end.
    pub phases: Vec<Phase>,
    /// What each fault did to clients.
    pub faults: Vec<Fault>,
    /// What happened when, in time order.
    pub events: Vec<Event>,
    /// Vantage points that land on another site than the nearest, and why.
    pub surprises: Vec<Surprise>,
    /// What the scenario demanded and what came out.
    pub expectations: Vec<Expectation>,
    /// The verdict.
    pub verdict: Verdict,
    /// What the agents that ran all the time cost.
    #[serde(default)]
    pub agents: Vec<AgentCost>,
    /// What became of sessions; absent: the scenario has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<SessionsReport>,
    /// The same of the control run: the same scenario without the data plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<SessionsReport>,
    /// How good the measurement itself was.
    pub probe: ProbeQuality,
    /// Who answered each vantage point when, for the first service address.
    pub timeline: Timeline,
}

/// The service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// Its name.
    pub name: String,
    /// Origin AS.
    pub asn: Asn,
    /// Prefixes announced.
    pub prefixes: Vec<Prefix>,
    /// Addresses clients asked.
    pub addresses: Vec<IpAddr>,
}

/// A site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteInfo {
    /// Its name.
    pub name: String,
    /// Its place.
    pub location: String,
    /// Degrees north.
    pub lat: f64,
    /// Degrees east.
    pub lon: f64,
}

/// A vantage point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VantageInfo {
    /// Its name.
    pub name: String,
    /// Its network.
    pub asn: Asn,
    /// Degrees north.
    pub lat: f64,
    /// Degrees east.
    pub lon: f64,
    /// The site nearest by great circle.
    pub nearest_site: String,
    /// Its distance, km.
    pub nearest_km: f64,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// Its AS number.
    pub asn: Asn,
    /// Its name.
    pub name: String,
    /// Degrees north.
    pub lat: f64,
    /// Degrees east.
    pub lon: f64,
}

/// A link. One end is a network, the other a network or a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// One end.
    pub a: Asn,
    /// The other end, unless it is a site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b: Option<Asn>,
    /// The site at the other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// What the other end is to `a`.
    pub relation: Relation,
    /// The exchange point it crosses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ixp: Option<String>,
}

/// A step of the scenario and the state at its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Unique label.
    pub label: String,
    /// What was done, as the scenario file calls it: `kill-service`.
    pub action: String,
    /// To which site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// When.
    pub at_ms: f64,
    /// How long it was observed.
    pub duration_ms: f64,
    /// Service address → vantage point → landing, at the end of the phase.
    pub catchments: BTreeMap<IpAddr, Catchment>,
}

/// What one fault did to clients, for the first service address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Label of its phase.
    pub label: String,
    /// The action: `kill-service`, `drain`, …
    pub kind: String,
    /// The site hit.
    pub site: String,
    /// When.
    pub at_ms: f64,
    /// Vantage point → outage, ms, for each that landed on the site (0: nothing lost).
    pub outage_ms: BTreeMap<String, f64>,
    /// Vantage point → time until another site's first answer arrived, ms, for each that landed on the site and moved.
    #[serde(default)]
    pub moved_ms: BTreeMap<String, f64>,
    /// Median over them; `None`: nobody landed there.
    pub median_ms: Option<f64>,
    /// The longest.
    pub worst_ms: Option<f64>,
    /// Queries of all vantage points that were not answered.
    pub lost: u64,
    /// Vantage points of the site that were not answered again while the fault was observed.
    pub unrecovered: Vec<String>,
    /// Vantage point → site at the end, for each whose site changed; `null`: nobody answers.
    pub moved_to: BTreeMap<String, Option<String>>,
    /// Vantage points whose numbers are doubtful because the prober itself was late just then.
    pub doubtful: Vec<String>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at_ms: f64,
    /// In words.
    pub text: String,
    /// What sort.
    pub kind: EventKind,
}

/// Sorts of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The scenario did something.
    Action,
    /// An agent changed state.
    Agent,
    /// Routing converged or a session changed.
    Routing,
    /// Clients noticed.
    Clients,
    /// Something worth a look.
    Warning,
}

/// One expectation and its outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// Label of its step.
    pub step: String,
    /// What is measured: `outage-worst`.
    pub what: String,
    /// What was demanded.
    pub expected: String,
    /// What came out.
    pub actual: String,
    /// Whether it holds.
    pub ok: bool,
}

/// The verdict.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// Every expectation holds and nothing went wrong.
    pub ok: bool,
    /// What failed, in words.
    pub failed: Vec<String>,
}

/// What the agent of a site cost, its watchdog included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentCost {
    /// The site.
    pub site: String,
    /// Resident memory at the end, MiB.
    pub resident_mib: f64,
    /// Share of one processor from the convergence to the end, percent.
    pub cpu_percent: f64,
}

/// How good the measurement was.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct ProbeQuality {
    /// Interval between two queries of a vantage point to the first address, ms: the resolution of outages.
    pub every_ms: f64,
    /// Queries sent.
    pub sent: u64,
    /// Queries answered.
    pub answered: u64,
    /// 99th percentile of how late the prober sent, ms.
    pub late_p99_ms: f64,
    /// The latest it ever was, ms.
    pub late_max_ms: f64,
    /// How often it was so late that an outage could be an artefact.
    pub stalls: u64,
    /// Records that did not reach the lab.
    pub dropped: u64,
}

/// Who answered when: one lane for each vantage point, cut in buckets.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Timeline {
    /// Start of the first bucket.
    pub start_ms: f64,
    /// Length of a bucket.
    pub bucket_ms: f64,
    /// Vantage point → runs of equal buckets.
    pub lanes: BTreeMap<String, Vec<Run>>,
}

/// Nanoseconds as milliseconds with at most three decimals: finer is noise, and it survives the way through JSON.
pub fn ms(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1000.0
}

/// Bucket value: at least one query of the bucket was not answered.
pub const LOST: i32 = -1;
/// Bucket value: no query was sent.
pub const IDLE: i32 = -2;

/// A run of equal buckets: (value, count); value is an index in [`Report::sites`], [`LOST`] or [`IDLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run(pub i32, pub u32);

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
