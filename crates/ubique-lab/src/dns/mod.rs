//! The built-in service of a site: a small authoritative DNS responder over UDP and TCP.
//!
//! It answers for one zone in which every name exists, with the service addresses as A and AAAA and the site's name as
//! TXT, and tells which site it is: `id.server` and `hostname.bind` in class CH (RFC 4892) and NSID (RFC 5001).
//! [`zone`] decides, purely; this module is one thread that polls sockets. Sockets are bound to the service addresses
//! themselves, so that a reply leaves from the address that was asked, and with IP_FREEBIND, so that the responder may
//! start before the agent adds them.
//!
//! Deliberately absent: recursion, zone files, zone transfer, DNSSEC. The `domain` crate reads and writes messages.
//! RFC 1035, RFC 2181, RFC 2308, RFC 4892, RFC 5001, RFC 6891, RFC 7766, RFC 8482, RFC 9619.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use ubique_sys::clock;
use ubique_sys::udp::{self, UdpBatch};

mod tcp;
pub mod zone;

use tcp::Connection;
use zone::{Transport, Zone};

/// What the responder is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsOptions {
    /// Name of the site: TXT, `id.server`, NSID.
    pub site: String,
    /// The zone's apex.
    pub zone: String,
    /// Where it listens, UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Addresses in A and AAAA records; empty: those it listens on.
    pub addresses: Vec<IpAddr>,
}

/// Why the responder cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The zone.
    #[error("{0:?} is no name for a zone")]
    Zone(String),
    /// The site's name.
    #[error("the site's name is longer than {0} bytes")]
    Site(usize),
    /// An address cannot be listened on.
    #[error("listening on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// Polling failed.
    #[error("polling: {0}")]
    Poll(#[from] io::Error),
}

/// Most TCP connections at once; the one idle for longest makes room for a new one.
pub const MAX_CONNECTIONS: usize = 256;
/// A connection without progress for so long is closed (RFC 7766 §6.2.3: some seconds).
const IDLE_NS: u64 = 10_000_000_000;
/// How often idle connections are looked for, s.
const SWEEP_S: i64 = 1;
/// Datagrams taken at once.
const BATCH: usize = 64;
/// Longest query over UDP.
const QUERY_BYTES: usize = 4096;
/// Receive buffer of a UDP socket: rides out a burst while the thread is not scheduled.
const UDP_BUFFER_BYTES: usize = 4 << 20;
/// Connections the kernel holds before they are accepted.
const BACKLOG: i32 = 128;
/// Events taken at once.
const EVENTS: usize = 64;

/// Answers until `stop` is set, which is seen within a second.
pub fn run(options: &DnsOptions, stop: &AtomicBool) -> Result<(), DnsError> {
    Server::bind(options)?.run(stop)
}

/// The responder with its sockets.
pub struct Server {
    zone: Zone,
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    epoll: rustix::fd::OwnedFd,
    batch: UdpBatch,
}

impl Server {
    /// Binds every address, which need not be there yet.
    pub fn bind(options: &DnsOptions) -> Result<Server, DnsError> {
        let mut addresses = options.addresses.clone();
        if addresses.is_empty() {
            addresses.extend(options.listen.iter().map(SocketAddr::ip));
        }
        let zone = Zone::new(&options.zone, &options.site, &addresses)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for address in &options.listen {
            let bound = |e| DnsError::Listen(*address, e);
            let socket: UdpSocket = bind(*address, Type::DGRAM).map_err(bound)?.into();
            // With port 0 the kernel chooses one, and TCP follows.
            let address = SocketAddr::new(address.ip(), socket.local_addr().map_err(bound)?.port());
            udp.push(socket);
            tcp.push(bind(address, Type::STREAM).map_err(bound)?.into());
        }
        let mut id = 0;
        for socket in udp.iter().map(AsFd::as_fd).chain(tcp.iter().map(AsFd::as_fd)) {
            epoll::add(&epoll, socket, EventData::new_u64(id), EventFlags::IN).map_err(io::Error::from)?;
            id += 1;
        }
        let batch = UdpBatch::new(BATCH, QUERY_BYTES);
        Ok(Server { zone, udp, tcp, connections: BTreeMap::new(), next_connection: id, epoll, batch })
    }

    /// Where it listens, in the order of the options.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.udp.iter().map(UdpSocket::local_addr).collect()
    }

    /// Answers until `stop` is set, which is seen within a second.
    pub fn run(mut self, stop: &AtomicBool) -> Result<(), DnsError> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        let sweep = rustix::event::Timespec { tv_sec: SWEEP_S, tv_nsec: 0 };
        while !stop.load(Ordering::Relaxed) {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&sweep)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(io::Error::from(e).into()),
            }
            let now_ns = clock::monotonic_ns();
            for event in &events {
                self.ready(event.data.u64(), now_ns)?;
            }
            self.connections.retain(|_, c| now_ns.saturating_sub(c.active_ns) < IDLE_NS);
        }
        Ok(())
    }

    fn ready(&mut self, id: u64, now_ns: u64) -> io::Result<()> {
        let index = id as usize;
        if let Some(socket) = self.udp.get(index) {
            answer_datagrams(socket, &mut self.batch, &self.zone);
            Ok(())
        } else if index < self.udp.len() + self.tcp.len() {
            self.accept(index - self.udp.len(), now_ns)
        } else {
            self.serve(id, now_ns)
        }
    }

    /// Accepts what waits. A connection that cannot be accepted is the client's loss, not the responder's end.
    fn accept(&mut self, listener: usize, now_ns: u64) -> io::Result<()> {
        while let Ok((stream, _)) = self.tcp[listener].accept() {
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.connections.len() >= MAX_CONNECTIONS {
                let oldest = self.connections.iter().min_by_key(|(_, c)| c.active_ns).map(|(id, _)| *id);
                oldest.and_then(|id| self.connections.remove(&id));
            }
            let id = self.next_connection;
            self.next_connection += 1;
            epoll::add(&self.epoll, &stream, EventData::new_u64(id), EventFlags::IN)?;
            self.connections.insert(id, Connection::new(stream, now_ns));
            self.serve(id, now_ns)?;
        }
        Ok(())
    }

    fn serve(&mut self, id: u64, now_ns: u64) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&id) else {
            return Ok(());
        };
        if !matches!(connection.step(&self.zone, now_ns), Ok(true)) {
            // Closing the descriptor takes it out of the epoll set.
            self.connections.remove(&id);
            return Ok(());
        }
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, connection.wants_read());
        interest.set(EventFlags::OUT, connection.wants_write());
        Ok(epoll::modify(&self.epoll, &connection.stream, EventData::new_u64(id), interest)?)
    }
}

/// Answers one batch; epoll tells when there is more. Errors are ICMP errors of earlier replies.
fn answer_datagrams(socket: &UdpSocket, batch: &mut UdpBatch, zone: &Zone) {
    let mut replies = Vec::new();
    let received = udp::recv_batch(socket.as_fd(), batch, |query| {
        if let Some(reply) = zone.respond(query.bytes, Transport::Udp) {
            replies.push((query.from.as_any(), reply));
        }
    });
    if received.is_err() || replies.is_empty() {
        return;
    }
    let slices: Vec<_> = replies.iter().map(|(_, reply)| [IoSlice::new(reply)]).collect();
    let mut controls: Vec<_> = replies.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<_> = replies
        .iter()
        .zip(&slices)
        .zip(&mut controls)
        .map(|(((to, _), slice), control)| MMsgHdr::new_with_addr(to, slice, control))
        .collect();
    let mut rest = &mut messages[..];
    while !rest.is_empty() {
        // A reply that cannot be sent is skipped, as the network would have lost it.
        let sent = rustix::net::sendmmsg(socket, rest, SendFlags::empty()).unwrap_or(1).max(1);
        rest = &mut rest[sent..];
    }
}

fn bind(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let stream = kind == Type::STREAM;
    let protocol = if stream { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    if stream {
        socket.set_reuse_address(true)?;
    } else {
        // More than the system's limit is cut to it.
        socket.set_recv_buffer_size(UDP_BUFFER_BYTES)?;
    }
    socket.bind(&address.into())?;
    if stream {
        socket.listen(BACKLOG)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
