//! One session: the variables and procedures of RFC 5880 §6.8, asynchronous mode.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pace::Pace;
use super::packet::{Control, Diagnostic, State};
use super::{Carried, Cause, Counters, Role, SessionConfig, SessionStatus};
use crate::Time;

/// Slowest Desired Min TX Interval while a session is not Up: the least that RFC 5880 §6.8.3 allows.
pub const SLOW_INTERVAL: Duration = Duration::from_secs(1);

/// The neighbour as it last described itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Remote {
    /// 0: nobody has been heard for a detection time.
    discriminator: u32,
    state: State,
    diagnostic: Diagnostic,
    /// 0 in the first place would mean silence for ever (RFC 5880 §6.8.1).
    required_min_rx_us: u32,
    desired_min_tx_us: u32,
    multiplier: u8,
    demand: bool,
    control_independent: bool,
}

impl Remote {
    const UNKNOWN: Remote = Remote {
        discriminator: 0,
        state: State::Down,
        diagnostic: Diagnostic::NONE,
        required_min_rx_us: 1,
        desired_min_tx_us: 0,
        multiplier: 0,
        demand: false,
        control_independent: false,
    };
}

/// A Poll Sequence (RFC 5880 §6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Poll {
    None,
    /// P is set until F comes.
    Active,
    /// As above, and parameters changed since: the next one follows.
    Again,
}

/// An interval of ours that is advertised at once, but used only when it may be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Parameter {
    advertised_us: u32,
    used_us: u32,
}

impl Parameter {
    fn new(interval: Duration) -> Parameter {
        let us = micros(interval);
        Parameter { advertised_us: us, used_us: us }
    }
}

/// What a packet or deadline led to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reaction {
    /// A packet that must leave now.
    pub(super) send: Option<Control>,
    /// The state it was in, when that changed, and why.
    pub(super) change: Option<(State, Cause)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) config: SessionConfig,
    pub(super) discriminator: u32,
    pub(super) state: State,
    since: Time,
    cause: Cause,
    diagnostic: Diagnostic,
    remote: Remote,
    tx: Parameter,
    rx: Parameter,
    poll: Poll,
    sent: Option<Time>,
    /// When the next periodic packet is due; `None`: none is to be sent.
    tx_due: Option<Time>,
    heard: Option<Time>,
    /// When silence becomes a loss; `None`: nobody is heard.
    expires: Option<Time>,
    /// A stall of the driver has been forgiven since the last packet.
    forgiven: bool,
    pub(super) counters: Counters,
}

/// Whole µs within what the packet can say; at least one, since 0 has another meaning.
fn micros(interval: Duration) -> u32 {
    u32::try_from(interval.as_micros()).unwrap_or(u32::MAX).max(1)
}

fn of_micros(us: u32) -> Duration {
    Duration::from_micros(us.into())
}

impl Session {
    pub(super) fn new(now: Time, config: SessionConfig, discriminator: u32) -> Session {
        Session {
            tx: Parameter::new(config.interval.max(SLOW_INTERVAL)),
            rx: Parameter::new(config.receive),
            tx_due: (config.role == Role::Active).then_some(now),
            config,
            discriminator,
            state: State::Down,
            since: now,
            cause: Cause::Start,
            diagnostic: Diagnostic::NONE,
            remote: Remote::UNKNOWN,
            poll: Poll::None,
            sent: None,
            heard: None,
            expires: None,
            forgiven: false,
            counters: Counters::default(),
        }
    }

    /// When something is to be done.
    pub(super) fn deadline(&self) -> Option<Time> {
        [self.tx_due, self.expires].into_iter().flatten().min()
    }

    /// Detection Time (RFC 5880 §6.8.4, asynchronous mode); zero while nobody is heard.
    fn detection_time(&self) -> Duration {
        let interval = of_micros(self.rx.used_us.max(self.remote.desired_min_tx_us));
        interval * u32::from(self.remote.multiplier)
    }

    /// The interval between two packets of ours before jitter (RFC 5880 §6.8.2).
    fn interval(&self) -> Duration {
        of_micros(self.tx.used_us.max(self.remote.required_min_rx_us))
    }

    /// A packet for this session that RFC 5880 §6.8.6 has not discarded so far. `received`: when it arrived.
    pub(super) fn receive(&mut self, now: Time, received: Time, control: &Control, pace: &mut Pace) -> Reaction {
        let interval = self.interval();
        self.remote = Remote {
            discriminator: control.my_discriminator,
            state: control.state,
            diagnostic: control.diagnostic,
            required_min_rx_us: control.required_min_rx_us,
            desired_min_tx_us: control.desired_min_tx_us,
            multiplier: control.multiplier,
            demand: control.demand,
            control_independent: control.control_independent,
        };
        if control.final_bit {
            self.poll_answered();
        }
        if self.state == State::AdminDown {
            self.heard = self.heard.max(Some(received));
            self.watch();
            // A passive side has only now somebody to tell.
            if self.tx_due.is_none() || self.interval() != interval {
                self.schedule(now, pace);
            }
            return Reaction::default();
        }
        let change = self.next_state(control.state).map(|(state, cause)| self.turn(now, state, cause));
        self.hear(received);
        if self.interval() != interval || self.tx_due.is_none() || !self.may_send() {
            self.schedule(now, pace);
        }
        let answer = control.poll || (change.is_some() && self.may_send());
        let send = answer.then(|| self.transmit(now, control.poll, pace));
        Reaction { send, change }
    }

    fn hear(&mut self, received: Time) {
        self.heard = self.heard.max(Some(received));
        self.forgiven = false;
        self.counters.received += 1;
        self.watch();
    }

    /// Sets the detection timer by when the last packet arrived.
    fn watch(&mut self) {
        let known = self.remote.discriminator != 0;
        self.expires = self.heard.filter(|_| known).map(|heard| heard + self.detection_time());
    }

    /// The table of RFC 5880 §6.2 and §6.8.6.
    fn next_state(&self, heard: State) -> Option<(State, Cause)> {
        match (self.state, heard) {
            (State::Init | State::Up, State::AdminDown) => Some((State::Down, Cause::NeighbourAdminDown)),
            (State::Down, State::Down) => Some((State::Init, Cause::Heard)),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => Some((State::Up, Cause::Heard)),
            (State::Up, State::Down) => Some((State::Down, Cause::NeighbourDown)),
            _ => None,
        }
    }

    fn turn(&mut self, now: Time, state: State, cause: Cause) -> (State, Cause) {
        let from = std::mem::replace(&mut self.state, state);
        self.since = now;
        self.cause = cause;
        match cause {
            Cause::DetectionTimeExpired => self.diagnostic = Diagnostic::DETECTION_TIME_EXPIRED,
            Cause::NeighbourDown | Cause::NeighbourAdminDown => {
                self.diagnostic = Diagnostic::NEIGHBOUR_SIGNALLED_DOWN;
            }
            Cause::Administrative => self.diagnostic = Diagnostic::ADMINISTRATIVELY_DOWN,
            Cause::Start | Cause::Heard | Cause::Resumed => {}
        }
        match state {
            State::Up => self.counters.ups += 1,
            _ if from == State::Up => self.counters.downs += 1,
            _ => {}
        }
        self.parameters();
        (from, cause)
    }

    /// Brings the intervals to what state and configuration want (RFC 5880 §6.8.3).
    fn parameters(&mut self) {
        let up = self.state == State::Up;
        let floor = if up { Duration::ZERO } else { SLOW_INTERVAL };
        let (tx, rx) = (micros(self.config.interval.max(floor)), micros(self.config.receive));
        if up && (tx != self.tx.advertised_us || rx != self.rx.advertised_us) {
            self.poll = if self.poll == Poll::None { Poll::Active } else { Poll::Again };
        }
        self.tx.advertised_us = tx;
        self.rx.advertised_us = rx;
        if !up {
            self.poll = Poll::None;
        }
        // While Up, a slower transmission and a faster detection wait until the neighbour knows of them.
        if !up || tx < self.tx.used_us {
            self.tx.used_us = tx;
        }
        if !up || rx > self.rx.used_us {
            self.rx.used_us = rx;
        }
    }

    fn poll_answered(&mut self) {
        self.poll = match self.poll {
            Poll::Again => Poll::Active,
            Poll::Active => {
                self.tx.used_us = self.tx.advertised_us;
                self.rx.used_us = self.rx.advertised_us;
                Poll::None
            }
            Poll::None => Poll::None,
        };
    }

    /// Whether periodic packets are to be sent (RFC 5880 §6.8.7).
    fn may_send(&self) -> bool {
        let known = self.remote.discriminator != 0;
        let demanded = self.remote.demand && self.state == State::Up && self.remote.state == State::Up;
        (known || self.config.role == Role::Active)
            && self.remote.required_min_rx_us != 0
            && (!demanded || self.poll != Poll::None)
    }

    /// Sets when the next periodic packet is due: an interval after the last one, less jitter.
    fn schedule(&mut self, now: Time, pace: &mut Pace) {
        let (interval, multiplier) = (self.interval(), self.config.multiplier);
        let due = |sent| pace.next(sent, interval, multiplier).max(now);
        self.tx_due = self.may_send().then(|| self.sent.map_or(now, due));
    }

    /// The packet of this moment. `answer`: it answers a Poll.
    fn transmit(&mut self, now: Time, answer: bool, pace: &mut Pace) -> Control {
        self.sent = Some(now);
        self.counters.sent += 1;
        self.schedule(now, pace);
        Control {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.poll != Poll::None && !answer,
            final_bit: answer,
            control_independent: false,
            demand: false,
            multiplier: self.config.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx_us: self.tx.advertised_us,
            required_min_rx_us: self.rx.advertised_us,
            required_min_echo_rx_us: 0,
        }
    }

    /// Looks whether the neighbour is lost, and sends what is due.
    pub(super) fn handle_deadline(&mut self, now: Time, pace: &mut Pace) -> Reaction {
        let mut reaction = Reaction::default();
        if self.expires.is_some_and(|at| at <= now) && !self.forgive(now) {
            self.expires = None;
            let mute = self.remote.required_min_rx_us == 0;
            if matches!(self.state, State::Init | State::Up) {
                reaction.change = Some(self.turn(now, State::Down, Cause::DetectionTimeExpired));
            }
            // The neighbour may come back under another number (RFC 5880 §6.8.1), and with other wishes.
            self.remote = Remote { discriminator: 0, required_min_rx_us: 1, demand: false, ..self.remote };
            self.schedule(now, pace);
            // Once also from a passive side, which is silent from now on: the neighbour may still hear us.
            if reaction.change.is_some() && !mute {
                reaction.send = Some(self.transmit(now, false, pace));
                return reaction;
            }
        }
        if self.tx_due.is_some_and(|at| at <= now) {
            reaction.send = Some(self.transmit(now, false, pace));
        }
        reaction
    }

    /// A driver that comes later than an interval of the neighbour has not run, and perhaps the whole machine has not: what
    /// was sent meanwhile may be lost, or still on its way to the socket. The neighbour gets one more detection time, but
    /// only once without a packet.
    fn forgive(&mut self, now: Time) -> bool {
        let late = self.deadline().map_or(Duration::ZERO, |due| now.since(due));
        if self.forgiven || late < self.detection_time() / u32::from(self.remote.multiplier.max(1)) {
            return false;
        }
        self.forgiven = true;
        self.counters.stalls += 1;
        self.expires = Some(now + self.detection_time());
        true
    }

    /// Other parameters; a session that is Up polls the neighbour (RFC 5880 §6.8.3).
    pub(super) fn configure(&mut self, now: Time, config: SessionConfig, pace: &mut Pace) {
        self.config = config;
        self.parameters();
        self.watch();
        self.schedule(now, pace);
    }

    /// Administratively down (RFC 5880 §6.8.16). It is told from then on as long as the session exists.
    pub(super) fn disable(&mut self, now: Time, pace: &mut Pace) -> Reaction {
        if self.state == State::AdminDown {
            return Reaction::default();
        }
        let change = Some(self.turn(now, State::AdminDown, Cause::Administrative));
        Reaction { send: self.may_send().then(|| self.transmit(now, false, pace)), change }
    }

    /// The opposite: Down, and everything begins anew.
    pub(super) fn enable(&mut self, now: Time, pace: &mut Pace) -> Reaction {
        if self.state != State::AdminDown {
            return Reaction::default();
        }
        let change = Some(self.turn(now, State::Down, Cause::Start));
        Reaction { send: self.may_send().then(|| self.transmit(now, false, pace)), change }
    }

    /// What another program needs to go on with it; `None`: it is not Up.
    pub(super) fn carried(&self, now: Time) -> Option<Carried> {
        let silence = of_micros(self.tx.used_us.max(self.remote.required_min_rx_us));
        (self.state == State::Up).then_some(Carried {
            remote: self.config.remote,
            discriminator: self.discriminator,
            remote_discriminator: self.remote.discriminator,
            remote_desired_min_tx_us: self.remote.desired_min_tx_us,
            remote_required_min_rx_us: self.remote.required_min_rx_us,
            remote_multiplier: self.remote.multiplier,
            required_min_rx_us: self.rx.used_us,
            until: self.sent.unwrap_or(now) + silence * u32::from(self.config.multiplier),
        })
    }

    pub(super) fn is_polling(&self) -> bool {
        self.poll != Poll::None
    }

    /// Whether it has only just been added, and its neighbour still waits.
    pub(super) fn may_resume(&self, now: Time, carried: &Carried) -> bool {
        let fresh = self.state == State::Down && self.counters.received == 0;
        let known = carried.remote_discriminator != 0 && carried.remote_multiplier != 0;
        fresh && known && self.config.remote == carried.remote && now < carried.until
    }

    /// Goes on as what the neighbour takes it for, and polls it for the parameters of now.
    pub(super) fn resume(&mut self, now: Time, carried: &Carried, pace: &mut Pace) -> Reaction {
        self.discriminator = carried.discriminator;
        self.remote = Remote {
            discriminator: carried.remote_discriminator,
            state: State::Up,
            required_min_rx_us: carried.remote_required_min_rx_us,
            desired_min_tx_us: carried.remote_desired_min_tx_us,
            multiplier: carried.remote_multiplier,
            ..Remote::UNKNOWN
        };
        let change = Some(self.turn(now, State::Up, Cause::Resumed));
        self.poll = Poll::Active;
        self.rx.used_us = self.rx.used_us.max(carried.required_min_rx_us);
        self.heard = Some(now);
        self.watch();
        Reaction { send: self.may_send().then(|| self.transmit(now, false, pace)), change }
    }

    /// The C bit the neighbour last sent.
    pub(super) fn control_independent(&self) -> bool {
        self.remote.control_independent
    }

    /// The neighbour asks for demand mode.
    pub(super) fn demanded(&self) -> bool {
        self.remote.demand
    }

    pub(super) fn status(&self) -> SessionStatus {
        let known = self.remote.discriminator != 0;
        SessionStatus {
            remote: self.config.remote,
            state: self.state,
            since: self.since,
            cause: self.cause,
            diagnostic: self.diagnostic,
            remote_state: known.then_some(self.remote.state),
            remote_diagnostic: self.remote.diagnostic,
            interval: self.interval(),
            detection_time: known.then(|| self.detection_time()),
            remote_detection_time: known.then(|| self.interval_advertised() * u32::from(self.config.multiplier)),
            counters: self.counters,
        }
    }

    /// What the neighbour's detection time is made of.
    fn interval_advertised(&self) -> Duration {
        of_micros(self.tx.advertised_us.max(self.remote.required_min_rx_us))
    }
}
