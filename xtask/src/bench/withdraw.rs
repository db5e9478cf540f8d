//! From the death of the served process to the withdrawal on the wire, idle and behind a full table; memory.
//!
//! Lab: a site with two upstreams (BIRD), one of which sends 1,000,000 routes. The site's process is killed; tcpdump on the
//! other upstream's side of the link stamps the UPDATE. The figure holds everything: the kernel's end of the process, its
//! notification, the decision, BGP and the socket. Beside it stands the limit: when the parent of the killed process, which
//! waits for nothing else, learns of its end. What the agent alone needs, from its decision until all sockets have the
//! withdrawal, is its own metric (`ubique_failover_duration_seconds`). All of it runs below `unshare`, in namespaces that end
//! with it; tcpdump wants real root for that.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Row;
use super::inside::{self, Process, acknowledged, bird, sh, start, status, until};

/// Goal of a withdrawal, ms.
const GOAL_MS: f64 = 1.0;

/// What two clocks and a capture can tell apart, ms.
const RESOLUTION_MS: f64 = 0.01;

/// Goal of resident memory with 8 upstreams, MiB.
const GOAL_MIB: f64 = 15.0;

/// Routes of the full table.
const ROUTES: u32 = 1_000_000;

/// UPDATEs of the burst that have come in before the process is killed.
const BUSY_MESSAGES: u64 = 20;

/// Kills for each one that counts, at most: one that fell behind the end of the burst does not.
const ATTEMPTS: usize = 5;

/// The withdrawal of 198.51.100.0/24: length, type, withdrawn routes, no attributes (RFC 4271 §4.3).
const WITHDRAWAL: [u8; 11] = [0, 27, 2, 0, 4, 24, 198, 51, 100, 0, 0];

/// All rows.
pub fn run(repeat: usize) -> Result<Vec<Row>, String> {
    inside::rows("withdraw", repeat, |binary| {
        sh(NETWORK)?;
        let mut rows = withdrawals(binary, repeat)?;
        rows.push(memory(binary)?);
        Ok(rows)
    })
}

const NETWORK: &str = "
for n in site up feed; do ip netns add $n; ip -n $n link set lo up; done
ip link add u0 netns site type veth peer name u0 netns up
ip link add f0 netns site type veth peer name f0 netns feed
ip -n site addr add 192.0.2.100/24 dev u0; ip -n site addr add 2001:db8:2::100/64 dev u0 nodad
ip -n site addr add 203.0.113.2/30 dev f0
ip -n feed addr add 203.0.113.1/30 dev f0
for i in 1 2 3 4 5 6 7 8; do ip -n up addr add 192.0.2.$i/24 dev u0; ip -n site addr add 192.0.2.10$i/24 dev u0; done
for l in u0 f0; do ip -n site link set $l up; done
ip -n up link set u0 up; ip -n feed link set f0 up
";

fn service(upstreams: &str) -> String {
    format!(
        "flap = false\n[service]\nname = \"bench\"\nasn = 64500\nprefixes = [\"198.51.100.0/24\", \"2001:db8:53::/48\"]\n\
         addresses = [\"198.51.100.53\", \"2001:db8:53::53\"]\n[agent]\nstate = \"/run/bench.state\"\ndrain = \"0s\"\n\
         metrics = \"127.0.0.1:9430\"\n\
         [[check]]\nkind = \"process\"\npidfile = \"/run/service.pid\"\nevery = \"500ms\"\nrise = 1\nfall = 3\n\
         [[site]]\nname = \"a\"\nlocation = \"AMS\"\n{upstreams}"
    )
}

const CHANNELS: &str = "ipv4 { import all; export none; }; ipv6 { import all; export none; };";

fn agent(binary: &Path, upstreams: &str) -> Result<Process, String> {
    inside::agent(binary, &service(upstreams))
}

fn withdrawals(binary: &Path, repeat: usize) -> Result<Vec<Row>, String> {
    let mut full = String::from("protocol static full { ipv4;\n");
    for i in 0..ROUTES {
        // 32.0.0.0/24 and up: no address of the lab is in there.
        let [a, b, c, _] = ((32 << 24) + (i << 8)).to_be_bytes();
        full += &format!("route {a}.{b}.{c}.0/24 blackhole;\n");
    }
    full += "}\nprotocol bgp site { local 203.0.113.1 as 64502; neighbor 203.0.113.2 as 64500; hold time 90; \
             ipv4 { import all; export all; }; }\n";
    let session =
        format!("protocol bgp site {{ local 192.0.2.1 as 64501; neighbor 192.0.2.100 as 64500; {CHANNELS} }}\n");
    let _birds = [bird("up", &session)?, bird("feed", &full)?];
    let upstreams = "[[site.upstream]]\nasn = 64501\naddress = \"192.0.2.1\"\nfamilies = [\"ipv4\", \"ipv6\"]\n\
                     [[site.upstream]]\nasn = 64502\naddress = \"203.0.113.1\"\n";
    let _agent = agent(binary, upstreams)?;
    let _tcpdump = start(
        "ip netns exec up tcpdump -Z root -i u0 -U --immediate-mode -s 0 --time-stamp-precision=nano -w /run/up.pcap tcp port 179 2> /run/tcpdump.log",
    )?;
    until("tcpdump listens", || fs::metadata("/run/up.pcap").is_ok_and(|m| m.len() >= 24))?;
    let mut rows = Vec::new();
    for (name, loaded) in [("idle", false), ("behind 1,000,000 routes", true)] {
        let mut kills = Vec::new();
        for _ in 0..repeat * ATTEMPTS {
            kills.extend(once(binary, loaded)?);
            if kills.len() == repeat {
                break;
            }
        }
        if kills.len() < repeat {
            return Err(format!("{name}: only {} of {repeat} kills fell into the burst", kills.len()));
        }
        let sorted = |figure: fn(&Kill) -> f64| {
            let mut figures: Vec<f64> = kills.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures
        };
        let (wire, parent, sockets) = (sorted(|k| k.wire_ms), sorted(|k| k.parent_ms), sorted(|k| k.sockets_ms));
        for (what, place) in [("median", repeat / 2), ("worst", repeat - 1)] {
            let to_wire = format!("withdraw: {name}, process killed to wire (beside: to its parent), {what}");
            rows.push(Row::new(to_wire, wire[place], "ms", Some(GOAL_MS)).beside(parent[place], RESOLUTION_MS));
            let to_sockets = format!("withdraw: {name}, decision to all sockets, {what}");
            rows.push(Row::new(to_sockets, sockets[place], "ms", Some(GOAL_MS)));
        }
    }
    Ok(rows)
}

/// UPDATEs received from the upstream with the full table.
fn received(binary: &Path) -> u64 {
    status(binary).and_then(|s| s["peers"][1]["messages"]["received"].as_u64()).unwrap_or_default()
}

/// Asks for the agent's metrics, in its namespace.
const METRICS: &str = "exec 3<>/dev/tcp/127.0.0.1/9430
printf 'GET /metrics HTTP/1.1\\r\\nhost: bench\\r\\nconnection: close\\r\\n\\r\\n' >&3; cat <&3";

/// Withdrawals by the agent's own clock so far: how many, and ms from the decision until they were in all sockets.
fn withdrawn() -> Result<(f64, f64), String> {
    let output = Command::new("ip").args(["netns", "exec", "site", "bash", "-ec", METRICS]).output();
    let text = String::from_utf8_lossy(&output.map_err(|e| e.to_string())?.stdout).into_owned();
    let sample = |suffix: &str| {
        let name = format!("ubique_failover_duration_seconds_{suffix}{{");
        let line = text.lines().find(|line| line.starts_with(&name) && line.contains("phase=\"withdraw\""));
        let value = line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        value.ok_or(format!("no {name} of phase withdraw in\n{text}"))
    };
    Ok((sample("count")?, sample("sum")? * 1e3))
}

/// What one kill led to.
struct Kill {
    /// From its system call to the stamp of the withdrawal.
    wire_ms: f64,
    /// From its system call until the parent of the process knows.
    parent_ms: f64,
    /// From the agent's decision until the withdrawals are in all sockets.
    sockets_ms: f64,
}

/// One kill. `None`: the full table was over before it.
fn once(binary: &Path, loaded: bool) -> Result<Option<Kill>, String> {
    let mut process = Command::new("sleep").arg("1000").spawn().map_err(|e| e.to_string())?;
    fs::write("/run/service.pid", format!("{}\n", process.id())).map_err(|e| e.to_string())?;
    until("announced", || acknowledged(binary, 2))?;
    // The full table has arrived, and nothing else comes.
    let mut before = received(binary);
    until("quiet", || {
        sleep(Duration::from_millis(200));
        let now = received(binary);
        std::mem::replace(&mut before, now) == now
    })?;
    let seen = withdrawals_in("/run/up.pcap").len();
    let (count, sum_ms) = withdrawn()?;
    if loaded {
        sh("birdc -s /run/feed.ctl reload out site")?;
        let begun = received(binary);
        until("the table comes", || received(binary) > begun + BUSY_MESSAGES)?;
    }
    let killed = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?;
    process.kill().map_err(|e| e.to_string())?;
    let _ = process.wait();
    let ended = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?;
    let at_kill = received(binary);
    until("withdrawn on the wire", || withdrawals_in("/run/up.pcap").len() > seen)?;
    if loaded && received(binary) <= at_kill {
        return Ok(None);
    }
    let stamp = withdrawals_in("/run/up.pcap")[seen];
    let since = |at: Duration| at.saturating_sub(killed).as_secs_f64() * 1e3;
    let (now_count, now_sum_ms) = withdrawn()?;
    if now_count != count + 1.0 {
        return Err(format!("the agent counts {} withdrawals for one kill", now_count - count));
    }
    Ok(Some(Kill { wire_ms: since(stamp), parent_ms: since(ended), sockets_ms: now_sum_ms - sum_ms }))
}

/// Stamps of the withdrawals in a capture with nanoseconds.
fn withdrawals_in(path: &str) -> Vec<Duration> {
    let bytes = fs::read(path).unwrap_or_default();
    let word = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let mut stamps = Vec::new();
    let mut at = 24;
    while let (Some(s), Some(ns), Some(length)) = (word(at), word(at + 4), word(at + 8)) {
        let Some(frame) = bytes.get(at + 16..at + 16 + length as usize) else { break };
        if frame.windows(WITHDRAWAL.len()).any(|w| w == WITHDRAWAL) {
            stamps.push(Duration::new(s.into(), ns));
        }
        at += 16 + length as usize;
    }
    stamps
}

/// Resident memory of the agent with its watchdog: 8 sessions of two families each.
fn memory(binary: &Path) -> Result<Row, String> {
    let sessions: String = (1..=8)
        .map(|i| {
            format!("protocol bgp s{i} {{ local 192.0.2.{i} as 64501; neighbor 192.0.2.10{i} as 64500; {CHANNELS} }}\n")
        })
        .collect();
    let upstreams: String = (1..=8)
        .map(|i| {
            format!("[[site.upstream]]\nasn = 64501\naddress = \"192.0.2.{i}\"\nlocal-address = \"192.0.2.10{i}\"\nfamilies = [\"ipv4\", \"ipv6\"]\n")
        })
        .collect();
    let _bird = bird("up", &sessions)?;
    let mut process = Command::new("sleep").arg("1000").spawn().map_err(|e| e.to_string())?;
    fs::write("/run/service.pid", format!("{}\n", process.id())).map_err(|e| e.to_string())?;
    let agent = agent(binary, &upstreams)?;
    until("announced to all", || acknowledged(binary, 8))?;
    let resident = agent.resident_mib();
    let _ = process.kill();
    let _ = process.wait();
    Ok(Row::new("memory: 8 upstreams of two families, agent and watchdog", resident, "MiB", Some(GOAL_MIB)))
}
