//! bgpd of FRR, without zebra, over its own terminal socket, which speaks what `vtysh` does.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use serde_json::Value;
use ubique_model::{Family, Prefix};
use ubique_proto::bgp::family::AddressFamily;
use ubique_sys::netns::NetNs;

use crate::lab::{self, Process, read_until};
use crate::peer::{Kind, Opens, Peer, SECOND_AS, Setup, Theirs};
use crate::seen::{self, Seen};

const CONFIG: &str = "/run/frr/bgpd.conf";

pub struct Frr {
    process: Process,
    _helpers: Vec<Process>,
    control: Option<UnixStream>,
    setup: Setup,
}

/// zebra, which knows interfaces, and bfdd.
fn start_helpers(ns: &NetNs) -> Vec<Process> {
    let start = |name: &str| {
        let (config, pid) = (format!("/run/frr/{name}.conf"), format!("/run/frr/{name}.pid"));
        lab::write(&config, "log stdout\n");
        let arguments = ["-f", &config, "-i", &pid, "--vty_socket", "/run/frr", "-z", "/run/frr/zserv"];
        let rest = ["-u", "frr", "-g", "frr", "-P", "0", "--log", "stdout"];
        Process::start(Some(ns), &format!("/usr/lib/frr/{name}"), &[&arguments[..], &rest[..]].concat())
    };
    // They insist on a user of their own.
    std::fs::set_permissions("/run/frr", std::fs::Permissions::from_mode(0o777)).unwrap();
    let zebra = start("zebra");
    lab::until("zebra answers", || UnixStream::connect("/run/frr/zserv").ok());
    vec![zebra, start("bfdd")]
}

fn family_name(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::Ipv4Unicast => "ipv4 unicast",
        AddressFamily::Ipv6Unicast => "ipv6 unicast",
        AddressFamily::Ipv4FlowSpec => "ipv4 flowspec",
        AddressFamily::Ipv6FlowSpec => "ipv6 flowspec",
    }
}

fn config(setup: &Setup) -> String {
    let neighbor = format!(" neighbor {}", setup.ours);
    let mut lines = vec![
        "frr defaults datacenter".to_owned(),
        "log stdout debugging".into(),
        "debug bgp neighbor-events".into(),
        setup.global.clone(),
        format!("router bgp {}", setup.local_as),
        format!(" bgp router-id {}", lab::theirs(Family::Ipv4)),
        " no bgp ebgp-requires-policy".into(),
        " no bgp default ipv4-unicast".into(),
        " no bgp network import-check".into(),
        format!("{neighbor} remote-as {}", setup.remote_as),
        format!("{neighbor} timers {} {}", (setup.hold_time_s / 3).max(1), setup.hold_time_s),
        format!("{neighbor} timers connect 1"),
        format!(" no{neighbor} capability dynamic"),
    ];
    if setup.opens == Opens::Us {
        lines.push(format!("{neighbor} passive"));
    }
    if let Some(password) = setup.password {
        lines.push(format!("{neighbor} password {password}"));
    }
    if setup.gtsm {
        lines.push(format!("{neighbor} ttl-security hops 1"));
    }
    if setup.two_octet {
        lines.push(format!("{neighbor} dont-capability-negotiate"));
    }
    lines.push(setup.extra.clone());
    for family in setup.families.iter() {
        lines.push(format!(" address-family {}", family_name(family)));
        lines.push(format!(" {neighbor} activate"));
        if family.is_unicast() {
            lines.push(setup.channel.clone());
        }
        lines.push(" exit-address-family".into());
    }
    if setup.second {
        let second = lab::second(setup.family);
        lines.push(format!(" neighbor {second} remote-as {SECOND_AS}\n neighbor {second} passive"));
        let family = family_name(AddressFamily::unicast(setup.family));
        lines.push(format!(" address-family {family}\n  neighbor {second} activate\n exit-address-family"));
    }
    lines.join("\n") + "\n"
}

/// Whether it accepts a configuration, and what it says.
pub fn takes(setup: &Setup, ns: &NetNs) -> (bool, String) {
    std::fs::create_dir_all("/run/frr").unwrap();
    lab::write(CONFIG, &config(setup));
    let arguments = ["-C", "-f", CONFIG, "-Z", "-S", "-u", "root", "-g", "root"];
    let (_, said) = lab::output(ns, Kind::Frr.program(), &arguments);
    // It ends with 0 either way.
    (!said.contains(UNKNOWN), said)
}

/// What it says about a line of its configuration that it then ignores.
const UNKNOWN: &str = "on config line";

impl Frr {
    pub fn start(setup: &Setup, ns: &NetNs) -> Frr {
        std::fs::create_dir_all("/run/frr").unwrap();
        lab::write(CONFIG, &config(setup));
        let files = ["-f", CONFIG, "-i", "/run/frr/bgpd.pid", "--vty_socket", "/run/frr", "-z", "/run/frr/zserv"];
        let rest = ["-S", "-u", "root", "-g", "root", "-P", "0", "--log", "stdout"];
        let alone: &[&str] = if setup.zebra { &[] } else { &["-Z"] };
        let helpers = if setup.zebra { start_helpers(ns) } else { vec![] };
        let process = Process::start(Some(ns), Kind::Frr.program(), &[&files[..], &rest[..], alone].concat());
        Frr { process, _helpers: helpers, control: None, setup: setup.clone() }
    }

    /// The protocol of vtysh: a command and NUL; text, three NULs and the command's status.
    fn ask(&mut self, command: &str) -> String {
        let control = self.control.as_mut().expect("connected");
        control.write_all(format!("{command}\0").as_bytes()).unwrap();
        let done = |reply: &[u8]| reply.len() >= 4 && reply[reply.len() - 4..reply.len() - 1] == [0, 0, 0];
        let mut reply = read_until(control, done);
        reply.truncate(reply.len() - 4);
        String::from_utf8(reply).unwrap()
    }

    fn configure(&mut self, commands: &[String]) {
        for command in ["configure terminal".to_owned()].iter().chain(commands).chain([&"end".to_owned()]) {
            let reply = self.ask(command);
            assert!(!reply.contains('%'), "{command}: {reply}");
        }
    }

    fn neighbor(&self) -> String {
        format!("neighbor {}", self.setup.ours)
    }

    fn unicast(prefix: Prefix) -> &'static str {
        family_name(AddressFamily::unicast(Family::of(&prefix)))
    }
}

impl Peer for Frr {
    fn ready(&mut self) -> bool {
        let Ok(stream) = UnixStream::connect("/run/frr/bgpd.vty") else {
            return false;
        };
        self.control = Some(stream);
        self.ask("enable");
        assert!(!self.process.log().contains(UNKNOWN), "it ignores a line of its configuration");
        for route in self.setup.announce.clone() {
            self.announce(&route);
        }
        true
    }

    fn established(&mut self) -> bool {
        let neighbor = self.neighbor();
        self.ask(&format!("show bgp {neighbor} json")).contains("\"bgpState\":\"Established\"")
    }

    fn route(&mut self, prefix: Prefix) -> Option<Seen> {
        let raw = self.ask(&format!("show bgp {} {prefix} json", Frr::unicast(prefix)));
        let reply: Value = serde_json::from_str(&raw).ok()?;
        let path = reply["paths"].as_array()?.iter().find(|path| path["peer"]["peerId"] == self.setup.ours)?;
        let list = |value: &Value| -> Vec<String> {
            let list = value["list"].as_array().cloned().unwrap_or_default();
            list.iter().map(|c| seen::community(c.as_str().unwrap())).collect()
        };
        let number = |value: &Value| value.as_u64().map(|n| n as u32);
        Some(Seen {
            next_hop: path["nexthops"][0]["ip"].as_str()?.to_owned(),
            as_path: seen::as_path(path["aspath"]["string"].as_str()?),
            med: number(&path["metric"]),
            local_pref: number(&path["locPrf"]),
            communities: list(&path["community"]).into_iter().collect(),
            large: list(&path["largeCommunity"]).into_iter().collect(),
            raw,
        })
    }

    fn rules(&mut self, family: Family) -> String {
        self.ask(&format!("show bgp {} detail", family_name(AddressFamily::flowspec(family))))
    }

    fn announce(&mut self, route: &Theirs) {
        let map = format!("attributes-{}", route.prefix.to_string().replace(['/', ':', '.'], "-"));
        let mut commands = vec![format!("route-map {map} permit 10")];
        commands.extend(route.med.map(|med| format!("set metric {med}")));
        if !route.communities.is_empty() {
            commands.push(format!("set community {}", route.communities.join(" ")));
        }
        if !route.large.is_empty() {
            commands.push(format!("set large-community {}", route.large.join(" ")));
        }
        commands.push("exit".into());
        commands.push(format!("router bgp {}", self.setup.local_as));
        commands.push(format!("address-family {}", Frr::unicast(route.prefix)));
        commands.push(format!("network {} route-map {map}", route.prefix));
        self.configure(&commands);
    }

    fn withdraw(&mut self, prefix: Prefix) {
        self.configure(&[
            format!("router bgp {}", self.setup.local_as),
            format!("address-family {}", Frr::unicast(prefix)),
            format!("no network {prefix}"),
        ]);
    }

    fn ask_refresh(&mut self) {
        let family = family_name(AddressFamily::unicast(self.setup.family));
        self.ask(&format!("clear bgp {family} {} soft in", self.setup.ours));
    }

    fn bfd_up(&mut self) -> bool {
        self.said().contains("Status: Up")
    }

    fn shut_down(&mut self, words: &str) {
        let neighbor = self.neighbor();
        self.configure(&[
            format!("router bgp {}", self.setup.local_as),
            format!("{neighbor} shutdown message {words}"),
        ]);
    }

    fn said(&mut self) -> String {
        let neighbor = self.neighbor();
        self.ask(&format!("show bgp {neighbor}"))
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
