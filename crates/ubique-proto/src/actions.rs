//! Operator actions: what somebody asked for in an incident, for a while.
//!
//! Three kinds: *attract* announces a more-specific of a service prefix, so that its traffic comes to this site; *blackhole*
//! asks upstreams to discard what goes to an address (RFC 7999); *filter* asks them to discard or limit what a rule matches
//! (FlowSpec, RFC 8955). Each has a kind, who asked, why, and an end: nothing that was done at 3 a.m. stays because nobody
//! remembered. An action lasts until then, is cancelled, or is begun again with another end.
//!
//! [`Actions`] decides what may be done ([`Actions::judge`]) and when it ends. [`told`] says what one upstream is told of it:
//! an action rides on the announcement of the service prefix around it. While the site is silent towards an upstream, that
//! one is told nothing: a blackhole or a more-specific left behind by a site that withdrew would take traffic from the
//! others, and a rule without a route of ours is void (RFC 8955 §6).
//!
//! Ends are kept as times of the wall clock in [`Memory`], so that they survive a restart, and as times of the monotonic
//! clock while the agent runs, so that a clock that jumps ends nothing early and keeps nothing longer; [`In::Clock`] has
//! the kept ones follow such a jump.
//!
//! [`drain`] is the other thing an operator does: a drain that watches the site's own traffic. [`senders`] counts for it.
//!
//! Deliberately absent: what announces (the driver, through the speaker, whose scope refuses foreign prefixes once more).

pub mod drain;
pub mod senders;
mod told;

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ubique_model::{Family, Prefix};

use crate::Time;
use crate::bgp::flowspec::{self, FlowSpec};

pub use told::{Told, Unreached, told};

/// Actions at a time.
pub const MAX_ACTIONS: usize = 64;

/// Shortest time an action may last.
pub const MIN_LASTS: Duration = Duration::from_secs(1);

/// Longest time an action may last: what is needed longer belongs into the service file.
pub const MAX_LASTS: Duration = Duration::from_secs(7 * 24 * 3600);

/// Longest reason, characters.
pub const MAX_REASON_CHARS: usize = 300;

/// Longer prefixes than these are not accepted by most networks, length by family.
const LONGEST_ACCEPTED: [(Family, u8); 2] = [(Family::Ipv4, 24), (Family::Ipv6, 48)];

/// Kinds of actions. Formats for people have the kind and its fields; those that cannot look ahead have its words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Kind {
    /// Announce this more-specific of a service prefix, too.
    Attract {
        /// It.
        prefix: Prefix,
    },
    /// Have upstreams discard what goes there.
    Blackhole {
        /// In a service prefix.
        prefix: Prefix,
    },
    /// Have upstreams do this with packets that a rule matches.
    Filter {
        /// Which packets.
        #[serde(with = "in_words")]
        rule: FlowSpec,
        /// What happens to them.
        #[serde(with = "in_words")]
        then: flowspec::Action,
    },
}

impl Kind {
    /// The words for all of them.
    pub const WORDS: [&str; 3] = ["attract", "blackhole", "filter"];

    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Attract { .. } => "attract",
            Kind::Blackhole { .. } => "blackhole",
            Kind::Filter { .. } => "filter",
        }
    }

    /// The destinations it is about.
    pub fn destination(&self) -> Option<Prefix> {
        match self {
            Kind::Attract { prefix } | Kind::Blackhole { prefix } => Some(*prefix),
            Kind::Filter { rule, .. } => rule.destination().map(|(prefix, _)| prefix),
        }
    }

    /// Whether both would be the same route or rule.
    fn collides(&self, other: &Kind) -> bool {
        match (self, other) {
            (Kind::Filter { rule: a, .. }, Kind::Filter { rule: b, .. }) => a == b,
            (Kind::Filter { .. }, _) | (_, Kind::Filter { .. }) => false,
            (a, b) => a.destination() == b.destination(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Attract { prefix } => write!(f, "attract {prefix}"),
            Kind::Blackhole { prefix } => write!(f, "blackhole {prefix}"),
            Kind::Filter { rule, then } => write!(f, "filter {rule}: {then}"),
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    /// What [`Kind`] shows.
    fn from_str(text: &str) -> Result<Kind, String> {
        let prefix = |word: &str| word.parse().map_err(|error| format!("{word}: {error}"));
        match text.split_once(' ') {
            Some(("attract", rest)) => Ok(Kind::Attract { prefix: prefix(rest)? }),
            Some(("blackhole", rest)) => Ok(Kind::Blackhole { prefix: prefix(rest)? }),
            Some(("filter", rest)) => {
                let (rule, then) = rest.rsplit_once(": ").ok_or("a filter has a rule and an action")?;
                let words = |error: &dyn fmt::Display| error.to_string();
                Ok(Kind::Filter {
                    rule: rule.parse().map_err(|error| words(&error))?,
                    then: then.parse().map_err(|error| words(&error))?,
                })
            }
            _ => Err(format!("{text:?} is no action")),
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { Kind::serialize(self, serializer) } else { serializer.collect_str(self) }
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        if deserializer.is_human_readable() {
            Kind::deserialize(deserializer)
        } else {
            in_words::deserialize(deserializer)
        }
    }
}

/// Values that have a notation which reads back.
mod in_words {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// An action with its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Its number, never used twice.
    pub id: u32,
    /// What it is.
    pub what: Kind,
    /// Who asked for it.
    pub who: String,
    /// Why.
    pub reason: String,
    /// When it began, ms since 1970 by the wall clock.
    pub began_ms: u64,
    /// When it ends, likewise.
    pub until_ms: u64,
}

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The number of the last action.
    pub last_id: u32,
    /// Actions that have not ended.
    pub actions: Vec<Action>,
}

/// What the actions are about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionsConfig {
    /// Prefixes of the service.
    pub prefixes: Vec<Prefix>,
    /// Addresses of the service.
    pub addresses: Vec<IpAddr>,
    /// An action that concerns more of the service than this, per cent, must be confirmed.
    pub confirm_share: u8,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum In {
    /// An operator wants this.
    Begin(Begin),
    /// An operator does not want it any longer.
    Cancel {
        /// Number of the action.
        id: u32,
        /// Who.
        who: String,
        /// Why.
        reason: String,
    },
    /// What the agent did before it was restarted.
    Restore {
        /// It.
        memory: Memory,
        /// The wall clock, ms since 1970.
        wall_ms: u64,
    },
    /// Another service file: what actions may be about. What is not in it any longer ends.
    Configure {
        /// It.
        config: ActionsConfig,
    },
    /// The wall clock was set: what is left of each action stays.
    Clock {
        /// What it shows now, ms since 1970.
        wall_ms: u64,
    },
}

/// The wish for an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// What.
    pub what: Kind,
    /// For how long.
    pub lasts: Duration,
    /// Who asks.
    pub who: String,
    /// Why.
    pub reason: String,
    /// Whoever asks knows how much of the service is concerned.
    pub confirmed: bool,
    /// The wall clock, ms since 1970.
    pub wall_ms: u64,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Out {
    /// Tell the upstreams of it, or that it ends at another time.
    Begun(Action),
    /// Take it back from the upstreams.
    Ended {
        /// Which.
        action: Action,
        /// Why.
        cause: String,
    },
    /// It is not done.
    Refused(Refusal),
}

/// Why an action is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// It would be done if it were confirmed; otherwise something is wrong with it.
    pub guard: bool,
    /// What, and what helps.
    pub message: String,
}

/// What an action would mean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// Share of the service's addresses whose traffic it moves, per cent.
    pub share: u8,
    /// It must be confirmed.
    pub confirm: bool,
    /// What may be unexpected.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Held {
    action: Action,
    ends: Time,
}

/// The actions core: see the module's header.
#[derive(Debug, Serialize, Deserialize)]
pub struct Actions {
    config: ActionsConfig,
    last_id: u32,
    held: Vec<Held>,
    outputs: VecDeque<Out>,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn wrong(message: impl Into<String>) -> Refusal {
    Refusal { guard: false, message: message.into() }
}

impl Actions {
    /// No actions yet.
    pub fn new(config: ActionsConfig) -> Actions {
        Actions { config, last_id: 0, held: vec![], outputs: VecDeque::new() }
    }

    /// Those that have not ended, oldest first.
    pub fn list(&self) -> impl Iterator<Item = &Action> {
        self.held.iter().map(|held| &held.action)
    }

    /// How much longer an action lasts.
    pub fn left(&self, id: u32, now: Time) -> Option<Duration> {
        self.held.iter().find(|held| held.action.id == id).map(|held| held.ends.since(now))
    }

    /// What must survive a restart.
    pub fn memory(&self) -> Memory {
        Memory { last_id: self.last_id, actions: self.list().cloned().collect() }
    }

    fn reconfigure(&mut self, config: ActionsConfig) {
        self.config = config;
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.held).into_iter().partition(|held| self.within(&held.action.what).is_ok());
        self.held = kept;
        let cause = "its destination is not the service's any longer";
        self.outputs.extend(gone.into_iter().map(|held| Out::Ended { action: held.action, cause: cause.to_owned() }));
    }

    /// Whether this may be done, and what it would mean.
    ///
    /// # Errors
    /// It may not.
    pub fn judge(&self, what: &Kind, lasts: Duration, reason: &str) -> Result<Judgement, Refusal> {
        if lasts < MIN_LASTS || lasts > MAX_LASTS {
            let days = MAX_LASTS.as_secs() / 86_400;
            return Err(wrong(format!(
                "an action lasts from {} s to {days} days, not {lasts:?}; what is needed longer belongs into the service file",
                MIN_LASTS.as_secs()
            )));
        }
        if reason.chars().count() > MAX_REASON_CHARS || reason.chars().any(char::is_control) {
            return Err(wrong(format!("a reason is one line of at most {MAX_REASON_CHARS} characters")));
        }
        let around = self.within(what)?;
        let mut judgement = self.weigh(what, around)?;
        if let Some(other) = self.list().find(|a| a.what.collides(what) && a.what.word() != what.word()) {
            let Action { id, what, .. } = other;
            return Err(wrong(format!("action {id} ({what}) is about the same prefix: cancel it first")));
        }
        if self.held.len() >= MAX_ACTIONS && !self.list().any(|a| a.what.collides(what)) {
            return Err(wrong(format!("there are {MAX_ACTIONS} actions, no more fit: cancel one")));
        }
        judgement.confirm |= judgement.share > self.config.confirm_share;
        Ok(judgement)
    }

    /// The service prefix it lies in.
    fn within(&self, what: &Kind) -> Result<Prefix, Refusal> {
        let prefixes = || self.config.prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if let Kind::Filter { rule, .. } = what {
            rule.validate().map_err(|error| wrong(format!("the rule {rule} cannot be announced: {error}")))?;
            if rule.destination().is_some_and(|(_, offset)| offset > 0) {
                return Err(wrong("a destination with an offset may match packets to others: write a prefix"));
            }
        }
        let destination = what.destination().ok_or_else(|| wrong("there is no destination"))?;
        let around = self.config.prefixes.iter().find(|p| p.contains(&destination));
        around
            .copied()
            .ok_or_else(|| wrong(format!("{destination} is outside of the service: its prefixes are {}", prefixes())))
    }

    fn weigh(&self, what: &Kind, around: Prefix) -> Result<Judgement, Refusal> {
        let Some(destination) = what.destination() else { return Ok(Judgement::default()) };
        let concerned = self.config.addresses.iter().filter(|address| destination.contains(*address)).count();
        let share = u8::try_from(concerned * 100 / self.config.addresses.len().max(1)).unwrap_or(100);
        let mut judgement = Judgement { share, ..Judgement::default() };
        let warnings = &mut judgement.warnings;
        match what {
            Kind::Attract { .. } => {
                if destination == around {
                    return Err(wrong(format!("{around} is announced already: give a more-specific of it")));
                }
                let family = Family::of(&destination);
                let longest = LONGEST_ACCEPTED.iter().find(|(f, _)| *f == family).map_or(u8::MAX, |(_, l)| *l);
                if destination.prefix_len() > longest {
                    warnings.push(format!(
                        "most networks accept no {family} prefix longer than /{longest}: {destination} attracts nothing beyond \
                         upstreams that were asked to take it"
                    ));
                }
                if concerned == 0 {
                    warnings.push(format!("no address of the service is in {destination}: it attracts nothing"));
                }
            }
            Kind::Blackhole { .. } => {
                judgement.confirm = destination == around;
                if concerned == 0 {
                    warnings.push(format!("no address of the service is in {destination}"));
                }
            }
            Kind::Filter { rule, then } => {
                // Other conditions leave traffic that goes on; what share of it is not known here.
                if rule.components.len() > 1 || *then != flowspec::Action::DISCARD {
                    judgement.share = 0;
                }
            }
        }
        Ok(judgement)
    }

    /// Tells what happened.
    pub fn handle_input(&mut self, now: Time, input: In) {
        match input {
            In::Begin(begin) => self.begin(now, begin),
            In::Cancel { id, who, reason } => {
                let Some(place) = self.held.iter().position(|held| held.action.id == id) else {
                    let refusal = wrong(format!("there is no action {id}"));
                    return self.outputs.push_back(Out::Refused(refusal));
                };
                let action = self.held.remove(place).action;
                self.outputs.push_back(Out::Ended { action, cause: format!("cancelled by {who}: {reason}") });
            }
            In::Restore { memory, wall_ms } => self.restore(now, memory, wall_ms),
            In::Configure { config } => self.reconfigure(config),
            In::Clock { wall_ms } => {
                for Held { action, ends } in &mut self.held {
                    let whole_ms = action.until_ms.saturating_sub(action.began_ms);
                    action.until_ms = wall_ms.saturating_add(ms(ends.since(now)));
                    action.began_ms = action.until_ms.saturating_sub(whole_ms);
                }
            }
        }
    }

    fn begin(&mut self, now: Time, begin: Begin) {
        let judged = self.judge(&begin.what, begin.lasts, &begin.reason).and_then(|judgement| {
            if judgement.confirm && !begin.confirmed {
                let message = format!("{} concerns {} % of the service: confirm it", begin.what, judgement.share);
                return Err(Refusal { guard: true, message });
            }
            Ok(())
        });
        if let Err(refusal) = judged {
            return self.outputs.push_back(Out::Refused(refusal));
        }
        let place = self.held.iter().position(|held| held.action.what.collides(&begin.what));
        let former = place.map(|place| self.held.remove(place).action);
        let id = former.as_ref().map_or(self.last_id.saturating_add(1), |action| action.id);
        self.last_id = self.last_id.max(id);
        let action = Action {
            id,
            what: begin.what,
            who: begin.who,
            reason: begin.reason,
            began_ms: former.map_or(begin.wall_ms, |action| action.began_ms),
            until_ms: begin.wall_ms.saturating_add(ms(begin.lasts)),
        };
        self.held.push(Held { action: action.clone(), ends: now + begin.lasts });
        self.outputs.push_back(Out::Begun(action));
    }

    /// What has ended meanwhile is told as such. A wall clock that went back prolongs nothing beyond its whole time.
    fn restore(&mut self, now: Time, memory: Memory, wall_ms: u64) {
        self.last_id = self.last_id.max(memory.last_id);
        for action in memory.actions {
            self.last_id = self.last_id.max(action.id);
            let whole = Duration::from_millis(action.until_ms.saturating_sub(action.began_ms)).min(MAX_LASTS);
            let left = Duration::from_millis(action.until_ms.saturating_sub(wall_ms)).min(whole);
            let cause = if left.is_zero() {
                "its time was over when the agent came back".to_owned()
            } else if let Err(refusal) = self.within(&action.what) {
                refusal.message
            } else if self.held.len() >= MAX_ACTIONS
                || self.list().any(|a| a.id == action.id || a.what.collides(&action.what))
            {
                "it is one too many".to_owned()
            } else {
                self.outputs.push_back(Out::Begun(action.clone()));
                self.held.push(Held { action, ends: now + left });
                continue;
            };
            self.outputs.push_back(Out::Ended { action, cause });
        }
    }

    /// Ends what is over.
    pub fn handle_deadline(&mut self, now: Time) {
        while let Some(place) = self.held.iter().position(|held| held.ends <= now) {
            let action = self.held.remove(place).action;
            self.outputs.push_back(Out::Ended { action, cause: "its time is over".to_owned() });
        }
    }

    /// When [`Actions::handle_deadline`] must be called next.
    pub fn next_deadline(&self) -> Option<Time> {
        self.held.iter().map(|held| held.ends).min()
    }

    /// What the driver must do next; call until `None`.
    pub fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
mod tests;
