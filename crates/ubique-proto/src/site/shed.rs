//! Shedding load: one step at a time, never a withdrawal.
//!
//! Overload climbs the steps of `[[shed]]`, and calm goes back down. What comes out is a number of steps: that load never
//! withdraws a site is by construction, since no number of steps silences it (`ubique check` refuses such a file).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Time;

/// Least time between two steps up: upstreams and their traffic need some to move.
pub const SHED_STEP: Duration = Duration::from_secs(5);

/// How long it must be calm before each step back.
pub const SHED_CALM: Duration = Duration::from_secs(30);

/// The ladder.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ladder {
    steps: u8,
    /// Steps taken.
    taken: u8,
    /// Why there is overload.
    overload: Option<String>,
    /// When it last took a step, or overload began or ended.
    since: Time,
}

impl Ladder {
    pub(super) fn new(steps: u8) -> Ladder {
        Ladder { steps, taken: 0, overload: None, since: Time::ZERO }
    }

    /// Another number of steps.
    pub(super) fn reconfigure(&mut self, steps: u8) {
        self.steps = steps;
        self.taken = self.taken.min(steps);
    }

    pub(super) fn taken(&self) -> u8 {
        self.taken
    }

    pub(super) fn overload(&self) -> Option<&str> {
        self.overload.as_deref()
    }

    /// Overload began or ended; the first step is taken at once.
    pub(super) fn load(&mut self, now: Time, on: bool, cause: String) {
        if on == self.overload.is_some() {
            return;
        }
        self.overload = on.then_some(cause);
        self.since = now;
        if on && self.taken == 0 {
            self.taken = self.steps.min(1);
        }
    }

    /// Takes the step that is due.
    pub(super) fn advance(&mut self, now: Time) {
        if self.next_deadline().is_some_and(|at| at <= now) {
            self.taken = if self.overload.is_some() { self.taken + 1 } else { self.taken - 1 };
            self.since = now;
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        match self.overload {
            Some(_) => (self.taken < self.steps).then(|| self.since + SHED_STEP),
            None => (self.taken > 0).then(|| self.since + SHED_CALM),
        }
    }
}
