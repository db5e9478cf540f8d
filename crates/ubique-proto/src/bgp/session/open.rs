//! Our OPEN, the judgement of the neighbour's, and what the two agree on (RFC 4271 §6.2, RFC 5492, RFC 6286, RFC 6793).

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::{Asn, Family};

use crate::bgp::family::AddressFamily;
use crate::bgp::message::{Capability, Notification, Open};
use crate::bgp::notification::{code, open as subcode};

/// Code of the multiprotocol capability (RFC 4760 §8).
const MULTIPROTOCOL: u8 = 1;
/// The shortest hold time but zero (RFC 4271 §4.2), s.
pub const HOLD_TIME_MIN_S: u16 = 3;

/// Who we are and whom we expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) local_asn: Asn,
    pub(crate) local_id: Ipv4Addr,
    pub(crate) peer_asn: Asn,
    pub(crate) family: Family,
    /// Proposed; zero or at least [`HOLD_TIME_MIN_S`].
    pub(crate) hold_time_s: u16,
}

/// What the two OPENs agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiated {
    /// The family of the routes.
    pub family: Family,
    /// The neighbour's BGP identifier.
    pub router_id: Ipv4Addr,
    /// The smaller of the two hold times; zero: none.
    pub hold_time: Duration,
    /// AS numbers take four octets in UPDATEs (RFC 6793).
    pub four_octet_as: bool,
    /// The neighbour understands ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
}

impl Identity {
    /// The OPEN we send. Graceful restart is not offered: a site that fails must lose its routes at once.
    pub(crate) fn open(&self) -> Open {
        Open {
            asn: self.local_asn,
            hold_time_s: self.hold_time_s,
            router_id: self.local_id,
            capabilities: vec![
                Capability::Multiprotocol(self.family.into()),
                Capability::RouteRefresh,
                Capability::FourOctetAs(self.local_asn),
            ],
        }
    }

    /// The neighbour is in another AS.
    pub(crate) fn external(&self) -> bool {
        self.peer_asn != self.local_asn
    }

    /// Whether connections we open win over those the neighbour opens (RFC 4271 §6.8, RFC 6286 §2.3).
    pub(crate) fn outranks(&self, open: &Open) -> bool {
        (self.local_id, self.local_asn) > (open.router_id, open.asn)
    }

    /// Judges the neighbour's OPEN, in the order of RFC 4271 §6.2.
    pub(crate) fn negotiate(&self, open: &Open) -> Result<Negotiated, Notification> {
        // Zero is reserved (RFC 7607); it also never equals a configured number.
        if open.asn != self.peer_asn || open.asn == Asn(0) {
            return Err(refusal(subcode::BAD_PEER_AS));
        }
        // RFC 6286 §2.2: not zero, and unique within an AS. Two ASes may well use the same.
        if open.router_id.is_unspecified() || (!self.external() && open.router_id == self.local_id) {
            return Err(refusal(subcode::BAD_BGP_IDENTIFIER));
        }
        if (1..HOLD_TIME_MIN_S).contains(&open.hold_time_s) {
            return Err(refusal(subcode::UNACCEPTABLE_HOLD_TIME));
        }
        if !self.family_agreed(open) {
            return Err(missing_family(self.family));
        }
        Ok(Negotiated {
            family: self.family,
            router_id: open.router_id,
            hold_time: Duration::from_secs(u64::from(self.hold_time_s.min(open.hold_time_s))),
            four_octet_as: open.capabilities.iter().any(|c| matches!(c, Capability::FourOctetAs(_))),
            route_refresh: open.capabilities.contains(&Capability::RouteRefresh),
        })
    }

    /// A neighbour without any multiprotocol capability speaks IPv4 unicast; one that has some speaks just those
    /// (RFC 4760 §8).
    fn family_agreed(&self, open: &Open) -> bool {
        let multiprotocol = |c: &Capability| {
            matches!(c, Capability::Multiprotocol(_)) || matches!(c, Capability::Unknown { code: MULTIPROTOCOL, .. })
        };
        let plain = !open.capabilities.iter().any(multiprotocol);
        open.capabilities.contains(&Capability::Multiprotocol(self.family.into()))
            || (plain && self.family == Family::Ipv4)
    }
}

fn refusal(subcode: u8) -> Notification {
    Notification::new(code::OPEN, subcode)
}

/// The data is the capability it should have sent (RFC 5492 §5).
fn missing_family(family: Family) -> Notification {
    let (afi, safi) = AddressFamily::from(family).afi_safi();
    let [high, low] = afi.to_be_bytes();
    let capability = [MULTIPROTOCOL, 4, high, low, 0, safi];
    Notification::with_data(code::OPEN, subcode::UNSUPPORTED_CAPABILITY, capability)
}

/// A configured hold time as it goes into an OPEN: whole seconds, zero or at least [`HOLD_TIME_MIN_S`].
pub(crate) fn hold_time_s(configured: Duration) -> u16 {
    if configured.is_zero() {
        return 0;
    }
    u16::try_from(configured.as_secs()).unwrap_or(u16::MAX).max(HOLD_TIME_MIN_S)
}
