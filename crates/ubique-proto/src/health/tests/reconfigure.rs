//! Checks that change while all goes on.

use super::*;

fn zone() -> CheckConfig {
    CheckConfig { name: "zone".into(), what: "a zone".into(), ..config(2, 2) }
}

/// Numbers of the polls asked for, by check.
fn polls(health: &mut Health) -> Vec<(usize, u64)> {
    let polls = outputs(health).into_iter().filter_map(|out| match out {
        Out::Poll { check, poll } => Some((check, poll)),
        _ => None,
    });
    polls.collect()
}

fn configure(health: &mut Health, now: Time, checks: &[CheckConfig]) {
    health.handle_input(now, In::Configure { checks: checks.to_vec(), groups: vec![] });
}

#[test]
fn a_check_that_did_not_change_keeps_its_state_in_another_place() {
    let (mut health, now, number) = check_at(true, 1);
    let before = only(&health).counters;
    outputs(&mut health);
    configure(&mut health, now, &[zone(), config(3, 3)]);
    let out = outputs(&mut health);
    assert!(!out.iter().any(|o| matches!(o, Out::Verdict { .. })), "nothing is withdrawn for a new check: {out:?}");
    let kept = health.checks().nth(1).unwrap();
    assert_eq!((kept.up, kept.counters.transitions), (true, before.transitions));
    assert_eq!(kept.counters.polls, before.polls + 1, "its poll begins anew");
    assert_eq!(health.checks[1].streak, 1, "failures in a row still count");
    // What was under way says nothing any more, under whatever index.
    for check in 0..2 {
        health.handle_input(now, result_of(check, number, false));
    }
    assert_eq!((health.checks[1].streak, health.checks[0].counters.failures), (1, 0));
}

#[test]
fn other_terms_keep_the_state_and_another_test_does_not() {
    let slower = CheckConfig { every: ms(500), ..config(3, 3) };
    let degraded = CheckConfig { role: Role::Alone(Level::Degraded), ..config(3, 3) };
    let elsewhere = CheckConfig { what: "port 54".into(), ..config(3, 3) };
    let renamed = CheckConfig { name: "other".into(), ..config(3, 3) };
    for (changed, kept) in [(slower, true), (degraded, true), (elsewhere, false), (renamed, false)] {
        let (mut health, now, _) = check_at(true, 0);
        let since = only(&health).since;
        configure(&mut health, now, std::slice::from_ref(&changed));
        assert!(only(&health).up, "a healthy site stays announced: {changed:?}");
        assert_eq!(only(&health).since == since, kept, "{changed:?}");
        assert_eq!(health.level(), Level::Healthy);
    }
}

#[test]
fn a_new_check_is_down_after_fall_failures_at_most() {
    let (mut health, mut now, _) = check_at(true, 0);
    outputs(&mut health);
    configure(&mut health, now, &[config(3, 3), zone()]);
    let start = now;
    while health.level() == Level::Healthy {
        for (check, number) in polls(&mut health) {
            health.handle_input(now, result_of(check, number, check == 0));
        }
        now = health.next_deadline().unwrap().max(now);
        health.handle_deadline(now);
    }
    assert!(now.since(start) <= ms(2 * 100 + 80), "{:?}", now.since(start));
    assert!(health.verdict().1.starts_with("check zone: 2 of 2 polls failed"), "{}", health.verdict().1);
}

#[test]
fn nothing_is_announced_on_hope() {
    let (mut health, now, _) = check_at(false, 1);
    configure(&mut health, now, &[zone()]);
    assert!(!only(&health).up && health.level() == Level::Failed, "a failed site stays failed until polls succeed");
    configure(&mut health, now, &[zone(), config(3, 3)]);
    assert_eq!(health.level(), Level::Failed);
}

#[test]
fn removing_the_check_that_is_down_heals() {
    let (mut health, now, _) = check_at(true, 0);
    configure(&mut health, now, &[config(3, 3), zone()]);
    outputs(&mut health);
    health.handle_input(now, In::Gone { check: 1, cause: "process 1 ended".into() });
    assert_eq!(health.level(), Level::Failed);
    outputs(&mut health);
    configure(&mut health, now, &[config(3, 3)]);
    let verdict = outputs(&mut health).into_iter().find_map(|out| match out {
        Out::Verdict { level, cause, .. } => Some((level, cause)),
        _ => None,
    });
    assert_eq!(verdict, Some((Level::Healthy, "the checks were changed".into())));
}

#[test]
fn overload_ends_with_its_check() {
    let load = CheckConfig { role: Role::Load { high: 10, low: 5, unit: "x".into() }, ..config(1, 1) };
    let mut health = start(vec![load], vec![]);
    let (_, number) = polls(&mut health)[0];
    health.handle_input(Time(2), In::Load { check: 0, poll: number, took: ms(1), value: 11 });
    assert!(health.overload().0);
    configure(&mut health, Time(3), &[]);
    assert!(outputs(&mut health).iter().any(|out| matches!(out, Out::Overload { on: false, .. })));
}

#[test]
fn before_the_start_nothing_is_polled() {
    let mut health = Health::new(vec![config(1, 1)], vec![], 1);
    configure(&mut health, Time(1), &[zone(), config(1, 1)]);
    assert_eq!(outputs(&mut health), []);
    health.handle_deadline(Time(2));
    assert_eq!(polls(&mut health).len(), 2);
    assert_eq!(health.level(), Level::Failed);
}

#[test]
fn random_changes_keep_the_rules() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let pool = |rng: &mut Rng| {
            let role = match rng.below(4) {
                0 => Role::Alone(Level::Degraded),
                1 => Role::Member { group: "g".into(), weight: 1 + rng.below(3) as u32 },
                2 => Role::Load { high: 10, low: 5, unit: String::new() },
                _ => Role::Alone(Level::Failed),
            };
            CheckConfig { name: format!("c{}", rng.below(4)), what: format!("w{}", rng.below(2)), role, ..config(2, 2) }
        };
        let mut health = Health::new((0..3).map(|_| pool(&mut rng)).collect(), vec![], seed);
        let mut now = Time(1);
        let mut under_way: Vec<(usize, u64)> = vec![];
        for _ in 0..200 {
            match rng.below(8) {
                0 => {
                    let checks: Vec<CheckConfig> = (0..rng.below(4)).map(|_| pool(&mut rng)).collect();
                    let healthy = rng.below(4) as u32;
                    let group = GroupConfig { name: "g".into(), healthy, degraded: healthy.min(1) };
                    let failed = health.level() == Level::Failed && health.started;
                    health.handle_input(now, In::Configure { checks, groups: vec![group] });
                    under_way.clear();
                    if failed && health.level() != Level::Failed {
                        let hope = health.checks.iter().any(|c| c.up && !c.is_load() && c.counters.successes == 0);
                        assert!(!hope, "seed {seed}: announced on hope");
                    }
                }
                1 => health.handle_input(now, In::Gone { check: rng.below(4) as usize, cause: "gone".into() }),
                2..=5 if !under_way.is_empty() => {
                    let at = rng.below(under_way.len() as u64) as usize;
                    let (check, number) = under_way.swap_remove(at);
                    let input = if rng.below(3) == 0 {
                        In::Load { check, poll: number, took: ms(1), value: rng.below(20) }
                    } else {
                        result_of(check, number, rng.below(3) > 0)
                    };
                    health.handle_input(now, input);
                }
                _ => {
                    now = now + ms(rng.below(120));
                    health.handle_deadline(now);
                }
            }
            under_way.extend(polls(&mut health));
            let worst = health.checks.iter().any(|c| !c.up && c.config.role == Role::Alone(Level::Failed));
            assert!(!worst || health.level() == Level::Failed || !health.started, "seed {seed}");
            let overloaded = health.checks.iter().any(|c| c.is_load() && !c.up);
            assert_eq!(health.overload().0, overloaded, "seed {seed}");
        }
    }
}
