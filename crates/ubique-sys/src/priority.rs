//! Scheduling of threads whose delays are what they are for.

use std::io;

/// The shortest slice the scheduler knows: a thread that asks for it is run sooner after it wakes up (Linux 6.12).
const SLICE_NS: u64 = 100_000;
/// The most favourable of the ordinary priorities.
const NICE_MIN: i32 = -20;

/// Nice value of a session of ours against others.
const SESSION_NICE: &str = "-10";

/// What [`prefer_this_thread`] achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// A short slice and the best nice value: root's.
    Nice,
    /// A short slice: the best an ordinary user gets.
    ShortSlice,
}

/// `struct sched_attr`, version 0
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Lets the calling thread run as soon as possible after each wake-up, by the best means it is allowed.
/// Children it starts are not preferred. Where sessions share processors by the session, see [`prefer_own_session`].
///
/// Not `SCHED_FIFO`: while ordinary threads use every processor, the kernel gives them up to 50 ms of each second before
/// any real-time thread (`/sys/kernel/debug/sched/fair_server`), all at once: measured, delays of 30 ms.
pub fn prefer_this_thread() -> io::Result<Preference> {
    let wanted = |nice| SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
        nice,
        priority: 0,
        runtime: SLICE_NS,
        deadline: 0,
        period: 0,
    };
    match set(&wanted(NICE_MIN)) {
        Ok(()) => Ok(Preference::Nice),
        Err(_) => set(&wanted(0)).map(|()| Preference::ShortSlice),
    }
}

/// Lets all processes of our session run before those of others, where the kernel shares processors by the session (sched(7),
/// autogroups): there a nice value counts only within one. Does nothing unless this process leads its session, as a service
/// or a sandbox does: a user's shell stays as it is. Needs CAP_SYS_NICE; without it, or on another kernel, nothing happens.
pub fn prefer_own_session() {
    if crate::process::leads_its_session() {
        let _ = std::fs::write("/proc/self/autogroup", SESSION_NICE);
    }
}

fn set(attributes: &SchedAttr) -> io::Result<()> {
    // SAFETY: the kernel reads `size` bytes of the struct; thread 0 is the calling one.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attributes), 0u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_some_preference() {
        // On a thread of its own: the others stay as they are.
        let preference = std::thread::spawn(prefer_this_thread).join().unwrap().unwrap();
        // SAFETY: no pointers.
        let root = unsafe { libc::geteuid() } == 0;
        assert!(root || preference == Preference::ShortSlice);
    }

    #[test]
    fn the_session_of_others_stays_as_it_is() {
        // Absent on kernels without autogroups.
        let autogroup = || std::fs::read_to_string("/proc/self/autogroup").ok();
        let before = autogroup();
        prefer_own_session();
        std::thread::spawn(prefer_this_thread).join().unwrap().unwrap();
        assert_eq!(autogroup(), before);
    }
}
