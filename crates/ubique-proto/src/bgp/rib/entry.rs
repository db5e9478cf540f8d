//! The routes to one prefix.

use std::sync::Arc;

use super::Candidate;
use super::decision::{self, Ineligible, Path, Step};
use super::policy::DEFAULT_LOCAL_PREF;
use crate::Time;
use crate::bgp::attributes::{Attributes, NextHop};
use crate::bgp::speaker::PeerId;

/// A route learned from a neighbour.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub peer: PeerId,
    pub attributes: Arc<Attributes>,
    pub next_hop: NextHop,
    pub learned: Time,
    pub local_pref: u32,
    pub ineligible: Option<Ineligible>,
}

/// Where a best route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Own,
    Peer(PeerId),
}

impl Source {
    pub(super) fn peer(self) -> Option<PeerId> {
        match self {
            Source::Own => None,
            Source::Peer(peer) => Some(peer),
        }
    }
}

/// All that is known of one prefix.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Sorted by neighbour.
    routes: Vec<Route>,
    /// We originate it.
    pub own: bool,
    /// Result of the decision process.
    pub best: Option<Source>,
    /// What the forwarding table was last told.
    pub reported: Option<(NextHop, PeerId)>,
}

impl Entry {
    fn position(&self, peer: PeerId) -> Result<usize, usize> {
        self.routes.binary_search_by_key(&peer, |r| r.peer)
    }

    pub(super) fn route(&self, peer: PeerId) -> Option<&Route> {
        self.position(peer).ok().map(|i| &self.routes[i])
    }

    /// Whether anything is different now. A route repeated unchanged keeps its age (RFC 5004).
    pub(super) fn insert(&mut self, route: Route) -> bool {
        match self.position(route.peer) {
            Ok(i) => {
                let old = &mut self.routes[i];
                let changed = old.attributes != route.attributes || old.next_hop != route.next_hop;
                if changed {
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

    /// Whether there was a route of that neighbour.
    pub(super) fn remove(&mut self, peer: PeerId) -> bool {
        self.position(peer).map(|i| self.routes.remove(i)).is_ok()
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
        decision::select(&paths, prefer_oldest).map(|i| Source::Peer(routes[i].peer))
    }

    /// Next hop and neighbour of the best route, when that is not ours.
    pub(super) fn forwarding(&self) -> Option<(NextHop, PeerId)> {
        let peer = self.best?.peer()?;
        self.route(peer).map(|r| (r.next_hop, peer))
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
        attributes: Arc::clone(&route.attributes),
        local_pref: route.local_pref,
        next_hop: Some(route.next_hop),
        best: step.is_none(),
        step,
    }
}

fn own_candidate() -> Candidate {
    Candidate {
        peer: None,
        attributes: Arc::new(Attributes::originated()),
        local_pref: DEFAULT_LOCAL_PREF,
        next_hop: None,
        best: true,
        step: None,
    }
}
