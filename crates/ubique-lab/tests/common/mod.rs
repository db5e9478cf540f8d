//! A small Internet for tests: three networks in a triangle, two sites, two vantage points.

use std::time::Duration;

use ubique_model::internet::{Internet, Link, Network, Vantage};
use ubique_model::location::Location;
use ubique_model::service::{
    AdminSettings, AgentSettings, Capacity, Guard, Levels, Records, RehearseSettings, Service, Site, Unicast, Upstream,
    site_number,
};
use ubique_model::{Asn, Relation};

pub fn place(name: &str, latitude: f64, longitude: f64) -> Location {
    Location { name: name.into(), latitude, longitude }
}

pub fn network(asn: u32, location: Location) -> Network {
    Network { asn: Asn(asn), name: format!("net{asn}"), location }
}

pub fn link(a: u32, b: u32, relation: Relation, delay_ms: u64) -> Link {
    let delay = Some(Duration::from_millis(delay_ms));
    Link { a: Asn(a), b: Asn(b), relation, delay, loss: 0.0, rate_bits_per_s: None, ixp: None }
}

pub fn london() -> Location {
    place("London, GB", 51.5, -0.12)
}

pub fn paris() -> Location {
    place("Paris, FR", 48.85, 2.35)
}

/// 100 in London and 200 in Paris peer, 5 ms apart; 300 and 400, with vantage points, buy transit from one each.
pub fn internet() -> Internet {
    Internet {
        name: "small".into(),
        networks: vec![network(100, london()), network(200, paris()), network(300, london()), network(400, paris())],
        links: vec![
            link(100, 200, Relation::Peer, 5),
            link(100, 300, Relation::Customer, 3),
            link(200, 400, Relation::Customer, 2),
        ],
        ixps: vec![],
        vantages: vec![
            Vantage { name: "London".into(), asn: Asn(300), location: london() },
            Vantage { name: "Paris".into(), asn: Asn(400), location: paris() },
        ],
    }
}

fn upstream(asn: u32, address: &str) -> Upstream {
    Upstream::new(Asn(asn), address.parse().unwrap())
}

fn site(name: &str, location: Location, upstreams: Vec<Upstream>) -> Site {
    let (capacity, unicast, number) = (Capacity::default(), Unicast::default(), site_number(name));
    Site { name: name.into(), location, capacity, router_id: None, unicast, number, upstreams, dynamic: vec![] }
}

/// Sites lon and par, one upstream each, both families.
pub fn service() -> Service {
    Service {
        name: "resolver".into(),
        asn: Asn(64500),
        prefixes: vec!["198.51.100.0/24".parse().unwrap(), "2001:db8:53::/48".parse().unwrap()],
        addresses: vec!["198.51.100.53".parse().unwrap(), "2001:db8:53::53".parse().unwrap()],
        checks: vec![],
        groups: vec![],
        levels: Levels::default(),
        shed: vec![],
        flap: None,
        guard: Guard::default(),
        sessions: None,
        sites: vec![
            site("lon", london(), vec![upstream(100, "192.0.2.1"), upstream(100, "2001:db8:1::1")]),
            site("par", paris(), vec![upstream(200, "192.0.2.5"), upstream(200, "2001:db8:1::5")]),
        ],
        agent: AgentSettings {
            socket: "/run/ubique/{service}-{site}.sock".into(),
            state: "/run/ubique/{service}-{site}.kept".into(),
            metrics: None,
            graceful_shutdown: Duration::ZERO,
            drain: Duration::from_millis(200),
            drain_hook: vec![],
            confirm_share: 50,
            watchdog: Duration::from_secs(2),
            sandbox: true,
            records: Records::default(),
            admin: AdminSettings::default(),
        },
        rehearse: RehearseSettings::default(),
    }
}
