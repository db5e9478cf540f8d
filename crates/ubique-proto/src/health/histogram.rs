//! How long polls took: counts in fixed buckets, from the start and of the last minutes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Time;

/// Upper bounds of the buckets, µs: local checks take less than a millisecond, resolvers and far ones up to a second.
pub const BUCKETS_US: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];

/// Quantiles are of the last one to two of these.
const WINDOW: Duration = Duration::from_secs(300);

/// Durations in buckets.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// By bucket, not cumulative.
    counts: [u64; BUCKETS_US.len()],
    /// Longer than the last bucket.
    beyond: u64,
    sum: Duration,
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        match self.counts.get_mut(BUCKETS_US.partition_point(|&bound| bound < us)) {
            Some(count) => *count += 1,
            None => self.beyond += 1,
        }
        self.sum = self.sum.saturating_add(took);
    }

    /// Count of each bucket, not cumulative, in the order of [`BUCKETS_US`].
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.beyond
    }

    /// Sum of all.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

/// The last minutes: two histograms seen as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Recent<'a>([&'a Histogram; 2]);

impl Recent<'_> {
    /// The duration that this share of the polls did not exceed, as precisely as the buckets tell: the upper bound of its
    /// bucket. `None` without polls, or when it is beyond the last bucket.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let total: u64 = self.0.iter().map(|h| h.count()).sum();
        let wanted = ((total as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        for (index, bound) in BUCKETS_US.iter().enumerate() {
            below += self.0.iter().map(|h| h.counts[index]).sum::<u64>();
            if below >= wanted {
                return Some(Duration::from_micros(*bound));
            }
        }
        None
    }
}

/// Since the start, and of the present and the last window.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Durations {
    all: Histogram,
    windows: [Histogram; 2],
    /// When the present window began.
    began: Time,
}

impl Durations {
    pub(super) fn record(&mut self, now: Time, took: Duration) {
        let age = now.since(self.began);
        if age >= WINDOW {
            let last = std::mem::take(&mut self.windows[0]);
            self.windows[1] = if age < 2 * WINDOW { last } else { Histogram::default() };
            self.began = now;
        }
        self.all.record(took);
        self.windows[0].record(took);
    }

    pub(super) fn all(&self) -> &Histogram {
        &self.all
    }

    pub(super) fn recent(&self) -> Recent<'_> {
        let [now, last] = &self.windows;
        Recent([now, last])
    }
}
