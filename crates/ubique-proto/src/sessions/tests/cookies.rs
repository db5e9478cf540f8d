//! SYN cookies: what is agreed on returns, nothing else is believed.

use proptest::prelude::*;

use super::super::cookie::{self, MAC_BITS, Opening, Options, SCALE_MAX, SEGMENTS_V4, SEGMENTS_V6};
use super::super::sequence::COOKIE_BITS;
use super::super::{Key, Mask, Site, sequence, timestamp};
use crate::rng::Rng;

const KEY: Key = Key([3, 5]);
const OPENING: Opening = Opening { flow: 0x0123_4567_89ab_cdef, sequence: 77 };
const UNIT_MS: u64 = 1 << 16;
/// The first moment of a unit.
const WALL: u64 = 27_000_000 * UNIT_MS;

fn options() -> impl Strategy<Value = Options> {
    (0..4_u8, prop::option::of(0..=SCALE_MAX), any::<bool>(), any::<bool>())
        .prop_map(|(segment, scale, sack, timestamps)| Options { segment, scale, sack, timestamps })
}

#[test]
fn segment_sizes_are_rounded_down() {
    for (offered, index) in
        [(535, None), (536, Some(0)), (1299, Some(0)), (1452, Some(2)), (1460, Some(3)), (u16::MAX, Some(3))]
    {
        assert_eq!(cookie::segment(offered, SEGMENTS_V4), index, "{offered}");
    }
    for (offered, index) in
        [(1219, None), (1220, Some(0)), (1439, Some(1)), (1440, Some(2)), (8939, Some(2)), (8940, Some(3))]
    {
        assert_eq!(cookie::segment(offered, SEGMENTS_V6), index, "{offered}");
    }
}

#[test]
fn a_cookie_is_good_for_this_unit_of_time_and_the_next() {
    let options = Options { segment: 2, scale: Some(7), sack: true, timestamps: false };
    for start in [WALL, WALL + UNIT_MS, (1 << 40) - UNIT_MS, (1 << 40) - 2 * UNIT_MS] {
        for made in [start, start + UNIT_MS - 1] {
            let cookie = cookie::encode(KEY, OPENING, options, made);
            let at = |wall| cookie::decode(KEY, OPENING, cookie, false, wall);
            for wall in [made, start + UNIT_MS - 1, start + UNIT_MS, start + 2 * UNIT_MS - 1] {
                assert_eq!(at(wall), Some(options));
            }
            // By then its lowest bit stands for another unit.
            for wall in [start - 1, start + 2 * UNIT_MS, start + 3 * UNIT_MS] {
                assert_eq!(at(wall), None);
            }
        }
    }
}

#[test]
fn an_echo_is_recent_for_two_units() {
    let mask = Mask { code: 200, sequence: 0 };
    let said = timestamp::encode(WALL, Site(9), mask);
    let after = |ms| cookie::is_recent(said, timestamp::encode(WALL + ms, Site(9), mask));
    assert!(after(0) && after(2 * UNIT_MS - 1));
    assert!(!after(2 * UNIT_MS));
    assert!(!cookie::is_recent(said.wrapping_add(1), said), "not said yet");
}

/// Of a million forgeries of each kind, as many are believed as chance allows.
#[test]
fn forgeries_are_believed_by_chance() {
    const TRIES: u32 = 1_000_000;
    let mut rng = Rng::new(11);
    let options = Options { segment: 3, scale: Some(9), sack: true, timestamps: true };
    let mut believed = [0_u32; 6];
    for _ in 0..TRIES {
        let cookie = cookie::encode(KEY, OPENING, options, WALL);
        let random = rng.next_u64();
        let good = |key, opening, cookie, timestamps| {
            u32::from(cookie::decode(key, opening, cookie, timestamps, WALL).is_some())
        };
        let (sequence, flow) = (OPENING.sequence.wrapping_add(random as u32 | 1), OPENING.flow ^ (random | 1));
        let (mask, acknowledgement) = (Mask { code: 0, sequence: 0 }, random as u32);
        let returned = sequence::cookie(acknowledgement, mask);
        let initial = u32::from(sequence::is_initial(acknowledgement, Site(9), mask));
        for (count, good) in believed.iter_mut().zip([
            good(KEY, OPENING, random as u32, random >> 63 == 0),
            good(KEY, Opening { sequence, ..OPENING }, cookie, true),
            good(KEY, Opening { flow, ..OPENING }, cookie, true),
            good(Key([random, 5]), OPENING, cookie, true),
            // Other options: flipped, not only chosen.
            good(
                KEY,
                Opening { sequence: random as u32, ..OPENING },
                cookie ^ 1 << (MAC_BITS + 1 + (random >> 32) as u32 % 7),
                true,
            ),
            initial & good(KEY, OPENING, returned, false),
        ]) {
            *count += good;
        }
    }
    // 1 of 2¹⁴ is 61, give or take five deviations of 8; of 2²⁴, hardly ever one.
    let by_hash = 61 - 40..61 + 40;
    assert!(believed[..5].iter().all(|count| by_hash.contains(count)) && believed[5] <= 2, "{believed:?}");
}

proptest! {
    #[test]
    fn what_is_agreed_on_returns(key: [u64; 2], flow: u64, isn: u32, options in options(), wall in 0..1_u64 << 60, later in 0..=UNIT_MS, number in 0..64_u8, hidden: u32) {
        let (key, opening) = (Key(key), Opening { flow, sequence: isn });
        let cookie = cookie::encode(key, opening, options, wall);
        prop_assert_eq!(cookie >> COOKIE_BITS, 0);
        prop_assert_eq!(cookie::decode(key, opening, cookie, options.timestamps, wall + later), Some(options));
        for bit in 0..MAC_BITS {
            prop_assert_eq!(cookie::decode(key, opening, cookie ^ 1 << bit, options.timestamps, wall + later), None);
        }
        let (site, mask) = (Site::new(number).unwrap(), Mask { code: 0, sequence: hidden });
        let acknowledgement = sequence::encode(site, cookie, mask).wrapping_add(1);
        prop_assert_eq!(sequence::cookie(acknowledgement, mask), cookie);
        prop_assert_eq!(sequence::decode(acknowledgement, mask), site);
        prop_assert!(sequence::is_initial(acknowledgement, site, mask));
        prop_assert!(!sequence::is_initial(acknowledgement.wrapping_add(1 << COOKIE_BITS), site, mask));
    }
}
