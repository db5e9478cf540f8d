//! What is agreed on by capabilities: families, next hops, long messages, several paths, rules.

use ubique_model::Family;
use ubique_model::policy::Announcement;
use ubique_proto::bgp::family::{AddressFamilies, AddressFamily};
use ubique_proto::bgp::flowspec::{Component, FlowSpec, NumericField, NumericTerm};
use ubique_proto::bgp::speaker::In;

use super::basic::announced;
use crate::cell::{Cell, Pair};
use crate::lab;
use crate::matrix::{Cannot, Proof, Row};
use crate::peer::{Kind, Setup, Theirs};
use crate::us::{self, PEER};

pub const ROWS: &[Row] = &[
    Row::new("families", "IPv4 and IPv6 routes over one session, with the next hops of their families", families),
    Row::new(
        "refresh-enhanced",
        "enhanced refresh is agreed on (RFC 7313), the peer asks, and gets our routes between BoRR and EoRR",
        refresh_enhanced,
    )
    .but(&[Cannot::new(Kind::Gobgp, "no enhanced refresh (RFC 7313)", Proof::Run(no_enhanced_refresh))]),
    Row::new(
        "extended-message",
        "one UPDATE of more than 4,096 octets (RFC 8654): a route with 600 large communities",
        extended_message,
    )
    .but(&[
        Cannot::new(Kind::Gobgp, "no extended messages (RFC 8654)", Proof::Run(no_extended_message)),
        Cannot::new(
            Kind::Openbgpd,
            "no extended messages (RFC 8654)",
            Proof::Rejects(" announce extended message yes"),
        ),
    ]),
    Row::new(
        "extended-next-hop",
        "our link has no IPv4 address: IPv4 routes with an IPv6 next hop over an IPv6 session (RFC 8950)",
        extended_next_hop,
    )
    .only(Family::Ipv6)
    .but(&[Cannot::new(
        Kind::Openbgpd,
        "no IPv6 next hops for IPv4 (RFC 8950)",
        Proof::Rejects(" announce extended nexthop yes"),
    )]),
    Row::new(
        "add-path",
        "the peer has two paths to a prefix, its own and one of a second neighbour, and sends both (RFC 7911); we keep both, and one \
         when the other is withdrawn",
        add_path,
    ),
    Row::new(
        "flowspec",
        "a FlowSpec rule (RFC 8955, RFC 8956) is shown by the peer with its action, and is gone when we withdraw it",
        flowspec,
    )
    .but(&[Cannot::new(Kind::Openbgpd, "no FlowSpec", Proof::Rejects(" announce IPv4 flowspec"))]),
];

fn families(cell: &Cell) {
    let setup = Setup { families: AddressFamilies::UNICAST, ..cell.setup() };
    let mut pair = cell.up_with(&setup, |ours| {
        ours.peer().next_hop.ipv4 = Some(lab::ours(Family::Ipv4).parse().unwrap());
        ours.peer().next_hop.ipv6 = Some(lab::ours(Family::Ipv6).parse().unwrap());
    });
    for family in Family::ALL {
        pair.us.announce(us::announcement(lab::our_prefix(family, 1)));
    }
    for family in Family::ALL {
        let route = pair.until("the peer shows our route", |p| p.peer.route(lab::our_prefix(family, 1)));
        assert_eq!(route.next_hop, lab::ours(family));
    }
    pair.us.withdraw(lab::our_prefix(Family::Ipv4, 1));
    pair.until_true("one is gone", |p| p.peer.route(lab::our_prefix(Family::Ipv4, 1)).is_none());
    assert!(pair.peer.route(lab::our_prefix(Family::Ipv6, 1)).is_some(), "the other one stays");
}

fn refresh_enhanced(cell: &Cell) {
    let mut setup = cell.setup();
    if cell.kind == Kind::Openbgpd {
        setup.extra = " announce enhanced refresh yes".into();
    }
    let mut pair = cell.up(&setup);
    assert!(pair.us.negotiated().enhanced_route_refresh);
    announced(cell, &mut pair);
    let ended = |pair: &mut Pair| {
        let said = (pair.peer.said() + &pair.peer.log()).to_lowercase();
        let ends: &[&str] = match cell.kind {
            Kind::Bird => &["got end-of-rr", "got route refresh end", "end-of-rr"],
            Kind::Frr => &["(eorr)", "eorr"],
            Kind::Openbgpd => &["end-of-rr                0          1"],
            Kind::Exabgp => &["\"subtype\": \"end\"", "\"end\""],
            Kind::Gobgp => unreachable!("it cannot"),
        };
        ends.iter().any(|end| said.contains(end))
    };
    assert!(!ended(&mut pair), "not before it has asked");
    pair.peer.ask_refresh();
    pair.until_true("the peer has seen where it ends", ended);
    assert!(pair.peer.route(cell.our_prefix()).is_some());
    assert_eq!(pair.us.losses(), 0);
}

fn no_enhanced_refresh(cell: &Cell) {
    let pair = cell.up(&cell.setup());
    assert!(pair.us.negotiated().route_refresh && !pair.us.negotiated().enhanced_route_refresh);
}

/// Of 12 octets each: more than a plain message holds.
const LARGE_COMMUNITIES: u32 = 600;

fn extended_message(cell: &Cell) {
    let mut setup = cell.setup();
    match cell.kind {
        Kind::Bird => {
            setup.extra = "enable extended messages on;".into();
            // It cuts long lists when it shows them, so that it has to count them itself.
            setup.channel = format!(
                "import filter {{ if bgp_large_community.len = {LARGE_COMMUNITIES} then bgp_med = {LARGE_COMMUNITIES}; accept; }};"
            );
        }
        Kind::Exabgp => setup.extra = "capability extended-message enable;".into(),
        _ => {}
    }
    let mut pair = cell.up(&setup);
    assert_eq!(pair.us.negotiated().max_message, 65_535);
    let last = format!("64500:1:{}", LARGE_COMMUNITIES - 1);
    let large_communities = (0..LARGE_COMMUNITIES).map(|n| format!("64500:1:{n}").parse().unwrap()).collect();
    pair.us.announce(Announcement { large_communities, ..us::announcement(cell.our_prefix()) });
    let route = pair.until("the peer shows our route", |p| p.peer.route(cell.our_prefix()));
    match cell.kind {
        Kind::Bird => assert_eq!(route.med, Some(LARGE_COMMUNITIES)),
        _ => assert!(route.large.len() == LARGE_COMMUNITIES as usize && route.large.contains(&last), "{route:?}"),
    }
    assert_eq!(pair.us.losses(), 0);
}

fn no_extended_message(cell: &Cell) {
    let pair = cell.up(&cell.setup());
    assert_eq!(pair.us.negotiated().max_message, 4096);
}

fn extended_next_hop(cell: &Cell) {
    let mut setup = Setup { families: AddressFamilies::UNICAST, ..cell.setup() };
    match cell.kind {
        Kind::Bird => setup.channel = "extended next hop on;".into(),
        Kind::Frr => setup.extra = format!(" neighbor {} capability extended-nexthop", cell.ours()),
        Kind::Exabgp => setup.extra = "capability nexthop enable;\nnexthop { ipv4 unicast ipv6; }".into(),
        Kind::Gobgp | Kind::Openbgpd => {}
    }
    // We have none to announce.
    lab::drop_ipv4();
    let mut pair = cell.up_with(&setup, |ours| ours.peer().extended_next_hop = true);
    assert!(pair.us.negotiated().extended_next_hop.contains(Family::Ipv4), "{:?}", pair.us.negotiated());
    let prefix = lab::our_prefix(Family::Ipv4, 1);
    pair.us.announce(us::announcement(prefix));
    let route = pair.until("the peer shows our route", |p| p.peer.route(prefix));
    assert_eq!(route.next_hop, cell.ours());
}

fn rule(cell: &Cell) -> FlowSpec {
    FlowSpec {
        family: cell.family,
        components: vec![
            Component::Destination { prefix: cell.our_prefix(), offset: 0 },
            Component::Numeric { field: NumericField::Protocol, terms: vec![NumericTerm::equal(17)] },
            Component::Numeric { field: NumericField::DestinationPort, terms: vec![NumericTerm::equal(53)] },
        ],
    }
}

/// `traffic-rate`, 0: discard (RFC 8955 §7.1).
const DISCARD: [u8; 8] = [0x80, 0x06, 0, 0, 0, 0, 0, 0];

fn flowspec(cell: &Cell) {
    let mut families = AddressFamilies::only(cell.family);
    families.insert(AddressFamily::flowspec(cell.family));
    let mut pair = cell.up(&Setup { families, ..cell.setup() });
    announced(cell, &mut pair);
    pair.us.handle(In::AnnounceFlow { peer: PEER, flow: rule(cell), actions: vec![DISCARD] });
    let destination = cell.our_prefix().addr().to_string();
    let shown = |text: &str| text.contains(&destination);
    let text = pair.until("the peer shows the rule", |p| Some(p.peer.rules(cell.family)).filter(|t| shown(t)));
    println!("{text}");
    let lower = text.to_lowercase();
    let action: &[&str] = &["discard", "rate-limit:0", "rate: 0", "rate:0", "80060000", "8006", "fs:rate 0", "rate 0"];
    assert!(action.iter().any(|word| lower.contains(word)), "{text}");
    assert!(lower.contains("53") && (lower.contains("17") || lower.contains("udp")), "{text}");
    pair.us.handle(In::WithdrawFlow { peer: PEER, flow: rule(cell) });
    pair.until_true("the rule is gone", |p| !shown(&p.peer.rules(cell.family)));
    assert!(pair.peer.route(cell.our_prefix()).is_some(), "the route stays");
    assert_eq!(pair.us.losses(), 0);
}

fn add_path(cell: &Cell) {
    let prefix = cell.their_prefix();
    let mut setup = Setup { second: true, announce: vec![Theirs::new(prefix)], ..cell.setup() };
    match cell.kind {
        Kind::Bird => setup.channel = "add paths tx; export all;".into(),
        Kind::Frr => setup.channel = format!("  neighbor {} addpath-tx-all-paths", cell.ours()),
        Kind::Gobgp => setup.channel = "[neighbors.afi-safis.add-paths.config]\nsend-max = 8\n".into(),
        Kind::Openbgpd => setup.extra = " announce add-path send all".into(),
        // It has no table: it sends what it is told.
        Kind::Exabgp => {
            setup.extra = "capability add-path send/receive;".into();
            setup.announce = vec![Theirs { path: Some(1), ..Theirs::new(prefix) }];
        }
    }
    let mut pair = cell.up_with(&setup, |ours| ours.peer().add_path = true);
    assert!(pair.us.negotiated().add_path.contains(cell.family), "{:?}", pair.us.negotiated());
    if cell.kind == Kind::Exabgp {
        pair.peer.announce(&Theirs { path: Some(2), med: Some(2), ..Theirs::new(prefix) });
        pair.until_true("we have both paths", |p| p.us.paths(prefix).len() == 2);
        return;
    }
    pair.start_second(&setup);
    pair.second.as_mut().unwrap().announce(us::announcement(prefix));
    pair.until_true("we have both paths", |p| p.us.paths(prefix).len() == 2);
    let paths = pair.us.paths(prefix);
    assert_ne!(paths[0].path_id, paths[1].path_id);
    let lengths: Vec<usize> = paths.iter().map(|path| path.attributes.as_path.hops()).collect();
    assert!(lengths.contains(&1) && lengths.contains(&2), "{paths:?}");
    pair.second.as_mut().unwrap().withdraw(prefix);
    pair.until_true("one path is left", |p| p.us.paths(prefix).len() == 1);
    assert_eq!(pair.us.paths(prefix)[0].attributes.as_path.hops(), 1);
}
