//! FRR: zebra and bgpd for each network, and bfdd where a site has BFD.
//!
//! As with BIRD, the configuration states the policy of the embedded routers and the same tie-breaks. Questions go to
//! bgpd's own terminal socket. zebra changes to its own user and groups, which an ordinary user's namespace forbids:
//! FRR networks need root.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;
use ubique_model::service::Bfd;
use ubique_model::{Asn, Family, Prefix, Relation, policy};
use ubique_proto::bgp::attributes::Origin;

use super::bird::secret;
use super::table::{self, Quiet, Shown};
use super::{
    Backend, Candidate, Launch, QUERY_TIMEOUT, RoutersError, START_TIMEOUT, Status, find_program, graceful_preference,
    start_failed,
};
use crate::build::Built;
use crate::child::{self, Process};
use crate::plan::{NetworkPlan, Plan, SessionPlan};

const PLACES: [&str; 3] = ["/usr/lib/frr", "/usr/libexec/frr", "/usr/local/sbin"];
/// The user zebra and bgpd run as.
const USER: &str = "frr";
/// Where zebra leaves crash logs when it is killed; covered so that nothing of it stays on the machine.
const CRASH_LOGS: &str = "/var/tmp";
/// Most bytes of an answer that are kept.
const MAX_ANSWER: usize = 4 << 20;
/// Interval of connection attempts, s.
const CONNECT_RETRY_S: u32 = 1;

pub(super) struct Frrs {
    plan: Plan,
    /// All zebras, then all bgpds.
    processes: Vec<Process>,
    terminals: Vec<PathBuf>,
    quiet: Quiet,
}

impl Frrs {
    pub(super) fn start(plan: &Plan, built: &Built, launch: &Launch) -> Result<Frrs, RoutersError> {
        let zebra = find_program("zebra", &PLACES, "frr")?;
        let bgpd = find_program("bgpd", &PLACES, "frr")?;
        let (uid, gid) = owner()?;
        cover_crash_logs()?;
        let mut frrs = Frrs { plan: plan.clone(), processes: Vec::new(), terminals: Vec::new(), quiet: Quiet::new() };
        for network in &plan.networks {
            let directory = launch.directory.join("frr").join(&network.netns);
            let make = || {
                std::fs::create_dir_all(&directory)?;
                for daemon in ["zebra", "bfdd"] {
                    let name = format!("{daemon}.conf");
                    std::fs::write(directory.join(name), format!("hostname {}\n", network.netns))?;
                }
                std::os::unix::fs::chown(&directory, Some(uid), Some(gid))
            };
            make().map_err(start_failed(directory.display().to_string()))?;
            let file = directory.join("bgpd.conf");
            std::fs::write(&file, configuration(network)?).map_err(start_failed(file.display().to_string()))?;
            frrs.terminals.push(directory.join("bgpd.vty"));
        }
        frrs.start_all(built, launch, &zebra, "zserv.api")?;
        if plan.networks.iter().flat_map(|n| &n.sessions).any(|s| s.bfd.is_some()) {
            let bfdd = find_program("bfdd", &PLACES, "frr")?;
            frrs.start_all(built, launch, &bfdd, "bfdd.vty")?;
        }
        frrs.start_all(built, launch, &bgpd, "bgpd.vty")?;
        Ok(frrs)
    }

    /// Starts a daemon for every network, then waits until each has made its socket.
    fn start_all(&mut self, built: &Built, launch: &Launch, program: &Path, socket: &str) -> Result<(), RoutersError> {
        let daemon = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let first = self.processes.len();
        for network in &self.plan.networks {
            let directory = launch.directory.join("frr").join(&network.netns);
            let path = |file: &str| directory.join(file).display().to_string();
            let arguments: Vec<String> =
                ["-f", &path(&format!("{daemon}.conf")), "-i", &path(&format!("{daemon}.pid"))]
                    .into_iter()
                    .chain(["-z", &path("zserv.api"), "--vty_socket", &path(""), "-P", "0", "--log", "stdout"])
                    .map(str::to_owned)
                    // Elsewhere all bfdds would share one.
                    .chain((daemon == "bfdd").then(|| format!("--bfdctl={}", path("bfdd.sock"))))
                    .collect();
            let namespace = built.namespace(&network.netns).ok_or(RoutersError::NoNetwork(network.asn))?;
            let log = launch.logs.join(format!("{daemon}-{}.log", network.netns));
            let name = format!("FRR {daemon} of AS{}", network.asn);
            self.processes
                .push(Process::start(name, program, &arguments, namespace, log).map_err(start_failed(daemon.clone()))?);
        }
        for (process, network) in self.processes[first..].iter_mut().zip(&self.plan.networks) {
            let socket = launch.directory.join("frr").join(&network.netns).join(socket);
            let ready = || process.status().is_some() || UnixStream::connect(&socket).is_ok();
            if !child::wait_until(START_TIMEOUT, ready) {
                let log = child::tail(&launch.logs.join(format!("{daemon}-{}.log", network.netns)));
                return Err(RoutersError::NotReady { name: process.name().to_owned(), log: format!("\n{log}") });
            }
            if let Some(exit) = process.unexpected_exit() {
                return Err(RoutersError::Ended(exit));
            }
        }
        Ok(())
    }

    fn query(&self, index: usize, question: &str) -> Result<Value, RoutersError> {
        let name = || format!("FRR bgpd of AS{}", self.plan.networks[index].asn);
        let text = ask(&self.terminals[index], question)
            .map_err(|e| RoutersError::Query { name: name(), source: e.into() })?;
        serde_json::from_str(&text)
            .map_err(|_| RoutersError::Answer { name: name(), answer: text.chars().take(200).collect() })
    }

    pub(super) fn status(&mut self) -> Result<Status, RoutersError> {
        let mut status = Status { established: 0, sessions: 0, quiet_ms: 0 };
        let mut fingerprint = 0u64;
        for index in 0..self.plan.networks.len() {
            status.sessions += self.plan.networks[index].sessions.len();
            let summary = self.query(index, "show bgp summary json")?;
            for family in summary.as_object().into_iter().flat_map(|s| s.values()) {
                for (address, peer) in family["peers"].as_object().into_iter().flatten() {
                    let state = peer["state"].as_str().unwrap_or_default();
                    status.established += usize::from(state == "Established");
                    let line = format!("{index} {address} {state} {} {}", peer["pfxRcd"], peer["pfxSnt"]);
                    fingerprint = table::fnv(fingerprint, line.as_bytes());
                }
                fingerprint = table::fnv(fingerprint, family["tableVersion"].to_string().as_bytes());
            }
        }
        status.quiet_ms = self.quiet.observe(fingerprint).as_millis() as u64;
        Ok(status)
    }

    pub(super) fn candidates(&mut self, asn: Asn, prefix: Prefix) -> Result<Vec<Candidate>, RoutersError> {
        let index = table::index_of(&self.plan, asn).ok_or(RoutersError::NoNetwork(asn))?;
        let routes = self.query(index, &format!("show bgp {} unicast {prefix} json", Family::of(&prefix)))?;
        let shown: Vec<Shown> = routes["paths"].as_array().into_iter().flatten().map(parse_route).collect();
        Ok(table::candidates(&self.plan.networks[index], &shown))
    }

    pub(super) fn processes(&mut self) -> &mut [Process] {
        &mut self.processes
    }
}

/// User and group id of FRR's user.
fn owner() -> Result<(u32, u32), RoutersError> {
    let unsupported = |reason: String| RoutersError::Unsupported { backend: Backend::Frr, reason };
    if !maps_all_users() {
        let reason = "zebra changes its groups, which the namespace of an ordinary user forbids; run as root, \
                      or rehearse with --routers bird";
        return Err(unsupported(reason.into()));
    }
    let users = std::fs::read_to_string("/etc/passwd").map_err(start_failed("/etc/passwd"))?;
    let find = || {
        let line = users.lines().find(|l| l.split(':').next() == Some(USER))?;
        let mut fields = line.split(':').skip(2).map(str::parse);
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    };
    find().ok_or_else(|| unsupported(format!("there is no user {USER} on this machine")))
}

/// Whether this user namespace knows users beside root.
fn maps_all_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2).and_then(|n| n.parse::<u64>().ok()).is_some_and(|count| count > 1)
}

/// An empty directory over the one zebra writes to, in the lab's own mount namespace.
fn cover_crash_logs() -> Result<(), RoutersError> {
    use rustix::mount::{MountFlags, mount};
    if !Path::new(CRASH_LOGS).is_dir() {
        return Ok(());
    }
    mount("tmpfs", CRASH_LOGS, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, c"mode=1777")
        .map_err(|e| start_failed(CRASH_LOGS)(e.into()))
}

/// The configuration of a network's bgpd.
fn configuration(network: &NetworkPlan) -> Result<String, RoutersError> {
    let customer = policy::local_preference(Relation::Customer);
    // Before whatever uses them: a change of one in use takes effect seconds later. Our own routes are exported as a
    // customer's are.
    let graceful = graceful_preference(Relation::Customer);
    let mut text = format!(
        "hostname {}\nbgp community-list standard graceful permit graceful-shutdown\n\
         route-map own permit 10\n set local-preference {customer}\nexit\nroute-map to-customers permit 10\nexit\n\
         route-map to-others permit 10\n match local-preference {customer}\nexit\n\
         route-map to-others permit 20\n match local-preference {graceful}\nexit\n",
        network.netns
    );
    let relations = [Relation::Transit, Relation::Peer, Relation::RouteServer, Relation::Internal, Relation::Customer];
    for relation in relations {
        let preference = policy::local_preference(relation);
        let graceful = graceful_preference(relation);
        let _ = write!(
            text,
            "route-map from-{relation} permit 5\n match community graceful\n set local-preference {graceful}\nexit\n\
             route-map from-{relation} permit 10\n set local-preference {preference}\nexit\n"
        );
    }
    let _ = write!(
        text,
        "router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n \
         no bgp network import-check\n bgp bestpath compare-routerid\n bgp deterministic-med\n bgp graceful-restart-disable\n",
        network.asn, network.router_id
    );
    for session in &network.sessions {
        text.push_str(&session_configuration(session)?);
    }
    for family in Family::ALL {
        let _ = writeln!(text, " address-family {family} unicast\n  maximum-paths 1");
        for prefix in network.originate.iter().filter(|p| Family::of(p) == family) {
            let _ = writeln!(text, "  network {prefix} route-map own");
        }
        for s in network.sessions.iter().filter(|s| Family::of_address(s.remote) == family) {
            let peer = s.remote;
            let export = if policy::exports(Some(Relation::Peer), s.relation) { "to-customers" } else { "to-others" };
            let _ = writeln!(
                text,
                "  neighbor {peer} activate\n  neighbor {peer} next-hop-self\n  \
                 neighbor {peer} route-map from-{} in\n  neighbor {peer} route-map {export} out",
                s.relation
            );
        }
        text.push_str(" exit-address-family\n");
    }
    Ok(text)
}

fn session_configuration(session: &SessionPlan) -> Result<String, RoutersError> {
    let SessionPlan { remote, asn, local, .. } = session;
    let hold = session.hold_time.as_secs();
    let keepalive = if hold == 0 { 0 } else { (hold / 3).max(1) };
    let mut text = format!(
        " neighbor {remote} remote-as {asn}\n neighbor {remote} update-source {local}\n \
         neighbor {remote} timers {keepalive} {hold}\n neighbor {remote} timers connect {CONNECT_RETRY_S}\n \
         neighbor {remote} advertisement-interval 0\n"
    );
    if session.passive {
        let _ = writeln!(text, " neighbor {remote} passive");
    }
    match session.bfd {
        Some(bfd) if bfd == Bfd::default() => _ = writeln!(text, " neighbor {remote} bfd"),
        Some(Bfd { interval, receive, multiplier }) => {
            let (receive, send) = (interval.as_millis(), receive.as_millis());
            let _ = writeln!(text, " neighbor {remote} bfd {multiplier} {receive} {send}");
        }
        None => {}
    }
    if let Some(file) = &session.password_file {
        let _ = writeln!(text, " neighbor {remote} password {}", secret(file)?);
    }
    Ok(text)
}

/// Asks a daemon over its terminal socket: a NUL ends the question, three NULs and a status end the answer.
fn ask(socket: &Path, question: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(QUERY_TIMEOUT))?;
    let mut answer = String::new();
    for line in ["enable", question] {
        stream.write_all(format!("{line}\0").as_bytes())?;
        let mut bytes = Vec::new();
        let mut buffer = [0u8; 16 << 10];
        while !(bytes.len() >= 4 && bytes[bytes.len() - 4..bytes.len() - 1] == [0, 0, 0]) {
            let read = stream.read(&mut buffer)?;
            if read == 0 || bytes.len() > MAX_ANSWER {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&buffer[..read]);
        }
        bytes.truncate(bytes.len() - 4);
        answer = String::from_utf8_lossy(&bytes).into_owned();
    }
    Ok(answer)
}

fn parse_route(path: &Value) -> Shown {
    let peer: Option<IpAddr> = path["peer"]["peerId"].as_str().and_then(|a| a.parse().ok());
    let segments = path["aspath"]["segments"].as_array().into_iter().flatten();
    let asns = segments.flat_map(|s| s["list"].as_array().into_iter().flatten());
    Shown {
        peer_address: peer.filter(|a| !a.is_unspecified()),
        router_id: path["peer"]["routerId"].as_str().and_then(|a| a.parse().ok()),
        local_pref: path["locPrf"].as_u64().and_then(|n| n.try_into().ok()).unwrap_or_default(),
        as_path: asns.filter_map(|n| n.as_u64()?.try_into().ok().map(Asn)).collect(),
        med: path["metric"].as_u64().and_then(|n| n.try_into().ok()),
        origin: match path["origin"].as_str() {
            Some("IGP") => Origin::Igp,
            Some("EGP") => Origin::Egp,
            _ => Origin::Incomplete,
        },
        best: path["bestpath"]["overall"].as_bool().unwrap_or(false),
    }
}
