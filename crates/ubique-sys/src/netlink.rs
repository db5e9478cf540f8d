//! Synchronous rtnetlink: links, addresses, routes, and events of them and of neighbours.
//!
//! [`Netlink`] speaks to the namespace it was opened in. Each method is one round trip; [`Netlink::batch`] sends many
//! changes at once, which is what building a lab of hundreds of links needs.
//! The encoding is our own (`message.rs`): requests of a dozen attributes into one buffer, and replies read leniently,
//! where a strict decoder of everything the kernel reports fails on the first attribute a newer kernel has changed.
//! Absent: tc, rules, tables other than `main`; neighbours are only looked up ([`Netlink::neighbour`]).
//! Sources: RFC 3549, `rtnetlink(7)`, `veth(4)`.

mod batch;
mod message;
mod monitor;
mod path;
mod request;
mod route;
mod socket;

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

pub use batch::Batch;
pub(crate) use message::{Encoder, Message, attributes, messages, read_u16, read_u32};
pub use monitor::{AddressEvent, AddressMonitor, PathMonitor};
pub use path::{HardwareAddress, Path};
pub use route::{Family, RTPROT_BGP, RTPROT_STATIC, Route};
pub(crate) use socket::{Event, NetlinkSocket};

use crate::netns::NetNs;

/// An interface of the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number in its namespace.
    pub index: u32,
    /// As in `ip link`.
    pub name: String,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Longest packet, octets; 0: not told.
    pub mtu: u32,
    /// It belongs to a VRF: sockets outside of it hear nothing unless `*_l3mdev_accept` is set.
    pub in_vrf: bool,
    /// `None`: it has none of Ethernet's length.
    pub hardware_address: Option<HardwareAddress>,
    /// Who is on it is not asked for: every packet goes to the interface's own hardware address (`IFF_NOARP`).
    pub no_arp: bool,
    /// One end of a pair within this machine.
    pub is_veth: bool,
}

/// One rtnetlink socket in one namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: NetlinkSocket,
}

impl Netlink {
    /// In the namespace of the calling thread; the socket keeps to it.
    pub fn open() -> io::Result<Netlink> {
        let socket = NetlinkSocket::open(None)?;
        Ok(Netlink { socket })
    }

    /// In `ns`.
    pub fn open_in(ns: &NetNs) -> io::Result<Netlink> {
        ns.run(Netlink::open)?
    }

    /// Collects changes to send them together.
    pub fn batch(&mut self) -> Batch<'_> {
        Batch::new(self)
    }

    /// Index of the interface `name`; `NotFound` without one.
    pub fn link_index(&mut self, name: &str) -> io::Result<u32> {
        let found = self.links()?.into_iter().find(|link| link.name == name);
        found
            .map(|link| link.index)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface {name}")))
    }

    /// All interfaces, in one dump.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        self.socket.dump(
            |encoder, sequence| request::dump(encoder, sequence, libc::RTM_GETLINK, 0),
            |message| monitor::parse_link(message.body),
        )
    }

    /// A veth pair, both ends down; each end may be created directly in another namespace.
    pub fn add_veth(&mut self, a: (&str, Option<&NetNs>), b: (&str, Option<&NetNs>)) -> io::Result<()> {
        let what = || format!("veth pair {} - {}", a.0, b.0);
        self.change(what, |encoder, sequence| {
            request::add_veth(encoder, sequence, a, b);
        })
    }

    /// Brings interface `index` up.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        let what = || format!("interface {index} up");
        self.change(what, |encoder, sequence| {
            request::set_link(encoder, sequence, index, true);
        })
    }

    /// Takes interface `index` down; its routes go with that.
    pub fn set_down(&mut self, index: u32) -> io::Result<()> {
        let what = || format!("interface {index} down");
        self.change(what, |encoder, sequence| {
            request::set_link(encoder, sequence, index, false);
        })
    }

    /// Deletes interface `index`, and the other end when it is a veth.
    pub fn delete_link(&mut self, index: u32) -> io::Result<()> {
        let what = || format!("delete interface {index}");
        self.change(what, |encoder, sequence| {
            request::delete_link(encoder, sequence, index);
        })
    }

    /// Adds an address with its prefix length; IPv6 without duplicate address detection, usable at once.
    /// False: it was there already.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> io::Result<bool> {
        let what = || format!("address {address} on interface {index}");
        self.change_unless(what, &[libc::EEXIST], |encoder, sequence| {
            request::add_address(encoder, sequence, index, address);
        })
    }

    /// Removes an address. False: it was not there.
    pub fn delete_address(&mut self, index: u32, address: IpNet) -> io::Result<bool> {
        let what = || format!("delete address {address} from interface {index}");
        self.change_unless(what, &[libc::EADDRNOTAVAIL], |encoder, sequence| {
            request::delete_address(encoder, sequence, index, address);
        })
    }

    /// The addresses of interface `index` with their prefix lengths, both families.
    pub fn addresses(&mut self, index: u32) -> io::Result<Vec<IpNet>> {
        self.socket.dump(
            |encoder, sequence| request::dump(encoder, sequence, libc::RTM_GETADDR, 0),
            |message| {
                let (of, address) = request::parse_address(message.body)?;
                (of == index).then_some(address)
            },
        )
    }

    /// The addresses of all interfaces with the index of each, both families.
    pub fn all_addresses(&mut self) -> io::Result<Vec<(u32, IpNet)>> {
        self.socket.dump(
            |encoder, sequence| request::dump(encoder, sequence, libc::RTM_GETADDR, 0),
            |message| request::parse_address(message.body),
        )
    }

    /// Adds `route`, or takes the place of the one with the same destination and metric.
    pub fn replace_route(&mut self, route: &Route) -> io::Result<()> {
        let what = || format!("route to {}", route.destination);
        self.change(what, |encoder, sequence| {
            route.encode_replace(encoder, sequence);
        })
    }

    /// Deletes the route that agrees with `route` in what that says: destination, and gateway, interface, metric,
    /// source where given; protocol 0 matches any. False: there was none.
    pub fn delete_route(&mut self, route: &Route) -> io::Result<bool> {
        let what = || format!("delete route to {}", route.destination);
        self.change_unless(what, &[libc::ESRCH], |encoder, sequence| {
            route.encode_delete(encoder, sequence);
        })
    }

    /// The unicast and blackhole routes of table `main`; one entry for each next hop.
    pub fn routes(&mut self, family: Family) -> io::Result<Vec<Route>> {
        let code = family.code();
        let lists = self.socket.dump(
            |encoder, sequence| request::dump(encoder, sequence, libc::RTM_GETROUTE, code),
            |message| Route::parse(message.body),
        )?;
        Ok(lists.into_iter().flatten().collect())
    }

    /// How a packet from `from`, an address of ours, to `to` leaves.
    ///
    /// # Errors
    /// There is no way (`NetworkUnreachable`, …), or `from` is not ours, which the kernel looks at for IPv4 only.
    pub fn path(&mut self, to: IpAddr, from: Option<IpAddr>) -> io::Result<Path> {
        let what = || format!("route to {to}");
        self.socket.ask(
            what,
            |encoder, sequence| path::ask_path(encoder, sequence, to, from),
            |message| path::parse_path(message.kind, message.body),
        )
    }

    /// The hardware address of whoever has `address` on the interface; `None`: the kernel does not know it now. It learns by
    /// sending.
    pub fn neighbour(&mut self, interface: u32, address: IpAddr) -> io::Result<Option<HardwareAddress>> {
        let what = || format!("neighbour {address}");
        let found = self.socket.ask(
            what,
            |encoder, sequence| path::ask_neighbour(encoder, sequence, interface, address),
            |message| path::parse_neighbour(message.kind, message.body),
        );
        match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found,
        }
    }

    fn change(&mut self, what: impl FnOnce() -> String, encode: impl FnOnce(&mut Encoder, u32)) -> io::Result<()> {
        self.change_unless(what, &[], encode).map(|_| ())
    }

    /// False when the kernel refused with one of `expected`: there was nothing to change.
    fn change_unless(
        &mut self,
        what: impl FnOnce() -> String,
        expected: &[i32],
        encode: impl FnOnce(&mut Encoder, u32),
    ) -> io::Result<bool> {
        let mut encoder = Encoder::default();
        encode(&mut encoder, self.socket.next_sequence());
        let mut result = Ok(());
        self.socket.transact(&encoder, 1, |_, answer| result = answer)?;
        match result {
            Ok(()) => Ok(true),
            Err(refusal) if expected.contains(&refusal.errno) => Ok(false),
            Err(refusal) => Err(refusal.of(&what())),
        }
    }
}

/// How many messages of a datagram make sense as a reply or an event of any kind that ubique asks the kernel for: the
/// readers without their sockets, for tests with octets that no kernel sends.
pub fn understand(datagram: &[u8]) -> usize {
    let understood = |message: &Message<'_>| {
        let readings = [
            monitor::parse(message).is_some(),
            monitor::parse_link(message.body).is_some(),
            request::parse_address(message.body).is_some(),
            Route::parse(message.body).is_some(),
            path::parse_path(message.kind, message.body).is_some(),
            path::parse_neighbour(message.kind, message.body).is_some(),
            crate::sockdiag::parse(message, None).is_some(),
            socket::ack_result(message).is_err_and(|refusal| !refusal.of("").to_string().is_empty()),
        ];
        readings.contains(&true)
    };
    messages(datagram).filter(understood).count()
}

/// Bytes of an address in network order, for attributes.
fn octets(address: IpAddr) -> ([u8; 16], usize) {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(v4) => {
            bytes[..4].copy_from_slice(&v4.octets());
            (bytes, 4)
        }
        IpAddr::V6(v6) => (v6.octets(), 16),
    }
}

pub(crate) fn push_address(encoder: &mut Encoder, kind: u16, address: IpAddr) {
    let (bytes, length) = octets(address);
    encoder.attribute(kind, &bytes[..length]);
}

/// An address of an attribute: 4 or 16 bytes.
pub(crate) fn parse_ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

pub(crate) fn family_code(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}
