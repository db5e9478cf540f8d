//! OpenBGPD, asked with its `bgpctl`.

use serde_json::Value;
use ubique_model::{Family, Prefix};
use ubique_proto::bgp::family::AddressFamily;
use ubique_sys::netns::NetNs;

use crate::lab::{self, Process};
use crate::peer::{Kind, Opens, Peer, SECOND_AS, Setup, Theirs};
use crate::seen::{self, Seen};

const CONFIG: &str = "/run/bgpd.conf";
const CLIENT: &str = "/usr/sbin/bgpctl";

pub struct Openbgpd {
    process: Process,
    ns: NetNs,
    setup: Setup,
}

fn config(setup: &Setup) -> String {
    let mut lines = vec![
        format!("AS {}", as_number(setup.local_as)),
        format!("router-id {}", lab::theirs(Family::Ipv4)),
        "fib-update no".to_owned(),
        "log updates".into(),
        "connect-retry 1".into(),
        setup.global.clone(),
        format!("neighbor {} {{", setup.ours),
        format!(" remote-as {}", setup.remote_as),
        format!(" holdtime {}", setup.hold_time_s),
        format!(" local-address {}", setup.theirs),
    ];
    for family in [Family::Ipv4, Family::Ipv6] {
        let announced = if setup.families.contains(AddressFamily::unicast(family)) { "unicast" } else { "none" };
        let name = if family == Family::Ipv4 { "IPv4" } else { "IPv6" };
        lines.push(format!(" announce {name} {announced}"));
    }
    if setup.opens == Opens::Us {
        lines.push(" passive".into());
    }
    if let Some(password) = setup.password {
        lines.push(format!(" tcp md5sig password {password}"));
    }
    if setup.gtsm {
        lines.push(" ttl-security yes".into());
    }
    if setup.two_octet {
        lines.push(" announce as-4byte no".into());
    }
    lines.push(setup.extra.clone());
    if setup.second {
        lines.push(format!("}}\nneighbor {} {{\n remote-as {SECOND_AS}\n passive", lab::second(setup.family)));
    }
    lines.push("}\nallow from any\nallow to any".into());
    lines.push(setup.channel.clone());
    lines.join("\n") + "\n"
}

/// A 4-octet AS needs its 2-octet stand-in beside it.
fn as_number(asn: u32) -> String {
    if asn > 65535 { format!("{asn} 23456") } else { asn.to_string() }
}

fn write(setup: &Setup) {
    lab::write(CONFIG, &config(setup));
    // Where its control socket and the chroot of its processes are.
    std::fs::create_dir_all("/run/openbgpd").unwrap();
    // It reads no file others may write.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(CONFIG, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Whether it accepts a configuration, and what it says.
pub fn takes(setup: &Setup, ns: &NetNs) -> (bool, String) {
    write(setup);
    lab::output(ns, Kind::Openbgpd.program(), &["-n", "-f", CONFIG])
}

impl Openbgpd {
    pub fn start(setup: &Setup, ns: &NetNs) -> Openbgpd {
        write(setup);
        let process = Process::start(Some(ns), Kind::Openbgpd.program(), &["-d", "-v", "-f", CONFIG]);
        Openbgpd { process, ns: ns.try_clone().unwrap(), setup: setup.clone() }
    }

    fn ask(&self, arguments: &[&str]) -> String {
        lab::ask(&self.ns, CLIENT, arguments)
    }

    fn neighbor(&self) -> &str {
        &self.setup.ours
    }
}

impl Peer for Openbgpd {
    fn ready(&mut self) -> bool {
        let (answers, said) = lab::output(&self.ns, CLIENT, &["show", "neighbor", self.neighbor()]);
        if !answers || !said.contains("BGP state") {
            return false;
        }
        for route in self.setup.announce.clone() {
            self.announce(&route);
        }
        true
    }

    fn established(&mut self) -> bool {
        let reply: Value = serde_json::from_str(&self.ask(&["-j", "show", "neighbor", self.neighbor()])).unwrap();
        reply["neighbors"][0]["state"] == "Established"
    }

    fn route(&mut self, prefix: Prefix) -> Option<Seen> {
        let raw = self.ask(&["-j", "show", "rib", "detail", &prefix.to_string()]);
        let reply: Value = serde_json::from_str(&raw).ok()?;
        let from_us = |route: &&Value| route["neighbor"]["remote_addr"] == self.neighbor();
        let route = reply["rib"].as_array()?.iter().find(from_us)?;
        let list = |name: &str| -> Vec<String> {
            let list = route[name].as_array().cloned().unwrap_or_default();
            list.iter().map(|c| seen::community(c.as_str().unwrap())).collect()
        };
        let number = |name: &str| route[name].as_u64().map(|n| n as u32);
        Some(Seen {
            next_hop: route["exit_nexthop"].as_str()?.to_owned(),
            as_path: seen::as_path(route["aspath"].as_str()?),
            med: number("metric"),
            local_pref: number("localpref"),
            communities: list("communities").into_iter().collect(),
            large: list("large_communities").into_iter().collect(),
            raw,
        })
    }

    fn announce(&mut self, route: &Theirs) {
        let mut words = vec!["network".to_owned(), "add".into(), route.prefix.to_string()];
        if let Some(med) = route.med {
            words.extend(["metric".into(), med.to_string()]);
        }
        for community in &route.communities {
            words.extend(["community".into(), (*community).into()]);
        }
        for community in &route.large {
            words.extend(["large-community".into(), (*community).into()]);
        }
        self.ask(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn withdraw(&mut self, prefix: Prefix) {
        self.ask(&["network", "delete", &prefix.to_string()]);
    }

    fn ask_refresh(&mut self) {
        self.ask(&["neighbor", self.neighbor(), "refresh"]);
    }

    fn shut_down(&mut self, words: &str) {
        self.ask(&["neighbor", self.neighbor(), "down", words]);
    }

    fn said(&mut self) -> String {
        self.ask(&["show", "neighbor", self.neighbor()])
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
