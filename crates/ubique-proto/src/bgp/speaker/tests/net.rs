//! Speakers, and TCP as they see it: streams with latency that are split anywhere, refused, reset, and cut without a
//! word; processes that end and come back, that are frozen, and whose clocks jump.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use ubique_model::Prefix;

use super::audit::Audit;
use super::fixture;
use crate::bgp::attributes::NextHop;
use crate::bgp::flowspec::FlowSpec;
use crate::bgp::message::Message;
use crate::bgp::session::{OPEN_HOLD_TIME, State};
use crate::bgp::speaker::{ConnId, In, Out, PeerId, SessionEvent, Speaker, SpeakerConfig};
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
    /// Nothing sent from here arrives any more.
    cut: bool,
    /// Since when nothing can come.
    dead: Option<Time>,
}

impl Half {
    fn new(other: End, arrival: Time) -> Half {
        Half { other: Some(other), arrival, sent: 0, cut: false, dead: None }
    }
}

pub(super) struct Node {
    pub(super) speaker: Speaker,
    pub(super) audit: Audit,
    pub(super) running: bool,
    /// Frozen until then: nothing is fed.
    pub(super) frozen: Time,
    /// How far its clock is ahead.
    pub(super) ahead: Duration,
    /// When its sessions were lost, by its clock.
    pub(super) lost: BTreeMap<PeerId, Time>,
    /// What the forwarding table was told.
    pub(super) forwarding: BTreeMap<Prefix, (NextHop, PeerId)>,
    /// FlowSpec rules its neighbours announced, as far as it shows their messages.
    pub(super) flows: BTreeSet<(PeerId, FlowSpec)>,
    pub(super) fed: Vec<(Time, Fed)>,
    pub(super) outputs: Vec<Out>,
}

impl Node {
    fn new(config: SpeakerConfig) -> Node {
        Node {
            speaker: Speaker::new(config),
            audit: Audit::default(),
            running: false,
            frozen: Time::ZERO,
            ahead: Duration::ZERO,
            lost: BTreeMap::new(),
            forwarding: BTreeMap::new(),
            flows: BTreeSet::new(),
            fed: vec![],
            outputs: vec![],
        }
    }

    /// When it runs its next timer, by the clock of the world.
    fn deadline(&self) -> Option<Time> {
        let at = self.speaker.next_deadline().filter(|_| self.running)?;
        Some(Time(at.0.saturating_sub(self.ahead.as_nanos() as u64)).max(self.frozen))
    }
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
    /// Keep all inputs and outputs.
    pub(super) record: bool,
    /// Of four writes, how many arrive in one piece.
    pub(super) whole: u64,
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
        Net {
            nodes: configs.into_iter().map(Node::new).collect(),
            now: Time(1_000_000_000),
            rng: Rng::new(seed),
            links,
            latency,
            queue: BinaryHeap::new(),
            sequence: 0,
            attempts: BTreeMap::new(),
            halves: BTreeMap::new(),
            next_id: 0,
            record: true,
            whole: 0,
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
            let deadline = deadlines.filter_map(|(i, n)| Some((n.deadline()?, i))).min();
            let event_first = event.is_some_and(|e| deadline.is_none_or(|(d, _)| e <= d));
            match (event, deadline) {
                (Some(at), _) if event_first && at <= end => {
                    self.now = self.now.max(at);
                    if let Some(Reverse((_, _, event))) = self.queue.pop() {
                        let frozen = self.node_of(&event).map_or(Time::ZERO, |node| self.nodes[node].frozen);
                        if frozen > self.now {
                            self.at(frozen, event);
                        } else {
                            self.happen(event);
                        }
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
        let Some(end) = self.any_end() else { return };
        let other = self.halves.get(&end).and_then(|h| h.other);
        if self.nodes.iter().any(|n| n.frozen > self.now) {
            return;
        }
        for end in [Some(end), other].into_iter().flatten() {
            if self.halves.remove(&end).is_some() {
                self.feed(end.0, Fed::Input(In::Closed { conn: end.1 }));
            }
        }
    }

    /// Ends one end of a connection and tells only that; the other finds out when it next sends something.
    pub(super) fn reset_half(&mut self) {
        let Some(end) = self.any_end().filter(|end| self.nodes[end.0].frozen <= self.now) else { return };
        if let Some(half) = self.halves.remove(&end) {
            self.abandon(half.other);
            self.feed(end.0, Fed::Input(In::Closed { conn: end.1 }));
        }
    }

    /// Nothing passes over one connection any more, and nobody is told.
    pub(super) fn cut_one(&mut self) {
        let Some(end) = self.any_end() else { return };
        let other = self.halves.get(&end).and_then(|h| h.other);
        for end in [Some(end), other].into_iter().flatten() {
            if let Some(half) = self.halves.get_mut(&end) {
                half.cut = true;
                half.dead.get_or_insert(self.now);
            }
        }
    }

    /// The process of a node ends. Its kernel says so, unless the power went.
    pub(super) fn end(&mut self, node: usize, silently: bool) {
        let n = &mut self.nodes[node];
        n.running = false;
        n.frozen = Time::ZERO;
        let ends: Vec<End> = self.halves.keys().filter(|end| end.0 == node).copied().collect();
        for end in ends {
            let Some(half) = self.halves.remove(&end) else { continue };
            self.abandon(half.other);
            if let Some(to) = half.other.filter(|_| !silently && !half.cut) {
                self.at(half.arrival.max(self.now + self.latency), Event::Fin { to });
            }
        }
        for attempt in self.attempts.values_mut().filter(|a| a.from.0 == node) {
            attempt.cancelled = true;
        }
    }

    /// It comes up again, with nothing of the past.
    pub(super) fn restart(&mut self, node: usize, config: SpeakerConfig) {
        let ahead = self.nodes[node].ahead;
        self.nodes[node] = Node { ahead, ..Node::new(config) };
        self.start(node);
    }

    /// Connections no end of which can hear of the other for longer than the hold time, or the 4 minutes OPEN may take.
    pub(super) fn assert_nothing_is_half_open(&self, hold_time: Duration) {
        for (end, half) in &self.halves {
            let node = &self.nodes[end.0];
            let Some(dead) = half.dead.filter(|_| node.frozen <= self.now) else { continue };
            let up = node
                .speaker
                .peers()
                .any(|p| p.state == State::Established && node.audit.peer_of(end.1) == Some(p.peer));
            let bound = if up { hold_time } else { OPEN_HOLD_TIME };
            // What was under way when it died still counts as a sign of life.
            let slack = self.latency * 20;
            let since = dead.max(node.frozen);
            assert!(self.now.since(since) <= bound + slack, "half open for {:?}", self.now.since(since));
        }
    }

    fn any_end(&mut self) -> Option<End> {
        let ends: Vec<End> = self.halves.keys().copied().collect();
        (!ends.is_empty()).then(|| ends[self.rng.below(ends.len() as u64) as usize])
    }

    /// Nothing comes from the other end any more.
    fn abandon(&mut self, end: Option<End>) {
        if let Some(half) = end.and_then(|end| self.halves.get_mut(&end)) {
            half.dead.get_or_insert(self.now);
        }
    }

    fn node_of(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Syn { attempt } => self.attempts.get(attempt).map(|a| a.to.0),
            Event::Answer { attempt, .. } => self.attempts.get(attempt).map(|a| a.from.0),
            Event::Data { to, .. } | Event::Acknowledged { to, .. } | Event::Fin { to } => Some(to.0),
        }
    }

    fn feed(&mut self, node: usize, fed: Fed) {
        let n = &mut self.nodes[node];
        if !n.running {
            return;
        }
        let now = self.now + n.ahead;
        if self.record {
            n.fed.push((now, fed.clone()));
        }
        match fed {
            Fed::Input(input) => {
                n.audit.input(&input);
                n.speaker.handle_input(now, input);
            }
            Fed::Deadline => n.speaker.handle_deadline(now),
        }
        let outputs = fixture::drain(&mut n.speaker);
        for output in &outputs {
            n.audit.output(output);
        }
        // An input can come at the very moment a timer is due.
        if n.speaker.next_deadline().is_none_or(|at| at > now) {
            n.audit.settled(&n.speaker, now);
        }
        if self.record {
            n.outputs.extend(outputs.iter().cloned());
        }
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
                    self.abandon(half.other);
                    if !half.cut {
                        self.at(half.arrival.max(self.now + self.latency), Event::Fin { to });
                    }
                }
            }
            Out::Session { peer, event } => {
                let n = &mut self.nodes[node];
                let now = self.now + n.ahead;
                n.flows.retain(|(from, _)| *from != peer);
                match event {
                    SessionEvent::Up { .. } => n.lost.remove(&peer),
                    SessionEvent::Down { was_established: true, .. } => n.lost.insert(peer, now),
                    SessionEvent::Down { .. } => None,
                };
            }
            Out::Best { prefix, next_hop } => {
                let forwarding = &mut self.nodes[node].forwarding;
                match next_hop {
                    Some(to) => forwarding.insert(prefix, to),
                    None => forwarding.remove(&prefix),
                };
            }
            Out::Message { peer, sent: false, bytes, .. } => {
                let flows = &mut self.nodes[node].flows;
                for message in fixture::messages(&bytes) {
                    let Message::Update(update) = message else { continue };
                    for flow in update.flows_withdrawn {
                        flows.remove(&(peer, flow));
                    }
                    flows.extend(update.flows_announced.into_iter().map(|flow| (peer, flow)));
                }
            }
            Out::Refused { .. } | Out::Scope { .. } | Out::Message { .. } => {}
        }
    }

    /// In pieces that arrive one after the other.
    fn send(&mut self, from: End, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let whole = self.rng.below(4) < self.whole;
            let piece = if whole { rest.len() } else { 1 + self.rng.below(rest.len() as u64) as usize };
            let delay = self.delay();
            let Some(half) = self.halves.get_mut(&from) else {
                return;
            };
            half.arrival = half.arrival.max(self.now + delay);
            half.sent += piece as u64;
            let (at, end, to) = (half.arrival, half.sent, half.other);
            let Some(to) = to.filter(|_| !half.cut) else { return };
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
                let Some(half) = self.halves.get(&to) else {
                    // A kernel that does not know the connection says so.
                    if self.nodes[to.0].running {
                        self.after_delay(Event::Fin { to: from });
                    }
                    return;
                };
                if !half.cut {
                    self.after_delay(Event::Acknowledged { to: from, offset: end });
                    self.feed(to.0, Fed::Input(In::Received { conn: to.1, bytes }));
                }
            }
            Event::Acknowledged { to, offset } => {
                if self.halves.get(&to).is_some_and(|half| !half.cut) {
                    self.feed(to.0, Fed::Input(In::Acknowledged { conn: to.1, offset }));
                }
            }
            Event::Fin { to } => {
                if self.halves.get(&to).is_some_and(|half| !half.cut) && self.halves.remove(&to).is_some() {
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
        if !self.nodes[node].running || self.nodes[node].speaker.peer(peer).is_none() {
            self.after_delay(Event::Answer { attempt, accepted: None });
            return;
        }
        let conn = ConnId(self.next_id());
        // The connecting end is known by the number it will get: that of the attempt.
        let from = (self.attempts[&attempt].from.0, ConnId(attempt));
        let answered = self.now + self.delay();
        self.at(answered, Event::Answer { attempt, accepted: Some(conn) });
        self.halves.insert((node, conn), Half::new(from, answered));
        self.feed(node, Fed::Input(In::Accepted { peer, conn, local: fixture::local(node as u8 + 1) }));
    }

    fn answer(&mut self, attempt: u64, accepted: Option<ConnId>) {
        let Some(Attempt { from: (node, peer), to, cancelled }) = self.attempts.remove(&attempt) else {
            return;
        };
        match accepted {
            _ if cancelled => {
                if let Some(conn) = accepted {
                    self.abandon(Some((to.0, conn)));
                    self.after_delay(Event::Fin { to: (to.0, conn) });
                }
            }
            None => self.feed(node, Fed::Input(In::ConnectFailed { peer })),
            Some(conn) => {
                let mut half = Half::new((to.0, conn), self.now);
                // The other end may be gone by now.
                half.dead = (!self.halves.contains_key(&(to.0, conn))).then_some(self.now);
                self.halves.insert((node, ConnId(attempt)), half);
                let conn = ConnId(attempt);
                self.feed(node, Fed::Input(In::Connected { peer, conn, local: fixture::local(node as u8 + 1) }));
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
