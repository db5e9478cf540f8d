//! The requests about links and addresses, byte for byte as in `rtnetlink(7)`.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use ipnet::IpNet;

use super::message::{Encoder, attributes, read_u32};
use super::{family_code, parse_ip, push_address};
use crate::netns::NetNs;

/// `struct ifinfomsg`: family u8, pad u8, type u16, index i32, flags u32, change mask u32.
pub(super) const LINK_HEADER_LEN: usize = 16;
/// `struct ifaddrmsg`: family u8, prefix length u8, flags u8, scope u8, index u32.
const ADDRESS_HEADER_LEN: usize = 8;

const VETH_INFO_PEER: u16 = 1;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const CREATE_ONLY: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;

/// Starts a change that wants an ACK.
pub(super) fn begin(encoder: &mut Encoder, sequence: u32, kind: u16, flags: i32) {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
    encoder.begin(kind, flags, sequence);
}

/// A dump of all objects of `family` (0: all). The link header is the longest and all start with the family.
pub(super) fn dump(encoder: &mut Encoder, sequence: u32, kind: u16, family: u8) {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    encoder.begin(kind, flags, sequence);
    let mut header = [0; LINK_HEADER_LEN];
    header[0] = family;
    encoder.body(&header);
    encoder.finish();
}

fn link_header(encoder: &mut Encoder, index: u32, flags: i32, change: i32) {
    let mut header = [0; LINK_HEADER_LEN];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    encoder.body(&header);
}

pub(super) fn set_link(encoder: &mut Encoder, sequence: u32, index: u32, up: bool) {
    begin(encoder, sequence, libc::RTM_SETLINK, 0);
    let flags = if up { libc::IFF_UP } else { 0 };
    link_header(encoder, index, flags, libc::IFF_UP);
    encoder.finish();
}

pub(super) fn delete_link(encoder: &mut Encoder, sequence: u32, index: u32) {
    begin(encoder, sequence, libc::RTM_DELLINK, 0);
    link_header(encoder, index, 0, 0);
    encoder.finish();
}

pub(super) fn add_veth(encoder: &mut Encoder, sequence: u32, a: (&str, Option<&NetNs>), b: (&str, Option<&NetNs>)) {
    begin(encoder, sequence, libc::RTM_NEWLINK, CREATE_ONLY);
    link_header(encoder, 0, 0, 0);
    veth(encoder, a, b);
}

/// A veth pair whose end `a` has the given hardware address and no ARP.
pub(super) fn add_point_to_point(
    encoder: &mut Encoder,
    sequence: u32,
    a: (&str, Option<&NetNs>),
    b: (&str, Option<&NetNs>),
    mac: [u8; 6],
) {
    begin(encoder, sequence, libc::RTM_NEWLINK, CREATE_ONLY);
    link_header(encoder, 0, libc::IFF_NOARP, libc::IFF_NOARP);
    encoder.attribute(libc::IFLA_ADDRESS, &mac);
    veth(encoder, a, b);
}

/// What follows the header of a request for a veth pair.
fn veth(encoder: &mut Encoder, a: (&str, Option<&NetNs>), b: (&str, Option<&NetNs>)) {
    veth_end(encoder, a);
    let info = encoder.nest(libc::IFLA_LINKINFO);
    encoder.attribute_str(libc::IFLA_INFO_KIND, "veth");
    let data = encoder.nest(libc::IFLA_INFO_DATA);
    let peer = encoder.nest(VETH_INFO_PEER);
    link_header(encoder, 0, 0, 0);
    veth_end(encoder, b);
    encoder.end_nest(peer);
    encoder.end_nest(data);
    encoder.end_nest(info);
    encoder.finish();
}

fn veth_end(encoder: &mut Encoder, (name, ns): (&str, Option<&NetNs>)) {
    encoder.attribute_str(libc::IFLA_IFNAME, name);
    // The default is a queue for each processor: memory and time that a lab of thousands of ends cannot use.
    encoder.attribute_u32(IFLA_NUM_TX_QUEUES, 1);
    encoder.attribute_u32(IFLA_NUM_RX_QUEUES, 1);
    if let Some(ns) = ns {
        let fd = ns.as_fd().as_raw_fd();
        encoder.attribute(libc::IFLA_NET_NS_FD, &fd.to_ne_bytes());
    }
}

fn address_header(encoder: &mut Encoder, index: u32, address: IpNet) {
    let is_v6 = address.addr().is_ipv6();
    let mut header = [0; ADDRESS_HEADER_LEN];
    header[0] = family_code(address.addr());
    header[1] = address.prefix_len();
    header[2] = if is_v6 { libc::IFA_F_NODAD as u8 } else { 0 };
    header[4..].copy_from_slice(&index.to_ne_bytes());
    encoder.body(&header);
    push_address(encoder, libc::IFA_LOCAL, address.addr());
    push_address(encoder, libc::IFA_ADDRESS, address.addr());
}

pub(super) fn add_address(encoder: &mut Encoder, sequence: u32, index: u32, address: IpNet) {
    begin(encoder, sequence, libc::RTM_NEWADDR, CREATE_ONLY);
    address_header(encoder, index, address);
    encoder.finish();
}

/// An address with its peer, as `ip address add LOCAL peer REMOTE`; both must be of one family.
pub(super) fn add_peer_address(encoder: &mut Encoder, sequence: u32, index: u32, (local, remote): (IpAddr, IpAddr)) {
    begin(encoder, sequence, libc::RTM_NEWADDR, CREATE_ONLY);
    let mut header = [0; ADDRESS_HEADER_LEN];
    header[0] = family_code(local);
    header[1] = if local.is_ipv6() { 128 } else { 32 };
    header[2] = if local.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
    header[4..].copy_from_slice(&index.to_ne_bytes());
    encoder.body(&header);
    push_address(encoder, libc::IFA_LOCAL, local);
    push_address(encoder, libc::IFA_ADDRESS, remote);
    encoder.finish();
}

pub(super) fn delete_address(encoder: &mut Encoder, sequence: u32, index: u32, address: IpNet) {
    begin(encoder, sequence, libc::RTM_DELADDR, 0);
    address_header(encoder, index, address);
    encoder.finish();
}

/// Interface index and address of an `RTM_NEWADDR` or `RTM_DELADDR`.
pub(super) fn parse_address(body: &[u8]) -> Option<(u32, IpNet)> {
    let (header, rest) = body.split_at_checked(ADDRESS_HEADER_LEN)?;
    // On point-to-point links IFA_ADDRESS is the other side, IFA_LOCAL ours; IPv6 mostly has IFA_ADDRESS only.
    let find = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| parse_ip(value));
    let address = find(libc::IFA_LOCAL).or_else(|| find(libc::IFA_ADDRESS))?;
    let address = IpNet::new(address, header[1]).ok()?;
    Some((read_u32(header, 4)?, address))
}
