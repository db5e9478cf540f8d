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
//! A session says whether it ended [gracefully](Ended::Gracefully); what then becomes of routes is the speaker's.
//!
//! Deliberately absent: DelayOpen, sending several paths to a prefix (RFC 7911).
//!
//! RFCs: 2918, 4271 §6, §8, §10, 4486, 4724 §3–§5, 4760 §8, 5492, 5882 §4.3, 6286, 6608, 6793, 7313, 7607, 7911 §4, 8538,
//! 8654, 8950 §4, 9003, 9234 §4, 9384, 9494 §3, 9687.

mod connection;
pub mod dial;
pub mod fsm;
mod machine;
mod open;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::Asn;

pub use connection::{OPEN_HOLD_TIME, SEND_HOLD_MIN};
pub use fsm::State;
pub use open::{HOLD_TIME_MIN_S, Negotiated};

use super::family::{AddressFamilies, AddressFamily};
use super::message::{Notification, Update};
use super::notification::cease;
use super::speaker::{ConnId, DownReason, Local, PeerConfig, Restarted};
use super::wire::{self, EncodeContext};
use crate::rng::Rng;
use crate::time::Time;
use connection::Connection;
use dial::{Backoff, Dial};
use fsm::Event;
use open::Identity;

/// How long a session must have been Established before another connection from the neighbour says that it restarted
/// (RFC 4724 §4.2). Before, it is the one that crossed ours on the way: both ends call at the same time.
pub const CROSSING_TIME: Duration = Duration::from_secs(1);

/// What a session needs to know of us and of its neighbour.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionConfig {
    /// Our AS.
    pub local_asn: Asn,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// The neighbour. The hold time is sent in whole seconds, zero or at least [`HOLD_TIME_MIN_S`].
    pub peer: PeerConfig,
    /// Seed of jitter.
    pub seed: u64,
    /// Whether we come back from a restart, until [`Session::settled`].
    pub restarted: Option<Restarted>,
    /// Report every message.
    pub tap: bool,
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
    Up(Local, Negotiated),
    /// It ended.
    Down(Ended, DownReason),
    /// A whole message came, only with [`SessionConfig::tap`].
    Message(ConnId, Vec<u8>),
    /// For the RIB.
    Update(Update),
    /// ROUTE-REFRESH of a family both speak.
    Refresh(AddressFamily, Refresh),
}

/// What was lost with a connection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ended {
    /// It had not become Established.
    Attempt,
    /// A session, and everything the neighbour gave us over it.
    Session,
    /// A session; the neighbour restarts and its routes stay for a while (RFC 4724 §4.2), as agreed.
    Gracefully(Box<Negotiated>),
}

/// What a ROUTE-REFRESH says (RFC 2918, RFC 7313 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// 0: send your routes again.
    Request,
    /// 1, BoRR: here they come again.
    Begin,
    /// 2, EoRR: those were all.
    End,
}

impl Refresh {
    /// Its message subtype.
    pub(crate) fn subtype(self) -> u8 {
        match self {
            Refresh::Request => 0,
            Refresh::Begin => 1,
            Refresh::End => 2,
        }
    }
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
    /// FlowSpec rules received; none is ever installed or passed on.
    pub flows_in: u64,
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
#[derive(Debug, Serialize, Deserialize)]
pub struct Session {
    identity: Identity,
    tap: bool,
    dial: Dial,
    backoff: Backoff,
    active: Option<Connection>,
    passive: Option<Connection>,
    rng: Rng,
    state: State,
    since: Time,
    counters: Counters,
    last_down: Option<DownReason>,
    /// Empty whenever the driver may look.
    #[serde(skip)]
    output: VecDeque<Output>,
}

impl Session {
    /// A disabled one.
    pub fn new(config: &SessionConfig) -> Session {
        Session {
            identity: Identity {
                local_asn: config.local_asn,
                local_id: config.router_id,
                peer: config.peer.clone(),
                restarted: config.restarted.filter(|_| config.peer.graceful_restart.is_some()),
            },
            tap: config.tap,
            dial: Dial::Disabled,
            backoff: Backoff::new(config.peer.connect_retry),
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

    /// ManualStop: disabled until [`Session::start`]. Graceful restart or not, the session is gone.
    pub fn stop(&mut self, now: Time, subcode: u8, message: &str) {
        self.disable(now, Notification::cease(subcode, message));
    }

    /// As [`Session::stop`], with any NOTIFICATION.
    pub(crate) fn disable(&mut self, now: Time, notification: Notification) {
        if matches!(self.dial, Dial::Connecting(_)) {
            self.output.push_back(Output::CancelConnect);
        }
        self.dial = Dial::Disabled;
        for side in Side::BOTH {
            let notification = self.for_good(side, notification.clone());
            self.event(now, side, Event::Stop(notification));
        }
        self.publish(now);
    }

    /// BFD says down (AutomaticStop, event 8): the session ends with RFC 9384's Cease, the neighbour stays enabled. When
    /// BFD shares its fate with the neighbour's control plane, that may just restart; otherwise its forwarding is gone,
    /// and so are its routes, whatever was agreed on (RFC 5882 §4.3).
    pub(crate) fn bfd_down(&mut self, now: Time, control_independent: bool) {
        let Some(side) = self.established().and_then(|c| self.side_of(c.id)) else { return };
        let notification = Notification::cease(cease::BFD_DOWN, "");
        if control_independent {
            let notification = self.for_good(side, notification);
            self.event(now, side, Event::Stop(notification));
        } else {
            let graceful = self.restarts(side);
            self.end(now, side, DownReason::Sent(notification), graceful);
        }
        self.publish(now);
    }

    /// Everything that is to be announced after a restart has been, or too much time has passed: R is no longer set.
    pub(crate) fn settled(&mut self) {
        self.identity.restarted = None;
    }

    /// Our attempt succeeded.
    pub fn connected(&mut self, now: Time, id: ConnId, local: impl Into<Local>) {
        if matches!(self.dial, Dial::Connecting(_)) {
            self.dial = Dial::Quiet;
            self.open(now, Side::Active, id, local.into());
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
    pub fn accepted(&mut self, now: Time, id: ConnId, local: impl Into<Local>) {
        let established = self.established().map(|c| (c.id, now.since(c.since)));
        let restarted = established
            .and_then(|(old, lasted)| self.side_of(old).filter(|side| lasted >= CROSSING_TIME && self.restarts(*side)));
        if self.dial == Dial::Disabled {
            self.refuse(id, cease::CONNECTION_REJECTED);
        } else if established.is_some() && restarted.is_none() {
            self.refuse(id, cease::CONNECTION_COLLISION_RESOLUTION);
        } else {
            if let Some(side) = restarted {
                self.end(now, side, DownReason::Replaced, true);
            }
            if !matches!(self.dial, Dial::Connecting(_)) {
                self.dial = Dial::Quiet;
            }
            let replaced = self.passive.take();
            self.open(now, Side::Passive, id, local.into());
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
            let Some(connection) = self.connection_mut(side) else {
                break;
            };
            let taken = connection.framer.push(bytes);
            bytes = &bytes[taken..];
            while let Some(result) = self.next_message(side) {
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

    /// Sends whole messages, some of them UPDATEs; nothing when not Established.
    pub(crate) fn send_updates(&mut self, now: Time, bytes: Vec<u8>, messages: u64, updates: u64) {
        if let Some(side) = self.established().and_then(|c| self.side_of(c.id)) {
            self.counters.updates_out += updates;
            self.write(now, side, bytes, messages);
        }
    }

    /// Asks the neighbour for its routes (RFC 2918), if it understands the question.
    pub(crate) fn request_refresh(&mut self, now: Time) {
        let Some(connection) = self.established() else {
            return;
        };
        let families = connection.negotiated.as_ref().filter(|n| n.route_refresh).map(|n| n.families);
        let Some((side, families)) = self.side_of(connection.id).zip(families) else { return };
        let mut bytes = vec![];
        let mut messages = 0;
        for family in families.iter() {
            wire::encode_route_refresh(family, Refresh::Request.subtype(), &mut bytes);
            messages += 1;
        }
        self.write(now, side, bytes, messages);
    }

    /// The neighbour as configured.
    pub(crate) fn config(&self) -> &PeerConfig {
        &self.identity.peer
    }

    /// What was agreed on, while Established.
    pub(crate) fn negotiated(&self) -> Option<&Negotiated> {
        self.established()?.negotiated.as_ref()
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

    /// Why it last went down, or did not come up; what the neighbour said outlives attempts that it closes without a word.
    pub fn last_down(&self) -> Option<&DownReason> {
        self.last_down.as_ref()
    }

    /// The established connection.
    pub(crate) fn established(&self) -> Option<&Connection> {
        [&self.active, &self.passive].into_iter().flatten().find(|c| c.state == State::Established)
    }

    /// How UPDATEs to it are written.
    pub(crate) fn encode_context(&self) -> Option<EncodeContext> {
        let negotiated = self.negotiated()?;
        Some(EncodeContext {
            four_octet_as: negotiated.four_octet_as,
            external: self.identity.external(),
            add_path: AddressFamilies::NONE,
            extended_next_hop: negotiated.extended_next_hop,
            max_message: negotiated.max_message,
        })
    }
}
