//! A machine of our own for the lab: new PID, mount, network, IPC and UTS namespaces.
//!
//! [`spawn`] makes two processes. The first is PID 1 of the new PID namespace: it sets everything up, forwards SIGINT
//! and SIGTERM, reaps orphans, and leaves with the exit code of the second, which runs the caller's `main`. So `main`
//! can wait for its own children with no one stealing their statuses. When PID 1 dies, for whatever reason, the kernel
//! kills all others, and namespaces without processes vanish with their links, addresses and mounts: nothing is left.
//!
//! Root gets no user namespace, so that daemons can switch to their own users; others (and root without
//! `CAP_SYS_ADMIN`, as in containers) get one that maps them to root.
//! The sandbox is a session of its own: Ctrl-C reaches only the parent, which decides.

mod init;

use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions};

use crate::process::{PidFd, Signal, own_pid};

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A fork copies only the calling thread; locks held by others would stay locked.
    #[error("the sandbox must be made before other threads exist, there are {0}")]
    Threads(usize),
    /// The kernel makes no namespaces for us.
    #[error("cannot make namespaces: {source}. {advice}")]
    Denied {
        /// The refusal.
        source: io::Error,
        /// What to change on this machine, in whole sentences.
        advice: String,
    },
    /// A step inside of the new namespaces failed.
    #[error("sandbox: {step}: {source}")]
    Setup {
        /// What was tried.
        step: String,
        /// The refusal.
        source: io::Error,
    },
    /// A system call before the namespaces failed.
    #[error("sandbox: {0}")]
    Io(#[from] io::Error),
}

/// The running sandbox, seen from its parent. Dropping it leaves it running.
#[derive(Debug)]
pub struct Sandbox {
    pid: Pid,
    pidfd: PidFd,
}

impl Sandbox {
    /// Its PID 1, as numbered outside.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Readable once everything in the sandbox has ended.
    pub fn pidfd(&self) -> &PidFd {
        &self.pidfd
    }

    /// SIGINT and SIGTERM are passed on to `main`; SIGKILL ends everything at once.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.pidfd.signal(signal)
    }

    /// Ends everything in the sandbox at once; [`Sandbox::wait`] then tells when nothing is left.
    pub fn kill(&self) {
        // The one failure is that it has ended already.
        let _ = self.pidfd.signal(Signal::Kill);
    }

    /// Waits until every process of the sandbox has ended; the exit code of `main`, or 128 + the signal that ended it.
    pub fn wait(self) -> io::Result<i32> {
        loop {
            match rustix::process::waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(None) => {}
                Ok(Some((_, status))) => return Ok(exit_code(status)),
            }
        }
    }
}

fn exit_code(status: rustix::process::WaitStatus) -> i32 {
    let signalled = || status.terminating_signal().map(|signal| 128 + signal);
    status.exit_status().or_else(signalled).unwrap_or(1)
}

/// Runs `main` inside a new sandbox and returns in the parent once that stands. Inside: uid 0, PID namespace with a
/// fresh `/proc` where allowed, an empty `/run`, `lo` up, the working directory kept.
///
/// Call it before threads exist, from a thread that lives on: the sandbox is killed when that thread ends.
pub fn spawn(main: impl FnOnce() -> i32) -> Result<Sandbox, SandboxError> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(SandboxError::Threads(threads));
    }
    // What stands in our output buffer would be printed by both.
    io::Write::flush(&mut io::stdout())?;
    let parent = PidFd::open(own_pid())?;
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    let outside = init::Outside::current();
    let (child, user_namespace) = fork_into_namespaces(outside.is_root())?;
    let Some(pid) = child else {
        drop(read);
        init::run(main, &parent, write, user_namespace.then_some(outside));
    };
    drop(write);
    let sandbox = Sandbox { pid, pidfd: PidFd::open(pid.as_raw_nonzero().get().unsigned_abs())? };
    match read_failure(read)? {
        None => Ok(sandbox),
        Some((step, source)) => {
            sandbox.wait()?;
            Err(setup_error(step, source))
        }
    }
}

/// Clones into the new namespaces, with a user namespace when that is needed. The child gets `None`.
fn fork_into_namespaces(root: bool) -> Result<(Option<Pid>, bool), SandboxError> {
    if root {
        match clone_process(NAMESPACES) {
            Ok(child) => return Ok((child, false)),
            Err(source) if source.raw_os_error() != Some(libc::EPERM) => {
                return Err(denied(source));
            }
            Err(_) => {}
        }
    }
    match clone_process(NAMESPACES | libc::CLONE_NEWUSER) {
        Ok(child) => Ok((child, true)),
        Err(source) => Err(denied(source)),
    }
}

const NAMESPACES: libc::c_int =
    libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// `fork` into new namespaces.
fn clone_process(flags: libc::c_int) -> io::Result<Option<Pid>> {
    let flags = (flags | libc::SIGCHLD) as libc::c_ulong;
    let none: libc::c_ulong = 0;
    // SAFETY: without a stack and without CLONE_VM this is a fork. The C library is not told, so that its record of
    // our thread id is stale in the child; that child is `init`, which creates no thread and uses nothing that reads
    // the record, and the process that runs the caller's code comes from a regular `fork`, which refreshes it.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid as i32)),
    }
}

/// What `init` reports through its pipe before the caller's code runs: nothing when all went well.
fn read_failure(read: OwnedFd) -> io::Result<Option<(String, io::Error)>> {
    let mut report = Vec::new();
    io::Read::read_to_end(&mut std::fs::File::from(read), &mut report)?;
    if report == init::READY {
        return Ok(None);
    }
    let Some((errno, step)) = report.split_first_chunk() else {
        return Ok(Some(("start".into(), io::ErrorKind::BrokenPipe.into())));
    };
    let source = io::Error::from_raw_os_error(i32::from_ne_bytes(*errno));
    Ok(Some((String::from_utf8_lossy(step).into_owned(), source)))
}

fn setup_error(step: String, source: io::Error) -> SandboxError {
    // Ubuntu lets anyone make a user namespace, but without any capability in it.
    if source.kind() == io::ErrorKind::PermissionDenied
        && sysctl("kernel/apparmor_restrict_unprivileged_userns") == Some(1)
    {
        return denied(source);
    }
    SandboxError::Setup { step, source }
}

fn denied(source: io::Error) -> SandboxError {
    let mut advice = Vec::new();
    if sysctl("kernel/unprivileged_userns_clone") == Some(0) {
        advice.push("User namespaces are off for ordinary users: sysctl -w kernel.unprivileged_userns_clone=1.");
    }
    if sysctl("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        advice.push(
            "AppArmor takes the capabilities from user namespaces: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0.",
        );
    }
    if sysctl("user/max_user_namespaces") == Some(0) {
        advice.push("The number of user namespaces is limited to 0: sysctl -w user.max_user_namespaces=15000.");
    }
    if source.raw_os_error() == Some(libc::ENOSPC) {
        advice.push("A limit of namespaces is reached: see /proc/sys/user/max_*_namespaces.");
    }
    if advice.is_empty() {
        advice.push(
            "In a container, allow it CAP_SYS_ADMIN, or user namespaces by its seccomp profile (docker run --privileged); elsewhere, run as root.",
        );
    }
    SandboxError::Denied { source, advice: advice.join(" ") }
}

fn sysctl(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    text.trim().parse().ok()
}
