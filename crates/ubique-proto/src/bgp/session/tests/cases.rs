//! Timers, back-off, stopping, and bytes that come in odd pieces.

use std::time::Duration;

use ubique_model::Family;

use super::bench::*;
use crate::bgp::message::{Capability, Message, Notification, Open};
use crate::bgp::session::dial::{RECONNECT_DELAY, STABLE_AFTER};
use crate::bgp::session::{OPEN_HOLD_TIME, Output, SEND_HOLD_MIN, SessionConfig, State};
use crate::bgp::speaker::{CONNECT_RETRY_MAX, ConnId, DownReason};
use crate::time::Time;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn established(config: &SessionConfig, open: &Open) -> Bench {
    let mut b = Bench::new(config);
    b.session.start(b.now);
    b.session.connected(b.now, A, LOCAL);
    b.receive(A, &open_bytes(open));
    b.receive(A, &keepalive());
    assert_eq!(b.session.state(), State::Established);
    b.outputs();
    b
}

fn deadline(b: &Bench) -> Duration {
    b.session.next_deadline().expect("a timer runs").since(b.now)
}

#[test]
fn keepalives_come_with_jitter() {
    let mut b = Bench::in_state(State::Established);
    let mut gaps = vec![];
    for _ in 0..50 {
        b.acknowledge(A);
        b.receive(A, &keepalive());
        gaps.push(deadline(&b));
        b.next_timer();
        assert_eq!(b.outcome(), "Established: KEEPALIVE@1");
    }
    let (least, most) = (gaps.iter().min().copied(), gaps.iter().max().copied());
    assert!(least >= Some(Duration::from_millis(2250)), "{least:?}");
    assert!(most < Some(s(3)), "{most:?}");
    assert!(least < most, "no jitter");
}

#[test]
fn hold_timer() {
    for (name, bytes, counts) in
        [("KEEPALIVE", keepalive(), true), ("UPDATE", update(), true), ("REFRESH", refresh(Family::Ipv4), false)]
    {
        let mut b = Bench::in_state(State::Established);
        b.wait(s(5));
        b.receive(A, &bytes);
        b.wait(Duration::from_millis(3_999));
        assert_eq!(b.session.state(), State::Established, "{name}");
        b.wait(Duration::from_millis(1));
        assert_eq!(b.session.state() == State::Established, counts, "{name}");
        b.wait(s(5));
        assert_ne!(b.session.state(), State::Established, "{name}");
        assert!(b.outputs().contains("4/0@1, close@1, lost sent 4/0"));
    }
}

#[test]
fn half_a_message_is_no_sign_of_life() {
    let mut b = Bench::in_state(State::Established);
    for byte in &keepalive()[..18] {
        b.wait(Duration::from_millis(500));
        b.receive(A, &[*byte]);
    }
    assert!(b.outputs().contains("lost sent 4/0"));
}

#[test]
fn hold_time_of_zero_means_no_timers() {
    let silent = Open { hold_time_s: 0, ..their_open(LOW_ID) };
    let mut b = established(&config(), &silent);
    assert_eq!(b.session.next_deadline(), None);
    b.wait(s(100_000));
    assert_eq!(b.outcome(), "Established:");
    // Nor is sending watched (RFC 9687 §3.3).
    let mut bytes = vec![];
    crate::bgp::wire::encode_keepalive(&mut bytes);
    b.session.send_updates(b.now, bytes, 1, 0);
    assert_eq!(b.session.next_deadline(), None);
}

#[test]
fn hold_time_of_zero_does_not_hang_before_established() {
    let mut b = Bench::in_state(State::OpenSent);
    b.receive(A, &open_bytes(&Open { hold_time_s: 0, ..their_open(LOW_ID) }));
    assert_eq!(b.outcome(), "OpenConfirm: KEEPALIVE@1");
    b.wait(OPEN_HOLD_TIME - Duration::from_millis(1));
    assert_eq!(b.outcome(), "OpenConfirm:");
    b.wait(Duration::from_millis(1));
    assert!(b.outputs().starts_with("4/0@1, close@1"));
}

#[test]
fn hold_time_of_three() {
    let mut b = established(&config(), &Open { hold_time_s: 3, ..their_open(LOW_ID) });
    assert!(deadline(&b) <= s(1), "KEEPALIVEs each second");
    b.wait(Duration::from_millis(2_999));
    assert_eq!(b.session.state(), State::Established);
    b.wait(Duration::from_millis(1));
    assert!(b.outputs().contains("lost sent 4/0"));
}

#[test]
fn the_first_open_may_take_four_minutes() {
    let b = Bench::in_state(State::OpenSent);
    assert_eq!(deadline(&b), OPEN_HOLD_TIME);
}

#[test]
fn a_neighbour_that_reads_nothing() {
    let mut b = Bench::in_state(State::Established);
    b.acknowledge(A);
    let start = b.now;
    let mut lost = None;
    while lost.is_none() && b.now.since(start) < s(2000) {
        b.receive(A, &keepalive());
        b.wait(s(1));
        if b.session.state() != State::Established {
            lost = Some(b.now.since(start));
        }
    }
    // From the first KEEPALIVE that was not confirmed.
    let lost = lost.expect("the send hold timer expires");
    assert!(lost >= SEND_HOLD_MIN && lost <= SEND_HOLD_MIN + s(4), "{lost:?}");
    assert!(b.outputs().contains("8/0@1, close@1, lost sent 8/0"));
}

#[test]
fn a_neighbour_that_reads_slowly_stays() {
    let mut b = Bench::in_state(State::Established);
    for confirmed in 0..2000 {
        b.receive(A, &keepalive());
        b.wait(s(1));
        b.session.acknowledged(b.now, A, confirmed);
    }
    assert_eq!(b.session.state(), State::Established);
}

#[test]
fn attempts_are_spaced_out() {
    let mut b = Bench::new(&config());
    b.session.start(b.now);
    assert_eq!(b.outcome(), "Connect: connect", "the first at once");
    for n in 0..12 {
        b.session.connect_failed(b.now);
        let full = s(1 << n.min(6)).min(CONNECT_RETRY_MAX);
        let pause = deadline(&b);
        assert!(pause >= full.mul_f64(0.75) && pause < full, "attempt {n}: {pause:?} of {full:?}");
        b.next_timer();
        assert_eq!(b.outcome(), "Connect: connect");
    }
    // Whoever calls us cuts the wait, and success forgets the failures.
    b.session.connect_failed(b.now);
    b.session.accepted(b.now, P, LOCAL);
    b.receive(P, &open_bytes(&their_open(LOW_ID)));
    b.receive(P, &keepalive());
    b.wait(s(6));
    b.receive(P, &keepalive());
    assert_eq!(b.session.state(), State::Established);
    b.session.closed(b.now, P);
    assert!(deadline(&b) <= RECONNECT_DELAY);
}

#[test]
fn an_attempt_without_an_answer_is_given_up() {
    let mut b = Bench::in_state(State::Connect);
    for _ in 0..5 {
        assert!(deadline(&b) <= CONNECT_RETRY_MAX);
        b.next_timer();
        assert_eq!(b.outcome(), "Connect: cancel, connect");
    }
}

#[test]
fn a_lost_session_is_called_again_at_once_but_a_flapping_one_is_damped() {
    let mut b = Bench::in_state(State::Established);
    let mut id = 10;
    let mut again = |b: &mut Bench, lasts: Duration| {
        b.wait(lasts.saturating_sub(Duration::from_millis(1)));
        let conn = if id == 10 { A } else { ConnId(id) };
        b.session.closed(b.now, conn);
        assert_eq!(b.session.state(), State::Idle);
        let pause = deadline(b);
        b.next_timer();
        id += 1;
        b.session.connected(b.now, ConnId(id), LOCAL);
        b.receive(ConnId(id), &open_bytes(&their_open(LOW_ID)));
        b.receive(ConnId(id), &keepalive());
        assert_eq!(b.session.state(), State::Established);
        pause
    };
    assert!(again(&mut b, STABLE_AFTER + s(1)) <= RECONNECT_DELAY);
    assert!(again(&mut b, s(1)) >= Duration::from_millis(750));
    assert!(again(&mut b, s(1)) >= Duration::from_millis(1500));
    assert!(again(&mut b, s(1)) >= s(3));
    assert!(again(&mut b, STABLE_AFTER + s(1)) <= RECONNECT_DELAY);
}

#[test]
fn never_connects_when_passive() {
    let mut b = Bench::listening();
    assert_eq!(b.outcome(), "Active:");
    b.wait(s(1000));
    b.session.accepted(b.now, P, LOCAL);
    b.receive(P, &open_bytes(&their_open(HIGH_ID)));
    b.receive(P, &keepalive());
    assert_eq!(b.outcome(), "Established: OPEN@2, KEEPALIVE@2, up 9");
    b.session.closed(b.now, P);
    b.wait(s(1000));
    assert_eq!(b.outcome(), "Active: lost closed");
}

#[test]
fn stopped_stays_stopped() {
    let mut b = Bench::in_state(State::Established);
    b.session.stop(b.now, 2, "");
    b.outputs();
    b.wait(s(1000));
    b.session.connected(b.now, ConnId(9), LOCAL);
    b.session.accepted(b.now, P, LOCAL);
    b.receive(A, &keepalive());
    assert_eq!(b.outcome(), "Idle: close@9, 6/5@2, close@2");
    assert_eq!(b.session.next_deadline(), None);
    b.session.start(b.now);
    assert_eq!(b.outcome(), "Connect: connect");
}

#[test]
fn bfd_down_keeps_the_neighbour_enabled() {
    let mut b = Bench::in_state(State::Established);
    b.session.bfd_down(b.now, true);
    assert_eq!(b.outcome(), "Idle: 6/10@1, close@1, lost sent 6/10");
    b.next_timer();
    assert_eq!(b.outcome(), "Connect: connect");
    // Only a session can be ended by it: attempts have timers of their own.
    let mut b = Bench::in_state(State::OpenConfirm);
    b.session.bfd_down(b.now, true);
    assert_eq!(b.outcome(), "OpenConfirm:");
}

#[test]
fn shutdown_communication() {
    let sent = |subcode, text: &str| {
        let mut b = Bench::in_state(State::Established);
        b.session.stop(b.now, subcode, text);
        let Some(Output::Send(_, bytes)) = b.session.poll_output() else { panic!("nothing sent") };
        let Message::Notification(n) = decode(&bytes) else { panic!("no NOTIFICATION") };
        assert_eq!((n.code, n.subcode), (6, subcode));
        n.shutdown_communication().expect("readable").map(str::to_owned)
    };
    assert_eq!(sent(2, "new kernel").as_deref(), Some("new kernel"));
    assert_eq!(sent(4, "новое ядро").as_deref(), Some("новое ядро"));
    assert_eq!(sent(2, ""), None);
    assert_eq!(sent(3, "not for this subcode"), None);
    let long = sent(2, &"é".repeat(200)).expect("cut, not dropped");
    assert_eq!(long, "é".repeat(127), "255 octets would cut a character in two");
}

#[test]
fn what_the_neighbour_said_is_kept() {
    let mut b = Bench::in_state(State::Established);
    let mut bytes = vec![];
    let cease = Notification::cease(2, "bye");
    crate::bgp::wire::encode_notification(&cease, &mut bytes);
    b.receive(A, &bytes);
    assert_eq!(b.session.last_down(), Some(&DownReason::Received(cease.clone())));
    assert_eq!(b.session.state(), State::Idle);
    // Also over an attempt it closes without a word.
    b.next_timer();
    assert!(b.outputs().ends_with("connect"));
    b.session.connected(b.now, ConnId(9), LOCAL);
    b.session.closed(b.now, ConnId(9));
    assert_eq!(b.session.last_down(), Some(&DownReason::Received(cease)));
    assert_eq!(b.session.counters().failures, 1);
}

#[test]
fn bytes_in_any_pieces() {
    let mut stream = open_bytes(&their_open(LOW_ID));
    stream.extend(keepalive());
    stream.extend(update());
    stream.extend(keepalive());
    for piece in 1..stream.len() {
        let mut b = Bench::in_state(State::OpenSent);
        for bytes in stream.chunks(piece) {
            b.receive(A, bytes);
        }
        assert_eq!(b.outcome(), "Established: KEEPALIVE@1, up 9, update", "pieces of {piece}");
        assert_eq!(b.session.counters().messages_in, 4);
        assert_eq!(b.session.counters().updates_in, 1);
    }
}

#[test]
fn nothing_is_read_after_the_end() {
    let mut b = Bench::in_state(State::Established);
    let mut stream = notification(6, 2);
    stream.extend(update());
    stream.extend([0; 40]);
    b.receive(A, &stream);
    assert_eq!(b.outcome(), "Idle: close@1, lost received 6/2");
    b.receive(A, &update());
    b.session.closed(b.now, A);
    assert_eq!(b.outcome(), "Idle:");
}

#[test]
fn refresh_only_for_the_family_and_only_when_understood() {
    let mut b = Bench::in_state(State::Established);
    b.receive(A, &refresh(Family::Ipv6));
    assert_eq!(b.outcome(), "Established:");
    b.receive(A, &refresh(Family::Ipv4));
    assert_eq!(b.outcome(), "Established: resend");
    b.session.request_refresh(b.now);
    assert_eq!(b.outcome(), "Established: REFRESH@1");

    let capabilities = vec![Capability::Multiprotocol(Family::Ipv4.into())];
    let mut b = established(&config(), &Open { capabilities, ..their_open(LOW_ID) });
    b.session.request_refresh(b.now);
    assert_eq!(b.outcome(), "Established:");
    let mut b = Bench::in_state(State::OpenConfirm);
    b.session.request_refresh(b.now);
    assert_eq!(b.outcome(), "OpenConfirm:");
}

#[test]
fn since_is_the_time_of_the_last_change() {
    let mut b = Bench::in_state(State::Established);
    let up = b.session.since();
    b.wait(s(2));
    b.receive(A, &keepalive());
    assert_eq!(b.session.since(), up);
    b.session.closed(b.now, A);
    assert_eq!(b.session.since(), b.now);
    assert_eq!(b.session.counters().established, 1);
}

#[test]
fn the_end_of_time_is_far() {
    let mut b = Bench::new(&config());
    b.now = Time(u64::MAX - 5);
    b.session.start(b.now);
    b.session.connected(b.now, A, LOCAL);
    assert_eq!(b.session.next_deadline(), Some(Time(u64::MAX)));
}
