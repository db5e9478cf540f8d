//! The service addresses on the loopback of the site.

use std::io;
use std::net::IpAddr;

use ubique_model::IpNet;
use ubique_sys::netlink::Netlink;

/// Where service addresses live.
const INTERFACE: &str = "lo";

/// The service addresses and who put them there.
pub(super) struct Addresses {
    netlink: Netlink,
    index: u32,
    all: Vec<IpNet>,
    /// Those that we have put there: all others stay at the end.
    added: Vec<IpNet>,
    /// We want them to be there.
    wanted: bool,
}

/// An address as a host route: /32 or /128.
pub(super) fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

impl Addresses {
    pub(super) fn new(addresses: &[IpAddr]) -> io::Result<Addresses> {
        let mut netlink = Netlink::open()?;
        let index = netlink.link_index(INTERFACE)?;
        let all = addresses.iter().copied().map(host).collect();
        Ok(Addresses { netlink, index, all, added: Vec::new(), wanted: false })
    }

    /// All of them, as host routes.
    pub(super) fn all(&self) -> &[IpNet] {
        &self.all
    }

    /// Those that are there now, whoever put them there.
    pub(super) fn present(&mut self) -> io::Result<Vec<IpNet>> {
        let there = self.netlink.addresses(self.index)?;
        Ok(self.all.iter().copied().filter(|a| there.iter().any(|t| t.addr() == a.addr())).collect())
    }

    /// Takes what an earlier agent has put there, and is `present` still, for our own.
    pub(super) fn inherit(&mut self, added: &[IpNet], present: &[IpNet]) {
        self.added.extend(added.iter().filter(|a| present.contains(a)));
    }

    /// Those that we have put there.
    pub(super) fn added(&self) -> &[IpNet] {
        &self.added
    }

    /// Index of the interface, to know its events by.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Adds all; returns those that were there already.
    pub(super) fn add(&mut self) -> io::Result<Vec<IpNet>> {
        self.wanted = true;
        for &address in &self.all {
            if self.netlink.add_address(self.index, address)? {
                self.added.push(address);
            }
        }
        Ok(self.all.iter().copied().filter(|a| !self.added.contains(a)).collect())
    }

    /// Whether it should be there.
    pub(super) fn wants(&self, address: &IpNet) -> bool {
        self.wanted && self.all.contains(address)
    }

    /// Adds those that somebody has removed; returns them.
    pub(super) fn restore(&mut self) -> io::Result<Vec<IpNet>> {
        let mut restored = Vec::new();
        if self.wanted {
            for &address in &self.all {
                if self.netlink.add_address(self.index, address)? {
                    restored.push(address);
                }
            }
        }
        Ok(restored)
    }

    /// Removes those that we added. One that cannot be removed does not keep the others.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.wanted = false;
        let mut end = Ok(());
        for address in std::mem::take(&mut self.added) {
            if let Err(error) = self.netlink.delete_address(self.index, address) {
                end = Err(error);
            }
        }
        end
    }
}
