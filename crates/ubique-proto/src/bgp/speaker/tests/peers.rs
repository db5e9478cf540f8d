//! Neighbours that come and go, what they may give us and we may tell them; what is seen and what is written down.

use ubique_model::{Family, Relation};

use super::bench::*;
use super::fixture::{self, asn, config, local, peer, prefix, update};
use crate::bgp::family::AddressFamilies;
use crate::bgp::message::{AddPath, Capability, Message};
use crate::bgp::session::State;
use crate::bgp::speaker::{
    ConnId, Delivery, DownReason, GracefulRestartConfig, In, MAX_PEERS, Out, PeerId, Speaker, SpeakerConfig,
};

const P1: PeerId = PeerId(1);

fn add(speaker: &mut Speaker, peer_id: u32, n: u8) -> Vec<Out> {
    let config = Box::new(peer(n, Relation::Peer));
    speaker.handle_input(crate::Time(1), In::AddPeer { peer: PeerId(peer_id), config });
    fixture::drain(speaker)
}

#[test]
fn numbers_are_used_again_the_lowest_first() {
    let mut speaker = Speaker::new(config(1, 1, vec![]));
    assert_eq!(add(&mut speaker, 0, 2), []);
    assert_eq!(add(&mut speaker, 1, 3), []);
    assert!(matches!(&add(&mut speaker, 1, 4)[..], [Out::Refused { peer: P1, .. }]), "taken");
    assert!(matches!(&add(&mut speaker, 7, 4)[..], [Out::Refused { .. }]), "not the next");
    speaker.handle_input(crate::Time(2), In::RemovePeer { peer: P0 });
    assert!(speaker.peer(P0).is_none());
    assert_eq!(speaker.peers().map(|p| p.peer).collect::<Vec<_>>(), [P1]);
    assert!(matches!(&add(&mut speaker, 2, 4)[..], [Out::Refused { .. }]), "0 is free");
    assert_eq!(add(&mut speaker, 0, 4), []);
    assert_eq!(speaker.peer(P0).map(|p| (p.config.asn, p.enabled)), Some((asn(4), false)));
    speaker.handle_input(crate::Time(3), In::RemovePeer { peer: PeerId(99) });
}

#[test]
fn a_scope_can_change_and_stays_the_limit() {
    let mut speaker = Speaker::new(SpeakerConfig { scope: Some(vec![prefix("192.0.2.0/24")]), ..config(1, 1, vec![]) });
    assert_eq!(add(&mut speaker, 0, 2), []);
    let announce = |speaker: &mut Speaker, text: &str| {
        let announcement = ubique_model::policy::Announcement::new(prefix(text));
        speaker.handle_input(crate::Time(2), In::Announce { peer: P0, announcement });
        fixture::drain(speaker).iter().any(|out| matches!(out, Out::Refused { .. }))
    };
    assert!(!announce(&mut speaker, "192.0.2.0/24"));
    assert!(announce(&mut speaker, "198.51.100.0/24"));
    speaker.handle_input(crate::Time(3), In::Rescope { scope: vec![prefix("198.51.100.0/24")] });
    assert!(!announce(&mut speaker, "198.51.100.0/24"));
    assert!(announce(&mut speaker, "192.0.2.0/24"), "no longer ours");
    assert_eq!(speaker.announced(P0).count(), 2, "what was announced stays until it is withdrawn");
    speaker.handle_input(crate::Time(4), In::Withdraw { peer: P0, prefix: prefix("192.0.2.0/24") });
    assert_eq!(speaker.announced(P0).count(), 1);
}

#[test]
fn there_is_a_limit() {
    let mut speaker = Speaker::new(config(1, 1, vec![]));
    for n in 0..MAX_PEERS as u32 {
        assert_eq!(add(&mut speaker, n, 2), []);
    }
    assert!(matches!(&add(&mut speaker, MAX_PEERS as u32, 2)[..], [Out::Refused { .. }]));
}

#[test]
fn nothing_is_left_of_a_removed_neighbour() {
    let mut b = Bench::up(neighbour(|_| ()), &open_with(&[V4, V6], vec![]));
    b.receive(update(2, &[], &["203.0.113.0/24"]));
    b.announce("192.0.2.0/24");
    b.sent();
    b.input(In::RemovePeer { peer: P0 });
    let outputs = b.outputs();
    assert!(outputs.contains(&Out::Best { prefix: prefix("203.0.113.0/24"), next_hop: None }), "{outputs:?}");
    assert!(b.speaker.routes(prefix("203.0.113.0/24")).is_empty());
    assert_eq!(b.speaker.next_deadline(), None);
    // Whatever the driver still has to say about it.
    b.receive(fixture::keepalive());
    b.close();
    b.input(In::StartPeer(P0));
    b.input(In::Connected { peer: P0, conn: ConnId(77), local: local(1) });
    assert_eq!(b.outputs(), [Out::Close { conn: ConnId(77) }]);
    // Another one in its place knows nothing of it.
    b.input(In::AddPeer { peer: P0, config: Box::new(peer(2, Relation::Peer)) });
    b.input(In::StartPeer(P0));
    b.connect(&open_with(&[V4], vec![]));
    assert_eq!(b.words(), "OPEN, KEEPALIVE, EoR ipv4 unicast");
}

#[test]
fn what_is_out_of_scope_is_refused() {
    let config = SpeakerConfig { scope: Some(vec![prefix("192.0.2.0/24")]), ..neighbour(|_| ()) };
    let mut b = Bench::up(config, &open_with(&[V4, V6], vec![]));
    for outside in ["198.51.100.0/24", "192.0.0.0/16", "0.0.0.0/0", "2001:db8::/48"] {
        b.announce(outside);
        assert!(matches!(&b.outputs()[..], [Out::Refused { peer: P0, .. }]), "{outside}");
    }
    b.announce("192.0.2.0/25");
    assert_eq!(b.words(), "+192.0.2.0/25");
    assert_eq!(b.speaker.announced(P0).collect::<Vec<_>>(), [(prefix("192.0.2.0/25"), Delivery::Sent)]);
}

#[test]
fn too_many_prefixes_end_that_session_and_only_the_operator_brings_it_back() {
    for graceful_restart in [false, true] {
        let mut peers = vec![peer(2, Relation::Peer), peer(3, Relation::Peer)];
        peers[0].max_prefix = Some(2);
        let gr = GracefulRestartConfig { restart_time: s(60), long_lived: None };
        peers[0].graceful_restart = graceful_restart.then_some(gr);
        let mut b = Bench::new(config(1, 1, peers));
        let more = if graceful_restart { vec![graceful(60, true, &[(V4, true)])] } else { vec![] };
        b.connect(&open_with(&[V4], more));
        b.input(In::Accepted { peer: P1, conn: ConnId(50), local: local(1) });
        for bytes in [fixture::open(3, Family::Ipv4), fixture::keepalive()] {
            b.input(In::Received { conn: ConnId(50), bytes });
        }
        b.outputs();
        b.receive(update(2, &[], &["10.1.0.0/16", "10.2.0.0/16"]));
        assert!(b.is_up());
        b.receive(update(2, &[], &["10.3.0.0/16"]));
        let status = b.speaker.peer(P0).expect("configured");
        assert_eq!((status.state, status.enabled), (State::Idle, false));
        let Some(DownReason::Sent(sent)) = status.last_down else { panic!("{:?}", status.last_down) };
        let sent = sent.hard_reset_cause().filter(|_| graceful_restart).unwrap_or(sent.clone());
        assert_eq!((sent.code, sent.subcode, &sent.data[..]), (6, 1, &[0, 1, 1, 0, 0, 0, 2][..]));
        assert_eq!(b.held(), "", "nothing is kept, not even gracefully");
        assert_eq!(b.speaker.peer(P1).map(|p| p.state), Some(State::Established));
        b.input(In::StartPeer(P0));
        b.connect(&open_with(&[V4], vec![]));
    }
}

#[test]
fn several_paths_are_received_when_both_want_that() {
    let sends = Capability::AddPath(vec![(V4, AddPath::Both), (V6, AddPath::Receive)]);
    let b = Bench::up(neighbour(|peer| peer.add_path = true), &open_with(&[V4, V6], vec![sends.clone()]));
    let add_path = |b: &Bench| b.speaker.peer(P0).and_then(|p| p.negotiated).map(|n| n.add_path);
    assert_eq!(add_path(&b), Some(AddressFamilies::only(V4)));
    let b = Bench::up(neighbour(|_| ()), &open_with(&[V4, V6], vec![sends]));
    assert_eq!(add_path(&b), Some(AddressFamilies::NONE));
}

#[test]
fn ipv4_over_an_ipv6_next_hop_when_both_want_that() {
    let extends = || vec![Capability::ExtendedNextHop(vec![V4])];
    for (wants, theirs, expected) in [
        (true, extends(), AddressFamilies::only(V4)),
        (false, extends(), AddressFamilies::NONE),
        (true, vec![], AddressFamilies::NONE),
    ] {
        let b = Bench::up(neighbour(|peer| peer.extended_next_hop = wants), &open_with(&[V4, V6], theirs));
        let status = b.speaker.peer(P0).expect("configured");
        assert_eq!(status.negotiated.map(|n| n.extended_next_hop), Some(expected));
    }
}

#[test]
fn whoever_watches_sees_whole_messages_in_their_order() {
    let mut b = Bench::new(SpeakerConfig { tap: true, ..neighbour(|_| ()) });
    b.announce("192.0.2.0/24");
    b.accepted();
    let mut stream = vec![];
    crate::bgp::wire::encode_open(&open_with(&[V4], vec![]), &mut stream);
    stream.extend(fixture::keepalive());
    for half in stream.chunks(30) {
        b.receive(half.to_vec());
    }
    b.receive(fixture::keepalive());
    let mut words = vec![];
    for output in b.outputs() {
        match output {
            Out::Message { peer, conn, sent, bytes } => {
                assert_eq!((peer, conn), (P0, ConnId(1)));
                let [message] = &fixture::messages(&bytes)[..] else { panic!("one whole message") };
                let kind = match message {
                    Message::Open(_) => "OPEN",
                    Message::Update(_) => "UPDATE",
                    Message::Keepalive => "KEEPALIVE",
                    _ => "?",
                };
                words.push(format!("{}{kind}", if sent { '>' } else { '<' }));
            }
            Out::Session { .. } => words.push("up".to_owned()),
            Out::Send { .. } => words.push("send".to_owned()),
            _ => {}
        }
    }
    let expected = "send >OPEN <OPEN send >KEEPALIVE <KEEPALIVE up send >UPDATE >UPDATE <KEEPALIVE";
    assert_eq!(words.join(" "), expected);
    // And what is malformed, too: a second OPEN.
    b.receive(stream[..stream.len() - 19].to_vec());
    assert!(matches!(b.outputs().first(), Some(Out::Message { sent: false, .. })));
}

/// A speaker that was written down and read again does what it would have done.
#[test]
fn a_speaker_survives_being_written_down() {
    let gr = GracefulRestartConfig { restart_time: s(60), long_lived: Some(s(100)) };
    let mut b = Bench::new(neighbour(|peer| peer.graceful_restart = Some(gr)));
    let open = open_with(&[V4, V6], vec![graceful(30, true, &[(V4, true)]), Capability::EnhancedRouteRefresh]);
    let mut checks = 0;
    b.outputs();
    let mut step = |b: &mut Bench, act: &dyn Fn(&mut Bench)| {
        let written = postcard::to_allocvec(&b.speaker).expect("can be written");
        let restored: Speaker = postcard::from_bytes(&written).expect("and read");
        let now = b.now;
        let mut twin = b.twin(restored);
        act(b);
        act(&mut twin);
        assert_eq!(b.outputs(), twin.outputs(), "after {checks} steps, at {now:?}");
        assert_eq!(b.speaker.next_deadline(), twin.speaker.next_deadline());
        checks += 1;
    };
    step(&mut b, &|b| b.announce("192.0.2.0/24"));
    step(&mut b, &|b| b.connect(&open));
    step(&mut b, &|b| b.receive(update(2, &[], &["203.0.113.0/24"])[..30].to_vec()));
    step(&mut b, &|b| b.receive(update(2, &[], &["203.0.113.0/24"])[30..].to_vec()));
    step(&mut b, &|b| b.receive_end_of_rib(V4));
    step(&mut b, &|b| b.receive_refresh(V4, 1));
    step(&mut b, &|b| b.receive_refresh(V4, 0));
    step(&mut b, &|b| b.close());
    step(&mut b, &|b| b.wait(s(10)));
    step(&mut b, &|b| b.connect(&open));
    step(&mut b, &|b| b.wait(s(400)));
    step(&mut b, &|b| b.withdraw("192.0.2.0/24"));
    assert_eq!(checks, 12);
}
