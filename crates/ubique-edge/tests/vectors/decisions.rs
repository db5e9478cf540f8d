//! What becomes of each kind of packet.

use ubique_edge::{Config, Counter, Edge, Program, Tier};
use ubique_proto::sessions::shim::{Kind, OVERHEAD_V4, OVERHEAD_V6, Shim};
use ubique_proto::sessions::{Flow, connection_id, timestamp};

use crate::frame::{self, ACK, Parsed, SYN, Tcp, timestamps};
use crate::setup::*;

const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;
/// TC_ACT_UNSPEC
const NEXT: u32 = u32::MAX;

/// Runs one frame and says what was counted.
fn run(edge: &mut Edge, frame: &[u8]) -> (u32, Vec<u8>, Vec<(Counter, u64)>) {
    let before = edge.counters().unwrap();
    let ran = edge.run(Program::Ingress, frame, 1).unwrap();
    let after = edge.counters().unwrap();
    let counted = after.seen().map(|(counter, n)| (counter, n - before[counter])).filter(|(_, n)| *n > 0).collect();
    (ran.action, ran.packet, counted)
}

#[track_caller]
fn passes_untouched(edge: &mut Edge, frame: &[u8], counted: &[Counter]) {
    let (action, packet, seen) = run(edge, frame);
    assert_eq!((action, &packet[..]), (PASS, frame));
    assert_eq!(seen, counted.iter().map(|counter| (*counter, 1)).collect::<Vec<_>>());
}

fn echo_of(flow: &Flow, number: u8) -> u32 {
    timestamp::encode(wall_ms(), site(number), mask(flow))
}

fn segment(flow: &Flow, echo: u32) -> Vec<u8> {
    frame::tcp(flow, &Tcp { options: timestamps(77, echo), payload: b"hello".to_vec(), ..Tcp::default() })
}

/// What our kernel's clock says where the wire says `wire`.
fn kernels(flow: &Flow, wire: u32) -> u32 {
    wire.wrapping_sub(timestamp::encode(config(Tier::Timestamps).clock_base_ms, site(US), mask(flow)))
}

/// Takes what is forwarded apart: outer packet, shim, inner packet.
#[track_caller]
fn forwarded(packet: &[u8], hash: u64, to: u8) -> (Shim, Vec<u8>) {
    let outer = Parsed::of(packet);
    let (from, address) = if to == UP_V4 { ("192.0.2.5", "192.0.2.9") } else { ("2001:db8::5", "2001:db8::10") };
    assert_eq!((outer.from.to_string(), outer.to.to_string()), (from.into(), address.into()));
    assert_eq!(outer.macs, [ROUTER_MAC, OUR_MAC].concat());
    assert_eq!(outer.protocol, frame::UDP);
    assert_eq!(outer.l4[2..4], PORT.to_be_bytes());
    assert!(outer.l4[0] >= 0xc0, "source port");
    assert_eq!(usize::from(u16::from_be_bytes([outer.l4[4], outer.l4[5]])), outer.l4.len());
    let shim = Shim::decode(&outer.l4[8..], KEYS[1], hash, wall_ms()).unwrap();
    assert_eq!((shim.sender, shim.receiver), (site(US), site(to)));
    (shim, outer.l4[32..].to_vec())
}

#[test]
fn what_is_ours_by_its_timestamp_is_restored_and_passes() {
    let Some(mut edge) = edge(Tier::Timestamps) else { return };
    for v6 in [false, true] {
        for port in 40000..40050 {
            let flow = flow(v6, port, 443);
            let echo = echo_of(&flow, US);
            for options in [timestamps(77, echo), [&[8, 10, 0, 0, 0, 77], &echo.to_be_bytes()[..], &[1, 1]].concat()] {
                let packet = |options| frame::tcp(&flow, &Tcp { options, payload: vec![9; 31], ..Tcp::default() });
                let (action, out, seen) = run(&mut edge, &packet(options.clone()));
                assert_eq!((action, seen), (PASS, vec![(Counter::LocalTimestamp, 1)]));
                let at = options.windows(4).position(|four| four == echo.to_be_bytes()).unwrap();
                let mut restored = options;
                restored[at..at + 4].copy_from_slice(&kernels(&flow, echo).to_be_bytes());
                assert_eq!(out, packet(restored), "and the checksum is right");
            }
        }
    }
}

#[test]
fn what_leaves_says_our_site_and_leaves_room() {
    let Some(mut edge) = edge(Tier::Timestamps) else { return };
    for v6 in [false, true] {
        let flow = flow(v6, 50000, 443);
        let wire = echo_of(&flow, US);
        let value = kernels(&flow, wire);
        let packet = |value: u32| {
            frame::reply(&flow, &Tcp { options: timestamps(value, 5), payload: vec![1; 99], ..Tcp::default() })
        };
        let ran = edge.run(Program::Egress, &packet(value), 1).unwrap();
        assert_eq!((ran.action, ran.packet), (NEXT, packet(wire)));
        let answer = |mss: u16, value: u32| {
            let mut options = [2, 4, 0, 0, 4, 2, 8, 10].to_vec();
            options[2..4].copy_from_slice(&mss.to_be_bytes());
            options.extend([value.to_be_bytes(), 5_u32.to_be_bytes()].concat());
            options.extend([1, 3, 3, 7]);
            frame::reply(&flow, &Tcp { flags: SYN | ACK, options, ..Tcp::default() })
        };
        let most = MTU - 72 - if v6 { 60 } else { 40 };
        for (mss, expected) in [(8960, most), (most, most), (536, 536)] {
            let ran = edge.run(Program::Egress, &answer(mss, value), 1).unwrap();
            assert_eq!(ran.packet, answer(expected, wire));
            assert!(Parsed::of(&ran.packet).tcp_is_sound());
        }
        // None of the service's.
        let other = Flow { service: flow.client, client: flow.service };
        let stranger = frame::reply(&other, &Tcp { options: timestamps(value, 5), ..Tcp::default() });
        assert_eq!(edge.run(Program::Egress, &stranger, 1).unwrap().packet, stranger);
    }
}

#[test]
fn what_is_another_sites_goes_there() {
    for tier in [Tier::Timestamps, Tier::Cookies] {
        let Some(mut edge) = edge(tier) else { return };
        for (v6, to) in [(false, UP_V4), (false, UP_V6), (true, UP_V4), (true, UP_V6)] {
            let flow = flow(v6, 40001, 443);
            let packet = segment(&flow, echo_of(&flow, to));
            // Short frames are padded to 60 octets: what is no part of the packet does not travel as one.
            for padding in [0, 12] {
                let (action, out, seen) = run(&mut edge, &[&packet[..], &vec![0; padding]].concat());
                assert_eq!((action, seen), (TX, vec![(Counter::ForwardTimestamp, 1)]));
                let (shim, inner) = forwarded(&out, flow.hash(KEYS[0]), to);
                assert_eq!((shim.kind, shim.origin, shim.asked), (Kind::Data, site(US), 0));
                assert_eq!(inner, packet[14..]);
            }
        }
    }
}

#[test]
fn a_site_that_is_down_is_the_kernels_to_reset_and_one_nobody_knows_is_asked_for() {
    let Some(mut edge) = edge(Tier::Timestamps) else { return };
    let flow = flow(false, 40001, 443);
    passes_untouched(&mut edge, &segment(&flow, echo_of(&flow, DOWN)), &[Counter::OwnerDown]);
    // Nobody's by its timestamp; of a connection that was idle for an hour; without timestamps.
    let nobodys = [
        echo_of(&flow, UNKNOWN),
        echo_of(&flow, UP_V4).wrapping_add(1 << 24),
        echo_of(&flow, DOWN).wrapping_sub(3_600_000),
    ];
    for echo in nobodys {
        passes_untouched(&mut edge, &segment(&flow, echo), &[Counter::Unowned]);
    }
    let probed = |edge: &mut Edge, frame: &[u8], to: u8| {
        let (action, out, seen) = run(edge, frame);
        assert_eq!((action, seen), (TX, vec![(Counter::ForwardProbe, 1)]));
        let (shim, _) = forwarded(&out, flow.hash(KEYS[0]), to);
        assert_eq!(shim.kind, Kind::Probe);
        shim.asked
    };
    let old = segment(&flow, echo_of(&flow, UP_V6).wrapping_sub(3_600_000));
    assert_eq!(probed(&mut edge, &old, UP_V6), u64::MAX, "nobody else is asked");
    for packet in [segment(&flow, 0), frame::tcp(&flow, &Tcp::default())] {
        assert_eq!(probed(&mut edge, &packet, UP_V4), 1 << US | 1 << UP_V4);
    }
    let mut cookies = edge_with(&config(Tier::Cookies)).unwrap();
    assert_eq!(
        probed(&mut cookies, &segment(&flow, nobodys[1]), UP_V4),
        1 << US | 1 << UP_V4,
        "the kernel's own clock"
    );
    for peer in [UP_V4, UP_V6] {
        edge.set_peer(site(peer), None).unwrap();
    }
    passes_untouched(&mut edge, &segment(&flow, 0), &[Counter::Unowned]);
}

#[test]
fn what_is_none_of_our_business_passes() {
    let Some(mut edge) = edge(Tier::Timestamps) else { return };
    let flow = flow(false, 40001, 443);
    let foreign = Flow { service: "192.0.2.77:443".parse().unwrap(), ..flow };
    passes_untouched(&mut edge, &segment(&foreign, echo_of(&foreign, UP_V4)), &[]);
    passes_untouched(
        &mut edge,
        &frame::udp(&Flow { service: "198.51.100.53:53".parse().unwrap(), ..flow }, &[0; 40]),
        &[],
    );
    let mut fragment = segment(&flow, echo_of(&flow, UP_V4));
    fragment[20] = 0x20;
    passes_untouched(&mut edge, &fragment, &[Counter::Fragment]);
    let whole = segment(&flow, echo_of(&flow, UP_V4));
    for length in 14..whole.len() {
        // Cut anywhere: never anything but a decision.
        let (action, ..) = run(&mut edge, &whole[..length]);
        assert!([DROP, PASS, TX].contains(&action), "{length}: {action}");
    }
    passes_untouched(
        &mut edge,
        &frame::tcp(&flow, &Tcp { flags: SYN, options: timestamps(5, 0), ..Tcp::default() }),
        &[Counter::Syn, Counter::SynTimestamps],
    );
    let mut off = edge_with(&config(Tier::Off)).unwrap();
    passes_untouched(&mut off, &whole, &[]);
}

#[test]
fn a_connection_identifier_tells() {
    let Some(mut edge) = edge(Tier::Off) else { return };
    let id =
        |number| connection_id::Config::new(ROTATION, KEYS[3]).unwrap().encode(site(number), [1, 2, 3, 4, 5, 6, 7]);
    let short = |number| [&[0x40], &id(number)[..], &[0xaa; 30]].concat();
    let long = |number| [&[0xe0, 0, 0, 0, 1, 10], &id(number)[..], &[0; 30]].concat();
    for v6 in [false, true] {
        let flow = flow(v6, 40001, 443);
        for payload in [short(US), long(US)] {
            passes_untouched(&mut edge, &frame::udp(&flow, &payload), &[Counter::LocalId]);
        }
        for payload in [short(UP_V4), long(UP_V4)] {
            let packet = frame::udp(&flow, &payload);
            let (action, out, seen) = run(&mut edge, &packet);
            assert_eq!((action, seen), (TX, vec![(Counter::ForwardId, 1)]));
            let (shim, inner) = forwarded(&out, flow.hash(KEYS[0]), UP_V4);
            assert_eq!((shim.kind, inner), (Kind::Data, packet[14..].to_vec()));
        }
        passes_untouched(&mut edge, &frame::udp(&flow, &short(DOWN)), &[Counter::OwnerDown]);
        let mut chosen_by_client = long(UP_V4);
        chosen_by_client[8] ^= 1;
        passes_untouched(&mut edge, &frame::udp(&flow, &chosen_by_client), &[Counter::QuicNew]);
        let eight = [&[0xc0, 0, 0, 0, 1, 8], &[7; 8][..], &[0; 30]].concat();
        passes_untouched(&mut edge, &frame::udp(&flow, &eight), &[Counter::QuicNew]);
        edge.drain_to(Some(site(UP_V6))).unwrap();
        let (action, out, seen) = run(&mut edge, &frame::udp(&flow, &eight));
        assert_eq!((action, seen), (TX, vec![(Counter::ForwardNew, 1), (Counter::QuicNew, 1)]));
        assert_eq!(forwarded(&out, flow.hash(KEYS[0]), UP_V6).0.kind, Kind::New);
        edge.drain_to(None).unwrap();
    }
}

#[test]
fn new_connections_are_handed_over_while_we_drain() {
    let Some(mut edge) = edge(Tier::Timestamps) else { return };
    let flow = flow(true, 40001, 443);
    let syn = frame::tcp(&flow, &Tcp { flags: SYN, options: vec![2, 4, 5, 180], ..Tcp::default() });
    edge.drain_to(Some(site(UP_V4))).unwrap();
    let (action, out, seen) = run(&mut edge, &syn);
    assert_eq!((action, seen), (TX, vec![(Counter::Syn, 1), (Counter::ForwardNew, 1)]));
    let (shim, inner) = forwarded(&out, flow.hash(KEYS[0]), UP_V4);
    assert_eq!((shim.kind, inner), (Kind::New, syn[14..].to_vec()));
    edge.drain_to(Some(site(DOWN))).unwrap();
    passes_untouched(&mut edge, &syn, &[Counter::Syn]);
}

/// A frame as another site would send it.
pub fn from_site(shim: &Shim, hash: u64, v6: bool, inner: &[u8]) -> Vec<u8> {
    let (from, to) = if v6 { ("[2001:db8::10]:50000", "[2001:db8::5]") } else { ("192.0.2.9:50000", "192.0.2.5") };
    let payload = [&shim.encode(KEYS[1], hash)[..], inner].concat();
    frame::udp_between(from.parse().unwrap(), format!("{to}:{PORT}").parse().unwrap(), &payload)
}

pub fn shim_of(kind: Kind, v6: bool) -> Shim {
    let sender = site(if v6 { UP_V6 } else { UP_V4 });
    Shim { kind, sender, origin: sender, receiver: site(US), wall_ms: wall_ms() as u32, asked: 0 }
}

#[test]
fn what_another_site_sends_is_bared_and_delivered() {
    let Some(mut edge) = edge(Tier::Timestamps) else { return };
    for outer_v6 in [false, true] {
        for v6 in [false, true] {
            let flow = flow(v6, 40001, 443);
            let hash = flow.hash(KEYS[0]);
            let echo = echo_of(&flow, US);
            let inner = &segment(&flow, echo)[14..];
            let (action, out, seen) = run(&mut edge, &from_site(&shim_of(Kind::Data, outer_v6), hash, outer_v6, inner));
            assert_eq!((action, seen), (PASS, vec![(Counter::ShimData, 1)]));
            assert_eq!(out, segment(&flow, kernels(&flow, echo)), "restored, with the frame's addresses");
            let syn = frame::tcp(&flow, &Tcp { flags: SYN, options: timestamps(5, 0), ..Tcp::default() });
            let new = from_site(&shim_of(Kind::New, outer_v6), hash, outer_v6, &syn[14..]);
            let (action, out, seen) = run(&mut edge, &new);
            assert_eq!((action, &out, seen), (PASS, &syn, vec![(Counter::ShimNew, 1)]));
        }
    }
}

#[test]
fn replies_return_through_the_site_that_the_client_came_through() {
    let through = Config { reply_through: true, ..config(Tier::Timestamps) };
    let Some(mut edge) = edge_with(&through) else { return };
    for (v6, outer_v6) in [(false, false), (false, true), (true, false), (true, true)] {
        let (flow, to) = (flow(v6, 40001, 443), if outer_v6 { UP_V6 } else { UP_V4 });
        let hash = flow.hash(KEYS[0]);
        let wire = echo_of(&flow, US);
        let reply =
            |value| frame::reply(&flow, &Tcp { options: timestamps(value, 5), payload: vec![1; 99], ..Tcp::default() });
        let leaves = |edge: &mut Edge| edge.run(Program::Egress, &reply(kernels(&flow, wire)), 1).unwrap();
        let segment = segment(&flow, wire);
        assert_eq!(run(&mut edge, &segment).0, PASS);
        assert_eq!(leaves(&mut edge).packet, reply(wire), "directly, as long as the client's packets come so");
        assert_eq!(run(&mut edge, &from_site(&shim_of(Kind::Data, outer_v6), hash, outer_v6, &segment[14..])).0, PASS);
        let before = edge.counters().unwrap();
        let ran = leaves(&mut edge);
        let (shim, inner) = forwarded(&ran.packet, hash, to);
        assert_eq!((ran.action, shim.kind, shim.origin), (NEXT, Kind::Reply, site(to)));
        assert_eq!(inner, reply(wire)[14..]);
        assert_eq!(edge.counters().unwrap()[Counter::ForwardReply] - before[Counter::ForwardReply], 1);
        // The route is back: replies are, too.
        assert_eq!(run(&mut edge, &segment).0, PASS);
        assert_eq!(leaves(&mut edge).packet, reply(wire));
        assert_ne!(leaves(&mut edge).packet, reply(wire), "sent again, and nothing came from the client: another way");
        // And the other end: bare, back to the router it came from.
        let at_us = from_site(&shim_of(Kind::Reply, outer_v6), hash, outer_v6, &reply(wire)[14..]);
        let (action, out, seen) = run(&mut edge, &at_us);
        assert_eq!((action, seen), (TX, vec![(Counter::ShimReply, 1)]));
        assert_eq!((&out[..12], &out[12..]), (&[ROUTER_MAC, OUR_MAC].concat()[..], &reply(wire)[12..]));
        // What the server may send leaves room.
        let syn = |mss: u16| {
            let options = [&[2, 4], &mss.to_be_bytes()[..]].concat();
            frame::tcp(&flow, &Tcp { flags: SYN, options, ..Tcp::default() })
        };
        let most = MTU - 72 - if v6 { 60 } else { 40 };
        assert_eq!(run(&mut edge, &syn(8960)).1, syn(most));
        assert_eq!(run(&mut edge, &syn(536)).1, syn(536));
    }
}

#[test]
fn a_probe_goes_on_and_returns_where_it_began() {
    let Some(mut edge) = edge(Tier::Timestamps) else { return };
    let flow = flow(false, 40001, 443);
    let (hash, inner) = (flow.hash(KEYS[0]), &segment(&flow, 0)[14..]);
    let probe = Shim { asked: 1 << UP_V4 | 1 << US, ..shim_of(Kind::Probe, false) };
    let (action, out, seen) = run(&mut edge, &from_site(&probe, hash, false, inner));
    assert_eq!((action, seen), (TX, vec![(Counter::ForwardProbe, 1), (Counter::ShimProbe, 1)]));
    let (shim, bare) = forwarded(&out, hash, UP_V6);
    assert_eq!((shim.kind, shim.origin, bare), (Kind::Probe, site(UP_V4), inner.to_vec()));
    assert_eq!(shim.asked, 1 << UP_V4 | 1 << US | 1 << UP_V6);
    let last = Shim { asked: 1 << UP_V4 | 1 << US | 1 << UP_V6, ..probe };
    let (action, out, _) = run(&mut edge, &from_site(&last, hash, false, inner));
    assert_eq!(action, TX);
    assert_eq!(forwarded(&out, hash, UP_V4).0.kind, Kind::Data, "nobody's: for the kernel there");
}

#[test]
fn an_owner_that_says_so_is_remembered() {
    let Some(mut edge) = edge(Tier::Timestamps) else { return };
    for v6 in [false, true] {
        let flow = flow(v6, 40001, 443);
        let hash = flow.hash(KEYS[0]);
        let mine = from_site(&shim_of(Kind::Mine, false), hash, false, &flow.octets());
        let (action, _, seen) = run(&mut edge, &mine);
        assert_eq!((action, seen), (DROP, vec![(Counter::ShimMine, 1)]));
        let packet = frame::tcp(&flow, &Tcp::default());
        let (action, out, seen) = run(&mut edge, &packet);
        assert_eq!((action, seen), (TX, vec![(Counter::ForwardCache, 1)]));
        let (shim, _) = forwarded(&out, hash, UP_V4);
        // It is not believed for ever: the owner may have forgotten the connection, and asks on.
        assert_eq!((shim.kind, shim.origin, shim.asked), (Kind::Probe, site(US), 1 << UP_V4));
        // Nobody's: forgotten here, too.
        let back = Shim { origin: site(US), ..shim_of(Kind::Data, false) };
        assert_eq!(run(&mut edge, &from_site(&back, hash, false, &packet[14..])).0, PASS);
        assert_eq!(run(&mut edge, &packet).2, [(Counter::ForwardProbe, 1)]);
    }
}

#[test]
fn a_site_that_asks_whether_we_are_here_is_told() {
    let Some(mut edge) = edge(Tier::Off) else { return };
    for v6 in [false, true] {
        let question = Shim { asked: 0x0123_4567_89ab_cdef, ..shim_of(Kind::Alive, v6) };
        let (action, out, seen) = run(&mut edge, &from_site(&question, 0, v6, &[]));
        assert_eq!((action, seen), (TX, vec![(Counter::ShimAlive, 1)]));
        let answer = Parsed::of(&out);
        assert_eq!(answer.to.to_string(), if v6 { "2001:db8::10" } else { "192.0.2.9" });
        assert_eq!((&answer.l4[..2], &answer.l4[2..4]), (&PORT.to_be_bytes()[..], &50000_u16.to_be_bytes()[..]));
        let shim = Shim::decode(&answer.l4[8..], KEYS[1], 0, wall_ms()).unwrap();
        assert_eq!((shim.kind, shim.sender, shim.asked), (Kind::Here, site(US), question.asked));
        assert_eq!(shim.receiver, question.sender);
    }
}

#[test]
fn forged_shims_are_refused() {
    let Some(mut edge) = edge(Tier::Timestamps) else { return };
    let flow = flow(false, 40001, 443);
    let (hash, inner) = (flow.hash(KEYS[0]), &segment(&flow, echo_of(&flow, US))[14..]);
    let good = shim_of(Kind::Data, false);
    let refused = |edge: &mut Edge, frame: Vec<u8>, counter: Counter| {
        let (action, _, seen) = run(edge, &frame);
        assert_eq!((action, seen), (DROP, vec![(counter, 1)]));
    };
    refused(&mut edge, from_site(&good, hash ^ 1, false, inner), Counter::ShimForged);
    let late = Shim { wall_ms: good.wall_ms.wrapping_sub(timestamp::SLACK_MS + 5000), ..good };
    refused(&mut edge, from_site(&late, hash, false, inner), Counter::ShimForged);
    let early = Shim { wall_ms: good.wall_ms.wrapping_add(timestamp::SLACK_MS + 5000), ..good };
    refused(&mut edge, from_site(&early, hash, false, inner), Counter::ShimForged);
    let for_another = Shim { receiver: site(UP_V6), ..good };
    refused(&mut edge, from_site(&for_another, hash, false, inner), Counter::ShimForged);
    let stranger = Shim { sender: site(UP_V6), ..good };
    refused(&mut edge, from_site(&stranger, hash, false, inner), Counter::ShimStranger);
    let nobody = Shim { sender: site(UNKNOWN), ..good };
    refused(&mut edge, from_site(&nobody, hash, false, inner), Counter::ShimStranger);
    refused(&mut edge, from_site(&good, hash, false, &inner[..10]), Counter::ShimMalformed);
    // A reply is a packet of the service's, not to it.
    refused(&mut edge, from_site(&Shim { kind: Kind::Reply, ..good }, hash, false, inner), Counter::ShimForged);
    refused(&mut edge, from_site(&Shim { kind: Kind::Here, ..good }, 1, false, inner), Counter::ShimForged);
    let frame = from_site(&good, hash, false, inner);
    for bit in 0..24 * 8 {
        let mut forged = frame.clone();
        forged[42 + bit / 8] ^= 1 << (bit % 8);
        let (action, _, seen) = run(&mut edge, &forged);
        assert_eq!(action, DROP, "bit {bit}: {seen:?}");
    }
}

#[test]
fn a_site_has_a_budget_and_so_have_probes() {
    const BURST_NS: u64 = 100_000_000;
    let base = config(Tier::Timestamps);
    let Some(mut edge) = edge_with(&Config { budget_per_s: 100, probes_per_s: 100, ..base }) else { return };
    let flow = flow(false, 40001, 443);
    let hash = flow.hash(KEYS[0]);
    let frame = from_site(&shim_of(Kind::Data, false), hash, false, &segment(&flow, echo_of(&flow, US))[14..]);
    let passed = (0..200).filter(|_| run(&mut edge, &frame).0 == PASS).count();
    let burst = (BURST_NS / 10_000_000) as usize + 1;
    assert!((burst..burst + 30).contains(&passed), "{passed} of 200, {burst} at once");
    let mut sent = |frame: &[u8]| (0..200).filter(|_| run(&mut edge, frame).0 == TX).count();
    let probed = sent(&frame::tcp(&flow, &Tcp::default()));
    assert!((burst..burst + 30).contains(&probed), "{probed} of 200");
    let old = sent(&segment(&flow, echo_of(&flow, UP_V4).wrapping_sub(3_600_000)));
    assert!((2..6).contains(&old), "{old} of 200 with old timestamps");
}

#[test]
fn too_big_goes_to_the_owner() {
    let Some(mut edge) = edge(Tier::Timestamps) else { return };
    for v6 in [false, true] {
        let flow = flow(v6, 40001, 443);
        let router = if v6 { "2001:db8:99::1" } else { "203.0.113.99" }.parse().unwrap();
        let error = |number: u8| {
            let sent = Tcp { options: timestamps(echo_of(&flow, number), 5), payload: vec![0; 40], ..Tcp::default() };
            let quoted = &frame::reply(&flow, &sent)[14..];
            let head: &[u8] = if v6 { &[2, 0, 0, 0, 0, 0, 5, 0] } else { &[3, 4, 0, 0, 0, 0, 5, 0] };
            let mut icmp = [head, quoted].concat();
            let protocol = if v6 { 58 } else { 1 };
            let sum = match v6 {
                true => frame::transport_checksum(router, flow.service.ip(), protocol, &icmp),
                false => frame::checksum(&[&icmp]),
            };
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            frame::ip(router, flow.service.ip(), protocol, &icmp)
        };
        passes_untouched(&mut edge, &error(US), &[]);
        passes_untouched(&mut edge, &error(DOWN), &[Counter::OwnerDown]);
        let packet = error(UP_V4);
        let (action, out, seen) = run(&mut edge, &packet);
        assert_eq!((action, seen), (TX, vec![(Counter::ForwardIcmp, 1)]));
        let (shim, inner) = forwarded(&out, flow.hash(KEYS[0]), UP_V4);
        assert_eq!((shim.kind, inner), (Kind::Data, packet[14..].to_vec()));
        // And at the owner: bared, as it came.
        let ours = error(US);
        let at_us = from_site(&shim_of(Kind::Data, false), flow.hash(KEYS[0]), false, &ours[14..]);
        let (action, out, seen) = run(&mut edge, &at_us);
        assert_eq!((action, &out, seen), (PASS, &ours, vec![(Counter::ShimData, 1)]));
    }
}

#[test]
fn what_is_too_long_for_the_way_is_dropped_and_counted() {
    let Some(mut edge) = edge(Tier::Timestamps) else { return };
    for (to, overhead) in [(UP_V4, OVERHEAD_V4), (UP_V6, OVERHEAD_V6)] {
        let flow = flow(false, 40001, 443);
        let payload =
            |length| Tcp { options: timestamps(7, echo_of(&flow, to)), payload: vec![5; length], ..Tcp::default() };
        let room = usize::from(MTU) - overhead - 20 - 32;
        assert_eq!(run(&mut edge, &frame::tcp(&flow, &payload(room))).0, TX);
        let (action, _, seen) = run(&mut edge, &frame::tcp(&flow, &payload(room + 1)));
        assert_eq!((action, seen), (DROP, vec![(Counter::TooBig, 1)]));
    }
}
