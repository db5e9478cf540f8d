//! The transition table of one connection (RFC 4271 §8.2.2, RFC 6608, RFC 9687), without time or bytes.
//!
//! A connection exists from the moment its transport is up, so it knows three of the six states; Idle, Connect and
//! Active belong to the neighbour ([`super::dial`]).
//!
//! Where this differs from the letter of RFC 4271 §8.2.2, as every deployed speaker does:
//! - a NOTIFICATION is never answered with one, in no state (§6: an error in a NOTIFICATION cannot be reported);
//! - a malformed header in Established is reported as what it is (1/x) and not as a state machine error.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bgp::message::{Notification, Open, Update};
use crate::bgp::notification::{code, fsm};
use crate::bgp::speaker::DownReason;
use crate::bgp::wire::kind;

/// State of a neighbour (RFC 4271 §8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Disabled, or held back after an error (DampPeerOscillations).
    Idle,
    /// Our connection attempt is under way.
    Connect,
    /// Between two attempts, or only waiting for the neighbour to connect.
    Active,
    /// Transport up, our OPEN sent.
    OpenSent,
    /// OPEN received and accepted, waiting for a KEEPALIVE.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl State {
    /// The name of RFC 4271.
    pub fn name(self) -> &'static str {
        match self {
            State::Idle => "Idle",
            State::Connect => "Connect",
            State::Active => "Active",
            State::OpenSent => "OpenSent",
            State::OpenConfirm => "OpenConfirm",
            State::Established => "Established",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What can happen to a connection. Numbers are the events of RFC 4271 §8.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// 2, 8, 23: stopped by the operator or by the other connection; say this.
    Stop(Notification),
    /// 10.
    HoldTimerExpires,
    /// 11.
    KeepaliveTimerExpires,
    /// 29 (RFC 9687).
    SendHoldTimerExpires,
    /// 18.
    TransportClosed,
    /// 19.
    Open(Open),
    /// 21, 22, 28: the message is malformed or unacceptable; say this.
    Malformed(Notification),
    /// 24, 25.
    Notification(Notification),
    /// 26.
    Keepalive,
    /// 27.
    Update(Update),
    /// RFC 2918, RFC 7313, for that family.
    RouteRefresh { afi: u16, subtype: u8, safi: u8 },
}

/// What a connection does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Judge the OPEN, answer it with a KEEPALIVE, start the negotiated timers: to OpenConfirm.
    Confirm(Open),
    /// To Established.
    Establish,
    /// The neighbour lives: restart the HoldTimer.
    Alive,
    /// It lives, and its UPDATE is for the RIB.
    Deliver(Update),
    /// It wants our routes of that family again, or frames its own.
    Refresh { afi: u16, subtype: u8, safi: u8 },
    /// Send a KEEPALIVE.
    SendKeepalive,
    /// The end: send the NOTIFICATION when the reason is [`DownReason::Sent`], then close.
    End(DownReason),
}

/// The table. `state` is one of OpenSent, OpenConfirm and Established.
pub(crate) fn step(state: State, event: Event) -> Step {
    use State::{Established, OpenConfirm, OpenSent};
    let fail = |notification| Step::End(DownReason::Sent(notification));
    let expired = |code| fail(Notification::new(code, 0));
    let unexpected = |kind| fail(unexpected_message(state, kind));
    // A timer that does not run in this state.
    let impossible = || fail(Notification::new(code::FSM, fsm::UNSPECIFIED));
    match (event, state) {
        (Event::Stop(notification), _) => fail(notification),
        (Event::TransportClosed, _) => Step::End(DownReason::TransportClosed),
        (Event::Notification(notification), _) => Step::End(DownReason::Received(notification)),
        (Event::HoldTimerExpires, _) => expired(code::HOLD_TIMER_EXPIRED),

        (Event::KeepaliveTimerExpires, OpenConfirm | Established) => Step::SendKeepalive,
        (Event::KeepaliveTimerExpires, _) => impossible(),
        (Event::SendHoldTimerExpires, Established) => expired(code::SEND_HOLD_TIMER_EXPIRED),
        (Event::SendHoldTimerExpires, _) => impossible(),

        (Event::Open(open), OpenSent) => Step::Confirm(open),
        (Event::Open(_), _) => unexpected(kind::OPEN),
        (Event::Keepalive, OpenConfirm) => Step::Establish,
        (Event::Keepalive, Established) => Step::Alive,
        (Event::Keepalive, _) => unexpected(kind::KEEPALIVE),
        (Event::Update(update), Established) => Step::Deliver(update),
        (Event::Update(_), _) => unexpected(kind::UPDATE),
        (Event::RouteRefresh { afi, subtype, safi }, Established) => Step::Refresh { afi, subtype, safi },
        (Event::RouteRefresh { .. }, _) => unexpected(kind::ROUTE_REFRESH),

        // A message that has no business in this state is that first, and malformed second.
        (Event::Malformed(n), Established) if n.code == code::OPEN => unexpected(kind::OPEN),
        (Event::Malformed(n), OpenSent | OpenConfirm) if n.code == code::UPDATE => unexpected(kind::UPDATE),
        (Event::Malformed(n), OpenSent | OpenConfirm) if n.code == code::ROUTE_REFRESH => {
            unexpected(kind::ROUTE_REFRESH)
        }
        (Event::Malformed(notification), _) => fail(notification),
    }
}

/// A message of that type has no place in `state` (RFC 6608 §3).
fn unexpected_message(state: State, kind: u8) -> Notification {
    let subcode = match state {
        State::OpenSent => fsm::UNEXPECTED_MESSAGE_IN_OPEN_SENT,
        State::OpenConfirm => fsm::UNEXPECTED_MESSAGE_IN_OPEN_CONFIRM,
        State::Established => fsm::UNEXPECTED_MESSAGE_IN_ESTABLISHED,
        State::Idle | State::Connect | State::Active => fsm::UNSPECIFIED,
    };
    Notification::with_data(code::FSM, subcode, [kind])
}
