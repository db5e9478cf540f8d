//! Routes that are gone, and leave the table in pieces.

use ubique_model::Prefix;
use ubique_model::Relation::{Customer, Transit};

use super::common::*;
use crate::bgp::family::AddressFamily::Ipv4Unicast;
use crate::bgp::message::Update;
use crate::bgp::rib::{Rib, Stale};
use crate::bgp::speaker::{Import, PeerConfig, PeerId};

const P0: PeerId = PeerId(0);
const P1: PeerId = PeerId(1);

fn observed(index: u32) -> PeerConfig {
    PeerConfig { import: Import::Observe, ..neighbor(index, Transit) }
}

fn ten() -> Vec<String> {
    (0..10).map(|i| format!("10.{i}.0.0/16")).collect()
}

fn routes(prefixes: &[String], asn: u32) -> Update {
    announce(&prefixes.iter().map(String::as_str).collect::<Vec<_>>(), path(&[asn]))
}

fn stored(rib: &Rib) -> usize {
    rib.table.from(None).count()
}

fn received(rib: &Rib, peer: PeerId) -> usize {
    let seen = rib.received(peer, None).count();
    assert_eq!((seen, rib.counters(peer).received), (seen, seen));
    seen
}

#[test]
fn a_lost_session_is_over_at_once_and_freed_in_pieces() {
    let mut rib = rib(vec![observed(0), observed(1)]);
    rib.update(crate::Time::ZERO, P0, &routes(&ten(), 100));
    rib.update(crate::Time::ZERO, P1, &routes(&ten()[..3], 200));
    rib.peer_down(P0);
    assert_eq!((received(&rib, P0), received(&rib, P1), rib.prefixes(None).count()), (0, 3, 3));
    assert!(rib.prefixes(None).all(|p| rib.candidates(p).len() == 1));
    assert_eq!(stored(&rib), 10);
    rib.reap(4);
    assert_eq!(stored(&rib), 9, "one of the first four had no other route");
    rib.reap(100);
    assert!(!rib.has_gone());
    assert_eq!((stored(&rib), rib.offers.len()), (3, 1));
}

#[test]
fn a_new_session_begins_before_the_old_one_is_freed() {
    let mut rib = rib(vec![observed(0)]);
    rib.update(crate::Time::ZERO, P0, &routes(&ten(), 100));
    rib.peer_down(P0);
    up(&mut rib, 0);
    rib.update(crate::Time(5), P0, &routes(&ten()[..6], 100));
    assert_eq!(received(&rib, P0), 6);
    assert!(rib.received(P0, None).all(|r| r.stale == Stale::No && r.learned == crate::Time(5)));
    // What is gone cannot be withdrawn.
    rib.update(crate::Time(6), P0, &withdraw(&["10.9.0.0/16", "10.0.0.0/16"]));
    assert_eq!(received(&rib, P0), 5);
    for _ in 0..3 {
        rib.reap(3);
        assert_eq!(received(&rib, P0), 5);
    }
    assert!(!rib.has_gone());
    assert_eq!((stored(&rib), rib.offers.users()), (5, 5));
}

#[test]
fn a_refresh_makes_everything_stale_until_it_is_named() {
    let mut rib = rib(vec![observed(0)]);
    rib.update(crate::Time::ZERO, P0, &routes(&ten(), 100));
    rib.mark_stale(P0, Ipv4Unicast);
    assert!(rib.received(P0, None).all(|r| r.stale == Stale::Restart));
    rib.update(crate::Time(5), P0, &routes(&ten()[..2], 100));
    let named: Vec<bool> = rib.received(P0, None).map(|r| r.stale == Stale::No).collect();
    assert_eq!(named, [[true; 2].as_slice(), &[false; 8]].concat());
    assert!(rib.received(P0, None).all(|r| r.learned == crate::Time::ZERO), "unchanged routes keep their age");
    rib.sweep_stale(P0, Ipv4Unicast);
    assert_eq!(received(&rib, P0), 2);
}

#[test]
fn who_takes_the_number_of_a_removed_neighbor_inherits_nothing() {
    let mut rib = rib(vec![observed(0), neighbor(1, Customer)]);
    rib.update(crate::Time::ZERO, P0, &routes(&ten(), 100));
    rib.remove_peer(P0);
    assert_eq!(rib.prefixes(None).count(), 0);
    rib.add_peer(P0, neighbor(0, Customer));
    up(&mut rib, 0);
    assert_eq!(received(&rib, P0), 0);
    rib.update(crate::Time::ZERO, P0, &routes(&ten()[..1], 100));
    let best: Vec<(Prefix, Option<PeerId>)> = rib.best_routes().collect();
    assert_eq!(best, [(prefix("10.0.0.0/16"), Some(P0))]);
    rib.reap(10);
    assert!(!rib.has_gone());
    assert_eq!((received(&rib, P0), stored(&rib)), (1, 1));
}
