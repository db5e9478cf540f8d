//! What happens to a route on its way in and out: import preference, eligibility, export rules and attributes.
//!
//! BLACKHOLE (RFC 7999) is never honoured: §3.3 asks for an agreement with the neighbour, and nothing in the
//! configuration states one. An external route that carries it is kept and not used, so that the covering route stays in
//! force; an internal one is used and leaves the AS as little as one with NO_EXPORT.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use ubique_model::policy::{self, Announcement};
use ubique_model::{Asn, Community, Relation};

use super::decision::Ineligible;
use super::entry::Opened;
use super::peers::Session;
use super::{PeerConfig, Stale};
use crate::bgp::attributes::{AsPath, Attributes, NextHop, RawAttribute};
use crate::bgp::message::Role;
use crate::bgp::speaker::{Import, Local};

/// LOCAL_PREF of an internal route that carries none, and of our own routes on internal sessions.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// NO_EXPORT_SUBCONFED (RFC 1997): outside a confederation it forbids what NO_EXPORT forbids.
const NO_EXPORT_SUBCONFED: Community = Community(0xFFFF_FF03);

/// NOPEER (RFC 3765): not to go to peers, bilateral or by a route server.
const NOPEER: Community = Community(0xFFFF_FF04);

/// LLGR_STALE (RFC 9494 §4.1).
pub(super) const LLGR_STALE: Community = Community(0xFFFF_0006);

/// The route must not be kept long after its neighbour is gone (RFC 9494 §4.1).
pub(super) const NO_LLGR: Community = Community(0xFFFF_0007);

/// BLACKHOLE (RFC 7999).
const BLACKHOLE: Community = Community(0xFFFF_029A);

/// Attribute flags (RFC 4271 §4.3).
const FLAG_TRANSITIVE: u8 = 0x40;
const FLAG_PARTIAL: u8 = 0x20;

/// High bit pair of an extended community's type: set when it must not leave the AS (RFC 4360 §2).
const EXTENDED_NON_TRANSITIVE: u8 = 0x40;

/// Who we are.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Own {
    pub asn: Asn,
    pub router_id: Ipv4Addr,
}

impl PeerConfig {
    /// Whether the session is internal (iBGP).
    pub(super) fn is_internal(&self, own: Own) -> bool {
        self.asn == own.asn
    }

    /// Our role, where RFC 9234 knows one: on external sessions.
    fn role(&self, own: Own) -> Option<Role> {
        self.role.filter(|_| !self.is_internal(own))
    }
}

/// Attributes as we keep them: without those an external neighbour must not set (RFC 4271 §5.1.5, RFC 7606 §7.5, §7.9,
/// §7.10), and with OTC where the neighbour's role asks for it (RFC 9234 §5). `None`: as they are.
pub(super) fn received(own: Own, from: &PeerConfig, attributes: &Attributes) -> Option<Attributes> {
    if from.is_internal(own) {
        return None;
    }
    let a = attributes;
    let clean = a.local_pref.is_none() && a.originator_id.is_none() && a.cluster_list.is_empty();
    let upward = matches!(from.role(own), Some(Role::Customer | Role::Peer | Role::RouteServerClient));
    let marked = a.only_to_customer.is_some() || !upward;
    (!clean || !marked).then(|| Attributes {
        local_pref: None,
        originator_id: None,
        cluster_list: vec![],
        only_to_customer: a.only_to_customer.or(upward.then_some(from.asn)),
        ..a.clone()
    })
}

/// Degree of preference (RFC 4271 §9.1.1).
pub(super) fn preference(own: Own, from: &PeerConfig, attributes: &Attributes) -> u32 {
    if from.is_internal(own) {
        attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
    } else if attributes.communities.contains(&Community::GRACEFUL_SHUTDOWN) {
        // RFC 8326 §4.1: the session is about to go; any other route is better.
        0
    } else {
        policy::local_preference(from.relation)
    }
}

/// Whether and why a route stays out of the decision. `local`: our addresses on the session.
pub(super) fn ineligible(
    own: Own,
    from: &PeerConfig,
    local: &Local,
    attributes: &Attributes,
    next_hop: NextHop,
) -> Option<Ineligible> {
    let ours = [Some(local.address), local.ipv4.map(IpAddr::V4), local.ipv6.map(IpAddr::V6)];
    if from.import == Import::Observe {
        Some(Ineligible::Observed)
    } else if attributes.as_path.ases().any(|asn| asn == own.asn) {
        Some(Ineligible::AsLoop(own.asn))
    } else if attributes.originator_id == Some(own.router_id) {
        Some(Ineligible::OriginatorLoop)
    } else if attributes.cluster_list.contains(&own.router_id) {
        Some(Ineligible::ClusterLoop)
    } else if ours.contains(&Some(next_hop.address())) {
        Some(Ineligible::OwnNextHop)
    } else if let Some(otc) = attributes.only_to_customer.filter(|&otc| is_leak(own, from, otc)) {
        Some(Ineligible::Leak(otc))
    } else if !from.is_internal(own) && attributes.communities.contains(&BLACKHOLE) {
        Some(Ineligible::Blackhole)
    } else {
        None
    }
}

/// RFC 9234 §5, ingress: a customer has no business with a route marked to go to customers only, and a peer only with
/// one it marked itself.
fn is_leak(own: Own, from: &PeerConfig, otc: Asn) -> bool {
    match from.role(own) {
        Some(Role::Provider | Role::RouteServer) => true,
        Some(Role::Peer) => otc != from.asn,
        Some(Role::Customer | Role::RouteServerClient | Role::Unknown(_)) | None => false,
    }
}

/// Whether any other route is better (RFC 9494 §4.3): by our own timer, or by the word of whoever passed it on.
pub(super) fn is_long_lived_stale(stale: Stale, attributes: &Attributes) -> bool {
    stale == Stale::LongLived || attributes.communities.contains(&LLGR_STALE)
}

/// Whether a best route learned from `from` may be sent to `to` on its session.
pub(super) fn may_export(own: Own, from: &PeerConfig, route: &Opened, to: &PeerConfig, session: &Session) -> bool {
    let attributes = &route.attributes;
    let barred = |c: Community| attributes.communities.contains(&c);
    if barred(Community::NO_ADVERTISE) {
        return false;
    }
    // RFC 9494 §4.3: only to neighbours that know what it means.
    if is_long_lived_stale(route.terms.stale, attributes) && !session.long_lived {
        return false;
    }
    if to.is_internal(own) {
        // RFC 4271 §9.2: no internal route to an internal neighbour, but for reflection (RFC 4456 §6).
        return !from.is_internal(own) || reflects(from, to);
    }
    if [Community::NO_EXPORT, NO_EXPORT_SUBCONFED, BLACKHOLE].into_iter().any(barred) {
        return false;
    }
    if barred(NOPEER) && matches!(to.relation, Relation::Peer | Relation::RouteServer) {
        return false;
    }
    // RFC 9234 §5, egress: what is marked goes to customers only.
    let upward = matches!(to.role(own), Some(Role::Customer | Role::Peer | Role::RouteServerClient));
    if upward && attributes.only_to_customer.is_some() {
        return false;
    }
    // An empty path over an internal session: a route our own AS originates.
    let ours = from.is_internal(own) && attributes.as_path.hops() == 0;
    policy::exports((!ours).then_some(from.relation), to.relation)
}

/// RFC 4456 §6: from clients to all, from others to clients.
fn reflects(from: &PeerConfig, to: &PeerConfig) -> bool {
    from.route_reflector_client || to.route_reflector_client
}

/// OTC of what goes to `to` (RFC 9234 §5, egress): ours, where it is not marked and goes down or to a peer.
fn marked(own: Own, to: &PeerConfig, otc: Option<Asn>) -> Option<Asn> {
    let marks = matches!(to.role(own), Some(Role::Provider | Role::Peer | Role::RouteServer));
    otc.or(marks.then_some(own.asn))
}

/// Attributes of an announcement made for one neighbour.
pub(super) fn announced(own: Own, to: &PeerConfig, announcement: &Announcement) -> Attributes {
    let times = if to.is_internal(own) { 0 } else { 1 + usize::from(announcement.prepend) };
    Attributes {
        as_path: AsPath::default().prepended(own.asn, times),
        med: announcement.med,
        communities: announcement.communities.clone(),
        extended_communities: announcement.extended_communities.iter().map(|c| c.0).collect(),
        large_communities: announcement.large_communities.clone(),
        ..own_route(own, to)
    }
}

/// Attributes of a route of our own on its way to `to`.
pub(super) fn own_route(own: Own, to: &PeerConfig) -> Attributes {
    let only_to_customer = marked(own, to, None);
    if to.is_internal(own) {
        Attributes { local_pref: Some(DEFAULT_LOCAL_PREF), ..Attributes::originated() }
    } else {
        Attributes { as_path: AsPath::sequence([own.asn]), only_to_customer, ..Attributes::originated() }
    }
}

/// Attributes of a learned route on its way to `to`, and its next hop where that must not change. `giver` is the
/// identifier of the neighbour it came from.
pub(super) fn exported(
    own: Own,
    from: &PeerConfig,
    giver: Ipv4Addr,
    route: &Opened,
    to: &PeerConfig,
) -> (Attributes, Option<NextHop>) {
    let mut out = route.attributes.clone();
    out.unknown = passed_on(&out.unknown);
    if route.terms.stale == Stale::LongLived && !out.communities.contains(&LLGR_STALE) {
        out.communities.push(LLGR_STALE);
    }
    if to.is_internal(own) {
        out.local_pref = Some(route.terms.local_pref);
        let reflected = from.is_internal(own);
        if reflected {
            // RFC 4456 §8; §10: all else stays, the next hop included.
            out.originator_id.get_or_insert(giver);
            out.cluster_list.insert(0, own.router_id);
        }
        return (out, (reflected || to.next_hop.unchanged).then_some(route.next_hop));
    }
    out.as_path = out.as_path.prepended(own.asn, 1);
    // RFC 4271 §5.1.4: a MED received from one neighbouring AS must not reach another.
    out.med = None;
    out.local_pref = None;
    out.originator_id = None;
    out.cluster_list = vec![];
    out.extended_communities.retain(|c| c[0] & EXTENDED_NON_TRANSITIVE == 0);
    out.only_to_customer = marked(own, to, out.only_to_customer);
    (out, None)
}

/// RFC 4271 §5: unknown transitive attributes go on with the Partial bit, unknown others stop here.
fn passed_on(unknown: &[RawAttribute]) -> Vec<RawAttribute> {
    unknown
        .iter()
        .filter(|a| a.flags & FLAG_TRANSITIVE != 0)
        .map(|a| RawAttribute { flags: a.flags | FLAG_PARTIAL, ..a.clone() })
        .collect()
}
