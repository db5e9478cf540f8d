//! Queries at a steady rate from the router's side, every one of them counted.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::{Lab, Process, ROUTER_V4, SERVICE_V4, SERVICE_V6, start_ready};
use crate::roles::BUFFER_BYTES;

/// Sockets of the client, and of the service: an ordinary user's keep some 270 datagrams each, and a busy machine lets them
/// wait.
const SOCKETS: usize = 16;

/// Between two bursts.
const TICK: Duration = Duration::from_millis(2);

/// Shorter loads prove little.
const AT_LEAST: Duration = Duration::from_secs(1);

/// How long the last answers may take.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// A client that asks `rate` times a second, until it is told to stop.
pub struct Load {
    start: Instant,
    stop: Arc<AtomicBool>,
    sent: JoinHandle<u64>,
    answered: Vec<JoinHandle<()>>,
    count: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Load {
    pub fn start(lab: &Lab, rate: u32) -> Load {
        let open = || {
            let socket = UdpSocket::bind((ROUTER_V4, 0)).unwrap();
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES);
            socket.connect((SERVICE_V4, 53)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            socket
        };
        let sockets: Vec<UdpSocket> = lab.router.run(|| (0..SOCKETS).map(|_| open()).collect()).unwrap();
        let (stop, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let count = Arc::new(AtomicU64::new(0));
        let answered = sockets.iter().map(|socket| receive(socket.try_clone().unwrap(), count.clone(), over.clone()));
        let answered = answered.collect();
        let told = stop.clone();
        let sent = std::thread::spawn(move || send(&sockets, rate, &told));
        Load { start: Instant::now(), stop, sent, answered, count, over }
    }

    /// How many queries were sent, and how many of them were never answered.
    pub fn end(self) -> (u64, u64) {
        std::thread::sleep(AT_LEAST.saturating_sub(self.start.elapsed()));
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sent.join().unwrap();
        let start = Instant::now();
        while self.count.load(Ordering::Relaxed) < sent && start.elapsed() < LAST_ANSWERS {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.over.store(true, Ordering::Relaxed);
        self.answered.into_iter().for_each(|thread| thread.join().unwrap());
        (sent, sent - self.count.load(Ordering::Relaxed))
    }
}

/// Sends what is due every [`TICK`]; what a busy machine delays is sent later, not left out.
fn send(sockets: &[UdpSocket], rate: u32, stop: &AtomicBool) -> u64 {
    let start = Instant::now();
    let mut sent = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        // A pause of this process must not become a flood.
        let until = due.min(sent + u64::from(rate) / 50);
        for number in sent..until {
            let query = number.to_be_bytes();
            let socket = &sockets[number as usize % sockets.len()];
            // A refusal that came for an earlier one (ICMP) is told here, and that one is missing already.
            if socket.send(&query).is_err() {
                let _ = socket.send(&query);
            }
        }
        sent = sent.max(until);
        std::thread::sleep(TICK);
    }
    sent
}

/// Counts answers; the service repeats the query with a bit set, so that none is counted twice.
fn receive(socket: UdpSocket, count: Arc<AtomicU64>, over: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let mut seen = std::collections::BTreeSet::new();
        while !over.load(Ordering::Relaxed) {
            if let Ok(8) = socket.recv(&mut buffer)
                && seen.insert(buffer[..8].to_vec())
            {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
}

/// The service of the site with so many sockets that a busy machine loses no query.
pub fn service(lab: &Lab) -> Process {
    let addresses: Vec<SocketAddr> =
        [SERVICE_V4, SERVICE_V6].iter().map(|a| SocketAddr::new(a.parse().unwrap(), 53)).collect();
    let words: Vec<String> =
        addresses.iter().flat_map(|a| std::iter::repeat_n(format!("reuse:{a}"), SOCKETS)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    start_ready(&lab.site, "dns", &words)
}
