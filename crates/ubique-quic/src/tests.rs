//! Identifiers without a network, and what is refused.

use std::collections::HashSet;

use quinn_proto::{ConnectionId, ConnectionIdGenerator};

use super::*;

const KEY: Key = Key([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);

fn config(rotation: u8, key: Key) -> Config {
    Config::new(rotation, key).unwrap()
}

fn ids(site: u8, config: Config) -> ConnectionIds {
    ConnectionIds::new(Site::new(site).unwrap(), config)
}

#[test]
fn identifiers_are_of_the_site_and_never_the_same() {
    const IDS: usize = 100_000;
    let [ours, other] = [config(0, KEY), config(0, Key([1, 2]))];
    let mut generator = ids(17, ours);
    let mut seen = HashSet::new();
    let mut by_another_key = 0;
    for _ in 0..IDS {
        let id = generator.generate_cid();
        assert_eq!(id.len(), generator.cid_len());
        assert_eq!(ours.decode(&id), Some(generator.site()));
        assert!(generator.validate(&id).is_ok());
        by_another_key += usize::from(other.decode(&id).is_some());
        assert!(seen.insert(id));
    }
    // A check octet, and one code of four: 1 in 1,024, give or take six deviations of 10.
    assert!((38..=158).contains(&by_another_key), "{by_another_key} of {IDS}");
    assert_eq!(generator.cid_lifetime(), None);
}

#[test]
fn clones_do_not_repeat_each_other() {
    let mut one = ids(0, config(0, KEY));
    let mut other = one.clone();
    let seen: HashSet<ConnectionId> = (0..1000).flat_map(|_| [one.generate_cid(), other.generate_cid()]).collect();
    assert_eq!(seen.len(), 2000);
}

#[test]
fn only_what_this_site_issued_is_worth_a_reset() {
    let generator = ids(17, config(3, KEY));
    let invalid = |id: &[u8]| generator.validate(&ConnectionId::new(id)).is_err();
    let mine = config(3, KEY).encode(generator.site(), [7; 7]);
    assert!(!invalid(&mine));
    assert!(invalid(&config(3, KEY).encode(Site::new(18).unwrap(), [7; 7])));
    assert!(invalid(&config(4, KEY).encode(generator.site(), [7; 7])));
    assert!(invalid(&[&mine[..], &[0]].concat()));
    assert!(invalid(&mine[..9]));
    assert!(invalid(&[]));
}

#[test]
fn the_previous_key_is_known_for_one_rotation() {
    let mut generator = ids(5, config(0, KEY));
    let [first, second, third] = [0, 1, 2].map(|rotation| {
        if rotation > 0 {
            // By a clone: quinn has another.
            generator.clone().rotate(config(rotation, Key([u64::from(rotation), 9])));
        }
        generator.generate_cid()
    });
    assert_eq!([first, second, third].map(|id| id[0] >> 5), [0, 1, 2]);
    assert!(generator.validate(&first).is_err());
    assert!(generator.validate(&second).is_ok());
    assert!(generator.validate(&third).is_ok());
}

#[test]
fn keys_are_read_in_the_order_of_the_paper() {
    assert_eq!(key_from_hex("000102030405060708090a0b0c0d0e0f"), Some(KEY));
    assert_eq!(key_from_hex("000102030405060708090A0B0C0D0E0F"), Some(KEY));
    for wrong in [
        "",
        "00",
        "000102030405060708090a0b0c0d0e0g",
        "+00102030405060708090a0b0c0d0e0f",
        "0x0102030405060708090a0b0c0d0e0f",
    ] {
        assert_eq!(key_from_hex(wrong), None, "{wrong}");
    }
}

#[test]
fn a_preferred_address_must_reach_the_socket() {
    let reaches = |address: &str, bound: &str| super::reaches(address.parse().unwrap(), bound.parse().unwrap());
    assert!(reaches("192.0.2.1:443", "0.0.0.0:443"));
    assert!(reaches("192.0.2.1:443", "[::]:443"));
    assert!(reaches("192.0.2.1:443", "192.0.2.1:443"));
    assert!(reaches("[2001:db8::1]:443", "[::]:443"));
    assert!(!reaches("192.0.2.1:443", "192.0.2.2:443"));
    assert!(!reaches("192.0.2.1:444", "0.0.0.0:443"));
    assert!(!reaches("[2001:db8::1]:443", "0.0.0.0:443"));
}
