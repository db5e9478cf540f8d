//! Kinds of sessions: several families on one, GTSM, link-local neighbours, neighbours from a range, graceful restart.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use ubique_model::service::{AoAlgorithm, Dynamic, GracefulRestart, Service, TcpAo, Upstream};
use ubique_model::{AddressFamily, Asn, Relation};
use ubique_proto::site::State;
use ubique_sys::netlink::{Netlink, Route};
use ubique_sys::process::Signal;

use crate::daemons::{BGPD, BIRD, Bird, Frr};
use crate::lab::{self, Lab, PREFIX_V4, PREFIX_V6, Process, ROUTER_ASN, SERVICE_V4, SITE_V4, SITE_V6, until_true};
use crate::runner::Test;

const fn test(name: &'static str, run: fn()) -> Test {
    Test { name, needs: &[BIRD], run }
}

pub const TESTS: &[Test] = &[
    test("both_families_over_one_session", both_families),
    test("gtsm_from_both_ends", gtsm),
    test("link_local_neighbour_on_an_interface", link_local),
    test("neighbours_from_a_range_come_and_go", dynamic),
    test("an_as_of_a_range_is_read_from_its_open", dynamic_asns),
    test("tcp_ao_is_refused_where_the_kernel_lacks_it", tcp_ao),
    test("graceful_restart_of_a_killed_agent_loses_nothing", killed),
    test("graceful_restart_does_not_delay_a_health_failure", unhealthy),
    test("graceful_restart_does_not_keep_a_stopped_agent", stopped),
    test("graceful_restart_finds_a_dead_service", dead_after_restart),
    Test { name: "graceful_restart_with_frr", needs: &[BGPD], run: frr },
];

const BOTH: [AddressFamily; 2] = [AddressFamily::Ipv4Unicast, AddressFamily::Ipv6Unicast];

/// The service with this one upstream.
pub fn service_with(upstream: Upstream) -> Service {
    let mut service = lab::service();
    service.sites[0].upstreams = vec![upstream];
    service
}

/// BIRD with one protocol besides static routes; `session` is what is in its braces.
fn bird(lab: &Lab, session: &str) -> Bird {
    Bird::with(&lab.router, &format!("protocol bgp site {{\n {session}\n}}\n"))
}

/// It calls soon: by default after 5 s, again after 2 minutes, and it takes no connection for a minute after an error, such
/// as a first attempt that ends half-way.
pub const CALLS: &str = "connect delay time 1; connect retry time 1; error wait time 1, 2;";

const CHANNELS: &str = "ipv4 { import all; export none; }; ipv6 { import all; export none; };";

fn both_families() {
    let lab = Lab::new();
    let mut bird = bird(
        &lab,
        &format!("local {} as {ROUTER_ASN}; neighbor {SITE_V4} as 64500; hold time 9; {CHANNELS}", lab::ROUTER_V4),
    );
    let _agent = lab.agent(&service_with(Upstream { families: BOTH.to_vec(), ..lab::upstream(lab::ROUTER_V4) }));
    lab.wait_for_addresses();
    let mut dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    let route = bird.route(PREFIX_V6).unwrap();
    assert!(
        route.contains(&format!("BGP.next_hop: {SITE_V6}")),
        "the interface's IPv6 address is the next hop:\n{route}"
    );
    // An address that came meanwhile, in the place of the one that was there, is the next hop of the next session.
    let mut netlink = Netlink::open_in(&lab.site).unwrap();
    let index = netlink.link_index("l0").unwrap();
    netlink.add_address(index, "2001:db8:1::3/126".parse().unwrap()).unwrap();
    netlink.delete_address(index, format!("{SITE_V6}/126").parse().unwrap()).unwrap();
    bird.ask("restart site");
    until_true("announced by the new address", || {
        bird.route(PREFIX_V6).is_some_and(|route| route.contains("BGP.next_hop: 2001:db8:1::3"))
    });
    dns.kill();
    until_true("withdrawn", || bird.has_none());
}

fn gtsm() {
    let lab = Lab::new();
    let session =
        format!("local {} as {ROUTER_ASN}; neighbor {SITE_V4} as 64500; hold time 9; {CALLS}", lab::ROUTER_V4);
    // What an agent without GTSM begins never ends for BIRD, which hears nothing of it: it must give that up by itself.
    let mut bird = bird(&lab, &format!("{session} startup hold time 3; ttl security on; {CHANNELS}"));
    let hold_time = Duration::from_secs(3);
    let upstream = Upstream { families: BOTH.to_vec(), hold_time, ..lab::upstream(lab::ROUTER_V4) };
    let mut agent = lab.agent(&service_with(upstream.clone()));
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("it has been tried", || lab::try_status().is_some_and(|s| s.peers[0].last_error.is_some()));
    assert!(bird.has_none(), "a TTL of 1 does not do");
    agent.signal(Signal::Term);
    agent.wait();
    for passive in [false, true] {
        let mut agent = lab.agent(&service_with(Upstream { ttl_security: Some(1), passive, ..upstream.clone() }));
        until_true("both prefixes announced", || bird.has_both());
        agent.signal(Signal::Term);
        agent.wait();
        until_true("withdrawn", || bird.has_none());
    }
}

fn link_local() {
    let lab = Lab::new();
    for (ns, address) in [(&lab.router, "fe80::1/64"), (&lab.site, "fe80::2/64")] {
        let mut netlink = Netlink::open_in(ns).unwrap();
        let index = netlink.link_index("l0").unwrap();
        netlink.add_address(index, address.parse().unwrap()).unwrap();
    }
    let session =
        format!("local fe80::1 as {ROUTER_ASN}; neighbor fe80::2%l0 as 64500; hold time 9; {CALLS} {CHANNELS}");
    let mut bird = bird(&lab, &session);
    let interface = Some("l0".to_owned());
    let upstream = Upstream { interface, families: BOTH.to_vec(), ..lab::upstream("fe80::1") };
    for passive in [true, false] {
        let mut agent = lab.agent(&service_with(Upstream { passive, ..upstream.clone() }));
        lab.wait_for_addresses();
        let _dns = lab.dns();
        until_true("both prefixes announced", || bird.has_both());
        let route = bird.route(PREFIX_V4).unwrap();
        assert!(route.contains(&format!("BGP.next_hop: {SITE_V4}")), "{route}");
        agent.signal(Signal::Term);
        agent.wait();
        until_true("withdrawn", || bird.has_none());
    }
}

pub fn range(asns: &[u32], limit: u16) -> Dynamic {
    let range = "192.0.2.0/30".parse().unwrap();
    let address = "192.0.2.0".parse().unwrap();
    let template = Upstream { families: BOTH.to_vec(), passive: true, ..Upstream::new(Asn(asns[0]), address) };
    Dynamic { range, asns: asns.iter().copied().map(Asn).collect(), limit, template }
}

pub fn dynamic_service(range: Dynamic) -> Service {
    let mut service = lab::service();
    service.sites[0].upstreams.clear();
    service.sites[0].dynamic = vec![range];
    service
}

/// BIRD in this AS, which connects to the site; `extra`: further settings of the session.
pub fn calling(lab: &Lab, asn: u32, extra: &str) -> Bird {
    let session = format!("local {} as {asn}; neighbor {SITE_V4} as 64500; hold time 9;", lab::ROUTER_V4);
    bird(lab, &format!("{session} {CALLS} {extra} {CHANNELS}"))
}

fn dynamic() {
    let lab = Lab::new();
    let agent = lab.agent(&dynamic_service(range(&[ROUTER_ASN], 1)));
    lab.wait_for_addresses();
    let mut dns = lab.dns();
    until_true("announced", || lab::try_status().is_some_and(|s| s.state == State::Announced));
    assert!(lab::status().peers.is_empty(), "nobody has called");
    for _ in 0..2 {
        let mut bird = calling(&lab, ROUTER_ASN, "");
        until_true("both prefixes announced", || bird.has_both());
        assert_eq!(lab::status().peers.len(), 1);
        dns.kill();
        until_true("withdrawn", || bird.has_none());
        dns = lab.dns();
        until_true("announced again", || bird.has_both());
        drop(bird);
        until_true("it is forgotten", || lab::status().peers.is_empty());
    }
    assert!(agent.log().contains("neighbour called"));
}

fn dynamic_asns() {
    let lab = Lab::new();
    let _agent = lab.agent(&dynamic_service(range(&[64511, ROUTER_ASN], 4)));
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("announced", || lab::try_status().is_some_and(|s| s.state == State::Announced));
    let mut bird = calling(&lab, ROUTER_ASN, "");
    until_true("both prefixes announced", || bird.has_both());
    assert_eq!(lab::status().peers[0].asn, Asn(ROUTER_ASN));
    drop(bird);
    until_true("it is forgotten", || lab::status().peers.is_empty());
    let bird = calling(&lab, 64499, "");
    until_true("another AS is told so", || bird.log().contains("Bad peer AS"));
}

fn tcp_ao() {
    if ubique_sys::tcp::has_ao().unwrap() {
        println!("skipped: this kernel has TCP-AO");
        return;
    }
    let lab = Lab::new();
    std::fs::write("/run/key", "secret\n").unwrap();
    let ao = TcpAo { key_file: "/run/key".into(), send_id: 1, receive_id: 1, algorithm: AoAlgorithm::HmacSha1 };
    let mut agent = lab.agent(&service_with(Upstream { tcp_ao: Some(ao), ..lab::upstream(lab::ROUTER_V4) }));
    assert_ne!(agent.wait(), 0);
    assert!(agent.log().contains("TCP-AO"), "{}", agent.log());
    assert_eq!(lab.service_addresses(), 0, "refused before anything is touched");
}

/// A client behind the router asks the service while things happen.
struct Client {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: std::thread::JoinHandle<(u32, u32)>,
}

/// Interval of the client's queries.
const QUERY_EVERY: Duration = Duration::from_millis(2);

impl Client {
    /// The router forwards to the service by what BIRD says; the client is the router itself.
    fn start(lab: &Lab) -> Client {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = stop.clone();
        let socket = lab.router.run(|| UdpSocket::bind("192.0.2.1:0").unwrap()).unwrap();
        socket.connect((SERVICE_V4, 53)).unwrap();
        // Longer than a busy machine takes: what comes late was not lost.
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut sent, mut lost) = (0, 0);
            // A query for the root; the service answers anything.
            let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01";
            while !flag.load(std::sync::atomic::Ordering::Relaxed) {
                sent += 1;
                let answered = socket.send(query).is_ok() && socket.recv(&mut [0; 512]).is_ok();
                lost += u32::from(!answered);
                std::thread::sleep(QUERY_EVERY);
            }
            (sent, lost)
        });
        Client { stop, thread }
    }

    fn end(self) -> (u32, u32) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

pub fn restarting(seconds: u64) -> Upstream {
    let restart_time = Duration::from_secs(seconds);
    Upstream {
        families: BOTH.to_vec(),
        graceful_restart: Some(GracefulRestart { restart_time, long_lived: None }),
        ..lab::upstream(lab::ROUTER_V4)
    }
}

/// BIRD with one graceful session; `extra` goes into it.
pub fn aware(lab: &Lab, extra: &str) -> Bird {
    let ours = lab::ROUTER_V4;
    let session = format!(
        "local {ours} as {ROUTER_ASN}; neighbor {SITE_V4} as 64500; hold time 9; error wait time 1, 2; \
         graceful restart aware; {extra} {CHANNELS}"
    );
    let kernel = "protocol kernel kernel4 { ipv4 { export all; }; }\n";
    Bird::with(&lab.router, &format!("{kernel}protocol bgp site {{\n {session}\n}}\n"))
}

/// Agent and service run, everything is announced, the router forwards.
fn settled(lab: &Lab) -> (Bird, Process, Process) {
    let mut bird = aware(lab, "");
    let agent = lab.agent(&service_with(restarting(60)));
    lab.wait_for_addresses();
    let dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    until_true("the kernel has it", || kernel_route(lab).is_some());
    until_true("it is remembered", remembered);
    (bird, agent, dns)
}

/// The agent's successor would know what was announced.
pub fn remembered() -> bool {
    std::fs::read_to_string("/run/ubique/resolver-ams.state")
        .is_ok_and(|s| [PREFIX_V4, PREFIX_V6].iter().all(|prefix| s.contains(prefix)))
}

pub fn kernel_route(lab: &Lab) -> Option<Route> {
    let routes = Netlink::open_in(&lab.router).unwrap().routes(ubique_sys::netlink::Family::V4).unwrap();
    routes.into_iter().find(|r| r.destination == PREFIX_V4.parse().unwrap())
}

fn killed() {
    let lab = Lab::new();
    let (mut bird, mut agent, _dns) = settled(&lab);
    let client = Client::start(&lab);
    let start = Instant::now();
    agent.kill();
    until_true("BIRD keeps the routes", || is_stale(&mut bird));
    assert!(bird.has_both());
    let _agent = lab.agent(&service_with(restarting(60)));
    until_true("the session is back", || {
        lab::try_status().is_some_and(|s| s.state == State::Announced && s.peers[0].state == "established")
    });
    until_true("nothing is stale any more", || bird.has_both() && !is_stale(&mut bird));
    let (sent, lost) = client.end();
    println!("killed and back in {:?}: {sent} queries, {lost} lost", start.elapsed());
    assert!(sent > 5 && lost == 0, "{lost} of {sent} lost");
}

pub fn is_stale(bird: &mut Bird) -> bool {
    bird.ask("show protocols all site").contains("Neighbor graceful restart active")
}

fn unhealthy() {
    let lab = Lab::new();
    let (mut bird, _agent, mut dns) = settled(&lab);
    let start = Instant::now();
    dns.kill();
    until_true("withdrawn", || bird.has_none());
    println!("killed service to withdrawn with graceful restart {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(2));
}

fn stopped() {
    let lab = Lab::new();
    let (mut bird, mut agent, _dns) = settled(&lab);
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
    until_true("a hard reset: nothing is kept", || bird.has_none());
    assert!(!is_stale(&mut bird));
    assert_eq!(lab.service_addresses(), 0);
}

fn dead_after_restart() {
    let lab = Lab::new();
    let (mut bird, mut agent, mut dns) = settled(&lab);
    agent.kill();
    until_true("BIRD keeps the routes", || is_stale(&mut bird));
    dns.kill();
    let mut agent = lab.agent(&service_with(restarting(60)));
    until_true("an agent that finds nothing alive lets them go", || bird.has_none());
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
    assert_eq!(lab.service_addresses(), 0, "addresses of the killed agent are removed by its heir");
}

fn frr() {
    let lab = Lab::new();
    let mut frr = Frr::start(&lab.router);
    let mut service = lab::service();
    for upstream in &mut service.sites[0].upstreams {
        upstream.graceful_restart = restarting(60).graceful_restart;
        upstream.relation = Relation::Transit;
    }
    let mut agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("both prefixes announced", || frr.has_both());
    until_true("it is remembered", remembered);
    agent.kill();
    let mut agent = lab.agent(&service);
    until_true("the sessions are back", || {
        assert!(frr.has_both(), "FRR keeps the routes all the time");
        lab::try_status()
            .is_some_and(|s| s.state == State::Announced && s.peers.iter().all(|p| p.state == "established"))
    });
    assert!(frr.has_both());
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
    until_true("gone", || frr.has_none());
}
