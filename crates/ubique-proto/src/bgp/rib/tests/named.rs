//! Named cases.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ubique_model::policy::Announcement;
use ubique_model::{Asn, Community, Prefix, Relation};

use crate::Time;
use crate::bgp::attributes::{AsPath, Attributes, NextHop};
use crate::bgp::message::{Reach, Update};
use crate::bgp::rib::{Change, Rib, RibConfig, RibPeer};
use crate::bgp::speaker::{Export, Import, PeerId};

pub(super) const OWN_AS: Asn = Asn(64500);

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

/// A neighbour of AS 100 × (index + 1) with Gao-Rexford policy both ways.
pub(super) fn neighbor(index: u32, relation: Relation) -> RibPeer {
    RibPeer {
        address: address(index),
        asn: Asn(100 * (index + 1)),
        relation,
        import: Import::GaoRexford,
        export: Export::GaoRexford,
    }
}

pub(super) fn rib(peers: Vec<RibPeer>) -> Rib {
    let count = peers.len() as u32;
    let router_id_own = Ipv4Addr::new(10, 1, 1, 1);
    let config = RibConfig {
        asn: OWN_AS,
        router_id: router_id_own,
        peers,
        prefer_oldest: false,
    };
    let mut rib = Rib::new(config);
    for peer in 0..count {
        rib.peer_up(
            Time::ZERO,
            PeerId(peer),
            IpAddr::V4(local(peer)),
            router_id(peer),
        );
    }
    rib
}

pub(super) fn path(ases: &[u32]) -> Attributes {
    Attributes {
        as_path: AsPath::sequence(ases.iter().map(|&a| Asn(a))),
        ..Attributes::originated()
    }
}

pub(super) fn announce(prefixes: &[&str], attributes: Attributes) -> Update {
    Update {
        withdrawn: vec![],
        announced: vec![Reach {
            next_hop: NextHop::V4(Ipv4Addr::new(192, 0, 2, 200)),
            prefixes: prefixes.iter().map(|p| prefix(p)).collect(),
        }],
        attributes: Some(Arc::new(attributes)),
        end_of_rib: None,
        faults: vec![],
    }
}

pub(super) fn withdraw(prefixes: &[&str]) -> Update {
    Update {
        withdrawn: prefixes.iter().map(|p| prefix(p)).collect(),
        announced: vec![],
        attributes: None,
        end_of_rib: None,
        faults: vec![],
    }
}

pub(super) fn changes(rib: &mut Rib, peer: u32) -> Vec<Change> {
    std::iter::from_fn(|| rib.poll_changes(PeerId(peer))).collect()
}

pub(super) fn own(text: &str) -> Announcement {
    Announcement {
        prefix: prefix(text),
        prepend: 0,
        med: None,
        communities: vec![],
        large_communities: vec![],
    }
}

const P: &str = "198.51.100.0/24";

#[test]
fn a_route_of_a_customer_goes_to_everyone_else_with_our_as_once() {
    use Relation::{Customer, Peer, Transit};
    let mut rib = rib(vec![
        neighbor(0, Customer),
        neighbor(1, Peer),
        neighbor(2, Transit),
    ]);
    rib.update(
        Time(1),
        PeerId(0),
        &announce(
            &[P],
            Attributes {
                med: Some(7),
                ..path(&[100])
            },
        ),
    );
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 200));
    assert_eq!(
        rib.poll_best(),
        Some((prefix(P), Some((next_hop, PeerId(0)))))
    );
    assert_eq!(rib.poll_best(), None);
    assert_eq!(changes(&mut rib, 0), vec![]);
    for peer in [1, 2] {
        let sent = (
            Arc::new(path(&[64500, 100])),
            NextHop::V4(local(peer)),
            vec![prefix(P)],
        );
        let change = Change {
            withdrawn: vec![],
            announced: Some(sent),
        };
        assert_eq!(changes(&mut rib, peer), vec![change]);
    }
}

#[test]
fn own_announcements_reach_only_their_neighbor_and_outlive_the_session() {
    let observe = |i, r| RibPeer {
        import: Import::Observe,
        export: Export::OwnOnly,
        ..neighbor(i, r)
    };
    let mut rib = rib(vec![
        observe(0, Relation::Transit),
        observe(1, Relation::Peer),
    ]);
    let communities = vec![Community::NO_EXPORT];
    rib.announce(
        PeerId(0),
        Announcement {
            prepend: 2,
            med: Some(5),
            communities,
            ..own(P)
        },
    );
    let [change] = &changes(&mut rib, 0)[..] else {
        panic!("one change")
    };
    let (attributes, next_hop, prefixes) = change.announced.clone().unwrap();
    assert_eq!(attributes.as_path, AsPath::sequence([OWN_AS; 3]));
    assert_eq!((attributes.med, attributes.local_pref), (Some(5), None));
    assert_eq!(attributes.communities, [Community::NO_EXPORT]);
    assert_eq!(
        (next_hop, prefixes),
        (NextHop::V4(local(0)), vec![prefix(P)])
    );
    assert_eq!(changes(&mut rib, 1), vec![]);

    rib.peer_down(PeerId(0));
    assert_eq!(rib.poll_changes(PeerId(0)), None);
    assert_eq!(rib.advertised(PeerId(0)).count(), 0);
    rib.peer_up(Time(9), PeerId(0), IpAddr::V4(local(0)), router_id(0));
    assert_eq!(changes(&mut rib, 0), vec![change.clone()]);
}
