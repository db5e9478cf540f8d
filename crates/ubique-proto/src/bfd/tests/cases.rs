//! Named cases: timers, polls, roles, stalls, what is refused.

use super::*;

#[test]
fn a_silent_neighbour_is_lost_after_the_detection_time_and_not_before() {
    let mut hand = Hand::up(config());
    let heard = hand.now;
    hand.say(State::Up);
    hand.drive(150 * MS - Duration::from_nanos(1));
    assert_eq!(hand.state(), State::Up);
    let sent = hand.drive(Duration::from_nanos(1));
    assert_eq!(hand.states, [(State::Up, State::Down, Cause::DetectionTimeExpired)]);
    assert_eq!(hand.now, heard + 150 * MS);
    let (_, last) = sent.last().unwrap();
    assert_eq!((last.state, last.diagnostic), (State::Down, Diagnostic::DETECTION_TIME_EXPIRED));
    assert_eq!((last.your_discriminator, last.poll), (0, false), "it may come back under another number");
    assert_eq!(last.desired_min_tx_us, 1_000_000, "slow while not Up");
    assert_eq!(hand.status().counters.downs, 1);
}

#[test]
fn the_slower_side_of_each_direction_counts() {
    let mut hand = Hand::up(SessionConfig { interval: 20 * MS, receive: 100 * MS, ..config() });
    assert_eq!(hand.status().interval, 50 * MS, "their Required Min RX");
    assert_eq!(hand.status().detection_time, Some(300 * MS), "our Required Min RX, their Detect Mult");
    assert_eq!(hand.status().remote_detection_time, Some(150 * MS));
    hand.control.desired_min_tx_us = 400_000;
    hand.control.multiplier = 2;
    hand.say(State::Up);
    assert_eq!(hand.status().detection_time, Some(800 * MS));
}

#[test]
fn packets_are_jittered_and_never_slower_than_agreed() {
    for (multiplier, most) in [(3, 50 * MS), (1, 45 * MS)] {
        let mut hand = Hand::up(SessionConfig { multiplier, ..config() });
        let mut times = Vec::new();
        for _ in 0..400 {
            hand.say(State::Up);
            times.extend(hand.drive(10 * MS).into_iter().map(|(at, _)| at));
        }
        let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.len() > 60);
        assert!(gaps.iter().all(|gap| (75 * 50 * MS / 100..=most).contains(gap)), "{gaps:?}");
        let (least, longest) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(*longest - *least > 5 * MS, "they differ: {least:?} to {longest:?}");
    }
}

#[test]
fn sessions_of_one_interval_soon_leave_together() {
    const SESSIONS: u32 = 8;
    let mut bfd = Bfd::new(1);
    let mut packets: BTreeMap<u32, Vec<Time>> = BTreeMap::new();
    let mut drive = |bfd: &mut Bfd, end: Time| {
        while let Some(now) = bfd.next_deadline().filter(|at| *at <= end) {
            bfd.handle_deadline(now);
            while let Some(out) = bfd.poll_output() {
                let Out::Send { session, .. } = out else { continue };
                packets.entry(session.0).or_default().push(now);
            }
        }
    };
    for n in 0..SESSIONS {
        let now = Time::ZERO + n * 130 * MS;
        drive(&mut bfd, now);
        let remote = Remote { address: IpAddr::from([192, 0, 2, n as u8 + 1]), ..config().remote };
        bfd.handle_input(now, In::Add { session: SessionId(n), config: SessionConfig { remote, ..config() } });
    }
    drive(&mut bfd, Time::ZERO + Duration::from_secs(120));
    for times in packets.values() {
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.into_iter().all(|gap| (750 * MS..=1000 * MS).contains(&gap)), "{times:?}");
    }
    let late =
        |times: &Vec<Time>| times.iter().copied().filter(|t| *t > Time::ZERO + Duration::from_secs(60)).collect();
    let late: BTreeSet<Vec<Time>> = packets.values().map(late).collect();
    assert_eq!((packets.len() as u32, late.len()), (SESSIONS, 1), "all at the same moments: {late:?}");
}

#[test]
fn at_most_one_packet_a_second_while_not_up() {
    let mut hand = Hand::new(config());
    let sent = hand.drive(Duration::from_secs(20));
    assert!((20..=27).contains(&sent.len()), "{}", sent.len());
    assert!(sent.iter().all(|(_, c)| c.state == State::Down && c.desired_min_tx_us == 1_000_000));
    assert!(sent.iter().all(|(_, c)| !c.control_independent && !c.demand && c.required_min_echo_rx_us == 0));
}

#[test]
fn a_passive_side_waits_to_be_spoken_to() {
    let mut hand = Hand::new(SessionConfig { role: Role::Passive, ..config() });
    assert_eq!(hand.drive(Duration::from_secs(5)), []);
    assert_eq!(hand.bfd.next_deadline(), None);
    let sent = hand.say(State::Down);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].state, sent[0].your_discriminator), (State::Init, 77));
    hand.drive(Duration::from_secs(5));
    assert_eq!(hand.state(), State::Down);
    assert_eq!(hand.bfd.next_deadline(), None, "silent again when the neighbour is gone");
}

#[test]
fn a_poll_is_answered_at_once_and_only_then() {
    let mut hand = Hand::up(config());
    assert_eq!(hand.say(State::Up), []);
    hand.control.poll = true;
    let sent = hand.say(State::Up);
    assert_eq!(sent.iter().map(|c| (c.poll, c.final_bit)).collect::<Vec<_>>(), [(false, true)]);
}

#[test]
fn new_parameters_are_polled_for_and_used_when_they_may_be() {
    let mut hand = Hand::up(config());
    let slower = |hand: &mut Hand, interval: Duration, receive: Duration| {
        hand.input(In::Configure { session: S, interval, receive, multiplier: 3 });
    };
    slower(&mut hand, 200 * MS, 20 * MS);
    hand.control.desired_min_tx_us = 10_000;
    hand.say(State::Up);
    let sent = hand.drive(60 * MS);
    assert!(sent.iter().all(|(_, c)| c.poll && c.desired_min_tx_us == 200_000 && c.required_min_rx_us == 20_000));
    assert!(!sent.is_empty(), "not slower before the neighbour knows");
    assert_eq!(hand.status().detection_time, Some(150 * MS), "not faster before the neighbour knows");
    hand.control.final_bit = true;
    hand.say(State::Up);
    hand.control.final_bit = false;
    assert_eq!((hand.status().interval, hand.status().detection_time), (200 * MS, Some(60 * MS)));
    hand.control.desired_min_tx_us = 1_000_000;
    hand.say(State::Up);
    assert!(hand.drive(400 * MS).iter().all(|(_, c)| !c.poll), "the sequence is over");
    // Changed again while polled for: the answer may be to the first, so another sequence follows.
    slower(&mut hand, 300 * MS, 20 * MS);
    slower(&mut hand, 400 * MS, 20 * MS);
    hand.control.final_bit = true;
    hand.say(State::Up);
    assert_eq!(hand.status().interval, 200 * MS);
    hand.say(State::Up);
    assert_eq!(hand.status().interval, 400 * MS);
}

#[test]
fn a_neighbour_that_takes_nothing_gets_nothing() {
    let mut hand = Hand::up(config());
    hand.control.required_min_rx_us = 0;
    hand.say(State::Up);
    assert_eq!(hand.drive(140 * MS), []);
    hand.control.required_min_rx_us = 50_000;
    hand.say(State::Up);
    assert!(!hand.drive(60 * MS).is_empty());
}

#[test]
fn demand_mode_of_a_neighbour_is_obeyed_and_told_of() {
    let mut hand = Hand::up(config());
    hand.control.demand = true;
    hand.say(State::Up);
    assert_eq!(hand.notices, [Notice::Demand]);
    assert_eq!(hand.drive(140 * MS), [], "no periodic packets (RFC 5880 §6.6)");
    hand.control.poll = true;
    assert_eq!(hand.say(State::Up).len(), 1, "polls are answered");
    hand.control.poll = false;
    hand.input(In::Configure { session: S, interval: 60 * MS, receive: 60 * MS, multiplier: 3 });
    assert!(hand.drive(100 * MS).iter().all(|(_, c)| c.poll), "a Poll Sequence of our own runs all the same");
    assert_eq!(hand.notices, [Notice::Demand], "once");
    hand.drive(500 * MS);
    assert_eq!(hand.state(), State::Down, "its silence is still a loss: we asked for nothing");
    assert!(!hand.drive(Duration::from_secs(2)).is_empty(), "demand ends with Up");
}

#[test]
fn admin_down_of_the_neighbour_is_known_as_such() {
    let mut hand = Hand::up(config());
    hand.say(State::AdminDown);
    assert_eq!(hand.states, [(State::Up, State::Down, Cause::NeighbourAdminDown)]);
    hand.drive(Duration::from_secs(1));
    hand.say(State::Down);
    hand.say(State::Init);
    assert_eq!(hand.state(), State::Up, "it is let up again");
}

#[test]
fn admin_down_of_ours_is_told_at_once_and_for_as_long_as_it_lasts() {
    let mut hand = Hand::up(config());
    let sent = hand.input(In::Disable { session: S });
    assert_eq!((sent[0].state, sent[0].diagnostic), (State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN));
    assert_eq!(hand.input(In::Disable { session: S }), []);
    for _ in 0..10 {
        hand.say(State::Down);
        assert!(hand.drive(Duration::from_secs(1)).iter().all(|(_, c)| c.state == State::AdminDown));
    }
    assert!(hand.status().counters.sent > 8);
    let sent = hand.input(In::Enable { session: S });
    assert_eq!(sent[0].state, State::Down);
    hand.say(State::Down);
    hand.say(State::Init);
    assert_eq!(hand.state(), State::Up);
}

/// The process was paused for 10 s; the kernel kept what came meanwhile.
#[test]
fn packets_that_waited_count_as_heard_when_they_arrived() {
    let mut hand = Hand::up(config());
    let paused = hand.now;
    hand.control.state = State::Up;
    let bytes = hand.control.encode().to_vec();
    hand.now = paused + Duration::from_secs(10);
    for n in 1..=200 {
        hand.datagram(remote(), Some(255), paused + 50 * MS * n, bytes.clone());
    }
    hand.drive(100 * MS);
    assert_eq!(hand.state(), State::Up);
    assert_eq!(hand.status().counters.stalls, 0);
    hand.drive(50 * MS);
    assert_eq!(hand.state(), State::Down, "150 ms after the last arrival");
}

/// The machine was paused: nothing came, or the queue was full.
#[test]
fn a_stall_gives_the_neighbour_one_more_detection_time_and_no_third() {
    let mut hand = Hand::up(config());
    for late in [Duration::from_secs(10), Duration::from_secs(5)] {
        hand.now = hand.now + late;
        hand.bfd.handle_deadline(hand.now);
        hand.outputs();
        let first = late == Duration::from_secs(10);
        assert_eq!(hand.state(), if first { State::Up } else { State::Down });
    }
    assert_eq!(hand.status().counters.stalls, 1);
    // Heard again in time: nothing happened.
    let mut hand = Hand::up(config());
    hand.now = hand.now + Duration::from_secs(10);
    hand.bfd.handle_deadline(hand.now);
    hand.outputs();
    hand.drive(149 * MS);
    hand.say(State::Up);
    hand.drive(149 * MS);
    assert_eq!(hand.state(), State::Up);
    // A dead neighbour is found one detection time after the stall.
    hand.drive(MS);
    assert_eq!(hand.state(), State::Down);
    // A short delay is no stall.
    let mut hand = Hand::up(config());
    hand.drive(145 * MS);
    hand.now = hand.now + 49 * MS;
    hand.bfd.handle_deadline(hand.now);
    assert_eq!(hand.state(), State::Down);
}

#[test]
fn a_time_of_arrival_in_the_future_is_now_and_an_older_one_does_not_turn_time_back() {
    let mut hand = Hand::up(config());
    hand.control.state = State::Up;
    let bytes = hand.control.encode().to_vec();
    hand.datagram(remote(), Some(255), hand.now + Duration::from_secs(60), bytes.clone());
    hand.datagram(remote(), Some(255), Time(5), bytes);
    hand.drive(149 * MS);
    assert_eq!(hand.state(), State::Up);
    hand.drive(MS);
    assert_eq!(hand.state(), State::Down);
}

#[test]
fn a_neighbour_that_restarts_under_another_number_comes_back() {
    let mut hand = Hand::up(config());
    hand.control.my_discriminator = 78;
    hand.control.your_discriminator = 0;
    hand.say(State::Down);
    assert_eq!(hand.states, [(State::Up, State::Down, Cause::NeighbourDown)]);
    hand.say(State::Down);
    hand.say(State::Init);
    assert_eq!(hand.state(), State::Up);
}

/// Slowed down, carried over a pause of 2 s and taken up by another program: the neighbour, who bears 3 s, sees one session.
#[test]
fn another_program_goes_on_with_a_session() {
    let mut old = Hand::up(config());
    old.input(In::Configure { session: S, interval: SLOW_INTERVAL, receive: 50 * MS, multiplier: 3 });
    assert!(old.bfd.is_polling());
    let polled = old.drive(50 * MS);
    assert!(polled.iter().all(|(_, c)| c.poll && c.desired_min_tx_us == 1_000_000), "{polled:?}");
    old.control.final_bit = true;
    old.say(State::Up);
    assert!(!old.bfd.is_polling());
    let carried = old.bfd.carried(old.now);
    let [one] = carried[..] else { panic!("{carried:?}") };
    assert!(one.until > old.now + 2900 * MS && one.until <= old.now + 3000 * MS);

    let mut new = Hand::new(config());
    new.now = old.now + 2000 * MS;
    new.bfd = Bfd::new(8);
    new.bfd.handle_input(new.now, In::Add { session: S, config: config() });
    let sent = new.input(In::Resume { session: S, carried: one });
    assert_eq!(new.states, [(State::Down, State::Up, Cause::Resumed)]);
    let first = sent[0];
    assert_eq!((first.state, first.poll, first.my_discriminator), (State::Up, true, one.discriminator));
    assert_eq!((first.your_discriminator, first.desired_min_tx_us), (77, 50_000), "as configured again, by a poll");
    new.control.final_bit = true;
    new.say(State::Up);
    assert_eq!((new.status().interval, new.status().detection_time), (50 * MS, Some(150 * MS)));
    assert_eq!(new.status().counters.downs, 0);
    new.drive(150 * MS);
    assert_eq!(new.state(), State::Down, "silence is a loss as before");
}

#[test]
fn what_cannot_go_on_begins_anew() {
    let old = Hand::up(config());
    let good = old.bfd.carried(old.now)[0];
    let other = Remote { scope: 7, ..remote() };
    let wrong = [
        Carried { until: old.now, ..good },
        Carried { remote: other, ..good },
        Carried { discriminator: 0, ..good },
        Carried { remote_discriminator: 0, ..good },
    ];
    for carried in wrong {
        let mut new = Hand::new(config());
        assert!(new.input(In::Resume { session: S, carried }).is_empty());
        assert_eq!((new.state(), &new.states[..]), (State::Down, &[][..]), "{carried:?}");
    }
    let mut heard = Hand::up(config());
    heard.input(In::Resume { session: S, carried: Carried { discriminator: 5, ..good } });
    assert!(heard.states.is_empty() && !heard.bfd.by_discriminator.contains_key(&5));
    assert!(Hand::new(config()).bfd.carried(old.now).is_empty(), "only what is Up");
}

#[test]
fn numbers_of_sessions_are_unique_and_sessions_are_bounded() {
    let mut bfd = Bfd::new(3);
    for n in 0..2000_u32 {
        let remote = Remote { address: Ipv4Addr::from(n).into(), ..remote() };
        bfd.handle_input(Time(1), In::Add { session: SessionId(n), config: SessionConfig { remote, ..config() } });
    }
    assert_eq!(bfd.sessions.len(), SESSIONS_MAX);
    assert_eq!(bfd.by_discriminator.len(), SESSIONS_MAX);
    assert!(!bfd.by_discriminator.contains_key(&0));
    let again = In::Add {
        session: SessionId(5000),
        config: SessionConfig { remote: bfd.sessions[&S].config.remote, ..config() },
    };
    bfd.handle_input(Time(1), In::Remove { session: SessionId(9) });
    bfd.handle_input(Time(1), again);
    assert_eq!(bfd.sessions.len(), SESSIONS_MAX - 1, "one session for each neighbour");
}

#[test]
fn several_hops_are_counted() {
    let over = Remote { multihop: true, ..remote() };
    let mut hand = Hand::new(SessionConfig { remote: over, ttl_min: 253, ..config() });
    hand.drive(Duration::ZERO);
    let bytes = hand.control.encode().to_vec();
    for (ttl, state) in [(252, State::Down), (253, State::Init)] {
        hand.datagram(over, Some(ttl), hand.now, bytes.clone());
        assert_eq!(hand.state(), state);
    }
}

#[test]
fn inputs_and_outputs_can_be_recorded() {
    let input = In::Datagram { from: remote(), ttl: Some(255), received: Time(3), bytes: vec![1, 2] };
    let text = serde_json::to_string(&input).unwrap();
    assert_eq!(serde_json::from_str::<In>(&text).unwrap(), input);
    let mut hand = Hand::up(config());
    hand.bfd.handle_input(hand.now, In::Disable { session: S });
    while let Some(out) = hand.bfd.poll_output() {
        let text = serde_json::to_string(&out).unwrap();
        assert_eq!(serde_json::from_str::<Out>(&text).unwrap(), out);
    }
}

#[test]
fn a_passive_side_that_is_disabled_tells_whoever_comes() {
    let mut hand = Hand::new(SessionConfig { role: Role::Passive, ..config() });
    assert_eq!(hand.input(In::Disable { session: S }), []);
    assert_eq!(hand.drive(Duration::from_secs(5)), []);
    hand.say(State::Down);
    let told = |hand: &mut Hand| {
        let sent = hand.drive(Duration::from_secs(1));
        !sent.is_empty() && sent.iter().all(|(_, c)| (c.state, c.your_discriminator) == (State::AdminDown, 77))
    };
    assert!(told(&mut hand));
    // Its router was away for longer than the detection time.
    hand.drive(Duration::from_secs(10));
    assert_eq!(hand.drive(Duration::from_secs(5)), []);
    hand.say(State::Down);
    assert!(told(&mut hand));
    // It wants fewer.
    hand.control.required_min_rx_us = 3_000_000;
    hand.say(State::Down);
    assert_eq!(hand.drive(Duration::from_secs(2)), []);
}
