//! Scheduling of threads whose delays are what they are for.

use std::io;

/// A real-time priority above everything ordinary and below the kernel's own threads (which have 50 and more).
const FIFO_PRIORITY: i32 = 10;
/// The shortest slice the scheduler knows: a thread that asks for it is run sooner after it wakes up (Linux 6.12).
const SLICE_NS: u64 = 100_000;

/// What [`prefer_this_thread`] achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// `SCHED_FIFO`: runs at once whenever it can.
    RealTime,
    /// The best an ordinary user gets: a short slice, which shortens the wait after waking up.
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
/// Children it starts are not preferred.
pub fn prefer_this_thread() -> io::Result<Preference> {
    let fifo = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: libc::SCHED_FIFO as u32,
        flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
        nice: 0,
        priority: FIFO_PRIORITY as u32,
        runtime: 0,
        deadline: 0,
        period: 0,
    };
    if set(&fifo).is_ok() {
        return Ok(Preference::RealTime);
    }
    let short = SchedAttr {
        policy: libc::SCHED_OTHER as u32,
        priority: 0,
        runtime: SLICE_NS,
        ..fifo
    };
    set(&short).map(|()| Preference::ShortSlice)
}

fn set(attributes: &SchedAttr) -> io::Result<()> {
    // SAFETY: the kernel reads `size` bytes of the struct; thread 0 is the calling one.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            0,
            std::ptr::from_ref(attributes),
            0u32,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_some_preference() {
        // On a thread of its own: the others stay as they are.
        let preference = std::thread::spawn(prefer_this_thread)
            .join()
            .unwrap()
            .unwrap();
        // SAFETY: no pointers.
        let root = unsafe { libc::geteuid() } == 0;
        assert!(root || preference == Preference::ShortSlice);
    }
}
