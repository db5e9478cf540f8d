//! A netlink socket: requests with their ACKs, dumps, and multicast groups.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{Encoder, Message, attributes, messages, read_str, read_u32};
use crate::sockopt;

/// Holds the largest datagram the kernel builds for a dump (32 KiB).
const RECV_BUFFER_BYTES: usize = 64 << 10;
/// Room for the ACKs of a full batch and for bursts of events; an ACK occupies about 768 bytes.
const SOCKET_BUFFER_BYTES: usize = 2 << 20;
/// A dump that changed while it was read is read again, but not for ever.
const DUMP_ATTEMPTS: usize = 16;
/// `struct nlmsgerr`: the error and the header of the request.
const ERROR_BODY_LEN: usize = 20;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// What [`NetlinkSocket::recv_event`] found.
pub(crate) enum Event<'a> {
    /// The kernel sends each event in a datagram of its own.
    Datagram(&'a [u8]),
    /// Events were lost.
    Overrun,
    /// Nothing waits.
    None,
}

pub(crate) struct NetlinkSocket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl NetlinkSocket {
    /// A socket of netlink family `protocol` (`None`: rtnetlink, number 0) in the network namespace of the calling thread.
    pub(crate) fn open(protocol: Option<Protocol>) -> io::Result<NetlinkSocket> {
        let socket = NetlinkSocket::unbound(protocol, SocketFlags::CLOEXEC)?;
        rustix::net::bind(&socket.fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(socket)
    }

    /// A non-blocking socket that hears the multicast groups of the bit mask `groups`.
    pub(crate) fn subscribe(
        protocol: Option<Protocol>,
        groups: u32,
        filter: Option<&[libc::sock_filter]>,
    ) -> io::Result<NetlinkSocket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = NetlinkSocket::unbound(protocol, flags)?;
        if let Some(filter) = filter {
            sockopt::attach_filter(socket.as_fd(), filter)?;
        }
        // Groups only after the filter: nothing unfiltered is ever queued.
        rustix::net::bind(&socket.fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(socket)
    }

    fn unbound(protocol: Option<Protocol>, flags: SocketFlags) -> io::Result<NetlinkSocket> {
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        sockopt::enlarge_recv_buffer(fd.as_fd(), SOCKET_BUFFER_BYTES)?;
        // Both only make errors short and readable; kernels before 4.12 lack them.
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
            let _ = sockopt::set(fd.as_fd(), libc::SOL_NETLINK, option, &1i32);
        }
        Ok(NetlinkSocket { fd, sequence: 0, buffer: vec![0; RECV_BUFFER_BYTES] })
    }

    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends the `count` requests in `encoder`, which asked for ACKs and have consecutive sequence numbers up to the
    /// last one given out, and calls `done` with the position and result of each.
    pub(crate) fn transact(
        &mut self,
        encoder: &Encoder,
        count: usize,
        mut done: impl FnMut(usize, Result<(), Refusal>),
    ) -> io::Result<()> {
        self.send(encoder)?;
        let first = self.sequence.wrapping_sub(count as u32).wrapping_add(1);
        let mut missing = count;
        while missing > 0 {
            let length = self.recv()?;
            for message in messages(&self.buffer[..length]) {
                let position = message.sequence.wrapping_sub(first) as usize;
                if message.kind == libc::NLMSG_ERROR as u16 && position < count {
                    done(position, ack_result(&message));
                    missing = missing.saturating_sub(1);
                }
            }
        }
        Ok(())
    }

    /// Sends one request made by `request`, which wants no ACK, and returns what `parse` makes of the answer.
    pub(crate) fn ask<T>(
        &mut self,
        what: impl FnOnce() -> String,
        request: impl Fn(&mut Encoder, u32),
        parse: impl Fn(&Message<'_>) -> Option<T>,
    ) -> io::Result<T> {
        let sequence = self.next_sequence();
        let mut encoder = Encoder::default();
        request(&mut encoder, sequence);
        self.send(&encoder)?;
        loop {
            let length = self.recv()?;
            let mut answers = messages(&self.buffer[..length]);
            let Some(message) = answers.find(|message| message.sequence == sequence) else { continue };
            if message.kind == libc::NLMSG_ERROR as u16 {
                let refusal = ack_result(&message).err().unwrap_or(Refusal { errno: libc::ENODATA, text: None });
                return Err(refusal.of(&what()));
            }
            let odd = || io::Error::new(io::ErrorKind::InvalidData, format!("{}: an odd answer", what()));
            return parse(&message).ok_or_else(odd);
        }
    }

    /// Sends one dump request made by `request` and collects what `parse` makes of each message. Messages that
    /// `parse` answers with `None` are left out.
    pub(crate) fn dump<T>(
        &mut self,
        request: impl Fn(&mut Encoder, u32),
        mut parse: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.next_sequence();
            let mut encoder = Encoder::default();
            request(&mut encoder, sequence);
            self.send(&encoder)?;
            let mut found = Vec::new();
            if self.collect_dump(sequence, |message| found.extend(parse(message)))? {
                return Ok(found);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the kernel's table changed during each attempt to read it"))
    }

    /// False when the table changed meanwhile (`NLM_F_DUMP_INTR`), so that entries may be missing or double.
    fn collect_dump(&mut self, sequence: u32, mut take: impl FnMut(&Message<'_>)) -> io::Result<bool> {
        let mut consistent = true;
        loop {
            let length = self.recv()?;
            for message in messages(&self.buffer[..length]) {
                if message.sequence != sequence {
                    continue;
                }
                consistent &= message.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR => ack_result(&message)?,
                    libc::NLMSG_DONE => {
                        // The end carries the error that stopped the dump, if any.
                        let errno = read_u32(message.body, 0).unwrap_or(0) as i32;
                        return match errno {
                            0 => Ok(consistent),
                            _ => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
                        };
                    }
                    _ => take(&message),
                }
            }
        }
    }

    /// What a subscription brings next.
    pub(crate) fn recv_event(&mut self) -> io::Result<Event<'_>> {
        match self.recv() {
            Ok(length) => Ok(Event::Datagram(&self.buffer[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Event::None),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.discard_queue(),
            Err(error) => Err(error),
        }
    }

    /// Once it has lost an event, the kernel drops all that follow, without another word, until the queue is empty. So
    /// what is queued goes, too: whatever happens after an overrun was told is heard or told again.
    fn discard_queue(&mut self) -> io::Result<Event<'_>> {
        loop {
            match self.recv() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Event::Overrun);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn send(&self, encoder: &Encoder) -> io::Result<()> {
        rustix::net::send(&self.fd, encoder.bytes(), SendFlags::empty())?;
        Ok(())
    }

    /// The length of the next datagram from the kernel, which is then at the start of the buffer.
    fn recv(&mut self) -> io::Result<usize> {
        loop {
            let received = rustix::net::recvfrom(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC);
            let (length, whole, from) = match received {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let sender = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
            // Other processes can send to this socket as well; only the kernel has port 0.
            if sender.is_some_and(|sender| sender.pid() != 0) {
                continue;
            }
            if whole > length {
                return Err(io::Error::other(format!(
                    "netlink message of {whole} bytes is longer than {RECV_BUFFER_BYTES}"
                )));
            }
            return Ok(length);
        }
    }
}

/// An error answer of the kernel.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) errno: i32,
    /// The kernel's own explanation (`NLMSGERR_ATTR_MSG`).
    text: Option<String>,
}

impl Refusal {
    /// As an error that says what was wanted.
    pub(crate) fn of(self, request: &str) -> io::Error {
        let error = io::Error::from(self);
        io::Error::new(error.kind(), format!("{request}: {error}"))
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> io::Error {
        let error = io::Error::from_raw_os_error(refusal.errno);
        match refusal.text {
            Some(text) => io::Error::new(error.kind(), format!("{error}: {text}")),
            None => error,
        }
    }
}

/// The verdict in an `NLMSG_ERROR`; error 0 is the ACK.
pub(super) fn ack_result(message: &Message<'_>) -> Result<(), Refusal> {
    let errno = read_u32(message.body, 0).unwrap_or(0) as i32;
    if errno == 0 {
        return Ok(());
    }
    let text = attributes(message.body.get(ERROR_BODY_LEN..).unwrap_or_default())
        .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
        .filter(|_| message.flags & libc::NLM_F_ACK_TLVS as u16 != 0)
        .and_then(|(_, value)| read_str(value))
        .map(String::from);
    Err(Refusal { errno: errno.saturating_neg(), text })
}

/// The raw number for messages about sockets.
impl std::fmt::Debug for NetlinkSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NetlinkSocket({})", self.fd.as_raw_fd())
    }
}
