//! Capabilities in OPEN (RFC 5492).
//!
//! A capability whose length does not fit is malformed and refuses the OPEN (2/0), with one exception: ADD-PATH that
//! makes no sense counts as not understood (RFC 7911 §4). Families ubique does not know are left out of lists.

use std::time::Duration;

use ubique_model::Asn;

use super::super::family::AddressFamily;
use super::super::message::{AddPath, Capability, GracefulRestart, LongLived, Role};
use super::reader::Reader;

/// Capability codes (IANA registry "Capability Codes").
mod capability {
    pub(super) const MULTIPROTOCOL: u8 = 1;
    pub(super) const ROUTE_REFRESH: u8 = 2;
    pub(super) const EXTENDED_NEXT_HOP: u8 = 5;
    pub(super) const EXTENDED_MESSAGE: u8 = 6;
    pub(super) const ROLE: u8 = 9;
    pub(super) const GRACEFUL_RESTART: u8 = 64;
    pub(super) const FOUR_OCTET_AS: u8 = 65;
    pub(super) const ADD_PATH: u8 = 69;
    pub(super) const ENHANCED_ROUTE_REFRESH: u8 = 70;
    pub(super) const LONG_LIVED_GRACEFUL_RESTART: u8 = 71;
}
use capability::*;

/// AFI of IPv6, as a next hop's family (RFC 8950 §4).
const AFI_IPV6: u16 = 2;
/// R: restarted (RFC 4724 §3).
const RESTARTING: u8 = 0x80;
/// N: NOTIFICATIONs restart gracefully, too (RFC 8538 §2).
const NOTIFICATION: u8 = 0x40;
/// F: forwarding state was preserved (RFC 4724 §3, RFC 9494 §3.1).
const FORWARDING: u8 = 0x80;
/// Longest restart time, s: 12 bits (RFC 4724 §3).
pub const MAX_RESTART_TIME: Duration = Duration::from_secs(0xfff);
/// Longest stale time, s: 24 bits (RFC 9494 §3.1).
pub const MAX_STALE_TIME: Duration = Duration::from_secs(0xff_ffff);

/// Reads one capability. `None`: malformed.
pub(super) fn decode(r: &mut Reader<'_>) -> Option<Capability> {
    let code = r.u8()?;
    let length = r.u8()?;
    let value = r.take(usize::from(length))?;
    let unknown = || Capability::Unknown { code, value: value.to_vec() };
    let mut v = Reader::new(value);
    let known = match code {
        MULTIPROTOCOL => {
            let (afi, _reserved, safi) = (v.u16()?, v.u8()?, v.u8()?);
            AddressFamily::from_afi_safi(afi, safi).map_or_else(unknown, Capability::Multiprotocol)
        }
        ROUTE_REFRESH => Capability::RouteRefresh,
        EXTENDED_NEXT_HOP => Capability::ExtendedNextHop(extended_next_hop(&mut v)?),
        EXTENDED_MESSAGE => Capability::ExtendedMessage,
        ROLE => Capability::Role(role(v.u8()?)),
        GRACEFUL_RESTART => Capability::GracefulRestart(graceful_restart(&mut v)?),
        FOUR_OCTET_AS => Capability::FourOctetAs(Asn(v.u32()?)),
        ADD_PATH => return Some(add_path(v).map_or_else(unknown, Capability::AddPath)),
        ENHANCED_ROUTE_REFRESH => Capability::EnhancedRouteRefresh,
        LONG_LIVED_GRACEFUL_RESTART => Capability::LongLivedGracefulRestart(long_lived(&mut v)?),
        _ => return Some(unknown()),
    };
    v.is_empty().then_some(known)
}

/// RFC 8950 §4: what is not about IPv4 over IPv6 says nothing new.
fn extended_next_hop(v: &mut Reader<'_>) -> Option<Vec<AddressFamily>> {
    let mut families = Vec::new();
    while !v.is_empty() {
        let (afi, safi, next_hop_afi) = (v.u16()?, v.u16()?, v.u16()?);
        let family = u8::try_from(safi).ok().and_then(|safi| AddressFamily::from_afi_safi(afi, safi));
        families.extend(family.filter(|_| next_hop_afi == AFI_IPV6 && afi != AFI_IPV6));
    }
    Some(families)
}

fn role(value: u8) -> Role {
    match value {
        0 => Role::Provider,
        1 => Role::RouteServer,
        2 => Role::RouteServerClient,
        3 => Role::Customer,
        4 => Role::Peer,
        other => Role::Unknown(other),
    }
}

fn graceful_restart(v: &mut Reader<'_>) -> Option<GracefulRestart> {
    let head = v.u16()?;
    let [flags, _] = head.to_be_bytes();
    let mut families = Vec::new();
    while !v.is_empty() {
        let (afi, safi, flags) = (v.u16()?, v.u8()?, v.u8()?);
        let family = AddressFamily::from_afi_safi(afi, safi);
        families.extend(family.map(|family| (family, flags & FORWARDING != 0)));
    }
    Some(GracefulRestart {
        restarting: flags & RESTARTING != 0,
        notification: flags & NOTIFICATION != 0,
        restart_time: Duration::from_secs(u64::from(head & 0xfff)),
        families,
    })
}

/// `None`: one value out of range makes all of it not understood.
fn add_path(mut v: Reader<'_>) -> Option<Vec<(AddressFamily, AddPath)>> {
    let mut families = Vec::new();
    while !v.is_empty() {
        let (afi, safi) = (v.u16()?, v.u8()?);
        let able = match v.u8()? {
            1 => AddPath::Receive,
            2 => AddPath::Send,
            3 => AddPath::Both,
            _ => return None,
        };
        families.extend(AddressFamily::from_afi_safi(afi, safi).map(|family| (family, able)));
    }
    Some(families)
}

fn long_lived(v: &mut Reader<'_>) -> Option<Vec<LongLived>> {
    let mut families = Vec::new();
    while !v.is_empty() {
        let (afi, safi, flags) = (v.u16()?, v.u8()?, v.u8()?);
        let [a, b, c] = v.array()?;
        let stale_time = Duration::from_secs(u64::from(u32::from_be_bytes([0, a, b, c])));
        let family = AddressFamily::from_afi_safi(afi, safi);
        families.extend(family.map(|family| LongLived { family, forwarding: flags & FORWARDING != 0, stale_time }));
    }
    Some(families)
}

/// Code and value. Times beyond their fields are cut to the longest.
pub(super) fn encode(capability: &Capability) -> (u8, Vec<u8>) {
    match capability {
        Capability::Multiprotocol(family) => {
            let [high, low, safi] = numbers(*family);
            (MULTIPROTOCOL, vec![high, low, 0, safi])
        }
        Capability::RouteRefresh => (ROUTE_REFRESH, vec![]),
        Capability::ExtendedNextHop(families) => {
            let tuple = |family: &AddressFamily| {
                let [high, low, safi] = numbers(*family);
                [high, low, 0, safi, 0, AFI_IPV6 as u8]
            };
            (EXTENDED_NEXT_HOP, families.iter().flat_map(tuple).collect())
        }
        Capability::ExtendedMessage => (EXTENDED_MESSAGE, vec![]),
        Capability::Role(role) => (ROLE, vec![role_value(*role)]),
        Capability::GracefulRestart(it) => (GRACEFUL_RESTART, graceful_restart_value(it)),
        Capability::FourOctetAs(asn) => (FOUR_OCTET_AS, asn.0.to_be_bytes().to_vec()),
        Capability::AddPath(families) => {
            let tuple = |(family, able): &(AddressFamily, AddPath)| {
                let [high, low, safi] = numbers(*family);
                [high, low, safi, *able as u8]
            };
            (ADD_PATH, families.iter().flat_map(tuple).collect())
        }
        Capability::EnhancedRouteRefresh => (ENHANCED_ROUTE_REFRESH, vec![]),
        Capability::LongLivedGracefulRestart(families) => {
            let tuple = |it: &LongLived| {
                let [high, low, safi] = numbers(it.family);
                let [_, a, b, c] = seconds(it.stale_time, MAX_STALE_TIME).to_be_bytes();
                [high, low, safi, flag(it.forwarding, FORWARDING), a, b, c]
            };
            (LONG_LIVED_GRACEFUL_RESTART, families.iter().flat_map(tuple).collect())
        }
        Capability::Unknown { code, value } => (*code, value.clone()),
    }
}

fn graceful_restart_value(it: &GracefulRestart) -> Vec<u8> {
    let [_, _, high, low] = seconds(it.restart_time, MAX_RESTART_TIME).to_be_bytes();
    let mut value = vec![flag(it.restarting, RESTARTING) | flag(it.notification, NOTIFICATION) | high, low];
    for &(family, forwarding) in &it.families {
        value.extend_from_slice(&numbers(family));
        value.push(flag(forwarding, FORWARDING));
    }
    value
}

fn role_value(role: Role) -> u8 {
    match role {
        Role::Provider => 0,
        Role::RouteServer => 1,
        Role::RouteServerClient => 2,
        Role::Customer => 3,
        Role::Peer => 4,
        Role::Unknown(value) => value,
    }
}

fn numbers(family: AddressFamily) -> [u8; 3] {
    let (afi, safi) = family.afi_safi();
    let [high, low] = afi.to_be_bytes();
    [high, low, safi]
}

fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

fn seconds(time: Duration, longest: Duration) -> u32 {
    time.min(longest).as_secs() as u32
}
