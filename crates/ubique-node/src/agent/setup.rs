//! From a service file to a running agent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use ubique_model::service::{GracefulRestart, NextHop, Role, Service, Site as SiteSpec, Upstream};
use ubique_proto::bgp::message;
use ubique_proto::bgp::speaker::{GracefulRestartConfig, NextHopConfig, PeerConfig, SpeakerConfig};
use ubique_proto::health::CheckConfig;
use ubique_proto::journal::Recorded;
use ubique_proto::site::SiteConfig;
use ubique_sys::netlink::AddressMonitor;
use ubique_sys::sockdiag::DestroyMonitor;

use super::addresses::Addresses;
use super::detect::{self, Detected, Server, Subject};
use super::site::{Agent, Parts};
use super::{AgentError, AgentOptions, Request, http, system};
use crate::admin;
use crate::bgp::{Driver, DriverConfig, DriverError, Endpoint, Secret, Tap};
use crate::checks::{PollResult, Runner};
use crate::clock::now;
use crate::journal::Journal;
use crate::monitor::Monitor;
use crate::random::seed;

/// ConnectRetryTimer of an agent: an upstream that comes back shall see us soon.
const CONNECT_RETRY: Duration = Duration::from_secs(1);

/// TTL of an internal session, which may cross the site's own routers.
const INTERNAL_TTL: u8 = 64;

/// TTL of an external session on a common link (RFC 4271 §5.1.3 assumes one).
const EXTERNAL_TTL: u8 = 1;

/// Builds the agent with its cores, tasks of checks, and detectors. Must be called on the runtime.
pub(super) fn agent(
    service: Service,
    site: &str,
    options: &AgentOptions,
    results: mpsc::Sender<PollResult>,
    events: &mpsc::Sender<Detected>,
) -> Result<Agent, AgentError> {
    let place = service.sites.iter().position(|s| s.name == site);
    let index = place.ok_or_else(|| AgentError::NoSuchSite(site.to_owned()))?;
    let spec = &service.sites[index];
    let mut runners = Vec::new();
    for (number, check) in service.checks.iter().enumerate() {
        runners.push(Runner::start(number, &check.name, &check.kind, results.clone())?);
    }
    let journal = service.agent.records.journal.as_ref();
    let journal = journal.map(|settings| Journal::start(settings, &options.version, &service.name, site));
    let journal = journal.transpose().map_err(system("start the journal"))?;
    let monitor = Monitor::start(&service, site, &options.version).map_err(system("start the MRT files"))?.map(Rc::new);
    let bgp = speaker(&service, spec, index, options.listen, (&journal, &monitor))?;
    let checks: Vec<CheckConfig> = service.checks.iter().map(check_config).collect();
    let health = Recorded::new(now(), (checks, seed()), journal.clone());
    let site_config = SiteConfig { drain: service.agent.drain, graceful_shutdown: service.agent.graceful_shutdown };
    let core = Recorded::new(now(), site_config, journal.clone());
    let addresses = Addresses::new(&service.addresses).map_err(AgentError::Addresses)?;
    let resolve = detectors(&service, events)?;
    let parts = Parts { bgp, health, core, addresses, runners, resolve, journal, monitor };
    Ok(Agent::new(service, index, options.version.clone(), parts))
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

fn speaker(
    service: &Service,
    site: &SiteSpec,
    index: usize,
    listen: Option<u16>,
    (journal, monitor): (&Option<Journal>, &Option<Rc<Monitor>>),
) -> Result<Driver, AgentError> {
    let endpoints: Vec<Endpoint> = site.upstreams.iter().map(|u| endpoint(service, u)).collect::<Result<_, _>>()?;
    let speaker = SpeakerConfig {
        peers: site.upstreams.iter().map(peer).collect(),
        scope: Some(service.prefixes.clone()),
        ..SpeakerConfig::new(service.asn, router_id(site, index), seed())
    };
    let config = |listen| DriverConfig {
        speaker: speaker.clone(),
        endpoints: endpoints.clone(),
        place: None,
        listen,
        journal: journal.clone(),
        tap: monitor.clone().map(|monitor| monitor as Rc<dyn Tap>),
    };
    match Driver::new(config(listen)) {
        // Another BGP speaker on this machine, or no right to the port: sessions we open ourselves suffice.
        Err(DriverError::Listen { port, family, source }) => {
            tracing::warn!(port, %family, error = %source, "cannot listen for BGP connections: only connecting");
            Ok(Driver::new(config(None))?)
        }
        Ok(driver) => Ok(driver),
    }
}

fn peer(upstream: &Upstream) -> PeerConfig {
    let restart = |r: GracefulRestart| GracefulRestartConfig { restart_time: r.restart_time, long_lived: r.long_lived };
    let NextHop { ipv4, ipv6 } = upstream.next_hop;
    PeerConfig {
        families: upstream.families.iter().copied().collect(),
        passive: upstream.passive,
        hold_time: upstream.hold_time,
        connect_retry: CONNECT_RETRY,
        keep: upstream.keep_routes as usize,
        max_prefix: upstream.max_prefix,
        role: upstream.role.map(role),
        strict_role: upstream.strict_role,
        graceful_restart: upstream.graceful_restart.map(restart),
        add_path: upstream.add_path,
        extended_next_hop: upstream.extended_next_hop,
        route_reflector_client: upstream.route_reflector_client,
        next_hop: NextHopConfig { ipv4, ipv6, unchanged: upstream.next_hop_unchanged },
        ..PeerConfig::new(upstream.address, upstream.asn, upstream.relation)
    }
}

fn role(role: Role) -> message::Role {
    match role {
        Role::Provider => message::Role::Provider,
        Role::Rs => message::Role::RouteServer,
        Role::RsClient => message::Role::RouteServerClient,
        Role::Customer => message::Role::Customer,
        Role::Peer => message::Role::Peer,
    }
}

fn endpoint(service: &Service, upstream: &Upstream) -> Result<Endpoint, AgentError> {
    let external = upstream.multihop.unwrap_or(EXTERNAL_TTL);
    Ok(Endpoint {
        remote: upstream.address,
        port: upstream.port,
        local: upstream.local_address,
        ttl: if upstream.asn == service.asn { INTERNAL_TTL } else { external },
        secret: upstream.password_file.as_deref().map(Secret::read).transpose()?,
        user_timeout: upstream.hold_time,
    })
}

/// The BGP identifier: as stated, or our first IPv4 address towards an upstream, or made from the site's index
/// (RFC 6286: any number but 0 that is unique in the AS).
fn router_id(site: &SiteSpec, index: usize) -> Ipv4Addr {
    let towards = |u: &Upstream| match (u.local_address, u.address) {
        (Some(IpAddr::V4(local)), _) => Some(local),
        (None, IpAddr::V4(remote)) => local_towards(SocketAddr::new(remote.into(), u.port)),
        _ => None,
    };
    site.router_id.or_else(|| site.upstreams.iter().find_map(towards)).unwrap_or_else(|| {
        let number = u32::try_from(index).unwrap_or(u32::MAX - 1).saturating_add(1);
        Ipv4Addr::from(number)
    })
}

/// The source address of the kernel's route; no packet is sent.
fn local_towards(remote: SocketAddr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(remote).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(local) if !local.is_unspecified() => Some(local),
        _ => None,
    }
}

/// Starts the detectors; returns for each check what makes its processes be looked for again.
fn detectors(service: &Service, events: &mpsc::Sender<Detected>) -> Result<Vec<Option<Arc<Notify>>>, AgentError> {
    let monitor = AddressMonitor::open().map_err(system("watch addresses"))?;
    let out = events.clone();
    tokio::task::spawn_local(async move {
        if let Err(error) = detect::addresses(monitor, out).await {
            tracing::error!(%error, "addresses are not watched any more");
        }
    });
    let mut servers = Vec::new();
    let mut resolve = Vec::new();
    for (number, check) in service.checks.iter().enumerate() {
        let server = Server::of(number, &check.kind, &service.addresses);
        servers.extend(server.clone());
        resolve.push(Subject::of(&check.kind, server).map(|subject| {
            let notify = Arc::new(Notify::new());
            let watch = detect::processes(number, subject, notify.clone(), events.clone());
            tokio::task::spawn_local(watch);
            notify
        }));
    }
    if !servers.is_empty() {
        sockets(servers, events.clone());
    }
    Ok(resolve)
}

fn sockets(servers: Vec<Server>, out: mpsc::Sender<Detected>) {
    match DestroyMonitor::open() {
        Ok(monitor) => {
            tokio::task::spawn_local(async move {
                if let Err(error) = detect::sockets(monitor, servers, out).await {
                    tracing::error!(%error, "sockets are not watched any more: polls and processes only");
                }
            });
        }
        Err(error) => {
            tracing::warn!(%error, "socket events are not permitted here: polls and processes only");
        }
    }
}

/// Opens the admin socket and the metrics endpoint.
pub(super) fn interfaces(
    service: &Service,
    site: &str,
    options: &AgentOptions,
    requests: mpsc::Sender<Request>,
) -> Result<(), AgentError> {
    let template = &service.agent.socket;
    let path = options.socket.clone().unwrap_or_else(|| admin::socket_path(template, &service.name, site));
    let socket = admin::bind(&path)?;
    if let Some(address) = options.metrics.or(service.agent.metrics) {
        let listener = http::bind(address)?;
        tokio::task::spawn_local(http::serve(listener, requests.clone()));
    }
    let answer = move |line: String| {
        let requests = requests.clone();
        async move { answer(&line, requests).await.unwrap_or_else(|error| admin::error_line(&error)) }
    };
    tokio::task::spawn_local(admin::serve(socket, answer));
    Ok(())
}

async fn answer(line: &str, requests: mpsc::Sender<Request>) -> Result<String, String> {
    let request: admin::Request =
        serde_json::from_str(line).map_err(|e| format!("the request cannot be understood: {e}"))?;
    match request {
        admin::Request::Status => {
            let status = ask(&requests, Request::Status).await?;
            serde_json::to_string(&status).map_err(|e| e.to_string())
        }
        admin::Request::Drain { reason } => done(ask(&requests, |reply| Request::Drain { reason, reply }).await?),
        admin::Request::Undrain { reason } => done(ask(&requests, |reply| Request::Undrain { reason, reply }).await?),
    }
}

fn done(end: Result<(), String>) -> Result<String, String> {
    end.map(|()| r#"{"ok":true}"#.to_owned())
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
