//! A watched drain in the agent: begun for an operator, counted, carried over a restart, shown. Decided by
//! [`ubique_proto::actions::drain`].

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use ubique_model::quantity::format_duration;
use ubique_model::service::Upstream;
use ubique_model::service::spec::MAX_PREPEND;
use ubique_model::{Asn, Prefix};
use ubique_proto::actions;
use ubique_proto::actions::drain::{self, MAX_LEAVING, MAX_WATCH, Stage, WATCH};
use ubique_proto::site::{self, State};

use super::actions::{Answer, line};
use super::arrivals;
use super::site::Agent;
use crate::admin::{DrainRequest, DrainView, HookView, Plan, Reached, SCHEMA_VERSION, SenderView, TrafficView};
use crate::checks::Exec;
use crate::clock::{now, rfc3339, wall};
use crate::state::unix_ms;

/// How long a drain hook may run before it is killed with its group.
const HOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// A task that ends with its owner.
pub(super) struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A drain as a successor of the agent needs it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct KeptDrain {
    request: drain::Request,
    /// When it began, ms since 1970.
    began_ms: u64,
    /// When the site was withdrawn, ms since 1970; absent: it is announced still.
    withdrawn_ms: Option<u64>,
    before: Option<drain::Traffic>,
}

pub(super) fn seconds(value: f64, most: Duration, what: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|duration| *duration <= most)
        .ok_or_else(|| format!("{what} is a time of at most {} s, not {value} s", most.as_secs()))
}

impl Agent {
    /// What a successor needs to go on with the drain under way.
    pub(super) fn kept_drain(&self) -> Option<KeptDrain> {
        let progress = self.operator.drain.progress().filter(|_| self.operator.drain.is_active())?;
        let withdrawn = progress.stage == Stage::Withdrawn;
        Some(KeptDrain {
            request: progress.request.clone(),
            began_ms: unix_ms(wall(progress.began)),
            withdrawn_ms: withdrawn.then(|| unix_ms(wall(progress.since))),
            before: progress.before.cloned(),
        })
    }

    /// Goes on with the drain that the former agent was at; before the site begins, which stays withdrawn.
    pub(super) fn resume_drain(&mut self, kept: KeptDrain) {
        let KeptDrain { request, began_ms, withdrawn_ms, before } = kept;
        let reason = request.reason.clone();
        tracing::warn!(reason, "this site was being drained before the agent began");
        let wall_ms = unix_ms(SystemTime::now());
        let ago = |ms: u64| Duration::from_millis(wall_ms.saturating_sub(ms));
        let (lasted, withdrawn) = (ago(began_ms), withdrawn_ms.map_or(Duration::ZERO, ago));
        self.core.handle_input(now(), site::In::Drain { reason });
        let former = drain::Resumed { request, lasted, withdrawn, before };
        self.operator.drain.handle_input(now(), drain::In::Resume(former));
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

    pub(super) fn drain_watched(&mut self, ask: DrainRequest, who: &str) -> Answer {
        self.not_stopping()?;
        let within = match ask.within_s {
            Some(value) => seconds(value, MAX_LEAVING, "the time a drain may take")?,
            None if ask.until_gone => MAX_LEAVING,
            None => self.service.agent.graceful_shutdown,
        };
        let carried = self.carries_connections();
        let watch = if carried { MAX_WATCH } else { WATCH };
        let watch = ask.watch_s.map_or(Ok(watch), |value| seconds(value, MAX_WATCH, "how long to watch"))?;
        if ask.prepend > MAX_PREPEND {
            return Err(format!("a drain prepends at most {MAX_PREPEND} times").into());
        }
        if ask.reason.chars().count() > actions::MAX_REASON_CHARS || ask.reason.chars().any(char::is_control) {
            return Err(format!("a reason is one line of at most {} characters", actions::MAX_REASON_CHARS).into());
        }
        let countable = arrivals::possible(&self.counted());
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
        let request = drain::Request { who, reason, within, prepend: ask.prepend, hook, watch, carried };
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

    /// Where the data plane begins connections by cookies, its interfaces alone: other sockets would be in their way.
    fn counted(&self) -> arrivals::What {
        arrivals::What { addresses: self.service.addresses.clone(), interfaces: self.interfaces_with_cookies() }
    }

    pub(super) fn settle_drain(&mut self) {
        while let Some(out) = self.operator.drain.poll_output() {
            match out {
                drain::Out::Count(true) => {
                    let news = self.operator.news.0.clone();
                    self.operator.counting = Some(arrivals::start(self.counted(), news));
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
        self.end_handing_over();
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
