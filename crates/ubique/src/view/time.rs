//! Times and durations as people read them.

use jiff::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

/// Two units at most: `12 s`, `3 min`, `2 h 5 min`, `4 d 3 h`.
pub fn duration(seconds: i64) -> String {
    let two = |big: i64, big_word: &str, small: i64, small_word: &str| match small {
        0 => format!("{big} {big_word}"),
        small => format!("{big} {big_word} {small} {small_word}"),
    };
    match seconds.max(0) {
        s @ 0..MINUTE => format!("{s} s"),
        s @ MINUTE..600 => two(s / MINUTE, "min", s % MINUTE, "s"),
        s @ 600..HOUR => format!("{} min", s / MINUTE),
        s @ HOUR..DAY => two(s / HOUR, "h", s % HOUR / MINUTE, "min"),
        s => two(s / DAY, "d", s % DAY / HOUR, "h"),
    }
}

/// How long ago a moment was; `–` when it cannot be read.
pub fn age(since: &str, now: Timestamp) -> String {
    seconds_between(since, now).map_or_else(|| "–".to_owned(), duration)
}

/// Seconds from a moment until now; negative when it is to come.
pub fn seconds_between(since: &str, now: Timestamp) -> Option<i64> {
    Some(now.as_second() - since.parse::<Timestamp>().ok()?.as_second())
}

/// `14:03:12` today, `11-20 14:03` on another day, UTC.
pub fn moment(at: &str, now: Timestamp) -> String {
    let today = now.to_string();
    match (at.split_once('T'), today.split_once('T')) {
        (Some((day, time)), Some((today, _))) if day == today => time.get(..8).unwrap_or(time).to_owned(),
        (Some((day, time)), _) => format!("{} {}", day.get(5..).unwrap_or(day), time.get(..5).unwrap_or(time)),
        _ => at.to_owned(),
    }
}

/// `0.4 ms`, `12 ms`, `1.2 s`.
pub fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, text) in [
            (-5, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3599, "59 min"),
            (3600, "1 h"),
            (7500, "2 h 5 min"),
            (86_399, "23 h 59 min"),
            (86_400, "1 d"),
            (400 * 86_400 + 7200, "400 d 2 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn moments_of_today_need_no_date() {
        let now: Timestamp = "2026-11-21T14:00:00Z".parse().unwrap();
        assert_eq!(moment("2026-11-21T08:15:30.123Z", now), "08:15:30");
        assert_eq!(moment("2026-11-20T08:15:30.123Z", now), "11-20 08:15");
        assert_eq!(age("2026-11-21T13:57:00.900Z", now), "3 min");
        assert_eq!(age("nonsense", now), "–");
        assert_eq!([0.04, 9.9, 9.96, 250.0, 999.9].map(milliseconds), ["0.0 ms", "9.9 ms", "10 ms", "250 ms", "1.0 s"]);
    }
}
