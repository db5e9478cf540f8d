//! Where the programs go, and how packets for other sites leave: asked of the kernel, which routes.

use std::io;
use std::net::IpAddr;

use ubique_edge::NextHop;
use ubique_sys::netlink::{Link, Netlink};

use super::Setup;

/// Index of the loopback interface, in every namespace.
const LOOPBACK: u32 = 1;

/// The interfaces that the programs belong onto and that are there, each once: index and name.
pub(super) fn interfaces(netlink: &mut Netlink, links: &[Link], setup: &Setup) -> Vec<(u32, String)> {
    let named = |name: &str| links.iter().find(|link| link.name == name);
    let configured = &setup.sessions.interfaces;
    let mut found: Vec<&Link> = Vec::new();
    if configured.is_empty() {
        for (address, interface) in &setup.upstreams {
            let link = match interface {
                Some(name) => named(name),
                None => {
                    let path = netlink.path(*address, None).ok();
                    path.and_then(|path| links.iter().find(|link| link.index == path.interface))
                }
            };
            found.extend(link);
        }
    } else {
        found.extend(configured.iter().filter_map(|name| named(name)));
    }
    found.retain(|link| link.index != LOOPBACK);
    let mut found: Vec<(u32, String)> = found.into_iter().map(|link| (link.index, link.name.clone())).collect();
    found.sort();
    found.dedup();
    found
}

/// Why packets cannot leave.
#[derive(Debug)]
pub(super) struct NoWay {
    /// In words.
    pub why: String,
    /// The next router's hardware address is not known: something must be sent for the kernel to ask for it.
    pub is_unresolved: bool,
}

impl From<String> for NoWay {
    fn from(why: String) -> NoWay {
        NoWay { why, is_unresolved: false }
    }
}

/// How packets leave for `to`.
///
/// # Errors
/// Why they cannot, now.
pub(super) fn next_hop(netlink: &mut Netlink, links: &[Link], to: IpAddr, source: IpAddr) -> Result<NextHop, NoWay> {
    let path = netlink.path(to, Some(source)).map_err(|error| error.to_string())?;
    if path.is_local {
        return Err(format!("{to} is an address of this machine").into());
    }
    let link =
        links.iter().find(|link| link.index == path.interface).ok_or_else(|| "its interface is gone".to_owned())?;
    let own = link.hardware_address.ok_or_else(|| format!("{} has no Ethernet address", link.name))?;
    let router = path.gateway.unwrap_or(to);
    let destination_mac = match link.no_arp {
        true => own,
        false => known(netlink.neighbour(link.index, router), router)?,
    };
    Ok(NextHop { interface: link.index, source_mac: own, destination_mac, source })
}

fn known(answer: io::Result<Option<[u8; 6]>>, router: IpAddr) -> Result<[u8; 6], NoWay> {
    let unknown = || NoWay { why: format!("the hardware address of {router} is not known"), is_unresolved: true };
    answer.map_err(|error| error.to_string())?.ok_or_else(unknown)
}
