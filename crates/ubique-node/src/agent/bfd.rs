//! BFD in the agent: which upstreams have it, and what a lost one means (RFC 5882).
//!
//! - A session that goes down because of silence, or because the upstream lost us, ends the BGP session (RFC 5882 §4.3).
//! - An upstream that is administratively down says nothing about the path: BGP goes on (RFC 5882 §3.2).
//! - BFD that has not come up yet keeps no BGP session from coming up: upstreams without BFD configured work, too.
//! - A neighbour from a range has BFD from when its session comes up until it leaves.
//! - While the site is drained, our side is administratively down: nothing is announced that a loss could withdraw.

use std::collections::BTreeMap;
use std::time::Duration;

use ubique_model::service::Upstream;
use ubique_proto::bfd::packet::State;
use ubique_proto::bfd::{Carried, Cause, Role, SessionId};
use ubique_proto::bgp::speaker::{In as BgpIn, PeerId};
use ubique_proto::site;
use ubique_sys::watchdog::Heartbeats;

use super::metrics::Exposition;
use super::site::Agent;
use super::{AgentError, system};
use crate::admin::BfdStatus;
use crate::bfd::{self, Driver, Notice, Observed, Peer};
use crate::journal::Journal;
use crate::random::seed;

/// The BFD of an agent.
pub(super) struct Bfd {
    driver: Driver,
    /// The neighbour of each session, with what its session has.
    sessions: BTreeMap<SessionId, (PeerId, Peer)>,
    /// Number of the next session: none is used twice.
    next: u32,
    enabled: bool,
}

/// Starts the thread of BFD when the first upstream wants it.
pub(super) struct Starter {
    /// Makes the heartbeat of the thread.
    pub heartbeats: Heartbeats,
    /// How often it must beat at least.
    pub beat: Duration,
}

impl Bfd {
    /// Starts the thread, without sessions; those that follow go on where `former` ones stopped.
    fn start(starter: &Starter, journal: Option<Journal>, former: Vec<Carried>) -> Result<Bfd, AgentError> {
        let heartbeat = starter.heartbeats.heartbeat("bfd");
        let driver = bfd::start(vec![], seed(), Some(heartbeat), starter.beat, journal).map_err(system("start BFD"))?;
        driver.resume(former);
        Ok(Bfd { driver, sessions: BTreeMap::new(), next: 0, enabled: true })
    }

    fn add(&mut self, neighbour: PeerId, peer: Peer) {
        let session = SessionId(self.next);
        self.next += 1;
        self.driver.add(session, peer.clone());
        self.sessions.insert(session, (neighbour, peer));
    }

    /// Ends the session with a neighbour, when there is one.
    pub(super) fn remove(&mut self, neighbour: PeerId) {
        let gone: Vec<SessionId> = self.of(neighbour).map(|(session, _)| session).collect();
        for session in gone {
            self.sessions.remove(&session);
            self.driver.remove(session);
        }
    }

    fn of(&self, neighbour: PeerId) -> impl Iterator<Item = (SessionId, &Peer)> {
        self.sessions.iter().filter(move |(_, (known, _))| *known == neighbour).map(|(id, (_, peer))| (*id, peer))
    }

    /// The next news; waits for ever without BFD.
    pub(super) async fn next(bfd: &mut Option<Bfd>) -> Notice {
        match bfd {
            // The thread ends only after it was told to, and then the agent ends.
            Some(bfd) => match bfd.driver.next().await {
                Some(notice) => notice,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// Takes our side down administratively, or lets it come up again.
    fn enable(&mut self, enabled: bool) {
        if self.enabled != enabled {
            self.enabled = enabled;
            self.driver.enable(enabled);
        }
    }

    /// Prepares the upstreams for another program: see [`Driver::part`].
    pub(super) fn part(&self) {
        self.driver.part();
    }

    /// Tells the upstreams that we go on purpose, and waits until that has left.
    pub(super) async fn farewell(&mut self) {
        self.driver.stop();
        while self.driver.next().await.is_some() {}
    }

    fn neighbour(&self, session: SessionId) -> Option<PeerId> {
        self.sessions.get(&session).map(|(neighbour, _)| *neighbour)
    }
}

/// Over several hops any TTL will do unless GTSM is on: RFC 5883 asks for none, and BIRD sends its system's default.
fn peer(upstream: &Upstream) -> Option<Peer> {
    let far = upstream.multihop.filter(|&hops| hops > 1).map(|_| u8::MAX);
    Some(Peer {
        remote: upstream.address,
        interface: upstream.interface.clone(),
        local: upstream.local_address,
        hops: far.or(upstream.ttl_security.filter(|&hops| hops > 1)),
        settings: upstream.bfd?,
        role: if upstream.passive { Role::Passive } else { Role::Active },
    })
}

impl Agent {
    /// News of BFD.
    pub(super) fn bfd_noticed(&mut self, notice: Notice) {
        let place = |agent: &Agent, session| {
            let peer = agent.bfd.as_ref()?.neighbour(session)?;
            Some((peer, agent.neighbour(peer)?.address))
        };
        match notice {
            Notice::State { session, from, to, cause, control_independent } => {
                let Some((peer, address)) = place(self, session) else {
                    return;
                };
                let lost = matches!(cause, Cause::DetectionTimeExpired | Cause::NeighbourDown);
                if from == State::Up && lost {
                    self.bgp.handle(BgpIn::BfdDown { peer, control_independent });
                }
                if let Some(unwritten) = self.admit(peer).filter(|_| to == State::Up || from == State::Up) {
                    tracing::info!(%address, cause = cause.words(), state = to.name(), unwritten, "BFD");
                    let state = if to == State::Up { "up" } else { "down" };
                    self.remember(format!("BFD {address} {state}"), cause.words().to_owned());
                }
            }
            Notice::Told { session, notice } => {
                if let Some((_, address)) = place(self, session) {
                    tracing::warn!(%address, "{}", notice.words());
                    self.remember(format!("BFD {address}"), notice.words().to_owned());
                }
            }
            Notice::Parting { carried } => self.parted(carried),
            Notice::Sockets { error } => tracing::error!(error, "BFD: trying again"),
        }
    }

    /// Gives every upstream the BFD it has in the service file, and takes it from those that have none (any more).
    pub(super) fn bfd_adapt(&mut self) {
        let mut wanted = BTreeMap::new();
        for (&neighbour, upstream) in &self.upstreams {
            if let Some(peer) = peer(upstream) {
                wanted.insert(neighbour, peer);
            }
        }
        if !wanted.is_empty() {
            self.bfd_start();
        }
        let Some(bfd) = &mut self.bfd else { return };
        let known: Vec<PeerId> = bfd.sessions.values().map(|(neighbour, _)| *neighbour).collect();
        for neighbour in known.into_iter().filter(|n| !wanted.contains_key(n) && !self.dynamic.contains_key(n)) {
            bfd.remove(neighbour);
        }
        for (neighbour, peer) in wanted {
            let present = bfd.of(neighbour).next().map(|(session, known)| (session, known.clone()));
            match present {
                Some((_, known)) if known == peer => {}
                Some((session, known)) if (Peer { settings: peer.settings, ..known.clone() }) == peer => {
                    bfd.driver.configure(session, peer.settings);
                    bfd.sessions.insert(session, (neighbour, peer));
                }
                _ => {
                    bfd.remove(neighbour);
                    bfd.add(neighbour, peer);
                }
            }
        }
    }

    /// Starts the thread, unless it runs.
    fn bfd_start(&mut self) {
        if self.bfd.is_some() {
            return;
        }
        match Bfd::start(&self.bfd_starter, self.journal.clone(), self.restart.bfd()) {
            Ok(bfd) => self.bfd = Some(bfd),
            Err(error) => tracing::error!(%error, "no BFD: sessions go by their hold timers"),
        }
        self.bfd_follow(self.core.state());
    }

    /// The session of a neighbour from a range is up: before that, whoever called would have made us open BFD to it.
    pub(super) fn bfd_joined(&mut self, neighbour: PeerId) {
        let Some(peer) = self.dynamic.get(&neighbour).and_then(peer) else { return };
        self.bfd_start();
        if let Some(bfd) = self.bfd.as_mut().filter(|bfd| bfd.of(neighbour).next().is_none()) {
            bfd.add(neighbour, peer);
        }
    }

    /// What a state of the site means for BFD.
    pub(super) fn bfd_follow(&mut self, state: site::State) {
        use site::State::{Drained, Removing, Stopped, Stopping};
        if let Some(bfd) = &mut self.bfd {
            match state {
                Drained => bfd.enable(false),
                Stopping | Removing | Stopped => {}
                _ => bfd.enable(true),
            }
        }
    }

    /// The session with each upstream that has BFD.
    pub(super) fn bfd_observed(&self) -> Vec<(PeerId, BfdStatus)> {
        let Some(bfd) = &self.bfd else {
            return Vec::new();
        };
        let snapshot = bfd.driver.snapshot();
        let one = |seen: &Observed| {
            let peer = bfd.neighbour(seen.session)?;
            Some((peer, self.bfd_status(seen, snapshot.error.as_deref())))
        };
        snapshot.sessions.iter().filter_map(one).collect()
    }

    fn bfd_status(&self, seen: &Observed, error: Option<&str>) -> BfdStatus {
        let core = &seen.core;
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        BfdStatus {
            state: core.state.name().to_ascii_lowercase(),
            since: self.when(core.since),
            cause: core.cause.words().to_owned(),
            diagnostic: core.diagnostic.to_string(),
            neighbour_diagnostic: core.remote_diagnostic.to_string(),
            interval_ms: ms(core.interval),
            detection_ms: core.detection_time.map(ms),
            neighbour_detection_ms: core.remote_detection_time.map(ms),
            received: core.counters.received,
            sent: core.counters.sent,
            discarded: core.counters.discarded,
            downs: core.counters.downs,
            error: seen.send_error.as_deref().or(error).map(str::to_owned),
        }
    }

    /// Metrics of BFD; none without it.
    pub(super) fn bfd_metrics(&self, out: &mut Exposition) {
        let Some(bfd) = &self.bfd else {
            return;
        };
        let observed = self.bfd_observed();
        let address = |peer: &PeerId| self.neighbour(*peer).map(|upstream| upstream.address);
        let seen: Vec<_> = observed.iter().filter_map(|(peer, status)| Some((address(peer)?, status))).collect();
        out.family("ubique_bfd_up", "gauge", "1 while the BFD session is Up.");
        for (peer, status) in &seen {
            out.sample("ubique_bfd_up", &[("peer", peer)], u8::from(status.state == "up"));
        }
        out.family(
            "ubique_bfd_detection_seconds",
            "gauge",
            "How long silence may last, by whose; absent while unknown.",
        );
        for (peer, status) in &seen {
            for (side, ms) in [("peer", status.detection_ms), ("ours", status.neighbour_detection_ms)] {
                if let Some(ms) = ms {
                    out.sample("ubique_bfd_detection_seconds", &[("peer", peer), ("silence", &side)], ms / 1e3);
                }
            }
        }
        out.family("ubique_bfd_packets_total", "counter", "BFD packets; discarded ones came from the peer's address.");
        for (peer, status) in &seen {
            for (what, count) in [("received", status.received), ("sent", status.sent), ("discarded", status.discarded)]
            {
                out.sample("ubique_bfd_packets_total", &[("peer", peer), ("direction", &what)], count);
            }
        }
        out.family("ubique_bfd_downs_total", "counter", "Times the BFD session ceased to be Up.");
        for (peer, status) in &seen {
            out.sample("ubique_bfd_downs_total", &[("peer", peer)], status.downs);
        }
        let snapshot = bfd.driver.snapshot();
        out.family(
            "ubique_bfd_discards_total",
            "counter",
            "Datagrams to the BFD ports that were discarded, by reason.",
        );
        for (reason, count) in &snapshot.discards {
            out.sample("ubique_bfd_discards_total", &[("reason", &reason.name())], count);
        }
        out.family(
            "ubique_bfd_longest_gap_seconds",
            "gauge",
            "Longest time between two of our packets of one session.",
        );
        out.sample("ubique_bfd_longest_gap_seconds", &[], snapshot.gaps.longest().as_secs_f64());
    }
}
