//! Packages the tests need: independent implementations to talk to.

use std::path::Path;

use crate::command;

/// Program → Debian package, for everything a test or a benchmark starts. Two packages bring a `bgpd`, hence the whole path.
const PACKAGES: &[(&str, &str)] = &[
    ("bird", "bird2"),
    ("/usr/lib/frr/bgpd", "frr"),
    ("gobgpd", "gobgpd"),
    ("/usr/sbin/bgpd", "openbgpd"),
    ("exabgp", "exabgp"),
    ("nsd", "nsd"),
    ("faketime", "faketime"),
    ("knotd", "knot"),
    ("unbound", "unbound"),
    ("nginx", "nginx-light"),
    ("chronyd", "chrony"),
    ("ip", "iproute2"),
    ("memcached", "memcached"),
    ("iperf3", "iperf3"),
    ("dig", "dnsutils"),
    ("openssl", "openssl"),
    ("tar", "tar"),
    ("tshark", "tshark"),
    ("bgpdump", "bgpdump"),
    ("/usr/sbin/pmbmpd", "pmacct"),
    ("stress-ng", "stress-ng"),
    ("promtool", "prometheus"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("systemd-analyze", "systemd"),
    ("nft", "nftables"),
    ("debootstrap", "debootstrap"),
    ("mandoc", "mandoc"),
    ("groff", "groff-base"),
];

/// The same for what builds the data plane; without it, it is not built.
const BUILDERS: &[(&str, &str)] =
    &[("clang", "clang"), ("make", "make"), ("pkg-config", "pkg-config"), (LIBELF, "libelf-dev"), (ZLIB, "zlib1g-dev")];

/// The browser: 95 MB, and on a bare machine 140 MB of libraries. Without it the tests of HTTP/3 are skipped, and the others have curl alone.
const BROWSERS: &[(&str, &str)] = &[("chromium", "chromium")];

/// Files of what the data plane is linked with.
const LIBELF: &str = "/usr/include/libelf.h";
const ZLIB: &str = "/usr/include/zlib.h";

/// Arguments for cargo that build the data plane, where its tools are.
pub fn data_plane() -> &'static [&'static str] {
    if BUILDERS.iter().all(|(tool, _)| command::installed(tool)) {
        &["--features", "ubique-edge/bpf,ubique-node/sessions,ubique/sessions"]
    } else {
        &[]
    }
}

/// Installs what is missing. Not root or not Debian: says what to do; tests that lack a program skip with a clear line.
pub fn run() -> Result<(), String> {
    install(PACKAGES)?;
    if let Err(why) = install(BUILDERS) {
        eprintln!("setup: {why}: the data plane is not built, and its tests are skipped");
    }
    if let Err(why) = install(BROWSERS) {
        eprintln!("setup: {why}: the tests with a browser are skipped");
    }
    Ok(())
}

fn install(packages: &[(&str, &'static str)]) -> Result<(), String> {
    let mut missing: Vec<&str> =
        packages.iter().filter(|(program, _)| !command::installed(program)).map(|&(_, package)| package).collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !Path::new("/usr/bin/apt-get").exists() {
        eprintln!("setup: not a Debian system; tests that need {list} will be skipped");
        return Ok(());
    }
    if !is_root() {
        eprintln!("setup: run `sudo apt-get install {list}`; until then the tests that need them are skipped");
        return Ok(());
    }
    command::run("apt-get", &["update", "-qq"])?;
    // Tests start their daemons themselves. At run level 1 the packages' own scripts start none.
    let mut arguments = vec!["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "install", "-y", "-qq"];
    arguments.push("--no-install-recommends");
    arguments.extend(&missing);
    command::run("env", &arguments)
}

/// Effective user id 0, read from `/proc` so that no unsafe code is needed.
fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|ids| ids.split_whitespace().nth(1).map(|id| id == "0"))
        .unwrap_or(false)
}
