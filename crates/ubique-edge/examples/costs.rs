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
    use ubique_edge::{Config, Counter, Edge, Program, Tier};
    use ubique_proto::sessions::{Flow, connection_id, timestamp};

    use crate::frame::{self, Tcp, timestamps};
    use crate::setup::{KEYS, ROTATION, UP_V4, UP_V6, US, config, flow, mask, site, wall_ms};

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

    /// A row: name, ns, the goal and the same with a table of flows instead, if any.
    fn row(name: &str, ns: f64, goal: Option<f64>, peer: Option<f64>) {
        let optional = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.1}"));
        println!("{name}\t{ns:.1}\t{}\t{}", optional(goal), optional(peer));
    }

    pub fn main() {
        for (family, v6) in [("IPv4", false), ("IPv6", true)] {
            let flow = flow(v6, 40001, 443);
            for (tier, name, goal) in [(Tier::Cookies, "cookies", 45.0), (Tier::Timestamps, "timestamps", 60.0)] {
                let config = still(tier, &flow);
                let Some(mut edge) = crate::setup::edge_for_measurement(&config) else { std::process::exit(3) };
                costs_of(&mut edge, &config, &flow, &format!("{name}, {family}"), goal);
            }
        }
    }

    fn costs_of(edge: &mut Edge, config: &Config, flow: &Flow, what: &str, goal: f64) {
        const XDP_PASS: u32 = 2;
        const XDP_TX: u32 = 3;
        let empty = least(edge, Program::Pass, &[0; 64], XDP_PASS);
        // The program that is measured makes room and takes it away again; a real one makes room only.
        let undo = (least(edge, Program::Undo, &[0; 128], XDP_PASS) - empty) / 2.0;
        let segment = |number| {
            let echo = timestamp::encode(wall(config), site(number), mask(flow));
            frame::tcp(flow, &Tcp { options: timestamps(1, echo), payload: vec![0; 64], ..Tcp::default() })
        };
        let local = least(edge, Program::Ingress, &segment(US), XDP_PASS);
        let all = u64::from(REPEAT) * ROUNDS as u64;
        assert!(edge.counters().unwrap()[Counter::LocalTimestamp] >= all, "packets are not ours");
        row(&format!("TCP packet of ours: {what}"), local - empty, Some(goal), None);
        let [forward, over_v6] = [UP_V4, UP_V6].map(|to| least(edge, Program::Forward, &segment(to), XDP_TX));
        assert!(edge.counters().unwrap()[Counter::ForwardTimestamp] >= 2 * all, "packets are not another site's");
        // The owner as a table of flows says it, which a site that never saw the connection does not have.
        edge.remember(flow, site(UP_V4)).unwrap();
        let bare = frame::tcp(flow, &Tcp { payload: vec![0; 76], ..Tcp::default() });
        let table = least(edge, Program::Forward, &bare, XDP_TX);
        let net = |whole: f64| whole - empty - undo;
        row(
            &format!("TCP packet forwarded (peer: by a flow table): {what}"),
            net(forward),
            Some(60.0),
            Some(net(table)),
        );
        row(&format!("TCP packet forwarded over IPv6: {what}"), net(over_v6), Some(60.0), None);
        let id = |number| connection_id::Config::new(ROTATION, KEYS[3]).unwrap().encode(site(number), [1; 7]);
        let quic = |number| frame::udp(flow, &[&[0x40], &id(number)[..], &[0; 64]].concat());
        row(
            &format!("QUIC packet of ours: {what}"),
            least(edge, Program::Ingress, &quic(US), XDP_PASS) - empty,
            None,
            None,
        );
        let forward = least(edge, Program::Forward, &quic(UP_V4), XDP_TX);
        assert!(edge.counters().unwrap()[Counter::ForwardId] >= all, "packets are not another site's");
        row(&format!("QUIC packet forwarded: {what}"), net(forward), Some(60.0), None);
    }
}
