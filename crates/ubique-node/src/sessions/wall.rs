//! The wall clock that the sites share: what timestamps say is measured by it, and it may be set.

use std::time::SystemTime;

use ubique_proto::sessions::timestamp::{IDLE_MS, SLACK_MS};
use ubique_sys::clock::monotonic_ns;

use crate::state::unix_ms;

/// Since the epoch.
pub(super) fn now_ms() -> u64 {
    unix_ms(SystemTime::now())
}

/// When the monotonic clock was zero, since the epoch: the same until the clock is set, or slewed.
pub(super) fn base_ms() -> u64 {
    now_ms().saturating_sub(monotonic_ns() / 1_000_000)
}

/// What a clock means that is so far ahead of what timestamps say; `None`: nothing, other sites can still tell.
pub(super) fn set_wrong(ahead_ms: i64) -> Option<String> {
    let told = -i64::from(SLACK_MS)..=i64::from(IDLE_MS);
    (!told.contains(&ahead_ms)).then(|| {
        format!(
            "the clock was set by {:+} s since the data plane began: other sites cannot tell whose connections are, and have to ask; \
             set it right, or begin anew (`ubique sessions off`, and a restart)",
            ahead_ms / 1000
        )
    })
}

/// How far one clock is ahead of another.
pub(super) fn ahead_ms(one: u64, other: u64) -> i64 {
    i64::try_from(one).unwrap_or(i64::MAX).saturating_sub(i64::try_from(other).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubique_proto::sessions::{Mask, Site, timestamp};

    /// The alarm is where decoding ends, not before.
    #[test]
    fn a_clock_is_wrong_where_sites_cannot_tell_any_more() {
        let (base, mask) = (1_795_248_930_123_u64, Mask { code: 77, sequence: 0 });
        let site = Site::new(17).unwrap();
        for ahead in [
            0,
            200_000,
            -200_000,
            i64::from(IDLE_MS),
            i64::from(IDLE_MS) + 1,
            -i64::from(SLACK_MS),
            -i64::from(SLACK_MS) - 1,
        ] {
            let sent = timestamp::encode(base, site, mask);
            let read = timestamp::decode(sent, base.checked_add_signed(ahead).unwrap(), mask);
            assert_eq!(read.is_none(), set_wrong(ahead).is_some(), "{ahead}");
        }
        assert!(set_wrong(-400_000).is_some_and(|why| why.contains("-400 s")));
        assert_eq!((ahead_ms(5, 7), ahead_ms(u64::MAX, 0)), (-2, i64::MAX));
    }
}
