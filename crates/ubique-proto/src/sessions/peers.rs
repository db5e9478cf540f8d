//! Which other sites are there, without anybody who coordinates: each asks each other one every second, whose data plane answers
//! ([`Kind::Alive`](super::shim::Kind), [`Kind::Here`](super::shim::Kind)).
//!
//! One answer is enough for a site to be up, [`DOWN_AFTER`] without one for it to be down. Packets of a site that is down are
//! nobody's: the kernel resets their connections at once. An answer counts only while its question may still be answered: it returns
//! the question's number, so that old ones, sent again, keep nobody alive.
//!
//! Deliberately absent: sockets, keys, and what the answers are carried in.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Site;
use crate::Time;

/// Between two questions to a site.
pub const ASK_EVERY: Duration = Duration::from_secs(1);

/// How long a site may be silent until it is down: three questions.
pub const DOWN_AFTER: Duration = Duration::from_secs(3);

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum In {
    /// There is such a site.
    Add(Site),
    /// There is none any more.
    Remove(Site),
    /// A site answered; `asked`: the number of the question.
    Here {
        /// Who.
        site: Site,
        /// What it was asked.
        asked: u64,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    /// Ask a site whether it is there.
    Ask {
        /// Whom.
        site: Site,
        /// The number of the question, which the answer returns.
        asked: u64,
    },
    /// A site is up, or down: told when that changes, and once it is known for the first time.
    State {
        /// Which.
        site: Site,
        /// It answers.
        up: bool,
    },
}

/// Another site, as its answers show it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// It answers; `None`: not known yet.
    pub up: Option<bool>,
    /// Since when that is so.
    pub since: Time,
    /// From the last question that was answered to its answer.
    pub round_trip: Option<Duration>,
    /// Questions that may still be answered, oldest first.
    waiting: VecDeque<(u64, Time)>,
    /// When it is asked next.
    next: Time,
    /// When it answered last; when it was added, if it never did.
    heard: Time,
}

/// The other sites.
#[derive(Clone, Debug)]
pub struct Peers {
    peers: BTreeMap<Site, Peer>,
    /// Number of the next question.
    number: u64,
    outs: VecDeque<Out>,
}

impl Peers {
    /// Nobody yet. `first`: the number of the first question, random so that nothing of a former life is an answer.
    pub fn new(first: u64) -> Peers {
        Peers { peers: BTreeMap::new(), number: first, outs: VecDeque::new() }
    }

    /// Takes in what happened.
    pub fn handle_input(&mut self, now: Time, input: In) {
        match input {
            In::Add(site) => {
                let new =
                    Peer { up: None, since: now, round_trip: None, waiting: VecDeque::new(), next: now, heard: now };
                self.peers.entry(site).or_insert(new);
            }
            In::Remove(site) => {
                self.peers.remove(&site);
            }
            In::Here { site, asked } => {
                let Some(peer) = self.peers.get_mut(&site) else { return };
                let Some(at) = peer.waiting.iter().position(|(number, _)| *number == asked) else { return };
                peer.round_trip = Some(now.since(peer.waiting[at].1));
                // What was asked before it will not be answered any more, or too late to tell anything.
                peer.waiting.drain(..=at);
                peer.heard = now;
                self.outs.extend(peer.becomes(site, true, now));
            }
        }
    }

    /// Asks who is to be asked, and gives up who was silent for too long.
    pub fn handle_deadline(&mut self, now: Time) {
        for (&site, peer) in &mut self.peers {
            if peer.up != Some(false) && peer.heard + DOWN_AFTER <= now {
                self.outs.extend(peer.becomes(site, false, now));
            }
            if peer.next <= now {
                // From now: a driver that slept does not ask all at once.
                peer.next = now + ASK_EVERY;
                peer.waiting.retain(|(_, asked)| *asked + DOWN_AFTER > now);
                peer.waiting.push_back((self.number, now));
                self.outs.push_back(Out::Ask { site, asked: self.number });
                self.number = self.number.wrapping_add(1);
            }
        }
    }

    /// When [`Peers::handle_deadline`] has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        let due = |peer: &Peer| if peer.up == Some(false) { peer.next } else { peer.next.min(peer.heard + DOWN_AFTER) };
        self.peers.values().map(due).min()
    }

    /// What is to be done next; only inputs and deadlines add to it.
    pub fn poll_output(&mut self) -> Option<Out> {
        self.outs.pop_front()
    }

    /// Of every site it is known whether it is up.
    pub fn is_settled(&self) -> bool {
        self.peers.values().all(|peer| peer.up.is_some())
    }

    /// The sites, by number.
    pub fn iter(&self) -> impl Iterator<Item = (Site, &Peer)> {
        self.peers.iter().map(|(site, peer)| (*site, peer))
    }

    /// Whether a site answers.
    pub fn is_up(&self, site: Site) -> bool {
        self.peers.get(&site).is_some_and(|peer| peer.up == Some(true))
    }
}

impl Peer {
    fn becomes(&mut self, site: Site, up: bool, now: Time) -> Option<Out> {
        if self.up == Some(up) {
            return None;
        }
        (self.up, self.since) = (Some(up), now);
        Some(Out::State { site, up })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Site = Site(3);
    const B: Site = Site(60);

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    fn outs(peers: &mut Peers) -> Vec<Out> {
        std::iter::from_fn(|| peers.poll_output()).collect()
    }

    fn asked(outs: &[Out], whom: Site) -> Option<u64> {
        outs.iter().find_map(|out| match out {
            Out::Ask { site, asked } if *site == whom => Some(*asked),
            _ => None,
        })
    }

    fn two() -> Peers {
        let mut peers = Peers::new(u64::MAX);
        peers.handle_input(at(0), In::Add(A));
        peers.handle_input(at(0), In::Add(B));
        assert_eq!(peers.next_deadline(), Some(at(0)));
        peers
    }

    #[test]
    fn one_answer_is_up_and_three_seconds_of_silence_are_down() {
        let mut peers = two();
        peers.handle_deadline(at(0));
        let first = outs(&mut peers);
        assert_eq!(first, [Out::Ask { site: A, asked: u64::MAX }, Out::Ask { site: B, asked: 0 }], "numbers wrap");
        assert!(!peers.is_settled());
        peers.handle_input(at(20), In::Here { site: A, asked: u64::MAX });
        assert_eq!(outs(&mut peers), [Out::State { site: A, up: true }]);
        assert!(peers.is_up(A) && !peers.is_up(B) && !peers.is_settled());
        let (_, a) = peers.iter().next().unwrap();
        assert_eq!((a.round_trip, a.since), (Some(Duration::from_millis(20)), at(20)));
        // B never answers: down is told once.
        let mut told = vec![];
        while let Some(next) = peers.next_deadline().filter(|next| *next <= at(10_000)) {
            peers.handle_deadline(next);
            let outs = outs(&mut peers);
            if let Some(number) = asked(&outs, A) {
                peers.handle_input(next + Duration::from_millis(900), In::Here { site: A, asked: number });
            }
            told.extend(outs.into_iter().filter(|out| matches!(out, Out::State { .. })).map(|out| (next, out)));
        }
        assert_eq!(told, [(at(3000), Out::State { site: B, up: false })]);
        assert!(peers.is_settled());
    }

    #[test]
    fn silence_is_counted_from_the_last_answer() {
        let mut peers = two();
        peers.handle_input(at(0), In::Remove(B));
        peers.handle_deadline(at(0));
        let number = asked(&outs(&mut peers), A).unwrap();
        peers.handle_input(at(500), In::Here { site: A, asked: number });
        outs(&mut peers);
        for ms in [1000, 2000, 3000, 3499] {
            peers.handle_deadline(at(ms));
            assert!(peers.is_up(A), "{ms}");
        }
        assert_eq!(peers.next_deadline(), Some(at(3500)));
        peers.handle_deadline(at(3500));
        assert!(outs(&mut peers).contains(&Out::State { site: A, up: false }));
    }

    #[test]
    fn only_the_answer_to_a_question_of_now_counts() {
        let mut peers = two();
        peers.handle_deadline(at(0));
        let number = asked(&outs(&mut peers), A).unwrap();
        for answer in [
            In::Here { site: A, asked: number.wrapping_add(7) },
            In::Here { site: B, asked: number },
            In::Here { site: Site(9), asked: number },
        ] {
            peers.handle_input(at(1), answer);
            assert_eq!(outs(&mut peers), [], "{answer:?}");
        }
        peers.handle_input(at(1), In::Here { site: A, asked: number });
        assert_eq!(outs(&mut peers), [Out::State { site: A, up: true }]);
        // The same again, for ever, keeps nobody alive.
        for second in 1..=4 {
            peers.handle_deadline(at(second * 1000));
            peers.handle_input(at(second * 1000), In::Here { site: A, asked: number });
        }
        assert!(!peers.is_up(A));
        // A driver that slept for an hour asks once.
        outs(&mut peers);
        peers.handle_deadline(at(3_600_000));
        assert_eq!(outs(&mut peers).len(), 2);
    }

    #[test]
    fn answers_that_take_two_seconds_are_answers() {
        let mut peers = two();
        let mut numbers = vec![];
        for second in 0..20 {
            peers.handle_deadline(at(second * 1000));
            numbers.extend(asked(&outs(&mut peers), A));
            if let Some(late) = numbers.len().checked_sub(3) {
                peers.handle_input(at(second * 1000), In::Here { site: A, asked: numbers[late] });
                assert!(peers.is_up(A), "{second}");
            }
        }
    }

    #[test]
    fn who_is_taken_away_is_not_asked() {
        let mut peers = two();
        peers.handle_input(at(0), In::Remove(A));
        peers.handle_input(at(0), In::Remove(B));
        assert_eq!((peers.next_deadline(), peers.is_settled()), (None, true));
        peers.handle_deadline(at(9000));
        assert_eq!(outs(&mut peers), []);
    }
}
