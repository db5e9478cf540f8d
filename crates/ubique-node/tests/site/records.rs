//! What the agent records and exports: BMP, MRT, journal.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ubique_model::service::{BmpCollector, JournalSettings, RotatedFile, Service};
use ubique_node::admin::{Direction, Reply, Request, RouteView, RoutesRequest};
use ubique_proto::bmp::{self, Message, flag};
use ubique_proto::journal::{self, Event, Input, Replay};
use ubique_proto::mrt;
use ubique_sys::process::Signal;

use crate::daemons::{BIRD, Bird};
use crate::lab::{self, Lab, PREFIX_V4, PREFIX_V6, Process, SITE_V4, ask, start, start_ready, until, until_true};
use crate::runner::Test;

const PMBMPD: &str = "/usr/sbin/pmbmpd";
const BGPDUMP: &str = "/usr/bin/bgpdump";
pub const JOURNAL: &str = "/run/records/journal";
const MRT: &str = "/run/records/updates.mrt";
const SECRET: &str = "correct-horse-battery";

pub const TESTS: &[Test] = &[
    Test { name: "a_bmp_collector_sees_sessions_and_routes", needs: &[BIRD], run: collector },
    Test { name: "pmbmpd_understands_what_it_is_told", needs: &[BIRD, PMBMPD], run: pmbmpd },
    Test { name: "a_collector_that_does_not_read_is_told_anew", needs: &[BIRD], run: deaf },
    Test { name: "mrt_files_hold_every_message", needs: &[BIRD, BGPDUMP], run: mrt_files },
    Test { name: "routes_are_told_in_pages", needs: &[BIRD], run: routes },
    Test { name: "a_killed_agent_leaves_a_journal_that_replays", needs: &[BIRD], run: killed },
    Test { name: "every_file_of_a_rotated_journal_replays", needs: &[BIRD], run: rotated },
    Test { name: "a_journal_that_cannot_be_written_stops_nothing", needs: &[BIRD], run: unwritable },
];

fn rotated_file(path: &str) -> RotatedFile {
    RotatedFile { path: path.into(), size_mib: 1, files: 3 }
}

fn with_journal(full_outputs: bool) -> Service {
    let mut service = lab::service();
    journalled(&mut service, full_outputs);
    service
}

pub fn journalled(service: &mut Service, full_outputs: bool) {
    service.agent.records.journal = Some(JournalSettings { file: rotated_file(JOURNAL), full_outputs });
}

/// Both prefixes announced.
fn running(service: &Service, extra: &str) -> (Lab, Bird, Process, Process) {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, extra);
    let agent = lab.agent(service);
    lab.wait_for_addresses();
    let dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    (lab, bird, agent, dns)
}

fn stop(agent: &mut Process) {
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0, "{}", agent.log());
}

/// The messages of the n-th connection of the collector.
fn told(connection: usize) -> Vec<Message> {
    let octets = fs::read(format!("/run/collector.{connection}")).unwrap_or_default();
    let mut rest = &octets[..];
    let mut messages = vec![];
    while let Ok(Some(length)) = bmp::length(rest) {
        let Some((message, after)) = rest.split_at_checked(length) else { break };
        messages.push(bmp::decode(message).unwrap());
        rest = after;
    }
    messages
}

fn monitored(messages: &[Message], flags: u8, needle: &[u8]) -> bool {
    messages.iter().any(|m| match m {
        Message::RouteMonitoring { peer, update } => {
            peer.flags == flags && update.windows(needle.len()).any(|w| w == needle)
        }
        _ => false,
    })
}

/// 203.0.113.0/24, which BIRD announces, and 198.51.100.0/24, which the agent does, as UPDATEs have them.
const THEIRS: &[u8] = &[24, 203, 0, 113];
const OURS: &[u8] = &[24, 198, 51, 100];
const OUT: u8 = flag::ADJ_RIB_OUT | flag::POST_POLICY;

fn bmp_service(port: u16) -> Service {
    let mut service = lab::service();
    let collector = format!("{SITE_V4}:{port}").parse().unwrap();
    service.agent.records.bmp = vec![BmpCollector { collector, statistics: Duration::from_secs(1) }];
    service
}

fn collector() {
    let (lab, bird, mut agent, _dns) = running(&bmp_service(11019), "");
    // It comes later than the routes: it is told what is known.
    let collector = start_ready(&lab.site, "collector", &[&format!("{SITE_V4}:11019")]);
    until_true("dump and statistics", || {
        let messages = told(0);
        monitored(&messages, 0, THEIRS)
            && monitored(&messages, OUT, OURS)
            && messages.iter().any(|m| matches!(m, Message::StatisticsReport { .. }))
    });
    let messages = told(0);
    assert!(matches!(messages[0], Message::Initiation(_)), "{messages:?}");
    let ups = messages.iter().filter(|m| matches!(m, Message::PeerUp { .. })).count();
    assert_eq!(ups, 2, "one for each session: {messages:?}");
    for message in &messages {
        if let Message::PeerUp { sent_open, received_open, remote_port, .. } = message {
            assert_eq!((sent_open[18], received_open[18]), (1, 1), "two OPENs");
            assert_ne!(*remote_port, 0);
        }
    }
    ask(&Request::Drain { reason: "test".into() }).unwrap();
    let withdrawal = [&[0, 4][..], OURS].concat();
    until_true("the withdrawal is told", || monitored(&told(0), OUT, &withdrawal));
    drop(bird);
    until_true("both sessions are told to be down", || {
        told(0).iter().filter(|m| matches!(m, Message::PeerDown { .. })).count() == 2
    });
    let _bird = Bird::start(&lab.router, "");
    until_true("they are up again", || told(0).iter().filter(|m| matches!(m, Message::PeerUp { .. })).count() == 4);
    stop(&mut agent);
    until_true("the end is told", || matches!(told(0).last(), Some(Message::Termination(_))));
    drop(collector);
}

/// Its log has one JSON object a line.
fn pmbmpd() {
    let (lab, bird, mut agent, _dns) = running(&bmp_service(1790), "");
    let config = format!(
        "bmp_daemon_ip: {SITE_V4}\nbmp_daemon_port: 1790\nbmp_daemon_msglog_file: /run/pmbmpd.json\nbmp_daemon_msglog_output: json\n"
    );
    fs::write("/run/pmbmpd.conf", config).unwrap();
    let daemon = start(&lab.site, "pmbmpd", Path::new(PMBMPD), &["-f", "/run/pmbmpd.conf"]);
    let log = || -> Vec<serde_json::Value> {
        let text = fs::read_to_string("/run/pmbmpd.json").unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let has = |fields: &[(&str, &str)]| {
        log().iter().any(|line| {
            fields.iter().all(|(key, value)| match line.get(key) {
                Some(serde_json::Value::String(text)) => text == value,
                Some(other) => other.to_string().as_str() == *value,
                None => false,
            })
        })
    };
    until_true("session and routes", || {
        has(&[("bmp_msg_type", "init")])
            && has(&[("bmp_msg_type", "peer_up"), ("peer_ip", lab::ROUTER_V4), ("peer_asn", "65000")])
            && has(&[("bmp_msg_type", "peer_up"), ("peer_ip", lab::ROUTER_V6)])
            && has(&[("bmp_msg_type", "route_monitor"), ("ip_prefix", "203.0.113.0/24"), ("log_type", "update")])
            && has(&[("bmp_msg_type", "route_monitor"), ("ip_prefix", "2001:db8:113::/48")])
            && has(&[
                ("bmp_msg_type", "route_monitor"),
                ("ip_prefix", PREFIX_V4),
                ("is_out", "1"),
                ("as_path", "64500 64500"),
            ])
            && has(&[("bmp_msg_type", "route_monitor"), ("ip_prefix", PREFIX_V6), ("is_out", "1")])
            && has(&[("bmp_msg_type", "stats")])
    });
    drop(bird);
    until_true("sessions down", || has(&[("bmp_msg_type", "peer_down"), ("peer_ip", lab::ROUTER_V4)]));
    stop(&mut agent);
    until_true("the end", || has(&[("bmp_msg_type", "term")]));
    drop(daemon);
}

/// BIRD announces so many routes, other ones for each seed, each in an UPDATE of its own.
fn announce_many(bird: &mut Bird, count: u32, seed: u32) {
    let original = Path::new("/run/bird.conf.original");
    if !original.exists() {
        fs::copy("/run/bird.conf", original).unwrap();
    }
    let route = |n: u32| {
        let (a, b) = (n >> 8, n & 255);
        format!(" route 10.{a}.{b}.0/24 blackhole {{ bgp_community.add(({seed}, {n})); }};\n")
    };
    let known = "route 203.0.113.0/24 blackhole;";
    let routes: String = (0..count).map(route).collect();
    let text = fs::read_to_string(original).unwrap().replace(known, &format!("{known}\n{routes}"));
    fs::write("/run/bird.conf", text).unwrap();
    let reply = bird.ask("configure");
    assert!(reply.contains("econfigur"), "{reply}");
}

/// A collector that stops reading: sessions and checks do not notice, and it is told everything again.
fn deaf() {
    let (lab, mut bird, mut agent, _dns) = running(&bmp_service(11019), "");
    let deaf = start_ready(&lab.site, "collector", &[&format!("{SITE_V4}:11019"), "deaf"]);
    until_true("connected", || agent.log().contains("BMP collector connected"));
    let full = || agent.log().contains("it does not read");
    for seed in 0..60 {
        announce_many(&mut bird, 4_000, seed);
        let begin = std::time::Instant::now();
        while !full() && begin.elapsed() < Duration::from_millis(300) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if full() {
            break;
        }
    }
    until_true("its queue is full", full);
    assert!(lab::status().peers.iter().all(|p| p.state == "established"));
    drop(deaf);
    let _collector = start_ready(&lab.site, "collector", &[&format!("{SITE_V4}:11019")]);
    until_true("it is told everything", || {
        monitored(&told(0), 0, &[24, 10, 15, 159]) && monitored(&told(0), OUT, OURS)
    });
    stop(&mut agent);
}

fn mrt_files() {
    let mut service = lab::service();
    service.agent.records.mrt = Some(rotated_file(MRT));
    let (_lab, bird, mut agent, _dns) = running(&service, "");
    ask(&Request::Drain { reason: "test".into() }).unwrap();
    drop(bird);
    stop(&mut agent);
    let octets = fs::read(MRT).unwrap();
    let (mut rest, mut kinds) = (&octets[..], [0; 6]);
    while let mrt::Parsed::Record(record, used) = mrt::decode(rest) {
        if let mrt::Event::Message { bytes, .. } = &record.event {
            kinds[usize::from(bytes[18])] += 1;
        }
        rest = &rest[used..];
    }
    assert!(rest.is_empty() && kinds[1] >= 4 && kinds[2] > 4 && kinds[4] >= 4, "{kinds:?}");
    let dump = std::process::Command::new(BGPDUMP).args(["-m", "-q", MRT]).output().unwrap();
    let text = String::from_utf8(dump.stdout).unwrap();
    for expected in [
        "|STATE|192.0.2.1|65000|5|6",
        "|A|192.0.2.1|65000|203.0.113.0/24|65000|IGP|192.0.2.1|",
        "|A|192.0.2.1|65000|198.51.100.0/24|64500 64500|IGP|192.0.2.2|",
        "|A|2001:db8:1::1|65000|2001:db8:53::/48|64500 64500|IGP|2001:db8:1::2|",
        "|W|192.0.2.1|65000|198.51.100.0/24",
        "|STATE|192.0.2.1|65000|6|",
    ] {
        assert!(text.contains(expected), "{expected} not in\n{text}");
    }
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(MRT).unwrap().permissions().mode() & 0o777, 0o640);
}

/// Replays a file; the number of outputs that were compared, inputs of each core, and whether its end is cut off.
pub fn replayed(path: &str) -> (usize, [usize; 4], bool) {
    let octets = fs::read(path).unwrap();
    let mut rest = octets.strip_prefix(&journal::MAGIC).expect("a journal");
    let (mut replay, mut outputs, mut inputs) = (Replay::default(), 0, [0; 4]);
    loop {
        match journal::parse(rest) {
            journal::Parsed::Record(record, used) => {
                let entry = replay.record(*record).unwrap();
                assert_eq!(entry.difference, None, "{path}: record {}", entry.number);
                match &entry.event {
                    Event::Outputs { outputs: of, .. } => outputs += of.len(),
                    Event::Input(Input::Bgp(_)) => inputs[0] += 1,
                    Event::Input(Input::Health(_)) => inputs[1] += 1,
                    Event::Input(Input::Site(_)) => inputs[2] += 1,
                    Event::Input(Input::Bfd(_)) => inputs[3] += 1,
                    _ => {}
                }
                rest = &rest[used..];
            }
            journal::Parsed::Incomplete(_) => {
                assert!(replay.complete(), "{path}: every core was replayed from its first record on");
                return (outputs, inputs, !rest.is_empty());
            }
            other => panic!("{path}: {other:?}"),
        }
    }
}

/// All routes that a request gets, page by page.
pub fn routes_of(mut which: RoutesRequest) -> Vec<RouteView> {
    let mut routes = vec![];
    loop {
        let Ok(Reply::Routes(page)) = ask(&Request::Routes(which.clone())) else { panic!("no routes") };
        routes.extend(page.routes);
        which.after = page.next;
        if which.after.is_none() {
            return routes;
        }
    }
}

fn routes() {
    let (_lab, mut bird, _agent, _dns) = running(&lab::service(), "");
    let all = || routes_of(RoutesRequest::default());
    let all = until("what BIRD announces has come", || Some(all()).filter(|routes| routes.len() == 4)).0;
    let summary: Vec<(Direction, String)> = all.iter().map(|r| (r.direction, r.prefix.to_string())).collect();
    let expected = [
        (Direction::Received, "203.0.113.0/24"),
        (Direction::Received, "2001:db8:113::/48"),
        (Direction::Sent, PREFIX_V4),
        (Direction::Sent, PREFIX_V6),
    ];
    assert_eq!(summary, expected.map(|(direction, prefix)| (direction, prefix.to_owned())));
    assert_eq!((all[0].as_path.as_str(), all[0].step.as_deref()), ("65000", Some("observed only")));
    assert!(all[0].age_s.is_some() && all[0].peer.to_string() == lab::ROUTER_V4);
    assert_eq!(all[2].communities, ["64500:100"]);
    let with = |address: &str| routes_of(RoutesRequest { address: address.parse().ok(), ..RoutesRequest::default() });
    assert_eq!(with("203.0.113.77")[0].prefix.to_string(), "203.0.113.0/24");
    assert_eq!(with("198.51.100.1")[0].prefix.to_string(), PREFIX_V4);
    assert!(with("192.0.2.200").is_empty());
    announce_many(&mut bird, 1_000, 1);
    let from = |peer: &str| RoutesRequest {
        peer: peer.parse().ok(),
        direction: Some(Direction::Received),
        ..RoutesRequest::default()
    };
    until_true("all of many pages", || routes_of(from(lab::ROUTER_V4)).len() == 1_001);
    assert_eq!(routes_of(from(lab::ROUTER_V6)).len(), 1);
    let mut prefixes: Vec<String> = routes_of(from(lab::ROUTER_V4)).iter().map(|r| r.prefix.to_string()).collect();
    prefixes.sort();
    prefixes.dedup();
    assert_eq!(prefixes.len(), 1_001, "each once");
    let stranger = ask(&Request::Routes(from("192.0.2.99")));
    let error = stranger.unwrap_err().to_string();
    assert!(error.contains("no neighbour has the address 192.0.2.99; there are 192.0.2.1, 2001:db8:1::1"), "{error}");
}

/// With a session key, which no record may hold.
fn killed() {
    let mut service = with_journal(false);
    fs::write("/run/key", SECRET).unwrap();
    for upstream in &mut service.sites[0].upstreams {
        upstream.password_file = Some("/run/key".into());
    }
    let (_lab, mut bird, mut agent, mut dns) = running(&service, &format!("password \"{SECRET}\";"));
    for _ in 0..3 {
        dns.kill();
        until_true("withdrawn", || bird.has_none());
        dns = _lab.dns();
        until_true("announced again", || bird.has_both());
    }
    agent.kill();
    let (outputs, inputs, _) = replayed(JOURNAL);
    println!("{outputs} outputs are equal; inputs of each core {inputs:?}");
    assert!(outputs > 50 && inputs[0] > 20 && inputs[1] > 20 && inputs[2] >= 8, "{outputs} {inputs:?}");
    let octets = fs::read(JOURNAL).unwrap();
    assert!(!octets.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()), "the key is in the journal");
    assert!(octets.windows(8).any(|w| w == b"resolver"), "texts are found this way");
    drop(dns);
}

fn rotated() {
    // With outputs in full every UPDATE is there twice: what was received, and what the tap said of it.
    let (_lab, mut bird, mut agent, _dns) = running(&with_journal(true), "");
    for seed in 0..40 {
        announce_many(&mut bird, 3_000, seed);
        let last = Path::new("/run/records/journal.2");
        let begin = std::time::Instant::now();
        while !last.exists() && begin.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if last.exists() {
            break;
        }
    }
    stop(&mut agent);
    assert!(!Path::new(&format!("{JOURNAL}.3")).exists());
    for path in [JOURNAL, &format!("{JOURNAL}.1"), &format!("{JOURNAL}.2")] {
        let (outputs, inputs, cut) = replayed(path);
        println!("{path}: {outputs} outputs are equal; inputs {inputs:?}");
        assert!(outputs > 0 && !cut);
    }
}

fn unwritable() {
    fs::write("/run/records", "a file in the place of the directory").unwrap();
    let (_lab, mut bird, mut agent, _dns) = running(&with_journal(false), "");
    until_true("it is said", || agent.log().contains("the journal cannot be written"));
    assert!(bird.has_both());
    stop(&mut agent);
    assert_eq!(agent.log().matches("the journal cannot be written").count(), 1, "once");
}
