//! The agent against BIRD: announce, withdraw, drain, stop.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ubique_model::check::CheckKind;
use ubique_model::service::Service;
use ubique_node::admin::{Announced, CheckStatus, Request};
use ubique_proto::site::State;
use ubique_sys::netlink::Netlink;
use ubique_sys::process::{Signal, find_by_name};

use crate::daemons::{BIRD, Bird};
use crate::lab::{self, Lab, PREFIX_V4, Process, SERVICE_V4, SERVICE_V6, ask, status, until_true};
use crate::roles::HURRIED;
use crate::runner::Test;

const fn test(name: &'static str, run: fn()) -> Test {
    Test { name, needs: &[BIRD], run }
}

pub const TESTS: &[Test] = &[
    test("service_up_announces_and_killed_withdraws", up_and_killed),
    test("hung_service_is_withdrawn_after_fall_polls", hung),
    test("checks_that_pass_send_no_updates", no_updates),
    test("drain_and_undrain_over_the_admin_socket", drain),
    test("sigterm_withdraws_then_drains_then_removes", terminated),
    test("second_sigterm_does_not_wait", hurried),
    test("addresses_found_stay_and_removed_ones_return", addresses),
    test("killed_process_of_a_process_check_withdraws", process_killed),
    test("killed_http_service_withdraws", http_killed),
    test("a_worker_that_dies_beside_another_is_no_event", workers),
    test("a_stuck_exec_check_blocks_nobody_and_leaves_nothing", stuck_exec),
];

/// Both sessions up, the service up, both prefixes announced.
struct Running {
    lab: Lab,
    bird: Bird,
    agent: Process,
    dns: Process,
}

fn running(service: &Service) -> Running {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let agent = lab.agent(service);
    lab.wait_for_addresses();
    let dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    Running { lab, bird, agent, dns }
}

fn up_and_killed() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let mut agent = lab.agent(&lab::service());
    lab.wait_for_addresses();
    until_true("both sessions up", || {
        lab::try_status().is_some_and(|s| s.peers.iter().all(|p| p.state == "established"))
    });
    assert!(bird.has_none(), "nothing is announced before the service answers");
    let mut dns = lab.dns();
    let up = until_true("both prefixes announced", || bird.has_both());
    let route = bird.route(PREFIX_V4).unwrap();
    for expected in ["BGP.origin: IGP", "BGP.as_path: 64500 64500", "BGP.med: 7", "(64500,100)", "(64500, 1, 2)"] {
        assert!(route.contains(expected), "{expected} not in\n{route}");
    }
    let mut gaps = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        dns.kill();
        until_true("withdrawn", || bird.has_none());
        gaps.push(start.elapsed());
        let status = status();
        assert_eq!(status.state, State::Unhealthy);
        let event = ["no socket serves UDP", "ended"].iter().any(|seen| status.cause.contains(seen));
        assert!(event, "{}", status.cause);
        dns = lab.dns();
        until_true("announced again", || bird.has_both());
    }
    gaps.sort();
    println!("healthy to announced {up:?}; killed to withdrawn {gaps:?}");
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
}

fn hung() {
    let mut service = lab::service();
    service.checks.iter_mut().for_each(|check| check.fall = 2);
    let mut r = running(&service);
    let start = Instant::now();
    r.dns.signal(Signal::Stop);
    until_true("withdrawn", || r.bird.has_none());
    let gap = start.elapsed();
    println!("hung to withdrawn {gap:?}");
    // The second poll is 50 ms after the first.
    assert!(gap > Duration::from_millis(50), "{gap:?}");
    let checks = status().checks;
    let timed_out = |c: &CheckStatus| !c.up && c.cause.contains("timeout");
    assert!(checks.iter().any(timed_out), "{checks:?}");
    r.dns.signal(Signal::Cont);
    until_true("announced again", || r.bird.has_both());
}

/// An agent that announces anew at each check is an UPDATE storm for everybody behind it.
fn no_updates() {
    let mut r = running(&lab::service());
    let heard = |bird: &mut Bird| -> Vec<String> {
        let text = bird.ask("show protocols all");
        text.lines().filter(|line| line.contains("Import ")).map(str::to_owned).collect()
    };
    let before = heard(&mut r.bird);
    let received =
        |line: &String| line.split_once("updates:").is_some_and(|(_, n)| n.split_whitespace().next() == Some("1"));
    assert!(before.iter().any(received), "{before:?}");
    let polls = status().checks[0].polls;
    until_true("twenty polls later", || status().checks[0].polls >= polls + 20);
    assert_eq!(heard(&mut r.bird), before);
}

fn drain() {
    let mut r = running(&lab::service());
    let drain = Request::Drain { reason: "disk swap".into() };
    let undrain = Request::Undrain { reason: "done".into() };
    ask(&drain).unwrap();
    let drained = status();
    until_true("withdrawn", || r.bird.has_none());
    assert_eq!((drained.state, drained.healthy), (State::Drained, true));
    assert!(drained.cause.contains("disk swap"), "{}", drained.cause);
    assert!(drained.peers.iter().all(|p| p.state == "established"), "sessions stay");
    assert_eq!(r.lab.service_addresses(), 2, "addresses stay");
    until_true("withdrawals acknowledged", || {
        status().peers.iter().all(|p| p.prefixes.iter().all(|x| x.announced == Announced::No))
    });
    ask(&undrain).unwrap();
    until_true("announced again", || r.bird.has_both());
    until_true("announcements acknowledged", || {
        status().peers.iter().all(|p| p.prefixes.iter().all(|x| x.announced == Announced::Acknowledged))
    });
    let events: Vec<String> = status().events.into_iter().map(|e| e.what).collect();
    for expected in ["site starting", "site announced", "site drained", "check answers up"] {
        assert!(events.iter().any(|e| e == expected), "{expected} not in {events:?}");
    }
}

fn terminated() {
    let mut service = lab::service();
    // Long enough to look what is there meanwhile.
    service.agent.drain = Duration::from_secs(3);
    let mut r = running(&service);
    let start = Instant::now();
    r.agent.signal(Signal::Term);
    until_true("withdrawn", || r.bird.has_none());
    let withdrawn = start.elapsed();
    assert_eq!(r.lab.service_addresses(), 2, "withdrawn before the addresses go");
    until_true("addresses removed", || r.lab.service_addresses() == 0);
    let removed = start.elapsed();
    println!("SIGTERM to withdrawn {withdrawn:?}, to removed {removed:?}");
    assert!(removed >= service.agent.drain, "the drain time is kept: {removed:?}");
    assert_eq!(r.agent.wait(), 0);
    let message = "Administrative shutdown";
    until_true("BIRD heard why", || r.bird.log().contains(message));
    assert!(r.bird.log().contains("site ams: "), "with the words of RFC 9003:\n{}", r.bird.log());
    assert!(!std::path::Path::new(lab::SOCKET).exists(), "the socket file is removed");
}

/// SIGHUP does no harm, and an agent that stops takes no wishes.
fn hurried() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let mut service = lab::service();
    service.agent.drain = Duration::from_secs(60);
    let mut agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    // Its file is the one it runs with, but for what this test has set otherwise.
    agent.signal(Signal::Hup);
    until_true("SIGHUP is seen", || agent.log().contains("reload"));
    assert!(bird.has_both());
    agent.signal(Signal::Int);
    until_true("withdrawn", || bird.has_none());
    let refusal = ask(&Request::Undrain { reason: "too late".into() }).unwrap_err();
    assert_eq!(refusal.to_string(), "the agent is stopping");
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), HURRIED);
    assert_eq!(lab.service_addresses(), 0);
}

fn addresses() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let mut netlink = Netlink::open_in(&lab.site).unwrap();
    let lo = netlink.link_index("lo").unwrap();
    let found = format!("{SERVICE_V4}/32").parse().unwrap();
    let ours = format!("{SERVICE_V6}/128").parse().unwrap();
    netlink.add_address(lo, found).unwrap();
    let mut agent = lab.agent(&lab::service());
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    for address in [found, ours] {
        assert!(netlink.delete_address(lo, address).unwrap());
    }
    until_true("addresses return", || lab.service_addresses() == 2);
    until_true("it is told", || status().events.iter().filter(|e| e.what.ends_with("restored")).count() == 2);
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
    let left = lab.addresses(&lab.site);
    assert!(left.contains(&SERVICE_V4.parse().unwrap()), "it was there before");
    assert!(!left.contains(&SERVICE_V6.parse().unwrap()));
}

/// Only an event can withdraw in time.
fn by_events(service: &mut Service) {
    for check in &mut service.checks {
        check.every = Duration::from_secs(1);
        check.timeout = Duration::from_millis(500);
        check.rise = 1;
        check.fall = lab::NEVER_BY_POLLS;
    }
}

/// Whether a process holds a pidfd of another.
fn watches(watcher: &Process, watched: &Process) -> bool {
    let line = format!("Pid:\t{}", watched.pid());
    let files = fs::read_dir(format!("/proc/{}/fdinfo", watcher.pid())).unwrap().flatten();
    let mut texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    texts.any(|text| text.lines().any(|l| l == line))
}

fn process_killed() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let mut service = lab::service();
    let name = CheckKind::Process { pidfile: None, name: Some("sleep".into()) };
    service.checks = vec![lab::check("daemon", name)];
    by_events(&mut service);
    let sleep = || lab::start(&lab.site, "sleep", "/bin/sleep".as_ref(), &["1000"]);
    // Before the agent: its first poll must see both, the next one is far away.
    let (mut first, mut second) = (sleep(), sleep());
    let agent = lab.agent(&service);
    lab.wait_for_addresses();
    until_true("both prefixes announced", || bird.has_both());
    // The search for processes runs beside the loop.
    until_true("both are watched", || [&first, &second].iter().all(|p| watches(&agent, p)));
    first.kill();
    std::thread::sleep(Duration::from_millis(100));
    assert!(bird.has_both(), "another one runs");
    let start = Instant::now();
    second.kill();
    until_true("withdrawn", || bird.has_none());
    println!("process killed to withdrawn {:?}", start.elapsed());
}

fn http_killed() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let mut service = lab::service();
    let target: SocketAddr = format!("{SERVICE_V4}:80").parse().unwrap();
    let page = CheckKind::Http(lab::page(target));
    service.checks = vec![lab::check("page", page), lab::check("port", CheckKind::Tcp { target: target.into() })];
    by_events(&mut service);
    let _agent = lab.agent(&service);
    lab.wait_for_addresses();
    let mut http = lab::start_ready(&lab.site, "http", &[&target.to_string()]);
    until_true("both prefixes announced", || bird.has_both());
    let start = Instant::now();
    http.kill();
    until_true("withdrawn", || bird.has_none());
    println!("HTTP server killed to withdrawn {:?}", start.elapsed());
}

fn workers() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let mut service = lab::service();
    // A query may be lost with the socket of the dead worker.
    by_events(&mut service);
    let _agent = lab.agent(&service);
    lab.wait_for_addresses();
    let worker = || {
        let addresses = [format!("reuse:{SERVICE_V4}:53"), format!("reuse:[{SERVICE_V6}]:53")];
        lab::start_ready(&lab.site, "dns", &[&addresses[0], &addresses[1]])
    };
    let (mut first, mut second) = (worker(), worker());
    until_true("both prefixes announced", || bird.has_both());
    first.kill();
    std::thread::sleep(Duration::from_millis(200));
    assert!(bird.has_both(), "the other worker serves");
    second.kill();
    until_true("withdrawn", || bird.has_none());
}

fn stuck_exec() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let mut service = lab::service();
    let script = "sleep 1000 & sleep 1000; true";
    let command = CheckKind::Exec { command: ["sh", "-c", script].map(String::from).to_vec() };
    service.checks.push(lab::check("stuck", command));
    let mut agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("the others are up", || {
        lab::try_status().is_some_and(|s| s.checks[0].up && s.checks[1].up && s.checks[2].failures > 3)
    });
    let status = status();
    assert!(!status.checks[2].up && !status.healthy);
    assert!(status.checks[2].last_result.as_deref().unwrap().contains("timeout"));
    assert!(bird.has_none());
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
    until_true("no child is left", || find_by_name("sleep").unwrap().is_empty());
}
