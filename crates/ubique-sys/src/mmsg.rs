//! `recvmmsg` and `sendmmsg`: many datagrams in one system call.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams in one call; the headers for the kernel are built on the stack.
pub(crate) const BATCH_MAX: usize = 64;
/// Room for a control message with a timestamp and one with a TTL (32 and 24 bytes), aligned as `cmsghdr` wants.
const CONTROL_WORDS: usize = 8;

/// Reusable memory for received datagrams.
#[derive(Debug)]
pub(crate) struct Buffers {
    bytes: Vec<u8>,
    size: usize,
    count: usize,
}

/// One received datagram.
pub(crate) struct Datagram<'a> {
    pub(crate) bytes: &'a [u8],
    /// It was longer than the buffer; the rest is lost.
    pub(crate) truncated: bool,
    /// As the kernel wrote it; empty for connected and packet sockets.
    pub(crate) address: &'a libc::sockaddr_storage,
    pub(crate) address_length: usize,
    /// Kernel receive time, where asked for.
    pub(crate) timestamp: Option<libc::timespec>,
    /// TTL or hop limit, where asked for.
    pub(crate) ttl: Option<u8>,
}

/// What the control messages of a datagram say.
#[derive(Default)]
struct Ancillary {
    timestamp: Option<libc::timespec>,
    ttl: Option<u8>,
}

impl Buffers {
    /// `count` (at most [`BATCH_MAX`]) buffers of `size` bytes.
    pub(crate) fn new(count: usize, size: usize) -> Buffers {
        let count = count.clamp(1, BATCH_MAX);
        Buffers { bytes: vec![0; count * size], size, count }
    }

    /// Receives what waits, without blocking, and calls `f` for each datagram. `WouldBlock` when nothing waits.
    pub(crate) fn recv(&mut self, fd: BorrowedFd<'_>, mut f: impl FnMut(Datagram<'_>)) -> io::Result<usize> {
        // SAFETY: all three are C structs of integers and pointers, for which zero bytes are a valid value.
        let mut headers: [libc::mmsghdr; BATCH_MAX] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut vectors: [libc::iovec; BATCH_MAX] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut addresses: [libc::sockaddr_storage; BATCH_MAX] = unsafe { std::mem::zeroed() };
        let mut controls = [[0u64; CONTROL_WORDS]; BATCH_MAX];
        for (index, buffer) in self.bytes.chunks_exact_mut(self.size).enumerate() {
            vectors[index] = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            let header = &mut headers[index].msg_hdr;
            header.msg_iov = &raw mut vectors[index];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut addresses[index]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_control = controls[index].as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&controls[index]);
        }
        let received = retry(|| {
            // SAFETY: `count` headers point to memory of the lengths they state, which lives until the call returns.
            unsafe {
                libc::recvmmsg(
                    fd.as_raw_fd(),
                    headers.as_mut_ptr(),
                    self.count as libc::c_uint,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut(),
                )
            }
        })?;
        let buffers = self.bytes.chunks_exact(self.size);
        for ((header, buffer), address) in headers[..received].iter().zip(buffers).zip(&addresses) {
            let length = (header.msg_len as usize).min(buffer.len());
            let Ancillary { timestamp, ttl } = ancillary(&header.msg_hdr);
            f(Datagram {
                bytes: &buffer[..length],
                truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
                address,
                address_length: header.msg_hdr.msg_namelen as usize,
                timestamp,
                ttl,
            });
        }
        Ok(received)
    }
}

/// Sends each of `datagrams` to where `fd` is connected or bound; how many the kernel took.
/// An error is reported only when it took none.
pub(crate) fn send(fd: BorrowedFd<'_>, datagrams: &[&[u8]]) -> io::Result<usize> {
    let mut taken = 0;
    for chunk in datagrams.chunks(BATCH_MAX) {
        match send_chunk(fd, chunk) {
            Ok(sent) => {
                taken += sent;
                if sent < chunk.len() {
                    break;
                }
            }
            Err(error) if taken == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(taken)
}

fn send_chunk(fd: BorrowedFd<'_>, chunk: &[&[u8]]) -> io::Result<usize> {
    // SAFETY: C structs of integers and pointers, for which zero bytes are a valid value.
    let mut headers: [libc::mmsghdr; BATCH_MAX] = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut vectors: [libc::iovec; BATCH_MAX] = unsafe { std::mem::zeroed() };
    for (index, bytes) in chunk.iter().enumerate() {
        vectors[index] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        headers[index].msg_hdr.msg_iov = &raw mut vectors[index];
        headers[index].msg_hdr.msg_iovlen = 1;
    }
    retry(|| {
        // SAFETY: the headers of the chunk point to the callers' bytes, which the kernel only reads.
        unsafe {
            libc::sendmmsg(
                fd.as_raw_fd(),
                headers.as_mut_ptr(),
                chunk.len() as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        }
    })
}

fn retry(mut call: impl FnMut() -> libc::c_int) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(count) => return Ok(count),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// The control messages of a received header.
fn ancillary(header: &libc::msghdr) -> Ancillary {
    let mut found = Ancillary::default();
    // SAFETY: the kernel has written `msg_controllen` bytes of control messages, which the CMSG macros walk within
    // that length; the memory is alive in the caller. The values may be unaligned.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = control.as_ref() {
            let data = libc::CMSG_DATA(control);
            match (message.cmsg_level, message.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    found.timestamp = Some(data.cast::<libc::timespec>().read_unaligned());
                }
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    found.ttl = u8::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
                }
                _ => {}
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    found
}
