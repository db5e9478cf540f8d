//! Each check: facts that are fine, and facts that are not with the finding they give.

use std::net::IpAddr;

use ubique_model::service::{Bfd, Service};
use ubique_sys::privilege::Capabilities;

use super::*;

const FILE: &str = r#"
[service]
name = "resolver"
asn = 64500
prefixes = ["198.51.100.0/24", "2001:db8:53::/48"]
addresses = ["198.51.100.53", "2001:db8:53::53"]
[[check]]
name = "answers"
kind = "dns"
target = "198.51.100.53:53"
query = "example.com A"
[[site]]
name = "ams"
location = "AMS"
[[site.upstream]]
asn = 65000
address = "192.0.2.1"
local-address = "192.0.2.2"
password-file = "/etc/ubique/secret.md5"
bfd = true
[[site.upstream]]
asn = 65001
address = "203.0.113.1"
local-address = "203.0.113.2"
"#;

const V4: &str = "192.0.2.1";

fn service() -> Service {
    let parsed = Service::parse("service.toml", FILE.as_bytes());
    parsed.value.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

/// A machine with nothing wrong.
fn healthy() -> Facts {
    let interface = |mtu| Interface { up: true, mtu, in_vrf: false };
    let sysctls = [
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/eth0/rp_filter", "2"),
        ("net/ipv4/conf/eth1/rp_filter", "0"),
        ("net/ipv4/tcp_mtu_probing", "1"),
        ("net/ipv4/tcp_l3mdev_accept", "0"),
        ("net/ipv4/udp_l3mdev_accept", "0"),
        ("net/ipv4/fib_multipath_hash_policy", "1"),
        ("net/ipv4/neigh/default/gc_thresh3", "1024"),
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/lo/disable_ipv6", "0"),
    ];
    let path = |interface: &str| PathFacts {
        interface: Some(interface.to_owned()),
        mtu: Some(1500),
        unreachable: None,
        connection: Some(Connection::Accepted),
    };
    Facts {
        sysctls: sysctls.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect(),
        counters: [("Udp.InDatagrams".to_owned(), 7)].into(),
        capabilities: Some(Capabilities::NET_ADMIN.and(Capabilities::NET_BIND_SERVICE)),
        clock: Some(ClockFacts { synchronised: true, error_max_ms: 5 }),
        interfaces: [("lo", 65536), ("eth0", 1500), ("eth1", 1500)]
            .map(|(name, mtu)| (name.into(), interface(mtu)))
            .into(),
        loopback: Some(vec!["127.0.0.1".parse().unwrap()]),
        paths: [(V4.parse().unwrap(), path("eth0")), ("203.0.113.1".parse().unwrap(), path("eth1"))].into(),
        firewall: FirewallFacts::Rules(serde_json::json!({ "nftables": [] })),
        neighbours: Some(3),
        has_md5: Some(true),
        ..Facts::default()
    }
}

fn outcome(facts: &Facts, check: &str) -> Outcome {
    let service = service();
    let outcomes = examine(Case { facts, subject: Some((&service, &service.sites[0])) });
    outcomes.into_iter().find(|outcome| outcome.check == check).unwrap()
}

/// The one finding of a check.
fn finding(facts: &Facts, check: &str) -> (Severity, String) {
    let outcome = outcome(facts, check);
    match outcome.findings.as_slice() {
        [one] => {
            assert!(!one.fix.is_empty());
            (one.severity, one.message.clone())
        }
        other => panic!("{check}: {other:?}"),
    }
}

fn set(facts: &mut Facts, key: &str, value: &str) {
    facts.sysctls.insert(key.to_owned(), value.to_owned());
}

#[test]
fn a_healthy_machine_has_no_findings_but_that_no_agent_runs() {
    let facts = Facts { agent: Some(Err("nobody answers".into())), ..healthy() };
    let service = service();
    let outcomes = examine(Case { facts: &facts, subject: Some((&service, &service.sites[0])) });
    let found: Vec<&str> = outcomes.iter().filter(|o| !o.findings.is_empty()).map(|o| o.check).collect();
    assert_eq!(found, ["supervision"], "{outcomes:#?}");
    assert_eq!(finding(&facts, "supervision").0, Severity::Warning);
}

#[test]
fn without_facts_nothing_is_claimed() {
    let facts = Facts::default();
    for subject in [None, Some(service())] {
        let subject = subject.as_ref().map(|service| (service, &service.sites[0]));
        for outcome in examine(Case { facts: &facts, subject }) {
            // IPv6 is known to be absent when even /proc/sys/net/ipv6 is.
            assert!(outcome.findings.is_empty() || outcome.check == "families", "{outcome:?}");
        }
    }
}

#[test]
fn strict_reverse_path_filters() {
    let mut facts = healthy();
    set(&mut facts, "net/ipv4/conf/all/rp_filter", "1");
    // eth0 is loose, and the greater value counts.
    let (severity, message) = finding(&facts, "rp-filter");
    assert!(severity == Severity::Error && message.contains("eth1"), "{message}");
    // One way in is the way out, too.
    facts.interfaces.remove("eth0");
    assert!(outcome(&facts, "rp-filter").findings.is_empty());
}

#[test]
fn rights_and_clock() {
    let mut facts = Facts { capabilities: Some(Capabilities::NET_ADMIN), ..healthy() };
    let (severity, message) = finding(&facts, "capabilities");
    assert!(severity == Severity::Error && message.contains("CAP_NET_BIND_SERVICE"), "{message}");
    facts.clock = Some(ClockFacts { synchronised: false, error_max_ms: 16_000 });
    assert_eq!(finding(&facts, "clock").0, Severity::Warning);
    facts.clock = Some(ClockFacts { synchronised: true, error_max_ms: 2000 });
    assert!(finding(&facts, "clock").1.contains("2000 ms"));
}

#[test]
fn networks_that_lose_packets() {
    let mut facts = healthy();
    facts.interfaces.get_mut("eth0").unwrap().mtu = 1200;
    facts.paths.get_mut(&V4.parse::<IpAddr>().unwrap()).unwrap().mtu = Some(1200);
    assert_eq!(finding(&facts, "mtu").0, Severity::Error);
    facts.interfaces.get_mut("eth0").unwrap().mtu = 1500;
    let (severity, message) = finding(&facts, "mtu");
    assert!(severity == Severity::Warning && message.contains("only 1200 octets reach 192.0.2.1"), "{message}");

    let mut facts = healthy();
    set(&mut facts, "net/ipv4/tcp_mtu_probing", "0");
    assert!(finding(&facts, "mtu").1.contains("RFC 7690"));
    set(&mut facts, "net/ipv4/fib_multipath_hash_policy", "0");
    assert_eq!(finding(&facts, "ecmp").0, Severity::Note);
    facts.neighbours = Some(900);
    assert_eq!(finding(&facts, "neighbour-table").0, Severity::Error);
    facts.conntrack = Some(TableUse { used: 5, limit: 1000 });
    assert_eq!(finding(&facts, "conntrack").0, Severity::Note);
    facts.conntrack = Some(TableUse { used: 900, limit: 1000 });
    assert_eq!(finding(&facts, "conntrack").0, Severity::Error);
    facts.counters.insert("Udp6.RcvbufErrors".into(), 3);
    assert!(finding(&facts, "socket-queues").1.contains("3 UDP over IPv6 packets"));
    set(&mut facts, "net/ipv6/conf/lo/disable_ipv6", "1");
    assert!(finding(&facts, "families").1.contains("lo/disable_ipv6"));
    facts.interfaces.get_mut("eth1").unwrap().in_vrf = true;
    assert_eq!(outcome(&facts, "vrf").findings.len(), 2, "TCP and UDP");
}

#[test]
fn firewalls_and_silent_upstreams() {
    let mut facts = healthy();
    let chain = serde_json::json!({"chain": {
        "family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input", "policy": "drop"
    }});
    facts.firewall = FirewallFacts::Rules(serde_json::json!({ "nftables": [chain] }));
    let messages: Vec<String> = outcome(&facts, "firewall").findings.into_iter().map(|f| f.message).collect();
    for expected in
        ["BGP from 192.0.2.1", "BFD from 192.0.2.1 (UDP port 3784)", "BGP from 203.0.113.1", "the service at"]
    {
        assert!(messages.iter().any(|message| message.contains(expected)), "{expected} not in {messages:?}");
    }
    facts.firewall = FirewallFacts::Unknown("nft is not installed".into());
    assert_eq!(outcome(&facts, "firewall").unknown.len(), 1);

    let path = facts.paths.get_mut(&"203.0.113.1".parse::<IpAddr>().unwrap()).unwrap();
    path.connection = Some(Connection::Silent);
    assert!(finding(&facts, "upstreams").1.contains("does not answer"));
    facts.has_md5 = Some(false);
    assert_eq!(finding(&facts, "session-keys").0, Severity::Error);
}

#[test]
fn full_and_closed_directories() {
    let directory =
        |writable, space| Directory { path: "/var/lib/ubique".into(), purpose: "the journal", writable, space };
    let mut facts = Facts { directories: vec![directory(Ok(()), Some((1 << 20, 1 << 40)))], ..healthy() };
    assert!(finding(&facts, "directories").1.contains("only 1 MiB"));
    facts.directories = vec![directory(Err("Permission denied".into()), None)];
    assert_eq!(finding(&facts, "directories").0, Severity::Error);
}

#[test]
fn addresses_that_nobody_serves() {
    let mut facts = Facts { agent: Some(Err("nobody answers".into())), ..healthy() };
    facts.loopback = Some(vec!["198.51.100.53".parse().unwrap()]);
    assert_eq!(finding(&facts, "addresses").0, Severity::Note);
}

#[test]
fn advice_mirrors_the_service_file_and_keeps_secrets() {
    let mut service = service();
    let bfd = Bfd {
        interval: std::time::Duration::from_millis(50),
        receive: std::time::Duration::from_millis(100),
        multiplier: 4,
    };
    service.sites[0].upstreams[0].bfd = Some(bfd);
    service.sites[0].upstreams[1].local_address = None;
    service.sites[0].upstreams[1].ttl_security = Some(1);
    let all = [
        (
            upstream::Router::Bird,
            [
                "min rx interval 50 ms; min tx interval 100 ms; multiplier 4",
                "hold time 9; keepalive time 3",
                "ttl security on",
            ],
        ),
        (upstream::Router::Frr, ["receive-interval 50\n  transmit-interval 100", "timers 3 9", "ttl-security hops 1"]),
        (upstream::Router::Junos, ["minimum-receive-interval 50", "hold-time 9", "ttl 255"]),
        (upstream::Router::IosXr, ["bfd minimum-interval 100", "timers 3 9", "ttl-security"]),
    ];
    for (router, expected) in all {
        let text = upstream::advice(router, &service, &service.sites[0]);
        let always = [
            "64500",
            "198.51.100.0/24",
            upstream::SECRET,
            upstream::OUR_ADDRESS,
            "/etc/ubique/secret.md5",
            "192.0.2.2",
        ];
        for part in expected.into_iter().chain(always) {
            assert!(text.contains(part), "{router:?}: {part:?} not in\n{text}");
        }
        assert!(!text.contains("2001:db8:53::/48"), "{router:?}: no session carries IPv6\n{text}");
    }
}

/// The service with `[sessions]` and a second site.
fn with_sessions() -> Service {
    let text = FILE.replace("location = \"AMS\"", "location = \"AMS\"\nunicast = [\"192.0.2.2\"]")
        + "[[site]]\nname = \"fra\"\nlocation = \"FRA\"\nunicast = [\"192.0.2.9\"]\n[[site.upstream]]\nasn = 65000\naddress = \"192.0.2.8\"\n\
           [sessions]\nsecret-file = \"/etc/ubique/secret\"\n";
    let parsed = Service::parse("service.toml", text.as_bytes());
    parsed.value.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

#[test]
fn what_sessions_need_is_looked_at() {
    let service = with_sessions();
    let found = |facts: &Facts| {
        let outcomes = examine(Case { facts, subject: Some((&service, &service.sites[0])) });
        let outcome = outcomes.into_iter().find(|outcome| outcome.check == "data-plane").unwrap();
        assert!(outcome.findings.iter().all(|finding| !finding.fix.is_empty()));
        outcome.findings.into_iter().map(|finding| finding.message).collect::<Vec<_>>()
    };
    let mut facts = healthy();
    set(&mut facts, "kernel/osrelease", "5.10.0-30-amd64");
    set(&mut facts, "net/ipv4/tcp_timestamps", "2");
    facts.capabilities = facts.capabilities.map(|have| have.and(Capabilities::BPF).and(Capabilities::PERFMON));
    let path = |mtu, why: Option<&str>| PathFacts { mtu, unreachable: why.map(str::to_owned), ..PathFacts::default() };
    let well = DataPlaneFacts {
        built: true,
        secret: Ok(()),
        sites: vec![("fra".into(), path(Some(1500), None))],
        foreign: vec![],
    };
    facts.data_plane = Some(well.clone());
    assert_eq!(found(&facts), <[&str; 0]>::default());
    let one = |facts: &Facts, word: &str| {
        let found = found(facts);
        assert!(found.len() == 1 && found[0].contains(word), "{word}: {found:?}");
    };
    for (key, value, word) in
        [("net/ipv4/tcp_timestamps", "1", "tcp_timestamps is not 2"), ("kernel/osrelease", "5.4.0", "too old")]
    {
        let mut other = facts.clone();
        set(&mut other, key, value);
        one(&other, word);
    }
    for (plane, word) in [
        (DataPlaneFacts { built: false, ..well.clone() }, "built without"),
        (DataPlaneFacts { secret: Err("the secret file /s is gone".into()), ..well.clone() }, "/s is gone"),
        (DataPlaneFacts { sites: vec![("fra".into(), path(Some(1400), None))], ..well.clone() }, "only 1400 octets"),
        (DataPlaneFacts { sites: vec![("fra".into(), path(None, Some("no way")))], ..well.clone() }, "no way"),
        (
            DataPlaneFacts { foreign: vec![("eth0".into(), 7)], ..well.clone() },
            "eth0 has another XDP program (number 7)",
        ),
    ] {
        one(&Facts { data_plane: Some(plane), ..facts.clone() }, word);
    }
    one(&Facts { capabilities: Some(Capabilities::NET_ADMIN), ..facts.clone() }, "CAP_BPF");
}
