//! One TCP connection of the responder (RFC 7766): queries with a two-byte length, any number, answered in order.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::zone::{Transport, Zone};

/// Bytes taken from the socket at once.
const READ_BYTES: usize = 4096;
/// Longest query taken; a longer one ends the connection, as no query is that long.
pub const MAX_QUERY_BYTES: usize = 4096;
/// With so many bytes of answers unread by the client, nothing more is read from it.
const MAX_UNSENT_BYTES: usize = 64 * 1024;

/// A connection.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// When something last moved, CLOCK_MONOTONIC ns.
    pub(super) active_ns: u64,
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// The client has sent all it will; what is unsent still goes out.
    finished: bool,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, now_ns: u64) -> Connection {
        Connection { stream, active_ns: now_ns, received: Vec::new(), unsent: Vec::new(), finished: false }
    }

    /// Something waits to be sent.
    pub(super) fn wants_write(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// More queries are welcome.
    pub(super) fn wants_read(&self) -> bool {
        !self.finished && self.unsent.len() < MAX_UNSENT_BYTES
    }

    /// Reads and writes what is possible without waiting; `false`: the connection is over.
    pub(super) fn step(&mut self, zone: &Zone, now_ns: u64) -> io::Result<bool> {
        loop {
            self.answer(zone)?;
            let wrote = self.write()?;
            let read = self.wants_read() && self.read()?;
            if wrote || read {
                self.active_ns = now_ns;
            }
            if self.finished && self.unsent.is_empty() {
                return Ok(false);
            }
            if !read {
                return Ok(true);
            }
        }
    }

    /// Answers the whole queries received, as long as there is room for answers.
    fn answer(&mut self, zone: &Zone) -> io::Result<()> {
        let mut taken = 0;
        while self.unsent.len() < MAX_UNSENT_BYTES {
            let Some((length, rest)) = self.received[taken..].split_first_chunk::<2>() else {
                break;
            };
            let length = usize::from(u16::from_be_bytes(*length));
            if length > MAX_QUERY_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let Some(query) = rest.get(..length) else {
                break;
            };
            if let Some(response) = zone.respond(query, Transport::Tcp)
                && let Ok(length) = u16::try_from(response.len())
            {
                self.unsent.extend(length.to_be_bytes());
                self.unsent.extend(response);
            }
            taken += 2 + length;
        }
        self.received.drain(..taken);
        Ok(())
    }

    fn write(&mut self) -> io::Result<bool> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.stream.write(&self.unsent[sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => sent += length,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        self.unsent.drain(..sent);
        Ok(sent > 0)
    }

    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; READ_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => {
                self.finished = true;
                Ok(false)
            }
            Ok(length) => {
                self.received.extend(&buffer[..length]);
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }
}
