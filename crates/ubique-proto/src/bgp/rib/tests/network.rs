//! A network of RIBs: random Gao-Rexford topologies whose UPDATEs arrive in random order, with links that flap,
//! settle on the one stable solution (Gao and Rexford 2001), computed here by synchronous iteration.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

use ubique_model::policy::Announcement;
use ubique_model::{Asn, Family, Prefix, Relation};

use super::common::{nlri, own, prefix};
use crate::Time;
use crate::bgp::attributes::NextHop;
use crate::bgp::family::AddressFamilies;
use crate::bgp::message::{Reach, Update};
use crate::bgp::rib::{Change, Rib};
use crate::bgp::speaker::{Export, Import, PeerConfig, PeerId, SpeakerConfig};
use crate::rng::Rng;

const NETWORKS: usize = 30;
const TOPOLOGIES: u64 = 80;
const ANYCAST: &str = "198.51.100.0/24";

fn asn(index: usize) -> Asn {
    Asn(1000 + index as u32)
}

fn id_of(index: usize) -> Ipv4Addr {
    // Not in the order of the indices, so that ties are broken both ways.
    Ipv4Addr::new(10, 0, (index * 7 % 30) as u8, 1)
}

/// One end of a link, as its network sees it.
#[derive(Clone)]
struct End {
    other: usize,
    /// Index of this link among those of the other network.
    back: usize,
    relation: Relation,
    /// Our address on the link.
    address: Ipv4Addr,
    up: bool,
    /// Extra prepending of the anycast prefix by its originators.
    prepend: u8,
}

struct Internet {
    links: Vec<Vec<End>>,
    ribs: Vec<Rib>,
    /// Messages under way, by receiving network and link: each session keeps its order.
    wires: Vec<Vec<VecDeque<Change>>>,
    origins: Vec<usize>,
    rng: Rng,
    clock: u64,
}

fn opposite(relation: Relation) -> Relation {
    match relation {
        Relation::Customer => Relation::Transit,
        Relation::Transit => Relation::Customer,
        other => other,
    }
}

/// Providers have lower indices, so no network is its own indirect provider: Gao and Rexford's condition.
fn topology(rng: &mut Rng) -> Vec<Vec<End>> {
    let mut links: Vec<Vec<End>> = vec![vec![]; NETWORKS];
    let mut count = 0_u8;
    let mut connect = |rng: &mut Rng, a: usize, b: usize, relation: Relation| {
        if a == b || links[a].iter().any(|end| end.other == b) {
            return;
        }
        let (at_a, at_b) = (links[a].len(), links[b].len());
        let address = |side: u8| Ipv4Addr::new(172, 16, count, side);
        let prepend = [rng.below(3) as u8, rng.below(3) as u8];
        let end = |other, back, relation, side: u8| {
            let prepend = prepend[usize::from(side)];
            End { other, back, relation, address: address(side), up: true, prepend }
        };
        links[a].push(end(b, at_b, relation, 0));
        links[b].push(end(a, at_a, opposite(relation), 1));
        count += 1;
    };
    for b in 1..3 {
        (0..b).for_each(|a| connect(rng, a, b, Relation::Peer));
    }
    for network in 3..NETWORKS {
        for _ in 0..1 + rng.below(3) {
            let provider = rng.below(network as u64) as usize;
            connect(rng, provider, network, Relation::Customer);
        }
    }
    for _ in 0..20 {
        let (a, b) = (rng.below(NETWORKS as u64) as usize, rng.below(NETWORKS as u64) as usize);
        connect(rng, a, b, Relation::Peer);
    }
    links
}

impl Internet {
    fn new(seed: u64) -> Internet {
        let mut rng = Rng::new(seed);
        let links = topology(&mut rng);
        let origins: Vec<usize> = (0..3).map(|_| rng.below(NETWORKS as u64) as usize).collect();
        let ribs = links.iter().enumerate().map(|(network, ends)| {
            let peers = ends.iter().map(|end| PeerConfig {
                import: Import::GaoRexford,
                export: Export::GaoRexford,
                ..PeerConfig::new(IpAddr::V4(links[end.other][end.back].address), asn(end.other), end.relation)
            });
            Rib::new(SpeakerConfig { peers: peers.collect(), ..SpeakerConfig::new(asn(network), id_of(network), 0) })
        });
        let ribs = ribs.collect();
        let wires = links.iter().map(|ends| vec![VecDeque::new(); ends.len()]).collect();
        let mut internet = Internet { links, ribs, wires, origins, rng, clock: 0 };
        for a in 0..NETWORKS {
            for at_a in 0..internet.links[a].len() {
                if a < internet.links[a][at_a].other {
                    internet.set_link(a, at_a, true);
                }
            }
        }
        internet.originate();
        internet
    }

    /// Network 5 originates a prefix of its own; some networks announce one prefix together, as anycast sites do.
    fn originate(&mut self) {
        self.ribs[5].originate(prefix("203.0.113.0/24"));
        for &origin in &self.origins {
            for (at, end) in self.links[origin].iter().enumerate() {
                let announcement = Announcement { prepend: end.prepend, ..own(ANYCAST) };
                self.ribs[origin].announce(PeerId(at as u32), announcement);
            }
        }
    }

    fn set_link(&mut self, a: usize, at_a: usize, up: bool) {
        let (b, at_b) = (self.links[a][at_a].other, self.links[a][at_a].back);
        for (network, at, other) in [(a, at_a, b), (b, at_b, a)] {
            let end = &mut self.links[network][at];
            end.up = up;
            self.wires[network][at].clear();
            let peer = PeerId(at as u32);
            if up {
                let (address, v4) = (IpAddr::V4(end.address), AddressFamilies::only(Family::Ipv4));
                self.ribs[network].peer_up(peer, address, id_of(other), v4, AddressFamilies::NONE, false);
            } else {
                self.ribs[network].peer_down(peer);
            }
        }
    }

    fn flap_random_link(&mut self) {
        let a = self.rng.below(NETWORKS as u64) as usize;
        let at_a = self.rng.below(self.links[a].len() as u64) as usize;
        self.set_link(a, at_a, !self.links[a][at_a].up);
    }

    /// Lets a random network send some of what it owes on a random link.
    fn send(&mut self, network: usize) {
        for at in 0..self.links[network].len() {
            while self.rng.below(3) > 0 {
                let Some(change) = self.ribs[network].poll_changes(PeerId(at as u32)) else {
                    break;
                };
                let end = &self.links[network][at];
                self.wires[end.other][end.back].push_back(change);
            }
        }
        while self.ribs[network].poll_best().is_some() {}
    }

    fn receive(&mut self, network: usize) {
        let at = self.rng.below(self.wires[network].len() as u64) as usize;
        let Some(change) = self.wires[network][at].pop_front() else {
            return;
        };
        self.clock += 1;
        let (attributes, announced) = match change.announced {
            Some((attributes, next_hop, prefixes)) => {
                (Some(attributes), vec![Reach { next_hop, prefixes: nlri(prefixes) }])
            }
            None => (None, vec![]),
        };
        let update = Update { withdrawn: nlri(change.withdrawn), announced, attributes, ..Update::default() };
        self.ribs[network].update(Time(self.clock), PeerId(at as u32), &update);
    }

    fn is_quiet(&self) -> bool {
        self.ribs.iter().all(Rib::is_settled) && self.wires.iter().flatten().all(VecDeque::is_empty)
    }

    fn converge(&mut self, flaps: u32) {
        let mut left = flaps;
        for step in 0..400_000_u32 {
            if left > 0 && self.rng.below(500) == 0 {
                self.flap_random_link();
                left -= 1;
            }
            let network = self.rng.below(NETWORKS as u64) as usize;
            if self.rng.below(2) == 0 {
                self.send(network)
            } else {
                self.receive(network)
            }
            if step % 64 == 0 && left == 0 && self.is_quiet() {
                return;
            }
        }
        panic!("no convergence");
    }
}

/// A route in the oracle: preference, path from the neighbour on, the link it came over.
#[derive(Clone, Debug, PartialEq)]
struct Choice {
    preference: u32,
    path: Vec<usize>,
    link: Option<usize>,
}

/// The stable solution for one prefix, by rounds in which all networks choose at once.
fn fixpoint(internet: &Internet, prefix: &Prefix) -> Vec<Option<Choice>> {
    let anycast = *prefix == super::common::prefix(ANYCAST);
    let mut chosen: Vec<Option<Choice>> = vec![None; NETWORKS];
    for _round in 0..10 * NETWORKS {
        let next: Vec<_> = (0..NETWORKS).map(|network| choose(internet, &chosen, network, anycast)).collect();
        if next == chosen {
            return chosen;
        }
        chosen = next;
    }
    panic!("the oracle does not settle");
}

fn choose(internet: &Internet, chosen: &[Option<Choice>], network: usize, anycast: bool) -> Option<Choice> {
    if !anycast && network == 5 {
        return Some(Choice { preference: u32::MAX, path: vec![], link: None });
    }
    let offers = internet.links[network].iter().enumerate().filter(|(_, end)| end.up).filter_map(|(link, end)| {
        let path = offered(internet, chosen, network, end, anycast)?;
        let preference = match end.relation {
            Relation::Customer => 3,
            Relation::Transit => 1,
            _ => 2,
        };
        (!path.contains(&network)).then_some(Choice { preference, path, link: Some(link) })
    });
    offers.min_by_key(|c| {
        let id = c.link.map(|link| id_of(internet.links[network][link].other));
        (u32::MAX - c.preference, c.path.len(), id)
    })
}

/// The path the other end of a link offers.
fn offered(
    internet: &Internet,
    chosen: &[Option<Choice>],
    network: usize,
    end: &End,
    anycast: bool,
) -> Option<Vec<usize>> {
    let there = &internet.links[end.other][end.back];
    if anycast && internet.origins.contains(&end.other) {
        return Some(vec![end.other; 1 + usize::from(there.prepend)]);
    }
    let theirs = chosen[end.other].as_ref()?;
    let learned_from = theirs.link.map(|link| &internet.links[end.other][link]);
    let allowed = learned_from.is_none_or(|from| {
        from.other != network && (from.relation == Relation::Customer || there.relation == Relation::Customer)
    });
    allowed.then(|| std::iter::once(end.other).chain(theirs.path.iter().copied()).collect())
}

/// Compares every network's best routes; how many networks have one.
fn verify(internet: &Internet, seed: u64) -> usize {
    let mut reached = 0;
    for text in [ANYCAST, "203.0.113.0/24"] {
        let expected = fixpoint(internet, &prefix(text));
        reached += expected.iter().flatten().count();
        for (network, expected) in expected.iter().enumerate() {
            let candidates = internet.ribs[network].candidates(prefix(text));
            let best = candidates.iter().find(|c| c.best);
            let got = best.map(|c| {
                let path: Vec<usize> = c.attributes.as_path.ases().map(|a| (a.0 - 1000) as usize).collect();
                (c.peer.map(|p| p.0 as usize), path)
            });
            let expected = expected.as_ref().map(|c| (c.link, c.path.clone()));
            assert_eq!(got, expected, "seed {seed}: {text} in network {network}");
            if let Some(next_hop) = best.and_then(|c| c.next_hop) {
                let end = &internet.links[network][best.and_then(|c| c.peer).unwrap().0 as usize];
                assert_eq!(next_hop, NextHop::V4(internet.links[end.other][end.back].address));
            }
        }
    }
    reached
}

#[test]
fn networks_converge_on_the_stable_solution() {
    println!("seeds 0 to {TOPOLOGIES}");
    let mut reached = 0;
    for seed in 0..TOPOLOGIES {
        let mut internet = Internet::new(seed);
        internet.converge(0);
        reached += verify(&internet, seed);
        internet.converge(12);
        reached += verify(&internet, seed);
    }
    // Two prefixes, twice each; flaps isolate only a few networks.
    let all = 4 * NETWORKS * TOPOLOGIES as usize;
    assert!(reached > all * 8 / 10, "{reached} of {all} networks have a route: too few to mean much");
}
