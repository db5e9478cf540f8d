//! A harness for tests that fork: each runs in a sandbox (a process) of its own, started by a program without threads.
//! As root, all run a second time as an ordinary user.

#![allow(dead_code, reason = "each test program uses what it needs")]

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ubique_sys::netns::NetNs;
use ubique_sys::process::{self, PidFd};
use ubique_sys::sandbox::{self, SandboxError};

pub type Test = (&'static str, fn());

/// How a test is run.
#[derive(Clone, Copy, PartialEq)]
pub enum Where {
    /// Inside a sandbox.
    Sandbox,
    /// In the test program itself, which has one thread; a failure ends the run.
    Here,
}

/// A test that takes longer hangs, even on a busy machine.
const TEST_TIMEOUT_S: i64 = 180;
pub const UNPRIVILEGED: &str = "UBIQUE_TEST_UNPRIVILEGED";
/// `nobody`
const NOBODY: u32 = 65534;

pub const ROLE: &str = "UBIQUE_TEST_ROLE";

/// The part that this process plays for the test that started it.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// A copy of the test program that plays `role`. It is killed in the end.
pub struct Helper {
    pub child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    errors: Option<ChildStderr>,
}

impl Helper {
    pub fn start(role: &str) -> Helper {
        Helper::start_in(role, None)
    }

    pub fn start_in(role: &str, ns: Option<&NetNs>) -> Helper {
        let mut command = process::command_in(Path::new("/proc/self/exe"), ns);
        command.env(ROLE, role).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let errors = child.stderr.take();
        Helper { child, lines, errors }
    }

    /// The next line that the helper prints.
    pub fn line(&mut self) -> String {
        self.lines.next().expect("the helper ended").unwrap()
    }

    /// What it has written to stderr by its end.
    pub fn errors(&mut self) -> String {
        std::io::read_to_string(self.errors.take().unwrap()).unwrap()
    }

    /// The signal that ended it, or `None` when it lives on.
    pub fn ended_by(&mut self, within: Duration) -> Option<i32> {
        let pidfd = PidFd::open(self.child.id()).unwrap();
        wait_until(within, || pidfd.exited().unwrap()).then(|| self.child.wait().unwrap().signal().unwrap())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks again and again until `done`; false when that takes longer than `limit`.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

pub fn run(place: Where, tests: &[Test]) {
    // Who started this in the background may have left it ignoring SIGINT, and what it starts with it.
    // SAFETY: the default action needs no handler.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let who = if rustix::process::geteuid().is_root() { "root" } else { "user" };
    let mut failed = Vec::new();
    for (name, test) in tests {
        if filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        let verdict = match place {
            Where::Sandbox => run_in_sandbox(*test),
            Where::Here => {
                // SAFETY: sets a timer, whose signal ends this program.
                unsafe { libc::alarm(TEST_TIMEOUT_S as u32) };
                test();
                // SAFETY: as above; ends the timer.
                unsafe { libc::alarm(0) };
                "ok"
            }
        };
        eprintln!("test {name} ({who}) ... {verdict}");
        if verdict == "FAILED" {
            failed.push(*name);
        }
    }
    if who == "root" && std::env::var_os(UNPRIVILEGED).is_none() && !run_again_as_user() {
        failed.push("as an ordinary user, see above");
    }
    if !failed.is_empty() {
        eprintln!("failed: {failed:?}");
        std::process::exit(1);
    }
}

fn run_in_sandbox(test: fn()) -> &'static str {
    let started = sandbox::spawn(|| {
        test();
        0
    });
    let sandbox = match started {
        Ok(sandbox) => sandbox,
        Err(error @ SandboxError::Denied { .. }) => {
            eprintln!("skipped: {error}");
            return "skipped";
        }
        Err(error) => panic!("{error}"),
    };
    let timeout = Timespec { tv_sec: TEST_TIMEOUT_S, tv_nsec: 0 };
    let mut ended = [PollFd::new(sandbox.pidfd(), PollFlags::IN)];
    if poll(&mut ended, Some(&timeout)).unwrap() == 0 {
        eprintln!("no end after {:?}", Duration::from_secs(TEST_TIMEOUT_S as u64));
        sandbox.kill();
    }
    if sandbox.wait().unwrap() == 0 { "ok" } else { "FAILED" }
}

fn run_again_as_user() -> bool {
    // Where cargo builds is often closed to others.
    let program = std::env::current_exe().unwrap();
    let name = format!("ubique-sys-test-{}", std::process::id());
    let copy = std::env::temp_dir().join(name);
    std::fs::copy(program, &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&copy);
    command.args(std::env::args().skip(1)).env(UNPRIVILEGED, "1");
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let status = command.status();
    std::fs::remove_file(&copy).unwrap();
    status.unwrap().success()
}
