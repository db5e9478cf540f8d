//! What we keep of a neighbour whose session ended gracefully, and for how long (RFC 4724 §4.2, RFC 9494 §4.2); and the
//! bounds on what it may leave stale while it sends everything anew (RFC 7313 §4).
//!
//! ```text
//! session lost ─▶ restart time ─▶ long-lived stale time ─▶ gone
//!                      └── back, with F ──┴─▶ End-of-RIB, or STALE_MAX ─▶ what is stale still is gone
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{GracefulRestartConfig, PeerId};
use crate::bgp::family::{AddressFamilies, AddressFamily};
use crate::bgp::rib::Rib;
use crate::bgp::session::Negotiated;
use crate::time::Time;

/// How long a neighbour that is back may take until its End-of-RIB (RFC 4724 §4.2: "an upper bound"), and how long from
/// BoRR to EoRR (RFC 7313 §4): a full table takes seconds, so whoever takes longer has lost track.
pub const STALE_MAX: Duration = Duration::from_secs(360);

/// A neighbour that sends everything anew more often than this is not taken at its word: each time costs a walk through the
/// table. Nothing is lost by it, since nothing is swept.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// A family the neighbour sends anew, or did lately.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Refreshed {
    family: AddressFamily,
    /// When the BoRR came that we acted on.
    began: Time,
    /// EoRR has to come until then; `None`: it came.
    until: Option<Time>,
}

/// A family of which routes are stale.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    family: AddressFamily,
    /// The session is away: it may be until then.
    restart: Option<Time>,
    /// Everything stale goes then: the long-lived stale time, or [`STALE_MAX`] after the session came back.
    sweep: Option<Time>,
    /// `sweep` is the long-lived stale time. It runs on until End-of-RIB, whatever happens to sessions.
    long_lived: bool,
    /// The long-lived stale time agreed on; zero: none.
    stale_time: Duration,
}

/// The stale routes of one neighbour.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Retention {
    kept: Vec<Kept>,
    /// At most one of each family.
    refreshed: Vec<Refreshed>,
    /// Families whose End-of-RIB came on this session.
    end_of_rib: AddressFamilies,
}

impl Retention {
    /// Families of which routes outlive their session, or outlived it and are not confirmed.
    pub(super) fn families(&self) -> AddressFamilies {
        self.kept.iter().map(|kept| kept.family).collect()
    }

    /// The session ended for good.
    pub(super) fn ended(&mut self, rib: &mut Rib, peer: PeerId) {
        *self = Retention::default();
        rib.peer_down(peer);
    }

    /// The session ended, the neighbour restarts: as long as it asked for, at most as long as we are ready to wait.
    pub(super) fn lost(
        &mut self,
        now: Time,
        rib: &mut Rib,
        peer: PeerId,
        negotiated: &Negotiated,
        config: &GracefulRestartConfig,
    ) {
        let asked = negotiated.graceful_restart.as_ref().map_or(Duration::ZERO, |restart| restart.restart_time);
        let restart = now + asked.min(config.restart_time);
        let families = negotiated.restarts().intersection(AddressFamilies::UNICAST);
        let Retention { kept: running, refreshed, .. } = std::mem::take(self);
        let refreshing = refreshed.iter().filter(|r| r.until.is_some()).map(|r| r.family).collect();
        self.kept = families
            .iter()
            .map(|family| {
                let before = running.iter().find(|kept| kept.family == family && kept.long_lived);
                let theirs = negotiated.long_lived(family).map_or(Duration::ZERO, |l| l.stale_time);
                Kept {
                    family,
                    restart: Some(restart),
                    sweep: before.and_then(|kept| kept.sweep),
                    long_lived: before.is_some(),
                    stale_time: theirs.min(config.long_lived.unwrap_or_default()),
                }
            })
            .collect();
        rib.peer_stale(peer, families, refreshing);
        self.expire(now, rib, peer);
    }

    /// The session is back. Families the neighbour did not keep forwarding for are gone at once.
    pub(super) fn returned(&mut self, now: Time, rib: &mut Rib, peer: PeerId, negotiated: &Negotiated) {
        self.end_of_rib = AddressFamilies::NONE;
        self.refreshed.clear();
        self.kept.retain_mut(|kept| {
            let long_lived = negotiated.long_lived(kept.family).is_some_and(|l| l.forwarding);
            let forwarded =
                (kept.restart.is_none() || negotiated.forwarded(kept.family)) && (!kept.long_lived || long_lived);
            if forwarded {
                kept.restart = None;
                kept.sweep.get_or_insert(now + STALE_MAX);
            } else {
                rib.sweep_stale(peer, kept.family);
            }
            forwarded
        });
    }

    /// End-of-RIB: what the neighbour has not named by now is gone.
    pub(super) fn end_of_rib(&mut self, rib: &mut Rib, peer: PeerId, family: AddressFamily) {
        self.end_of_rib.insert(family);
        if self.families().contains(family) {
            self.kept.retain(|kept| kept.family != family);
            rib.sweep_stale(peer, family);
        }
    }

    /// BoRR: everything the neighbour gave us has to be named again. Ignored before the End-of-RIB of a neighbour that
    /// restarts gracefully (RFC 7313 §4): that decides first. Another one before EoRR does not begin anew, it only gives more
    /// time.
    pub(super) fn refresh_begins(&mut self, now: Time, rib: &mut Rib, peer: PeerId, family: AddressFamily, gr: bool) {
        if gr && !self.end_of_rib.contains(family) {
            return;
        }
        let until = Some(now + STALE_MAX);
        if let Some(known) = self.refreshed.iter_mut().find(|r| r.family == family) {
            if known.until.is_some() {
                known.until = until;
                return;
            }
            if now.since(known.began) < REFRESH_INTERVAL {
                return;
            }
        }
        self.refreshed.retain(|r| r.family != family);
        self.refreshed.push(Refreshed { family, began: now, until });
        rib.mark_stale(peer, family);
    }

    /// EoRR, of a refresh that began.
    pub(super) fn refresh_ends(&mut self, rib: &mut Rib, peer: PeerId, family: AddressFamily) {
        let refreshed = self.refreshed.iter_mut().find(|r| r.family == family);
        if refreshed.and_then(|r| r.until.take()).is_some() {
            rib.sweep_stale(peer, family);
        }
    }

    /// The earliest timer.
    pub(super) fn deadline(&self) -> Option<Time> {
        let kept = self.kept.iter().flat_map(|kept| [kept.restart, kept.sweep]).flatten();
        kept.chain(self.refreshed.iter().filter_map(|r| r.until)).min()
    }

    /// Runs what is due.
    pub(super) fn expire(&mut self, now: Time, rib: &mut Rib, peer: PeerId) {
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        self.kept.retain_mut(|kept| {
            if let Some(restarted) = kept.restart.filter(|at| *at <= now && !kept.stale_time.is_zero()) {
                kept.restart = None;
                kept.long_lived = true;
                kept.sweep.get_or_insert(restarted + kept.stale_time);
                rib.long_lived_stale(peer, kept.family);
            }
            let over = due(kept.restart) || due(kept.sweep);
            if over {
                rib.sweep_stale(peer, kept.family);
            }
            !over
        });
        for refreshed in self.refreshed.iter_mut().filter(|r| due(r.until)) {
            refreshed.until = None;
            rib.sweep_stale(peer, refreshed.family);
        }
    }
}
