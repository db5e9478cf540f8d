//! What an agent goes through without letting go of a healthy service: disks that refuse, state that is lost or damaged,
//! crowds and garbage, kill -9 at any moment, neighbours that flap, a wall clock that jumps.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use ubique_model::Asn;
use ubique_model::service::{JournalSettings, RotatedFile, Service};
use ubique_node::admin::{ActRequest, DrainRequest, Event, Reply, Request};
use ubique_proto::actions::Kind;
use ubique_proto::rng::Rng;
use ubique_proto::site::State;
use ubique_sys::netlink::Netlink;
use ubique_sys::process::Signal;

use crate::clock::{Clock, FAKETIME};
use crate::conformance::{OURS_V4, Upstream};
use crate::daemons::{BIRD, Bird};
use crate::lab::{self, Lab, Process, SOCKET, STATE, ask, status, try_status, until_true};
use crate::runner::Test;

const fn test(name: &'static str, run: fn()) -> Test {
    Test { name, needs: &[BIRD], run }
}

pub const TESTS: &[Test] = &[
    test("full_disk_keeps_announcing_and_says_so", full_disk),
    test("read_only_file_system_keeps_announcing", read_only),
    test("a_drain_survives_kill_9_and_damaged_state_is_set_aside", state_survives),
    test("kill_9_at_random_moments_leaves_a_state_that_can_be_read", random_kills),
    test("kill_9_in_the_middle_of_anything_announces_again_what_is_healthy", kills),
    Test { name: "a_clock_that_jumps_withdraws_and_ends_nothing", needs: &[BIRD, FAKETIME], run: clock_jumps },
    test("ten_thousand_connections_and_garbage_cost_nothing_for_good", crowd),
    test("a_neighbour_that_flaps_leaves_the_rest_alone", flapping_peer),
];

/// Memory that a crowd may cost: buffers of those who are served at a time, and what the allocator keeps.
const GROWTH_KIB: u64 = 8 << 10;

/// Both sessions up and announced.
fn running(service: &Service) -> (Lab, Bird, Process, Process) {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let agent = lab.agent(service);
    lab.wait_for_addresses();
    let dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    (lab, bird, agent, dns)
}

/// A small disk of its own at `/run/state`, where state, journal and MRT files go.
fn with_disk(options: &str) -> Service {
    fs::create_dir_all("/run/state").unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs", "/run/state"]).status().unwrap();
    assert!(mount.success());
    let mut service = lab::service();
    let file = |name: &str| RotatedFile { path: format!("/run/state/{name}").into(), size_mib: 1, files: 2 };
    service.agent.records.mrt = Some(file("messages.mrt"));
    service.agent.records.journal = Some(JournalSettings { file: file("inputs.journal"), full_outputs: true });
    service
}

fn drain(reason: &str) -> Option<String> {
    match ask(&Request::Drain { reason: reason.into() }).unwrap() {
        Reply::Done { warning } => warning,
        other => panic!("{other:?}"),
    }
}

fn undrain() -> Option<String> {
    match ask(&Request::Undrain { reason: "done".into() }).unwrap() {
        Reply::Done { warning } => warning,
        other => panic!("{other:?}"),
    }
}

fn full_disk() {
    let service = with_disk("size=256k");
    let (_lab, mut bird, mut agent, mut dns) = running(&service);
    let mut filler = fs::File::create("/run/state/filler").unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    assert!(bird.has_both(), "a full disk withdraws nobody");
    let warning = drain("disk swap").expect("it cannot be kept");
    assert!(warning.contains("done, but will not survive a restart because cannot write"), "{warning}");
    until_true("drained all the same", || bird.has_none());
    assert!(status().not_kept.is_some());
    until_true("it is logged", || agent.log().contains("the state of this site is not on the disk"));
    undrain();
    until_true("announced again", || bird.has_both());
    // Health works as before.
    dns.kill();
    until_true("withdrawn", || bird.has_none());
    drop(filler);
    fs::remove_file("/run/state/filler").unwrap();
    assert_eq!(drain("room again"), None, "kept");
    assert!(fs::read_to_string(STATE).unwrap().contains("room again"));
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
}

fn read_only() {
    let service = with_disk("size=256k,ro");
    let (_lab, mut bird, mut agent, _dns) = running(&service);
    let warning = drain("disk swap").expect("it cannot be kept");
    assert!(warning.contains("Read-only file system"), "{warning}");
    until_true("drained all the same", || bird.has_none());
    undrain();
    until_true("announced again", || bird.has_both());
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
}

fn state_survives() {
    let service = lab::service();
    let (lab, mut bird, mut agent, _dns) = running(&service);
    assert_eq!(drain("disk swap"), None);
    agent.kill();
    let mut agent = lab.agent(&service);
    until_true("drained before it began", || try_status().is_some_and(|s| s.healthy && s.state == State::Drained));
    assert!(status().cause.contains("disk swap") && bird.has_none());
    assert!(agent.log().contains("this site was drained before the agent began"));
    // Deleted while it runs: nothing happens, and the next wish is kept.
    fs::remove_file(STATE).unwrap();
    assert_eq!(undrain(), None);
    until_true("announced", || bird.has_both());
    assert!(fs::metadata(STATE).is_ok());
    agent.kill();
    // Garbage: set aside, and the healthy site is announced.
    fs::write(STATE, [0xff; 3000]).unwrap();
    let mut agent = lab.agent(&service);
    until_true("announced", || bird.has_both());
    assert_eq!(fs::read(format!("{STATE}.damaged")).unwrap(), [0xff; 3000]);
    assert!(agent.log().contains("the state of this site is unusable"));
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
}

/// The wish that was answered is there after every kill, or a later one.
fn random_kills() {
    const SEED: u64 = 5;
    println!("seed {SEED}");
    let mut random = SEED;
    let service = lab::service();
    let lab = Lab::new();
    for round in 0..12 {
        let mut agent = lab.agent(&service);
        until_true("the agent answers", || try_status().is_some());
        let mut answered = None;
        let before = status().cause;
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wishes = random >> 61;
        for wish in 0..wishes {
            assert_eq!(undrain(), None);
            let reason = format!("wish {round}.{wish}");
            assert_eq!(drain(&reason), None);
            answered = Some(reason);
        }
        // One more is under way.
        let mut stream = UnixStream::connect(SOCKET).unwrap();
        stream.write_all(b"{\"query\":\"undrain\",\"reason\":\"half way\"}\n").unwrap();
        std::thread::sleep(Duration::from_micros(random >> 53));
        agent.kill();
        let kept = fs::read_to_string(STATE).unwrap_or_default();
        let whole: serde_json::Value = serde_json::from_str(&kept).unwrap_or_else(|e| panic!("{e}: {kept}"));
        let drain = whole["parts"]["site"]["memory"]["drain"].as_str().map(str::to_owned);
        assert!(
            drain.is_none() || drain == answered || (wishes == 0 && before.contains(drain.as_deref().unwrap())),
            "{kept}"
        );
        assert!(!agent.log().contains("unusable"), "{}", agent.log());
    }
}

/// Resident memory of a process, KiB.
fn resident(process: &Process) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = text.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn crowd() {
    const EACH: usize = 5000;
    let (lab, mut bird, agent, _dns) = running(&lab::service());
    let mut netlink = Netlink::open_in(&lab.router).unwrap();
    let index = netlink.link_index("lo").unwrap();
    netlink.add_address(index, "192.0.2.99/32".parse().unwrap()).unwrap();
    let before = status();
    let memory = resident(&agent);
    let mut most = memory;
    for round in 0..EACH {
        // Whoever it is, and whatever he says.
        let bytes = [round as u8; 64];
        if let Ok(mut stream) = lab.router.run(|| TcpStream::connect((lab::SITE_V4, 179))).unwrap() {
            let _ = stream.write_all(&bytes);
        }
        if let Ok(mut stream) = UnixStream::connect(SOCKET) {
            let _ = stream.write_all(&bytes);
            let _ = stream.write_all(b"\n{\"query\":\n");
            if round % 100 == 0 {
                let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
                let _ = stream.read(&mut [0; 256]);
                most = most.max(resident(&agent));
            }
        }
    }
    until_true("it answers operators", || try_status().is_some());
    let after = status();
    assert!(bird.has_both());
    let since = |s: &ubique_node::admin::Status| s.peers.iter().map(|p| p.since.clone()).collect::<Vec<_>>();
    assert_eq!(since(&after), since(&before), "sessions stay");
    println!("{} connections: {memory} KiB before, {most} KiB at most", 2 * EACH);
    assert!(most < memory + GROWTH_KIB, "{memory} KiB before, {most} KiB at most");
    assert!(agent.log().len() < 1 << 20, "{} octets of log", agent.log().len());
}

/// Sessions that come and go; each is told the route before it ends.
const FLAPS: usize = 50;

fn flapping_peer() {
    let (lab, mut bird, agent, _dns) = running(&lab::service());
    // Its place is taken by one who does not wait before it calls again.
    bird.ask("disable site4");
    until_true("the session is down", || status().peers[0].state != "established");
    let before = status();
    let memory = resident(&agent);
    let start = Instant::now();
    for _ in 0..FLAPS {
        neighbour(&lab).until_announced(&OURS_V4);
    }
    println!("{FLAPS} flaps in {:?}", start.elapsed());
    let after = status();
    assert_eq!(after.peers[1].since, before.peers[1].since, "the other session stays");
    assert_eq!((after.state, after.since), (State::Announced, before.since), "the site does not mind");
    assert!(bird.route(lab::PREFIX_V6).is_some());
    assert!(resident(&agent) < memory + GROWTH_KIB);
    assert!(agent.log().len() < 1 << 20, "{} octets of log", agent.log().len());
    // The router itself is as welcome as before.
    bird.ask("enable site4");
    until_true("it is back", || bird.has_both());
}

/// The upstream of IPv4, played by hand: it calls at once.
fn neighbour(lab: &Lab) -> Upstream {
    let mut upstream = Upstream::connect(lab, lab::ROUTER_V4, lab::SITE_V4);
    upstream.establish(Asn(lab::ROUTER_ASN));
    upstream
}

/// Says something to the agent without waiting for its answer.
fn say(request: &Request) {
    let mut line = serde_json::to_vec(request).unwrap();
    line.push(b'\n');
    UnixStream::connect(SOCKET).unwrap().write_all(&line).unwrap();
}

/// Why the state on the disk wants the site empty, if it does.
fn kept_drain() -> Option<String> {
    let text = fs::read_to_string(STATE).unwrap_or_else(|_| "{}".into());
    let state: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    state["parts"]["site"]["memory"]["drain"].as_str().map(str::to_owned)
}

/// Its checks take no busy machine for a service that is down.
fn patient_service() -> Service {
    let mut service = lab::service();
    service.checks.iter_mut().for_each(|check| check.fall = 100);
    service
}

/// Killed while it comes up and announces, drains, comes back, reads its file again, writes its state; what follows is
/// what was answered, or what was asked for and under way.
fn kills() {
    const SEED: u64 = 20;
    const KILLS: u64 = 15;
    println!("seed {SEED}");
    let mut random = Rng::new(SEED);
    // A crash counts as a withdrawal: flap control would have so many wait.
    let mut service = Service { flap: None, ..patient_service() };
    let lab = Lab::new();
    let mut agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    let mut wish: Option<String> = None;
    for round in 0..KILLS {
        let (reason, mut under_way) = (format!("wish {round}"), wish.clone());
        let within_us = match random.below(5) {
            0 => 300_000,
            1 => {
                until_true("the agent answers", || try_status().is_some());
                assert_eq!(drain(&reason), None);
                (wish, under_way) = (Some(reason.clone()), Some(reason));
                1
            }
            2 => {
                until_true("the agent answers", || try_status().is_some());
                say(&Request::Drain { reason: reason.clone() });
                under_way = Some(reason);
                5_000
            }
            3 => {
                until_true("the agent answers", || try_status().is_some());
                say(&Request::Undrain { reason });
                under_way = None;
                5_000
            }
            _ => {
                until_true("the agent answers", || try_status().is_some());
                service.sites[0].upstreams[0].med = Some(round as u32);
                fs::write(lab::FILE, service.to_toml()).unwrap();
                say(&Request::Reload(Default::default()));
                20_000
            }
        };
        std::thread::sleep(Duration::from_micros(random.below(within_us)));
        agent.kill();
        let kept = kept_drain();
        // A site that is drained already stays so for the first reason.
        let either = [wish.is_some(), under_way.is_some()].contains(&kept.is_some());
        assert!(either, "round {round}: {kept:?} is neither {wish:?} nor {under_way:?}");
        wish = kept;
        agent = lab.agent(&service);
        let wanted = if wish.is_some() { State::Drained } else { State::Announced };
        until_true("as it was wanted", || try_status().is_some_and(|s| s.state == wanted));
        assert_eq!(neighbour(&lab).announces(&OURS_V4), wish.is_none(), "round {round}: {wish:?}");
        assert!(!agent.log().contains("unusable"), "{}", agent.log());
    }
}

fn clock_jumps() {
    let clock = Clock::new("ams");
    let service = patient_service();
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let mut agent = lab.agent_in(&service, &clock.variables());
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    let jumps = || status().events.iter().filter(|event| event.what == "clock jumped").count();
    let jump = |by: i64, count: usize| {
        clock.set_by(by);
        until_true("the jump is told", || jumps() == count);
    };
    let begin = |prefix: &str, for_s: f64| {
        let what = Kind::Attract { prefix: prefix.parse().unwrap() };
        let act = ActRequest { what, for_s, reason: "clocks".into(), confirmed: true, dry_run: false };
        assert!(matches!(ask(&Request::Act(act)), Ok(Reply::Actions(_))));
    };
    begin("198.51.100.0/25", 600.0);
    let until = || status().actions[0].until.clone();
    let at_first = until();
    jump(3600, 1);
    assert!(until() > at_first, "its end by the clock moved with the clock");
    // One that lasts seconds, and hours by a clock that goes back.
    begin("198.51.100.128/25", 3.0);
    jump(-3600, 2);
    assert!(until() < at_first);
    let over = |event: &Event| event.what.starts_with("action 2 ended") && event.cause == "its time is over";
    until_true("it ends in its time", || status().events.iter().any(over));
    // A drain that has ten minutes to go on announcing.
    let slowly = DrainRequest { reason: "clocks".into(), within_s: Some(600.0), ..DrainRequest::default() };
    ask(&Request::DrainWatched(slowly)).unwrap();
    until_true("the site is leaving", || status().state == State::Draining);
    jump(3600, 3);
    assert_eq!((status().state, bird.has_both()), (State::Draining, true), "it goes on leaving");
    undrain();

    let now = status();
    assert!(now.healthy && now.state == State::Announced && now.actions[0].left_s > 300, "{now:?}");
    let down: Vec<&Event> = now.events.iter().filter(|e| e.what.ends_with(" down")).collect();
    assert!(down.is_empty(), "no session and no check ended: {down:?}");
    assert!(agent.log().contains("the wall clock jumped"), "{}", agent.log());
    agent.kill();
    agent = lab.agent_in(&service, &clock.variables());
    until_true("announced again", || bird.has_both());
    let left = status().actions[0].left_s;
    assert!((300..=600).contains(&left), "{left} s are left after a restart by the new clock");
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
}
