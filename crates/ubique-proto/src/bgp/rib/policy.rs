//! What happens to a route on its way in and out: import preference, eligibility, export rules and attributes.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use ubique_model::policy::{self, Announcement};
use ubique_model::{Asn, Community};

use super::PeerConfig;
use super::decision::Ineligible;
use crate::bgp::attributes::{AsPath, Attributes, NextHop, RawAttribute};
use crate::bgp::speaker::Import;

/// LOCAL_PREF of an internal route that carries none, and of our own routes on internal sessions.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// NO_EXPORT_SUBCONFED (RFC 1997): outside a confederation it forbids what NO_EXPORT forbids.
const NO_EXPORT_SUBCONFED: Community = Community(0xFFFF_FF03);

/// The route must not be kept long after its neighbour is gone (RFC 9494 §4.6).
pub(super) const NO_LLGR: Community = Community(0xFFFF_0007);

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
}

/// Attributes without those an external neighbour must not set (RFC 4271 §5.1.5, RFC 7606 §7.5, §7.9, §7.10);
/// `None`: there are none of them.
pub(super) fn without_internal(attributes: &Attributes) -> Option<Attributes> {
    let clean =
        attributes.local_pref.is_none() && attributes.originator_id.is_none() && attributes.cluster_list.is_empty();
    (!clean).then(|| Attributes { local_pref: None, originator_id: None, cluster_list: vec![], ..attributes.clone() })
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

/// Whether and why a route stays out of the decision.
pub(super) fn ineligible(
    own: Own,
    from: &PeerConfig,
    local_address: IpAddr,
    attributes: &Attributes,
    next_hop: NextHop,
) -> Option<Ineligible> {
    if from.import == Import::Observe {
        Some(Ineligible::Observed)
    } else if attributes.as_path.ases().any(|asn| asn == own.asn) {
        Some(Ineligible::AsLoop(own.asn))
    } else if attributes.originator_id == Some(own.router_id) {
        Some(Ineligible::OriginatorLoop)
    } else if next_hop.address() == local_address {
        Some(Ineligible::OwnNextHop)
    } else {
        None
    }
}

/// Whether a best route learned from `from` may be sent to `to`.
pub(super) fn may_export(own: Own, from: &PeerConfig, attributes: &Attributes, to: &PeerConfig) -> bool {
    let barred = |c: Community| attributes.communities.contains(&c);
    if barred(Community::NO_ADVERTISE) {
        return false;
    }
    if to.is_internal(own) {
        // RFC 4271 §9.2: no internal route to an internal neighbour; all external ones.
        return !from.is_internal(own);
    }
    if barred(Community::NO_EXPORT) || barred(NO_EXPORT_SUBCONFED) {
        return false;
    }
    // An empty path over an internal session: a route our own AS originates.
    let ours = from.is_internal(own) && attributes.as_path.hops() == 0;
    policy::exports((!ours).then_some(from.relation), to.relation)
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
    if to.is_internal(own) {
        Attributes { local_pref: Some(DEFAULT_LOCAL_PREF), ..Attributes::originated() }
    } else {
        Attributes { as_path: AsPath::sequence([own.asn]), ..Attributes::originated() }
    }
}

/// Attributes of a learned route on its way to `to`.
pub(super) fn exported(own: Own, attributes: &Attributes, local_pref: u32, to: &PeerConfig) -> Attributes {
    let mut out = attributes.clone();
    out.unknown = passed_on(&attributes.unknown);
    if to.is_internal(own) {
        out.local_pref = Some(local_pref);
        return out;
    }
    out.as_path = attributes.as_path.prepended(own.asn, 1);
    // RFC 4271 §5.1.4: a MED received from one neighbouring AS must not reach another.
    out.med = None;
    out.local_pref = None;
    out.originator_id = None;
    out.cluster_list = vec![];
    out.extended_communities.retain(|c| c[0] & EXTENDED_NON_TRANSITIVE == 0);
    out
}

/// RFC 4271 §5: unknown transitive attributes go on with the Partial bit, unknown others stop here.
fn passed_on(unknown: &[RawAttribute]) -> Vec<RawAttribute> {
    unknown
        .iter()
        .filter(|a| a.flags & FLAG_TRANSITIVE != 0)
        .map(|a| RawAttribute { flags: a.flags | FLAG_PARTIAL, ..a.clone() })
        .collect()
}
