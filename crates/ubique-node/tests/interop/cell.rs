//! One cell while it runs: the two sides and what is waited for.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use ubique_model::{Family, Prefix};
use ubique_proto::bgp::speaker::{DownReason, In, SessionEvent};
use ubique_sys::netns::NetNs;
use ubique_sys::process::{PidFd, Signal, members_of_netns};

use crate::lab::{self, PATIENCE};
use crate::peer::{Kind, Peer, SECOND_AS, Setup};
use crate::peers;
use crate::us::{Ours, Us};

/// Lines of the peer's log in a report.
const LOG_LINES: usize = 60;

/// Which cell, and its ground.
pub struct Cell {
    pub kind: Kind,
    pub family: Family,
    pub ns: NetNs,
}

impl Cell {
    pub fn build(kind: Kind, family: Family) -> Cell {
        Cell { kind, family, ns: lab::build() }
    }

    pub fn setup(&self) -> Setup {
        Setup::new(self.family)
    }

    /// What we announce.
    pub fn our_prefix(&self) -> Prefix {
        lab::our_prefix(self.family, 1)
    }

    /// What the peer announces.
    pub fn their_prefix(&self) -> Prefix {
        lab::their_prefix(self.family, 1)
    }

    /// Our address on the link.
    pub fn ours(&self) -> &'static str {
        lab::ours(self.family)
    }

    /// The peer's.
    pub fn theirs(&self) -> &'static str {
        lab::theirs(self.family)
    }

    /// Starts the peer, waits until it answers, starts us; `adjust` changes our configuration.
    pub fn start_with(&self, setup: &Setup, adjust: impl FnOnce(&mut Ours)) -> Pair {
        let mut ours = Ours::new(setup);
        adjust(&mut ours);
        // We listen before the peer calls.
        let us = Us::new(ours);
        let ns = self.ns.try_clone().unwrap();
        let mut pair = Pair { us, peer: peers::start(self.kind, setup, &self.ns), second: None, ns };
        lab::until("the peer answers", || pair.peer.ready().then_some(()));
        pair.us.handle(In::Start);
        pair
    }

    pub fn start(&self, setup: &Setup) -> Pair {
        self.start_with(setup, |_| {})
    }

    /// The same, until both sides say that the session is established.
    pub fn up_with(&self, setup: &Setup, adjust: impl FnOnce(&mut Ours)) -> Pair {
        let mut pair = self.start_with(setup, adjust);
        pair.until_up();
        pair
    }

    pub fn up(&self, setup: &Setup) -> Pair {
        self.up_with(setup, |_| {})
    }
}

/// Both sides.
pub struct Pair {
    pub us: Us,
    pub peer: Box<dyn Peer>,
    /// Our second speaker, where a row needs one.
    pub second: Option<Us>,
    ns: NetNs,
}

impl Pair {
    /// Runs our side until `probe` gives something.
    pub fn until<T>(&mut self, what: &str, mut probe: impl FnMut(&mut Pair) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            self.us.turn();
            if let Some(second) = &mut self.second {
                second.turn();
            }
            if let Some(value) = probe(self) {
                return value;
            }
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        }
    }

    /// Like [`Pair::until`] for a condition.
    pub fn until_true(&mut self, what: &str, mut probe: impl FnMut(&mut Pair) -> bool) {
        self.until(what, |pair| probe(pair).then_some(()));
    }

    /// Signals every process of the peer: some daemons are several.
    pub fn signal_peer(&self, signal: Signal) {
        for pid in members_of_netns(&self.ns).unwrap() {
            // One may end with the one before.
            let _ = PidFd::open(pid).and_then(|process| process.signal(signal));
        }
    }

    /// Starts our second speaker, with a session of its own.
    pub fn start_second(&mut self, setup: &Setup) {
        lab::add_second(setup.family);
        let setup = Setup { remote_as: SECOND_AS, ..setup.clone() };
        let mut ours = Ours::new(&setup);
        ours.speaker.router_id = "192.0.2.3".parse().unwrap();
        ours.endpoints[0].local = Some(lab::second(setup.family).parse().unwrap());
        ours.listens = false;
        let mut second = Us::new(ours);
        second.handle(In::Start);
        self.second = Some(second);
        self.until_true("the second session is up", |p| p.second.as_ref().is_some_and(Us::established));
    }

    /// Kills the peer and starts it again with this configuration.
    pub fn restart_peer(&mut self, kind: Kind, setup: &Setup) {
        self.signal_peer(Signal::Kill);
        lab::until("its processes are gone", || members_of_netns(&self.ns).unwrap().is_empty().then_some(()));
        self.peer = peers::start(kind, setup, &self.ns);
        self.until_true("the peer answers", |pair| pair.peer.ready());
    }

    /// Why the last established session ended, once it has.
    pub fn until_ended(&mut self) -> DownReason {
        self.until("the session has ended", |pair| {
            let ended = |event: &SessionEvent| match event {
                SessionEvent::Down { was_established: true, reason } => Some(reason.clone()),
                _ => None,
            };
            pair.us.events.iter().rev().find_map(|(_, _, event)| ended(event))
        })
    }

    pub fn until_up(&mut self) {
        self.until_true("both sides say that the session is established", |p| {
            p.us.established() && p.peer.established()
        });
    }
}

/// What both sides know, when the cell has failed.
impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- our side\n{}", self.us.report());
            // A peer that does not answer must not hide its log.
            let said = std::panic::catch_unwind(AssertUnwindSafe(|| self.peer.said()));
            println!("--- the peer\n{}", lab::tail(&said.unwrap_or_default(), LOG_LINES));
            println!("--- the peer's log\n{}", lab::tail(&self.peer.log(), LOG_LINES));
        }
    }
}
