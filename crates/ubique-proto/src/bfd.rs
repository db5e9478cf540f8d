//! BFD: two machines that notice within milliseconds that the other is lost (RFC 5880, 5881, 5883).
//!
//! [`Bfd`] is all sessions of a process, in asynchronous mode: each side sends packets at an agreed interval, and a
//! detection time without one is a loss. What a session offers:
//!
//! - C is never set: our BFD shares fate with the agent, on purpose. When the agent dies, nobody checks the service any
//!   more, and the neighbour must take its routes away.
//! - Demand mode is never asked for. A neighbour that asks gets silence between polls, as RFC 5880 §6.6 demands, and is
//!   told of ([`Notice::Demand`]): it then notices our death only when it polls.
//! - Authentication is refused: packets with the A bit are discarded, counted and told of once. TTL 255 protects
//!   single-hop sessions from whoever is not on the link (RFC 5881 §5).
//! - Echo is not offered: Required Min Echo RX Interval is 0.
//!
//! Detection goes by when packets arrived, which the driver states for each: it drains its sockets, then calls
//! [`Bfd::handle_deadline`], so its own delay is not the neighbour's. When it was away for longer than the neighbour's
//! interval (the machine was paused), the neighbour gets one more detection time before it is given up.
//!
//! Start at [`Bfd::handle_input`]; the packet is in [`packet`], the session of RFC 5880 §6.8 in `session`.
//!
//! Deliberately absent: sockets and threads; multipoint (RFC 8562), Micro-BFD (RFC 7130), S-BFD (RFC 7880), echo (RFC
//! 5880 §6.8.8, §6.8.9), authentication (§6.7), demand mode of our own (§6.6).

mod pace;
pub mod packet;
mod session;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Time;
use pace::Pace;
use packet::{Control, Diagnostic, Discard, State};
use session::{Reaction, Session};

pub use session::SLOW_INTERVAL;

/// Sessions at a time: more upstreams than a site can have, and as many as a thread can serve every 10 ms.
pub const SESSIONS_MAX: usize = 1024;

/// Number of a session, given by whoever adds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u32);

/// The neighbour's address as packets show it; one session for each (RFC 5881 §3, RFC 5883 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Remote {
    /// Its address.
    pub address: IpAddr,
    /// Interface of a link-local address; 0 otherwise.
    pub scope: u32,
    /// Over several hops (RFC 5883), UDP port 4784; else on the link (RFC 5881), UDP port 3784.
    pub multihop: bool,
}

/// Who speaks first (RFC 5880 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// We do.
    Active,
    /// We wait until the neighbour does.
    Passive,
}

/// Parameters of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionConfig {
    /// With whom.
    pub remote: Remote,
    /// Desired Min TX Interval while Up; whole µs.
    pub interval: Duration,
    /// Required Min RX Interval; whole µs.
    pub receive: Duration,
    /// Detect Mult; 0 counts as 1.
    pub multiplier: u8,
    /// Packets with a smaller TTL or hop limit are discarded: 255 on a link (RFC 5881 §5), 256 - n over n hops.
    pub ttl_min: u8,
    /// Who speaks first.
    pub role: Role,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum In {
    /// A session that is to be. Ignored beyond [`SESSIONS_MAX`], or when number or neighbour have one.
    Add {
        /// Its number.
        session: SessionId,
        /// Its parameters.
        config: SessionConfig,
    },
    /// A session that is to be no more; it ends without a word: disable it first.
    Remove {
        /// Which.
        session: SessionId,
    },
    /// Other intervals and multiplier; the neighbour stays.
    Configure {
        /// Which.
        session: SessionId,
        /// As [`SessionConfig::interval`].
        interval: Duration,
        /// As [`SessionConfig::receive`].
        receive: Duration,
        /// As [`SessionConfig::multiplier`].
        multiplier: u8,
    },
    /// An operator takes it down: AdminDown.
    Disable {
        /// Which.
        session: SessionId,
    },
    /// An operator lets it come up again.
    Enable {
        /// Which.
        session: SessionId,
    },
    /// A datagram.
    Datagram {
        /// From whom, and to which port.
        from: Remote,
        /// TTL or hop limit it arrived with; `None`: not known, which no session accepts.
        ttl: Option<u8>,
        /// When it arrived: at most now.
        received: Time,
        /// Its payload.
        bytes: Vec<u8>,
    },
    /// A session that has just been added goes on where one of a former program stopped. Ignored once it has heard its
    /// neighbour, for another neighbour, and when the neighbour has given up by now.
    Resume {
        /// Which.
        session: SessionId,
        /// What the former program knew of it.
        carried: Carried,
    },
}

/// A session that is Up, for the program that takes this one's place: with it the neighbour notices nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// With whom.
    pub remote: Remote,
    /// Our discriminator, by which the neighbour knows the session.
    pub discriminator: u32,
    /// The neighbour's.
    pub remote_discriminator: u32,
    /// Its Desired Min TX Interval, µs.
    pub remote_desired_min_tx_us: u32,
    /// Its Required Min RX Interval, µs.
    pub remote_required_min_rx_us: u32,
    /// Its Detect Mult.
    pub remote_multiplier: u8,
    /// The Required Min RX Interval it sends by, µs.
    pub required_min_rx_us: u32,
    /// When it gives us up unless it hears us.
    pub until: Time,
}

/// What the driver must do, or may report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Out {
    /// Send this to the session's neighbour, now.
    Send {
        /// Which session.
        session: SessionId,
        /// A whole packet.
        bytes: Vec<u8>,
    },
    /// A session changed its state.
    State {
        /// Which.
        session: SessionId,
        /// The state it was in.
        from: State,
        /// Its state now.
        to: State,
        /// Why.
        cause: Cause,
        /// The C bit the neighbour last sent (RFC 5882 §4.3).
        control_independent: bool,
    },
    /// Something an operator should know, once until the session is lost.
    Notice {
        /// Of which session.
        session: SessionId,
        /// What.
        notice: Notice,
    },
}

/// Why a session took its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It was added or enabled.
    Start,
    /// The neighbour is heard.
    Heard,
    /// A detection time without a packet.
    DetectionTimeExpired,
    /// The neighbour says that it lost us.
    NeighbourDown,
    /// The neighbour's operator took it down: says nothing about the path (RFC 5882 §3.2).
    NeighbourAdminDown,
    /// Our operator took it down.
    Administrative,
    /// It goes on where a former program stopped.
    Resumed,
}

impl Cause {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Cause::Start => "waiting for the neighbour",
            Cause::Heard => "the neighbour is heard",
            Cause::DetectionTimeExpired => "control detection time expired",
            Cause::NeighbourDown => "neighbour signalled session down",
            Cause::NeighbourAdminDown => "the neighbour is administratively down",
            Cause::Administrative => "administratively down",
            Cause::Resumed => "goes on after the program was replaced",
        }
    }
}

/// Something an operator should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Notice {
    /// The neighbour authenticates its packets; they are discarded.
    Authentication,
    /// The neighbour asks for demand mode.
    Demand,
    /// Packets arrive with a TTL below what the session's hops allow; they are discarded.
    Ttl,
}

impl Notice {
    /// What it is and how to mend it.
    pub fn words(self) -> &'static str {
        match self {
            Notice::Authentication => {
                "the neighbour authenticates BFD, which is not supported: its packets are discarded; turn authentication off there"
            }
            Notice::Demand => {
                "the neighbour asks for BFD demand mode: it notices a loss only when it polls; turn demand mode off there"
            }
            Notice::Ttl => {
                "BFD packets of the neighbour crossed more routers than allowed and are discarded; if it is not on the link, set `multihop` here and there"
            }
        }
    }
}

/// Numbers of a session since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets accepted.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets from its neighbour that were discarded.
    pub discarded: u64,
    /// Times it came up.
    pub ups: u64,
    /// Times it went down after having been up, for whatever reason.
    pub downs: u64,
    /// Times the driver had been away for an interval of the neighbour, and the neighbour got another one.
    pub stalls: u64,
}

/// State of a session, for status and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SessionStatus {
    /// With whom.
    pub remote: Remote,
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: Time,
    /// Why.
    pub cause: Cause,
    /// Why it last went down.
    pub diagnostic: Diagnostic,
    /// The neighbour's state; `None`: it is not heard.
    pub remote_state: Option<State>,
    /// Why the neighbour's session last went down, as far as known.
    pub remote_diagnostic: Diagnostic,
    /// Interval of our packets, before jitter.
    pub interval: Duration,
    /// How long its silence may last; `None`: it is not heard.
    pub detection_time: Option<Duration>,
    /// How long the neighbour bears our silence; `None`: it is not heard.
    pub remote_detection_time: Option<Duration>,
    /// Numbers.
    pub counters: Counters,
}

/// The BFD core: see the module's header. Its serialised form is its state between two inputs: outputs that wait are no
/// part of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Bfd {
    sessions: BTreeMap<SessionId, Session>,
    by_remote: BTreeMap<Remote, SessionId>,
    by_discriminator: BTreeMap<u32, SessionId>,
    /// What was told of; said again only after the session was lost, so that no stranger can fill a log.
    told: BTreeSet<(SessionId, Notice)>,
    discards: BTreeMap<Discard, u64>,
    pace: Pace,
    #[serde(skip)]
    outputs: VecDeque<Out>,
}

impl SessionConfig {
    fn bounded(self) -> SessionConfig {
        SessionConfig { multiplier: self.multiplier.max(1), ..self }
    }
}

impl Bfd {
    /// No sessions. `seed`: of jitter and discriminators.
    pub fn new(seed: u64) -> Bfd {
        Bfd {
            sessions: BTreeMap::new(),
            by_remote: BTreeMap::new(),
            by_discriminator: BTreeMap::new(),
            told: BTreeSet::new(),
            discards: BTreeMap::new(),
            pace: Pace::new(seed),
            outputs: VecDeque::new(),
        }
    }

    /// Tells what happened.
    pub fn handle_input(&mut self, now: Time, input: In) {
        match input {
            In::Add { session, config } => self.add(now, session, config.bounded()),
            In::Remove { session } => self.remove(session),
            In::Configure { session, interval, receive, multiplier } => {
                if let Some(s) = self.sessions.get_mut(&session) {
                    let config = SessionConfig { interval, receive, multiplier, ..s.config }.bounded();
                    s.configure(now, config, &mut self.pace);
                }
            }
            In::Disable { session } => self.with(session, |s, pace| s.disable(now, pace)),
            In::Enable { session } => self.with(session, |s, pace| s.enable(now, pace)),
            In::Resume { session, carried } => self.resume(now, session, &carried),
            In::Datagram { from, ttl, received, bytes } => {
                if let Err(discard) = self.datagram(now, from, ttl, received.min(now), &bytes) {
                    self.discard(from, discard);
                }
            }
        }
    }

    /// Gives up neighbours that have been silent for too long and sends what is due.
    pub fn handle_deadline(&mut self, now: Time) {
        let due: Vec<SessionId> =
            self.sessions.iter().filter(|(_, s)| s.deadline().is_some_and(|at| at <= now)).map(|(&id, _)| id).collect();
        for session in due {
            self.with(session, |s, pace| s.handle_deadline(now, pace));
        }
    }

    /// When [`Bfd::handle_deadline`] must be called next.
    pub fn next_deadline(&self) -> Option<Time> {
        self.sessions.values().filter_map(Session::deadline).min()
    }

    /// What the driver must do next; call until `None`.
    pub fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    /// State of each session.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, SessionStatus)> + '_ {
        self.sessions.iter().map(|(&id, s)| (id, s.status()))
    }

    /// The sessions that are Up, for [`In::Resume`] of another program. The longer the interval by then (see
    /// [`In::Configure`]), the more time that one has.
    pub fn carried(&self, now: Time) -> Vec<Carried> {
        self.sessions.values().filter_map(|s| s.carried(now)).collect()
    }

    /// Whether a neighbour has still to confirm other parameters (RFC 5880 §6.5).
    pub fn is_polling(&self) -> bool {
        self.sessions.values().any(Session::is_polling)
    }

    /// Whether a session waits for a packet that says no more than Up (RFC 5880 §6.2). To all others such a packet is one sign
    /// of life more.
    pub fn is_coming_up(&self) -> bool {
        self.sessions.values().any(|s| s.state == State::Init)
    }

    /// Datagrams discarded, by reason.
    pub fn discards(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        self.discards.iter().map(|(&discard, &count)| (discard, count))
    }

    fn add(&mut self, now: Time, id: SessionId, config: SessionConfig) {
        let taken = self.sessions.contains_key(&id) || self.by_remote.contains_key(&config.remote);
        if taken || self.sessions.len() >= SESSIONS_MAX {
            return;
        }
        let mut discriminator = 0;
        while discriminator == 0 || self.by_discriminator.contains_key(&discriminator) {
            discriminator = self.pace.rng.next_u64() as u32;
        }
        self.by_remote.insert(config.remote, id);
        self.by_discriminator.insert(discriminator, id);
        self.sessions.insert(id, Session::new(now, config, discriminator));
    }

    fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.by_remote.remove(&session.config.remote);
            self.by_discriminator.remove(&session.discriminator);
            self.told.retain(|(other, _)| *other != id);
        }
    }

    fn resume(&mut self, now: Time, id: SessionId, carried: &Carried) {
        let Some(session) = self.sessions.get_mut(&id).filter(|s| s.may_resume(now, carried)) else { return };
        if carried.discriminator == 0 || self.by_discriminator.contains_key(&carried.discriminator) {
            return;
        }
        self.by_discriminator.remove(&session.discriminator);
        self.by_discriminator.insert(carried.discriminator, id);
        self.with(id, |s, pace| s.resume(now, carried, pace));
    }

    /// The reception rules of RFC 5880 §6.8.6 that need to know the session, and TTL and address.
    fn datagram(
        &mut self,
        now: Time,
        from: Remote,
        ttl: Option<u8>,
        received: Time,
        bytes: &[u8],
    ) -> Result<(), Discard> {
        let (control, authenticated) = Control::decode(bytes)?;
        let id = match control.your_discriminator {
            0 => *self.by_remote.get(&from).ok_or(Discard::Stranger)?,
            number => *self.by_discriminator.get(&number).ok_or(Discard::UnknownSession)?,
        };
        let session = self.sessions.get_mut(&id).ok_or(Discard::UnknownSession)?;
        if session.config.remote != from {
            return Err(Discard::Address);
        }
        if ttl.is_none_or(|ttl| ttl < session.config.ttl_min) {
            return Err(Discard::Ttl);
        }
        if authenticated {
            return Err(Discard::Authentication);
        }
        let disabled = session.state == State::AdminDown;
        let reaction = session.receive(now, received, &control, &mut self.pace);
        let demanded = session.demanded();
        self.react(id, reaction);
        if demanded {
            self.tell(id, Notice::Demand);
        }
        if disabled { Err(Discard::AdminDown) } else { Ok(()) }
    }

    fn discard(&mut self, from: Remote, discard: Discard) {
        *self.discards.entry(discard).or_default() += 1;
        let Some(&id) = self.by_remote.get(&from) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.counters.discarded += 1;
        }
        match discard {
            Discard::Authentication => self.tell(id, Notice::Authentication),
            Discard::Ttl => self.tell(id, Notice::Ttl),
            _ => {}
        }
    }

    fn tell(&mut self, session: SessionId, notice: Notice) {
        if self.told.insert((session, notice)) {
            self.outputs.push_back(Out::Notice { session, notice });
        }
    }

    fn with(&mut self, id: SessionId, act: impl FnOnce(&mut Session, &mut Pace) -> Reaction) {
        if let Some(session) = self.sessions.get_mut(&id) {
            let reaction = act(session, &mut self.pace);
            self.react(id, reaction);
        }
    }

    fn react(&mut self, id: SessionId, reaction: Reaction) {
        if let Some(control) = reaction.send {
            self.outputs.push_back(Out::Send { session: id, bytes: control.encode().to_vec() });
        }
        let (Some((from, cause)), Some(session)) = (reaction.change, self.sessions.get(&id)) else {
            return;
        };
        let (to, control_independent) = (session.state, session.control_independent());
        if from == State::Up {
            self.told.retain(|(other, _)| *other != id);
        }
        self.outputs.push_back(Out::State { session: id, from, to, cause, control_independent });
    }
}

#[cfg(test)]
mod tests;
