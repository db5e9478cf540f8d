use ubique_model::policy::Announcement;
use ubique_model::service::Upstream;
use ubique_model::{AddressFamily, Asn};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
/// Some day in 2026.
const WALL: u64 = 1_795_000_000_000;

fn config() -> ActionsConfig {
    ActionsConfig {
        prefixes: vec![prefix("198.51.100.0/22"), prefix("2001:db8:53::/48")],
        addresses: ["198.51.100.53", "198.51.101.53", "198.51.101.54", "2001:db8:53::53"]
            .map(|a| a.parse().expect("an address"))
            .to_vec(),
        confirm_share: 30,
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse::<Prefix>().expect("a prefix").trunc()
}

fn attract(text: &str) -> Kind {
    Kind::Attract { prefix: prefix(text) }
}

fn blackhole(text: &str) -> Kind {
    Kind::Blackhole { prefix: prefix(text) }
}

fn filter(rule: &str, then: &str) -> Kind {
    Kind::Filter { rule: rule.parse().expect("a rule"), then: then.parse().expect("an action") }
}

fn begin(what: Kind, lasts: Duration, confirmed: bool) -> In {
    In::Begin(Begin { what, lasts, who: "root".into(), reason: "attack".into(), confirmed, wall_ms: WALL })
}

fn at(s: u64) -> Time {
    Time(s * 1_000_000_000)
}

fn outputs(actions: &mut Actions) -> Vec<Out> {
    std::iter::from_fn(|| actions.poll_output()).collect()
}

#[test]
fn an_action_begins_and_ends_by_itself() {
    let mut actions = Actions::new(config());
    actions.handle_input(at(0), begin(blackhole("198.51.100.53/32"), HOUR, false));
    let [Out::Begun(action)] = &outputs(&mut actions)[..] else { panic!("not begun") };
    assert_eq!((action.id, action.until_ms), (1, WALL + 3_600_000));
    assert_eq!(actions.left(1, at(600)), Some(Duration::from_secs(3000)));
    assert_eq!(actions.next_deadline(), Some(at(3600)));
    actions.handle_deadline(at(3599));
    assert_eq!(outputs(&mut actions), []);
    actions.handle_deadline(at(3600));
    assert!(matches!(&outputs(&mut actions)[..], [Out::Ended { cause, .. }] if cause == "its time is over"));
    assert_eq!((actions.list().count(), actions.next_deadline()), (0, None));
}

#[test]
fn begun_again_it_has_a_new_end_and_the_same_number() {
    let mut actions = Actions::new(config());
    let what = || filter("dst 198.51.100.53/32 proto =udp sport =53", "discard");
    actions.handle_input(at(0), begin(what(), HOUR, false));
    actions.handle_input(at(60), begin(what(), HOUR * 2, false));
    let ids: Vec<u32> =
        outputs(&mut actions).iter().filter_map(|o| if let Out::Begun(a) = o { Some(a.id) } else { None }).collect();
    assert_eq!((ids, actions.next_deadline()), (vec![1, 1], Some(at(7260))));
    actions.handle_input(at(61), In::Cancel { id: 1, who: "root".into(), reason: "over".into() });
    assert!(matches!(&outputs(&mut actions)[..], [Out::Ended { cause, .. }] if cause == "cancelled by root: over"));
    actions.handle_input(at(62), In::Cancel { id: 1, who: "root".into(), reason: "over".into() });
    assert!(matches!(&outputs(&mut actions)[..], [Out::Refused(Refusal { guard: false, .. })]));
    actions.handle_input(at(63), begin(what(), HOUR, false));
    assert!(matches!(&outputs(&mut actions)[..], [Out::Begun(Action { id: 2, .. })]), "numbers are never used twice");
}

#[test]
fn what_is_refused_and_why() {
    let actions = Actions::new(config());
    for (what, lasts, said) in [
        (attract("203.0.113.0/24"), HOUR, "outside of the service: its prefixes are 198.51.100.0/22, 2001:db8:53::/48"),
        (attract("198.51.0.0/16"), HOUR, "outside of the service"),
        (attract("198.51.100.0/22"), HOUR, "is announced already"),
        (blackhole("203.0.113.7/32"), HOUR, "outside of the service"),
        (filter("dst 203.0.113.7/32", "discard"), HOUR, "outside of the service"),
        (filter("src 203.0.113.0/24", "discard"), HOUR, "no destination"),
        (filter("dst 2001:db8:53::/16-64", "discard"), HOUR, "offset"),
        (attract("198.51.100.0/24"), Duration::ZERO, "lasts from 1 s to 7 days"),
        (attract("198.51.100.0/24"), HOUR * 24 * 8, "lasts from 1 s to 7 days"),
    ] {
        let refusal = actions.judge(&what, lasts, "why").err().unwrap_or_else(|| panic!("{what}"));
        assert!(!refusal.guard && refusal.message.contains(said), "{what}: {refusal}");
    }
    let long = "x".repeat(MAX_REASON_CHARS + 1);
    for reason in [long.as_str(), "two\nlines"] {
        assert!(actions.judge(&attract("198.51.100.0/24"), HOUR, reason).is_err());
    }
}

#[test]
fn shares_are_of_the_addresses_and_ask_for_confirmation() {
    let mut actions = Actions::new(config());
    for (what, share, confirm) in [
        (blackhole("198.51.100.53/32"), 25, false),
        (blackhole("198.51.101.0/24"), 50, true),
        (blackhole("198.51.103.0/24"), 0, false),
        (blackhole("2001:db8:53::/48"), 25, true),
        (attract("198.51.100.0/23"), 75, true),
        (filter("dst 198.51.100.0/22", "discard"), 75, true),
        (filter("dst 198.51.100.0/22", "rate-bytes 1000000"), 0, false),
        (filter("dst 198.51.100.0/22 proto =udp sport =123", "discard"), 0, false),
    ] {
        let judged = actions.judge(&what, HOUR, "why").unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
        assert_eq!((judged.share, judged.confirm), (share, confirm), "{what}");
        actions.handle_input(at(0), begin(what.clone(), HOUR, false));
        let refused = matches!(&outputs(&mut actions)[..], [Out::Refused(Refusal { guard: true, .. })]);
        assert_eq!(refused, confirm, "{what}");
        actions.handle_input(at(0), begin(what.clone(), HOUR, true));
        assert!(matches!(&outputs(&mut actions)[..], [Out::Begun(_)]), "{what}");
    }
}

#[test]
fn too_long_prefixes_are_warned_of() {
    let actions = Actions::new(config());
    let warnings = |what| actions.judge(&what, HOUR, "").expect("may be done").warnings;
    assert!(warnings(attract("198.51.100.0/24")).is_empty());
    assert!(warnings(attract("198.51.100.0/25"))[0].contains("no ipv4 prefix longer than /24"));
    assert!(warnings(attract("2001:db8:53::/64"))[0].contains("no ipv6 prefix longer than /48"));
    assert!(warnings(attract("198.51.103.0/24"))[0].contains("no address of the service"));
}

#[test]
fn two_kinds_about_one_prefix_exclude_each_other() {
    let mut actions = Actions::new(config());
    actions.handle_input(at(0), begin(attract("198.51.100.0/24"), HOUR, true));
    outputs(&mut actions);
    let refusal = actions.judge(&blackhole("198.51.100.0/24"), HOUR, "").expect_err("the same prefix");
    assert!(refusal.message.contains("action 1 (attract 198.51.100.0/24)"), "{refusal}");
    assert!(actions.judge(&filter("dst 198.51.100.0/24", "discard"), HOUR, "").is_ok());
}

#[test]
fn there_is_room_for_so_many() {
    let mut actions = Actions::new(config());
    for port in 0..MAX_ACTIONS {
        actions
            .handle_input(at(0), begin(filter(&format!("dst 198.51.100.53/32 dport ={port}"), "discard"), HOUR, false));
    }
    assert!(outputs(&mut actions).iter().all(|out| matches!(out, Out::Begun(_))));
    let one_more = actions.judge(&attract("198.51.100.0/24"), HOUR, "").expect_err("full");
    assert!(one_more.message.contains("no more fit"));
    assert!(
        actions.judge(&filter("dst 198.51.100.53/32 dport =0", "discard"), HOUR, "").is_ok(),
        "prolonging needs no room"
    );
}

#[test]
fn a_clock_that_is_set_moves_kept_ends_and_nothing_else() {
    for (set_ms, what) in [(WALL + 3_600_000, "forwards"), (WALL - 3_600_000, "back"), (0, "to its beginning")] {
        let mut actions = Actions::new(config());
        actions.handle_input(at(0), begin(attract("198.51.101.0/24"), HOUR, true));
        outputs(&mut actions);
        actions.handle_input(at(600), In::Clock { wall_ms: set_ms });
        assert_eq!(outputs(&mut actions), [], "{what}: nobody is told anything");
        assert_eq!(actions.left(1, at(600)), Some(HOUR - Duration::from_secs(600)));
        // A restart a minute later by the new clock.
        let memory = actions.memory();
        let mut later = Actions::new(config());
        later.handle_input(at(7), In::Restore { memory, wall_ms: set_ms + 60_000 });
        assert_eq!(later.left(1, at(7)), Some(HOUR - Duration::from_secs(660)), "{what}: what was left is left");
    }
}

#[test]
fn a_restart_keeps_what_has_time_left() {
    let mut actions = Actions::new(config());
    actions.handle_input(at(0), begin(blackhole("198.51.100.53/32"), HOUR, true));
    actions.handle_input(at(0), begin(attract("198.51.101.0/24"), HOUR * 2, true));
    actions.handle_input(at(0), begin(filter("dst 198.51.100.53/32 proto =udp", "discard"), HOUR * 2, true));
    let json = serde_json::to_string(&actions.memory()).expect("JSON");
    assert!(json.contains(r#""rule":"dst 198.51.100.53/32 proto =udp","then":"discard""#), "{json}");
    let memory: Memory = serde_json::from_str(&json).expect("reads back");
    assert_eq!(memory, actions.memory());
    // An hour and a half later, with another clock that starts at 7 s.
    let restored = |wall_ms| {
        let mut later = Actions::new(config());
        later.handle_input(at(7), In::Restore { memory: memory.clone(), wall_ms });
        later
    };
    let mut later = restored(WALL + 5_400_000);
    let out = outputs(&mut later);
    assert!(
        matches!(&out[..], [Out::Ended { action: Action { id: 1, .. }, .. }, Out::Begun(_), Out::Begun(_)]),
        "{out:?}"
    );
    assert_eq!(later.next_deadline(), Some(at(7 + 1800)));
    assert_eq!(later.memory().last_id, 3);
    // A clock that went back a year prolongs nothing beyond its whole time.
    let back = restored(WALL - 31_536_000_000);
    assert_eq!(back.next_deadline(), Some(at(7 + 3600)));
    assert_eq!(back.left(2, at(7)), Some(HOUR * 2));
}

/// Found by the fuzz target: two actions had one number, and only one of them could be cancelled.
#[test]
fn a_memory_that_gives_a_number_twice_restores_one() {
    let mut actions = Actions::new(config());
    actions.handle_input(at(0), begin(attract("198.51.101.0/24"), HOUR, true));
    let mut memory = actions.memory();
    memory.actions.push(Action { what: blackhole("198.51.100.53/32"), ..memory.actions[0].clone() });
    let mut later = Actions::new(config());
    later.handle_input(at(7), In::Restore { memory, wall_ms: WALL });
    let out = outputs(&mut later);
    assert!(matches!(&out[..], [Out::Begun(_), Out::Ended { cause, .. }] if cause == "it is one too many"), "{out:?}");
    assert_eq!(later.list().count(), 1);
}

#[test]
fn another_service_file_ends_what_is_not_its_own() {
    let mut actions = Actions::new(config());
    actions.handle_input(at(0), begin(blackhole("198.51.100.53/32"), HOUR, true));
    actions.handle_input(at(0), begin(blackhole("2001:db8:53::53/128"), HOUR, true));
    outputs(&mut actions);
    let other = ActionsConfig { prefixes: vec![prefix("2001:db8:53::/48")], ..config() };
    actions.handle_input(at(0), In::Configure { config: other });
    let out = outputs(&mut actions);
    assert!(matches!(&out[..], [Out::Ended { action: Action { id: 1, .. }, .. }]), "{out:?}");
    assert_eq!(actions.list().count(), 1);
}

fn upstream(asn: u32, families: &[AddressFamily]) -> Upstream {
    Upstream { families: families.to_vec(), ..Upstream::new(Asn(asn), "192.0.2.1".parse().expect("an address")) }
}

fn announced() -> Vec<Announcement> {
    let around = Announcement::new(prefix("198.51.100.0/22"));
    vec![Announcement { prepend: 2, med: Some(7), communities: vec!["64500:1".parse().expect("one")], ..around }]
}

#[test]
fn upstreams_are_told_by_kind_and_family() {
    let v4 = upstream(65001, &[AddressFamily::Ipv4Unicast]);
    let both = upstream(2914, &[AddressFamily::Ipv4Unicast, AddressFamily::Ipv4FlowSpec]);
    let more = told(&attract("198.51.100.0/24"), &v4, &announced()).expect("told");
    assert_eq!(more, Told::Route(Announcement { prefix: prefix("198.51.100.0/24"), ..announced().remove(0) }));
    let route = |what, upstream| match told(&what, upstream, &announced()) {
        Ok(Told::Route(route)) => route,
        other => panic!("{other:?}"),
    };
    let texts = |route: Announcement| route.communities.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(route(blackhole("198.51.100.53/32"), &v4)), ["65535:666", "65535:65281"]);
    assert_eq!(texts(route(blackhole("198.51.100.53/32"), &both)), ["2914:666", "65535:666", "65535:65281"]);
    assert_eq!(route(blackhole("198.51.100.53/32"), &v4).prepend, 0);
    let rule = filter("dst 198.51.100.53/32 proto =udp", "discard");
    assert_eq!(told(&rule, &v4, &announced()), Err(Unreached::Family("ipv4-flowspec".into())));
    assert!(matches!(told(&rule, &both, &announced()), Ok(Told::Flow { .. })));
    assert_eq!(
        told(&rule, &both, &[]),
        Err(Unreached::Silent(prefix("198.51.100.53/32"))),
        "a silent site says nothing"
    );
    assert_eq!(told(&attract("2001:db8:53::/64"), &v4, &announced()), Err(Unreached::Family("ipv6".into())));
}

/// Any sequence of inputs: what was begun and has not ended is what is listed, within limits, and all of it ends.
#[test]
fn random_inputs_keep_list_and_outputs_together() {
    for seed in 1..=300u64 {
        let mut rng = crate::rng::Rng::new(seed);
        let mut actions = Actions::new(config());
        let mut live = std::collections::BTreeMap::new();
        let mut now = 0;
        for _ in 0..300 {
            now += rng.below(900);
            let what = match rng.below(4) {
                0 => attract(["198.51.100.0/24", "198.51.101.0/24", "203.0.113.0/24"][rng.below(3) as usize]),
                1 => blackhole(["198.51.100.53/32", "198.51.100.0/24", "198.51.100.0/22"][rng.below(3) as usize]),
                _ => filter(&format!("dst 198.51.100.53/32 dport ={}", rng.below(90)), "discard"),
            };
            let input = match rng.below(8) {
                0 => In::Cancel { id: rng.below(20) as u32, who: "x".into(), reason: String::new() },
                1 => In::Restore { memory: actions.memory(), wall_ms: WALL + now * 1000 },
                2 => In::Clock { wall_ms: rng.below(2 * WALL) },
                _ => begin(what, Duration::from_secs(rng.below(40_000)), rng.below(2) == 0),
            };
            actions.handle_deadline(at(now));
            actions.handle_input(at(now), input);
            for out in outputs(&mut actions) {
                match out {
                    Out::Begun(action) => drop(live.insert(action.id, action)),
                    Out::Ended { action, cause }
                        if cause != "it is one too many" && !actions.list().any(|a| a.id == action.id) =>
                    {
                        // A restored one may be over by the wall clock of this test while it runs by the other.
                        live.remove(&action.id);
                    }
                    _ => {}
                }
            }
            let listed: Vec<u32> = actions.list().map(|a| a.id).collect();
            assert!(listed.len() <= MAX_ACTIONS, "seed {seed}");
            assert_eq!(live.keys().copied().collect::<Vec<_>>(), sorted(&listed), "seed {seed} at {now}");
            assert!(actions.next_deadline().is_none_or(|next| next > at(now)), "seed {seed}");
        }
        while let Some(deadline) = actions.next_deadline() {
            actions.handle_deadline(deadline);
        }
        assert_eq!(actions.list().count(), 0, "seed {seed}");
    }
}

fn sorted(list: &[u32]) -> Vec<u32> {
    let mut list = list.to_vec();
    list.sort_unstable();
    list
}
