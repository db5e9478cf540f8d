//! BFD packets, and its core under any sequence of inputs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ubique_proto::Time;
use ubique_proto::bfd::packet::{CONTROL_BYTES, Control, Diagnostic, State};
use ubique_proto::bfd::{Bfd, Carried, In, Out, Remote, Role, SLOW_INTERVAL, SessionConfig, SessionId};

use crate::rng::{Rng, feed};

/// Inputs of one run.
const STEPS: usize = 300;
/// Deadlines at one moment: a session has a few timers, and there are three sessions.
const CALLS: usize = 16;

/// What is known from outside.
#[derive(Default)]
struct Seen {
    states: BTreeMap<SessionId, State>,
    /// The numbers we go by.
    discriminators: Vec<u32>,
}

/// Octets: sessions, then packets, wishes and waits.
pub(crate) fn bfd(input: &[u8]) {
    let mut rng = feed(input);
    let mut bfd = Bfd::new(rng.next_u64());
    let mut now = Time(1_000_000_000);
    let mut seen = Seen::default();
    for _ in 0..STEPS {
        if rng.is_empty() {
            break;
        }
        let input = any(&mut rng, now, &seen.discriminators);
        let known: Vec<SessionId> = bfd.sessions().map(|(id, _)| id).collect();
        if let In::Add { session, .. } | In::Remove { session } = &input
            && (matches!(input, In::Remove { .. }) || !known.contains(session))
        {
            seen.states.remove(session);
        }
        bfd.handle_input(now, input);
        if rng.one_in(3) {
            now = now + Duration::from_micros(rng.below(256) << rng.below(16));
        }
        let mut calls = 0;
        while bfd.next_deadline().is_some_and(|at| at <= now) {
            bfd.handle_deadline(now);
            calls += 1;
            assert!(calls <= CALLS, "a deadline that stays");
        }
        drain(&mut bfd, &mut seen);
        invariants(&bfd);
    }
}

fn remote(rng: &mut Rng) -> Remote {
    let address = Ipv4Addr::new(192, 0, 2, 1 + rng.below(4) as u8).into();
    Remote { address, scope: 0, multihop: rng.one_in(8) }
}

fn any(rng: &mut Rng, now: Time, discriminators: &[u32]) -> In {
    let session = SessionId(rng.below(3) as u32);
    let interval = |rng: &mut Rng| Duration::from_micros(rng.below(256) << rng.below(24));
    match rng.below(16) {
        0 | 1 => {
            let role = if rng.one_in(3) { Role::Passive } else { Role::Active };
            let (remote, multiplier, ttl_min) = (remote(rng), rng.below(5) as u8, rng.octet());
            let (interval, receive) = (interval(rng), interval(rng));
            In::Add { session, config: SessionConfig { remote, interval, receive, multiplier, ttl_min, role } }
        }
        2 if rng.one_in(4) => In::Remove { session },
        3 => In::Configure { session, interval: interval(rng), receive: interval(rng), multiplier: rng.octet() },
        4 if rng.one_in(4) => In::Disable { session },
        5 => In::Enable { session },
        6 if rng.one_in(2) => In::Resume { session, carried: carried(rng, now, discriminators) },
        _ => {
            let (from, ttl) = (remote(rng), (!rng.one_in(20)).then(|| if rng.one_in(8) { rng.octet() } else { 255 }));
            let received = Time(now.0.saturating_sub(rng.below(256) * 1_000_000));
            let bytes = if rng.one_in(8) { rng.octets(60) } else { control(rng, discriminators).encode().to_vec() };
            In::Datagram { from, ttl, received, bytes }
        }
    }
}

/// What a former program says, which may be anything.
fn carried(rng: &mut Rng, now: Time, discriminators: &[u32]) -> Carried {
    let Control { my_discriminator, your_discriminator, desired_min_tx_us, required_min_rx_us, multiplier, .. } =
        control(rng, discriminators);
    Carried {
        remote: remote(rng),
        discriminator: if rng.one_in(2) { your_discriminator } else { 1 + rng.below(1000) as u32 },
        remote_discriminator: my_discriminator,
        remote_desired_min_tx_us: desired_min_tx_us,
        remote_required_min_rx_us: required_min_rx_us,
        remote_multiplier: multiplier,
        required_min_rx_us: rng.below(1 << 16) as u32,
        until: now + Duration::from_micros(rng.below(256) << rng.below(16)),
    }
}

fn control(rng: &mut Rng, discriminators: &[u32]) -> Control {
    let flags = rng.octet();
    let times = [0, 1, 10_000, 50_000, u32::MAX];
    let ours = rng.below(discriminators.len() as u64 + 1) as usize;
    Control {
        diagnostic: Diagnostic::new(rng.octet()),
        state: [State::AdminDown, State::Down, State::Init, State::Up][usize::from(flags & 3)],
        poll: flags & 4 != 0,
        final_bit: flags & 8 != 0,
        control_independent: flags & 16 != 0,
        demand: flags & 0xe0 == 0xe0,
        multiplier: rng.below(6) as u8,
        my_discriminator: rng.below(3) as u32,
        your_discriminator: discriminators.get(ours).copied().unwrap_or(0),
        desired_min_tx_us: times[rng.below(5) as usize],
        required_min_rx_us: times[rng.below(5) as usize],
        required_min_echo_rx_us: u32::from(rng.octet()),
    }
}

fn drain(bfd: &mut Bfd, seen: &mut Seen) {
    while let Some(output) = bfd.poll_output() {
        match output {
            Out::Send { bytes, .. } => {
                assert_eq!(bytes.len(), CONTROL_BYTES);
                let (control, authenticated) = match Control::decode(&bytes) {
                    Ok(read) => read,
                    Err(discard) => panic!("what we send is discarded: {discard:?}"),
                };
                assert!(!authenticated);
                assert!(!control.poll || !control.final_bit, "both P and F");
                assert_eq!(control.encode(), bytes[..], "written as read");
                if !seen.discriminators.contains(&control.my_discriminator) {
                    seen.discriminators.push(control.my_discriminator);
                }
            }
            Out::State { session, from, to, .. } => {
                let before = seen.states.insert(session, to).unwrap_or(State::Down);
                assert_eq!(before, from, "changes follow each other");
                assert_ne!(from, to);
            }
            Out::Notice { .. } => {}
        }
    }
}

fn invariants(bfd: &Bfd) {
    for (id, status) in bfd.sessions() {
        let heard = status.remote_state.is_some();
        assert!(heard || !matches!(status.state, State::Init | State::Up), "{id:?} up without a neighbour");
        assert!(status.counters.downs <= status.counters.ups);
        assert!(status.state == State::Up || status.interval >= SLOW_INTERVAL, "fast while not Up");
        assert!(!heard || status.detection_time.is_some(), "a neighbour nobody watches");
    }
}
