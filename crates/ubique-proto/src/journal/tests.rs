use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use ubique_model::policy::Announcement;
use ubique_model::{Asn, Relation};

use super::*;
use crate::actions::drain::{self, Drain};
use crate::actions::senders::Sender;
use crate::actions::{self, Actions, ActionsConfig, Begin, Kind};
use crate::bfd::packet::{Control, Diagnostic, State};
use crate::bfd::{self, Bfd, Remote, Role, SessionConfig, SessionId};
use crate::bgp::attributes::{AsPath, Attributes, NextHop};
use crate::bgp::message::{Capability, Nlri, Open};
use crate::bgp::speaker::{self, ConnId, PeerConfig, PeerId, Speaker, SpeakerConfig};
use crate::bgp::wire;
use crate::health::{self, CheckConfig, Health};
use crate::rng::Rng;
use ubique_model::policy::Level;

use crate::site::{self, Site, SiteConfig};

/// A journal in memory.
#[derive(Clone, Default)]
struct Memory(Rc<Inner>);

#[derive(Default)]
struct Inner {
    octets: RefCell<Vec<u8>>,
    segment: Cell<u64>,
    full: Cell<bool>,
    /// The next records are lost.
    lose: Cell<u32>,
    closed: Cell<bool>,
    snapshot_max: Cell<Option<usize>>,
}

impl Sink for Memory {
    fn write(&self, _segment: u64, record: Vec<u8>) -> bool {
        let lose = self.0.lose.get();
        self.0.lose.set(lose.saturating_sub(1));
        if lose == 0 {
            self.0.octets.borrow_mut().extend(record);
        }
        lose == 0
    }

    fn segment(&self) -> Option<u64> {
        (!self.0.closed.get()).then(|| self.0.segment.get())
    }

    fn full_outputs(&self) -> bool {
        self.0.full.get()
    }

    fn snapshot_max(&self) -> usize {
        self.0.snapshot_max.get().unwrap_or(SNAPSHOT_MAX)
    }
}

fn records(mut octets: &[u8]) -> Vec<Record> {
    let mut records = vec![];
    while !octets.is_empty() {
        let Parsed::Record(record, used) = parse(octets) else { panic!("{:?}", parse(octets)) };
        records.push(*record);
        octets = &octets[used..];
    }
    records
}

fn replayed(records: &[Record]) -> (Replay, Vec<Entry>) {
    let mut replay = Replay::default();
    let entries = records.iter().map(|record| replay.record(record.clone()).unwrap()).collect();
    (replay, entries)
}

fn prefix(number: u64) -> ubique_model::Prefix {
    format!("198.51.{}.0/24", number % 20).parse().unwrap()
}

/// What a neighbour may say: sound messages, cut ones and noise.
fn words(rng: &mut Rng) -> Vec<u8> {
    let mut out = vec![];
    match rng.below(6) {
        0 | 1 => {
            let capabilities = vec![
                Capability::Multiprotocol(crate::bgp::family::AddressFamily::Ipv4Unicast),
                Capability::RouteRefresh,
                Capability::FourOctetAs(Asn(64501)),
            ];
            let router_id = Ipv4Addr::new(192, 0, 2, 1);
            wire::encode_open(&Open { asn: Asn(64501), hold_time_s: 9, router_id, capabilities }, &mut out);
            wire::encode_keepalive(&mut out);
        }
        2 => wire::encode_keepalive(&mut out),
        3 | 4 => {
            let context = wire::EncodeContext {
                four_octet_as: true,
                external: true,
                add_path: crate::bgp::family::AddressFamilies::NONE,
                extended_next_hop: crate::bgp::family::AddressFamilies::NONE,
                max_message: wire::MAX_MESSAGE,
            };
            let as_path = AsPath::sequence([Asn(64501), Asn(64000 + rng.below(9) as u32)]);
            let attributes = Attributes { as_path, ..Attributes::originated() };
            let routes: Vec<Nlri> = (0..rng.below(5)).map(|_| prefix(rng.next_u64()).into()).collect();
            let gone: Vec<Nlri> = (0..rng.below(3)).map(|_| prefix(rng.next_u64()).into()).collect();
            let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
            wire::encode_updates(&gone, Some((&attributes, next_hop, &routes)), &context, &mut out).unwrap();
        }
        _ => out.extend((0..rng.below(40)).map(|_| rng.next_u64() as u8)),
    }
    let cut = if rng.below(4) == 0 { rng.below(out.len() as u64 + 1) as usize } else { out.len() };
    out.truncate(cut);
    out
}

fn speaker_input(rng: &mut Rng, next_conn: &mut u64) -> speaker::In {
    use speaker::In;
    let peer = PeerId(rng.below(2) as u32);
    let conn = ConnId(next_conn.saturating_sub(rng.below(3)));
    let mut fresh = || {
        *next_conn += 1;
        ConnId(*next_conn)
    };
    let local = std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)).into();
    match rng.below(12) {
        0 => In::Connected { peer, conn: fresh(), local },
        1 => In::Accepted { peer, conn: fresh(), local },
        2 => In::ConnectFailed { peer },
        3 => In::Closed { conn },
        4 => In::Announce {
            peer,
            announcement: Announcement {
                prefix: prefix(rng.next_u64()),
                prepend: rng.below(3) as u8,
                med: None,
                communities: vec!["64500:1".parse().unwrap()],
                extended_communities: vec![],
                large_communities: vec![],
            },
        },
        5 => In::Withdraw { peer, prefix: prefix(rng.next_u64()) },
        6 => In::Acknowledged { conn, offset: rng.below(400) },
        7 => In::StartPeer(peer),
        _ => In::Received { conn, bytes: words(rng) },
    }
}

/// Two neighbours that say anything; `discriminators`: ours, as sent last.
fn bfd_input(rng: &mut Rng, now: Time, discriminators: &[u32; 2]) -> bfd::In {
    use bfd::In;
    let number = rng.below(2) as usize;
    let session = SessionId(number as u32);
    let address = Ipv4Addr::new(192, 0, 2, 1 + number as u8).into();
    let from = Remote { address, scope: 0, multihop: false };
    let interval = Duration::from_millis(300 + 100 * rng.below(3));
    let config =
        SessionConfig { remote: from, interval, receive: interval, multiplier: 3, ttl_min: 255, role: Role::Active };
    match rng.below(12) {
        0..=2 => In::Add { session, config },
        3 => In::Configure { session, interval, receive: interval, multiplier: 5 },
        4 if rng.below(3) == 0 => In::Remove { session },
        4 => In::Disable { session },
        5 => In::Enable { session },
        6 => In::Datagram {
            from,
            ttl: Some(255),
            received: now,
            bytes: (0..rng.below(40)).map(|_| rng.next_u64() as u8).collect(),
        },
        _ => {
            let control = Control {
                diagnostic: Diagnostic::NONE,
                state: [State::Down, State::Init, State::Up][rng.below(3) as usize],
                poll: rng.below(4) == 0,
                final_bit: rng.below(4) == 0,
                control_independent: false,
                demand: rng.below(20) == 0,
                multiplier: 3,
                my_discriminator: 7,
                your_discriminator: discriminators[number],
                desired_min_tx_us: 300_000,
                required_min_rx_us: 300_000,
                required_min_echo_rx_us: 0,
            };
            let received = Time(now.0.saturating_sub(rng.below(100_000_000)));
            In::Datagram { from, ttl: Some(255), received, bytes: control.encode().to_vec() }
        }
    }
}

/// What operators do to a service.
fn actions_input(rng: &mut Rng) -> actions::In {
    use actions::In;
    let (id, who, reason) = (rng.below(6) as u32, String::from("root"), String::from("attack"));
    let what = match rng.below(3) {
        0 => Kind::Attract { prefix: "198.51.100.0/25".parse().unwrap() },
        1 => Kind::Blackhole { prefix: prefix(100).addr().into() },
        _ => Kind::Filter {
            rule: format!("dst 198.51.100.53/32 dport ={}", rng.below(4)).parse().unwrap(),
            then: "rate-bytes 1000".parse().unwrap(),
        },
    };
    let lasts = Duration::from_secs(rng.below(60));
    match rng.below(8) {
        0 => In::Cancel { id, who, reason },
        1 => In::Clock { wall_ms: rng.below(1 << 40) },
        2 => In::Configure { config: of_actions(rng.below(2)) },
        _ => In::Begin(Begin { what, lasts, who, reason, confirmed: rng.below(2) == 0, wall_ms: 1 << 40 }),
    }
}

fn of_actions(number: u64) -> ActionsConfig {
    let addresses = vec![prefix(100 + number).addr()];
    ActionsConfig { prefixes: vec!["198.51.100.0/24".parse().unwrap()], addresses, confirm_share: 50 }
}

/// A drain and what it counts.
fn drain_input(rng: &mut Rng) -> drain::In {
    use drain::In;
    let (who, reason) = (String::from("root"), String::from("disks"));
    let seconds = |rng: &mut Rng| Duration::from_secs(rng.below(9));
    let request = drain::Request {
        who,
        reason,
        within: seconds(rng),
        prepend: 2,
        hook: rng.below(2) == 0,
        watch: seconds(rng),
        carried: rng.below(2) == 0,
    };
    match rng.below(9) {
        0 => In::Begin(request),
        1 => In::Uncounted("no right to".into()),
        2 => In::Hook(Err("exit 1".into())),
        3 => In::Withdrawn,
        4 if rng.below(3) == 0 => In::Undrained,
        5 if rng.below(3) == 0 => {
            let (lasted, withdrawn) = (seconds(rng), seconds(rng));
            let before = Some(drain::Traffic { packets_per_s: 2.0, connections: Some(1) });
            In::Resume(drain::Resumed { request, lasted, withdrawn, before })
        }
        _ => {
            let sender = |packets| Sender { prefix: "203.0.113.0/24".parse().unwrap(), packets, uncertain: 1 };
            let packets = rng.below(2) * rng.below(9000);
            let senders = (0..rng.below(3)).map(sender).collect();
            let clients = vec![drain::Client { prefix: "203.0.113.0/24".parse().unwrap(), connections: 3 }];
            In::Sample(drain::Sample { window: drain::SAMPLE_EVERY, packets, connections: Some(3), clients, senders })
        }
    }
}

struct World {
    speaker: Recorded<Speaker, Memory>,
    health: Recorded<Health, Memory>,
    site: Recorded<Site, Memory>,
    bfd: Recorded<Bfd, Memory>,
    actions: Recorded<Actions, Memory>,
    drain: Recorded<Drain, Memory>,
    discriminators: [u32; 2],
    next_conn: u64,
}

impl World {
    fn new(memory: &Memory, seed: u64) -> World {
        let at = |last| std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        let config = SpeakerConfig {
            peers: [1, 3].map(|last| PeerConfig::new(at(last), Asn(64501), Relation::Transit)).to_vec(),
            tap: true,
            ..SpeakerConfig::new(Asn(64500), Ipv4Addr::new(192, 0, 2, 2), seed)
        };
        let check = |name: &str| CheckConfig {
            name: name.into(),
            what: name.into(),
            every: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            retry: None,
            latency: None,
            fall: 2,
            rise: 2,
            role: health::Role::Alone(Level::Failed),
        };
        let site = SiteConfig::new(Duration::from_secs(5), Duration::from_secs(1));
        let now = Time(1);
        World {
            speaker: Recorded::new(now, config, Some(memory.clone())),
            health: Recorded::new(now, (vec![check("a"), check("b")], vec![], seed), Some(memory.clone())),
            site: Recorded::new(now, site, Some(memory.clone())),
            bfd: Recorded::new(now, seed, Some(memory.clone())),
            actions: Recorded::new(now, of_actions(0), Some(memory.clone())),
            drain: Recorded::new(now, (), Some(memory.clone())),
            discriminators: [0; 2],
            next_conn: 0,
        }
    }

    fn step(&mut self, now: Time, rng: &mut Rng) {
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        match rng.below(6) {
            0 if due(self.speaker.next_deadline()) => self.speaker.handle_deadline(now),
            0 => self.speaker.handle_input(now, speaker_input(rng, &mut self.next_conn)),
            1 if due(self.health.next_deadline()) => self.health.handle_deadline(now),
            1 => {
                let (check, result) =
                    (rng.below(2) as usize, if rng.below(2) == 0 { Ok(()) } else { Err("no".into()) });
                self.health.handle_input(
                    now,
                    health::In::Result {
                        check,
                        poll: rng.below(30),
                        took: Duration::from_millis(1),
                        result,
                        answered: false,
                    },
                );
            }
            2 if due(self.bfd.next_deadline()) => self.bfd.handle_deadline(now),
            2 => self.bfd.handle_input(now, bfd_input(rng, now, &self.discriminators)),
            3 if due(self.actions.next_deadline()) => self.actions.handle_deadline(now),
            3 => self.actions.handle_input(now, actions_input(rng)),
            4 if due(self.drain.next_deadline()) => self.drain.handle_deadline(now),
            4 => self.drain.handle_input(now, drain_input(rng)),
            _ if due(self.site.next_deadline()) => self.site.handle_deadline(now),
            _ => {
                let reason = String::from("why");
                self.site.handle_input(
                    now,
                    match rng.below(6) {
                        0 => site::In::Start,
                        1 => site::In::AddressesAdded,
                        2 => site::In::Drain { reason },
                        3 => site::In::Undrain { reason },
                        _ => {
                            let level = Level::ALL[rng.below(3) as usize];
                            site::In::Verdict { level, answers: rng.below(2) == 0, cause: reason }
                        }
                    },
                );
            }
        }
        // A driver may look at another core before it has emptied this one.
        for _ in 0..rng.below(4) {
            let _ = (self.speaker.poll_output(), self.health.poll_output(), self.site.poll_output());
            let _ = (self.actions.poll_output(), self.drain.poll_output());
            self.poll_bfd();
        }
        if rng.below(3) > 0 {
            while self.speaker.poll_output().is_some() {}
            while self.health.poll_output().is_some() {}
            while self.site.poll_output().is_some() {}
            while self.actions.poll_output().is_some() {}
            while self.drain.poll_output().is_some() {}
            while self.poll_bfd() {}
        }
    }

    fn poll_bfd(&mut self) -> bool {
        let output = self.bfd.poll_output();
        if let Some(bfd::Out::Send { session, bytes }) = &output {
            self.discriminators[session.0 as usize] = Control::decode(bytes).unwrap().0.my_discriminator;
        }
        output.is_some()
    }
}

/// Plays a seed; `disturb` is called before each step.
fn play(seed: u64, memory: &Memory, mut disturb: impl FnMut(&mut Rng)) {
    let mut rng = Rng::new(seed);
    let mut world = World::new(memory, seed);
    let mut now = Time(2);
    world.speaker.handle_input(now, speaker::In::Start);
    for _ in 0..300 {
        now = now + Duration::from_millis(rng.below(700));
        disturb(&mut rng);
        world.step(now, &mut rng);
    }
}

#[test]
fn a_hundred_seeds_replay_to_the_same_outputs() {
    let (mut outputs, mut ups) = (0, 0);
    let mut answered = BTreeSet::new();
    for seed in 0..100 {
        let memory = Memory::default();
        memory.0.full.set(seed % 2 == 0);
        play(seed, &memory, |_| ());
        let (replay, entries) = replayed(&records(&memory.0.octets.borrow()));
        let wrong = entries.iter().find(|e| e.difference.is_some());
        assert_eq!(wrong, None, "seed {seed}");
        assert!(replay.complete(), "seed {seed}");
        let answers = || entries.iter().filter(|e| matches!(e.event, Event::Outputs { .. }));
        outputs += answers().count();
        answered.extend(answers().filter_map(|e| e.event.core()));
        let up = |output: &Output| matches!(output, Output::Bfd(bfd::Out::State { to: State::Up, .. }));
        ups += entries
            .iter()
            .filter(|e| matches!(&e.event, Event::Outputs { outputs, .. } if outputs.iter().any(up)))
            .count();
    }
    assert!(ups > 20, "BFD came up only {ups} times");
    assert!(outputs > 5_000, "only {outputs} outputs were compared");
    assert!(answered.into_iter().eq(CoreId::ALL), "every core has answered something");
}

#[test]
fn every_segment_replays_by_itself_and_so_does_what_follows_a_gap() {
    let mut anchors = 0;
    for seed in 0..100 {
        let memory = Memory::default();
        memory.0.full.set(true);
        let cuts = Rc::new(RefCell::new(vec![]));
        let (inner, noted) = (memory.clone(), cuts.clone());
        play(seed, &memory, move |rng| match rng.below(40) {
            0 => {
                inner.0.segment.set(inner.0.segment.get() + 1);
                noted.borrow_mut().push(inner.0.octets.borrow().len());
            }
            1 => inner.0.lose.set(1 + rng.below(3) as u32),
            2 => inner.0.closed.set(true),
            3 => inner.0.closed.set(false),
            _ => {}
        });
        let octets = memory.0.octets.borrow();
        for &from in [0].iter().chain(cuts.borrow().iter()) {
            let (_, entries) = replayed(&records(&octets[from..]));
            // A gap in the outputs of an input is no difference of the replay.
            let wrong = entries.iter().find(|e| e.difference.is_some());
            assert_eq!(wrong, None, "seed {seed} from {from}");
            anchors += entries.iter().filter(|e| matches!(e.event, Event::Anchor { fresh: false, .. })).count();
        }
    }
    assert!(anchors > 500, "only {anchors} snapshots");
}

#[test]
fn a_state_that_is_too_long_is_read_but_not_replayed() {
    let memory = Memory::default();
    let inner = memory.clone();
    let mut steps = 0;
    play(5, &memory, move |_| {
        steps += 1;
        inner.0.snapshot_max.set(Some(60));
        inner.0.segment.set(u64::from(steps > 100));
    });
    let (replay, entries) = replayed(&records(&memory.0.octets.borrow()));
    assert!(entries.iter().all(|e| e.difference.is_none()) && !replay.complete());
    let at = entries.iter().position(|e| e.event == Event::Unanchored { core: CoreId::Bgp }).unwrap();
    let told = |e: &Entry| matches!(e.event, Event::Input(Input::Bgp(_)));
    assert!(entries[at..].iter().any(told), "its inputs can be read");
}

#[test]
fn a_changed_record_is_found() {
    let memory = Memory::default();
    memory.0.full.set(true);
    play(7, &memory, |_| ());
    let mut records = records(&memory.0.octets.borrow());
    let at = records
        .iter()
        .position(|r| matches!(&r.body, Body::Outputs { core: CoreId::Site, .. }))
        .expect("the site answers something");
    let Body::Outputs { hash, .. } = &mut records[at].body else { unreachable!() };
    *hash ^= 1;
    let (replay, entries) = replayed(&records);
    let wrong: Vec<&Entry> = entries.iter().filter(|e| e.difference.is_some()).collect();
    assert_eq!(wrong.len(), 1, "one difference for one core until its next anchor");
    assert_eq!(wrong[0].number as usize, at + 1);
    let difference = wrong[0].difference.as_ref().unwrap();
    assert_eq!(difference.core, CoreId::Site);
    assert_eq!(difference.expected.as_ref(), Some(&difference.got), "only the hash was wrong");
    assert!(matches!(
        entries[difference.record as usize - 1].event,
        Event::Input(Input::Site(_)) | Event::Deadline { .. }
    ));
    assert!(!replay.complete());
}

#[test]
fn a_missing_input_and_a_missing_output_are_found() {
    for seed in 0..20 {
        let memory = Memory::default();
        play(seed, &memory, |_| ());
        let all = records(&memory.0.octets.borrow());
        // What comes after is the answer to it alone.
        let input = |r: &Record| matches!(&r.body, Body::Input { core: CoreId::Site, silent: true, .. });
        let with_output = all.windows(2).position(|w| {
            input(&w[0]) && matches!(&w[1].body, Body::Outputs { core: CoreId::Site, drained: true, .. })
        });
        let Some(at) = with_output else { continue };
        for gone in [at, at + 1] {
            let mut fewer = all.clone();
            fewer.remove(gone);
            let (_, entries) = replayed(&fewer);
            assert!(entries.iter().any(|e| e.difference.is_some()), "seed {seed} without record {gone}");
        }
    }
}

#[test]
fn records_survive_and_damage_is_seen() {
    let memory = Memory::default();
    play(3, &memory, |_| ());
    let octets = memory.0.octets.borrow().clone();
    for record in records(&octets) {
        let encoded = record.encode();
        assert_eq!(parse(&encoded), Parsed::Record(Box::new(record), encoded.len()));
        for cut in 0..encoded.len() {
            assert!(matches!(parse(&encoded[..cut]), Parsed::Incomplete(_)), "cut at {cut}");
        }
        for at in 4..encoded.len() {
            let mut damaged = encoded.clone();
            damaged[at] ^= 0x10;
            assert!(matches!(parse(&damaged), Parsed::Damaged(_)), "octet {at}");
        }
    }
    assert_eq!(parse(&[0xff; 64]), Parsed::Nonsense);
    assert_eq!(parse(&[0; 64]), Parsed::Nonsense, "a block the disk never got");
}

#[test]
fn versions_that_can_be_read_are_known_by_their_beginning() {
    assert!(is_magic(&MAGIC) && is_magic(b"ubiquej\x01"));
    for other in [b"ubiquej\x00", b"ubiquej\x03", b"ubiquek\x02", b"[service"] {
        assert!(!is_magic(other), "{other:?}");
    }
}

#[test]
fn noise_does_no_harm() {
    let mut rng = Rng::new(11);
    for _ in 0..2_000 {
        let core = CoreId::ALL[rng.below(CoreId::ALL.len() as u64) as usize];
        let noise: Vec<u8> = (0..rng.below(60)).map(|_| rng.next_u64() as u8).collect();
        let body = match rng.below(3) {
            0 => Body::Anchor { core, fresh: rng.below(2) == 0, state: noise },
            1 => Body::Input { core, silent: false, input: noise },
            _ => Body::Outputs { core, drained: true, count: rng.next_u64() as u32, hash: 0, outputs: noise },
        };
        let _ = Replay::default().record(Record { time: Time(rng.next_u64()), body });
    }
}

/// A withdrawal is written down without the snapshot that is due, and the input after it brings that.
#[test]
fn what_is_urgent_does_not_wait_for_a_snapshot() {
    let memory = Memory::default();
    let config = SpeakerConfig::new(Asn(64500), Ipv4Addr::new(192, 0, 2, 2), 1);
    let mut core: Recorded<Speaker, Memory> = Recorded::new(Time(1), config, Some(memory.clone()));
    let mut tell = |input| {
        core.handle_input(Time(2), input);
        while core.poll_output().is_some() {}
    };
    let withdraw = || speaker::In::Withdraw { peer: PeerId(0), prefix: prefix(1) };
    tell(speaker::In::Start);
    tell(withdraw());
    memory.0.segment.set(1);
    tell(withdraw());
    tell(speaker::In::Orders(vec![speaker::Order::Withdraw { peer: PeerId(0), prefix: prefix(2) }]));
    tell(speaker::In::Start);
    tell(withdraw());
    let (_, entries) = replayed(&records(&memory.0.octets.borrow()));
    let words: Vec<&str> = entries
        .iter()
        .map(|entry| match &entry.event {
            Event::Anchor { fresh: true, .. } => "fresh",
            Event::Anchor { .. } => "anchor",
            Event::Unanchored { .. } => "unanchored",
            Event::Input(Input::Bgp(speaker::In::Start)) => "start",
            Event::Input(_) => "urgent",
            _ => "other",
        })
        .collect();
    let expected =
        ["fresh", "start", "urgent", "unanchored", "urgent", "unanchored", "urgent", "anchor", "start", "urgent"];
    assert_eq!(words, expected);
    assert!(entries.iter().all(|entry| entry.difference.is_none()));
}
