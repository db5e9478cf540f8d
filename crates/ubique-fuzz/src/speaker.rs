//! The speaker under any sequence of inputs, audited as in the random tests of `ubique-proto`; and two of them.

#[path = "../../ubique-proto/src/bgp/speaker/tests/audit.rs"]
#[allow(dead_code, reason = "shared with the tests of ubique-proto")]
mod audit;
#[path = "../../ubique-proto/src/bgp/speaker/tests/fixture.rs"]
#[allow(dead_code, reason = "shared with the tests of ubique-proto")]
mod fixture;
#[path = "../../ubique-proto/src/bgp/speaker/tests/net.rs"]
#[allow(dead_code, reason = "shared with the tests of ubique-proto")]
mod net;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ubique_model::{Family, Prefix, Relation};
use ubique_proto::actions::drain::Drain;
use ubique_proto::actions::{Actions, ActionsConfig};
use ubique_proto::bfd::Bfd;
use ubique_proto::bgp::family::AddressFamilies;
use ubique_proto::bgp::flowspec::{Component, FlowSpec};
use ubique_proto::bgp::message::{Message, Role};
use ubique_proto::bgp::session::State;
use ubique_proto::bgp::speaker::{
    ConnId, Delivery, Export, GracefulRestartConfig, Import, In, Out, PeerConfig, PeerId, Speaker, SpeakerConfig,
};
use ubique_proto::bgp::wire::{DecodeContext, HEADER_LEN, MAX_EXTENDED_MESSAGE, decode};
use ubique_proto::health::{self, CheckConfig, Health};
use ubique_proto::journal::{self, Body, CoreId, Event, Parsed, Recorded, Replay, Sink};
use ubique_proto::site::{Site, SiteConfig};

use crate::Time;
use crate::rng::{Rng, feed};
use audit::Audit;
use fixture::{address, announcement, asn, config, keepalive, open_as, peer, prefix, update};

/// Inputs of one run.
const STEPS: usize = 400;

/// Timers run in one wait; a longer one jumps, as a host that was paused.
const TIMERS: usize = 50;

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
const SCOPE: [&str; 2] = ["192.0.2.0/24", "2001:db8:53::/48"];

struct Play {
    speaker: Recorded<Speaker, Tape>,
    audit: Audit,
    rng: Rng,
    now: Time,
    next_conn: u64,
    /// Everything sent must lie in here: what may be announced, or might be before.
    scope: Option<Vec<Prefix>>,
}

/// Octets: what is configured, then inputs and waits.
pub(crate) fn speaker(input: &[u8]) {
    let mut rng = feed(input);
    let peers = (0..PEERS).map(|n| any_peer(&mut rng, n)).collect();
    let mut config = config(1, rng.next_u64(), peers);
    config.prefer_oldest = rng.one_in(2);
    config.tap = rng.one_in(2);
    play(config, rng, None);
}

/// The same, recorded; the recording is played again and must lead to the same outputs.
pub(crate) fn replay(input: &[u8]) {
    let mut rng = feed(input);
    let peers = (0..PEERS).map(|n| any_peer(&mut rng, n)).collect();
    let config = config(1, rng.next_u64(), peers);
    let tape = Tape::default();
    play(config, rng, Some(tape.clone()));
    let mut replay = Replay::default();
    // An urgent input at the begin of a segment waits for no snapshot.
    let mut urgent = false;
    for octets in tape.records.borrow().iter() {
        let Parsed::Record(record, used) = journal::parse(octets) else { panic!("what was written cannot be read") };
        assert_eq!(used, octets.len());
        let entry = replay.record(*record).unwrap_or_else(|foreign| panic!("{foreign}"));
        assert!(entry.difference.is_none(), "{:?}", entry.difference);
        urgent |= matches!(entry.event, Event::Unanchored { .. });
    }
    assert!(urgent || replay.complete(), "something was left out");
}

/// A journal in memory. It begins a new segment, which asks for a snapshot, every now and then.
#[derive(Clone, Debug, Default)]
struct Tape {
    records: Rc<RefCell<Vec<Vec<u8>>>>,
}

/// Records of a segment.
const SEGMENT: usize = 100;

impl Sink for Tape {
    fn write(&self, _segment: u64, record: Vec<u8>) -> bool {
        self.records.borrow_mut().push(record);
        true
    }

    fn segment(&self) -> Option<u64> {
        Some((self.records.borrow().len() / SEGMENT) as u64)
    }

    fn full_outputs(&self) -> bool {
        true
    }

    fn snapshot_max(&self) -> usize {
        journal::SNAPSHOT_MAX
    }
}

/// The same for an announcing edge. Whatever its neighbours say, it sends its own prefixes and nothing else.
pub(crate) fn edge(input: &[u8]) {
    let mut rng = feed(input);
    let edge = |n, rng: &mut Rng| PeerConfig { import: Import::Observe, export: Export::OwnOnly, ..any_peer(rng, n) };
    let peers = (0..PEERS).map(|n| edge(n, &mut rng)).collect();
    let mut config = config(1, rng.next_u64(), peers);
    config.scope = Some(SCOPE.iter().map(|text| prefix(text)).collect());
    play(config, rng, None);
}

fn play(config: SpeakerConfig, rng: Rng, tape: Option<Tape>) {
    let (scope, now) = (config.scope.clone(), Time(1_000_000_000));
    let speaker = Recorded::new(now, config, tape);
    let mut play = Play { speaker, audit: Audit::default(), rng, now, next_conn: 0, scope };
    play.feed(In::Start);
    for _ in 0..STEPS {
        if play.rng.is_empty() {
            break;
        }
        play.step();
    }
}

/// Neighbour `n` is speaker `n + 2` of the fixture; the second one is internal, the third one passive.
fn any_peer(rng: &mut Rng, n: u64) -> PeerConfig {
    let relations = [Relation::Transit, Relation::Internal, Relation::Customer, Relation::Peer];
    let relation = relations[(n % 4) as usize];
    let mut peer = peer(2 + n as u8, relation);
    let flags = rng.octet();
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

impl Play {
    fn feed(&mut self, input: In) {
        self.audit.input(&input);
        self.speaker.handle_input(self.now, input);
        self.carry_out();
    }

    fn wait(&mut self, d: Duration) {
        let end = self.now + d;
        for _ in 0..TIMERS {
            let Some(at) = self.speaker.next_deadline().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.speaker.handle_deadline(self.now);
            self.carry_out();
            assert!(self.speaker.next_deadline().is_none_or(|at| at > self.now), "a timer that is due was not run");
        }
        self.now = end;
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            self.audit.output(&output);
            if let (Some(scope), Out::Send { bytes, .. }) = (&self.scope, &output) {
                within(scope, bytes);
            }
        }
        // An input may come when a timer is long due: the driver was paused.
        if self.speaker.next_deadline().is_none_or(|at| at > self.now) {
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

    fn step(&mut self) {
        let input = match self.rng.below(20) {
            0 => In::StartPeer(self.peer()),
            1 => In::StopPeer {
                peer: self.peer(),
                subcode: self.rng.octet(),
                message: String::from_utf8_lossy(&self.rng.octets(300)).into_owned(),
            },
            2 | 3 => self.outcome_of_connecting(),
            4 | 5 => match self.known_peer() {
                Some(peer) => In::Accepted { peer, conn: self.new_conn(), local: address(1).into() },
                None => In::Start,
            },
            6 => In::Closed { conn: self.conn() },
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
            12 => self.rare(),
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
        match self.rng.below(6) {
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
        if self.scope.is_none() {
            return config;
        }
        PeerConfig { import: Import::Observe, export: Export::OwnOnly, ..config }
    }

    fn received(&mut self) -> In {
        let conn = self.conn();
        let n = 2 + self.audit.peer_of(conn).map_or(0, |p| p.0) as u8;
        let expected = match self.audit.messages_in(conn) {
            0 => self.open_of(n),
            1 => keepalive(),
            _ => self.update(n),
        };
        let mut bytes = match self.rng.below(12) {
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
            _ => expected,
        };
        if self.rng.one_in(30) {
            bytes.truncate(self.rng.below(bytes.len() as u64) as usize);
        }
        In::Received { conn, bytes }
    }

    /// An OPEN with whatever capabilities.
    fn open_of(&mut self, n: u8) -> Vec<u8> {
        let asn = if n == 3 { asn(1) } else { asn(n) };
        let mut bytes = open_as(n, asn, Family::Ipv4);
        let more = self.rng.octets(60);
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
            assert!(attributes.as_path.ases().all(|asn| asn == fixture::asn(1)), "{}", attributes.as_path);
        }
    }
}

/// Octets: what both offer, then announcements, resets, stops and waits. When all is quiet both are Established and
/// hold what the other one announces.
pub(crate) fn pair(input: &[u8]) {
    let mut rng = feed(input);
    let latency = Duration::from_micros(100 + rng.below(1 << 16));
    let flags = rng.octet();
    let side = |n: u8, flags: u8| {
        let mut peer = peer(3 - n, Relation::Peer);
        peer.families = if flags & 1 == 0 { peer.families } else { AddressFamilies::UNICAST };
        peer.extended_next_hop = flags & 2 != 0;
        peer.next_hop.ipv6 = Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()].into());
        peer.add_path = flags & 4 != 0;
        let restart = GracefulRestartConfig { restart_time: Duration::from_secs(20), long_lived: None };
        peer.graceful_restart = (flags & 8 != 0).then_some(restart);
        config(n, u64::from(flags), vec![peer])
    };
    let mut net = net::Net::new(0, latency, vec![side(1, flags & 15), side(2, flags >> 4)]);
    net.start(0);
    net.start(1);
    for _ in 0..STEPS / 4 {
        if rng.is_empty() {
            break;
        }
        net.run(Duration::from_millis(rng.below(256) * if rng.one_in(8) { 100 } else { 1 }));
        let node = rng.below(2) as usize;
        match rng.below(10) {
            0 | 1 => net.reset_one(),
            2 => net.input(node, In::StopPeer { peer: PeerId(0), subcode: 4, message: String::new() }),
            3 => net.input(node, In::StartPeer(PeerId(0))),
            4 => net.input(node, In::RequestRefresh { peer: PeerId(0) }),
            5 | 6 => net.input(node, In::Withdraw { peer: PeerId(0), prefix: some(&mut rng) }),
            _ => {
                let mut announcement = announcement(&some(&mut rng).to_string());
                announcement.med = rng.one_in(2).then(|| rng.below(4) as u32);
                net.input(node, In::Announce { peer: PeerId(0), announcement });
            }
        }
    }
    for node in 0..2 {
        net.input(node, In::StartPeer(PeerId(0)));
    }
    net.run(Duration::from_secs(120));
    quiet(&net);
}

fn some(rng: &mut Rng) -> Prefix {
    let n = rng.below(16);
    prefix(&if n < 12 { format!("10.{n}.0.0/16") } else { format!("2001:db8:{n}::/48") })
}

fn quiet(net: &net::Net) {
    for (here, there) in [(0, 1), (1, 0)] {
        let (ours, theirs) = (&net.nodes[here].speaker, &net.nodes[there].speaker);
        assert!(ours.peers().all(|status| status.state == State::Established), "{here} is not up");
        let families =
            |speaker: &Speaker| speaker.peer(PeerId(0)).map(|status| status.config.families).unwrap_or_default();
        let agreed = families(ours).intersection(families(theirs));
        let carried = |prefix: &Prefix| agreed.contains(Family::of(prefix));
        let mut announced: Vec<_> = ours.announced(PeerId(0)).filter(|(prefix, _)| carried(prefix)).collect();
        assert!(announced.iter().all(|(_, delivery)| *delivery == Delivery::Acknowledged), "{announced:?}");
        announced.sort_by_key(|(prefix, _)| *prefix);
        let mut received: Vec<Prefix> = theirs.rib().received(PeerId(0), None).map(|route| route.prefix).collect();
        received.sort();
        assert!(announced.iter().map(|(prefix, _)| prefix).eq(&received), "{here}: {announced:?}, there {received:?}");
        assert_eq!(ours.withdrawal_pending(PeerId(0)).count(), 0);
    }
}

/// A fresh core of each kind, as a journal's anchor has it.
pub(crate) fn configurations() -> Vec<(CoreId, Vec<u8>)> {
    let tape = Tape::default();
    let start = Time(1);
    let peers = vec![peer(2, Relation::Transit), peer(3, Relation::Customer)];
    let _ = Recorded::<Speaker, Tape>::new(start, config(1, 1, peers), Some(tape.clone()));
    let check = CheckConfig {
        name: "answers".into(),
        what: "answers".into(),
        every: Duration::from_millis(100),
        timeout: Duration::from_millis(50),
        retry: None,
        latency: None,
        fall: 2,
        rise: 2,
        role: health::Role::Alone(ubique_model::policy::Level::Failed),
    };
    let _ = Recorded::<Health, Tape>::new(start, (vec![check], vec![], 1), Some(tape.clone()));
    let site = SiteConfig::new(Duration::from_secs(1), Duration::from_secs(1));
    let _ = Recorded::<Site, Tape>::new(start, site, Some(tape.clone()));
    let _ = Recorded::<Bfd, Tape>::new(start, 1, Some(tape.clone()));
    let service =
        ActionsConfig { prefixes: vec![prefix(SCOPE[0])], addresses: vec![prefix(SCOPE[0]).addr()], confirm_share: 50 };
    let _ = Recorded::<Actions, Tape>::new(start, service, Some(tape.clone()));
    let _ = Recorded::<Drain, Tape>::new(start, (), Some(tape.clone()));
    let anchor = |octets: &Vec<u8>| match journal::parse(octets) {
        Parsed::Record(record, _) => match record.body {
            Body::Anchor { core, state, .. } => (core, state),
            other => panic!("not an anchor: {other:?}"),
        },
        other => panic!("not a record: {other:?}"),
    };
    tape.records.borrow().iter().map(anchor).collect()
}
