//! Speakers, and TCP as they see it: streams with latency that are split anywhere, refused, and reset.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::audit::Audit;
use super::fixture;
use crate::bgp::speaker::{ConnId, In, Out, PeerId, Speaker, SpeakerConfig};
use crate::rng::Rng;
use crate::time::Time;

/// What a speaker was fed, to be fed again.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) enum Fed {
    Input(In),
    Deadline,
}

/// An end of a connection: whose, and its number there.
type End = (usize, ConnId);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A connection attempt arrives; its number.
    Syn {
        attempt: u64,
    },
    /// The answer arrives: the number of the accepted end, or refused.
    Answer {
        attempt: u64,
        accepted: Option<ConnId>,
    },
    Data {
        to: End,
        bytes: Vec<u8>,
        from: End,
        end: u64,
    },
    Acknowledged {
        to: End,
        offset: u64,
    },
    Fin {
        to: End,
    },
}

#[derive(Debug)]
struct Attempt {
    from: (usize, PeerId),
    to: (usize, PeerId),
    cancelled: bool,
}

#[derive(Debug)]
struct Half {
    /// The other end, once known.
    other: Option<End>,
    /// Nothing sent from here arrives before this.
    arrival: Time,
    sent: u64,
}

pub(super) struct Node {
    pub(super) speaker: Speaker,
    pub(super) audit: Audit,
    pub(super) running: bool,
    pub(super) fed: Vec<(Time, Fed)>,
    pub(super) outputs: Vec<Out>,
}

pub(super) struct Net {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Time,
    rng: Rng,
    links: BTreeMap<(usize, PeerId), (usize, PeerId)>,
    latency: Duration,
    queue: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    attempts: BTreeMap<u64, Attempt>,
    halves: BTreeMap<End, Half>,
    next_id: u64,
}

impl Net {
    /// Speakers whose neighbours are found by address, 10.0.0.n for the one of index n - 1.
    pub(super) fn new(seed: u64, latency: Duration, configs: Vec<SpeakerConfig>) -> Net {
        let mut links = BTreeMap::new();
        for (i, config) in configs.iter().enumerate() {
            for (p, peer) in config.peers.iter().enumerate() {
                let other = configs.iter().position(|c| peer.address == c.router_id);
                let Some(j) = other else { continue };
                let back = configs[j].peers.iter().position(|q| q.address == config.router_id);
                let back = back.expect("both ends are configured");
                links.insert((i, PeerId(p as u32)), (j, PeerId(back as u32)));
            }
        }
        let nodes = configs.into_iter().map(|config| Node {
            speaker: Speaker::new(config),
            audit: Audit::default(),
            running: false,
            fed: vec![],
            outputs: vec![],
        });
        Net {
            nodes: nodes.collect(),
            now: Time(1_000_000_000),
            rng: Rng::new(seed),
            links,
            latency,
            queue: BinaryHeap::new(),
            sequence: 0,
            attempts: BTreeMap::new(),
            halves: BTreeMap::new(),
            next_id: 0,
        }
    }

    /// The process comes up: its port is open from now on.
    pub(super) fn start(&mut self, node: usize) {
        self.nodes[node].running = true;
        self.feed(node, Fed::Input(In::Start));
    }

    pub(super) fn input(&mut self, node: usize, input: In) {
        self.feed(node, Fed::Input(input));
    }

    /// Runs for that long.
    pub(super) fn run(&mut self, d: Duration) {
        let end = self.now + d;
        loop {
            let event = self.queue.peek().map(|Reverse((at, ..))| *at);
            let deadlines = self.nodes.iter().enumerate();
            let deadline = deadlines.filter_map(|(i, n)| Some((n.speaker.next_deadline()?, i))).min();
            let event_first = event.is_some_and(|e| deadline.is_none_or(|(d, _)| e <= d));
            match (event, deadline) {
                (Some(at), _) if event_first && at <= end => {
                    self.now = self.now.max(at);
                    if let Some(Reverse((_, _, event))) = self.queue.pop() {
                        self.happen(event);
                    }
                }
                (_, Some((at, node))) if !event_first && at <= end => {
                    self.now = self.now.max(at);
                    self.feed(node, Fed::Deadline);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// Resets one open connection, if there is any: both ends learn of it, what is under way is lost.
    pub(super) fn reset_one(&mut self) {
        let ends: Vec<End> = self.halves.keys().copied().collect();
        if ends.is_empty() {
            return;
        }
        let end = ends[self.rng.below(ends.len() as u64) as usize];
        let other = self.halves.get(&end).and_then(|h| h.other);
        for end in [Some(end), other].into_iter().flatten() {
            if self.halves.remove(&end).is_some() {
                self.feed(end.0, Fed::Input(In::Closed { conn: end.1 }));
            }
        }
    }

    fn feed(&mut self, node: usize, fed: Fed) {
        let n = &mut self.nodes[node];
        n.fed.push((self.now, fed.clone()));
        match fed {
            Fed::Input(input) => {
                n.audit.input(&input);
                n.speaker.handle_input(self.now, input);
            }
            Fed::Deadline => n.speaker.handle_deadline(self.now),
        }
        let outputs = fixture::drain(&mut n.speaker);
        for output in &outputs {
            n.audit.output(output);
        }
        // An input can come at the very moment a timer is due.
        if n.speaker.next_deadline().is_none_or(|at| at > self.now) {
            n.audit.settled(&n.speaker, self.now);
        }
        n.outputs.extend(outputs.iter().cloned());
        for output in outputs {
            self.carry_out(node, output);
        }
    }

    fn carry_out(&mut self, node: usize, output: Out) {
        match output {
            Out::Connect { peer } => {
                let attempt = self.next_id();
                let to = self.links[&(node, peer)];
                self.attempts.insert(attempt, Attempt { from: (node, peer), to, cancelled: false });
                self.after_delay(Event::Syn { attempt });
            }
            Out::CancelConnect { peer } => {
                for attempt in self.attempts.values_mut().filter(|a| a.from == (node, peer)) {
                    attempt.cancelled = true;
                }
            }
            Out::Send { conn, bytes } => self.send((node, conn), &bytes),
            Out::Close { conn } => {
                if let Some(half) = self.halves.remove(&(node, conn))
                    && let Some(to) = half.other
                {
                    self.at(half.arrival.max(self.now + self.latency), Event::Fin { to });
                }
            }
            Out::Session { .. } | Out::Best { .. } | Out::Refused { .. } | Out::Message { .. } => {}
        }
    }

    /// In pieces that arrive one after the other.
    fn send(&mut self, from: End, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = 1 + self.rng.below(rest.len() as u64) as usize;
            let delay = self.delay();
            let Some(half) = self.halves.get_mut(&from) else {
                return;
            };
            half.arrival = half.arrival.max(self.now + delay);
            half.sent += piece as u64;
            let (at, end, to) = (half.arrival, half.sent, half.other);
            let Some(to) = to else { return };
            let bytes = rest[..piece].to_vec();
            self.at(at, Event::Data { to, bytes, from, end });
            rest = &rest[piece..];
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Syn { attempt } => self.syn(attempt),
            Event::Answer { attempt, accepted } => self.answer(attempt, accepted),
            Event::Data { to, bytes, from, end } => {
                if self.halves.contains_key(&to) {
                    self.after_delay(Event::Acknowledged { to: from, offset: end });
                    self.feed(to.0, Fed::Input(In::Received { conn: to.1, bytes }));
                }
            }
            Event::Acknowledged { to, offset } => {
                if self.halves.contains_key(&to) {
                    self.feed(to.0, Fed::Input(In::Acknowledged { conn: to.1, offset }));
                }
            }
            Event::Fin { to } => {
                if self.halves.remove(&to).is_some() {
                    self.feed(to.0, Fed::Input(In::Closed { conn: to.1 }));
                }
            }
        }
    }

    fn syn(&mut self, attempt: u64) {
        let Some(Attempt { to, .. }) = self.attempts.get(&attempt) else {
            return;
        };
        let (node, peer) = *to;
        if !self.nodes[node].running {
            self.after_delay(Event::Answer { attempt, accepted: None });
            return;
        }
        let conn = ConnId(self.next_id());
        // The connecting end is known by the number it will get: that of the attempt.
        let from = (self.attempts[&attempt].from.0, ConnId(attempt));
        let answered = self.now + self.delay();
        self.at(answered, Event::Answer { attempt, accepted: Some(conn) });
        self.halves.insert((node, conn), Half { other: Some(from), arrival: answered, sent: 0 });
        let local = fixture::address(node as u8 + 1);
        self.feed(node, Fed::Input(In::Accepted { peer, conn, local: local.into() }));
    }

    fn answer(&mut self, attempt: u64, accepted: Option<ConnId>) {
        let Some(Attempt { from: (node, peer), to, cancelled }) = self.attempts.remove(&attempt) else {
            return;
        };
        match accepted {
            _ if cancelled => {
                if let Some(conn) = accepted {
                    self.after_delay(Event::Fin { to: (to.0, conn) });
                }
            }
            None => self.feed(node, Fed::Input(In::ConnectFailed { peer })),
            Some(conn) => {
                let half = Half { other: Some((to.0, conn)), arrival: self.now, sent: 0 };
                self.halves.insert((node, ConnId(attempt)), half);
                let local = fixture::address(node as u8 + 1);
                let conn = ConnId(attempt);
                self.feed(node, Fed::Input(In::Connected { peer, conn, local: local.into() }));
            }
        }
    }

    fn delay(&mut self) -> Duration {
        self.latency.mul_f64(1.0 + self.rng.next_f64())
    }

    fn after_delay(&mut self, event: Event) {
        let at = self.now + self.delay();
        self.at(at, event);
    }

    fn at(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence, event)));
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}
