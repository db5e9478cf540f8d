//! The admin socket of an agent: what can be asked, what is answered, and a client for the command line.
//!
//! One JSON object a line, one reply for each request, over a Unix stream socket. The mode of the socket file says who
//! may connect and read; the kernel says who that is, and `access` whether he may act. `{"query":"status"}` is
//! answered by a [`Status`]; `{"query":"drain","reason":"…"}` and `undrain` by `{"ok":true}`; anything that cannot be
//! done by `{"error":"…"}`.

mod access;
mod operator;
mod reload;
mod routes;
mod server;
mod sessions;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ubique_model::policy::Level;
use ubique_model::{Asn, Prefix, Relation};
use ubique_proto::site::State;

pub(crate) use access::{Access, Caller, Refusal};
pub use operator::{
    ActRequest, ActionList, ActionView, ClientView, DrainRequest, DrainSessions, DrainView, HookView, Plan, Reached,
    SenderView, TrafficView,
};
pub use reload::{ReloadOutcome, ReloadReply, ReloadRequest, UpgradeReply};
pub use routes::{Direction, Place, RouteView, RoutesPage, RoutesRequest};
pub use server::SocketError;
pub(crate) use server::{Bound, bind, error_line, serve};
pub use sessions::{SessionsInterface, SessionsSite, SessionsStatus, SessionsTrouble};

/// Version of [`Status`]; raised when a field changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// Longest request, octets.
pub(crate) const REQUEST_BYTES: usize = 4 << 10;

/// Longest reply a client reads, octets.
const REPLY_BYTES: u64 = 16 << 20;

/// How long a client waits for the agent.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The same where the agent reads files or tries a program first.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "query", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How are things?
    Status,
    /// Withdraw the site; it stays withdrawn until `undrain` or a restart.
    Drain {
        /// Why, for the log.
        reason: String,
    },
    /// Which routes do you have? One page; the next is asked for with its `next`.
    Routes(RoutesRequest),
    /// Read the service file again and carry out what differs.
    Reload(ReloadRequest),
    /// Execute the program at its path again, in place.
    Upgrade(ReloadRequest),
    /// Begin a timed action.
    Act(ActRequest),
    /// Which actions last?
    Actions,
    /// End an action.
    Cancel {
        /// Its number.
        id: u32,
        /// Why, for the log.
        #[serde(default)]
        reason: String,
    },
    /// Drain, and watch the traffic go.
    DrainWatched(DrainRequest),
    /// Where is the drain?
    DrainProgress,
    /// Announce it again once it is healthy.
    Undrain {
        /// Why, for the log.
        reason: String,
    },
}

impl Request {
    /// Whether it changes what the site does: then it takes more than reading, and is recorded with who asked for it.
    pub fn acts(&self) -> bool {
        match self {
            Request::Status | Request::Routes(_) | Request::Actions | Request::DrainProgress => false,
            Request::Drain { .. } | Request::Undrain { .. } | Request::Cancel { .. } | Request::Upgrade(_) => true,
            Request::Reload(how) => !how.dry_run,
            Request::Act(ActRequest { dry_run, .. }) | Request::DrainWatched(DrainRequest { dry_run, .. }) => !dry_run,
        }
    }
}

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Routes`].
    Routes(Box<RoutesPage>),
    /// To [`Request::Reload`].
    Reload(Box<ReloadReply>),
    /// To [`Request::Upgrade`].
    Upgrade(UpgradeReply),
    /// To a dry run of [`Request::Act`] or [`Request::DrainWatched`].
    Plan(Box<Plan>),
    /// To [`Request::Act`] and [`Request::Actions`].
    Actions(Box<ActionList>),
    /// To [`Request::DrainWatched`] and [`Request::DrainProgress`].
    Drain(Box<DrainView>),
    /// The request was carried out.
    Done {
        /// What whoever asked should know all the same.
        warning: Option<String>,
    },
}

/// The state of an agent. Times are RFC 3339, UTC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Version of the program.
    pub version: String,
    /// Name of the service.
    pub service: String,
    /// Name of the site.
    pub site: String,
    /// State of the site.
    #[schemars(with = "String")]
    pub state: State,
    /// Since when.
    pub since: String,
    /// Why.
    pub cause: String,
    /// Everything is as it should be.
    pub healthy: bool,
    /// Verdict over all checks and groups.
    #[schemars(with = "String")]
    pub level: Level,
    /// The groups of checks, in the order of the service file.
    #[serde(default)]
    pub groups: Vec<GroupStatus>,
    /// What upstreams are told: `healthy`, `degraded`, …; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stance: Option<String>,
    /// Why the service has more to do than it can; absent: it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overloaded: Option<String>,
    /// The flap budget; absent: flap control is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flap: Option<FlapStatus>,
    /// What the last-site guard sees; absent: there is nothing to guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
    /// The checks, in the order of the service file.
    pub checks: Vec<CheckStatus>,
    /// The upstreams, in the order of the service file, then the neighbours from ranges.
    pub peers: Vec<PeerStatus>,
    /// The data plane; absent: the service file has no `[sessions]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Box<SessionsStatus>>,
    /// Why what must survive a restart is not on the disk, when that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_kept: Option<String>,
    /// Timed actions that last, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<ActionView>,
    /// The watched drain under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Box<DrainView>>,
    /// The last transitions, oldest first.
    pub events: Vec<Event>,
}

/// The flap budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlapStatus {
    /// What is left of it, 0 to 1.
    pub left_ratio: f64,
    /// The same in words, with what waits for it.
    pub text: String,
}

/// State of a check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckStatus {
    /// Its name.
    pub name: String,
    /// Its kind, as the service file spells it.
    pub kind: String,
    /// Whether it counts as passed.
    pub up: bool,
    /// Since when.
    pub since: String,
    /// Why it took that state.
    pub cause: String,
    /// `ok`, or why the last poll failed; absent before the first result.
    pub last_result: Option<String>,
    /// Polls that ended.
    pub polls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Half of the polls of the last minutes took no longer, ms; as precise as the buckets of the histogram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// The same for 99 of 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// The group that counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What the site is while it is down; absent in a group and for load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub on_failure: Option<Level>,
    /// What it measures, for load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadStatus>,
}

/// What a check of load measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadStatus {
    /// Last value; absent before the first.
    pub value: Option<f64>,
    /// Overloaded at or above this.
    pub high: f64,
    /// No longer at or below this.
    pub low: f64,
    /// Unit of all three.
    pub unit: String,
}

/// State of a group of checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// Its level.
    #[schemars(with = "String")]
    pub level: Level,
    /// Weight of its checks that are up.
    pub up: u32,
    /// Weight of all its checks.
    pub weight: u32,
    /// Weight needed to be healthy.
    pub healthy: u32,
    /// Weight needed to be degraded.
    pub degraded: u32,
}

/// State of the session with an upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PeerStatus {
    /// Its AS.
    #[schemars(with = "u32")]
    pub asn: Asn,
    /// Its address.
    pub address: std::net::IpAddr,
    /// What it is to us.
    #[schemars(with = "String")]
    pub relation: Relation,
    /// State of RFC 4271 §8.2.2 in lower case: `idle`, `connect`, `active`, `opensent`, `openconfirm`, `established`.
    pub state: String,
    /// Since when it is in that state.
    pub since: String,
    /// Interface it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Negotiated hold time, s; absent while not established.
    pub hold_time_s: Option<u64>,
    /// Negotiated families, as the service file spells them; empty while not established.
    #[serde(default)]
    pub families: Vec<String>,
    /// What else was agreed on, as the service file or the RFC calls it: `route-refresh`, `graceful-restart 120s`, …
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Families of which routes are kept while the upstream restarts (RFC 4724, RFC 9494).
    #[serde(default)]
    pub stale: Vec<String>,
    /// The prefixes this session can carry.
    pub prefixes: Vec<PrefixStatus>,
    /// Why the session last went down, or did not come up.
    pub last_error: Option<String>,
    /// BGP messages since the start of the agent.
    pub messages: Messages,
    /// BFD with it; absent where it is not configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdStatus>,
}

/// State of the BFD session with an upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BfdStatus {
    /// State of RFC 5880 §6.2 in lower case: `admindown`, `down`, `init`, `up`.
    pub state: String,
    /// Since when.
    pub since: String,
    /// Why.
    pub cause: String,
    /// Why our session last went down.
    pub diagnostic: String,
    /// Why the upstream's last went down, as far as it says.
    pub neighbour_diagnostic: String,
    /// Interval of our packets before jitter, ms.
    pub interval_ms: f64,
    /// Silence of the upstream after which it is lost, ms; absent while it is not heard.
    pub detection_ms: Option<f64>,
    /// Silence of ours after which we are lost, ms; absent while it is not heard.
    pub neighbour_detection_ms: Option<f64>,
    /// Packets received and accepted.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets from its address that were discarded.
    pub discarded: u64,
    /// Times the session ceased to be up.
    pub downs: u64,
    /// Why packets cannot be sent or received, when that is so.
    pub error: Option<String>,
}

/// What an upstream knows of a prefix, read back from its session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrefixStatus {
    /// The prefix.
    #[schemars(with = "String")]
    pub prefix: Prefix,
    /// How far its announcement got.
    pub announced: Announced,
}

/// How far an announcement got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Announced {
    /// Not meant to be announced, and not announced.
    No,
    /// Meant to be announced, not sent yet.
    Pending,
    /// Sent.
    Sent,
    /// The upstream's TCP has acknowledged it.
    Acknowledged,
    /// A withdrawal was sent and is not acknowledged yet.
    Withdrawing,
}

/// Counts of BGP messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Messages {
    /// Received from the upstream.
    pub received: u64,
    /// Sent to it.
    pub sent: u64,
}

/// A transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When.
    pub time: String,
    /// What changed, and to what: `site announced`, `check answers down`, `session 192.0.2.1 up`.
    pub what: String,
    /// Why.
    pub cause: String,
    /// Who asked for it, when somebody did: `alice (uid 1000, pid 4711)`, `CN=ops`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
}

/// Why a request got no reply.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody answers there.
    #[error("no agent answers on {}: is `ubique run` running there, and may you use its socket?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the agent did not answer the request")]
    Conversation(#[source] io::Error),
    /// The agent said no.
    #[error("{0}")]
    Refused(String),
    /// A guard of the agent said no; a confirmed request is carried out.
    #[error("{0}")]
    Guarded(String),
    /// The reply cannot be understood: another version, or not an agent.
    #[error("the reply of the agent cannot be understood")]
    Malformed(#[source] serde_json::Error),
}

/// The path of the admin socket: `{site}` and `{service}` replaced.
pub fn socket_path(template: &Path, service: &str, site: &str) -> PathBuf {
    PathBuf::from(template.to_string_lossy().replace("{service}", service).replace("{site}", site))
}

/// Asks the agent behind the socket at `path`; blocks for at most a few seconds.
pub fn request(path: &Path, request: &Request) -> Result<Reply, RequestError> {
    let stream = UnixStream::connect(path).map_err(|source| RequestError::Connect { path: path.to_owned(), source })?;
    let reply = converse(&stream, request).map_err(RequestError::Conversation)?;
    let value: serde_json::Value = serde_json::from_str(&reply).map_err(RequestError::Malformed)?;
    if let Some(error) = value.get("error") {
        let error = error.as_str().unwrap_or("unknown error").to_owned();
        let guarded = value.get("guard").is_some_and(|guard| guard.as_bool() == Some(true));
        return Err(if guarded { RequestError::Guarded(error) } else { RequestError::Refused(error) });
    }
    match request {
        Request::Act(ActRequest { dry_run: true, .. }) | Request::DrainWatched(DrainRequest { dry_run: true, .. }) => {
            serde_json::from_value(value).map(Reply::Plan).map_err(RequestError::Malformed)
        }
        Request::Act(_) | Request::Actions => {
            serde_json::from_value(value).map(Reply::Actions).map_err(RequestError::Malformed)
        }
        Request::DrainWatched(_) | Request::DrainProgress => {
            serde_json::from_value(value).map(Reply::Drain).map_err(RequestError::Malformed)
        }
        Request::Routes(_) => serde_json::from_value(value).map(Reply::Routes).map_err(RequestError::Malformed),
        Request::Status => serde_json::from_value(value).map(Reply::Status).map_err(RequestError::Malformed),
        Request::Reload(_) => serde_json::from_value(value).map(Reply::Reload).map_err(RequestError::Malformed),
        Request::Upgrade(_) => serde_json::from_value(value).map(Reply::Upgrade).map_err(RequestError::Malformed),
        Request::Drain { .. } | Request::Undrain { .. } | Request::Cancel { .. } => {
            Ok(Reply::Done { warning: value.get("warning").and_then(|w| w.as_str()).map(str::to_owned) })
        }
    }
}

fn converse(mut stream: &UnixStream, request: &Request) -> io::Result<String> {
    let patience = match request {
        Request::Reload(_) | Request::Upgrade(_) => CHANGE_TIMEOUT,
        _ => CLIENT_TIMEOUT,
    };
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reply = String::new();
    BufReader::new(stream.take(REPLY_BYTES)).read_line(&mut reply)?;
    if reply.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(reply)
}

#[cfg(test)]
mod tests;
