//! Carrying out a reload: what can fail first, then withdrawals, then everything that comes.

use std::net::IpAddr;
use std::time::Duration;

use ubique_model::change::{Change, Fate, effective, same};
use ubique_model::service::{Service, Upstream};
use ubique_proto::bgp::speaker::{In as BgpIn, PeerId};
use ubique_proto::health;
use ubique_proto::site::{self, Others, SiteConfig};

use super::neighbours;
use super::reload::Reread;
use super::setup::{self, Watched};
use super::site::Agent;
use crate::bgp::Endpoint;
use crate::clock::now;

impl Agent {
    /// The neighbour that an upstream of a service file is.
    pub(super) fn peer_of(&self, upstream: &Upstream) -> Option<PeerId> {
        self.upstreams.iter().find(|(_, known)| same(known, upstream)).map(|(peer, _)| *peer)
    }

    /// Carries out what differs. Neighbours that nothing changes for are not touched.
    ///
    /// # Errors
    /// Something that was tried first is impossible: nothing has changed.
    pub(super) fn apply(&mut self, change: &Change, reread: Reread) -> Result<(), String> {
        let runs = effective(&self.service, &reread.service, &change.site);
        let place = runs.sites.iter().position(|s| s.name == change.site);
        let place = place.ok_or("the site is gone")?;
        let same_checks = runs.checks == self.service.checks && runs.groups == self.service.groups;
        let polled = !same_checks || runs.addresses != self.service.addresses;
        let watched = if polled { Some(setup::watch(&runs, &self.inputs.results, &self.inputs.events)) } else { None };
        let watched = watched.transpose().map_err(|error| error.to_string())?;
        self.addresses.extend(&runs.addresses).map_err(|error| format!("an address cannot be added: {error}"))?;
        // From here on nothing fails.
        self.retire_addresses(&runs);
        for upstream in &change.upstreams {
            let Some(peer) = self.peer_at(upstream.address, upstream.interface.as_deref()) else { continue };
            if matches!(upstream.fate, Fate::Goes | Fate::Resets) {
                self.dismiss(peer, &upstream.sentence);
            }
        }
        self.service = runs;
        self.site = place;
        self.bgp.rescope(self.service.prefixes.clone());
        self.welcome(reread.endpoints);
        self.tell_again();
        self.bfd_adapt();
        self.bgp.listen();
        if let Some(watched) = watched {
            self.watch_instead(watched);
        }
        self.configure_cores();
        self.operator_reconfigured();
        self.settle();
        Ok(())
    }

    /// Addresses that the new file does not have serve stragglers for the drain time.
    fn retire_addresses(&mut self, runs: &Service) {
        let due = now() + runs.agent.drain;
        self.addresses.retire(&runs.addresses, due);
    }

    /// Ends a session for good; what it had is withdrawn with it.
    fn dismiss(&mut self, peer: PeerId, why: &str) {
        if let Some(bfd) = &mut self.bfd {
            bfd.remove(peer);
        }
        self.unarmed.remove(&peer);
        self.forget(peer);
        if let Some(upstream) = self.upstreams.remove(&peer) {
            tracing::info!(address = %upstream.address, asn = %upstream.asn, why, "reload: session closed");
            let gone = site::In::Others { upstream: upstream.label(), up: false, others: Others::None };
            self.core.handle_input(now(), gone);
        }
        self.bgp.remove(peer);
    }

    /// Takes the upstreams of the service as they are now; those that are new get a session.
    fn welcome(&mut self, endpoints: Vec<Endpoint>) {
        let upstreams = self.spec().upstreams.clone();
        for (upstream, endpoint) in upstreams.into_iter().zip(endpoints) {
            if let Some(peer) = self.peer_of(&upstream) {
                self.upstreams.insert(peer, upstream);
                continue;
            }
            let address = upstream.address;
            let Some(peer) = self.bgp.add(endpoint, neighbours::peer(&upstream)) else {
                tracing::error!(%address, "reload: there are too many neighbours for this one");
                continue;
            };
            self.upstreams.insert(peer, upstream);
            self.bgp.handle(BgpIn::StartPeer(peer));
        }
        let dynamic = self.spec().dynamic.clone();
        for neighbour in self.dynamic.values_mut() {
            if let Some(range) = dynamic.iter().find(|d| d.range.contains(&neighbour.address)) {
                *neighbour = range.upstream(neighbour.address, neighbour.asn);
            }
        }
    }

    /// Counters, budgets and thresholds as they are now; what the cores know of the service stays.
    fn configure_cores(&mut self) {
        let memory = self.core.memory(now());
        let config = Box::new(SiteConfig::of(&self.service, self.spec(), memory));
        self.core.handle_input(now(), site::In::Configure { config });
    }

    fn peer_at(&self, address: IpAddr, interface: Option<&str>) -> Option<PeerId> {
        let at = |u: &Upstream| u.address == address && u.interface.as_deref() == interface;
        self.upstreams.iter().find(|(_, upstream)| at(upstream)).map(|(peer, _)| *peer)
    }

    /// Polls and detectors of another list of checks in the place of the old ones.
    fn watch_instead(&mut self, watched: Watched) {
        self.resolved = vec![false; self.service.checks.len()];
        self.watched = watched;
        let (checks, groups) = setup::health_config(&self.service);
        self.health.handle_input(now(), health::In::Configure { checks, groups });
    }
}

/// How long after a failure the file of a key is read again.
pub(super) const KEY_RETRY: Duration = Duration::from_secs(5);
