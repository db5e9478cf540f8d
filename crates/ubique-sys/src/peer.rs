//! Who is at the other end of a Unix stream socket, as the kernel saw it when the connection was made.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::sockopt::check;

/// Supplementary groups asked for at first; hardly anybody has more.
const GROUPS: usize = 64;

/// Most supplementary groups of a process (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// Credentials of a peer when it connected (unix(7), SO_PEERCRED and SO_PEERGROUPS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its process; 0 when that is not in our PID namespace.
    pub pid: u32,
    /// Its effective user; the overflow uid (65534) when our user namespace has no name for it.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
}

/// The credentials of the process that connected `socket`.
pub fn credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let fd = socket.as_fd();
    let mut ucred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets of plain integers into `ucred`, which lives across the call.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut ucred).cast(), &raw mut length)
    };
    check(result)?;
    let groups = groups(fd.as_raw_fd(), GROUPS)?;
    Ok(Credentials { pid: u32::try_from(ucred.pid).unwrap_or(0), uid: ucred.uid, gid: ucred.gid, groups })
}

fn groups(fd: i32, room: usize) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; room];
    let mut length = (room * size_of::<u32>()) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets of plain integers into `groups`, which has that many.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), &raw mut length)
    };
    let count = length as usize / size_of::<u32>();
    match check(result) {
        Ok(()) => {
            groups.truncate(count);
            Ok(groups)
        }
        // The length is now the one needed.
        Err(error) if error.raw_os_error() == Some(libc::ERANGE) && room < count && count <= MAX_GROUPS => {
            self::groups(fd, count)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn our_own_other_end_is_us() {
        let (one, _other) = UnixStream::pair().unwrap();
        let seen = credentials(&one).unwrap();
        assert_eq!(seen.pid, std::process::id());
        assert_eq!(seen.uid, rustix::process::geteuid().as_raw());
        assert_eq!(seen.gid, rustix::process::getegid().as_raw());
        let mut groups: Vec<u32> = rustix::process::getgroups().unwrap().iter().map(|g| g.as_raw()).collect();
        groups.sort_unstable();
        let mut seen = seen.groups;
        seen.sort_unstable();
        assert_eq!(seen, groups);
        // Too little room is asked for again.
        assert_eq!(self::groups(one.as_raw_fd(), 0).unwrap_or_default().len(), groups.len());
    }

    #[test]
    fn a_socket_without_a_peer_process_has_none() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let seen = credentials(&socket);
        assert!(seen.is_err() || seen.unwrap().pid == 0);
    }
}
