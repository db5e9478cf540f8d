//! A full table: BIRD feeds 1,000,000 IPv4 routes with 150,000 sets of attributes into ubique, GoBGP and FRR, one after
//! the other, each alone in a network namespace of its own, with the same feed in the same run.
//!
//! Time runs from the TCP connection to the moment the daemon says that it has every route; each says it in its own way,
//! asked every [`LOOK_EVERY`]. Memory is what is resident a moment later.

mod daemons;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use self::daemons::{Bird, Daemon, Frr, Gobgp, Ubique};
use super::{Row, release_binary};
use crate::command::{self, root};

/// Routes fed.
pub const ROUTES: usize = 1_000_000;

/// Distinct sets of attributes among them.
pub const ATTRIBUTE_SETS: usize = 150_000;

/// How often a daemon is asked how far it is: often enough for figures of seconds, rarely enough not to count.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often the kernel is asked for the connection.
const CONNECTION_EVERY: Duration = Duration::from_millis(2);

/// Beyond it something is wrong; GoBGP takes minutes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(400);

/// After the last route, for what a daemon does with it.
const REST: Duration = Duration::from_secs(2);

/// Some daemons give memory back only after a while.
const LATER: Duration = Duration::from_secs(10);

/// Seed of the feed.
const SEED: u64 = 1;

/// What one daemon took.
struct Taken {
    seconds: f64,
    resident_mib: f64,
    grown_mib: f64,
    later_mib: f64,
}

/// All rows.
pub fn run() -> Result<Vec<Row>, String> {
    for program in ["ip", "bird", "birdc"] {
        if !command::installed(program) {
            return Err(format!("the table needs {program}"));
        }
    }
    let mut rows = vec![];
    let directory = root().join("target/bench/table");
    fs::create_dir_all(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    let feed = directory.join("bird.conf");
    fs::write(&feed, daemons::feed(&directory.join(daemons::LOG), SEED, ROUTES, ATTRIBUTE_SETS))
        .map_err(|e| e.to_string())?;
    let binary = release_binary()?;
    let ours = take(&Ubique::new(binary.clone(), None), &directory, &feed)?;
    let mut peers: Vec<(&str, Taken)> = vec![];
    if command::installed("gobgpd") {
        peers.push(("GoBGP", take(&Gobgp, &directory, &feed)?));
    }
    if command::installed("bgpd") {
        peers.push(("FRR", take(&Frr, &directory, &feed)?));
    }
    let goal = |figure: fn(&Taken) -> f64| peers.iter().map(|(_, t)| figure(t)).fold(None, least);
    let seconds = Row::new("table: 1,000,000 routes from BIRD, stored after", ours.seconds, "s", goal(|t| t.seconds));
    let resident = goal(|t| t.resident_mib).map(|mib| mib / 2.0);
    let resident = Row::new("table: resident memory with them", ours.resident_mib, "MiB", resident);
    let grown = Row::new("table: resident memory grown by", ours.grown_mib, "MiB", None);
    let later = goal(|t| t.later_mib).map(|mib| mib / 2.0);
    let later = Row::new("table: resident memory 10 s later", ours.later_mib, "MiB", later);
    for (name, peer) in &peers {
        let against = |row: &Row, figure: f64| {
            Row { name: format!("{} ({name})", row.name), ..row.clone() }.beside(figure, f64::EPSILON)
        };
        rows.push(against(&seconds, peer.seconds));
        rows.push(against(&resident, peer.resident_mib));
        rows.push(against(&grown, peer.grown_mib));
        rows.push(against(&later, peer.later_mib));
    }
    if peers.is_empty() {
        rows.extend([seconds, resident, grown, later]);
    }
    rows.extend(limited(&Ubique::new(binary, Some(10)), &directory, &feed)?);
    rows.extend(micro()?);
    Ok(rows)
}

fn least(least: Option<f64>, figure: f64) -> Option<f64> {
    Some(least.map_or(figure, |l| l.min(figure)))
}

/// The cores alone: bytes in, Adj-RIB-In out, in one process without sockets.
fn micro() -> Result<Vec<Row>, String> {
    command::cargo(&["build", "--release", "--locked", "--package", "ubique-proto", "--example", "table"])?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let result = super::json_of(&target.join("release/examples/table"), &[])?;
    let figure = |key: &str| result[key].as_f64().ok_or(format!("no {key} in {result}"));
    Ok(vec![
        Row::new("table: parse and store, CPU for each route", figure("cpu_ns_per_route")?, "ns", Some(300.0)),
        Row::new("table: resident octets for each route", figure("octets_per_route")?, "B", Some(100.0)),
    ])
}

/// Feeds one daemon.
fn take(daemon: &dyn Daemon, directory: &Path, feed: &Path) -> Result<Taken, String> {
    eprintln!("» {}", daemon.name());
    let site = Site::new(directory)?;
    let bird = Bird::start(&site, feed)?;
    let running = site.start("daemon", &daemon.command(directory)?)?;
    wait(&format!("{} to be up", daemon.name()), || daemon.received(&site).is_some())?;
    sleep(REST);
    let before = resident_mib(running.0.id())?;
    bird.enable()?;
    let pid = running.0.id();
    wait_every(CONNECTION_EVERY, "a connection", || connected(pid))?;
    let start = Instant::now();
    wait(&format!("{} to have every route", daemon.name()), || daemon.received(&site) == Some(ROUTES))?;
    let seconds = start.elapsed().as_secs_f64();
    sleep(REST);
    let resident = resident_mib(pid)?;
    sleep(LATER);
    let later = resident_mib(pid)?;
    eprintln!("» {seconds:.2} s, {resident:.1} MiB, later {later:.1} MiB, {before:.1} MiB before");
    Ok(Taken { seconds, resident_mib: resident, grown_mib: resident - before, later_mib: later })
}

/// A session whose neighbour exceeds its limit, beside one that does not; times are those of BIRD's log.
fn limited(daemon: &Ubique, directory: &Path, feed: &Path) -> Result<Vec<Row>, String> {
    let site = Site::new(directory)?;
    let bird = Bird::start(&site, feed)?;
    let _running = site.start("daemon", &daemon.command(directory)?)?;
    bird.enable_other()?;
    let others = || daemon.received_from(&site, daemons::OTHER);
    wait("the other session's routes", || others() == Some(daemons::FEW))?;
    bird.enable()?;
    let limit = "feed: Received: Maximum number of prefixes reached";
    wait("the end of the session", || !bird.logged(limit).is_empty())?;
    sleep(REST);
    let first = |words: &str| bird.logged(words).into_iter().next().ok_or(format!("BIRD did not log: {words}"));
    let (up, (end, said)) = (first("feed: State changed to up")?.0, first(limit)?);
    // Family 1/1 and the limit, 10 (RFC 4486 §4).
    if !said.ends_with("0001010000000a") {
        return Err(format!("family and limit are missing: {said}"));
    }
    let lost = bird.logged("beside: State changed to stop").len();
    let routes_lost = daemons::FEW.saturating_sub(others().unwrap_or(0));
    Ok(vec![
        Row::new("table: max-prefix 10, session up to its end", (end - up) * 1000.0, "ms", Some(1000.0)),
        Row::new("table: max-prefix 10, other sessions lost", lost as f64, "", Some(0.0)),
        Row::new("table: max-prefix 10, routes of others lost", routes_lost as f64, "", Some(0.0)),
    ])
}

/// Two namespaces with a link, and the processes in them; everything goes when it does.
pub struct Site {
    feeder: String,
    receiver: String,
    directory: PathBuf,
}

/// A process that ends with its owner.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Site {
    fn new(directory: &Path) -> Result<Site, String> {
        let name = |end: &str| format!("ubique-table-{}-{end}", std::process::id());
        let site = Site { feeder: name("feeder"), receiver: name("receiver"), directory: directory.to_owned() };
        let (a, b) = (&site.feeder, &site.receiver);
        ip(&["netns", "add", a])?;
        ip(&["netns", "add", b])?;
        ip(&["-n", a, "link", "add", "feed", "type", "veth", "peer", "name", "feed", "netns", b])?;
        for (end, addresses) in
            [(a, vec![daemons::FEEDER, daemons::OTHER]), (b, vec![daemons::RECEIVER, daemons::SECOND])]
        {
            for address in addresses {
                ip(&["-n", end, "address", "add", &format!("{address}/29"), "dev", "feed"])?;
            }
            ip(&["-n", end, "link", "set", "feed", "up"])?;
            ip(&["-n", end, "link", "set", "lo", "up"])?;
        }
        Ok(site)
    }

    /// Starts a program in the receiver's namespace, or the feeder's; its output goes to a file.
    fn start(&self, name: &str, arguments: &[String]) -> Result<Running, String> {
        let file = |suffix: &str| fs::File::create(self.directory.join(format!("{name}.{suffix}")));
        let (out, errors) = (file("out").map_err(|e| e.to_string())?, file("err").map_err(|e| e.to_string())?);
        let ns = if name == "bird" { &self.feeder } else { &self.receiver };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", ns]).args(arguments).stdin(Stdio::null()).stdout(out).stderr(errors);
        command.spawn().map(Running).map_err(|e| format!("{}: {e}", arguments.join(" ")))
    }

    /// What a program in the receiver's namespace prints; empty when it fails.
    fn ask(&self, arguments: &[&str]) -> String {
        let output = Command::new("ip").args(["netns", "exec", &self.receiver]).args(arguments).output();
        output.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).into_owned())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for name in [&self.feeder, &self.receiver] {
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    output(Command::new("ip").args(arguments)).map(drop)
}

fn output(command: &mut Command) -> Result<Output, String> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(|e| format!("{shown}: {e}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn wait(what: &str, done: impl FnMut() -> bool) -> Result<(), String> {
    wait_every(LOOK_EVERY, what, done)
}

fn wait_every(interval: Duration, what: &str, mut done: impl FnMut() -> bool) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > until {
            return Err(format!("waited {} s for {what}", PATIENCE.as_secs()));
        }
        sleep(interval);
    }
    Ok(())
}

/// Whether the namespace of a process has an established connection of port 179, as the kernel lists them.
fn connected(pid: u32) -> bool {
    const ESTABLISHED: &str = "01";
    const BGP: &str = ":00B3";
    let text = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let bgp = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.len() > 3 && fields[3] == ESTABLISHED && (fields[1].ends_with(BGP) || fields[2].ends_with(BGP))
    };
    text.lines().any(bgp)
}

fn resident_mib(pid: u32) -> Result<f64, String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| format!("the daemon is gone: {e}"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: f64| kib / 1024.0).ok_or_else(|| "no VmRSS".into())
}
