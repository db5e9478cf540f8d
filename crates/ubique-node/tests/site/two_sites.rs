//! Two sites and one router: where the traffic of a site goes that leaves.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ubique_model::service::Service;
use ubique_sys::netlink::{Netlink, Route};
use ubique_sys::netns::NetNs;

use crate::daemons::Bird;
use crate::lab::{self, Lab, PREFIX_V4, Process, SERVICE_V4, until_true};
use crate::load;

/// A route of the kernel, worse than what BIRD installs (metric 32).
fn fallback(ns: &NetNs, destination: &str, gateway: &str) {
    let route = Route { metric: Some(1000), ..lab::route(destination, gateway) };
    Netlink::open_in(ns).unwrap().replace_route(&route).unwrap();
}

/// A link between two namespaces, with an address at each end.
pub fn link(name: &str, (a, address_a): (&NetNs, &str), (b, address_b): (&NetNs, &str)) {
    Netlink::open().unwrap().add_veth((name, Some(a)), (name, Some(b))).unwrap();
    for (ns, address) in [(a, address_a), (b, address_b)] {
        let mut netlink = Netlink::open_in(ns).unwrap();
        let index = netlink.link_index(name).unwrap();
        netlink.set_up(index).unwrap();
        netlink.add_address(index, address.parse().unwrap()).unwrap();
    }
}

pub fn on_loopback(ns: &NetNs, address: &str) {
    let mut netlink = Netlink::open_in(ns).unwrap();
    let lo = netlink.link_index("lo").unwrap();
    netlink.set_up(lo).unwrap();
    netlink.add_address(lo, address.parse().unwrap()).unwrap();
}

pub fn namespace(name: &str) -> NetNs {
    NetNs::create_at(Path::new(&format!("/run/ns-{name}"))).unwrap()
}

fn forward(ns: &NetNs) {
    ns.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap()).unwrap();
}

/// The site, another site that the router falls back to, and clients behind the router.
pub struct TwoSites {
    pub lab: Lab,
    pub other: NetNs,
    pub clients: NetNs,
    pub bird: Bird,
    pub agent: Process,
    pub dns: Process,
    _other_dns: Process,
}

/// Address of the clients.
pub const CLIENT: &str = "192.0.2.10";

/// Has BIRD install what it learns of IPv4; 32 is the metric of that, so that all of it goes to the site first.
pub const KERNEL: &str = "protocol kernel { ipv4 { export where source = RTS_BGP; }; }\n";

impl TwoSites {
    /// With the first upstream of the service only, and these protocols of BIRD.
    pub fn new(mut service: Service, protocols: &str) -> TwoSites {
        let lab = Lab::new();
        let (other, clients) = (namespace("other"), namespace("clients"));
        link("o0", (&lab.router, "192.0.2.5/30"), (&other, "192.0.2.6/30"));
        link("c0", (&lab.router, "192.0.2.9/30"), (&clients, &format!("{CLIENT}/30")));
        on_loopback(&other, &format!("{SERVICE_V4}/32"));
        forward(&lab.router);
        for (ns, gateway) in [(&other, "192.0.2.5"), (&clients, "192.0.2.9")] {
            Netlink::open_in(ns).unwrap().replace_route(&lab::route("0.0.0.0/0", gateway)).unwrap();
        }
        fallback(&lab.router, PREFIX_V4, "192.0.2.6");
        let mut bird = Bird::with(&lab.router, protocols);
        let other_dns = load::service_in(&other, &[SERVICE_V4]);
        service.agent.graceful_shutdown = Duration::from_secs(2);
        service.sites[0].upstreams.truncate(1);
        let agent = lab.agent(&service);
        lab.wait_for_addresses();
        let dns = load::service(&lab);
        until_true("announced", || bird.route(PREFIX_V4).is_some());
        TwoSites { lab, other, clients, bird, agent, dns, _other_dns: other_dns }
    }
}
