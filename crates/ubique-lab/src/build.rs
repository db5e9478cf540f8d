//! Makes a plan real: namespaces, veth pairs, addresses, kernel settings.
//!
//! Every end of a link is a veth whose other half lies in the wire's namespace. Both ends of a link carry the same
//! hardware address and do without ARP and neighbour discovery: then every frame is for whoever gets it, and no
//! resolution falls into a measurement. Checksum offload is off, since frames leave the kernel through AF_PACKET.
//!
//! Namespaces are bound at `DIRECTORY/ns/NAME`; they vanish with the mount namespace of the lab. Deliberately absent:
//! processes. Must run where the caller may create namespaces: in the sandbox.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ubique_model::IpNet;
use ubique_sys::netlink::{Family, Netlink, RTPROT_STATIC, Route};
use ubique_sys::netns::NetNs;
use ubique_sys::packet;

use crate::plan::{EndPlan, LinkPlan, NetworkPlan, Plan, SitePlan};
use crate::wire::{WireLink, WireSpec};

/// Name of the wire's namespace.
pub const WIRE: &str = "wire";
/// Threads that set up namespaces; more do not help, the kernel does most of it under one lock.
const THREADS: usize = 4;
/// The kernel may put off telling of a carrier for a second.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
const READY_POLL: Duration = Duration::from_millis(1);
/// First octets of hardware addresses: locally administered (IEEE 802 §8.4.2), and "ub".
const MAC_PREFIX: [u8; 3] = [0x02, 0x75, 0x62];
/// `lo` is the first interface of every namespace.
const LOOPBACK: u32 = 1;

/// Kernel settings of every namespace of a network or site, below `/proc/sys/net`.
const SETTINGS: [(&str, &str); 12] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    // Link-local addresses are given: generated ones would be the same on both ends.
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv6/conf/all/keep_addr_on_down", "1"),
    ("ipv6/conf/default/keep_addr_on_down", "1"),
];
/// Further settings of networks.
const ROUTER_SETTINGS: [(&str, &str); 2] = [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];
/// Further settings of sites with the data plane: one clock for the timestamps of all connections.
const DATA_PLANE_SETTINGS: [(&str, &str); 1] = [("ipv4/tcp_timestamps", "2")];
/// Settings of the wire's namespace: its interfaces must not speak by themselves.
const WIRE_SETTINGS: [(&str, &str); 2] = [("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")];

/// Why building failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct BuildError {
    /// What was tried.
    pub what: String,
    /// Why it failed.
    pub source: io::Error,
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> BuildError {
    let what = what.into();
    move |source| BuildError { what, source }
}

/// The namespaces of a plan, built.
#[derive(Debug)]
pub struct Built {
    directory: PathBuf,
    namespaces: BTreeMap<String, NetNs>,
}

impl Built {
    /// Builds all of a plan's namespaces and links below `directory`.
    ///
    /// # Errors
    /// [`BuildError`] naming the step that the kernel refused.
    pub fn new(plan: &Plan, directory: &Path) -> Result<Built, BuildError> {
        let namespaces = directory.join("ns");
        fs::create_dir_all(&namespaces).map_err(failed(format!("directory {}", namespaces.display())))?;
        let mut built = Built { directory: namespaces, namespaces: BTreeMap::new() };
        built.make_namespaces(plan)?;
        built.make_links(&plan.links)?;
        built.configure(plan)?;
        Ok(built)
    }

    /// Where the namespaces are bound.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The namespace of that name.
    pub fn namespace(&self, name: &str) -> Option<&NetNs> {
        self.namespaces.get(name)
    }

    fn make_namespaces(&mut self, plan: &Plan) -> Result<(), BuildError> {
        let mut wanted: Vec<(&str, Vec<(&str, &str)>)> = vec![(WIRE, WIRE_SETTINGS.to_vec())];
        let router: Vec<_> = SETTINGS.iter().chain(&ROUTER_SETTINGS).copied().collect();
        wanted.extend(plan.networks.iter().map(|n| (n.netns.as_str(), router.clone())));
        let site = |s: &SitePlan| match s.data_plane {
            true => SETTINGS.iter().chain(&DATA_PLANE_SETTINGS).copied().collect(),
            false => SETTINGS.to_vec(),
        };
        wanted.extend(plan.sites.iter().map(|s| (s.netns.as_str(), site(s))));
        let directory = &self.directory;
        let made = in_parallel(&wanted, |(name, settings)| {
            let namespace = NetNs::create_at(&directory.join(name)).map_err(failed(format!("namespace {name}")))?;
            namespace
                .run(|| apply_settings(settings))
                .and_then(|r| r)
                .map_err(failed(format!("kernel settings of namespace {name}")))?;
            Ok(((*name).to_owned(), namespace))
        })?;
        self.namespaces = made.into_iter().collect();
        Ok(())
    }

    fn get(&self, name: &str) -> Result<&NetNs, BuildError> {
        self.namespaces
            .get(name)
            .ok_or_else(|| BuildError { what: format!("namespace {name}"), source: io::ErrorKind::NotFound.into() })
    }

    /// All veth pairs in one batch, each with its far half in the wire's namespace.
    fn make_links(&self, links: &[LinkPlan]) -> Result<(), BuildError> {
        let mut netlink = Netlink::open_in(self.get(WIRE)?).map_err(failed("netlink in the wire's namespace"))?;
        let mut batch = netlink.batch();
        for (index, link) in links.iter().enumerate() {
            for end in [&link.a, &link.b] {
                let near = (end.interface.as_str(), Some(self.get(&end.netns)?));
                let far = (end.wire_interface.as_str(), None);
                batch
                    .add_point_to_point(near, far, hardware_address(index))
                    .map_err(failed(format!("link {index}, end in {}", end.netns)))?;
            }
        }
        batch.commit().map_err(failed("veth pairs"))?;
        let far = netlink.links().map_err(failed("interfaces of the wire's namespace"))?;
        let mut batch = netlink.batch();
        for link in far {
            batch.set_up(link.index).map_err(failed(format!("interface {}", link.name)))?;
        }
        batch.commit().map_err(failed("interfaces of the wire's namespace"))
    }

    /// Addresses, default routes and offloads, inside each namespace.
    fn configure(&self, plan: &Plan) -> Result<(), BuildError> {
        let mut ends: HashMap<&str, Vec<&EndPlan>> = HashMap::new();
        for end in plan.links.iter().flat_map(|l| [&l.a, &l.b]) {
            ends.entry(&end.netns).or_default().push(end);
        }
        let mut work: Vec<Work<'_>> = Vec::new();
        let mut add = |netns: &'_ str, network, site| {
            let ends = ends.remove(netns).unwrap_or_default();
            self.get(netns).map(|namespace| work.push(Work { namespace, ends, network, site }))
        };
        for network in &plan.networks {
            add(&network.netns, Some(network), None)?;
        }
        for site in &plan.sites {
            add(&site.netns, None, Some(site))?;
        }
        in_parallel(&work, |w| {
            let name = w.network.map(|n| &n.netns).or(w.site.map(|s| &s.netns));
            let what = format!("addresses of {}", name.map_or("", String::as_str));
            w.namespace.run(|| w.configure()).and_then(|r| r).map_err(failed(what))
        })?;
        Ok(())
    }
}

/// What is to be set up in one namespace.
struct Work<'a> {
    namespace: &'a NetNs,
    ends: Vec<&'a EndPlan>,
    network: Option<&'a NetworkPlan>,
    site: Option<&'a SitePlan>,
}

impl Work<'_> {
    /// On a thread inside the namespace.
    fn configure(&self) -> io::Result<()> {
        let mut netlink = Netlink::open()?;
        let indexes: HashMap<String, u32> = netlink.links()?.into_iter().map(|l| (l.name, l.index)).collect();
        let index = |interface: &str| {
            let found = indexes.get(interface).copied();
            found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface {interface}")))
        };
        let mut batch = netlink.batch();
        for end in &self.ends {
            packet::disable_offloads(&end.interface)?;
            let interface = index(&end.interface)?;
            batch.set_up(interface)?;
            for &(local, remote) in &end.addresses {
                batch.add_peer_address(interface, local, remote)?;
            }
            batch.add_address(interface, IpNet::new_assert(IpAddr::V6(end.link_local), 64))?;
        }
        for &address in self.network.iter().flat_map(|n| &n.loopback) {
            batch.add_address(LOOPBACK, IpNet::from(address))?;
        }
        for &address in self.site.iter().flat_map(|s| &s.unicast) {
            batch.add_address(LOOPBACK, IpNet::from(address))?;
        }
        // Whoever is at the other end is the gateway; stating it would need its route, which comes later.
        let route = |destination, link: usize| -> io::Result<Route> {
            let interface = Some(index(&format!("l{link}"))?);
            let (gateway, metric, source) = (None, None, None);
            let protocol = RTPROT_STATIC;
            Ok(Route { destination, gateway, interface, protocol, metric, blackhole: false, source })
        };
        for &(prefix, link) in self.network.iter().flat_map(|n| &n.routed) {
            batch.replace_route(&route(prefix, link)?)?;
        }
        for &(gateway, link) in self.site.iter().flat_map(|s| &s.defaults) {
            let unspecified: IpAddr = if gateway.is_ipv4() { [0u8; 4].into() } else { [0u8; 16].into() };
            batch.replace_route(&route(IpNet::new_assert(unspecified, 0), link)?)?;
        }
        batch.commit()?;
        self.wait_until_ready(&mut netlink)
    }

    /// IPv6 addresses, and the routes to their peers, come to life only when the kernel has noticed the carrier.
    fn wait_until_ready(&self, netlink: &mut Netlink) -> io::Result<()> {
        let peers = self.ends.iter().flat_map(|e| &e.addresses).map(|a| IpNet::from(a.1));
        let mut missing: HashSet<IpNet> = peers.filter(|p| p.addr().is_ipv6()).collect();
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            for route in netlink.routes(Family::V6)? {
                missing.remove(&route.destination);
            }
            let Some(peer) = missing.iter().next() else {
                return Ok(());
            };
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no route to {peer}")));
            }
            std::thread::sleep(READY_POLL);
        }
    }
}

/// What the wire process is told about the links of a plan.
pub fn wire_spec(plan: &Plan, socket: &Path, seed: u64) -> WireSpec {
    let link = |l: &LinkPlan| WireLink {
        a: l.a.wire_interface.clone(),
        b: l.b.wire_interface.clone(),
        delay_ns: u64::try_from(l.delay.as_nanos()).unwrap_or(u64::MAX),
        loss: l.loss,
        rate_bits_per_s: l.rate_bits_per_s,
    };
    let sites = || plan.sites.iter().filter(|site| site.data_plane).flat_map(|site| &site.links);
    WireSpec {
        socket: socket.to_owned(),
        seed,
        links: plan.links.iter().map(link).collect(),
        towards_xdp: sites().map(|&link| plan.links[link].a.wire_interface.clone()).collect(),
    }
}

/// The address both ends of a link share.
fn hardware_address(link: usize) -> [u8; 6] {
    let [.., a, b, c] = (link as u32).to_be_bytes();
    [MAC_PREFIX[0], MAC_PREFIX[1], MAC_PREFIX[2], a, b, c]
}

/// Writes settings of the calling thread's namespace. One that this kernel does not have is passed over.
fn apply_settings(settings: &[(&str, &str)]) -> io::Result<()> {
    for (name, value) in settings {
        match fs::write(Path::new("/proc/sys/net").join(name), value) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io::Error::new(e.kind(), format!("{name}: {e}"))),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Does `work` for every item on a few threads; results in order of the items, or the first error.
fn in_parallel<I: Sync, T: Send>(
    items: &[I],
    work: impl Fn(&I) -> Result<T, BuildError> + Sync,
) -> Result<Vec<T>, BuildError> {
    let share = items.len().div_ceil(THREADS).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(share)
            .map(|chunk| scope.spawn(|| chunk.iter().map(&work).collect::<Result<Vec<T>, _>>()))
            .collect();
        let mut all = Vec::with_capacity(items.len());
        for thread in threads {
            all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(all)
    })
}
