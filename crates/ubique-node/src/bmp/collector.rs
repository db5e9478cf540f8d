//! One collector: a bounded queue and the task that writes it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use ubique_model::service::BmpCollector;
use ubique_sys::tcp;

use super::dump::Dump;

/// Octets that may wait for a collector; beyond, it is disconnected and told everything anew later.
const QUEUE_BYTES: usize = 4 << 20;

/// What is known already is told only while fewer octets wait: there is room for what happens meanwhile.
const LOW_BYTES: usize = 256 << 10;

/// Octets written at a time.
const WRITE_BYTES: usize = 64 << 10;

/// How long a connection attempt may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A collector whose machine does not answer for so long is gone: TCP alone would take a quarter of an hour, or not notice.
const SILENCE: Duration = Duration::from_secs(30);

/// Pauses between attempts: doubled from the first to the last.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A connection that held so long was a good one: the next pause is the first again.
const GOOD: Duration = Duration::from_secs(60);

/// A collector as `ubique status` and metrics show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CollectorStatus {
    pub address: SocketAddr,
    pub connected: bool,
    /// Connections that ended because it did not read.
    pub overflows: u64,
    /// Octets handed to its connections.
    pub octets: u64,
}

/// A collector.
pub(super) struct Collector {
    address: SocketAddr,
    statistics: Duration,
    hungry: Rc<Notify>,
    wake: Notify,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    connected: bool,
    greeted: bool,
    queue: VecDeque<u8>,
    overflown: bool,
    dump: Option<Dump>,
    statistics_due: bool,
    ending: bool,
    overflows: u64,
    octets: u64,
}

impl Collector {
    pub(super) fn start(spec: &BmpCollector, hungry: Rc<Notify>) -> Rc<Collector> {
        let (address, statistics) = (spec.collector, spec.statistics);
        let state = RefCell::default();
        let collector = Rc::new(Collector { address, statistics, hungry, wake: Notify::new(), state });
        tokio::task::spawn_local(collector.clone().run());
        collector
    }

    pub(super) fn status(&self) -> CollectorStatus {
        let state = self.state.borrow();
        CollectorStatus {
            address: self.address,
            connected: state.connected,
            overflows: state.overflows,
            octets: state.octets,
        }
    }

    pub(super) fn is_greeted(&self) -> bool {
        self.state.borrow().greeted
    }

    pub(super) fn wants_greeting(&self) -> bool {
        let state = self.state.borrow();
        state.connected && !state.greeted
    }

    pub(super) fn greet(&self, octets: &[u8]) {
        {
            let mut state = self.state.borrow_mut();
            state.greeted = true;
            state.dump = Some(Dump::Received(None));
        }
        self.push(octets);
    }

    pub(super) fn wants_statistics(&self) -> bool {
        let mut state = self.state.borrow_mut();
        std::mem::take(&mut state.statistics_due) && state.greeted
    }

    /// Queues whole messages. Too many end the connection.
    pub(super) fn push(&self, octets: &[u8]) {
        let mut state = self.state.borrow_mut();
        if !state.overflown {
            state.queue.extend(octets);
            state.overflown = state.queue.len() > QUEUE_BYTES;
        }
        self.wake.notify_one();
    }

    /// What to tell it next of what is known already, when there is something and it has room.
    pub(super) fn next_piece(&self) -> Option<Dump> {
        let state = self.state.borrow();
        state.dump.filter(|_| state.queue.len() < LOW_BYTES)
    }

    /// The next turn of the loop goes on when there is more to tell, and room.
    pub(super) fn push_piece(&self, octets: &[u8], next: Option<Dump>) {
        self.state.borrow_mut().dump = next;
        self.push(octets);
        if self.next_piece().is_some() {
            self.hungry.notify_one();
        }
    }

    pub(super) fn end(&self) {
        self.state.borrow_mut().ending = true;
        self.wake.notify_one();
    }

    pub(super) fn is_done(&self) -> bool {
        !self.state.borrow().connected
    }

    async fn run(self: Rc<Self>) {
        let mut pause = PAUSE_MIN;
        let mut said = None;
        loop {
            let begin = Instant::now();
            let ended = match self.connect().await {
                Ok(stream) => {
                    tracing::info!(collector = %self.address, "BMP collector connected");
                    said = None;
                    let ended = self.converse(stream).await;
                    self.forget();
                    ended
                }
                Err(error) => Err(error),
            };
            if self.state.borrow().ending {
                return;
            }
            let cause = ended.err().map_or("closed by the collector".to_owned(), |e| e.to_string());
            // A collector that stays away is mentioned once.
            if said.as_ref() != Some(&cause) {
                tracing::warn!(collector = %self.address, cause, "BMP collector not connected: trying again");
                said = Some(cause);
            }
            pause = if begin.elapsed() >= GOOD { PAUSE_MIN } else { pause };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.ending() => return,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn ending(&self) {
        while !self.state.borrow().ending {
            self.wake.notified().await;
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let attempt = timeout(CONNECT, TcpStream::connect(self.address));
        let stream = tokio::select! {
            done = attempt => done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = self.ending() => Err(io::ErrorKind::Interrupted.into()),
        }?;
        let silence = TcpKeepalive::new().with_time(SILENCE / 2).with_interval(SILENCE / 10);
        SockRef::from(&stream).set_tcp_keepalive(&silence)?;
        tcp::set_user_timeout(stream.as_fd(), SILENCE)?;
        Ok(stream)
    }

    /// Forgets what was queued: the next connection begins anew.
    fn forget(&self) {
        let mut state = self.state.borrow_mut();
        let (ending, overflows, octets) = (state.ending, state.overflows + u64::from(state.overflown), state.octets);
        *state = State { ending, overflows, octets, ..State::default() };
    }

    /// Writes the queue until the connection ends.
    async fn converse(&self, stream: TcpStream) -> io::Result<()> {
        self.state.borrow_mut().connected = true;
        self.hungry.notify_one();
        let (mut read, mut write) = stream.into_split();
        let mut report = Instant::now() + self.statistics;
        loop {
            let octets = self.take()?;
            if octets.is_empty() {
                if self.state.borrow().ending {
                    return write.shutdown().await;
                }
                tokio::select! {
                    () = self.wake.notified() => {}
                    ended = closed(&mut read) => return ended,
                    () = sleep_until(report), if !self.statistics.is_zero() => {
                        report = Instant::now() + self.statistics;
                        self.state.borrow_mut().statistics_due = true;
                        self.hungry.notify_one();
                    }
                }
                continue;
            }
            tokio::select! {
                done = write.write_all(&octets) => done?,
                ended = closed(&mut read) => return ended,
                () = self.overflown() => {}
            }
            self.state.borrow_mut().octets += octets.len() as u64;
            if self.next_piece().is_some() {
                self.hungry.notify_one();
            }
        }
    }

    fn take(&self) -> io::Result<Vec<u8>> {
        let mut state = self.state.borrow_mut();
        if state.overflown {
            return Err(io::Error::other(format!("it does not read: {QUEUE_BYTES} octets wait for it")));
        }
        let count = state.queue.len().min(WRITE_BYTES);
        let octets = state.queue.drain(..count).collect();
        if state.queue.is_empty() {
            state.queue.shrink_to(WRITE_BYTES);
        }
        Ok(octets)
    }

    async fn overflown(&self) {
        while !self.state.borrow().overflown {
            self.wake.notified().await;
        }
    }
}

/// Waits for the end of the connection: a collector has nothing to say (RFC 7854 §3.2).
async fn closed(read: &mut tokio::net::tcp::OwnedReadHalf) -> io::Result<()> {
    let mut octets = [0; 256];
    while read.read(&mut octets).await? > 0 {}
    Ok(())
}
