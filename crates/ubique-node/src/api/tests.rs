//! The API as clients meet it: curl and OpenSSL with right, wrong and no certificates.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A directory with authorities, certificates and keys; removed at the end.
struct Pki(PathBuf);

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Pki {
    /// Two authorities: `ca` with a server and clients, `other` that nobody trusts.
    fn new(name: &str) -> Pki {
        let pki = Pki(std::env::temp_dir().join(format!("ubique-api-{}-{name}", std::process::id())));
        fs::create_dir_all(&pki.0).unwrap();
        pki.authority("ca");
        pki.authority("other");
        pki.certificate("server", "ca", "localhost", "IP:127.0.0.1");
        pki.certificate("ops", "ca", "ops", "DNS:ops.example.net");
        pki.certificate("reader", "ca", "reader", "DNS:reader.example.net");
        pki.certificate("stranger", "other", "ops", "DNS:ops.example.net");
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn openssl(&self, arguments: &str) {
        let run = Command::new("openssl").args(arguments.split(' ')).current_dir(&self.0).output().unwrap();
        assert!(run.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&run.stderr));
    }

    fn authority(&self, name: &str) {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        self.openssl(&format!("req -x509 {key} -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}"));
    }

    fn certificate(&self, name: &str, authority: &str, common_name: &str, alternative: &str) {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        self.openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /O=test/CN={common_name}"));
        fs::write(self.path("ext"), format!("subjectAltName={alternative}\n")).unwrap();
        let signed = format!("-CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 2 -extfile ext");
        self.openssl(&format!("x509 -req -in {name}.csr -out {name}.pem {signed}"));
    }

    fn settings(&self, clients: &[&str]) -> ApiSettings {
        ApiSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], crate::ports::unused())),
            certificate: self.path("server.pem"),
            key_file: self.path("server.key"),
            client_ca: self.path("ca.pem"),
            clients: clients.iter().map(|c| (*c).to_owned()).collect(),
        }
    }
}

/// Says what it was asked and by whom.
async fn echo(line: String, caller: Rc<Caller>) -> Result<String, Refusal> {
    if line.contains("drain") {
        caller.permit()?;
    }
    Ok(json!({ "asked": serde_json::from_str::<Value>(&line).unwrap(), "who": caller.who() }).to_string())
}

/// Serves in a thread of its own until the test ends.
fn start(settings: ApiSettings) -> mpsc::Sender<()> {
    let (end, ended) = mpsc::channel();
    let address = settings.listen;
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            tokio::task::spawn_local(serve(settings, echo));
            while ended.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    });
    let start = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(start.elapsed() < PATIENCE, "nobody listens");
        std::thread::sleep(Duration::from_millis(5));
    }
    end
}

/// Status code and body; code 0: no HTTP at all.
fn curl(pki: &Pki, settings: &ApiSettings, client: Option<&str>, path: &str, extra: &[&str]) -> (u16, Value) {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20", "-w", "\n%{http_code}", "--cacert"]).arg(pki.path("ca.pem"));
    if let Some(name) = client {
        command.arg("--cert").arg(pki.path(&format!("{name}.pem")));
        command.arg("--key").arg(pki.path(&format!("{name}.key")));
    }
    let output = command.args(extra).arg(format!("https://{}{path}", settings.listen)).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, code) = text.rsplit_once('\n').unwrap();
    (code.parse().unwrap_or(0), serde_json::from_str(body).unwrap_or(Value::Null))
}

fn lacks(program: &str) -> bool {
    let lacks = Command::new(program).arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err();
    if lacks {
        eprintln!("skipped: no {program} here");
    }
    lacks
}

const POST: &[&str] = &["-H", "Content-Type: application/json", "-d"];

#[test]
fn only_clients_with_a_certificate_of_ours_are_answered() {
    if lacks("openssl") || lacks("curl") {
        return;
    }
    let pki = Pki::new("clients");
    let settings = pki.settings(&["ops"]);
    let _server = start(settings.clone());
    let ask = |client, path: &str, extra: &[&str]| curl(&pki, &settings, client, path, extra);
    assert_eq!(ask(None, "/v1/status", &[]).0, 0, "without a certificate");
    assert_eq!(ask(Some("stranger"), "/v1/status", &[]).0, 0, "of an authority that is not ours");
    assert_eq!(ask(Some("ops"), "/v1/status", &["--tls-max", "1.2"]).0, 0, "too old a TLS");
    let (code, seen) = ask(Some("ops"), "/v1/status", &[]);
    assert_eq!((code, seen), (200, json!({ "asked": { "query": "status" }, "who": "CN=ops" })));
    let drain = [POST, &[r#"{"reason":"disks"}"#]].concat();
    let (code, seen) = ask(Some("ops"), "/v1/drain", &drain);
    let asked = json!({ "asked": { "query": "drain", "reason": "disks" }, "who": "CN=ops" });
    assert_eq!((code, seen), (200, asked));
    let (code, seen) = ask(Some("reader"), "/v1/drain", &drain);
    assert_eq!(code, 403);
    assert!(seen["error"].as_str().unwrap().starts_with("CN=reader may read but not act"), "{seen}");
    assert_eq!(ask(Some("reader"), "/v1/status", &[]).0, 200);
}

#[test]
fn requests_that_are_none_get_an_answer_that_says_so() {
    if lacks("openssl") || lacks("curl") {
        return;
    }
    let pki = Pki::new("requests");
    let settings = pki.settings(&[]);
    let _server = start(settings.clone());
    let ask = |path: &str, extra: &[&str]| curl(&pki, &settings, Some("reader"), path, extra);
    let (code, seen) = ask("/v1/routes?prefix=198.51.100.0%2F24&peer=192.0.2.1", &[]);
    let asked = json!({ "query": "routes", "prefix": "198.51.100.0/24", "peer": "192.0.2.1" });
    assert_eq!((code, &seen["asked"]), (200, &asked));
    let (code, seen) = ask("/v1/openapi.json", &[]);
    assert_eq!((code, &seen["openapi"]), (200, &json!("3.1.0")));
    let large = format!("{{\"reason\":\"{}\"}}", "x".repeat(REQUEST_BYTES));
    for (path, extra, expected) in [
        ("/v1/nothing", vec![], 404),
        ("/v1/undrain", vec![], 405),
        ("/v1/status", [POST, &["{}"]].concat(), 405),
        ("/v1/openapi.json", [POST, &["{}"]].concat(), 405),
        ("/v1/drain", vec!["-d", "reason=disks"], 415),
        ("/v1/drain", [POST, &["[]"]].concat(), 400),
        ("/v1/drain", [POST, &[r#"{"query":"undrain"}"#]].concat(), 400),
        ("/v1/drain", [POST, &[large.as_str()]].concat(), 413),
        ("/v1/routes?a=%zz", vec![], 400),
    ] {
        let (code, seen) = ask(path, &extra);
        assert_eq!(code, expected, "{path} {seen}");
        assert!(seen["error"].is_string(), "{path} {seen}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::write(to, fs::read(from).unwrap()).unwrap();
}

/// Renewed certificates are used without a restart; wrong ones are not.
#[test]
fn changed_certificates_are_read_again() {
    if lacks("openssl") || lacks("curl") {
        return;
    }
    let pki = Pki::new("renewal");
    let settings = pki.settings(&[]);
    fs::remove_file(&settings.certificate).unwrap();
    let _server = start(settings.clone());
    let code = |client| curl(&pki, &settings, Some(client), "/v1/status", &[]).0;
    assert_eq!(code("ops"), 0, "the certificate is missing");
    pki.certificate("server", "ca", "localhost", "IP:127.0.0.1");
    assert_eq!(code("ops"), 200, "it is there");
    let kept = pki.path("kept.pem");
    copy(&settings.client_ca, &kept);
    fs::write(&settings.client_ca, "nonsense").unwrap();
    // curl checks our certificate with the same file.
    let mut trusted = settings.clone();
    trusted.client_ca = kept.clone();
    let answer = Command::new("curl")
        .args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "--cert"])
        .arg(pki.path("ops.pem"))
        .arg("--key")
        .arg(pki.path("ops.key"))
        .arg(format!("https://{}/v1/status", settings.listen))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(answer.stdout).unwrap(), "200", "the ones before stay");
    copy(&pki.path("other.pem"), &settings.client_ca);
    let stranger = Command::new("curl")
        .args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "--cert"])
        .arg(pki.path("stranger.pem"))
        .arg("--key")
        .arg(pki.path("stranger.key"))
        .arg(format!("https://{}/v1/status", settings.listen))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(stranger.stdout).unwrap(), "200", "another authority");
}

/// Strangers who say nothing hold up nobody who has a certificate.
#[test]
fn a_crowd_of_strangers_keeps_no_client_out() {
    if lacks("openssl") || lacks("curl") {
        return;
    }
    let pki = Pki::new("crowd");
    let settings = pki.settings(&[]);
    let _server = start(settings.clone());
    let crowd: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(settings.listen).unwrap()).collect();
    assert_eq!(curl(&pki, &settings, Some("ops"), "/v1/status", &[]).0, 200);
    drop(crowd);
}

/// OpenSSL sees what is offered.
#[test]
fn openssl_sees_tls_1_3_and_that_a_certificate_is_wanted() {
    if lacks("openssl") {
        return;
    }
    let pki = Pki::new("s_client");
    let settings = pki.settings(&[]);
    let _server = start(settings.clone());
    let output = Command::new("openssl")
        .args(["s_client", "-brief", "-connect", &settings.listen.to_string(), "-CAfile"])
        .arg(pki.path("ca.pem"))
        .arg("-cert")
        .arg(pki.path("ops.pem"))
        .arg("-key")
        .arg(pki.path("ops.key"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let seen = String::from_utf8_lossy(&output.stderr).into_owned();
    for expected in ["Protocol version: TLSv1.3", "Verification: OK", "Requested Signature Algorithms"] {
        assert!(seen.contains(expected), "{expected} not in {seen}");
    }
}
