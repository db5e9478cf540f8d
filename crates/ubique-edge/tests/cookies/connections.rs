//! Two real kernels that speak through the programs.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, sockopt};
use ubique_edge::Counter;
use ubique_proto::sessions::{Flow, sequence, timestamp};

use crate::network::{Network, SERVICE_V4, echo, info, netstat, next_sequence, service};
use crate::setup::*;

const WINDOW_SCALE: u8 = 10;

/// A connection that the kernel adopted, seen from both ends: what is agreed on, and what the server's numbers say.
fn is_agreed(network: &Network, listener: &TcpListener, v6: bool, offers: [bool; 3]) {
    let [timestamps, sack, scaled] = offers;
    let client = network.clients.run(|| TcpStream::connect(service(v6)).unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for end in [&client, &server] {
        let info = info(end);
        assert_eq!((info.timestamps, info.sack, info.scaled, info.ecn), (timestamps, sack, scaled, false));
    }
    let (ours, theirs) = (info(&server), info(&client));
    assert_eq!((ours.send_scale, ours.receive_scale), (theirs.receive_scale, theirs.send_scale), "as the other says");
    assert_eq!(ours.receive_scale, if scaled { WINDOW_SCALE } else { 0 });
    // Of Ethernet, and what forwarding leaves (less what timestamps take).
    let taken = if timestamps { 12 } else { 0 };
    let (segment, forwarded) = if v6 { (1440, MTU - 72 - 60) } else { (1460, MTU - 72 - 40) };
    assert_eq!((ours.send_segment, theirs.send_segment), (segment - taken, u32::from(forwarded) - taken));
    let flow = Flow { client: client.local_addr().unwrap(), service: service(v6) };
    assert!(sequence::is_initial(next_sequence(&server), us(), mask(&flow)));
    if timestamps {
        let said = crate::network::timestamp(&server);
        let wall = wall_ms();
        let behind = timestamp::encode(wall, us(), mask(&flow)).wrapping_sub(said);
        // The kernel says an even number, and reads the clock by itself.
        assert!(behind.wrapping_add(2) < 20, "{behind}");
        assert_eq!(timestamp::decode(said, wall, mask(&flow)), Some(us()));
    }
}

#[test]
fn what_is_offered_is_agreed_on() {
    let Some(network) = Network::new() else { return };
    let listener = TcpListener::bind(("::", PORT)).unwrap();
    let mut connections = 0;
    for v6 in [false, true] {
        for bits in 0..8 {
            let offers = [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0];
            for (switch, on) in ["tcp_timestamps", "tcp_sack", "tcp_window_scaling"].into_iter().zip(offers) {
                network.set_client(switch, on);
            }
            is_agreed(&network, &listener, v6, offers);
            connections += 1;
        }
    }
    let counters = network.edge.counters().unwrap();
    assert_eq!((counters[Counter::SynCookie], counters[Counter::CookieAccepted]), (connections, connections));
    assert_eq!((counters[Counter::SynKernel], counters[Counter::CookieRefused]), (0, 0));
}

#[test]
fn a_thousand_connections() {
    const CONNECTIONS: u64 = 1000;
    let Some(network) = Network::new() else { return };
    let server = echo(CONNECTIONS as usize);
    for n in 0..CONNECTIONS {
        let v6 = n % 2 == 1;
        if n % 250 == 0 {
            network.set_client("tcp_timestamps", n % 500 == 0);
        }
        let converse = || {
            let mut stream = TcpStream::connect(service(v6)).unwrap();
            let question = n.to_be_bytes();
            stream.write_all(&question).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = vec![];
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, question);
        };
        network.clients.run(converse).unwrap();
    }
    server.join().unwrap();
    let counters = network.edge.counters().unwrap();
    assert_eq!((counters[Counter::SynCookie], counters[Counter::CookieAccepted]), (CONNECTIONS, CONNECTIONS));
    for counter in ["TSEcrRejected", "PAWSEstab", "SyncookiesSent", "SyncookiesFailed", "ListenOverflows"] {
        assert_eq!((netstat(counter), network.clients.run(|| netstat(counter)).unwrap()), (0, 0), "{counter}");
    }
}

#[test]
fn much_data_both_ways() {
    const OCTETS: usize = 16 << 20;
    let Some(network) = Network::new() else { return };
    for (v6, timestamps) in [(false, true), (false, false), (true, true), (true, false)] {
        network.set_client("tcp_timestamps", timestamps);
        let server = echo(1);
        let converse = || {
            let mut stream = TcpStream::connect(service(v6)).unwrap();
            let data: Vec<u8> = (0..OCTETS).map(|n| ((n * n) >> 7) as u8).collect();
            let mut sending = stream.try_clone().unwrap();
            let sent = data.clone();
            let sender = std::thread::spawn(move || {
                sending.write_all(&sent).unwrap();
                sending.shutdown(Shutdown::Write).unwrap();
            });
            let mut returned = vec![];
            stream.read_to_end(&mut returned).unwrap();
            sender.join().unwrap();
            assert!(returned == data);
        };
        network.clients.run(converse).unwrap();
        server.join().unwrap();
    }
    assert_eq!((netstat("TSEcrRejected"), netstat("PAWSEstab")), (0, 0));
}

/// A client's socket at a port of its choice, connected.
fn connect_from(port: u16, to: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([0, 0, 0, 0], port))).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    socket.into()
}

#[test]
fn a_port_that_is_used_again_is_the_kernels() {
    let Some(network) = Network::new() else { return };
    let listener = TcpListener::bind(("::", PORT)).unwrap();
    for round in 0..5 {
        let mut client = network.clients.run(|| connect_from(30_000, service(false))).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"first").unwrap();
        // Whoever closes first keeps TIME_WAIT: the server.
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "first");
        drop(client);
        let counters = network.edge.counters().unwrap();
        assert_eq!((counters[Counter::SynCookie], counters[Counter::SynKernel]), (1, round));
    }
}

/// Reset, so that nobody keeps TIME_WAIT, and begun anew by a cookie at once, many times in the moment that the last one is remembered.
#[test]
fn a_port_that_is_used_again_at_once_gets_a_cookie() {
    const ROUNDS: u64 = 50;
    let Some(network) = Network::new() else { return };
    let listener = TcpListener::bind(("::", PORT)).unwrap();
    for round in 1..=ROUNDS {
        let mut client = network.clients.run(|| connect_from(30_001, service(false))).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"?").unwrap();
        client.read_exact(&mut [0]).unwrap_or_else(|error| panic!("connection {round}: {error}"));
        sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        assert!(server.read(&mut [0]).is_err(), "a reset");
        assert_eq!(network.edge.counters().unwrap()[Counter::CookieAccepted], round);
    }
}

#[test]
fn an_mptcp_listener_is_the_kernels() {
    const IPPROTO_MPTCP: u32 = 262;
    let Some(network) = Network::new() else { return };
    let protocol = rustix::net::Protocol::from_raw(IPPROTO_MPTCP.try_into().unwrap());
    let Ok(socket) = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, Some(protocol)) else {
        return eprintln!("skipped: no MPTCP in this kernel");
    };
    rustix::net::bind(&socket, &SocketAddr::from((SERVICE_V4, PORT))).unwrap();
    rustix::net::listen(&socket, 10).unwrap();
    let listener = TcpListener::from(socket);
    let converse = |multipath: bool| {
        let socket =
            rustix::net::socket(AddressFamily::INET, SocketType::STREAM, multipath.then_some(protocol)).unwrap();
        rustix::net::connect(&socket, &service(false)).unwrap();
        TcpStream::from(socket).write_all(b"hello").unwrap();
    };
    for multipath in [false, true] {
        network.clients.run(|| converse(multipath)).unwrap();
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
    let counters = network.edge.counters().unwrap();
    assert_eq!((counters[Counter::SynCookie], counters[Counter::SynKernel]), (0, 2));
}

#[test]
fn a_listener_with_a_full_queue_is_the_kernels() {
    const PATIENCE: Duration = Duration::from_millis(300);
    let Some(network) = Network::new() else { return };
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((SERVICE_V4, PORT))).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let connect = || network.clients.run(|| TcpStream::connect_timeout(&service(false), PATIENCE)).unwrap();
    let _first = connect().unwrap();
    while info(&socket).waiting == 0 {
        std::thread::yield_now();
    }
    connect().unwrap_err();
    let counters = network.edge.counters().unwrap();
    assert_eq!((counters[Counter::SynCookie], counters[Counter::SynKernel]), (1, 1));
    // And is ours again when there is room.
    let _accepted = TcpListener::from(socket.try_clone().unwrap()).accept().unwrap();
    connect().unwrap();
    assert_eq!(network.edge.counters().unwrap()[Counter::SynCookie], 2);
}

#[test]
fn nobody_listens_and_the_client_is_told() {
    let Some(network) = Network::new() else { return };
    for address in [service(false), service(true)] {
        let refused = network.clients.run(|| TcpStream::connect(address)).unwrap().unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    assert_eq!(network.edge.counters().unwrap()[Counter::SynKernel], 2);
    // To an address of its own alone.
    let _listener = TcpListener::bind((SERVICE_V4, PORT)).unwrap();
    network.clients.run(|| TcpStream::connect(service(false))).unwrap().unwrap();
}

#[test]
fn a_kernel_that_would_refuse_what_is_agreed_on_is_told_of() {
    let Some(namespace) = namespace() else { return };
    let load = || {
        for switch in ["tcp_syncookies", "tcp_timestamps", "tcp_sack", "tcp_window_scaling"] {
            let path = format!("/proc/sys/net/ipv4/{switch}");
            let before = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, "0").unwrap();
            match ubique_edge::Edge::load(&config()) {
                Err(ubique_edge::Error::Cookies(why)) => {
                    assert_eq!(why, format!("net.ipv4.{switch} is 0: set it to 1"))
                }
                Err(other) => panic!("{other}"),
                Ok(_) => panic!("loaded without {switch}"),
            }
            std::fs::write(&path, before).unwrap();
        }
    };
    namespace.run(load).unwrap();
}
