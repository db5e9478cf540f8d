//! Health: from results of checks to one verdict.
//!
//! Each check has rise and fall counters; an event (the serving socket or process is gone) turns its check
//! down at once, without waiting for `fall` polls, and it then needs `rise` successes like any other. Every check
//! starts down: nothing is announced on hope.
//!
//! What a check that is down means is its [`Role`]: the site has failed or is degraded, or a group counts the weights
//! of its checks that are up. The verdict is the worst [`Level`] of all checks and groups, and names the one that
//! decides. Checks of load never touch it: they turn overload on and off, each with a threshold for either way.
//!
//! Polls start on a fixed grid, so that a slow driver does not make them drift. The grid is a little denser than
//! `every` and each start is jittered within the difference: checks do not fall into step with anything periodic
//! on the host, and still `every` is never exceeded. Where a poll starts, others whose time has come but for their jitter
//! start, too: fewer moments at which a driver must wake. Hence a service that stops answering is down after at most
//! `fall` × `every` + `timeout`. A check with [`CheckConfig::retry`] does not wait for the grid once a poll has failed: it
//! polls again after that long, or at once where the failure itself took longer, until it is down or a poll succeeds; the
//! grid then goes on from the last poll. It is down after at most `every` + (`fall` − 1) × the longer of `retry` and
//! `timeout` + `timeout`.
//!
//! [`In::Configure`] changes checks and groups while all goes on. A check that tests the same as before keeps its
//! state, even when its timing or role changes. A new one counts as up until its polls tell otherwise or the site has
//! failed: to add a check withdraws nobody, and still nothing is announced on hope.
//!
//! A driver calls [`Health::handle_deadline`] once at its start; until then [`Health::next_deadline`] is in the
//! past. When results and a deadline are ready together, it feeds the results first: its own delay is not the
//! service's.
//!
//! Deliberately absent: how a poll is made, and damping of flapping beyond `rise`.

mod check;
mod histogram;
mod verdict;

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::policy::Level;

use self::check::Check;
pub use self::histogram::{BUCKETS_US, Histogram, Recent};
use crate::Time;
use crate::rng::Rng;

/// Least interval between two polls of a check; a smaller one counts as this.
pub const MIN_EVERY: Duration = Duration::from_millis(1);

/// So many checks begin together: each waking of the driver, and of the service, costs more than a further poll does.
const TOGETHER: usize = 32;

/// The jitter of a poll's start is at most `every` divided by this.
const JITTER_DIVISOR: u32 = 50;

/// Parameters of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckConfig {
    /// Name, for causes.
    pub name: String,
    /// What is tested: equal texts mean the same test. Tells, when checks change, which are the same as before.
    pub what: String,
    /// Interval between the starts of two polls; at least [`MIN_EVERY`]. Never longer, shorter by at most 4 %.
    pub every: Duration,
    /// A poll without a result by then has failed; at most `every`.
    pub timeout: Duration,
    /// Interval between the starts of two polls while it is up and the last one has failed; at most `every`, which it is
    /// for `None`. Without meaning for load.
    pub retry: Option<Duration>,
    /// A success that took longer is a failure.
    pub latency: Option<Duration>,
    /// Failures in a row that turn it down.
    pub fall: u32,
    /// Successes in a row that turn it up.
    pub rise: u32,
    /// What it means to the site.
    pub role: Role,
}

/// What a check means to the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// While it is down, the site is at this level or worse.
    Alone(Level),
    /// A group counts it.
    Member {
        /// Name of the group; in one that does not exist it counts as [`Role::Alone`] with [`Level::Failed`].
        group: String,
        /// How much it counts.
        weight: u32,
    },
    /// It measures load and says nothing of the level.
    Load {
        /// Overloaded after `fall` polls in a row at or above this, thousandths of the unit.
        high: u64,
        /// No longer after `rise` polls in a row at or below this, thousandths of the unit; at most `high`.
        low: u64,
        /// The unit, for causes.
        unit: String,
    },
}

/// Checks that count together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupConfig {
    /// Name, for causes.
    pub name: String,
    /// Healthy while the weights of its checks that are up sum up to this.
    pub healthy: u32,
    /// Degraded while they sum up to this; with less, failed. At most `healthy`.
    pub degraded: u32,
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
        /// How long it took.
        took: Duration,
        /// `Err`: why it failed, in words.
        result: Result<(), String>,
        /// It failed by what was answered, not for want of an answer.
        answered: bool,
    },
    /// Result of a poll of a check of load that could measure.
    Load {
        /// Index of the check.
        check: usize,
        /// Number given by [`Out::Poll`].
        poll: u64,
        /// How long it took.
        took: Duration,
        /// What was measured, thousandths of the unit.
        value: u64,
    },
    /// The socket or process that serves this check is gone: down at once.
    Gone {
        /// Index of the check.
        check: usize,
        /// What was seen, in words.
        cause: String,
    },
    /// Other checks and groups from now on. Polls under way are void: their results may still come, but tell nothing.
    Configure {
        /// All checks.
        checks: Vec<CheckConfig>,
        /// All groups.
        groups: Vec<GroupConfig>,
    },
}

/// What the driver must do, or learns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Out {
    /// Start a poll; report its end as [`In::Result`] or [`In::Load`] with this number.
    Poll {
        /// Index of the check.
        check: usize,
        /// Number of the poll; no other poll of any check has it.
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
        /// Its new state; a check of load is down while it tells of overload.
        up: bool,
        /// Why.
        cause: String,
    },
    /// The verdict over all checks changed.
    Verdict {
        /// What the site is fit for.
        level: Level,
        /// All checks that make it failed are down by what was answered: the checks may be wrong.
        answers: bool,
        /// Why: the check or group that decides.
        cause: String,
    },
    /// The site began or ceased to be overloaded.
    Overload {
        /// Whether it is.
        on: bool,
        /// Why.
        cause: String,
    },
}

/// State of a check, for status and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckStatus<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it means to the site.
    pub role: &'a Role,
    /// Its state; a check of load is down while it tells of overload.
    pub up: bool,
    /// When it took that state.
    pub since: Time,
    /// Why it took that state.
    pub cause: &'a str,
    /// Results in a row that speak against its state.
    pub streak: u32,
    /// When the last poll ended; `None`: none has.
    pub last: Option<Time>,
    /// Why the last poll failed; `None`: it did not.
    pub last_error: Option<&'a str>,
    /// What the last poll of a check of load measured, thousandths of its unit.
    pub value: Option<u64>,
    /// Numbers since the start.
    pub counters: Counters,
    /// How long the polls took that ended by themselves.
    pub durations: &'a Histogram,
    /// The same of the last minutes.
    pub recent: Recent<'a>,
}

/// State of a group, for status and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupStatus<'a> {
    /// Its thresholds.
    pub config: &'a GroupConfig,
    /// Its level.
    pub level: Level,
    /// Weight of its checks that are up.
    pub up: u32,
    /// Weight of all its checks.
    pub weight: u32,
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

/// The health core: see the module's header.
#[derive(Debug, Serialize, Deserialize)]
pub struct Health {
    checks: Vec<Check>,
    groups: Vec<GroupConfig>,
    rng: Rng,
    /// Number of the next poll.
    next_poll: u64,
    started: bool,
    level: Level,
    answers: bool,
    since: Time,
    cause: String,
    overload: bool,
    overload_cause: String,
    outputs: VecDeque<Out>,
}

impl Health {
    /// All checks down, the first poll of each at the first [`Health::handle_deadline`]. `seed`: of all jitter.
    pub fn new(checks: Vec<CheckConfig>, groups: Vec<GroupConfig>, seed: u64) -> Health {
        Health {
            checks: checks.into_iter().map(Check::new).collect(),
            groups,
            rng: Rng::new(seed),
            next_poll: 0,
            started: false,
            level: Level::Failed,
            answers: false,
            since: Time::ZERO,
            cause: String::from("no poll has ended yet"),
            overload: false,
            overload_cause: String::from("no poll has ended yet"),
            outputs: VecDeque::new(),
        }
    }

    /// Tells what happened. Unknown checks and polls that are not under way are ignored.
    pub fn handle_input(&mut self, now: Time, input: In) {
        match input {
            In::Result { check, poll, took, result, answered } => {
                if let Some(began) = self.ended(now, check, poll, took) {
                    self.count(now, check, began, took, result, answered);
                }
            }
            In::Load { check, poll, took, value } => {
                if self.ended(now, check, poll, took).is_some() {
                    self.count_load(now, check, value);
                }
            }
            In::Gone { check, cause } => self.gone(now, check, &cause),
            In::Configure { checks, groups } => self.reconfigure(now, checks, groups),
        }
    }

    /// Ends polls that timed out and starts those that are due.
    pub fn handle_deadline(&mut self, now: Time) {
        if !self.started {
            self.start(now);
        }
        let starting = self.checks.iter().any(|c| c.start <= now);
        for index in 0..self.checks.len() {
            let c = &mut self.checks[index];
            if let Some((poll, began)) = c.outstanding
                && began + c.config.timeout <= now
            {
                c.outstanding = None;
                c.counters.timeouts += 1;
                let (error, took) = (format!("timeout after {:?}", c.config.timeout), c.config.timeout);
                self.outputs.push_back(Out::Abandon { check: index, poll });
                self.count(now, index, began, took, Err(error), false);
            }
            let c = &mut self.checks[index];
            if c.start <= now || (starting && c.grid <= now) {
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

    /// Other checks and groups, as [`In::Configure`] has them.
    pub fn reconfigure(&mut self, now: Time, checks: Vec<CheckConfig>, groups: Vec<GroupConfig>) {
        let mut old: Vec<Option<Check>> = std::mem::take(&mut self.checks).into_iter().map(Some).collect();
        let hopeful = self.level != Level::Failed;
        for config in checks {
            let same = |c: &Option<Check>| c.as_ref().is_some_and(|c| c.is_same_as(&config));
            let kept = old.iter_mut().find(|c| same(c)).and_then(Option::take);
            let mut check = match kept {
                Some(kept) => kept.with(config),
                None => Check::added(now, config, hopeful),
            };
            check.outstanding = None;
            self.checks.push(check);
        }
        self.groups = groups;
        self.outputs.retain(|out| matches!(out, Out::Verdict { .. } | Out::Overload { .. }));
        if !self.started {
            return;
        }
        self.spread(now);
        for index in 0..self.checks.len() {
            self.poll(now, index);
        }
        self.judge(now, "the checks were changed");
        self.judge_load("the checks were changed");
    }

    /// What the site is fit for.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether everything is as it should be.
    pub fn healthy(&self) -> bool {
        self.level == Level::Healthy
    }

    /// Since when, and why, the verdict is what it is.
    pub fn verdict(&self) -> (Time, &str) {
        (self.since, &self.cause)
    }

    /// Whether the site is overloaded, and why it began or ceased to be.
    pub fn overload(&self) -> (bool, &str) {
        (self.overload, &self.overload_cause)
    }

    /// State of each check, in the order configured.
    pub fn checks(&self) -> impl Iterator<Item = CheckStatus<'_>> {
        self.checks.iter().map(Check::status)
    }

    /// State of each group, in the order configured.
    pub fn groups(&self) -> impl Iterator<Item = GroupStatus<'_>> {
        (0..self.groups.len()).map(|index| self.group_status(index, |c| c.up))
    }

    /// First polls at once, for a short start; the grids then begin spread over one interval.
    fn start(&mut self, now: Time) {
        self.started = true;
        self.since = now;
        for c in &mut self.checks {
            c.begin(now);
        }
        self.spread(now);
        for index in 0..self.checks.len() {
            self.poll(now, index);
        }
        self.judge(now, "no checks");
    }

    /// A few at a time: see [`TOGETHER`].
    fn spread(&mut self, now: Time) {
        let moments = self.checks.len().div_ceil(TOGETHER) as f64;
        for (moment, few) in self.checks.chunks_mut(TOGETHER).enumerate() {
            few.iter_mut().for_each(|c| c.set_grid(now, (moment + 1) as f64 / moments));
        }
    }

    fn poll(&mut self, now: Time, check: usize) {
        let poll = self.next_poll;
        self.next_poll += 1;
        let c = &mut self.checks[check];
        c.counters.polls += 1;
        c.outstanding = Some((poll, now));
        self.outputs.push_back(Out::Poll { check, poll });
    }

    /// This poll is no longer under way; when it began, if it was.
    fn ended(&mut self, now: Time, check: usize, poll: u64, took: Duration) -> Option<Time> {
        let c = self.checks.get_mut(check)?;
        let (_, began) = c.outstanding.take_if(|(number, _)| *number == poll)?;
        c.durations.record(now, took);
        Some(began)
    }

    /// Counts the end of the poll that `began` then.
    fn count(
        &mut self,
        now: Time,
        check: usize,
        began: Time,
        took: Duration,
        result: Result<(), String>,
        answered: bool,
    ) {
        let c = &mut self.checks[check];
        let answered = answered || result.is_ok();
        let result = c.within_latency(took, result);
        let up = result.is_ok();
        // A success says nothing of why it is down.
        let news = !up && answered != c.answered;
        if !up {
            c.answered = answered;
        }
        if let Some(cause) = c.count(now, began, result) {
            self.turn(now, check, up, cause);
        } else if news && !c.up {
            let cause = self.cause.clone();
            self.judge(now, &cause);
        }
    }

    fn count_load(&mut self, now: Time, check: usize, value: u64) {
        if let Some((up, cause)) = self.checks[check].count_load(now, value) {
            self.turn(now, check, up, cause);
        }
    }

    fn gone(&mut self, now: Time, check: usize, cause: &str) {
        let Some(c) = self.checks.get_mut(check).filter(|c| !c.is_load()) else {
            return;
        };
        c.counters.gone += 1;
        c.streak = 0;
        c.answered = false;
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
            c.cause = cause.clone();
            self.judge(now, &cause);
        }
    }

    fn turn(&mut self, now: Time, check: usize, up: bool, cause: String) {
        self.checks[check].turn(now, up, &cause);
        self.outputs.push_back(Out::Check { check, up, cause: cause.clone() });
        if self.checks[check].is_load() {
            self.judge_load(&cause);
        } else {
            self.judge(now, &cause);
        }
    }
}

#[cfg(test)]
mod tests;
