//! What a successor finds of a program that runs.

use ubique_edge::{Config, Counter, Edge, Former, Program, Tier, is_ours};

use crate::frame::{self, SYN, Tcp};
use crate::setup::*;

fn syn() -> Vec<u8> {
    frame::tcp(&flow(false, 40_000, 443), &Tcp { flags: SYN, ..Tcp::default() })
}

#[test]
fn a_successor_goes_on_with_clock_and_counters() {
    let Some(mut first) = edge(Tier::Timestamps) else { return };
    let number = first.program_number().unwrap();
    for _ in 0..3 {
        first.run(Program::Ingress, &syn(), 1).unwrap();
    }
    assert_eq!(is_ours(number), Some(true));
    let former = Former::of(number).unwrap();
    assert_eq!(former.clock_base_ms(), config(Tier::Off).clock_base_ms);
    // With another configuration: only what lasts is taken over.
    let other = Config { quic_ports: vec![4433], ..config(Tier::Timestamps) };
    let mut next = Edge::load_after(&other, &former).unwrap();
    assert_ne!(next.program_number().unwrap(), number);
    assert_eq!(next.counters().unwrap()[Counter::Syn], 3);
    next.run(Program::Ingress, &syn(), 1).unwrap();
    // One set of counters, whoever counts.
    assert_eq!(first.counters().unwrap()[Counter::Syn], 4);
    drop(first);
    assert_eq!(next.counters().unwrap()[Counter::Syn], 4);
    assert!(Former::of(u32::MAX).is_none(), "no such program");
}
