//! The `exec` check: a command exits with 0.
//!
//! It is the leader of a process group of its own, which is killed as a whole when the poll is dropped, when
//! the command has ended (background children included), and when the agent dies.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::time::sleep;
use ubique_sys::process::{PidFd, Signal, command_in, signal_group};

use super::{quote, words};
use crate::fd::exited;

/// Octets of the command's output that are kept for the cause; the rest is read and dropped.
const OUTPUT_BYTES: usize = 1024;

/// How long the output is read after the end of the command and its group.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// An `exec` check.
pub(super) struct Exec {
    program: PathBuf,
    arguments: Vec<String>,
    /// The command of the last poll. One that not even SIGKILL ends (a dead file system) must not be joined by others.
    last: Option<PidFd>,
}

/// Kills the group when dropped.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        // Nobody left in it is as good.
        let _ = signal_group(self.0, Signal::Kill);
    }
}

impl Exec {
    pub(super) fn new(command: &[String]) -> Result<Exec, String> {
        let (program, arguments) = command.split_first().ok_or("no command is given")?;
        Ok(Exec { program: PathBuf::from(program), arguments: arguments.to_vec(), last: None })
    }

    pub(super) async fn poll(&mut self) -> Result<(), String> {
        self.run().await.map(drop)
    }

    /// The beginning of what it prints.
    pub(super) async fn run(&mut self) -> Result<Vec<u8>, String> {
        if let Some(last) = self.last.take()
            && !last.exited().map_err(|e| words(&e))?
        {
            let last = self.last.insert(last);
            exited(last.try_clone().map_err(|e| words(&e))?).await.map_err(|e| words(&e))?;
        }
        let mut command = command_in(Path::new(&self.program), None);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut command = Command::from(command);
        let mut child: Child =
            command.kill_on_drop(true).spawn().map_err(|e| format!("{}: {e}", self.program.display()))?;
        let group = Group(child.id().ok_or("the command ended before it began")?);
        self.last = Some(PidFd::open(group.0).map_err(|e| words(&e))?);
        let ended = exited(PidFd::open(group.0).map_err(|e| words(&e))?);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (mut said, mut errors) = (Vec::new(), Vec::new());
        let over = Notify::new();
        let ending = async {
            let end = ended.await;
            // Before the leader is reaped: until then its number cannot mean another group.
            drop(group);
            over.notify_one();
            end
        };
        let reading = async {
            tokio::select! {
                _ = async { tokio::join!(drain(stdout, &mut said), drain(stderr, &mut errors)) } => {}
                // Who left the group may hold the pipes open: the end of the command counts.
                () = async { over.notified().await; sleep(LAST_WORDS).await } => {}
            }
        };
        let (end, ()) = tokio::join!(ending, reading);
        end.map_err(|e| words(&e))?;
        let status = child.wait().await.map_err(|e| words(&e))?;
        verdict(status, if errors.is_empty() { &said } else { &errors })?;
        Ok(said)
    }
}

fn verdict(status: ExitStatus, said: &[u8]) -> Result<(), String> {
    if status.success() {
        return Ok(());
    }
    let said = quote(said);
    Err(if said.is_empty() { status.to_string() } else { format!("{status}: {said}") })
}

/// Reads to the end and keeps the beginning.
async fn drain(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = [0u8; OUTPUT_BYTES];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        let room = OUTPUT_BYTES - kept.len();
        kept.extend_from_slice(&chunk[..count.min(room)]);
    }
}
