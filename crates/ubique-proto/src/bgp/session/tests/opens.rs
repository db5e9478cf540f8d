//! OPENs: what is accepted, what is agreed on, what is refused with which words (RFC 4271 §6.2).

use std::time::Duration;

use ubique_model::{Asn, Family};

use super::bench::*;
use crate::bgp::family::{AddressFamilies, AddressFamily};
use crate::bgp::message::{AddPath, Capability, GracefulRestart, LongLived, Message, Notification, Open, Role};
use crate::bgp::session::{Negotiated, Output, SessionConfig, State};
use crate::bgp::speaker::GracefulRestartConfig;

/// The outcome of an OPEN in OpenSent.
fn answer(config: &SessionConfig, open: &[u8]) -> String {
    let mut b = Bench::new(config);
    b.session.start(b.now);
    b.session.connected(b.now, A, LOCAL);
    b.outputs();
    b.receive(A, open);
    b.outcome()
}

fn refused(config: &SessionConfig, open: &[u8], subcode: u8) {
    let expected = format!("Idle: 2/{subcode}@1, close@1, failed sent 2/{subcode}");
    assert_eq!(answer(config, open), expected);
}

fn accepted(config: &SessionConfig, open: &[u8]) {
    assert_eq!(answer(config, open), "OpenConfirm: KEEPALIVE@1");
}

/// The NOTIFICATION an OPEN is refused with.
fn refusal(config: &SessionConfig, open: &[u8]) -> Notification {
    let mut b = Bench::new(config);
    b.session.start(b.now);
    b.session.connected(b.now, A, LOCAL);
    b.outputs();
    b.receive(A, open);
    match b.session.poll_output() {
        Some(Output::Send(_, bytes)) => match decode(&bytes) {
            Message::Notification(notification) => notification,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn with_capabilities(capabilities: Vec<Capability>) -> Vec<u8> {
    open_bytes(&Open { capabilities, ..their_open(LOW_ID) })
}

fn v6() -> SessionConfig {
    with(|peer| peer.families = AddressFamilies::only(Family::Ipv6))
}

#[test]
fn wrong_as() {
    let open = |asn| open_bytes(&Open { asn, capabilities: vec![Capability::FourOctetAs(asn)], ..their_open(LOW_ID) });
    refused(&config(), &open(Asn(64999)), 2);
    refused(&config(), &open(Asn(0)), 2);
}

#[test]
fn as_trans_needs_the_capability() {
    let config = with(|peer| peer.asn = Asn(4_200_000_000));
    let open = |capabilities| open_bytes(&Open { asn: config.peer.asn, capabilities, ..their_open(LOW_ID) });
    let family = Capability::Multiprotocol(Family::Ipv4.into());
    accepted(&config, &open(vec![family.clone(), Capability::FourOctetAs(config.peer.asn)]));
    refused(&config, &open(vec![family]), 2);
}

#[test]
fn identifier() {
    let internal = with(|peer| peer.asn = config().local_asn);
    let open = |asn, router_id| {
        let capabilities = vec![Capability::FourOctetAs(asn)];
        open_bytes(&Open { asn, capabilities, ..their_open(router_id) })
    };
    refused(&internal, &open(internal.local_asn, OUR_ID), 3);
    accepted(&internal, &open(internal.local_asn, LOW_ID));
    // Another AS may use the same identifier (RFC 6286).
    accepted(&config(), &open(Asn(64501), OUR_ID));
    refused(&config(), &open(Asn(64501), [0, 0, 0, 0].into()), 3);
}

#[test]
fn hold_time() {
    let open = |hold_time_s| open_bytes(&Open { hold_time_s, ..their_open(LOW_ID) });
    refused(&config(), &open(1), 6);
    refused(&config(), &open(2), 6);
    let agreed = |ours: Duration, theirs| {
        let mut b = Bench::new(&with(|peer| peer.hold_time = ours));
        b.session.start(b.now);
        b.session.connected(b.now, A, LOCAL);
        b.receive(A, &open(theirs));
        b.receive(A, &keepalive());
        assert_eq!(b.session.state(), State::Established);
        let negotiated = b.session.established().and_then(|c| c.negotiated.clone());
        negotiated.expect("Established").hold_time
    };
    let s = Duration::from_secs;
    assert_eq!(agreed(s(9), 3), s(3));
    assert_eq!(agreed(s(9), 9), s(9));
    assert_eq!(agreed(s(9), 65535), s(9));
    assert_eq!(agreed(s(90), 9), s(9));
    assert_eq!(agreed(s(9), 0), s(0));
    assert_eq!(agreed(s(0), 180), s(0));
    // What cannot be sent is not proposed.
    assert_eq!(agreed(Duration::from_millis(500), 180), s(3));
    assert_eq!(agreed(s(2), 180), s(3));
    assert_eq!(agreed(s(100_000), 65535), s(65535));
}

#[test]
fn family() {
    let mp = |family: Family| Capability::Multiprotocol(family.into());
    let vpn = Capability::Unknown { code: 1, value: vec![0, 1, 0, 128] };
    accepted(&config(), &with_capabilities(vec![]));
    accepted(&config(), &with_capabilities(vec![Capability::RouteRefresh]));
    accepted(&config(), &with_capabilities(vec![mp(Family::Ipv6), mp(Family::Ipv4)]));
    refused(&config(), &with_capabilities(vec![mp(Family::Ipv6)]), 7);
    refused(&config(), &with_capabilities(vec![vpn.clone()]), 7);
    accepted(&v6(), &with_capabilities(vec![mp(Family::Ipv6)]));
    accepted(&v6(), &with_capabilities(vec![mp(Family::Ipv4), vpn, mp(Family::Ipv6)]));
    refused(&v6(), &with_capabilities(vec![]), 7);
    refused(&v6(), &with_capabilities(vec![mp(Family::Ipv4)]), 7);
    // The data says what is missing (RFC 5492 §5).
    assert_eq!(refusal(&v6(), &with_capabilities(vec![])).data, [1, 4, 0, 2, 0, 1]);
    let no_ipv4 = with_capabilities(vec![mp(Family::Ipv6)]);
    assert_eq!(refusal(&config(), &no_ipv4).data, [1, 4, 0, 1, 0, 1]);
}

#[test]
fn version() {
    let mut open = open_bytes(&their_open(LOW_ID));
    open[19] = 3;
    assert_eq!(refusal(&config(), &open), Notification::with_data(2, 1, [0, 4]));
}

#[test]
fn two_octets_without_the_capability() {
    for (capabilities, four_octets) in [(vec![], false), (vec![Capability::FourOctetAs(Asn(64501))], true)] {
        let mut b = Bench::new(&config());
        b.session.start(b.now);
        b.session.connected(b.now, A, LOCAL);
        b.receive(A, &with_capabilities(capabilities));
        b.receive(A, &keepalive());
        let connection = b.session.established().expect("Established");
        assert_eq!(connection.context.four_octet_as, four_octets);
        assert_eq!(b.session.encode_context().map(|c| c.four_octet_as), Some(four_octets));
    }
}

#[test]
fn ours() {
    let local_asn = Asn(4_200_000_001);
    let mut b = Bench::new(&SessionConfig { local_asn, ..v6() });
    b.session.start(b.now);
    b.session.poll_output();
    b.session.connected(b.now, A, LOCAL);
    let Some(Output::Send(conn, bytes)) = b.session.poll_output() else { panic!("no OPEN") };
    assert_eq!(conn, A);
    assert_eq!(bytes[20..22], 23456u16.to_be_bytes(), "AS_TRANS in the old field");
    let expected = Open {
        asn: local_asn,
        hold_time_s: 9,
        router_id: OUR_ID,
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv6.into()),
            Capability::RouteRefresh,
            Capability::ExtendedMessage,
            Capability::FourOctetAs(local_asn),
            Capability::EnhancedRouteRefresh,
        ],
    };
    assert_eq!(decode(&bytes), Message::Open(expected));
}

fn agreed(config: &SessionConfig, open: &Open) -> Negotiated {
    let mut b = Bench::new(config);
    b.session.start(b.now);
    b.session.connected(b.now, A, LOCAL);
    b.receive(A, &open_bytes(open));
    b.receive(A, &keepalive());
    b.session.negotiated().expect("Established").clone()
}

#[test]
fn several_families() {
    let mp = Capability::Multiprotocol;
    let all = with(|peer| peer.families = AddressFamilies::ALL);
    let open = |capabilities| Open { capabilities, ..their_open(LOW_ID) };
    let two = open(vec![mp(AddressFamily::Ipv6Unicast), mp(AddressFamily::Ipv4FlowSpec)]);
    let expected = [AddressFamily::Ipv6Unicast, AddressFamily::Ipv4FlowSpec];
    assert_eq!(agreed(&all, &two).families, expected.into_iter().collect());
    assert_eq!(agreed(&all, &open(vec![])).families, AddressFamilies::only(Family::Ipv4));
    // One in common is enough, none is too few: the data names all that would do (RFC 5492 §5).
    let unicast = with(|peer| peer.families = AddressFamilies::UNICAST);
    assert_eq!(agreed(&unicast, &two).families, AddressFamilies::only(Family::Ipv6));
    let flows = with_capabilities(vec![mp(AddressFamily::Ipv4FlowSpec)]);
    assert_eq!(refusal(&unicast, &flows), Notification::with_data(2, 7, [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1]));
}

#[test]
fn everything_offered() {
    let config = with(|peer| {
        peer.families = AddressFamilies::UNICAST;
        peer.role = Some(Role::Customer);
        peer.add_path = true;
        peer.extended_next_hop = true;
        let long = Duration::from_secs(1 << 30);
        peer.graceful_restart = Some(GracefulRestartConfig { restart_time: long, long_lived: Some(long) });
    });
    let mut b = Bench::new(&config);
    b.session.start(b.now);
    b.session.poll_output();
    b.session.connected(b.now, A, LOCAL);
    let Some(Output::Send(_, bytes)) = b.session.poll_output() else { panic!("no OPEN") };
    let Message::Open(open) = decode(&bytes) else { panic!("no OPEN") };
    let (v4, v6) = (AddressFamily::Ipv4Unicast, AddressFamily::Ipv6Unicast);
    let stale_time = Duration::from_secs((1 << 24) - 1);
    let expected = [
        Capability::Multiprotocol(v4),
        Capability::Multiprotocol(v6),
        Capability::RouteRefresh,
        Capability::ExtendedNextHop(vec![v4]),
        Capability::ExtendedMessage,
        Capability::Role(Role::Customer),
        Capability::GracefulRestart(GracefulRestart {
            restarting: false,
            notification: true,
            restart_time: Duration::from_secs(4095),
            families: vec![(v4, true), (v6, true)],
        }),
        Capability::FourOctetAs(config.local_asn),
        Capability::AddPath(vec![(v4, AddPath::Receive), (v6, AddPath::Receive)]),
        Capability::EnhancedRouteRefresh,
        Capability::LongLivedGracefulRestart(vec![
            LongLived { family: v4, forwarding: true, stale_time },
            LongLived { family: v6, forwarding: true, stale_time },
        ]),
    ];
    assert_eq!(open.capabilities, expected);
}

#[test]
fn of_several_graceful_restart_capabilities_the_last_counts() {
    let restart = |seconds| {
        let restart_time = Duration::from_secs(seconds);
        Capability::GracefulRestart(GracefulRestart { restart_time, ..GracefulRestart::default() })
    };
    let mut open = their_open(LOW_ID);
    let family = Family::Ipv4.into();
    let long = LongLived { family, forwarding: true, stale_time: Duration::from_secs(9) };
    open.capabilities.push(Capability::LongLivedGracefulRestart(vec![long]));
    assert_eq!(agreed(&config(), &open).long_lived, [], "void without graceful restart");
    open.capabilities.extend([restart(1), restart(2)]);
    let negotiated = agreed(&config(), &open);
    assert_eq!(negotiated.graceful_restart.map(|r| r.restart_time), Some(Duration::from_secs(2)));
    assert_eq!(negotiated.long_lived, [long]);
}

#[test]
fn roles() {
    use Role::{Customer, Peer, Provider, RouteServer, RouteServerClient, Unknown};
    let open = |roles: &[Role]| {
        let mut open = their_open(LOW_ID);
        open.capabilities.extend(roles.iter().map(|role| Capability::Role(*role)));
        open_bytes(&open)
    };
    let ours = |role, strict| {
        with(|peer| {
            peer.role = role;
            peer.strict_role = strict;
        })
    };
    let all = [Provider, RouteServer, RouteServerClient, Customer, Peer, Unknown(9)];
    let fitting = [
        (Provider, Customer),
        (Customer, Provider),
        (RouteServer, RouteServerClient),
        (RouteServerClient, RouteServer),
        (Peer, Peer),
    ];
    for role in all {
        for theirs in all {
            let config = ours(Some(role), false);
            if fitting.contains(&(role, theirs)) {
                accepted(&config, &open(&[theirs]));
            } else {
                refused(&config, &open(&[theirs]), 11);
            }
            // Who announces no role compares none.
            accepted(&ours(None, true), &open(&[theirs]));
        }
        accepted(&ours(Some(role), false), &open(&[]));
        refused(&ours(Some(role), true), &open(&[]), 11);
    }
    // The same twice is once; two different ones are none at all (RFC 9234 §4.2).
    accepted(&ours(Some(Peer), true), &open(&[Peer, Peer]));
    refused(&ours(Some(Peer), false), &open(&[Peer, Customer]), 11);
    refused(&ours(None, false), &open(&[Peer, Customer]), 11);
    // Inside an AS there are none.
    let internal = with(|peer| {
        peer.asn = config().local_asn;
        peer.role = Some(Customer);
        peer.strict_role = true;
    });
    let asn = internal.peer.asn;
    let capabilities = vec![Capability::FourOctetAs(asn), Capability::Role(Customer)];
    accepted(&internal, &open_bytes(&Open { asn, capabilities, ..their_open(LOW_ID) }));
}
