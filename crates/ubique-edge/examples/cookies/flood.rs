//! How many SYNs a second one processor handles that also makes them, and whether a client is served meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;
use ubique_edge::{Attachment, Counter, Flood, Mode};
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

/// How clients other than the flood reach the service.
#[derive(Clone, Copy, Debug)]
enum Cable {
    /// Through the queue that the flood fills: a veth holds 256 packets, and loses whoever comes then.
    Same,
    Own,
}

/// What one round gave.
struct Outcome {
    handled_per_s: f64,
    sent_per_s: f64,
    /// How long each connection took; `None`: it failed.
    waits: Vec<Option<Duration>>,
    /// Of clients: SYNs that were sent again, and packets that did not fit into the queue of the cable.
    sent_again: u64,
    lost_by_cable: u64,
}

impl Outcome {
    /// The share `rank` of 100 of connections took no longer, ms; of those that failed it is not known.
    fn wait_ms(&self, rank: usize) -> f64 {
        let mut waits: Vec<_> = self.waits.iter().flatten().collect();
        waits.sort();
        waits[(waits.len() * rank / 100).min(waits.len() - 1)].as_secs_f64() * 1e3
    }

    fn failed(&self) -> usize {
        self.waits.iter().filter(|wait| wait.is_none()).count()
    }
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

/// Packets of the calling thread's namespace that did not fit into the cable.
fn dropped(interface: &str) -> u64 {
    const TRANSMIT_DROP: usize = 11;
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let (_, numbers) = text.lines().find_map(|line| line.split_once(&format!("{interface}:"))).unwrap();
    numbers.split_whitespace().nth(TRANSMIT_DROP).unwrap().parse().unwrap()
}

/// A second cable, which the clients' packets take to the service.
fn own_cable(network: &Network, defence: Defence) -> Option<Attachment> {
    let server = NetNs::current().unwrap();
    Netlink::open_in(&network.clients).unwrap().add_veth(("c1", None), ("s1", Some(&server))).unwrap();
    let up = |name: &str, address: &str| {
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.link_index(name).unwrap();
        netlink.set_up(index).unwrap();
        netlink.add_address(index, address.parse().unwrap()).unwrap();
        index
    };
    let index = up("s1", "203.0.113.53/24");
    network.clients.enter().unwrap();
    let pass = network.edge.attach_pass(up("c1", "203.0.113.7/24"));
    let route = route("198.51.100.53/32", "203.0.113.53");
    Netlink::open().unwrap().replace_route(&route).unwrap();
    server.enter().unwrap();
    pass.unwrap();
    match defence {
        Defence::Ours => Some(network.edge.attach(index, Some(Mode::Native)).unwrap()),
        Defence::Kernel => {
            network.edge.attach_pass(index).unwrap();
            None
        }
    }
}

fn route(destination: &str, via: &str) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        gateway: Some(via.parse().unwrap()),
        interface: None,
        protocol: RTPROT_BGP,
        metric: None,
        blackhole: false,
        source: None,
    }
}

fn round(defence: Defence, cable: Cable) -> Option<Outcome> {
    let network = match defence {
        Defence::Ours => Network::new()?,
        Defence::Kernel => Network::without_cookies()?,
    };
    // Answers to the flood leave through the cable, too.
    Netlink::open().unwrap().replace_route(&route("10.0.0.0/8", "198.51.100.7")).unwrap();
    let [from, to] = network.hardware_addresses();
    let mut flood = Flood::load(&syn(from, to), network.client_index).unwrap();
    network.clients.run(|| flood.attach_sink(network.client_index)).unwrap().unwrap();
    let (name, _attachment) = match cable {
        Cable::Same => ("c0", None),
        Cable::Own => ("c1", own_cable(&network, defence)),
    };
    // Ends with the process.
    network::echo(usize::MAX);
    let of_clients = || network.clients.run(|| (netstat("TCPSynRetrans"), dropped(name))).unwrap();
    let before_clients = of_clients();
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
    let after_clients = of_clients();
    Some(Outcome {
        handled_per_s: per_s(count),
        sent_per_s: per_s(sent),
        waits,
        sent_again: after_clients.0 - before_clients.0,
        lost_by_cable: after_clients.1 - before_clients.1,
    })
}

/// Times the kernel's that ours should handle.
const GOAL: f64 = 3.5;

/// Prints what each round gave, for people, and rows, as [`crate::costs`] does: of SYNs the least, of connections all rounds.
pub fn main() {
    let mut rates = [vec![], vec![]];
    for cable in [Cable::Same, Cable::Own] {
        let mut outcomes = [vec![], vec![]];
        for _ in 0..ROUNDS {
            for (defence, outcomes) in [Defence::Kernel, Defence::Ours].into_iter().zip(&mut outcomes) {
                let Some(outcome) = round(defence, cable) else { std::process::exit(3) };
                eprintln!(
                    "{defence:?}, {cable:?} cable: {:.0} kSYN/s handled of {:.0} sent, {} of {} connections failed, p50 {:.1} ms, p99 \
                     {:.1}, worst {:.1}, {} SYNs sent again, {} packets lost by the cable",
                    outcome.handled_per_s / 1e3,
                    outcome.sent_per_s / 1e3,
                    outcome.failed(),
                    outcome.waits.len(),
                    outcome.wait_ms(50),
                    outcome.wait_ms(99),
                    outcome.wait_ms(100),
                    outcome.sent_again,
                    outcome.lost_by_cable
                );
                outcomes.push(outcome);
            }
        }
        for (rates, outcomes) in rates.iter_mut().zip(&outcomes) {
            rates.extend(outcomes.iter().map(|outcome| outcome.handled_per_s));
        }
        rows(cable, outcomes);
    }
    // What disturbs only adds.
    let [kernel, ours] = rates.map(|rates| 1e9 / rates.into_iter().fold(0.0, f64::max));
    println!("SYN flood: a SYN handled (peer: the kernel's cookies)\t{ours:.1}\t{:.1}\t{kernel:.1}", kernel / GOAL);
}

/// What became of connections, beside those under the kernel's cookies.
fn rows(cable: Cable, [kernel, ours]: [Vec<Outcome>; 2]) {
    let of = match cable {
        Cable::Same => "SYN flood, clients in its queue",
        Cable::Own => "SYN flood, clients in a queue of their own",
    };
    let sum = |of: fn(&Outcome) -> u64| [&ours, &kernel].map(|all| all.iter().map(of).sum::<u64>());
    let [failed, theirs] = sum(|outcome| outcome.failed() as u64);
    println!("{of}: connections that failed\t{failed}\t0\t{theirs}\t");
    let [again, theirs] = sum(|outcome| outcome.sent_again);
    println!("{of}: SYNs sent again\t{again}\t\t{theirs}\t");
    let [lost, theirs] = sum(|outcome| outcome.lost_by_cable);
    println!("{of}: packets of anybody that the queue lost\t{lost}\t\t{theirs}\t");
    for (what, rank) in [("median", 50), ("p99", 99), ("worst", 100)] {
        let [wait, theirs] = [&ours, &kernel].map(|all| {
            let mut waits: Vec<_> = all.iter().map(|outcome| outcome.wait_ms(rank)).collect();
            waits.sort_by(f64::total_cmp);
            waits[waits.len() / 2]
        });
        println!("{of}: wait, {what}\t{wait:.1}\t\t{theirs:.1}\tms");
    }
}
