//! The admin socket, the metrics endpoint, and what the agent costs.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ubique_node::admin::{CheckStatus, Request};

use crate::daemons::{BIRD, Bird};
use crate::lab::{self, Lab, Process, SOCKET, ask, status, until, until_true};
use crate::runner::Test;

const fn test(name: &'static str, run: fn()) -> Test {
    Test { name, needs: &[BIRD], run }
}

pub const TESTS: &[Test] = &[
    test("status_tells_what_is", status_is_whole),
    test("admin_socket_survives_garbage", garbage),
    test("metrics_are_read_back_from_the_sessions", metrics),
    test("an_agent_costs_little", cost),
];

fn announced() -> (Lab, Bird, Process, Process) {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let agent = lab.agent(&lab::service());
    lab.wait_for_addresses();
    let dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    (lab, bird, agent, dns)
}

fn status_is_whole() {
    let (lab, _bird, _agent, _dns) = announced();
    let passes = |c: &CheckStatus| c.up && c.last_result.as_deref() == Some("ok");
    let status = until("all checks pass", || Some(status()).filter(|s| s.checks.iter().all(passes))).0;
    assert_eq!((status.schema_version, &*status.service, &*status.site), (1, "resolver", "ams"));
    assert!(status.healthy && status.since.ends_with('Z'));
    assert_eq!(status.checks.len(), 2);
    assert!(status.checks.iter().all(|c| c.kind == "dns"));
    assert!(status.checks.iter().all(|c| c.polls >= c.failures + 2));
    let peer = &status.peers[0];
    assert_eq!((peer.asn.0, peer.hold_time_s), (lab::ROUTER_ASN, Some(9)));
    assert_eq!(peer.prefixes.len(), 1, "a session carries one family");
    assert!(peer.messages.sent >= 3 && peer.messages.received >= 2, "{:?}", peer.messages);
    assert_eq!(fs::metadata(SOCKET).unwrap().permissions().mode() & 0o777, 0o660);
    // A second agent of the same site must not take the socket over.
    let mut second = lab.agent(&lab::service());
    assert_eq!(second.wait(), 3);
    assert!(second.log().contains("another agent answers"), "{}", second.log());
}

fn garbage() {
    let (_lab, mut bird, _agent, _dns) = announced();
    let talk = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(SOCKET).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    };
    for bytes in [
        &b"\n"[..],
        b"{}\n",
        b"{\"query\":\"reboot\"}\n",
        b"{\"query\":\"drain\"}\n",
        b"{\"query\":\"drain\",\"reason\":7}\n",
        b"\xff\xfe\n",
        &[b'{'; 4000],
        &[b'x'; 5000],
    ] {
        let reply = talk(bytes);
        assert!(reply.starts_with("{\"error\":"), "{:?} → {reply}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(talk(b""), "");
    let twice = talk(b"{\"query\":\"status\"}\n{\"query\":\"status\"}\n");
    assert_eq!(twice.lines().count(), 2, "several requests on one connection");
    // A crowd that asks nothing makes room for one who does.
    let idle: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(SOCKET).unwrap()).collect();
    assert!(ask(&Request::Status).is_ok());
    drop(idle);
    assert!(bird.has_both());
}

fn http(lab: &Lab, request: &str) -> String {
    lab.site
        .run(|| {
            let mut stream = TcpStream::connect("127.0.0.1:9430").unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut reply = String::new();
            let _ = stream.read_to_string(&mut reply);
            reply
        })
        .unwrap()
}

pub fn get(lab: &Lab, path: &str) -> String {
    http(lab, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
}

fn metrics() {
    let (lab, mut bird, _agent, mut dns) = announced();
    let labels = "service=\"resolver\",site=\"ams\"";
    let announced = |value: u8| {
        let (prefix, peer) = (lab::PREFIX_V4, lab::ROUTER_V4);
        format!("ubique_prefix_announced{{{labels},prefix=\"{prefix}\",peer=\"{peer}\"}} {value}\n")
    };
    until_true("acknowledged", || get(&lab, "/metrics").contains(&announced(1)));
    let text = get(&lab, "/metrics");
    for expected in [
        format!("ubique_build_info{{{labels},version=\"test\"}} 1\n"),
        format!("ubique_site_ready{{{labels}}} 1\n"),
        format!("ubique_site_state{{{labels},state=\"announced\"}} 1\n"),
        format!("ubique_bgp_session_up{{{labels},peer=\"192.0.2.1\",asn=\"65000\"}} 1\n"),
        format!("ubique_health_check_up{{{labels},check=\"answers\"}} 1\n"),
        format!("ubique_health_check_flaps_total{{{labels},check=\"answers\"}} 1\n"),
        format!("ubique_announce_transitions_total{{{labels},reason=\"healthy\"}} 1\n"),
        format!("ubique_bgp_prefixes{{{labels},peer=\"192.0.2.1\",direction=\"advertised\"}} 1\n"),
        "ubique_agent_last_seen_timestamp_seconds{".to_owned(),
        "ubique_health_check_duration_seconds_bucket{".to_owned(),
        "ubique_bgp_session_established_timestamp_seconds{".to_owned(),
        "# TYPE ubique_health_check_duration_seconds histogram\n".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected} not in\n{text}");
    }
    dns.kill();
    until_true("withdrawn", || bird.has_none());
    until_true("read back", || get(&lab, "/metrics").contains(&announced(0)));
    assert!(get(&lab, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(get(&lab, "/").starts_with("HTTP/1.1 404 "));
    assert!(http(&lab, "POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(http(&lab, "\x16\x03\x01 no http\r\n\r\n").starts_with("HTTP/1.1 400 "));
}

/// Clock ticks of the kernel's process times, per second, on every Linux.
const TICKS: u64 = 100;

fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// `VmRSS`: all that is resident; `RssAnon`: without the text of the program.
fn resident_kib(pid: u32, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with(which)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn cost() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let mut service = lab::service();
    let copies = service.checks.clone();
    service.checks.extend(copies.into_iter().map(|c| ubique_model::check::Check { name: format!("{}b", c.name), ..c }));
    for check in &mut service.checks {
        check.every = Duration::from_millis(100);
        check.timeout = Duration::from_millis(80);
    }
    let agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    let (start, before) = (Instant::now(), ticks(agent.pid()));
    std::thread::sleep(Duration::from_secs(2));
    let used = (ticks(agent.pid()) - before) as f64 / TICKS as f64 / start.elapsed().as_secs_f64();
    let pids = [vec![agent.pid()], lab::children_of(agent.pid())].concat();
    let sum = |which| pids.iter().map(|&pid| resident_kib(pid, which)).sum::<u64>();
    let (resident, own) = (sum("VmRSS:"), sum("RssAnon:"));
    println!(
        "idle agent: {:.2} % of a core, {resident} KiB resident with its watchdog, {own} of them not text",
        used * 100.0
    );
    // Time informs, size gates: machines are noisy. The text of unoptimised code is several times that of what ships.
    // With the data plane there is libbpf, too, of which an agent without [sessions] touches no more than what lies between.
    let most = if cfg!(feature = "sessions") { 28 << 10 } else { 25 << 10 };
    assert!(own < 8 << 10 && resident < most, "{own} and {resident} KiB");
}
