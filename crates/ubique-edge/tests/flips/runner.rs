//! Runs scenarios, each in a sandbox.

use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ubique_sys::sandbox::{self, SandboxError};

use crate::plane;

/// What is run, by name.
pub struct Scenario {
    pub name: String,
    /// It needs the data plane.
    pub plane: bool,
    pub run: Box<dyn Fn()>,
}

/// One that takes longer hangs, even on a busy machine.
const TIMEOUT_S: i64 = 120;

/// Runs those whose name contains the first argument.
pub fn run(scenarios: &[Scenario]) {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let chosen: Vec<_> = scenarios.iter().filter(|scenario| scenario.name.contains(&filter)).collect();
    let no_plane = if chosen.iter().any(|scenario| scenario.plane) { plane::absent() } else { None };
    let mut failed = Vec::new();
    for scenario in chosen {
        if let (true, Some(why)) = (scenario.plane, &no_plane) {
            eprintln!("test {} ... skipped: {why}", scenario.name);
            continue;
        }
        let start = Instant::now();
        let verdict = match in_sandbox(&scenario.run) {
            Some(0) => "ok",
            Some(_) => "FAILED",
            None => "skipped",
        };
        eprintln!("test {} ... {verdict} ({:.1} s)", scenario.name, start.elapsed().as_secs_f32());
        if verdict == "FAILED" {
            failed.push(&scenario.name);
        }
    }
    if !failed.is_empty() {
        eprintln!("failed: {failed:?}");
        std::process::exit(1);
    }
}

/// The exit code; `None` where there are no sandboxes.
pub fn in_sandbox(main: impl Fn()) -> Option<i32> {
    let started = sandbox::spawn(|| {
        main();
        0
    });
    let sandbox = match started {
        Ok(sandbox) => sandbox,
        Err(error @ SandboxError::Denied { .. }) => {
            eprintln!("skipped: {error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let timeout = Timespec { tv_sec: TIMEOUT_S, tv_nsec: 0 };
    if poll(&mut [PollFd::new(sandbox.pidfd(), PollFlags::IN)], Some(&timeout)).unwrap() == 0 {
        eprintln!("no end after {TIMEOUT_S} s");
        sandbox.kill();
    }
    Some(sandbox.wait().unwrap())
}

/// Looks again and again until `done`; false when that takes longer than `limit_ms`.
#[must_use]
pub fn wait_until(limit_ms: u64, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !done() {
        if start.elapsed().as_millis() > u128::from(limit_ms) {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    true
}
