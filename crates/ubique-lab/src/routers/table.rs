//! From what a foreign router shows to candidates with the decision steps of our own process.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ubique_model::{Asn, Prefix};
use ubique_proto::Time;
use ubique_proto::bgp::attributes::{AsPath, Attributes, Origin};
use ubique_proto::bgp::rib::decision::{self, Path};

use super::Candidate;
use crate::plan::{NetworkPlan, Plan, SessionPlan};

/// A route as a foreign router shows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    /// The neighbour's address; `None`: own route.
    pub(super) peer_address: Option<IpAddr>,
    /// The neighbour's BGP identifier, when shown.
    pub(super) router_id: Option<Ipv4Addr>,
    pub(super) local_pref: u32,
    pub(super) as_path: Vec<Asn>,
    pub(super) med: Option<u32>,
    pub(super) origin: Origin,
    /// The router uses it.
    pub(super) best: bool,
}

/// Candidates, best first, with the step at which each lost. `best` is what the router says, not what we would choose.
pub(super) fn candidates(network: &NetworkPlan, shown: &[Shown]) -> Vec<Candidate> {
    let attributes: Vec<Attributes> = shown.iter().map(attributes).collect();
    let paths: Vec<Path<'_>> = shown.iter().zip(&attributes).map(|(s, a)| path(network, s, a)).collect();
    let best = shown.iter().position(|s| s.best);
    let mut all: Vec<Candidate> = (0..shown.len())
        .map(|i| Candidate {
            peer_asn: session(network, shown[i].peer_address).map(|s| s.asn),
            peer_address: shown[i].peer_address,
            local_pref: shown[i].local_pref,
            as_path: shown[i].as_path.clone(),
            best: shown[i].best,
            step: best.filter(|&b| b != i).map(|b| {
                if shown[b].peer_address.is_none() {
                    return decision::Step::OwnRoute.to_string();
                }
                let (order, step) = decision::compare(&paths[i], &paths[b], false);
                // Told from the winner's side; the router's own word on what is best stands.
                if order.is_lt() { step.to_string() } else { step.flipped().to_string() }
            }),
        })
        .collect();
    all.sort_by_key(|c| !c.best);
    all
}

pub(super) fn session(network: &NetworkPlan, peer: Option<IpAddr>) -> Option<&SessionPlan> {
    network.sessions.iter().find(|s| Some(s.remote) == peer)
}

fn attributes(shown: &Shown) -> Attributes {
    Attributes {
        origin: shown.origin,
        as_path: AsPath::sequence(shown.as_path.iter().copied()),
        med: shown.med,
        ..Attributes::originated()
    }
}

fn path<'a>(network: &NetworkPlan, shown: &Shown, attributes: &'a Attributes) -> Path<'a> {
    let neighbor = session(network, shown.peer_address).map_or(network.asn, |s| s.asn);
    Path {
        attributes,
        long_lived_stale: false,
        local_pref: shown.local_pref,
        neighbor,
        external: neighbor != network.asn,
        igp_metric: 0,
        // Networks have their AS number as identifier.
        router_id: shown.router_id.unwrap_or(Ipv4Addr::from_bits(neighbor.0)),
        peer_address: shown.peer_address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        path_id: 0,
        learned: Time::ZERO,
    }
}

/// How long BIRD (until its next keepalive) and FRR (its `coalesce-time`) may keep an update back that is already due:
/// so much silence does not count as quiet.
const HELD_BACK: Duration = Duration::from_millis(1_500);

/// Tells since when a fingerprint of the routers' state has not changed.
pub(super) struct Quiet {
    fingerprint: u64,
    since: Instant,
}

impl Quiet {
    pub(super) fn new() -> Quiet {
        Quiet { fingerprint: 0, since: Instant::now() }
    }

    /// Notes the state now; how long it has been quiet, less what may be held back.
    pub(super) fn observe(&mut self, fingerprint: u64) -> Duration {
        if fingerprint != self.fingerprint {
            *self = Quiet { fingerprint, since: Instant::now() };
        }
        self.since.elapsed().saturating_sub(HELD_BACK)
    }
}

/// The index of a network in a plan's order.
pub(super) fn index_of(plan: &Plan, asn: Asn) -> Option<usize> {
    plan.networks.iter().position(|n| n.asn == asn)
}

/// Whether a prefix is IPv4.
pub(super) fn is_v4(prefix: &Prefix) -> bool {
    matches!(prefix, Prefix::V4(_))
}

/// FNV-1a over `bytes`, going on from `seed`: any change shows.
pub(super) fn fnv(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
