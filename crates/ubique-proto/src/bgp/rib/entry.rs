//! The routes to one prefix, and which is the best.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ubique_model::{Family, Prefix};

use super::decision::{self, Path, Step};
use super::epoch::standing;
use super::offers::{OfferId, Offers, Terms};
use super::policy::{self, DEFAULT_LOCAL_PREF};
use super::table::Slot;
use super::{Candidate, Rib, Stale};
use crate::Time;
use crate::bgp::attributes::{Attributes, NextHop};
use crate::bgp::speaker::PeerId;

/// A route among those to its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct RouteKey {
    pub peer: PeerId,
    pub path_id: u32,
}

/// A route learned from a neighbour.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Route {
    pub offer: OfferId,
    /// RFC 7911; 0 without ADD-PATH.
    pub path_id: u32,
    pub learned: Time,
}

impl Route {
    pub(super) fn key(&self, offers: &Offers) -> Option<RouteKey> {
        offers.get(self.offer).map(|offer| RouteKey { peer: offer.terms.peer, path_id: self.path_id })
    }
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
    pub routes: Vec<Route>,
    /// We originate it.
    pub own: bool,
    /// Result of the decision process.
    pub best: Option<Source>,
    /// What the forwarding table was last told.
    pub reported: Option<(NextHop, PeerId)>,
}

impl Entry {
    /// Whether there is nothing to know but the routes.
    pub(super) fn is_plain(&self) -> bool {
        !self.own && self.best.is_none() && self.reported.is_none()
    }
}

/// A route laid open.
pub(super) struct Opened {
    pub terms: Terms,
    pub path_id: u32,
    pub attributes: Attributes,
    pub next_hop: NextHop,
    pub learned: Time,
}

impl Opened {
    pub(super) fn new(offers: &Offers, route: &Route) -> Option<Opened> {
        let offer = offers.get(route.offer)?;
        let (attributes, next_hop) = offer.unpack();
        Some(Opened { terms: offer.terms, path_id: route.path_id, attributes, next_hop, learned: route.learned })
    }

    fn key(&self) -> RouteKey {
        RouteKey { peer: self.terms.peer, path_id: self.path_id }
    }

    fn candidate(self, step: Option<Step>) -> Candidate {
        Candidate {
            peer: Some(self.terms.peer),
            path_id: self.path_id,
            attributes: Arc::new(self.attributes),
            local_pref: self.terms.local_pref,
            next_hop: Some(self.next_hop),
            learned: Some(self.learned),
            stale: self.terms.stale,
            best: step.is_none(),
            step,
        }
    }
}

impl Rib {
    /// The decision process over the eligible routes; our own wins against all.
    pub(super) fn select(&self, slot: &Slot) -> Option<Source> {
        if slot.own() {
            return Some(Source::Own);
        }
        let eligible = || {
            let offered = |r: &&Route| self.offers.get(r.offer).is_some_and(|o| o.terms.ineligible.is_none());
            slot.routes().iter().filter(offered)
        };
        let mut first = eligible();
        let only = first.next()?;
        if first.next().is_none() {
            return only.key(&self.offers).map(Source::Route);
        }
        let routes: Vec<Opened> = eligible().filter_map(|r| Opened::new(&self.offers, r)).collect();
        let paths: Vec<Path<'_>> = routes.iter().map(|r| self.path(r)).collect();
        decision::select(&paths, self.prefer_oldest).map(|i| Source::Route(routes[i].key()))
    }

    /// The routes to a prefix that are not gone, as stale as they are.
    pub(super) fn living<'a>(&'a self, prefix: Prefix, slot: &'a Slot) -> impl Iterator<Item = Opened> + 'a {
        slot.routes().iter().filter_map(move |route| self.opened(prefix, route))
    }

    /// A route that is not gone, as stale as it is.
    pub(super) fn opened(&self, prefix: Prefix, route: &Route) -> Option<Opened> {
        let stale = standing(&self.peers, &self.offers, route, Family::of(&prefix))?;
        let opened = Opened::new(&self.offers, route)?;
        Some(Opened { terms: Terms { stale, ..opened.terms }, ..opened })
    }

    fn path<'a>(&'a self, route: &'a Opened) -> Path<'a> {
        let p = self.peer(route.terms.peer);
        Path {
            attributes: &route.attributes,
            long_lived_stale: policy::is_long_lived_stale(route.terms.stale, &route.attributes),
            local_pref: route.terms.local_pref,
            neighbor: route.attributes.as_path.neighbor().or(p.map(|p| p.config.asn)).unwrap_or(self.own.asn),
            external: p.is_some_and(|p| !p.config.is_internal(self.own)),
            igp_metric: 0,
            router_id: p.map_or(Ipv4Addr::UNSPECIFIED, |p| p.router_id),
            peer_address: p.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |p| p.config.address),
            path_id: route.path_id,
            learned: route.learned,
        }
    }

    /// Next hop and neighbour of the best route, when that is not ours.
    pub(super) fn forwarding(&self, slot: &Slot) -> Option<(NextHop, PeerId)> {
        let Source::Route(key) = slot.best()? else { return None };
        let route = slot.route(&self.offers, key)?;
        Some((self.offers.get(route.offer)?.unpack().1, key.peer))
    }

    /// The routes of a slot, best first, each with the step it lost at.
    pub(super) fn ranked(&self, prefix: Prefix, slot: &Slot) -> Vec<Candidate> {
        let opened = self.living(prefix, slot);
        let (mut left, barred): (Vec<Opened>, Vec<Opened>) = opened.partition(|r| r.terms.ineligible.is_none());
        let paths: Vec<Path<'_>> = left.iter().map(|r| self.path(r)).collect();
        let mut steps = decision::explain(&paths, self.prefer_oldest);
        let mut out = Vec::with_capacity(left.len() + barred.len() + 1);
        if slot.own() {
            out.push(own_candidate());
            steps.fill(Some(Step::OwnRoute));
        }
        while !left.is_empty() {
            let paths: Vec<Path<'_>> = left.iter().map(|r| self.path(r)).collect();
            let next = decision::select(&paths, self.prefer_oldest).unwrap_or(0);
            out.push(left.remove(next).candidate(steps.remove(next)));
        }
        out.extend(barred.into_iter().map(|r| {
            let step = r.terms.ineligible.map(Step::Ineligible);
            r.candidate(step)
        }));
        out
    }
}

fn own_candidate() -> Candidate {
    Candidate {
        peer: None,
        path_id: 0,
        attributes: Arc::new(Attributes::originated()),
        local_pref: DEFAULT_LOCAL_PREF,
        next_hop: None,
        learned: None,
        stale: Stale::No,
        best: true,
        step: None,
    }
}
