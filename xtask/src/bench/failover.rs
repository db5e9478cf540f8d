//! Client-side gap of one failing site: ubique beside ExaBGP 4 (tuned), behind BIRD 2 and FRR.
//!
//! Lab: client – router – sites a and b (bench/failover*.toml). The client asks every 5 ms, so a gap is known to 5 ms.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Row, json_of, release_binary};
use crate::command::{self, root};

/// Resolution of a gap, ms: the interval between two queries.
pub(super) const RESOLUTION_MS: f64 = 5.0;

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

/// Gaps and losses of one kind of fault.
#[derive(Default)]
pub(super) struct Gaps {
    pub outage_ms: Vec<f64>,
    moved_ms: Vec<f64>,
    lost: Vec<f64>,
}

/// All rows.
pub fn run(repeat: usize) -> Result<Vec<Row>, String> {
    let binary = release_binary()?;
    let few = repeat.div_ceil(4);
    let mut rows = Vec::new();
    fn lab<'a>(agent: Option<(&'a str, &'a str)>, routers: &'a str) -> Lab<'a> {
        Lab { agent, bfd: None, routers, settle: "0s" }
    }
    let ubique = |kinds: &[(&Kind, usize)], routers: &str| play(&binary, &lab(None, routers), kinds);
    let bird = ubique(&[(&KILL, repeat), (&HANG, repeat), (&AGENT_KILL, few), (&AGENT_STOP, few)], "bird")?;
    let peer = if command::installed("exabgp") {
        let agent = Some(("bench/exabgp-site", ""));
        Some(play(&binary, &lab(agent, "bird"), &[(&KILL_SLOW, repeat), (&HANG_SLOW, few)])?)
    } else {
        eprintln!("failover: exabgp is not installed; no peer");
        None
    };
    for (index, (kind, goals)) in [
        (&KILL, (Some(10.0), Some(30.0))),
        (&HANG, (Some(150.0), None)),
        (&AGENT_KILL, (Some(10.0), None)),
        (&AGENT_STOP, (Some(10.0), None)),
    ]
    .into_iter()
    .enumerate()
    {
        let gaps = &bird[index];
        let peer = peer.as_ref().and_then(|p| p.get(index));
        let gap = Row::new(format!("BIRD: {}, gap, median", kind.name), median(&gaps.outage_ms), "ms", goals.0);
        rows.push(match peer {
            Some(peer) => gap.beside(median(&peer.outage_ms), RESOLUTION_MS),
            None => gap,
        });
        let worst = Row::new(format!("BIRD: {}, gap, worst", kind.name), worst(&gaps.outage_ms), "ms", goals.1);
        rows.push(match peer {
            Some(peer) => worst.beside(self::worst(&peer.outage_ms), RESOLUTION_MS),
            None => worst,
        });
        if index >= 2 {
            let moved = median(&gaps.moved_ms);
            rows.push(Row::new(format!("BIRD: {}, moved after", kind.name), moved, "ms", Some(10.0)));
            let lost = gaps.lost.iter().sum();
            rows.push(Row::new(format!("BIRD: {}, queries lost", kind.name), lost, "", Some(0.0)));
        }
    }
    if command::installed("/usr/lib/frr/bgpd") {
        let frr = ubique(&[(&KILL, repeat), (&AGENT_STOP, few)], "frr")?;
        let batching = median(&frr[1].moved_ms);
        rows.push(Row::new("FRR: administrative withdrawal, moved after (its batching)", batching, "ms", None));
        let gap = median(&frr[0].outage_ms);
        rows.push(Row::new("FRR: service killed, gap, median", gap, "ms", Some(batching + 15.0)));
        rows.push(Row::new("FRR: service killed, gap, worst", worst(&frr[0].outage_ms), "ms", None));
    }
    Ok(rows)
}

/// The same faults with the patience ExaBGP needs.
const KILL_SLOW: Kind = Kind { fault_for: "2s", undo_for: "3s", ..KILL };
const HANG_SLOW: Kind = Kind { fault_for: "5s", undo_for: "4s", ..HANG };

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
    let faults = report["faults"].as_array().ok_or("no faults in the report")?;
    Ok(kinds.iter().map(|(kind, _)| gaps(faults, kind.fault)).collect())
}

fn gaps(faults: &[Value], kind: &str) -> Gaps {
    let mut gaps = Gaps::default();
    for fault in faults.iter().filter(|f| f["kind"] == kind) {
        gaps.outage_ms.extend(fault["outage_ms"].as_object().into_iter().flatten().filter_map(|(_, v)| v.as_f64()));
        gaps.moved_ms.extend(fault["moved_ms"].as_object().into_iter().flatten().filter_map(|(_, v)| v.as_f64()));
        gaps.lost.extend(fault["lost"].as_f64());
    }
    gaps
}

fn write_scenario(file: &Path, kinds: &[(&Kind, usize)], settle: &str) -> Result<(), String> {
    let internet = root().join("bench/failover-internet.toml");
    let mut text = format!(
        "name = \"failover\"\ninternet = {:?}\nquery-every = \"5ms\"\n\n\
         [[step]]\naction = \"converge\"\nwithin = \"60s\"\n\n\
         [[step]]\naction = \"wait\"\nfor = \"{settle}\"\n",
        internet.display().to_string()
    );
    for (kind, times) in kinds {
        for _ in 0..*times {
            for (action, time) in [(kind.fault, kind.fault_for), (kind.undo, kind.undo_for)] {
                let _ = write!(text, "\n[[step]]\naction = \"{action}\"\nsite = \"a\"\nfor = \"{time}\"\n");
            }
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
