//! A speaker under any sequence of inputs, audited: what the random tests and the fuzz targets both play. What comes
//! next is the generator's choice: a seed's, or an input's octets.

use std::time::Duration;

use ubique_model::{Family, Prefix, Relation};

use super::audit::Audit;
use super::fixture::*;
use crate::bgp::family::AddressFamilies;
use crate::bgp::flowspec::{Component, FlowSpec};
use crate::bgp::message::{Message, Notification, Role};
use crate::bgp::speaker::{
    ConnId, Export, GracefulRestartConfig, Import, In, Order, Out, PeerConfig, PeerId, SessionEvent, Speaker,
    SpeakerConfig,
};
use crate::bgp::wire::{self, DecodeContext, HEADER_LEN, MAX_EXTENDED_MESSAGE, decode};
use crate::journal::{Recorded, Sink};
use crate::rng::Rng;
use crate::time::Time;

/// Neighbours at the start; as many again can be added.
const PEERS: u64 = 3;

/// Reads whatever a speaker of any kind may send.
const ANY: DecodeContext = DecodeContext {
    four_octet_as: true,
    external: false,
    families: AddressFamilies::ALL,
    add_path: AddressFamilies::NONE,
    extended_next_hop: AddressFamilies::ALL,
    max_message: MAX_EXTENDED_MESSAGE,
};

/// What an announcing edge may announce.
pub(super) const SCOPE: [&str; 2] = ["192.0.2.0/24", "2001:db8:53::/48"];

/// How often something happened.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) up: usize,
    pub(super) lost: usize,
    pub(super) collisions: usize,
}

pub(super) struct Play<S> {
    speaker: Recorded<Speaker, S>,
    audit: Audit,
    pub(super) rng: Rng,
    now: Time,
    timers: usize,
    /// A wait has jumped, and no timer ran since.
    paused: bool,
    next_conn: u64,
    /// Everything sent must lie in here: what may be announced, or might be before.
    scope: Option<Vec<Prefix>>,
    pub(super) seen: Seen,
}

/// A speaker that passes on what it learns, with three neighbours of any kind.
pub(super) fn any(rng: &mut Rng) -> SpeakerConfig {
    let peers = (0..PEERS).map(|n| any_peer(rng, n)).collect();
    config(1, rng.next_u64(), peers)
}

/// An announcing edge: it announces [`SCOPE`] and nothing else.
pub(super) fn any_edge(rng: &mut Rng) -> SpeakerConfig {
    let mut config = any(rng);
    config.peers = config.peers.into_iter().map(of_edge).collect();
    config.scope = Some(SCOPE.iter().map(|text| prefix(text)).collect());
    config
}

fn of_edge(peer: PeerConfig) -> PeerConfig {
    PeerConfig { import: Import::Observe, export: Export::OwnOnly, ..peer }
}

/// Neighbour `n` is speaker `n + 2` of the fixture; the second one is internal, the third one passive. Half are plain.
fn any_peer(rng: &mut Rng, n: u64) -> PeerConfig {
    let relations = [Relation::Transit, Relation::Internal, Relation::Customer, Relation::Peer];
    let relation = relations[(n % 4) as usize];
    let mut peer = peer(2 + n as u8, relation);
    let flags = if rng.one_in(2) { 0 } else { rng.octet() };
    if relation == Relation::Internal {
        peer.asn = asn(1);
        peer.route_reflector_client = flags & 1 == 0;
    }
    peer.passive = n == 2;
    if flags & 2 != 0 {
        peer.families = AddressFamilies::ALL;
    }
    peer.add_path = flags & 4 != 0;
    peer.extended_next_hop = flags & 8 != 0;
    peer.graceful_restart = (flags & 16 != 0).then(|| GracefulRestartConfig {
        restart_time: Duration::from_secs(rng.below(256)),
        long_lived: rng.one_in(2).then_some(Duration::from_secs(600)),
    });
    peer.role = (flags & 32 != 0 && relation != Relation::Internal).then_some(Role::Customer);
    peer.strict_role = flags & 64 != 0;
    peer.max_prefix = (flags & 128 != 0).then(|| rng.below(8) as u32);
    peer
}

impl<S: Sink> Play<S> {
    /// `sink`: where everything is written down. `timers`: as many run in one wait; a longer one jumps, as a host that was paused.
    pub(super) fn new(config: SpeakerConfig, rng: Rng, sink: Option<S>, timers: usize) -> Play<S> {
        let (scope, now) = (config.scope.clone(), Time(1_000_000_000));
        let speaker = Recorded::new(now, config, sink);
        let (audit, seen) = (Audit::default(), Seen::default());
        let mut play = Play { speaker, audit, rng, now, timers, paused: false, next_conn: 0, scope, seen };
        play.feed(In::Start);
        play
    }

    fn feed(&mut self, input: In) {
        self.audit.input(&input);
        self.speaker.handle_input(self.now, input);
        self.carry_out();
    }

    fn wait(&mut self, d: Duration) {
        let end = self.now + d;
        for _ in 0..self.timers {
            let Some(at) = self.speaker.next_deadline().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.paused = false;
            self.speaker.handle_deadline(self.now);
            self.carry_out();
            assert!(self.speaker.next_deadline().is_none_or(|at| at > self.now), "a timer that is due was not run");
        }
        self.now = end;
        self.paused = self.speaker.next_deadline().is_some_and(|at| at <= end);
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            self.audit.output(&output);
            self.seen.add(&output);
            if let (Some(scope), Out::Send { bytes, .. }) = (&self.scope, &output) {
                within(scope, bytes);
            }
        }
        if !self.paused {
            self.audit.settled(&self.speaker, self.now);
        }
    }

    fn peer(&mut self) -> PeerId {
        PeerId(self.rng.below(PEERS + 1) as u32)
    }

    fn conn(&mut self) -> ConnId {
        let open = self.audit.open_connections();
        if open.is_empty() || self.rng.one_in(50) {
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

    pub(super) fn step(&mut self) {
        let input = match self.rng.below(20) {
            0 => In::StartPeer(self.peer()),
            1 if self.rng.one_in(4) => In::StopPeer {
                peer: self.peer(),
                subcode: self.rng.octet(),
                message: String::from_utf8_lossy(&self.rng.octets(300)).into_owned(),
            },
            2 | 3 => self.outcome_of_connecting(),
            4 | 5 => match self.known_peer() {
                Some(peer) => In::Accepted { peer, conn: self.new_conn(), local: address(1).into() },
                None => In::Start,
            },
            6 if self.rng.one_in(3) => In::Closed { conn: self.conn() },
            7 => {
                let conn = self.conn();
                let sent = self.audit.sent(conn);
                In::Acknowledged { conn, offset: self.rng.below(sent + 2) }
            }
            8 | 9 => self.own_route(),
            10 | 11 => {
                let scale = 10u64.pow(self.rng.below(6) as u32);
                let pause = Duration::from_millis(self.rng.below(20) * scale);
                return self.wait(pause);
            }
            12 if self.rng.one_in(3) => self.rare(),
            _ => self.received(),
        };
        self.feed(input);
    }

    /// One that is configured, as long as there is any.
    fn known_peer(&mut self) -> Option<PeerId> {
        let known: Vec<PeerId> = self.speaker.peers().map(|status| status.peer).collect();
        known.get(self.rng.below(known.len() as u64) as usize).copied()
    }

    fn outcome_of_connecting(&mut self) -> In {
        let Some(peer) = self.known_peer() else { return In::Start };
        // Now and then one that crossed its cancellation.
        if !self.audit.is_dialling(peer) && !self.rng.one_in(10) {
            return In::Start;
        }
        match self.rng.below(3) {
            0 => In::ConnectFailed { peer },
            _ => In::Connected { peer, conn: self.new_conn(), local: address(1).into() },
        }
    }

    fn own_route(&mut self) -> In {
        let n = self.rng.below(6);
        let text = match n {
            0..=2 => format!("192.0.2.{}/26", 64 * n),
            3 => "2001:db8:53::/48".to_owned(),
            // Out of scope for an edge.
            _ => format!("198.18.{n}.0/24"),
        };
        let peer = self.peer();
        match self.rng.below(7) {
            6 => In::Orders((0..self.rng.below(6)).map(|_| self.order()).collect()),
            0 => In::Originate { prefix: prefix(&text) },
            1 | 2 => In::Withdraw { peer, prefix: prefix(&text) },
            3 => In::AnnounceFlow { peer, flow: flow(&text), actions: vec![[0x80, 6, 0, 0, 0, 0, 0, 0]] },
            _ => {
                let mut announcement = announcement(&text);
                announcement.prepend = self.rng.below(4) as u8;
                In::Announce { peer, announcement }
            }
        }
    }

    fn order(&mut self) -> Order {
        let (peer, text) = (self.peer(), format!("192.0.2.{}/26", 64 * self.rng.below(3)));
        match self.rng.below(2) {
            0 => Order::Withdraw { peer, prefix: prefix(&text) },
            _ => Order::Announce { peer, announcement: announcement(&text) },
        }
    }

    fn rare(&mut self) -> In {
        let peer = self.peer();
        match self.rng.below(7) {
            0 => In::RequestRefresh { peer },
            1 => In::WithdrawFlow { peer, flow: flow("192.0.2.0/26") },
            2 => In::BfdDown { peer, control_independent: self.rng.one_in(2) },
            3 => In::RemovePeer { peer },
            4 => {
                let count = self.speaker.peers().count() as u64;
                let free = (0..).map(PeerId).find(|id| self.speaker.peers().all(|status| status.peer != *id));
                match free {
                    Some(peer) if count <= PEERS => {
                        let config = Box::new(self.added(u64::from(peer.0)));
                        In::AddPeer { peer, config }
                    }
                    _ => In::Settled,
                }
            }
            5 => self.rescope(),
            _ => In::Settled,
        }
    }

    /// Another service file: some prefixes of the former one, and perhaps another.
    fn rescope(&mut self) -> In {
        let Some(known) = &mut self.scope else { return In::Settled };
        let chosen = self.rng.octet();
        let all = SCOPE.iter().chain(&["198.18.4.0/24"]).enumerate();
        let scope: Vec<Prefix> = all.filter(|(n, _)| chosen >> n & 1 == 1).map(|(_, text)| prefix(text)).collect();
        known.extend(scope.iter().filter(|prefix| !SCOPE.contains(&prefix.to_string().as_str())));
        In::Rescope { scope }
    }

    fn added(&mut self, n: u64) -> PeerConfig {
        let config = any_peer(&mut self.rng, n);
        if self.scope.is_none() { config } else { of_edge(config) }
    }

    fn received(&mut self) -> In {
        let conn = self.conn();
        let n = 2 + self.audit.peer_of(conn).map_or(0, |p| p.0) as u8;
        let expected = match self.audit.messages_in(conn) {
            0 => self.open_of(n),
            1 => keepalive(),
            _ => self.update(n),
        };
        let mut bytes = match self.rng.below(24) {
            0 => self.open_of(n),
            1 => keepalive(),
            2 => self.wrapped(),
            3 => self.rng.octets(64),
            4 => {
                let mut bytes = expected;
                let at = self.rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.rng.below(8);
                bytes
            }
            5 | 6 => self.attributes(n),
            7 => notification(&mut self.rng),
            8 => refresh(&mut self.rng),
            // Of another neighbour.
            9 => open(9, Family::Ipv4),
            _ => expected,
        };
        if self.rng.one_in(30) {
            bytes.truncate(self.rng.below(bytes.len() as u64) as usize);
        }
        In::Received { conn, bytes }
    }

    /// An OPEN, now and then with whatever capabilities.
    fn open_of(&mut self, n: u8) -> Vec<u8> {
        let asn = if n == 3 { asn(1) } else { asn(n) };
        let mut bytes = open_as(n, asn, Family::Ipv4);
        let more = if self.rng.one_in(4) { self.rng.octets(60) } else { vec![] };
        if !more.is_empty() {
            // One more optional parameter (RFC 5492 §4): the fields before it say how long all are.
            bytes[28] += 2 + more.len() as u8;
            bytes.extend([2, more.len() as u8]);
            bytes.extend(more);
            let length = bytes.len() as u16;
            bytes[16..18].copy_from_slice(&length.to_be_bytes());
        }
        bytes
    }

    fn update(&mut self, n: u8) -> Vec<u8> {
        let mut text = || format!("198.51.{}.0/24", self.rng.below(16));
        let (one, other) = (text(), text());
        if self.rng.one_in(2) { update(n, &[&one], &[]) } else { update(n, &[], &[&one, &other]) }
    }

    /// A sound UPDATE with whatever behind its attributes.
    fn attributes(&mut self, n: u8) -> Vec<u8> {
        let mut bytes = self.update(n);
        let withdrawn = usize::from(u16::from_be_bytes([bytes[19], bytes[20]]));
        let at = 21 + withdrawn;
        let length = usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        if length > 0 {
            let more = self.rng.octets(120);
            bytes[at..at + 2].copy_from_slice(&((length + more.len()) as u16).to_be_bytes());
            let end = at + 2 + length;
            bytes.splice(end..end, more);
            let length = bytes.len() as u16;
            bytes[16..18].copy_from_slice(&length.to_be_bytes());
        }
        bytes
    }

    /// A right header before whatever.
    fn wrapped(&mut self) -> Vec<u8> {
        let (kind, body) = (self.rng.below(7) as u8, self.rng.octets(200));
        let mut bytes = vec![0xff; 16];
        bytes.extend(((HEADER_LEN + body.len()) as u16).to_be_bytes());
        bytes.push(kind);
        bytes.extend(body);
        bytes
    }
}

impl Seen {
    fn add(&mut self, output: &Out) {
        match output {
            Out::Session { event: SessionEvent::Up { .. }, .. } => self.up += 1,
            Out::Session { event: SessionEvent::Down { was_established: true, .. }, .. } => self.lost += 1,
            Out::Send { bytes, .. } if bytes.len() == 21 && bytes[19..] == [6, 7] => self.collisions += 1,
            _ => {}
        }
    }
}

fn flow(destination: &str) -> FlowSpec {
    let prefix = prefix(destination);
    FlowSpec { family: Family::of(&prefix), components: vec![Component::Destination { prefix, offset: 0 }] }
}

/// What is announced lies in `scope` and has no attribute that came from elsewhere.
fn within(scope: &[Prefix], mut bytes: &[u8]) {
    while let Some(header) = bytes.first_chunk::<HEADER_LEN>() {
        let (message, rest) = bytes.split_at(usize::from(u16::from_be_bytes([header[16], header[17]])));
        bytes = rest;
        let Ok(Message::Update(update)) = decode(message, &ANY) else { continue };
        for nlri in update.announced.iter().flat_map(|reach| &reach.prefixes) {
            assert!(scope.iter().any(|ours| ours.contains(&nlri.prefix)), "{nlri} is not the service's");
        }
        for flow in &update.flows_announced {
            let ours = flow.components.iter().any(|component| match component {
                Component::Destination { prefix, offset: 0 } => scope.iter().any(|ours| ours.contains(prefix)),
                _ => false,
            });
            assert!(ours, "{flow:?} is about traffic of others");
        }
        if let Some(attributes) = update.attributes {
            assert_eq!(attributes.unknown, [], "what we do not know goes nowhere");
            assert!(attributes.as_path.ases().all(|hop| hop == asn(1)), "{}", attributes.as_path);
        }
    }
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
