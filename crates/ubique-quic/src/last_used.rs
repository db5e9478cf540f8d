//! Answers from the address a peer last used.
//!
//! quinn (0.11) sends all packets of a connection from the address its first packet came to. A client that moves to the server's preferred
//! address (RFC 9000 §9.6) is then answered from the old one, which it does not accept on its new path: validation fails, and it
//! stays at the anycast address, or stalls. This socket remembers who was last heard at a preferred address, and answers from there.
//!
//! What it cannot know, since packets are encrypted: whether a packet is genuine, and which of a peer's connections it belongs to.
//! - Whoever can send with a peer's address and port as source makes the answers to that peer leave from the other address until the
//!   peer's own next packet. He can neither read them nor choose where they go.
//! - A peer that has connections to both addresses *from one port* gets answers of either from the address it used last.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// Most peers remembered, about 7 MB: those least recently heard are forgotten, and answered from where they connected.
pub const PEERS_MAX: usize = 65_536;

/// A socket of quinn that answers from preferred addresses to whoever used them last.
pub struct LastUsed {
    socket: Arc<dyn AsyncUdpSocket>,
    preferred: Vec<IpAddr>,
    peers: Mutex<Peers>,
}

/// Where peers were last heard, in two generations: the older one is dropped as a whole when the recent one is full.
#[derive(Default)]
struct Peers {
    recent: HashMap<SocketAddr, IpAddr>,
    older: HashMap<SocketAddr, IpAddr>,
}

impl Peers {
    fn heard(&mut self, peer: SocketAddr, address: IpAddr) {
        if self.recent.len() >= PEERS_MAX / 2 && !self.recent.contains_key(&peer) {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(peer, address);
    }

    fn forget(&mut self, peer: &SocketAddr) {
        self.recent.remove(peer);
        self.older.remove(peer);
    }

    fn of(&self, peer: &SocketAddr) -> Option<IpAddr> {
        self.recent.get(peer).or_else(|| self.older.get(peer)).copied()
    }
}

impl LastUsed {
    /// `preferred`: the addresses told to clients. Only peers that use one of them are remembered, so that no flood of
    /// packets to other addresses can make room for itself here.
    pub fn new(socket: Arc<dyn AsyncUdpSocket>, preferred: impl IntoIterator<Item = IpAddr>) -> LastUsed {
        let preferred = preferred.into_iter().map(|address| address.to_canonical()).collect();
        LastUsed { socket, preferred, peers: Mutex::default() }
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LastUsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastUsed").field("socket", &self.socket).field("preferred", &self.preferred).finish()
    }
}

impl AsyncUdpSocket for LastUsed {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let last = self.peers().of(&transmit.destination);
        self.socket.try_send(&Transmit { src_ip: last.or(transmit.src_ip), ..transmit.clone() })
    }

    fn poll_recv(
        &self,
        context: &mut Context,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.socket.poll_recv(context, buffers, meta))?;
        let mut peers = self.peers();
        for RecvMeta { addr: peer, dst_ip, .. } in meta.iter().take(received) {
            match dst_ip.filter(|address| self.preferred.contains(&address.to_canonical())) {
                Some(address) => peers.heard(*peer, address),
                None => peers.forget(peer),
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn peer(number: usize) -> SocketAddr {
        (Ipv6Addr::from_bits(number as u128), 1).into()
    }

    #[test]
    fn those_heard_last_are_kept_and_no_more_than_the_limit() {
        let [a, b] = ["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap());
        let mut peers = Peers::default();
        for number in 0..3 * PEERS_MAX {
            peers.heard(peer(number), a);
            // One that goes on is never forgotten, whoever else comes.
            peers.heard(peer(0), b);
            assert!(peers.recent.len() + peers.older.len() <= PEERS_MAX);
        }
        assert_eq!(peers.of(&peer(0)), Some(b));
        assert_eq!(peers.of(&peer(1)), None);
        let kept = 3 * PEERS_MAX - PEERS_MAX / 2 + 1..3 * PEERS_MAX;
        assert!(kept.clone().all(|number| peers.of(&peer(number)) == Some(a)));
        peers.forget(&peer(0));
        peers.forget(&peer(kept.start));
        assert_eq!((peers.of(&peer(0)), peers.of(&peer(kept.start))), (None, None));
    }
}
