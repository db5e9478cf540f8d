//! Datagrams between sites: questions whether the others are there, and that a connection is ours.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use ubique_edge::{Found, Keys};
use ubique_proto::sessions::Site;
use ubique_proto::sessions::shim::{BYTES, Kind, Shim};
use ubique_sys::udp;

use super::wall::By;
use super::{Other, Setup};

/// Datagrams taken in a turn, of each socket.
const TURN: usize = 256;

/// One socket for each of our unicast addresses.
pub(super) struct Sockets {
    site: Site,
    port: u16,
    open: Vec<(IpAddr, UdpSocket)>,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here {
    pub site: Site,
    /// What was asked.
    pub asked: u64,
    /// By which of our clocks it is believed.
    pub by: By,
    /// How far the clock of the site is ahead of that, its answer having taken no time.
    pub clock_ahead_ms: i64,
}

impl Sockets {
    pub fn new(setup: &Setup) -> Sockets {
        Sockets { site: setup.site, port: setup.sessions.port, open: Vec::new() }
    }

    /// Opens what is not open yet; each address that cannot be opened, with why.
    pub fn open(&mut self, addresses: &[IpAddr]) -> Vec<(IpAddr, io::Error)> {
        let mut refused = Vec::new();
        for &address in addresses {
            if self.open.iter().all(|(known, _)| *known != address) {
                match socket(SocketAddr::new(address, self.port)) {
                    Ok(socket) => self.open.push((address, socket)),
                    Err(error) => refused.push((address, error)),
                }
            }
        }
        refused
    }

    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.iter().map(|(_, socket)| socket.as_fd())
    }

    /// Asks a site whether it is there. What is lost is asked again.
    pub fn ask(&mut self, keys: &Keys, whom: &Other, asked: u64, wall_ms: u64) -> io::Result<()> {
        let shim = self.shim(Kind::Alive, whom.site, asked, wall_ms).encode(keys.shim, 0);
        self.send(whom, &shim)
    }

    /// Tells a site that a connection is ours.
    pub fn tell(&mut self, keys: &Keys, whom: &Other, found: &Found, wall_ms: u64) -> io::Result<()> {
        let shim = self.shim(Kind::Mine, whom.site, 0, wall_ms).encode(keys.shim, found.flow.hash(keys.flow));
        self.send(whom, &[&shim[..], &found.flow.octets()].concat())
    }

    fn shim(&self, kind: Kind, receiver: Site, asked: u64, wall_ms: u64) -> Shim {
        Shim { kind, sender: self.site, origin: self.site, receiver, wall_ms: wall_ms as u32, asked }
    }

    fn send(&mut self, whom: &Other, octets: &[u8]) -> io::Result<()> {
        let (_, socket) =
            self.open.iter().find(|(address, _)| *address == whom.source).ok_or_else(|| {
                io::Error::new(io::ErrorKind::AddrNotAvailable, format!("no socket at {}", whom.source))
            })?;
        let sent = socket.send_to(octets, (whom.address, self.port)).map(|_| ());
        match sent {
            // Of an earlier datagram (ICMP); a socket whose address is gone is opened again.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput || error.raw_os_error() == Some(ENETUNREACH) => {
                let source = whom.source;
                self.open.retain(|(address, _)| *address != source);
                Err(error)
            }
            sent => sent,
        }
    }

    /// The answers that wait, each by the first of our clocks (ms since 1970) that it agrees with.
    pub fn answers(&mut self, keys: &Keys, others: &[Other], clocks: &[(By, u64)]) -> Vec<Here> {
        let mut answers = Vec::new();
        let mut octets = [0; BYTES + 1];
        for (_, socket) in &self.open {
            for _ in 0..TURN {
                let (length, from) = match socket.recv_from(&mut octets) {
                    Ok(received) => received,
                    // One of a datagram we sent; what waits behind it is for the next turn.
                    Err(_) => break,
                };
                let known = others.iter().any(|other| SocketAddr::new(other.address, self.port) == from);
                let decode = |wall_ms| Shim::decode(&octets[..length], keys.shim, 0, wall_ms).ok();
                let read = clocks.iter().find_map(|(by, wall_ms)| Some((*by, *wall_ms, decode(*wall_ms)?)));
                let Some((by, wall_ms, shim)) = read else { continue };
                let from_there = others.iter().any(|o| o.site == shim.sender && o.address == from.ip());
                if known && from_there && shim.receiver == self.site && shim.kind == Kind::Here && length == BYTES {
                    let clock_ahead_ms = i64::from(shim.wall_ms.wrapping_sub(wall_ms as u32) as i32);
                    answers.push(Here { site: shim.sender, asked: shim.asked, by, clock_ahead_ms });
                }
            }
        }
        answers
    }
}

const ENETUNREACH: i32 = rustix::io::Errno::NETUNREACH.raw_os_error();

fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // Answers have none: their tag says more.
        udp::accept_without_checksum(socket.as_fd())?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubique_proto::sessions::Key;

    const OURS: &str = "127.0.0.41";
    const THEIRS: &str = "127.0.0.42";
    const WALL: u64 = 1_795_248_930_123;

    fn keys() -> Keys {
        Keys { flow: Key([1, 2]), shim: Key([3, 4]), cookie: Key([5, 6]), ids: vec![] }
    }

    fn site(number: u8) -> Site {
        Site::new(number).unwrap()
    }

    #[test]
    fn only_what_the_site_itself_answers_is_an_answer() {
        let port = crate::ports::unused();
        let [ours, theirs]: [IpAddr; 2] = [OURS, THEIRS].map(|address| address.parse().unwrap());
        let mut sockets = Sockets { site: site(1), port, open: vec![] };
        assert!(sockets.open(&[ours]).is_empty());
        let nowhere: IpAddr = "192.0.2.77".parse().unwrap();
        assert_eq!(sockets.open(&[nowhere]).len(), 1, "not an address of this machine");
        let other = Other { name: "fra".into(), site: site(2), address: theirs, source: ours };
        let there = UdpSocket::bind((theirs, port)).unwrap();
        there.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();

        // What we ask is what its data plane believes.
        sockets.ask(&keys(), &other, 77, WALL).unwrap();
        let mut octets = [0; 100];
        let (length, from) = there.recv_from(&mut octets).unwrap();
        let asked = Shim::decode(&octets[..length], keys().shim, 0, WALL).unwrap();
        assert_eq!((asked.kind, asked.sender, asked.asked, length, from.ip()), (Kind::Alive, site(1), 77, BYTES, ours));

        let (kind, sender, receiver, wall_ms) = (Kind::Here, site(2), site(1), WALL as u32 + 900);
        let here = Shim { kind, sender, origin: sender, receiver, wall_ms, asked: 77 };
        let for_another = Shim { receiver: site(3), ..here }.encode(keys().shim, 0);
        let forged = here.encode(Key([9, 9]), 0);
        let strange = Shim { sender: site(3), ..here }.encode(keys().shim, 0);
        let question = Shim { kind: Kind::Alive, ..here }.encode(keys().shim, 0);
        let old = Shim { wall_ms: (WALL - 400_000) as u32, ..here }.encode(keys().shim, 0);
        let good = here.encode(keys().shim, 0);
        for octets in [&forged[..], &strange, &for_another, &question, &old, &[], &[&good[..], &[0]].concat()] {
            there.send_to(octets, (ours, port)).unwrap();
        }
        // From another port of the same address.
        UdpSocket::bind((theirs, 0)).unwrap().send_to(&good, (ours, port)).unwrap();
        there.send_to(&good, (ours, port)).unwrap();
        let clocks = [(By::Ours, WALL), (By::Machine, WALL + 3_600_000)];
        let answers = sockets.answers(&keys(), std::slice::from_ref(&other), &clocks);
        let [answer] = answers.as_slice() else { panic!("{answers:?}") };
        assert_eq!((answer.site, answer.asked, answer.by, answer.clock_ahead_ms), (site(2), 77, By::Ours, 900));
        let by_the_machine = Shim { wall_ms: here.wall_ms + 3_600_000, ..here }.encode(keys().shim, 0);
        there.send_to(&by_the_machine, (ours, port)).unwrap();
        let answers = sockets.answers(&keys(), std::slice::from_ref(&other), &clocks);
        let [answer] = answers.as_slice() else { panic!("{answers:?}") };
        assert_eq!((answer.by, answer.clock_ahead_ms), (By::Machine, 900));

        // That a connection is ours: its octets follow, under a tag of its own.
        let flow = ubique_proto::sessions::Flow {
            client: "203.0.113.7:40000".parse().unwrap(),
            service: "198.51.100.53:443".parse().unwrap(),
        };
        sockets.tell(&keys(), &other, &Found { flow, origin: site(2) }, WALL).unwrap();
        let (length, _) = there.recv_from(&mut octets).unwrap();
        let told = Shim::decode(&octets[..length], keys().shim, flow.hash(keys().flow), WALL).unwrap();
        assert_eq!((told.kind, told.receiver, &octets[BYTES..length]), (Kind::Mine, site(2), &flow.octets()[..]));
    }
}
