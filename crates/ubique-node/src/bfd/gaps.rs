//! How regular our packets are: a histogram of the time between two of a session that is Up.

use std::time::Duration;

/// Width of a bucket.
const WIDTH_US: u64 = 500;
/// Buckets: up to 512 ms; longer ones count in the last.
const BUCKETS: usize = 1024;

/// Times between packets.
#[derive(Clone, Debug)]
pub struct Gaps {
    counts: Box<[u64; BUCKETS]>,
    count: u64,
    longest: Duration,
}

impl Default for Gaps {
    fn default() -> Gaps {
        Gaps { counts: Box::new([0; BUCKETS]), count: 0, longest: Duration::ZERO }
    }
}

impl Gaps {
    pub(super) fn add(&mut self, gap: Duration) {
        let bucket = usize::try_from(gap.as_micros() as u64 / WIDTH_US).unwrap_or(BUCKETS).min(BUCKETS - 1);
        self.counts[bucket] += 1;
        self.count += 1;
        self.longest = self.longest.max(gap);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The least time that `share` (0 to 1) of them do not exceed, to half a millisecond.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.count as f64 * share).ceil() as u64;
        let mut below = 0;
        for (bucket, count) in (1..).zip(self.counts.iter()) {
            below += count;
            if below >= rank {
                return Duration::from_micros(bucket * WIDTH_US).min(self.longest);
            }
        }
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.quantile(0.99), Duration::ZERO);
        for ms in 1..=1000 {
            gaps.add(Duration::from_millis(ms) / 10);
        }
        assert_eq!((gaps.count(), gaps.longest()), (1000, Duration::from_millis(100)));
        assert_eq!(gaps.quantile(0.5), Duration::from_micros(50_500));
        assert_eq!(gaps.quantile(0.99), Duration::from_micros(99_500));
        gaps.add(Duration::from_secs(9));
        assert_eq!(gaps.quantile(1.0), Duration::from_millis(512));
        assert_eq!(gaps.longest(), Duration::from_secs(9));
    }
}
