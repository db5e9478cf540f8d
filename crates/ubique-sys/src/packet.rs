//! Whole Ethernet frames from and to one interface: `packet(7)`.
//!
//! **Offloads.** A veth lets its sender leave checksums out and segments uncut, because the far end is the same
//! machine; a frame that goes through a packet socket then has neither. Call [`disable_offloads`] for the sending
//! side (the end whose peer is read here), and every frame is as it would be on a cable.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::mmsg::{self, Buffers};
use crate::netlink::Netlink;
use crate::netns::NetNs;
use crate::sockopt;

/// Most frames that one call of [`PacketSocket::recv_batch`] takes.
pub const BATCH_FRAMES_MAX: usize = mmsg::BATCH_MAX;

/// About 10,000 full frames: what arrives in half a second at 20,000 frames/s.
const SOCKET_BUFFER_BYTES: usize = 32 << 20;
/// `linux/ethtool.h`
const ETHTOOL_COMMANDS: [u32; 4] = [
    0x0000_002c, // ETHTOOL_SGRO
    0x0000_001f, // ETHTOOL_STSO
    0x0000_0024, // ETHTOOL_SGSO
    0x0000_0017, // ETHTOOL_STXCSUM
];

/// A raw packet socket of one interface. It hears what arrives, not what is sent through the same interface, and
/// sends past the protocol stack and all queueing. Non-blocking.
///
/// An ordinary user's buffers end at `net.core.rmem_max` (by default about 180 full or 500 short frames): read often.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl PacketSocket {
    /// On interface `ifindex` of the calling thread's namespace. Needs `CAP_NET_RAW`.
    pub fn open(ifindex: u32) -> io::Result<PacketSocket> {
        let index = i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
        // Protocol 0 hears nothing: frames of other interfaces cannot slip in before `bind`.
        let fd = rustix::net::socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let level = libc::SOL_PACKET;
        sockopt::set(fd.as_fd(), level, libc::PACKET_IGNORE_OUTGOING, &1i32)?;
        // The wire is the only sender on its end: a queue would add delay and cost a lock.
        sockopt::set(fd.as_fd(), level, libc::PACKET_QDISC_BYPASS, &1i32)?;
        sockopt::enlarge_recv_buffer(fd.as_fd(), SOCKET_BUFFER_BYTES)?;
        sockopt::enlarge_send_buffer(fd.as_fd(), SOCKET_BUFFER_BYTES as i32)?;
        bind(fd.as_fd(), index)?;
        Ok(PacketSocket(fd))
    }

    /// On the interface `ifname` of `ns`.
    pub fn open_in(ns: &NetNs, ifname: &str) -> io::Result<PacketSocket> {
        ns.run(|| PacketSocket::open(Netlink::open()?.link_index(ifname)?))?
    }

    /// Takes what waits, at most the size of `batch`, and calls `f` for each frame (from the destination address on,
    /// without checksum). Frames longer than the buffers are counted in [`Batch::truncated`] and not shown.
    /// Returns how many frames were taken: a full batch means that more may wait. `WouldBlock` when none waits.
    pub fn recv_batch(&self, batch: &mut Batch, mut f: impl FnMut(&[u8])) -> io::Result<usize> {
        let truncated = &mut batch.truncated;
        batch.buffers.recv(self.0.as_fd(), |datagram| {
            if datagram.truncated {
                *truncated += 1;
            } else {
                f(datagram.bytes);
            }
        })
    }

    /// Sends frames in order and returns how many the kernel took; the rest did not fit now. An error (`WouldBlock`,
    /// `ENOBUFS`, or `NetworkDown` for an interface that is down) means that it took none.
    pub fn send_batch(&self, frames: &[&[u8]]) -> io::Result<usize> {
        mmsg::send(self.0.as_fd(), frames)
    }
}

fn bind(fd: BorrowedFd<'_>, index: i32) -> io::Result<()> {
    // SAFETY: a C struct of integers, for which zero bytes are a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index;
    // SAFETY: `address` is a sockaddr_ll of the length given.
    let result = unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    sockopt::check(result)
}

/// Memory for received frames, used again and again.
#[derive(Debug)]
pub struct Batch {
    buffers: Buffers,
    truncated: u64,
}

impl Batch {
    /// For `frames` (at most [`BATCH_FRAMES_MAX`]) frames of up to `frame_bytes` bytes.
    pub fn new(frames: usize, frame_bytes: usize) -> Batch {
        Batch { buffers: Buffers::new(frames, frame_bytes), truncated: 0 }
    }

    /// Frames lost so far because they were longer than `frame_bytes`.
    pub fn truncated(&self) -> u64 {
        self.truncated
    }
}

/// Makes the interface `ifname` of the calling thread's namespace send frames as they would be on a cable: with
/// checksums, and none longer than the MTU. For the veth ends whose peers are read by a [`PacketSocket`].
pub fn disable_offloads(ifname: &str) -> io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    for command in ETHTOOL_COMMANDS {
        ethtool_set(socket.as_fd(), ifname, command, 0)?;
    }
    Ok(())
}

/// `struct ethtool_value`
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

fn ethtool_set(fd: BorrowedFd<'_>, ifname: &str, command: u32, data: u32) -> io::Result<()> {
    let mut value = EthtoolValue { command, data };
    // SAFETY: a C struct of integers and a union of plain data, for which zero bytes are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays NUL.
    if ifname.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(ifname.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL reads the name and, for these commands, an ethtool_value behind the pointer; both live on.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    sockopt::check(result)
}
