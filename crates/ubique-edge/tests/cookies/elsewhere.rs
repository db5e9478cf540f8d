//! Packets without timestamps, where other sites are: what the sequence number says.

use std::net::IpAddr;

use ubique_edge::{Counter, Edge, NextHop, Peer, Program};
use ubique_proto::sessions::cookie::Options;
use ubique_proto::sessions::shim::{Kind, Shim};
use ubique_proto::sessions::{Key, Site, sequence};

use crate::frame::{self, ACK, Parsed, SYN, Tcp};
use crate::setup::*;

const PASS: u32 = 2;
const TX: u32 = 3;
/// Other sites, the one whose turn it would be first, and the one that is meant.
const FIRST: u8 = 2;
const MEANT: u8 = 9;
const OPTIONS: Options = Options { segment: 3, scale: Some(7), sack: true, timestamps: false };

fn site(number: u8) -> Site {
    Site::new(number).unwrap()
}

fn address(number: u8) -> IpAddr {
    format!("192.0.2.{number}").parse().unwrap()
}

fn edge_among_others() -> Option<Edge> {
    let mut config = config();
    config.unicast = vec![address(US)];
    let mut edge = edge(&config)?;
    for number in [FIRST, MEANT] {
        let next_hop = NextHop { interface: 1, source_mac: OUR_MAC, destination_mac: ROUTER_MAC, source: address(US) };
        let peer = Peer { address: address(number), up: true, next_hop: Some(next_hop) };
        edge.set_peer(site(number), Some(&peer)).unwrap();
    }
    Some(edge)
}

/// Action, what was counted, and the shim before what leaves, with where it goes.
type Decision = (u32, Vec<(Counter, u64)>, Option<(Shim, IpAddr)>);

fn decide(edge: &mut Edge, frame: &[u8], hash: u64) -> Decision {
    let before = edge.counters().unwrap();
    let ran = edge.run(Program::Ingress, frame, 1).unwrap();
    let counted = counted(&before, &edge.counters().unwrap());
    let shim = (ran.action == TX || ran.action == 4).then(|| {
        let outer = Parsed::of(&ran.packet);
        (Shim::decode(&outer.l4[8..32], Key([3, 4]), hash, wall_ms()).unwrap(), outer.to)
    });
    (ran.action, counted, shim)
}

#[test]
fn a_first_acknowledgement_is_ours_or_its_sites() {
    with_listeners(|| {
        let Some(mut edge) = edge_among_others() else { return };
        for v6 in [false, true] {
            let flow = flow(v6, 40_000);
            let hash = flow.hash(FLOW_KEY);
            let ours = Tcp { flags: ACK, seq: 78, ack: acknowledged(&flow, 77, OPTIONS, wall_ms()), ..Tcp::default() };
            let (action, counted, _) = decide(&mut edge, &frame::tcp(&flow, &ours), hash);
            assert_eq!((action, &counted[..]), (PASS, &[(Counter::LocalSequence, 1)][..]));
            // Later, and without a socket: somebody may have it.
            let later = Tcp { ack: ours.ack.wrapping_add(50_000), ..ours };
            let (_, counted, shim) = decide(&mut edge, &frame::tcp(&flow, &later), hash);
            assert_eq!(counted, [(Counter::ForwardProbe, 1)]);
            assert_eq!(shim.unwrap().1, address(FIRST));
            // Of another site, at its begin and millions of octets later.
            for sent in [1, sequence::REACH] {
                let ack = sequence::encode(site(MEANT), 77, mask(&flow)).wrapping_add(sent);
                let (_, counted, shim) = decide(&mut edge, &frame::tcp(&flow, &Tcp { ack, ..Tcp::default() }), hash);
                assert_eq!(counted, [(Counter::ForwardSequence, 1)]);
                let (shim, to) = shim.unwrap();
                assert_eq!((shim.kind, shim.asked, to), (Kind::Probe, 1 << US | 1 << MEANT, address(MEANT)));
            }
        }
    });
}

/// A packet that [`MEANT`] sends us in a datagram.
fn wrapped(kind: Kind, hash: u64, asked: u64, inner: &[u8]) -> Vec<u8> {
    let (sender, receiver) = (site(MEANT), site(US));
    let shim = Shim { kind, sender, origin: sender, receiver, wall_ms: wall_ms() as u32, asked };
    let datagram = [&shim.encode(Key([3, 4]), hash)[..], &inner[14..]].concat();
    frame::udp_between((address(MEANT), 50_000).into(), (address(US), config().port).into(), &datagram)
}

#[test]
fn a_syn_that_is_handed_over_is_answered_here() {
    with_listeners(|| {
        let Some(mut edge) = edge_among_others() else { return };
        for v6 in [false, true] {
            let flow = flow(v6, 40_000);
            let inner = frame::tcp(&flow, &Tcp { flags: SYN, seq: 77, options: vec![2, 4, 5, 180], ..Tcp::default() });
            let before = edge.counters().unwrap();
            let ran = edge.run(Program::Ingress, &wrapped(Kind::New, flow.hash(FLOW_KEY), 0, &inner), 1).unwrap();
            let counted = counted(&before, &edge.counters().unwrap());
            let answer = Parsed::of(&ran.packet);
            assert_eq!((ran.action, answer.from, answer.to), (TX, flow.service.ip(), flow.client.ip()));
            assert!(answer.tcp_is_sound() && answer.l4[13] == SYN | ACK && answer.l4[8..12] == [0, 0, 0, 78]);
            assert_eq!(counted, [(Counter::SynCookie, 1), (Counter::ShimNew, 1)]);
        }
    });
}

#[test]
fn a_first_acknowledgement_that_others_ask_about_is_ours() {
    with_listeners(|| {
        let Some(mut edge) = edge_among_others() else { return };
        for v6 in [false, true] {
            let flow = flow(v6, 40_000);
            let hash = flow.hash(FLOW_KEY);
            let tcp = Tcp { flags: ACK, seq: 78, ack: acknowledged(&flow, 77, OPTIONS, wall_ms()), ..Tcp::default() };
            let inner = frame::tcp(&flow, &tcp);
            let frame = wrapped(Kind::Probe, hash, 1 << US | 1 << MEANT, &inner);
            let before = edge.counters().unwrap();
            let ran = edge.run(Program::Ingress, &frame, 1).unwrap();
            let counted = counted(&before, &edge.counters().unwrap());
            assert_eq!((ran.action, &ran.packet[14..]), (PASS, &inner[14..]));
            assert_eq!(counted, [(Counter::ShimProbe, 1), (Counter::ShimProbeMine, 1)]);
        }
    });
}
