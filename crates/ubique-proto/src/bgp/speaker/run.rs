//! The speaker at work: sessions feed the RIB, the RIB feeds sessions.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::Prefix;

use super::graceful::Retention;
use super::ledger::Ledger;
use super::send::Sending;
use super::status::Faults;
use super::{ConnId, In, Order, Out, PeerConfig, PeerId, Restarted, SessionEvent, SpeakerConfig};
use crate::bgp::family::AddressFamily;
use crate::bgp::message::{Notification, Update};
use crate::bgp::notification::{cease, code};
use crate::bgp::rib::{Excess, Rib};
use crate::bgp::session::{Ended, Output, Refresh, Session, SessionConfig};
use crate::rng::Rng;
use crate::time::Time;

/// Neighbours a speaker has at most, dynamic ones included: each holds a few kilobytes, and anyone in a listened-to
/// prefix may become one.
pub const MAX_PEERS: usize = ubique_model::service::spec::MAX_NEIGHBOURS;

/// Prefixes looked at in one turn when routes that are gone leave the table: about a millisecond.
const REAPED_AT_ONCE: usize = 4096;

/// Between two such turns, for everything else: half a second for a million prefixes.
const REAP_INTERVAL: Duration = Duration::from_millis(2);

/// A BGP speaker.
#[derive(Debug, Serialize, Deserialize)]
pub struct Speaker {
    /// Without neighbours: each slot of `peers` has its own.
    pub(super) config: SpeakerConfig,
    /// By [`PeerId`]; vacant ones are used again.
    pub(super) peers: Vec<Option<Peer>>,
    pub(super) rib: Rib,
    owners: BTreeMap<ConnId, PeerId>,
    /// Seeds of neighbours.
    rng: Rng,
    /// Empty whenever the driver may look.
    #[serde(skip)]
    pub(super) output: VecDeque<Out>,
    pub(super) last_activity: Time,
    /// Routes that are gone leave the table, some of them then.
    reap_at: Option<Time>,
}

/// A neighbour and what we keep about it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Peer {
    pub(super) session: Session,
    pub(super) ledger: Ledger,
    pub(super) faults: Faults,
    pub(super) sending: Sending,
    pub(super) retention: Retention,
    pub(super) settling: Settling,
}

/// Whether we have told a neighbour everything after a restart (RFC 4724 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Settling {
    /// We have, or there was no restart.
    Done,
    /// It was not started yet.
    Waiting,
    /// Not yet; it is not kept waiting beyond this.
    Until(Time),
}

impl Peer {
    fn new(config: &SpeakerConfig, peer: PeerConfig, restarted: Option<Restarted>, seed: u64) -> Peer {
        let restarted = restarted.filter(|_| peer.graceful_restart.is_some());
        Peer {
            session: Session::new(&SessionConfig {
                local_asn: config.asn,
                router_id: config.router_id,
                peer,
                seed,
                restarted,
                tap: config.tap,
            }),
            ledger: Ledger::default(),
            faults: Faults::default(),
            sending: Sending::default(),
            retention: Retention::default(),
            settling: if restarted.is_some() { Settling::Waiting } else { Settling::Done },
        }
    }

    fn start(&mut self, now: Time) {
        if self.settling == Settling::Waiting {
            let restart = self.session.config().graceful_restart.map(|gr| gr.restart_time);
            self.settling = Settling::Until(now + restart.unwrap_or_default());
        }
        self.session.start(now);
    }

    fn settle(&mut self) {
        self.settling = Settling::Done;
        self.session.settled();
    }

    fn next_deadline(&self) -> Option<Time> {
        let settling = match self.settling {
            Settling::Until(at) => Some(at),
            Settling::Done | Settling::Waiting => None,
        };
        [self.session.next_deadline(), self.retention.deadline(), settling].into_iter().flatten().min()
    }
}

impl Speaker {
    /// A speaker with all neighbours disabled until [`In::Start`] or [`In::StartPeer`].
    pub fn new(mut config: SpeakerConfig) -> Speaker {
        let mut rng = Rng::new(config.seed);
        let rib = Rib::new(config.clone());
        let peers = std::mem::take(&mut config.peers);
        let peers = peers.into_iter().map(|peer| Some(Peer::new(&config, peer, config.restarted, rng.next_u64())));
        Speaker {
            peers: peers.collect(),
            rib,
            owners: BTreeMap::new(),
            rng,
            output: VecDeque::new(),
            last_activity: Time::ZERO,
            reap_at: None,
            config,
        }
    }

    /// Takes one input. Everything it leads to can be polled when this returns: a withdrawal waits for nothing.
    /// Inputs about unknown neighbours and connections that are gone are ignored.
    pub fn handle_input(&mut self, now: Time, input: In) {
        match input {
            In::Start => self.with_all(now, |p| p.start(now)),
            In::StartPeer(peer) => self.with(now, peer, |p| p.start(now)),
            In::StopPeer { peer, subcode, message } => self.stop(now, peer, Notification::cease(subcode, &message)),
            In::Connected { peer, conn, local } => {
                if self.adopt(peer, conn) {
                    self.with(now, peer, |p| p.session.connected(now, conn, local));
                }
            }
            In::ConnectFailed { peer } => self.with(now, peer, |p| p.session.connect_failed(now)),
            In::Accepted { peer, conn, local } => {
                if self.adopt(peer, conn) {
                    self.with(now, peer, |p| p.session.accepted(now, conn, local));
                }
            }
            In::Received { conn, bytes } => {
                if let Some(&peer) = self.owners.get(&conn) {
                    self.with(now, peer, |p| p.session.received(now, conn, &bytes));
                }
            }
            In::Closed { conn } => {
                if let Some(peer) = self.owners.remove(&conn) {
                    self.with(now, peer, |p| p.session.closed(now, conn));
                }
            }
            In::Acknowledged { conn, offset } => self.acknowledged(now, conn, offset),
            In::Announce { peer, announcement } => self.announce(peer, announcement),
            In::Withdraw { peer, prefix } => self.withdraw(peer, prefix),
            In::Orders(orders) => orders.into_iter().for_each(|order| match order {
                Order::Announce { peer, announcement } => self.announce(peer, announcement),
                Order::Withdraw { peer, prefix } => self.withdraw(peer, prefix),
            }),
            In::Originate { prefix } => self.rib.originate(prefix),
            In::RequestRefresh { peer } => self.with(now, peer, |p| p.session.request_refresh(now)),
            In::AnnounceFlow { peer, flow, actions } => self.announce_flow(peer, flow, actions),
            In::WithdrawFlow { peer, flow } => {
                if let Some(p) = self.peer_mut(peer) {
                    p.sending.flows.withdraw(&flow);
                }
            }
            In::AddPeer { peer, config } => self.add_peer(peer, *config),
            In::RemovePeer { peer } => self.remove_peer(now, peer),
            In::Rescope { scope } => self.rescope(now, scope),
            In::BfdDown { peer, control_independent } => self.bfd_down(now, peer, control_independent),
            In::Settled => {
                self.config.restarted = None;
                self.with_all(now, Peer::settle);
            }
        }
        self.flush(now);
    }

    /// Runs all timers that are due.
    pub fn handle_deadline(&mut self, now: Time) {
        self.with_all(now, |p| p.session.handle_deadline(now));
        for index in 0..self.peers.len() {
            let peer = peer_id(index);
            let Some(p) = self.peers.get_mut(index).and_then(Option::as_mut) else { continue };
            p.retention.expire(now, &mut self.rib, peer);
            if matches!(p.settling, Settling::Until(at) if at <= now) {
                p.settle();
            }
        }
        if self.peers.iter().flatten().all(|p| p.settling == Settling::Done) {
            self.config.restarted = None;
        }
        self.flush(now);
    }

    /// When to call [`Speaker::handle_deadline`]. Changes with every input and deadline.
    pub fn next_deadline(&self) -> Option<Time> {
        self.peers.iter().flatten().filter_map(Peer::next_deadline).chain(self.reap_at).min()
    }

    /// Frees what a session that ended has left in the table, a part each turn.
    pub(super) fn reap(&mut self, now: Time) {
        if self.reap_at.is_none_or(|at| at <= now) {
            self.rib.reap(REAPED_AT_ONCE);
            self.reap_at = self.rib.has_gone().then(|| now + REAP_INTERVAL);
        }
    }

    /// What to do next; call until `None` after every input and deadline.
    pub fn poll_output(&mut self) -> Option<Out> {
        self.output.pop_front()
    }

    pub(super) fn peer_mut(&mut self, peer: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(peer.0 as usize)?.as_mut()
    }

    pub(super) fn refuse(&mut self, peer: PeerId, reason: impl Into<String>) {
        self.output.push_back(Out::Refused { peer, reason: reason.into() });
    }

    fn announce(&mut self, peer: PeerId, announcement: ubique_model::policy::Announcement) {
        if !self.in_scope(&announcement.prefix) {
            return self.refuse(peer, format!("{} is outside of what this service may announce", announcement.prefix));
        }
        if let Some(p) = self.peer_mut(peer) {
            p.ledger.announce(&announcement);
            self.rib.announce(peer, announcement);
        }
    }

    fn withdraw(&mut self, peer: PeerId, prefix: Prefix) {
        if let Some(p) = self.peer_mut(peer) {
            p.ledger.withdraw(&prefix);
            self.rib.withdraw(peer, prefix);
        }
    }

    /// Whether it may be announced at all.
    pub(super) fn in_scope(&self, prefix: &Prefix) -> bool {
        self.config.scope.as_ref().is_none_or(|scope| scope.iter().any(|within| within.contains(prefix)))
    }

    /// Routes to prefixes that are new to us may not have been kept: neighbours are asked for them again.
    fn rescope(&mut self, now: Time, scope: Vec<Prefix>) {
        let wider = scope.iter().any(|prefix| !self.in_scope(prefix));
        self.rib.rescope(&scope);
        self.config.scope = Some(scope);
        if wider {
            self.with_all(now, |p| p.session.request_refresh(now));
        }
    }

    /// Whether the connection is for a neighbour we have; closes it when not.
    fn adopt(&mut self, peer: PeerId, conn: ConnId) -> bool {
        let known = self.peer_mut(peer).is_some();
        if known {
            self.owners.insert(conn, peer);
        } else {
            self.output.push_back(Out::Close { conn });
        }
        known
    }

    /// One of the prefixes that other sites announce, too.
    fn watches(&self, prefix: &Prefix) -> bool {
        self.config.scope.as_ref().is_some_and(|scope| scope.contains(prefix))
    }

    /// The lowest vacant number only, so that numbers stay small and both sides agree on them.
    fn add_peer(&mut self, peer: PeerId, config: PeerConfig) {
        let vacant = self.peers.iter().position(Option::is_none).unwrap_or(self.peers.len());
        if peer.0 as usize != vacant {
            return self.refuse(peer, format!("the next neighbour is number {vacant}"));
        }
        if vacant >= MAX_PEERS {
            return self.refuse(peer, format!("there are {MAX_PEERS} neighbours, no more fit"));
        }
        self.rib.add_peer(peer, config.clone());
        let new = Peer::new(&self.config, config, self.config.restarted, self.rng.next_u64());
        match self.peers.get_mut(vacant) {
            Some(slot) => *slot = Some(new),
            None => self.peers.push(Some(new)),
        }
    }

    fn remove_peer(&mut self, now: Time, peer: PeerId) {
        self.stop(now, peer, Notification::cease(cease::PEER_DECONFIGURED, ""));
        if let Some(slot) = self.peers.get_mut(peer.0 as usize) {
            *slot = None;
            self.rib.remove_peer(peer);
            self.owners.retain(|_, owner| *owner != peer);
        }
    }

    /// Disables a neighbour; routes it left behind go, too.
    fn stop(&mut self, now: Time, peer: PeerId, notification: Notification) {
        self.with(now, peer, |p| p.session.disable(now, notification));
        if let Some(p) = self.peers.get_mut(peer.0 as usize).and_then(Option::as_mut) {
            p.retention.ended(&mut self.rib, peer);
        }
    }

    /// A neighbour that restarts is waited for no longer when its forwarding is gone as well (RFC 5882 §4.3.1).
    fn bfd_down(&mut self, now: Time, peer: PeerId, control_independent: bool) {
        self.with(now, peer, |p| p.session.bfd_down(now, control_independent));
        if let Some(p) = self.peers.get_mut(peer.0 as usize).and_then(Option::as_mut)
            && control_independent
            && p.session.established().is_none()
            && !p.retention.families().is_empty()
        {
            p.retention.ended(&mut self.rib, peer);
        }
    }

    fn acknowledged(&mut self, now: Time, conn: ConnId, offset: u64) {
        let Some(p) = self.owners.get(&conn).copied().and_then(|peer| self.peer_mut(peer)) else {
            return;
        };
        p.session.acknowledged(now, conn, offset);
        if let Some(connection) = p.session.established().filter(|c| c.id == conn) {
            p.ledger.acknowledged(connection.confirmed());
        }
    }

    fn with_all(&mut self, now: Time, mut act: impl FnMut(&mut Peer)) {
        for index in 0..self.peers.len() {
            self.with(now, peer_id(index), &mut act);
        }
    }

    /// Does something to a neighbour and carries the outputs of its session on, in their order.
    fn with(&mut self, now: Time, peer: PeerId, act: impl FnOnce(&mut Peer)) {
        if let Some(p) = self.peer_mut(peer) {
            act(p);
            self.drain(now, peer);
        }
    }

    pub(super) fn drain(&mut self, now: Time, peer: PeerId) {
        while let Some(p) = self.peers.get_mut(peer.0 as usize).and_then(Option::as_mut) {
            let Some(output) = p.session.poll_output() else {
                return;
            };
            match output {
                Output::Connect => self.output.push_back(Out::Connect { peer }),
                Output::CancelConnect => self.output.push_back(Out::CancelConnect { peer }),
                Output::Send(conn, bytes) => self.send(peer, conn, bytes),
                Output::Close(conn) => {
                    self.owners.remove(&conn);
                    self.output.push_back(Out::Close { conn });
                }
                Output::Up(local, negotiated) => {
                    p.ledger.restart();
                    p.sending.restart();
                    let n = &negotiated;
                    let long_lived = !n.long_lived.is_empty();
                    self.rib.peer_up(peer, local, n.router_id, n.families, n.extended_next_hop, long_lived);
                    p.retention.returned(now, &mut self.rib, peer, n);
                    let event = SessionEvent::Up { router_id: n.router_id, hold_time: n.hold_time };
                    self.session_event(now, peer, event);
                }
                Output::Down(ended, reason) => {
                    let was_established = ended != Ended::Attempt;
                    self.ended(now, peer, &ended);
                    self.session_event(now, peer, SessionEvent::Down { was_established, reason });
                }
                Output::Message(conn, bytes) => {
                    self.output.push_back(Out::Message { peer, conn, sent: false, bytes });
                }
                Output::Update(update) => self.update(now, peer, &update),
                Output::Refresh(family, refresh) => self.refresh(now, peer, family, refresh),
            }
        }
    }

    /// What becomes of the routes of a session.
    fn ended(&mut self, now: Time, peer: PeerId, ended: &Ended) {
        let Some(p) = self.peers.get_mut(peer.0 as usize).and_then(Option::as_mut) else { return };
        match ended {
            Ended::Attempt => return,
            Ended::Session => p.retention.ended(&mut self.rib, peer),
            Ended::Gracefully(negotiated) => {
                let config = p.session.config().graceful_restart.unwrap_or_default();
                p.retention.lost(now, &mut self.rib, peer, negotiated, &config);
            }
        }
        p.ledger.restart();
        p.sending.restart();
    }

    fn session_event(&mut self, now: Time, peer: PeerId, event: SessionEvent) {
        self.last_activity = now;
        self.output.push_back(Out::Session { peer, event });
    }

    fn update(&mut self, now: Time, peer: PeerId, update: &Update) {
        self.last_activity = now;
        self.rib.update(now, peer, update);
        let announced = update.announced.iter().flat_map(|reach| &reach.prefixes);
        if update.withdrawn.iter().chain(announced).any(|nlri| self.watches(&nlri.prefix)) {
            self.output.push_back(Out::Scope { peer });
        }
        let over_limit = self.rib.over_limit(peer);
        let Some(p) = self.peers.get_mut(peer.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        p.faults.record(&update.faults);
        if let Some(family) = update.end_of_rib {
            p.retention.end_of_rib(&mut self.rib, peer, family);
        }
        if let Some(excess) = over_limit.filter(|_| p.session.established().is_some()) {
            // For an operator to look at: the neighbour leaks, and would do so again.
            let notification = match excess {
                Excess::Prefixes(family, limit) => too_many_prefixes(family, limit),
                Excess::Octets => Notification::new(code::CEASE, cease::OUT_OF_RESOURCES),
            };
            p.session.disable(now, notification);
        }
    }

    /// ROUTE-REFRESH (RFC 2918, RFC 7313 §4).
    fn refresh(&mut self, now: Time, peer: PeerId, family: AddressFamily, refresh: Refresh) {
        let Some(p) = self.peers.get_mut(peer.0 as usize).and_then(Option::as_mut) else { return };
        let Some(negotiated) = p.session.negotiated() else { return };
        match refresh {
            Refresh::Request => p.sending.asked.insert(family),
            Refresh::Begin => {
                let gr = negotiated.graceful_restart.is_some();
                p.retention.refresh_begins(now, &mut self.rib, peer, family, gr);
            }
            Refresh::End => p.retention.refresh_ends(&mut self.rib, peer, family),
        }
    }
}

fn peer_id(index: usize) -> PeerId {
    PeerId(u32::try_from(index).unwrap_or(u32::MAX))
}

/// Cease, Maximum Number of Prefixes Reached, with family and limit (RFC 4486 §4).
fn too_many_prefixes(family: AddressFamily, limit: u32) -> Notification {
    let (afi, safi) = family.afi_safi();
    let mut data = afi.to_be_bytes().to_vec();
    data.push(safi);
    data.extend_from_slice(&limit.to_be_bytes());
    Notification::with_data(code::CEASE, cease::MAXIMUM_NUMBER_OF_PREFIXES, data)
}
