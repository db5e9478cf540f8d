//! Each step of the decision process decides, and says so.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr};

use ubique_model::Asn;

use super::common::path;
use crate::Time;
use crate::bgp::attributes::{AsPath, Attributes, Origin, Segment};
use crate::bgp::rib::decision::{Ineligible, Path, Step, compare, explain, select};

/// A route of which a test changes one thing.
#[derive(Clone)]
struct Sample {
    attributes: Attributes,
    long_lived_stale: bool,
    local_pref: u32,
    external: bool,
    igp_metric: u32,
    id: u8,
    address: u8,
    path_id: u32,
    learned: u64,
}

fn sample() -> Sample {
    let attributes = path(&[100, 200, 300]);
    Sample {
        attributes,
        long_lived_stale: false,
        local_pref: 100,
        external: true,
        igp_metric: 10,
        id: 5,
        address: 5,
        path_id: 5,
        learned: 50,
    }
}

fn view(s: &Sample) -> Path<'_> {
    Path {
        attributes: &s.attributes,
        long_lived_stale: s.long_lived_stale,
        local_pref: s.local_pref,
        neighbor: s.attributes.as_path.neighbor().unwrap_or(Asn(0)),
        external: s.external,
        igp_metric: s.igp_metric,
        router_id: Ipv4Addr::new(10, 0, 0, s.id),
        peer_address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, s.address)),
        path_id: s.path_id,
        learned: Time(s.learned),
    }
}

type Change = fn(&mut Sample);

/// The steps in the order of RFC 4271: how a route becomes worse than [`sample`], and what is said of it then.
fn steps() -> Vec<(Change, &'static str)> {
    vec![
        (|s| s.long_lived_stale = true, "long-lived stale, other not"),
        (|s| s.local_pref = 50, "local preference 50 < 100"),
        (|s| s.attributes.as_path = s.attributes.as_path.prepended(Asn(100), 1), "AS path 4 > 3"),
        (|s| s.attributes.origin = Origin::Incomplete, "origin incomplete > IGP"),
        (|s| s.attributes.med = Some(20), "MED 20 > 0"),
        (|s| s.external = false, "internal, other external"),
        (|s| s.igp_metric = 11, "IGP metric 11 > 10"),
        (|s| s.id = 9, "router id 10.0.0.9 > 10.0.0.5"),
        (|s| s.attributes.cluster_list = vec![Ipv4Addr::LOCALHOST], "cluster list 1 > 0"),
        (|s| s.address = 6, "neighbour address 192.0.2.6 > 192.0.2.5"),
        (|s| s.path_id = 6, "path identifier 6 > 5"),
    ]
}

#[test]
fn every_step_decides_and_beats_all_later_ones() {
    let steps = steps();
    for (i, (worse, words)) in steps.iter().enumerate() {
        let (good, mut bad) = (sample(), sample());
        worse(&mut bad);
        let (order, step) = compare(&view(&good), &view(&bad), false);
        assert_eq!((order, step.to_string().as_str()), (Ordering::Less, *words));
        assert_eq!(compare(&view(&bad), &view(&good), false), (Ordering::Greater, step));
        // Even against a route that is worse at every later step.
        let mut good = good;
        for (later, _) in &steps[i + 1..] {
            later(&mut good);
        }
        let (order, later) = compare(&view(&good), &view(&bad), false);
        assert_eq!(order, Ordering::Less, "{words}");
        assert_eq!(std::mem::discriminant(&later), std::mem::discriminant(&step), "{words}");
    }
}

#[test]
fn steps_read_the_other_way_round_too() {
    assert_eq!(Step::AsPath(4, 3).flipped().to_string(), "AS path 3 < 4");
    assert_eq!(Step::Origin(Origin::Egp, Origin::Igp).flipped().to_string(), "origin IGP < EGP");
    assert_eq!(Step::Age(Time(3_000_000), Time(1_000_000)).to_string(), "learned 2ms later");
    assert_eq!(Step::Age(Time(3_000_000), Time(1_000_000)).flipped().to_string(), "learned 2ms earlier");
    assert_eq!(Step::Internal.flipped(), Step::Internal);
    let own = Step::Ineligible(Ineligible::AsLoop(Asn(64500)));
    assert_eq!(own.to_string(), "AS path holds our own AS 64500");
}

#[test]
fn steps_survive_a_recording() {
    let (good, mut bad) = (sample(), sample());
    for (worse, _) in steps().into_iter().rev() {
        worse(&mut bad);
        let (_, step) = compare(&view(&good), &view(&bad), false);
        let json = serde_json::to_string(&step).unwrap();
        assert_eq!(serde_json::from_str::<Step>(&json).unwrap(), step, "{json}");
    }
}

#[test]
fn sets_count_one_hop_and_confederations_none() {
    let (mut a, mut b) = (sample(), sample());
    a.attributes.as_path = AsPath(vec![
        Segment::ConfedSequence(vec![Asn(65001), Asn(65002)]),
        Segment::Sequence(vec![Asn(100)]),
        Segment::Set(vec![Asn(1), Asn(2), Asn(3)]),
    ]);
    b.attributes.as_path = AsPath::sequence([Asn(100), Asn(2), Asn(3)]);
    assert_eq!(compare(&view(&a), &view(&b), false), (Ordering::Less, Step::AsPath(3, 2)));
}

#[test]
fn med_counts_only_between_routes_of_one_neighbor() {
    let (mut a, mut b) = (sample(), sample());
    a.attributes.med = Some(500);
    b.attributes.as_path = AsPath::sequence([Asn(900), Asn(200), Asn(300)]);
    b.attributes.med = Some(1);
    b.id = 6;
    let (order, step) = compare(&view(&a), &view(&b), false);
    assert_eq!((order, step.to_string().as_str()), (Ordering::Less, "router id 10.0.0.6 > 10.0.0.5"));
}

/// One beats two by identifier, two beats three as external, three beats one by MED: no order of pairs exists,
/// yet the set has one winner in every arrangement (RFC 4271 §9.1.2.2 c).
#[test]
fn med_is_not_transitive_and_the_arrangement_does_not_matter() {
    let (mut one, mut two, mut three) = (sample(), sample(), sample());
    one.attributes = Attributes { med: Some(150), ..path(&[500, 7]) };
    one.id = 1;
    two.attributes = Attributes { med: Some(200), ..path(&[100, 7]) };
    two.id = 2;
    three.attributes = Attributes { med: Some(100), ..path(&[500, 7]) };
    three.external = false;
    let beats = |a: &Sample, b: &Sample| compare(&view(a), &view(b), false).0 == Ordering::Less;
    assert!(beats(&one, &two) && beats(&two, &three) && beats(&three, &one));
    let samples = [&one, &two, &three];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let paths = order.map(|i| view(samples[i]));
        assert_eq!(select(&paths, false).map(|i| order[i]), Some(1), "{order:?}");
        let steps = explain(&paths, false);
        for (i, step) in order.into_iter().zip(steps) {
            let expected = [Some(Step::Med(150, 100)), None, Some(Step::Internal)][i];
            assert_eq!(step, expected, "{order:?}");
        }
    }
}

#[test]
fn the_originator_stands_in_for_the_router() {
    let (mut a, b) = (sample(), sample());
    a.id = 9;
    a.attributes.originator_id = Some(Ipv4Addr::new(10, 0, 0, 1));
    let expected = Step::RouterId(Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(compare(&view(&a), &view(&b), false), (Ordering::Less, expected));
}

#[test]
fn the_older_external_route_wins_only_when_asked() {
    let (mut old, new) = (sample(), sample());
    (old.learned, old.id) = (10, 9);
    assert_eq!(compare(&view(&old), &view(&new), false).0, Ordering::Greater);
    let (order, step) = compare(&view(&old), &view(&new), true);
    assert_eq!((order, step), (Ordering::Less, Step::Age(Time(50), Time(10))));

    // RFC 5004 §3: not between internal routes, nor between sessions with one router.
    let (mut a, mut b) = (old.clone(), new.clone());
    (a.external, b.external) = (false, false);
    assert_eq!(compare(&view(&a), &view(&b), true).0, Ordering::Greater);
    let (mut a, b) = (old, new);
    (a.id, a.address) = (b.id, 6);
    let (order, step) = compare(&view(&a), &view(&b), true);
    assert_eq!((order, step.to_string().as_str()), (Ordering::Greater, "neighbour address 192.0.2.6 > 192.0.2.5"));
}

#[test]
fn no_route_and_equal_routes() {
    assert_eq!(select(&[], true), None);
    let (a, b) = (sample(), sample());
    assert_eq!(compare(&view(&a), &view(&b), true).0, Ordering::Equal);
}
