//! Writing.

use std::net::IpAddr;

use super::{DownReason, HEADER_LEN, Message, Peer, Statistic, Tlv, VERSION, flag, kind};

/// Appends a message.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
    match message {
        Message::RouteMonitoring { peer, update } => {
            head(kind::ROUTE_MONITORING, peer, out);
            out.extend_from_slice(update);
        }
        Message::StatisticsReport { peer, statistics } => {
            head(kind::STATISTICS_REPORT, peer, out);
            out.extend_from_slice(&u32::try_from(statistics.len()).unwrap_or(u32::MAX).to_be_bytes());
            statistics.iter().for_each(|s| statistic(s, out));
        }
        Message::PeerDown { peer, reason } => {
            head(kind::PEER_DOWN, peer, out);
            down(reason, out);
        }
        Message::PeerUp { peer, local, local_port, remote_port, sent_open, received_open, information } => {
            head(kind::PEER_UP, peer, out);
            address(*local, out);
            out.extend_from_slice(&local_port.to_be_bytes());
            out.extend_from_slice(&remote_port.to_be_bytes());
            out.extend_from_slice(sent_open);
            out.extend_from_slice(received_open);
            tlvs(information, out);
        }
        Message::Initiation(information) => {
            out.push(kind::INITIATION);
            tlvs(information, out);
        }
        Message::Termination(information) => {
            out.push(kind::TERMINATION);
            tlvs(information, out);
        }
        Message::RouteMirroring { peer, parts } => {
            head(kind::ROUTE_MIRRORING, peer, out);
            tlvs(parts, out);
        }
    }
    debug_assert!(out.len() - start >= HEADER_LEN);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
}

fn head(kind: u8, peer: &Peer, out: &mut Vec<u8>) {
    let family = if peer.address.is_ipv6() { flag::IPV6 } else { 0 };
    out.extend_from_slice(&[kind, peer.kind, peer.flags & !flag::IPV6 | family]);
    out.extend_from_slice(&peer.distinguisher.to_be_bytes());
    address(peer.address, out);
    out.extend_from_slice(&peer.asn.0.to_be_bytes());
    out.extend_from_slice(&peer.router_id.octets());
    out.extend_from_slice(&peer.seconds.to_be_bytes());
    out.extend_from_slice(&peer.microseconds.to_be_bytes());
}

/// Sixteen octets; an IPv4 address in the last four.
fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(a) => {
            out.extend_from_slice(&[0; 12]);
            out.extend_from_slice(&a.octets());
        }
        IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
    }
}

fn statistic(statistic: &Statistic, out: &mut Vec<u8>) {
    let (kind, value) = match statistic {
        Statistic::Counter(kind, value) => (*kind, value.to_be_bytes().to_vec()),
        Statistic::Gauge(kind, value) => (*kind, value.to_be_bytes().to_vec()),
        Statistic::FamilyGauge(kind, afi, safi, value) => {
            let [high, low] = afi.to_be_bytes();
            (*kind, [&[high, low, *safi][..], &value.to_be_bytes()].concat())
        }
        Statistic::Other(kind, value) => (*kind, value.clone()),
    };
    tlv(kind, &value, out);
}

fn down(reason: &DownReason, out: &mut Vec<u8>) {
    let event;
    let (code, data): (u8, &[u8]) = match reason {
        DownReason::LocalNotification(message) => (1, message),
        DownReason::LocalClosed(code) => {
            event = code.to_be_bytes();
            (2, &event)
        }
        DownReason::RemoteNotification(message) => (3, message),
        DownReason::RemoteClosed => (4, &[]),
        DownReason::NotMonitored => (5, &[]),
        DownReason::Other(code, data) => (*code, data),
    };
    out.push(code);
    out.extend_from_slice(data);
}

fn tlvs(list: &[Tlv], out: &mut Vec<u8>) {
    list.iter().for_each(|t| tlv(t.kind, &t.value, out));
}

/// A value too long for its length field is cut.
fn tlv(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&value[..usize::from(length)]);
}
