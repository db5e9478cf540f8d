//! The thread: one loop around the core.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Orders, TryRecvError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::Sender as News;
use ubique_model::Family;
use ubique_proto::Time;
use ubique_proto::bfd::packet::State;
use ubique_proto::bfd::{Bfd, In, Out, Remote, SessionConfig, SessionId};
use ubique_proto::journal::Recorded;
use ubique_sys::priority::prefer_this_thread;
use ubique_sys::watchdog::Heartbeat;

use super::gaps::Gaps;
use super::socket::{Receiver, Sender};
use super::{Command, Notice, Observed, Peer, Shared, Snapshot};
use crate::clock::now;
use crate::journal::Journal;

/// How long after a failure sockets are opened again.
const RETRY: Duration = Duration::from_secs(2);

/// How old published numbers may be; changes of state are published at once.
const PUBLISH: Duration = Duration::from_millis(250);

/// One session's side of the driver.
struct Line {
    peer: Peer,
    sender: Option<Sender>,
    /// When the last packet that said Up left.
    sent_up: Option<Time>,
    send_error: Option<String>,
}

pub(super) struct Thread {
    core: Recorded<Bfd, Journal>,
    lines: BTreeMap<SessionId, Line>,
    receivers: Vec<Receiver>,
    orders: Orders<Command>,
    news: News<Notice>,
    shared: Arc<Shared>,
    gaps: Gaps,
    latest: Duration,
    /// Not all sessions are administratively down.
    enabled: bool,
    /// Why sockets cannot be opened, and when it is tried again.
    error: Option<(String, Time)>,
    published: Time,
    /// Something changed that is not published yet.
    changed: bool,
}

impl Thread {
    pub(super) fn new(
        peers: Vec<Peer>,
        seed: u64,
        journal: Option<Journal>,
        orders: Orders<Command>,
        news: News<Notice>,
        shared: Arc<Shared>,
    ) -> Thread {
        let line = |peer| Line { peer, sender: None, sent_up: None, send_error: None };
        Thread {
            core: Recorded::new(now(), seed, journal),
            lines: (0..).map(SessionId).zip(peers.into_iter().map(line)).collect(),
            receivers: Vec::new(),
            orders,
            news,
            shared,
            gaps: Gaps::default(),
            latest: Duration::ZERO,
            enabled: true,
            error: None,
            published: Time::ZERO,
            changed: true,
        }
    }

    /// Until it is told to stop, or nobody is left to tell it.
    pub(super) fn run(mut self, heartbeat: Option<Heartbeat>, beat: Duration) {
        // SCHED_FIFO does no better: measured beside it on two busy processors, 24 and 18 ms late at worst, 30 and 18 without.
        if let Err(error) = prefer_this_thread() {
            tracing::warn!(%error, "BFD has no priority over other threads: packets may be late on a busy machine");
        }
        let start = now();
        for (&session, line) in &self.lines {
            self.core.handle_input(start, In::Add { session, config: config(&line.peer) });
        }
        self.open(start);
        loop {
            if let Some(heartbeat) = &heartbeat {
                heartbeat.beat();
            }
            self.wait(beat);
            let running = self.commands();
            // What arrived until now is fed before deadlines are judged as of the same moment.
            let now = now();
            for receiver in &mut self.receivers {
                receiver.drain(now, |datagram| self.core.handle_input(now, datagram));
            }
            if let Some(due) = self.core.next_deadline().filter(|&at| at <= now) {
                self.latest = self.latest.max(now.since(due));
                self.core.handle_deadline(now);
            }
            self.carry_out();
            if !running {
                self.publish(now);
                return;
            }
            if self.error.as_ref().is_some_and(|(_, at)| *at <= now) {
                self.open(now);
            }
            if self.changed || now.since(self.published) >= PUBLISH {
                self.publish(now);
            }
        }
    }

    fn wait(&self, beat: Duration) {
        let now = now();
        let until = |at: Time| at.since(now);
        let deadline = self.core.next_deadline().map_or(beat, until);
        let retry = self.error.as_ref().map_or(beat, |(_, at)| until(*at));
        let pause = deadline.min(retry).min(beat).min(PUBLISH);
        let timeout = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: pause.subsec_nanos().into() };
        let mut sources = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        sources.extend(self.receivers.iter().map(|r| PollFd::new(r, PollFlags::IN)));
        // An interrupted wait is a short one.
        let _ = poll(&mut sources, Some(&timeout));
    }

    /// Carries out what was asked for; `false`: the end.
    fn commands(&mut self) -> bool {
        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        let now = now();
        loop {
            match self.orders.try_recv() {
                Ok(Command::Enabled(enabled)) => self.enable(now, enabled),
                Ok(Command::Configure(session, to)) => self.core.handle_input(
                    now,
                    In::Configure { session, interval: to.interval, receive: to.receive, multiplier: to.multiplier },
                ),
                Ok(Command::Add(session, peer)) => self.add(now, session, peer),
                Ok(Command::Remove(session)) => self.remove(now, session),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                    self.enable(now, false);
                    return false;
                }
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn add(&mut self, now: Time, session: SessionId, peer: Peer) {
        self.core.handle_input(now, In::Add { session, config: config(&peer) });
        if !self.enabled {
            self.core.handle_input(now, In::Disable { session });
        }
        self.lines.insert(session, Line { peer, sender: None, sent_up: None, send_error: None });
        self.open(now);
    }

    fn remove(&mut self, now: Time, session: SessionId) {
        self.core.handle_input(now, In::Disable { session });
        // Its last word leaves while it still has a socket.
        self.carry_out();
        self.core.handle_input(now, In::Remove { session });
        self.lines.remove(&session);
        self.changed = true;
    }

    fn enable(&mut self, now: Time, enabled: bool) {
        self.enabled = enabled;
        for &session in self.lines.keys() {
            let input = if enabled { In::Enable { session } } else { In::Disable { session } };
            self.core.handle_input(now, input);
        }
    }

    /// Opens the sockets that are missing.
    fn open(&mut self, now: Time) {
        let mut error = None;
        let mut wanted: Vec<(Family, bool)> =
            self.lines.values().map(|l| (Family::of_address(l.peer.remote), l.peer.hops.is_some())).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
            .retain(|&(family, multihop)| !self.receivers.iter().any(|r| (r.family, r.multihop) == (family, multihop)));
        for (family, multihop) in wanted {
            match Receiver::open(family, multihop) {
                Ok(receiver) => self.receivers.push(receiver),
                Err(why) => error = Some(why),
            }
        }
        for line in self.lines.values_mut().filter(|l| l.sender.is_none()) {
            match Sender::open(&line.peer) {
                Ok(sender) => line.sender = Some(sender),
                Err(why) => error = Some(format!("cannot send BFD to {}: {why}", line.peer.remote)),
            }
        }
        if let Some(error) = &error
            && self.error.as_ref().is_none_or(|(before, _)| before != error)
        {
            self.tell(Notice::Sockets { error: error.clone() });
        }
        self.error = error.map(|error| (error, now + RETRY));
        self.changed = true;
    }

    fn carry_out(&mut self) {
        while let Some(out) = self.core.poll_output() {
            match out {
                Out::Send { session, bytes } => self.send(session, &bytes),
                Out::State { session, from, to, cause, control_independent } => {
                    self.tell(Notice::State { session, from, to, cause, control_independent });
                }
                Out::Notice { session, notice } => self.tell(Notice::Told { session, notice }),
            }
        }
    }

    fn send(&mut self, session: SessionId, bytes: &[u8]) {
        let Some(line) = self.lines.get_mut(&session) else {
            return;
        };
        let Some(sender) = &line.sender else {
            return;
        };
        let error = sender.send(bytes).err().map(|e| e.to_string());
        self.changed |= error != line.send_error;
        line.send_error = error;
        let up = bytes.get(1).is_some_and(|flags| flags >> 6 == State::Up as u8);
        let sent = now();
        if let Some(before) = line.sent_up.filter(|_| up) {
            self.gaps.add(sent.since(before));
        }
        line.sent_up = up.then_some(sent);
    }

    /// Never waits: see [`super::NOTICES`].
    fn tell(&mut self, notice: Notice) {
        let _ = self.news.try_send(notice);
        self.changed = true;
    }

    /// Leaves the state where others read it; when somebody does at this moment, the next turn will.
    fn publish(&mut self, now: Time) {
        let Ok(mut place) = self.shared.snapshot.try_lock() else {
            return;
        };
        let observed = |(session, core)| {
            let send_error = self.lines.get(&session).and_then(|l| l.send_error.clone());
            Observed { session, core, send_error }
        };
        *place = Snapshot {
            sessions: self.core.sessions().map(observed).collect(),
            discards: self.core.discards().collect(),
            gaps: self.gaps.clone(),
            latest: self.latest,
            error: self.error.as_ref().map(|(error, _)| error.clone()),
        };
        self.published = now;
        self.changed = false;
    }
}

fn config(peer: &Peer) -> SessionConfig {
    SessionConfig {
        remote: Remote { address: peer.remote, scope: peer.scope, multihop: peer.hops.is_some() },
        interval: peer.settings.interval,
        receive: peer.settings.receive,
        multiplier: peer.settings.multiplier,
        // One hop: 255 (RFC 5881 §5). Each router on the way takes one off.
        ttl_min: u8::MAX - peer.hops.map_or(0, |hops| hops.saturating_sub(1)),
        role: peer.role,
    }
}
