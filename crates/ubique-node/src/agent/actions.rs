//! What operators ask for while the agent runs: timed actions, and what both they and drains need (`drain`). Decided by the cores of
//! [`ubique_proto::actions`], carried out here: told to upstreams and remembered.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use ubique_model::policy::{Announcement, Stance, announcements};
use ubique_model::quantity::format_duration;
use ubique_model::service::{Service, Upstream};
use ubique_proto::Time;
use ubique_proto::actions::drain::{self, Drain, Stage};
use ubique_proto::actions::{self, Action, Actions, ActionsConfig, Begin, Kind, Refusal, Told, told};
use ubique_proto::bgp::flowspec::FlowSpec;
use ubique_proto::bgp::speaker::{In as BgpIn, PeerId};
use ubique_proto::journal::Recorded;
use ubique_proto::site::State;

use super::arrivals::Counting;
use super::drain::{KeptDrain, Task, seconds};
use super::sessions::HandingOver;
use super::site::Agent;
use crate::admin::{self, ActRequest, ActionList, ActionView, Plan, Reached, SCHEMA_VERSION};
use crate::clock::{now, rfc3339};
use crate::journal::Journal;
use crate::state::{Receipt, unix_ms};

/// News of counters and hooks that wait for the loop.
const NEWS: usize = 16;

/// The answer to an admin client: a line of JSON with what tells whether it is on the disk, or why not.
pub(super) type Answer = Result<(String, Option<Receipt>), admin::Refusal>;

/// The name of what is kept.
const PART: &str = "operator";

/// What a restart must not forget.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    actions: actions::Memory,
    /// The one under way.
    drain: Option<KeptDrain>,
    /// Where new connections go while the site is drained.
    handing_over: Option<HandingOver>,
}

/// What operators asked for.
pub(super) struct Operator {
    pub(super) actions: Recorded<Actions, Journal>,
    pub(super) drain: Recorded<Drain, Journal>,
    pub(super) counting: Option<Counting>,
    pub(super) hook: Option<Task>,
    pub(super) news: (mpsc::Sender<drain::In>, mpsc::Receiver<drain::In>),
    /// Rules each neighbour has been told.
    rules: BTreeMap<PeerId, Vec<FlowSpec>>,
    /// An action has begun or ended: neighbours are told again.
    stale: bool,
    /// What must be kept has changed.
    pub(super) unkept: bool,
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

/// An answer about what is, and needs no disk.
pub(super) fn line(value: &impl serde::Serialize) -> Answer {
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

    pub(super) fn not_stopping(&self) -> Result<(), String> {
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
        let Some(Kept { actions: memory, drain, handing_over }) = self.memory.kept.part(PART) else { return };
        self.operator.actions.handle_input(now(), actions::In::Restore { memory, wall_ms: unix_ms(SystemTime::now()) });
        self.handing_over = handing_over.unwrap_or_default();
        if let Some(drain) = drain {
            self.resume_drain(drain);
        }
        self.settle_actions();
    }

    /// The wall clock was set to this, ms since 1970.
    pub(super) fn keep_actions_by(&mut self, wall_ms: u64) {
        self.operator.actions.handle_input(now(), actions::In::Clock { wall_ms });
        self.keep_operator();
    }

    /// Has written what operators want, with what the site knows of it.
    pub(super) fn keep_operator(&mut self) -> Receipt {
        self.operator.unkept = false;
        let handing_over = Some(self.handing_over.clone()).filter(|handing| *handing != HandingOver::default());
        let kept = Kept { actions: self.operator.actions.memory(), drain: self.kept_drain(), handing_over };
        self.memory.kept.keep(PART, (kept != Kept::default()).then_some(&kept));
        self.keep_site()
    }

    /// The service is another: what actions may be about.
    pub(super) fn operator_reconfigured(&mut self) {
        self.operator.actions.handle_input(now(), actions::In::Configure { config: config(&self.service) });
        self.settle_actions();
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
