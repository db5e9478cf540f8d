//! A drain with proof: traffic is moved away, watched until it is gone, and whoever still sends is named.
//!
//! Stages, in order: *measuring* counts what arrives now, for [`MEASURE`]; *leaving* announces so that others are preferred
//! (RFC 8326, and prepends where asked for) and has the service told by a hook, until the traffic is gone or the time is
//! over; *withdrawn* goes on counting, since a route that an upstream keeps against our withdrawal (a zombie) shows as
//! packets and in no other way; *over* has the report.
//!
//! Traffic is gone when for [`QUIET_SAMPLES`] samples in a row no more arrives than [`GONE_SHARE`] of what did before, or
//! [`GONE_PACKETS_PER_S`]: an address on the Internet never falls quite silent. Open connections are counted and told,
//! and hold nothing up: once their packets go to another site nobody closes them here. Where other sites send those packets
//! back ([`Request::carried`]) they live on, and a withdrawn site is not empty before the last one has ended.
//!
//! A restart of the agent in the middle withdraws the site, if it was not; the drain goes on from there ([`In::Resume`]).
//!
//! Where packets cannot be counted the drain is one by the clock, and says so.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::Prefix;

use super::senders::Sender;
use crate::Time;

/// How long the traffic is measured before anything is changed.
pub const MEASURE: Duration = Duration::from_secs(1);

/// How far apart samples are.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// Samples in a row that must be quiet.
pub const QUIET_SAMPLES: u32 = 4;

/// Quiet: at most this part of the packets there were before.
pub const GONE_SHARE: f64 = 0.001;

/// Quiet, however little there was before: at most so many packets each second.
pub const GONE_PACKETS_PER_S: f64 = 1.0;

/// Longest time a drain waits for traffic to go.
pub const MAX_LEAVING: Duration = Duration::from_secs(3600);

/// How long traffic is watched after the withdrawal, unless asked for otherwise.
pub const WATCH: Duration = Duration::from_secs(10);

/// Longest time it is watched.
pub const MAX_WATCH: Duration = Duration::from_secs(3600);

/// Senders named.
pub const NAMED: usize = 10;

/// Senders taken of a sample.
pub const SENDERS_PER_SAMPLE: usize = 32;

/// Samples that senders are named by: one packet each second or two is seen, too.
const SAMPLES_NAMED_BY: usize = 6;

/// Samples that are late by this are waited for no longer.
const SAMPLE_PATIENCE: Duration = Duration::from_secs(3);

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Who.
    pub who: String,
    /// Why.
    pub reason: String,
    /// Withdraw after this at the latest.
    pub within: Duration,
    /// Prepend so often in addition while leaving.
    pub prepend: u8,
    /// Run the hook.
    pub hook: bool,
    /// How long to watch after the withdrawal.
    pub watch: Duration,
    /// Connections outlive the withdrawal: it is over when the last one has ended, or nobody watches any more.
    #[serde(default)]
    pub carried: bool,
}

/// What goes on after a restart of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resumed {
    /// What was asked for.
    pub request: Request,
    /// How long ago it began.
    pub lasted: Duration,
    /// How long ago the site was withdrawn; zero: the restart did that.
    pub withdrawn: Duration,
    /// Traffic before anything was changed, if that was measured.
    pub before: Option<Traffic>,
}

/// A network with open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// It.
    pub prefix: Prefix,
    /// Their number, or a few more.
    pub connections: u64,
}

/// Stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Counting what arrives; nothing has changed yet.
    Measuring,
    /// Announced so that others are preferred.
    Leaving,
    /// Withdrawn; whoever still sends is a straggler or follows a zombie route.
    Withdrawn,
    /// The report is there.
    Over,
    /// Somebody wanted the site back before it was over.
    Abandoned,
}

impl Stage {
    /// All of them, in their order.
    pub const ALL: [Stage; 5] = [Stage::Measuring, Stage::Leaving, Stage::Withdrawn, Stage::Over, Stage::Abandoned];

    /// As events and metrics spell it.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Measuring => "measuring",
            Stage::Leaving => "leaving",
            Stage::Withdrawn => "withdrawn",
            Stage::Over => "over",
            Stage::Abandoned => "abandoned",
        }
    }
}

/// What was counted since the sample before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Over how long.
    pub window: Duration,
    /// Packets to the service addresses from outside.
    pub packets: u64,
    /// Open TCP connections to them; `None`: not known.
    pub connections: Option<u64>,
    /// Who has most of them.
    #[serde(default)]
    pub clients: Vec<Client>,
    /// The heaviest senders of the window; packets are estimates where only some were looked at.
    pub senders: Vec<Sender>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum In {
    /// Begin; one that is under way is replaced.
    Begin(Request),
    /// Go on with one that a restart of the agent interrupted.
    Resume(Resumed),
    /// What arrived since the last sample.
    Sample(Sample),
    /// Packets cannot be counted, and why.
    Uncounted(String),
    /// How the hook ended.
    Hook(Result<(), String>),
    /// The site is withdrawn, by us or because it is not fit to serve.
    Withdrawn,
    /// An operator wants the site back.
    Undrained,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Out {
    /// Count, and give a [`Sample`] every [`SAMPLE_EVERY`]; or stop that.
    Count(bool),
    /// Run the hook and tell how it ended.
    Hook,
    /// Have others preferred, for this long at the most.
    Leave {
        /// How long.
        within: Duration,
    },
    /// Withdraw now.
    Withdraw,
    /// A stage began.
    Stage {
        /// Which.
        stage: Stage,
        /// Why.
        cause: String,
    },
}

/// Rates and counts at a moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets each second.
    pub packets_per_s: f64,
    /// Open connections.
    pub connections: Option<u64>,
}

/// Where a drain is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    request: Option<Request>,
    stage: Stage,
    began: Time,
    since: Time,
    /// What the last two samples before the change counted.
    before: Option<Traffic>,
    measured: (Duration, u64),
    now: Option<Traffic>,
    /// Window and senders of the last samples.
    recent: VecDeque<(Duration, Vec<Sender>)>,
    senders: Vec<(Sender, f64)>,
    /// As the last sample told.
    clients: Vec<Client>,
    quiet: u32,
    uncounted: Option<String>,
    hook: Option<Result<(), String>>,
    took: Option<Duration>,
    gone_after: Option<Duration>,
    outputs: VecDeque<Out>,
}

/// What an operator sees of a drain.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress<'a> {
    /// What was asked for.
    pub request: &'a Request,
    /// Where it is.
    pub stage: Stage,
    /// When it began.
    pub began: Time,
    /// When the stage began.
    pub since: Time,
    /// Traffic before anything was changed.
    pub before: Option<&'a Traffic>,
    /// Traffic of the last sample.
    pub now: Option<&'a Traffic>,
    /// Who sent in the last samples, with packets each second, heaviest first.
    pub senders: &'a [(Sender, f64)],
    /// Who has most of the connections that are open, by the last sample.
    pub clients: &'a [Client],
    /// Why packets cannot be counted.
    pub uncounted: Option<&'a str>,
    /// How the hook ended.
    pub hook: Option<&'a Result<(), String>>,
    /// How long it took until it was over.
    pub took: Option<Duration>,
    /// How long after its begin the traffic was gone; `None`: it is not.
    pub gone_after: Option<Duration>,
}

impl Request {
    /// Nothing lasts longer than it may.
    fn bounded(self) -> Request {
        Request { within: self.within.min(MAX_LEAVING), watch: self.watch.min(MAX_WATCH), ..self }
    }
}

impl Default for Drain {
    fn default() -> Drain {
        Drain {
            request: None,
            stage: Stage::Over,
            began: Time::ZERO,
            since: Time::ZERO,
            before: None,
            measured: (Duration::ZERO, 0),
            now: None,
            recent: VecDeque::new(),
            senders: vec![],
            clients: vec![],
            quiet: 0,
            uncounted: None,
            hook: None,
            took: None,
            gone_after: None,
            outputs: VecDeque::new(),
        }
    }
}

impl Drain {
    /// Whether one is under way.
    pub fn is_active(&self) -> bool {
        self.request.is_some() && !matches!(self.stage, Stage::Over | Stage::Abandoned)
    }

    /// The stage of the one under way.
    pub fn stage(&self) -> Option<Stage> {
        self.is_active().then_some(self.stage)
    }

    /// Additional prepends now.
    pub fn prepend(&self) -> u8 {
        let request = self.request.as_ref().filter(|_| self.stage == Stage::Leaving);
        request.map_or(0, |request| request.prepend)
    }

    /// The one under way, or the last one; `None`: there was none.
    pub fn progress(&self) -> Option<Progress<'_>> {
        let request = self.request.as_ref()?;
        Some(Progress {
            request,
            stage: self.stage,
            began: self.began,
            since: self.since,
            before: self.before.as_ref(),
            now: self.now.as_ref(),
            senders: &self.senders,
            clients: &self.clients,
            uncounted: self.uncounted.as_deref(),
            hook: self.hook.as_ref(),
            took: self.took,
            gone_after: self.gone_after,
        })
    }

    /// Tells what happened. What does not apply in the present stage changes nothing.
    pub fn handle_input(&mut self, now: Time, input: In) {
        match input {
            In::Begin(request) => self.begin(now, request),
            In::Resume(former) => self.resume(now, former),
            In::Sample(sample) if self.is_active() => self.sampled(now, sample),
            In::Uncounted(why) if self.is_active() => {
                self.uncounted = Some(why);
                if self.stage == Stage::Measuring {
                    self.leave(now);
                }
            }
            In::Hook(end) if self.is_active() => self.hook = Some(end),
            In::Withdrawn if matches!(self.stage, Stage::Measuring | Stage::Leaving) && self.is_active() => {
                self.recent.clear();
                self.enter(now, Stage::Withdrawn, "withdrawn");
                if self.uncounted.is_some() {
                    self.finish(now, "packets were not counted: nobody can say who still sends");
                }
            }
            In::Undrained if self.is_active() => {
                self.took = Some(now.since(self.began));
                self.outputs.push_back(Out::Count(false));
                self.enter(now, Stage::Abandoned, "the site is wanted back");
            }
            _ => {}
        }
    }

    fn begin(&mut self, now: Time, request: Request) {
        let request = request.bounded();
        let hook = request.hook;
        let cause = request.reason.clone();
        // Whatever a former one still has to say is about a drain that is replaced.
        *self = Drain { request: Some(request), began: now, ..Drain::default() };
        self.outputs.push_back(Out::Count(true));
        if hook {
            self.outputs.push_back(Out::Hook);
        }
        self.enter(now, Stage::Measuring, &cause);
    }

    fn resume(&mut self, now: Time, former: Resumed) {
        let ago = |time: Duration| Time(now.0.saturating_sub(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)));
        let request = Some(former.request.bounded());
        *self = Drain { request, began: ago(former.lasted), before: former.before, ..Drain::default() };
        self.outputs.push_back(Out::Count(true));
        self.enter(now, Stage::Withdrawn, "the agent began again");
        self.since = ago(former.withdrawn);
    }

    fn sampled(&mut self, now: Time, sample: Sample) {
        let seconds = sample.window.as_secs_f64().max(f64::EPSILON);
        let traffic = Traffic { packets_per_s: sample.packets as f64 / seconds, connections: sample.connections };
        self.name(sample.window, sample.senders);
        self.clients = sample.clients;
        self.clients.truncate(NAMED);
        match self.stage {
            Stage::Measuring => {
                self.measured.0 = self.measured.0.saturating_add(sample.window);
                self.measured.1 = self.measured.1.saturating_add(sample.packets);
                let seconds = self.measured.0.as_secs_f64().max(f64::EPSILON);
                self.before = Some(Traffic { packets_per_s: self.measured.1 as f64 / seconds, ..traffic.clone() });
                self.now = Some(traffic);
                if self.measured.0 >= MEASURE {
                    self.leave(now);
                }
            }
            Stage::Leaving | Stage::Withdrawn => {
                let before = self.before.as_ref().map_or(0.0, |before| before.packets_per_s);
                let limit = (before * GONE_SHARE).max(GONE_PACKETS_PER_S);
                self.quiet = if traffic.packets_per_s <= limit { self.quiet.saturating_add(1) } else { 0 };
                self.now = Some(traffic);
                self.settled(now);
            }
            Stage::Over | Stage::Abandoned => {}
        }
    }

    /// Who sent, by the last few samples.
    fn name(&mut self, window: Duration, mut senders: Vec<Sender>) {
        senders.truncate(SENDERS_PER_SAMPLE);
        if self.recent.len() == SAMPLES_NAMED_BY {
            self.recent.pop_front();
        }
        self.recent.push_back((window, senders));
        let seconds: f64 = self.recent.iter().map(|(window, _)| window.as_secs_f64()).sum();
        let mut sums: BTreeMap<Prefix, Sender> = BTreeMap::new();
        for sender in self.recent.iter().flat_map(|(_, senders)| senders) {
            let sum = sums.entry(sender.prefix).or_insert(Sender { packets: 0, uncertain: 0, ..*sender });
            sum.packets = sum.packets.saturating_add(sender.packets);
            sum.uncertain = sum.uncertain.saturating_add(sender.uncertain);
        }
        let mut list: Vec<_> = sums.into_values().map(|s| (s, s.packets as f64 / seconds.max(f64::EPSILON))).collect();
        list.sort_by(|(a, _), (b, _)| b.packets.cmp(&a.packets).then(a.prefix.cmp(&b.prefix)));
        list.truncate(NAMED);
        self.senders = list;
    }

    /// After a sample: whether the traffic is gone.
    fn settled(&mut self, now: Time) {
        if self.quiet < QUIET_SAMPLES {
            self.gone_after = None;
            return;
        }
        let quiet_for = SAMPLE_EVERY * self.quiet;
        let live_on = self.live_on();
        self.gone_after = match self.gone_after {
            _ if live_on => None,
            known => known.or(Some(now.since(self.began).saturating_sub(quiet_for))),
        };
        match self.stage {
            Stage::Leaving => self.outputs.push_back(Out::Withdraw),
            Stage::Withdrawn if live_on => {}
            // Of what came late with the withdrawal itself, nothing is left.
            Stage::Withdrawn if now.since(self.since) >= quiet_for.min(SAMPLE_EVERY * QUIET_SAMPLES) => {
                self.finish(now, "the traffic is gone");
            }
            _ => {}
        }
    }

    /// Connections that outlive the withdrawal are open, though nothing was sent on them for a while.
    fn live_on(&self) -> bool {
        let carried = self.request.as_ref().is_some_and(|request| request.carried);
        carried && self.now.as_ref().and_then(|now| now.connections).is_some_and(|open| open > 0)
    }

    fn leave(&mut self, now: Time) {
        let Some(request) = &self.request else { return };
        let within = request.within;
        self.enter(now, Stage::Leaving, "others are to be preferred");
        self.outputs.push_back(Out::Leave { within });
    }

    fn finish(&mut self, now: Time, cause: &str) {
        self.took = Some(now.since(self.began));
        self.outputs.push_back(Out::Count(false));
        self.enter(now, Stage::Over, cause);
    }

    fn enter(&mut self, now: Time, stage: Stage, cause: &str) {
        self.stage = stage;
        self.since = now;
        self.outputs.push_back(Out::Stage { stage, cause: cause.to_owned() });
    }

    /// Ends what lasts too long: samples that do not come, and watching.
    pub fn handle_deadline(&mut self, now: Time) {
        if self.next_deadline().is_none_or(|at| at > now) {
            return;
        }
        match self.stage {
            Stage::Measuring => {
                self.uncounted = Some("counting gave no result in time".to_owned());
                self.leave(now);
            }
            Stage::Withdrawn if self.live_on() => self.finish(now, "connections are still open"),
            Stage::Withdrawn => self.finish(now, "somebody still sends"),
            _ => {}
        }
    }

    /// When [`Drain::handle_deadline`] must be called next.
    pub fn next_deadline(&self) -> Option<Time> {
        let request = self.request.as_ref()?;
        match self.stage {
            Stage::Measuring => Some(self.since + MEASURE + SAMPLE_PATIENCE),
            Stage::Withdrawn => Some(self.since + request.watch),
            _ => None,
        }
    }

    /// What the driver must do next; call until `None`.
    pub fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
mod tests;
