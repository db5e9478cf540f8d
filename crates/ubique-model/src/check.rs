//! Health checks of a site, as the service file states them.

pub(crate) mod parse;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
    /// So many failures in a row turn it down.
    pub fall: u32,
    /// So many successes in a row turn it up.
    pub rise: u32,
}

/// The kinds of checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum CheckKind {
    /// A DNS query.
    Dns {
        /// Server asked.
        target: SocketAddr,
        /// Query name, without final dot or with.
        name: String,
        /// Query type mnemonic, e.g. `A`.
        qtype: String,
        /// Query class mnemonic: `IN` or `CH`.
        class: String,
        /// Expected RCODE mnemonic, e.g. `NOERROR`.
        rcode: String,
        /// Over TCP instead of UDP.
        tcp: bool,
    },
    /// An HTTP/1.1 GET.
    Http {
        /// Server asked.
        target: SocketAddr,
        /// Host header.
        host: String,
        /// Path with query.
        path: String,
        /// Expected status code.
        status: u16,
    },
    /// A TCP connection that is accepted.
    Tcp {
        /// Server connected to.
        target: SocketAddr,
    },
    /// A process that runs.
    Process {
        /// Found by the pid in this file,
        pidfile: Option<PathBuf>,
        /// or by its name: `comm` (at most 15 bytes), or the file name of its program.
        name: Option<String>,
    },
    /// A command that exits with 0; killed with its process group at the timeout.
    Exec {
        /// Program and arguments; no shell.
        command: Vec<String>,
    },
}
