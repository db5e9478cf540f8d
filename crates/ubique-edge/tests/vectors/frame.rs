//! Frames, made and read without any help of what is tested.

use std::net::{IpAddr, SocketAddr};

use ubique_proto::sessions::Flow;

use crate::setup::{OUR_MAC, ROUTER_MAC};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SYN: u8 = 2;
pub const ACK: u8 = 16;

/// RFC 1071
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let octets = parts.concat();
    let mut sum: u32 =
        octets.chunks(2).map(|two| u32::from(two[0]) << 8 | two.get(1).map_or(0, |b| u32::from(*b))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Checksum of a TCP, UDP or ICMPv6 packet with its pseudo-header.
pub fn transport_checksum(from: IpAddr, to: IpAddr, protocol: u8, l4: &[u8]) -> u16 {
    let length = (l4.len() as u32).to_be_bytes();
    checksum(&[&octets(from), &octets(to), &length, &[0, 0, 0, protocol], l4])
}

/// An Ethernet frame from the router to us.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, l4: &[u8]) -> Vec<u8> {
    let mut frame = [OUR_MAC, ROUTER_MAC].concat();
    if from.is_ipv4() {
        frame.extend([8, 0]);
        let mut header = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 57, protocol, 0, 0];
        header[2..4].copy_from_slice(&(20 + l4.len() as u16).to_be_bytes());
        header.extend([octets(from), octets(to)].concat());
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(header);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((l4.len() as u16).to_be_bytes());
        frame.extend([protocol, 57]);
        frame.extend([octets(from), octets(to)].concat());
    }
    frame.extend(l4);
    frame
}

pub struct Tcp {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    /// Whole words.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Default for Tcp {
    fn default() -> Tcp {
        Tcp { flags: ACK, seq: 1000, ack: 2000, options: vec![], payload: vec![] }
    }
}

pub fn timestamps(value: u32, echo: u32) -> Vec<u8> {
    [&[1, 1, 8, 10], &value.to_be_bytes()[..], &echo.to_be_bytes()].concat()
}

fn tcp_between(from: SocketAddr, to: SocketAddr, tcp: &Tcp) -> Vec<u8> {
    let mut l4 = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    l4.extend([tcp.seq.to_be_bytes(), tcp.ack.to_be_bytes()].concat());
    l4.extend([((20 + tcp.options.len()) * 4) as u8, tcp.flags, 0x20, 0, 0, 0, 0, 0]);
    l4.extend(&tcp.options);
    l4.extend(&tcp.payload);
    let sum = transport_checksum(from.ip(), to.ip(), TCP, &l4);
    l4[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(from.ip(), to.ip(), TCP, &l4)
}

/// From the client.
pub fn tcp(flow: &Flow, tcp: &Tcp) -> Vec<u8> {
    tcp_between(flow.client, flow.service, tcp)
}

/// From the service.
pub fn reply(flow: &Flow, tcp: &Tcp) -> Vec<u8> {
    tcp_between(flow.service, flow.client, tcp)
}

pub fn udp_between(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut l4 = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    l4.extend((8 + payload.len() as u16).to_be_bytes());
    l4.extend([0, 0]);
    l4.extend(payload);
    let sum = transport_checksum(from.ip(), to.ip(), UDP, &l4);
    l4[6..8].copy_from_slice(&sum.to_be_bytes());
    ip(from.ip(), to.ip(), UDP, &l4)
}

pub fn udp(flow: &Flow, payload: &[u8]) -> Vec<u8> {
    udp_between(flow.client, flow.service, payload)
}

/// A frame taken apart.
pub struct Parsed {
    pub macs: Vec<u8>,
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: u8,
    pub l4: Vec<u8>,
}

impl Parsed {
    pub fn of(frame: &[u8]) -> Parsed {
        let ip = &frame[14..];
        let macs = frame[..12].to_vec();
        if frame[12..14] == [8, 0] {
            assert_eq!(ip[0], 0x45);
            let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            assert_eq!(checksum(&[&ip[..20]]), 0, "checksum of the header");
            let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
            let (from, to) = (address(12), address(16));
            Parsed { macs, from, to, protocol: ip[9], l4: ip[20..length].to_vec() }
        } else {
            assert_eq!(&frame[12..15], [0x86, 0xdd, 0x60]);
            let length = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
            let (from, to) = (address(8), address(24));
            Parsed { macs, from, to, protocol: ip[6], l4: ip[40..length].to_vec() }
        }
    }

    /// Of TCP: the checksum is right.
    pub fn tcp_is_sound(&self) -> bool {
        self.protocol == TCP && transport_checksum(self.from, self.to, TCP, &self.l4) == 0
    }
}
