//! Servers that mean harm, or are broken: each poll ends with a clear cause, in bounded time and memory.

use super::*;

/// A server that says `first`, then `again` for as long as the other side listens.
fn endless(first: &'static [u8], again: &'static [u8], pause: Duration) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(first);
            while stream.write_all(again).is_ok() {
                std::thread::sleep(pause);
            }
        }
    });
    address
}

fn with_body(target: SocketAddr) -> CheckKind {
    CheckKind::Http(Http { body: vec!["never".into()], ..http_spec(target) })
}

#[test]
fn an_endless_body_is_read_up_to_the_limit() {
    const CHUNK: &[u8] = &[b'x'; 8192];
    let server = endless(b"HTTP/1.1 200 OK\r\n\r\n", CHUNK, Duration::ZERO);
    let error = poll(&mut checker(&with_body(server))).unwrap_err();
    assert!(error.starts_with("the body does not contain \"never\": xxx") && error.len() < 300, "{error}");
}

#[test]
fn endless_headers_are_refused() {
    let server = endless(b"HTTP/1.1 200 OK\r\n", b"x-more: and more of the same\r\n", Duration::ZERO);
    let error = poll(&mut checker(&http(server))).unwrap_err();
    assert!(!error.is_empty() && error.len() < 300, "{error}");
}

#[test]
fn an_endless_dns_answer_is_one_message() {
    // The length says 65,535 octets; what follows is not DNS.
    let server = endless(&[0xff, 0xff], &[0; 4096], Duration::ZERO);
    assert_eq!(poll(&mut checker(&dns(server, true))), Err("answer with another identifier".into()));
}

#[test]
fn who_trickles_is_abandoned_without_a_trace() {
    let trickle = endless(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b"x", Duration::from_millis(5));
    runtime().block_on(async {
        let (results, mut ends) = mpsc::channel(4);
        let runner = Runner::start(0, "slow", &with_body(trickle), &[], results).unwrap();
        runner.poll(1);
        assert!(tokio::time::timeout(Duration::from_millis(100), ends.recv()).await.is_err());
        runner.abandon();
        drop(runner);
        assert!(ends.recv().await.is_none());
    });
}

#[test]
fn random_answers_of_every_length_end_with_a_cause() {
    let mut rng = ubique_proto::rng::Rng::new(7);
    for length in 0..200 {
        let octets: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
        let echo = octets.clone();
        // The identifier is right: what follows is looked at.
        let server = udp_server(move |query| vec![[&query[..2], &echo].concat()]);
        assert!(poll(&mut checker(&dns(server, false))).is_err());
        let echo = octets.clone();
        let server = tcp_server(move |_| echo.clone());
        assert!(poll(&mut checker(&http(server))).is_err(), "{octets:?}");
    }
}

#[test]
fn ntp_answers_that_are_none() {
    let ntp = |target: SocketAddr| CheckKind::Ntp { target: target.into(), stratum: 3, offset: None };
    let short = udp_server(|query| vec![query[..20].to_vec()]);
    assert_eq!(poll(&mut checker(&ntp(short))), Err("answer of 20 octets is not NTP".into()));
    // An echo has the cookie where it does not belong: nobody's answer, then the right one.
    let late = udp_server(|query| {
        let mut answer = query.clone();
        (answer[0], answer[1]) = (0x24, 2);
        let cookie: [u8; 8] = *query[40..].first_chunk().unwrap();
        answer[24..32].copy_from_slice(&cookie);
        vec![query, answer]
    });
    assert_eq!(poll(&mut checker(&ntp(late))), Ok(()));
    assert_eq!(poll(&mut checker(&ntp(closed_port()))), Err("connection refused".into()));
}
