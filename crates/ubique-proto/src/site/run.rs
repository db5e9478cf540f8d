//! The site core at work.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::policy::{Level, Stance};

use super::guard::{LastSite, Situation};
use super::shed::Ladder;
use super::{FlapStatus, In, Memory, Out, SiteConfig, SiteStatus, State};
use crate::Time;
use crate::flap::Budget;

/// How long after a service address gave no answer it is asked again.
pub const VERIFY_RETRY: Duration = Duration::from_secs(1);

/// The start gate: nothing is announced before each service address has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Gate {
    Closed,
    Asking,
    Refused { until: Time, why: String },
    Open,
}

/// The site core: see the header of [`super`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Site {
    config: SiteConfig,
    state: State,
    since: Time,
    cause: String,
    started: bool,
    level: Level,
    /// A verdict was better than failed: the service has served.
    served: bool,
    /// The service answers, but not what it should.
    answers: bool,
    health_cause: String,
    drain: Option<String>,
    /// What upstreams are told.
    told: Option<Stance>,
    gate: Gate,
    guard: LastSite,
    /// [`Out::LastSite`] was said.
    alarmed: bool,
    ladder: Ladder,
    flap: Option<Budget>,
    /// Until when what is wanted waits for the flap budget.
    waits_until: Option<Time>,
    /// How long the graceful part of this drain lasts at most.
    leave_within: Option<Duration>,
    /// When a drain withdraws.
    withdraw_at: Option<Time>,
    /// Until when queries that were routed here before the last withdrawal may still arrive.
    stragglers_until: Option<Time>,
    outputs: VecDeque<Out>,
}

impl Site {
    /// A site that waits for [`In::Start`].
    pub fn new(config: SiteConfig) -> Site {
        let memory = &config.memory;
        let flap = config.flap.map(|flap| {
            let lost = if memory.announced { flap.withdrawal } else { 0 };
            Budget::new(flap, Time::ZERO, memory.penalty.saturating_add(lost))
        });
        Site {
            state: State::Starting,
            since: Time::ZERO,
            cause: String::from("not started"),
            started: false,
            level: Level::Failed,
            served: false,
            answers: false,
            health_cause: String::from("no verdict yet"),
            drain: memory.drain.clone(),
            told: None,
            gate: if config.guard.start { Gate::Closed } else { Gate::Open },
            alarmed: false,
            guard: LastSite::new(config.guard, &config.upstreams, &memory.shown),
            ladder: Ladder::new(config.shed_steps),
            flap,
            waits_until: None,
            leave_within: None,
            withdraw_at: None,
            stragglers_until: None,
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Tells what happened. What does not apply in the present state, or repeats what is known, changes nothing.
    pub fn handle_input(&mut self, now: Time, input: In) {
        let mut news = None;
        match input {
            In::Start => return self.start(now),
            In::AddressesAdded => {
                if self.started && self.state == State::Starting {
                    self.settle(now, None);
                }
                return;
            }
            In::AddressesRemoved => return self.addresses_removed(now),
            In::Stop { reason } => return self.stop(now, &reason),
            In::Verdict { level, answers, cause } => {
                news = (level != self.level).then(|| cause.clone());
                self.served |= level != Level::Failed;
                (self.level, self.answers, self.health_cause) = (level, answers, cause);
            }
            In::Overload { on, cause } => self.ladder.load(now, on, cause),
            In::Others { upstream, up, others } => {
                let leaving = self.told.is_some_and(|told| told.leaving || told.last_resort);
                self.guard.others(now, upstream, up, others, leaving);
            }
            In::Verified { result } => self.verified(now, result),
            In::Probed { upstream, answered } => self.guard.probed(now, &upstream, answered),
            In::Drain { reason } => {
                if self.drain.is_some() {
                    return;
                }
                self.drain = Some(reason);
            }
            In::Leave { reason, within } => {
                if self.drain.is_some() {
                    return;
                }
                (self.drain, self.leave_within) = (Some(reason), Some(within));
            }
            In::Emptied => {
                // What is over by now ends in `resettle`.
                self.withdraw_at = self.withdraw_at.map(|at| at.min(now));
            }
            In::Undrain { reason } => {
                self.leave_within = None;
                if self.drain.take().is_none() {
                    return;
                }
                news = self.is_fit().then(|| format!("undrained: {reason}"));
            }
            In::Configure { config } => self.configure(now, *config),
        }
        self.resettle(now, news);
    }

    /// Ends the graceful part of a drain, the wait for stragglers or for the flap budget; takes a step of shedding; asks
    /// again what was asked.
    pub fn handle_deadline(&mut self, now: Time) {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.state {
            State::Stopping => self.remove(now, "drain time is over"),
            _ => self.resettle(now, None),
        }
    }

    /// When [`Site::handle_deadline`] must be called next.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.state {
            State::Stopping => self.stragglers_until,
            State::Starting | State::Removing | State::Stopped => None,
            _ => {
                let draining = self.withdraw_at.filter(|_| self.state == State::Draining);
                let gate = match &self.gate {
                    Gate::Refused { until, .. } if self.is_wanted() => Some(*until),
                    _ => None,
                };
                let ladder = self.ladder.next_deadline().filter(|_| !self.sheds_late());
                let all = [draining, gate, self.waits_until, self.guard.next_deadline(), ladder];
                all.into_iter().flatten().min()
            }
        }
    }

    /// What the driver must do next; call until `None`.
    pub fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    /// What an operator sees.
    pub fn status(&self, now: Time) -> SiteStatus<'_> {
        SiteStatus {
            state: self.state,
            since: self.since,
            cause: &self.cause,
            level: self.level,
            stance: self.told,
            drain: self.drain.as_deref(),
            overload: self.ladder.overload(),
            flap: self.flap.as_ref().map(|budget| FlapStatus {
                left: budget.left(now),
                suppress: budget.config().suppress,
                waits_until: self.waits_until,
            }),
            guard: self.guard.words(),
        }
    }

    /// Its parameters.
    pub fn config(&self) -> &SiteConfig {
        &self.config
    }

    /// The state, which needs no time.
    pub fn state(&self) -> State {
        self.state
    }

    /// What must be known after a restart.
    pub fn memory(&self, now: Time) -> Memory {
        Memory {
            penalty: self.flap.as_ref().map_or(0, |budget| budget.penalty(now).ceil() as u32),
            announced: self.told.is_some(),
            drain: self.drain.clone(),
            shown: self.guard.shown(),
        }
    }

    fn start(&mut self, now: Time) {
        if self.started || self.state == State::Stopped {
            return;
        }
        self.started = true;
        if let Some(budget) = &mut self.flap {
            // The penalty that was brought along is of now.
            *budget = Budget::new(*budget.config(), now, budget.penalty(Time::ZERO).ceil() as u32);
        }
        self.outputs.push_back(Out::AddAddresses);
        self.enter(now, State::Starting, "started");
    }

    fn configure(&mut self, now: Time, config: SiteConfig) {
        self.guard.reconfigure(config.guard, &config.upstreams);
        self.ladder.reconfigure(config.shed_steps);
        match (&mut self.flap, config.flap) {
            (Some(budget), Some(flap)) => budget.reconfigure(now, flap),
            (budget, flap) => *budget = flap.map(|flap| Budget::new(flap, now, 0)),
        }
        if !config.guard.start {
            self.gate = Gate::Open;
        }
        self.config = config;
    }

    /// Somebody took the addresses away unasked: no query can be answered until they are back.
    fn addresses_removed(&mut self, now: Time) {
        const CAUSE: &str = "addresses are gone from the loopback";
        match self.state {
            State::Starting | State::Stopped => {}
            State::Stopping | State::Removing => self.exit(now, "addresses are removed"),
            _ => {
                self.withdraw_if_announced(now, CAUSE);
                self.gate = if self.config.guard.start { Gate::Closed } else { Gate::Open };
                self.guard.rest();
                self.outputs.push_back(Out::AddAddresses);
                self.enter(now, State::Starting, CAUSE);
            }
        }
    }

    /// A level at which the site is announced.
    fn is_fit(&self) -> bool {
        match self.level {
            Level::Healthy => true,
            Level::Degraded => self.config.degraded_speaks,
            Level::Failed => self.config.failed_speaks && self.served,
        }
    }

    /// Fit, and nobody wants it empty.
    fn is_wanted(&self) -> bool {
        self.is_fit() && self.drain.is_none()
    }

    fn verified(&mut self, now: Time, result: Result<(), String>) {
        if self.gate == Gate::Asking {
            self.gate = match result {
                Ok(()) => Gate::Open,
                Err(why) => Gate::Refused { until: now + VERIFY_RETRY, why },
            };
        }
    }

    /// After a change of what is known or wished, where these matter.
    fn resettle(&mut self, now: Time, cause: Option<String>) {
        if !matches!(self.state, State::Starting | State::Stopping | State::Removing | State::Stopped) {
            self.settle(now, cause);
        }
    }

    /// Enters the state that verdict, wish and guards ask for, now that the addresses are there.
    fn settle(&mut self, now: Time, cause: Option<String>) {
        if !self.sheds_late() {
            self.ladder.advance(now);
        }
        self.knock(now);
        let situation = Situation {
            unneeded: self.is_fit() || self.drain.is_some(),
            announced: self.told.is_some(),
            resort: self.told.is_some_and(|told| told.last_resort),
            answers: self.answers,
            try_at: self.flap.as_ref().map_or(now, |budget| budget.announce_at(now)),
        };
        let probes = self.guard.advance(now, situation);
        self.stand(now, cause);
        // After the withdrawal that they follow.
        for upstream in probes {
            self.outputs.push_back(Out::Probe { upstream, within: self.config.guard.last_site });
        }
    }

    /// Tells upstreams what follows from all that is known, or waits until it may.
    fn stand(&mut self, now: Time, cause: Option<String>) {
        let (state, stance, standing_cause) = self.target(now);
        self.waits_until = self.waits(now, stance);
        if self.waits_until.is_some() {
            return self.wait(now, state);
        }
        let cause = cause.unwrap_or(standing_cause);
        self.tell(now, stance, &cause);
        if state == State::Announced {
            self.guard.arm();
        }
        if state != self.state {
            self.enter(now, state, &cause);
        }
        let alarm = state == State::LastResort && self.guard.is_last();
        if alarm && !std::mem::replace(&mut self.alarmed, alarm) {
            cause.clone_into(&mut self.cause);
            self.outputs.push_back(Out::LastSite { cause });
        }
        self.alarmed = alarm;
    }

    /// The last step of shedding waits for the flap budget: the next one waits for it.
    fn sheds_late(&self) -> bool {
        self.waits_until.is_some() && self.told.is_some_and(|told| told.shed != self.ladder.taken())
    }

    /// Asks for an answer on the service addresses, when that is what is missing.
    fn knock(&mut self, now: Time) {
        let due = match &self.gate {
            Gate::Closed => true,
            Gate::Refused { until, .. } => *until <= now,
            Gate::Asking | Gate::Open => false,
        };
        if due && self.is_wanted() {
            self.gate = Gate::Asking;
            self.outputs.push_back(Out::Verify);
        }
    }

    /// What should be, if nothing had to wait.
    fn target(&self, now: Time) -> (State, Option<Stance>, String) {
        let shed = self.ladder.taken();
        if let Some(reason) = &self.drain {
            return match self.told.filter(|_| self.may_drain_gracefully(now)) {
                Some(told) => (State::Draining, Some(Stance { leaving: true, ..told }), format!("draining: {reason}")),
                None => (State::Drained, None, format!("drained: {reason}")),
            };
        }
        if self.is_fit() {
            return match &self.gate {
                Gate::Open => {
                    (State::Announced, Some(Stance { shed, ..Stance::at(self.level) }), self.health_cause.clone())
                }
                Gate::Refused { why, .. } => (State::Held, None, why.clone()),
                _ => (State::Held, None, String::from("waiting for an answer on each service address")),
            };
        }
        if self.guard.is_resort() {
            let stance = Stance { shed, last_resort: true, ..Stance::at(Level::Failed) };
            let why = if self.guard.is_last() { "no other site is seen" } else { "others are given time to take over" };
            return (State::LastResort, Some(stance), format!("{why}; {}", self.health_cause));
        }
        (State::Unhealthy, None, self.health_cause.clone())
    }

    /// Until when the flap budget makes a change wait. Withdrawals, changes for the worse and an operator's do not.
    fn waits(&self, now: Time, stance: Option<Stance>) -> Option<Time> {
        let budget = self.flap.as_ref()?;
        let at = match (self.told, stance?) {
            (None, new) if new.last_resort => return None,
            (None, _) => budget.announce_at(now),
            (Some(old), new) if old == new || new.level > old.level => return None,
            (Some(old), new) if (new.leaving && !old.leaving) || (new.last_resort && !old.last_resort) => return None,
            (Some(_), _) => budget.change_at(now),
        };
        (at > now).then_some(at)
    }

    /// What waits leaves upstreams with what they have been told; a site they know nothing of is held.
    fn wait(&mut self, now: Time, wanted: State) {
        let state = match self.told {
            None => State::Held,
            Some(told) if told.last_resort => State::LastResort,
            Some(_) => wanted,
        };
        if state != self.state {
            let words = self.status(now).flap.map(|flap| flap.words(now)).unwrap_or_default();
            self.enter(now, state, &words);
        }
    }

    /// Tells upstreams what is new to them.
    fn tell(&mut self, now: Time, stance: Option<Stance>, cause: &str) {
        if self.told == stance {
            return;
        }
        let Some(stance) = stance else {
            return self.withdraw_if_announced(now, cause);
        };
        if let (Some(_), Some(budget)) = (self.told, &mut self.flap) {
            budget.changed(now);
        }
        if stance.leaving {
            self.withdraw_at = Some(now + self.graceful());
        }
        self.told = Some(stance);
        cause.clone_into(&mut self.cause);
        self.outputs.push_back(Out::Announce { stance, cause: cause.to_owned() });
    }

    /// A healthy site that is announced may stay so while a drain moves its traffic, until the time for that is over.
    fn may_drain_gracefully(&self, now: Time) -> bool {
        self.is_fit()
            && match self.told {
                Some(told) if told.leaving => self.withdraw_at.is_some_and(|at| at > now),
                Some(_) => self.state == State::Announced && !self.graceful().is_zero(),
                None => false,
            }
    }

    fn graceful(&self) -> Duration {
        self.leave_within.unwrap_or(self.config.graceful_shutdown)
    }

    fn stop(&mut self, now: Time, reason: &str) {
        match self.state {
            State::Starting if !self.started => self.exit(now, reason),
            State::Stopping => self.remove(now, &format!("told to stop again: {reason}")),
            State::Removing | State::Stopped => {}
            _ => {
                self.withdraw_if_announced(now, reason);
                if self.stragglers_until.is_some_and(|until| until > now) {
                    self.enter(now, State::Stopping, reason);
                } else {
                    self.remove(now, reason);
                }
            }
        }
    }

    fn withdraw_if_announced(&mut self, now: Time, cause: &str) {
        if self.told.take().is_some() {
            self.outputs.push_back(Out::Withdraw { cause: cause.to_owned() });
            self.stragglers_until = Some(now + self.config.drain);
            if let Some(budget) = &mut self.flap {
                budget.withdrawn(now);
            }
        }
    }

    fn remove(&mut self, now: Time, cause: &str) {
        self.outputs.push_back(Out::RemoveAddresses);
        self.enter(now, State::Removing, cause);
    }

    fn exit(&mut self, now: Time, cause: &str) {
        self.enter(now, State::Stopped, cause);
        self.outputs.push_back(Out::Exit);
    }

    fn enter(&mut self, now: Time, state: State, cause: &str) {
        self.state = state;
        self.since = now;
        cause.clone_into(&mut self.cause);
        self.outputs.push_back(Out::State { state, cause: cause.to_owned() });
    }
}
