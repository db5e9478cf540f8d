//! Who serves a port, and the news that such a socket is gone: `sock_diag(7)`.
//!
//! The kernel reports each socket's end the moment its last descriptor closes, so a killed server is known at once and
//! without a poll. A classic BPF filter on the [`DestroyMonitor`] keeps the ends of connections out of its queue: they
//! cost nothing, at any rate of queries.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::netlink::{Encoder, Event, Message, NetlinkSocket, attributes, messages, parse_ip, read_u32};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct inet_diag_req_v2`
const REQUEST_LEN: usize = 56;
/// `struct inet_diag_msg`
const RESPONSE_LEN: usize = 72;
const INET_DIAG_PROTOCOL: u16 = 10;

const TCP_ESTABLISHED: u32 = 1;
const TCP_FIN_WAIT1: u32 = 4;
const TCP_CLOSE: u32 = 7;
const TCP_CLOSE_WAIT: u32 = 8;
const TCP_LAST_ACK: u32 = 9;
const TCP_LISTEN: u32 = 10;
const TCP_CLOSING: u32 = 11;
/// In which a connection may have something to send.
const OPEN: [u32; 5] = [TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_CLOSING];

/// `SKNLGRP_INET_TCP_DESTROY`, `..._UDP_...`, `..._INET6_TCP_...`, `..._INET6_UDP_...` are groups 1 to 4.
const DESTROY_GROUPS: u32 = 0b1111;
/// In a destroy message: the netlink header, then `inet_diag_msg`, whose ports are in network order.
const SOURCE_PORT_AT: u32 = 16 + 4;
const DESTINATION_PORT_AT: u32 = 16 + 6;

/// An unconnected UDP socket or a TCP listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// TCP, otherwise UDP.
    pub tcp: bool,
    /// Bound to; `::` serves IPv4 as well unless `IPV6_V6ONLY` is set.
    pub address: IpAddr,
    /// Bound to.
    pub port: u16,
    /// Number of its file, for [`crate::process::owner_of_socket`]; 0 for one that is gone.
    pub inode: u32,
    /// Who opened it.
    pub uid: u32,
    /// What waits in it: octets of datagrams, or connections that nobody has accepted.
    pub queue: u32,
}

/// Unconnected UDP sockets and TCP listeners on `port` in the calling thread's network namespace, both families.
pub fn listeners(port: u16) -> io::Result<Vec<Listener>> {
    let mut socket = NetlinkSocket::open(Some(rustix::net::netlink::SOCK_DIAG))?;
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for (protocol, state) in [(libc::IPPROTO_UDP, TCP_CLOSE), (libc::IPPROTO_TCP, TCP_LISTEN)] {
            let mut request = [0; REQUEST_LEN];
            request[0] = family as u8;
            request[1] = protocol as u8;
            request[4..8].copy_from_slice(&(1u32 << state).to_ne_bytes());
            request[8..10].copy_from_slice(&port.to_be_bytes());
            let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
            let encode = |encoder: &mut Encoder, sequence| {
                encoder.begin(SOCK_DIAG_BY_FAMILY, flags, sequence);
                encoder.body(&request);
                encoder.finish();
            };
            let tcp = protocol == libc::IPPROTO_TCP;
            let listeners = match socket.dump(encode, |message| parse(message, Some(tcp))) {
                // A kernel without IPv6, or without the diagnosis module of a protocol, has none to tell of.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            found.extend(listeners.into_iter().filter(|listener| listener.port == port));
        }
    }
    Ok(found)
}

/// Calls `each` with the remote address of every TCP connection on which something may still be sent, with one of `addresses` as
/// the local one and a remote that is none of them, in the calling thread's network namespace; their number. The kernel walks all
/// connections: about 0.1 s for 100,000 of them; call it from a thread that may wait.
pub fn connections(addresses: &[IpAddr], mut each: impl FnMut(IpAddr)) -> io::Result<u64> {
    let mut socket = NetlinkSocket::open(Some(rustix::net::netlink::SOCK_DIAG))?;
    let mut count = 0;
    // IPv4 connections of a socket that serves both families are found under IPv6.
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut request = [0; REQUEST_LEN];
        request[0] = family as u8;
        request[1] = libc::IPPROTO_TCP as u8;
        let states = OPEN.iter().fold(0, |states, state| states | 1u32 << state);
        request[4..8].copy_from_slice(&states.to_ne_bytes());
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        let encode = |encoder: &mut Encoder, sequence| {
            encoder.begin(SOCK_DIAG_BY_FAMILY, flags, sequence);
            encoder.body(&request);
            encoder.finish();
        };
        let ours = |message: &Message<'_>| {
            let (local, remote) = ends(message)?;
            (addresses.contains(&local) && !addresses.contains(&remote) && !remote.is_loopback()).then_some(remote)
        };
        match socket.dump(encode, ours) {
            // A kernel without IPv6, or without this diagnosis module, has none to tell of.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => {
                let remotes = other?;
                count += remotes.len() as u64;
                remotes.into_iter().for_each(&mut each);
            }
        }
    }
    Ok(count)
}

/// Local and remote address of a connection.
fn ends(message: &Message<'_>) -> Option<(IpAddr, IpAddr)> {
    let header = message.body.get(..RESPONSE_LEN)?;
    let length = match i32::from(header[0]) {
        libc::AF_INET => 4,
        libc::AF_INET6 => 16,
        _ => return None,
    };
    let address = |at: usize| Some(parse_ip(header.get(at..at + length)?)?.to_canonical());
    Some((address(8)?, address(24)?))
}

/// `None` for connected sockets. `tcp` where the message does not say it.
pub(crate) fn parse(message: &Message<'_>, tcp: Option<bool>) -> Option<Listener> {
    let (header, rest) = message.body.split_at_checked(RESPONSE_LEN)?;
    let port_at = |at: usize| Some(u16::from_be_bytes(*header.get(at..)?.first_chunk()?));
    if message.kind != SOCK_DIAG_BY_FAMILY || port_at(6)? != 0 {
        return None;
    }
    let address_length = match i32::from(header[0]) {
        libc::AF_INET => 4,
        libc::AF_INET6 => 16,
        _ => return None,
    };
    let protocol = || {
        let said = attributes(rest).find(|(kind, _)| *kind == INET_DIAG_PROTOCOL)?;
        match i32::from(*said.1.first()?) {
            libc::IPPROTO_TCP => Some(true),
            libc::IPPROTO_UDP => Some(false),
            _ => None,
        }
    };
    Some(Listener {
        tcp: tcp.or_else(protocol)?,
        address: parse_ip(&header[8..8 + address_length])?,
        port: port_at(4)?,
        uid: read_u32(header, 64)?,
        inode: read_u32(header, 68)?,
        queue: read_u32(header, 56)?,
    })
}

/// News of sockets' ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destroyed {
    /// This one is gone.
    Socket(Listener),
    /// News was lost: look again with [`listeners`].
    Overrun,
}

/// Hears of the end of every unconnected UDP socket and TCP listener in the namespace it was opened in.
/// Non-blocking; readable when news waits.
#[derive(Debug)]
pub struct DestroyMonitor {
    socket: NetlinkSocket,
}

impl AsFd for DestroyMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl DestroyMonitor {
    /// In the calling thread's network namespace. Call [`listeners`] after this, so that no end is missed.
    pub fn open() -> io::Result<DestroyMonitor> {
        let protocol = Some(rustix::net::netlink::SOCK_DIAG);
        let filter = unconnected_only();
        let socket = NetlinkSocket::subscribe(protocol, DESTROY_GROUPS, Some(&filter))?;
        Ok(DestroyMonitor { socket })
    }

    /// The next news; `None` when none waits.
    pub fn recv(&mut self) -> io::Result<Option<Destroyed>> {
        loop {
            match self.socket.recv_event()? {
                Event::Datagram(datagram) => {
                    let listener = messages(datagram).find_map(|message| parse(&message, None));
                    if let Some(listener) = listener {
                        return Ok(Some(Destroyed::Socket(listener)));
                    }
                }
                Event::Overrun => return Ok(Some(Destroyed::Overrun)),
                Event::None => return Ok(None),
            }
        }
    }
}

/// Accepts what has a source port and no destination port.
fn unconnected_only() -> [libc::sock_filter; 6] {
    let load_port = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    let jump_if_equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [
        step(load_port, 0, 0, DESTINATION_PORT_AT),
        step(jump_if_equal, 0, 3, 0),
        step(load_port, 0, 0, SOURCE_PORT_AT),
        step(jump_if_equal, 1, 0, 0),
        step(answer, 0, 0, u32::MAX),
        step(answer, 0, 0, 0),
    ]
}
