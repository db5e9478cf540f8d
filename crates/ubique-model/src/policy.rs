//! The one announcement policy, used by planner, lab and agent alike, so that predictions stay honest.
//!
//! What a site announces to an upstream in each [`Stance`], and what a network does with a route by the relation of
//! the neighbour it came from and goes to (Gao and Rexford, "Stable Internet Routing Without Global
//! Coordination", 2001).

use serde::{Deserialize, Serialize};

use crate::net::{Community, ExtendedCommunity, LargeCommunity, Prefix, Relation};

mod stance;

pub use stance::{LAST_RESORT, Level, Stance, announcements, is_silent, last_resort_marker};

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
    /// Extended communities, sorted.
    pub extended_communities: Vec<ExtendedCommunity>,
    /// Large communities, sorted.
    pub large_communities: Vec<LargeCommunity>,
}

impl Announcement {
    /// A prefix without any attribute of its own.
    pub fn new(prefix: Prefix) -> Announcement {
        Announcement {
            prefix,
            prepend: 0,
            med: None,
            communities: vec![],
            extended_communities: vec![],
            large_communities: vec![],
        }
    }

    /// The same announcement while the site is drained: with GRACEFUL_SHUTDOWN (RFC 8326 §4).
    #[must_use]
    pub fn graceful_shutdown(mut self) -> Announcement {
        if let Err(place) = self.communities.binary_search(&Community::GRACEFUL_SHUTDOWN) {
            self.communities.insert(place, Community::GRACEFUL_SHUTDOWN);
        }
        self
    }
}

fn sorted<T: Ord + Copy>(list: &[T]) -> Vec<T> {
    let mut list = list.to_vec();
    list.sort_unstable();
    list.dedup();
    list
}

#[cfg(test)]
mod tests;
