//! Adj-RIB-In, Loc-RIB and Adj-RIB-Out of one speaker (RFC 4271 §3.2, §9).
//!
//! [`Rib`] takes the UPDATEs of each neighbour and the announcements of our own, keeps the best route of each
//! prefix by the [`decision`] process, and owes each neighbour the difference between what it should hold and
//! what it was sent. Outputs are drained to their net effect: [`Rib::poll_best`] for the forwarding table,
//! [`Rib::poll_changes`] for one neighbour. An announcement taken back before anyone polled is never sent.
//!
//! One table holds the candidates of a prefix side by side, so Adj-RIB-In and Loc-RIB are two views of it.
//! Attributes are interned. A session carries the families that were agreed on; other routes are ignored.
//!
//! Deliberately absent: route reflection, confederations, add-path, aggregation, MRAI (a withdrawal must not
//! wait), and next hop resolution: neighbours are directly connected, so all interior costs are equal.
//!
//! RFC 1997 (well-known communities), 4271 §9, 4360, 4456 (received attributes), 5004, 8326.

pub mod decision;
mod entry;
mod out;
mod peers;
mod policy;
mod pool;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ubique_model::policy::Announcement;
use ubique_model::{Family, Prefix};

use self::entry::{Entry, Route, RouteKey, Source};
pub use self::out::Change;
use self::peers::Peer;
pub use self::peers::Stale;
pub use self::policy::DEFAULT_LOCAL_PREF;
use self::policy::Own;
use self::pool::Pool;
pub use self::view::{Advertised, Candidate, Counters, Received};
use super::attributes::NextHop;
use super::family::AddressFamily;
use super::message::{Nlri, Update};
use super::speaker::{PeerConfig, PeerId, SpeakerConfig};
use crate::Time;

/// Prefixes one neighbour may give us when its routes are eligible: twice the Internet's IPv4 table of 2026.
/// More end the session with Cease, maximum number of prefixes reached (RFC 4486 §4).
pub const MAX_PREFIXES: u32 = 2_000_000;

/// Prefixes kept of a neighbour that is only observed. Beyond it only routes to prefixes we announce are kept: an
/// announcing edge that is sent a full table must neither grow with it nor give up its session.
pub const MAX_OBSERVED_PREFIXES: usize = 20_000;

/// The routing information base of one speaker.
#[derive(Debug, Serialize, Deserialize)]
pub struct Rib {
    own: Own,
    prefer_oldest: bool,
    /// By [`PeerId`]; `None`: that number is free.
    peers: Vec<Option<Peer>>,
    table: BTreeMap<Prefix, Entry>,
    /// Prefixes whose best route may differ from what [`Rib::poll_best`] last told.
    unreported: BTreeSet<Prefix>,
    #[serde(skip)]
    pool: Pool,
}

impl Rib {
    /// An empty RIB; all sessions are down.
    pub fn new(config: SpeakerConfig) -> Rib {
        Rib {
            own: Own { asn: config.asn, router_id: config.router_id },
            prefer_oldest: config.prefer_oldest,
            peers: config.peers.into_iter().map(|config| Some(Peer::new(config))).collect(),
            table: BTreeMap::new(),
            unreported: BTreeSet::new(),
            pool: Pool::default(),
        }
    }

    /// Routes from an established neighbour. Withdrawals first, so that a prefix in both lists stays announced
    /// (RFC 4271 §4.3).
    pub fn update(&mut self, now: Time, peer: PeerId, update: &Update) {
        let own = self.own;
        let Some(p) = self.peer_mut(peer) else { return };
        let Some(session) = p.session else { return };
        p.counters.withdrawals_in += update.withdrawn.len() as u64;
        for &nlri in &update.withdrawn {
            self.forget(peer, nlri);
        }
        let Some(attributes) = &update.attributes else {
            return;
        };
        let Some(p) = self.peers.get(peer.0 as usize).and_then(Option::as_ref) else {
            return;
        };
        let cleaned = if p.config.is_internal(own) { None } else { policy::without_internal(attributes) };
        let attributes = match cleaned {
            Some(cleaned) => self.pool.intern_new(cleaned),
            None => self.pool.intern(attributes),
        };
        let local_pref = policy::preference(own, &p.config, &attributes);
        let address = session.local.address;
        let judged = update
            .announced
            .iter()
            .map(|reach| (reach, policy::ineligible(own, &p.config, address, &attributes, reach.next_hop)));
        for (reach, ineligible) in judged.collect::<Vec<_>>() {
            for &Nlri { prefix, path_id } in &reach.prefixes {
                let route = Route {
                    peer,
                    path_id,
                    attributes: Arc::clone(&attributes),
                    next_hop: reach.next_hop,
                    learned: now,
                    local_pref,
                    ineligible,
                    stale: Stale::No,
                };
                self.learn(prefix, route);
            }
        }
    }

    /// Takes one route into the table, in place of the neighbour's earlier one with its path identifier (RFC 4271 §9,
    /// RFC 7911 §5).
    fn learn(&mut self, prefix: Prefix, route: Route) {
        let key = RouteKey { peer: route.peer, path_id: route.path_id };
        let known = self.table.get(&prefix).is_some_and(|e| e.route(key).is_some());
        if !self.admits(key.peer, prefix, known) {
            return;
        }
        let changed = self.table.entry(prefix).or_default().insert(route);
        if let Some(p) = self.peer_mut(key.peer) {
            p.counters.announcements_in += 1;
            p.counters.received += usize::from(!known);
            p.received[Family::of(&prefix) as usize] += usize::from(!known);
        }
        if changed {
            self.decide(prefix, Source::Route(key));
        }
    }

    /// Whether the neighbour's limits and families let a route in; counts it when not.
    fn admits(&mut self, peer: PeerId, prefix: Prefix, known: bool) -> bool {
        let family = Family::of(&prefix);
        let watched = || self.peers.iter().flatten().any(|p| p.own.contains_key(&prefix));
        let Some(p) = self.peer(peer) else { return false };
        let received = p.received[family as usize];
        let limit = p.config.max_prefix.unwrap_or(if p.is_observed() { u32::MAX } else { MAX_PREFIXES });
        let over = !known && received >= limit as usize;
        let full = p.is_observed() && !known && p.counters.received >= p.config.keep;
        let refused = !p.carries(family) || over || (full && !watched());
        let Some(p) = self.peer_mut(peer) else { return false };
        if over {
            p.over_limit.get_or_insert((family.into(), limit));
        }
        p.counters.ignored += u64::from(refused);
        !refused
    }

    fn forget(&mut self, peer: PeerId, Nlri { prefix, path_id }: Nlri) {
        let key = RouteKey { peer, path_id };
        if self.table.get_mut(&prefix).is_some_and(|e| e.remove(key)) {
            if let Some(p) = self.peer_mut(peer) {
                p.counters.received -= 1;
                p.received[Family::of(&prefix) as usize] -= 1;
            }
            self.decide(prefix, Source::Route(key));
        }
    }

    /// Decides anew after the route of `changed` came, went or changed, and marks whoever must hear of it.
    fn decide(&mut self, prefix: Prefix, changed: Source) {
        let Some(entry) = self.table.get(&prefix) else {
            return;
        };
        let before = entry.best;
        let best = entry.select(|route| self.path(route), self.prefer_oldest);
        if let Some(entry) = self.table.get_mut(&prefix) {
            entry.best = best;
        }
        if before != best || best == Some(changed) {
            self.unreported.insert(prefix);
            let family = Family::of(&prefix);
            for p in self.peers.iter_mut().flatten().filter(|p| p.follows_best(family)) {
                p.out.mark(prefix);
            }
        }
        self.drop_if_vacant(prefix);
    }

    fn path<'a>(&'a self, route: &'a Route) -> decision::Path<'a> {
        let p = self.peer(route.peer);
        decision::Path {
            attributes: &route.attributes,
            local_pref: route.local_pref,
            neighbor: route.attributes.as_path.neighbor().or(p.map(|p| p.config.asn)).unwrap_or(self.own.asn),
            external: p.is_some_and(|p| !p.config.is_internal(self.own)),
            igp_metric: 0,
            router_id: p.map_or(Ipv4Addr::UNSPECIFIED, |p| p.router_id),
            peer_address: p.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |p| p.config.address),
            learned: route.learned,
        }
    }

    fn drop_if_vacant(&mut self, prefix: Prefix) {
        if self.table.get(&prefix).is_some_and(Entry::is_vacant) {
            self.table.remove(&prefix);
        }
    }

    /// Announces to one neighbour, now or once its session is up; replaces an earlier one of the same prefix.
    pub fn announce(&mut self, peer: PeerId, announcement: Announcement) {
        let Some(p) = self.peer_mut(peer) else { return };
        let prefix = announcement.prefix;
        p.own.insert(prefix, announcement);
        p.mark_own(prefix);
    }

    /// Takes back what [`Rib::announce`] announced.
    pub fn withdraw(&mut self, peer: PeerId, prefix: Prefix) {
        let Some(p) = self.peer_mut(peer) else { return };
        if p.own.remove(&prefix).is_some() {
            p.mark_own(prefix);
        }
    }

    /// Originates a prefix towards all neighbours with [`Export::GaoRexford`]; it is then always the best route.
    pub fn originate(&mut self, prefix: Prefix) {
        let entry = self.table.entry(prefix).or_default();
        if !std::mem::replace(&mut entry.own, true) {
            self.decide(prefix, Source::Own);
        }
    }

    /// Takes back what [`Rib::originate`] originated.
    pub fn unoriginate(&mut self, prefix: Prefix) {
        let Some(entry) = self.table.get_mut(&prefix) else {
            return;
        };
        if std::mem::replace(&mut entry.own, false) {
            self.decide(prefix, Source::Own);
        }
    }

    /// The next prefix whose best route differs from what was last told here: the neighbour to forward to, or
    /// `None` when there is none or the prefix is our own.
    pub fn poll_best(&mut self) -> Option<(Prefix, Option<(NextHop, PeerId)>)> {
        while let Some(prefix) = self.unreported.pop_first() {
            let Some(entry) = self.table.get_mut(&prefix) else {
                continue;
            };
            let best = entry.forwarding();
            let before = std::mem::replace(&mut entry.reported, best);
            self.drop_if_vacant(prefix);
            if before != best {
                return Some((prefix, best));
            }
        }
        None
    }

    /// Whether [`Rib::poll_best`] may have something to tell, or [`Rib::poll_changes`] of any neighbour.
    pub fn is_settled(&self) -> bool {
        self.unreported.is_empty() && self.peers.iter().flatten().all(|p| p.out.pending() == 0)
    }

    /// The neighbour has given more prefixes of a family than its limit, [`PeerConfig::max_prefix`] or
    /// [`MAX_PREFIXES`]: end the session with Cease, maximum number of prefixes reached (RFC 4486 §4). Family and limit,
    /// until the session is over.
    pub fn over_limit(&self, peer: PeerId) -> Option<(AddressFamily, u32)> {
        self.peer(peer)?.over_limit
    }
}
