//! MRT: BGP messages and state changes as files keep them (RFC 6396, RFC 8050).
//!
//! [`encode`] appends a record of type BGP4MP_ET, [`decode`] reads one. Messages we sent have the subtypes ending in
//! LOCAL; those of a session on which some family has path identifiers the ADDPATH ones.
//!
//! Deliberately absent: TABLE_DUMP, TABLE_DUMP_V2 (a snapshot of the table is `ubique routes --output json`) and OSPF.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ubique_model::Asn;

/// Octets of the header: time, type, subtype, length (RFC 6396 §2).
pub const HEADER_LEN: usize = 12;

/// Longest record read, octets: an extended BGP message and its headers fit many times.
pub const MAX_LENGTH: usize = 1 << 20;

/// BGP4MP with microseconds (RFC 6396 §3).
const BGP4MP_ET: u16 = 17;
/// AFI of RFC 4760.
const IPV4: u16 = 1;
const IPV6: u16 = 2;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, s since 1970.
    pub seconds: u32,
    /// And µs.
    pub microseconds: u32,
    /// The neighbour's AS.
    pub peer_asn: Asn,
    /// Ours.
    pub local_asn: Asn,
    /// Index of the interface; 0: not known.
    pub interface: u16,
    /// The neighbour's address.
    pub peer: IpAddr,
    /// Ours, of the same family.
    pub local: IpAddr,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A state of RFC 4271 §8.2.2 was left for another: 1 Idle … 6 Established.
    StateChange {
        /// From.
        from: u16,
        /// To.
        to: u16,
    },
    /// A BGP message.
    Message {
        /// We sent it.
        sent: bool,
        /// Its AS numbers take four octets.
        four_octet_as: bool,
        /// Prefixes come with path identifiers.
        add_path: bool,
        /// The whole message.
        bytes: Vec<u8>,
    },
}

/// Subtypes (RFC 6396 §4.4, RFC 8050 §3).
mod subtype {
    pub(super) const STATE_CHANGE: u16 = 0;
    pub(super) const MESSAGE: u16 = 1;
    pub(super) const MESSAGE_AS4: u16 = 4;
    pub(super) const STATE_CHANGE_AS4: u16 = 5;
    pub(super) const MESSAGE_LOCAL: u16 = 6;
    pub(super) const MESSAGE_AS4_LOCAL: u16 = 7;
    pub(super) const MESSAGE_ADDPATH: u16 = 8;
    pub(super) const MESSAGE_AS4_ADDPATH: u16 = 9;
    pub(super) const MESSAGE_LOCAL_ADDPATH: u16 = 10;
    pub(super) const MESSAGE_AS4_LOCAL_ADDPATH: u16 = 11;
}

impl Event {
    /// Subtype, and whether the record's own AS numbers take four octets.
    fn subtype(&self) -> (u16, bool) {
        let Event::Message { sent, four_octet_as, add_path, .. } = *self else {
            return (subtype::STATE_CHANGE_AS4, true);
        };
        let subtype = match (sent, four_octet_as, add_path) {
            (false, false, false) => subtype::MESSAGE,
            (false, true, false) => subtype::MESSAGE_AS4,
            (true, false, false) => subtype::MESSAGE_LOCAL,
            (true, true, false) => subtype::MESSAGE_AS4_LOCAL,
            (false, false, true) => subtype::MESSAGE_ADDPATH,
            (false, true, true) => subtype::MESSAGE_AS4_ADDPATH,
            (true, false, true) => subtype::MESSAGE_LOCAL_ADDPATH,
            (true, true, true) => subtype::MESSAGE_AS4_LOCAL_ADDPATH,
        };
        (subtype, four_octet_as)
    }

    /// What a subtype says; the message is still to be read.
    fn of(subtype: u16) -> Option<(Event, bool)> {
        let message = |sent, four_octet_as, add_path| {
            Some((Event::Message { sent, four_octet_as, add_path, bytes: vec![] }, four_octet_as))
        };
        match subtype {
            subtype::STATE_CHANGE => Some((Event::StateChange { from: 0, to: 0 }, false)),
            subtype::STATE_CHANGE_AS4 => Some((Event::StateChange { from: 0, to: 0 }, true)),
            subtype::MESSAGE => message(false, false, false),
            subtype::MESSAGE_AS4 => message(false, true, false),
            subtype::MESSAGE_LOCAL => message(true, false, false),
            subtype::MESSAGE_AS4_LOCAL => message(true, true, false),
            subtype::MESSAGE_ADDPATH => message(false, false, true),
            subtype::MESSAGE_AS4_ADDPATH => message(false, true, true),
            subtype::MESSAGE_LOCAL_ADDPATH => message(true, false, true),
            subtype::MESSAGE_AS4_LOCAL_ADDPATH => message(true, true, true),
            _ => None,
        }
    }
}

/// Appends a record. In a two-octet one a longer AS number is AS_TRANS (RFC 6793 §9).
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    let (subtype, four_octet_as) = record.event.subtype();
    let start = out.len();
    out.extend_from_slice(&record.seconds.to_be_bytes());
    out.extend_from_slice(&BGP4MP_ET.to_be_bytes());
    out.extend_from_slice(&subtype.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&record.microseconds.to_be_bytes());
    for asn in [record.peer_asn, record.local_asn] {
        if four_octet_as {
            out.extend_from_slice(&asn.0.to_be_bytes());
        } else {
            out.extend_from_slice(&u16::try_from(asn.0).unwrap_or(Asn::TRANS.0 as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&record.interface.to_be_bytes());
    match (record.peer, record.local) {
        (IpAddr::V4(peer), IpAddr::V4(local)) => {
            out.extend_from_slice(&IPV4.to_be_bytes());
            out.extend_from_slice(&peer.octets());
            out.extend_from_slice(&local.octets());
        }
        (peer, local) => {
            out.extend_from_slice(&IPV6.to_be_bytes());
            out.extend_from_slice(&mapped(peer).octets());
            out.extend_from_slice(&mapped(local).octets());
        }
    }
    match &record.event {
        Event::StateChange { from, to } => {
            out.extend_from_slice(&from.to_be_bytes());
            out.extend_from_slice(&to.to_be_bytes());
        }
        Event::Message { bytes, .. } => out.extend_from_slice(bytes),
    }
    let length = u32::try_from(out.len() - start - HEADER_LEN).unwrap_or(u32::MAX);
    out[start + 8..start + HEADER_LEN].copy_from_slice(&length.to_be_bytes());
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped(),
        IpAddr::V6(a) => a,
    }
}

/// What stands at the beginning of some octets of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A record of type BGP4MP_ET, and how many octets it takes.
    Record(Box<Record>, usize),
    /// A record of another type or subtype, of so many octets.
    Other(usize),
    /// More octets are needed.
    Incomplete,
    /// No record: of a length none has, or malformed.
    Malformed,
}

/// Reads the record at the beginning of `octets`.
pub fn decode(octets: &[u8]) -> Parsed {
    let Some((head, rest)) = octets.split_first_chunk::<HEADER_LEN>() else {
        return Parsed::Incomplete;
    };
    let length = u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize;
    if length > MAX_LENGTH {
        return Parsed::Malformed;
    }
    let Some(body) = rest.get(..length) else {
        return Parsed::Incomplete;
    };
    let (kind, subtype) = (u16::from_be_bytes([head[4], head[5]]), u16::from_be_bytes([head[6], head[7]]));
    let used = HEADER_LEN + length;
    let event = if kind == BGP4MP_ET { Event::of(subtype) } else { None };
    let Some((event, four_octet_as)) = event else {
        return Parsed::Other(used);
    };
    let seconds = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    match read(seconds, event, four_octet_as, body) {
        Some(record) => Parsed::Record(Box::new(record), used),
        None => Parsed::Malformed,
    }
}

fn read(seconds: u32, event: Event, four_octet_as: bool, mut body: &[u8]) -> Option<Record> {
    let microseconds = u32::from_be_bytes(take(&mut body)?);
    let mut asn = || {
        Some(Asn(if four_octet_as {
            u32::from_be_bytes(take(&mut body)?)
        } else {
            u16::from_be_bytes(take(&mut body)?).into()
        }))
    };
    let (peer_asn, local_asn) = (asn()?, asn()?);
    let interface = u16::from_be_bytes(take(&mut body)?);
    let mut address: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(); 2];
    let family = u16::from_be_bytes(take(&mut body)?);
    for address in &mut address {
        *address = match family {
            IPV4 => take::<4>(&mut body)?.into(),
            IPV6 => take::<16>(&mut body)?.into(),
            _ => return None,
        };
    }
    let event = match event {
        Event::StateChange { .. } => {
            let (from, to) = (u16::from_be_bytes(take(&mut body)?), u16::from_be_bytes(take(&mut body)?));
            body.is_empty().then_some(Event::StateChange { from, to })?
        }
        Event::Message { sent, four_octet_as, add_path, .. } => {
            Event::Message { sent, four_octet_as, add_path, bytes: body.to_vec() }
        }
    };
    let [peer, local] = address;
    Some(Record { seconds, microseconds, peer_asn, local_asn, interface, peer, local, event })
}

fn take<const N: usize>(octets: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = octets.split_first_chunk()?;
    *octets = rest;
    Some(*head)
}
