//! A harness for tests that fork: each runs in a sandbox (a process) of its own, started by a program without threads.
//! As root, all run a second time as an ordinary user.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ubique_sys::sandbox::{self, SandboxError};

pub type Test = (&'static str, fn());

/// How a test is run.
#[derive(Clone, Copy, PartialEq)]
pub enum Where {
    /// Inside a sandbox.
    Sandbox,
    /// In the test program itself, which has one thread; a failure ends the run.
    #[allow(dead_code, reason = "each test program uses what it needs")]
    Here,
}

const TEST_TIMEOUT_S: i64 = 60;
const UNPRIVILEGED: &str = "UBIQUE_TEST_UNPRIVILEGED";
/// `nobody`
const NOBODY: u32 = 65534;

pub fn run(place: Where, tests: &[Test]) {
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let who = if rustix::process::geteuid().is_root() {
        "root"
    } else {
        "user"
    };
    let mut failed = Vec::new();
    for (name, test) in tests {
        if filter
            .as_ref()
            .is_some_and(|filter| !name.contains(filter.as_str()))
        {
            continue;
        }
        let verdict = match place {
            Where::Sandbox => run_in_sandbox(*test),
            Where::Here => {
                test();
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
    let timeout = Timespec {
        tv_sec: TEST_TIMEOUT_S,
        tv_nsec: 0,
    };
    let mut ended = [PollFd::new(sandbox.pidfd(), PollFlags::IN)];
    if poll(&mut ended, Some(&timeout)).unwrap() == 0 {
        eprintln!(
            "no end after {:?}",
            Duration::from_secs(TEST_TIMEOUT_S as u64)
        );
        sandbox.kill();
    }
    if sandbox.wait().unwrap() == 0 {
        "ok"
    } else {
        "FAILED"
    }
}

fn run_again_as_user() -> bool {
    // Where cargo builds is often closed to others.
    let program = std::env::current_exe().unwrap();
    let name = format!("ubique-sys-test-{}", std::process::id());
    let copy = std::env::temp_dir().join(name);
    std::fs::copy(program, &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&copy);
    command
        .args(std::env::args().skip(1))
        .env(UNPRIVILEGED, "1");
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let status = command.status();
    std::fs::remove_file(&copy).unwrap();
    status.unwrap().success()
}
