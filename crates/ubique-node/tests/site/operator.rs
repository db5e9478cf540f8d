//! What operators ask for: timed actions that upstreams hear of and that end by themselves, and drains that lose nothing
//! and name who still sends.

use std::collections::HashSet;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ubique_model::service::{Service, Upstream};
use ubique_model::{AddressFamily, Asn};
use ubique_node::admin::{ActRequest, ActionList, DrainRequest, DrainView, Plan, Reply, Request, RequestError};
use ubique_proto::actions::Kind;
use ubique_proto::actions::drain::Stage;
use ubique_proto::site::State;
use ubique_sys::netlink::{Netlink, Route};
use ubique_sys::netns::NetNs;

use crate::daemons::{BIRD, Bird};
use crate::lab::{
    self, Lab, PREFIX_V4, ROUTER_ASN, ROUTER_V4, SERVICE_V4, SITE_V4, ask, start_ready, status, until, until_true,
};
use crate::runner::Test;

const fn test(name: &'static str, run: fn()) -> Test {
    Test { name, needs: &[BIRD], run }
}

pub const TESTS: &[Test] = &[
    test("actions_reach_upstreams_and_end_by_themselves", actions),
    test("actions_that_harm_are_refused_or_confirmed", refusals),
    test("a_drain_at_5000_queries_a_second_loses_nothing", live_drain),
    test("a_drain_names_a_network_that_a_zombie_route_keeps_sending", zombie),
    test("actions_and_drains_survive_a_killed_agent", killed),
    test("a_drain_hook_is_run_and_killed_in_time", hook),
];

/// One session for IPv4 and rules.
fn service() -> Service {
    let mut service = lab::service();
    let families = vec![AddressFamily::Ipv4Unicast, AddressFamily::Ipv4FlowSpec];
    let session = Upstream { families, ..lab::upstream(ROUTER_V4) };
    let plain = Upstream { families: vec![AddressFamily::Ipv6Unicast], ..lab::upstream(lab::ROUTER_V6) };
    service.sites[0].upstreams = vec![session, plain];
    service
}

const RULES: &str = "flow4 table rules;\n";

fn session(extra: &str) -> String {
    format!(
        "{RULES}protocol bgp site {{\n local {ROUTER_V4} as {ROUTER_ASN}; neighbor {SITE_V4} as 64500; hold time 9;\n \
         error wait time 1, 2;\n ipv4 {{ import all; export where source = RTS_STATIC; }};\n flow4 {{ table rules; import all; export none; }};\n}}\n{extra}"
    )
}

fn act(what: Kind, for_s: f64, confirmed: bool) -> Request {
    Request::Act(ActRequest { what, for_s, reason: "attack".into(), confirmed, dry_run: false })
}

fn begun(request: &Request) -> ActionList {
    match ask(request) {
        Ok(Reply::Actions(list)) => *list,
        other => panic!("not begun: {other:?}"),
    }
}

fn progress() -> DrainView {
    match ask(&Request::DrainProgress) {
        Ok(Reply::Drain(view)) => *view,
        other => panic!("no drain: {other:?}"),
    }
}

fn attract(prefix: &str) -> Kind {
    Kind::Attract { prefix: prefix.parse().unwrap() }
}

fn blackhole(prefix: &str) -> Kind {
    Kind::Blackhole { prefix: prefix.parse().unwrap() }
}

fn filter(rule: &str) -> Kind {
    Kind::Filter { rule: rule.parse().unwrap(), then: "discard".parse().unwrap() }
}

const HOST: &str = "198.51.100.53/32";
const HALF: &str = "198.51.100.0/25";

fn actions() {
    let lab = Lab::new();
    let mut bird = Bird::with(&lab.router, &session(""));
    let _agent = lab.agent(&service());
    lab.wait_for_addresses();
    // Before the site announces, nothing is told; it follows.
    let early = begun(&act(blackhole(HOST), 600.0, true));
    assert!(early.actions[0].upstreams.iter().all(|u| u.told.is_none()), "{early:?}");
    let mut dns = lab.dns();
    until_true("announced", || bird.route(PREFIX_V4).is_some());
    until_true("the blackhole follows", || bird.route(HOST).is_some());
    let route = bird.route(HOST).unwrap();
    assert!(route.contains("(65535,666)") && route.contains("(65535,65281)"), "{route}");
    assert!(!route.contains("64500 64500"), "no prepends of the plain announcement\n{route}");

    let more = begun(&act(attract(HALF), 2.0, true));
    assert!(more.warnings.iter().any(|w| w.contains("longer than /24")), "{more:?}");
    until_true("the more-specific is there", || bird.route(HALF).is_some());
    assert!(bird.route(HALF).unwrap().contains("BGP.as_path: 64500 64500"), "as the prefix around it");
    let list = begun(&act(filter("dst 198.51.100.53/32 proto =udp sport =53"), 600.0, false));
    let rules = |bird: &mut Bird| bird.ask("show route table rules all");
    until_true("the rule is there", || rules(&mut bird).contains("198.51.100.53/32"));
    let told: Vec<_> =
        list.actions.last().unwrap().upstreams.iter().map(|u| (u.told.is_some(), u.why_not.clone())).collect();
    assert!(told[0].0 && told[1].1.as_ref().is_some_and(|why| why.contains("ipv4-flowspec")), "{told:?}");

    // By itself, and only that one.
    let gone = until_true("the more-specific is gone", || bird.route(HALF).is_none());
    assert!(gone > Duration::from_millis(500) && gone < Duration::from_secs(5), "{gone:?}");
    assert!(bird.route(HOST).is_some() && bird.route(PREFIX_V4).is_some());
    assert_eq!(status().actions.len(), 2);

    // A silent site says nothing of them, and all of it again with the next announcement.
    dns.kill();
    until_true("withdrawn with all its actions", || {
        bird.route(PREFIX_V4).is_none() && bird.route(HOST).is_none() && !rules(&mut bird).contains("198.51.100.53/32")
    });
    let _dns = lab.dns();
    until_true("announced again with them", || {
        bird.route(PREFIX_V4).is_some() && bird.route(HOST).is_some() && rules(&mut bird).contains("198.51.100.53/32")
    });

    // The whole prefix takes the place of its announcement, and gives it back.
    begun(&act(blackhole(PREFIX_V4), 600.0, true));
    until_true("the prefix is a blackhole", || bird.route(PREFIX_V4).is_some_and(|r| r.contains("(65535,666)")));
    for id in status().actions.iter().map(|a| a.id) {
        assert_eq!(ask(&Request::Cancel { id, reason: "over".into() }).unwrap(), Reply::Done { warning: None });
    }
    until_true("all is as before", || {
        bird.route(PREFIX_V4).is_some_and(|r| !r.contains("(65535,666)"))
            && bird.route(HOST).is_none()
            && !rules(&mut bird).contains("198.51.100.53/32")
    });
    let events: Vec<_> = status().events.into_iter().map(|e| (e.what, e.cause)).collect();
    let ended = |id: u32, why: &str| {
        let prefix = format!("action {id} ended");
        assert!(events.iter().any(|(what, cause)| what.starts_with(&prefix) && cause.contains(why)), "{events:?}");
    };
    ended(1, "over");
    ended(2, "its time is over");
}

fn refusals() {
    let lab = Lab::new();
    let mut bird = Bird::with(&lab.router, &session(""));
    let _agent = lab.agent(&service());
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("announced", || bird.route(PREFIX_V4).is_some());
    for (what, said) in [
        (attract("203.0.113.0/24"), "outside of the service"),
        (blackhole("203.0.113.7/32"), "outside of the service"),
        (filter("dst 203.0.113.7/32"), "outside of the service"),
        (attract(PREFIX_V4), "is announced already"),
    ] {
        let refused = ask(&act(what, 600.0, true)).unwrap_err();
        assert!(matches!(&refused, RequestError::Refused(why) if why.contains(said)), "{refused:?}");
    }
    // One of two addresses is half of the service: not more than the share that needs a word. The whole prefix does.
    let refused = ask(&act(blackhole(PREFIX_V4), 600.0, false)).unwrap_err();
    assert!(matches!(&refused, RequestError::Guarded(why) if why.contains("confirm")), "{refused:?}");
    let dry = ActRequest { what: blackhole(HOST), for_s: 60.0, reason: String::new(), confirmed: false, dry_run: true };
    let plan: Box<Plan> = match ask(&Request::Act(dry)).unwrap() {
        Reply::Plan(plan) => plan,
        other => panic!("{other:?}"),
    };
    assert_eq!((plan.share, plan.confirm), (50, false));
    assert!(plan.upstreams[0].told.as_ref().is_some_and(|told| told.contains("65535:666")), "{plan:?}");
    for endless in [0.0, 1e9, -1.0, f64::NAN] {
        // NaN is no JSON number.
        assert!(ask(&act(blackhole(HOST), endless, true)).is_err(), "{endless}");
    }
    assert!(status().actions.is_empty() && bird.route(HOST).is_none());
}

/// A route of the kernel, worse than what BIRD installs (metric 32).
fn fallback(ns: &NetNs, destination: &str, gateway: &str) {
    let route = Route { metric: Some(1000), ..lab::route(destination, gateway) };
    Netlink::open_in(ns).unwrap().replace_route(&route).unwrap();
}

/// A link between two namespaces, with an address at each end.
fn link(name: &str, (a, address_a): (&NetNs, &str), (b, address_b): (&NetNs, &str)) {
    Netlink::open().unwrap().add_veth((name, Some(a)), (name, Some(b))).unwrap();
    for (ns, address) in [(a, address_a), (b, address_b)] {
        let mut netlink = Netlink::open_in(ns).unwrap();
        let index = netlink.link_index(name).unwrap();
        netlink.set_up(index).unwrap();
        netlink.add_address(index, address.parse().unwrap()).unwrap();
    }
}

fn on_loopback(ns: &NetNs, address: &str) {
    let mut netlink = Netlink::open_in(ns).unwrap();
    let lo = netlink.link_index("lo").unwrap();
    netlink.set_up(lo).unwrap();
    netlink.add_address(lo, address.parse().unwrap()).unwrap();
}

fn namespace(name: &str) -> NetNs {
    NetNs::create_at(std::path::Path::new(&format!("/run/ns-{name}"))).unwrap()
}

fn forward(ns: &NetNs) {
    ns.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap()).unwrap();
}

/// Queries from a namespace at a steady pace, each with a number that its answer brings back.
struct Client {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, u64)>,
}

/// Answers are waited for this long after the last query.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

impl Client {
    /// From `source`, so many each second.
    fn start(ns: &NetNs, source: &str, per_second: u64) -> Client {
        let stop = Arc::new(AtomicBool::new(false));
        let socket = ns.run(|| UdpSocket::bind(format!("{source}:0")).unwrap()).unwrap();
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20);
        socket.connect(format!("{SERVICE_V4}:53")).unwrap();
        socket.set_nonblocking(true).unwrap();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || Client::run(&socket, per_second, &stopped));
        Client { stop, thread }
    }

    fn run(socket: &UdpSocket, per_second: u64, stop: &AtomicBool) -> (u64, u64) {
        let (begin, mut sent, mut answered) = (Instant::now(), 0u64, HashSet::new());
        let mut buffer = [0u8; 64];
        let mut hear = |answered: &mut HashSet<u64>| {
            while let Ok(length) = socket.recv(&mut buffer) {
                if let Some(number) = buffer[..length].get(4..12) {
                    answered.insert(u64::from_be_bytes(number.try_into().unwrap()));
                }
            }
        };
        while !stop.load(Ordering::Relaxed) {
            let due = (begin.elapsed().as_secs_f64() * per_second as f64) as u64;
            while sent < due {
                let query = [&[0u8; 4][..], &sent.to_be_bytes()].concat();
                // An ICMP error of an earlier one comes back here: that one stays unanswered.
                while socket.send(&query).is_err() {}
                sent += 1;
            }
            hear(&mut answered);
            std::thread::sleep(Duration::from_micros(500));
        }
        let until = Instant::now() + LAST_ANSWERS;
        while (answered.len() as u64) < sent && Instant::now() < until {
            hear(&mut answered);
            std::thread::sleep(Duration::from_millis(1));
        }
        (sent, answered.len() as u64)
    }

    /// How many were sent and how many answered.
    fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The site, another site that the router falls back to, and clients behind the router.
struct TwoSites {
    lab: Lab,
    other: NetNs,
    clients: NetNs,
    bird: Bird,
    _other_dns: lab::Process,
}

const CLIENT: &str = "192.0.2.10";

fn two_sites() -> TwoSites {
    let lab = Lab::new();
    let (other, clients) = (namespace("other"), namespace("clients"));
    link("o0", (&lab.router, "192.0.2.5/30"), (&other, "192.0.2.6/30"));
    link("c0", (&lab.router, "192.0.2.9/30"), (&clients, &format!("{CLIENT}/30")));
    on_loopback(&other, HOST);
    forward(&lab.router);
    for (ns, gateway) in [(&other, "192.0.2.5"), (&clients, "192.0.2.9")] {
        Netlink::open_in(ns).unwrap().replace_route(&lab::route("0.0.0.0/0", gateway)).unwrap();
    }
    fallback(&lab.router, PREFIX_V4, "192.0.2.6");
    let kernel = "protocol kernel { ipv4 { export where source = RTS_BGP; }; }\n";
    let mut bird = Bird::with(&lab.router, &session(kernel));
    let other_dns = start_ready(&other, "dns", &[&format!("{SERVICE_V4}:53")]);
    let mut service = service();
    service.agent.graceful_shutdown = Duration::from_secs(2);
    service.sites[0].upstreams.truncate(1);
    let agent = lab.agent(&service);
    // It lives as long as the test's sandbox.
    std::mem::forget(agent);
    lab.wait_for_addresses();
    std::mem::forget(start_ready(
        &lab.site,
        "dns",
        &[&format!("{SERVICE_V4}:53"), &format!("[{}]:53", lab::SERVICE_V6)],
    ));
    until_true("announced", || bird.route(PREFIX_V4).is_some());
    TwoSites { lab, other, clients, bird, _other_dns: other_dns }
}

fn drained(request: DrainRequest) -> DrainView {
    assert!(matches!(ask(&Request::DrainWatched(request)), Ok(Reply::Drain(_))));
    until("the drain is over", || Some(progress()).filter(DrainView::is_over)).0
}

fn live_drain() {
    let mut two = two_sites();
    let client = Client::start(&two.clients, CLIENT, 5000);
    // BIRD takes 32 for the metric of what it installs, so that all of it comes here first.
    let view = drained(DrainRequest { reason: "disks".into(), watch_s: Some(15.0), ..DrainRequest::default() });
    let (sent, answered) = client.end();
    println!("{sent} queries, {answered} answered; {view:?}");
    let before = view.before.as_ref().unwrap().packets_per_s;
    assert!((3500.0..6500.0).contains(&before), "{before} packets/s before");
    assert_eq!((view.stage, view.gone), (Stage::Over, Some(true)), "{view:?}");
    assert!(view.now.as_ref().unwrap().packets_per_s <= before / 1000.0, "{view:?}");
    assert_eq!(sent - answered, 0, "lost of {sent}");
    assert!(sent > 10_000);
    assert_eq!(status().state, State::Drained);
    assert!(two.bird.route(PREFIX_V4).is_none());
    drop(two.other);
    drop(two.lab);
}

fn zombie() {
    let mut two = two_sites();
    // Another router, straight to the site, which forgets no route: its clients are in a network that the upstream announces.
    let stuck = namespace("stuck");
    link("z0", (&two.lab.site, "192.0.2.13/30"), (&stuck, "192.0.2.14/30"));
    on_loopback(&stuck, "203.0.113.7/32");
    Netlink::open_in(&stuck).unwrap().replace_route(&lab::route(PREFIX_V4, "192.0.2.13")).unwrap();
    Netlink::open_in(&two.lab.site).unwrap().replace_route(&lab::route("203.0.113.0/24", "192.0.2.14")).unwrap();
    let clients = Client::start(&two.clients, CLIENT, 1000);
    let forever = Client::start(&stuck, "203.0.113.7", 200);
    let view = drained(DrainRequest { reason: "disks".into(), watch_s: Some(5.0), ..DrainRequest::default() });
    println!("{view:?}");
    assert_eq!((view.stage, view.gone), (Stage::Over, Some(false)));
    let [sender] = &view.senders[..] else { panic!("{:?}", view.senders) };
    assert_eq!((sender.prefix.to_string().as_str(), sender.asn), ("203.0.113.0/24", Some(Asn(ROUTER_ASN))));
    assert!((150.0..250.0).contains(&sender.packets_per_s), "{sender:?}");
    // They are served all the same, as are the others, elsewhere.
    for client in [clients, forever] {
        let (sent, answered) = client.end();
        assert_eq!(sent - answered, 0, "lost of {sent}");
    }
    let events = status().events;
    assert!(
        events.iter().any(|e| e.what == "drain over" && e.cause.contains("203.0.113.0/24 (AS65000)")),
        "{events:?}"
    );
    // The site is wanted back.
    ask(&Request::Undrain { reason: "done".into() }).unwrap();
    until_true("announced again", || two.bird.route(PREFIX_V4).is_some());
}

/// What was told to the operator is on the disk, whenever the agent dies.
fn killed() {
    let lab = Lab::new();
    let mut bird = Bird::with(&lab.router, &session(""));
    let mut agent = lab.agent(&service());
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("announced", || bird.route(PREFIX_V4).is_some());
    begun(&act(blackhole(HOST), 600.0, true));
    let start = Instant::now();
    begun(&act(attract(HALF), 1.0, true));
    agent.kill();
    until_true("nobody announces", || bird.route(PREFIX_V4).is_none() && bird.route(HOST).is_none());
    until_true("the time of one is over", || start.elapsed() > Duration::from_secs(1));
    let mut agent = lab.agent(&service());
    until_true("announced again, with the one that lasts", || {
        bird.route(PREFIX_V4).is_some() && bird.route(HOST).is_some()
    });
    assert!(bird.route(HALF).is_none());
    let seen = status();
    assert_eq!(seen.actions.iter().map(|a| a.id).collect::<Vec<_>>(), [1]);
    assert!(seen.actions[0].left_s <= 599, "{:?}", seen.actions);
    assert!(seen.events.iter().any(|e| e.what.starts_with("action 2 ended")), "{:?}", seen.events);
    let ids: Vec<u32> = begun(&act(attract(HALF), 600.0, true)).actions.iter().map(|a| a.id).collect();
    assert_eq!(ids, [1, 3], "no number is given twice");
    // A drain that had not even begun to change anything is one all the same.
    let request = DrainRequest { reason: "disks".into(), ..DrainRequest::default() };
    assert!(matches!(ask(&Request::DrainWatched(request)), Ok(Reply::Drain(view)) if view.stage == Stage::Measuring));
    agent.kill();
    let _agent = lab.agent(&service());
    until_true("drained, for the same reason", || {
        lab::try_status().is_some_and(|s| s.state == State::Drained && s.cause.contains("disks"))
    });
    until_true("BIRD knows of nothing", || bird.route(PREFIX_V4).is_none() && bird.route(HOST).is_none());
    ask(&Request::Undrain { reason: "done".into() }).unwrap();
    until_true("all of it is back", || [PREFIX_V4, HOST, HALF].into_iter().all(|prefix| bird.route(prefix).is_some()));
}

fn hook() {
    let lab = Lab::new();
    let mut bird = Bird::with(&lab.router, &session(""));
    let script =
        "#!/bin/sh\necho \"$UBIQUE_SERVICE $UBIQUE_SITE $UBIQUE_REASON $1 $UBIQUE_DRAIN\" > /run/hook.said\nexit 3\n";
    fs::write("/run/hook.sh", script).unwrap();
    fs::set_permissions("/run/hook.sh", fs::Permissions::from_mode(0o755)).unwrap();
    let mut service = service();
    service.agent.drain_hook = vec!["/run/hook.sh".into(), "shorten".into()];
    let _agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("announced", || bird.route(PREFIX_V4).is_some());
    let view =
        drained(DrainRequest { reason: "disks".into(), prepend: 2, watch_s: Some(3.0), ..DrainRequest::default() });
    let hook = view.hook.unwrap();
    assert!(!hook.ok && hook.error.is_some_and(|why| why.contains('3')), "it is told");
    assert_eq!(fs::read_to_string("/run/hook.said").unwrap(), "resolver ams disks shorten begin\n");
    assert!(view.gone == Some(true) && bird.route(PREFIX_V4).is_none());
    ask(&Request::Undrain { reason: "done".into() }).unwrap();
    until_true("it is run again", || {
        fs::read_to_string("/run/hook.said").is_ok_and(|said| said == "resolver ams disks shorten end\n")
    });
}
