//! The `dns` check: a query answered with the expected RCODE.
//!
//! Over UDP the socket is connected, so that an ICMP error (the port is closed) ends the poll at once.
//! RFC 1035 §4; over TCP §4.2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use domain::base::iana::{Class, Rcode};
use domain::base::{Message, MessageBuilder, Name, Rtype};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::words;
use crate::random::query_id;

/// Largest answer over UDP that is looked at; the header and question are at its start.
const UDP_BYTES: usize = 4096;

/// A `dns` check.
pub(super) struct Dns {
    target: SocketAddr,
    name: Name<Vec<u8>>,
    qtype: Rtype,
    class: Class,
    rcode: Rcode,
    tcp: bool,
    /// The query with its length in front (RFC 1035 §4.2.2); the identifier is set for each poll.
    query: Vec<u8>,
    buffer: Vec<u8>,
}

/// Octets of the length field over TCP.
const LENGTH: usize = 2;

impl Dns {
    pub(super) fn new(
        target: SocketAddr,
        name: &str,
        qtype: &str,
        class: &str,
        rcode: &str,
        tcp: bool,
    ) -> Result<Dns, String> {
        let name: Name<Vec<u8>> = name.parse().map_err(|e| format!("{name:?} is not a domain name: {e}"))?;
        let qtype: Rtype = qtype.parse().map_err(|_| format!("{qtype:?} is not a query type"))?;
        let class: Class = class.parse().map_err(|_| format!("{class:?} is not a query class"))?;
        let rcode: Rcode = rcode.parse().map_err(|_| format!("{rcode:?} is not an RCODE"))?;
        let mut question = MessageBuilder::new_vec().question();
        question.push((&name, qtype, class)).map_err(|e| format!("the query does not fit: {e}"))?;
        let message = question.finish();
        let mut query = u16::try_from(message.len()).map_err(|e| e.to_string())?.to_be_bytes().to_vec();
        query.extend(message);
        Ok(Dns { target, name, qtype, class, rcode, tcp, query, buffer: vec![0; UDP_BYTES] })
    }

    pub(super) async fn poll(&mut self) -> Result<(), String> {
        let id = query_id();
        self.query[LENGTH..LENGTH + 2].copy_from_slice(&id.to_be_bytes());
        if self.tcp { self.over_tcp(id).await } else { self.over_udp(id).await }
    }

    async fn over_udp(&mut self, id: u16) -> Result<(), String> {
        // A socket, and so a source port, of its own for each poll: among workers that share the port the kernel chooses
        // by the ports, and every worker must be met. What comes late meets nobody.
        let socket = open(self.target).await.map_err(|e| words(&e))?;
        socket.send(&self.query[LENGTH..]).await.map_err(|e| words(&e))?;
        loop {
            let length = socket.recv(&mut self.buffer).await.map_err(|e| words(&e))?;
            if let Some(end) = self.judge(&self.buffer[..length], id) {
                return end;
            }
        }
    }

    async fn over_tcp(&mut self, id: u16) -> Result<(), String> {
        let mut stream = TcpStream::connect(self.target).await.map_err(|e| words(&e))?;
        stream.write_all(&self.query).await.map_err(|e| words(&e))?;
        let length = usize::from(stream.read_u16().await.map_err(|e| words(&e))?);
        self.buffer.resize(length.max(UDP_BYTES), 0);
        stream.read_exact(&mut self.buffer[..length]).await.map_err(|e| words(&e))?;
        self.judge(&self.buffer[..length], id).unwrap_or_else(|| Err("answer with another identifier".to_owned()))
    }

    /// `None`: not the answer to this query (late, or somebody's guess).
    fn judge(&self, octets: &[u8], id: u16) -> Option<Result<(), String>> {
        let Ok(message) = Message::from_octets(octets) else {
            return Some(Err(format!("answer of {} octets is not a DNS message", octets.len())));
        };
        let header = message.header();
        if header.id() != id {
            return None;
        }
        if !header.qr() {
            return Some(Err("answer is a query".to_owned()));
        }
        let asked = message
            .sole_question()
            .is_ok_and(|q| *q.qname() == self.name && q.qtype() == self.qtype && q.qclass() == self.class);
        let rcode = header.rcode();
        // A server that cannot parse the query returns the bare header (RFC 1035 §4.1.1): its RCODE tells more.
        if !asked && message.header_counts().qdcount() > 0 {
            return Some(Err("answer to another question".to_owned()));
        }
        if rcode != self.rcode {
            return Some(Err(format!("{rcode}, expected {}", self.rcode)));
        }
        Some(if asked { Ok(()) } else { Err("answer without the question".to_owned()) })
    }
}

async fn open(target: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}
