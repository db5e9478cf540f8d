//! QUIC: servers and clients in the namespaces of a scenario. Those of `crates/ubique-quic/examples`, which `cargo test --workspace` builds; and Chromium.

use std::io::{BufRead, BufReader, Lines, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use ubique_edge::IdKey;
use ubique_proto::sessions::Key;
use ubique_sys::netns::NetNs;
use ubique_sys::process;

use crate::net::{Family, Net, SITES};

/// UDP port of the service.
pub const PORT: u16 = 4433;

/// Of connection identifiers. `HEX`, its octets: two little-endian words.
pub const ID_KEY: IdKey = IdKey { rotation: 0, key: Key([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]) };
const HEX: &str = "000102030405060708090a0b0c0d0e0f";

/// A program of the examples; `None`: it was not built.
fn example(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let path = own.parent()?.parent()?.join("examples").join(name);
    path.exists().then_some(path)
}

/// Whether there is something to test with; says so if not.
pub fn is_there() -> bool {
    let there = ["quic-server", "quic-client"].iter().all(|name| example(name).is_some());
    if !there {
        eprintln!("skipped: QUIC: cargo build -p ubique-quic --examples");
    }
    there
}

/// A program in a namespace; killed with its value.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(name: &str, ns: &NetNs, arguments: &[String]) -> Program {
    let mut command: Command = process::command_in(&example(name).unwrap(), Some(ns));
    command.args(arguments).stdout(Stdio::piped());
    Program(command.spawn().unwrap())
}

/// One that runs at a site: what it says, and what it said first.
struct Server {
    program: Program,
    output: BufReader<ChildStdout>,
    first: String,
}

/// A server at each site, once all listen.
pub struct Servers(Vec<Server>);

impl Servers {
    /// Those of `quic-client`.
    pub fn start(net: &Net, family: Family) -> Servers {
        let listen = SocketAddr::new(family.service_prefix().addr(), PORT);
        Servers((0..SITES).map(|site| Server::start("quic-server", net, site, listen, &[])).collect())
    }

    /// Those of [`Chromium`]; with a preferred address each site tells clients to move to its own.
    pub fn start_h3(net: &Net, family: Family, preferred: bool) -> Servers {
        let any = if family == Family::V4 { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let server = |site: usize| {
            let own = net.make_own_address(site, family).to_string();
            let more: &[&str] = if preferred { &["--preferred", &own] } else { &[] };
            Server::start("h3-server", net, site, SocketAddr::new(any, PORT), more)
        };
        Servers((0..SITES).map(server).collect())
    }

    /// Connections that were made to each HTTP/3 server, which is stopped.
    pub fn connections(self) -> Vec<usize> {
        let of = |Server { program, mut output, .. }: Server| {
            drop(program);
            let mut text = String::new();
            output.read_to_string(&mut text).unwrap();
            text.lines().filter(|line| line.contains("\"connection\"")).count()
        };
        self.0.into_iter().map(of).collect()
    }
}

impl Server {
    fn start(name: &str, net: &Net, site: usize, listen: SocketAddr, more: &[&str]) -> Server {
        let numbers = [listen.to_string(), site.to_string()];
        let mut arguments = vec!["--listen", &numbers[0], "--site", &numbers[1], "--key", HEX];
        arguments.extend(more);
        let arguments: Vec<String> = arguments.into_iter().map(String::from).collect();
        let mut program = start(name, &net.sites[site], &arguments);
        let mut output = BufReader::new(program.0.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        assert!(first.contains("listening"), "{first}");
        Server { program, output, first }
    }

    /// The hash of its key.
    fn key(&self) -> &str {
        self.first.split("\"key\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a key")
    }
}

/// Connections from the first client.
pub struct Clients(Program);

/// What became of them.
#[derive(Debug)]
pub struct Report {
    pub opened: u64,
    pub lost: u64,
    pub longest_stall_ms: f64,
    pub text: String,
}

impl Clients {
    pub fn start(net: &Net, family: Family, connections: usize, seconds: u64) -> Clients {
        let connect = format!("{}", std::net::SocketAddr::new(family.service_prefix().addr(), PORT));
        let numbers = [connections.to_string(), seconds.to_string()];
        let arguments = ["--connect", &connect, "--connections", &numbers[0], "--seconds", &numbers[1]];
        Clients(start("quic-client", &net.clients[0], &arguments.map(String::from)))
    }

    /// When they have ended by themselves.
    pub fn end(mut self) -> Report {
        let mut text = String::new();
        self.0.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let (opened, lost) = (number(&text, "opened") as u64, number(&text, "lost") as u64);
        Report { opened, lost, longest_stall_ms: number(&text, "longest_stall_ms"), text: text.trim().to_owned() }
    }
}

/// A number of a JSON object.
pub fn number(text: &str, name: &str) -> f64 {
    let after = text.split(&format!("\"{name}\":")).nth(1).unwrap_or_else(|| panic!("no {name} in {text}"));
    let digits: String = after.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    digits.parse().unwrap()
}

/// A browser with one page: `h3-server` has it, and says what it does.
pub struct Chromium {
    _program: Program,
    lines: Lines<BufReader<ChildStderr>>,
}

/// As Debian and others name it.
const BROWSER: &str = "chromium";
/// Nothing of its own accord, no sandbox inside ours, what pages say on standard error.
const BROWSER_FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--origin-to-force-quic-on=*",
];
/// Of the sandbox alone.
const BROWSER_HOME: &str = "/run/ubique/chromium";

impl Chromium {
    /// What a machine lacks for it.
    pub fn is_missing() -> Option<&'static str> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|directory| directory.join(BROWSER).is_file()) {
            return Some("chromium is not installed");
        }
        example("h3-server").is_none().then_some("cargo build -p ubique-quic --examples")
    }

    /// In the first client's namespace. Every name is the service's address there, and QUIC the only way to it.
    pub fn start(net: &Net, family: Family, servers: &Servers, query: &str) -> Chromium {
        let keys: Vec<_> = servers.0.iter().map(Server::key).collect();
        let service = SocketAddr::new(family.service_prefix().addr(), PORT);
        let host = service.to_string();
        let host = host.rsplit_once(':').unwrap().0;
        let mut command = process::command_in(Path::new(BROWSER), Some(&net.clients[0]));
        command.env("HOME", BROWSER_HOME);
        command.args(BROWSER_FLAGS);
        command.arg(format!("--user-data-dir={BROWSER_HOME}/profile"));
        command.arg(format!("--ignore-certificate-errors-spki-list={}", keys.join(",")));
        command.arg(format!("--host-resolver-rules=MAP * {host}"));
        command.arg(format!("https://c0.site.test:{PORT}/?{query}"));
        let mut program = Program(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
        let lines = BufReader::new(program.0.stderr.take().unwrap()).lines();
        Chromium { _program: program, lines }
    }

    /// The next object that the page tells.
    pub fn next(&mut self) -> String {
        let mut said = String::new();
        for line in &mut self.lines {
            let line = line.unwrap();
            if let Some((_, object)) = line.split_once("\"h3-page ") {
                return object.rsplit_once("\", source:").map_or(object, |(object, _)| object).to_owned();
            }
            said += &line;
            said.push('\n');
        }
        panic!("the browser ended: {said}");
    }
}
