//! QUIC: the server and the client of `crates/ubique-quic/examples`, which `cargo test --workspace` builds, in the namespaces of a scenario.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

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

/// A server at each site, once all listen.
pub struct Servers(#[allow(dead_code, reason = "they live as long as this")] Vec<Program>);

impl Servers {
    pub fn start(net: &Net, family: Family) -> Servers {
        let listen = format!("{}", std::net::SocketAddr::new(family.service_prefix().addr(), PORT));
        let server = |site: usize| {
            let arguments = ["--listen", &listen, "--site", &site.to_string(), "--key", HEX].map(String::from);
            let mut server = start("quic-server", &net.sites[site], &arguments);
            let mut line = String::new();
            BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
            assert!(line.contains("listening"), "{line}");
            server
        };
        Servers((0..SITES).map(server).collect())
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
        let number = |name: &str| -> f64 {
            let after = text.split(&format!("\"{name}\":")).nth(1).unwrap_or_else(|| panic!("no {name} in {text}"));
            let digits: String = after.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            digits.parse().unwrap()
        };
        let (opened, lost) = (number("opened") as u64, number("lost") as u64);
        Report { opened, lost, longest_stall_ms: number("longest_stall_ms"), text: text.trim().to_owned() }
    }
}
