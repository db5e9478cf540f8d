//! The one announcement policy, used by planner, lab and agent alike, so that predictions stay honest.
//!
//! What a site announces to an upstream, and what a network does with a route by the relation of
//! the neighbour it came from and goes to (Gao and Rexford, "Stable Internet Routing Without Global
//! Coordination", 2001).

use serde::{Deserialize, Serialize};

use crate::net::{Community, Family, LargeCommunity, Prefix, Relation};
use crate::service::{Service, Upstream};

/// LOCAL_PREF of a route by the relation to the neighbour it came from: customers pay, transit costs.
pub fn local_preference(from: Relation) -> u32 {
    match from {
        Relation::Customer => 300,
        Relation::Peer | Relation::RouteServer => 200,
        Relation::Internal | Relation::Transit => 100,
    }
}

/// Whether a route learned `from` (`None`: our own) may be announced `to` a neighbour: routes from peers and
/// providers go to customers only.
pub fn exports(from: Option<Relation>, to: Relation) -> bool {
    matches!(from, None | Some(Relation::Customer)) || to == Relation::Customer
}

/// What a site announces to one upstream, for one prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The prefix.
    pub prefix: Prefix,
    /// How often our AS is prepended in addition to its one regular appearance.
    pub prepend: u8,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Standard communities, sorted.
    pub communities: Vec<Community>,
    /// Large communities, sorted.
    pub large_communities: Vec<LargeCommunity>,
}

impl Announcement {
    /// The same announcement while the site is drained: with GRACEFUL_SHUTDOWN (RFC 8326 §4).
    #[must_use]
    pub fn graceful_shutdown(mut self) -> Announcement {
        if let Err(place) = self.communities.binary_search(&Community::GRACEFUL_SHUTDOWN) {
            self.communities.insert(place, Community::GRACEFUL_SHUTDOWN);
        }
        self
    }
}

/// What a healthy site announces over the session to `upstream`: the service's prefixes of the session's family.
pub fn announcements(service: &Service, upstream: &Upstream) -> Vec<Announcement> {
    let family = Family::of_address(upstream.address);
    let mut communities = upstream.communities.clone();
    communities.sort_unstable();
    communities.dedup();
    let mut large_communities = upstream.large_communities.clone();
    large_communities.sort_unstable();
    large_communities.dedup();
    service
        .prefixes
        .iter()
        .filter(|prefix| Family::of(prefix) == family)
        .map(|&prefix| Announcement {
            prefix,
            prepend: upstream.prepend,
            med: upstream.med,
            communities: communities.clone(),
            large_communities: large_communities.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
