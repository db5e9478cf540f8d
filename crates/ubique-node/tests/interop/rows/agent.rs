//! The agent itself, `ubique run`, in the place of our speaker.

use std::path::Path;

use ubique_model::Family;
use ubique_node::admin::{self, Reply, Request};
use ubique_proto::site::State;
use ubique_sys::process::{PidFd, Signal};

use crate::cell::Cell;
use crate::lab::{self, Process};
use crate::matrix::{Cannot, Proof, Row};
use crate::peer::{Kind, OUR_AS, Peer, THEIR_AS};
use crate::peers;

pub const ROWS: &[Row] = &[
    Row::new(
        "agent",
        "`ubique run` announces once its check passes, withdraws when that fails, on `drain` and on SIGTERM, and comes back on `undrain`",
        agent,
    ),
    Row::new(
        "agent-restart",
        "`ubique run` with graceful-restart is killed and started again: the peer shows our route all the time",
        restart,
    )
    .but(&[Cannot::new(
        Kind::Exabgp,
        "it has no table: its API tells what comes and that the session ended, and keeps nothing meanwhile",
        Proof::Run(super::restart::keeps_nothing),
    )]),
];

const FILE: &str = "/run/service.toml";
const STATE: &str = "/run/ubique.kept";
const SOCKET: &str = "/run/ubique.sock";
/// The check passes while this exists.
const HEALTHY: &str = "/run/healthy";

/// Starts the agent with a service file; `extra` goes into its upstream.
fn start(cell: &Cell, extra: &str) -> Process {
    let prefix = cell.our_prefix();
    let address = prefix.hosts().next().unwrap();
    lab::write(
        FILE,
        &format!(
            "[service]\nname = \"resolver\"\nasn = {OUR_AS}\nprefixes = [\"{prefix}\"]\naddresses = [\"{address}\"]\n\
             [agent]\nsocket = \"{SOCKET}\"\nstate = \"{STATE}\"\ngraceful-shutdown = \"0s\"\ndrain = \"0s\"\n\
             [[check]]\nname = \"healthy\"\nkind = \"exec\"\ncommand = [\"test\", \"-e\", \"{HEALTHY}\"]\n\
             every = \"500ms\"\ntimeout = \"500ms\"\nfall = 2\nrise = 1\n\
             [[site]]\nname = \"ams\"\nlocation = \"Amsterdam, NL\"\nrouter-id = \"{}\"\n\
             [[site.upstream]]\nasn = {THEIR_AS}\naddress = \"{}\"\nmed = 7\ncommunities = [\"64500:100\"]\n{extra}\n",
            lab::ours(Family::Ipv4),
            cell.theirs(),
        ),
    );
    let program = std::env::current_exe().unwrap();
    Process::start(None, program.to_str().unwrap(), &["play-agent", FILE])
}

/// Waits until the peer shows our route, or not.
fn until_shown(cell: &Cell, peer: &mut dyn Peer, agent: &Process, shown: bool) {
    let what = if shown { "the peer shows our route" } else { "our route is gone" };
    let start = std::time::Instant::now();
    while peer.route(cell.our_prefix()).is_some() != shown {
        let late = start.elapsed() > lab::PATIENCE;
        assert!(!late, "{what}\n{}\n{}\n{}", agent.log(), peer.said(), lab::tail(&peer.log(), 60));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn agent(cell: &Cell) {
    let mut peer = peers::start(cell.kind, &cell.setup(), &cell.ns);
    lab::until("the peer answers", || peer.ready().then_some(()));
    let mut process = start(cell, "");
    lab::until("the session is up", || peer.established().then_some(()));
    assert_eq!(peer.route(cell.our_prefix()), None, "nothing is announced before the check passes");
    lab::write(HEALTHY, "");
    until_shown(cell, &mut *peer, &process, true);
    let route = peer.route(cell.our_prefix()).unwrap();
    assert_eq!((route.next_hop.as_str(), route.as_path.as_slice(), route.med), (cell.ours(), &[OUR_AS][..], Some(7)));
    assert!(route.communities.contains("64500:100"), "{route:?}");
    std::fs::remove_file(HEALTHY).unwrap();
    until_shown(cell, &mut *peer, &process, false);
    lab::write(HEALTHY, "");
    until_shown(cell, &mut *peer, &process, true);
    let ask = |request: &Request| admin::request(Path::new(SOCKET), request).unwrap();
    ask(&Request::Drain { reason: "disk swap".into() });
    until_shown(cell, &mut *peer, &process, false);
    assert!(peer.established(), "the session stays");
    ask(&Request::Undrain { reason: "done".into() });
    until_shown(cell, &mut *peer, &process, true);
    PidFd::open(process.pid()).unwrap().signal(Signal::Term).unwrap();
    until_shown(cell, &mut *peer, &process, false);
    let code = lab::until("the agent ends", || process.exited());
    assert_eq!(code, 0, "{}", process.log());
}

fn restart(cell: &Cell) {
    let mut peer = peers::start(cell.kind, &super::restart::with_restart(cell, cell.setup()), &cell.ns);
    lab::until("the peer answers", || peer.ready().then_some(()));
    lab::write(HEALTHY, "");
    let graceful = "graceful-restart = { restart-time = \"20s\" }";
    let mut process = start(cell, graceful);
    until_shown(cell, &mut *peer, &process, true);
    // What is not written down yet is not claimed to have been kept.
    let prefix = cell.our_prefix().to_string();
    lab::until("it is remembered", || {
        std::fs::read_to_string(Path::new(SOCKET).with_extension("state"))
            .is_ok_and(|state| state.contains(&prefix))
            .then_some(())
    });
    PidFd::open(process.pid()).unwrap().signal(Signal::Kill).unwrap();
    lab::until("the peer has noticed", || (!peer.established()).then_some(()));
    lab::until("it has ended", || process.exited());
    let process = start(cell, graceful);
    lab::until("the session is back", || {
        assert!(peer.route(cell.our_prefix()).is_some(), "the route was lost\n{}", process.log());
        peer.established().then_some(())
    });
    // It is announced anew, and End-of-RIB sweeps what is not.
    lab::until("the agent has settled", || {
        let reply = admin::request(Path::new(SOCKET), &Request::Status);
        matches!(reply, Ok(Reply::Status(status)) if status.state == State::Announced).then_some(())
    });
    assert!(peer.route(cell.our_prefix()).is_some(), "the route was lost\n{}", process.log());
}
