//! What happens when the agent itself is sick or killed, and when the transport is not what it should be.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use ubique_sys::netlink::Netlink;
use ubique_sys::process::{PidFd, Signal};

use crate::daemons::{BGPD, BIRD, Bird, Frr};
use crate::lab::{self, Lab, Process, until, until_true};
use crate::roles::PANIC;
use crate::runner::Test;

const fn test(name: &'static str, run: fn()) -> Test {
    Test { name, needs: &[BIRD], run }
}

pub const TESTS: &[Test] = &[
    test("sigkill_of_the_agent_ends_the_sessions_at_once", killed),
    test("a_panic_in_any_thread_ends_the_sessions", panic),
    test("a_stopped_agent_is_killed_by_its_watchdog", stopped),
    test("a_site_that_freezes_and_thaws_comes_back", frozen),
    test("a_dead_watchdog_is_replaced", watchdog_killed),
    test("md5_with_the_right_key_works_and_with_a_wrong_one_does_not", md5),
    test("an_upstream_that_comes_later_is_found", late_upstream),
    test("an_internal_upstream_gets_announcements", internal),
    test("strangers_and_garbage_on_the_bgp_port_do_no_harm", strangers),
    Test { name: "frr_learns_and_unlearns", needs: &[BGPD], run: frr },
];

/// What takes less was not the hold timer, which ends 6 s after silence at the earliest.
const NOT_THE_HOLD_TIME: Duration = Duration::from_secs(5);

/// Announced to BIRD, with a watchdog of 1 s and `extra` arguments for the agent.
fn announced(extra: &[&str]) -> (Lab, Bird, Process, Process) {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let mut service = lab::service();
    service.agent.watchdog = Duration::from_secs(1);
    let agent = lab.agent_with(&service, extra);
    lab.wait_for_addresses();
    let dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    (lab, bird, agent, dns)
}

fn killed() {
    let (lab, mut bird, mut agent, _dns) = announced(&[]);
    let start = Instant::now();
    agent.kill();
    until_true("withdrawn", || bird.has_none());
    println!("agent killed to withdrawn {:?}", start.elapsed());
    // The transport told, not the hold timer of 9 s.
    assert!(start.elapsed() < NOT_THE_HOLD_TIME, "{:?}", start.elapsed());
    // The next one finds a stale socket and addresses that are there already.
    let mut agent = lab.agent(&lab::service());
    until_true("announced again", || bird.has_both());
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
    assert_eq!(lab.service_addresses(), 0, "its former life had put them there");
}

fn panic() {
    let (_lab, mut bird, mut agent, _dns) = announced(&["panic"]);
    fs::write(PANIC, "").unwrap();
    until_true("withdrawn", || bird.has_none());
    assert_eq!(agent.wait(), -1, "ended by a signal");
    assert!(agent.log().contains("asked for by the test"), "{}", agent.log());
}

fn stopped() {
    let (_lab, mut bird, mut agent, _dns) = announced(&[]);
    let start = Instant::now();
    agent.signal(Signal::Stop);
    until_true("withdrawn", || bird.has_none());
    let gap = start.elapsed();
    println!("agent stopped to withdrawn {gap:?}, with a watchdog of 1 s");
    assert!(gap < NOT_THE_HOLD_TIME, "{gap:?}");
    assert_eq!(agent.wait(), -1, "killed by the watchdog");
}

/// As a machine that hangs: nobody is there to notice but the upstream, by its hold time of 9 s.
fn frozen() {
    let (_lab, mut bird, agent, dns) = announced(&[]);
    let watchdog = PidFd::open(lab::children_of(agent.pid())[0]).unwrap();
    let start = Instant::now();
    watchdog.signal(Signal::Stop).unwrap();
    agent.signal(Signal::Stop);
    dns.signal(Signal::Stop);
    until_true("withdrawn", || bird.has_none());
    println!("frozen to withdrawn {:?}", start.elapsed());
    let start = Instant::now();
    dns.signal(Signal::Cont);
    agent.signal(Signal::Cont);
    watchdog.signal(Signal::Cont).unwrap();
    until_true("announced again", || bird.has_both());
    println!("thawed to announced {:?}", start.elapsed());
    assert!(lab::children_of(agent.pid()).len() == 1, "the watchdog did not mistake the pause for a stall");
}

fn watchdog_killed() {
    let (_lab, mut bird, mut agent, _dns) = announced(&[]);
    let first = lab::children_of(agent.pid())[0];
    PidFd::open(first).unwrap().signal(Signal::Kill).unwrap();
    let (second, _) = until("another watchdog", || lab::children_of(agent.pid()).into_iter().find(|&pid| pid != first));
    assert!(bird.has_both(), "nothing else happens");
    agent.signal(Signal::Stop);
    until_true("withdrawn", || bird.has_none());
    assert_eq!(agent.wait(), -1, "killed by the second watchdog, {second}");
}

fn md5() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "password \"right\";");
    let mut service = lab::service();
    let [v4, v6] = service.sites[0].upstreams.as_mut_slice() else { unreachable!() };
    fs::write("/run/right", "right\n").unwrap();
    fs::write("/run/wrong", "wrong\n").unwrap();
    v4.password_file = Some("/run/right".into());
    v6.password_file = Some("/run/wrong".into());
    let agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("the session with the right key is up", || bird.route(lab::PREFIX_V4).is_some());
    std::thread::sleep(Duration::from_millis(1500));
    assert!(bird.route(lab::PREFIX_V6).is_none(), "the wrong key keeps the other down");
    let status = lab::status();
    assert_eq!(status.peers[0].state, "established");
    assert_ne!(status.peers[1].state, "established");
    let words: Vec<String> = agent.log().split_whitespace().map(String::from).collect();
    assert!(!words.iter().any(|w| w.contains("wrong") && !w.contains("/run/")), "no secret in the log");
}

fn late_upstream() {
    let lab = Lab::new();
    let mut agent = lab.agent(&lab::service());
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("healthy", || lab::try_status().is_some_and(|s| s.healthy));
    until_true("nobody is there", || {
        let refused = |error: &String| error.starts_with("cannot connect: Connection refused");
        lab::status().peers.iter().all(|peer| peer.last_error.as_ref().is_some_and(refused))
    });
    let mut bird = Bird::start(&lab.router, "");
    let found = until_true("announced", || bird.has_both());
    println!("upstream started to announced {found:?}");
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
}

fn internal() {
    let lab = Lab::new();
    let mut bird = Bird::start_as(&lab.router, lab::SITE_ASN, "");
    let mut service = lab::service();
    for upstream in &mut service.sites[0].upstreams {
        upstream.asn = ubique_model::Asn(lab::SITE_ASN);
        upstream.relation = ubique_model::Relation::Internal;
    }
    let _agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    let route = bird.route(lab::PREFIX_V4).unwrap();
    assert!(route.contains("BGP.local_pref: "), "{route}");
}

/// Says something to the BGP port of the site from an address; returns what comes back until the end.
fn talk(lab: &Lab, from: &str, bytes: &[u8]) -> Vec<u8> {
    lab.router
        .run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let local: SocketAddr = format!("{from}:0").parse().unwrap();
            let remote: SocketAddr = format!("{}:179", lab::SITE_V4).parse().unwrap();
            socket.bind(&local.into()).unwrap();
            socket.connect(&remote.into()).unwrap();
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(lab::PATIENCE)).unwrap();
            let _ = stream.write_all(bytes);
            let mut reply = Vec::new();
            // A reset is an end as well.
            let _ = stream.read_to_end(&mut reply);
            reply
        })
        .unwrap()
}

fn strangers() {
    let lab = Lab::new();
    let agent = lab.agent(&lab::service());
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("the agent answers", || lab::try_status().is_some());
    let mut netlink = Netlink::open_in(&lab.router).unwrap();
    let lo = netlink.link_index("lo").unwrap();
    netlink.add_address(lo, "192.0.2.99/32".parse().unwrap()).unwrap();
    let mut site = Netlink::open_in(&lab.site).unwrap();
    site.replace_route(&lab::route("192.0.2.99/32", lab::ROUTER_V4)).unwrap();
    assert_eq!(talk(&lab, "192.0.2.99", b""), b"", "closed without a word");
    until_true("it is told", || agent.log().contains("no neighbor has this address"));
    for garbage in [&[0; 19][..], b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", &[0xff; 4096]] {
        let reply = talk(&lab, lab::ROUTER_V4, garbage);
        // Our OPEN, then NOTIFICATION: message header error (RFC 4271 §6.1).
        let open_length = usize::from(u16::from_be_bytes([reply[16], reply[17]]));
        assert_eq!(reply[18], 1);
        assert_eq!(reply[open_length + 18..][..2], [3, 1], "{reply:02x?}");
    }
    let mut bird = Bird::start(&lab.router, "");
    until_true("both prefixes announced", || bird.has_both());
}

fn frr() {
    let lab = Lab::new();
    let mut frr = Frr::start(&lab.router);
    let mut agent = lab.agent(&lab::service());
    lab.wait_for_addresses();
    let mut dns = lab.dns();
    until_true("both prefixes announced", || frr.has_both());
    let path = frr.ask(&format!("show bgp ipv4 unicast {} json", lab::PREFIX_V4));
    for expected in ["\"64500 64500\"", "64500:100", "64500:1:2", "\"metric\":7"] {
        assert!(path.contains(expected), "{expected} not in\n{path}");
    }
    let start = Instant::now();
    dns.kill();
    until_true("withdrawn", || frr.has_none());
    println!("killed to withdrawn from FRR {:?}", start.elapsed());
    agent.signal(Signal::Term);
    assert_eq!(agent.wait(), 0);
}
