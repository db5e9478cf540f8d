//! The BGP routers of the emulated Internet: embedded, BIRD or FRR, one way to look at them.
//!
//! All three follow the same policy ([`ubique_model::policy`]) and the same decision process with the same
//! tie-breaks (router id, then neighbour address), so that who lands where does not depend on the choice.
//! [`Routers`] starts them, tells when they are quiet, and shows what each of them knows about a prefix.
//!
//! Deliberately absent: BGP. The embedded routers live in `ubique-node`, started as `ubique internal routers`.

mod bird;
mod embedded;
mod frr;
mod table;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ubique_model::{Asn, Prefix, Relation};

pub use crate::explain::Candidate;

use crate::build::Built;
use crate::child::{Exit, Process};
use crate::control::ControlError;
use crate::plan::Plan;

/// LOCAL_PREF of a route with GRACEFUL_SHUTDOWN (RFC 8326 §5) in BIRD and FRR: below every other one. Their exports tell
/// customers' routes by preference, so that those of customers need one of their own.
fn graceful_preference(relation: Relation) -> u32 {
    u32::from(relation == Relation::Customer)
}

/// How long routers may take until they listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a router may take to answer a question.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// What routes the emulated Internet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Our own speaker, all networks in one process.
    #[default]
    Embedded,
    /// BIRD 2, one process for each network.
    Bird,
    /// FRR's zebra and bgpd, two processes for each network.
    Frr,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Embedded => "embedded",
            Backend::Bird => "bird",
            Backend::Frr => "frr",
        })
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Backend::Embedded),
            "bird" => Ok(Backend::Bird),
            "frr" => Ok(Backend::Frr),
            _ => Err(format!("{text:?} is none of embedded, bird, frr")),
        }
    }
}

/// Sessions of all routers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Session ends that are established.
    pub established: usize,
    /// All session ends.
    pub sessions: usize,
    /// Since the last UPDATE in or out, or change of a session.
    pub quiet_ms: u64,
}

/// Where routers are started and what from.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The `ubique` program.
    pub executable: PathBuf,
    /// Work files: sockets, specifications, configurations.
    pub directory: PathBuf,
    /// Logs.
    pub logs: PathBuf,
    /// Seed of jitter.
    pub seed: u64,
}

/// Why routers do not run or do not answer.
#[derive(Debug, thiserror::Error)]
pub enum RoutersError {
    /// A program is not installed.
    #[error("{program} is not installed (looked in {places}); on Debian: apt install {package}")]
    Missing {
        /// Its name.
        program: &'static str,
        /// Where it was looked for.
        places: String,
        /// The Debian package.
        package: &'static str,
    },
    /// The backend cannot do what the service file asks for.
    #[error("{backend} routers: {reason}")]
    Unsupported {
        /// Which.
        backend: Backend,
        /// What.
        reason: String,
    },
    /// A file or process could not be made.
    #[error("{what}: {source}")]
    Start {
        /// What.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A router ended.
    #[error("{0}")]
    Ended(Exit),
    /// A router does not listen in time.
    #[error("{name} does not answer after {seconds} s{log}", seconds = START_TIMEOUT.as_secs())]
    NotReady {
        /// Which.
        name: String,
        /// The end of its log, after a newline.
        log: String,
    },
    /// A question had no answer.
    #[error("{name}: {source}")]
    Query {
        /// Who was asked.
        name: String,
        /// Why not.
        source: ControlError,
    },
    /// An answer was not understood.
    #[error("{name}: unexpected answer: {answer}")]
    Answer {
        /// Who was asked.
        name: String,
        /// What it said, cut short.
        answer: String,
    },
    /// There is no such network.
    #[error("AS{0} is not in the plan")]
    NoNetwork(Asn),
}

fn start_failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> RoutersError {
    let what = what.into();
    move |source| RoutersError::Start { what, source }
}

/// The routers of all networks of a plan.
pub struct Routers {
    backend: Backend,
    running: Running,
}

enum Running {
    Embedded(embedded::Embedded),
    Bird(bird::Birds),
    Frr(frr::Frrs),
}

impl Routers {
    /// Starts the routers and waits until they listen; sessions come up afterwards.
    ///
    /// # Errors
    /// [`RoutersError`]: a program is missing or ends, or a file cannot be written.
    pub fn start(backend: Backend, plan: &Plan, built: &Built, launch: &Launch) -> Result<Routers, RoutersError> {
        let running = match backend {
            Backend::Embedded => Running::Embedded(embedded::Embedded::start(plan, built, launch)?),
            Backend::Bird => Running::Bird(bird::Birds::start(plan, built, launch)?),
            Backend::Frr => Running::Frr(frr::Frrs::start(plan, built, launch)?),
        };
        Ok(Routers { backend, running })
    }

    /// Which kind they are.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Sessions and quiet time. For BIRD and FRR, quiet is judged by comparing with the previous call.
    ///
    /// # Errors
    /// [`RoutersError`] when a router does not answer.
    pub fn status(&mut self) -> Result<Status, RoutersError> {
        match &mut self.running {
            Running::Embedded(r) => r.status(),
            Running::Bird(r) => r.status(),
            Running::Frr(r) => r.status(),
        }
    }

    /// What the router of a network knows about a prefix, best first.
    ///
    /// # Errors
    /// [`RoutersError`] when there is no such network or its router does not answer.
    pub fn candidates(&mut self, asn: Asn, prefix: Prefix) -> Result<Vec<Candidate>, RoutersError> {
        match &mut self.running {
            Running::Embedded(r) => r.candidates(asn, prefix),
            Running::Bird(r) => r.candidates(asn, prefix),
            Running::Frr(r) => r.candidates(asn, prefix),
        }
    }

    /// Routers that ended since the last call.
    pub fn exits(&mut self) -> Vec<Exit> {
        self.processes().iter_mut().filter_map(Process::unexpected_exit).collect()
    }

    /// Ends all routers.
    pub fn stop(mut self) {
        for process in self.processes() {
            process.expect_end();
        }
    }

    fn processes(&mut self) -> &mut [Process] {
        match &mut self.running {
            Running::Embedded(r) => r.processes(),
            Running::Bird(r) => r.processes(),
            Running::Frr(r) => r.processes(),
        }
    }
}

/// Finds an installed program.
fn find_program(program: &'static str, places: &[&str], package: &'static str) -> Result<PathBuf, RoutersError> {
    let found = places.iter().map(|p| Path::new(p).join(program)).find(|p| p.is_file());
    found.ok_or_else(|| RoutersError::Missing { program, places: places.join(", "), package })
}
