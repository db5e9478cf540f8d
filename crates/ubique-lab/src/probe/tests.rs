//! The prober against the responder, on loopback.

use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;

use super::*;
use crate::dns::{DnsOptions, Server};
use crate::measure::Log;

fn spec(addresses: Vec<SocketAddr>) -> ProbeSpec {
    let vantage = ProbeVantage {
        name: "here".into(),
        netns: "/proc/self/ns/net".into(),
        ipv4: Some(Ipv4Addr::LOCALHOST),
        ipv6: None,
    };
    ProbeSpec {
        vantages: vec![vantage],
        addresses,
        every: Duration::from_millis(5),
        every_other: Duration::from_millis(25),
        timeout: Duration::from_millis(200),
        query: ProbeQuery::default(),
    }
}

/// Runs the prober until `enough`, and gives the log.
fn probe(spec: ProbeSpec, mut enough: impl FnMut(&Log, &Record) -> bool) -> Log {
    let (read, write) = std::io::pipe().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, addresses) = (stop.clone(), spec.addresses.len());
    let prober = std::thread::spawn(move || run(&spec, write, &stopped));
    let mut reader = Reader::new(read);
    let mut log = Log::new(1, addresses);
    let mut done = false;
    while !done {
        let more = reader.read(|record| {
            log.record(record.clone());
            done |= enough(&log, &record);
        });
        assert!(more.unwrap(), "the prober ended: {:?}", prober.is_finished());
    }
    assert_eq!(reader.dimensions(), Some((1, addresses as u16)));
    stop.store(true, Ordering::Relaxed);
    prober.join().unwrap().unwrap();
    log
}

#[test]
fn answers_name_the_site_and_silence_is_lost() {
    let options = DnsOptions {
        site: "lon".into(),
        zone: "example.com".into(),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        addresses: vec![],
    };
    let server = Server::bind(&options).unwrap();
    let address = server.addresses().unwrap()[0];
    let stop_server = Arc::new(AtomicBool::new(false));
    let stopped = stop_server.clone();
    let server = std::thread::spawn(move || server.run(&stopped));
    // The second address is a socket that nobody reads: queries to it time out.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let spec = spec(vec![address, silent.local_addr().unwrap()]);
    let log = probe(spec, |log, record| {
        let quality = matches!(record, Record::Quality(q) if q.sent > 50);
        quality && log.lane(0, 1, 0..u64::MAX).len() > 5
    });
    stop_server.store(true, Ordering::Relaxed);
    server.join().unwrap().unwrap();

    let landing = &log.landings(0, u64::MAX, u64::MAX)[0];
    assert_eq!(landing.site.and_then(|s| log.site_name(s)), Some("lon"));
    assert!(landing.rtt_ns.unwrap() > 1_000, "no round trip takes less than a microsecond");
    let silent = log.lane(0, 1, 0..u64::MAX);
    assert!(silent.iter().all(|s| s.outcome == Outcome::Lost), "{silent:?}");
    let sent: Vec<u64> = log.lane(0, 0, 0..u64::MAX).iter().map(|s| s.sent_ns).collect();
    assert!(sent.windows(2).all(|w| w[0] < w[1]));
    assert!(log.quality().late_max_ns > 0);
}

#[test]
fn an_http_answer_names_the_site_in_a_header() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the process: nothing tells it that no more connections come.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 512];
            let length = stream.read(&mut request).unwrap_or(0);
            assert!(length == 0 || request.starts_with(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"));
            // The client may have given up.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Served-By: lon\r\nContent-Length: 2\r\n");
            let _ = stream.write_all(b"\r\nok");
        }
    });
    // Below the kernel's own ports, and of this process: nobody listens.
    let [.., high, low] = std::process::id().to_be_bytes();
    let closed = SocketAddr::from(([127, 65, high, low], 20_001));
    let spec = ProbeSpec { query: ProbeQuery::Http, ..spec(vec![address, closed]) };
    let log = probe(spec, |log, record| {
        let told = matches!(record, Record::Quality(q) if q.sent > 0);
        told && log.lane(0, 0, 0..u64::MAX).len() >= 20 && log.lane(0, 1, 0..u64::MAX).len() >= 3
    });
    let landing = &log.landings(0, u64::MAX, u64::MAX)[0];
    assert_eq!(landing.site.and_then(|s| log.site_name(s)), Some("lon"));
    assert!(landing.rtt_ns.unwrap() > 1_000, "no connection takes less than a microsecond");
    let lane = log.lane(0, 1, 0..u64::MAX);
    assert!(lane.iter().all(|s| s.outcome == Outcome::Refused), "{lane:?}");
    assert!(log.quality().late_max_ns > 0 && log.quality().sent > 0);
}

#[test]
fn an_address_without_route_gives_unsent_queries() {
    // A socket bound to loopback cannot leave it.
    let log = probe(spec(vec!["192.0.2.1:53".parse().unwrap()]), |log, _| log.lane(0, 0, 0..u64::MAX).len() >= 3);
    let lane = log.lane(0, 0, 0..u64::MAX);
    assert!(lane.iter().all(|s| s.outcome == Outcome::Unsent), "{lane:?}");
    assert_eq!(log.quality().sent, 0);
}

#[test]
fn a_closed_port_refuses_queries_until_somebody_listens() {
    // An address of this process and below the kernel's ports: no other test's socket is there.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = SocketAddr::from(([127, 64, high, low], 20_000));
    let mut server = None;
    let log = probe(spec(vec![address]), |log, record| {
        let lane = log.lane(0, 0, 0..u64::MAX);
        if lane.len() >= 20 && server.is_none() {
            assert!(lane.iter().all(|s| matches!(s.outcome, Outcome::Refused | Outcome::Lost)), "{lane:?}");
            assert!(lane.iter().any(|s| s.outcome == Outcome::Refused), "{lane:?}");
            server = Some(UdpSocket::bind(address).unwrap());
        }
        // What is heard now is not refused any more, only lost.
        matches!(record, Record::Sample(s) if s.outcome == Outcome::Lost) && lane.len() >= 40
    });
    let lane = log.lane(0, 0, 0..u64::MAX);
    assert!(lane[lane.len() - 5..].iter().all(|s| s.outcome == Outcome::Lost), "{lane:?}");
}

#[test]
fn a_spec_out_of_bounds_is_refused() {
    let stop = AtomicBool::new(true);
    let refused = |change: fn(&mut ProbeSpec)| {
        let mut spec = spec(vec![]);
        change(&mut spec);
        run(&spec, std::io::sink(), &stop).unwrap_err().to_string()
    };
    assert!(refused(|s| s.every = Duration::ZERO).contains("below 1 ms"));
    assert!(refused(|s| s.timeout = Duration::from_secs(3600)).contains("timeout is too long"));
    assert!(
        refused(|s| s.query = ProbeQuery::Dns { name: "a".into(), qtype: "NOPE".into(), class: "IN".into() })
            .contains("not a record type")
    );
    assert!(
        refused(|s| {
            s.addresses = vec!["127.0.0.1:53".parse().unwrap()];
            s.vantages[0].netns = "/nonexistent".into();
        })
        .contains("vantage point here")
    );
}

#[test]
fn a_round_trip_survives_a_clock_that_was_set() {
    let now = clock::monotonic_ns();
    let query = Open { sent_ns: now - 5_000_000, sent_realtime_ns: 1_000_000_000 };
    assert_eq!(rtt_ns(&query, Some(1_002_000_000)), 2_000_000);
    for wrong in [Some(999_000_000), Some(9_000_000_000), None] {
        assert!((5_000_000..1_000_000_000).contains(&rtt_ns(&query, wrong)), "{wrong:?}");
    }
}
