//! The life of a site: the order that is safety, and what upstreams are told.
//!
//! Up: addresses, healthy, an answer on each of them, announce. Down: withdraw, drain, remove. Each decision is local
//! (design principle 1) and carries its cause. What is announced is a [`Stance`]; the one evaluator,
//! [`ubique_model::policy::announcements`], says what each upstream then gets.
//!
//! Two rules hold in every state and are tested as invariants: nothing is announced unless the addresses are on
//! the loopback, no operator wants the site empty, and it is fit, or the last one; and the addresses stay until
//! `drain` has passed since the last withdrawal, so that queries on their way are answered. Only a second
//! [`In::Stop`] cuts that wait short. A site that is unhealthy or drained keeps its addresses: the checks of a
//! recovering service need them.
//!
//! What delays an announcement or a change for the better: the start gate ([`Out::Verify`]) and the flap budget
//! ([`crate::flap`]). What turns a withdrawal around: the last-site guard (`guard`). What never withdraws: load, since
//! overload only moves [`Stance::shed`], step by step (`shed`). A withdrawal because of failure waits for nothing.
//!
//! Outputs are to be carried out in their order. `run` is the core.

mod guard;
mod run;
mod shed;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::policy::{Level, Stance, is_silent};
use ubique_model::service::{Flap, Guard, Service, Site as SiteSpec};

use crate::Time;
use crate::flap::decayed;

pub use guard::RETRY_MAX;
pub use run::{Site, VERIFY_RETRY};
pub use shed::{SHED_CALM, SHED_STEP};

/// Upstreams that are followed at most, neighbours from ranges included.
pub const MAX_UPSTREAMS: usize = 2048;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteConfig {
    /// How long the service goes on serving between the withdrawal and the removal of its addresses.
    pub drain: Duration,
    /// How long a drain announces with GRACEFUL_SHUTDOWN before it withdraws, so that upstreams move to other
    /// sites while this one still serves: make before break (RFC 8326). Zero: a drain withdraws at once.
    pub graceful_shutdown: Duration,
    /// A degraded site is announced.
    pub degraded_speaks: bool,
    /// A failed site is announced.
    pub failed_speaks: bool,
    /// Steps of shedding there are.
    pub shed_steps: u8,
    /// What damping is assumed to hold against us; `None`: nothing.
    pub flap: Option<Flap>,
    /// What keeps the service reachable.
    pub guard: Guard,
    /// Whose routes tell of other sites.
    pub upstreams: Vec<UpstreamConfig>,
    /// What is known from the life before.
    pub memory: Memory,
}

/// An upstream, as the last-site guard knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamConfig {
    /// Its name.
    pub name: String,
    /// Whether it shows its routes to other sites.
    pub full_view: Option<bool>,
}

/// What a site knows that must survive the agent.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Penalty of flapping, points.
    pub penalty: u32,
    /// The site is announced. When it comes back, upstreams have seen a withdrawal in between.
    pub announced: bool,
    /// Why an operator wants the site empty; `None`: none does.
    pub drain: Option<String>,
    /// Upstreams that have shown other sites.
    pub shown: Vec<Shown>,
}

/// An upstream that has shown another site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its name.
    pub upstream: String,
    /// Also while we announced with GRACEFUL_SHUTDOWN.
    pub moves: bool,
}

impl Memory {
    /// The same after so long.
    #[must_use]
    pub fn aged(self, flap: Option<&Flap>, elapsed: Duration) -> Memory {
        let left = flap.map_or(0.0, |flap| decayed(f64::from(self.penalty), elapsed, flap.half_life));
        Memory { penalty: left.ceil() as u32, ..self }
    }
}

impl SiteConfig {
    /// One that only knows the order: no guards, no flap control, no shedding.
    pub fn new(drain: Duration, graceful_shutdown: Duration) -> SiteConfig {
        SiteConfig {
            drain,
            graceful_shutdown,
            degraded_speaks: true,
            failed_speaks: false,
            shed_steps: 0,
            flap: None,
            guard: Guard { last_site: Duration::ZERO, start: false, ..Guard::default() },
            upstreams: vec![],
            memory: Memory::default(),
        }
    }

    /// Of a site of a service; `memory`: of the life before.
    pub fn of(service: &Service, site: &SiteSpec, memory: Memory) -> SiteConfig {
        let speaks = |level| !is_silent(service, site, &Stance::at(level));
        let upstreams = site.upstreams.iter();
        SiteConfig {
            degraded_speaks: speaks(Level::Degraded),
            failed_speaks: speaks(Level::Failed),
            shed_steps: u8::try_from(service.shed.len()).unwrap_or(u8::MAX),
            flap: service.flap,
            guard: service.guard,
            upstreams: upstreams.map(|u| UpstreamConfig { name: u.label(), full_view: u.full_view }).collect(),
            memory,
            ..SiteConfig::new(service.agent.drain, service.agent.graceful_shutdown)
        }
    }
}

/// States.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Addresses are being added.
    Starting,
    /// Not announced: not healthy.
    Unhealthy,
    /// Not announced although healthy: an answer on a service address is awaited, or flap control lets time pass.
    Held,
    /// Announced.
    Announced,
    /// Announced although it is not healthy: no other site is there.
    LastResort,
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

impl State {
    /// All of them.
    pub const ALL: [State; 10] = [
        State::Starting,
        State::Unhealthy,
        State::Held,
        State::Announced,
        State::LastResort,
        State::Draining,
        State::Drained,
        State::Stopping,
        State::Removing,
        State::Stopped,
    ];

    /// As status and metrics spell it.
    pub fn word(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Unhealthy => "unhealthy",
            State::Held => "held",
            State::Announced => "announced",
            State::LastResort => "last-resort",
            State::Draining => "draining",
            State::Drained => "drained",
            State::Stopping => "stopping",
            State::Removing => "removing",
            State::Stopped => "stopped",
        }
    }

    /// Whether upstreams are told of the site.
    pub fn is_announced(self) -> bool {
        matches!(self, State::Announced | State::LastResort | State::Draining)
    }
}

/// What an upstream shows of other sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Others {
    /// No route to a service prefix that another site originates.
    None,
    /// Only such that sites of last resort announce.
    LastResort,
    /// One of a site that is fit.
    Fit,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum In {
    /// Begin.
    Start,
    /// The addresses are on the loopback.
    AddressesAdded,
    /// The addresses are off the loopback.
    AddressesRemoved,
    /// Verdict of the health core.
    Verdict {
        /// How well the service serves.
        level: Level,
        /// It answers, but not what it should: the check may be wrong. False when it does not answer at all.
        answers: bool,
        /// Why.
        cause: String,
    },
    /// The service has more to do than it can, or no longer.
    Overload {
        /// It has.
        on: bool,
        /// Why.
        cause: String,
    },
    /// What an upstream shows of other sites changed, or its session came or went.
    Others {
        /// Its name.
        upstream: String,
        /// Its session is up.
        up: bool,
        /// What it shows.
        others: Others,
    },
    /// The end of [`Out::Verify`].
    Verified {
        /// `Err`: which address does not answer, and why.
        result: Result<(), String>,
    },
    /// The end of [`Out::Probe`].
    Probed {
        /// Through which upstream.
        upstream: String,
        /// Whether another site answered; `Err`: no ping could be sent.
        answered: Result<bool, String>,
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
    /// Other parameters from now on (reload); their memory is not looked at.
    Configure {
        /// All of them.
        config: Box<SiteConfig>,
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
    /// Poll the service on each of its addresses that no check asks; report [`In::Verified`].
    Verify,
    /// Tell every upstream this, in place of what it was told before.
    Announce {
        /// What.
        stance: Stance,
        /// Why.
        cause: String,
    },
    /// Withdraw every prefix from every upstream.
    Withdraw {
        /// Why.
        cause: String,
    },
    /// Ping the service addresses through this upstream, and report whether another site answered ([`In::Probed`]).
    Probe {
        /// Through which.
        upstream: String,
        /// How long an answer may take.
        within: Duration,
    },
    /// The alarm: the site should be silent, and speaks because no fit site is seen.
    LastSite {
        /// Why it should be silent.
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
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SiteStatus<'a> {
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: Time,
    /// Why.
    pub cause: &'a str,
    /// The last verdict heard.
    pub level: Level,
    /// What upstreams are told; `None`: nothing.
    pub stance: Option<Stance>,
    /// Why an operator wants the site empty; `None`: none does.
    pub drain: Option<&'a str>,
    /// Why the service has more to do than it can; `None`: it has not.
    pub overload: Option<&'a str>,
    /// The flap budget; `None`: flap control is off.
    pub flap: Option<FlapStatus>,
    /// What the last-site guard sees; `None`: nothing to guard.
    pub guard: Option<String>,
}

/// The flap budget.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FlapStatus {
    /// Points left.
    pub left: f64,
    /// Points there are.
    pub suppress: u32,
    /// When what waits for the budget may happen; `None`: nothing waits.
    pub waits_until: Option<Time>,
}

impl FlapStatus {
    /// `flap budget 4200 of 6000, may announce again in 3m`.
    pub fn words(&self, now: Time) -> String {
        let budget = format!("flap budget {:.0} of {}", self.left.floor(), self.suppress);
        match self.waits_until.map(|at| at.since(now)) {
            Some(wait) => format!("{budget}, may announce again in {}", about(wait)),
            None => budget,
        }
    }
}

/// A wait as people say it, rounded up.
fn about(wait: Duration) -> String {
    const MINUTE: u64 = 60;
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    match seconds {
        0..MINUTE => format!("{seconds}s"),
        _ if seconds <= 90 * MINUTE => format!("{}m", seconds.div_ceil(MINUTE)),
        _ => format!("{}h", seconds.div_ceil(60 * MINUTE)),
    }
}

#[cfg(test)]
mod tests;
