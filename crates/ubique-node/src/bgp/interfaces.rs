//! Our addresses on the interface of a connection: next hops of what is announced over it.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ubique_model::{IpNet, Prefix};
use ubique_proto::bgp::speaker::Local;
use ubique_sys::netlink::{AddressMonitor, Netlink};

/// The addresses of all interfaces, listed again only after one has changed: whoever calls again and again does not make
/// us list them as often.
#[derive(Default)]
pub(super) struct Interfaces {
    listed: Option<Listed>,
}

struct Listed {
    /// Older than the list.
    monitor: AddressMonitor,
    addresses: Vec<(u32, IpNet)>,
}

impl Interfaces {
    /// Addresses of the interface that has `local`, without those in `service`: anycast addresses are nobody's next hop.
    ///
    /// Falls back to the connection's own address: without netlink a session of one family is as good.
    pub(super) fn local(&mut self, local: SocketAddr, remote: IpAddr, service: &[Prefix]) -> Local {
        let plain = Local::from(local.ip());
        match self.addresses() {
            Ok(addresses) => on_interface(plain, local, remote.to_canonical(), service, addresses),
            Err(error) => {
                tracing::debug!(%error, "cannot list the addresses of interfaces");
                plain
            }
        }
    }

    fn addresses(&mut self) -> io::Result<&[(u32, IpNet)]> {
        // The kernel tells of an address before packets can come to it.
        let listed = match self.listed.take().map(Listed::follow) {
            Some(Ok(listed)) => listed,
            _ => Listed::new()?,
        };
        Ok(&self.listed.insert(listed).addresses)
    }
}

impl Listed {
    fn new() -> io::Result<Listed> {
        let monitor = AddressMonitor::open()?;
        Ok(Listed { monitor, addresses: Netlink::open()?.all_addresses()? })
    }

    fn follow(mut self) -> io::Result<Listed> {
        let mut changed = false;
        while self.monitor.recv()?.is_some() {
            changed = true;
        }
        if changed {
            self.addresses = Netlink::open()?.all_addresses()?;
        }
        Ok(self)
    }
}

fn on_interface(
    plain: Local,
    local: SocketAddr,
    remote: IpAddr,
    service: &[Prefix],
    addresses: &[(u32, IpNet)],
) -> Local {
    let scope = match local {
        SocketAddr::V6(a) => Some(a.scope_id()).filter(|id| *id != 0),
        SocketAddr::V4(_) => None,
    };
    let holder = addresses.iter().find(|(_, a)| a.addr() == plain.address).map(|(index, _)| *index);
    let Some(index) = scope.or(holder) else {
        return plain;
    };
    let here = || addresses.iter().filter(|(i, _)| *i == index).map(|(_, a)| *a);
    let usable = |a: &IpAddr| !a.is_loopback() && !service.iter().any(|p| p.contains(a));
    let ipv4 = here().map(|a| a.addr()).filter(usable).find_map(|a| match a {
        IpAddr::V4(a) => Some(a),
        IpAddr::V6(_) => None,
    });
    let v6 = || {
        here().map(|a| a.addr()).filter(usable).filter_map(|a| match a {
            IpAddr::V6(a) => Some(a),
            IpAddr::V4(_) => None,
        })
    };
    // RFC 2545 §3 asks for it whenever the neighbour is on the link; bgpd of FRR withdraws such a route on a session of
    // global addresses when it does not know the interface. There the global address alone is as good.
    let needed = matches!(remote, IpAddr::V6(a) if a.is_unicast_link_local());
    Local {
        address: plain.address,
        ipv4: plain.ipv4.or(ipv4),
        ipv6: plain.ipv6.or_else(|| v6().find(|a| !a.is_unicast_link_local())),
        link_local: plain.link_local.or_else(|| v6().find(|a| a.is_unicast_link_local()).filter(|_| needed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(local: &str, remote: &str) -> Local {
        let addresses = [
            (1, "127.0.0.1/8"),
            (1, "198.51.100.53/32"),
            (2, "192.0.2.2/24"),
            (2, "2001:db8::2/64"),
            (2, "fe80::2/64"),
            (3, "fe80::2/64"),
            (3, "203.0.113.2/24"),
        ];
        let addresses: Vec<(u32, IpNet)> = addresses.iter().map(|(i, a)| (*i, a.parse().unwrap())).collect();
        let local: SocketAddr = local.parse().unwrap();
        let service = ["198.51.100.0/24".parse().unwrap()];
        on_interface(Local::from(local.ip()), local, remote.parse().unwrap(), &service, &addresses)
    }

    #[test]
    fn a_session_of_one_family_knows_the_other() {
        let local = of("192.0.2.2:179", "192.0.2.1");
        assert_eq!(local.ipv4, Some("192.0.2.2".parse().unwrap()));
        assert_eq!(local.ipv6, Some("2001:db8::2".parse().unwrap()));
        assert_eq!(local.link_local, None);
        let local = of("[2001:db8::2]:179", "2001:db8::1");
        assert_eq!(local.ipv4, Some("192.0.2.2".parse().unwrap()));
    }

    #[test]
    fn the_scope_says_which_interface_a_link_local_address_is_on() {
        assert_eq!(of("[fe80::2%3]:179", "fe80::1").ipv4, Some("203.0.113.2".parse().unwrap()));
        let local = of("[fe80::2%2]:179", "fe80::1");
        assert_eq!((local.ipv4, local.ipv6), ("192.0.2.2".parse().ok(), "2001:db8::2".parse().ok()));
        assert_eq!(local.link_local, Some("fe80::2".parse().unwrap()));
    }

    #[test]
    fn addresses_of_the_service_and_of_the_loopback_are_no_next_hops() {
        let local = of("127.0.0.1:179", "127.0.0.1");
        assert_eq!((local.ipv4, local.ipv6), (Some("127.0.0.1".parse().unwrap()), None));
        assert_eq!(of("198.51.100.99:179", "192.0.2.1").ipv6, None, "an address that is gone");
    }
}
