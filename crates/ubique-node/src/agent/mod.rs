//! `ubique run`: the agent of one site of one service.
//!
//! [`run`] builds a current-thread runtime and drives, in one loop, the health core (checks and detectors), the
//! site core (the order that is safety) and a BGP speaker that announces the service's prefixes and nothing else.
//! An event that makes the site unfit is turned into withdrawals in the sockets before the loop looks at anything
//! else. The admin socket and the metrics endpoint ask the loop through a bounded queue.
//!
//! The checker cannot die apart from the speaker: they are one process, a panic aborts it, and a watchdog process
//! kills it when the runtime stalls. In each case the kernel closes the sessions and the upstreams move on.
//!
//! - `addresses`: service addresses on the loopback.
//! - `announce`: what neighbours are told, and what they show of other sites; `verify`: the start gate's question; `probe`: the guard's ping.
//! - `detect`: sock_diag, pidfd and address events.
//! - `bfd`: what a neighbour lost to BFD means. `sessions`: the data plane.
//! - `confine`: what the agent gives up: capabilities, system calls.
//! - `site`: the loop's state and what the cores' outputs mean.
//! - `requests`: what callers may ask, `status`, `metrics`, `failover`, `process`, `http`: what others see.
//!
//! - `reload`, `apply`: another service file while all goes on; `upgrade`: another program; `keep`: what survives both.
//!
//! Deliberately absent: decisions (`ubique_proto`).

mod actions;
mod addresses;
mod announce;
mod apply;
mod arrivals;
mod bfd;
mod confine;
mod detect;
mod drain;
mod failover;
mod farewell;
mod guard;
mod http;
mod keep;
mod metrics;
mod neighbours;
mod probe;
mod process;
mod reload;
mod requests;
mod restart;
mod routes;
mod sessions;
mod setup;
mod site;
mod status;
mod upgrade;
mod verify;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use ubique_model::check::{Check, CheckKind};
use ubique_model::service::Service;
use ubique_proto::bgp::speaker::PeerId;

use self::bfd::{Bfd, Starter};
use self::reload::Reread;
use self::requests::Desk;
use self::site::Inputs;
use crate::admin::{self, Status};
use crate::bgp::{BGP_PORT, DriverError, Endpoint};
use crate::checks::CheckError;
use crate::limits;
use crate::state::Receipt;

pub use confine::Privileges;
pub use http::HttpError;
pub use neighbours::{Lacking, lacking};
pub use reload::Rehearsal;

/// Requests of admin clients and scrapes that wait for the loop.
const REQUESTS: usize = 16;

/// Results of polls, and events, that wait for the loop; the sender of one more waits.
const EVENTS: usize = 64;

/// Threads for what may block, beside one for each check that looks for processes: names of hosts and files of restart, state, reload,
/// keys.
const BLOCKING_THREADS: usize = 6;

/// How long the end waits for the upstreams to take the last NOTIFICATION.
const FAREWELL: Duration = Duration::from_millis(1500);

/// What the command line may set beside the service file.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Version of the program, for `status` and `ubique_build_info`.
    pub version: String,
    /// Admin socket, instead of the service file's.
    pub socket: Option<PathBuf>,
    /// Metrics endpoint, instead of the service file's.
    pub metrics: Option<SocketAddr>,
    /// The service file, to read it again; `None`: there is no reload.
    pub file: Option<PathBuf>,
    /// This is a rehearsal.
    pub rehearsal: Option<Rehearsal>,
    /// Port to accept BGP connections on; `None`: only connect.
    pub listen: Option<u16>,
    /// What was given up before threads were started; `None`: [`run`] does that.
    pub privileges: Option<Privileges>,
}

impl Default for AgentOptions {
    fn default() -> AgentOptions {
        AgentOptions {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            socket: None,
            metrics: None,
            file: None,
            rehearsal: None,
            listen: Some(BGP_PORT),
            privileges: None,
        }
    }
}

/// How an agent ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Withdrawn, drained, addresses removed.
    Stopped,
    /// The same without waiting for the drain time: a second signal came.
    Hurried,
    /// Sessions are broken off and addresses stay: execute this program, with our arguments.
    Replaced(PathBuf),
}

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The service file has no such site.
    #[error("the service has no site {0:?}")]
    NoSuchSite(String),
    /// A check cannot be set up.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// BGP cannot be spoken.
    #[error(transparent)]
    Bgp(#[from] DriverError),
    /// The admin socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] admin::SocketError),
    /// The metrics endpoint cannot be opened.
    #[error(transparent)]
    Metrics(#[from] HttpError),
    /// The kernel lacks what the service file asks for.
    #[error(transparent)]
    Lacking(#[from] Lacking),
    /// The service addresses cannot be put on the loopback.
    #[error("cannot put the service addresses on the loopback: that needs CAP_NET_ADMIN")]
    Addresses(#[source] io::Error),
    /// The system refused something else.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> AgentError {
    move |source| AgentError::System { what, source }
}

/// Where the end of a request is told; `Err`: why it cannot be carried out.
type Done = oneshot::Sender<Result<(), String>>;

/// The same for what a restart must not forget: the receipt tells whether it is on the disk.
type Kept = oneshot::Sender<Result<Receipt, String>>;

/// What admin clients and scrapes ask the loop for.
enum Request {
    Status(oneshot::Sender<Box<Status>>),
    Metrics(oneshot::Sender<String>),
    Routes {
        which: admin::RoutesRequest,
        reply: oneshot::Sender<Result<Box<admin::RoutesPage>, String>>,
    },
    Drain {
        reason: String,
        who: String,
        reply: Kept,
    },
    Undrain {
        reason: String,
        who: String,
        reply: Kept,
    },
    Reload {
        reread: Box<Reread>,
        how: admin::ReloadRequest,
        who: String,
        reply: oneshot::Sender<admin::ReloadReply>,
    },
    /// What a signal asked for is over: the service manager waits for that.
    Reloaded,
    Upgrade {
        how: admin::ReloadRequest,
        program: PathBuf,
        reply: Done,
    },
    /// The key of a neighbour that waited for it.
    Armed {
        peer: PeerId,
        endpoint: Box<Endpoint>,
    },
    /// The wall clock was set.
    ClockJumped {
        by_ms: i64,
    },
    /// What [`actions`] answers.
    Operator {
        what: admin::Request,
        who: String,
        reply: oneshot::Sender<actions::Answer>,
    },
}

/// Runs the site `site` of `service` until it is told to stop.
///
/// Sets a panic hook that aborts the process, and forks the watchdog: call it before any thread exists.
pub fn run(service: Service, site: &str, options: AgentOptions) -> Result<End, AgentError> {
    if service.site(site).is_none() {
        return Err(AgentError::NoSuchSite(site.to_owned()));
    }
    guard::abort_on_panic();
    limits::raise_descriptors(limits::DESCRIPTORS);
    let privileges = options.privileges.clone().unwrap_or_else(|| Privileges::reduce(&service));
    let watchdog =
        guard::Guard::start(service.agent.watchdog, privileges.watchdog()).map_err(system("start the watchdog"))?;
    let looks = |c: &&Check| matches!(c.kind, CheckKind::Process { .. } | CheckKind::Systemd { .. });
    let looks = service.checks.iter().filter(looks).count();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS + looks)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .map_err(system("start the runtime"))?;
    let end = LocalSet::new().block_on(&runtime, async move {
        let signals = Signals::new().map_err(system("handle signals"))?;
        let (heartbeats, beat) = watchdog.heartbeats();
        tokio::task::spawn_local(watchdog.beat());
        let options = AgentOptions { privileges: Some(privileges), ..options };
        serve(service, site.to_owned(), options, signals, Starter { heartbeats, beat }).await
    });
    // A thread that waits for a dead file system does not keep the others.
    runtime.shutdown_background();
    end
}

/// What a signal asks for.
enum Signalled {
    End(&'static str),
    Reload,
    Upgrade,
}

/// The signals an agent knows.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    upgrade: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Signalled {
        tokio::select! {
            _ = self.terminate.recv() => Signalled::End("SIGTERM"),
            _ = self.interrupt.recv() => Signalled::End("SIGINT"),
            _ = self.hangup.recv() => Signalled::Reload,
            _ = self.upgrade.recv() => Signalled::Upgrade,
        }
    }
}

/// What a reload says is in the log; nobody can say yes to it.
fn reload_for_signal(agent: &mut site::Agent, desk: &Desk) {
    agent.notifier.reloading();
    let desk = desk.clone();
    tokio::task::spawn_local(async move {
        desk.reloader.reload(Default::default(), "SIGHUP".into()).await;
        let _ = desk.requests.send(Request::Reloaded).await;
    });
}

async fn serve(
    service: Service,
    site: String,
    options: AgentOptions,
    mut signals: Signals,
    bfd: Starter,
) -> Result<End, AgentError> {
    let (results, mut polled) = mpsc::channel(EVENTS);
    let (events, mut detected) = mpsc::channel(EVENTS);
    let (requests, mut asked) = mpsc::channel(REQUESTS);
    // First of all: a second agent of the site must not touch the files of the first.
    let socket = setup::socket(&service, &site, &options)?;
    let desk = Desk::new(&options, &site, requests.clone());
    let inputs = Inputs { results, events, requests };
    let mut agent = setup::agent(service, &site, &options, inputs, bfd)?;
    setup::interfaces(agent.service(), &options, socket, &desk)?;
    // The last that can fail: who does not run leaves no addresses behind.
    agent.start()?;
    if let Some(privileges) = &options.privileges {
        privileges.filter();
    }
    agent.notifier.ready();
    let monitor = agent.monitor.clone();
    let hungry = async || match &monitor {
        Some(monitor) => monitor.hungry().await,
        None => std::future::pending().await,
    };
    let mut signals_seen = 0;
    loop {
        tokio::select! {
            biased;
            Some(event) = detected.recv() => agent.detected(event),
            Some(result) = polled.recv() => agent.polled(result),
            notice = Bfd::next(&mut agent.bfd) => agent.bfd_noticed(notice),
            notice = agent.bgp.next() => agent.noticed(notice),
            // What came in meanwhile is looked at first: a late agent must not take its own delay for the service's.
            () = agent.timer.wait() => tokio::task::yield_now().await,
            signal = signals.next() => match signal {
                Signalled::End(signal) => {
                    signals_seen += 1;
                    agent.stop(signal);
                }
                Signalled::Reload => reload_for_signal(&mut agent, &desk),
                Signalled::Upgrade => {
                    let upgrader = desk.upgrader.clone();
                    tokio::task::spawn_local(async move { upgrader.upgrade(Default::default(), "SIGUSR2".into()).await });
                }
            },
            Some(request) = asked.recv() => agent.asked(request),
            news = agent.operator.next() => agent.operator_noticed(news),
            notice = site::Agent::sessions_next(&mut agent.sessions) => agent.sessions_noticed(notice),
            () = hungry() => agent.feed_collectors(),
            () = agent.notifier.due() => agent.notifier.alive(),
        }
        while let Ok(result) = polled.try_recv() {
            agent.polled(result);
        }
        agent.settle();
        if let Some(program) = agent.replaced().await {
            return Ok(End::Replaced(program));
        }
        if agent.is_over() {
            agent.farewell(FAREWELL).await;
            // Why it could not be is in the log.
            let _ = agent.keep_site().kept().await;
            return Ok(if signals_seen > 1 { End::Hurried } else { End::Stopped });
        }
    }
}
