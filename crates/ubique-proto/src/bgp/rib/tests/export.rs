//! Named cases: what each neighbour is sent.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ubique_model::policy::Announcement;
use ubique_model::{Asn, Community, Relation};

use super::common::*;
use crate::Time;
use crate::bgp::attributes::{Aggregator, Attributes, NextHop, RawAttribute};
use crate::bgp::family::AddressFamily;
use crate::bgp::rib::{Change, MAX_CHANGE};
use crate::bgp::speaker::{Export, Import, PeerConfig, PeerId};

use Relation::{Customer, Peer, RouteServer, Transit};

#[test]
fn a_route_of_a_customer_goes_to_everyone_else_with_our_as_once() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Peer), neighbor(2, Transit)]);
    rib.update(Time(1), PeerId(0), &announce(&[P], Attributes { med: Some(7), ..path(&[100]) }));
    assert_eq!(rib.poll_best(), Some((prefix(P), Some((NEXT_HOP, PeerId(0))))));
    assert_eq!(rib.poll_best(), None);
    assert_eq!(changes(&mut rib, 0), vec![]);
    for peer in [1, 2] {
        let sent = (Arc::new(path(&[64500, 100])), NextHop::V4(local(peer)), vec![prefix(P)]);
        assert_eq!(changes(&mut rib, peer), [Change { withdrawn: vec![], announced: Some(sent) }]);
    }
}

/// Gao-Rexford, every relation to every relation, and our own routes.
#[test]
fn export_table() {
    let relations = [Customer, Peer, RouteServer, Transit];
    #[rustfmt::skip]
    let allowed = [
        //  to: customer peer   rs     transit
        (Some(Customer),    [true, true,  true,  true]),
        (Some(Peer),        [true, false, false, false]),
        (Some(RouteServer), [true, false, false, false]),
        (Some(Transit),     [true, false, false, false]),
        (None,              [true, true,  true,  true]),
    ];
    for (from, row) in allowed {
        for (to, allowed) in relations.into_iter().zip(row) {
            let mut rib = rib(vec![neighbor(0, from.unwrap_or(Peer)), neighbor(1, to)]);
            match from {
                Some(_) => rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100]))),
                None => rib.originate(prefix(P)),
            }
            assert_eq!(sent(&mut rib, 1).is_some(), allowed, "{from:?} to {to:?}");
        }
    }
}

#[test]
fn own_announcements_reach_only_their_neighbor_and_outlive_the_session() {
    let edge = |i, r| PeerConfig { import: Import::Observe, export: Export::OwnOnly, ..neighbor(i, r) };
    let mut rib = rib(vec![edge(0, Transit), edge(1, Peer)]);
    rib.originate(prefix(Q));
    let communities = vec![Community::NO_EXPORT];
    rib.announce(PeerId(0), Announcement { prepend: 2, med: Some(5), communities, ..own(P) });
    let first = changes(&mut rib, 0);
    let attributes =
        Attributes { med: Some(5), communities: vec![Community::NO_EXPORT], ..path(&[64500, 64500, 64500]) };
    let announced = Some((Arc::new(attributes), NextHop::V4(local(0)), vec![prefix(P)]));
    assert_eq!(first, [Change { withdrawn: vec![], announced }]);
    assert_eq!(changes(&mut rib, 1), vec![]);

    rib.peer_down(PeerId(0));
    assert_eq!(rib.poll_changes(PeerId(0)), None);
    assert_eq!(rib.advertised(PeerId(0), None).count(), 0);
    up(&mut rib, 0);
    assert_eq!(changes(&mut rib, 0), first);
    rib.withdraw(PeerId(0), prefix(P));
    assert_eq!(changes(&mut rib, 0), [withdrawal(&[P])]);
}

#[test]
fn an_announcement_for_one_neighbor_comes_before_the_best_route() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Peer)]);
    rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100])));
    rib.announce(PeerId(1), own(P));
    assert_eq!(*sent(&mut rib, 1).unwrap().0, path(&[64500]));
    rib.withdraw(PeerId(1), prefix(P));
    assert_eq!(*sent(&mut rib, 1).unwrap().0, path(&[64500, 100]));
}

#[test]
fn only_net_effects_are_sent() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Peer)]);
    let route = || announce(&[P], path(&[100]));
    rib.update(Time(1), PeerId(0), &route());
    rib.update(Time(2), PeerId(0), &withdraw(&[P, Q]));
    assert_eq!((rib.poll_best(), rib.poll_changes(PeerId(1))), (None, None));

    rib.update(Time(3), PeerId(0), &route());
    assert!(sent(&mut rib, 1).is_some() && rib.poll_best().is_some());
    rib.update(Time(4), PeerId(0), &withdraw(&[P]));
    rib.update(Time(5), PeerId(0), &route());
    assert_eq!((rib.poll_best(), rib.poll_changes(PeerId(1))), (None, None));
    // A change that export policy hides: the MED is not passed on.
    rib.update(Time(6), PeerId(0), &announce(&[P], Attributes { med: Some(9), ..path(&[100]) }));
    assert_eq!((rib.poll_best(), rib.poll_changes(PeerId(1))), (None, None));
    assert_eq!((rib.is_settled(), rib.poll_changes(PeerId(0)), rib.is_settled()), (false, None, true));
}

#[test]
fn a_staged_change_that_no_longer_holds_is_not_sent() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Peer)]);
    rib.update(Time(1), PeerId(0), &announce(&[P], path(&[100])));
    rib.update(Time(1), PeerId(0), &announce(&[Q], path(&[100, 7])));
    let first = rib.poll_changes(PeerId(1)).unwrap().announced.unwrap();
    assert_eq!(first.2, [prefix(P)]);
    rib.update(Time(2), PeerId(0), &withdraw(&[P, Q]));
    assert_eq!(changes(&mut rib, 1), [withdrawal(&[P])]);
    assert_eq!(rib.advertised(PeerId(1), None).count(), 0);
}

#[test]
fn prefixes_with_equal_attributes_travel_together_and_withdrawals_first() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Peer)]);
    rib.update(Time(1), PeerId(0), &announce(&["192.0.2.0/24"], path(&[100])));
    assert!(sent(&mut rib, 1).is_some());
    rib.update(Time(2), PeerId(0), &announce(&[P], path(&[100])));
    rib.update(Time(2), PeerId(0), &announce(&["10.0.0.0/8"], path(&[100, 7])));
    rib.update(Time(2), PeerId(0), &announce(&[Q], path(&[100])));
    rib.update(Time(2), PeerId(0), &withdraw(&["192.0.2.0/24"]));
    let mut got = changes(&mut rib, 1).into_iter();
    assert_eq!(got.next(), Some(withdrawal(&["192.0.2.0/24"])));
    let groups: Vec<_> = got.map(|c| c.announced.unwrap().2).collect();
    assert_eq!(groups, [vec![prefix("10.0.0.0/8")], vec![prefix(P), prefix(Q)]]);
}

#[test]
fn a_refresh_sends_everything_again_and_nothing_else_does() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Peer)]);
    rib.update(Time(1), PeerId(0), &announce(&[P, Q], path(&[100])));
    assert_eq!(sent(&mut rib, 1).unwrap().1, 2);
    rib.refresh(PeerId(1), AddressFamily::Ipv4Unicast);
    rib.update(Time(2), PeerId(0), &withdraw(&[Q]));
    assert_eq!(rib.advertised(PeerId(1), None).count(), 2);
    let again = changes(&mut rib, 1);
    assert_eq!(again[0], withdrawal(&[Q]));
    assert_eq!(again[1].announced.as_ref().unwrap().2, [prefix(P)]);
    assert_eq!((again.len(), rib.poll_changes(PeerId(1))), (2, None));
}

#[test]
fn well_known_communities_are_honoured() {
    for (community, internal_too) in
        [(Community::NO_EXPORT, false), (Community(0xFFFF_FF03), false), (Community::NO_ADVERTISE, true)]
    {
        let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Customer), internal(2)]);
        let attributes = Attributes { communities: vec![Community(1), community], ..path(&[100]) };
        rib.update(Time(1), PeerId(0), &announce(&[P], attributes));
        assert!(rib.poll_best().is_some());
        assert!(sent(&mut rib, 1).is_none(), "{community}");
        assert_eq!(sent(&mut rib, 2).is_none(), internal_too, "{community}");
    }
}

#[test]
fn internal_sessions() {
    let mut rib = rib(vec![neighbor(0, Peer), internal(1), internal(2), neighbor(3, Customer)]);
    rib.update(Time(1), PeerId(0), &announce(&[P], Attributes { med: Some(7), ..path(&[100]) }));
    let (attributes, _) = sent(&mut rib, 1).unwrap();
    assert_eq!(*attributes, Attributes { med: Some(7), local_pref: Some(200), ..path(&[100]) });
    // No route of an internal neighbour goes to another one (RFC 4271 §9.2); LOCAL_PREF defaults to 100.
    rib.update(Time(2), PeerId(1), &announce(&[Q], path(&[7])));
    assert_eq!(sent(&mut rib, 2).map(|(_, count)| count), Some(1));
    assert_eq!(rib.candidates(prefix(Q))[0].local_pref, 100);
    let both = changes(&mut rib, 3);
    assert_eq!(both.len(), 2);
    // Our own announcement carries the mandatory LOCAL_PREF and an empty path.
    rib.announce(PeerId(2), Announcement { prepend: 3, ..own(Q) });
    let (attributes, _) = sent(&mut rib, 2).unwrap();
    assert_eq!(*attributes, Attributes { local_pref: Some(100), ..path(&[]) });
}

#[test]
fn unknown_attributes_pass_on_when_transitive_and_say_so() {
    let raw = |flags, code| RawAttribute { flags, code, value: vec![1, 2] };
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Peer), internal(2)]);
    let attributes = Attributes {
        unknown: vec![raw(0xC0, 99), raw(0x80, 98), raw(0xE0, 97)],
        extended_communities: vec![[0, 2, 0, 0, 0, 0, 0, 1], [0x40, 4, 0, 0, 0, 0, 0, 2]],
        aggregator: Some(Aggregator { asn: Asn(100), router_id: Ipv4Addr::LOCALHOST }),
        atomic_aggregate: true,
        ..path(&[100])
    };
    rib.update(Time(1), PeerId(0), &announce(&[P], attributes.clone()));
    let (external, _) = sent(&mut rib, 1).unwrap();
    assert_eq!(external.unknown, [raw(0xE0, 99), raw(0xE0, 97)]);
    assert_eq!(external.extended_communities, [[0, 2, 0, 0, 0, 0, 0, 1]]);
    assert_eq!((external.aggregator, external.atomic_aggregate), (attributes.aggregator, true));
    let (internal, _) = sent(&mut rib, 2).unwrap();
    assert_eq!(internal.extended_communities.len(), 2);
}

#[test]
fn changes_survive_a_recording() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Peer)]);
    rib.update(Time(1), PeerId(0), &announce(&[P, Q], path(&[100])));
    let mut recorded = changes(&mut rib, 1);
    rib.update(Time(2), PeerId(0), &withdraw(&[P]));
    recorded.extend(changes(&mut rib, 1));
    assert_eq!(recorded.len(), 2);
    for change in recorded {
        let json = serde_json::to_string(&change).unwrap();
        assert_eq!(serde_json::from_str::<Change>(&json).unwrap(), change, "{json}");
    }
    let candidates = rib.candidates(prefix(Q));
    let json = serde_json::to_string(&candidates).unwrap();
    assert_eq!(serde_json::from_str::<Vec<crate::bgp::rib::Candidate>>(&json).unwrap(), candidates);
}

#[test]
fn a_table_is_handed_out_in_parts() {
    let mut rib = rib(vec![neighbor(0, Customer), neighbor(1, Peer)]);
    let names: Vec<String> = (0..2 * MAX_CHANGE + 1).map(|i| format!("10.{}.{}.0/24", i / 256, i % 256)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    rib.update(Time(1), PeerId(0), &announce(&names, path(&[100])));
    let parts = |rib: &mut crate::bgp::rib::Rib| -> Vec<usize> {
        let count =
            |change: Change| change.withdrawn.len() + change.announced.map_or(0, |(.., prefixes)| prefixes.len());
        changes(rib, 1).into_iter().map(count).collect()
    };
    assert_eq!(parts(&mut rib), [MAX_CHANGE, MAX_CHANGE, 1]);
    rib.peer_down(PeerId(0));
    assert_eq!(parts(&mut rib), [MAX_CHANGE, MAX_CHANGE, 1]);
}
