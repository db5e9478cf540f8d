//! A data plane under test.

use std::net::SocketAddr;

use ubique_edge::{Config, Edge, Error, IdKey, Keys, NextHop, Peer, Tier};
use ubique_proto::sessions::{Flow, Key, Mask, Site};

pub const KEYS: [Key; 4] = [Key([1, 2]), Key([3, 4]), Key([5, 6]), Key([7, 8])];
/// Us, one that is up over IPv4, one that is up over IPv6, one that is down, and one nobody knows.
pub const US: u8 = 5;
pub const UP_V4: u8 = 9;
pub const UP_V6: u8 = 10;
pub const DOWN: u8 = 11;
pub const UNKNOWN: u8 = 12;
pub const PORT: u16 = 8474;
pub const MTU: u16 = 1500;
/// Of the rotation of identifiers.
pub const ROTATION: u8 = 3;
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// BPF_PROG_TEST_RUN says that frames arrive on the loopback interface.
pub const INTERFACE: u32 = 1;

pub fn site(number: u8) -> Site {
    Site::new(number).unwrap()
}

pub fn config(tier: Tier) -> Config {
    Config {
        site: site(US),
        keys: Keys {
            flow: KEYS[0],
            shim: KEYS[1],
            cookie: KEYS[2],
            ids: vec![IdKey { rotation: ROTATION, key: KEYS[3] }],
        },
        prefixes: ["198.51.100.0/24", "2001:db8:53::/48"].map(|prefix| prefix.parse().unwrap()).to_vec(),
        unicast: ["192.0.2.5", "2001:db8::5"].map(|address| address.parse().unwrap()).to_vec(),
        port: PORT,
        mtu: MTU,
        tier,
        tcp_ports: vec![],
        quic_ports: vec![443, 8443],
        clock_base_ms: 1_795_248_930_123,
        budget_per_s: 1_000_000,
        probes_per_s: 10_000,
        reply_through: false,
    }
}

fn peer(address: &str, source: &str, up: bool) -> Peer {
    let next_hop = NextHop {
        interface: INTERFACE,
        source_mac: OUR_MAC,
        destination_mac: ROUTER_MAC,
        source: source.parse().unwrap(),
    };
    Peer { address: address.parse().unwrap(), up, next_hop: Some(next_hop) }
}

/// With the sites above; `None`: not permitted here, and said so.
pub fn edge_with(config: &Config) -> Option<Edge> {
    populated(Edge::load(config))
}

/// The same, for measurements.
#[allow(dead_code, reason = "of an example that shares this file")]
pub fn edge_for_measurement(config: &Config) -> Option<Edge> {
    populated(Edge::load_for_measurement(config))
}

fn populated(loaded: Result<Edge, Error>) -> Option<Edge> {
    let mut edge = match loaded {
        Err(Error::NotPermitted) => {
            eprintln!("skipped: BPF is not permitted here");
            return None;
        }
        loaded => loaded.unwrap(),
    };
    edge.set_peer(site(UP_V4), Some(&peer("192.0.2.9", "192.0.2.5", true))).unwrap();
    edge.set_peer(site(UP_V6), Some(&peer("2001:db8::10", "2001:db8::5", true))).unwrap();
    edge.set_peer(site(DOWN), Some(&peer("192.0.2.11", "192.0.2.5", false))).unwrap();
    Some(edge)
}

pub fn edge(tier: Tier) -> Option<Edge> {
    edge_with(&config(tier))
}

/// The wall clock as a program sees it, ms.
pub fn wall_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    config(Tier::Off).clock_base_ms + now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

pub fn flow(v6: bool, client_port: u16, service_port: u16) -> Flow {
    let (client, service) = if v6 { ("2001:db8:c::1", "2001:db8:53::53") } else { ("203.0.113.7", "198.51.100.53") };
    let address = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
    Flow { client: address(client, client_port), service: address(service, service_port) }
}

pub fn mask(flow: &Flow) -> Mask {
    flow.mask(KEYS[0])
}
