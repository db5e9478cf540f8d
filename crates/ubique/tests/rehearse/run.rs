//! Starting rehearsals and looking for what they leave behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use crate::common::{installed, root, work_directory};

/// One rehearsal at a time: each wants the machine for itself.
static MACHINE: Mutex<()> = Mutex::new(());
/// A user that owns nothing.
const NOBODY: u32 = 65534;
/// What is left behind must be gone by then.
const CLEAN_UP: Duration = Duration::from_secs(5);

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
        let lab = Lab { _machine: machine, program, nobody };
        let scenario = scenario("probe", "");
        let output = lab.output(&["rehearse", "--scenario", &scenario]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() == Some(3) && words.contains("namespace") && !words.contains("converged") {
            eprintln!("skipped: {}", words.trim());
            return None;
        }
        Some(lab)
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
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {words}"))
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
            std::thread::yield_now();
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
pub fn wait_for_line(child: &mut Child, text: &str, patience: Duration) {
    let deadline = Instant::now() + patience;
    let stderr = child.stderr.take().expect("stderr is piped");
    for line in BufReader::new(stderr).lines() {
        let line = line.expect("a line");
        if line.contains(text) {
            return;
        }
        assert!(Instant::now() < deadline, "no {text:?} in time; last: {line}");
    }
    panic!("the program ended without {text:?}");
}

/// How the child ended; `None`, and killed, when it does not end in time.
pub fn wait_for_end(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + CLEAN_UP;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("its status") {
            return Some(status);
        }
        std::thread::yield_now();
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
