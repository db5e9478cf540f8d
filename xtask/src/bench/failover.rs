//! Client-side gap of one failing site, behind BIRD 2 and FRR: ubique beside other agents, each tuned as far as its own
//! documentation allows (`super::peers`).
//!
//! Lab: client – router – sites a and b (bench/failover*.toml). The client asks every ms, so a gap is known to 1 ms.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::peers::peers;
use super::{Row, json_of, release_binary};
use crate::command::{self, root};

/// Resolution of a gap, ms: the interval between two queries.
pub(super) const RESOLUTION_MS: f64 = 1.0;

/// One kind of fault: what does it, what undoes it, how long each is observed.
pub(super) struct Kind {
    pub name: &'static str,
    pub fault: &'static str,
    pub undo: &'static str,
    pub fault_for: &'static str,
    pub undo_for: &'static str,
}

/// What faults happen to.
pub(super) struct Lab<'a> {
    /// Another agent than ubique, below the root of the workspace, with a last argument of its own.
    pub agent: Option<(&'a str, &'a str)>,
    /// `bfd` of every upstream.
    pub bfd: Option<&'a str>,
    /// `--routers`.
    pub routers: &'a str,
    /// How long to wait after convergence.
    pub settle: &'a str,
}

const KILL: Kind = Kind {
    name: "service killed",
    fault: "kill-service",
    undo: "start-service",
    fault_for: "800ms",
    undo_for: "1200ms",
};
const HANG: Kind =
    Kind { name: "service hangs", fault: "hang-service", undo: "resume-service", fault_for: "1s", undo_for: "1200ms" };
const AGENT_KILL: Kind =
    Kind { name: "agent killed", fault: "kill-agent", undo: "start-agent", fault_for: "500ms", undo_for: "2s" };
const AGENT_STOP: Kind = Kind {
    name: "agent stopped (SIGTERM)",
    fault: "stop-agent",
    undo: "start-agent",
    fault_for: "1200ms",
    undo_for: "2s",
};

/// Goals of the median and the worst gap, ms.
type Goals = (f64, f64);
/// The service lives on: whoever is sent elsewhere must not notice.
const NO_GAP: Goals = (0.0, 0.0);

/// Gaps and losses of one kind of fault.
#[derive(Default)]
pub(super) struct Gaps {
    pub outage_ms: Vec<f64>,
    moved_ms: Vec<f64>,
    lost: Vec<f64>,
    /// Gaps that lasted longer than the observation.
    open: usize,
    /// Queries lost while the fault was undone.
    lost_back: Vec<f64>,
}

/// A lab without BFD.
fn lab<'a>(agent: Option<(&'a str, &'a str)>, routers: &'a str) -> Lab<'a> {
    Lab { agent, bfd: None, routers, settle: "0s" }
}

/// All rows.
pub fn run(repeat: usize) -> Result<Vec<Row>, String> {
    let binary = release_binary()?;
    let few = repeat.div_ceil(4);
    let times = [(&KILL, repeat), (&HANG, repeat), (&AGENT_KILL, few), (&AGENT_STOP, few)];
    let goals = [(5.0, 30.0), (150.0, 150.0), NO_GAP, NO_GAP];
    let bird = play(&binary, &lab(None, "bird"), &times)?;
    let mut rows = Vec::new();
    for (((kind, times), goals), gaps) in times.into_iter().zip(goals).zip(&bird) {
        expect(kind, gaps, times)?;
        rows.extend(own_rows(kind, goals, gaps));
    }
    for peer in peers()? {
        let times = [(&KILL_SLOW, repeat), (&HANG_SLOW, repeat)];
        let gaps = play(&binary, &lab(Some((peer.agent.as_str(), peer.venv.as_str())), "bird"), &times)?;
        for (((kind, times), ours), theirs) in times.into_iter().zip(&bird).zip(&gaps) {
            // What it did not do well is its result, too.
            if let Err(error) = expect(kind, theirs, times) {
                eprintln!("failover: {}: {error}", peer.name);
            }
            rows.extend(beside(kind, &peer.name, ours, theirs));
        }
    }
    if command::installed("/usr/lib/frr/bgpd") {
        let frr = play(&binary, &lab(None, "frr"), &[(&KILL, repeat), (&AGENT_STOP, few)])?;
        let batching = median(&frr[1].moved_ms);
        rows.push(Row::new("FRR: administrative withdrawal, moved after (its batching)", batching, "ms", None));
        let gap = |what, value, goal| Row::new(format!("FRR: service killed, gap, {what}"), value, "ms", goal);
        rows.push(gap("median", median(&frr[0].outage_ms), Some(batching + 15.0)).within(RESOLUTION_MS));
        rows.push(gap("worst", worst(&frr[0].outage_ms), None).within(RESOLUTION_MS));
    }
    Ok(rows)
}

/// What ubique does behind BIRD, with its goals.
fn own_rows(kind: &Kind, goals: Goals, gaps: &Gaps) -> Vec<Row> {
    let name = |what| format!("BIRD: {}, {what}", kind.name);
    let mut rows = vec![
        Row::new(name("gap, median"), median(&gaps.outage_ms), "ms", Some(goals.0)).within(RESOLUTION_MS),
        Row::new(name("gap, worst"), worst(&gaps.outage_ms), "ms", Some(goals.1)).within(RESOLUTION_MS),
    ];
    if goals == NO_GAP {
        rows.push(Row::new(name("moved after"), median(&gaps.moved_ms), "ms", Some(10.0)));
        rows.push(Row::new(name("queries lost"), gaps.lost.iter().sum(), "", Some(0.0)));
    }
    rows.push(Row::new(name("queries lost when it is back"), gaps.lost_back.iter().sum(), "", Some(0.0)));
    rows
}

/// Our gaps beside a peer's.
fn beside(kind: &Kind, peer: &str, ours: &Gaps, theirs: &Gaps) -> [Row; 2] {
    let row = |what, figure: fn(&[f64]) -> f64| {
        let name = format!("{}, gap, {what}: beside {peer}", kind.name);
        Row::new(name, figure(&ours.outage_ms), "ms", None).beside(figure(&theirs.outage_ms), RESOLUTION_MS)
    };
    [row("median", median), row("worst", worst)]
}

/// A fault that moved nobody was no fault, and a gap that was still open is longer than what was seen of it.
pub(super) fn expect(kind: &Kind, gaps: &Gaps, wanted: usize) -> Result<(), String> {
    let (found, back) = (gaps.outage_ms.len(), gaps.lost_back.len());
    match gaps.open {
        0 if found == wanted && back == wanted => Ok(()),
        open => Err(format!("{}: {found} of {wanted} gaps and {back} returns seen, {open} did not end", kind.name)),
    }
}

/// The same faults with the patience other agents need.
const KILL_SLOW: Kind = Kind { fault_for: "2s", undo_for: "3s", ..KILL };
const HANG_SLOW: Kind = Kind { fault_for: "2s", undo_for: "3s", ..HANG };

/// Plays the faults and returns their gaps, in the order of `kinds`.
pub(super) fn play(binary: &PathBuf, lab: &Lab<'_>, kinds: &[(&Kind, usize)]) -> Result<Vec<Gaps>, String> {
    let directory = root().join("target/bench");
    fs::create_dir_all(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    let scenario = directory.join("failover-scenario.toml");
    write_scenario(&scenario, kinds, lab.settle)?;
    let mut service = fs::read_to_string(root().join("bench/failover.toml")).map_err(|e| e.to_string())?;
    if let Some(bfd) = lab.bfd {
        service = service.replace("relation = \"transit\"", &format!("relation = \"transit\"\nbfd = {bfd}"));
    }
    if let Some((agent, argument)) = lab.agent {
        let agent = root().join(agent);
        let placeholders = "\"{site}\", \"{asn}\", \"{address}\", \"{upstream-asn}\", \"{upstream}\", \"{local}\"";
        let argument = if argument.is_empty() { String::new() } else { format!(", {argument:?}") };
        let agent = agent.display().to_string();
        let _ = write!(service, "\n[rehearse]\nagent = [{agent:?}, {placeholders}{argument}]\n");
    }
    let file = directory.join("failover.toml");
    fs::write(&file, service).map_err(|e| e.to_string())?;
    let (file, scenario) = (file.display().to_string(), scenario.display().to_string());
    let arguments = ["rehearse", &file, "--scenario", &scenario, "--routers", lab.routers, "--output", "json"];
    let report = json_of(binary, &arguments)?;
    Ok(kinds.iter().map(|(kind, _)| gaps(&report, kind)).collect())
}

fn gaps(report: &Value, kind: &Kind) -> Gaps {
    let list = |key: &str| report[key].as_array().into_iter().flatten();
    let mut gaps = Gaps::default();
    for fault in list("faults").filter(|f| f["kind"] == kind.fault) {
        gaps.outage_ms.extend(fault["outage_ms"].as_object().into_iter().flatten().filter_map(|(_, v)| v.as_f64()));
        gaps.moved_ms.extend(fault["moved_ms"].as_object().into_iter().flatten().filter_map(|(_, v)| v.as_f64()));
        gaps.lost.extend(fault["lost"].as_f64());
        gaps.open += fault["unrecovered"].as_array().map_or(0, Vec::len);
    }
    let undone = |e: &&Value| e["step"].as_str().is_some_and(|step| step.starts_with(&undo_label(kind)));
    gaps.lost_back = list("expectations").filter(undone).filter_map(|e| e["actual"].as_str()?.parse().ok()).collect();
    gaps
}

/// What the labels of the steps begin with that undo a fault: what they expect tells of the queries lost.
fn undo_label(kind: &Kind) -> String {
    format!("after-{}-", kind.fault)
}

fn write_scenario(file: &Path, kinds: &[(&Kind, usize)], settle: &str) -> Result<(), String> {
    let internet = root().join("bench/failover-internet.toml");
    let mut text = format!(
        "name = \"failover\"\ninternet = {:?}\nquery-every = \"{RESOLUTION_MS}ms\"\n\n\
         [[step]]\naction = \"converge\"\nwithin = \"60s\"\n\n\
         [[step]]\naction = \"wait\"\nfor = \"{settle}\"\n",
        internet.display().to_string()
    );
    for (kind, times) in kinds {
        let step = |action, time| format!("\n[[step]]\naction = \"{action}\"\nsite = \"a\"\nfor = \"{time}\"\n");
        for number in 0..*times {
            text += &step(kind.fault, kind.fault_for);
            text += &step(kind.undo, kind.undo_for);
            let _ = writeln!(text, "label = \"{}{number}\"\nexpect = {{ lost = 0 }}", undo_label(kind));
        }
    }
    fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

pub(super) fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}
