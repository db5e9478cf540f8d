//! What is known about a machine, as plain data.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::admin::Status;
use ubique_sys::privilege::Capabilities;

/// Something that was looked up; why not, in words.
pub type Lookup<T> = Result<T, String>;

/// What is known about this machine. Everything may be absent: doctors are called by ordinary users, too.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Settings below `/proc/sys`, as `net/ipv4/tcp_mtu_probing`.
    pub sysctls: BTreeMap<String, String>,
    /// Counters of the network stack, as `TcpExt.TCPMD5Failure`, `Udp.RcvbufErrors`.
    pub counters: BTreeMap<String, u64>,
    /// Whether we are root, and what we may do.
    pub root: bool,
    /// Our own capabilities in force.
    pub capabilities: Option<Capabilities>,
    /// The agent of the site, or why nothing is known about it; `None`: no service file was given.
    pub agent: Option<Lookup<AgentFacts>>,
    /// The clock.
    pub clock: Option<ClockFacts>,
    /// Interfaces, by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// Addresses on the loopback interface.
    pub loopback: Option<Vec<IpAddr>>,
    /// The way to each upstream.
    pub paths: BTreeMap<IpAddr, PathFacts>,
    /// The rules of the firewall.
    pub firewall: FirewallFacts,
    /// Connection tracking; `None`: not loaded.
    pub conntrack: Option<TableUse>,
    /// Entries of the IPv4 neighbour table.
    pub neighbours: Option<u64>,
    /// Directories that the agent writes to.
    pub directories: Vec<Directory>,
    /// systemd runs this machine.
    pub systemd: bool,
    /// TCP MD5 signatures are in the kernel.
    pub has_md5: Option<bool>,
    /// What the data plane needs; `None`: the service has no `[sessions]`.
    pub data_plane: Option<DataPlaneFacts>,
}

/// What a data plane needs.
#[derive(Clone, Debug)]
pub struct DataPlaneFacts {
    /// This program has one.
    pub built: bool,
    /// Whether the secret can be used; why not.
    pub secret: Lookup<()>,
    /// The way to each other site.
    pub sites: Vec<(String, PathFacts)>,
    /// Interfaces with XDP programs that are not ours, as far as can be seen, and their numbers.
    pub foreign: Vec<(String, u32)>,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableUse {
    /// Entries.
    pub used: u64,
    /// Most entries.
    pub limit: u64,
}

/// A running agent.
#[derive(Clone, Debug)]
pub struct AgentFacts {
    /// What it says.
    pub status: Status,
    /// Its capabilities in force.
    pub capabilities: Option<Capabilities>,
    /// It has a service manager's watchdog; `None`: cannot be seen.
    pub watchdog: Option<bool>,
    /// It is a unit of systemd's.
    pub unit: Option<String>,
}

/// The clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockFacts {
    /// It is kept in step.
    pub synchronised: bool,
    /// The most it may be wrong, ms.
    pub error_max_ms: u64,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// It is up.
    pub up: bool,
    /// Longest packet, octets.
    pub mtu: u32,
    /// It belongs to a VRF.
    pub in_vrf: bool,
}

/// The way to an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathFacts {
    /// Interface it begins at.
    pub interface: Option<String>,
    /// Longest packet that reaches it, as far as the kernel knows.
    pub mtu: Option<u32>,
    /// Why there is no way.
    pub unreachable: Option<String>,
    /// What came of a connection; `None`: none was tried, since an agent is at it, or keys are needed.
    pub connection: Option<Connection>,
}

/// What came of a connection to an upstream's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Somebody answers.
    Accepted,
    /// Nobody listens, or not for us.
    Refused,
    /// No answer.
    Silent,
    /// Something else.
    Failed(String),
}

/// The rules of the firewall.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum FirewallFacts {
    /// Nobody has looked.
    #[default]
    NotAsked,
    /// They cannot be seen.
    Unknown(String),
    /// As `nft -j list ruleset` prints them.
    Rules(serde_json::Value),
}

/// A directory that the agent writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Which.
    pub path: PathBuf,
    /// What for.
    pub purpose: &'static str,
    /// Whether it can be written to by who asks; why not.
    pub writable: Lookup<()>,
    /// Free and total octets of its file system.
    pub space: Option<(u64, u64)>,
}
