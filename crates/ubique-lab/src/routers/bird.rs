//! BIRD 2: one process for each network.
//!
//! The configuration says what the embedded routers do by themselves: local preference and exports by relation, no
//! graceful restart, ties by router id, then address. Questions go over BIRD's own control socket.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use ubique_model::service::Bfd;
use ubique_model::{Asn, Prefix, Relation, policy};
use ubique_proto::bgp::attributes::Origin;

use super::table::{self, Quiet, Shown};
use super::{
    Candidate, Launch, QUERY_TIMEOUT, RoutersError, START_TIMEOUT, Status, find_program, graceful_preference,
    start_failed,
};
use crate::build::Built;
use crate::child::{self, Process};
use crate::plan::{NetworkPlan, Plan, SessionPlan};

/// BIRD 2.0.12 now and then keeps a finished UPDATE until the session's next packet is due: with the usual third of the
/// hold time, convergence was seen to take 30 s instead of 1.
const NETWORK_KEEPALIVE_S: u64 = 1;
/// Most bytes of an answer that are kept.
const MAX_ANSWER: usize = 4 << 20;

pub(super) struct Birds {
    networks: Vec<NetworkPlan>,
    processes: Vec<Process>,
    sockets: Vec<PathBuf>,
    quiet: Quiet,
    plan: Plan,
}

impl Birds {
    pub(super) fn start(plan: &Plan, built: &Built, launch: &Launch) -> Result<Birds, RoutersError> {
        let program = find_program("bird", &["/usr/sbin", "/usr/local/sbin", "/usr/bin"], "bird2")?;
        let directory = launch.directory.join("bird");
        std::fs::create_dir_all(&directory).map_err(start_failed(directory.display().to_string()))?;
        let mut birds = Birds {
            networks: plan.networks.clone(),
            processes: Vec::new(),
            sockets: Vec::new(),
            quiet: Quiet::new(),
            plan: plan.clone(),
        };
        for network in &plan.networks {
            let name = &network.netns;
            let file = |kind: &str| directory.join(format!("{name}.{kind}"));
            let text = configuration(network)?;
            std::fs::write(file("conf"), text).map_err(start_failed(file("conf").display().to_string()))?;
            let arguments = [("-c", "conf"), ("-s", "sock"), ("-P", "pid")]
                .iter()
                .flat_map(|(flag, kind)| [(*flag).to_owned(), file(kind).display().to_string()])
                .chain(["-f".to_owned()])
                .collect::<Vec<_>>();
            let namespace = built.namespace(name).ok_or(RoutersError::NoNetwork(network.asn))?;
            let log = launch.logs.join(format!("bird-{name}.log"));
            let process = Process::start(format!("BIRD of AS{}", network.asn), &program, &arguments, namespace, log)
                .map_err(start_failed("bird"))?;
            birds.processes.push(process);
            birds.sockets.push(file("sock"));
        }
        birds.wait_until_ready(launch)?;
        Ok(birds)
    }

    fn wait_until_ready(&mut self, launch: &Launch) -> Result<(), RoutersError> {
        for index in 0..self.processes.len() {
            let socket = self.sockets[index].clone();
            let process = &mut self.processes[index];
            let ready = || process.status().is_some() || UnixStream::connect(&socket).is_ok();
            if !child::wait_until(START_TIMEOUT, ready) {
                let log = child::tail(&launch.logs.join(format!("bird-{}.log", self.networks[index].netns)));
                return Err(RoutersError::NotReady { name: process.name().to_owned(), log: format!("\n{log}") });
            }
            if let Some(exit) = process.unexpected_exit() {
                return Err(RoutersError::Ended(exit));
            }
        }
        Ok(())
    }

    fn query(&self, index: usize, question: &str) -> Result<Vec<String>, RoutersError> {
        ask(&self.sockets[index], question)
            .map_err(|e| RoutersError::Query { name: self.processes[index].name().to_owned(), source: e.into() })
    }

    pub(super) fn status(&mut self) -> Result<Status, RoutersError> {
        let mut status = Status { established: 0, sessions: 0, quiet_ms: 0 };
        let mut fingerprint = 0u64;
        for index in 0..self.networks.len() {
            status.sessions += self.networks[index].sessions.len();
            let lines = self.query(index, "show protocols all")?;
            status.established += lines.iter().filter(|l| is_established(l)).count();
            for line in &lines {
                // Counters, and whether each session stands; not since when, which trembles by a millisecond.
                if line.contains("updates:") || line.contains("withdraws:") {
                    fingerprint = table::fnv(fingerprint, line.as_bytes());
                } else if is_protocol(line) {
                    fingerprint = table::fnv(fingerprint, &[u8::from(is_established(line))]);
                }
            }
        }
        status.quiet_ms = self.quiet.observe(fingerprint).as_millis() as u64;
        Ok(status)
    }

    pub(super) fn candidates(&mut self, asn: Asn, prefix: Prefix) -> Result<Vec<Candidate>, RoutersError> {
        let index = table::index_of(&self.plan, asn).ok_or(RoutersError::NoNetwork(asn))?;
        let network = &self.networks[index];
        let mut shown = parse_routes(&self.query(index, &format!("show route {prefix} all"))?, network);
        for route in &mut shown {
            let session = table::session(network, route.peer_address);
            let number = session.and_then(|s| network.sessions.iter().position(|x| x == s));
            // Only sites choose their identifier themselves.
            if let (Some(number), Some(true)) = (number, session.map(|s| s.site.is_some())) {
                let lines = self.query(index, &format!("show protocols all n{number}"))?;
                route.router_id = lines.iter().find_map(|l| l.trim().strip_prefix("Neighbor ID:")?.trim().parse().ok());
            }
        }
        Ok(table::candidates(network, &shown))
    }

    pub(super) fn processes(&mut self) -> &mut [Process] {
        &mut self.processes
    }
}

/// The configuration of a network's router.
fn configuration(network: &NetworkPlan) -> Result<String, RoutersError> {
    let mut text = String::new();
    let customer = policy::local_preference(Relation::Customer);
    let graceful = graceful_preference(Relation::Customer);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "log stderr all;\nrouter id {};\ndebug protocols {{ states }};\nprotocol device {{ scan time 3600; }}\n\
         filter to_customers {{ if source ~ [ RTS_STATIC, RTS_BGP ] then accept; reject; }}\n\
         filter to_others {{ if source = RTS_STATIC then accept;\n\
         \x20 if source = RTS_BGP && bgp_local_pref ~ [ {customer}, {graceful} ] then accept; reject; }}\n",
        network.router_id
    );
    for family in ["ipv4", "ipv6"] {
        let _ = writeln!(
            text,
            "protocol kernel {{ scan time 3600; {family} {{ import none; export where source = RTS_BGP; }}; }}"
        );
        let own = network.originate.iter().filter(|p| table::is_v4(p) == (family == "ipv4"));
        let routes: String = own.map(|p| format!(" route {p} blackhole;")).collect();
        if !routes.is_empty() {
            let _ = writeln!(text, "protocol static own_{family} {{ {family};{routes} }}");
        }
    }
    if network.sessions.iter().any(|s| s.bfd.is_some()) {
        text.push_str("protocol bfd { }\n");
    }
    for (number, session) in network.sessions.iter().enumerate() {
        text.push_str(&session_configuration(network, number, session)?);
    }
    Ok(text)
}

fn session_configuration(network: &NetworkPlan, number: usize, session: &SessionPlan) -> Result<String, RoutersError> {
    let SessionPlan { local, remote, asn, relation, link, .. } = session;
    let hold = session.hold_time.as_secs();
    let family = if remote.is_ipv4() { "ipv4" } else { "ipv6" };
    let preference = policy::local_preference(*relation);
    let graceful = graceful_preference(*relation);
    // Everything goes to customers, to others only what is ours or a customer's.
    let export = if policy::exports(Some(Relation::Peer), *relation) { "to_customers" } else { "to_others" };
    let passive = if session.passive { "passive on; " } else { "" };
    let keepalive = match (hold, &session.site) {
        (0, _) => 0,
        (_, None) => NETWORK_KEEPALIVE_S,
        (_, Some(_)) => (hold / 3).max(1),
    };
    let password = match &session.password_file {
        Some(file) => format!("password \"{}\"; ", secret(file)?),
        None => String::new(),
    };
    let bfd = match session.bfd {
        Some(bfd) if bfd == Bfd::default() => "bfd on; ".to_owned(),
        Some(Bfd { interval, receive, multiplier }) => format!(
            "bfd {{ min tx interval {} ms; min rx interval {} ms; multiplier {multiplier}; }}; ",
            receive.as_millis(),
            interval.as_millis()
        ),
        None => String::new(),
    };
    Ok(format!(
        "protocol bgp n{number} {{\n\
         \x20 local {local} as {own}; neighbor {remote} as {asn}; direct; interface \"l{link}\"; {passive}{password}{bfd}\n\
         \x20 hold time {hold}; keepalive time {keepalive}; connect delay time 1; connect retry time 1;\n\
         \x20 error wait time 1, 2; graceful restart off; long lived graceful restart off;\n\
         \x20 {family} {{ import filter {{ bgp_local_pref = {preference};\n\
         \x20  if (65535, 0) ~ bgp_community then bgp_local_pref = {graceful}; accept; }};\n\
         \x20  export filter {export}; next hop self; }};\n\
         }}\n",
        own = network.asn,
    ))
}

/// A TCP MD5 secret: the first line of its file.
pub(super) fn secret(file: &Path) -> Result<String, RoutersError> {
    let text = std::fs::read_to_string(file).map_err(start_failed(file.display().to_string()))?;
    let line = text.lines().next().unwrap_or_default().to_owned();
    if line.contains('"') || line.is_empty() {
        let invalid = io::Error::new(io::ErrorKind::InvalidData, "no usable secret in the first line");
        return Err(start_failed(file.display().to_string())(invalid));
    }
    Ok(line)
}

/// Asks BIRD; the lines of the answer without their codes. Codes 8xxx and 9xxx are errors, 0000 ends.
fn ask(socket: &Path, question: &str) -> io::Result<Vec<String>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(QUERY_TIMEOUT))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut lines = Vec::new();
    let mut bytes = 0;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        bytes += line.len();
        if bytes > MAX_ANSWER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "answer too long"));
        }
        let code = line.get(..4).filter(|c| c.bytes().all(|b| b.is_ascii_digit()));
        match code {
            Some("0001") => {}
            Some("0000") => return Ok(lines),
            // The network is not in the table: no routes, no error.
            Some("8001") => return Ok(lines),
            Some(c) if c.starts_with(['8', '9']) => return Err(io::Error::other(line)),
            Some(_) => lines.push(line.get(5..).unwrap_or_default().to_owned()),
            None => lines.push(line.get(1..).unwrap_or_default().to_owned()),
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn is_protocol(line: &str) -> bool {
    line.split_whitespace().nth(1) == Some("BGP")
}

fn is_established(line: &str) -> bool {
    is_protocol(line) && line.split_whitespace().any(|w| w == "Established")
}

/// `show route … all`: a head line for each route, with its protocol in brackets, then its attributes.
fn parse_routes(lines: &[String], network: &NetworkPlan) -> Vec<Shown> {
    let mut routes: Vec<Shown> = Vec::new();
    for line in lines {
        if let Some((head, rest)) = line.split_once('[').filter(|_| line.contains("] ") && !line.starts_with('\t')) {
            let protocol = rest.split_whitespace().next().unwrap_or_default();
            if !(head.contains("unicast") || head.contains("blackhole")) {
                continue;
            }
            let number: Option<usize> = protocol.strip_prefix('n').and_then(|n| n.parse().ok());
            let session = number.and_then(|n| network.sessions.get(n));
            routes.push(Shown {
                peer_address: session.map(|s| s.remote),
                router_id: None,
                local_pref: 0,
                as_path: Vec::new(),
                med: None,
                origin: Origin::Igp,
                best: rest.contains("] * "),
            });
            continue;
        }
        let (Some(route), Some((key, value))) = (routes.last_mut(), line.trim().split_once(": ")) else {
            continue;
        };
        match key {
            "BGP.local_pref" => route.local_pref = value.parse().unwrap_or_default(),
            "BGP.med" => route.med = value.parse().ok(),
            "BGP.as_path" => route.as_path = value.split_whitespace().filter_map(|a| a.parse().ok().map(Asn)).collect(),
            "BGP.origin" => {
                route.origin = match value {
                    "IGP" => Origin::Igp,
                    "EGP" => Origin::Egp,
                    _ => Origin::Incomplete,
                }
            }
            _ => {}
        }
    }
    routes
}
