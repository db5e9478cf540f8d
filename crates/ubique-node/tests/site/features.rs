//! Roles, several paths and IPv6 next hops for IPv4, from the service file to what `status` and `routes` show, with BIRD.

use ubique_model::service::Service;
use ubique_node::admin::{Direction, RouteView, RoutesRequest};
use ubique_sys::netlink::Netlink;

use crate::daemons::{BIRD, Bird};
use crate::lab::{self, FILE, Lab, PREFIX_V4, ROUTER_ASN, ROUTER_V4, ROUTER_V6, SITE_V4, SITE_V6, until, until_true};
use crate::records::routes_of;
use crate::runner::Test;

const fn test(name: &'static str, run: fn()) -> Test {
    Test { name, needs: &[BIRD], run }
}

pub const TESTS: &[Test] = &[
    test("a_role_is_agreed_on_and_a_wrong_one_is_refused", role),
    test("several_paths_of_an_upstream_are_shown", add_path),
    test("ipv4_over_ipv6_next_hops", extended_next_hop),
];

/// A prefix of BIRD's.
const THEIRS: &str = "203.0.113.0/24";

/// The service with this one upstream: keys of `[[site.upstream]]`, as an operator writes them.
fn service(keys: &str) -> Service {
    let mut service = lab::service();
    service.sites[0].upstreams.clear();
    let text = service.to_toml() + &format!("[[site.upstream]]\nasn = {ROUTER_ASN}\n{keys}\n");
    let parsed = Service::parse(FILE, text.as_bytes());
    parsed.value.unwrap_or_else(|| panic!("{:?}\n{text}", parsed.diagnostics))
}

/// BIRD with one session, over IPv4 or IPv6; `session` is what else is in its braces.
fn bird(lab: &Lab, (ours, theirs): (&str, &str), session: &str, protocols: &str) -> Bird {
    let head = format!("local {ours} as {ROUTER_ASN}; neighbor {theirs} as 64500; hold time 9; error wait time 1, 2;");
    Bird::with(&lab.router, &format!("{protocols}\nprotocol bgp site {{\n {head}\n {session}\n}}\n"))
}

const V4: (&str, &str) = (ROUTER_V4, SITE_V4);
const V6: (&str, &str) = (ROUTER_V6, SITE_V6);
const BOTH_WAYS: &str = "import all; export where source = RTS_STATIC;";

fn capabilities() -> Vec<String> {
    lab::try_status().map_or_else(Vec::new, |s| s.peers[0].capabilities.clone())
}

fn last_error() -> Option<String> {
    lab::try_status()?.peers[0].last_error.clone()
}

fn has(capability: &str) -> bool {
    capabilities().iter().any(|c| c == capability)
}

fn received() -> Vec<RouteView> {
    let direction = Some(Direction::Received);
    routes_of(RoutesRequest { prefix: THEIRS.parse().ok(), direction, ..RoutesRequest::default() })
}

fn role() {
    let lab = Lab::new();
    let _agent = lab.agent(&service(&format!("address = \"{ROUTER_V4}\"\nrole = \"customer\"\nstrict-role = true")));
    lab.wait_for_addresses();
    let _dns = lab.dns();
    let with = |role: &str| bird(&lab, V4, &format!("{role} ipv4 {{ {BOTH_WAYS} }};"), "");
    let without = with("");
    let (error, _) = until("one without a role is refused", || last_error().filter(|e| e.contains("Role Mismatch")));
    println!("{error}");
    drop(without);
    let mut bird = with("local role provider;");
    until_true("announced", || bird.route(PREFIX_V4).is_some());
    assert!(has("role provider"), "{:?}", capabilities());
    // The routes of a provider go to customers only, and it says so (RFC 9234 §5); they are kept like others.
    until_true("its route", || received().len() == 1);
}

fn add_path() {
    let lab = Lab::new();
    let second = format!(
        "protocol static second {{ ipv4 {{ import filter {{ bgp_med = 7; accept; }}; preference 50; }};\n\
         route {THEIRS} blackhole; }}"
    );
    let mut bird = bird(&lab, V4, &format!("ipv4 {{ {BOTH_WAYS} add paths tx; }};"), &second);
    let _agent = lab.agent(&service(&format!("address = \"{ROUTER_V4}\"\nadd-path = true")));
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("announced", || bird.route(PREFIX_V4).is_some());
    assert!(has("add-path ipv4"), "{:?}", capabilities());
    until_true("both paths", || received().len() == 2);
    let paths = received();
    assert_ne!(paths[0].path_id, paths[1].path_id);
    let mut meds: Vec<_> = paths.iter().map(|p| p.med).collect();
    meds.sort();
    assert_eq!(meds, [None, Some(7)]);
    bird.ask("disable second");
    until_true("one is left", || received().len() == 1);
    assert_eq!(received()[0].med, None);
}

fn extended_next_hop() {
    let lab = Lab::new();
    let mut bird = bird(&lab, V6, &format!("ipv4 {{ {BOTH_WAYS} extended next hop on; }};"), "");
    // Otherwise the next hop would be the link's IPv4 address.
    let mut netlink = Netlink::open_in(&lab.site).unwrap();
    let index = netlink.link_index("l0").unwrap();
    netlink.delete_address(index, format!("{SITE_V4}/30").parse().unwrap()).unwrap();
    let keys = format!("address = \"{ROUTER_V6}\"\nfamilies = [\"ipv4\"]\nextended-next-hop = true");
    let _agent = lab.agent(&service(&keys));
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("announced", || bird.route(PREFIX_V4).is_some());
    let route = bird.route(PREFIX_V4).unwrap();
    assert!(route.contains(&format!("BGP.next_hop: {SITE_V6}")), "{route}");
    assert!(has("extended-next-hop ipv4"), "{:?}", capabilities());
    until_true("its route", || received().len() == 1);
    assert_eq!(received()[0].next_hop.map(|hop| hop.to_string()).as_deref(), Some(ROUTER_V6));
}
