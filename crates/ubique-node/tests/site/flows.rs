//! Connections of clients while something happens to their sites: old ones that exchange an octet again and again, and new ones that
//! begin all the time. Each is a thread in the clients' namespace; whatever does not go as it should is counted and told.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use ubique_sys::netns::NetNs;

/// Between two octets of an old connection.
const TICK: Duration = Duration::from_millis(200);
/// A connection that does not answer for so long has failed: more than any agent is away.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest sleep between two looks at new connections.
const TURN: Duration = Duration::from_millis(1);

/// Sends what there is to send; `Ok(false)`: not now.
fn wrote(stream: &mut TcpStream, octet: u8) -> io::Result<bool> {
    match stream.write(&[octet]) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a site answered to one octet, whole or not yet.
fn answer(stream: &mut TcpStream, octet: u8, had: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut reply = [0; 2];
    match stream.read(&mut reply[had.len()..]) {
        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
        Ok(count) => {
            let from = had.len();
            had.extend(&reply[from..from + count]);
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    let Some(&[echo, site]) = had.first_chunk() else { return Ok(None) };
    had.clear();
    if echo == octet { Ok(Some(site.into())) } else { Err(io::Error::other("another answer")) }
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// What all of a kind saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Connections that began.
    pub begun: usize,
    /// Octets that were answered.
    pub answered: u64,
    /// By which site, each connection's first answer.
    pub at: [usize; 2],
    /// What went wrong.
    pub failed: Vec<String>,
    /// The longest time from an octet to its answer; with a new connection, from its begin.
    pub longest: Duration,
}

struct One {
    stream: TcpStream,
    site: Option<usize>,
    octet: u8,
    had: Vec<u8>,
    /// When the octet was to be sent that is not answered yet; `None`: all is answered.
    asked: Option<Instant>,
    is_sent: bool,
}

impl One {
    fn begin(stream: TcpStream) -> One {
        One { stream, site: None, octet: 0, had: vec![], asked: Some(Instant::now()), is_sent: false }
    }

    /// Goes on as far as it can; whether the octet is answered now.
    fn go_on(&mut self, seen: &mut Seen) -> Result<bool, String> {
        let Some(asked) = self.asked else { return Ok(true) };
        let failed = |error: io::Error| format!("{error} after {:?}, at {:?}", asked.elapsed(), self.site);
        if !self.is_sent {
            self.is_sent = wrote(&mut self.stream, self.octet).map_err(failed)?;
        }
        let site = match self.is_sent {
            true => answer(&mut self.stream, self.octet, &mut self.had).map_err(failed)?,
            false => None,
        };
        let Some(site) = site else {
            return if asked.elapsed() < PATIENCE { Ok(false) } else { Err(failed(ErrorKind::TimedOut.into())) };
        };
        match self.site {
            None => seen.at[site] += 1,
            Some(first) if first != site => return Err(format!("site {site} answers for site {first}")),
            Some(_) => {}
        }
        self.site = Some(site);
        self.asked = None;
        seen.answered += 1;
        seen.longest = seen.longest.max(asked.elapsed());
        Ok(true)
    }
}

/// Old connections, until they are closed.
pub struct Old {
    keep: Arc<AtomicUsize>,
    rounds: Arc<AtomicU64>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Old {
    /// Opens `count` of them to these addresses in turn; each has been answered once when this returns.
    pub fn open(clients: &NetNs, addresses: &[SocketAddr], count: usize) -> Old {
        let (keep, rounds) = (Arc::new(AtomicUsize::new(count)), Arc::new(AtomicU64::new(0)));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (ns, addresses) = (clients.try_clone().unwrap(), addresses.to_vec());
        let (own_keep, own_rounds, own_seen) = (keep.clone(), rounds.clone(), seen.clone());
        let run = move || {
            ns.enter().unwrap();
            let mut all = Vec::with_capacity(count);
            for (index, to) in (0..count).zip(addresses.iter().cycle()) {
                let mut one = One::begin(connect(*to).unwrap());
                let seen = &mut *own_seen.lock().unwrap();
                seen.begun += 1;
                // One after the other: a site is given time to accept.
                while !one.go_on(seen).unwrap_or_else(|error| panic!("the {index}th cannot be opened: {error}")) {
                    std::thread::sleep(TURN);
                }
                all.push(one);
            }
            tick(all, &own_keep, &own_rounds, &own_seen);
        };
        let thread = Some(std::thread::spawn(run));
        let old = Old { keep, rounds, seen, thread };
        old.go_round();
        old
    }

    /// Waits until each has been asked and answered anew, or has failed.
    pub fn go_round(&self) {
        let (before, start) = (self.rounds.load(Ordering::Relaxed), Instant::now());
        // One round may have begun already.
        while self.rounds.load(Ordering::Relaxed) < before + 2 {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!ended && start.elapsed() < 4 * PATIENCE, "old connections do not go on: {:?}", self.seen());
            std::thread::sleep(TURN);
        }
    }

    /// Closes all but so many, as clients do that are done.
    pub fn keep(&self, count: usize) {
        self.keep.store(count, Ordering::Relaxed);
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Old {
    fn drop(&mut self) {
        self.keep(0);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || !matches!(ended, Some(Err(_))), "the thread of old connections failed");
    }
}

/// Rounds until none is to be kept: all are asked at once, and answered before the next.
fn tick(mut all: Vec<One>, keep: &AtomicUsize, rounds: &AtomicU64, seen: &Mutex<Seen>) {
    loop {
        all.truncate(keep.load(Ordering::Relaxed));
        if all.is_empty() {
            return;
        }
        let began = Instant::now();
        for one in &mut all {
            one.octet = one.octet.wrapping_add(1);
            (one.asked, one.is_sent) = (Some(Instant::now()), false);
        }
        let mut waiting = true;
        while waiting {
            waiting = false;
            let mut seen = seen.lock().unwrap();
            all.retain_mut(|one| match one.go_on(&mut seen) {
                Ok(is_answered) => {
                    waiting |= !is_answered;
                    true
                }
                Err(error) => {
                    seen.failed.push(error);
                    false
                }
            });
            drop(seen);
            std::thread::sleep(TURN);
        }
        rounds.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(TICK.saturating_sub(began.elapsed()));
    }
}

/// New connections that begin all the time, each for one octet, until it is dropped.
pub struct New {
    quit: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl New {
    /// `per_s` of them each second, to these addresses in turn.
    pub fn begin(clients: &NetNs, addresses: &[SocketAddr], per_s: u32) -> New {
        let quit = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (ns, addresses) = (clients.try_clone().unwrap(), addresses.to_vec());
        let (own_quit, own_seen) = (quit.clone(), seen.clone());
        let run = move || {
            ns.enter().unwrap();
            let (began, mut open) = (Instant::now(), Vec::<One>::new());
            let mut to = addresses.iter().cycle();
            while !(own_quit.load(Ordering::Relaxed) && open.is_empty()) {
                let mut seen = own_seen.lock().unwrap();
                let due = (began.elapsed().as_secs_f64() * f64::from(per_s)) as usize;
                while seen.begun < due && !own_quit.load(Ordering::Relaxed) {
                    seen.begun += 1;
                    match connect(*to.next().unwrap()) {
                        Ok(stream) => open.push(One::begin(stream)),
                        Err(error) => seen.failed.push(format!("cannot begin: {error}")),
                    }
                }
                open.retain_mut(|one| match one.go_on(&mut seen) {
                    Ok(is_answered) => !is_answered,
                    Err(error) => {
                        seen.failed.push(format!("{:?}: {error}", one.stream.local_addr()));
                        false
                    }
                });
                drop(seen);
                std::thread::sleep(TURN);
            }
        };
        New { quit, seen, thread: Some(std::thread::spawn(run)) }
    }

    /// Waits until so many more have been answered, or one has failed.
    pub fn more(&self, count: u64) {
        let (before, start) = (self.seen().answered, Instant::now());
        while self.seen().answered < before + count && self.seen().failed.is_empty() {
            assert!(start.elapsed() < 4 * PATIENCE, "new connections do not go on: {:?}", self.seen());
            std::thread::sleep(TURN);
        }
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// Begins no more; what all of them saw.
    pub fn end(mut self) -> Seen {
        self.finish();
        self.seen()
    }

    fn finish(&mut self) {
        self.quit.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || !matches!(ended, Some(Err(_))), "the thread of new connections failed");
    }
}

impl Drop for New {
    fn drop(&mut self) {
        self.finish();
    }
}
