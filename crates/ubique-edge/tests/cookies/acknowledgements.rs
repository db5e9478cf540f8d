//! First acknowledgements, right and wrong. BPF_PROG_TEST_RUN is not tc ingress, where alone the kernel adopts connections: what it is
//! asked to adopt counts as refused here.

use ubique_edge::{Counter, Edge, Program};
use ubique_proto::rng::Rng;
use ubique_proto::sessions::cookie::{Options, SCALE_MAX};
use ubique_proto::sessions::{Flow, timestamp};

use crate::frame::{self, ACK, Tcp, timestamps};
use crate::setup::*;

const UNIT_MS: u64 = 1 << 16;
/// TC_ACT_UNSPEC
const NEXT: u32 = u32::MAX;

/// Of how many frames the kernel was asked to adopt the connection.
fn offered(edge: &mut Edge, frames: impl IntoIterator<Item = Vec<u8>>) -> u64 {
    let before = edge.counters().unwrap();
    for frame in frames {
        let ran = edge.run(Program::Adopt, &frame, 1).unwrap();
        assert_eq!((ran.action, &ran.packet), (NEXT, &frame));
    }
    match counted(&before, &edge.counters().unwrap())[..] {
        [] => 0,
        [(Counter::CookieRefused, count)] => count,
        ref other => panic!("{other:?}"),
    }
}

struct First {
    flow: Flow,
    isn: u32,
    options: Options,
    /// How long ago the SYN was answered.
    age_ms: u64,
}

impl First {
    fn random(rng: &mut Rng) -> First {
        let random = rng.next_u64();
        let scale = (random & 1 == 1).then_some((random >> 8) as u8 % (SCALE_MAX + 1));
        let options =
            Options { segment: (random >> 16) as u8 % 4, scale, sack: random & 2 == 2, timestamps: random & 4 == 4 };
        let flow = flow(random & 8 == 8, (random >> 20) as u16 | 1);
        First { flow, isn: (random >> 32) as u32, options, age_ms: 0 }
    }

    fn tcp(&self) -> Tcp {
        let made = wall_ms() - self.age_ms;
        let echo = timestamp::encode(made, us(), mask(&self.flow));
        let ack = acknowledged(&self.flow, self.isn, self.options, made);
        let options = if self.options.timestamps { timestamps(77, echo) } else { vec![] };
        Tcp { flags: ACK, seq: self.isn.wrapping_add(1), ack, options, payload: vec![] }
    }
}

#[test]
fn cookies_that_return_are_offered_to_the_kernel() {
    with_listeners(|| {
        let Some(mut edge) = edge(&config()) else { return };
        let mut rng = Rng::new(23);
        let frames = (0..4000).map(|n| {
            let first = First::random(&mut rng);
            let mut tcp = first.tcp();
            // Alone, or with data and FIN, as when the first was lost.
            if n % 3 == 1 {
                tcp.payload = vec![1; 700];
                tcp.flags |= 0x08;
            } else if n % 3 == 2 {
                tcp.flags |= 0x01;
            }
            frame::tcp(&first.flow, &tcp)
        });
        assert_eq!(offered(&mut edge, frames), 4000);
    });
}

#[test]
fn a_cookie_ages() {
    with_listeners(|| {
        let Some(mut edge) = edge(&config()) else { return };
        let mut rng = Rng::new(29);
        for _ in 0..200 {
            let mut first = First::random(&mut rng);
            // A moment's way from where the answer changes, so that it does not do so meanwhile.
            let into = wall_ms() % UNIT_MS;
            for (age_ms, good) in [
                (into / 2, true),
                (UNIT_MS, true),
                (into + UNIT_MS - 50, true),
                (into + UNIT_MS + 50, false),
                (3 * UNIT_MS, false),
            ] {
                first.age_ms = age_ms;
                let frame = frame::tcp(&first.flow, &first.tcp());
                assert_eq!(offered(&mut edge, [frame]), u64::from(good), "{age_ms} {into}");
            }
        }
    });
}

#[test]
fn what_is_not_a_cookie_of_ours_is_the_kernels() {
    with_listeners(|| {
        let Some(mut edge) = edge(&config()) else { return };
        let mut rng = Rng::new(31);
        const TRIES: usize = 4000;
        for wrong in WRONG {
            let frames: Vec<_> =
                (0..TRIES).map(|_| wrong(&First::random(&mut rng), rng.next_u64() as u32 | 1)).collect();
            // Each has at most one chance in 2¹⁴.
            let believed = offered(&mut edge, frames);
            assert!(believed <= 4, "{believed}");
        }
        for (flags, echo_age_ms) in [(ACK | 2, 0), (ACK | 4, 0), (0, 0), (ACK, 2 * UNIT_MS), (ACK, u64::MAX - 1000)] {
            let frames: Vec<_> = std::iter::repeat_with(|| First::random(&mut rng))
                .filter(|first| flags != ACK || first.options.timestamps)
                .map(|first| {
                    let echo = timestamp::encode(wall_ms().wrapping_sub(echo_age_ms), us(), mask(&first.flow));
                    let options = if first.options.timestamps { timestamps(77, echo) } else { vec![] };
                    frame::tcp(&first.flow, &Tcp { flags, options, ..first.tcp() })
                })
                .take(TRIES)
                .collect();
            assert_eq!(offered(&mut edge, frames), 0, "{flags} {echo_age_ms}");
        }
    });
}

/// First acknowledgements, each wrong in one thing; with a random number that is odd.
const WRONG: [fn(&First, u32) -> Vec<u8>; 5] = [
    |first, random| {
        let right = first.tcp();
        frame::tcp(&first.flow, &Tcp { seq: right.seq ^ random, ..right })
    },
    // Any number, and one whose hash alone is wrong.
    |first, random| {
        let right = first.tcp();
        frame::tcp(&first.flow, &Tcp { ack: right.ack ^ random, ..right })
    },
    |first, random| {
        let right = first.tcp();
        frame::tcp(&first.flow, &Tcp { ack: right.ack.wrapping_add(random % (1 << 14)), ..right })
    },
    |first, _| {
        let other = (first.flow.client.ip(), first.flow.client.port() ^ 2).into();
        frame::tcp(&Flow { client: other, ..first.flow }, &first.tcp())
    },
    // Timestamps that were not agreed on, or none where they were.
    |first, _| {
        let echo = timestamp::encode(wall_ms(), us(), mask(&first.flow));
        let options = if first.options.timestamps { vec![] } else { timestamps(1, echo) };
        frame::tcp(&first.flow, &Tcp { options, ..first.tcp() })
    },
];
