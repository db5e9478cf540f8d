//! Sessions and routes.

use ubique_model::{Asn, Family};
use ubique_proto::bgp::message::Notification;
use ubique_proto::bgp::notification::{code, open};
use ubique_proto::bgp::speaker::{DownReason, In};
use ubique_sys::process::Signal;

use crate::cell::{Cell, Pair};
use crate::lab;
use crate::matrix::{Cannot, Proof, Row};
use crate::peer::{Kind, OUR_AS, Opens, Setup, Theirs};
use crate::us::{self, PEER};

pub const ROWS: &[Row] = &[
    Row::new("session", "we connect; both sides say Established; the hold time is the smaller of the two", session),
    Row::new("called", "the peer connects, we only listen", called),
    Row::new("collision", "both sides connect; one session is left and stays (RFC 4271 §6.8)", collision),
    Row::new(
        "announce",
        "the peer shows our route with our address as its next hop and our AS as its path",
        announce,
    ),
    Row::new("withdraw", "the peer no longer shows a route we withdrew; the others stay", withdraw),
    Row::new(
        "learn",
        "we keep the peer's routes with its next hop, path, MED and communities, and drop what it withdraws",
        learn,
    ),
    Row::new("four-octet-as", "both AS numbers are above 65,535 (RFC 6793)", four_octet_as),
    Row::new(
        "as-trans",
        "our AS number is above 65,535 and the peer's capability is off: the session comes up with AS_TRANS (23456), the peer shows \
         our route, and we read its 2-octet path",
        as_trans,
    )
    .but(&[BIRD_AS_TRANS, FRR_AS_TRANS, GOBGP_AS_TRANS]),
    Row::new("internal", "the same AS on both sides: an empty path, LOCAL_PREF is sent", internal),
    Row::new("refresh-ours", "we ask for the peer's routes again (RFC 2918) and get them", refresh_ours)
        .but(&[OPENBGPD_REFUSES, EXABGP_BREAKS]),
    Row::new("refresh-theirs", "the peer asks for ours and gets them; the session stays", refresh_theirs)
        .but(&[GOBGP_NEVER_ASKS]),
];

const BIRD_AS_TRANS: Cannot = Cannot::new(
    Kind::Bird,
    "with `enable as4 no` it takes no AS above 65,535 in its configuration, but with 23456 there it refuses the one in our \
     capability (2/2)",
    Proof::Run(as_trans_refused),
);
const FRR_AS_TRANS: Cannot = Cannot {
    family: Some(Family::Ipv6),
    ..Cannot::new(
        Kind::Frr,
        "only all capabilities can be switched off together (`dont-capability-negotiate`), and IPv6 routes need one",
        Proof::Run(no_family),
    )
};
const GOBGP_AS_TRANS: Cannot = Cannot::new(
    Kind::Gobgp,
    "the capability for 4-octet AS numbers cannot be switched off",
    Proof::Rejects("[neighbors.as4.config]\nenabled = false\n"),
);
const OPENBGPD_REFUSES: Cannot = Cannot::new(
    Kind::Openbgpd,
    "it offers the capability, but 7.7 refuses every request: `route refresh: AID IPv4 unicast not negotiated`, for families \
     that are",
    Proof::Run(refresh_refused),
);
const EXABGP_BREAKS: Cannot = Cannot::new(
    Kind::Exabgp,
    "4.2.21 offers enhanced refresh and breaks the session when it is asked (`TypeError: 'RouteRefresh' object is not iterable`)",
    Proof::Run(refresh_breaks),
);
const GOBGP_NEVER_ASKS: Cannot = Cannot::new(
    Kind::Gobgp,
    "it never asks: `softresetin` reads its own copy of what it received again",
    Proof::Run(refresh_not_asked),
);

fn session(cell: &Cell) {
    let pair = cell.up(&Setup { hold_time_s: 30, ..cell.setup() });
    assert_eq!(pair.us.negotiated().hold_time.as_secs(), 30);
    assert!(pair.us.negotiated().four_octet_as);
    assert_eq!(pair.us.negotiated().router_id.to_string(), "192.0.2.1");
}

fn called(cell: &Cell) {
    let mut pair = cell.up(&Setup { opens: Opens::Peer, ..cell.setup() });
    announced(cell, &mut pair);
}

/// What ExaBGP 4.2.21 says from then on, once our connection has reached OPENCONFIRM in the moment in which it drops its own.
const EXABGP_IS_LOST: &str = "'NoneType' object has no attribute 'router_id'";

/// Collisions that ExaBGP may fail to end.
const ATTEMPTS: usize = 5;

fn collision(cell: &Cell) {
    let setup = Setup { opens: Opens::Both, ..cell.setup() };
    let mut pair = cell.start(&setup);
    let (mut losses, mut lost) = (0, 0);
    for _ in 0..ATTEMPTS {
        let up = pair.until("both sides say that the session is established", |p| {
            let is_lost = p.peer.log().matches(EXABGP_IS_LOST).count() > lost;
            (is_lost || p.us.established() && p.peer.established()).then_some(!is_lost)
        });
        if up {
            announced(cell, &mut pair);
            let lost = pair.us.losses() - pair.us.collisions();
            assert_eq!(lost, losses, "an established session stays, but for another connection in its place");
            return;
        }
        pair.signal_peer(Signal::Kill);
        (losses, lost) = (pair.us.losses() - pair.us.collisions(), pair.peer.log().matches(EXABGP_IS_LOST).count());
        pair.restart_peer(cell.kind, &setup);
    }
    panic!("{} fails to end {ATTEMPTS} collisions", cell.kind);
}

/// Announces one route and waits for it.
pub fn announced(cell: &Cell, pair: &mut Pair) -> crate::seen::Seen {
    pair.us.announce(us::announcement(cell.our_prefix()));
    pair.until("the peer shows our route", |p| p.peer.route(cell.our_prefix()))
}

fn announce(cell: &Cell) {
    let mut pair = cell.up(&cell.setup());
    assert_eq!(pair.peer.route(cell.our_prefix()), None);
    let route = announced(cell, &mut pair);
    assert_eq!(route.next_hop, cell.ours());
    assert_eq!(route.as_path, [OUR_AS]);
    assert_eq!(route.med.unwrap_or(0), 0);
    assert!(route.communities.is_empty() && route.large.is_empty(), "{route:?}");
}

fn withdraw(cell: &Cell) {
    let mut pair = cell.up(&cell.setup());
    let prefixes = [1, 2].map(|n| lab::our_prefix(cell.family, n));
    for prefix in prefixes {
        pair.us.announce(us::announcement(prefix));
    }
    pair.until_true("the peer shows both routes", |p| prefixes.iter().all(|prefix| p.peer.route(*prefix).is_some()));
    pair.us.withdraw(prefixes[0]);
    pair.until_true("the first route is gone", |p| p.peer.route(prefixes[0]).is_none());
    assert!(pair.peer.route(prefixes[1]).is_some(), "the second one stays");
    assert!(pair.us.established());
}

fn learn(cell: &Cell) {
    let [first, second] = [1, 2].map(|n| lab::their_prefix(cell.family, n));
    let rich = Theirs { med: Some(77), communities: vec!["65001:7"], large: vec!["65001:1:2"], ..Theirs::new(first) };
    let mut pair = cell.up(&Setup { announce: vec![rich], ..cell.setup() });
    pair.until_true("we have its route", |p| p.us.route(first).is_some());
    let route = pair.us.route(first).unwrap();
    assert_eq!(route.next_hop.address().to_string(), cell.theirs());
    let attributes = &route.attributes;
    assert_eq!(attributes.as_path.to_string(), "65001");
    assert_eq!(attributes.med, Some(77));
    let texts = |list: &[String]| list.join(" ");
    assert_eq!(texts(&attributes.communities.iter().map(ToString::to_string).collect::<Vec<_>>()), "65001:7");
    assert_eq!(texts(&attributes.large_communities.iter().map(ToString::to_string).collect::<Vec<_>>()), "65001:1:2");
    pair.peer.announce(&Theirs::new(second));
    pair.until_true("we have its second route", |p| p.us.route(second).is_some());
    pair.peer.withdraw(first);
    pair.until_true("its first route is gone", |p| p.us.route(first).is_none());
    assert!(pair.us.route(second).is_some());
    assert!(pair.us.status().faults.last.is_none(), "{:?}", pair.us.status().faults);
}

fn four_octet_as(cell: &Cell) {
    let setup = Setup { local_as: 4_200_000_001, remote_as: 4_200_000_002, ..cell.setup() };
    let setup = Setup { announce: vec![Theirs::new(cell.their_prefix())], ..setup };
    let mut pair = cell.up(&setup);
    assert_eq!(announced(cell, &mut pair).as_path, [4_200_000_002]);
    pair.until_true("we have its route", |p| p.us.route(cell.their_prefix()).is_some());
    let path = &pair.us.route(cell.their_prefix()).unwrap().attributes.as_path;
    assert_eq!(path.ases().collect::<Vec<_>>(), [Asn(4_200_000_001)]);
}

fn as_trans(cell: &Cell) {
    let setup = Setup { two_octet: true, announce: vec![Theirs::new(cell.their_prefix())], ..cell.setup() };
    // What a 2-octet speaker would have to be told; the others find the number in our capability.
    let remote_as = if cell.kind == Kind::Exabgp { 23456 } else { 4_200_000_002 };
    let mut pair = cell.up_with(&Setup { remote_as, ..setup }, |ours| ours.speaker.asn = Asn(4_200_000_002));
    assert!(!pair.us.negotiated().four_octet_as);
    let route = announced(cell, &mut pair);
    assert!(route.as_path.ends_with(&[23456]) || route.as_path.ends_with(&[4_200_000_002]), "{route:?}");
    pair.until_true("we have its route", |p| p.us.route(cell.their_prefix()).is_some());
    assert_eq!(pair.us.route(cell.their_prefix()).unwrap().attributes.as_path.to_string(), "65001");
}

fn as_trans_refused(cell: &Cell) {
    let setup = Setup { two_octet: true, remote_as: 23456, ..cell.setup() };
    let mut pair = cell.start_with(&setup, |ours| ours.speaker.asn = Asn(4_200_000_002));
    let reason = pair.until("it refuses", |p| p.us.down().cloned());
    let refused = |n: &Notification| (n.code, n.subcode) == (code::OPEN, open::BAD_PEER_AS);
    assert!(matches!(&reason, DownReason::Received(n) if refused(n)), "{reason}");
}

fn no_family(cell: &Cell) {
    let mut pair = cell.start(&Setup { two_octet: true, ..cell.setup() });
    let reason = pair.until("the family is missing", |p| p.us.down().cloned());
    let missing = |n: &Notification| (n.code, n.subcode) == (code::OPEN, open::UNSUPPORTED_CAPABILITY);
    assert!(matches!(&reason, DownReason::Sent(n) if missing(n)), "{reason}");
}

fn internal(cell: &Cell) {
    let setup = Setup { local_as: OUR_AS, announce: vec![Theirs::new(cell.their_prefix())], ..cell.setup() };
    let mut pair = cell.up(&setup);
    let route = announced(cell, &mut pair);
    assert_eq!((route.next_hop.as_str(), route.as_path.as_slice()), (cell.ours(), &[][..]));
    assert_eq!(route.local_pref, Some(100));
    pair.until_true("we have its route", |p| p.us.route(cell.their_prefix()).is_some());
    let attributes = pair.us.route(cell.their_prefix()).unwrap().attributes;
    assert_eq!((attributes.as_path.hops(), attributes.local_pref), (0, Some(100)));
}

fn refresh_ours(cell: &Cell) {
    let setup = Setup { announce: vec![Theirs::new(cell.their_prefix())], ..cell.setup() };
    let mut pair = cell.up_with(&setup, |ours| {
        if cell.kind == Kind::Frr {
            super::restart::offer(ours);
        }
    });
    pair.until_true("we have its route", |p| p.us.route(cell.their_prefix()).is_some());
    if cell.kind == Kind::Frr {
        pair.until_true("it has sent End-of-RIB", |p| p.us.status().counters.updates_in >= 2);
    }
    let before = pair.us.status().counters.updates_in;
    pair.us.handle(In::RequestRefresh { peer: PEER });
    // The route again; End-of-RIB is not repeated by all.
    pair.until_true("its routes again", |p| p.us.status().counters.updates_in > before);
    pair.until_true("we still have its route", |p| p.us.route(cell.their_prefix()).is_some());
    assert_eq!(pair.us.losses(), 0);
}

fn refresh_theirs(cell: &Cell) {
    let mut pair = cell.up(&cell.setup());
    announced(cell, &mut pair);
    let before = pair.us.status().counters.updates_out;
    pair.peer.ask_refresh();
    pair.until_true("our routes go out again", |p| p.us.status().counters.updates_out > before);
    assert!(pair.us.established() && pair.peer.route(cell.our_prefix()).is_some());
    assert!(!matches!(pair.us.down(), Some(DownReason::Sent(_))));
}

fn refresh_refused(cell: &Cell) {
    let setup = Setup { announce: vec![Theirs::new(cell.their_prefix())], ..cell.setup() };
    let mut pair = cell.up(&setup);
    pair.until_true("we have its route", |p| p.us.route(cell.their_prefix()).is_some());
    let before = pair.us.status().counters.updates_in;
    pair.us.handle(In::RequestRefresh { peer: PEER });
    pair.until_true("it refuses", |p| p.peer.log().contains("unicast not negotiated"));
    assert_eq!(pair.us.status().counters.updates_in, before);
}

fn refresh_not_asked(cell: &Cell) {
    let mut pair = cell.up(&cell.setup());
    announced(cell, &mut pair);
    let before = pair.us.status().counters;
    pair.peer.ask_refresh();
    pair.until_true("it has done it", |p| p.peer.log().contains("Neighbor soft reset in"));
    assert_eq!(pair.us.status().counters, before);
}

fn refresh_breaks(cell: &Cell) {
    let setup = Setup { announce: vec![Theirs::new(cell.their_prefix())], ..cell.setup() };
    let mut pair = cell.up(&setup);
    pair.until_true("we have its route", |p| p.us.route(cell.their_prefix()).is_some());
    assert!(pair.us.negotiated().enhanced_route_refresh);
    pair.us.handle(In::RequestRefresh { peer: PEER });
    assert_eq!(pair.until_ended(), DownReason::TransportClosed);
    assert!(pair.peer.log().contains("'RouteRefresh' object is not iterable"));
    pair.until_up();
}
