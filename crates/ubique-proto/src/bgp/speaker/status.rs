//! Views of a speaker, for status, metrics and explanations.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::Prefix;

use super::{DownReason, Local, PeerConfig, PeerId, Speaker};
use crate::bgp::family::AddressFamilies;
use crate::bgp::message::{AttributeFault, Treatment};
use crate::bgp::rib::{self, Candidate, Rib};
use crate::bgp::session::{self, Negotiated, State};
use crate::bgp::speaker::Delivery;
use crate::time::Time;

/// A neighbour as it is now.
#[derive(Clone, Debug)]
pub struct PeerStatus<'a> {
    /// Which.
    pub peer: PeerId,
    /// Its configuration.
    pub config: &'a PeerConfig,
    /// Whether the operator wants it up.
    pub enabled: bool,
    /// State of RFC 4271 §8.2.2; [`State::name`] is its name.
    pub state: State,
    /// When it came into that state.
    pub since: Time,
    /// Our addresses on the session.
    pub local: Option<Local>,
    /// What was agreed on, while Established.
    pub negotiated: Option<&'a Negotiated>,
    /// Messages and sessions since the start.
    pub counters: session::Counters,
    /// Routes now and since the start.
    pub routes: rib::Counters,
    /// Why it last went down, or did not come up.
    pub last_down: Option<&'a DownReason>,
    /// Faults in its UPDATEs short of ending the session (RFC 7606).
    pub faults: &'a Faults,
    /// Families of which it left routes behind that are kept: it restarts, or is back and has not confirmed them
    /// (RFC 4724, RFC 9494).
    pub stale: AddressFamilies,
}

impl PeerStatus<'_> {
    /// How long it has been Established; zero when it is not.
    pub fn uptime(&self, now: Time) -> Duration {
        if self.state == State::Established { now.since(self.since) } else { Duration::ZERO }
    }
}

/// Faults in UPDATEs, by what was done about them (RFC 7606 §2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Attributes dropped.
    pub discarded: u64,
    /// Messages whose routes were withdrawn.
    pub withdrawn: u64,
    /// The last one.
    pub last: Option<AttributeFault>,
}

impl Faults {
    pub(super) fn record(&mut self, faults: &[AttributeFault]) {
        let count = |treatment| faults.iter().filter(|f| f.treatment == treatment).count() as u64;
        self.discarded += count(Treatment::AttributeDiscard);
        self.withdrawn += u64::from(count(Treatment::TreatAsWithdraw) > 0);
        if let Some(last) = faults.last() {
            self.last = Some(last.clone());
        }
    }
}

impl Speaker {
    /// Our BGP identifier.
    pub fn router_id(&self) -> Ipv4Addr {
        self.config.router_id
    }

    /// All neighbours, in the order of their [`PeerId`].
    pub fn peers(&self) -> impl Iterator<Item = PeerStatus<'_>> + '_ {
        (0..self.peers.len()).filter_map(|index| self.peer(PeerId(u32::try_from(index).ok()?)))
    }

    /// One neighbour.
    pub fn peer(&self, peer: PeerId) -> Option<PeerStatus<'_>> {
        let p = self.peers.get(peer.0 as usize)?.as_ref()?;
        let connection = p.session.established();
        Some(PeerStatus {
            peer,
            config: p.session.config(),
            enabled: p.session.enabled(),
            state: p.session.state(),
            since: p.session.since(),
            local: connection.map(|c| c.local),
            negotiated: connection.and_then(|c| c.negotiated.as_ref()),
            counters: *p.session.counters(),
            routes: self.rib.counters(peer),
            last_down: p.session.last_down(),
            faults: &p.faults,
            stale: p.retention.families(),
        })
    }

    /// What [`In::Announce`](super::In::Announce) asked for, and how far each has come.
    pub fn announced(&self, peer: PeerId) -> impl Iterator<Item = (Prefix, Delivery)> + '_ {
        self.peers.get(peer.0 as usize).into_iter().flatten().flat_map(|p| p.ledger.deliveries())
    }

    /// Withdrawn prefixes the neighbour may still hold: their withdrawal is not sent, or not confirmed.
    pub fn withdrawal_pending(&self, peer: PeerId) -> impl Iterator<Item = Prefix> + '_ {
        self.peers.get(peer.0 as usize).into_iter().flatten().flat_map(|p| p.ledger.withdrawals())
    }

    /// The routes to a prefix, best first, each with the step it lost at.
    pub fn routes(&self, prefix: Prefix) -> Vec<Candidate> {
        self.rib.candidates(prefix)
    }

    /// The RIB, to read.
    pub fn rib(&self) -> &Rib {
        &self.rib
    }

    /// When an UPDATE last came or went, or a session changed: how long the network has been quiet.
    pub fn last_activity(&self) -> Time {
        self.last_activity
    }
}
