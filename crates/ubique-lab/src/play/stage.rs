//! The running rehearsal: the world, the vantage points, and what happened so far.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ubique_model::scenario::{Action, SiteSelector, Step};
use ubique_model::service::Ask;
use ubique_model::{Asn, Prefix};
use ubique_sys::clock::{monotonic_ns, realtime_ns};

use super::action::{action_name, is_fault, selector};
use super::outcome;
use super::prober::{Prober, settle};
use super::sessions::Held;
use super::{Observer, PlayError, Setup};
use crate::explain::{Candidate, Explainer, Surprise};
use crate::measure::Landing;
use crate::plan::Plan;
use crate::report::live::{LiveRow, LiveSite, LiveState};
use crate::report::{self, Event, EventKind, Report};
use crate::world::{World, WorldOptions};

/// Work files and sockets of a lab, on a file system of its own.
pub(super) const DIRECTORY: &str = "/run/ubique";
/// The reason given for drains.
const REASON: &str = "rehearsal";
/// Interval between two looks at the state while observing.
const FRAME: Duration = Duration::from_millis(100);
/// Interval between two looks while waiting for convergence.
const CONVERGE_POLL: Duration = Duration::from_millis(50);
/// Routing that has said nothing for so long has converged: longer than the slowest path across the Internet.
const QUIET: Duration = Duration::from_millis(500);
/// Landings are told by the queries of this long: enough for several answers from the far side of the Earth.
pub(super) const LANDING_WINDOW: Duration = Duration::from_millis(900);

/// A step that was played.
pub(super) struct Played {
    /// Index in the scenario.
    pub step: usize,
    /// The site it chose.
    pub site: Option<String>,
    /// When it acted.
    pub at_ns: u64,
    /// End of its observation.
    pub until_ns: u64,
    /// Service address → network → AS path of its best route at the end.
    pub paths: BTreeMap<IpAddr, BTreeMap<Asn, Vec<Asn>>>,
}

/// Everything of a rehearsal while it runs.
pub(super) struct Stage<'a> {
    pub setup: &'a Setup,
    pub plan: Plan,
    pub world: World,
    pub prober: Prober,
    /// Sessions that vantage points hold, and what became of them.
    pub held: Held,
    observer: &'a mut dyn Observer,
    pub sites: Vec<String>,
    pub started_ns: u64,
    /// When the routers started.
    routers_ns: u64,
    pub events: Vec<Event>,
    pub played: Vec<Played>,
    pub surprises: Vec<Surprise>,
    pub convergence_ms: Option<f64>,
    /// Sites that some step touched: `busiest` looks for others.
    touched: BTreeSet<String>,
    /// Agent transitions already told, by site.
    told: BTreeMap<String, BTreeSet<String>>,
    /// What makes the rehearsal fail beside expectations: convergence that did not come, processes that ended.
    pub troubles: Vec<String>,
    /// When routing had converged for the first time, and what each site's agent had cost by then.
    pub idle_from: Option<(u64, BTreeMap<String, u64>)>,
    /// Sites whose processes stand still.
    frozen: BTreeSet<String>,
    live: Live,
}

/// What the live table remembers between two frames.
#[derive(Default)]
struct Live {
    /// Vantage point → its site and since when.
    sites: BTreeMap<String, (Option<usize>, u64)>,
    /// Vantage point → queries not answered before routing had converged.
    unanswered: BTreeMap<String, u64>,
    /// Sites that an action hit and none restored.
    down: BTreeSet<String>,
}

impl<'a> Stage<'a> {
    /// Builds the world and starts the vantage points.
    pub fn open(setup: &'a Setup, plan: Plan, observer: &'a mut dyn Observer) -> Result<Stage<'a>, PlayError> {
        let started_ns = monotonic_ns();
        let directory = Path::new(DIRECTORY);
        let service_file = directory.join("service.toml");
        let file = fs::create_dir_all(directory).and_then(|()| fs::write(&service_file, &setup.service_text));
        file.map_err(PlayError::Directory)?;
        let held = Held::new(setup, &plan, directory);
        let options = WorldOptions {
            executable: setup.executable.clone(),
            service_file,
            service_directory: setup.service_directory.clone(),
            backend: setup.backend,
            seed: setup.seed,
            directory: directory.to_path_buf(),
            zone: outcome::zone(&setup.service),
            holding: held.holding.clone(),
        };
        let world = World::start(plan.clone(), &setup.service, options)?;
        let routers_ns = world.routers_started_ns();
        let built_ns = monotonic_ns();
        let prober = Prober::start(setup, &plan, directory)?;
        let mut stage = Stage {
            setup,
            plan,
            world,
            prober,
            held,
            observer,
            sites: setup.service.sites.iter().map(|s| s.name.clone()).collect(),
            started_ns,
            routers_ns,
            events: Vec::new(),
            played: Vec::new(),
            surprises: Vec::new(),
            convergence_ms: None,
            touched: BTreeSet::new(),
            told: BTreeMap::new(),
            troubles: Vec::new(),
            idle_from: None,
            frozen: BTreeSet::new(),
            live: Live::default(),
        };
        let built = Duration::from_nanos(built_ns - started_ns).as_secs_f64();
        stage.event(
            EventKind::Action,
            format!(
                "built {} networks, {} links, {} sites, {} vantage points in {built:.1} s",
                stage.plan.networks.len(),
                stage.plan.links.len(),
                stage.plan.sites.len(),
                stage.plan.vantages.len()
            ),
        );
        for note in stage.plan.notes.clone() {
            stage.event(EventKind::Warning, note);
        }
        Ok(stage)
    }

    /// Plays one step.
    pub fn play(&mut self, step: &Step) -> Result<(), PlayError> {
        let index = self.played.len();
        let site = match selector(&step.action) {
            Some(selector) => Some(self.choose(step, selector)?),
            None => None,
        };
        if let Some(site) = &site {
            self.touched.insert(site.clone());
        }
        self.begin_sessions(&step.label, index, &step.action)?;
        let mut at_ns = monotonic_ns();
        match (&step.action, &site) {
            (Action::Converge { within }, _) => {
                self.converge(step, *within)?;
                at_ns = monotonic_ns();
            }
            (Action::Wait, _) => {}
            (Action::Crowd { vantage, times }, _) => {
                at_ns = self.crowd(step, vantage, *times)?;
                self.event_at(at_ns, EventKind::Action, format!("crowd {vantage}: {times} times as many queries"));
            }
            (Action::Divert { network, to }, _) => {
                at_ns = self.divert(step, *network, *to)?;
            }
            (action, Some(site)) => {
                at_ns = self.act(action, site)?;
                self.event_at(at_ns, EventKind::Action, format!("{} {site}", action_name(action)));
            }
            (_, None) => {}
        }
        self.observe(step, site.as_deref(), at_ns + step.observe.as_nanos() as u64)?;
        let until_ns = monotonic_ns();
        let paths = self.paths();
        if matches!(step.action, Action::Converge { .. }) {
            self.explain();
        }
        if site.is_none() {
            self.sites.clone().iter().for_each(|site| self.agent_events(site));
        }
        self.played.push(Played { step: index, site, at_ns, until_ns, paths });
        Ok(())
    }

    fn choose(&self, step: &Step, selector: &SiteSelector) -> Result<String, PlayError> {
        let problem = |problem: String| PlayError::Step { step: step.label.clone(), problem };
        match selector {
            SiteSelector::Named(name) if self.sites.contains(name) => Ok(name.clone()),
            SiteSelector::Named(name) => {
                Err(problem(format!("the service has no site {name:?}; it has {}", self.sites.join(", "))))
            }
            SiteSelector::SameAs(label) => self
                .played
                .iter()
                .find(|p| self.setup.scenario.steps[p.step].label == *label)
                .and_then(|p| p.site.clone())
                .ok_or_else(|| problem(format!("no earlier step {label:?} chose a site"))),
            SiteSelector::Busiest => Ok(self.busiest()),
        }
    }

    /// The site with most vantage points among those no step touched, or among all when every one was; the first of equals.
    fn busiest(&self) -> String {
        let mut counts = vec![0usize; self.sites.len()];
        for (_, site, _) in self.landings() {
            if let Some(site) = site {
                counts[site] += 1;
            }
        }
        let untouched = |site: &usize| !self.touched.contains(&self.sites[*site]);
        let pick = |candidates: Vec<usize>| candidates.into_iter().rev().max_by_key(|&site| counts[site]);
        pick((0..self.sites.len()).filter(untouched).collect())
            .or_else(|| pick((0..self.sites.len()).collect()))
            .map(|site| self.sites[site].clone())
            .unwrap_or_default()
    }

    /// From now on a vantage point asks so many times as often; returns when it was told.
    fn crowd(&mut self, step: &Step, vantage: &str, times: u32) -> Result<u64, PlayError> {
        let problem = |problem: String| PlayError::Step { step: step.label.clone(), problem };
        if self.setup.service.rehearse.ask == Ask::Http {
            return Err(problem("a crowd asks over DNS or NTP; `[rehearse] ask` is http".into()));
        }
        let index = self.plan.vantages.iter().position(|v| v.name == vantage);
        let index = index.ok_or_else(|| problem(format!("the Internet has no vantage point {vantage:?}")))?;
        let at_ns = monotonic_ns();
        self.prober.crowd(index, times)?;
        Ok(at_ns)
    }

    /// Acts on a site; returns when the action took effect.
    fn act(&mut self, action: &Action, site: &str) -> Result<u64, PlayError> {
        if is_fault(action) {
            self.live.down.insert(site.to_string());
        } else {
            self.live.down.remove(site);
        }
        match action {
            Action::FreezeSite { .. } => _ = self.frozen.insert(site.to_string()),
            Action::ThawSite { .. } => _ = self.frozen.remove(site),
            _ => {}
        }
        let world = &mut self.world;
        let moment = match action {
            Action::Converge { .. } | Action::Wait | Action::Crowd { .. } | Action::Divert { .. } => {
                return Ok(monotonic_ns());
            }
            Action::KillService { .. } => world.kill_service(site),
            Action::HangService { .. } => world.hang_service(site),
            Action::FailCheck { .. } => world.fail_check(site, true),
            Action::PassCheck { .. } => world.fail_check(site, false),
            Action::ResumeService { .. } => world.resume_service(site),
            Action::StartService { .. } => world.start_service(site),
            Action::KillAgent { .. } => world.kill_agent(site),
            Action::StopAgent { .. } => world.stop_agent(site),
            Action::StartAgent { .. } => world.start_agent(site),
            Action::Drain { .. } => world.drain(site, REASON),
            Action::Undrain { .. } => world.undrain(site, REASON),
            Action::FreezeSite { .. } => world.freeze_site(site),
            Action::ThawSite { .. } => world.thaw_site(site),
            Action::CutSite { .. } => world.cut_site(site),
            Action::RestoreSite { .. } => world.restore_site(site),
        }?;
        Ok(moment.monotonic_ns)
    }

    /// Waits until every session is up, routing is quiet and every vantage point is answered.
    fn converge(&mut self, step: &Step, within: Duration) -> Result<(), PlayError> {
        let deadline_ns = monotonic_ns() + within.as_nanos() as u64;
        // The first convergence begins with the routers themselves.
        let from_ns = if self.played.is_empty() { self.routers_ns } else { monotonic_ns() };
        let mut reason = String::new();
        while monotonic_ns() < deadline_ns {
            self.frame(&step.label);
            self.check()?;
            let status = self.world.routing()?;
            let silent: Vec<String> =
                self.landings().into_iter().filter(|(_, site, _)| site.is_none()).map(|(v, _, _)| v).collect();
            let quiet = Duration::from_millis(status.quiet_ms);
            let waiting = self.data_plane_waits_for();
            if status.established == status.sessions && silent.is_empty() && quiet >= QUIET && waiting.is_none() {
                let took = Duration::from_nanos(monotonic_ns() - from_ns).saturating_sub(quiet);
                if self.idle_from.is_none() {
                    self.convergence_ms = Some(report::ms(took.as_nanos() as u64));
                    let cost = |site: &String| Some((site.clone(), self.world.agent_cost(site)?.cpu_ns));
                    self.idle_from = Some((monotonic_ns(), self.sites.iter().filter_map(cost).collect()));
                }
                let text = format!("converged after {:.1} s: {} BGP sessions up", took.as_secs_f64(), status.sessions);
                self.event(EventKind::Routing, text);
                return Ok(());
            }
            reason = format!("{} of {} BGP sessions are up", status.established, status.sessions);
            if !silent.is_empty() {
                reason.push_str(&format!(", no site answers {}", silent.join(", ")));
            }
            if let Some(waiting) = waiting {
                reason.push_str(&format!(", the data plane of {waiting}"));
            }
            if let Some(name) = self.stranger() {
                reason.push_str(&format!("; answers name {name:?}, which is no site: see docs/service-file.md"));
            }
            thread::sleep(CONVERGE_POLL);
        }
        self.trouble(format!("{}: not converged within {} s: {reason}", step.label, within.as_secs_f64()));
        Ok(())
    }

    fn observe(&mut self, step: &Step, site: Option<&str>, until_ns: u64) -> Result<(), PlayError> {
        loop {
            self.frame(&step.label);
            self.check()?;
            if let Some(site) = site {
                self.agent_events(site);
            }
            let left = Duration::from_nanos(until_ns.saturating_sub(monotonic_ns()));
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(FRAME));
        }
    }

    /// Errors when a part of the lab broke; tells of processes that ended by themselves.
    pub(super) fn check(&mut self) -> Result<(), PlayError> {
        self.prober.check()?;
        self.tell_losses()?;
        for exit in self.world.exits() {
            self.trouble(exit.to_string());
        }
        Ok(())
    }

    /// Transitions of a site's agent that were not told yet. An agent that does not answer has none.
    fn agent_events(&mut self, site: &str) {
        // A frozen agent would only make us wait for its answer.
        if self.frozen.contains(site) {
            return;
        }
        let Ok(status) = self.world.agent_status(site) else {
            return;
        };
        let offset_ns = realtime_ns().saturating_sub(monotonic_ns());
        let mut fresh = Vec::new();
        for event in status["events"].as_array().into_iter().flatten() {
            let (Some(time), Some(what), Some(cause)) =
                (event["time"].as_str(), event["what"].as_str(), event["cause"].as_str())
            else {
                continue;
            };
            let told = self.told.entry(site.to_string()).or_default();
            // How an agent came up is no news beyond that it did.
            let stale = self.played.is_empty() && what != "site announced";
            if !told.insert(format!("{time} {what}")) || stale {
                continue;
            }
            let Some(at_ns) = outcome::unix_ns(time).and_then(|ns| ns.checked_sub(offset_ns)) else {
                continue;
            };
            fresh.push((at_ns, format!("{site}: {what}: {cause}")));
        }
        for (at_ns, text) in fresh {
            self.event_at(at_ns, EventKind::Agent, text);
        }
    }

    /// A name that answers give and no site has.
    fn stranger(&self) -> Option<String> {
        let log = self.prober.log();
        let names = (1..).map_while(|index| log.site_name(index).map(str::to_string));
        names.into_iter().find(|name| !self.sites.contains(name))
    }

    /// Vantage point, index of its site, landing, for the first service address.
    pub fn landings(&self) -> Vec<(String, Option<usize>, Landing)> {
        let log = self.prober.log();
        let now_ns = monotonic_ns();
        let names = self.plan.vantages.iter().map(|v| v.name.clone());
        names
            .zip(log.landings(0, now_ns, LANDING_WINDOW.as_nanos() as u64))
            .map(|(name, landing)| {
                let site = landing.site.and_then(|site| log.site_name(site));
                (name, site.and_then(|site| self.sites.iter().position(|s| s == site)), landing)
            })
            .collect()
    }

    pub(super) fn frame(&mut self, step: &str) {
        let now_ns = monotonic_ns();
        let settle_ns = settle(self.setup).as_nanos() as u64;
        let mut rows = Vec::new();
        for (index, (vantage, site, landing)) in self.landings().into_iter().enumerate() {
            let entry = self.live.sites.entry(vantage.clone()).or_insert((site, 0));
            if entry.0 != site {
                *entry = (site, now_ns);
            }
            let moved_ms = (entry.1 > 0).then(|| Duration::from_nanos(now_ns - entry.1).as_secs_f64() * 1000.0);
            let unanswered = self.prober.log().unanswered(index, 0);
            // Before routing has converged nobody can be answered: that is no loss.
            let settling = self.idle_from.as_ref().is_none_or(|(from_ns, _)| now_ns < from_ns + settle_ns);
            let before = self.live.unanswered.entry(vantage.clone()).or_insert(0);
            if settling {
                *before = unanswered;
            }
            let lost = unanswered - *before;
            let rtt_ms = landing.rtt_ns.map(|ns| report::ms(ns.into()));
            rows.push(LiveRow { vantage, site, rtt_ms, lost, moved_ms });
        }
        let site = |name: &String| LiveSite { name: name.clone(), down: self.live.down.contains(name) };
        let setup = self.setup;
        let state = LiveState {
            title: format!(
                "service {} · scenario {} · {} routers",
                setup.service.name, setup.scenario.name, setup.backend
            ),
            step: step.to_string(),
            elapsed_ms: self.ms(now_ns),
            sites: self.sites.iter().map(site).collect(),
            rows,
        };
        self.observer.frame(&state);
    }

    /// Milliseconds from the start to a moment.
    pub fn ms(&self, at_ns: u64) -> f64 {
        report::ms(at_ns.saturating_sub(self.started_ns))
    }

    /// Something that must not happen, whatever is expected.
    fn trouble(&mut self, text: String) {
        self.event(EventKind::Warning, text.clone());
        self.troubles.push(text);
    }

    pub(super) fn event(&mut self, kind: EventKind, text: String) {
        self.event_at(monotonic_ns(), kind, text);
    }

    pub(super) fn event_at(&mut self, at_ns: u64, kind: EventKind, text: String) {
        let event = Event { at_ms: self.ms(at_ns), text, kind };
        self.observer.event(&event);
        self.events.push(event);
    }

    /// The routes of a network for a prefix; none when its router does not answer.
    pub(super) fn candidates(world: &mut World, asn: Asn, prefix: Prefix) -> Vec<Candidate> {
        world.candidates(asn, prefix).unwrap_or_default()
    }

    fn paths(&mut self) -> BTreeMap<IpAddr, BTreeMap<Asn, Vec<Asn>>> {
        let networks: BTreeSet<Asn> = self.plan.vantages.iter().map(|v| v.asn).collect();
        let mut paths = BTreeMap::new();
        for &address in &self.setup.service.addresses {
            let Some(prefix) = outcome::prefix_of(&self.setup.service, address) else {
                continue;
            };
            let mut by_network = BTreeMap::new();
            for &asn in &networks {
                let candidates = Stage::candidates(&mut self.world, asn, prefix);
                let best = candidates.into_iter().find(|c| c.best);
                by_network.insert(asn, best.map(|c| c.as_path).unwrap_or_default());
            }
            paths.insert(address, by_network);
        }
        paths
    }

    /// Finds vantage points that land elsewhere than next door, and why.
    fn explain(&mut self) {
        let Some(&address) = self.setup.service.addresses.first() else {
            return;
        };
        let Some(prefix) = outcome::prefix_of(&self.setup.service, address) else {
            return;
        };
        let landings = self.landings();
        let (sites, vantages) =
            (outcome::sites(&self.setup.service), outcome::vantages(&self.plan, &self.setup.service));
        let links = outcome::links(self.setup, &self.plan);
        let site_links = outcome::site_links(&self.plan);
        let world = &mut self.world;
        let mut explainer = Explainer::new(&sites, &site_links, &links, |asn| Stage::candidates(world, asn, prefix));
        let mut surprises = Vec::new();
        for (vantage, (_, site, landing)) in vantages.iter().zip(&landings) {
            let Some(site) = site.map(|site| self.sites[site].as_str()) else {
                continue;
            };
            let rtt_ms = landing.rtt_ns.map(|ns| report::ms(ns.into()));
            surprises.extend(explainer.explain(vantage, site, rtt_ms));
        }
        self.surprises = surprises;
    }

    /// Waits until every query has an outcome, and judges.
    pub fn report(&mut self) -> Result<Report, PlayError> {
        let settle = self.held.settle().max(settle(self.setup));
        let until_ns = monotonic_ns() + settle.as_nanos() as u64;
        while monotonic_ns() < until_ns {
            self.check()?;
            self.frame("verdict");
            thread::sleep(FRAME);
        }
        self.end_sessions()?;
        Ok(outcome::report(self))
    }

    /// Tells the observer; the lab ends when this returns.
    pub fn finished(&mut self, report: &Report) {
        self.observer.finished(report);
    }
}
