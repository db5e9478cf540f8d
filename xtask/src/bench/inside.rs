//! Namespaces of a benchmark's own, below `unshare`: whatever is started there ends with it.
//!
//! The benchmark starts itself again inside, which prints its rows as JSON. Files lie in `/run`, a tmpfs of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Row, release_binary};

/// Set below `unshare`: the path of the binary.
const INSIDE: &str = "UBIQUE_BENCH_INSIDE";

/// How long anything may take that is not measured.
const PATIENCE: Duration = Duration::from_secs(120);

/// Interval between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Clock ticks of `/proc` in a second: the same on every Linux (USER_HZ).
const TICKS_PER_S: f64 = 100.0;

/// What `measure` finds with the release binary, inside.
pub fn rows(
    name: &str,
    repeat: usize,
    measure: impl FnOnce(&Path) -> Result<Vec<Row>, String>,
) -> Result<Vec<Row>, String> {
    if let Some(binary) = std::env::var_os(INSIDE) {
        sh("mount -t tmpfs tmpfs /run; mkdir /run/netns /run/ubique")?;
        let rows = measure(Path::new(&binary))?;
        println!("{}", serde_json::to_string(&rows).map_err(|e| e.to_string())?);
        std::process::exit(0);
    }
    let binary = release_binary()?;
    let myself = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg(myself).args(["bench", name, "--repeat", &repeat.to_string()]).env(INSIDE, binary);
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("unshare: {e}"))?;
    serde_json::from_slice(&output.stdout).map_err(|e| format!("{}: {e}", output.status))
}

/// Runs a script of the shell.
pub fn sh(script: &str) -> Result<(), String> {
    let status = Command::new("sh").args(["-ec", script]).stdin(Stdio::null()).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("{other:?}: {script}")),
    }
}

/// A running process; killed at the end.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// The process and its children.
    fn all(&self) -> Vec<PathBuf> {
        let pid = self.0.id();
        let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let below = listed.split_whitespace().map(|child| PathBuf::from(format!("/proc/{child}")));
        [PathBuf::from(format!("/proc/{pid}"))].into_iter().chain(below).collect()
    }

    /// Resident memory with its children.
    pub fn resident_mib(&self) -> f64 {
        let kib = |process: PathBuf| -> Option<u64> {
            let status = fs::read_to_string(process.join("status")).ok()?;
            status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.trim().split(' ').next()?.parse().ok()
        };
        self.all().into_iter().filter_map(kib).sum::<u64>() as f64 / 1024.0
    }

    /// Processor time with its children, all threads.
    pub fn cpu_s(&self) -> f64 {
        let ticks = |process: PathBuf| -> Option<u64> {
            let stat = fs::read_to_string(process.join("stat")).ok()?;
            // After the name, which may hold anything: utime and stime are fields 14 and 15 of proc(5).
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
            Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
        };
        self.all().into_iter().filter_map(ticks).sum::<u64>() as f64 / TICKS_PER_S
    }

    /// How often its threads, and those of its children, waited for something.
    pub fn waits(&self) -> u64 {
        let count = |process: PathBuf| -> Option<u64> {
            let tasks = fs::read_dir(process.join("task")).ok()?.flatten();
            let status = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
            let waits = |status: String| -> Option<u64> {
                status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
            };
            Some(status.filter_map(waits).sum())
        };
        self.all().into_iter().filter_map(count).sum()
    }
}

/// Starts a program as the shell would.
pub fn start(script: &str) -> Result<Process, String> {
    let log = fs::File::create("/run/bench.log").map_err(|e| e.to_string())?;
    let mut command = Command::new("sh");
    command.args(["-ec", &format!("exec {script}")]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().map(Process).map_err(|e| format!("{script}: {e}"))
}

/// Waits for something.
pub fn until(what: &str, mut probe: impl FnMut() -> bool) -> Result<(), String> {
    let start = Instant::now();
    while !probe() {
        if start.elapsed() > PATIENCE {
            let log = fs::read_to_string("/run/agent.log").unwrap_or_default();
            return Err(format!("not within {PATIENCE:?}: {what}\n{log}"));
        }
        sleep(LOOK);
    }
    Ok(())
}

/// BIRD in a namespace.
pub fn bird(ns: &str, protocols: &str) -> Result<Process, String> {
    let configuration = format!("router id 10.0.0.1;\nprotocol device {{}}\n{protocols}");
    fs::write(format!("/run/{ns}.conf"), configuration).map_err(|e| e.to_string())?;
    start(&format!("ip netns exec {ns} bird -f -c /run/{ns}.conf -s /run/{ns}.ctl -P /run/{ns}.pid"))
}

/// The agent of site `a`, in the namespace `site`.
pub fn agent(binary: &Path, service: &str) -> Result<Process, String> {
    fs::write("/run/service.toml", service).map_err(|e| e.to_string())?;
    start(&format!("ip netns exec site {} run /run/service.toml --site a 2> /run/agent.log", binary.display()))
}

/// What it says of itself.
pub fn status(binary: &Path) -> Option<Value> {
    let output = Command::new(binary).args(["status", "/run/service.toml", "--site", "a", "--output", "json"]).output();
    serde_json::from_slice(&output.ok()?.stdout).ok()
}

/// Whether so many upstreams have everything that is announced.
pub fn acknowledged(binary: &Path, peers: usize) -> bool {
    let is = |p: &Value| p["prefixes"].as_array().is_some_and(|x| x.iter().all(|x| x["announced"] == "acknowledged"));
    let all = status(binary).and_then(|s| s["peers"].as_array().cloned()).unwrap_or_default();
    all.len() == peers && all.iter().all(is)
}
