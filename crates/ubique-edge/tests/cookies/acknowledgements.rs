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

/// Whether the kernel was asked to adopt the connection.
fn is_offered(edge: &mut Edge, frame: &[u8]) -> bool {
    let before = edge.counters().unwrap();
    let ran = edge.run(Program::Adopt, frame, 1).unwrap();
    assert_eq!((ran.action, &ran.packet[..]), (NEXT, frame));
    match counted(&before, &edge.counters().unwrap())[..] {
        [] => false,
        [(Counter::CookieRefused, 1)] => true,
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
        for n in 0..4000 {
            let first = First::random(&mut rng);
            let mut tcp = first.tcp();
            // Alone, or with data and FIN, as when the first was lost.
            if n % 3 == 1 {
                tcp.payload = vec![1; 700];
                tcp.flags |= 0x08;
            } else if n % 3 == 2 {
                tcp.flags |= 0x01;
            }
            assert!(is_offered(&mut edge, &frame::tcp(&first.flow, &tcp)), "{:?}", first.options);
        }
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
                assert_eq!(is_offered(&mut edge, &frame::tcp(&first.flow, &first.tcp())), good, "{age_ms} {into}");
            }
        }
    });
}

#[test]
fn what_is_not_a_cookie_of_ours_is_the_kernels() {
    with_listeners(|| {
        let Some(mut edge) = edge(&config()) else { return };
        let mut rng = Rng::new(31);
        let mut believed = [0; 5];
        const TRIES: u32 = 4000;
        for _ in 0..TRIES {
            let first = First::random(&mut rng);
            let random = rng.next_u64() as u32 | 1;
            let other = Flow { client: (first.flow.client.ip(), first.flow.client.port() ^ 2).into(), ..first.flow };
            let mut offered = |flow: &Flow, tcp: &Tcp| u32::from(is_offered(&mut edge, &frame::tcp(flow, tcp)));
            let right = first.tcp();
            believed[0] += offered(&first.flow, &Tcp { seq: right.seq ^ random, ..first.tcp() });
            // Any number, and one whose hash alone is wrong.
            believed[1] += offered(&first.flow, &Tcp { ack: right.ack ^ random, ..first.tcp() });
            believed[2] +=
                offered(&first.flow, &Tcp { ack: right.ack.wrapping_add(random % (1 << 14)), ..first.tcp() });
            believed[3] += offered(&other, &first.tcp());
            // Timestamps that were not agreed on, or none where they were.
            let options = if first.options.timestamps {
                vec![]
            } else {
                timestamps(1, timestamp::encode(wall_ms(), us(), mask(&first.flow)))
            };
            believed[4] += offered(&first.flow, &Tcp { options, ..first.tcp() });
            // Never.
            for (flags, echo_age) in [(ACK | 2, 0), (ACK | 4, 0), (0, 0), (ACK, 2 * UNIT_MS + 1000), (ACK, u64::MAX)] {
                let options = match first.options.timestamps {
                    true => timestamps(
                        77,
                        timestamp::encode(wall_ms().wrapping_sub(echo_age).wrapping_add(1000), us(), mask(&first.flow)),
                    ),
                    false if flags == ACK => continue,
                    false => vec![],
                };
                assert_eq!(offered(&first.flow, &Tcp { flags, options, ..first.tcp() }), 0, "{flags} {echo_age}");
            }
        }
        // Each has at most one chance in 2¹⁴.
        assert!(believed.iter().all(|count| *count <= 4), "{believed:?}");
    });
}
