//! What operators ask for, under any sequence of inputs: timed actions end, a drain goes through its stages in order.

use std::collections::BTreeMap;
use std::time::Duration;

use ubique_model::Prefix;
use ubique_proto::Time;
use ubique_proto::actions::drain::{self, Drain, MAX_LEAVING, MAX_WATCH, NAMED, SAMPLE_EVERY, Stage};
use ubique_proto::actions::senders::Sender;
use ubique_proto::actions::{Action, Actions, ActionsConfig, Begin, In, Kind, MAX_ACTIONS, MAX_LASTS, Memory, Out};

use crate::rng::{Rng, feed};

/// Inputs of one run.
const STEPS: usize = 200;

/// The service's prefixes, and those of others.
const OURS: [&str; 3] = ["198.51.100.0/22", "2001:db8:53::/48", "192.0.2.0/24"];
const DESTINATIONS: [&str; 8] = [
    "198.51.100.0/22",
    "198.51.100.0/24",
    "198.51.100.53/32",
    "198.51.101.0/25",
    "2001:db8:53::53/128",
    "192.0.2.0/25",
    "203.0.113.0/24",
    "0.0.0.0/0",
];
const RULES: [&str; 4] = ["dport =53", "proto =udp", "length >=1000", "sport =123 proto =udp"];
const THEN: [&str; 2] = ["discard", "rate-bytes 1000"];

/// Octets: configuration, then inputs and waits of the actions core.
pub(crate) fn actions(input: &[u8]) {
    let mut rng = feed(input);
    let mut config = actions_config(&mut rng);
    let mut actions = Actions::new(config.clone());
    let (mut now, mut live) = (Time(1), BTreeMap::new());
    for _ in 0..STEPS {
        if rng.is_empty() {
            break;
        }
        now = now + pause(&mut rng);
        actions.handle_deadline(now);
        carry_out(&mut actions, &mut live, &config, now);
        let input = any_action(&mut rng, &actions);
        if let In::Configure { config: other } = &input {
            config = other.clone();
        }
        actions.handle_input(now, input);
        carry_out(&mut actions, &mut live, &config, now);
        kept(&actions);
    }
    // Nothing stays because nobody remembered.
    now = now + MAX_LASTS;
    actions.handle_deadline(now);
    carry_out(&mut actions, &mut live, &config, now);
    assert!(live.is_empty() && actions.next_deadline().is_none(), "{live:?} without an end");
}

fn pause(rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.below(10) * 10u64.pow(rng.below(6) as u32))
}

fn actions_config(rng: &mut Rng) -> ActionsConfig {
    let prefixes: Vec<Prefix> = OURS.iter().take(1 + rng.below(3) as usize).map(|p| prefix(p)).collect();
    let addresses = [DESTINATIONS[2], DESTINATIONS[4]].map(|p| prefix(p).addr());
    ActionsConfig { prefixes, addresses: addresses.to_vec(), confirm_share: rng.below(101) as u8 }
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn kind(rng: &mut Rng) -> Kind {
    let destination = DESTINATIONS[rng.below(8) as usize];
    match rng.below(3) {
        0 => Kind::Attract { prefix: prefix(destination) },
        1 => Kind::Blackhole { prefix: prefix(destination) },
        _ => {
            let rule = format!("dst {destination} {}", RULES[rng.below(4) as usize]);
            let words = format!("filter {rule}: {}", THEN[rng.below(2) as usize]);
            words.parse().unwrap_or_else(|error| panic!("{words}: {error}"))
        }
    }
}

fn any_action(rng: &mut Rng, actions: &Actions) -> In {
    let (who, reason) = ("somebody".to_owned(), "attack".to_owned());
    let wall_ms = rng.below(1 << 8) << rng.below(40);
    match rng.below(10) {
        0 => In::Cancel { id: rng.below(80) as u32, who, reason },
        1 => In::Restore { memory: actions.memory(), wall_ms },
        2 => In::Clock { wall_ms },
        3 if rng.one_in(4) => In::Configure { config: actions_config(rng) },
        3 => {
            let (began_ms, until_ms) = (rng.next_u64(), rng.next_u64());
            let action = Action { id: rng.below(100) as u32, what: kind(rng), who, reason, began_ms, until_ms };
            In::Restore { memory: Memory { last_id: rng.below(100) as u32, actions: vec![action] }, wall_ms }
        }
        _ => {
            let lasts = Duration::from_secs(rng.below(256) << rng.below(16));
            In::Begin(Begin { what: kind(rng), lasts, who, reason, confirmed: !rng.one_in(3), wall_ms })
        }
    }
}

/// What a driver does with the outputs; afterwards the core lists what was begun and has not ended.
fn carry_out(actions: &mut Actions, live: &mut BTreeMap<u32, Action>, config: &ActionsConfig, now: Time) {
    while let Some(out) = actions.poll_output() {
        match out {
            Out::Begun(action) => drop(live.insert(action.id, action)),
            // One that was restored beside those that last, and came to nothing, is told as ended, too.
            Out::Ended { action, .. } if actions.list().all(|other| other.id != action.id) => {
                live.remove(&action.id);
            }
            Out::Ended { .. } | Out::Refused(_) => {}
        }
    }
    let listed: Vec<&Action> = actions.list().collect();
    assert!(listed.len() <= MAX_ACTIONS);
    let known = |action: &&Action| live.get(&action.id).is_some_and(|begun| begun.what == action.what);
    assert!(listed.len() == live.len() && listed.iter().all(known), "{listed:?} of {live:?}");
    for action in &listed {
        let destination = action.what.destination();
        let ours = |prefix: &Prefix| config.prefixes.iter().any(|p| p.contains(prefix));
        assert!(destination.as_ref().is_some_and(ours), "{action:?} is about others");
        assert!(actions.left(action.id, now).is_some_and(|left| left <= MAX_LASTS));
    }
    assert!(actions.next_deadline().is_none_or(|at| at > now), "a deadline that stays");
}

/// Reads back from the state file, and from the words of a journal.
fn kept(actions: &Actions) {
    let memory = actions.memory();
    let json = serde_json::to_string(&memory).unwrap_or_default();
    assert_eq!(serde_json::from_str::<Memory>(&json).ok().as_ref(), Some(&memory), "{json}");
    for action in &memory.actions {
        assert_eq!(action.what.to_string().parse::<Kind>().as_ref(), Ok(&action.what));
    }
}

/// Octets: inputs and waits of the drain core.
pub(crate) fn drain(input: &[u8]) {
    let mut rng = feed(input);
    let mut drain = Drain::default();
    let (mut now, mut stage) = (Time(1), None);
    for _ in 0..STEPS {
        if rng.is_empty() {
            break;
        }
        now = now + pause(&mut rng);
        drain.handle_deadline(now);
        follow(&mut drain, &mut stage);
        let input = any_drain(&mut rng);
        if let drain::In::Begin(_) | drain::In::Resume(_) = &input {
            stage = None;
        }
        drain.handle_input(now, input);
        follow(&mut drain, &mut stage);
        let late = drain.next_deadline().is_some_and(|at| at.since(now) > MAX_WATCH.max(MAX_LEAVING));
        assert!(!late, "a stage without an end");
    }
}

fn any_drain(rng: &mut Rng) -> drain::In {
    let seconds = |rng: &mut Rng| Duration::from_secs(rng.below(256) << rng.below(8));
    let request = |rng: &mut Rng| drain::Request {
        who: "somebody".into(),
        reason: "disks".into(),
        within: seconds(rng),
        prepend: rng.octet(),
        hook: rng.one_in(2),
        watch: seconds(rng),
        carried: rng.one_in(2),
    };
    match rng.below(12) {
        0 => drain::In::Begin(request(rng)),
        1 => drain::In::Uncounted("no right to".into()),
        2 => drain::In::Hook(if rng.one_in(2) { Ok(()) } else { Err("exit 1".into()) }),
        3 => drain::In::Withdrawn,
        4 if rng.one_in(4) => drain::In::Undrained,
        5 if rng.one_in(4) => drain::In::Resume(drain::Resumed {
            request: request(rng),
            lasted: seconds(rng),
            withdrawn: seconds(rng),
            before: None,
        }),
        _ => {
            let sender = |rng: &mut Rng| Sender {
                prefix: prefix(DESTINATIONS[rng.below(8) as usize]),
                packets: rng.next_u64() >> rng.below(64),
                uncertain: rng.below(9),
            };
            let senders = (0..rng.below(40)).map(|_| sender(rng)).collect();
            let window = if rng.one_in(8) { seconds(rng) } else { SAMPLE_EVERY };
            let packets = if rng.one_in(2) { 0 } else { rng.next_u64() >> rng.below(64) };
            let connections = rng.one_in(2).then(|| rng.below(3));
            let client = |rng: &mut Rng| drain::Client {
                prefix: prefix(DESTINATIONS[rng.below(8) as usize]),
                connections: rng.below(9),
            };
            let clients = (0..rng.below(20)).map(|_| client(rng)).collect();
            drain::In::Sample(drain::Sample { window, packets, connections, clients, senders })
        }
    }
}

/// Stages follow one another; each output belongs to its stage. `None`: nothing of this drain was heard yet.
fn follow(drain: &mut Drain, stage: &mut Option<Stage>) {
    while let Some(out) = drain.poll_output() {
        match out {
            drain::Out::Stage { stage: next, cause } => {
                let follows = matches!(
                    (*stage, next),
                    (None, Stage::Measuring | Stage::Withdrawn)
                        | (Some(Stage::Measuring), Stage::Leaving | Stage::Withdrawn)
                        | (Some(Stage::Leaving), Stage::Withdrawn)
                        | (Some(Stage::Withdrawn), Stage::Over)
                        | (Some(Stage::Measuring | Stage::Leaving | Stage::Withdrawn), Stage::Abandoned)
                );
                assert!(follows && !cause.is_empty(), "{next:?} after {stage:?}");
                *stage = Some(next);
            }
            drain::Out::Leave { within } => {
                assert!(*stage == Some(Stage::Leaving) && within <= MAX_LEAVING, "told to leave while {stage:?}");
            }
            drain::Out::Withdraw => assert_eq!(*stage, Some(Stage::Leaving)),
            drain::Out::Hook => assert_eq!(*stage, None, "the service is told at the beginning"),
            drain::Out::Count(_) => {}
        }
    }
    let Some(progress) = drain.progress() else { return };
    assert!(progress.senders.len() <= NAMED && progress.clients.len() <= NAMED);
    assert!(progress.senders.iter().all(|(_, rate)| rate.is_finite()), "{:?}", progress.senders);
    assert_eq!(stage.is_some_and(|s| s != Stage::Over && s != Stage::Abandoned), drain.is_active());
    assert!(drain.prepend() == 0 || *stage == Some(Stage::Leaving), "prepends while {stage:?}");
    assert_eq!(progress.took.is_some(), !drain.is_active());
}
