//! Random inputs in random order: no panic, and what must always hold.

use super::*;

/// What is fed next.
fn input(rng: &mut Rng, now: Time, numbers: &[u32]) -> In {
    let session = SessionId(rng.below(3) as u32);
    let from = Remote {
        address: Ipv4Addr::new(192, 0, 2, 1 + rng.below(4) as u8).into(),
        scope: 0,
        multihop: rng.below(8) == 0,
    };
    let config = SessionConfig {
        remote: from,
        interval: MS * rng.below(100) as u32,
        receive: MS * rng.below(100) as u32,
        multiplier: rng.below(5) as u8,
        ttl_min: 255,
        role: if rng.below(3) == 0 { Role::Passive } else { Role::Active },
    };
    match rng.below(30) {
        0 => In::Add { session, config },
        1 => In::Remove { session },
        2 => {
            In::Configure { session, interval: config.interval, receive: config.receive, multiplier: config.multiplier }
        }
        3 => In::Disable { session },
        4 | 5 => In::Enable { session },
        6 if rng.below(2) == 0 => In::Resume { session, carried: carried(rng, from, now) },
        7 => In::Datagram {
            from,
            ttl: Some(255),
            received: now,
            bytes: (0..rng.below(40)).map(|_| rng.next_u64() as u8).collect(),
        },
        _ => {
            let number = if rng.below(4) == 0 { 0 } else { numbers.get(rng.below(4) as usize).copied().unwrap_or(9) };
            let control = Control {
                diagnostic: Diagnostic::new(rng.next_u64() as u8),
                state: State::of(rng.below(4)),
                poll: rng.below(4) == 0,
                final_bit: rng.below(4) == 0,
                control_independent: rng.below(2) == 0,
                demand: rng.below(8) == 0,
                multiplier: rng.below(6) as u8,
                my_discriminator: rng.below(3) as u32,
                your_discriminator: number,
                desired_min_tx_us: [0, 1, 10_000, 50_000, u32::MAX][rng.below(5) as usize],
                required_min_rx_us: [0, 1, 10_000, 50_000, u32::MAX][rng.below(5) as usize],
                required_min_echo_rx_us: rng.next_u64() as u32,
            };
            let received = Time(now.0.saturating_sub(rng.below(100_000_000)));
            In::Datagram { from, ttl: Some(255), received, bytes: control.encode().to_vec() }
        }
    }
}

fn carried(rng: &mut Rng, remote: Remote, now: Time) -> Carried {
    Carried {
        remote,
        discriminator: rng.below(3) as u32,
        remote_discriminator: rng.below(3) as u32,
        remote_desired_min_tx_us: [0, 50_000, u32::MAX][rng.below(3) as usize],
        remote_required_min_rx_us: [0, 50_000, u32::MAX][rng.below(3) as usize],
        remote_multiplier: rng.below(6) as u8,
        required_min_rx_us: [0, 50_000, u32::MAX][rng.below(3) as usize],
        until: Time((now.0 + rng.below(200_000_000)).saturating_sub(100_000_000)),
    }
}

impl State {
    fn of(number: u64) -> State {
        [State::AdminDown, State::Down, State::Init, State::Up][number as usize % 4]
    }
}

fn invariants(seed: u64, bfd: &Bfd, now: Time) {
    assert!(bfd.by_remote.len() == bfd.sessions.len() && bfd.by_discriminator.len() == bfd.sessions.len());
    for (id, session) in &bfd.sessions {
        let status = session.status();
        let heard = status.remote_state.is_some();
        assert!(
            heard || !matches!(status.state, State::Init | State::Up),
            "seed {seed}: {id:?} up without a neighbour"
        );
        assert!(status.counters.downs <= status.counters.ups, "seed {seed}");
        if session.state != State::Up {
            assert!(status.interval >= SLOW_INTERVAL, "seed {seed}: fast while not Up");
        }
        if heard {
            assert!(session.deadline().is_some(), "seed {seed}: a neighbour nobody watches");
        }
    }
    assert!(bfd.next_deadline().is_none_or(|at| at > now), "seed {seed}: a deadline that is not met");
}

#[test]
fn random_sequences() {
    for seed in 0..3000 {
        let mut rng = Rng::new(seed);
        let mut bfd = Bfd::new(seed);
        let mut now = Time(1_000_000_000);
        let mut states: BTreeMap<SessionId, State> = BTreeMap::new();
        for _ in 0..200 {
            let numbers: Vec<u32> = bfd.by_discriminator.keys().copied().collect();
            let input = input(&mut rng, now, &numbers);
            if let In::Add { session, .. } | In::Remove { session } = &input
                && (matches!(input, In::Remove { .. }) || !bfd.sessions.contains_key(session))
            {
                states.remove(session);
            }
            bfd.handle_input(now, input);
            if rng.below(3) == 0 {
                now = now + Duration::from_nanos(rng.below(200_000_000));
            }
            // A driver calls until nothing is due.
            let mut calls = 0;
            while bfd.next_deadline().is_some_and(|at| at <= now) {
                bfd.handle_deadline(now);
                calls += 1;
                assert!(calls < 4, "seed {seed}: a deadline that does not move");
            }
            while let Some(out) = bfd.poll_output() {
                match out {
                    Out::Send { bytes, .. } => {
                        let (control, _) = Control::decode(&bytes).unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
                        assert!(!(control.poll && control.final_bit), "seed {seed}: both P and F");
                    }
                    Out::State { session, from, to, .. } => {
                        let before = states.insert(session, to).unwrap_or(State::Down);
                        assert_eq!(before, from, "seed {seed}: changes follow each other");
                        assert_ne!(from, to, "seed {seed}");
                    }
                    Out::Notice { .. } => {}
                }
            }
            invariants(seed, &bfd, now);
        }
    }
}
