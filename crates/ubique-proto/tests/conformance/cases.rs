//! The cases of the table.

use std::collections::{BTreeMap, BTreeSet};

use ubique_proto::bgp::message::Notification;
use ubique_proto::bgp::session::State;
use ubique_proto::bgp::speaker::DownReason;

use crate::agree::agree;
use crate::live::{Kind, Live, path_attributes, split};
use crate::oracle::{Session, Verdict, judge};
use crate::table::{Case, From, Outcome, cases, wrapped};

/// Attribute types the codec reads; the others are passed over.
const KNOWN: [u8; 17] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 32, 35];

fn session(from: From) -> Session {
    Session { four_octet_as: from != From::Old, external: !from.internal(), ipv4: true, ipv6: true, longest: 65_535 }
}

/// The table and the oracle were written apart; where both have an opinion it is one.
#[test]
fn the_oracle_agrees_with_the_table() {
    for case in cases().iter().filter(|case| !matches!(case.from, From::OpenSent | From::OpenConfirm)) {
        let (verdict, _) = judge(&case.message, session(case.from));
        let sound = |set: &BTreeSet<u8>| -> BTreeSet<u8> {
            set.iter().copied().filter(|code| !matches!(code, 14 | 15)).collect()
        };
        let fits = match (&case.outcome, &verdict) {
            (Outcome::Keep { discarded }, Verdict::Routes(routes)) => {
                routes.treated.is_empty() && routes.discarded == sound(discarded)
            }
            (Outcome::Withdraw { treated, discarded }, Verdict::Routes(routes)) => {
                (&routes.treated, &routes.discarded) == (treated, discarded)
            }
            (Outcome::Ignore, Verdict::Routes(routes)) => *routes == Default::default(),
            (Outcome::Up, verdict) => *verdict == Verdict::Fine,
            (Outcome::Wait, verdict) => *verdict == Verdict::Wait,
            (Outcome::Closed, verdict) => *verdict == Verdict::Closed,
            (Outcome::Reset(code, subcode, _), Verdict::Reset(all)) => all.contains(&(*code, *subcode)),
            _ => false,
        };
        assert!(fits, "{}, {:?}: {:?}, {verdict:?}", case.name, case.from, case.outcome);
    }
}

#[test]
fn the_codec_agrees_with_the_oracle() {
    for case in cases().iter().filter(|case| !matches!(case.from, From::OpenSent | From::OpenConfirm)) {
        println!("{}, {:?}", case.name, case.from);
        agree(&case.message, session(case.from));
    }
}

#[test]
fn a_live_session_does_what_is_asked() {
    let mut failed = vec![];
    for case in cases() {
        for kind in [Kind::Edge, Kind::Router] {
            if std::panic::catch_unwind(|| play(&case, kind)).is_err() {
                failed.push(format!("{} [{}], {:?}, {kind:?}", case.name, case.rule, case.from));
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

fn play(case: &Case, kind: Kind) {
    let mut live = Live::new(case.from, kind);
    let (before, faults) = (live.received(), live.faults());
    live.receive(case.message.clone());
    let new_faults = (live.faults().0 - faults.0, live.faults().1 - faults.1);
    match &case.outcome {
        Outcome::Reset(code, subcode, data) => {
            let notification = Notification::with_data(*code, *subcode, data.clone());
            assert_eq!(live.ended, Some(Some(notification.clone())), "the NOTIFICATION");
            assert_eq!(live.reason, Some(DownReason::Sent(notification)));
            assert_eq!(live.received(), BTreeSet::new(), "its routes are gone");
        }
        Outcome::Closed => {
            assert_eq!(live.ended, Some(None), "closed without a word");
            assert!(matches!(live.reason, Some(DownReason::Received(_))), "{:?}", live.reason);
        }
        Outcome::Up => {
            if case.from == From::OpenSent {
                assert_eq!(live.state(), State::OpenConfirm);
                live.receive(wrapped(4, &[]));
            }
            assert_eq!((live.state(), &live.ended), (State::Established, &None));
        }
        Outcome::Wait => assert_eq!(live.ended, None),
        outcome => {
            assert_eq!((live.state(), &live.ended), (State::Established, &None), "{:?}", live.reason);
            let (verdict, _) = judge(&case.message, session(case.from));
            let Verdict::Routes(routes) = verdict else { panic!("the oracle says {verdict:?}") };
            let left = before.difference(&routes.withdrawn).copied().collect::<BTreeSet<_>>();
            assert_eq!(live.received(), left.union(&routes.announced).copied().collect(), "the routes");
            let expected = match outcome {
                Outcome::Keep { discarded } => (discarded.len() as u64, 0),
                Outcome::Withdraw { discarded, .. } => (discarded.len() as u64, 1),
                _ => (0, 0),
            };
            assert_eq!(new_faults, expected, "faults told of");
        }
    }
    others(case, kind, &mut live);
    if live.ended.is_none() && case.from != From::OpenSent && !case.name.starts_with("hold time") {
        live.lives_on();
    }
}

/// What the other neighbour gets to see of it.
fn others(case: &Case, kind: Kind, live: &mut Live) {
    if kind == Kind::Edge {
        assert_eq!(live.passed_on, Vec::<u8>::new(), "an announcing edge passes on nothing");
        live.announce("192.0.2.0/24");
        live.refresh();
    }
    let update = matches!(case.from, From::External | From::Internal | From::Old) && case.message[18] == 2;
    let given = match &case.outcome {
        Outcome::Keep { discarded } if update => {
            let mut given = path_attributes(&case.message);
            given.retain(|(_, code, _)| !discarded.contains(code));
            given
        }
        _ => vec![],
    };
    for message in split(&live.passed_on).into_iter().filter(|message| message[18] == 2) {
        let sent = path_attributes(message);
        for (flags, code, value) in &sent {
            if KNOWN.contains(code) {
                continue;
            }
            assert_eq!(kind, Kind::Router, "type {code} left an announcing edge");
            // RFC 4271 §5: transitive, and marked as passed on by somebody who does not know it.
            assert_eq!(flags & 0xe0, 0xe0, "type {code}");
            assert!(given.iter().any(|(f, c, v)| f & 0xc0 == 0xc0 && (c, v) == (code, value)), "type {code} changed");
        }
        if kind == Kind::Edge {
            assert!(message.ends_with(&[24, 192, 0, 2]) || sent.is_empty() || sent[0].1 == 15, "only our own");
        }
    }
    if kind == Kind::Router && case.from == From::External {
        let passed: BTreeSet<u8> =
            split(&live.passed_on).into_iter().flat_map(path_attributes).map(|(_, c, _)| c).collect();
        let transitive = given.iter().filter(|(flags, code, _)| flags & 0xc0 == 0xc0 && !KNOWN.contains(code));
        let missing: Vec<u8> = transitive.map(|(_, code, _)| *code).filter(|code| !passed.contains(code)).collect();
        assert_eq!(missing, Vec::<u8>::new(), "a router passes on what is transitive");
    }
}

/// `docs/conformance.md` says how many cases there are.
#[test]
fn the_page_counts() {
    let mut counts: BTreeMap<String, (BTreeSet<String>, usize)> = BTreeMap::new();
    for case in cases() {
        let (names, runs) = counts.entry(case.source).or_default();
        names.insert(case.name);
        *runs += 1;
    }
    let lines: Vec<String> =
        counts.iter().map(|(source, (names, runs))| format!("| {source} | {} | {runs} |", names.len())).collect();
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
    let text = std::fs::read_to_string(&page).unwrap();
    for line in &lines {
        assert!(text.contains(line), "docs/conformance.md must have these lines:\n{}", lines.join("\n"));
    }
}
