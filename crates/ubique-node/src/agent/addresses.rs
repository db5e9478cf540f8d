//! The service addresses on the loopback of the site.

use std::io;
use std::net::IpAddr;

use ubique_model::IpNet;
use ubique_proto::Time;
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
    /// Those that a reload took out of the service, and when they are removed.
    retired: Vec<(IpNet, Time)>,
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
        Ok(Addresses { netlink, index, all, added: Vec::new(), wanted: false, retired: Vec::new() })
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

    /// Takes further ones into the service; they are there when this returns, if the others are.
    ///
    /// # Errors
    /// One cannot be added: none is.
    pub(super) fn extend(&mut self, service: &[IpAddr]) -> io::Result<()> {
        let new: Vec<IpNet> = service.iter().copied().map(host).filter(|a| !self.all.contains(a)).collect();
        let mut put = Vec::new();
        for &address in new.iter().filter(|_| self.wanted) {
            match self.netlink.add_address(self.index, address) {
                Ok(true) => put.push(address),
                Ok(false) => {}
                Err(error) => {
                    // They are nobody's: what cannot be removed either was never asked for.
                    put.into_iter().for_each(|address| drop(self.netlink.delete_address(self.index, address)));
                    return Err(error);
                }
            }
        }
        self.retired.retain(|(address, _)| !new.contains(address));
        self.added.extend(put);
        self.all.extend(new);
        Ok(())
    }

    /// Takes those out of the service that it does not have any more; they are removed at `due`.
    pub(super) fn retire(&mut self, service: &[IpAddr], due: Time) {
        let gone: Vec<IpNet> = self.all.iter().copied().filter(|a| !service.contains(&a.addr())).collect();
        self.all.retain(|address| !gone.contains(address));
        self.retired.extend(gone.into_iter().map(|address| (address, due)));
    }

    /// When the next one is to be removed.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.retired.iter().map(|(_, due)| *due).min()
    }

    /// Removes those that are due, if we added them; returns them.
    pub(super) fn handle_deadline(&mut self, now: Time) -> io::Result<Vec<IpNet>> {
        let (due, later) = self.retired.iter().partition(|(_, due)| *due <= now);
        self.retired = later;
        let due: Vec<(IpNet, Time)> = due;
        let ours: Vec<IpNet> = due.into_iter().map(|(a, _)| a).filter(|a| self.added.contains(a)).collect();
        self.added.retain(|address| !ours.contains(address));
        let mut end = Ok(ours.clone());
        for address in ours {
            if let Err(error) = self.netlink.delete_address(self.index, address) {
                end = Err(error);
            }
        }
        end
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
