//! Each encoding in C gives what its Rust twin gives.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ubique_edge::{Error, Vectors};
use ubique_proto::sessions::connection_id::{self, BYTES};
use ubique_proto::sessions::shim::{Kind, Shim};
use ubique_proto::sessions::{Flow, Key, SITES_MAX, Site, sequence, timestamp};

const NO_SITE: u8 = 0xff;
/// Octets of the output.
const OUTPUT: usize = 40;
const CASES: u32 = 2000;

/// Input of one run; some of it is right, some is not.
#[derive(Clone, Debug)]
struct Case {
    key: [u64; 2],
    flow: Flow,
    site: u8,
    wall_ms: u32,
    age_ms: i32,
    random: u32,
    is_random: bool,
    kind: u8,
    asked: u64,
    nonce: [u8; 7],
    rotation: u8,
    flipped: Option<usize>,
}

fn address() -> impl Strategy<Value = [IpAddr; 2]> {
    prop_oneof![
        any::<[[u8; 4]; 2]>().prop_map(|pair| pair.map(IpAddr::from)),
        any::<[[u8; 16]; 2]>().prop_map(|pair| pair.map(IpAddr::from)),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let flow = (address(), any::<[u16; 2]>());
    let who = (any::<[u64; 2]>(), flow, 0..SITES_MAX, any::<u32>(), age(), any::<u32>(), any::<bool>());
    let what = (0_u8..7, any::<u64>(), any::<[u8; 7]>(), 0_u8..7, prop::option::weighted(0.3, 0_usize..24 * 8));
    (who, what).prop_map(|((key, (ips, ports), site, wall_ms, age_ms, random, is_random), what)| {
        let [client, service] = [0, 1].map(|n| SocketAddr::new(ips[n], ports[n]));
        let (kind, asked, nonce, rotation, flipped) = what;
        let flow = Flow { client, service };
        Case { key, flow, site, wall_ms, age_ms, random, is_random, kind, asked, nonce, rotation, flipped }
    })
}

/// Around what is fresh, and around what is too old.
fn age() -> impl Strategy<Value = i32> {
    prop_oneof![-310_000..310_000, -600_000..2_000_000, -600_000..20_000_000]
}

fn words(address: IpAddr) -> [u8; 16] {
    let mut octets = [0; 16];
    match address {
        IpAddr::V4(v4) => octets[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => octets = v6.octets(),
    }
    octets
}

/// `struct vector` of `bpf/vectors.bpf.c`: its input, and room for its output.
struct Vector {
    octets: Vec<u8>,
    shim: [u8; 24],
    id: [u8; BYTES],
    echo: u32,
    acknowledgement: u32,
}

fn vector(case: &Case) -> Vector {
    let (key, site) = (Key(case.key), Site::new(case.site).unwrap());
    let (hash, mask) = (case.flow.hash(key), case.flow.mask(key));
    let pick = |ours: u32| if case.is_random { case.random } else { ours };
    let sent_at = u64::from(case.wall_ms).wrapping_sub(case.age_ms as u64);
    let echo = pick(timestamp::encode(sent_at, site, mask));
    let acknowledgement = pick(sequence::encode(site, case.random, mask).wrapping_add(1));
    let shim = Shim {
        kind: Kind::of(case.kind).unwrap(),
        sender: site,
        origin: Site::new(SITES_MAX - 1 - case.site).unwrap(),
        receiver: Site::new(case.site / 2).unwrap(),
        wall_ms: sent_at as u32,
        asked: if matches!(case.kind, 1 | 5 | 6) { case.asked } else { 0 },
    };
    let mut shim = shim.encode(key, hash);
    if let Some(bit) = case.flipped {
        shim[bit / 8] ^= 1 << (bit % 8);
    }
    let mut id = connection_id::Config::new(case.rotation, key).unwrap().encode(site, case.nonce);
    id[usize::from(case.kind)] ^= u8::from(case.is_random);
    let mut octets = Vec::new();
    octets.extend(case.key.iter().flat_map(|word| word.to_ne_bytes()));
    octets.extend([words(case.flow.client.ip()), words(case.flow.service.ip())].concat());
    octets.extend([case.flow.client.port().to_be_bytes(), case.flow.service.port().to_be_bytes()].concat());
    octets.extend([if case.flow.client.is_ipv4() { 4 } else { 6 }, 0, 0, 0]);
    for word in [case.wall_ms, echo, case.random, acknowledgement] {
        octets.extend(word.to_ne_bytes());
    }
    octets.extend(shim);
    octets.extend(id);
    octets.extend([case.rotation, case.site, 0, 0, 0, 0]);
    octets.extend([0; OUTPUT]);
    Vector { octets, shim, id, echo, acknowledgement }
}

/// What the twins say, in the order of the output.
fn expected(case: &Case, vector: &Vector) -> Vec<u8> {
    let (key, site) = (Key(case.key), Site::new(case.site).unwrap());
    let (hash, mask) = (case.flow.hash(key), case.flow.mask(key));
    let wall = u64::from(case.wall_ms);
    let number = |site: Option<Site>| site.map_or(NO_SITE, Site::number);
    let mut octets = hash.to_ne_bytes().to_vec();
    // Of the octets as they are, flipped or not.
    let head = if matches!(vector.shim[0] & 0xf, 1 | 5 | 6) { &vector.shim[..16] } else { &vector.shim[..8] };
    let covered = [head, &hash.to_le_bytes()[..7]].concat();
    octets.extend(ubique_proto::sessions::siphash::siphash13(key, &covered).to_ne_bytes());
    octets.extend(timestamp::encode(wall, site, mask).to_ne_bytes());
    octets.extend(sequence::encode(site, case.random, mask).to_ne_bytes());
    octets.extend(sequence::cookie(vector.acknowledgement, mask).to_ne_bytes());
    octets.push(number(timestamp::decode(vector.echo, wall, mask)));
    octets.push(sequence::decode(vector.acknowledgement, mask).number());
    octets.push(number(connection_id::Config::new(case.rotation, key).unwrap().decode(&vector.id)));
    octets.push(u8::from(Shim::decode(&vector.shim, key, hash, wall).is_ok()));
    octets.push(number(timestamp::decode_old(vector.echo, wall, mask)));
    octets
}

#[test]
fn the_encodings_are_those_of_their_twins() {
    let programs = match Vectors::load() {
        Err(Error::NotPermitted) => return eprintln!("skipped: BPF is not permitted here"),
        loaded => RefCell::new(loaded.unwrap()),
    };
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(CASES) });
    let good = Cell::new(0);
    let outcome = runner.run(&case(), |case| {
        let vector = vector(&case);
        let expected = expected(&case, &vector);
        let frame = programs.borrow_mut().run(&vector.octets).unwrap().packet;
        let input = vector.octets.len() - OUTPUT;
        prop_assert_eq!(&frame[input..input + expected.len()], &expected[..]);
        good.set(good.get() + u32::from(expected[expected.len() - 2] == 1));
        Ok(())
    });
    outcome.unwrap();
    let good = good.get();
    assert!(good > CASES / 4 && good < CASES, "{good} good shims of {CASES}");
}
