//! What befalls an agent and its service.

use std::time::Duration;

use super::world::{Others3, World};
use crate::rng::Rng;
use crate::site::{In, Others};

/// What is true of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Well,
    /// Its process is gone: polls are refused, and a detector may tell.
    Killed,
    /// It does not answer.
    Hung,
    /// It answers wrongly.
    Lying,
    /// It answers in time, mostly.
    Slow,
}

/// Mean time between two faults.
const MEAN_GAP: Duration = Duration::from_secs(600);

/// When the next fault comes.
pub(super) fn gap(rng: &mut Rng, flapping: bool) -> Duration {
    let mean = if flapping { MEAN_GAP / 10 } else { MEAN_GAP };
    Duration::from_millis(1 + rng.below(2 * mean.as_millis() as u64))
}

impl World {
    /// Something happens.
    pub(super) fn fault(&mut self) {
        match self.rng.below(24) {
            0..=2 => self.service_turns(Service::Killed),
            3..=4 => self.service_turns(Service::Hung),
            5..=6 => self.service_turns(Service::Lying),
            7 => self.service_turns(Service::Slow),
            8..=13 => self.service_turns(Service::Well),
            14 => {
                let on = self.rng.below(2) == 0;
                self.tell(In::Overload { on, cause: "load".into() });
            }
            15 => self.addresses_lost(),
            16 => self.drains(true),
            17 => self.drains(false),
            18 => self.reload(),
            19 => {
                let upstream = self.rng.below(self.upstreams.len() as u64) as usize;
                self.session_turns(upstream);
            }
            20..=21 => {
                self.others =
                    [Others3::Nobody, Others3::Resort, Others3::Fit, Others3::Fit][self.rng.below(4) as usize];
                self.show_others();
            }
            22 => self.neighbour_leaks(),
            _ => self.crash(),
        }
        if self.rng.below(40) == 0 {
            self.flapping = !self.flapping;
        }
    }

    /// Upstreams that send routes show others where their own best route is not ours: always while we are silent, and
    /// when we announce with GRACEFUL_SHUTDOWN if they honour it.
    pub(super) fn shown_by(&self, upstream: usize) -> Others {
        let u = &self.upstreams[upstream];
        let ours = match self.told {
            None => false,
            Some(told) if told.leaving || told.last_resort => !u.honours,
            Some(_) => true,
        };
        match self.others {
            _ if !u.up || !u.sends || ours => Others::None,
            Others3::Nobody => Others::None,
            Others3::Resort => Others::LastResort,
            Others3::Fit => Others::Fit,
        }
    }
}
