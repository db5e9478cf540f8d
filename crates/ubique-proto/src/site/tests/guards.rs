//! The last-site guard: every phase with every input, and the cases that matter.

use super::*;

const LAST_SITE: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_secs(30);

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn guarded(full_views: &[Option<bool>]) -> Site {
    let names = ["a", "b", "c"].into_iter().zip(full_views);
    let upstreams = names.map(|(name, full_view)| UpstreamConfig { name: name.into(), full_view: *full_view });
    let guard = Guard { last_site: LAST_SITE, retry: RETRY, start: false };
    Site::new(SiteConfig { guard, upstreams: upstreams.collect(), ..SiteConfig::new(DRAIN, AT_ONCE) })
}

fn sees(upstream: &str, others: Others) -> In {
    In::Others { upstream: upstream.into(), up: true, others }
}

fn down(upstream: &str) -> In {
    In::Others { upstream: upstream.into(), up: false, others: Others::None }
}

fn failed(answers: bool) -> In {
    In::Verdict { level: Level::Failed, answers, cause: "it fails".into() }
}

/// Announced at 0, all upstreams up and silent.
fn announced(full_views: &[Option<bool>]) -> Site {
    let mut site = guarded(full_views);
    for input in [In::Start, In::AddressesAdded] {
        site.handle_input(at(0), input);
    }
    for name in ["a", "b", "c"].into_iter().take(full_views.len()) {
        site.handle_input(at(0), sees(name, Others::None));
    }
    site.handle_input(at(0), verdict(true));
    drained_outputs(&mut site);
    site
}

fn say(site: &mut Site, now: Time, input: In) -> String {
    site.handle_input(now, input);
    brief(&drained_outputs(site))
}

/// Everything it says by itself up to a moment, with the seconds.
fn until(site: &mut Site, end: Time) -> String {
    let mut said = vec![];
    while let Some(now) = site.next_deadline().filter(|now| *now <= end) {
        site.handle_deadline(now);
        assert_ne!(site.next_deadline(), Some(now), "a deadline that stays");
        let outputs = brief(&drained_outputs(site));
        if !outputs.is_empty() {
            said.push(format!("{}: {outputs}", now.since(Time::ZERO).as_secs()));
        }
    }
    said.join(", ")
}

#[test]
fn the_last_one_announces_again_as_last_resort() {
    let mut site = announced(&[Some(true)]);
    assert_eq!(say(&mut site, at(10), failed(false)), "withdraw unhealthy", "at once: nobody answers");
    assert_eq!(until(&mut site, at(100)), "13: resort last-resort alarm");
    assert_eq!(site.status(at(100)).guard.as_deref(), Some("no other site is seen"));
    assert_eq!(say(&mut site, at(101), verdict(true)), "announce announced");
}

#[test]
fn another_site_makes_the_withdrawal_final_until_it_goes() {
    let mut site = announced(&[Some(true)]);
    say(&mut site, at(10), failed(false));
    assert_eq!(say(&mut site, at(11), sees("a", Others::Fit)), "");
    assert_eq!(until(&mut site, at(1000)), "");
    assert_eq!(site.status(at(1000)).guard.as_deref(), Some("a shows another site"));
    assert_eq!(say(&mut site, at(1000), sees("a", Others::None)), "");
    assert_eq!(until(&mut site, at(1100)), "1003: resort last-resort alarm");
}

#[test]
fn a_ghost_that_vanishes_in_time_does_not_count() {
    let mut site = announced(&[Some(true), Some(true)]);
    say(&mut site, at(10), failed(false));
    // Our own route, back from an upstream that has not heard of the withdrawal yet.
    say(&mut site, at(10), sees("b", Others::Fit));
    say(&mut site, at(11), sees("b", Others::None));
    assert_eq!(until(&mut site, at(100)), "14: resort last-resort alarm");
}

#[test]
fn silence_of_an_upstream_that_never_showed_anybody_is_no_proof() {
    let mut site = announced(&[None]);
    assert_eq!(say(&mut site, at(10), failed(false)), "withdraw unhealthy");
    assert_eq!(until(&mut site, at(10_000)), "");
    assert!(site.status(at(99)).guard.unwrap().starts_with("cannot tell whether there are other sites"));
    // Another site comes and goes: now its silence counts.
    say(&mut site, at(10_000), sees("a", Others::Fit));
    say(&mut site, at(10_010), sees("a", Others::None));
    assert_eq!(until(&mut site, at(10_014)), "10013: resort last-resort alarm");
    assert_eq!(site.memory(at(10_014)).shown, [Shown { upstream: "a".into(), moves: false }]);
}

#[test]
fn what_upstreams_have_shown_is_remembered() {
    let memory = Memory { shown: vec![Shown { upstream: "a".into(), moves: true }], ..Memory::default() };
    let mut before = guarded(&[None]);
    before.handle_input(at(0), In::Start);
    let config = SiteConfig { memory, ..before.config().clone() };
    let mut site = Site::new(config);
    for input in [In::Start, In::AddressesAdded, sees("a", Others::None), verdict(true)] {
        site.handle_input(at(0), input);
    }
    drained_outputs(&mut site);
    assert_eq!(say(&mut site, at(10), failed(true)), "resort last-resort", "it moves: make before break");
    assert_eq!(site.memory(at(10)).shown, site.config().memory.shown);
}

#[test]
fn a_wrong_answer_is_make_before_break() {
    let mut site = announced(&[Some(true)]);
    assert_eq!(say(&mut site, at(10), failed(true)), "resort last-resort");
    assert_eq!(say(&mut site, at(10), sees("a", Others::Fit)), "", "the upstream has moved on");
    assert_eq!(until(&mut site, at(100)), "13: withdraw unhealthy");
    assert_eq!(site.status(at(100)).guard.as_deref(), Some("a shows another site"));
    assert_eq!(say(&mut site, at(101), sees("a", Others::None)), "");
    assert_eq!(until(&mut site, at(120)), "104: resort last-resort alarm");
    // Withdrawn in vain once: the next time only after a while.
    say(&mut site, at(121), sees("a", Others::Fit));
    assert_eq!(until(&mut site, at(200)), "134: withdraw unhealthy");
}

#[test]
fn sites_of_last_resort_do_not_give_way_to_each_other() {
    let mut site = announced(&[Some(true)]);
    say(&mut site, at(10), failed(true));
    say(&mut site, at(10), sees("a", Others::LastResort));
    assert_eq!(until(&mut site, at(10_000)), "13: alarm", "nobody who is fit takes over");
    assert_eq!(site.state(), State::LastResort);
    // One that is fit for less than the whole time (it fails by the same check, a little later) changes nothing.
    say(&mut site, at(10_000), sees("a", Others::Fit));
    assert_eq!(until(&mut site, at(10_002)), "");
    say(&mut site, at(10_002), sees("a", Others::LastResort));
    assert_eq!(until(&mut site, at(20_000)), "");
    // A withdrawn one sees that somebody is there, and stays away.
    let mut site = announced(&[Some(true)]);
    say(&mut site, at(10), failed(false));
    say(&mut site, at(11), sees("a", Others::LastResort));
    assert_eq!(until(&mut site, at(10_000)), "");
}

#[test]
fn where_upstreams_do_not_move_a_last_resort_looks_again_with_growing_waits() {
    let mut site = announced(&[None]);
    say(&mut site, at(1), sees("a", Others::Fit));
    say(&mut site, at(2), sees("a", Others::None));
    assert_eq!(say(&mut site, at(10), failed(true)), "withdraw unhealthy", "it does not move: break before make");
    let said = until(&mut site, at(300));
    let expected = "13: resort last-resort alarm, 43: withdraw unhealthy, 46: resort last-resort alarm, \
                    106: withdraw unhealthy, 109: resort last-resort alarm, 229: withdraw unhealthy, 232: resort last-resort alarm";
    assert_eq!(said, expected);
    let mut last = at(300);
    for _ in 0..20 {
        while site.state() == State::LastResort {
            last = site.next_deadline().unwrap();
            site.handle_deadline(last);
        }
        let next = site.next_deadline().unwrap();
        site.handle_deadline(next);
        assert!(next.since(last) == LAST_SITE);
        assert!(site.next_deadline().unwrap().since(next) <= RETRY_MAX);
    }
}

#[test]
fn a_session_that_came_up_a_moment_ago_is_given_time() {
    let mut site = announced(&[Some(true), Some(true)]);
    say(&mut site, at(9), down("b"));
    say(&mut site, at(10), failed(false));
    say(&mut site, at(12), sees("b", Others::None));
    assert_eq!(until(&mut site, at(20)), "15: resort last-resort alarm");
    // Without any session nothing can be said, nor heard.
    let mut site = announced(&[Some(true)]);
    say(&mut site, at(10), failed(false));
    say(&mut site, at(11), down("a"));
    assert_eq!(until(&mut site, at(1000)), "");
}

#[test]
fn pings_tell_where_routes_do_not() {
    let probed = |answered| In::Probed { upstream: "a".into(), answered };
    let mut site = announced(&[Some(false)]);
    assert_eq!(say(&mut site, at(10), failed(true)), "withdraw unhealthy probe-a");
    assert_eq!(say(&mut site, at(13), probed(Ok(false))), "resort last-resort alarm");
    let mut site = announced(&[Some(false)]);
    say(&mut site, at(10), failed(false));
    assert_eq!(say(&mut site, at(11), probed(Ok(true))), "");
    assert_eq!(site.status(at(11)).guard.as_deref(), Some("another site answers through a"));
    assert_eq!(until(&mut site, at(41)), "41: probe-a");
    assert_eq!(say(&mut site, at(44), probed(Ok(false))), "resort last-resort alarm");
    // No ping could be sent, or no answer came from whoever sends them: nothing is known.
    let mut site = announced(&[Some(false)]);
    say(&mut site, at(10), failed(false));
    assert_eq!(say(&mut site, at(10), probed(Err("not permitted".into()))), "");
    assert_eq!(until(&mut site, at(50)), "40: probe-a");
    assert_eq!(until(&mut site, at(80)), "74: probe-a");
}

#[test]
fn what_the_guard_leaves_alone() {
    // Off.
    let mut site = announced(&[Some(true)]);
    let config = SiteConfig { guard: Guard { last_site: AT_ONCE, ..site.config().guard }, ..site.config().clone() };
    site.handle_input(at(1), In::Configure { config: Box::new(config) });
    assert_eq!(say(&mut site, at(10), failed(true)), "withdraw unhealthy");
    assert_eq!(until(&mut site, at(1000)), "");
    // An operator's drain, also of a last resort.
    let mut site = announced(&[Some(true)]);
    assert_eq!(say(&mut site, at(10), drain()), "withdraw drained");
    assert_eq!(until(&mut site, at(1000)), "");
    let mut site = announced(&[Some(true)]);
    say(&mut site, at(10), failed(true));
    assert_eq!(say(&mut site, at(20), drain()), "withdraw drained");
    assert_eq!(until(&mut site, at(1000)), "");
    // A stop.
    let mut site = announced(&[Some(true)]);
    say(&mut site, at(10), failed(true));
    assert_eq!(say(&mut site, at(20), stop()), "withdraw stopping");
    // A site that never served.
    let mut site = guarded(&[Some(true)]);
    for input in [In::Start, In::AddressesAdded, sees("a", Others::None), failed(true)] {
        site.handle_input(at(0), input);
    }
    drained_outputs(&mut site);
    assert_eq!(until(&mut site, at(1000)), "");
}

/// Every phase of the guard with everything that can be seen.
#[test]
fn every_phase_and_every_input() {
    let phases: [(&str, &[In]); 5] = [
        ("fit", &[]),
        ("watching", &[failed(false)]),
        ("watching, another", &[failed(false), sees("a", Others::Fit)]),
        ("resort", &[failed(true)]),
        ("resort, another", &[failed(true), sees("a", Others::Fit)]),
    ];
    let columns = [
        sees("a", Others::None),
        sees("a", Others::LastResort),
        sees("a", Others::Fit),
        down("a"),
        verdict(true),
        failed(false),
        drain(),
        stop(),
        In::AddressesRemoved,
    ];
    const RESORT: &str = "3: resort last-resort alarm";
    const STOPPED: &str = "withdraw stopping 5: remove removing";
    let gone = "withdraw add starting";
    #[rustfmt::skip]
    let table = [
        // after the input, and what the next 10 s bring
        ["", "", "", "", "", "withdraw unhealthy 3: resort last-resort alarm", "withdraw drained", STOPPED, gone],
        [RESORT, "", "", "", "announce announced", RESORT, "drained", "stopping 5: remove removing", "add starting"],
        [RESORT, "", "", "", "announce announced", "", "drained", "stopping 5: remove removing", "add starting"],
        ["3: alarm", "3: alarm", "3: withdraw unhealthy", "3: alarm", "announce announced", "3: alarm", "withdraw drained", STOPPED, gone],
        ["3: alarm", "3: alarm", "3: withdraw unhealthy", "3: alarm", "announce announced", "3: withdraw unhealthy", "withdraw drained", STOPPED, gone],
    ];
    for ((phase, inputs), row) in phases.iter().zip(table) {
        for (input, expected) in columns.iter().zip(row) {
            let mut site = announced(&[Some(true)]);
            // Sessions are up long enough.
            for input in *inputs {
                site.handle_input(at(100), input.clone());
            }
            drained_outputs(&mut site);
            let mut said = vec![say(&mut site, at(100), input.clone())];
            while let Some(now) = site.next_deadline().filter(|now| *now <= at(110)) {
                site.handle_deadline(now);
                let outputs = brief(&drained_outputs(&mut site));
                said.push(format!("{}: {outputs}", now.since(at(100)).as_secs()));
            }
            said.retain(|words| !words.is_empty());
            assert_eq!(said.join(" "), expected, "{phase}: {input:?}");
        }
    }
}
