//! The `exec` check: a command exits with 0. Hooks of the agent are run the same way.
//!
//! It is the leader of a process group of its own, which is killed as a whole when the poll is dropped, when
//! the command has ended (background children included), and when the agent dies.
//!
//! A thread of the check's own starts the command and waits for it. Starting takes as long as the file system of the program
//! does, for ever on one that hangs; and the kernel ties the death of a child to the thread that made it, so that
//! neither the runtime's thread nor one of a pool will do.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;
use ubique_sys::process::{Signal, command_in, signal_group};

use super::{Failure, quote, words};

/// Octets of the command's output that are kept for the cause; the rest is read and dropped.
const OUTPUT_BYTES: usize = 1024;

/// How long the output is read after the end of the command and its group.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// Stack of the thread, octets: a search through PATH needs the most of it.
const STACK_BYTES: usize = 256 << 10;

/// An `exec` check.
pub(crate) struct Exec {
    program: PathBuf,
    /// One waits while the thread is busy: a command that not even SIGKILL ends (a dead file system) must not be joined
    /// by others.
    orders: mpsc::Sender<Order>,
}

/// Start the command, and say how that went.
type Order = oneshot::Sender<io::Result<Started>>;

/// A command that runs. It is killed with its group when this is dropped.
struct Started {
    group: Arc<Group>,
    stdout: Option<process::ChildStdout>,
    stderr: Option<process::ChildStderr>,
    end: oneshot::Receiver<io::Result<ExitStatus>>,
}

impl Drop for Started {
    fn drop(&mut self) {
        let leader = self.group.lock();
        Group::kill(*leader);
    }
}

/// The group of a command: `None` once its leader is reaped. Until then its number cannot mean another group.
struct Group(Mutex<Option<u32>>);

impl Group {
    fn lock(&self) -> MutexGuard<'_, Option<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(leader: Option<u32>) {
        if let Some(leader) = leader {
            // Nobody left in it is as good.
            let _ = signal_group(leader, Signal::Kill);
        }
    }

    /// Waits for the end of the leader and kills what is left of the group.
    fn reap(&self, mut child: Child) -> io::Result<ExitStatus> {
        let (id, options) = (WaitId::Pid(Pid::from_child(&child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        while waitid(id.clone(), options).is_err_and(|errno| errno == Errno::INTR) {}
        let mut leader = self.lock();
        Group::kill(*leader);
        *leader = None;
        child.wait()
    }
}

impl Exec {
    pub(crate) fn new(command: &[String]) -> Result<Exec, String> {
        Exec::with_environment(command, vec![])
    }

    /// With these variables beside the agent's own.
    pub(crate) fn with_environment(command: &[String], environment: Vec<(String, String)>) -> Result<Exec, String> {
        let (program, arguments) = command.split_first().ok_or("no command is given")?;
        let (program, arguments) = (PathBuf::from(program), arguments.to_vec());
        let (orders, taken) = mpsc::channel(1);
        let worker = Worker { program: program.clone(), arguments, environment };
        let thread = thread::Builder::new().name("exec".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || worker.run(taken)).map_err(|e| format!("a thread cannot be started: {e}"))?;
        Ok(Exec { program, orders })
    }

    /// Runs it once.
    ///
    /// # Errors
    /// It did not exit with 0: why, in words.
    /// A command that ends with another status has judged: the service may be bad, or the command wrong. One that cannot
    /// be started, or is killed, tells nothing.
    pub(crate) async fn poll(&mut self) -> Result<(), Failure> {
        self.run().await.map(drop).map_err(|words| match words.starts_with("exit status") {
            true => Failure::of_answer(words),
            false => words.into(),
        })
    }

    /// The beginning of what it prints.
    pub(crate) async fn run(&mut self) -> Result<Vec<u8>, String> {
        let gone = "the thread that starts the command has ended";
        let (order, started) = oneshot::channel();
        self.orders.send(order).await.map_err(|_| gone)?;
        let started = started.await.map_err(|_| gone)?;
        let mut started = started.map_err(|e| format!("{}: {e}", self.program.display()))?;
        let stdout = started.stdout.take().map(ChildStdout::from_std).transpose().map_err(|e| words(&e))?;
        let stderr = started.stderr.take().map(ChildStderr::from_std).transpose().map_err(|e| words(&e))?;
        let (mut said, mut errors) = (Vec::new(), Vec::new());
        let over = Notify::new();
        let ending = async {
            let end = (&mut started.end).await;
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
        let status = end.map_err(|_| gone)?.map_err(|e| words(&e))?;
        verdict(status, if errors.is_empty() { &said } else { &errors })?;
        Ok(said)
    }
}

/// The thread's side.
struct Worker {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Worker {
    fn run(&self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.blocking_recv() {
            // Given up while an earlier command did not end.
            if order.is_closed() {
                continue;
            }
            match self.start() {
                Ok((child, started, end)) => {
                    let group = started.group.clone();
                    // One that nobody waits for any more is dropped, and with that killed.
                    drop(order.send(Ok(started)));
                    drop(end.send(group.reap(child)));
                }
                Err(error) => drop(order.send(Err(error))),
            }
        }
    }

    fn start(&self) -> io::Result<(Child, Started, oneshot::Sender<io::Result<ExitStatus>>)> {
        let mut command = command_in(Path::new(&self.program), None);
        for variable in crate::notify::VARIABLES {
            command.env_remove(variable);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let group = Arc::new(Group(Mutex::new(Some(child.id()))));
        let (end, ended) = oneshot::channel();
        let started = Started { group, stdout: child.stdout.take(), stderr: child.stderr.take(), end: ended };
        Ok((child, started, end))
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
