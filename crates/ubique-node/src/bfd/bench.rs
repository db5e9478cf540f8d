//! A soak: sessions of 50 ms x 3 with BIRD, and among ourselves, for as long as is asked for.
//!
//! Whoever runs it makes the machine busy meanwhile. A session that goes down is a false alarm: nothing is cut here.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use ubique_model::service;
use ubique_proto::bfd::packet::State;
use ubique_proto::bfd::{Cause, Role};
use ubique_sys::netlink::Netlink;
use ubique_sys::netns::NetNs;
use ubique_sys::process::command_in;

use super::{Driver, Notice, Peer, start};
use crate::clock::now;
use crate::random::seed;

/// What is asked of each session.
const SETTINGS: service::Bfd =
    service::Bfd { interval: Duration::from_millis(50), receive: Duration::from_millis(50), multiplier: 3 };

/// How long the sessions may take to come up; BIRD waits up to 5 s with its first packet.
const PATIENCE: Duration = Duration::from_secs(20);

/// Interval between two looks.
const LOOK: Duration = Duration::from_millis(200);

const BIRD: &str = "/usr/sbin/bird";

/// Ends of a link: ours and the neighbour's.
const ENDS: [[&str; 2]; 2] = [["192.0.2.2", "192.0.2.1"], ["2001:db8::2", "2001:db8::1"]];

/// What a soak saw.
#[derive(Clone, Debug, Serialize)]
pub struct Soak {
    /// How long, min.
    pub minutes: f64,
    /// With BIRD on the other side; absent when it is not installed.
    pub bird: Option<Side>,
    /// Both sides ours, all sessions of both.
    pub ubique: Side,
}

/// The sessions with one kind of neighbour.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Side {
    /// Sessions.
    pub sessions: usize,
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// Times a session went down, on either side.
    pub downs: u64,
    /// Times our thread was away for a detection time.
    pub stalls: u64,
    /// Time between two packets of ours: median, ms.
    pub gap_p50_ms: f64,
    /// 99th percentile.
    pub gap_p99_ms: f64,
    /// 99.9th percentile.
    pub gap_p999_ms: f64,
    /// Longest.
    pub gap_max_ms: f64,
    /// How late our thread ran at worst, ms.
    pub late_max_ms: f64,
    /// What took sessions down: seconds since the machine started, session, cause.
    pub losses: Vec<(f64, u32, Cause)>,
}

impl Side {
    fn add(&mut self, driver: &Driver, losses: &[(f64, u32, Cause)]) {
        self.losses.extend(losses);
        let snapshot = driver.snapshot();
        for session in &snapshot.sessions {
            let counters = session.core.counters;
            self.sessions += 1;
            self.received += counters.received;
            self.sent += counters.sent;
            self.downs += counters.downs;
            self.stalls += counters.stalls;
        }
        let ms = |share| snapshot.gaps.quantile(share).as_secs_f64() * 1e3;
        self.gap_p50_ms = self.gap_p50_ms.max(ms(0.5));
        self.gap_p99_ms = self.gap_p99_ms.max(ms(0.99));
        self.gap_p999_ms = self.gap_p999_ms.max(ms(0.999));
        self.gap_max_ms = self.gap_max_ms.max(snapshot.gaps.longest().as_secs_f64() * 1e3);
        self.late_max_ms = self.late_max_ms.max(snapshot.latest.as_secs_f64() * 1e3);
    }
}

/// Ends BIRD with the soak.
struct Bird(Child);

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs sessions for `duration` in namespaces made below `directory`. Must run where namespaces may be made: in the sandbox.
///
/// # Errors
/// Whatever the kernel refuses, and sessions that do not come up.
pub fn soak(directory: &Path, duration: Duration) -> io::Result<Soak> {
    let link = |name: &str| pair(directory, name);
    let [a, b] = link("ubique")?;
    let drivers = [driver(&a, 0)?, driver(&b, 1)?];
    let with_bird = match Path::new(BIRD).exists() {
        true => {
            let [ours, theirs] = link("bird")?;
            Some((bird(directory, &theirs)?, driver(&ours, 0)?))
        }
        false => None,
    };
    let (_bird, with_bird) = with_bird.unzip();
    let mut all: Vec<Driver> = drivers.into_iter().chain(with_bird).collect();
    let begin = Instant::now();
    let up = |driver: &Driver| driver.snapshot().sessions.iter().filter(|s| s.core.state == State::Up).count() == 2;
    while !all.iter().all(up) {
        if begin.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("the sessions did not come up within {PATIENCE:?}")));
        }
        std::thread::sleep(LOOK);
    }
    let end = Instant::now() + duration;
    let mut losses = vec![Vec::new(); all.len()];
    while Instant::now() < end {
        std::thread::sleep(LOOK);
        for (driver, losses) in all.iter_mut().zip(&mut losses) {
            while let Some(notice) = driver.try_next() {
                if let Notice::State { session, from: State::Up, cause, .. } = notice {
                    losses.push((now().0 as f64 / 1e9, session.0, cause));
                }
            }
        }
    }
    let side = |range: std::ops::Range<usize>| {
        let mut side = Side::default();
        for (driver, losses) in all[range.clone()].iter().zip(&losses[range]) {
            side.add(driver, losses);
        }
        side
    };
    let ubique = side(0..2);
    let bird = (all.len() > 2).then(|| side(2..3));
    Ok(Soak { minutes: duration.as_secs_f64() / 60.0, bird, ubique })
}

/// Two namespaces with a link; the first has the first address of each of [`ENDS`].
fn pair(directory: &Path, name: &str) -> io::Result<[NetNs; 2]> {
    let create = |end: &str| NetNs::create_at(&directory.join(format!("{name}-{end}")));
    let namespaces = [create("a")?, create("b")?];
    Netlink::open()?.add_veth(("l0", Some(&namespaces[0])), ("l0", Some(&namespaces[1])))?;
    for (end, namespace) in namespaces.iter().enumerate() {
        // No duplicate address detection: the addresses are there at once.
        namespace.run(|| fs::write("/proc/sys/net/ipv6/conf/l0/accept_dad", "0"))??;
        let mut netlink = Netlink::open_in(namespace)?;
        let index = netlink.link_index("l0")?;
        netlink.set_up(index)?;
        for (addresses, length) in ENDS.iter().zip([30, 126]) {
            let address = format!("{}/{length}", addresses[end]);
            netlink.add_address(index, address.parse().map_err(io::Error::other)?)?;
        }
    }
    Ok(namespaces)
}

/// Sessions over both families from one end of a link.
fn driver(namespace: &NetNs, end: usize) -> io::Result<Driver> {
    let mut peers = Vec::new();
    for addresses in ENDS {
        let address = |n: usize| addresses[n].parse::<IpAddr>().map_err(io::Error::other);
        let (local, remote) = (Some(address(end)?), address(1 - end)?);
        peers.push(Peer { remote, interface: None, local, hops: None, settings: SETTINGS, role: Role::Active });
    }
    namespace.run(|| start(peers, seed(), None, PATIENCE, None))?
}

/// BIRD at the second end. It stands for a router that is not busy, so it is preferred as far as nice goes.
fn bird(directory: &Path, namespace: &NetNs) -> io::Result<Bird> {
    let file = |kind: &str| directory.join(format!("soak-bird.{kind}")).display().to_string();
    let neighbors: String =
        ENDS.iter().map(|[ours, theirs]| format!(" neighbor {ours} dev \"l0\" local {theirs};")).collect();
    let configuration = format!(
        "router id 192.0.2.1;\nprotocol device {{}}\nprotocol bfd {{ interface \"l0\" {{ interval 50 ms; multiplier 3; }};\
         {neighbors} }}\n"
    );
    fs::write(file("conf"), configuration)?;
    let mut command = command_in(Path::new("/usr/bin/nice"), Some(namespace));
    command.args(["-n", "-20", BIRD, "-f", "-c", &file("conf"), "-s", &file("sock"), "-P", &file("pid")]);
    Ok(Bird(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
}
