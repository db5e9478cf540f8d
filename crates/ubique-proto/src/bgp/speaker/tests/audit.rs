//! What must hold for any inputs, checked after each output and each step.

use std::collections::{BTreeMap, BTreeSet};

use super::fixture::{CONTEXT, messages};
use crate::bgp::message::{Message, Notification};
use crate::bgp::session::State;
use crate::bgp::speaker::{ConnId, DownReason, In, Out, PeerId, SessionEvent, Speaker};
use crate::bgp::wire::Framer;
use crate::time::Time;

#[derive(Debug, Default)]
struct Line {
    peer: Option<PeerId>,
    /// A NOTIFICATION went out: nothing but the close may follow.
    notified: bool,
    /// One came in: the close needs no words.
    told: bool,
    sent: u64,
    received: usize,
    framer: Framer,
}

impl Line {
    fn listen(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.framer.push(bytes)..];
            while let Some(message) = self.framer.next(&CONTEXT) {
                self.received += 1;
                self.told |= matches!(message, Ok(Message::Notification(_)));
            }
        }
    }
}

/// The world as a driver of a [`Speaker`] sees it.
#[derive(Debug, Default)]
pub(super) struct Audit {
    open: BTreeMap<ConnId, Line>,
    dialling: BTreeSet<PeerId>,
    established: BTreeSet<PeerId>,
    notified_now: Vec<ConnId>,
    last_notification: Option<Notification>,
}

impl Audit {
    pub(super) fn input(&mut self, input: &In) {
        match input {
            In::Connected { peer, conn, .. } => {
                self.dialling.remove(peer);
                self.open.insert(*conn, Line { peer: Some(*peer), ..Line::default() });
            }
            In::ConnectFailed { peer } => {
                self.dialling.remove(peer);
            }
            In::Accepted { peer, conn, .. } => {
                self.open.insert(*conn, Line { peer: Some(*peer), ..Line::default() });
            }
            In::Closed { conn } => {
                self.open.remove(conn);
            }
            In::Received { conn, bytes } => {
                if let Some(line) = self.open.get_mut(conn) {
                    line.listen(bytes);
                }
            }
            _ => {}
        }
    }

    pub(super) fn output(&mut self, output: &Out) {
        match output {
            Out::Connect { peer } => {
                assert!(self.dialling.insert(*peer), "two Connects outstanding")
            }
            Out::CancelConnect { peer } => assert!(self.dialling.remove(peer), "nothing to cancel"),
            Out::Send { conn, bytes } => {
                let line = self.open.get_mut(conn).expect("Send on a connection that is not open");
                assert!(!bytes.is_empty(), "empty Send");
                for message in messages(bytes) {
                    assert!(!line.notified, "something was sent after a NOTIFICATION");
                    if let Message::Notification(notification) = message {
                        line.notified = true;
                        self.notified_now.push(*conn);
                        self.last_notification = Some(notification);
                    }
                }
                line.sent += bytes.len() as u64;
            }
            Out::Close { conn } => {
                assert!(self.open.remove(conn).is_some(), "Close of a connection that is not open");
                self.notified_now.retain(|c| c != conn);
            }
            Out::Session { peer, event } => match event {
                SessionEvent::Up { .. } => assert!(self.established.insert(*peer), "Up twice"),
                SessionEvent::Down { was_established, reason } => {
                    assert_eq!(self.established.remove(peer), *was_established);
                    if let DownReason::Sent(n) = reason {
                        assert_eq!(self.last_notification.as_ref(), Some(n));
                        assert!((1..=8).contains(&n.code), "no such error code: {n:?}");
                    }
                }
            },
            Out::Best { .. } | Out::Scope { .. } | Out::Refused { .. } | Out::Message { .. } => {}
        }
    }

    /// After all outputs of an input have been polled.
    pub(super) fn settled(&self, speaker: &Speaker, now: Time) {
        assert!(self.notified_now.is_empty(), "a NOTIFICATION without a close");
        for status in speaker.peers() {
            let lines = self.open.values().filter(|l| l.peer == Some(status.peer)).count();
            assert!(lines <= 2, "{lines} connections");
            let up = self.established.contains(&status.peer);
            assert_eq!(up, status.state == State::Established);
            assert_eq!(up, status.negotiated.is_some());
            if up {
                assert_eq!(lines, 1, "Established beside another connection");
                assert!(!self.dialling.contains(&status.peer), "dialling while Established");
            }
            if status.state == State::Connect {
                assert!(self.dialling.contains(&status.peer));
            }
            if status.state >= State::OpenSent {
                assert!(lines > 0, "{} without a connection", status.state);
            }
            if !status.enabled {
                assert_eq!((status.state, lines), (State::Idle, 0), "disabled");
            }
            // Whoever is to come up has a timer or a connection, or is there to be called.
            let waits = status.enabled && status.state < State::OpenSent && !status.config.passive;
            assert!(!waits || speaker.next_deadline().is_some(), "waits for nothing");
            assert!(status.since <= now);
        }
        assert!(speaker.next_deadline().is_none_or(|at| at > now), "a timer that is due was not run");
    }

    pub(super) fn open_connections(&self) -> Vec<ConnId> {
        self.open.keys().copied().collect()
    }

    pub(super) fn sent(&self, conn: ConnId) -> u64 {
        self.open.get(&conn).map_or(0, |l| l.sent)
    }

    pub(super) fn peer_of(&self, conn: ConnId) -> Option<PeerId> {
        self.open.get(&conn)?.peer
    }

    pub(super) fn messages_in(&self, conn: ConnId) -> usize {
        self.open.get(&conn).map_or(0, |l| l.received)
    }

    pub(super) fn is_dialling(&self, peer: PeerId) -> bool {
        self.dialling.contains(&peer)
    }
}
