//! Our OPEN, the judgement of the neighbour's, and what the two agree on (RFC 4271 §6.2, RFC 5492, RFC 6286, RFC 6793).

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::Asn;

use crate::bgp::family::{AddressFamilies, AddressFamily};
use crate::bgp::message::{AddPath, Capability, GracefulRestart, LongLived, Notification, Open, Role};
use crate::bgp::notification::{code, open as subcode};
use crate::bgp::speaker::{PeerConfig, Restarted};
use crate::bgp::wire::{MAX_EXTENDED_MESSAGE, MAX_MESSAGE, MAX_RESTART_TIME, MAX_STALE_TIME};

/// Code of the multiprotocol capability (RFC 4760 §8).
const MULTIPROTOCOL: u8 = 1;
/// The shortest hold time but zero (RFC 4271 §4.2), s.
pub const HOLD_TIME_MIN_S: u16 = 3;

/// Who we are and whom we expect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) local_asn: Asn,
    pub(crate) local_id: Ipv4Addr,
    pub(crate) peer: PeerConfig,
    /// We come back from a restart and have not settled: R is set, F as it says (RFC 4724 §4.1).
    pub(crate) restarted: Option<Restarted>,
}

/// What the two OPENs agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiated {
    /// The families both speak.
    pub families: AddressFamilies,
    /// The neighbour's BGP identifier.
    pub router_id: Ipv4Addr,
    /// The smaller of the two hold times; zero: none.
    pub hold_time: Duration,
    /// AS numbers take four octets in UPDATEs (RFC 6793).
    pub four_octet_as: bool,
    /// The neighbour understands ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// It understands where a refresh begins and ends (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// Longest message it takes, octets (RFC 8654).
    pub max_message: usize,
    /// Families it may send several paths of (RFC 7911).
    pub add_path: AddressFamilies,
    /// Families whose next hops may be IPv6 addresses though their prefixes are not (RFC 8950).
    pub extended_next_hop: AddressFamilies,
    /// Its role (RFC 9234), when it announced one.
    pub role: Option<Role>,
    /// Its graceful restart capability (RFC 4724).
    pub graceful_restart: Option<GracefulRestart>,
    /// Its long-lived graceful restart capability (RFC 9494); void without graceful restart.
    pub long_lived: Vec<LongLived>,
    /// Both set N: only a hard reset ends the session for good (RFC 8538).
    pub hard_reset: bool,
}

impl Identity {
    /// The OPEN we send.
    pub(crate) fn open(&self) -> Open {
        Open {
            asn: self.local_asn,
            hold_time_s: hold_time_s(self.peer.hold_time),
            router_id: self.local_id,
            capabilities: self.capabilities(),
        }
    }

    /// In the order of their codes.
    fn capabilities(&self) -> Vec<Capability> {
        let families = self.peer.families;
        let mut capabilities: Vec<Capability> = families.iter().map(Capability::Multiprotocol).collect();
        capabilities.push(Capability::RouteRefresh);
        let extended_next_hop = self.extended_next_hop();
        if !extended_next_hop.is_empty() {
            capabilities.push(Capability::ExtendedNextHop(extended_next_hop.iter().collect()));
        }
        capabilities.push(Capability::ExtendedMessage);
        capabilities.extend(self.role().map(Capability::Role));
        capabilities.extend(self.graceful_restart().map(Capability::GracefulRestart));
        capabilities.push(Capability::FourOctetAs(self.local_asn));
        let add_path = self.add_path();
        if !add_path.is_empty() {
            let receive = add_path.iter().map(|family| (family, AddPath::Receive));
            capabilities.push(Capability::AddPath(receive.collect()));
        }
        capabilities.push(Capability::EnhancedRouteRefresh);
        let stale_time = self.peer.graceful_restart.and_then(|gr| gr.long_lived).map(|time| time.min(MAX_STALE_TIME));
        if let Some(stale_time) = stale_time {
            let long_lived =
                families.iter().map(|family| LongLived { family, forwarding: self.forwarding(family), stale_time });
            capabilities.push(Capability::LongLivedGracefulRestart(long_lived.collect()));
        }
        capabilities
    }

    /// N always: whoever wants the session really gone says so with a hard reset.
    fn graceful_restart(&self) -> Option<GracefulRestart> {
        let config = self.peer.graceful_restart?;
        Some(GracefulRestart {
            restarting: self.restarted.is_some(),
            notification: true,
            restart_time: config.restart_time.min(MAX_RESTART_TIME),
            families: self.peer.families.iter().map(|family| (family, self.forwarding(family))).collect(),
        })
    }

    /// F: a process that did not restart went on forwarding; for one that did, its driver knows.
    fn forwarding(&self, family: AddressFamily) -> bool {
        self.restarted.is_none_or(|restarted| restarted.forwarding.contains(family))
    }

    /// Our role; between ASes only (RFC 9234 §4).
    fn role(&self) -> Option<Role> {
        self.peer.role.filter(|_| self.external())
    }

    /// Families we want several paths of.
    fn add_path(&self) -> AddressFamilies {
        let wanted = if self.peer.add_path { AddressFamilies::UNICAST } else { AddressFamilies::NONE };
        wanted.intersection(self.peer.families)
    }

    /// Families we take and give IPv6 next hops for.
    fn extended_next_hop(&self) -> AddressFamilies {
        let ipv4 = AddressFamilies::only(AddressFamily::Ipv4Unicast);
        let wanted = if self.peer.extended_next_hop { ipv4 } else { AddressFamilies::NONE };
        wanted.intersection(self.peer.families)
    }

    /// The neighbour is in another AS.
    pub(crate) fn external(&self) -> bool {
        self.peer.asn != self.local_asn
    }

    /// Whether connections we open win over those the neighbour opens (RFC 4271 §6.8, RFC 6286 §2.3).
    pub(crate) fn outranks(&self, open: &Open) -> bool {
        (self.local_id, self.local_asn) > (open.router_id, open.asn)
    }

    /// Judges the neighbour's OPEN, in the order of RFC 4271 §6.2; what no neighbour may say was refused when it was read.
    pub(crate) fn negotiate(&self, open: &Open) -> Result<Negotiated, Notification> {
        if open.asn != self.peer.asn {
            return Err(refusal(subcode::BAD_PEER_AS));
        }
        // RFC 6286 §2.2: unique within an AS. Two ASes may well use the same.
        if !self.external() && open.router_id == self.local_id {
            return Err(refusal(subcode::BAD_BGP_IDENTIFIER));
        }
        let families = self.peer.families.intersection(families(open));
        if families.is_empty() {
            return Err(missing_families(self.peer.families));
        }
        let role = self.agree_on_roles(open)?;
        let has = |capability| open.capabilities.contains(&capability);
        // The last one counts (RFC 4724 §3).
        let graceful_restart = open.capabilities.iter().rev().find_map(|c| match c {
            Capability::GracefulRestart(restart) => Some(restart.clone()),
            _ => None,
        });
        let long_lived = graceful_restart.as_ref().and_then(|_| {
            open.capabilities.iter().rev().find_map(|c| match c {
                Capability::LongLivedGracefulRestart(long_lived) => Some(long_lived.clone()),
                _ => None,
            })
        });
        let notifies = graceful_restart.as_ref().is_some_and(|restart| restart.notification);
        Ok(Negotiated {
            families,
            router_id: open.router_id,
            hold_time: Duration::from_secs(u64::from(hold_time_s(self.peer.hold_time).min(open.hold_time_s))),
            four_octet_as: open.capabilities.iter().any(|c| matches!(c, Capability::FourOctetAs(_))),
            route_refresh: has(Capability::RouteRefresh),
            enhanced_route_refresh: has(Capability::EnhancedRouteRefresh),
            max_message: if has(Capability::ExtendedMessage) { MAX_EXTENDED_MESSAGE } else { MAX_MESSAGE },
            add_path: self.add_path().intersection(families).intersection(sends_several(open)),
            extended_next_hop: self.extended_next_hop().intersection(families).intersection(extends_next_hop(open)),
            role,
            graceful_restart,
            long_lived: long_lived.unwrap_or_default(),
            hard_reset: notifies && self.peer.graceful_restart.is_some(),
        })
    }

    /// RFC 9234 §4.2: several roles must be the same; ours and theirs must fit; a strict speaker wants to hear one.
    fn agree_on_roles(&self, open: &Open) -> Result<Option<Role>, Notification> {
        if !self.external() {
            return Ok(None);
        }
        let mut roles = open.capabilities.iter().filter_map(|c| match c {
            Capability::Role(role) => Some(*role),
            _ => None,
        });
        let theirs = roles.next();
        let differing = roles.any(|role| Some(role) != theirs);
        let fits = match (self.role(), theirs) {
            (Some(ours), Some(theirs)) => counterpart(ours) == Some(theirs),
            (Some(_), None) => !self.peer.strict_role,
            (None, _) => true,
        };
        if differing || !fits { Err(refusal(subcode::ROLE_MISMATCH)) } else { Ok(theirs) }
    }
}

impl Negotiated {
    /// Families whose routes the neighbour asks us to keep while it restarts.
    pub(crate) fn restarts(&self) -> AddressFamilies {
        let restart = self.graceful_restart.iter().flat_map(|restart| &restart.families);
        restart.map(|(family, _)| *family).collect::<AddressFamilies>().intersection(self.families)
    }

    /// Whether the neighbour kept forwarding for `family` while the session was away (F).
    pub(crate) fn forwarded(&self, family: AddressFamily) -> bool {
        let restart = self.graceful_restart.iter().flat_map(|restart| &restart.families);
        self.families.contains(family) && restart.into_iter().any(|&(f, forwarding)| f == family && forwarding)
    }

    /// Its long-lived capability for a family.
    pub(crate) fn long_lived(&self, family: AddressFamily) -> Option<&LongLived> {
        self.long_lived.iter().find(|l| l.family == family).filter(|_| self.families.contains(family))
    }
}

/// The role the other side must have (RFC 9234 §4.2, table 2).
fn counterpart(role: Role) -> Option<Role> {
    match role {
        Role::Provider => Some(Role::Customer),
        Role::Customer => Some(Role::Provider),
        Role::RouteServer => Some(Role::RouteServerClient),
        Role::RouteServerClient => Some(Role::RouteServer),
        Role::Peer => Some(Role::Peer),
        Role::Unknown(_) => None,
    }
}

/// What the sender of an OPEN speaks. Without any multiprotocol capability it is IPv4 unicast; with some, just those
/// (RFC 4760 §8).
fn families(open: &Open) -> AddressFamilies {
    let multiprotocol = |c: &Capability| {
        matches!(c, Capability::Multiprotocol(_)) || matches!(c, Capability::Unknown { code: MULTIPROTOCOL, .. })
    };
    if !open.capabilities.iter().any(multiprotocol) {
        return AddressFamilies::only(AddressFamily::Ipv4Unicast);
    }
    let known = open.capabilities.iter().filter_map(|c| match c {
        Capability::Multiprotocol(family) => Some(*family),
        _ => None,
    });
    known.collect()
}

/// Families the sender of an OPEN may send several paths of (RFC 7911 §4).
fn sends_several(open: &Open) -> AddressFamilies {
    let listed = open.capabilities.iter().filter_map(|c| match c {
        Capability::AddPath(families) => Some(families),
        _ => None,
    });
    let sends = |(_, able): &&(AddressFamily, AddPath)| matches!(able, AddPath::Send | AddPath::Both);
    listed.flatten().filter(sends).map(|(family, _)| *family).collect()
}

/// Families the sender of an OPEN takes IPv6 next hops for (RFC 8950 §4).
fn extends_next_hop(open: &Open) -> AddressFamilies {
    let listed = open.capabilities.iter().filter_map(|c| match c {
        Capability::ExtendedNextHop(families) => Some(families),
        _ => None,
    });
    listed.flatten().copied().collect()
}

fn refusal(subcode: u8) -> Notification {
    Notification::new(code::OPEN, subcode)
}

/// The data are the capabilities it should have sent one of (RFC 5492 §5).
fn missing_families(families: AddressFamilies) -> Notification {
    let capability = |family: AddressFamily| {
        let (afi, safi) = family.afi_safi();
        let [high, low] = afi.to_be_bytes();
        [MULTIPROTOCOL, 4, high, low, 0, safi]
    };
    let data: Vec<u8> = families.iter().flat_map(capability).collect();
    Notification::with_data(code::OPEN, subcode::UNSUPPORTED_CAPABILITY, data)
}

/// A configured hold time as it goes into an OPEN: whole seconds, zero or at least [`HOLD_TIME_MIN_S`].
pub(crate) fn hold_time_s(configured: Duration) -> u16 {
    if configured.is_zero() {
        return 0;
    }
    u16::try_from(configured.as_secs()).unwrap_or(u16::MAX).max(HOLD_TIME_MIN_S)
}
