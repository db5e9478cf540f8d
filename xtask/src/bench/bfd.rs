//! Client-side gap when a site freezes or its link is cut without a word: BFD of ubique beside BFD of BIRD.
//!
//! The lab of `bench failover`. What notices is the upstream's BFD: the site is dead. What the site contributes is that
//! its packets were exactly as often as agreed, so the peer column is BIRD as the site, in the same run.

use std::process::{Child, Command, Stdio};

use super::failover::{Kind, Lab, RESOLUTION_MS, expect, median, play, worst};
use super::{Row, json_of, release_binary};
use crate::command;

const FREEZE: Kind =
    Kind { name: "site freezes", fault: "freeze-site", undo: "thaw-site", fault_for: "2s", undo_for: "7s" };
const CUT: Kind =
    Kind { name: "link is cut", fault: "cut-site", undo: "restore-site", fault_for: "2s", undo_for: "7s" };

/// Before the first fault, BFD must be up: it begins with a packet a second.
const SETTLE: &str = "5s";

/// 50 ms x 3 as ubique and BIRD spell it.
const FAST: (&str, &str) = ("{ interval = \"50ms\", multiplier = 3 }", "{ interval 50 ms; multiplier 3; }");
/// The defaults of each.
const DEFAULT: (&str, &str) = ("true", "on");

/// Gaps at 50 ms x 3 and at the defaults, behind BIRD and FRR.
pub fn run(repeat: usize) -> Result<Vec<Row>, String> {
    let binary = release_binary()?;
    let few = repeat.div_ceil(3);
    let mut rows = Vec::new();
    for (title, (ours, theirs), repeat, goals) in [
        ("BIRD, 50 ms x 3", FAST, repeat, (Some(130.0), Some(160.0))),
        ("BIRD, defaults", DEFAULT, few, (Some(500.0), None)),
    ] {
        let kinds = [(&FREEZE, repeat), (&CUT, repeat)];
        let lab = |agent, bfd| Lab { agent, bfd: Some(bfd), routers: "bird", settle: SETTLE };
        let gaps = play(&binary, &lab(None, ours), &kinds)?;
        let peer = play(&binary, &lab(Some(("bench/bird-site", theirs)), ours), &kinds)?;
        for ((kind, gaps), peer) in [&FREEZE, &CUT].into_iter().zip(&gaps).zip(&peer) {
            expect(kind, gaps, repeat)?;
            let name = |what| format!("{title}: {}, gap, {what}", kind.name);
            let row = Row::new(name("median"), median(&gaps.outage_ms), "ms", goals.0);
            rows.push(row.beside(median(&peer.outage_ms), RESOLUTION_MS));
            let row = Row::new(name("worst"), worst(&gaps.outage_ms), "ms", goals.1);
            rows.push(row.beside(worst(&peer.outage_ms), RESOLUTION_MS));
        }
    }
    if !command::installed("bfdd") {
        eprintln!("bfd: FRR is not installed; no rows for it");
        return Ok(rows);
    }
    for (title, bfd, repeat, goal) in
        [("FRR, 50 ms x 3", FAST.0, repeat, 220.0), ("FRR, defaults", DEFAULT.0, repeat, 900.0)]
    {
        let lab = Lab { agent: None, bfd: Some(bfd), routers: "frr", settle: SETTLE };
        let gaps = play(&binary, &lab, &[(&FREEZE, repeat), (&CUT, repeat)])?;
        for (kind, gaps) in [&FREEZE, &CUT].into_iter().zip(&gaps) {
            expect(kind, gaps, repeat)?;
            let name = |what| format!("{title}: {}, gap, {what}", kind.name);
            rows.push(Row::new(name("median"), median(&gaps.outage_ms), "ms", Some(goal)));
            rows.push(Row::new(name("worst"), worst(&gaps.outage_ms), "ms", None));
        }
    }
    Ok(rows)
}

/// Processes that keep the machine busy; ended by their id.
struct Load(Child);

impl Load {
    /// Both processors, disk and memory, in a session of their own, as other services on the machine would be.
    fn start() -> Result<Load, String> {
        let processors = std::thread::available_parallelism().map_or(2, usize::from).to_string();
        let mut command = Command::new("setsid");
        command.args(["stress-ng", "--cpu", &processors, "--io", "2", "--vm", "1", "--vm-bytes", "128M"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Load).map_err(|e| format!("stress-ng: {e}"))
    }
}

impl Drop for Load {
    /// SIGTERM, so that stress-ng ends its workers.
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// So many minutes at 50 ms x 3 on a busy machine, with BIRD and among ourselves.
pub fn soak(minutes: f64) -> Result<Vec<Row>, String> {
    let binary = release_binary()?;
    if !command::installed("stress-ng") {
        return Err("stress-ng is not installed: cargo xtask setup".to_owned());
    }
    let _load = Load::start()?;
    let result = json_of(&binary, &["internal", "bench-bfd", "--minutes", &minutes.to_string()])?;
    let mut rows = Vec::new();
    for side in ["bird", "ubique"] {
        let figures = &result[side];
        if figures.is_null() {
            eprintln!("bfd-soak: BIRD is not installed; no rows with it");
            continue;
        }
        let figure = |key: &str| figures[key].as_f64().ok_or(format!("no {key} in {result}"));
        let name = |what: &str| format!("soak of {minutes} min with {side}: {what}");
        rows.push(Row::new(name("false downs"), figure("downs")?, "", Some(0.0)));
        eprintln!("bfd-soak: {side}: {} sessions, lost at: {}", figures["sessions"], figures["losses"]);
        rows.push(Row::new(name("packets received"), figure("received")?, "", None));
        rows.push(Row::new(name("times our thread was away for an interval"), figure("stalls")?, "", None));
        for (key, what) in [
            ("gap_p50_ms", "between our packets, median"),
            ("gap_p99_ms", "between our packets, p99"),
            ("gap_p999_ms", "between our packets, p99.9"),
            ("gap_max_ms", "between our packets, longest"),
            ("late_max_ms", "our thread late, worst"),
        ] {
            rows.push(Row::new(name(what), figure(key)?, "ms", None));
        }
    }
    Ok(rows)
}
