//! Interfaces that come later, go and come back; BFD that goes where its session goes.

use std::fs;
use std::time::Duration;

use ubique_model::AddressFamily;
use ubique_model::service::Upstream;
use ubique_node::bfd::{self, Driver, Peer};
use ubique_proto::bfd::Role;
use ubique_proto::bfd::packet::State;
use ubique_sys::netlink::{Netlink, Route};
use ubique_sys::netns::NetNs;

use crate::bfd::{BIRD_FAST, FAST};
use crate::daemons::{BIRD, Bird};
use crate::lab::{self, Lab, ROUTER_ASN, ROUTER_V4, SITE_V4, until_true};
use crate::runner::Test;
use crate::sessions::CALLS;

pub const TESTS: &[Test] = &[
    Test { name: "interfaces_that_come_later_and_come_back", needs: &[BIRD], run: come_back },
    Test { name: "bfd_takes_the_interface_of_its_session", needs: &[], run: two_links },
];

/// A second link of the lab, with these addresses at router and site.
fn add_link(lab: &Lab, addresses: &[[&str; 2]]) {
    Netlink::open().unwrap().add_veth(("l1", Some(&lab.router)), ("l1", Some(&lab.site))).unwrap();
    for (end, ns) in [&lab.router, &lab.site].into_iter().enumerate() {
        let mut netlink = Netlink::open_in(ns).unwrap();
        let index = netlink.link_index("l1").unwrap();
        netlink.set_up(index).unwrap();
        for pair in addresses {
            netlink.add_address(index, pair[end].parse().unwrap()).unwrap();
        }
    }
}

fn delete_link(ns: &NetNs) {
    let mut netlink = Netlink::open_in(ns).unwrap();
    let index = netlink.link_index("l1").unwrap();
    netlink.delete_link(index).unwrap();
}

/// Two neighbours that only call, one of them over an interface that comes and goes.
fn come_back() {
    let lab = Lab::new();
    let channels = "ipv4 { import all; export none; }; ipv6 { import all; export none; };";
    let common = format!("hold time 9; {CALLS}");
    let mut bird = Bird::with(
        &lab.router,
        &format!(
            "protocol bgp near {{ local {ROUTER_V4} as {ROUTER_ASN}; neighbor {SITE_V4} as 64500; {common} {channels} }}\n\
             protocol bgp far {{ local fe80::1 as {ROUTER_ASN}; neighbor fe80::2%l1 as 64500; {common} \
             bfd {BIRD_FAST}; {channels} }}\n"
        ),
    );
    let families = vec![AddressFamily::Ipv4Unicast, AddressFamily::Ipv6Unicast];
    let near = Upstream { families: families.clone(), passive: true, ..lab::upstream(ROUTER_V4) };
    let interface = Some("l1".to_owned());
    let far = Upstream { families, passive: true, interface, bfd: Some(FAST), ..lab::upstream("fe80::1") };
    let mut service = lab::service();
    service.sites[0].upstreams = vec![near, far];
    let agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("the other neighbour has its routes", || bird.has_both());
    assert!(agent.log().contains("interface l1"), "{}", agent.log());
    let peer = || lab::status().peers.into_iter().nth(1).unwrap();
    let up = || peer().state == "established" && peer().bfd.is_some_and(|b| b.state == "up");
    for round in 0..2 {
        add_link(&lab, &[["fe80::1/64", "fe80::2/64"], ["198.18.0.1/30", "198.18.0.2/30"]]);
        let took = until_true("session and BFD are up on the new interface", up);
        println!("round {round}: up {took:?} after the link");
        delete_link(&lab.router);
        until_true("the session is gone with the link", || peer().state != "established");
        assert!(bird.has_both(), "the other one stands");
    }
}

fn session(ns: &NetNs, remote: &str, local: &str, interface: Option<&str>) -> Driver {
    let peer = Peer {
        remote: remote.parse().unwrap(),
        interface: interface.map(str::to_owned),
        local: Some(local.parse().unwrap()),
        hops: None,
        settings: FAST,
        role: Role::Active,
    };
    ns.run(|| bfd::start(vec![peer], 7, None, Duration::from_secs(1), None)).unwrap().unwrap()
}

/// Two links lead to the neighbour, and the kernel prefers the one that the session does not take.
fn two_links() {
    const LOOPBACK: &str = "203.0.113.1";
    let lab = Lab::new();
    add_link(&lab, &[["198.18.0.1/30", "198.18.0.2/30"]]);
    let mut router = Netlink::open_in(&lab.router).unwrap();
    let loopback = router.link_index("lo").unwrap();
    router.set_up(loopback).unwrap();
    router.add_address(loopback, format!("{LOOPBACK}/32").parse().unwrap()).unwrap();
    let mut site = Netlink::open_in(&lab.site).unwrap();
    for (gateway, metric) in [(ROUTER_V4, 10), ("198.18.0.1", 20)] {
        let route = Route { metric: Some(metric), ..lab::route(&format!("{LOOPBACK}/32"), gateway) };
        site.replace_route(&route).unwrap();
    }
    for name in ["all", "l0", "l1"] {
        let file = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        lab.site.run(|| fs::write(file, "0")).unwrap().unwrap();
    }
    let ours = session(&lab.site, LOOPBACK, "198.18.0.2", Some("l1"));
    let theirs = session(&lab.router, "198.18.0.2", LOOPBACK, None);
    // Nothing is known of a session before its thread runs.
    until_true("both are up", || {
        [&ours, &theirs].iter().all(|d| d.snapshot().sessions.first().is_some_and(|s| s.core.state == State::Up))
    });
    let seen = |driver: &Driver| driver.snapshot().sessions[0].core;
    let l0 = router.link_index("l0").unwrap();
    router.set_down(l0).unwrap();
    let before = seen(&theirs).counters.received;
    until_true("packets go on", || seen(&theirs).counters.received > before + 20);
    assert_eq!((seen(&ours).counters.downs, seen(&theirs).counters.downs), (0, 0));
    let l1 = router.link_index("l1").unwrap();
    router.set_down(l1).unwrap();
    until_true("its own link counts", || seen(&ours).state == State::Down);
}
