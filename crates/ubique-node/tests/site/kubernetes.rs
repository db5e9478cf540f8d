//! The manifest for Kubernetes without a cluster: the agent runs with its service file and its capabilities, beside a
//! server that answers as kube-proxy does on a `healthCheckNodePort`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use ubique_model::service::Service;
use ubique_sys::process::Signal;

use crate::daemons::{BIRD, Bird};
use crate::lab::{self, Lab, PREFIX_V4, Process, SERVICE_V4, start, start_ready, until_true};
use crate::pages;
use crate::roles::myself;
use crate::runner::Test;

const SETPRIV: &str = "/usr/bin/setpriv";
const MANIFEST: &str = "pkg/kubernetes/ubique.yaml";
const SERVICE: &str = "pkg/kubernetes/service.yaml";

/// Where kube-proxy answers, of the manifest, the Service and the migration guide.
const HEALTH: &str = "127.0.0.1:32053";

/// How many endpoints of this node are ready.
const ENDPOINTS: &str = "/run/endpoints";

pub const TESTS: &[Test] = &[
    Test { name: "kubernetes_endpoints_decide", needs: &[BIRD, SETPRIV], run: endpoints },
    Test { name: "kubernetes_kube_proxy_that_goes_or_hangs_withdraws", needs: &[BIRD], run: kube_proxy_gone },
    Test { name: "kubernetes_manifest_and_service_agree", needs: &[], run: agree },
];

/// Tells kube-proxy how many endpoints are ready.
fn set_endpoints(ready: u32) {
    let new = format!("{ENDPOINTS}.new");
    fs::write(&new, ready.to_string()).unwrap();
    fs::rename(&new, ENDPOINTS).unwrap();
}

/// Starts what answers for it on the node.
pub fn kube_proxy(lab: &Lab, ready: u32) -> Process {
    set_endpoints(ready);
    start_ready(&lab.site, "kube-proxy", &[HEALTH, ENDPOINTS])
}

/// The lines of a block of YAML below `key`, without their indentation.
fn below(yaml: &str, key: &str) -> String {
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let mut lines = yaml.lines().skip_while(|line| !line.trim_start().starts_with(key));
    let depth = indentation(lines.next().unwrap_or_else(|| panic!("no {key}")));
    // Items of a list may stand as far out as their key.
    let is_item = |line: &str| indentation(line) == depth && line.trim_start().starts_with("- ");
    let inner = |line: &&str| line.trim().is_empty() || indentation(line) > depth || is_item(line);
    let block: Vec<&str> = lines.take_while(inner).collect();
    let cut = block.iter().filter(|line| !line.trim().is_empty()).map(|line| indentation(line)).min().unwrap_or(0);
    block.iter().map(|line| format!("{}\n", line.get(cut..).unwrap_or_default())).collect()
}

fn of_manifest() -> Service {
    pages::service(MANIFEST, &below(&pages::read(MANIFEST), "service.toml: |"))
}

fn endpoints() {
    let mut service = of_manifest();
    service.agent.drain = Duration::from_millis(500);
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let _kube_proxy = kube_proxy(&lab, 0);
    // Root with the capabilities of the manifest, and none that it could get.
    let added = below(&pages::read(MANIFEST), "add:");
    let names: Vec<String> = added.lines().map(|line| line.trim_start_matches("- ").to_lowercase()).collect();
    let set = format!("-all,+{}", names.join(",+"));
    fs::write("/run/service.json", serde_json::to_vec(&service).unwrap()).unwrap();
    let program = myself();
    let mut arguments = vec!["--no-new-privs"];
    for kind in ["--inh-caps", "--bounding-set"] {
        arguments.extend([kind, &set]);
    }
    arguments.extend([program.to_str().unwrap(), "role", "agent", "/run/service.json", "ams"]);
    let mut agent = start(&lab.site, "agent", Path::new(SETPRIV), &arguments);
    let says = |word: &str| {
        let last = lab::try_status().and_then(|status| status.checks[0].last_result.clone());
        last.is_some_and(|result| result.contains(word))
    };
    until_true("the node has none", || says("503"));
    until_true("the session is up", || lab::status().peers[0].state == "established");
    assert!(bird.route(PREFIX_V4).is_none(), "nothing is announced from a node without endpoints");
    assert_eq!(health(&lab), "HTTP/1.1 200 OK", "the probes do not ask for endpoints");
    for ready in [1, 3] {
        set_endpoints(ready);
        until_true("announced", || bird.route(PREFIX_V4).is_some());
        set_endpoints(0);
        until_true("withdrawn", || bird.route(PREFIX_V4).is_none());
        assert!(says("503"), "{:?}", lab::status().checks);
        assert_eq!(lab::status().peers[0].state, "established", "the session stays");
    }
    set_endpoints(1);
    until_true("announced again", || bird.route(PREFIX_V4).is_some());
    agent.signal(Signal::Term);
    until_true("withdrawn", || bird.route(PREFIX_V4).is_none());
    assert_eq!(agent.wait(), 0);
    assert_eq!(lab.service_addresses(), 0);
}

/// What a probe is answered, on the node: the first line.
fn health(lab: &Lab) -> String {
    let manifest = pages::read(MANIFEST);
    let [probe, other] = ["livenessProbe:", "readinessProbe:"].map(|name| below(&below(&manifest, name), "httpGet:"));
    assert_eq!(probe, other);
    let value = |key: &str| {
        let line = probe.lines().find_map(|line| line.trim_start().strip_prefix(key));
        line.unwrap_or_else(|| panic!("the probe has no {key}")).trim().to_owned()
    };
    let address = format!("{}:{}", value("host:"), value("port:"));
    let reply = lab.site.run(|| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n", value("path:")).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    });
    reply.unwrap().lines().next().unwrap_or_default().to_owned()
}

fn kube_proxy_gone() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let mut proxy = kube_proxy(&lab, 1);
    let _agent = lab.agent(&of_manifest());
    until_true("announced", || bird.route(PREFIX_V4).is_some());
    proxy.signal(Signal::Stop);
    until_true("withdrawn", || bird.route(PREFIX_V4).is_none());
    proxy.signal(Signal::Cont);
    until_true("announced again", || bird.route(PREFIX_V4).is_some());
    proxy.kill();
    until_true("withdrawn", || bird.route(PREFIX_V4).is_none());
    assert!(lab::status().cause.contains("endpoints"), "{}", lab::status().cause);
}

fn agree() {
    let manifest = pages::read(MANIFEST);
    let service = pages::read(SERVICE);
    assert!(below(&service, "externalIPs:").contains(SERVICE_V4), "{service}");
    assert_eq!(of_manifest().addresses, [SERVICE_V4.parse::<std::net::IpAddr>().unwrap()]);
    let port = HEALTH.split_once(':').unwrap().1;
    assert!(
        service.contains(&format!("healthCheckNodePort: {port}\n"))
            && service.contains("externalTrafficPolicy: Local\n")
    );
    assert!(manifest.contains(&format!("url     = \"http://{HEALTH}/")));
    let unit = pages::read("pkg/systemd/ubique@.service");
    let granted = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).unwrap().replace("CAP_", "");
    let added: Vec<String> =
        below(&manifest, "add:").lines().map(|line| line.trim_start_matches("- ").to_owned()).collect();
    let without_sessions = granted.trim_end_matches(" BPF PERFMON");
    assert_eq!(
        added.join(" "),
        without_sessions,
        "the capabilities are those of the unit, for a service without [sessions]"
    );
    assert_eq!(below(&manifest, "drop:"), "- ALL\n");
    assert!(
        !manifest.contains("kind: Role") && !manifest.contains("kind: ClusterRole"),
        "it asks the API server nothing"
    );
}
