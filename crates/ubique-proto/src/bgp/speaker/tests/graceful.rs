//! Graceful restart, both sides (RFC 4724, RFC 8538), long-lived (RFC 9494), and what BFD has to do with it (RFC 5882 §4.3).

use super::bench::*;
use super::fixture::update;
use crate::bgp::family::AddressFamilies;
use crate::bgp::message::{Capability, GracefulRestart, Notification, Open};
use crate::bgp::notification::{cease, code};
use crate::bgp::session::CROSSING_TIME;
use crate::bgp::speaker::{GracefulRestartConfig, Import, In, Restarted, STALE_MAX, SpeakerConfig};

const ROUTES: [&str; 2] = ["198.51.100.0/24", "203.0.113.0/24"];

fn helper(long_lived_s: Option<u64>) -> SpeakerConfig {
    neighbour(|peer| {
        let gr = GracefulRestartConfig { restart_time: s(60), long_lived: long_lived_s.map(s) };
        peer.graceful_restart = Some(gr);
    })
}

fn open(notification: bool) -> Open {
    open_with(&[V4, V6], vec![graceful(30, notification, &[(V4, true)])])
}

/// Established, the neighbour's routes of [`ROUTES`] held.
fn established(config: SpeakerConfig, open: &Open) -> Bench {
    let mut b = Bench::up(config, open);
    b.receive(update(2, &[], &ROUTES));
    b.receive_end_of_rib(V4);
    assert_eq!(b.held(), "198.51.100.0/24 203.0.113.0/24");
    b
}

const STALE: &str = "198.51.100.0/24~ 203.0.113.0/24~";

#[test]
fn routes_of_a_lost_session_stay_for_the_restart_time() {
    let mut b = established(helper(None), &open(true));
    b.close();
    assert_eq!(b.held(), STALE);
    assert_eq!(b.speaker.peer(P0).map(|p| p.stale), Some(AddressFamilies::only(V4)));
    b.wait(s(29));
    assert_eq!(b.held(), STALE);
    b.wait(s(1));
    assert_eq!(b.held(), "");
    assert_eq!(b.speaker.peer(P0).map(|p| p.stale), Some(AddressFamilies::NONE));
}

#[test]
fn we_wait_no_longer_than_we_are_ready_to() {
    let patient = open_with(&[V4], vec![graceful(4000, true, &[(V4, true)])]);
    let mut b = established(helper(None), &patient);
    b.close();
    b.wait(s(59));
    assert_eq!(b.held(), STALE);
    b.wait(s(1));
    assert_eq!(b.held(), "");
}

#[test]
fn without_the_capability_of_both_routes_go_with_the_session() {
    let plain = open_with(&[V4], vec![]);
    let mut b = established(helper(None), &plain);
    b.close();
    assert_eq!(b.held(), "");
    let mut b = established(neighbour(|_| ()), &open(true));
    b.close();
    assert_eq!(b.held(), "");
    // A family it did not list.
    let other = open_with(&[V4, V6], vec![graceful(30, true, &[(V6, true)])]);
    let mut b = established(helper(None), &other);
    b.close();
    assert_eq!(b.held(), "");
}

#[test]
fn end_of_rib_sweeps_what_was_not_named_again() {
    let mut b = established(helper(None), &open(true));
    b.close();
    b.wait(s(5));
    b.connect(&open(true));
    assert_eq!(b.held(), STALE);
    b.receive(update(2, &[], &ROUTES[..1]));
    assert_eq!(b.held(), "198.51.100.0/24 203.0.113.0/24~");
    // The restart time no longer runs.
    b.wait(s(60));
    assert_eq!(b.held(), "198.51.100.0/24 203.0.113.0/24~");
    b.receive_end_of_rib(V6);
    assert_eq!(b.held(), "198.51.100.0/24 203.0.113.0/24~");
    b.receive_end_of_rib(V4);
    assert_eq!(b.held(), "198.51.100.0/24");
}

#[test]
fn an_end_of_rib_that_never_comes_is_not_waited_for() {
    let mut b = established(helper(None), &open(true));
    b.close();
    b.connect(&open(true));
    b.wait(STALE_MAX - s(1));
    assert_eq!(b.held(), STALE);
    b.wait(s(1));
    assert_eq!(b.held(), "");
}

#[test]
fn who_did_not_keep_forwarding_has_its_routes_flushed_at_once() {
    for returns in [vec![graceful(30, true, &[(V4, false)])], vec![graceful(30, true, &[(V6, true)])], vec![]] {
        let mut b = established(helper(None), &open(true));
        b.close();
        assert_eq!(b.held(), STALE);
        b.connect(&open_with(&[V4, V6], returns));
        assert_eq!(b.held(), "");
    }
}

#[test]
fn a_second_loss_deletes_what_was_still_stale() {
    let mut b = established(helper(None), &open(true));
    b.close();
    b.connect(&open(true));
    b.receive(update(2, &[], &ROUTES[..1]));
    b.close();
    assert_eq!(b.held(), "198.51.100.0/24~");
    b.wait(s(30));
    assert_eq!(b.held(), "");
}

#[test]
fn a_loss_in_the_middle_of_a_refresh_deletes_nothing() {
    let capabilities = || vec![Capability::EnhancedRouteRefresh, graceful(30, true, &[(V4, true)])];
    for (import, long_lived_s) in [(Import::Observe, None), (Import::Observe, Some(9)), (Import::GaoRexford, None)] {
        let mut config = helper(long_lived_s);
        config.peers[0].import = import;
        let mut b = established(config, &open_with(&[V4], capabilities()));
        b.receive_refresh(V4, 1);
        b.receive(update(2, &[], &ROUTES[..1]));
        b.close();
        assert_eq!(b.held(), STALE);
        b.connect(&open_with(&[V4], capabilities()));
        b.receive(update(2, &[], &ROUTES[..1]));
        // But what is stale since the restart, and not since a refresh, is.
        b.close();
        assert_eq!(b.held(), "198.51.100.0/24~");
    }
}

#[test]
fn a_notification_is_graceful_when_both_understand_that_and_a_hard_reset_never() {
    let hold_timer = Notification::new(code::HOLD_TIMER_EXPIRED, 0);
    let shutdown = Notification::cease(cease::ADMINISTRATIVE_SHUTDOWN, "");
    for (notification, n, stays) in [
        (true, hold_timer.clone(), true),
        (false, hold_timer, false),
        (true, shutdown.clone(), true),
        (true, shutdown.hard_reset(), false),
        (true, Notification::new(code::CEASE, cease::HARD_RESET), false),
    ] {
        let mut b = established(helper(None), &open(notification));
        b.receive_notification(&n);
        assert_eq!(b.held(), if stays { STALE } else { "" }, "{n}");
    }
}

#[test]
fn our_hold_timer_is_graceful_only_with_notifications() {
    for (notification, expected) in [(true, STALE), (false, "")] {
        let mut b = established(helper(None), &Open { hold_time_s: 3, ..open(notification) });
        b.wait(s(3));
        assert!(!b.is_up());
        assert_eq!(b.held(), expected);
    }
}

#[test]
fn what_must_really_end_is_a_hard_reset() {
    for (input, inside) in [
        (In::StopPeer { peer: P0, subcode: 2, message: "upgrade".to_owned() }, [6, 2]),
        (In::RemovePeer { peer: P0 }, [6, 3]),
        (In::BfdDown { peer: P0, control_independent: true }, [6, 10]),
    ] {
        for (notification, subcode) in [(true, 9), (false, inside[1])] {
            let mut b = established(helper(None), &open(notification));
            b.sent();
            b.input(input.clone());
            let reason = b.outputs().iter().find_map(reason_sent).expect("a NOTIFICATION");
            assert_eq!((reason.code, reason.subcode), (6, subcode), "{input:?}");
            let cause = reason.hard_reset_cause().unwrap_or(reason);
            assert_eq!([cause.code, cause.subcode], inside);
            assert_eq!(b.held(), "", "{input:?}");
        }
    }
}

fn reason_sent(output: &crate::bgp::speaker::Out) -> Option<Notification> {
    use crate::bgp::speaker::{DownReason, Out, SessionEvent};
    match output {
        Out::Session { event: SessionEvent::Down { reason: DownReason::Sent(n), .. }, .. } => Some(n.clone()),
        _ => None,
    }
}

#[test]
fn stopping_a_neighbour_forgets_what_it_left_behind() {
    let mut b = established(helper(None), &open(true));
    b.close();
    assert_eq!(b.held(), STALE);
    b.input(In::StopPeer { peer: P0, subcode: 2, message: String::new() });
    assert_eq!(b.held(), "");
}

#[test]
fn bfd_that_shares_the_fate_of_the_control_plane_says_only_that_it_restarts() {
    for notification in [true, false] {
        let mut b = established(helper(None), &open(notification));
        b.sent();
        b.input(In::BfdDown { peer: P0, control_independent: false });
        assert!(b.words().starts_with("6/10"));
        assert_eq!(b.held(), STALE);
    }
    let mut b = established(helper(None), &open_with(&[V4], vec![]));
    b.input(In::BfdDown { peer: P0, control_independent: false });
    assert_eq!(b.held(), "");
}

#[test]
fn bfd_that_outlives_the_control_plane_ends_a_restart_under_way() {
    for (control_independent, left) in [(true, ""), (false, STALE)] {
        let mut b = established(helper(Some(1000)), &open(true));
        b.close();
        b.wait(s(5));
        b.input(In::BfdDown { peer: P0, control_independent });
        assert_eq!(b.held(), left);
        // Long-lived ones, too, and while the neighbour is about to come back.
        let mut b = established(helper(Some(1000)), &patient(30, true, 500));
        b.close();
        b.wait(s(40));
        b.accepted();
        b.input(In::BfdDown { peer: P0, control_independent });
        assert_eq!(b.held(), if control_independent { "" } else { LONG_STALE });
    }
}

#[test]
fn a_neighbour_that_connects_again_has_restarted_silently() {
    let mut b = established(helper(None), &open(true));
    b.wait(CROSSING_TIME);
    b.accepted();
    assert_eq!(b.held(), STALE);
    // Nothing is said on the connection that nobody reads (RFC 4724 §4.2).
    assert_eq!(b.words(), "OPEN");
    let mut b = established(helper(None), &open(true));
    b.wait(CROSSING_TIME);
    b.connect(&open(true));
    b.receive(update(2, &[], &ROUTES[1..]));
    b.receive_end_of_rib(V4);
    assert_eq!(b.held(), "203.0.113.0/24");
}

#[test]
fn a_connection_that_crossed_ours_is_refused_even_so() {
    let mut b = established(helper(None), &open(true));
    b.sent();
    b.accepted();
    assert_eq!(b.words(), "6/7");
    assert!(b.is_up());
    // And any other, without graceful restart.
    let mut b = established(helper(None), &open_with(&[V4], vec![]));
    b.wait(s(100));
    b.sent();
    b.accepted();
    assert_eq!(b.words(), "6/7");
}

fn patient(restart_s: u64, forwarding: bool, long_lived_s: u64) -> Open {
    let capabilities =
        vec![graceful(restart_s, true, &[(V4, forwarding)]), long_lived(&[(V4, forwarding, long_lived_s)])];
    open_with(&[V4], capabilities)
}

const LONG_STALE: &str = "198.51.100.0/24~~ 203.0.113.0/24~~";

#[test]
fn after_the_restart_time_comes_the_long_lived_one() {
    let mut b = established(helper(Some(1000)), &patient(30, true, 500));
    b.close();
    b.wait(s(29));
    assert_eq!(b.held(), STALE);
    b.wait(s(1));
    assert_eq!(b.held(), LONG_STALE);
    b.wait(s(499));
    assert_eq!(b.held(), LONG_STALE);
    b.wait(s(1));
    assert_eq!(b.held(), "");
}

#[test]
fn the_long_lived_time_is_the_shorter_one_and_needs_both() {
    let mut b = established(helper(Some(100)), &patient(30, true, 500));
    b.close();
    b.wait(s(129));
    assert_eq!(b.held(), LONG_STALE);
    b.wait(s(1));
    assert_eq!(b.held(), "");
    let mut b = established(helper(None), &patient(30, true, 500));
    b.close();
    b.wait(s(30));
    assert_eq!(b.held(), "");
    // A restart time of zero leads there at once (RFC 9494 §4.2).
    let mut b = established(helper(Some(100)), &patient(0, true, 500));
    b.close();
    assert_eq!(b.held(), LONG_STALE);
}

#[test]
fn the_long_lived_time_runs_on_until_end_of_rib() {
    let mut b = established(helper(Some(1000)), &patient(30, true, 500));
    b.close();
    b.wait(s(130));
    b.connect(&patient(30, true, 500));
    b.receive(update(2, &[], &ROUTES[..1]));
    assert_eq!(b.held(), "198.51.100.0/24 203.0.113.0/24~~");
    // Lost again: what was stale for long stays so, and its time goes on.
    b.close();
    assert_eq!(b.held(), "198.51.100.0/24~ 203.0.113.0/24~~");
    b.wait(s(399));
    assert_eq!(b.held(), LONG_STALE);
    b.wait(s(1));
    assert_eq!(b.held(), "");
    let mut b = established(helper(Some(1000)), &patient(30, true, 500));
    b.close();
    b.wait(s(130));
    b.connect(&patient(30, true, 500));
    b.receive_end_of_rib(V4);
    assert_eq!(b.held(), "");
    // Back without F: gone at once.
    let mut b = established(helper(Some(1000)), &patient(30, true, 500));
    b.close();
    b.wait(s(130));
    b.connect(&patient(30, false, 500));
    assert_eq!(b.held(), "");
}

#[test]
fn frozen_through_all_of_it_we_wake_up_and_forget() {
    let mut b = established(helper(Some(1000)), &patient(30, true, 500));
    b.close();
    b.now = b.now + s(100_000);
    b.speaker.handle_deadline(b.now);
    assert_eq!(b.held(), "");
}

fn restarted(forwarding: AddressFamilies) -> SpeakerConfig {
    SpeakerConfig { restarted: Some(Restarted { forwarding }), ..helper(Some(1000)) }
}

/// R, and F of both families, of our OPEN.
fn bits(b: &mut Bench) -> (bool, [bool; 2]) {
    let offered = b.offered();
    let restart = offered.iter().find_map(|c| match c {
        Capability::GracefulRestart(GracefulRestart { restarting, notification, families, .. }) => {
            assert!(notification, "N");
            assert_eq!(families.iter().map(|(f, _)| *f).collect::<Vec<_>>(), [V4, V6]);
            Some((*restarting, [families[0].1, families[1].1]))
        }
        _ => None,
    });
    let restart = restart.expect("offered");
    let forwarding = offered.iter().find_map(|c| match c {
        Capability::LongLivedGracefulRestart(families) => Some(families.iter().map(|l| l.forwarding)),
        _ => None,
    });
    assert!(forwarding.expect("offered").eq(restart.1), "the same F for long");
    restart
}

#[test]
fn a_restarted_speaker_says_so_and_what_it_kept() {
    let mut b = Bench::new(restarted(AddressFamilies::only(V4)));
    b.accepted();
    assert_eq!(bits(&mut b), (true, [true, false]));
    b.close();
    b.input(In::Settled);
    b.accepted();
    assert_eq!(bits(&mut b), (false, [true, true]));
    // One that never restarted has forwarded all the time.
    let mut b = Bench::new(helper(Some(1000)));
    b.accepted();
    assert_eq!(bits(&mut b), (false, [true, true]));
}

#[test]
fn end_of_rib_waits_until_everything_is_announced_again() {
    let mut b = Bench::new(restarted(AddressFamilies::UNICAST));
    b.connect(&open(true));
    b.sent();
    b.announce("192.0.2.0/24");
    assert_eq!(b.words(), "+192.0.2.0/24");
    b.input(In::Settled);
    assert_eq!(b.words(), "EoR ipv4 unicast, EoR ipv6 unicast");
    b.input(In::Settled);
    assert_eq!(b.words(), "");
}

#[test]
fn but_not_for_ever() {
    let mut b = Bench::new(restarted(AddressFamilies::UNICAST));
    b.connect(&open(true));
    b.sent();
    b.wait(s(59));
    assert_eq!(b.words(), "");
    b.wait(s(1));
    assert_eq!(b.words(), "EoR ipv4 unicast, EoR ipv6 unicast");
    b.close();
    b.accepted();
    assert_eq!(bits(&mut b), (false, [true, true]));
}

#[test]
fn a_neighbour_without_graceful_restart_is_not_kept_waiting() {
    let config =
        SpeakerConfig { restarted: Some(Restarted { forwarding: AddressFamilies::UNICAST }), ..neighbour(|_| ()) };
    let mut b = Bench::new(config);
    b.connect(&open(true));
    assert_eq!(b.words(), "OPEN, KEEPALIVE, EoR ipv4 unicast, EoR ipv6 unicast");
}
