//! Floods and forgeries with real packets, while connections tick: none is lost, none waits, and nothing is believed that should not be.
//!
//! Clients without timestamps are found by asking, so somebody plays the agents, which tell who owns a connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ubique_edge::{Counter, Counters, Tier};
use ubique_proto::sessions::{Flow, timestamp};

use crate::attacker::{Attacker, is_of_a_stranger, readdressed, receiver, wall_ms};
use crate::frame::{self, Tcp, timestamps};
use crate::lab::{Clients, Lab, NO_LOSS, SOON_MS};
use crate::net::{End, Family, PORT, SITES, in_namespace, set_client_ports};
use crate::plane::{KEYS, Setup, site_of};
use crate::runner::wait_until;
use crate::traffic::{Fate, Kind, Record, TICK};

const CONNECTIONS: usize = 60;
/// At the same time, one after the other.
const SHORT: usize = 2;
/// Frames of each kind.
const FRAMES: usize = 20_000;
const FRAMES_PER_S: u32 = 60_000;
/// Made, and looked at, at a time.
const PORTION: usize = 250;
/// One in so many forged packets may be forwarded.
const SHARE: usize = 100;
/// So little that a flood passes it.
const BUDGET_PER_S: u32 = 5_000;
const PROBES_PER_S: u32 = 2_000;
/// Of them, for packets whose timestamps nobody vouches for.
const DOUBTFUL_SHARE: u32 = 10;
/// What a budget allows at once (BURST_NS).
const BURST: Duration = Duration::from_millis(100);
/// Of clients: few, so that connections begin in the place of others that are in TIME-WAIT.
const PORTS: std::ops::RangeInclusive<u16> = 50_000..=50_255;
/// How long a link of a busy machine may hold packets.
const SETTLE_MS: u64 = 1_000;
/// One in so many may be lost: a veth holds 256 packets, and whoever takes them may have to wait for a processor.
const LOSS: usize = 10;
/// Captured frames that are kept.
const KEPT: usize = 500;

/// The route leads here; the others' connections are forwarded.
const HERE: usize = 0;
const OWNER: usize = 1;
const OTHER: usize = 2;

/// What came of one kind of frames.
struct Outcome {
    before: Vec<Counters>,
    after: Vec<Counters>,
    /// Of strangers, sent on to another site.
    forwarded: usize,
    took: Duration,
}

impl Outcome {
    fn at(&self, site: usize, counter: Counter) -> u64 {
        self.after[site][counter] - self.before[site][counter]
    }
}

/// Somebody attacks a lab.
pub struct Siege<'a> {
    lab: &'a Lab,
    attacker: Attacker,
    family: Family,
    name: String,
    /// How long connections that are not to be harmed may wait.
    patience: Duration,
}

/// With clients of few ports, and sites with limits that a flood passes.
pub fn lab(family: Family, tier: Tier) -> Lab {
    let setup = Setup { budget_per_s: BUDGET_PER_S, probes_per_s: PROBES_PER_S, ..Setup::new(tier, Family::V4) };
    let lab = Lab::new(family, Clients::Mixed, Some(setup), None);
    lab.net.clients.iter().for_each(|ns| in_namespace(ns, || set_client_ports(PORTS)));
    lab.begin_everywhere(CONNECTIONS);
    lab.flip(HERE);
    lab.open(Kind::Short, SHORT);
    lab
}

/// All of it, one after the other.
pub fn run(family: Family, tier: Tier) {
    let mut lab = lab(family, tier);
    Siege::new(&lab, family, format!("{tier:?} {family:?}"), TICK + NO_LOSS).all();
    // What a site remembers is gone, handshakes that others began in the name of clients are not.
    lab.planes[HERE].restart(&lab.net, HERE);
    lab.flip_around(SITES);
    let siege = Siege::new(&lab, family, format!("{tier:?} {family:?}"), TICK + NO_LOSS);
    lab.flip(HERE);
    let seen = siege.seen_between_sites();
    let summary = lab.finish();
    lab.print(&format!("attacks {}", siege.name), &summary, &lab.counters(), &lab.net.kernel_counters());
    assert_eq!((summary.lost, summary.resets, summary.content_wrong), (0, 0, false), "{}", siege.name);
    siege.too_late(seen);
}

/// True in the end, also when something fails.
struct Set<'a>(&'a AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Tells sites who owns connections that they have asked for.
fn agents(lab: &Lab, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        for (number, plane) in lab.planes.iter().enumerate() {
            for found in plane.with(|edge| edge.found().unwrap().take(KEPT)) {
                let origin = &lab.planes[usize::from(found.origin.number())];
                origin.with(move |edge| edge.remember(&found.flow, site_of(number)).unwrap());
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Siege<'_> {
    pub fn new(lab: &Lab, family: Family, name: String, patience: Duration) -> Siege<'_> {
        Siege { lab, attacker: Attacker::new(&lab.net, family), family, name, patience }
    }

    /// Every kind once.
    pub fn all(&self) {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _end = Set(&done);
            scope.spawn(|| agents(self.lab, &done));
            self.forge();
            self.garbage();
            self.shims();
            self.replay();
            self.through_another_site();
            self.lab.flip(HERE);
        });
    }

    /// Sends [`FRAMES`] that `make` makes to site `to`, and meanwhile changes the route, if `flips`.
    fn flood(&self, to: usize, flips: bool, make: impl Fn() -> Vec<u8> + Sync) -> Outcome {
        let before = self.lab.counters();
        let start = Instant::now();
        let forwarded = std::thread::scope(|scope| {
            let flooding = scope.spawn(|| {
                let mut forwarded = 0;
                self.attacker.captured(to, 0);
                for _ in 0..FRAMES / PORTION {
                    let frames: Vec<_> = (0..PORTION).map(|_| make()).collect();
                    self.attacker.send(to, FRAMES_PER_S, &frames);
                    let sent = self.attacker.captured(to, usize::MAX);
                    forwarded += sent.iter().filter(|frame| is_of_a_stranger(frame)).count();
                }
                forwarded
            });
            if flips {
                self.lab.flip(OWNER);
                self.lab.flip(HERE);
            }
            flooding.join().unwrap()
        });
        Outcome { before, after: self.lab.counters(), forwarded, took: start.elapsed() }
    }

    /// Ticking connections of these sites have not waited for a packet that was lost.
    fn assert_unharmed(&self, what: &str, sites: &[usize]) {
        let seen = self.lab.seen();
        let of = |record: &&Record| {
            record.kind == Some(Kind::Ticking) && record.site.is_some_and(|site| sites.contains(&site.into()))
        };
        let late: Duration = self.lab.clients.iter().map(|client| client.late()).sum();
        let late = late + self.lab.servers.iter().map(|server| server.late()).max().unwrap_or_default();
        let longest = seen.iter().filter(of).map(|record| record.longest.max(record.last.elapsed())).max();
        eprintln!("    {}: {what}: longest wait {:.1} ms", self.name, longest.unwrap_or_default().as_secs_f64() * 1e3);
        let lost: Vec<_> = seen.iter().filter(|record| !matches!(record.fate, Fate::Open | Fate::Done)).collect();
        assert!(lost.is_empty(), "{what}: {lost:?}");
        assert!(longest.unwrap() < self.patience + late, "{what}: {longest:?}, test late by {late:?}");
    }

    /// A site has counted `count` packets so, but for what did not fit into the link.
    fn assert_counted(&self, what: &str, before: &[Counters], site: usize, counters: &[Counter], count: usize) {
        let grown = || {
            let now = self.lab.planes[site].counters();
            counters.iter().map(|counter| now[*counter] - before[site][*counter]).sum::<u64>() as usize
        };
        let all = wait_until(SETTLE_MS, || grown() >= count);
        let grown = grown();
        assert!((all || grown >= count - count / LOSS) && grown <= count, "{what}: {grown} of {count} counted");
    }

    /// Timestamps and connection identifiers.
    fn forge(&self) {
        let make: [(&str, &(dyn Fn() -> Vec<u8> + Sync)); 2] = [
            ("timestamps", &|| self.attacker.forged_timestamp()),
            ("connection identifiers", &|| self.attacker.forged_identifier()),
        ];
        for (what, make) in make {
            let outcome = self.flood(HERE, true, make);
            eprintln!(
                "    {}: forged {what}: {} of {FRAMES} forwarded in {:?}",
                self.name, outcome.forwarded, outcome.took
            );
            self.assert_unharmed(what, &[HERE, OWNER, OTHER]);
            // By chance, and what may be asked for, however slow the flood is.
            let asked = f64::from(PROBES_PER_S / DOUBTFUL_SHARE) * (outcome.took + BURST).as_secs_f64();
            assert!(outcome.forwarded <= FRAMES / SHARE + asked as usize, "{what}: {} forwarded", outcome.forwarded);
        }
    }

    /// Any flags, options, fragments; of strangers, and in the name of clients.
    fn garbage(&self) {
        let make: [(&str, &(dyn Fn() -> Vec<u8> + Sync)); 4] = [
            ("segments of strangers", &|| self.attacker.garbage(&self.attacker.stranger(PORT))),
            ("segments in the name of clients", &|| self.attacker.garbage(&self.attacker.client(&PORTS))),
            ("fragments of strangers", &|| self.attacker.fragment(&self.attacker.stranger(PORT))),
            ("fragments in the name of clients", &|| self.attacker.fragment(&self.attacker.client(&PORTS))),
        ];
        for (what, make) in make {
            let outcome = self.flood(HERE, false, make);
            self.assert_unharmed(what, &[HERE, OWNER, OTHER]);
            let most = f64::from(PROBES_PER_S) * (outcome.took + BURST).as_secs_f64();
            eprintln!("    {}: {what}: {} of {FRAMES} forwarded in {:?}", self.name, outcome.forwarded, outcome.took);
            assert!((outcome.forwarded as f64) <= 1.1 * most, "{what}: {} asked for", outcome.forwarded);
            if what.starts_with("fragments") {
                self.assert_counted(what, &outcome.before, HERE, &[Counter::Fragment], FRAMES);
            }
        }
    }

    /// From a site's address and from elsewhere: none is believed.
    fn shims(&self) {
        use Counter::*;
        let site = End::Site(OWNER).address(Family::V4, 2).addr();
        let elsewhere = End::Client(0).address(Family::V4, 2).addr();
        for (what, from, counter) in
            [("shims from a site", site, ShimForged), ("shims from elsewhere", elsewhere, ShimStranger)]
        {
            let outcome = self.flood(HERE, true, || self.attacker.forged_shim(from, OWNER as u8, HERE));
            self.assert_unharmed(what, &[HERE, OWNER, OTHER]);
            // The rest has nothing behind it that is a connection's.
            self.assert_counted(what, &outcome.before, HERE, &[counter, ShimMalformed], FRAMES);
            for counter in [ShimNew, ShimMine, ShimReply, ShimAlive] {
                assert_eq!(outcome.at(HERE, counter), 0, "{what}: {}", counter.word());
            }
        }
    }

    /// Frames that one site sent to another.
    fn seen_between_sites(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let enough = wait_until(SOON_MS, || {
            frames.extend(self.attacker.captured(HERE, KEPT));
            frames.retain(|frame| !is_of_a_stranger(frame));
            frames.len() >= KEPT
        });
        assert!(enough, "{} frames between sites", frames.len());
        frames
    }

    /// At once: to whom they were sent, to another site, from another address.
    fn replay(&self) {
        let frames = self.seen_between_sites();
        let (to_owner, to_other): (Vec<_>, Vec<_>) = frames.into_iter().partition(|frame| receiver(frame) == OWNER);
        let site = |number| Some(End::Site(number).address(Family::V4, 2).addr());
        let stranger = Some(End::Client(0).address(Family::V4, 2).addr());
        let all = |frames: &[Vec<u8>], from, to| -> Vec<_> {
            frames.iter().map(|frame| readdressed(frame, from, to)).collect()
        };
        let before = self.lab.counters();
        self.attacker.send(OWNER, FRAMES_PER_S, &to_owner);
        self.attacker.send(OTHER, FRAMES_PER_S, &to_other);
        self.attacker.send(OTHER, FRAMES_PER_S, &all(&to_owner, None, site(OTHER)));
        self.attacker.send(OWNER, FRAMES_PER_S, &all(&to_owner, stranger, None));
        self.lab.flip(HERE);
        self.assert_unharmed("replay", &[HERE, OWNER, OTHER]);
        let count = to_owner.len();
        self.assert_counted("for another site", &before, OTHER, &[Counter::ShimForged], count);
        self.assert_counted("from another address", &before, OWNER, &[Counter::ShimStranger], count);
    }

    /// Packets of a connection that the attacker has with one site, by way of another one: no more than the budget, and connections of other
    /// sites do not notice.
    fn through_another_site(&self) {
        let flow = Flow { service: self.family.service(), ..self.attacker.stranger(PORT) };
        let make = || {
            let echo = timestamp::encode(wall_ms(), site_of(OWNER), flow.mask(KEYS[0]));
            frame::tcp(&flow, &Tcp { options: timestamps(1, echo), payload: vec![1; 64], ..Tcp::default() })
        };
        let outcome = self.flood(HERE, false, make);
        self.assert_unharmed("flood through another site", &[HERE, OTHER]);
        let (taken, over) = (outcome.at(OWNER, Counter::ShimData), outcome.at(OWNER, Counter::ShimBudget));
        eprintln!("    {}: flood through another site: {taken} taken, {over} over its budget", self.name);
        let most = f64::from(BUDGET_PER_S) * (outcome.took + BURST).as_secs_f64();
        assert!(over > 0 && taken as f64 <= most, "{taken} taken in {:?}", outcome.took);
    }

    /// After the time limit, when nobody needs what sites send each other.
    fn too_late(&self, mut frames: Vec<Vec<u8>>) {
        frames.retain(|frame| receiver(frame) == OWNER);
        self.lab.planes[OWNER].set_clock(400);
        let before = self.lab.counters();
        self.attacker.send(OWNER, FRAMES_PER_S, &frames);
        self.assert_counted("after the time limit", &before, OWNER, &[Counter::ShimForged], frames.len());
    }
}
