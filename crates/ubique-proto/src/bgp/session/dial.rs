//! When to connect: the states Idle, Connect and Active of RFC 4271 §8.2.2, and the two back-offs.
//!
//! Two things are counted apart. `failures` are attempts in a row that did not lead to Established; they space further
//! attempts out. `flaps` are sessions in a row that were Established and did not last (DampPeerOscillations). A
//! neighbour lost after a stable session is called again within milliseconds: the return of a route is failover, too.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bgp::speaker::CONNECT_RETRY_MAX;
use crate::rng::Rng;
use crate::time::Time;

/// Upper bound of the pause before the first attempt after a session that lasted: enough for both ends not to call in lockstep.
pub const RECONNECT_DELAY: Duration = Duration::from_millis(10);
/// A session that was Established for less than this counts as a flap.
pub const STABLE_AFTER: Duration = Duration::from_secs(5);
/// Lower bound of a configured ConnectRetryTimer: zero would be a busy loop against a closed port.
pub const CONNECT_RETRY_MIN: Duration = Duration::from_millis(50);

/// What our own calling does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Dial {
    /// Idle: administratively down.
    Disabled,
    /// Idle: IdleHoldTimer after an error.
    Held(Time),
    /// Active: ConnectRetryTimer after the transport failed.
    Waiting(Time),
    /// Active: the neighbour is the one that connects.
    Listening,
    /// Connect: an attempt is under way, given up when the ConnectRetryTimer expires.
    Connecting(Time),
    /// A connection of either direction is up: nothing to do.
    Quiet,
}

impl Dial {
    pub(crate) fn deadline(self) -> Option<Time> {
        match self {
            Dial::Held(at) | Dial::Waiting(at) | Dial::Connecting(at) => Some(at),
            Dial::Disabled | Dial::Listening | Dial::Quiet => None,
        }
    }
}

/// The counters behind the pauses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Backoff {
    connect_retry: Duration,
    failures: u32,
    flaps: u32,
}

impl Backoff {
    pub(crate) fn new(connect_retry: Duration) -> Backoff {
        let connect_retry = connect_retry.clamp(CONNECT_RETRY_MIN, CONNECT_RETRY_MAX);
        Backoff { connect_retry, failures: 0, flaps: 0 }
    }

    /// The operator started the neighbour: the past does not count.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
        self.flaps = 0;
    }

    pub(crate) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    pub(crate) fn established(&mut self) {
        self.failures = 0;
    }

    /// The pause after a session that was Established for `lasted`.
    pub(crate) fn lost(&mut self, lasted: Duration, rng: &mut Rng) -> Duration {
        if lasted >= STABLE_AFTER {
            self.flaps = 0;
        }
        let pause = self.pause(rng);
        self.flaps = self.flaps.saturating_add(1);
        pause
    }

    /// The pause before the next attempt.
    pub(crate) fn pause(&self, rng: &mut Rng) -> Duration {
        match self.failures.max(self.flaps) {
            0 => RECONNECT_DELAY.mul_f64(rng.next_f64()),
            n => rng.jitter(self.doubled(n - 1)),
        }
    }

    /// How long an attempt may take: as long as the pause after it would be, had it failed.
    pub(crate) fn patience(&self, rng: &mut Rng) -> Duration {
        rng.jitter(self.doubled(self.failures))
    }

    fn doubled(&self, times: u32) -> Duration {
        let factor = 1u32.checked_shl(times).unwrap_or(u32::MAX);
        self.connect_retry.saturating_mul(factor).min(CONNECT_RETRY_MAX)
    }
}
