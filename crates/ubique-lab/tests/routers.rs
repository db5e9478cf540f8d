//! BIRD and FRR as the routers of the emulated Internet: they come up, carry packets, and choose alike.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;
#[path = "../../ubique-sys/tests/runner/mod.rs"]
mod runner;

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use ubique_lab::plan::Plan;
use ubique_lab::routers::{Backend, Candidate, RoutersError};
use ubique_lab::wire;
use ubique_lab::world::{World, WorldError, WorldOptions};
use ubique_model::internet::{Internet, Vantage};
use ubique_model::service::Service;
use ubique_model::{Asn, Prefix, Relation};

/// Until sessions are up and routing is quiet.
const CONVERGENCE: Duration = Duration::from_secs(45);
const QUIET_MS: u64 = 500;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // The world starts its wire as `PROGRAM internal wire FILE`: here the program is this one.
    if let [_, internal, part, file] = arguments.as_slice()
        && (internal.as_str(), part.as_str()) == ("internal", "wire")
    {
        return wire::run(serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()).unwrap();
    }
    runner::run(
        runner::Where::Sandbox,
        &[
            ("bird_carries_packets", bird_carries_packets),
            ("frr_carries_packets", frr_carries_packets),
            ("bird_and_frr_choose_as_planned", bird_and_frr_choose_as_planned),
            ("a_router_that_ends_is_noticed", a_router_that_ends_is_noticed),
        ],
    );
}

/// A world without sites; `None`, with a line that says why, where the backend cannot run.
fn world(backend: Backend, internet: &Internet, directory: &str) -> Option<World> {
    let service = Service { sites: vec![], ..common::service() };
    let plan = Plan::new(internet, &service).unwrap();
    let options = WorldOptions {
        executable: std::env::current_exe().unwrap(),
        service_file: "/dev/null".into(),
        service_directory: "/dev".into(),
        backend,
        seed: 1,
        directory: directory.into(),
        holding: Default::default(),
        zone: "example.test".into(),
    };
    match World::start(plan, &service, options) {
        Ok(world) => Some(world),
        Err(WorldError::Routers(error @ (RoutersError::Missing { .. } | RoutersError::Unsupported { .. }))) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Waits until every session is up and nothing changes any more.
fn converge(world: &mut World) {
    let start = Instant::now();
    loop {
        let status = world.routing().unwrap();
        let exits = world.exits();
        assert!(exits.is_empty(), "{exits:?}");
        if status.established == status.sessions && status.quiet_ms >= QUIET_MS {
            let frames = world.wire_counters().unwrap();
            eprintln!("converged after {:?}: {status:?}, {frames:?}", start.elapsed());
            return;
        }
        assert!(start.elapsed() < CONVERGENCE, "{status:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn carries_packets(backend: Backend) {
    let Some(mut world) = world(backend, &common::internet(), "/run/ubique") else {
        return;
    };
    converge(&mut world);
    let plan = world.plan().clone();
    let [london, paris] = plan.vantages.as_slice() else { panic!("two vantage points") };
    for (from, to) in [(IpAddr::V4(london.ipv4), IpAddr::V4(paris.ipv4)), (london.ipv6.into(), paris.ipv6.into())] {
        let prefix = plan.network(paris.asn).unwrap().originate.iter().find(|p| p.contains(&to)).copied().unwrap();
        let candidates = world.candidates(london.asn, prefix).unwrap();
        assert_eq!(candidates.len(), 1, "{candidates:?}");
        assert_eq!(candidates[0].as_path, [Asn(100), Asn(200), Asn(400)]);
        assert_eq!((candidates[0].peer_asn, candidates[0].local_pref, candidates[0].best), (Some(Asn(100)), 100, true));
        let own = world.candidates(paris.asn, prefix).unwrap();
        assert_eq!((own[0].peer_asn, own[0].best), (None, true), "{own:?}");
        let bind = |netns: &str, address| {
            let socket = world.built().namespace(netns).unwrap().run(|| UdpSocket::bind((address, 0)));
            let socket = socket.unwrap().unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket
        };
        let (a, b) = (bind(&london.netns, from), bind(&paris.netns, to));
        let start = Instant::now();
        a.send_to(b"ping", b.local_addr().unwrap()).unwrap();
        let (_, back) = b.recv_from(&mut [0; 16]).unwrap();
        b.send_to(b"pong", back).unwrap();
        a.recv(&mut [0; 16]).unwrap();
        // 3 + 5 + 2 ms, there and back.
        assert!(start.elapsed() >= Duration::from_millis(20), "{:?}", start.elapsed());
    }
}

fn bird_carries_packets() {
    carries_packets(Backend::Bird);
}

fn frr_carries_packets() {
    carries_packets(Backend::Frr);
}

/// Two customers with two providers each, and peers beside them: ties and valleys.
fn meshed() -> Internet {
    let mut internet = common::internet();
    for asn in [500, 600, 700] {
        internet.networks.push(common::network(asn, common::london()));
        internet.vantages.push(Vantage { name: format!("c{asn}"), asn: Asn(asn), location: common::london() });
    }
    internet.links.extend([
        common::link(200, 500, Relation::Customer, 1),
        common::link(100, 500, Relation::Customer, 1),
        common::link(100, 600, Relation::Customer, 2),
        common::link(200, 600, Relation::Customer, 1),
        common::link(500, 600, Relation::Peer, 1),
        common::link(600, 700, Relation::Customer, 1),
        common::link(500, 700, Relation::Customer, 1),
        common::link(300, 400, Relation::Peer, 1),
        common::link(500, 700, Relation::Customer, 4),
    ]);
    internet
}

/// All candidates of all networks for all prefixes, worst to best equal.
fn tables(world: &mut World) -> Vec<(Asn, Prefix, Vec<Candidate>)> {
    let plan = world.plan().clone();
    let prefixes: Vec<Prefix> = plan.networks.iter().flat_map(|n| n.originate.clone()).collect();
    let mut tables = Vec::new();
    for network in &plan.networks {
        for &prefix in &prefixes {
            let mut candidates = world.candidates(network.asn, prefix).unwrap();
            // Own routes have no local preference that means anything.
            candidates.iter_mut().filter(|c| c.peer_asn.is_none()).for_each(|c| c.local_pref = 0);
            candidates.sort_by_key(|c| (!c.best, c.peer_address));
            tables.push((network.asn, prefix, candidates));
        }
    }
    tables
}

fn bird_and_frr_choose_as_planned() {
    let mut results = Vec::new();
    for backend in [Backend::Bird, Backend::Frr] {
        let directory = format!("/run/ubique-{backend}");
        let Some(mut world) = world(backend, &meshed(), &directory) else {
            continue;
        };
        converge(&mut world);
        let tables = tables(&mut world);
        let ties = |step: &str| {
            tables.iter().any(|t| t.2.iter().any(|c| c.step.as_ref().is_some_and(|s| s.starts_with(step))))
        };
        for step in ["local preference", "AS path", "router id", "neighbour address"] {
            assert!(ties(step), "{backend}: no decision by {step}");
        }
        // What loses by a step of our decision process is what the router did not choose.
        for candidate in tables.iter().flat_map(|t| &t.2).filter(|c| !c.best) {
            let step = candidate.step.as_deref().unwrap();
            let told_by_winner =
                step.starts_with("own") || step.contains(" < ") || step.contains(" > ") && step.starts_with("local");
            assert!(told_by_winner, "{backend}: {candidate:?}");
        }
        results.push((backend, tables));
    }
    if let [(_, bird), (_, frr)] = results.as_slice() {
        for (a, b) in bird.iter().zip(frr) {
            assert_eq!(a, b);
        }
    }
}

fn a_router_that_ends_is_noticed() {
    let Some(mut world) = world(Backend::Bird, &common::internet(), "/run/ubique") else {
        return;
    };
    assert!(world.exits().is_empty());
    let namespace = world.built().namespace("as300").unwrap();
    let [pid] = ubique_sys::process::members_of_netns(namespace).unwrap()[..] else {
        panic!("one BIRD");
    };
    let process = ubique_sys::process::PidFd::open(pid).unwrap();
    process.signal(ubique_sys::process::Signal::Kill).unwrap();
    let start = Instant::now();
    let exits = loop {
        let exits = world.exits();
        if !exits.is_empty() || start.elapsed() > CONVERGENCE {
            break exits;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(exits.len(), 1);
    assert!(exits[0].name.contains("AS300") && exits[0].status.contains('9'), "{exits:?}");
    assert!(world.exits().is_empty(), "told once");
}
