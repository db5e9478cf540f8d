//! What is printed reads back; what is random never panics.

#![allow(clippy::unwrap_used)] // helpers of tests are not recognised as tests

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use ubique_model::check::{
    Check, CheckKind, Counts, Dns, DnsTransport, Flag, FlagBit, Group, Http, Metric, Roots, Statuses, Target, Trust,
};
use ubique_model::internet::Internet;
use ubique_model::location::Location;
use ubique_model::policy::Level;
use ubique_model::scenario::Scenario;
use ubique_model::service::{
    Action, AdminSettings, AgentSettings, AoAlgorithm, ApiSettings, Ask, Bfd, BmpCollector, Capacity, Dynamic, Flap,
    GracefulRestart, Guard, JournalSettings, Levels, NextHop, Records, RehearseSettings, ReturnPath, Role, RotatedFile,
    Service, Sessions, Shed, Site, TcpAo, TcpMethod, Unicast, Upstream, UpstreamSelector,
};
use ubique_model::{AddressFamily, Asn, Community, ExtendedCommunity, LargeCommunity, Prefix, Relation};

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?"
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/_.{}\"' \\\\é日-]{0,20}[a-z]"
}

fn duration(min_ms: u64, max_ms: u64) -> impl Strategy<Value = Duration> {
    (min_ms * 1000..=max_ms * 1000).prop_map(Duration::from_micros)
}

fn location() -> impl Strategy<Value = Location> {
    const PLACES: &[&str] = &["Amsterdam, NL", "São Paulo, BR", "TYO", "52.37,4.90", "-1.5,-0.25", "Xi’an, CN"];
    select(PLACES).prop_map(|text| Location::resolve(text).unwrap())
}

fn target() -> impl Strategy<Value = std::net::SocketAddr> {
    (
        prop_oneof![any::<u32>().prop_map(|a| IpAddr::V4(a.into())), any::<u128>().prop_map(|a| IpAddr::V6(a.into()))],
        1_u16..,
    )
        .prop_map(Into::into)
}

fn server() -> impl Strategy<Value = Target> {
    prop_oneof![
        3 => target().prop_map(Target::Address),
        1 => (1_u16..).prop_map(Target::Service),
        1 => (1_u16..).prop_map(Target::Loopback),
    ]
}

fn trust() -> impl Strategy<Value = Trust> {
    let roots = prop_oneof![Just(Roots::System), text().prop_map(|p| Roots::File(p.into())), Just(Roots::Insecure)];
    (prop::option::of("[a-z.]{1,10}"), roots).prop_map(|(server_name, roots)| Trust { server_name, roots })
}

fn dns() -> impl Strategy<Value = CheckKind> {
    let expected =
        (prop::collection::vec(text(), 0..3), prop::collection::vec(text(), 0..3), any::<[Option<bool>; 4]>());
    let transport = select(&DnsTransport::ALL[..]).prop_map(|(transport, _)| transport);
    let query = (select(&["example.com", "id.server.", "."][..]), select(&["A", "TXT"][..]), any::<bool>());
    (server(), query, expected, transport, "/[a-z]{0,5}", trust()).prop_map(
        |(target, (name, qtype, ch), (answer, answer_contains, flags), transport, path, trust)| {
            let tls = matches!(transport, DnsTransport::Tls | DnsTransport::Https);
            let flags = FlagBit::ALL.into_iter().zip(flags);
            CheckKind::Dns(Dns {
                target,
                name: name.into(),
                qtype: qtype.into(),
                class: if ch { "CH" } else { "IN" }.into(),
                rcode: "NXDOMAIN".into(),
                answer,
                answer_contains,
                flags: flags.filter_map(|((bit, _), set)| Some(Flag { bit, set: set? })).collect(),
                transport,
                path: if transport == DnsTransport::Https { path } else { "/dns-query".into() },
                trust: if tls { trust } else { Trust::default() },
            })
        },
    )
}

fn http() -> impl Strategy<Value = Http> {
    let statuses = (100_u16..600, 100_u16..600).prop_map(|(a, b)| Statuses { first: a.min(b), last: a.max(b) });
    let headers = prop::collection::btree_map("[a-z-]{1,8}", text(), 0..3);
    let expected = (prop::collection::vec(statuses, 1..4), prop::collection::vec(text(), 0..3), headers);
    (server(), any::<bool>(), prop::option::of("[a-z.]{1,10}"), "/[a-z?=&%]{0,10}", expected, trust()).prop_map(
        |(target, tls, host, path, (status, body, headers), trust)| Http {
            target,
            tls,
            host,
            path,
            status,
            body,
            headers: headers.into_iter().collect(),
            trust: if tls { trust } else { Trust::default() },
        },
    )
}

fn load() -> impl Strategy<Value = CheckKind> {
    let page = http().prop_map(|http| Http {
        host: None,
        status: vec![Statuses { first: 200, last: 200 }],
        body: vec![],
        headers: vec![],
        ..http
    });
    let metric = prop_oneof![
        prop::option::of("[a-z]{1,8}").prop_map(|interface| Metric::Packets { interface }),
        Just(Metric::Datagrams),
        Just(Metric::Cpu),
        (1_u16..).prop_map(|port| Metric::Backlog { port }),
        Just(Metric::Drops),
        prop::collection::vec(text(), 1..4).prop_map(Metric::Command),
        page.prop_map(|page| Metric::Page(Box::new(page))),
    ];
    (metric, 0_u64..1_000_000, 1_u64..1_000_000).prop_map(|(metric, low, gap)| CheckKind::Load {
        metric,
        high: low + gap,
        low,
    })
}

fn kind() -> impl Strategy<Value = CheckKind> {
    let process = (any::<bool>(), text(), "[a-z]{1,15}").prop_map(|(file, path, comm)| CheckKind::Process {
        pidfile: file.then(|| path.into()),
        name: (!file).then_some(comm),
    });
    let octets = || prop::collection::vec(any::<u8>(), 1..20);
    let some = || prop_oneof![Just(vec![]), octets(), "[ -~]{1,9}".prop_map(String::into_bytes)];
    let udp = (server(), octets(), some(), some()).prop_map(|(target, send, starts, contains)| CheckKind::Udp {
        target,
        send,
        starts,
        contains,
    });
    let ntp = (server(), 1_u8..16, prop::option::of(duration(1, 60_000)))
        .prop_map(|(target, stratum, offset)| CheckKind::Ntp { target, stratum, offset });
    prop_oneof![
        dns(),
        http().prop_map(CheckKind::Http),
        server().prop_map(|target| CheckKind::Tcp { target }),
        (server(), trust(), 0_u32..3650).prop_map(|(target, trust, days_left)| CheckKind::Tls {
            target,
            trust,
            days_left
        }),
        udp,
        ntp,
        process,
        "[a-z@-]{1,9}".prop_map(|name| CheckKind::Systemd { unit: format!("{name}.service") }),
        prop::collection::vec(text(), 1..4).prop_map(|command| CheckKind::Exec { command }),
        load(),
    ]
}

fn check() -> impl Strategy<Value = Check> {
    let counts = prop_oneof![
        select(&[Level::Failed, Level::Degraded][..]).prop_map(Counts::Alone),
        (1_u32..=1000).prop_map(|weight| Counts::Member { group: "some".into(), weight }),
    ];
    let times = (duration(10, 3_600_000), 0.0..1.0_f64, any::<bool>());
    (kind(), times, 1_u32..=1000, 1_u32..=1000, counts).prop_map(|(kind, (every, part, slow), fall, rise, counts)| {
        let timeout =
            Duration::from_micros((every.as_micros() as f64 * part) as u64).clamp(Duration::from_millis(1), every);
        let load = matches!(kind, CheckKind::Load { .. });
        let latency = (slow && !load && timeout > Duration::from_millis(2)).then(|| timeout - Duration::from_millis(1));
        let counts = if load { Counts::Alone(Level::Failed) } else { counts };
        let retry = (slow && !load && fall > 1).then(|| every - Duration::from_millis(1));
        Check { name: String::new(), kind, every, timeout, retry, latency, fall, rise, counts }
    })
}

fn upstream(v6: bool) -> impl Strategy<Value = Upstream> {
    let address = move |host: u16| -> IpAddr {
        if v6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host).into()
        } else {
            Ipv4Addr::new(192, 0, (host >> 8) as u8 & 1, host as u8).into()
        }
    };
    let relation = select(&[Relation::Transit, Relation::Peer, Relation::RouteServer, Relation::Internal][..]);
    let numbers = (
        1_u16..,
        prop_oneof![Just(0), 3_u64..=65535],
        prop_oneof![
            Just((None, None)),
            (1_u8..).prop_map(|n| (Some(n), None)),
            (1_u8..255).prop_map(|n| (None, Some(n)))
        ],
        0_u8..=16,
        prop::option::of(any::<u32>()),
    );
    let lists = (
        prop::collection::vec(any::<u32>(), 0..3),
        prop::collection::vec(any::<[u8; 8]>(), 0..3),
        prop::collection::vec(any::<[u32; 3]>(), 0..3),
        (prop::option::of(action()), prop::option::of(action()), any::<Option<bool>>()),
    );
    let own = (1_u16..400, relation, prop::option::of(500_u16..510), prop::option::of("[a-z0-9.]{3,15}"), bfd());
    (own, numbers, lists, authentication(), flags(), capabilities(v6)).prop_map(
        move |(
            (host, relation, local, interface, bfd),
            numbers,
            (communities, extended, large, (degraded, failed, full_view)),
            authentication,
            flags,
            more,
        )| {
            let (port, hold, (multihop, ttl_security), prepend, med) = numbers;
            let (password_file, tcp_ao) = authentication;
            let (passive, extended_next_hop, add_path, with_role) = flags;
            let role = Role::towards(relation).filter(|_| with_role);
            Upstream {
                local_address: local.map(address),
                interface,
                relation,
                port,
                passive,
                bfd,
                hold_time: Duration::from_secs(hold),
                multihop,
                ttl_security,
                password_file,
                tcp_ao,
                role,
                strict_role: role.is_some() && passive,
                extended_next_hop,
                add_path,
                communities: communities.into_iter().map(Community).collect(),
                extended_communities: extended.into_iter().map(ExtendedCommunity).collect(),
                large_communities: large.into_iter().map(LargeCommunity).collect(),
                prepend,
                med,
                degraded,
                failed,
                full_view,
                ..more.of(address(host))
            }
        },
    )
}

/// Never one that withdraws and says something else, too.
fn action() -> impl Strategy<Value = Action> {
    let large = prop::collection::vec(any::<[u32; 3]>(), 0..3);
    let longer = prop::option::of(Just("198.51.100.0/25".parse::<Prefix>().unwrap()));
    let communities = prop::collection::vec(any::<u32>(), 0..3);
    let said = (0_u8..=16, prop::option::of(any::<u32>()), communities, large, any::<bool>(), longer).prop_map(
        |(prepend, med, communities, large, blackhole, longer)| Action {
            prepend,
            med,
            communities: communities.into_iter().map(Community).collect(),
            large_communities: large.into_iter().map(LargeCommunity).collect(),
            withdraw: false,
            blackhole,
            more_specifics: longer.into_iter().collect(),
        },
    );
    prop_oneof![Just(Action::withdrawal()), said]
}

/// Steps never withdraw: that all of them together leave an upstream is for another test.
fn shed() -> impl Strategy<Value = Shed> {
    let whom = prop::option::of(Just(UpstreamSelector::Asn(Asn(64501))));
    (whom, action()).prop_map(|(whom, action)| Shed {
        upstreams: whom.into_iter().collect(),
        action: Action { withdraw: false, ..action },
    })
}

fn flap() -> impl Strategy<Value = Option<Flap>> {
    let flap = (duration(1000, 86_400_000), 3000_u32..=1_000_000, 0_u32..1500, 0_u32..1500)
        .prop_map(|(half_life, suppress, withdrawal, change)| Flap { half_life, suppress, withdrawal, change });
    prop::option::of(flap)
}

fn guard() -> impl Strategy<Value = Guard> {
    (duration(0, 3_600_000), duration(1000, 3_600_000), any::<bool>()).prop_map(|(last_site, retry, start)| Guard {
        last_site,
        retry,
        start,
    })
}

fn bfd() -> impl Strategy<Value = Option<Bfd>> {
    let bfd = (duration(10, 60_000), duration(10, 60_000), 1_u8..).prop_map(|(interval, receive, multiplier)| Bfd {
        interval,
        receive,
        multiplier,
    });
    prop::option::of(bfd)
}

/// No rule forbids any of these together.
fn flags() -> impl Strategy<Value = (bool, bool, bool, bool)> {
    any::<(bool, bool, bool, bool)>()
}

fn authentication() -> impl Strategy<Value = (Option<std::path::PathBuf>, Option<TcpAo>)> {
    let ao = (text(), any::<u8>(), any::<u8>(), select(&AoAlgorithm::ALL[..])).prop_map(
        |(file, send_id, receive_id, algorithm)| TcpAo { key_file: file.into(), send_id, receive_id, algorithm },
    );
    prop_oneof![
        Just((None, None)),
        text().prop_map(|file| (Some(file.into()), None)),
        ao.prop_map(|ao| (None, Some(ao))),
    ]
}

/// What sessions negotiate, of a neighbour in another AS; always with both unicast families.
fn capabilities(v6: bool) -> impl Strategy<Value = Capabilities> {
    let families = prop_oneof![Just(AddressFamily::ALL[..2].to_vec()), Just(AddressFamily::ALL.to_vec())];
    let restart = prop::option::of((1_u64..=4095, prop::option::of(1_u64..1 << 24)));
    let hops =
        (prop::option::of(Just(Ipv4Addr::new(192, 0, 2, 77))), prop::option::of(Just("2001:db8::77".parse().unwrap())));
    (families, restart, hops, prop::option::of(1_u32..), 0_u32..=10_000_000).prop_map(
        move |(families, restart, (ipv4, ipv6), max_prefix, keep_routes)| Capabilities {
            families,
            graceful_restart: restart.map(|(time, long)| GracefulRestart {
                restart_time: Duration::from_secs(time),
                long_lived: long.map(Duration::from_secs),
            }),
            next_hop: NextHop { ipv4, ipv6: ipv6.filter(|_| v6) },
            max_prefix,
            keep_routes,
        },
    )
}

#[derive(Clone, Debug)]
struct Capabilities {
    families: Vec<AddressFamily>,
    graceful_restart: Option<GracefulRestart>,
    next_hop: NextHop,
    max_prefix: Option<u32>,
    keep_routes: u32,
}

impl Capabilities {
    fn of(&self, address: IpAddr) -> Upstream {
        Upstream {
            families: self.families.clone(),
            graceful_restart: self.graceful_restart,
            next_hop: self.next_hop,
            max_prefix: self.max_prefix,
            keep_routes: self.keep_routes,
            ..Upstream::new(Asn(64501), address)
        }
    }
}

fn dynamic() -> impl Strategy<Value = Dynamic> {
    (upstream(false), prop::collection::btree_set(64500_u32..64510, 1..4), 1_u16..=256).prop_map(
        |(template, asns, limit)| {
            let asns: Vec<Asn> = asns.into_iter().map(Asn).collect();
            let range: Prefix = "203.0.113.0/24".parse().unwrap();
            let relation = template.relation;
            let internal = asns.contains(&Asn(64500));
            let template = Upstream {
                asn: asns[0],
                address: range.addr(),
                local_address: None,
                interface: None,
                port: 179,
                passive: true,
                relation: if internal { Relation::Internal } else { relation },
                role: template.role.filter(|_| !internal),
                strict_role: template.strict_role && !internal,
                ..template
            };
            Dynamic { range, asns, limit, template }
        },
    )
}

fn site() -> impl Strategy<Value = Site> {
    let capacity = (prop::option::of(1_u64..), prop::option::of(1_u64..))
        .prop_map(|(bits_per_s, queries_per_s)| Capacity { bits_per_s, queries_per_s });
    let neighbours = (upstream(false), upstream(true), prop::option::of(dynamic()));
    (location(), capacity, prop::option::of(1_u32..), neighbours).prop_map(
        |(location, capacity, id, (v4, v6, dynamic))| Site {
            name: String::new(),
            location,
            capacity,
            router_id: id.map(Ipv4Addr::from),
            unicast: Unicast::default(),
            number: 0,
            upstreams: vec![v4, v6],
            dynamic: dynamic.into_iter().collect(),
        },
    )
}

/// What no rule refuses: ports of cookies go with cookies, and something is carried.
fn sessions() -> impl Strategy<Value = Option<Sessions>> {
    let port = || prop::collection::btree_set(1_u16.., 0..4).prop_map(Vec::from_iter);
    let how = (select(&TcpMethod::ALL[..]), select(&ReturnPath::ALL[..]), any::<bool>());
    let names = prop::collection::btree_set("[a-z0-9.]{3,15}", 0..3).prop_map(Vec::from_iter);
    let ends = (1_u16.., 1_u64.., 1280_u16..=9216, names);
    let sessions = (text(), how, port(), port(), ends).prop_map(
        |(
            file,
            ((tcp, _), (return_path, _), mptcp),
            tcp_ports,
            quic_ports,
            (port, budget_per_s, mtu_bytes, interfaces),
        )| {
            let cookies = matches!(tcp, TcpMethod::Auto | TcpMethod::Cookie);
            Sessions {
                secret_file: file.into(),
                tcp,
                tcp_ports: if cookies { tcp_ports } else { vec![] },
                mptcp: mptcp || (tcp == TcpMethod::Off && quic_ports.is_empty()),
                quic_ports,
                port,
                budget_per_s,
                return_path,
                mtu_bytes,
                interfaces,
            }
        },
    );
    prop::option::of(sessions)
}

/// What site number `at` is to the others: all have one family, some the other one, too.
fn owner(at: usize, (second, numbers): (bool, bool), ipv4: bool, name: &str) -> (Unicast, u8) {
    let host = u8::try_from(at).unwrap() + 1;
    let unicast = Unicast {
        ipv4: (ipv4 || second).then(|| Ipv4Addr::new(203, 0, 113, host)),
        ipv6: (!ipv4 || second).then(|| Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, host.into())),
    };
    // Their own ones are different, too: see `site_number`.
    (unicast, if numbers { 63 - host } else { ubique_model::service::site_number(name) })
}

fn records() -> impl Strategy<Value = Records> {
    let file = || {
        (text(), 1u32..=4096, 1u32..=1000).prop_map(|(path, size_mib, files)| RotatedFile {
            path: path.into(),
            size_mib,
            files,
        })
    };
    let collector =
        (target(), duration(0, 3_600_000)).prop_map(|(collector, statistics)| BmpCollector { collector, statistics });
    let journal = (file(), any::<bool>()).prop_map(|(file, full_outputs)| JournalSettings { file, full_outputs });
    (prop::collection::vec(collector, 0..3), prop::option::of(file()), prop::option::of(journal))
        .prop_map(|(bmp, mrt, journal)| Records { bmp, mrt, journal })
}

fn admin() -> impl Strategy<Value = AdminSettings> {
    let api = (target(), [text(), text(), text()], prop::collection::vec(text(), 0..3)).prop_map(
        |(listen, [certificate, key_file, client_ca], clients)| ApiSettings {
            listen,
            certificate: certificate.into(),
            key_file: key_file.into(),
            client_ca: client_ca.into(),
            clients,
        },
    );
    (prop::sample::select(vec![0o600, 0o660, 0o666]), prop::option::of(text()), prop::option::of(api))
        .prop_map(|(mode, group, api)| AdminSettings { mode, group, api })
}

fn service() -> impl Strategy<Value = Service> {
    let hour = || duration(0, 3_600_000);
    let operator = (prop::collection::vec(text(), 0..3), 0u8..=100, admin(), any::<bool>());
    // A path of its own, as it must have.
    let paths = (text(), text().prop_map(|text| format!("{text}.state")));
    let agent = (paths, prop::option::of(target()), hour(), hour(), duration(100, 60_000), records(), operator)
        .prop_map(
            |(
                (socket, state),
                metrics,
                graceful_shutdown,
                drain,
                watchdog,
                records,
                (drain_hook, confirm_share, admin, sandbox),
            )| {
                AgentSettings {
                    admin,
                    records,
                    drain_hook,
                    confirm_share,
                    sandbox,
                    socket: socket.into(),
                    state: state.into(),
                    metrics,
                    graceful_shutdown,
                    drain,
                    watchdog,
                }
            },
        );
    let words = || prop::collection::vec(text(), 0..3);
    let rehearse = (words(), select(Ask::ALL.map(|(ask, _)| ask).to_vec()), words())
        .prop_map(|(command, ask, agent)| (if command.is_empty() { Ask::Dns } else { ask }, command, agent))
        .prop_map(|(ask, command, agent)| RehearseSettings { command, ask, agent });
    let parts = (
        prop::collection::vec(check(), 0..4),
        prop::collection::vec(site(), 1..4),
        rehearse,
        (0.0..1.0_f64, 0.0..1.0_f64),
    );
    let owners = (prop::collection::vec(any::<bool>(), 4), any::<bool>(), any::<bool>());
    let rules = (action(), action(), prop::collection::vec(shed(), 0..3), flap(), guard(), (sessions(), owners));
    (name(), agent, parts, rules).prop_map(|(name, agent, (mut checks, mut sites, rehearse, part), rules)| {
        let (degraded, failed, shed, flap, guard, (sessions, (second, numbers, ipv4))) = rules;
        for (at, check) in checks.iter_mut().enumerate() {
            check.name = format!("check-{at}");
        }
        for (at, site) in sites.iter_mut().enumerate() {
            site.name = format!("site-{at}");
            (site.unicast, site.number) = owner(at, (second[at], numbers), ipv4, &site.name);
        }
        Service {
            name,
            asn: Asn(64500),
            prefixes: ["198.51.100.0/24", "2001:db8:53::/48"].map(|p| p.parse::<Prefix>().unwrap()).into(),
            addresses: ["198.51.100.53", "2001:db8:53::53"].map(|a| a.parse().unwrap()).into(),
            groups: groups(&checks, part),
            checks,
            levels: Levels { degraded, failed },
            shed,
            flap,
            guard,
            sessions,
            sites,
            agent,
            rehearse,
        }
    })
}

/// The group of the checks that are in one, with thresholds it can reach.
fn groups(checks: &[Check], (healthy, degraded): (f64, f64)) -> Vec<Group> {
    let weight = |check: &Check| match check.counts {
        Counts::Member { weight, .. } => weight,
        Counts::Alone(_) => 0,
    };
    let total: u32 = checks.iter().map(weight).sum();
    let part = |of: u32, share: f64| ((f64::from(of) * share) as u32).max(1);
    let healthy = part(total, healthy);
    let group = Group { name: "some".into(), healthy, degraded: part(healthy, degraded) };
    if total == 0 { vec![] } else { vec![group] }
}

const SERVICE: &str = include_str!("files/service.toml");
const SCENARIO: &str = include_str!("files/scenario.toml");
const INTERNET: &str = include_str!("files/internet.toml");

fn parse_all(text: &[u8]) {
    let service = Service::parse("f", text);
    assert_eq!(service.value.is_none(), service.has_errors());
    let scenario = Scenario::parse("f", text);
    assert_eq!(scenario.value.is_none(), scenario.has_errors());
    let internet = Internet::parse("f", text);
    assert_eq!(internet.value.is_none(), internet.has_errors());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn printed_services_read_back(service in service()) {
        let text = service.to_toml();
        let parsed = Service::parse("printed.toml", text.as_bytes());
        prop_assert_eq!(parsed.value.as_ref(), Some(&service), "{}\n{:#?}", text, parsed.diagnostics);
        prop_assert_eq!(parsed.value.map(|s| s.to_toml()), Some(text));
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        parse_all(&bytes);
    }

    #[test]
    fn random_toml_like_text_does_not_panic(text in "([a-z-]{1,8}|[\\[\\]{}=\",.#\\n]|\\[\\[site\\]\\]|[0-9]{1,20}|é| ){0,60}") {
        parse_all(text.as_bytes());
    }

    #[test]
    fn mutated_files_do_not_panic(
        which in select(&[SERVICE, SCENARIO, INTERNET][..]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..8),
    ) {
        let mut bytes = which.as_bytes().to_vec();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, b"[]{}\"'=\n.,#0a"[usize::from(byte) % 13]),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        parse_all(&bytes);
    }
}

#[test]
fn files_with_every_key_are_valid() {
    let service = Service::parse("service.toml", SERVICE.as_bytes());
    assert_eq!(service.diagnostics, []);
    let service = service.value.unwrap();
    assert_eq!(Service::parse("printed", service.to_toml().as_bytes()).value.unwrap(), service);
    let internet = Internet::parse("internet.toml", INTERNET.as_bytes());
    assert_eq!(internet.diagnostics, []);
    let scenario = Scenario::parse("scenario.toml", SCENARIO.as_bytes());
    assert_eq!(scenario.diagnostics, []);
    assert_eq!(Scenario::check_against(&service, internet.value.as_ref(), "scenario.toml", SCENARIO.as_bytes()), []);
}

#[test]
fn names_of_the_other_files_are_checked() {
    let service = Service::parse("s", SERVICE.as_bytes()).value.unwrap();
    let internet = Internet::parse("i", INTERNET.as_bytes()).value.unwrap();
    let wrong = SCENARIO.replace("\"lon\"", "\"lno\"").replace("\"São Paulo\"", "\"Sao Paulo\"");
    let found = Scenario::check_against(&service, Some(&internet), "f.toml", wrong.as_bytes());
    let codes: Vec<(&str, &str)> = found.iter().map(|d| (d.code.as_str(), d.fix.as_deref().unwrap())).collect();
    assert!(codes.contains(&("E0402", "did you mean \"lon\"?")), "{codes:?}");
    assert!(codes.contains(&("E0403", "did you mean \"São Paulo\"?")), "{codes:?}");
    assert_eq!(found.iter().filter(|d| d.code == "E0403").count(), 2, "of an expectation, and of sessions");
    let wrong = SCENARIO.replace("to = 64498", "to = 1300");
    let found = Scenario::check_against(&service, Some(&internet), "f.toml", wrong.as_bytes());
    assert_eq!(found.iter().map(|d| d.message.as_str()).collect::<Vec<_>>(), ["the Internet has no network AS1300"]);
    let controlled = SCENARIO.replace("sessions-stall = \"1s\"", "control-lost = 1");
    let found = |service: &Service| Scenario::check_against(service, Some(&internet), "f.toml", controlled.as_bytes());
    assert_eq!(found(&service), []);
    let codes: Vec<String> = found(&Service { sessions: None, ..service }).into_iter().map(|d| d.code).collect();
    assert_eq!(codes, ["E0407"], "there is nothing that the control run could do without");
}

/// The files of `examples/`, and every `toml` block of the manual, are valid.
#[test]
fn examples_and_manual_are_valid() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut blocks = 0;
    for page in ["docs/health.md", "docs/service-file.md", "docs/scenario-file.md"] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        for block in text.split("```toml ").skip(1) {
            let (kind, rest) = block.split_once('\n').unwrap();
            let body = rest.split("```").next().unwrap();
            valid(kind.trim(), page, body);
            blocks += 1;
        }
    }
    assert!(blocks >= 3, "the manual lost its examples");
    let directory = |path: std::path::PathBuf| std::fs::read_dir(path).into_iter().flatten().map(|e| e.unwrap().path());
    let of_examples = directory(root.join("examples")).flat_map(|path| directory(path.clone()).chain([path]));
    for path in of_examples {
        if path.extension().is_some_and(|e| e == "toml") {
            let body = std::fs::read_to_string(&path).unwrap();
            let kind = match &body {
                b if b.contains("[service]") => "service",
                b if b.contains("[[step]]") => "scenario",
                _ => "internet",
            };
            valid(kind, &path.to_string_lossy(), &body);
        }
    }
}

/// What the manual's tables of checks are part of.
const CHECKED: &str = r#"
[service]
name = "checked"
asn = 64500
prefixes = ["198.51.100.0/24"]
addresses = ["198.51.100.53"]

[[site]]
name = "ams"
location = "AMS"
upstream = [{ asn = 1299, address = "192.0.2.1" }]
"#;

fn valid(kind: &str, file: &str, text: &str) {
    match kind {
        "service" => {
            let parsed = Service::parse(file, text.as_bytes());
            let service = parsed.value.unwrap_or_else(|| panic!("{file}: {:#?}", parsed.diagnostics));
            assert_eq!(
                Service::parse("printed", service.to_toml().as_bytes()).value.as_ref(),
                Some(&service),
                "{file}"
            );
        }
        "checks" => valid("service", file, &format!("{CHECKED}{text}")),
        "scenario" => assert_eq!(Scenario::parse(file, text.as_bytes()).diagnostics, [], "{file}"),
        "internet" => assert_eq!(Internet::parse(file, text.as_bytes()).diagnostics, [], "{file}"),
        other => panic!("{file}: a toml block of kind {other:?}"),
    }
}
