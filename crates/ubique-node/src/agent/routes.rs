//! What `ubique routes` shows: one page for each turn of the loop.

use std::net::IpAddr;

use ubique_model::Prefix;
use ubique_proto::bgp::attributes::{Attributes, NextHop, Origin};
use ubique_proto::bgp::rib::{Candidate, Stale};
use ubique_proto::bgp::speaker::{PeerId, PeerStatus as SpeakerPeer};

use super::site::Agent;
use crate::admin::{Direction, Place, RouteView, RoutesPage, RoutesRequest, SCHEMA_VERSION};
use crate::clock::{now, rfc3339, wall};

/// Prefixes looked at for one page: about a millisecond.
const PREFIXES: usize = 256;

impl Agent {
    /// A page of routes.
    ///
    /// # Errors
    /// There is no such neighbour.
    pub(super) fn routes(&self, which: &RoutesRequest) -> Result<RoutesPage, String> {
        let mut neighbours = self.bgp.speaker().peers().map(|p| p.config.address);
        if let Some(peer) = which.peer.filter(|peer| !neighbours.any(|n| n == *peer)) {
            let all: Vec<String> = self.bgp.speaker().peers().map(|p| p.config.address.to_string()).collect();
            return Err(format!("no neighbour has the address {peer}; there are {}", all.join(", ")));
        }
        let mut routes = Vec::new();
        let wanted = which.prefix.or_else(|| which.address.and_then(|address| self.longest(address)));
        let next = if which.prefix.is_some() || which.address.is_some() {
            wanted.inspect(|&prefix| self.of_prefix(which, prefix, &mut routes));
            None
        } else {
            self.page(which, &mut routes)
        };
        Ok(RoutesPage { schema_version: SCHEMA_VERSION, routes, next })
    }

    /// The longest prefix with a route that holds an address.
    fn longest(&self, address: IpAddr) -> Option<Prefix> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let covering = (0..=longest).rev().filter_map(|length| Some(Prefix::new(address, length).ok()?.trunc()));
        let sent = |prefix: &Prefix| {
            let first = |p: SpeakerPeer<'_>| self.bgp.speaker().rib().advertised(p.peer, Some(*prefix)).next();
            self.bgp.speaker().peers().any(|p| first(p).is_some_and(|route| route.prefix == *prefix))
        };
        let known = |prefix: &Prefix| !self.bgp.speaker().routes(*prefix).is_empty() || sent(prefix);
        covering.into_iter().find(known)
    }

    fn of_prefix(&self, which: &RoutesRequest, prefix: Prefix, routes: &mut Vec<RouteView>) {
        self.received(which, prefix, routes);
        for peer in self.bgp.speaker().peers() {
            let first = self.bgp.speaker().rib().advertised(peer.peer, Some(prefix)).next();
            if let Some(route) = first.filter(|route| route.prefix == prefix && wants(which, &peer, Direction::Sent)) {
                routes.push(self.sent(&peer, prefix, &route.attributes, route.next_hop));
            }
        }
    }

    /// From where the page before ended, over so many prefixes; received routes first, then each neighbour's sent ones.
    fn page(&self, which: &RoutesRequest, routes: &mut Vec<RouteView>) -> Option<Place> {
        let first = Place { direction: Direction::Received, peer: 0, prefix: None };
        let place = which.after.unwrap_or(first);
        let rib = self.bgp.speaker().rib();
        let from_sent = |peer| Place { direction: Direction::Sent, peer, prefix: None };
        if place.direction == Direction::Received {
            if which.direction == Some(Direction::Sent) {
                return Some(from_sent(0));
            }
            let mut prefixes = rib.prefixes(place.prefix);
            prefixes.by_ref().take(PREFIXES).for_each(|prefix| self.received(which, prefix, routes));
            return match prefixes.next() {
                Some(prefix) => Some(Place { prefix: Some(prefix), ..place }),
                None => (which.direction != Some(Direction::Received)).then(|| from_sent(0)),
            };
        }
        let peer = self.bgp.speaker().peers().find(|p| p.peer.0 >= place.peer)?;
        let after = Some(from_sent(peer.peer.0.checked_add(1)?));
        if !wants(which, &peer, Direction::Sent) {
            return after;
        }
        // A neighbour that went away meanwhile has no place to go on from.
        let start = place.prefix.filter(|_| peer.peer.0 == place.peer);
        let mut sent = rib.advertised(peer.peer, start);
        for route in sent.by_ref().take(PREFIXES) {
            routes.push(self.sent(&peer, route.prefix, &route.attributes, route.next_hop));
        }
        match sent.next() {
            Some(next) => Some(Place { direction: Direction::Sent, peer: peer.peer.0, prefix: Some(next.prefix) }),
            None => after,
        }
    }

    fn received(&self, which: &RoutesRequest, prefix: Prefix, routes: &mut Vec<RouteView>) {
        for candidate in self.bgp.speaker().routes(prefix) {
            let Some(peer) = candidate.peer.and_then(|peer: PeerId| self.bgp.speaker().peer(peer)) else {
                continue;
            };
            if wants(which, &peer, Direction::Received) {
                routes.push(received(&peer, prefix, &candidate));
            }
        }
    }

    fn sent(&self, peer: &SpeakerPeer<'_>, prefix: Prefix, attributes: &Attributes, next_hop: NextHop) -> RouteView {
        let announced = self.announced(peer.peer).into_iter().find(|p| p.prefix == prefix).map(|p| p.announced);
        RouteView { announced, ..view(Direction::Sent, peer, prefix, attributes, Some(next_hop)) }
    }
}

fn wants(which: &RoutesRequest, peer: &SpeakerPeer<'_>, direction: Direction) -> bool {
    which.peer.is_none_or(|wanted| wanted == peer.config.address) && which.direction.is_none_or(|d| d == direction)
}

fn received(peer: &SpeakerPeer<'_>, prefix: Prefix, route: &Candidate) -> RouteView {
    let stale = match route.stale {
        Stale::No => None,
        Stale::Restart => Some("restart".to_owned()),
        Stale::LongLived => Some("long-lived".to_owned()),
    };
    RouteView {
        path_id: route.path_id,
        best: route.best,
        step: route.step.map(|step| step.to_string()),
        stale,
        since: route.learned.map(|at| rfc3339(wall(at))),
        age_s: route.learned.map(|at| now().since(at).as_secs()),
        ..view(Direction::Received, peer, prefix, &route.attributes, route.next_hop)
    }
}

/// What both directions have.
fn view(
    direction: Direction,
    peer: &SpeakerPeer<'_>,
    prefix: Prefix,
    attributes: &Attributes,
    next_hop: Option<NextHop>,
) -> RouteView {
    let origin = match attributes.origin {
        Origin::Igp => "igp",
        Origin::Egp => "egp",
        Origin::Incomplete => "incomplete",
    };
    let hex = |octets: &[u8; 8]| octets.iter().map(|octet| format!("{octet:02x}")).collect();
    RouteView {
        direction,
        peer: peer.config.address,
        asn: peer.config.asn,
        prefix,
        path_id: 0,
        next_hop: next_hop.map(NextHop::address),
        as_path: attributes.as_path.to_string(),
        origin: origin.to_owned(),
        med: attributes.med,
        local_pref: attributes.local_pref,
        communities: attributes.communities.iter().map(ToString::to_string).collect(),
        large_communities: attributes.large_communities.iter().map(ToString::to_string).collect(),
        extended_communities: attributes.extended_communities.iter().map(hex).collect(),
        best: false,
        step: None,
        stale: None,
        since: None,
        age_s: None,
        announced: None,
    }
}
