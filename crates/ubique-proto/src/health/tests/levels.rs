//! Levels, groups and load: what checks that are up or down mean to the site.

use super::*;

fn named(name: &str, role: Role) -> CheckConfig {
    CheckConfig { name: name.into(), what: name.into(), role, ..config(1, 1) }
}

fn member(name: &str, weight: u32) -> CheckConfig {
    named(name, Role::Member { group: "backends".into(), weight })
}

fn group(healthy: u32, degraded: u32) -> GroupConfig {
    GroupConfig { name: "backends".into(), healthy, degraded }
}

fn load(fall: u32, rise: u32) -> CheckConfig {
    let role = Role::Load { high: 90_000, low: 70_000, unit: "%".into() };
    CheckConfig { name: "cpu".into(), role, ..config(fall, rise) }
}

/// Makes each check that polls answer: up or down.
fn set(health: &mut Health, now: &mut Time, up: &[bool]) {
    let mut left: Vec<usize> = (0..up.len()).collect();
    while !left.is_empty() {
        for out in outputs(health) {
            if let Out::Poll { check, poll } = out {
                health.handle_input(*now, result_of(check, poll, up[check]));
                left.retain(|c| *c != check);
            }
        }
        *now = health.next_deadline().unwrap().max(*now);
        if !left.is_empty() {
            health.handle_deadline(*now);
        }
    }
}

/// The level by its definition.
fn oracle(checks: &[CheckConfig], groups: &[GroupConfig], up: &[bool]) -> Level {
    let mut level = Level::Healthy;
    for (check, _) in checks.iter().zip(up).filter(|(_, up)| !**up) {
        if let Role::Alone(on_failure) = check.role {
            level = level.max(on_failure);
        }
    }
    for group in groups {
        let mut sum = 0;
        for (check, up) in checks.iter().zip(up) {
            if let Role::Member { weight, group: of } = &check.role
                && *of == group.name
                && *up
            {
                sum += weight;
            }
        }
        let own = match sum {
            sum if sum >= group.healthy => Level::Healthy,
            sum if sum >= group.degraded => Level::Degraded,
            _ => Level::Failed,
        };
        level = level.max(own);
    }
    level
}

#[test]
fn every_state_of_checks_gives_its_level() {
    let alone = |name: &str, level| named(name, Role::Alone(level));
    let checks = vec![
        alone("process", Level::Failed),
        alone("latency", Level::Degraded),
        member("a", 1),
        member("b", 2),
        member("c", 3),
    ];
    for (healthy, degraded) in [(6, 6), (6, 1), (1, 1), (4, 3)] {
        let groups = vec![group(healthy, degraded)];
        let mut health = start(checks.clone(), groups.clone());
        let mut now = Time(1);
        // From every state to the next of a Gray code and on, so that each is reached by one change.
        for state in 0..64u32 {
            let code = state ^ (state >> 1);
            let up: Vec<bool> = (0..5).map(|bit| code & 1 << bit != 0).collect();
            set(&mut health, &mut now, &up);
            assert_eq!(health.level(), oracle(&checks, &groups, &up), "{up:?} of {healthy}/{degraded}");
            let status: Vec<bool> = health.checks().map(|c| c.up).collect();
            assert_eq!(status, up);
        }
    }
}

#[test]
fn the_cause_names_the_check_or_group_that_decides() {
    let checks = vec![named("latency", Role::Alone(Level::Degraded)), member("a", 1), member("b", 1), member("c", 1)];
    let mut health = start(checks, vec![group(3, 2)]);
    let mut now = Time(1);
    let mut verdict = |up: [bool; 4]| {
        set(&mut health, &mut now, &up);
        (health.level(), health.verdict().1.to_owned())
    };
    let (level, cause) = verdict([true; 4]);
    assert!(level == Level::Healthy && cause.starts_with("all 4 checks are up; check "), "{cause}");
    let refused = "1 of 1 polls failed: refused";
    let expected = format!("group backends: 2 of 3 up, 3 needed; check b: {refused}");
    assert_eq!(verdict([true, true, false, true]), (Level::Degraded, expected));
    let expected = format!("group backends: 1 of 3 up, 2 needed for degraded; check c: {refused}");
    assert_eq!(verdict([true, true, false, false]), (Level::Failed, expected));
    let (level, cause) = verdict([true, true, true, false]);
    assert!(level == Level::Degraded && cause.ends_with(&format!("check c: {refused}")), "{cause}");
    assert_eq!(verdict([true; 4]).0, Level::Healthy);
    assert_eq!(verdict([false, true, true, true]), (Level::Degraded, format!("check latency: {refused}")));
    let (level, cause) = verdict([true; 4]);
    assert_eq!((level, cause.as_str()), (Level::Healthy, "all 4 checks are up; check latency: 1 of 1 polls succeeded"));
}

#[test]
fn a_verdict_tells_wrong_answers_from_none() {
    let mut health =
        start(vec![named("a", Role::Alone(Level::Failed)), named("b", Role::Alone(Level::Failed))], vec![]);
    let mut now = Time(1);
    set(&mut health, &mut now, &[true, true]);
    outputs(&mut health);
    // What each poll ends with: `None`: no answer, otherwise a wrong or right one.
    let mut round = |ends: [Option<bool>; 2]| {
        let mut told = vec![];
        let mut left = vec![0, 1];
        while !left.is_empty() {
            now = health.next_deadline().unwrap().max(now);
            health.handle_deadline(now);
            while let Some(out) = health.poll_output() {
                match out {
                    Out::Poll { check, poll } => {
                        left.retain(|c| *c != check);
                        let result = if ends[check] == Some(true) { Ok(()) } else { Err("x".into()) };
                        let answered = ends[check].is_some();
                        health.handle_input(now, In::Result { check, poll, took: ms(1), result, answered });
                    }
                    Out::Verdict { level, answers, .. } => told.push((level, answers)),
                    _ => {}
                }
            }
        }
        told
    };
    assert_eq!(round([Some(false), Some(true)]), [(Level::Failed, true)]);
    assert_eq!(round([Some(false), Some(true)]), [], "told once");
    assert_eq!(round([None, Some(true)]), [(Level::Failed, false)]);
    assert_eq!(round([Some(false), Some(true)]), [(Level::Failed, true)]);
    assert_eq!(round([Some(false), None]), [(Level::Failed, false)], "one is silent");
    assert_eq!(round([Some(true), Some(true)]).last(), Some(&(Level::Healthy, false)));
}

#[test]
fn healthy_with_some_down_says_so() {
    let mut health = start(vec![member("a", 1), member("b", 1)], vec![group(1, 1)]);
    let mut now = Time(1);
    set(&mut health, &mut now, &[true, false]);
    assert_eq!(health.verdict().1, "enough of 2 checks are up; check a: 1 of 1 polls succeeded");
    let status: Vec<_> = health.groups().map(|g| (g.level, g.up, g.weight)).collect();
    assert_eq!(status, [(Level::Healthy, 1, 2)]);
}

#[test]
fn a_member_of_no_group_fails_alone() {
    let mut health = start(vec![member("a", 1)], vec![]);
    let mut now = Time(1);
    set(&mut health, &mut now, &[true]);
    assert_eq!(health.level(), Level::Healthy);
    set(&mut health, &mut now, &[false]);
    assert_eq!(health.level(), Level::Failed);
}

#[test]
fn a_right_answer_that_is_late_is_a_failure() {
    let mut health = start(vec![CheckConfig { latency: Some(ms(20)), ..config(1, 1) }], vec![]);
    let mut now = Time(1);
    let mut answer = |took: Duration| {
        let number = match outputs(&mut health).into_iter().find_map(|o| match o {
            Out::Poll { poll, .. } => Some(poll),
            _ => None,
        }) {
            Some(number) => number,
            None => poll(&mut health, &mut now),
        };
        health.handle_input(now, In::Result { check: 0, poll: number, took, result: Ok(()), answered: true });
        (health.level(), health.verdict().1.to_owned())
    };
    assert_eq!(answer(ms(20)).0, Level::Healthy);
    let late = "check answers: 1 of 1 polls failed: took 21.0 ms, at most 20.0 ms allowed";
    assert_eq!(answer(ms(21)), (Level::Failed, late.to_owned()));
}

/// Feeds measurements; `None`: one that failed. What was told of overload.
fn measure(health: &mut Health, now: &mut Time, values: &[Option<u64>]) -> Vec<(bool, String)> {
    let mut told = vec![];
    for value in values {
        let number = poll(health, now);
        let (check, took) = (0, ms(1));
        health.handle_input(
            *now,
            match value {
                Some(value) => In::Load { check, poll: number, took, value: *value },
                None => In::Result { check, poll: number, took, result: Err("no such file".into()), answered: false },
            },
        );
        told.extend(outputs(health).into_iter().filter_map(|out| match out {
            Out::Overload { on, cause } => Some((on, cause)),
            _ => None,
        }));
    }
    told
}

#[test]
fn load_turns_overload_on_and_off_and_never_the_level() {
    let mut health = Health::new(vec![load(2, 3)], vec![], 1);
    let mut now = Time(1);
    assert_eq!(measure(&mut health, &mut now, &[Some(99_000), Some(89_000), Some(90_000)]), []);
    let told = measure(&mut health, &mut now, &[Some(97_250)]);
    assert_eq!(told, [(true, "check cpu: 2 of 2 polls at or above 90 %: 97.2 %".to_owned())]);
    assert_eq!((health.level(), health.overload().0), (Level::Healthy, true));
    // Between the thresholds, and what cannot be measured, changes nothing.
    assert_eq!(measure(&mut health, &mut now, &[Some(80_000), Some(70_000), None, Some(70_000), Some(71_000)]), []);
    let told = measure(&mut health, &mut now, &[Some(0), Some(70_000), Some(69_999)]);
    assert_eq!(told, [(false, "check cpu: 3 of 3 polls at or below 70 %: 69.9 %".to_owned())]);
    let status = health.checks().next().unwrap();
    assert_eq!((status.value, status.counters.failures, status.counters.transitions), (Some(69_999), 1, 2));
    assert_eq!(health.level(), Level::Healthy);
}

#[test]
fn load_that_cannot_be_measured_is_no_overload_and_no_failure() {
    let mut health = Health::new(vec![load(1, 1)], vec![], 1);
    let mut now = Time(1);
    assert_eq!(measure(&mut health, &mut now, &[None; 5]), []);
    health.handle_input(now, gone());
    now = now + ms(1000);
    health.handle_deadline(now);
    assert_eq!((health.level(), health.overload().0), (Level::Healthy, false));
    assert!(health.checks().next().unwrap().last_error.is_some());
}

#[test]
fn durations_are_counted_in_buckets() {
    let mut histogram = Histogram::default();
    for (us, bucket) in [(0, 0), (100, 0), (101, 1), (1000, 3), (1_000_000, 11)] {
        let before = histogram.counts()[bucket];
        histogram.record(Duration::from_micros(us));
        assert_eq!(histogram.counts()[bucket], before + 1, "{us} µs");
    }
    histogram.record(Duration::from_secs(7));
    assert_eq!((histogram.count(), histogram.counts().iter().sum::<u64>()), (6, 5));
    assert_eq!(histogram.sum(), Duration::from_micros(8_001_201));
}

#[test]
fn quantiles_are_of_the_last_minutes() {
    let mut durations = histogram::Durations::default();
    let second = Duration::from_secs(1);
    assert_eq!(durations.recent().quantile(0.5), None);
    for n in 0..100 {
        durations.record(Time(1) + second * n, Duration::from_micros(if n < 98 { 200 } else { 40_000 }));
    }
    let quantile = |durations: &histogram::Durations, share| durations.recent().quantile(share);
    assert_eq!(quantile(&durations, 0.5), Some(Duration::from_micros(250)));
    assert_eq!(quantile(&durations, 0.98), Some(Duration::from_micros(250)));
    assert_eq!(quantile(&durations, 0.99), Some(ms(50)));
    durations.record(Time(1) + second * 400, Duration::from_secs(5));
    assert_eq!(quantile(&durations, 0.5), Some(Duration::from_micros(250)), "the window before still counts");
    assert_eq!(quantile(&durations, 1.0), None, "beyond the last bucket");
    durations.record(Time(1) + second * 4000, ms(2));
    assert_eq!(quantile(&durations, 0.5), Some(Duration::from_micros(2500)), "what is older does not");
    assert_eq!(durations.all().count(), 102);
}
