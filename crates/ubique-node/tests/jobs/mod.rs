//! Tests as processes, each in a sandbox of its own, several at a time. One that fails, or does not end, prints the logs
//! of everything it had started. Daemons of others and real time are in all of them, so one that failed beside others is
//! played once more, alone, and has failed when it fails again.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ubique_sys::sandbox;

/// What one test may take, all its waits included, on a busy machine; then it has failed.
const LIMIT: Duration = Duration::from_secs(150);

/// A test that does not end ends itself; this much later it is ended from outside.
const GRACE: Duration = Duration::from_secs(15);

/// How often the runner looks who has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// So many are played once more; where more fail it is not chance.
const SECOND_TRIES: usize = 3;

/// Where tests leave the logs of what they start: a file system of the sandbox.
const LOGS: &str = "/run";

/// Octets of the end of each log that are printed.
const LOG_BYTES: usize = 16 << 10;

/// How a test ended.
pub struct End {
    pub name: String,
    pub passed: bool,
    pub took: Duration,
    /// What it printed.
    pub output: String,
}

/// In the process of one test: runs it in a sandbox; the exit code.
pub fn play(test: impl FnOnce()) -> i32 {
    sandbox::spawn(|| {
        std::thread::spawn(|| {
            std::thread::sleep(LIMIT);
            println!("no end after {LIMIT:?}");
            print_logs();
            std::process::exit(1);
        });
        let failed = std::panic::catch_unwind(AssertUnwindSafe(test)).is_err();
        if failed {
            print_logs();
        }
        i32::from(failed)
    })
    .expect("a sandbox stands")
    .wait()
    .expect("a sandbox ends")
}

fn print_logs() {
    let files = fs::read_dir(LOGS).expect("the sandbox has it").flatten().map(|entry| entry.path());
    let mut logs: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    logs.sort();
    for log in logs {
        let octets = fs::read(&log).unwrap_or_default();
        let end = &octets[octets.len().saturating_sub(LOG_BYTES)..];
        println!("--- {}\n{}", log.display(), String::from_utf8_lossy(end));
    }
}

/// A test on its way.
struct Running {
    name: String,
    child: Child,
    output: PathBuf,
    started: Instant,
}

/// Runs this program as `PROGRAM WORD NAME` for each name, so many at a time, and tells how each ended.
pub fn run_all(names: impl IntoIterator<Item = String>, word: &str, at_a_time: usize, mut ended: impl FnMut(&End)) {
    let mut again = Vec::new();
    run_each(names, word, at_a_time, |end| {
        if end.passed || again.len() == SECOND_TRIES {
            ended(end);
        } else {
            println!("{}test {} ... not this time, once more, alone", end.output, end.name);
            again.push(end.name.clone());
        }
    });
    run_each(again, word, 1, ended);
}

fn run_each(names: impl IntoIterator<Item = String>, word: &str, at_a_time: usize, mut ended: impl FnMut(&End)) {
    let mut waiting: VecDeque<String> = names.into_iter().collect();
    let mut running: Vec<Running> = Vec::new();
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < at_a_time
            && let Some(name) = waiting.pop_front()
        {
            running.push(start(name, word));
        }
        std::thread::sleep(LOOK_EVERY);
        for index in (0..running.len()).rev() {
            let job = &mut running[index];
            let mut status = job.child.try_wait().expect("its status");
            if status.is_none() && job.started.elapsed() > LIMIT + GRACE {
                let _ = job.child.kill();
                status = Some(job.child.wait().expect("its status"));
            }
            if let Some(status) = status {
                let job = running.swap_remove(index);
                let output = fs::read(&job.output).unwrap_or_default();
                ended(&End {
                    name: job.name,
                    passed: status.success(),
                    took: job.started.elapsed(),
                    output: String::from_utf8_lossy(&output).into_owned(),
                });
            }
        }
    }
}

fn start(name: String, word: &str) -> Running {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(word);
    fs::create_dir_all(&directory).expect("a directory of the build");
    let output = directory.join(format!("{}.log", name.replace(' ', "-")));
    let file = File::create(&output).expect("a file of the build");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([word, &name]).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command.stderr(file.try_clone().expect("a descriptor")).stdout(file);
    Running { name, child: command.spawn().expect("this program starts"), output, started: Instant::now() }
}

/// How many at a time, with this many on each core: tests mostly wait.
pub fn at_a_time(per_core: usize) -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) * per_core
}
