//! MPTCP (RFC 8684): clients learn the site's own addresses and stay with it by themselves, whatever becomes of the route.
//!
//! The kernel does all of it once it is told to: which addresses it signals (ADD_ADDR), and that clients are not to open further
//! subflows to the address they connected to, which is that of all sites (the C flag, §3.1). Servers open their sockets with
//! IPPROTO_MPTCP; other connections notice nothing.
//!
//! What was told stays when the agent ends. A small file beside the admin socket says what a successor may take back.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ubique_sys::mptcp::PathManager;

use crate::state::replace_file;

const SWITCHES: &str = "/proc/sys/net/mptcp";
/// MPTCP at all: 1.
const ENABLED: &str = "enabled";
/// Whether clients may open subflows to the address they connected to: 0 sets the C flag.
const JOIN_INITIAL: &str = "allow_join_initial_addr_port";

/// Where what was told is written down.
fn record(life: &Path) -> PathBuf {
    life.with_extension("mptcp")
}

/// Has the kernel tell clients of these addresses.
///
/// # Errors
/// In words: why it does not.
pub(super) fn set_up(unicast: &[IpAddr], life: &Path) -> Result<(), String> {
    let switch = |name: &str| fs::read_to_string(format!("{SWITCHES}/{name}"));
    if switch(ENABLED).map_err(|_| "this kernel has no MPTCP (CONFIG_MPTCP)".to_owned())?.trim() == "0" {
        return Err("net.mptcp.enabled is 0: sysctl -w net.mptcp.enabled=1, and in /etc/sysctl.d".to_owned());
    }
    let told = tell(unicast, life).map_err(|error| format!("the kernel cannot be told of addresses: {error}"));
    match switch(JOIN_INITIAL) {
        Ok(value) if value.trim() == "0" => {}
        Ok(_) => fs::write(format!("{SWITCHES}/{JOIN_INITIAL}"), "0").map_err(|error| {
            format!(
                "net.mptcp.{JOIN_INITIAL} is 1, so that clients open subflows to the service address, and it cannot be set ({error}): \
                 sysctl -w net.mptcp.{JOIN_INITIAL}=0, and in /etc/sysctl.d"
            )
        })?,
        Err(_) => return Err(format!("this kernel has no net.mptcp.{JOIN_INITIAL} (Linux 5.14 has)")),
    }
    told
}

fn tell(unicast: &[IpAddr], life: &Path) -> io::Result<()> {
    let mut manager = PathManager::open()?;
    let known = manager.endpoints()?;
    let missing: Vec<IpAddr> =
        unicast.iter().copied().filter(|address| known.iter().all(|endpoint| endpoint.address != *address)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    // Written first: after a crash at any instruction it names whatever may be there.
    let mut ours = read(life);
    ours.extend(&missing);
    ours.sort_unstable();
    ours.dedup();
    replace_file(&record(life), &serde_json::to_vec(&ours)?)?;
    for address in missing {
        manager.signal(address)?;
    }
    Ok(())
}

fn read(life: &Path) -> Vec<IpAddr> {
    let text = fs::read(record(life)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Takes back what an agent with this `life` told; clients that know the addresses are told, too.
pub(crate) fn take_back(life: &Path) -> io::Result<Vec<IpAddr>> {
    let ours = read(life);
    let mut taken = Vec::new();
    if !ours.is_empty() {
        let mut manager = PathManager::open()?;
        for endpoint in
            manager.endpoints()?.iter().filter(|endpoint| endpoint.signal && ours.contains(&endpoint.address))
        {
            manager.remove(endpoint)?;
            taken.push(endpoint.address);
        }
        fs::remove_file(record(life))?;
    }
    Ok(taken)
}
