//! What somebody makes up is not accepted, and hardly forwarded.

use ubique_edge::{Counter, Edge, Program, Tier};
use ubique_proto::rng::Rng;
use ubique_proto::sessions::Flow;
use ubique_proto::sessions::shim::{self, Kind};

use crate::decisions::{from_site, shim_of};
use crate::frame::{self, Tcp, timestamps};
use crate::setup::*;

const PASS: u32 = 2;
const TX: u32 = 3;
/// Packets of each kind.
const FORGERIES: u32 = 1_000_000;
/// Forwarded at most, of them.
const SHARE_MAX: u32 = FORGERIES / 100;

fn action(edge: &mut Edge, frame: &[u8]) -> u32 {
    edge.run(Program::Ingress, frame, 1).unwrap().action
}

/// A client that nobody knows.
fn client(rng: &mut Rng) -> Flow {
    flow(rng.next_u64().is_multiple_of(2), rng.next_u64() as u16, 443)
}

#[test]
fn forged_timestamps_are_hardly_forwarded() {
    let Some(mut edge) = edge(Tier::Timestamps) else { return };
    let mut rng = Rng::new(11);
    let mut forwarded = 0;
    for _ in 0..FORGERIES {
        let options = timestamps(1, rng.next_u64() as u32);
        let forged = frame::tcp(&client(&mut rng), &Tcp { options, ack: rng.next_u64() as u32, ..Tcp::default() });
        forwarded += u32::from(action(&mut edge, &forged) == TX);
    }
    let counters = edge.counters().unwrap();
    eprintln!("{forwarded} of {FORGERIES} forwarded, {} by timestamp", counters[Counter::ForwardTimestamp]);
    assert!(forwarded <= SHARE_MAX, "{forwarded}");
    // Two sites are up: 2 of 2,048, give or take five deviations of 31.
    assert!((821..1133).contains(&counters[Counter::ForwardTimestamp]));
}

#[test]
fn forged_identifiers_are_hardly_forwarded() {
    let Some(mut edge) = edge(Tier::Off) else { return };
    let mut rng = Rng::new(12);
    let mut forwarded = 0;
    for n in 0..FORGERIES {
        // The first octet of an identifier is no secret.
        let mut payload = [0; 40];
        payload[0] = if n % 2 == 0 { 0x40 } else { 0xc0 };
        payload[5] = 10;
        let id = if n % 2 == 0 { 1 } else { 6 };
        for octet in &mut payload[id..] {
            *octet = rng.next_u64() as u8;
        }
        payload[id] = ROTATION << 5 | 9;
        forwarded += u32::from(action(&mut edge, &frame::udp(&client(&mut rng), &payload)) == TX);
    }
    eprintln!("{forwarded} of {FORGERIES} forwarded");
    assert!(forwarded <= SHARE_MAX / 100, "{forwarded}");
}

#[test]
fn forged_shims_are_never_believed() {
    let Some(mut edge) = edge(Tier::Timestamps) else { return };
    let mut rng = Rng::new(13);
    for n in 0..FORGERIES {
        let flow = client(&mut rng);
        let kind = Kind::of((n % 7) as u8).unwrap();
        let v6 = n % 2 == 0;
        let inner = &frame::tcp(&flow, &Tcp::default())[14..];
        // All but the tag is right.
        let mut forged = from_site(&shim_of(kind, v6), flow.hash(KEYS[0]), v6, inner);
        let tag = if v6 { 62 } else { 42 } + shim::BYTES - 8;
        forged[tag..tag + 8].copy_from_slice(&rng.next_u64().to_ne_bytes());
        let action = action(&mut edge, &forged);
        assert!(action != PASS && action != TX, "{n}: {kind:?}");
    }
}

/// Frames that were right once, with something changed anywhere.
#[test]
fn no_frame_is_more_than_decided() {
    const FRAMES: u32 = 200_000;
    let Some(mut edge) = edge(Tier::Timestamps) else { return };
    let mut rng = Rng::new(14);
    for n in 0..FRAMES {
        let flow = client(&mut rng);
        let hash = flow.hash(KEYS[0]);
        let segment = frame::tcp(&flow, &Tcp { options: timestamps(1, 2), payload: vec![3; 20], ..Tcp::default() });
        let mut frame = match n % 4 {
            0 => segment,
            1 => frame::udp(&flow, &[0x40; 60]),
            2 => from_site(&shim_of(Kind::Probe, true), hash, true, &segment[14..]),
            _ => from_site(&shim_of(Kind::Data, false), hash, false, &segment[14..]),
        };
        for _ in 0..1 + rng.next_u64() % 4 {
            let at = rng.next_u64() as usize % frame.len();
            frame[at] = rng.next_u64() as u8;
        }
        frame.truncate(14 + rng.next_u64() as usize % frame.len());
        let ran = edge.run(Program::Ingress, &frame, 1).unwrap();
        // XDP_ABORTED is no decision.
        assert!((1..=3).contains(&ran.action), "{n}: {}", ran.action);
        // The kernel makes no packet of less.
        if frame.len() >= 14 + 40 {
            let ran = edge.run(Program::Egress, &frame, 1).unwrap();
            assert_eq!(ran.action, u32::MAX, "{n}");
        }
    }
}
