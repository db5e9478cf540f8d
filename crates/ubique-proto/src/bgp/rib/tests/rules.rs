//! Named cases: several paths, stale routes, roles, reflection, next hops, what an edge never does.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ubique_model::{Asn, Community, Family, Relation};

use super::common::*;
use crate::Time;
use crate::bgp::attributes::{Aggregator, AsPath, Attributes, NextHop, Origin, RawAttribute, Segment};
use crate::bgp::family::{AddressFamilies, AddressFamily};
use crate::bgp::message::{Role, Update};
use crate::bgp::rib::packed::{Packed, pack};
use crate::bgp::rib::{MAX_PATHS, Rib, Stale};
use crate::bgp::speaker::{
    Export, GracefulRestartConfig, Import, Local, NextHopConfig, PeerConfig, PeerId, SpeakerConfig,
};

use Relation::{Customer, Peer, Transit};

const V4: AddressFamily = AddressFamily::Ipv4Unicast;

/// The update of [`announce`] with a path identifier.
fn with_path(path_id: u32, mut update: Update) -> Update {
    let all = update.announced.iter_mut().flat_map(|r| &mut r.prefixes).chain(&mut update.withdrawn);
    all.for_each(|nlri| nlri.path_id = path_id);
    update
}

fn best(rib: &Rib, text: &str) -> Option<(u32, u32)> {
    rib.candidates(prefix(text)).iter().find(|c| c.best).and_then(|c| Some((c.peer?.0, c.path_id)))
}

fn tagged(community: u32) -> Attributes {
    Attributes { communities: vec![Community(community)], ..path(&[100]) }
}

#[test]
fn paths_are_told_apart_by_identifier() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Peer)]);
    rib.update(Time(1), PeerId(0), &with_path(7, announce(&[P], path(&[100, 1]))));
    rib.update(Time(1), PeerId(0), &with_path(9, announce(&[P], path(&[100]))));
    assert_eq!(best(&rib, P), Some((0, 9)));
    assert_eq!(*sent(&mut rib, 1).unwrap().0, path(&[64500, 100]));
    // Replaced and withdrawn by identifier; the neighbour hears of one path.
    rib.update(Time(2), PeerId(0), &with_path(9, announce(&[P], path(&[100, 1, 2]))));
    assert_eq!(best(&rib, P), Some((0, 7)));
    rib.update(Time(3), PeerId(0), &with_path(7, withdraw(&[P])));
    assert_eq!((best(&rib, P), rib.received(PeerId(0), None).count()), (Some((0, 9)), 1));
    rib.update(Time(4), PeerId(0), &withdraw(&[P]));
    assert_eq!(best(&rib, P), Some((0, 9)), "identifier 0 is another path");
    // The last step: lower identifier.
    rib.update(Time(5), PeerId(0), &with_path(11, announce(&[P], path(&[100, 1, 2]))));
    assert_eq!(best(&rib, P), Some((0, 9)));
    let step = rib.candidates(prefix(P))[1].step.unwrap();
    assert_eq!(step.to_string(), "path identifier 11 > 9");
}

#[test]
fn paths_to_one_prefix_are_bounded() {
    let mut rib = rib(vec![neighbor(0, Customer)]);
    for path_id in 0..2 * MAX_PATHS as u32 {
        rib.update(Time(1), PeerId(0), &with_path(path_id, announce(&[P], path(&[100]))));
    }
    let counters = rib.counters(PeerId(0));
    assert_eq!((counters.received, counters.ignored), (MAX_PATHS, MAX_PATHS as u64));
}

#[test]
fn a_graceful_restart_keeps_routes_until_they_are_swept() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Peer)]);
    rib.update(Time(1), PeerId(0), &announce(&[P, Q], path(&[100])));
    assert!(sent(&mut rib, 1).is_some() && rib.poll_best().is_some() && rib.poll_best().is_some());
    rib.peer_stale(PeerId(0), AddressFamilies::only(V4), AddressFamilies::NONE);
    assert!(rib.received(PeerId(0), None).all(|r| r.stale == Stale::Restart));
    up(&mut rib, 0);
    rib.update(Time(3), PeerId(0), &announce(&[P], path(&[100])));
    // Nothing was lost meanwhile, so nobody heard anything.
    assert_eq!((rib.poll_best(), rib.poll_changes(PeerId(1))), (None, None));
    rib.sweep_stale(PeerId(0), V4);
    assert_eq!(rib.poll_best(), Some((prefix(Q), None)));
    assert_eq!(changes(&mut rib, 1), [withdrawal(&[Q])]);
    assert_eq!(rib.received(PeerId(0), None).map(|r| (r.stale, r.learned)).collect::<Vec<_>>(), [(Stale::No, Time(1))]);
    // A family that is not kept goes at once, and so does what was stale when the session is lost again.
    rib.mark_stale(PeerId(0), V4);
    rib.peer_stale(PeerId(0), AddressFamilies::only(V4), AddressFamilies::NONE);
    assert_eq!(rib.counters(PeerId(0)).received, 0);
}

#[test]
fn long_lived_stale_routes_come_last_and_go_to_those_who_understand() {
    let gr =
        GracefulRestartConfig { restart_time: Duration::from_secs(120), long_lived: Some(Duration::from_secs(3600)) };
    // What counts is what the neighbour said, not what we would like.
    let silent = PeerConfig { graceful_restart: Some(gr), ..neighbor(2, Customer) };
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Customer), silent, neighbor(3, Transit)]);
    rib.peer_down(PeerId(1));
    up_with(&mut rib, 1, true);
    rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100])));
    rib.update(Time(1), PeerId(0), &announce(&[Q], tagged(0xFFFF_0007)));
    rib.peer_stale(PeerId(0), AddressFamilies::only(V4), AddressFamilies::NONE);
    assert_eq!(changes(&mut rib, 2).len(), 2);
    changes(&mut rib, 1);
    rib.long_lived_stale(PeerId(0), V4);
    assert_eq!(best(&rib, Q), None, "NO_LLGR");
    let told = changes(&mut rib, 1);
    let (attributes, ..) = told[1].announced.as_ref().unwrap();
    assert_eq!((told[0].clone(), &attributes.communities[..]), (withdrawal(&[Q]), &[Community(0xFFFF_0006)][..]));
    assert_eq!(changes(&mut rib, 2), [withdrawal(&[P, Q])]);
    // Any other route is better, even one of a transit; and a received LLGR_STALE counts as much.
    rib.update(Time(3), PeerId(3), &announce(&[P], path(&[400, 1, 2])));
    assert_eq!(best(&rib, P), Some((3, 0)));
    assert_eq!(rib.candidates(prefix(P))[1].step.unwrap().to_string(), "long-lived stale, other not");
    rib.update(
        Time(4),
        PeerId(3),
        &announce(&[P], Attributes { as_path: path(&[400]).as_path, ..tagged(0xFFFF_0006) }),
    );
    assert_eq!(best(&rib, P), Some((0, 0)));
}

/// RFC 9234 §5, each of our roles: what an OTC of the neighbour, of a third AS, or none, leads to on the way in.
#[test]
fn only_to_customer_on_the_way_in() {
    let (own_mark, third) = (Some(Asn(100)), Some(Asn(7)));
    #[rustfmt::skip]
    let cases = [
        (Role::Provider,          [(None, None, true),     (own_mark, own_mark, false), (third, third, false)]),
        (Role::RouteServer,       [(None, None, true),     (own_mark, own_mark, false), (third, third, false)]),
        (Role::Customer,          [(None, own_mark, true), (own_mark, own_mark, true),  (third, third, true)]),
        (Role::RouteServerClient, [(None, own_mark, true), (own_mark, own_mark, true),  (third, third, true)]),
        (Role::Peer,              [(None, own_mark, true), (own_mark, own_mark, true),  (third, third, false)]),
    ];
    for (role, rows) in cases {
        for (otc, kept, eligible) in rows {
            let mut rib = rib(vec![PeerConfig { role: Some(role), ..neighbor(0, Peer) }]);
            rib.update(Time(1), PeerId(0), &announce(&[P], Attributes { only_to_customer: otc, ..path(&[100]) }));
            let route = rib.received(PeerId(0), None).next().unwrap();
            assert_eq!((route.attributes.only_to_customer, route.ineligible.is_none()), (kept, eligible), "{role:?}");
            if let Some(why) = route.ineligible {
                assert!(why.to_string().starts_with("route leak: AS"), "{why}");
            }
        }
    }
}

/// RFC 9234 §5, each of our roles: what becomes of a marked and of an unmarked route on the way out.
#[test]
fn only_to_customer_on_the_way_out() {
    let ours = Some(OWN_AS);
    let cases = [
        (Role::Provider, Some(ours), Some(Some(Asn(7)))),
        (Role::RouteServer, Some(ours), Some(Some(Asn(7)))),
        (Role::Peer, Some(ours), None),
        (Role::Customer, Some(None), None),
        (Role::RouteServerClient, Some(None), None),
    ];
    for (role, unmarked, marked) in cases {
        for (otc, expected) in [(None, unmarked), (Some(Asn(7)), marked)] {
            let mut rib = rib(vec![neighbor(0, Customer), PeerConfig { role: Some(role), ..neighbor(1, Customer) }]);
            rib.update(Time(1), PeerId(0), &announce(&[P], Attributes { only_to_customer: otc, ..path(&[100]) }));
            let told = sent(&mut rib, 1).map(|(attributes, _)| attributes.only_to_customer);
            assert_eq!(told, expected, "{role:?}, {otc:?}");
        }
        let mut rib = rib(vec![PeerConfig { role: Some(role), ..neighbor(0, Customer) }]);
        rib.announce(PeerId(0), own(Q));
        assert_eq!(sent(&mut rib, 0).map(|(a, _)| a.only_to_customer), unmarked, "our own, {role:?}");
    }
}

#[test]
fn reflection_to_clients() {
    let client = |i| PeerConfig { route_reflector_client: true, ..internal(i) };
    let mut rib = rib(vec![client(0), client(1), internal(2), internal(3)]);
    let with_med = Attributes { med: Some(7), local_pref: Some(150), ..path(&[9]) };
    rib.update(Time(1), PeerId(0), &announce(&[P], with_med.clone()));
    rib.update(Time(1), PeerId(2), &announce(&[Q], path(&[9])));
    assert_eq!(changes(&mut rib, 0)[0].announced.as_ref().unwrap().2, [prefix(Q)]);
    // From a client to all but itself, all else and the next hop unchanged; from another to clients only.
    let told = changes(&mut rib, 3);
    let [change] = &told[..] else { panic!("one change") };
    let (attributes, next_hop, prefixes) = change.announced.as_ref().unwrap();
    assert_eq!((*next_hop, &prefixes[..]), (NEXT_HOP, &[prefix(P)][..]));
    let own_id = Ipv4Addr::new(10, 1, 1, 1);
    let reflected = Attributes { originator_id: Some(router_id(0)), cluster_list: vec![own_id], ..with_med };
    assert_eq!(**attributes, reflected);
    // An originator known already stays, the list grows in front; what we reflected before is not used.
    let far = Attributes { cluster_list: vec![router_id(9)], originator_id: Some(router_id(8)), ..path(&[9]) };
    rib.update(Time(2), PeerId(0), &announce(&[P], far));
    let (attributes, _) = sent(&mut rib, 3).unwrap();
    assert_eq!(
        (attributes.originator_id, &attributes.cluster_list[..]),
        (Some(router_id(8)), &[own_id, router_id(9)][..])
    );
    rib.update(Time(3), PeerId(0), &announce(&[P], Attributes { cluster_list: vec![own_id], ..path(&[9]) }));
    assert_eq!(changes(&mut rib, 3), [withdrawal(&[P])]);
    assert_eq!(rib.candidates(prefix(P))[0].step.unwrap().to_string(), "we have reflected it before");
}

#[test]
fn communities_that_keep_a_route_from_some() {
    // To a peer, to a customer, to an internal neighbour.
    let cases = [(0xFFFF_FF04, [false, true, true]), (0xFFFF_029A, [false, false, true])];
    for (community, expected) in cases {
        let mut rib = rib(vec![internal(0), neighbor(1, Peer), neighbor(2, Customer), internal(3)]);
        rib.peers[0].as_mut().unwrap().config.route_reflector_client = true;
        let attributes = Attributes { as_path: AsPath::default(), ..tagged(community) };
        rib.update(Time(1), PeerId(0), &announce(&[P], attributes));
        let told = [1, 2, 3].map(|peer| sent(&mut rib, peer).is_some());
        assert_eq!(told, expected, "{community:#x}");
    }
}

#[test]
fn a_blackhole_nobody_agreed_on_is_not_used() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Customer)]);
    rib.update(Time(1), PeerId(0), &announce(&["198.51.100.53/32"], tagged(0xFFFF_029A)));
    rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100])));
    assert_eq!((best(&rib, "198.51.100.53/32"), best(&rib, P)), (None, Some((0, 0))));
    let step = rib.candidates(prefix("198.51.100.53/32"))[0].step.unwrap();
    assert_eq!(step.to_string(), "BLACKHOLE is not agreed on");
}

fn local_of(text: [Option<&str>; 4]) -> Local {
    let [address, ipv4, ipv6, link_local] = text;
    Local {
        address: address.unwrap().parse().unwrap(),
        ipv4: ipv4.map(|a| a.parse().unwrap()),
        ipv6: ipv6.map(|a| a.parse().unwrap()),
        link_local: link_local.map(|a| a.parse().unwrap()),
    }
}

#[test]
fn next_hops_of_each_family() {
    let v4 = |text: &str| NextHop::V4(text.parse().unwrap());
    let v6 = |global: &str, ll: Option<&str>| NextHop::V6 {
        global: global.parse().unwrap(),
        link_local: ll.map(|a| a.parse::<Ipv6Addr>().unwrap()),
    };
    let third =
        NextHopConfig { ipv4: "203.0.113.99".parse().ok(), ipv6: "2001:db8::99".parse().ok(), unchanged: false };
    let theirs = NextHopConfig { ipv4: Some(Ipv4Addr::new(192, 0, 2, 1)), ..NextHopConfig::default() };
    let nothing = NextHopConfig::default();
    let (a4, a6, ll) = (Some("203.0.113.1"), Some("2001:db8::1"), Some("fe80::1"));
    // Our addresses, RFC 8950 agreed, configured; next hops of IPv4 and IPv6.
    let cases = [
        ([a4, a4, None, None], false, nothing, (Some(v4("203.0.113.1")), None)),
        ([a4, a4, a6, None], false, nothing, (Some(v4("203.0.113.1")), Some(v6("2001:db8::1", None)))),
        ([a6, None, a6, ll], false, nothing, (None, Some(v6("2001:db8::1", ll)))),
        ([a6, None, a6, ll], true, nothing, (Some(v6("2001:db8::1", ll)), Some(v6("2001:db8::1", ll)))),
        ([ll, None, None, ll], true, nothing, (Some(v6("fe80::1", None)), Some(v6("fe80::1", None)))),
        ([a6, a4, a6, ll], true, nothing, (Some(v4("203.0.113.1")), Some(v6("2001:db8::1", ll)))),
        ([a4, a4, a6, ll], false, third, (Some(v4("203.0.113.99")), Some(v6("2001:db8::99", None)))),
        ([a4, a4, a6, ll], false, theirs, (None, Some(v6("2001:db8::1", ll)))),
    ];
    for (local, extended, next_hop, expected) in cases {
        let config = PeerConfig { next_hop, families: AddressFamilies::UNICAST, ..neighbor(0, Transit) };
        let own_id = Ipv4Addr::new(10, 1, 1, 1);
        let mut rib = Rib::new(SpeakerConfig { peers: vec![config], ..SpeakerConfig::new(OWN_AS, own_id, 0) });
        let extended = if extended { AddressFamilies::only(V4) } else { AddressFamilies::NONE };
        rib.peer_up(PeerId(0), local_of(local), router_id(0), AddressFamilies::UNICAST, extended, false);
        rib.announce(PeerId(0), own(P));
        rib.announce(PeerId(0), own("2001:db8:53::/48"));
        let mut got = (None, None);
        for change in changes(&mut rib, 0) {
            let (_, next_hop, prefixes) = change.announced.unwrap();
            let [prefix] = prefixes[..] else { panic!("families in messages of their own") };
            match Family::of(&prefix) {
                Family::Ipv4 => got.0 = Some(next_hop),
                Family::Ipv6 => got.1 = Some(next_hop),
            }
        }
        assert_eq!(got, expected, "{local:?}, {next_hop:?}");
        let missing = usize::from(expected.0.is_none()) + usize::from(expected.1.is_none());
        assert_eq!((rib.counters(PeerId(0)).withheld, rib.withheld(PeerId(0)).count()), (missing, missing));
    }
}

#[test]
fn internal_neighbours_may_keep_the_next_hop() {
    let keeps = PeerConfig { next_hop: NextHopConfig { unchanged: true, ..NextHopConfig::default() }, ..internal(1) };
    let mut rib = rib(vec![neighbor(0, Customer), keeps, internal(2)]);
    rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100])));
    let next_hop = |rib: &mut Rib, peer| changes(rib, peer)[0].announced.as_ref().unwrap().1;
    assert_eq!((next_hop(&mut rib, 1), next_hop(&mut rib, 2)), (NEXT_HOP, NextHop::V4(local(2))));
    // Never the neighbour's own address: it would send packets to itself.
    let mut update = announce(&[P], path(&[100, 1]));
    update.announced[0].next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 2));
    rib.update(Time(2), PeerId(0), &update);
    assert_eq!(changes(&mut rib, 1), [withdrawal(&[P])]);
    assert_eq!(rib.counters(PeerId(1)).withheld, 1);
}

/// Whatever an observed neighbour says, with any attribute, nobody else hears a word and nothing is to be installed.
#[test]
fn an_edge_passes_nothing_on() {
    let edge = |i| PeerConfig { import: Import::Observe, export: Export::OwnOnly, ..neighbor(i, Transit) };
    let listens = |i| PeerConfig { import: Import::Observe, ..neighbor(i, Customer) };
    let mut rib = rib(vec![edge(0), edge(1), listens(2), PeerConfig { import: Import::Observe, ..internal(3) }]);
    let unknown = |flags, code| RawAttribute { flags, code, value: vec![1] };
    let attributes = Attributes { unknown: (0..=255).map(|code| unknown(0xC0, code)).collect(), ..path(&[100]) };
    for peer in 0..4 {
        rib.update(Time(1), PeerId(peer), &announce(&[P, Q], attributes.clone()));
    }
    assert_eq!(rib.best_routes().count(), 0);
    assert_eq!(rib.poll_best(), None);
    for peer in 0..4 {
        assert_eq!((rib.poll_changes(PeerId(peer)), rib.counters(PeerId(peer)).received), (None, 2));
    }
}

#[test]
fn numbers_of_neighbours_are_used_again() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Customer), neighbor(2, Peer)]);
    rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100])));
    rib.add_peer(PeerId(0), neighbor(7, Peer));
    assert_eq!(rib.counters(PeerId(0)).received, 1, "taken");
    rib.remove_peer(PeerId(0));
    assert_eq!((best(&rib, P), rib.counters(PeerId(0)).announcements_in), (None, 0));
    rib.add_peer(PeerId(0), neighbor(7, Peer));
    up(&mut rib, 0);
    rib.update(Time(2), PeerId(0), &announce(&[P], path(&[800])));
    assert_eq!(best(&rib, P), Some((0, 0)));
    rib.add_peer(PeerId(9), neighbor(9, Peer));
    assert_eq!(rib.peers.len(), 3);
}

#[test]
fn a_reader_pages_through() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Peer)]);
    let all: Vec<String> = (0..50).map(|i| format!("10.{i}.0.0/16")).collect();
    rib.update(Time(1), PeerId(0), &announce(&all.iter().map(String::as_str).collect::<Vec<_>>(), path(&[100])));
    changes(&mut rib, 1);
    let (mut start, mut seen) = (None, vec![]);
    loop {
        let page: Vec<_> = rib.received(PeerId(0), start).take(8).map(|r| r.prefix).collect();
        assert!(rib.advertised(PeerId(1), start).take(8).map(|r| r.prefix).eq(page.iter().copied()));
        assert!(rib.prefixes(start).take(8).eq(page.iter().copied()));
        seen.extend_from_slice(&page[..page.len().min(7)]);
        match page.get(7) {
            Some(next) => start = Some(*next),
            None => break,
        }
    }
    assert!(seen.iter().map(ToString::to_string).eq(all));
    assert_eq!(rib.received(PeerId(0), Some(prefix("2001:db8::/32"))).count(), 0);
}

#[test]
fn packing_loses_nothing() {
    let all = Attributes {
        origin: Origin::Incomplete,
        as_path: AsPath(vec![
            Segment::Sequence((0..200).map(Asn).collect()),
            Segment::Set(vec![Asn(u32::MAX)]),
            Segment::ConfedSequence(vec![Asn(1), Asn(2)]),
            Segment::ConfedSet(vec![]),
        ]),
        med: Some(0),
        local_pref: Some(u32::MAX),
        atomic_aggregate: true,
        aggregator: Some(Aggregator { asn: Asn(7), router_id: Ipv4Addr::new(1, 2, 3, 4) }),
        communities: (0..300).map(Community).collect(),
        extended_communities: vec![[1, 2, 3, 4, 5, 6, 7, 8]],
        large_communities: vec![ubique_model::LargeCommunity([1, 2, 3])],
        originator_id: Some(Ipv4Addr::new(4, 3, 2, 1)),
        cluster_list: vec![Ipv4Addr::LOCALHOST; 3],
        only_to_customer: Some(Asn(9)),
        unknown: vec![
            RawAttribute { flags: 0xE0, code: 99, value: vec![7; 500] },
            RawAttribute { flags: 0xC0, code: 98, value: vec![] },
        ],
    };
    let link_local = Some("fe80::1".parse().unwrap());
    let next_hops = [
        NEXT_HOP,
        NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: None },
        NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local },
    ];
    for attributes in [all, Attributes::originated(), path(&[100, 200])] {
        for next_hop in next_hops {
            let mut octets = vec![];
            pack(&attributes, next_hop, &mut octets);
            let packed = Packed::new(&octets);
            assert_eq!(packed.unpack(), (attributes.clone(), next_hop));
            let json = serde_json::to_string(&packed).unwrap();
            assert_eq!(serde_json::from_str::<Packed>(&json).unwrap(), packed);
            // Cut anywhere: nonsense, never a panic.
            for end in 0..octets.len() {
                let _ = Packed::new(&octets[..end]).unpack();
            }
        }
    }
}

/// What a full table costs, as far as sizes tell: see `cargo xtask bench table` for what is resident.
#[test]
fn a_route_is_small() {
    assert_eq!(size_of::<super::super::table::Slot>(), 16);
    assert!(size_of::<super::super::offers::Offer>() <= 48, "{}", size_of::<super::super::offers::Offer>());
    let mut octets = vec![];
    let communities = vec![Community(1), Community(2), Community(3)];
    pack(&Attributes { communities, med: Some(1), ..path(&[1, 2, 3, 4, 5]) }, NEXT_HOP, &mut octets);
    assert!(octets.len() <= 48, "{}", octets.len());
}
