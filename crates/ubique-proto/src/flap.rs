//! Flap control: what the damping of upstreams holds against us, predicted, so that it is never reached.
//!
//! A network that damps flapping routes (RFC 2439) adds a penalty for each withdrawal and each change of attributes, lets
//! it decay with a half-life, and suppresses a route above a threshold (RFC 7196). A suppressed route is an outage that
//! lasts after its cause is gone. [`Budget`] does the same sum with our own parameters. Withdrawals because of failure
//! never wait; announcements and changes for the better wait until one more withdrawal fits below the threshold, so that
//! the last budget is kept for a real failure.
//!
//! Deliberately absent: the damping of single upstreams, whose parameters nobody tells us, and the loss of a session.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::service::Flap;

use crate::Time;

/// Waits are rounded up to this, so that a wait that is over is over.
const GRAIN: Duration = Duration::from_millis(1);

/// Longest wait: whatever the parameters, an announcement is looked at again after it.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// What is held against us, and how much more fits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    config: Flap,
    /// Penalty at `at`, points.
    penalty: f64,
    at: Time,
}

impl Budget {
    /// With this penalty now, points.
    pub fn new(config: Flap, now: Time, penalty: u32) -> Budget {
        Budget { config, penalty: f64::from(penalty), at: now }
    }

    /// Its parameters.
    pub fn config(&self) -> &Flap {
        &self.config
    }

    /// Other parameters from now on; the penalty stays.
    pub fn reconfigure(&mut self, now: Time, config: Flap) {
        self.penalty = self.penalty(now);
        self.at = now;
        self.config = config;
    }

    /// The penalty now, points.
    pub fn penalty(&self, now: Time) -> f64 {
        decayed(self.penalty, now.since(self.at), self.config.half_life)
    }

    /// What is left below the threshold, points.
    pub fn left(&self, now: Time) -> f64 {
        (f64::from(self.config.suppress) - self.penalty(now)).max(0.0)
    }

    /// Everything was withdrawn.
    pub fn withdrawn(&mut self, now: Time) {
        self.add(now, self.config.withdrawal);
    }

    /// Attributes were changed.
    pub fn changed(&mut self, now: Time) {
        self.add(now, self.config.change);
    }

    /// When an announcement fits: with one withdrawal after it.
    pub fn announce_at(&self, now: Time) -> Time {
        self.fits_at(now, self.config.withdrawal)
    }

    /// When a change of attributes fits: with one withdrawal after it.
    pub fn change_at(&self, now: Time) -> Time {
        self.fits_at(now, self.config.withdrawal.saturating_add(self.config.change))
    }

    fn add(&mut self, now: Time, points: u32) {
        self.penalty = self.penalty(now) + f64::from(points);
        self.at = now;
    }

    /// When so many points more are not above the threshold; at least one point of penalty is always forgiven, so that no
    /// parameters keep a site silent for ever.
    fn fits_at(&self, now: Time, points: u32) -> Time {
        let room = f64::from(self.config.suppress.saturating_sub(points)).max(1.0);
        let penalty = self.penalty(now);
        if penalty <= room {
            return now;
        }
        let half_lives = (penalty / room).log2();
        let wait = Duration::try_from_secs_f64(half_lives * self.config.half_life.as_secs_f64());
        now + (wait.unwrap_or(WAIT_MAX) + GRAIN).min(WAIT_MAX)
    }
}

/// What is left of a penalty after a time.
pub fn decayed(penalty: f64, elapsed: Duration, half_life: Duration) -> f64 {
    if half_life.is_zero() {
        return 0.0;
    }
    penalty * (-(elapsed.as_secs_f64() / half_life.as_secs_f64())).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_penalty_halves_with_each_half_life() {
        let mut budget = Budget::new(Flap::default(), Time::ZERO, 0);
        budget.withdrawn(Time::ZERO);
        for (seconds, points) in [(0, 1000.0), (900, 500.0), (1800, 250.0), (9000, 0.976_562_5)] {
            assert!((budget.penalty(at(seconds)) - points).abs() < 1e-9, "{seconds}");
        }
    }

    #[test]
    fn the_last_withdrawal_is_kept() {
        let mut budget = Budget::new(Flap::default(), Time::ZERO, 0);
        for _ in 0..5 {
            assert_eq!(budget.announce_at(Time::ZERO), Time::ZERO);
            budget.withdrawn(Time::ZERO);
        }
        assert_eq!(budget.announce_at(Time::ZERO), Time::ZERO, "5000 and one more are 6000: not above");
        budget.changed(Time::ZERO);
        let wait = budget.announce_at(Time::ZERO);
        // 5500 → 5000: log2(1.1) half-lives.
        assert_eq!(wait.since(Time::ZERO).as_secs(), 123);
        assert_eq!(budget.announce_at(wait), wait);
        assert!(budget.change_at(wait) > wait);
        assert!(budget.left(Time::ZERO) == 500.0);
    }

    #[test]
    fn waits_end_whatever_the_parameters() {
        let mut rng = Rng::new(7);
        for _ in 0..2000 {
            let any = |rng: &mut Rng| (rng.below(1 << 20) >> rng.below(20)) as u32;
            let config = Flap {
                half_life: Duration::from_secs(rng.below(100_000)),
                suppress: any(&mut rng),
                withdrawal: any(&mut rng),
                change: any(&mut rng),
            };
            let mut now = at(rng.below(1000));
            let mut budget = Budget::new(config, now, any(&mut rng));
            let before = budget.penalty(now);
            let mut waits = 0;
            while let wait @ 1.. = budget.change_at(now).since(now).as_nanos() {
                now = now + Duration::from_nanos(u64::try_from(wait).unwrap());
                waits += 1;
                assert!(waits < 100, "{config:?} from {before}");
            }
            budget.changed(now);
            assert!(budget.penalty(now).is_finite());
        }
    }
}
