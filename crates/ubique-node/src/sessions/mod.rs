//! The driver of the data plane (`ubique_edge`): connections survive a route change.
//!
//! A thread of its own loads the programs and puts them onto the interfaces, looks up how the other sites are reached, once a second and
//! whenever the kernel says that something changed, asks each whether it is there, and tells the programs. It never waits for the agent,
//! nor the agent for it: orders come with an eventfd, news leave through a bounded channel, and what is known is published for whoever
//! looks. When it last moved is published, too: one that hangs ([`STALL`]) is a trouble. It is not ended for that, nor the agent: the
//! programs go on as they were told last. (One that panics ends the agent, as any thread does.)
//!
//! The programs outlive the agent. They stay on the interfaces when it ends, so that no connection notices, and the next one takes their
//! place without a packet in between; it waits with that until it knows which sites are up (`life` has what is handed down).
//! `ubique sessions off` takes them off, and so does an agent whose service file has no `[sessions]` any more.
//!
//! Nothing of this can keep a service from being announced: what does not work is a trouble, told once and shown by `status`, and
//! tried again.
//!
//! - `keys`: from the secret to keys. `hops`: interfaces and next hops. `link`: datagrams between sites. `plane`: programs and what they
//!   are told. `mptcp`: what the kernel is. `life`: what a successor must know. `taps`: who is in the way of cookies. `thread`: the loop.
//!
//! Deliberately absent: who decides about a packet (`ubique_edge`), which site is up (`ubique_proto::sessions::peers`).

mod hops;
pub mod keys;
mod life;
mod link;
mod mptcp;
mod off;
mod plane;
mod taps;
mod thread;
mod wall;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc;
use ubique_edge::{Counter, Mode, Tier};
use ubique_model::Prefix;
use ubique_model::service::{self, Service};
use ubique_proto::Time;
use ubique_proto::sessions::Site;
use ubique_sys::netlink::Netlink;

pub use off::{Removed, off};

use crate::clock::now;
pub(crate) use life::path_beside;
pub(crate) use mptcp::take_back;
pub(crate) use off::{clear, is_built};

/// Orders that wait for the thread, which takes them at once.
const ORDERS: usize = 16;

/// News that wait for the agent; further ones are in the published state all the same.
const NOTICES: usize = 256;

/// How long the thread may take for one turn, in which it may load programs; more is a hang. At rest it moves each second.
const STALL: Duration = Duration::from_secs(10);

/// What a thread that hangs is called among troubles.
const STALLED: &str = "thread";

/// Stack of the thread, octets: libbpf has its own on the heap.
const STACK_BYTES: usize = 1 << 20;

/// What of a service file the data plane is made of.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub site: Site,
    pub others: Vec<Other>,
    pub unicast: Vec<IpAddr>,
    pub prefixes: Vec<Prefix>,
    pub sessions: service::Sessions,
    /// Neighbours whose interfaces the programs go onto, unless the file names interfaces.
    pub upstreams: Vec<(IpAddr, Option<String>)>,
    /// Where a successor finds what it must know.
    pub life: PathBuf,
}

/// Another site.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    pub name: String,
    pub site: Site,
    /// Where it is reached, and from where.
    pub address: IpAddr,
    pub source: IpAddr,
}

impl Setup {
    /// `None`: the service has no `[sessions]`. `life`: see [`path_beside`].
    pub fn of(service: &Service, own: &service::Site, life: PathBuf) -> Option<Setup> {
        let sessions = service.sessions.clone()?;
        let other = |site: &service::Site| {
            let family = own.unicast.common(&site.unicast)?;
            Some(Other {
                name: site.name.clone(),
                site: Site::new(site.number)?,
                address: site.unicast.address(family)?,
                source: own.unicast.address(family)?,
            })
        };
        let ranges = own.dynamic.iter().map(|range| (range.range.addr(), range.template.interface.clone()));
        let upstreams = own.upstreams.iter().map(|upstream| (upstream.address, upstream.interface.clone()));
        Some(Setup {
            site: Site::new(own.number)?,
            others: service.sites.iter().filter(|site| site.name != own.name).filter_map(other).collect(),
            unicast: own.unicast.addresses().collect(),
            prefixes: service.prefixes.clone(),
            upstreams: upstreams.chain(ranges).collect(),
            sessions,
            life,
        })
    }

    /// Indexes of the interfaces that the programs belong onto and that are there now.
    pub fn interfaces(&self) -> Vec<u32> {
        let found = Netlink::open().and_then(|mut netlink| {
            let links = netlink.links()?;
            Ok(hops::interfaces(&mut netlink, &links, self))
        });
        found.unwrap_or_default().into_iter().map(|(index, _)| index).collect()
    }

    fn name(&self, site: Site) -> &str {
        self.others.iter().find(|other| other.site == site).map_or("", |other| &other.name)
    }
}

/// What the agent learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Something does not work; it is tried again.
    Trouble { what: String, why: String },
    /// It works.
    Solved { what: String },
    /// Another site came or went.
    Site { name: String, up: bool },
    /// Programs are on an interface.
    Attached { interface: String, mode: Mode, adopted: bool },
}

/// An order to the thread.
#[derive(Clone, Debug)]
enum Order {
    /// Have another site take new connections: that one, or whichever is nearest. `None`: no more.
    HandOver(Option<Target>),
}

/// Who takes new connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The nearest that is up.
    Nearest,
    /// This one, while it is up.
    Named(String),
}

/// The data plane as it was a moment ago.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// How TCP carries its site; `None`: no programs are loaded.
    pub tier: Option<Tier>,
    /// Interfaces with programs on them.
    pub interfaces: Vec<(String, Mode)>,
    /// What does not work, and why.
    pub troubles: Vec<(String, String)>,
    pub sites: Vec<Seen>,
    /// Every decision of the programs.
    pub counters: Vec<(Counter, u64)>,
    /// The wall clock at 0 of the monotonic one, ms: as timestamps say it.
    pub clock_base_ms: Option<u64>,
    /// How far the wall clock is ahead of what timestamps say, ms.
    pub clock_ahead_ms: i64,
    /// Programs of a former agent were replaced.
    pub adopted: bool,
    /// And their counters, too.
    pub counts_on: bool,
    /// Who takes new connections while we drain.
    pub hands_over_to: Option<String>,
    /// Packets that begin a connection, handed over in the last second.
    pub handed_over_per_s: f64,
    /// Connections that other sites were told are ours.
    pub found: u64,
    /// How long ago the thread began its last turn.
    pub silent: Duration,
}

/// Another site as it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub name: String,
    pub number: u8,
    pub address: IpAddr,
    /// `None`: not known yet.
    pub up: Option<bool>,
    pub since: Time,
    pub round_trip: Option<Duration>,
    /// How far its clock is ahead of ours.
    pub clock_ahead_ms: Option<i64>,
    /// Why packets for it cannot leave, when that is so.
    pub no_way: Option<String>,
}

/// What the thread publishes.
struct Shared {
    snapshot: Mutex<Snapshot>,
    /// When it began its last turn.
    turned: AtomicU64,
}

impl Shared {
    fn turned(&self, now: Time) {
        self.turned.store(now.0, Ordering::Relaxed);
    }

    fn publish(&self, snapshot: Snapshot) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}

/// The thread, as its owner sees it; it ends when this is dropped, the programs stay.
pub(crate) struct Driver {
    orders: SyncSender<Order>,
    wake: Arc<OwnedFd>,
    notices: mpsc::Receiver<Notice>,
    shared: Arc<Shared>,
    told: Option<Target>,
    /// It hangs, and its owner was told.
    is_stalled: bool,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It finds that nobody can give orders any more.
        let (closed, _) = sync_channel(1);
        self.orders = closed;
        self.wake();
    }
}

impl Driver {
    /// Starts the thread; all that can fail is told by [`Driver::next`].
    pub fn start(setup: Setup) -> io::Result<Driver> {
        let (orders, taken) = sync_channel(ORDERS);
        let (tell, notices) = mpsc::channel(NOTICES);
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let shared = Arc::new(Shared { snapshot: Mutex::default(), turned: AtomicU64::new(now().0) });
        let (woken, published) = (wake.clone(), shared.clone());
        let run = move || thread::Thread::new(setup, (taken, woken), tell, published).run();
        std::thread::Builder::new().name("sessions".into()).stack_size(STACK_BYTES).spawn(run)?;
        Ok(Driver { orders, wake, notices, shared, told: None, is_stalled: false })
    }

    /// The next news.
    pub async fn next(&mut self) -> Option<Notice> {
        self.notices.recv().await
    }

    /// The state as it was published last.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        snapshot.silent = self.silent(now());
        if self.is_stalled {
            snapshot.troubles.push((STALLED.to_owned(), stalled(snapshot.silent)));
        }
        snapshot
    }

    /// How long ago the thread began its last turn.
    fn silent(&self, now: Time) -> Duration {
        now.since(Time(self.shared.turned.load(Ordering::Relaxed)))
    }

    /// Whether the thread hangs, when that has changed. To be called at [`Driver::next_deadline`].
    pub fn look(&mut self, now: Time) -> Option<Notice> {
        let silent = self.silent(now);
        let is_stalled = silent >= STALL;
        if std::mem::replace(&mut self.is_stalled, is_stalled) == is_stalled {
            return None;
        }
        let what = STALLED.to_owned();
        Some(if is_stalled { Notice::Trouble { what, why: stalled(silent) } } else { Notice::Solved { what } })
    }

    /// When it is to be looked whether the thread moves.
    pub fn next_deadline(&self, now: Time) -> Time {
        if self.is_stalled { now + thread::LOOK_EVERY } else { now + STALL.saturating_sub(self.silent(now)) }
    }

    /// Has another site take new connections, or none.
    pub fn hand_over(&mut self, target: Option<Target>) {
        if self.told != target && self.orders.try_send(Order::HandOver(target.clone())).is_ok() {
            self.told = target;
            self.wake();
        }
    }

    fn wake(&self) {
        // A counter that is full wakes as well.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }
}

fn stalled(silent: Duration) -> String {
    format!(
        "it has not moved for {} s: packets are treated as before, and nobody sees what changes; if that lasts, restart the agent, \
         which no connection notices",
        silent.as_secs()
    )
}

/// How a mode is called.
pub(crate) fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "native",
        Mode::Generic => "generic",
    }
}

/// How a tier is called: as `tcp` of the service file.
pub(crate) fn tier_word(tier: Tier) -> &'static str {
    match tier {
        Tier::Cookies => "cookie",
        Tier::Timestamps => "timestamp",
        Tier::Off => "off",
    }
}

/// The tier of that name.
fn tier_of(word: &str) -> Option<Tier> {
    [Tier::Cookies, Tier::Timestamps].into_iter().find(|tier| tier_word(*tier) == word)
}

/// The key of connection identifiers of a service, and the number of a site: what a QUIC server is given.
///
/// # Errors
/// There is no secret that can be used.
pub fn connection_id_key(secret_file: &Path) -> Result<String, keys::SecretError> {
    keys::Secret::read(secret_file).map(|secret| secret.connection_id_key())
}
