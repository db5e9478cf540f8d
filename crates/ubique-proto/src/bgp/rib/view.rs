//! What can be asked of a RIB: routes received, candidates, best and sent routes, numbers.
//!
//! Iterators walk the table where it lies; with a prefix to start from, a reader pages through a million routes.

use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ubique_model::Prefix;

use super::decision::{Ineligible, Step};
use super::entry::{Opened, Route};
use super::table::Slot;
use super::{Rib, Stale};
use crate::Time;
use crate::bgp::attributes::{Attributes, NextHop};
use crate::bgp::speaker::PeerId;

/// A route to a prefix and how it fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Who sent it; `None`: our own.
    pub peer: Option<PeerId>,
    /// Path identifier (RFC 7911); 0 without ADD-PATH.
    pub path_id: u32,
    /// Its attributes, as received.
    pub attributes: Arc<Attributes>,
    /// Degree of preference import policy gave it.
    pub local_pref: u32,
    /// Its next hop; `None`: our own.
    pub next_hop: Option<NextHop>,
    /// When it was learned; `None`: our own.
    pub learned: Option<Time>,
    /// Whether its neighbour still vouches for it.
    pub stale: Stale,
    /// It is the best.
    pub best: bool,
    /// Why it is not.
    pub step: Option<Step>,
}

/// A route of Adj-RIB-In.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Destination.
    pub prefix: Prefix,
    /// Path identifier (RFC 7911); 0 without ADD-PATH.
    pub path_id: u32,
    /// Attributes, as received, with OTC where the neighbour's role asks for it (RFC 9234 §5).
    pub attributes: Arc<Attributes>,
    /// Next hop, as received.
    pub next_hop: NextHop,
    /// When it was learned.
    pub learned: Time,
    /// Whether its neighbour still vouches for it.
    pub stale: Stale,
    /// Why it cannot become the best route.
    pub ineligible: Option<Ineligible>,
}

/// A route of Adj-RIB-Out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advertised {
    /// Destination.
    pub prefix: Prefix,
    /// Attributes, as sent.
    pub attributes: Arc<Attributes>,
    /// Next hop, as sent.
    pub next_hop: NextHop,
}

/// Numbers of one neighbour, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Routes in Adj-RIB-In now, stale ones included.
    pub received: usize,
    /// Routes in Adj-RIB-Out now.
    pub advertised: usize,
    /// Prefixes whose change has not been polled yet.
    pub pending: usize,
    /// Prefixes it should hold and does not: there is no next hop of their family on the session (RFC 4271 §5.1.3).
    pub withheld: usize,
    /// Announced routes taken in since the start.
    pub announcements_in: u64,
    /// Withdrawn routes taken in since the start, known or not.
    pub withdrawals_in: u64,
    /// Announced prefixes given out since the start.
    pub announcements_out: u64,
    /// Withdrawn prefixes given out since the start.
    pub withdrawals_out: u64,
    /// Announced routes not kept since the start: of a family that was not agreed on, or beyond a limit.
    pub ignored: u64,
}

/// Everything from a prefix on; `None`: from the first.
pub(super) fn from(start: Option<Prefix>) -> (Bound<Prefix>, Bound<Prefix>) {
    (start.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded)
}

impl Rib {
    /// All routes to a prefix, the best first, the others as they would follow were those before them to go, the
    /// ineligible last.
    pub fn candidates(&self, prefix: Prefix) -> Vec<Candidate> {
        self.table.get(&prefix).map(|slot| self.ranked(prefix, slot)).unwrap_or_default()
    }

    /// The prefixes anything is known of, in order, from `start` on.
    pub fn prefixes(&self, start: Option<Prefix>) -> impl Iterator<Item = Prefix> + '_ {
        let known =
            |(prefix, slot): &(Prefix, &Slot)| slot.says_more() || slot.routes().iter().any(|r| self.lives(*prefix, r));
        self.table.from(start).filter(known).map(|(prefix, _)| prefix)
    }

    /// The best route of each prefix that has one, with its neighbour (`None`: our own).
    pub fn best_routes(&self) -> impl Iterator<Item = (Prefix, Option<PeerId>)> + '_ {
        self.table.from(None).filter_map(|(prefix, slot)| Some((prefix, slot.best()?.peer())))
    }

    /// Adj-RIB-In of a neighbour, in order of prefix and path identifier, from `start` on.
    pub fn received(&self, peer: PeerId, start: Option<Prefix>) -> impl Iterator<Item = Received> + '_ {
        let of_peer = move |route: &&Route| route.key(&self.offers).is_some_and(|key| key.peer == peer);
        self.table.from(start).flat_map(move |(prefix, slot)| {
            slot.routes().iter().filter(of_peer).filter_map(move |route| {
                let Opened { terms, path_id, attributes, next_hop, learned } = self.opened(prefix, route)?;
                Some(Received {
                    prefix,
                    path_id,
                    attributes: Arc::new(attributes),
                    next_hop,
                    learned,
                    stale: terms.stale,
                    ineligible: terms.ineligible,
                })
            })
        })
    }

    /// Adj-RIB-Out of a neighbour, in order, from `start` on: what [`Rib::poll_changes`] gave out for it on this
    /// session.
    pub fn advertised(&self, peer: PeerId, start: Option<Prefix>) -> impl Iterator<Item = Advertised> + '_ {
        self.peer(peer).into_iter().flat_map(move |p| p.out.sent(start))
    }

    /// Prefixes the neighbour should hold and does not, for want of a next hop ([`Counters::withheld`]).
    pub fn withheld(&self, peer: PeerId) -> impl Iterator<Item = Prefix> + '_ {
        self.peer(peer).into_iter().flat_map(|p| p.out.withheld())
    }

    /// Numbers of a neighbour; all zero for an unknown one.
    pub fn counters(&self, peer: PeerId) -> Counters {
        self.peer(peer).map_or_else(Counters::default, |p| Counters {
            advertised: p.out.len(),
            pending: p.out.pending(),
            withheld: p.out.withheld().count(),
            ..p.counters
        })
    }
}
