//! A live session and each case: what comes back, what is believed, and what goes on to others.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ubique_model::policy::Announcement;
use ubique_model::{Asn, Prefix, Relation};
use ubique_proto::Time;
use ubique_proto::bgp::family::AddressFamilies;
use ubique_proto::bgp::message::{Message, Notification};
use ubique_proto::bgp::session::State;
use ubique_proto::bgp::speaker::{
    ConnId, DownReason, Export, Import, In, Out, PeerConfig, PeerId, SessionEvent, Speaker, SpeakerConfig,
};
use ubique_proto::bgp::wire::{DecodeContext, HEADER_LEN, decode};

use crate::table::{self, From, ROUTE, hex, update, wrapped};

pub const OWN_AS: Asn = Asn(64501);
/// The neighbour that sends what the cases say.
const PEER: PeerId = PeerId(0);
const CONN: ConnId = ConnId(1);
/// Another one, which must not notice.
const WITNESS: PeerId = PeerId(1);
const WITNESS_CONN: ConnId = ConnId(2);
/// When sessions begin.
const START: Time = Time(1_000_000_000);
/// Proposed by us; neighbours say 90 s.
const HOLD_TIME: Duration = Duration::from_secs(9);

/// What we are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// An announcing edge: keeps nothing, passes on nothing.
    Edge,
    /// A router of the lab.
    Router,
}

/// A speaker with two neighbours.
pub struct Live {
    pub speaker: Speaker,
    pub now: Time,
    /// The connection is closed, with this said before.
    pub ended: Option<Option<Notification>>,
    pub reason: Option<DownReason>,
    /// What the witness was sent.
    pub passed_on: Vec<u8>,
    said: Option<Notification>,
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

fn peer(n: u8, asn: Asn, relation: Relation, kind: Kind) -> PeerConfig {
    let (import, export) = match kind {
        Kind::Edge => (Import::Observe, Export::OwnOnly),
        Kind::Router => (Import::GaoRexford, Export::GaoRexford),
    };
    let config = PeerConfig::new(address(n), asn, relation);
    PeerConfig { import, export, families: AddressFamilies::UNICAST, hold_time: HOLD_TIME, ..config }
}

/// An OPEN with both unicast families and, unless old, 4-octet AS numbers.
fn open(n: u8, asn: Asn, old: bool) -> Vec<u8> {
    let mut parameters = hex("0214 010400010001 010400020001 0200");
    parameters.extend(if old { hex("0202 8000") } else { [&hex("4104")[..], &asn.0.to_be_bytes()].concat() });
    // The last one lies in the first parameter when it is a capability.
    parameters[1] = if old { 14 } else { 20 };
    let two_octets = (asn.0 as u16).to_be_bytes();
    let body = [&[4][..], &two_octets, &[0, 90, 10, 0, 0, n, parameters.len() as u8], &parameters];
    wrapped(1, &body.concat())
}

impl Live {
    /// In the state a case begins in.
    pub fn new(from: From, kind: Kind) -> Live {
        let (asn, relation) =
            if from.internal() { (OWN_AS, Relation::Internal) } else { (Asn(64502), Relation::Customer) };
        let peers = vec![peer(2, asn, relation, kind), peer(3, Asn(64503), Relation::Customer, kind)];
        let config = SpeakerConfig { peers, ..SpeakerConfig::new(OWN_AS, Ipv4Addr::new(10, 0, 0, 1), 7) };
        let speaker = Speaker::new(config);
        let mut live = Live { speaker, now: START, ended: None, reason: None, passed_on: vec![], said: None };
        live.feed(In::Start);
        for (peer, conn) in [(PEER, CONN), (WITNESS, WITNESS_CONN)] {
            live.feed(In::Connected { peer, conn, local: address(1).into() });
        }
        for bytes in [open(3, Asn(64503), false), wrapped(4, &[])] {
            live.feed(In::Received { conn: WITNESS_CONN, bytes });
        }
        if from != From::OpenSent {
            live.receive(open(2, asn, from == From::Old));
        }
        if !matches!(from, From::OpenSent | From::OpenConfirm) {
            live.receive(wrapped(4, &[]));
            assert_eq!(live.state(), State::Established);
            live.receive(update(&[], &table::with_preference("origin path hop", from, true), &ROUTE));
            assert_eq!(live.received(), [prefix("203.0.113.0/24")].into());
        }
        live.passed_on.clear();
        live
    }

    pub fn feed(&mut self, input: In) {
        self.speaker.handle_input(self.now, input);
        self.carry_out();
    }

    pub fn receive(&mut self, bytes: Vec<u8>) {
        self.feed(In::Received { conn: CONN, bytes });
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            match output {
                Out::Send { conn: CONN, bytes } => {
                    assert_eq!(self.ended, None, "sent after the close");
                    self.listen(&bytes);
                }
                Out::Send { conn: WITNESS_CONN, bytes } => self.passed_on.extend(bytes),
                Out::Close { conn: CONN } => self.ended = Some(self.said.take()),
                Out::Close { conn } => panic!("{conn:?} closed, too"),
                Out::Session { peer: PEER, event: SessionEvent::Down { reason, .. } } => self.reason = Some(reason),
                _ => {}
            }
        }
    }

    fn listen(&mut self, bytes: &[u8]) {
        for message in split(bytes) {
            assert_eq!(self.said, None, "something after a NOTIFICATION");
            if message[HEADER_LEN - 1] == 3 {
                match decode(message, &DecodeContext::INITIAL) {
                    Ok(Message::Notification(notification)) => self.said = Some(notification),
                    other => panic!("not a NOTIFICATION: {other:?}"),
                }
            }
        }
    }

    pub fn state(&self) -> State {
        self.speaker.peer(PEER).expect("configured").state
    }

    /// Prefixes believed of the neighbour.
    pub fn received(&self) -> BTreeSet<Prefix> {
        self.speaker.rib().received(PEER, None).map(|route| route.prefix).collect()
    }

    /// Faults told of: dropped attributes, withdrawn messages.
    pub fn faults(&self) -> (u64, u64) {
        let faults = self.speaker.peer(PEER).expect("configured").faults;
        (faults.discarded, faults.withdrawn)
    }

    /// The witness's session goes on, and silence ends ours with the hold timer: nothing is stuck.
    pub fn lives_on(mut self) {
        assert_eq!(self.speaker.peer(WITNESS).expect("configured").state, State::Established);
        self.passed_on.clear();
        self.feed(In::Received { conn: WITNESS_CONN, bytes: wrapped(5, &[0, 1, 0, 1]) });
        let end = self.now + 2 * HOLD_TIME;
        while self.ended.is_none() {
            let at = self.speaker.next_deadline().expect("timers run");
            assert!(at <= end, "silence is not noticed");
            self.now = self.now.max(at);
            self.feed(In::Received { conn: WITNESS_CONN, bytes: wrapped(4, &[]) });
            self.speaker.handle_deadline(self.now);
            self.carry_out();
        }
        assert_eq!(self.ended, Some(Some(Notification::new(4, 0))));
    }

    /// Announces a prefix of our own to the witness.
    pub fn announce(&mut self, text: &str) {
        let announcement = Announcement {
            prefix: prefix(text),
            prepend: 0,
            med: None,
            communities: vec![],
            extended_communities: vec![],
            large_communities: vec![],
        };
        self.feed(In::Announce { peer: WITNESS, announcement });
    }

    /// The witness asks for everything again.
    pub fn refresh(&mut self) {
        self.passed_on.clear();
        self.feed(In::Received { conn: WITNESS_CONN, bytes: wrapped(5, &[0, 1, 0, 1]) });
    }
}

/// Whole messages.
pub fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut all = vec![];
    while let Some(header) = bytes.first_chunk::<HEADER_LEN>() {
        let (message, rest) = bytes.split_at(usize::from(u16::from_be_bytes([header[16], header[17]])));
        all.push(message);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "whole messages are sent");
    all
}

/// Path attributes of an UPDATE: flags, code, value.
pub fn path_attributes(message: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
    let at = 21 + u16_at(19);
    let mut field = &message[at + 2..at + 2 + u16_at(at)];
    let mut all = vec![];
    while let [flags, code, rest @ ..] = field {
        let head = if flags & 0x10 == 0 { 1 } else { 2 };
        let length = rest[..head].iter().fold(0, |n, octet| n << 8 | usize::from(*octet));
        all.push((*flags, *code, rest[head..head + length].to_vec()));
        field = &rest[head + length..];
    }
    all
}
