//! The neighbours of a site: `[[site.upstream]]`, and `[[site.dynamic]]` for those known by their range only.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Action;
use crate::net::{AddressFamily, Asn, Community, ExtendedCommunity, Family, LargeCommunity, Prefix, Relation};

/// `[[site.upstream]]`: a BGP neighbour of a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upstream {
    /// The neighbour's AS.
    pub asn: Asn,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Our address on the session; default: what the kernel's route to `address` picks.
    pub local_address: Option<IpAddr>,
    /// Interface the session is bound to; always given with a link-local address.
    pub interface: Option<String>,
    /// What the neighbour is to us.
    pub relation: Relation,
    /// What is exchanged, sorted, at least one; default: unicast routes of the family of `address`.
    pub families: Vec<AddressFamily>,
    /// TCP port of the neighbour; default 179.
    pub port: u16,
    /// The neighbour connects to us, never we to it.
    pub passive: bool,
    /// BFD with it, when wanted; multihop when `multihop` is given.
    pub bfd: Option<Bfd>,
    /// Proposed hold time (RFC 4271 §4.2): 0 or at least 3 s; default 9 s.
    pub hold_time: Duration,
    /// IP TTL for an eBGP neighbour more than one hop away; default 1 hop.
    pub multihop: Option<u8>,
    /// GTSM (RFC 5082): the neighbour is at most so many hops away, and packets from further away are dropped.
    pub ttl_security: Option<u8>,
    /// File with the TCP MD5 secret (RFC 2385).
    pub password_file: Option<PathBuf>,
    /// TCP-AO (RFC 5925).
    pub tcp_ao: Option<TcpAo>,
    /// More prefixes than this in one family end the session (RFC 4486 §4); `None`: no limit of its own.
    pub max_prefix: Option<u32>,
    /// Received routes kept for `ubique routes`; those to the service's own prefixes come on top.
    pub keep_routes: u32,
    /// Our role (RFC 9234).
    pub role: Option<Role>,
    /// The neighbour must announce its role, too.
    pub strict_role: bool,
    /// Graceful restart; `None`: off.
    pub graceful_restart: Option<GracefulRestart>,
    /// Next hops of what is announced, where they are not our own addresses on the session.
    pub next_hop: NextHop,
    /// Routes passed on to an internal neighbour keep their next hop.
    pub next_hop_unchanged: bool,
    /// IPv6 next hops for IPv4 routes (RFC 8950).
    pub extended_next_hop: bool,
    /// Several paths to a prefix are received (RFC 7911).
    pub add_path: bool,
    /// An internal neighbour is our route-reflector client (RFC 4456).
    pub route_reflector_client: bool,
    /// Communities on every announcement to this neighbour.
    pub communities: Vec<Community>,
    /// Extended communities likewise.
    pub extended_communities: Vec<ExtendedCommunity>,
    /// Large communities likewise.
    pub large_communities: Vec<LargeCommunity>,
    /// How often our AS is prepended in addition.
    pub prepend: u8,
    /// MULTI_EXIT_DISC, when wanted.
    pub med: Option<u32>,
    /// What it is told at level degraded, instead of `[level.degraded]`.
    pub degraded: Option<Action>,
    /// What it is told at level failed, instead of `[level.failed]`.
    pub failed: Option<Action>,
    /// It shows us its routes to other sites, even while we announce with GRACEFUL_SHUTDOWN; `Some(false)`: it never does,
    /// probes must tell; `None`: it is believed to once it has.
    pub full_view: Option<bool>,
}

impl Upstream {
    /// How logs, metrics and guards call it: its address, with the interface where it is link-local.
    pub fn label(&self) -> String {
        match (&self.interface, self.address) {
            (Some(interface), IpAddr::V6(a)) if a.is_unicast_link_local() => format!("{a}%{interface}"),
            (_, address) => address.to_string(),
        }
    }

    /// A neighbour as a file describes it that says nothing else about it.
    pub fn new(asn: Asn, address: IpAddr) -> Upstream {
        Upstream {
            asn,
            address,
            local_address: None,
            interface: None,
            relation: Relation::Transit,
            families: vec![Family::of_address(address).into()],
            port: 179,
            passive: false,
            bfd: None,
            hold_time: Duration::from_secs(9),
            multihop: None,
            ttl_security: None,
            password_file: None,
            tcp_ao: None,
            max_prefix: None,
            keep_routes: super::spec::KEEP_ROUTES,
            role: None,
            strict_role: false,
            graceful_restart: None,
            next_hop: NextHop::default(),
            next_hop_unchanged: false,
            extended_next_hop: false,
            add_path: false,
            route_reflector_client: false,
            communities: vec![],
            extended_communities: vec![],
            large_communities: vec![],
            prepend: 0,
            med: None,
            degraded: None,
            failed: None,
            full_view: None,
        }
    }
}

/// `[[site.dynamic]]`: whoever calls from a range is a neighbour while its session lasts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dynamic {
    /// Where calls may come from; a neighbour with an address of its own in it is none of these.
    pub range: Prefix,
    /// The ASes a caller may be in; at least one.
    pub asns: Vec<Asn>,
    /// Most neighbours at a time.
    pub limit: u16,
    /// What each of them is otherwise; `asn` is the first of `asns`, `address` the range's.
    pub template: Upstream,
}

impl Dynamic {
    /// The neighbour at `address`, in `asn`.
    pub fn upstream(&self, address: IpAddr, asn: Asn) -> Upstream {
        Upstream { asn, address, ..self.template.clone() }
    }
}

/// `bfd` of an upstream: how fast each side notices that the other is lost (RFC 5880 §6.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bfd {
    /// Desired Min TX Interval.
    pub interval: Duration,
    /// Required Min RX Interval; default: `interval`.
    pub receive: Duration,
    /// Detection time multiplier, at least 1; default 3.
    pub multiplier: u8,
}

impl Default for Bfd {
    fn default() -> Bfd {
        let interval = Duration::from_millis(150);
        Bfd { interval, receive: interval, multiplier: 3 }
    }
}

/// Our role on an external session (RFC 9234 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// We sell transit to the neighbour.
    Provider,
    /// We are a route server.
    Rs,
    /// We are a client of a route server.
    RsClient,
    /// We buy transit from the neighbour.
    Customer,
    /// We exchange our own and our customers' routes.
    Peer,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 5] = [Role::Provider, Role::Rs, Role::RsClient, Role::Customer, Role::Peer];

    /// What we are to a neighbour that is `relation` to us; none within our organisation.
    pub fn towards(relation: Relation) -> Option<Role> {
        match relation {
            Relation::Transit => Some(Role::Customer),
            Relation::Peer => Some(Role::Peer),
            Relation::RouteServer => Some(Role::RsClient),
            Relation::Customer => Some(Role::Provider),
            Relation::Internal => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Provider => "provider",
            Role::Rs => "rs",
            Role::RsClient => "rs-client",
            Role::Customer => "customer",
            Role::Peer => "peer",
        })
    }
}

/// Graceful restart with a neighbour (RFC 4724, RFC 8538, RFC 9494).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GracefulRestart {
    /// How long it keeps our routes while we are away; whole seconds, 1 to 4095.
    pub restart_time: Duration,
    /// How much longer as routes of last resort (RFC 9494); whole seconds.
    pub long_lived: Option<Duration>,
}

/// Next hops of announcements, where they are not our own addresses on the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Of IPv4 routes.
    pub ipv4: Option<Ipv4Addr>,
    /// Of IPv6 routes.
    pub ipv6: Option<Ipv6Addr>,
}

/// A TCP-AO key (RFC 5925 §3.1): one for both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpAo {
    /// File with the secret.
    pub key_file: PathBuf,
    /// KeyID in what we send.
    pub send_id: u8,
    /// KeyID in what we receive.
    pub receive_id: u8,
    /// How segments are authenticated.
    pub algorithm: AoAlgorithm,
}

/// Algorithms of TCP-AO (RFC 5926 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AoAlgorithm {
    /// HMAC-SHA-1-96.
    #[serde(rename = "hmac-sha-1-96")]
    HmacSha1,
    /// AES-128-CMAC-96.
    #[serde(rename = "aes-128-cmac-96")]
    AesCmac128,
}

impl AoAlgorithm {
    /// Both, the one that every implementation has first.
    pub const ALL: [AoAlgorithm; 2] = [AoAlgorithm::HmacSha1, AoAlgorithm::AesCmac128];
}

impl fmt::Display for AoAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AoAlgorithm::HmacSha1 => "hmac-sha-1-96",
            AoAlgorithm::AesCmac128 => "aes-128-cmac-96",
        })
    }
}
