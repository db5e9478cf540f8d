//! Who may ask the agent what, and that dashboards, alerts and runbook speak of metrics that exist.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use ubique_model::service::{ApiSettings, BmpCollector, JournalSettings, RotatedFile, Service};
use ubique_node::admin::Request;
use ubique_sys::process::command_in;

use crate::daemons::{BIRD, Bird};
use crate::interfaces::get;
use crate::lab::{self, Lab, SOCKET, ask, status, until_true};
use crate::roles::myself;
use crate::runner::Test;

const fn test(name: &'static str, run: fn()) -> Test {
    Test { name, needs: &[BIRD], run }
}

pub const TESTS: &[Test] = &[
    test("who_asks_is_known_and_only_operators_act", access),
    Test { name: "https_clients_act_under_the_name_of_their_certificate", needs: &[BIRD, OPENSSL, CURL], run: https },
    test("every_metric_of_rules_and_dashboards_is_there", every_metric),
    Test { name: "queries_of_dashboards_are_promql", needs: &[PROMTOOL], run: dashboards },
    Test { name: "alert_rules_pass_their_unit_tests", needs: &[PROMTOOL], run: rules },
];

const OPENSSL: &str = "/usr/bin/openssl";
const CURL: &str = "/usr/bin/curl";
const PROMTOOL: &str = "/usr/bin/promtool";

/// A user and a group that nobody has.
const SOMEBODY: u32 = 54_321;
const OPERATORS: u32 = 54_322;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// This binary where everybody may start it.
fn copied() -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = PathBuf::from("/run/asker");
    fs::copy(myself(), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn access() {
    let lab = Lab::new();
    let mut service = lab::service();
    service.agent.admin.mode = 0o666;
    service.agent.admin.group = Some(OPERATORS.to_string());
    let agent = lab.agent(&service);
    lab.wait_for_addresses();
    until_true("status", || lab::try_status().is_some());
    let asker = copied();
    let ask_as = |group: u32, line: &str| {
        let mut command = Command::new(&asker);
        command.args(["role", "ask", SOCKET, line]).uid(SOMEBODY).gid(group).stderr(Stdio::piped());
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
    };
    let drain = r#"{"query":"drain","reason":"curious"}"#;
    assert!(ask_as(SOMEBODY, r#"{"query":"status"}"#).contains("\"schema_version\":1"), "whoever may connect may read");
    let refused = ask_as(SOMEBODY, drain);
    let expected = format!("uid {SOMEBODY}, pid ");
    assert!(refused.contains(&expected) && refused.contains("may read but not act"), "{refused}");
    assert!(status().events.iter().all(|e| e.who.is_none()));
    assert!(ask_as(OPERATORS, drain).contains("\"ok\":true"), "a member of admin-group acts");
    let event = status().events.into_iter().find(|e| e.who.is_some()).unwrap();
    assert!(event.who.as_deref().unwrap().starts_with(&expected), "{event:?}");
    assert!(event.cause.contains("curious"), "{event:?}");
    ask(&Request::Undrain { reason: "enough".into() }).unwrap();
    let event = status().events.into_iter().rfind(|e| e.who.is_some()).unwrap();
    let root = format!("(uid 0, pid {})", std::process::id());
    assert!(event.who.as_deref().unwrap().ends_with(&root), "{event:?}");
    for line in ["refused: may read, not act", "drain requested", &expected] {
        until_true("it is logged", || agent.log().contains(line));
    }
}

/// A certificate of its own authority: enough to be a server, an authority of clients and a client.
fn certificate(name: &str) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let line = format!("req -x509 {key} -keyout /run/{name}.key -out /run/{name}.pem -days 2 -subj /CN={name}");
    let output = Command::new(OPENSSL).args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn https() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    // The authority signs the client: one that signs itself cannot be both.
    certificate("server");
    certificate("authority");
    fs::write("/run/ext", "subjectAltName=DNS:ops.example.net\n").unwrap();
    for line in [
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /run/ops.key -out /run/ops.csr -subj /CN=ops",
        "x509 -req -in /run/ops.csr -out /run/ops.pem -CA /run/authority.pem -CAkey /run/authority.key -CAcreateserial -days 2 -extfile /run/ext",
    ] {
        assert!(Command::new(OPENSSL).args(line.split(' ')).stderr(Stdio::null()).status().unwrap().success());
    }
    let mut service = lab::service();
    service.agent.admin.api = Some(ApiSettings {
        listen: format!("{}:8443", lab::SITE_V4).parse().unwrap(),
        certificate: "/run/server.pem".into(),
        key_file: "/run/server.key".into(),
        client_ca: "/run/authority.pem".into(),
        clients: vec!["ops".into()],
    });
    let agent = lab.agent(&service);
    lab.wait_for_addresses();
    let _dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    // From the router: what is asked arrives over the network.
    let curl = |path: &str, extra: &[&str]| {
        let mut command = command_in(Path::new(CURL), Some(&lab.router));
        command.args(["-sSk", "--max-time", "20"]).args(extra).arg(format!("https://{}:8443{path}", lab::SITE_V4));
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let ops = ["--cert", "/run/ops.pem", "--key", "/run/ops.key"];
    assert!(curl("/v1/status", &[]).contains("curl: ("), "nobody without a certificate");
    assert!(curl("/v1/status", &ops).contains("\"state\":\"announced\""));
    assert!(curl("/v1/openapi.json", &ops).contains("\"/v1/drain\""));
    let drain = [&ops[..], &["-H", "Content-Type: application/json", "-d", r#"{"reason":"disks"}"#]].concat();
    assert_eq!(curl("/v1/drain", &drain), r#"{"ok":true}"#);
    until_true("withdrawn", || bird.has_none());
    let event = status().events.into_iter().find(|e| e.who.as_deref() == Some("CN=ops")).unwrap();
    assert!(event.cause.contains("disks"), "{event:?}");
    let secret = fs::read_to_string("/run/server.key").unwrap();
    let line = secret.lines().nth(1).unwrap();
    assert!(!agent.log().contains(line), "the key is not in the log");
}

/// Words that are names of metrics, without those that rules define.
fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let ours = |w: &&str| (w.starts_with("ubique_") || w.starts_with("process_")) && !w.contains(':');
    text.split(word).filter(ours).map(str::to_owned).collect()
}

/// Expressions of the rules and the dashboards: what stands behind `expr` and in queries of variables.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["pkg/prometheus", "pkg/grafana"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().ends_with(".test.yml") {
                continue;
            }
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    let runbook = root().join("docs/runbook.md");
    found.push((runbook.display().to_string(), fs::read_to_string(&runbook).unwrap()));
    assert!(found.len() >= 4, "rules, two dashboards, runbook");
    found
}

/// With `[sessions]` where they are compiled in; whether the kernel takes their programs does not matter here.
fn with_everything() -> Service {
    #[cfg(feature = "sessions")]
    let mut service = crate::survive::lonely();
    #[cfg(not(feature = "sessions"))]
    let mut service = lab::service();
    service.sites[0].upstreams[0].bfd = Some(ubique_model::service::Bfd::default());
    service.agent.records.bmp =
        vec![BmpCollector { collector: "127.0.0.1:11019".parse().unwrap(), statistics: Duration::ZERO }];
    let file = RotatedFile { path: "/run/agent.journal".into(), size_mib: 1, files: 2 };
    service.agent.records.journal = Some(JournalSettings { file, full_outputs: false });
    service
}

fn every_metric() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let service = with_everything();
    let _agent = lab.agent(&service);
    lab.wait_for_addresses();
    let mut dns = lab.dns();
    until_true("both prefixes announced", || bird.has_both());
    dns.kill();
    until_true("withdrawn", || bird.has_none());
    let acknowledged =
        "ubique_failover_duration_seconds_count{service=\"resolver\",site=\"ams\",phase=\"acknowledge\"} 1\n";
    until_true("the failover is measured", || get(&lab, "/metrics").contains(acknowledged));
    let reply = get(&lab, "/metrics");
    let (_, text) = reply.split_once("\r\n\r\n").unwrap();
    let there = names(text);
    for (file, content) in expressions() {
        let is_here = |name: &String| cfg!(feature = "sessions") || !name.starts_with("ubique_sessions_");
        let missing: Vec<String> =
            names(&content).into_iter().filter(|name| is_here(name) && !there.contains(name)).collect();
        assert!(missing.is_empty(), "{file} speaks of {missing:?}, which /metrics does not have:\n{text}");
    }
    for name in ["ubique_prefix_announced", "ubique_bfd_up", "process_resident_memory_bytes"] {
        assert!(there.contains(name), "{name}");
    }
    if Path::new(PROMTOOL).exists() {
        use std::io::Write;
        let mut promtool = Command::new(PROMTOOL)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn promtool(arguments: &[&str]) -> Output {
    let output = Command::new(PROMTOOL).args(arguments).current_dir(root().join("pkg/prometheus")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    output
}

/// All values under this key.
fn values<'v>(key: &str, value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|v| values(key, v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| values(key, v, found)),
        _ => {}
    }
}

/// Prometheus reads every query of the dashboards, with what Grafana puts in for its variables.
fn dashboards() {
    let mut rules = "groups:\n  - name: dashboards\n    rules:\n".to_owned();
    for (name, panels) in [("fleet", 12), ("site", 18)] {
        let file = root().join(format!("pkg/grafana/{name}.json"));
        let dashboard: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let shown = dashboard["panels"].as_array().unwrap().iter().filter(|p| p["type"] != "row");
        let told = shown.filter(|p| p["title"].is_string() && p["description"].is_string());
        assert!(told.count() >= panels, "panels of {name} with a title and what they mean");
        let mut queries = Vec::new();
        values("expr", &dashboard, &mut queries);
        for (number, query) in queries.iter().enumerate() {
            let query = query.replace("$__rate_interval", "5m").replace("$__interval", "1m").replace("$service", "dns");
            rules += &format!("      - record: {name}:query:n{number}\n        expr: {}\n", Value::from(query));
        }
    }
    fs::write("/run/dashboards.yml", &rules).unwrap();
    promtool(&["check", "rules", "/run/dashboards.yml"]);
}

/// Each alert has a unit test and a section of the runbook.
fn rules() {
    promtool(&["check", "rules", "ubique.rules.yml"]);
    promtool(&["test", "rules", "ubique.test.yml", "ubique-hours.test.yml"]);
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let rules = read("pkg/prometheus/ubique.rules.yml");
    let tests = read("pkg/prometheus/ubique.test.yml") + &read("pkg/prometheus/ubique-hours.test.yml");
    let runbook = read("docs/runbook.md");
    let alerts: Vec<&str> = rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 20, "{alerts:?}");
    for alert in &alerts {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} has no unit test");
        assert!(runbook.contains(&format!("\n## {alert}\n")), "{alert} is not in the runbook");
        let link = format!("runbook.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&link), "{alert} does not lead to the runbook");
    }
    assert_eq!(runbook.matches("\n## ").count(), alerts.len(), "sections of alerts that are no more");
}
