//! Checks: the polls that tell whether the service on this site answers.
//!
//! Each check is one task that waits for a poll number, runs one poll and reports its end. When to poll, what
//! counts as too late and what the results mean is the business of [`ubique_proto::health`]. A poll that is
//! abandoned is a dropped future, so a stuck check costs its own task and nobody else anything.
//!
//! One file for each kind. Results are short words for logs; they quote the other side only in bounded length.

mod dns;
mod exec;
mod http;
mod process;

mod tcp;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use ubique_model::check::CheckKind;

pub(crate) use exec::Exec;
pub(crate) use process::Find;

/// Why a check cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("check {name:?}: {reason}")]
pub struct CheckError {
    /// Its name.
    pub name: String,
    /// What is wrong, in words.
    pub reason: String,
}

/// The end of one poll.
#[derive(Debug)]
pub(crate) struct PollResult {
    /// Index of the check.
    pub check: usize,
    /// Number of the poll.
    pub poll: u64,
    /// `Err`: why it failed, in words.
    pub result: Result<(), String>,
    /// How long it took.
    pub took: Duration,
}

/// One check, ready to poll.
enum Checker {
    Dns(dns::Dns),
    Http(http::Http),
    Tcp(tcp::Tcp),
    Process(process::Process),
    Exec(exec::Exec),
}

impl Checker {
    fn new(kind: &CheckKind) -> Result<Checker, String> {
        Ok(match kind {
            CheckKind::Dns { target, name, qtype, class, rcode, tcp } => {
                Checker::Dns(dns::Dns::new(*target, name, qtype, class, rcode, *tcp)?)
            }
            CheckKind::Http { target, host, path, status } => {
                Checker::Http(http::Http::new(*target, host, path, *status)?)
            }
            CheckKind::Tcp { target } => Checker::Tcp(tcp::Tcp::new(*target)),
            CheckKind::Process { pidfile, name } => {
                Checker::Process(process::Process::new(pidfile.as_deref(), name.as_deref())?)
            }
            CheckKind::Exec { command } => Checker::Exec(exec::Exec::new(command)?),
        })
    }

    async fn poll(&mut self) -> Result<(), String> {
        match self {
            Checker::Dns(c) => c.poll().await,
            Checker::Http(c) => c.poll().await,
            Checker::Tcp(c) => c.poll().await,
            Checker::Process(c) => c.poll().await,
            Checker::Exec(c) => c.poll().await,
        }
    }
}

/// The task of one check.
pub(crate) struct Runner {
    /// The poll wanted now; `None`: none. Holds the latest wish only, so it cannot pile up.
    wanted: watch::Sender<Option<u64>>,
    task: AbortHandle,
}

impl Runner {
    /// Starts the task of check number `check`. Must be called on a tokio runtime.
    pub(crate) fn start(
        check: usize,
        name: &str,
        kind: &CheckKind,
        results: mpsc::Sender<PollResult>,
    ) -> Result<Runner, CheckError> {
        let checker = Checker::new(kind).map_err(|reason| CheckError { name: name.to_owned(), reason })?;
        let (wanted, wish) = watch::channel(None);
        let task: JoinHandle<()> = tokio::spawn(run(check, checker, wish, results));
        Ok(Runner { wanted, task: task.abort_handle() })
    }

    /// Begins a poll; one that is under way is abandoned.
    pub(crate) fn poll(&self, poll: u64) {
        self.wanted.send_replace(Some(poll));
    }

    /// Abandons the poll that is under way.
    pub(crate) fn abandon(&self) {
        self.wanted.send_replace(None);
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    check: usize,
    mut checker: Checker,
    mut wish: watch::Receiver<Option<u64>>,
    results: mpsc::Sender<PollResult>,
) {
    while wish.changed().await.is_ok() {
        let Some(poll) = *wish.borrow_and_update() else {
            continue;
        };
        let started = Instant::now();
        let result = tokio::select! {
            biased;
            result = checker.poll() => Some(result),
            _ = wish.changed() => None,
        };
        match result {
            Some(result) => {
                let end = PollResult { check, poll, result, took: started.elapsed() };
                if results.send(end).await.is_err() {
                    return;
                }
            }
            None => wish.mark_changed(),
        }
    }
}

/// One poll outside of a check's rhythm.
pub(crate) async fn once(kind: &CheckKind, timeout: Duration) -> Result<(), String> {
    let mut checker = Checker::new(kind)?;
    tokio::time::timeout(timeout, checker.poll()).await.unwrap_or_else(|_| Err(format!("timeout after {timeout:?}")))
}

/// The same question to another address; `None` for checks that ask no server.
pub(crate) fn at(kind: &CheckKind, address: IpAddr) -> Option<CheckKind> {
    let mut kind = kind.clone();
    match &mut kind {
        CheckKind::Dns { target, .. } | CheckKind::Http { target, .. } | CheckKind::Tcp { target } => {
            target.set_ip(address);
        }
        CheckKind::Process { .. } | CheckKind::Exec { .. } => return None,
    }
    Some(kind)
}

/// The word for a kind, as the service file spells it.
pub fn kind_name(kind: &CheckKind) -> &'static str {
    match kind {
        CheckKind::Dns { .. } => "dns",
        CheckKind::Http { .. } => "http",
        CheckKind::Tcp { .. } => "tcp",
        CheckKind::Process { .. } => "process",
        CheckKind::Exec { .. } => "exec",
    }
}

/// The server a check asks, and whether over TCP; `None` for checks that ask no server.
pub(crate) fn target(kind: &CheckKind) -> Option<(SocketAddr, bool)> {
    match kind {
        CheckKind::Dns { target, tcp, .. } => Some((*target, *tcp)),
        CheckKind::Http { target, .. } | CheckKind::Tcp { target } => Some((*target, true)),
        CheckKind::Process { .. } | CheckKind::Exec { .. } => None,
    }
}

/// Whether a poll that failed was answered: then the answer, or the check, is wrong. Otherwise nobody serves.
pub(crate) fn is_answered(kind: &CheckKind, error: &str) -> bool {
    // What sockets say, in the words of [`words`] and of the system; the core's own of a poll that ended late.
    const SILENCE: [&str; 6] = [
        "timeout after",
        "connection refused",
        "connection reset",
        "connection closed early",
        "(os error",
        "handshake",
    ];
    !matches!(kind, CheckKind::Process { .. }) && !SILENCE.iter().any(|words| error.contains(words))
}

/// Bytes of foreign text that go into a cause.
const QUOTE_BYTES: usize = 200;

/// Foreign text in one bounded printable line.
fn quote(text: &[u8]) -> String {
    let cut = &text[..text.len().min(QUOTE_BYTES)];
    let line = String::from_utf8_lossy(cut);
    let mut quoted: String = line.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if cut.len() < text.len() {
        quoted.push('…');
    }
    quoted
}

/// An error of a socket in the words of an operator.
fn words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        std::io::ErrorKind::UnexpectedEof => "connection closed early".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
