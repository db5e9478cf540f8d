use super::*;

const MS: u64 = 1_000_000;

fn at(ms: u64) -> Time {
    Time(ms * MS)
}

fn request(within_s: u64) -> Request {
    Request {
        who: "local".into(),
        reason: "disks".into(),
        within: Duration::from_secs(within_s),
        prepend: 3,
        hook: true,
        watch: Duration::from_secs(10),
        carried: false,
    }
}

fn sample(packets: u64, senders: &[(&str, u64)]) -> In {
    sample_with(packets, 2, senders)
}

fn sample_with(packets: u64, connections: u64, senders: &[(&str, u64)]) -> In {
    let sender = |(prefix, packets): &(&str, u64)| Sender {
        prefix: prefix.parse().expect("a prefix"),
        packets: *packets,
        uncertain: 0,
    };
    In::Sample(Sample {
        window: SAMPLE_EVERY,
        packets,
        connections: Some(connections),
        clients: vec![Client { prefix: "203.0.113.0/24".parse().expect("a prefix"), connections }],
        senders: senders.iter().map(sender).collect(),
    })
}

fn outputs(drain: &mut Drain) -> Vec<Out> {
    std::iter::from_fn(|| drain.poll_output()).collect()
}

fn stages(outputs: &[Out]) -> Vec<Stage> {
    outputs.iter().filter_map(|out| if let Out::Stage { stage, .. } = out { Some(*stage) } else { None }).collect()
}

/// Two samples of 1,000 packets, then the drain is leaving.
fn leaving(within_s: u64) -> Drain {
    let mut drain = Drain::default();
    drain.handle_input(at(0), In::Begin(request(within_s)));
    let begun = outputs(&mut drain);
    assert!(begun.contains(&Out::Count(true)) && begun.contains(&Out::Hook), "{begun:?}");
    assert_eq!(stages(&begun), [Stage::Measuring]);
    assert_eq!(drain.prepend(), 0);
    drain.handle_input(at(500), sample(1000, &[]));
    assert_eq!(outputs(&mut drain), []);
    drain.handle_input(at(1000), sample(1000, &[]));
    let left = outputs(&mut drain);
    assert_eq!(stages(&left), [Stage::Leaving]);
    assert!(left.contains(&Out::Leave { within: Duration::from_secs(within_s) }));
    assert_eq!(
        (drain.prepend(), drain.progress().and_then(|p| p.before.cloned())),
        (3, Some(Traffic { packets_per_s: 2000.0, connections: Some(2) }))
    );
    drain
}

#[test]
fn quiet_traffic_is_withdrawn_and_proved_gone() {
    let mut drain = leaving(60);
    drain.handle_input(at(1500), sample(700, &[]));
    // 1 packet in 500 ms is 2 a second: 0.1 % of 2,000.
    for step in 0..3 {
        drain.handle_input(at(2000 + step * 500), sample(1, &[]));
        assert_eq!(outputs(&mut drain), [], "{step}");
    }
    drain.handle_input(at(3500), sample(0, &[]));
    assert_eq!(outputs(&mut drain), [Out::Withdraw]);
    drain.handle_input(at(3600), In::Withdrawn);
    assert_eq!(stages(&outputs(&mut drain)), [Stage::Withdrawn]);
    assert_eq!(drain.prepend(), 0);
    for step in 0..3 {
        drain.handle_input(at(4000 + step * 500), sample(0, &[]));
        assert_eq!(outputs(&mut drain), [], "{step}");
    }
    drain.handle_input(at(5700), sample(0, &[]));
    let over = outputs(&mut drain);
    assert_eq!(stages(&over), [Stage::Over]);
    assert!(over.contains(&Out::Count(false)));
    let progress = drain.progress().expect("there was one");
    assert_eq!(progress.took, Some(Duration::from_millis(5700)));
    assert_eq!(progress.gone_after, Some(Duration::from_millis(1500)));
    assert!(!drain.is_active());
}

#[test]
fn a_zombie_is_named_and_ends_the_watch_by_the_clock() {
    let mut drain = leaving(5);
    // The site core withdraws when the time is over; the drain learns of it.
    drain.handle_input(at(6000), In::Withdrawn);
    outputs(&mut drain);
    for step in 1..=19 {
        drain.handle_input(at(6000 + step * 500), sample(50, &[("203.0.113.0/24", 40), ("192.0.2.0/24", 10)]));
    }
    assert_eq!(outputs(&mut drain), []);
    assert_eq!(drain.next_deadline(), Some(at(16_000)));
    drain.handle_deadline(at(16_000));
    assert_eq!(stages(&outputs(&mut drain)), [Stage::Over]);
    let progress = drain.progress().expect("there was one");
    assert_eq!(progress.gone_after, None);
    let named: Vec<_> = progress.senders.iter().map(|(s, rate)| (s.prefix.to_string(), *rate)).collect();
    assert_eq!(named, [("203.0.113.0/24".to_owned(), 80.0), ("192.0.2.0/24".to_owned(), 20.0)]);
}

#[test]
fn without_counters_it_goes_by_the_clock() {
    let mut drain = Drain::default();
    drain.handle_input(at(0), In::Begin(request(5)));
    outputs(&mut drain);
    drain.handle_input(at(1), In::Uncounted("no CAP_NET_RAW".into()));
    assert_eq!(stages(&outputs(&mut drain)), [Stage::Leaving]);
    drain.handle_input(at(5001), In::Withdrawn);
    assert_eq!(stages(&outputs(&mut drain)), [Stage::Withdrawn, Stage::Over]);
    let progress = drain.progress().expect("there was one");
    assert_eq!((progress.uncounted, progress.gone_after), (Some("no CAP_NET_RAW"), None));
}

/// What other sites send back keeps a withdrawn site busy until the last connection has ended, silent ones too.
#[test]
fn connections_that_live_on_are_waited_for() {
    let mut drain = leaving(60);
    drain.request.as_mut().expect("it began").carried = true;
    drain.handle_input(at(2000), In::Withdrawn);
    outputs(&mut drain);
    for step in 0..12 {
        let packets = if step < 6 { 900 } else { 0 };
        drain.handle_input(at(2500 + step * 500), sample_with(packets, 7, &[]));
    }
    assert_eq!(outputs(&mut drain), []);
    let progress = drain.progress().expect("there is one");
    assert_eq!((progress.gone_after, progress.clients[0].connections), (None, 7));
    drain.handle_input(at(8500), sample_with(0, 0, &[]));
    assert_eq!(stages(&outputs(&mut drain)), [Stage::Over]);
    assert!(drain.progress().is_some_and(|p| p.gone_after.is_some()));

    // Somebody keeps his open for longer than anybody watches.
    let mut drain = leaving(60);
    drain.request.as_mut().expect("it began").carried = true;
    drain.handle_input(at(2000), In::Withdrawn);
    outputs(&mut drain);
    for step in 0..19 {
        drain.handle_input(at(2500 + step * 500), sample_with(0, 1, &[]));
    }
    drain.handle_deadline(at(12_000));
    let over = outputs(&mut drain);
    let cause = |out: &Out| matches!(out, Out::Stage { cause, .. } if cause == "connections are still open");
    assert!(over.iter().any(cause), "{over:?}");
    assert_eq!(drain.progress().and_then(|p| p.gone_after), None);
}

#[test]
fn a_restart_of_the_agent_goes_on_withdrawn() {
    let (lasted, withdrawn) = (Duration::from_secs(60), Duration::from_secs(4));
    let before = Some(Traffic { packets_per_s: 2000.0, connections: Some(1000) });
    let request = Request { carried: true, ..request(60) };
    let mut drain = Drain::default();
    drain.handle_input(at(100_000), In::Resume(Resumed { request, lasted, withdrawn, before: before.clone() }));
    let begun = outputs(&mut drain);
    assert_eq!((stages(&begun), begun.contains(&Out::Count(true))), (vec![Stage::Withdrawn], true));
    assert!(!begun.contains(&Out::Hook), "the service was told already");
    let progress = drain.progress().expect("it goes on");
    assert_eq!((progress.began, progress.since, progress.before), (at(40_000), at(96_000), before.as_ref()));
    assert_eq!(drain.next_deadline(), Some(at(106_000)));
    for step in 0..4 {
        drain.handle_input(at(100_500 + step * 500), sample_with(0, 0, &[]));
    }
    assert_eq!(stages(&outputs(&mut drain)), [Stage::Over]);
}

#[test]
fn samples_that_do_not_come_hold_nothing_up() {
    let mut drain = Drain::default();
    drain.handle_input(at(0), In::Begin(request(5)));
    outputs(&mut drain);
    drain.handle_deadline(at(4000));
    assert_eq!(stages(&outputs(&mut drain)), [Stage::Leaving]);
}

#[test]
fn a_site_that_is_wanted_back_ends_it() {
    let mut drain = leaving(60);
    drain.handle_input(at(2000), In::Undrained);
    let out = outputs(&mut drain);
    assert_eq!(stages(&out), [Stage::Abandoned]);
    assert!(out.contains(&Out::Count(false)));
    for late in [sample(1, &[]), In::Withdrawn, In::Hook(Ok(())), In::Uncounted(String::new()), In::Undrained] {
        drain.handle_input(at(3000), late);
    }
    assert_eq!((outputs(&mut drain), drain.next_deadline()), (vec![], None));
}

#[test]
fn traffic_that_comes_back_is_not_gone() {
    let mut drain = leaving(60);
    for step in 0..10 {
        let packets = if step % 4 == 3 { 900 } else { 0 };
        drain.handle_input(at(1500 + step * 500), sample(packets, &[]));
    }
    assert_eq!(outputs(&mut drain), []);
}

/// Any sequence of inputs: counting is on exactly while it is active, and it ends.
#[test]
fn random_inputs_keep_counting_and_stage_together() {
    for seed in 1..=500u64 {
        let mut rng = crate::rng::Rng::new(seed);
        let mut drain = Drain::default();
        let (mut now, mut counting) = (0, false);
        for _ in 0..200 {
            now += rng.below(2000);
            let carried = rng.below(2) == 0;
            let input = match rng.below(9) {
                0 => In::Begin(Request { carried, ..request(rng.below(20)) }),
                8 => In::Resume(Resumed {
                    request: Request { carried, ..request(9) },
                    lasted: Duration::from_millis(rng.below(9000)),
                    withdrawn: Duration::from_millis(rng.below(9000)),
                    before: None,
                }),
                1 => In::Uncounted("x".into()),
                2 => In::Hook(Err("x".into())),
                3 => In::Withdrawn,
                4 => In::Undrained,
                _ => sample(rng.below(3) * 500, &[("203.0.113.0/24", 1)]),
            };
            drain.handle_deadline(at(now));
            drain.handle_input(at(now), input);
            for out in outputs(&mut drain) {
                if let Out::Count(on) = out {
                    counting = on;
                }
            }
            assert_eq!(counting, drain.is_active(), "seed {seed} at {now}");
            assert!(drain.progress().is_none_or(|p| p.senders.len() <= NAMED), "seed {seed}");
        }
        // Only the site core ends a leaving site; all else ends by itself.
        drain.handle_input(at(now), In::Withdrawn);
        while let Some(deadline) = drain.next_deadline() {
            drain.handle_deadline(deadline);
        }
        assert!(!drain.is_active() || drain.stage() == Some(Stage::Leaving), "seed {seed}");
    }
}
