//! Every encoding, both ways, at its limits and beyond.

mod cookies;

use std::hash::Hasher;

use proptest::prelude::*;

use super::connection_id::{BYTES, Config, NONCE_BYTES, ROTATIONS};
use super::shim::{Kind, Refusal, Shim};
use super::siphash::siphash13;
use super::timestamp::{IDLE_MS, OLD_MS, SLACK_MS};
use super::*;

const KEY: Key = Key([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);

fn site() -> impl Strategy<Value = Site> {
    (0..SITES_MAX).prop_map(|number| Site::new(number).unwrap())
}

fn mask() -> impl Strategy<Value = Mask> {
    (any::<u8>(), any::<u32>()).prop_map(|(code, sequence)| Mask { code, sequence })
}

fn flow(client: &str, service: &str) -> Flow {
    Flow { client: client.parse().unwrap(), service: service.parse().unwrap() }
}

#[test]
fn there_are_so_many_sites() {
    assert_eq!(Site::new(SITES_MAX - 1).map(Site::number), Some(SITES_MAX - 1));
    assert_eq!(Site::new(SITES_MAX), None);
    let codes = (0..=u8::MAX).filter_map(Site::of_code);
    assert!(codes.eq((0..SITES_MAX).map(Site)), "each once, in order");
}

#[test]
fn the_service_file_allows_as_many_sites_as_packets_can_name() {
    assert_eq!(SITES_MAX, ubique_model::service::spec::MAX_SESSION_SITES);
}

#[test]
fn a_key_is_not_shown() {
    assert_eq!(format!("{KEY:?}"), "Key(…)");
}

#[test]
fn the_mask_depends_on_all_of_a_flow() {
    let flows = [
        flow("192.0.2.1:40000", "198.51.100.1:443"),
        flow("192.0.2.1:40001", "198.51.100.1:443"),
        flow("192.0.2.1:40000", "198.51.100.1:853"),
        flow("192.0.2.2:40000", "198.51.100.1:443"),
        flow("192.0.2.1:40000", "198.51.100.2:443"),
        flow("[::ffff:192.0.2.1]:40000", "[::ffff:198.51.100.1]:443"),
        flow("[2001:db8::1]:40000", "[2001:db8:53::53]:443"),
        flow("[2001:db8:53::53]:443", "[2001:db8::1]:40000"),
    ];
    let hashes: std::collections::BTreeSet<u64> = flows.iter().map(|flow| flow.hash(KEY)).collect();
    assert_eq!(hashes.len(), flows.len());
    let hash = flows[0].hash(KEY);
    assert_eq!(flows[0].mask(KEY), Mask { code: hash as u8, sequence: (hash >> 32) as u32 });
    assert_ne!(flows[0].hash(Key([1, 2])), hash);
    // As the octets stand in a packet.
    let octets = [192, 0, 2, 1, 198, 51, 100, 1, 0x9c, 0x40, 0x01, 0xbb];
    assert_eq!(hash, siphash13(KEY, &octets));
}

#[test]
fn a_flow_returns_from_its_octets() {
    for flow in [
        flow("192.0.2.1:40000", "198.51.100.1:443"),
        flow("[::ffff:192.0.2.1]:40000", "[::ffff:198.51.100.1]:443"),
        flow("[2001:db8::1]:1", "[2001:db8:53::53]:65535"),
    ] {
        let octets = flow.octets();
        assert_eq!(Flow::of_octets(&octets), Some(flow));
        for (at, value) in [(36, 5), (36, 0), (37, 1), (39, 1)] {
            let mut other = octets;
            other[at] = value;
            assert_eq!(Flow::of_octets(&other), None, "octet {at} is {value}");
        }
    }
}

#[test]
fn an_echo_is_read_until_the_connection_was_idle_for_half_an_hour() {
    let (site, wall) = (Site(17), 1_795_248_930_123_u64);
    for mask in (0..=u8::MAX).map(|code| Mask { code, sequence: 0 }) {
        let sent = timestamp::encode(wall, site, mask);
        let at = |age: i64| timestamp::decode(sent, wall.checked_add_signed(age).unwrap(), mask);
        for age in [0, 1, 20, 1000, 1_790_000, i64::from(IDLE_MS), -1, -1000, -i64::from(SLACK_MS)] {
            assert_eq!(at(age), Some(site), "age {age}");
        }
        // No other site's for eighteen hours.
        let (idle, slack) = (i64::from(IDLE_MS), i64::from(SLACK_MS));
        for age in [idle + 1, -slack - 1, 1 << 24, 2 << 24, 3 << 24, (4 << 24) - slack - 1, idle - (4 << 24) + 1] {
            assert_eq!(at(age), None, "age {age}");
        }
        assert_eq!(at(4 << 24), Some(Site(16)), "one code further");
        let old = |age: i64| timestamp::decode_old(sent, wall.checked_add_signed(age).unwrap(), mask);
        for age in [0, idle, idle + 1, i64::from(OLD_MS), -slack] {
            assert_eq!(old(age), Some(site), "age {age}");
        }
        for age in [i64::from(OLD_MS) + 1, -slack - 1, 2 << 24, 3 << 24] {
            assert_eq!(old(age), None, "age {age}");
        }
    }
}

#[test]
fn a_clock_of_timestamps_goes_on_by_one_each_millisecond() {
    let mask = Mask { code: 250, sequence: 0 };
    let near_the_wrap = u64::from(u32::MAX) * 418 - 3;
    for ms in near_the_wrap..near_the_wrap + 10 {
        let (now, next) = (timestamp::encode(ms, Site(63), mask), timestamp::encode(ms + 1, Site(63), mask));
        assert_eq!(next.wrapping_sub(now), 1);
        assert_eq!(timestamp::decode(now, ms + 40, mask), Some(Site(63)));
    }
}

proptest! {
    #[test]
    fn siphash_is_that_of_others(k0: u64, k1: u64, octets in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut other = siphasher::sip::SipHasher13::new_with_keys(k0, k1);
        other.write(&octets);
        prop_assert_eq!(siphash13(Key([k0, k1]), &octets), other.finish());
    }

    #[test]
    fn timestamps_return(site in site(), mask in mask(), wall in u64::from(SLACK_MS)..u64::MAX / 2, age in 0..=u64::from(IDLE_MS), behind in 0..=u64::from(SLACK_MS)) {
        let sent = timestamp::encode(wall, site, mask);
        prop_assert_eq!(timestamp::decode(sent, wall + age, mask), Some(site));
        prop_assert_eq!(timestamp::decode(sent, wall - behind, mask), Some(site));
    }

    #[test]
    fn sequence_numbers_return(site in site(), mask in mask(), cookie: u32, sent in 0..=sequence::REACH) {
        let initial = sequence::encode(site, cookie, mask);
        let first = initial.wrapping_add(1);
        prop_assert_eq!(sequence::cookie(first, mask), cookie & ((1 << sequence::COOKIE_BITS) - 1));
        prop_assert_eq!(sequence::decode(first.wrapping_add(sent), mask), site);
        if site.number() + 1 < SITES_MAX {
            // With the largest cookie, not an octet further.
            let initial = sequence::encode(site, u32::MAX, mask);
            let last = initial.wrapping_add(1 + sequence::REACH);
            prop_assert_eq!(sequence::decode(last, mask), site);
            prop_assert_eq!(sequence::decode(last.wrapping_add(1), mask).number(), site.number() + 1);
        }
    }

    #[test]
    fn connection_identifiers_return(site in site(), rotation in 0..ROTATIONS, k0: u64, nonce: [u8; NONCE_BYTES], more: [u8; 5]) {
        let config = Config::new(rotation, Key([k0, 1])).unwrap();
        let id = config.encode(site, nonce);
        prop_assert_eq!(config.decode(&[&id[..], &more].concat()), Some(site));
        prop_assert_eq!(config.decode(&id[..BYTES - 1]), None);
        let later = Config::new((rotation + 1) % ROTATIONS, Key([k0, 1])).unwrap();
        prop_assert_eq!(later.decode(&id), None);
        prop_assert_eq!(usize::from(id[0] & 0x1f), BYTES - 1, "the length of the rest");
    }
}

const WALL: u64 = 1_795_248_930_123;

fn shim(kind: Kind) -> Shim {
    let asked = if matches!(kind, Kind::Probe | Kind::Alive | Kind::Here) { 1 << 63 | 1 << 9 } else { 0 };
    Shim { kind, sender: Site(3), origin: Site(9), receiver: Site(5), wall_ms: WALL as u32, asked }
}

#[test]
fn a_shim_returns_and_nothing_of_it_can_be_changed() {
    for number in 0..16 {
        let Some(kind) = Kind::of(number) else {
            assert!(number > Kind::Here as u8);
            continue;
        };
        let (sent, flow) = (shim(kind), 0x0123_4567_89ab_cdef);
        let octets = sent.encode(KEY, flow);
        assert_eq!(Shim::decode(&octets, KEY, flow, WALL), Ok(sent));
        for bit in 0..shim::BYTES * 8 {
            let mut other = octets;
            other[bit / 8] ^= 1 << (bit % 8);
            Shim::decode(&other, KEY, flow, WALL).unwrap_err();
        }
        assert_eq!(Shim::decode(&octets, KEY, flow ^ 1, WALL), Err(Refusal::Tag), "of another connection");
        assert_eq!(Shim::decode(&octets, Key([1, 2]), flow, WALL), Err(Refusal::Tag));
        assert_eq!(Shim::decode(&octets[..shim::BYTES - 1], KEY, flow, WALL), Err(Refusal::Form));
    }
}

#[test]
fn a_shim_is_good_for_some_minutes() {
    let octets = shim(Kind::Data).encode(KEY, 5);
    let slack = i64::from(SLACK_MS);
    for (later, fresh) in
        [(0, true), (slack, true), (-slack, true), (slack + 1, false), (-slack - 1, false), (1 << 31, false)]
    {
        let read = Shim::decode(&octets, KEY, 5, WALL.checked_add_signed(later).unwrap());
        assert_eq!(read.is_ok(), fresh, "{later}");
        assert!(fresh || read == Err(Refusal::Time));
    }
}

#[test]
fn a_probe_asks_each_site_once() {
    let mut probe = Shim { asked: 1 << 2, ..shim(Kind::Probe) };
    let mut order = Vec::new();
    while let Some(site) = probe.next(1 << 0 | 1 << 2 | 1 << 5 | 1 << 63) {
        order.push(site.number());
        probe.asked |= 1 << site.number();
    }
    assert_eq!(order, [0, 5, 63]);
}

/// What random packets are taken for: no more than chance allows.
#[test]
fn forgeries_are_rarely_anybodys() {
    const TRIES: u32 = 1_000_000;
    let sites = [Site(0), Site(1), Site(2)];
    let config = Config::new(0, KEY).unwrap();
    let mut rng = crate::rng::Rng::new(7);
    let (mut by_timestamp, mut by_id) = (0, 0);
    for _ in 0..TRIES {
        let mask = Mask { code: rng.next_u64() as u8, sequence: 0 };
        let echo = rng.next_u64() as u32;
        by_timestamp += u32::from(timestamp::decode(echo, 1_795_248_930_123, mask).is_some_and(|s| sites.contains(&s)));
        let mut id = [0; 16];
        id[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
        id[8..].copy_from_slice(&rng.next_u64().to_le_bytes());
        // Whoever knows the first octet, which is no secret.
        id[0] = (BYTES - 1) as u8;
        by_id += u32::from(config.decode(&id).is_some_and(|s| sites.contains(&s)));
    }
    // 3 of 2,048, give or take five deviations of 38; 3 of 65,536, of 7.
    assert!((1_465 - 190..1_465 + 190).contains(&by_timestamp), "{by_timestamp}");
    assert!((46 - 34..46 + 34).contains(&by_id), "{by_id}");
}
