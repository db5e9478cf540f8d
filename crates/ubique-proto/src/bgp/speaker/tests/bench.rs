//! A speaker with one neighbour that a test plays.

use std::net::Ipv4Addr;
use std::time::Duration;

use ubique_model::{Prefix, Relation};

use super::fixture::{self, announcement, asn, config, drain, keepalive, local, peer, prefix};
use crate::bgp::family::{AddressFamilies, AddressFamily};
use crate::bgp::message::{Capability, GracefulRestart, LongLived, Message, Notification, Open};
use crate::bgp::rib::Stale;
use crate::bgp::session::State;
use crate::bgp::speaker::{ConnId, In, Out, PeerConfig, PeerId, Speaker, SpeakerConfig};
use crate::bgp::wire;
use crate::time::Time;

pub(super) const P0: PeerId = PeerId(0);
pub(super) const V4: AddressFamily = AddressFamily::Ipv4Unicast;
pub(super) const V6: AddressFamily = AddressFamily::Ipv6Unicast;

pub(super) fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The neighbour as configured: both unicast families, changed as the test likes.
pub(super) fn neighbour(change: impl FnOnce(&mut PeerConfig)) -> SpeakerConfig {
    let mut peer = PeerConfig { families: AddressFamilies::UNICAST, ..peer(2, Relation::Peer) };
    change(&mut peer);
    config(1, 1, vec![peer])
}

/// Its OPEN, with these capabilities beside the usual ones.
pub(super) fn open_with(families: &[AddressFamily], more: Vec<Capability>) -> Open {
    let mut capabilities: Vec<Capability> = families.iter().copied().map(Capability::Multiprotocol).collect();
    capabilities.extend([Capability::RouteRefresh, Capability::FourOctetAs(asn(2))]);
    capabilities.extend(more);
    Open { asn: asn(2), hold_time_s: 0, router_id: Ipv4Addr::new(10, 0, 0, 2), capabilities }
}

/// Its graceful restart capability.
pub(super) fn graceful(restart_time_s: u64, notification: bool, families: &[(AddressFamily, bool)]) -> Capability {
    Capability::GracefulRestart(GracefulRestart {
        restarting: false,
        notification,
        restart_time: s(restart_time_s),
        families: families.to_vec(),
    })
}

/// Its long-lived graceful restart capability.
pub(super) fn long_lived(families: &[(AddressFamily, bool, u64)]) -> Capability {
    let of = |&(family, forwarding, seconds): &(_, _, _)| LongLived { family, forwarding, stale_time: s(seconds) };
    Capability::LongLivedGracefulRestart(families.iter().map(of).collect())
}

pub(super) struct Bench {
    pub(super) speaker: Speaker,
    pub(super) now: Time,
    conn: ConnId,
}

impl Bench {
    /// Started, not connected.
    pub(super) fn new(config: SpeakerConfig) -> Bench {
        let mut b = Bench { speaker: Speaker::new(config), now: Time(1_000_000_000), conn: ConnId(0) };
        b.input(In::Start);
        b
    }

    /// Established, what was sent so far thrown away.
    pub(super) fn up(config: SpeakerConfig, open: &Open) -> Bench {
        let mut b = Bench::new(config);
        b.connect(open);
        b.sent();
        b
    }

    /// Another one in the same place, with that speaker.
    pub(super) fn twin(&self, speaker: Speaker) -> Bench {
        Bench { speaker, now: self.now, conn: self.conn }
    }

    pub(super) fn input(&mut self, input: In) {
        self.speaker.handle_input(self.now, input);
    }

    /// The neighbour connects and gets through.
    pub(super) fn connect(&mut self, open: &Open) {
        self.accepted();
        let mut bytes = vec![];
        wire::encode_open(open, &mut bytes);
        bytes.extend(keepalive());
        self.receive(bytes);
        assert!(self.is_up(), "{:?}", self.speaker.peer(P0).and_then(|p| p.last_down.cloned()));
    }

    /// The neighbour's connection is there.
    pub(super) fn accepted(&mut self) {
        self.conn = ConnId(self.conn.0 + 1);
        self.input(In::Accepted { peer: P0, conn: self.conn, local: local(1) });
    }

    pub(super) fn close(&mut self) {
        self.input(In::Closed { conn: self.conn });
    }

    pub(super) fn is_up(&self) -> bool {
        self.speaker.peer(P0).is_some_and(|p| p.state == State::Established)
    }

    pub(super) fn receive(&mut self, bytes: Vec<u8>) {
        self.input(In::Received { conn: self.conn, bytes });
    }

    pub(super) fn receive_end_of_rib(&mut self, family: AddressFamily) {
        let mut bytes = vec![];
        wire::encode_end_of_rib(family, &mut bytes);
        self.receive(bytes);
    }

    pub(super) fn receive_refresh(&mut self, family: AddressFamily, subtype: u8) {
        let mut bytes = vec![];
        wire::encode_route_refresh(family, subtype, &mut bytes);
        self.receive(bytes);
    }

    pub(super) fn receive_notification(&mut self, notification: &Notification) {
        let mut bytes = vec![];
        wire::encode_notification(notification, &mut bytes);
        self.receive(bytes);
    }

    /// The neighbour's TCP has confirmed everything.
    pub(super) fn acknowledge(&mut self) {
        self.input(In::Acknowledged { conn: self.conn, offset: u64::MAX });
    }

    pub(super) fn announce(&mut self, text: &str) {
        self.input(In::Announce { peer: P0, announcement: announcement(text) });
    }

    pub(super) fn withdraw(&mut self, text: &str) {
        self.input(In::Withdraw { peer: P0, prefix: prefix(text) });
    }

    pub(super) fn wait(&mut self, d: Duration) {
        let end = self.now + d;
        while let Some(at) = self.speaker.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.speaker.handle_deadline(self.now);
        }
        self.now = end;
    }

    /// What was put out since the last look.
    pub(super) fn outputs(&mut self) -> Vec<Out> {
        drain(&mut self.speaker)
    }

    /// Messages sent since the last look.
    pub(super) fn sent(&mut self) -> Vec<Message> {
        let outputs = self.outputs();
        let sent = outputs.iter().filter_map(|output| match output {
            Out::Send { bytes, .. } => Some(fixture::messages(bytes)),
            _ => None,
        });
        sent.flatten().collect()
    }

    /// Messages sent since the last look, as words.
    pub(super) fn words(&mut self) -> String {
        let words: Vec<String> = self.sent().iter().map(word).collect();
        words.join(", ")
    }

    /// The capabilities of our OPEN, when one was sent since the last look.
    pub(super) fn offered(&mut self) -> Vec<Capability> {
        let open = self.sent().into_iter().find_map(|message| match message {
            Message::Open(open) => Some(open.capabilities),
            _ => None,
        });
        open.expect("an OPEN was sent")
    }

    /// Adj-RIB-In as words: a stale route has a `~`, a long-lived stale one `~~`.
    pub(super) fn held(&self) -> String {
        let word = |prefix: Prefix, stale: Stale| match stale {
            Stale::No => prefix.to_string(),
            Stale::Restart => format!("{prefix}~"),
            Stale::LongLived => format!("{prefix}~~"),
        };
        let held: Vec<String> = self.speaker.rib().received(P0, None).map(|r| word(r.prefix, r.stale)).collect();
        held.join(" ")
    }
}

fn word(message: &Message) -> String {
    let joined = |words: Vec<String>| words.join(" ");
    match message {
        Message::Open(_) => "OPEN".to_owned(),
        Message::Notification(n) => format!("{}/{}", n.code, n.subcode),
        Message::Keepalive => "KEEPALIVE".to_owned(),
        Message::RouteRefresh { afi, subtype, safi } => {
            let family = AddressFamily::from_afi_safi(*afi, *safi).map_or("?".to_owned(), |f| f.to_string());
            format!("{} {family}", ["REFRESH", "BoRR", "EoRR"][usize::from(*subtype)])
        }
        Message::Update(update) => {
            let announced = update.announced.iter().flat_map(|reach| &reach.prefixes);
            let mut words: Vec<String> = update.withdrawn.iter().map(|n| format!("-{n}")).collect();
            words.extend(announced.map(|n| format!("+{n}")));
            words.extend(update.flows_withdrawn.iter().map(|_| "-flow".to_owned()));
            words.extend(update.flows_announced.iter().map(|_| "+flow".to_owned()));
            words.extend(update.end_of_rib.map(|family| format!("EoR {family}")));
            joined(words)
        }
    }
}
