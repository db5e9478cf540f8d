//! TCP options that BGP needs, on any socket that has a descriptor.
//!
//! RFC 2385 (MD5 signatures), RFC 5082 (GTSM), RFC 5482 (user timeout).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, sockopt};

use crate::sockopt as raw;

/// Longest key of RFC 2385 signatures in Linux (`TCP_MD5SIG_MAXKEYLEN`).
pub const MD5_KEY_BYTES_MAX: usize = 80;

/// DSCP CS6, "network control" (RFC 4594 §3.1), in the place of the TOS byte.
const TOS_CS6: u8 = 48 << 2;

/// `struct tcp_md5sig`.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpMd5Sig {
    address: [u8; 128],
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: i32,
    key: [u8; MD5_KEY_BYTES_MAX],
}

const _: () = assert!(size_of::<TcpMd5Sig>() == 216);

// SAFETY: plain data without padding, as the size above shows.
unsafe impl raw::OptionValue for TcpMd5Sig {}

/// Signs and checks all segments to and from `peer` (RFC 2385). Before `connect`, or on the listener before the peer
/// calls. An empty key takes the signature away. `InvalidInput` for keys beyond [`MD5_KEY_BYTES_MAX`].
pub fn set_md5(fd: BorrowedFd<'_>, peer: IpAddr, key: &[u8]) -> io::Result<()> {
    let mut request = TcpMd5Sig {
        address: [0; 128],
        flags: 0,
        prefix_length: 0,
        key_length: key.len() as u16,
        interface: 0,
        key: [0; MD5_KEY_BYTES_MAX],
    };
    let Some(room) = request.key.get_mut(..key.len()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("TCP MD5 keys have at most {MD5_KEY_BYTES_MAX} bytes, this one {}", key.len()),
        ));
    };
    room.copy_from_slice(key);
    // An IPv6 socket that also serves IPv4 knows its IPv4 peers by mapped addresses.
    let address = match (peer, is_v6(fd)?) {
        (IpAddr::V4(v4), true) => v4.to_ipv6_mapped().into(),
        (peer, _) => peer,
    };
    match address {
        IpAddr::V4(v4) => {
            request.address[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            request.address[4..8].copy_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            request.address[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            request.address[8..24].copy_from_slice(&v6.octets());
        }
    }
    match raw::set(fd, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &request) {
        // Nothing to take away.
        Err(error) if key.is_empty() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// TTL or hop limit of what we send; 255 for GTSM (RFC 5082 §3).
pub fn set_ttl(fd: BorrowedFd<'_>, ttl: u8) -> io::Result<()> {
    if is_v6(fd)? {
        sockopt::set_ipv6_unicast_hops(fd, Some(ttl))?;
    } else {
        sockopt::set_ip_ttl(fd, ttl.into())?;
    }
    Ok(())
}

/// Segments that arrive with a smaller TTL or hop limit are dropped by the kernel: GTSM (RFC 5082 §3) for a neighbour
/// at most `n` hops away is `256 - n`.
pub fn set_min_ttl(fd: BorrowedFd<'_>, ttl: u8) -> io::Result<()> {
    if is_v6(fd)? {
        let level = libc::IPPROTO_IPV6;
        raw::set(fd, level, libc::IPV6_MINHOPCOUNT, &i32::from(ttl))
    } else {
        raw::set(fd, libc::IPPROTO_IP, libc::IP_MINTTL, &i32::from(ttl))
    }
}

/// Bytes written that the peer has not acknowledged, unsent ones included (`SIOCOUTQ`).
pub fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the name for terminals is TIOCOUTQ) writes one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    raw::check(result)?;
    Ok(bytes.unsigned_abs())
}

/// The connection ends when sent data stays unacknowledged for this long (RFC 5482); in ms, zero means the default.
pub fn set_user_timeout(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(fd, milliseconds)?)
}

/// Every write is sent at once (no Nagle algorithm).
pub fn set_nodelay(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::set_tcp_nodelay(fd, true)?)
}

/// Marks what we send as network control: DSCP CS6 (RFC 4594 §3.1).
pub fn set_priority_cs6(fd: BorrowedFd<'_>) -> io::Result<()> {
    if is_v6(fd)? {
        sockopt::set_ipv6_tclass(fd, TOS_CS6.into())?;
    } else {
        sockopt::set_ip_tos(fd, TOS_CS6)?;
    }
    Ok(())
}

/// `bind` works for addresses that this machine does not have (yet).
pub fn set_freebind(fd: BorrowedFd<'_>) -> io::Result<()> {
    if is_v6(fd)? {
        sockopt::set_ipv6_freebind(fd, true)?;
    } else {
        sockopt::set_ip_freebind(fd, true)?;
    }
    Ok(())
}

fn is_v6(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::socket_domain(fd)? == AddressFamily::INET6)
}
