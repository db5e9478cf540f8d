//! From the upstreams and ranges of a site to the neighbours of its speaker.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use ubique_model::Asn;
use ubique_model::service::{
    AoAlgorithm, Dynamic, GracefulRestart, NextHop, Role, Service, Site as SiteSpec, TcpAo, Upstream,
};
use ubique_proto::bgp::message;
use ubique_proto::bgp::speaker::{GracefulRestartConfig, NextHopConfig, PeerConfig, PeerId, Restarted, SpeakerConfig};
use ubique_sys::tcp;

use super::AgentError;
use crate::bgp::{Driver, DriverConfig, Endpoint, Key, Range, Secret, SecretError, Tap};
use crate::journal::Journal;
use crate::limits;
use crate::monitor::Monitor;
use crate::random::seed;

/// ConnectRetryTimer of an agent: an upstream that comes back shall see us soon.
const CONNECT_RETRY: Duration = Duration::from_secs(1);

/// TTL of an internal session, which may cross the site's own routers.
const INTERNAL_TTL: u8 = 64;

/// TTL of an external session on a common link (RFC 4271 §5.1.3 assumes one).
const EXTERNAL_TTL: u8 = 1;

/// Something a service file asks for that the kernel of this machine cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {fix}")]
pub struct Lacking {
    /// Key of the service file.
    pub key: &'static str,
    /// What is missing.
    pub message: &'static str,
    /// The way out.
    pub fix: &'static str,
}

/// What a service file asks of this machine that its kernel cannot do; `None`: nothing.
pub fn lacking(service: &Service) -> Option<Lacking> {
    let all = service.sites.iter().flat_map(|s| s.upstreams.iter().chain(s.dynamic.iter().map(|d| &d.template)));
    let wanted = all.filter(|u| u.tcp_ao.is_some()).count();
    // An error of the probe is no answer: a kernel that has it may still refuse it to this process.
    if wanted == 0 || tcp::has_ao().unwrap_or(true) {
        return None;
    }
    Some(Lacking {
        key: "tcp-ao",
        message: "TCP-AO needs a kernel with CONFIG_TCP_AO, Linux 6.7 or later, which this machine does not run",
        fix: "use `password-file` (TCP MD5), and `ttl-security` (GTSM) with a neighbour that is near",
    })
}

/// A speaker, and the upstreams whose key cannot be read, with why: their sessions wait.
pub(super) type Unarmed = Vec<(PeerId, String)>;

/// The speaker of a site with its sockets.
pub(super) fn speaker(
    service: &Service,
    site: &SiteSpec,
    index: usize,
    listen: Option<u16>,
    restarted: Option<Restarted>,
    (journal, monitor): (&Option<Journal>, &Option<Rc<Monitor>>),
) -> Result<(Driver, Unarmed), AgentError> {
    if let Some(what) = lacking(service) {
        return Err(what.into());
    }
    let mut unarmed = Vec::new();
    let mut endpoints = Vec::new();
    for (peer, upstream) in (0..).map(PeerId).zip(&site.upstreams) {
        let internal = upstream.asn == service.asn;
        endpoints.push(endpoint(upstream, internal).unwrap_or_else(|error| {
            unarmed.push((peer, super::reload::words(&error)));
            transport(upstream, internal)
        }));
    }
    let ranges: Vec<Range> = site.dynamic.iter().map(|d| range(d, service.asn)).collect();
    let (called, files) = (ranges.iter().map(|r| r.limit).sum::<usize>(), limits::descriptors());
    if called > files / 2 {
        tracing::warn!(called, files, "the limits of ranges are beyond what this process may open: raise LimitNOFILE");
    }
    let speaker = SpeakerConfig {
        peers: site.upstreams.iter().map(peer).collect(),
        scope: Some(service.prefixes.clone()),
        restarted,
        ..SpeakerConfig::new(service.asn, router_id(site, index), seed())
    };
    let driver = Driver::new(DriverConfig {
        speaker,
        endpoints,
        ranges,
        place: None,
        listen,
        // Another BGP speaker on this machine, or no right to the port: sessions we open ourselves suffice where they do.
        must_listen: !site.dynamic.is_empty() || site.upstreams.iter().any(|u| u.passive),
        journal: journal.clone(),
        tap: monitor.clone().map(|monitor| monitor as Rc<dyn Tap>),
    })?;
    Ok((driver, unarmed))
}

/// A neighbour as its session sees it.
pub(super) fn peer(upstream: &Upstream) -> PeerConfig {
    let restart = |r: GracefulRestart| GracefulRestartConfig { restart_time: r.restart_time, long_lived: r.long_lived };
    let NextHop { ipv4, ipv6 } = upstream.next_hop;
    PeerConfig {
        families: upstream.families.iter().copied().collect(),
        passive: upstream.passive,
        hold_time: upstream.hold_time,
        connect_retry: CONNECT_RETRY,
        keep: upstream.keep_routes as usize,
        max_prefix: upstream.max_prefix,
        role: upstream.role.map(role),
        strict_role: upstream.strict_role,
        graceful_restart: upstream.graceful_restart.map(restart),
        add_path: upstream.add_path,
        extended_next_hop: upstream.extended_next_hop,
        route_reflector_client: upstream.route_reflector_client,
        next_hop: NextHopConfig { ipv4, ipv6, unchanged: upstream.next_hop_unchanged },
        ..PeerConfig::new(upstream.address, upstream.asn, upstream.relation)
    }
}

fn role(role: Role) -> message::Role {
    match role {
        Role::Provider => message::Role::Provider,
        Role::Rs => message::Role::RouteServer,
        Role::RsClient => message::Role::RouteServerClient,
        Role::Customer => message::Role::Customer,
        Role::Peer => message::Role::Peer,
    }
}

/// The transport side of a neighbour; reads its key.
pub(super) fn endpoint(upstream: &Upstream, internal: bool) -> Result<Endpoint, SecretError> {
    Ok(Endpoint { key: key(upstream)?, ..transport(upstream, internal) })
}

/// The same without a key.
fn transport(upstream: &Upstream, internal: bool) -> Endpoint {
    let far = upstream.multihop.unwrap_or(EXTERNAL_TTL);
    let (ttl, min_ttl) = match upstream.ttl_security {
        // RFC 5082 §3: a packet that has come n hops from TTL 255 has 256 - n at the last of them.
        Some(hops) => (u8::MAX, u8::MAX - hops.saturating_sub(1)),
        None if internal => (INTERNAL_TTL, 0),
        None => (far, 0),
    };
    Endpoint {
        port: upstream.port,
        local: upstream.local_address,
        interface: upstream.interface.clone(),
        ttl,
        min_ttl,
        user_timeout: upstream.hold_time,
        ..Endpoint::new(upstream.address)
    }
}

fn key(upstream: &Upstream) -> Result<Option<Key>, SecretError> {
    if let Some(TcpAo { key_file, send_id, receive_id, algorithm }) = &upstream.tcp_ao {
        let algorithm = match algorithm {
            AoAlgorithm::HmacSha1 => tcp::AoAlgorithm::HmacSha1,
            AoAlgorithm::AesCmac128 => tcp::AoAlgorithm::AesCmac128,
        };
        let secret = Secret::read(key_file)?;
        return Ok(Some(Key::Ao { secret, send_id: *send_id, receive_id: *receive_id, algorithm }));
    }
    Ok(upstream.password_file.as_deref().map(Secret::read).transpose()?.map(Key::Md5))
}

/// A range whose key cannot be read takes nobody: a session that should be authenticated must not come up without.
fn range(dynamic: &Dynamic, own: Asn) -> Range {
    let internal = dynamic.asns.contains(&own);
    let (endpoint, limit) = match endpoint(&dynamic.template, internal) {
        Ok(endpoint) => (endpoint, dynamic.limit.into()),
        Err(error) => {
            let error = super::reload::words(&error);
            tracing::error!(range = %dynamic.range, error, "no neighbour from this range until the agent is restarted");
            (transport(&dynamic.template, internal), 0)
        }
    };
    Range { prefix: dynamic.range, asns: dynamic.asns.clone(), limit, peer: peer(&dynamic.template), endpoint }
}

/// The BGP identifier: as stated, or our first IPv4 address towards an upstream, or made from the site's index
/// (RFC 6286: any number but 0 that is unique in the AS).
fn router_id(site: &SiteSpec, index: usize) -> Ipv4Addr {
    let towards = |u: &Upstream| match (u.local_address, u.address) {
        (Some(IpAddr::V4(local)), _) => Some(local),
        (None, IpAddr::V4(remote)) => local_towards(SocketAddr::new(remote.into(), u.port)),
        _ => None,
    };
    site.router_id.or_else(|| site.upstreams.iter().find_map(towards)).unwrap_or_else(|| {
        let number = u32::try_from(index).unwrap_or(u32::MAX - 1).saturating_add(1);
        Ipv4Addr::from(number)
    })
}

/// The source address of the kernel's route; no packet is sent.
fn local_towards(remote: SocketAddr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(remote).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(local) if !local.is_unspecified() => Some(local),
        _ => None,
    }
}
