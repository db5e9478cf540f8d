//! One check: its counters, its grid of polls and what a result does to it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::histogram::Durations;
use super::{CheckConfig, CheckStatus, Counters, JITTER_DIVISOR, MIN_EVERY, Role};
use crate::Time;
use crate::rng::Rng;

/// Thousandths of a unit in a unit.
const THOUSANDTHS: u64 = 1000;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Check {
    pub(super) config: CheckConfig,
    pub(super) up: bool,
    pub(super) since: Time,
    pub(super) cause: String,
    /// Results in a row that speak against the present state.
    pub(super) streak: u32,
    /// The poll under way and when it began.
    pub(super) outstanding: Option<(u64, Time)>,
    /// Next point of the grid, and the start of the next poll: the same plus jitter, or earlier after a failure.
    pub(super) grid: Time,
    pub(super) start: Time,
    last: Option<(Time, Result<(), String>)>,
    value: Option<u64>,
    /// The last failure was one of what was answered.
    pub(super) answered: bool,
    pub(super) counters: Counters,
    pub(super) durations: Durations,
}

impl CheckConfig {
    /// The same within the limits: [`MIN_EVERY`], `timeout` at most `every`, counters at least 1, `low` at most `high`.
    pub(super) fn bounded(self) -> CheckConfig {
        let every = self.every.max(MIN_EVERY);
        let role = match self.role {
            Role::Load { high, low, unit } => Role::Load { high, low: low.min(high.saturating_sub(1)), unit },
            role => role,
        };
        let (timeout, fall, rise) = (self.timeout.min(every), self.fall.max(1), self.rise.max(1));
        let retry = self.retry.map(|retry| retry.clamp(MIN_EVERY, every));
        CheckConfig { every, timeout, retry, fall, rise, role, ..self }
    }

    /// Bound of the jitter: two polls never start closer than `timeout`.
    pub(super) fn jitter(&self) -> Duration {
        (self.every / JITTER_DIVISOR).min((self.every - self.timeout) / 2)
    }
}

impl Check {
    pub(super) fn new(config: CheckConfig) -> Check {
        let load = matches!(config.role, Role::Load { .. });
        Check {
            config: config.bounded(),
            up: load,
            since: Time::ZERO,
            cause: String::new(),
            streak: 0,
            outstanding: None,
            grid: Time::ZERO,
            start: Time::ZERO,
            last: None,
            value: None,
            answered: false,
            counters: Counters::default(),
            durations: Durations::default(),
        }
    }

    /// One that joins others which are at work; `up`: it counts as up until its polls tell otherwise.
    pub(super) fn added(now: Time, config: CheckConfig, up: bool) -> Check {
        let mut check = Check::new(config);
        check.begin(now);
        if up && !check.up {
            check.up = true;
            check.cause = format!("check {}: new, taken as up until a poll has ended", check.config.name);
        }
        check
    }

    /// The same test under other terms.
    pub(super) fn with(mut self, config: CheckConfig) -> Check {
        let config = config.bounded();
        if config != self.config {
            self.streak = 0;
        }
        self.config = config;
        self
    }

    /// Whether `config` describes the same test: its state says something of that one, too.
    pub(super) fn is_same_as(&self, config: &CheckConfig) -> bool {
        let load = matches!(config.role, Role::Load { .. });
        self.config.name == config.name && self.config.what == config.what && self.is_load() == load
    }

    pub(super) fn is_load(&self) -> bool {
        matches!(self.config.role, Role::Load { .. })
    }

    pub(super) fn begin(&mut self, now: Time) {
        self.since = now;
        self.cause = format!("check {}: no poll has ended yet", self.config.name);
    }

    /// Puts the next point of the grid after the poll that begins now, at a share of the room up to the interval's end.
    pub(super) fn set_grid(&mut self, now: Time, share: f64) {
        let CheckConfig { every, timeout, .. } = self.config;
        let room = every - self.config.jitter() - timeout;
        self.grid = now + timeout + room.mul_f64(share);
        self.start = self.grid;
    }

    /// Moves the grid past `now`, leaving out points a late driver missed: polls never come in bursts. After a poll ahead
    /// of the grid, it goes on from that one.
    pub(super) fn advance(&mut self, now: Time, rng: &mut Rng) {
        self.grid = self.grid.min(now);
        let jitter = self.config.jitter();
        let step = u64::try_from((self.config.every - jitter).as_nanos()).unwrap_or(u64::MAX).max(1);
        let missed = now.0.saturating_sub(self.grid.0) / step;
        self.grid = Time(self.grid.0.saturating_add(step.saturating_mul(missed + 1)));
        self.start = self.grid + jitter.mul_f64(rng.next_f64());
    }

    pub(super) fn deadline(&self) -> Time {
        self.outstanding.map_or(self.start, |(_, began)| self.start.min(began + self.config.timeout))
    }

    /// A success that took too long is none.
    pub(super) fn within_latency(&self, took: Duration, result: Result<(), String>) -> Result<(), String> {
        match self.config.latency {
            Some(latency) if took > latency && result.is_ok() => {
                Err(format!("took {:.1} ms, at most {:.1} ms allowed", ms(took), ms(latency)))
            }
            _ => result,
        }
    }

    /// Counts the result of the poll that `began` then; the cause when it changes the state.
    pub(super) fn count(&mut self, now: Time, began: Time, result: Result<(), String>) -> Option<String> {
        match result {
            Ok(()) => self.counters.successes += 1,
            Err(_) => self.counters.failures += 1,
        }
        if self.is_load() {
            // A measurement that failed tells nothing of load: the state stays.
            self.last = Some((now, result));
            return None;
        }
        let against = result.is_ok() != self.up;
        self.streak = if against { self.streak.saturating_add(1) } else { 0 };
        let CheckConfig { name, fall, rise, .. } = &self.config;
        let limit = if self.up { *fall } else { *rise };
        let turns = self.streak >= limit;
        if let Some(retry) = self.config.retry.filter(|_| self.up && against && !turns) {
            self.start = self.start.min((began + retry).max(now));
        }
        let cause = turns.then(|| match &result {
            Ok(()) => format!("check {name}: {limit} of {limit} polls succeeded"),
            Err(error) => format!("check {name}: {limit} of {limit} polls failed: {error}"),
        });
        self.last = Some((now, result));
        cause
    }

    /// Counts one measurement; the new state and its cause when it changes. Between the thresholds nothing does.
    pub(super) fn count_load(&mut self, now: Time, value: u64) -> Option<(bool, String)> {
        self.counters.successes += 1;
        self.last = Some((now, Ok(())));
        self.value = Some(value);
        let CheckConfig { name, fall, rise, role: Role::Load { high, low, unit }, .. } = &self.config else {
            return None;
        };
        let (against, limit, threshold, side) = match self.up {
            true => (value >= *high, *fall, *high, "at or above"),
            false => (value <= *low, *rise, *low, "at or below"),
        };
        self.streak = if against { self.streak.saturating_add(1) } else { 0 };
        let (value, threshold) = (amount(value), amount(threshold));
        let cause = || format!("check {name}: {limit} of {limit} polls {side} {threshold} {unit}: {value} {unit}");
        (self.streak >= limit).then(|| (!self.up, cause()))
    }

    pub(super) fn turn(&mut self, now: Time, up: bool, cause: &str) {
        self.up = up;
        self.since = now;
        self.streak = 0;
        self.counters.transitions += 1;
        cause.clone_into(&mut self.cause);
    }

    /// Whether it counts as up without having been polled well: see [`Check::added`].
    pub(super) fn is_presumed(&self) -> bool {
        self.up && !self.is_load() && self.counters.successes == 0
    }

    /// Whether nothing is known yet that speaks against it: it has neither been up nor failed `fall` times.
    pub(super) fn is_undecided(&self) -> bool {
        self.counters.transitions == 0 && self.counters.failures < u64::from(self.config.fall)
    }

    pub(super) fn status(&self) -> CheckStatus<'_> {
        CheckStatus {
            name: &self.config.name,
            role: &self.config.role,
            up: self.up,
            since: self.since,
            cause: &self.cause,
            streak: self.streak,
            last: self.last.as_ref().map(|(at, _)| *at),
            last_error: self.last.as_ref().and_then(|(_, result)| result.as_ref().err().map(String::as_str)),
            value: self.value,
            counters: self.counters,
            durations: self.durations.all(),
            recent: self.durations.recent(),
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Thousandths as people write them.
fn amount(value: u64) -> String {
    match value % THOUSANDTHS {
        0 => (value / THOUSANDTHS).to_string(),
        rest => format!("{}.{}", value / THOUSANDTHS, rest / 100),
    }
}
