//! Events of addresses and links, and of all that decides how packets leave.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use ipnet::IpNet;

use super::message::{Message, attributes, messages, read_str, read_u32};
use super::request::{LINK_HEADER_LEN, parse_address};
use super::{Event, Link, NetlinkSocket};
use crate::sockopt;

/// Room for what [`PathMonitor`] does not read: some dozens of changes. Who fills a table of routes overruns it, which says all there is
/// to say, and costs the listener nothing more.
const CHANGES_BYTES: i32 = 32 << 10;

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressEvent {
    /// An address came (or changed, or was confirmed) or went.
    Address {
        /// False: it is gone.
        added: bool,
        /// Interface.
        index: u32,
        /// With its prefix length.
        address: IpNet,
    },
    /// An interface came, went or changed.
    Link {
        /// Its state now.
        link: Link,
        /// It is gone.
        deleted: bool,
    },
    /// Events were lost: look at the present state again.
    Overrun,
}

/// Hears of every change of addresses and links in the namespace it was opened in. Non-blocking; readable when an event waits.
#[derive(Debug)]
pub struct AddressMonitor {
    socket: NetlinkSocket,
}

impl AsFd for AddressMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AddressMonitor {
    /// In the namespace of the calling thread. Look at the present state after this, so that no change is missed.
    pub fn open() -> io::Result<AddressMonitor> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let socket = NetlinkSocket::subscribe(None, groups as u32, None)?;
        Ok(AddressMonitor { socket })
    }

    /// The next event; `None` when none waits.
    pub fn recv(&mut self) -> io::Result<Option<AddressEvent>> {
        loop {
            match self.socket.recv_event()? {
                Event::Datagram(datagram) => {
                    if let Some(event) = messages(datagram).find_map(|message| parse(&message)) {
                        return Ok(Some(event));
                    }
                }
                Event::Overrun => return Ok(Some(AddressEvent::Overrun)),
                Event::None => return Ok(None),
            }
        }
    }
}

/// Hears that something of how packets leave has changed in the namespace it was opened in: an interface, an address, a route, or the
/// hardware address of a neighbour. Non-blocking; readable when something has. Deliberately without what: the way to an address is
/// asked of the kernel ([`Netlink::path`](super::Netlink::path)), which knows of all of that.
#[derive(Debug)]
pub struct PathMonitor {
    socket: NetlinkSocket,
}

impl AsFd for PathMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl PathMonitor {
    /// In the namespace of the calling thread. Look at the present state after this, so that no change is missed.
    pub fn open() -> io::Result<PathMonitor> {
        let addresses = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let ways = libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE | libc::RTMGRP_NEIGH;
        let socket = NetlinkSocket::subscribe(None, (addresses | ways) as u32, None)?;
        sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, &CHANGES_BYTES)?;
        Ok(PathMonitor { socket })
    }

    /// Whether something has changed since the last call.
    pub fn changed(&mut self) -> io::Result<bool> {
        let mut changed = false;
        loop {
            match self.socket.recv_event()? {
                Event::Datagram(_) => changed = true,
                Event::Overrun => return Ok(true),
                Event::None => return Ok(changed),
            }
        }
    }
}

pub(super) fn parse(message: &Message<'_>) -> Option<AddressEvent> {
    match message.kind {
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            let (index, address) = parse_address(message.body)?;
            Some(AddressEvent::Address { added: message.kind == libc::RTM_NEWADDR, index, address })
        }
        libc::RTM_NEWLINK | libc::RTM_DELLINK => {
            Some(AddressEvent::Link { link: parse_link(message.body)?, deleted: message.kind == libc::RTM_DELLINK })
        }
        _ => None,
    }
}

pub(super) fn parse_link(body: &[u8]) -> Option<Link> {
    let (header, rest) = body.split_at_checked(LINK_HEADER_LEN)?;
    let find = |wanted: u16| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let name = find(libc::IFLA_IFNAME)?;
    let info = find(libc::IFLA_LINKINFO).unwrap_or_default();
    Some(Link {
        index: read_u32(header, 4)?,
        name: read_str(name)?.into(),
        up: read_u32(header, 8)? & libc::IFF_UP as u32 != 0,
        mtu: find(libc::IFLA_MTU).and_then(|value| read_u32(value, 0)).unwrap_or(0),
        hardware_address: find(libc::IFLA_ADDRESS).and_then(|value| value.try_into().ok()),
        no_arp: read_u32(header, 8)? & libc::IFF_NOARP as u32 != 0,
        is_veth: attributes(info).any(|(kind, value)| kind == libc::IFLA_INFO_KIND && read_str(value) == Some("veth")),
        in_vrf: attributes(info).any(|(kind, value)| kind == libc::IFLA_INFO_SLAVE_KIND && value.starts_with(b"vrf")),
    })
}
