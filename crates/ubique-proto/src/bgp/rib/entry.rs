//! The routes to one prefix.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::decision::{self, Ineligible, Path, Step};
use super::policy::DEFAULT_LOCAL_PREF;
use super::{Candidate, Stale};
use crate::Time;
use crate::bgp::attributes::{Attributes, NextHop};
use crate::bgp::speaker::PeerId;

/// A route learned from a neighbour.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Route {
    pub peer: PeerId,
    pub path_id: u32,
    pub attributes: Arc<Attributes>,
    pub next_hop: NextHop,
    pub learned: Time,
    pub local_pref: u32,
    pub ineligible: Option<Ineligible>,
    pub stale: Stale,
}

impl Route {
    fn key(&self) -> RouteKey {
        RouteKey { peer: self.peer, path_id: self.path_id }
    }
}

/// A route among those to its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct RouteKey {
    pub peer: PeerId,
    pub path_id: u32,
}

/// Where a best route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Source {
    Own,
    Route(RouteKey),
}

impl Source {
    pub(super) fn peer(self) -> Option<PeerId> {
        match self {
            Source::Own => None,
            Source::Route(key) => Some(key.peer),
        }
    }
}

/// All that is known of one prefix.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Sorted by neighbour and path identifier.
    routes: Vec<Route>,
    /// We originate it.
    pub own: bool,
    /// Result of the decision process.
    pub best: Option<Source>,
    /// What the forwarding table was last told.
    pub reported: Option<(NextHop, PeerId)>,
}

impl Entry {
    fn position(&self, key: RouteKey) -> Result<usize, usize> {
        self.routes.binary_search_by_key(&key, Route::key)
    }

    pub(super) fn route(&self, key: RouteKey) -> Option<&Route> {
        self.position(key).ok().map(|i| &self.routes[i])
    }

    /// The routes of one neighbour, by path identifier.
    pub(super) fn routes_of(&self, peer: PeerId) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |r| r.peer == peer)
    }

    /// Whether anything is different now. A route repeated unchanged keeps its age (RFC 5004).
    pub(super) fn insert(&mut self, route: Route) -> bool {
        match self.position(route.key()) {
            Ok(i) => {
                let old = &mut self.routes[i];
                let same = old.attributes == route.attributes && old.next_hop == route.next_hop;
                let changed = !same || old.stale == Stale::LongLived;
                if same {
                    old.stale = route.stale;
                    old.ineligible = route.ineligible;
                } else {
                    *old = route;
                }
                changed
            }
            Err(i) => {
                self.routes.reserve_exact(1);
                self.routes.insert(i, route);
                true
            }
        }
    }

    /// Whether there was such a route.
    pub(super) fn remove(&mut self, key: RouteKey) -> bool {
        self.position(key).map(|i| self.routes.remove(i)).is_ok()
    }

    /// Goes through the routes of one neighbour, which may change, or go when `keep` says no; the number that went.
    pub(super) fn retain(&mut self, peer: PeerId, mut keep: impl FnMut(&mut Route) -> bool) -> usize {
        let before = self.routes.len();
        self.routes.retain_mut(|r| r.peer != peer || keep(r));
        before - self.routes.len()
    }

    pub(super) fn is_vacant(&self) -> bool {
        self.routes.is_empty() && !self.own && self.reported.is_none()
    }

    fn eligible(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(|r| r.ineligible.is_none())
    }

    /// The decision process over the eligible routes; our own wins against all.
    pub(super) fn select<'a>(&'a self, path: impl Fn(&'a Route) -> Path<'a>, prefer_oldest: bool) -> Option<Source> {
        if self.own {
            return Some(Source::Own);
        }
        let routes: Vec<&Route> = self.eligible().collect();
        let paths: Vec<Path<'_>> = routes.iter().map(|r| path(r)).collect();
        decision::select(&paths, prefer_oldest).map(|i| Source::Route(routes[i].key()))
    }

    /// Next hop and neighbour of the best route, when that is not ours.
    pub(super) fn forwarding(&self) -> Option<(NextHop, PeerId)> {
        match self.best? {
            Source::Own => None,
            Source::Route(key) => self.route(key).map(|r| (r.next_hop, r.peer)),
        }
    }

    pub(super) fn candidates<'a>(
        &'a self,
        path: impl Fn(&'a Route) -> Path<'a>,
        prefer_oldest: bool,
    ) -> Vec<Candidate> {
        let mut left: Vec<&Route> = self.eligible().collect();
        let paths: Vec<Path<'_>> = left.iter().map(|r| path(r)).collect();
        let mut steps = decision::explain(&paths, prefer_oldest);
        let mut out = Vec::with_capacity(self.routes.len() + 1);
        if self.own {
            out.push(own_candidate());
            steps.fill(Some(Step::OwnRoute));
        }
        while !left.is_empty() {
            let paths: Vec<Path<'_>> = left.iter().map(|r| path(r)).collect();
            let next = decision::select(&paths, prefer_oldest).unwrap_or(0);
            out.push(candidate(left.remove(next), steps.remove(next)));
        }
        let barred = self.routes.iter().filter_map(|r| r.ineligible.map(|why| (r, why)));
        out.extend(barred.map(|(r, why)| candidate(r, Some(Step::Ineligible(why)))));
        out
    }
}

fn candidate(route: &Route, step: Option<Step>) -> Candidate {
    Candidate {
        peer: Some(route.peer),
        path_id: route.path_id,
        stale: route.stale,
        attributes: Arc::clone(&route.attributes),
        local_pref: route.local_pref,
        next_hop: Some(route.next_hop),
        learned: Some(route.learned),
        best: step.is_none(),
        step,
    }
}

fn own_candidate() -> Candidate {
    Candidate {
        peer: None,
        path_id: 0,
        stale: Stale::No,
        attributes: Arc::new(Attributes::originated()),
        local_pref: DEFAULT_LOCAL_PREF,
        next_hop: None,
        learned: None,
        best: true,
        step: None,
    }
}
