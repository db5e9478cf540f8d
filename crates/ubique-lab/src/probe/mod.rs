//! The vantage points: queries at a fixed interval, with kernel timestamps.
//!
//! One process asks for all vantage points. Each lane, a vantage point and a service address, has a connected UDP
//! socket in the namespace of its network, bound to the client's address, and sends on absolute deadlines, so that
//! nothing drifts. The first address is asked every few milliseconds, the others more rarely. The answer's arrival is
//! stamped by the kernel: the prober may be late to read it without harm. That it was late to *send* is recorded
//! ([`record::Record::Late`]), because a prober that stands still looks like an outage.
//!
//! [`run`] writes [`record`]s; the lab reads them with [`record::Reader`] and keeps them in a [`crate::measure::Log`].
//!
//! That is DNS and NTP; HTTP is asked from threads of their own ([`http`]).
//!
//! Any response counts as an answer: whether it is the right one is what the checks of the service are for.
//! Deliberately absent: judgement (see [`crate::measure`]). RFC 1035, RFC 5001, RFC 6891, RFC 4892, RFC 5905.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::epoll;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};
use ubique_sys::clock;
use ubique_sys::netns::NetNs;
use ubique_sys::udp::{self, UdpBatch};

pub mod http;
mod lane;
mod output;
pub mod query;
pub mod record;

pub use query::ProbeQuery;
pub use record::{Reader, Record};

use lane::{Histogram, Lane, MAX_OPEN, Open};
use output::Output;
use record::{Outcome, Quality, Sample, Span};

/// What `ubique internal probe` is told to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// The vantage points; records refer to them by index.
    pub vantages: Vec<ProbeVantage>,
    /// The service addresses; records refer to them by index.
    pub addresses: Vec<SocketAddr>,
    /// Interval of the first address.
    pub every: Duration,
    /// Interval of the others.
    pub every_other: Duration,
    /// A query without answer by then is lost.
    pub timeout: Duration,
    /// What is asked.
    pub query: ProbeQuery,
}

/// A vantage point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeVantage {
    /// Its name, for errors.
    pub name: String,
    /// Path of its network namespace.
    pub netns: PathBuf,
    /// Its IPv4 address; without one it asks no IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address likewise.
    pub ipv6: Option<Ipv6Addr>,
}

/// Default interval of the addresses after the first.
pub const EVERY_OTHER: Duration = Duration::from_millis(25);
/// Default timeout: longer than any path on Earth, shorter than the patience of resolvers. An answer of a service that
/// hung meanwhile is lost, too.
pub const TIMEOUT: Duration = Duration::from_millis(500);
/// Shortest interval allowed.
pub const MIN_EVERY: Duration = Duration::from_millis(1);
/// Lanes start in steps of this, so that they share wake-ups without sending all at once.
const PHASE_NS: u64 = 1_000_000;
/// Records leave at least this often, and answers are read.
const FLUSH_NS: u64 = 10_000_000;
/// Interval of quality records.
const QUALITY_NS: u64 = 1_000_000_000;
/// Most vantage points.
const MAX_VANTAGES: usize = 10_000;
/// Most service addresses.
const MAX_ADDRESSES: usize = 64;
/// Longest answer read; longer ones are cut, which costs at most the site's name.
const ANSWER_BYTES: usize = 1500;
/// As much of a query as is read back with an ICMP error: more than where any has its identifier.
const QUERY_BYTES: usize = 48;
/// Answers read at once.
const BATCH: usize = 32;
/// Sockets with answers looked at in one round.
const READY: usize = 256;

/// Why the prober cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The numbers of the specification are out of bounds.
    #[error("probe specification: {0}")]
    Spec(&'static str),
    /// The query.
    #[error("probe query: {0}")]
    Query(#[from] query::QueryError),
    /// A vantage point's socket.
    #[error("vantage point {vantage}: socket towards {address}: {source}")]
    Socket {
        /// The vantage point.
        vantage: String,
        /// The service address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else of the kernel.
    #[error("prober: {0}")]
    Io(#[from] io::Error),
}

/// Runs until the reader of `output` is gone or `stop` is set.
pub fn run(spec: &ProbeSpec, output: impl Write + Send + 'static, stop: &AtomicBool) -> Result<(), ProbeError> {
    check(spec)?;
    let mut prober = Prober::open(spec, output)?;
    while !prober.output.closed && !stop.load(Ordering::Relaxed) {
        prober.send_due();
        prober.receive()?;
        prober.hear();
        prober.expire();
        prober.flush();
        prober.sleep();
    }
    Ok(())
}

fn check(spec: &ProbeSpec) -> Result<(), ProbeError> {
    let shortest = spec.every.min(spec.every_other);
    if shortest < MIN_EVERY {
        return Err(ProbeError::Spec("the interval is below 1 ms"));
    }
    if spec.timeout.as_nanos() / shortest.as_nanos() >= MAX_OPEN as u128 {
        return Err(ProbeError::Spec("the timeout is too long for the interval"));
    }
    if spec.vantages.len() > MAX_VANTAGES || spec.addresses.len() > MAX_ADDRESSES {
        return Err(ProbeError::Spec("too many vantage points or addresses"));
    }
    Ok(())
}

/// A lane and its socket.
struct Asker {
    vantage: u16,
    address: u8,
    socket: UdpSocket,
    target: SocketAddr,
    /// `connect` needs a route, which is there only after routing has converged.
    connected: bool,
    every_ns: u64,
    lane: Lane,
}

struct Prober {
    askers: Vec<Asker>,
    /// (deadline, index in `askers`), earliest first.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    epoll: rustix::fd::OwnedFd,
    ready: Vec<epoll::Event>,
    batch: UdpBatch,
    question: ProbeQuery,
    query: Vec<u8>,
    web: Option<http::Web>,
    timeout_ns: u64,
    stall_ns: u64,
    output: Output,
    lateness: Histogram,
    quality: Quality,
    /// End of the last stall recorded, so that lanes which share it record it once.
    stalled_until_ns: u64,
    next_flush_ns: u64,
}

impl Prober {
    fn open(spec: &ProbeSpec, output: impl Write + Send + 'static) -> Result<Prober, ProbeError> {
        let query = spec.query.to_bytes()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let start_ns = clock::monotonic_ns() + PHASE_NS;
        let (askers, web) = match spec.query {
            ProbeQuery::Http => (Vec::new(), Some(http::Web::start(spec, start_ns)?)),
            _ => (open_all(spec)?, None),
        };
        let mut due = BinaryHeap::with_capacity(askers.len());
        for (index, asker) in askers.iter().enumerate() {
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &asker.socket, data, epoll::EventFlags::IN).map_err(io::Error::from)?;
            let phases = (asker.every_ns / PHASE_NS).max(1);
            due.push(Reverse((start_ns + index as u64 % phases * PHASE_NS, index)));
        }
        Ok(Prober {
            askers,
            due,
            epoll,
            ready: Vec::with_capacity(READY),
            batch: UdpBatch::new(BATCH, ANSWER_BYTES),
            question: spec.query.clone(),
            query,
            web,
            timeout_ns: nanos(spec.timeout),
            stall_ns: nanos(spec.every.min(spec.every_other)),
            output: Output::start(output, spec.vantages.len() as u16, spec.addresses.len() as u16)?,
            lateness: Histogram::default(),
            quality: Quality::default(),
            stalled_until_ns: 0,
            next_flush_ns: start_ns,
        })
    }

    /// Sends every query whose deadline has come.
    fn send_due(&mut self) {
        while let Some(Reverse((deadline_ns, index))) = self.due.peek().copied() {
            let now_ns = clock::monotonic_ns();
            if deadline_ns > now_ns {
                return;
            }
            self.due.pop();
            let late_ns = now_ns - deadline_ns;
            self.was_due(deadline_ns, now_ns);
            let every_ns = self.askers[index].every_ns;
            // Deadlines that have passed are skipped: a burst would measure nothing but itself.
            let next_ns = deadline_ns + (late_ns / every_ns + 1) * every_ns;
            self.due.push(Reverse((next_ns, index)));
            self.send(index);
        }
    }

    /// Takes note of when a query was due and when it was sent.
    fn was_due(&mut self, deadline_ns: u64, now_ns: u64) {
        let late_ns = now_ns - deadline_ns;
        self.lateness.add(late_ns);
        if late_ns > self.stall_ns {
            self.stalled(deadline_ns, now_ns);
        }
    }

    fn stalled(&mut self, from_ns: u64, until_ns: u64) {
        if from_ns < self.stalled_until_ns {
            return;
        }
        self.stalled_until_ns = until_ns;
        self.quality.stalls += 1;
        self.output.push(&Record::Late(Span { from_ns, until_ns }));
    }

    fn send(&mut self, index: usize) {
        let asker = &mut self.askers[index];
        let Some(id) = asker.lane.next_id() else {
            return;
        };
        self.question.set_id(&mut self.query, id);
        let (sent_ns, sent_realtime_ns) = (clock::monotonic_ns(), clock::realtime_ns());
        if asker.send(&self.query).is_ok() {
            self.quality.sent += 1;
            asker.lane.sent(Open { sent_ns, sent_realtime_ns });
        } else {
            let sample = asker.sample(sent_ns, Outcome::Unsent);
            self.output.push(&Record::Sample(sample));
        }
    }

    /// Reads every answer that is there.
    fn receive(&mut self) -> io::Result<()> {
        self.ready.clear();
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), Some(&now)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        for event in &self.ready {
            let Some(asker) = self.askers.get_mut(event.data.u64() as usize) else {
                continue;
            };
            let flags = event.flags;
            if flags.contains(epoll::EventFlags::ERR) {
                asker.refused(&self.question, &mut self.output);
            }
            asker.receive(&self.question, &mut self.batch, &mut self.output);
        }
        Ok(())
    }

    /// Takes what the threads that ask over HTTP have found out.
    fn hear(&mut self) {
        while let Some(news) = self.web.as_ref().and_then(http::Web::news) {
            match news {
                http::News::Outcome(sample, site) => {
                    self.quality.sent += u64::from(sample.outcome != Outcome::Unsent);
                    let outcome = match sample.outcome {
                        Outcome::Answered { rtt_ns, .. } => Outcome::Answered { site: self.output.site(site), rtt_ns },
                        outcome => outcome,
                    };
                    self.output.push(&Record::Sample(Sample { outcome, ..sample }));
                }
                http::News::Asked(span) => self.was_due(span.from_ns, span.until_ns),
            }
        }
    }

    /// Gives up what has waited too long. Runs after [`Prober::receive`], so that an answer that lies in a socket
    /// while the prober stands still is not counted as lost.
    fn expire(&mut self) {
        let Some(until_ns) = clock::monotonic_ns().checked_sub(self.timeout_ns) else {
            return;
        };
        for asker in &mut self.askers {
            while let Some(query) = asker.lane.expire(until_ns) {
                let sample = asker.sample(query.sent_ns, Outcome::Lost);
                self.output.push(&Record::Sample(sample));
            }
        }
    }

    fn flush(&mut self) {
        let now_ns = clock::monotonic_ns();
        if now_ns < self.next_flush_ns {
            return;
        }
        self.next_flush_ns = now_ns + FLUSH_NS;
        if now_ns >= self.quality.at_ns + QUALITY_NS {
            self.quality.at_ns = now_ns;
            self.quality.late_p99_ns = self.lateness.quantile_ns(990);
            self.quality.late_max_ns = self.lateness.max_ns();
            self.quality.dropped = self.output.dropped;
            self.output.push(&Record::Quality(self.quality));
        }
        self.output.flush();
    }

    /// Sleeps until the next deadline or flush. Answers do not wake it: the kernel has stamped them.
    fn sleep(&self) {
        let due_ns = self.due.peek().map_or(u64::MAX, |Reverse((deadline_ns, _))| *deadline_ns);
        let wake_ns = due_ns.min(self.next_flush_ns);
        let wake = rustix::time::Timespec {
            tv_sec: (wake_ns / 1_000_000_000) as i64,
            tv_nsec: (wake_ns % 1_000_000_000) as i64,
        };
        // A signal that ends the sleep early only costs one empty round.
        let _ = rustix::thread::clock_nanosleep_absolute(rustix::thread::ClockId::Monotonic, &wake);
    }
}

impl Asker {
    fn sample(&self, sent_ns: u64, outcome: Outcome) -> Sample {
        Sample { vantage: self.vantage, address: self.address, sent_ns, outcome }
    }

    fn send(&mut self, query: &[u8]) -> io::Result<()> {
        if !self.connected {
            self.socket.connect(self.target)?;
            self.connected = true;
        }
        // An ICMP error of an earlier query makes the next call fail once, without sending.
        match self.socket.send(query) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => self.socket.send(query).map(drop),
            result => result.map(drop),
        }
    }

    /// Takes the ICMP errors of earlier queries: each comes with the query it is about.
    fn refused(&mut self, question: &ProbeQuery, output: &mut Output) {
        let mut query = [0; QUERY_BYTES];
        loop {
            let mut control = RecvAncillaryBuffer::default();
            let mut into = [io::IoSliceMut::new(&mut query)];
            match recvmsg(&self.socket, &mut into, &mut control, RecvFlags::ERRQUEUE) {
                Ok(message) if question.id(&query[..message.bytes]).is_some() => {}
                Ok(_) => continue,
                Err(_) => return,
            }
            if let Some(query) = question.id(&query).and_then(|id| self.lane.close(id)) {
                output.push(&Record::Sample(self.sample(query.sent_ns, Outcome::Refused)));
            }
        }
    }

    /// Reads all answers of this socket.
    fn receive(&mut self, question: &ProbeQuery, batch: &mut UdpBatch, output: &mut Output) {
        let Asker { vantage, address, socket, target, lane, .. } = self;
        let mut failed = false;
        loop {
            let result = udp::recv_batch(socket.as_fd(), batch, |received| {
                // Before `connect` the socket takes anything.
                if (received.from.ip(), received.from.port()) != (target.ip(), target.port()) {
                    return;
                }
                let Some(query) = question.response_id(received.bytes).and_then(|id| lane.close(id)) else {
                    return;
                };
                let site = output.site(question.response_site(received.bytes));
                let rtt_ns = rtt_ns(&query, received.timestamp_ns);
                let outcome = Outcome::Answered { site, rtt_ns };
                let sample = Sample { vantage: *vantage, address: *address, sent_ns: query.sent_ns, outcome };
                output.push(&Record::Sample(sample));
            });
            match result {
                Ok(count) if count >= BATCH => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The pending ICMP error is cleared by reporting it: look once more for answers behind it.
                Err(e) if e.kind() != io::ErrorKind::WouldBlock && !failed => failed = true,
                _ => return,
            }
        }
    }
}

/// The kernel's stamp minus the time of sending. Where the wall clock was set in between, the time until now instead.
fn rtt_ns(query: &Open, stamp_ns: Option<u64>) -> u32 {
    let until_now_ns = clock::monotonic_ns().saturating_sub(query.sent_ns);
    let stamped = stamp_ns.and_then(|stamp| stamp.checked_sub(query.sent_realtime_ns));
    let rtt_ns = stamped.filter(|rtt| *rtt <= until_now_ns).unwrap_or(until_now_ns);
    u32::try_from(rtt_ns).unwrap_or(u32::MAX)
}

/// A lane's place in the records: indices of its vantage point and its service address.
type Place = (u16, u8);

/// Every lane with its source and interval, the first address of all vantage points first, so that their phases spread
/// evenly.
fn lanes(spec: &ProbeSpec) -> impl Iterator<Item = (Place, &ProbeVantage, IpAddr, SocketAddr, u64)> {
    spec.addresses.iter().enumerate().flat_map(|(a, target)| {
        let every_ns = nanos(if a == 0 { spec.every } else { spec.every_other });
        spec.vantages.iter().enumerate().filter_map(move |(v, vantage)| {
            let v4 = || vantage.ipv4.map(IpAddr::from);
            let source = if target.is_ipv4() { v4() } else { vantage.ipv6.map(IpAddr::from) }?;
            Some(((v as u16, a as u8), vantage, source, *target, every_ns))
        })
    })
}

fn socket_error(vantage: &ProbeVantage, address: SocketAddr) -> impl FnOnce(io::Error) -> ProbeError {
    let vantage = vantage.name.clone();
    move |source| ProbeError::Socket { vantage, address, source }
}

fn open_all(spec: &ProbeSpec) -> Result<Vec<Asker>, ProbeError> {
    let open = |((vantage, address), at, source, target, every_ns): (Place, &ProbeVantage, IpAddr, SocketAddr, u64)| {
        let socket = open_socket(at, source).map_err(socket_error(at, target))?;
        Ok(Asker { vantage, address, socket, target, connected: false, every_ns, lane: Lane::default() })
    };
    lanes(spec).map(open).collect()
}

fn open_socket(vantage: &ProbeVantage, source: IpAddr) -> io::Result<UdpSocket> {
    let socket = NetNs::open(&vantage.netns)?.run(|| UdpSocket::bind((source, 0)))??;
    socket.set_nonblocking(true)?;
    udp::enable_timestamps(socket.as_fd())?;
    udp::queue_errors(socket.as_fd(), socket.local_addr()?)?;
    Ok(socket)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
