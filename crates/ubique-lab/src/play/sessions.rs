//! Sessions while a scenario is played: the clients' process, the data plane they need, and what is told of both.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use ubique_model::Asn;
use ubique_model::scenario::{Action, Step};
use ubique_model::traffic::{Order, PATIENCE};
use ubique_sys::clock::monotonic_ns;
use ubique_sys::process::command_in;

use super::stage::Stage;
use super::{PlayError, Setup};
use crate::plan::Plan;
use crate::report::{DataPlaneInfo, EventKind, SessionStep, SessionsReport};
use crate::sessions::{Holding, Log};

/// Interval between two looks while waiting for the clients.
const POLL: Duration = Duration::from_millis(20);
/// How long what clients gave up may take to be known here.
const SETTLE: Duration = Duration::from_millis(500);
/// How long clients may take to open all sessions, beyond their own patience, and to tell what they saw.
const BEGIN: Duration = Duration::from_secs(10);

/// Sessions that vantage points hold.
pub(super) struct Held {
    /// Which.
    pub holding: Holding,
    spec: PathBuf,
    clients: Option<Clients>,
    /// When each step began, ns.
    marks: Vec<u64>,
    /// Losses that were told.
    told: usize,
    data_plane: Vec<DataPlaneInfo>,
}

/// The running clients.
struct Clients {
    child: Child,
    log: Arc<Mutex<Log>>,
}

impl Drop for Clients {
    fn drop(&mut self) {
        // Nothing to clean up: its sockets close with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Held {
    pub fn new(setup: &Setup, plan: &Plan, directory: &Path) -> Held {
        Held {
            holding: Holding::new(&setup.scenario, &setup.service, plan, &directory.join("ns")),
            spec: directory.join("clients.json"),
            clients: None,
            marks: Vec::new(),
            told: 0,
            data_plane: Vec::new(),
        }
    }

    /// How long after the last step it is known what became of every session.
    pub fn settle(&self) -> Duration {
        if self.clients.is_some() { PATIENCE + SETTLE } else { Duration::ZERO }
    }

    fn log(&self) -> Option<MutexGuard<'_, Log>> {
        self.clients.as_ref().map(|clients| clients.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn start(&mut self, executable: &Path) -> io::Result<()> {
        fs::write(&self.spec, serde_json::to_vec(&self.holding.clients())?)?;
        let mut child = command_in(executable, None)
            .args(["internal", "clients"])
            .arg(&self.spec)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let log = Arc::new(Mutex::new(Log::default()));
        if let Some(stdout) = child.stdout.take() {
            let log = log.clone();
            thread::Builder::new().name("sessions".into()).spawn(move || read(stdout, &log))?;
        }
        self.clients = Some(Clients { child, log });
        Ok(())
    }

    /// A step begins, or the last one ends.
    fn mark(&mut self) -> io::Result<()> {
        let Some(clients) = &mut self.clients else { return Ok(()) };
        let order = serde_json::to_string(&Order::Mark(self.marks.len() as u32))?;
        self.marks.push(monotonic_ns());
        match &mut clients.child.stdin {
            Some(stdin) => writeln!(stdin, "{order}"),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// An error when the clients are gone.
    fn check(&mut self) -> io::Result<()> {
        let Some(clients) = &mut self.clients else { return Ok(()) };
        match clients.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(io::Error::other(format!("ended with {status}"))),
        }
    }
}

fn read(stdout: ChildStdout, log: &Mutex<Log>) {
    // What cannot be read is noticed by the end of the process.
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let Ok(news) = serde_json::from_str(&line) else { return };
        log.lock().unwrap_or_else(PoisonError::into_inner).take(news);
    }
}

impl Stage<'_> {
    /// Before a step: sessions begin once routing has converged, and each step has figures of its own.
    pub(super) fn begin_sessions(&mut self, label: &str, index: usize, action: &Action) -> Result<(), PlayError> {
        let converges = index == 0 && matches!(action, Action::Converge { .. });
        if self.held.holding.is_empty() || converges {
            return Ok(());
        }
        if self.held.clients.is_none() {
            self.held.start(&self.setup.executable).map_err(PlayError::Sessions)?;
            self.held.marks = vec![0; index];
            let deadline_ns = monotonic_ns() + (PATIENCE + BEGIN).as_nanos() as u64;
            while !self.held.log().is_some_and(|log| log.begun) && monotonic_ns() < deadline_ns {
                self.frame(label);
                self.check()?;
                thread::sleep(POLL);
            }
            let count: u64 = self.held.holding.lanes.iter().map(|lane| u64::from(lane.count)).sum();
            self.event(EventKind::Clients, format!("{count} sessions are held"));
            for port in self.held.holding.unknown_quic(&self.setup.service) {
                let text =
                    format!("QUIC on port {port}, which is not in quic-ports: the data plane knows nothing of it");
                self.event(EventKind::Warning, text);
            }
        }
        self.held.mark().map_err(PlayError::Sessions)
    }

    /// After the last step: waits for what the clients saw.
    pub(super) fn end_sessions(&mut self) -> Result<(), PlayError> {
        let last = self.held.marks.len() as u32;
        self.held.mark().map_err(PlayError::Sessions)?;
        let deadline_ns = monotonic_ns() + BEGIN.as_nanos() as u64;
        while self.held.log().is_some_and(|log| !log.has(last)) {
            self.held.check().map_err(PlayError::Sessions)?;
            if monotonic_ns() > deadline_ns {
                return Err(PlayError::Sessions(io::ErrorKind::TimedOut.into()));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Tells of sessions that were lost since the last time, those of a vantage point and kind in one line.
    pub(super) fn tell_losses(&mut self) -> Result<(), PlayError> {
        self.held.check().map_err(PlayError::Sessions)?;
        let fresh = match self.held.log() {
            Some(log) => log.losses.get(self.held.told..).unwrap_or_default().to_vec(),
            None => return Ok(()),
        };
        self.held.told += fresh.len();
        let mut lines: BTreeMap<(usize, &str, &str), (u64, u64)> = BTreeMap::new();
        for loss in &fresh {
            let Some(lane) = self.held.holding.lanes.get(loss.lane) else { continue };
            let vantage = self.held.holding.vantages[loss.lane];
            let line = lines.entry((vantage, lane.kind.as_str(), loss.how.as_str())).or_insert((loss.at_ns, 0));
            line.0 = line.0.min(loss.at_ns);
            line.1 += 1;
        }
        let line = |((vantage, kind, how), (at_ns, count)): ((usize, &str, &str), (u64, u64))| {
            let name = &self.plan.vantages[vantage].name;
            let sessions = if count == 1 { "session" } else { "sessions" };
            (at_ns, format!("{name}: {count} {kind} {sessions} lost: {how}"))
        };
        let lines: Vec<(u64, String)> = lines.into_iter().map(line).collect();
        lines.into_iter().for_each(|(at_ns, text)| self.event_at(at_ns, EventKind::Clients, text));
        Ok(())
    }

    /// The first site whose data plane is not at work yet, and why. One that cannot be had here is not waited for, and told once.
    pub(super) fn data_plane_waits_for(&mut self) -> Option<String> {
        let ours = self.setup.service.rehearse.agent.is_empty();
        if !self.held.data_plane.is_empty() || !ours || self.plan.sites.iter().all(|site| !site.data_plane) {
            return None;
        }
        let mut known = Vec::new();
        for site in &self.sites {
            let status = self.world.agent_status(site).unwrap_or_default();
            known.push(data_plane(site, &status["sessions"]).map_err(|why| format!("{site}: {why}")));
        }
        let known: Vec<DataPlaneInfo> = match known.into_iter().collect() {
            Ok(known) => known,
            Err(why) => return Some(why),
        };
        self.held.data_plane = known;
        let report = SessionsReport { data_plane: self.held.data_plane.clone(), ..SessionsReport::default() };
        match report.without_data_plane() {
            Some(why) => {
                let text = format!("the data plane is not available here, sessions are as without it: {why}");
                self.event(EventKind::Warning, text);
            }
            None => {
                let troubles = |p: &DataPlaneInfo| p.troubles.iter().map(|t| format!(" ({t})")).collect::<String>();
                let mode = |p: &DataPlaneInfo| format!("{} {} {}{}", p.site, p.state, p.tcp, troubles(p));
                let modes: Vec<String> = report.data_plane.iter().map(mode).collect();
                self.event(EventKind::Agent, format!("the data plane is at work: {}", modes.join(", ")));
            }
        }
        None
    }

    /// A network sends what goes to the service another way.
    pub(super) fn divert(&mut self, step: &Step, network: Asn, to: Option<Asn>) -> Result<u64, PlayError> {
        let refused = |problem: String| PlayError::Step { step: step.label.clone(), problem };
        if self.plan.network(network).is_none() {
            return Err(refused(format!("the Internet has no network AS{network}")));
        }
        for &address in &self.setup.service.addresses {
            let (Some(to), Some(prefix)) = (to, super::outcome::prefix_of(&self.setup.service, address)) else {
                continue;
            };
            let candidates = Stage::candidates(&mut self.world, network, prefix);
            if !candidates.iter().any(|candidate| candidate.peer_asn == Some(to)) {
                let problem = format!("AS{to} has told AS{network} no route to {prefix}: packets would not arrive");
                return Err(refused(problem));
            }
        }
        let at_ns = self.world.divert(network, to)?.monotonic_ns;
        let way = to.map_or("as BGP says again".to_owned(), |to| format!("by way of AS{to}"));
        self.event_at(at_ns, EventKind::Action, format!("AS{network} sends what goes to the service {way}"));
        Ok(at_ns)
    }

    /// What became of sessions; `None`: nobody held any.
    pub(super) fn sessions_report(&self) -> Option<SessionsReport> {
        let log = self.held.log()?;
        let names: Vec<String> = self.plan.vantages.iter().map(|v| v.name.clone()).collect();
        let (rows, total) = log.totals(&self.held.holding, &names);
        let step = |(index, played): (usize, &super::stage::Played)| SessionStep {
            label: self.setup.scenario.steps[played.step].label.clone(),
            figures: log.window(index as u32, &self.held.marks),
        };
        // Those before the sessions began have nothing to say.
        let began = self.held.marks.iter().position(|at_ns| *at_ns > 0).unwrap_or(0);
        let steps = self.played.iter().enumerate().skip(began).map(step).collect();
        Some(SessionsReport { data_plane: self.held.data_plane.clone(), rows, total, steps })
    }
}

/// What an agent tells of its data plane.
///
/// # Errors
/// In words: what it is not ready for.
fn data_plane(site: &str, status: &Value) -> Result<DataPlaneInfo, String> {
    let word = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
    let list = |key: &str| status[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let trouble = |trouble: &Value| {
        format!("{}: {}", trouble["what"].as_str().unwrap_or_default(), trouble["why"].as_str().unwrap_or_default())
    };
    let info = DataPlaneInfo {
        site: site.to_owned(),
        state: word("state"),
        tcp: word("tcp"),
        troubles: list("troubles").iter().map(trouble).collect(),
    };
    match info.state.as_str() {
        "native" | "generic" => {}
        "off" if !info.troubles.is_empty() => return Ok(info),
        _ => return Err("is not loaded".to_owned()),
    }
    let away = |other: &&Value| other["up"].as_bool() != Some(true);
    match list("sites").iter().find(away) {
        Some(other) => Err(format!("does not see {}", other["name"].as_str().unwrap_or_default())),
        None => Ok(info),
    }
}
