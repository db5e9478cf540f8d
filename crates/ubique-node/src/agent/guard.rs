//! What makes sure that a sick agent ends: an abort on panic, and the watchdog process.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use ubique_sys::seccomp::Filter;
use ubique_sys::watchdog::{Heartbeat, Heartbeats, Watchdog};

use crate::fd::watch;

/// Beats in the time after which silence is a stall.
const BEATS_PER_STALL: u32 = 5;

/// The shortest stall that counts: a busy machine must not look like a sick agent.
const STALL_MIN: Duration = Duration::from_millis(100);

/// How long a process that panics waits for its journal; the upstreams wait as long.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// A panic anywhere ends the process: the sessions close, the upstreams move on.
pub(super) fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        // Past the log, whose queue nobody may empty any more; and never waiting for a terminal or pipe that is stuck.
        let mut stderr = std::io::stderr();
        let ready = rustix::event::poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&Timespec::default()));
        if ready.is_ok_and(|count| count > 0) {
            let _ = writeln!(stderr, "ubique: {panic}: the agent aborts");
        }
        // The input that led here is in the queue of the journal.
        crate::spool::last_words(LAST_WORDS);
        std::process::abort();
    }));
}

/// The watchdog and our heartbeat.
pub(super) struct Guard {
    stall: Duration,
    watchdog: Watchdog,
    heartbeat: Heartbeat,
}

/// The watchdog as something that becomes readable when its process has ended.
struct Child<'a>(&'a Watchdog);

impl AsFd for Child<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.child_pidfd().as_fd()
    }
}

impl Guard {
    /// Forks the watchdog, with the system calls that `filter` leaves it; the first beat is due within `stall`.
    pub(super) fn start(stall: Duration, filter: Option<Filter>) -> io::Result<Guard> {
        let stall = stall.max(STALL_MIN);
        let watchdog = Watchdog::start_confined(stall, filter)?;
        let heartbeat = watchdog.heartbeat("runtime");
        heartbeat.beat();
        Ok(Guard { stall, watchdog, heartbeat })
    }

    /// What makes heartbeats for other threads, and how often those must beat at least.
    pub(super) fn heartbeats(&self) -> (Heartbeats, Duration) {
        (self.watchdog.heartbeats(), self.stall / BEATS_PER_STALL)
    }

    /// Beats as long as the runtime runs its tasks; a watchdog process that has ended is replaced.
    pub(super) async fn beat(mut self) {
        loop {
            self.until_child_ends().await;
            match self.watchdog.respawn() {
                Ok(()) => tracing::warn!("the watchdog process has ended: another one was started"),
                Err(error) => {
                    tracing::error!(%error, "the watchdog process has ended and cannot be started again");
                    tokio::time::sleep(self.stall).await;
                }
            }
        }
    }

    async fn until_child_ends(&self) {
        let mut beat = tokio::time::interval(self.stall / BEATS_PER_STALL);
        let Ok(child) = watch(Child(&self.watchdog)) else {
            return;
        };
        loop {
            tokio::select! {
                _ = beat.tick() => self.heartbeat.beat(),
                _ = child.readable() => return,
            }
        }
    }
}
