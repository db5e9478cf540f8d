//! From a service file to a running agent.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;
use ubique_model::service::Service;
use ubique_proto::health::CheckConfig;
use ubique_proto::journal::Recorded;
use ubique_proto::site::SiteConfig;
use ubique_sys::netlink::AddressMonitor;
use ubique_sys::sockdiag::DestroyMonitor;

use super::addresses::Addresses;
use super::bfd::Starter;
use super::detect::{self, Detected, Server, Subject};
use super::keep::Remembered;
use super::reload::Reloader;
use super::restart::Restart;
use super::site::{Agent, Inputs, Parts};
use super::upgrade::Upgrader;
use super::{AgentError, AgentOptions, Request, http, neighbours, system};
use crate::admin;
use crate::checks::{CheckError, PollResult, Runner};
use crate::clock::now;
use crate::journal::Journal;
use crate::monitor::Monitor;
use crate::random::seed;
use crate::state::{Keeper, Receipt};

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
        runners.push(Runner::start(number, &check.name, &check.kind, results.clone())?);
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
    let checks: Vec<CheckConfig> = service.checks.iter().map(check_config).collect();
    let health = Recorded::new(now(), (checks, seed()), journal.clone());
    let site_config = SiteConfig { drain: service.agent.drain, graceful_shutdown: service.agent.graceful_shutdown };
    let core = Recorded::new(now(), site_config, journal.clone());
    let kept = admin::socket_path(&service.agent.state, &service.name, site);
    let (keeper, kept) = Keeper::start(kept, &service.name, site);
    let memory = Remembered { keeper, kept };
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

fn check_config(check: &ubique_model::check::Check) -> CheckConfig {
    CheckConfig {
        name: check.name.clone(),
        every: check.every,
        timeout: check.timeout,
        fall: check.fall,
        rise: check.rise,
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
        let server = Server::of(number, &check.kind, &service.addresses);
        servers.extend(server.clone());
        resolve.push(Subject::of(&check.kind, server).map(|subject| {
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

/// Opens the admin socket and the metrics endpoint.
pub(super) fn interfaces(
    service: &Service,
    site: &str,
    options: &AgentOptions,
    (requests, reloader, upgrader): (mpsc::Sender<Request>, &Reloader, &Upgrader),
) -> Result<(), AgentError> {
    let change = (reloader.clone(), upgrader.clone());
    let template = &service.agent.socket;
    let path = options.socket.clone().unwrap_or_else(|| admin::socket_path(template, &service.name, site));
    let socket = admin::bind(&path)?;
    if let Some(address) = options.metrics.or(service.agent.metrics) {
        let listener = http::bind(address)?;
        tokio::task::spawn_local(http::serve(listener, requests.clone()));
    }
    let answer = move |line: String| {
        let (requests, change) = (requests.clone(), change.clone());
        async move { answer(&line, requests, change).await.unwrap_or_else(|error| admin::error_line(&error)) }
    };
    tokio::task::spawn_local(admin::serve(socket, answer));
    Ok(())
}

async fn answer(
    line: &str,
    requests: mpsc::Sender<Request>,
    (reloader, upgrader): (Reloader, Upgrader),
) -> Result<String, String> {
    let request: admin::Request =
        serde_json::from_str(line).map_err(|e| format!("the request cannot be understood: {e}"))?;
    match request {
        admin::Request::Status => {
            let status = ask(&requests, Request::Status).await?;
            serde_json::to_string(&status).map_err(|e| e.to_string())
        }
        admin::Request::Routes(which) => {
            let page = ask(&requests, |reply| Request::Routes { which, reply }).await??;
            serde_json::to_string(&page).map_err(|e| e.to_string())
        }
        admin::Request::Reload(how) => {
            let reply = reloader.reload(how, "admin socket".to_owned()).await;
            serde_json::to_string(&reply).map_err(|e| e.to_string())
        }
        admin::Request::Upgrade(how) => {
            let reply = upgrader.upgrade(how, "admin socket".to_owned()).await;
            serde_json::to_string(&reply).map_err(|e| e.to_string())
        }
        admin::Request::Drain { reason } => done(ask(&requests, |reply| Request::Drain { reason, reply }).await?).await,
        admin::Request::Undrain { reason } => {
            done(ask(&requests, |reply| Request::Undrain { reason, reply }).await?).await
        }
    }
}

/// It is done; whether it survives a restart is said when the disk has answered.
async fn done(end: Result<Receipt, String>) -> Result<String, String> {
    let warning = match end?.kept().await {
        Ok(()) => return Ok(r#"{"ok":true}"#.to_owned()),
        Err(why) => format!("done, but will not survive a restart because {why}"),
    };
    Ok(serde_json::json!({ "ok": true, "warning": warning }).to_string())
}

/// Asks the loop and waits for its answer.
async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, String> {
    let ending = |()| "the agent is ending".to_owned();
    let (reply, answer) = oneshot::channel();
    requests.send(request(reply)).await.map_err(|_| ending(()))?;
    answer.await.map_err(|_| ending(()))
}
