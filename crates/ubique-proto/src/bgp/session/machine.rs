//! The inner workings of [`Session`]: what its connections and its dial do about events.

use super::connection::Connection;
use super::dial::Dial;
use super::fsm::{self, Event, State, Step};
use super::{Ended, Negotiated, Output, Refresh, Session, Side};
use crate::bgp::family::AddressFamily;
use crate::bgp::message::{Message, Notification, Open};
use crate::bgp::notification::{cease, code};
use crate::bgp::speaker::{ConnId, DownReason, Local};
use crate::bgp::wire::{self, DecodeContext, MAX_EXTENDED_MESSAGE};
use crate::time::Time;

/// The connections.
impl Session {
    pub(super) fn connection_mut(&mut self, side: Side) -> Option<&mut Connection> {
        self.slot(side).as_mut()
    }

    pub(super) fn slot(&mut self, side: Side) -> &mut Option<Connection> {
        match side {
            Side::Active => &mut self.active,
            Side::Passive => &mut self.passive,
        }
    }

    pub(super) fn side_of(&self, id: ConnId) -> Option<Side> {
        if self.active.as_ref().is_some_and(|c| c.id == id) {
            Some(Side::Active)
        } else {
            self.passive.as_ref().is_some_and(|c| c.id == id).then_some(Side::Passive)
        }
    }

    /// Transport up: OPEN goes out first (RFC 4271 §8.2.2, events 16 and 17).
    pub(super) fn open(&mut self, now: Time, side: Side, id: ConnId, local: Local) {
        // We offer extended messages, so they may come (RFC 8654 §4).
        let context = DecodeContext {
            external: self.identity.external(),
            families: self.identity.peer.families,
            max_message: MAX_EXTENDED_MESSAGE,
            ..DecodeContext::INITIAL
        };
        *self.slot(side) = Some(Connection::new(id, local, context, now));
        let mut bytes = vec![];
        wire::encode_open(&self.identity.open(), &mut bytes);
        self.write(now, side, bytes, 1);
    }

    /// The next message of a connection, shown first where somebody wants to see it.
    pub(super) fn next_message(&mut self, side: Side) -> Option<Result<Message, Notification>> {
        let connection = match side {
            Side::Active => self.active.as_mut()?,
            Side::Passive => self.passive.as_mut()?,
        };
        let (tap, id, output) = (self.tap, connection.id, &mut self.output);
        connection.framer.next_with(&connection.context, |message| {
            if tap {
                output.push_back(Output::Message(id, message.to_vec()));
            }
        })
    }

    pub(super) fn message(&mut self, now: Time, side: Side, message: Result<Message, Notification>) {
        let event = match message {
            Ok(Message::Open(open)) => Event::Open(open),
            Ok(Message::Update(update)) => Event::Update(update),
            Ok(Message::Notification(notification)) => Event::Notification(notification),
            Ok(Message::Keepalive) => Event::Keepalive,
            Ok(Message::RouteRefresh { afi, subtype, safi }) => Event::RouteRefresh { afi, subtype, safi },
            Err(notification) => Event::Malformed(notification),
        };
        self.event(now, side, event);
    }

    pub(super) fn event(&mut self, now: Time, side: Side, event: Event) {
        let Some(state) = self.connection_mut(side).map(|c| c.state) else {
            return;
        };
        match fsm::step(state, event) {
            Step::Confirm(open) => self.confirm(now, side, &open),
            Step::Establish => self.establish(now, side),
            Step::Alive => self.alive(now, side),
            Step::Deliver(update) => {
                self.alive(now, side);
                self.counters.updates_in += 1;
                self.counters.flows_in += update.flows_announced.len() as u64;
                self.output.push_back(Output::Update(update));
            }
            Step::Refresh { afi, subtype, safi } => self.refresh(side, afi, subtype, safi),
            Step::SendKeepalive => self.send_keepalive(now, side),
            Step::End(reason) => {
                let graceful = self.ends_gracefully(side, &reason);
                self.end(now, side, reason, graceful);
            }
        }
    }

    /// Families not agreed on are ignored (RFC 2918 §4), and so are unknown subtypes (RFC 7313 §5). To a neighbour
    /// without the capability the octet of the subtype means nothing (RFC 2918 §3).
    fn refresh(&mut self, side: Side, afi: u16, subtype: u8, safi: u8) {
        let Some(negotiated) = self.connection_mut(side).and_then(|c| c.negotiated.as_ref()) else { return };
        let family = AddressFamily::from_afi_safi(afi, safi).filter(|family| negotiated.families.contains(*family));
        let refresh = match subtype {
            _ if !negotiated.enhanced_route_refresh => Some(Refresh::Request),
            0 => Some(Refresh::Request),
            1 => Some(Refresh::Begin),
            2 => Some(Refresh::End),
            _ => None,
        };
        self.output.extend(family.zip(refresh).map(|(family, refresh)| Output::Refresh(family, refresh)));
    }

    /// Whether graceful restart was agreed on for any family, when the connection is Established.
    pub(super) fn restarts(&self, side: Side) -> bool {
        self.agreed(side).is_some_and(|n| self.identity.peer.graceful_restart.is_some() && !n.restarts().is_empty())
    }

    /// Whether the neighbour's routes outlive the session: it went without a word (RFC 4724 §4.2), or with one that is
    /// no hard reset, when both understand that (RFC 8538 §4).
    fn ends_gracefully(&self, side: Side, reason: &DownReason) -> bool {
        let hard_reset = self.hard_reset(side);
        self.restarts(side)
            && match reason {
                DownReason::TransportClosed | DownReason::Replaced => true,
                DownReason::Sent(n) | DownReason::Received(n) => {
                    hard_reset && (n.code, n.subcode) != (code::CEASE, cease::HARD_RESET)
                }
            }
    }

    fn hard_reset(&self, side: Side) -> bool {
        self.agreed(side).is_some_and(|n| n.hard_reset)
    }

    /// What was agreed on over an Established connection.
    fn agreed(&self, side: Side) -> Option<&Negotiated> {
        let connection = match side {
            Side::Active => self.active.as_ref(),
            Side::Passive => self.passive.as_ref(),
        };
        connection.filter(|c| c.state == State::Established)?.negotiated.as_ref()
    }

    /// A NOTIFICATION that must really end the session: in a hard reset where anything else would not (RFC 8538 §3).
    pub(super) fn for_good(&self, side: Side, notification: Notification) -> Notification {
        if self.hard_reset(side) { notification.hard_reset() } else { notification }
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
            Err(notification) => return self.end(now, side, DownReason::Sent(notification), false),
        };
        let winner = if self.identity.outranks(open) { Side::Active } else { Side::Passive };
        let collision = || Event::Stop(Notification::cease(cease::CONNECTION_COLLISION_RESOLUTION, ""));
        match self.connection_mut(side.other()).map(|other| other.state) {
            Some(State::Established) => return self.event(now, side, collision()),
            Some(State::OpenConfirm) if winner != side => {
                return self.event(now, side, collision());
            }
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

    /// KEEPALIVE came: the other connection has lost, whatever the identifiers (§6.8).
    ///
    /// When the neighbour prefers that other one at the same moment, both go. Under random latency that is one start
    /// in thousands; the dial then calls again within milliseconds.
    fn establish(&mut self, now: Time, side: Side) {
        let collision = Notification::cease(cease::CONNECTION_COLLISION_RESOLUTION, "");
        self.event(now, side.other(), Event::Stop(collision));
        let Some(connection) = self.connection_mut(side) else {
            return;
        };
        connection.establish(now);
        let local = connection.local;
        let Some(negotiated) = connection.negotiated.clone() else {
            return;
        };
        self.backoff.established();
        self.counters.established += 1;
        self.output.push_back(Output::Up(local, negotiated));
    }

    /// The connection ends. When it was the last one, the next attempt is planned.
    pub(super) fn end(&mut self, now: Time, side: Side, reason: DownReason, graceful: bool) {
        if let DownReason::Sent(notification) = &reason {
            let mut bytes = vec![];
            wire::encode_notification(notification, &mut bytes);
            self.write(now, side, bytes, 1);
        }
        let Some(connection) = self.slot(side).take() else {
            return;
        };
        if reason != DownReason::TransportClosed {
            self.output.push_back(Output::Close(connection.id));
        }
        let was_established = connection.state == State::Established;
        let other_remains = self.slot(side.other()).is_some();
        let lost_collision = match &reason {
            DownReason::Sent(n) | DownReason::Received(n) => {
                n.code == code::CEASE && n.subcode == cease::CONNECTION_COLLISION_RESOLUTION
            }
            DownReason::TransportClosed | DownReason::Replaced => false,
        };
        // A collision that leaves one connection is the normal course of things.
        if !(other_remains && lost_collision) {
            // A neighbour that has said why closes our next attempts without a word: what it said stays.
            let silent = !was_established && reason == DownReason::TransportClosed;
            if !(silent && matches!(self.last_down, Some(DownReason::Received(_)))) {
                self.last_down = Some(reason.clone());
            }
            let ended = match connection.negotiated {
                Some(negotiated) if was_established && graceful => Ended::Gracefully(Box::new(negotiated)),
                _ if was_established => Ended::Session,
                _ => Ended::Attempt,
            };
            self.output.push_back(Output::Down(ended, reason.clone()));
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
        self.dial = match (self.identity.peer.passive, only_transport) {
            (true, _) => Dial::Listening,
            (false, true) => Dial::Waiting(now + pause),
            (false, false) => Dial::Held(now + pause),
        };
    }

    /// A connection we do not take: say why, close.
    pub(super) fn refuse(&mut self, id: ConnId, subcode: u8) {
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

    pub(super) fn write(&mut self, now: Time, side: Side, bytes: Vec<u8>, messages: u64) {
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
    pub(super) fn dial_due(&mut self, now: Time) {
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

    pub(super) fn call(&mut self, now: Time) {
        if self.identity.peer.passive {
            self.dial = Dial::Listening;
        } else {
            self.dial = Dial::Connecting(now + self.backoff.patience(&mut self.rng));
            self.output.push_back(Output::Connect);
        }
    }

    pub(super) fn failed(&mut self) {
        self.backoff.failed();
        self.counters.failures += 1;
    }

    pub(super) fn publish(&mut self, now: Time) {
        let state = self.state();
        if state != self.state {
            self.state = state;
            self.since = now;
        }
    }
}
