//! Round trips of one octet, one by one over each network in turn, so that whatever slows the machine down slows all of them down.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use crate::labs::{Kind, Labs};
use crate::net::Family;

const ROUNDS: usize = 15_000;
/// Before it counts.
const WARM_UP: usize = 500;
/// What may be added, µs.
const GOAL_US: f64 = 5.0;

fn round_trip_us(stream: &mut TcpStream) -> f64 {
    let begin = Instant::now();
    stream.write_all(b"?").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    begin.elapsed().as_nanos() as f64 / 1e3
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One for each family and tier: a packet of ours, and one that goes on to another site, each against no program at all.
pub fn rows(labs: &Labs) {
    for family in Family::BOTH {
        let mut lines = vec![
            ("nothing", labs.of(Kind::Nothing).connect(family, 0)),
            ("pass", labs.of(Kind::Pass).connect(family, 0)),
        ];
        for kind in Kind::OURS {
            lines.push((kind.word(), labs.of(kind).connect(family, 0)));
            lines.push((kind.word(), labs.of(kind).connect(family, 1)));
        }
        let mut took: Vec<Vec<f64>> = vec![Vec::new(); lines.len()];
        for round in 0..WARM_UP + ROUNDS {
            for at in 0..lines.len() {
                let line = (at + round) % lines.len();
                let us = round_trip_us(&mut lines[line].1);
                if round >= WARM_UP {
                    took[line].push(us);
                }
            }
        }
        let added = |line: usize, to: usize| {
            median(took[line].iter().zip(&took[to]).map(|(with, without)| with - without).collect())
        };
        eprintln!(
            "{family:?}: a round trip takes {:.1} µs (median); XDP programs that do nothing add {:.1}",
            median(took[0].clone()),
            added(1, 0)
        );
        for line in (2..lines.len()).step_by(2) {
            let (tier, local, forwarded) = (lines[line].0, added(line, 0), added(line + 1, line));
            eprintln!("{family:?}, {tier}: {:.1} µs more than with these", added(line, 1));
            println!(
                "round trip longer than without programs, median: {tier}, {family:?}\t{local:.2}\t{GOAL_US}\t\tµs"
            );
            println!("round trip by way of another site longer: {tier}, {family:?}\t{forwarded:.2}\t{GOAL_US}\t\tµs");
        }
    }
}
