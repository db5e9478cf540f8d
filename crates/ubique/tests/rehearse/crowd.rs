//! A flash crowd at one site, with the real daemon: what shedding does, and what withdrawing for load does.
//!
//! Six sites, each the customer of a transit network of its own; all of these buy from one backbone. Each transit network
//! has a customer that reaches nobody else but through it. Five further networks, where most of the crowd is, buy from
//! the first site's transit network and from one of the others, and prefer the first site, whose path is the shortest.
//! All sites together take half as much again as the crowd brings.

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use super::run::{Lab, scenario, work_directory};

/// Sites with the cities they are in.
const SITES: [(&str, &str); 6] = [
    ("nyc", "New York, US"),
    ("lon", "London, GB"),
    ("tyo", "Tokyo, JP"),
    ("sin", "Singapore, SG"),
    ("bom", "Mumbai, IN"),
    ("sao", "São Paulo, BR"),
];
const BACKBONE: u32 = 64600;
/// Transit network of the first site; those of the others follow.
const TRANSIT: u32 = 64610;
/// Customers of one transit network each.
const HOME: u32 = 64620;
/// Customers of the first transit network and another each.
const BETWEEN: u32 = 64630;
/// A site takes so many queries/s. Each vantage point asks 20 times a second, or 400 times in a crowd: one crowd is no
/// load, two are overload, and everybody together is none before the crowds come.
const CAPACITY: u32 = 600;
const TIMES: u32 = 20;

/// Load climbs the steps of `[[shed]]`.
fn shedding() -> String {
    format!(
        "[[check]]\nname = \"load\"\nkind = \"load\"\nmetric = \"datagrams\"\nhigh = {CAPACITY}\nevery = \"500ms\"\nfall = 1\n\n\
         [[shed]]\nprepend = 2\n\n"
    )
}

/// Load fails the check, as in many scripts: the same counter of the kernel, and no guard.
fn withdrawing() -> String {
    let script = work_directory("crowd").join("load.sh");
    let counter = "awk '/^Udp: [0-9]/ { print $2 }' /proc/net/snmp; cut -d' ' -f1 /proc/uptime";
    let text = format!(
        "set -- $({counter}; sleep 0.3; {counter})\n\
         exec awk -v n=$(($3 - $1)) -v from=$2 -v until=$4 'BEGIN {{ exit n / (until - from) >= {CAPACITY} }}'\n"
    );
    fs::write(&script, text).expect("a script");
    format!(
        "[guard]\nlast-site = \"0s\"\n\n\
         [[check]]\nname = \"load\"\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"{}\"]\nevery = \"500ms\"\ntimeout = \"450ms\"\n\
         fall = 1\nrise = 20\n\n",
        script.display()
    )
}

fn service(name: &str, policy: &str) -> String {
    let mut text = format!(
        "[service]\nname = \"crowd\"\nasn = 64500\nprefixes = [\"198.51.100.0/24\"]\naddresses = [\"198.51.100.53\"]\n\n\
         [[check]]\nname = \"answers\"\nkind = \"dns\"\ntarget = \"198.51.100.53:53\"\nquery = \"example.com A\"\n\
         every = \"500ms\"\nrise = 1\n\n{policy}"
    );
    for (n, (site, city)) in SITES.iter().enumerate() {
        let (asn, address, prepend) = (TRANSIT + n as u32, 1 + 4 * n, u8::from(n > 0));
        write!(
            text,
            "[[site]]\nname = \"{site}\"\nlocation = \"{city}\"\n[[site.upstream]]\nasn = {asn}\n\
             address = \"192.0.2.{address}\"\nrelation = \"transit\"\nprepend = {prepend}\n\n"
        )
        .expect("text");
    }
    let file = work_directory("crowd").join(format!("{name}.toml"));
    fs::write(&file, text).expect("a service file");
    file.display().to_string()
}

/// The Internet file, in the directory of the scenarios.
fn internet() {
    let (mut networks, mut links, mut vantages) = (String::new(), String::new(), String::new());
    let mut network = |asn: u32, city: &str| {
        write!(networks, "[[as]]\nasn = {asn}\nname = \"AS {asn}\"\nlocation = \"{city}\"\n\n").expect("text");
    };
    let mut sells = |from: u32, to: u32| {
        write!(links, "[[link]]\nbetween = [{from}, {to}]\nrelation = \"transit\"\n\n").expect("text");
    };
    let mut clients = |asn: u32| write!(vantages, "[[vantage]]\nname = \"{asn}\"\nasn = {asn}\n\n").expect("text");
    network(BACKBONE, "London, GB");
    for (n, (_, city)) in (0..).zip(SITES) {
        network(TRANSIT + n, city);
        sells(BACKBONE, TRANSIT + n);
        network(HOME + n, city);
        sells(TRANSIT + n, HOME + n);
        clients(HOME + n);
        if n > 0 {
            network(BETWEEN + n, city);
            sells(TRANSIT, BETWEEN + n);
            sells(TRANSIT + n, BETWEEN + n);
            clients(BETWEEN + n);
        }
    }
    let file = work_directory("scenarios").join("crowd-internet.toml");
    fs::write(file, format!("name = \"crowd\"\n\n{networks}{links}{vantages}")).expect("an Internet file");
}

/// The crowd comes to the first site, from its own customer and from all the networks between.
fn crowd(observed: &str, expect: &str) -> String {
    internet();
    let steps: String = std::iter::once(HOME)
        .chain((1..SITES.len() as u32).map(|n| BETWEEN + n))
        .map(|asn| format!("[[step]]\naction = \"crowd\"\nvantage = \"{asn}\"\ntimes = {TIMES}\n\n"))
        .collect();
    let wait = format!("[[step]]\naction = \"wait\"\nfor = \"{observed}\"\nexpect = {{ {expect} }}\n");
    let file = scenario("crowd", &format!("{steps}{wait}"));
    let text = fs::read_to_string(&file).expect("the scenario");
    let keys = "internet = \"crowd-internet.toml\"\nquery-every = \"50ms\"\n\n";
    fs::write(&file, text.replacen("\n\n", &format!("\n{keys}"), 1)).expect("a scenario file");
    file
}

/// Sites whose agents told of this.
fn told<'a>(report: &Value, what: &str) -> Vec<&'a str> {
    let events = report["events"].as_array().expect("events");
    let texts: Vec<&str> = events.iter().filter_map(|event| event["text"].as_str()).collect();
    let has = |site: &str| texts.iter().any(|text| text.starts_with(&format!("{site}: {what}")));
    SITES.iter().map(|(site, _)| *site).filter(|site| has(site)).collect()
}

#[test]
fn overload_of_one_site_cascades_nowhere() {
    let Some(lab) = Lab::new() else { return };
    let calm = crowd("8s", "answered = true, outage-worst = \"1s\"");
    let report = lab.played(&["rehearse", &service("shed", &shedding()), "--scenario", &calm]);
    assert_eq!(told(&report, "overload began"), ["nyc"], "one site is overloaded: {:#}", report["events"]);
    assert_eq!(told(&report, "overload ended"), ["nyc"], "shedding helps it: {:#}", report["events"]);
    let silent = told(&report, "site unhealthy");
    assert!(silent.is_empty(), "and nobody withdraws: {silent:?}, {:#}", report["events"]);

    let domino = crowd("10s", "lost = 0");
    let report = lab.report(&["rehearse", &service("withdraw", &withdrawing()), "--scenario", &domino]);
    let silent = told(&report, "site unhealthy");
    assert_eq!(silent.len(), SITES.len(), "site after site withdraws: {silent:?}, {:#}", report["events"]);
    let lost = &report["expectations"][0];
    assert_eq!((&lost["what"], &lost["ok"]), (&"lost".into(), &false.into()), "and clients notice: {lost:#}");
}
