//! BFD beside BGP.

use std::time::{Duration, Instant};

use ubique_model::service::Bfd;
use ubique_node::bfd::{self, Driver, Notice};
use ubique_proto::bfd::Role;
use ubique_proto::bfd::packet::State;
use ubique_proto::bgp::notification::{cease, code};
use ubique_proto::bgp::speaker::{DownReason, In};
use ubique_sys::process::Signal;

use super::basic::announced;
use crate::cell::{Cell, Pair};
use crate::lab;
use crate::matrix::{Cannot, Proof, Row};
use crate::peer::{Kind, Setup};
use crate::us::PEER;

const NO_BFD: &[Cannot] = &[
    Cannot::new(Kind::Gobgp, "no BFD", Proof::Rejects("[neighbors.bfd.config]\nenabled = true\n")),
    Cannot::new(Kind::Openbgpd, "no BFD", Proof::Rejects(" bfd")),
    Cannot::new(Kind::Exabgp, "no BFD", Proof::Rejects("bfd enable;")),
];

pub const ROWS: &[Row] = &[
    Row::new(
        "bfd-theirs",
        "BFD is up on both sides at the peer's own timers; the peer freezes: we end the session with 6/10 (RFC 9384) long before the \
         hold time, and come back with it",
        theirs,
    )
    .but(NO_BFD),
    Row::new(
        "bfd-ours",
        "what we send goes nowhere any more: the peer says that BFD is down and drops our route long before the hold time",
        ours,
    )
    .but(NO_BFD),
];

/// Far more than BFD needs, at a busy machine and 300 ms × 3; far less than the hold time of 90 s.
const AT_ONCE: Duration = Duration::from_secs(10);

/// How often our thread would tell a watchdog that it lives.
const BEAT: Duration = Duration::from_millis(100);

fn start(cell: &Cell) -> (Pair, Driver) {
    let mut setup = cell.setup();
    match cell.kind {
        Kind::Bird => {
            setup.global = "protocol bfd { };".into();
            setup.extra = "bfd on;".into();
        }
        _ => {
            setup.zebra = true;
            setup.extra = format!(" neighbor {} bfd", cell.ours());
        }
    }
    let peer = bfd::Peer {
        remote: cell.theirs().parse().unwrap(),
        interface: None,
        local: cell.ours().parse().ok(),
        hops: None,
        settings: Bfd::default(),
        role: Role::Active,
    };
    let mut driver = bfd::start(vec![peer], 7, None, BEAT, None).unwrap();
    let mut pair = cell.up(&Setup { ..setup });
    announced(cell, &mut pair);
    until_state(&mut pair, &mut driver, State::Up);
    pair.until_true("the peer says that BFD is up", |p| p.peer.bfd_up());
    (pair, driver)
}

/// Waits until our session comes into a state.
fn until_state(pair: &mut Pair, driver: &mut Driver, wanted: State) {
    pair.until_true("our BFD session changes", |_| {
        let news = std::iter::from_fn(|| driver.try_next());
        news.filter(|notice| matches!(notice, Notice::State { to, .. } if *to == wanted)).count() > 0
    });
}

fn theirs(cell: &Cell) {
    let (mut pair, mut driver) = start(cell);
    let begin = Instant::now();
    pair.signal_peer(Signal::Stop);
    until_state(&mut pair, &mut driver, State::Down);
    pair.us.handle(In::BfdDown { peer: PEER, control_independent: false });
    let DownReason::Sent(notification) = pair.until_ended() else {
        panic!("{:?}", pair.us.down());
    };
    assert_eq!((notification.code, notification.subcode), (code::CEASE, cease::BFD_DOWN));
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    pair.signal_peer(Signal::Cont);
    until_state(&mut pair, &mut driver, State::Up);
    pair.until_up();
}

fn ours(cell: &Cell) {
    let (mut pair, _driver) = start(cell);
    let begin = Instant::now();
    lab::fall_silent(cell.family);
    lab::until("our route is gone", || pair.peer.route(cell.our_prefix()).is_none().then_some(()));
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    lab::until("the peer says why", || {
        let said = (pair.peer.said() + &pair.peer.log()).to_lowercase();
        ["bfd session down", "bfd down"].iter().any(|words| said.contains(words)).then_some(())
    });
}
