//! What must survive the agent: drains, timed actions, the memory of flapping.
//!
//! One small JSON file for each site. It is replaced as a whole: a new file is written beside it, synced, renamed over it,
//! and the directory synced, so that a crash at any instruction leaves the one before or the one after. A file that
//! cannot be understood is set aside (`.damaged`), said loudly, and the agent goes on with nothing remembered: what is
//! healthy is announced.
//!
//! Nothing waits for the disk but whoever asked: the loop hands a [`State`] to the [`Keeper`] and gets a [`Receipt`]; the
//! operator's answer waits for that, for a bounded time. A disk that refuses is tried again, and only the last wish counts.
//!
//! Parts are named and belong to who keeps them ([`State::keep`], [`State::part`]); one that cannot be read is lost alone.
//!
//! Deliberately absent: what the parts mean, and what is true for one boot only (the agent's `restart`).

mod disk;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use disk::{Disk, RealDisk, replace};

/// Version of the file; raised when a part of it changes its meaning.
const VERSION: u32 = 1;

/// Longest file that is read, octets.
const FILE_BYTES: u64 = 1 << 20;

/// How long an operator waits for the disk before he is told that it did not answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long after a failure it is tried again; and how often it is looked whether the file is still there.
const RETRY: Duration = Duration::from_secs(10);

/// What is kept of a site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    version: u32,
    /// Whose it is: a file of another site is none of ours.
    service: String,
    site: String,
    /// When it was written, ms since 1970: for people.
    written_ms: u64,
    parts: BTreeMap<String, Value>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("it is no state file: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("it has version {0}; this program knows {VERSION}")]
    Version(u32),
    #[error("it is that of {service}, site {site}")]
    Foreign { service: String, site: String },
}

impl State {
    /// Nothing is known of this site.
    pub(crate) fn new(service: &str, site: &str) -> State {
        State { version: VERSION, service: service.to_owned(), site: site.to_owned(), ..State::default() }
    }

    /// Keeps a part; `None`: it is over.
    pub(crate) fn keep<T: Serialize>(&mut self, name: &str, part: Option<&T>) {
        match part.map(serde_json::to_value) {
            Some(Ok(value)) => drop(self.parts.insert(name.to_owned(), value)),
            Some(Err(error)) => tracing::error!(name, %error, "cannot be remembered"),
            None => drop(self.parts.remove(name)),
        }
    }

    /// A part, when it was kept and can be read.
    pub(crate) fn part<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let value = self.parts.get(name)?;
        serde_json::from_value(value.clone())
            .inspect_err(|error| tracing::error!(name, %error, "this part of the state cannot be read: it is lost"))
            .ok()
    }

    fn parse(text: &[u8], service: &str, site: &str) -> Result<State, Damage> {
        /// Of whatever version.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_slice(text)?;
        if head.version != VERSION {
            return Err(Damage::Version(head.version));
        }
        let state: State = serde_json::from_slice(text)?;
        if (state.service.as_str(), state.site.as_str()) != (service, site) {
            return Err(Damage::Foreign { service: state.service, site: state.site });
        }
        Ok(state)
    }

    fn text(&self, wall: SystemTime) -> Vec<u8> {
        let written_ms = unix_ms(wall);
        let mut text = serde_json::to_vec_pretty(&State { written_ms, ..self.clone() }).unwrap_or_default();
        text.push(b'\n');
        text
    }
}

/// The wall clock as it is kept: ms since 1970.
pub(crate) fn unix_ms(wall: SystemTime) -> u64 {
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Reads what was kept of a site; what cannot be used is set aside.
fn load(path: &Path, service: &str, site: &str) -> State {
    let nothing = State::new(service, site);
    let text = match RealDisk.read(path, FILE_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return nothing,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "the state of this site cannot be read: drains and timed actions are forgotten");
            return nothing;
        }
    };
    match State::parse(&text, service, site) {
        Ok(state) => state,
        Err(damage) => {
            let aside = beside(path, "damaged");
            let kept = RealDisk.rename(path, &aside).map_or_else(
                |error| format!("and it cannot be set aside: {error}"),
                |()| format!("it is now {}", aside.display()),
            );
            tracing::error!(path = %path.display(), %damage, kept, "the state of this site is unusable: drains and timed actions are forgotten");
            nothing
        }
    }
}

/// Replaces a file, and waits for the disk: after a crash it is the old one or the new one.
pub(crate) fn replace_file(path: &Path, text: &[u8]) -> io::Result<()> {
    replace(&mut RealDisk, path, text)
}

/// `NAME.suffix` beside `NAME`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// A wish and what became of it.
#[derive(Clone, Debug, Default)]
struct Outcome {
    number: u64,
    error: Option<String>,
}

/// Keeps the state of a site on the disk.
pub(crate) struct Keeper {
    wanted: watch::Sender<(u64, State)>,
    outcome: watch::Receiver<Outcome>,
}

/// What tells whether a state has been kept.
#[derive(Debug)]
pub(crate) struct Receipt {
    number: u64,
    outcome: watch::Receiver<Outcome>,
}

impl Keeper {
    /// Reads what is there, and starts to keep what comes. Must be called on the runtime; reads the disk.
    pub(crate) fn start(path: PathBuf, service: &str, site: &str) -> (Keeper, State) {
        let state = load(&path, service, site);
        let (wanted, wishes) = watch::channel((0, state.clone()));
        let (tell, outcome) = watch::channel(Outcome::default());
        tokio::task::spawn_local(write_all(path, wishes, tell));
        (Keeper { wanted, outcome }, state)
    }

    /// Has `state` written, in the place of every one before it; nothing is done when it is the one already wanted.
    pub(crate) fn keep(&self, state: &State) -> Receipt {
        self.wanted.send_if_modified(|(number, now)| {
            let changed = now != state;
            if changed {
                *number += 1;
                now.clone_from(state);
            }
            changed
        });
        Receipt { number: self.wanted.borrow().0, outcome: self.outcome.clone() }
    }

    /// Why the last wish is not on the disk, when that is so.
    pub(crate) fn error(&self) -> Option<String> {
        self.outcome.borrow().error.clone()
    }
}

impl Receipt {
    /// Waits until the state, or a later one, is on the disk.
    ///
    /// # Errors
    /// It is not: why, in words.
    pub(crate) async fn kept(mut self) -> Result<(), String> {
        let number = self.number;
        match timeout(PATIENCE, self.outcome.wait_for(|o| o.number >= number)).await {
            Ok(Ok(outcome)) => outcome.error.clone().map_or(Ok(()), Err),
            Ok(Err(_)) => Err("the agent is ending".to_owned()),
            Err(_) => Err(format!("the disk does not answer within {PATIENCE:?}")),
        }
    }
}

/// Whether the file is there; when that cannot be told, it is.
async fn is_there(path: &Path) -> bool {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || path.try_exists().unwrap_or(true)).await.unwrap_or(true)
}

/// Writes every wish, or the last of several; ends with the keeper.
async fn write_all(path: PathBuf, mut wishes: watch::Receiver<(u64, State)>, tell: watch::Sender<Outcome>) {
    loop {
        let failed = tell.borrow().error.is_some();
        match timeout(RETRY, wishes.changed()).await {
            Ok(Err(_)) => return,
            Ok(Ok(())) => {}
            // What nobody ever wished for, or is on the disk, needs no other look.
            Err(_) if wishes.borrow().0 == 0 => continue,
            Err(_) if !failed && is_there(&path).await => continue,
            Err(_) if !failed => {
                tracing::warn!(path = %path.display(), "the state of this site was deleted: writing it again");
            }
            Err(_) => {}
        }
        let (number, state) = wishes.borrow_and_update().clone();
        let to = path.clone();
        let write = move || replace(&mut RealDisk, &to, &state.text(SystemTime::now()));
        let error = match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("cannot write {}: {error}", path.display())),
            Err(error) => Some(error.to_string()),
        };
        match &error {
            Some(error) if !failed => {
                tracing::error!(
                    error,
                    "the state of this site is not on the disk: a restart would forget drains and timed actions"
                );
            }
            None if failed => tracing::info!(path = %path.display(), "the state of this site is on the disk again"),
            _ => {}
        }
        tell.send_replace(Outcome { number, error });
    }
}
