//! What a data plane is told.

use std::net::IpAddr;

use ipnet::IpNet;
use ubique_proto::sessions::{Flow, Key, Site};

/// Most prefixes of one family.
pub const PREFIXES_MAX: usize = 16;

/// Most TCP ports, and most QUIC ports.
pub const PORTS_MAX: usize = 16;

/// Most keys of connection identifiers: the one in use and the one before.
pub const ID_KEYS_MAX: usize = 2;

/// Smallest and largest [`Config::mtu`], octets.
pub const MTU: std::ops::RangeInclusive<u16> = 1280..=9216;

/// How TCP connections carry their site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// SYNs are answered by our own cookies; the kernel adopts sequence number and timestamps (Linux 6.9).
    Cookies,
    /// Timestamps are rewritten on their way out and back (Linux 5.10).
    Timestamps,
    /// TCP is left alone.
    Off,
}

/// Keys all sites share.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Of the masks of flows.
    pub flow: Key,
    /// Of the tags of shims.
    pub shim: Key,
    /// Of SYN cookies.
    pub cookie: Key,
    /// Of connection identifiers, the one in use first.
    pub ids: Vec<IdKey>,
}

/// A key of connection identifiers and where it stands in the rotation.
#[derive(Clone, Copy, Debug)]
pub struct IdKey {
    /// Below [`ubique_proto::sessions::connection_id::ROTATIONS`].
    pub rotation: u8,
    /// The key.
    pub key: Key,
}

/// What does not change while a program is loaded.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which site this is.
    pub site: Site,
    /// Shared by all sites.
    pub keys: Keys,
    /// The service's: packets to any other address are none of our business. At most [`PREFIXES_MAX`] of each family.
    pub prefixes: Vec<IpNet>,
    /// Our own addresses, where other sites send to: at most one of each family.
    pub unicast: Vec<IpAddr>,
    /// UDP port between sites.
    pub port: u16,
    /// Smallest MTU between sites, octets of IP, in [`MTU`].
    pub mtu: u16,
    /// How TCP connections carry their site.
    pub tier: Tier,
    /// TCP ports whose SYNs are answered by cookies; none: every port somebody listens on. At most [`PORTS_MAX`].
    pub tcp_ports: Vec<u16>,
    /// UDP ports that speak QUIC. At most [`PORTS_MAX`].
    pub quic_ports: Vec<u16>,
    /// The wall clock at 0 of the monotonic clock, ms since 1970, as timestamps say it. The same for as long as connections live, whatever
    /// becomes of the clock.
    pub clock_base_ms: u64,
    /// Packets a second that are taken from each other site.
    pub budget_per_s: u32,
    /// Packets a second whose owner is asked for, site by site.
    pub probes_per_s: u32,
    /// Whether replies travel through the site that got the client's packet.
    pub reply_through: bool,
}

/// Another site, as this one sees it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its unicast address.
    pub address: IpAddr,
    /// Whether it answers. The kernel resets connections of a site that does not.
    pub up: bool,
    /// How packets for it leave; `None`: nobody knows, and they are dropped.
    pub next_hop: Option<NextHop>,
}

/// How packets for a site leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface.
    pub interface: u32,
    /// Its hardware address.
    pub source_mac: [u8; 6],
    /// That of the next router, or of the site itself.
    pub destination_mac: [u8; 6],
    /// Our address, of the family of the site's.
    pub source: IpAddr,
}

/// A connection of ours that another site asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub flow: Flow,
    /// Who asks.
    pub origin: Site,
}
