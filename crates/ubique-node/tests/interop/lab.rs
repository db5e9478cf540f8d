//! The ground of a cell: our namespace (that of the sandbox), the peer's, the link between them, and processes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ubique_model::{Family, Prefix};
use ubique_sys::netlink::{Netlink, Route};
use ubique_sys::netns::NetNs;
use ubique_sys::process::command_in;

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

/// The address of our second speaker.
pub fn second(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "192.0.2.3",
        Family::Ipv6 => "2001:db8:1::3",
    }
}

/// Our link-local address, and the peer's.
pub const LINK_LOCAL: [&str; 2] = ["fe80::2", "fe80::1"];

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
    // No duplicate address detection: addresses are there at once; and no link-local address but the one below.
    let settings = [("all/accept_dad", "0"), ("default/accept_dad", "0"), ("default/addr_gen_mode", "1")];
    for ns in [&here, &peer] {
        let set = |(name, value)| fs::write(format!("/proc/sys/net/ipv6/conf/{name}"), value).unwrap();
        ns.run(move || settings.into_iter().for_each(set)).unwrap();
    }
    netlink.add_veth((LINK, Some(&here)), (LINK, Some(&peer))).unwrap();
    let sides = [
        (&here, [ours(Family::Ipv4), ours(Family::Ipv6)], LINK_LOCAL[0]),
        (&peer, [theirs(Family::Ipv4), theirs(Family::Ipv6)], LINK_LOCAL[1]),
    ];
    for (ns, [v4, v6], link_local) in sides {
        let mut netlink = Netlink::open_in(ns).unwrap();
        let index = netlink.link_index(LINK).unwrap();
        for address in [format!("{v4}/24"), format!("{v6}/64"), format!("{link_local}/64")] {
            netlink.add_address(index, address.parse().unwrap()).unwrap();
        }
        netlink.set_up(index).unwrap();
    }
    peer
}

/// Gives our side the address of the second speaker.
pub fn add_second(family: Family) {
    let mut netlink = Netlink::open().unwrap();
    let index = netlink.link_index(LINK).unwrap();
    // A host address: never the source of what does not ask for it.
    let length = if family == Family::Ipv4 { 32 } else { 128 };
    netlink.add_address(index, format!("{}/{length}", second(family)).parse().unwrap()).unwrap();
}

/// Takes our IPv4 address from the link.
pub fn drop_ipv4() {
    let mut netlink = Netlink::open().unwrap();
    let index = netlink.link_index(LINK).unwrap();
    assert!(netlink.delete_address(index, format!("{}/24", ours(Family::Ipv4)).parse().unwrap()).unwrap());
}

/// What we send to the peer goes nowhere from now on; the link stays as it is.
pub fn fall_silent(family: Family) {
    let route = Route {
        destination: theirs(family).parse::<IpAddr>().unwrap().into(),
        gateway: None,
        interface: None,
        protocol: 4,
        metric: None,
        blackhole: true,
        source: None,
    };
    Netlink::open().unwrap().replace_route(&route).unwrap();
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

    pub fn pid(&self) -> u32 {
        self.child.id()
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
