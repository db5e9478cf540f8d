//! TCP connections and what became of them. Each end is one thread with epoll in its namespace.
//!
//! What a client asks for stands in its first [`HEADER_BYTES`] octets: the kind, then how many octets. What a site answers to
//! ticking and short connections are octets with its number. The content of transfers is compared octet by octet.

mod client;
mod server;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};

pub use self::client::Client;
pub use self::server::Server;

const HEADER_BYTES: usize = 9;
const REPLY_BYTES: u64 = 1000;
/// Between two octets of a ticking connection.
pub const TICK: Duration = Duration::from_millis(20);
/// Nothing that takes longer goes on.
const STANDS_STILL: Duration = Duration::from_secs(5);
/// Longest sleep of a thread.
const TURN: Duration = Duration::from_millis(4);
/// Read or written at once.
const CHUNK_BYTES: usize = 64 << 10;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An octet of the site every [`TICK`], which the client sends back, until the client closes.
    Ticking,
    /// A request and its answer; the client then opens the next one.
    Short,
    /// So many octets to the client.
    Download(u64),
    /// So many octets to the site, which says whether they were right.
    Upload(u64),
}

impl Kind {
    fn header(self) -> [u8; HEADER_BYTES] {
        let (letter, bytes) = match self {
            Kind::Ticking => (b'T', 0),
            Kind::Short => (b'S', REPLY_BYTES),
            Kind::Download(bytes) => (b'D', bytes),
            Kind::Upload(bytes) => (b'U', bytes),
        };
        let mut header = [letter; HEADER_BYTES];
        header[1..].copy_from_slice(&bytes.to_be_bytes());
        header
    }

    fn parse(header: [u8; HEADER_BYTES]) -> Option<Kind> {
        let (letter, bytes) = header.split_first()?;
        let bytes = u64::from_be_bytes(bytes.try_into().ok()?);
        Some(match letter {
            b'T' => Kind::Ticking,
            b'S' => Kind::Short,
            b'D' => Kind::Download(bytes),
            b'U' => Kind::Upload(bytes),
            _ => return None,
        })
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Open,
    /// As both wanted.
    Done,
    Reset,
    /// Closed by the other end before it was done.
    Early,
    /// The number of another error.
    Failed(i32),
}

/// A connection as one end sees it.
#[derive(Clone, Debug)]
pub struct Record {
    pub kind: Option<Kind>,
    /// Which site says that it answers.
    pub site: Option<u8>,
    pub fate: Fate,
    /// Received, without the header.
    pub octets: u64,
    pub content_wrong: bool,
    /// When something arrived last, or the content of an upload left; before that, when it was begun.
    pub last: Instant,
    /// The longest time in which that did not happen.
    pub longest: Duration,
}

impl Record {
    fn new(kind: Option<Kind>, now: Instant) -> Record {
        Record {
            kind,
            site: None,
            fate: Fate::Open,
            octets: 0,
            content_wrong: false,
            last: now,
            longest: Duration::ZERO,
        }
    }

    /// It stands still, or ended otherwise than it should.
    pub fn is_lost(&self) -> bool {
        match self.fate {
            Fate::Done => false,
            Fate::Open => self.last.elapsed() > STANDS_STILL,
            Fate::Reset | Fate::Early | Fate::Failed(_) => true,
        }
    }

    fn went_on(&mut self, now: Instant) {
        self.longest = self.longest.max(now.saturating_duration_since(self.last));
        self.last = now;
    }
}

/// What the thread of an end and the test share.
struct Shared {
    records: Mutex<Vec<Record>>,
    quit: AtomicBool,
    late_us: AtomicU64,
}

impl Shared {
    fn new() -> Shared {
        Shared { records: Mutex::new(Vec::new()), quit: AtomicBool::new(false), late_us: AtomicU64::new(0) }
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap()
    }

    /// The thread was away for `turn`.
    fn turned(&self, turn: Duration) {
        let late = turn.saturating_sub(TURN).as_micros() as u64;
        self.late_us.fetch_max(late, Ordering::Relaxed);
    }

    fn late(&self) -> Duration {
        Duration::from_micros(self.late_us.load(Ordering::Relaxed))
    }
}

/// What all ends saw.
#[derive(Debug, Default)]
pub struct Summary {
    pub connections: usize,
    /// Those of the clients that did not end as they should: reset, closed early, or without an end.
    pub lost: usize,
    /// Ends that saw a reset, of either side.
    pub resets: usize,
    pub longest: Duration,
    pub octets: u64,
    pub content_wrong: bool,
    /// How late threads of the test itself were, each at its worst.
    pub late: Duration,
}

impl Summary {
    pub fn of(clients: &[&Client], servers: &[Server]) -> Summary {
        let mut summary = Summary::default();
        for client in clients {
            let records = client.records();
            summary.connections += records.len();
            summary.lost += records.iter().filter(|record| record.fate != Fate::Done).count();
            summary.add(&records);
            summary.late += client.late();
        }
        for server in servers {
            summary.add(&server.records());
        }
        summary.late += servers.iter().map(Server::late).max().unwrap_or_default();
        summary
    }

    fn add(&mut self, records: &[Record]) {
        let now = Instant::now();
        for record in records {
            let open = if record.fate == Fate::Open { now - record.last } else { Duration::ZERO };
            self.longest = self.longest.max(record.longest).max(open);
            self.resets += usize::from(record.fate == Fate::Reset);
            self.octets += record.octets;
            self.content_wrong |= record.content_wrong;
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections, {} lost, {} resets seen, ", self.connections, self.lost, self.resets)?;
        write!(f, "longest stall {:.1} ms, ", self.longest.as_secs_f64() * 1e3)?;
        write!(f, "{:.1} MB received, ", self.octets as f64 / 1e6)?;
        write!(f, "{}, ", if self.content_wrong { "content WRONG" } else { "content right" })?;
        write!(f, "test itself late by {:.1} ms", self.late.as_secs_f64() * 1e3)
    }
}

/// The content of every transfer, again and again. A prime length, so that no shift by whole blocks goes unseen.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut octet = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..1_048_573).map(|_| octet()).collect()
});

/// The content from `offset` on, as far as it goes in one piece, at most `most` octets.
fn pattern(offset: u64, most: u64) -> &'static [u8] {
    let start = (offset % PATTERN.len() as u64) as usize;
    let length = most.min((PATTERN.len() - start) as u64).min(CHUNK_BYTES as u64) as usize;
    &PATTERN[start..][..length]
}

/// Whether `bytes` are the content from `offset` on.
fn is_pattern(offset: u64, mut bytes: &[u8]) -> bool {
    let mut offset = offset;
    while !bytes.is_empty() {
        let expected = pattern(offset, bytes.len() as u64);
        let (now, later) = bytes.split_at(expected.len());
        if now != expected {
            return false;
        }
        offset += now.len() as u64;
        bytes = later;
    }
    true
}

/// What a call on a socket came to.
enum Progress {
    Octets(usize),
    /// The other end has closed its side.
    End,
    /// Not now.
    Later,
    Broken(Fate),
}

fn progress(result: io::Result<usize>) -> Progress {
    match result {
        Ok(0) => Progress::End,
        Ok(octets) => Progress::Octets(octets),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Progress::Later,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused | io::ErrorKind::BrokenPipe => {
                Progress::Broken(Fate::Reset)
            }
            _ => Progress::Broken(Fate::Failed(error.raw_os_error().unwrap_or(0))),
        },
    }
}

fn receive(mut stream: &TcpStream, buffer: &mut [u8]) -> Progress {
    progress(stream.read(buffer))
}

/// Sends content while there is room, from `sent` on, at most `bytes` in all; others have their turn, too.
fn send(mut stream: &TcpStream, sent: &mut u64, bytes: u64) -> Progress {
    const AT_A_TIME: usize = 8;
    for _ in 0..AT_A_TIME {
        if *sent == bytes {
            break;
        }
        match progress(stream.write(pattern(*sent, bytes - *sent))) {
            Progress::Octets(count) => *sent += count as u64,
            other => return other,
        }
    }
    Progress::Later
}

/// What can be read or written, by token.
struct Poller {
    epoll: rustix::fd::OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    fn new() -> Poller {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        Poller { epoll, events: Vec::with_capacity(256) }
    }

    fn add(&self, fd: impl rustix::fd::AsFd, token: u64, flags: EventFlags) {
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags).unwrap();
    }

    fn modify(&self, fd: impl rustix::fd::AsFd, token: u64, flags: EventFlags) {
        epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token), flags).unwrap();
    }

    /// Tokens that are ready, after at most [`TURN`].
    fn wait(&mut self) -> Vec<u64> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: TURN.as_nanos() as i64 };
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("{error}"),
        }
        self.events.iter().map(|event| event.data.u64()).collect()
    }
}

/// A stream whose reads and writes never wait.
fn prepare(stream: &TcpStream) {
    stream.set_nonblocking(true).unwrap();
    stream.set_nodelay(true).unwrap();
}

/// As a socket of the kernel's.
fn listen(address: SocketAddr) -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind(address).unwrap();
    // More than the standard library asks for.
    rustix::net::listen(&listener, 4096).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}
