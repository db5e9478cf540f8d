//! The wall clock that the sites share: what timestamps say is measured by it, and it may be set.

use std::time::SystemTime;

use ubique_proto::sessions::timestamp::{IDLE_MS, SLACK_MS};
use ubique_sys::clock::monotonic_ns;

use crate::state::unix_ms;

/// The wall clock by which this site deals with the others.
///
/// That is the machine's, as long as it is not set by more than other sites believe ([`SLACK_MS`]). Then somebody is wrong, and while any
/// other site answers by the clock there was, this machine is. Where none does and one answers by the machine's, the clock was put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wall {
    /// When the monotonic clock was zero, ms since 1970, as this site goes by it and as the machine has it.
    base_ms: u64,
    machine_ms: u64,
}

/// Of an answer: by which clock it is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The one this site goes by.
    Ours,
    /// The machine's, which was set.
    Machine,
}

impl Wall {
    /// The machine's.
    pub fn new() -> Wall {
        let machine_ms = machine_base_ms();
        Wall { base_ms: machine_ms, machine_ms }
    }

    /// Goes on by the clock of a former agent.
    pub fn go_on(&mut self, base_ms: u64) {
        self.base_ms = base_ms;
        self.look(self.machine_ms);
    }

    /// The machine's clock says this now.
    pub fn look(&mut self, machine_ms: u64) {
        self.machine_ms = machine_ms;
        if machine_ms.abs_diff(self.base_ms) <= u64::from(SLACK_MS) {
            self.base_ms = machine_ms;
        }
    }

    /// When the monotonic clock was zero, ms since 1970: the same until the clock is set.
    pub fn base_ms(self) -> u64 {
        self.base_ms
    }

    /// How far the machine's clock is ahead of the one gone by, where that is another; ms.
    pub fn disputed_ms(self) -> Option<i64> {
        (self.base_ms != self.machine_ms).then(|| ahead_ms(self.machine_ms, self.base_ms))
    }

    /// Now, ms since 1970.
    pub fn now_ms(self) -> u64 {
        self.base_ms.saturating_add(monotonic_ns() / 1_000_000)
    }

    /// The same by each clock that may be right, this site's own first.
    pub fn clocks(self) -> impl Iterator<Item = (By, u64)> {
        let now_ms = self.now_ms();
        let machine = self.disputed_ms().map(|ahead_ms| (By::Machine, now_ms.saturating_add_signed(ahead_ms)));
        std::iter::once((By::Ours, now_ms)).chain(machine)
    }

    /// The machine's clock is the right one.
    pub fn accept(&mut self) {
        self.base_ms = self.machine_ms;
    }
}

/// When the monotonic clock was zero by the machine's wall clock, ms since 1970.
pub(super) fn machine_base_ms() -> u64 {
    unix_ms(SystemTime::now()).saturating_sub(monotonic_ns() / 1_000_000)
}

/// What it means that the machine's clock is so far ahead of the one gone by.
pub(super) fn disputed(ahead_ms: i64) -> String {
    format!(
        "the clock was set by {:+.0} s, more than other sites believe: going on by the clock as it was; set it right, or that of every site",
        ahead_ms as f64 / 1e3
    )
}

/// What a clock means that is so far ahead of what timestamps say; `None`: nothing, other sites can still tell.
pub(super) fn set_wrong(ahead_ms: i64) -> Option<String> {
    let told = -i64::from(SLACK_MS)..=i64::from(IDLE_MS);
    (!told.contains(&ahead_ms)).then(|| {
        format!(
            "the clock was set by {:+.0} s since the data plane began: other sites cannot tell whose connections are, and have to ask, if they know whom; \
             set it right, or begin anew (`ubique sessions off`, and a restart)",
            ahead_ms as f64 / 1e3
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
    #[test]
    fn a_clock_that_is_set_by_more_than_others_believe_is_not_followed() {
        let slack = u64::from(SLACK_MS);
        let mut wall = Wall { base_ms: 10_000_000, machine_ms: 10_000_000 };
        let clocks = |wall: Wall| wall.clocks().map(|(by, _)| by).collect::<Vec<_>>();
        wall.look(10_000_000 + slack);
        assert_eq!((wall.base_ms(), wall.disputed_ms()), (10_000_000 + slack, None));
        wall.look(10_000_000 - 1);
        assert_eq!((wall.base_ms(), wall.disputed_ms()), (10_000_000 + slack, Some(-300_001)));
        assert_eq!(clocks(wall), [By::Ours, By::Machine]);
        // It goes on by itself when the clock is put right, and when others say that it is.
        wall.look(10_000_000);
        assert_eq!((wall.base_ms(), wall.disputed_ms(), clocks(wall)), (10_000_000, None, vec![By::Ours]));
        wall.look(0);
        wall.accept();
        assert_eq!((wall.base_ms(), wall.disputed_ms()), (0, None));
        // A successor finds the machine's clock set: its predecessor's counts.
        wall.go_on(20_000_000);
        assert_eq!((wall.base_ms(), wall.disputed_ms()), (20_000_000, Some(-20_000_000)));
        wall.go_on(7);
        assert_eq!((wall.base_ms(), wall.disputed_ms()), (0, None));
    }
}
