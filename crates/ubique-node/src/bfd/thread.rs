//! The thread: one loop around the core.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Orders, TryRecvError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::Sender as News;
use ubique_model::service;
use ubique_proto::Time;
use ubique_proto::bfd::packet::{Discard, State};
use ubique_proto::bfd::{Bfd, Carried, In, Out, Remote, SLOW_INTERVAL, SessionConfig, SessionId};
use ubique_proto::journal::Recorded;
use ubique_sys::priority::{prefer_own_session, prefer_this_thread};
use ubique_sys::watchdog::Heartbeat;

use super::gaps::Gaps;
use super::socket::{Kind, Receiver, Sender, interface_index};
use super::{Command, Notice, Observed, PAUSE, Peer, Shared, Snapshot};
use crate::clock::now;
use crate::journal::Journal;

/// How long after a failure sockets are opened again, and between two looks at interfaces.
const RETRY: Duration = Duration::from_secs(2);

/// How long neighbours may take to confirm slow packets before the program is replaced all the same: one that sends each second does.
const PARTING: Duration = Duration::from_millis(1500);

/// One session's side of the driver.
struct Line {
    peer: Peer,
    /// Number of its interface; 0 without one. `None`: the interface is not there, or was not looked for.
    index: Option<u32>,
    /// Scope of the neighbour's address as the core has it: the interface of a link-local one, else 0. `None`: it has no
    /// session yet.
    scope: Option<u32>,
    sender: Option<Sender>,
    /// When the last packet that said Up left.
    sent_up: Option<Time>,
    send_error: Option<String>,
}

pub(super) struct Thread {
    core: Recorded<Bfd, Journal>,
    lines: BTreeMap<SessionId, Line>,
    receivers: Vec<Receiver>,
    /// What the receivers gave in this turn.
    arrived: Vec<(Time, In)>,
    orders: Orders<Command>,
    news: News<Notice>,
    shared: Arc<Shared>,
    gaps: Gaps,
    latest: Duration,
    /// Our operator wants the sessions.
    enabled: bool,
    /// Sessions of the former program that none of ours has taken up.
    former: Vec<Carried>,
    /// Another program takes our place, at the latest then.
    parting: Option<Time>,
    /// What never reached the core, by reason.
    discards: BTreeMap<Discard, u64>,
    /// Why sockets cannot be opened.
    error: Option<String>,
    /// When sockets and interfaces are looked at again.
    look_at: Option<Time>,
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
        Thread {
            core: Recorded::new(now(), seed, journal),
            lines: (0..).map(SessionId).zip(peers.into_iter().map(line)).collect(),
            receivers: Vec::new(),
            arrived: Vec::new(),
            orders,
            news,
            shared,
            gaps: Gaps::default(),
            latest: Duration::ZERO,
            enabled: true,
            former: Vec::new(),
            parting: None,
            discards: BTreeMap::new(),
            error: None,
            look_at: None,
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
        prefer_own_session();
        self.open(now());
        loop {
            if let Some(heartbeat) = &heartbeat {
                heartbeat.beat();
            }
            self.wait(beat);
            let running = self.commands();
            // What arrived until now is fed before deadlines are judged as of the same moment.
            let now = now();
            for receiver in &mut self.receivers {
                receiver.drain(now, &mut self.arrived, |why| *self.discards.entry(why).or_default() += 1);
            }
            self.arrived.sort_by_key(|(received, _)| *received);
            for (_, datagram) in self.arrived.drain(..) {
                self.core.handle_input(now, datagram);
            }
            if let Some(due) = self.core.next_deadline().filter(|&at| at <= now) {
                self.latest = self.latest.max(now.since(due));
                self.core.handle_deadline(now);
            }
            self.carry_out();
            self.part(now);
            if !running {
                self.publish(now);
                return;
            }
            if self.look_at.is_some_and(|at| at <= now) {
                self.open(now);
            }
            if self.changed || now.since(self.published) >= PAUSE {
                self.publish(now);
            }
        }
    }

    fn wait(&self, beat: Duration) {
        let now = now();
        let until = |at: Time| at.since(now);
        let deadline = self.core.next_deadline().map_or(beat, until);
        let retry = self.look_at.map_or(beat, until);
        let pause = deadline.min(retry).min(beat).min(PAUSE);
        let timeout = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: pause.subsec_nanos().into() };
        let mut sources = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        let all = self.core.is_coming_up();
        let receivers = self.receivers.iter().flat_map(|r| r.sources(all));
        sources.extend(receivers.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)));
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
                Ok(Command::Part) => self.slow_down(now),
                Ok(Command::Resume(former)) => self.former = former,
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                    self.enable(now, false);
                    return false;
                }
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn add(&mut self, now: Time, session: SessionId, peer: Peer) {
        self.lines.insert(session, line(peer));
        self.open(now);
    }

    fn remove(&mut self, now: Time, session: SessionId) {
        self.core.handle_input(now, In::Disable { session });
        // Its last word leaves while it still has a socket.
        self.carry_out();
        self.core.handle_input(now, In::Remove { session });
        self.lines.remove(&session);
        self.open(now);
        self.changed = true;
    }

    /// Polls the neighbours for so long an interval that they bear the pause between two programs.
    fn slow_down(&mut self, now: Time) {
        for (&session, line) in &self.lines {
            let service::Bfd { interval, receive, multiplier } = line.peer.settings;
            let interval = interval.max(SLOW_INTERVAL);
            self.core.handle_input(now, In::Configure { session, interval, receive, multiplier });
        }
        self.parting = Some(now + PARTING);
    }

    /// Says what the next program needs, once the neighbours have confirmed.
    fn part(&mut self, now: Time) {
        if self.parting.is_some_and(|latest| now >= latest || !self.core.is_polling()) {
            self.parting = None;
            self.tell(Notice::Parting { carried: self.core.carried(now) });
        }
    }

    fn enable(&mut self, now: Time, enabled: bool) {
        self.enabled = enabled;
        for &session in self.lines.keys() {
            let input = if enabled { In::Enable { session } } else { In::Disable { session } };
            self.core.handle_input(now, input);
        }
    }

    /// Follows interfaces that came or went, and opens the sockets that are missing.
    fn open(&mut self, now: Time) {
        let mut error = None;
        for session in self.lines.keys().copied().collect::<Vec<_>>() {
            error = self.follow(now, session).err().or(error);
        }
        error = self.open_receivers().err().or(error);
        for line in self.lines.values_mut().filter(|l| l.sender.is_none()) {
            let Some(scope) = line.scope.filter(|_| line.index.is_some()) else {
                continue;
            };
            match Sender::open(&line.peer, scope) {
                Ok(sender) => line.sender = Some(sender),
                Err(why) => error = Some(format!("cannot send BFD to {}: {why}", line.peer.remote)),
            }
        }
        if let Some(error) = &error
            && self.error.as_ref() != Some(error)
        {
            self.tell(Notice::Sockets { error: error.clone() });
        }
        let changing = self.lines.values().any(|l| l.peer.interface.is_some());
        self.look_at = (changing || error.is_some()).then(|| now + RETRY);
        self.changed |= self.error != error;
        self.error = error;
    }

    /// Looks for the interface of a session. One that is another now wants other sockets, and a session of a link-local
    /// neighbour begins anew there; one that is gone leaves its session to run out.
    fn follow(&mut self, now: Time, session: SessionId) -> Result<(), String> {
        let Some(line) = self.lines.get_mut(&session) else {
            return Ok(());
        };
        let found = line.peer.interface.as_deref().map_or(Ok(0), interface_index);
        let index = found.as_ref().ok().copied();
        if line.index != index {
            line.index = index;
            line.sender = None;
            let kind = Kind::of(&line.peer);
            self.receivers.retain(|receiver| receiver.kind != kind);
        }
        let link_local = matches!(line.peer.remote, IpAddr::V6(address) if address.is_unicast_link_local());
        let scope = if link_local { index } else { Some(0) };
        if let Some(scope) = scope.filter(|_| line.scope != scope) {
            if line.scope.replace(scope).is_some() {
                self.core.handle_input(now, In::Remove { session });
            }
            let config = config(&line.peer, scope);
            self.core.handle_input(now, In::Add { session, config });
            if let Some(place) = self.former.iter().position(|former| former.remote == config.remote) {
                let carried = self.former.swap_remove(place);
                self.core.handle_input(now, In::Resume { session, carried });
            }
            if !self.enabled {
                self.core.handle_input(now, In::Disable { session });
            }
            self.changed = true;
        }
        let name = || line.peer.interface.clone().unwrap_or_default();
        found.map(drop).map_err(|why| format!("interface {} of {}: {why}", name(), line.peer.remote))
    }

    fn open_receivers(&mut self) -> Result<(), String> {
        let mut wanted: BTreeMap<Kind, BTreeMap<Remote, u8>> = BTreeMap::new();
        for line in self.lines.values().filter(|l| l.index.is_some()) {
            if let Some(scope) = line.scope {
                let config = config(&line.peer, scope);
                wanted.entry(Kind::of(&line.peer)).or_default().insert(config.remote, config.ttl_min);
            }
        }
        let kinds: BTreeSet<Kind> = self.lines.values().map(|l| Kind::of(&l.peer)).collect();
        let shared = |kind: &Kind| {
            let alike = |other: &&Kind| (other.family, other.multihop) == (kind.family, kind.multihop);
            kinds.iter().filter(alike).count() > 1
        };
        // One that stays open loses nothing that others send: neighbours of ranges come and go as they like.
        self.receivers.retain_mut(|receiver| {
            let known = wanted.get(&receiver.kind).filter(|_| receiver.shared == shared(&receiver.kind));
            known.is_some_and(|known| receiver.hear(known))
        });
        wanted.retain(|kind, _| !self.receivers.iter().any(|r| r.kind == *kind));
        let mut end = Ok(());
        for (kind, known) in wanted {
            let shared = shared(&kind);
            match Receiver::open(kind, shared, known) {
                Ok(receiver) => self.receivers.push(receiver),
                Err(why) => end = Err(why),
            }
        }
        end
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
        let mut discards = self.discards.clone();
        for (why, count) in self.core.discards() {
            *discards.entry(why).or_default() += count;
        }
        *place = Snapshot {
            sessions: self.core.sessions().map(observed).collect(),
            discards: discards.into_iter().collect(),
            gaps: self.gaps.clone(),
            latest: self.latest,
            error: self.error.clone(),
        };
        self.published = now;
        self.changed = false;
    }
}

fn line(peer: Peer) -> Line {
    Line { peer, index: None, scope: None, sender: None, sent_up: None, send_error: None }
}

fn config(peer: &Peer, scope: u32) -> SessionConfig {
    SessionConfig {
        remote: Remote { address: peer.remote, scope, multihop: peer.hops.is_some() },
        interval: peer.settings.interval,
        receive: peer.settings.receive,
        multiplier: peer.settings.multiplier,
        // One hop: 255 (RFC 5881 §5). Each router on the way takes one off.
        ttl_min: u8::MAX - peer.hops.map_or(0, |hops| hops.saturating_sub(1)),
        role: peer.role,
    }
}
