//! Packets that arrive for some addresses: all of them counted, some of them looked at.
//!
//! Two packet sockets (`packet(7)`) for each family. The *counter* has a filter for the addresses and no room in its queue:
//! the kernel counts a packet that passes the filter and finds no room, and copies nothing, so that the count is exact and
//! costs one run of a compiled filter for each packet. The *sampler*'s filter takes one in so many at random, and of that
//! the IP header only. What was merged on the way in (GRO) counts as one.
//!
//! What arrives over the loopback interface does not count: those are our own checks. Packets are seen once, where they
//! leave the last device (VLAN, bond, bridge), since the sockets are bound to the protocol and not to all of them.
//!
//! Sockets of one protocol have a price where a BPF program at tc gives packets to sockets (`bpf_sk_assign*`): the kernel serves them
//! after IP (since Linux 6.16, device-bound ones ever since), so that IP gets a copy of the packet, which has lost its socket. Sockets of
//! all protocols are served before tc and cost nothing of the kind, but see packets on each device they pass: those are told which
//! interfaces count.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::mmsg::{BATCH_MAX, Buffers};
use crate::sockopt;

/// Most addresses: their filter must fit into what the kernel takes.
pub const ADDRESSES_MAX: usize = 256;

/// Most interfaces that are told: as far as a filter jumps.
pub const INTERFACES_MAX: usize = 128;

/// An IPv6 header; an IPv4 header ends before.
const HEADER_BYTES: u32 = 40;
/// About 500 full frames: what arrives in a quarter of a second at 2,000 samples a second.
const SAMPLE_BUFFER_BYTES: usize = 1 << 20;
/// Calls of `recvmmsg` for one look at samples: a flood must not keep the caller.
const LOOKS_MAX: usize = 16;
/// `LOOPBACK_IFINDEX`: the same in every namespace.
const LOOPBACK: u32 = 1;
/// `linux/filter.h`
const SKF_AD_OFF: u32 = 0xffff_f000;
const SKF_AD_PROTOCOL: u32 = 0;
const SKF_AD_IFINDEX: u32 = 8;
const SKF_AD_RANDOM: u32 = 56;
const BPF_MOD: u32 = 0x90;
/// Offsets of source and destination in an IP header.
const V4_SOURCE: usize = 12;
const V4_DESTINATION: u32 = 16;
const V6_SOURCE: usize = 8;
const V6_DESTINATION: u32 = 24;

/// Counts what arrives for some addresses of the namespace it was opened in.
#[derive(Debug)]
pub struct Arrivals {
    families: Vec<Sockets>,
    buffers: Buffers,
    every: u32,
}

#[derive(Debug)]
struct Sockets {
    wanted: Wanted,
    counter: OwnedFd,
    sampler: OwnedFd,
}

/// Which packets count.
#[derive(Debug)]
struct Wanted {
    ipv4: bool,
    /// All of one family.
    addresses: Vec<IpAddr>,
    /// Indexes; empty: all but the loopback.
    interfaces: Vec<u32>,
}

impl Wanted {
    fn protocol(&self) -> u16 {
        if self.ipv4 { libc::ETH_P_IP as u16 } else { libc::ETH_P_IPV6 as u16 }
    }
}

impl Arrivals {
    /// For at most [`ADDRESSES_MAX`] addresses, in the calling thread's network namespace; `interfaces`: on these alone, at most
    /// [`INTERFACES_MAX`], by sockets of all protocols. Needs `CAP_NET_RAW`.
    pub fn open(addresses: &[IpAddr], interfaces: &[u32]) -> io::Result<Arrivals> {
        if addresses.len() > ADDRESSES_MAX || interfaces.len() > INTERFACES_MAX {
            let what = format!("more than {ADDRESSES_MAX} addresses or {INTERFACES_MAX} interfaces");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let mut families = Vec::new();
        for ipv4 in [true, false] {
            let own: Vec<IpAddr> = addresses.iter().copied().filter(|a| a.is_ipv4() == ipv4).collect();
            if !own.is_empty() {
                families.push(Sockets::open(Wanted { ipv4, addresses: own, interfaces: interfaces.to_vec() })?);
            }
        }
        Ok(Arrivals { families, buffers: Buffers::new(BATCH_MAX, HEADER_BYTES as usize), every: 1 })
    }

    /// Packets that have arrived since the last call, or since the opening.
    pub fn count(&mut self) -> io::Result<u64> {
        self.families.iter().try_fold(0u64, |sum, sockets| Ok(sum + u64::from(statistics(sockets.counter.as_fd())?)))
    }

    /// One in `every` packets is looked at from now on; at first all are.
    pub fn sample_every(&mut self, every: u32) -> io::Result<()> {
        let every = every.max(1);
        if every != self.every {
            self.every = every;
            for sockets in &self.families {
                sockopt::attach_filter(sockets.sampler.as_fd(), &program(&sockets.wanted, every))?;
            }
        }
        Ok(())
    }

    /// Calls `f` with the source of each packet that was looked at since the last call. Some are missed when that is long ago.
    pub fn samples(&mut self, mut f: impl FnMut(IpAddr)) -> io::Result<()> {
        for sockets in &self.families {
            for _ in 0..LOOKS_MAX {
                let taken = self.buffers.recv(sockets.sampler.as_fd(), |packet| {
                    if let Some(source) = source(packet.bytes) {
                        f(source);
                    }
                });
                match taken {
                    Ok(taken) if taken == BATCH_MAX => {}
                    Ok(_) => break,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

impl Sockets {
    fn open(wanted: Wanted) -> io::Result<Sockets> {
        let program = program(&wanted, 1);
        let protocol = if wanted.interfaces.is_empty() { wanted.protocol() } else { libc::ETH_P_ALL as u16 };
        let counter = packet_socket()?;
        // The kernel makes this its least; what finds no room is counted all the same.
        sockopt::set(counter.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, &0i32)?;
        let sampler = packet_socket()?;
        sockopt::enlarge_recv_buffer(sampler.as_fd(), SAMPLE_BUFFER_BYTES)?;
        for socket in [&counter, &sampler] {
            // Bound only after the filter: nothing unfiltered is ever queued or counted.
            sockopt::attach_filter(socket.as_fd(), &program)?;
            if protocol == libc::ETH_P_ALL as u16 {
                sockopt::set(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1i32)?;
            }
            bind(socket.as_fd(), protocol)?;
        }
        Ok(Sockets { wanted, counter, sampler })
    }
}

/// Hears nothing yet; what it will hear begins with the IP header.
fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None)?)
}

fn bind(fd: BorrowedFd<'_>, protocol: u16) -> io::Result<()> {
    // SAFETY: a C struct of integers, for which zero bytes are a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    // SAFETY: `address` is a sockaddr_ll of the length given.
    let result = unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    sockopt::check(result)
}

/// Packets that passed the filter since the last call, those without room included.
fn statistics(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: a C struct of integers, for which zero bytes are a valid value.
    let mut stats: libc::tpacket_stats = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `stats`.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut length,
        )
    };
    sockopt::check(result)?;
    Ok(stats.tp_packets)
}

/// The source of a packet that begins with its IP header.
fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(Ipv4Addr::from(*packet.get(V4_SOURCE..)?.first_chunk::<4>()?).into()),
        6 => Some(Ipv6Addr::from(*packet.get(V6_SOURCE..)?.first_chunk::<16>()?).into()),
        _ => None,
    }
}

/// Takes the header of one in `every` packets that are wanted.
fn program(wanted: &Wanted, every: u32) -> Vec<libc::sock_filter> {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let equal = |jt, jf, value| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, value);
    let answer = |octets| step(libc::BPF_RET | libc::BPF_K, 0, 0, octets);
    let mut program = match wanted.interfaces.as_slice() {
        [] => vec![load(SKF_AD_OFF + SKF_AD_IFINDEX), equal(0, 1, LOOPBACK), answer(0)],
        list => {
            let protocol = u32::from(wanted.protocol());
            let mut program = vec![load(SKF_AD_OFF + SKF_AD_PROTOCOL), equal(1, 0, protocol), answer(0)];
            program.push(load(SKF_AD_OFF + SKF_AD_IFINDEX));
            // Past the others and the answer.
            program.extend(list.iter().zip((1..=list.len() as u8).rev()).map(|(index, past)| equal(past, 0, *index)));
            program.push(answer(0));
            program
        }
    };
    if every > 1 {
        let modulo = step(libc::BPF_ALU | BPF_MOD | libc::BPF_K, 0, 0, every);
        program.extend([load(SKF_AD_OFF + SKF_AD_RANDOM), modulo, equal(1, 0, 0), answer(0)]);
    }
    if wanted.ipv4 {
        program.push(load(V4_DESTINATION));
    }
    for address in &wanted.addresses {
        match address {
            IpAddr::V4(address) => program.extend([equal(0, 1, u32::from(*address)), answer(HEADER_BYTES)]),
            IpAddr::V6(address) => {
                let words = address.octets();
                for (at, word) in words.chunks_exact(4).enumerate() {
                    let value = word.iter().fold(0u32, |value, octet| value << 8 | u32::from(*octet));
                    // Past the rest of these pairs and the answer.
                    let rest = 2 * (3 - at as u8) + 1;
                    program.extend([load(V6_DESTINATION + 4 * at as u32), equal(0, rest, value)]);
                }
                program.push(answer(HEADER_BYTES));
            }
        }
    }
    program.push(answer(0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_fit() {
        let addresses: Vec<IpAddr> =
            (0..ADDRESSES_MAX as u16).map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into()).collect();
        // BPF_MAXINSNS
        let wanted = Wanted { ipv4: false, addresses, interfaces: (0..INTERFACES_MAX as u32).collect() };
        assert!(program(&wanted, 100).len() <= 4096);
    }

    #[test]
    fn sources_are_read_from_headers_only() {
        assert_eq!(source(&[]), None);
        assert_eq!(source(&[0x45; 12]), None);
        let mut v4 = [0u8; 20];
        v4[0] = 0x45;
        v4[12..16].copy_from_slice(&[203, 0, 113, 7]);
        assert_eq!(source(&v4), Some(IpAddr::from([203, 0, 113, 7])));
        assert_eq!(source(&[0x60; 23]), None);
        assert_eq!(source(&[0x20; 40]), None);
    }
}
