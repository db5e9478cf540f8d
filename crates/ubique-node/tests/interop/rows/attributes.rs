//! Attributes of routes.

use std::collections::BTreeSet;

use ubique_model::policy::Announcement;

use crate::cell::Cell;
use crate::matrix::Row;
use crate::peer::{OUR_AS, Setup};
use crate::us;

pub const ROWS: &[Row] = &[
    Row {
        name: "update",
        what: "MED, prepending and communities of a route change: the peer shows the new ones alone (implicit replacement)",
        run: update,
        cannot: &[],
    },
    Row {
        name: "communities",
        what: "standard, well-known and large communities arrive as sent (RFC 1997, RFC 8092)",
        run: communities,
        cannot: &[],
    },
];

fn set(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|c| (*c).to_owned()).collect()
}

fn update(cell: &Cell) {
    let mut pair = cell.up(&cell.setup());
    let first = Announcement {
        prepend: 2,
        med: Some(10),
        communities: vec!["64500:1".parse().unwrap()],
        large_communities: vec!["64500:1:1".parse().unwrap()],
        ..us::announcement(cell.our_prefix())
    };
    pair.us.announce(first.clone());
    let route = pair.until("the peer shows our route", |p| p.peer.route(cell.our_prefix()));
    assert_eq!((route.as_path, route.med), (vec![OUR_AS; 3], Some(10)));
    let second = Announcement {
        prepend: 0,
        med: Some(20),
        communities: vec!["64500:2".parse().unwrap()],
        large_communities: vec![],
        ..first
    };
    pair.us.announce(second);
    let new = |route: &crate::seen::Seen| route.med == Some(20);
    let route = pair.until("the peer shows the new MED", |p| p.peer.route(cell.our_prefix()).filter(new));
    assert_eq!(route.as_path, [OUR_AS]);
    assert_eq!((route.communities, route.large), (set(&["64500:2"]), set(&[])));
}

fn communities(cell: &Cell) {
    let mut pair = cell.up(&Setup { ..cell.setup() });
    let standard = ["64500:1", "64500:65535", "65535:0", "65535:65281"];
    let large = ["64500:1:2", "4200000000:4294967295:0"];
    pair.us.announce(Announcement {
        communities: standard.iter().map(|c| c.parse().unwrap()).collect(),
        large_communities: large.iter().map(|c| c.parse().unwrap()).collect(),
        ..us::announcement(cell.our_prefix())
    });
    let route = pair.until("the peer shows our route", |p| p.peer.route(cell.our_prefix()));
    assert_eq!((route.communities, route.large), (set(&standard), set(&large)));
}
