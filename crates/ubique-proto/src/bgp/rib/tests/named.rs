//! Named cases: what comes in, and which route is best.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ubique_model::{Asn, Community, Family, Relation};

use super::common::*;
use crate::Time;
use crate::bgp::attributes::{AsPath, Attributes, NextHop, Segment};
use crate::bgp::family::{AddressFamilies, AddressFamily};
use crate::bgp::message::{Reach, Update};
use crate::bgp::rib::{Counters, Excess, Rib};
use crate::bgp::speaker::{Export, Import, PeerConfig, PeerId, SpeakerConfig};

use Relation::{Customer, Peer, Transit};

#[test]
fn import_sets_the_preference_by_relation() {
    let mut rib = rib(vec![neighbor(0, Transit), neighbor(1, Peer), neighbor(2, Customer), internal(3)]);
    rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100])));
    rib.update(Time(2), PeerId(1), &announce(&[P], path(&[200, 1])));
    rib.update(Time(3), PeerId(2), &announce(&[P], path(&[300, 1, 2, 3])));
    rib.update(Time(4), PeerId(3), &announce(&[P], Attributes { local_pref: Some(250), ..path(&[7]) }));
    let told: Vec<(u32, u32, String)> = rib
        .candidates(prefix(P))
        .into_iter()
        .map(|c| (c.peer.unwrap().0, c.local_pref, c.step.map_or("best".into(), |s| s.to_string())))
        .collect();
    let expected = [
        (2, 300, "best"),
        (3, 250, "local preference 250 < 300"),
        (1, 200, "local preference 200 < 300"),
        (0, 100, "local preference 100 < 300"),
    ];
    assert_eq!(told, expected.map(|(peer, pref, step)| (peer, pref, step.to_owned())));
}

#[test]
fn an_external_neighbor_sets_no_internal_attributes() {
    let mut rib = rib(vec![neighbor(0, Peer), neighbor(1, Peer)]);
    let forged = Attributes {
        local_pref: Some(9999),
        originator_id: Some(Ipv4Addr::new(0, 0, 0, 1)),
        cluster_list: vec![Ipv4Addr::LOCALHOST],
        ..path(&[200])
    };
    rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100])));
    rib.update(Time(1), PeerId(1), &announce(&[P], forged));
    assert_eq!(rib.poll_best(), Some((prefix(P), Some((NEXT_HOP, PeerId(0))))));
    assert_eq!(*rib.received(PeerId(1), None).next().unwrap().attributes, path(&[200]));
}

#[test]
fn graceful_shutdown_makes_any_other_route_better() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Transit)]);
    rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100])));
    rib.update(Time(1), PeerId(1), &announce(&[P], path(&[200, 1, 2, 3])));
    assert_eq!(rib.poll_best().unwrap().1.unwrap().1, PeerId(0));
    let leaving = Attributes { communities: vec![Community::GRACEFUL_SHUTDOWN], ..path(&[100]) };
    rib.update(Time(2), PeerId(0), &announce(&[P], leaving));
    assert_eq!(rib.poll_best().unwrap().1.unwrap().1, PeerId(1));
    assert_eq!(rib.candidates(prefix(P))[1].local_pref, 0);
}

#[test]
fn a_loop_is_kept_but_never_chosen() {
    let mut rib = rib(vec![neighbor(0, Peer), neighbor(1, Customer)]);
    rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100, 64500, 7])));
    let in_a_set = AsPath(vec![Segment::Sequence(vec![Asn(100)]), Segment::Set(vec![Asn(7), OWN_AS])]);
    rib.update(Time(1), PeerId(0), &announce(&[Q], Attributes { as_path: in_a_set, ..path(&[]) }));
    assert_eq!((rib.poll_best(), rib.poll_changes(PeerId(1))), (None, None));
    assert_eq!(rib.received(PeerId(0), None).filter(|r| r.ineligible.is_some()).count(), 2);
    let step = rib.candidates(prefix(P))[0].step.unwrap();
    assert_eq!(step.to_string(), "AS path holds our own AS 64500");
    // An eligible route that turns into a loop goes.
    rib.update(Time(2), PeerId(0), &announce(&[P], path(&[100])));
    assert!(rib.poll_best().unwrap().1.is_some());
    rib.update(Time(3), PeerId(0), &announce(&[P], path(&[100, 64500])));
    assert_eq!(rib.poll_best(), Some((prefix(P), None)));
}

#[test]
fn routes_that_point_at_ourselves_are_not_chosen() {
    let mut rib = rib(vec![neighbor(0, Peer), internal(1)]);
    let mut update = announce(&[P], path(&[100]));
    update.announced[0].next_hop = NextHop::V4(local(0));
    rib.update(Time(1), PeerId(0), &update);
    let own_id = Some(Ipv4Addr::new(10, 1, 1, 1));
    rib.update(Time(1), PeerId(1), &announce(&[P], Attributes { originator_id: own_id, ..path(&[7]) }));
    assert_eq!(rib.poll_best(), None);
    let reasons: Vec<String> = rib.candidates(prefix(P)).iter().map(|c| c.step.unwrap().to_string()).collect();
    assert_eq!(reasons, ["next hop is our own address", "we are its originator"]);
}

#[test]
fn an_observed_neighbor_gives_no_route() {
    let observed = PeerConfig { import: Import::Observe, ..neighbor(0, Transit) };
    let mut rib = rib(vec![observed, neighbor(1, Customer)]);
    rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100])));
    assert_eq!((rib.poll_best(), rib.poll_changes(PeerId(1))), (None, None));
    assert_eq!(rib.received(PeerId(0), None).count(), 1);
    assert_eq!(rib.candidates(prefix(P))[0].step.unwrap().to_string(), "observed only");
}

#[test]
fn a_flap_takes_the_routes_and_brings_them_back() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Peer), neighbor(2, Customer)]);
    rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100])));
    rib.update(Time(1), PeerId(2), &announce(&[P], path(&[300, 1])));
    assert_eq!(*sent(&mut rib, 1).unwrap().0, path(&[64500, 100]));
    rib.poll_best().unwrap();
    rib.peer_down(PeerId(0));
    assert_eq!(rib.poll_best().unwrap().1.unwrap().1, PeerId(2));
    assert_eq!(*sent(&mut rib, 1).unwrap().0, path(&[64500, 300, 1]));
    rib.peer_down(PeerId(2));
    assert_eq!(rib.poll_best(), Some((prefix(P), None)));
    assert_eq!(changes(&mut rib, 1), [withdrawal(&[P])]);
    assert_eq!(rib.best_routes().count(), 0);
    // An UPDATE of a session that is down is void.
    rib.update(Time(2), PeerId(0), &announce(&[P], path(&[100])));
    assert_eq!((rib.poll_best(), rib.counters(PeerId(0)).received), (None, 0));
    // A neighbour that comes up is owed what all others hold already.
    up(&mut rib, 0);
    rib.originate(prefix(Q));
    rib.peer_down(PeerId(1));
    up(&mut rib, 1);
    assert_eq!(sent(&mut rib, 1).unwrap().1, 1);
}

#[test]
fn our_own_route_beats_all_others() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Peer)]);
    rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100])));
    rib.poll_best().unwrap();
    rib.originate(prefix(P));
    assert_eq!(rib.poll_best(), Some((prefix(P), None)));
    assert_eq!(*sent(&mut rib, 1).unwrap().0, path(&[64500]));
    let candidates = rib.candidates(prefix(P));
    assert_eq!((candidates[0].peer, candidates[0].best), (None, true));
    assert_eq!(candidates[1].step.unwrap().to_string(), "own route preferred");
}

#[test]
fn a_session_carries_the_family_of_its_address() {
    let v6 = |i: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, i));
    let peers = vec![
        PeerConfig { address: v6(1), ..neighbor(0, Customer) },
        PeerConfig { address: v6(2), ..neighbor(1, Peer) },
        neighbor(2, Peer),
    ];
    let own_id = Ipv4Addr::new(10, 1, 1, 1);
    let mut rib = Rib::new(SpeakerConfig { peers, ..SpeakerConfig::new(OWN_AS, own_id, 0) });
    let v6_only = AddressFamilies::only(Family::Ipv6);
    rib.peer_up(PeerId(0), v6(11), router_id(0), v6_only, AddressFamilies::NONE, false);
    rib.peer_up(PeerId(1), v6(12), router_id(1), v6_only, AddressFamilies::NONE, false);
    up(&mut rib, 2);
    let mut update = announce(&["2001:db8:53::/48"], path(&[100]));
    update.announced.push(Reach { next_hop: NEXT_HOP, prefixes: vec![prefix(P).into()] });
    rib.update(Time(1), PeerId(0), &update);
    rib.originate(prefix(Q));
    rib.announce(PeerId(2), own("2001:db8:54::/48"));
    let [change] = &changes(&mut rib, 1)[..] else { panic!("one change") };
    let (_, next_hop, prefixes) = change.announced.as_ref().unwrap();
    let global = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 12);
    assert_eq!(*next_hop, NextHop::V6 { global, link_local: None });
    assert_eq!(prefixes, &[prefix("2001:db8:53::/48")]);
    let [change] = &changes(&mut rib, 2)[..] else { panic!("one change") };
    assert_eq!(change.announced.as_ref().unwrap().2, [prefix(Q)]);
    assert_eq!((rib.counters(PeerId(0)).received, rib.counters(PeerId(0)).ignored), (1, 1));
}

#[test]
fn too_many_prefixes_end_the_session_of_a_router_but_not_of_an_edge() {
    let observed = PeerConfig { import: Import::Observe, export: Export::OwnOnly, keep: 2, ..neighbor(1, Transit) };
    let mut rib = rib(vec![PeerConfig { max_prefix: Some(2), ..neighbor(0, Peer) }, observed]);
    rib.announce(PeerId(1), own(Q));
    let many = ["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", P, Q];
    for peer in [0, 1] {
        rib.update(Time(1), PeerId(peer), &announce(&many[..2], path(&[100])));
        rib.update(Time(2), PeerId(peer), &announce(&many[..2], path(&[100, 7])));
        assert_eq!(rib.over_limit(PeerId(peer)), None);
        rib.update(Time(3), PeerId(peer), &announce(&many, path(&[100])));
    }
    assert_eq!(rib.over_limit(PeerId(0)), Some(Excess::Prefixes(AddressFamily::Ipv4Unicast, 2)));
    assert_eq!((rib.counters(PeerId(0)).received, rib.counters(PeerId(0)).ignored), (2, 3));
    rib.peer_down(PeerId(0));
    assert_eq!(rib.over_limit(PeerId(0)), None);
    // What an edge announces itself it goes on watching.
    assert_eq!(rib.over_limit(PeerId(1)), None);
    assert_eq!((rib.counters(PeerId(1)).received, rib.counters(PeerId(1)).ignored), (3, 2));
    assert!(rib.received(PeerId(1), None).any(|r| r.prefix == prefix(Q)));
}

#[test]
fn the_oldest_external_route_stays_best_when_asked() {
    for prefer_oldest in [false, true] {
        let peers = vec![neighbor(0, Peer), neighbor(1, Peer)];
        let own_id = Ipv4Addr::new(10, 1, 1, 1);
        let mut rib = Rib::new(SpeakerConfig { peers, prefer_oldest, ..SpeakerConfig::new(OWN_AS, own_id, 0) });
        for peer in 0..2 {
            up(&mut rib, peer);
        }
        rib.update(Time(1), PeerId(1), &announce(&[P], path(&[200])));
        rib.update(Time(2), PeerId(0), &announce(&[P], path(&[100])));
        // Repeated unchanged: it keeps its age.
        rib.update(Time(3), PeerId(1), &announce(&[P], path(&[200])));
        let best = rib.poll_best().unwrap().1.unwrap().1;
        assert_eq!(best, PeerId(u32::from(prefer_oldest)));
    }
}

#[test]
fn a_prefix_in_both_lists_stays_announced() {
    let mut rib = rib(vec![neighbor(0, Customer)]);
    rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100])));
    rib.poll_best().unwrap();
    let both = Update { withdrawn: vec![prefix(P).into()], ..announce(&[P], path(&[100])) };
    rib.update(Time(2), PeerId(0), &both);
    assert_eq!((rib.poll_best(), rib.best_routes().count()), (None, 1));
}

#[test]
fn unknown_neighbors_and_empty_updates_are_harmless() {
    let mut rib = rib(vec![neighbor(0, Customer)]);
    let stranger = PeerId(99);
    up(&mut rib, stranger.0);
    rib.update(Time(1), stranger, &announce(&[P], path(&[100])));
    rib.announce(stranger, own(P));
    rib.withdraw(stranger, prefix(P));
    rib.refresh(stranger, AddressFamily::Ipv4Unicast);
    rib.peer_down(stranger);
    assert_eq!((rib.poll_changes(stranger), rib.poll_best()), (None, None));
    assert_eq!((rib.over_limit(stranger), rib.counters(stranger)), (None, Counters::default()));
    assert_eq!((rib.received(stranger, None).count(), rib.advertised(stranger, None).count()), (0, 0));
    let no_attributes = Update { attributes: None, ..announce(&[P], path(&[100])) };
    rib.update(Time(1), PeerId(0), &no_attributes);
    assert_eq!((rib.poll_best(), rib.candidates(prefix(P))), (None, vec![]));
}

#[test]
fn equal_offers_are_stored_once_and_go_with_their_last_route() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Customer)]);
    for i in 0..200_u32 {
        let prefixes = [format!("10.{i}.0.0/16"), format!("11.{i}.0.0/16")];
        for p in &prefixes {
            rib.update(Time(1), PeerId(0), &announce(&[p], path(&[100, i + 1000])));
        }
        assert_eq!((rib.offers.len(), rib.offers.users()), (1, 2));
        rib.update(Time(1), PeerId(0), &withdraw(&prefixes.each_ref().map(|p| p.as_str())));
        assert_eq!((rib.offers.len(), rib.offers.users()), (0, 0));
        changes(&mut rib, 1);
    }
    assert!(rib.pool.len() <= 2 * 32, "{} sets of attributes are kept", rib.pool.len());
    while rib.poll_best().is_some() {}
    assert!(rib.table.is_empty());
}
