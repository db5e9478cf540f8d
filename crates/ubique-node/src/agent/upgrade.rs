//! `ubique upgrade` and SIGUSR2: the program is replaced in place, under graceful restart.
//!
//! The process executes the program at its own path again: same process id, same arguments, so that whoever started it does
//! not notice. Sessions break without a word, which neighbours with graceful restart take for what it is (RFC 4724); addresses
//! stay, and the successor claims what was announced (see `restart`). BFD sessions go on: a neighbour that saw one fail would drop
//! our routes, graceful restart or not. So neighbours are first polled for slow packets, by which they bear the pause, and the
//! successor goes on under the same discriminators.
//!
//! Two guards. The new program must say its version and accept the service file, as a process of its own, before this one
//! ends. And every established session must have agreed on graceful restart, or its neighbour would drop our routes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use ubique_proto::bfd::Carried;
use ubique_proto::bgp::session::Negotiated;
use ubique_sys::process::command_in;

use super::site::Agent;
use super::{AgentOptions, Request};
use crate::admin::{ReloadRequest, SCHEMA_VERSION, UpgradeReply};
use crate::clock::now;

/// How long the new program may take to say who it is, or to read the service file.
const TRIAL: Duration = Duration::from_secs(10);

/// Between the answer to whoever asked and the end of this program.
const NOTICE: Duration = Duration::from_millis(100);

/// The same, at most, where neighbours of BFD must be prepared first.
const PARTING: Duration = Duration::from_secs(2);

/// Octets of what a program says that go into a refusal.
const QUOTE_BYTES: usize = 400;

/// Replaces the program, for whoever asks.
#[derive(Clone)]
pub(super) struct Upgrader {
    /// Where this program was when it was started; there may be another one by now.
    program: Option<PathBuf>,
    file: Option<PathBuf>,
    requests: mpsc::Sender<Request>,
}

impl Upgrader {
    pub(super) fn new(options: &AgentOptions, requests: mpsc::Sender<Request>) -> Upgrader {
        let program = std::env::current_exe().ok();
        Upgrader { program, file: options.file.clone(), requests }
    }

    /// Tries the program at our path, asks the guard, and leaves the rest to the loop.
    pub(super) async fn upgrade(&self, how: ReloadRequest, who: String) -> UpgradeReply {
        let program = self.program.clone().unwrap_or_default();
        let reply = UpgradeReply {
            schema_version: SCHEMA_VERSION,
            program: program.clone(),
            version: None,
            accepted: false,
            guarded: false,
            message: None,
        };
        let refused = |reply: UpgradeReply, why: String| {
            tracing::error!(who, why, "upgrade refused: this program goes on");
            UpgradeReply { message: Some(why), ..reply }
        };
        let version = match self.try_out(&program).await {
            Ok(version) => version,
            Err(why) => return refused(reply, why),
        };
        let reply = UpgradeReply { version: Some(version), ..reply };
        let (answer, replied) = oneshot::channel();
        let request = Request::Upgrade { how, program, reply: answer };
        let answer = match self.requests.send(request).await {
            Ok(()) => replied.await.ok(),
            Err(_) => None,
        };
        match answer {
            Some(Ok(())) => {
                tracing::info!(who, version = reply.version, dry_run = how.dry_run, "upgrade: the new program is fine");
                UpgradeReply { accepted: true, ..reply }
            }
            Some(Err(why)) => refused(UpgradeReply { guarded: true, ..reply }, why),
            None => refused(reply, "the agent is ending".to_owned()),
        }
    }

    /// The version of the program, which must also accept the service file on this machine.
    async fn try_out(&self, program: &Path) -> Result<String, String> {
        let version = run(program, &["--version".into()]).await?;
        if !version.starts_with("ubique ") {
            return Err(format!("{} is not ubique: its version is {version:?}", program.display()));
        }
        if let Some(file) = &self.file {
            run(program, &["check".into(), file.into(), "--here".into()]).await?;
        }
        Ok(version)
    }
}

/// Runs a program to its end; what it said on stdout, in one line.
async fn run(program: &Path, arguments: &[OsString]) -> Result<String, String> {
    let words: Vec<_> = arguments.iter().map(|a| a.to_string_lossy()).collect();
    let what = format!("`{} {}`", program.display(), words.join(" "));
    let mut command = command_in(program, None);
    command.args(arguments).stdin(Stdio::null());
    let output = Command::from(command).kill_on_drop(true).output();
    let output = match timeout(TRIAL, output).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{what} cannot be started: {error}")),
        Err(_) => return Err(format!("{what} did not end within {TRIAL:?}")),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr[..output.stderr.len().min(QUOTE_BYTES)]).trim().to_owned();
        return Err(format!("{what} failed ({}): {said}", output.status));
    }
    let said = &output.stdout[..output.stdout.len().min(QUOTE_BYTES)];
    Ok(String::from_utf8_lossy(said).lines().next().unwrap_or_default().trim().to_owned())
}

/// An upgrade that was accepted.
pub(super) struct Leaving {
    pub program: PathBuf,
    pub due: ubique_proto::Time,
    /// BFD sessions for it.
    pub bfd: Vec<Carried>,
}

impl Agent {
    /// Whether the program may be replaced; when it may, that happens soon.
    ///
    /// # Errors
    /// A neighbour would drop our routes: in words, with its name.
    pub(super) fn upgrade(&mut self, how: ReloadRequest, program: PathBuf) -> Result<(), String> {
        if self.is_ending() {
            return Err("the agent is stopping".to_owned());
        }
        let lacking: Vec<String> = self
            .peers()
            // What the neighbour offers counts when we do, too.
            .filter(|(ours, peer)| {
                let agreed = |n: &Negotiated| ours.graceful_restart.is_some() && n.graceful_restart.is_some();
                peer.negotiated.is_some_and(|n| !agreed(n))
            })
            .map(|(upstream, _)| format!("AS{} {}", upstream.asn, upstream.address))
            .collect();
        if !lacking.is_empty() && !how.yes {
            return Err(format!(
                "no graceful restart is agreed on with {}, which would drop our routes: set `graceful-restart` on both sides, \
                 or drain the site first, or say --yes",
                lacking.join(", ")
            ));
        }
        if !how.dry_run {
            self.remember("upgrade".to_owned(), format!("{} is started in place", program.display()));
            let due = now() + if self.bfd.is_some() { PARTING } else { NOTICE };
            self.leaving = Some(Leaving { program, due, bfd: vec![] });
            if let Some(bfd) = &self.bfd {
                bfd.part();
            }
        }
        Ok(())
    }

    /// The neighbours of BFD are prepared.
    pub(super) fn parted(&mut self, bfd: Vec<Carried>) {
        if let Some(leaving) = &mut self.leaving {
            leaving.due = now() + NOTICE;
            leaving.bfd = bfd;
        }
    }

    /// The program to start now, when it is time: what the next one must know is on the disk.
    pub(super) async fn replaced(&mut self) -> Option<PathBuf> {
        if self.leaving.as_ref().is_none_or(|leaving| leaving.due > now()) {
            return None;
        }
        let leaving = self.leaving.take()?;
        self.restart.write_now(leaving.bfd);
        if let Err(error) = self.keep().kept().await {
            tracing::error!(error, "the next program will not know of drains and timed actions");
        }
        // BFD goes on until the next program begins: its thread ends with this one.
        std::mem::forget(self.bfd.take());
        Some(leaving.program)
    }
}
