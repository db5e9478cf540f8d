//! The health core under any sequence of results, events and clock steps, against counts made from scratch.

use std::collections::BTreeMap;
use std::time::Duration;

use ubique_proto::Time;
use ubique_proto::health::{CheckConfig, Health, In, Out};

use crate::rng::{Rng, feed};

/// Inputs of one run.
const STEPS: usize = 200;

/// What is known of a check from outside.
#[derive(Clone, Default)]
struct Seen {
    up: bool,
    /// Results in a row that speak against its state.
    against: u32,
    outstanding: Option<u64>,
    timeouts: u64,
    rise: u32,
    fall: u32,
}

/// Octets: checks, then results, events and waits.
pub(crate) fn health(input: &[u8]) {
    let mut rng = feed(input);
    let configs: Vec<CheckConfig> = (0..rng.below(4)).map(|n| config(&mut rng, n)).collect();
    let mut seen: Vec<Seen> =
        configs.iter().map(|c| Seen { rise: c.rise.max(1), fall: c.fall.max(1), ..Seen::default() }).collect();
    let mut health = Health::new(configs, rng.next_u64());
    let mut now = Time(1);
    health.handle_deadline(now);
    drain(&mut health, &mut seen);
    for _ in 0..STEPS {
        if rng.is_empty() {
            break;
        }
        step(&mut health, &mut seen, &mut rng, &mut now);
        drain(&mut health, &mut seen);
        let all = seen.iter().all(|check| check.up);
        assert_eq!(health.healthy(), all, "the verdict is that of all checks");
        for (status, check) in health.checks().zip(&seen) {
            assert_eq!(status.up, check.up);
            assert!(status.counters.successes + status.counters.failures <= status.counters.polls);
            assert!(status.counters.timeouts <= status.counters.failures);
            assert!(status.since <= now);
        }
    }
}

fn config(rng: &mut Rng, n: u64) -> CheckConfig {
    let every = Duration::from_micros(rng.below(1 << 16) * 10);
    CheckConfig {
        name: format!("check{n}"),
        every,
        timeout: Duration::from_micros(1 + rng.below(1 << 16) * 10),
        fall: rng.below(4) as u32,
        rise: rng.below(4) as u32,
    }
}

fn step(health: &mut Health, seen: &mut [Seen], rng: &mut Rng, now: &mut Time) {
    let check = rng.below(seen.len() as u64 + 1) as usize;
    match rng.below(8) {
        0 => {
            let gone = In::Gone { check, cause: "exited".into() };
            health.handle_input(*now, gone);
            if let Some(check) = seen.get_mut(check) {
                check.against = 0;
                check.up = false;
            }
        }
        1..=4 => {
            let under_way = seen.get(check).and_then(|c| c.outstanding);
            let poll = under_way.filter(|_| !rng.one_in(8)).unwrap_or(rng.below(256));
            let ok = !rng.one_in(3);
            let result = if ok { Ok(()) } else { Err("refused".into()) };
            health.handle_input(*now, In::Result { check, poll, result });
            if under_way == Some(poll)
                && let Some(check) = seen.get_mut(check)
            {
                check.outstanding = None;
                count(check, ok);
            }
        }
        _ => {
            let scale = 10u64.pow(rng.below(7) as u32);
            *now = *now + Duration::from_micros(rng.below(100) * scale);
            health.handle_deadline(*now);
            // Without checks there is nothing to wait for.
            assert!(health.next_deadline().is_none_or(|at| at > *now), "a deadline that stays");
        }
    }
}

fn count(check: &mut Seen, ok: bool) {
    check.against = if ok != check.up { check.against + 1 } else { 0 };
    if check.against >= if check.up { check.fall } else { check.rise } {
        check.up = ok;
        check.against = 0;
    }
}

fn drain(health: &mut Health, seen: &mut [Seen]) {
    let mut told = BTreeMap::new();
    let mut verdict = None;
    while let Some(output) = health.poll_output() {
        match output {
            Out::Poll { check, poll } => {
                assert_eq!(seen[check].outstanding, None, "two polls of a check under way");
                seen[check].outstanding = Some(poll);
            }
            Out::Abandon { check, poll } => {
                assert_eq!(seen[check].outstanding.take(), Some(poll), "abandons what is not under way");
                // After an event it does not count, after a timeout it does.
                let timeouts = health.checks().nth(check).map_or(0, |c| c.counters.timeouts);
                if timeouts > seen[check].timeouts {
                    seen[check].timeouts = timeouts;
                    count(&mut seen[check], false);
                }
            }
            Out::Check { check, up, cause } => {
                assert!(!cause.is_empty());
                told.insert(check, up);
            }
            Out::Verdict { healthy, .. } => verdict = Some(healthy),
        }
    }
    for (check, up) in told {
        assert_eq!(up, seen[check].up, "check {check}");
    }
    assert!(verdict.is_none_or(|healthy| healthy == health.healthy()));
}
