//! The other end of a veth whose own end has XDP programs.
//!
//! A veth loses what XDP sends back through it (`XDP_TX`) or redirects into it, unless its other end polls for it (NAPI), which a program
//! there makes it do, even one that lets everything pass. Programs that decide something are `ubique-edge`'s.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::netlink::Netlink;
use crate::packet::disable_offloads;

/// Commands of bpf(2), the type of the program, and how it is attached: natively (`include/uapi/linux/bpf.h`, `if_link.h`).
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const IN_DRIVER: u32 = 1 << 2;
/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// Puts a program that lets everything pass onto the interface `ifname` of the calling thread's namespace, natively, and switches off again
/// what comes with it and changes frames (GRO). It stays there until the descriptor is closed.
///
/// # Errors
/// No right to load programs (CAP_BPF and CAP_NET_ADMIN in the initial user namespace), another program there, or no Linux 5.9.
pub fn let_pass(ifname: &str) -> io::Result<OwnedFd> {
    let index = Netlink::open()?.link_index(ifname)?;
    let mut load = [0_u64; 16];
    load[0] = u64::from(PROG_TYPE_XDP) | (PASS.len() as u64) << 32;
    load[1] = PASS.as_ptr() as u64;
    load[2] = c"GPL".as_ptr() as u64;
    // SAFETY: the instructions and the licence, which the kernel copies, live until the call has returned.
    let program = unsafe { bpf(PROG_LOAD, &load) }?;
    let mut link = [0_u64; 16];
    link[0] = program.as_raw_fd() as u64 | u64::from(index) << 32;
    link[1] = u64::from(ATTACH_XDP) | u64::from(IN_DRIVER) << 32;
    // SAFETY: no pointers.
    let link = unsafe { bpf(LINK_CREATE, &link) }?;
    match disable_offloads(ifname) {
        // The rest is off for good where both ends have a program.
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
        _ => Ok(link),
    }
}

/// bpf(2) with a command that makes a descriptor.
///
/// # Safety
/// Pointers in the attribute are what the command wants.
unsafe fn bpf(command: libc::c_int, attribute: &[u64; 16]) -> io::Result<OwnedFd> {
    // SAFETY: the attribute lives until the call has returned; what it points to is the caller's promise.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_ptr(), size_of_val(attribute)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
