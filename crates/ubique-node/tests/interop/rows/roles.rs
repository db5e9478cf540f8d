//! Roles and limits.

use ubique_model::{Asn, Relation};
use ubique_node::bgp::Endpoint;
use ubique_proto::bgp::message::{Notification, Role};
use ubique_proto::bgp::notification::{cease, code, open};
use ubique_proto::bgp::speaker::{DownReason, PeerConfig};

use super::basic::announced;
use crate::cell::Cell;
use crate::lab;
use crate::matrix::{Cannot, Proof, Row};
use crate::peer::{Kind, OUR_AS, SECOND_AS, Setup, THEIR_AS, Theirs};
use crate::us;

const GOBGP_NO_ROLES: Cannot = Cannot::new(
    Kind::Gobgp,
    "no roles (RFC 9234)",
    Proof::Rejects("[neighbors.role.config]\nlocal-role = \"provider\"\n"),
);
const EXABGP_NO_ROLES: Cannot =
    Cannot::new(Kind::Exabgp, "no roles (RFC 9234)", Proof::Rejects("local-role provider;"));

pub const ROWS: &[Row] = &[
    Row::new(
        "role",
        "we say customer, the peer provider (RFC 9234): the session comes up, and its routes come with its AS in ONLY_TO_CUSTOMER",
        role,
    )
    .but(&[GOBGP_NO_ROLES, EXABGP_NO_ROLES]),
    Row::new("role-mismatch", "both say customer: the session is refused with 2/11", role_mismatch)
        .but(&[GOBGP_NO_ROLES, EXABGP_NO_ROLES]),
    Row::new(
        "max-prefix-ours",
        "the peer announces more than our limit of 10: only that session ends, at once, with 6/1, and we have dropped its routes",
        limit_ours,
    ),
    Row::new(
        "max-prefix-theirs",
        "we announce more than the peer's limit of 2: we report its 6/1",
        limit_theirs,
    )
    .but(&[Cannot::new(Kind::Exabgp, "no limit of prefixes", Proof::Rejects("maximum-prefix 2;"))]),
];

fn peers_role(cell: &Cell, role: &str) -> String {
    match cell.kind {
        Kind::Bird => format!("local role {role};"),
        Kind::Frr => format!(" neighbor {} local-role {role}", cell.ours()),
        Kind::Openbgpd => format!(" announce policy {role}"),
        Kind::Gobgp | Kind::Exabgp => unreachable!("they have no roles"),
    }
}

fn role(cell: &Cell) {
    let announce = vec![Theirs::new(cell.their_prefix())];
    let setup = Setup { announce, extra: peers_role(cell, "provider"), ..cell.setup() };
    let mut pair = cell.up_with(&setup, |ours| {
        ours.peer().role = Some(Role::Customer);
        ours.peer().strict_role = true;
    });
    assert_eq!(pair.us.negotiated().role, Some(Role::Provider));
    announced(cell, &mut pair);
    pair.until_true("we have its route", |p| p.us.route(cell.their_prefix()).is_some());
    let route = pair.us.route(cell.their_prefix()).unwrap();
    assert_eq!(route.attributes.only_to_customer, Some(Asn(THEIR_AS)), "{route:?}");
}

fn role_mismatch(cell: &Cell) {
    let setup = Setup { extra: peers_role(cell, "customer"), ..cell.setup() };
    let mut pair = cell.start_with(&setup, |ours| ours.peer().role = Some(Role::Customer));
    let reason = pair.until("one side refuses", |p| p.us.down().cloned());
    let mismatch = |n: &Notification| (n.code, n.subcode) == (code::OPEN, open::ROLE_MISMATCH);
    // Whose OPEN comes first decides.
    assert!(matches!(&reason, DownReason::Sent(n) | DownReason::Received(n) if mismatch(n)), "{reason}");
    assert!(!pair.us.established() && !pair.peer.established());
}

fn limit_ours(cell: &Cell) {
    let routes = |count: u8| (1..=count).map(|n| Theirs::new(lab::their_prefix(cell.family, n))).collect::<Vec<_>>();
    let setup = Setup { announce: routes(10), ..cell.setup() };
    let second = lab::second(cell.family).parse().unwrap();
    let mut pair = cell.up_with(&setup, |ours| {
        ours.peer().max_prefix = Some(10);
        // Another neighbour of ours, which must not notice.
        let peer = PeerConfig { passive: true, ..PeerConfig::new(second, Asn(SECOND_AS), Relation::Transit) };
        ours.speaker.peers.push(peer);
        ours.endpoints.push(Endpoint::new(second));
    });
    pair.start_second(&Setup { theirs: cell.ours().to_owned(), local_as: OUR_AS, ..cell.setup() });
    pair.until_true("we have its routes", |p| p.us.status().routes.received == 10);
    pair.peer.announce(&Theirs::new(lab::their_prefix(cell.family, 11)));
    let DownReason::Sent(notification) = pair.until_ended() else {
        panic!("{:?}", pair.us.down());
    };
    assert_eq!((notification.code, notification.subcode), (code::CEASE, cease::MAXIMUM_NUMBER_OF_PREFIXES));
    assert_eq!(pair.us.status().routes.received, 0);
    let second = pair.second.as_ref().unwrap();
    assert!(second.established() && second.losses() == 0, "the other session stays");
}

fn limit_theirs(cell: &Cell) {
    let mut setup = cell.setup();
    match cell.kind {
        Kind::Bird => setup.channel = "receive limit 2 action disable;".into(),
        Kind::Frr => setup.channel = format!("  neighbor {} maximum-prefix 2", cell.ours()),
        Kind::Gobgp => setup.channel = "[neighbors.afi-safis.prefix-limit.config]\nmax-prefixes = 2\n".into(),
        Kind::Openbgpd => setup.extra = " max-prefix 2".into(),
        Kind::Exabgp => unreachable!("it has no limit"),
    }
    let mut pair = cell.up(&setup);
    for n in 1..=2 {
        pair.us.announce(us::announcement(lab::our_prefix(cell.family, n)));
    }
    pair.until_true("the peer has two", |p| p.peer.route(lab::our_prefix(cell.family, 2)).is_some());
    assert!(pair.us.established());
    // One too many; FRR counts it when the next UPDATE comes.
    pair.us.announce(us::announcement(lab::our_prefix(cell.family, 3)));
    if cell.kind == Kind::Frr {
        pair.until_true("it has the third", |p| p.peer.route(lab::our_prefix(cell.family, 3)).is_some());
        pair.us.announce(us::announcement(lab::our_prefix(cell.family, 4)));
    }
    let DownReason::Received(notification) = pair.until_ended() else {
        panic!("{:?}", pair.us.down());
    };
    assert_eq!((notification.code, notification.subcode), (code::CEASE, cease::MAXIMUM_NUMBER_OF_PREFIXES));
}
