//! Checks: the polls that tell whether the service on this site answers, and how busy it is.
//!
//! Each check is one task that waits for a poll number, runs one poll and reports its end. When to poll, what
//! counts as too late and what the results mean is the business of [`ubique_proto::health`]. A poll that is
//! abandoned is a dropped future, so a stuck check costs its own task and nobody else anything.
//!
//! A check of several servers (`service:53`) asks all of them at once; all must answer.
//!
//! One file for each kind. Results are short words for logs; they quote the other side only in bounded length.
//! Deliberately absent: lookups of names, since a node must not depend on the DNS it may be serving.

mod answer;
mod asker;
mod certificate;
mod dns;
mod exec;
mod http;
mod load;
mod ntp;
mod process;
mod tcp;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
mod udp;
mod unit;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinHandle};
use ubique_model::check::{CheckKind, Target};

pub use answer::judge_any as fuzz_dns_answer;
pub use certificate::not_after as certificate_not_after;
pub(crate) use exec::Exec;
pub use ntp::judge_any as fuzz_ntp_answer;
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

/// What a poll found: of a check of load the thousandths of its unit, of others nothing but that all is well.
pub(crate) type Reading = Option<u64>;

/// Why a poll failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// In words.
    pub words: String,
    /// The other side answered, but not what it should.
    pub answered: bool,
}

impl Failure {
    /// Of what was answered.
    fn of_answer(words: String) -> Failure {
        Failure { words, answered: true }
    }
}

/// For want of an answer, unless somebody says otherwise.
impl From<String> for Failure {
    fn from(words: String) -> Failure {
        Failure { words, answered: false }
    }
}

/// The end of one poll.
#[derive(Debug)]
pub(crate) struct PollResult {
    /// Index of the check.
    pub check: usize,
    /// Number of the poll.
    pub poll: u64,
    /// `Err`: why it failed.
    pub result: Result<Reading, Failure>,
    /// How long it took.
    pub took: Duration,
}

/// One check, ready to poll.
enum Checker {
    One(Box<One>),
    /// The same of several servers.
    All(Vec<(SocketAddr, One)>),
}

/// What polls one server, or this machine.
enum One {
    Dns(dns::Dns),
    Http(http::Http),
    Tcp(tcp::Tcp),
    Tls { tls: tls::Tls, target: SocketAddr, days_left: u32 },
    Udp(udp::Udp),
    Ntp(ntp::Ntp),
    Process(process::Process),
    Exec(exec::Exec),
    Load(load::Load),
}

impl Checker {
    fn new(kind: &CheckKind, service: &[IpAddr]) -> Result<Checker, String> {
        let Some((target, _)) = kind.target() else {
            return One::of_machine(kind, service).map(Checker::one);
        };
        match target.servers(service).as_slice() {
            [] => Err(format!("{target} means no address: the service has none")),
            [server] => One::of_server(kind, *server).map(Checker::one),
            servers => {
                let each = servers.iter().map(|server| Ok((*server, One::of_server(kind, *server)?)));
                each.collect::<Result<_, String>>().map(Checker::All)
            }
        }
    }

    fn one(one: One) -> Checker {
        Checker::One(Box::new(one))
    }

    async fn poll(&mut self) -> Result<Reading, Failure> {
        match self {
            Checker::One(one) => one.poll().await,
            Checker::All(each) => all(each).await.map(|()| None),
        }
    }
}

impl One {
    fn of_server(kind: &CheckKind, server: SocketAddr) -> Result<One, String> {
        Ok(match kind {
            CheckKind::Dns(dns) => One::Dns(dns::Dns::new(server, dns)?),
            CheckKind::Http(http) => One::Http(http::Http::new(server, http)?),
            CheckKind::Tls { trust, days_left, .. } => {
                let tls = tls::Tls::new(trust, &server.ip().to_string(), &[])?;
                One::Tls { tls, target: server, days_left: *days_left }
            }
            CheckKind::Udp { send, starts, contains, .. } => One::Udp(udp::Udp::new(server, send, starts, contains)),
            CheckKind::Ntp { stratum, offset, .. } => One::Ntp(ntp::Ntp::new(server, *stratum, *offset)),
            _ => One::Tcp(tcp::Tcp::new(server)),
        })
    }

    fn of_machine(kind: &CheckKind, service: &[IpAddr]) -> Result<One, String> {
        Ok(match kind {
            CheckKind::Exec { command } => One::Exec(exec::Exec::new(command)?),
            CheckKind::Load { metric, .. } => One::Load(load::Load::new(metric, service)?),
            kind => One::Process(process::Process::new(Find::of(kind).ok_or("the check looks at nothing")??)),
        })
    }

    async fn poll(&mut self) -> Result<Reading, Failure> {
        match self {
            One::Dns(c) => c.poll().await?,
            One::Http(c) => c.poll().await?,
            One::Tcp(c) => c.poll().await?,
            One::Tls { tls, target, days_left } => tls.poll(*target, *days_left).await?,
            One::Udp(c) => c.poll().await?,
            One::Ntp(c) => c.poll().await?,
            One::Process(c) => c.poll().await?,
            One::Exec(c) => c.poll().await?,
            One::Load(c) => return Ok(Some(c.poll().await?)),
        }
        Ok(None)
    }
}

/// Polls all at once; the first failure counts, and says whose it is.
async fn all(each: &mut [(SocketAddr, One)]) -> Result<(), Failure> {
    type Ask<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;
    fn ask((server, one): &mut (SocketAddr, One)) -> Ask<'_> {
        let whose = move |e: Failure| Failure { words: format!("{server}: {}", e.words), ..e };
        Box::pin(async move { one.poll().await.map(drop).map_err(whose) })
    }
    let mut under_way: Vec<Ask<'_>> = each.iter_mut().map(ask).collect();
    std::future::poll_fn(move |cx| {
        let mut failed = None;
        under_way.retain_mut(|ask| match ask.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(end) => {
                failed = failed.take().or(end.err());
                false
            }
        });
        match failed {
            Some(error) => Poll::Ready(Err(error)),
            None if under_way.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await
}

/// Polls a check once, at every service address instead of where it asks: whether clients would be answered. `None`:
/// the kind asks no server.
pub(crate) async fn verify(kind: &CheckKind, service: &[IpAddr], limit: Duration) -> Option<Result<(), String>> {
    let (target, _) = kind.target()?;
    let mut checker = match Checker::new(&kind.clone().at(Target::Service(target.port())), service) {
        Ok(checker) => checker,
        Err(reason) => return Some(Err(reason)),
    };
    Some(match tokio::time::timeout(limit, checker.poll()).await {
        Ok(end) => end.map(drop).map_err(|e| e.words),
        Err(_) => Err(format!("no answer within {limit:?}")),
    })
}

/// The poll that is wanted of a task: the latest wish only, so it cannot pile up.
struct Wish {
    /// Its number; [`NO_POLL`]: none.
    poll: AtomicU64,
    changed: Notify,
}

/// The number of no poll.
const NO_POLL: u64 = u64::MAX;

/// The task of one check.
pub(crate) struct Runner {
    wish: Arc<Wish>,
    task: AbortHandle,
}

impl Runner {
    /// Starts the task of check number `check`. Must be called on a tokio runtime.
    pub(crate) fn start(
        check: usize,
        name: &str,
        kind: &CheckKind,
        service: &[IpAddr],
        results: mpsc::Sender<PollResult>,
    ) -> Result<Runner, CheckError> {
        let checker = Checker::new(kind, service).map_err(|reason| CheckError { name: name.to_owned(), reason })?;
        let wish = Arc::new(Wish { poll: AtomicU64::new(NO_POLL), changed: Notify::new() });
        let task: JoinHandle<()> = tokio::spawn(run(check, checker, Arc::clone(&wish), results));
        Ok(Runner { wish, task: task.abort_handle() })
    }

    /// Begins a poll; one that is under way is abandoned.
    pub(crate) fn poll(&self, poll: u64) {
        self.wish.poll.store(poll, Ordering::Relaxed);
        self.wish.changed.notify_one();
    }

    /// Abandons the poll that is under way.
    pub(crate) fn abandon(&self) {
        self.poll(NO_POLL);
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Until it is aborted, or nobody takes results.
async fn run(check: usize, mut checker: Checker, wish: Arc<Wish>, results: mpsc::Sender<PollResult>) {
    loop {
        wish.changed.notified().await;
        let poll = wish.poll.load(Ordering::Relaxed);
        if poll == NO_POLL {
            continue;
        }
        let started = Instant::now();
        let result = tokio::select! {
            biased;
            result = checker.poll() => Some(result),
            () = wish.changed.notified() => None,
        };
        match result {
            Some(result) => {
                let end = PollResult { check, poll, result, took: started.elapsed() };
                if results.send(end).await.is_err() {
                    return;
                }
            }
            None => wish.changed.notify_one(),
        }
    }
}

/// The servers a check asks, and whether over TCP; empty for checks that ask no server.
pub(crate) fn servers(kind: &CheckKind, service: &[IpAddr]) -> Vec<(SocketAddr, bool)> {
    let Some((target, tcp)) = kind.target() else {
        return vec![];
    };
    target.servers(service).into_iter().map(|server| (server, tcp)).collect()
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
