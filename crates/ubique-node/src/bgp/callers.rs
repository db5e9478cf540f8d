//! Who calls: matching an accepted connection with a neighbour, and neighbours known by their range only.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use ubique_model::{Asn, Prefix};
use ubique_proto::Time;
use ubique_proto::bgp::message::Message;
use ubique_proto::bgp::speaker::{PeerConfig, PeerId};
use ubique_proto::bgp::wire::{DecodeContext, Framer, MAX_MESSAGE};

use super::socket::{Endpoint, Key};

/// How long a caller from a range of several ASes may take for its OPEN; a speaker sends it at once.
const OPEN_WAIT: Duration = Duration::from_secs(10);

/// Neighbours known by where they call from only.
#[derive(Clone, Debug)]
pub struct Range {
    /// Where they call from.
    pub prefix: Prefix,
    /// The ASes they may be in; at least one.
    pub asns: Vec<Asn>,
    /// Most of them at a time, callers that have not said who they are included.
    pub limit: usize,
    /// What each of them is; its address and AS are filled in.
    pub peer: PeerConfig,
    /// The transport side of each of them; its address is filled in.
    pub endpoint: Endpoint,
}

/// Somebody from a range of several ASes who has not said yet in which one he is.
pub(super) struct Caller {
    pub(super) stream: TcpStream,
    pub(super) from: IpAddr,
    /// Index of the range.
    pub(super) range: usize,
    /// What he has said so far: the core gets it, too.
    pub(super) said: Vec<u8>,
    framer: Framer,
    pub(super) until: Time,
}

impl Caller {
    pub(super) fn new(now: Time, stream: TcpStream, from: IpAddr, range: usize) -> Caller {
        Caller { stream, from, range, said: Vec::new(), framer: Framer::new(), until: now + OPEN_WAIT }
    }

    /// The AS of his OPEN. `Err`: he is gone, too late, or speaks something else; that is for nobody to answer, since
    /// there is no neighbour yet.
    pub(super) fn poll_asn(&mut self, cx: &mut Context<'_>, now: Time) -> Poll<Result<Asn, ()>> {
        let mut buffer = [0; MAX_MESSAGE];
        loop {
            match self.stream.poll_read_ready(cx) {
                Poll::Pending if self.until <= now => return Poll::Ready(Err(())),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(())),
                Poll::Ready(Ok(())) => {}
            }
            // Not more than an OPEN: the rest stays in the socket for the session.
            let room = MAX_MESSAGE - self.said.len();
            match self.stream.try_read(&mut buffer[..room]) {
                Ok(0) => return Poll::Ready(Err(())),
                Ok(count) => {
                    self.said.extend_from_slice(&buffer[..count]);
                    let _all = self.framer.push(&buffer[..count]);
                    match self.framer.next(&DecodeContext::INITIAL) {
                        Some(Ok(Message::Open(open))) => return Poll::Ready(Ok(open.asn)),
                        None if self.said.len() < MAX_MESSAGE => {}
                        _ => return Poll::Ready(Err(())),
                    }
                }
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {}
                Err(_) => return Poll::Ready(Err(())),
            }
        }
    }
}

/// Why a call is refused, in words.
pub(super) type Refusal = &'static str;

/// Every neighbour's transport side, and the ranges of those to come.
pub(super) struct Callers {
    ranges: Vec<Range>,
    endpoints: BTreeMap<PeerId, Endpoint>,
    /// Which range a neighbour came from.
    dynamic: BTreeMap<PeerId, usize>,
}

/// What becomes of a call.
pub(super) enum Call {
    /// It is this neighbour's.
    Known(PeerId),
    /// Of this range.
    FromRange(usize),
    Refused(Refusal),
}

impl Callers {
    pub(super) fn new(endpoints: Vec<Endpoint>, ranges: Vec<Range>) -> Callers {
        Callers { ranges, endpoints: (0..).map(PeerId).zip(endpoints).collect(), dynamic: BTreeMap::new() }
    }

    /// A neighbour with an address of its own: its number, the lowest that is free.
    pub(super) fn add(&mut self, endpoint: Endpoint) -> PeerId {
        let peer = self.vacant();
        self.endpoints.insert(peer, endpoint);
        peer
    }

    pub(super) fn remove(&mut self, peer: PeerId) {
        self.endpoints.remove(&peer);
        self.dynamic.remove(&peer);
    }

    pub(super) fn arm(&mut self, peer: PeerId, key: Option<Key>) {
        if let Some(endpoint) = self.endpoints.get_mut(&peer) {
            endpoint.key = key;
        }
    }

    fn vacant(&self) -> PeerId {
        let mut number = 0;
        while self.endpoints.contains_key(&PeerId(number)) {
            number += 1;
        }
        PeerId(number)
    }

    pub(super) fn endpoint(&self, peer: PeerId) -> Option<&Endpoint> {
        self.endpoints.get(&peer)
    }

    pub(super) fn range(&self, range: usize) -> Option<&Range> {
        self.ranges.get(range)
    }

    /// Everything somebody may call for: configured neighbours and ranges, with the addresses each has.
    pub(super) fn configured(&self) -> impl Iterator<Item = (Prefix, &Endpoint)> {
        let known = self.endpoints.iter().filter(|(peer, _)| !self.is_dynamic(**peer));
        let known = known.map(|(_, e)| (Prefix::from(e.remote), e));
        known.chain(self.ranges.iter().map(|r| (r.prefix, &r.endpoint)))
    }

    /// Whose call is it that came in from `from`, at the listener of `interface` (`None`: the one for the rest)?
    /// `waiting` callers of a range count against its limit.
    pub(super) fn call(&self, from: IpAddr, interface: Option<&str>, waiting: impl Fn(usize) -> usize) -> Call {
        let here = |e: &Endpoint| e.interface.is_none() || e.interface.as_deref() == interface;
        let mut known = self.endpoints.iter().filter(|(_, e)| e.remote == from && here(e));
        if let Some((&peer, _)) = known.next() {
            // Daemons on this machine, each with a port of its own: the one it calls from says nothing.
            let several = known.next().is_some();
            return if several { Call::Refused("several neighbors have this address") } else { Call::Known(peer) };
        }
        // Nor is it one of a range, with the keys of that.
        if self.endpoints.iter().any(|(peer, e)| e.remote == from && !self.is_dynamic(*peer)) {
            return Call::Refused("the neighbor with this address has another interface");
        }
        let Some(index) = self.ranges.iter().position(|r| r.prefix.contains(&from)) else {
            return Call::Refused("no neighbor has this address");
        };
        let taken = self.dynamic.values().filter(|r| **r == index).count() + waiting(index);
        if taken < self.ranges[index].limit { Call::FromRange(index) } else { Call::Refused("the range is full") }
    }

    /// A neighbour of a range: its number, the lowest that is free, and what it is.
    pub(super) fn join(&mut self, range: usize, address: IpAddr, asn: Asn) -> Option<(PeerId, PeerConfig)> {
        let spec = self.ranges.get(range)?;
        let peer = self.vacant();
        self.endpoints.insert(peer, Endpoint { remote: address, ..spec.endpoint.clone() });
        self.dynamic.insert(peer, range);
        Some((peer, PeerConfig { address, asn, passive: true, ..spec.peer.clone() }))
    }

    pub(super) fn is_dynamic(&self, peer: PeerId) -> bool {
        self.dynamic.contains_key(&peer)
    }

    pub(super) fn dynamic(&self) -> impl Iterator<Item = PeerId> {
        self.dynamic.keys().copied()
    }

    pub(super) fn leave(&mut self, peer: PeerId) {
        if self.dynamic.remove(&peer).is_some() {
            self.endpoints.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubique_model::Relation;

    fn endpoint(remote: &str, interface: Option<&str>) -> Endpoint {
        Endpoint { interface: interface.map(str::to_owned), ..Endpoint::new(remote.parse().unwrap()) }
    }

    fn callers() -> Callers {
        let range = Range {
            prefix: "192.0.2.0/24".parse().unwrap(),
            asns: vec![Asn(64501)],
            limit: 2,
            peer: PeerConfig::new("192.0.2.0".parse().unwrap(), Asn(64501), Relation::Peer),
            endpoint: endpoint("192.0.2.0", None),
        };
        let known = ["eth0", "eth1"].map(|i| endpoint("fe80::1", Some(i)));
        let [a, b] = known;
        Callers::new(vec![endpoint("192.0.2.1", None), a, b], vec![range])
    }

    fn known(call: Call) -> Option<u32> {
        match call {
            Call::Known(peer) => Some(peer.0),
            _ => None,
        }
    }

    #[test]
    fn a_neighbour_with_an_address_of_its_own_is_not_of_the_range() {
        let c = callers();
        assert_eq!(known(c.call("192.0.2.1".parse().unwrap(), None, |_| 0)), Some(0));
        assert!(matches!(c.call("192.0.2.2".parse().unwrap(), None, |_| 0), Call::FromRange(0)));
        assert!(matches!(c.call("192.0.3.2".parse().unwrap(), None, |_| 0), Call::Refused(_)));
    }

    #[test]
    fn one_link_local_address_on_two_interfaces_is_two_neighbours() {
        let c = callers();
        let from = "fe80::1".parse().unwrap();
        assert_eq!(known(c.call(from, Some("eth0"), |_| 0)), Some(1));
        assert_eq!(known(c.call(from, Some("eth1"), |_| 0)), Some(2));
        assert_eq!(known(c.call(from, Some("eth2"), |_| 0)), None);
        assert_eq!(known(c.call(from, None, |_| 0)), None);
    }

    #[test]
    fn a_neighbour_on_another_interface_than_its_own_is_not_of_a_range() {
        let mut c = callers();
        c.endpoints.insert(PeerId(0), endpoint("192.0.2.1", Some("eth0")));
        let from = "192.0.2.1".parse().unwrap();
        assert_eq!(known(c.call(from, Some("eth0"), |_| 0)), Some(0));
        assert!(matches!(c.call(from, None, |_| 0), Call::Refused(_)));
    }

    #[test]
    fn of_two_neighbours_with_one_address_neither_is_taken_for_the_other() {
        let daemon = |port| Endpoint { port, ..endpoint("127.0.0.1", None) };
        let c = Callers::new(vec![daemon(1179), daemon(1180)], vec![]);
        assert!(matches!(c.call("127.0.0.1".parse().unwrap(), None, |_| 0), Call::Refused(_)));
    }

    #[test]
    fn a_range_has_a_limit_and_numbers_are_used_again() {
        let mut c = callers();
        let from = |n: u8| IpAddr::from([192, 0, 2, n]);
        let (first, config) = c.join(0, from(9), Asn(64501)).unwrap();
        assert_eq!((first, config.address, config.passive), (PeerId(3), from(9), true));
        assert!(matches!(c.call(from(8), None, |_| 1), Call::Refused("the range is full")));
        assert_eq!(c.join(0, from(8), Asn(64501)).unwrap().0, PeerId(4));
        assert!(matches!(c.call(from(7), None, |_| 0), Call::Refused("the range is full")));
        assert_eq!(known(c.call(from(9), None, |_| 0)), Some(3), "who is there may call again");
        c.leave(first);
        c.leave(PeerId(0));
        assert_eq!(known(c.call(from(1), None, |_| 0)), Some(0), "those of the file stay");
        assert!(matches!(c.call(from(7), None, |_| 0), Call::FromRange(0)));
        assert_eq!(c.join(0, from(7), Asn(64501)).unwrap().0, PeerId(3));
    }
}
