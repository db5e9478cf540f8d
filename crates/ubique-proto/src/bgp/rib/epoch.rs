//! Losing a full table at once, and removing it in pieces.
//!
//! Nothing uses the routes of a neighbour that is only observed, so that nothing needs to be decided when they go. Each of
//! its routes has the epoch it was named in. When a session ends or everything is sent anew, a new epoch begins: routes of
//! earlier ones are stale, and gone as soon as the neighbour's oldest epoch is a later one. No view shows what is gone;
//! [`Rib::reap`] takes it out of the table, a bounded number of prefixes at a time.

use serde::{Deserialize, Serialize};
use ubique_model::{Family, Prefix};

use super::entry::Route;
use super::offers::Offers;
use super::peers::Peer;
use super::{Rib, Stale};
use crate::bgp::speaker::PeerId;

/// A number no other epoch of the RIB has; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Epoch(u64);

impl Epoch {
    pub(super) fn next(&mut self) -> Epoch {
        self.0 += 1;
        *self
    }
}

/// A neighbour's routes of one family.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Held {
    /// Routes in Adj-RIB-In.
    pub routes: usize,
    /// Those that are stale: of earlier epochs than the present one, or marked one by one.
    pub unvouched: usize,
    /// The present epoch.
    pub current: Epoch,
    /// Routes of earlier epochs are gone.
    pub oldest: Epoch,
}

impl Held {
    pub(super) fn new(epoch: Epoch) -> Held {
        Held { routes: 0, unvouched: 0, current: epoch, oldest: epoch }
    }
}

/// Routes that are gone and still in the table.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Gone {
    pub routes: usize,
    /// Where [`Rib::reap`] goes on; `None`: at the first prefix.
    next: Option<Prefix>,
}

/// How stale a route is; `None`: it is gone.
pub(super) fn standing(peers: &[Option<Peer>], offers: &Offers, route: &Route, family: Family) -> Option<Stale> {
    let terms = &offers.get(route.offer)?.terms;
    let held = &peers.get(terms.peer.0 as usize)?.as_ref()?.held[family as usize];
    let stale = if terms.epoch < held.current { terms.stale.max(Stale::Restart) } else { terms.stale };
    (terms.epoch >= held.oldest).then_some(stale)
}

/// Counts a route that is taken out of the table.
pub(super) fn depart(peers: &mut [Option<Peer>], gone: &mut Gone, offers: &Offers, route: &Route, family: Family) {
    let Some(stale) = standing(peers, offers, route, family) else {
        gone.routes -= 1;
        return;
    };
    let Some(terms) = offers.get(route.offer).map(|offer| offer.terms) else { return };
    if let Some(p) = peers.get_mut(terms.peer.0 as usize).and_then(Option::as_mut) {
        let held = &mut p.held[family as usize];
        held.routes -= 1;
        held.unvouched -= usize::from(stale != Stale::No);
        p.counters.received -= 1;
    }
}

impl Rib {
    /// Whether a neighbour's routes have epochs; what becomes of those of others must be decided route by route.
    pub(super) fn in_epochs(&self, peer: PeerId) -> bool {
        self.peer(peer).is_some_and(|p| {
            p.is_observed() && p.config.graceful_restart.is_none_or(|restart| restart.long_lived.is_none())
        })
    }

    /// From now on the routes named so far are stale.
    pub(super) fn begin_epoch(&mut self, peer: PeerId, family: Family) {
        let epoch = self.epochs.next();
        if let Some(p) = self.peer_mut(peer) {
            let held = &mut p.held[family as usize];
            (held.current, held.unvouched) = (epoch, held.routes);
        }
    }

    /// From now on the routes of earlier epochs are gone.
    pub(super) fn drop_unvouched(&mut self, peer: PeerId, family: Family) {
        if let Some(p) = self.peer_mut(peer) {
            let held = &mut p.held[family as usize];
            let gone = std::mem::take(&mut held.unvouched);
            held.oldest = held.current;
            held.routes -= gone;
            p.counters.received -= gone;
            self.gone.routes += gone;
        }
    }

    /// Whether [`Rib::reap`] has something to do.
    pub fn has_gone(&self) -> bool {
        self.gone.routes > 0
    }

    pub(super) fn lives(&self, prefix: Prefix, route: &Route) -> bool {
        standing(&self.peers, &self.offers, route, Family::of(&prefix)).is_some()
    }

    /// Takes routes that are gone out of the table; looks at so many prefixes. No view changes by it.
    pub fn reap(&mut self, prefixes: usize) {
        let Rib { table, offers, peers, gone, .. } = self;
        if gone.routes == 0 {
            return;
        }
        let mut ahead = table.from(gone.next).map(|(prefix, _)| prefix);
        let passed: Vec<Prefix> = ahead.by_ref().take(prefixes).collect();
        gone.next = ahead.next();
        drop(ahead);
        for prefix in passed {
            table.retain_of(&prefix, |route| {
                let stays = standing(peers, offers, route, Family::of(&prefix)).is_some();
                if !stays {
                    gone.routes -= 1;
                    offers.release(route.offer);
                }
                stays
            });
        }
    }
}
