//! The upstream's side of the sessions of a site: what its operator is to configure, so that failover is fast and a mistake of ours
//! stays ours.
//!
//! For every router the same: hold time as in the service file and a keepalive of a third; BFD with our intervals mirrored;
//! exactly our prefixes and our origin are accepted; a route with GRACEFUL_SHUTDOWN loses to every other (RFC 8326 §4.1); a prefix limit that ends the
//! session; no graceful restart unless the service file wants it, since a router that keeps the routes of a dead site is a black hole; routes of other sites to our
//! prefixes are sent to us, which the last-site guard looks at. Secrets are never printed: [`SECRET`] stands for them.
//!
//! BIRD's and FRR's are run by a test; Junos OS's and IOS XR's have run on no router, see each file.

mod bird;
mod frr;
mod ios_xr;
mod junos;

use std::net::IpAddr;
use std::time::Duration;

use ubique_model::service::{Bfd, Service, Site, Upstream};
use ubique_model::{AddressFamily, Asn, Family, Prefix};

/// Stands for the secret of a session.
pub const SECRET: &str = "REPLACE-WITH-THE-SHARED-SECRET";

/// Stands for our address on a session where the service file does not say it.
pub const OUR_ADDRESS: &str = "ADDRESS-OF-THE-SITE";

/// Prefixes beyond those of the service that are let through before the session ends: room for a new one.
const SPARE_PREFIXES: usize = 8;

/// Routers that advice is given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// BIRD 2.
    Bird,
    /// FRR.
    Frr,
    /// Junos OS.
    Junos,
    /// Cisco IOS XR.
    IosXr,
}

/// The configuration of all upstreams of a site that are such routers.
pub fn advice(router: Router, service: &Service, site: &Site) -> String {
    let sessions: Vec<Session<'_>> =
        site.upstreams.iter().enumerate().map(|(at, upstream)| Session::new(service, site, at, upstream)).collect();
    let mut text = String::new();
    for session in &sessions {
        let one = match router {
            Router::Bird => bird::configuration(session),
            Router::Frr => frr::configuration(session),
            Router::Junos => junos::configuration(session),
            Router::IosXr => ios_xr::configuration(session),
        };
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&one);
    }
    text
}

/// One session as the upstream sees it.
pub(super) struct Session<'a> {
    pub(super) service: &'a Service,
    pub(super) upstream: &'a Upstream,
    /// Unique among all sites: `ubique_resolver_ams_1`.
    pub(super) name: String,
    /// What it is, in words.
    pub(super) title: String,
    /// Our address.
    pub(super) site: String,
    /// Hold time and keepalive, s.
    pub(super) hold_s: u64,
    pub(super) keepalive_s: u64,
}

impl<'a> Session<'a> {
    fn new(service: &'a Service, site: &'a Site, at: usize, upstream: &'a Upstream) -> Session<'a> {
        let hold_s = upstream.hold_time.as_secs();
        Session {
            service,
            upstream,
            name: format!("ubique_{}_{}_{}", service.name, site.name, at + 1).replace('-', "_"),
            title: format!("service {}, site {}: AS{} at AS{}", service.name, site.name, service.asn, upstream.asn),
            site: upstream.local_address.map_or_else(|| OUR_ADDRESS.to_owned(), |address| address.to_string()),
            hold_s,
            keepalive_s: hold_s / 3,
        }
    }

    /// Unicast families of the session that the service has prefixes of, with those.
    fn families(&self) -> Vec<(Family, Vec<Prefix>)> {
        let one = |family: Family| {
            let carried = self.upstream.families.contains(&AddressFamily::unicast(family));
            let own = self.service.prefixes.iter().copied().filter(|prefix| Family::of(prefix) == family);
            let own: Vec<Prefix> = own.collect();
            (carried && !own.is_empty()).then_some((family, own))
        };
        Family::ALL.into_iter().filter_map(one).collect()
    }

    /// Most prefixes of a family.
    fn limit(own: &[Prefix]) -> usize {
        own.len() + SPARE_PREFIXES
    }

    fn address(&self) -> IpAddr {
        self.upstream.address
    }

    fn asn(&self) -> Asn {
        self.service.asn
    }

    fn is_internal(&self) -> bool {
        self.upstream.asn == self.service.asn
    }

    /// The file our secret is in, for a comment.
    fn secret_file(&self) -> Option<String> {
        self.upstream.password_file.as_ref().map(|file| file.display().to_string())
    }
}

/// BFD as the upstream configures it: what we send is what it receives. Milliseconds.
fn mirrored(bfd: Bfd) -> (u128, u128, u8) {
    let ms = |time: Duration| time.as_millis().max(1);
    (ms(bfd.interval), ms(bfd.receive), bfd.multiplier)
}
