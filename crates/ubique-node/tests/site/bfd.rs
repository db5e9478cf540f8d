//! BFD of the agent with BIRD and with FRR's bfdd: both families, up, lost, back, drained, other intervals.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use ubique_model::change::Fate;
use ubique_model::service::{Bfd, Service, Upstream};
use ubique_node::admin::{BfdStatus, ReloadOutcome, Request};
use ubique_node::bfd::{Driver, Peer, start};
use ubique_proto::bfd::packet::State;
use ubique_proto::bfd::{Cause, Role, SessionId};
use ubique_sys::netlink::Netlink;
use ubique_sys::netns::NetNs;
use ubique_sys::process::Signal;

use crate::daemons::{BIRD, Bird};
use crate::lab::{self, Lab, Process, until, until_true};
use crate::records::{JOURNAL, journalled, replayed};
use crate::reload::{reload, since};
use crate::runner::Test;
use crate::sessions::{self as kinds, service_with};

const BFDD: &str = "/usr/lib/frr/bfdd";
/// Often, and patient: a second of silence is more than a busy machine's, and much less than the hold time of 9 s.
pub const FAST: Bfd = Bfd { interval: Duration::from_millis(50), receive: Duration::from_millis(50), multiplier: 20 };
pub const BIRD_FAST: &str = "{ interval 50 ms; multiplier 20; }";

/// What takes less was not the hold timer, which ends 6 s after silence at the earliest.
const NOT_THE_HOLD_TIME: Duration = Duration::from_secs(5);

pub const TESTS: &[Test] = &[
    Test { name: "bfd_with_bird_up_lost_and_back", needs: &[BIRD], run: bird },
    Test { name: "bfd_is_administratively_down_while_drained_and_at_the_end", needs: &[BIRD], run: drained },
    Test { name: "a_frozen_site_is_noticed_by_birds_bfd", needs: &[BIRD], run: frozen },
    Test { name: "bgp_needs_no_bfd_of_the_upstream", needs: &[BIRD], run: without },
    Test { name: "a_stopped_bfd_thread_ends_with_the_agent", needs: &[BIRD], run: watched },
    Test { name: "bfd_over_two_hops_with_bird", needs: &[BIRD], run: two_hops },
    Test { name: "bfd_with_a_neighbour_from_a_range", needs: &[BIRD], run: from_range },
    Test { name: "reload_of_bfd_keeps_the_sessions_it_can", needs: &[BIRD], run: reloaded },
    Test { name: "bfd_with_frr_up_polled_lost_and_back", needs: &[BFDD], run: frr },
];

fn service(bfd: Bfd) -> Service {
    let mut service = lab::service();
    service.sites[0].upstreams.iter_mut().for_each(|u| u.bfd = Some(bfd));
    service
}

fn sessions() -> Vec<BfdStatus> {
    lab::try_status().map_or_else(Vec::new, |s| s.peers.into_iter().filter_map(|p| p.bfd).collect())
}

fn all(state: &str) -> bool {
    let sessions = sessions();
    sessions.len() == 2 && sessions.iter().all(|s| s.state == state)
}

/// Announced to BIRD, with BFD up over both families.
fn up(service: &Service, bfd: &str) -> (Lab, Bird, Process, Process) {
    let lab = Lab::new();
    let mut bird = Bird::start_with_bfd(&lab.router, bfd);
    let agent = lab.agent(service);
    lab.wait_for_addresses();
    let dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    let took = until_true("BFD is up", || all("up"));
    println!("BFD up {took:?} after the announcement");
    (lab, bird, agent, dns)
}

fn set_link(lab: &Lab, up: bool) {
    let mut netlink = Netlink::open_in(&lab.router).unwrap();
    let index = netlink.link_index("l0").unwrap();
    if up { netlink.set_up(index).unwrap() } else { netlink.set_down(index).unwrap() }
}

fn bird() {
    let (lab, mut bird, agent, _dns) = up(&service(FAST), BIRD_FAST);
    until_true("50 ms x 20 is agreed on exactly, both ways", || {
        let agreed = |s: &BfdStatus| {
            (s.interval_ms, s.detection_ms, s.neighbour_detection_ms) == (50.0, Some(1000.0), Some(1000.0))
        };
        sessions().iter().all(agreed)
    });
    for session in sessions() {
        assert_eq!((session.downs, session.discarded, &session.error), (0, 0, &None));
    }
    assert_eq!(bird.ask("show bfd sessions").matches(" Up ").count(), 2, "{}", bird.ask("show bfd sessions"));
    // Nothing reaches the other side any more; our interface stays up.
    set_link(&lab, false);
    let start = Instant::now();
    until_true("BFD is down", || all("down"));
    println!("link cut to down {:?}", start.elapsed());
    assert!(start.elapsed() < NOT_THE_HOLD_TIME, "{:?}", start.elapsed());
    until_true("BGP is down, too", || lab::status().peers.iter().all(|p| p.state != "established"));
    assert!(sessions().iter().all(|s| s.diagnostic == "control detection time expired"));
    assert!(agent.log().contains("BFD"), "{}", agent.log());
    set_link(&lab, true);
    // IPv6 addresses go with the link.
    let mut netlink = Netlink::open_in(&lab.router).unwrap();
    let index = netlink.link_index("l0").unwrap();
    netlink.add_address(index, format!("{}/126", lab::ROUTER_V6).parse().unwrap()).unwrap();
    until_true("BFD is back", || all("up"));
    until_true("both prefixes announced again", || bird.has_both());
    assert!(sessions().iter().all(|s| s.downs == 1));
    metrics(&lab);
}

fn metrics(lab: &Lab) {
    let text = lab
        .site
        .run(|| {
            let mut stream = std::net::TcpStream::connect("127.0.0.1:9430").unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        })
        .unwrap();
    let sample = |name: &str, end: &str| {
        assert!(text.lines().any(|l| l.starts_with(name) && l.ends_with(end)), "no {name}…{end} in\n{text}");
    };
    for peer in [lab::ROUTER_V4, lab::ROUTER_V6] {
        sample("ubique_bfd_up{", &format!("peer=\"{peer}\"}} 1"));
        sample("ubique_bfd_detection_seconds{", &format!("peer=\"{peer}\",silence=\"ours\"}} 1"));
        sample("ubique_bfd_downs_total{", &format!("peer=\"{peer}\"}} 1"));
    }
}

fn drained() {
    let mut service = service(FAST);
    journalled(&mut service, false);
    let (_lab, mut bird, mut agent, _dns) = up(&service, BIRD_FAST);
    lab::ask(&Request::Drain { reason: "test".into() }).unwrap();
    until_true("BFD is held down", || all("admindown"));
    until_true("BIRD knows", || bird.ask("show bfd sessions").matches(" Up ").count() == 0);
    assert!(bird.has_none());
    // BIRD 2.0.12 takes AdminDown for a loss and ends the session, RFC 5882 §3.2 notwithstanding; nothing is announced.
    until_true("BGP stands", || lab::status().peers.iter().all(|p| p.state == "established"));
    assert!(bird.has_none() && all("admindown"));
    lab::ask(&Request::Undrain { reason: "test".into() }).unwrap();
    until_true("both prefixes announced again", || bird.has_both());
    until_true("BFD is up again", || all("up"));
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
    until_true("withdrawn", || bird.has_none());
    // The last packet said so: BIRD did not have to wait for silence.
    until_true("BIRD knows that an operator did it", || bird.ask("show bfd sessions").matches(" Up ").count() == 0);
    let (outputs, inputs, cut) = replayed(JOURNAL);
    println!("{outputs} outputs are equal; inputs of each core {inputs:?}");
    assert!(inputs[3] > 20 && !cut, "BFD is recorded to the end: {inputs:?}");
}

/// As `faults::frozen`, with BFD: the hold time of 9 s does not matter.
fn frozen() {
    let (_lab, mut bird, agent, dns) = up(&service(FAST), BIRD_FAST);
    let processes: Vec<u32> = lab::children_of(agent.pid()).into_iter().chain([agent.pid(), dns.pid()]).collect();
    let signal = |signal| {
        for &pid in &processes {
            ubique_sys::process::PidFd::open(pid).unwrap().signal(signal).unwrap();
        }
    };
    let start = Instant::now();
    signal(Signal::Stop);
    until_true("withdrawn", || bird.has_none());
    println!("frozen to withdrawn {:?} with 50 ms x 20", start.elapsed());
    assert!(start.elapsed() < NOT_THE_HOLD_TIME, "{:?}", start.elapsed());
    signal(Signal::Cont);
    until_true("announced again", || bird.has_both());
    until_true("BFD is up again", || all("up"));
}

fn without() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let _agent = lab.agent(&service(Bfd::default()));
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    until_true("BFD is down", || all("down"));
}

/// BFD that comes asks nothing of BGP; intervals and multiplier change over the standing sessions; BFD that goes is told as
/// administratively down, for which BIRD ends the BGP session (see [`drained`]), and that one alone.
fn reloaded() {
    let of = |transmit, receive, multiplier| {
        let [interval, receive] = [transmit, receive].map(Duration::from_millis);
        Bfd { interval, receive, multiplier }
    };
    // A busy machine is no reason for a loss.
    let mut service = lab::patient(service(of(300, 300, 5)));
    service.sites[0].upstreams[0].bfd = None;
    let lab = Lab::new();
    let mut bird = Bird::start_with_bfd(&lab.router, "{ interval 300 ms; multiplier 5; }");
    let _agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("both prefixes announced, one upstream has BFD", || bird.has_both() && sessions().len() == 1);
    let before = lab::status();
    // What the file says, then how long each side bears the other's silence, ms.
    for (bfd, bears) in
        [(of(300, 300, 5), [1500.0, 1500.0]), (of(400, 500, 6), [2500.0, 2400.0]), (of(200, 200, 8), [1500.0, 2400.0])]
    {
        service.sites[0].upstreams[0].bfd = Some(bfd);
        let reply = reload(&service);
        let change = reply.change.unwrap();
        assert_eq!((reply.outcome, change.upstreams.len()), (ReloadOutcome::Applied, 1), "{change}");
        assert!(change.upstreams[0].bfd && change.upstreams[0].fate == Fate::Stays, "{change}");
        until_true("both sides follow", || {
            let agreed = |s: &BfdStatus| [s.detection_ms, s.neighbour_detection_ms] == bears.map(Some);
            all("up") && sessions().first().is_some_and(agreed)
        });
    }
    assert_eq!(since(&lab::status().peers), since(&before.peers), "BGP stays");
    assert!(sessions().iter().all(|s| s.downs == 0), "and so does BFD: {:?}", sessions());
    service.sites[0].upstreams[0].bfd = None;
    assert_eq!(reload(&service).outcome, ReloadOutcome::Applied);
    until_true("BIRD knows", || bird.ask("show bfd sessions").matches(" Up ").count() == 1);
    until_true("BGP goes on without", || {
        lab::status().peers.iter().all(|p| p.state == "established") && bird.has_both()
    });
    assert_eq!(lab::status().peers[1].since, before.peers[1].since, "the other upstream was never touched");
}

/// A thread that stands still stops the heartbeat: only the whole process can be stopped from outside, so this shows
/// that the thread has a heartbeat, by its name, and that the agent ends.
fn watched() {
    let mut service = service(FAST);
    service.agent.watchdog = Duration::from_secs(1);
    let (_lab, mut bird, mut agent, _dns) = up(&service, BIRD_FAST);
    agent.signal(Signal::Stop);
    until_true("withdrawn", || bird.has_none());
    assert_eq!(agent.wait(), -1, "killed by the watchdog");
}

/// BIRD behind another router: UDP port 4784 (RFC 5883 §5), where its packets arrive with TTL 254.
fn two_hops() {
    const FAR: &str = "203.0.113.6";
    let lab = Lab::new();
    let far = NetNs::create_at(Path::new("/run/ns-far")).unwrap();
    Netlink::open().unwrap().add_veth(("l1", Some(&lab.router)), ("l1", Some(&far))).unwrap();
    for (ns, address) in [(&lab.router, "203.0.113.5/30"), (&far, "203.0.113.6/30")] {
        let mut netlink = Netlink::open_in(ns).unwrap();
        let index = netlink.link_index("l1").unwrap();
        netlink.set_up(index).unwrap();
        netlink.add_address(index, address.parse().unwrap()).unwrap();
    }
    Netlink::open_in(&far).unwrap().replace_route(&lab::route("0.0.0.0/0", "203.0.113.5")).unwrap();
    lab.router.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap()).unwrap();
    let mut bird = Bird::with(
        &far,
        &format!(
            "protocol bgp site {{ local {FAR} as {}; neighbor {} as {}; multihop 2; bfd {BIRD_FAST};\n\
             hold time 9; error wait time 1, 2; ipv4 {{ import all; export none; }}; }}\n",
            lab::ROUTER_ASN,
            lab::SITE_V4,
            lab::SITE_ASN
        ),
    );
    let upstream = Upstream { multihop: Some(2), bfd: Some(FAST), ..lab::upstream(FAR) };
    let _agent = lab.agent(&service_with(upstream));
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("announced over two hops", || bird.route(lab::PREFIX_V4).is_some());
    let is = |state: &str| sessions().first().is_some_and(|s| s.state == state);
    until_true("BFD is up", || is("up"));
    until_true("BIRD's, too", || bird.ask("show bfd sessions").contains(" Up "));
    assert_eq!(sessions()[0].discarded, 0);
    // The site's own link and address stay: only what is beyond is lost.
    let mut netlink = Netlink::open_in(&lab.router).unwrap();
    let index = netlink.link_index("l1").unwrap();
    netlink.set_down(index).unwrap();
    until_true("BFD is down", || is("down"));
    until_true("BGP is down, too", || lab::status().peers[0].state != "established");
    netlink.set_up(index).unwrap();
    until_true("BFD is back", || is("up"));
    until_true("announced again", || bird.route(lab::PREFIX_V4).is_some());
}

/// The session of BFD comes with the one of BGP, and goes with the neighbour.
fn from_range() {
    let lab = Lab::new();
    let mut range = kinds::range(&[lab::ROUTER_ASN], 4);
    range.template.bfd = Some(FAST);
    let agent = lab.agent(&kinds::dynamic_service(range));
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("announced", || lab::try_status().is_some_and(|s| s.state == ubique_proto::site::State::Announced));
    let mut bird = kinds::calling(&lab, lab::ROUTER_ASN, &format!("bfd {BIRD_FAST};"));
    let is = |state: &str| sessions().first().is_some_and(|s| s.state == state);
    until_true("both prefixes announced", || bird.has_both());
    until_true("BFD is up", || is("up"));
    set_link(&lab, false);
    until_true("the neighbour is lost and forgotten", || lab::status().peers.is_empty());
    assert!(agent.log().contains("control detection time expired"), "by BFD: {}", agent.log());
    assert_eq!(sessions(), []);
}

/// zebra and bfdd, and their terminals.
struct Bfdd {
    _zebra: Process,
    _bfdd: Process,
    control: UnixStream,
}

impl Bfdd {
    fn start(ns: &NetNs) -> Bfdd {
        let directory = Path::new("/run/frr");
        fs::create_dir_all(directory).unwrap();
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let frr = users.lines().find(|l| l.starts_with("frr:")).unwrap();
        let ids: Vec<u32> = frr.split(':').skip(2).take(2).map(|id| id.parse().unwrap()).collect();
        std::os::unix::fs::chown(directory, Some(ids[0]), Some(ids[1])).unwrap();
        // zebra leaves crash logs there when it is killed.
        use rustix::mount::{MountFlags, mount};
        mount("tmpfs", "/var/tmp", "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, c"mode=1777").unwrap();
        let peer = |theirs: &str, ours: &str| {
            format!(
                " peer {theirs} local-address {ours}\n  detect-multiplier 20\n  receive-interval 50\n  \
                 transmit-interval 50\n  no shutdown\n exit\n"
            )
        };
        let peers = peer(lab::SITE_V4, lab::ROUTER_V4) + &peer(lab::SITE_V6, lab::ROUTER_V6);
        fs::write("/run/frr/zebra.conf", "").unwrap();
        fs::write("/run/frr/bfdd.conf", format!("bfd\n{peers}")).unwrap();
        let daemon = |name: &str, extra: &[&str]| {
            let (file, pid) = (format!("/run/frr/{name}.conf"), format!("/run/frr/{name}.pid"));
            let common = ["-f", &file, "-i", &pid, "-z", "/run/frr/zserv", "--vty_socket", "/run/frr", "-P", "0"];
            let arguments = [&common[..], &["--log", "stdout"], extra].concat();
            let process = lab::start(ns, name, &Path::new(BFDD).with_file_name(name), &arguments);
            let (control, _) = until(name, || UnixStream::connect(format!("/run/frr/{name}.vty")).ok());
            (process, control)
        };
        let (zebra, _) = daemon("zebra", &[]);
        let (bfdd, control) = daemon("bfdd", &["--bfdctl=/run/frr/bfdd.sock"]);
        let mut bfdd = Bfdd { _zebra: zebra, _bfdd: bfdd, control };
        bfdd.ask("enable");
        bfdd
    }

    /// The protocol of vtysh: a command and NUL; text, three NULs and the command's status.
    fn ask(&mut self, command: &str) -> String {
        self.control.write_all(format!("{command}\0").as_bytes()).unwrap();
        let mut reply = Vec::new();
        let mut octet = [0];
        while !(reply.len() >= 4 && reply[reply.len() - 4..reply.len() - 1] == [0, 0, 0]) {
            self.control.read_exact(&mut octet).unwrap();
            reply.push(octet[0]);
        }
        reply.truncate(reply.len() - 4);
        String::from_utf8(reply).unwrap()
    }

    fn says(&mut self, what: &str) -> usize {
        self.ask("show bfd peers json").matches(what).count()
    }
}

fn frr() {
    let lab = Lab::new();
    let mut bfdd = Bfdd::start(&lab.router);
    let peer = |remote: &str, local: &str| Peer {
        remote: remote.parse().unwrap(),
        interface: None,
        local: Some(local.parse().unwrap()),
        hops: None,
        settings: FAST,
        role: Role::Active,
    };
    let peers = vec![peer(lab::ROUTER_V4, lab::SITE_V4), peer(lab::ROUTER_V6, lab::SITE_V6)];
    let mut driver: Driver = lab.site.run(|| start(peers, 7, None, Duration::from_secs(1), None)).unwrap().unwrap();
    let states = |driver: &Driver| driver.snapshot().sessions.iter().map(|s| s.core.state).collect::<Vec<_>>();
    let took = until_true("both are up", || states(&driver) == [State::Up; 2] && bfdd.says("\"status\":\"up\"") == 2);
    println!("BFD with FRR up after {took:?}");
    let detection = |driver: &Driver| -> Vec<_> {
        driver.snapshot().sessions.iter().map(|s| s.core.remote_detection_time.unwrap().as_millis()).collect()
    };
    until_true("50 ms x 20 is agreed on", || detection(&driver) == [1_000; 2]);
    // Ours change, by a Poll Sequence; FRR learns of it.
    for session in [SessionId(0), SessionId(1)] {
        driver.configure(session, Bfd { interval: Duration::from_millis(200), ..FAST });
    }
    until_true("FRR knows the slower interval", || bfdd.says("\"remote-transmit-interval\":200") == 2);
    until_true("the poll is over", || driver.snapshot().sessions.iter().all(|s| s.core.interval.as_millis() == 200));
    // FRR's change, by a Poll Sequence of its own.
    bfdd.ask("configure terminal");
    bfdd.ask("bfd");
    for (theirs, ours) in [(lab::SITE_V4, lab::ROUTER_V4), (lab::SITE_V6, lab::ROUTER_V6)] {
        bfdd.ask(&format!("peer {theirs} local-address {ours}"));
        bfdd.ask("receive-interval 300");
        bfdd.ask("exit");
    }
    bfdd.ask("end");
    until_true("300 ms x 20", || detection(&driver) == [6_000; 2]);
    set_link(&lab, false);
    until_true("both are down", || states(&driver) == [State::Down; 2]);
    let mut causes = Vec::new();
    while let Some(notice) = driver.try_next() {
        if let ubique_node::bfd::Notice::State { from: State::Up, cause, .. } = notice {
            causes.push(cause);
        }
    }
    assert_eq!(causes, [Cause::DetectionTimeExpired; 2]);
    set_link(&lab, true);
    let mut netlink = Netlink::open_in(&lab.router).unwrap();
    let index = netlink.link_index("l0").unwrap();
    netlink.add_address(index, format!("{}/126", lab::ROUTER_V6).parse().unwrap()).unwrap();
    until_true("both are back", || states(&driver) == [State::Up; 2]);
    driver.enable(false);
    until_true("FRR knows that an operator did it", || bfdd.says("\"status\":\"down\"") == 2);
    assert_eq!(bfdd.says("administratively down"), 2, "{}", bfdd.ask("show bfd peers json"));
    driver.enable(true);
    until_true("both are up again", || states(&driver) == [State::Up; 2]);
    // FRR's operator.
    bfdd.ask("configure terminal");
    bfdd.ask("bfd");
    bfdd.ask(&format!("peer {} local-address {}", lab::SITE_V4, lab::ROUTER_V4));
    bfdd.ask("shutdown");
    until_true("it is known as such", || driver.snapshot().sessions[0].core.cause == Cause::NeighbourAdminDown);
}
