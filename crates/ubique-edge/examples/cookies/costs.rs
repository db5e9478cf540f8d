//! What one packet costs, ns, net of a program that does nothing (BPF_PROG_TEST_RUN).

use std::time::Duration;

use ubique_edge::{Edge, Program};
use ubique_proto::sessions::Flow;
use ubique_proto::sessions::cookie::Options;

use crate::frame::{self, ACK, SYN, Tcp, timestamps};
use crate::setup::*;

const REPEAT: u32 = 1_000_000;
const ROUNDS: usize = 7;
/// An answer can only be run once on a frame: it is no SYN afterwards.
const SINGLE: usize = 20_000;

/// The least of some rounds: what disturbs only adds.
fn least(edge: &mut Edge, program: Program, frame: &[u8]) -> f64 {
    let rounds = (0..ROUNDS).map(|_| edge.run(program, frame, REPEAT).unwrap().duration.as_nanos() as f64);
    rounds.fold(f64::INFINITY, f64::min)
}

/// The median of many single runs.
fn single(edge: &mut Edge, program: Program, frame: &[u8]) -> f64 {
    let mut runs: Vec<Duration> = (0..SINGLE).map(|_| edge.run(program, frame, 1).unwrap().duration).collect();
    runs.sort();
    runs[SINGLE / 2].as_nanos() as f64
}

fn rows(edge: &mut Edge, v6: bool) {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let row = |what: &str, ns: f64| println!("{what}, {family}\t{ns:.1}\t\t");
    let flow = flow(v6, 40_000);
    let options = vec![2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];
    let syn = frame::tcp(&flow, &Tcp { flags: SYN, seq: 77, ack: 0, options: options.clone(), payload: vec![] });
    let nothing = single(edge, Program::Pass, &syn);
    row("SYN answered, one by one", single(edge, Program::Ingress, &syn) - nothing);
    let closed = Flow { service: (flow.service.ip(), PORT + 1).into(), ..flow };
    let refused = frame::tcp(&closed, &Tcp { flags: SYN, seq: 77, ack: 0, options: options.clone(), payload: vec![] });
    let empty = least(edge, Program::Pass, &refused);
    row("SYN to no listener", least(edge, Program::Ingress, &refused) - empty);
    row("SYN to no listener, one by one", single(edge, Program::Ingress, &refused) - nothing);
    let agreed = Options { segment: 3, scale: Some(7), sack: true, timestamps: true };
    let ack = acknowledged(&flow, 77, agreed, wall_ms());
    let echo = ubique_proto::sessions::timestamp::encode(wall_ms(), us(), mask(&flow));
    let acknowledgement = |seq, ack| {
        let tcp = Tcp { flags: ACK, seq, ack, options: timestamps(1, echo), payload: vec![] };
        frame::tcp(&flow, &tcp)
    };
    let mut other = acknowledgement(78, ack);
    // Not IP: what every frame costs.
    other[12] = 0x88;
    let floor = least(edge, Program::Adopt, &other);
    row(
        "acknowledgement, established, more than 4 MiB sent",
        least(edge, Program::Adopt, &acknowledgement(78, ack.wrapping_add(1 << 23))) - floor,
    );
    row(
        "acknowledgement, established, less",
        least(edge, Program::Adopt, &acknowledgement(5000, ack.wrapping_add(5000))) - floor,
    );
    row("first acknowledgement, up to the kernel", least(edge, Program::Adopt, &acknowledgement(78, ack)) - floor);
    eprintln!("(floor of tc programs, {family}: {floor:.0} ns)");
}

/// Prints what each kind of packet costs.
pub fn main() {
    with_listeners(|| {
        let Some(mut edge) = edge(&config()) else { return };
        for v6 in [false, true] {
            rows(&mut edge, v6);
        }
    });
}
