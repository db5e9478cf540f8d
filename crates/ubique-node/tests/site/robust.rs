//! What an agent goes through without letting go of a healthy service: disks that refuse, state that is lost or damaged,
//! crowds and garbage, kill -9 at any moment, neighbours that flap.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use ubique_model::service::{JournalSettings, RotatedFile, Service};
use ubique_node::admin::{Reply, Request};
use ubique_proto::site::State;
use ubique_sys::netlink::Netlink;
use ubique_sys::process::Signal;

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

/// Each takes a second or more: both sides wait before they connect again.
const FLAPS: usize = 5;

fn flapping_peer() {
    let (_lab, mut bird, agent, _dns) = running(&lab::service());
    let before = status();
    let memory = resident(&agent);
    for _ in 0..FLAPS {
        bird.ask("restart site4");
        until_true("the session is back", || bird.route(lab::PREFIX_V4).is_some());
    }
    let after = status();
    assert_eq!(after.peers[1].since, before.peers[1].since, "the other session stays");
    assert_eq!((after.state, after.since), (State::Announced, before.since), "the site does not mind");
    assert!(resident(&agent) < memory + GROWTH_KIB);
}
