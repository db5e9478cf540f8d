//! Attributes of routes.

use std::collections::BTreeSet;

use ubique_model::policy::Announcement;

use crate::cell::Cell;
use crate::matrix::{Cannot, Proof, Row};
use crate::peer::{Kind, OUR_AS, Setup};
use crate::us;

pub const ROWS: &[Row] = &[
    Row::new(
        "update",
        "MED, prepending and communities of a route change: the peer shows the new ones alone (implicit replacement)",
        update,
    ),
    Row::new(
        "extended-communities",
        "a route target and a route origin arrive as sent (RFC 4360)",
        extended_communities,
    ),
    Row::new("blackhole", "a host route with BLACKHOLE (RFC 7999) is shown as it was sent", blackhole),
    Row::new(
        "graceful-shutdown",
        "the peer prefers our route least, LOCAL_PREF 0, once it has GRACEFUL_SHUTDOWN (RFC 8326)",
        graceful_shutdown,
    )
    .but(&[Cannot::new(
        Kind::Exabgp,
        "it chooses no routes: there is no preference to lower",
        Proof::Run(community_alone),
    )]),
    Row::new(
        "third-party-next-hop",
        "the next hop we are told to announce, another address of the link, is what the peer shows (RFC 4271 §5.1.3)",
        third_party,
    ),
    Row::new(
        "communities",
        "standard, well-known and large communities arrive as sent (RFC 1997, RFC 8092)",
        communities,
    ),
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

fn extended_communities(cell: &Cell) {
    let mut pair = cell.up(&cell.setup());
    pair.us.announce(Announcement {
        extended_communities: vec!["rt:64500:7".parse().unwrap(), "ro:64500:8".parse().unwrap()],
        ..us::announcement(cell.our_prefix())
    });
    let route = pair.until("the peer shows our route", |p| p.peer.route(cell.our_prefix()));
    let raw: String = route.raw.to_lowercase().chars().filter(|c| !" \n\t".contains(*c)).collect();
    // In the words of each: BIRD, FRR, OpenBGPD, ExaBGP, and the parts of GoBGP's JSON.
    let has = |forms: &[&str]| forms.iter().any(|form| raw.contains(form));
    let target = ["(rt,64500,7)", "rt:64500:7", "rt64500:7", "target:64500:7", "\"subtype\":2,\"value\":\"64500:7\""];
    let origin = [
        "(ro,64500,8)",
        "origin:64500:0.0.0.8",
        "soo:64500:8",
        "soo64500:8",
        "origin:64500:8",
        "\"subtype\":3,\"value\":\"64500:8\"",
    ];
    assert!(has(&target) && has(&origin), "{}", route.raw);
}

fn blackhole(cell: &Cell) {
    let mut pair = cell.up(&cell.setup());
    let prefix = ubique_model::Prefix::from(cell.our_prefix().addr());
    pair.us.announce(Announcement { communities: vec!["65535:666".parse().unwrap()], ..us::announcement(prefix) });
    let route = pair.until("the peer shows our route", |p| p.peer.route(prefix));
    assert!(route.communities.contains("65535:666"), "{route:?}");
}

fn graceful_shutdown(cell: &Cell) {
    let mut setup = cell.setup();
    match cell.kind {
        Kind::Bird => {
            setup.channel = "import filter { if (65535,0) ~ bgp_community then bgp_local_pref = 0; accept; };".into();
        }
        // It does so by itself.
        Kind::Frr => {}
        Kind::Gobgp => setup.global = GOBGP_POLICY.into(),
        Kind::Openbgpd => setup.channel = "match from any community GRACEFUL_SHUTDOWN set { localpref 0 }".into(),
        Kind::Exabgp => unreachable!("it cannot"),
    }
    let mut pair = cell.up(&setup);
    let route = super::basic::announced(cell, &mut pair);
    assert_ne!(route.local_pref, Some(0), "{route:?}");
    pair.us.announce(us::announcement(cell.our_prefix()).graceful_shutdown());
    // GoBGP's policies take 0 for "leave it".
    let least = if cell.kind == Kind::Gobgp { 1 } else { 0 };
    pair.until_true("the preference is lowered", |p| {
        p.peer
            .route(cell.our_prefix())
            .is_some_and(|r| r.local_pref == Some(least) && r.communities.contains("65535:0"))
    });
}

const GOBGP_POLICY: &str = r#"
[global.apply-policy.config]
import-policy-list = ["shutdown"]
default-import-policy = "accept-route"
[[defined-sets.bgp-defined-sets.community-sets]]
community-set-name = "shutdown"
community-list = ["65535:0"]
[[policy-definitions]]
name = "shutdown"
[[policy-definitions.statements]]
name = "shutdown"
[policy-definitions.statements.conditions.bgp-conditions.match-community-set]
community-set = "shutdown"
[policy-definitions.statements.actions.bgp-actions]
set-local-pref = 1
"#;

fn community_alone(cell: &Cell) {
    let mut pair = cell.up(&cell.setup());
    pair.us.announce(us::announcement(cell.our_prefix()).graceful_shutdown());
    let route = pair.until("the peer shows our route", |p| p.peer.route(cell.our_prefix()));
    assert_eq!((route.communities, route.local_pref), (set(&["65535:0"]), None));
}

fn third_party(cell: &Cell) {
    let third: std::net::IpAddr =
        if cell.ours().contains(':') { "2001:db8:1::9" } else { "192.0.2.9" }.parse().unwrap();
    let mut pair = cell.up_with(&cell.setup(), |ours| match third {
        std::net::IpAddr::V4(a) => ours.peer().next_hop.ipv4 = Some(a),
        std::net::IpAddr::V6(a) => ours.peer().next_hop.ipv6 = Some(a),
    });
    assert_eq!(super::basic::announced(cell, &mut pair).next_hop, third.to_string());
}
