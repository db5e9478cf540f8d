use super::*;
use crate::check::{CheckKind, Counts, DnsTransport, Flag, FlagBit, Metric, Roots, Target};
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
    assert_eq!(dns.counts, Counts::Alone(crate::policy::Level::Failed));
    let CheckKind::Dns(dns) = &dns.kind else { panic!() };
    assert_eq!((dns.qtype.as_str(), dns.class.as_str(), dns.rcode.as_str()), ("AAAA", "IN", "NOERROR"));
    assert_eq!((dns.transport, &dns.trust.roots, dns.answer.len()), (DnsTransport::Udp, &Roots::System, 0));
    let http = &service.checks[1];
    assert_eq!((http.every, http.timeout), (Duration::from_secs(1), Duration::from_millis(500)));
    let CheckKind::Http(http) = &http.kind else { panic!() };
    assert_eq!((http.target.to_string().as_str(), http.path.as_str(), http.tls), ("198.51.100.1:80", "/", false));
    assert_eq!((&http.host, http.status[0].first, http.status[0].last), (&None, 200, 200));
    let site = service.site("a").unwrap();
    assert_eq!(site.capacity, Capacity::default());
    let upstream = &site.upstreams[0];
    assert_eq!(
        (upstream.port, upstream.hold_time, upstream.relation),
        (179, Duration::from_secs(9), Relation::Transit)
    );
    assert_eq!(*upstream, Upstream::new(Asn(64501), "192.0.2.1".parse().unwrap()), "Upstream::new has the defaults");
    assert_eq!(service.site("b"), None);
    assert_eq!((&service.sessions, site.unicast, site.number), (&None, Unicast::default(), site_number("a")));
}

#[test]
fn defaults_of_sessions() {
    let site = &MINIMAL[MINIMAL.find("[[site]]").unwrap()..];
    let other = site
        .replace("\"a\"", "\"b\"")
        .replace("\"AMS\"", "\"AMS\"\nnumber = 0\nunicast = [\"2001:db8::1\", \"192.0.2.8\"]");
    let text = MINIMAL.replace("\"AMS\"", "\"AMS\"\nunicast = [\"192.0.2.9\"]")
        + &other
        + "[sessions]\nsecret-file = \"/s\"\n";
    let parsed = Service::parse("s.toml", text.as_bytes());
    assert_eq!(parsed.diagnostics, []);
    let service = parsed.value.unwrap();
    let expected = Sessions {
        secret_file: "/s".into(),
        tcp: TcpMethod::Auto,
        tcp_ports: vec![],
        quic_ports: vec![],
        port: spec::SESSIONS_PORT,
        budget_per_s: 1_000_000,
        return_path: ReturnPath::Direct,
        mtu_bytes: 1500,
        mptcp: false,
        interfaces: vec![],
    };
    assert_eq!(service.sessions, Some(expected));
    let [a, b] = &service.sites[..] else { panic!("two sites") };
    assert_eq!((a.number, b.number), (site_number("a"), 0));
    assert_eq!(a.unicast.common(&b.unicast), Some(crate::Family::Ipv4));
    assert_eq!(b.unicast.ipv6, Some("2001:db8::1".parse().unwrap()));
}

/// Each number fits, and a file that follows every proposal has no mistake left.
#[test]
fn proposed_numbers_are_free() {
    use std::fmt::Write;

    let head = &MINIMAL[..MINIMAL.find("[[site]]").unwrap()];
    let file = |numbers: &[Option<u8>]| {
        let mut text = format!("{head}[sessions]\nsecret-file = \"/s\"\n");
        for (at, number) in numbers.iter().enumerate() {
            let _ = write!(text, "[[site]]\nname = \"pop-{at}\"\nlocation = \"AMS\"\nunicast = [\"203.0.113.{at}\"]\n");
            let _ = writeln!(text, "upstream = [{{ asn = 64501, address = \"192.0.2.1\" }}]");
            let _ = number.map(|number| writeln!(text, "number = {number}"));
        }
        Service::parse("s.toml", text.as_bytes())
    };
    let mut numbers = vec![None; usize::from(spec::MAX_SESSION_SITES)];
    let parsed = file(&numbers);
    assert!(parsed.diagnostics.len() > 10, "names meet");
    for d in &parsed.diagnostics {
        assert_eq!(d.code, "E0336", "{d:?}");
        let fix = d.fix.as_deref().and_then(|fix| fix.strip_prefix("write number = ")).unwrap();
        let (number, site) = fix.split_once(" at pop-").unwrap();
        numbers[site.parse::<usize>().unwrap()] = Some(number.parse().unwrap());
    }
    let service = file(&numbers).value.unwrap();
    let all: std::collections::BTreeSet<u8> = service.sites.iter().map(|s| s.number).collect();
    assert!(all.into_iter().eq(0..spec::MAX_SESSION_SITES));
    numbers.push(None);
    let diagnostics = file(&numbers).diagnostics;
    assert_eq!(diagnostics.len(), 1, "{diagnostics:?}");
    assert_eq!(diagnostics[0].message, "65 sites with [sessions], at most 64 are possible");
}

/// The checks of a file that is like the minimal one but for these.
fn checks(tables: &str) -> Service {
    let start = MINIMAL.find("[[check]]").unwrap();
    let end = MINIMAL.find("[[site]]").unwrap();
    let text = format!("{}{tables}\n{}", &MINIMAL[..start], &MINIMAL[end..]);
    let parsed = Service::parse("s.toml", text.as_bytes());
    assert_eq!(parsed.diagnostics, []);
    parsed.value.unwrap()
}

#[test]
fn thresholds_of_groups_are_weights() {
    let member = |name: &str, weight: u32| {
        format!(
            "[[check]]\nname = \"{name}\"\nkind = \"tcp\"\ntarget = \"service:80\"\ngroup = \"g\"\nweight = {weight}\n"
        )
    };
    for (keys, healthy, degraded) in [
        ("", 6, 6),
        ("healthy = \"all\"\ndegraded = \"any\"", 6, 1),
        ("healthy = \"any\"", 1, 1),
        ("healthy = 4\ndegraded = 3", 4, 3),
    ] {
        let text = format!("{}{}{}[[group]]\nname = \"g\"\n{keys}", member("a", 1), member("b", 2), member("c", 3));
        let service = checks(&text);
        assert_eq!((service.groups[0].healthy, service.groups[0].degraded), (healthy, degraded), "{keys}");
        assert_eq!(service.checks[1].counts, Counts::Member { group: "g".into(), weight: 2 });
    }
}

#[test]
fn checks_of_every_kind() {
    let service = checks(
        r#"
[[check]]
name = "doh"
kind = "dns"
target = "service:443"
query = "example.com TXT"
transport = "https"
server-name = "dns.example"
ca-file = "/etc/ca.pem"
answer = "v=spf1"
flags = ["aa", "no-tc"]
retry = "60ms"
latency = "20ms"
on-failure = "degraded"
[[check]]
name = "page"
kind = "http"
url = "https://loopback/health"
expect = [204, "2xx", "300-302"]
body = ["ok"]
headers = { x-site = "ams" }
insecure = true
[[check]]
kind = "udp"
target = "loopback:1812"
send = "hex:00 ff"
contains = "pong"
[[check]]
kind = "load"
metric = "cpu"
high = 90
"#,
    );
    let [doh, page, udp, load] = &service.checks[..] else { panic!() };
    assert_eq!((page.retry, doh.retry), (None, Some(Duration::from_millis(60))));
    assert_eq!(
        (doh.latency, &doh.counts),
        (Some(Duration::from_millis(20)), &Counts::Alone(crate::policy::Level::Degraded))
    );
    let CheckKind::Dns(dns) = &doh.kind else { panic!() };
    assert_eq!((dns.target, dns.path.as_str()), (Target::Service(443), "/dns-query"));
    assert_eq!(dns.flags, [Flag { bit: FlagBit::Aa, set: true }, Flag { bit: FlagBit::Tc, set: false }]);
    assert_eq!(dns.trust.roots, Roots::File("/etc/ca.pem".into()));
    let CheckKind::Http(http) = &page.kind else { panic!() };
    assert_eq!((http.target, http.tls, &http.trust.roots), (Target::Loopback(443), true, &Roots::Insecure));
    assert_eq!(http.status.iter().map(ToString::to_string).collect::<Vec<_>>(), ["204", "2xx", "300-302"]);
    assert_eq!(http.headers, [("x-site".to_owned(), "ams".to_owned())]);
    let CheckKind::Udp { send, starts, contains, .. } = &udp.kind else { panic!() };
    assert_eq!((&send[..], &starts[..], &contains[..]), (&[0, 255][..], &[][..], &b"pong"[..]));
    assert_eq!(load.kind, CheckKind::Load { metric: Metric::Cpu, high: 90, low: 72 });
    assert_eq!(doh.kind.target().unwrap().0.servers(&service.addresses), ["198.51.100.1:443".parse().unwrap()]);
    assert_eq!(page.kind.target().unwrap().0.servers(&service.addresses), ["127.0.0.1:443".parse().unwrap()]);
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
