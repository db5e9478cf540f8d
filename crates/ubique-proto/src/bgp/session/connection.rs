//! One transport connection to a neighbour: its state, its timers, its byte counts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fsm::{Event, State};
use super::open::Negotiated;
use crate::bgp::speaker::{ConnId, Local};
use crate::bgp::wire::{DecodeContext, Framer};
use crate::rng::Rng;
use crate::time::Time;

/// HoldTimer until the neighbour's OPEN has come (RFC 4271 §8.2.2: "a large value", 4 minutes).
pub const OPEN_HOLD_TIME: Duration = Duration::from_secs(240);
/// SendHoldTime is this or twice the hold time, whichever is longer (RFC 9687 §4).
pub const SEND_HOLD_MIN: Duration = Duration::from_secs(480);
/// KEEPALIVEs in a hold time (RFC 4271 §10).
const KEEPALIVES_PER_HOLD_TIME: u32 = 3;

/// A connection whose transport is up.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    /// Our addresses on it.
    pub(crate) local: Local,
    /// OpenSent, OpenConfirm or Established.
    pub(crate) state: State,
    /// When it came into that state.
    pub(crate) since: Time,
    pub(crate) framer: Framer,
    pub(crate) context: DecodeContext,
    pub(crate) negotiated: Option<Negotiated>,
    hold: Option<Time>,
    keepalive: Option<Time>,
    send_hold: Option<Time>,
    sent: u64,
    acknowledged: u64,
}

impl Connection {
    pub(crate) fn new(id: ConnId, local: Local, context: DecodeContext, now: Time) -> Connection {
        Connection {
            id,
            local,
            state: State::OpenSent,
            since: now,
            framer: Framer::new(),
            context,
            negotiated: None,
            hold: Some(now + OPEN_HOLD_TIME),
            keepalive: None,
            send_hold: None,
            sent: 0,
            acknowledged: 0,
        }
    }

    /// To OpenConfirm.
    pub(crate) fn confirm(&mut self, now: Time, negotiated: Negotiated) {
        self.state = State::OpenConfirm;
        self.since = now;
        self.context.four_octet_as = negotiated.four_octet_as;
        self.context.families = negotiated.families;
        self.context.add_path = negotiated.add_path;
        self.context.extended_next_hop = negotiated.extended_next_hop;
        // With a hold time of zero the large timer of OpenSent runs on, so that a neighbour that falls silent
        // before it is Established does not keep the connection for ever.
        if !negotiated.hold_time.is_zero() {
            self.hold = Some(now + negotiated.hold_time);
        }
        self.negotiated = Some(negotiated);
    }

    /// To Established.
    pub(crate) fn establish(&mut self, now: Time) {
        self.state = State::Established;
        self.since = now;
        self.alive(now);
        self.watch_sending(now);
    }

    /// A KEEPALIVE or UPDATE came: the HoldTimer starts anew.
    pub(crate) fn alive(&mut self, now: Time) {
        let hold_time = self.hold_time();
        self.hold = (!hold_time.is_zero()).then(|| now + hold_time);
    }

    /// `bytes` were passed to the driver: the KeepaliveTimer starts anew (RFC 4271 §8.2.2), with jitter (§10).
    pub(crate) fn wrote(&mut self, now: Time, bytes: usize, rng: &mut Rng) {
        self.sent += bytes as u64;
        let hold_time = self.hold_time();
        if self.state != State::OpenSent && !hold_time.is_zero() {
            self.keepalive = Some(now + rng.jitter(hold_time / KEEPALIVES_PER_HOLD_TIME));
        }
        if self.state == State::Established && self.send_hold.is_none() {
            self.watch_sending(now);
        }
    }

    /// The neighbour's TCP has everything up to `offset`.
    pub(crate) fn acknowledged(&mut self, now: Time, offset: u64) {
        let offset = offset.min(self.sent);
        if offset > self.acknowledged {
            self.acknowledged = offset;
            self.watch_sending(now);
        }
    }

    /// The SendHoldTimer runs while bytes are under way, and starts anew whenever some arrive. Not with a hold
    /// time of zero (RFC 9687 §3.3).
    fn watch_sending(&mut self, now: Time) {
        let watched = self.state == State::Established && self.unacknowledged() > 0;
        self.send_hold =
            (watched && !self.hold_time().is_zero()).then(|| now + SEND_HOLD_MIN.max(self.hold_time() * 2));
    }

    fn hold_time(&self) -> Duration {
        self.negotiated.as_ref().map_or(Duration::ZERO, |n| n.hold_time)
    }

    /// Bytes ever passed to the driver.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes the neighbour has confirmed; never more than were sent, never fewer than before.
    pub(crate) fn confirmed(&self) -> u64 {
        self.acknowledged
    }

    /// Bytes the neighbour has not confirmed.
    pub(crate) fn unacknowledged(&self) -> u64 {
        self.sent - self.acknowledged
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        [self.hold, self.keepalive, self.send_hold].into_iter().flatten().min()
    }

    /// The timer that has expired, the fatal ones first. It is stopped.
    pub(crate) fn expired(&mut self, now: Time) -> Option<Event> {
        let due = |timer: &mut Option<Time>| timer.take_if(|at| *at <= now).is_some();
        if due(&mut self.hold) {
            Some(Event::HoldTimerExpires)
        } else if due(&mut self.send_hold) {
            Some(Event::SendHoldTimerExpires)
        } else if due(&mut self.keepalive) {
            Some(Event::KeepaliveTimerExpires)
        } else {
            None
        }
    }
}
