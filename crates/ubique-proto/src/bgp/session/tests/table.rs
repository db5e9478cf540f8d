//! Every state × every event.

use super::bench::*;
use crate::bgp::message::{Notification, Update};
use crate::bgp::session::State;
use crate::bgp::session::fsm::{Event, Step, step};
use crate::bgp::speaker::{ConnId, DownReason};

fn nothing() -> Update {
    Update::default()
}

/// RFC 4271 §8.2.2 for a connection whose transport is up: an event, then the step in OpenSent, OpenConfirm and
/// Established.
fn rows() -> Vec<(Event, [Step; 3])> {
    let plain = |code, subcode| Notification::new(code, subcode);
    let sent = |n: Notification| Step::End(DownReason::Sent(n));
    let fsm = |subcode, kind: u8| sent(Notification::with_data(5, subcode, [kind]));
    let open = || their_open(LOW_ID);
    let refresh = Event::RouteRefresh { afi: 1, subtype: 0, safi: 1 };
    let (cease, header, bad_open, bad_update) = (plain(6, 2), plain(1, 1), plain(2, 4), plain(3, 1));
    let bad_refresh = plain(7, 1);
    let received = Step::End(DownReason::Received(plain(6, 4)));
    let closed = Step::End(DownReason::TransportClosed);
    let deliver = Step::Deliver(nothing());
    let resend = Step::Refresh { afi: 1, subtype: 0, safi: 1 };
    vec![
        (Event::Stop(cease.clone()), [sent(cease.clone()), sent(cease.clone()), sent(cease)]),
        (Event::HoldTimerExpires, [sent(plain(4, 0)), sent(plain(4, 0)), sent(plain(4, 0))]),
        (Event::KeepaliveTimerExpires, [sent(plain(5, 0)), Step::SendKeepalive, Step::SendKeepalive]),
        (Event::SendHoldTimerExpires, [sent(plain(5, 0)), sent(plain(5, 0)), sent(plain(8, 0))]),
        (Event::TransportClosed, [closed.clone(), closed.clone(), closed]),
        (Event::Open(open()), [Step::Confirm(open()), fsm(2, 1), fsm(3, 1)]),
        (Event::Malformed(header.clone()), [sent(header.clone()), sent(header.clone()), sent(header)]),
        (Event::Malformed(bad_open.clone()), [sent(bad_open.clone()), sent(bad_open), fsm(3, 1)]),
        (Event::Malformed(bad_update.clone()), [fsm(1, 2), fsm(2, 2), sent(bad_update)]),
        (Event::Malformed(bad_refresh.clone()), [fsm(1, 5), fsm(2, 5), sent(bad_refresh)]),
        (Event::Notification(plain(6, 4)), [received.clone(), received.clone(), received]),
        (Event::Keepalive, [fsm(1, 4), Step::Establish, Step::Alive]),
        (Event::Update(nothing()), [fsm(1, 2), fsm(2, 2), deliver]),
        (refresh, [fsm(1, 5), fsm(2, 5), resend]),
    ]
}

#[test]
fn connection() {
    let states = [State::OpenSent, State::OpenConfirm, State::Established];
    for (event, expected) in rows() {
        for (state, expected) in states.into_iter().zip(expected) {
            assert_eq!(step(state, event.clone()), expected, "{event:?} in {state}");
        }
    }
}

/// A connection the driver reports when we no longer, or not yet, want one.
const LATE: ConnId = ConnId(3);

type Act = fn(&mut Bench);
type Setup = fn() -> Bench;

/// What can happen to a neighbour, by name.
const EVENTS: [(&str, Act); 22] = [
    ("start", |b| b.session.start(b.now)),
    ("stop", |b| b.session.stop(b.now, 2, "bye")),
    ("connected", |b| b.session.connected(b.now, LATE, LOCAL)),
    ("connect failed", |b| b.session.connect_failed(b.now)),
    ("accepted", |b| b.session.accepted(b.now, P, LOCAL)),
    ("closed", |b| b.session.closed(b.now, A)),
    ("next timer", Bench::next_timer),
    ("silence", silence),
    ("stuck", stuck),
    ("OPEN", |b| b.receive(A, &open_bytes(&their_open(LOW_ID)))),
    ("bad OPEN", |b| b.receive(A, &open_bytes(&their_open([0, 0, 0, 0].into())))),
    ("KEEPALIVE", |b| b.receive(A, &keepalive())),
    ("UPDATE", |b| b.receive(A, &update())),
    ("bad UPDATE", |b| b.receive(A, &bad_update())),
    ("NOTIFICATION", |b| b.receive(A, &notification(6, 4))),
    ("REFRESH", |b| b.receive(A, &refresh(ubique_model::Family::Ipv4))),
    ("hard reset", |b| b.receive(A, &notification(6, 9))),
    ("BFD down", |b| b.session.bfd_down(b.now, false)),
    ("BFD down, C", |b| b.session.bfd_down(b.now, true)),
    ("BoRR", |b| b.receive(A, &refresh_of(ubique_model::Family::Ipv4, 1))),
    ("garbage", |b| b.receive(A, &[0; 19])),
    ("unknown connection", |b| b.receive(P, &keepalive())),
];

/// Nothing comes for so long that the HoldTimer runs out; KEEPALIVEs on the way are not shown.
fn silence(b: &mut Bench) {
    while b.session.established().is_some() || b.session.state() == State::OpenConfirm {
        b.acknowledge(A);
        b.outputs();
        b.next_timer();
    }
}

/// The neighbour talks but reads nothing.
fn stuck(b: &mut Bench) {
    for _ in 0..1000 {
        if b.session.established().is_none() {
            return;
        }
        b.outputs();
        b.receive(A, &keepalive());
        b.wait(std::time::Duration::from_secs(1));
    }
}

#[test]
fn neighbour() {
    let states: [(&str, Setup); 10] = [
        ("Idle, disabled", || Bench::in_state(State::Idle)),
        ("Idle, held back", Bench::held),
        ("Connect", || Bench::in_state(State::Connect)),
        ("Active", || Bench::in_state(State::Active)),
        ("Active, never connects", Bench::listening),
        ("OpenSent", || Bench::in_state(State::OpenSent)),
        ("OpenConfirm", || Bench::in_state(State::OpenConfirm)),
        ("Established", || Bench::in_state(State::Established)),
        ("Established, graceful restart without N", || Bench::graceful(false)),
        ("Established, graceful restart with N", || Bench::graceful(true)),
    ];
    let mut actual = String::new();
    for (state, bench) in states {
        actual.push_str(&format!("{state}\n"));
        for (name, act) in EVENTS {
            let mut b = bench();
            act(&mut b);
            actual.push_str(&format!("  {name:20}{}\n", b.outcome()));
        }
    }
    let expected = include_str!("table.txt");
    if actual != expected {
        eprintln!("{actual}");
    }
    for (actual, expected) in actual.lines().zip(expected.lines()) {
        assert_eq!(actual, expected);
    }
    assert_eq!(actual.lines().count(), expected.lines().count());
}
