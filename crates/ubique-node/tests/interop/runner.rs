//! Runs cells, each a process with a sandbox of its own, several at a time, and compares the result with the page.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ubique_sys::sandbox;

use crate::cell::Cell;
use crate::document;
use crate::matrix::{Entry, Proof};
use crate::peer::Kind;
use crate::peers;

/// Cells at a time on each core: they mostly wait, for timers of seconds and for daemons that start.
const CELLS_PER_CORE: usize = 4;

/// What one cell may take, all its waits included; then it has failed.
const CELL_LIMIT: Duration = Duration::from_secs(100);

/// How often the runner looks who has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The process of one cell: builds the sandbox and waits for it.
pub fn run_cell(name: &str) -> i32 {
    let entry = Entry::all().into_iter().find(|entry| entry.name() == name).expect("a cell of this name");
    sandbox::spawn(|| {
        let log = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::DEBUG);
        log.with_writer(std::io::stdout).init();
        let run = || {
            let cell = Cell::build(entry.kind, entry.family);
            match entry.cannot().map(|cannot| &cannot.proof) {
                None => (entry.row.run)(&cell),
                Some(Proof::Run(prove)) => prove(&cell),
                Some(Proof::Rejects(lines)) => peers::rejects(&cell, lines),
            }
        };
        i32::from(std::panic::catch_unwind(AssertUnwindSafe(run)).is_err())
    })
    .expect("a sandbox stands")
    .wait()
    .expect("a sandbox ends")
}

/// A cell on its way.
struct Running {
    entry: Entry,
    child: Child,
    output: PathBuf,
    started: Instant,
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
    let failed = run_all(waiting.into());
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

fn run_all(mut waiting: VecDeque<Entry>) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut running: Vec<Running> = Vec::new();
    let mut failed = Vec::new();
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < cores * CELLS_PER_CORE
            && let Some(entry) = waiting.pop_front()
        {
            running.push(start(entry));
        }
        std::thread::sleep(LOOK_EVERY);
        for index in (0..running.len()).rev() {
            let cell = &mut running[index];
            let status = cell.child.try_wait().unwrap();
            let late = cell.started.elapsed() > CELL_LIMIT;
            if late {
                let _ = cell.child.kill();
                let _ = cell.child.wait();
            }
            if status.is_some() || late {
                let passed = status.is_some_and(|s| s.success());
                let cell = running.swap_remove(index);
                if !passed {
                    failed.push(cell.entry.name());
                }
                report(&cell, passed, late);
            }
        }
    }
    failed
}

fn start(entry: Entry) -> Running {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop");
    std::fs::create_dir_all(&directory).unwrap();
    let output = directory.join(format!("{}.log", entry.name().replace(' ', "-")));
    let file = File::create(&output).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["play-cell", &entry.name()]).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command.stderr(file.try_clone().unwrap()).stdout(file);
    Running { entry, child: command.spawn().unwrap(), output, started: Instant::now() }
}

/// Reports the end of a cell, with everything it said when it failed.
fn report(cell: &Running, passed: bool, late: bool) {
    let verdict = match (passed, cell.entry.cannot()) {
        (true, None) => "ok",
        (true, Some(_)) => "ok, cannot",
        _ if late => "FAILED, too late",
        _ => "FAILED",
    };
    println!("test {} ... {verdict} ({:.1} s)", cell.entry.name(), cell.started.elapsed().as_secs_f64());
    if !passed {
        let output = std::fs::read(&cell.output).unwrap_or_default();
        println!("{}", String::from_utf8_lossy(&output));
    }
}
