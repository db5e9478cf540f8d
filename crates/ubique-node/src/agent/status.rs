//! What `ubique status` shows, read from the cores.

use std::time::Duration;

use ubique_model::Prefix;
use ubique_model::change::same;
use ubique_model::service::Upstream;
use ubique_proto::Time;
use ubique_proto::bgp::family::AddressFamilies;
use ubique_proto::bgp::message::Role;
use ubique_proto::bgp::session::{Negotiated, State as SessionState};
use ubique_proto::bgp::speaker::{Delivery, PeerId, PeerStatus as SpeakerPeer};
use ubique_proto::bgp::wire::MAX_MESSAGE;
use ubique_proto::health::{CheckStatus as CoreCheck, GroupStatus as CoreGroup, Role as CheckRole};

use super::site::Agent;
use crate::admin::{
    Announced, CheckStatus, FlapStatus, GroupStatus, LoadStatus, Messages, PeerStatus, PrefixStatus, SCHEMA_VERSION,
    Status,
};
use crate::clock::{now, rfc3339, wall};

impl Agent {
    /// One line for the service manager, when it differs from the last one.
    pub(super) fn tell_manager(&mut self) {
        if self.notifier.is_heard() {
            let status = self.core.status(now());
            self.notifier.status(&format!("{}: {}", status.state.word(), status.cause));
        }
    }

    /// Everything, now.
    pub(super) fn status(&self) -> Status {
        let site = self.core.status(now());
        let checks = self.service.checks.iter().zip(self.health.checks());
        Status {
            schema_version: SCHEMA_VERSION,
            version: self.version.clone(),
            service: self.service.name.clone(),
            site: self.spec().name.clone(),
            state: site.state,
            since: self.when(site.since),
            cause: site.cause.to_owned(),
            healthy: self.health.healthy(),
            level: self.health.level(),
            groups: self.health.groups().map(group_status).collect(),
            stance: site.stance.map(|stance| stance.to_string()),
            overloaded: site.overload.map(str::to_owned),
            flap: site.flap.map(|flap| FlapStatus {
                left_ratio: flap.left / f64::from(flap.suppress).max(1.0),
                text: flap.words(now()),
            }),
            guard: site.guard.clone(),
            checks: checks.map(|(spec, core)| check_status(spec.kind.word(), self.when(core.since), core)).collect(),
            peers: self.peer_statuses(),
            sessions: self.sessions_status().map(Box::new),
            not_kept: self.memory.keeper.error(),
            actions: self.action_views(),
            drain: self.drain_view().map(Box::new),
            events: self.events.iter().cloned().collect(),
        }
    }

    /// A time of a core; what never changed is as it is since the start.
    pub(super) fn when(&self, at: Time) -> String {
        rfc3339(wall(at.max(self.began)))
    }

    /// The upstreams with their sessions, then the neighbours from ranges.
    pub(super) fn peers(&self) -> impl Iterator<Item = (&Upstream, SpeakerPeer<'_>)> {
        self.bgp.speaker().peers().filter_map(|peer| Some((self.neighbour(peer.peer)?, peer)))
    }

    /// How metrics call a neighbour: its address, with the interface where it is link-local.
    pub(super) fn label(upstream: &Upstream) -> String {
        upstream.label()
    }

    /// Every prefix the session can carry, and how far its announcement got: read from the session, not from intent.
    pub(super) fn announced(&self, peer: PeerId) -> Vec<PrefixStatus> {
        let speaker = self.bgp.speaker();
        let withdrawing: Vec<Prefix> = speaker.withdrawal_pending(peer).collect();
        let wanted: Vec<(Prefix, Delivery)> = speaker.announced(peer).collect();
        let state = |prefix| match wanted.iter().find(|(p, _)| *p == prefix) {
            Some((_, Delivery::Pending)) => Announced::Pending,
            Some((_, Delivery::Sent)) => Announced::Sent,
            Some((_, Delivery::Acknowledged)) => Announced::Acknowledged,
            None if withdrawing.contains(&prefix) => Announced::Withdrawing,
            None => Announced::No,
        };
        self.prefixes(peer).into_iter().map(|prefix| PrefixStatus { prefix, announced: state(prefix) }).collect()
    }

    fn peer_statuses(&self) -> Vec<PeerStatus> {
        let mut peers: Vec<_> = self.peers().collect();
        // In the order of the service file, whatever reloads have done to the numbers.
        let place = |upstream: &Upstream| self.spec().upstreams.iter().position(|u| same(u, upstream));
        peers.sort_by_key(|(upstream, peer)| (place(upstream).unwrap_or(usize::MAX), peer.peer));
        let bfd = self.bfd_observed();
        let bfd = |peer: PeerId| bfd.iter().find(|(p, _)| *p == peer).map(|(_, status)| status.clone());
        let one = |(upstream, peer): (&Upstream, SpeakerPeer<'_>)| {
            let bfd = bfd(peer.peer);
            PeerStatus { bfd, ..self.peer_status(upstream, peer) }
        };
        peers.into_iter().map(one).collect()
    }

    fn peer_status(&self, upstream: &Upstream, peer: SpeakerPeer<'_>) -> PeerStatus {
        PeerStatus {
            asn: upstream.asn,
            address: upstream.address,
            relation: upstream.relation,
            state: peer.state.name().to_ascii_lowercase(),
            since: self.when(peer.since),
            interface: upstream.interface.clone(),
            hold_time_s: peer.negotiated.map(|n| n.hold_time.as_secs()),
            families: peer.negotiated.map(|n| words(n.families)).unwrap_or_default(),
            capabilities: peer.negotiated.map(capabilities).unwrap_or_default(),
            stale: words(peer.stale),
            prefixes: self.announced(peer.peer),
            last_error: self
                .bgp
                .connect_error(peer.peer)
                .map(|error| format!("cannot connect: {error}"))
                .or_else(|| peer.last_down.map(ToString::to_string)),
            bfd: None,
            messages: Messages { received: peer.counters.messages_in, sent: peer.counters.messages_out },
        }
    }

    /// Sessions that are established.
    pub(super) fn established(peer: &SpeakerPeer<'_>) -> bool {
        peer.state == SessionState::Established
    }
}

fn words(families: AddressFamilies) -> Vec<String> {
    families.iter().map(|family| family.word().to_owned()).collect()
}

/// What was agreed on beside families and the hold time.
fn capabilities(n: &Negotiated) -> Vec<String> {
    let flag = |on: bool, word: &str| on.then(|| word.to_owned());
    let some = |families: AddressFamilies, word: &str| {
        (families != AddressFamilies::NONE).then(|| format!("{word} {}", words(families).join(" ")))
    };
    let restart = n.graceful_restart.as_ref().map(|gr| format!("graceful-restart {}s", gr.restart_time.as_secs()));
    [
        flag(n.four_octet_as, "four-octet-as"),
        flag(n.route_refresh, "route-refresh"),
        flag(n.enhanced_route_refresh, "enhanced-route-refresh"),
        flag(n.max_message > MAX_MESSAGE, "extended-message"),
        some(n.add_path, "add-path"),
        some(n.extended_next_hop, "extended-next-hop"),
        n.role.map(|role| format!("role {}", role_word(role))),
        restart,
        flag(n.hard_reset, "hard-reset"),
        flag(!n.long_lived.is_empty(), "long-lived-graceful-restart"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The neighbour's role, as the service file would spell it.
fn role_word(role: Role) -> String {
    match role {
        Role::Provider => "provider".to_owned(),
        Role::RouteServer => "rs".to_owned(),
        Role::RouteServerClient => "rs-client".to_owned(),
        Role::Customer => "customer".to_owned(),
        Role::Peer => "peer".to_owned(),
        Role::Unknown(number) => number.to_string(),
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// From thousandths.
fn units(value: u64) -> f64 {
    value as f64 / 1e3
}

fn group_status(core: CoreGroup<'_>) -> GroupStatus {
    GroupStatus {
        name: core.config.name.clone(),
        level: core.level,
        up: core.up,
        weight: core.weight,
        healthy: core.config.healthy,
        degraded: core.config.degraded,
    }
}

fn check_status(kind: &str, since: String, core: CoreCheck<'_>) -> CheckStatus {
    CheckStatus {
        name: core.name.to_owned(),
        kind: kind.to_owned(),
        up: core.up,
        since,
        cause: core.cause.to_owned(),
        last_result: core.last.map(|_| core.last_error.unwrap_or("ok").to_owned()),
        polls: core.counters.successes + core.counters.failures,
        failures: core.counters.failures,
        p50_ms: core.recent.quantile(0.5).map(ms),
        p99_ms: core.recent.quantile(0.99).map(ms),
        group: match core.role {
            CheckRole::Member { group, .. } => Some(group.clone()),
            CheckRole::Alone(_) | CheckRole::Load { .. } => None,
        },
        on_failure: match core.role {
            CheckRole::Alone(level) => Some(*level),
            CheckRole::Member { .. } | CheckRole::Load { .. } => None,
        },
        load: match core.role {
            CheckRole::Load { high, low, unit } => Some(LoadStatus {
                value: core.value.map(units),
                high: units(*high),
                low: units(*low),
                unit: unit.clone(),
            }),
            CheckRole::Alone(_) | CheckRole::Member { .. } => None,
        },
    }
}
