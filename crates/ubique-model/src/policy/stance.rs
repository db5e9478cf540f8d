//! What a site wants its upstreams to believe: its level, how far it sheds load, whether it leaves.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Announcement, sorted};
use crate::net::{AddressFamily, Asn, Community, Family, LargeCommunity, Prefix};
use crate::service::spec::MAX_PREPEND;
use crate::service::{Action, Service, Site, Upstream};

/// How well a site serves; the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should.
    Healthy,
    /// It serves, but others should be preferred.
    Degraded,
    /// It does not serve.
    Failed,
}

impl Level {
    /// All of them, the best first.
    pub const ALL: [Level; 3] = [Level::Healthy, Level::Degraded, Level::Failed];

    /// As files and metrics spell it.
    pub fn word(self) -> &'static str {
        match self {
            Level::Healthy => "healthy",
            Level::Degraded => "degraded",
            Level::Failed => "failed",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a site that is not silent tells its upstreams; [`announcements`] says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stance {
    /// How well it serves.
    pub level: Level,
    /// Steps of `[[shed]]` taken.
    pub shed: u8,
    /// It is about to withdraw: with GRACEFUL_SHUTDOWN (RFC 8326 §4).
    pub leaving: bool,
    /// It should be silent, but nobody else is there: marked with [`last_resort_marker`].
    pub last_resort: bool,
}

impl Stance {
    /// Of a healthy site.
    pub const HEALTHY: Stance = Stance::at(Level::Healthy);

    /// Of a site at this level that does nothing else.
    pub const fn at(level: Level) -> Stance {
        Stance { level, shed: 0, leaving: false, last_resort: false }
    }
}

impl fmt::Display for Stance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.level)?;
        if self.shed > 0 {
            write!(f, ", shedding by {}", self.shed)?;
        }
        if self.leaving {
            f.write_str(", leaving")?;
        }
        if self.last_resort {
            f.write_str(", as last resort")?;
        }
        Ok(())
    }
}

/// Local parts of the large community that marks what a site of last resort announces.
pub const LAST_RESORT: [u32; 2] = [0, 911];

/// Marks what a site of last resort announces, so that others of its kind do not give way to it.
pub fn last_resort_marker(asn: Asn) -> LargeCommunity {
    LargeCommunity([asn.0, LAST_RESORT[0], LAST_RESORT[1]])
}

/// What a site announces to `upstream` while it takes this stance; empty: everything is withdrawn.
///
/// The upstream's own attributes come first, then what the level says, then each step of shedding. A site of last resort
/// says what a degraded and a failed one say, but for their `withdraw`; steps of shedding go on withdrawing.
pub fn announcements(service: &Service, upstream: &Upstream, stance: &Stance) -> Vec<Announcement> {
    let mut told = Told::plainly(upstream);
    let levels = &service.levels;
    let degraded = upstream.degraded.as_ref().unwrap_or(&levels.degraded);
    let failed = upstream.failed.as_ref().unwrap_or(&levels.failed);
    match stance.level {
        _ if stance.last_resort => {
            told.add(degraded);
            told.add(failed);
            told.withdrawn = false;
        }
        Level::Healthy => {}
        Level::Degraded => told.add(degraded),
        Level::Failed => told.add(failed),
    }
    let steps = service.shed.iter().take(usize::from(stance.shed));
    steps.filter(|step| step.concerns(upstream)).for_each(|step| told.add(&step.action));
    if stance.leaving || stance.last_resort {
        told.communities.push(Community::GRACEFUL_SHUTDOWN);
    }
    if stance.last_resort {
        told.large_communities.push(last_resort_marker(service.asn));
    }
    told.announcements(service, upstream)
}

/// Whether nobody hears of the site while it takes this stance.
pub fn is_silent(service: &Service, site: &Site, stance: &Stance) -> bool {
    let neighbours = site.upstreams.iter().chain(site.dynamic.iter().map(|d| &d.template));
    neighbours.into_iter().all(|upstream| announcements(service, upstream, stance).is_empty())
}

/// What an upstream is told, of each prefix alike.
struct Told {
    prepend: u8,
    med: Option<u32>,
    communities: Vec<Community>,
    large_communities: Vec<LargeCommunity>,
    more_specifics: Vec<Prefix>,
    blackhole: bool,
    withdrawn: bool,
}

impl Told {
    fn plainly(upstream: &Upstream) -> Told {
        Told {
            prepend: upstream.prepend,
            med: upstream.med,
            communities: upstream.communities.clone(),
            large_communities: upstream.large_communities.clone(),
            more_specifics: vec![],
            blackhole: false,
            withdrawn: false,
        }
    }

    fn add(&mut self, action: &Action) {
        self.prepend = self.prepend.saturating_add(action.prepend).min(MAX_PREPEND);
        self.med = action.med.or(self.med);
        self.communities.extend(&action.communities);
        self.large_communities.extend(&action.large_communities);
        self.more_specifics.extend(&action.more_specifics);
        self.blackhole |= action.blackhole;
        self.withdrawn |= action.withdraw;
    }

    fn announcements(self, service: &Service, upstream: &Upstream) -> Vec<Announcement> {
        if self.withdrawn {
            return vec![];
        }
        let plain = |prefix| Announcement {
            prefix,
            prepend: self.prepend,
            med: self.med,
            communities: sorted(&self.communities),
            extended_communities: sorted(&upstream.extended_communities),
            large_communities: sorted(&self.large_communities),
        };
        let dropped = |prefix| {
            let mut host: Announcement = plain(prefix);
            host.communities.extend([Community::BLACKHOLE, Community::NO_EXPORT]);
            host.communities = sorted(&host.communities);
            host
        };
        let carried = |prefix: &Prefix| upstream.families.contains(&AddressFamily::unicast(Family::of(prefix)));
        // A prefix that is itself a host route is dropped, not served.
        let hosts: Vec<Prefix> = service.addresses.iter().filter(|_| self.blackhole).map(|a| (*a).into()).collect();
        let mut prefixes = service.prefixes.clone();
        for prefix in &self.more_specifics {
            if !prefixes.contains(prefix) {
                prefixes.push(*prefix);
            }
        }
        prefixes.retain(|prefix| carried(prefix) && !hosts.contains(prefix));
        let served = prefixes.into_iter().map(plain);
        served.chain(hosts.into_iter().filter(carried).map(dropped)).collect()
    }
}
