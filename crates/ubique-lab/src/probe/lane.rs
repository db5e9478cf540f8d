//! One lane of the prober: the queries of one vantage point to one service address that wait for an answer.
//!
//! Pure: the caller passes the time in. Identifiers count up, so that the window of open queries is a ring without gaps.

use std::collections::VecDeque;

/// Most open queries of a lane: half of the 16-bit identifiers, so that a late answer is never taken for a newer one.
pub const MAX_OPEN: usize = 1 << 15;

/// An open query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// When it was sent, CLOCK_MONOTONIC ns.
    pub sent_ns: u64,
    /// When it was sent, CLOCK_REALTIME ns, which is what the kernel stamps answers with.
    pub sent_realtime_ns: u64,
}

/// The open queries of a lane.
#[derive(Clone, Debug, Default)]
pub struct Lane {
    next_id: u16,
    /// Consecutive identifiers, the last one `next_id - 1`; `None`: its outcome is known.
    open: VecDeque<Option<Open>>,
}

impl Lane {
    /// The identifier of the next query; `None`: too many are open.
    pub fn next_id(&self) -> Option<u16> {
        (self.open.len() < MAX_OPEN).then_some(self.next_id)
    }

    /// The query with the identifier of [`Lane::next_id`] was sent.
    pub fn sent(&mut self, query: Open) {
        self.next_id = self.next_id.wrapping_add(1);
        self.open.push_back(Some(query));
    }

    /// Closes the query of that identifier; `None`: it is not open (unknown, answered before, or given up).
    pub fn close(&mut self, id: u16) -> Option<Open> {
        let age = self.next_id.wrapping_sub(id);
        let place = self.open.len().checked_sub(usize::from(age))?;
        let query = self.open.get_mut(place)?.take();
        self.forget_closed();
        query
    }

    /// Gives up the oldest open query if it was sent at or before `sent_until_ns`.
    pub fn expire(&mut self, sent_until_ns: u64) -> Option<Open> {
        let oldest = (*self.open.front()?)?;
        if oldest.sent_ns > sent_until_ns {
            return None;
        }
        self.open.pop_front();
        self.forget_closed();
        Some(oldest)
    }

    /// Keeps the front open, or the ring empty.
    fn forget_closed(&mut self) {
        while let Some(None) = self.open.front() {
            self.open.pop_front();
        }
    }
}

/// A histogram of durations with a relative error of at most 1/8.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    max_ns: u64,
}

/// Buckets for each power of two.
const SUB_BUCKETS: u32 = 8;

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: vec![0; (64 * SUB_BUCKETS) as usize].into_boxed_slice(), count: 0, max_ns: 0 }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, ns: u64) {
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// The greatest duration counted, exactly.
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The duration that `permille` of all do not exceed, rounded up to its bucket.
    pub fn quantile_ns(&self, permille: u64) -> u64 {
        let wanted = (self.count * permille).div_ceil(1000);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return bucket_end_ns(index as u32).min(self.max_ns);
            }
        }
        0
    }
}

fn bucket(ns: u64) -> usize {
    let log = (ns | u64::from(SUB_BUCKETS)).ilog2();
    let sub = (ns >> (log - SUB_BUCKETS.ilog2())) as u32 & (SUB_BUCKETS - 1);
    (if ns < u64::from(SUB_BUCKETS) { ns as u32 } else { (log - 2) * SUB_BUCKETS + sub }) as usize
}

/// The greatest value of a bucket.
fn bucket_end_ns(index: u32) -> u64 {
    if index < SUB_BUCKETS {
        return u64::from(index);
    }
    let shift = index / SUB_BUCKETS - 1;
    let first = u128::from(SUB_BUCKETS + index % SUB_BUCKETS) << shift;
    u64::try_from(first + (1 << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn query(sent_ns: u64) -> Open {
        Open { sent_ns, sent_realtime_ns: sent_ns }
    }

    #[test]
    fn identifiers_wrap_around() {
        let mut lane = Lane::default();
        for n in 0..200_000u64 {
            let id = lane.next_id().unwrap();
            assert_eq!(id, n as u16);
            lane.sent(query(n));
            assert_eq!(lane.close(id), Some(query(n)));
            assert_eq!(lane.close(id), None, "a second answer does not count");
        }
    }

    #[test]
    fn a_full_window_stops_sending() {
        let mut lane = Lane::default();
        for n in 0..MAX_OPEN as u64 {
            assert!(lane.next_id().is_some());
            lane.sent(query(n));
        }
        assert_eq!(lane.next_id(), None);
        assert_eq!(lane.expire(0), Some(query(0)));
        assert!(lane.next_id().is_some());
    }

    proptest! {
        /// Against a map of open queries.
        #[test]
        fn a_lane_is_a_map(operations in proptest::collection::vec((0u8..3, any::<u16>()), 0..400), start: u16) {
            let mut lane = Lane { next_id: start, open: VecDeque::new() };
            let mut map = BTreeMap::new();
            for (n, (operation, argument)) in operations.into_iter().enumerate() {
                let now = n as u64;
                match operation {
                    0 => {
                        let id = lane.next_id().unwrap();
                        lane.sent(query(now));
                        map.insert(now, id);
                    }
                    1 => {
                        let id = start.wrapping_add(argument % 200);
                        let wanted = map.iter().find(|(_, i)| **i == id).map(|(sent, _)| *sent);
                        prop_assert_eq!(lane.close(id).map(|q| q.sent_ns), wanted);
                        wanted.map(|sent| map.remove(&sent));
                    }
                    _ => {
                        let until = now.saturating_sub(u64::from(argument % 50));
                        let wanted = map.keys().next().copied().filter(|sent| *sent <= until);
                        prop_assert_eq!(lane.expire(until).map(|q| q.sent_ns), wanted);
                        wanted.map(|sent| map.remove(&sent));
                    }
                }
            }
        }

        #[test]
        fn a_bucket_is_an_eighth_wide(ns: u64) {
            let end = bucket_end_ns(bucket(ns) as u32);
            prop_assert!(end >= ns && end - ns <= ns / 8);
        }

        #[test]
        fn quantiles_are_close(mut values in proptest::collection::vec(0u64..10_000_000, 1..200), permille in 1u64..=1000) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|v| histogram.add(*v));
            values.sort_unstable();
            let exact = values[((values.len() as u64 * permille).div_ceil(1000) - 1) as usize];
            let found = histogram.quantile_ns(permille);
            prop_assert!(found >= exact && found - exact <= exact / 8);
            prop_assert_eq!(histogram.max_ns(), values[values.len() - 1]);
        }
    }
}
