//! What a neighbour may give us at most, also while what it gave us before its restart is still there.

use std::time::Duration;

use ubique_model::Relation::{Peer, Transit};

use super::common::*;
use crate::Time;
use crate::bgp::attributes::{Attributes, RawAttribute};
use crate::bgp::family::AddressFamily::{Ipv4Unicast, Ipv6Unicast};
use crate::bgp::family::{AddressFamilies, AddressFamily};
use crate::bgp::message::Update;
use crate::bgp::rib::{Excess, MAX_OCTETS, MAX_OCTETS_PER_ROUTE, MAX_PATHS, Rib};
use crate::bgp::speaker::{GracefulRestartConfig, Import, PeerConfig, PeerId};

const P0: PeerId = PeerId(0);

fn observed() -> PeerConfig {
    PeerConfig { import: Import::Observe, ..neighbor(0, Transit) }
}

/// One whose routes are judged one by one, though it is only observed.
fn long_lived() -> PeerConfig {
    let times = GracefulRestartConfig { restart_time: Duration::from_secs(60), long_lived: Some(Duration::MAX) };
    PeerConfig { graceful_restart: Some(times), ..observed() }
}

fn many(family: AddressFamily, range: std::ops::Range<u32>) -> Update {
    let name = |i: u32| match family {
        Ipv6Unicast => format!("2001:db8:{i:x}::/48"),
        _ => format!("10.{}.{}.0/24", i / 256, i % 256),
    };
    let names: Vec<String> = range.map(name).collect();
    announce(&names.iter().map(String::as_str).collect::<Vec<_>>(), path(&[100]))
}

fn up_with_both(rib: &mut Rib) {
    rib.peer_up(
        P0,
        std::net::IpAddr::V4(local(0)),
        router_id(0),
        AddressFamilies::UNICAST,
        AddressFamilies::NONE,
        true,
    );
}

/// The session is lost and comes back; all routes are stale.
fn restart(rib: &mut Rib) {
    rib.peer_stale(P0, AddressFamilies::UNICAST, AddressFamilies::NONE);
    up_with_both(rib);
}

#[test]
fn a_leak_of_one_family_is_noticed_however_full_the_other_is() {
    for keep in [20, 10] {
        let mut rib = rib(vec![PeerConfig { keep, max_prefix: Some(15), ..observed() }]);
        up_with_both(&mut rib);
        rib.update(Time(1), P0, &many(Ipv4Unicast, 0..14));
        rib.update(Time(2), P0, &many(Ipv6Unicast, 0..15));
        assert_eq!((rib.over_limit(P0), rib.counters(P0).received), (None, 29));
        rib.update(Time(2), P0, &many(Ipv6Unicast, 15..16));
        assert_eq!(rib.over_limit(P0), Some(Excess::Prefixes(Ipv6Unicast, 15)));
    }
}

#[test]
fn what_is_stale_does_not_count() {
    for config in [observed(), long_lived(), neighbor(0, Peer)] {
        let mut rib = rib(vec![PeerConfig { max_prefix: Some(10), ..config }]);
        up_with_both(&mut rib);
        rib.update(Time(1), P0, &many(Ipv4Unicast, 0..10));
        restart(&mut rib);
        rib.update(Time(2), P0, &many(Ipv4Unicast, 10..11));
        rib.update(Time(2), P0, &many(Ipv4Unicast, 0..9));
        assert_eq!((rib.over_limit(P0), rib.counters(P0).received), (None, 11));
        rib.sweep_stale(P0, Ipv4Unicast);
        assert_eq!((rib.over_limit(P0), rib.counters(P0).received), (None, 10));
        rib.update(Time(3), P0, &withdraw(&["10.0.0.0/24"]));
        rib.update(Time(3), P0, &many(Ipv4Unicast, 0..1));
        assert_eq!(rib.over_limit(P0), None);
        rib.update(Time(4), P0, &many(Ipv4Unicast, 9..10));
        assert_eq!(rib.over_limit(P0), Some(Excess::Prefixes(Ipv4Unicast, 10)));
    }
}

#[test]
fn what_was_stale_counts_again_once_it_is_named() {
    for config in [observed(), long_lived(), neighbor(0, Peer)] {
        let mut rib = rib(vec![PeerConfig { max_prefix: Some(10), ..config }]);
        up_with_both(&mut rib);
        rib.update(Time(1), P0, &many(Ipv4Unicast, 0..10));
        rib.mark_stale(P0, Ipv4Unicast);
        rib.update(Time(2), P0, &many(Ipv4Unicast, 10..20));
        assert_eq!((rib.over_limit(P0), rib.counters(P0).received), (None, 20));
        rib.update(Time(2), P0, &many(Ipv4Unicast, 0..1));
        assert_eq!(rib.over_limit(P0), Some(Excess::Prefixes(Ipv4Unicast, 10)));
        // It is not kept as it was before.
        assert!(rib.received(P0, None).all(|r| r.prefix != prefix("10.0.0.0/24")));
    }
}

#[test]
fn what_is_kept_does_not_fill_up_with_what_is_stale() {
    for config in [observed(), long_lived()] {
        let mut rib = rib(vec![PeerConfig { keep: 10, ..config }]);
        up_with_both(&mut rib);
        for restarts in 0..5 {
            rib.update(Time(1), P0, &many(Ipv4Unicast, restarts * 100..restarts * 100 + 20));
            // Ten, and at most ten stale ones.
            let counters = rib.counters(P0);
            assert_eq!(counters.ignored, u64::from(10 * (restarts + 1)));
            assert!(counters.received <= 20, "{}", counters.received);
            restart(&mut rib);
            rib.long_lived_stale(P0, Ipv4Unicast);
        }
    }
}

#[test]
fn paths_numbered_anew_after_a_restart_find_room() {
    for config in [observed(), long_lived(), neighbor(0, Peer)] {
        let mut rib = rib(vec![PeerConfig { max_prefix: Some(100), ..config }]);
        let numbered = |first: u32, count: u32| {
            let mut update = announce(&vec![P; count as usize], path(&[100]));
            let all = &mut update.announced[0].prefixes;
            all.iter_mut().zip(first..).for_each(|(nlri, id)| nlri.path_id = id);
            update
        };
        rib.update(Time(1), P0, &numbered(0, 40));
        restart(&mut rib);
        rib.update(Time(2), P0, &numbered(1000, 40));
        assert_eq!((rib.counters(P0).ignored, rib.counters(P0).received, rib.over_limit(P0)), (0, 80, None));
        rib.sweep_stale(P0, Ipv4Unicast);
        assert_eq!(rib.counters(P0).received, 40);
        rib.update(Time(3), P0, &numbered(2000, 40));
        assert_eq!(rib.counters(P0).received, MAX_PATHS);
    }
}

/// An attribute nobody knows, of so many octets, different for each `n`.
fn burdened(n: u32, octets: usize) -> Attributes {
    let value = [&n.to_be_bytes()[..], &vec![0; octets]].concat();
    Attributes { unknown: vec![RawAttribute { flags: 0xC0, code: 99, value }], ..path(&[100]) }
}

#[test]
fn paths_of_one_message_share_their_attributes() {
    let mut rib = rib(vec![observed()]);
    for message in 0..3 {
        let names: Vec<String> = (0..100).map(|i| format!("10.{message}.{i}.0/24")).collect();
        let mut update = announce(&names.iter().map(String::as_str).collect::<Vec<_>>(), burdened(message, 60_000));
        (1..).zip(&mut update.announced[0].prefixes).for_each(|(id, nlri)| nlri.path_id = id);
        rib.update(Time(1), P0, &update);
    }
    assert_eq!((rib.counters(P0).received, rib.counters(P0).ignored, rib.offers.len()), (300, 0, 3));
    assert!(rib.offers.octets(P0) < 3 * 60_100, "{}", rib.offers.octets(P0));
}

#[test]
fn attributes_of_an_observed_neighbour_are_bounded() {
    let mut rib = rib(vec![PeerConfig { keep: 1000, ..observed() }]);
    let room = 1000 * MAX_OCTETS_PER_ROUTE;
    for n in 0..20 {
        rib.update(Time(1), P0, &announce(&[&format!("10.{n}.0.0/16")], burdened(n, 60_000)));
        assert!(rib.offers.octets(P0) <= room);
    }
    assert_eq!((rib.counters(P0).received, rib.counters(P0).ignored), (room / 60_100, 16));
    // What is small still finds room, what replaces a route and is too big takes its place.
    rib.update(Time(2), P0, &announce(&[P], path(&[100])));
    assert_eq!(rib.counters(P0).received, 5);
    rib.update(Time(2), P0, &announce(&[P], burdened(50, 60_000)));
    assert_eq!((rib.counters(P0).received, rib.candidates(prefix(P))), (4, vec![]));
    // We go on watching what we announce, to an end.
    for n in 0..20 {
        rib.announce(P0, own(&format!("11.{n}.0.0/16")));
        rib.update(Time(3), P0, &announce(&[&format!("11.{n}.0.0/16")], burdened(100 + n, 60_000)));
    }
    assert_eq!((rib.counters(P0).received, rib.over_limit(P0)), (2 * room / 60_100, None));
    // What is gone makes room.
    rib.peer_down(P0);
    rib.reap(1000);
    assert_eq!(rib.offers.octets(P0), 0);
}

#[test]
fn attributes_of_a_router_are_bounded_by_its_session() {
    let mut rib = rib(vec![neighbor(0, Peer)]);
    let count = (MAX_OCTETS / 1_000_100) as u32;
    for n in 0..count {
        rib.update(Time(1), P0, &announce(&[&format!("10.{n}.0.0/16")], burdened(n, 1_000_000)));
    }
    assert_eq!((rib.over_limit(P0), rib.counters(P0).ignored), (None, 0));
    rib.update(Time(1), P0, &announce(&[P], burdened(count, 1_000_000)));
    assert_eq!((rib.over_limit(P0), rib.counters(P0).ignored), (Some(Excess::Octets), 1));
}
