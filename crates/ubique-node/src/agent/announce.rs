//! What the neighbours are told, and what they show of other sites.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ubique_model::policy::{Announcement, Stance, announcements, last_resort_marker};
use ubique_model::service::Upstream;
use ubique_model::{Asn, Community, Prefix};
use ubique_proto::bgp::rib::Candidate;
use ubique_proto::bgp::speaker::{In as BgpIn, Order, PeerId};
use ubique_proto::site::{self, Others, State};

use super::site::Agent;
use crate::clock::now;

/// What each neighbour is told.
#[derive(Default)]
pub(super) struct Told {
    stance: Option<Stance>,
    /// By neighbour, what it holds of us or is to hold when its session comes up.
    announced: BTreeMap<PeerId, Vec<Prefix>>,
}

impl Told {
    /// All prefixes that some neighbour is told of.
    pub(super) fn prefixes(&self) -> Vec<Prefix> {
        let mut all: Vec<Prefix> = self.announced.values().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Agent {
    /// The prefixes the session with an upstream can carry, and those it is told of beside them.
    pub(super) fn prefixes(&self, peer: PeerId) -> Vec<Prefix> {
        let plain = self.neighbour(peer).map(|u| announcements(&self.service, u, &Stance::HEALTHY));
        let mut all: Vec<Prefix> = plain.into_iter().flatten().map(|a| a.prefix).collect();
        for prefix in self.told.announced.get(&peer).into_iter().flatten() {
            if !all.contains(prefix) {
                all.push(*prefix);
            }
        }
        all
    }

    /// Tells every neighbour what the site stands for.
    pub(super) fn announce(&mut self, stance: Stance, cause: String) {
        let before = self.told.stance.replace(stance);
        self.tell_again();
        if before.is_none() {
            self.metrics.transition(self.reason);
        } else {
            tracing::info!(site = self.spec().name, %stance, cause, "announcements changed");
            self.remember(format!("announced as {stance}"), cause);
        }
    }

    /// What a neighbour that is gone was told is told to nobody.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.told.announced.remove(&peer);
        self.forget_rules(peer);
    }

    /// Tells these neighbours, all of them in one go; then what rules of operators they get.
    fn tell(&mut self, peers: Vec<PeerId>) {
        let mut orders = vec![];
        let mut rules = vec![];
        for peer in peers {
            let (Some(stance), Some(upstream)) = (self.told.stance, self.neighbour(peer)) else {
                continue;
            };
            let plain = announcements(&self.service, upstream, &stance);
            let list = self.with_actions(upstream, plain.clone());
            let now_told: Vec<Prefix> = list.iter().map(|a| a.prefix).collect();
            let before = self.told.announced.insert(peer, now_told.clone()).unwrap_or_default();
            let gone = before.into_iter().filter(|prefix| !now_told.contains(prefix));
            orders.extend(gone.map(|prefix| Order::Withdraw { peer, prefix }));
            orders.extend(list.into_iter().map(|announcement| Order::Announce { peer, announcement }));
            rules.push((peer, plain));
        }
        self.bgp.handle(BgpIn::Orders(orders));
        rules.into_iter().for_each(|(peer, plain)| self.tell_rules(peer, &plain));
    }

    /// Tells every neighbour again, after an action began or ended.
    pub(super) fn tell_again(&mut self) {
        self.tell(self.bgp.speaker().peers().map(|p| p.peer).collect());
    }

    /// What a neighbour is told now but for operators' actions.
    pub(super) fn plainly(&self, upstream: &Upstream) -> Vec<Announcement> {
        self.told.stance.map_or(vec![], |stance| announcements(&self.service, upstream, &stance))
    }

    /// Takes everything back from everybody, in one go: the last neighbour must not wait until all others were told of each
    /// prefix.
    pub(super) fn withdraw(&mut self) {
        self.told.stance = None;
        let told = std::mem::take(&mut self.told.announced).into_iter();
        let order = |(peer, prefixes): (PeerId, Vec<Prefix>)| {
            prefixes.into_iter().map(move |prefix| Order::Withdraw { peer, prefix })
        };
        self.bgp.handle(BgpIn::Orders(told.flat_map(order).collect()));
        self.withdraw_rules();
    }

    /// The site should be silent, and is the last one.
    pub(super) fn alarm(&mut self, cause: String) {
        self.metrics.denied("last-site");
        tracing::error!(site = self.spec().name, cause, "the last site is not withdrawn: it announces as last resort");
        self.remember("last site not withdrawn".to_owned(), cause);
    }

    /// The site changed its state.
    pub(super) fn entered(&mut self, state: State, cause: String) {
        let word = state.word();
        tracing::info!(site = self.spec().name, state = word, cause, "site");
        self.remember(format!("site {word}"), cause);
    }

    pub(super) fn joined(&mut self, peer: PeerId, address: IpAddr, asn: Asn, range: usize) {
        let Some(dynamic) = self.spec().dynamic.get(range) else {
            return;
        };
        let upstream: Upstream = dynamic.upstream(address, asn);
        let range = dynamic.range;
        if let Some(unwritten) = self.throttle.admit(now()) {
            tracing::info!(%address, %asn, %range, unwritten, "neighbour called");
        }
        self.dynamic.insert(peer, upstream);
        self.tell(vec![peer]);
    }

    pub(super) fn left(&mut self, peer: PeerId) {
        self.forget(peer);
        if let Some(bfd) = &mut self.bfd {
            bfd.remove(peer);
        }
        if let Some(upstream) = self.dynamic.remove(&peer) {
            if let Some(unwritten) = self.throttle.admit(now()) {
                tracing::info!(address = %upstream.address, asn = %upstream.asn, unwritten, "neighbour left");
            }
            let gone = site::In::Others { upstream: upstream.label(), up: false, others: Others::None };
            self.core.handle_input(now(), gone);
        }
    }

    /// Tells the site core what a neighbour shows of other sites.
    pub(super) fn look_at(&mut self, peer: PeerId) {
        let (Some(upstream), Some(status)) = (self.neighbour(peer), self.bgp.speaker().peer(peer)) else {
            return;
        };
        let (upstream, up) = (upstream.label(), Agent::established(&status));
        let others = if up { self.others(peer) } else { Others::None };
        self.core.handle_input(now(), site::In::Others { upstream, up, others });
    }

    /// What routes to the service's prefixes a neighbour sends that other sites originate.
    fn others(&self, peer: PeerId) -> Others {
        let own = self.service.asn;
        let marker = last_resort_marker(own);
        let speaker = self.bgp.speaker();
        let internal = self.neighbour(peer).is_some_and(|u| u.asn == own);
        let of_other = |c: &Candidate| {
            let foreign = c.attributes.originator_id.is_none_or(|id| id != speaker.router_id());
            c.peer == Some(peer) && if internal { foreign } else { c.attributes.as_path.ases().any(|asn| asn == own) }
        };
        let marked = |c: &Candidate| {
            let (communities, large) = (&c.attributes.communities, &c.attributes.large_communities);
            large.contains(&marker) || communities.contains(&Community::GRACEFUL_SHUTDOWN)
        };
        let prefixes = self.service.prefixes.iter();
        prefixes.flat_map(|prefix| speaker.routes(*prefix)).filter(of_other).fold(Others::None, |seen, c| match seen {
            Others::Fit => Others::Fit,
            _ if marked(&c) => Others::LastResort,
            _ => Others::Fit,
        })
    }
}
