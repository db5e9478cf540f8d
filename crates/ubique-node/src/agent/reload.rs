//! `ubique reload` and SIGHUP: the service file is read again, compared, and what differs is carried out.
//!
//! Reading (the file, and the files of keys it names) happens beside the loop, which a dead file system must not stop; one
//! reload is read at a time. The loop then gets a [`Reread`] that it can compare and apply without waiting for anything.
//! A file that cannot be used changes nothing.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use ubique_model::change::{self, Change};
use ubique_model::diagnostic::Severity;
use ubique_model::service::{Records, Service, Sessions};
use ubique_model::{Diagnostic, MAX_FILE_BYTES};

use super::site::Agent;
use super::{AgentOptions, Request, neighbours};
use crate::admin::{ReloadOutcome, ReloadReply, ReloadRequest, SCHEMA_VERSION};
use crate::bgp::Endpoint;

/// How long one reload waits for another to be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where an agent that plays in a rehearsal keeps what survives a restart: the lab's `/run` is its own.
const REHEARSED_STATE: &str = "/run/ubique/{service}-{site}.kept";

/// A service file that can be used, with what it needs of the disk.
pub(super) struct Reread {
    pub service: Service,
    /// The transport side of each upstream of the site, keys included.
    pub endpoints: Vec<Endpoint>,
    pub warnings: Vec<Diagnostic>,
}

/// One that cannot.
struct Unusable {
    message: String,
    diagnostics: Vec<Diagnostic>,
}

impl From<String> for Unusable {
    fn from(message: String) -> Unusable {
        Unusable { message, diagnostics: Vec::new() }
    }
}

/// What an agent does otherwise in a rehearsal: it records and exports nothing, and leaves nothing on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// The secret of `[sessions]`, which is the rehearsal's own; `None`: there is no data plane, whatever the service file says.
    pub secret: Option<PathBuf>,
}

impl Rehearsal {
    /// Changes what the service file says.
    pub fn apply(&self, service: &mut Service) {
        service.agent.records = Records::default();
        service.agent.state = REHEARSED_STATE.into();
        // A lab's interfaces have names of their own: those towards the upstreams are found.
        let here = |(sessions, secret_file)| Sessions { secret_file, interfaces: vec![], ..sessions };
        service.sessions = service.sessions.take().zip(self.secret.clone()).map(here);
    }
}

/// Reads the service file again, for whoever asks.
#[derive(Clone)]
pub(super) struct Reloader {
    file: Option<PathBuf>,
    rehearsal: Option<Rehearsal>,
    site: String,
    busy: Arc<Semaphore>,
    requests: mpsc::Sender<Request>,
}

impl Reloader {
    pub(super) fn new(options: &AgentOptions, site: &str, requests: mpsc::Sender<Request>) -> Reloader {
        let (file, rehearsal) = (options.file.clone(), options.rehearsal.clone());
        Reloader { file, rehearsal, site: site.to_owned(), busy: Arc::new(Semaphore::new(1)), requests }
    }

    /// Reads, compares, and carries out; `who` asked for it.
    pub(super) async fn reload(&self, how: ReloadRequest, who: String) -> ReloadReply {
        let unusable = |unusable: Unusable| ReloadReply {
            file: self.file.clone(),
            message: Some(unusable.message),
            diagnostics: unusable.diagnostics,
            ..reply(ReloadOutcome::Unusable, None)
        };
        let reread = match self.read().await {
            Ok(reread) => reread,
            Err(why) => {
                tracing::error!(who, why = why.message, "reload: the service file cannot be used: nothing changes");
                return unusable(why);
            }
        };
        let (answer, replied) = oneshot::channel();
        let request = Request::Reload { reread: Box::new(reread), how, who, reply: answer };
        if self.requests.send(request).await.is_err() {
            return unusable("the agent is ending".to_owned().into());
        }
        match replied.await {
            Ok(reply) => ReloadReply { file: self.file.clone(), ..reply },
            Err(_) => unusable("the agent is ending".to_owned().into()),
        }
    }

    async fn read(&self) -> Result<Reread, Unusable> {
        let file = self.file.clone().ok_or("the agent was started without a service file".to_owned())?;
        // A file system that does not answer takes one thread, not all of them.
        let Ok(Ok(turn)) = timeout(PATIENCE, self.busy.clone().acquire_owned()).await else {
            return Err("another reload is being read, and its disk does not answer".to_owned().into());
        };
        let (site, rehearsal) = (self.site.clone(), self.rehearsal.clone());
        let read = spawn_blocking(move || {
            let _turn = turn;
            reread(&file, &site, rehearsal.as_ref())
        });
        read.await.map_err(|error| Unusable::from(error.to_string()))?
    }
}

/// Reads the file and the keys it names.
fn reread(file: &Path, site: &str, rehearsal: Option<&Rehearsal>) -> Result<Reread, Unusable> {
    let text = read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let parsed = Service::parse(&file.display().to_string(), &text);
    let Some(mut service) = parsed.value else {
        let errors = parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
        let message = format!("{} has {errors} errors: what ran before runs on", file.display());
        return Err(Unusable { message, diagnostics: parsed.diagnostics });
    };
    if let Some(rehearsal) = rehearsal {
        rehearsal.apply(&mut service);
    }
    if let Some(lacking) = neighbours::lacking(&service) {
        return Err(lacking.to_string().into());
    }
    let mut endpoints = Vec::new();
    for upstream in service.site(site).iter().flat_map(|s| &s.upstreams) {
        let endpoint = neighbours::endpoint(upstream, upstream.asn == service.asn);
        endpoints
            .push(endpoint.map_err(|error| format!("AS{} {}: {}", upstream.asn, upstream.address, words(&error)))?);
    }
    Ok(Reread { service, endpoints, warnings: parsed.diagnostics })
}

/// At most one octet more than a file may have: then its reader says so.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    fs::File::open(file)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// An error with its causes.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn reply(outcome: ReloadOutcome, change: Option<Change>) -> ReloadReply {
    ReloadReply { schema_version: SCHEMA_VERSION, file: None, outcome, message: None, diagnostics: vec![], change }
}

impl Agent {
    /// Compares, asks the guard, and carries out.
    pub(super) fn reload(&mut self, reread: Reread, how: ReloadRequest, who: &str) -> ReloadReply {
        let diagnostics = reread.warnings.clone();
        let refused = |outcome, change, message| ReloadReply {
            message: Some(message),
            diagnostics: diagnostics.clone(),
            ..reply(outcome, change)
        };
        if self.is_ending() {
            return refused(ReloadOutcome::Unusable, None, "the agent is stopping".to_owned());
        }
        let change = match self.compare(&reread) {
            Ok(change) => change,
            Err(why) => return refused(ReloadOutcome::Unusable, None, why),
        };
        if !change.surprises.is_empty() && !how.yes && !how.dry_run {
            let what = change.surprises.join("; ");
            tracing::warn!(who, what, "reload refused: `ubique reload --yes` carries it out");
            self.remember("reload refused".to_owned(), format!("{what} ({who})"));
            let message = format!("{what}: say --yes to carry it out, --dry-run to see all of it");
            return refused(ReloadOutcome::Refused, Some(change), message);
        }
        let outcome = match (change.is_empty(), how.dry_run) {
            (true, _) => ReloadOutcome::Unchanged,
            (false, true) => ReloadOutcome::DryRun,
            (false, false) => match self.apply(&change, reread) {
                Ok(()) => ReloadOutcome::Applied,
                Err(why) => {
                    tracing::error!(who, why, "reload: nothing changes");
                    return refused(ReloadOutcome::Unusable, Some(change), why);
                }
            },
        };
        if outcome == ReloadOutcome::Applied {
            for line in change.to_string().lines() {
                tracing::info!(who, "reload: {}", line.trim());
            }
            let effects: Vec<&str> = change.upstreams.iter().map(|u| u.sentence.as_str()).collect();
            let what = change.to_string().lines().next().unwrap_or_default().to_owned();
            self.remember("reload".to_owned(), format!("{what} ({who}) {}", effects.join("; ")));
        } else if outcome == ReloadOutcome::Unchanged {
            tracing::info!(who, "reload: nothing changes");
        }
        ReloadReply { diagnostics, ..reply(outcome, Some(change)) }
    }

    /// What differs, the content of keys included.
    fn compare(&self, reread: &Reread) -> Result<Change, String> {
        let site = self.spec().name.clone();
        let mut change = change::diff(&self.service, &reread.service, &site)?;
        let upstreams = reread.service.site(&site).map(|s| s.upstreams.as_slice()).unwrap_or_default();
        for (upstream, endpoint) in upstreams.iter().zip(&reread.endpoints) {
            let known = self.peer_of(upstream).and_then(|peer| self.bgp.endpoint(peer));
            if known.is_some_and(|known| known.key != endpoint.key) {
                change.rekey(&self.service, upstream);
            }
        }
        Ok(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rehearsal_has_a_secret_of_its_own_or_no_data_plane() {
        let text = include_str!("../../../../examples/sessions/service.toml");
        let text = text.replace("tcp         =", "interfaces = [\"eth0\"]\ntcp         =");
        let service = Service::parse("service.toml", text.as_bytes()).value.unwrap();
        let rehearsed = |secret: Option<&str>| {
            let mut service = service.clone();
            Rehearsal { secret: secret.map(PathBuf::from) }.apply(&mut service);
            service.sessions
        };
        assert_eq!(rehearsed(None), None);
        let written = service.sessions.clone().unwrap();
        assert_eq!(written.interfaces, ["eth0"]);
        let (secret_file, interfaces) = ("of/the/lab".into(), vec![]);
        assert_eq!(rehearsed(Some("of/the/lab")), Some(Sessions { secret_file, interfaces, ..written }));
    }
}
