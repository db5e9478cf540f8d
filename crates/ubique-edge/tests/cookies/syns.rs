//! SYNs in, SYN-ACKs out: every octet.

use ubique_edge::{Config, Counter, Edge, Program};
use ubique_proto::rng::Rng;
use ubique_proto::sessions::cookie::{Opening, Options, SCALE_MAX};
use ubique_proto::sessions::{Flow, cookie, sequence, timestamp};

use crate::frame::{self, Parsed, SYN, Tcp, checksum, transport_checksum};
use crate::setup::*;

const PASS: u32 = 2;
const TX: u32 = 3;
/// Of `bpf/answer.h`.
const WINDOW: u16 = 29_200;
const WINDOW_SCALE: u8 = 10;
const TTL: u8 = 64;
/// Of an outer packet between sites, over IPv6: header, UDP, shim.
const OVERHEAD: u16 = 40 + 8 + 24;
/// The smallest frame of Ethernet, without its checksum.
const FRAME_MIN: usize = 60;

#[derive(Clone, Copy, Debug, Default)]
struct Offer {
    segment: Option<u16>,
    scale: Option<u8>,
    sack: bool,
    timestamp: Option<u32>,
}

impl Offer {
    fn random(rng: &mut Rng, v6: bool) -> Offer {
        let random = rng.next_u64();
        let least = if v6 { 1220 } else { 536 };
        let maybe = |bit: u32| random >> bit & 1 == 1;
        Offer {
            segment: maybe(0).then_some(least + (random >> 48) as u16 % 9000),
            scale: maybe(1).then_some((random >> 40) as u8 % 17),
            sack: maybe(2),
            timestamp: maybe(3).then_some((random >> 8) as u32),
        }
    }

    /// In some order, with other things in between, in whole words.
    fn octets(self, rng: &mut Rng) -> Vec<u8> {
        let mut options: Vec<Vec<u8>> = vec![];
        options.extend(self.segment.map(|size| [&[2, 4], &size.to_be_bytes()[..]].concat()));
        options.extend(self.scale.map(|scale| vec![3, 3, scale]));
        options.extend(self.sack.then(|| vec![4, 2]));
        options.extend(self.timestamp.map(|value| [&[8, 10], &value.to_be_bytes()[..], &[0; 4]].concat()));
        for n in (1..options.len()).rev() {
            options.swap(n, rng.next_u64() as usize % (n + 1));
        }
        let more: &[&[u8]] = &[&[], &[1], &[1, 1], &[254, 4, 7, 7], &[34, 2], &[30, 12, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8]];
        let mut octets = vec![];
        for option in options {
            let extra = more[rng.next_u64() as usize % more.len()];
            if octets.len() + extra.len() + 20 <= 40 {
                octets.extend(extra);
            }
            octets.extend(option);
        }
        // The end of the list; what is behind it is nothing.
        let padding = [[0, 3, 3], [2, 4, 0], [8, 10, 1]][rng.next_u64() as usize % 3];
        match (4 - octets.len() % 4) % 4 {
            1 => octets.push(0),
            missing => octets.extend(&padding[..missing]),
        }
        assert!(octets.len() <= 40 && octets.len().is_multiple_of(4));
        octets
    }

    /// What is agreed on.
    fn options(self, flow: &Flow) -> Options {
        let none = if flow.client.is_ipv6() { 1220 } else { 536 };
        Options {
            segment: cookie::segment(self.segment.unwrap_or(none), segments(flow)).unwrap(),
            scale: self.scale.map(|scale| scale.min(SCALE_MAX)),
            sack: self.sack,
            timestamps: self.timestamp.is_some(),
        }
    }
}

fn word(l4: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(l4[at..at + 4].try_into().unwrap())
}

/// The SYN-ACK as it should be: only its two numbers are taken from `l4`, the answer's TCP header, and checked by themselves.
fn expected(flow: &Flow, isn: u32, offer: Offer, l4: &[u8]) -> Vec<u8> {
    let mut options = vec![2, 4];
    let headers = if flow.client.is_ipv6() { 60 } else { 40 };
    options.extend((MTU - OVERHEAD - headers).to_be_bytes());
    if let Some(value) = offer.timestamp {
        options.extend(if offer.sack { [4, 2, 8, 10] } else { [1, 1, 8, 10] });
        options.extend(&l4[28..32]);
        options.extend(value.to_be_bytes());
    } else if offer.sack {
        options.extend([1, 1, 4, 2]);
    }
    if offer.scale.is_some() {
        options.extend([1, 3, 3, WINDOW_SCALE]);
    }
    let mut header = [flow.service.port().to_be_bytes(), flow.client.port().to_be_bytes()].concat();
    header.extend(&l4[4..8]);
    header.extend(isn.wrapping_add(1).to_be_bytes());
    header.extend([(((20 + options.len()) / 4) << 4) as u8, 0x12]);
    header.extend(WINDOW.to_be_bytes());
    header.extend([0; 4]);
    header.extend(options);
    let sum = transport_checksum(flow.service.ip(), flow.client.ip(), 6, &header);
    header[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut packet = frame::ip(flow.service.ip(), flow.client.ip(), 6, &header);
    packet[..12].copy_from_slice(&[ROUTER_MAC, OUR_MAC].concat());
    if flow.client.is_ipv6() {
        packet[21] = TTL;
    } else {
        // Neither identification nor hop count of the frame that frame::ip makes.
        packet[18..20].fill(0);
        packet[22] = TTL;
        packet[24..26].fill(0);
        let sum = checksum(&[&packet[14..34]]);
        packet[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    packet.resize(packet.len().max(FRAME_MIN), 0);
    packet
}

fn is_answered(edge: &mut Edge, flow: &Flow, isn: u32, offer: Offer, frame: &[u8]) {
    let before = wall_ms();
    let ran = edge.run(Program::Ingress, frame, 1).unwrap();
    let after = wall_ms();
    assert_eq!(ran.action, TX, "{flow:?} {offer:?}");
    let l4 = Parsed::of(&ran.packet).l4;
    assert_eq!(ran.packet, expected(flow, isn, offer, &l4), "{flow:?} {offer:?}");
    let acknowledgement = word(&l4, 4).wrapping_add(1);
    assert!(sequence::is_initial(acknowledgement, us(), mask(flow)));
    let opening = Opening { flow: flow.hash(FLOW_KEY), sequence: isn };
    let returned = sequence::cookie(acknowledgement, mask(flow));
    let agreed = cookie::decode(COOKIE_KEY, opening, returned, offer.timestamp.is_some(), after);
    assert_eq!(agreed, Some(offer.options(flow)), "{offer:?}");
    if offer.timestamp.is_some() {
        // The coarse clock is a tick behind.
        let said = word(&l4, 28).wrapping_sub(timestamp::encode(before - 10, us(), mask(flow)));
        assert!(u64::from(said) <= after - before + 10, "{said}");
    }
}

fn syn(flow: &Flow, seq: u32, options: Vec<u8>) -> Vec<u8> {
    let mut frame = frame::tcp(flow, &Tcp { flags: SYN, seq, ack: 0, options, payload: vec![] });
    frame.resize(frame.len().max(FRAME_MIN), 0);
    frame
}

#[test]
fn every_octet_of_an_answer() {
    with_listeners(|| {
        let mut rng = Rng::new(17);
        let Some(mut edge) = edge(&config()) else { return };
        let mut timestamps = 0;
        for n in 0..1000 {
            let v6 = n % 2 == 1;
            let random = rng.next_u64();
            let (flow, isn) = (flow(v6, random as u16 | 1), (random >> 32) as u32);
            let offer = Offer::random(&mut rng, v6);
            timestamps += u64::from(offer.timestamp.is_some());
            let options = offer.octets(&mut rng);
            is_answered(&mut edge, &flow, isn, offer, &syn(&flow, isn, options));
        }
        let counters = edge.counters().unwrap();
        assert_eq!(
            counters.seen().collect::<Vec<_>>(),
            [(Counter::Syn, 1000), (Counter::SynTimestamps, timestamps), (Counter::SynCookie, 1000)]
        );
    });
}

#[test]
fn what_comes_with_a_syn_and_is_not_taken_is_left_out() {
    with_listeners(|| {
        let Some(mut edge) = edge(&config()) else { return };
        for v6 in [false, true] {
            let flow = flow(v6, 40_000);
            let offer = Offer { segment: Some(1400), ..Offer::default() };
            let options = vec![2, 4, 5, 120];
            // Data, Fast Open with a cookie and data, ECN, AccECN.
            let payload = vec![7; 600];
            let open = [&options[..], &[34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1]].concat();
            for (flags, options, payload) in [
                (SYN, options.clone(), payload.clone()),
                (SYN, open, payload),
                (SYN | 0xc0, options.clone(), vec![]),
                (SYN | 0x08, options.clone(), vec![]),
            ] {
                let tcp = Tcp { flags, seq: 99, ack: 5, options, payload };
                is_answered(&mut edge, &flow, 99, offer, &frame::tcp(&flow, &tcp));
            }
            // AE, beside the length of the header.
            let mut frame = frame::tcp(&flow, &Tcp { flags: SYN | 0xc0, seq: 99, ack: 0, options, payload: vec![] });
            let at = if v6 { 66 } else { 46 };
            frame[at] |= 1;
            is_answered(&mut edge, &flow, 99, offer, &frame);
        }
    });
}

/// Frames that are the kernel's, with what they are.
fn not_ours(v6: bool) -> Vec<(&'static str, Vec<u8>)> {
    let ours = flow(v6, 40_000);
    let from = |client: &str| Flow { client: (client.parse::<std::net::IpAddr>().unwrap(), 40_000).into(), ..ours };
    let options = vec![2, 4, 5, 120];
    let mut group = syn(&ours, 1, options.clone());
    group[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    let small = if v6 { 1219_u16 } else { 535 };
    let mut frames = vec![
        ("to a group", group),
        ("too small segments", syn(&ours, 1, [&[2, 4], &small.to_be_bytes()[..]].concat())),
        ("signed", syn(&ours, 1, [&options[..], &[19, 18], &[0; 16], &[1, 1]].concat())),
        ("authenticated", syn(&ours, 1, [&options[..], &[29, 16], &[0; 14]].concat())),
        ("nobody listens", syn(&Flow { service: (ours.service.ip(), 444).into(), ..ours }, 1, options.clone())),
        ("from ourselves", syn(&Flow { client: ours.service, ..ours }, 1, options.clone())),
    ];
    let sources: &[&str] =
        if v6 { &["::", "::1", "ff02::1"] } else { &["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] };
    frames.extend(sources.iter().map(|source| (*source, syn(&from(source), 1, options.clone()))));
    frames
}

#[test]
fn what_is_not_ours_passes_untouched() {
    with_listeners(|| {
        let Some(mut edge) = edge(&config()) else { return };
        for v6 in [false, true] {
            for (what, frame) in not_ours(v6) {
                let before = edge.counters().unwrap();
                let ran = edge.run(Program::Ingress, &frame, 1).unwrap();
                assert_eq!((ran.action, ran.packet), (PASS, frame), "{what}");
                let counted = counted(&before, &edge.counters().unwrap());
                assert_eq!(counted, [(Counter::Syn, 1), (Counter::SynKernel, 1)], "{what}");
            }
        }
    });
}

#[test]
fn what_is_left_to_the_kernel_has_no_timestamps() {
    with_listeners(|| {
        let Some(mut edge) = edge(&config()) else { return };
        let mut rng = Rng::new(41);
        for n in 0..2000 {
            let ours = flow(n % 2 == 1, 40_000);
            let closed = Flow { service: (ours.service.ip(), PORT + 1).into(), ..ours };
            let offer = Offer { timestamp: Some(rng.next_u64() as u32), ..Offer::random(&mut rng, n % 2 == 1) };
            let options = offer.octets(&mut rng);
            let at = options
                .windows(6)
                .position(|six| six[..2] == [8, 10] && six[2..] == offer.timestamp.unwrap().to_be_bytes());
            let mut without = options.clone();
            without[at.unwrap()..][..10].fill(1);
            let ran = edge.run(Program::Ingress, &syn(&closed, 7, options), 1).unwrap();
            assert_eq!((ran.action, ran.packet), (PASS, syn(&closed, 7, without)));
        }
    });
}

#[test]
fn no_form_of_options_is_too_much() {
    with_listeners(|| {
        let Some(mut edge) = edge(&config()) else { return };
        let mut rng = Rng::new(3);
        for n in 0..20_000 {
            let flow = flow(n % 2 == 1, 40_000);
            let mut options = vec![0; rng.next_u64() as usize % 11 * 4];
            // Small numbers: kinds and lengths there are.
            options.iter_mut().for_each(|octet| *octet = rng.next_u64() as u8 % 12);
            let mut frame = syn(&flow, 1, options);
            let ran = edge.run(Program::Ingress, &frame, 1).unwrap();
            assert!(ran.action == PASS || Parsed::of(&ran.packet).tcp_is_sound());
            // Headers longer or shorter than what there is.
            let at = if n % 2 == 1 { 66 } else { 46 };
            frame[at] = (rng.next_u64() as u8) << 4;
            frame.truncate(at + 8 + rng.next_u64() as usize % 50);
            let ran = edge.run(Program::Ingress, &frame, 1).unwrap();
            assert!(ran.action == PASS || Parsed::of(&ran.packet).tcp_is_sound());
        }
    });
}

#[test]
fn only_ports_that_are_named_are_answered() {
    with_listeners(|| {
        for (ports, action) in [(vec![], TX), (vec![PORT], TX), (vec![80, PORT], TX), (vec![80], PASS)] {
            let Some(mut edge) = edge(&Config { tcp_ports: ports.clone(), ..config() }) else { return };
            let ran = edge.run(Program::Ingress, &syn(&flow(false, 40_000), 1, vec![]), 1).unwrap();
            assert_eq!(ran.action, action, "{ports:?}");
        }
    });
}
