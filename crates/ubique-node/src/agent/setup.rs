//! From a service file to a running agent.

use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use ubique_model::check::{Check, CheckKind, Counts};
use ubique_model::service::{ApiSettings, Service};
use ubique_proto::health::{CheckConfig, GroupConfig, Role};
use ubique_proto::journal::Recorded;
use ubique_proto::site::{Memory, SiteConfig};
use ubique_sys::netlink::AddressMonitor;
use ubique_sys::sockdiag::DestroyMonitor;

use super::addresses::Addresses;
use super::bfd::Starter;
use super::detect::{self, Detected, Server, Subject};
use super::keep::{Remembered, watch_clock};
use super::requests::Desk;
use super::restart::Restart;
use super::site::{Agent, Inputs, Parts};
use super::{AgentError, AgentOptions, http, neighbours, system};
use crate::admin::{self, Access, Caller};
use crate::checks::{self, CheckError, PollResult, Runner};
use crate::clock::now;
use crate::journal::Journal;
use crate::monitor::Monitor;
use crate::random::seed;
use crate::sessions::path_beside;

/// The polls and detectors of a list of checks.
pub(super) struct Watched {
    pub runners: Vec<Runner>,
    /// For each check: look for its processes (again).
    pub resolve: Vec<Option<Arc<Notify>>>,
    /// The tasks of the detectors end with it.
    _tasks: Vec<Task>,
}

/// A task that ends when it is dropped.
pub(super) struct Task(AbortHandle);

impl Task {
    /// Must be called on the runtime.
    pub(super) fn spawn(task: impl Future<Output = ()> + 'static) -> Task {
        Task(tokio::task::spawn_local(task).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts the polls and detectors of the checks of a service.
pub(super) fn watch(
    service: &Service,
    results: &mpsc::Sender<PollResult>,
    events: &mpsc::Sender<Detected>,
) -> Result<Watched, CheckError> {
    let mut runners = Vec::new();
    for (number, check) in service.checks.iter().enumerate() {
        runners.push(Runner::start(number, &check.name, &check.kind, &service.addresses, results.clone())?);
    }
    let (resolve, tasks) = detectors(service, events);
    Ok(Watched { runners, resolve, _tasks: tasks })
}

/// Builds the agent with its cores, tasks of checks, and detectors. Must be called on the runtime.
pub(super) fn agent(
    service: Service,
    site: &str,
    options: &AgentOptions,
    inputs: Inputs,
    bfd_starter: Starter,
) -> Result<Agent, AgentError> {
    let place = service.sites.iter().position(|s| s.name == site);
    let index = place.ok_or_else(|| AgentError::NoSuchSite(site.to_owned()))?;
    let spec = &service.sites[index];
    let watched = watch(&service, &inputs.results, &inputs.events)?;
    watch_addresses(&inputs.events)?;
    watch_clock(inputs.requests.clone());
    let mut addresses = Addresses::new(&service.addresses).map_err(AgentError::Addresses)?;
    let present = addresses.present().map_err(AgentError::Addresses)?;
    let restart = Restart::new(spec, state_path(&service, site, options), addresses.all(), &present);
    addresses.inherit(restart.added(), &present);
    let journal = service.agent.records.journal.as_ref();
    let journal = journal.map(|settings| Journal::start(settings, &options.version, &service.name, site));
    let journal = journal.transpose().map_err(system("start the journal"))?;
    let monitor = Monitor::start(&service, site, &options.version).map_err(system("start the MRT files"))?.map(Rc::new);
    let records = (&journal, &monitor);
    let (bgp, unarmed) = neighbours::speaker(&service, spec, index, options.listen, restart.restarted(), records)?;
    let (checks, groups) = health_config(&service);
    let health = Recorded::new(now(), (checks, groups, seed()), journal.clone());
    let kept = admin::socket_path(&service.agent.state, &service.name, site);
    let memory = Remembered::start(kept, &service.name, site);
    let former = memory.site(&service);
    // Neighbours that kept our routes have seen no withdrawal.
    let announced = former.announced && restart.restarted().is_none();
    let site_config = SiteConfig::of(&service, spec, Memory { announced, ..former });
    let core = Recorded::new(now(), site_config, journal.clone());
    let parts = Parts {
        bgp,
        health,
        core,
        addresses,
        restart,
        watched,
        inputs,
        unarmed,
        memory,
        bfd_starter,
        sessions_life: path_beside(&state_path(&service, site, options)),
        journal,
        monitor,
    };
    Ok(Agent::new(service, index, options.version.clone(), parts))
}

/// Where the agent remembers what a restart needs: beside its admin socket.
fn state_path(service: &Service, site: &str, options: &AgentOptions) -> PathBuf {
    let template = options.socket.as_ref().unwrap_or(&service.agent.socket);
    admin::socket_path(template, &service.name, site).with_extension("state")
}

/// The checks and groups of a service, as the health core takes them.
pub(super) fn health_config(service: &Service) -> (Vec<CheckConfig>, Vec<GroupConfig>) {
    let group = |group: &ubique_model::check::Group| GroupConfig {
        name: group.name.clone(),
        healthy: group.healthy,
        degraded: group.degraded,
    };
    let check = |check| check_config(check, &service.addresses);
    (service.checks.iter().map(check).collect(), service.groups.iter().map(group).collect())
}

fn check_config(check: &Check, addresses: &[IpAddr]) -> CheckConfig {
    let role = match (&check.kind, &check.counts) {
        (CheckKind::Load { metric, high, low }, _) => {
            let thousandths = |amount: u64| amount.saturating_mul(1000);
            Role::Load { high: thousandths(*high), low: thousandths(*low), unit: metric.unit().to_owned() }
        }
        (_, Counts::Alone(level)) => Role::Alone(*level),
        (_, Counts::Member { group, weight }) => Role::Member { group: group.clone(), weight: *weight },
    };
    // Thresholds of load are terms of the test, not the test.
    let what = match &check.kind {
        CheckKind::Load { metric, .. } => serde_json::to_string(metric),
        kind => serde_json::to_string(kind),
    };
    // `service:53` is another test once the service has other addresses.
    let servers: Vec<String> = checks::servers(&check.kind, addresses).iter().map(|(s, _)| s.to_string()).collect();
    CheckConfig {
        name: check.name.clone(),
        what: format!("{} {}", what.unwrap_or_default(), servers.join(" ")),
        every: check.every,
        timeout: check.timeout,
        retry: check.retry,
        latency: check.latency,
        fall: check.fall,
        rise: check.rise,
        role,
    }
}

/// Watches the addresses of this machine for as long as the agent runs.
fn watch_addresses(events: &mpsc::Sender<Detected>) -> Result<(), AgentError> {
    let monitor = AddressMonitor::open().map_err(system("watch addresses"))?;
    let out = events.clone();
    tokio::task::spawn_local(async move {
        if let Err(error) = detect::addresses(monitor, out).await {
            tracing::error!(%error, "addresses are not watched any more");
        }
    });
    Ok(())
}

/// Starts the detectors; returns for each check what makes its processes be looked for again.
fn detectors(service: &Service, events: &mpsc::Sender<Detected>) -> (Vec<Option<Arc<Notify>>>, Vec<Task>) {
    let mut servers = Vec::new();
    let mut resolve = Vec::new();
    let mut tasks = Vec::new();
    for (number, check) in service.checks.iter().enumerate() {
        let local = Server::of(number, &check.kind, &service.addresses);
        servers.extend(local.iter().cloned());
        resolve.push(Subject::of(&check.kind, local).map(|subject| {
            let notify = Arc::new(Notify::new());
            tasks.push(Task::spawn(detect::processes(number, subject, notify.clone(), events.clone())));
            notify
        }));
    }
    if !servers.is_empty() {
        tasks.extend(sockets(servers, events.clone()));
    }
    (resolve, tasks)
}

fn sockets(servers: Vec<Server>, out: mpsc::Sender<Detected>) -> Option<Task> {
    match DestroyMonitor::open() {
        Ok(monitor) => Some(Task::spawn(async move {
            if let Err(error) = detect::sockets(monitor, servers, out).await {
                tracing::error!(%error, "sockets are not watched any more: polls and processes only");
            }
        })),
        Err(error) => {
            tracing::warn!(%error, "socket events are not permitted here: polls and processes only");
            None
        }
    }
}

/// Opens the admin socket. Refused while another agent of the site lives.
pub(super) fn socket(service: &Service, site: &str, options: &AgentOptions) -> Result<admin::Bound, AgentError> {
    let template = &service.agent.socket;
    let path = options.socket.clone().unwrap_or_else(|| admin::socket_path(template, &service.name, site));
    let settings = &service.agent.admin;
    let access = Access::new(settings.mode, settings.group.as_deref());
    Ok(admin::bind(&path, access)?)
}

/// Answers at the admin socket and opens the metrics endpoint.
pub(super) fn interfaces(
    service: &Service,
    options: &AgentOptions,
    socket: admin::Bound,
    desk: &Desk,
) -> Result<(), AgentError> {
    if let Some(address) = options.metrics.or(service.agent.metrics) {
        let listener = http::bind(address)?;
        tokio::task::spawn_local(http::serve(listener, desk.requests.clone()));
    }
    api(service.agent.admin.api.as_ref(), desk);
    let desk = desk.clone();
    let answer = move |line: String, caller: Rc<Caller>| {
        let desk = desk.clone();
        async move {
            let answer = desk.answer(&line, &caller).await;
            answer.unwrap_or_else(|refusal| refusal.line())
        }
    };
    tokio::task::spawn_local(admin::serve(socket, answer));
    Ok(())
}

/// Serves the same requests over HTTPS.
#[cfg(feature = "tls")]
fn api(settings: Option<&ApiSettings>, desk: &Desk) {
    let Some(settings) = settings else { return };
    let desk = desk.clone();
    let answer = move |line: String, caller: Rc<Caller>| {
        let desk = desk.clone();
        async move { desk.answer(&line, &caller).await }
    };
    tokio::task::spawn_local(crate::api::serve(settings.clone(), answer));
}

#[cfg(not(feature = "tls"))]
fn api(settings: Option<&ApiSettings>, _: &Desk) {
    if settings.is_some() {
        tracing::error!("this program was built without TLS: [agent.api] does nothing");
    }
}
