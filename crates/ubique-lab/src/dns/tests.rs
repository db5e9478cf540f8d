//! The responder on sockets, also asked by `dig`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use domain::base::Message;
use domain::base::iana::Rcode;

use super::*;
use crate::probe::ProbeQuery;

struct Running {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), DnsError>>>,
}

impl Running {
    fn start(listen: &str) -> Running {
        let options = DnsOptions {
            site: "lon".into(),
            zone: "example.com".into(),
            listen: vec![listen.parse().unwrap()],
            addresses: vec!["198.51.100.53".parse().unwrap(), "2001:db8:53::53".parse().unwrap()],
        };
        let server = Server::bind(&options).unwrap();
        let address = server.addresses().unwrap()[0];
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        Running { address, stop, thread: Some(std::thread::spawn(move || server.run(&stopped))) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let result = self.thread.take().map(|t| t.join());
        assert!(std::thread::panicking() || matches!(result, Some(Ok(Ok(())))), "{result:?}");
    }
}

/// The default query with an identifier, framed for TCP.
fn framed(id: u16) -> Vec<u8> {
    let mut query = ProbeQuery::default().to_bytes().unwrap();
    query[..2].copy_from_slice(&id.to_be_bytes());
    [&(query.len() as u16).to_be_bytes()[..], &query].concat()
}

fn read_message(stream: &mut TcpStream) -> Message<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes).unwrap();
    Message::from_octets(bytes).unwrap()
}

#[test]
fn tcp_answers_many_queries_in_order_however_they_are_cut() {
    let server = Running::start("127.0.0.1:0");
    let mut stream = server.connect();
    let bytes: Vec<u8> = (0..50).flat_map(framed).collect();
    for piece in bytes.chunks(7) {
        stream.write_all(piece).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    for id in 0..50 {
        let message = read_message(&mut stream);
        assert_eq!((message.header().id(), message.header().rcode()), (id, Rcode::NOERROR));
    }
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed after the last answer");
}

#[test]
fn a_tcp_client_that_does_not_read_is_not_read_from_and_loses_nothing() {
    let server = Running::start("127.0.0.1:0");
    let mut stream = server.connect();
    let mut writer = stream.try_clone().unwrap();
    const QUERIES: u16 = 60_000;
    let writing = std::thread::spawn(move || {
        for id in 0..QUERIES {
            writer.write_all(&framed(id)).unwrap();
        }
    });
    // Another client is served meanwhile.
    let mut other = server.connect();
    other.write_all(&framed(7)).unwrap();
    assert_eq!(read_message(&mut other).header().id(), 7);
    for id in 0..QUERIES {
        assert_eq!(read_message(&mut stream).header().id(), id);
    }
    writing.join().unwrap();
}

#[test]
fn a_tcp_query_too_long_ends_the_connection() {
    let server = Running::start("127.0.0.1:0");
    let mut stream = server.connect();
    stream.write_all(&[0xFF, 0xFF, 1, 2, 3]).unwrap();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn connections_are_bounded_and_the_idlest_goes() {
    let server = Running::start("127.0.0.1:0");
    let mut streams: Vec<_> = (0..=MAX_CONNECTIONS).map(|_| server.connect()).collect();
    let last = streams.last_mut().unwrap();
    last.write_all(&framed(1)).unwrap();
    assert_eq!(read_message(last).header().id(), 1);
    assert_eq!(streams[0].read(&mut [0]).unwrap(), 0, "the first made room");
    streams[1].write_all(&framed(2)).unwrap();
    assert_eq!(read_message(&mut streams[1]).header().id(), 2);
}

#[test]
fn an_address_that_is_not_there_yet_can_be_bound() {
    for listen in ["192.0.2.200:0", "[2001:db8:ffff::200]:0"] {
        let options = DnsOptions {
            site: "lon".into(),
            zone: "example.com".into(),
            listen: vec![listen.parse().unwrap()],
            addresses: vec![],
        };
        if let Err(e) = Server::bind(&options) {
            // A kernel without IPv6 has no such sockets.
            assert!(listen.starts_with('[') && e.to_string().contains("os error 97"), "{listen}: {e}");
        }
    }
}

#[test]
fn udp_answers_bursts_and_survives_garbage() {
    let server = Running::start("127.0.0.1:0");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let query = framed(9)[2..].to_vec();
    for _ in 0..100 {
        socket.send(&[0xFF; 40]).unwrap();
        socket.send(&[]).unwrap();
        socket.send(&query).unwrap();
    }
    let mut buffer = [0; 1500];
    for _ in 0..100 {
        let length = socket.recv(&mut buffer).unwrap();
        let message = Message::from_octets(&buffer[..length]).unwrap();
        assert_eq!((message.header().id(), message.header().rcode()), (9, Rcode::NOERROR));
    }
}

/// Runs `dig` against the server; `None` when it is not installed.
fn dig(server: &Running, arguments: &str) -> Option<String> {
    let output = Command::new("dig")
        .arg(format!("@{}", server.address.ip()))
        .args(["-p", &server.address.port().to_string(), "+tries=2", "+time=5"])
        .args(arguments.split(' '))
        .output()
        .ok()?;
    assert!(output.status.success(), "dig {arguments}: {}", String::from_utf8_lossy(&output.stdout));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn dig_is_content() {
    let server = Running::start("127.0.0.1:0");
    let cases: [(&str, &[&str]); 10] = [
        ("www.example.com A +short", &["198.51.100.53\n"]),
        ("www.example.com A +short +tcp", &["198.51.100.53\n"]),
        ("www.example.com AAAA +short +noedns", &["2001:db8:53::53\n"]),
        ("example.com SOA", &["status: NOERROR", "flags: qr aa rd", "ns.example.com. hostmaster.example.com."]),
        ("id.server CH TXT +short", &["\"lon\"\n"]),
        ("hostname.bind CH TXT +short +tcp", &["\"lon\"\n"]),
        ("www.example.com TXT +nsid", &["NSID: 6c 6f 6e (\"lon\")", "EDNS: version: 0, flags:; udp: 1232"]),
        ("example.org A", &["status: REFUSED"]),
        ("www.example.com A +edns=1 +noednsnegotiation", &["status: BADVERS"]),
        ("www.example.com A +opcode=notify", &["status: NOTIMP"]),
    ];
    for (arguments, parts) in cases {
        let Some(output) = dig(&server, arguments) else {
            eprintln!("skipped: dig is not installed (Debian: bind9-dnsutils)");
            return;
        };
        for part in parts {
            assert!(output.contains(part), "dig {arguments}: {part:?} is not in\n{output}");
        }
        assert!(!output.contains("WARNING") || arguments.contains("example.org") || !output.contains("malformed"));
    }
}
