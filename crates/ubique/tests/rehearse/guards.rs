//! The guards in the lab: what the failures of many sites, or of a check, do to clients.

use std::fs;

use serde_json::Value;

use super::run::{Lab, root, scenario, work_directory};

const SITES: [&str; 6] = ["nyc", "lon", "tyo", "sin", "bom", "sao"];

/// A check that is wrong where `fail-check` says so: it looks for the site's file. The site's name is on the command
/// line of the agent, its parent.
const WRONG_CHECK: &str = r#"
[[check]]
name    = "wrong"
kind    = "exec"
command = ["/bin/sh", "-c", "! test -e /run/ubique/failing/$(tr '\\0' '\\n' </proc/$PPID/cmdline | grep -A1 -x -e --site | tail -1)"]
every   = "500ms"
timeout = "450ms"
fall    = 2
rise    = 1

[[check]]
"#;

/// The quickstart with a check that can be wrong, and upstreams that show other sites.
fn guarded() -> String {
    let example = fs::read_to_string(root().join("examples/quickstart.toml")).expect("the example");
    let text = example
        .replacen("[[check]]", WRONG_CHECK.trim_start(), 1)
        .replace("relation = \"transit\"", "relation = \"transit\"\nfull-view = true");
    let file = work_directory("guards").join("service.toml");
    fs::write(&file, text).expect("a service file");
    file.display().to_string()
}

fn step(action: &str, site: &str, observed: &str, expect: &str) -> String {
    format!(
        "[[step]]\nlabel = \"{action}-{site}\"\naction = \"{action}\"\nsite = \"{site}\"\nfor = \"{observed}\"\nexpect = {{ {expect} }}\n\n"
    )
}

/// Sites whose agents raised the alarm.
fn resorts(report: &Value) -> usize {
    let events = report["events"].as_array().expect("events");
    let told = |site: &&&str| {
        let alarm = format!("{site}: last site not withdrawn");
        events.iter().any(|event| event["text"].as_str().is_some_and(|text| text.starts_with(&alarm)))
    };
    SITES.iter().filter(told).count()
}

#[test]
fn six_sites_fail_one_after_the_other_and_the_sixth_stays() {
    let Some(lab) = Lab::new() else { return };
    let steps: String = SITES
        .iter()
        .enumerate()
        .map(|(n, site)| {
            let evacuated = n < SITES.len() - 1;
            let expect = format!("answered = true, outage-worst = \"1s\", evacuated = {evacuated}");
            step("fail-check", site, "6s", &expect)
        })
        .collect();
    let report = lab.played(&["rehearse", &guarded(), "--scenario", &scenario("one-by-one", &steps)]);
    assert!(resorts(&report) >= 1, "the alarm is raised: {:#}", report["events"]);
}

#[test]
fn a_bad_check_pushed_to_all_sites_at_once_silences_nobody() {
    let Some(lab) = Lab::new() else { return };
    let mut steps: String = SITES.iter().map(|site| step("fail-check", site, "0s", "")).collect();
    steps += "[[step]]\nlabel = \"all-bad\"\naction = \"wait\"\nfor = \"8s\"\n\
              expect = { answered = true, outage-worst = \"1s\" }\n\n";
    steps += &SITES.iter().map(|site| step("pass-check", site, "0s", "")).collect::<String>();
    steps += "[[step]]\nlabel = \"mended\"\naction = \"wait\"\nfor = \"3s\"\nexpect = { answered = true, lost = 0 }\n";
    let report = lab.played(&["rehearse", &guarded(), "--scenario", &scenario("all-bad", &steps)]);
    assert_eq!(resorts(&report), SITES.len(), "alarms are raised everywhere: {:#}", report["events"]);
}
