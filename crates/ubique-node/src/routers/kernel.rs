//! The kernel's routing table of one router.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use ubique_model::Prefix;
use ubique_sys::netlink::{Netlink, RTPROT_BGP, Route};
use ubique_sys::netns::NetNs;

/// Routes to install in one namespace.
pub(super) struct Kernel {
    netlink: Netlink,
    /// Not yet applied: the last wish for each prefix.
    changes: BTreeMap<Prefix, Option<IpAddr>>,
}

fn route(prefix: Prefix, gateway: Option<IpAddr>) -> Route {
    Route {
        destination: prefix,
        gateway,
        interface: None,
        protocol: RTPROT_BGP,
        metric: None,
        blackhole: false,
        source: None,
    }
}

impl Kernel {
    pub(super) fn open(namespace: &NetNs) -> io::Result<Kernel> {
        Ok(Kernel { netlink: Netlink::open_in(namespace)?, changes: BTreeMap::new() })
    }

    /// The route of a prefix shall go by this gateway, or away.
    pub(super) fn set(&mut self, prefix: Prefix, gateway: Option<IpAddr>) {
        self.changes.insert(prefix, gateway);
    }

    /// Carries out what was [`Kernel::set`], in one go.
    pub(super) fn apply(&mut self) -> io::Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let changes = std::mem::take(&mut self.changes);
        let mut batch = self.netlink.batch();
        for (&prefix, &gateway) in &changes {
            match gateway {
                Some(_) => batch.replace_route(&route(prefix, gateway))?,
                None => batch.delete_route(&route(prefix, None))?,
            }
        }
        match batch.commit() {
            Ok(()) => Ok(()),
            Err(_) => self.one_by_one(&changes),
        }
    }

    /// After a refusal: a route that cannot be replaced must not go on leading where it led before.
    fn one_by_one(&mut self, changes: &BTreeMap<Prefix, Option<IpAddr>>) -> io::Result<()> {
        let mut end = Ok(());
        for (&prefix, &gateway) in changes {
            let done = match gateway {
                Some(_) => self.netlink.replace_route(&route(prefix, gateway)),
                None => Ok(()),
            };
            if gateway.is_none() || done.is_err() {
                let removed = self.netlink.delete_route(&route(prefix, None)).map(drop);
                end = end.and(done).and(removed);
            }
        }
        end
    }
}
