//! `[sessions]`: connections survive a route change between two agents, and what happens to their agents.
//!
//! Two sites and clients behind a router whose static routes say where the clients' packets go. Each site serves TCP, in this process,
//! so that an agent may be killed and the service not.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use ubique_edge::{Config, Edge, Error, Keys, Tier};
use ubique_model::service::{ReturnPath, Service, Sessions, Site, TcpMethod, Unicast};
use ubique_node::admin::{self, DrainRequest, Reply, Request, SessionsStatus, Status};
use ubique_proto::sessions::Key;
use ubique_sys::mptcp::PathManager;
use ubique_sys::netlink::Netlink;
use ubique_sys::netns::NetNs;
use ubique_sys::packet;
use ubique_sys::process::Signal;
use ubique_sys::sockdiag;

use crate::confine;
use crate::daemons::{BIRD, Bird};
use crate::lab::{self, Lab, PREFIX_V4, PREFIX_V6, Process, SERVICE_V4, SERVICE_V6, status, until, until_true};
use crate::roles::myself;
use crate::runner::Test;
use crate::two_sites::{link, namespace};

const fn test(name: &'static str, needs: &'static [&'static str], run: fn()) -> Test {
    Test { name, needs, run }
}

pub const TESTS: &[Test] = &[
    test("a_connection_survives_flips_and_its_agents", &[], survives),
    test("a_connection_survives_with_cookies", &[], survives_with_cookies),
    test("a_connection_survives_a_flip_over_ipv6", &[], survives_v6),
    test("the_owner_of_a_connection_without_timestamps_says_so", &[], says_so),
    test("without_sessions_a_connection_does_not_survive_a_flip", &[], control),
    test("connections_of_a_site_that_is_gone_are_reset_at_once", &[], gone),
    test("a_data_plane_goes_with_its_sessions", &[], taken_off),
    test("mptcp_clients_move_to_the_site_itself", &[IP], mptcp),
    test("a_drained_site_hands_new_connections_over", &[], hands_over),
    test("sessions_as_the_unit_starts_them_and_again", &[BIRD, "/usr/bin/setpriv"], as_the_unit),
    test("sessions_that_cannot_be_leave_the_service_alone", &[BIRD], bad_environments),
];

const IP: &str = "/sbin/ip";
pub const SECRET: &str = "/run/secret";
pub const SITES: [&str; 2] = ["ams", "fra"];
/// Of the router, and of each site, then of the clients.
pub const LINKS: [[&str; 4]; 3] = [
    ["192.0.2.1/30", "192.0.2.2/30", "2001:db8:1::1/64", "2001:db8:1::2/64"],
    ["192.0.2.5/30", "192.0.2.6/30", "2001:db8:2::1/64", "2001:db8:2::2/64"],
    ["192.0.2.9/30", "192.0.2.10/30", "2001:db8:3::1/64", "2001:db8:3::2/64"],
];
pub const PORT: u16 = 7000;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// How long an answer may take: less than a connection hangs that lost its packets for good.
const ANSWER: Duration = Duration::from_secs(10);

pub fn bare(address: &str) -> &str {
    address.split('/').next().unwrap()
}

pub fn set(ns: &NetNs, values: &[(&str, &str)]) {
    ns.run(|| values.iter().for_each(|(name, value)| fs::write(format!("/proc/sys/{name}"), value).unwrap())).unwrap();
}

/// A data plane to take the program from that lets everything pass. `None`: there is none here, and said so.
pub fn any_edge() -> Option<Edge> {
    let key = Key([1, 2]);
    let config = Config {
        site: ubique_proto::sessions::Site::new(1).unwrap(),
        keys: Keys { flow: key, shim: key, cookie: key, ids: vec![] },
        prefixes: vec![],
        unicast: vec![],
        port: 8474,
        mtu: 1500,
        tier: Tier::Off,
        tcp_ports: vec![],
        quic_ports: vec![],
        clock_base_ms: 0,
        budget_per_s: 1,
        probes_per_s: 1,
        reply_through: false,
    };
    match Edge::load(&config) {
        Err(error @ (Error::Unavailable(_) | Error::NotPermitted)) => {
            eprintln!("skipped: {error}");
            None
        }
        edge => Some(edge.unwrap()),
    }
}

/// Two sites, clients, and the router between them.
pub struct Net {
    pub sites: [NetNs; 2],
    pub clients: NetNs,
    pub router: NetNs,
}

impl Net {
    /// `None`: no data plane here.
    pub fn new() -> Option<Net> {
        let pass = any_edge()?;
        let net = Net { sites: SITES.map(namespace), clients: namespace("clients"), router: namespace("router") };
        let ends = [&net.sites[0], &net.sites[1], &net.clients];
        for ns in ends.into_iter().chain([&net.router]) {
            // Who asks for a neighbour waits for a second while his link-local address may be somebody else's.
            set(ns, &[("net/ipv6/conf/default/accept_dad", "0")]);
        }
        for (name, (ns, [near4, far4, near6, far6])) in ["a0", "b0", "c0"].into_iter().zip(ends.into_iter().zip(LINKS))
        {
            link(name, (&net.router, near4), (ns, far4));
            for (ns, address) in [(&net.router, near6), (ns, far6)] {
                let mut netlink = Netlink::open_in(ns).unwrap();
                let index = netlink.link_index(name).unwrap();
                netlink.add_address(index, address.parse().unwrap()).unwrap();
                // Forwarded frames have whole checksums and are no longer than the wire takes.
                ns.run(|| packet::disable_offloads(name)).unwrap().unwrap();
            }
            // Without it this end loses what the programs at the other send back.
            let index = Netlink::open_in(&net.router).unwrap().link_index(name).unwrap();
            net.router.run(|| pass.attach_pass(index)).unwrap().unwrap();
            let mut netlink = Netlink::open_in(ns).unwrap();
            let lo = netlink.link_index("lo").unwrap();
            netlink.set_up(lo).unwrap();
            for (all, gateway) in [("0.0.0.0/0", near4), ("::/0", near6)] {
                netlink.replace_route(&lab::route(all, bare(gateway))).unwrap();
            }
        }
        set(&net.router, &[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")]);
        for site in &net.sites {
            set(site, &[("net/ipv4/tcp_timestamps", "2")]);
        }
        fs::write(SECRET, "0123456789abcdef".repeat(4)).unwrap();
        fs::set_permissions(SECRET, Permissions::from_mode(0o600)).unwrap();
        net.route_to(0);
        Some(net)
    }

    /// What the clients send goes to this site from now on.
    pub fn route_to(&self, site: usize) {
        let mut netlink = Netlink::open_in(&self.router).unwrap();
        netlink.replace_route(&lab::route(PREFIX_V4, bare(LINKS[site][1]))).unwrap();
        netlink.replace_route(&lab::route(PREFIX_V6, bare(LINKS[site][3]))).unwrap();
    }

    /// What the clients send goes where somebody else says.
    pub fn route_by_another(&self) {
        let mut netlink = Netlink::open_in(&self.router).unwrap();
        for (prefix, gateway) in [(PREFIX_V4, LINKS[0][1]), (PREFIX_V6, LINKS[0][3])] {
            assert!(netlink.delete_route(&lab::route(prefix, bare(gateway))).unwrap());
        }
    }

    pub fn agent(&self, service: &Service, site: usize) -> Process {
        let file = service_file(service, site);
        lab::start(&self.sites[site], "agent", &myself(), &["role", "agent", &file, SITES[site]])
    }

    /// At both sites, answers every octet with what it is sent and the number of the site, until the test ends.
    pub fn serve(&self) {
        for (site, any) in [(0, "0.0.0.0"), (0, "::"), (1, "0.0.0.0"), (1, "::")] {
            let listen = || {
                let address: SocketAddr = (any.parse::<IpAddr>().unwrap(), PORT).into();
                let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
                if address.is_ipv6() {
                    socket.set_only_v6(true)?;
                }
                socket.bind(&address.into())?;
                socket.listen(BACKLOG)?;
                Ok::<_, std::io::Error>(TcpListener::from(socket))
            };
            let listener = self.sites[usize::from(site)].run(listen).unwrap().unwrap();
            std::thread::spawn(move || serve(&listener, site));
        }
    }

    pub fn connect(&self, address: &str) -> TcpStream {
        let address = format!("{address}:{PORT}").parse().unwrap();
        let stream = self.clients.run(|| TcpStream::connect_timeout(&address, ANSWER)).unwrap().unwrap();
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

fn serve(listener: &TcpListener, site: u8) {
    for stream in listener.incoming().map(Result::unwrap) {
        std::thread::spawn(move || answer(stream, site));
    }
}

fn answer(mut stream: TcpStream, site: u8) {
    let mut octet = [0];
    while stream.read_exact(&mut octet).is_ok() {
        if stream.write_all(&[octet[0], site]).is_err() {
            return;
        }
    }
}

/// Sends an octet and waits for it; the site that answered.
pub fn said(stream: &mut TcpStream, octet: u8) -> std::io::Result<usize> {
    stream.write_all(&[octet])?;
    let mut reply = [0; 2];
    stream.read_exact(&mut reply)?;
    assert_eq!(reply[0], octet);
    Ok(reply[1].into())
}

pub fn sessions() -> Sessions {
    Sessions {
        secret_file: SECRET.into(),
        tcp: TcpMethod::Auto,
        tcp_ports: vec![],
        quic_ports: vec![],
        port: 8474,
        budget_per_s: 1_000_000,
        return_path: ReturnPath::Direct,
        mtu_bytes: 1500,
        mptcp: false,
        interfaces: vec![],
    }
}

/// Where the agent of a site finds its service.
pub fn service_file(service: &Service, site: usize) -> String {
    let file = format!("/run/service-{}.json", SITES[site]);
    fs::write(&file, serde_json::to_vec(service).unwrap()).unwrap();
    file
}

/// Both sites; `family`: of the addresses between them, in [`LINKS`].
pub fn service(family: usize) -> Service {
    let mut service = lab::service();
    let template = service.sites.pop().unwrap();
    service.sites = SITES
        .iter()
        .zip(LINKS)
        .zip(0..)
        .map(|((name, link), number)| Site {
            name: (*name).into(),
            number,
            unicast: Unicast::of([bare(link[family]).parse().unwrap()]),
            upstreams: vec![lab::upstream(bare(link[0]))],
            ..template.clone()
        })
        .collect();
    service.agent.state = "/run/state/{service}-{site}.state".into();
    service.sessions = Some(sessions());
    service
}

pub const IPV4: usize = 1;
const IPV6: usize = 3;

pub fn try_status_of(site: usize) -> Option<Status> {
    match admin::request(Path::new(&format!("/run/ubique/resolver-{}.sock", SITES[site])), &Request::Status) {
        Ok(Reply::Status(status)) => Some(*status),
        _ => None,
    }
}

/// The data plane of a site once it is attached and knows that the other site is up.
pub fn ready(site: usize) -> SessionsStatus {
    let is_ready = |s: &SessionsStatus| s.state == "native" && s.sites.iter().all(|other| other.up == Some(true));
    let what = format!("the data plane of {} is at work", SITES[site]);
    until(&what, || try_status_of(site)?.sessions.filter(|sessions| is_ready(sessions)).map(|s| *s)).0
}

pub fn both_ready() -> [SessionsStatus; 2] {
    [ready(0), ready(1)]
}

pub fn decided(site: usize, what: &str) -> u64 {
    let status = try_status_of(site).unwrap().sessions.unwrap();
    status.decisions.get(what).copied().unwrap_or_default()
}

pub fn until_decided(site: usize, what: &str) {
    until_true(&format!("{what} at {}", SITES[site]), || decided(site, what) > 0);
}

fn survives() {
    survives_as(TcpMethod::Timestamp);
}

/// SYNs are answered by cookies of the data plane, which the kernel adopts: where kernel and drivers can, that is what `auto` means.
fn survives_with_cookies() {
    survives_as(TcpMethod::Auto);
}

fn survives_as(tcp: TcpMethod) {
    let Some(net) = Net::new() else { return };
    let mut service = service(IPV4);
    service.sessions = Some(Sessions { tcp, ..sessions() });
    let word = if tcp == TcpMethod::Auto { "cookie" } else { "timestamp" };
    let mut agents = [0, 1].map(|site| net.agent(&service, site));
    net.serve();
    let first = both_ready();
    assert_eq!((first[0].tcp.as_str(), first[0].adopted, &first[0].troubles[..]), (word, false, &[][..]));
    let mut streams = [SERVICE_V4, &format!("[{SERVICE_V6}]")].map(|address| net.connect(address));
    let mut octet = 0;
    let mut answered = |when: &str| {
        for stream in &mut streams {
            octet += 1;
            let began = Instant::now();
            assert_eq!(said(stream, octet).unwrap_or_else(|error| panic!("{when}: {error}")), 0, "{when}");
            println!("{when}: {:?}", began.elapsed());
        }
    };
    answered("before the flip");
    net.route_to(1);
    answered("after the flip");
    until_decided(1, "forward_timestamp");
    until_decided(0, "shim_data");
    // Whoever's agent dies, and whichever way: its programs stay.
    for site in [0, 1] {
        agents[site].kill();
        answered("without an agent");
        agents[site] = net.agent(&service, site);
        answered("with the next one");
        let now = ready(site);
        assert_eq!((now.adopted, now.clock_base_ms), (true, first[site].clock_base_ms), "goes on where it was");
        answered("in its place");
        agents[site].signal(Signal::Term);
        assert_eq!(agents[site].wait(), 0);
        answered("after SIGTERM, without an agent");
        agents[site] = net.agent(&service, site);
        answered("after SIGTERM");
        let now = ready(site);
        assert_eq!((now.adopted, now.clock_base_ms), (true, first[site].clock_base_ms), "goes on where it was");
        answered("in its place again");
    }
    // Another program in the same process.
    fs::write(lab::FILE, service.to_toml()).unwrap();
    let before = program_on(&net, 1);
    agents[1].signal(Signal::Usr2);
    until_true("the next program took over", || program_on(&net, 1) != before);
    answered("after an upgrade in place");
    assert_eq!(ready(1).clock_base_ms, first[1].clock_base_ms);
    net.route_to(0);
    answered("back again");
}

fn survives_v6() {
    let Some(net) = Net::new() else { return };
    let mut service = service(IPV6);
    service.sessions = Some(Sessions { tcp: TcpMethod::Timestamp, ..sessions() });
    let _agents = [0, 1].map(|site| net.agent(&service, site));
    net.serve();
    both_ready();
    let mut stream = net.connect(SERVICE_V4);
    for site in [0, 1, 0, 1] {
        net.route_to(site);
        assert_eq!(said(&mut stream, 1).unwrap(), 0);
    }
    until_decided(1, "forward_timestamp");
}

/// Such a packet does not say whose it is: it is asked for, and the agent of its owner tells. From then on nobody is asked.
fn says_so() {
    let Some(net) = Net::new() else { return };
    for family in [IPV4, IPV6] {
        let mut service = service(family);
        // With cookies the connection's sequence numbers say it.
        service.sessions = Some(Sessions { tcp: TcpMethod::Timestamp, ..sessions() });
        let mut agents = [0, 1].map(|site| net.agent(&service, site));
        if family == IPV4 {
            net.serve();
            set(&net.clients, &[("net/ipv4/tcp_timestamps", "0")]);
        }
        both_ready();
        net.route_to(0);
        let mut stream = net.connect(SERVICE_V4);
        assert_eq!(said(&mut stream, 1).unwrap(), 0);
        net.route_to(1);
        until_true("told", || {
            assert_eq!(said(&mut stream, 2).unwrap(), 0);
            decided(1, "forward_cache") > 0
        });
        // Each agent shows what it counted once a second.
        until_decided(1, "forward_probe");
        until_decided(1, "shim_mine");
        until_decided(0, "shim_probe_mine");
        for agent in &mut agents {
            agent.kill();
        }
        for site in &net.sites {
            site.run(ubique_node::sessions::off).unwrap().unwrap();
        }
    }
}

fn control() {
    let Some(net) = Net::new() else { return };
    let mut service = service(IPV4);
    service.sessions = None;
    let _agents = [0, 1].map(|site| net.agent(&service, site));
    net.serve();
    for site in [0, 1] {
        until_true("addresses", || {
            let mut netlink = Netlink::open_in(&net.sites[site]).unwrap();
            netlink.addresses(1).unwrap().iter().any(|a| a.addr().to_string() == SERVICE_V4)
        });
    }
    assert_eq!(try_status_of(0).and_then(|status| status.sessions), None);
    let mut stream = net.connect(SERVICE_V4);
    assert_eq!(said(&mut stream, 1).unwrap(), 0);
    net.route_to(1);
    assert_eq!(said(&mut stream, 2).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// A socket of MPTCP that is bound, or connected, to an address.
fn multipath(address: SocketAddr, to: fn(&Socket, &SockAddr) -> std::io::Result<()>) -> Socket {
    /// `IPPROTO_MPTCP`
    const MPTCP: i32 = 262;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::from(MPTCP))).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    to(&socket, &address.into()).unwrap();
    socket
}

/// Clients of MPTCP open a second subflow, to the site's own address, and keep it when the route takes the first one elsewhere.
fn mptcp() {
    let Some(net) = Net::new() else { return };
    if !Path::new("/proc/sys/net/mptcp").exists() {
        return eprintln!("skipped: this kernel has no MPTCP");
    }
    // As clients of MPTCP have it: not more than they are told of.
    let mut limits = Command::new(IP);
    limits.args(["mptcp", "limits", "set", "add_addr_accepted", "2", "subflows", "2"]);
    assert!(net.clients.run(|| limits.status()).unwrap().unwrap().success());
    for (family, any, address) in [(IPV4, "0.0.0.0", SERVICE_V4), (IPV6, "::", SERVICE_V6)] {
        let mut service = service(family);
        service.sessions = Some(Sessions { tcp: TcpMethod::Off, mptcp: true, ..sessions() });
        let mut agents = [0, 1].map(|site| net.agent(&service, site));
        both_ready();
        net.route_to(0);
        let service_address: SocketAddr = (address.parse::<IpAddr>().unwrap(), PORT + 1).into();
        let any: SocketAddr = (any.parse::<IpAddr>().unwrap(), PORT + 1).into();
        for site in [0, 1] {
            let listener = net.sites[site].run(|| multipath(any, Socket::bind)).unwrap();
            listener.listen(64).unwrap();
            let listener = TcpListener::from(listener);
            std::thread::spawn(move || serve(&listener, site as u8));
        }
        let connect = |address| TcpStream::from(net.clients.run(|| multipath(address, Socket::connect)).unwrap());
        let mut stream = connect(service_address);
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        assert_eq!(said(&mut stream, 1).unwrap(), 0);
        let unicast: [IpAddr; 1] = [bare(LINKS[0][family]).parse().unwrap()];
        let subflows = || net.sites[0].run(|| sockdiag::connections(&unicast, |_| ())).unwrap().unwrap();
        until_true("a subflow to the site itself", || subflows() > 0);
        net.route_to(1);
        for octet in 2..6 {
            assert_eq!(said(&mut stream, octet).unwrap(), 0, "it stays where it is");
        }
        assert_eq!(said(&mut connect(service_address), 7).unwrap(), 1, "new ones go where the route leads");
        for agent in &mut agents {
            agent.signal(Signal::Term);
            assert_eq!(agent.wait(), 0);
        }
        // An agent that is to tell nobody takes it back.
        service.sessions = Some(Sessions { mptcp: false, ..sessions() });
        let _agent = net.agent(&service, 0);
        let endpoints = || net.sites[0].run(|| PathManager::open()?.endpoints()).unwrap().unwrap();
        until_true("no endpoint", || endpoints().is_empty());
    }
}

fn gone() {
    let Some(net) = Net::new() else { return };
    let service = service(IPV4);
    let _agents = [0, 1].map(|site| net.agent(&service, site));
    net.serve();
    both_ready();
    let mut stream = net.connect(SERVICE_V4);
    assert_eq!(said(&mut stream, 1).unwrap(), 0);
    net.route_to(1);
    assert_eq!(said(&mut stream, 2).unwrap(), 0);
    // The machine is gone, and its link with it.
    let mut netlink = Netlink::open_in(&net.sites[0]).unwrap();
    let index = netlink.link_index("a0").unwrap();
    netlink.set_down(index).unwrap();
    let seen = until_true("the other one sees it", || {
        let sessions = try_status_of(1).and_then(|status| status.sessions).unwrap();
        sessions.sites[0].up == Some(false)
    });
    println!("down after {seen:?}");
    let began = Instant::now();
    assert_eq!(said(&mut stream, 3).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    until_decided(1, "owner_down");
    assert_eq!(said(&mut net.connect(SERVICE_V4), 4).unwrap(), 1, "new ones are served");
}

/// Number of the program on the interface of a site.
pub fn program_on(net: &Net, site: usize) -> u32 {
    let name = ["a0", "b0"][site];
    let index = Netlink::open_in(&net.sites[site]).unwrap().link_index(name).unwrap();
    net.sites[site].run(|| ubique_edge::attached(index)).unwrap().unwrap()
}

fn taken_off() {
    let Some(net) = Net::new() else { return };
    let mut service = service(IPV4);
    let mut agents = [0, 1].map(|site| net.agent(&service, site));
    both_ready();
    for agent in &mut agents {
        agent.signal(Signal::Term);
        assert_eq!(agent.wait(), 0);
    }
    assert!(program_on(&net, 0) != 0 && program_on(&net, 1) != 0, "they stay");
    let off = net.sites[1].run(ubique_node::sessions::off).unwrap().unwrap();
    assert_eq!(off.iter().map(|removed| removed.interface.as_str()).collect::<Vec<_>>(), ["b0"]);
    assert_eq!((program_on(&net, 1), program_on(&net, 0) == 0), (0, false));
    service.sessions = None;
    let _agent = net.agent(&service, 0);
    until_true("no [sessions], no data plane", || program_on(&net, 0) == 0);
    until_true("nothing is left for a successor", || !Path::new("/run/ubique/resolver-ams.sessions").exists());
}

fn hands_over() {
    let Some(net) = Net::new() else { return };
    let service = service(IPV4);
    let _agents = [0, 1].map(|site| net.agent(&service, site));
    net.serve();
    both_ready();
    let mut old = net.connect(SERVICE_V4);
    assert_eq!(said(&mut old, 1).unwrap(), 0);
    let ask = |request| admin::request(Path::new("/run/ubique/resolver-ams.sock"), &request).unwrap();
    ask(Request::Drain { reason: "disk swap".into() });
    until_true("new ones go to the other site", || {
        try_status_of(0).unwrap().sessions.unwrap().hands_over_to.as_deref() == Some("fra")
    });
    // The router still sends everything to the drained site.
    let mut new = net.connect(SERVICE_V4);
    for octet in 2..5 {
        assert_eq!((said(&mut old, octet).unwrap(), said(&mut new, octet).unwrap()), (0, 1));
    }
    until_decided(0, "forward_new");
    ask(Request::Undrain { reason: "done".into() });
    until_true("no more", || try_status_of(0).unwrap().sessions.unwrap().hands_over_to.is_none());
    assert_eq!(said(&mut net.connect(SERVICE_V4), 6).unwrap(), 0);
    assert_eq!(said(&mut new, 7).unwrap(), 1);

    // A watched drain names who takes them.
    let watched = |to: &str| {
        let drain = DrainRequest { reason: "again".into(), to: Some(to.into()), ..DrainRequest::default() };
        admin::request(Path::new("/run/ubique/resolver-ams.sock"), &Request::DrainWatched(drain))
    };
    let refused = watched("mars").unwrap_err().to_string();
    assert!(refused.contains("no other site \"mars\""), "{refused}");
    watched("fra").unwrap();
    let progress = || match ask(Request::DrainProgress) {
        Reply::Drain(view) => view.sessions.unwrap(),
        other => panic!("{other:?}"),
    };
    until_true("handed over again", || progress().to.as_deref() == Some("fra"));
    let before = progress();
    assert_eq!(said(&mut net.connect(SERVICE_V4), 8).unwrap(), 1);
    net.route_to(1);
    assert_eq!((said(&mut old, 9).unwrap(), said(&mut new, 10).unwrap()), (0, 1));
    until_true("both counts rise", || {
        let now = progress();
        now.handed_over > before.handed_over && now.forwarded > before.forwarded
    });
}

/// The standard lab with a second site that is not there.
pub fn lonely() -> Service {
    let mut service = lab::service();
    service.sites[0].unicast = Unicast::of([lab::SITE_V4.parse().unwrap()]);
    let other = Unicast::of(["192.0.2.99".parse().unwrap()]);
    service.sites.push(Site { name: "fra".into(), unicast: other, number: 7, ..service.sites[0].clone() });
    service.sessions = Some(sessions());
    service
}

/// Without CAP_SYS_ADMIN the kernel shows nobody what is loaded: the agent knows its own by what it wrote down.
fn as_the_unit() {
    let Some(pass) = any_edge().filter(|_| confine::may_be_another()) else { return };
    let lab = Lab::new();
    far_end(&lab, |index| pass.attach_pass(index).unwrap());
    let mut bird = Bird::start(&lab.router, "");
    set(&lab.site, &[("net/ipv4/tcp_timestamps", "2")]);
    fs::write(SECRET, "0123456789abcdef".repeat(4)).unwrap();
    fs::set_permissions(SECRET, Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(SECRET, Some(0), Some(65534)).unwrap();
    let service = lonely();
    let attached = || until("attached", || status().sessions.filter(|s| s.state == "native")).0;
    let mut agent = confine::start_as_the_unit(&lab, &service);
    let first = attached();
    assert_eq!((first.tcp.as_str(), first.adopted, &first.troubles[..]), ("cookie", false, &[][..]));
    confine::assert_confined_with_data_plane(&agent);
    let dns = lab.dns();
    until_true("announced", || bird.has_both());
    agent.kill();
    drop(dns);
    let agent = confine::start_as_the_unit(&lab, &service);
    let second = attached();
    assert_eq!((second.adopted, second.clock_base_ms, &second.troubles[..]), (true, first.clock_base_ms, &[][..]));
    drop(agent);
}

/// Does something to the router's end of the standard lab's wire, by its index.
fn far_end(lab: &Lab, change: impl FnOnce(u32) + Send) {
    let index = Netlink::open_in(&lab.router).unwrap().link_index("l0").unwrap();
    lab.router.run(|| change(index)).unwrap()
}

/// What is wrong with the data plane of the standard lab, by what.
fn trouble(what: &str) -> Option<String> {
    let sessions = lab::try_status()?.sessions?;
    sessions.troubles.into_iter().find(|trouble| trouble.what == what).map(|trouble| trouble.why)
}

fn bad_environments() {
    let Some(pass) = any_edge() else { return };
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let service = lonely();
    let expect = |bird: &mut Bird, extra: &[&str], what: &str, words: &str| {
        let mut agent = lab.agent_with(&service, extra);
        lab.wait_for_addresses();
        let dns = lab.dns();
        until_true("announced all the same", || bird.has_both());
        let why = until(what, || trouble(what)).0;
        assert!(why.contains(words), "{what}: {why}");
        assert!(agent.log().contains("the service goes on"), "{}", agent.log());
        agent.kill();
        drop(dns);
        until_true("withdrawn", || bird.has_none());
    };
    expect(&mut bird, &[], "secret", "cannot read the secret file /run/secret");
    fs::write(SECRET, "short").unwrap();
    fs::set_permissions(SECRET, Permissions::from_mode(0o600)).unwrap();
    expect(&mut bird, &[], "secret", "openssl rand -hex 32");
    fs::write(SECRET, "0123456789abcdef".repeat(4)).unwrap();
    fs::set_permissions(SECRET, Permissions::from_mode(0o644)).unwrap();
    expect(&mut bird, &[], "secret", "chmod o=");
    fs::set_permissions(SECRET, Permissions::from_mode(0o600)).unwrap();
    set(&lab.site, &[("net/ipv4/tcp_timestamps", "1")]);
    expect(&mut bird, &["no-bpf"], "data plane", "CAP_BPF");

    // A veth takes nothing from programs unless its other end has one: no cookies by themselves, and it is told.
    // Of timestamps nothing is believed; then they are as they should be, and it goes on by itself.
    let mut agent = lab.agent(&service);
    let why = until("interface l0", || trouble("interface l0")).0;
    assert!(why.contains("other end drops"), "{why}");
    let why = until("TCP", || trouble("TCP")).0;
    assert!(why.contains("net.ipv4.tcp_timestamps is 1") && why.contains("sysctl -w"), "{why}");
    until_true("attached for QUIC alone", || status().sessions.is_some_and(|s| s.state == "native" && s.tcp == "off"));
    set(&lab.site, &[("net/ipv4/tcp_timestamps", "2")]);
    until_true("timestamps", || status().sessions.is_some_and(|s| s.tcp == "timestamp" && trouble("TCP").is_none()));
    far_end(&lab, |index| pass.attach_pass(index).unwrap());
    until_true("takes what is sent back", || status().sessions.is_some_and(|s| s.troubles.is_empty()));
    assert_eq!(status().sessions.unwrap().tcp, "timestamp", "connections go on as they began");
    agent.kill();
    lab.site.run(ubique_node::sessions::off).unwrap().unwrap();

    let index = Netlink::open_in(&lab.site).unwrap().link_index("l0").unwrap();
    lab.site.run(|| pass.attach_pass(index)).unwrap().unwrap();
    expect(&mut bird, &[], "interface l0", "another XDP program");
}
