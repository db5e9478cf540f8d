//! The driver, the upstreams and the clock of one agent, and the judge of what it does.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Duration;

use ubique_model::Prefix;
use ubique_model::policy::{Announcement, Level, Stance, announcements};
use ubique_model::service::{Guard, Service as ServiceFile};

use super::faults::{Service, gap};
use super::setup::{FILE, FOREIGN, address, check, site_config, speaker, upstream};
use crate::Time;
use crate::bgp::speaker::{self, ConnId, Local, PeerId, Speaker};
use crate::health::{self, CheckConfig, Health};
use crate::rng::Rng;
use crate::site::{In, Memory, Others, Out, Site, SiteConfig, State};

/// What other sites there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others3 {
    Nobody,
    Resort,
    Fit,
}

/// An upstream.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    pub name: String,
    pub full_view: Option<bool>,
    pub up: bool,
    /// It sends routes to us that have our AS in their path.
    pub sends: bool,
    /// It prefers others to what we announce with GRACEFUL_SHUTDOWN.
    pub honours: bool,
    /// What the site knows of that.
    pub told: Others,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub withdrawals: u64,
    pub resorts: u64,
    pub held: u64,
    pub shed: u64,
    pub crashes: u64,
    pub foreign: u64,
}

/// What comes about later.
#[derive(Clone, Debug)]
enum Later {
    Result { check: usize, poll: u64, result: Result<(), String> },
    Site(In),
}

pub(super) struct World {
    seed: u64,
    pub rng: Rng,
    now: Time,
    file: ServiceFile,
    checks: Vec<CheckConfig>,
    config: SiteConfig,
    health: Health,
    site: Site,
    /// The agent's, and the upstream's it is connected to.
    speakers: [Speaker; 2],
    connections: u64,
    pub upstreams: Vec<Upstream>,
    pub others: Others3,
    pub flapping: bool,
    service: Service,
    /// Since when no poll can succeed.
    bad_since: Option<Time>,
    well_since: Time,
    drained: bool,
    addresses: bool,
    verified: bool,
    pub told: Option<Stance>,
    withdrawn_at: Option<Time>,
    /// What damping holds against the site.
    penalty: f64,
    penalty_at: Time,
    level: Level,
    answers: bool,
    later: VecDeque<(Time, Later)>,
    next_fault: Time,
    pub counts: Counts,
    pub log: Option<String>,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let file = ServiceFile::parse("s.toml", FILE.as_bytes()).value.expect("the file is valid");
        let checks = (0..1 + rng.below(2)).map(|n| check(&mut rng, n)).collect::<Vec<_>>();
        let upstreams: Vec<Upstream> = (0..1 + rng.below(3)).map(|n| upstream(&mut rng, n)).collect();
        let config = site_config(&mut rng, &upstreams);
        let next_fault = Time::ZERO + gap(&mut rng, false);
        let mut world = World {
            seed,
            now: Time::ZERO,
            health: Health::new(checks.clone(), vec![], seed),
            site: Site::new(config.clone()),
            speakers: [speaker(&file, 1), speaker(&file, 2)],
            connections: 0,
            file,
            checks,
            config,
            upstreams,
            others: [Others3::Nobody, Others3::Fit][rng.below(2) as usize],
            flapping: false,
            service: Service::Well,
            bad_since: None,
            well_since: Time::ZERO,
            drained: false,
            addresses: false,
            verified: false,
            told: None,
            withdrawn_at: None,
            penalty: 0.0,
            penalty_at: Time::ZERO,
            level: Level::Failed,
            answers: false,
            later: VecDeque::new(),
            next_fault,
            counts: Counts::default(),
            log: None,
            rng,
        };
        world.begin();
        world
    }

    /// A new agent comes to life.
    fn begin(&mut self) {
        let foreign = FOREIGN.parse().expect("a prefix");
        for speaker in &mut self.speakers {
            speaker.handle_input(self.now, speaker::In::Start);
        }
        self.speakers[1].handle_input(self.now, speaker::In::Originate { prefix: foreign });
        self.connect();
        self.site.handle_input(self.now, In::Start);
        self.health.handle_deadline(self.now);
        self.settle();
        for index in 0..self.upstreams.len() {
            self.upstreams[index].told = Others::None;
            self.report(index);
        }
        self.settle();
    }

    pub fn run(&mut self, end: Time) {
        loop {
            let later = self.later.iter().map(|(at, _)| *at).min();
            let deadlines = [self.health.next_deadline(), self.site.next_deadline(), later, Some(self.next_fault)];
            let next = deadlines.into_iter().flatten().min().unwrap_or(end);
            if next > end {
                return;
            }
            self.now = self.now.max(next);
            // Results first, as a driver has to.
            while let Some(at) = self.later.iter().position(|(at, _)| *at <= self.now) {
                match self.later.remove(at).expect("it is there").1 {
                    Later::Result { check, poll, result } => {
                        let answered = result.as_ref().is_err_and(|error| error.starts_with("SERVFAIL"));
                        let took = Duration::from_millis(1);
                        let end = health::In::Result { check, poll, took, result, answered };
                        self.health.handle_input(self.now, end);
                    }
                    Later::Site(input) => self.tell(input),
                }
                self.settle();
            }
            if self.health.next_deadline().is_some_and(|at| at <= self.now) {
                self.health.handle_deadline(self.now);
                self.settle();
            }
            if let Some(at) = self.site.next_deadline().filter(|at| *at <= self.now) {
                self.site.handle_deadline(self.now);
                self.settle();
                assert_ne!(self.site.next_deadline(), Some(at), "seed {}: a deadline that stays", self.seed);
            }
            if self.next_fault <= self.now {
                self.fault();
                self.settle();
                self.next_fault = self.now + gap(&mut self.rng, self.flapping);
            }
            self.judge();
        }
    }

    fn fail(&self, what: &str) -> ! {
        panic!(
            "seed {} after {:?}: {what}\nservice {:?} bad since {:?}, told {:?}, {:?}, others {:?}, {:?}\n{:?}",
            self.seed,
            self.now.since(Time::ZERO),
            self.service,
            self.bad_since,
            self.told,
            self.site.status(self.now),
            self.others,
            self.upstreams,
            self.config,
        );
    }

    pub fn tell(&mut self, input: In) {
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{} {input:?}", self.now.0);
        }
        self.site.handle_input(self.now, input);
    }

    /// Carries out everything until all cores are silent.
    fn settle(&mut self) {
        loop {
            if let Some(out) = self.health.poll_output() {
                self.health_wants(out);
            } else if let Some(out) = self.site.poll_output() {
                self.site_wants(out);
            } else if !self.pump() {
                return;
            }
        }
    }

    fn health_wants(&mut self, out: health::Out) {
        match out {
            health::Out::Poll { check, poll } => {
                let timely = self.rng.below(10) > 0;
                let result = match self.service {
                    Service::Well => Ok(()),
                    Service::Slow if timely => Ok(()),
                    Service::Slow | Service::Hung => return,
                    Service::Killed => Err("connection refused".to_owned()),
                    Service::Lying => Err("SERVFAIL, expected NOERROR".to_owned()),
                };
                let at = self.now + Duration::from_millis(1);
                self.later.push_back((at, Later::Result { check, poll, result }));
            }
            health::Out::Verdict { level, answers, cause } => {
                (self.level, self.answers) = (level, answers);
                self.tell(In::Verdict { level, answers, cause });
            }
            _ => {}
        }
    }

    fn site_wants(&mut self, out: Out) {
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{} {out:?}", self.now.0);
        }
        match out {
            Out::AddAddresses => {
                let delay = Duration::from_millis(self.rng.below(50));
                self.addresses = true;
                self.later.push_back((self.now + delay, Later::Site(In::AddressesAdded)));
            }
            Out::Verify => {
                let well = matches!(self.service, Service::Well | Service::Slow);
                self.verified = well;
                let result = if well { Ok(()) } else { Err("no answer".to_owned()) };
                self.later.push_back((self.now + Duration::from_millis(5), Later::Site(In::Verified { result })));
            }
            Out::Announce { stance, .. } => self.announced(stance),
            Out::Withdraw { .. } => self.withdrawn(),
            Out::Probe { upstream, within } => {
                let answered = match self.rng.below(5) {
                    0 => Err("not permitted".to_owned()),
                    _ => Ok(self.others != Others3::Nobody),
                };
                self.later.push_back((self.now + within, Later::Site(In::Probed { upstream, answered })));
            }
            Out::State { state, .. } => {
                self.counts.resorts += u64::from(state == State::LastResort);
                self.counts.held += u64::from(state == State::Held && self.site.status(self.now).flap.is_some());
            }
            Out::LastSite { .. } => {}
            Out::RemoveAddresses | Out::Exit => self.fail("nobody told it to stop"),
        }
    }

    fn announced(&mut self, stance: Stance) {
        let flap = self.config.flap;
        self.decay();
        let before = self.told.replace(stance);
        // A last resort has served before.
        let answers = self.verified || stance.last_resort || !self.config.guard.start;
        if !self.addresses || !answers {
            self.fail("announced before addresses were there and answered");
        }
        if stance.last_resort && before.is_none() {
            self.judge_resort();
        }
        if let Some(flap) = flap {
            let worse = before.is_some_and(|b| stance.level > b.level || (stance.last_resort && !b.last_resort));
            let exempt = worse || stance.leaving || (stance.last_resort && before.is_none());
            if before.is_some() {
                self.penalty += f64::from(flap.change);
            }
            let room = f64::from(flap.suppress) - f64::from(flap.withdrawal) + 1.0;
            if !exempt && self.penalty > room {
                self.fail("announced without budget for one more withdrawal");
            }
        }
        self.counts.shed += u64::from(before.is_some_and(|b| b.shed < stance.shed));
        let peer = PeerId(0);
        let list: Vec<Announcement> = announcements(&self.file, &self.file.sites[0].upstreams[0], &stance);
        for prefix in self.advertised() {
            if !list.iter().any(|a| a.prefix == prefix) {
                self.speakers[0].handle_input(self.now, speaker::In::Withdraw { peer, prefix });
            }
        }
        for announcement in list {
            self.speakers[0].handle_input(self.now, speaker::In::Announce { peer, announcement });
        }
        self.show_others();
    }

    /// The site speaks although it is not fit: somebody must have been able to tell that nobody else is there.
    fn judge_resort(&self) {
        let can_tell = |u: &Upstream| u.up && (u.full_view.is_some() || u.sends);
        if !self.upstreams.iter().any(can_tell) {
            self.fail("last resort, although nobody can tell");
        }
        if (0..self.upstreams.len()).any(|u| self.upstreams[u].told != Others::None) {
            self.fail("last resort, although another site is seen");
        }
    }

    fn withdrawn(&mut self) {
        let before = self.told.take();
        let Some(before) = before else { self.fail("nothing to withdraw") };
        let unfit = self.level != Level::Healthy;
        if !(unfit || before.last_resort || self.drained || !self.addresses) {
            self.fail("withdrawn without a reason");
        }
        self.decay();
        if let Some(flap) = self.config.flap {
            self.penalty += f64::from(flap.withdrawal);
        }
        self.counts.withdrawals += 1;
        self.withdrawn_at = Some(self.now);
        for prefix in self.advertised() {
            self.speakers[0].handle_input(self.now, speaker::In::Withdraw { peer: PeerId(0), prefix });
        }
        self.show_others();
    }

    fn decay(&mut self) {
        let half_life = self.config.flap.map_or(Duration::from_secs(900), |flap| flap.half_life);
        self.penalty = crate::flap::decayed(self.penalty, self.now.since(self.penalty_at), half_life);
        self.penalty_at = self.now;
    }

    /// What must hold at any time.
    fn judge(&mut self) {
        let status = self.site.status(self.now);
        if status.stance != self.told || status.state.is_announced() != self.told.is_some() {
            self.fail("status tells something else");
        }
        let slack = Duration::from_millis(100);
        if let (Some(told), Some(since)) = (self.told, self.bad_since) {
            let bound = self.checks.iter().map(|c| c.every * c.fall + c.timeout).min().unwrap_or_default() + slack;
            if !told.last_resort && self.now.since(since) > bound {
                self.fail("announced although it is bad");
            }
        }
        if let Some(told) = self.told.filter(|_| self.drained)
            && !told.leaving
        {
            self.fail("announced although it is to be drained");
        }
        let patience = self.checks.iter().map(|c| c.every * (c.rise + 1) + c.timeout).max().unwrap_or_default();
        let settled = self.well_since + patience + Duration::from_secs(5);
        let idle = self.told.is_none() && !self.drained && self.service == Service::Well;
        if idle && self.now > settled && status.flap.is_none_or(|flap| flap.waits_until.is_none()) {
            self.fail("well, and not announced");
        }
        let foreign: Prefix = FOREIGN.parse().expect("a prefix");
        let heard: Vec<Prefix> = self.speakers[1].rib().received(PeerId(0), None).map(|r| r.prefix).collect();
        if heard.iter().any(|p| *p == foreign || !self.file.prefixes.iter().any(|own| own.contains(p))) {
            self.fail("exported what is not the service's");
        }
        let (told, up) = (self.told.is_some(), self.upstreams[0].up);
        if up && told != heard.contains(&self.file.prefixes[0]) {
            self.fail("the upstream does not hold what it is told");
        }
    }

    /// What the agent means its upstream to hold.
    fn advertised(&self) -> Vec<Prefix> {
        self.speakers[0].announced(PeerId(0)).map(|(prefix, _)| prefix).collect()
    }

    /// Connects the two speakers, if the session is up.
    fn connect(&mut self) {
        if self.upstreams[0].up {
            self.connections += 1;
            for (n, speaker) in self.speakers.iter_mut().enumerate() {
                let local = Local::from(address(n as u8 + 1));
                let conn = ConnId(self.connections);
                // Which side has called makes no difference here.
                speaker.handle_input(self.now, speaker::In::Accepted { peer: PeerId(0), conn, local });
            }
        }
    }

    /// Moves what the speakers have to say; false when they are silent.
    fn pump(&mut self) -> bool {
        let mut said = false;
        for from in 0..2 {
            while let Some(out) = self.speakers[from].poll_output() {
                said = true;
                match out {
                    speaker::Out::Send { conn, bytes } => {
                        let received = speaker::In::Received { conn, bytes };
                        self.speakers[1 - from].handle_input(self.now, received);
                    }
                    speaker::Out::Scope { .. } if from == 0 => {}
                    speaker::Out::Refused { reason, .. } => self.fail(&reason),
                    _ => {}
                }
            }
        }
        let foreign: Prefix = FOREIGN.parse().expect("a prefix");
        self.counts.foreign += u64::from(said && !self.speakers[0].routes(foreign).is_empty());
        said
    }

    pub fn service_turns(&mut self, service: Service) {
        self.service = service;
        let bad = matches!(service, Service::Killed | Service::Hung | Service::Lying);
        self.bad_since = bad.then(|| self.bad_since.unwrap_or(self.now));
        if service != Service::Well || bad {
            self.well_since = self.now;
        }
        // Results under way are of the service as it was.
        self.later.retain(|(_, later)| !matches!(later, Later::Result { .. }));
        if service == Service::Killed && self.rng.below(2) == 0 {
            let check = self.rng.below(self.checks.len() as u64) as usize;
            self.health.handle_input(self.now, health::In::Gone { check, cause: "exited".into() });
        }
        self.well_since = self.now;
    }

    pub fn addresses_lost(&mut self) {
        if self.addresses {
            (self.addresses, self.well_since) = (false, self.now);
            self.tell(In::AddressesRemoved);
        }
    }

    pub fn drains(&mut self, on: bool) {
        (self.drained, self.well_since) = (on, self.now);
        let reason = "maintenance".to_owned();
        self.tell(if on { In::Drain { reason } } else { In::Undrain { reason } });
    }

    /// A reload with other limits.
    pub fn reload(&mut self) {
        let flap = self.config.flap;
        let config = site_config(&mut self.rng, &self.upstreams);
        // What damping does is not ours to choose.
        self.config = SiteConfig { flap, guard: Guard { start: self.config.guard.start, ..config.guard }, ..config };
        let config = Box::new(self.config.clone());
        self.tell(In::Configure { config });
    }

    pub fn session_turns(&mut self, upstream: usize) {
        self.upstreams[upstream].up ^= true;
        if upstream == 0 {
            if self.upstreams[0].up {
                self.connect();
            } else {
                let conn = ConnId(self.connections);
                self.speakers.iter_mut().for_each(|s| s.handle_input(self.now, speaker::In::Closed { conn }));
            }
        }
        self.settle();
        self.report(upstream);
    }

    /// Tells the site what an upstream shows now.
    fn report(&mut self, upstream: usize) {
        let others = self.shown_by(upstream);
        let u = &mut self.upstreams[upstream];
        u.told = others;
        let input = In::Others { upstream: u.name.clone(), up: u.up, others };
        self.tell(input);
    }

    pub fn show_others(&mut self) {
        for upstream in 0..self.upstreams.len() {
            if self.shown_by(upstream) != self.upstreams[upstream].told {
                let (name, up, others) =
                    (self.upstreams[upstream].name.clone(), self.upstreams[upstream].up, self.shown_by(upstream));
                self.upstreams[upstream].told = others;
                // It takes a moment on its way, but what is told is in order.
                self.later.push_back((self.now, Later::Site(In::Others { upstream: name, up, others })));
            }
        }
    }

    /// The agent is asked to announce what is not its own.
    pub fn neighbour_leaks(&mut self) {
        let announcement = Announcement::new("192.0.2.0/24".parse().expect("a prefix"));
        self.speakers[0].handle_input(self.now, speaker::In::Announce { peer: PeerId(0), announcement });
        let refused = self.speakers[0].poll_output();
        if !matches!(refused, Some(speaker::Out::Refused { .. })) {
            self.fail("took a foreign prefix");
        }
    }

    /// The agent dies and is started again, with what it had written down.
    pub fn crash(&mut self) {
        let written = serde_json::to_string(&self.site.memory(self.now)).expect("it can be written");
        let memory: Memory = serde_json::from_str(&written).expect("and read");
        let away = Duration::from_millis(1 + self.rng.below(120_000));
        self.decay();
        if let Some(flap) = self.config.flap.filter(|_| self.told.is_some()) {
            self.penalty += f64::from(flap.withdrawal);
        }
        self.counts.crashes += 1;
        self.now = self.now + away;
        let memory = memory.aged(self.config.flap.as_ref(), away);
        self.site = Site::new(SiteConfig { memory, ..self.config.clone() });
        self.health = Health::new(self.checks.clone(), vec![], self.rng.next_u64());
        self.later.clear();
        (self.told, self.level, self.addresses, self.verified) = (None, Level::Failed, false, false);
        self.well_since = self.now;
        self.bad_since = self.bad_since.map(|_| self.now);
        self.speakers = [speaker(&self.file, 1), speaker(&self.file, 2)];
        self.begin();
    }
}
