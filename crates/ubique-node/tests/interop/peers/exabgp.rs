//! ExaBGP, driven and asked through the pipes of its API: it has no table of its own, so that its JSON events are replayed.

use std::fs::File;
use std::io::Write;

use serde_json::Value;
use ubique_model::{Family, Prefix};
use ubique_proto::bgp::family::AddressFamily;
use ubique_sys::netns::NetNs;

use crate::lab::{self, Process};
use crate::peer::{Kind, Opens, Peer, Setup, Theirs};
use crate::seen::Seen;

const CONFIG: &str = "/run/exabgp.conf";
const EVENTS: &str = "/run/exabgp-events";
const COMMANDS: &str = "/run/exabgp-commands";
const HELPER: &str = "/run/exabgp-helper";

/// Its child: what is written to the commands goes to ExaBGP, what that says is kept.
const HELPER_SCRIPT: &str = "#!/bin/sh\nexec 3<>/run/exabgp-commands\ncat <&3 &\nexec cat >>/run/exabgp-events\n";

pub struct Exabgp {
    process: Process,
    setup: Setup,
}

fn config(setup: &Setup) -> String {
    let mut lines = vec![
        format!("process events {{ run {HELPER}; encoder json; }}"),
        setup.global.clone(),
        format!("neighbor {} {{", setup.ours),
        format!(" router-id {};", lab::theirs(Family::Ipv4)),
        format!(" local-address {};", setup.theirs),
        format!(" local-as {};\n peer-as {};", setup.local_as, setup.remote_as),
        format!(" hold-time {};", setup.hold_time_s),
        " api { processes [ events ]; neighbor-changes; receive { parsed; open; update; notification; refresh; } }"
            .into(),
    ];
    if setup.opens == Opens::Us {
        lines.push(" passive true;".into());
    }
    if let Some(password) = setup.password {
        lines.push(format!(" md5-password {password};"));
    }
    if setup.gtsm {
        lines.push(" outgoing-ttl 255;\n incoming-ttl 255;".into());
    }
    // Its capabilities are one block.
    let (capabilities, extra): (Vec<&str>, Vec<&str>) =
        setup.extra.lines().partition(|line| line.trim_start().starts_with("capability "));
    let four_octet = if setup.two_octet { "disable" } else { "enable" };
    lines.push(format!(" capability {{ route-refresh enable; asn4 {four_octet};"));
    lines.extend(capabilities.iter().map(|line| line.trim_start().trim_start_matches("capability ").to_owned()));
    lines.push(" }\n family {".into());
    lines.extend(setup.families.iter().map(|family| format!(" {};", family_name(family))));
    lines.push(" }".into());
    lines.extend(extra.iter().map(|line| (*line).to_owned()));
    lines.push("}".into());
    lines.join("\n") + "\n"
}

fn family_name(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::Ipv4Unicast => "ipv4 unicast",
        AddressFamily::Ipv6Unicast => "ipv6 unicast",
        AddressFamily::Ipv4FlowSpec => "ipv4 flow",
        AddressFamily::Ipv6FlowSpec => "ipv6 flow",
    }
}

fn write(setup: &Setup) {
    lab::write(CONFIG, &config(setup));
    lab::write(HELPER, HELPER_SCRIPT);
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(HELPER, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    // Left by an earlier start in the same cell.
    if !std::path::Path::new(COMMANDS).exists() {
        rustix::fs::mknodat(rustix::fs::CWD, COMMANDS, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }
}

/// Whether it accepts a configuration, and what it says.
pub fn takes(setup: &Setup, ns: &NetNs) -> (bool, String) {
    write(setup);
    let (_, said) = lab::output(ns, Kind::Exabgp.program(), &["--test", CONFIG]);
    // Its exit code is 0 either way.
    (!said.contains("configuration issue") && !said.contains("not valid") && !said.contains("invalid"), said)
}

impl Exabgp {
    pub fn start(setup: &Setup, ns: &NetNs) -> Exabgp {
        write(setup);
        // A restarted one tells anew.
        let _ = std::fs::remove_file(EVENTS);
        let environment = [
            ("exabgp.daemon.user", "root"),
            ("exabgp.daemon.drop", "false"),
            ("exabgp.api.ack", "false"),
            ("exabgp.api.cli", "false"),
            ("exabgp.log.level", "DEBUG"),
            ("exabgp.log.message", "true"),
            ("exabgp.tcp.bind", setup.theirs.as_str()),
            ("exabgp.tcp.port", "179"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ];
        let listens = if setup.opens == Opens::Peer { environment.len() - 3 } else { 0 };
        let environment: Vec<(&str, &str)> = match listens {
            0 => environment.to_vec(),
            n => environment[..n].to_vec(),
        };
        let process = Process::start_with(Some(ns), Kind::Exabgp.program(), &[CONFIG], &environment);
        Exabgp { process, setup: setup.clone() }
    }

    fn tell(&self, command: &str) {
        let mut commands = File::options().write(true).open(COMMANDS).unwrap();
        commands.write_all(format!("{command}\n").as_bytes()).unwrap();
    }

    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(EVENTS).unwrap_or_default();
        // The last line may be on its way.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn neighbor(&self) -> &str {
        &self.setup.ours
    }
}

/// The route after one UPDATE: `None` as long as that does not touch it.
fn after(update: &Value, prefix: &str) -> Option<Option<Seen>> {
    let has = |list: &Value| list.as_array().is_some_and(|list| list.iter().any(|n| n["nlri"] == prefix));
    let announced = update["announce"].as_object().into_iter().flatten();
    for (next_hop, list) in announced.flat_map(|(_, hops)| hops.as_object().into_iter().flatten()) {
        if has(list) {
            return Some(Some(seen(&update["attribute"], next_hop)));
        }
    }
    let mut withdrawn = update["withdraw"].as_object().into_iter().flatten();
    withdrawn.any(|(_, list)| has(list)).then_some(None)
}

fn seen(attributes: &Value, next_hop: &str) -> Seen {
    let number = |name: &str| attributes[name].as_u64().map(|n| n as u32);
    let list = |name: &str| -> Vec<String> {
        let join = |c: &Value| -> String {
            let parts = c.as_array().into_iter().flatten();
            parts.map(|part| part.to_string().trim_matches('"').to_owned()).collect::<Vec<_>>().join(":")
        };
        attributes[name].as_array().into_iter().flatten().map(join).collect()
    };
    let path = attributes["as-path"].as_array().cloned().unwrap_or_default();
    Seen {
        next_hop: next_hop.to_owned(),
        as_path: path.iter().filter_map(|n| n.as_u64().map(|n| n as u32)).collect(),
        med: number("med"),
        local_pref: number("local-preference"),
        communities: list("community").into_iter().collect(),
        large: list("large-community").into_iter().collect(),
        raw: attributes.to_string(),
    }
}

impl Peer for Exabgp {
    fn ready(&mut self) -> bool {
        // The helper runs once the configuration is read; then it listens.
        if !std::path::Path::new(EVENTS).exists() {
            return false;
        }
        for route in self.setup.announce.clone() {
            self.announce(&route);
        }
        true
    }

    fn established(&mut self) -> bool {
        let mut states = self.events().into_iter().filter(|event| event["type"] == "state");
        states.next_back().is_some_and(|event| event["neighbor"]["state"] == "up")
    }

    fn route(&mut self, prefix: Prefix) -> Option<Seen> {
        let prefix = prefix.to_string();
        let mut route = None;
        for event in self.events() {
            if event["type"] == "state" && event["neighbor"]["state"] == "down" {
                route = None;
            }
            if let Some(next) = after(&event["neighbor"]["message"]["update"], &prefix) {
                route = next;
            }
        }
        route
    }

    /// What is announced and not withdrawn, as it was announced.
    fn rules(&mut self, family: Family) -> String {
        let name = family_name(AddressFamily::flowspec(family));
        let mut rules: Vec<String> = vec![];
        let words = |list: &Value| -> Vec<String> {
            list.as_array().into_iter().flatten().map(|rule| rule["string"].to_string()).collect()
        };
        for event in self.events() {
            let update = &event["neighbor"]["message"]["update"];
            for list in update["announce"][name].as_object().into_iter().flatten().map(|(_, list)| list) {
                rules.extend(words(list).into_iter().map(|rule| format!("{rule} {}", update["attribute"])));
            }
            let withdrawn = words(&update["withdraw"][name]);
            rules.retain(|rule| !withdrawn.iter().any(|gone| rule.starts_with(gone.as_str())));
        }
        rules.join("\n")
    }

    fn announce(&mut self, route: &Theirs) {
        let mut command = format!("announce route {} next-hop self", route.prefix);
        if let Some(path) = route.path {
            command.push_str(&format!(" path-information 0.0.0.{path}"));
        }
        if let Some(med) = route.med {
            command.push_str(&format!(" med {med}"));
        }
        if !route.communities.is_empty() {
            command.push_str(&format!(" community [ {} ]", route.communities.join(" ")));
        }
        if !route.large.is_empty() {
            command.push_str(&format!(" large-community [ {} ]", route.large.join(" ")));
        }
        self.tell(&command);
    }

    fn withdraw(&mut self, prefix: Prefix) {
        self.tell(&format!("withdraw route {prefix} next-hop self"));
    }

    fn ask_refresh(&mut self) {
        self.tell(&format!("announce route-refresh {}", family_name(AddressFamily::unicast(self.setup.family))));
    }

    fn shut_down(&mut self, _words: &str) {
        self.tell(&format!("neighbor {} teardown 2", self.neighbor()));
    }

    fn said(&mut self) -> String {
        std::fs::read_to_string(EVENTS).unwrap_or_default()
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
