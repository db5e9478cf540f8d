//! Four rungs: packet and state tables, named cases, random sequences with invariants, two sides on a virtual clock.

use std::net::Ipv4Addr;

use super::*;
use crate::rng::Rng;

mod cases;
mod pairs;
mod random;
mod table;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const S: SessionId = SessionId(0);

pub(super) fn remote() -> Remote {
    Remote { address: Ipv4Addr::new(192, 0, 2, 1).into(), scope: 0, multihop: false }
}

/// 50 ms x 3, active, single hop.
pub(super) fn config() -> SessionConfig {
    SessionConfig {
        remote: remote(),
        interval: 50 * MS,
        receive: 50 * MS,
        multiplier: 3,
        ttl_min: 255,
        role: Role::Active,
    }
}

/// A neighbour played by hand: its packets, and what we answer.
pub(super) struct Hand {
    pub bfd: Bfd,
    pub now: Time,
    /// The neighbour's next packet.
    pub control: Control,
    pub states: Vec<(State, State, Cause)>,
    pub notices: Vec<Notice>,
}

impl Hand {
    /// A session that has just said its first word.
    pub fn new(config: SessionConfig) -> Hand {
        let mut bfd = Bfd::new(7);
        let now = Time(1_000_000_000_000);
        bfd.handle_input(now, In::Add { session: S, config });
        let control = Control {
            diagnostic: Diagnostic::NONE,
            state: State::Down,
            poll: false,
            final_bit: false,
            control_independent: false,
            demand: false,
            multiplier: 3,
            my_discriminator: 77,
            your_discriminator: 0,
            desired_min_tx_us: 50_000,
            required_min_rx_us: 50_000,
            required_min_echo_rx_us: 0,
        };
        Hand { bfd, now, control, states: Vec::new(), notices: Vec::new() }
    }

    /// The same, Up, its poll answered.
    pub fn up(config: SessionConfig) -> Hand {
        let mut hand = Hand::new(config);
        hand.drive(Duration::ZERO);
        hand.say(State::Down);
        let sent = hand.say(State::Init);
        assert_eq!(sent.last().map(|c| (c.state, c.poll)), Some((State::Up, true)), "new intervals are polled for");
        hand.control.final_bit = true;
        hand.say(State::Up);
        hand.control.final_bit = false;
        assert_eq!(hand.state(), State::Up);
        hand.states.clear();
        hand
    }

    pub fn state(&self) -> State {
        self.status().state
    }

    pub fn status(&self) -> SessionStatus {
        self.bfd.sessions().next().unwrap().1
    }

    /// Takes all outputs; the packets among them.
    pub fn outputs(&mut self) -> Vec<Control> {
        let mut sent = Vec::new();
        while let Some(out) = self.bfd.poll_output() {
            match out {
                Out::Send { bytes, .. } => sent.push(Control::decode(&bytes).unwrap().0),
                Out::State { from, to, cause, .. } => self.states.push((from, to, cause)),
                Out::Notice { notice, .. } => self.notices.push(notice),
            }
        }
        if let Some(last) = sent.last() {
            self.control.your_discriminator = last.my_discriminator;
        }
        sent
    }

    /// The neighbour says its packet in this state.
    pub fn say(&mut self, state: State) -> Vec<Control> {
        self.control.state = state;
        let bytes = self.control.encode().to_vec();
        self.datagram(remote(), Some(255), self.now, bytes)
    }

    pub fn datagram(&mut self, from: Remote, ttl: Option<u8>, received: Time, bytes: Vec<u8>) -> Vec<Control> {
        self.bfd.handle_input(self.now, In::Datagram { from, ttl, received, bytes });
        self.outputs()
    }

    pub fn input(&mut self, input: In) -> Vec<Control> {
        self.bfd.handle_input(self.now, input);
        self.outputs()
    }

    /// Time passes, with every deadline met; the packets sent and when.
    pub fn drive(&mut self, time: Duration) -> Vec<(Time, Control)> {
        let end = self.now + time;
        let mut sent = Vec::new();
        while let Some(at) = self.bfd.next_deadline().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.bfd.handle_deadline(self.now);
            sent.extend(self.outputs().into_iter().map(|control| (self.now, control)));
        }
        self.now = end;
        sent
    }

    pub fn discarded(&self, discard: Discard) -> u64 {
        self.bfd.discards().find(|(d, _)| *d == discard).map_or(0, |(_, count)| count)
    }
}
