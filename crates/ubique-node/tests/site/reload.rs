//! Changes of a running agent: another service file, another program.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ubique_model::check::{Check, CheckKind};
use ubique_model::service::{Bfd, Service, Upstream};
use ubique_node::admin::{PeerStatus, ReloadOutcome, ReloadReply, ReloadRequest, Reply, Request, UpgradeReply};
use ubique_proto::site::State;
use ubique_sys::process::Signal;

use crate::daemons::{BIRD, Bird};
use crate::lab::{self, FILE, Lab, PREFIX_V4, PREFIX_V6, Process, ask, status, try_status, until_true};
use crate::load::{self, Load};
use crate::roles::myself;
use crate::runner::Test;
use crate::sessions::{aware, is_stale, kernel_route, remembered, restarting, service_with};

const fn test(name: &'static str, run: fn()) -> Test {
    Test { name, needs: &[BIRD], run }
}

pub const TESTS: &[Test] = &[
    test("reload_a_hundred_times_leaves_sessions_alone_and_loses_nothing", hundred),
    test("reload_resets_only_the_session_that_changed", resets),
    test("reload_that_would_surprise_clients_needs_a_yes", guarded),
    test("reload_keeps_checks_and_adds_others", checks),
    Test { name: "reload_keeps_what_other_checks_have_counted", needs: &[], run: counted },
    test("reload_of_a_bad_file_changes_nothing", bad_file),
    test("a_missing_key_holds_up_one_session_only", missing_key),
    test("reload_with_another_key_restarts_its_session_only", keys),
    test("upgrade_in_place_loses_nothing", upgrade),
    test("upgrade_in_place_does_not_end_bfd", with_bfd),
    test("upgrade_is_refused_without_graceful_restart", not_graceful),
    test("upgrade_to_a_broken_program_is_refused", broken),
];

/// Queries a second while things happen.
const RATE: u32 = 5000;

pub fn write(service: &Service) {
    fs::write(FILE, service.to_toml()).unwrap();
}

fn reload_how(how: ReloadRequest) -> ReloadReply {
    match ask(&Request::Reload(how)).unwrap() {
        Reply::Reload(reply) => *reply,
        other => panic!("not a reply to reload: {other:?}"),
    }
}

/// Has the agent read another service file.
pub fn reload(service: &Service) -> ReloadReply {
    write(service);
    reload_how(ReloadRequest::default())
}

pub fn yes(service: &Service) -> ReloadReply {
    write(service);
    reload_how(ReloadRequest { yes: true, ..ReloadRequest::default() })
}

pub fn upgrade_how(yes: bool, dry_run: bool) -> UpgradeReply {
    match ask(&Request::Upgrade(ReloadRequest { yes, dry_run })).unwrap() {
        Reply::Upgrade(reply) => reply,
        other => panic!("not a reply to upgrade: {other:?}"),
    }
}

pub fn since(peers: &[PeerStatus]) -> Vec<&str> {
    peers.iter().map(|p| p.since.as_str()).collect()
}

/// Both sessions up and announced, with a route in the router's kernel.
fn running(service: &Service) -> (Lab, Bird, Process, Process) {
    let lab = Lab::new();
    let mut bird = Bird::start_with_kernel(&lab.router);
    let agent = lab.agent(service);
    lab.wait_for_addresses();
    let dns = load::service(&lab);
    until_true("both prefixes announced", || bird.has_both());
    until_true("the kernel has it", || kernel_route(&lab).is_some());
    (lab, bird, agent, dns)
}

fn hundred() {
    let mut service = lab::patient(lab::service());
    let (lab, mut bird, agent, _dns) = running(&service);
    let before = status();
    let load = Load::start(&lab, RATE);
    let start = Instant::now();
    for round in 1..=100 {
        service.sites[0].upstreams[0].med = Some(round);
        let reply = reload(&service);
        assert_eq!(reply.outcome, ReloadOutcome::Applied, "{reply:?}");
        let change = reply.change.unwrap();
        assert_eq!(change.upstreams.len(), 1, "{change}");
        assert!(
            change.upstreams[0].sentence.contains(&format!("session stays; announces {PREFIX_V4} with med {round}"))
        );
        assert_eq!(reload(&service).outcome, ReloadOutcome::Unchanged);
    }
    until_true("BIRD has the last one", || bird.route(PREFIX_V4).is_some_and(|r| r.contains("BGP.med: 100")));
    let took = start.elapsed();
    agent.signal(Signal::Hup);
    until_true("SIGHUP reads it, too", || agent.log().contains("reload: nothing changes"));
    let (sent, lost) = load.end();
    println!("100 reloads in {took:?}: {sent} queries at {RATE}/s, {lost} lost");
    let after = status();
    assert_eq!(since(&after.peers), since(&before.peers), "uptime of both sessions");
    assert_eq!(after.since, before.since, "the site stayed as it was");
    assert!(sent > u64::from(RATE) / 2 && lost == 0, "{lost} of {sent} lost");
    assert!(bird.route(PREFIX_V6).unwrap().contains("BGP.med: 7"), "the other upstream has its own");
}

fn resets() {
    let mut service = lab::service();
    let (_lab, mut bird, _agent, _dns) = running(&service);
    let before = status();
    service.sites[0].upstreams[0].hold_time = Duration::from_secs(12);
    let reply = reload(&service);
    assert_eq!(reply.outcome, ReloadOutcome::Applied, "{reply:?}");
    let change = reply.change.unwrap();
    assert_eq!(change.upstreams[0].because, ["hold-time"], "{change}");
    until_true("it is back", || {
        let after = status();
        after.peers[0].state == "established" && after.peers[0].since != before.peers[0].since && bird.has_both()
    });
    let after = status();
    assert_eq!(after.peers[1].since, before.peers[1].since, "the other session stays");
    assert_eq!(after.peers[0].hold_time_s, Some(9), "BIRD's is shorter");
    // A neighbour that goes, and one that comes.
    let gone: Upstream = service.sites[0].upstreams.remove(0);
    let refused = reload(&service);
    assert_eq!(refused.outcome, ReloadOutcome::Refused, "{refused:?}");
    assert_eq!(yes(&service).outcome, ReloadOutcome::Applied);
    until_true("it is gone", || bird.route(PREFIX_V4).is_none());
    assert_eq!(status().peers.len(), 1);
    service.sites[0].upstreams.push(gone);
    assert_eq!(yes(&service).outcome, ReloadOutcome::Applied);
    until_true("it comes", || bird.has_both());
    let last = status();
    assert_eq!(last.peers[0].since, before.peers[1].since, "in the order of the file, and never touched");
}

fn guarded() {
    let mut service = lab::service();
    let (lab, mut bird, agent, _dns) = running(&service);
    let before = status();
    let fewer = &mut service;
    fewer.prefixes.retain(|p| p.to_string() == PREFIX_V4);
    fewer.addresses.truncate(1);
    fewer.checks.truncate(1);
    let gone = fewer.sites[0].upstreams.pop().unwrap();
    write(&service);
    agent.signal(Signal::Hup);
    until_true("SIGHUP refuses it and says how", || {
        agent.log().contains("reload refused: `ubique reload --yes` carries it out")
    });
    let plan = reload_how(ReloadRequest { dry_run: true, yes: false });
    assert_eq!(plan.outcome, ReloadOutcome::DryRun);
    let refused = reload(&service);
    assert_eq!(refused.outcome, ReloadOutcome::Refused);
    let said = refused.message.unwrap();
    assert!(said.contains(&format!("{PREFIX_V6} would be withdrawn from AS65000 {}", gone.address)), "{said}");
    assert!(bird.has_both() && since(&status().peers) == since(&before.peers), "nothing happened");
    assert_eq!(lab.service_addresses(), 2);
    assert_eq!(yes(&service).outcome, ReloadOutcome::Applied);
    until_true("withdrawn", || bird.route(PREFIX_V6).is_none());
    until_true("its address goes after the drain time", || lab.service_addresses() == 1);
    assert!(bird.route(PREFIX_V4).is_some());
    assert_eq!(status().peers[0].since, before.peers[0].since, "the other session stays");
    let back = lab::service();
    assert_eq!(yes(&back).outcome, ReloadOutcome::Applied);
    until_true("announced again", || bird.has_both() && lab.service_addresses() == 2);
}

fn bad_file() {
    let service = lab::service();
    let (_lab, mut bird, agent, _dns) = running(&service);
    let before = status();
    fs::write(FILE, service.to_toml().replace("prepend = 1", "prepends = 3")).unwrap();
    let reply = reload_how(ReloadRequest { yes: true, ..ReloadRequest::default() });
    assert_eq!(reply.outcome, ReloadOutcome::Unusable);
    assert!(reply.diagnostics.iter().any(|d| d.code == "E0101" && d.line > 1 && d.fix.is_some()), "{reply:?}");
    fs::remove_file(FILE).unwrap();
    let reply = reload_how(ReloadRequest::default());
    assert!(reply.message.as_ref().unwrap().contains("cannot read"), "{reply:?}");
    agent.signal(Signal::Hup);
    until_true("it is logged", || agent.log().contains("the service file cannot be used: nothing changes"));
    // A key that is not there.
    let mut keyed = service;
    keyed.sites[0].upstreams[0].password_file = Some("/run/nowhere".into());
    let reply = yes(&keyed);
    assert_eq!(reply.outcome, ReloadOutcome::Unusable);
    assert!(reply.message.as_ref().unwrap().contains("AS65000 192.0.2.1: cannot read the password file"), "{reply:?}");
    assert!(bird.has_both() && since(&status().peers) == since(&before.peers), "nothing happened");
}

fn checks() {
    let mut service = lab::service();
    let (_lab, mut bird, _agent, _dns) = running(&service);
    let before = status();
    service.checks[0].fall = 9;
    service.checks.insert(0, lab::dns_check("third", &format!("{}:53", lab::SERVICE_V4)));
    assert_eq!(reload(&service).outcome, ReloadOutcome::Applied);
    assert!(bird.has_both(), "a new check withdraws nobody");
    let after = status();
    assert_eq!(after.checks[1].name, "answers");
    assert!(after.checks[1].up && after.checks[1].since == before.checks[0].since, "{:?}", after.checks[1]);
    assert!(after.checks[1].polls >= before.checks[0].polls);
    until_true("all are polled", || status().checks.iter().all(|c| c.up && c.polls > before.checks[0].polls));
    // A check that cannot pass is told by its polls, and then withdraws.
    service.checks.push(lab::dns_check("wrong", "127.0.0.1:9"));
    assert_eq!(reload(&service).outcome, ReloadOutcome::Applied);
    until_true("withdrawn", || bird.has_none());
    assert_eq!(status().state, State::Unhealthy);
    service.checks.pop();
    assert_eq!(reload(&service).outcome, ReloadOutcome::Applied);
    until_true("announced again", || bird.has_both());
}

/// So many failures in a row turn the check down.
const FALL: u32 = 8;

/// So many wrong answers the server gives before it is right again: each of three reloads may void one.
const WRONG: u32 = FALL + 4;

/// Answers queries: rightly, then [`WRONG`] ones with SERVFAIL once `given` is set to 0, then rightly.
fn answer(socket: &UdpSocket, given: &AtomicU32) {
    let mut query = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut query).unwrap();
        let wrong = given.load(SeqCst) < WRONG;
        query[2] |= 0x80;
        query[3] = if wrong { 2 } else { 0 };
        socket.send_to(&query[..length], from).unwrap();
        if wrong {
            given.fetch_add(1, SeqCst);
        }
    }
}

fn counted() {
    let lab = Lab::new();
    // Not on this machine: nothing but polls tells of them.
    let socket = lab.router.run(|| UdpSocket::bind((lab::ROUTER_V4, 53))).unwrap().unwrap();
    let listener = lab.router.run(|| TcpListener::bind((lab::ROUTER_V4, 80))).unwrap().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let given: &'static AtomicU32 = Box::leak(Box::new(AtomicU32::new(WRONG)));
    std::thread::spawn(move || answer(&socket, given));
    let every = Duration::from_millis(100);
    let far = lab::dns_check("far", &format!("{}:53", lab::ROUTER_V4));
    let far = Check { every, timeout: every, fall: FALL, rise: 1, ..far };
    let port = |name: &str| {
        let target = SocketAddr::new(lab::ROUTER_V4.parse().unwrap(), 80);
        Check { every, timeout: every, fall: 100, ..lab::check(name, CheckKind::Tcp { target: target.into() }) }
    };
    let mut service = Service { checks: vec![far, port("other")], ..lab::service() };
    let _agent = lab.agent(&service);
    let of = |name: &str| status().checks.into_iter().find(|c| c.name == name).unwrap();
    until_true("both are up", || try_status().is_some_and(|s| s.checks.iter().all(|c| c.up)));
    let before = of("other");
    given.store(0, SeqCst);
    until_true("too few are left to count anew", || given.load(SeqCst) > WRONG - FALL);
    service.checks.insert(0, port("third"));
    assert_eq!(reload(&service).outcome, ReloadOutcome::Applied);
    service.checks[2].every += every;
    assert_eq!(reload(&service).outcome, ReloadOutcome::Applied);
    service.checks.remove(0);
    assert_eq!(reload(&service).outcome, ReloadOutcome::Applied);
    until_true("it is down, counted across three reloads, and up again", || {
        let turned = |what: &str| status().events.iter().any(|e| e.what == what);
        turned("check far down") && of("far").up
    });
    let after = of("other");
    assert!(after.up && after.since == before.since && after.polls > before.polls, "{before:?} {after:?}");
    assert_eq!(status().checks.len(), 2);
}

fn missing_key() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "password \"right\";");
    let mut service = lab::service();
    fs::write("/run/right", "right\n").unwrap();
    for (upstream, file) in service.sites[0].upstreams.iter_mut().zip(["/run/right", "/run/later"]) {
        upstream.password_file = Some(file.into());
    }
    let agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("the session with a key runs", || bird.route(PREFIX_V4).is_some());
    assert!(bird.route(PREFIX_V6).is_none());
    let error = status().peers[1].last_error.clone().unwrap_or_default();
    assert!(error.contains("/run/later"), "{error}");
    assert!(agent.log().contains("no session without its key"), "{}", agent.log());
    fs::write("/run/later", "right\n").unwrap();
    until_true("the other one comes with its key", || bird.has_both());
    let before = status();
    // Another key in the same file: that session resets, and only that.
    fs::write("/run/later", "wrong\n").unwrap();
    let reply = reload(&service);
    let change = reply.change.unwrap();
    assert_eq!(
        (reply.outcome, change.upstreams[0].because[0].as_str()),
        (ReloadOutcome::Applied, "content of the key's file")
    );
    until_true("the wrong key keeps it down", || bird.route(PREFIX_V6).is_none());
    assert_eq!(status().peers[0].since, before.peers[0].since);
    fs::write("/run/later", "right\n").unwrap();
    assert_eq!(reload(&service).outcome, ReloadOutcome::Applied);
    until_true("the right one is back", || bird.has_both());
    for word in agent.log().split_whitespace() {
        assert!(!["right", "wrong"].contains(&word.trim_matches('"')), "a secret in the log");
    }
}

/// Keys that come, change and go on both sides, ours first; the other session has none.
fn keys() {
    let mut service = lab::patient(lab::service());
    let (_lab, mut bird, _agent, _dns) = running(&service);
    let untouched = status().peers[1].since.clone();
    fs::write("/run/key", "first\n").unwrap();
    let key = Some("/run/key".into());
    // What the file has by then, BIRD's side, and what the plan names.
    let steps = [
        (key.clone(), "first", "password \"first\";", "password-file"),
        (key, "second", "password \"second\";", "content of the key's file"),
        (None, "second", "", "password-file"),
    ];
    for (file, content, extra, because) in steps {
        fs::write("/run/key", format!("{content}\n")).unwrap();
        service.sites[0].upstreams[0].password_file = file;
        let reply = reload(&service);
        assert_eq!(reply.outcome, ReloadOutcome::Applied, "{reply:?}");
        assert_eq!(reply.change.unwrap().upstreams[0].because, [because]);
        until_true("the old key ends it", || bird.route(PREFIX_V4).is_none());
        bird.reconfigure_first(extra);
        until_true("the same key on both sides brings it back", || bird.has_both());
        assert_eq!(status().peers[1].since, untouched, "the session without a key stays");
    }
}

/// The program of the agent, where it can be replaced.
const PROGRAM: &str = "/run/agent-program";

/// Puts a program there as packages do: beside it, then over it.
fn install(program: &[u8]) {
    let new = format!("{PROGRAM}.new");
    fs::write(&new, program).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, PROGRAM).unwrap();
}

/// An agent whose program can be replaced, under graceful restart with BIRD.
fn replaceable() -> (Lab, Bird, Process, Process) {
    replaceable_with("", restarting(60))
}

/// The same with more in BIRD's session, and with this upstream.
fn replaceable_with(extra: &str, upstream: Upstream) -> (Lab, Bird, Process, Process) {
    let lab = Lab::new();
    let mut bird = aware(&lab, extra);
    install(&fs::read(myself()).unwrap());
    let agent = lab.agent_from(Path::new(PROGRAM), &lab::patient(service_with(upstream)));
    lab.wait_for_addresses();
    let dns = load::service(&lab);
    until_true("both prefixes announced", || bird.has_both());
    until_true("the kernel has it", || kernel_route(&lab).is_some());
    until_true("it is remembered", remembered);
    (lab, bird, agent, dns)
}

fn upgrade() {
    let (lab, mut bird, agent, _dns) = replaceable();
    let before = status();
    // Another file at the same path: the running one is deleted.
    install(&fs::read(myself()).unwrap());
    assert!(upgrade_how(false, true).accepted, "dry");
    let load = Load::start(&lab, RATE);
    let start = Instant::now();
    let reply = upgrade_how(false, false);
    assert!(reply.accepted, "{reply:?}");
    assert_eq!(reply.version.as_deref(), Some("ubique test"));
    until_true("another session is there", || {
        assert!(bird.has_both(), "the routes stay");
        let back = |peer: &PeerStatus| peer.state == "established" && peer.since != before.peers[0].since;
        try_status().is_some_and(|s| s.state == State::Announced && back(&s.peers[0]))
    });
    assert!(bird.log().contains("graceful restart detected"), "{}", bird.log());
    until_true("nothing is stale any more", || bird.has_both() && !is_stale(&mut bird));
    let (sent, lost) = load.end();
    println!("upgraded in {:?}: {sent} queries at {RATE}/s, {lost} lost", start.elapsed());
    assert!(sent > u64::from(RATE) / 2 && lost == 0, "{lost} of {sent} lost");
    assert_eq!(lab.service_addresses(), 2);
    let command = fs::read(format!("/proc/{}/cmdline", agent.pid())).unwrap();
    assert!(command.starts_with(PROGRAM.as_bytes()), "the same process: {}", String::from_utf8_lossy(&command));
    let program = fs::read_link(format!("/proc/{}/exe", agent.pid())).unwrap();
    assert_eq!(program, Path::new(PROGRAM), "and the new program");
    assert_eq!(lab::children_of(agent.pid()).len(), 1, "one watchdog, the new one's");
    // Once more, by signal.
    let second = status().peers[0].since.clone();
    agent.signal(Signal::Usr2);
    until_true("SIGUSR2 does the same", || {
        assert!(bird.has_both());
        try_status().is_some_and(|s| s.state == State::Announced && s.peers[0].since != second)
    });
    let mut agent = agent;
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
    assert_eq!(lab.service_addresses(), 0, "addresses of the first one are removed by the third");
}

/// BIRD would drop the routes when it lost BFD, graceful restart or not.
fn with_bfd() {
    // A busy machine is no reason for a loss.
    let interval = Duration::from_millis(200);
    let bfd = Some(Bfd { interval, receive: interval, multiplier: 5 });
    let session = "bfd { interval 200 ms; multiplier 5; };";
    let (lab, mut bird, _agent, _dns) = replaceable_with(session, Upstream { bfd, ..restarting(60) });
    // State, interval, timeout: as BIRD sees the session.
    let seen = |bird: &mut Bird| -> Vec<String> {
        let reply = bird.ask("show bfd sessions");
        let line = reply.lines().find(|line| line.contains(lab::SITE_V4)).unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().skip(2).collect();
        [&words[..words.len().min(1)], words.get(2..).unwrap_or_default()]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect()
    };
    until_true("200 ms x 5 is agreed on", || seen(&mut bird).last().is_some_and(|timeout| timeout == "1.000"));
    let before = seen(&mut bird);
    assert_eq!(before[0], "Up");
    let session = status().peers[0].since.clone();
    let load = Load::start(&lab, RATE);
    let start = Instant::now();
    assert!(upgrade_how(false, false).accepted);
    until_true("the BGP session is another one, and announced", || {
        assert!(bird.has_both(), "the routes stay");
        assert!(!bird.log().contains("from Up to Down"), "BIRD's BFD never went down:\n{}", bird.log());
        let back = |s: &ubique_node::admin::Status| s.peers[0].state == "established" && s.peers[0].since != session;
        try_status().is_some_and(|s| s.state == State::Announced && back(&s))
    });
    until_true("nothing is stale any more", || bird.has_both() && !is_stale(&mut bird));
    until_true("200 ms x 5 again", || seen(&mut bird) == before);
    assert!(!bird.log().contains("from Up to Down"), "nor later:\n{}", bird.log());
    let (sent, lost) = load.end();
    println!("upgraded with BFD in {:?}: {sent} queries at {RATE}/s, {lost} lost", start.elapsed());
    assert!(sent > u64::from(RATE) / 2 && lost == 0, "{lost} of {sent} lost");
    let bfd = status().peers[0].bfd.clone().unwrap();
    assert_eq!((bfd.state.as_str(), bfd.downs), ("up", 0), "{bfd:?}");
    assert!(bfd.cause.contains("the program was replaced"), "{}", bfd.cause);
}

fn not_graceful() {
    let (_lab, mut bird, _agent, _dns) = running(&lab::service());
    let before = status();
    let reply = upgrade_how(false, false);
    assert!(!reply.accepted && reply.guarded, "{reply:?}");
    let said = reply.message.unwrap();
    assert!(said.contains("AS65000 192.0.2.1, AS65000 2001:db8:1::1") && said.contains("graceful-restart"), "{said}");
    assert!(bird.has_both() && since(&status().peers) == since(&before.peers), "nothing happened");
    assert!(upgrade_how(true, false).accepted, "whoever says yes may");
    until_true("it is back with new sessions", || {
        try_status().is_some_and(|s| s.state == State::Announced && since(&s.peers) != since(&before.peers))
    });
    until_true("announced again", || bird.has_both());
}

fn broken() {
    let (_lab, mut bird, agent, _dns) = replaceable();
    let before = status();
    let refused = |expected: &str| {
        let reply = upgrade_how(true, false);
        assert!(!reply.accepted && !reply.guarded, "{reply:?}");
        let said = reply.message.unwrap();
        assert!(said.contains(expected), "{expected} not in: {said}");
    };
    install(b"#!/bin/sh\necho 'missing libc' >&2; exit 127\n");
    refused("missing libc");
    install(b"\x7fELF not quite");
    refused("--version` failed");
    install(b"#!/bin/sh\necho grep 3.8\n");
    refused("is not ubique");
    install(b"#!/bin/sh\n[ \"$1\" = --version ] && echo ubique 9 && exit 0\necho 'E0101: unknown key' >&2; exit 2\n");
    refused("E0101: unknown key");
    fs::remove_file(PROGRAM).unwrap();
    refused("cannot be started");
    assert!(agent.log().contains("upgrade refused: this program goes on"));
    assert!(bird.has_both() && since(&status().peers) == since(&before.peers), "nothing happened");
}
