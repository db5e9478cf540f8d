//! Flap control, overload and the start gate, case by case.

use ubique_model::service::Flap;

use super::*;

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn with_flap() -> Site {
    Site::new(SiteConfig { flap: Some(Flap::default()), ..SiteConfig::new(DRAIN, AT_ONCE) })
}

fn up(site: &mut Site, now: Time) {
    for input in [In::Start, In::AddressesAdded, verdict(true)] {
        site.handle_input(now, input);
    }
}

/// Feeds it and returns what it said.
fn say(site: &mut Site, now: Time, input: In) -> String {
    site.handle_input(now, input);
    brief(&drained_outputs(site))
}

/// Lets it wait until its next deadline.
fn wait(site: &mut Site) -> (Time, String) {
    let now = site.next_deadline().expect("it waits for something");
    site.handle_deadline(now);
    (now, brief(&drained_outputs(site)))
}

fn level(level: Level) -> In {
    In::Verdict { level, answers: true, cause: level.word().into() }
}

fn load(on: bool) -> In {
    In::Overload { on, cause: "queries/s".into() }
}

#[test]
fn the_sixth_failure_is_withdrawn_and_its_return_waits() {
    let mut site = with_flap();
    up(&mut site, at(0));
    drained_outputs(&mut site);
    for _ in 0..5 {
        assert_eq!(say(&mut site, at(1), verdict(false)), "withdraw unhealthy");
        assert_eq!(say(&mut site, at(1), verdict(true)), "announce announced");
    }
    assert_eq!(say(&mut site, at(1), verdict(false)), "withdraw unhealthy", "failure never waits");
    assert_eq!(say(&mut site, at(1), verdict(true)), "held");
    let flap = site.status(at(1)).flap.unwrap();
    assert_eq!(flap.words(at(1)), "flap budget 0 of 6000, may announce again in 4m");
    assert_eq!(site.status(at(1)).cause, flap.words(at(1)));
    let (now, said) = wait(&mut site);
    assert_eq!(said, "announce announced");
    // 6000 → 5000: log2(1.2) half-lives of 15 minutes.
    assert_eq!(now.since(at(1)).as_secs(), 236);
    assert_eq!(site.status(now).flap.unwrap().words(now), "flap budget 1000 of 6000");
}

#[test]
fn a_failure_while_held_and_a_drain_end_the_wait() {
    for (input, said) in [(verdict(false), "unhealthy"), (drain(), "drained"), (stop(), "stopping")] {
        let mut site = with_flap();
        up(&mut site, at(0));
        for _ in 0..6 {
            site.handle_input(at(1), verdict(false));
            site.handle_input(at(1), verdict(true));
        }
        assert_eq!(site.state(), State::Held);
        drained_outputs(&mut site);
        assert_eq!(say(&mut site, at(2), input), said);
    }
}

#[test]
fn what_is_worse_is_told_at_once_and_what_is_better_waits() {
    let mut site = with_flap();
    up(&mut site, at(0));
    drained_outputs(&mut site);
    for _ in 0..4 {
        assert_eq!(say(&mut site, at(1), level(Level::Degraded)), "degraded");
        assert_eq!(say(&mut site, at(1), level(Level::Healthy)), "announce");
    }
    // 4000 by now: degraded makes 4500, and the way back would leave no room for one more withdrawal after the next.
    assert_eq!(say(&mut site, at(1), level(Level::Degraded)), "degraded");
    assert_eq!(say(&mut site, at(1), level(Level::Healthy)), "announce");
    assert_eq!(say(&mut site, at(1), level(Level::Degraded)), "degraded");
    assert_eq!(say(&mut site, at(1), level(Level::Healthy)), "", "it stays as it is");
    assert_eq!(site.status(at(1)).stance, Some(Stance::at(Level::Degraded)));
    let (now, said) = wait(&mut site);
    assert_eq!(said, "announce");
    assert!(now > at(60));
}

#[test]
fn flaps_are_remembered_and_forgiven() {
    let flap = Flap::default();
    let mut site = with_flap();
    up(&mut site, at(0));
    for _ in 0..4 {
        site.handle_input(at(1), verdict(false));
        site.handle_input(at(1), verdict(true));
    }
    let memory = site.memory(at(1));
    assert_eq!((memory.penalty, memory.announced), (4000, true));
    let json = serde_json::to_string(&memory).unwrap();
    assert_eq!(serde_json::from_str::<Memory>(&json).unwrap(), memory);
    assert_eq!(serde_json::from_str::<Memory>("{}").unwrap(), Memory::default(), "an older file has less");
    let again = |elapsed, now| {
        let memory = memory.clone().aged(Some(&flap), Duration::from_secs(elapsed));
        let mut site = Site::new(SiteConfig { flap: Some(flap), memory, ..SiteConfig::new(DRAIN, AT_ONCE) });
        up(&mut site, now);
        site.status(now).flap.unwrap().left
    };
    assert_eq!(again(0, at(7)), 1000.0, "the crash was a withdrawal, too");
    assert_eq!(again(900, at(7)), 3000.0);
    let drained = Memory { drain: Some("maintenance".into()), ..Memory::default() };
    let mut site = Site::new(SiteConfig { memory: drained, ..SiteConfig::new(DRAIN, AT_ONCE) });
    up(&mut site, at(1));
    assert_eq!(brief(&drained_outputs(&mut site)), "add starting drained");
    assert_eq!(site.memory(at(1)).drain.as_deref(), Some("maintenance"));
}

#[test]
fn load_climbs_step_by_step_and_never_withdraws() {
    let mut site = Site::new(SiteConfig { shed_steps: 2, ..SiteConfig::new(DRAIN, AT_ONCE) });
    up(&mut site, at(0));
    drained_outputs(&mut site);
    assert_eq!(say(&mut site, at(1), load(true)), "shed1");
    assert_eq!(say(&mut site, at(1), load(true)), "");
    let (now, said) = wait(&mut site);
    assert_eq!((now.since(at(1)), said.as_str()), (SHED_STEP, "shed2"));
    assert_eq!(site.next_deadline(), None, "there are no more steps");
    assert_eq!(say(&mut site, at(100), load(false)), "");
    let (now, said) = wait(&mut site);
    assert_eq!((now.since(at(100)), said.as_str()), (SHED_CALM, "shed1"));
    assert_eq!(say(&mut site, now, load(true)), "");
    let (_, said) = wait(&mut site);
    assert_eq!(said, "shed2");
    assert_eq!(say(&mut site, at(200), load(false)), "");
    wait(&mut site);
    let (_, said) = wait(&mut site);
    assert_eq!(said, "announce");
    assert_eq!(site.next_deadline(), None);
}

#[test]
fn without_steps_load_changes_nothing() {
    let mut site = site();
    up(&mut site, at(0));
    drained_outputs(&mut site);
    assert_eq!(say(&mut site, at(1), load(true)), "");
    assert_eq!(site.next_deadline(), None);
    assert_eq!(site.status(at(1)).overload, Some("queries/s"));
}

#[test]
fn a_degraded_site_that_sheds_says_both_and_shedding_waits_for_the_budget() {
    let mut site =
        Site::new(SiteConfig { shed_steps: 9, flap: Some(Flap::default()), ..SiteConfig::new(DRAIN, AT_ONCE) });
    up(&mut site, at(0));
    site.handle_input(at(1), level(Level::Degraded));
    site.handle_input(at(1), load(true));
    assert_eq!(site.status(at(1)).stance, Some(Stance { shed: 1, ..Stance::at(Level::Degraded) }));
    while site.next_deadline().is_some_and(|at| at < super::flapping::at(3600)) {
        let (now, _) = wait(&mut site);
        let left = site.status(now).flap.unwrap().left;
        assert!(left >= 1000.0 - 1.0, "one more withdrawal must fit: {left}");
    }
    assert_eq!(site.status(at(3600)).stance.unwrap().shed, 9);
}

#[test]
fn nothing_is_announced_before_the_addresses_answer() {
    let guard = Guard { start: true, last_site: AT_ONCE, ..Guard::default() };
    let mut site = Site::new(SiteConfig { guard, ..SiteConfig::new(DRAIN, AT_ONCE) });
    up(&mut site, at(0));
    assert_eq!(brief(&drained_outputs(&mut site)), "add starting unhealthy verify held");
    let refused = || In::Verified { result: Err("no answer on 2001:db8::1: connection refused".into()) };
    assert_eq!(say(&mut site, at(1), refused()), "");
    let (now, said) = wait(&mut site);
    assert_eq!((now.since(at(1)), said.as_str()), (VERIFY_RETRY, "verify"));
    assert_eq!(say(&mut site, now, refused()), "");
    assert_eq!(say(&mut site, now, verdict(false)), "unhealthy");
    assert_eq!(site.next_deadline(), None, "nobody is asked while it is not healthy");
    assert_eq!(say(&mut site, at(9), verdict(true)), "verify held");
    assert_eq!(say(&mut site, at(9), In::Verified { result: Ok(()) }), "announce announced");
    assert_eq!(say(&mut site, at(10), verdict(false)), "withdraw unhealthy");
    assert_eq!(say(&mut site, at(11), verdict(true)), "announce announced", "once is enough");
    assert_eq!(say(&mut site, at(12), In::AddressesRemoved), "withdraw add starting");
    assert_eq!(say(&mut site, at(12), In::AddressesAdded), "verify held", "unless the addresses went away");
}

#[test]
fn a_reload_turns_the_rules_on_and_off() {
    let mut site = with_flap();
    up(&mut site, at(0));
    for _ in 0..6 {
        site.handle_input(at(1), verdict(false));
        site.handle_input(at(1), verdict(true));
    }
    assert_eq!(site.state(), State::Held);
    drained_outputs(&mut site);
    let config = Box::new(SiteConfig { shed_steps: 1, ..SiteConfig::new(DRAIN, AT_ONCE) });
    assert_eq!(say(&mut site, at(2), In::Configure { config }), "announce announced");
    assert_eq!(say(&mut site, at(2), load(true)), "shed1");
    let config = Box::new(SiteConfig::new(DRAIN, AT_ONCE));
    assert_eq!(say(&mut site, at(3), In::Configure { config }), "announce", "a step that is no more is undone");
}
