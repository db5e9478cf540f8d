//! BIRD and FRR as the upstream.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use ubique_sys::netns::NetNs;

use crate::lab::{PREFIX_V4, PREFIX_V6, Process, ROUTER_ASN, ROUTER_V4, ROUTER_V6, SITE_ASN, SITE_V4, SITE_V6};
use crate::lab::{start, until};

pub const BIRD: &str = "/usr/sbin/bird";

/// A running BIRD and its control connection.
pub struct Bird {
    _process: Process,
    control: BufReader<UnixStream>,
}

impl Bird {
    /// One session for each family with the site; `extra` goes into both, e.g. a password.
    pub fn start(ns: &NetNs, extra: &str) -> Bird {
        Bird::start_as(ns, ROUTER_ASN, extra)
    }

    /// With what it learns of IPv4 in the kernel, so that the router forwards.
    pub fn start_with_kernel(ns: &NetNs) -> Bird {
        let sessions = Bird::sessions(ROUTER_ASN, [""; 2]);
        Bird::with(ns, &format!("protocol kernel kernel4 {{ ipv4 {{ export all; }}; }}\n{sessions}"))
    }

    /// With BFD: what stands behind `bfd` in each session.
    pub fn start_with_bfd(ns: &NetNs, bfd: &str) -> Bird {
        Bird::start_as(ns, ROUTER_ASN, &format!("bfd {bfd};"))
    }

    /// The same in another AS. By default BIRD takes no connection for a minute after an error.
    pub fn start_as(ns: &NetNs, asn: u32, extra: &str) -> Bird {
        Bird::with(ns, &Bird::sessions(asn, [extra; 2]))
    }

    /// The protocols of both sessions, `site4` and `site6`.
    pub fn sessions(asn: u32, [extra4, extra6]: [&str; 2]) -> String {
        let v4 = session(asn, "site4", "ipv4", (ROUTER_V4, SITE_V4), extra4);
        v4 + &session(asn, "site6", "ipv6", (ROUTER_V6, SITE_V6), extra6)
    }

    /// The one of IPv4 alone.
    pub fn session_v4(extra: &str) -> String {
        session(ROUTER_ASN, "site4", "ipv4", (ROUTER_V4, SITE_V4), extra)
    }

    /// With these protocols besides a static route of each family.
    pub fn with(ns: &NetNs, protocols: &str) -> Bird {
        configure(protocols);
        let arguments = ["-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl", "-P", "/run/bird.pid"];
        let process = start(ns, "bird", Path::new(BIRD), &arguments);
        let (stream, _) = until("BIRD answers", || UnixStream::connect("/run/bird.ctl").ok());
        let mut bird = Bird { _process: process, control: BufReader::new(stream) };
        bird.reply();
        bird
    }

    /// With `extra` in the IPv4 session, and nothing in the other: BIRD restarts those it must.
    pub fn reconfigure_first(&mut self, extra: &str) {
        configure(&Bird::sessions(ROUTER_ASN, [extra, ""]));
        let reply = self.ask("configure");
        assert!(reply.contains("Reconfigur"), "{reply}");
    }

    /// Lines until one whose code is followed by a space: the last of a reply.
    fn reply(&mut self) -> String {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            assert!(self.control.read_line(&mut line).unwrap() > 0, "BIRD closed its control connection");
            text.push_str(&line);
            let code = line.get(..4).is_some_and(|c| c.bytes().all(|b| b.is_ascii_digit()));
            if code && line.as_bytes().get(4) == Some(&b' ') {
                return text;
            }
        }
    }

    pub fn ask(&mut self, command: &str) -> String {
        self.control.get_mut().write_all(format!("{command}\n").as_bytes()).unwrap();
        self.reply()
    }

    pub fn route(&mut self, prefix: &str) -> Option<String> {
        let reply = self.ask(&format!("show route {prefix} all"));
        reply.contains("BGP.as_path").then_some(reply)
    }

    pub fn has_both(&mut self) -> bool {
        self.route(PREFIX_V4).is_some() && self.route(PREFIX_V6).is_some()
    }

    pub fn has_none(&mut self) -> bool {
        self.route(PREFIX_V4).is_none() && self.route(PREFIX_V6).is_none()
    }

    pub fn log(&self) -> String {
        fs::read_to_string("/run/bird-messages.log").unwrap_or_default()
    }
}

fn session(asn: u32, name: &str, family: &str, (ours, theirs): (&str, &str), extra: &str) -> String {
    format!(
        "protocol bgp {name} {{\n local {ours} as {asn};\n neighbor {theirs} as {SITE_ASN};\n \
         hold time 9; error wait time 1, 2;\n {extra}\n {family} {{ import all; export where source = RTS_STATIC; }};\n}}\n"
    )
}

/// Writes BIRD's configuration with these protocols besides a static route of each family.
fn configure(protocols: &str) {
    let config = format!(
        "router id {ROUTER_V4};\nlog \"/run/bird-messages.log\" all;\ndebug protocols {{ states, events }};\n\
         protocol device {{}}\nprotocol bfd {{}}\nprotocol static static4 {{ ipv4; route 203.0.113.0/24 blackhole; }}\n\
         protocol static static6 {{ ipv6; route 2001:db8:113::/48 blackhole; }}\n{protocols}"
    );
    fs::write("/run/bird.conf", config).unwrap();
}

/// The protocol of vtysh: a command and NUL; text, three NULs and the command's status.
pub fn terminal(control: &mut UnixStream, command: &str) -> String {
    control.write_all(format!("{command}\0").as_bytes()).unwrap();
    let mut reply = Vec::new();
    let mut octet = [0];
    while !(reply.len() >= 4 && reply[reply.len() - 4..reply.len() - 1] == [0, 0, 0]) {
        control.read_exact(&mut octet).unwrap();
        reply.push(octet[0]);
    }
    reply.truncate(reply.len() - 4);
    String::from_utf8(reply).unwrap()
}

pub const BGPD: &str = "/usr/lib/frr/bgpd";

/// A running bgpd of FRR, without zebra: its RIB is what is looked at.
pub struct Frr {
    _process: Process,
    control: UnixStream,
}

impl Frr {
    pub fn start(ns: &NetNs) -> Frr {
        let neighbor = |family: &str, theirs: &str| {
            format!(
                " neighbor {theirs} remote-as {SITE_ASN}\n no neighbor {theirs} capability dynamic\n \
                 address-family {family} unicast\n  neighbor {theirs} activate\n exit-address-family\n"
            )
        };
        let config = format!(
            "frr defaults datacenter\nrouter bgp {ROUTER_ASN}\n bgp router-id {ROUTER_V4}\n no bgp ebgp-requires-policy\n \
             no bgp default ipv4-unicast\n timers bgp 3 9\n{}{}",
            neighbor("ipv4", SITE_V4),
            neighbor("ipv6", SITE_V6),
        );
        fs::create_dir_all("/run/frr").unwrap();
        fs::write("/run/frr/bgpd.conf", config).unwrap();
        let arguments = [
            "-f",
            "/run/frr/bgpd.conf",
            "-i",
            "/run/frr/bgpd.pid",
            "--vty_socket",
            "/run/frr",
            "-z",
            "/run/frr/zserv",
            "-Z",
            "-S",
            "-u",
            "root",
            "-g",
            "root",
            "-P",
            "0",
            "--log",
            "stdout",
        ];
        let process = start(ns, "bgpd", Path::new(BGPD), &arguments);
        let (control, _) = until("bgpd answers", || UnixStream::connect("/run/frr/bgpd.vty").ok());
        let mut frr = Frr { _process: process, control };
        frr.ask("enable");
        frr
    }

    pub fn ask(&mut self, command: &str) -> String {
        terminal(&mut self.control, command)
    }

    fn has(&mut self, family: &str, prefix: &str) -> bool {
        self.ask(&format!("show bgp {family} unicast {prefix} json")).contains("\"aspath\"")
    }

    pub fn has_both(&mut self) -> bool {
        self.has("ipv4", PREFIX_V4) && self.has("ipv6", PREFIX_V6)
    }

    pub fn has_none(&mut self) -> bool {
        !self.has("ipv4", PREFIX_V4) && !self.has("ipv6", PREFIX_V6)
    }
}
