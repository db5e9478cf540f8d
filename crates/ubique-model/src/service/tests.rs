use super::*;
use crate::check::CheckKind;
use crate::net::Relation;

const MINIMAL: &str = r#"
[service]
name = "r"
asn = 64500
prefixes = ["198.51.100.0/24"]
addresses = ["198.51.100.1"]
[[check]]
kind = "dns"
target = "198.51.100.1:53"
query = "example.com aaaa"
every = "100ms"
[[check]]
kind = "http"
url = "http://198.51.100.1"
[[site]]
name = "a"
location = "AMS"
[[site.upstream]]
asn = 64501
address = "192.0.2.1"
"#;

#[test]
fn defaults() {
    let parsed = Service::parse("s.toml", MINIMAL.as_bytes());
    assert_eq!(parsed.diagnostics, []);
    let service = parsed.value.unwrap();
    assert_eq!(service.agent.socket, PathBuf::from("/run/ubique/{service}-{site}.sock"));
    assert_eq!(service.agent.metrics, None);
    assert_eq!((service.agent.drain, service.agent.watchdog), (Duration::from_secs(5), Duration::from_secs(1)));
    assert!(service.rehearse.command.is_empty());
    let dns = &service.checks[0];
    assert_eq!((dns.name.as_str(), dns.fall, dns.rise), ("dns", 3, 3));
    assert_eq!(dns.timeout, Duration::from_millis(100), "never above every");
    let CheckKind::Dns { qtype, class, rcode, tcp, .. } = &dns.kind else { panic!() };
    assert_eq!((qtype.as_str(), class.as_str(), rcode.as_str(), *tcp), ("AAAA", "IN", "NOERROR", false));
    let http = &service.checks[1];
    assert_eq!((http.every, http.timeout), (Duration::from_secs(1), Duration::from_millis(500)));
    let CheckKind::Http { target, host, path, status } = &http.kind else { panic!() };
    assert_eq!(
        (target.to_string().as_str(), host.as_str(), path.as_str(), *status),
        ("198.51.100.1:80", "198.51.100.1", "/", 200)
    );
    let site = service.site("a").unwrap();
    assert_eq!(site.capacity, Capacity::default());
    let upstream = &site.upstreams[0];
    assert_eq!(
        (upstream.port, upstream.hold_time, upstream.relation),
        (179, Duration::from_secs(9), Relation::Transit)
    );
    assert_eq!(*upstream, Upstream::new(Asn(64501), "192.0.2.1".parse().unwrap()), "Upstream::new has the defaults");
    assert_eq!(service.site("b"), None);
}

#[test]
fn loopback_sessions_on_different_ports_are_fine() {
    let text = MINIMAL.replace(
        "address = \"192.0.2.1\"",
        "address = \"127.0.0.1\"\nport = 1179\n[[site.upstream]]\nasn = 64502\naddress = \"127.0.0.1\"\nport = 1180",
    );
    assert_eq!(Service::parse("s.toml", text.as_bytes()).diagnostics, []);
}

#[test]
fn diagnostics_name_file_place_cause_and_fix() {
    let text = MINIMAL.replace("198.51.100.0/24", "198.51.100.9/24");
    let parsed = Service::parse("my.toml", text.as_bytes());
    let [d] = &parsed.diagnostics[..] else { panic!("{:#?}", parsed.diagnostics) };
    assert_eq!((d.code.as_str(), d.file.as_str(), d.line, d.column), ("E0211", "my.toml", 5, 13));
    assert_eq!(&text[d.start..d.end], "\"198.51.100.9/24\"");
    assert_eq!(d.fix.as_deref(), Some("write \"198.51.100.0/24\""));
    assert!(d.cause.is_some());
}
