//! Two clocks: the monotonic one that every core driven here sees, and wall-clock times as people read them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use ubique_proto::Time;
use ubique_sys::clock::{monotonic_ns, realtime_ns};

/// Now, for the cores.
pub(crate) fn now() -> Time {
    Time(monotonic_ns())
}

/// The moment of `at` for tokio's timers.
pub(crate) fn instant(at: Time, now: Time) -> Instant {
    Instant::now() + at.since(now)
}

/// A difference between the clocks that changes by more means that the wall clock was set, ns; a daemon that keeps it in
/// step changes it by less in minutes.
const SET_NS: u64 = 100_000_000;

/// The wall-clock time of a moment that has passed: the same whenever it is asked for, until the clock is set.
pub(crate) fn wall(at: Time) -> SystemTime {
    static AHEAD_NS: AtomicU64 = AtomicU64::new(0);
    let (before, real, after) = (monotonic_ns(), realtime_ns(), monotonic_ns());
    let (seen, kept) = (real.saturating_sub(before), AHEAD_NS.load(Ordering::Relaxed));
    // This thread may have stood still between the two clocks.
    let ahead = if seen.abs_diff(kept) <= SET_NS + (after - before) {
        kept
    } else {
        AHEAD_NS.compare_exchange(kept, seen, Ordering::Relaxed, Ordering::Relaxed).map_or_else(|other| other, |_| seen)
    };
    UNIX_EPOCH + Duration::from_nanos(at.0.saturating_add(ahead))
}

/// RFC 3339, UTC, to the millisecond: `2026-11-21T08:15:30.123Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

/// Whole seconds since the epoch, now.
#[cfg(feature = "tls")]
pub(crate) fn unix_time() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Seconds since the epoch, for metrics.
pub(crate) fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Year, month and day of the Gregorian calendar, by counting days in cycles of 400, 100, 4 and 1 years that
/// begin on 1 March, so that the leap day is the last of its cycle.
fn civil(days_since_epoch: u64) -> (u64, u64, u64) {
    const FROM_1_MARCH_2000: u64 = 11_017;
    const DAYS_400: u64 = 146_097;
    // Shifted back by whole cycles, so that the count starts on 1 March 1600.
    let days = days_since_epoch + DAYS_400 - FROM_1_MARCH_2000;
    let (cycles, days) = (days / DAYS_400, days % DAYS_400);
    let centuries = (days / 36_524).min(3);
    let days = days - centuries * 36_524;
    let (fours, days) = (days / 1_461, days % 1_461);
    let years = (days / 365).min(3);
    let day_of_year = days - years * 365;
    // Months from March have 31, 30, 31, 30, 31 days, again and again: 153 days in five months.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = 1600 + 400 * cycles + 100 * centuries + 4 * fours + years;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(second)), text);
        }
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(1_795_248_930_123)), "2026-11-21T08:15:30.123Z");
    }

    #[test]
    fn a_moment_stays_what_it_was() {
        let (moment, minute) = (now(), Duration::from_secs(60));
        let first = wall(moment);
        assert!(first > SystemTime::now() - minute && first < SystemTime::now() + minute);
        for _ in 0..10_000 {
            assert_eq!(wall(moment), first);
        }
    }
}
