//! What makes sure that a sick agent ends: an abort on panic, and the watchdog process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use ubique_sys::watchdog::{Heartbeat, Watchdog};

use crate::fd::watch;

/// Beats in the time after which silence is a stall.
const BEATS_PER_STALL: u32 = 5;

/// The shortest stall that counts: a busy machine must not look like a sick agent.
const STALL_MIN: Duration = Duration::from_millis(100);

/// A panic anywhere ends the process: the sessions close, the upstreams move on.
pub(super) fn abort_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The hook before prints the place to stderr; the log may sit in a queue nobody empties any more.
        before(panic);
        tracing::error!(%panic, "panic: the agent aborts");
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
    /// Forks the watchdog; the first beat is due within `stall`.
    pub(super) fn start(stall: Duration) -> io::Result<Guard> {
        let stall = stall.max(STALL_MIN);
        let watchdog = Watchdog::start(stall)?;
        let heartbeat = watchdog.heartbeat("runtime");
        heartbeat.beat();
        Ok(Guard { stall, watchdog, heartbeat })
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
