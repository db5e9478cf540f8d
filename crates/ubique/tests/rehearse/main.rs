//! Rehearsals from end to end, as a user starts them: real namespaces, real BGP, real packets.
//!
//! They run one after the other, since each wants the machine for itself. Where the kernel grants no namespaces, or an
//! independent implementation is not installed, a test says so and passes.

#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod guards;
mod run;
mod sessions;

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use run::{Lab, Traces, installed, scenario, work_directory};

/// Longer than any rehearsal here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Address → vantage point → (site, AS path) at the end of the last phase.
type Catchments = BTreeMap<String, BTreeMap<String, (String, Vec<u64>)>>;

fn catchments(report: &Value) -> Catchments {
    let phase = report["phases"].as_array().and_then(|p| p.last()).expect("a phase");
    let landing = |landing: &Value| {
        let path = landing["as_path"].as_array().expect("a path").iter().filter_map(Value::as_u64).collect();
        (landing["site"].as_str().unwrap_or("nobody").to_string(), path)
    };
    let catchment = |map: &Value| {
        let map = map.as_object().expect("a catchment");
        map.iter().map(|(vantage, l)| (vantage.clone(), landing(l))).collect()
    };
    let phases = phase["catchments"].as_object().expect("catchments");
    phases.iter().map(|(address, map)| (address.clone(), catchment(map))).collect()
}

#[test]
fn the_quickstart_shows_everything_and_leaves_nothing() {
    let Some(lab) = Lab::new() else { return };
    let before = Traces::now(&lab);
    let directory = work_directory("report");
    let report = lab.played(&["rehearse", "--report", &directory.display().to_string()]);
    assert_eq!(report["schema_version"], 1);

    let list = |key: &str| report[key].as_array().unwrap_or_else(|| panic!("no {key}")).clone();
    assert_eq!(list("sites").len(), 6);
    assert_eq!(list("networks").len(), 30);
    assert!(list("vantage_points").len() >= 12);
    assert!(report["convergence_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    for phase in list("phases") {
        for address in ["198.51.100.53", "2001:db8:53::53"] {
            let catchment = phase["catchments"][address].as_object().expect("a catchment");
            assert_eq!(catchment.len(), list("vantage_points").len());
            if phase["label"] == "who-lands-where" {
                for (vantage, landing) in catchment {
                    assert!(landing["site"].is_string(), "{vantage}: {landing}");
                    assert!(
                        landing["rtt_ms"].as_f64().is_some_and(|ms| ms > 0.1 && ms < 350.0),
                        "{vantage}: {landing}"
                    );
                    assert_eq!(landing["as_path"].as_array().and_then(|p| p.last()), Some(&Value::from(64500)));
                }
            }
        }
    }
    let kinds: Vec<Value> = list("faults").iter().map(|fault| fault["kind"].clone()).collect();
    assert_eq!(kinds, ["kill-service", "drain", "freeze-site"]);
    for fault in list("faults") {
        assert!(fault["outage_ms"].as_object().is_some_and(|o| !o.is_empty()), "the busiest site has clients: {fault}");
        assert!(fault["lost"].is_u64());
    }
    let surprise = list("surprises").into_iter().find(|s| s["vantage"] == "Mumbai").expect("the classic surprise");
    assert_eq!((&surprise["site"], &surprise["nearest_site"]), (&"sin".into(), &"bom".into()));
    assert_eq!((&surprise["decided_by"], &surprise["reason"]), (&64715.into(), &"decision".into()));
    assert!(surprise["text"].as_str().is_some_and(|t| t.ends_with("AS path 2 < 3")), "{surprise}");

    let page = fs::read_to_string(directory.join("index.html")).expect("a page");
    assert!(page.contains("default-src 'none'"), "the page may load nothing");
    let kept: Value = serde_json::from_slice(&fs::read(directory.join("report.json")).expect("JSON")).expect("JSON");
    assert_eq!(kept, report);
    before.expect_unchanged(&lab);
}

#[test]
fn bird_and_frr_agree_with_the_embedded_routers() {
    let Some(lab) = Lab::new() else { return };
    let scenario = scenario("short", "[[step]]\naction = \"wait\"\nfor = \"1s\"\nexpect = { answered = true }\n");
    let mut expected: Option<Catchments> = None;
    for (routers, program) in [("embedded", None), ("bird", Some("bird")), ("frr", Some("bgpd"))] {
        if let Some(program) = program.filter(|program| !installed(program)) {
            eprintln!("skipped: {program} is not installed");
            continue;
        }
        let report = lab.played(&["rehearse", "--scenario", &scenario, "--routers", routers]);
        assert_eq!(report["routers"], routers);
        let catchments = catchments(&report);
        match &expected {
            None => expected = Some(catchments),
            Some(expected) => assert_eq!(&catchments, expected, "{routers} and the embedded routers disagree"),
        }
    }
}

#[test]
fn a_users_own_service_is_rehearsed() {
    let Some(lab) = Lab::new() else { return };
    if !installed("nsd") {
        eprintln!("skipped: nsd is not installed");
        return;
    }
    let directory = work_directory("nsd");
    let zone = "$ORIGIN example.com.\n@ 60 SOA ns hostmaster 1 3600 600 86400 60\n@ 60 NS ns\nns 60 A 198.51.100.53\n\
                @ 60 A 198.51.100.53\n@ 60 AAAA 2001:db8:53::53\n";
    fs::write(directory.join("example.com.zone"), zone).expect("a zone file");
    let path = directory.display();
    let configuration = format!(
        "server:\n ip-address: 198.51.100.53\n ip-address: 2001:db8:53::53\n server-count: 1\n username: \"\"\n \
         zonesdir: \"{path}\"\n pidfile: \"\"\n database: \"\"\n xfrdfile: \"\"\n zonelistfile: \"/run/nsd.list\"\n \
         xfrdir: \"/run\"\nremote-control:\n control-enable: no\n\
         zone:\n name: example.com\n zonefile: example.com.zone\n"
    );
    fs::write(directory.join("nsd.conf"), configuration).expect("a configuration");
    let example = fs::read_to_string(run::root().join("examples/quickstart.toml")).expect("the example");
    let command =
        format!("[rehearse]\ncommand = [\"nsd\", \"-d\", \"-c\", \"{path}/nsd.conf\", \"-i\", \"{{site}}\"]\n\n");
    // The process check alone: it must see the site's own nsd, not those of the other sites on the same machine.
    let check = "[[check]]\nkind = \"process\"\nprocess = \"nsd\"\nevery = \"100ms\"\n\n";
    let (head, rest) = example.split_once("[[check]]").expect("a check");
    let (_, sites) = rest.split_once("[[site]]").expect("a site");
    let service = directory.join("service.toml");
    fs::write(&service, format!("{head}{command}{check}[[site]]{sites}")).expect("a service file");
    let steps = "[[step]]\nlabel = \"kill\"\naction = \"kill-service\"\nsite = \"lon\"\nfor = \"2s\"\n\
                 expect = { answered = true, evacuated = true }\n\n\
                 [[step]]\naction = \"start-service\"\nsite = \"lon\"\nfor = \"3s\"\n\
                 expect = { answered = true, evacuated = false }\n";
    let scenario = scenario("nsd", steps);
    lab.played(&["rehearse", &service.display().to_string(), "--scenario", &scenario]);
}

#[test]
fn an_ordinary_user_may_rehearse() {
    let Some(lab) = Lab::ordinary_user() else { return };
    let scenario = scenario(
        "ordinary",
        "[[step]]\nlabel = \"kill\"\naction = \"kill-service\"\nsite = \"busiest\"\nfor = \"2s\"\n\
         expect = { answered = true, evacuated = true }\n",
    );
    let before = Traces::now(&lab);
    lab.played(&["rehearse", "--scenario", &scenario]);
    before.expect_unchanged(&lab);
}

#[test]
fn nothing_is_left_after_a_kill_an_interrupt_or_a_failure() {
    let Some(lab) = Lab::new() else { return };
    let before = Traces::now(&lab);
    let scenario = scenario("long", "[[step]]\naction = \"wait\"\nfor = \"5m\"\n");
    for signal in [rustix::process::Signal::KILL, rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mut child = lab
            .command(&["rehearse", "--scenario", &scenario])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        // The other end stays open: what it says further on has a reader.
        let _words = run::wait_for_line(&mut child, "converged", PATIENCE);
        assert!(Traces::now(&lab).processes > before.processes, "the lab's processes are seen");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).expect("the signal is sent");
        let status = run::wait_for_end(&mut child);
        assert!(status.is_some_and(|status| !status.success()), "{signal:?}: {status:?}");
        before.expect_unchanged(&lab);
    }

    let failing = work_directory("failing").join("service.toml");
    let example = fs::read_to_string(run::root().join("examples/quickstart.toml")).expect("the example");
    let command = "[rehearse]\ncommand = [\"/nonexistent/service\"]\n\n[[check]]";
    fs::write(&failing, example.replacen("[[check]]", command, 1)).expect("a service file");
    let output = lab.output(&["rehearse", &failing.display().to_string()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/service"));
    before.expect_unchanged(&lab);
}

#[test]
fn a_failed_expectation_makes_exit_code_1() {
    let Some(lab) = Lab::new() else { return };
    let steps = "[[step]]\nlabel = \"freeze\"\naction = \"kill-agent\"\nsite = \"lon\"\nfor = \"1s\"\n\
                 expect = { evacuated = false, lands = { Tokyo = \"sao\" } }\n";
    let start = Instant::now();
    let output = lab.output(&["rehearse", "--scenario", &scenario("wrong", steps), "--output", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(start.elapsed() < PATIENCE);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let failed = report["verdict"]["failed"].as_array().expect("a list");
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed.iter().any(|f| f.as_str().is_some_and(|f| f.contains("lands.Tokyo"))), "{failed:?}");
}
