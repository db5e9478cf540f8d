//! The data plane of an agent whose thread hangs, whose ways change, whose cookies somebody is in the way of, whose clock is set, and that
//! begins again and again.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use std::io::{Read, Write};

use ubique_model::service::{Sessions, TcpMethod};
use ubique_sys::netlink::Netlink;
use ubique_sys::netns::NetNs;
use ubique_sys::packet::{self, Batch, PacketSocket};
use ubique_sys::process::Signal;

use crate::clock::{Clock, FAKETIME};
use crate::lab::{self, Process, SERVICE_V4, SERVICE_V6, until, until_true};
use crate::roles::myself;
use crate::runner::Test;
use crate::survive::{
    IPV4, LINKS, Net, PORT, SECRET, SITES, bare, both_ready, decided, program_on, ready, said, service, service_file,
    sessions, set, try_status_of, until_decided,
};
use crate::two_sites::link;

const IP: &str = "/usr/sbin/ip";
const MOUNT: &str = "/usr/bin/mount";

pub const TESTS: &[Test] = &[
    Test { name: "a_thread_of_the_data_plane_that_hangs_is_told", needs: &[MOUNT], run: hangs },
    Test { name: "forwarded_packets_follow_what_the_kernel_learns_at_once", needs: &[IP], run: follows },
    Test { name: "a_socket_in_the_way_of_cookies_harms_nobody", needs: &[], run: in_the_way },
    Test { name: "connections_survive_clocks_that_are_set", needs: &[FAKETIME], run: set_clocks },
    Test { name: "a_clock_that_is_put_right_is_believed", needs: &[FAKETIME], run: wrong_from_the_start },
    Test { name: "restarts_leave_nothing_in_the_kernel", needs: &[], run: leaves_nothing },
];

const AMS: usize = 0;
const FRA: usize = 1;

/// Runs a program in a namespace to its end, which must be good.
fn run(ns: &NetNs, program: &str, arguments: &[&str]) {
    let mut process = lab::start(ns, "command", Path::new(program), arguments);
    assert_eq!(process.wait(), 0, "{program} {arguments:?}: {}", process.log());
}

fn trouble(site: usize, what: &str) -> Option<String> {
    let troubles = try_status_of(site)?.sessions?.troubles;
    troubles.into_iter().find(|trouble| trouble.what == what).map(|trouble| trouble.why)
}

fn metric(net: &Net, site: usize, name: &str) -> f64 {
    let page = net.sites[site].run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9430").unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    });
    let page = page.unwrap();
    let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in\n{page}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// What the thread reads every second becomes a pipe that nobody writes to.
fn hangs() {
    const PIPE: &str = "/run/pipe";
    const SETTING: &str = "/proc/sys/net/ipv4/tcp_timestamps";
    let Some(net) = Net::new() else { return };
    let mut service = service(IPV4);
    // Only with timestamps is it looked at again and again.
    service.sessions = Some(Sessions { tcp: TcpMethod::Timestamp, ..sessions() });
    let agents = [AMS, FRA].map(|site| net.agent(&service, site));
    net.serve();
    both_ready();
    let mut here = net.connect(SERVICE_V4);
    assert_eq!(said(&mut here, 1).unwrap(), AMS);
    net.route_to(FRA);
    let mut there = net.connect(SERVICE_V4);
    assert_eq!(said(&mut there, 1).unwrap(), FRA);

    run(&net.sites[AMS], "/usr/bin/mkfifo", &[PIPE]);
    run(&net.sites[AMS], MOUNT, &["--bind", PIPE, SETTING]);
    let (why, took) = until("it is told", || trouble(AMS, "thread"));
    println!("told after {took:?}: {why}");
    assert!(why.contains("has not moved for 1") && why.contains("restart the agent"), "{why}");
    assert!(
        agents[AMS].log().contains("sessions: trouble, the service goes on what=\"thread\""),
        "{}",
        agents[AMS].log()
    );
    assert!(metric(&net, AMS, "ubique_sessions_silent_seconds") >= 10.0);
    assert!(metric(&net, AMS, "ubique_sessions_troubles") >= 1.0);
    // Its programs forward, and take what others forward.
    for octet in 2..5 {
        for site in [AMS, FRA] {
            net.route_to(site);
            assert_eq!((said(&mut here, octet).unwrap(), said(&mut there, octet).unwrap()), (AMS, FRA));
        }
    }
    assert_eq!(said(&mut net.connect(SERVICE_V4), 9).unwrap(), FRA, "new ones are served");

    run(&net.sites[AMS], "/usr/bin/umount", &["-l", SETTING]);
    fs::write(PIPE, "2\n").unwrap();
    until_true("it moves again", || trouble(AMS, "thread").is_none());
    assert!(metric(&net, AMS, "ubique_sessions_silent_seconds") < 5.0);
    assert_eq!(ready(AMS).tcp, "timestamp");
    assert!(agents[AMS].log().contains("sessions: solved what=\"thread\""), "the same agent");
}

/// Where a forwarded frame shows.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// At the router, with its hardware address.
    Router([u8; 6]),
    /// At its owner, bare, from the link between the sites.
    Direct,
}

impl Way {
    fn is(self, frame: &[u8]) -> bool {
        // IPv4 without options; 8474 is the port between sites, and questions whether a site is there are shorter.
        let (protocol, to) = (frame.get(23), frame.get(36..38));
        match self {
            Way::Router(mac) => {
                frame[..6] == mac && protocol == Some(&17) && to == Some(&8474_u16.to_be_bytes()) && frame.len() > 90
            }
            Way::Direct => protocol == Some(&6) && to == Some(&PORT.to_be_bytes()),
        }
    }
}

/// Octets on many connections, one a millisecond, until it is dropped.
struct Sending {
    quit: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sending {
    fn begin(net: &Net) -> Sending {
        const CONNECTIONS: usize = 50;
        let mut streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| net.connect(SERVICE_V4)).collect();
        for stream in &mut streams {
            assert_eq!(said(stream, 1).unwrap(), AMS);
        }
        let quit = Arc::new(AtomicBool::new(false));
        let own = quit.clone();
        let run = move || {
            for at in (0..CONNECTIONS).cycle() {
                if own.load(Ordering::Relaxed) {
                    return;
                }
                streams[at].write_all(&[7]).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        Sending { quit, thread: Some(std::thread::spawn(run)) }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.quit.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(std::thread::panicking() || !matches!(ended, Some(Err(_))), "a connection is lost");
    }
}

/// From `change` on, until a forwarded frame takes this way.
fn follow(socket: &PacketSocket, way: Way, change: impl FnOnce()) -> Duration {
    let mut batch = Batch::new(64, 2048);
    // What came this way before.
    while socket.recv_batch(&mut batch, |_| {}).is_ok() {}
    let start = Instant::now();
    change();
    loop {
        let mut seen = false;
        let _ = socket.recv_batch(&mut batch, |frame| seen |= way.is(frame));
        if seen {
            return start.elapsed();
        }
        assert!(start.elapsed() < lab::PATIENCE, "no frame by {way:?}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A change takes effect within this, in the median: until the next look it would be half a second.
const AT_ONCE: Duration = Duration::from_millis(50);
const ROUNDS: usize = 7;

fn judge(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let median = took[took.len() / 2];
    println!("{what}: median {median:?}, longest {:?} of {}", took[took.len() - 1], took.len());
    assert!(median < AT_ONCE, "{what}: {took:?}");
}

fn follows() {
    let Some(net) = Net::new() else { return };
    // Another way between the sites.
    link("d0", (&net.sites[AMS], "192.0.2.13/30"), (&net.sites[FRA], "192.0.2.14/30"));
    for ns in &net.sites {
        set(ns, &[("net/ipv4/conf/all/rp_filter", "0"), ("net/ipv4/conf/default/rp_filter", "0")]);
        ns.run(|| packet::disable_offloads("d0")).unwrap().unwrap();
    }
    set(&net.router, &[("net/ipv4/conf/b0/arp_notify", "1")]);
    let mut service = service(IPV4);
    let interfaces = ["a0", "b0", "d0"].map(str::to_owned).to_vec();
    service.sessions = Some(Sessions { interfaces, ..sessions() });
    let _agents = [AMS, FRA].map(|site| net.agent(&service, site));
    net.serve();
    both_ready();
    let _sending = Sending::begin(&net);
    net.route_to(FRA);
    until_decided(FRA, "forward_timestamp");

    let router = PacketSocket::open_in(&net.router, "b0").unwrap();
    let direct = PacketSocket::open_in(&net.sites[AMS], "d0").unwrap();
    let index = |ns: &NetNs, name: &str| Netlink::open_in(ns).unwrap().link_index(name).unwrap();
    // The router's hardware address is another, as when its twin takes over, and it says so.
    let mac = |last: usize| [2, 0, 0, 0, 1, last as u8];
    let words = |mac: [u8; 6]| mac.map(|octet| format!("{octet:02x}")).join(":");
    let changed = |round| {
        let is_now = mac(round);
        let change = || run(&net.router, IP, &["link", "set", "b0", "address", &words(is_now)]);
        follow(&router, Way::Router(is_now), change)
    };
    judge("the router's address", (0..ROUNDS).map(changed).collect());

    // A better route by another interface, whose neighbour nobody knows yet; then that is down, and the route with it.
    let via = lab::route(&format!("{}/32", bare(LINKS[AMS][1])), "192.0.2.13");
    let d0 = index(&net.sites[FRA], "d0");
    let (mut there, mut back) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        let mut netlink = Netlink::open_in(&net.sites[FRA]).unwrap();
        there.push(follow(&direct, Way::Direct, || netlink.replace_route(&via).unwrap()));
        back.push(follow(&router, Way::Router(mac(ROUNDS - 1)), || netlink.set_down(d0).unwrap()));
        netlink.set_up(d0).unwrap();
        let links = || Netlink::open_in(&net.sites[AMS]).unwrap().links().unwrap();
        until_true("the link is there again", || links().iter().any(|link| link.name == "d0" && link.up));
    }
    judge("a route by another interface", there);
    judge("an interface that goes down", back);
}

/// A socket that is in the way of cookies is there already, comes, and goes.
fn in_the_way() {
    let Some(net) = Net::new() else { return };
    let mut service = service(IPV4);
    service.sessions = Some(Sessions { tcp: TcpMethod::Cookie, ..sessions() });
    let _agents = [AMS, FRA].map(|site| net.agent(&service, site));
    net.serve();
    both_ready();
    assert_eq!(said(&mut net.connect(SERVICE_V4), 1).unwrap(), AMS);
    assert_eq!(trouble(AMS, "cookies"), None);
    // Hears all protocols, as tcpdump does.
    let harmless = PacketSocket::open_in(&net.sites[AMS], "a0").unwrap();
    assert_eq!(said(&mut net.connect(SERVICE_V4), 2).unwrap(), AMS);
    drop(harmless);
    let socket = || {
        let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::DGRAM, Some(0x0008.into()));
        socket.unwrap()
    };
    let harmful = net.sites[AMS].run(socket).unwrap();
    let why = until("it is told", || trouble(AMS, "cookies")).0;
    assert!(why.contains("a packet socket bound to IP is open (user 0"), "{why}");
    // The kernel answers them, and they survive by asking for their owner.
    let mut stream = net.connect(SERVICE_V4);
    assert_eq!(said(&mut stream, 3).unwrap(), AMS);
    until_decided(AMS, "syn_kernel");
    net.route_to(FRA);
    assert_eq!(said(&mut stream, 4).unwrap(), AMS);
    net.route_to(AMS);
    drop(harmful);
    until_true("nothing is in the way", || trouble(AMS, "cookies").is_none());
    let before = decided(AMS, "cookie_accepted");
    assert_eq!(said(&mut net.connect(SERVICE_V4), 5).unwrap(), AMS);
    until_true("cookies again", || decided(AMS, "cookie_accepted") > before);
}

/// How often an agent begins again, with timestamps and with cookies.
const RESTARTS: usize = 25;

fn leaves_nothing() {
    let Some(net) = Net::new() else { return };
    for tcp in [TcpMethod::Timestamp, TcpMethod::Cookie] {
        // Nobody else's programs on this machine have these keys.
        fs::write(SECRET, format!("{:064}", ubique_sys::clock::realtime_ns())).unwrap();
        let mut service = service(IPV4);
        service.sessions = Some(Sessions { tcp, ..sessions() });
        // Both, so that the other one is known at once.
        let mut agents = [AMS, FRA].map(|site| net.agent(&service, site));
        let first = both_ready()[AMS].clock_base_ms;
        let plane = ubique_edge::Former::of(program_on(&net, AMS)).unwrap();
        let before = plane.loaded();
        for restart in 1..=RESTARTS {
            if restart % 2 == 0 {
                agents[AMS].signal(Signal::Term);
                assert_eq!(agents[AMS].wait(), 0);
            } else {
                agents[AMS].kill();
            }
            agents[AMS] = net.agent(&service, AMS);
            let now = ready(AMS);
            assert_eq!((now.adopted, now.clock_base_ms), (true, first));
            // The kernel frees what nobody holds any more a moment later.
            until_true("nothing of its predecessor is left", || plane.loaded() == before);
        }
        println!("{tcp:?}: {before:?} programs and maps, before and after {RESTARTS} restarts");
        for (site, agent) in agents.iter_mut().enumerate() {
            agent.kill();
            net.sites[site].run(ubique_node::sessions::off).unwrap().unwrap();
        }
        until_true("taken off, nothing is left at all", || plane.loaded() == (0, 0));
    }
}

/// How far the clock of the other site is ahead of this one's, s.
fn ahead_s(site: usize) -> Option<i64> {
    let seen = try_status_of(site)?.sessions?.sites.first()?.clock_ahead_ms?;
    Some((seen + 500 * seen.signum()) / 1000)
}

/// Its agent goes by this clock.
fn agent_by(net: &Net, site: usize, clock: &Clock) -> Process {
    let mut service = service(IPV4);
    service.sessions = Some(Sessions { tcp: TcpMethod::Timestamp, ..sessions() });
    let file = service_file(&service, site);
    let arguments = ["role", "agent", &file, SITES[site]];
    lab::start_in(&net.sites[site], "agent", &myself(), &arguments, &clock.variables())
}

/// Connections to one site, and one more each time that all of them are tried: from both sites.
struct Tried<'n> {
    net: &'n Net,
    home: usize,
    streams: Vec<TcpStream>,
}

impl Tried<'_> {
    fn go_on(&mut self, when: &str) {
        self.net.route_to(self.home);
        self.streams.push(self.net.connect(SERVICE_V4));
        self.streams.push(self.net.connect(&format!("[{SERVICE_V6}]")));
        for site in [AMS, FRA] {
            self.net.route_to(site);
            for (number, stream) in self.streams.iter_mut().enumerate() {
                let at = SITES[site];
                let site = said(stream, 7).unwrap_or_else(|error| panic!("{when}: {number} at {at}: {error}"));
                assert_eq!(site, self.home, "{when}");
            }
        }
    }
}

/// Of steps up to the slack nobody notices anything; of longer ones the agent tells, and goes by the clock as it was.
fn set_clocks() {
    let Some(net) = Net::new() else { return };
    let clocks = SITES.map(Clock::new);
    let mut agents = [AMS, FRA].map(|site| agent_by(&net, site, &clocks[site]));
    net.serve();
    both_ready();
    let mut tried = Tried { net: &net, home: AMS, streams: vec![] };
    tried.go_on("clocks that agree");
    for (site, other) in [(AMS, FRA), (FRA, AMS)] {
        for by in [200, 0, -200, 0] {
            clocks[site].set_by(by);
            until_true("the other site sees it", || ahead_s(other) == Some(by));
            tried.go_on(&format!("{} set by {by:+} s", SITES[site]));
            assert_eq!((trouble(AMS, "clock"), trouble(FRA, "clock")), (None, None));
        }
    }
    for site in [AMS, FRA] {
        for by in [3600, -86_400] {
            clocks[site].set_by(by);
            let told = format!("set by {by:+} s, more than other sites believe");
            until_true("the alarm", || trouble(site, "clock").is_some_and(|why| why.contains(&told)));
            tried.go_on(&format!("{} set by {by:+} s", SITES[site]));
            // Its successor starts by that clock.
            agents[site].kill();
            agents[site] = agent_by(&net, site, &clocks[site]);
            both_ready();
            until_true("the successor's alarm", || trouble(site, "clock").is_some_and(|why| why.contains(&told)));
            tried.go_on("the same with its next agent");
            assert_eq!(
                [AMS, FRA].map(|site| try_status_of(site).unwrap().sessions.unwrap().sites[0].up),
                [Some(true); 2]
            );
            clocks[site].set_by(0);
            until_true("over", || trouble(site, "clock").is_none());
        }
    }
    assert_eq!([AMS, FRA].map(|site| decided(site, "forward_probe")), [0, 0], "timestamps said it every time");
}

/// A site that begins by a wrong clock is nobody's neighbour until it is put right; then others ask it for what began before.
fn wrong_from_the_start() {
    let Some(net) = Net::new() else { return };
    let clocks = SITES.map(Clock::new);
    clocks[FRA].set_by(-7200);
    let _agents = [AMS, FRA].map(|site| agent_by(&net, site, &clocks[site]));
    net.serve();
    let is_up = |site| try_status_of(site)?.sessions?.sites.first()?.up;
    until_true("neither believes the other", || is_up(AMS) == Some(false) && is_up(FRA) == Some(false));
    net.route_to(FRA);
    let mut early = net.connect(SERVICE_V4);
    assert_eq!(said(&mut early, 1).unwrap(), FRA);
    clocks[FRA].set_by(0);
    both_ready();
    until_true("its timestamps say another time", || {
        trouble(FRA, "clock").is_some_and(|why| why.contains("set by +7200 s since the data plane began"))
    });
    let mut tried = Tried { net: &net, home: FRA, streams: vec![early] };
    tried.go_on("put right");
    until_decided(AMS, "forward_probe");
}
