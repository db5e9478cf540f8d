//! The driver of BFD (RFC 5880, 5881, 5883): a thread of its own, so that nothing else of the agent can delay a packet.
//!
//! [`start`] opens nothing itself: the thread it starts opens its sockets, in the network namespace of the caller, and
//! tries again where that fails. It waits in `ppoll` for packets, deadlines and commands, and shares nothing with the
//! rest but bounded queues: commands come with an eventfd, news and records leave through channels that are never waited
//! for, and the state is published where nobody reads it at the moment.
//!
//! A neighbour is lost when nothing *arrived* for the detection time, by the kernel's time of arrival: before a deadline
//! is judged, the sockets are emptied. So neither a busy machine nor a pause of the process looks like a lost
//! neighbour. Nearly all packets only say that all is as it was: for those the thread does not even wake up (`socket`).
//!
//! The thread is watched by the watchdog as the runtime is. When the runtime stalls, the watchdog ends the process, and
//! BFD with it: that is why the C bit is never set.
//!
//! Anybody can send to the ports of BFD. What does not come from a neighbour is counted and goes no further, neither to the
//! core nor to its journal; most of it the kernel drops before it takes room from the neighbours' packets.
//!
//! - `thread`: the loop; `socket`: sockets and times of arrival; `gaps`: how regular our packets are; `bench`: a soak.
//!
//! Deliberately absent: the protocol (`ubique_proto::bfd`), and what a lost neighbour means, which is the agent's.

pub mod bench;
mod gaps;
mod socket;
mod thread;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc;
use ubique_model::service;
use ubique_model::service::spec::MAX_NEIGHBOURS;
use ubique_proto::bfd::packet::{Discard, State};
use ubique_proto::bfd::{Carried, Cause, Notice as CoreNotice, Role, SessionId, SessionStatus};
use ubique_sys::watchdog::Heartbeat;

pub use gaps::Gaps;

use crate::journal::Journal;

/// Port of single-hop sessions (RFC 5881 §4).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// Port of multihop sessions (RFC 5883 §5).
pub const MULTIHOP_PORT: u16 = 4784;

/// Commands that wait for the thread, which takes them at once: every neighbour comes and goes.
const COMMANDS: usize = 2 * MAX_NEIGHBOURS;

/// News that wait for the agent. A session needs more than a second for a round trip through its states, and an agent
/// that takes nothing for so long is ended by its watchdog.
const NOTICES: usize = 8 * MAX_NEIGHBOURS;

/// Longest pause of the thread: how old published numbers may be (changes of state are published at once), and how long a sign
/// of life may wait to be counted.
const PAUSE: Duration = Duration::from_millis(250);

/// Stack of the thread, octets: its depth is known.
const STACK_BYTES: usize = 256 << 10;

/// One neighbour; its session has the number of its place in the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// Its address.
    pub remote: IpAddr,
    /// Interface its packets come and go by; a link-local address needs one. It may come, go and come back.
    pub interface: Option<String>,
    /// Our address, when it is fixed; otherwise the kernel's route decides.
    pub local: Option<IpAddr>,
    /// Most hops away, counted from TTL 255; `None`: on the link (RFC 5881).
    pub hops: Option<u8>,
    /// Intervals and multiplier.
    pub settings: service::Bfd,
    /// Who speaks first.
    pub role: Role,
}

/// What the owner learns.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A session changed its state.
    State {
        /// Which.
        session: SessionId,
        /// The state it was in.
        from: State,
        /// Its state now.
        to: State,
        /// Why.
        cause: Cause,
        /// The C bit the neighbour last sent.
        control_independent: bool,
    },
    /// Something an operator should know of a session.
    Told {
        /// Which.
        session: SessionId,
        /// What.
        notice: CoreNotice,
    },
    /// Sockets cannot be opened; it is tried again.
    Sockets {
        /// What and why.
        error: String,
    },
    /// What [`Driver::part`] asked for: the sessions that are Up.
    Parting {
        /// For [`Driver::resume`] of the next program.
        carried: Vec<Carried>,
    },
}

/// All sessions as they were a moment ago.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The sessions, by number.
    pub sessions: Vec<Observed>,
    /// Datagrams discarded, by reason.
    pub discards: Vec<(Discard, u64)>,
    /// How far apart our packets are.
    pub gaps: Gaps,
    /// How late the thread ran at worst, after a deadline.
    pub latest: Duration,
    /// Why sockets cannot be opened, when that is so.
    pub error: Option<String>,
}

/// One session.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Its number.
    pub session: SessionId,
    /// What the core says.
    pub core: SessionStatus,
    /// Why the last packet could not be sent; `None`: it could.
    pub send_error: Option<String>,
}

/// Commands to the thread.
#[derive(Clone, Debug)]
enum Command {
    /// All sessions administratively down, or not any more.
    Enabled(bool),
    /// Tell the neighbours, then end.
    Stop,
    /// Another program takes the place of this one soon.
    Part,
    /// Sessions of the program before this one.
    Resume(Vec<Carried>),
    /// Other parameters of one session.
    Configure(SessionId, service::Bfd),
    /// A further session.
    Add(SessionId, Peer),
    /// One that is no more; its neighbour is told that it is administratively down.
    Remove(SessionId),
}

/// What both threads see.
#[derive(Debug)]
struct Shared {
    wake: OwnedFd,
    snapshot: Mutex<Snapshot>,
}

/// The running thread. Dropping it takes the sessions down administratively.
#[derive(Debug)]
pub struct Driver {
    commands: SyncSender<Command>,
    notices: mpsc::Receiver<Notice>,
    shared: Arc<Shared>,
}

/// Starts the thread, in the network namespace of the calling one. `heartbeat`: beaten at least every `beat`. `journal`:
/// where the core's inputs are written down.
pub fn start(
    peers: Vec<Peer>,
    seed: u64,
    heartbeat: Option<Heartbeat>,
    beat: Duration,
    journal: Option<Journal>,
) -> io::Result<Driver> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let shared = Arc::new(Shared { wake, snapshot: Mutex::default() });
    let (commands, orders) = sync_channel(COMMANDS);
    let (news, notices) = mpsc::channel(NOTICES);
    let thread = thread::Thread::new(peers, seed, journal, orders, news, Arc::clone(&shared));
    std::thread::Builder::new().name("bfd".to_owned()).stack_size(STACK_BYTES).spawn(move || {
        thread.run(heartbeat, beat);
    })?;
    Ok(Driver { commands, notices, shared })
}

impl Driver {
    /// The next news; `None` when the thread has ended.
    pub async fn next(&mut self) -> Option<Notice> {
        self.notices.recv().await
    }

    /// The next news, when there is any.
    pub fn try_next(&mut self) -> Option<Notice> {
        self.notices.try_recv().ok()
    }

    /// Takes all sessions down administratively (RFC 5880 §6.8.16), or lets them come up again.
    pub fn enable(&self, enabled: bool) {
        self.command(Command::Enabled(enabled));
    }

    /// Gives a session other parameters; its neighbour is polled.
    pub fn configure(&self, session: SessionId, settings: service::Bfd) {
        self.command(Command::Configure(session, settings));
    }

    /// Adds a session, under a number that none had before.
    pub fn add(&self, session: SessionId, peer: Peer) {
        self.command(Command::Add(session, peer));
    }

    /// Ends a session for good, administratively.
    pub fn remove(&self, session: SessionId) {
        self.command(Command::Remove(session));
    }

    /// Takes all sessions down administratively and ends the thread; [`Driver::next`] gives `None` when that is done.
    pub fn stop(&self) {
        self.command(Command::Stop);
    }

    /// Has the neighbours expect slow packets, so that they bear the silence until another program goes on with the sessions;
    /// [`Notice::Parting`] comes when they do, or after a while. The sessions go on.
    pub fn part(&self) {
        self.command(Command::Part);
    }

    /// Sessions with these neighbours, added after this, go on where the former program stopped.
    pub fn resume(&self, carried: Vec<Carried>) {
        self.command(Command::Resume(carried));
    }

    /// The sessions as they were a moment ago.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn command(&self, command: Command) {
        // A thread that leaves commands lying has ended, or is about to be ended by the watchdog.
        if let Err(TrySendError::Full(command)) = self.commands.try_send(command) {
            tracing::error!(?command, "BFD does not take commands");
        }
        // Fails only when it would overflow: then the thread is awake already.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop();
    }
}
