use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ubique_model::internet::{Internet, Ixp, Link, Network, Vantage};
use ubique_model::location::Location;
use ubique_model::service::{
    AdminSettings, AgentSettings, Capacity, Guard, Levels, Records, RehearseSettings, ReturnPath, Service, Sessions,
    Site, TcpMethod, Unicast, Upstream, site_number,
};
use ubique_model::{AddressFamily, Asn, Prefix, Relation};

use super::{MIN_DELAY, Plan, PlanError, cable_delay};

fn place(name: &str, latitude: f64, longitude: f64) -> Location {
    Location { name: name.into(), latitude, longitude }
}

fn london() -> Location {
    place("London, GB", 51.5, -0.12)
}

fn new_york() -> Location {
    place("New York, US", 40.71, -74.0)
}

fn tokyo() -> Location {
    place("Tokyo, JP", 35.68, 139.69)
}

fn network(asn: u32, location: Location) -> Network {
    Network { asn: Asn(asn), name: format!("net{asn}"), location }
}

fn link(a: u32, b: u32, relation: Relation) -> Link {
    Link { a: Asn(a), b: Asn(b), relation, delay: None, loss: 0.0, rate_bits_per_s: None, ixp: None }
}

fn internet() -> Internet {
    Internet {
        name: "three".into(),
        networks: vec![network(100, london()), network(200, new_york()), network(300, tokyo())],
        links: vec![
            link(100, 200, Relation::Peer),
            link(100, 300, Relation::Customer),
            link(200, 300, Relation::Customer),
        ],
        ixps: vec![Ixp { name: "TIX".into(), location: tokyo(), members: vec![] }],
        vantages: vec![
            Vantage { name: "Tokyo".into(), asn: Asn(300), location: tokyo() },
            Vantage { name: "Osaka".into(), asn: Asn(300), location: place("Osaka, JP", 34.69, 135.5) },
        ],
    }
}

fn upstream(asn: u32, address: &str) -> Upstream {
    Upstream::new(Asn(asn), address.parse().unwrap())
}

fn site(name: &str, location: Location, upstreams: Vec<Upstream>) -> Site {
    let (capacity, unicast, number) = (Capacity::default(), Unicast::default(), site_number(name));
    Site { name: name.into(), location, capacity, router_id: None, unicast, number, upstreams, dynamic: vec![] }
}

fn service(sites: Vec<Site>) -> Service {
    Service {
        name: "resolver".into(),
        asn: Asn(64500),
        prefixes: vec!["198.51.100.0/24".parse().unwrap(), "2001:db8:53::/48".parse().unwrap()],
        addresses: vec!["198.51.100.53".parse().unwrap()],
        checks: vec![],
        groups: vec![],
        levels: Levels::default(),
        shed: vec![],
        flap: None,
        guard: Guard::default(),
        sessions: None,
        sites,
        agent: AgentSettings {
            socket: "/run/ubique/{site}.sock".into(),
            state: "/run/ubique/{service}-{site}.kept".into(),
            metrics: None,
            graceful_shutdown: Duration::ZERO,
            drain: Duration::from_secs(1),
            drain_hook: vec![],
            confirm_share: 50,
            watchdog: Duration::from_secs(1),
            sandbox: true,
            records: Records::default(),
            admin: AdminSettings::default(),
        },
        rehearse: RehearseSettings::default(),
    }
}

fn two_sites() -> Service {
    service(vec![
        site("lon", london(), vec![upstream(100, "192.0.2.1"), upstream(100, "2001:db8:1::1")]),
        site("nyc", new_york(), vec![upstream(200, "192.0.2.4"), upstream(200, "2001:db8:1::4")]),
    ])
}

#[test]
fn same_input_same_plan() {
    assert_eq!(Plan::new(&internet(), &two_sites()), Plan::new(&internet(), &two_sites()));
}

#[test]
fn unicast_addresses_of_sites_are_routed_where_there_is_a_data_plane() {
    let mut service = two_sites();
    let unicast = ["203.0.113.1", "2001:db8:9::1"].map(|address| address.parse().unwrap());
    service.sites[0].unicast = Unicast::of(unicast);
    // That of its link: it is there already.
    service.sites[1].unicast = Unicast::of(["192.0.2.5".parse().unwrap()]);
    service.sites[1].upstreams[0].local_address = Some("192.0.2.5".parse().unwrap());
    let plan = Plan::new(&internet(), &service).unwrap();
    assert!(plan.sites.iter().all(|site| site.unicast.is_empty() && !site.data_plane), "nothing needs them");
    service.sessions = Some(Sessions {
        secret_file: "secret".into(),
        tcp: TcpMethod::Auto,
        tcp_ports: vec![],
        quic_ports: vec![],
        port: 8474,
        budget_per_s: 1,
        return_path: ReturnPath::Direct,
        mtu_bytes: 1500,
        mptcp: false,
        interfaces: vec![],
    });
    let plan = Plan::new(&internet(), &service).unwrap();
    let [lon, nyc] = &plan.sites[..] else { panic!("{:?}", plan.sites) };
    assert_eq!((&lon.unicast[..], &nyc.unicast[..]), (&unicast[..], &[][..]));
    let own = |asn| plan.network(Asn(asn)).unwrap();
    let prefixes = unicast.map(Prefix::from);
    assert_eq!(own(100).originate, prefixes);
    assert_eq!(own(100).routed, prefixes.map(|prefix| (prefix, lon.links[0])));
    assert_eq!((&own(200).originate[..], &own(200).routed[..]), (&["192.0.2.5/32".parse().unwrap()][..], &[][..]));
    let wire = crate::build::wire_spec(&plan, std::path::Path::new("w"), 1);
    let ends = [lon.links[0], nyc.links[0]].map(|link| format!("w{link}a"));
    assert_eq!(wire.towards_xdp, ends);
    service.sites[0].upstreams.pop();
    let plan = Plan::new(&internet(), &service).unwrap();
    assert!(plan.notes.iter().any(|note| note.contains("2001:db8:9::1")), "{:?}", plan.notes);
}

#[test]
fn addresses_and_interfaces_are_unique() {
    let plan = Plan::new(&internet(), &two_sites()).unwrap();
    assert_eq!(plan.links.len(), 5);
    let ends = || plan.links.iter().flat_map(|l| [&l.a, &l.b]);
    let locals: Vec<IpAddr> = ends().flat_map(|e| e.addresses.iter().map(|a| a.0)).collect();
    let loopbacks = plan.networks.iter().flat_map(|n| n.loopback.iter().copied());
    let all: Vec<IpAddr> = locals.iter().copied().chain(loopbacks).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    let names: BTreeSet<_> = ends().map(|e| (&e.netns, &e.interface)).collect();
    let wire_names: BTreeSet<_> = ends().map(|e| &e.wire_interface).collect();
    assert_eq!((names.len(), wire_names.len()), (10, 10));
    for l in &plan.links {
        for (x, y) in l.a.addresses.iter().zip(&l.b.addresses) {
            assert_eq!((x.0, x.1), (y.1, y.0), "each end faces the other");
        }
    }
    for prefix in &two_sites().prefixes {
        assert!(all.iter().all(|a| !prefix.contains(a)), "{prefix} belongs to the service");
    }
}

#[test]
fn both_families_of_an_upstream_share_a_link() {
    let plan = Plan::new(&internet(), &two_sites()).unwrap();
    let lon = plan.site("lon").unwrap();
    assert_eq!(lon.links.len(), 1);
    let end = &plan.links[lon.links[0]].a;
    let parse = |s: &str| s.parse::<IpAddr>().unwrap();
    assert_eq!(end.addresses[0], (parse("192.0.2.2"), parse("192.0.2.1")), "the other host of the /30");
    assert_eq!(end.addresses[1], (parse("2001:db8:1::2"), parse("2001:db8:1::1")));
    let nyc = &plan.links[plan.site("nyc").unwrap().links[0]].a;
    assert_eq!(nyc.addresses[0].0, parse("192.0.2.5"), "the other host of the /31: .4 is no host of a /30");
    let hops: Vec<IpAddr> = lon.defaults.iter().map(|d| d.0).collect();
    assert_eq!(hops, [parse("192.0.2.1"), parse("2001:db8:1::1")]);
    let session = plan.network(Asn(100)).unwrap().sessions.iter().find(|s| s.site.is_some()).unwrap();
    assert_eq!((session.relation, session.passive, session.asn), (Relation::Customer, true, Asn(64500)));
}

#[test]
fn a_taken_neighbour_falls_back_to_the_slash_31() {
    let service = service(vec![
        site("lon", london(), vec![upstream(100, "192.0.2.1")]),
        site("nyc", new_york(), vec![upstream(200, "192.0.2.2")]),
    ]);
    let plan = Plan::new(&internet(), &service).unwrap();
    let local = |name: &str| plan.links[plan.site(name).unwrap().links[0]].a.addresses[0].0.to_string();
    assert_eq!((local("lon"), local("nyc")), ("192.0.2.0".into(), "192.0.2.3".into()));
}

#[test]
fn sessions_have_two_sides_and_one_of_them_connects() {
    let plan = Plan::new(&internet(), &two_sites()).unwrap();
    assert_eq!(plan.session_ends(), 3 * 2 * 2 + 4);
    for network in &plan.networks {
        for session in network.sessions.iter().filter(|s| s.site.is_none()) {
            let other = plan.network(session.asn).unwrap();
            let back = other.sessions.iter().find(|s| s.remote == session.local).unwrap();
            assert_eq!((back.local, back.asn), (session.remote, network.asn));
            assert_ne!(back.passive, session.passive);
        }
    }
    let spec = plan.routers_spec("/s".as_ref(), "/ns".as_ref(), 7);
    assert_eq!(spec.routers.len(), 3);
    assert_eq!(spec.routers[0].netns, std::path::Path::new("/ns/as100"));
}

#[test]
fn delays_follow_geography_unless_stated() {
    let mut internet = internet();
    internet.links[0].delay = Some(Duration::from_millis(3));
    internet.links.push(Link { ixp: Some("TIX".into()), ..link(100, 200, Relation::Peer) });
    let plan = Plan::new(&internet, &two_sites()).unwrap();
    assert_eq!(plan.links[0].delay, Duration::from_millis(3));
    // London to Tokyo: 9560 km.
    let ms = plan.links[1].delay.as_secs_f64() * 1e3;
    assert!((66.0..68.0).contains(&ms), "{ms}");
    assert_eq!(plan.links[3].delay, cable_delay(&[&london(), &tokyo(), &new_york()]));
    let same_city = &plan.links[plan.site("lon").unwrap().links[0]];
    assert_eq!(same_city.delay, MIN_DELAY);
}

#[test]
fn an_unknown_upstream_is_added_and_noted() {
    let service = service(vec![site("lon", london(), vec![upstream(777, "192.0.2.1")])]);
    let plan = Plan::new(&internet(), &service).unwrap();
    let added = plan.network(Asn(777)).unwrap();
    assert!(added.added && added.location == london());
    let transits: BTreeSet<u32> =
        added.sessions.iter().filter(|s| s.relation == Relation::Transit).map(|s| s.asn.0).collect();
    assert_eq!(transits, BTreeSet::from([100, 200]), "300 sells no transit");
    assert!(plan.notes.iter().any(|n| n.contains("AS777")), "{:?}", plan.notes);
}

#[test]
fn ranges_of_the_service_are_left_alone() {
    let mut service = two_sites();
    service.prefixes = vec!["10.0.0.0/8".parse().unwrap(), "100.64.0.0/23".parse().unwrap()];
    let plan = Plan::new(&internet(), &service).unwrap();
    assert_eq!(plan.links[0].a.addresses[0].0.to_string(), "172.16.0.0");
    assert_eq!(plan.vantages[0].ipv4.to_string(), "100.64.2.1");
    assert_eq!(plan.vantages[1].ipv4.to_string(), "100.64.2.2", "each vantage point has its own address");
}

#[test]
fn contradictions_are_named() {
    let mut same = internet();
    same.networks.push(network(100, tokyo()));
    assert_eq!(Plan::new(&same, &two_sites()), Err(PlanError::DuplicateNetwork(Asn(100))));

    let mut own = two_sites();
    own.asn = Asn(300);
    assert_eq!(Plan::new(&internet(), &own), Err(PlanError::ServiceAsInInternet(Asn(300))));

    let mut lost = internet();
    lost.vantages[0].asn = Asn(9);
    assert!(matches!(Plan::new(&lost, &two_sites()), Err(PlanError::UnknownNetwork { asn: Asn(9), .. })));

    let mut twice = two_sites();
    for u in twice.sites.iter_mut().flat_map(|s| &mut s.upstreams) {
        u.asn = Asn(100);
        if u.address.is_ipv4() {
            u.local_address = Some("192.0.2.9".parse().unwrap());
        }
    }
    let error = Plan::new(&internet(), &twice).unwrap_err();
    assert_eq!(error.to_string(), "AS100 would have two links to 192.0.2.9; give the sessions different addresses");

    let mut port = two_sites();
    port.sites[0].upstreams[0].port = 1179;
    assert!(matches!(Plan::new(&internet(), &port), Err(PlanError::Port { port: 1179, .. })));

    let mut far = two_sites();
    far.sites[0].upstreams[0].ttl_security = Some(1);
    assert!(matches!(Plan::new(&internet(), &far), Err(PlanError::NotInLab { key: "ttl-security", .. })));
    let mut both = two_sites();
    both.sites[1].upstreams[0].families = vec![AddressFamily::Ipv4Unicast, AddressFamily::Ipv6Unicast];
    assert!(matches!(Plan::new(&internet(), &both), Err(PlanError::NotInLab { key: "families", .. })));

    let empty = Internet { networks: vec![], links: vec![], vantages: vec![], ..internet() };
    assert!(matches!(Plan::new(&empty, &two_sites()), Err(PlanError::NowhereToConnect { .. })));
}
