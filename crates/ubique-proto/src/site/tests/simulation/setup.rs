//! A service, its site and its neighbours, chosen by the seed.

use std::time::Duration;

use ubique_model::policy::Level;
use ubique_model::service::{Flap, Guard, Service as ServiceFile};
use ubique_model::{Asn, Relation};

use super::world::Upstream;
use crate::bgp::speaker::{Export, Import, PeerConfig, Speaker, SpeakerConfig};
use crate::health::{CheckConfig, Role};
use crate::rng::Rng;
use crate::site::{Others, SiteConfig, UpstreamConfig};

pub(super) const FILE: &str = r#"
[service]
name = "r"
asn = 64500
prefixes = ["198.51.100.0/24"]
addresses = ["198.51.100.1"]
[[shed]]
prepend = 2
[[shed]]
upstreams = ["transit"]
more-specifics = ["198.51.100.0/25"]
[[shed]]
blackhole = true
[[check]]
kind = "process"
process = "nsd"
[[site]]
name = "a"
location = "AMS"
[[site.upstream]]
asn = 64501
address = "10.0.0.2"
"#;

/// A network's own prefix, which nobody else may announce.
pub(super) const FOREIGN: &str = "203.0.113.0/24";

pub(super) fn address(n: u8) -> std::net::IpAddr {
    std::net::Ipv4Addr::new(10, 0, 0, n).into()
}

/// 1 is the agent, 2 its upstream; without timers, since nothing here tests them.
pub(super) fn speaker(file: &ServiceFile, n: u8) -> Speaker {
    let (asn, other) = if n == 1 { (file.asn, Asn(64501)) } else { (Asn(64501), file.asn) };
    let config = |import, export| PeerConfig {
        hold_time: Duration::ZERO,
        passive: true,
        import,
        export,
        ..PeerConfig::new(address(3 - n), other, Relation::Transit)
    };
    let peer = match n {
        1 => config(Import::Observe, Export::OwnOnly),
        _ => PeerConfig { relation: Relation::Customer, ..config(Import::GaoRexford, Export::GaoRexford) },
    };
    let scope = (n == 1).then(|| file.prefixes.clone());
    let id = std::net::Ipv4Addr::new(10, 0, 0, n);
    Speaker::new(SpeakerConfig { peers: vec![peer], scope, ..SpeakerConfig::new(asn, id, 1) })
}

pub(super) fn check(rng: &mut Rng, n: u64) -> CheckConfig {
    let every = Duration::from_secs([10, 20, 30, 60][rng.below(4) as usize]);
    CheckConfig {
        name: format!("check{n}"),
        what: format!("check{n}"),
        every,
        timeout: every / (2 + rng.below(4) as u32),
        retry: [None, Some(Duration::from_secs(1)), Some(every / 2)][rng.below(3) as usize],
        latency: None,
        fall: 1 + rng.below(3) as u32,
        rise: 1 + rng.below(3) as u32,
        role: Role::Alone(Level::Failed),
    }
}

pub(super) fn upstream(rng: &mut Rng, n: u64) -> Upstream {
    let full_view = [None, None, Some(true), Some(false)][rng.below(4) as usize];
    let sends = full_view.unwrap_or_else(|| rng.below(2) == 0);
    Upstream {
        name: format!("u{n}"),
        full_view,
        up: true,
        sends,
        // What the file promises is true.
        honours: full_view == Some(true) || (sends && rng.below(2) == 0),
        told: Others::None,
    }
}

pub(super) fn site_config(rng: &mut Rng, upstreams: &[Upstream]) -> SiteConfig {
    let flap = Flap { half_life: Duration::from_secs(60 + rng.below(1800)), ..Flap::default() };
    let upstreams = upstreams.iter().map(|u| UpstreamConfig { name: u.name.clone(), full_view: u.full_view });
    SiteConfig {
        shed_steps: 3,
        flap: (rng.below(4) > 0).then_some(flap),
        guard: Guard {
            last_site: Duration::from_secs([0, 1, 3, 10][rng.below(4) as usize]),
            retry: Duration::from_secs(30),
            start: rng.below(2) == 0,
        },
        upstreams: upstreams.collect(),
        ..SiteConfig::new(Duration::from_secs(5), Duration::from_millis(rng.below(3) * 500))
    }
}
