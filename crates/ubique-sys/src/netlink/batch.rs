//! Many changes in few system calls.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use super::message::Encoder;
use super::{Netlink, Route, request};
use crate::netns::NetNs;

/// Requests in one `sendmsg`: their ACKs must fit the receive buffer also where it cannot be enlarged.
const REQUESTS_MAX: usize = 128;

/// Changes that are sent together; made by [`Netlink::batch`].
///
/// A full batch is sent on the way. The first refusal is returned by the call that met it or by [`Batch::commit`];
/// what was sent after it has been carried out all the same. A batch dropped without `commit` loses its rest.
#[must_use = "nothing is sent for certain before commit"]
#[derive(Debug)]
pub struct Batch<'a> {
    netlink: &'a mut Netlink,
    encoder: Encoder,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    request: String,
    /// An error that means: it was there already.
    expected: Option<i32>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(netlink: &'a mut Netlink) -> Batch<'a> {
        Batch { netlink, encoder: Encoder::default(), waiting: Vec::new() }
    }

    /// As [`Netlink::add_veth`]. Both ends are down: the kernel cannot bring one up before it has its peer.
    /// [`Netlink::links`] then tells the indices, and [`Batch::set_up`] in each namespace does the rest.
    pub fn add_veth(&mut self, a: (&str, Option<&'a NetNs>), b: (&str, Option<&'a NetNs>)) -> io::Result<()> {
        let request = format!("veth pair {} - {}", a.0, b.0);
        self.push(request, None, |encoder, sequence| {
            request::add_veth(encoder, sequence, a, b);
        })
    }

    /// As [`Batch::add_veth`]; the end `a` has the hardware address `mac` and does without ARP and neighbour
    /// discovery. With the same `mac` at the far end of the cable, every frame is for whoever gets it.
    pub fn add_point_to_point(
        &mut self,
        a: (&str, Option<&'a NetNs>),
        b: (&str, Option<&'a NetNs>),
        mac: [u8; 6],
    ) -> io::Result<()> {
        let request = format!("veth pair {} - {}", a.0, b.0);
        self.push(request, None, |encoder, sequence| {
            request::add_point_to_point(encoder, sequence, a, b, mac);
        })
    }

    /// Adds `local` with its peer `remote` at the other end of the link, which becomes reachable by that: no subnet.
    /// The interface must be up, or the kernel makes no IPv6 route to the peer.
    pub fn add_peer_address(&mut self, index: u32, local: IpAddr, remote: IpAddr) -> io::Result<()> {
        let request = format!("address {local} peer {remote} on interface {index}");
        self.push(request, Some(libc::EEXIST), |encoder, sequence| {
            request::add_peer_address(encoder, sequence, index, (local, remote));
        })
    }

    /// As [`Netlink::set_up`].
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.push(format!("interface {index} up"), None, |encoder, sequence| {
            request::set_link(encoder, sequence, index, true);
        })
    }

    /// As [`Netlink::add_address`]; an address that is there already is no error.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> io::Result<()> {
        let request = format!("address {address} on interface {index}");
        self.push(request, Some(libc::EEXIST), |encoder, sequence| {
            request::add_address(encoder, sequence, index, address);
        })
    }

    /// As [`Netlink::replace_route`].
    pub fn replace_route(&mut self, route: &Route) -> io::Result<()> {
        let request = format!("route to {}", route.destination);
        self.push(request, None, |encoder, sequence| {
            route.encode_replace(encoder, sequence);
        })
    }

    /// As [`Netlink::delete_route`]; a route that is not there is no error.
    pub fn delete_route(&mut self, route: &Route) -> io::Result<()> {
        let request = format!("delete route to {}", route.destination);
        self.push(request, Some(libc::ESRCH), |encoder, sequence| {
            route.encode_delete(encoder, sequence);
        })
    }

    /// Sends what is left.
    pub fn commit(mut self) -> io::Result<()> {
        self.flush()
    }

    fn push(
        &mut self,
        request: String,
        expected: Option<i32>,
        encode: impl FnOnce(&mut Encoder, u32),
    ) -> io::Result<()> {
        encode(&mut self.encoder, self.netlink.socket.next_sequence());
        self.waiting.push(Waiting { request, expected });
        if self.waiting.len() == REQUESTS_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        let mut first_error = None;
        let socket = &mut self.netlink.socket;
        let sent = socket.transact(&self.encoder, waiting.len(), |position, result| {
            if let Err(refusal) = result
                && waiting[position].expected != Some(refusal.errno)
                && first_error.is_none()
            {
                first_error = Some(refusal.of(&waiting[position].request));
            }
        });
        self.encoder.clear();
        sent?;
        first_error.map_or(Ok(()), Err)
    }
}
