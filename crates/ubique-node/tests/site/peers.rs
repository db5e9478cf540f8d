//! Each kind of check against the daemon that people run: up, a wrong answer, down.
//!
//! Checks are written as in a service file. The daemons ask nobody and are asked by nobody else: they answer on the loopback of
//! the site.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use ubique_model::service::Service;
use ubique_sys::process::Signal;

use crate::lab::{self, Lab, Process, start, try_status, until_true};
use crate::runner::Test;

const NSD: &str = "/usr/sbin/nsd";
const UNBOUND: &str = "/usr/sbin/unbound";
const NGINX: &str = "/usr/sbin/nginx";
const CHRONYD: &str = "/usr/sbin/chronyd";
const MEMCACHED: &str = "/usr/bin/memcached";
const OPENSSL: &str = "/usr/bin/openssl";

pub const TESTS: &[Test] = &[
    Test { name: "dns_checks_judge_nsd", needs: &[NSD], run: nsd },
    Test { name: "dns_checks_over_tls_and_https_judge_unbound", needs: &[UNBOUND, OPENSSL], run: unbound },
    Test { name: "http_and_tls_checks_judge_nginx", needs: &[NGINX, OPENSSL], run: nginx },
    Test { name: "ntp_checks_judge_chrony", needs: &[CHRONYD], run: chrony },
    Test { name: "udp_and_tcp_checks_judge_memcached", needs: &[MEMCACHED], run: memcached },
    Test { name: "systemd_checks_judge_control_groups", needs: &[], run: unit },
];

/// A check of a service file: one poll decides.
fn check(name: &str, kind: &str, keys: &str) -> String {
    format!("[[check]]\nname = \"{name}\"\nkind = \"{kind}\"\nevery = \"200ms\"\nfall = 1\nrise = 1\n{keys}\n")
}

/// A site whose agent has these checks.
fn agent(checks: &[String]) -> (Lab, Process) {
    let text = format!(
        "[service]\nname = \"resolver\"\nasn = 64500\nprefixes = [\"198.51.100.0/24\"]\naddresses = [\"198.51.100.53\"]\n\
         {}[[site]]\nname = \"ams\"\nlocation = \"AMS\"\n[[site.upstream]]\nasn = 65000\naddress = \"192.0.2.1\"\n",
        checks.concat()
    );
    let parsed = Service::parse("checks.toml", text.as_bytes());
    let Some(Service { checks, .. }) = parsed.value else { panic!("{:?} in\n{text}", parsed.diagnostics) };
    let lab = Lab::new();
    let agent = lab.agent(&Service { checks, ..lab::service() });
    (lab, agent)
}

/// Waits until all of these checks say so.
fn all(names: &[&str], up: bool, says: &str) {
    let is = |name: &&str, status: &ubique_node::admin::Status| {
        let said = |last: &String| last.contains(says);
        status.checks.iter().any(|c| c.name == *name && c.up == up && c.last_result.as_ref().is_some_and(said))
    };
    until_true(&format!("{names:?} are {}: {says}", if up { "up" } else { "down" }), || {
        try_status().is_some_and(|status| names.iter().all(|name| is(name, &status)))
    });
}

/// In order, with its children.
fn end(mut daemon: Process) {
    daemon.signal(Signal::Term);
    daemon.wait();
}

fn nsd() {
    let dns = |name: &str, transport: &str| {
        let keys =
            "target = \"127.0.0.1:53\"\nquery = \"www.example.com A\"\nanswer = \"192.0.2.80\"\nflags = [\"aa\"]";
        check(name, "dns", &format!("{keys}\ntransport = \"{transport}\""))
    };
    let (lab, _agent) = agent(&[dns("udp", "udp"), dns("tcp", "tcp")]);
    let both = ["udp", "tcp"];
    let nsd = |records: Option<&str>| {
        let zone = |records| {
            format!("$ORIGIN example.com.\n@ 60 SOA ns hostmaster 1 3600 600 86400 60\n@ 60 NS ns\n{records}")
        };
        // A zone without a file is not served: SERVFAIL.
        let _ = fs::remove_file("/run/example.com.zone");
        if let Some(records) = records {
            fs::write("/run/example.com.zone", zone(records)).unwrap();
        }
        let configuration = "server:\n ip-address: 127.0.0.1\n server-count: 1\n username: \"\"\n zonesdir: \"/run\"\n \
             pidfile: \"\"\n database: \"\"\n xfrdfile: \"\"\n zonelistfile: \"/run/nsd.list\"\n xfrdir: \"/run\"\n\
             remote-control:\n control-enable: no\nzone:\n name: example.com\n zonefile: example.com.zone\n";
        fs::write("/run/nsd.conf", configuration).unwrap();
        start(&lab.site, "nsd", Path::new(NSD), &["-d", "-c", "/run/nsd.conf"])
    };
    for (records, up, says) in [
        (Some("ns 60 A 192.0.2.53\nwww 60 A 192.0.2.80\n"), true, "ok"),
        (Some("ns 60 A 192.0.2.53\nwww 60 A 192.0.2.81\n"), false, "answer is 192.0.2.81, expected \"192.0.2.80\""),
        (None, false, "SERVFAIL, expected NOERROR"),
    ] {
        let daemon = nsd(records);
        all(&both, up, says);
        end(daemon);
        all(&both, false, "connection refused");
    }
}

fn openssl(arguments: &str) {
    let mut command = Command::new(OPENSSL);
    let output = command.args(arguments.split(' ')).current_dir("/run").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Certificates for 127.0.0.1 and `www.example.com`, of an authority in `/run/ca.pem`: `right`, and one that has `ended`.
fn certificates() {
    const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    const CONFIGURATION: &str = "[ca]\ndefault_ca=c\n[c]\nnew_certs_dir=.\ndatabase=index.txt\nserial=serial\npolicy=p\n\
        default_md=sha256\nprivate_key=ca.key\ncertificate=ca.pem\nunique_subject=no\n[p]\ncommonName=supplied\n";
    openssl(&format!("req -x509 {KEY} -keyout ca.key -out ca.pem -days 3 -subj /CN=authority"));
    openssl(&format!("req {KEY} -keyout key.pem -out request.pem -subj /CN=server"));
    for (name, text) in [
        ("names", "subjectAltName=DNS:www.example.com,IP:127.0.0.1\n"),
        ("ca.cnf", CONFIGURATION),
        ("index.txt", ""),
        ("serial", "01\n"),
    ] {
        fs::write(Path::new("/run").join(name), text).unwrap();
    }
    for (name, dates) in [("right", "-days 2"), ("ended", "-startdate 20200101000000Z -enddate 20200201000000Z")] {
        let files = format!("-in request.pem -out {name}.pem -extfile names");
        openssl(&format!("ca -config ca.cnf -batch -notext {files} {dates}"));
    }
}

fn unbound() {
    certificates();
    let dns = |name: &str, transport: &str, port: u16| {
        let keys = "query = \"www.example.com A\"\nanswer = \"192.0.2.80\"\nca-file = \"/run/ca.pem\"";
        check(name, "dns", &format!("{keys}\ntransport = \"{transport}\"\ntarget = \"127.0.0.1:{port}\""))
    };
    let (lab, _agent) = agent(&[dns("dot", "tls", 853), dns("doh", "https", 443)]);
    let both = ["dot", "doh"];
    let unbound = |certificate: &str, zone: &str| {
        let configuration = format!(
            "server:\n username: \"\"\n chroot: \"\"\n directory: \"/run\"\n pidfile: \"\"\n use-syslog: no\n \
             do-daemonize: no\n module-config: \"iterator\"\n interface: 127.0.0.1@853\n interface: 127.0.0.1@443\n \
             tls-port: 853\n https-port: 443\n tls-service-key: /run/key.pem\n tls-service-pem: /run/{certificate}.pem\n\
             remote-control:\n control-enable: no\n{zone}"
        );
        fs::write("/run/unbound.conf", configuration).unwrap();
        start(&lab.site, "unbound", Path::new(UNBOUND), &["-d", "-c", "/run/unbound.conf"])
    };
    let zone = "server:\n local-zone: \"example.com.\" static\n local-data: \"www.example.com. A 192.0.2.80\"\n";
    // Whom it should ask it does not ask (`do-not-query-localhost`).
    let nobody = "forward-zone:\n name: \".\"\n forward-addr: 127.0.0.1@9\n";
    for (certificate, zone, up, says) in [
        ("right", zone, true, "ok"),
        ("right", nobody, false, "SERVFAIL, expected NOERROR"),
        ("ended", zone, false, "expired"),
    ] {
        let daemon = unbound(certificate, zone);
        all(&both, up, says);
        end(daemon);
        all(&both, false, "connection refused");
    }
}

fn nginx() {
    certificates();
    let page = "url = \"https://127.0.0.1/health\"\nhost = \"www.example.com\"\nbody = \"all is well\"";
    let tls = "target = \"127.0.0.1:443\"\ndays-left = 1";
    let ca = |keys: &str| format!("{keys}\nca-file = \"/run/ca.pem\"");
    let (lab, _agent) = agent(&[check("page", "http", &ca(page)), check("certificate", "tls", &ca(tls))]);
    let nginx = |certificate: &str, answer: &str| {
        let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|p| format!("{p}_temp_path /run/{p};\n"));
        let configuration = format!(
            "daemon off; master_process off; user root; pid /run/nginx.pid; error_log stderr;\nevents {{}}\nhttp {{\n\
             access_log off;\n{}server {{ listen 127.0.0.1:443 ssl; ssl_certificate /run/{certificate}.pem;\n\
             ssl_certificate_key /run/key.pem; location /health {{ return {answer}; }} }} }}\n",
            places.concat()
        );
        fs::write("/run/nginx.conf", configuration).unwrap();
        start(&lab.site, "nginx", Path::new(NGINX), &["-p", "/run", "-c", "/run/nginx.conf"])
    };
    for (certificate, answer, page, tls) in [
        ("right", "200 'all is well'", (true, "ok"), (true, "ok")),
        ("right", "503", (false, "status 503, expected 200"), (true, "ok")),
        ("right", "200 'not quite'", (false, "does not contain \"all is well\": not quite"), (true, "ok")),
        ("ended", "200 'all is well'", (false, "expired"), (false, "expired")),
    ] {
        let daemon = nginx(certificate, answer);
        all(&["page"], page.0, page.1);
        all(&["certificate"], tls.0, tls.1);
        end(daemon);
        all(&["page", "certificate"], false, "connection refused");
    }
}

fn chrony() {
    let ntp = check("time", "ntp", "target = \"127.0.0.1:123\"\nstratum = 10\noffset = \"1s\"");
    let (lab, _agent) = agent(&[ntp]);
    let chrony = |local: &str| {
        let configuration = format!(
            "{local}\nallow 127.0.0.0/8\nbindaddress 127.0.0.1\ncmdport 0\nbindcmdaddress /\npidfile /run/chronyd.pid\n"
        );
        fs::write("/run/chrony.conf", configuration).unwrap();
        // -x: it leaves the clock of this machine alone.
        start(&lab.site, "chronyd", Path::new(CHRONYD), &["-x", "-d", "-u", "root", "-f", "/run/chrony.conf"])
    };
    for (local, up, says) in [
        ("local stratum 5", true, "ok"),
        ("local stratum 11", false, "stratum 11, at most 10 allowed"),
        ("", false, "the server's clock is not synchronised"),
    ] {
        let daemon = chrony(local);
        all(&["time"], up, says);
        end(daemon);
        all(&["time"], false, "connection refused");
    }
}

fn memcached() {
    // The frame of memcached's UDP: a number of ours, one datagram; then a line as over TCP.
    let get: String = b"get health\r\n".iter().map(|octet| format!("{octet:02x}")).collect();
    let udp = format!(
        "target = \"127.0.0.1:11211\"\nsend = \"hex:0001000000010000{get}\"\nstarts = \"hex:0001\"\ncontains = \"VALUE health\""
    );
    let tcp = "target = \"127.0.0.1:11211\"";
    let (lab, _agent) = agent(&[check("value", "udp", &udp), check("port", "tcp", tcp)]);
    let arguments = ["-l", "127.0.0.1", "-p", "11211", "-U", "11211", "-u", "root", "-m", "8"];
    let daemon = start(&lab.site, "memcached", Path::new(MEMCACHED), &arguments);
    all(&["port"], true, "ok");
    all(&["value"], false, "answer does not contain what is expected");
    let tell = |line: &[u8], answer: &[u8]| {
        let mut stream = lab.site.run(|| TcpStream::connect("127.0.0.1:11211")).unwrap().unwrap();
        stream.write_all(line).unwrap();
        let mut read = vec![0; answer.len()];
        stream.read_exact(&mut read).unwrap();
        assert_eq!(read, answer);
    };
    tell(b"set health 0 0 2\r\nok\r\n", b"STORED\r\n");
    all(&["value"], true, "ok");
    tell(b"delete health\r\n", b"DELETED\r\n");
    all(&["value"], false, "answer does not contain what is expected");
    end(daemon);
    all(&["value", "port"], false, "connection refused");
}

/// systemd wants to be PID 1 with control groups of its own (`cargo xtask dist --test` boots it so). Here its layout of them
/// stands in a tmpfs; the processes are real.
fn unit() {
    let mount = Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/sys/fs/cgroup"]).status().unwrap();
    assert!(mount.success(), "a tmpfs of the sandbox's own");
    let group = Path::new("/sys/fs/cgroup/system.slice/demo.service");
    let (lab, _agent) = agent(&[check("unit", "systemd", "unit = \"demo.service\"")]);
    all(&["unit"], false, "unit demo.service has no process");
    fs::create_dir_all(group).unwrap();
    let join = |pid: &str| fs::write(group.join("cgroup.procs"), pid).unwrap();
    join("");
    for _ in 0..2 {
        let process = start(&lab.site, "demo", Path::new("/bin/sleep"), &["1000"]);
        join(&format!("{}\n", process.pid()));
        all(&["unit"], true, "ok");
        // Its end empties the group in the kernel's own; the event comes first here, too.
        drop(process);
        all(&["unit"], false, "unit demo.service has no process");
        join("");
    }
}
