//! The sandbox, seen from outside: what it looks like inside, and that nothing of it is left.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod ground;
mod runner;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use runner::{Helper, wait_until};
use rustix::mount::MountFlags;
use rustix::thread::CapabilitySet;
use ubique_sys::netlink::Netlink;
use ubique_sys::netns::NetNs;
use ubique_sys::process::{self, Signal};
use ubique_sys::sandbox::{self, Sandbox, SandboxError};

/// The role of a process whose session leader it cannot see.
const LED_FROM_OUTSIDE: &str = "led from outside";
const SOON: Duration = Duration::from_secs(10);

fn main() {
    match runner::role().as_deref() {
        Some(LED_FROM_OUTSIDE) => return led_from_outside(),
        Some(role) => return front(role),
        None => {}
    }
    match sandbox::spawn(|| 0) {
        Err(error @ SandboxError::Denied { .. }) => return eprintln!("skipped: {error}"),
        started => assert_eq!(started.unwrap().wait().unwrap(), 0),
    }
    runner::run(
        runner::Where::Here,
        &[
            ("exit_codes_come_out", exit_codes_come_out),
            ("inside_is_a_machine_of_its_own", inside_is_a_machine_of_its_own),
            ("children_and_orphans_are_kept_apart", children_and_orphans_are_kept_apart),
            ("signals_reach_main", signals_reach_main),
            ("threads_are_refused", threads_are_refused),
            ("sandboxes_nest", sandboxes_nest),
            ("a_session_led_from_outside_is_left_alone", a_session_led_from_outside_is_left_alone),
            ("root_of_a_container_gets_one_too", root_of_a_container_gets_one_too),
            ("refusals_come_with_advice", refusals_come_with_advice),
            ("nothing_is_left_after_a_killed_front", nothing_is_left_after_a_killed_front),
            ("nothing_is_left_after_kill", nothing_is_left_after_kill),
        ],
    );
}

fn started(main: impl FnOnce() -> i32) -> Sandbox {
    sandbox::spawn(main).unwrap()
}

fn exit_codes_come_out() {
    for code in [0, 7, 255] {
        assert_eq!(started(|| code).wait().unwrap(), code);
    }
    assert_eq!(started(|| panic!("expected: this test panics in a sandbox")).wait().unwrap(), 101);
    let killed = started(|| {
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
        0
    });
    assert_eq!(killed.wait().unwrap(), 128 + libc::SIGKILL);
}

fn inside_is_a_machine_of_its_own() {
    let directory = std::env::current_dir().unwrap();
    let outside = NetNs::current().unwrap().inode().unwrap();
    let code = started(|| {
        assert!(rustix::process::geteuid().is_root() && rustix::process::getegid().is_root());
        assert_eq!(std::process::id(), 2);
        assert_eq!(rustix::process::getppid().unwrap().as_raw_nonzero().get(), 1);
        assert_eq!(rustix::process::getsid(None).unwrap().as_raw_nonzero().get(), 1);
        assert_eq!(std::env::current_dir().unwrap(), directory);
        assert_eq!(std::fs::read_dir("/run").unwrap().count(), 0);
        std::fs::write("/run/file", "ours").unwrap();
        assert_ne!(NetNs::current().unwrap().inode().unwrap(), outside);
        // Threads are no problem in here.
        std::thread::spawn(|| Netlink::open().unwrap().links().unwrap()).join().unwrap();
        0
    });
    assert_eq!(code.wait().unwrap(), 0);
    assert!(!Path::new("/run/file").exists());
}

fn children_and_orphans_are_kept_apart() {
    let code = started(|| {
        // The shell leaves its background process behind, which ends later.
        for _ in 0..50 {
            let status = Command::new("sh").args(["-c", "sleep 0.01 & exit 3"]).status();
            assert_eq!(status.unwrap().code(), Some(3));
        }
        let only_us = || process::find_by_name("sleep").unwrap().is_empty();
        assert!(wait_until(SOON, only_us), "zombies");
        0
    });
    assert_eq!(code.wait().unwrap(), 0);
}

fn signals_reach_main() {
    for (signal, number) in [(Signal::Term, libc::SIGTERM), (Signal::Int, libc::SIGINT)] {
        let sandbox = started(|| {
            loop {
                std::thread::park();
            }
        });
        sandbox.signal(signal).unwrap();
        assert_eq!(sandbox.wait().unwrap(), 128 + number);
    }
}

fn threads_are_refused() {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv());
    let refused = sandbox::spawn(|| 0);
    assert!(matches!(refused, Err(SandboxError::Threads(2))), "{refused:?}");
    drop(stop);
    assert!(thread.join().unwrap().is_err());
}

fn sandboxes_nest() {
    let outer = started(|| {
        std::fs::write("/run/outer", "").unwrap();
        let inner = started(|| {
            assert!(!Path::new("/run/outer").exists());
            assert_eq!(std::process::id(), 2);
            5
        });
        inner.wait().unwrap()
    });
    assert_eq!(outer.wait().unwrap(), 5);
}

/// Without `CAP_SYS_ADMIN` and with parts of `/proc` masked, as containers are by default.
/// As in a container that `docker exec` or `unshare --pid` made without setsid(2).
fn a_session_led_from_outside_is_left_alone() {
    let code = started(|| {
        let mut command = Command::new("unshare");
        let own = std::env::current_exe().unwrap();
        command.args(["--pid", "--fork", "--mount-proc"]).arg(own).env(runner::ROLE, LED_FROM_OUTSIDE);
        command.status().unwrap().code().unwrap()
    });
    assert_eq!(code.wait().unwrap(), 0);
}

fn led_from_outside() {
    // SAFETY: no pointers.
    assert_eq!(unsafe { (libc::getsid(0), libc::getpgid(0)) }, (0, 0), "nobody we could see");
    let autogroup = || std::fs::read_to_string("/proc/self/autogroup").ok();
    let before = autogroup();
    ubique_sys::priority::prefer_own_session();
    assert_eq!(autogroup(), before);
    assert_eq!(process::members_of_group(std::process::id()).unwrap(), []);
}

fn root_of_a_container_gets_one_too() {
    let container = started(|| {
        rustix::mount::mount("tmpfs", "/proc/sys", "tmpfs", MountFlags::empty(), None).unwrap();
        let mut sets = rustix::thread::capabilities(None).unwrap();
        for set in [&mut sets.effective, &mut sets.permitted] {
            set.remove(CapabilitySet::SYS_ADMIN);
        }
        rustix::thread::set_capabilities(None, sets).unwrap();
        let inner = started(|| {
            let own = std::process::id();
            assert_eq!(own, 2);
            // It had to stay with the outer /proc, and sees through that.
            assert_ne!(std::fs::read_link("/proc/self").unwrap(), Path::new(&own.to_string()));
            rustix::thread::set_name(c"inside").unwrap();
            assert_eq!(process::find_by_name("inside").unwrap(), [own]);
            let ns = NetNs::create_at(Path::new("/run/ns")).unwrap();
            ns.run(|| std::net::TcpListener::bind("[::1]:0").unwrap()).unwrap();
            4
        });
        inner.wait().unwrap()
    });
    assert_eq!(container.wait().unwrap(), 4);
}

fn refusals_come_with_advice() {
    if std::env::var_os(runner::UNPRIVILEGED).is_none() {
        // The limit below would be that of the whole machine.
        return;
    }
    let code = started(|| {
        std::fs::write("/proc/sys/user/max_net_namespaces", "0").unwrap();
        let text = match sandbox::spawn(|| 0) {
            Err(error @ SandboxError::Denied { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(text.contains("/proc/sys/user/max_"), "{text}");
        0
    });
    assert_eq!(code.wait().unwrap(), 0);
}

/// A name that only the processes of one run bear.
fn name_of(front: u32) -> String {
    format!("sb-{front}")
}

/// The program that owns a sandbox with links, mounts and processes, and is killed.
fn front(role: &str) {
    let name = name_of(std::process::id());
    let (read, write) = rustix::pipe::pipe().unwrap();
    let sandbox = started(|| {
        rustix::thread::set_name(&std::ffi::CString::new(name.as_str()).unwrap()).unwrap();
        let a = NetNs::create_at(Path::new("/run/ubique/ns/a")).unwrap();
        let mut netlink = Netlink::open().unwrap();
        netlink.add_veth(("sb-left", None), ("sb-right", Some(&a))).unwrap();
        // One that tries to outlive everything: its own session, all signals ignored, and its parent gone.
        let script = format!("printf %s {name} >/proc/self/comm; trap '' HUP INT TERM; while :; do sleep 1; done");
        Command::new("setsid").args(["-f", "sh", "-c", &script]).status().unwrap();
        let there = || process::find_by_name(&name).unwrap().len() == 2;
        assert!(wait_until(SOON, there));
        rustix::io::write(&write, b"!").unwrap();
        loop {
            std::thread::park();
        }
    });
    drop(write);
    let mut byte = [0];
    assert_eq!(rustix::io::read(&read, &mut byte).unwrap(), 1, "no sandbox");
    println!("ready");
    if role == "killer" {
        sandbox.kill();
        println!("{}", sandbox.wait().unwrap());
    }
    loop {
        std::thread::park();
    }
}

/// What the machine has outside of sandboxes.
fn outside() -> (Vec<String>, Vec<String>) {
    let links = Netlink::open().unwrap().links().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let names = links.into_iter().map(|link| link.name);
    (names.collect(), mounts.lines().map(String::from).collect())
}

fn nothing_is_left_after_a_killed_front() {
    let before = outside();
    let mut front = Helper::start("front");
    assert_eq!(front.line(), "ready");
    let name = name_of(front.child.id());
    assert_eq!(process::find_by_name(&name).unwrap().len(), 2);
    assert_eq!(outside(), before);
    front.child.kill().unwrap();
    assert!(wait_until(SOON, || process::find_by_name(&name).unwrap().is_empty()));
    assert_eq!(outside(), before);
}

fn nothing_is_left_after_kill() {
    let before = outside();
    let mut front = Helper::start("killer");
    assert_eq!(front.line(), "ready");
    assert_eq!(front.line(), (128 + libc::SIGKILL).to_string());
    // Not soon, but at once: `wait` returns after the last process has ended.
    let name = name_of(front.child.id());
    assert_eq!(process::find_by_name(&name).unwrap(), [] as [u32; 0]);
    assert_eq!(outside(), before);
}
