//! What an agent costs while nothing happens: processor and memory, part by part.
//!
//! Lab: a site with 8 upstreams, each a BIRD in a namespace of its own, and NSD on the service addresses. First the sessions
//! alone, then with BFD on all, then with the checks as well. Processor time is the kernel's account of the agent and its
//! watchdog, over [`MEASURED`] after everything has come up; beside BFD stands what the BIRDs take for the same packets.
//! How often the agent waits says how often it is woken: that figure depends on no other load of the machine.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::Row;
use super::inside::{self, Process, acknowledged, bird, sh, start, status, until};
use crate::command;

/// Goal of all together, per cent of a core.
const GOAL_CPU: f64 = 1.0;

/// Goal of resident memory, MiB.
const GOAL_MIB: f64 = 25.0;

/// How long is measured.
const MEASURED: Duration = Duration::from_secs(30);

/// What processor time over [`MEASURED`] can tell apart, per cent.
const RESOLUTION: f64 = 0.04;

/// Sessions begin BFD with a packet a second, and the first keepalives come close together.
const SETTLE: Duration = Duration::from_secs(5);

const UPSTREAMS: u32 = 8;
const CHECKS: usize = 20;

/// What runs beside the sessions.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Part {
    name: &'static str,
    bfd: bool,
    checks: usize,
}

const PARTS: [Part; 4] = [
    Part { name: "8 BGP sessions", bfd: false, checks: 0 },
    Part { name: "8 BGP sessions with BFD 50 ms x 3", bfd: true, checks: 0 },
    Part { name: "8 BGP sessions, 20 DNS checks at 100 ms", bfd: false, checks: CHECKS },
    Part { name: "8 BGP sessions with BFD, 20 DNS checks", bfd: true, checks: CHECKS },
];

/// All rows.
pub fn run() -> Result<Vec<Row>, String> {
    if !command::installed("nsd") {
        return Err("nsd is not installed: cargo xtask setup".to_owned());
    }
    inside::rows("idle", 1, |binary| {
        network()?;
        let _nsd = nsd()?;
        let mut rows = Vec::new();
        for part in PARTS {
            rows.extend(measure(binary, part)?);
        }
        Ok(rows)
    })
}

fn network() -> Result<(), String> {
    let links: String = (1..=UPSTREAMS)
        .map(|i| {
            format!(
                "ip netns add up{i}; ip -n up{i} link set lo up\n\
                 ip link add u{i} netns site type veth peer name u0 netns up{i}\n\
                 ip -n site addr add 192.0.2.{}/30 dev u{i}; ip -n up{i} addr add 192.0.2.{}/30 dev u0\n\
                 ip -n site link set u{i} up; ip -n up{i} link set u0 up\n",
                4 * i + 2,
                4 * i + 1
            )
        })
        .collect();
    sh(&format!("ip netns add site; ip -n site link set lo up\n{links}"))
}

/// NSD on every address, those that come later included.
fn nsd() -> Result<Process, String> {
    let zone = "$ORIGIN example.com.\n@ 60 SOA ns hostmaster 1 3600 600 86400 60\n@ 60 NS ns\nns 60 A 198.51.100.53\n\
                @ 60 A 198.51.100.53\n";
    let configuration = "server:\n ip-address: 198.51.100.53\n ip-address: 2001:db8:53::53\n ip-transparent: yes\n \
         server-count: 1\n username: \"\"\n zonesdir: \"/run\"\n pidfile: \"\"\n database: \"\"\n xfrdfile: \"\"\n \
         zonelistfile: \"/run/nsd.list\"\n xfrdir: \"/run\"\nremote-control:\n control-enable: no\n\
         zone:\n name: example.com\n zonefile: example.com.zone\n";
    fs::write("/run/example.com.zone", zone).map_err(|e| e.to_string())?;
    fs::write("/run/nsd.conf", configuration).map_err(|e| e.to_string())?;
    start("ip netns exec site nsd -d -c /run/nsd.conf")
}

fn service(part: Part) -> String {
    let bfd = if part.bfd { "bfd = { interval = \"50ms\", multiplier = 3 }\n" } else { "" };
    let upstreams = (1..=UPSTREAMS)
        .map(|i| format!("[[site.upstream]]\nasn = {}\naddress = \"192.0.2.{}\"\n{bfd}", 65_000 + i, 4 * i + 1));
    let checks = (0..part.checks).map(|i| {
        let server = ["198.51.100.53", "[2001:db8:53::53]"][i % 2];
        format!(
            "[[check]]\nname = \"answers-{i}\"\nkind = \"dns\"\ntarget = \"{server}:53\"\nquery = \"example.com A\"\n\
             every = \"100ms\"\ntimeout = \"80ms\"\n"
        )
    });
    // Without any other check: one that costs nothing to speak of.
    let own = "[[check]]\nkind = \"tcp\"\ntarget = \"198.51.100.53:53\"\nevery = \"10s\"\nrise = 1\n";
    format!(
        "[service]\nname = \"bench\"\nasn = 64500\nprefixes = [\"198.51.100.0/24\", \"2001:db8:53::/48\"]\n\
         addresses = [\"198.51.100.53\", \"2001:db8:53::53\"]\n[agent]\nstate = \"/run/bench.state\"\ndrain = \"0s\"\n\
         {own}{}[[site]]\nname = \"a\"\nlocation = \"AMS\"\n{}",
        checks.collect::<String>(),
        upstreams.collect::<String>()
    )
}

fn birds(part: Part) -> Result<Vec<Process>, String> {
    let (protocol, on) = match part.bfd {
        true => ("protocol bfd { interface \"u0\" { interval 50 ms; multiplier 3; }; }\n", "bfd on;"),
        false => ("", ""),
    };
    (1..=UPSTREAMS)
        .map(|i| {
            let (ours, theirs, asn) = (4 * i + 1, 4 * i + 2, 65_000 + i);
            let session = format!(
                "{protocol}protocol bgp site {{ local 192.0.2.{ours} as {asn}; neighbor 192.0.2.{theirs} as 64500; {on} \
                 ipv4 {{ import all; export none; }}; }}\n"
            );
            bird(&format!("up{i}"), &session)
        })
        .collect()
}

fn measure(binary: &Path, part: Part) -> Result<Vec<Row>, String> {
    let birds = birds(part)?;
    let agent = inside::agent(binary, &service(part))?;
    until("announced to all, every check up, BFD up", || {
        let bfd = !part.bfd || bfd_up(binary) == UPSTREAMS as usize;
        bfd && acknowledged(binary, UPSTREAMS as usize) && checks_up(binary) == part.checks + 1
    })?;
    sleep(SETTLE);
    let figures = || (agent.cpu_s(), agent.waits(), birds.iter().map(Process::cpu_s).sum::<f64>());
    let before = figures();
    sleep(MEASURED);
    let after = figures();
    let measured_s = MEASURED.as_secs_f64();
    let cpu = (after.0 - before.0) / measured_s * 100.0;
    let row = |what: &str, value, unit, goal| Row::new(format!("idle: {}, {what}", part.name), value, unit, goal);
    let all = part == PARTS[PARTS.len() - 1];
    let mut share = row("CPU", cpu, "%", all.then_some(GOAL_CPU));
    if part.bfd {
        share = share.beside((after.2 - before.2) / measured_s * 100.0, RESOLUTION);
    }
    let woken = row("woken", (after.1 - before.1) as f64 / measured_s, "/s", None);
    let resident = row("resident", agent.resident_mib(), "MiB", all.then_some(GOAL_MIB));
    Ok(vec![share, woken, resident])
}

fn checks_up(binary: &Path) -> usize {
    count(binary, "checks", |check| check["up"] == true)
}

fn bfd_up(binary: &Path) -> usize {
    count(binary, "peers", |peer| peer["bfd"]["state"] == "up")
}

fn count(binary: &Path, list: &str, is: impl Fn(&serde_json::Value) -> bool) -> usize {
    let status = status(binary).unwrap_or_default();
    status[list].as_array().into_iter().flatten().filter(|each| is(each)).count()
}
