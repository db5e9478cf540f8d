//! What upstreams are told beside the plain announcement: by level of health, by step of shedding, and what guards say.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Upstream;
use crate::net::{Asn, Community, LargeCommunity, Prefix, Relation};

/// A change of what an upstream is told.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Action {
    /// So many more appearances of our AS, on top of the upstream's own `prepend`.
    pub prepend: u8,
    /// MULTI_EXIT_DISC, instead of the upstream's.
    pub med: Option<u32>,
    /// Further communities.
    pub communities: Vec<Community>,
    /// Further large communities.
    pub large_communities: Vec<LargeCommunity>,
    /// Nothing is announced.
    pub withdraw: bool,
    /// The service's addresses are announced as host routes with BLACKHOLE (RFC 7999) and NO_EXPORT, too.
    pub blackhole: bool,
    /// Longer prefixes that are announced, too.
    pub more_specifics: Vec<Prefix>,
}

impl Action {
    /// Nothing is announced.
    pub fn withdrawal() -> Action {
        Action { withdraw: true, ..Action::default() }
    }

    /// So many more appearances of our AS.
    pub fn prepending(prepend: u8) -> Action {
        Action { prepend, ..Action::default() }
    }
}

/// `[level]`: what upstreams are told of a site that is not healthy, unless they have a word of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Levels {
    /// It serves, but others should be preferred.
    pub degraded: Action,
    /// It does not serve.
    pub failed: Action,
}

impl Default for Levels {
    fn default() -> Levels {
        Levels { degraded: Action::prepending(super::spec::DEGRADED_PREPEND), failed: Action::withdrawal() }
    }
}

/// `[[shed]]`: a step against overload.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shed {
    /// Whom it concerns; empty: every upstream.
    pub upstreams: Vec<UpstreamSelector>,
    /// What they are told, on top of the steps before.
    pub action: Action,
}

impl Shed {
    /// Whether it concerns this upstream.
    pub fn concerns(&self, upstream: &Upstream) -> bool {
        let matches = |selector: &UpstreamSelector| match selector {
            UpstreamSelector::Relation(relation) => *relation == upstream.relation,
            UpstreamSelector::Asn(asn) => *asn == upstream.asn,
        };
        self.upstreams.is_empty() || self.upstreams.iter().any(matches)
    }
}

/// Upstreams, by what they have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamSelector {
    /// Those of this relation.
    Relation(Relation),
    /// Those in this AS.
    Asn(Asn),
}

/// `[flap]`: what the damping of upstreams (RFC 2439) is assumed to hold against us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flap {
    /// After so long the penalty is half of what it was.
    pub half_life: Duration,
    /// Above this penalty a route is suppressed (RFC 7196 §3: 6000 at least).
    pub suppress: u32,
    /// Penalty of a withdrawal.
    pub withdrawal: u32,
    /// Penalty of a change of attributes.
    pub change: u32,
}

impl Default for Flap {
    fn default() -> Flap {
        Flap { half_life: Duration::from_secs(15 * 60), suppress: 6000, withdrawal: 1000, change: 500 }
    }
}

/// `[guard]`: what keeps the service reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// How long after a withdrawal another site's route must be seen; zero: the guard is off.
    pub last_site: Duration,
    /// How long a site of last resort waits before it tries again to withdraw; doubled each time in vain.
    pub retry: Duration,
    /// The first announcement waits for an answer on each service address.
    pub start: bool,
}

impl Default for Guard {
    fn default() -> Guard {
        Guard { last_site: Duration::from_secs(3), retry: Duration::from_secs(30), start: true }
    }
}
