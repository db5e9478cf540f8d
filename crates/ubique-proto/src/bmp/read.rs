//! Reading.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ubique_model::Asn;

use super::{DownReason, HEADER_LEN, MAX_LENGTH, Message, Peer, Statistic, Tlv, VERSION, flag, kind};
use crate::bgp::wire;

/// Why octets are no BMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Of another version.
    #[error("BMP version {0}")]
    Version(u8),
    /// Of a length no message has.
    #[error("a message of {0} octets")]
    Length(u32),
    /// Of another type.
    #[error("message type {0}")]
    Kind(u8),
    /// Shorter than its parts.
    #[error("cut off")]
    CutOff,
    /// Longer than its parts, or a part is not what it must be.
    #[error("malformed {0}")]
    Malformed(&'static str),
}

/// Length of the message that begins here; `None`: more octets are needed to tell.
///
/// # Errors
/// What begins here is no message.
pub fn length(octets: &[u8]) -> Result<Option<usize>, Fault> {
    let Some((&[version, a, b, c, d], _)) = octets.split_first_chunk() else {
        return Ok(None);
    };
    if version != VERSION {
        return Err(Fault::Version(version));
    }
    let length = u32::from_be_bytes([a, b, c, d]);
    match usize::try_from(length) {
        Ok(octets) if (HEADER_LEN..=MAX_LENGTH).contains(&octets) => Ok(Some(octets)),
        _ => Err(Fault::Length(length)),
    }
}

/// Reads one whole message.
///
/// # Errors
/// It is none.
pub fn decode(message: &[u8]) -> Result<Message, Fault> {
    if length(message)? != Some(message.len()) {
        return Err(Fault::CutOff);
    }
    let mut r = Octets(&message[HEADER_LEN..]);
    match message[HEADER_LEN - 1] {
        kind::ROUTE_MONITORING => {
            let peer = r.peer()?;
            let update = r.bgp("UPDATE")?;
            r.end("Route Monitoring")?;
            Ok(Message::RouteMonitoring { peer, update })
        }
        kind::STATISTICS_REPORT => {
            let peer = r.peer()?;
            let count = u32::from_be_bytes(r.take()?);
            let statistics: Vec<Statistic> = r.tlvs()?.into_iter().map(statistic).collect();
            if statistics.len() != count as usize {
                return Err(Fault::Malformed("count of statistics"));
            }
            Ok(Message::StatisticsReport { peer, statistics })
        }
        kind::PEER_DOWN => {
            let peer = r.peer()?;
            let reason = r.down()?;
            r.end("Peer Down")?;
            Ok(Message::PeerDown { peer, reason })
        }
        kind::PEER_UP => {
            let peer = r.peer()?;
            Ok(Message::PeerUp {
                local: r.address(peer.address.is_ipv6())?,
                local_port: u16::from_be_bytes(r.take()?),
                remote_port: u16::from_be_bytes(r.take()?),
                sent_open: r.bgp("OPEN")?,
                received_open: r.bgp("OPEN")?,
                information: r.tlvs()?,
                peer,
            })
        }
        kind::INITIATION => Ok(Message::Initiation(r.tlvs()?)),
        kind::TERMINATION => Ok(Message::Termination(r.tlvs()?)),
        kind::ROUTE_MIRRORING => Ok(Message::RouteMirroring { peer: r.peer()?, parts: r.tlvs()? }),
        other => Err(Fault::Kind(other)),
    }
}

struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Fault::CutOff)?;
        self.0 = rest;
        Ok(*head)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Fault::CutOff)?;
        self.0 = rest;
        Ok(head)
    }

    fn end(&self, what: &'static str) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { Err(Fault::Malformed(what)) }
    }

    fn address(&mut self, ipv6: bool) -> Result<IpAddr, Fault> {
        let octets: [u8; 16] = self.take()?;
        let [.., a, b, c, d] = octets;
        Ok(if ipv6 { Ipv6Addr::from(octets).into() } else { Ipv4Addr::new(a, b, c, d).into() })
    }

    fn peer(&mut self) -> Result<Peer, Fault> {
        let [kind, flags] = self.take()?;
        Ok(Peer {
            kind,
            flags: flags & !flag::IPV6,
            distinguisher: u64::from_be_bytes(self.take()?),
            address: self.address(flags & flag::IPV6 != 0)?,
            asn: Asn(u32::from_be_bytes(self.take()?)),
            router_id: self.take::<4>()?.into(),
            seconds: u32::from_be_bytes(self.take()?),
            microseconds: u32::from_be_bytes(self.take()?),
        })
    }

    /// A whole BGP message, as long as its header says.
    fn bgp(&mut self, what: &'static str) -> Result<Vec<u8>, Fault> {
        let header = self.0.get(..wire::HEADER_LEN).ok_or(Fault::CutOff)?;
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        if header[..16].iter().any(|&octet| octet != 0xff) || length < wire::HEADER_LEN {
            return Err(Fault::Malformed(what));
        }
        self.slice(length).map(<[u8]>::to_vec)
    }

    fn down(&mut self) -> Result<DownReason, Fault> {
        Ok(match self.take()? {
            [1] => DownReason::LocalNotification(self.bgp("NOTIFICATION")?),
            [2] => DownReason::LocalClosed(u16::from_be_bytes(self.take()?)),
            [3] => DownReason::RemoteNotification(self.bgp("NOTIFICATION")?),
            [4] => DownReason::RemoteClosed,
            [5] => DownReason::NotMonitored,
            [other] => DownReason::Other(other, std::mem::take(&mut self.0).to_vec()),
        })
    }

    fn tlvs(&mut self) -> Result<Vec<Tlv>, Fault> {
        let mut list = Vec::new();
        while !self.0.is_empty() {
            let kind = u16::from_be_bytes(self.take()?);
            let length = u16::from_be_bytes(self.take()?);
            list.push(Tlv { kind, value: self.slice(usize::from(length))?.to_vec() });
        }
        Ok(list)
    }
}

fn statistic(Tlv { kind, value }: Tlv) -> Statistic {
    if let Ok(counter) = value.as_slice().try_into() {
        return Statistic::Counter(kind, u32::from_be_bytes(counter));
    }
    if let Ok(gauge) = value.as_slice().try_into() {
        return Statistic::Gauge(kind, u64::from_be_bytes(gauge));
    }
    match value.split_first_chunk() {
        Some((&[high, low, safi], gauge)) if gauge.len() == 8 => {
            let gauge = gauge.iter().fold(0, |sum, &octet| sum << 8 | u64::from(octet));
            Statistic::FamilyGauge(kind, u16::from_be_bytes([high, low]), safi, gauge)
        }
        _ => Statistic::Other(kind, value),
    }
}
