//! `ubique doctor`: what on this machine, or on the way to its upstreams, keeps a site from working, and the cure.
//!
//! Three parts. [`gather`] collects [`Facts`]: what the kernel, the files, the firewall and a running agent say; it
//! changes nothing. Each entry of [`CHECKS`] is a pure function from facts to [`Finding`]s, each with its cure.
//! [`upstream`] writes the neighbour's side of the sessions.
//!
//! A fact that could not be had is no finding: the check says what it could not look at. What the service file itself
//! gets wrong is `ubique check`'s to say; what the kernel lacks of it, [`crate::agent::lacking`]'s, which is asked here too.
//!
//! - `facts`, `gather`: what is known. - `host`: the machine. - `network`: the kernel's network. - `sessions`: upstreams.
//! - `data_plane`: `[sessions]`. - `firewall`: a reader of nftables rules.

mod data_plane;
mod facts;
mod firewall;
mod gather;
mod host;
mod network;
mod sessions;
#[cfg(test)]
mod tests;
pub mod upstream;

use serde::Serialize;
use ubique_model::service::{Service, Site, Upstream};

pub use facts::{
    AgentFacts, ClockFacts, Connection, DataPlaneFacts, Directory, Facts, FirewallFacts, Interface, Lookup, PathFacts,
    TableUse,
};
pub use gather::gather;

/// Version of the JSON.
pub const SCHEMA_VERSION: u32 = 1;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// Will hurt some day.
    Warning,
    /// Hurts now.
    Error,
}

/// Something that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What is so, and what comes of it.
    pub message: String,
    /// What to do.
    pub fix: String,
}

/// What is examined: facts, and the service and site they are held against.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// What is known.
    pub facts: &'a Facts,
    /// The service and its site here, when they are given.
    pub subject: Option<(&'a Service, &'a Site)>,
}

impl<'a> Case<'a> {
    /// The neighbours of the site, those of ranges excluded.
    fn upstreams(self) -> impl Iterator<Item = &'a Upstream> {
        self.subject.into_iter().flat_map(|(_, site)| &site.upstreams)
    }

    /// A kernel setting as a number.
    fn number(self, name: &str) -> Option<i64> {
        self.facts.sysctls.get(name)?.split_whitespace().next()?.parse().ok()
    }
}

/// Where a check puts what it found.
pub(crate) struct Report {
    check: &'static str,
    findings: Vec<Finding>,
    unknown: Vec<String>,
}

impl Report {
    fn find(&mut self, severity: Severity, message: impl Into<String>, fix: impl Into<String>) {
        let (message, fix) = (message.into(), fix.into());
        self.findings.push(Finding { check: self.check, severity, message, fix });
    }

    fn error(&mut self, message: impl Into<String>, fix: impl Into<String>) {
        self.find(Severity::Error, message, fix);
    }

    fn warning(&mut self, message: impl Into<String>, fix: impl Into<String>) {
        self.find(Severity::Warning, message, fix);
    }

    fn note(&mut self, message: impl Into<String>, fix: impl Into<String>) {
        self.find(Severity::Note, message, fix);
    }

    /// This could not be looked at, for this reason.
    fn unknown(&mut self, why: impl Into<String>) {
        self.unknown.push(why.into());
    }
}

/// One check.
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What it looks at, in a few words.
    pub about: &'static str,
    run: fn(Case<'_>, &mut Report),
}

/// Every check, in the order of the table.
pub const CHECKS: &[Check] = &[
    Check { name: "capabilities", about: "what the agent may do", run: host::capabilities },
    Check { name: "clock", about: "time is kept in step", run: host::clock },
    Check { name: "directories", about: "state, sockets and records can be written", run: host::directories },
    Check { name: "supervision", about: "a service manager restarts the agent", run: host::supervision },
    Check { name: "addresses", about: "service addresses on the loopback", run: host::addresses },
    Check { name: "families", about: "IPv6 is on where the service has it", run: network::families },
    Check { name: "rp-filter", about: "asymmetric paths are not dropped", run: network::rp_filter },
    Check { name: "vrf", about: "sockets hear interfaces in VRFs", run: network::vrf },
    Check { name: "mtu", about: "full packets reach upstreams, path MTU is found", run: network::mtu },
    Check { name: "ecmp", about: "flows share upstreams by port, not by address", run: network::ecmp },
    Check { name: "neighbour-table", about: "ARP and ND tables have room", run: network::neighbour_table },
    Check { name: "conntrack", about: "the service does not depend on connection tracking", run: network::conntrack },
    Check { name: "socket-queues", about: "queues of sockets do not overflow", run: network::socket_queues },
    Check { name: "firewall", about: "BGP, BFD and the service get in", run: firewall::check },
    Check { name: "session-keys", about: "TCP MD5 and TCP-AO, here and there", run: sessions::keys },
    Check { name: "upstreams", about: "upstreams answer", run: sessions::upstreams },
    Check { name: "data-plane", about: "connections survive a route change", run: data_plane::check },
    Check { name: "bfd", about: "BFD packets arrive", run: sessions::bfd },
];

/// What one check came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The check.
    pub check: &'static str,
    /// What it looks at.
    pub about: &'static str,
    /// What it found; empty: all is well, as far as could be seen.
    pub findings: Vec<Finding>,
    /// What it could not look at, and why.
    pub unknown: Vec<String>,
}

/// Runs every check.
pub fn examine(case: Case<'_>) -> Vec<Outcome> {
    let one = |check: &Check| {
        let mut report = Report { check: check.name, findings: Vec::new(), unknown: Vec::new() };
        (check.run)(case, &mut report);
        let Report { findings, unknown, .. } = report;
        Outcome { check: check.name, about: check.about, findings, unknown }
    };
    CHECKS.iter().map(one).collect()
}
