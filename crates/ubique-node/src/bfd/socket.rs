//! Sockets of BFD, and when what they received arrived.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use ubique_model::Family;
use ubique_proto::Time;
use ubique_proto::bfd::packet::{Discard, ROUTINE};
use ubique_proto::bfd::{In, Remote};
use ubique_sys::udp::{self, UdpBatch};
use ubique_sys::{clock, tcp};

use super::{MULTIHOP_PORT, PAUSE, Peer, SINGLE_HOP_PORT};
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

/// Signs of life that wait for the thread's next turn, of all senders within a [`PAUSE`]: fewer than a socket of the default size
/// holds (256). When more come, the thread is woken for each.
const ROUTINE_MAX: usize = 200;

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

/// Receives for all sessions of one kind.
///
/// Two sockets share the port, because nearly all packets only say that all is as it was: those the kernel puts into the second
/// socket, for whose sake the thread need not wake up. Looked at before a deadline is judged, they count as when they
/// arrived.
pub(super) struct Receiver {
    prompt: UdpSocket,
    /// `None`: the kernel cannot tell packets apart.
    routine: Option<UdpSocket>,
    pub(super) kind: Kind,
    /// Others receive on the same port, on other interfaces.
    pub(super) shared: bool,
    /// Who may send, and the least TTL of his packets.
    known: BTreeMap<Remote, u8>,
    batch: UdpBatch,
    /// Nothing that is in the sockets arrived before: they were empty then.
    emptied: Time,
    /// Before that no packet from too far away is looked at.
    far_at: Time,
    crowd: Crowd,
}

/// Whether the signs of life are too many to wait.
#[derive(Default)]
struct Crowd {
    since: Time,
    count: usize,
    crowded: bool,
}

impl Crowd {
    fn add(&mut self, now: Time, count: usize) {
        self.count += count;
        let many = self.count > ROUTINE_MAX;
        self.crowded |= many;
        if now.since(self.since) >= PAUSE {
            *self = Crowd { since: now, count: 0, crowded: many };
        }
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

/// Bound to the port of its kind. `sharing`: with sockets that say the same.
fn open(kind: &Kind, sharing: bool, known: &BTreeMap<Remote, u8>) -> io::Result<UdpSocket> {
    let socket = socket(kind.family)?;
    let local = at(unspecified(kind.family), port(kind.multihop), 0);
    if sharing {
        tcp::set_reuse_port(socket.as_fd())?;
    }
    if let Some(interface) = &kind.interface {
        tcp::bind_to_interface(socket.as_fd(), interface)?;
    }
    udp::enable_timestamps(socket.as_fd())?;
    udp::enable_ttl(socket.as_fd(), local)?;
    // Without it the kernel keeps more of what is thrown away here.
    let _ = filter(socket.as_fd(), kind, known);
    socket.bind(&local.into())?;
    Ok(socket.into())
}

/// The socket beside `prompt` for what says no more than that the sender is up.
fn open_routine(prompt: &UdpSocket, kind: &Kind, known: &BTreeMap<Remote, u8>) -> io::Result<UdpSocket> {
    // Only now: until then the port was free, so that no other program has it.
    tcp::set_reuse_port(prompt.as_fd())?;
    let routine = open(kind, true, known)?;
    let (mask, value) = ROUTINE;
    udp::divide(prompt.as_fd(), 1, mask, value)?;
    Ok(routine)
}

impl Receiver {
    /// `shared`: others receive on the same port, on other interfaces.
    pub(super) fn open(kind: Kind, shared: bool, known: BTreeMap<Remote, u8>) -> Result<Receiver, String> {
        let prompt = open(&kind, shared, &known).map_err(|e| {
            let on = kind.interface.as_ref().map(|name| format!(", interface {name}")).unwrap_or_default();
            format!("cannot receive BFD on UDP port {} ({}{on}): {e}", port(kind.multihop), kind.family)
        })?;
        let routine = open_routine(&prompt, &kind, &known).ok();
        let batch = UdpBatch::new(BATCH, DATAGRAM_BYTES);
        let crowd = Crowd::default();
        Ok(Receiver { prompt, routine, kind, shared, known, batch, emptied: now(), far_at: Time::ZERO, crowd })
    }

    /// From now on these may send; `false`: the kernel keeps to those before, and other sockets are needed.
    pub(super) fn hear(&mut self, known: &BTreeMap<Remote, u8>) -> bool {
        if self.known != *known {
            let mut sockets = [Some(&self.prompt), self.routine.as_ref()].into_iter().flatten();
            if sockets.any(|socket| filter(socket.as_fd(), &self.kind, known).is_err()) {
                return false;
            }
            self.known.clone_from(known);
        }
        true
    }

    /// What to wait for. `all`: a sign of life is worth waking up for, too.
    pub(super) fn sources(&self, all: bool) -> impl Iterator<Item = BorrowedFd<'_>> {
        let routine = self.routine.as_ref().filter(|_| all || self.crowd.crowded);
        [Some(&self.prompt), routine].into_iter().flatten().map(AsFd::as_fd)
    }

    /// Takes what has arrived until `now` from neighbours, with the time of its arrival; what comes from others is told to
    /// `discard` only.
    pub(super) fn drain(&mut self, now: Time, arrived: &mut Vec<(Time, In)>, mut discard: impl FnMut(Discard)) {
        let mut door = Door {
            now,
            realtime_ns: clock::realtime_ns(),
            emptied: self.emptied,
            multihop: self.kind.multihop,
            known: &self.known,
            far_at: &mut self.far_at,
        };
        let mut empty = true;
        // In this order also where the kernel does not stamp packets yet.
        for (socket, routine) in [(self.routine.as_ref(), true), (Some(&self.prompt), false)] {
            let Some(socket) = socket else { continue };
            let mut count = 0;
            empty &= empty_out(socket, &mut self.batch, |datagram| {
                count += 1;
                match door.judge(datagram) {
                    Ok(input) => arrived.push(input),
                    Err(why) => discard(why),
                }
            });
            if routine {
                self.crowd.add(now, count);
            }
        }
        if empty {
            self.emptied = now;
        }
    }
}

/// Whether nothing is left in it.
fn empty_out(socket: &UdpSocket, batch: &mut UdpBatch, mut each: impl FnMut(udp::Received<'_>)) -> bool {
    for _ in 0..BATCHES {
        // Fewer than there was room for, or none: it is empty.
        if udp::recv_batch(socket.as_fd(), batch, &mut each).ok() != Some(BATCH) {
            return true;
        }
    }
    false
}

/// Lets in what neighbours sent.
struct Door<'a> {
    now: Time,
    realtime_ns: u64,
    emptied: Time,
    multihop: bool,
    known: &'a BTreeMap<Remote, u8>,
    far_at: &'a mut Time,
}

impl Door<'_> {
    fn judge(&mut self, datagram: udp::Received<'_>) -> Result<(Time, In), Discard> {
        let now = self.now;
        let age = datagram.timestamp_ns.map_or(0, |ns| self.realtime_ns.saturating_sub(ns));
        // A step of the wall clock meanwhile does no harm beyond these bounds.
        let received = Time(now.0.saturating_sub(age)).max(self.emptied).min(now);
        let (address, scope) = match datagram.from {
            SocketAddr::V4(from) => (IpAddr::V4(*from.ip()), 0),
            SocketAddr::V6(from) => (IpAddr::V6(*from.ip()), from.scope_id()),
        };
        let from = Remote { address, scope, multihop: self.multihop };
        let ttl_min = *self.known.get(&from).ok_or(Discard::Stranger)?;
        if datagram.ttl.is_none_or(|ttl| ttl < ttl_min) {
            if now < *self.far_at {
                return Err(Discard::Ttl);
            }
            *self.far_at = now + FAR_EVERY;
        }
        Ok((received, In::Datagram { from, ttl: datagram.ttl, received, bytes: datagram.bytes.to_vec() }))
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
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::sync::{Mutex, PoisonError};
    use std::time::Instant;
    use ubique_proto::bfd::packet::State;

    /// The tests use the same ports.
    static PORTS: Mutex<()> = Mutex::new(());

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
            let last: IpAddr = known.0.parse().unwrap();
            let mut seen = vec![];
            while !seen.iter().any(|(from, end)| *from == Some(last) && *end == Ok(known.1)) {
                assert!(begin.elapsed() < Duration::from_secs(10), "{seen:?}");
                let mut arrived = vec![];
                self.receiver.drain(self.now, &mut arrived, |why| seen.push((None, Err(why))));
                seen.extend(arrived.into_iter().filter_map(|(_, input)| match input {
                    In::Datagram { from, ttl, .. } => Some((Some(from.address), Ok(ttl?))),
                    _ => None,
                }));
            }
            let mut seen: Vec<_> = seen.into_iter().map(|(_, end)| end).collect();
            assert_eq!(seen.pop(), Some(Ok(known.1)));
            seen
        }
    }

    #[test]
    fn only_neighbours_are_heard_and_most_strangers_not_even_by_us() {
        let _ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// A packet of `state`, with these bits beside it.
    fn packet(state: State, bits: u8) -> [u8; 2] {
        [0x20, (state as u8) << 6 | bits]
    }

    #[test]
    fn nobody_is_woken_for_a_sign_of_life() {
        let _ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
        let neighbour: IpAddr = "127.0.0.9".parse().unwrap();
        let kind = Kind { family: Family::Ipv4, multihop: true, interface: None };
        let known = [(Remote { address: neighbour, scope: 0, multihop: true }, 1)].into();
        let mut receiver = Receiver::open(kind.clone(), false, known).unwrap();
        let second = Receiver::open(kind, false, BTreeMap::new()).err().unwrap();
        assert!(second.contains("in use"), "the port is taken: {second}");
        let wakes = |receiver: &Receiver, all| {
            let mut sources: Vec<_> =
                receiver.sources(all).map(|s| PollFd::from_borrowed_fd(s, PollFlags::IN)).collect();
            poll(&mut sources, Some(&Timespec::default())).unwrap() > 0
        };
        let socket = UdpSocket::bind((neighbour, 0)).unwrap();
        let send = |bytes: [u8; 2]| socket.send_to(&bytes, (neighbour, MULTIHOP_PORT)).unwrap();
        let drain = |receiver: &mut Receiver| {
            let mut arrived = vec![];
            receiver.drain(now(), &mut arrived, |why| panic!("{why:?}"));
            arrived.sort_by_key(|(received, _)| *received);
            let octet = |input| if let In::Datagram { bytes, .. } = input { bytes[1] } else { 0 };
            arrived.into_iter().map(|(_, input)| octet(input)).collect::<Vec<_>>()
        };
        for bits in [0, 0x08, 0x04] {
            let bytes = packet(State::Up, bits);
            send(bytes);
            assert!(!wakes(&receiver, false) && wakes(&receiver, true), "{bits:#x}");
            assert_eq!(drain(&mut receiver), [bytes[1]]);
        }
        for bytes in [
            packet(State::Up, 0x20),
            packet(State::Up, 0x10),
            packet(State::Up, 0x02),
            packet(State::Init, 0),
            packet(State::Down, 0),
            packet(State::AdminDown, 0),
        ] {
            send(packet(State::Up, 0));
            send(bytes);
            assert!(wakes(&receiver, false), "{bytes:x?}");
            assert_eq!(drain(&mut receiver), [0xc0, bytes[1]], "in the order of arrival");
        }
        // Before they fill the socket they are not left lying any more.
        for _ in 0..=ROUTINE_MAX {
            send(packet(State::Up, 0));
        }
        assert_eq!(drain(&mut receiver).len(), ROUTINE_MAX + 1);
        send(packet(State::Up, 0));
        assert!(wakes(&receiver, false));
        let quiet = receiver.crowd.since + PAUSE;
        receiver.drain(quiet, &mut vec![], |_| ());
        receiver.drain(quiet + PAUSE, &mut vec![], |_| ());
        send(packet(State::Up, 0));
        assert!(!wakes(&receiver, false));
    }
}
