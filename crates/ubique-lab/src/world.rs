//! A running emulated Internet with its sites.
//!
//! [`World::start`] builds the plan, starts the wire, the routers, and on each site the agent (`ubique run`) and its
//! service. Then the scenario acts through its methods: kill, hang, freeze, cut, drain. Every act returns the
//! [`Moment`] it took effect, so that gaps can be measured from it. Everything started here dies with the lab.
//!
//! Deliberately absent: what the acts are for ([`crate::play`]) and what clients see ([`crate::probe`]).
//! Start it on the lab's main thread: children die with the thread that started them.

mod site;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use ubique_model::service::Service;
use ubique_model::{Asn, IpNet, Prefix};
use ubique_sys::clock;
use ubique_sys::netlink::{Netlink, RTPROT_STATIC, Route};
use ubique_sys::process::Signal;

use crate::build::{BuildError, Built, WIRE, wire_spec};
use crate::child::{self, Exit, Process};
use crate::control::{self, ControlError};
use crate::plan::{Plan, SessionPlan};
use crate::routers::{Backend, Candidate, Launch, Routers, RoutersError, Status};
use crate::sessions::Holding;
use crate::wire::Counters;
use site::SiteState;

/// How long the wire may take until it answers.
const WIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long agents may take until the service addresses are there.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer over a control socket may take.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);

/// The secret of `[sessions]`, in the lab's directory.
const SECRET: &str = "sessions.secret";

/// Names and addresses of machines.
const HOSTS: &str = "/etc/hosts";
/// What a machine's own name means in it, where it has no address of that name.
const OWN_NAME: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// How a world is started.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// The `ubique` program.
    pub executable: PathBuf,
    /// The service file the agents are given; it must be readable inside the sandbox.
    pub service_file: PathBuf,
    /// Where the user's file lies: `{directory}` of `[rehearse] command`.
    pub service_directory: PathBuf,
    /// What routes the Internet.
    pub backend: Backend,
    /// Seed of losses and jitter.
    pub seed: u64,
    /// Where namespaces, sockets and logs go: `/run/ubique`.
    pub directory: PathBuf,
    /// The zone of the built-in DNS responder.
    pub zone: String,
    /// Sessions that the stand-in service of each site is for.
    pub holding: Holding,
}

/// When an act took effect, by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// CLOCK_MONOTONIC, ns.
    pub monotonic_ns: u64,
    /// CLOCK_REALTIME, ns: the clock of packet timestamps.
    pub realtime_ns: u64,
}

impl Moment {
    /// This moment.
    pub fn now() -> Moment {
        Moment { monotonic_ns: clock::monotonic_ns(), realtime_ns: clock::realtime_ns() }
    }
}

/// Why a world does not stand, or an act failed.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// Namespaces and links.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Routers.
    #[error(transparent)]
    Routers(#[from] RoutersError),
    /// A file, process or signal.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A process ended when it was needed.
    #[error("{0}")]
    Ended(Exit),
    /// Something did not happen in time.
    #[error("{what} after {seconds} s{log}")]
    TimedOut {
        /// What is missing.
        what: String,
        /// How long was waited.
        seconds: u64,
        /// The end of the log, after a newline.
        log: String,
    },
    /// A process did not do what was asked over its control socket.
    #[error("{name}: {source}")]
    Control {
        /// Who was asked.
        name: String,
        /// Why not.
        source: ControlError,
    },
    /// There is no such site.
    #[error("there is no site {0:?}")]
    NoSite(String),
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> WorldError {
    let what = what.into();
    move |source| WorldError::System { what, source }
}

/// A running emulated Internet with its sites.
pub struct World {
    plan: Plan,
    service: Service,
    options: WorldOptions,
    built: Built,
    wire: Process,
    wire_socket: PathBuf,
    routers: Routers,
    routers_started_ns: u64,
    sites: Vec<SiteState>,
}

impl World {
    /// Builds and starts everything; sessions come up afterwards.
    ///
    /// # Errors
    /// [`WorldError`] naming the step that failed, with the end of the log of the process at fault.
    pub fn start(plan: Plan, service: &Service, options: WorldOptions) -> Result<World, WorldError> {
        let logs = options.directory.join("log");
        std::fs::create_dir_all(&logs).map_err(system(logs.display().to_string()))?;
        if plan.sites.iter().any(|site| site.data_plane) {
            make_secret(&options.directory.join(SECRET)).map_err(system(SECRET))?;
        }
        name_sites(&plan, &options.directory).map_err(system(HOSTS))?;
        let built = Built::new(&plan, &options.directory)?;
        let (wire, wire_socket) = start_wire(&plan, &built, &options)?;
        let launch = Launch {
            executable: options.executable.clone(),
            directory: options.directory.clone(),
            logs,
            seed: options.seed,
        };
        let routers_started_ns = clock::monotonic_ns();
        let routers = Routers::start(options.backend, &plan, &built, &launch)?;
        let sites = plan.sites.iter().map(|s| SiteState::new(&s.name)).collect();
        let service = service.clone();
        let mut world = World { plan, service, options, built, wire, wire_socket, routers, routers_started_ns, sites };
        let names: Vec<String> = world.plan.sites.iter().map(|s| s.name.clone()).collect();
        for name in &names {
            world.start_agent(name)?;
        }
        for name in &names {
            world.start_service(name)?;
        }
        Ok(world)
    }

    /// What was built.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// When the routers were started, CLOCK_MONOTONIC ns.
    pub fn routers_started_ns(&self) -> u64 {
        self.routers_started_ns
    }

    /// The namespaces.
    pub fn built(&self) -> &Built {
        &self.built
    }

    /// Sessions and quiet time of the routers.
    ///
    /// # Errors
    /// [`WorldError::Routers`] when one does not answer.
    pub fn routing(&mut self) -> Result<Status, WorldError> {
        Ok(self.routers.status()?)
    }

    /// What the router of a network knows about a prefix, best first.
    ///
    /// # Errors
    /// [`WorldError::Routers`] when there is no such network or its router does not answer.
    pub fn candidates(&mut self, asn: Asn, prefix: Prefix) -> Result<Vec<Candidate>, WorldError> {
        Ok(self.routers.candidates(asn, prefix)?)
    }

    /// What the wire did to frames so far.
    ///
    /// # Errors
    /// [`WorldError::Control`] when it does not answer.
    pub fn wire_counters(&self) -> Result<Counters, WorldError> {
        let answer = self.ask_wire(&json!({"query": "status"}))?;
        serde_json::from_value(answer)
            .map_err(|e| WorldError::Control { name: "wire".into(), source: ControlError::Json(e) })
    }

    /// Processes that ended since the last call without being told to, each with the end of its log.
    pub fn exits(&mut self) -> Vec<Exit> {
        let mut exits: Vec<Exit> = self.wire.unexpected_exit().into_iter().collect();
        exits.extend(self.routers.exits());
        for index in 0..self.sites.len() {
            exits.extend(self.site_exits(index));
        }
        exits
    }

    /// Frames on the links of a site are dropped, both ways.
    ///
    /// # Errors
    /// [`WorldError`] when there is no such site or the wire does not answer.
    pub fn cut_site(&mut self, site: &str) -> Result<Moment, WorldError> {
        self.set_cut(site, true)
    }

    /// The links of a site carry frames again.
    ///
    /// # Errors
    /// As [`World::cut_site`].
    pub fn restore_site(&mut self, site: &str) -> Result<Moment, WorldError> {
        self.set_cut(site, false)
    }

    fn set_cut(&self, site: &str, cut: bool) -> Result<Moment, WorldError> {
        let plan = self.plan.site(site).ok_or_else(|| WorldError::NoSite(site.into()))?;
        let moment = Moment::now();
        for link in &plan.links {
            self.ask_wire(&json!({"set": {"link": link, "cut": cut}}))?;
        }
        Ok(moment)
    }

    /// A network sends what goes to the service addresses by way of a neighbour, `None`: as BGP says. Its routers are not told.
    ///
    /// # Errors
    /// There is no such network or neighbour, or the kernel refuses.
    pub fn divert(&mut self, network: Asn, to: Option<Asn>) -> Result<Moment, WorldError> {
        let plan = self.plan.network(network).ok_or_else(|| WorldError::NoSite(format!("AS{network}")))?;
        let namespace = self.built.namespace(&plan.netns).ok_or_else(|| WorldError::NoSite(plan.netns.clone()))?;
        let what = || format!("routes of AS{network}");
        let mut netlink = Netlink::open_in(namespace).map_err(system(what()))?;
        let route = |address: IpAddr, gateway| Route {
            destination: IpNet::from(address),
            gateway,
            interface: None,
            protocol: RTPROT_STATIC,
            metric: None,
            blackhole: false,
            source: None,
        };
        let moment = Moment::now();
        for &address in &self.service.addresses {
            let is_way =
                |s: &&SessionPlan| Some(s.asn) == to && s.site.is_none() && s.remote.is_ipv4() == address.is_ipv4();
            let done = match plan.sessions.iter().find(is_way) {
                Some(session) => netlink.replace_route(&route(address, Some(session.remote))),
                None => netlink.delete_route(&route(address, None)).map(drop),
            };
            done.map_err(system(what()))?;
        }
        Ok(moment)
    }

    fn ask_wire(&self, question: &Value) -> Result<Value, WorldError> {
        control::request(&self.wire_socket, question, CONTROL_TIMEOUT)
            .map_err(|source| WorldError::Control { name: "wire".into(), source })
    }

    fn log(&self, name: &str) -> PathBuf {
        log_file(&self.options.directory, name)
    }
}

impl Drop for World {
    /// Stopped processes must go on to be killed in an orderly way; the rest is done by [`Process`].
    fn drop(&mut self) {
        for site in &mut self.sites {
            for process in site.processes() {
                process.expect_end();
                let _ = process.signal(Signal::Cont);
            }
        }
    }
}

/// A secret that only this rehearsal has: the service file's is of the real sites.
fn make_secret(file: &Path) -> io::Result<()> {
    let mut octets = [0_u8; 32];
    rustix::rand::getrandom(&mut octets, rustix::rand::GetRandomFlags::empty())?;
    let text: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    std::fs::File::options().write(true).create_new(true).mode(0o600).open(file)?.write_all(text.as_bytes())
}

/// Lets daemons look up the name of their machine, which is the site's: asking DNS for it would keep them waiting.
/// Only for the lab: in its own mount namespace.
fn name_sites(plan: &Plan, directory: &Path) -> io::Result<()> {
    let hosts = std::fs::read_to_string(HOSTS).ok().filter(|_| !plan.sites.is_empty());
    let Some(mut hosts) = hosts else { return Ok(()) };
    for site in &plan.sites {
        hosts.push_str(&format!("\n{OWN_NAME} {}", site.name));
    }
    let file = directory.join("hosts");
    std::fs::write(&file, hosts + "\n")?;
    Ok(rustix::mount::mount_bind(&file, HOSTS)?)
}

fn log_file(directory: &Path, name: &str) -> PathBuf {
    directory.join("log").join(format!("{name}.log"))
}

fn start_wire(plan: &Plan, built: &Built, options: &WorldOptions) -> Result<(Process, PathBuf), WorldError> {
    let socket = options.directory.join("wire.sock");
    let file = options.directory.join("wire.json");
    let spec = wire_spec(plan, &socket, options.seed);
    let text = serde_json::to_vec(&spec).map_err(|e| system("wire.json")(e.into()))?;
    std::fs::write(&file, text).map_err(system(file.display().to_string()))?;
    let namespace = built.namespace(WIRE).ok_or_else(|| WorldError::NoSite(WIRE.into()))?;
    let arguments = ["internal".into(), "wire".into(), file.display().to_string()];
    let log = log_file(&options.directory, "wire");
    let mut wire =
        Process::start("wire", &options.executable, &arguments, namespace, log.clone()).map_err(system("wire"))?;
    let answers = |wire: &mut Process| {
        wire.status().is_some() || control::request(&socket, &json!({"query": "status"}), CONTROL_TIMEOUT).is_ok()
    };
    if !child::wait_until(WIRE_TIMEOUT, || answers(&mut wire)) {
        return Err(timed_out("the wire does not answer", WIRE_TIMEOUT, &log));
    }
    match wire.unexpected_exit() {
        Some(exit) => Err(WorldError::Ended(exit)),
        None => Ok((wire, socket)),
    }
}

fn timed_out(what: impl Into<String>, waited: Duration, log: &Path) -> WorldError {
    let log = child::tail(log);
    let log = if log.is_empty() { log } else { format!("\n{log}") };
    WorldError::TimedOut { what: what.into(), seconds: waited.as_secs(), log }
}
