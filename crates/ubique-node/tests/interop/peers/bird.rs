//! BIRD 2, over its control socket, which speaks what `birdc` does.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use ubique_model::{Family, Prefix};
use ubique_proto::bgp::family::AddressFamily;
use ubique_sys::netns::NetNs;

use crate::lab::{self, Process};
use crate::peer::{Kind, Opens, Peer, SECOND_AS, Setup, Theirs};
use crate::seen::{self, Seen};

const CONFIG: &str = "/run/bird.conf";
const LOG: &str = "/run/bird-messages.log";
const CONTROL: &str = "/run/bird.ctl";

pub struct Bird {
    process: Process,
    control: Option<BufReader<UnixStream>>,
    setup: Setup,
}

/// The configuration. Its protocol towards us is `ubique`.
fn config(setup: &Setup) -> String {
    let routes = |family: Family, name: &str| {
        let lines: String = setup.announce.iter().filter(|r| Family::of(&r.prefix) == family).map(route).collect();
        format!("protocol static static_{name} {{ {name};\n{lines}}}\n")
    };
    let mut channels = String::new();
    let mut tables = String::new();
    for family in setup.families.iter() {
        // A MED counts only when the filter sets it.
        let med = |r: &Theirs| r.med.map(|med| format!("if net = {} then bgp_med = {med}; ", r.prefix));
        let meds: String =
            setup.announce.iter().filter(|r| family == Family::of(&r.prefix).into()).filter_map(med).collect();
        let filters = format!("import all; export filter {{ if source != RTS_STATIC then reject; {meds}accept; }};");
        channels.push_str(&match family {
            AddressFamily::Ipv4Unicast => format!(" ipv4 {{ {filters} {channel} }};\n", channel = setup.channel),
            AddressFamily::Ipv6Unicast => format!(" ipv6 {{ {filters} {channel} }};\n", channel = setup.channel),
            AddressFamily::Ipv4FlowSpec => " flow4 { table rules4; import all; export none; };\n".into(),
            AddressFamily::Ipv6FlowSpec => " flow6 { table rules6; import all; export none; };\n".into(),
        });
        tables.push_str(match family {
            AddressFamily::Ipv4FlowSpec => "flow4 table rules4;\n",
            AddressFamily::Ipv6FlowSpec => "flow6 table rules6;\n",
            _ => "",
        });
    }
    let passive = if setup.opens == Opens::Us { " passive yes;\n" } else { "" };
    let password = setup.password.map(|word| format!(" password \"{word}\";\n")).unwrap_or_default();
    let gtsm = if setup.gtsm { " ttl security on;\n" } else { "" };
    let as4 = if setup.two_octet { " enable as4 no;\n" } else { "" };
    let second = match setup.second {
        true => format!(
            "protocol bgp second {{ local {} as {}; neighbor {} as {SECOND_AS}; passive yes; {} {{ import all; export none; }}; }}\n",
            setup.theirs,
            setup.local_as,
            lab::second(setup.family),
            if setup.family == Family::Ipv4 { "ipv4" } else { "ipv6" },
        ),
        false => String::new(),
    };
    format!(
        "router id {id};\nlog \"{LOG}\" all;\ndebug protocols {{ states, events, packets }};\n{tables}{global}\nprotocol device {{}}\n\
         {routes4}{routes6}protocol bgp ubique {{\n local {theirs} as {local_as};\n neighbor {ours} as {remote_as};\n \
         hold time {hold};\n connect delay time 1; connect retry time 1; error wait time 1, 2;\n\
         {passive}{password}{gtsm}{as4}{extra}\n{channels}}}\n{second}",
        id = lab::theirs(Family::Ipv4),
        global = setup.global,
        routes4 = routes(Family::Ipv4, "ipv4"),
        routes6 = routes(Family::Ipv6, "ipv6"),
        theirs = setup.theirs,
        ours = setup.ours,
        local_as = setup.local_as,
        remote_as = setup.remote_as,
        hold = setup.hold_time_s,
        extra = setup.extra,
    )
}

fn route(route: &Theirs) -> String {
    let mut set = String::new();
    for community in &route.communities {
        set.push_str(&format!("bgp_community.add(({})); ", community.replace(':', ",")));
    }
    for community in &route.large {
        set.push_str(&format!("bgp_large_community.add(({})); ", community.replace(':', ",")));
    }
    format!(" route {} blackhole {{ {set}}};\n", route.prefix)
}

/// Whether it accepts a configuration, and what it says.
pub fn takes(setup: &Setup, ns: &NetNs) -> (bool, String) {
    lab::write(CONFIG, &config(setup));
    lab::output(ns, Kind::Bird.program(), &["-p", "-c", CONFIG])
}

impl Bird {
    pub fn start(setup: &Setup, ns: &NetNs) -> Bird {
        lab::write(CONFIG, &config(setup));
        let mut arguments = vec!["-f", "-c", CONFIG, "-s", CONTROL, "-P", "/run/bird.pid"];
        arguments.extend(setup.restarted.then_some("-R"));
        let process = Process::start(Some(ns), Kind::Bird.program(), &arguments);
        Bird { process, control: None, setup: setup.clone() }
    }

    /// Lines until one whose code is followed by a space: the last of a reply.
    fn reply(&mut self) -> String {
        let control = self.control.as_mut().expect("connected");
        let mut text = String::new();
        loop {
            let mut line = String::new();
            assert!(control.read_line(&mut line).unwrap() > 0, "BIRD closed its control connection");
            let coded = line.len() > 4 && line.as_bytes()[..4].iter().all(u8::is_ascii_digit);
            text.push_str(&line);
            if coded && line.as_bytes()[4] == b' ' {
                return text;
            }
        }
    }

    fn ask(&mut self, command: &str) -> String {
        let control = self.control.as_mut().expect("connected");
        control.get_mut().write_all(format!("{command}\n").as_bytes()).unwrap();
        self.reply()
    }

    fn reconfigure(&mut self) {
        lab::write(CONFIG, &config(&self.setup));
        let reply = self.ask("configure");
        assert!(["0003", "0004"].iter().any(|code| reply.contains(code)), "{reply}");
    }
}

impl Peer for Bird {
    fn ready(&mut self) -> bool {
        let Ok(stream) = UnixStream::connect(CONTROL) else {
            return false;
        };
        self.control = Some(BufReader::new(stream));
        self.reply();
        true
    }

    fn established(&mut self) -> bool {
        self.ask("show protocols ubique").contains("Established")
    }

    fn route(&mut self, prefix: Prefix) -> Option<Seen> {
        let raw = self.ask(&format!("show route {prefix} protocol ubique all"));
        let field = |name: &str| {
            let line = raw.lines().find_map(|line| line.trim().strip_prefix(name));
            line.map(|rest| rest.trim_start_matches(':').trim().to_owned())
        };
        let list = |name: &str| -> Vec<String> {
            let text = field(name).unwrap_or_default();
            text.split(')').filter(|c| !c.trim().is_empty()).map(seen::community).collect()
        };
        Some(Seen {
            as_path: seen::as_path(&field("BGP.as_path")?),
            next_hop: field("BGP.next_hop")?.split_whitespace().next()?.to_owned(),
            med: field("BGP.med").map(|m| m.parse().unwrap()),
            local_pref: field("BGP.local_pref").map(|m| m.parse().unwrap()),
            communities: list("BGP.community").into_iter().collect(),
            large: list("BGP.large_community").into_iter().collect(),
            raw,
        })
    }

    fn rules(&mut self, family: Family) -> String {
        let table = if family == Family::Ipv4 { "rules4" } else { "rules6" };
        self.ask(&format!("show route table {table} all"))
    }

    fn announce(&mut self, route: &Theirs) {
        self.setup.announce.retain(|r| r.prefix != route.prefix);
        self.setup.announce.push(route.clone());
        self.reconfigure();
    }

    fn withdraw(&mut self, prefix: Prefix) {
        self.setup.announce.retain(|r| r.prefix != prefix);
        self.reconfigure();
    }

    fn ask_refresh(&mut self) {
        self.ask("reload in ubique");
    }

    fn bfd_up(&mut self) -> bool {
        let reply = self.ask("show bfd sessions");
        reply.lines().any(|line| line.contains(&self.setup.ours) && line.contains(" Up "))
    }

    fn shut_down(&mut self, words: &str) {
        self.ask(&format!("disable ubique \"{words}\""));
    }

    fn said(&mut self) -> String {
        self.ask("show protocols all ubique")
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn log(&mut self) -> String {
        std::fs::read_to_string(LOG).unwrap_or_default() + &self.process.log()
    }
}
