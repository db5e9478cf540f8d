//! The data plane of the sites.

use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rustix::time::ClockId;
use ubique_edge::{Config, Counters, Edge, Error, Keys, Mode, NextHop, Peer, Tier};
use ubique_proto::sessions::{Key, Site};

use crate::net::{End, Family, Net, SITES, in_namespace};
use crate::{quic, runner};

/// Of what sites send to each other.
pub const PORT: u16 = 6081;

/// A choice for all sites.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub tier: Tier,
    /// What carries packets between sites.
    pub between: Family,
    /// They do so over their second uplinks.
    pub mesh: bool,
    /// `None`: what the loader takes by itself.
    pub mode: Option<Mode>,
    /// Replies return through the site that got the client's packet.
    pub reply_through: bool,
    /// How far the clock of each site is ahead.
    pub clock_ahead_s: [i64; SITES],
    /// The wall clock at 0 of the monotonic clock, where nothing is ahead.
    pub wall_base_ms: u64,
}

impl Setup {
    pub fn new(tier: Tier, between: Family) -> Setup {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let monotonic = rustix::time::clock_gettime(ClockId::Monotonic);
        let monotonic = Duration::new(monotonic.tv_sec as u64, monotonic.tv_nsec as u32);
        let wall_base_ms = (wall - monotonic).as_millis() as u64;
        Setup { tier, between, mesh: false, mode: None, reply_through: false, clock_ahead_s: [0; SITES], wall_base_ms }
    }

    fn wall_base_ms(&self, ahead_s: i64) -> u64 {
        self.wall_base_ms.saturating_add_signed(ahead_s * 1000)
    }

    /// The link over which a site sends to others.
    fn link(&self, number: usize) -> End {
        if self.mesh { End::Mesh(number) } else { End::Site(number) }
    }
}

/// Why scenarios with the data plane are skipped. Panics where the programs should load and do not.
pub fn absent() -> Option<String> {
    const SKIPPED: i32 = 77;
    let sandbox = runner::in_sandbox(|| {
        let setup = Setup::new(Tier::Timestamps, Family::V4);
        match Edge::load(&config(setup, 0)).map(drop) {
            Ok(()) => {}
            Err(error @ (Error::Unavailable(_) | Error::NotPermitted)) => {
                eprintln!("{error}");
                std::process::exit(SKIPPED);
            }
            Err(error) => panic!("{error}"),
        }
    });
    match sandbox.map(|sandbox| sandbox.wait().unwrap()) {
        Some(0) => None,
        Some(SKIPPED) | None => Some("no data plane, see above".into()),
        Some(code) => panic!("the data plane does not load (exit code {code})"),
    }
}

type Task = Box<dyn FnOnce(&mut Edge) + Send>;

/// The data plane of one site, until it is dropped. It lives on a thread in the site's namespace.
pub struct Plane {
    tasks: Option<mpsc::Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    peers: Vec<(Site, Peer)>,
    setup: Setup,
}

impl Plane {
    /// On the uplinks of site `number`, once it knows all others.
    pub fn start(net: &Net, number: usize, setup: Setup) -> Plane {
        let ns = net.sites[number].try_clone().unwrap();
        let interfaces = [End::Site(number), End::Mesh(number)].map(|end| net.hardware(end).index);
        let (tasks, todo) = mpsc::channel::<Task>();
        let peers = peers(net, number, setup);
        let known = peers.clone();
        let run = move || {
            ns.enter().unwrap();
            let mut edge = Edge::load(&config(setup, number)).unwrap_or_else(|error| panic!("{error}"));
            known.iter().for_each(|(site, peer)| edge.set_peer(*site, Some(peer)).unwrap());
            for interface in interfaces {
                let attachment = edge.attach(interface, setup.mode).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(attachment.mode(), setup.mode.unwrap_or(Mode::Native));
            }
            for task in todo {
                task(&mut edge);
            }
        };
        let thread = std::thread::Builder::new().name(format!("plane{number}")).spawn(run).unwrap();
        Plane { tasks: Some(tasks), thread: Some(thread), peers, setup }
    }

    /// Another one in its place, as after an upgrade.
    pub fn restart(&mut self, net: &Net, number: usize) {
        let new = Plane::start(net, number, self.setup);
        new.ready();
        *self = new;
    }

    /// Waits until it is attached.
    pub fn ready(&self) {
        self.with(|_| ());
    }

    /// Runs `f` on the thread of the site.
    pub fn with<T: Send + 'static>(&self, f: impl FnOnce(&mut Edge) -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let task: Task = Box::new(move |edge| done.send(f(edge)).unwrap());
        self.tasks.as_ref().unwrap().send(task).expect("the data plane runs");
        result.recv().expect("the data plane did it")
    }

    pub fn counters(&self) -> Counters {
        self.with(|edge| edge.counters().unwrap())
    }

    /// Tells the site that another one does not answer.
    pub fn mark_down(&self, number: usize) {
        let (site, peer) = *self.peers.iter().find(|(site, _)| *site == site_of(number)).unwrap();
        self.with(move |edge| edge.set_peer(site, Some(&Peer { up: false, ..peer })).unwrap());
    }

    /// The clock of the site was set: now it is so far ahead of the others.
    pub fn set_clock(&self, ahead_s: i64) {
        let base_ms = self.setup.wall_base_ms(ahead_s);
        self.with(move |edge| edge.set_wall_base(base_ms).unwrap());
    }

    pub fn drain_to(&self, number: Option<usize>) {
        self.with(move |edge| edge.drain_to(number.map(site_of)).unwrap());
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        drop(self.tasks.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || !matches!(ended, Some(Err(_))), "the data plane of a site failed");
    }
}

fn site_of(number: usize) -> Site {
    Site::new(number as u8).unwrap()
}

fn config(setup: Setup, number: usize) -> Config {
    let link = setup.link(number);
    Config {
        site: site_of(number),
        keys: Keys { flow: Key([1, 2]), shim: Key([3, 4]), cookie: Key([5, 6]), ids: vec![quic::ID_KEY] },
        prefixes: Family::BOTH.map(Family::service_prefix).to_vec(),
        unicast: Family::BOTH.map(|family| link.address(family, 2).addr()).to_vec(),
        port: PORT,
        mtu: 1500,
        tier: setup.tier,
        tcp_ports: Vec::new(),
        quic_ports: vec![quic::PORT],
        clock_base_ms: setup.wall_base_ms(setup.clock_ahead_s[number]),
        budget_per_s: 10_000_000,
        probes_per_s: 10_000_000,
        reply_through: setup.reply_through,
    }
}

fn peers(net: &Net, number: usize, setup: Setup) -> Vec<(Site, Peer)> {
    let hardware = net.hardware(setup.link(number));
    let address = |number: usize| setup.link(number).address(setup.between, 2).addr();
    let next_hop = NextHop {
        interface: hardware.index,
        source_mac: hardware.mac,
        destination_mac: hardware.router_mac,
        source: address(number),
    };
    let peer = |other| Peer { address: address(other), up: true, next_hop: Some(next_hop) };
    (0..SITES).filter(|other| *other != number).map(|other| (site_of(other), peer(other))).collect()
}

/// XDP programs that let everything pass, on all ends of links but the sites' own. Without one at the other end, a veth loses what XDP
/// sends back to it; and with one, packets of a connection do not overtake each other when the kernel moves to another processor.
pub fn let_pass(net: &Net) -> Vec<OwnedFd> {
    let pass = |interface: &str| ubique_sys::xdp::let_pass(interface).unwrap();
    let mut passes = Vec::new();
    for end in End::all() {
        let name = end.name();
        passes.push(in_namespace(&net.router, || pass(&name)));
        if let Some(wire) = &net.wire {
            passes.extend(in_namespace(wire, || ["a", "b"].map(|side| pass(&format!("{name}{side}")))));
        }
        if matches!(end, End::Client(_)) {
            passes.push(in_namespace(net.end(end), || pass(end.interface())));
        }
    }
    passes
}
