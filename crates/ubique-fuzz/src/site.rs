//! The site core under any sequence of inputs: nothing is announced that must not be, addresses stay for stragglers.

use std::time::Duration;

use ubique_model::policy::Level;
use ubique_model::service::{Flap, Guard};
use ubique_proto::Time;
use ubique_proto::site::{In, Memory, Others, Out, Site, SiteConfig, State, UpstreamConfig};

use crate::rng::{Rng, feed};

/// Inputs of one run.
const STEPS: usize = 200;

/// The world as a driver sees it.
#[derive(Default)]
struct World {
    /// The addresses are on the loopback.
    addresses: bool,
    announced: bool,
    level: Option<Level>,
    drained: bool,
    stops: usize,
    withdrawn_at: Option<Time>,
    exited: bool,
}

/// Octets: configuration, then inputs and waits.
pub(crate) fn site(input: &[u8]) {
    let mut rng = feed(input);
    let config = config(&mut rng);
    let mut site = Site::new(config.clone());
    let mut now = Time(1);
    let mut world = World::default();
    for _ in 0..STEPS {
        if rng.is_empty() {
            break;
        }
        let wait = scaled(&mut rng);
        let end = now + wait;
        let mut before = None;
        while let Some(at) = site.next_deadline().filter(|at| *at <= end) {
            now = now.max(at);
            site.handle_deadline(now);
            world.carry_out(&mut site, &config, now);
            // A step of shedding that waited for the budget may be due as soon as that wait is over.
            assert!(before != Some(at) || site.next_deadline() != Some(at), "a deadline that stays");
            before = Some(at);
        }
        now = end;
        let input = any(&mut rng);
        world.hear(&input);
        site.handle_input(now, input);
        world.carry_out(&mut site, &config, now);
    }
}

fn scaled(rng: &mut Rng) -> Duration {
    let scale = 10u64.pow(rng.below(5) as u32);
    Duration::from_millis(rng.below(10) * scale)
}

fn config(rng: &mut Rng) -> SiteConfig {
    let plain = SiteConfig::new(scaled(rng), scaled(rng));
    if rng.one_in(2) {
        return plain;
    }
    SiteConfig {
        degraded_speaks: rng.one_in(2),
        failed_speaks: rng.one_in(8),
        shed_steps: rng.below(4) as u8,
        flap: rng.one_in(2).then(Flap::default),
        guard: Guard { last_site: scaled(rng), retry: Duration::from_secs(1 + rng.below(60)), start: rng.one_in(2) },
        upstreams: [None, Some(true), Some(false)].into_iter().zip(UPSTREAMS).map(upstream).collect(),
        memory: Memory::default(),
        ..plain
    }
}

const UPSTREAMS: [&str; 3] = ["a", "b", "c"];

fn upstream((full_view, name): (Option<bool>, &str)) -> UpstreamConfig {
    UpstreamConfig { name: name.into(), full_view }
}

fn any(rng: &mut Rng) -> In {
    let name = |rng: &mut Rng| UPSTREAMS[rng.below(3) as usize].to_owned();
    match rng.below(14) {
        0 => In::Start,
        1 => In::AddressesAdded,
        2 => In::AddressesRemoved,
        3 | 4 => {
            let level = Level::ALL[rng.below(3) as usize];
            In::Verdict { level, answers: rng.one_in(2), cause: "a check".into() }
        }
        5 => In::Drain { reason: "work".into() },
        6 => In::Undrain { reason: "done".into() },
        7 => In::Stop { reason: "SIGTERM".into() },
        8 => In::Overload { on: rng.one_in(2), cause: "load".into() },
        9 | 10 => {
            let others = [Others::None, Others::LastResort, Others::Fit][rng.below(3) as usize];
            In::Others { upstream: name(rng), up: !rng.one_in(4), others }
        }
        11 => In::Verified { result: if rng.one_in(3) { Err("refused".into()) } else { Ok(()) } },
        12 => In::Probed { upstream: name(rng), answered: Ok(rng.one_in(2)) },
        _ => In::Verdict { level: Level::Healthy, answers: true, cause: "all checks".into() },
    }
}

impl World {
    fn hear(&mut self, input: &In) {
        match input {
            In::AddressesAdded => self.addresses = true,
            In::AddressesRemoved => self.addresses = false,
            In::Verdict { level, .. } => self.level = Some(*level),
            In::Drain { .. } => self.drained = true,
            In::Undrain { .. } => self.drained = false,
            In::Stop { .. } => self.stops += 1,
            _ => {}
        }
    }

    fn is_fit(&self, config: &SiteConfig) -> bool {
        match self.level {
            Some(Level::Healthy) => true,
            Some(Level::Degraded) => config.degraded_speaks,
            Some(Level::Failed) => config.failed_speaks,
            None => false,
        }
    }

    fn carry_out(&mut self, site: &mut Site, config: &SiteConfig, now: Time) {
        while let Some(output) = site.poll_output() {
            assert!(!self.exited, "{output:?} after the exit");
            match output {
                Out::Announce { stance, .. } => {
                    assert!(self.stops == 0 && stance.leaving == self.drained, "announced although it must not be");
                    assert!(stance.leaving || stance.last_resort != self.is_fit(config), "fit, or the last one");
                    assert!(!stance.leaving || self.announced, "a drain of what is not announced");
                    assert!(stance.shed <= config.shed_steps);
                    self.announced = true;
                }
                Out::Withdraw { .. } => {
                    assert!(self.announced, "nothing to withdraw");
                    self.announced = false;
                    self.withdrawn_at = Some(now);
                }
                Out::RemoveAddresses => {
                    assert!(!self.announced, "addresses go while announced");
                    let waited = self.withdrawn_at.is_none_or(|at| now.since(at) >= config.drain);
                    assert!(waited || self.stops > 1, "stragglers are not served");
                }
                Out::Exit => self.exited = true,
                Out::AddAddresses | Out::Verify | Out::LastSite { .. } | Out::Probe { .. } | Out::State { .. } => {}
            }
        }
        let status = site.status(now);
        assert_eq!(self.announced, status.state.is_announced(), "{:?}", status.state);
        assert_eq!(self.announced, status.stance.is_some());
        let resort = status.stance.is_some_and(|stance| stance.last_resort);
        assert!(!self.announced || resort || self.is_fit(config), "announced while unhealthy");
        assert_eq!(Some(status.level), self.level.or(Some(Level::Failed)));
        assert_eq!(self.exited, status.state == State::Stopped);
    }
}
