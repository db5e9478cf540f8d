//! Starting rehearsals and looking for what they leave behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use crate::common::{installed, root, work_directory};

/// One rehearsal at a time: each wants the machine for itself.
static MACHINE: Mutex<()> = Mutex::new(());
/// A user that owns nothing.
const NOBODY: u32 = 65534;
/// What is left behind must be gone by then: a busy kernel takes its time to end hundreds of namespaces.
const CLEAN_UP: Duration = Duration::from_secs(60);

/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The right to rehearse, and how.
pub struct Lab {
    _machine: MutexGuard<'static, ()>,
    /// The program; a copy of its own, so that its processes can be told from others'.
    program: PathBuf,
    nobody: bool,
}

impl Lab {
    /// As the user of the tests. `None`, with a line that says so: this kernel or user may not make namespaces.
    pub fn new() -> Option<Lab> {
        Lab::open(false)
    }

    /// As a user without any rights. `None`: the tests do not run as root, or that user may not make namespaces.
    pub fn ordinary_user() -> Option<Lab> {
        if !rustix::process::geteuid().is_root() || !installed("setpriv") {
            eprintln!("skipped: only root can become another user");
            return None;
        }
        Lab::open(true)
    }

    fn open(nobody: bool) -> Option<Lab> {
        let machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = work_directory(if nobody { "program-nobody" } else { "program" });
        let program = directory.join("ubique-under-test");
        // A running program cannot be overwritten, but its name can be given to another file.
        let _ = fs::remove_file(&program);
        fs::copy(env!("CARGO_BIN_EXE_ubique"), &program).expect("a copy of the program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it may be executed");
        static REFUSED: [OnceLock<Option<String>>; 2] = [const { OnceLock::new() }; 2];
        let lab = Lab { _machine: machine, program, nobody };
        let refused = REFUSED[usize::from(nobody)].get_or_init(|| lab.refused());
        if let Some(words) = refused {
            eprintln!("skipped: {words}");
            return None;
        }
        Some(lab)
    }

    /// Why no lab can be had here, as the program puts it.
    fn refused(&self) -> Option<String> {
        let output = self.output(&["rehearse", "--scenario", &scenario("probe", "")]);
        let words = String::from_utf8_lossy(&output.stderr);
        let refused = output.status.code() == Some(3) && words.contains("namespace") && !words.contains("converged");
        refused.then(|| words.trim().to_owned())
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = if self.nobody {
            let id = NOBODY.to_string();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(&self.program);
            command
        } else {
            // A test that was started in the background of a shell would ignore SIGINT, and so would its children.
            let mut command = Command::new("env");
            command.arg("--default-signal=INT").arg(&self.program);
            command
        };
        command.args(arguments).current_dir("/").env("NO_COLOR", "1");
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// The report of a rehearsal that must not end with an error.
    pub fn report(&self, arguments: &[&str]) -> Value {
        let output = self.output(&[arguments, &["--output", "json"]].concat());
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}: {words}", output.status);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {words}"));
        let fine = output.status.code() == Some(0);
        assert_eq!(fine, report["verdict"]["ok"] == true, "the exit code tells the verdict: {}", output.status);
        report
    }

    /// The report of a rehearsal that must end well. Where the prober itself stood still, the machine was too busy to
    /// measure: then it is played again, a bounded number of times.
    pub fn played(&self, arguments: &[&str]) -> Value {
        let failed = |report: Value| panic!("{:#}\n{:#}", report["verdict"], report["events"]);
        self.attempt(arguments, |_| true).unwrap_or_else(failed)
    }

    /// The same; an error is the report of one that did not end well, whether or not the machine was busy. `again`: whether
    /// playing it once more could make a difference.
    pub fn attempt(&self, arguments: &[&str], again: impl Fn(&Value) -> bool) -> Result<Value, Value> {
        const ATTEMPTS: usize = 3;
        for attempt in 1.. {
            let report = self.report(arguments);
            if report["verdict"]["ok"] == true {
                return Ok(report);
            }
            let stalled = report["probe"]["stalls"].as_u64().is_some_and(|stalls| stalls > 0);
            if !stalled || attempt == ATTEMPTS || !again(&report) {
                return Err(report);
            }
            eprintln!("the prober stood still on this busy machine, once more: {:#}", report["verdict"]);
        }
        unreachable!("the loop returns")
    }
}

/// What a lab could leave behind on this machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Traces {
    pub processes: usize,
    mounts: BTreeSet<String>,
    links: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
}

impl Traces {
    pub fn now(lab: &Lab) -> Traces {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let links = fs::read_dir("/sys/class/net").expect("links").flatten();
        let files = ["/run", "/tmp"].iter().flat_map(fs::read_dir).flatten().flatten().map(|e| e.path());
        Traces {
            processes: processes(&lab.program),
            mounts: mounts.lines().map(str::to_string).collect(),
            links: links.map(|link| link.file_name().to_string_lossy().into_owned()).collect(),
            files: files.filter(|path| path.to_string_lossy().contains("ubique")).collect(),
        }
    }

    /// Everything is as before, at the latest when the kernel has cleaned up.
    pub fn expect_unchanged(&self, lab: &Lab) {
        let deadline = Instant::now() + CLEAN_UP;
        while Traces::now(lab) != *self && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
        assert_eq!(*self, Traces::now(lab));
    }
}

/// Processes that run the program.
fn processes(program: &Path) -> usize {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter(|entry| fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program)).count()
}

/// A scenario file: convergence, then the steps given.
pub fn scenario(name: &str, steps: &str) -> String {
    let file = work_directory("scenarios").join(format!("{name}.toml"));
    let text = format!("name = \"{name}\"\n\n[[step]]\naction = \"converge\"\nwithin = \"60s\"\n\n{steps}");
    fs::write(&file, text).expect("a scenario file");
    file.display().to_string()
}

/// Reads the child's stderr until a line contains `text`.
pub fn wait_for_line(child: &mut Child, text: &str, patience: Duration) -> BufReader<ChildStderr> {
    let deadline = Instant::now() + patience;
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let mut said = String::new();
    while stderr.read_line(&mut said).expect("a line") > 0 {
        if said.lines().next_back().is_some_and(|line| line.contains(text)) {
            return stderr;
        }
        assert!(Instant::now() < deadline, "no {text:?} in time:\n{said}");
    }
    panic!("the program ended without {text:?}:\n{said}");
}

/// How the child ended; `None`, and killed, when it does not end in time.
pub fn wait_for_end(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + CLEAN_UP;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("its status") {
            return Some(status);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
