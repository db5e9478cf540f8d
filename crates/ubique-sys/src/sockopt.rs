//! `setsockopt` for options that no safe wrapper has.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Types without padding or pointers, whose bytes mean the same to the kernel.
///
/// # Safety
/// Implementors are plain C data that the kernel may read, byte for byte.
pub(crate) unsafe trait OptionValue: Copy {}
// SAFETY: a plain integer.
unsafe impl OptionValue for i32 {}
// SAFETY: plain octets.
unsafe impl<const N: usize> OptionValue for [u8; N] {}

pub(crate) fn set<T: OptionValue>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: `value` is readable for the length given, and `OptionValue` promises plain data.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    check(result)
}

/// An option that is one integer.
pub(crate) fn get_i32(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets, the size of `value`.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) };
    check(result).map(|()| value)
}

pub(crate) fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A receive buffer beyond `net.core.rmem_max` where we may, up to it elsewhere.
pub(crate) fn enlarge_recv_buffer(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(fd, bytes).is_err() {
        rustix::net::sockopt::set_socket_recv_buffer_size(fd, bytes)?;
    }
    Ok(())
}

/// As [`enlarge_recv_buffer`], for sending.
pub(crate) fn enlarge_send_buffer(fd: BorrowedFd<'_>, bytes: i32) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes)
        .or_else(|_| set(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes))
}

/// Attaches a classic BPF program; what it answers with 0 is never queued.
pub(crate) fn attach_filter(fd: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    attach_program(fd, libc::SO_ATTACH_FILTER, program)
}

/// Attaches a classic BPF program by the option `name` of socket(7).
pub(crate) fn attach_program(fd: BorrowedFd<'_>, name: i32, program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let description = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the description and the program it points to, which live across the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw const description).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    check(result)
}
