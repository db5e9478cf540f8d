//! The site core under any sequence of inputs: nothing is announced that must not be, addresses stay for stragglers.

use std::time::Duration;

use ubique_proto::Time;
use ubique_proto::site::{In, Out, Site, SiteConfig, State};

use crate::rng::{Rng, feed};

/// Inputs of one run.
const STEPS: usize = 200;

/// The world as a driver sees it.
#[derive(Default)]
struct World {
    /// The addresses are on the loopback.
    addresses: bool,
    announced: bool,
    healthy: bool,
    drained: bool,
    stops: usize,
    withdrawn_at: Option<Time>,
    exited: bool,
}

/// Octets: configuration, then inputs and waits.
pub(crate) fn site(input: &[u8]) {
    let mut rng = feed(input);
    let config = SiteConfig { drain: scaled(&mut rng), graceful_shutdown: scaled(&mut rng) };
    let mut site = Site::new(config.clone());
    let mut now = Time(1);
    let mut world = World::default();
    for _ in 0..STEPS {
        if rng.is_empty() {
            break;
        }
        let wait = scaled(&mut rng);
        let end = now + wait;
        while let Some(at) = site.next_deadline().filter(|at| *at <= end) {
            now = now.max(at);
            site.handle_deadline(now);
            world.carry_out(&mut site, &config, now);
            assert!(site.next_deadline() != Some(at), "a deadline that stays");
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

fn any(rng: &mut Rng) -> In {
    match rng.below(9) {
        0 => In::Start,
        1 => In::AddressesAdded,
        2 => In::AddressesRemoved,
        3 | 4 => In::Verdict { healthy: rng.one_in(2), cause: "a check".into() },
        5 => In::Drain { reason: "work".into() },
        6 => In::Undrain { reason: "done".into() },
        7 => In::Stop { reason: "SIGTERM".into() },
        _ => In::Verdict { healthy: true, cause: "all checks".into() },
    }
}

impl World {
    fn hear(&mut self, input: &In) {
        match input {
            In::AddressesAdded => self.addresses = true,
            In::AddressesRemoved => self.addresses = false,
            In::Verdict { healthy, .. } => self.healthy = *healthy,
            In::Drain { .. } => self.drained = true,
            In::Undrain { .. } => self.drained = false,
            In::Stop { .. } => self.stops += 1,
            In::Start => {}
        }
    }

    fn carry_out(&mut self, site: &mut Site, config: &SiteConfig, now: Time) {
        while let Some(output) = site.poll_output() {
            assert!(!self.exited, "{output:?} after the exit");
            match output {
                Out::Announce { .. } => {
                    assert!(self.healthy && !self.drained && self.stops == 0, "announced although it must not be");
                    self.announced = true;
                }
                Out::GracefulShutdown { .. } => {
                    assert!(self.announced && self.healthy && self.drained, "a drain of what is not announced");
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
                Out::AddAddresses | Out::State { .. } => {}
            }
        }
        let status = site.status();
        assert_eq!(self.announced, matches!(status.state, State::Announced | State::Draining), "{:?}", status.state);
        assert!(!self.announced || self.healthy, "announced while unhealthy");
        assert_eq!(status.healthy, self.healthy);
        assert_eq!(self.exited, status.state == State::Stopped);
    }
}
