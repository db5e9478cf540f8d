//! One neighbour: the finite state machine of RFC 4271 §8 and connection collision (§6.8), sans-IO.
//!
//! A neighbour is never one state with everything in it. It is up to two connections, the one we opened (active) and
//! the one it opened (passive), each with a state and timers of its own, and a [`dial`] that says when we call:
//!
//! ```text
//!            dial                                connection (active or passive)
//! Idle ─▶ Connect ⇄ Active          OpenSent ─OPEN▶ OpenConfirm ─KEEPALIVE▶ Established
//!             └─ transport up ─────────▲  ▲── transport accepted
//! ```
//!
//! The state of the neighbour is that of its most advanced connection, or else that of the dial. When the second
//! OPEN arrives the two connections are compared, and the one opened by the speaker with the higher BGP identifier
//! stays (RFC 6286: then the higher AS number).
//!
//! [`fsm`] is the transition table, without time or bytes; `open` judges OPENs; `connection` owns timers and byte
//! counts; [`Session`] puts them together and is what [`super::speaker::Speaker`] runs.
//!
//! Deviations from the letter of RFC 4271, on purpose:
//! - An incoming connection is taken in Idle too while the neighbour is enabled: the pause after an error holds
//!   back our own attempts, not the return of a route. The neighbour's own pause limits it.
//! - A failed connection attempt leads to Active, not Idle; both wait for the same timer.
//! - A second incoming connection replaces one that is not Established: its owner has given the first up.
//! - Those of [`fsm`].
//!
//! Deliberately absent: DelayOpen, graceful restart (RFC 4724: it would keep the routes of a dead site), more than one
//! family on a session, dynamic neighbours.
//!
//! RFCs: 4271 §6, §8, §10, 4486, 4760 §8, 5492, 6286, 6608, 6793, 7607, 9003, 9687.

mod connection;
pub mod dial;
pub mod fsm;
mod open;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::{Asn, Family};

pub use connection::{OPEN_HOLD_TIME, SEND_HOLD_MIN};
pub use fsm::State;
pub use open::{HOLD_TIME_MIN_S, Negotiated};

use super::message::{Message, Notification, Open, Update};
use super::notification::{cease, code};
use super::speaker::{ConnId, DownReason};
use super::wire::{self, DecodeContext, EncodeContext, Families, MAX_MESSAGE};
use crate::rng::Rng;
use crate::time::Time;
use connection::Connection;
use dial::{Backoff, Dial};
use fsm::{Event, Step};
use open::Identity;

/// What a session needs to know of us and of its neighbour.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionConfig {
    /// Our AS.
    pub local_asn: Asn,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// The neighbour's AS.
    pub peer_asn: Asn,
    /// The one family of the session.
    pub family: Family,
    /// Never connect.
    pub passive: bool,
    /// Proposed hold time; sent in whole seconds, zero or at least [`HOLD_TIME_MIN_S`].
    pub hold_time: Duration,
    /// ConnectRetryTimer before jitter and doubling.
    pub connect_retry: Duration,
    /// Seed of jitter.
    pub seed: u64,
}

/// What a session wants done, or has to say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// Open a connection.
    Connect,
    /// Give the attempt up.
    CancelConnect,
    /// Write.
    Send(ConnId, Vec<u8>),
    /// Close when everything is written.
    Close(ConnId),
    /// Established on this local address.
    Up(IpAddr, Negotiated),
    /// Ended; whether it had been Established.
    Down(bool, DownReason),
    /// For the RIB.
    Update(Update),
    /// The neighbour wants everything again.
    Resend,
}

/// What went over all connections of a neighbour since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Messages received, malformed ones included.
    pub messages_in: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// UPDATEs received in Established.
    pub updates_in: u64,
    /// UPDATEs sent.
    pub updates_out: u64,
    /// Times Established was reached.
    pub established: u64,
    /// Attempts that did not reach it (ConnectRetryCounter).
    pub failures: u64,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Active,
    Passive,
}

impl Side {
    const BOTH: [Side; 2] = [Side::Active, Side::Passive];

    fn other(self) -> Side {
        match self {
            Side::Active => Side::Passive,
            Side::Passive => Side::Active,
        }
    }
}

/// One neighbour.
#[derive(Debug)]
pub struct Session {
    identity: Identity,
    /// Never connect.
    passive_only: bool,
    dial: Dial,
    backoff: Backoff,
    active: Option<Connection>,
    passive: Option<Connection>,
    rng: Rng,
    state: State,
    since: Time,
    counters: Counters,
    last_down: Option<DownReason>,
    output: VecDeque<Output>,
}

impl Session {
    /// A disabled one.
    pub fn new(config: &SessionConfig) -> Session {
        Session {
            identity: Identity {
                local_asn: config.local_asn,
                local_id: config.router_id,
                peer_asn: config.peer_asn,
                family: config.family,
                hold_time_s: open::hold_time_s(config.hold_time),
            },
            passive_only: config.passive,
            dial: Dial::Disabled,
            backoff: Backoff::new(config.connect_retry),
            active: None,
            passive: None,
            rng: Rng::new(config.seed),
            state: State::Idle,
            since: Time::ZERO,
            counters: Counters::default(),
            last_down: None,
            output: VecDeque::new(),
        }
    }

    /// ManualStart; nothing happens when it is enabled already.
    pub fn start(&mut self, now: Time) {
        if self.dial == Dial::Disabled {
            self.backoff.reset();
            self.call(now);
            self.publish(now);
        }
    }

    /// ManualStop: disabled until [`Session::start`].
    pub fn stop(&mut self, now: Time, subcode: u8, message: &str) {
        if matches!(self.dial, Dial::Connecting(_)) {
            self.output.push_back(Output::CancelConnect);
        }
        self.dial = Dial::Disabled;
        for side in Side::BOTH {
            self.event(now, side, Event::Stop(Notification::cease(subcode, message)));
        }
        self.publish(now);
    }

    /// Our attempt succeeded.
    pub fn connected(&mut self, now: Time, id: ConnId, local: IpAddr) {
        if matches!(self.dial, Dial::Connecting(_)) {
            self.dial = Dial::Quiet;
            self.open(now, Side::Active, id, local);
        } else {
            // It crossed our CancelConnect.
            self.output.push_back(Output::Close(id));
        }
        self.publish(now);
    }

    /// Our attempt failed.
    pub fn connect_failed(&mut self, now: Time) {
        if matches!(self.dial, Dial::Connecting(_)) {
            self.failed();
            if self.passive.is_some() {
                self.dial = Dial::Quiet;
            } else {
                self.dial = Dial::Waiting(now + self.backoff.pause(&mut self.rng));
            }
        }
        self.publish(now);
    }

    /// The neighbour connected.
    pub fn accepted(&mut self, now: Time, id: ConnId, local: IpAddr) {
        if self.dial == Dial::Disabled {
            self.refuse(id, cease::CONNECTION_REJECTED);
        } else if self.established().is_some() {
            self.refuse(id, cease::CONNECTION_COLLISION_RESOLUTION);
        } else {
            if !matches!(self.dial, Dial::Connecting(_)) {
                self.dial = Dial::Quiet;
            }
            let replaced = self.passive.take();
            self.open(now, Side::Passive, id, local);
            if let Some(old) = replaced {
                self.refuse(old.id, cease::CONNECTION_COLLISION_RESOLUTION);
            }
        }
        self.publish(now);
    }

    /// Bytes arrived. Those of a connection that is gone are ignored.
    pub fn received(&mut self, now: Time, id: ConnId, mut bytes: &[u8]) {
        let Some(side) = self.side_of(id) else { return };
        while !bytes.is_empty() {
            let Some(connection) = self.connection_mut(side) else { break };
            let taken = connection.framer.push(bytes);
            bytes = &bytes[taken..];
            while let Some(connection) = self.connection_mut(side) {
                let Some(result) = connection.framer.next(&connection.context) else { break };
                self.counters.messages_in += 1;
                self.message(now, side, result);
            }
        }
        self.publish(now);
    }

    /// The transport is gone.
    pub fn closed(&mut self, now: Time, id: ConnId) {
        if let Some(side) = self.side_of(id) {
            self.event(now, side, Event::TransportClosed);
            self.publish(now);
        }
    }

    /// The neighbour's TCP confirmed bytes.
    pub fn acknowledged(&mut self, now: Time, id: ConnId, offset: u64) {
        if let Some(connection) = self.side_of(id).and_then(|side| self.connection_mut(side)) {
            connection.acknowledged(now, offset);
        }
    }

    /// The earliest timer.
    pub fn next_deadline(&self) -> Option<Time> {
        let connections = [&self.active, &self.passive].into_iter().flatten();
        connections.filter_map(Connection::deadline).chain(self.dial.deadline()).min()
    }

    /// Runs what is due.
    pub fn handle_deadline(&mut self, now: Time) {
        for side in Side::BOTH {
            while let Some(event) = self.connection_mut(side).and_then(|c| c.expired(now)) {
                self.event(now, side, event);
            }
        }
        if self.dial.deadline().is_some_and(|at| at <= now) {
            self.dial_due(now);
        }
        self.publish(now);
    }

    /// What to do next; call until `None`.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// Sends whole UPDATEs; gives the stream offset after them. Nothing is sent when not Established.
    pub(crate) fn send_updates(&mut self, now: Time, bytes: Vec<u8>, messages: u64) -> Option<(ConnId, u64)> {
        let side = self.side_of(self.established()?.id)?;
        self.counters.updates_out += messages;
        self.write(now, side, bytes, messages);
        self.established().map(|c| (c.id, c.sent()))
    }

    /// Asks the neighbour for its routes (RFC 2918); false when it cannot be asked.
    pub(crate) fn request_refresh(&mut self, now: Time) -> bool {
        let Some((id, negotiated)) = self.established().and_then(|c| Some((c.id, c.negotiated.as_ref()?)))
        else {
            return false;
        };
        let family = negotiated.family;
        let side = self.side_of(id).filter(|_| negotiated.route_refresh);
        let Some(side) = side else { return false };
        let mut bytes = vec![];
        wire::encode_route_refresh(family, &mut bytes);
        self.write(now, side, bytes, 1);
        true
    }

    /// The state of the neighbour.
    pub fn state(&self) -> State {
        let connections = [&self.active, &self.passive].into_iter().flatten();
        connections.map(|c| c.state).max().unwrap_or(match self.dial {
            Dial::Disabled | Dial::Held(_) | Dial::Quiet => State::Idle,
            Dial::Waiting(_) | Dial::Listening => State::Active,
            Dial::Connecting(_) => State::Connect,
        })
    }

    /// When it came into that state.
    pub fn since(&self) -> Time {
        self.since
    }

    /// Whether the operator wants it up.
    pub fn enabled(&self) -> bool {
        self.dial != Dial::Disabled
    }

    /// Totals.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Why it last went down, or did not come up.
    pub fn last_down(&self) -> Option<&DownReason> {
        self.last_down.as_ref()
    }

    /// The established connection.
    pub(crate) fn established(&self) -> Option<&Connection> {
        [&self.active, &self.passive].into_iter().flatten().find(|c| c.state == State::Established)
    }

    /// How UPDATEs to it are written.
    pub(crate) fn encode_context(&self) -> Option<EncodeContext> {
        let negotiated = self.established()?.negotiated.as_ref()?;
        Some(EncodeContext {
            four_octet_as: negotiated.four_octet_as,
            external: self.identity.external(),
            max_message: MAX_MESSAGE,
        })
    }
}

/// The connections.
impl Session {
    fn connection_mut(&mut self, side: Side) -> Option<&mut Connection> {
        self.slot(side).as_mut()
    }

    fn slot(&mut self, side: Side) -> &mut Option<Connection> {
        match side {
            Side::Active => &mut self.active,
            Side::Passive => &mut self.passive,
        }
    }

    fn side_of(&self, id: ConnId) -> Option<Side> {
        if self.active.as_ref().is_some_and(|c| c.id == id) {
            Some(Side::Active)
        } else {
            self.passive.as_ref().is_some_and(|c| c.id == id).then_some(Side::Passive)
        }
    }

    /// Transport up: OPEN goes out first (RFC 4271 §8.2.2, events 16 and 17).
    fn open(&mut self, now: Time, side: Side, id: ConnId, local: IpAddr) {
        let context = DecodeContext {
            four_octet_as: false,
            external: self.identity.external(),
            families: Families::only(self.identity.family),
            max_message: MAX_MESSAGE,
        };
        *self.slot(side) = Some(Connection::new(id, local, context, now));
        let mut bytes = vec![];
        wire::encode_open(&self.identity.open(), &mut bytes);
        self.write(now, side, bytes, 1);
    }

    fn message(&mut self, now: Time, side: Side, message: Result<Message, Notification>) {
        let event = match message {
            Ok(Message::Open(open)) => Event::Open(open),
            Ok(Message::Update(update)) => Event::Update(update),
            Ok(Message::Notification(notification)) => Event::Notification(notification),
            Ok(Message::Keepalive) => Event::Keepalive,
            Ok(Message::RouteRefresh { afi, safi, .. }) => Event::RouteRefresh { afi, safi },
            Err(notification) => Event::Malformed(notification),
        };
        self.event(now, side, event);
    }

    fn event(&mut self, now: Time, side: Side, event: Event) {
        let Some(state) = self.connection_mut(side).map(|c| c.state) else { return };
        match fsm::step(state, event) {
            Step::Confirm(open) => self.confirm(now, side, &open),
            Step::Establish => self.establish(now, side),
            Step::Alive => self.alive(now, side),
            Step::Deliver(update) => {
                self.alive(now, side);
                self.counters.updates_in += 1;
                self.output.push_back(Output::Update(update));
            }
            Step::Resend { afi, safi } => {
                if wire::family(afi, safi) == Some(self.identity.family) {
                    self.output.push_back(Output::Resend);
                }
            }
            Step::SendKeepalive => self.send_keepalive(now, side),
            Step::End(reason) => self.end(now, side, reason),
        }
    }

    fn alive(&mut self, now: Time, side: Side) {
        if let Some(connection) = self.connection_mut(side) {
            connection.alive(now);
        }
    }

    /// OPEN came: judge it, settle a collision, answer.
    fn confirm(&mut self, now: Time, side: Side, open: &Open) {
        let negotiated = match self.identity.negotiate(open) {
            Ok(negotiated) => negotiated,
            Err(notification) => return self.end(now, side, DownReason::Sent(notification)),
        };
        let winner = if self.identity.outranks(open) { Side::Active } else { Side::Passive };
        let collision =
            || Event::Stop(Notification::cease(cease::CONNECTION_COLLISION_RESOLUTION, ""));
        match self.connection_mut(side.other()).map(|other| other.state) {
            Some(State::Established) => return self.event(now, side, collision()),
            Some(State::OpenConfirm) if winner != side => return self.event(now, side, collision()),
            // An OPEN on either connection tells whose identifier is higher: no need to wait for the second
            // when the connection that has it is to stay (§6.8). When it is to go, the other must prove itself first.
            Some(_) if winner == side => self.event(now, side.other(), collision()),
            _ => {}
        }
        if matches!(self.dial, Dial::Connecting(_)) {
            self.output.push_back(Output::CancelConnect);
            self.dial = Dial::Quiet;
        }
        if let Some(connection) = self.connection_mut(side) {
            connection.confirm(now, negotiated);
        }
        self.send_keepalive(now, side);
    }

    fn establish(&mut self, now: Time, side: Side) {
        let collision = Notification::cease(cease::CONNECTION_COLLISION_RESOLUTION, "");
        self.event(now, side.other(), Event::Stop(collision));
        let Some(connection) = self.connection_mut(side) else { return };
        connection.establish(now);
        let local = connection.local;
        let Some(negotiated) = connection.negotiated.clone() else { return };
        self.backoff.established();
        self.counters.established += 1;
        self.output.push_back(Output::Up(local, negotiated));
    }

    /// The connection ends. When it was the last one, the next attempt is planned.
    fn end(&mut self, now: Time, side: Side, reason: DownReason) {
        if let DownReason::Sent(notification) = &reason {
            let mut bytes = vec![];
            wire::encode_notification(notification, &mut bytes);
            self.write(now, side, bytes, 1);
        }
        let Some(connection) = self.slot(side).take() else { return };
        if reason != DownReason::TransportClosed {
            self.output.push_back(Output::Close(connection.id));
        }
        let was_established = connection.state == State::Established;
        let other_remains = self.slot(side.other()).is_some();
        let lost_collision = match &reason {
            DownReason::Sent(n) | DownReason::Received(n) => {
                n.code == code::CEASE && n.subcode == cease::CONNECTION_COLLISION_RESOLUTION
            }
            DownReason::TransportClosed => false,
        };
        // A collision that leaves one connection is the normal course of things.
        if !(other_remains && lost_collision) {
            self.last_down = Some(reason.clone());
            self.output.push_back(Output::Down(was_established, reason.clone()));
        }
        if other_remains || self.dial != Dial::Quiet {
            return;
        }
        let pause = if was_established {
            self.backoff.lost(now.since(connection.since), &mut self.rng)
        } else {
            self.failed();
            self.backoff.pause(&mut self.rng)
        };
        // RFC 4271 §8.2.2: Active after a transport failure in OpenSent (event 18), else Idle.
        let only_transport = reason == DownReason::TransportClosed && connection.state == State::OpenSent;
        self.dial = match (self.passive_only, only_transport) {
            (true, _) => Dial::Listening,
            (false, true) => Dial::Waiting(now + pause),
            (false, false) => Dial::Held(now + pause),
        };
    }

    /// A connection we do not take: say why, close.
    fn refuse(&mut self, id: ConnId, subcode: u8) {
        let mut bytes = vec![];
        wire::encode_notification(&Notification::cease(subcode, ""), &mut bytes);
        self.counters.messages_out += 1;
        self.output.push_back(Output::Send(id, bytes));
        self.output.push_back(Output::Close(id));
    }

    fn send_keepalive(&mut self, now: Time, side: Side) {
        let mut bytes = vec![];
        wire::encode_keepalive(&mut bytes);
        self.write(now, side, bytes, 1);
    }

    fn write(&mut self, now: Time, side: Side, bytes: Vec<u8>, messages: u64) {
        let connection = match side {
            Side::Active => &mut self.active,
            Side::Passive => &mut self.passive,
        };
        if let Some(connection) = connection {
            connection.wrote(now, bytes.len(), &mut self.rng);
            self.counters.messages_out += messages;
            self.output.push_back(Output::Send(connection.id, bytes));
        }
    }
}

/// The dial.
impl Session {
    /// The timer of the dial expired.
    fn dial_due(&mut self, now: Time) {
        if matches!(self.dial, Dial::Connecting(_)) {
            self.output.push_back(Output::CancelConnect);
            self.failed();
            if self.passive.is_some() {
                self.dial = Dial::Quiet;
                return;
            }
        }
        self.call(now);
    }

    fn call(&mut self, now: Time) {
        if self.passive_only {
            self.dial = Dial::Listening;
        } else {
            self.dial = Dial::Connecting(now + self.backoff.patience(&mut self.rng));
            self.output.push_back(Output::Connect);
        }
    }

    fn failed(&mut self) {
        self.backoff.failed();
        self.counters.failures += 1;
    }

    fn publish(&mut self, now: Time) {
        let state = self.state();
        if state != self.state {
            self.state = state;
            self.since = now;
        }
    }
}
