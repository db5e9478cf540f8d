//! A process of the lab: started with a log file, watched, ended.
//!
//! Each leads a process group of its own and dies with the thread that started it ([`command_in`]), so start
//! processes from the lab's main thread.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ubique_sys::netns::NetNs;
use ubique_sys::process::{self, Signal, command_in, with_hostname};

/// How much of the end of a log is told when a process has failed.
const TAIL_BYTES: u64 = 2000;
/// Interval of looking again while waiting for a condition.
const POLL: Duration = Duration::from_millis(2);

/// A process that ended without being told to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// What it was: `agent of site lon`.
    pub name: String,
    /// How it ended: `exit status: 1`, `signal: 9 (SIGKILL)`.
    pub status: String,
    /// The end of its log.
    pub log: String,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ended: {}", self.name, self.status)?;
        if self.log.is_empty() { Ok(()) } else { write!(f, "\n{}", self.log) }
    }
}

/// A running process of the lab, killed with its process group when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Its end is no news: it was told to end, or its end was reported.
    expected: bool,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `program` in `namespace` with its output in `log`, which is appended to.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn start(
        name: impl Into<String>,
        program: &Path,
        arguments: &[String],
        namespace: &NetNs,
        log: PathBuf,
    ) -> io::Result<Process> {
        Process::spawn(name.into(), command_in(program, Some(namespace)), arguments, log)
    }

    /// Likewise on a machine of that name: its host name is `hostname`.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start_on(
        hostname: &str,
        name: impl Into<String>,
        (program, arguments): (&Path, &[String]),
        namespace: &NetNs,
        log: PathBuf,
    ) -> io::Result<Process> {
        let mut command = command_in(program, Some(namespace));
        with_hostname(&mut command, hostname);
        Process::spawn(name.into(), command, arguments, log)
    }

    fn spawn(name: String, mut command: Command, arguments: &[String], log: PathBuf) -> io::Result<Process> {
        let output = File::options().create(true).append(true).open(&log)?;
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", command.get_program().display())))?;
        Ok(Process { name, child, log, expected: false, status: None })
    }

    /// Its process id, which is also the id of its group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it ended; `None`: it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Its end will be no news.
    pub fn expect_end(&mut self) {
        self.expected = true;
    }

    /// Signals its process group; one that has ended is no error.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.status().is_some() {
            return Ok(());
        }
        match process::signal_group(self.pid(), signal) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Waits for its end; false: it still runs after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        wait_until(timeout, || self.status().is_some())
    }

    /// Its end, if that is news: once.
    pub fn unexpected_exit(&mut self) -> Option<Exit> {
        let status = self.status()?;
        if std::mem::replace(&mut self.expected, true) {
            return None;
        }
        Some(self.exit(status))
    }

    fn exit(&self, status: ExitStatus) -> Exit {
        let status = match status.signal() {
            Some(signal) => format!("signal {signal}"),
            None => status.to_string(),
        };
        Exit { name: self.name.clone(), status, log: tail(&self.log) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status().is_none() {
            let _ = process::signal_group(self.pid(), Signal::Kill);
            let _ = self.child.wait();
        }
    }
}

/// Looks at a condition until it holds or `timeout` is over.
pub(crate) fn wait_until(timeout: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

/// The last whole lines of a log.
pub(crate) fn tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let start = length.saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(match text.split_once('\n') {
            Some((_, rest)) if start > 0 => rest.to_owned(),
            _ => text,
        })
    };
    read().unwrap_or_default().trim_end().to_owned()
}
