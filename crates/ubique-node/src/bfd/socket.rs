//! Sockets of BFD, and when what they received arrived.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use ubique_model::Family;
use ubique_proto::Time;
use ubique_proto::bfd::packet::Discard;
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

/// Of packets that a neighbour seems to send from too far away, one in this time is looked at: the core tells of them.
const FAR_EVERY: Duration = Duration::from_secs(1);

/// What a socket receives for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub(super) family: Family,
    pub(super) multihop: bool,
    /// `None`: for neighbours without an interface of their own.
    pub(super) interface: Option<String>,
}

impl Kind {
    pub(super) fn of(peer: &Peer) -> Kind {
        Kind {
            family: Family::of_address(peer.remote),
            multihop: peer.hops.is_some(),
            interface: peer.interface.clone(),
        }
    }
}

/// A socket that receives for all sessions of one kind.
pub(super) struct Receiver {
    socket: UdpSocket,
    pub(super) kind: Kind,
    /// Others receive on the same port, on other interfaces.
    pub(super) shared: bool,
    /// Who may send, and the least TTL of his packets.
    known: BTreeMap<Remote, u8>,
    batch: UdpBatch,
    /// Nothing that is in the socket arrived before: it was empty then.
    emptied: Time,
    /// Before that no packet from too far away is looked at.
    far_at: Time,
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

/// Number of an interface; an error when it is not there.
pub(super) fn interface_index(name: &str) -> io::Result<u32> {
    Ok(rustix::net::netdevice::name_to_index(socket(Family::Ipv4)?.as_fd(), name)?)
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

/// The kernel drops what does not come from those that are known.
fn filter(socket: BorrowedFd<'_>, kind: &Kind, known: &BTreeMap<Remote, u8>) -> io::Result<()> {
    let senders: Vec<IpAddr> = known.keys().map(|remote| remote.address).collect();
    udp::accept_from(socket, kind.family == Family::Ipv4, &senders, !kind.multihop)
}

impl Receiver {
    /// `shared`: others receive on the same port, on other interfaces.
    pub(super) fn open(kind: Kind, shared: bool, known: BTreeMap<Remote, u8>) -> Result<Receiver, String> {
        let (family, port) = (kind.family, port(kind.multihop));
        let open = || {
            let socket = socket(family)?;
            let local = at(unspecified(family), port, 0);
            if shared {
                tcp::set_reuse_port(socket.as_fd())?;
            }
            if let Some(interface) = &kind.interface {
                tcp::bind_to_interface(socket.as_fd(), interface)?;
            }
            udp::enable_timestamps(socket.as_fd())?;
            udp::enable_ttl(socket.as_fd(), local)?;
            // Without it the kernel keeps more of what is thrown away here.
            let _ = filter(socket.as_fd(), &kind, &known);
            socket.bind(&local.into())?;
            io::Result::Ok(socket.into())
        };
        let socket = open().map_err(|e| {
            let on = kind.interface.as_ref().map(|name| format!(", interface {name}")).unwrap_or_default();
            format!("cannot receive BFD on UDP port {port} ({family}{on}): {e}")
        })?;
        let batch = UdpBatch::new(BATCH, DATAGRAM_BYTES);
        Ok(Receiver { socket, kind, shared, known, batch, emptied: now(), far_at: Time::ZERO })
    }

    /// From now on these may send; `false`: the kernel keeps to those before, and another socket is needed.
    pub(super) fn hear(&mut self, known: &BTreeMap<Remote, u8>) -> bool {
        if self.known != *known {
            if filter(self.socket.as_fd(), &self.kind, known).is_err() {
                return false;
            }
            self.known.clone_from(known);
        }
        true
    }

    /// Takes what has arrived until `now` from neighbours; what comes from others is told to `discard` only.
    pub(super) fn drain(&mut self, now: Time, mut take: impl FnMut(In), mut discard: impl FnMut(Discard)) {
        let realtime_ns = clock::realtime_ns();
        let (emptied, multihop, known) = (self.emptied, self.kind.multihop, &self.known);
        let far_at = &mut self.far_at;
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
                let near = match known.get(&from) {
                    Some(ttl_min) => datagram.ttl.is_some_and(|ttl| ttl >= *ttl_min),
                    None => return discard(Discard::Stranger),
                };
                if !near && now < *far_at {
                    return discard(Discard::Ttl);
                }
                if !near {
                    *far_at = now + FAR_EVERY;
                }
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
    /// `scope`: number of the interface of a link-local address, 0 otherwise.
    pub(super) fn open(peer: &Peer, scope: u32) -> io::Result<Sender> {
        let family = Family::of_address(peer.remote);
        let socket = socket(family)?;
        let fd = socket.as_fd();
        tcp::set_ttl(fd, TTL)?;
        tcp::set_priority_cs6(fd)?;
        if let Some(interface) = &peer.interface {
            tcp::bind_to_interface(fd, interface)?;
        }
        if peer.local.is_some() {
            // It may come later.
            tcp::set_freebind(fd)?;
        }
        let local = peer.local.unwrap_or(unspecified(family));
        let ports = u64::from(SOURCE_PORTS.end() - SOURCE_PORTS.start()) + 1;
        let mut bound = Err(io::ErrorKind::AddrInUse.into());
        for _ in 0..PORT_ATTEMPTS {
            let port = SOURCE_PORTS.start() + (seed() % ports) as u16;
            bound = socket.bind(&at(local, port, scope).into());
            if bound.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse) {
                continue;
            }
            break;
        }
        bound?;
        Ok(Sender { socket: socket.into(), to: at(peer.remote, port(peer.hops.is_some()), scope) })
    }

    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, self.to).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// What a receiver makes of one datagram each: taken, or why not; nothing where the kernel dropped it.
    struct Post {
        receiver: Receiver,
        now: Time,
    }

    impl Post {
        fn new(multihop: bool, known: &[(&str, u8)]) -> Post {
            let kind = Kind { family: Family::Ipv4, multihop, interface: None };
            let remote = |address: &str| Remote { address: address.parse().unwrap(), scope: 0, multihop };
            let known = known.iter().map(|(address, ttl)| (remote(address), *ttl)).collect();
            Post { receiver: Receiver::open(kind, false, known).unwrap(), now: now() }
        }

        /// Sends one, then one that is known, so that what came before has arrived: the loopback keeps the order.
        fn send(&mut self, from: &str, ttl: u8, known: (&str, u8)) -> Vec<Result<u8, Discard>> {
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port(self.receiver.kind.multihop)));
            for (from, ttl) in [(from, ttl), known] {
                let socket = UdpSocket::bind((from, 0)).unwrap();
                tcp::set_ttl(socket.as_fd(), ttl).unwrap();
                socket.send_to(b"datagram", to).unwrap();
            }
            let begin = Instant::now();
            let seen = std::cell::RefCell::new(vec![]);
            let last: IpAddr = known.0.parse().unwrap();
            let done = std::cell::Cell::new(false);
            while !done.get() {
                assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", seen.borrow());
                let take = |input| {
                    if let In::Datagram { from, ttl, .. } = input {
                        done.set(from.address == last && ttl == Some(known.1));
                        seen.borrow_mut().push(Ok(ttl.unwrap()));
                    }
                };
                self.receiver.drain(self.now, take, |why| seen.borrow_mut().push(Err(why)));
            }
            let mut seen = seen.into_inner();
            assert_eq!(seen.pop(), Some(Ok(known.1)));
            seen
        }
    }

    #[test]
    fn only_neighbours_are_heard_and_most_strangers_not_even_by_us() {
        let near = ("127.0.0.9", 255);
        let mut post = Post::new(false, &[near]);
        assert_eq!(post.send("127.0.0.8", 64, near), [], "from far away: the kernel drops it");
        assert_eq!(post.send("127.0.0.8", 255, near), [Err(Discard::Stranger)]);
        assert_eq!(post.send("127.0.0.9", 64, near), [Ok(64)], "a neighbour that is not near is told of");
        assert_eq!(post.send("127.0.0.9", 64, near), [Err(Discard::Ttl)], "now and then");
        post.now = post.now + FAR_EVERY;
        assert_eq!(post.send("127.0.0.9", 254, near), [Ok(254)]);
        // Over several hops everybody may be far away.
        let far = ("127.0.0.9", 250);
        let mut post = Post::new(true, &[far]);
        assert_eq!(post.send("127.0.0.8", 255, far), []);
        assert_eq!(post.send("127.0.0.9", 251, far), [Ok(251)]);
    }
}
