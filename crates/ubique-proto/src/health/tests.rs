//! Four rungs: up and down × every input, named cases, random histories against an oracle, a scripted service.

mod levels;
mod reconfigure;
mod timeline;

use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn config(fall: u32, rise: u32) -> CheckConfig {
    CheckConfig {
        name: "answers".into(),
        what: "port 53".into(),
        every: ms(100),
        timeout: ms(80),
        retry: None,
        latency: None,
        fall,
        rise,
        role: Role::Alone(Level::Failed),
    }
}

fn start(checks: Vec<CheckConfig>, groups: Vec<GroupConfig>) -> Health {
    let mut health = Health::new(checks, groups, 1);
    health.handle_deadline(Time(1));
    health
}

fn outputs(health: &mut Health) -> Vec<Out> {
    std::iter::from_fn(|| health.poll_output()).collect()
}

fn only<'a>(health: &'a Health) -> CheckStatus<'a> {
    health.checks().next().unwrap()
}

/// Runs the one check until a poll is under way; its number.
fn poll(health: &mut Health, now: &mut Time) -> u64 {
    loop {
        *now = health.next_deadline().unwrap().max(*now);
        health.handle_deadline(*now);
        for out in outputs(health) {
            if let Out::Poll { poll, .. } = out {
                return poll;
            }
        }
    }
}

fn result(poll: u64, ok: bool) -> In {
    result_of(0, poll, ok)
}

fn result_of(check: usize, poll: u64, ok: bool) -> In {
    In::Result { check, poll, took: ms(1), result: if ok { Ok(()) } else { Err("refused".into()) }, answered: false }
}

fn gone() -> In {
    In::Gone { check: 0, cause: "process 4711 exited".into() }
}

/// A check with a poll under way: `up`, with so many results against its state counted already.
fn check_at(up: bool, streak: u32) -> (Health, Time, u64) {
    let mut health = Health::new(vec![config(3, 3)], vec![], 1);
    let mut now = Time(1);
    let mut number = poll(&mut health, &mut now);
    let rise = std::iter::repeat_n(true, if up { 3 } else { 0 });
    for ok in rise.chain(std::iter::repeat_n(!up, streak as usize)) {
        health.handle_input(now, result(number, ok));
        number = poll(&mut health, &mut now);
    }
    assert_eq!(only(&health).up, up);
    (health, now, number)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Success,
    Failure,
    Timeout,
    Gone,
    LateResult,
    UnknownCheck,
}

fn apply(health: &mut Health, now: Time, number: u64, event: Event) {
    let up = health.healthy();
    match event {
        Event::Success => health.handle_input(now, result(number, true)),
        Event::Failure => health.handle_input(now, result(number, false)),
        Event::Timeout => health.handle_deadline(now + ms(80)),
        Event::Gone => health.handle_input(now, gone()),
        Event::LateResult => health.handle_input(now, result(number.wrapping_sub(1), !up)),
        Event::UnknownCheck => {
            health.handle_input(now, result_of(7, number, true));
            health.handle_input(now, In::Load { check: 7, poll: number, took: ms(1), value: 1 });
            let check = 7;
            let cause = String::new();
            health.handle_input(now, In::Gone { check, cause });
        }
    }
}

#[test]
fn every_state_and_every_input() {
    use Event::*;
    // Rows: up, results against that state so far. Columns: does it turn, and how many are against it then?
    #[rustfmt::skip]
    let table = [
        //           Success     Failure     Timeout     Gone        LateResult  UnknownCheck
        (false, 0, [(false, 1), (false, 0), (false, 0), (false, 0), (false, 0), (false, 0)]),
        (false, 1, [(false, 2), (false, 0), (false, 0), (false, 0), (false, 1), (false, 1)]),
        (false, 2, [(true,  0), (false, 0), (false, 0), (false, 0), (false, 2), (false, 2)]),
        (true,  0, [(false, 0), (false, 1), (false, 1), (true,  0), (false, 0), (false, 0)]),
        (true,  1, [(false, 0), (false, 2), (false, 2), (true,  0), (false, 1), (false, 1)]),
        (true,  2, [(false, 0), (true,  0), (true,  0), (true,  0), (false, 2), (false, 2)]),
    ];
    let events = [Success, Failure, Timeout, Gone, LateResult, UnknownCheck];
    for (up, streak, row) in table {
        for (event, (turns, after)) in events.into_iter().zip(row) {
            let case = format!("{event:?} when up = {up} with {streak} against");
            let (mut health, now, number) = check_at(up, streak);
            apply(&mut health, now, number, event);
            let now_up = up != turns;
            assert_eq!((only(&health).up, health.healthy()), (now_up, now_up), "{case}");
            assert_eq!(health.checks[0].streak, after, "{case}");
            let outputs = outputs(&mut health);
            let told = |wanted: fn(&Out) -> Option<bool>| outputs.iter().find_map(wanted);
            let check = told(|o| match o {
                Out::Check { up, .. } => Some(*up),
                _ => None,
            });
            let verdict = told(|o| match o {
                Out::Verdict { level, .. } => Some(*level == Level::Healthy),
                _ => None,
            });
            let expected = turns.then_some(now_up);
            assert_eq!((check, verdict), (expected, expected), "{case}");
            let abandoned = outputs.contains(&Out::Abandon { check: 0, poll: number });
            assert_eq!(abandoned, matches!(event, Timeout | Gone), "{case}");
        }
    }
}

#[test]
fn without_checks_the_verdict_is_healthy_at_once() {
    let mut health = Health::new(vec![], vec![], 0);
    assert_eq!(health.next_deadline(), Some(Time::ZERO));
    health.handle_deadline(Time(5));
    assert_eq!(
        outputs(&mut health),
        [Out::Verdict { level: Level::Healthy, answers: false, cause: "no checks".into() }]
    );
    assert_eq!((health.next_deadline(), health.verdict()), (None, (Time(5), "no checks")));
}

#[test]
fn causes_are_precise() {
    let (mut health, mut now, number) = check_at(true, 2);
    now = now + ms(80);
    health.handle_deadline(now);
    let cause = "check answers: 3 of 3 polls failed: timeout after 80ms";
    assert_eq!(
        outputs(&mut health)[..3],
        [
            Out::Abandon { check: 0, poll: number },
            Out::Check { check: 0, up: false, cause: cause.into() },
            Out::Verdict { level: Level::Failed, answers: false, cause: cause.into() },
        ]
    );
    let status = only(&health);
    assert_eq!((status.since, status.cause, status.last_error), (now, cause, Some("timeout after 80ms")));
    assert_eq!(status.counters.timeouts, 1);
}

#[test]
fn what_is_gone_is_down_at_once_and_needs_rise_successes() {
    let (mut health, mut now, number) = check_at(true, 0);
    health.handle_input(now, gone());
    let cause = String::from("check answers: process 4711 exited");
    assert_eq!(
        outputs(&mut health),
        [
            Out::Abandon { check: 0, poll: number },
            Out::Check { check: 0, up: false, cause: cause.clone() },
            Out::Verdict { level: Level::Failed, answers: false, cause },
            Out::Poll { check: 0, poll: number + 1 },
        ]
    );
    // The abandoned poll had been answered by the process that is gone.
    health.handle_input(now, result(number, true));
    assert_eq!(health.checks[0].streak, 0);
    let mut next = number + 1;
    for successes in 1..=3 {
        assert!(!health.healthy());
        health.handle_input(now, result(next, true));
        if successes < 3 {
            next = poll(&mut health, &mut now);
        }
    }
    assert!(health.healthy());
    assert_eq!(only(&health).counters.gone, 1);
}

#[test]
fn gone_while_down_starts_the_rise_anew_and_does_not_poll_in_a_storm() {
    let (mut health, now, number) = check_at(false, 2);
    for _ in 0..1000 {
        health.handle_input(now, gone());
    }
    assert_eq!(outputs(&mut health), [Out::Abandon { check: 0, poll: number }]);
    assert_eq!((health.checks[0].streak, only(&health).counters.polls), (0, number + 1));
}

#[test]
fn the_verdict_needs_all_checks() {
    let mut health = start(vec![config(1, 1), CheckConfig { name: "zone".into(), ..config(1, 1) }], vec![]);
    assert_eq!(outputs(&mut health), [Out::Poll { check: 0, poll: 0 }, Out::Poll { check: 1, poll: 1 }]);
    health.handle_input(Time(2), result(0, true));
    assert!(!health.healthy());
    health.handle_input(Time(3), result_of(1, 1, true));
    assert_eq!(health.verdict(), (Time(3), "all 2 checks are up; check zone: 1 of 1 polls succeeded"));
    health.handle_input(Time(4), gone());
    assert_eq!(health.verdict(), (Time(4), "check answers: process 4711 exited"));
}

#[test]
fn parameters_out_of_bounds_are_bounded() {
    let zero = CheckConfig { every: ms(0), timeout: ms(9), fall: 0, rise: 0, ..config(1, 1) };
    let bounded = zero.bounded();
    assert_eq!((bounded.every, bounded.timeout), (MIN_EVERY, MIN_EVERY));
    assert_eq!((bounded.fall, bounded.rise, bounded.jitter()), (1, 1, ms(0)));
    let mut health = Health::new(vec![bounded], vec![], 0);
    let mut now = Time::ZERO;
    for _ in 0..100 {
        let before = now;
        poll(&mut health, &mut now);
        assert!(now == Time::ZERO || now.since(before) >= MIN_EVERY);
    }
}

#[test]
fn a_stalled_driver_causes_no_burst_of_polls() {
    let (mut health, now, _) = check_at(true, 0);
    let now = now + Duration::from_secs(3600);
    health.handle_deadline(now);
    let polls = outputs(&mut health).iter().filter(|o| matches!(o, Out::Poll { .. })).count();
    assert_eq!(polls, 1);
    let next = health.next_deadline().unwrap();
    assert!(next > now && next <= now + ms(100));
    // An hour of silence is one failed poll, not 36,000.
    assert_eq!((health.checks[0].streak, health.healthy()), (1, true));
}

#[test]
fn inputs_and_outputs_survive_a_recording() {
    let load = In::Load { check: 0, poll: 5, took: ms(1), value: 90_500 };
    let group = GroupConfig { name: "g".into(), healthy: 2, degraded: 1 };
    let configure = In::Configure { checks: vec![config(1, 2)], groups: vec![group] };
    for input in [result(3, true), result(4, false), gone(), load, configure] {
        let json = serde_json::to_string(&input).unwrap();
        assert_eq!(serde_json::from_str::<In>(&json).unwrap(), input, "{json}");
    }
    let (mut health, now, _) = check_at(true, 2);
    health.handle_deadline(now + ms(80));
    let outputs = outputs(&mut health);
    assert!(outputs.len() >= 3);
    for out in outputs {
        let json = serde_json::to_string(&out).unwrap();
        assert_eq!(serde_json::from_str::<Out>(&json).unwrap(), out, "{json}");
    }
}
