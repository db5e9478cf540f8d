//! Namespaces, links, addresses and routes on the real kernel.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod ground;
mod runner;

use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use ground::{namespace, pair, path_of, readable};
use ubique_sys::netlink::{AddressEvent, AddressMonitor, Family, Link, Netlink, PathMonitor, RTPROT_BGP, Route};
use ubique_sys::netns::NetNs;

fn main() {
    runner::run(
        runner::Where::Sandbox,
        &[
            ("sandbox_network_is_empty_and_up", sandbox_network_is_empty_and_up),
            ("namespaces_are_apart", namespaces_are_apart),
            ("addresses_come_and_go", addresses_come_and_go),
            ("routes_are_read_back", routes_are_read_back),
            ("a_route_takes_the_place_of_the_old_one", a_route_takes_the_place_of_the_old_one),
            ("paths_and_neighbours_are_found", paths_and_neighbours_are_found),
            ("links_come_and_go", links_come_and_go),
            ("refusals_say_what_was_wanted", refusals_say_what_was_wanted),
            ("monitor_hears_changes", monitor_hears_changes),
            ("what_decides_how_packets_leave_is_heard", what_decides_how_packets_leave_is_heard),
            ("two_hundred_links_at_once", two_hundred_links_at_once),
        ],
    );
}

fn sandbox_network_is_empty_and_up() {
    let links = Netlink::open().unwrap().links().unwrap();
    let lo = links.iter().find(|link| link.name == "lo").unwrap();
    assert!(lo.up && lo.index == 1);
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    }
}

fn namespaces_are_apart() {
    let a = namespace("a");
    let b = namespace("b");
    assert_ne!(a.inode().unwrap(), b.inode().unwrap());
    let own = NetNs::current().unwrap().inode().unwrap();
    let inside = a.run(|| NetNs::current().unwrap().inode().unwrap()).unwrap();
    assert_eq!(inside, a.inode().unwrap());
    assert_eq!(NetNs::current().unwrap().inode().unwrap(), own);
    assert_eq!(NetNs::open(&path_of("b")).unwrap().inode().unwrap(), b.inode().unwrap());
    let again = NetNs::create_at(&path_of("b")).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert!(NetNs::open(Path::new("/proc/self/ns/uts")).unwrap().enter().is_err());
    // A socket stays where it was opened: this port is free here.
    let inside = a.run(|| TcpListener::bind("127.0.0.1:4000").unwrap()).unwrap();
    let here = TcpListener::bind("127.0.0.1:4000").unwrap();
    assert_eq!(inside.local_addr().unwrap(), here.local_addr().unwrap());
    a.enter().unwrap();
    assert_eq!(NetNs::current().unwrap().inode().unwrap(), a.inode().unwrap());
}

fn addresses_come_and_go() {
    let mut netlink = Netlink::open().unwrap();
    for text in ["198.51.100.1/32", "2001:db8::53/128"] {
        let address = text.parse().unwrap();
        let bind = || UdpSocket::bind((address_of(text), 53));
        assert_eq!(bind().unwrap_err().kind(), ErrorKind::AddrNotAvailable);
        assert!(netlink.add_address(1, address).unwrap());
        // Usable at once: no duplicate address detection.
        bind().unwrap();
        assert!(!netlink.add_address(1, address).unwrap());
        assert!(netlink.addresses(1).unwrap().contains(&address));
        assert!(netlink.delete_address(1, address).unwrap());
        assert!(!netlink.delete_address(1, address).unwrap());
        assert!(!netlink.addresses(1).unwrap().contains(&address));
    }
}

fn address_of(text: &str) -> IpAddr {
    text.split('/').next().unwrap().parse().unwrap()
}

fn route(destination: &str) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        gateway: None,
        interface: None,
        protocol: RTPROT_BGP,
        metric: None,
        blackhole: false,
        source: None,
    }
}

fn bgp_routes(netlink: &mut Netlink, family: Family) -> Vec<Route> {
    let mut routes = netlink.routes(family).unwrap();
    routes.retain(|route| route.protocol == RTPROT_BGP);
    routes
}

/// Routes of all the forms there are, through interface `l0` of `pair`.
fn sample_routes(l0: u32, own: IpAddr) -> (Vec<Route>, Vec<Route>) {
    let via = |destination: &str, gateway: &str| Route {
        gateway: Some(gateway.parse().unwrap()),
        interface: Some(l0),
        ..route(destination)
    };
    let v4 = vec![
        Route { source: Some(own), ..via("0.0.0.0/0", "10.0.0.1") },
        Route { metric: Some(20), ..via("203.0.113.0/24", "10.0.0.1") },
        via("192.0.2.0/24", "fd00::1"),
        Route { interface: Some(l0), ..route("192.0.2.128/25") },
        Route { blackhole: true, ..route("10.9.0.0/16") },
    ];
    let v6 = vec![
        Route { metric: Some(1024), ..via("::/0", "fd00::1") },
        Route { blackhole: true, metric: Some(7), ..route("2001:db8::/32") },
    ];
    (v4, v6)
}

fn routes_are_read_back() {
    let (a, _b) = pair();
    let mut netlink = Netlink::open_in(&a).unwrap();
    let l0 = netlink.link_index("l0").unwrap();
    netlink.add_address(1, "198.51.100.1/32".parse().unwrap()).unwrap();
    let (v4, v6) = sample_routes(l0, "198.51.100.1".parse().unwrap());
    for (family, wanted) in [(Family::V4, v4), (Family::V6, v6)] {
        for route in &wanted {
            netlink.replace_route(route).unwrap();
            netlink.replace_route(route).unwrap();
        }
        let mut found = bgp_routes(&mut netlink, family);
        assert_eq!(found.len(), wanted.len(), "{found:?}");
        found.retain(|route| !wanted.contains(route));
        assert_eq!(found, []);
        for route in &wanted {
            assert!(netlink.delete_route(route).unwrap(), "{route:?}");
            assert!(!netlink.delete_route(route).unwrap(), "{route:?}");
        }
        assert_eq!(bgp_routes(&mut netlink, family), []);
    }
}

fn a_route_takes_the_place_of_the_old_one() {
    let (a, _b) = pair();
    let mut netlink = Netlink::open_in(&a).unwrap();
    let l0 = netlink.link_index("l0").unwrap();
    for (family, destination, gateway) in
        [(Family::V4, "203.0.113.0/24", "10.0.0.1"), (Family::V6, "2001:db8::/32", "fd00::1")]
    {
        let direct = Route { interface: Some(l0), metric: Some(20), ..route(destination) };
        let far = Route { gateway: Some(gateway.parse().unwrap()), ..direct.clone() };
        for route in [&direct, &far, &direct, &far] {
            netlink.replace_route(route).unwrap();
            assert_eq!(bgp_routes(&mut netlink, family), std::slice::from_ref(route));
        }
        // Routes of other protocols are not ours to delete.
        assert!(!netlink.delete_route(&Route { protocol: 4, ..far.clone() }).unwrap());
        assert!(netlink.delete_route(&route(destination)).unwrap());
    }
}

/// A link to a router, a route through it, and a neighbour that is known once something was sent to it.
fn paths_and_neighbours_are_found() {
    let far = namespace("far");
    let mut near = Netlink::open().unwrap();
    near.add_veth(("p0", None), ("p0", Some(&far))).unwrap();
    let mut other = Netlink::open_in(&far).unwrap();
    let at = |netlink: &mut Netlink| netlink.links().unwrap().into_iter().find(|link| link.name == "p0").unwrap();
    for (netlink, addresses) in
        [(&mut near, ["192.0.2.1/24", "2001:db8:1::1/64"]), (&mut other, ["192.0.2.2/24", "2001:db8:1::2/64"])]
    {
        let index = at(netlink).index;
        netlink.set_up(index).unwrap();
        for address in addresses {
            netlink.add_address(index, address.parse().unwrap()).unwrap();
        }
    }
    let p0 = at(&mut near);
    let theirs = at(&mut other).hardware_address.unwrap();
    assert!(p0.hardware_address.is_some_and(|own| own != theirs) && !p0.no_arp);
    for (ours, gateway, far_away) in
        [("192.0.2.1", "192.0.2.2", "203.0.113.9"), ("2001:db8:1::1", "2001:db8:1::2", "2001:db8:2::9")]
    {
        let [own, gateway, far_away] = [ours, gateway, far_away].map(address_of);
        near.path(far_away, None).unwrap_err();
        near.replace_route(&Route {
            gateway: Some(gateway),
            ..route(&format!("{far_away}/{}", if own.is_ipv4() { 32 } else { 128 }))
        })
        .unwrap();
        let found = near.path(far_away, Some(own)).unwrap();
        assert_eq!((found.interface, found.gateway, found.is_local), (p0.index, Some(gateway), false));
        assert_eq!(near.path(far_away, None).unwrap().source, Some(own));
        assert_eq!(near.path(gateway, None).unwrap().gateway, None, "on the link");
        assert!(near.path(own, None).unwrap().is_local);
        if own.is_ipv4() {
            near.path(far_away, Some(address_of("192.0.2.77"))).unwrap_err();
        }
        assert_eq!(near.neighbour(p0.index, gateway).unwrap(), None);
        // Sending makes the kernel ask who has the address.
        let socket = UdpSocket::bind((own, 0)).unwrap();
        socket.send_to(b"?", (far_away, 9)).unwrap();
        let patience = Instant::now() + Duration::from_secs(10);
        let known = loop {
            match near.neighbour(p0.index, gateway).unwrap() {
                Some(address) => break address,
                None => assert!(Instant::now() < patience, "{gateway} never answered"),
            }
            std::thread::yield_now();
        };
        assert_eq!(known, theirs);
    }
}

fn links_come_and_go() {
    let (a, b) = pair();
    let mut at_a = Netlink::open_in(&a).unwrap();
    let mut at_b = Netlink::open_in(&b).unwrap();
    let index = at_a.link_index("l0").unwrap();
    at_a.set_down(index).unwrap();
    assert!(at_a.links().unwrap().iter().any(|link| link.index == index && !link.up));
    at_a.delete_link(index).unwrap();
    for netlink in [&mut at_a, &mut at_b] {
        let error = netlink.link_index("l0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

fn refusals_say_what_was_wanted() {
    let mut netlink = Netlink::open().unwrap();
    let address = "198.51.100.1/32".parse().unwrap();
    let text = netlink.add_address(4711, address).unwrap_err().to_string();
    assert!(text.contains("198.51.100.1/32") && text.contains("4711"), "{text}");
    let long = "a-name-of-twenty-byte";
    assert!(netlink.add_veth((long, None), ("b", None)).is_err());
    // In a batch, the good is done, the bad is named.
    let mut batch = netlink.batch();
    batch.add_address(1, address).unwrap();
    batch.add_address(4711, "198.51.100.2/32".parse().unwrap()).unwrap();
    batch.add_address(1, "198.51.100.3/32".parse().unwrap()).unwrap();
    batch.add_address(1, address).unwrap();
    let text = batch.commit().unwrap_err().to_string();
    assert!(text.contains("198.51.100.2/32"), "{text}");
    let found = netlink.addresses(1).unwrap();
    assert!(found.contains(&address) && found.contains(&"198.51.100.3/32".parse().unwrap()));
}

fn hear(monitor: &mut AddressMonitor, heard: &mut Vec<AddressEvent>) {
    while readable(&*monitor, 200) {
        heard.extend(monitor.recv().unwrap());
    }
}

fn monitor_hears_changes() {
    let mut monitor = AddressMonitor::open().unwrap();
    assert_eq!(monitor.recv().unwrap(), None);
    let mut netlink = Netlink::open().unwrap();
    let address = "2001:db8::53/128".parse().unwrap();
    let mut heard = Vec::new();
    // One after the other: the kernel tells of a new IPv6 address a little later, and not if that is gone by then.
    netlink.add_address(1, address).unwrap();
    hear(&mut monitor, &mut heard);
    netlink.delete_address(1, address).unwrap();
    netlink.add_veth(("va", None), ("vb", None)).unwrap();
    hear(&mut monitor, &mut heard);
    for added in [true, false] {
        let event = AddressEvent::Address { added, index: 1, address };
        assert!(heard.contains(&event), "{heard:?}");
    }
    let is_new_link =
        |event: &AddressEvent| matches!(event, AddressEvent::Link { link, deleted: false } if link.name == "va");
    assert!(heard.iter().any(is_new_link), "{heard:?}");
    // More events than the buffer holds: told, not hidden.
    let mut overrun = false;
    for _ in 0..40 {
        let mut batch = netlink.batch();
        for number in 0..1000u32 {
            let address = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
            batch.add_address(1, ipnet::IpNet::from(address)).unwrap();
        }
        batch.commit().unwrap();
        for number in 0..1000u32 {
            let address = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
            netlink.delete_address(1, ipnet::IpNet::from(address)).unwrap();
        }
        if readable(&monitor, 0) && monitor.recv().unwrap() == Some(AddressEvent::Overrun) {
            overrun = true;
            break;
        }
    }
    assert!(overrun);
}

fn what_decides_how_packets_leave_is_heard() {
    let far = namespace("far");
    let mut netlink = Netlink::open().unwrap();
    let mut monitor = PathMonitor::open().unwrap();
    let mut heard = |what: &str, change: &mut dyn FnMut(&mut Netlink)| {
        // What the kernel tells late of the change before: IPv6 takes its time.
        while readable(&monitor, 200) {
            monitor.changed().unwrap();
        }
        assert!(!monitor.changed().unwrap());
        change(&mut netlink);
        assert!(readable(&monitor, 10_000) && monitor.changed().unwrap(), "{what}");
    };
    heard("a link", &mut |netlink| netlink.add_veth(("p0", None), ("p0", Some(&far))).unwrap());
    let mut other = Netlink::open_in(&far).unwrap();
    let theirs = other.link_index("p0").unwrap();
    other.add_address(theirs, "192.0.2.2/24".parse().unwrap()).unwrap();
    other.set_up(theirs).unwrap();
    heard("it is up", &mut |netlink| {
        let index = netlink.link_index("p0").unwrap();
        netlink.set_up(index).unwrap();
    });
    heard("an address", &mut |netlink| {
        let index = netlink.link_index("p0").unwrap();
        netlink.add_address(index, "192.0.2.1/24".parse().unwrap()).unwrap();
    });
    let via = Route { gateway: Some(address_of("192.0.2.2")), ..route("203.0.113.0/24") };
    heard("a route", &mut |netlink| netlink.replace_route(&via).unwrap());
    heard("a neighbour", &mut |_| {
        let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
        socket.send_to(b"?", "203.0.113.9:9").unwrap();
    });
    heard("more than there is room for", &mut |netlink| {
        let mut batch = netlink.batch();
        for number in 0..2000u32 {
            let address = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
            batch.add_address(1, ipnet::IpNet::from(address)).unwrap();
        }
        batch.commit().unwrap();
    });
    heard("the other end is down", &mut |_| other.set_down(theirs).unwrap());
}

fn set_all_up(netlink: &mut Netlink) -> Vec<Link> {
    let links = netlink.links().unwrap();
    let mut batch = netlink.batch();
    for link in &links {
        batch.set_up(link.index).unwrap();
    }
    batch.commit().unwrap();
    links
}

fn two_hundred_links_at_once() {
    const LINKS: usize = 200;
    let wire = namespace("wire");
    let sites: Vec<_> = (0..20).map(|number| namespace(&format!("as{number}"))).collect();
    let start = Instant::now();
    let mut netlink = Netlink::open().unwrap();
    let names: Vec<_> = (0..LINKS).map(|link| (format!("w{link}"), format!("l{link}"))).collect();
    let mut batch = netlink.batch();
    for (link, (wire_end, site_end)) in names.iter().enumerate() {
        let site = &sites[link % sites.len()];
        batch.add_veth((wire_end, Some(&wire)), (site_end, Some(site))).unwrap();
    }
    batch.commit().unwrap();
    let linked = start.elapsed();
    set_all_up(&mut Netlink::open_in(&wire).unwrap());
    for (number, site) in sites.iter().enumerate() {
        let mut netlink = Netlink::open_in(site).unwrap();
        let links = set_all_up(&mut netlink);
        let mut batch = netlink.batch();
        for link in links.iter().filter(|link| link.name.starts_with('l') && link.index > 1) {
            let Ok(n) = link.name[1..].parse::<u8>() else {
                continue;
            };
            for address in [format!("10.0.{n}.0/31"), format!("fd00:{n:x}::/127")] {
                batch.add_address(link.index, address.parse().unwrap()).unwrap();
            }
            let gateway = Some(IpAddr::from([10, 0, n, 1]));
            let destination = format!("10.{}.{n}.0/24", number + 1);
            batch.replace_route(&Route { gateway, ..route(&destination) }).unwrap();
        }
        batch.commit().unwrap();
    }
    eprintln!("200 veth pairs: {linked:?}; with 400 addresses and 200 routes: {:?}", start.elapsed());
    let up = Netlink::open_in(&wire).unwrap().links().unwrap();
    assert_eq!(up.iter().filter(|link| link.up).count(), LINKS + 1);
    let mut netlink = Netlink::open_in(&sites[7]).unwrap();
    let bgp = netlink.routes(Family::V4).unwrap();
    assert_eq!(bgp.iter().filter(|route| route.protocol == RTPROT_BGP).count(), 10);
}
