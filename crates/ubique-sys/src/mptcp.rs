//! Addresses that the kernel signals to the clients of its MPTCP connections (ADD_ADDR, RFC 8684 §3.4.1): the path manager's
//! endpoints, over generic netlink (`mptcp_pm`, Linux 5.6).
//!
//! Absent: everything else of the path manager: limits, backup, addresses to connect from.

use std::io;
use std::net::IpAddr;

use rustix::net::netlink::GENERIC;

use crate::netlink::{
    Encoder, Message, NetlinkSocket, attributes, family_code, parse_ip, push_address, read_u16, read_u32,
};

/// `struct genlmsghdr`: command u8, version u8, reserved u16.
const GENERIC_HEADER_LEN: usize = 4;
const VERSION: u8 = 1;
/// `GENL_ID_CTRL`: who tells the numbers of families.
const CONTROLLER: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const FAMILY: &str = "mptcp_pm";

const ADD_ADDR: u8 = 1;
const DEL_ADDR: u8 = 2;
const GET_ADDR: u8 = 3;

/// `MPTCP_PM_ENDPOINT_ADDR`, nested
const ENDPOINT: u16 = 1;
const NESTED: u16 = 1 << 15;
const ADDRESS_FAMILY: u16 = 1;
const ADDRESS_ID: u16 = 2;
const ADDRESS_V4: u16 = 3;
const ADDRESS_V6: u16 = 4;
const ADDRESS_FLAGS: u16 = 6;
/// `MPTCP_PM_ADDR_FLAG_SIGNAL`
const SIGNAL: u32 = 1;

/// An address of the path manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// Its number in the options of connections.
    pub id: u8,
    /// Clients are told of it.
    pub signal: bool,
}

/// The path manager of the network namespace it was opened in.
#[derive(Debug)]
pub struct PathManager {
    socket: NetlinkSocket,
    family: u16,
}

impl PathManager {
    /// Of the calling thread's namespace; `NotFound`: this kernel has no MPTCP.
    pub fn open() -> io::Result<PathManager> {
        let mut socket = NetlinkSocket::open(Some(GENERIC))?;
        let request = |encoder: &mut Encoder, sequence| {
            begin(encoder, CONTROLLER, libc::NLM_F_REQUEST, sequence, CTRL_CMD_GETFAMILY);
            encoder.attribute_str(CTRL_ATTR_FAMILY_NAME, FAMILY);
            encoder.finish();
        };
        let family = socket.ask(|| format!("the netlink family {FAMILY}"), request, parse_family)?;
        Ok(PathManager { socket, family })
    }

    /// All endpoints.
    pub fn endpoints(&mut self) -> io::Result<Vec<Endpoint>> {
        let family = self.family;
        let request = |encoder: &mut Encoder, sequence| {
            begin(encoder, family, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, sequence, GET_ADDR);
            encoder.finish();
        };
        self.socket.dump(request, parse_endpoint)
    }

    /// Has clients told of an address, from their next connections on. False: it is an endpoint already.
    pub fn signal(&mut self, address: IpAddr) -> io::Result<bool> {
        let what = || format!("MPTCP endpoint {address}");
        self.change(what, libc::EEXIST, ADD_ADDR, |encoder| {
            encoder.attribute(ADDRESS_FAMILY, &u16::from(family_code(address)).to_ne_bytes());
            push_address(encoder, if address.is_ipv4() { ADDRESS_V4 } else { ADDRESS_V6 }, address);
            encoder.attribute_u32(ADDRESS_FLAGS, SIGNAL);
        })
    }

    /// No more; clients that know it are told. False: there is no such endpoint.
    pub fn remove(&mut self, endpoint: &Endpoint) -> io::Result<bool> {
        let what = || format!("removing the MPTCP endpoint {}", endpoint.address);
        self.change(what, libc::EINVAL, DEL_ADDR, |encoder| encoder.attribute(ADDRESS_ID, &[endpoint.id]))
    }

    /// A command about one endpoint. False: the kernel's answer was `expected`.
    fn change(
        &mut self,
        what: impl FnOnce() -> String,
        expected: i32,
        command: u8,
        fill: impl FnOnce(&mut Encoder),
    ) -> io::Result<bool> {
        let sequence = self.socket.next_sequence();
        let mut encoder = Encoder::default();
        begin(&mut encoder, self.family, libc::NLM_F_REQUEST | libc::NLM_F_ACK, sequence, command);
        let nest = encoder.nest(ENDPOINT | NESTED);
        fill(&mut encoder);
        encoder.end_nest(nest);
        encoder.finish();
        let mut result = Ok(());
        self.socket.transact(&encoder, 1, |_, answer| result = answer)?;
        match result {
            Ok(()) => Ok(true),
            Err(refusal) if refusal.errno == expected => Ok(false),
            Err(refusal) => Err(refusal.of(&what())),
        }
    }
}

fn begin(encoder: &mut Encoder, family: u16, flags: i32, sequence: u32, command: u8) {
    encoder.begin(family, flags as u16, sequence);
    encoder.body(&[command, VERSION, 0, 0]);
}

fn parse_family(message: &Message<'_>) -> Option<u16> {
    let id = attributes(message.body.get(GENERIC_HEADER_LEN..)?).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID)?;
    read_u16(id.1, 0)
}

fn parse_endpoint(message: &Message<'_>) -> Option<Endpoint> {
    let nest = attributes(message.body.get(GENERIC_HEADER_LEN..)?).find(|(kind, _)| *kind == ENDPOINT)?.1;
    let find = |wanted: u16| attributes(nest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    Some(Endpoint {
        address: parse_ip(find(ADDRESS_V4).or_else(|| find(ADDRESS_V6))?)?,
        id: *find(ADDRESS_ID)?.first()?,
        signal: find(ADDRESS_FLAGS).and_then(|flags| read_u32(flags, 0)).is_some_and(|flags| flags & SIGNAL != 0),
    })
}
