//! Processes and the sockets they hold, on the real kernel.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod ground;
mod runner;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use ground::{namespace, readable};
use runner::{Helper, wait_until};
use ubique_sys::process::{self, PidFd, Signal};
use ubique_sys::sockdiag::{self, DestroyMonitor, Destroyed, Listener};

/// More than any of this takes, much less than the patience of the runner.
const SOON: Duration = Duration::from_secs(60);

fn main() {
    match runner::role().as_deref() {
        Some("sleep") => return sleep(),
        Some("serve") => return serve(),
        Some("parent") => return parent(),
        _ => {}
    }
    runner::run(
        runner::Where::Sandbox,
        &[
            ("pidfd_tells_the_exit", pidfd_tells_the_exit),
            ("processes_are_found", processes_are_found),
            ("processes_are_found_through_an_outer_proc", processes_are_found_through_an_outer_proc),
            ("groups_are_signalled", groups_are_signalled),
            ("children_die_with_their_parent", children_die_with_their_parent),
            ("children_hold_no_socket_before_exec", children_hold_no_socket_before_exec),
            ("listeners_and_their_owners", listeners_and_their_owners),
            ("killed_servers_are_reported", killed_servers_are_reported),
            ("ends_of_connections_are_not_reported", ends_of_connections_are_not_reported),
            ("lost_news_is_told", lost_news_is_told),
        ],
    );
}

fn sleep() {
    println!("ready");
    loop {
        std::thread::park();
    }
}

const PORT: u16 = 5353;

fn serve() {
    let _udp = [UdpSocket::bind(("127.0.0.1", PORT)).unwrap(), UdpSocket::bind(("::1", PORT)).unwrap()];
    let _tcp = [TcpListener::bind(("127.0.0.1", PORT)).unwrap(), TcpListener::bind(("::1", PORT)).unwrap()];
    sleep();
}

fn parent() {
    let mut child = Helper::start("sleep");
    child.line();
    println!("{}", child.child.id());
    sleep();
}

/// One that never gets to its program, as with a dead file system, does not keep a connection of its parent's open.
fn children_hold_no_socket_before_exec() {
    let (mut near, far) = UnixStream::pair().unwrap();
    near.set_read_timeout(Some(SOON)).unwrap();
    let ((mut at_gate, arrived), (opened, mut open)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let mut command = process::command_in(Path::new("/bin/true"), None);
    let wait = move || {
        (&arrived).write_all(b".")?;
        (&opened).read_exact(&mut [0])
    };
    // SAFETY: system calls only, and no allocation. It runs after what `command_in` does.
    unsafe { command.pre_exec(wait) };
    let child = std::thread::spawn(move || command.status());
    at_gate.read_exact(&mut [0]).unwrap();
    drop(far);
    assert_eq!(near.read(&mut [0]).unwrap(), 0, "the end: nobody else has it");
    open.write_all(b".").unwrap();
    assert!(child.join().unwrap().unwrap().success());
    let missing = process::command_in(Path::new("/no/such/program"), None).status();
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound, "the way of errors stays open");
}

fn started(role: &str) -> Helper {
    let mut helper = Helper::start(role);
    assert_eq!(helper.line(), "ready");
    helper
}

fn pidfd_tells_the_exit() {
    let mut helper = started("sleep");
    let pidfd = PidFd::open(helper.child.id()).unwrap();
    assert!(!readable(&pidfd, 0) && !pidfd.exited().unwrap());
    pidfd.signal(Signal::Kill).unwrap();
    assert!(readable(&pidfd, 20_000) && pidfd.exited().unwrap());
    assert_eq!(helper.ended_by(SOON), Some(libc::SIGKILL));
    assert_eq!(pidfd.signal(Signal::Term).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(PidFd::open(helper.child.id()).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(PidFd::open(0).is_err() && PidFd::open(u32::MAX).is_err());
}

fn processes_are_found() {
    let mut helper = started("sleep");
    let id = helper.child.id();
    // Nothing else of this name is in the sandbox: its init is left out by being asleep before the rename.
    let name = "find-me";
    rustix::thread::set_name(&std::ffi::CString::new(name).unwrap()).unwrap();
    assert_eq!(process::find_by_name(name).unwrap(), [std::process::id()]);
    assert_eq!(process::find_by_name("find-m").unwrap(), [] as [u32; 0]);
    assert_eq!(process::members_of_group(id).unwrap(), [id]);
    let ns = namespace("apart");
    assert_eq!(process::members_of_netns(&ns).unwrap(), [] as [u32; 0]);
    let mut inside = Helper::start_in("sleep", Some(&ns));
    inside.line();
    assert_eq!(process::members_of_netns(&ns).unwrap(), [inside.child.id()]);
    helper.child.kill().unwrap();
    assert_eq!(helper.ended_by(SOON), Some(libc::SIGKILL));
    assert_eq!(process::members_of_group(id).unwrap(), [] as [u32; 0]);
}

fn processes_are_found_through_an_outer_proc() {
    if rustix::mount::unmount("/proc", rustix::mount::UnmountFlags::DETACH).is_err() {
        eprintln!("skipped: the sandbox has only the outer /proc as it is");
    }
    let own = std::fs::read_link("/proc/self").unwrap();
    assert_ne!(own.to_str().unwrap(), std::process::id().to_string());
    processes_are_found();
    listeners_and_their_owners();
}

fn groups_are_signalled() {
    let mut helper = started("sleep");
    let id = helper.child.id();
    process::signal_group(id, Signal::Stop).unwrap();
    process::signal_group(id, Signal::Cont).unwrap();
    process::signal_group(id, Signal::Term).unwrap();
    assert_eq!(helper.ended_by(SOON), Some(libc::SIGTERM));
    assert_eq!(process::signal_group(id, Signal::Term).unwrap_err().kind(), ErrorKind::NotFound);
}

fn children_die_with_their_parent() {
    let mut parent = Helper::start("parent");
    let grandchild = PidFd::open(parent.line().parse().unwrap()).unwrap();
    assert!(!grandchild.exited().unwrap());
    parent.child.kill().unwrap();
    assert!(readable(&grandchild, 20_000));
}

fn listeners_and_their_owners() {
    assert_eq!(sockdiag::listeners(PORT).unwrap(), []);
    let server = started("serve");
    let _connected = TcpStream::connect(("127.0.0.1", PORT)).unwrap();
    let found = sockdiag::listeners(PORT).unwrap();
    assert_eq!(found.len(), 4, "{found:?}");
    for tcp in [false, true] {
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            let is_it = |one: &&Listener| (one.tcp, one.address) == (tcp, address);
            let one = found.iter().find(is_it).unwrap();
            assert_eq!((one.port, one.uid), (PORT, 0));
            assert_eq!(process::owner_of_socket(one.inode).unwrap(), [server.child.id()]);
        }
    }
    assert_eq!(sockdiag::listeners(PORT + 1).unwrap(), []);
}

fn killed_servers_are_reported() {
    let mut monitor = DestroyMonitor::open().unwrap();
    let mut server = started("serve");
    assert_eq!(monitor.recv().unwrap(), None);
    server.child.kill().unwrap();
    let mut gone = Vec::new();
    while gone.len() < 4 {
        assert!(readable(&monitor, 20_000), "{gone:?}");
        if let Some(Destroyed::Socket(socket)) = monitor.recv().unwrap() {
            assert_eq!(socket.port, PORT);
            gone.push((socket.tcp, socket.address.to_string()));
        }
    }
    gone.sort();
    let of = |tcp| ["127.0.0.1", "::1"].map(|address| (tcp, address.to_string()));
    assert_eq!(gone, [of(false), of(true)].concat());
    assert_eq!(sockdiag::listeners(PORT).unwrap(), []);
}

fn ends_of_connections_are_not_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut monitor = DestroyMonitor::open().unwrap();
    for _ in 0..100 {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        drop((listener.accept().unwrap(), client));
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
    }
    let port = server.local_addr().unwrap().port();
    drop(server);
    // The first that is reported is the server.
    assert!(readable(&monitor, 20_000));
    let Some(Destroyed::Socket(first)) = monitor.recv().unwrap() else {
        panic!("lost");
    };
    assert_eq!((first.tcp, first.port), (false, port));
    // The ends of TCP connections come late; none of them appears.
    assert!(!readable(&monitor, 300));
}

fn lost_news_is_told() {
    let mut monitor = DestroyMonitor::open().unwrap();
    let lost = wait_until(SOON, || {
        for _ in 0..1000 {
            UdpSocket::bind("127.0.0.1:0").unwrap();
        }
        // One piece of news for a thousand ends: the queue fills up.
        monitor.recv().unwrap() == Some(Destroyed::Overrun)
    });
    assert!(lost);
    // After that each end is heard or, while the kernel still works off the many, its loss told.
    let mut heard = false;
    while !heard {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        drop(server);
        let told = wait_until(SOON, || match monitor.recv().unwrap() {
            Some(Destroyed::Socket(socket)) => {
                heard = socket.port == port;
                heard
            }
            Some(Destroyed::Overrun) => true,
            None => false,
        });
        assert!(told);
    }
}
