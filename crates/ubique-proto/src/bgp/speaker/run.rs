//! The speaker at work: sessions feed the RIB, the RIB feeds sessions.

use std::collections::{HashMap, VecDeque};

use ubique_model::{Family, Prefix};

use super::ledger::Ledger;
use super::status::Faults;
use super::{ConnId, In, Out, PeerId, SessionEvent, SpeakerConfig};
use crate::bgp::family::{AddressFamilies, AddressFamily};
use crate::bgp::message::{Nlri, Notification, Update};
use crate::bgp::notification::{cease, code};
use crate::bgp::rib::{Change, Rib};
use crate::bgp::session::{Output, Session, SessionConfig};
use crate::bgp::wire::{self, EncodeContext};
use crate::rng::Rng;
use crate::time::Time;

/// Octets under way to a neighbour beyond which no more UPDATEs are written to it. What it is owed stays in its
/// Adj-RIB-Out, where each prefix has room once, until [`In::Acknowledged`] makes room.
pub const SEND_WINDOW: u64 = 1 << 20;

/// Where a message has its length (RFC 4271 §4.1).
const LENGTH_AT: usize = 16;

/// A BGP speaker.
#[derive(Debug)]
pub struct Speaker {
    pub(super) config: SpeakerConfig,
    pub(super) peers: Vec<Peer>,
    pub(super) rib: Rib,
    owners: HashMap<ConnId, PeerId>,
    output: VecDeque<Out>,
    pub(super) last_activity: Time,
}

/// A neighbour and what we keep about it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) session: Session,
    pub(super) ledger: Ledger,
    pub(super) faults: Faults,
    family: Family,
    /// The initial exchange of this session is complete and its End-of-RIB sent (RFC 4724 §2).
    end_of_rib_sent: bool,
}

impl Speaker {
    /// A speaker with all neighbours disabled until [`In::Start`] or [`In::StartPeer`].
    pub fn new(config: SpeakerConfig) -> Speaker {
        let mut rng = Rng::new(config.seed);
        let peers = config.peers.iter().map(|peer| {
            let family = Family::of_address(peer.address);
            let session = Session::new(&SessionConfig {
                local_asn: config.asn,
                router_id: config.router_id,
                peer: peer.clone(),
                seed: rng.next_u64(),
            });
            Peer { session, ledger: Ledger::default(), faults: Faults::default(), family, end_of_rib_sent: false }
        });
        Speaker {
            peers: peers.collect(),
            rib: Rib::new(config.clone()),
            owners: HashMap::new(),
            output: VecDeque::new(),
            last_activity: Time::ZERO,
            config,
        }
    }

    /// Takes one input. Everything it leads to can be polled when this returns: a withdrawal waits for nothing.
    /// Inputs about unknown neighbours and connections that are gone are ignored.
    pub fn handle_input(&mut self, now: Time, input: In) {
        match input {
            In::Start => {
                for index in 0..self.peers.len() {
                    self.with_session(now, peer_id(index), |session| session.start(now));
                }
            }
            In::StartPeer(peer) => self.with_session(now, peer, |session| session.start(now)),
            In::StopPeer { peer, subcode, message } => {
                self.with_session(now, peer, |session| session.stop(now, subcode, &message));
            }
            In::Connected { peer, conn, local } => {
                if self.adopt(peer, conn) {
                    self.with_session(now, peer, |session| session.connected(now, conn, local));
                }
            }
            In::ConnectFailed { peer } => {
                self.with_session(now, peer, |session| session.connect_failed(now));
            }
            In::Accepted { peer, conn, local } => {
                if self.adopt(peer, conn) {
                    self.with_session(now, peer, |session| session.accepted(now, conn, local));
                }
            }
            In::Received { conn, bytes } => {
                if let Some(&peer) = self.owners.get(&conn) {
                    self.with_session(now, peer, |session| session.received(now, conn, &bytes));
                }
            }
            In::Closed { conn } => {
                if let Some(peer) = self.owners.remove(&conn) {
                    self.with_session(now, peer, |session| session.closed(now, conn));
                }
            }
            In::Acknowledged { conn, offset } => self.acknowledged(now, conn, offset),
            In::Announce { peer, announcement } => {
                if let Some(p) = self.peers.get_mut(peer.0 as usize) {
                    p.ledger.announce(&announcement);
                    self.rib.announce(peer, announcement);
                }
            }
            In::Withdraw { peer, prefix } => {
                if let Some(p) = self.peers.get_mut(peer.0 as usize) {
                    p.ledger.withdraw(&prefix);
                    self.rib.withdraw(peer, prefix);
                }
            }
            In::Originate { prefix } => self.rib.originate(prefix),
            In::AnnounceFlow { .. }
            | In::WithdrawFlow { .. }
            | In::AddPeer { .. }
            | In::RemovePeer { .. }
            | In::BfdDown { .. }
            | In::Settled => {}
            In::RequestRefresh { peer } => {
                self.with_session(now, peer, |session| session.request_refresh(now));
            }
        }
        self.flush(now);
    }

    /// Runs all timers that are due.
    pub fn handle_deadline(&mut self, now: Time) {
        for index in 0..self.peers.len() {
            self.with_session(now, peer_id(index), |session| session.handle_deadline(now));
        }
        self.flush(now);
    }

    /// When to call [`Speaker::handle_deadline`]. Changes with every input and deadline.
    pub fn next_deadline(&self) -> Option<Time> {
        self.peers.iter().filter_map(|p| p.session.next_deadline()).min()
    }

    /// What to do next; call until `None` after every input and deadline.
    pub fn poll_output(&mut self) -> Option<Out> {
        self.output.pop_front()
    }

    /// Whether the connection is for a neighbour we have; closes it when not.
    fn adopt(&mut self, peer: PeerId, conn: ConnId) -> bool {
        let known = self.peers.get(peer.0 as usize).is_some();
        if known {
            self.owners.insert(conn, peer);
        } else {
            self.output.push_back(Out::Close { conn });
        }
        known
    }

    fn acknowledged(&mut self, now: Time, conn: ConnId, offset: u64) {
        let Some(&peer) = self.owners.get(&conn) else {
            return;
        };
        let Some(p) = self.peers.get_mut(peer.0 as usize) else {
            return;
        };
        p.session.acknowledged(now, conn, offset);
        if let Some(connection) = p.session.established().filter(|c| c.id == conn) {
            p.ledger.acknowledged(connection.confirmed());
        }
    }

    /// Does something to a session and carries its outputs on, in their order.
    fn with_session(&mut self, now: Time, peer: PeerId, act: impl FnOnce(&mut Session)) {
        let Some(p) = self.peers.get_mut(peer.0 as usize) else {
            return;
        };
        act(&mut p.session);
        self.drain(now, peer);
    }

    fn drain(&mut self, now: Time, peer: PeerId) {
        while let Some(p) = self.peers.get_mut(peer.0 as usize) {
            let Some(output) = p.session.poll_output() else {
                return;
            };
            match output {
                Output::Connect => self.output.push_back(Out::Connect { peer }),
                Output::CancelConnect => self.output.push_back(Out::CancelConnect { peer }),
                Output::Send(conn, bytes) => self.output.push_back(Out::Send { conn, bytes }),
                Output::Close(conn) => {
                    self.owners.remove(&conn);
                    self.output.push_back(Out::Close { conn });
                }
                Output::Up(local, negotiated) => {
                    p.ledger.restart();
                    p.end_of_rib_sent = false;
                    let families = AddressFamilies::only(p.family);
                    self.rib.peer_up(now, peer, local, negotiated.router_id, families, AddressFamilies::NONE);
                    let event = SessionEvent::Up { router_id: negotiated.router_id, hold_time: negotiated.hold_time };
                    self.session_event(now, peer, event);
                }
                Output::Down(was_established, reason) => {
                    if was_established {
                        p.ledger.restart();
                        self.rib.peer_down(peer);
                    }
                    self.session_event(now, peer, SessionEvent::Down { was_established, reason });
                }
                Output::Update(update) => self.update(now, peer, &update),
                Output::Resend => self.rib.refresh(peer, p.family.into()),
            }
        }
    }

    fn session_event(&mut self, now: Time, peer: PeerId, event: SessionEvent) {
        self.last_activity = now;
        self.output.push_back(Out::Session { peer, event });
    }

    fn update(&mut self, now: Time, peer: PeerId, update: &Update) {
        self.last_activity = now;
        self.rib.update(now, peer, update);
        let over_limit = self.rib.over_limit(peer);
        let Some(p) = self.peers.get_mut(peer.0 as usize) else {
            return;
        };
        p.faults.record(&update.faults);
        if let Some((family, limit)) = over_limit.filter(|_| p.session.established().is_some()) {
            p.session.cease(now, too_many_prefixes(family, limit));
        }
    }

    /// Sends every neighbour what it is owed, withdrawals first, then tells what to forward where.
    fn flush(&mut self, now: Time) {
        for index in 0..self.peers.len() {
            self.flush_peer(now, peer_id(index));
        }
        while let Some((prefix, next_hop)) = self.rib.poll_best() {
            self.output.push_back(Out::Best { prefix, next_hop });
        }
    }

    fn flush_peer(&mut self, now: Time, peer: PeerId) {
        let Some(p) = self.peers.get_mut(peer.0 as usize) else {
            return;
        };
        let Some(context) = p.session.encode_context() else {
            return;
        };
        let Some((start, under_way)) = p.session.established().map(|c| (c.sent(), c.unacknowledged())) else {
            return;
        };
        let mut bytes = vec![];
        while under_way + (bytes.len() as u64) < SEND_WINDOW {
            let Some(change) = self.rib.poll_changes(peer) else {
                if !p.end_of_rib_sent {
                    p.end_of_rib_sent = true;
                    wire::encode_end_of_rib(p.family.into(), &mut bytes);
                }
                break;
            };
            write_change(&change, &context, start, &mut bytes, &mut p.ledger);
        }
        if !bytes.is_empty() {
            let messages = count_messages(&bytes);
            p.session.send_updates(now, bytes, messages);
            self.last_activity = now;
            self.drain(now, peer);
        }
    }
}

fn peer_id(index: usize) -> PeerId {
    PeerId(u32::try_from(index).unwrap_or(u32::MAX))
}

/// Appends the UPDATEs of a change and notes in the ledger where they end, in octets after `start`. Routes whose
/// attributes no message can hold are withdrawn instead: what the neighbour held before is no longer true.
fn write_change(change: &Change, context: &EncodeContext, start: u64, bytes: &mut Vec<u8>, ledger: &mut Ledger) {
    let prefixes = change.announced.as_ref().map_or(&[][..], |(_, _, prefixes)| prefixes);
    let nlri = |prefixes: &[Prefix]| prefixes.iter().copied().map(Nlri::from).collect::<Vec<_>>();
    let (withdrawn, announced) = (nlri(&change.withdrawn), nlri(prefixes));
    let with = change.announced.as_ref().map(|(a, next_hop, _)| (&**a, *next_hop, &announced[..]));
    let sent = wire::encode_updates(&withdrawn, with, context, bytes);
    if sent.is_err() {
        // Cannot fail: without attributes there is nothing that is too long.
        let _ = wire::encode_updates(&announced, None, context, bytes);
    }
    let end = start + bytes.len() as u64;
    for prefix in &change.withdrawn {
        ledger.withdrawn(prefix, end);
    }
    for prefix in prefixes {
        if sent.is_ok() { ledger.announced(prefix, end) } else { ledger.withdrawn(prefix, end) }
    }
}

/// Messages in a buffer of whole ones.
fn count_messages(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while let Some(length) = bytes.get(LENGTH_AT..LENGTH_AT + 2) {
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        bytes = bytes.get(length.max(wire::HEADER_LEN)..).unwrap_or(&[]);
        count += 1;
    }
    count
}

/// Cease, Maximum Number of Prefixes Reached, with family and limit (RFC 4486 §4).
fn too_many_prefixes(family: AddressFamily, limit: u32) -> Notification {
    let (afi, safi) = family.afi_safi();
    let mut data = afi.to_be_bytes().to_vec();
    data.push(safi);
    data.extend_from_slice(&limit.to_be_bytes());
    Notification::with_data(code::CEASE, cease::MAXIMUM_NUMBER_OF_PREFIXES, data)
}
