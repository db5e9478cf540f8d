//! The cases of `crates/ubique-proto/tests/conformance` that an upstream can send, over TCP against the agent.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use ubique_model::{AddressFamily, Asn};

use crate::lab::{self, Lab, status, until_true};
use crate::runner::Test;
use table::{Case, From, Outcome, ROUTE, attributes, hex, update, wrapped};

#[path = "../../../ubique-proto/tests/conformance/table.rs"]
mod table;

pub const TESTS: &[Test] =
    &[Test { name: "what_the_agent_answers_is_what_the_rfcs_ask_for", needs: &[], run: conformance }];

/// Cases that must be played: fewer means that the table was not read.
const CASES: usize = 100;

/// AS of the upstream that misbehaves, as the table has it.
const NEIGHBOR_AS: Asn = Asn(64502);

/// The prefixes of the site, as an UPDATE has them.
pub const OURS_V4: [u8; 4] = [24, 198, 51, 100];
const OURS_V6: [u8; 7] = [48, 0x20, 0x01, 0x0d, 0xb8, 0, 0x53];

/// Longer than the test: its sessions need no KEEPALIVEs.
const HOLD_TIME: Duration = Duration::from_secs(600);

/// A session with the agent, from outside.
pub struct Upstream {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Upstream {
    /// A connection to the agent; its OPEN is read.
    pub fn connect(lab: &Lab, from: &str, to: &str) -> Upstream {
        let local: SocketAddr = SocketAddr::new(from.parse().unwrap(), 0);
        let remote = SocketAddr::new(to.parse().unwrap(), 179);
        let socket = lab.router.run(|| Socket::new(Domain::for_address(local), Type::STREAM, None).unwrap()).unwrap();
        socket.bind(&local.into()).unwrap();
        socket.connect(&remote.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(lab::PATIENCE)).unwrap();
        let mut upstream = Upstream { stream, buffer: vec![] };
        assert_eq!(upstream.message().expect("an OPEN")[18], 1);
        upstream
    }

    pub fn establish(&mut self, asn: Asn) {
        // Both unicast families, route refresh, 4-octet AS numbers.
        let parameters = [&hex("0214 010400010001 010400020001 0200 4104")[..], &asn.0.to_be_bytes()].concat();
        let head = [&[4][..], &(asn.0 as u16).to_be_bytes(), &hex("0258 0A000002"), &[parameters.len() as u8]].concat();
        self.send(&wrapped(1, &[head, parameters].concat()));
        self.send(&wrapped(4, &[]));
        assert_eq!(self.message().expect("a KEEPALIVE")[18], 4);
    }

    fn send(&mut self, bytes: &[u8]) {
        // The agent may have closed already: what it said is read then.
        let _ = self.stream.write_all(bytes);
    }

    /// The next message; `None` at the end.
    fn message(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<19>() {
                let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
                if self.buffer.len() >= length {
                    return Some(self.buffer.drain(..length).collect());
                }
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend(&piece[..count]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("the agent says nothing: {e}"),
            }
        }
    }

    /// The NOTIFICATION before the end, if any.
    fn end(&mut self) -> Option<Vec<u8>> {
        let mut last = None;
        while let Some(message) = self.message() {
            last = (message[18] == 3).then(|| message[19..].to_vec());
        }
        last
    }

    /// Asks for the agent's routes and waits for them: what came before has been dealt with.
    fn is_alive(&mut self) {
        self.send(&wrapped(5, &[0, 1, 0, 1]));
        self.until_announced(&OURS_V4);
    }

    /// Whether the first UPDATE announces that prefix; if it is not an End-of-RIB (RFC 4724 §2), it does.
    pub fn announces(&mut self, prefix: &[u8]) -> bool {
        loop {
            let message = self.message().expect("an UPDATE");
            assert_ne!(message[18], 3, "a NOTIFICATION: {message:02x?}");
            if message[18] == 2 {
                return message.windows(prefix.len()).any(|octets| octets == prefix);
            }
        }
    }

    /// Reads until an UPDATE announces that prefix.
    pub fn until_announced(&mut self, prefix: &[u8]) {
        loop {
            let message = self.message().expect("an UPDATE");
            assert_ne!(message[18], 3, "a NOTIFICATION: {message:02x?}");
            if message[18] == 2 && message.windows(prefix.len()).any(|octets| octets == prefix) {
                return;
            }
        }
    }
}

/// In the state the case begins in.
fn prepared(lab: &Lab, from: From) -> Upstream {
    let mut upstream = Upstream::connect(lab, lab::ROUTER_V4, lab::SITE_V4);
    match from {
        From::OpenSent => {}
        From::OpenConfirm => {
            upstream.send(&table::open(&[]));
            assert_eq!(upstream.message().expect("a KEEPALIVE")[18], 4);
        }
        _ => {
            upstream.establish(NEIGHBOR_AS);
            upstream.until_announced(&OURS_V4);
            upstream.send(&update(&[], &attributes("origin path hop", from), &ROUTE));
        }
    }
    upstream
}

fn conformance() {
    let lab = Lab::new();
    let mut service = lab::service();
    for upstream in &mut service.sites[0].upstreams {
        upstream.hold_time = HOLD_TIME;
        if upstream.address.is_ipv4() {
            upstream.asn = NEIGHBOR_AS;
            upstream.families = vec![AddressFamily::Ipv4Unicast, AddressFamily::Ipv6Unicast];
        }
    }
    let mut agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("healthy", || lab::try_status().is_some_and(|s| s.healthy));
    // The other upstream, whose session must not notice anything.
    let mut witness = Upstream::connect(&lab, lab::ROUTER_V6, lab::SITE_V6);
    witness.establish(Asn(lab::ROUTER_ASN));
    witness.until_announced(&OURS_V6);
    let quiet = status().peers[1].clone();
    let cases = table::cases();
    let cases: Vec<&Case> = cases.iter().filter(|case| !matches!(case.from, From::Internal | From::Old)).collect();
    for case in &cases {
        play(&lab, case);
        let now = status();
        assert_eq!((&now.peers[1].state, &now.peers[1].since), (&quiet.state, &quiet.since), "{}", case.name);
        assert!(now.healthy, "{}", case.name);
    }
    println!("{} cases", cases.len());
    assert!(cases.len() >= CASES, "{} cases", cases.len());
    agent.signal(ubique_sys::process::Signal::Term);
    assert_eq!(agent.wait(), 0);
    assert_eq!(witness.end().expect("a NOTIFICATION")[..2], [6, 2]);
}

fn play(lab: &Lab, case: &Case) {
    println!("{}: {} [{}], {:?}", case.source, case.name, case.rule, case.from);
    let mut upstream = prepared(lab, case.from);
    let before = status().peers[0].messages.received;
    upstream.send(&case.message);
    match &case.outcome {
        Outcome::Reset(code, subcode, data) => {
            assert_eq!(upstream.end(), Some([&[*code, *subcode], data.as_slice()].concat()));
            until_true("down", || status().peers[0].state != "established");
        }
        Outcome::Closed => assert_eq!(upstream.end(), None),
        // Half a message: the rest never comes.
        Outcome::Wait => assert_ne!(status().peers[0].state, "idle"),
        _ => {
            match case.from {
                From::OpenSent => {
                    upstream.send(&wrapped(4, &[]));
                    until_true("established", || status().peers[0].state == "established");
                }
                From::OpenConfirm => {
                    until_true("established", || status().peers[0].state == "established");
                }
                _ => upstream.is_alive(),
            }
            assert!(status().peers[0].messages.received > before, "counted");
            assert_eq!(status().peers[0].state, "established");
        }
    }
}
