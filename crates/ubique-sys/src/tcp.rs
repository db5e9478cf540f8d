//! TCP options that BGP needs, on any socket that has a descriptor.
//!
//! RFC 2385 (MD5 signatures), RFC 5925 (TCP-AO), RFC 5082 (GTSM), RFC 5482 (user timeout).

mod auth;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, sockopt};

pub use auth::{AO_KEY_BYTES_MAX, AoAlgorithm, AoKey, MD5_KEY_BYTES_MAX, has_ao, has_md5, set_ao, set_md5};

use crate::sockopt as raw;

/// `TC_PRIO_INTERACTIVE`: the highest an unprivileged process may ask for.
const PRIORITY: i32 = 6;

/// DSCP CS6, "network control" (RFC 4594 §3.1), in the place of the TOS byte.
const TOS_CS6: u8 = 48 << 2;

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

/// Marks what we send as network control: DSCP CS6 (RFC 4594 §3.1), and first in our own queues (`SO_PRIORITY`).
pub fn set_priority_cs6(fd: BorrowedFd<'_>) -> io::Result<()> {
    if is_v6(fd)? {
        sockopt::set_ipv6_tclass(fd, TOS_CS6.into())?;
    } else {
        sockopt::set_ip_tos(fd, TOS_CS6)?;
    }
    // IP_TOS sets it as well, to less.
    raw::set(fd, libc::SOL_SOCKET, libc::SO_PRIORITY, &PRIORITY)
}

/// Binds to an interface: packets come and go there only. `NotFound` without such an interface.
pub fn bind_to_interface(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let octets = name.as_bytes();
    let mut value = [0_u8; libc::IFNAMSIZ];
    let fits = octets.len() < libc::IFNAMSIZ;
    let room = value.get_mut(..octets.len()).filter(|_| fits).ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(octets);
    match raw::set(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, &value) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("no interface {name}")))
        }
        result => result,
    }
}

/// Lets several sockets listen on one port, each on an interface of its own. Before `bind`.
pub fn set_reuse_port(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::set_socket_reuseport(fd, true)?)
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
