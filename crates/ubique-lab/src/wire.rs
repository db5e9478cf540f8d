//! The wire: moves frames between veth ends with the delay, loss and rate of each link.
//!
//! One single-threaded process in the wire's namespace. [`Shaper`](shaper::Shaper) is its pure core; [`Wire`] is the
//! driver around it: an AF_PACKET socket for each end, one epoll set, one timerfd armed for the next departure, and a
//! control socket that changes links while they run. It takes frames in batches and allocates nothing for a frame.
//! Kernels with netem could delay without this process; it is used everywhere all the same, because one way that is
//! measured and tested beats two, and because cuts and counters need it.
//!
//! Control, one JSON line each: `{"set":{"link":3,"cut":true}}`, likewise `loss`, `delay_ns` and `rate_bits_per_s`
//! (null: unlimited), both directions of the link; `{"query":"status"}` → [`Counters`]; `{"stop":true}`.
//! Start at [`run`].

mod bench;
mod shaper;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ubique_sys::clock;
use ubique_sys::packet::{Batch, PacketSocket};

pub use bench::{BenchResult, bench};
pub use shaper::{
    Counters, FRAME_BYTES, LATE_NS, MAX_FRAMES, MAX_FRAMES_PER_DIRECTION, RATE_QUEUE_NS, SEND_BATCH, Shape, Shaper,
};

use crate::control::Server;

/// Frames read from one socket before others get their turn.
const RECV_BATCH: usize = 64;
/// Events taken from epoll at once.
const EVENTS: usize = 256;
/// Event data of the timer and the control listener; ends have their index, connections [`CONNECTION`] plus their slot.
const TIMER: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;
const CONNECTION: u64 = 1 << 32;

/// What `ubique internal wire` is told: JSON between two processes of one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WireSpec {
    /// Control socket.
    pub socket: PathBuf,
    /// Seed of all losses.
    pub seed: u64,
    /// The links; a link's index is its number in control requests.
    pub links: Vec<WireLink>,
    /// Interfaces whose other ends, at sites, get XDP programs of the data plane.
    pub towards_xdp: Vec<String>,
}

/// A link of the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WireLink {
    /// Interface of one end, in the wire's namespace.
    pub a: String,
    /// Interface of the other end.
    pub b: String,
    /// One-way delay.
    pub delay_ns: u64,
    /// Probability that a frame is lost, 0 to 1.
    pub loss: f64,
    /// Capacity; `None`: unlimited.
    pub rate_bits_per_s: Option<u64>,
}

/// Why the wire ended.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// An interface of a link cannot be opened.
    #[error("interface {interface}: {source}")]
    Interface {
        /// Its name.
        interface: String,
        /// Why.
        source: io::Error,
    },
    /// The control socket cannot be opened.
    #[error("control socket {path}: {source}", path = path.display())]
    Control {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another failure of the kernel.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> WireError {
    move |e| WireError::System { what, source: e.into() }
}

/// A control request.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    Set(Set),
    Query(Query),
    Stop(bool),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Query {
    Status,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    link: usize,
    cut: Option<bool>,
    loss: Option<f64>,
    delay_ns: Option<u64>,
    /// Absent: unchanged; null: unlimited.
    #[serde(default, deserialize_with = "present")]
    rate_bits_per_s: Option<Option<u64>>,
}

fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(d).map(Some)
}

/// Runs the wire in the calling thread's network namespace until its control socket says stop.
///
/// # Errors
/// [`WireError`] when an interface or socket cannot be opened, or epoll fails.
pub fn run(spec: WireSpec) -> Result<(), WireError> {
    Wire::open(&spec)?.run()
}

/// The driver: sockets, timer and control around a [`Shaper`].
pub struct Wire {
    shaper: Shaper,
    /// The socket of each end; link `n` has ends `2n` and `2n + 1`. Direction `e` carries what end `e` received.
    ends: Vec<PacketSocket>,
    batch: Batch,
    epoll: OwnedFd,
    timer: OwnedFd,
    /// What the timer is armed for; 0: not armed.
    armed_ns: u64,
    control: Server,
    stop: bool,
    /// Programs on our ends of links whose other ends have some.
    _programs: Vec<OwnedFd>,
}

impl Wire {
    /// Opens every end and the control socket. Frames are kept from this moment on.
    ///
    /// # Errors
    /// [`WireError`] when an interface or socket cannot be opened.
    pub fn open(spec: &WireSpec) -> Result<Wire, WireError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(system("epoll"))?;
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
                .map_err(system("timerfd"))?;
        let watch = |fd: &dyn std::os::fd::AsFd, data| {
            epoll::add(&epoll, fd.as_fd(), EventData::new_u64(data), EventFlags::IN).map_err(system("epoll"))
        };
        watch(&timer, TIMER)?;
        let programs = let_pass(&spec.towards_xdp);
        let any = any_socket()?;
        let mut ends = Vec::with_capacity(spec.links.len() * 2);
        for interface in spec.links.iter().flat_map(|l| [&l.a, &l.b]) {
            let failed = |source| WireError::Interface { interface: interface.clone(), source };
            let index = rustix::net::netdevice::name_to_index(&any, interface).map_err(|e| failed(e.into()))?;
            let socket = PacketSocket::open(index).map_err(failed)?;
            watch(&socket, ends.len() as u64)?;
            ends.push(socket);
        }
        let control =
            Server::bind(&spec.socket).map_err(|source| WireError::Control { path: spec.socket.clone(), source })?;
        watch(&control.listener(), LISTENER)?;
        let shape =
            |l: &WireLink| Shape { delay_ns: l.delay_ns, loss: l.loss, rate_bits_per_s: l.rate_bits_per_s, cut: false };
        let shapes = spec.links.iter().flat_map(|l| [shape(l), shape(l)]);
        Ok(Wire {
            shaper: Shaper::new(shapes, spec.seed),
            ends,
            batch: Batch::new(RECV_BATCH, FRAME_BYTES),
            epoll,
            timer,
            armed_ns: 0,
            control,
            stop: false,
            _programs: programs,
        })
    }

    /// Moves frames until the control socket says stop.
    ///
    /// # Errors
    /// [`WireError::System`] when epoll or the timer fails.
    pub fn run(&mut self) -> Result<(), WireError> {
        // Without the right to real-time scheduling the delays are less exact, and correct all the same.
        let _ = ubique_sys::priority::prefer_this_thread();
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        while !self.stop {
            self.arm()?;
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(system("epoll")(e)),
            }
            for event in &events {
                self.handle(event.data.u64())?;
            }
            self.deliver();
        }
        Ok(())
    }

    /// Arms the timer for the next departure, when that has changed.
    fn arm(&mut self) -> Result<(), WireError> {
        let next = self.shaper.next_deadline_ns().unwrap_or(0);
        if next == self.armed_ns {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec {
            tv_sec: i64::try_from(next / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (next % 1_000_000_000) as _,
        };
        let spec = Itimerspec { it_interval: zero, it_value: value };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec).map_err(system("timerfd"))?;
        self.armed_ns = next;
        Ok(())
    }

    fn handle(&mut self, data: u64) -> Result<(), WireError> {
        match data {
            TIMER => {
                let mut expirations = [0u8; 8];
                // Armed anew in the meantime: nothing to read, nothing lost.
                let _ = rustix::io::read(&self.timer, &mut expirations);
                self.armed_ns = 0;
            }
            LISTENER => {
                if let Ok(Some((slot, fd))) = self.control.accept() {
                    let data = EventData::new_u64(CONNECTION + slot as u64);
                    epoll::add(&self.epoll, fd, data, EventFlags::IN).map_err(system("epoll"))?;
                }
            }
            data if data >= CONNECTION => {
                let (shaper, stop) = (&mut self.shaper, &mut self.stop);
                self.control.serve((data - CONNECTION) as usize, |question| answer(shaper, stop, question));
            }
            end => {
                self.receive(end as usize);
                // Between sockets, not only between rounds: a busy round lasts longer than a short delay.
                self.deliver();
            }
        }
        Ok(())
    }

    fn receive(&mut self, end: usize) {
        let now = clock::monotonic_ns();
        let shaper = &mut self.shaper;
        // Errors are those of one interface (it went down): its frames are lost, as on a cable pulled out.
        let _ = self.ends[end].recv_batch(&mut self.batch, |frame| shaper.offer(end, now, frame));
    }

    fn deliver(&mut self) {
        let ends = &self.ends;
        // What entered at one end leaves at the other.
        self.shaper.deliver_due(clock::monotonic_ns(), |direction, frames| {
            ends[direction ^ 1].send_batch(frames).unwrap_or(0)
        });
    }
}

/// Any socket will do to ask for an interface's index.
fn any_socket() -> Result<OwnedFd, WireError> {
    use rustix::net::{AddressFamily, SocketType};
    rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).map_err(system("socket"))
}

fn answer(shaper: &mut Shaper, stop: &mut bool, question: &Value) -> Value {
    match Request::deserialize(question) {
        Ok(Request::Set(set)) => match apply(shaper, &set) {
            Ok(()) => json!({ "ok": true }),
            Err(error) => json!({ "error": error }),
        },
        Ok(Request::Query(Query::Status)) => serde_json::to_value(shaper.counters).unwrap_or_default(),
        Ok(Request::Stop(now)) => {
            *stop = now;
            json!({ "ok": true })
        }
        Err(e) => json!({ "error": e.to_string() }),
    }
}

fn apply(shaper: &mut Shaper, set: &Set) -> Result<(), String> {
    if set.loss.is_some_and(|loss| !(0.0..=1.0).contains(&loss)) {
        return Err("loss is a probability, 0 to 1".into());
    }
    for direction in [set.link.saturating_mul(2), set.link.saturating_mul(2).saturating_add(1)] {
        let shape = shaper.shape_mut(direction).ok_or_else(|| format!("there is no link {}", set.link))?;
        shape.cut = set.cut.unwrap_or(shape.cut);
        shape.loss = set.loss.unwrap_or(shape.loss);
        shape.delay_ns = set.delay_ns.unwrap_or(shape.delay_ns);
        shape.rate_bits_per_s = set.rate_bits_per_s.unwrap_or(shape.rate_bits_per_s);
    }
    Ok(())
}

/// Where BPF is not to be had, as in a user namespace, the other ends have no programs either: their agents say so.
fn let_pass(interfaces: &[String]) -> Vec<OwnedFd> {
    let pass = |name: &String| ubique_sys::xdp::let_pass(name).inspect_err(|error| eprintln!("XDP on {name}: {error}"));
    interfaces.iter().map_while(|name| pass(name).ok()).collect()
}
