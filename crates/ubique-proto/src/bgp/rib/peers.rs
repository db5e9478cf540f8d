//! Neighbours come and go, and what becomes of their routes: gone, stale (RFC 4724), long-lived stale (RFC 9494).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use ubique_model::policy::Announcement;
use ubique_model::{Family, Prefix};

use super::entry::{Route, RouteKey, Source};
use super::epoch::{Epoch, Held, standing};
use super::offers::{Offer, Terms};
use super::out::AdjOut;
use super::{Counters, Excess, MAX_OCTETS, MAX_OCTETS_PER_ROUTE, MAX_PREFIXES, Rib, policy};
use crate::bgp::family::{AddressFamilies, AddressFamily};
use crate::bgp::speaker::{Export, Import, Local, PeerConfig, PeerId};

/// Whether the neighbour still vouches for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Stale {
    /// It does.
    #[default]
    No,
    /// Its session ended, or it is sending everything anew, and has not named the route again (RFC 4724 §4.2, RFC 7313).
    /// No worse than any other route.
    Restart,
    /// As before, for long: any other route is better (RFC 9494 §4.3).
    LongLived,
}

/// An established session.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Session {
    pub local: Local,
    pub families: AddressFamilies,
    /// Families for which IPv6 next hops are agreed on (RFC 8950).
    pub extended_next_hop: AddressFamilies,
    /// The neighbour knows what a long-lived stale route is (RFC 9494).
    pub long_lived: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Peer {
    pub config: PeerConfig,
    pub session: Option<Session>,
    /// The BGP identifier of its present or last session.
    pub router_id: Ipv4Addr,
    /// Announcements made for it alone; they outlive the session.
    pub own: BTreeMap<Prefix, Announcement>,
    pub out: AdjOut,
    pub counters: Counters,
    /// Its routes of each family, by [`Family`].
    pub held: [Held; 2],
    pub over_limit: Option<Excess>,
}

impl Peer {
    pub(super) fn new(config: PeerConfig, epoch: Epoch) -> Peer {
        Peer {
            config,
            session: None,
            router_id: Ipv4Addr::UNSPECIFIED,
            own: BTreeMap::new(),
            out: AdjOut::default(),
            counters: Counters::default(),
            held: [Held::new(epoch); 2],
            over_limit: None,
        }
    }

    /// Whether its session carries unicast routes of a family.
    pub(super) fn carries(&self, family: Family) -> bool {
        self.session.is_some_and(|s| s.families.contains(family))
    }

    /// Whether it gets the best routes.
    pub(super) fn follows_best(&self, family: Family) -> bool {
        self.config.export == Export::GaoRexford && self.carries(family)
    }

    /// Prefixes of one family it may give us, [`Peer::room`] apart.
    pub(super) fn limit(&self) -> u32 {
        self.config.max_prefix.unwrap_or(if self.is_observed() { u32::MAX } else { MAX_PREFIXES })
    }

    /// Routes of one family that are kept at most of what it vouches for.
    fn room(&self) -> usize {
        let counted = self.config.max_prefix.map_or(0, |max| max as usize);
        let observed = if self.is_observed() { self.config.keep.max(counted) } else { usize::MAX };
        observed.min(self.limit() as usize)
    }

    /// Octets of attributes that are kept at most.
    pub(super) fn room_octets(&self) -> usize {
        let counted = self.config.max_prefix.map_or(0, |max| max as usize);
        let observed = self.config.keep.max(counted).saturating_mul(MAX_OCTETS_PER_ROUTE);
        if self.is_observed() { observed.min(MAX_OCTETS) } else { MAX_OCTETS }
    }

    /// Whether nothing it says is used.
    pub(super) fn is_observed(&self) -> bool {
        self.config.import == Import::Observe
    }
}

impl Rib {
    pub(super) fn peer(&self, peer: PeerId) -> Option<&Peer> {
        self.peers.get(peer.0 as usize)?.as_ref()
    }

    pub(super) fn peer_mut(&mut self, peer: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(peer.0 as usize)?.as_mut()
    }

    /// A new neighbour, its session down. `peer` is the lowest number without one; another one is ignored, and so is a
    /// neighbour whose number is taken.
    pub fn add_peer(&mut self, peer: PeerId, config: PeerConfig) {
        let (index, epoch) = (peer.0 as usize, self.epochs.next());
        if index == self.peers.len() {
            self.peers.push(None);
        }
        if let Some(slot @ None) = self.peers.get_mut(index) {
            *slot = Some(Peer::new(config, epoch));
        }
    }

    /// Forgets a neighbour with everything it gave us and was to be told. Its number is free again.
    pub fn remove_peer(&mut self, peer: PeerId) {
        self.peer_down(peer);
        if let Some(slot) = self.peers.get_mut(peer.0 as usize) {
            *slot = None;
        }
        while let Some(None) = self.peers.last() {
            self.peers.pop();
        }
    }

    /// The session is established: everything the neighbour should hold of `families` is now owed to it. `local` are
    /// our addresses on it, `router_id` the neighbour's BGP identifier; for `extended_next_hop` it takes IPv6 next hops
    /// (RFC 8950), and with `long_lived` it announced the capability of RFC 9494. Stale routes stay until
    /// [`Rib::sweep_stale`].
    pub fn peer_up(
        &mut self,
        peer: PeerId,
        local: impl Into<Local>,
        router_id: Ipv4Addr,
        families: AddressFamilies,
        extended_next_hop: AddressFamilies,
        long_lived: bool,
    ) {
        if self.peer(peer).is_some_and(|p| p.session.is_some()) {
            self.peer_down(peer);
        }
        let Some(p) = self.peers.get_mut(peer.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        p.session = Some(Session { local: local.into(), families, extended_next_hop, long_lived });
        p.router_id = router_id;
        p.out = AdjOut::default();
        p.over_limit = None;
        let Peer { own, out, .. } = p;
        out.mark_all(own.keys().copied().filter(|prefix| families.contains(Family::of(prefix))));
        if p.config.export == Export::GaoRexford {
            let best = self.table.from(None).filter(|(_, slot)| slot.best().is_some()).map(|(prefix, _)| prefix);
            p.out.mark_all(best.filter(|prefix| families.contains(Family::of(prefix))));
        }
    }

    /// The session ended, or a restart took too long: its routes are gone, and what was sent over it no longer counts.
    pub fn peer_down(&mut self, peer: PeerId) {
        self.peer_stale(peer, AddressFamilies::NONE, AddressFamilies::NONE);
    }

    /// The session ended and is expected back: the neighbour's unicast routes of `families` stay, stale; those of other
    /// families go, and so does what was stale before (RFC 4724 §4.2), unless it is long-lived (RFC 9494 §4.2) and there is
    /// no more of it than of routes in general. What is stale in families of `refreshing`, which the neighbour was sending
    /// anew, was vouched for until then, and stays as the rest.
    pub fn peer_stale(&mut self, peer: PeerId, families: AddressFamilies, refreshing: AddressFamilies) {
        let Some(p) = self.peer_mut(peer) else { return };
        p.session = None;
        p.out = AdjOut::default();
        p.over_limit = None;
        for family in Family::ALL {
            let stays = families.contains(family);
            let fits = self.peer(peer).is_some_and(|p| p.held[family as usize].routes <= p.room());
            if self.in_epochs(peer) {
                if !refreshing.contains(family) {
                    self.drop_unvouched(peer, family);
                }
                self.begin_epoch(peer, family);
                if !stays {
                    self.drop_unvouched(peer, family);
                }
                continue;
            }
            self.review(peer, family, |offer| match offer.terms.stale {
                Stale::No if stays => Some(Stale::Restart),
                Stale::Restart if stays && refreshing.contains(family) => Some(Stale::Restart),
                Stale::LongLived if stays && fits => Some(Stale::LongLived),
                _ => None,
            });
        }
    }

    /// The neighbour sends everything of a family anew (RFC 7313 §4): what it has named so far is stale until it is
    /// named again, or swept.
    pub fn mark_stale(&mut self, peer: PeerId, family: AddressFamily) {
        if self.in_epochs(peer) {
            return self.unicast(family, |rib, family| rib.begin_epoch(peer, family));
        }
        self.review_unicast(peer, family, |offer| Some(offer.terms.stale.max(Stale::Restart)));
    }

    /// The neighbour has named everything of a family, or its time is over: what is stale still, goes (RFC 4724 §4.2,
    /// RFC 7313 §4, RFC 9494 §4.2).
    pub fn sweep_stale(&mut self, peer: PeerId, family: AddressFamily) {
        if self.in_epochs(peer) {
            return self.unicast(family, |rib, family| rib.drop_unvouched(peer, family));
        }
        self.review_unicast(peer, family, |offer| (offer.terms.stale == Stale::No).then_some(Stale::No));
    }

    /// The neighbour is away for long: its stale routes of a family become the least preferred ones and are passed on
    /// with LLGR_STALE; those that carry NO_LLGR go (RFC 9494 §4.2, §4.3). Nothing changes for one that is only observed
    /// and not configured for it.
    pub fn long_lived_stale(&mut self, peer: PeerId, family: AddressFamily) {
        if self.in_epochs(peer) {
            return;
        }
        self.review_unicast(peer, family, |offer| match offer.terms.stale {
            Stale::No => Some(Stale::No),
            _ if offer.unpack().0.communities.contains(&policy::NO_LLGR) => None,
            Stale::Restart | Stale::LongLived => Some(Stale::LongLived),
        });
    }

    fn review_unicast(&mut self, peer: PeerId, family: AddressFamily, verdict: impl Fn(&Offer) -> Option<Stale>) {
        self.unicast(family, |rib, family| rib.review(peer, family, verdict));
    }

    fn unicast(&mut self, family: AddressFamily, act: impl FnOnce(&mut Rib, Family)) {
        if family.is_unicast() {
            act(self, family.family());
        }
    }

    /// Goes through a neighbour's routes of a family; each becomes as stale as the verdict says, or goes (`None`).
    fn review(&mut self, peer: PeerId, family: Family, verdict: impl Fn(&Offer) -> Option<Stale>) {
        if self.peer(peer).is_none_or(|p| p.held[family as usize].routes == 0) {
            return;
        }
        let Rib { table, offers, peers, .. } = self;
        let (mut gone, mut unvouched) = (0, 0);
        let mut touched = vec![];
        // Whether the route stays; one that is gone already is not ours to remove.
        let judge = |prefix: Prefix, route: &mut Route| {
            let Some(offer) = offers.get(route.offer).filter(|offer| offer.terms.peer == peer) else {
                return true;
            };
            if standing(peers, offers, route, family).is_none() {
                return true;
            }
            let (before, stale) = (offer.terms, verdict(offer));
            let after = stale.and_then(|stale| offers.hold_with(route.offer, &Terms { stale, ..before }));
            offers.release(route.offer);
            let told = after.is_none() || (before.stale != Stale::LongLived && stale == Some(Stale::LongLived));
            if told && before.ineligible.is_none() {
                touched.push((prefix, RouteKey { peer, path_id: route.path_id }));
            }
            match after {
                Some(after) => {
                    route.offer = after;
                    unvouched += usize::from(stale != Some(Stale::No));
                }
                None => gone += 1,
            }
            after.is_some()
        };
        table.retain(family, judge);
        if let Some(p) = self.peer_mut(peer) {
            let held = &mut p.held[family as usize];
            (held.routes, held.unvouched) = (held.routes - gone, unvouched);
            p.counters.received -= gone;
        }
        for (prefix, key) in touched {
            self.decide(prefix, Source::Route(key));
        }
    }
}
