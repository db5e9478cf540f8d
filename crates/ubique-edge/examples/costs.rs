//! What a packet costs, ns: BPF_PROG_TEST_RUN net of a program that does nothing. `cargo xtask bench sessions` runs it.

#![allow(clippy::unwrap_used, reason = "a measurement that fails says where")]

#[cfg(data_plane)]
#[path = "../tests/vectors/frame.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod frame;
#[cfg(data_plane)]
#[path = "../tests/vectors/setup.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod setup;

#[cfg(not(data_plane))]
fn main() {
    eprintln!("data plane: unavailable: built without the feature bpf, or where there was no clang");
    std::process::exit(3);
}

#[cfg(data_plane)]
fn main() {
    measure::main();
}

#[cfg(data_plane)]
mod measure {
    use ubique_edge::{Config, Edge, Program, Tier};
    use ubique_proto::sessions::{Flow, connection_id, timestamp};

    use crate::frame::{self, Tcp, timestamps};
    use crate::setup::{KEYS, ROTATION, UP_V4, US, config, flow, mask, site, wall_ms};

    const REPEAT: u32 = 2_000_000;
    const ROUNDS: usize = 7;

    /// The least of some rounds, ns: what disturbs only adds.
    fn least(edge: &mut Edge, program: Program, frame: &[u8], action: u32) -> f64 {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let run = edge.run(program, frame, REPEAT).unwrap();
            assert_eq!(run.action, action, "the packet is not what it was");
            rounds.push(run.duration.as_nanos() as f64);
        }
        rounds.into_iter().fold(f64::INFINITY, f64::min)
    }

    /// A clock by which timestamps of this connection need no change: repeating the rewrite does nothing to the packet.
    fn still(tier: Tier, flow: &Flow) -> Config {
        let code = timestamp::encode(0, site(US), mask(flow));
        let base = (config(tier).clock_base_ms & !0xffff_ffff) + u64::from(code.wrapping_neg());
        Config { clock_base_ms: base, ..config(tier) }
    }

    fn wall(config: &Config) -> u64 {
        wall_ms() - crate::setup::config(Tier::Off).clock_base_ms + config.clock_base_ms
    }

    pub fn main() {
        const XDP_PASS: u32 = 2;
        const XDP_TX: u32 = 3;
        let row = |name: &str, ns: f64, goal: &str| println!("{name}\t{ns:.0}\t{goal}");
        for (family, v6) in [("IPv4", false), ("IPv6", true)] {
            let flow = flow(v6, 40001, 443);
            for (tier, name, goal) in [(Tier::Cookies, "tier 1", "45"), (Tier::Timestamps, "tier 2", "60")] {
                let config = still(tier, &flow);
                let Some(mut edge) = crate::setup::edge_for_measurement(&config) else { return };
                let empty = least(&mut edge, Program::Pass, &[0; 64], XDP_PASS);
                let undo = least(&mut edge, Program::Undo, &[0; 128], XDP_PASS);
                let segment = |number| {
                    let echo = timestamp::encode(wall(&config), site(number), mask(&flow));
                    frame::tcp(&flow, &Tcp { options: timestamps(1, echo), payload: vec![0; 64], ..Tcp::default() })
                };
                let local = least(&mut edge, Program::Ingress, &segment(US), XDP_PASS);
                row(&format!("local, {name}, {family}"), local - empty, goal);
                let forward = least(&mut edge, Program::Forward, &segment(UP_V4), XDP_TX);
                row(&format!("forwarded, {name}, {family}"), forward - empty, "60");
                row(&format!("forwarded, {name}, {family}, without undoing it"), forward - undo, "60");
                if tier == Tier::Timestamps {
                    let reply = Tcp { options: timestamps(1, 2), payload: vec![0; 64], ..Tcp::default() };
                    let out = least(&mut edge, Program::Egress, &frame::reply(&flow, &reply), u32::MAX);
                    row(&format!("leaving, {name}, {family}"), out - empty, "");
                }
                let id = connection_id::Config::new(ROTATION, KEYS[3]).unwrap().encode(site(US), [1; 7]);
                let quic = frame::udp(&flow, &[&[0x40], &id[..], &[0; 64]].concat());
                row(&format!("QUIC, local, {family}"), least(&mut edge, Program::Ingress, &quic, XDP_PASS) - empty, "");
            }
        }
    }
}
