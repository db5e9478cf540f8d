//! Adj-RIB-In, Loc-RIB and Adj-RIB-Out of one speaker (RFC 4271 §3.2, §9).
//!
//! [`Rib`] takes the UPDATEs of each neighbour and the announcements of our own, keeps the best route of each
//! prefix by the [`decision`] process, and owes each neighbour the difference between what it should hold and
//! what it was sent. Outputs are drained to their net effect: [`Rib::poll_best`] for the forwarding table,
//! [`Rib::poll_changes`] for one neighbour. An announcement taken back before anyone polled is never sent.
//!
//! One table holds the candidates of a prefix side by side, so Adj-RIB-In and Loc-RIB are two views of it.
//! Attributes are interned. A session carries the family of its neighbour's address; other routes are ignored.
//!
//! Deliberately absent: route reflection, confederations, add-path, aggregation, MRAI (a withdrawal must not
//! wait), and next hop resolution: neighbours are directly connected, so all interior costs are equal.
//!
//! RFC 1997 (well-known communities), 4271 §9, 4360, 4456 (received attributes), 5004, 8326.

pub mod decision;
mod entry;
mod out;
mod policy;
mod pool;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ubique_model::policy::Announcement;
use ubique_model::{Family, Prefix};

use self::decision::{Ineligible, Step};
use self::entry::{Entry, Route, Source};
use self::out::AdjOut;
pub use self::out::Change;
pub use self::policy::DEFAULT_LOCAL_PREF;
use self::policy::Own;
use self::pool::Pool;
use super::attributes::{Attributes, NextHop};
use super::message::{Nlri, Update};
use super::speaker::{Export, Import, Local, PeerConfig, PeerId, SpeakerConfig};
use crate::Time;

/// Prefixes one neighbour may give us when its routes are eligible: twice the Internet's IPv4 table of 2026.
/// More end the session with Cease, maximum number of prefixes reached (RFC 4486 §4).
pub const MAX_PREFIXES: usize = 2_000_000;

/// Prefixes kept of a neighbour that is only observed. Beyond it only routes to prefixes we announce are kept: an
/// announcing edge that is sent a full table must neither grow with it nor give up its session.
pub const MAX_OBSERVED_PREFIXES: usize = 20_000;

/// A route to a prefix and how it fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Who sent it; `None`: our own.
    pub peer: Option<PeerId>,
    /// Its attributes, as received.
    pub attributes: Arc<Attributes>,
    /// Degree of preference import policy gave it.
    pub local_pref: u32,
    /// Its next hop; `None`: our own.
    pub next_hop: Option<NextHop>,
    /// It is the best.
    pub best: bool,
    /// Why it is not.
    pub step: Option<Step>,
}

/// A route of Adj-RIB-In.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Destination.
    pub prefix: Prefix,
    /// Attributes, as received.
    pub attributes: &'a Arc<Attributes>,
    /// Next hop, as received.
    pub next_hop: NextHop,
    /// When it was learned.
    pub learned: Time,
    /// Why it cannot become the best route.
    pub ineligible: Option<Ineligible>,
}

/// A route of Adj-RIB-Out.
#[derive(Clone, Copy, Debug)]
pub struct Advertised<'a> {
    /// Destination.
    pub prefix: Prefix,
    /// Attributes, as sent.
    pub attributes: &'a Arc<Attributes>,
    /// Next hop, as sent.
    pub next_hop: NextHop,
}

/// Numbers of one neighbour, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Routes in Adj-RIB-In now.
    pub received: usize,
    /// Routes in Adj-RIB-Out now.
    pub advertised: usize,
    /// Prefixes whose change has not been polled yet.
    pub pending: usize,
    /// Announced prefixes taken in since the start.
    pub announcements_in: u64,
    /// Withdrawn prefixes taken in since the start, known or not.
    pub withdrawals_in: u64,
    /// Announced prefixes given out since the start.
    pub announcements_out: u64,
    /// Withdrawn prefixes given out since the start.
    pub withdrawals_out: u64,
    /// Announced prefixes not kept since the start: of the other family, or beyond the limit.
    pub ignored: u64,
}

/// An established session.
#[derive(Clone, Copy, Debug)]
struct Session {
    local: Local,
    router_id: Ipv4Addr,
}

#[derive(Debug)]
struct Peer {
    config: PeerConfig,
    family: Family,
    session: Option<Session>,
    /// Announcements made for it alone; they outlive the session.
    own: BTreeMap<Prefix, Announcement>,
    out: AdjOut,
    counters: Counters,
    over_limit: bool,
}

impl Peer {
    /// Whether it gets the best routes.
    fn follows_best(&self, family: Family) -> bool {
        self.session.is_some() && self.config.export == Export::GaoRexford && self.family == family
    }
}

/// The routing information base of one speaker.
#[derive(Debug)]
pub struct Rib {
    own: Own,
    prefer_oldest: bool,
    peers: Vec<Peer>,
    table: BTreeMap<Prefix, Entry>,
    /// Prefixes whose best route may differ from what [`Rib::poll_best`] last told.
    unreported: BTreeSet<Prefix>,
    pool: Pool,
    max_prefixes: usize,
    max_observed: usize,
}

impl Rib {
    /// An empty RIB; all sessions are down.
    pub fn new(config: SpeakerConfig) -> Rib {
        let peers = config.peers.into_iter().map(|config| Peer {
            family: Family::of_address(config.address),
            config,
            session: None,
            own: BTreeMap::new(),
            out: AdjOut::default(),
            counters: Counters::default(),
            over_limit: false,
        });
        Rib {
            own: Own { asn: config.asn, router_id: config.router_id },
            prefer_oldest: config.prefer_oldest,
            peers: peers.collect(),
            table: BTreeMap::new(),
            unreported: BTreeSet::new(),
            pool: Pool::default(),
            max_prefixes: MAX_PREFIXES,
            max_observed: MAX_OBSERVED_PREFIXES,
        }
    }

    fn peer(&self, peer: PeerId) -> Option<&Peer> {
        self.peers.get(peer.0 as usize)
    }

    fn peer_mut(&mut self, peer: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(peer.0 as usize)
    }

    /// The session is established: everything the neighbour should hold is now owed to it. `local` are
    /// our addresses on it, `router_id` the neighbour's BGP identifier.
    pub fn peer_up(&mut self, _now: Time, peer: PeerId, local: impl Into<Local>, router_id: Ipv4Addr) {
        self.peer_down(peer);
        let Some(p) = self.peers.get_mut(peer.0 as usize) else {
            return;
        };
        p.session = Some(Session { local: local.into(), router_id });
        let family = p.family;
        let of_family = |prefix: &&Prefix| Family::of(prefix) == family;
        p.out.mark_all(p.own.keys().filter(of_family));
        if p.follows_best(family) {
            p.out.mark_all(self.table.iter().filter(|(_, e)| e.best.is_some()).map(|(p, _)| p).filter(of_family));
        }
    }

    /// The session ended: its routes are gone, and what was sent over it no longer counts.
    pub fn peer_down(&mut self, peer: PeerId) {
        let Some(p) = self.peer_mut(peer) else { return };
        if p.session.take().is_none() {
            return;
        }
        p.out = AdjOut::default();
        p.over_limit = false;
        p.counters.received = 0;
        let lost: Vec<Prefix> =
            self.table.iter_mut().filter_map(|(prefix, e)| e.remove(peer).then_some(*prefix)).collect();
        for prefix in lost {
            self.decide(prefix, Source::Peer(peer));
        }
    }

    /// Routes from an established neighbour. Withdrawals first, so that a prefix in both lists stays announced
    /// (RFC 4271 §4.3).
    pub fn update(&mut self, now: Time, peer: PeerId, update: &Update) {
        let Some(p) = self.peers.get_mut(peer.0 as usize) else {
            return;
        };
        let Some(session) = p.session else { return };
        p.counters.withdrawals_in += update.withdrawn.len() as u64;
        for &Nlri { prefix, .. } in &update.withdrawn {
            self.forget(peer, prefix);
        }
        let Some(attributes) = &update.attributes else {
            return;
        };
        let config = &self.peers[peer.0 as usize].config;
        let cleaned = if config.is_internal(self.own) { None } else { policy::without_internal(attributes) };
        let attributes = match cleaned {
            Some(cleaned) => self.pool.intern_new(cleaned),
            None => self.pool.intern(attributes),
        };
        let local_pref = policy::preference(self.own, config, &attributes);
        for reach in &update.announced {
            let config = &self.peers[peer.0 as usize].config;
            let ineligible = policy::ineligible(self.own, config, session.local.address, &attributes, reach.next_hop);
            for &Nlri { prefix, .. } in &reach.prefixes {
                let route = Route {
                    peer,
                    attributes: Arc::clone(&attributes),
                    next_hop: reach.next_hop,
                    learned: now,
                    local_pref,
                    ineligible,
                };
                self.learn(prefix, route);
            }
        }
    }

    /// Takes one route into the table, in place of the neighbour's earlier one (RFC 4271 §9).
    fn learn(&mut self, prefix: Prefix, route: Route) {
        let peer = route.peer;
        let known = self.table.get(&prefix).is_some_and(|e| e.route(peer).is_some());
        if !self.admits(peer, prefix, known) {
            return;
        }
        let changed = self.table.entry(prefix).or_default().insert(route);
        let counters = &mut self.peers[peer.0 as usize].counters;
        counters.announcements_in += 1;
        counters.received += usize::from(!known);
        if changed {
            self.decide(prefix, Source::Peer(peer));
        }
    }

    /// Whether the neighbour's limit and family let a route in; counts it when not.
    fn admits(&mut self, peer: PeerId, prefix: Prefix, known: bool) -> bool {
        let p = &self.peers[peer.0 as usize];
        let wrong_family = Family::of(&prefix) != p.family;
        let observed = p.config.import == Import::Observe;
        let limit = if observed { self.max_observed } else { self.max_prefixes };
        let over = !known && !wrong_family && p.counters.received >= limit;
        let kept = observed && over && self.peers.iter().any(|p| p.own.contains_key(&prefix));
        let refused = wrong_family || (over && !kept);
        let p = &mut self.peers[peer.0 as usize];
        p.over_limit |= over && !observed;
        p.counters.ignored += u64::from(refused);
        !refused
    }

    fn forget(&mut self, peer: PeerId, prefix: Prefix) {
        if self.table.get_mut(&prefix).is_some_and(|e| e.remove(peer)) {
            self.peers[peer.0 as usize].counters.received -= 1;
            self.decide(prefix, Source::Peer(peer));
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
            for p in self.peers.iter_mut().filter(|p| p.follows_best(family)) {
                p.out.mark(prefix);
            }
        }
        self.drop_if_vacant(prefix);
    }

    fn path<'a>(&self, route: &'a Route) -> decision::Path<'a> {
        let p = &self.peers[route.peer.0 as usize];
        decision::Path {
            attributes: &route.attributes,
            local_pref: route.local_pref,
            neighbor: route.attributes.as_path.neighbor().unwrap_or(p.config.asn),
            external: !p.config.is_internal(self.own),
            igp_metric: 0,
            router_id: p.session.map_or(Ipv4Addr::UNSPECIFIED, |s| s.router_id),
            peer_address: p.config.address,
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
        self.unreported.is_empty() && self.peers.iter().all(|p| p.out.pending() == 0)
    }

    /// All routes to a prefix, the best first, the others as they would follow were those before them to go, the
    /// ineligible last.
    pub fn candidates(&self, prefix: Prefix) -> Vec<Candidate> {
        let Some(entry) = self.table.get(&prefix) else {
            return vec![];
        };
        entry.candidates(|route| self.path(route), self.prefer_oldest)
    }

    /// The best route of each prefix that has one, with its neighbour (`None`: our own).
    pub fn best_routes(&self) -> impl Iterator<Item = (Prefix, Option<PeerId>)> + '_ {
        self.table.iter().filter_map(|(prefix, e)| e.best.map(|best| (*prefix, best.peer())))
    }

    /// Adj-RIB-In of a neighbour.
    pub fn received(&self, peer: PeerId) -> impl Iterator<Item = Received<'_>> + '_ {
        self.table.iter().filter_map(move |(prefix, e)| {
            e.route(peer).map(|r| Received {
                prefix: *prefix,
                attributes: &r.attributes,
                next_hop: r.next_hop,
                learned: r.learned,
                ineligible: r.ineligible,
            })
        })
    }

    /// The neighbour has given more prefixes than [`MAX_PREFIXES`]: end the session with Cease, maximum number of
    /// prefixes reached (RFC 4486 §4). Holds until [`Rib::peer_down`].
    pub fn over_limit(&self, peer: PeerId) -> bool {
        self.peer(peer).is_some_and(|p| p.over_limit)
    }

    /// Numbers of a neighbour; all zero for an unknown one.
    pub fn counters(&self, peer: PeerId) -> Counters {
        self.peer(peer).map_or_else(Counters::default, |p| Counters {
            advertised: p.out.len(),
            pending: p.out.pending(),
            ..p.counters
        })
    }
}
