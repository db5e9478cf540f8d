//! The `process` and `systemd` checks: a process runs, found by its pid file, its name, or the unit it belongs to.
//!
//! A found process is held by a pidfd, which cannot come to mean another process; `/proc` is searched again
//! only after it has ended.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};
use ubique_model::check::CheckKind;
use ubique_sys::file::read_at_once;
use ubique_sys::netns::NetNs;
use ubique_sys::process::{self, PidFd};

use super::{quote, unit, words};

/// Longest pid file that makes sense, octets.
const PIDFILE_BYTES: usize = 64;

/// How a process is found.
#[derive(Clone, Debug)]
pub(crate) enum Find {
    /// By the number in this file.
    Pidfile(PathBuf),
    /// By its name (`comm`).
    Name {
        /// The name.
        name: String,
        /// Only in this network namespace.
        network: Option<Arc<NetNs>>,
    },
    /// By the unit of systemd it belongs to.
    Unit(String),
}

impl Find {
    /// What a check looks for; `None`: not for processes.
    pub(crate) fn of(kind: &CheckKind) -> Option<Result<Find, String>> {
        match kind {
            CheckKind::Process { pidfile, name } => Some(Find::new(pidfile.as_deref(), name.as_deref())),
            CheckKind::Systemd { unit } => Some(Ok(Find::Unit(unit.clone()))),
            _ => None,
        }
    }

    fn new(pidfile: Option<&Path>, name: Option<&str>) -> Result<Find, String> {
        match (pidfile, name) {
            (Some(path), _) => Ok(Find::Pidfile(path.to_owned())),
            (None, Some(name)) => Ok(Find::Name { name: name.to_owned(), network: NetNs::special().map(Arc::new) }),
            (None, None) => Err("neither a pid file nor a name is given".to_owned()),
        }
    }

    /// The processes it means now.
    pub(crate) fn pids(&self) -> Result<Vec<u32>, String> {
        match self {
            Find::Pidfile(path) => read_pid(path).map(|pid| vec![pid]),
            Find::Name { name, network } => {
                let mut pids = process::find_by_name(name).map_err(|e| words(&e))?;
                if let Some(network) = network {
                    let here = process::members_of_netns(network).map_err(|e| words(&e))?;
                    pids.retain(|pid| here.contains(pid));
                }
                Ok(pids)
            }
            Find::Unit(unit) => Ok(unit::processes(unit)),
        }
    }
}

impl Find {
    /// A process that runs, at best the one found before. Reads files: not on the runtime's thread.
    pub(crate) fn look(&self, held: Option<(u32, PidFd)>) -> Look {
        if let (Find::Pidfile(path), Some((pid, fd))) = (self, held)
            && read_pid(path)? == pid
            && !fd.exited().map_err(|e| words(&e))?
        {
            return Ok((pid, fd));
        }
        self.running(self.pids()?)
    }

    /// The same where nothing is to be waited for: a pid file that is at hand. `None`: that is not so.
    pub(crate) fn look_at_once(&self) -> Option<Look> {
        let Find::Pidfile(path) = self else { return None };
        let text = read_at_once(path, PIDFILE_BYTES)?;
        Some(parse_pid(path, &text).and_then(|pid| self.running(vec![pid])))
    }

    /// The first of these that runs.
    fn running(&self, pids: Vec<u32>) -> Look {
        for pid in pids {
            // It may have ended since it was found.
            if let Ok(fd) = PidFd::open(pid)
                && !fd.exited().map_err(|e| words(&e))?
            {
                return Ok((pid, fd));
            }
        }
        Err(match self {
            Find::Pidfile(path) => format!("the process of {} does not run", path.display()),
            Find::Name { name, .. } => format!("no process is named {name:?}"),
            Find::Unit(unit) => format!("unit {unit} has no process"),
        })
    }
}

fn read_pid(path: &Path) -> Result<u32, String> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(PIDFILE_BYTES as u64).read_to_end(&mut text))
        .map_err(|e| format!("{}: {e}", path.display()))?;
    parse_pid(path, &text)
}

fn parse_pid(path: &Path, text: &[u8]) -> Result<u32, String> {
    let pid = std::str::from_utf8(text).ok().and_then(|t| t.trim().parse().ok()).filter(|&pid: &u32| pid > 0);
    pid.ok_or_else(|| format!("{}: {:?} is not a pid", path.display(), quote(text)))
}

/// A `process` or `systemd` check.
pub(super) struct Process {
    find: Find,
    held: Option<(u32, PidFd)>,
    /// A look that a poll did not wait for. The next poll waits for it rather than begin another: files and `/proc` may
    /// hang, and looks must not pile up.
    look: Option<JoinHandle<Look>>,
}

/// The process found, or why there is none.
pub(crate) type Look = Result<(u32, PidFd), String>;

impl Process {
    pub(super) fn new(find: Find) -> Process {
        Process { find, held: None, look: None }
    }

    pub(super) async fn poll(&mut self) -> Result<(), String> {
        if let (Find::Name { .. } | Find::Unit(_), Some((_, fd))) = (&self.find, &self.held)
            && !fd.exited().map_err(|e| words(&e))?
        {
            return Ok(());
        }
        let (find, held) = (self.find.clone(), self.held.take());
        let look = self.look.get_or_insert_with(|| spawn_blocking(move || find.look(held)));
        let found = look.await;
        self.look = None;
        self.held = Some(found.map_err(|e| e.to_string())??);
        Ok(())
    }
}
