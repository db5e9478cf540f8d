//! Named cases of the whole speaker.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ubique_model::{Family, Prefix, Relation};

use super::fixture::*;
use crate::bgp::attributes::NextHop;
use crate::bgp::family::AddressFamilies;
use crate::bgp::message::{Message, Treatment, Update};
use crate::bgp::session::{Session, State};
use crate::bgp::speaker::{
    ConnId, Delivery, Export, Import, In, Order, Out, PeerConfig, PeerId, SEND_WINDOW, SessionEvent, Speaker,
};
use crate::bgp::wire;
use crate::time::Time;

const P0: PeerId = PeerId(0);
const P1: PeerId = PeerId(1);
const NOW: Time = Time(1_000_000_000);

/// The connection to a neighbour.
fn conn(peer: PeerId) -> ConnId {
    ConnId(100 + u64::from(peer.0))
}

/// A speaker of the lab with sessions to 10.0.0.2, 10.0.0.3 …, up.
fn router(relations: &[Relation]) -> Speaker {
    let peers: Vec<PeerConfig> = relations.iter().zip(2..).map(|(relation, n)| peer(n, *relation)).collect();
    let mut speaker = Speaker::new(config(1, 1, peers));
    for (index, n) in (2..2 + relations.len() as u8).enumerate() {
        let peer = PeerId(index as u32);
        speaker.handle_input(NOW, In::StartPeer(peer));
        bring_up(&mut speaker, peer, n);
    }
    drain(&mut speaker);
    speaker
}

fn bring_up(speaker: &mut Speaker, peer: PeerId, n: u8) {
    let conn = conn(peer);
    speaker.handle_input(NOW, In::Connected { peer, conn, local: address(1).into() });
    for bytes in [open(n, Family::Ipv4), keepalive()] {
        speaker.handle_input(NOW, In::Received { conn, bytes });
    }
}

/// An announcing edge: only its own announcements go out, nothing comes in.
fn edge() -> Speaker {
    let peers = vec![PeerConfig { import: Import::Observe, export: Export::OwnOnly, ..peer(2, Relation::Transit) }];
    let mut speaker = Speaker::new(config(1, 1, peers));
    speaker.handle_input(NOW, In::Start);
    bring_up(&mut speaker, P0, 2);
    drain(&mut speaker);
    speaker
}

fn receive(speaker: &mut Speaker, peer: PeerId, bytes: Vec<u8>) {
    speaker.handle_input(NOW, In::Received { conn: conn(peer), bytes });
}

fn session(speaker: &Speaker) -> &Session {
    &speaker.peers[0].as_ref().expect("configured").session
}

/// UPDATEs sent to a neighbour since the last look.
fn updates(speaker: &mut Speaker, peer: PeerId) -> Vec<Update> {
    let outputs = drain(speaker);
    let sent = outputs.iter().filter_map(|output| match output {
        Out::Send { conn: c, bytes } if *c == conn(peer) => Some(messages(bytes)),
        _ => None,
    });
    sent.flatten()
        .filter_map(|message| match message {
            Message::Update(update) => Some(update),
            _ => None,
        })
        .collect()
}

fn announced(updates: &[Update]) -> Vec<Prefix> {
    updates.iter().flat_map(|u| &u.announced).flat_map(|r| r.prefixes.iter().map(|n| n.prefix)).collect()
}

fn withdrawn(updates: &[Update]) -> Vec<Prefix> {
    updates.iter().flat_map(|u| u.withdrawn.iter().map(|n| n.prefix)).collect()
}

fn delivery(speaker: &Speaker, text: &str) -> Option<Delivery> {
    speaker.announced(P0).find(|(p, _)| *p == prefix(text)).map(|(_, delivery)| delivery)
}

fn announce(speaker: &mut Speaker, text: &str) {
    let announcement = announcement(text);
    speaker.handle_input(NOW, In::Announce { peer: P0, announcement });
}

fn acknowledge_all(speaker: &mut Speaker) {
    speaker.handle_input(NOW, In::Acknowledged { conn: conn(P0), offset: u64::MAX });
}

#[test]
fn the_initial_exchange_ends_with_end_of_rib() {
    let mut speaker = Speaker::new(config(1, 1, vec![peer(2, Relation::Peer)]));
    announce(&mut speaker, "192.0.2.0/24");
    speaker.handle_input(NOW, In::Start);
    bring_up(&mut speaker, P0, 2);
    let updates = updates(&mut speaker, P0);
    assert_eq!(announced(&updates), [prefix("192.0.2.0/24")]);
    assert_eq!(updates.last().and_then(|u| u.end_of_rib), Some(Family::Ipv4.into()));
    assert_eq!(updates.iter().filter(|u| u.end_of_rib.is_some()).count(), 1);
}

#[test]
fn an_announcement_is_followed_to_the_neighbour() {
    let mut speaker = edge();
    acknowledge_all(&mut speaker);
    announce(&mut speaker, "192.0.2.0/24");
    assert_eq!(delivery(&speaker, "192.0.2.0/24"), Some(Delivery::Sent));
    let sent = updates(&mut speaker, P0);
    assert_eq!(announced(&sent), [prefix("192.0.2.0/24")]);
    assert_eq!(sent[0].announced[0].next_hop, NextHop::V4([10, 0, 0, 1].into()));
    // One octet less than all of it is not enough.
    let total = session(&speaker).established().map(|c| c.sent()).expect("up");
    speaker.handle_input(NOW, In::Acknowledged { conn: conn(P0), offset: total - 1 });
    assert_eq!(delivery(&speaker, "192.0.2.0/24"), Some(Delivery::Sent));
    speaker.handle_input(NOW, In::Acknowledged { conn: conn(P0), offset: total });
    assert_eq!(delivery(&speaker, "192.0.2.0/24"), Some(Delivery::Acknowledged));
}

#[test]
fn a_withdrawal_leaves_at_once_and_is_followed_too() {
    let mut speaker = edge();
    announce(&mut speaker, "192.0.2.0/24");
    acknowledge_all(&mut speaker);
    drain(&mut speaker);
    speaker.handle_input(NOW, In::Withdraw { peer: P0, prefix: prefix("192.0.2.0/24") });
    let first = speaker.poll_output();
    assert!(matches!(&first, Some(Out::Send { bytes, .. })
        if matches!(&messages(bytes)[..], [Message::Update(u)] if u.withdrawn == [prefix("192.0.2.0/24")])));
    assert_eq!(speaker.announced(P0).count(), 0);
    assert_eq!(speaker.withdrawal_pending(P0).collect::<Vec<_>>(), [prefix("192.0.2.0/24")]);
    acknowledge_all(&mut speaker);
    assert_eq!(speaker.withdrawal_pending(P0).count(), 0);
}

#[test]
fn announced_again_after_a_withdrawal_counts_anew() {
    let mut speaker = edge();
    announce(&mut speaker, "192.0.2.0/24");
    acknowledge_all(&mut speaker);
    speaker.handle_input(NOW, In::Withdraw { peer: P0, prefix: prefix("192.0.2.0/24") });
    announce(&mut speaker, "192.0.2.0/24");
    assert_eq!(delivery(&speaker, "192.0.2.0/24"), Some(Delivery::Sent));
    assert_eq!(speaker.withdrawal_pending(P0).count(), 0);
    acknowledge_all(&mut speaker);
    assert_eq!(delivery(&speaker, "192.0.2.0/24"), Some(Delivery::Acknowledged));
    // The same again changes nothing and sends nothing.
    drain(&mut speaker);
    announce(&mut speaker, "192.0.2.0/24");
    assert_eq!(delivery(&speaker, "192.0.2.0/24"), Some(Delivery::Acknowledged));
    assert!(drain(&mut speaker).is_empty());
}

#[test]
fn nothing_is_delivered_while_the_session_is_down() {
    let mut speaker = edge();
    announce(&mut speaker, "192.0.2.0/24");
    acknowledge_all(&mut speaker);
    speaker.handle_input(NOW, In::Closed { conn: conn(P0) });
    assert_eq!(delivery(&speaker, "192.0.2.0/24"), Some(Delivery::Pending));
    speaker.handle_input(NOW, In::Withdraw { peer: P0, prefix: prefix("192.0.2.0/24") });
    // The neighbour has forgotten it with the session.
    assert_eq!(speaker.withdrawal_pending(P0).count(), 0);
}

#[test]
fn a_refresh_repeats_everything() {
    let mut speaker = edge();
    announce(&mut speaker, "192.0.2.0/24");
    announce(&mut speaker, "198.51.100.0/24");
    acknowledge_all(&mut speaker);
    drain(&mut speaker);
    let mut bytes = vec![];
    wire::encode_route_refresh(Family::Ipv4.into(), 0, &mut bytes);
    receive(&mut speaker, P0, bytes);
    let mut again = announced(&updates(&mut speaker, P0));
    again.sort_unstable();
    assert_eq!(again, [prefix("192.0.2.0/24"), prefix("198.51.100.0/24")]);
    // What was confirmed stays so.
    assert_eq!(delivery(&speaker, "192.0.2.0/24"), Some(Delivery::Acknowledged));
}

#[test]
fn an_edge_passes_nothing_on() {
    let mut speaker = edge();
    receive(&mut speaker, P0, update(2, &[], &["203.0.113.0/24"]));
    assert!(drain(&mut speaker).is_empty());
    let candidates = speaker.routes(prefix("203.0.113.0/24"));
    assert_eq!(candidates.len(), 1, "but shows it");
    assert!(!candidates[0].best);
    assert_eq!(speaker.peer(P0).map(|p| p.routes.received), Some(1));
}

#[test]
fn a_router_forwards_and_passes_on() {
    let mut speaker = router(&[Relation::Customer, Relation::Peer]);
    receive(&mut speaker, P0, update(2, &[], &["203.0.113.0/24"]));
    let outputs = drain(&mut speaker);
    let sent = outputs.iter().position(|o| matches!(o, Out::Send { conn: c, .. } if *c == conn(P1)));
    let best = outputs.iter().position(|o| {
        let expected = Some((NextHop::V4([10, 0, 0, 2].into()), P0));
        matches!(o, Out::Best { prefix: p, next_hop } if *p == prefix("203.0.113.0/24") && *next_hop == expected)
    });
    assert!(sent.is_some() && best.is_some(), "{outputs:?}");
    // The session goes: so does the route, everywhere, in the same call.
    speaker.handle_input(NOW, In::Closed { conn: conn(P0) });
    let outputs = drain(&mut speaker);
    assert!(outputs.contains(&Out::Best { prefix: prefix("203.0.113.0/24"), next_hop: None }));
    assert!(outputs.iter().any(|o| matches!(o, Out::Send { conn: c, bytes } if *c == conn(P1)
        && matches!(&messages(bytes)[..], [Message::Update(u)] if u.withdrawn.len() == 1))));
}

#[test]
fn the_best_candidate_comes_first_and_the_loser_has_its_step() {
    let mut speaker = router(&[Relation::Peer, Relation::Customer]);
    receive(&mut speaker, P0, update(2, &[], &["203.0.113.0/24"]));
    receive(&mut speaker, P1, update(3, &[], &["203.0.113.0/24"]));
    let candidates = speaker.routes(prefix("203.0.113.0/24"));
    assert_eq!(candidates[0].peer, Some(P1));
    assert!(candidates[0].best && candidates[0].step.is_none());
    assert!(!candidates[1].best && candidates[1].step.is_some());
}

#[test]
fn an_ipv6_session_carries_ipv6() {
    let them: IpAddr = "fd00::2".parse().expect("an address");
    let us: Ipv6Addr = "fd00::1".parse().expect("an address");
    let peers =
        vec![PeerConfig { address: them, families: AddressFamilies::only(Family::Ipv6), ..peer(2, Relation::Transit) }];
    let mut speaker = Speaker::new(config(1, 1, peers));
    announce(&mut speaker, "2001:db8:53::/48");
    announce(&mut speaker, "192.0.2.0/24");
    speaker.handle_input(NOW, In::Start);
    let local = IpAddr::V6(us);
    speaker.handle_input(NOW, In::Connected { peer: P0, conn: conn(P0), local: local.into() });
    for bytes in [open(2, Family::Ipv6), keepalive()] {
        receive(&mut speaker, P0, bytes);
    }
    let updates = updates(&mut speaker, P0);
    assert_eq!(announced(&updates), [prefix("2001:db8:53::/48")]);
    let next_hop = NextHop::V6 { global: us, link_local: None };
    assert_eq!(updates[0].announced[0].next_hop, next_hop);
    assert_eq!(updates.last().and_then(|u| u.end_of_rib), Some(Family::Ipv6.into()));
    assert_eq!(delivery(&speaker, "192.0.2.0/24"), Some(Delivery::Pending), "never over this session");
}

#[test]
fn a_full_window_holds_back_and_an_acknowledgement_opens_it() {
    let mut speaker = router(&[Relation::Customer, Relation::Customer]);
    // Every prefix with attributes of its own, so that each needs an UPDATE.
    for n in 0..30_000u32 {
        let mut announcement = announcement(&format!("100.{}.{}.0/24", n >> 8, n & 0xff));
        announcement.med = Some(n);
        speaker.handle_input(NOW, In::Announce { peer: P0, announcement });
    }
    let under_way = |s: &Speaker| session(s).established().map_or(0, |c| c.unacknowledged());
    assert!(under_way(&speaker) >= SEND_WINDOW);
    assert!(under_way(&speaker) < SEND_WINDOW + 8192, "bounded");
    assert!(speaker.announced(P0).any(|(_, d)| d == Delivery::Pending));
    let mut rounds = 0;
    while speaker.announced(P0).any(|(_, d)| d != Delivery::Acknowledged) {
        acknowledge_all(&mut speaker);
        rounds += 1;
        assert!(rounds < 10);
    }
    assert_eq!(announced(&updates(&mut speaker, P0)).len(), 30_000);
}

#[test]
fn faults_are_counted_and_the_last_is_kept() {
    let mut speaker = router(&[Relation::Peer]);
    let mut bytes = update(2, &[], &["203.0.113.0/24"]);
    // ORIGIN is the first attribute; 9 is no ORIGIN (RFC 7606 §7.1: treat as withdrawn).
    assert_eq!(bytes[23..27], [0x40, 1, 1, 0]);
    bytes[26] = 9;
    receive(&mut speaker, P0, bytes);
    let status = speaker.peer(P0).expect("configured");
    assert_eq!((status.state, status.faults.withdrawn), (State::Established, 1));
    let last = status.faults.last.as_ref().expect("kept");
    assert_eq!((last.code, last.treatment), (1, Treatment::TreatAsWithdraw));
    assert_eq!(status.routes.received, 0);
}

#[test]
fn status_of_a_session() {
    let mut speaker = router(&[Relation::Peer]);
    let later = NOW + Duration::from_secs(5);
    let status = speaker.peer(P0).expect("configured");
    assert_eq!((status.state.name(), status.uptime(later)), ("Established", Duration::from_secs(5)));
    assert_eq!(status.local, Some(address(1).into()));
    assert_eq!(status.negotiated.map(|n| n.hold_time), Some(Duration::from_secs(9)));
    assert_eq!((status.counters.messages_in, status.counters.messages_out), (2, 3));
    let stop = In::StopPeer { peer: P0, subcode: 2, message: "upgrade".to_owned() };
    speaker.handle_input(later, stop);
    let status = speaker.peer(P0).expect("configured");
    assert_eq!((status.state, status.enabled), (State::Idle, false));
    assert_eq!(status.uptime(later), Duration::ZERO);
    let reason = status.last_down.map(ToString::to_string);
    assert_eq!(reason.as_deref(), Some("sent Cease, Administrative Shutdown: \"upgrade\""));
    assert_eq!(speaker.last_activity(), later);
}

#[test]
fn unknown_neighbours_and_connections() {
    let mut speaker = router(&[Relation::Peer]);
    let nobody = PeerId(77);
    for input in [
        In::StartPeer(nobody),
        In::StopPeer { peer: nobody, subcode: 2, message: String::new() },
        In::ConnectFailed { peer: nobody },
        In::Announce { peer: nobody, announcement: announcement("192.0.2.0/24") },
        In::Withdraw { peer: nobody, prefix: prefix("192.0.2.0/24") },
        In::RequestRefresh { peer: nobody },
        In::Received { conn: ConnId(9), bytes: keepalive() },
        In::Closed { conn: ConnId(9) },
        In::Acknowledged { conn: ConnId(9), offset: 1 },
    ] {
        speaker.handle_input(NOW, input.clone());
        assert!(drain(&mut speaker).is_empty(), "{input:?}");
    }
    let accepted = In::Accepted { peer: nobody, conn: ConnId(9), local: address(1).into() };
    speaker.handle_input(NOW, accepted);
    assert_eq!(drain(&mut speaker), [Out::Close { conn: ConnId(9) }]);
    assert_eq!(speaker.announced(nobody).count(), 0);
    assert!(speaker.peer(nobody).is_none());
}

#[test]
fn routes_of_a_session_that_ends_in_the_same_read() {
    let mut speaker = router(&[Relation::Customer, Relation::Peer]);
    let mut bytes = update(2, &[], &["203.0.113.0/24"]);
    bytes.extend([0; 19]);
    receive(&mut speaker, P0, bytes);
    assert!(updates(&mut speaker, P1).is_empty(), "came and went: nobody need hear of it");
    assert!(speaker.routes(prefix("203.0.113.0/24")).is_empty());
}

#[test]
fn a_session_that_comes_back_gets_everything_again() {
    let mut speaker = edge();
    announce(&mut speaker, "192.0.2.0/24");
    speaker.handle_input(NOW, In::Closed { conn: conn(P0) });
    drain(&mut speaker);
    let again = ConnId(500);
    speaker.handle_input(NOW, In::Accepted { peer: P0, conn: again, local: address(1).into() });
    for bytes in [open(2, Family::Ipv4), keepalive()] {
        speaker.handle_input(NOW, In::Received { conn: again, bytes });
    }
    let outputs = drain(&mut speaker);
    assert!(outputs.iter().any(|o| matches!(o, Out::Session { event: SessionEvent::Up { .. }, .. })));
    assert!(outputs.iter().any(|o| matches!(o, Out::Send { conn, bytes } if *conn == again
        && messages(bytes).iter().any(|m| matches!(m, Message::Update(u) if !u.announced.is_empty())))));
    assert_eq!(delivery(&speaker, "192.0.2.0/24"), Some(Delivery::Sent));
}

#[test]
fn withdrawals_are_followed_for_each_prefix() {
    let mut speaker = edge();
    for text in ["192.0.2.0/24", "198.51.100.0/24"] {
        announce(&mut speaker, text);
    }
    acknowledge_all(&mut speaker);
    drain(&mut speaker);
    for text in ["192.0.2.0/24", "198.51.100.0/24"] {
        speaker.handle_input(NOW, In::Withdraw { peer: P0, prefix: prefix(text) });
    }
    assert_eq!(withdrawn(&updates(&mut speaker, P0)).len(), 2);
    assert_eq!(speaker.withdrawal_pending(P0).count(), 2);
}

/// 500 prefixes towards eight neighbours, in one go and one after the other: the same routes in fewer messages.
#[test]
fn orders_given_together_leave_in_as_few_updates_as_hold_them() {
    const PEERS: u32 = 8;
    const PREFIXES: u32 = 500;
    let prefixes: Vec<Prefix> = (0..PREFIXES).map(|n| prefix(&format!("10.{}.{}.0/24", n / 250, n % 250))).collect();
    let speaker = || {
        let peers = (0..PEERS).map(|n| peer(n as u8 + 2, Relation::Peer)).collect();
        let mut speaker = Speaker::new(config(1, 1, peers));
        speaker.handle_input(NOW, In::Start);
        (0..PEERS).for_each(|n| bring_up(&mut speaker, PeerId(n), n as u8 + 2));
        drain(&mut speaker);
        speaker
    };
    let all = || (0..PEERS).flat_map(|n| prefixes.iter().map(move |prefix| (PeerId(n), *prefix)));
    let announce =
        |(peer, prefix): (PeerId, Prefix)| Order::Announce { peer, announcement: announcement(&prefix.to_string()) };
    let withdraw = |(peer, prefix)| Order::Withdraw { peer, prefix };
    let one = |order| match order {
        Order::Announce { peer, announcement } => In::Announce { peer, announcement },
        Order::Withdraw { peer, prefix } => In::Withdraw { peer, prefix },
    };
    let told = |speaker: &mut Speaker, inputs: Vec<In>| {
        let begin = std::time::Instant::now();
        let mut sent: BTreeMap<ConnId, Vec<Update>> = BTreeMap::new();
        for input in inputs {
            speaker.handle_input(NOW, input);
            for output in drain(speaker) {
                if let Out::Send { conn, bytes } = output {
                    let updates = messages(&bytes).into_iter().filter_map(|m| match m {
                        Message::Update(update) => Some(update),
                        _ => None,
                    });
                    sent.entry(conn).or_default().extend(updates);
                }
            }
        }
        println!("{:?} for {} UPDATEs", begin.elapsed(), sent.values().map(Vec::len).sum::<usize>());
        sent
    };
    let (mut single, mut together) = (speaker(), speaker());
    let rounds: [&dyn Fn() -> Vec<Order>; 2] = [&|| all().map(announce).collect(), &|| all().map(withdraw).collect()];
    for (round, orders) in rounds.iter().enumerate() {
        let singly = told(&mut single, orders().into_iter().map(one).collect());
        let in_one = told(&mut together, vec![In::Orders(orders())]);
        for (conn, updates) in &in_one {
            let of = |updates: &[Update]| if round == 0 { announced(updates) } else { withdrawn(updates) };
            let sorted = |mut prefixes: Vec<Prefix>| {
                prefixes.sort_unstable();
                prefixes
            };
            assert_eq!(sorted(of(updates)), sorted(of(&singly[conn])));
            assert_eq!(singly[conn].len(), PREFIXES as usize);
            assert_eq!(updates.len(), 1, "500 prefixes fit into 4,096 octets");
        }
        assert_eq!(in_one.len(), PEERS as usize);
    }
}
