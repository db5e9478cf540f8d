//! Health checks of a site, as the service file states them.

pub(crate) mod parse;
pub(crate) mod print;
mod rules;
pub(crate) mod spec;
mod target;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::Level;

pub use target::Target;

/// `[[check]]`: one test of the service on its own site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Unique name.
    pub name: String,
    /// What is tested.
    pub kind: CheckKind,
    /// Interval between the starts of two polls.
    pub every: Duration,
    /// A poll without a result by then has failed; at most `every`.
    pub timeout: Duration,
    /// Interval between the starts of two polls once one has failed, until the check is down; `None`: `every`.
    pub retry: Option<Duration>,
    /// A right answer that took longer is a failure.
    pub latency: Option<Duration>,
    /// So many failures in a row turn it down.
    pub fall: u32,
    /// So many successes in a row turn it up.
    pub rise: u32,
    /// What it means to the site; without meaning for [`CheckKind::Load`], which tells of overload only.
    pub counts: Counts,
}

/// What a check that is down means to the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counts {
    /// The site is at this level, or worse.
    Alone(Level),
    /// Its group counts it.
    Member {
        /// Name of the group.
        group: String,
        /// How much it counts.
        weight: u32,
    },
}

/// `[[group]]`: checks that count together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Unique name.
    pub name: String,
    /// Weight of checks that are up for the site to be healthy.
    pub healthy: u32,
    /// The same for degraded; with less it has failed. Equal to `healthy`: no degraded level.
    pub degraded: u32,
}

/// The kinds of checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum CheckKind {
    /// A DNS query.
    Dns(Dns),
    /// An HTTP/1.1 GET.
    Http(Http),
    /// A TCP connection that is accepted.
    Tcp {
        /// Server connected to.
        target: Target,
    },
    /// A TLS handshake.
    Tls {
        /// Server connected to.
        target: Target,
        /// Whom to believe.
        trust: Trust,
        /// The certificate must be valid for so many days more.
        days_left: u32,
    },
    /// A UDP payload that is answered.
    Udp {
        /// Server asked.
        target: Target,
        /// Payload sent.
        #[serde(with = "octets")]
        send: Vec<u8>,
        /// The answer begins with this; empty: with anything.
        #[serde(with = "octets")]
        starts: Vec<u8>,
        /// The answer contains this; empty: anything.
        #[serde(with = "octets")]
        contains: Vec<u8>,
    },
    /// An NTP query (RFC 5905).
    Ntp {
        /// Server asked.
        target: Target,
        /// Largest stratum that passes.
        stratum: u8,
        /// Largest offset to the clock of this machine that passes; `None`: any.
        offset: Option<Duration>,
    },
    /// A process that runs.
    Process {
        /// Found by the pid in this file,
        pidfile: Option<PathBuf>,
        /// or by its name: `comm` (at most 15 bytes), or the file name of its program.
        name: Option<String>,
    },
    /// A unit of systemd that has processes.
    Systemd {
        /// Its name, e.g. `nsd.service`.
        unit: String,
    },
    /// A command that exits with 0; killed with its process group at the timeout.
    Exec {
        /// Program and arguments; no shell.
        command: Vec<String>,
    },
    /// How busy the machine is; says nothing of health.
    Load {
        /// What is measured.
        metric: Metric,
        /// Overloaded at or above this, in the metric's unit.
        high: u64,
        /// No longer at or below this.
        low: u64,
    },
}

/// What a DNS check asks and expects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dns {
    /// Server asked.
    pub target: Target,
    /// Query name, without final dot or with.
    pub name: String,
    /// Query type mnemonic, e.g. `A`.
    pub qtype: String,
    /// Query class mnemonic: `IN` or `CH`.
    pub class: String,
    /// Expected RCODE mnemonic, e.g. `NOERROR`.
    pub rcode: String,
    /// Data that records of the answer must have, each, in the form of zone files.
    pub answer: Vec<String>,
    /// Texts that the data of some record of the answer must contain, each.
    pub answer_contains: Vec<String>,
    /// Flags of the header that must be set or clear.
    pub flags: Vec<Flag>,
    /// How the query travels.
    pub transport: DnsTransport,
    /// Path of DNS over HTTPS.
    pub path: String,
    /// Whom to believe over TLS and HTTPS.
    pub trust: Trust,
}

/// How a DNS query travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsTransport {
    /// RFC 1035 §4.2.1
    Udp,
    /// RFC 1035 §4.2.2
    Tcp,
    /// RFC 7858
    Tls,
    /// RFC 8484
    Https,
}

/// A flag of the DNS header and how it must be: `aa`, `no-tc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    /// Which.
    pub bit: FlagBit,
    /// Set or clear.
    pub set: bool,
}

/// Flags of the DNS header (RFC 1035 §4.1.1, RFC 4035 §3.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlagBit {
    /// Authoritative answer.
    Aa,
    /// Authentic data.
    Ad,
    /// Recursion available.
    Ra,
    /// Truncated.
    Tc,
}

/// What an HTTP check asks and expects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Http {
    /// Server asked.
    pub target: Target,
    /// Over TLS.
    pub tls: bool,
    /// Host header; `None`: the address asked.
    pub host: Option<String>,
    /// Path with query.
    pub path: String,
    /// Status codes that pass.
    pub status: Vec<Statuses>,
    /// Texts that the beginning of the body must contain, each.
    pub body: Vec<String>,
    /// Headers of the answer and the value each must have.
    pub headers: Vec<(String, String)>,
    /// Whom to believe over TLS.
    pub trust: Trust,
}

/// Status codes from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statuses {
    /// First.
    pub first: u16,
    /// Last; the same for a single one.
    pub last: u16,
}

/// Whom to believe over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trust {
    /// Name the certificate must have, and the one asked for (SNI); `None`: the host, or the address asked.
    pub server_name: Option<String>,
    /// Who must have signed the certificate.
    pub roots: Roots,
}

/// Who must have signed a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Roots {
    /// An authority this machine believes.
    #[default]
    System,
    /// One of this PEM file.
    File(PathBuf),
    /// Anybody: the certificate is not verified.
    Insecure,
}

/// What a check of load measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Packets received, 1/s.
    Packets {
        /// On this interface; `None`: on all but the loopback.
        interface: Option<String>,
    },
    /// UDP datagrams that sockets received, 1/s.
    Datagrams,
    /// Share of all processors in use, %.
    Cpu,
    /// Octets that wait in UDP sockets, and connections that wait in TCP listeners, of this port: the longest queue.
    Backlog {
        /// The port.
        port: u16,
    },
    /// Datagrams and connections the kernel dropped because a socket's queue was full, 1/s.
    Drops,
    /// A number that a command prints.
    Command(Vec<String>),
    /// A number that a page consists of.
    Page(Box<Http>),
}

impl Metric {
    /// The unit, for people.
    pub fn unit(&self) -> &'static str {
        match self {
            Metric::Packets { .. } => "packets/s",
            Metric::Datagrams => "datagrams/s",
            Metric::Cpu => "% of the processors",
            Metric::Backlog { .. } => "waiting",
            Metric::Drops => "drops/s",
            Metric::Command(_) | Metric::Page(_) => "",
        }
    }
}

impl CheckKind {
    /// The word for it, as the service file spells it.
    pub fn word(&self) -> &'static str {
        match self {
            CheckKind::Dns(_) => "dns",
            CheckKind::Http(_) => "http",
            CheckKind::Tcp { .. } => "tcp",
            CheckKind::Tls { .. } => "tls",
            CheckKind::Udp { .. } => "udp",
            CheckKind::Ntp { .. } => "ntp",
            CheckKind::Process { .. } => "process",
            CheckKind::Systemd { .. } => "systemd",
            CheckKind::Exec { .. } => "exec",
            CheckKind::Load { .. } => "load",
        }
    }

    /// The server that is asked, and whether over TCP; `None` for kinds that ask no server whether it serves.
    pub fn target(&self) -> Option<(Target, bool)> {
        match self {
            CheckKind::Dns(dns) => Some((dns.target, dns.transport != DnsTransport::Udp)),
            CheckKind::Http(http) => Some((http.target, true)),
            CheckKind::Tcp { target } | CheckKind::Tls { target, .. } => Some((*target, true)),
            CheckKind::Udp { target, .. } | CheckKind::Ntp { target, .. } => Some((*target, false)),
            CheckKind::Process { .. } | CheckKind::Systemd { .. } | CheckKind::Exec { .. } | CheckKind::Load { .. } => {
                None
            }
        }
    }

    /// The same asked of another server; unchanged for kinds that ask none.
    #[must_use]
    pub fn at(mut self, server: Target) -> CheckKind {
        match &mut self {
            CheckKind::Dns(dns) => dns.target = server,
            CheckKind::Http(http) => http.target = server,
            CheckKind::Tcp { target }
            | CheckKind::Tls { target, .. }
            | CheckKind::Udp { target, .. }
            | CheckKind::Ntp { target, .. } => *target = server,
            CheckKind::Process { .. } | CheckKind::Systemd { .. } | CheckKind::Exec { .. } | CheckKind::Load { .. } => {
            }
        }
        self
    }

    /// Whether TLS is spoken.
    pub fn over_tls(&self) -> bool {
        match self {
            CheckKind::Dns(dns) => matches!(dns.transport, DnsTransport::Tls | DnsTransport::Https),
            CheckKind::Http(http) => http.tls,
            CheckKind::Tls { .. } => true,
            CheckKind::Load { metric: Metric::Page(http), .. } => http.tls,
            _ => false,
        }
    }
}

impl FlagBit {
    /// All of them with their words.
    pub const ALL: [(FlagBit, &'static str); 4] =
        [(FlagBit::Aa, "aa"), (FlagBit::Ad, "ad"), (FlagBit::Ra, "ra"), (FlagBit::Tc, "tc")];
}

impl std::fmt::Display for Flag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = FlagBit::ALL.iter().find(|(bit, _)| *bit == self.bit).map_or("", |(_, word)| word);
        write!(f, "{}{word}", if self.set { "" } else { "no-" })
    }
}

impl DnsTransport {
    /// All of them with their words.
    pub const ALL: [(DnsTransport, &'static str); 4] = [
        (DnsTransport::Udp, "udp"),
        (DnsTransport::Tcp, "tcp"),
        (DnsTransport::Tls, "tls"),
        (DnsTransport::Https, "https"),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        DnsTransport::ALL.iter().find(|(transport, _)| *transport == self).map_or("", |(_, word)| word)
    }
}

impl Statuses {
    /// Whether it is one of them.
    pub fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl std::fmt::Display for Statuses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Statuses { first, last } if first == last => write!(f, "{first}"),
            Statuses { first, last } if first % 100 == 0 && last - first == 99 => write!(f, "{}xx", first / 100),
            Statuses { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

/// Octets as the service file writes them: text, or `hex:` and digits.
pub fn octets_text(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) if !text.starts_with(HEX) && !text.chars().any(char::is_control) && !text.trim().is_empty() => {
            text.to_owned()
        }
        _ => octets.iter().fold(HEX.to_owned(), |text, octet| format!("{text}{octet:02x}")),
    }
}

/// What stands before hexadecimal digits.
pub(crate) const HEX: &str = "hex:";

/// The octets that a text of a service file means; `None`: bad digits.
pub(crate) fn parse_octets(text: &str) -> Option<Vec<u8>> {
    let Some(digits) = text.strip_prefix(HEX) else {
        return Some(text.as_bytes().to_vec());
    };
    let digits: Vec<u8> = digits.bytes().filter(|b| *b != b' ').collect();
    let pairs = digits.chunks(2).map(|pair| {
        let pair =
            std::str::from_utf8(pair).ok().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs.collect()
}

mod octets {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(octets: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&if octets.is_empty() { String::new() } else { super::octets_text(octets) })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_octets(&text).ok_or_else(|| serde::de::Error::custom("bad hexadecimal digits"))
    }
}
