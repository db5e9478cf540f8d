//! The last-site guard's ping: does another site answer on a service address, through one upstream?
//!
//! The address is on our own loopback, so an ordinary socket would ask ourselves. A raw socket bound to the interface of
//! the session makes the kernel look past it, for the route out; the answer, from an address that is ours, it would drop
//! as a martian, so it is read off the interface with a packet socket. Source is our address on the session: other sites
//! must be able to reach it.
//!
//! A thread of its own for each ping, since packet sockets are not the runtime's, and pings are rare. RFC 792, RFC 4443.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{Domain, Protocol, Socket, Type};
use ubique_sys::netlink::Netlink;
use ubique_sys::packet::{Batch, PacketSocket};

use super::detect::Detected;
use super::site::Agent;
use crate::random::query_id;

/// Interval between two pings.
const EVERY: Duration = Duration::from_millis(500);

/// Frames read at a time, and octets of each that are kept: headers suffice, longer ones are not ours.
const FRAMES: usize = 32;
const FRAME_BYTES: usize = 256;

/// Octets of an Ethernet header, its EtherTypes, and of the IPv6 header.
const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const IPV6_HEADER: usize = 40;

/// Types of ICMP and ICMPv6.
const ECHO: [u8; 2] = [8, 128];
const ECHO_REPLY: [u8; 2] = [0, 129];

impl Agent {
    /// Looks for another site by a ping through an upstream, and reports to the loop.
    pub(super) fn probe(&self, upstream: String, within: Duration) {
        let mut peers = self.peers();
        let local = peers.find(|(u, _)| u.label() == upstream).and_then(|(_, peer)| Some(peer.local?.address));
        let (addresses, reports) = (self.service.addresses.clone(), self.inputs.events.clone());
        std::thread::spawn(move || {
            let answered = match local {
                Some(local) => ping(local, &addresses, within).map_err(|error| error.to_string()),
                None => Err("its session is down".to_owned()),
            };
            if let Err(error) = &answered {
                tracing::warn!(upstream, error, "other sites cannot be looked for by a ping");
            }
            // The loop has ended otherwise.
            let _ = reports.blocking_send(Detected::Probed { upstream, answered });
        });
    }
}

/// Whether anybody answers on one of the addresses before the time is over; only those of `local`'s family are asked.
fn ping(local: IpAddr, addresses: &[IpAddr], within: Duration) -> io::Result<bool> {
    let targets: Vec<IpAddr> = addresses.iter().copied().filter(|a| a.is_ipv4() == local.is_ipv4()).collect();
    let mut netlink = Netlink::open()?;
    let holder = netlink.all_addresses()?.into_iter().find(|(_, net)| net.addr() == local);
    let index = holder.map(|(index, _)| index).ok_or(io::ErrorKind::AddrNotAvailable)?;
    let links = netlink.links()?;
    let link = links.iter().find(|link| link.index == index).ok_or(io::ErrorKind::NotFound)?;
    let listener = PacketSocket::open(index)?;
    let sender = sender(local, &link.name)?;
    let (id, mut frames) = (query_id(), Batch::new(FRAMES, FRAME_BYTES));
    let end = Instant::now() + within;
    let mut sequence = 0;
    while Instant::now() < end {
        sequence += 1;
        for target in &targets {
            sender.send_to(&echo(local, id, sequence), &SocketAddr::new(*target, 0).into())?;
        }
        let until = end.min(Instant::now() + EVERY);
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            let timeout = Timespec::try_from(left).unwrap_or_default();
            rustix::event::poll(&mut [PollFd::new(&listener.as_fd(), PollFlags::IN)], Some(&timeout))?;
            let mut answered = false;
            let heard = listener.recv_batch(&mut frames, |frame| {
                answered |= reply(frame).is_some_and(|(from, of)| of == id && targets.contains(&from));
            });
            match heard {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ if answered => return Ok(true),
                _ => {}
            }
        }
    }
    Ok(false)
}

/// A raw socket that sends out of one interface, from our address there.
fn sender(local: IpAddr, interface: &str) -> io::Result<Socket> {
    let (domain, protocol) = match local {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddr::new(local, 0).into())?;
    Ok(socket)
}

/// An echo request; the kernel fills in the checksum of ICMPv6.
fn echo(local: IpAddr, id: u16, sequence: u16) -> [u8; 8] {
    let mut message = [0; 8];
    message[0] = ECHO[usize::from(local.is_ipv6())];
    message[4..6].copy_from_slice(&id.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum: u32 = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// Who answered a ping, and its identifier, when the frame is such an answer.
fn reply(frame: &[u8]) -> Option<(IpAddr, u16)> {
    let ether_type = u16::from_be_bytes(frame.get(12..ETHERNET)?.try_into().ok()?);
    let packet = frame.get(ETHERNET..)?;
    let (from, kind, message): (IpAddr, u8, &[u8]) = match ether_type {
        IPV4 if *packet.get(9)? == 1 => {
            let header = usize::from(*packet.first()? & 0x0f) * 4;
            let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            (Ipv4Addr::from(from).into(), ECHO_REPLY[0], packet.get(header..)?)
        }
        IPV6 if *packet.get(6)? == 58 => {
            let from: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            (Ipv6Addr::from(from).into(), ECHO_REPLY[1], packet.get(IPV6_HEADER..)?)
        }
        _ => return None,
    };
    let id = u16::from_be_bytes(message.get(4..6)?.try_into().ok()?);
    (*message.first()? == kind).then_some((from, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer as it comes off the interface.
    fn frame(from: IpAddr, id: u16) -> Vec<u8> {
        let mut message = echo(from, id, 7);
        message[0] = ECHO_REPLY[usize::from(from.is_ipv6())];
        let mut frame = vec![0; 12];
        match from {
            IpAddr::V4(from) => {
                frame.extend(IPV4.to_be_bytes());
                let mut header = [0; 20];
                (header[0], header[9]) = (0x45, 1);
                header[12..16].copy_from_slice(&from.octets());
                frame.extend(header);
            }
            IpAddr::V6(from) => {
                frame.extend(IPV6.to_be_bytes());
                let mut header = [0; IPV6_HEADER];
                (header[0], header[6]) = (0x60, 58);
                header[8..24].copy_from_slice(&from.octets());
                frame.extend(header);
            }
        }
        frame.extend(message);
        frame
    }

    #[test]
    fn answers_are_told_from_everything_else() {
        for from in ["198.51.100.53", "2001:db8:53::53"] {
            let from: IpAddr = from.parse().unwrap();
            let answer = frame(from, 0x1234);
            assert_eq!(reply(&answer), Some((from, 0x1234)));
            for length in 0..answer.len() - 2 {
                assert_eq!(reply(&answer[..length]), None, "cut to {length}");
            }
            let mut request = answer.clone();
            let kind = answer.len() - 8;
            request[kind] = ECHO[usize::from(from.is_ipv6())];
            assert_eq!(reply(&request), None, "a request is no answer");
            for at in 0..answer.len() {
                for bit in 0..8 {
                    let mut damaged = answer.clone();
                    damaged[at] ^= 1 << bit;
                    let _ = reply(&damaged);
                }
            }
        }
    }

    #[test]
    fn the_checksum_of_a_ping_adds_up() {
        let message = echo(Ipv4Addr::LOCALHOST.into(), 0xffff, 0xfffe);
        let sum: u32 = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "{message:?}");
    }
}
