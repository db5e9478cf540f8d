//! What will be built: names, addresses, links and delays, computed purely from an Internet and a service.
//!
//! [`Plan::new`] gives every network and site a namespace, every link two ends with addresses, every vantage point
//! a client address and every BGP session its two sides. The same input gives the same plan, so that names,
//! router ids and therefore tie-breaks repeat from run to run. Each address on a link is a host address with its
//! peer (as `ip addr add A peer B` makes it): links never share a subnet, whatever the service file says.
//!
//! Deliberately absent: kernel contact ([`crate::build`]) and processes ([`crate::world`]).
//! RFC 1918, 4193, 6598 (addresses), RFC 3021 and 6164 (point-to-point links), RFC 6286 (router ids).

mod addresses;
mod builder;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ubique_model::internet::Internet;
use ubique_model::location::Location;
use ubique_model::router::{NeighborSpec, RouterSpec, RoutersSpec};
use ubique_model::service::{Bfd, Service};
use ubique_model::{Asn, Prefix, Relation};

/// Speed of light in fibre: two thirds of the speed in vacuum, km/s.
pub const LIGHT_IN_FIBRE_KM_PER_S: f64 = 299_792.458 * 2.0 / 3.0;
/// How much longer a cable is than the great circle between its ends.
pub const PATH_STRETCH: f64 = 1.4;
/// Shortest one-way delay of a link that follows from geography.
pub const MIN_DELAY: Duration = Duration::from_micros(100);
/// Hold time between the networks of the emulated Internet. Long: their sessions are not what a rehearsal tests.
pub const NETWORK_HOLD_TIME: Duration = Duration::from_secs(90);
/// Most networks of a plan.
pub const MAX_NETWORKS: usize = 1024;
/// Most links of a plan.
pub const MAX_LINKS: usize = 4096;
/// Most vantage points of one network: each has its own address in the network's /24.
pub const MAX_VANTAGES_PER_NETWORK: usize = 250;
/// From how many networks a network buys transit that only the service file knows.
pub const TRANSITS_OF_ADDED_NETWORK: usize = 2;
/// A vantage point farther than this from its network's router is worth a note, km.
const FAR_VANTAGE_KM: f64 = 500.0;

/// Why no plan could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Something names a network that is not in the Internet.
    #[error("{what} names AS{asn}, which the Internet does not have")]
    UnknownNetwork {
        /// What names it.
        what: String,
        /// The missing network.
        asn: Asn,
    },
    /// A network appears twice.
    #[error("AS{0} appears twice in the Internet")]
    DuplicateNetwork(Asn),
    /// A link from a network to itself.
    #[error("a link connects AS{0} to itself")]
    SelfLink(Asn),
    /// The service's AS is a network of the Internet too: BGP would see loops.
    #[error("AS{0} is the service's AS and a network of the Internet as well; the two must differ")]
    ServiceAsInInternet(Asn),
    /// A link names an exchange point that does not exist.
    #[error("the link between AS{a} and AS{b} crosses {ixp:?}, which is not an exchange point of the Internet")]
    UnknownIxp {
        /// One end.
        a: Asn,
        /// The other end.
        b: Asn,
        /// The name.
        ixp: String,
    },
    /// An upstream is missing in the Internet, and the Internet has no network it could buy transit from.
    #[error(
        "AS{asn}, an upstream of site {site}, is not in the Internet, and the Internet has no network to connect it to"
    )]
    NowhereToConnect {
        /// The upstream.
        asn: Asn,
        /// The site.
        site: String,
    },
    /// Two ends of links of one namespace would face the same address.
    #[error("{holder} would have two links to {address}; give the sessions different addresses")]
    SameNeighbor {
        /// Namespace, as `AS1299` or `site ams`.
        holder: String,
        /// The neighbour's address.
        address: IpAddr,
    },
    /// An address is used on both ends of a link or for two purposes in one namespace.
    #[error("{holder} would have {address} both as its own and as a neighbour's address")]
    OwnNeighbor {
        /// Namespace.
        holder: String,
        /// The address.
        address: IpAddr,
    },
    /// No local address could be found next to an upstream's.
    #[error("site {site}: no free local address next to {upstream}; state local-address")]
    NoLocalAddress {
        /// The site.
        site: String,
        /// The upstream's address.
        upstream: IpAddr,
    },
    /// The emulated routers do not speak this.
    #[error(
        "site {site}: upstream {upstream} has `{key}`, which a rehearsal cannot honour; rehearse a copy of the file without it"
    )]
    NotInLab {
        /// The site.
        site: String,
        /// The upstream, or the range of a dynamic one.
        upstream: String,
        /// The key of the service file.
        key: &'static str,
    },
    /// The emulated routers listen on port 179 only.
    #[error(
        "site {site}: upstream {upstream} listens on port {port}; the emulated Internet offers BGP on port 179 only"
    )]
    Port {
        /// The site.
        site: String,
        /// The upstream's address.
        upstream: IpAddr,
        /// The port asked for.
        port: u16,
    },
    /// A limit.
    #[error("{count} {what}; at most {most} can be emulated")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// The service's prefixes and addresses leave no room.
    #[error("no addresses are left for {0}: the service file takes up the private ranges")]
    NoAddressSpace(&'static str),
}

/// An emulated Internet with the sites of a service, ready to be built.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The networks, by AS number.
    pub networks: Vec<NetworkPlan>,
    /// The sites, in the order of the service file.
    pub sites: Vec<SitePlan>,
    /// The links; each one's index is its number.
    pub links: Vec<LinkPlan>,
    /// The vantage points, in the order of the Internet file.
    pub vantages: Vec<VantagePlan>,
    /// What the user should know: networks that were added, far vantage points.
    pub notes: Vec<String>,
}

/// A network: one router in one namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkPlan {
    /// Its AS number.
    pub asn: Asn,
    /// Its name.
    pub name: String,
    /// Where its router stands.
    pub location: Location,
    /// Name of its namespace.
    pub netns: String,
    /// BGP identifier: the AS number, unique and not zero, which is all RFC 6286 asks for.
    pub router_id: Ipv4Addr,
    /// Prefixes it originates: those of its clients, and addresses of sites that are its customers' alone.
    pub originate: Vec<Prefix>,
    /// Addresses on its loopback: those of its vantage points.
    pub loopback: Vec<IpAddr>,
    /// Its BGP sessions, by link and family.
    pub sessions: Vec<SessionPlan>,
    /// Prefixes of its own that lead out by a link: unicast addresses of sites.
    pub routed: Vec<(Prefix, usize)>,
    /// It is not in the Internet file: only the service file knows it.
    pub added: bool,
}

/// A BGP session as one network's router sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionPlan {
    /// The link it runs on.
    pub link: usize,
    /// Our address.
    pub local: IpAddr,
    /// The neighbour's address.
    pub remote: IpAddr,
    /// The neighbour's AS.
    pub asn: Asn,
    /// What the neighbour is to us.
    pub relation: Relation,
    /// Proposed hold time.
    pub hold_time: Duration,
    /// Wait for the neighbour to connect.
    pub passive: bool,
    /// The site at the other end; `None`: a network.
    pub site: Option<String>,
    /// File with the TCP MD5 secret (RFC 2385).
    pub password_file: Option<PathBuf>,
    /// BFD as the site has it; the router has the same, or its own defaults where the site has those.
    pub bfd: Option<Bfd>,
    /// IP TTL when the service file says the neighbour is more than one hop away.
    pub multihop: Option<u8>,
}

/// A site.
#[derive(Clone, Debug, PartialEq)]
pub struct SitePlan {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub location: Location,
    /// Name of its namespace.
    pub netns: String,
    /// Its links.
    pub links: Vec<usize>,
    /// Next hop and link of the default route of each family it has: its first upstream.
    pub defaults: Vec<(IpAddr, usize)>,
    /// Addresses of its own on the loopback: where other sites reach it, with `[sessions]`.
    pub unicast: Vec<IpAddr>,
    /// It has the data plane of `[sessions]`.
    pub data_plane: bool,
}

/// A link: two ends with a wire between them.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkPlan {
    /// One end.
    pub a: EndPlan,
    /// The other end.
    pub b: EndPlan,
    /// One-way delay.
    pub delay: Duration,
    /// Probability that a frame is lost, 0 to 1.
    pub loss: f64,
    /// Capacity in bits per second; `None`: unlimited.
    pub rate_bits_per_s: Option<u64>,
}

/// One end of a link.
#[derive(Clone, Debug, PartialEq)]
pub struct EndPlan {
    /// Namespace.
    pub netns: String,
    /// Interface there.
    pub interface: String,
    /// Interface of the other half of its veth pair, in the wire's namespace.
    pub wire_interface: String,
    /// Own address and the address at the other end, for each family.
    pub addresses: Vec<(IpAddr, IpAddr)>,
    /// IPv6 link-local address; some routers insist on one.
    pub link_local: Ipv6Addr,
}

/// A vantage point.
#[derive(Clone, Debug, PartialEq)]
pub struct VantagePlan {
    /// Its name.
    pub name: String,
    /// Its network.
    pub asn: Asn,
    /// Where it is.
    pub location: Location,
    /// Namespace of its network.
    pub netns: String,
    /// The address it sends from.
    pub ipv4: Ipv4Addr,
    /// Likewise.
    pub ipv6: Ipv6Addr,
}

impl Plan {
    /// Plans an Internet with the sites of a service.
    ///
    /// # Errors
    /// [`PlanError`] when the two files contradict each other or themselves, or a limit is exceeded.
    pub fn new(internet: &Internet, service: &Service) -> Result<Plan, PlanError> {
        builder::build(internet, service)
    }

    /// The network of that AS number.
    pub fn network(&self, asn: Asn) -> Option<&NetworkPlan> {
        self.networks.iter().find(|n| n.asn == asn)
    }

    /// The site of that name.
    pub fn site(&self, name: &str) -> Option<&SitePlan> {
        self.sites.iter().find(|s| s.name == name)
    }

    /// Number of BGP sessions, each counted once at every router of the emulated Internet that holds an end of it.
    pub fn session_ends(&self) -> usize {
        self.networks.iter().map(|n| n.sessions.len()).sum()
    }

    /// What the embedded routers are told.
    pub fn routers_spec(&self, socket: &Path, namespaces: &Path, seed: u64) -> RoutersSpec {
        let neighbor = |s: &SessionPlan| NeighborSpec {
            local_address: s.local,
            address: s.remote,
            asn: s.asn,
            relation: s.relation,
            hold_time: s.hold_time,
            passive: s.passive,
        };
        let router = |n: &NetworkPlan| RouterSpec {
            asn: n.asn,
            name: n.name.clone(),
            router_id: n.router_id,
            netns: namespaces.join(&n.netns),
            originate: n.originate.clone(),
            neighbors: n.sessions.iter().map(neighbor).collect(),
        };
        RoutersSpec { socket: socket.to_owned(), seed, routers: self.networks.iter().map(router).collect() }
    }
}

/// One-way delay of a cable through these places.
pub fn cable_delay(places: &[&Location]) -> Duration {
    let km: f64 = places.windows(2).map(|pair| pair[0].distance_km(pair[1])).sum();
    Duration::from_secs_f64(km * PATH_STRETCH / LIGHT_IN_FIBRE_KM_PER_S).max(MIN_DELAY)
}
