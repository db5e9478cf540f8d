//! UDP in batches, with the kernel's receive times.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::BorrowedFd;

use crate::clock;
use crate::mmsg::{self, Buffers};
use crate::sockopt;

/// Most datagrams that one call of [`recv_batch`] takes.
pub const BATCH_DATAGRAMS_MAX: usize = mmsg::BATCH_MAX;

/// One received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The payload.
    pub bytes: &'a [u8],
    /// The sender.
    pub from: SocketAddr,
    /// When the kernel got it, `CLOCK_REALTIME` in ns (see [`clock::realtime_ns`]); only after [`enable_timestamps`].
    pub timestamp_ns: Option<u64>,
    /// TTL or hop limit it arrived with; only after [`enable_ttl`].
    pub ttl: Option<u8>,
    /// It was longer than the buffer; the rest is lost.
    pub truncated: bool,
}

/// Memory for received datagrams, used again and again.
#[derive(Debug)]
pub struct UdpBatch(Buffers);

impl UdpBatch {
    /// For `datagrams` (at most [`BATCH_DATAGRAMS_MAX`]) of up to `bytes` bytes.
    pub fn new(datagrams: usize, bytes: usize) -> UdpBatch {
        UdpBatch(Buffers::new(datagrams, bytes))
    }
}

/// The kernel notes when each datagram arrives (`SO_TIMESTAMPNS`), however late the program reads it.
///
/// For the machine's first socket with this option, stamping begins a moment later: datagrams that arrive before get the
/// time at which they are read.
pub fn enable_timestamps(fd: BorrowedFd<'_>) -> io::Result<()> {
    sockopt::set(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1i32)
}

/// The kernel tells the TTL or hop limit of each datagram (`IP_RECVTTL`, `IPV6_RECVHOPLIMIT`).
pub fn enable_ttl(fd: BorrowedFd<'_>, local: SocketAddr) -> io::Result<()> {
    if local.is_ipv4() {
        sockopt::set(fd, libc::IPPROTO_IP, libc::IP_RECVTTL, &1i32)
    } else {
        sockopt::set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &1i32)
    }
}

/// What we send leaves queues of this machine before all else that an ordinary user may send (`SO_PRIORITY` 6).
pub fn set_send_first(fd: BorrowedFd<'_>) -> io::Result<()> {
    /// `TC_PRIO_INTERACTIVE`: the highest that needs no capability.
    const INTERACTIVE: i32 = 6;
    sockopt::set(fd, libc::SOL_SOCKET, libc::SO_PRIORITY, &INTERACTIVE)
}

/// The longest packet that reaches the other end of a connected socket, as far as the kernel knows, octets.
pub fn path_mtu(fd: BorrowedFd<'_>, remote: SocketAddr) -> io::Result<u32> {
    let (level, name) =
        if remote.is_ipv6() { (libc::IPPROTO_IPV6, libc::IPV6_MTU) } else { (libc::IPPROTO_IP, libc::IP_MTU) };
    Ok(sockopt::get_i32(fd, level, name)?.unsigned_abs())
}

/// ICMP errors wait in the socket's error queue (`MSG_ERRQUEUE`, ip(7)) with the payload they are about, also those of
/// routers on the way. The next call on the socket still reports the latest one.
pub fn queue_errors(fd: BorrowedFd<'_>, local: SocketAddr) -> io::Result<()> {
    if local.is_ipv4() {
        sockopt::set(fd, libc::IPPROTO_IP, libc::IP_RECVERR, &1i32)
    } else {
        sockopt::set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, &1i32)
    }
}

/// Takes what waits, at most the size of `batch`, without blocking, and calls `f` for each datagram.
/// Returns how many were taken. `WouldBlock` when none waits; `ConnectionRefused` and the like on connected sockets.
pub fn recv_batch(fd: BorrowedFd<'_>, batch: &mut UdpBatch, mut f: impl FnMut(Received<'_>)) -> io::Result<usize> {
    batch.0.recv(fd, |datagram| {
        if let Some(from) = socket_address(datagram.address, datagram.address_length) {
            f(Received {
                bytes: datagram.bytes,
                from,
                timestamp_ns: datagram
                    .timestamp
                    .map(|time| clock::to_ns(rustix::time::Timespec { tv_sec: time.tv_sec, tv_nsec: time.tv_nsec })),
                ttl: datagram.ttl,
                truncated: datagram.truncated,
            });
        }
    })
}

fn socket_address(storage: &libc::sockaddr_storage, length: usize) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET if length >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: the family says what the kernel wrote; the storage is larger and aligned for every address.
            let v4 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some((address, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 if length >= size_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above.
            let v6 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            Some(SocketAddr::V6(SocketAddrV6::new(
                Ipv6Addr::from(v6.sin6_addr.s6_addr),
                u16::from_be(v6.sin6_port),
                v6.sin6_flowinfo,
                v6.sin6_scope_id,
            )))
        }
        _ => None,
    }
}
