//! Somebody who sends what he likes into the links of sites, from whatever address, and reads what sites send each other.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ubique_proto::rng::Rng;
use ubique_proto::sessions::{Flow, shim};
use ubique_sys::packet::{BATCH_FRAMES_MAX, Batch, PacketSocket};

use crate::frame::{self, Tcp, timestamps};
use crate::net::{CLIENTS, End, Family, Hardware, Net, SITES};
use crate::{plane, quic};

const FRAME_BYTES: usize = 1514;
/// Sent in one go: no more than any link holds.
const BURST: usize = 32;
const ETHERNET_BYTES: usize = 14;
/// Where the shim stands in a frame between sites, over IPv4.
const SHIM: usize = ETHERNET_BYTES + 20 + 8;
/// TCP Fast Open (RFC 7413 §4.1.1), as an option with a cookie of eight octets.
const FAST_OPEN: [u8; 12] = [34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];

/// The one who attacks.
pub struct Attacker {
    /// To each site, as if from its upstream.
    links: Vec<(PacketSocket, Hardware)>,
    family: Family,
    rng: Mutex<Rng>,
}

impl Attacker {
    pub fn new(net: &Net, family: Family) -> Attacker {
        let link = |number| {
            let end = End::Site(number);
            (PacketSocket::open_in(&net.router, &end.name()).unwrap(), net.hardware(end))
        };
        Attacker { links: (0..SITES).map(link).collect(), family, rng: Mutex::new(Rng::new(4)) }
    }

    /// Sends to site `to`, no faster than `per_s`.
    pub fn send(&self, to: usize, per_s: u32, frames: &[Vec<u8>]) {
        let (socket, hardware) = &self.links[to];
        let macs = [hardware.mac, hardware.router_mac].concat();
        let start = Instant::now();
        for (burst, frames) in frames.chunks(BURST).enumerate() {
            let due = start + Duration::from_secs(1) * (burst * BURST) as u32 / per_s;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let frames: Vec<Vec<u8>> = frames.iter().map(|frame| [&macs, &frame[macs.len()..]].concat()).collect();
            let mut left: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            while !left.is_empty() {
                match socket.send_batch(&left) {
                    Ok(count) => drop(left.drain(..count)),
                    // The link is full: what is meant to arrive waits.
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// What site `from` has sent to others, since this was asked last: at most `most` frames of those that wait.
    pub fn captured(&self, from: usize, most: usize) -> Vec<Vec<u8>> {
        let mut batch = Batch::new(BATCH_FRAMES_MAX, FRAME_BYTES);
        let mut frames = Vec::new();
        let mut keep = |frame: &[u8]| {
            if is_between_sites(frame) {
                frames.push(frame.to_vec());
            }
        };
        while self.links[from].0.recv_batch(&mut batch, &mut keep).is_ok() {}
        frames.truncate(most);
        frames
    }

    fn random(&self) -> u64 {
        self.rng.lock().unwrap().next_u64()
    }

    /// A client that is nowhere, to a port of the service.
    pub fn stranger(&self, port: u16) -> Flow {
        let random = self.random();
        let client: IpAddr = match self.family {
            Family::V4 => [203, 0, 113, random as u8].into(),
            Family::V6 => [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, random as u16].into(),
        };
        let client = SocketAddr::new(client, (random >> 16) as u16 | 1);
        Flow { client, service: SocketAddr::new(self.family.service().ip(), port) }
    }

    /// A port of a client that is somewhere.
    pub fn client(&self, ports: &RangeInclusive<u16>) -> Flow {
        let random = self.random();
        let address = End::Client(random as usize % CLIENTS).address(self.family, 2).addr();
        let port = ports.start() + ((random >> 8) % ports.len() as u64) as u16;
        Flow { client: SocketAddr::new(address, port), service: self.family.service() }
    }

    /// Acknowledgements with timestamps that somebody made up.
    pub fn forged_timestamp(&self) -> Vec<u8> {
        let random = self.random();
        let options = timestamps(1, random as u32 | 1);
        let tcp = Tcp { options, ack: (random >> 32) as u32, ..Tcp::default() };
        frame::tcp(&self.stranger(crate::net::PORT), &tcp)
    }

    /// QUIC with a connection identifier of the right length that somebody made up, in either form of header.
    pub fn forged_identifier(&self) -> Vec<u8> {
        let mut payload = [0_u8; 40];
        for octets in payload.chunks_mut(8) {
            octets.copy_from_slice(&self.random().to_ne_bytes());
        }
        let is_long = payload[0] & 1 == 1;
        payload[0] = if is_long { 0xc0 } else { 0x40 };
        payload[5] = if is_long { 10 } else { payload[5] };
        payload[if is_long { 6 } else { 1 }] = quic::ID_KEY.rotation << 5 | 9;
        frame::udp(&self.stranger(quic::PORT), &payload)
    }

    /// Segments with any flags, Fast Open, data in SYNs, options cut off; of `flow`.
    pub fn garbage(&self, flow: &Flow) -> Vec<u8> {
        let random = self.random();
        let options = match random % 4 {
            0 => FAST_OPEN.to_vec(),
            1 => vec![8, 40, 1, 1],
            2 => vec![2, 4, 5, 180, 30, 255, 0, 0],
            _ => vec![],
        };
        let flags = (random >> 8) as u8 & 0x3f;
        let payload = vec![7; (random >> 16) as usize % 30];
        let (seq, ack) = ((random >> 32) as u32, self.random() as u32);
        frame::tcp(flow, &Tcp { flags, seq, ack, options, payload })
    }

    /// The same, as the first or a later fragment.
    pub fn fragment(&self, flow: &Flow) -> Vec<u8> {
        let mut frame = self.garbage(flow);
        let random = self.random();
        let offset = if random.is_multiple_of(2) { 0 } else { (random >> 8) as u16 & 0x1ff };
        match self.family {
            Family::V4 => {
                // More fragments.
                frame[20..22].copy_from_slice(&(0x2000 | offset).to_be_bytes());
                frame[24..26].fill(0);
                let sum = frame::checksum(&[&frame[14..34]]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            Family::V6 => {
                const FRAGMENT: u8 = 44;
                let header = [6, 0, (offset >> 5) as u8, (offset << 3) as u8 | 1, 0, 0, 0, random as u8];
                let length = (frame.len() - 54 + header.len()) as u16;
                frame[20] = FRAGMENT;
                frame[18..20].copy_from_slice(&length.to_be_bytes());
                frame.splice(54..54, header);
            }
        }
        frame
    }

    /// A datagram for site `to`, of any kind and with any tag, as if from `from`.
    pub fn forged_shim(&self, from: IpAddr, sender: u8, to: usize) -> Vec<u8> {
        let random = self.random();
        let mut shim = [0; shim::BYTES];
        shim[..4].copy_from_slice(&[0x10 | (random % 7) as u8, sender, sender, to as u8]);
        shim[4..8].copy_from_slice(&(wall_ms() as u32).to_be_bytes());
        shim[16..].copy_from_slice(&self.random().to_ne_bytes());
        let inner = self.garbage(&self.stranger(crate::net::PORT));
        let to = SocketAddr::new(End::Site(to).address(Family::V4, 2).addr(), plane::PORT);
        frame::udp_between(SocketAddr::new(from, 50_000), to, &[&shim, &inner[ETHERNET_BYTES..]].concat())
    }
}

/// Now, ms since 1970.
pub fn wall_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// The address a captured frame goes to; IPv4.
const DESTINATION: std::ops::Range<usize> = 30..34;
const SOURCE: std::ops::Range<usize> = 26..30;

/// A frame between sites over IPv4, from or to another address.
pub fn readdressed(frame: &[u8], from: Option<IpAddr>, to: Option<IpAddr>) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for (place, address) in [(SOURCE, from), (DESTINATION, to)] {
        if let Some(IpAddr::V4(address)) = address {
            frame[place].copy_from_slice(&address.octets());
        }
    }
    frame[24..26].fill(0);
    let sum = frame::checksum(&[&frame[ETHERNET_BYTES..34]]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Over UDP and IPv4, to the port of the data plane.
fn is_between_sites(frame: &[u8]) -> bool {
    const UDP: u8 = 17;
    frame.get(12..14) == Some(&[8, 0])
        && frame.get(23) == Some(&UDP)
        && frame.get(36..38) == Some(&plane::PORT.to_be_bytes())
}

/// The site that a captured frame is for.
pub fn receiver(frame: &[u8]) -> usize {
    frame[SHIM + 3].into()
}

/// Whether the packet in a captured frame is one of [`Attacker::stranger`].
pub fn is_of_a_stranger(frame: &[u8]) -> bool {
    let packet = &frame[SHIM + shim::BYTES..];
    packet.get(12..15) == Some(&[203, 0, 113]) || packet.get(8..14) == Some(&[0x20, 1, 0xd, 0xb8, 0, 0xc])
}
