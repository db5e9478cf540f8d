//! From the prober's records to answers: who lands where, how long the gap was, who answered when.
//!
//! [`Log`] keeps the samples of every lane (a vantage point and a service address) in the order they were sent; the
//! rest are pure functions over a lane: [`landing`], [`effect`], [`runs`]. A query that was sent and neither answered
//! nor given up yet has no sample, so it counts nowhere.
//!
//! An outage is known to the interval between two queries: it starts when the first unanswered query was sent and ends
//! when the first query that is answered again was sent. A single query lost by chance therefore counts as one
//! interval. Where a lane has several gaps, the longest one is the outage.
//!
//! Deliberately absent: sockets, clocks, names of vantage points.

use std::collections::VecDeque;
use std::ops::Range;

use crate::probe::TIMEOUT;
use crate::probe::record::{Outcome, Quality, Record, Sample, SiteIndex, Span, UNKNOWN_SITE};
use crate::report::{IDLE, LOST, Run};

/// Most samples kept of a lane: 10,000 s at 200 queries per second. The oldest go first.
pub const MAX_LANE_SAMPLES: usize = 2_000_000;
/// Most spans of a late prober kept; the oldest go first.
const MAX_LATE_SPANS: usize = 10_000;

/// Everything the prober said.
#[derive(Clone, Debug, Default)]
pub struct Log {
    addresses: usize,
    lanes: Vec<VecDeque<Sample>>,
    sites: Vec<String>,
    late: VecDeque<Span>,
    quality: Quality,
    answered: u64,
    unanswered: Vec<u64>,
}

impl Log {
    /// An empty log of so many vantage points and addresses.
    pub fn new(vantages: usize, addresses: usize) -> Log {
        Log {
            addresses,
            lanes: vec![VecDeque::new(); vantages * addresses],
            unanswered: vec![0; vantages * addresses],
            ..Log::default()
        }
    }

    /// Takes one record. A sample of a lane that does not exist is ignored.
    pub fn record(&mut self, record: Record) {
        match record {
            Record::Site { index, name } => {
                let index = usize::from(index);
                if self.sites.len() <= index {
                    self.sites.resize(index + 1, String::new());
                }
                self.sites[index] = name;
            }
            Record::Sample(sample) => self.sample(sample),
            Record::Late(span) => {
                if self.late.len() == MAX_LATE_SPANS {
                    self.late.pop_front();
                }
                self.late.push_back(span);
            }
            Record::Quality(quality) => self.quality = quality,
        }
    }

    fn sample(&mut self, sample: Sample) {
        let Some(index) = lane_index(self.addresses, sample.vantage.into(), sample.address.into()) else {
            return;
        };
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        if lane.len() == MAX_LANE_SAMPLES {
            lane.pop_front();
        }
        if is_answered(&sample) {
            self.answered += 1;
        } else {
            self.unanswered[index] += 1;
        }
        // Outcomes come nearly in the order sent, so that the place is near the end.
        let place = lane.iter().rposition(|s| s.sent_ns <= sample.sent_ns).map_or(0, |i| i + 1);
        lane.insert(place, sample);
    }

    /// The name of a site; `None`: the answers did not tell.
    pub fn site_name(&self, site: SiteIndex) -> Option<&str> {
        let name = self.sites.get(usize::from(site))?;
        (site != UNKNOWN_SITE && !name.is_empty()).then_some(name.as_str())
    }

    /// The index of a site by name; `None`: it never answered.
    pub fn site_index(&self, name: &str) -> Option<SiteIndex> {
        self.sites.iter().skip(1).position(|s| s == name).and_then(|i| SiteIndex::try_from(i + 1).ok())
    }

    /// The samples of a lane sent within `window` (CLOCK_MONOTONIC ns), in that order.
    pub fn lane(&self, vantage: usize, address: usize, window: Range<u64>) -> Vec<Sample> {
        let Some(lane) = lane_index(self.addresses, vantage, address).and_then(|i| self.lanes.get(i)) else {
            return Vec::new();
        };
        let start = lane.partition_point(|s| s.sent_ns < window.start);
        let end = lane.partition_point(|s| s.sent_ns < window.end).max(start);
        lane.range(start..end).copied().collect()
    }

    /// Where every vantage point lands at a moment, by what was known within `back_ns` before it; in the order of the spec.
    pub fn landings(&self, address: usize, at_ns: u64, back_ns: u64) -> Vec<Landing> {
        let window = at_ns.saturating_sub(back_ns)..at_ns;
        let known = |vantage| {
            let mut samples = self.lane(vantage, address, window.clone());
            samples.retain(|sample| known_at(sample, at_ns));
            samples
        };
        self.vantages().map(|vantage| landing(&known(vantage))).collect()
    }

    /// What a fault did to every vantage point, in the order of the spec.
    pub fn effects(&self, address: usize, fault: &FaultWindow) -> Vec<Effect> {
        let late: Vec<Span> = self.late.iter().copied().collect();
        let window = fault.at_ns.saturating_sub(fault.before_ns)..fault.until_ns;
        self.vantages().map(|v| effect(&self.lane(v, address, window.clone()), fault, &late)).collect()
    }

    /// The timeline of every vantage point, cut in buckets from `window.start`; `site` gives the index shown for a site.
    pub fn timeline(
        &self,
        address: usize,
        window: Range<u64>,
        bucket_ns: u64,
        site: impl Fn(SiteIndex) -> Option<i32>,
    ) -> Vec<Vec<Run>> {
        self.vantages()
            .map(|v| runs(&self.lane(v, address, window.clone()), window.clone(), bucket_ns, &site))
            .collect()
    }

    /// Totals the prober stated last.
    pub fn quality(&self) -> Quality {
        self.quality
    }

    /// Queries answered, over all lanes.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Queries of a lane that were not answered.
    pub fn unanswered(&self, vantage: usize, address: usize) -> u64 {
        let lane = lane_index(self.addresses, vantage, address);
        lane.and_then(|lane| self.unanswered.get(lane)).copied().unwrap_or(0)
    }

    /// When the prober stood still.
    pub fn late(&self) -> impl Iterator<Item = &Span> {
        self.late.iter()
    }

    fn vantages(&self) -> Range<usize> {
        0..self.lanes.len().checked_div(self.addresses).unwrap_or(0)
    }
}

fn lane_index(addresses: usize, vantage: usize, address: usize) -> Option<usize> {
    (address < addresses).then(|| vantage * addresses + address)
}

/// Where a lane lands during a window.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Landing {
    /// The site of the last answer; `None`: the window ends with nobody answering (the last
    /// [`SILENT_QUERIES`] queries with an outcome were not answered), or nothing was sent.
    pub site: Option<SiteIndex>,
    /// Median round-trip time of that site's answers in the window, ns.
    pub rtt_ns: Option<u32>,
    /// When the last query that was answered was sent, CLOCK_MONOTONIC ns.
    pub last_answered_ns: Option<u64>,
    /// Queries answered.
    pub answered: u64,
    /// Queries not answered.
    pub unanswered: u64,
}

/// So many unanswered queries at the end of a window mean that nobody answers; fewer may be chance.
pub const SILENT_QUERIES: usize = 3;

/// When the outcome of a query that is not answered is known.
const LATE_ANSWER_NS: u64 = TIMEOUT.as_nanos() as u64;

/// The round-trip time at the end of an observation is told by the queries of this long.
const RECENT_NS: u64 = 600_000_000;

/// Whether the outcome of a query was known at a moment: its answer had arrived, or should have. Queries on their
/// way must not count: they are answered by whom the packets meet later.
fn known_at(sample: &Sample, at_ns: u64) -> bool {
    sample.sent_ns + rtt_of(sample).map_or(LATE_ANSWER_NS, u64::from) <= at_ns
}

/// Where a lane lands, by its samples of a window, in the order sent.
pub fn landing(samples: &[Sample]) -> Landing {
    let answered = samples.iter().filter(|s| is_answered(s)).count() as u64;
    let mut landing = Landing { answered, unanswered: samples.len() as u64 - answered, ..Landing::default() };
    let Some(last) = samples.iter().rposition(is_answered) else {
        return landing;
    };
    landing.last_answered_ns = Some(samples[last].sent_ns);
    if samples.len() - 1 - last >= SILENT_QUERIES {
        return landing;
    }
    landing.site = site_of(&samples[last]);
    let rtts = samples.iter().filter(|s| site_of(s) == landing.site).filter_map(rtt_of);
    landing.rtt_ns = median(rtts.collect());
    landing
}

/// A fault and the times of interest around it, CLOCK_MONOTONIC ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultWindow {
    /// The site hit; `None`: it never answered anybody.
    pub site: Option<SiteIndex>,
    /// When.
    pub at_ns: u64,
    /// End of the observation.
    pub until_ns: u64,
    /// How far back to look for where a vantage point was before, ns.
    pub before_ns: u64,
}

/// What a fault did to one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Effect {
    /// The site before; `None`: nobody answered.
    pub before: Option<SiteIndex>,
    /// The site at the end; `None`: nobody answers.
    pub after: Option<SiteIndex>,
    /// The vantage point was on the site hit.
    pub on_site: bool,
    /// The longest gap, ns; 0: nothing was lost. A gap that is still open ends with the observation.
    pub outage_ns: u64,
    /// How many gaps there were.
    pub gaps: u32,
    /// A gap is still open at the end.
    pub open: bool,
    /// Queries not answered.
    pub lost: u64,
    /// From the fault until the first answer by another site than before arrived, ns.
    pub first_other_ns: Option<u64>,
    /// How often the answering site changed beyond the one change of a clean move.
    pub flaps: u32,
    /// The prober itself stood still meanwhile: outage and losses are doubtful.
    pub doubtful: bool,
}

/// What a fault did to a lane, by its samples from `fault.at_ns - fault.before_ns` on, in the order sent.
///
/// Queries that were on their way when the fault struck (sent less than a round-trip time before) count as hit.
pub fn effect(samples: &[Sample], fault: &FaultWindow, late: &[Span]) -> Effect {
    let split = samples.partition_point(|s| s.sent_ns < fault.at_ns);
    let rtt_before = median(samples[..split].iter().filter_map(rtt_of).collect()).unwrap_or(0);
    let from_ns = fault.at_ns.saturating_sub(rtt_before.into());
    let hit = &samples[samples.partition_point(|s| s.sent_ns < from_ns)..];
    // Likewise at the end: what is still on its way then belongs to whatever comes next.
    let last = &hit[hit.partition_point(|s| s.sent_ns + RECENT_NS < fault.until_ns)..];
    let rtt_after = median(last.iter().filter(|s| known_at(s, fault.until_ns)).filter_map(rtt_of).collect());
    let end_ns = fault.until_ns.saturating_sub(rtt_after.unwrap_or(0).into());
    let hit = &hit[..hit.partition_point(|s| s.sent_ns < end_ns)];
    // What was in flight may already be lost or have gone elsewhere: where the lane was before is told by the answers to
    // what was sent earlier, however old.
    let earlier = samples.partition_point(|s| s.sent_ns < from_ns);
    let before = samples[..earlier].iter().rev().chain(&samples[earlier..split]).find_map(site_of);
    let settled: Vec<Sample> = hit.iter().copied().filter(|s| known_at(s, fault.until_ns)).collect();
    let gaps = gaps(hit, fault.until_ns);
    let mut effect = Effect {
        before,
        after: if settled.is_empty() { before } else { landing(&settled).site },
        on_site: before.is_some() && before == fault.site,
        gaps: gaps.len() as u32,
        open: settled.last().is_some_and(|s| !is_answered(s)) && landing(&settled).site.is_none(),
        lost: hit.iter().filter(|s| !is_answered(s)).count() as u64,
        ..Effect::default()
    };
    let longest = gaps.iter().max_by_key(|g| g.until_ns - g.from_ns);
    effect.outage_ns = longest.map_or(0, |g| g.until_ns - g.from_ns);
    effect.first_other_ns = hit.iter().find_map(|s| match s.outcome {
        Outcome::Answered { site, rtt_ns } if Some(site) != before && s.sent_ns >= from_ns => {
            Some((s.sent_ns + u64::from(rtt_ns)).saturating_sub(fault.at_ns))
        }
        _ => None,
    });
    let sites: Vec<SiteIndex> = before.into_iter().chain(hit.iter().filter_map(site_of)).collect();
    let changes = sites.windows(2).filter(|w| w[0] != w[1]).count() as u32;
    let moved = effect.after.is_some() && effect.before.is_some() && effect.after != effect.before;
    effect.flaps = changes.saturating_sub(u32::from(moved));
    let busy_until = longest.map_or(fault.at_ns, |g| g.until_ns).max(fault.at_ns + effect.first_other_ns.unwrap_or(0));
    effect.doubtful = late.iter().any(|s| s.from_ns <= busy_until && s.until_ns >= from_ns);
    effect
}

/// Runs of unanswered queries: from the sending of the first to the sending of the next answered one.
fn gaps(samples: &[Sample], until_ns: u64) -> Vec<Span> {
    let mut gaps = Vec::new();
    let mut open = None;
    for sample in samples {
        match (open, is_answered(sample)) {
            (None, false) => open = Some(sample.sent_ns),
            (Some(from_ns), true) => {
                gaps.push(Span { from_ns, until_ns: sample.sent_ns });
                open = None;
            }
            _ => {}
        }
    }
    gaps.extend(open.map(|from_ns| Span { from_ns, until_ns: until_ns.max(from_ns) }));
    gaps
}

/// Median, worst and sum over the lanes that were on the site hit; losses over all lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Summary {
    /// Median outage of those on the site, ns; `None`: nobody was.
    pub median_ns: Option<u64>,
    /// Longest outage of those on the site, ns.
    pub worst_ns: Option<u64>,
    /// Queries lost by all lanes.
    pub lost: u64,
    /// How many lanes were on the site.
    pub on_site: usize,
    /// Some number is doubtful.
    pub doubtful: bool,
}

/// Sums up the effects of one fault. The median of an even count is the mean of the middle two.
pub fn summary(effects: &[Effect]) -> Summary {
    let mut outages: Vec<u64> = effects.iter().filter(|e| e.on_site).map(|e| e.outage_ns).collect();
    outages.sort_unstable();
    let middle = outages.len() / 2;
    let median_ns = match outages.len() {
        0 => None,
        n if n % 2 == 1 => Some(outages[middle]),
        _ => Some(outages[middle - 1].midpoint(outages[middle])),
    };
    Summary {
        median_ns,
        worst_ns: outages.last().copied(),
        lost: effects.iter().map(|e| e.lost).sum(),
        on_site: outages.len(),
        doubtful: effects.iter().any(|e| e.doubtful && (e.on_site || e.lost > 0)),
    }
}

/// Cuts a lane in buckets: the site that answered last in each, [`LOST`] when any query of it was not answered,
/// [`IDLE`] when none was sent. A site without index counts as [`IDLE`].
pub fn runs(
    samples: &[Sample],
    window: Range<u64>,
    bucket_ns: u64,
    site: impl Fn(SiteIndex) -> Option<i32>,
) -> Vec<Run> {
    let bucket_ns = bucket_ns.max(1);
    let buckets = window.end.saturating_sub(window.start).div_ceil(bucket_ns);
    let mut runs: Vec<Run> = Vec::new();
    let mut rest = samples;
    for bucket in 0..buckets {
        let end = window.start + (bucket + 1) * bucket_ns;
        let (here, later) = rest.split_at(rest.partition_point(|s| s.sent_ns < end));
        rest = later;
        let value = match here.last() {
            None => IDLE,
            Some(_) if here.iter().any(|s| !is_answered(s)) => LOST,
            Some(last) => site_of(last).and_then(&site).unwrap_or(IDLE),
        };
        match runs.last_mut() {
            Some(run) if run.0 == value => run.1 += 1,
            _ => runs.push(Run(value, 1)),
        }
    }
    runs
}

fn is_answered(sample: &Sample) -> bool {
    matches!(sample.outcome, Outcome::Answered { .. })
}

fn site_of(sample: &Sample) -> Option<SiteIndex> {
    match sample.outcome {
        Outcome::Answered { site, .. } => Some(site),
        _ => None,
    }
}

fn rtt_of(sample: &Sample) -> Option<u32> {
    match sample.outcome {
        Outcome::Answered { rtt_ns, .. } => Some(rtt_ns),
        _ => None,
    }
}

/// The lower median.
fn median(mut values: Vec<u32>) -> Option<u32> {
    let middle = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable(middle).1)
}

#[cfg(test)]
mod tests;
