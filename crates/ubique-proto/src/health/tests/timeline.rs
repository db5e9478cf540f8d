//! Both sides on one virtual clock: the core's polls meet a service that follows a script.

use super::*;

/// What the service does from a moment on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Answers,
    Refuses,
    Hangs,
}

/// One check, its service and everything that happened.
struct Bench {
    health: Health,
    config: CheckConfig,
    rng: Rng,
    now: Time,
    mode: Mode,
    /// Answers under way: when, to which poll, what.
    answers: Vec<(Time, u64, bool)>,
    outstanding: Option<u64>,
    starts: Vec<Time>,
    /// Results as counted, for the oracle; `None`: gone.
    history: Vec<Option<bool>>,
    log: String,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        let mut rng = Rng::new(seed);
        let every = Duration::from_micros(20_000 + rng.below(500_000));
        let timeout = if rng.below(4) == 0 { every } else { every.mul_f64(0.1 + 0.9 * rng.next_f64()) };
        let (fall, rise) = (1 + rng.below(4) as u32, 1 + rng.below(5) as u32);
        let retry = (rng.below(2) == 0).then(|| every.mul_f64(rng.next_f64()));
        Bench::with(CheckConfig { every, timeout, retry, ..config(fall, rise) }, seed, rng)
    }

    fn with(config: CheckConfig, seed: u64, rng: Rng) -> Bench {
        Bench {
            health: Health::new(vec![config.clone()], vec![], seed),
            config,
            rng,
            now: Time(seed * 1000),
            mode: Mode::Answers,
            answers: vec![],
            outstanding: None,
            starts: vec![],
            history: vec![],
            log: String::new(),
        }
    }

    fn outputs(&mut self) {
        while let Some(out) = self.health.poll_output() {
            self.log += &format!("{} {out:?}\n", self.now.0);
            match out {
                Out::Poll { poll, .. } => {
                    assert_eq!(self.outstanding.replace(poll), None, "two polls at once");
                    self.starts.push(self.now);
                    let latency = self.config.timeout.mul_f64(0.9 * self.rng.next_f64());
                    if self.mode != Mode::Hangs {
                        self.answers.push((self.now + latency, poll, self.mode == Mode::Answers));
                    }
                }
                Out::Abandon { poll, .. } => {
                    assert_eq!(self.outstanding.take(), Some(poll), "abandoned what is not under way");
                }
                Out::Check { .. } | Out::Verdict { .. } | Out::Overload { .. } => {}
            }
        }
        assert_eq!(self.health.healthy(), oracle(&self.history, &self.config), "{}", self.log);
    }

    /// Advances to the next event at or before `until`; false when there is none.
    fn step(&mut self, until: Time) -> bool {
        let deadline = self.health.next_deadline().unwrap_or(Time(u64::MAX)).max(self.now);
        let answer = self.answers.iter().enumerate().min_by_key(|(_, a)| a.0).map(|(i, a)| (i, a.0));
        match answer {
            Some((i, at)) if at <= deadline && at <= until => {
                let (at, poll, ok) = self.answers.swap_remove(i);
                self.now = at;
                if self.outstanding == Some(poll) {
                    self.outstanding = None;
                    self.history.push(Some(ok));
                }
                self.health.handle_input(at, result(poll, ok));
            }
            _ if deadline <= until => {
                self.now = deadline;
                let timeouts = only(&self.health).counters.timeouts;
                self.health.handle_deadline(deadline);
                let timed_out = only(&self.health).counters.timeouts > timeouts;
                self.history.extend(timed_out.then_some(Some(false)));
            }
            _ => return false,
        }
        self.outputs();
        true
    }

    fn run(&mut self, until: Time) {
        while self.step(until) {}
        self.now = until;
    }

    /// Runs until the verdict is `healthy`; how long that took.
    fn wait(&mut self, healthy: bool) -> Duration {
        let from = self.now;
        while self.health.healthy() != healthy {
            assert!(self.step(Time(u64::MAX - 1)), "nothing more happens");
        }
        self.now.since(from)
    }

    /// The service changes; what was under way never gets its answer.
    fn change(&mut self, mode: Mode) {
        self.mode = mode;
        self.answers.clear();
    }

    fn gone(&mut self) {
        self.change(Mode::Refuses);
        self.history.push(None);
        self.health.handle_input(self.now, gone());
        self.outputs();
    }
}

/// The verdict by its definition, from the whole history of results.
fn oracle(history: &[Option<bool>], config: &CheckConfig) -> bool {
    let (mut up, mut since) = (false, 0);
    for end in 1..=history.len() {
        let limit = if up { config.fall } else { config.rise } as usize;
        let run = history[since..end].iter().rev().take_while(|r| **r == Some(!up)).count();
        if history[end - 1].is_none() {
            (up, since) = (false, end);
        } else if run >= limit {
            (up, since) = (!up, end);
        }
    }
    up
}

fn play(seed: u64) -> String {
    let mut bench = Bench::new(seed);
    let CheckConfig { every, timeout, fall, rise, retry, .. } = bench.config.clone();
    let confirm = retry.unwrap_or(every).max(timeout);
    assert!(bench.wait(true) <= every * rise + timeout, "seed {seed}: start");
    for _ in 0..12 {
        let pause = bench.now + every.mul_f64(5.0 * bench.rng.next_f64());
        bench.run(pause);
        match bench.rng.below(3) {
            0 => {
                bench.gone();
                assert!(!bench.health.healthy());
            }
            kind => {
                bench.change(if kind == 1 { Mode::Refuses } else { Mode::Hangs });
                let delay = bench.wait(false);
                let bound = every + confirm * (fall - 1) + timeout;
                assert!(delay <= bound, "seed {seed}: {delay:?} > {bound:?}\n{}", bench.log);
            }
        }
        let outage = bench.now + every.mul_f64(5.0 * bench.rng.next_f64());
        bench.run(outage);
        bench.change(Mode::Answers);
        let delay = bench.wait(true);
        // The poll under way may time out first, and the slot after an event may have been left out.
        assert!(delay <= every * (rise + 1) + timeout, "seed {seed}: back after {delay:?}");
    }
    bench.log
}

#[test]
fn detection_keeps_its_promise_against_a_scripted_service() {
    for seed in 0..400 {
        let log = play(seed);
        if seed % 40 == 0 {
            assert_eq!(log, play(seed), "seed {seed} is not deterministic");
        }
    }
}

#[test]
fn polls_never_drift_nor_exceed_their_interval() {
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        let end = bench.now + bench.config.every * 500;
        bench.run(end);
        let CheckConfig { every, timeout, .. } = bench.config;
        let jitter = bench.config.jitter();
        for (i, pair) in bench.starts.windows(2).enumerate() {
            let gap = pair[1].since(pair[0]);
            assert!(gap <= every && gap >= timeout, "seed {seed}, poll {i}: {gap:?}");
            assert!(i == 0 || gap + 2 * jitter + Duration::from_nanos(2) >= every, "seed {seed}, poll {i}: {gap:?}");
        }
        let expected = 500.0 / (1.0 - jitter.as_secs_f64() / every.as_secs_f64());
        assert!((bench.starts.len() as f64 - expected).abs() <= 3.0, "seed {seed}");
    }
}

#[test]
fn a_failure_is_confirmed_at_the_pace_of_retry() {
    for (mode, pace) in [(Mode::Hangs, ms(20)), (Mode::Refuses, ms(10))] {
        let retrying = CheckConfig { timeout: ms(20), retry: Some(ms(10)), ..config(3, 1) };
        let mut bench = Bench::with(retrying, 1, Rng::new(1));
        bench.wait(true);
        bench.run(bench.now + ms(1000));
        // The answers come at once: what a refused poll waits for is `retry`.
        bench.config.timeout = Duration::ZERO;
        bench.change(mode);
        bench.starts.clear();
        bench.wait(false);
        let [first, second, third] = bench.starts[..] else { panic!("{mode:?}: {:?}", bench.starts) };
        assert_eq!((second.since(first), third.since(second)), (pace, pace), "{mode:?}");
        // Down: no hurry any more. The grid goes on from the last poll, never beyond `every`.
        bench.run(bench.now + ms(500));
        let gaps: Vec<Duration> = bench.starts[2..].windows(2).map(|pair| pair[1].since(pair[0])).collect();
        assert!(gaps.len() >= 5 && gaps.iter().all(|gap| (ms(96)..=ms(100)).contains(gap)), "{mode:?}: {gaps:?}");
    }
}

#[test]
fn a_success_ends_the_hurry() {
    let mut bench = Bench::with(CheckConfig { timeout: ms(20), retry: Some(ms(10)), ..config(2, 1) }, 1, Rng::new(1));
    bench.wait(true);
    bench.change(Mode::Refuses);
    let failures = only(&bench.health).counters.failures;
    while only(&bench.health).counters.failures == failures {
        assert!(bench.step(Time(u64::MAX - 1)));
    }
    bench.change(Mode::Answers);
    bench.starts.clear();
    bench.run(bench.now + ms(500));
    assert!(bench.health.healthy());
    let gaps: Vec<Duration> = bench.starts.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(gaps.len() >= 3 && gaps.iter().all(|gap| (ms(96)..=ms(100)).contains(gap)), "{gaps:?}");
}

#[test]
fn random_inputs_out_of_order_are_harmless() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut health = Health::new(vec![config(2, 2), config(1, 3), config(3, 1)], vec![], seed);
        let mut now = Time::ZERO;
        for _ in 0..200 {
            now = now + Duration::from_micros(rng.below(60_000));
            let (check, poll) = (rng.below(4) as usize, rng.below(8));
            let ok = rng.below(2) == 0;
            match rng.below(8) {
                0 => health.handle_input(now, In::Gone { check, cause: "closed".into() }),
                1..=4 => {
                    let newest = health.next_poll;
                    health.handle_input(now, result_of(check, newest.saturating_sub(poll), ok));
                }
                _ => health.handle_deadline(now),
            }
            outputs(&mut health);
            assert_eq!(health.healthy(), health.checks.iter().all(|c| c.up));
            for c in &health.checks {
                assert_eq!(c.counters.polls == 0, !health.started);
                let ended = c.counters.successes + c.counters.failures;
                assert!(ended + u64::from(c.outstanding.is_some()) <= c.counters.polls);
            }
        }
    }
}
