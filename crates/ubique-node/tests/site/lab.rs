//! A small lab: one site, one upstream router, a link between them, and the processes in them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ubique_model::Asn;
use ubique_model::check::{Check, CheckKind, Counts, Dns, DnsTransport, Http, Statuses, Trust};
use ubique_model::location::Location;
use ubique_model::policy::Level;
use ubique_model::service::{
    AdminSettings, AgentSettings, Capacity, Flap, Guard, Levels, Records, RehearseSettings, Service, Site, Unicast,
    Upstream, site_number,
};
use ubique_node::admin::{self, Reply, Request, Status};
use ubique_sys::netlink::{Netlink, Route};
use ubique_sys::netns::NetNs;
use ubique_sys::process::command_in;

use crate::roles::myself;

/// How long anything may take that is not measured.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A process of the lab; killed at the end.
pub struct Process {
    pub child: Child,
    pub log: PathBuf,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: ubique_sys::process::Signal) {
        ubique_sys::process::PidFd::open(self.pid()).unwrap().signal(signal).unwrap();
    }

    pub fn wait(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < PATIENCE, "process {} does not end; its log:\n{}", self.pid(), self.log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A new log, which is printed when the test fails; those of earlier processes of this name stay.
fn new_log(name: &str) -> (PathBuf, File) {
    let open = |n: u32| {
        let path = PathBuf::from(format!("/run/{name}.{n}.log"));
        File::create_new(&path).ok().map(|file| (path, file))
    };
    (0..1000).find_map(open).expect("a log can be made")
}

/// Starts a program in a namespace with its output in a log file.
pub fn start(ns: &NetNs, name: &str, program: &Path, arguments: &[&str]) -> Process {
    start_in(ns, name, program, arguments, &[])
}

/// The same with these variables of the environment.
pub fn start_in(ns: &NetNs, name: &str, program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
    let (log, file) = new_log(name);
    let mut command = command_in(program, Some(ns));
    command.args(arguments).envs(variables.iter().copied());
    command.stdin(Stdio::null()).stderr(file.try_clone().unwrap()).stdout(file);
    Process { child: command.spawn().unwrap(), log }
}

/// Starts this binary in a role and waits for its `ready`.
pub fn start_ready(ns: &NetNs, role: &str, arguments: &[&str]) -> Process {
    let (log, file) = new_log(role);
    let mut command = command_in(&myself(), Some(ns));
    command.args(["role", role]).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.stderr(file).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let process = Process { child, log };
    assert_eq!(line, "ready\n", "{}", process.log());
    process
}

/// Waits until `probe` gives something; returns it and how long it took.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> (T, Duration) {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return (value, start.elapsed());
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        // The longer it takes the less it matters: others test beside this.
        std::thread::sleep((start.elapsed() / 50).clamp(Duration::from_micros(500), Duration::from_millis(10)));
    }
}

/// Like [`until`] for a condition.
pub fn until_true(what: &str, mut probe: impl FnMut() -> bool) -> Duration {
    until(what, || probe().then_some(())).1
}

pub const ROUTER_V4: &str = "192.0.2.1";
pub const SITE_V4: &str = "192.0.2.2";
pub const ROUTER_V6: &str = "2001:db8:1::1";
pub const SITE_V6: &str = "2001:db8:1::2";
pub const SERVICE_V4: &str = "198.51.100.53";
pub const SERVICE_V6: &str = "2001:db8:53::53";
pub const PREFIX_V4: &str = "198.51.100.0/24";
pub const PREFIX_V6: &str = "2001:db8:53::/48";
pub const SITE_ASN: u32 = 64500;
pub const ROUTER_ASN: u32 = 65000;

/// One site and one upstream.
pub struct Lab {
    pub site: NetNs,
    pub router: NetNs,
}

impl Lab {
    pub fn new() -> Lab {
        let ns = |name: &str| NetNs::create_at(Path::new(&format!("/run/ns-{name}"))).unwrap();
        let lab = Lab { site: ns("site"), router: ns("router") };
        let mut netlink = Netlink::open().unwrap();
        netlink.add_veth(("l0", Some(&lab.site)), ("l0", Some(&lab.router))).unwrap();
        for (ns, addresses, gateways) in [
            (&lab.router, [(ROUTER_V4, 30), (ROUTER_V6, 126)], None),
            (&lab.site, [(SITE_V4, 30), (SITE_V6, 126)], Some([ROUTER_V4, ROUTER_V6])),
        ] {
            let mut netlink = Netlink::open_in(ns).unwrap();
            let index = netlink.link_index("l0").unwrap();
            netlink.set_up(index).unwrap();
            for (address, length) in addresses {
                netlink.add_address(index, format!("{address}/{length}").parse().unwrap()).unwrap();
            }
            for (gateway, all) in gateways.into_iter().flatten().zip(["0.0.0.0/0", "::/0"]) {
                netlink.replace_route(&route(all, gateway)).unwrap();
            }
        }
        lab
    }

    /// Writes the service file of this lab and starts the agent with it.
    pub fn agent(&self, service: &Service) -> Process {
        self.agent_with(service, &[])
    }

    /// The same with these variables of the environment.
    pub fn agent_in(&self, service: &Service, variables: &[(&str, &str)]) -> Process {
        self.files(service);
        start_in(&self.site, "agent", &myself(), &["role", "agent", "/run/service.json", "ams"], variables)
    }

    /// The same with another copy of this binary.
    pub fn agent_from(&self, program: &Path, service: &Service) -> Process {
        self.files(service);
        start(&self.site, "agent", program, &["role", "agent", "/run/service.json", "ams"])
    }

    /// What an agent starts with, and what it reads again.
    pub fn files(&self, service: &Service) {
        fs::write("/run/service.json", serde_json::to_vec(service).unwrap()).unwrap();
        fs::write(FILE, service.to_toml()).unwrap();
    }

    pub fn agent_with(&self, service: &Service, extra: &[&str]) -> Process {
        self.files(service);
        let arguments = [&["role", "agent", "/run/service.json", "ams"], extra].concat();
        start(&self.site, "agent", &myself(), &arguments)
    }

    /// The service of the site, on its addresses.
    pub fn dns(&self) -> Process {
        start_ready(&self.site, "dns", &[&format!("{SERVICE_V4}:53"), &format!("[{SERVICE_V6}]:53")])
    }

    pub fn addresses(&self, ns: &NetNs) -> Vec<IpAddr> {
        let mut netlink = Netlink::open_in(ns).unwrap();
        let index = netlink.link_index("lo").unwrap();
        netlink.addresses(index).unwrap().into_iter().map(|a| a.addr()).collect()
    }

    /// How many service addresses are on the loopback of the site.
    pub fn service_addresses(&self) -> usize {
        let have = self.addresses(&self.site);
        [SERVICE_V4, SERVICE_V6].iter().filter(|a| have.contains(&a.parse().unwrap())).count()
    }

    /// Waits until the agent has put the service addresses on the loopback.
    pub fn wait_for_addresses(&self) {
        until_true("service addresses on lo", || self.service_addresses() == 2);
    }
}

pub fn route(destination: &str, gateway: &str) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
        interface: None,
        protocol: 4,
        metric: None,
        blackhole: false,
        source: None,
    }
}

/// `example.com A` of a server.
pub fn dns_query(target: &str) -> Dns {
    Dns {
        target: target.parse::<SocketAddr>().unwrap().into(),
        name: "example.com".into(),
        qtype: "A".into(),
        class: "IN".into(),
        rcode: "NOERROR".into(),
        answer: vec![],
        answer_contains: vec![],
        flags: vec![],
        transport: DnsTransport::Udp,
        path: "/dns-query".into(),
        trust: Trust::default(),
    }
}

/// `GET /` of a server.
pub fn page(target: SocketAddr) -> Http {
    Http {
        target: target.into(),
        tls: false,
        host: Some("service.example".into()),
        path: "/".into(),
        status: vec![Statuses { first: 200, last: 200 }],
        body: vec![],
        headers: vec![],
        trust: Trust::default(),
    }
}

/// Polls that must fail in a row: what is killed is told by an event, and a busy machine must not withdraw anything.
const FALL: u32 = 20;

/// For a check every second: polls would tell after more than [`PATIENCE`], so what is told in time was an event.
pub const NEVER_BY_POLLS: u32 = 100;

/// A DNS check of the IPv4 service address: every 50 ms, rise 2.
pub fn dns_check(name: &str, target: &str) -> Check {
    Check {
        name: name.into(),
        kind: CheckKind::Dns(dns_query(target)),
        every: Duration::from_millis(50),
        timeout: Duration::from_millis(40),
        retry: None,
        latency: None,
        fall: FALL,
        rise: 2,
        counts: Counts::Alone(Level::Failed),
    }
}

pub fn check(name: &str, kind: CheckKind) -> Check {
    Check { kind, ..dns_check(name, "127.0.0.1:53") }
}

/// An upstream at this address.
pub fn upstream(address: &str) -> Upstream {
    Upstream {
        communities: vec!["64500:100".parse().unwrap()],
        large_communities: vec!["64500:1:2".parse().unwrap()],
        prepend: 1,
        med: Some(7),
        ..Upstream::new(Asn(ROUTER_ASN), address.parse().unwrap())
    }
}

/// The service: both families, one DNS check each.
pub fn service() -> Service {
    Service {
        name: "resolver".into(),
        asn: Asn(SITE_ASN),
        prefixes: vec![PREFIX_V4.parse().unwrap(), PREFIX_V6.parse().unwrap()],
        addresses: vec![SERVICE_V4.parse().unwrap(), SERVICE_V6.parse().unwrap()],
        checks: vec![
            dns_check("answers", &format!("{SERVICE_V4}:53")),
            dns_check("answers6", &format!("[{SERVICE_V6}]:53")),
        ],
        groups: vec![],
        levels: Levels::default(),
        shed: vec![],
        flap: Some(Flap::default()),
        // Services of these tests do not always answer on both addresses.
        guard: Guard { start: false, ..Guard::default() },
        sessions: None,
        sites: vec![Site {
            name: "ams".into(),
            location: Location { name: "Amsterdam, NL".into(), latitude: 52.37, longitude: 4.9 },
            capacity: Capacity::default(),
            router_id: None,
            unicast: Unicast::default(),
            number: site_number("ams"),
            upstreams: vec![upstream(ROUTER_V4), upstream(ROUTER_V6)],
            dynamic: vec![],
        }],
        agent: AgentSettings {
            socket: "/run/ubique/{service}-{site}.sock".into(),
            state: STATE.into(),
            metrics: Some("127.0.0.1:9430".parse().unwrap()),
            graceful_shutdown: Duration::ZERO,
            drain: Duration::from_millis(500),
            drain_hook: vec![],
            confirm_share: 50,
            // A busy machine must not have it killed; tests of the watchdog set less.
            watchdog: Duration::from_secs(5),
            sandbox: true,
            records: Records::default(),
            admin: AdminSettings::default(),
        },
        rehearse: RehearseSettings::default(),
    }
}

/// The same with checks that a busy machine does not fail: for tests in which the service never does.
pub fn patient(mut service: Service) -> Service {
    service.checks.iter_mut().for_each(|check| check.fall = 100);
    service
}

/// The service file that an agent reads again.
pub const FILE: &str = "/run/service.toml";
/// What survives a restart; `/run` is the sandbox's own.
pub const STATE: &str = "/run/state/resolver-ams.state";
pub const SOCKET: &str = "/run/ubique/resolver-ams.sock";

pub fn ask(request: &Request) -> Result<Reply, admin::RequestError> {
    admin::request(Path::new(SOCKET), request)
}

pub fn status() -> Status {
    match ask(&Request::Status).unwrap() {
        Reply::Status(status) => *status,
        other => panic!("not a status: {other:?}"),
    }
}

pub fn try_status() -> Option<Status> {
    match ask(&Request::Status) {
        Ok(Reply::Status(status)) => Some(*status),
        _ => None,
    }
}

/// The processes whose parent is this one, zombies excluded.
pub fn children_of(parent: u32) -> Vec<u32> {
    let child = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let (state, ppid) = (fields.next()?, fields.next()?);
        (state != "Z" && ppid == parent.to_string()).then_some(pid)
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(child).collect()
}
