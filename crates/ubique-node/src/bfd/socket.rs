//! Sockets of BFD, and when what they received arrived.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};
use ubique_model::Family;
use ubique_proto::Time;
use ubique_proto::bfd::{In, Remote};
use ubique_sys::udp::{self, UdpBatch};
use ubique_sys::{clock, tcp};

use super::{MULTIHOP_PORT, Peer, SINGLE_HOP_PORT};
use crate::clock::now;
use crate::random::seed;

/// TTL and hop limit of every packet (RFC 5881 §5; RFC 5883 leaves it open, and 255 lets the receiver count hops).
const TTL: u8 = 255;

/// Source ports (RFC 5881 §4).
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// Attempts to find a free source port at random: with half of them taken, one in 10^9 fails.
const PORT_ATTEMPTS: usize = 30;

/// Octets kept of a datagram: a packet with the longest authentication section fits.
const DATAGRAM_BYTES: usize = 256;

/// Datagrams taken in one system call.
const BATCH: usize = 32;

/// System calls before deadlines are looked at again: what a socket of the default size can hold (212,992 octets of
/// at least 768 each) is taken whole, and a flood does not starve the timers.
const BATCHES: usize = 10;

/// A socket that receives for all sessions of one family and kind.
pub(super) struct Receiver {
    socket: UdpSocket,
    pub(super) family: Family,
    pub(super) multihop: bool,
    batch: UdpBatch,
    /// Nothing that is in the socket arrived before: it was empty then.
    emptied: Time,
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn socket(family: Family) -> io::Result<Socket> {
    let domain = if family == Family::Ipv4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if family == Family::Ipv6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn at(address: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match address {
        IpAddr::V4(v4) => (v4, port).into(),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, scope).into(),
    }
}

fn port(multihop: bool) -> u16 {
    if multihop { MULTIHOP_PORT } else { SINGLE_HOP_PORT }
}

impl Receiver {
    pub(super) fn open(family: Family, multihop: bool) -> Result<Receiver, String> {
        let port = port(multihop);
        let open = || {
            let socket = socket(family)?;
            let local = at(unspecified(family), port, 0);
            udp::enable_timestamps(socket.as_fd())?;
            udp::enable_ttl(socket.as_fd(), local)?;
            socket.bind(&local.into())?;
            io::Result::Ok(socket.into())
        };
        let socket = open().map_err(|e| format!("cannot receive BFD on UDP port {port} ({family}): {e}"))?;
        Ok(Receiver { socket, family, multihop, batch: UdpBatch::new(BATCH, DATAGRAM_BYTES), emptied: now() })
    }

    /// Takes what has arrived until `now`.
    pub(super) fn drain(&mut self, now: Time, mut take: impl FnMut(In)) {
        let realtime_ns = clock::realtime_ns();
        let (emptied, multihop) = (self.emptied, self.multihop);
        for _ in 0..BATCHES {
            let taken = udp::recv_batch(self.socket.as_fd(), &mut self.batch, |datagram| {
                let age = datagram.timestamp_ns.map_or(0, |ns| realtime_ns.saturating_sub(ns));
                // A step of the wall clock meanwhile does no harm beyond these bounds.
                let received = Time(now.0.saturating_sub(age)).max(emptied).min(now);
                let (address, scope) = match datagram.from {
                    SocketAddr::V4(from) => (IpAddr::V4(*from.ip()), 0),
                    SocketAddr::V6(from) => (IpAddr::V6(*from.ip()), from.scope_id()),
                };
                let from = Remote { address, scope, multihop };
                take(In::Datagram { from, ttl: datagram.ttl, received, bytes: datagram.bytes.to_vec() });
            });
            match taken {
                Ok(count) if count == BATCH => {}
                // Fewer than there was room for, or none: it is empty.
                _ => {
                    self.emptied = now;
                    return;
                }
            }
        }
    }
}

/// A socket that sends for one session: its source port is the session's own (RFC 5881 §4).
pub(super) struct Sender {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Sender {
    pub(super) fn open(peer: &Peer) -> io::Result<Sender> {
        let family = Family::of_address(peer.remote);
        let socket = socket(family)?;
        let fd = socket.as_fd();
        tcp::set_ttl(fd, TTL)?;
        tcp::set_priority_cs6(fd)?;
        udp::set_send_first(fd)?;
        if peer.local.is_some() {
            // It may come later.
            tcp::set_freebind(fd)?;
        }
        let local = peer.local.unwrap_or(unspecified(family));
        let ports = u64::from(SOURCE_PORTS.end() - SOURCE_PORTS.start()) + 1;
        let mut bound = Err(io::ErrorKind::AddrInUse.into());
        for _ in 0..PORT_ATTEMPTS {
            let port = SOURCE_PORTS.start() + (seed() % ports) as u16;
            bound = socket.bind(&at(local, port, peer.scope).into());
            if bound.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse) {
                continue;
            }
            break;
        }
        bound?;
        Ok(Sender { socket: socket.into(), to: at(peer.remote, port(peer.hops.is_some()), peer.scope) })
    }

    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, self.to).map(drop)
    }
}
