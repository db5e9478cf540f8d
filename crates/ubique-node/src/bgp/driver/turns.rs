//! Who gets its turn when: reads in rounds, deadlines between them, and no turn longer than [`TURN`].
//!
//! A full table from one neighbour is a second of work. Nothing may wait for that: every read is small, every connection
//! has its share of a round, and after [`TURN`] the whole runtime gets its chance, I/O included. Tasks that I/O woke then
//! are polled before the next turn: what they tell their owner, such as that the service has died, comes before more routes.

use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ubique_proto::Time;
use ubique_proto::bgp::speaker::{ConnId, In};

use super::{Connection, Driver, Notice, READ_BYTES, instant, now};
use crate::bgp::connection::Read;

/// How long a driver works before others get their turn.
const TURN: Duration = Duration::from_micros(200);

/// Reads from one connection in a round: more than the longest message (RFC 8654), so that whoever has sent something
/// whole in time has been heard when deadlines are judged.
const READS_IN_A_ROUND: usize = 65_535 / READ_BYTES + 2;

/// Calls taken from a listener in a round: the connections that stand have their turns between.
const CALLS_IN_A_ROUND: usize = 16;

/// One round through all connections.
pub(super) struct Round {
    /// When it began: deadlines after that are not judged by it.
    began: Time,
    /// Connections whose turn is still to come, the next one last.
    queue: Vec<ConnId>,
    /// Reads that the one whose turn it is has had.
    reads: usize,
    progress: bool,
    /// The runtime has looked at the sockets since a deadline came, and this round reads what it found.
    looked: bool,
}

impl Round {
    pub(super) fn new(now: Time) -> Round {
        Round { began: now, queue: Vec::new(), reads: 0, progress: true, looked: false }
    }
}

impl Driver {
    /// Makes progress for at most [`TURN`].
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Notice> {
        if std::mem::take(&mut self.used_up) {
            // `LocalSet` polls the future that owns it before its tasks: they have their turn until it is polled again.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let began = now();
        loop {
            let now = now();
            if let Some(notice) = self.notices.pop_front() {
                if let Notice::Left { peer } = notice {
                    self.forget(now, peer);
                }
                return Poll::Ready(notice);
            }
            let idle = self.round.queue.is_empty();
            // Without a budget sockets say that they are empty (tokio's cooperation), and deadlines would be judged by that.
            let spent = now.since(began) >= TURN || !tokio::task::coop::has_budget_remaining();
            if spent || (idle && self.must_look(now)) {
                self.used_up = true;
                // As `yield_now` does it: sockets and timers of others are looked at before we come back.
                let _ = pin!(tokio::task::yield_now()).poll(cx);
                return Poll::Pending;
            }
            let Some(&conn) = self.round.queue.last() else {
                if !self.next_round(cx, now) && self.notices.is_empty() {
                    return Poll::Pending;
                }
                continue;
            };
            let more = self.poll_connection(cx, now, conn);
            self.round.progress |= more;
            self.round.reads += 1;
            if !more || self.round.reads >= READS_IN_A_ROUND {
                self.round.queue.pop();
                self.round.reads = 0;
            }
        }
    }

    /// A deadline has come. What the runtime knows of the sockets may be as old as a pause of this process: it looks
    /// again, and another round reads what it found, before the deadline is judged.
    fn must_look(&mut self, now: Time) -> bool {
        let due = self.speaker.next_deadline().is_some_and(|due| due <= self.round.began);
        let must = due && !self.round.looked;
        if must {
            let queue = self.connections.keys().rev().copied().collect();
            self.round = Round { queue, looked: true, ..Round::new(now) };
        }
        must
    }

    /// Ends a round and begins the next. False: nothing happened in the one that is over, and everything that could
    /// wakes us.
    fn next_round(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let mut progress = std::mem::take(&mut self.round.progress);
        // What the sockets had comes before a deadline: after a pause of this process the KEEPALIVE that keeps a session
        // alive may have lain unread. What is due since the round began waits for the next one.
        progress |= self.deadlines(self.round.began);
        self.round.looked = false;
        self.listeners.look(now, self.place.as_ref(), &self.callers);
        progress |= self.poll_accept(cx, now);
        progress |= self.poll_waiting(cx, now);
        progress |= self.poll_connecting(cx, now);
        self.leave();
        self.round.began = now;
        self.round.queue.extend(self.connections.keys().rev());
        progress || self.arm(cx, now)
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let mut progress = false;
        for index in 0..self.listeners.len() {
            for _ in 0..CALLS_IN_A_ROUND {
                let Poll::Ready((stream, from)) = self.listeners.poll_accept(cx, index) else {
                    break;
                };
                progress = true;
                self.accepted(now, stream, from, index);
            }
        }
        progress
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let mut progress = false;
        for index in (0..self.waiting.len()).rev() {
            let Poll::Ready(result) = self.waiting[index].poll_asn(cx, now) else {
                continue;
            };
            progress = true;
            let caller = self.waiting.swap_remove(index);
            match result {
                Ok(asn) => self.join(now, caller, asn),
                Err(()) => self.refuse(now, caller.from, "no OPEN came"),
            }
        }
        progress
    }

    fn poll_connecting(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let mut done = Vec::new();
        for (&peer, attempt) in &mut self.connecting {
            if let Poll::Ready(result) = attempt.as_mut().poll(cx) {
                done.push((peer, result));
            }
        }
        let progress = !done.is_empty();
        for (peer, result) in done {
            // What was fed before may have cancelled this one.
            if self.connecting.remove(&peer).is_none() {
                continue;
            }
            let input = match result {
                Ok(stream) => self.adopt(peer, stream).map(|(conn, local)| In::Connected { peer, conn, local }),
                Err(error) => {
                    self.cannot_connect(peer, error.to_string());
                    None
                }
            };
            self.speaker.handle_input(now, input.unwrap_or(In::ConnectFailed { peer }));
            self.carry_out(now);
        }
        progress
    }

    /// Writes what waits, and reads once. True: there may be more.
    fn poll_connection(&mut self, cx: &mut Context<'_>, now: Time, conn: ConnId) -> bool {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return false;
        };
        let broken = connection.poll_write(cx).is_err();
        if broken || connection.finish(now) {
            self.lost(conn);
            self.carry_out(now);
            self.round.progress = true;
            return false;
        }
        let closing = connection.is_closing();
        match connection.poll_read(cx, &mut self.buffer) {
            Poll::Pending => return false,
            Poll::Ready(Read::End) => {
                self.lost(conn);
                self.carry_out(now);
            }
            Poll::Ready(Read::Bytes(_)) if closing => {}
            Poll::Ready(Read::Bytes(count)) => {
                let bytes = self.buffer[..count].to_vec();
                self.speaker.handle_input(now, In::Received { conn, bytes });
                self.carry_out(now);
            }
        }
        true
    }

    /// What was due at `judged`, and nothing that came due since: the sockets were not read after it.
    pub(super) fn deadlines(&mut self, judged: Time) -> bool {
        let mut progress = false;
        let now = now();
        if self.speaker.next_deadline().is_some_and(|due| due <= judged) {
            let freeing = self.speaker.rib().has_gone();
            self.speaker.handle_deadline(judged);
            self.carry_out(now);
            if freeing && !self.speaker.rib().has_gone() {
                // More than one turn's worth: a big table. What is missing now is not missed before the next one.
                let _ = std::thread::Builder::new().name("trim".to_owned()).spawn(ubique_sys::memory::trim);
            }
            progress = true;
        }
        let mut looks = Vec::new();
        for (&conn, connection) in &mut self.connections {
            if let Some(offset) = connection.look(now) {
                looks.push((conn, connection.peer, offset));
            }
        }
        for (conn, peer, offset) in looks {
            self.speaker.handle_input(now, In::Acknowledged { conn, offset });
            self.carry_out(now);
            self.notices.push_back(Notice::Acknowledged { peer });
            progress = true;
        }
        progress
    }

    /// Arms the one timer for the earliest deadline. True: that has come.
    fn arm(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let connections = self.connections.values().filter_map(Connection::next_deadline).min();
        let waiting = self.waiting.iter().map(|c| c.until).min();
        let next = [self.speaker.next_deadline(), connections, waiting, self.listeners.next_deadline()]
            .into_iter()
            .flatten()
            .min();
        if next != self.armed {
            self.armed = next;
            if let Some(at) = next {
                self.timer.as_mut().reset(instant(at, now));
            }
        }
        if self.armed.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.armed = None;
            return true;
        }
        false
    }
}
