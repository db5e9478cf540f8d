//! HTTP from the vantage points: `GET /`, a TCP connection each, so that every query takes the route of its moment.
//!
//! Each lane has a thread in the namespace of its vantage point, where the sockets must be made. It sends on absolute
//! deadlines and waits for nothing else than its sockets, as the lanes of datagrams do. The round-trip time is that of
//! the whole: connection and head of the answer. The site is the answer's `X-Served-By` header. RFC 9110, RFC 9112.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, Socket, Type};
use ubique_sys::clock;
use ubique_sys::netns::NetNs;

use super::query::printable;
use super::record::{Outcome, Sample, Span, UNKNOWN_SITE};
use super::{PHASE_NS, Place, ProbeError, ProbeSpec, lanes, nanos, open_socket, socket_error};

/// Queries of a lane are at least so far apart: each is a connection.
pub const SHORTEST_EVERY: Duration = Duration::from_millis(50);
/// The header that names the site.
pub const SITE_HEADER: &str = "x-served-by";
/// Longest head of an answer that is read; what is longer has no site.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What a lane tells.
pub(super) enum News {
    /// A query and its outcome, with the site that an answer names.
    Outcome(Sample, Option<String>),
    /// When a query was due, and when it was sent.
    Asked(Span),
}

/// The lanes that ask over HTTP; they end once this is dropped.
pub(super) struct Web(Receiver<News>);

impl Web {
    /// Starts every lane's thread.
    pub(super) fn start(spec: &ProbeSpec, start_ns: u64) -> Result<Web, ProbeError> {
        let (news, heard) = channel();
        for (index, (place, vantage, source, target, every_ns)) in lanes(spec).enumerate() {
            let error = || socket_error(vantage, target);
            // A namespace or a source that is not there is found out here, where it can be told.
            open_socket(vantage, source).map_err(error())?;
            let namespace = NetNs::open(&vantage.netns).map_err(error())?;
            let due_ns = start_ns + index as u64 % (every_ns / PHASE_NS).max(1) * PHASE_NS;
            let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", host(target.ip()));
            let timeout_ns = nanos(spec.timeout);
            let news = news.clone();
            let lane = Lane { place, source, target, request, every_ns, timeout_ns, due_ns, open: Vec::new(), news };
            let run = move || namespace.enter().map(|()| lane.run());
            std::thread::Builder::new().name("http".into()).spawn(run).map_err(error())?;
        }
        Ok(Web(heard))
    }

    /// What was found out, if anything.
    pub(super) fn news(&self) -> Option<News> {
        self.0.try_recv().ok()
    }
}

/// As a URL spells it.
fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

struct Lane {
    place: Place,
    source: IpAddr,
    target: SocketAddr,
    request: String,
    every_ns: u64,
    timeout_ns: u64,
    due_ns: u64,
    /// Oldest first.
    open: Vec<Request>,
    news: Sender<News>,
}

/// A query that waits for its answer.
struct Request {
    stream: TcpStream,
    sent_ns: u64,
    asked: bool,
    head: Vec<u8>,
}

impl Lane {
    /// Until nobody wants to hear of it.
    fn run(mut self) {
        while self.ask().is_some() && self.look().is_some() {
            self.wait();
        }
    }

    fn tell(&self, sent_ns: u64, outcome: Outcome, site: Option<String>) -> Option<()> {
        let (vantage, address) = self.place;
        self.news.send(News::Outcome(Sample { vantage, address, sent_ns, outcome }, site)).ok()
    }

    /// Sends the query that is due. Deadlines that have passed are skipped, as those of datagrams are.
    fn ask(&mut self) -> Option<()> {
        let sent_ns = clock::monotonic_ns();
        let Some(late_ns) = sent_ns.checked_sub(self.due_ns) else { return Some(()) };
        self.news.send(News::Asked(Span { from_ns: self.due_ns, until_ns: sent_ns })).ok()?;
        self.due_ns += (late_ns / self.every_ns + 1) * self.every_ns;
        match connect(self.source, self.target) {
            Ok(stream) => self.open.push(Request { stream, sent_ns, asked: false, head: Vec::new() }),
            Err(_) => self.tell(sent_ns, Outcome::Unsent, None)?,
        }
        Some(())
    }

    /// Takes what came, and gives up what has waited too long.
    fn look(&mut self) -> Option<()> {
        let mut waiting = Vec::with_capacity(self.open.len());
        for mut request in std::mem::take(&mut self.open) {
            let answer = request.answer(self.request.as_bytes());
            let waited_ns = clock::monotonic_ns() - request.sent_ns;
            match answer {
                Ok(Some(site)) => {
                    let rtt_ns = u32::try_from(waited_ns).unwrap_or(u32::MAX);
                    self.tell(request.sent_ns, Outcome::Answered { site: UNKNOWN_SITE, rtt_ns }, site)?;
                }
                Err(_) => self.tell(request.sent_ns, Outcome::Refused, None)?,
                Ok(None) if waited_ns > self.timeout_ns => self.tell(request.sent_ns, Outcome::Lost, None)?,
                Ok(None) => waiting.push(request),
            }
        }
        self.open = waiting;
        Some(())
    }

    /// Until an answer comes, the next query is due or the oldest has waited too long.
    fn wait(&self) {
        let oldest_ns = self.open.first().map_or(u64::MAX, |request| request.sent_ns + self.timeout_ns);
        let left_ns = self.due_ns.min(oldest_ns).saturating_sub(clock::monotonic_ns());
        let left = Timespec { tv_sec: (left_ns / 1_000_000_000) as i64, tv_nsec: (left_ns % 1_000_000_000) as i64 };
        let mut ready: Vec<PollFd<'_>> = self.open.iter().map(Request::awaited).collect();
        // A signal that ends the wait early only costs one empty round.
        let _ = poll(&mut ready, Some(&left));
    }
}

/// A connection that is being made.
fn connect(source: IpAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Nobody looks at the rest of an answer, and ports must not run out.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
    match socket.connect(&SockAddr::from(target)) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(socket.into()),
    }
}

impl Request {
    fn awaited(&self) -> PollFd<'_> {
        PollFd::new(&self.stream, if self.asked { PollFlags::IN } else { PollFlags::OUT })
    }

    /// Does what can be done now. `Some` site or none: it is answered.
    fn answer(&mut self, request: &[u8]) -> io::Result<Option<Option<String>>> {
        match self.proceed(request) {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => Ok(None),
            other => other,
        }
    }

    fn proceed(&mut self, request: &[u8]) -> io::Result<Option<Option<String>>> {
        if !self.asked {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            self.stream.peer_addr()?;
            self.stream.write_all(request)?;
            self.asked = true;
        }
        let mut octets = [0; 2048];
        loop {
            let count = self.stream.read(&mut octets)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.head.extend(&octets[..count]);
            let end = self.head.windows(4).position(|w| w == b"\r\n\r\n");
            if end.is_some() || self.head.len() > MAX_HEAD_BYTES {
                return Ok(Some(end.and_then(|end| site(&self.head[..end]))));
            }
        }
    }
}

/// The site that the head of an answer names.
fn site(head: &[u8]) -> Option<String> {
    let line = |line: &[u8]| {
        let text = std::str::from_utf8(line).ok()?;
        let (name, value) = text.split_once(':')?;
        name.eq_ignore_ascii_case(SITE_HEADER).then(|| value.trim().to_owned())
    };
    let named = head.split(|b| *b == b'\n').skip(1).find_map(line)?;
    printable(named.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_the_site_however_it_is_written() {
        let named = |head: &str| site(head.as_bytes());
        assert_eq!(named("HTTP/1.1 200 OK\r\nServer: x\r\nX-Served-By: lon\r\nDate: now"), Some("lon".into()));
        assert_eq!(named("HTTP/1.1 503 Busy\r\nx-served-by:ams  "), Some("ams".into()));
        assert_eq!(named("HTTP/1.1 200 OK\r\nX-Served-By:\r\nX-Other: lon"), None);
        assert_eq!(named("X-Served-By: lon"), None, "the first line is no header");
        assert_eq!(named(""), None);
    }
}
