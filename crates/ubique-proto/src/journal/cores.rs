//! The cores as the journal sees them.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::{Core, CoreId, SNAPSHOT_MAX};
use crate::actions::drain::{self, Drain};
use crate::actions::{self, Actions, ActionsConfig};
use crate::bfd::{self, Bfd};
use crate::bgp::speaker::{self, Speaker, SpeakerConfig};
use crate::health::{self, CheckConfig, GroupConfig, Health};
use crate::site::{self, Site, SiteConfig};
use crate::time::Time;

/// An input of any core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Input {
    /// Of the speaker.
    Bgp(speaker::In),
    /// Of the health core.
    Health(health::In),
    /// Of the site core.
    Site(site::In),
    /// Of the BFD core.
    Bfd(bfd::In),
    /// Of the actions core.
    Actions(actions::In),
    /// Of the drain core.
    Drain(drain::In),
}

impl Input {
    /// The core it is for.
    pub fn core(&self) -> CoreId {
        match self {
            Input::Bgp(_) => CoreId::Bgp,
            Input::Health(_) => CoreId::Health,
            Input::Site(_) => CoreId::Site,
            Input::Bfd(_) => CoreId::Bfd,
            Input::Actions(_) => CoreId::Actions,
            Input::Drain(_) => CoreId::Drain,
        }
    }
}

/// An output of any core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// Of the speaker.
    Bgp(speaker::Out),
    /// Of the health core.
    Health(health::Out),
    /// Of the site core.
    Site(site::Out),
    /// Of the BFD core.
    Bfd(bfd::Out),
    /// Of the actions core.
    Actions(actions::Out),
    /// Of the drain core.
    Drain(drain::Out),
}

/// Implements [`Core`] by the methods of the same names, which every core has; and by what is urgent.
macro_rules! core {
    ($core:ty, $module:ident, $id:ident, $config:ty, $create:expr, $urgent:expr) => {
        impl From<$module::In> for Input {
            fn from(input: $module::In) -> Input {
                Input::$id(input)
            }
        }

        impl From<$module::Out> for Output {
            fn from(output: $module::Out) -> Output {
                Output::$id(output)
            }
        }

        impl Core for $core {
            const ID: CoreId = CoreId::$id;
            type Config = $config;
            type In = $module::In;
            type Out = $module::Out;

            fn create(config: $config) -> $core {
                $create(config)
            }

            fn snapshot(&self, limit: usize) -> Option<Vec<u8>> {
                snapshot(self, limit)
            }

            fn restore(snapshot: &[u8]) -> Option<$core> {
                postcard::from_bytes(snapshot).ok()
            }

            fn handle_input(&mut self, now: Time, input: $module::In) {
                <$core>::handle_input(self, now, input);
            }

            fn handle_deadline(&mut self, now: Time) {
                <$core>::handle_deadline(self, now);
            }

            fn is_urgent(input: &$module::In) -> bool {
                $urgent(input)
            }

            fn next_deadline(&self) -> Option<Time> {
                <$core>::next_deadline(self)
            }

            fn poll_output(&mut self) -> Option<$module::Out> {
                <$core>::poll_output(self)
            }
        }
    };
}

// Snapshots of all but the speaker are small.
core!(Actions, actions, Actions, ActionsConfig, Actions::new, |_| false);
core!(Drain, drain, Drain, (), |()| Drain::default(), |_| false);
core!(Bfd, bfd, Bfd, u64, Bfd::new, |_| false);
core!(
    Health,
    health,
    Health,
    (Vec<CheckConfig>, Vec<GroupConfig>, u64),
    |(checks, groups, seed)| Health::new(checks, groups, seed),
    |_| false
);
core!(Site, site, Site, SiteConfig, Site::new, |_| false);
core!(Speaker, speaker, Bgp, SpeakerConfig, Speaker::new, speaker::In::is_urgent);

fn snapshot(core: &impl Serialize, limit: usize) -> Option<Vec<u8>> {
    let limit = limit.min(SNAPSHOT_MAX);
    postcard::to_io(core, Bounded { octets: Vec::new(), limit }).ok().map(|bounded| bounded.octets)
}

/// Takes at most so many octets.
struct Bounded {
    octets: Vec<u8>,
    limit: usize,
}

impl Write for Bounded {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if self.octets.len() + octets.len() > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.octets.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
