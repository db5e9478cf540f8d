//! The namespaces: two clients, a router, three sites with the same service addresses.
//!
//! ```text
//! clients 10.1.N.2, fd00:1:N::2 ── router ── sites 10.2.N.2, fd00:2:N::2, and 198.51.100.1, 2001:db8:1::1 on lo
//!                                         ── (a second link, `mesh`) 10.3.N.2, fd00:3:N::2
//! ```
//! With a delay box, each link leads through the namespace `wire` (see [`crate::delay`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use ipnet::IpNet;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use ubique_sys::netlink::{Netlink, RTPROT_STATIC, Route};
use ubique_sys::netns::NetNs;
use ubique_sys::packet;

pub const CLIENTS: usize = 2;
pub const SITES: usize = 3;
/// Of the service.
pub const PORT: u16 = 8080;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub fn service(self) -> SocketAddr {
        SocketAddr::new(self.service_prefix().addr(), PORT)
    }

    pub fn service_prefix(self) -> IpNet {
        self.pick("198.51.100.1/32", "2001:db8:1::1/128")
    }

    fn pick(self, v4: &str, v6: &str) -> IpNet {
        let text = if self == Family::V4 { v4 } else { v6 };
        text.parse().unwrap()
    }

    fn everything(self) -> IpNet {
        self.pick("0.0.0.0/0", "::/0")
    }
}

/// What hangs on the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Client(usize),
    Site(usize),
    /// A second uplink of a site, for what goes from site to site.
    Mesh(usize),
}

impl End {
    pub fn all() -> impl Iterator<Item = End> {
        (0..CLIENTS).map(End::Client).chain((0..SITES).flat_map(|number| [End::Site(number), End::Mesh(number)]))
    }

    /// The router's interface to it, and of both ends in `wire`.
    pub fn name(self) -> String {
        match self {
            End::Client(number) => format!("client{number}"),
            End::Site(number) => format!("site{number}"),
            End::Mesh(number) => format!("mesh{number}"),
        }
    }

    /// Its own interface.
    pub fn interface(self) -> &'static str {
        if matches!(self, End::Mesh(_)) { "mesh" } else { "up" }
    }

    /// Its own address; `host` 1 is the router's on that link.
    pub fn address(self, family: Family, host: u8) -> IpNet {
        let (kind, number) = match self {
            End::Client(number) => (1, number),
            End::Site(number) => (2, number),
            End::Mesh(number) => (3, number),
        };
        family.pick(&format!("10.{kind}.{number}.{host}/24"), &format!("fd00:{kind}:{number}::{host}/64"))
    }
}

/// All namespaces of a scenario.
pub struct Net {
    pub clients: Vec<NetNs>,
    pub sites: Vec<NetNs>,
    pub router: NetNs,
    /// Where the delay box stands.
    pub wire: Option<NetNs>,
}

/// The end's and the router's interface of one link.
#[derive(Clone, Copy)]
pub struct Hardware {
    pub index: u32,
    pub mac: [u8; 6],
    pub router_mac: [u8; 6],
}

impl Net {
    /// Client 1 offers no timestamps. The routes to the service lead to site 0.
    pub fn new(with_wire: bool) -> Net {
        let clients = (0..CLIENTS).map(|number| namespace(&End::Client(number).name())).collect();
        let sites = (0..SITES).map(|number| namespace(&End::Site(number).name())).collect();
        let wire = with_wire.then(|| namespace("wire"));
        let net = Net { clients, sites, router: namespace("router"), wire };
        in_namespace(&net.router, || {
            sysctl("net/ipv4/ip_forward", "1");
            sysctl("net/ipv6/conf/all/forwarding", "1");
        });
        for end in End::all() {
            net.link(end);
        }
        in_namespace(&net.clients[1], || sysctl("net/ipv4/tcp_timestamps", "0"));
        for site in &net.sites {
            in_namespace(site, || {
                sysctl("net/ipv4/tcp_timestamps", "2");
                sysctl("net/ipv4/tcp_max_syn_backlog", "4096");
                let mut netlink = Netlink::open().unwrap();
                let lo = netlink.link_index("lo").unwrap();
                for family in Family::BOTH {
                    netlink.add_address(lo, family.service_prefix()).unwrap();
                }
            });
        }
        net.flip(0);
        net
    }

    pub fn end(&self, end: End) -> &NetNs {
        match end {
            End::Client(number) => &self.clients[number],
            End::Site(number) | End::Mesh(number) => &self.sites[number],
        }
    }

    /// Leads the routes to the service, of both families, to `site`.
    pub fn flip(&self, site: usize) {
        let mut netlink = Netlink::open_in(&self.router).unwrap();
        let mut batch = netlink.batch();
        for family in Family::BOTH {
            let gateway = End::Site(site).address(family, 2).addr();
            batch.replace_route(&route(family.service_prefix(), gateway)).unwrap();
        }
        batch.commit().unwrap();
    }

    /// An address of the site alone that is as public as the service's: browsers take no other one for it. To be made once.
    pub fn make_own_address(&self, site: usize, family: Family) -> IpAddr {
        let own = family.pick(&format!("203.0.113.{site}/32"), &format!("2001:db8:2::{site}/128"));
        in_namespace(&self.sites[site], || {
            let mut netlink = Netlink::open().unwrap();
            let lo = netlink.link_index("lo").unwrap();
            netlink.add_address(lo, own).unwrap();
        });
        let mut netlink = Netlink::open_in(&self.router).unwrap();
        netlink.replace_route(&route(own, End::Site(site).address(family, 2).addr())).unwrap();
        own.addr()
    }

    /// The router drops what comes from a service address by another link than the route to it. IPv4 only: Linux has no such switch for
    /// IPv6.
    pub fn be_strict(&self) {
        in_namespace(&self.router, || {
            for name in (0..SITES).map(|number| End::Site(number).name()) {
                sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "1");
            }
        });
    }

    pub fn hardware(&self, end: End) -> Hardware {
        let own = || (Netlink::open().unwrap().link_index(end.interface()).unwrap(), mac(end.interface()));
        let (index, own_mac) = in_namespace(self.end(end), own);
        Hardware { index, mac: own_mac, router_mac: in_namespace(&self.router, || mac(&end.name())) }
    }

    /// Counters of `/proc/net/netstat` and `/proc/net/snmp` over all clients, and over all sites.
    pub fn kernel_counters(&self) -> [Kernel; 2] {
        [&self.clients, &self.sites].map(|ends| {
            let each: Vec<_> = ends.iter().map(|ns| in_namespace(ns, Kernel::read)).collect();
            Kernel(each.into_iter().fold(BTreeMap::new(), |mut sum, Kernel(one)| {
                for (name, value) in one {
                    *sum.entry(name).or_default() += value;
                }
                sum
            }))
        })
    }

    fn link(&self, end: End) {
        let (name, own) = (end.name(), end.interface());
        let mut netlink = Netlink::open().unwrap();
        match &self.wire {
            None => netlink.add_veth((own, Some(self.end(end))), (&name, Some(&self.router))).unwrap(),
            Some(wire) => {
                netlink.add_veth((own, Some(self.end(end))), (&format!("{name}a"), Some(wire))).unwrap();
                netlink.add_veth((&name, Some(&self.router)), (&format!("{name}b"), Some(wire))).unwrap();
                in_namespace(wire, || {
                    up(&format!("{name}a"));
                    up(&format!("{name}b"));
                });
            }
        }
        in_namespace(&self.router, || {
            let index = up(&name);
            let mut netlink = Netlink::open().unwrap();
            for family in Family::BOTH {
                netlink.add_address(index, end.address(family, 1)).unwrap();
            }
        });
        in_namespace(self.end(end), || {
            let index = up(own);
            let mut netlink = Netlink::open().unwrap();
            for family in Family::BOTH {
                netlink.add_address(index, end.address(family, 2)).unwrap();
                if !matches!(end, End::Mesh(_)) {
                    let gateway = end.address(family, 1).addr();
                    netlink.replace_route(&route(family.everything(), gateway)).unwrap();
                }
            }
        });
    }
}

/// What the kernel counted in a namespace.
pub struct Kernel(BTreeMap<String, u64>);

impl Kernel {
    fn read() -> Kernel {
        let mut counters = BTreeMap::new();
        for file in ["netstat", "snmp"] {
            let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
            let lines: Vec<_> = text.lines().collect();
            for pair in lines.chunks_exact(2) {
                let (names, values) = (pair[0].split_whitespace(), pair[1].split_whitespace());
                let values = names.zip(values).skip(1);
                counters.extend(values.filter_map(|(name, value)| Some((name.into(), value.parse().ok()?))));
            }
        }
        Kernel(counters)
    }

    /// All that grew.
    pub fn since(&self, before: &Kernel) -> String {
        let grown = |(name, value): (&String, &u64)| {
            let grown = value.saturating_sub(before.0.get(name).copied().unwrap_or(0));
            (grown > 0).then(|| format!("{name} {grown}"))
        };
        self.0.iter().filter_map(grown).collect::<Vec<_>>().join(", ")
    }

    /// Panics where the kernel has no such counter.
    pub fn of(&self, name: &str) -> u64 {
        // Linux 6.16 has it; before, such packets were not looked at.
        let absent = if name == "TSEcrRejected" { Some(&0) } else { None };
        *self.0.get(name).or(absent).unwrap_or_else(|| panic!("no counter {name}"))
    }
}

/// Runs `f` on a thread in the namespace.
pub fn in_namespace<T: Send>(ns: &NetNs, f: impl FnOnce() -> T + Send) -> T {
    ns.run(f).unwrap()
}

/// Offloads as on a cable: what is forwarded or read by XDP has its checksum and is cut to the MTU.
pub fn up(interface: &str) -> u32 {
    packet::disable_offloads(interface).unwrap();
    let mut netlink = Netlink::open().unwrap();
    let index = netlink.link_index(interface).unwrap();
    netlink.set_up(index).unwrap();
    index
}

/// Without a reverse path filter: at the sites, packets of clients arrive from everywhere.
fn namespace(name: &str) -> NetNs {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let name = format!("{name}-{}", MADE.fetch_add(1, Ordering::Relaxed));
    let ns = NetNs::create_at(&Path::new("/run/ubique/ns").join(name)).unwrap();
    in_namespace(&ns, || {
        for scope in ["all", "default"] {
            sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0");
            // Link-local addresses can be used at once, too: the router asks for its neighbours from them.
            sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0");
        }
    });
    ns
}

fn route(destination: IpNet, gateway: IpAddr) -> Route {
    Route {
        destination,
        gateway: Some(gateway),
        interface: None,
        protocol: RTPROT_STATIC,
        metric: None,
        blackhole: false,
        source: None,
    }
}

fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{name}"), value).unwrap();
}

/// The hardware address of an interface of this namespace.
fn mac(interface: &str) -> [u8; 6] {
    let links = Netlink::open().unwrap().links().unwrap();
    links.into_iter().find(|link| link.name == interface).unwrap().hardware_address.unwrap()
}

/// Longest packet that an interface of this namespace sends.
pub fn set_mtu(interface: &str, octets: u16) {
    let mut request = request(interface);
    request.ifr_ifru.ifru_mtu = octets.into();
    call(libc::SIOCSIFMTU, &mut request);
}

/// The ports that clients in this namespace connect from.
pub fn set_client_ports(ports: RangeInclusive<u16>) {
    sysctl("net/ipv4/ip_local_port_range", &format!("{} {}", ports.start(), ports.end()));
}

fn request(interface: &str) -> libc::ifreq {
    // SAFETY: a C struct of integers and a union of plain data, for which zero bytes are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    assert!(interface.len() < request.ifr_name.len());
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// netdevice(7), with a command that takes a number in the request itself.
fn call(command: libc::c_ulong, request: &mut libc::ifreq) {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
    // SAFETY: the command above reads and writes the ifreq and follows no pointer in it; it outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), command as _, std::ptr::from_mut(request)) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
