//! The life of a site: the order that is safety.
//!
//! Up: addresses, healthy, announce. Down: withdraw, drain, remove. Each decision is local (design
//! principle 1) and carries its cause.
//!
//! Two rules hold in every state and are tested as invariants: nothing is announced unless the addresses are on
//! the loopback, the verdict is healthy and no operator wants the site empty; and the addresses stay until
//! `drain` has passed since the last withdrawal, so that queries on their way are answered. Only a second
//! [`In::Stop`] cuts that wait short. A site that is unhealthy or drained keeps its addresses: the checks of a
//! recovering service need them.
//!
//! Outputs are to be carried out in their order.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Time;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteConfig {
    /// How long the service goes on serving between the withdrawal and the removal of its addresses.
    pub drain: Duration,
    /// How long a drain announces with GRACEFUL_SHUTDOWN before it withdraws, so that upstreams move to other
    /// sites while this one still serves: make before break (RFC 8326). Zero: a drain withdraws at once.
    pub graceful_shutdown: Duration,
}

/// States.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Addresses are being added.
    Starting,
    /// Not announced: not healthy.
    Unhealthy,
    /// Announced.
    Announced,
    /// Announced with GRACEFUL_SHUTDOWN, on request: others are preferred, whoever has no other still comes here.
    Draining,
    /// Withdrawn on request; addresses stay, stragglers are served.
    Drained,
    /// Withdrawn because the agent ends; waiting for the drain time.
    Stopping,
    /// Addresses are being removed.
    Removing,
    /// The agent may exit.
    Stopped,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum In {
    /// Begin.
    Start,
    /// The addresses are on the loopback.
    AddressesAdded,
    /// The addresses are off the loopback.
    AddressesRemoved,
    /// Verdict of the health core.
    Verdict {
        /// Fit to serve.
        healthy: bool,
        /// Why.
        cause: String,
    },
    /// An operator wants the site empty.
    Drain {
        /// Why, as typed.
        reason: String,
    },
    /// The same, withdrawing after `within` at the latest.
    Leave {
        /// Why, as typed.
        reason: String,
        /// Instead of [`SiteConfig::graceful_shutdown`].
        within: Duration,
    },
    /// Nothing arrives any longer at a site that is leaving: it may withdraw.
    Emptied,
    /// An operator wants it back.
    Undrain {
        /// Why, as typed.
        reason: String,
    },
    /// The agent shall end (SIGTERM).
    Stop {
        /// Why.
        reason: String,
    },
}

/// What the driver must do, or learns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Out {
    /// Put the service addresses on the loopback; report [`In::AddressesAdded`].
    AddAddresses,
    /// Announce every prefix to every upstream.
    Announce {
        /// Why.
        cause: String,
    },
    /// Announce every prefix with the community GRACEFUL_SHUTDOWN (RFC 8326 §4).
    GracefulShutdown {
        /// Why.
        cause: String,
    },
    /// Withdraw every prefix from every upstream.
    Withdraw {
        /// Why.
        cause: String,
    },
    /// Take the addresses off the loopback; report [`In::AddressesRemoved`].
    RemoveAddresses,
    /// The state changed.
    State {
        /// New state.
        state: State,
        /// Why.
        cause: String,
    },
    /// Close all sessions (Cease, administrative shutdown) and exit.
    Exit,
}

/// What an operator sees of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SiteStatus<'a> {
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: Time,
    /// Why.
    pub cause: &'a str,
    /// The last verdict heard.
    pub healthy: bool,
    /// Why an operator wants the site empty; `None`: none does.
    pub drain: Option<&'a str>,
}

/// The site core: see the module's header.
#[derive(Debug, Serialize, Deserialize)]
pub struct Site {
    config: SiteConfig,
    state: State,
    since: Time,
    cause: String,
    started: bool,
    healthy: bool,
    health_cause: String,
    drain: Option<String>,
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
        Site {
            config,
            state: State::Starting,
            since: Time::ZERO,
            cause: String::from("not started"),
            started: false,
            healthy: false,
            health_cause: String::from("no verdict yet"),
            drain: None,
            leave_within: None,
            withdraw_at: None,
            stragglers_until: None,
            outputs: VecDeque::new(),
        }
    }

    /// Tells what happened. What does not apply in the present state, or repeats what is known, changes nothing.
    pub fn handle_input(&mut self, now: Time, input: In) {
        match input {
            In::Start => self.start(now),
            In::AddressesAdded => {
                if self.started && self.state == State::Starting {
                    self.settle(now, None);
                }
            }
            In::AddressesRemoved => self.addresses_removed(now),
            In::Verdict { healthy, cause } => {
                let news = (healthy != self.healthy).then(|| cause.clone());
                self.healthy = healthy;
                self.health_cause = cause;
                if news.is_some() {
                    self.resettle(now, news);
                }
            }
            In::Drain { reason } => {
                if self.drain.is_none() {
                    self.drain = Some(reason);
                    self.resettle(now, None);
                }
            }
            In::Leave { reason, within } => {
                if self.drain.is_none() {
                    self.drain = Some(reason);
                    self.leave_within = Some(within);
                    self.resettle(now, None);
                }
            }
            In::Emptied => {
                if self.state == State::Draining {
                    self.withdraw_at = Some(now);
                    self.settle(now, None);
                }
            }
            In::Undrain { reason } => {
                self.leave_within = None;
                if self.drain.take().is_some() {
                    let cause = self.healthy.then(|| format!("undrained: {reason}"));
                    self.resettle(now, cause);
                }
            }
            In::Stop { reason } => self.stop(now, &reason),
        }
    }

    /// Ends the graceful part of a drain, or the wait for stragglers, when it is over.
    pub fn handle_deadline(&mut self, now: Time) {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        if self.state == State::Draining {
            self.settle(now, None);
        } else {
            self.remove(now, "drain time is over");
        }
    }

    /// When [`Site::handle_deadline`] must be called next.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.state {
            State::Draining => self.withdraw_at,
            State::Stopping => self.stragglers_until,
            _ => None,
        }
    }

    /// What the driver must do next; call until `None`.
    pub fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    /// What an operator sees.
    pub fn status(&self) -> SiteStatus<'_> {
        SiteStatus {
            state: self.state,
            since: self.since,
            cause: &self.cause,
            healthy: self.healthy,
            drain: self.drain.as_deref(),
        }
    }

    fn start(&mut self, now: Time) {
        if self.started || self.state == State::Stopped {
            return;
        }
        self.started = true;
        self.outputs.push_back(Out::AddAddresses);
        self.enter(now, State::Starting, "started");
    }

    /// Somebody took the addresses away unasked: no query can be answered until they are back.
    fn addresses_removed(&mut self, now: Time) {
        const CAUSE: &str = "addresses are gone from the loopback";
        match self.state {
            State::Starting | State::Stopped => {}
            State::Unhealthy | State::Announced | State::Draining | State::Drained => {
                self.withdraw_if_announced(now, CAUSE);
                self.outputs.push_back(Out::AddAddresses);
                self.enter(now, State::Starting, CAUSE);
            }
            State::Stopping | State::Removing => self.exit(now, "addresses are removed"),
        }
    }

    /// After a change of verdict or wish, where these matter.
    fn resettle(&mut self, now: Time, cause: Option<String>) {
        if matches!(self.state, State::Unhealthy | State::Announced | State::Draining | State::Drained) {
            self.settle(now, cause);
        }
    }

    /// Enters the state that verdict and wish ask for, now that the addresses are there.
    fn settle(&mut self, now: Time, cause: Option<String>) {
        let (state, standing_cause) = match &self.drain {
            Some(reason) if self.may_drain_gracefully(now) => (State::Draining, format!("draining: {reason}")),
            Some(reason) => (State::Drained, format!("drained: {reason}")),
            None if self.healthy => (State::Announced, self.health_cause.clone()),
            None => (State::Unhealthy, self.health_cause.clone()),
        };
        if state == self.state {
            return;
        }
        let cause = cause.unwrap_or(standing_cause);
        match state {
            State::Announced => self.outputs.push_back(Out::Announce { cause: cause.clone() }),
            State::Draining => {
                self.withdraw_at = Some(now + self.graceful());
                self.outputs.push_back(Out::GracefulShutdown { cause: cause.clone() });
            }
            _ => self.withdraw_if_announced(now, &cause),
        }
        self.enter(now, state, &cause);
    }

    /// A healthy site that is announced may stay so while a drain moves its traffic, until the time for that is over.
    fn may_drain_gracefully(&self, now: Time) -> bool {
        self.healthy
            && match self.state {
                State::Announced => !self.graceful().is_zero(),
                State::Draining => self.withdraw_at.is_some_and(|at| at > now),
                _ => false,
            }
    }

    fn graceful(&self) -> Duration {
        self.leave_within.unwrap_or(self.config.graceful_shutdown)
    }

    fn stop(&mut self, now: Time, reason: &str) {
        match self.state {
            State::Starting if !self.started => self.exit(now, reason),
            State::Starting | State::Unhealthy | State::Announced | State::Draining | State::Drained => {
                self.withdraw_if_announced(now, reason);
                if self.stragglers_until.is_some_and(|until| until > now) {
                    self.enter(now, State::Stopping, reason);
                } else {
                    self.remove(now, reason);
                }
            }
            State::Stopping => self.remove(now, &format!("told to stop again: {reason}")),
            State::Removing | State::Stopped => {}
        }
    }

    fn withdraw_if_announced(&mut self, now: Time, cause: &str) {
        if matches!(self.state, State::Announced | State::Draining) {
            self.outputs.push_back(Out::Withdraw { cause: cause.to_owned() });
            self.stragglers_until = Some(now + self.config.drain);
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

#[cfg(test)]
mod tests;
