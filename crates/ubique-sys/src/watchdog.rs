//! A second process that ends us when a thread stalls.
//!
//! A router that stops thinking but keeps its TCP sessions open attracts traffic into nothing. A thread cannot watch
//! this: it is stopped with the others, or waits for the same lock. So [`Watchdog::start`] forks a child that shares one
//! page of heartbeats. When one of them has not moved for `stall`, the child kills us with SIGKILL, the kernel ends our
//! connections, and the neighbours move on.
//!
//! Time is counted in the child's own ticks, each of a tenth of `stall`: a machine that was paused as a whole has
//! stalled nobody, and a machine under load delays both.

mod child;

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::{WaitId, WaitIdOptions};

use crate::process::{PidFd, Signal, own_pid};
use crate::seccomp::Filter;

/// Heartbeats that can be registered at one time.
pub const HEARTBEATS_MAX: usize = 64;
/// Bytes of a heartbeat's name that appear in the message.
pub const NAME_BYTES: usize = 32;

/// The child's shortest tick.
const TICK_MIN: Duration = Duration::from_millis(20);
const TICKS_OF_STALL: u32 = 10;

/// Running watch. Dropping it ends the child.
#[derive(Debug)]
pub struct Watchdog {
    page: Arc<Page>,
    child: PidFd,
    stall: Duration,
    filter: Option<Filter>,
}

/// Registers threads to be watched.
#[derive(Clone, Debug)]
pub struct Heartbeats {
    page: Arc<Page>,
}

/// One watched thread. Dropping it ends the watch of this thread.
#[derive(Debug)]
pub struct Heartbeat {
    page: Arc<Page>,
    slot: usize,
}

impl Watchdog {
    /// Forks the child, which kills us when a heartbeat does not move for `stall` (at least 40 ms make sense).
    ///
    /// The child uses only async-signal-safe calls, so threads may exist. It holds copies of our memory (shared as long
    /// as neither side writes), so it is small when it is started early.
    pub fn start(stall: Duration) -> io::Result<Watchdog> {
        Watchdog::start_confined(stall, None)
    }

    /// The same, with a child that gives up every capability and, with a filter, all system calls but those.
    pub fn start_confined(stall: Duration, filter: Option<Filter>) -> io::Result<Watchdog> {
        let page = Arc::new(Page::new()?);
        let child = child::fork(&page, stall, filter.as_ref())?;
        Ok(Watchdog { page, child, stall, filter })
    }

    /// As [`Heartbeats::heartbeat`].
    ///
    /// # Panics
    /// When [`HEARTBEATS_MAX`] are registered already.
    pub fn heartbeat(&self, name: &str) -> Heartbeat {
        self.heartbeats().heartbeat(name)
    }

    /// What registers further threads later, wherever the watchdog itself is by then.
    pub fn heartbeats(&self) -> Heartbeats {
        Heartbeats { page: Arc::clone(&self.page) }
    }

    /// Readable when the child has died, which only others can cause: then call [`Watchdog::respawn`].
    pub fn child_pidfd(&self) -> &PidFd {
        &self.child
    }

    /// Starts a new child in the place of the old one; all heartbeats stay registered.
    pub fn respawn(&mut self) -> io::Result<()> {
        let child = child::fork(&self.page, self.stall, self.filter.as_ref())?;
        let old = std::mem::replace(&mut self.child, child);
        end(&old);
        Ok(())
    }
}

impl Heartbeats {
    /// Registers the calling thread's work under `name`. It counts as alive now and must beat from now on, well within
    /// `stall`: a tenth of it is a good interval.
    ///
    /// # Panics
    /// When [`HEARTBEATS_MAX`] are registered already: essential threads are few and known.
    pub fn heartbeat(&self, name: &str) -> Heartbeat {
        let slot = self.page.register(name);
        Heartbeat { page: Arc::clone(&self.page), slot: slot.expect("fewer than HEARTBEATS_MAX essential threads") }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        end(&self.child);
    }
}

/// Ends a child and takes its status, so that no zombie stays.
fn end(child: &PidFd) {
    // Both fail only when the child is gone already.
    let _ = child.signal(Signal::Kill);
    while let Err(rustix::io::Errno::INTR) =
        rustix::process::waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED)
    {}
}

impl Heartbeat {
    /// The thread is alive.
    pub fn beat(&self) {
        self.page.slots()[self.slot].beats.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        let taken = &self.page.slots()[self.slot].taken;
        taken.store(FREE, Ordering::Release);
    }
}

const FREE: u32 = 0;
/// Being filled in: not free, and not watched yet.
const RESERVED: u32 = 1;
const WATCHED: u32 = 2;

/// One heartbeat in the shared page.
struct Slot {
    beats: AtomicU64,
    taken: AtomicU32,
    name_length: AtomicU8,
    name: [AtomicU8; NAME_BYTES],
}

/// Memory that both processes see.
#[derive(Debug)]
struct Page(NonNull<[Slot; HEARTBEATS_MAX]>);

// SAFETY: the page holds only atomics, and it is unmapped only when its last owner is gone.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    fn new() -> io::Result<Page> {
        let length = size_of::<[Slot; HEARTBEATS_MAX]>();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, access, MapFlags::SHARED) }?;
        // Zero bytes are valid slots: all free.
        let page = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Page(page))
    }

    fn slots(&self) -> &[Slot; HEARTBEATS_MAX] {
        // SAFETY: mapped, zeroed at first and aligned to a page; as long as `self` lives.
        unsafe { self.0.as_ref() }
    }

    /// `None` when all are taken.
    fn register(&self, name: &str) -> Option<usize> {
        let reserve =
            |slot: &Slot| slot.taken.compare_exchange(FREE, RESERVED, Ordering::Acquire, Ordering::Relaxed).is_ok();
        let index = self.slots().iter().position(reserve)?;
        let slot = &self.slots()[index];
        let length = name.len().min(NAME_BYTES);
        for (to, from) in slot.name.iter().zip(name.bytes()) {
            to.store(from, Ordering::Relaxed);
        }
        slot.name_length.store(length as u8, Ordering::Relaxed);
        // Differs from what the child saw of the slot's last owner.
        slot.beats.fetch_add(1, Ordering::Relaxed);
        slot.taken.store(WATCHED, Ordering::Release);
        Some(index)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let length = size_of::<[Slot; HEARTBEATS_MAX]>();
        // SAFETY: our own mapping, to which no reference is left.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), length) };
    }
}

/// The tick and the number of ticks without a beat that mean death.
fn ticks(stall: Duration) -> (Duration, u32) {
    let tick = (stall / TICKS_OF_STALL).max(TICK_MIN);
    let count = stall.as_nanos().div_ceil(tick.as_nanos()).max(1);
    (tick, u32::try_from(count).unwrap_or(u32::MAX))
}

fn own_pidfd() -> io::Result<PidFd> {
    PidFd::open(own_pid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_ten_ticks_or_fewer_longer_ones() {
        let ms = Duration::from_millis;
        assert_eq!(ticks(ms(2000)), (ms(200), 10));
        assert_eq!(ticks(ms(100)), (ms(20), 5));
        assert_eq!(ticks(ms(30)), (ms(20), 2));
        assert_eq!(ticks(Duration::ZERO), (ms(20), 1));
    }

    #[test]
    fn slots_are_used_again() {
        let page = Arc::new(Page::new().unwrap());
        let slots: Vec<_> = (0..HEARTBEATS_MAX).map(|_| page.register("x").unwrap()).collect();
        assert_eq!(page.register("one too many"), None);
        drop(Heartbeat { page: Arc::clone(&page), slot: slots[7] });
        let before = page.slots()[7].beats.load(Ordering::Relaxed);
        assert_eq!(page.register(&"long".repeat(20)), Some(7));
        assert!(page.slots()[7].beats.load(Ordering::Relaxed) > before);
    }
}
