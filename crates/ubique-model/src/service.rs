//! The service file: one anycast service, its checks, its sites and their upstreams.

mod action;
mod admin;
mod parse;
pub(crate) mod print;
mod rules;
mod sessions;
pub mod spec;
mod upstream;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::check::{Check, Group};
use crate::location::Location;
use crate::net::{Asn, Prefix};

pub use action::{Action, Flap, Guard, Levels, Shed, UpstreamSelector};
pub use admin::{AdminSettings, ApiSettings};
pub(crate) use parse::{narrow, values};
pub(crate) use print::owner_keys;
pub use sessions::{ReturnPath, Sessions, TcpMethod, Unicast, site_number};
pub use upstream::{AoAlgorithm, Bfd, Dynamic, GracefulRestart, NextHop, Role, TcpAo, Upstream};

/// One anycast service, as a valid service file describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Short name, used in logs, metrics and socket paths.
    pub name: String,
    /// Origin AS.
    pub asn: Asn,
    /// Prefixes announced by every site.
    pub prefixes: Vec<Prefix>,
    /// Addresses clients talk to; each lies in one of `prefixes`. On the loopback of each healthy site.
    pub addresses: Vec<IpAddr>,
    /// What makes a site fit to serve.
    pub checks: Vec<Check>,
    /// Checks that count together.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// What upstreams are told of a site that is not healthy.
    pub levels: Levels,
    /// Steps against overload, in order.
    pub shed: Vec<Shed>,
    /// What damping of upstreams is assumed to hold against us; `None`: nothing.
    pub flap: Option<Flap>,
    /// What keeps the service reachable.
    pub guard: Guard,
    /// What lets connections survive a route change; `None`: nothing.
    #[serde(default)]
    pub sessions: Option<Sessions>,
    /// The places that announce.
    pub sites: Vec<Site>,
    /// How the agent behaves.
    pub agent: AgentSettings,
    /// What the lab starts on each site.
    pub rehearse: RehearseSettings,
}

impl Service {
    /// The site of that name.
    pub fn site(&self, name: &str) -> Option<&Site> {
        self.sites.iter().find(|s| s.name == name)
    }
}

/// `[agent]`: settings of `ubique run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentSettings {
    /// Admin socket; `{site}` and `{service}` are replaced.
    pub socket: PathBuf,
    /// File of what survives a restart; `{site}` and `{service}` are replaced.
    pub state: PathBuf,
    /// Prometheus endpoint, when wanted.
    pub metrics: Option<SocketAddr>,
    /// How long a drain announces with GRACEFUL_SHUTDOWN before it withdraws (RFC 8326).
    pub graceful_shutdown: Duration,
    /// How long the service goes on serving after a withdrawal before the addresses are removed.
    pub drain: Duration,
    /// Command that has the service shorten its connections when a drain begins; empty: none.
    pub drain_hook: Vec<String>,
    /// Actions that move more of the service's traffic at this site than this, per cent, must be confirmed.
    pub confirm_share: u8,
    /// How long an essential thread may stall before the watchdog ends the agent.
    pub watchdog: Duration,
    /// Gives up capabilities and system calls it does not need; what it starts inherits that.
    pub sandbox: bool,
    /// What it records and exports.
    pub records: Records,
    /// Who may ask it, and where.
    #[serde(default)]
    pub admin: AdminSettings,
}

/// What `ubique run` records and exports: all off unless written.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Records {
    /// `[[agent.bmp]]`: collectors that follow the sessions over BMP (RFC 7854).
    pub bmp: Vec<BmpCollector>,
    /// `[agent.mrt]`: the BGP messages, in MRT files (RFC 6396).
    pub mrt: Option<RotatedFile>,
    /// `[agent.journal]`: the inputs of all cores, for `ubique replay`.
    pub journal: Option<JournalSettings>,
}

/// A BMP collector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BmpCollector {
    /// Where it listens.
    pub collector: SocketAddr,
    /// Interval of Statistics Reports; zero: none.
    pub statistics: Duration,
}

/// A file that is started anew at a size; `path.1` is the one before, `path.2` the one before that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RotatedFile {
    /// The newest one; `{site}` and `{service}` are replaced.
    pub path: PathBuf,
    /// Size at which the next one is started, MiB.
    pub size_mib: u32,
    /// Files kept, the newest one included.
    pub files: u32,
}

/// `[agent.journal]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalSettings {
    /// Where.
    pub file: RotatedFile,
    /// Outputs are written in full, not only as a running hash.
    pub full_outputs: bool,
}

/// `[rehearse]`: what the lab runs as the service on each site.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct RehearseSettings {
    /// The user's own service; `{site}`, `{address}`, `{directory}` (of the service file) and `{run}` (the site's own,
    /// empty) are replaced. Empty: the built-in DNS responder.
    pub command: Vec<String>,
    /// What vantage points ask.
    pub ask: Ask,
    /// Another agent to compare with; `{site}`, `{asn}`, `{address}`, `{upstream}`, `{upstream-asn}` and `{local}`
    /// (of the first address and upstream) are replaced, and the lab puts the addresses on the loopback.
    /// Empty: `ubique run`.
    pub agent: Vec<String>,
}

/// What vantage points ask the service addresses in a rehearsal, and how the answer names its site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// `id.server CH TXT` with NSID over UDP, port 53; by either (RFC 4892, RFC 5001).
    #[default]
    Dns,
    /// `GET /` over TCP, port 80, a connection each; by the header `X-Served-By`.
    Http,
    /// NTP over UDP, port 123; by the reference identifier of a stratum 1 server, in lower case (RFC 5905 §7.3).
    Ntp,
}

impl Ask {
    /// Each with its word.
    pub const ALL: [(Ask, &'static str); 3] = [(Ask::Dns, "dns"), (Ask::Http, "http"), (Ask::Ntp, "ntp")];

    /// As the service file spells it.
    pub fn as_str(self) -> &'static str {
        Ask::ALL.iter().find(|(ask, _)| *ask == self).map_or("dns", |(_, word)| word)
    }
}

/// `[[site]]`: one place that announces the service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Short name, unique in the file.
    pub name: String,
    /// Where it is.
    pub location: Location,
    /// What it can carry, when stated.
    pub capacity: Capacity,
    /// BGP identifier; default: derived from the first IPv4 local address or from the site's index.
    pub router_id: Option<std::net::Ipv4Addr>,
    /// Its own addresses, where the other sites reach it; with [`Sessions`] at least one.
    #[serde(default)]
    pub unicast: Unicast,
    /// Its number in packets, below [`spec::MAX_SESSION_SITES`], with [`Sessions`] no other site's; default: [`site_number`].
    #[serde(default)]
    pub number: u8,
    /// Its BGP neighbours.
    pub upstreams: Vec<Upstream>,
    /// Ranges of addresses that further neighbours may call from.
    pub dynamic: Vec<Dynamic>,
}

/// What a site can carry.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Capacity {
    /// Bits per second.
    pub bits_per_s: Option<u64>,
    /// Queries per second.
    pub queries_per_s: Option<u64>,
}

#[cfg(test)]
mod tests;
