//! Routes of table `main`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::message::{Encoder, attributes, read_u16, read_u32};
use super::request::begin;
use super::{family_code, octets, parse_ip, push_address};

/// `RTPROT_BGP`: the mark of routes that came from BGP.
pub const RTPROT_BGP: u8 = 186;

/// `RTPROT_STATIC`: the mark of routes an administrator made.
pub const RTPROT_STATIC: u8 = 4;

/// `struct rtmsg`: family, destination length, source length, TOS, table, protocol, scope, type (u8 each), flags u32.
const ROUTE_HEADER_LEN: usize = 12;
/// `struct rtnexthop`: length u16, flags u8, hops u8, interface u32.
const NEXT_HOP_LEN: usize = 8;

/// Address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    pub(super) fn code(self) -> u8 {
        match self {
            Family::V4 => libc::AF_INET as u8,
            Family::V6 => libc::AF_INET6 as u8,
        }
    }
}

/// A route of table `main`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Network; host bits are ignored.
    pub destination: IpNet,
    /// Next hop; may be IPv6 for an IPv4 destination (RFC 8950).
    pub gateway: Option<IpAddr>,
    /// Index of the interface the packets leave by.
    pub interface: Option<u32>,
    /// `RTPROT_*`, who made the route: see `/etc/iproute2/rt_protos`.
    pub protocol: u8,
    /// Lower wins. `None` writes the kernel's default (0 for IPv4, 1024 for IPv6).
    pub metric: Option<u32>,
    /// Drops the packets: no gateway and no interface then.
    pub blackhole: bool,
    /// Source address of packets that have none yet.
    pub source: Option<IpAddr>,
}

impl Route {
    pub(super) fn encode_replace(&self, encoder: &mut Encoder, sequence: u32) {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let on_link = self.gateway.is_none() && !self.blackhole && self.destination.addr().is_ipv4();
        let scope = if on_link { libc::RT_SCOPE_LINK } else { libc::RT_SCOPE_UNIVERSE };
        let kind = if self.blackhole { libc::RTN_BLACKHOLE } else { libc::RTN_UNICAST };
        begin(encoder, sequence, libc::RTM_NEWROUTE, flags);
        self.encode(encoder, scope, kind);
    }

    pub(super) fn encode_delete(&self, encoder: &mut Encoder, sequence: u32) {
        let kind = if self.blackhole { libc::RTN_BLACKHOLE } else { libc::RTN_UNSPEC };
        begin(encoder, sequence, libc::RTM_DELROUTE, 0);
        // "Nowhere" matches routes of any scope.
        self.encode(encoder, libc::RT_SCOPE_NOWHERE, kind);
    }

    fn encode(&self, encoder: &mut Encoder, scope: u8, kind: u8) {
        let network = self.destination.network();
        let mut header = [0; ROUTE_HEADER_LEN];
        header[0] = family_code(network);
        header[1] = self.destination.prefix_len();
        header[4] = libc::RT_TABLE_MAIN;
        header[5] = self.protocol;
        header[6] = scope;
        header[7] = kind;
        encoder.body(&header);
        push_address(encoder, libc::RTA_DST, network);
        if let Some(gateway) = self.gateway {
            if gateway.is_ipv4() == network.is_ipv4() {
                push_address(encoder, libc::RTA_GATEWAY, gateway);
            } else {
                let mut via = u16::from(family_code(gateway)).to_ne_bytes().to_vec();
                let (bytes, length) = octets(gateway);
                via.extend_from_slice(&bytes[..length]);
                encoder.attribute(libc::RTA_VIA, &via);
            }
        }
        if let Some(index) = self.interface {
            encoder.attribute_u32(libc::RTA_OIF, index);
        }
        if let Some(metric) = self.metric {
            encoder.attribute_u32(libc::RTA_PRIORITY, metric);
        }
        if let Some(source) = self.source {
            push_address(encoder, libc::RTA_PREFSRC, source);
        }
        encoder.finish();
    }

    /// The routes of an `RTM_NEWROUTE`, one for each next hop; `None` when it is not of ours to list.
    pub(super) fn parse(body: &[u8]) -> Option<Vec<Route>> {
        let (header, rest) = body.split_at_checked(ROUTE_HEADER_LEN)?;
        let [family, length, _, _, table, protocol, _, kind, ..] = *header else {
            return None;
        };
        let cloned = read_u32(header, 8)? & libc::RTM_F_CLONED != 0;
        let blackhole = kind == libc::RTN_BLACKHOLE;
        if cloned || !(blackhole || kind == libc::RTN_UNICAST) {
            return None;
        }
        let any: IpAddr = match i32::from(family) {
            libc::AF_INET => std::net::Ipv4Addr::UNSPECIFIED.into(),
            libc::AF_INET6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let mut table = u32::from(table);
        let mut destination = any;
        let mut hops = Vec::new();
        let mut route = Route {
            destination: any.into(),
            gateway: None,
            interface: None,
            protocol,
            metric: None,
            blackhole,
            source: None,
        };
        for (kind, value) in attributes(rest) {
            match kind {
                libc::RTA_DST => destination = parse_ip(value)?,
                libc::RTA_TABLE => table = read_u32(value, 0)?,
                libc::RTA_PRIORITY => route.metric = read_u32(value, 0),
                libc::RTA_PREFSRC => route.source = parse_ip(value),
                libc::RTA_MULTIPATH => hops = next_hops(value),
                _ => route.next_hop(kind, value),
            }
        }
        if table != u32::from(libc::RT_TABLE_MAIN) {
            return None;
        }
        if blackhole {
            // IPv6 reports `lo` here, which nobody asked for.
            route.interface = None;
        }
        route.destination = IpNet::new(destination, length).ok()?;
        if hops.is_empty() {
            return Some(vec![route]);
        }
        let each = |(gateway, interface)| Route { gateway, interface, ..route.clone() };
        Some(hops.into_iter().map(each).collect())
    }

    /// The attributes that describe one next hop, in a route or in its list of next hops.
    fn next_hop(&mut self, kind: u16, value: &[u8]) {
        match kind {
            libc::RTA_OIF => self.interface = read_u32(value, 0),
            libc::RTA_GATEWAY => self.gateway = parse_ip(value),
            libc::RTA_VIA => self.gateway = value.get(2..).and_then(parse_ip),
            _ => {}
        }
    }
}

fn next_hops(mut bytes: &[u8]) -> Vec<(Option<IpAddr>, Option<u32>)> {
    let mut hops = Vec::new();
    while let (Some(length), Some(interface)) = (read_u16(bytes, 0), read_u32(bytes, 4)) {
        let length = usize::from(length);
        let Some(inside) = bytes.get(NEXT_HOP_LEN..length) else {
            break;
        };
        let gateway = attributes(inside).find_map(|(kind, value)| match kind {
            libc::RTA_GATEWAY => parse_ip(value),
            libc::RTA_VIA => value.get(2..).and_then(parse_ip),
            _ => None,
        });
        hops.push((gateway, Some(interface)));
        bytes = bytes.get((length + 3) & !3..).unwrap_or_default();
    }
    hops
}
