//! What `ubique doctor --upstream` prints, run as it is by BIRD and by FRR: sessions with a password up, BFD up, both
//! prefixes taken, with GRACEFUL_SHUTDOWN as the last choice, and nothing else taken.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ubique_model::service::{Bfd, Service};
use ubique_node::admin::Request;
use ubique_node::doctor::upstream::{Router, SECRET, advice};

use crate::daemons::{BGPD, BIRD, Bird, terminal};
use crate::lab::{self, Lab, PREFIX_V4, PREFIX_V6, Process, SITE_V4, SITE_V6, start, until, until_true};
use crate::runner::Test;

const BFDD: &str = "/usr/lib/frr/bfdd";
const PASSWORD: &str = "correct-horse";
const PASSWORD_FILE: &str = "/run/as65000.md5";

pub const TESTS: &[Test] = &[
    Test { name: "advice_for_bird_is_taken_by_bird", needs: &[BIRD], run: bird },
    Test { name: "advice_for_frr_is_taken_by_frr", needs: &[BGPD, BFDD], run: frr },
];

fn service() -> Service {
    let mut service = lab::service();
    let bfd = Bfd { interval: Duration::from_millis(100), receive: Duration::from_millis(120), multiplier: 4 };
    for (upstream, local) in service.sites[0].upstreams.iter_mut().zip([SITE_V4, SITE_V6]) {
        upstream.bfd = Some(bfd);
        upstream.local_address = Some(local.parse().unwrap());
        upstream.password_file = Some(PASSWORD_FILE.into());
    }
    service.agent.graceful_shutdown = Duration::from_secs(60);
    fs::write(PASSWORD_FILE, format!("{PASSWORD}\n")).unwrap();
    service
}

fn text(router: Router, service: &Service) -> String {
    let text = advice(router, service, &service.sites[0]);
    assert!(!text.contains(PASSWORD));
    text.replace(SECRET, PASSWORD)
}

fn bfd_is_up() -> bool {
    let up = |p: &ubique_node::admin::PeerStatus| {
        let bfd = p.bfd.as_ref();
        // What the advice mirrors: we send every 100 ms, and hear every 120.
        bfd.is_some_and(|b| b.state == "up" && b.interval_ms < 121.0 && b.detection_ms == Some(480.0))
    };
    lab::try_status().is_some_and(|s| s.peers.len() == 2 && s.peers.iter().all(up))
}

fn drain() {
    lab::ask(&Request::Drain { reason: "test".into() }).unwrap();
}

fn bird() {
    let service = service();
    let lab = Lab::new();
    let mut bird = Bird::with(&lab.router, &text(Router::Bird, &service));
    let _agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("both prefixes taken", || bird.has_both());
    until_true("BFD is up, as advised", bfd_is_up);
    assert!(bird.route(PREFIX_V4).unwrap().contains("BGP.local_pref: 100"));
    drain();
    for prefix in [PREFIX_V4, PREFIX_V6] {
        let last = |route: String| route.contains("BGP.local_pref: 0") && route.contains("(65535,0)");
        until_true("the last choice while leaving", || bird.route(prefix).is_some_and(last));
    }
    let all = bird.ask("show protocols all");
    assert_eq!(all.matches("Hold timer:").count(), 2, "{all}");
    assert!(!all.contains("Graceful restart"), "{all}");
}

/// zebra, bfdd and bgpd with the advice; vtysh would give each daemon its own lines of it.
fn start_frr(lab: &Lab, text: &str) -> (Vec<Process>, UnixStream) {
    fs::create_dir_all("/run/frr").unwrap();
    // zebra and bfdd insist on a user of their own.
    fs::set_permissions("/run/frr", fs::Permissions::from_mode(0o777)).unwrap();
    let mut in_bfd = false;
    let (mut of_bfdd, mut of_bgpd) =
        (String::from("log stdout\n"), String::from("frr defaults traditional\nlog stdout\n"));
    for line in text.lines() {
        in_bfd |= line == "bfd";
        let part = if in_bfd { &mut of_bfdd } else { &mut of_bgpd };
        part.push_str(&format!("{line}\n"));
        in_bfd &= line != "exit";
    }
    let mut processes = Vec::new();
    for (daemon, config) in [("zebra", "log stdout\n"), ("bfdd", &of_bfdd), ("bgpd", &of_bgpd)] {
        let file = format!("/run/frr/{daemon}.conf");
        fs::write(&file, config).unwrap();
        let pid = format!("/run/frr/{daemon}.pid");
        let user =
            if daemon == "bgpd" { ["-S", "-u", "root", "-g", "root"].as_slice() } else { &["-u", "frr", "-g", "frr"] };
        let arguments =
            ["-f", &file, "-i", &pid, "--vty_socket", "/run/frr", "-z", "/run/frr/zserv", "-P", "0", "--log", "stdout"];
        let program = format!("/usr/lib/frr/{daemon}");
        processes.push(start(&lab.router, daemon, Path::new(&program), &[user, arguments.as_slice()].concat()));
        let socket = if daemon == "zebra" { "/run/frr/zserv".to_owned() } else { format!("/run/frr/{daemon}.vty") };
        until(&format!("{daemon} answers"), || UnixStream::connect(&socket).ok());
    }
    let (control, _) = until("bgpd answers", || UnixStream::connect("/run/frr/bgpd.vty").ok());
    (processes, control)
}

fn frr() {
    let service = service();
    let lab = Lab::new();
    let (processes, mut control) = start_frr(&lab, &text(Router::Frr, &service));
    terminal(&mut control, "enable");
    for process in &processes {
        assert!(!process.log().contains("on config line"), "{}", process.log());
    }
    let _agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    let mut route =
        |family: &str, prefix: &str| terminal(&mut control, &format!("show bgp {family} unicast {prefix} json"));
    until_true("both prefixes taken", || {
        route("ipv4", PREFIX_V4).contains("\"aspath\"") && route("ipv6", PREFIX_V6).contains("\"aspath\"")
    });
    until_true("BFD is up, as advised", bfd_is_up);
    drain();
    for (family, prefix) in [("ipv4", PREFIX_V4), ("ipv6", PREFIX_V6)] {
        let last = |route: String| route.contains("gracefulShutdown") && !route.contains("\"locPrf\":100");
        until_true("the last choice while leaving", || last(route(family, prefix)));
    }
    let neighbor = terminal(&mut control, &format!("show bgp neighbor {SITE_V4} json"));
    for expected in
        ["\"bgpTimerHoldTimeMsecs\":9000", "\"bgpTimerKeepAliveIntervalMsecs\":3000", "\"prefixAllowedMax\":9"]
    {
        assert!(neighbor.replace(": ", ":").contains(expected), "{expected} not in\n{neighbor}");
    }
}
