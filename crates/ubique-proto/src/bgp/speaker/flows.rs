//! FlowSpec rules announced to one neighbour (RFC 8955, RFC 8956): what it should hold, what it was told on its present
//! session, and the difference. What neighbours announce is counted and never installed: an announcing edge asks for
//! protection, it gives none.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::run::{Peer, Speaker};
use super::{PeerConfig, PeerId};
use crate::bgp::attributes::{AsPath, Attributes};
use crate::bgp::family::{AddressFamilies, AddressFamily};
use crate::bgp::flowspec::FlowSpec;
use crate::bgp::rib::DEFAULT_LOCAL_PREF;
use crate::bgp::wire::{self, EncodeContext, MAX_MESSAGE};
use ubique_model::Asn;

/// Rules announced to one neighbour at most: routers have room for a few thousand.
pub const MAX_FLOWS: usize = 4096;

/// What happens to packets: extended communities (RFC 8955 §7).
type Actions = Vec<[u8; 8]>;

/// Adj-RIB-Out of FlowSpec rules.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Flows {
    wanted: BTreeMap<FlowSpec, Actions>,
    /// With whether the neighbour asked to hear it again.
    told: BTreeMap<FlowSpec, (Actions, bool)>,
    /// Rules of which the two may differ.
    marked: BTreeSet<FlowSpec>,
}

impl Flows {
    fn announce(&mut self, flow: FlowSpec, actions: Actions) {
        self.marked.insert(flow.clone());
        self.wanted.insert(flow, actions);
    }

    pub(super) fn withdraw(&mut self, flow: &FlowSpec) {
        if self.wanted.remove(flow).is_some() {
            self.marked.insert(flow.clone());
        }
    }

    fn has_room_for(&self, flow: &FlowSpec) -> bool {
        self.wanted.len() < MAX_FLOWS || self.wanted.contains_key(flow)
    }

    /// A session came or went: the neighbour holds nothing.
    pub(super) fn restart(&mut self) {
        self.told.clear();
        self.marked = self.wanted.keys().cloned().collect();
    }

    /// The neighbour asked for the rules of a family again.
    pub(super) fn repeat(&mut self, family: AddressFamily) {
        for (flow, (_, repeat)) in &mut self.told {
            if AddressFamily::flowspec(flow.family) == family {
                *repeat = true;
                self.marked.insert(flow.clone());
            }
        }
    }

    /// The next rule to announce, with its actions, or to withdraw: `None`. Recorded as told.
    pub(super) fn poll(&mut self, families: AddressFamilies) -> Option<(FlowSpec, Option<Actions>)> {
        while let Some(flow) = self.marked.pop_first() {
            if !families.contains(AddressFamily::flowspec(flow.family)) {
                continue;
            }
            let wanted = self.wanted.get(&flow).cloned();
            let changed = match (self.told.get(&flow), &wanted) {
                (None, None) => false,
                (Some((told, repeat)), Some(wanted)) => *repeat || told != wanted,
                (None, Some(_)) | (Some(_), None) => true,
            };
            match &wanted {
                Some(actions) => self.told.insert(flow.clone(), (actions.clone(), false)),
                None => self.told.remove(&flow),
            };
            if changed {
                return Some((flow, wanted));
            }
        }
        None
    }
}

/// Appends the UPDATE that announces a rule or takes it back.
pub(super) fn write(
    flow: &FlowSpec,
    actions: Option<Actions>,
    asn: Asn,
    to: &PeerConfig,
    context: &EncodeContext,
    out: &mut Vec<u8>,
) {
    let rule = std::slice::from_ref(flow);
    let attributes = actions.map(|actions| attributes(actions, asn, to));
    let sent = match &attributes {
        Some(attributes) => wire::encode_flows(&[], Some((attributes, rule)), context, out),
        None => wire::encode_flows(rule, None, context, out),
    };
    if sent.is_err() {
        // It was written once before it was taken in, in the smallest message there is: it fits.
        let _ = wire::encode_flows(rule, None, context, out);
    }
}

fn attributes(actions: Actions, asn: Asn, to: &PeerConfig) -> Attributes {
    let internal = to.asn == asn;
    Attributes {
        as_path: AsPath::sequence((!internal).then_some(asn)),
        local_pref: internal.then_some(DEFAULT_LOCAL_PREF),
        extended_communities: actions,
        ..Attributes::originated()
    }
}

impl Speaker {
    pub(super) fn announce_flow(&mut self, peer: PeerId, flow: FlowSpec, actions: Actions) {
        let Some(p) = self.peers.get(peer.0 as usize).and_then(Option::as_ref) else { return };
        match self.objection(p, &flow, &actions) {
            Some(objection) => self.refuse(peer, objection),
            None => {
                if let Some(p) = self.peer_mut(peer) {
                    p.sending.flows.announce(flow, actions);
                }
            }
        }
    }

    /// Why a rule is not announced. One that matches packets to others would harm them, so its destination must be
    /// ours; with an offset it is not known whose packets match (RFC 8956 §3.1).
    fn objection(&self, p: &Peer, flow: &FlowSpec, actions: &Actions) -> Option<String> {
        if let Err(error) = flow.validate() {
            return Some(format!("FlowSpec rule: {error}"));
        }
        let ours = |(prefix, offset)| self.config.scope.is_none() || (offset == 0 && self.in_scope(&prefix));
        if !flow.destination().is_some_and(ours) {
            return Some("FlowSpec rule: its destination is outside of what this service may announce".to_owned());
        }
        if !p.sending.flows.has_room_for(flow) {
            return Some(format!("FlowSpec rule: there are {MAX_FLOWS} rules, no more fit"));
        }
        let context = EncodeContext {
            four_octet_as: false,
            external: true,
            add_path: AddressFamilies::NONE,
            extended_next_hop: AddressFamilies::NONE,
            max_message: MAX_MESSAGE,
        };
        let attributes = attributes(actions.clone(), self.config.asn, p.session.config());
        let rule = std::slice::from_ref(flow);
        let written = wire::encode_flows(&[], Some((&attributes, rule)), &context, &mut vec![]);
        written.err().map(|error| format!("FlowSpec rule: {error}"))
    }

    /// Rules [`In::AnnounceFlow`](super::In::AnnounceFlow) asked for, each with whether the neighbour was told.
    pub fn flows(&self, peer: PeerId) -> impl Iterator<Item = (&FlowSpec, bool)> + '_ {
        let flows = self.peers.get(peer.0 as usize).into_iter().flatten().map(|p| &p.sending.flows);
        flows.flat_map(|flows| {
            let told = |flow, actions| flows.told.get(flow).is_some_and(|(told, _)| told == actions);
            flows.wanted.iter().map(move |(flow, actions)| (flow, told(flow, actions)))
        })
    }
}
