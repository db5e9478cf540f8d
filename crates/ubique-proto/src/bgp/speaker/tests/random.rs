//! Third rung: random inputs under audit. A failure names its seed.

use super::drive::{Play, Seen, any, any_edge};
use crate::bgp::speaker::SpeakerConfig;
use crate::journal::Sink;
use crate::rng::Rng;

const SEEDS: u64 = 400;
const STEPS: usize = 300;

/// Nothing is written down.
struct NoSink;

impl Sink for NoSink {
    fn write(&self, _segment: u64, _record: Vec<u8>) -> bool {
        false
    }

    fn segment(&self) -> Option<u64> {
        None
    }

    fn full_outputs(&self) -> bool {
        false
    }

    fn snapshot_max(&self) -> usize {
        0
    }
}

fn play(configure: fn(&mut Rng) -> SpeakerConfig) -> Seen {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut rng = Rng::new(seed);
            let config = configure(&mut rng);
            let mut play = Play::<NoSink>::new(config, rng, None, usize::MAX);
            (0..STEPS).for_each(|_| play.step());
            play.seen
        });
        let Ok(run) = run else { panic!("seed {seed}") };
        seen.up += run.up;
        seen.lost += run.lost;
        seen.collisions += run.collisions;
    }
    eprintln!("{} sessions, {} lost, {} collisions", seen.up, seen.lost, seen.collisions);
    seen
}

#[test]
fn invariants_hold_for_random_inputs() {
    let seen = play(any);
    assert!(seen.up > 500 && seen.lost > 100 && seen.collisions > 100);
}

#[test]
fn an_edge_announces_its_own_and_nothing_else_for_random_inputs() {
    let seen = play(any_edge);
    assert!(seen.up > 500 && seen.lost > 100 && seen.collisions > 100);
}
