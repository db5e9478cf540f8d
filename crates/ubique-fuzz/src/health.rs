//! The health core under any sequence of results, events and clock steps, against counts made from scratch.

use std::collections::BTreeMap;
use std::time::Duration;

use ubique_model::policy::Level;
use ubique_proto::Time;
use ubique_proto::health::{CheckConfig, GroupConfig, Health, In, Out, Role};

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
    latency: Option<Duration>,
    role: Option<Role>,
    /// Up without a success, as it was new when the site was healthy.
    presumed: bool,
}

/// Octets: checks and groups, then results, events, waits and other checks.
pub(crate) fn health(input: &[u8]) {
    let mut rng = feed(input);
    let configs: Vec<CheckConfig> = (0..rng.below(4)).map(|n| config(&mut rng, n)).collect();
    let mut groups = groups(&mut rng);
    let mut seen: Vec<Seen> = configs.iter().map(Seen::new).collect();
    let mut health = Health::new(configs, groups.clone(), rng.next_u64());
    let mut now = Time(1);
    health.handle_deadline(now);
    drain(&mut health, &mut seen);
    for _ in 0..STEPS {
        if rng.is_empty() {
            break;
        }
        step(&mut health, &mut seen, &mut rng, &mut now, &mut groups);
        drain(&mut health, &mut seen);
        assert_eq!(health.level(), level(&seen, &groups), "the verdict is that of all checks and groups");
        assert_eq!(health.overload().0, seen.iter().any(|check| check.is_load() && !check.up));
        assert!(health.best_case() <= health.level());
        let unproven =
            health.checks().zip(&seen).any(|(c, check)| c.up && !check.is_load() && c.counters.successes == 0);
        assert!(!unproven || health.level() != Level::Failed, "hope on the way back");
        for (status, check) in health.checks().zip(&seen) {
            assert_eq!(status.up, check.up);
            assert!(status.counters.successes + status.counters.failures <= status.counters.polls);
            assert!(status.counters.timeouts <= status.counters.failures);
            assert!(status.since <= now);
        }
    }
}

impl Seen {
    fn new(config: &CheckConfig) -> Seen {
        let load = matches!(config.role, Role::Load { .. });
        let role = Some(config.role.clone());
        let (rise, fall) = (config.rise.max(1), config.fall.max(1));
        Seen { up: load, rise, fall, latency: config.latency, role, ..Seen::default() }
    }

    fn is_load(&self) -> bool {
        matches!(self.role, Some(Role::Load { .. }))
    }
}

/// The level by its definition.
fn level(seen: &[Seen], groups: &[GroupConfig]) -> Level {
    let mut level = Level::Healthy;
    for check in seen.iter().filter(|check| !check.up) {
        level = level.max(match &check.role {
            Some(Role::Alone(on_failure)) => *on_failure,
            Some(Role::Member { group, .. }) if !groups.iter().any(|g| g.name == *group) => Level::Failed,
            _ => Level::Healthy,
        });
    }
    for group in groups {
        let weights = seen.iter().filter(|check| check.up).map(|check| match &check.role {
            Some(Role::Member { group: of, weight }) if *of == group.name => *weight,
            _ => 0,
        });
        let sum = weights.fold(0, u32::saturating_add);
        level = level.max(match sum {
            sum if sum >= group.healthy => Level::Healthy,
            sum if sum >= group.degraded => Level::Degraded,
            _ => Level::Failed,
        });
    }
    level
}

fn groups(rng: &mut Rng) -> Vec<GroupConfig> {
    let group = |n: u64, rng: &mut Rng| GroupConfig {
        name: format!("group{n}"),
        healthy: rng.below(8) as u32,
        degraded: rng.below(8) as u32,
    };
    (0..rng.below(3)).map(|n| group(n, rng)).collect()
}

fn config(rng: &mut Rng, n: u64) -> CheckConfig {
    let every = Duration::from_micros(rng.below(1 << 16) * 10);
    let role = match rng.below(6) {
        0 => Role::Alone(Level::Degraded),
        1 | 2 => Role::Member {
            group: format!("group{}", rng.below(3)),
            weight: rng.next_u64() as u32 >> 29 << rng.below(30),
        },
        3 => Role::Load { high: rng.below(64), low: rng.below(64), unit: "%".into() },
        _ => Role::Alone(Level::Failed),
    };
    CheckConfig {
        name: format!("check{n}"),
        what: format!("test{}", rng.below(2)),
        every,
        timeout: Duration::from_micros(1 + rng.below(1 << 16) * 10),
        retry: rng.one_in(4).then(|| Duration::from_micros(rng.below(1 << 16) * 10)),
        latency: rng.one_in(4).then(|| Duration::from_micros(rng.below(1 << 16))),
        fall: rng.below(4) as u32,
        rise: rng.below(4) as u32,
        role,
    }
}

/// Other checks and groups: what the core keeps of them is its own business here, but for the rule of hope.
fn configure(health: &mut Health, seen: &mut Vec<Seen>, rng: &mut Rng, now: Time, groups_now: &mut Vec<GroupConfig>) {
    let checks: Vec<CheckConfig> = (0..rng.below(4)).map(|n| config(rng, n)).collect();
    *groups_now = groups(rng);
    *seen = checks.iter().map(Seen::new).collect();
    let failed = health.level() == Level::Failed;
    health.handle_input(now, In::Configure { checks, groups: groups_now.clone() });
    for (status, check) in health.checks().zip(seen.iter_mut()) {
        check.up = status.up;
        check.against = status.streak;
        check.timeouts = status.counters.timeouts;
        check.presumed = status.up && !check.is_load() && status.counters.successes == 0;
        let hope = failed && status.up && !check.is_load() && status.counters.successes == 0;
        assert!(!hope, "announced on hope");
    }
}

fn step(health: &mut Health, seen: &mut Vec<Seen>, rng: &mut Rng, now: &mut Time, groups: &mut Vec<GroupConfig>) {
    let check = rng.below(seen.len() as u64 + 1) as usize;
    match rng.below(8) {
        0 if rng.one_in(4) => configure(health, seen, rng, *now, groups),
        0 => {
            let gone = In::Gone { check, cause: "exited".into() };
            health.handle_input(*now, gone);
            if let Some(check) = seen.get_mut(check).filter(|check| !check.is_load()) {
                check.against = 0;
                check.up = false;
            }
        }
        1..=4 => {
            let under_way = seen.get(check).and_then(|c| c.outstanding);
            let poll = under_way.filter(|_| !rng.one_in(8)).unwrap_or(rng.below(256));
            let ok = !rng.one_in(3);
            let result = if ok { Ok(()) } else { Err("refused".into()) };
            let took = Duration::from_micros(rng.below(1 << 16));
            let value = rng.one_in(3).then(|| rng.below(80));
            let input = match value {
                Some(value) => In::Load { check, poll, took, value },
                None => In::Result { check, poll, took, result, answered: rng.one_in(2) },
            };
            health.handle_input(*now, input);
            if under_way == Some(poll)
                && let Some(check) = seen.get_mut(check)
            {
                check.outstanding = None;
                match value {
                    Some(value) => count_load(check, value),
                    None => count(check, ok && check.latency.is_none_or(|latency| took <= latency)),
                }
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

fn count_load(check: &mut Seen, value: u64) {
    let Some(Role::Load { high, low, .. }) = &check.role else {
        return;
    };
    let against = if check.up { value >= *high } else { value <= (*low).min(high.saturating_sub(1)) };
    check.against = if against { check.against + 1 } else { 0 };
    if check.against >= if check.up { check.fall } else { check.rise } {
        check.up = !check.up;
        check.against = 0;
    }
}

fn count(check: &mut Seen, ok: bool) {
    if check.is_load() {
        return;
    }
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
                if seen[check].presumed && !up {
                    // The site has failed: it does not count as up any more.
                    (seen[check].up, seen[check].against, seen[check].presumed) = (false, 0, false);
                }
                told.insert(check, up);
            }
            Out::Verdict { level, .. } => verdict = Some(level),
            Out::Overload { .. } => {}
        }
    }
    for (check, up) in told {
        assert_eq!(up, seen[check].up, "check {check}");
    }
    assert!(verdict.is_none_or(|level| level == health.level()));
}
