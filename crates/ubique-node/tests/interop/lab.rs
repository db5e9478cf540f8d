//! The ground of a cell: our namespace (that of the sandbox), the peer's, the link between them, and processes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ubique_model::{Family, Prefix};
use ubique_sys::netlink::Netlink;
use ubique_sys::netns::NetNs;
use ubique_sys::process::{PidFd, Signal, command_in};

/// How long anything may take that is not measured. Speakers wait long: ExaBGP and GoBGP call again after 5 s and more.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// Our interface, and the peer's.
pub const LINK: &str = "l0";

/// Our address on the link, and our BGP identifier as IPv4.
pub fn ours(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "192.0.2.2",
        Family::Ipv6 => "2001:db8:1::2",
    }
}

/// The peer's address on the link, and its BGP identifier as IPv4.
pub fn theirs(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "192.0.2.1",
        Family::Ipv6 => "2001:db8:1::1",
    }
}

/// What we announce; `n` below 256 tells prefixes apart.
pub fn our_prefix(family: Family, n: u8) -> Prefix {
    let text = match family {
        Family::Ipv4 => format!("198.51.{n}.0/24"),
        Family::Ipv6 => format!("2001:db8:53{n:02x}::/48"),
    };
    text.parse().unwrap()
}

/// What the peer announces.
pub fn their_prefix(family: Family, n: u8) -> Prefix {
    let text = match family {
        Family::Ipv4 => format!("203.0.{n}.0/24"),
        Family::Ipv6 => format!("2001:db8:a{n:02x}::/48"),
    };
    text.parse().unwrap()
}

/// Makes the peer's namespace and the link, with both families' addresses; the calling process is our side.
pub fn build() -> NetNs {
    let peer = NetNs::create_at(Path::new("/run/ns-peer")).unwrap();
    let here = NetNs::current().unwrap();
    let mut netlink = Netlink::open().unwrap();
    // No duplicate address detection: addresses are there at once.
    for ns in [&here, &peer] {
        let off = |scope| fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0");
        ns.run(move || ["all", "default"].map(off).map(Result::unwrap)).unwrap();
    }
    netlink.add_veth((LINK, Some(&here)), (LINK, Some(&peer))).unwrap();
    for (ns, address) in [(&here, ours as fn(Family) -> &'static str), (&peer, theirs)] {
        let mut netlink = Netlink::open_in(ns).unwrap();
        let index = netlink.link_index(LINK).unwrap();
        netlink.add_address(index, format!("{}/24", address(Family::Ipv4)).parse().unwrap()).unwrap();
        netlink.add_address(index, format!("{}/64", address(Family::Ipv6)).parse().unwrap()).unwrap();
        netlink.set_up(index).unwrap();
    }
    peer
}

/// The link-local address of the link in a namespace.
pub fn link_local(ns: &NetNs) -> IpAddr {
    let mut netlink = Netlink::open_in(ns).unwrap();
    let index = netlink.link_index(LINK).unwrap();
    let link_local = |a: &IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
    netlink.addresses(index).unwrap().into_iter().map(|a| a.addr()).find(link_local).unwrap()
}

/// A process of the cell; killed at the end.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program in a namespace, with its output in a log file.
    pub fn start(ns: Option<&NetNs>, program: &str, arguments: &[&str]) -> Process {
        Process::start_with(ns, program, arguments, &[])
    }

    /// The same with environment variables.
    pub fn start_with(ns: Option<&NetNs>, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let name = Path::new(program).file_name().unwrap().to_str().unwrap();
        let log = PathBuf::from(format!("/run/{name}.log"));
        // A restarted daemon goes on in the same log.
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = command_in(program.as_ref(), ns);
        command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
        command.stderr(file.try_clone().unwrap()).stdout(file);
        Process { child: command.spawn().unwrap_or_else(|e| panic!("{program}: {e}")), log }
    }

    pub fn signal(&self, signal: Signal) {
        PidFd::open(self.child.id()).unwrap().signal(signal).unwrap();
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Its exit code once it has ended.
    pub fn exited(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
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

/// Runs a program in a namespace to its end; whether it succeeded, and what it printed.
pub fn output(ns: &NetNs, program: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = command_in(program.as_ref(), Some(ns));
    command.args(arguments).stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Like [`output`], for a program that must succeed; only its standard output.
pub fn ask(ns: &NetNs, program: &str, arguments: &[&str]) -> String {
    let mut command = command_in(program.as_ref(), Some(ns));
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Waits until `probe` gives something, where our side has nothing to do meanwhile.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Writes a configuration file.
pub fn write(path: &str, text: &str) {
    File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// The end of a text, for a report.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Reads until `end` is at the end of what was read.
pub fn read_until(stream: &mut impl Read, mut done: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut reply = Vec::new();
    let mut octet = [0];
    while !done(&reply) {
        stream.read_exact(&mut octet).unwrap();
        reply.push(octet[0]);
    }
    reply
}
