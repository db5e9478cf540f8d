//! The state of the loop: three cores, and what their outputs mean.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::Sleep;
use ubique_model::policy::Level;
use ubique_model::service::{Service, Site as SiteSpec, Upstream};
use ubique_proto::Time;
use ubique_proto::bgp::speaker::{In as BgpIn, PeerId, SessionEvent};
use ubique_proto::health::{self, Health};
use ubique_proto::journal::Recorded;
use ubique_proto::site::{self, Site, State};

use super::actions::Operator;
use super::addresses::Addresses;
use super::announce::Told;
use super::bfd::{Bfd, Starter};
use super::detect::Detected;
use super::failover::Failover;
use super::keep::{Remembered, Waiting};
use super::metrics::Metrics;
use super::neighbours::Unarmed;
use super::restart::Restart;
use super::sessions::HandingOver;
use super::setup::Watched;
use super::upgrade::Leaving;
use super::{AgentError, Request};
use crate::admin::Event;
use crate::bgp::{Driver, Notice};
use crate::checks::{Failure, PollResult};
use crate::clock::{instant, now, rfc3339};
use crate::journal::Journal;
use crate::limits::Throttle;
use crate::monitor::Monitor;
use crate::notify::Notifier;

/// Transitions kept for `status`.
const EVENTS_KEPT: usize = 50;

/// How long after a failure the addresses are tried again.
const ADDRESSES_RETRY: Duration = Duration::from_secs(1);

/// The one timer of the health and site cores.
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: Option<Time>,
}

impl Timer {
    fn new() -> Timer {
        Timer { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), armed: None }
    }

    fn arm(&mut self, next: Option<Time>) {
        if next != self.armed {
            self.armed = next;
            if let Some(at) = next {
                self.sleep.as_mut().reset(instant(at, now()));
            }
        }
    }

    /// Waits for the deadline it is armed for.
    pub(super) async fn wait(&mut self) {
        match self.armed {
            Some(_) => self.sleep.as_mut().await,
            None => std::future::pending().await,
        }
        self.armed = None;
    }
}

/// What an agent is made of.
pub(super) struct Parts {
    pub bgp: Driver,
    pub health: Recorded<Health, Journal>,
    pub core: Recorded<Site, Journal>,
    pub addresses: Addresses,
    pub restart: Restart,
    pub watched: Watched,
    pub inputs: Inputs,
    /// Upstreams whose key is missing, with why.
    pub unarmed: Unarmed,
    pub memory: Remembered,
    pub bfd_starter: Starter,
    pub sessions_life: PathBuf,
    pub journal: Option<Journal>,
    pub monitor: Option<Rc<Monitor>>,
}

/// Where what happens is told to the loop.
pub(super) struct Inputs {
    pub results: mpsc::Sender<PollResult>,
    pub events: mpsc::Sender<Detected>,
    pub requests: mpsc::Sender<Request>,
}

/// The agent.
pub(super) struct Agent {
    pub(super) service: Service,
    pub(super) site: usize,
    pub(super) version: String,
    pub(super) bgp: Driver,
    pub(super) bfd: Option<Bfd>,
    pub(super) sessions: Option<crate::sessions::Driver>,
    /// Where the data plane leaves what its successor must know.
    pub(super) sessions_life: PathBuf,
    pub(super) handing_over: HandingOver,
    pub(super) health: Recorded<Health, Journal>,
    pub(super) core: Recorded<Site, Journal>,
    pub(super) journal: Option<Journal>,
    pub(super) monitor: Option<Rc<Monitor>>,
    pub(super) timer: Timer,
    pub(super) metrics: Metrics,
    pub(super) failover: Failover,
    pub(super) events: VecDeque<Event>,
    pub(super) began: Time,
    pub(super) notifier: Notifier,
    pub(super) operator: Operator,
    pub(super) addresses: Addresses,
    pub(super) restart: Restart,
    /// The program is about to be replaced.
    pub(super) leaving: Option<Leaving>,
    pub(super) watched: Watched,
    pub(super) inputs: Inputs,
    pub(super) memory: Remembered,
    pub(super) bfd_starter: Starter,
    /// The processes of a check are known and watched.
    pub(super) resolved: Vec<bool>,
    /// The neighbours of the service file.
    pub(super) upstreams: BTreeMap<PeerId, Upstream>,
    /// Those of them whose key is missing.
    pub(super) unarmed: Waiting,
    /// What each neighbour is told.
    pub(super) told: Told,
    /// Neighbours from ranges, with what each is.
    pub(super) dynamic: BTreeMap<PeerId, Upstream>,
    /// Lines about neighbours from ranges, who come and go as they like.
    pub(super) throttle: Throttle,
    /// Why announcements change now, as a label of metrics.
    pub(super) reason: &'static str,
    /// When to try again to put the addresses on the loopback.
    addresses_due: Option<Time>,
    over: bool,
}

impl Agent {
    pub(super) fn new(service: Service, site: usize, version: String, parts: Parts) -> Agent {
        let upstreams: BTreeMap<_, _> = (0..).map(PeerId).zip(service.sites[site].upstreams.clone()).collect();
        let mut agent = Agent {
            operator: Operator::new(&service, parts.journal.clone()),
            metrics: Metrics::new(),
            failover: Failover::default(),
            resolved: vec![false; service.checks.len()],
            service,
            site,
            version,
            bgp: parts.bgp,
            bfd: None,
            sessions: None,
            sessions_life: parts.sessions_life,
            handing_over: HandingOver::default(),
            health: parts.health,
            core: parts.core,
            journal: parts.journal,
            monitor: parts.monitor,
            timer: Timer::new(),
            events: VecDeque::new(),
            began: now(),
            notifier: Notifier::from_environment(),
            addresses: parts.addresses,
            restart: parts.restart,
            told: Told::default(),
            dynamic: BTreeMap::new(),
            throttle: Throttle::default(),
            leaving: None,
            watched: parts.watched,
            inputs: parts.inputs,
            memory: parts.memory,
            bfd_starter: parts.bfd_starter,
            upstreams,
            unarmed: Waiting::new(),
            reason: "start",
            addresses_due: None,
            over: false,
        };
        agent.await_keys(parts.unarmed);
        agent
    }

    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    pub(super) fn spec(&self) -> &SiteSpec {
        &self.service.sites[self.site]
    }

    /// Everything begins at once: sessions come up while the first polls run.
    pub(super) fn start(&mut self) -> Result<(), AgentError> {
        let found = self.addresses.add().map_err(|error| {
            // Some may be there by now.
            let _ = self.addresses.remove();
            AgentError::Addresses(error)
        })?;
        for address in found {
            tracing::warn!(%address, "service address was on the loopback already: it will not be removed");
        }
        for peer in self.upstreams.keys().filter(|peer| !self.unarmed.contains_key(peer)) {
            self.bgp.handle(BgpIn::StartPeer(*peer));
        }
        self.bfd_adapt();
        self.sessions_start();
        self.resume_operator();
        self.core.handle_input(now(), site::In::Start);
        self.settle();
        Ok(())
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Carries out what the health and site cores want, until both are silent.
    pub(super) fn settle(&mut self) {
        self.deadlines();
        let mut news = Vec::new();
        loop {
            match self.health.poll_output() {
                // Withdrawals go out before anything is logged or remembered.
                Some(out @ health::Out::Check { .. }) => news.push(out),
                Some(out) => self.health_wants(out),
                None => match self.core.poll_output() {
                    Some(out) => self.site_wants(out),
                    None => break,
                },
            }
        }
        news.into_iter().for_each(|out| self.health_wants(out));
        self.settle_operator();
        self.sessions_follow();
        self.sessions_watch();
        self.come_back();
        self.keep_in_mind();
        self.keep_site();
        self.tell_manager();
        let cores = [self.health.next_deadline(), self.core.next_deadline(), self.operator.next_deadline()];
        let stall = self.sessions.as_ref().map(|driver| driver.next_deadline(now()));
        let own = [self.addresses_due, self.addresses.next_deadline(), self.leaving.as_ref().map(|l| l.due), stall];
        self.timer.arm(cores.into_iter().chain(own).flatten().min());
    }

    /// After a restart the neighbours wait until we have said everything: what is announced, or that nothing is
    /// (RFC 4724 §4.1).
    fn come_back(&mut self) {
        if !self.restart.is_settling() {
            return;
        }
        // Checks begin as down, so that a service that stays down changes nothing: enough failures say it.
        let unfit = self.health.best_case() == Level::Failed;
        let decided = !matches!(self.core.state(), State::Starting | State::Unhealthy | State::Held);
        if unfit || decided {
            self.restart.settle();
            self.bgp.handle(BgpIn::Settled);
        }
    }

    fn keep_in_mind(&self) {
        if !self.restart.remembers() {
            return;
        }
        self.restart.remember(self.told.prefixes(), self.addresses.added().to_vec());
    }

    fn deadlines(&mut self) {
        let now = now();
        if self.health.next_deadline().is_some_and(|at| at <= now) {
            self.health.handle_deadline(now);
        }
        if self.core.next_deadline().is_some_and(|at| at <= now) {
            self.core.handle_deadline(now);
        }
        if self.addresses_due.is_some_and(|at| at <= now) {
            self.add_addresses();
        }
        if self.addresses.next_deadline().is_some_and(|at| at <= now) {
            match self.addresses.handle_deadline(now) {
                Ok(gone) => tracing::info!(?gone, "reload: addresses removed"),
                Err(error) => tracing::error!(%error, "an address cannot be removed from the loopback"),
            }
        }
    }

    fn health_wants(&mut self, out: health::Out) {
        match out {
            health::Out::Poll { check, poll } => {
                if let Some(runner) = self.watched.runners.get(check) {
                    runner.poll(poll);
                }
            }
            health::Out::Abandon { check, .. } => {
                if let Some(runner) = self.watched.runners.get(check) {
                    runner.abandon();
                }
                self.failed(check);
            }
            health::Out::Check { check, up, cause } => {
                let name = self.service.checks.get(check).map_or("", |c| c.name.as_str());
                let state = if up { "up" } else { "down" };
                tracing::info!(check = name, state, cause, "check");
                let what = format!("check {name} {state}");
                self.remember(what, cause);
            }
            health::Out::Overload { on, cause } => {
                tracing::warn!(on, cause, "overload");
                self.remember(format!("overload {}", if on { "began" } else { "ended" }), cause.clone());
                self.core.handle_input(now(), site::In::Overload { on, cause });
            }
            health::Out::Verdict { level, answers, cause } => {
                let healthy = level == Level::Healthy;
                self.reason = if healthy { "healthy" } else { "unhealthy" };
                self.failover.judged(self.reason != "healthy", now());
                self.core.handle_input(now(), site::In::Verdict { level, answers, cause });
                // Withdrawals go out before anything else is looked at.
                while let Some(out) = self.core.poll_output() {
                    self.site_wants(out);
                }
            }
        }
    }

    fn site_wants(&mut self, out: site::Out) {
        match out {
            site::Out::AddAddresses => self.add_addresses(),
            site::Out::Verify => self.verify(),
            site::Out::LastSite { cause } => self.alarm(cause),
            site::Out::Probe { upstream, within } => self.probe(upstream, within),
            site::Out::Announce { stance, cause } => self.announce(stance, cause),
            site::Out::Withdraw { .. } => {
                self.withdraw();
                self.failover.withdrew(now());
                self.metrics.transition(self.reason);
            }
            site::Out::RemoveAddresses => {
                self.remove_addresses();
                self.core.handle_input(now(), site::In::AddressesRemoved);
            }
            site::Out::State { state, cause } => {
                self.bfd_follow(state);
                self.entered(state, cause);
            }
            site::Out::Exit => self.over = true,
        }
    }

    fn add_addresses(&mut self) {
        match self.addresses.restore() {
            Ok(_) => {
                self.addresses_due = None;
                self.core.handle_input(now(), site::In::AddressesAdded);
            }
            Err(error) => {
                self.addresses_due = Some(now() + ADDRESSES_RETRY);
                tracing::error!(%error, "service addresses cannot be put on the loopback: trying again");
            }
        }
    }

    fn remove_addresses(&mut self) {
        if self.connections_go_on() {
            tracing::warn!("connections are open: the service addresses stay on the loopback, with the data plane");
            return;
        }
        if let Err(error) = self.addresses.remove() {
            tracing::error!(%error, "a service address cannot be removed from the loopback");
        }
    }

    /// Tells collectors the next few routes of what is known already.
    pub(super) fn feed_collectors(&self) {
        if let Some(monitor) = &self.monitor {
            monitor.feed(self.bgp.speaker());
        }
    }

    /// An event of a detector.
    pub(super) fn detected(&mut self, event: Detected) {
        match event {
            Detected::Gone { check, cause } => {
                self.health.handle_input(now(), health::In::Gone { check, cause });
                self.failed(check);
            }
            Detected::Verified { result } => self.core.handle_input(now(), site::In::Verified { result }),
            Detected::Probed { upstream, answered } => {
                self.core.handle_input(now(), site::In::Probed { upstream, answered });
            }
            Detected::AddressRemoved { which } => {
                let ours = |(index, address)| index == self.addresses.index() && self.addresses.wants(&address);
                if which.is_none_or(ours) {
                    self.restore_addresses();
                }
            }
        }
    }

    fn restore_addresses(&mut self) {
        match self.addresses.restore() {
            Ok(restored) => {
                for address in restored {
                    tracing::warn!(%address, "service address was removed from the loopback: it is back");
                    self.remember(format!("address {address} restored"), "it was removed by somebody else".into());
                }
            }
            Err(error) => {
                tracing::error!(%error, "service addresses were removed from the loopback and cannot be put back");
                self.reason = "addresses";
                self.core.handle_input(now(), site::In::AddressesRemoved);
            }
        }
    }

    /// The end of a poll.
    pub(super) fn polled(&mut self, end: PollResult) {
        let PollResult { check, poll, result, took } = end;
        match &result {
            Ok(_) => self.succeeded(check),
            Err(_) => self.failed(check),
        }
        let input = match result {
            Ok(Some(value)) => health::In::Load { check, poll, took, value },
            Ok(None) => health::In::Result { check, poll, took, result: Ok(()), answered: true },
            Err(Failure { words, answered }) => health::In::Result { check, poll, took, result: Err(words), answered },
        };
        self.health.handle_input(now(), input);
    }

    /// Who serves is looked up when it begins to serve: that is a search through all processes.
    fn succeeded(&mut self, check: usize) {
        self.failover.succeeded(check);
        let resolve = self.watched.resolve.get(check);
        if let (Some(known @ false), Some(Some(resolve))) = (self.resolved.get_mut(check), resolve) {
            *known = true;
            resolve.notify_one();
        }
    }

    fn failed(&mut self, check: usize) {
        self.failover.failed(check, now());
        if let Some(known) = self.resolved.get_mut(check) {
            *known = false;
        }
    }

    /// News of the speaker.
    pub(super) fn noticed(&mut self, notice: Notice) {
        let (peer, event) = match notice {
            Notice::Session { peer, event } => (peer, event),
            Notice::Joined { peer, address, asn, range } => return self.joined(peer, address, asn, range),
            Notice::Left { peer } => return self.left(peer),
            Notice::Scope { peer } => return self.look_at(peer),
            // An announcing edge installs no routes; acknowledgements are read back when somebody asks.
            Notice::Acknowledged { .. } => return self.failover_acknowledged(),
            Notice::Best { .. } => return,
        };
        let Some(upstream) = self.neighbour(peer) else {
            return;
        };
        let (address, asn) = (upstream.address, upstream.asn);
        self.look_at(peer);
        match event {
            SessionEvent::Up { router_id, hold_time } => {
                self.bfd_joined(peer);
                tracing::info!(%address, %asn, %router_id, ?hold_time, state = "up", "session");
                self.remember(format!("session {address} up"), format!("AS{asn} answered"));
            }
            SessionEvent::Down { was_established, reason } => {
                let cause = reason.to_string();
                if was_established {
                    tracing::warn!(%address, %asn, cause, state = "down", "session");
                    self.remember(format!("session {address} down"), cause);
                } else if let Some(unwritten) = self.admit(peer) {
                    tracing::info!(%address, %asn, cause, unwritten, state = "down", "session did not come up");
                }
            }
        }
    }

    /// What a neighbour is: an upstream of the service file, or one of a range.
    pub(super) fn neighbour(&self, peer: PeerId) -> Option<&Upstream> {
        self.upstreams.get(&peer).or_else(|| self.dynamic.get(&peer))
    }

    /// Whether a line about a neighbour is written: always about those of the service file.
    pub(super) fn admit(&mut self, peer: PeerId) -> Option<u64> {
        if self.dynamic.contains_key(&peer) { self.throttle.admit(now()) } else { Some(0) }
    }

    /// A request of an admin client or a scrape.
    pub(super) fn asked(&mut self, request: Request) {
        match request {
            // A client that has gone meanwhile is no concern of ours.
            Request::Status(reply) => drop(reply.send(Box::new(self.status()))),
            Request::Metrics(reply) => drop(reply.send(self.exposition())),
            Request::Routes { which, reply } => drop(reply.send(self.routes(&which).map(Box::new))),
            Request::Drain { reason, who, reply } => {
                tracing::info!(reason, who, "drain requested");
                self.remember_by("drain requested".into(), reason.clone(), Some(who));
                self.reason = "drain";
                let done = self.wish(site::In::Drain { reason });
                let _ = reply.send(done.map(|()| self.keep_site()));
            }
            Request::Reload { reread, how, who, reply } => {
                let done = self.reload(*reread, how, &who);
                let _ = reply.send(done);
            }
            Request::Reloaded => self.notifier.ready(),
            Request::Upgrade { how, program, reply } => drop(reply.send(self.upgrade(how, program))),
            Request::Armed { peer, endpoint } => self.armed(peer, *endpoint),
            Request::Undrain { reason, who, reply } => {
                tracing::info!(reason, who, "undrain requested");
                self.remember_by("undrain requested".into(), reason.clone(), Some(who));
                self.reason = "undrain";
                let done = self.wish(site::In::Undrain { reason });
                self.operator_undrained();
                let _ = reply.send(done.map(|()| self.keep_site()));
            }
            Request::ClockJumped { by_ms } => self.clock_jumped(by_ms),
            Request::Operator { what, who, reply } => self.operator_asked(what, &who, reply),
        }
    }

    /// What an operator wants, carried out when this returns.
    fn wish(&mut self, wish: site::In) -> Result<(), String> {
        if self.is_ending() {
            return Err("the agent is stopping".to_owned());
        }
        self.core.handle_input(now(), wish);
        self.settle();
        Ok(())
    }

    /// Whether nothing is begun any more.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.core.state(), State::Stopping | State::Removing | State::Stopped)
    }

    /// The same where nobody waits for an answer.
    pub(super) fn wish_quietly(&mut self, wish: site::In) {
        self.core.handle_input(now(), wish);
        while let Some(out) = self.core.poll_output() {
            self.site_wants(out);
        }
    }

    /// A signal that asks for the end: the first one in order, the second without waiting for the drain time.
    pub(super) fn stop(&mut self, signal: &str) {
        self.reason = "stop";
        self.notifier.stopping();
        self.core.handle_input(now(), site::In::Stop { reason: signal.to_owned() });
    }

    pub(super) fn remember(&mut self, what: String, cause: String) {
        self.remember_by(what, cause, None);
    }

    /// What an operator asked for, with who he is.
    pub(super) fn remember_by(&mut self, what: String, cause: String, who: Option<String>) {
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(Event { time: rfc3339(SystemTime::now()), what, cause, who });
    }
}
