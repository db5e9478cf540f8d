//! The two clocks of ubique, both in nanoseconds.

use std::io;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

const NS_PER_S: u64 = 1_000_000_000;

/// `CLOCK_MONOTONIC` in ns: the time of every core; the same for all processes of one machine.
pub fn monotonic_ns() -> u64 {
    to_ns(clock_gettime(ClockId::Monotonic))
}

/// `CLOCK_REALTIME` in ns since 1970: the clock of the kernel's receive timestamps.
pub fn realtime_ns() -> u64 {
    to_ns(clock_gettime(ClockId::Realtime))
}

/// How well the machine's clock is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discipline {
    /// Somebody (chrony, ntpd, timesyncd) keeps it in step.
    pub synchronised: bool,
    /// The most it may be wrong, by what that one says.
    pub error_max: Duration,
}

/// What the kernel knows of the clock's discipline: adjtimex(2), without changing it.
pub fn discipline() -> io::Result<Discipline> {
    // SAFETY: integers and padding only: all zeros is a value, and means "change nothing".
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one struct of this type.
    if unsafe { libc::adjtimex(&raw mut state) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let error_us = u64::try_from(state.maxerror).unwrap_or(u64::MAX);
    let synchronised = state.status & libc::STA_UNSYNC == 0;
    Ok(Discipline { synchronised, error_max: Duration::from_micros(error_us) })
}

/// A time before 1970 counts as 0.
pub(crate) fn to_ns(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(NS_PER_S).saturating_add(nanoseconds)
}
