//! Adj-RIB-In, Loc-RIB and Adj-RIB-Out of one speaker (RFC 4271 §3.2, §9).
//!
//! [`Rib`] takes the UPDATEs of each neighbour and the announcements of our own, keeps the best route of each
//! prefix by the [`decision`] process, and owes each neighbour the difference between what it should hold and
//! what it was sent. Outputs are drained to their net effect: [`Rib::poll_best`] for the forwarding table,
//! [`Rib::poll_changes`] for one neighbour. An announcement taken back before anyone polled is never sent.
//!
//! One table holds the candidates of a prefix side by side, so Adj-RIB-In and Loc-RIB are two views of it. What the
//! routes of a neighbour have in common is stored once, packed; a route is that, a path identifier and a time. A session carries the
//! families that were agreed on; other routes are ignored.
//!
//! `table` and `offers` store, `entry` and [`decision`] choose, `policy` says what may come in and go out, `peers` lets
//! neighbours come and go, `epoch` removes the routes of a lost full table in pieces, `out` owes them, `view` shows.
//!
//! Deliberately absent: confederations, announcing several paths, aggregation, MRAI (a withdrawal must not wait), and
//! next hop resolution: neighbours are directly connected, so all interior costs are equal.
//!
//! RFC 1997, 3765, 7999 (well-known communities), 2545, 4271 §9, 4360, 4456, 4724, 5004, 7911, 8326, 8950, 9234, 9494.

pub mod decision;
mod entry;
mod epoch;
mod offers;
mod out;
mod packed;
mod peers;
mod policy;
mod pool;
mod table;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use ubique_model::policy::Announcement;
use ubique_model::{Family, Prefix};

use self::entry::{Route, RouteKey, Source};
use self::epoch::{Epoch, Gone, depart, standing};
use self::offers::{OfferId, Offers, Terms};
pub use self::out::{Change, MAX_CHANGE};
use self::peers::Peer;
pub use self::peers::Stale;
pub use self::policy::DEFAULT_LOCAL_PREF;
use self::policy::Own;
use self::pool::Pool;
use self::table::{Slot, Table};
pub use self::view::{Advertised, Candidate, Counters, Received};
use super::attributes::NextHop;
use super::family::AddressFamily;
use super::message::{Nlri, Update};
use super::speaker::{PeerConfig, PeerId, SpeakerConfig};
use crate::Time;

/// Prefixes one neighbour may give us when its routes are eligible: twice the Internet's IPv4 table of 2026.
/// More end the session with Cease, maximum number of prefixes reached (RFC 4486 §4).
pub const MAX_PREFIXES: u32 = 2_000_000;

/// Paths to one prefix a neighbour may give us by ADD-PATH (RFC 7911); further ones are ignored. Each one takes part in
/// every decision about the prefix.
pub const MAX_PATHS: usize = 64;

/// Prefixes kept of a neighbour that is only observed. Beyond it only routes to prefixes we announce are kept: an
/// announcing edge that is sent a full table must neither grow with it nor give up its session.
pub const MAX_OBSERVED_PREFIXES: usize = 20_000;

/// Octets of attributes, packed, held of one neighbour. The Internet's IPv4 and IPv6 tables of 2026 take half of that, so that
/// there is room for both a table that is stale and its successor. A neighbour that is only observed gets no route in
/// beyond it; the session of another one ends.
pub const MAX_OCTETS: usize = 64 << 20;

/// The same for each route that may be kept of a neighbour that is only observed: twice what long paths with many
/// communities take when no two routes share them.
pub const MAX_OCTETS_PER_ROUTE: usize = 256;

/// The routing information base of one speaker.
#[derive(Debug, Serialize, Deserialize)]
pub struct Rib {
    own: Own,
    prefer_oldest: bool,
    /// Prefixes that other sites announce, too: their routes are always kept.
    scope: Vec<Prefix>,
    /// By [`PeerId`]; `None`: that number is free.
    peers: Vec<Option<Peer>>,
    table: Table,
    offers: Offers,
    /// Prefixes whose best route may differ from what [`Rib::poll_best`] last told.
    unreported: BTreeSet<Prefix>,
    epochs: Epoch,
    gone: Gone,
    #[serde(skip)]
    pool: Pool,
}

impl Rib {
    /// An empty RIB; all sessions are down.
    pub fn new(config: SpeakerConfig) -> Rib {
        let mut epochs = Epoch::default();
        Rib {
            scope: config.scope.unwrap_or_default(),
            own: Own { asn: config.asn, router_id: config.router_id },
            prefer_oldest: config.prefer_oldest,
            peers: config.peers.into_iter().map(|config| Some(Peer::new(config, epochs.next()))).collect(),
            table: Table::default(),
            offers: Offers::new(config.seed),
            unreported: BTreeSet::new(),
            epochs,
            gone: Gone::default(),
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
        let (config, epochs) = (p.config.clone(), p.held.map(|held| held.current));
        let kept = policy::received(own, &config, attributes);
        let attributes = kept.as_ref().unwrap_or(attributes);
        let local_pref = policy::preference(own, &config, attributes);
        let mut packed = vec![];
        for reach in &update.announced {
            let ineligible = policy::ineligible(own, &config, &session.local, attributes, reach.next_hop);
            packed.clear();
            packed::pack(attributes, reach.next_hop, &mut packed);
            // Mostly all of one message.
            for run in reach.prefixes.chunk_by(|a, b| Family::of(&a.prefix) == Family::of(&b.prefix)) {
                let epoch = epochs[Family::of(&run[0].prefix) as usize];
                let terms = Terms { peer, local_pref, ineligible, stale: Stale::No, epoch };
                let Some(offer) = self.offers.hold(&terms, &packed) else {
                    return;
                };
                for &nlri in run {
                    self.learn(now, nlri, offer, &terms);
                }
                self.offers.release(offer);
            }
        }
    }

    /// Takes one route into the table, in place of the neighbour's earlier one with its path identifier (RFC 4271 §9,
    /// RFC 7911 §5).
    fn learn(&mut self, now: Time, Nlri { prefix, path_id }: Nlri, offer: OfferId, terms: &Terms) {
        let key = RouteKey { peer: terms.peer, path_id };
        let mut route = Route { offer, path_id, learned: now };
        let Rib { scope, table, offers, peers, gone, .. } = self;
        let wanted = Wanted { prefix, shared: scope.contains(&prefix), octets: offers.octets(key.peer) };
        let mut news = terms.ineligible.is_none();
        match table.find(&prefix) {
            Err(vacancy) => {
                if !admits(peers, key.peer, wanted, None, false) {
                    return;
                }
                offers.share(offer);
                vacancy.fill(Slot::One(route));
            }
            Ok(slot) => {
                let (replaced, family) = (slot.route(offers, key), Family::of(&prefix));
                let before = replaced.and_then(|old| standing(peers, offers, &old, family));
                let crowded = before != Some(Stale::No) && is_crowded(peers, offers, slot, key.peer, family);
                if !admits(peers, key.peer, wanted, before, crowded) {
                    // What it replaces is no longer so (RFC 4271 §9).
                    if replaced.is_some() {
                        self.forget(key.peer, Nlri { prefix, path_id });
                    }
                    return;
                }
                let known = replaced.filter(|_| before.is_some());
                if let Some((before, same)) = known.and_then(|old| offers.terms(old.offer, offer)) {
                    // A route repeated unchanged keeps its age (RFC 5004), and nobody needs to hear of it.
                    let unchanged = same && before.vouched(terms.epoch) == *terms && before.stale != Stale::LongLived;
                    news = !unchanged && (news || before.ineligible.is_none());
                    route.learned = known.filter(|_| same).map_or(now, |old| old.learned);
                }
                offers.share(offer);
                slot.put(offers, key, route);
                if let Some(old) = replaced {
                    depart(peers, gone, offers, &old, family);
                    offers.release(old.offer);
                }
            }
        }
        if news {
            self.decide(prefix, Source::Route(key));
        }
    }

    fn forget(&mut self, peer: PeerId, Nlri { prefix, path_id }: Nlri) {
        let key = RouteKey { peer, path_id };
        let taken = self.table.get_mut(&prefix).and_then(|slot| slot.take(&self.offers, key));
        let Some(route) = taken else { return };
        let eligible = self.offers.get(route.offer).is_some_and(|offer| offer.terms.ineligible.is_none());
        depart(&mut self.peers, &mut self.gone, &self.offers, &route, Family::of(&prefix));
        self.offers.release(route.offer);
        if eligible {
            self.decide(prefix, Source::Route(key));
        } else {
            self.table.settle(&prefix);
        }
    }

    /// Decides anew after the route of `changed` came, went or changed, and marks whoever must hear of it.
    fn decide(&mut self, prefix: Prefix, changed: Source) {
        let Some(slot) = self.table.get(&prefix) else {
            return;
        };
        let (before, best) = (slot.best(), self.select(slot));
        if before != best
            && let Some(slot) = self.table.get_mut(&prefix)
        {
            slot.entry().best = best;
        }
        if before != best || best == Some(changed) {
            self.unreported.insert(prefix);
            let family = Family::of(&prefix);
            for p in self.peers.iter_mut().flatten().filter(|p| p.follows_best(family)) {
                p.out.mark(prefix);
            }
        }
        self.table.settle(&prefix);
    }

    /// Announces to one neighbour, now or once its session is up; replaces an earlier one of the same prefix.
    pub fn announce(&mut self, peer: PeerId, announcement: Announcement) {
        let Some(p) = self.peer_mut(peer) else { return };
        let prefix = announcement.prefix;
        p.own.insert(prefix, announcement);
        p.mark_own(prefix);
    }

    /// The service has these prefixes from now on: every route to them is kept.
    pub fn rescope(&mut self, scope: &[Prefix]) {
        self.scope = scope.to_vec();
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
        if !std::mem::replace(&mut self.table.slot(&prefix).entry().own, true) {
            self.decide(prefix, Source::Own);
        }
    }

    /// The next prefix whose best route differs from what was last told here: the neighbour to forward to, or
    /// `None` when there is none or the prefix is our own.
    pub fn poll_best(&mut self) -> Option<(Prefix, Option<(NextHop, PeerId)>)> {
        while let Some(prefix) = self.unreported.pop_first() {
            let Some(best) = self.table.get(&prefix).map(|slot| self.forwarding(slot)) else {
                continue;
            };
            let Some(slot) = self.table.get_mut(&prefix) else { continue };
            let before = std::mem::replace(&mut slot.entry().reported, best);
            self.table.settle(&prefix);
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

    /// The neighbour has given more than it may: end the session with a Cease (RFC 4486 §4). Until the session is over.
    pub fn over_limit(&self, peer: PeerId) -> Option<Excess> {
        self.peer(peer)?.over_limit
    }
}

/// What a neighbour has given too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Excess {
    /// Prefixes of this family; the limit is [`PeerConfig::max_prefix`] or [`MAX_PREFIXES`].
    Prefixes(AddressFamily, u32),
    /// Attributes: [`MAX_OCTETS`].
    Octets,
}

/// Whether a prefix has as many paths of a neighbour as it may have. Stale ones do not count: the neighbour may number its
/// paths anew after a restart (RFC 7911 §3); they are no more than as many again.
fn is_crowded(peers: &[Option<Peer>], offers: &Offers, slot: &Slot, peer: PeerId, family: Family) -> bool {
    if slot.routes().len() < MAX_PATHS {
        return false;
    }
    let stands = |route: &Route| standing(peers, offers, route, family);
    let vouched = slot.count(offers, peer, |route| stands(route) == Some(Stale::No));
    vouched >= MAX_PATHS || slot.count(offers, peer, |route| stands(route).is_some()) >= 2 * MAX_PATHS
}

/// A prefix that a neighbour has a route to.
#[derive(Clone, Copy)]
struct Wanted {
    prefix: Prefix,
    /// Other sites announce it, too.
    shared: bool,
    /// Octets of attributes held of the neighbour, with those of this route.
    octets: usize,
}

/// Whether a neighbour's limits and families let a route in; counts it. `before`: how stale the one is that it replaces;
/// `crowded`: there is no room for another path. Limits are for what the neighbour vouches for: after a restart it names
/// anew what is still there, stale.
fn admits(peers: &mut [Option<Peer>], peer: PeerId, wanted: Wanted, before: Option<Stale>, crowded: bool) -> bool {
    let Wanted { prefix, shared, octets } = wanted;
    let family = Family::of(&prefix);
    let watched = |peers: &[Option<Peer>]| shared || peers.iter().flatten().any(|p| p.own.contains_key(&prefix));
    let Some(p) = peers.get(peer.0 as usize).and_then(Option::as_ref) else {
        return false;
    };
    let more = before != Some(Stale::No);
    let (limit, vouched) = (p.limit(), p.held.map(|held| held.routes - held.unvouched));
    let of_family = vouched[family as usize];
    let over = more && of_family >= limit as usize;
    // A family that has a limit is counted up to it, however many routes there are of the other.
    let counted = p.config.max_prefix.map_or(0, |max| max as usize);
    let full = more && p.is_observed() && vouched.iter().sum::<usize>() >= p.config.keep && of_family >= counted;
    let heavy = octets > p.room_octets();
    let exempt = p.is_observed() && octets <= 2 * p.room_octets();
    let refused = !p.carries(family) || over || crowded || ((full || heavy) && !(exempt && watched(peers)));
    let Some(p) = peers.get_mut(peer.0 as usize).and_then(Option::as_mut) else {
        return false;
    };
    if over {
        p.over_limit.get_or_insert(Excess::Prefixes(family.into(), limit));
    } else if heavy && !p.is_observed() {
        p.over_limit.get_or_insert(Excess::Octets);
    }
    if refused {
        p.counters.ignored += 1;
    } else {
        p.counters.announcements_in += 1;
        // One that is replaced departs.
        p.counters.received += 1;
        p.held[family as usize].routes += 1;
    }
    !refused
}
