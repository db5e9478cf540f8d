//! A box in the middle of every link that delays frames: there is no netem here.
//!
//! What goes to or comes from a client takes [`Delays::client`], what one site sends to another takes that one's detour; everything else
//! goes on at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ubique_sys::packet::{BATCH_FRAMES_MAX, Batch, PacketSocket};

use crate::net::{End, Net, SITES};
use crate::plane;

/// One way each.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    pub client: Duration,
    /// To each site from the others.
    pub detours: [Duration; SITES],
}

/// Longest frame: an Ethernet header and an MTU of 1500.
const FRAME_BYTES: usize = 1514;
/// Longest sleep.
const TURN_NS: i64 = 5_000_000;

const ETHERNET_BYTES: usize = 14;
const UDP: u8 = 17;

/// The running box, until it is dropped.
pub struct DelayBox {
    quit: Arc<AtomicBool>,
    late_us: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl DelayBox {
    /// `net` has a wire.
    pub fn start(net: &Net, delays: Delays) -> DelayBox {
        let wire = net.wire.as_ref().unwrap();
        let open = |name: String| PacketSocket::open_in(wire, &name).unwrap();
        let mut ports = Vec::new();
        for end in End::all() {
            for side in ["a", "b"] {
                ports.push(Port { end, from_router: side == "b", socket: open(format!("{}{side}", end.name())) });
            }
        }
        let quit = Arc::new(AtomicBool::new(false));
        let late_us = Arc::new(AtomicU64::new(0));
        let (stop, late) = (quit.clone(), late_us.clone());
        let run = move || run(&ports, delays, &stop, &late);
        let thread = std::thread::Builder::new().name("delay".into()).spawn(run).unwrap();
        DelayBox { quit, late_us, thread: Some(thread) }
    }

    /// How much later than due a frame left, at worst.
    pub fn late(&self) -> Duration {
        Duration::from_micros(self.late_us.load(Ordering::Relaxed))
    }
}

impl Drop for DelayBox {
    fn drop(&mut self) {
        self.quit.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || !matches!(ended, Some(Err(_))), "the delay box failed");
    }
}

/// One side of the box on one link; the other side is its neighbour in the list.
struct Port {
    end: End,
    from_router: bool,
    socket: PacketSocket,
}

/// Due when, in which order, out of which port, what.
type Waiting = Reverse<(Instant, u64, usize, Vec<u8>)>;

fn run(ports: &[Port], delays: Delays, quit: &AtomicBool, late_us: &AtomicU64) {
    let mut batch = Batch::new(BATCH_FRAMES_MAX, FRAME_BYTES);
    let mut queue: BinaryHeap<Waiting> = BinaryHeap::new();
    let mut order = 0;
    while !quit.load(Ordering::Relaxed) {
        for (number, port) in ports.iter().enumerate() {
            let now = Instant::now();
            // Nothing waits, or the interface is not up yet.
            let _ = port.socket.recv_batch(&mut batch, |frame| {
                order += 1;
                queue.push(Reverse((now + delay(port, delays, frame), order, number ^ 1, frame.to_vec())));
            });
        }
        while let Some(Reverse((due, ..))) = queue.peek()
            && *due <= Instant::now()
        {
            let Some(Reverse((due, _, out, frame))) = queue.pop() else { break };
            late_us.fetch_max(due.elapsed().as_micros() as u64, Ordering::Relaxed);
            while let Err(error) = ports[out].socket.send_batch(&[&frame]) {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
            }
        }
        let next = queue.peek().map(|Reverse((due, ..))| due.saturating_duration_since(Instant::now()));
        let next_ns = next.map_or(TURN_NS, |next| TURN_NS.min(next.as_nanos() as i64));
        let mut ready: Vec<_> =
            ports.iter().map(|port| PollFd::from_borrowed_fd(port.socket.as_fd(), PollFlags::IN)).collect();
        let _ = poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: next_ns }));
    }
    assert_eq!(batch.truncated(), 0, "frames were too long for the delay box");
}

fn delay(port: &Port, delays: Delays, frame: &[u8]) -> Duration {
    match port.end {
        End::Client(_) => delays.client,
        End::Site(number) | End::Mesh(number) if port.from_router && is_between_sites(frame) => delays.detours[number],
        End::Site(_) | End::Mesh(_) => Duration::ZERO,
    }
}

/// Over UDP to the port of the data plane.
fn is_between_sites(frame: &[u8]) -> bool {
    let Some((header, packet)) = frame.split_at_checked(ETHERNET_BYTES) else {
        return false;
    };
    let (protocol, length) = match header[12..] {
        [0x08, 0x00] => (packet.get(9), packet.first().map_or(0, |first| usize::from(first & 0xf) * 4)),
        [0x86, 0xdd] => (packet.get(6), 40),
        _ => return false,
    };
    protocol == Some(&UDP) && packet.get(length + 2..length + 4) == Some(&plane::PORT.to_be_bytes())
}
