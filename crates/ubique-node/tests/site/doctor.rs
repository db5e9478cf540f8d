//! The doctor on a site that is broken on purpose: what it finds by asking the kernel, nftables and the agent.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use ubique_model::service::{Bfd, Service};
use ubique_node::doctor::{Case, examine, gather};
use ubique_sys::process::command_in;

use crate::daemons::{BIRD, Bird};
use crate::lab::{self, Lab, ROUTER_V4, SITE_V4, SITE_V6, until_true};
use crate::roles::myself;
use crate::runner::Test;

const NFT: &str = "/usr/sbin/nft";

pub const TESTS: &[Test] = &[
    Test { name: "doctor_finds_what_was_broken", needs: &[BIRD, NFT], run: broken },
    Test { name: "doctor_finds_nothing_where_all_is_well", needs: &[BIRD, NFT], run: well },
];

/// The role: examines the network namespace it runs in.
pub fn play(file: &str, site: &str) -> i32 {
    let service: Service = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let subject = Some((&service, service.site(site).unwrap()));
    let outcomes = examine(Case { facts: &gather(subject, None), subject });
    println!("{}", serde_json::to_string(&outcomes).unwrap());
    0
}

/// Messages of findings that matter, by check.
fn findings(lab: &Lab) -> BTreeMap<String, Vec<String>> {
    let mut command = command_in(&myself(), Some(&lab.site));
    command.args(["role", "doctor", "/run/service.json", "ams"]).stdin(Stdio::null());
    let output = command.output().unwrap();
    let outcomes: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let mut found = BTreeMap::new();
    for outcome in outcomes.as_array().unwrap() {
        let serious = outcome["findings"].as_array().unwrap().iter().filter(|f| f["severity"] != "note");
        let messages: Vec<String> = serious.map(|f| f["message"].as_str().unwrap().to_owned()).collect();
        if !messages.is_empty() {
            found.insert(outcome["check"].as_str().unwrap().to_owned(), messages);
        }
    }
    found
}

fn in_site(lab: &Lab, program: &str, arguments: &[&str]) {
    let status = command_in(program.as_ref(), Some(&lab.site)).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

fn service() -> Service {
    let mut service = lab::service();
    let bfd = Bfd { interval: Duration::from_millis(100), receive: Duration::from_millis(100), multiplier: 5 };
    for (upstream, local) in service.sites[0].upstreams.iter_mut().zip([SITE_V4, SITE_V6]) {
        upstream.bfd = Some(bfd);
        upstream.local_address = Some(local.parse().unwrap());
    }
    service
}

fn broken() {
    let lab = Lab::new();
    let _bird = Bird::start(&lab.router, "password \"theirs\";");
    let mut service = service();
    fs::write("/run/secret", "ours\n").unwrap();
    service.sites[0].upstreams[0].password_file = Some("/run/secret".into());
    in_site(&lab, "sh", &["-c", "echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6; ip link set l0 mtu 1400"]);
    in_site(&lab, NFT, &["add table inet guard"]);
    in_site(&lab, NFT, &["add chain inet guard in { type filter hook input priority 0; policy accept; }"]);
    in_site(&lab, NFT, &["add rule inet guard in ip saddr 192.0.2.0/24 udp dport 3784 counter drop"]);
    // Without an agent: IPv6 is off, so that it could not start.
    fs::write("/run/service.json", serde_json::to_vec(&service).unwrap()).unwrap();
    let found = findings(&lab);
    assert!(found["families"][0].contains("lo/disable_ipv6"), "{found:#?}");
    assert!(found["supervision"][0].contains("does not run"), "{found:#?}");
    assert!(found["mtu"].iter().any(|m| m.contains("carries only 1400 octets")), "{found:#?}");
    let rule = |m: &String| m.contains("of chain in in table inet guard drops BFD from 192.0.2.1");
    assert!(found["firewall"].len() == 1 && found["firewall"].iter().all(rule), "{found:#?}");
    in_site(&lab, "sh", &["-c", "echo 0 > /proc/sys/net/ipv6/conf/lo/disable_ipv6"]);
    let _agent = lab.agent(&service);
    lab.wait_for_addresses();
    until_true("both keys are seen to differ, and BFD to be silent", || {
        let found = findings(&lab);
        let has = |check: &str, text: &str| found.get(check).is_some_and(|all| all.iter().any(|m| m.contains(text)));
        has("session-keys", "came with a wrong signature")
            && has("upstreams", &format!("no session with AS65000 at {ROUTER_V4}"))
            && has("bfd", &format!("no BFD packet has come from {ROUTER_V4}"))
    });
}

fn well() {
    let lab = Lab::new();
    let mut bird = Bird::start_with_bfd(&lab.router, "on");
    let _agent = lab.agent(&service());
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    until_true("nothing is found but what is the machine's", || {
        let found = findings(&lab);
        // Clock, disks and its service manager are those of the machine that runs the test.
        let ours = |check: &&String| !["clock", "directories", "supervision", "mtu"].contains(&check.as_str());
        let left: Vec<_> = found.keys().filter(ours).collect();
        left.is_empty()
    });
    let probing = |m: &String| m.contains("tcp_mtu_probing");
    assert!(findings(&lab).get("mtu").is_none_or(|all| all.iter().all(probing)));
}
