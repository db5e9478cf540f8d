//! Route refresh, plain (RFC 2918) and enhanced (RFC 7313), family by family.

use super::bench::*;
use super::fixture::{keepalive, update};
use crate::bgp::message::Capability;
use crate::bgp::speaker::graceful::REFRESH_INTERVAL;
use crate::bgp::speaker::{GracefulRestartConfig, In, Restarted, STALE_MAX, SpeakerConfig};
use crate::bgp::wire;

fn enhanced() -> crate::bgp::message::Open {
    open_with(&[V4, V6], vec![Capability::EnhancedRouteRefresh])
}

/// Established, one route of each family announced.
fn announcing(open: &crate::bgp::message::Open) -> Bench {
    let mut b = Bench::up(neighbour(|_| ()), open);
    b.announce("192.0.2.0/24");
    b.announce("2001:db8::/48");
    assert_eq!(b.words(), "+192.0.2.0/24, +2001:db8::/48");
    b
}

#[test]
fn a_plain_request_repeats_one_family() {
    let mut b = announcing(&open_with(&[V4, V6], vec![]));
    b.receive_refresh(V6, 0);
    assert_eq!(b.words(), "+2001:db8::/48");
    b.receive_refresh(V4, 0);
    assert_eq!(b.words(), "+192.0.2.0/24");
}

#[test]
fn however_often_it_asks_at_once_it_is_told_once() {
    for (open, words) in [
        (open_with(&[V4, V6], vec![]), "+192.0.2.0/24"),
        (enhanced(), "BoRR ipv4 unicast, +192.0.2.0/24, EoRR ipv4 unicast"),
    ] {
        let mut b = announcing(&open);
        let mut bytes = vec![];
        (0..178).for_each(|_| wire::encode_route_refresh(V4, 0, &mut bytes));
        b.receive(bytes);
        assert_eq!(b.words(), words);
    }
}

#[test]
fn a_plain_request_waits_for_room_as_an_enhanced_one_does() {
    let mut b = announcing(&open_with(&[V4, V6], vec![]));
    let mut bytes = vec![];
    (0..100).for_each(|_| wire::encode_route_refresh(V4, 0, &mut bytes));
    // Nothing is acknowledged until the window is full.
    b.receive_refresh(V4, 0);
    while !b.words().is_empty() {
        b.receive_refresh(V4, 0);
    }
    b.receive(bytes);
    assert_eq!((b.words(), b.speaker.rib().counters(P0).pending), (String::new(), 0), "no work before it can be sent");
    b.acknowledge();
    b.receive(keepalive());
    assert_eq!(b.words(), "+192.0.2.0/24");
}

#[test]
fn a_refresh_that_begins_again_and_again_begins_once() {
    let mut b = Bench::up(neighbour(|_| ()), &enhanced());
    b.receive(update(2, &[], &["198.51.100.0/24", "203.0.113.0/24"]));
    b.receive_refresh(V4, 1);
    b.receive(update(2, &[], &["203.0.113.0/24"]));
    b.wait(STALE_MAX - s(1));
    // It has more time.
    b.receive_refresh(V4, 1);
    assert_eq!(b.held(), "198.51.100.0/24~ 203.0.113.0/24");
    b.wait(s(2));
    assert_eq!(b.held(), "198.51.100.0/24~ 203.0.113.0/24");
    b.receive_refresh(V4, 2);
    assert_eq!(b.held(), "203.0.113.0/24");
}

#[test]
fn a_refresh_right_after_another_is_passed_over() {
    let mut b = Bench::up(neighbour(|_| ()), &enhanced());
    b.receive(update(2, &[], &["203.0.113.0/24"]));
    b.receive_refresh(V4, 1);
    b.receive(update(2, &[], &["203.0.113.0/24"]));
    b.receive_refresh(V4, 2);
    b.wait(REFRESH_INTERVAL - s(1) / 10);
    b.receive_refresh(V4, 1);
    b.receive_refresh(V4, 2);
    assert_eq!(b.held(), "203.0.113.0/24");
    b.wait(s(1) / 10);
    b.receive_refresh(V4, 1);
    assert_eq!(b.held(), "203.0.113.0/24~");
}

#[test]
fn an_enhanced_answer_is_framed() {
    let mut b = announcing(&enhanced());
    b.receive_refresh(V6, 0);
    assert_eq!(b.words(), "BoRR ipv6 unicast, +2001:db8::/48, EoRR ipv6 unicast");
    b.withdraw("2001:db8::/48");
    assert_eq!(b.words(), "-2001:db8::/48");
    b.receive_refresh(V6, 0);
    assert_eq!(b.words(), "BoRR ipv6 unicast, EoRR ipv6 unicast");
    // Not of a family that is not spoken, nor anything of a subtype nobody knows.
    let mut b = Bench::up(neighbour(|_| ()), &open_with(&[V4], vec![Capability::EnhancedRouteRefresh]));
    b.receive_refresh(V6, 0);
    b.receive_refresh(V4, 7);
    assert_eq!(b.words(), "");
    assert!(b.is_up());
}

#[test]
fn no_borr_before_end_of_rib() {
    let config = SpeakerConfig {
        restarted: Some(Restarted { forwarding: Default::default() }),
        ..neighbour(|peer| {
            peer.graceful_restart = Some(GracefulRestartConfig { restart_time: s(60), long_lived: None });
        })
    };
    let mut b = Bench::up(config, &enhanced());
    b.announce("192.0.2.0/24");
    b.sent();
    b.receive_refresh(V4, 0);
    assert_eq!(b.words(), "");
    b.input(In::Settled);
    let expected = "EoR ipv4 unicast, EoR ipv6 unicast, BoRR ipv4 unicast, +192.0.2.0/24, EoRR ipv4 unicast";
    assert_eq!(b.words(), expected);
}

#[test]
fn what_the_neighbour_does_not_repeat_is_swept() {
    let mut b = Bench::up(neighbour(|_| ()), &enhanced());
    b.receive(update(2, &[], &["198.51.100.0/24", "203.0.113.0/24"]));
    b.input(In::RequestRefresh { peer: P0 });
    assert_eq!(b.words(), "REFRESH ipv4 unicast, REFRESH ipv6 unicast");
    b.receive_refresh(V4, 1);
    assert_eq!(b.held(), "198.51.100.0/24~ 203.0.113.0/24~");
    b.receive(update(2, &[], &["203.0.113.0/24"]));
    assert_eq!(b.held(), "198.51.100.0/24~ 203.0.113.0/24");
    b.receive_refresh(V6, 2);
    assert_eq!(b.held(), "198.51.100.0/24~ 203.0.113.0/24");
    b.receive_refresh(V4, 2);
    assert_eq!(b.held(), "203.0.113.0/24");
    // EoRR without BoRR says nothing.
    b.receive_refresh(V4, 2);
    assert_eq!(b.held(), "203.0.113.0/24");
}

#[test]
fn an_eorr_that_never_comes_is_not_waited_for() {
    let mut b = Bench::up(neighbour(|_| ()), &enhanced());
    b.receive(update(2, &[], &["203.0.113.0/24"]));
    b.receive_refresh(V4, 1);
    b.wait(STALE_MAX - s(1));
    assert_eq!(b.held(), "203.0.113.0/24~");
    b.wait(s(1));
    assert_eq!(b.held(), "");
}

#[test]
fn a_borr_before_end_of_rib_is_ignored() {
    let restarts = graceful(30, true, &[(V4, true)]);
    let open = open_with(&[V4], vec![Capability::EnhancedRouteRefresh, restarts]);
    let mut b = Bench::up(neighbour(|_| ()), &open);
    b.receive(update(2, &[], &["203.0.113.0/24"]));
    b.receive_refresh(V4, 1);
    assert_eq!(b.held(), "203.0.113.0/24");
    b.receive_end_of_rib(V4);
    b.receive_refresh(V4, 1);
    assert_eq!(b.held(), "203.0.113.0/24~");
}

#[test]
fn a_malformed_borr_has_an_error_of_its_own() {
    let mut b = Bench::up(neighbour(|_| ()), &enhanced());
    let mut bytes = vec![0xff; 16];
    bytes.extend([0, 24, 5, 0, 1, 1, 1, 0]);
    b.receive(bytes);
    assert!(b.words().starts_with("7/1"));
}
