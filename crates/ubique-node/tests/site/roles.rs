//! What this binary does when it is started as a part of a lab.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use ubique_model::router::RoutersSpec;
use ubique_model::service::Service;
use ubique_node::agent::{self, AgentOptions, End};
use ubique_node::routers;

/// Exit code of an agent that was hurried.
pub const HURRIED: i32 = 42;

/// An agent that was told to panics once this exists.
pub const PANIC: &str = "/run/panic";

/// Datagrams that a busy machine lets wait, octets: what is counted as lost shall be lost on the way.
pub const BUFFER_BYTES: usize = 8 << 20;

/// Plays a role until it ends.
pub fn play(role: &str, arguments: Vec<String>) -> i32 {
    match (role, arguments.as_slice()) {
        ("agent", [file, site, extra @ ..]) => agent(file, site, extra.first().map(String::as_str)),
        ("routers", [file]) => {
            log();
            let spec: RoutersSpec = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            routers::run(spec).map_or_else(complain, |()| 0)
        }
        ("ask", [socket, line]) => ask(socket, line),
        ("doctor", [file, site]) => crate::doctor::play(file, site),
        ("dns", addresses) => dns(addresses),
        ("http", [address]) => http(address),
        ("kube-proxy", [address, endpoints]) => kube_proxy(address, endpoints),
        ("checker", [checks]) => crate::migration::play_checker(checks),
        ("collector", [address, how @ ..]) => collector(address, !how.is_empty()),
        _ => 2,
    }
}

fn log() {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::DEBUG)
        .init();
}

fn complain(error: impl std::error::Error) -> i32 {
    let mut source = error.source();
    eprint!("error: {error}");
    while let Some(cause) = source {
        eprint!(": {cause}");
        source = cause.source();
    }
    eprintln!();
    3
}

fn agent(file: &str, site: &str, extra: Option<&str>) -> i32 {
    log();
    let service: Service = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    if extra == Some("panic") {
        // A thread beside the runtime: a panic anywhere must end the agent. It comes after the watchdog's fork.
        std::thread::spawn(|| {
            while !Path::new(PANIC).exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
            panic!("asked for by the test");
        });
    }
    if extra == Some("no-bpf") {
        use ubique_sys::privilege::{Capabilities, effective, reduce};
        let without = Capabilities::BPF;
        reduce(effective().unwrap().without(without)).unwrap();
    }
    let file = Some(crate::lab::FILE.into());
    match agent::run(service, site, AgentOptions { version: "test".into(), file, ..AgentOptions::default() }) {
        Ok(End::Replaced(program)) => {
            ubique_sys::privilege::hand_over().unwrap();
            complain(Command::new(program).args(std::env::args_os().skip(1)).exec())
        }
        Ok(End::Stopped) => 0,
        Ok(End::Hurried) => HURRIED,
        Err(error) => complain(error),
    }
}

/// Sends a line to a socket and prints the reply.
fn ask(socket: &str, line: &str) -> i32 {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    println!("{reply}");
    0
}

/// Answers every query with its question and NOERROR, over UDP, on all addresses; `reuse:` shares the port.
fn dns(addresses: &[String]) -> i32 {
    let mut threads = Vec::new();
    for address in addresses {
        let shared = address.strip_prefix("reuse:");
        let address: SocketAddr = shared.unwrap_or(address).parse().unwrap();
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).unwrap();
        socket.set_reuse_port(shared.is_some()).unwrap();
        // Only root may have so much.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES);
        socket.bind(&address.into()).unwrap();
        let socket = UdpSocket::from(socket);
        threads.push(std::thread::spawn(move || {
            let mut buffer = [0u8; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                if length > 3 {
                    buffer[2] |= 0x80;
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        }));
    }
    println!("ready");
    threads.into_iter().for_each(|t| t.join().unwrap());
    1
}

fn http(address: &str) -> i32 {
    let listener = TcpListener::bind(address).unwrap();
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut head = [0u8; 2048];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    }
    1
}

/// Answers as kube-proxy does on a Service's `healthCheckNodePort`: by how many endpoints are ready, which a file says.
fn kube_proxy(address: &str, endpoints: &str) -> i32 {
    let listener = TcpListener::bind(address).unwrap();
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut head = [0u8; 2048];
        let _ = stream.read(&mut head);
        let ready: u32 = std::fs::read_to_string(endpoints).unwrap().parse().unwrap();
        let status = if ready > 0 { "200 OK" } else { "503 Service Unavailable" };
        let service = "{\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"resolver\"\n\t}";
        let body = format!(
            "{{\n\t\"service\": {service},\n\t\"localEndpoints\": {ready},\n\t\"serviceProxyHealthy\": true\n}}"
        );
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
             X-Load-Balancing-Endpoint-Weight: {ready}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all((head + &body).as_bytes());
    }
    1
}

/// Keeps what each connection says in a file of its own, or does not read it.
fn collector(address: &str, deaf: bool) -> i32 {
    let address: SocketAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    if deaf {
        // Connections inherit it: little fits into the kernel.
        socket.set_recv_buffer_size(4096).unwrap();
    }
    socket.bind(&address.into()).unwrap();
    socket.listen(8).unwrap();
    let listener = TcpListener::from(socket);
    println!("ready");
    let mut kept = vec![];
    for (number, stream) in listener.incoming().enumerate() {
        let mut stream = stream.unwrap();
        if deaf {
            kept.push(stream);
            continue;
        }
        let mut file = std::fs::File::create(format!("/run/collector.{number}")).unwrap();
        std::thread::spawn(move || std::io::copy(&mut stream, &mut file));
    }
    1
}

/// This binary.
pub fn myself() -> PathBuf {
    std::env::current_exe().unwrap()
}
