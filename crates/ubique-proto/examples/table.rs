//! What a full table costs: 1,000,000 IPv4 routes with 150,000 distinct sets of attributes, from bytes to Adj-RIB-In.
//!
//! Prints one JSON object: nanoseconds and resident octets for each route, and what is left when the session is over.
//! Wall-clock time informs, it never gates.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use ubique_model::{Asn, Community, Prefix, Relation};
use ubique_proto::Time;
use ubique_proto::bgp::attributes::{AsPath, Attributes, NextHop};
use ubique_proto::bgp::family::AddressFamilies;
use ubique_proto::bgp::message::{Capability, Nlri, Open};
use ubique_proto::bgp::speaker::{ConnId, In, Local, PeerConfig, PeerId, Speaker, SpeakerConfig};
use ubique_proto::bgp::wire::{self, EncodeContext};
use ubique_proto::rng::Rng;

const ROUTES: usize = 1_000_000;
const ATTRIBUTE_SETS: usize = 150_000;
/// Octets a driver reads at once.
const READ: usize = 64 << 10;
const SEED: u64 = 1;
const NEIGHBOR: Asn = Asn(64501);
const CONN: ConnId = ConnId(1);

fn main() {
    let updates = updates();
    let address: IpAddr = Ipv4Addr::new(192, 0, 2, 2).into();
    let config = SpeakerConfig {
        peers: vec![PeerConfig { keep: 2 * ROUTES, ..PeerConfig::new(address, NEIGHBOR, Relation::Transit) }],
        ..SpeakerConfig::new(Asn(64500), Ipv4Addr::new(192, 0, 2, 1), SEED)
    };
    let mut speaker = Speaker::new(config);
    let input = |speaker: &mut Speaker, input: In| {
        speaker.handle_input(Time::ZERO, input);
        while speaker.poll_output().is_some() {}
    };
    input(&mut speaker, In::Start);
    let local = Local::from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    input(&mut speaker, In::Accepted { peer: PeerId(0), conn: CONN, local });
    input(&mut speaker, In::Received { conn: CONN, bytes: handshake() });

    let before = resident();
    let (start, busy) = (Instant::now(), on_cpu_ns());
    for bytes in updates.chunks(READ) {
        input(&mut speaker, In::Received { conn: CONN, bytes: bytes.to_vec() });
    }
    let (took, busy) = (start.elapsed(), on_cpu_ns() - busy);
    let after = resident();
    let stored = speaker.rib().counters(PeerId(0)).received;
    assert_eq!(stored, ROUTES, "routes stored");
    let start = on_cpu_ns();
    input(&mut speaker, In::Closed { conn: CONN });
    let ending = on_cpu_ns() - start;
    let mut turns = 0;
    let start = on_cpu_ns();
    while speaker.rib().has_gone() {
        speaker.handle_deadline(speaker.next_deadline().expect("more to free"));
        while speaker.poll_output().is_some() {}
        turns += 1;
    }
    let freeing = on_cpu_ns() - start;
    println!(
        "{{\"routes\":{stored},\"ns_per_route\":{},\"cpu_ns_per_route\":{},\"octets_per_route\":{},\"down_cpu_us\":{},\"freeing_cpu_ms\":{},\"freeing_turns\":{turns},\"octets_left\":{}}}",
        took.as_nanos() / ROUTES as u128,
        busy / ROUTES as u64,
        (after - before) / ROUTES as u64,
        ending / 1_000,
        freeing / 1_000_000,
        resident().saturating_sub(before)
    );
}

/// The OPEN and KEEPALIVE of the neighbour.
fn handshake() -> Vec<u8> {
    let capabilities =
        vec![Capability::Multiprotocol(ubique_model::Family::Ipv4.into()), Capability::FourOctetAs(NEIGHBOR)];
    let open = Open { asn: NEIGHBOR, hold_time_s: 0, router_id: Ipv4Addr::new(192, 0, 2, 2), capabilities };
    let mut bytes = vec![];
    wire::encode_open(&open, &mut bytes);
    wire::encode_keepalive(&mut bytes);
    bytes
}

/// All routes as UPDATEs: prefixes in the order of a hash, each set of attributes with its prefixes.
fn updates() -> Vec<u8> {
    let mut rng = Rng::new(SEED);
    let mut prefixes: Vec<Prefix> = (0..ROUTES as u32)
        .map(|i| format!("{}/24", Ipv4Addr::from_bits((i + (1 << 16)) << 8)).parse().expect("a prefix"))
        .collect();
    for i in (1..prefixes.len()).rev() {
        prefixes.swap(i, rng.below(i as u64 + 1) as usize);
    }
    let context = EncodeContext {
        four_octet_as: true,
        external: true,
        add_path: AddressFamilies::NONE,
        extended_next_hop: AddressFamilies::NONE,
        max_message: wire::MAX_MESSAGE,
    };
    let mut bytes = vec![];
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 2));
    for (i, run) in prefixes.chunks(ROUTES.div_ceil(ATTRIBUTE_SETS)).enumerate() {
        let hops = 2 + rng.below(5);
        let path = std::iter::once(NEIGHBOR).chain((0..hops).map(|_| Asn(1 + rng.below(400_000) as u32)));
        let attributes = Attributes {
            as_path: AsPath::sequence(path),
            communities: (0..rng.below(6)).map(|_| Community(rng.next_u64() as u32)).collect(),
            med: Some(i as u32),
            ..Attributes::originated()
        };
        let prefixes: Vec<Nlri> = run.iter().copied().map(Nlri::from).collect();
        let routes = Some((&attributes, next_hop, &prefixes[..]));
        wire::encode_updates(&[], routes, &context, &mut bytes).expect("fits");
    }
    bytes
}

/// Resident memory of this process, octets.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Time this process has been on a CPU, ns: what others do at the same time does not count.
fn on_cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/self/schedstat").expect("procfs");
    text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number")
}
