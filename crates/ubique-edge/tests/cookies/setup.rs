//! A data plane under test, in a network namespace that nobody else is in.

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::thread::UnshareFlags;
use ubique_edge::{Config, Counter, Counters, Edge, Error, Keys, Tier};
use ubique_proto::sessions::cookie::{Opening, Options, SEGMENTS_V4, SEGMENTS_V6};
use ubique_proto::sessions::{Flow, Key, Mask, Site, cookie, sequence};
use ubique_sys::netlink::Netlink;
use ubique_sys::netns::NetNs;

pub const FLOW_KEY: Key = Key([1, 2]);
pub const COOKIE_KEY: Key = Key([5, 6]);
pub const US: u8 = 5;
pub const MTU: u16 = 1400;
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Of the service.
pub const PORT: u16 = 443;

pub fn us() -> Site {
    Site::new(US).unwrap()
}

pub fn config() -> Config {
    Config {
        site: us(),
        keys: Keys { flow: FLOW_KEY, shim: Key([3, 4]), cookie: COOKIE_KEY, ids: vec![] },
        prefixes: ["198.51.100.0/24", "2001:db8:53::/48"].map(|prefix| prefix.parse().unwrap()).to_vec(),
        unicast: vec![],
        port: 8474,
        mtu: MTU,
        tier: Tier::Cookies,
        tcp_ports: vec![],
        quic_ports: vec![],
        clock_base_ms: 1_795_248_930_123,
        budget_per_s: 1_000_000,
        probes_per_s: 10_000,
        reply_through: false,
    }
}

/// `None`: not to be had here, and said so.
pub fn edge(config: &Config) -> Option<Edge> {
    match Edge::load(config) {
        Err(error @ (Error::NotPermitted | Error::Cookies(_))) => {
            eprintln!("skipped: {error}");
            None
        }
        loaded => Some(loaded.unwrap()),
    }
}

/// A network namespace of our own, which goes with its last descriptor. `None`: not permitted here, and said so.
pub fn namespace() -> Option<NetNs> {
    let made = std::thread::spawn(|| {
        // SAFETY: only the network namespace of this thread changes, which ends here.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        // No waiting for whether an address is somebody else's, too.
        std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")?;
        Netlink::open()?.set_up(1)?;
        NetNs::current()
    });
    made.join().unwrap().inspect_err(|error: &io::Error| eprintln!("skipped: no network namespaces: {error}")).ok()
}

/// Runs `test` in a namespace of its own, with listeners of both families at [`PORT`].
pub fn with_listeners(test: impl FnOnce() + Send) {
    let Some(namespace) = namespace() else { return };
    namespace
        .run(|| {
            let _v6 = TcpListener::bind(("::", PORT)).unwrap();
            test();
        })
        .unwrap();
}

/// The wall clock as a program sees it, ms.
pub fn wall_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    config().clock_base_ms + now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

pub fn flow(v6: bool, client_port: u16) -> Flow {
    let (client, service) = if v6 { ("2001:db8:c::1", "2001:db8:53::53") } else { ("203.0.113.7", "198.51.100.53") };
    let address = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
    Flow { client: address(client, client_port), service: address(service, PORT) }
}

pub fn mask(flow: &Flow) -> Mask {
    flow.mask(FLOW_KEY)
}

pub fn segments(flow: &Flow) -> [u16; 4] {
    if flow.client.is_ipv6() { SEGMENTS_V6 } else { SEGMENTS_V4 }
}

/// The number that a client of ours acknowledges who began with `isn`.
pub fn acknowledged(flow: &Flow, isn: u32, options: Options, wall_ms: u64) -> u32 {
    let opening = Opening { flow: flow.hash(FLOW_KEY), sequence: isn };
    sequence::encode(us(), cookie::encode(COOKIE_KEY, opening, options, wall_ms), mask(flow)).wrapping_add(1)
}

/// What was counted between two readings.
pub fn counted(before: &Counters, after: &Counters) -> Vec<(Counter, u64)> {
    after.seen().map(|(counter, n)| (counter, n - before[counter])).filter(|(_, n)| *n > 0).collect()
}
