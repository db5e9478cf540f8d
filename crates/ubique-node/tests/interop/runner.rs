//! Runs cells, each a process with a sandbox of its own, several at a time, and compares the result with the page.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cell::Cell;
use crate::document;
use crate::jobs::{self, End};
use crate::matrix::{Entry, Proof};
use crate::peer::Kind;
use crate::peers;

/// Cells at a time on each core: they mostly wait, for timers of seconds and for daemons that start.
const CELLS_PER_CORE: usize = 4;

/// The first argument of the process of one cell.
pub const PLAY: &str = "play-cell";

/// The process of one cell.
pub fn run_cell(name: &str) -> i32 {
    let entry = Entry::all().into_iter().find(|entry| entry.name() == name).expect("a cell of this name");
    jobs::play(|| {
        let log = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::DEBUG);
        log.with_writer(std::io::stdout).init();
        let cell = Cell::build(entry.kind, entry.family);
        match entry.cannot().map(|cannot| &cannot.proof) {
            None => (entry.row.run)(&cell),
            Some(Proof::Run(prove)) => prove(&cell),
            Some(Proof::Rejects(lines)) => peers::rejects(&cell, lines),
        }
    })
}

/// Runs those that the arguments choose, all without any: each argument is words that a name must contain.
pub fn run(arguments: &[String]) {
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let all = Entry::all();
    let total = all.len();
    if arguments.iter().any(|a| a == "--list") {
        all.iter().for_each(|entry| println!("{}: test", entry.name()));
        return;
    }
    let wanted = |entry: &Entry| {
        let name = entry.name();
        let words: Vec<&str> = name.split(' ').collect();
        filters.is_empty() || filters.iter().any(|f| f.split(' ').all(|word| words.contains(&word)))
    };
    let chosen: Vec<Entry> = all.into_iter().filter(wanted).collect();
    println!("\nrunning {} tests", chosen.len());
    let missing: BTreeMap<Kind, String> = Kind::ALL.iter().filter_map(|&k| Some((k, missing(k)?))).collect();
    missing.iter().for_each(|(kind, why)| eprintln!("skipped: every cell of {kind}: {why}"));
    let (waiting, ignored): (Vec<Entry>, Vec<Entry>) =
        chosen.into_iter().partition(|entry| !missing.contains_key(&entry.kind));
    let run = waiting.len();
    let failed = run_all(&waiting);
    let compared = if filters.is_empty() && ignored.is_empty() && failed.is_empty() {
        document::compare()
    } else {
        eprintln!("docs/interop.md is compared after a run of every cell without a failure");
        true
    };
    let verdict = if failed.is_empty() && compared { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out\n",
        run - failed.len(),
        failed.len(),
        ignored.len(),
        total - run - ignored.len()
    );
    if verdict != "ok" {
        eprintln!("failed: {}", failed.join(", "));
        std::process::exit(1);
    }
}

/// Why the cells of a daemon cannot be run here.
fn missing(kind: Kind) -> Option<String> {
    if !Path::new(kind.program()).exists() {
        return Some(format!("needs {}", kind.program()));
    }
    // Its processes become a user of their own and enter a directory as their root.
    let root = rustix::process::geteuid().is_root();
    (kind == Kind::Openbgpd && !root).then(|| "the daemon needs root".to_owned())
}

fn run_all(waiting: &[Entry]) -> Vec<String> {
    let mut failed = Vec::new();
    jobs::run_all(waiting.iter().map(Entry::name), PLAY, jobs::at_a_time(CELLS_PER_CORE), |end| {
        let entry = waiting.iter().find(|entry| entry.name() == end.name).expect("one of ours");
        report(entry, end);
        if !end.passed {
            failed.push(end.name.clone());
        }
    });
    failed
}

/// Reports the end of a cell, with everything it said when it failed.
fn report(entry: &Entry, end: &End) {
    let verdict = match (end.passed, entry.cannot()) {
        (true, None) => "ok",
        (true, Some(_)) => "ok, cannot",
        (false, _) => "FAILED",
    };
    println!("test {} ... {verdict} ({:.1} s)", end.name, end.took.as_secs_f64());
    if !end.passed {
        println!("{}", end.output);
    }
}
