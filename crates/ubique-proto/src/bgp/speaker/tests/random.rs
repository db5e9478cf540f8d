//! Third rung: random inputs under audit. A failure names its seed.

use std::time::Duration;

use ubique_model::{Family, Relation};

use super::audit::Audit;
use super::fixture::*;
use crate::bgp::message::Notification;
use crate::bgp::speaker::{ConnId, In, Order, Out, PeerConfig, PeerId, SessionEvent, Speaker};
use crate::bgp::wire;
use crate::rng::Rng;
use crate::time::Time;

const SEEDS: u64 = 400;
const STEPS: usize = 300;

struct Play {
    speaker: Speaker,
    audit: Audit,
    rng: Rng,
    now: Time,
    next_conn: u64,
    seen: Seen,
}

/// How often something happened, so that a test that never gets anywhere fails.
#[derive(Default)]
struct Seen {
    up: usize,
    lost: usize,
    collisions: usize,
}

impl Play {
    fn new(seed: u64) -> Play {
        Play {
            speaker: Speaker::new(config(1, seed, peers())),
            audit: Audit::default(),
            rng: Rng::new(seed),
            now: Time(1_000_000_000),
            next_conn: 0,
            seen: Seen::default(),
        }
    }

    fn feed(&mut self, input: In) {
        self.audit.input(&input);
        self.speaker.handle_input(self.now, input);
        self.carry_out();
    }

    fn wait(&mut self, d: Duration) {
        let end = self.now + d;
        while let Some(at) = self.speaker.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.speaker.handle_deadline(self.now);
            self.carry_out();
        }
        self.now = end;
    }

    fn carry_out(&mut self) {
        for output in drain(&mut self.speaker) {
            self.audit.output(&output);
            match output {
                Out::Session { event: SessionEvent::Up { .. }, .. } => self.seen.up += 1,
                Out::Session { event: SessionEvent::Down { was_established: true, .. }, .. } => {
                    self.seen.lost += 1;
                }
                Out::Send { bytes, .. } if bytes.len() == 21 && bytes[19..] == [6, 7] => {
                    self.seen.collisions += 1;
                }
                _ => {}
            }
        }
        self.audit.settled(&self.speaker, self.now);
    }

    fn peer(&mut self) -> PeerId {
        PeerId(self.rng.below(3) as u32)
    }

    fn conn(&mut self) -> ConnId {
        let open = self.audit.open_connections();
        if open.is_empty() || self.rng.below(50) == 0 {
            // One that is gone, or never was.
            ConnId(self.rng.below(self.next_conn + 2))
        } else {
            open[self.rng.below(open.len() as u64) as usize]
        }
    }

    fn new_conn(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }

    fn step(&mut self) {
        let input = match self.rng.below(20) {
            0 => In::StartPeer(self.peer()),
            1 if self.rng.below(4) == 0 => In::StopPeer {
                peer: self.peer(),
                subcode: self.rng.below(11) as u8,
                message: "x".repeat(self.rng.below(400) as usize),
            },
            2 | 3 => self.outcome_of_connecting(),
            4 | 5 => In::Accepted { peer: self.peer(), conn: self.new_conn(), local: address(1).into() },
            6 if self.rng.below(3) == 0 => In::Closed { conn: self.conn() },
            7 => {
                let conn = self.conn();
                let sent = self.audit.sent(conn);
                In::Acknowledged { conn, offset: self.rng.below(sent + 2) }
            }
            8 => self.own_route(),
            9 => In::RequestRefresh { peer: self.peer() },
            12 if self.rng.below(4) == 0 => self.rare(),
            10 | 11 => {
                let scale = 10u64.pow(self.rng.below(6) as u32);
                let pause = Duration::from_millis(self.rng.below(10) * scale);
                return self.wait(pause);
            }
            _ => self.received(),
        };
        self.feed(input);
    }

    fn outcome_of_connecting(&mut self) -> In {
        let peer = self.peer();
        // Now and then one that crossed its cancellation.
        if !self.audit.is_dialling(peer) && self.rng.below(10) > 0 {
            return In::Start;
        }
        if self.rng.below(3) == 0 {
            In::ConnectFailed { peer }
        } else {
            In::Connected { peer, conn: self.new_conn(), local: address(1).into() }
        }
    }

    fn rare(&mut self) -> In {
        let peer = self.peer();
        match self.rng.below(5) {
            0 => In::BfdDown { peer, control_independent: self.rng.below(2) == 0 },
            1 => In::RemovePeer { peer },
            2 | 3 => In::AddPeer { peer, config: Box::new(peers()[peer.0 as usize].clone()) },
            _ => In::Settled,
        }
    }

    fn own_route(&mut self) -> In {
        let text = format!("192.0.{}.0/24", self.rng.below(8));
        match self.rng.below(6) {
            5 => In::Orders((0..self.rng.below(6)).map(|_| self.order()).collect()),
            0 => In::Originate { prefix: prefix(&text) },
            1 | 2 => In::Withdraw { peer: self.peer(), prefix: prefix(&text) },
            _ => In::Announce { peer: self.peer(), announcement: announcement(&text) },
        }
    }

    fn order(&mut self) -> Order {
        let (peer, text) = (self.peer(), format!("192.0.{}.0/24", self.rng.below(8)));
        match self.rng.below(2) {
            0 => Order::Withdraw { peer, prefix: prefix(&text) },
            _ => Order::Announce { peer, announcement: announcement(&text) },
        }
    }

    fn received(&mut self) -> In {
        let conn = self.conn();
        let n = 2 + self.audit.peer_of(conn).map_or(0, |p| p.0) as u8;
        let expected = match self.audit.messages_in(conn) {
            0 => open_of(n),
            1 => keepalive(),
            _ => random_update(&mut self.rng, n),
        };
        let mut bytes = match self.rng.below(24) {
            0 => open_of(n),
            1 | 2 => keepalive(),
            3 => random_update(&mut self.rng, n),
            4 => notification(&mut self.rng),
            5 => refresh(&mut self.rng),
            6 => open(9, Family::Ipv4),
            7 => {
                let mut bytes = expected;
                let at = self.rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.rng.below(8);
                bytes
            }
            _ => expected,
        };
        if self.rng.below(30) == 0 {
            bytes.truncate(self.rng.below(bytes.len() as u64) as usize);
        }
        In::Received { conn, bytes }
    }
}

fn peers() -> Vec<PeerConfig> {
    let internal = PeerConfig { asn: asn(1), ..peer(3, Relation::Internal) };
    let passive = PeerConfig { passive: true, ..peer(4, Relation::Customer) };
    vec![peer(2, Relation::Peer), internal, passive]
}

fn open_of(n: u8) -> Vec<u8> {
    if n == 3 { open_as(n, asn(1), Family::Ipv4) } else { open(n, Family::Ipv4) }
}

fn random_update(rng: &mut Rng, n: u8) -> Vec<u8> {
    let one = format!("198.51.{}.0/24", rng.below(8));
    let other = format!("198.51.{}.0/24", rng.below(8));
    if rng.below(2) == 0 { update(n, &[&one], &[]) } else { update(n, &[], &[&one, &other]) }
}

fn notification(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![];
    let notification = Notification::new(rng.below(9) as u8, rng.below(12) as u8);
    wire::encode_notification(&notification, &mut bytes);
    bytes
}

fn refresh(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![];
    let family = Family::ALL[rng.below(2) as usize];
    wire::encode_route_refresh(family.into(), 0, &mut bytes);
    bytes
}

#[test]
fn invariants_hold_for_random_inputs() {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut play = Play::new(seed);
            play.feed(In::Start);
            for _ in 0..STEPS {
                play.step();
            }
            play.seen
        });
        match run {
            Ok(s) => {
                seen.up += s.up;
                seen.lost += s.lost;
                seen.collisions += s.collisions;
            }
            Err(_) => panic!("seed {seed}"),
        }
    }
    eprintln!("{} sessions, {} lost, {} collisions", seen.up, seen.lost, seen.collisions);
    assert!(seen.up > 500 && seen.lost > 100 && seen.collisions > 100);
}
