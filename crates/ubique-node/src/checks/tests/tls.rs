//! Checks over TLS against `openssl s_server`: names, dates, authorities.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use ubique_model::check::Roots;

use super::*;

const OPENSSL: &str = "/usr/bin/openssl";

/// A server of OpenSSL with a certificate of an authority of its own, both in a directory of their own.
struct Server {
    child: Child,
    directory: PathBuf,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn openssl(directory: &Path, arguments: &str) {
    let words = arguments.split(' ').filter(|w| !w.is_empty());
    let output = Command::new(OPENSSL).args(words).current_dir(directory).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Server {
    /// Valid for `dns.example` and 127.0.0.1 for so many days (negative: ended).
    fn start(name: &str, days: i64, extra: &str) -> Option<Server> {
        if !Path::new(OPENSSL).exists() {
            eprintln!("skipped: needs {OPENSSL}");
            return None;
        }
        let directory = temporary(name);
        std::fs::create_dir_all(&directory).unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&directory, &format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 30"));
        openssl(&directory, &format!("req {key} -keyout key.pem -out request.pem -subj /CN=server"));
        let san = "subjectAltName=DNS:dns.example,IP:127.0.0.1\n";
        std::fs::write(directory.join("san"), san).unwrap();
        let (start, end) =
            if days < 0 { ("20200101000000Z", "20200201000000Z".to_owned()) } else { ("20200101000000Z", until(days)) };
        std::fs::write(directory.join("index.txt"), "").unwrap();
        std::fs::write(directory.join("serial"), "01\n").unwrap();
        let config = "[ca]\ndefault_ca=c\n[c]\nnew_certs_dir=.\ndatabase=index.txt\nserial=serial\npolicy=p\n\
                      default_md=sha256\nprivate_key=ca.key\ncertificate=ca.pem\nunique_subject=no\n[p]\ncommonName=supplied\n";
        std::fs::write(directory.join("ca.cnf"), config).unwrap();
        let sign = format!(
            "ca -config ca.cnf -batch -notext -in request.pem -out cert.pem -extfile san -startdate {start} -enddate {end}"
        );
        openssl(&directory, &sign);
        let address = closed_port();
        let serve = format!("s_server -accept {address} -cert cert.pem -key key.pem -quiet {extra}");
        let child = Command::new(OPENSSL)
            .args(serve.split(' ').filter(|w| !w.is_empty()))
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { child, directory, address };
        let start = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(start.elapsed() < LIMIT, "openssl listens");
            std::thread::yield_now();
        }
        Some(server)
    }

    fn trust(&self, name: Option<&str>) -> Trust {
        Trust { server_name: name.map(str::to_owned), roots: Roots::File(self.directory.join("ca.pem")) }
    }

    fn check(&self, trust: Trust, days_left: u32) -> Result<(), String> {
        poll(&mut checker(&CheckKind::Tls { target: self.address.into(), trust, days_left }))
    }
}

/// The end of a certificate that is valid for so many days and an hour from now.
fn until(days: i64) -> String {
    let seconds = crate::clock::unix_time() + days * certificate::DAY_S + 3600;
    let output = Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%Y%m%d%H%M%SZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn certificates_are_judged_by_authority_name_and_date() {
    let Some(server) = Server::start("tls", 10, "") else { return };
    assert_eq!(server.check(server.trust(Some("dns.example")), 10), Ok(()));
    assert_eq!(server.check(server.trust(None), 0), Ok(()), "by its address");
    let soon = "the certificate expires in 10 days, at least 11 expected";
    assert_eq!(server.check(server.trust(None), 11), Err(soon.into()));
    let error = server.check(server.trust(Some("other.example")), 0).unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
    let insecure = Trust { server_name: Some("other.example".into()), roots: Roots::Insecure };
    assert_eq!(server.check(insecure.clone(), 10), Ok(()), "the date still counts");
    assert_eq!(server.check(insecure, 11), Err(soon.into()));
    if let Ok(mut check) =
        Checker::new(&CheckKind::Tls { target: server.address.into(), trust: Trust::default(), days_left: 0 }, &[])
    {
        let error = poll(&mut check).unwrap_err();
        assert!(error.contains("UnknownIssuer"), "{error}");
    }
}

#[test]
fn an_expired_certificate_fails() {
    let Some(server) = Server::start("expired", -1, "") else { return };
    let error = server.check(server.trust(None), 0).unwrap_err();
    assert!(error.contains("expired"), "{error}");
    let insecure = Trust { roots: Roots::Insecure, ..Trust::default() };
    assert_eq!(server.check(insecure, 0), Ok(()));
}

#[test]
fn https_reads_pages_and_wants_the_name() {
    let Some(server) = Server::start("https", 10, "-WWW") else { return };
    std::fs::write(server.directory.join("health"), "all is well").unwrap();
    let spec = |name: &str| Http {
        tls: true,
        host: Some(name.into()),
        path: "/health".into(),
        body: vec!["well".into()],
        trust: server.trust(None),
        ..http_spec(server.address)
    };
    assert_eq!(poll(&mut checker(&CheckKind::Http(spec("dns.example:8443")))), Ok(()));
    let error = poll(&mut checker(&CheckKind::Http(spec("other.example")))).unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}

#[test]
fn what_is_not_tls_fails_with_a_cause() {
    let garbage = tcp_server(|_| b"SSH-2.0-OpenSSH\r\n".to_vec());
    let early = tcp_server(|_| Vec::new());
    let alert = tcp_server(|_| vec![21, 3, 3, 0, 2, 2, 40]);
    for server in [garbage, early, alert] {
        let trust = Trust { roots: Roots::Insecure, ..Trust::default() };
        let error = poll(&mut checker(&CheckKind::Tls { target: server.into(), trust, days_left: 0 })).unwrap_err();
        assert!(error.starts_with("TLS: ") && error.len() < 300, "{error}");
    }
}

#[test]
fn authorities_that_are_none_are_refused_when_the_check_is_set_up() {
    let path = temporary("no-ca.pem");
    let set_up = || {
        let trust = Trust { server_name: None, roots: Roots::File(path.clone()) };
        Checker::new(&CheckKind::Tls { target: closed_port().into(), trust, days_left: 0 }, &[]).err()
    };
    assert!(set_up().unwrap().contains("No such file"));
    std::fs::write(&path, "nothing\n").unwrap();
    assert!(set_up().unwrap().contains("no certificate in it"));
    std::fs::remove_file(path).unwrap();
}
