//! The sandbox of the agent: as an ordinary user with what the unit grants and no more, against BIRD; what it gave up,
//! and what a program of a check cannot do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use ubique_model::check::CheckKind;
use ubique_model::service::{Bfd, Service, Upstream};
use ubique_node::admin::Status;
use ubique_proto::site::State;
use ubique_sys::privilege::Capabilities;
use ubique_sys::process::Signal;

use crate::daemons::{BIRD, Bird};
use crate::lab::{self, Lab, Process, children_of, start, until, until_true};
use crate::roles::myself;
use crate::runner::Test;
use crate::{reload, sessions};

const SETPRIV: &str = "/usr/bin/setpriv";
const UNIT: &str = include_str!("../../../../pkg/systemd/ubique@.service");
const NOBODY: u32 = 65534;
/// A copy of this binary that another user may execute.
const PROGRAM: &str = "/run/agent";

pub const TESTS: &[Test] = &[
    Test { name: "an_ordinary_user_with_the_units_limits", needs: &[BIRD, SETPRIV], run: as_the_unit },
    Test { name: "an_ordinary_user_with_the_units_limits_is_upgraded", needs: &[BIRD, SETPRIV], run: upgraded },
    Test { name: "root_gives_up_what_is_not_needed", needs: &[BIRD], run: as_root },
    Test { name: "without_a_sandbox_nothing_is_given_up", needs: &[BIRD], run: without },
    Test { name: "a_service_manager_is_told", needs: &[BIRD], run: told },
];

/// Puts the program there as packages do: beside it, then over it.
fn install() {
    fs::copy(myself(), "/run/agent.new").unwrap();
    fs::set_permissions("/run/agent.new", fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename("/run/agent.new", PROGRAM).unwrap();
}

/// A setting of the unit.
fn unit(key: &str) -> Vec<String> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("the unit has no {key}")).split_whitespace().map(str::to_owned).collect()
}

/// `CapEff`, `Seccomp` and the like of a thread.
fn field(status: &Path, name: &str) -> String {
    let text = fs::read_to_string(status).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {name} in\n{text}")).trim().to_owned()
}

fn threads(pid: u32) -> Vec<std::path::PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|task| task.unwrap().path().join("status")).filter(|status| status.exists()).collect()
}

/// What programs of checks must not be able to do, and how they know that they are confined.
const FORBIDDEN: &str = "! unshare --user true && ! unshare --net true && ! mount -t tmpfs none /mnt && ! touch /etc/ubique-was-here && \
    grep -q '^Seccomp:.2' /proc/self/status && grep -q '^NoNewPrivs:.1' /proc/self/status";

fn service_with(script: &str) -> Service {
    let mut service = lab::service();
    let command = CheckKind::Exec { command: ["sh", "-c", script].map(String::from).to_vec() };
    let mut check = lab::check("confined", command);
    check.every = Duration::from_millis(500);
    check.timeout = Duration::from_millis(500);
    service.checks.push(check);
    let bfd = Bfd { interval: Duration::from_millis(100), receive: Duration::from_millis(100), multiplier: 5 };
    service.sites[0].upstreams.iter_mut().for_each(|upstream| upstream.bfd = Some(bfd));
    service
}

/// Up, killed, back, drained at the end: all of it under the limits.
fn lives(lab: &Lab, bird: &mut Bird, agent: &mut Process) {
    lab.wait_for_addresses();
    let mut dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    until_true("BFD is up", || lab::status().peers.iter().all(|p| p.bfd.as_ref().is_some_and(|b| b.state == "up")));
    dns.kill();
    until_true("withdrawn", || bird.has_none());
    let _dns = lab.dns();
    until_true("announced again", || bird.has_both());
    agent.signal(Signal::Term);
    until_true("withdrawn", || bird.has_none());
    assert_eq!(agent.wait(), 0);
    assert_eq!(lab.service_addresses(), 0);
}

/// Whether there is another user at all: only root's sandbox has one.
pub fn may_be_another() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let other = map.split_whitespace().nth(2).is_some_and(|count| count != "1");
    if !other {
        println!("skipped: needs another user, which only root's sandbox has");
    }
    other
}

/// Confined programs, which have no capability.
fn unit_service() -> Service {
    service_with(&format!("{FORBIDDEN} && grep -q '^CapEff:.0000000000000000' /proc/self/status"))
}

/// Starts the agent as an ordinary user with what the unit grants.
pub fn start_as_the_unit(lab: &Lab, service: &Service) -> Process {
    // RuntimeDirectory, StateDirectory, and the program where another user may execute it.
    for directory in ["/run/ubique", "/run/state"] {
        fs::create_dir_all(directory).unwrap();
        std::os::unix::fs::chown(directory, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    install();
    lab.files(service);
    let granted: Vec<String> =
        unit("AmbientCapabilities").iter().map(|c| c.trim_start_matches("CAP_").to_lowercase()).collect();
    assert_eq!(unit("CapabilityBoundingSet"), unit("AmbientCapabilities"));
    let set = format!("-all,+{}", granted.join(",+"));
    let mut arguments = vec!["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"];
    for kind in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        arguments.extend([kind, &set]);
    }
    arguments.extend([PROGRAM, "role", "agent", "/run/service.json", "ams"]);
    let agent = start(&lab.site, "agent", Path::new(SETPRIV), &arguments);
    until_true("confined", || agent.log().contains("system calls are limited"));
    agent
}

/// What only an agent with `[sessions]` keeps.
const DATA_PLANE: [&str; 2] = ["CAP_BPF", "CAP_PERFMON"];

/// What every thread of such an agent has: the unit's capabilities for itself, and none for what it starts.
fn assert_confined(agent: &Process) {
    assert_confined_to(agent, |capability| !DATA_PLANE.contains(&capability));
}

/// The same for an agent with `[sessions]`.
#[cfg(feature = "sessions")]
pub fn assert_confined_with_data_plane(agent: &Process) {
    assert_confined_to(agent, |_| true);
}

fn assert_confined_to(agent: &Process, keeps: impl Fn(&str) -> bool) {
    let mut expected = unit("AmbientCapabilities");
    expected.retain(|capability| keeps(capability));
    expected.sort();
    for thread in threads(agent.pid()) {
        assert_eq!(field(&thread, "Seccomp"), "2", "{}", thread.display());
        assert_eq!(field(&thread, "NoNewPrivs"), "1");
        assert_eq!(field(&thread, "CapAmb"), "0000000000000000");
        assert_eq!(field(&thread, "CapInh"), "0000000000000000");
        let held = Capabilities::parse(&field(&thread, "CapPrm")).unwrap().to_string();
        let mut held: Vec<&str> = held.split(' ').collect();
        held.sort_unstable();
        assert_eq!(held, expected);
        assert_eq!(field(&thread, "Uid").split_whitespace().next(), Some("65534"));
    }
}

fn as_the_unit() {
    if !may_be_another() {
        return;
    }
    let lab = Lab::new();
    let mut bird = Bird::start_with_bfd(&lab.router, "on");
    let mut agent = start_as_the_unit(&lab, &unit_service());
    assert_confined(&agent);
    until_true("the watchdog is there", || watchdog(agent.pid()).is_some());
    let watchdog = format!("/proc/{}/status", watchdog(agent.pid()).unwrap());
    until_true("it is confined, too", || field(Path::new(&watchdog), "Seccomp") == "2");
    assert_eq!(field(Path::new(&watchdog), "CapPrm"), "0000000000000000");
    lives(&lab, &mut bird, &mut agent);
    assert!(!Path::new("/etc/ubique-was-here").exists());
}

/// The capabilities of an ordinary user would end with its program, were they not handed over.
fn upgraded() {
    if !may_be_another() {
        return;
    }
    let lab = Lab::new();
    let mut bird = sessions::aware(&lab, "bfd on;");
    let mut service = lab::patient(unit_service());
    // A busy machine is no reason for a loss.
    let interval = Duration::from_millis(300);
    let bfd = Some(Bfd { interval, receive: interval, multiplier: 5 });
    service.sites[0].upstreams = vec![Upstream { bfd, ..sessions::restarting(60) }];
    let mut agent = start_as_the_unit(&lab, &service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    let bfd_up = || lab::status().peers[0].bfd.as_ref().is_some_and(|b| b.state == "up");
    until_true("both prefixes announced, and BFD up", || bird.has_both() && bfd_up());
    until_true("it is remembered", sessions::remembered);
    let before = lab::status().peers[0].since.clone();
    install();
    let reply = reload::upgrade_how(false, false);
    assert!(reply.accepted, "{reply:?}");
    until_true("another session, announced again", || {
        assert!(bird.has_both(), "the routes stay");
        let again = |s: &Status| s.peers[0].state == "established" && s.peers[0].since != before;
        lab::try_status().is_some_and(|s| s.state == State::Announced && again(&s))
    });
    until_true("nothing is stale any more", || bird.has_both() && !sessions::is_stale(&mut bird));
    assert_confined(&agent);
    until_true("confined programs run as before", || lab::status().checks.iter().all(|c| c.up && c.polls > 2));
    assert_eq!(lab.service_addresses(), 2);
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
    assert_eq!(lab.service_addresses(), 0, "it may still take them away");
}

fn watchdog(agent: u32) -> Option<u32> {
    let name =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "ubique-watchdog\n");
    children_of(agent).into_iter().find(name)
}

fn as_root() {
    let lab = Lab::new();
    let mut bird = Bird::start_with_bfd(&lab.router, "on");
    // Root of a sandbox may write to /etc where the sandbox is root's; that is what the unit is for.
    let script = FORBIDDEN.replace("&& ! touch /etc/ubique-was-here ", "");
    let mut agent = lab.agent(&service_with(&script));
    until_true("confined", || agent.log().contains("system calls are limited"));
    for thread in threads(agent.pid()) {
        let kept = u64::from_str_radix(&field(&thread, "CapPrm"), 16).unwrap();
        // SYS_ADMIN, SYS_MODULE, SETUID are not among them; NET_ADMIN is.
        assert_eq!(kept & (1 << 21 | 1 << 16 | 1 << 7), 0, "{kept:x}");
        assert_ne!(kept & 1 << 12, 0, "{kept:x}");
        assert_eq!(field(&thread, "Seccomp"), "2");
    }
    lives(&lab, &mut bird, &mut agent);
}

fn without() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let mut service = lab::service();
    service.agent.sandbox = false;
    let agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    assert!(agent.log().contains("no sandbox: the service file says"));
    assert_eq!(field(&threads(agent.pid())[0], "Seccomp"), "0");
}

fn told() {
    let manager = UnixDatagram::bind("/run/notify").unwrap();
    manager.set_read_timeout(Some(lab::PATIENCE)).unwrap();
    let hear = || {
        let mut buffer = [0; 2048];
        let length = manager.recv(&mut buffer).expect("a word in time");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    fs::write("/run/service.json", serde_json::to_vec(&lab::service()).unwrap()).unwrap();
    let program = myself();
    let program = program.to_str().unwrap();
    let arguments =
        ["NOTIFY_SOCKET=/run/notify", "WATCHDOG_USEC=400000", program, "role", "agent", "/run/service.json", "ams"];
    let mut agent = start(&lab.site, "agent", Path::new("/usr/bin/env"), &arguments);
    let expect = |word: &str| until(word, || Some(hear()).filter(|said| said.starts_with(word)));
    expect("READY=1");
    let _dns = lab.dns();
    expect("STATUS=announced: ");
    until_true("both prefixes announced", || bird.has_both());
    expect("WATCHDOG=1");
    agent.signal(Signal::Term);
    expect("STOPPING=1");
    assert_eq!(agent.wait(), 0);
}
