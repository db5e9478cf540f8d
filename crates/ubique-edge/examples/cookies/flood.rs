//! How many SYNs a second one processor handles that also makes them, and whether a client is served meanwhile.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;
use ubique_edge::{Counter, Flood};
use ubique_proto::sessions::Flow;
use ubique_sys::netlink::{Netlink, RTPROT_BGP, Route};
use ubique_sys::netns::NetNs;

use crate::frame::{self, SYN, Tcp};
use crate::network::{self, Network, netstat, service};

const DURATION: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;
/// A call: long enough that what it costs to begin one is nothing, short enough to end in time.
const FRAMES: u32 = 1 << 16;
/// New connections of clients, all together.
const CONNECTIONS_PER_S: u32 = 200;
const CLIENTS: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
enum Defence {
    Kernel,
    Ours,
}

/// What one round gave.
struct Outcome {
    handled_per_s: f64,
    sent_per_s: f64,
    /// How long each connection took; `None`: it failed.
    waits: Vec<Option<Duration>>,
}

fn on_processor(number: usize) {
    let mut set = CpuSet::new();
    set.set(number);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

/// The SYN that is repeated, between the hardware addresses of the cable.
fn syn(source: [u8; 6], destination: [u8; 6]) -> [u8; 74] {
    let options = vec![2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];
    let flow = Flow { client: "10.0.0.1:1024".parse().unwrap(), service: service(false) };
    let mut frame = frame::tcp(&flow, &Tcp { flags: SYN, ack: 0, options, ..Tcp::default() });
    frame[..12].copy_from_slice(&[destination, source].concat());
    frame.try_into().unwrap()
}

fn converse(address: SocketAddr) -> Option<Duration> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"?").ok()?;
    stream.read_exact(&mut [0]).ok()?;
    Some(begin.elapsed())
}

/// One of the clients, which begins a connection whenever it is time for one, or at once when late.
fn client(number: u32, until: Instant) -> Vec<Option<Duration>> {
    let interval = Duration::from_secs(1) * CLIENTS / CONNECTIONS_PER_S;
    let mut due = Instant::now() + interval * number / CLIENTS;
    let mut waits = Vec::new();
    while due < until {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        waits.push(converse(service(false)));
        due += interval;
    }
    waits
}

fn handled(defence: Defence, network: &Network) -> u64 {
    match defence {
        Defence::Kernel => netstat("SyncookiesSent"),
        Defence::Ours => network.edge.counters().unwrap()[Counter::SynCookie],
    }
}

fn clients(namespace: &NetNs, until: Instant) -> Vec<Option<Duration>> {
    let all = || {
        on_processor(0);
        let threads: Vec<_> = (0..CLIENTS).map(|n| std::thread::spawn(move || client(n, until))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    };
    namespace.run(all).unwrap()
}

fn round(defence: Defence) -> Option<Outcome> {
    let network = match defence {
        Defence::Ours => Network::new()?,
        Defence::Kernel => Network::without_cookies()?,
    };
    // Answers to the flood leave through the cable, too.
    let via: IpAddr = "198.51.100.7".parse().unwrap();
    let route = Route {
        destination: "10.0.0.0/8".parse().unwrap(),
        gateway: Some(via),
        interface: None,
        protocol: RTPROT_BGP,
        metric: None,
        blackhole: false,
        source: None,
    };
    Netlink::open().unwrap().replace_route(&route).unwrap();
    let [from, to] = network.hardware_addresses();
    let mut flood = Flood::load(&syn(from, to), network.client_index).unwrap();
    network.clients.run(|| flood.attach_sink(network.client_index)).unwrap().unwrap();
    // Ends with the process.
    network::echo(usize::MAX);
    let done = AtomicBool::new(false);
    let (mut waits, mut sent) = (vec![], 0_u64);
    let (mut count, mut took) = (0, Duration::ZERO);
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            network.clients.enter().unwrap();
            on_processor(1);
            // What arrives goes first: else frames are made that the cable loses.
            rustix::process::setpriority_process(None, 19).unwrap();
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                flood.send(FRAMES).unwrap();
                sent += u64::from(FRAMES);
            }
            sent
        });
        let (before, begin) = (handled(defence, &network), Instant::now());
        waits = clients(&network.clients, begin + DURATION);
        took = begin.elapsed();
        count = handled(defence, &network) - before;
        done.store(true, Ordering::Relaxed);
        sent = flooding.join().unwrap();
    });
    let per_s = |count: u64| count as f64 / took.as_secs_f64();
    Some(Outcome { handled_per_s: per_s(count), sent_per_s: per_s(sent), waits })
}

/// Times the kernel's that ours should handle.
const GOAL: f64 = 3.5;

/// Prints what each round gave, for people, and a row of the median, as [`crate::costs`] does.
pub fn main() {
    let (mut rates, mut lost) = ([vec![], vec![]], 0);
    for _ in 0..ROUNDS {
        for (defence, rates) in [Defence::Kernel, Defence::Ours].into_iter().zip(&mut rates) {
            let Some(mut outcome) = round(defence) else { std::process::exit(3) };
            outcome.waits.sort();
            let (tried, failed) = (outcome.waits.len(), outcome.waits.iter().filter(|wait| wait.is_none()).count());
            let p99 = outcome.waits[tried * 99 / 100].unwrap_or_default();
            eprintln!(
                "{defence:?}: {:.0} kSYN/s handled of {:.0} sent, {} of {tried} connections, p99 {:.1} ms",
                outcome.handled_per_s / 1e3,
                outcome.sent_per_s / 1e3,
                tried - failed,
                p99.as_secs_f64() * 1e3
            );
            lost += if matches!(defence, Defence::Ours) { failed } else { 0 };
            rates.push(outcome.handled_per_s);
        }
    }
    let [kernel, ours] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        1e9 / rates[rates.len() / 2]
    });
    println!("SYN flood: a SYN handled (peer: the kernel's cookies)\t{ours:.1}\t{:.1}\t{kernel:.1}", kernel / GOAL);
    println!("SYN flood: connections of others that failed\t{lost}\t0\t");
}
