//! Fourth rung: speakers on one virtual clock. Every run is a function of its seed, which a failure names.

use std::time::Duration;

use ubique_model::Relation;

use super::fixture::{announcement, config, peer, prefix};
use super::net::{Fed, Net};
use crate::bgp::session::State;
use crate::bgp::speaker::{Delivery, In, PeerId, Speaker, SpeakerConfig};
use crate::rng::Rng;
use crate::time::Time;

const PEER: PeerId = PeerId(0);
const SEEDS: u64 = 300;

/// Latency and configurations of a run.
fn setup(rng: &mut Rng) -> (Duration, Vec<SpeakerConfig>) {
    let latency = Duration::from_micros(100 + rng.below(150_000));
    let configs = vec![
        config(1, rng.next_u64(), vec![peer(2, Relation::Peer)]),
        config(2, rng.next_u64(), vec![peer(1, Relation::Peer)]),
    ];
    (latency, configs)
}

fn pair(seed: u64) -> Net {
    let mut rng = Rng::new(seed);
    let (latency, configs) = setup(&mut rng);
    Net::new(rng.next_u64(), latency, configs)
}

fn all_established(net: &Net) -> bool {
    net.nodes.iter().all(|n| n.speaker.peers().all(|p| p.state == State::Established))
}

/// What is announced on one side is what the other side holds, and each side knows it.
fn assert_identical(net: &Net, context: &str) {
    for (here, there) in [(0, 1), (1, 0)] {
        let announced: Vec<_> = net.nodes[here].speaker.announced(PEER).collect();
        assert!(announced.iter().all(|(_, d)| *d == Delivery::Acknowledged), "{context}: {announced:?}");
        let announced: Vec<_> = announced.into_iter().map(|(prefix, _)| prefix).collect();
        let received: Vec<_> = net.nodes[there].speaker.rib().received(PEER, None).map(|r| r.prefix).collect();
        assert_eq!(announced, received, "{context}: {here} to {there}");
        assert_eq!(net.nodes[here].speaker.withdrawal_pending(PEER).count(), 0, "{context}");
    }
}

fn random_announcement(rng: &mut Rng) -> In {
    let text = format!("10.{}.0.0/16", 100 + rng.below(20));
    if rng.below(3) == 0 {
        In::Withdraw { peer: PEER, prefix: prefix(&text) }
    } else {
        let mut announcement = announcement(&text);
        announcement.med = (rng.below(2) == 0).then_some(rng.below(5) as u32);
        In::Announce { peer: PEER, announcement }
    }
}

/// Both ends call each other, at the same moment or one after the other.
#[test]
fn sessions_come_up() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let mut net = pair(seed);
        let first = rng.below(2) as usize;
        net.start(first);
        if rng.below(3) > 0 {
            net.run(Duration::from_millis(rng.below(1500)));
        }
        net.start(1 - first);
        net.run(Duration::from_secs(2));
        assert!(all_established(&net), "seed {seed}: not up 2 s after both run");
    }
}

/// Announcements change while connections are reset; then all is quiet, and both sides must agree.
#[test]
fn converges_after_faults() {
    for seed in 0..SEEDS {
        let net = faulty(seed);
        assert!(all_established(&net), "seed {seed}");
        assert_identical(&net, &format!("seed {seed}"));
    }
}

fn faulty(seed: u64) -> Net {
    let mut rng = Rng::new(seed ^ 0xFA17);
    let mut net = pair(seed);
    net.start(0);
    net.start(1);
    for _ in 0..60 {
        net.run(Duration::from_millis(rng.below(400)));
        match rng.below(10) {
            0 => net.reset_one(),
            1 => {
                let peer = PEER;
                let node = rng.below(2) as usize;
                let input = if net.nodes[node].speaker.peers().all(|p| p.enabled) {
                    In::StopPeer { peer, subcode: 4, message: "maintenance".to_owned() }
                } else {
                    In::StartPeer(peer)
                };
                net.input(node, input);
            }
            2 => net.input(rng.below(2) as usize, In::RequestRefresh { peer: PEER }),
            _ => {
                let input = random_announcement(&mut rng);
                net.input(rng.below(2) as usize, input);
            }
        }
    }
    for node in 0..2 {
        net.input(node, In::StartPeer(PEER));
    }
    net.run(Duration::from_secs(90));
    net
}

/// The same seed gives the same run, to the byte; and a recording of inputs, through JSON, gives the same outputs.
#[test]
fn runs_and_recordings_repeat() {
    for seed in 0..20 {
        let (first, second) = (faulty(seed), faulty(seed));
        for (a, b) in first.nodes.iter().zip(&second.nodes) {
            assert_eq!(a.outputs, b.outputs, "seed {seed}");
        }
        for (index, node) in first.nodes.iter().enumerate() {
            let recording = serde_json::to_string(&node.fed).expect("inputs can be written");
            let recording: Vec<(Time, Fed)> = serde_json::from_str(&recording).expect("and read");
            assert_eq!(recording, node.fed);
            let mut speaker = Speaker::new(setup(&mut Rng::new(seed)).1.swap_remove(index));
            let mut outputs = vec![];
            for (now, fed) in recording {
                match fed {
                    Fed::Input(input) => speaker.handle_input(now, input),
                    Fed::Deadline => speaker.handle_deadline(now),
                }
                outputs.extend(super::fixture::drain(&mut speaker));
            }
            assert_eq!(outputs, node.outputs, "seed {seed}, speaker {index}");
        }
    }
}

/// A line of routers 1 – 2 – 3: what 1 originates reaches 3 through 2, whatever happens to connections on the way.
#[test]
fn a_route_crosses_a_line() {
    for seed in 0..SEEDS / 3 {
        let mut rng = Rng::new(seed);
        let latency = Duration::from_micros(100 + rng.below(50_000));
        let configs = vec![
            config(1, rng.next_u64(), vec![peer(2, Relation::Transit)]),
            config(2, rng.next_u64(), vec![peer(1, Relation::Customer), peer(3, Relation::Peer)]),
            config(3, rng.next_u64(), vec![peer(2, Relation::Peer)]),
        ];
        let mut net = Net::new(rng.next_u64(), latency, configs);
        for node in 0..3 {
            net.start(node);
        }
        net.input(0, In::Originate { prefix: prefix("203.0.113.0/24") });
        for _ in 0..5 {
            net.run(Duration::from_millis(rng.below(3000)));
            net.reset_one();
        }
        net.run(Duration::from_secs(60));
        assert!(all_established(&net), "seed {seed}");
        let routes = net.nodes[2].speaker.routes(prefix("203.0.113.0/24"));
        let paths: Vec<String> = routes.iter().map(|r| r.attributes.as_path.to_string()).collect();
        assert_eq!(paths, ["64502 64501"], "seed {seed}");

        // Withdrawn at the source by the loss of its session, for everyone.
        net.input(1, In::StopPeer { peer: PeerId(0), subcode: 2, message: String::new() });
        net.run(latency * 3);
        assert!(net.nodes[2].speaker.routes(prefix("203.0.113.0/24")).is_empty(), "seed {seed}");
    }
}
