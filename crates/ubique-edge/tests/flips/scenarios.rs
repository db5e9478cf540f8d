//! What is done to connections, and what must become of them.

use std::time::{Duration, Instant};

use ubique_edge::{Counter, Counters, Mode, Tier};

use crate::delay::Delays;
use crate::lab::{Clients, Lab, NO_LOSS, SOON_MS};
use crate::net::{CLIENTS, End, Family, SITES, in_namespace, set_client_ports, set_mtu};
use crate::plane::{self, Plane, Setup};
use crate::runner::{Scenario, wait_until};
use crate::traffic::{Fate, Kind, Record, Server, Summary, TICK};
use crate::{attacks, quic};

mod browser;

/// Tiers that every scenario is run with.
const TIERS: [Tier; 2] = [Tier::Cookies, Tier::Timestamps];

const CONNECTIONS: usize = 300;
const FLIPS: usize = 7;

type Run = Box<dyn Fn()>;

/// All of them.
pub fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut add = |name: String, plane: bool, run: Run| {
        let name = name.to_lowercase();
        all.push(Scenario { name, plane, run });
    };
    for family in Family::BOTH {
        add(format!("control_{family:?}"), false, Box::new(move || control(family)));
    }
    for family in Family::BOTH {
        add(format!("quic_control_{family:?}"), false, Box::new(move || quic_control(family)));
        add(format!("quic_{family:?}"), true, Box::new(move || quic_flips(family)));
    }
    browser::add_all(&mut add);
    for tier in TIERS {
        for family in Family::BOTH {
            for clients in Clients::ALL {
                let name = format!("flips_{tier:?}_{family:?}_{clients:?}");
                add(name, true, Box::new(move || flips(family, clients, tier)));
            }
            for clients in [Clients::Timestamps, Clients::NoTimestamps] {
                let name = format!("{tier:?}_{family:?}_{clients:?}");
                let download = move || bulk(family, clients, tier, Kind::Download);
                add(format!("download_{name}"), true, Box::new(download));
                add(format!("upload_{name}"), true, Box::new(move || bulk(family, clients, tier, Kind::Upload)));
            }
            add(format!("far_{tier:?}_{family:?}"), true, Box::new(move || far(family, tier)));
            add(format!("dead_owner_{tier:?}_{family:?}"), true, Box::new(move || dead_owner(family, tier)));
            add(format!("drain_{tier:?}_{family:?}"), true, Box::new(move || drain(family, tier)));
            for ahead_s in [200, -200] {
                let name = format!("clock_{tier:?}_{family:?}_{ahead_s:+}s");
                add(name, true, Box::new(move || clock(family, tier, ahead_s)));
            }
            let name = format!("{tier:?}_{family:?}");
            add(format!("generic_{name}"), true, Box::new(move || generic(family, tier)));
            add(format!("mesh_{name}"), true, Box::new(move || mesh(family, tier)));
            add(format!("strict_{name}"), true, Box::new(move || strict(family, tier)));
            add(format!("reuse_{name}"), true, Box::new(move || reuse(family, tier)));
            add(format!("known_late_{name}"), true, Box::new(move || known_late(family, tier)));
            add(format!("attacks_{name}"), true, Box::new(move || attacks::run(family, tier)));
            add(format!("restart_{name}"), true, Box::new(move || restart(family, tier)));
            for clients in [Clients::Timestamps, Clients::NoTimestamps] {
                let name = format!("path_mtu_{name}_{clients:?}");
                add(name, true, Box::new(move || path_mtu(family, clients, tier)));
            }
        }
    }
    all
}

/// Without the data plane one route change loses every connection.
fn control(family: Family) {
    let lab = Lab::new(family, Clients::Mixed, None, None);
    lab.tick(CONNECTIONS);
    lab.net.flip(1);
    assert!(lab.ended(SOON_MS), "some connections know nothing of their end");
    let summary = lab.finish();
    println!("  control {family:?}, 1 flip, no data plane: {summary}");
    assert_eq!((summary.connections, summary.lost), (CONNECTIONS, CONNECTIONS));
}

/// QUIC connections, and how long a client keeps them.
const QUIC_CONNECTIONS: usize = 100;
const QUIC_SECONDS: u64 = 6;
const QUIC_FLIPS: usize = 4;

/// Opens connections, changes the route some times while they are open, and says what became of them. `None`: nothing to test with.
fn quic_run(lab: &Lab, family: Family, flips: usize) -> Option<quic::Report> {
    if !quic::is_there() {
        return None;
    }
    let _servers = quic::Servers::start(&lab.net, family);
    let clients = quic::Clients::start(&lab.net, family, QUIC_CONNECTIONS, QUIC_SECONDS);
    // The client says nothing until its end: the times of flips are those of a clock, spread over what it keeps.
    let pace = Duration::from_secs(QUIC_SECONDS) / (flips as u32 + 2);
    let start = Instant::now();
    for flip in 1..=flips {
        let due = start + pace * flip as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        lab.net.flip(flip % SITES);
    }
    Some(clients.end())
}

/// Without the data plane: QUIC has no reset, the connections stand still.
fn quic_control(family: Family) {
    let lab = Lab::new(family, Clients::Timestamps, None, None);
    let Some(report) = quic_run(&lab, family, 1) else { return };
    println!("  QUIC control {family:?}, 1 flip, no data plane: {}", report.text);
    let all = QUIC_CONNECTIONS as u64;
    assert_eq!((report.opened, report.lost), (all, all));
}

fn quic_flips(family: Family) {
    let lab = Lab::new(family, Clients::Timestamps, Some(Setup::new(Tier::Off, family)), None);
    let Some(report) = quic_run(&lab, family, QUIC_FLIPS) else { return };
    println!("  QUIC {family:?}, {QUIC_FLIPS} flips: {}", report.text);
    assert_eq!((report.opened, report.lost), (QUIC_CONNECTIONS as u64, 0));
    assert!(report.longest_stall_ms < 1000.0, "{report:?}");
    let forwarded: u64 = lab.counters().iter().map(|counters| counters[Counter::ForwardId]).sum();
    assert!(forwarded > 0, "nothing was forwarded");
}

/// Connections that begin at all three sites, through seven route changes.
fn run_flips(lab: &Lab, count: usize) -> Summary {
    lab.begin_everywhere(count);
    lab.flip_around(FLIPS);
    lab.finish()
}

fn flips(family: Family, clients: Clients, tier: Tier) {
    let lab = Lab::new(family, clients, Some(Setup::new(tier, family)), None);
    let summary = run_flips(&lab, CONNECTIONS);
    let name = format!("flips {tier:?} {family:?} {clients:?}, {FLIPS} flips");
    lab.assert_nothing_lost(&name, &summary, TICK + NO_LOSS);
    assert_eq!(summary.connections, CONNECTIONS);
    let forwarded: u64 = lab.counters().iter().map(forwarded).sum();
    assert!(forwarded > 0, "nothing was forwarded");
}

fn forwarded(counters: &Counters) -> u64 {
    use Counter::*;
    [ForwardTimestamp, ForwardSequence, ForwardCache, ForwardProbe].iter().map(|counter| counters[*counter]).sum()
}

/// One clock differs from the others by minutes, then is set, twice: in the end even its own timestamps are out of reach, or nearly.
fn clock(family: Family, tier: Tier, ahead_s: i64) {
    let setup = Setup { clock_ahead_s: [0, ahead_s, 0], ..Setup::new(tier, family) };
    let lab = Lab::new(family, Clients::Mixed, Some(setup), None);
    lab.begin_everywhere(CONNECTIONS);
    for now_s in [ahead_s, 0, -ahead_s] {
        lab.planes[1].set_clock(now_s);
        lab.flip_around(SITES);
    }
    let summary = lab.finish();
    let name = format!("clock of one site {ahead_s:+} s {tier:?} {family:?}");
    lab.assert_nothing_lost(&name, &summary, TICK + NO_LOSS);
}

/// Programs in the kernel's generic path, for drivers that have no other.
fn generic(family: Family, tier: Tier) {
    let setup = Setup { mode: Some(Mode::Generic), ..Setup::new(tier, family) };
    let lab = Lab::new(family, Clients::Mixed, Some(setup), None);
    let summary = run_flips(&lab, CONNECTIONS);
    // Two processors may take the first two packets of a connection, and its cookie then seems to come twice: the second is sent again.
    let sent_again = if tier == Tier::Cookies { Duration::from_millis(300) } else { Duration::ZERO };
    let name = format!("generic {tier:?} {family:?}, {FLIPS} flips");
    lab.assert_nothing_lost(&name, &summary, TICK + NO_LOSS + sent_again);
}

/// Packets for another site leave by another interface than they came.
fn mesh(family: Family, tier: Tier) {
    let setup = Setup { mesh: true, ..Setup::new(tier, family) };
    let lab = Lab::new(family, Clients::Mixed, Some(setup), None);
    let summary = run_flips(&lab, CONNECTIONS);
    lab.assert_nothing_lost(&format!("mesh {tier:?} {family:?}, {FLIPS} flips"), &summary, TICK + NO_LOSS);
}

/// The data plane of every site is replaced while connections live and others begin.
fn restart(family: Family, tier: Tier) {
    const ROUNDS: usize = 2;
    let mut lab = Lab::new(family, Clients::Mixed, Some(Setup::new(tier, family)), None);
    lab.begin_everywhere(CONNECTIONS);
    lab.open(Kind::Short, 10);
    for number in (0..SITES).cycle().take(ROUNDS * SITES) {
        lab.planes[number].restart(&lab.net, number);
        lab.flip((number + 1) % SITES);
    }
    let summary = lab.finish();
    let name = format!("restart {tier:?} {family:?}, {ROUNDS} times every site");
    lab.assert_nothing_lost(&name, &summary, TICK + NO_LOSS);
}

/// Clients have few ports: what a site remembers of the last connection of a port must not take the packets of the next one, which may be
/// at another site.
fn reuse(family: Family, tier: Tier) {
    const ROUNDS: usize = 4;
    const EACH: usize = 150;
    let lab = Lab::new(family, Clients::Mixed, Some(Setup::new(tier, family)), None);
    lab.net.clients.iter().for_each(|ns| in_namespace(ns, || set_client_ports(50_000..=50_063)));
    lab.tick(SITES * 4);
    lab.open(Kind::Short, 20);
    for flip in 0..ROUNDS * SITES {
        let enough = lab.short() + EACH;
        let done = wait_until(SOON_MS, || lab.short() >= enough || lab.seen().iter().any(Record::is_lost));
        assert!(done, "{} short connections after {flip} flips", lab.short());
        if !lab.flip((flip + 1) % SITES) {
            break;
        }
    }
    let summary = lab.finish();
    let name = format!("reuse of ports {tier:?} {family:?}, {} flips", ROUNDS * SITES);
    lab.assert_nothing_lost(&name, &summary, TICK + NO_LOSS);
}

/// A router that takes packets of the service only from where it sends them (strict reverse path filtering): replies return through the
/// site that its clients' packets come to. Where only the site has something to say, what it sends again tries other ways.
fn strict(family: Family, tier: Tier) {
    const BYTES: u64 = 20_000_000;
    const EACH: usize = 2;
    // What is on its way back when the route changes is dropped, and sent again after 200 ms, 400 ms, 800 ms and so on.
    const PATIENCE_MS: u64 = 60_000;
    let setup = Setup { reply_through: true, ..Setup::new(tier, family) };
    let lab = Lab::new(family, Clients::Mixed, Some(setup), None);
    lab.net.be_strict();
    lab.begin_everywhere(CONNECTIONS);
    lab.flip_around(FLIPS);
    lab.open(Kind::Download(BYTES), EACH);
    lab.open(Kind::Upload(BYTES), EACH);
    let arrived = || {
        let servers = lab.servers.iter().flat_map(Server::records);
        let bulk = |record: &Record| matches!(record.kind, Some(Kind::Download(_) | Kind::Upload(_)));
        lab.seen().into_iter().chain(servers).filter(bulk).map(|record| record.octets).sum::<u64>()
    };
    for flip in 1..=FLIPS as u64 {
        let enough = 2 * EACH as u64 * BYTES * flip / (FLIPS as u64 + 1);
        assert!(wait_until(PATIENCE_MS, || arrived() >= enough), "stand still after {} octets", arrived());
        lab.net.flip(flip as usize % SITES);
    }
    assert!(
        wait_until(PATIENCE_MS, || arrived() >= 2 * EACH as u64 * (BYTES + 1)),
        "no end after {} octets",
        arrived()
    );
    let summary = lab.finish();
    let counters = lab.counters();
    lab.print(&format!("strict {tier:?} {family:?}, {FLIPS} flips"), &summary, &counters, &lab.net.kernel_counters());
    assert_eq!((summary.lost, summary.resets, summary.content_wrong), (0, 0, false));
    let replies: u64 = counters.iter().map(|counters| counters[Counter::ForwardReply]).sum();
    assert!(replies > 0, "no reply returned through another site");
}

/// Known not to hold: the data plane comes to sites that have connections already. With timestamps that jump, clients take what the site
/// sends for old (PAWS, RFC 7323 §5).
fn known_late(family: Family, tier: Tier) {
    let mut lab = Lab::new(family, Clients::Mixed, None, None);
    lab.tick(CONNECTIONS);
    let setup = Setup::new(tier, family);
    lab.planes = (0..SITES).map(|number| Plane::start(&lab.net, number, setup)).collect();
    plane::let_pass(&lab.net, &lab.planes[0]);
    lab.planes.iter().for_each(Plane::ready);
    lab.flip_around(FLIPS);
    let summary = lab.finish();
    lab.assert_nothing_lost(&format!("late {tier:?} {family:?}"), &summary, TICK + NO_LOSS);
}

/// The way to the client becomes narrower while its packets arrive at another site: so do the errors that tell.
fn path_mtu(family: Family, clients: Clients, tier: Tier) {
    // Enough not to be over before the way is narrow.
    const BYTES: u64 = 200_000_000;
    const NARROW: u16 = 1300;
    let lab = Lab::new(family, clients, Some(Setup::new(tier, family)), None);
    lab.open(Kind::Download(BYTES), 1);
    let arrived = || lab.seen().iter().map(|record| record.octets).max().unwrap_or(0);
    assert!(wait_until(SOON_MS, || arrived() >= BYTES / 20));
    lab.net.flip(1);
    in_namespace(&lab.net.router, || (0..CLIENTS).for_each(|number| set_mtu(&End::Client(number).name(), NARROW)));
    assert!(lab.ended(SOON_MS), "no end after {} octets", arrived());
    let summary = lab.finish();
    // What was on its way was too long.
    lab.assert_nothing_lost(&format!("path MTU {tier:?} {family:?} {clients:?}"), &summary, Duration::from_secs(1));
    let counters = lab.counters();
    let of_timestamps = counters[1][Counter::ForwardIcmp] > 0;
    assert_eq!(of_timestamps, clients == Clients::Timestamps, "errors of the path are sent on, or asked for");
}

/// Clients 20 ms away, and sites 15 and 30 ms from each other.
fn far(family: Family, tier: Tier) {
    const CONNECTIONS: usize = 99;
    let ms = Duration::from_millis;
    let delays = Delays { client: ms(10), detours: [ms(15), ms(30), ms(15)] };
    let lab = Lab::new(family, Clients::Mixed, Some(Setup::new(tier, family)), Some(delays));
    let summary = run_flips(&lab, CONNECTIONS);
    // There by the longest detour and back.
    let longest_path = delays.client + ms(30) + delays.client;
    let name = format!("far {tier:?} {family:?}, longest path {longest_path:?}");
    lab.assert_nothing_lost(&name, &summary, TICK + 2 * longest_path);
}

/// A transfer through four route changes. IPv4 travels over IPv6 between sites, and the other way round.
fn bulk(family: Family, clients: Clients, tier: Tier, kind: fn(u64) -> Kind) {
    const FLIPS: u64 = 4;
    let megabytes = std::env::var("UBIQUE_FLIPS_BULK_MB").map_or(100, |text| text.parse().unwrap());
    let limit_ms = SOON_MS + megabytes * 100;
    let bytes = megabytes * 1_000_000;
    let between = if family == Family::V4 { Family::V6 } else { Family::V4 };
    let lab = Lab::new(family, clients, Some(Setup::new(tier, between)), None);
    let start = Instant::now();
    lab.open(kind(bytes), 1);
    // Of the end that receives the content.
    let arrived = || {
        let servers = lab.servers.iter().flat_map(Server::records);
        lab.seen().into_iter().chain(servers).map(|record| record.octets).max().unwrap_or(0)
    };
    for flip in 1..=FLIPS {
        let there = wait_until(limit_ms, || arrived() >= bytes * flip / (FLIPS + 1));
        assert!(there, "stands still after {} octets and {} flips", arrived(), flip - 1);
        lab.net.flip(flip as usize % SITES);
    }
    assert!(lab.ended(limit_ms), "no end after {} octets", arrived());
    let took = start.elapsed();
    let summary = lab.finish();
    let name = format!("{:?} {tier:?} {family:?} {clients:?}, {FLIPS} flips, {:.2} s", kind(bytes), took.as_secs_f32());
    // Packets of a full pipe may be lost, also without us.
    lab.assert_nothing_lost(&name, &summary, Duration::from_secs(1));
    let forwarded: u64 = lab.counters().iter().map(forwarded).sum();
    assert!(forwarded > 0, "nothing was forwarded");
}

/// A site that is known to be down: its clients are told at once.
fn dead_owner(family: Family, tier: Tier) {
    const CONNECTIONS: usize = 100;
    let lab = Lab::new(family, Clients::Mixed, Some(Setup::new(tier, family)), None);
    lab.tick(CONNECTIONS);
    lab.flip(1);
    let open = lab.seen().iter().filter(|record| record.fate == Fate::Open).count();
    assert_eq!(open, CONNECTIONS, "lost by the flip");
    let start = Instant::now();
    // Those without timestamps are asked for at site 2, which must know as well.
    [2, 1].iter().for_each(|site: &usize| lab.planes[*site].mark_down(0));
    assert!(lab.ended(SOON_MS), "some connections know nothing of their end");
    let took = start.elapsed();
    let summary = lab.finish();
    println!("  dead owner {tier:?} {family:?}: told after {took:?}; {summary}");
    let reset = lab.seen().iter().filter(|record| record.fate == Fate::Reset).count();
    assert_eq!(reset, CONNECTIONS);
    assert!(took < TICK + NO_LOSS + summary.late, "{took:?}");
    let counters = lab.counters();
    // The packets of those with timestamps say whose they are.
    assert!(counters[1][Counter::OwnerDown] >= CONNECTIONS as u64 / 2, "{:?}", counters[1]);
}

/// Site 0 hands new connections to site 1 while routes still lead to it, then they lead to site 1.
fn drain(family: Family, tier: Tier) {
    const OLD: usize = 200;
    const NEW: usize = 100;
    let lab = Lab::new(family, Clients::Mixed, Some(Setup::new(tier, family)), None);
    lab.tick(OLD);
    lab.planes[0].drain_to(Some(1));
    lab.tick(NEW);
    let before = lab.seen().len();
    lab.open(Kind::Short, 20);
    assert!(wait_until(SOON_MS, || lab.short() >= 200), "{} short connections", lab.short());
    lab.flip(1);
    let enough = lab.short() + 200;
    assert!(wait_until(SOON_MS, || lab.short() >= enough), "{} short connections", lab.short());
    let summary = lab.finish();
    let name = format!("drain {tier:?} {family:?}, {OLD} old, {NEW} new, {} short", lab.seen().len() - before);
    lab.assert_nothing_lost(&name, &summary, TICK + NO_LOSS);
    let at = |site: u8, kind: Kind| lab.seen().iter().filter(|r| r.site == Some(site) && r.kind == Some(kind)).count();
    assert_eq!((at(0, Kind::Ticking), at(1, Kind::Ticking)), (OLD, NEW), "which site serves which");
    assert_eq!(at(0, Kind::Short), 0, "short connections at the site that drains");
}
