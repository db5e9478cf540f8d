//! When periodic packets leave: with jitter, and those of several sessions at one moment.
//!
//! Jitter keeps systems of one subnetwork apart (RFC 5880 §6.8.7). Our own sessions need not be kept apart from each
//! other: those of one interval take the same jitter where that is within the bounds of each, and soon leave together,
//! so that the thread wakes up once for all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::rng::Rng;

/// Least share of the interval between two packets.
const EARLIEST: f64 = 0.75;
/// Most of it when one lost packet is a loss.
const LATEST_OF_ONE: f64 = 0.9;

/// The pace of all sessions.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pace {
    pub(super) rng: Rng,
    /// Interval → when the next packets of such sessions leave.
    ticks: BTreeMap<Duration, Time>,
}

impl Pace {
    pub(super) fn new(seed: u64) -> Pace {
        Pace { rng: Rng::new(seed), ticks: BTreeMap::new() }
    }

    /// When the packet after that of `sent` leaves: after 75 to 100 % of the interval; to 90 % when `multiplier` is 1
    /// (RFC 5880 §6.8.7).
    pub(super) fn next(&mut self, sent: Time, interval: Duration, multiplier: u8) -> Time {
        let latest = if multiplier == 1 { LATEST_OF_ONE } else { 1.0 };
        let bounds = sent + interval.mul_f64(EARLIEST)..=sent + interval.mul_f64(latest);
        if let Some(&tick) = self.ticks.get(&interval).filter(|tick| bounds.contains(tick)) {
            return tick;
        }
        let tick = sent + interval.mul_f64(EARLIEST + (latest - EARLIEST) * self.rng.next_f64());
        // Intervals that no session has any more are in the past.
        self.ticks.retain(|_, tick| *tick > sent);
        self.ticks.insert(interval, tick);
        tick
    }
}
