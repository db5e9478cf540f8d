//! PID 1 of the sandbox: sets it up, starts the caller's code, then only forwards signals and reaps.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Gid, Pid, Uid, WaitOptions};

use super::exit_code;
use crate::netns;
use crate::priority::prefer_own_session;
use crate::process::{PidFd, set_death_signal};

/// What the parent reads when the sandbox stands.
pub(super) const READY: &[u8] = b"ready";

/// Work files of a lab are a few MiB; a runaway log must not fill the machine's memory.
const RUN_OPTIONS: &std::ffi::CStr = c"mode=755,size=256m";
/// Exit code of a `main` that panicked, as Rust programs have it.
const PANIC_EXIT_CODE: i32 = 101;

/// Who we are outside: the only ids a user namespace of an ordinary user may map.
pub(super) struct Outside {
    uid: Uid,
    gid: Gid,
}

impl Outside {
    pub(super) fn current() -> Outside {
        Outside { uid: rustix::process::geteuid(), gid: rustix::process::getegid() }
    }

    pub(super) fn is_root(&self) -> bool {
        self.uid.is_root()
    }
}

struct Failure {
    step: &'static str,
    source: io::Error,
}

trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure { step, source: error.into() })
    }
}

/// Never returns to the frames of the parent, of which this process is a copy.
pub(super) fn run(main: impl FnOnce() -> i32, parent: &PidFd, report: OwnedFd, user_namespace: Option<Outside>) -> ! {
    let mut report = std::fs::File::from(report);
    let started = set_up(parent, user_namespace.as_ref()).and_then(|()| fork_main());
    match started {
        Ok(Some(main_pid)) => {
            // Before the parent may send any.
            forward_signals_to(main_pid);
            // A parent that is gone cannot read; its death then ends us, too.
            let _ = report.write_all(READY);
            drop(report);
            exit(reap(main_pid));
        }
        Ok(None) => {
            drop(report);
            let code = std::panic::catch_unwind(AssertUnwindSafe(main));
            std::process::exit(code.unwrap_or(PANIC_EXIT_CODE));
        }
        Err(failure) => {
            let errno = failure.source.raw_os_error().unwrap_or(libc::EIO);
            let mut message = errno.to_ne_bytes().to_vec();
            message.extend_from_slice(failure.step.as_bytes());
            let _ = report.write_all(&message);
            exit(1);
        }
    }
}

/// Without the exit handlers: those belong to the program whose copy we are.
fn exit(code: i32) -> ! {
    // SAFETY: ends the process; no memory of ours is touched.
    unsafe { libc::_exit(code) }
}

fn set_up(parent: &PidFd, user_namespace: Option<&Outside>) -> Result<(), Failure> {
    set_death_signal().step("die with the parent")?;
    // It may have died before the request above was in force.
    if parent.exited().step("watch the parent")? {
        exit(1);
    }
    rustix::process::setsid().step("new session")?;
    prefer_own_session();
    if let Some(outside) = user_namespace {
        // Ordinary users may map groups only after giving up setgroups(2).
        std::fs::write("/proc/self/setgroups", "deny").step("forbid setgroups")?;
        let map = |id: u32| format!("0 {id} 1");
        std::fs::write("/proc/self/uid_map", map(outside.uid.as_raw())).step("map the user")?;
        std::fs::write("/proc/self/gid_map", map(outside.gid.as_raw())).step("map the group")?;
    }
    set_up_mounts()?;
    netns::prepare_current().step("bring lo up, with IPv6")
}

fn set_up_mounts() -> Result<(), Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).step("make mounts private")?;
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", "/run", "tmpfs", plain, RUN_OPTIONS).step("tmpfs on /run")?;
    let proc_flags = plain | MountFlags::NOEXEC;
    // Containers that mask parts of /proc forbid a new one; the outer one then stays, which `process` can read.
    let _ = rustix::mount::mount("proc", "/proc", "proc", proc_flags, None);
    Ok(())
}

/// The caller's process gets `None`.
fn fork_main() -> Result<Option<Pid>, Failure> {
    // SAFETY: this process has one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).step("fork"),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// For the signal handler.
static MAIN_PID: AtomicI32 = AtomicI32::new(0);

extern "C" fn forward(signal: libc::c_int) {
    // SAFETY: kill is async-signal-safe; the number stays ours, because we leave as soon as we have reaped it.
    unsafe { libc::kill(MAIN_PID.load(Ordering::Relaxed), signal) };
}

fn forward_signals_to(main_pid: Pid) {
    MAIN_PID.store(main_pid.as_raw_nonzero().get(), Ordering::Relaxed);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let handler = forward as extern "C" fn(libc::c_int);
        // SAFETY: `forward` is a handler of the right type that only calls kill.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Reaps all, until `main_pid` ends; its exit code.
fn reap(main_pid: Pid) -> i32 {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == main_pid => return exit_code(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // No child left, which cannot be before `main_pid` has been reaped.
            Err(_) => return 1,
        }
    }
}
