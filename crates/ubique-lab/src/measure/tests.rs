//! Timelines with known truth.

use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;
const EVERY: u64 = 5 * MS;

fn answered(sent_ms: u64, site: SiteIndex, rtt_ms: u64) -> Sample {
    let outcome = Outcome::Answered { site, rtt_ns: (rtt_ms * MS) as u32 };
    Sample { vantage: 0, address: 0, sent_ns: sent_ms * MS, outcome }
}

fn lost(sent_ms: u64) -> Sample {
    Sample { vantage: 0, address: 0, sent_ns: sent_ms * MS, outcome: Outcome::Lost }
}

fn window(at_ms: u64, until_ms: u64) -> FaultWindow {
    FaultWindow { site: Some(1), at_ns: at_ms * MS, until_ns: until_ms * MS, before_ns: 500 * MS }
}

/// A lane as the network would make it: site 1 with `rtt` until `at`, nobody for `gap`, then `after` with its own
/// round-trip time. A query is answered by whoever is there when it arrives.
fn truth(start: u64, end: u64, rtt: u64, at: u64, gap: u64, after: SiteIndex, rtt_after: u64) -> Vec<Sample> {
    (start..end)
        .step_by(EVERY as usize)
        .map(|sent_ns| {
            let arrival = sent_ns + rtt / 2;
            let outcome = if arrival < at {
                Outcome::Answered { site: 1, rtt_ns: rtt as u32 }
            } else if arrival < at + gap {
                Outcome::Lost
            } else {
                Outcome::Answered { site: after, rtt_ns: rtt_after as u32 }
            };
            Sample { vantage: 0, address: 0, sent_ns, outcome }
        })
        .collect()
}

proptest! {
    #[test]
    fn a_gap_is_measured_to_one_interval(
        start in 0..EVERY,
        rtt in 100_000..300 * MS,
        at in 1000 * MS..1100 * MS,
        gap in 0..2000 * MS,
        after in 1u16..4,
        rtt_after in 100_000..300 * MS,
    ) {
        let samples = truth(start, 4000 * MS, rtt, at, gap, after, rtt_after);
        let fault = FaultWindow { site: Some(1), at_ns: at, until_ns: 4000 * MS, before_ns: 500 * MS };
        let effect = effect(&samples, &fault, &[]);
        prop_assert!(effect.outage_ns.abs_diff(gap) < EVERY, "{effect:?}");
        let lost = samples.iter().filter(|s| !is_answered(s)).count() as u64;
        prop_assert_eq!(effect.lost, lost);
        prop_assert_eq!(effect.outage_ns, lost * EVERY);
        prop_assert_eq!((effect.before, effect.after), (Some(1), Some(after)));
        prop_assert_eq!((effect.on_site, effect.open, effect.flaps), (true, false, 0));
        prop_assert_eq!(effect.gaps, u32::from(lost > 0));
        // The first query answered elsewhere arrives when site 1 is gone and the gap is over.
        let first = (start..).step_by(EVERY as usize).find(|sent| sent + rtt / 2 >= at + gap).unwrap();
        let arrived = (first + rtt_after).saturating_sub(at);
        prop_assert_eq!(effect.first_other_ns, (after != 1).then_some(arrived));
    }

    #[test]
    fn samples_in_any_order_make_the_same_log(
        gap in 0..500 * MS,
        order in proptest::collection::vec(any::<u32>(), 400),
    ) {
        let samples = truth(0, 2000 * MS, 20 * MS, 1000 * MS, gap, 2, 30 * MS);
        let mut shuffled: Vec<_> = samples.iter().zip(&order).collect();
        shuffled.sort_by_key(|(_, key)| **key);
        let mut log = Log::new(1, 1);
        shuffled.iter().for_each(|(sample, _)| log.record(Record::Sample(**sample)));
        prop_assert_eq!(log.lane(0, 0, 0..u64::MAX), samples);
    }

    #[test]
    fn runs_cover_the_window_and_keep_every_loss(
        samples in proptest::collection::vec((0u64..3000, 0u16..4), 0..300),
        start in 0u64..1000,
        length in 0u64..2500,
        bucket in 1u64..200,
    ) {
        let mut samples: Vec<Sample> =
            samples.into_iter().map(|(t, s)| if s == 0 { lost(t) } else { answered(t, s, 1) }).collect();
        samples.sort_by_key(|s| s.sent_ns);
        let (from, until) = (start * MS, (start + length) * MS);
        samples.retain(|s| (from..until).contains(&s.sent_ns));
        let runs = runs(&samples, from..until, bucket * MS, |s| Some(i32::from(s)));
        let buckets: Vec<i32> = runs.iter().flat_map(|r| std::iter::repeat_n(r.0, r.1 as usize)).collect();
        prop_assert_eq!(buckets.len() as u64, length.div_ceil(bucket));
        prop_assert!(runs.windows(2).all(|w| w[0].0 != w[1].0), "runs are as long as can be");
        for (i, value) in buckets.iter().enumerate() {
            let begin = from + i as u64 * bucket * MS;
            let here: Vec<_> = samples.iter().filter(|s| (begin..begin + bucket * MS).contains(&s.sent_ns)).collect();
            let truth = match here.last() {
                None => IDLE,
                Some(_) if here.iter().any(|s| !is_answered(s)) => LOST,
                Some(last) => i32::from(site_of(last).unwrap()),
            };
            prop_assert_eq!(*value, truth, "bucket {}", i);
        }
    }

    #[test]
    fn nothing_panics(
        samples in proptest::collection::vec((any::<u64>(), 0u16..3, any::<u32>()), 0..40),
        at_ns: u64, until_ns: u64, before_ns: u64, late in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..3),
    ) {
        let mut log = Log::new(1, 1);
        for (sent_ns, site, rtt_ns) in samples {
            let outcome = if site == 0 { Outcome::Lost } else { Outcome::Answered { site, rtt_ns } };
            log.record(Record::Sample(Sample { vantage: 0, address: 0, sent_ns, outcome }));
        }
        late.into_iter().for_each(|(from_ns, until_ns)| log.record(Record::Late(Span { from_ns, until_ns })));
        log.effects(0, &FaultWindow { site: Some(1), at_ns, until_ns, before_ns });
        log.landings(0, until_ns, until_ns.saturating_sub(at_ns));
    }
}

#[test]
fn a_query_under_way_when_the_fault_strikes_counts() {
    // 40 ms away: the queries of 985 to 1000 arrive after the fault at 1000.
    let samples = truth(0, 2000 * MS, 40 * MS, 1000 * MS, 10 * MS, 2, 50 * MS);
    let effect = effect(&samples, &window(1000, 2000), &[]);
    assert_eq!((effect.lost, effect.outage_ns), (2, 10 * MS));
    assert!(samples.iter().any(|s| !is_answered(s) && s.sent_ns < 1000 * MS));
}

#[test]
fn a_loss_long_before_the_fault_does_not_count() {
    let mut samples: Vec<_> = (0..400).map(|i| answered(i * 5, 1, 20)).collect();
    samples[150] = lost(750);
    let effect = effect(&samples, &window(1000, 2000), &[]);
    assert_eq!((effect.lost, effect.outage_ns, effect.gaps), (0, 0, 0));
}

#[test]
fn the_longest_of_several_gaps_is_the_outage() {
    let mut samples: Vec<_> = (0..400).map(|i| answered(i * 5, if i < 200 { 1 } else { 2 }, 4)).collect();
    for i in [200, 210, 211, 212, 220, 221] {
        samples[i] = lost(i as u64 * 5);
    }
    let effect = effect(&samples, &window(1000, 2000), &[]);
    assert_eq!((effect.outage_ns, effect.gaps, effect.lost), (15 * MS, 3, 6));
    assert!(!effect.open);
}

#[test]
fn a_gap_that_does_not_end_is_open() {
    let samples: Vec<_> = (0..300).map(|i| if i < 200 { answered(i * 5, 1, 4) } else { lost(i * 5) }).collect();
    // The observation is longer than what is known by now: the last queries have no outcome yet.
    let effect = effect(&samples, &window(1000, 2000), &[]);
    assert_eq!((effect.outage_ns, effect.open, effect.after), (1000 * MS, true, None));
    assert_eq!(effect.first_other_ns, None);
}

#[test]
fn moves_to_and_fro_are_flaps() {
    let site = |i: u64| match i {
        0..200 => 1,
        200..210 => 2,
        210..220 => 1,
        _ => 3,
    };
    let samples: Vec<_> = (0..400).map(|i| answered(i * 5, site(i), 4)).collect();
    let effect = effect(&samples, &window(1000, 2000), &[]);
    assert_eq!((effect.before, effect.after, effect.flaps), (Some(1), Some(3), 2));
    assert_eq!(effect.first_other_ns, Some(4 * MS));
    let there_and_back: Vec<_> = samples.iter().take(220).copied().collect();
    assert_eq!(super::effect(&there_and_back, &window(1000, 2000), &[]).flaps, 2);
}

#[test]
fn a_late_prober_makes_doubt_only_where_it_matters() {
    let samples = truth(0, 3000 * MS, 20 * MS, 1000 * MS, 100 * MS, 2, 30 * MS);
    let doubtful = |from: u64, until: u64| {
        let late = [Span { from_ns: from * MS, until_ns: until * MS }];
        effect(&samples, &window(1000, 3000), &late).doubtful
    };
    assert!(!doubtful(900, 970), "before");
    assert!(doubtful(1040, 1060), "during the outage");
    assert!(doubtful(900, 1500), "around it");
    assert!(!doubtful(1500, 1600), "after it");
}

#[test]
fn a_lane_elsewhere_is_not_on_the_site() {
    let samples: Vec<_> = (0..400).map(|i| answered(i * 5, 2, 4)).collect();
    let effect = effect(&samples, &window(1000, 2000), &[]);
    assert_eq!(effect, Effect { before: Some(2), after: Some(2), ..Effect::default() });
    let nothing = super::effect(&[], &window(1000, 2000), &[]);
    assert_eq!(nothing, Effect::default());
}

#[test]
fn landings_say_who_answers_last_and_how_fast() {
    let mut samples: Vec<_> = (0..10).map(|i| answered(i * 5, 1, 100)).collect();
    samples.extend((10..15).map(|i| answered(i * 5, 2, 20 + i)));
    let found = landing(&samples);
    assert_eq!((found.site, found.rtt_ns), (Some(2), Some(32 * MS as u32)));
    assert_eq!((found.answered, found.unanswered, found.last_answered_ns), (15, 0, Some(70 * MS)));
    samples.extend([lost(75), lost(80)]);
    assert_eq!(landing(&samples).site, Some(2), "two losses may be chance");
    samples.push(lost(85));
    let silent = landing(&samples);
    assert_eq!((silent.site, silent.rtt_ns, silent.unanswered), (None, None, 3));
    assert_eq!(landing(&[]), Landing::default());
}

#[test]
fn summaries_look_at_those_on_the_site_and_count_all_losses() {
    let effect =
        |on_site, outage_ms: u64, lost| Effect { on_site, outage_ns: outage_ms * MS, lost, ..Effect::default() };
    let all = [effect(true, 10, 2), effect(true, 40, 8), effect(false, 500, 1), effect(true, 0, 0)];
    let expected = Summary { median_ns: Some(10 * MS), worst_ns: Some(40 * MS), lost: 11, on_site: 3, doubtful: false };
    assert_eq!(summary(&all), expected);
    assert_eq!(summary(&all[..2]).median_ns, Some(25 * MS));
    assert_eq!(summary(&all[2..3]).median_ns, None);
}

#[test]
fn a_log_keeps_lanes_apart_and_knows_site_names() {
    let mut log = Log::new(2, 2);
    log.record(Record::Site { index: 2, name: "lon".into() });
    for vantage in 0..3 {
        for address in 0..3 {
            let sample = Sample { vantage, address, ..answered(u64::from(vantage) * 10 + u64::from(address), 2, 1) };
            log.record(Record::Sample(sample));
        }
    }
    for (vantage, address) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let lane = log.lane(vantage, address, 0..u64::MAX);
        assert_eq!(lane.len(), 1);
        assert_eq!(lane[0].sent_ns, (vantage as u64 * 10 + address as u64) * MS);
    }
    assert!(log.lane(0, 2, 0..u64::MAX).is_empty() && log.lane(2, 0, 0..u64::MAX).is_empty());
    assert_eq!((log.answered(), log.landings(0, u64::MAX, u64::MAX).len()), (4, 2));
    assert_eq!((log.site_name(2), log.site_name(1), log.site_name(0)), (Some("lon"), None, None));
    assert_eq!((log.site_index("lon"), log.site_index("ams")), (Some(2), None));
}
