//! Graceful restart, ours and theirs.

use std::time::Duration;

use ubique_proto::bgp::family::AddressFamilies;
use ubique_proto::bgp::notification::cease;
use ubique_proto::bgp::rib::Stale;
use ubique_proto::bgp::speaker::{GracefulRestartConfig, In, Restarted};

use crate::cell::{Cell, Pair};
use crate::lab;
use crate::matrix::{Cannot, Proof, Row};
use crate::peer::{Kind, Setup, Theirs};
use crate::us::{self, Ours, PEER, Us};

const EXABGP_KEEPS_NOTHING: Cannot = Cannot::new(
    Kind::Exabgp,
    "it has no table: its API tells what comes and that the session ended, and keeps nothing meanwhile",
    Proof::Run(keeps_nothing),
);

pub const ROWS: &[Row] = &[
    Row::new(
        "restart-ours",
        "our speaker is gone without a word and comes back with R and F set (RFC 4724): the peer shows our routes all the time, and \
         drops the one we do not announce again once we have settled (End-of-RIB)",
        restart_ours,
    )
    .but(&[EXABGP_KEEPS_NOTHING]),
    Row::new(
        "restart-theirs",
        "the peer's daemon is killed and started again: we keep its routes, stale, and drop those it does not announce again after its \
         End-of-RIB",
        restart_theirs,
    )
    .but(&[Cannot::new(
        Kind::Openbgpd,
        "it only helps others to restart: its own capability names no family (End-of-RIB alone)",
        Proof::Run(names_no_family),
    )]),
    Row::new(
        "restart-shutdown",
        "graceful restart is agreed on, and we shut the session down for good: the peer drops our routes at once (a hard reset where \
         RFC 8538 is agreed on, a NOTIFICATION otherwise)",
        restart_shutdown,
    )
    .but(&[EXABGP_KEEPS_NOTHING]),
    Row::new(
        "restart-notification",
        "graceful restart for NOTIFICATIONs is agreed on (RFC 8538), and we freeze: the peer's hold timer expires, and it keeps our route",
        notification,
    )
    .but(&[
        Cannot::new(Kind::Bird, "its capability has no N bit (RFC 8538)", Proof::Run(no_n_bit)),
        Cannot::new(Kind::Openbgpd, "its capability has no N bit (RFC 8538)", Proof::Run(no_n_bit)),
        Cannot::new(Kind::Exabgp, "its capability has no N bit (RFC 8538)", Proof::Run(no_n_bit)),
    ]),
    Row::new(
        "restart-long-lived",
        "our speaker stays away longer than its restart time: the peer keeps our route, marked LLGR_STALE (RFC 9494)",
        long_lived,
    )
    .but(&[
        Cannot::new(
            Kind::Openbgpd,
            "no long-lived graceful restart (RFC 9494)",
            Proof::Rejects(" announce long-lived restart yes"),
        ),
        Cannot::new(Kind::Exabgp, "no long-lived graceful restart (RFC 9494)", Proof::Rejects("long-lived-graceful-restart 60;")),
    ]),
];

/// Ours in the rows that come back in time.
const RESTART_TIME: Duration = Duration::from_secs(60);

/// Graceful restart in the peer's configuration.
pub fn with_restart(cell: &Cell, setup: Setup) -> Setup {
    let mut setup = setup;
    match cell.kind {
        Kind::Bird => setup.extra = "graceful restart on; graceful restart time 20;".into(),
        Kind::Frr => {
            // It wants to tell zebra.
            setup.zebra = true;
            setup.extra = " bgp graceful-restart\n bgp graceful-restart restart-time 20\n bgp graceful-restart preserve-fw-state\n \
                           bgp graceful-restart select-defer-time 5"
                .into();
        }
        Kind::Gobgp => {
            setup.extra =
                "[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 20\nnotification-enabled = true\n"
                    .into();
            setup.channel = "[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n".into();
        }
        Kind::Openbgpd => {}
        Kind::Exabgp => setup.extra = "capability graceful-restart 20;".into(),
    }
    setup
}

/// Graceful restart in ours.
pub fn offer(ours: &mut Ours) {
    ours.peer().graceful_restart = Some(GracefulRestartConfig { restart_time: RESTART_TIME, long_lived: None });
}

/// Our side ends as a killed process does, and starts again.
fn restart_us(cell: &Cell, pair: &mut Pair, setup: &Setup) {
    let mut ours = Ours::new(setup);
    offer(&mut ours);
    ours.speaker.restarted = Some(Restarted { forwarding: AddressFamilies::only(cell.family) });
    pair.us.end();
    lab::until("the peer has noticed", || (!pair.peer.established()).then_some(()));
    assert!(pair.peer.route(cell.our_prefix()).is_some(), "the route is kept while we are away");
    pair.us = Us::new(ours);
    pair.us.handle(In::Start);
}

fn restart_ours(cell: &Cell) {
    let setup = with_restart(cell, cell.setup());
    let mut pair = cell.up_with(&setup, offer);
    let prefixes = [1, 2].map(|n| lab::our_prefix(cell.family, n));
    prefixes.iter().for_each(|prefix| pair.us.announce(us::announcement(*prefix)));
    pair.until_true("the peer shows both routes", |p| prefixes.iter().all(|prefix| p.peer.route(*prefix).is_some()));
    restart_us(cell, &mut pair, &setup);
    pair.until_true("the session is back, and the routes were never gone", |p| {
        assert!(prefixes.iter().all(|prefix| p.peer.route(*prefix).is_some()), "a route was lost");
        p.us.established() && p.peer.established()
    });
    pair.us.announce(us::announcement(prefixes[0]));
    pair.us.handle(In::Settled);
    pair.until_true("the route we do not announce again is gone", |p| {
        assert!(p.peer.route(prefixes[0]).is_some(), "the other one was lost");
        p.peer.route(prefixes[1]).is_none()
    });
}

fn restart_theirs(cell: &Cell) {
    let [first, second] = [1, 2].map(|n| lab::their_prefix(cell.family, n));
    let both = vec![Theirs::new(first), Theirs::new(second)];
    let setup = with_restart(cell, Setup { announce: both, ..cell.setup() });
    let mut pair = cell.up_with(&setup, offer);
    pair.until_true("we have its routes", |p| p.us.route(first).is_some() && p.us.route(second).is_some());
    let again = Setup { announce: vec![Theirs::new(first)], restarted: true, ..setup };
    pair.signal_peer(ubique_sys::process::Signal::Kill);
    pair.until_ended();
    for prefix in [first, second] {
        assert_eq!(pair.us.route(prefix).map(|r| r.stale), Some(Stale::Restart), "kept while it is away");
    }
    pair.restart_peer(cell.kind, &again);
    pair.until_true("the route it announces again is fresh", |p| {
        p.us.route(first).expect("never lost").stale == Stale::No
    });
    pair.until_true("the other one is gone after End-of-RIB", |p| p.us.route(second).is_none());
    assert!(pair.us.established());
}

fn names_no_family(cell: &Cell) {
    let pair = cell.up_with(&cell.setup(), offer);
    let capability = pair.us.negotiated().graceful_restart.clone().expect("the capability");
    assert!(capability.families.is_empty(), "{capability:?}");
}

fn restart_shutdown(cell: &Cell) {
    let mut pair = cell.up_with(&with_restart(cell, cell.setup()), offer);
    super::basic::announced(cell, &mut pair);
    let hard = pair.us.negotiated().hard_reset;
    let subcode = cease::ADMINISTRATIVE_SHUTDOWN;
    pair.us.handle(In::StopPeer { peer: PEER, subcode, message: "site ams".into() });
    let reason = pair.until_ended();
    if hard {
        assert!(reason.to_string().to_lowercase().contains("hard reset"), "{reason}");
    }
    const { assert!(RESTART_TIME.as_secs() > 2 * lab::PATIENCE.as_secs(), "it waits for less than a restart") };
    pair.until_true("our route is gone", |p| p.peer.route(cell.our_prefix()).is_none());
}

/// So short that the long-lived time is what keeps the route.
const SHORT: Duration = Duration::from_secs(1);

/// LLGR_STALE (RFC 9494 §4.7).
const LLGR_STALE: &str = "65535:6";

fn long_lived(cell: &Cell) {
    let mut setup = with_restart(cell, cell.setup());
    match cell.kind {
        Kind::Bird => setup.extra.push_str(" long lived graceful restart on; long lived stale time 60;"),
        Kind::Frr => setup.extra.push_str("\n bgp long-lived-graceful-restart stale-time 60"),
        Kind::Gobgp => {
            setup.extra.push_str("long-lived-enabled = true\n");
            setup.channel.push_str(
                "[neighbors.afi-safis.long-lived-graceful-restart.config]\nenabled = true\nrestart-time = 60\n",
            );
        }
        Kind::Openbgpd | Kind::Exabgp => unreachable!("they cannot"),
    }
    let mut pair = cell.up_with(&setup, |ours| {
        let long_lived = Some(Duration::from_secs(60));
        ours.peer().graceful_restart = Some(GracefulRestartConfig { restart_time: SHORT, long_lived });
    });
    super::basic::announced(cell, &mut pair);
    pair.us.end();
    lab::until("our route is marked", || {
        let route = pair.peer.route(cell.our_prefix()).expect("the route is kept");
        route.communities.contains(LLGR_STALE).then_some(())
    });
    assert!(!pair.peer.established());
}

/// What a peer without a table tells of our restart.
pub fn keeps_nothing(cell: &Cell) {
    let mut pair = cell.up_with(&with_restart(cell, cell.setup()), offer);
    super::basic::announced(cell, &mut pair);
    pair.us.end();
    lab::until("it tells that the session is down", || (!pair.peer.established()).then_some(()));
    assert!(pair.peer.said().contains("\"state\": \"down\""));
}

fn notification(cell: &Cell) {
    let mut setup = with_restart(cell, Setup { hold_time_s: 3, ..cell.setup() });
    if cell.kind == Kind::Frr {
        setup.extra.push_str("\n bgp graceful-restart notification");
    }
    let mut pair = cell.up_with(&setup, offer);
    assert!(pair.us.negotiated().hard_reset, "{:?}", pair.us.negotiated());
    super::basic::announced(cell, &mut pair);
    // Our side does not run meanwhile.
    lab::until("the peer has given us up", || (!pair.peer.established()).then_some(()));
    assert!(pair.peer.route(cell.our_prefix()).is_some(), "the route is kept");
    pair.until_up();
    pair.until_true("the route is ours again", |p| p.peer.route(cell.our_prefix()).is_some());
}

fn no_n_bit(cell: &Cell) {
    let pair = cell.up_with(&with_restart(cell, cell.setup()), offer);
    assert!(pair.us.negotiated().graceful_restart.is_some() && !pair.us.negotiated().hard_reset);
}
