//! Every example is played with the real daemon: two sites, clients that land on the nearest one, a daemon that dies
//! and comes back. Where the kernel grants no namespaces, or a daemon is not installed, a test says so and passes.
//!
//! Rehearsals of examples may run side by side: what they expect leaves room for a busy machine.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{installed, root, work_directory};
use serde_json::Value;
use ubique_model::check::{CheckKind, Counts};
use ubique_model::policy::Level;
use ubique_model::service::Service;

/// Times a rehearsal is played when the prober itself stood still.
const ATTEMPTS: usize = 3;
/// What is waited for has failed by then.
const PATIENCE: Duration = Duration::from_secs(60);

fn ubique() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ubique"));
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn example(path: &str) -> String {
    fs::canonicalize(root()).expect("the workspace").join("examples").join(path).display().to_string()
}

/// Whether all of them are there; else a line that says what is not.
fn have(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| !installed(program));
    missing.iter().for_each(|program| eprintln!("skipped: {program} is not installed"));
    missing.is_none()
}

/// Plays the failover scenario, which must end well. Datagrams are not lost in a drain; a connection may be, where its
/// packets go to another site before it stands.
fn fails_over(service: &str, datagrams: bool) {
    let scenario = example("failover-scenario.toml");
    for attempt in 1.. {
        let output = ubique().args(["rehearse", service, "--scenario", &scenario, "--output", "json"]).output();
        let output = output.expect("the program starts");
        let words = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(3) && words.contains("namespace") && !words.contains("converged") {
            return eprintln!("skipped: {}", words.trim());
        }
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {words}"));
        let drained = report["faults"].as_array().and_then(|faults| faults.last()).expect("faults");
        if report["verdict"]["ok"] == true && (!datagrams || drained["lost"] == 0) {
            return;
        }
        let stalled = report["probe"]["stalls"].as_u64().is_some_and(|stalls| stalls > 0);
        assert!(stalled && attempt < ATTEMPTS, "{:#}\n{drained:#}\n{words}", report["verdict"]);
        eprintln!("the prober stood still on this busy machine, once more: {:#}", report["verdict"]);
    }
}

#[test]
fn nsd_fails_over() {
    if have(&["nsd"]) {
        fails_over(&example("nsd/service.toml"), true);
    }
}

/// As the README says: another word in the service file.
#[test]
fn knot_fails_over() {
    if have(&["knotd"]) {
        let text = fs::read_to_string(example("nsd/service.toml")).expect("the example");
        let service = work_directory("knot").join("service.toml");
        let knot = text.replace("\"nsd\"", "\"knotd\"").replace("{directory}", &example("nsd"));
        assert_ne!(knot, text);
        fs::write(&service, knot).expect("a service file");
        fails_over(&service.display().to_string(), true);
    }
}

#[test]
fn unbound_fails_over() {
    if have(&["unbound"]) {
        fails_over(&example("unbound/service.toml"), true);
    }
}

#[test]
fn nginx_fails_over() {
    if have(&["nginx"]) {
        fails_over(&example("nginx/service.toml"), false);
    }
}

#[test]
fn chrony_fails_over() {
    if have(&["chronyd", "perl"]) {
        fails_over(&example("chrony/service.toml"), true);
    }
}

/// The check `fresh` as the service file has it, with a `dig` that tells what each server would.
#[test]
fn an_older_serial_degrades_the_site() {
    let text = fs::read(example("nsd/service.toml")).expect("the example");
    let service = Service::parse("service.toml", &text).value.expect("it is valid");
    let check = service.checks.iter().find(|check| check.name == "fresh").expect("the check");
    let CheckKind::Exec { command } = &check.kind else { panic!("{check:?}") };
    assert_eq!(check.counts, Counts::Alone(Level::Degraded));
    let bin = work_directory("dig");
    let dig = "#!/bin/sh\ncase \"$*\" in *@198.51.100.53) echo \"$OURS\" ;; *@192.0.2.253) echo \"$THEIRS\" ;; esac\n";
    fs::write(bin.join("dig"), dig).expect("a script");
    fs::set_permissions(bin.join("dig"), fs::Permissions::from_mode(0o755)).expect("its mode");
    let soa = |serial: &str| format!("ns1.example.com. hostmaster.example.com. {serial} 3600 600 1209600 300");
    let fresh = |ours: &str, theirs: &str| {
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let mut run = Command::new(&command[0]);
        run.args(&command[1..]).env("PATH", path).env("OURS", ours).env("THEIRS", theirs);
        run.output().expect("a shell").status.success()
    };
    assert!(fresh(&soa("7"), &soa("7")));
    assert!(!fresh(&soa("6"), &soa("7")), "behind");
    assert!(fresh(&soa("8"), &soa("7")), "ahead, for a moment");
    assert!(!fresh(&soa("4294967295"), &soa("0")), "serials wrap around");
    assert!(!fresh("", &soa("7")), "no answer from ourselves");
    assert!(fresh(&soa("6"), ""), "a primary that is silent proves nothing");
    assert!(
        fresh(&soa("6"), ";; communications error to 192.0.2.253#53: timed out"),
        "nor does one that is out of reach"
    );
}

/// A switch with FRR, two hosts, a client: the script checks what the client sees.
#[test]
fn a_rack_with_frr_fails_over() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can make the rack's namespaces");
    }
    if !have(&["bgpd", "bfdd", "vtysh", "nsd", "dig", "ip"]) {
        return;
    }
    let output = Command::new(example("rack/rehearse")).env("UBIQUE", env!("CARGO_BIN_EXE_ubique")).output();
    let output = output.expect("the script starts");
    let (said, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if words.contains("unshare failed") {
        return eprintln!("skipped: {}", words.trim());
    }
    assert!(output.status.success(), "{said}\n{words}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "both hosts serve: answered by host-a host-b",
            "the daemon of host-a was killed: answered by host-b",
            "it is back: answered by host-a host-b"
        ]
    );
}

/// A router, two sites with nginx, curl and a browser: the script checks what they see of route changes and of a drain.
#[test]
fn downloads_outlive_a_route_change_and_a_drain_ends_connections() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can make the namespaces of two sites");
    }
    if !have(&["bird", "birdc", "nginx", "openssl", "curl", "ip", "nsenter"]) {
        return;
    }
    let output = Command::new(example("hybrid/rehearse")).env("UBIQUE", env!("CARGO_BIN_EXE_ubique")).output();
    let output = output.expect("the script starts");
    let (said, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if words.contains("unshare failed") {
        return eprintln!("skipped: {}", words.trim());
    }
    words.lines().filter(|line| line.starts_with("skipped: ")).for_each(|line| eprintln!("{line}"));
    assert!(output.status.success(), "{said}\n{words}");
    // That line takes chromium.
    let lines: Vec<&str> = said.lines().filter(|line| !line.ends_with("a browser")).collect();
    assert_eq!(
        lines,
        [
            "307: a download from the site's own name is whole",
            "no redirect: one from the anycast address is cut off",
            "no redirect, asked again from where it was cut off: whole",
            "Alt-Svc: the next connection goes to the site's own address",
            "a drain: every request of those who keep connections is answered, and their connections end",
            "the route changes when nobody is left: no connection is reset",
            "new connections go to the other site",
            "a download from before the drain ends as it should",
            "Alt-Svc: who was told of the other site bears that this one is gone, others do not",
        ]
    );
}

#[test]
fn the_units_of_the_hook_are_right() {
    if have(&["systemd-analyze"]) {
        let units = ["path", "service"].map(|kind| example(&format!("hybrid/nginx-drain.{kind}")));
        let output = Command::new("systemd-analyze").arg("verify").args(units).output().expect("it starts");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && words.is_empty(), "{words}");
    }
}

/// A lab that stays up, to look around in.
struct Kept {
    rehearsal: Child,
    pid: String,
}

impl Kept {
    /// `None`, with a line that says so: no namespaces here.
    fn start(service: &str) -> Option<Kept> {
        let scenario = work_directory("kept").join("converge.toml");
        let internet = example("failover-internet.toml");
        let text = format!(
            "name = \"converge\"\ninternet = \"{internet}\"\n\n[[step]]\naction = \"converge\"\nwithin = \"60s\"\n"
        );
        fs::write(&scenario, text).expect("a scenario file");
        let mut command = ubique();
        command.args(["rehearse", service, "--keep", "--scenario"]).arg(&scenario);
        let mut rehearsal = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let stderr = BufReader::new(rehearsal.stderr.take().expect("stderr is piped"));
        let mut kept = Kept { rehearsal, pid: String::new() };
        let mut said = String::new();
        for line in stderr.lines() {
            let line = line.expect("a line");
            if let Some((_, pid)) = line.split_once("nsenter --all --target ") {
                kept.pid = pid.trim().to_owned();
            }
            if line.contains("the lab stays up") {
                return Some(kept);
            }
            said.push_str(&line);
            said.push('\n');
        }
        assert!(said.contains("namespace"), "the rehearsal ended: {said}");
        eprintln!("skipped: {}", said.trim());
        None
    }

    /// What a command prints that runs on a site.
    fn on_site(&self, site: &str, command: &[&str]) -> String {
        let namespace = format!("--net=/run/ubique/ns/site-{site}");
        let mut enter = Command::new("nsenter");
        enter.args(["--all", "--target", &self.pid, "nsenter", &namespace]).args(command);
        let output = enter.stdin(Stdio::null()).output().expect("nsenter starts");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.rehearsal.kill();
        let _ = self.rehearsal.wait();
    }
}

fn until(what: &str, mut probe: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(seen) = probe() {
        assert!(Instant::now() < deadline, "{what}: {seen}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_drain_shortens_the_connections_of_nginx() {
    if !have(&["nginx", "curl", "nsenter"]) {
        return;
    }
    let service = example("nginx/service.toml");
    let Some(lab) = Kept::start(&service) else { return };
    let head = || lab.on_site("lon", &["curl", "-s", "-o", "/dev/null", "-D", "-", "http://198.51.100.80/"]);
    let connection = |wanted: &'static str| {
        move |head: String| {
            let is = head.lines().any(|line| line.trim_end() == format!("Connection: {wanted}"));
            if is && head.contains("X-Served-By: lon") { Ok(()) } else { Err(head) }
        }
    };
    let program = PathBuf::from(env!("CARGO_BIN_EXE_ubique")).display().to_string();
    let ask = |verb: &str, more: &[&str]| {
        let command = [&program, verb, "--socket", "/run/ubique/agent-lon.sock", "--reason", "test"];
        lab.on_site("lon", &[&command[..], more].concat())
    };
    until("connections stay open", || connection("keep-alive")(head()));
    let said = ask("drain", &["--detach", "--yes"]);
    until(&format!("connections are closed: {said}"), || connection("close")(head()));
    let said = ask("undrain", &[]);
    until(&format!("connections stay open again: {said}"), || connection("keep-alive")(head()));
}
