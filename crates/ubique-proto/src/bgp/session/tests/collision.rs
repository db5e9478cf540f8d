//! Connection collision (RFC 4271 §6.8, RFC 6286 §2.3): both ends call, one connection stays.

use std::net::Ipv4Addr;

use super::bench::*;
use crate::bgp::session::State;
use crate::bgp::speaker::ConnId;

const THIRD: ConnId = ConnId(3);

/// Both connections in OpenSent.
fn both() -> Bench {
    let mut b = Bench::new(&config());
    b.session.start(b.now);
    b.session.accepted(b.now, P, LOCAL);
    b.session.connected(b.now, A, LOCAL);
    assert_eq!(b.outputs(), "connect, OPEN@2, OPEN@1");
    b
}

fn open_on(b: &mut Bench, conn: ConnId, id: Ipv4Addr) -> String {
    b.receive(conn, &open_bytes(&their_open(id)));
    b.outcome()
}

#[test]
fn the_higher_identifier_called_and_its_open_comes_first() {
    let mut b = both();
    assert_eq!(open_on(&mut b, A, LOW_ID), "OpenConfirm: 6/7@2, close@2, KEEPALIVE@1");
    let mut b = both();
    assert_eq!(open_on(&mut b, P, HIGH_ID), "OpenConfirm: 6/7@1, close@1, KEEPALIVE@2");
}

#[test]
fn the_lower_identifier_called_and_its_open_comes_first() {
    let mut b = both();
    assert_eq!(open_on(&mut b, P, LOW_ID), "OpenConfirm: KEEPALIVE@2");
    assert_eq!(open_on(&mut b, A, LOW_ID), "OpenConfirm: 6/7@2, close@2, KEEPALIVE@1");
    let mut b = both();
    assert_eq!(open_on(&mut b, A, HIGH_ID), "OpenConfirm: KEEPALIVE@1");
    assert_eq!(open_on(&mut b, P, HIGH_ID), "OpenConfirm: 6/7@1, close@1, KEEPALIVE@2");
}

#[test]
fn equal_identifiers_compare_as_numbers() {
    // 64501 calls, 64500 is called.
    let mut b = both();
    assert_eq!(open_on(&mut b, A, OUR_ID), "OpenConfirm: KEEPALIVE@1");
    assert_eq!(open_on(&mut b, P, OUR_ID), "OpenConfirm: 6/7@1, close@1, KEEPALIVE@2");
}

#[test]
fn identifiers_compare_as_numbers_not_as_text() {
    let mut b = both();
    assert_eq!(open_on(&mut b, A, [9, 255, 255, 255].into()), "OpenConfirm: 6/7@2, close@2, KEEPALIVE@1");
}

#[test]
fn established_first_wins_whatever_the_identifiers() {
    for id in [LOW_ID, HIGH_ID] {
        for (first, second) in [(A, P), (P, A)] {
            let mut b = both();
            open_on(&mut b, first, id);
            if b.session.state() != State::OpenConfirm {
                continue;
            }
            b.receive(first, &keepalive());
            assert_eq!(b.session.state(), State::Established);
            let outputs = b.outputs();
            assert!(outputs.ends_with("up 9"), "{outputs}");
            // The other is gone, its OPEN comes too late.
            assert_eq!(open_on(&mut b, second, id), "Established:");
        }
    }
}

#[test]
fn a_call_to_an_established_session_is_refused() {
    let mut b = Bench::in_state(State::Established);
    b.session.accepted(b.now, P, LOCAL);
    assert_eq!(b.outcome(), "Established: 6/7@2, close@2");
    b.receive(P, &open_bytes(&their_open(HIGH_ID)));
    assert_eq!(b.outcome(), "Established:");
}

#[test]
fn a_call_in_open_confirm_is_compared() {
    let mut b = Bench::in_state(State::OpenConfirm);
    b.session.accepted(b.now, P, LOCAL);
    assert_eq!(b.outcome(), "OpenConfirm: OPEN@2");
    assert_eq!(open_on(&mut b, P, LOW_ID), "OpenConfirm: 6/7@2, close@2");
    b.receive(A, &keepalive());
    assert_eq!(b.outcome(), "Established: up 9");

    let mut b = Bench::in_state(State::OpenConfirm);
    b.session.accepted(b.now, P, LOCAL);
    b.outputs();
    assert_eq!(open_on(&mut b, P, HIGH_ID), "OpenConfirm: 6/7@1, close@1, KEEPALIVE@2");
    b.receive(P, &keepalive());
    assert_eq!(b.outcome(), "Established: up 9");
}

#[test]
fn an_accepted_open_ends_our_attempt() {
    let mut b = Bench::in_state(State::Connect);
    b.session.accepted(b.now, P, LOCAL);
    b.outputs();
    assert_eq!(open_on(&mut b, P, LOW_ID), "OpenConfirm: cancel, KEEPALIVE@2");
    // It crossed our cancellation.
    b.session.connected(b.now, A, LOCAL);
    assert_eq!(b.outcome(), "OpenConfirm: close@1");
    b.receive(P, &keepalive());
    assert_eq!(b.outcome(), "Established: up 9");
}

#[test]
fn our_attempt_fails_while_theirs_goes_on() {
    let mut b = Bench::in_state(State::Connect);
    b.session.accepted(b.now, P, LOCAL);
    b.session.connect_failed(b.now);
    b.outputs();
    assert_eq!(open_on(&mut b, P, LOW_ID), "OpenConfirm: KEEPALIVE@2");

    // The same when our attempt takes too long.
    let mut b = Bench::in_state(State::Connect);
    b.session.accepted(b.now, P, LOCAL);
    b.next_timer();
    assert_eq!(b.outcome(), "OpenSent: OPEN@2, cancel");
}

#[test]
fn their_connection_fails_while_our_attempt_goes_on() {
    let mut b = Bench::in_state(State::Connect);
    b.session.accepted(b.now, P, LOCAL);
    b.outputs();
    b.session.closed(b.now, P);
    assert_eq!(b.outcome(), "Connect: failed closed");
    b.session.connected(b.now, A, LOCAL);
    assert_eq!(b.outcome(), "OpenSent: OPEN@1");
}

#[test]
fn the_loser_is_told_by_the_neighbour() {
    let mut b = both();
    b.receive(A, &notification(6, 7));
    assert_eq!(b.outcome(), "OpenSent: close@1");
    assert_eq!(open_on(&mut b, P, HIGH_ID), "OpenConfirm: KEEPALIVE@2");

    // Nothing is left: that is a failure, and the next attempt waits.
    let mut b = Bench::in_state(State::OpenSent);
    b.receive(A, &notification(6, 7));
    assert_eq!(b.outcome(), "Idle: close@1, failed received 6/7");
    assert!(b.session.next_deadline() > Some(b.now));
}

#[test]
fn another_error_on_one_connection_leaves_the_other() {
    let mut b = both();
    b.receive(A, &[0; 19]);
    assert_eq!(b.outcome(), "OpenSent: 1/1@1, close@1, failed sent 1/1");
    assert_eq!(open_on(&mut b, P, LOW_ID), "OpenConfirm: KEEPALIVE@2");
}

#[test]
fn a_second_call_replaces_the_first() {
    let mut b = Bench::listening();
    b.session.accepted(b.now, P, LOCAL);
    b.outputs();
    b.session.accepted(b.now, THIRD, LOCAL);
    assert_eq!(b.outcome(), "OpenSent: OPEN@3, 6/7@2, close@2");
    assert_eq!(open_on(&mut b, THIRD, LOW_ID), "OpenConfirm: KEEPALIVE@3");
}

#[test]
fn stop_ends_both() {
    let mut b = both();
    b.session.stop(b.now, 3, "");
    assert_eq!(b.outcome(), "Idle: 6/3@1, close@1, failed sent 6/3, 6/3@2, close@2, failed sent 6/3");
    assert_eq!(b.session.next_deadline(), None);
}

#[test]
fn internal_neighbours_collide_too() {
    let internal = with(|peer| peer.asn = config().local_asn);
    let open =
        |id| open_bytes(&crate::bgp::message::Open { asn: internal.peer.asn, capabilities: vec![], ..their_open(id) });
    let mut b = Bench::new(&internal);
    b.session.start(b.now);
    b.session.accepted(b.now, P, LOCAL);
    b.session.connected(b.now, A, LOCAL);
    b.outputs();
    b.receive(P, &open(LOW_ID));
    b.receive(A, &open(LOW_ID));
    assert_eq!(b.outcome(), "OpenConfirm: KEEPALIVE@2, 6/7@2, close@2, KEEPALIVE@1");
}
