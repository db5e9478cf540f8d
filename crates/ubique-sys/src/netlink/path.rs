//! Where a packet goes: the kernel's route for one address, and the neighbour that takes it.

use std::net::IpAddr;

use super::message::{Encoder, attributes, read_u16, read_u32};
use super::{family_code, parse_ip, push_address};

/// Of Ethernet.
pub type HardwareAddress = [u8; 6];

/// How packets to an address leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Index of the interface.
    pub interface: u32,
    /// The next router; `None`: the address is on the link.
    pub gateway: Option<IpAddr>,
    /// The source that the kernel would choose; `None` where it was told one.
    pub source: Option<IpAddr>,
    /// The address is one of this machine.
    pub is_local: bool,
}

/// `struct rtmsg`: see `route.rs`.
const ROUTE_HEADER_LEN: usize = 12;
/// `struct ndmsg`: family u8, padding, interface i32, state u16, flags u8, type u8.
const NEIGHBOUR_HEADER_LEN: usize = 12;

/// States in which the kernel sends to a neighbour's address (`NUD_VALID`).
const VALID: u16 =
    libc::NUD_PERMANENT | libc::NUD_NOARP | libc::NUD_REACHABLE | libc::NUD_PROBE | libc::NUD_STALE | libc::NUD_DELAY;

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

pub(super) fn ask_path(encoder: &mut Encoder, sequence: u32, to: IpAddr, from: Option<IpAddr>) {
    encoder.begin(libc::RTM_GETROUTE, libc::NLM_F_REQUEST as u16, sequence);
    let mut header = [0; ROUTE_HEADER_LEN];
    header[0] = family_code(to);
    header[1] = bits(to);
    header[2] = from.map_or(0, bits);
    encoder.body(&header);
    push_address(encoder, libc::RTA_DST, to);
    if let Some(from) = from {
        push_address(encoder, libc::RTA_SRC, from);
    }
    encoder.finish();
}

pub(super) fn parse_path(kind: u16, body: &[u8]) -> Option<Path> {
    let (header, rest) = body.split_at_checked(ROUTE_HEADER_LEN)?;
    if kind != libc::RTM_NEWROUTE {
        return None;
    }
    let mut path = Path { interface: 0, gateway: None, source: None, is_local: header[7] == libc::RTN_LOCAL };
    for (kind, value) in attributes(rest) {
        match kind {
            libc::RTA_OIF => path.interface = read_u32(value, 0)?,
            libc::RTA_GATEWAY => path.gateway = parse_ip(value),
            libc::RTA_VIA => path.gateway = value.get(2..).and_then(parse_ip),
            libc::RTA_PREFSRC => path.source = parse_ip(value),
            _ => {}
        }
    }
    (path.interface != 0).then_some(path)
}

pub(super) fn ask_neighbour(encoder: &mut Encoder, sequence: u32, interface: u32, address: IpAddr) {
    encoder.begin(libc::RTM_GETNEIGH, libc::NLM_F_REQUEST as u16, sequence);
    let mut header = [0; NEIGHBOUR_HEADER_LEN];
    header[0] = family_code(address);
    header[4..8].copy_from_slice(&interface.to_ne_bytes());
    encoder.body(&header);
    push_address(encoder, libc::NDA_DST, address);
    encoder.finish();
}

/// `Some(None)`: a neighbour whose address is not known now.
pub(super) fn parse_neighbour(kind: u16, body: &[u8]) -> Option<Option<HardwareAddress>> {
    let (header, rest) = body.split_at_checked(NEIGHBOUR_HEADER_LEN)?;
    if kind != libc::RTM_NEWNEIGH {
        return None;
    }
    let state = read_u16(header, 8)?;
    let address = attributes(rest).find(|(kind, _)| *kind == libc::NDA_LLADDR);
    let address = address.and_then(|(_, value)| value.try_into().ok());
    Some(address.filter(|_| state & VALID != 0))
}
