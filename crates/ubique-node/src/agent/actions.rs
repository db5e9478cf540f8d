//! What operators ask for while the agent runs: timed actions and watched drains. Decided by the cores of
//! [`ubique_proto::actions`], carried out here: told to upstreams, remembered, counted, and run as a hook.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use ubique_model::policy::{Announcement, Stance, announcements};
use ubique_model::quantity::format_duration;
use ubique_model::service::spec::MAX_PREPEND;
use ubique_model::service::{Service, Upstream};
use ubique_model::{Asn, Prefix};
use ubique_proto::Time;
use ubique_proto::actions::drain::{self, Drain, MAX_LEAVING, MAX_WATCH, Stage, WATCH};
use ubique_proto::actions::{self, Action, Actions, ActionsConfig, Begin, Kind, Refusal, Told, told};
use ubique_proto::bgp::flowspec::FlowSpec;
use ubique_proto::bgp::speaker::{In as BgpIn, PeerId};
use ubique_proto::journal::Recorded;
use ubique_proto::site::{self, State};

use super::arrivals::{self, Counting};
use super::site::Agent;
use crate::admin::{
    self, ActRequest, ActionList, ActionView, DrainRequest, DrainView, HookView, Plan, Reached, SCHEMA_VERSION,
    SenderView, TrafficView,
};
use crate::checks::Exec;
use crate::clock::{now, rfc3339, wall};
use crate::journal::Journal;
use crate::state::{Receipt, unix_ms};

/// News of counters and hooks that wait for the loop.
const NEWS: usize = 16;

/// How long a drain hook may run before it is killed with its group.
const HOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// The answer to an admin client: a line of JSON with what tells whether it is on the disk, or why not.
pub(super) type Answer = Result<(String, Option<Receipt>), admin::Refusal>;

/// The name of what is kept.
const PART: &str = "operator";

/// What a restart must not forget.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    actions: actions::Memory,
    /// Why a site is to be drained that is still as it was: the site core knows nothing of it yet.
    draining: Option<String>,
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What operators asked for.
pub(super) struct Operator {
    pub(super) actions: Recorded<Actions, Journal>,
    pub(super) drain: Recorded<Drain, Journal>,
    counting: Option<Counting>,
    hook: Option<Task>,
    news: (mpsc::Sender<drain::In>, mpsc::Receiver<drain::In>),
    /// Rules each neighbour has been told.
    rules: BTreeMap<PeerId, Vec<FlowSpec>>,
    /// An action has begun or ended: neighbours are told again.
    stale: bool,
    /// What must be kept has changed.
    unkept: bool,
}

impl Operator {
    pub(super) fn new(service: &Service, journal: Option<Journal>) -> Operator {
        Operator {
            actions: Recorded::new(now(), config(service), journal.clone()),
            drain: Recorded::new(now(), (), journal),
            counting: None,
            hook: None,
            news: mpsc::channel(NEWS),
            rules: BTreeMap::new(),
            stale: false,
            unkept: false,
        }
    }

    /// News of counters and hooks.
    pub(super) async fn next(&mut self) -> drain::In {
        match self.news.1.recv().await {
            Some(news) => news,
            // Never: a sender is kept.
            None => std::future::pending().await,
        }
    }

    /// When [`Agent::settle_operator`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        [self.actions.next_deadline(), self.drain.next_deadline()].into_iter().flatten().min()
    }
}

fn config(service: &Service) -> ActionsConfig {
    ActionsConfig {
        prefixes: service.prefixes.clone(),
        addresses: service.addresses.clone(),
        confirm_share: service.agent.confirm_share,
    }
}

fn seconds(value: f64, most: Duration, what: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|duration| *duration <= most)
        .ok_or_else(|| format!("{what} is a time of at most {} s, not {value} s", most.as_secs()))
}

/// An answer about what is, and needs no disk.
fn line(value: &impl serde::Serialize) -> Answer {
    serde_json::to_string(value).map(|line| (line, None)).map_err(|error| error.to_string().into())
}

impl Agent {
    /// A request of an operator, by `who`.
    pub(super) fn operator_asked(&mut self, request: admin::Request, who: &str, reply: oneshot::Sender<Answer>) {
        let answer = match request {
            admin::Request::Act(act) => self.act(act, who),
            admin::Request::Actions => self.actions_list(vec![]),
            admin::Request::Cancel { id, reason } => self.cancel(id, who, reason),
            admin::Request::DrainWatched(drain) => self.drain_watched(drain, who),
            admin::Request::DrainProgress => match self.drain_view() {
                Some(view) => line(&view),
                None => Err("there was no drain since the agent started".to_owned().into()),
            },
            _ => Err("not a request of an operator".to_owned().into()),
        };
        // A client that has gone meanwhile is no concern of ours.
        let _ = reply.send(answer);
    }

    fn act(&mut self, act: ActRequest, who: &str) -> Answer {
        self.not_stopping()?;
        let lasts = seconds(act.for_s, actions::MAX_LASTS, "how long an action lasts")?;
        let judged = self.operator.actions.judge(&act.what, lasts, &act.reason).map_err(|r| r.to_string())?;
        if act.dry_run {
            let upstreams = self.reached(&act.what, true);
            let what = format!("{} for {}", act.what, format_duration(lasts));
            let site = self.spec().name.clone();
            let actions::Judgement { share, confirm, warnings } = judged;
            return line(&Plan { schema_version: SCHEMA_VERSION, what, site, share, confirm, warnings, upstreams });
        }
        let begin = Begin {
            what: act.what.clone(),
            lasts,
            who: who.to_owned(),
            reason: act.reason,
            confirmed: act.confirmed,
            wall_ms: unix_ms(SystemTime::now()),
        };
        self.operator.actions.handle_input(now(), actions::In::Begin(begin));
        match self.settle_actions() {
            Some(refusal) if refusal.guard => Err(admin::Refusal::Guarded(refusal.message)),
            Some(refusal) => Err(refusal.message.into()),
            None => {
                let (line, _) = self.actions_list(judged.warnings)?;
                Ok((line, Some(self.keep_operator())))
            }
        }
    }

    fn cancel(&mut self, id: u32, who: &str, reason: String) -> Answer {
        self.operator.actions.handle_input(now(), actions::In::Cancel { id, who: who.to_owned(), reason });
        match self.settle_actions() {
            Some(refusal) => Err(refusal.message.into()),
            None => Ok((r#"{"ok":true}"#.to_owned(), Some(self.keep_operator()))),
        }
    }

    fn not_stopping(&self) -> Result<(), String> {
        let stopping = matches!(self.core.state(), State::Stopping | State::Removing | State::Stopped);
        if stopping { Err("the agent is stopping".to_owned()) } else { Ok(()) }
    }

    /// Carries out what the actions core wants; the last refusal.
    fn settle_actions(&mut self) -> Option<Refusal> {
        let mut refused = None;
        while let Some(out) = self.operator.actions.poll_output() {
            match out {
                actions::Out::Begun(Action { id, what, who, reason, .. }) => {
                    self.operator.unkept = true;
                    tracing::warn!(id, %what, who, reason, "action begun");
                    self.operator.stale = true;
                    self.remember_by(format!("action {id} begun: {what}"), reason, Some(who));
                }
                actions::Out::Ended { action: Action { id, what, .. }, cause } => {
                    self.operator.unkept = true;
                    tracing::warn!(id, %what, cause, "action ended");
                    self.operator.stale = true;
                    self.remember(format!("action {id} ended: {what}"), cause);
                }
                actions::Out::Refused(refusal) => refused = Some(refusal),
            }
        }
        if std::mem::take(&mut self.operator.stale) {
            self.tell_again();
        }
        refused
    }

    /// Deadlines and outputs of what operators asked for. Called in every turn, after what the site wants.
    pub(super) fn settle_operator(&mut self) {
        let now = now();
        if self.operator.actions.next_deadline().is_some_and(|at| at <= now) {
            self.operator.actions.handle_deadline(now);
        }
        if self.operator.drain.next_deadline().is_some_and(|at| at <= now) {
            self.operator.drain.handle_deadline(now);
        }
        self.settle_drain();
        // Whatever withdrew the site, nothing is left to be waited for.
        if self.operator.drain.stage() == Some(Stage::Leaving) && self.core.state() != State::Draining {
            self.operator.drain.handle_input(now, drain::In::Withdrawn);
        }
        self.settle_drain();
        self.settle_actions();
        if self.operator.unkept {
            self.keep_operator();
        }
    }

    /// Takes up what operators wanted of the former agent; before the site begins.
    pub(super) fn resume_operator(&mut self) {
        let Some(Kept { actions: memory, draining }) = self.memory.kept.part(PART) else { return };
        self.operator.actions.handle_input(now(), actions::In::Restore { memory, wall_ms: unix_ms(SystemTime::now()) });
        if let Some(reason) = draining {
            tracing::warn!(reason, "this site was to be drained before the agent began");
            self.core.handle_input(now(), site::In::Drain { reason });
        }
        self.settle_actions();
    }

    /// The wall clock was set to this, ms since 1970.
    pub(super) fn keep_actions_by(&mut self, wall_ms: u64) {
        self.operator.actions.handle_input(now(), actions::In::Clock { wall_ms });
        self.keep_operator();
    }

    /// Has written what operators want, with what the site knows of it.
    fn keep_operator(&mut self) -> Receipt {
        self.operator.unkept = false;
        let measuring = self.operator.drain.stage() == Some(Stage::Measuring);
        let draining = self.operator.drain.progress().filter(|_| measuring).map(|p| p.request.reason.clone());
        let kept = Kept { actions: self.operator.actions.memory(), draining };
        self.memory.kept.keep(PART, (kept != Kept::default()).then_some(&kept));
        self.keep_site()
    }

    /// The service is another: what actions may be about.
    pub(super) fn operator_reconfigured(&mut self) {
        self.operator.actions.handle_input(now(), actions::In::Configure { config: config(&self.service) });
        self.settle_actions();
    }

    /// News of a counter or a hook.
    pub(super) fn operator_noticed(&mut self, news: drain::In) {
        if let drain::In::Hook(end) = &news {
            match end {
                Ok(()) => tracing::info!("drain hook ended"),
                Err(error) => {
                    tracing::error!(error, "drain hook failed");
                    self.remember("drain hook failed".to_owned(), error.clone());
                }
            }
        }
        self.operator.drain.handle_input(now(), news);
    }

    fn drain_watched(&mut self, ask: DrainRequest, who: &str) -> Answer {
        self.not_stopping()?;
        let within = match ask.within_s {
            Some(value) => seconds(value, MAX_LEAVING, "the time a drain may take")?,
            None if ask.until_gone => MAX_LEAVING,
            None => self.service.agent.graceful_shutdown,
        };
        let watch = ask.watch_s.map_or(Ok(WATCH), |value| seconds(value, MAX_WATCH, "how long to watch"))?;
        if ask.prepend > MAX_PREPEND {
            return Err(format!("a drain prepends at most {MAX_PREPEND} times").into());
        }
        if ask.reason.chars().count() > actions::MAX_REASON_CHARS || ask.reason.chars().any(char::is_control) {
            return Err(format!("a reason is one line of at most {} characters", actions::MAX_REASON_CHARS).into());
        }
        let countable = arrivals::possible(&self.service.addresses);
        if let (true, Err(why)) = (ask.until_gone, &countable) {
            return Err(format!("{why}; without that nobody can tell when traffic is gone: give a time instead").into());
        }
        self.can_hand_over(ask.to.as_deref())?;
        let hook = !ask.no_hook && !self.service.agent.drain_hook.is_empty();
        if ask.dry_run {
            return line(&self.drain_plan(within, ask.prepend, hook, countable));
        }
        self.begin_handing_over(ask.to);
        let (who, reason) = (who.to_owned(), ask.reason);
        let request = drain::Request { who, reason, within, prepend: ask.prepend, hook, watch };
        self.operator.drain.handle_input(now(), drain::In::Begin(request));
        self.settle();
        let (line, _) = line(&self.drain_view())?;
        Ok((line, Some(self.keep_operator())))
    }

    fn drain_plan(&self, within: Duration, prepend: u8, hook: bool, countable: Result<(), String>) -> Plan {
        let announced = self.core.state() == State::Announced;
        let warnings: Vec<String> = countable.err().into_iter().collect();
        let hook =
            if hook { format!(" with the hook {:?}", self.service.agent.drain_hook.join(" ")) } else { String::new() };
        let share = if announced { 100 } else { 0 };
        let told = |upstream: &Upstream| {
            let prefixes: Vec<String> = self.plainly(upstream).iter().map(|a| a.prefix.to_string()).collect();
            let more = if prepend > 0 { format!(", prepended {prepend} times more") } else { String::new() };
            let within = format_duration(within);
            format!("{} with GRACEFUL_SHUTDOWN{more} for at most {within}, then withdrawn", prefixes.join(" "))
        };
        let upstreams = self.peers().map(|(upstream, _)| Reached {
            asn: upstream.asn,
            address: upstream.address,
            told: announced.then(|| told(upstream)),
            why_not: (!announced).then(|| "nothing is announced now".to_owned()),
        });
        Plan {
            schema_version: SCHEMA_VERSION,
            what: format!("drain{hook}"),
            site: self.spec().name.clone(),
            share,
            confirm: share > self.service.agent.confirm_share,
            warnings,
            upstreams: upstreams.collect(),
        }
    }

    fn settle_drain(&mut self) {
        while let Some(out) = self.operator.drain.poll_output() {
            match out {
                drain::Out::Count(true) => {
                    let news = self.operator.news.0.clone();
                    self.operator.counting = Some(arrivals::start(self.service.addresses.clone(), news));
                }
                drain::Out::Count(false) => self.operator.counting = None,
                drain::Out::Hook => self.run_hook("begin"),
                drain::Out::Leave { within } => self.leave(within),
                drain::Out::Withdraw => self.wish_quietly(site::In::Emptied),
                drain::Out::Stage { stage, cause } => self.drain_stage(stage, &cause),
            }
        }
    }

    fn leave(&mut self, within: Duration) {
        let reason = self.operator.drain.progress().map_or_else(String::new, |p| p.request.reason.clone());
        self.reason = "drain";
        self.wish_quietly(site::In::Leave { reason, within });
        if self.core.state() != State::Draining {
            self.operator.drain.handle_input(now(), drain::In::Withdrawn);
        }
    }

    fn drain_stage(&mut self, stage: Stage, cause: &str) {
        self.operator.unkept = true;
        let text = match (stage, self.drain_view()) {
            (Stage::Over, Some(view)) => summary(&view, cause),
            _ => cause.to_owned(),
        };
        let word = stage.word();
        tracing::info!(stage = word, cause = text, "drain");
        let who = self.operator.drain.progress().map(|p| p.request.who.clone()).filter(|_| stage == Stage::Measuring);
        self.remember_by(format!("drain {word}"), text, who);
    }

    /// The site is wanted back; the service may have its long connections again.
    pub(super) fn operator_undrained(&mut self) {
        self.operator.drain.handle_input(now(), drain::In::Undrained);
        self.settle_drain();
        if !self.service.agent.drain_hook.is_empty() {
            self.run_hook("end");
        }
    }

    /// Runs the hook, after one that still runs; `of_drain` says what the service is told of.
    fn run_hook(&mut self, of_drain: &'static str) {
        let news = self.operator.news.0.clone();
        let reason = self.operator.drain.progress().map_or_else(String::new, |p| p.request.reason.clone());
        let environment = vec![
            ("UBIQUE_SERVICE".to_owned(), self.service.name.clone()),
            ("UBIQUE_SITE".to_owned(), self.spec().name.clone()),
            ("UBIQUE_REASON".to_owned(), reason),
            ("UBIQUE_DRAIN".to_owned(), of_drain.to_owned()),
        ];
        let command = self.service.agent.drain_hook.clone();
        let before = self.operator.hook.take();
        let task = tokio::task::spawn_local(async move {
            if let Some(mut before) = before {
                // However it ended.
                let _ = (&mut before.0).await;
            }
            let run = async {
                let mut exec = Exec::with_environment(&command, environment)?;
                exec.run().await.map(drop)
            };
            let end = tokio::time::timeout(HOOK_TIMEOUT, run).await;
            let end = end.unwrap_or_else(|_| Err(format!("it was killed after {HOOK_TIMEOUT:?}")));
            // The loop that would hear it may have gone.
            let _ = news.send(drain::In::Hook(end)).await;
        });
        self.operator.hook = Some(Task(task));
    }

    /// What a neighbour is told, with what operators asked for: `list` is what it is told without.
    pub(super) fn with_actions(&self, upstream: &Upstream, mut list: Vec<Announcement>) -> Vec<Announcement> {
        for route in self.told_of_actions(upstream, &list).into_iter().filter_map(Told::route) {
            match list.iter_mut().find(|a| a.prefix == route.prefix) {
                Some(covered) => *covered = route,
                None => list.push(route),
            }
        }
        let prepend = self.operator.drain.prepend();
        list.iter_mut().for_each(|a| a.prepend = a.prepend.saturating_add(prepend));
        list
    }

    fn told_of_actions(&self, upstream: &Upstream, plain: &[Announcement]) -> Vec<Told> {
        self.operator.actions.list().filter_map(|action| told(&action.what, upstream, plain).ok()).collect()
    }

    /// Tells a neighbour the rules it is to have, and takes back the others; `plain` is what it is told without actions.
    pub(super) fn tell_rules(&mut self, peer: PeerId, plain: &[Announcement]) {
        let Some(upstream) = self.neighbour(peer) else { return };
        let wanted: Vec<_> = self.told_of_actions(upstream, plain).into_iter().filter_map(Told::rule).collect();
        let rules = wanted.iter().map(|(rule, _)| rule.clone()).collect();
        for flow in self.operator.rules.insert(peer, rules).unwrap_or_default() {
            if !wanted.iter().any(|(rule, _)| *rule == flow) {
                self.bgp.handle(BgpIn::WithdrawFlow { peer, flow });
            }
        }
        for (flow, actions) in wanted {
            self.bgp.handle(BgpIn::AnnounceFlow { peer, flow, actions });
        }
    }

    /// Takes all rules back from everybody.
    pub(super) fn withdraw_rules(&mut self) {
        for (peer, rules) in std::mem::take(&mut self.operator.rules) {
            rules.into_iter().for_each(|flow| self.bgp.handle(BgpIn::WithdrawFlow { peer, flow }));
        }
    }

    /// A neighbour is gone.
    pub(super) fn forget_rules(&mut self, peer: PeerId) {
        self.operator.rules.remove(&peer);
    }

    /// What each upstream is told, or would be while the site is announced.
    fn reached(&self, what: &Kind, if_announced: bool) -> Vec<Reached> {
        let reached = |(upstream, peer): (&Upstream, ubique_proto::bgp::speaker::PeerStatus<'_>)| {
            let mut plain = self.plainly(upstream);
            let silent = plain.is_empty();
            if silent && if_announced {
                plain = announcements(&self.service, upstream, &Stance::HEALTHY);
            }
            let told = told(what, upstream, &plain);
            let later = if silent { "; once the site announces" } else { "" };
            let up = if Agent::established(&peer) { "" } else { "; once its session is up" };
            Reached {
                asn: upstream.asn,
                address: upstream.address,
                told: told.as_ref().ok().map(|told| format!("{}{later}{up}", describe(told))),
                why_not: told.err().map(|error| error.to_string()),
            }
        };
        self.peers().map(reached).collect()
    }

    fn actions_list(&self, warnings: Vec<String>) -> Answer {
        line(&ActionList { schema_version: SCHEMA_VERSION, warnings, actions: self.action_views(), warning: None })
    }

    /// The actions that last, for `status`.
    pub(super) fn action_views(&self) -> Vec<ActionView> {
        let view = |action: &Action| ActionView {
            id: action.id,
            what: action.what.clone(),
            text: action.what.to_string(),
            who: action.who.clone(),
            reason: action.reason.clone(),
            since: rfc3339(UNIX_EPOCH + Duration::from_millis(action.began_ms)),
            until: rfc3339(UNIX_EPOCH + Duration::from_millis(action.until_ms)),
            left_s: self.operator.actions.left(action.id, now()).unwrap_or_default().as_secs(),
            upstreams: self.reached(&action.what, false),
        };
        self.operator.actions.list().map(view).collect()
    }

    /// The drain under way, or the last one.
    pub(super) fn drain_view(&self) -> Option<DrainView> {
        let progress = self.operator.drain.progress()?;
        let traffic = |t: &drain::Traffic| TrafficView { packets_per_s: t.packets_per_s, connections: t.connections };
        let sender = |(sender, rate): &(ubique_proto::actions::senders::Sender, f64)| SenderView {
            prefix: sender.prefix,
            packets_per_s: *rate,
            asn: self.origin(sender.prefix),
        };
        let over = !self.operator.drain.is_active();
        let gone = match progress.gone_after {
            Some(_) => Some(true),
            None if over && progress.uncounted.is_none() => Some(false),
            None => None,
        };
        Some(DrainView {
            schema_version: SCHEMA_VERSION,
            site: self.spec().name.clone(),
            who: progress.request.who.clone(),
            reason: progress.request.reason.clone(),
            stage: progress.stage,
            began: rfc3339(wall(progress.began)),
            lasted_s: progress.took.unwrap_or_else(|| now().since(progress.began)).as_secs_f64(),
            stage_s: now().since(progress.since).as_secs_f64(),
            within_s: progress.request.within.as_secs_f64(),
            before: progress.before.map(traffic),
            now: progress.now.map(traffic),
            gone,
            gone_after_s: progress.gone_after.map(|d| d.as_secs_f64()),
            senders: progress.senders.iter().map(sender).collect(),
            sessions: self.drain_sessions(),
            uncounted: progress.uncounted.map(str::to_owned),
            hook: progress.hook.map(|end| HookView { ok: end.is_ok(), error: end.clone().err() }),
            warning: None,
        })
    }

    /// The origin of the longest route around a network that an upstream sent; a default route says nothing.
    fn origin(&self, network: Prefix) -> Option<Asn> {
        let rib = self.bgp.speaker();
        let covering =
            (1..=network.prefix_len()).rev().filter_map(|l| Some(Prefix::new(network.addr(), l).ok()?.trunc()));
        let mut origins = covering.filter_map(|prefix| {
            let routes = rib.routes(prefix);
            routes.iter().find_map(|route| route.attributes.as_path.ases().last())
        });
        origins.next()
    }
}

fn describe(told: &Told) -> String {
    match told {
        Told::Route(route) => {
            let mut text = route.prefix.to_string();
            if route.prepend > 0 {
                text.push_str(&format!(", prepended {} times", route.prepend));
            }
            let communities = route.communities.iter().map(ToString::to_string);
            let communities: Vec<String> =
                communities.chain(route.large_communities.iter().map(ToString::to_string)).collect();
            if !communities.is_empty() {
                text.push_str(&format!(", communities {}", communities.join(" ")));
            }
            text
        }
        Told::Flow { rule, .. } => format!("the rule {rule}"),
    }
}

/// What came of a drain, in one line.
fn summary(view: &DrainView, cause: &str) -> String {
    let rate = |traffic: &Option<TrafficView>| {
        traffic.as_ref().map_or_else(|| "? packets/s".to_owned(), |t| format!("{:.0} packets/s", t.packets_per_s))
    };
    let mut text =
        format!("{cause}: {} before, {} now, after {:.1} s", rate(&view.before), rate(&view.now), view.lasted_s);
    if view.gone == Some(false) {
        let named = |s: &SenderView| {
            let asn = s.asn.map_or_else(|| "unknown AS".to_owned(), |asn| format!("AS{asn}"));
            format!("{} ({asn}) {:.1} packets/s", s.prefix, s.packets_per_s)
        };
        let senders: Vec<String> = view.senders.iter().map(named).collect();
        text.push_str(&format!("; still sending: {}", senders.join(", ")));
    }
    text
}
