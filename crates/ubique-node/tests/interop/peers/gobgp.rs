//! GoBGP, asked with its `gobgp`.

use serde_json::Value;
use ubique_model::{Family, Prefix};
use ubique_proto::bgp::family::AddressFamily;
use ubique_sys::netns::NetNs;

use crate::lab::{self, Process};
use crate::peer::{Kind, Opens, Peer, SECOND_AS, Setup, Theirs};
use crate::seen::{self, Seen};

const CONFIG: &str = "/run/gobgpd.toml";
const CLIENT: &str = "/usr/bin/gobgp";

pub struct Gobgp {
    process: Process,
    ns: NetNs,
    setup: Setup,
}

fn config(setup: &Setup) -> String {
    let mut text = format!(
        "[global.config]\nas = {}\nrouter-id = \"{}\"\n{}\n[[neighbors]]\n[neighbors.config]\n\
         neighbor-address = \"{}\"\npeer-as = {}\n",
        setup.local_as,
        lab::theirs(Family::Ipv4),
        setup.global,
        setup.ours,
        setup.remote_as
    );
    if let Some(password) = setup.password {
        text.push_str(&format!("auth-password = \"{password}\"\n"));
    }
    if setup.opens == Opens::Us {
        text.push_str("[neighbors.transport.config]\npassive-mode = true\n");
    }
    // Ten seconds is the least it takes.
    text.push_str(&format!(
        "[neighbors.timers.config]\nhold-time = {}\nkeepalive-interval = {}\nconnect-retry = 10\nidle-hold-time-after-reset = 1\n",
        setup.hold_time_s,
        (setup.hold_time_s / 3).max(1)
    ));
    if setup.gtsm {
        text.push_str("[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n");
    }
    text.push_str(&setup.extra);
    for family in setup.families.iter() {
        let name = match family {
            AddressFamily::Ipv4Unicast => "ipv4-unicast",
            AddressFamily::Ipv6Unicast => "ipv6-unicast",
            AddressFamily::Ipv4FlowSpec => "ipv4-flowspec",
            AddressFamily::Ipv6FlowSpec => "ipv6-flowspec",
        };
        text.push_str(&format!("[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{name}\"\n"));
        if family.is_unicast() {
            text.push_str(&setup.channel);
        }
    }
    if setup.second {
        let (second, name) = (lab::second(setup.family), if setup.family == Family::Ipv4 { "ipv4" } else { "ipv6" });
        text.push_str(&format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{second}\"\npeer-as = {SECOND_AS}\n\
             [neighbors.transport.config]\npassive-mode = true\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{name}-unicast\"\n"
        ));
    }
    text
}

/// Whether it accepts a configuration, and what it says.
pub fn takes(setup: &Setup, ns: &NetNs) -> (bool, String) {
    lab::write(CONFIG, &config(setup));
    lab::output(ns, Kind::Gobgp.program(), &["-d", "-p", "-f", CONFIG])
}

impl Gobgp {
    pub fn start(setup: &Setup, ns: &NetNs) -> Gobgp {
        lab::write(CONFIG, &config(setup));
        let mut arguments = vec!["-p", "-l", "debug", "--pprof-disable", "-f", CONFIG];
        arguments.extend(setup.restarted.then_some("-r"));
        let process = Process::start(Some(ns), Kind::Gobgp.program(), &arguments);
        Gobgp { process, ns: ns.try_clone().unwrap(), setup: setup.clone() }
    }

    fn ask(&self, arguments: &[&str]) -> String {
        lab::ask(&self.ns, CLIENT, arguments)
    }

    fn neighbor(&self) -> &str {
        &self.setup.ours
    }
}

fn family_name(prefix: Prefix) -> &'static str {
    match Family::of(&prefix) {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

impl Peer for Gobgp {
    fn ready(&mut self) -> bool {
        let (answers, said) = lab::output(&self.ns, CLIENT, &["neighbor", self.neighbor()]);
        if !answers || !said.contains("BGP state") {
            return false;
        }
        for route in self.setup.announce.clone() {
            self.announce(&route);
        }
        true
    }

    fn established(&mut self) -> bool {
        let reply: Value = serde_json::from_str(&self.ask(&["neighbor", self.neighbor(), "-j"])).unwrap();
        // SESSION_STATE_ESTABLISHED of its interface.
        reply["state"]["session_state"] == 6
    }

    fn route(&mut self, prefix: Prefix) -> Option<Seen> {
        let raw = self.ask(&["global", "rib", &prefix.to_string(), "-a", family_name(prefix), "-j"]);
        let reply: Value = serde_json::from_str(&raw).ok()?;
        let path = reply[prefix.to_string()].as_array()?.iter().find(|path| path["neighbor-ip"].is_string())?;
        let mut route = Seen::default();
        for attribute in path["attrs"].as_array()? {
            let number = |key: &str| attribute[key].as_u64().map(|n| n as u32);
            match attribute["type"].as_u64()? {
                2 => {
                    let segments = attribute["as_paths"].as_array()?;
                    let ases = segments.iter().flat_map(|s| s["asns"].as_array().cloned().unwrap_or_default());
                    route.as_path = ases.map(|n| n.as_u64().unwrap() as u32).collect();
                }
                3 | 14 => route.next_hop = attribute["nexthop"].as_str()?.to_owned(),
                4 => route.med = number("metric"),
                5 => route.local_pref = number("value"),
                8 => {
                    let list = attribute["communities"].as_array()?;
                    route.communities = list.iter().map(|n| seen::community_of(n.as_u64().unwrap())).collect();
                }
                32 => {
                    let list = attribute["value"].as_array()?;
                    let large = |c: &Value| format!("{}:{}:{}", c["ASN"], c["LocalData1"], c["LocalData2"]);
                    route.large = list.iter().map(large).collect();
                }
                _ => {}
            }
        }
        route.raw = raw;
        Some(route)
    }

    fn rules(&mut self, family: Family) -> String {
        let family = if family == Family::Ipv4 { "ipv4-flowspec" } else { "ipv6-flowspec" };
        self.ask(&["global", "rib", "-a", family])
    }

    fn announce(&mut self, route: &Theirs) {
        let mut words = vec!["global".to_owned(), "rib".into(), "add".into(), "-a".into()];
        words.push(family_name(route.prefix).into());
        words.push(route.prefix.to_string());
        words.extend(["origin".into(), "igp".into()]);
        if let Some(med) = route.med {
            words.extend(["med".into(), med.to_string()]);
        }
        if !route.communities.is_empty() {
            words.extend(["community".into(), route.communities.join(",")]);
        }
        if !route.large.is_empty() {
            words.extend(["large-community".into(), route.large.join(",")]);
        }
        self.ask(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn withdraw(&mut self, prefix: Prefix) {
        self.ask(&["global", "rib", "del", "-a", family_name(prefix), &prefix.to_string()]);
    }

    fn ask_refresh(&mut self) {
        self.ask(&["neighbor", self.neighbor(), "softresetin"]);
    }

    fn shut_down(&mut self, words: &str) {
        self.ask(&["neighbor", self.neighbor(), "shutdown", "--reason", words]);
    }

    fn said(&mut self) -> String {
        self.ask(&["neighbor", self.neighbor()])
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
