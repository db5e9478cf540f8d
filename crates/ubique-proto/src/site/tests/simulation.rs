//! A day in the life of an agent, a thousand times: health, site, guards, flap control and the speaker's exports together,
//! under random faults on virtual time. Everything follows from the seed, which is printed.
//!
//! What must hold at every step:
//! - Announced although the service is bad: for at most `fall` × `every` + `timeout`, or as last resort.
//! - A last resort: nobody else was seen when it began to speak, or the upstream is one that moves.
//! - The flap budget: no announcement and no change for the better without room for one more withdrawal.
//! - The order: addresses, an answer on them, announce; withdraw, drain, remove. Load withdraws nothing.
//! - What other networks announce is never exported, nor anything else that is not the service's.
//! - And the other way round: a service that is well for a while is announced, unless the budget says when.

mod faults;
mod setup;
mod world;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use self::world::World;
use super::*;

/// Seeds played by each run of the tests.
const SEEDS: u64 = 1000;

/// A day.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What has been seen over all seeds: a simulation in which nothing happens proves nothing.
#[derive(Default)]
struct Tally {
    withdrawals: AtomicU64,
    resorts: AtomicU64,
    held: AtomicU64,
    shed: AtomicU64,
    crashes: AtomicU64,
    foreign: AtomicU64,
}

impl Tally {
    fn add(&self, other: &world::Counts) {
        self.withdrawals.fetch_add(other.withdrawals, Relaxed);
        self.resorts.fetch_add(other.resorts, Relaxed);
        self.held.fetch_add(other.held, Relaxed);
        self.shed.fetch_add(other.shed, Relaxed);
        self.crashes.fetch_add(other.crashes, Relaxed);
        self.foreign.fetch_add(other.foreign, Relaxed);
    }
}

/// Plays the seed; panics with it when an invariant breaks.
fn play(seed: u64, length: Duration) -> world::Counts {
    let mut world = World::new(seed);
    world.run(Time::ZERO + length);
    world.counts
}

#[test]
fn a_thousand_days_of_faults_break_nothing() {
    // One seed, to look at: UBIQUE_SEED=17 cargo test -p ubique-proto a_thousand_days
    if let Some(seed) = std::env::var("UBIQUE_SEED").ok().and_then(|s| s.parse().ok()) {
        play(seed, DAY);
        return;
    }
    let (next, tally) = (AtomicU64::new(0), Tally::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    tally.add(&play(seed, DAY));
                }
            });
        }
    });
    let counts = [
        ("withdrawals", tally.withdrawals.load(Relaxed), 20_000),
        ("last resorts", tally.resorts.load(Relaxed), 500),
        ("held back", tally.held.load(Relaxed), 500),
        ("steps of shedding", tally.shed.load(Relaxed), 1000),
        ("crashes", tally.crashes.load(Relaxed), 1000),
        ("foreign routes heard", tally.foreign.load(Relaxed), 1000),
    ];
    for (what, count, least) in counts {
        println!("{what}: {count}");
        assert!(count >= least, "only {count} {what} in {SEEDS} days");
    }
}

#[test]
fn a_seed_is_a_life() {
    let life = |seed| {
        let mut world = World::new(seed);
        world.log = Some(String::new());
        world.run(Time::ZERO + Duration::from_secs(6 * 3600));
        world.log.unwrap()
    };
    for seed in 0..3 {
        let log = life(seed);
        assert!(log.lines().count() > 10, "{log}");
        assert_eq!(log, life(seed), "seed {seed}");
    }
}
