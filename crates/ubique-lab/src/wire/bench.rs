//! How exact the wire is: a stream of packets through a delayed link between two namespaces.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use ubique_sys::clock;
use ubique_sys::netlink::Netlink;
use ubique_sys::netns::NetNs;
use ubique_sys::packet::disable_offloads;
use ubique_sys::udp::{self, UdpBatch};

use super::{Counters, Wire, WireLink, WireSpec};
use crate::control;

/// Packets sent at a time; the sender wakes up so much less often than it sends.
const BURST: u64 = 4;
/// Payload: send time and number.
const PAYLOAD: usize = 64;
const PORT: u16 = 5353;
const RECEIVE_BUFFER_BYTES: usize = 32 << 20;
const SENDER: [u8; 4] = [192, 0, 2, 1];
const RECEIVER: [u8; 4] = [192, 0, 2, 2];
/// How long the receiver waits for the last packets beyond the delay.
const PATIENCE: Duration = Duration::from_secs(2);
const CONTROL_TIMEOUT: Duration = Duration::from_secs(2);
const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

/// What [`bench`] measured.
#[derive(Clone, Debug, Serialize)]
pub struct BenchResult {
    /// Packets sent.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
    /// Packets that overtook an earlier one.
    pub reordered: u64,
    /// Packets that arrived before their delay was over: must be 0.
    pub early: u64,
    /// Delay beyond the link's, from the sender's clock to the receiver's kernel timestamp: median, µs.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Worst.
    pub max_us: f64,
    /// Share of one processor that the wire used.
    pub cpu: f64,
    /// The wire's own count.
    pub counters: Counters,
}

/// Sends `rate` packets/s for `duration` through a link of one-way delay `link.delay_ns`, in namespaces made below
/// `directory`. Must run where namespaces may be made: in the sandbox, or as root.
///
/// # Errors
/// Whatever the kernel refuses.
pub fn bench(directory: &Path, link: &WireLink, rate: u64, duration: Duration) -> io::Result<BenchResult> {
    let namespace = |name: &str| NetNs::create_at(&directory.join(name));
    let (a, b, middle) = (namespace("bench-a")?, namespace("bench-b")?, namespace("bench-wire")?);
    let mut netlink = Netlink::open_in(&middle)?;
    let mut batch = netlink.batch();
    batch.add_point_to_point(("l0", Some(&a)), (&link.a, None), MAC)?;
    batch.add_point_to_point(("l0", Some(&b)), (&link.b, None), MAC)?;
    batch.commit()?;
    for link in netlink.links()? {
        netlink.set_up(link.index)?;
    }
    let (sender, receiver) = (SENDER.into(), RECEIVER.into());
    for (ns, local, remote) in [(&a, sender, receiver), (&b, receiver, sender)] {
        ns.run(|| {
            disable_offloads("l0")?;
            let mut netlink = Netlink::open()?;
            let index = netlink.link_index("l0")?;
            let mut batch = netlink.batch();
            batch.set_up(index)?;
            batch.add_peer_address(index, local, remote)?;
            batch.commit()
        })??;
    }
    let from = a.run(|| UdpSocket::bind(SocketAddr::new(sender, 0)))??;
    let to = b.run(|| UdpSocket::bind(SocketAddr::new(receiver, PORT)))??;
    prepare(&to)?;
    let spec =
        WireSpec { socket: directory.join("bench-wire.sock"), seed: 1, links: vec![link.clone()], towards_xdp: vec![] };
    let mut wire = middle.run(|| Wire::open(&spec))?.map_err(io::Error::other)?;
    let run = std::thread::scope(|scope| {
        let wire = scope.spawn(|| {
            let result = wire.run();
            (result, thread_cpu_ns(), wire.shaper.counters)
        });
        let receive = scope.spawn(|| receive(&to, link.delay_ns, rate, duration));
        let started = clock::monotonic_ns();
        let sent = send(&from, SocketAddr::new(receiver, PORT), rate, duration);
        let received = receive.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
        let stopped = control::request(&spec.socket, &serde_json::json!({ "stop": true }), CONTROL_TIMEOUT);
        let elapsed = clock::monotonic_ns() - started;
        let wire = wire.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
        stopped.map_err(io::Error::other)?;
        Ok::<_, io::Error>((sent?, received?, wire, elapsed))
    })?;
    let (sent, received, (result, cpu_ns, counters), elapsed) = run;
    result.map_err(io::Error::other)?;
    Ok(received.result(sent, cpu_ns as f64 / elapsed as f64, counters))
}

/// The receiver's socket: kernel timestamps, and room for what it is not there for.
fn prepare(to: &UdpSocket) -> io::Result<()> {
    udp::enable_timestamps(to.as_fd())?;
    // What the receiver is not there for must wait, not be lost: the wire is on trial, not the receiver.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(to, RECEIVE_BUFFER_BYTES).is_err() {
        rustix::net::sockopt::set_socket_recv_buffer_size(to, RECEIVE_BUFFER_BYTES)?;
    }
    Ok(())
}

fn thread_cpu_ns() -> u64 {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64
}

/// Sends bursts at their times; returns how many packets the kernel took.
fn send(socket: &UdpSocket, to: SocketAddr, rate: u64, duration: Duration) -> io::Result<u64> {
    let total = (rate as f64 * duration.as_secs_f64()) as u64;
    let start = clock::monotonic_ns();
    let mut payload = [0u8; PAYLOAD];
    let mut number = 0;
    while number < total {
        let at = start + number * 1_000_000_000 / rate;
        if let Some(wait) = at.checked_sub(clock::monotonic_ns()) {
            std::thread::sleep(Duration::from_nanos(wait));
        }
        for _ in 0..BURST.min(total - number) {
            payload[8..16].copy_from_slice(&number.to_be_bytes());
            payload[..8].copy_from_slice(&clock::realtime_ns().to_be_bytes());
            socket.send_to(&payload, to)?;
            number += 1;
        }
    }
    Ok(number)
}

#[derive(Default)]
struct Received {
    /// Delay beyond the link's, ns.
    errors: Vec<u64>,
    early: u64,
    reordered: u64,
    last: Option<u64>,
}

fn receive(socket: &UdpSocket, delay_ns: u64, rate: u64, duration: Duration) -> io::Result<Received> {
    let total = (rate as f64 * duration.as_secs_f64()) as usize;
    let mut received = Received { errors: Vec::with_capacity(total), ..Received::default() };
    let deadline = clock::monotonic_ns() + (duration + PATIENCE).as_nanos() as u64 + delay_ns;
    let mut batch = UdpBatch::new(64, PAYLOAD);
    socket.set_nonblocking(true)?;
    while received.errors.len() + (received.early as usize) < total {
        let Some(left) = deadline.checked_sub(clock::monotonic_ns()) else {
            break;
        };
        let timeout =
            rustix::event::Timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as _ };
        let mut fds = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)];
        if rustix::event::poll(&mut fds, Some(&timeout))? == 0 {
            break;
        }
        let taken = udp::recv_batch(socket.as_fd(), &mut batch, |packet| {
            received.take(packet.bytes, packet.timestamp_ns, delay_ns);
        });
        match taken {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
            _ => {}
        }
    }
    Ok(received)
}

impl Received {
    fn take(&mut self, bytes: &[u8], timestamp_ns: Option<u64>, delay_ns: u64) {
        let number = |at: usize| bytes.get(at..).and_then(|b| b.first_chunk()).map(|b| u64::from_be_bytes(*b));
        let (Some(sent), Some(number), Some(arrived)) = (number(0), number(8), timestamp_ns) else {
            return;
        };
        self.reordered += u64::from(self.last.is_some_and(|last| number < last));
        self.last = Some(number);
        match arrived.checked_sub(sent).and_then(|d| d.checked_sub(delay_ns)) {
            Some(error) => self.errors.push(error),
            None => self.early += 1,
        }
    }

    fn result(mut self, sent: u64, cpu: f64, counters: Counters) -> BenchResult {
        self.errors.sort_unstable();
        let quantile = |q: f64| {
            let last = self.errors.len().saturating_sub(1);
            let ns = self.errors.get((last as f64 * q).round() as usize).copied().unwrap_or(0);
            ns as f64 / 1e3
        };
        BenchResult {
            sent,
            received: self.errors.len() as u64 + self.early,
            reordered: self.reordered,
            early: self.early,
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: quantile(1.0),
            cpu,
            counters,
        }
    }
}
