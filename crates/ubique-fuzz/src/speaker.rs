//! The speaker under any sequence of inputs, audited as in the random tests of `ubique-proto`; and two of them.

#[path = "../../ubique-proto/src/bgp/speaker/tests/audit.rs"]
mod audit;
#[path = "../../ubique-proto/src/bgp/speaker/tests/drive.rs"]
#[allow(dead_code, reason = "shared with the tests of ubique-proto")]
mod drive;
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
use ubique_proto::bgp::session::State;
use ubique_proto::bgp::speaker::{Delivery, GracefulRestartConfig, In, PeerId, Speaker, SpeakerConfig};
use ubique_proto::health::{self, CheckConfig, Health};
use ubique_proto::journal::{self, Body, CoreId, Event, Parsed, Recorded, Replay, Sink};
use ubique_proto::site::{Site, SiteConfig};

use crate::Time;
use crate::rng::{Rng, feed};
use drive::{Play, SCOPE};
use fixture::{announcement, config, peer, prefix};

/// Inputs of one run.
const STEPS: usize = 400;

/// Timers run in one wait.
const TIMERS: usize = 50;

/// Octets: what is configured, then inputs and waits.
pub(crate) fn speaker(input: &[u8]) {
    let mut rng = feed(input);
    let mut config = drive::any(&mut rng);
    config.prefer_oldest = rng.one_in(2);
    config.tap = rng.one_in(2);
    play(config, rng, None);
}

/// The same, recorded; the recording is played again and must lead to the same outputs.
pub(crate) fn replay(input: &[u8]) {
    let mut rng = feed(input);
    let config = drive::any(&mut rng);
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
    let config = drive::any_edge(&mut rng);
    play(config, rng, None);
}

fn play(config: SpeakerConfig, rng: Rng, tape: Option<Tape>) {
    let mut play = Play::new(config, rng, tape, TIMERS);
    for _ in 0..STEPS {
        if play.rng.is_empty() {
            break;
        }
        play.step();
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
