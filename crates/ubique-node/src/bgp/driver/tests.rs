//! A driver on the loopback, called by sockets that behave as badly as they can.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;

use socket2::{Domain, Socket, Type};
use ubique_model::Relation;
use ubique_proto::bgp::message::Open;
use ubique_proto::bgp::speaker::{CLOSE_LINGER, PeerConfig};
use ubique_proto::bgp::wire;

use super::*;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who has one AS in his range is a neighbour at once; with two he must say which.
const ASES: [Asn; 2] = [Asn(64501), Asn(64502)];

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("it ends") });
}

/// A driver that anybody on the loopback may call.
fn driver(limit: usize, asns: &[Asn]) -> (Driver, SocketAddr) {
    let anyone = Ipv4Addr::LOCALHOST.into();
    let range = Range {
        prefix: "127.0.0.0/8".parse().unwrap(),
        asns: asns.to_vec(),
        limit,
        peer: PeerConfig::new(anyone, asns[0], Relation::Peer),
        endpoint: Endpoint::new(anyone),
    };
    let driver = Driver::new(DriverConfig {
        speaker: SpeakerConfig::new(Asn(64500), Ipv4Addr::new(192, 0, 2, 2), 1),
        endpoints: vec![],
        ranges: vec![range],
        place: None,
        listen: Some(0),
        must_listen: true,
        journal: None,
        tap: None,
    });
    let driver = driver.unwrap();
    let port = driver.listeners.local_addr(0).unwrap().port();
    (driver, (Ipv4Addr::LOCALHOST, port).into())
}

/// Calls from 127.0.1.`from`.
fn call(from: u8, to: SocketAddr) -> std::net::TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 1, from), 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Runs the driver until that is so.
async fn until(driver: &mut Driver, what: &str, done: impl Fn(&Driver) -> bool) {
    let begin = tokio::time::Instant::now();
    while !done(driver) {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        let _ = tokio::time::timeout(Duration::from_millis(1), driver.next()).await;
    }
}

#[test]
fn what_came_due_during_a_round_waits_for_the_next() {
    run(async {
        let (slow, quick) = (Duration::from_millis(100), Duration::from_millis(50));
        let silent = IpAddr::from(Ipv4Addr::new(127, 0, 2, 1));
        let peer = |connect_retry| PeerConfig { connect_retry, ..PeerConfig::new(silent, ASES[0], Relation::Peer) };
        let mut driver = Driver::new(DriverConfig {
            speaker: SpeakerConfig {
                peers: vec![peer(slow), peer(quick)],
                ..SpeakerConfig::new(Asn(64500), Ipv4Addr::new(192, 0, 2, 2), 1)
            },
            endpoints: vec![Endpoint::new(silent), Endpoint::new(silent)],
            ranges: vec![],
            place: None,
            listen: None,
            must_listen: false,
            journal: None,
            tap: None,
        })
        .unwrap();
        driver.handle(In::Start);
        // Both attempts have taken too long, the round began in between.
        let (first, begin) = (driver.speaker.next_deadline().unwrap(), now());
        while now().since(begin) < slow {
            std::hint::spin_loop();
        }
        assert!(driver.deadlines(first));
        let second = driver.speaker.next_deadline().unwrap();
        assert!(first < second && second <= begin + slow, "it is still to be judged");
        assert!(driver.deadlines(now()));
        assert!(driver.speaker.next_deadline().unwrap() > begin + slow);
    });
}

fn open(asn: Asn) -> Vec<u8> {
    let mut out = vec![];
    let router_id = Ipv4Addr::new(192, 0, 2, 1);
    wire::encode_open(&Open { asn, hold_time_s: 9, router_id, capabilities: vec![] }, &mut out);
    out
}

/// Nineteen octets that are no header, and an end that is never closed: each such call is over at once for BGP, and the
/// socket lingers.
#[test]
fn callers_who_never_close_do_not_use_up_the_descriptors() {
    run(async {
        let (mut driver, to) = driver(4, &ASES[..1]);
        driver.callers_max = 8;
        let mut held = vec![];
        for from in 0..40 {
            let mut stream = call(from, to);
            stream.write_all(&[0; 19]).unwrap();
            held.push(stream);
            until(&mut driver, "the call is answered", |d| {
                let seen = d.next_conn + d.refused;
                seen == u64::from(from) + 1 && d.connections.values().all(Connection::is_closing)
            })
            .await;
            assert!(driver.connections.len() <= 8, "{} connections", driver.connections.len());
        }
        assert!(driver.refused() > 0);
        tokio::time::sleep(CLOSE_LINGER).await;
        until(&mut driver, "what lingered is closed", |d| d.connections.is_empty()).await;
        let before = driver.next_conn;
        held.push(call(99, to));
        until(&mut driver, "there is room again", |d| d.next_conn > before).await;
    });
}

#[test]
fn one_host_holds_no_more_than_its_share_while_it_does_not_close() {
    run(async {
        let (mut driver, to) = driver(100, &ASES[..1]);
        let mut held = vec![];
        for number in 1..=2 * CONNECTIONS_PER_PEER as u64 {
            let mut stream = call(1, to);
            stream.write_all(&[0; 19]).unwrap();
            held.push(stream);
            until(&mut driver, "the call is answered", |d| d.next_conn + d.refused == number).await;
        }
        assert!(driver.connections.len() <= CONNECTIONS_PER_PEER && driver.refused() > 0);
        let before = driver.next_conn;
        held.push(call(2, to));
        until(&mut driver, "another host is heard", |d| d.next_conn > before).await;
    });
}

#[test]
fn a_host_that_says_nothing_has_one_place_in_a_range() {
    run(async {
        let (mut driver, to) = driver(2, &ASES);
        let mut silent: Vec<_> = (0..5).map(|_| call(1, to)).collect();
        until(&mut driver, "one of its calls waits", |d| {
            d.waiting.len() == 1 && d.waiting[0].from.to_string() == "127.0.1.1"
        })
        .await;
        // The last call counts; those before were closed.
        for stream in &mut silent[..4] {
            until(&mut driver, "closed", |d| d.waiting.len() == 1).await;
            assert!(!matches!(stream.read(&mut [0; 1]), Ok(1..)));
        }
        let mut other = call(2, to);
        other.write_all(&open(ASES[1])).unwrap();
        until(&mut driver, "another host is a neighbour", |d| d.connections.len() == 1).await;
        silent[4].write_all(&open(ASES[0])).unwrap();
        until(&mut driver, "it is one neighbour", |d| d.connections.len() == 2 && d.waiting.is_empty()).await;
        let peers: Vec<PeerId> = driver.connections.values().map(|c| c.peer).collect();
        assert_ne!(peers[0], peers[1]);
        assert_eq!(driver.speaker().peers().count(), 2);
    });
}

/// Two of us call each other: the call that loses is cancelled, and that is no error of anybody.
#[test]
fn a_dial_given_up_for_the_neighbours_call_is_no_error() {
    run(async {
        let (mut driver, _) = driver(1, &ASES[..1]);
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = PeerId(0);
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        driver.connections.insert(ConnId(7), Connection::new(peer, TcpStream::from_std(stream).unwrap(), None));
        driver.connecting.insert(peer, Box::pin(std::future::pending()));
        driver.execute(now(), Out::CancelConnect { peer });
        assert_eq!(driver.connect_error(peer), None);
        driver.connections.clear();
        driver.connecting.insert(peer, Box::pin(std::future::pending()));
        driver.execute(now(), Out::CancelConnect { peer });
        assert_eq!(driver.connect_error(peer), Some("no answer"));
    });
}
