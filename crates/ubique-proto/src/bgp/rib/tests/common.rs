//! What all tests of the RIB build upon: neighbours, attributes, updates.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ubique_model::policy::Announcement;
use ubique_model::{Asn, Family, Prefix, Relation};

use crate::bgp::attributes::{AsPath, Attributes, NextHop};
use crate::bgp::family::AddressFamilies;
use crate::bgp::message::{Nlri, Reach, Update};
use crate::bgp::rib::{Change, Rib};
use crate::bgp::speaker::{Export, Import, PeerConfig, PeerId, SpeakerConfig};

pub(super) const OWN_AS: Asn = Asn(64500);

/// Next hop of every route a neighbour gives.
pub(super) const NEXT_HOP: NextHop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 200));

pub(super) fn address(peer: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, peer as u8 + 1))
}

pub(super) fn router_id(peer: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, peer as u8 + 1)
}

pub(super) fn local(peer: u32) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, peer as u8 + 1)
}

pub(super) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// Prefixes without path identifiers.
pub(super) fn nlri(prefixes: Vec<Prefix>) -> Vec<Nlri> {
    prefixes.into_iter().map(Nlri::from).collect()
}

/// A neighbour of AS 100 × (index + 1) with Gao-Rexford policy both ways.
pub(super) fn neighbor(index: u32, relation: Relation) -> PeerConfig {
    PeerConfig {
        import: Import::GaoRexford,
        export: Export::GaoRexford,
        ..PeerConfig::new(address(index), Asn(100 * (index + 1)), relation)
    }
}

pub(super) fn rib(peers: Vec<PeerConfig>) -> Rib {
    let count = peers.len() as u32;
    let router_id_own = Ipv4Addr::new(10, 1, 1, 1);
    let config = SpeakerConfig { peers, ..SpeakerConfig::new(OWN_AS, router_id_own, 0) };
    let mut rib = Rib::new(config);
    for peer in 0..count {
        up(&mut rib, peer);
    }
    rib
}

/// Brings up a session that carries IPv4.
pub(super) fn up(rib: &mut Rib, peer: u32) {
    up_with(rib, peer, false);
}

/// The same with a neighbour that knows long-lived stale routes, or not.
pub(super) fn up_with(rib: &mut Rib, peer: u32, long_lived: bool) {
    let local = IpAddr::V4(local(peer));
    let families = AddressFamilies::only(Family::Ipv4);
    rib.peer_up(PeerId(peer), local, router_id(peer), families, AddressFamilies::NONE, long_lived);
}

pub(super) fn path(ases: &[u32]) -> Attributes {
    Attributes { as_path: AsPath::sequence(ases.iter().map(|&a| Asn(a))), ..Attributes::originated() }
}

pub(super) fn announce(prefixes: &[&str], attributes: Attributes) -> Update {
    Update {
        announced: vec![Reach { next_hop: NEXT_HOP, prefixes: prefixes.iter().map(|p| prefix(p).into()).collect() }],
        attributes: Some(Arc::new(attributes)),
        ..Update::default()
    }
}

pub(super) fn withdraw(prefixes: &[&str]) -> Update {
    Update { withdrawn: prefixes.iter().map(|p| prefix(p).into()).collect(), ..Update::default() }
}

/// Drains what one neighbour is owed.
pub(super) fn changes(rib: &mut Rib, peer: u32) -> Vec<Change> {
    std::iter::from_fn(|| rib.poll_changes(PeerId(peer))).collect()
}

pub(super) fn own(text: &str) -> Announcement {
    Announcement::new(prefix(text))
}

pub(super) const P: &str = "198.51.100.0/24";
pub(super) const Q: &str = "203.0.113.0/24";

/// An internal neighbour.
pub(super) fn internal(index: u32) -> PeerConfig {
    PeerConfig { asn: OWN_AS, ..neighbor(index, Relation::Internal) }
}

/// Prefixes and attributes a neighbour is sent next.
pub(super) fn sent(rib: &mut Rib, peer: u32) -> Option<(Arc<Attributes>, usize)> {
    let change = rib.poll_changes(PeerId(peer))?;
    assert_eq!(rib.poll_changes(PeerId(peer)), None);
    change.announced.map(|(attributes, _, prefixes)| (attributes, prefixes.len()))
}

pub(super) fn withdrawal(prefixes: &[&str]) -> Change {
    Change { withdrawn: prefixes.iter().map(|p| prefix(p)).collect(), announced: None }
}
