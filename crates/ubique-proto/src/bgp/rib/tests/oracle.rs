//! Random operations against a naive model that recomputes everything from scratch after each one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ubique_model::policy::Announcement;
use ubique_model::{Asn, Community, Family, Prefix, Relation};

use super::common::*;
use crate::Time;
use crate::bgp::attributes::{AsPath, Attributes, NextHop, Origin};
use crate::bgp::family::{AddressFamilies, AddressFamily};
use crate::bgp::message::{Reach, Update};
use crate::bgp::rib::Rib;
use crate::bgp::speaker::{Export, Import, PeerConfig, PeerId, SpeakerConfig};
use crate::rng::Rng;

const SEQUENCES: u64 = 2500;
const OPERATIONS: usize = 60;
const OWN_ID: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);

#[derive(Clone, PartialEq)]
struct Known {
    attributes: Attributes,
    next_hop: NextHop,
    learned: Time,
}

/// What the world has said so far, nothing derived.
struct Model {
    peers: Vec<PeerConfig>,
    ids: Vec<Ipv4Addr>,
    up: Vec<bool>,
    prefer_oldest: bool,
    heard: Vec<BTreeMap<Prefix, Known>>,
    made: Vec<BTreeMap<Prefix, Announcement>>,
    originated: BTreeSet<Prefix>,
}

impl Model {
    fn internal(&self, peer: usize) -> bool {
        self.peers[peer].asn == OWN_AS
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

    fn eligible(&self, prefix: &Prefix) -> Vec<(usize, &Known)> {
        let known = (0..self.peers.len()).filter_map(|peer| Some((peer, self.heard[peer].get(prefix)?)));
        let usable = known.filter(|(peer, known)| {
            self.peers[*peer].import == Import::GaoRexford
                && !known.attributes.as_path.ases().any(|asn| asn == OWN_AS)
                && known.attributes.originator_id != Some(OWN_ID)
                && known.next_hop.address() != IpAddr::V4(local(*peer as u32))
        });
        usable.collect()
    }

    /// RFC 4271 §9.1.2, written as a sequence of filters over copies.
    fn best(&self, prefix: &Prefix) -> Option<(usize, &Known)> {
        let mut left = self.eligible(prefix);
        let most = left.iter().map(|(p, k)| self.preference(*p, &k.attributes)).max()?;
        left.retain(|(p, k)| self.preference(*p, &k.attributes) == most);
        let shortest = left.iter().map(|(_, k)| k.attributes.as_path.hops()).min()?;
        left.retain(|(_, k)| k.attributes.as_path.hops() == shortest);
        let origin = left.iter().map(|(_, k)| k.attributes.origin as u8).min()?;
        left.retain(|(_, k)| k.attributes.origin as u8 == origin);
        let group = |p: usize, k: &Known| k.attributes.as_path.neighbor().unwrap_or(self.peers[p].asn);
        let before = left.clone();
        left.retain(|(p, k)| {
            !before.iter().any(|(q, other)| {
                group(*p, k) == group(*q, other) && other.attributes.med.unwrap_or(0) < k.attributes.med.unwrap_or(0)
            })
        });
        if left.iter().any(|(p, _)| !self.internal(*p)) {
            left.retain(|(p, _)| !self.internal(*p));
            if self.prefer_oldest {
                let oldest = left.iter().map(|(_, k)| k.learned).min()?;
                let first = left.iter().find(|(_, k)| k.learned == oldest).map(|(p, _)| self.ids[*p]);
                left.retain(|(p, k)| k.learned == oldest || Some(self.ids[*p]) == first);
            }
        }
        left.into_iter().min_by_key(|(p, k)| {
            let id = k.attributes.originator_id.unwrap_or(self.ids[*p]);
            (id, k.attributes.cluster_list.len(), self.peers[*p].address)
        })
    }

    /// What neighbour `to` must hold for a prefix.
    fn wanted(&self, to: usize, prefix: &Prefix) -> Option<Attributes> {
        let internal = self.internal(to);
        if let Some(a) = self.made[to].get(prefix) {
            let times = if internal { 0 } else { 1 + usize::from(a.prepend) };
            return Some(Attributes {
                as_path: AsPath::sequence(vec![OWN_AS; times]),
                med: a.med,
                local_pref: internal.then_some(100),
                ..Attributes::originated()
            });
        }
        if self.peers[to].export == Export::OwnOnly {
            return None;
        }
        if self.originated.contains(prefix) {
            let as_path = AsPath::sequence((!internal).then_some(OWN_AS));
            return Some(Attributes { as_path, local_pref: internal.then_some(100), ..Attributes::originated() });
        }
        let (from, known) = self.best(prefix)?;
        let barred = |c| known.attributes.communities.contains(&c);
        let ours = self.internal(from) && known.attributes.as_path.hops() == 0;
        let upward = ours || self.peers[from].relation == Relation::Customer;
        let allowed = if internal {
            !self.internal(from)
        } else {
            (upward || self.peers[to].relation == Relation::Customer) && !barred(Community::NO_EXPORT)
        };
        if from == to || !allowed || barred(Community::NO_ADVERTISE) {
            return None;
        }
        let mut a = known.attributes.clone();
        if internal {
            a.local_pref = Some(self.preference(from, &known.attributes));
        } else {
            let ases: Vec<Asn> = std::iter::once(OWN_AS).chain(a.as_path.ases()).collect();
            a.as_path = AsPath::sequence(ases);
            (a.med, a.local_pref, a.originator_id, a.cluster_list) = (None, None, None, vec![]);
        }
        Some(a)
    }
}

/// A RIB, the model, and what the neighbours and the forwarding table hold after what they were told.
struct Bench {
    rib: Rib,
    model: Model,
    held: Vec<BTreeMap<Prefix, Arc<Attributes>>>,
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
        let operation = self.rng.below(24);
        self.log += &format!("{operation} of {peer} on {prefix}\n");
        match operation {
            0 | 1 => self.session_up(peer),
            2 if self.rng.below(2) == 0 => {
                self.model.up[peer] = false;
                self.model.heard[peer].clear();
                self.held[peer].clear();
                self.repeats[peer].clear();
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
            6 => {
                self.model.originated.insert(prefix);
                self.rib.originate(prefix);
            }
            7 => {
                self.model.originated.remove(&prefix);
                self.rib.unoriginate(prefix);
            }
            8 => {
                self.repeats[peer].extend(self.held[peer].keys());
                self.rib.refresh(id, AddressFamily::Ipv4Unicast);
            }
            _ => self.update(peer),
        }
    }

    fn session_up(&mut self, peer: usize) {
        self.model.up[peer] = true;
        self.model.heard[peer].clear();
        self.held[peer].clear();
        self.repeats[peer].clear();
        let address = IpAddr::V4(local(peer as u32));
        let v4 = AddressFamilies::only(Family::Ipv4);
        self.rib.peer_up(self.now, PeerId(peer as u32), address, self.model.ids[peer], v4, AddressFamilies::NONE);
    }

    fn update(&mut self, peer: usize) {
        let count = self.rng.below(3) as usize;
        let withdrawn: Vec<Prefix> = (0..count).map(|_| self.prefixes[self.rng.below(4) as usize]).collect();
        let mut announced = self.prefixes.clone();
        announced.retain(|p| !withdrawn.contains(p) && self.rng.below(2) == 0);
        let internal = self.model.internal(peer);
        let attributes = random_attributes(&mut self.rng, &self.model.peers[peer], internal);
        let to_us = self.rng.below(12) == 0;
        let next_hop = if to_us { NextHop::V4(local(peer as u32)) } else { NEXT_HOP };
        if self.model.up[peer] {
            for p in &withdrawn {
                self.model.heard[peer].remove(p);
            }
            let kept = if internal {
                attributes.clone()
            } else {
                let clean = Attributes { local_pref: None, originator_id: None, ..attributes.clone() };
                Attributes { cluster_list: vec![], ..clean }
            };
            for p in &announced {
                let new = Known { attributes: kept.clone(), next_hop, learned: self.now };
                let old = self.model.heard[peer].entry(*p).or_insert_with(|| new.clone());
                if (&old.attributes, old.next_hop) != (&new.attributes, next_hop) {
                    *old = new;
                }
            }
        }
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
                let told = change.announced.iter().flat_map(|(a, _, ps)| ps.iter().map(move |p| (p, Some(&**a))));
                for (p, attributes) in change.withdrawn.iter().map(|p| (p, None)).chain(told) {
                    let wanted = self.model.wanted(peer, p);
                    assert_eq!(attributes, wanted.as_ref(), "{p} at {peer} is out of date\n{}", self.log);
                }
                for p in &change.withdrawn {
                    assert!(held.remove(p).is_some(), "{p} withdrawn, never sent\n{}", self.log);
                    self.repeats[peer].remove(p);
                }
                let Some((attributes, next_hop, prefixes)) = change.announced else {
                    continue;
                };
                assert_eq!(next_hop, NextHop::V4(local(peer as u32)));
                assert!(!prefixes.is_empty());
                for p in prefixes {
                    let old = held.insert(p, Arc::clone(&attributes));
                    let repeat = self.repeats[peer].remove(&p);
                    assert!(repeat || old.as_ref() != Some(&attributes), "{p} twice\n{}", self.log);
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
            let chosen = candidates.iter().find(|c| c.best).and_then(|c| c.peer);
            assert_eq!(chosen, best.map(|(peer, _)| PeerId(peer as u32)), "best of {p}\n{}", self.log);
            let heard = self.model.heard.iter().filter(|h| h.contains_key(p)).count();
            assert_eq!(candidates.len(), heard + usize::from(own), "{}", self.log);
            assert!(candidates.iter().all(|c| c.best == c.step.is_none()));
            if !settled {
                continue;
            }
            let forwarding = best.map(|(peer, known)| (known.next_hop, PeerId(peer as u32)));
            assert_eq!(self.table.get(p).copied(), forwarding, "{p} forwarded\n{}", self.log);
            for peer in (0..self.held.len()).filter(|peer| self.model.up[*peer]) {
                let wanted = self.model.wanted(peer, p);
                assert_eq!(self.held[peer].get(p).map(|a| &**a), wanted.as_ref(), "{p} at {peer}\n{}", self.log);
            }
        }
        for (peer, held) in self.held.iter().enumerate() {
            let id = PeerId(peer as u32);
            let told: Vec<_> = self.rib.advertised(id, None).map(|a| (a.prefix, a.attributes)).collect();
            assert!(told.iter().map(|(p, a)| (p, a)).eq(held), "Adj-RIB-Out of {peer}\n{}", self.log);
            let received = self.rib.received(id, None).count();
            assert_eq!(received, self.model.heard[peer].len());
            assert_eq!(self.rib.counters(id).received, received);
        }
        if settled {
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
        import: if rng.below(8) == 0 { Import::Observe } else { Import::GaoRexford },
        export: if rng.below(6) == 0 { Export::OwnOnly } else { Export::GaoRexford },
        ..neighbor(index, relation)
    }
}

fn random_attributes(rng: &mut Rng, peer: &PeerConfig, internal: bool) -> Attributes {
    let mut ases = if internal { vec![] } else { vec![peer.asn] };
    for _ in 0..rng.below(3) {
        ases.push(if rng.below(12) == 0 { OWN_AS } else { Asn(100 * (1 + rng.below(4) as u32)) });
    }
    let communities = [Community(7), Community::NO_EXPORT, Community::NO_ADVERTISE, Community::GRACEFUL_SHUTDOWN];
    let some_id = |rng: &mut Rng| Ipv4Addr::new(10, 0, 0, rng.below(4) as u8);
    Attributes {
        as_path: AsPath::sequence(ases),
        origin: [Origin::Igp, Origin::Igp, Origin::Egp, Origin::Incomplete][rng.below(4) as usize],
        med: (rng.below(2) == 0).then(|| rng.below(3) as u32),
        local_pref: (rng.below(3) == 0).then(|| 100 * rng.below(4) as u32),
        communities: communities.into_iter().filter(|_| rng.below(10) == 0).collect(),
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
fn play(seed: u64) -> String {
    let mut bench = Bench::new(seed);
    bench.log += &format!("seed {seed}\n");
    let eager = seed.is_multiple_of(2);
    for peer in 0..bench.held.len() {
        bench.session_up(peer);
    }
    for _ in 0..OPERATIONS {
        bench.operate();
        // A lazy driver lets changes pile up, and takes part of them.
        let limit = if eager { usize::MAX } else { bench.rng.below(3) as usize };
        bench.drain(limit);
        bench.compare(eager);
    }
    bench.drain(usize::MAX);
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
