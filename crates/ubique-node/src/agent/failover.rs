//! How long a failover takes here, by phase: from the first failure of a check to the verdict (`detect`), from there until
//! the withdrawals are with the sockets (`withdraw`), and until every upstream's TCP has acknowledged them
//! (`acknowledge`). What routers elsewhere do after that is beyond this machine.

use std::collections::BTreeMap;

use ubique_proto::Time;

use super::metrics::Exposition;
use super::site::Agent;
use crate::clock::now;

/// Upper bounds of the buckets, s: an event is told within a millisecond, polls take up to seconds.
const BUCKETS: [f64; 8] = [0.0001, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0];

/// The phases, as metrics call them.
const PHASES: [&str; 3] = ["detect", "withdraw", "acknowledge"];

#[derive(Clone, Copy, Default)]
struct Histogram {
    /// By bucket, not cumulative; those beyond the last are in `count` only.
    counts: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn record(&mut self, from: Time, to: Time) {
        let seconds = to.since(from).as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|&bound| seconds <= bound) {
            self.counts[bucket] += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }
}

/// What is known of failovers.
#[derive(Default)]
pub(super) struct Failover {
    /// When each check that fails began to.
    failing: BTreeMap<usize, Time>,
    /// When the verdict turned against the site.
    verdict: Option<Time>,
    /// When the withdrawals went out whose acknowledgements are awaited.
    leaving: Option<Time>,
    phases: [Histogram; PHASES.len()],
}

impl Failover {
    pub(super) fn failed(&mut self, check: usize, at: Time) {
        self.failing.entry(check).or_insert(at);
    }

    pub(super) fn succeeded(&mut self, check: usize) {
        self.failing.remove(&check);
    }

    /// The verdict changed, for the worse or for the better.
    pub(super) fn judged(&mut self, worse: bool, at: Time) {
        self.verdict = worse.then_some(at);
        self.leaving = None;
    }

    /// The withdrawals are with the sockets. Those that no verdict asked for are no failover.
    pub(super) fn withdrew(&mut self, at: Time) {
        let Some(verdict) = self.verdict.take() else { return };
        // An event tells at once: no poll had failed before.
        let first = self.failing.values().min().copied().unwrap_or(verdict).min(verdict);
        self.phases[0].record(first, verdict);
        self.phases[1].record(verdict, at);
        self.leaving = Some(at);
    }

    fn acknowledged(&mut self, at: Time) {
        if let Some(leaving) = self.leaving.take() {
            self.phases[2].record(leaving, at);
        }
    }
}

impl Agent {
    /// An upstream has acknowledged something: perhaps the last withdrawal.
    pub(super) fn failover_acknowledged(&mut self) {
        if self.failover.leaving.is_none() {
            return;
        }
        let speaker = self.bgp.speaker();
        if !speaker.peers().any(|p| Agent::established(&p) && speaker.withdrawal_pending(p.peer).next().is_some()) {
            self.failover.acknowledged(now());
        }
    }

    /// Metrics of failovers.
    pub(super) fn failover_metrics(&self, out: &mut Exposition) {
        let name = "ubique_failover_duration_seconds";
        out.family(name, "histogram", "How long the phases of withdrawals for failed checks took.");
        for (phase, histogram) in PHASES.iter().zip(&self.failover.phases) {
            let mut below = 0;
            for (bound, count) in BUCKETS.iter().zip(histogram.counts) {
                below += count;
                out.sample(&format!("{name}_bucket"), &[("phase", phase), ("le", bound)], below);
            }
            out.sample(&format!("{name}_bucket"), &[("phase", phase), ("le", &"+Inf")], histogram.count);
            out.sample(&format!("{name}_sum"), &[("phase", phase)], histogram.sum);
            out.sample(&format!("{name}_count"), &[("phase", phase)], histogram.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn sums(failover: &Failover) -> [(u64, f64); 3] {
        failover.phases.map(|h| (h.count, (h.sum * 1e6).round() / 1e6))
    }

    #[test]
    fn phases_of_polls_and_of_events_are_told_apart_from_drains() {
        let mut failover = Failover::default();
        failover.failed(0, Time(10 * MS));
        failover.failed(1, Time(20 * MS));
        failover.succeeded(1);
        failover.failed(0, Time(60 * MS));
        failover.judged(true, Time(60 * MS));
        failover.withdrew(Time(61 * MS));
        failover.acknowledged(Time(64 * MS));
        failover.acknowledged(Time(70 * MS));
        assert_eq!(sums(&failover), [(1, 0.05), (1, 0.001), (1, 0.003)]);
        // Back, then an event.
        failover.succeeded(0);
        failover.judged(false, Time(100 * MS));
        failover.judged(true, Time(200 * MS));
        failover.withdrew(Time(200 * MS));
        assert_eq!(sums(&failover), [(2, 0.05), (2, 0.001), (1, 0.003)]);
        // A drain has no verdict.
        failover.judged(false, Time(300 * MS));
        failover.withdrew(Time(400 * MS));
        failover.acknowledged(Time(500 * MS));
        assert_eq!(sums(&failover)[0].0, 2);
        assert_eq!(sums(&failover)[2].0, 1);
    }
}
