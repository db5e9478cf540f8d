//! The sandbox of an agent: what it gives up, when, and what it keeps.
//!
//! In three steps. Before any thread exists [`Privileges::reduce`] gives up capabilities, for good: threads, the watchdog
//! and programs of checks have no more than is kept. The watchdog's process keeps none. Once the sockets are open and the
//! threads run, [`Privileges::filter`] limits the system calls of all of them (`ubique_sys::seccomp`).
//!
//! What cannot be done on a machine is said in the log, and the agent goes on: a site that serves without a sandbox is
//! better than one that does not.

use std::io;

use ubique_model::service::Service;
use ubique_sys::privilege::{self, Capabilities};
use ubique_sys::seccomp::{Calls, Filter};

/// What an agent needs as long as it lives. NET_ADMIN: service addresses that somebody removed, events of sockets, keys
/// of sessions. NET_BIND_SERVICE: port 179, again after a reload. NET_RAW: sessions bound to an interface, packet
/// counters. SYS_NICE: the BFD thread. SYS_PTRACE, which the unit does not grant: who holds a socket, in `/proc`.
const KEPT: Capabilities = Capabilities::NET_ADMIN
    .and(Capabilities::NET_BIND_SERVICE)
    .and(Capabilities::NET_RAW)
    .and(Capabilities::SYS_NICE)
    .and(Capabilities::SYS_PTRACE);

/// What the data plane of `[sessions]` needs besides: programs and maps. Not SYS_ADMIN, to which alone the kernel shows what others
/// have loaded.
const DATA_PLANE: Capabilities = Capabilities::BPF.and(Capabilities::PERFMON);

/// Without these something of the service file may not work.
const WANTED: Capabilities = Capabilities::NET_ADMIN.and(Capabilities::NET_BIND_SERVICE);

/// What was given up.
#[derive(Clone, Debug, Default)]
pub struct Privileges {
    /// `None`: the service file wants no sandbox.
    outcome: Option<Result<Capabilities, String>>,
    /// The service file has `[sessions]`.
    data_plane: bool,
}

impl Privileges {
    /// Gives up, for this thread and all that it starts, every capability that an agent does not need.
    ///
    /// Root keeps CAP_DAC_OVERRIDE besides: files of the package belong to another user. Call it before threads exist.
    pub fn reduce(service: &Service) -> Privileges {
        let keep = if privilege::is_root() { KEPT.and(Capabilities::DAC_OVERRIDE) } else { KEPT };
        let data_plane = service.sessions.is_some();
        let keep = if data_plane { keep.and(DATA_PLANE) } else { keep };
        let outcome = service.agent.sandbox.then(|| privilege::reduce(keep).map_err(|error| error.to_string()));
        Privileges { outcome, data_plane }
    }

    /// What the watchdog's process may do; `None`: everything.
    pub(super) fn watchdog(&self) -> Option<Filter> {
        self.outcome.as_ref().and_then(|_| Filter::new(Calls::Watchdog).ok())
    }

    /// Limits the system calls of all threads, and says in the log what the sandbox is.
    pub(super) fn filter(&self) {
        match &self.outcome {
            None => return tracing::warn!("no sandbox: the service file says `sandbox = false`"),
            Some(Err(error)) => tracing::warn!(error, "no sandbox: capabilities cannot be given up here"),
            Some(Ok(kept)) => {
                tracing::info!(%kept, "sandbox: other capabilities are given up");
                let lacking = WANTED.without(*kept);
                if !lacking.is_empty() {
                    tracing::warn!(%lacking, "capabilities are missing: see `ubique doctor`");
                }
            }
        }
        let calls = if self.data_plane { Calls::AgentWithBpf } else { Calls::Agent };
        match Filter::new(calls).and_then(|filter| filter.apply()) {
            Ok(()) => tracing::info!("sandbox: system calls are limited"),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(%error, "sandbox: system calls are not limited");
            }
            Err(error) => tracing::warn!(%error, "sandbox: the kernel takes no filter, system calls are not limited"),
        }
    }
}
