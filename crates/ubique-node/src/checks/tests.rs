//! Each kind of check against a real server on the loopback.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ubique_model::check::{Dns, DnsTransport, Flag, FlagBit, Http, Metric, Statuses, Target, Trust};

use super::*;

mod hostile;
#[cfg(feature = "tls")]
mod tls;

const LIMIT: Duration = Duration::from_secs(20);

/// Polls once; a test must not hang.
fn poll(checker: &mut Checker) -> Result<(), String> {
    runtime()
        .block_on(async { tokio::time::timeout(LIMIT, checker.poll()).await.expect("a poll ends") })
        .map(drop)
        .map_err(|e| e.words)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn checker(kind: &CheckKind) -> Checker {
    Checker::new(kind, &[]).unwrap_or_else(|e| panic!("{e}"))
}

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A UDP server that answers one query after another with what `answer` makes of it.
fn udp_server(answer: impl Fn(Vec<u8>) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind(LOOPBACK).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            for reply in answer(buffer[..length].to_vec()) {
                socket.send_to(&reply, from).unwrap();
            }
        }
    });
    address
}

/// A TCP server that answers the first read of each connection.
fn tcp_server(answer: impl Fn(Vec<u8>) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).unwrap_or(0);
            let _ = stream.write_all(&answer(buffer[..length].to_vec()));
        }
    });
    address
}

/// A port where nobody listens.
fn closed_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, crate::ports::unused()))
}

fn dns_spec(target: SocketAddr) -> Dns {
    Dns {
        target: target.into(),
        name: "www.example.com".into(),
        qtype: "AAAA".into(),
        class: "IN".into(),
        rcode: "NOERROR".into(),
        answer: vec![],
        answer_contains: vec![],
        flags: vec![],
        transport: DnsTransport::Udp,
        path: "/dns-query".into(),
        trust: Trust::default(),
    }
}

fn dns(target: SocketAddr, tcp: bool) -> CheckKind {
    let transport = if tcp { DnsTransport::Tcp } else { DnsTransport::Udp };
    CheckKind::Dns(Dns { transport, ..dns_spec(target) })
}

/// The query as an answer with this RCODE.
fn answered(mut query: Vec<u8>, rcode: u8) -> Vec<u8> {
    query[2] |= 0x80;
    query[3] = query[3] & 0xf0 | rcode;
    query
}

#[test]
fn dns_over_udp_wants_the_rcode() {
    let fine = udp_server(|query| vec![answered(query, 0)]);
    assert_eq!(poll(&mut checker(&dns(fine, false))), Ok(()));
    let failing = udp_server(|query| vec![answered(query, 2)]);
    assert_eq!(poll(&mut checker(&dns(failing, false))), Err("SERVFAIL, expected NOERROR".into()));
}

#[test]
fn dns_query_is_what_was_asked_for() {
    let strict = udp_server(|query| {
        // One question: www.example.com AAAA IN (RFC 1035 §4.1.2).
        let expected = b"\x03www\x07example\x03com\x00\x00\x1c\x00\x01";
        let fits = query[4..6] == [0, 1] && query[12..] == expected[..];
        vec![answered(query, if fits { 0 } else { 1 })]
    });
    assert_eq!(poll(&mut checker(&dns(strict, false))), Ok(()));
}

#[test]
fn dns_ignores_answers_to_other_queries() {
    // A late answer to an earlier poll comes first.
    let late = udp_server(|query| {
        let mut other = answered(query.clone(), 2);
        other[0] ^= 0xff;
        vec![other, answered(query, 0)]
    });
    assert_eq!(poll(&mut checker(&dns(late, false))), Ok(()));
}

#[test]
fn dns_refuses_what_is_no_answer() {
    type Answer = fn(Vec<u8>) -> Vec<u8>;
    let cases: [(&str, Answer); 4] = [
        ("answer of 5 octets is not a DNS message", |query| query[..5].to_vec()),
        ("answer is a query", |query| query),
        ("answer to another question", |query| {
            let mut answer = answered(query, 0);
            answer[13] = b'x';
            answer
        }),
        ("answer without the question", |query| {
            let mut answer = answered(query, 0)[..12].to_vec();
            answer[5] = 0;
            answer
        }),
    ];
    for (error, answer) in cases {
        let server = udp_server(move |query| vec![answer(query)]);
        assert_eq!(poll(&mut checker(&dns(server, false))), Err(error.into()));
    }
}

#[test]
fn dns_over_udp_sees_a_closed_port_at_once() {
    let target = closed_port();
    let start = Instant::now();
    assert_eq!(poll(&mut checker(&dns(target, false))), Err("connection refused".into()));
    assert!(start.elapsed() < LIMIT / 2);
}

#[test]
fn dns_over_udp_asks_from_another_port_each_time() {
    let (send, receive) = std::sync::mpsc::channel();
    let socket = UdpSocket::bind(LOOPBACK).unwrap();
    let target = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            send.send((from, u16::from_be_bytes([buffer[0], buffer[1]]))).unwrap();
            socket.send_to(&answered(buffer[..length].to_vec(), 0), from).unwrap();
        }
    });
    let mut checker = checker(&dns(target, false));
    runtime().block_on(async {
        for _ in 0..8 {
            assert_eq!(checker.poll().await, Ok(None));
        }
    });
    let seen: Vec<(SocketAddr, u16)> = receive.try_iter().collect();
    assert!(seen.iter().any(|(from, _)| *from != seen[0].0), "workers that share the port are all met: {seen:?}");
    assert!(seen.iter().any(|(_, id)| *id != seen[0].1), "identifiers are random");
}

#[test]
fn dns_over_tcp_reads_length_and_answer() {
    let fine = tcp_server(|query| {
        let answer = answered(query[2..].to_vec(), 0);
        [&(answer.len() as u16).to_be_bytes()[..], &answer].concat()
    });
    assert_eq!(poll(&mut checker(&dns(fine, true))), Ok(()));
    let short = tcp_server(|_| vec![0, 200, 1, 2, 3]);
    assert_eq!(poll(&mut checker(&dns(short, true))), Err("connection closed early".into()));
    assert_eq!(poll(&mut checker(&dns(closed_port(), true))), Err("connection refused".into()));
}

#[test]
fn dns_parameters_are_judged_when_the_check_is_set_up() {
    let Dns { name, qtype, class, rcode, .. } = dns_spec(closed_port());
    for (bad_name, bad_type, bad_class, bad_rcode) in [
        ("no..dots", &*qtype, &*class, &*rcode),
        (&*name, "NOTYPE", &*class, &*rcode),
        (&*name, &*qtype, "XX", &*rcode),
        (&*name, &*qtype, &*class, "NOTARCODE"),
    ] {
        let kind = CheckKind::Dns(Dns {
            name: bad_name.into(),
            qtype: bad_type.into(),
            class: bad_class.into(),
            rcode: bad_rcode.into(),
            ..dns_spec(closed_port())
        });
        assert!(Checker::new(&kind, &[]).is_err());
    }
}

fn http_spec(target: SocketAddr) -> Http {
    Http {
        target: target.into(),
        tls: false,
        host: Some("service.example".into()),
        path: "/health?full=1".into(),
        status: vec![Statuses { first: 200, last: 200 }],
        body: vec![],
        headers: vec![],
        trust: Trust::default(),
    }
}

fn http(target: SocketAddr) -> CheckKind {
    CheckKind::Http(http_spec(target))
}

#[test]
fn http_wants_the_status() {
    let server = tcp_server(|request| {
        let text = String::from_utf8(request).unwrap();
        let fits = text.starts_with("GET /health?full=1 HTTP/1.1\r\n") && text.contains("host: service.example\r\n");
        let status = if fits { "200 OK" } else { "400 Bad Request" };
        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into_bytes()
    });
    assert_eq!(poll(&mut checker(&http(server))), Ok(()));
    let broken = tcp_server(|_| b"HTTP/1.1 503 Service Unavailable\r\n\r\n".to_vec());
    assert_eq!(poll(&mut checker(&http(broken))), Err("status 503, expected 200".into()));
}

#[test]
fn http_fails_on_what_is_not_http() {
    let garbage = tcp_server(|_| b"SSH-2.0-OpenSSH\r\n".to_vec());
    assert!(poll(&mut checker(&http(garbage))).is_err());
    let silent = tcp_server(|_| Vec::new());
    assert!(poll(&mut checker(&http(silent))).is_err());
    let endless = tcp_server(|_| [&b"HTTP/1.1 200 OK\r\nx: "[..], &vec![b'a'; 64 << 10]].concat());
    assert!(poll(&mut checker(&http(endless))).is_err(), "a head is bounded");
    assert_eq!(poll(&mut checker(&http(closed_port()))), Err("connection refused".into()));
}

#[test]
fn tcp_wants_a_connection() {
    let server = tcp_server(|_| Vec::new());
    assert_eq!(poll(&mut checker(&CheckKind::Tcp { target: server.into() })), Ok(()));
    assert_eq!(poll(&mut checker(&CheckKind::Tcp { target: closed_port().into() })), Err("connection refused".into()));
}

/// An answer to `query` with one TXT record.
fn with_record(query: &[u8], text: &str, flags: [u8; 2]) -> Vec<u8> {
    let mut answer = answered(query.to_vec(), 0);
    answer[2] |= flags[0];
    answer[3] |= flags[1];
    answer[7] = 1;
    answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
    answer.extend((text.len() as u16 + 1).to_be_bytes());
    answer.push(text.len() as u8);
    answer.extend(text.as_bytes());
    answer
}

#[test]
fn dns_expects_data_and_flags() {
    const AA: u8 = 4;
    const AD: u8 = 0x20;
    let server = udp_server(|query| vec![with_record(&query, "site ams1", [AA, AD])]);
    let flag = |bit, set| Flag { bit, set };
    let spec = Dns { qtype: "TXT".into(), ..dns_spec(server) };
    for (answer, contains, flags, error) in [
        ("site ams1", "", vec![], None),
        (
            "\"Site AMS1\"",
            "ams",
            vec![flag(FlagBit::Aa, true), flag(FlagBit::Ad, true), flag(FlagBit::Tc, false)],
            None,
        ),
        ("site lon1", "", vec![], Some("answer is \"site ams1\", expected \"site lon1\"")),
        ("", "lon", vec![], Some("answer is \"site ams1\", expected \"lon\"")),
        ("", "", vec![flag(FlagBit::Aa, false)], Some("flag aa is set")),
        ("", "", vec![flag(FlagBit::Ra, true)], Some("flag ra is not set")),
    ] {
        let some = |text: &str| if text.is_empty() { vec![] } else { vec![text.to_owned()] };
        let kind = Dns { answer: some(answer), answer_contains: some(contains), flags, ..spec.clone() };
        let expected = error.map_or(Ok(()), |error| Err(error.to_owned()));
        assert_eq!(poll(&mut checker(&CheckKind::Dns(kind))), expected);
    }
    let empty = udp_server(|query| vec![answered(query, 0)]);
    let kind = Dns { answer: vec!["192.0.2.1".into()], ..dns_spec(empty) };
    assert_eq!(poll(&mut checker(&CheckKind::Dns(kind))), Err("no record, expected \"192.0.2.1\"".into()));
}

#[test]
fn http_expects_status_headers_and_body() {
    let server = tcp_server(|_| b"HTTP/1.1 204 x\r\nx-site: ams\r\n\r\nall is well".to_vec());
    let class = vec![Statuses { first: 200, last: 299 }];
    let judge = |headers: &[(&str, &str)], body: &[&str]| {
        let headers = headers.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let body = body.iter().map(ToString::to_string).collect();
        poll(&mut checker(&CheckKind::Http(Http { status: class.clone(), headers, body, ..http_spec(server) })))
    };
    assert_eq!(judge(&[("X-Site", "ams")], &[]), Ok(()));
    assert_eq!(judge(&[("x-site", "lon")], &[]), Err("header x-site is \"ams\", expected \"lon\"".into()));
    assert_eq!(judge(&[("x-other", "1")], &[]), Err("no header x-other, expected \"1\"".into()));
    // 204 has no body (RFC 9110 §15.3.5), whatever follows.
    assert_eq!(judge(&[], &["well"]), Err("the body does not contain \"well\": ".into()));
    let server = tcp_server(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nall is well".to_vec());
    let body = |text: &str| CheckKind::Http(Http { body: vec![text.into()], ..http_spec(server) });
    assert_eq!(poll(&mut checker(&body("is well"))), Ok(()));
    assert_eq!(poll(&mut checker(&body("ill"))), Err("the body does not contain \"ill\": all is well".into()));
}

#[test]
fn udp_expects_beginning_and_content() {
    let server = udp_server(|query| vec![[&query[..], b"pong\x00"].concat()]);
    let kind = |starts: &[u8], contains: &[u8]| CheckKind::Udp {
        target: server.into(),
        send: b"ping".to_vec(),
        starts: starts.to_vec(),
        contains: contains.to_vec(),
    };
    assert_eq!(poll(&mut checker(&kind(b"", b""))), Ok(()));
    assert_eq!(poll(&mut checker(&kind(b"pingp", b"ong\0"))), Ok(()));
    assert!(poll(&mut checker(&kind(b"pong", b""))).unwrap_err().starts_with("answer begins otherwise: pingpong"));
    assert!(poll(&mut checker(&kind(b"", b"xyz"))).unwrap_err().starts_with("answer does not contain"));
    let closed = CheckKind::Udp { target: closed_port().into(), send: b"x".to_vec(), starts: vec![], contains: vec![] };
    assert_eq!(poll(&mut checker(&closed)), Err("connection refused".into()));
}

#[test]
fn load_reads_commands_pages_and_queues() {
    let load = |metric: Metric| {
        let mut checker = checker(&CheckKind::Load { metric, high: 10, low: 5 });
        let end = runtime().block_on(async { tokio::time::timeout(LIMIT, checker.poll()).await.expect("a poll ends") });
        end.map_err(|e| e.words)
    };
    let command = |words: &[&str]| Metric::Command(words.iter().map(ToString::to_string).collect());
    assert_eq!(load(command(&["echo", "12.5"])), Ok(Some(12_500)));
    assert_eq!(load(command(&["echo", "much"])), Err("\"much\" is not a number".into()));
    assert_eq!(load(command(&["false"])), Err("exit status: 1".into()));
    let server = tcp_server(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n1234\n".to_vec());
    assert_eq!(load(Metric::Page(Box::new(http_spec(server)))), Ok(Some(1_234_000)));
    // Two connections that nobody accepts.
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let address = listener.local_addr().unwrap();
    let _callers = [std::net::TcpStream::connect(address).unwrap(), std::net::TcpStream::connect(address).unwrap()];
    assert_eq!(load(Metric::Backlog { port: address.port() }), Ok(Some(2_000)));
    assert_eq!(load(Metric::Datagrams), Ok(Some(0)), "the first poll has no rate");
}

#[test]
fn all_servers_must_answer() {
    let port = closed_port().port();
    let service: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(127, 0, 0, 2).into()];
    let kind = CheckKind::Tcp { target: Target::Service(port) };
    let mut checker = Checker::new(&kind, &service).unwrap_or_else(|e| panic!("{e}"));
    let first = TcpListener::bind((service[0], port)).unwrap();
    assert_eq!(poll(&mut checker), Err(format!("127.0.0.2:{port}: connection refused")));
    let _second = TcpListener::bind((service[1], port)).unwrap();
    assert_eq!(poll(&mut checker), Ok(()));
    drop(first);
    assert_eq!(poll(&mut checker), Err(format!("127.0.0.1:{port}: connection refused")));
    assert!(Checker::new(&kind, &[]).is_err(), "a service without addresses");
}

#[test]
fn wrong_answers_are_told_from_none() {
    let answered = |kind: &CheckKind| runtime().block_on(checker(kind).poll()).unwrap_err().answered;
    let servfail = udp_server(|query| vec![super::tests::answered(query, 2)]);
    assert!(answered(&dns(servfail, false)));
    assert!(answered(&http(tcp_server(|_| b"HTTP/1.1 503 x\r\n\r\n".to_vec()))));
    assert!(!answered(&dns(closed_port(), false)) && !answered(&http(closed_port())));
    assert!(!answered(&http(tcp_server(|_| Vec::new()))), "nothing was said");
}

#[test]
fn a_check_is_verified_at_the_service_addresses() {
    let server = udp_server(|query| vec![answered(query, 0)]);
    let elsewhere = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 9).into(), server.port());
    let service = [server.ip()];
    let verified = |kind: &CheckKind, service: &[IpAddr]| runtime().block_on(verify(kind, service, LIMIT));
    assert_eq!(verified(&dns(elsewhere, false), &service), Some(Ok(())), "asked at the service address");
    let refused = Some(Err("connection refused".to_owned()));
    assert_eq!(verified(&dns(server, false), &[elsewhere.ip()]), refused, "not where the check asks");
    assert_eq!(verified(&exec(&["true"]), &service), None);
    let silent = udp_server(|_| vec![]);
    let short = Duration::from_millis(50);
    let end = runtime().block_on(verify(&dns(silent, false), &[silent.ip()], short));
    assert_eq!(end, Some(Err("no answer within 50ms".into())));
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("ubique-check-{}-{name}", std::process::id()))
}

#[test]
fn process_follows_its_pid_file() {
    let path = temporary("pidfile");
    let mut check = checker(&CheckKind::Process { pidfile: Some(path.clone()), name: None });
    assert!(poll(&mut check).unwrap_err().contains("No such file"));
    std::fs::write(&path, "not a pid").unwrap();
    assert!(poll(&mut check).unwrap_err().contains("is not a pid"));
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    std::fs::write(&path, format!("{}\n", child.id())).unwrap();
    assert_eq!(poll(&mut check), Ok(()));
    child.kill().unwrap();
    // Not reaped yet: a zombie does not run.
    let start = Instant::now();
    while poll(&mut check).is_ok() {
        assert!(start.elapsed() < LIMIT);
    }
    child.wait().unwrap();
    assert!(poll(&mut check).unwrap_err().contains("does not run"));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn process_is_found_by_name() {
    // The name is that of the path which was executed; this one is nobody else's. A copy of the file might be held open by
    // a child that another test is just starting, and could then not be executed.
    let name = format!("ub-{}", std::process::id());
    let path = std::env::temp_dir().join(&name);
    std::os::unix::fs::symlink("/bin/sleep", &path).unwrap();
    let mut check = checker(&CheckKind::Process { pidfile: None, name: Some(name) });
    assert!(poll(&mut check).unwrap_err().starts_with("no process is named"));
    let mut child = std::process::Command::new(&path).arg("60").spawn().unwrap();
    let start = Instant::now();
    while poll(&mut check).is_err() {
        assert!(start.elapsed() < LIMIT, "the name is that of the file once it was executed");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(poll(&mut check).is_err());
    std::fs::remove_file(path).unwrap();
}

fn exec(command: &[&str]) -> CheckKind {
    CheckKind::Exec { command: command.iter().map(ToString::to_string).collect() }
}

#[test]
fn exec_wants_exit_code_zero() {
    assert_eq!(poll(&mut checker(&exec(&["true"]))), Ok(()));
    assert_eq!(poll(&mut checker(&exec(&["false"]))), Err("exit status: 1".into()));
    let said = poll(&mut checker(&exec(&["sh", "-c", "echo broken >&2; exit 3"])));
    assert_eq!(said, Err("exit status: 3: broken".into()));
    assert!(poll(&mut checker(&exec(&["/nonexistent/program"]))).unwrap_err().contains("No such file"));
    assert!(Checker::new(&exec(&[]), &[]).is_err());
}

#[test]
fn exec_survives_a_flood_of_output() {
    let flood = exec(&["sh", "-c", "head -c 10000000 /dev/zero | tr '\\0' 'x'; exit 1"]);
    let error = poll(&mut checker(&flood)).unwrap_err();
    assert!(error.starts_with("exit status: 1: xxx") && error.len() < 300, "{error}");
}

#[test]
fn exec_does_not_wait_for_children_in_the_background_and_kills_them() {
    let path = temporary("background");
    let script = format!("sleep 60 & echo $! > {}; exit 0", path.display());
    assert_eq!(poll(&mut checker(&exec(&["sh", "-c", &script]))), Ok(()));
    wait_for_end(&path);
}

#[test]
fn exec_is_killed_with_its_group_when_abandoned() {
    let path = temporary("abandoned");
    let script = format!("sleep 60 & echo $! > {}; wait", path.display());
    let mut check = checker(&exec(&["sh", "-c", &script]));
    runtime().block_on(async {
        // A busy machine may need more to start the command.
        let mut wait = Duration::from_millis(10);
        while std::fs::read_to_string(&path).unwrap_or_default().is_empty() {
            assert!(wait < LIMIT && tokio::time::timeout(wait, check.poll()).await.is_err());
            wait *= 2;
        }
    });
    wait_for_end(&path);
}

/// Who opens or executes a file that another process holds a lease on waits, as in a file system that hangs.
#[test]
fn exec_that_cannot_even_be_started_holds_up_nobody() {
    const PERL: &str = "/usr/bin/perl";
    /// `F_SETLEASE` is 1024; the kernel tells the holder with SIGIO that somebody waits.
    const HOLD: &str = r#"use Fcntl; $SIG{IO} = "IGNORE"; open(my $f, "<", $ARGV[0]) or die; fcntl($f, 1024, F_WRLCK) or die "no lease: $!";
        $| = 1; print "held"; <STDIN>"#;
    if !std::path::Path::new(PERL).exists() {
        eprintln!("skipped: needs {PERL}");
        return;
    }
    let path = temporary("lease");
    std::fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let piped = std::process::Stdio::piped;
    let mut holder = std::process::Command::new(PERL);
    let mut holder = holder.args(["-e", HOLD]).arg(&path).stdin(piped()).stdout(piped()).spawn().unwrap();
    holder.stdout.take().unwrap().read_exact(&mut [0; 4]).unwrap();
    runtime().block_on(async {
        let mut check = checker(&exec(&[path.to_str().unwrap()]));
        let begin = Instant::now();
        for _ in 0..3 {
            assert!(tokio::time::timeout(Duration::from_millis(20), check.poll()).await.is_err(), "it cannot start");
        }
        assert!(begin.elapsed() < LIMIT, "the runtime went on");
        holder.kill().unwrap();
        assert_eq!(tokio::time::timeout(LIMIT, check.poll()).await.unwrap(), Ok(None));
    });
    holder.wait().unwrap();
    std::fs::remove_file(&path).unwrap();
}

/// The process whose pid is in the file ends.
fn wait_for_end(path: &PathBuf) {
    let pid = std::fs::read_to_string(path).unwrap().trim().to_owned();
    let start = Instant::now();
    let stat = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    while stat(&pid).is_some_and(|s| !s.contains(") Z ")) {
        assert!(start.elapsed() < LIMIT, "process {pid} lives on");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_stuck_poll_is_abandoned_and_the_next_one_counts() {
    runtime().block_on(async {
        let silent = udp_server(|_| Vec::new());
        let (results, mut ends) = mpsc::channel(4);
        let runner = Runner::start(7, "stuck", &dns(silent, false), &[], results).unwrap();
        runner.poll(1);
        assert!(tokio::time::timeout(Duration::from_millis(20), ends.recv()).await.is_err());
        runner.abandon();
        runner.poll(2);
        assert!(tokio::time::timeout(Duration::from_millis(20), ends.recv()).await.is_err());
        drop(runner);
        assert!(ends.recv().await.is_none(), "the task ends with its runner");
    });
}

#[test]
fn a_stuck_check_delays_no_other() {
    runtime().block_on(async {
        let silent = udp_server(|_| Vec::new());
        let fine = udp_server(|query| vec![answered(query, 0)]);
        let (results, mut ends) = mpsc::channel(4);
        let start = |number, kind: &CheckKind| Runner::start(number, "x", kind, &[], results.clone()).unwrap();
        let endless = exec(&["sleep", "60"]);
        let stuck = [start(0, &dns(silent, false)), start(1, &http(silent_tcp())), start(2, &endless)];
        let other = start(3, &dns(fine, false));
        stuck.iter().for_each(|runner| runner.poll(1));
        for poll in 1..=100 {
            other.poll(poll);
            let end = tokio::time::timeout(LIMIT, ends.recv()).await.unwrap().unwrap();
            assert_eq!((end.check, end.poll, end.result), (3, poll, Ok(None)));
        }
    });
}

/// A TCP server that accepts and says nothing.
fn silent_tcp() -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    address
}

#[test]
fn quotes_are_bounded_and_printable() {
    assert_eq!(quote(b"  a\x07b\nc  "), "a b c");
    assert_eq!(quote(&[0xff; 3]).chars().count(), 3);
    assert!(quote(&[b'x'; 1000]).len() <= QUOTE_BYTES + '…'.len_utf8());
}
