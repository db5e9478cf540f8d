//! The last-site guard: never black-hole.
//!
//! After a withdrawal because of failed health the site watches what its upstreams send for the service's prefixes. When
//! none of them shows another site for the configured time, this was the last one: the site speaks again, as *last
//! resort*, which others can tell by its marker. All of it is local: nothing but BGP and, where BGP shows nothing, a ping
//! sent out through an upstream.
//!
//! What may be concluded from silence depends on the upstream. Many routers never send a route back to an AS that is in
//! its path, so silence counts only where the service file promises a full view, or the upstream has shown another site
//! before; most do when the session comes up, before this site has announced anything. In the same way an upstream
//! *moves* when it shows another site while we announce with GRACEFUL_SHUTDOWN: from such a one a site of last resort
//! learns all it needs while it goes on announcing. Otherwise it must withdraw to look again, with growing waits.
//!
//! A failure of what the service answers, rather than of answering, may be the fault of the check. With an upstream that
//! moves, such a site becomes last resort first and withdraws once it has seen a fit site for the whole time: one bad
//! check pushed to all sites silences none.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::service::Guard;

use super::{Others, Shown, UpstreamConfig};
use crate::Time;

/// Longest wait before a site of last resort tries again to withdraw.
pub const RETRY_MAX: Duration = Duration::from_secs(3600);

/// How much longer than asked for a ping may take to be reported.
const PROBE_GRACE: Duration = Duration::from_secs(1);

/// What one upstream tells of other sites.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Upstream {
    /// What the service file says.
    full_view: Option<bool>,
    /// It has shown another site.
    shows: bool,
    /// It has shown another site while we announced with GRACEFUL_SHUTDOWN.
    moves: bool,
    /// Since when its session is up.
    up: Option<Time>,
    others: Others,
    /// Since when it shows that.
    since: Time,
    probe: Probe,
}

/// A ping through an upstream that shows no routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Probe {
    Idle,
    Asked(Time),
    Answered(Time),
    Silent(Time),
    Failed(Time),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// The site is fit, wanted empty, or never was announced.
    Idle,
    /// Withdrawn; `again`: after having been last resort.
    Watching { since: Time, again: bool },
    /// Announced as last resort; `trial`: until it is known whether others take over.
    Resort { since: Time, trial: bool },
}

/// The guard.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LastSite {
    config: Guard,
    upstreams: BTreeMap<String, Upstream>,
    phase: Phase,
    /// The site was announced in this life: what never served is no resort.
    armed: bool,
    /// Withdrawals in a row that ended as last resort again.
    vain: u32,
    /// When a withdrawal that could as well wait fits into the flap budget.
    try_at: Time,
}

/// What the guard must know of its site.
#[derive(Clone, Copy)]
pub(super) struct Situation {
    /// Nothing to guard: it is fit, or an operator wants it empty.
    pub unneeded: bool,
    /// It is announced.
    pub announced: bool,
    /// As last resort.
    pub resort: bool,
    /// The service answers, but not what it should.
    pub answers: bool,
    /// When a withdrawal that could as well wait fits into the flap budget.
    pub try_at: Time,
}

impl Upstream {
    fn new(full_view: Option<bool>) -> Upstream {
        Upstream {
            full_view,
            shows: false,
            moves: false,
            up: None,
            others: Others::None,
            since: Time::ZERO,
            probe: Probe::Idle,
        }
    }

    fn judges_by_routes(&self) -> bool {
        match self.full_view {
            Some(full) => full,
            None => self.shows,
        }
    }

    fn is_trusted(&self) -> bool {
        self.up.is_some() && (self.full_view == Some(true) || self.moves)
    }

    fn sees_somebody(&self) -> bool {
        self.up.is_some() && (self.others != Others::None || matches!(self.probe, Probe::Answered(_)))
    }
}

impl LastSite {
    pub(super) fn new(config: Guard, upstreams: &[UpstreamConfig], shown: &[Shown]) -> LastSite {
        let mut guard = LastSite {
            config,
            upstreams: BTreeMap::new(),
            phase: Phase::Idle,
            armed: false,
            vain: 0,
            try_at: Time::ZERO,
        };
        guard.reconfigure(config, upstreams);
        for shown in shown {
            if let Some(upstream) = guard.upstreams.get_mut(&shown.upstream) {
                (upstream.shows, upstream.moves) = (true, shown.moves);
            }
        }
        guard
    }

    /// Other parameters; what is known of upstreams that stay is kept.
    pub(super) fn reconfigure(&mut self, config: Guard, upstreams: &[UpstreamConfig]) {
        self.config = config;
        let mut old = std::mem::take(&mut self.upstreams);
        for UpstreamConfig { name, full_view } in upstreams {
            let known = old.remove(name).unwrap_or_else(|| Upstream::new(*full_view));
            self.upstreams.insert(name.clone(), Upstream { full_view: *full_view, ..known });
        }
    }

    /// What has been learned, to be known after a restart.
    pub(super) fn shown(&self) -> Vec<Shown> {
        let known = self.upstreams.iter().filter(|(_, u)| u.shows);
        known.map(|(name, u)| Shown { upstream: name.clone(), moves: u.moves }).collect()
    }

    /// The site is announced in earnest.
    pub(super) fn arm(&mut self) {
        self.armed = true;
    }

    /// What an upstream shows; `leaving`: while we announce with GRACEFUL_SHUTDOWN. Neighbours from ranges come and go.
    pub(super) fn others(&mut self, now: Time, name: String, up: bool, others: Others, leaving: bool) {
        if !up {
            if let Some(u) = self.upstreams.get_mut(&name) {
                (u.up, u.others, u.since, u.probe) = (None, Others::None, now, Probe::Idle);
            }
            return;
        }
        if self.upstreams.len() >= super::MAX_UPSTREAMS && !self.upstreams.contains_key(&name) {
            return;
        }
        let u = self.upstreams.entry(name).or_insert_with(|| Upstream::new(None));
        u.up.get_or_insert(now);
        if u.others != others {
            (u.others, u.since) = (others, now);
        }
        u.shows |= others != Others::None;
        u.moves |= others != Others::None && leaving;
    }

    /// The end of a ping; `Err`: it could not be sent.
    pub(super) fn probed(&mut self, now: Time, name: &str, answered: Result<bool, String>) {
        if let Some(u) = self.upstreams.get_mut(name)
            && matches!(u.probe, Probe::Asked(_))
        {
            u.probe = match answered {
                Ok(true) => Probe::Answered(now),
                Ok(false) => Probe::Silent(now),
                Err(_) => Probe::Failed(now),
            };
        }
    }

    /// The site is not there: what follows is looked at anew.
    pub(super) fn rest(&mut self) {
        self.phase = Phase::Idle;
    }

    /// Whether the site is to speak although it is not fit.
    pub(super) fn is_resort(&self) -> bool {
        matches!(self.phase, Phase::Resort { .. })
    }

    /// Whether that is certain: no fit site has taken over.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.phase, Phase::Resort { trial: false, .. })
    }

    fn sees_fit(&self) -> bool {
        self.upstreams.values().any(|u| u.up.is_some() && u.others == Others::Fit)
    }

    /// Goes on; returns the upstreams that a ping is to be sent through.
    pub(super) fn advance(&mut self, now: Time, site: Situation) -> Vec<String> {
        if site.unneeded || self.config.last_site.is_zero() || !self.armed {
            self.phase = Phase::Idle;
            self.vain = 0;
            return vec![];
        }
        self.try_at = site.try_at;
        match self.phase {
            // It has recovered and failed again before upstreams were told.
            Phase::Idle if site.resort => self.phase = Phase::Resort { since: now, trial: false },
            Phase::Idle if site.announced && site.answers && self.upstreams.values().any(Upstream::is_trusted) => {
                self.phase = Phase::Resort { since: now, trial: true };
            }
            Phase::Idle => self.watch(now, false),
            Phase::Watching { since, again } => {
                self.expire_probes(now);
                if self.alone_at(since).is_some_and(|at| at <= now) {
                    self.vain = self.vain.saturating_add(u32::from(again));
                    self.phase = Phase::Resort { since: now, trial: false };
                }
            }
            Phase::Resort { since, trial } => {
                let leave = self.leave_at(since).is_some_and(|at| at <= now);
                if leave || self.look_at(since).is_some_and(|at| at <= now) {
                    self.watch(now, true);
                } else if trial && since + self.config.last_site <= now && !self.sees_fit() {
                    self.phase = Phase::Resort { since, trial: false };
                }
            }
        }
        self.ask(now)
    }

    fn watch(&mut self, now: Time, again: bool) {
        self.phase = Phase::Watching { since: now, again };
        self.upstreams.values_mut().for_each(|u| u.probe = Probe::Idle);
    }

    fn expire_probes(&mut self, now: Time) {
        let patience = self.config.last_site + PROBE_GRACE;
        for u in self.upstreams.values_mut() {
            if let Probe::Asked(at) = u.probe
                && at + patience <= now
            {
                u.probe = Probe::Failed(now);
            }
        }
    }

    /// Pings due now.
    fn ask(&mut self, now: Time) -> Vec<String> {
        if !matches!(self.phase, Phase::Watching { .. }) {
            return vec![];
        }
        let retry = self.config.retry;
        let mut asked = vec![];
        for (name, u) in &mut self.upstreams {
            if u.full_view == Some(false) && u.up.is_some() && u.probe_at(retry).is_some_and(|at| at <= now) {
                u.probe = Probe::Asked(now);
                asked.push(name.clone());
            }
        }
        asked
    }

    /// When it is certain that nobody else is there; `None`: somebody is, or nobody can tell.
    fn alone_at(&self, since: Time) -> Option<Time> {
        let mut certain = None;
        for u in self.upstreams.values() {
            let Some(up) = u.up else { continue };
            if u.sees_somebody() {
                return None;
            }
            let at = match u.probe {
                _ if u.judges_by_routes() => since.max(up).max(u.since) + self.config.last_site,
                _ if u.full_view.is_none() => continue,
                Probe::Idle | Probe::Asked(_) => return None,
                Probe::Silent(at) => at,
                Probe::Answered(_) | Probe::Failed(_) => continue,
            };
            certain = certain.max(Some(at));
        }
        certain
    }

    /// When a site of last resort gives way to a fit one it sees.
    fn leave_at(&self, since: Time) -> Option<Time> {
        let fit = self.upstreams.values().filter(|u| u.up.is_some() && u.others == Others::Fit);
        let seen = fit.map(|u| u.since.max(since) + self.config.last_site).min()?;
        let patience = if self.vain == 0 { Duration::ZERO } else { self.backoff(self.vain - 1) };
        Some(seen.max(since + patience))
    }

    /// When a site of last resort withdraws to look, since no upstream shows others while it speaks.
    fn look_at(&self, since: Time) -> Option<Time> {
        let blind = !self.upstreams.values().any(Upstream::is_trusted);
        blind.then(|| self.try_at.max(since + self.backoff(self.vain)))
    }

    fn backoff(&self, times: u32) -> Duration {
        self.config.retry.saturating_mul(1 << times.min(16)).min(RETRY_MAX)
    }

    /// When [`LastSite::advance`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Idle => None,
            Phase::Resort { since, trial } => {
                let proof = (trial && !self.sees_fit()).then(|| since + self.config.last_site);
                [proof, self.leave_at(since), self.look_at(since)].into_iter().flatten().min()
            }
            Phase::Watching { since, .. } => {
                let probed = self.upstreams.values().filter(|u| u.full_view == Some(false) && u.up.is_some());
                let patience = self.config.last_site + PROBE_GRACE;
                let probe = probed.filter_map(|u| match u.probe {
                    Probe::Asked(at) => Some(at + patience),
                    _ => u.probe_at(self.config.retry),
                });
                probe.chain(self.alone_at(since)).min()
            }
        }
    }

    /// What an operator should know; `None`: nothing to guard.
    pub(super) fn words(&self) -> Option<String> {
        let seeing = |(name, u): (&String, &Upstream)| match u.others {
            _ if u.up.is_none() => None,
            Others::Fit => Some(format!("{name} shows another site")),
            Others::LastResort => Some(format!("{name} shows another site of last resort")),
            Others::None if matches!(u.probe, Probe::Answered(_)) => {
                Some(format!("another site answers through {name}"))
            }
            Others::None => None,
        };
        let seen: Vec<String> = self.upstreams.iter().filter_map(seeing).collect();
        let Phase::Watching { since, .. } = self.phase else {
            return match self.phase {
                Phase::Resort { .. } if seen.is_empty() => Some("no other site is seen".to_owned()),
                Phase::Resort { .. } => Some(seen.join(", ")),
                _ => None,
            };
        };
        Some(match self.alone_at(since) {
            _ if !seen.is_empty() => seen.join(", "),
            Some(_) => "no other site is seen yet".to_owned(),
            None if self.upstreams.values().any(|u| u.full_view == Some(false) && u.up.is_some()) => {
                "other sites are looked for".to_owned()
            }
            None => "cannot tell whether there are other sites: no upstream has ever shown one \
                     (full-view = true, if one would)"
                .to_owned(),
        })
    }
}

impl Upstream {
    /// When the next ping is due.
    fn probe_at(&self, retry: Duration) -> Option<Time> {
        match self.probe {
            Probe::Idle => Some(Time::ZERO),
            Probe::Asked(_) => None,
            Probe::Answered(at) | Probe::Silent(at) | Probe::Failed(at) => Some(at + retry),
        }
    }
}
