//! The decision process (RFC 4271 §9.1.1 to §9.1.2.2) as a function of a set of routes.
//!
//! Elimination over the whole set, not a tournament of pairs: MULTI_EXIT_DISC is compared only between routes
//! of the same neighbour AS, so "better than" is not transitive and the order of pairwise comparisons would
//! decide. Each route that falls carries the [`Step`] that felled it, with both values, for explanations.
//!
//! Start at [`select`]; [`explain`] says why each other route lost, [`compare`] looks at two routes alone.
//! Additions to RFC 4271: long-lived stale routes come last (RFC 9494 §4.3), age of external routes (RFC 5004, optional),
//! ORIGINATOR_ID and CLUSTER_LIST (RFC 4456 §9).

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use ubique_model::Asn;

use crate::Time;
use crate::bgp::attributes::{Attributes, Origin};

/// A route as the decision process sees it.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    /// Its attributes.
    pub attributes: &'a Attributes,
    /// Kept long after its neighbour was gone, here or further on (RFC 9494).
    pub long_lived_stale: bool,
    /// Degree of preference (RFC 4271 §9.1.1), higher is better.
    pub local_pref: u32,
    /// Neighbour AS the route entered our AS from (RFC 4271 §9.1.2.2 c).
    pub neighbor: Asn,
    /// Learned over an external session.
    pub external: bool,
    /// Interior cost to its next hop.
    pub igp_metric: u32,
    /// BGP identifier of the neighbour.
    pub router_id: Ipv4Addr,
    /// Address of the neighbour.
    pub peer_address: IpAddr,
    /// Path identifier (RFC 7911).
    pub path_id: u32,
    /// When it was learned.
    pub learned: Time,
}

impl Path<'_> {
    /// MULTI_EXIT_DISC; a missing one counts as 0, the best (RFC 4271 §9.1.2.2 c).
    fn med(&self) -> u32 {
        self.attributes.med.unwrap_or(0)
    }

    /// ORIGINATOR_ID in place of the neighbour's identifier (RFC 4456 §9).
    fn identifier(&self) -> Ipv4Addr {
        self.attributes.originator_id.unwrap_or(self.router_id)
    }
}

/// The step at which a route lost: its own value first, then the value it lost against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Step {
    /// It never took part.
    Ineligible(Ineligible),
    /// The other is our own.
    OwnRoute,
    /// It is long-lived stale, the other is not (RFC 9494 §4.3).
    LongLivedStale,
    /// Degree of preference (RFC 4271 §9.1.1); higher wins.
    LocalPreference(u32, u32),
    /// Hops of the AS_PATH (§9.1.2.2 a); lower wins.
    AsPath(usize, usize),
    /// ORIGIN (§9.1.2.2 b); lower wins.
    Origin(Origin, Origin),
    /// MULTI_EXIT_DISC of the same neighbour AS (§9.1.2.2 c); lower wins.
    Med(u32, u32),
    /// Internal against external (§9.1.2.2 d).
    Internal,
    /// Interior cost of the next hop (§9.1.2.2 e); lower wins.
    IgpMetric(u32, u32),
    /// Age of external routes (RFC 5004); the earlier one wins.
    Age(Time, Time),
    /// BGP identifier (§9.1.2.2 f); lower wins.
    RouterId(Ipv4Addr, Ipv4Addr),
    /// Length of the CLUSTER_LIST (RFC 4456 §9); lower wins.
    ClusterList(usize, usize),
    /// Neighbour address (§9.1.2.2 g); lower wins.
    PeerAddress(IpAddr, IpAddr),
    /// Path identifier of the same neighbour (RFC 7911 leaves the choice open); lower wins.
    PathId(u32, u32),
}

/// Why a route does not take part in the decision (RFC 4271 §9.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ineligible {
    /// Import policy only observes this neighbour.
    Observed,
    /// Our own AS is in its AS_PATH.
    AsLoop(Asn),
    /// Its ORIGINATOR_ID is our identifier (RFC 4456 §8).
    OriginatorLoop,
    /// Our identifier is in its CLUSTER_LIST: we reflected it before (RFC 4456 §8).
    ClusterLoop,
    /// Its next hop is our own address (RFC 4271 §6.3).
    OwnNextHop,
    /// A route leak: marked to go to customers only, by this AS (RFC 9234 §5).
    Leak(Asn),
    /// It asks for packets to be discarded, which nobody agreed on (RFC 7999 §3.3).
    Blackhole,
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ineligible::Observed => f.write_str("observed only"),
            Ineligible::AsLoop(asn) => write!(f, "AS path holds our own AS {asn}"),
            Ineligible::OriginatorLoop => f.write_str("we are its originator"),
            Ineligible::ClusterLoop => f.write_str("we have reflected it before"),
            Ineligible::OwnNextHop => f.write_str("next hop is our own address"),
            Ineligible::Leak(asn) => write!(f, "route leak: AS {asn} marked it for customers only"),
            Ineligible::Blackhole => f.write_str("BLACKHOLE is not agreed on"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Ineligible(reason) => reason.fmt(f),
            Step::OwnRoute => f.write_str("own route preferred"),
            Step::LongLivedStale => f.write_str("long-lived stale, other not"),
            Step::LocalPreference(a, b) => relation(f, "local preference", a, b, a.cmp(b)),
            Step::AsPath(a, b) => relation(f, "AS path", a, b, a.cmp(b)),
            Step::Origin(a, b) => relation(f, "origin", origin_name(*a), origin_name(*b), a.cmp(b)),
            Step::Med(a, b) => relation(f, "MED", a, b, a.cmp(b)),
            Step::Internal => f.write_str("internal, other external"),
            Step::IgpMetric(a, b) => relation(f, "IGP metric", a, b, a.cmp(b)),
            Step::Age(a, b) => write!(f, "learned {:?} {}", gap(*a, *b), if a < b { "earlier" } else { "later" }),
            Step::RouterId(a, b) => relation(f, "router id", a, b, a.cmp(b)),
            Step::ClusterList(a, b) => relation(f, "cluster list", a, b, a.cmp(b)),
            Step::PeerAddress(a, b) => relation(f, "neighbour address", a, b, a.cmp(b)),
            Step::PathId(a, b) => relation(f, "path identifier", a, b, a.cmp(b)),
        }
    }
}

impl Step {
    /// The same step told from the winner's side: `AS path 4 > 3` becomes `AS path 3 < 4`.
    #[must_use]
    pub fn flipped(self) -> Step {
        match self {
            Step::Ineligible(_) | Step::OwnRoute | Step::LongLivedStale | Step::Internal => self,
            Step::LocalPreference(a, b) => Step::LocalPreference(b, a),
            Step::AsPath(a, b) => Step::AsPath(b, a),
            Step::Origin(a, b) => Step::Origin(b, a),
            Step::Med(a, b) => Step::Med(b, a),
            Step::IgpMetric(a, b) => Step::IgpMetric(b, a),
            Step::Age(a, b) => Step::Age(b, a),
            Step::RouterId(a, b) => Step::RouterId(b, a),
            Step::ClusterList(a, b) => Step::ClusterList(b, a),
            Step::PeerAddress(a, b) => Step::PeerAddress(b, a),
            Step::PathId(a, b) => Step::PathId(b, a),
        }
    }
}

fn relation(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    a: impl fmt::Display,
    b: impl fmt::Display,
    order: Ordering,
) -> fmt::Result {
    let sign = match order {
        Ordering::Less => '<',
        Ordering::Equal => '=',
        Ordering::Greater => '>',
    };
    write!(f, "{what} {a} {sign} {b}")
}

fn gap(a: Time, b: Time) -> std::time::Duration {
    if a < b { b.since(a) } else { a.since(b) }
}

fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Igp => "IGP",
        Origin::Egp => "EGP",
        Origin::Incomplete => "incomplete",
    }
}

/// Index of the best route; `None` for no routes. `prefer_oldest`: RFC 5004.
pub fn select(paths: &[Path<'_>], prefer_oldest: bool) -> Option<usize> {
    eliminate(paths, prefer_oldest, |_, _| {})
}

/// For each route the step at which it lost; `None` for the best.
pub fn explain(paths: &[Path<'_>], prefer_oldest: bool) -> Vec<Option<Step>> {
    let mut steps = vec![None; paths.len()];
    eliminate(paths, prefer_oldest, |index, step| steps[index] = Some(step));
    steps
}

/// Two routes alone: `Less` when `a` is preferred, and the step that decides, told from the loser's side.
/// In a larger set the outcome may differ: see the module's header.
pub fn compare(a: &Path<'_>, b: &Path<'_>, prefer_oldest: bool) -> (Ordering, Step) {
    let steps = explain(&[*a, *b], prefer_oldest);
    match (steps[0], steps[1]) {
        (None, Some(Step::PathId(x, y))) if x == y => (Ordering::Equal, Step::PathId(x, y)),
        (Some(step), _) => (Ordering::Greater, step),
        (None, Some(step)) => (Ordering::Less, step),
        (None, None) => unreachable!("one of two routes always loses"),
    }
}

/// The steps in order over all routes that remain; `lost` hears of each that falls.
fn eliminate(paths: &[Path<'_>], prefer_oldest: bool, mut lost: impl FnMut(usize, Step)) -> Option<usize> {
    let mut race = Race { paths, alive: (0..paths.len()).collect(), lost: &mut lost };
    race.keep_least(|p| p.long_lived_stale, |_, _| Step::LongLivedStale);
    race.keep_least(|p| Reverse(p.local_pref), |a, b| Step::LocalPreference(a.0, b.0));
    race.keep_least(|p| p.attributes.as_path.hops(), Step::AsPath);
    race.keep_least(|p| p.attributes.origin, Step::Origin);
    race.keep_least_med();
    race.keep_least(|p| !p.external, |_, _| Step::Internal);
    race.keep_least(|p| p.igp_metric, Step::IgpMetric);
    if prefer_oldest {
        race.keep_oldest();
    }
    race.keep_least(|p| p.identifier(), Step::RouterId);
    race.keep_least(|p| p.attributes.cluster_list.len(), Step::ClusterList);
    race.keep_least(|p| p.peer_address, Step::PeerAddress);
    race.keep_least(|p| p.path_id, Step::PathId);
    race.keep_first()
}

struct Race<'a, 'b> {
    paths: &'a [Path<'b>],
    alive: Vec<usize>,
    lost: &'a mut dyn FnMut(usize, Step),
}

impl Race<'_, '_> {
    fn keep_least<K: Ord + Copy>(&mut self, key: impl Fn(&Path<'_>) -> K, step: impl Fn(K, K) -> Step) {
        if self.alive.len() < 2 {
            return;
        }
        let Some(best) = self.alive.iter().map(|&i| key(&self.paths[i])).min() else {
            return;
        };
        self.alive.retain(|&i| {
            let own = key(&self.paths[i]);
            if own > best {
                (self.lost)(i, step(own, best));
            }
            own == best
        });
    }

    /// RFC 4271 §9.1.2.2 c: within each group of one neighbour AS.
    fn keep_least_med(&mut self) {
        if self.alive.len() < 2 {
            return;
        }
        let mut least: BTreeMap<Asn, u32> = BTreeMap::new();
        for path in self.alive.iter().map(|&i| &self.paths[i]) {
            let med = least.entry(path.neighbor).or_insert(u32::MAX);
            *med = path.med().min(*med);
        }
        self.alive.retain(|&i| {
            let path = &self.paths[i];
            let best = least[&path.neighbor];
            if path.med() > best {
                (self.lost)(i, Step::Med(path.med(), best));
            }
            path.med() == best
        });
    }

    /// RFC 5004 §3: between external routes of different routers, the one learned first stays.
    fn keep_oldest(&mut self) {
        let Some(&oldest) = self.alive.iter().min_by_key(|&&i| (self.paths[i].learned, i)) else {
            return;
        };
        let oldest = self.paths[oldest];
        if !oldest.external {
            return;
        }
        self.alive.retain(|&i| {
            let path = &self.paths[i];
            let stays = path.learned == oldest.learned || path.identifier() == oldest.identifier();
            if !stays {
                (self.lost)(i, Step::Age(path.learned, oldest.learned));
            }
            stays
        });
    }

    /// Two routes alike in everything cannot both be in a RIB; whoever asks about them gets the first.
    fn keep_first(&mut self) -> Option<usize> {
        let (&best, rest) = self.alive.split_first()?;
        for &i in rest {
            let path_id = self.paths[i].path_id;
            (self.lost)(i, Step::PathId(path_id, path_id));
        }
        Some(best)
    }
}
