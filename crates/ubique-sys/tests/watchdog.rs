//! The watchdog kills what stalls, and nothing else.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod ground;
mod runner;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ground::readable;
use runner::{Helper, wait_until};
use ubique_sys::process::{self, PidFd, Signal};
use ubique_sys::watchdog::Watchdog;

const STALL: Duration = Duration::from_millis(500);
/// The stall, and generous time for a busy machine to notice it.
const SOON: Duration = Duration::from_secs(10);

fn main() {
    if let Some(role) = runner::role() {
        return watched(&role);
    }
    runner::run(
        runner::Where::Sandbox,
        &[
            ("a_stopped_process_is_killed", a_stopped_process_is_killed),
            ("one_frozen_thread_is_enough", one_frozen_thread_is_enough),
            ("a_silent_thread_is_enough", a_silent_thread_is_enough),
            ("load_kills_nobody", load_kills_nobody),
            ("an_ended_watch_kills_nobody", an_ended_watch_kills_nobody),
            ("the_watchdog_ignores_signals", the_watchdog_ignores_signals),
            ("the_watchdog_is_replaced", the_watchdog_is_replaced),
            ("the_watchdog_goes_with_its_parent", the_watchdog_goes_with_its_parent),
        ],
    );
}

/// The process under watch: its main thread and another beat every 20 ms.
fn watched(role: &str) {
    let mut watchdog = Watchdog::start(STALL).unwrap();
    let main = watchdog.heartbeat("main");
    let silent = AtomicBool::new(false);
    let second = watchdog.heartbeat("second");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            println!("thread {}", rustix::thread::gettid().as_raw_nonzero());
            let second = second;
            while !silent.load(Ordering::Relaxed) {
                second.beat();
                std::thread::sleep(Duration::from_millis(20));
            }
            if role == "end" {
                drop(second);
                println!("dropped");
            } else {
                println!("silent");
                loop {
                    std::thread::park();
                }
            }
        });
        if role == "load" {
            for _ in 0..4 {
                scope.spawn(|| {
                    let start = Instant::now();
                    while start.elapsed() < 6 * STALL {
                        std::hint::spin_loop();
                    }
                });
            }
        }
        silent.store(role == "silent" || role == "end", Ordering::Relaxed);
        loop {
            main.beat();
            if readable(watchdog.child_pidfd(), 20) {
                watchdog.respawn().unwrap();
                println!("respawned");
            }
        }
    });
}

/// The helper and its watchdog's process, found by name.
fn start(role: &str) -> (Helper, u32, u32) {
    let mut helper = Helper::start(role);
    let line = helper.line();
    let thread = line.strip_prefix("thread ").unwrap().parse().unwrap();
    (helper, thread, the_watchdog())
}

fn the_watchdog() -> u32 {
    let mut found = Vec::new();
    let there = wait_until(SOON, || {
        found = process::find_by_name("ubique-watchdog").unwrap();
        found.len() == 1
    });
    assert!(there, "{found:?}");
    found[0]
}

fn assert_killed(helper: &mut Helper, since: Instant) {
    assert_eq!(helper.ended_by(SOON), Some(libc::SIGKILL));
    // Not before its time: 9 ticks of 10 at least.
    assert!(since.elapsed() >= STALL * 8 / 10, "{:?}", since.elapsed());
    let gone = wait_until(SOON, || process::find_by_name("ubique-watchdog").unwrap().is_empty());
    assert!(gone);
}

fn a_stopped_process_is_killed() {
    let (mut helper, _, _) = start("plain");
    let since = Instant::now();
    let pidfd = PidFd::open(helper.child.id()).unwrap();
    pidfd.signal(Signal::Stop).unwrap();
    assert_killed(&mut helper, since);
    let said = helper.errors();
    assert!(said.starts_with("ubique-watchdog: killed ubique, whose thread \"main\" stalled\n"), "{said}");
}

fn one_frozen_thread_is_enough() {
    let (mut helper, thread, _) = start("plain");
    let none = std::ptr::null_mut::<libc::c_void>();
    let thread = thread as libc::pid_t;
    // SAFETY: ptrace requests without data; they change only the other process.
    unsafe {
        if libc::ptrace(libc::PTRACE_SEIZE, thread, none, none) != 0 {
            eprintln!("skipped: {}", std::io::Error::last_os_error());
            return;
        }
        assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none), 0);
    }
    let since = Instant::now();
    let mut status = 0;
    let mut next = || {
        // SAFETY: waits for a thread that we trace and writes its status.
        let waited = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
        assert_eq!(waited, thread);
        status
    };
    assert!(libc::WIFSTOPPED(next()));
    // The kernel shows the end of the process only after its tracer has seen the end of the thread.
    assert_eq!(libc::WTERMSIG(next()), libc::SIGKILL);
    assert_killed(&mut helper, since);
    let said = helper.errors();
    assert!(said.contains("\"second\" stalled"), "{said}");
}

fn a_silent_thread_is_enough() {
    let (mut helper, _, _) = start("silent");
    let since = Instant::now();
    assert_eq!(helper.line(), "silent");
    assert_killed(&mut helper, since);
}

fn load_kills_nobody() {
    let (mut helper, _, watchdog) = start("load");
    assert_eq!(helper.ended_by(7 * STALL), None);
    assert_eq!(process::find_by_name("ubique-watchdog").unwrap(), [watchdog]);
}

fn an_ended_watch_kills_nobody() {
    let (mut helper, _, _) = start("end");
    assert_eq!(helper.line(), "dropped");
    assert_eq!(helper.ended_by(3 * STALL), None);
}

fn the_watchdog_ignores_signals() {
    let (mut helper, _, watchdog) = start("plain");
    let pidfd = PidFd::open(watchdog).unwrap();
    for signal in [Signal::Int, Signal::Term] {
        pidfd.signal(signal).unwrap();
    }
    assert!(!readable(&pidfd, 200));
    // Only the streams it needs are open in it: the parent's pidfd and stderr.
    let open = std::fs::read_dir(format!("/proc/{watchdog}/fd")).unwrap();
    let mut names: Vec<_> = open.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["0", "2"]);
    assert_eq!(helper.ended_by(STALL), None);
}

fn the_watchdog_is_replaced() {
    let (mut helper, _, watchdog) = start("plain");
    PidFd::open(watchdog).unwrap().signal(Signal::Kill).unwrap();
    assert_eq!(helper.line(), "respawned");
    assert_ne!(the_watchdog(), watchdog);
    assert_eq!(helper.ended_by(2 * STALL), None);
    let since = Instant::now();
    PidFd::open(helper.child.id()).unwrap().signal(Signal::Stop).unwrap();
    assert_killed(&mut helper, since);
}

fn the_watchdog_goes_with_its_parent() {
    for signal in [Signal::Kill, Signal::Term] {
        let (helper, _, watchdog) = start("plain");
        let pidfd = PidFd::open(watchdog).unwrap();
        PidFd::open(helper.child.id()).unwrap().signal(signal).unwrap();
        assert!(readable(&pidfd, 20_000));
    }
}
