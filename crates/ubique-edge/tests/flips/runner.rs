//! Runs scenarios, each in a sandbox.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ubique_sys::sandbox::{self, Sandbox, SandboxError};

use crate::plane;

/// What is run, by name.
pub struct Scenario {
    pub name: String,
    /// It needs the data plane.
    pub plane: bool,
    pub run: Box<dyn Fn()>,
}

/// One that takes longer hangs, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);
/// At the same time: mostly they wait for the kernel to verify programs, or for packets.
const JOBS: usize = 2;

/// Times a scenario may be run: on a machine where somebody else works, a thread of the test that waits for a processor looks like a
/// network that stalls. What is wrong is wrong again.
const TRIES: usize = 2;

/// A scenario that runs.
struct Job<'a> {
    scenario: &'a Scenario,
    tries: usize,
    start: Instant,
    sandbox: Sandbox,
}

/// What does not hold yet: run only when the argument says so.
const KNOWN: &str = "known";

/// Runs those whose name contains the first argument.
pub fn run(scenarios: &[Scenario]) {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let is_chosen = |scenario: &&Scenario| {
        scenario.name.contains(&filter) && scenario.name.starts_with(KNOWN) == filter.starts_with(KNOWN)
    };
    let chosen: Vec<_> = scenarios.iter().filter(is_chosen).collect();
    let no_plane = if chosen.iter().any(|scenario| scenario.plane) { plane::absent() } else { None };
    let mut failed = Vec::new();
    let mut jobs = Vec::new();
    for scenario in chosen {
        if let (true, Some(why)) = (scenario.plane, &no_plane) {
            eprintln!("test {} ... skipped: {why}", scenario.name);
            continue;
        }
        while jobs.len() == JOBS {
            failed.extend(end_of_one(&mut jobs));
        }
        start(scenario, 1, &mut jobs);
    }
    while !jobs.is_empty() {
        failed.extend(end_of_one(&mut jobs));
    }
    if !failed.is_empty() {
        eprintln!("failed: {failed:?}");
        std::process::exit(1);
    }
}

fn start<'a>(scenario: &'a Scenario, tries: usize, jobs: &mut Vec<Job<'a>>) {
    match in_sandbox(&scenario.run) {
        Some(sandbox) => jobs.push(Job { scenario, tries, start: Instant::now(), sandbox }),
        None => eprintln!("test {} ... skipped: no sandbox, see above", scenario.name),
    }
}

/// Waits until one has ended, and returns its name if it failed for good.
fn end_of_one<'a>(jobs: &mut Vec<Job<'a>>) -> Option<&'a str> {
    let mut ends: Vec<_> = jobs.iter().map(|job| PollFd::new(job.sandbox.pidfd(), PollFlags::IN)).collect();
    let left = jobs.iter().map(|job| TIMEOUT.saturating_sub(job.start.elapsed())).min().unwrap_or_default();
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    poll(&mut ends, Some(&timeout)).unwrap();
    let ended = ends.iter().position(|end| !end.revents().is_empty());
    // The oldest one hangs.
    let Job { scenario, tries, start: began, sandbox } = jobs.remove(ended.unwrap_or(0));
    let name = &scenario.name;
    if ended.is_none() {
        eprintln!("test {name}: no end after {TIMEOUT:?}");
        sandbox.kill();
    }
    let good = sandbox.wait().unwrap() == 0;
    let again = !good && tries < TRIES;
    let verdict = match (good, again) {
        (true, _) => "ok",
        (false, true) => "not this time, once more",
        (false, false) => "FAILED",
    };
    eprintln!("test {name} ... {verdict} ({:.1} s)", began.elapsed().as_secs_f32());
    if again {
        start(scenario, tries + 1, jobs);
    }
    (!good && !again).then_some(name)
}

/// `None` where there are no sandboxes.
pub fn in_sandbox(main: impl Fn()) -> Option<Sandbox> {
    let started = sandbox::spawn(|| {
        main();
        0
    });
    match started {
        Ok(sandbox) => Some(sandbox),
        Err(error @ SandboxError::Denied { .. }) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Looks again and again until `done`; false when that takes longer than `limit_ms`.
#[must_use]
pub fn wait_until(limit_ms: u64, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !done() {
        if start.elapsed().as_millis() > u128::from(limit_ms) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
