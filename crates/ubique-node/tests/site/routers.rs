//! Embedded routers: several in one process, each in a namespace of its own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ubique_model::router::{NeighborSpec, RouterSpec, RoutersSpec};
use ubique_model::{Asn, Relation};
use ubique_sys::netlink::{Family, Netlink, RTPROT_BGP};
use ubique_sys::netns::NetNs;

use crate::daemons::{BIRD, Bird};
use crate::lab::{self, Lab, Process, until_true};
use crate::runner::Test;

pub const TESTS: &[Test] = &[
    Test { name: "routers_route_by_relation_and_fill_kernel_tables", needs: &[], run: triangle },
    Test { name: "a_chain_of_a_hundred_routers_in_one_process", needs: &[], run: chain },
    Test { name: "a_router_installs_and_removes_what_bird_says", needs: &[BIRD], run: with_bird },
];

const SOCKET: &str = "/run/ubique/routers.sock";

fn start(spec: &RoutersSpec) -> Process {
    fs::write("/run/routers.json", serde_json::to_vec(spec).unwrap()).unwrap();
    lab::start_ready(&NetNs::current().unwrap(), "routers", &["/run/routers.json"])
}

fn ask(query: Value) -> Value {
    let mut stream = UnixStream::connect(SOCKET).unwrap();
    writeln!(stream, "{query}").unwrap();
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).unwrap();
    serde_json::from_str(&reply).unwrap()
}

/// Gateway of the BGP route to a prefix in a namespace's kernel.
fn gateway(ns: &NetNs, prefix: &str) -> Option<String> {
    let destination = prefix.parse().unwrap();
    let family = if prefix.contains(':') { Family::V6 } else { Family::V4 };
    let routes = Netlink::open_in(ns).unwrap().routes(family).unwrap();
    let route = routes.into_iter().find(|r| r.destination == destination && r.protocol == RTPROT_BGP)?;
    Some(route.gateway?.to_string())
}

/// Whether both prefixes of the triangle lead to these gateways.
fn goes_by(ns: &NetNs, v4: &str, v6: &str) -> bool {
    gateway(ns, "192.0.2.0/24").as_deref() == Some(v4) && gateway(ns, "2001:db8::/48").as_deref() == Some(v6)
}

fn neighbor(local: &str, address: &str, asn: u32, relation: Relation) -> NeighborSpec {
    NeighborSpec {
        local_address: local.parse().unwrap(),
        address: address.parse().unwrap(),
        asn: Asn(asn),
        relation,
        hold_time: Duration::from_secs(9),
        passive: false,
    }
}

fn router(asn: u32, originate: &[&str], neighbors: Vec<NeighborSpec>) -> RouterSpec {
    RouterSpec {
        asn: Asn(asn),
        name: format!("AS {asn}"),
        router_id: asn.into(),
        netns: format!("/run/as{asn}").into(),
        originate: originate.iter().map(|p| p.parse().unwrap()).collect(),
        neighbors,
    }
}

/// A link between two ASes: interface and addresses at both ends.
fn link(name: &str, a: (&NetNs, &[&str]), b: (&NetNs, &[&str])) {
    Netlink::open().unwrap().add_veth((name, Some(a.0)), (name, Some(b.0))).unwrap();
    for (ns, addresses) in [a, b] {
        let mut netlink = Netlink::open_in(ns).unwrap();
        let index = netlink.link_index(name).unwrap();
        netlink.set_up(index).unwrap();
        for address in addresses {
            netlink.add_address(index, address.parse().unwrap()).unwrap();
        }
    }
}

/// 1 and 3 buy from 2 and peer with each other; 4 is a provider of 3.
fn triangle_spec() -> RoutersSpec {
    RoutersSpec {
        socket: SOCKET.into(),
        seed: 7,
        routers: vec![
            router(
                1,
                &["192.0.2.0/24", "2001:db8::/48"],
                vec![
                    neighbor("10.0.0.0", "10.0.0.1", 2, Relation::Transit),
                    neighbor("fd00:12::", "fd00:12::1", 2, Relation::Transit),
                    neighbor("10.0.0.4", "10.0.0.5", 3, Relation::Peer),
                    neighbor("fd00:13::", "fd00:13::1", 3, Relation::Peer),
                ],
            ),
            router(
                2,
                &[],
                vec![
                    neighbor("10.0.0.1", "10.0.0.0", 1, Relation::Customer),
                    neighbor("fd00:12::1", "fd00:12::", 1, Relation::Customer),
                    neighbor("10.0.0.2", "10.0.0.3", 3, Relation::Customer),
                    neighbor("fd00:23::", "fd00:23::1", 3, Relation::Customer),
                ],
            ),
            router(
                3,
                &[],
                vec![
                    neighbor("10.0.0.3", "10.0.0.2", 2, Relation::Transit),
                    neighbor("fd00:23::1", "fd00:23::", 2, Relation::Transit),
                    neighbor("10.0.0.5", "10.0.0.4", 1, Relation::Peer),
                    neighbor("fd00:13::1", "fd00:13::", 1, Relation::Peer),
                    neighbor("10.0.0.6", "10.0.0.7", 4, Relation::Transit),
                ],
            ),
            router(4, &[], vec![neighbor("10.0.0.7", "10.0.0.6", 3, Relation::Customer)]),
        ],
    }
}

/// What the control socket says of the triangle.
fn queries() {
    let routes = ask(json!({"query": "routes", "asn": 3, "prefix": "192.0.2.0/24"}));
    let candidates = routes["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 2);
    assert_eq!((&candidates[0]["peer_asn"], &candidates[0]["best"]), (&json!(1), &json!(true)));
    assert_eq!(candidates[0]["as_path"], json!([1]));
    assert_eq!(candidates[1]["as_path"], json!([2, 1]));
    assert_eq!(candidates[1]["step"], "local preference 200 > 100");
    let best = ask(json!({"query": "best", "prefix": "192.0.2.0/24"}));
    let paths: Vec<&Value> = best["routers"].as_array().unwrap().iter().map(|r| &r["best"]["as_path"]).collect();
    assert_eq!(paths, [&json!([]), &json!([1]), &json!([1]), &Value::Null]);
    assert!(ask(json!({"query": "routes", "asn": 9, "prefix": "192.0.2.0/24"}))["error"].is_string());
    assert!(ask(json!({"query": "best", "prefix": "nonsense"}))["error"].is_string());
}

fn triangle() {
    let ns = |asn: u32| NetNs::create_at(Path::new(&format!("/run/as{asn}"))).unwrap();
    let (one, two, three, four) = (ns(1), ns(2), ns(3), ns(4));
    link("l12", (&one, &["10.0.0.0/31", "fd00:12::/127"]), (&two, &["10.0.0.1/31", "fd00:12::1/127"]));
    link("l23", (&two, &["10.0.0.2/31", "fd00:23::/127"]), (&three, &["10.0.0.3/31", "fd00:23::1/127"]));
    link("l34", (&three, &["10.0.0.6/31"]), (&four, &["10.0.0.7/31"]));
    let mut process = start(&triangle_spec());
    let begin = Instant::now();
    let established = || ask(json!({"query": "status"}))["established"].as_u64().unwrap();
    until_true("sessions are up", || established() == 10);
    println!("ten ends of sessions up after {:?}", begin.elapsed());
    until_true("three goes by way of two", || goes_by(&three, "10.0.0.2", "fd00:23::"));
    link("l13", (&one, &["10.0.0.4/31", "fd00:13::/127"]), (&three, &["10.0.0.5/31", "fd00:13::1/127"]));
    until_true("all sessions are up", || established() == 14);
    assert_eq!(ask(json!({"query": "status"}))["sessions"], 14);
    // Three prefers its peer to its provider, and tells its provider neither.
    until_true("three goes straight to one", || goes_by(&three, "10.0.0.4", "fd00:13::"));
    assert_eq!(gateway(&two, "192.0.2.0/24").as_deref(), Some("10.0.0.0"));
    assert_eq!(gateway(&four, "192.0.2.0/24"), None, "no valley");
    assert_eq!(gateway(&one, "192.0.2.0/24"), None, "its own");

    queries();
    until_true("quiet", || ask(json!({"query": "status"}))["quiet_ms"].as_u64().unwrap() > 200);

    // A link goes down under its session: the hold time ends it, and the other way is taken.
    let mut netlink = Netlink::open_in(&one).unwrap();
    let index = netlink.link_index("l13").unwrap();
    netlink.set_down(index).unwrap();
    until_true("three goes by way of two", || gateway(&three, "192.0.2.0/24").as_deref() == Some("10.0.0.2"));
    process.signal(ubique_sys::process::Signal::Term);
    assert_eq!(process.wait(), 0);
}

fn with_bird() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let mut spec = RoutersSpec {
        socket: SOCKET.into(),
        seed: 7,
        routers: vec![router(
            lab::SITE_ASN,
            &[lab::PREFIX_V4, lab::PREFIX_V6],
            vec![
                neighbor(lab::SITE_V4, lab::ROUTER_V4, lab::ROUTER_ASN, Relation::Transit),
                neighbor(lab::SITE_V6, lab::ROUTER_V6, lab::ROUTER_ASN, Relation::Transit),
            ],
        )],
    };
    spec.routers[0].netns = "/run/ns-site".into();
    let _process = start(&spec);
    until_true("BIRD has our prefixes", || bird.has_both());
    until_true("IPv4 installed", || gateway(&lab.site, "203.0.113.0/24").as_deref() == Some(lab::ROUTER_V4));
    until_true("IPv6 installed", || gateway(&lab.site, "2001:db8:113::/48").as_deref() == Some(lab::ROUTER_V6));
    let start = Instant::now();
    bird.ask("disable static4");
    until_true("IPv4 removed", || gateway(&lab.site, "203.0.113.0/24").is_none());
    println!("withdrawn by BIRD to removed from the kernel {:?}", start.elapsed());
    bird.ask("enable static4");
    until_true("IPv4 installed again", || gateway(&lab.site, "203.0.113.0/24").is_some());
    bird.ask("disable site4");
    until_true("IPv4 removed with the session", || gateway(&lab.site, "203.0.113.0/24").is_none());
    assert!(gateway(&lab.site, "2001:db8:113::/48").is_some());
}

/// Each buys from the next: what the first originates reaches the last.
fn chain() {
    const LENGTH: u32 = 100;
    let names: Vec<NetNs> =
        (1..=LENGTH).map(|asn| NetNs::create_at(Path::new(&format!("/run/as{asn}"))).unwrap()).collect();
    let address = |n: u32, end: u32| std::net::Ipv4Addr::from(0x0a00_0000 + 2 * n + end).to_string();
    for n in 1..LENGTH {
        let ends = [0, 1].map(|end| format!("{}/31", address(n, end)));
        let (below, above) = (&names[n as usize - 1], &names[n as usize]);
        link(&format!("l{n}"), (below, &[&ends[0]]), (above, &[&ends[1]]));
    }
    let routers = (1..=LENGTH).map(|asn| {
        let mut neighbors = Vec::new();
        if asn > 1 {
            let (ours, theirs) = (address(asn - 1, 1), address(asn - 1, 0));
            neighbors.push(neighbor(&ours, &theirs, asn - 1, Relation::Customer));
        }
        if asn < LENGTH {
            let (ours, theirs) = (address(asn, 0), address(asn, 1));
            neighbors.push(neighbor(&ours, &theirs, asn + 1, Relation::Transit));
        }
        router(asn, if asn == 1 { &["192.0.2.0/24"] } else { &[] }, neighbors)
    });
    let spec = RoutersSpec { socket: SOCKET.into(), seed: 7, routers: routers.collect() };
    let begin = Instant::now();
    let process = start(&spec);
    let ready = begin.elapsed();
    let last = names.last().unwrap();
    until_true("the last one knows", || gateway(last, "192.0.2.0/24").is_some());
    println!("{LENGTH} routers: ready after {ready:?}, a route through all after {:?}", begin.elapsed());
    let best = ask(json!({"query": "best", "prefix": "192.0.2.0/24"}));
    let longest = best["routers"][LENGTH as usize - 1]["best"]["as_path"].as_array().unwrap().len();
    assert_eq!(longest, LENGTH as usize - 1);
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    println!("{}", status.lines().find(|l| l.starts_with("VmRSS")).unwrap());
}
