//! The watching process. After the fork only async-signal-safe calls: no allocation, no locks, no panics.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{HEARTBEATS_MAX, NAME_BYTES, Page, WATCHED, own_pidfd, ticks};
use crate::privilege;
use crate::process::{PidFd, set_death_signal};
use crate::seccomp::Filter;

/// As `ps` and `top` show it; 15 bytes is the most there is.
const PROCESS_NAME: &std::ffi::CStr = c"ubique-watchdog";
/// Where the parent's pidfd goes, so that all others can be closed in one call; 2 stays for the last word.
const PARENT_FD: RawFd = 0;
const STDERR: RawFd = 2;

/// Forks the watching process; its pidfd.
pub(super) fn fork(page: &Page, stall: Duration, filter: Option<&Filter>) -> io::Result<PidFd> {
    let parent = own_pidfd()?;
    let (tick, stall_ticks) = ticks(stall);
    let tick_ms = i32::try_from(tick.as_millis()).unwrap_or(i32::MAX);
    // With all signals blocked the child cannot run a handler of ours before it has put them back.
    let mask = block_signals()?;
    // The death signal hangs on the thread that forks. Only of the main thread we know that it stays.
    let is_main = rustix::thread::gettid() == rustix::process::getpid();
    // SAFETY: threads may hold locks, but the child keeps to async-signal-safe calls.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        settle(&parent, is_main);
        if let Some(filter) = filter {
            // It may signal its parent as the same user; without either it watches just as well.
            let _ = privilege::renounce();
            let _ = filter.apply_here();
        }
        watch(page, tick_ms, stall_ticks);
    }
    let error = io::Error::last_os_error();
    restore_signals(&mask)?;
    match u32::try_from(pid) {
        Ok(pid) => PidFd::open(pid),
        Err(_) => Err(error),
    }
}

fn block_signals() -> io::Result<libc::sigset_t> {
    // SAFETY: a set of signals is plain data, and sigfillset writes all of it.
    let (mut all, mut old): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
    // SAFETY: both sets are alive and of the right type.
    match unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old)
    } {
        0 => Ok(old),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn restore_signals(mask: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: a set that pthread_sigmask has filled in.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Makes the copy of our process a stranger to it: own name, own signals, nothing inherited open.
fn settle(parent: &PidFd, dies_with_thread: bool) {
    // Failures here cost comfort, not function: the watch goes on without.
    let _ = rustix::thread::set_name(PROCESS_NAME);
    if dies_with_thread {
        let _ = set_death_signal();
    }
    // SAFETY: system calls on our own descriptors and signals; nothing in this process uses them any more.
    unsafe {
        for signal in 1..libc::SIGRTMIN() {
            libc::signal(signal, libc::SIG_DFL);
        }
        // Ctrl-C, a closed terminal and the stop of the service are for the parent, whose end is then ours.
        // Ctrl-Z stops the parent, which must then end rather than keep its sessions.
        let job_control = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
        let ends = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE];
        for signal in ends.into_iter().chain(job_control) {
            libc::signal(signal, libc::SIG_IGN);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::dup2(parent.as_fd().as_raw_fd(), PARENT_FD);
        libc::close(1);
        libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32);
    }
}

/// Ticks until the parent has ended, or must.
fn watch(page: &Page, tick_ms: i32, stall_ticks: u32) -> ! {
    let mut seen = [0u64; HEARTBEATS_MAX];
    let mut silent = [0u32; HEARTBEATS_MAX];
    loop {
        let mut parent = libc::pollfd { fd: PARENT_FD, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        let ready = unsafe { libc::poll(&raw mut parent, 1, tick_ms) };
        if ready > 0 {
            exit();
        }
        if ready < 0 {
            // Interrupted: this tick was too short to count.
            continue;
        }
        for ((slot, seen), silent) in page.slots().iter().zip(&mut seen).zip(&mut silent) {
            let beats = slot.beats.load(Ordering::Relaxed);
            if slot.taken.load(Ordering::Acquire) != WATCHED || beats != *seen {
                (*seen, *silent) = (beats, 0);
                continue;
            }
            *silent += 1;
            if *silent >= stall_ticks {
                kill_parent(slot);
            }
        }
    }
}

/// First the kill, then the word about it: writing may fail or wait.
fn kill_parent(slot: &super::Slot) -> ! {
    let mut text = [0u8; 64 + NAME_BYTES];
    let length = usize::from(slot.name_length.load(Ordering::Relaxed)).min(NAME_BYTES);
    let name = slot.name.iter().take(length).map(|byte| byte.load(Ordering::Relaxed));
    let message = b"ubique-watchdog: killed ubique, whose thread \"".iter().copied();
    let end = b"\" stalled\n".iter().copied();
    let mut used = 0;
    for (to, from) in text.iter_mut().zip(message.chain(name).chain(end)) {
        *to = from;
        used += 1;
    }
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: system calls on valid descriptors and on `text`, of which `used` bytes are written.
    unsafe {
        // Otherwise the parent's death ends us before the word is out.
        libc::prctl(libc::PR_SET_PDEATHSIG, 0);
        libc::syscall(libc::SYS_pidfd_send_signal, PARENT_FD, libc::SIGKILL, none, 0u32);
        let mut stderr = libc::pollfd { fd: STDERR, events: libc::POLLOUT, revents: 0 };
        // A stuck terminal or a full pipe must not keep this process for ever.
        if libc::poll(&raw mut stderr, 1, 0) > 0 {
            libc::write(STDERR, text.as_ptr().cast(), used);
        }
    }
    exit()
}

fn exit() -> ! {
    // SAFETY: ends the process; no memory of ours is touched.
    unsafe { libc::_exit(0) }
}
