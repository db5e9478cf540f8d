//! Health: from results of checks to one verdict.
//!
//! Each check has rise and fall counters; an event (the serving socket or process is gone) turns its check
//! down at once, without waiting for `fall` polls, and it then needs `rise` successes like any other. Every check
//! starts down: nothing is announced on hope. The verdict is healthy when every check is up.
//!
//! Polls start on a fixed grid, so that a slow driver does not make them drift. The grid is a little denser than
//! `every` and each start is jittered within the difference: checks do not fall into step with anything periodic
//! on the host, and still `every` is never exceeded. Hence a service that stops answering is down after at most
//! `fall` × `every` + `timeout`.
//!
//! A driver calls [`Health::handle_deadline`] once at its start; until then [`Health::next_deadline`] is in the
//! past. When results and a deadline are ready together, it feeds the results first: its own delay is not the
//! service's.
//!
//! Deliberately absent: how a poll is made, and damping of flapping beyond `rise`.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::rng::Rng;

/// Least interval between two polls of a check; a smaller one counts as this.
pub const MIN_EVERY: Duration = Duration::from_millis(1);

/// The jitter of a poll's start is at most `every` divided by this.
const JITTER_DIVISOR: u32 = 50;

/// Parameters of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckConfig {
    /// Name, for causes.
    pub name: String,
    /// Interval between the starts of two polls; at least [`MIN_EVERY`]. Never longer, shorter by at most 4 %.
    pub every: Duration,
    /// A poll without a result by then has failed; at most `every`.
    pub timeout: Duration,
    /// Failures in a row that turn it down.
    pub fall: u32,
    /// Successes in a row that turn it up.
    pub rise: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum In {
    /// Result of poll number `poll` of a check; a late or repeated one is ignored.
    Result {
        /// Index of the check.
        check: usize,
        /// Number given by [`Out::Poll`].
        poll: u64,
        /// `Err`: why it failed, in words.
        result: Result<(), String>,
    },
    /// The socket or process that serves this check is gone: down at once.
    Gone {
        /// Index of the check.
        check: usize,
        /// What was seen, in words.
        cause: String,
    },
}

/// What the driver must do, or learns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Out {
    /// Start a poll; report its end as [`In::Result`] with this number.
    Poll {
        /// Index of the check.
        check: usize,
        /// Number of the poll.
        poll: u64,
    },
    /// The poll has timed out: abandon it. The core already counts it as failed.
    Abandon {
        /// Index of the check.
        check: usize,
        /// Number of the poll.
        poll: u64,
    },
    /// A check changed state.
    Check {
        /// Index of the check.
        check: usize,
        /// Its new state.
        up: bool,
        /// Why.
        cause: String,
    },
    /// The verdict over all checks changed.
    Verdict {
        /// Fit to serve.
        healthy: bool,
        /// Why.
        cause: String,
    },
}

/// State of a check, for status and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckStatus<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its state.
    pub up: bool,
    /// When it took that state.
    pub since: Time,
    /// Why it took that state.
    pub cause: &'a str,
    /// When the last poll ended; `None`: none has.
    pub last: Option<Time>,
    /// Why the last poll failed; `None`: it did not.
    pub last_error: Option<&'a str>,
    /// Numbers since the start.
    pub counters: Counters,
}

/// Numbers of a check since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Polls started.
    pub polls: u64,
    /// Polls that succeeded.
    pub successes: u64,
    /// Polls that failed, timeouts included.
    pub failures: u64,
    /// Polls that timed out.
    pub timeouts: u64,
    /// Events that told that the service is gone.
    pub gone: u64,
    /// Changes of state.
    pub transitions: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Check {
    config: CheckConfig,
    up: bool,
    since: Time,
    cause: String,
    /// Results in a row that speak against the present state.
    streak: u32,
    /// The poll under way and when it times out.
    outstanding: Option<(u64, Time)>,
    /// Next point of the grid, and the start of the next poll: the same plus jitter.
    grid: Time,
    start: Time,
    last: Option<(Time, Result<(), String>)>,
    counters: Counters,
}

/// The health core: see the module's header.
#[derive(Debug, Serialize, Deserialize)]
pub struct Health {
    checks: Vec<Check>,
    rng: Rng,
    started: bool,
    healthy: bool,
    since: Time,
    cause: String,
    outputs: VecDeque<Out>,
}

impl CheckConfig {
    /// The same within the limits: [`MIN_EVERY`], `timeout` at most `every`, counters at least 1.
    fn bounded(self) -> CheckConfig {
        let every = self.every.max(MIN_EVERY);
        CheckConfig { every, timeout: self.timeout.min(every), fall: self.fall.max(1), rise: self.rise.max(1), ..self }
    }

    /// Bound of the jitter: two polls never start closer than `timeout`.
    fn jitter(&self) -> Duration {
        (self.every / JITTER_DIVISOR).min((self.every - self.timeout) / 2)
    }
}

impl Check {
    fn new(config: CheckConfig) -> Check {
        Check {
            config: config.bounded(),
            up: false,
            since: Time::ZERO,
            cause: String::new(),
            streak: 0,
            outstanding: None,
            grid: Time::ZERO,
            start: Time::ZERO,
            last: None,
            counters: Counters::default(),
        }
    }

    /// Moves the grid past `now`, leaving out points a late driver missed: polls never come in bursts.
    fn advance(&mut self, now: Time, rng: &mut Rng) {
        let jitter = self.config.jitter();
        let step = u64::try_from((self.config.every - jitter).as_nanos()).unwrap_or(u64::MAX).max(1);
        let missed = now.0.saturating_sub(self.grid.0) / step;
        self.grid = Time(self.grid.0.saturating_add(step.saturating_mul(missed + 1)));
        self.start = self.grid + jitter.mul_f64(rng.next_f64());
    }

    fn deadline(&self) -> Time {
        self.outstanding.map_or(self.start, |(_, timeout)| timeout.min(self.start))
    }

    /// Counts one result; the cause when it changes the state.
    fn count(&mut self, now: Time, result: Result<(), String>) -> Option<String> {
        let against = result.is_ok() != self.up;
        self.streak = if against { self.streak.saturating_add(1) } else { 0 };
        let CheckConfig { name, fall, rise, .. } = &self.config;
        let limit = if self.up { *fall } else { *rise };
        let cause = match &result {
            Ok(()) => format!("check {name}: {limit} of {limit} polls succeeded"),
            Err(error) => format!("check {name}: {limit} of {limit} polls failed: {error}"),
        };
        match result {
            Ok(()) => self.counters.successes += 1,
            Err(_) => self.counters.failures += 1,
        }
        self.last = Some((now, result));
        (self.streak >= limit).then_some(cause)
    }

    fn turn(&mut self, now: Time, up: bool, cause: &str) {
        self.up = up;
        self.since = now;
        self.streak = 0;
        self.counters.transitions += 1;
        cause.clone_into(&mut self.cause);
    }
}

impl Health {
    /// All checks down, the first poll of each at the first [`Health::handle_deadline`]. `seed`: of all jitter.
    pub fn new(checks: Vec<CheckConfig>, seed: u64) -> Health {
        Health {
            checks: checks.into_iter().map(Check::new).collect(),
            rng: Rng::new(seed),
            started: false,
            healthy: false,
            since: Time::ZERO,
            cause: String::from("no poll has ended yet"),
            outputs: VecDeque::new(),
        }
    }

    /// Tells what happened. Unknown checks and polls that are not under way are ignored.
    pub fn handle_input(&mut self, now: Time, input: In) {
        match input {
            In::Result { check, poll, result } => {
                let Some(c) = self.checks.get_mut(check) else {
                    return;
                };
                if c.outstanding.is_some_and(|(number, _)| number == poll) {
                    c.outstanding = None;
                    self.count(now, check, result);
                }
            }
            In::Gone { check, cause } => self.gone(now, check, &cause),
        }
    }

    /// Ends polls that timed out and starts those that are due.
    pub fn handle_deadline(&mut self, now: Time) {
        if !self.started {
            self.start(now);
        }
        for index in 0..self.checks.len() {
            let c = &mut self.checks[index];
            if let Some((poll, timeout)) = c.outstanding
                && timeout <= now
            {
                c.outstanding = None;
                c.counters.timeouts += 1;
                let error = format!("timeout after {:?}", c.config.timeout);
                self.outputs.push_back(Out::Abandon { check: index, poll });
                self.count(now, index, Err(error));
            }
            let c = &mut self.checks[index];
            if c.start <= now {
                c.advance(now, &mut self.rng);
                // Only the poll after an event can still be under way here; it stands for this one.
                if c.outstanding.is_none() {
                    self.poll(now, index);
                }
            }
        }
    }

    /// When [`Health::handle_deadline`] must be called next; `None` without checks, once started.
    pub fn next_deadline(&self) -> Option<Time> {
        if !self.started {
            return Some(Time::ZERO);
        }
        self.checks.iter().map(Check::deadline).min()
    }

    /// What the driver must do next; call until `None`.
    pub fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    /// The verdict over all checks.
    pub fn healthy(&self) -> bool {
        self.healthy
    }

    /// Since when, and why, the verdict is what it is.
    pub fn verdict(&self) -> (Time, &str) {
        (self.since, &self.cause)
    }

    /// State of each check, in the order configured.
    pub fn checks(&self) -> impl Iterator<Item = CheckStatus<'_>> {
        self.checks.iter().map(|c| CheckStatus {
            name: &c.config.name,
            up: c.up,
            since: c.since,
            cause: &c.cause,
            last: c.last.as_ref().map(|(at, _)| *at),
            last_error: c.last.as_ref().and_then(|(_, result)| result.as_ref().err().map(String::as_str)),
            counters: c.counters,
        })
    }

    /// First polls at once, for a short start; the grids then begin spread over one interval.
    fn start(&mut self, now: Time) {
        self.started = true;
        self.since = now;
        let count = u32::try_from(self.checks.len()).unwrap_or(u32::MAX).max(1);
        for (index, c) in (1..=count).zip(&mut self.checks) {
            c.since = now;
            c.cause = format!("check {}: no poll has ended yet", c.config.name);
            let CheckConfig { every, timeout, .. } = c.config;
            let room = every - c.config.jitter() - timeout;
            c.grid = now + timeout + room.mul_f64(f64::from(index) / f64::from(count));
            c.start = c.grid;
        }
        for index in 0..self.checks.len() {
            self.poll(now, index);
        }
        self.judge(now, "no checks");
    }

    fn poll(&mut self, now: Time, check: usize) {
        let c = &mut self.checks[check];
        let poll = c.counters.polls;
        c.counters.polls += 1;
        c.outstanding = Some((poll, now + c.config.timeout));
        self.outputs.push_back(Out::Poll { check, poll });
    }

    fn count(&mut self, now: Time, check: usize, result: Result<(), String>) {
        let up = result.is_ok();
        if let Some(cause) = self.checks[check].count(now, result) {
            self.turn(now, check, up, cause);
        }
    }

    fn gone(&mut self, now: Time, check: usize, cause: &str) {
        let Some(c) = self.checks.get_mut(check) else {
            return;
        };
        c.counters.gone += 1;
        c.streak = 0;
        // What a poll begun before the event says is about a service that no longer is.
        if let Some((poll, _)) = c.outstanding.take() {
            self.outputs.push_back(Out::Abandon { check, poll });
        }
        let cause = format!("check {}: {cause}", c.config.name);
        if c.up {
            self.turn(now, check, false, cause);
            // Another process may have taken over already: the way back begins now.
            if self.started {
                self.poll(now, check);
            }
        } else {
            c.cause = cause;
        }
    }

    fn turn(&mut self, now: Time, check: usize, up: bool, cause: String) {
        self.checks[check].turn(now, up, &cause);
        self.outputs.push_back(Out::Check { check, up, cause: cause.clone() });
        self.judge(now, &cause);
    }

    fn judge(&mut self, now: Time, cause: &str) {
        let healthy = self.checks.iter().all(|c| c.up);
        if healthy == self.healthy {
            return;
        }
        self.healthy = healthy;
        self.since = now;
        self.cause = match self.checks.len() {
            count if healthy && count > 1 => format!("all {count} checks are up; {cause}"),
            _ => cause.to_owned(),
        };
        self.outputs.push_back(Out::Verdict { healthy, cause: self.cause.clone() });
    }
}

#[cfg(test)]
mod tests;
