//! Random operations against a naive model that recomputes everything from scratch after each one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ubique_model::policy::Announcement;
use ubique_model::{Asn, Community, Family, Prefix, Relation};

use super::common::*;
use crate::Time;
use crate::bgp::attributes::{AsPath, Attributes, NextHop, Origin};
use crate::bgp::family::{AddressFamilies, AddressFamily};
use crate::bgp::message::{Nlri, Reach, Role, Update};
use crate::bgp::rib::{Rib, Stale};
use crate::bgp::speaker::{Export, GracefulRestartConfig, Import, NextHopConfig, PeerConfig, PeerId, SpeakerConfig};
use crate::rng::Rng;

const SEQUENCES: u64 = 1000;
const OPERATIONS: usize = 60;
const OWN_ID: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
const ROLES: [Role; 5] = [Role::Provider, Role::RouteServer, Role::RouteServerClient, Role::Customer, Role::Peer];
const NOPEER: Community = Community(0xFFFF_FF04);
const BLACKHOLE: Community = Community(0xFFFF_029A);
const LLGR_STALE: Community = Community(0xFFFF_0006);
const NO_LLGR: Community = Community(0xFFFF_0007);

#[derive(Clone, PartialEq)]
struct Known {
    attributes: Attributes,
    next_hop: NextHop,
    learned: Time,
    stale: Stale,
}

/// A route among all: neighbour and path identifier, and what is known of it.
type Heard<'a> = (usize, u32, &'a Known);

/// What the world has said so far, nothing derived.
struct Model {
    peers: Vec<PeerConfig>,
    ids: Vec<Ipv4Addr>,
    up: Vec<bool>,
    prefer_oldest: bool,
    /// Who announced the capability of RFC 9494.
    long_lived: Vec<bool>,
    heard: Vec<BTreeMap<(Prefix, u32), Known>>,
    made: Vec<BTreeMap<Prefix, Announcement>>,
    originated: BTreeSet<Prefix>,
}

impl Model {
    fn internal(&self, peer: usize) -> bool {
        self.peers[peer].asn == OWN_AS
    }

    fn in_epochs(&self, peer: usize) -> bool {
        let p = &self.peers[peer];
        p.import == Import::Observe && p.graceful_restart.is_none_or(|restart| restart.long_lived.is_none())
    }

    /// Our role towards an external neighbour.
    fn role(&self, peer: usize) -> Option<Role> {
        if self.internal(peer) { None } else { self.peers[peer].role }
    }

    /// RFC 9234 §5, ingress.
    fn leaks(&self, peer: usize, a: &Attributes) -> bool {
        match (self.role(peer), a.only_to_customer) {
            (Some(Role::Provider | Role::RouteServer), Some(_)) => true,
            (Some(Role::Peer), Some(otc)) => otc != self.peers[peer].asn,
            _ => false,
        }
    }

    fn preference(&self, peer: usize, a: &Attributes) -> u32 {
        match (self.internal(peer), self.peers[peer].relation) {
            (true, _) => a.local_pref.unwrap_or(100),
            _ if a.communities.contains(&Community::GRACEFUL_SHUTDOWN) => 0,
            (_, Relation::Customer) => 300,
            (_, Relation::Peer | Relation::RouteServer) => 200,
            (_, Relation::Internal | Relation::Transit) => 100,
        }
    }

    fn routes<'a>(&'a self, prefix: &'a Prefix) -> impl Iterator<Item = Heard<'a>> {
        self.heard.iter().enumerate().flat_map(move |(peer, heard)| {
            let of_prefix = heard.iter().filter(move |((p, _), _)| p == prefix);
            of_prefix.map(move |((_, path_id), known)| (peer, *path_id, known))
        })
    }

    fn eligible<'a>(&'a self, prefix: &'a Prefix) -> Vec<Heard<'a>> {
        let usable = self.routes(prefix).filter(|(peer, _, known)| {
            let a = &known.attributes;
            self.peers[*peer].import == Import::GaoRexford
                && !a.as_path.ases().any(|asn| asn == OWN_AS)
                && a.originator_id != Some(OWN_ID)
                && !a.cluster_list.contains(&OWN_ID)
                && known.next_hop.address() != IpAddr::V4(local(*peer as u32))
                && !self.leaks(*peer, a)
                && (self.internal(*peer) || !a.communities.contains(&BLACKHOLE))
        });
        usable.collect()
    }

    /// RFC 4271 §9.1.2, written as a sequence of filters over copies.
    fn best<'a>(&'a self, prefix: &'a Prefix) -> Option<Heard<'a>> {
        let mut left = self.eligible(prefix);
        if left.iter().any(|(_, _, k)| !long_lived(k)) {
            left.retain(|(_, _, k)| !long_lived(k));
        }
        let most = left.iter().map(|(p, _, k)| self.preference(*p, &k.attributes)).max()?;
        left.retain(|(p, _, k)| self.preference(*p, &k.attributes) == most);
        let shortest = left.iter().map(|(_, _, k)| k.attributes.as_path.hops()).min()?;
        left.retain(|(_, _, k)| k.attributes.as_path.hops() == shortest);
        let origin = left.iter().map(|(_, _, k)| k.attributes.origin as u8).min()?;
        left.retain(|(_, _, k)| k.attributes.origin as u8 == origin);
        let group = |p: usize, k: &Known| k.attributes.as_path.neighbor().unwrap_or(self.peers[p].asn);
        let before = left.clone();
        left.retain(|(p, _, k)| {
            !before.iter().any(|(q, _, other)| {
                group(*p, k) == group(*q, other) && other.attributes.med.unwrap_or(0) < k.attributes.med.unwrap_or(0)
            })
        });
        if left.iter().any(|(p, ..)| !self.internal(*p)) {
            left.retain(|(p, ..)| !self.internal(*p));
            if self.prefer_oldest {
                let oldest = left.iter().map(|(_, _, k)| k.learned).min()?;
                let first = left.iter().find(|(_, _, k)| k.learned == oldest).map(|(p, _, k)| self.id(*p, k));
                left.retain(|(p, _, k)| k.learned == oldest || Some(self.id(*p, k)) == first);
            }
        }
        left.into_iter().min_by_key(|(p, path_id, k)| {
            (self.id(*p, k), k.attributes.cluster_list.len(), self.peers[*p].address, *path_id)
        })
    }

    fn id(&self, peer: usize, known: &Known) -> Ipv4Addr {
        known.attributes.originator_id.unwrap_or(self.ids[peer])
    }

    /// What neighbour `to` must hold for a prefix.
    fn wanted(&self, to: usize, prefix: &Prefix) -> Option<(Attributes, NextHop)> {
        let (attributes, kept) = self.exported(to, prefix)?;
        let next_hop = kept.unwrap_or(NextHop::V4(local(to as u32)));
        (next_hop.address() != self.peers[to].address).then_some((attributes, next_hop))
    }

    fn exported(&self, to: usize, prefix: &Prefix) -> Option<(Attributes, Option<NextHop>)> {
        let internal = self.internal(to);
        let role = self.role(to);
        let mark = matches!(role, Some(Role::Provider | Role::Peer | Role::RouteServer)).then_some(OWN_AS);
        let own = |times: usize, med| Attributes {
            as_path: AsPath::sequence(vec![OWN_AS; if internal { 0 } else { times }]),
            med,
            local_pref: internal.then_some(100),
            only_to_customer: mark,
            ..Attributes::originated()
        };
        if let Some(a) = self.made[to].get(prefix) {
            return Some((own(1 + usize::from(a.prepend), a.med), None));
        }
        if self.peers[to].export == Export::OwnOnly {
            return None;
        }
        if self.originated.contains(prefix) {
            return Some((own(1, None), None));
        }
        let (from, _, known) = self.best(prefix)?;
        if from == to || !self.allows(from, to, known) {
            return None;
        }
        let mut a = known.attributes.clone();
        if known.stale == Stale::LongLived && !a.communities.contains(&LLGR_STALE) {
            a.communities.push(LLGR_STALE);
        }
        if internal {
            a.local_pref = Some(self.preference(from, &known.attributes));
            let reflected = self.internal(from);
            if reflected {
                a.originator_id = Some(self.id(from, known));
                a.cluster_list.insert(0, OWN_ID);
            }
            return Some((a, (reflected || self.peers[to].next_hop.unchanged).then_some(known.next_hop)));
        }
        let ases: Vec<Asn> = std::iter::once(OWN_AS).chain(a.as_path.ases()).collect();
        a.as_path = AsPath::sequence(ases);
        (a.med, a.local_pref, a.originator_id, a.cluster_list) = (None, None, None, vec![]);
        a.only_to_customer = a.only_to_customer.or(mark);
        Some((a, None))
    }

    fn allows(&self, from: usize, to: usize, known: &Known) -> bool {
        let knows_long_lived = self.long_lived[to];
        let (from, to, inside, outside) = (&self.peers[from], &self.peers[to], self.internal(from), !self.internal(to));
        let barred = |c| known.attributes.communities.contains(&c);
        let ours = inside && known.attributes.as_path.hops() == 0;
        if barred(Community::NO_ADVERTISE) || (long_lived(known) && !knows_long_lived) {
            return false;
        }
        if !outside {
            return !inside || from.route_reflector_client || to.route_reflector_client;
        }
        let marked = known.attributes.only_to_customer.is_some();
        let upward = matches!(to.role, Some(Role::Customer | Role::Peer | Role::RouteServerClient));
        let fenced = barred(NOPEER) && matches!(to.relation, Relation::Peer | Relation::RouteServer);
        let stays = barred(Community::NO_EXPORT) || barred(BLACKHOLE) || fenced || (marked && upward);
        !stays && (ours || from.relation == Relation::Customer || to.relation == Relation::Customer)
    }
}

fn long_lived(known: &Known) -> bool {
    known.stale == Stale::LongLived || known.attributes.communities.contains(&LLGR_STALE)
}

/// A RIB, the model, and what the neighbours and the forwarding table hold after what they were told.
struct Bench {
    rib: Rib,
    model: Model,
    held: Vec<BTreeMap<Prefix, (Arc<Attributes>, NextHop)>>,
    /// Prefixes each neighbour may be told twice, after its refresh.
    repeats: Vec<BTreeSet<Prefix>>,
    table: BTreeMap<Prefix, (NextHop, PeerId)>,
    prefixes: Vec<Prefix>,
    now: Time,
    rng: Rng,
    log: String,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        let mut rng = Rng::new(seed);
        let count = 2 + rng.below(4) as u32;
        let peers: Vec<PeerConfig> = (0..count).map(|i| random_peer(&mut rng, i)).collect();
        let config = SpeakerConfig {
            peers: peers.clone(),
            prefer_oldest: rng.below(3) == 0,
            ..SpeakerConfig::new(OWN_AS, OWN_ID, 0)
        };
        let n = count as usize;
        Bench {
            model: Model {
                peers,
                // Now and then two sessions with one router.
                ids: (0..count).map(|i| router_id(i / (1 + (seed % 2) as u32))).collect(),
                up: vec![false; n],
                prefer_oldest: config.prefer_oldest,
                long_lived: (0..n).map(|_| rng.below(2) == 0).collect(),
                heard: vec![BTreeMap::new(); n],
                made: vec![BTreeMap::new(); n],
                originated: BTreeSet::new(),
            },
            rib: Rib::new(config),
            held: vec![BTreeMap::new(); n],
            repeats: vec![BTreeSet::new(); n],
            table: BTreeMap::new(),
            prefixes: (0..4).map(|i| prefix(&format!("10.{i}.0.0/16"))).collect(),
            now: Time::ZERO,
            rng,
            log: String::new(),
        }
    }

    fn operate(&mut self) {
        self.now = Time(self.now.0 + self.rng.below(3));
        let peer = self.rng.below(self.model.peers.len() as u64) as usize;
        let id = PeerId(peer as u32);
        let prefix = self.prefixes[self.rng.below(4) as usize];
        let operation = self.rng.below(30);
        self.log += &format!("{operation} of {peer} on {prefix}\n");
        match operation {
            0 | 1 => self.session_up(peer),
            2 if self.rng.below(2) == 0 => {
                self.model.heard[peer].clear();
                self.session_over(peer);
                self.rib.peer_down(id);
            }
            3 | 4 => {
                let (prepend, med) = (self.rng.below(3) as u8, Some(self.rng.below(3) as u32));
                let announcement = Announcement { prefix, prepend, med, ..own("0.0.0.0/0") };
                self.model.made[peer].insert(prefix, announcement.clone());
                self.rib.announce(id, announcement);
            }
            5 => {
                self.model.made[peer].remove(&prefix);
                self.rib.withdraw(id, prefix);
            }
            6 if self.rng.below(3) == 0 => {
                self.model.originated.insert(prefix);
                self.rib.originate(prefix);
            }
            7 | 8 => {
                self.repeats[peer].extend(self.held[peer].keys());
                self.rib.refresh(id, AddressFamily::Ipv4Unicast);
            }
            9 => {
                let heard = &mut self.model.heard[peer];
                // In the middle of a refresh nothing is stale for good.
                let refreshing = self.rng.below(2) == 0;
                heard.retain(|_, k| k.stale != Stale::Restart || refreshing);
                heard.values_mut().for_each(|k| k.stale = k.stale.max(Stale::Restart));
                self.session_over(peer);
                let refreshing = if refreshing { AddressFamilies::UNICAST } else { AddressFamilies::NONE };
                self.rib.peer_stale(id, AddressFamilies::UNICAST, refreshing);
            }
            10 => {
                self.model.heard[peer].values_mut().for_each(|k| k.stale = k.stale.max(Stale::Restart));
                self.rib.mark_stale(id, AddressFamily::Ipv4Unicast);
            }
            11 => {
                self.model.heard[peer].retain(|_, k| k.stale == Stale::No);
                self.rib.sweep_stale(id, AddressFamily::Ipv4Unicast);
            }
            // An observed neighbour's routes become long-lived only if that is configured.
            12 if !self.model.in_epochs(peer) => {
                let heard = &mut self.model.heard[peer];
                heard.retain(|_, k| k.stale == Stale::No || !k.attributes.communities.contains(&NO_LLGR));
                heard.values_mut().filter(|k| k.stale != Stale::No).for_each(|k| k.stale = Stale::LongLived);
                self.rib.long_lived_stale(id, AddressFamily::Ipv4Unicast);
            }
            13 | 14 => self.rib.reap(self.rng.below(4) as usize),
            _ => self.update(peer),
        }
    }

    fn session_over(&mut self, peer: usize) {
        self.model.up[peer] = false;
        self.held[peer].clear();
        self.repeats[peer].clear();
    }

    fn session_up(&mut self, peer: usize) {
        if std::mem::replace(&mut self.model.up[peer], true) {
            self.model.heard[peer].clear();
        }
        self.held[peer].clear();
        self.repeats[peer].clear();
        let address = IpAddr::V4(local(peer as u32));
        let v4 = AddressFamilies::only(Family::Ipv4);
        let id = self.model.ids[peer];
        self.rib.peer_up(PeerId(peer as u32), address, id, v4, AddressFamilies::NONE, self.model.long_lived[peer]);
    }

    fn update(&mut self, peer: usize) {
        let count = self.rng.below(3) as usize;
        let withdrawn: Vec<Prefix> = (0..count).map(|_| self.prefixes[self.rng.below(4) as usize]).collect();
        let mut announced = self.prefixes.clone();
        announced.retain(|p| !withdrawn.contains(p) && self.rng.below(2) == 0);
        let internal = self.model.internal(peer);
        let attributes = random_attributes(&mut self.rng, &self.model.peers[peer], internal);
        let next_hop = match self.rng.below(12) {
            0 => NextHop::V4(local(peer as u32)),
            1 => NextHop::V4(Ipv4Addr::new(192, 0, 2, 1 + self.rng.below(4) as u8)),
            _ => NEXT_HOP,
        };
        let path_id = self.rng.below(5).saturating_sub(2) as u32;
        if self.model.up[peer] {
            for p in &withdrawn {
                self.model.heard[peer].remove(&(*p, path_id));
            }
            let mut kept = attributes.clone();
            if !internal {
                (kept.local_pref, kept.originator_id, kept.cluster_list) = (None, None, vec![]);
                if let Some(Role::Customer | Role::Peer | Role::RouteServerClient) = self.model.role(peer) {
                    kept.only_to_customer.get_or_insert(self.model.peers[peer].asn);
                }
            }
            for p in &announced {
                let new = Known { attributes: kept.clone(), next_hop, learned: self.now, stale: Stale::No };
                let old = self.model.heard[peer].entry((*p, path_id)).or_insert_with(|| new.clone());
                if (&old.attributes, old.next_hop) != (&new.attributes, next_hop) {
                    *old = new;
                }
                old.stale = Stale::No;
            }
        }
        let nlri = |prefixes: Vec<Prefix>| prefixes.into_iter().map(|prefix| Nlri { prefix, path_id }).collect();
        let update = Update {
            withdrawn: nlri(withdrawn),
            announced: vec![Reach { next_hop, prefixes: nlri(announced) }],
            attributes: Some(Arc::new(attributes)),
            ..Update::default()
        };
        self.rib.update(self.now, PeerId(peer as u32), &update);
    }

    /// Takes what is owed, or only some of it, and holds every change against the rules.
    fn drain(&mut self, limit: usize) {
        for peer in 0..self.held.len() {
            let held = &mut self.held[peer];
            for _ in 0..limit {
                let Some(change) = self.rib.poll_changes(PeerId(peer as u32)) else {
                    break;
                };
                self.log += &format!("to {peer}: {change:?}\n");
                assert!(self.model.up[peer]);
                let told =
                    change.announced.iter().flat_map(|(a, hop, ps)| ps.iter().map(move |p| (p, Some((&**a, *hop)))));
                for (p, told) in change.withdrawn.iter().map(|p| (p, None)).chain(told) {
                    let wanted = self.model.wanted(peer, p);
                    let wanted = wanted.as_ref().map(|(a, hop)| (a, *hop));
                    assert_eq!(told, wanted, "{p} at {peer} is out of date\n{}", self.log);
                }
                for p in &change.withdrawn {
                    assert!(held.remove(p).is_some(), "{p} withdrawn, never sent\n{}", self.log);
                    self.repeats[peer].remove(p);
                }
                let Some((attributes, next_hop, prefixes)) = change.announced else {
                    continue;
                };
                assert!(!prefixes.is_empty());
                for p in prefixes {
                    let new = (Arc::clone(&attributes), next_hop);
                    let old = held.insert(p, new.clone());
                    let repeat = self.repeats[peer].remove(&p);
                    assert!(repeat || old != Some(new), "{p} twice\n{}", self.log);
                }
            }
        }
        for _ in 0..limit {
            let Some((prefix, best)) = self.rib.poll_best() else {
                break;
            };
            self.log += &format!("best of {prefix}: {best:?}\n");
            let old = match best {
                Some(best) => self.table.insert(prefix, best),
                None => self.table.remove(&prefix),
            };
            assert_ne!(old, best, "nothing new\n{}", self.log);
        }
    }

    fn compare(&self, settled: bool) {
        for p in &self.prefixes {
            let own = self.model.originated.contains(p);
            let best = if own { None } else { self.model.best(p) };
            let candidates = self.rib.candidates(*p);
            let chosen = candidates.iter().find(|c| c.best).and_then(|c| Some((c.peer?, c.path_id)));
            assert_eq!(
                chosen,
                best.map(|(peer, path_id, _)| (PeerId(peer as u32), path_id)),
                "best of {p}\n{}",
                self.log
            );
            let heard = self.model.routes(p).count();
            assert_eq!(candidates.len(), heard + usize::from(own), "{}", self.log);
            assert!(candidates.iter().all(|c| c.best == c.step.is_none()));
            if !settled {
                continue;
            }
            let forwarding = best.map(|(peer, _, known)| (known.next_hop, PeerId(peer as u32)));
            assert_eq!(self.table.get(p).copied(), forwarding, "{p} forwarded\n{}", self.log);
            for peer in (0..self.held.len()).filter(|peer| self.model.up[*peer]) {
                let wanted = self.model.wanted(peer, p);
                let held = self.held[peer].get(p).map(|(a, hop)| (&**a, *hop));
                assert_eq!(held, wanted.as_ref().map(|(a, hop)| (a, *hop)), "{p} at {peer}\n{}", self.log);
            }
        }
        for (peer, held) in self.held.iter().enumerate() {
            let id = PeerId(peer as u32);
            let told: Vec<_> = self.rib.advertised(id, None).map(|a| (a.prefix, (a.attributes, a.next_hop))).collect();
            assert!(told.iter().map(|(p, a)| (p, a)).eq(held), "Adj-RIB-Out of {peer}\n{}", self.log);
            let received: Vec<_> = self.rib.received(id, None).map(|r| ((r.prefix, r.path_id), r.stale)).collect();
            let heard = self.model.heard[peer].iter().map(|(key, known)| (*key, known.stale));
            assert!(received.iter().copied().eq(heard), "Adj-RIB-In of {peer}\n{}", self.log);
            let stale = received.iter().filter(|(_, stale)| *stale != Stale::No).count();
            assert!(super::unvouched(&self.rib, id).is_none_or(|n| n == stale), "stale of {peer}\n{}", self.log);
            let received = received.len();
            assert_eq!(self.rib.counters(id).received, received);
        }
        let stored: usize = self.model.heard.iter().map(BTreeMap::len).sum();
        assert!(super::holders(&self.rib).is_none_or(|holders| holders == stored), "offers leak\n{}", self.log);
        if settled {
            let known = |p: &&Prefix| self.model.originated.contains(p) || self.model.routes(p).next().is_some();
            assert!(self.rib.prefixes(None).eq(self.prefixes.iter().filter(known).copied()), "prefixes\n{}", self.log);
            assert!(self.rib.is_settled() && self.repeats.iter().all(BTreeSet::is_empty), "{}", self.log);
        }
    }
}

fn random_peer(rng: &mut Rng, index: u32) -> PeerConfig {
    let relations = [Relation::Customer, Relation::Peer, Relation::Transit, Relation::RouteServer, Relation::Internal];
    let relation = relations[rng.below(5) as usize];
    let internal = relation == Relation::Internal && rng.below(2) == 0;
    PeerConfig {
        // Few ASes, so that MEDs meet.
        asn: if internal { OWN_AS } else { Asn(100 * (1 + rng.below(3) as u32)) },
        import: if rng.below(3) == 0 { Import::Observe } else { Import::GaoRexford },
        export: if rng.below(6) == 0 { Export::OwnOnly } else { Export::GaoRexford },
        role: if rng.below(2) == 0 { None } else { Some(ROLES[rng.below(5) as usize]) },
        route_reflector_client: internal && rng.below(2) == 0,
        next_hop: NextHopConfig { unchanged: rng.below(2) == 0, ..NextHopConfig::default() },
        graceful_restart: (rng.below(2) == 0).then_some(GracefulRestartConfig {
            restart_time: Duration::from_secs(120),
            long_lived: (rng.below(2) == 0).then_some(Duration::from_secs(3600)),
        }),
        ..neighbor(index, relation)
    }
}

fn random_attributes(rng: &mut Rng, peer: &PeerConfig, internal: bool) -> Attributes {
    let mut ases = if internal { vec![] } else { vec![peer.asn] };
    for _ in 0..rng.below(3) {
        ases.push(if rng.below(12) == 0 { OWN_AS } else { Asn(100 * (1 + rng.below(4) as u32)) });
    }
    let communities = [
        Community(7),
        Community::NO_EXPORT,
        Community::NO_ADVERTISE,
        Community::GRACEFUL_SHUTDOWN,
        NOPEER,
        BLACKHOLE,
        LLGR_STALE,
        NO_LLGR,
    ];
    let some_id = |rng: &mut Rng| Ipv4Addr::new(10, 0, 0, rng.below(4) as u8);
    Attributes {
        as_path: AsPath::sequence(ases),
        origin: [Origin::Igp, Origin::Igp, Origin::Egp, Origin::Incomplete][rng.below(4) as usize],
        med: (rng.below(2) == 0).then(|| rng.below(3) as u32),
        local_pref: (rng.below(3) == 0).then(|| 100 * rng.below(4) as u32),
        communities: communities.into_iter().filter(|_| rng.below(16) == 0).collect(),
        only_to_customer: (rng.below(6) == 0).then(|| Asn(100 * (1 + rng.below(3) as u32))),
        originator_id: match rng.below(8) {
            0 => Some(some_id(rng)),
            1 => Some(OWN_ID),
            _ => None,
        },
        cluster_list: (0..rng.below(6).saturating_sub(3)).map(|_| some_id(rng)).collect(),
        ..Attributes::originated()
    }
}

/// Plays one sequence; everything that was told, in order.
pub(super) fn play(seed: u64) -> String {
    let mut bench = Bench::new(seed);
    bench.log += &format!("seed {seed}\n");
    let eager = seed.is_multiple_of(2);
    for peer in 0..bench.held.len() {
        bench.session_up(peer);
    }
    for _ in 0..OPERATIONS {
        bench.operate();
        if bench.rng.below(40) == 0 {
            // As a journal does: goes on with what was written down.
            let snapshot = serde_json::to_string(&bench.rib).unwrap();
            bench.rib = serde_json::from_str(&snapshot).unwrap();
            assert_eq!(serde_json::to_string(&bench.rib).unwrap(), snapshot);
        }
        // A lazy driver lets changes pile up, and takes part of them.
        let limit = if eager { usize::MAX } else { bench.rng.below(3) as usize };
        bench.drain(limit);
        bench.compare(eager);
    }
    bench.drain(usize::MAX);
    bench.compare(true);
    // Two laps reach every prefix.
    (0..2 * bench.prefixes.len()).for_each(|_| bench.rib.reap(1));
    assert!(!bench.rib.has_gone(), "{}", bench.log);
    bench.compare(true);
    bench.log
}

#[test]
fn random_operations_equal_a_recomputation_from_scratch() {
    println!("seeds 0 to {SEQUENCES}");
    for seed in 0..SEQUENCES {
        let log = play(seed);
        if seed % 250 == 0 {
            assert_eq!(log, play(seed), "seed {seed} is not deterministic");
        }
    }
}
