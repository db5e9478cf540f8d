//! The migration guides, as their pages have them: the other's daemon and the agent announce the same to the same BIRD.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ubique_model::service::Service;
use ubique_node::admin::ReloadOutcome;
use ubique_sys::netlink::Netlink;
use ubique_sys::process::Signal;

use crate::daemons::{BIRD, Bird};
use crate::kubernetes;
use crate::lab::{
    self, Lab, PREFIX_V4, PREFIX_V6, Process, ROUTER_ASN, SERVICE_V4, SERVICE_V6, start, until, until_true,
};
use crate::pages::Page;
use crate::reload::reload;
use crate::runner::Test;

const EXABGP: &str = "/usr/sbin/exabgp";
const GOBGPD: &str = "/usr/bin/gobgpd";
const BIRDC: &str = "/usr/sbin/birdc";
const DIG: &str = "/usr/bin/dig";
const SHELL: &str = "/bin/sh";
const ENV: &str = "/usr/bin/env";
/// Settings of anycast-healthchecker.
const CHECKER: &str = "/run/etc/anycast-healthchecker.conf";

pub const TESTS: &[Test] = &[
    Test { name: "the_guide_from_exabgp_announces_the_same", needs: &[BIRD, EXABGP, DIG], run: from_exabgp },
    Test { name: "the_guide_from_gobgp_announces_the_same", needs: &[BIRD, GOBGPD, DIG], run: from_gobgp },
    Test { name: "the_guide_from_bird_announces_the_same", needs: &[BIRD, BIRDC, DIG], run: from_bird },
    Test { name: "the_guide_from_metallb_announces_what_its_resources_state", needs: &[BIRD], run: from_metallb },
    Test { name: "a_single_site_moves_without_an_outage", needs: &[BIRD, EXABGP, DIG], run: in_parallel },
];

fn guide(name: &str) -> Page {
    Page::read(&format!("docs/migration/{name}.md"))
}

/// What BIRD heard of a prefix: every attribute, the next hop without a link-local address beside it.
fn heard(bird: &mut Bird, prefix: &str) -> Vec<String> {
    let route = bird.ask(&format!("show route {prefix} all"));
    // Lines begin with a code, or with white space.
    let attributes = route.lines().filter_map(|line| line.split_once("BGP."));
    let global = |(_, line): (&str, &str)| match line.strip_prefix("next_hop:") {
        Some(hops) => format!("next_hop: {}", hops.split_whitespace().next().unwrap_or_default()),
        None => line.to_owned(),
    };
    attributes.map(global).collect()
}

/// Puts the service addresses on the loopback, or takes them away: what guides leave to `/etc/network/interfaces`.
fn loopback(lab: &Lab, there: bool) {
    let mut netlink = Netlink::open_in(&lab.site).unwrap();
    let lo = netlink.link_index("lo").unwrap();
    for address in [format!("{SERVICE_V4}/32"), format!("{SERVICE_V6}/128")] {
        let address = address.parse().unwrap();
        let changed = if there { netlink.add_address(lo, address) } else { netlink.delete_address(lo, address) };
        assert!(changed.unwrap(), "{address}");
    }
}

/// Runs their side, then ours: both announce while the service answers, and withdraw when it does not.
fn same(guide: &Page, prefixes: [&str; 2], theirs: fn(&Lab, &Page) -> Vec<Process>) {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    loopback(&lab, true);
    let mut dns = lab.dns();
    let daemons = theirs(&lab, guide);
    let all = |bird: &mut Bird| prefixes.map(|prefix| heard(bird, prefix));
    let announced = |routes: &[Vec<String>; 2]| routes.iter().all(|route| !route.is_empty());
    let (their_routes, _) = until("theirs is announced", || Some(all(&mut bird)).filter(announced));
    dns.kill();
    let withdrawn = |routes: &[Vec<String>; 2]| routes.iter().all(Vec::is_empty);
    until_true("theirs is withdrawn", || withdrawn(&all(&mut bird)));
    drop(daemons);
    loopback(&lab, false);
    let _agent = lab.agent(&guide.service());
    lab.wait_for_addresses();
    let mut dns = lab.dns();
    let (our_routes, _) = until("ours is announced", || Some(all(&mut bird)).filter(announced));
    assert_eq!(our_routes, their_routes);
    for route in our_routes {
        println!("{}", route.join(", "));
        assert!(route.iter().any(|line| line.starts_with("med")) && route.len() >= 7, "{route:?}");
    }
    dns.kill();
    until_true("ours is withdrawn", || withdrawn(&all(&mut bird)));
}

fn exabgp(lab: &Lab, page: &Page) -> Process {
    let file = page.write("/etc/exabgp/exabgp.conf");
    let settings = [
        "exabgp.daemon.user=root",
        "exabgp.daemon.drop=false",
        "exabgp.api.cli=false",
        "PYTHONDONTWRITEBYTECODE=1",
        EXABGP,
        file.to_str().unwrap(),
    ];
    start(&lab.site, "exabgp", Path::new(ENV), &settings)
}

fn from_exabgp() {
    same(&guide("exabgp"), [PREFIX_V4, PREFIX_V6], |lab, page| vec![exabgp(lab, page)]);
}

fn from_gobgp() {
    same(&guide("gobgp"), [PREFIX_V4, PREFIX_V6], |lab, page| {
        let file = page.write("/etc/gobgpd.conf");
        let arguments = ["-t", "toml", "--pprof-disable", "-f", file.to_str().unwrap()];
        let daemon = start(&lab.site, "gobgpd", Path::new(GOBGPD), &arguments);
        let script = start(&lab.site, "announce", Path::new(SHELL), &["/run/announce-resolver"]);
        vec![daemon, script]
    });
}

fn from_bird() {
    let prefixes = [format!("{SERVICE_V4}/32"), format!("{SERVICE_V6}/128")];
    same(&guide("bird-anycast-healthchecker"), prefixes.each_ref().map(String::as_str), |lab, page| {
        let file = page.write("/etc/bird/bird.conf");
        let settings = Settings::read(&page.write("/etc/anycast-healthchecker.conf"));
        let checks = page.write("/etc/anycast-healthchecker.d/resolver.conf");
        // As the checker leaves it before the first check.
        write_lists(&settings, &[]);
        fs::create_dir_all("/run/bird").unwrap();
        let arguments = ["-f", "-c", file.to_str().unwrap(), "-s", "/run/bird/bird.ctl", "-P", "/run/bird/pid"];
        let bird = start(&lab.site, "site-bird", Path::new(BIRD), &arguments);
        until_true("the site's BIRD answers", || Path::new("/run/bird/bird.ctl").exists());
        vec![bird, checker(lab, &checks)]
    });
}

/// An INI file: sections with keys and values.
struct Settings(Vec<(String, Vec<(String, String)>)>);

impl Settings {
    fn read(file: &Path) -> Settings {
        let mut sections = Vec::new();
        for line in fs::read_to_string(file).unwrap().lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                sections.push((name.to_owned(), Vec::new()));
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{}: {line}", file.display()));
            let (_, keys) = sections.last_mut().expect("a section first");
            keys.push((key.trim().to_owned(), value.trim().to_owned()));
        }
        Settings(sections)
    }

    fn value(&self, section: &str, key: &str) -> &str {
        let keys = self.0.iter().find(|(name, _)| name == section).map(|(_, keys)| keys);
        let found = keys.and_then(|keys| keys.iter().find(|(name, _)| name == key));
        &found.unwrap_or_else(|| panic!("no {key} in [{section}]")).1
    }
}

/// anycast-healthchecker, or who plays its part where it is not installed.
fn checker(lab: &Lab, checks: &Path) -> Process {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|d| d.join("anycast-healthchecker")).find(|p| p.exists());
    if let Some(program) = installed {
        let arguments = ["-f", CHECKER, "-d", checks.parent().unwrap().to_str().unwrap()];
        return start(&lab.site, "checker", &program, &arguments);
    }
    println!("skipped: anycast-healthchecker is not installed; the test plays its part");
    lab::start_ready(&lab.site, "checker", &[checks.to_str().unwrap()])
}

/// Writes the lists that BIRD includes: these prefixes, and the dummies.
fn write_lists(settings: &Settings, prefixes: &[&str]) {
    for (family, mark) in [("", '.'), ("6", ':')] {
        let setting = |name: &str| settings.value("daemon", &name.replace('6', family));
        let mut list = vec![setting("dummy_ip6_prefix")];
        list.extend(prefixes.iter().filter(|prefix| prefix.contains(mark)));
        let text =
            format!("define {} =\n    [\n        {}\n    ];\n", setting("bird6_variable"), list.join(",\n        "));
        fs::write(setting("bird6_conf"), text).unwrap();
    }
}

fn shell(command: &str) -> bool {
    Command::new(SHELL).args(["-c", command]).output().unwrap().status.success()
}

/// Plays the part of anycast-healthchecker: what passes is in the lists, and BIRD is told when they change.
pub fn play_checker(checks: &str) -> ! {
    let settings = Settings::read(Path::new(CHECKER));
    let checks = Settings::read(Path::new(checks));
    let mut told = None;
    println!("ready");
    loop {
        let names = checks.0.iter().map(|(name, _)| name);
        let passed: Vec<&str> = names
            .filter(|name| shell(checks.value(name, "check_cmd")))
            .map(|name| checks.value(name, "ip_prefix"))
            .collect();
        if told.as_ref() != Some(&passed) {
            write_lists(&settings, &passed);
            assert!(shell(settings.value("daemon", "bird_reconfigure_cmd")));
            told = Some(passed);
        }
        let interval = checks.value("resolver4", "check_interval").parse().unwrap();
        std::thread::sleep(Duration::from_secs(interval));
    }
}

/// The value of the first line `KEY: VALUE` of the resources.
fn field<'a>(resources: &'a str, key: &str) -> &'a str {
    let mut lines = resources.lines().map(|line| line.trim_start_matches([' ', '-']));
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    value.unwrap_or_else(|| panic!("no {key}"))
}

fn from_metallb() {
    let page = guide("metallb");
    let resources = page.block("/metallb/resources.yaml");
    let service: Service = page.service();
    let upstream = &service.sites[0].upstreams[0];
    let prefix = service.prefixes[0];
    assert_eq!(field(resources, "myASN"), service.asn.0.to_string());
    assert_eq!(field(resources, "peerASN"), upstream.asn.0.to_string());
    assert_eq!(field(resources, "peerAddress"), upstream.address.to_string());
    assert_eq!(field(resources, "holdTime"), format!("{}s", upstream.hold_time.as_secs()));
    assert_eq!(field(resources, "aggregationLength"), prefix.prefix_len().to_string());
    assert_eq!(field(resources, "metallb.io/loadBalancerIPs"), service.addresses[0].to_string());
    assert!(resources.contains(&format!("- {prefix}\n")), "the pool");
    let bfd = upstream.bfd.unwrap();
    assert_eq!(field(resources, "transmitInterval"), bfd.interval.as_millis().to_string());
    assert_eq!(field(resources, "receiveInterval"), bfd.receive.as_millis().to_string());
    assert_eq!(field(resources, "detectMultiplier"), bfd.multiplier.to_string());
    let lab = Lab::new();
    let mut bird = Bird::start_with_bfd(&lab.router, "on");
    let _kube_proxy = kubernetes::kube_proxy(&lab, 1);
    let _agent = lab.agent(&service);
    let (route, _) = until("announced", || Some(heard(&mut bird, PREFIX_V4)).filter(|route| !route.is_empty()));
    let community = format!("community: ({})", field(resources, "value").replace(':', ","));
    let expected =
        [&format!("as_path: {}", field(resources, "myASN")), &format!("next_hop: {}", lab::SITE_V4), &community];
    for line in expected {
        assert!(route.contains(line), "{line} not in {route:?}");
    }
    assert!(!route.iter().any(|line| line.starts_with("med") || line.starts_with("large")), "{route:?}");
    until_true("BFD is up", || lab::status().peers[0].bfd.as_ref().is_some_and(|b| b.state == "up"));
}

/// The page's second session: the router's address, and the site's.
const SECOND: [&str; 2] = ["192.0.2.5", "192.0.2.6"];

fn in_parallel() {
    let lab = Lab::new();
    for (ns, address) in [&lab.router, &lab.site].into_iter().zip(SECOND) {
        let mut netlink = Netlink::open_in(ns).unwrap();
        let index = netlink.link_index("l0").unwrap();
        netlink.add_address(index, format!("{address}/30").parse().unwrap()).unwrap();
    }
    let [router, site] = SECOND;
    let second = format!(
        "protocol bgp second {{ local {router} as {ROUTER_ASN}; neighbor {site} as 64500; hold time 9; \
         ipv4 {{ import all; export none; }}; }}\n"
    );
    let mut bird = Bird::with(&lab.router, &(Bird::sessions(ROUTER_ASN, [""; 2]) + &second));
    loopback(&lab, true);
    let _dns = lab.dns();
    let best = |bird: &mut Bird| bird.ask(&format!("show route {PREFIX_V4} primary all"));
    let through = |route: &str, hop: &str| route.lines().any(|line| line.trim() == format!("BGP.next_hop: {hop}"));
    let old = exabgp(&lab, &guide("exabgp"));
    until_true("the old agent's route", || through(&best(&mut bird), lab::SITE_V4));
    let mut service = guide("README").service();
    let _agent = lab.agent(&service);
    until_true("ours beside it", || through(&bird.ask(&format!("show route {PREFIX_V4} all protocol second")), site));
    assert!(through(&best(&mut bird), lab::SITE_V4), "the shorter path is used");
    old.signal(Signal::Term);
    let changed = until_true("changed over", || {
        let route = best(&mut bird);
        assert!(route.contains("BGP.as_path"), "a moment without a route: {route}");
        through(&route, site)
    });
    println!("changed over in {changed:?}");
    let since = lab::status().peers[0].since.clone();
    service.sites[0].upstreams[0].prepend = 0;
    assert_eq!(reload(&service).outcome, ReloadOutcome::Applied);
    until_true("without prepends", || best(&mut bird).lines().any(|line| line.trim() == "BGP.as_path: 64500"));
    assert_eq!(lab::status().peers[0].since, since, "the session stays");
}
