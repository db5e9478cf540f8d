//! Other agents, each at a site in the place of ubique: `bench/NAME-site`, which the lab starts (`[rehearse] agent`).
//!
//! They come from PyPI, in the versions of `bench/peers.txt`, into a virtual environment below `target`. Only a benchmark
//! does that, never a test.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{self, installed, root};

/// The pinned packages, below the root of the workspace.
const PACKAGES: &str = "bench/peers.txt";

/// PyPI package, how the peer is called, and what of Debian it needs.
const PEERS: [(&str, &str, &[&str]); 3] = [
    ("exabgp", "ExaBGP", &["dig"]),
    ("anycast-healthchecker", "anycast-healthchecker", &["dig", "bird"]),
    ("anycastd", "anycastd", &["/usr/lib/frr/bgpd"]),
];

/// An agent to measure beside.
pub(super) struct Peer {
    /// Name and version.
    pub name: String,
    /// What starts it at a site, below the root of the workspace.
    pub agent: String,
    /// The virtual environment it is in.
    pub venv: String,
}

/// Those that can run here; why another one cannot is said on stderr.
pub(super) fn peers() -> Result<Vec<Peer>, String> {
    let packages = fs::read_to_string(root().join(PACKAGES)).map_err(|e| format!("{PACKAGES}: {e}"))?;
    let venv = root().join("target/bench/peers");
    if let Err(error) = install(&venv, &packages) {
        eprintln!("peers: {error}; no rows with other agents");
        return Ok(vec![]);
    }
    let mut peers = Vec::new();
    for (package, name, needs) in PEERS {
        if let Some(missing) = needs.iter().find(|program| !installed(program)) {
            eprintln!("peers: {name} needs {missing}: cargo xtask setup; no rows with it");
            continue;
        }
        let version = packages.lines().find_map(|line| line.strip_prefix(package)?.strip_prefix("=="));
        let version = version.ok_or_else(|| format!("{PACKAGES} has no {package}"))?;
        let (agent, venv) = (format!("bench/{package}-site"), venv.display().to_string());
        peers.push(Peer { name: format!("{name} {version}"), agent, venv });
    }
    Ok(peers)
}

/// Makes the environment anew unless it holds these packages already.
fn install(venv: &Path, packages: &str) -> Result<(), String> {
    let done: PathBuf = venv.join("packages.txt");
    if fs::read_to_string(&done).is_ok_and(|have| have == packages) {
        return Ok(());
    }
    command::run("python3", &["-m", "venv", "--clear", &venv.display().to_string()])?;
    command::run(venv.join("bin/pip"), &["install", "--quiet", "--no-deps", "--requirement", PACKAGES])?;
    fs::write(&done, packages).map_err(|e| format!("{}: {e}", done.display()))
}
