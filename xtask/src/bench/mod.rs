//! `cargo xtask bench NAME`: rows of name, value, unit, goal, peer, ratio.
//!
//! Wall-clock figures inform, they never gate: machines are noisy. Each row has a goal, and where a peer can do the
//! same it is measured in the same run.

mod bfd;
mod failover;
mod idle;
mod inside;
mod peers;
mod sessions;
pub mod size;
mod table;
mod wire;
mod withdraw;

use std::path::PathBuf;
use std::process::Command;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::command::{self, root};

/// What to measure and how to print it.
#[derive(Args)]
pub struct Arguments {
    /// What to measure.
    name: Name,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// Repetitions of each fault.
    #[arg(long, default_value_t = 20)]
    repeat: usize,
    /// Length of a soak, min.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// Client-side gap when a site freezes or its link is cut, with BFD: ubique beside BIRD, behind BIRD and FRR.
    Bfd,
    /// BFD at 50 ms x 3 on a busy machine, with BIRD and among ourselves: false alarms.
    BfdSoak,
    /// Client-side gap when a service or an agent dies or hangs, behind BIRD and FRR, beside ExaBGP, BIRD with
    /// anycast-healthchecker, and FRR with anycastd.
    Failover,
    /// Processor and memory of an agent with 8 upstreams, BFD on all and 20 checks, when nothing happens.
    Idle,
    /// What a packet costs in the data plane that keeps sessions alive.
    Sessions,
    /// Floods, forgeries, route changes, drains and restarts of the data plane for a long time: connections lost, what the kernel keeps.
    SessionsSoak,
    /// Size of the static binary.
    Size,
    /// 1,000,000 routes from BIRD into ubique, GoBGP and FRR: time and memory.
    Table,
    /// Delay error of the lab's wire at 20,000 packets a second.
    Wire,
    /// From a dead process to the withdrawal on the wire, idle and behind a full table; memory with 8 upstreams.
    Withdraw,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

/// One figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// What it should be at most.
    pub goal: Option<f64>,
    /// The same figure of a peer, measured in the same run.
    pub peer: Option<f64>,
    /// peer / value.
    pub ratio: Option<f64>,
    /// What the measurement can tell apart; a smaller value is shown, and divided by, as this.
    pub resolution: Option<f64>,
}

impl Row {
    /// A row with a goal, without a peer.
    pub fn new(name: impl Into<String>, value: f64, unit: &str, goal: Option<f64>) -> Row {
        Row { name: name.into(), value, unit: unit.to_owned(), goal, peer: None, ratio: None, resolution: None }
    }

    /// The same row of a measurement that can tell so much apart.
    pub fn within(self, resolution: f64) -> Row {
        Row { resolution: Some(resolution), ..self }
    }

    /// The same row beside a peer's figure. A value below the resolution of the measurement counts as that.
    pub fn beside(self, peer: f64, resolution: f64) -> Row {
        Row { peer: Some(peer), ratio: Some(peer / self.value.max(resolution)), ..self.within(resolution) }
    }
}

/// Runs one benchmark and prints its rows.
pub fn run(arguments: &Arguments) -> Result<(), String> {
    let rows = match arguments.name {
        Name::Bfd => bfd::run(arguments.repeat)?,
        Name::BfdSoak => bfd::soak(arguments.minutes)?,
        Name::Failover => failover::run(arguments.repeat)?,
        Name::Idle => idle::run()?,
        Name::Sessions => sessions::run()?,
        Name::SessionsSoak => sessions::soak(arguments.minutes)?,
        Name::Size => size::run()?,
        Name::Table => table::run()?,
        Name::Wire => wire::run()?,
        Name::Withdraw => withdraw::run(arguments.repeat)?,
    };
    if arguments.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&rows).map_err(|e| e.to_string())?);
        return Ok(());
    }
    println!("{:<70} {:>9} {:<4} {:>8} {:>9} {:>7}", "name", "value", "unit", "goal", "peer", "ratio");
    let optional = |v: Option<f64>, digits: usize| v.map_or("–".to_string(), |v| format!("{v:.digits$}"));
    for row in &rows {
        let (goal, peer, ratio) = (optional(row.goal, 1), optional(row.peer, 1), optional(row.ratio, 1));
        let missed = row.goal.is_some_and(|goal| row.value > goal);
        let mark = if missed { "  above the goal" } else { "" };
        // Below the resolution a value is only known to be that: its ratio is the least it can be.
        let (value, ratio) = match row.resolution.filter(|resolution| row.value < *resolution) {
            Some(resolution) => (format!("< {resolution}"), row.ratio.map_or(ratio, |ratio| format!("> {ratio:.1}"))),
            None => (format!("{:.2}", row.value), ratio),
        };
        println!("{:<70} {value:>9} {:<4} {goal:>8} {peer:>9} {ratio:>7}{mark}", row.name, row.unit);
    }
    Ok(())
}

/// Builds the release binary and returns its path; `UBIQUE_BINARY` names one that is built already.
pub fn release_binary() -> Result<PathBuf, String> {
    if let Some(binary) = std::env::var_os("UBIQUE_BINARY") {
        return Ok(binary.into());
    }
    command::cargo(&["build", "--release", "--locked", "--package", "ubique"])?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release/ubique"))
}

/// Runs the program and parses the JSON it prints; exit code 1 (an expectation failed) is fine, its JSON says so.
pub fn json_of(program: &PathBuf, arguments: &[&str]) -> Result<serde_json::Value, String> {
    eprintln!("» {} {}", program.display(), arguments.join(" "));
    let output = Command::new(program).args(arguments).current_dir(root()).output().map_err(|e| e.to_string())?;
    if !matches!(output.status.code(), Some(0 | 1)) {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("{e} in the output of {}", arguments.join(" ")))
}
