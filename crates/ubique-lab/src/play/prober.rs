//! The vantage points' process and the log it fills.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ubique_model::service::Ask;
use ubique_sys::process::command_in;

use crate::measure::Log;
use crate::plan::Plan;
use crate::probe::record::{ReadError, Reader};
use crate::probe::{EVERY_OTHER, ProbeSpec, ProbeVantage, TIMEOUT, http};

use super::{PlayError, Setup};

/// Port of the service that is asked.
fn port(ask: Ask) -> u16 {
    match ask {
        Ask::Dns => 53,
        Ask::Http => 80,
        Ask::Ntp => 123,
    }
}

/// Interval of the queries to the first address: connections are made more rarely than datagrams are sent.
pub(super) fn every(setup: &Setup) -> Duration {
    let shortest = if setup.service.rehearse.ask == Ask::Http { http::SHORTEST_EVERY } else { Duration::ZERO };
    setup.scenario.query_every.max(shortest)
}

/// The running process and what it told so far.
pub(super) struct Prober {
    child: Child,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    log: Mutex<Log>,
    /// Why reading ended, when it should not have.
    failed: Mutex<Option<ReadError>>,
}

impl Prober {
    /// Starts the vantage points; every query from now on is recorded.
    pub fn start(setup: &Setup, plan: &Plan, directory: &Path) -> Result<Prober, PlayError> {
        let spec = spec(setup, plan, directory);
        let file = directory.join("probe.json");
        let json = serde_json::to_vec(&spec).map_err(io::Error::from).map_err(PlayError::Prober)?;
        fs::write(&file, json).map_err(PlayError::Prober)?;
        let mut child = command_in(&setup.executable, None)
            .args(["internal", "probe"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(PlayError::Prober)?;
        let shared = Arc::new(Shared {
            log: Mutex::new(Log::new(spec.vantages.len(), spec.addresses.len())),
            failed: Mutex::new(None),
        });
        if let Some(stdout) = child.stdout.take() {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("records".into())
                .spawn(move || read(stdout, &shared))
                .map_err(PlayError::Prober)?;
        }
        Ok(Prober { child, shared })
    }

    /// What was recorded so far.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error when the process is gone or its records cannot be read.
    pub fn check(&mut self) -> Result<(), PlayError> {
        if let Some(error) = self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(PlayError::Records(error));
        }
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(PlayError::Prober(io::Error::other(format!("ended with {status}")))),
            Err(error) => Err(PlayError::Prober(error)),
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        // It has nothing to clean up: its sockets close with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(stdout: ChildStdout, shared: &Shared) {
    let mut reader = Reader::new(stdout);
    loop {
        let mut records = Vec::new();
        match reader.read(|record| records.push(record)) {
            Ok(more) => {
                let mut log = shared.log.lock().unwrap_or_else(PoisonError::into_inner);
                records.into_iter().for_each(|record| log.record(record));
                if !more {
                    return;
                }
            }
            Err(error) => {
                *shared.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return;
            }
        }
    }
}

fn spec(setup: &Setup, plan: &Plan, directory: &Path) -> ProbeSpec {
    let vantages = plan.vantages.iter().map(|v| ProbeVantage {
        name: v.name.clone(),
        netns: directory.join("ns").join(&v.netns),
        ipv4: Some(v.ipv4),
        ipv6: Some(v.ipv6),
    });
    let ask = setup.service.rehearse.ask;
    ProbeSpec {
        vantages: vantages.collect(),
        addresses: setup.service.addresses.iter().map(|&a| SocketAddr::new(a, port(ask))).collect(),
        every: every(setup),
        every_other: EVERY_OTHER.max(every(setup)),
        timeout: timeout(setup),
        query: ask.into(),
    }
}

/// A query without answer by then is lost. A connection takes two round trips.
fn timeout(setup: &Setup) -> Duration {
    if setup.service.rehearse.ask == Ask::Http { TIMEOUT * 2 } else { TIMEOUT }
}

/// How long after the last query its outcome is known.
pub(super) fn settle(setup: &Setup) -> Duration {
    timeout(setup) + Duration::from_millis(200)
}
