//! UDP in batches, with the kernel's receive times.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
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

/// Datagrams over IPv6 without a checksum are taken, too (`UDP_NO_CHECK6_RX`, RFC 6935): where what they carry has a check of its own.
pub fn accept_without_checksum(fd: BorrowedFd<'_>) -> io::Result<()> {
    sockopt::set(fd, libc::IPPROTO_UDP, UDP_NO_CHECK6_RX, &1i32)
}

/// `linux/udp.h`
const UDP_NO_CHECK6_RX: i32 = 102;

/// Most senders of [`accept_from`]: with these a program has fewer instructions than the kernel takes (4,096).
pub const SENDERS_MAX: usize = 256;

/// The kernel drops what comes from others than `senders`, before it takes room in the socket's buffer; with `link`, what
/// others on the link send (TTL or hop limit 255, RFC 5082) passes, too. All `senders` have the family of the socket, which
/// `v4` says.
pub fn accept_from(fd: BorrowedFd<'_>, v4: bool, senders: &[IpAddr], link: bool) -> io::Result<()> {
    if senders.len() > SENDERS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sockopt::attach_filter(fd, &sender_filter(v4, senders, link))
}

/// Of the two sockets that share the port of `fd` (`SO_REUSEPORT`), the one that was bound second gets the datagrams whose
/// octet number `octet` has `value` in the bits of `mask`, the first all others.
pub fn divide(fd: BorrowedFd<'_>, octet: u8, mask: u8, value: u8) -> io::Result<()> {
    // It answers with the number of the socket; beyond the end of a datagram it answers 0.
    let program = [
        instruction(LOAD_BYTE, 0, 0, octet.into()),
        instruction(AND, 0, 0, mask.into()),
        instruction(JUMP_EQUAL, 0, 1, value.into()),
        instruction(RETURN, 0, 0, 1),
        instruction(RETURN, 0, 0, 0),
    ];
    sockopt::attach_program(fd, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// A classic BPF program; it finds the network header at `SKF_NET_OFF`.
fn sender_filter(v4: bool, senders: &[IpAddr], link: bool) -> Vec<libc::sock_filter> {
    let at = |offset: u32| (libc::SKF_NET_OFF as u32).wrapping_add(offset);
    let (ttl, source) = if v4 { (8, 12) } else { (7, 8) };
    let mut program = Vec::new();
    if link {
        program.push(instruction(LOAD_BYTE, 0, 0, at(ttl)));
        program.push(instruction(JUMP_EQUAL, 0, 1, 255));
        program.push(instruction(RETURN, 0, 0, u32::MAX));
    }
    for sender in senders {
        let octets = match sender {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        let words = octets.chunks_exact(4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
        let count = words.len();
        for (number, word) in words.enumerate() {
            // Past the rest of this address and its `return`.
            let other = (2 * (count - number - 1) + 1) as u8;
            program.push(instruction(LOAD_WORD, 0, 0, at(source + 4 * number as u32)));
            program.push(instruction(JUMP_EQUAL, 0, other, word));
        }
        program.push(instruction(RETURN, 0, 0, u32::MAX));
    }
    program.push(instruction(RETURN, 0, 0, 0));
    program
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
