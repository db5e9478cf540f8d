//! Why a vantage point lands on another site than the nearest.
//!
//! Every router knows its own decision: which routes it had, which one is best, and at which step of the decision
//! process (RFC 4271 §9.1) each other one lost. [`Explainer`] follows the best routes from a vantage point's network to
//! the site they end at and looks for the first network on the way that had a route to the nearer site and rejected it.
//! Where none had one, it searches the networks around for the closest one that uses the nearer site, and tells who did
//! not pass its route on: because another route was better there, or because policy forbids the export.
//!
//! Deliberately absent: asking the routers. The caller gives a closure that does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use ubique_model::location::Location;
use ubique_model::{Asn, Relation};

use crate::plan::cable_delay;
use crate::report::{LinkInfo, SiteInfo, VantageInfo};

/// A landing this much slower than the nearest site would be, in ms, is a surprise …
const SURPRISE_MS: f64 = 5.0;
/// … and also this much slower as a ratio.
const SURPRISE_RATIO: f64 = 1.25;
/// A route a network has for the service, as its router reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The neighbour it came from; `None`: its own.
    pub peer_asn: Option<Asn>,
    /// The neighbour's address.
    pub peer_address: Option<IpAddr>,
    /// Local preference.
    pub local_pref: u32,
    /// AS path.
    pub as_path: Vec<Asn>,
    /// It is the one in use.
    pub best: bool,
    /// Why it lost against the best: `AS path 3 < 4`.
    #[serde(default)]
    pub step: Option<String>,
}

/// Why a vantage point lands elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A network on the way had both routes and chose the other one.
    Decision,
    /// No network on the way had a route to the nearer site: a network beside the way chose the other one and told only that.
    DecisionBeside,
    /// No network on the way had a route to the nearer site: a neighbour that has one may not export it.
    NotExported,
    /// No network uses the nearer site.
    NotAnnounced,
    /// The routes known do not tell.
    Unknown,
}

/// A vantage point that lands on another site than the nearest, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Surprise {
    /// The vantage point.
    pub vantage: String,
    /// Where it lands.
    pub site: String,
    /// With which round-trip time.
    pub rtt_ms: Option<f64>,
    /// How far that is, km.
    pub km: f64,
    /// The nearest site.
    pub nearest_site: String,
    /// How far that is, km.
    pub nearest_km: f64,
    /// What its round-trip time would be over one cable of usual length, ms.
    pub nearest_rtt_ms: f64,
    /// What sort of reason.
    pub reason: Reason,
    /// The network whose decision or policy it was.
    pub decided_by: Option<Asn>,
    /// AS path of the route it chose.
    pub chosen: Vec<Asn>,
    /// AS path of the route to the nearer site it rejected or did not export.
    pub rejected: Vec<Asn>,
    /// The step that decided: `AS path 2 < 3`.
    pub step: String,
    /// All of it in one line.
    pub text: String,
}

/// Answers why, for one prefix at one moment.
pub struct Explainer<'a, F> {
    sites: &'a [SiteInfo],
    site_links: &'a BTreeMap<IpAddr, String>,
    neighbors: BTreeMap<Asn, BTreeMap<Asn, Relation>>,
    ask: F,
    known: BTreeMap<Asn, Vec<Candidate>>,
}

/// What was found out: the reason, who decided, chosen and rejected path, step, the sentence after the colon.
struct Finding {
    reason: Reason,
    decided_by: Option<Asn>,
    chosen: Vec<Asn>,
    rejected: Vec<Asn>,
    step: String,
    sentence: String,
}

impl<'a, F: FnMut(Asn) -> Vec<Candidate>> Explainer<'a, F> {
    /// `site_links`: address of a site on a session with an upstream → site. `ask`: the routes of a network's router.
    pub fn new(
        sites: &'a [SiteInfo],
        site_links: &'a BTreeMap<IpAddr, String>,
        links: &[LinkInfo],
        ask: F,
    ) -> Explainer<'a, F> {
        let mut neighbors: BTreeMap<Asn, BTreeMap<Asn, Relation>> = BTreeMap::new();
        for link in links {
            if let Some(b) = link.b {
                neighbors.entry(link.a).or_default().insert(b, link.relation);
                neighbors.entry(b).or_default().insert(link.a, mirrored(link.relation));
            }
        }
        Explainer { sites, site_links, neighbors, ask, known: BTreeMap::new() }
    }

    /// The networks from `asn` (included) to the last one before the site, along best routes, and the site.
    pub fn way(&mut self, asn: Asn) -> (Vec<Asn>, Option<String>) {
        let mut way = vec![asn];
        loop {
            let last = way[way.len() - 1];
            let Some(best) = self.candidates(last).iter().find(|c| c.best).cloned() else {
                return (way, None);
            };
            if let Some(site) = self.site_link(&best) {
                return (way, Some(site));
            }
            match best.peer_asn {
                Some(next) if !way.contains(&next) => way.push(next),
                _ => return (way, None),
            }
        }
    }

    /// The AS path of the best route of a network; empty: it has none.
    pub fn best_path(&mut self, asn: Asn) -> Vec<Asn> {
        self.candidates(asn).iter().find(|c| c.best).map(|c| c.as_path.clone()).unwrap_or_default()
    }

    /// Explains a landing; `None`: nothing surprising, it is the nearest site or nearly as fast.
    pub fn explain(&mut self, vantage: &VantageInfo, site: &str, rtt_ms: Option<f64>) -> Option<Surprise> {
        let from = place(&vantage.name, vantage.lat, vantage.lon);
        let distance = |s: &SiteInfo| from.distance_km(&place(&s.name, s.lat, s.lon));
        let nearest = self.sites.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        let landed = self.sites.iter().find(|s| s.name == site)?;
        let (km, nearest_km) = (distance(landed), distance(nearest));
        let usual_rtt_ms = |s: &SiteInfo| 2e3 * cable_delay(&[&from, &place(&s.name, s.lat, s.lon)]).as_secs_f64();
        let nearest_rtt_ms = usual_rtt_ms(nearest);
        let slower = rtt_ms.unwrap_or_else(|| usual_rtt_ms(landed));
        if landed.name == nearest.name || slower < (nearest_rtt_ms + SURPRISE_MS).max(nearest_rtt_ms * SURPRISE_RATIO) {
            return None;
        }
        let finding = self.find(vantage.asn, &nearest.name.clone());
        let mut text = format!("{} lands on {site}", vantage.name);
        if let Some(rtt_ms) = rtt_ms {
            let _ = write!(text, " ({rtt_ms:.0} ms)");
        }
        let _ = write!(text, " although {} is {nearest_km:.0} km away: {}", nearest.name, finding.sentence);
        Some(Surprise {
            vantage: vantage.name.clone(),
            site: site.to_owned(),
            rtt_ms,
            km,
            nearest_site: nearest.name.clone(),
            nearest_km,
            nearest_rtt_ms,
            reason: finding.reason,
            decided_by: finding.decided_by,
            chosen: finding.chosen,
            rejected: finding.rejected,
            step: finding.step,
            text,
        })
    }

    fn find(&mut self, asn: Asn, wanted: &str) -> Finding {
        let (way, _) = self.way(asn);
        for asn in &way {
            if let Some(finding) = self.rejected_by(*asn, None, wanted) {
                return finding;
            }
        }
        self.beside(&way, wanted).unwrap_or_else(|| Finding {
            reason: Reason::Unknown,
            decided_by: None,
            chosen: Vec::new(),
            rejected: Vec::new(),
            step: String::new(),
            sentence: "the routes known do not tell why".to_owned(),
        })
    }

    /// The decision of a network that has a route to the wanted site, from `peer` when given, and uses another one.
    fn rejected_by(&mut self, asn: Asn, peer: Option<Asn>, wanted: &str) -> Option<Finding> {
        let candidates = self.candidates(asn).to_vec();
        let best = candidates.iter().find(|c| c.best)?;
        let other = candidates.iter().filter(|c| !c.best && (peer.is_none() || c.peer_asn == peer)).find(|c| {
            let c = (*c).clone();
            self.site_of(&c).as_deref() == Some(wanted)
        })?;
        let step = other.step.clone().unwrap_or_else(|| deciding_step(best, other));
        let (chosen, rejected) = (path(&best.as_path), path(&other.as_path));
        Some(Finding {
            reason: Reason::Decision,
            decided_by: Some(asn),
            chosen: best.as_path.clone(),
            rejected: other.as_path.clone(),
            sentence: format!("{asn:?} chose {chosen} over {rejected}: {step}"),
            step,
        })
    }

    /// Nobody on the way had a route to the wanted site: finds the closest network that uses it, from the vantage point
    /// on, and what stands between.
    fn beside(&mut self, way: &[Asn], wanted: &str) -> Option<Finding> {
        let first = way[0];
        let mut towards: BTreeMap<Asn, Asn> = BTreeMap::new();
        let mut queue: VecDeque<Asn> = way.iter().copied().collect();
        let mut seen: BTreeSet<Asn> = way.iter().copied().collect();
        while let Some(asn) = queue.pop_front() {
            let next: Vec<Asn> = self.neighbors.get(&asn).map(|n| n.keys().copied().collect()).unwrap_or_default();
            for user in next {
                if !seen.insert(user) {
                    continue;
                }
                towards.insert(user, asn);
                queue.push_back(user);
                if self.way(user).1.as_deref() == Some(wanted) {
                    return Some(self.between(first, user, asn, wanted));
                }
            }
        }
        Some(Finding {
            reason: Reason::NotAnnounced,
            decided_by: None,
            chosen: Vec::new(),
            rejected: Vec::new(),
            step: String::new(),
            sentence: format!("no network around uses a route to {wanted}"),
        })
    }

    /// `user` uses the wanted site, its neighbour `asn` does not.
    fn between(&mut self, first: Asn, user: Asn, asn: Asn, wanted: &str) -> Finding {
        if let Some(mut finding) = self.rejected_by(asn, Some(user), wanted) {
            finding.reason = Reason::DecisionBeside;
            finding.sentence = format!("{first:?} was never offered a route to it, as {}", finding.sentence);
            return finding;
        }
        let best = self.candidates(user).iter().find(|c| c.best).cloned();
        let source = best.as_ref().and_then(|c| c.peer_asn);
        let relation = |of: Asn| self.neighbors.get(&user).and_then(|n| n.get(&of)).copied();
        let (from, to) = (source.and_then(relation), relation(asn));
        let rejected = best.map(|c| c.as_path).unwrap_or_default();
        let step = match (from, to) {
            (Some(from), Some(to)) => format!("a route from a {} is not exported to a {}", plain(from), plain(to)),
            _ => "export policy".to_owned(),
        };
        Finding {
            reason: Reason::NotExported,
            decided_by: Some(user),
            chosen: self.best_path(asn),
            sentence: format!(
                "{first:?} was never offered a route to it: {user:?} uses {} and did not tell {asn:?}: {step}",
                path(&rejected)
            ),
            rejected,
            step,
        }
    }

    /// The site a route leads to: over a site's link, or where the neighbour's best route leads.
    fn site_of(&mut self, candidate: &Candidate) -> Option<String> {
        self.site_link(candidate).or_else(|| self.way(candidate.peer_asn?).1)
    }

    fn site_link(&self, candidate: &Candidate) -> Option<String> {
        self.site_links.get(&candidate.peer_address?).cloned()
    }

    fn candidates(&mut self, asn: Asn) -> &[Candidate] {
        self.known.entry(asn).or_insert_with(|| (self.ask)(asn))
    }
}

/// Which step decides between two routes, as far as what is known of them tells.
fn deciding_step(best: &Candidate, other: &Candidate) -> String {
    let (a, b) = (best.as_path.len(), other.as_path.len());
    if best.local_pref != other.local_pref {
        format!("local preference {} > {}", best.local_pref, other.local_pref)
    } else if a != b {
        format!("AS path {a} < {b}")
    } else {
        "a later tie-breaker".to_owned()
    }
}

fn path(asns: &[Asn]) -> String {
    let mut text = String::from("[");
    for (i, asn) in asns.iter().enumerate() {
        let _ = write!(text, "{}{asn:?}", if i > 0 { " " } else { "" });
    }
    text + "]"
}

fn place(name: &str, latitude: f64, longitude: f64) -> Location {
    Location { name: name.to_owned(), latitude, longitude }
}

/// The relation seen from the other end.
fn mirrored(relation: Relation) -> Relation {
    match relation {
        Relation::Transit => Relation::Customer,
        Relation::Customer => Relation::Transit,
        same => same,
    }
}

fn plain(relation: Relation) -> &'static str {
    match relation {
        Relation::Transit => "provider",
        Relation::Peer | Relation::RouteServer => "peer",
        Relation::Internal => "network of its own",
        Relation::Customer => "customer",
    }
}

#[cfg(test)]
mod tests;
