//! What the kernel does with packets: filters of its own, queues, tables.

use std::net::IpAddr;

use super::{Case, Interface, Report};

/// The least a link must carry for IPv6 (RFC 8200 §5).
const IPV6_MTU_MIN: u32 = 1280;

/// What nearly every link carries.
const ETHERNET_MTU: u32 = 1500;

/// A table fuller than this is about to overflow, percent.
const FULL_PERCENT: u64 = 80;

/// Interfaces that packets of clients may come in from.
fn outside<'a>(case: Case<'a>) -> impl Iterator<Item = (&'a String, &'a Interface)> {
    case.facts.interfaces.iter().filter(|(name, interface)| *name != "lo" && interface.up)
}

fn has_family(case: Case<'_>, v6: bool) -> bool {
    case.subject.is_some_and(|(service, _)| service.addresses.iter().any(|address| address.is_ipv6() == v6))
}

pub(super) fn families(case: Case<'_>, report: &mut Report) {
    if !has_family(case, true) {
        return;
    }
    for interface in ["all", "lo"] {
        let key = format!("net/ipv6/conf/{interface}/disable_ipv6");
        match case.number(&key) {
            Some(0) => {}
            Some(_) => report.error(
                format!("IPv6 is off ({key}): the IPv6 service addresses cannot be put on the loopback"),
                format!("sysctl -w net.ipv6.conf.{interface}.disable_ipv6=0"),
            ),
            None => report
                .error("the kernel has no IPv6, and the service has IPv6 addresses", "boot without ipv6.disable=1"),
        }
    }
}

/// Strict reverse-path filtering drops what comes in where the way back does not go out (RFC 3704 §2.2): with anycast the usual case.
pub(super) fn rp_filter(case: Case<'_>, report: &mut Report) {
    let Some(all) = case.number("net/ipv4/conf/all/rp_filter") else {
        return report.unknown("net.ipv4.conf.all.rp_filter cannot be read");
    };
    if outside(case).count() < 2 || (case.subject.is_some() && !has_family(case, false)) {
        return;
    }
    for (name, _) in outside(case) {
        let own = case.number(&format!("net/ipv4/conf/{name}/rp_filter")).unwrap_or(0);
        // The greater of both counts (ip-sysctl).
        if all.max(own) == 1 {
            report.error(
                format!("strict rp_filter on {name}: packets of clients whose way back is another interface are dropped"),
                format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2 (loose; 2 wins over all=1), and in /etc/sysctl.d for the next boot"),
            );
        }
    }
}

pub(super) fn vrf(case: Case<'_>, report: &mut Report) {
    let mut used: Vec<&str> = case.facts.paths.values().filter_map(|path| path.interface.as_deref()).collect();
    used.sort_unstable();
    used.dedup();
    let in_vrf = |name: &&str| case.facts.interfaces.get(*name).is_some_and(|interface| interface.in_vrf);
    for name in used.into_iter().filter(in_vrf) {
        for key in ["tcp_l3mdev_accept", "udp_l3mdev_accept"] {
            if case.number(&format!("net/ipv4/{key}")) == Some(0) {
                report.error(
                    format!("{name} is in a VRF and {key} is 0: neither BGP nor the service hear what comes in there"),
                    format!("sysctl -w net.ipv4.{key}=1, or run agent and service in the VRF: ip vrf exec"),
                );
            }
        }
    }
}

pub(super) fn mtu(case: Case<'_>, report: &mut Report) {
    for upstream in case.upstreams() {
        let address = upstream.address;
        let Some(path) = case.facts.paths.get(&address) else {
            continue;
        };
        let Some((name, interface)) =
            path.interface.as_ref().and_then(|name| Some((name, case.facts.interfaces.get(name)?)))
        else {
            report.unknown(format!("the interface towards {address} is not known"));
            continue;
        };
        if has_family(case, true) && interface.mtu < IPV6_MTU_MIN {
            report.error(
                format!("{name} carries {} octets, IPv6 needs {IPV6_MTU_MIN}", interface.mtu),
                format!("ip link set {name} mtu {ETHERNET_MTU}, on both sides"),
            );
        } else if interface.mtu < ETHERNET_MTU {
            report.warning(
                format!(
                    "{name} towards {address} carries only {} octets: long answers are fragmented or lost",
                    interface.mtu
                ),
                format!("ip link set {name} mtu {ETHERNET_MTU}, or let the service send less (DNS: EDNS buffer 1232)"),
            );
        }
        if let Some(mtu) = path.mtu.filter(|mtu| *mtu < interface.mtu) {
            report.warning(
                format!(
                    "only {mtu} octets reach {address}, {name} carries {}: something in between is narrower",
                    interface.mtu
                ),
                format!("make {name} as narrow as the path (ip link set {name} mtu {mtu}), or mend the path"),
            );
        }
    }
    // RFC 7690: "packet too big" for an anycast address may go to another site.
    if case.number("net/ipv4/tcp_mtu_probing") == Some(0) {
        report.warning(
            "tcp_mtu_probing is 0: ICMP \"too big\" for an anycast address may reach another site, and TCP then hangs (RFC 7690)",
            "sysctl -w net.ipv4.tcp_mtu_probing=1 (counts for IPv6, too)",
        );
    }
}

pub(super) fn ecmp(case: Case<'_>, report: &mut Report) {
    for (v6, key, fix) in [
        (false, "net/ipv4/fib_multipath_hash_policy", "sysctl -w net.ipv4.fib_multipath_hash_policy=1"),
        (true, "net/ipv6/fib_multipath_hash_policy", "sysctl -w net.ipv6.fib_multipath_hash_policy=1"),
    ] {
        let ways = case.upstreams().filter(|upstream| upstream.address.is_ipv6() == v6).count();
        if ways > 1 && case.number(key) == Some(0) {
            let family = if v6 { "IPv6" } else { "IPv4" };
            report.note(
                format!("{ways} {family} upstreams, and multipath routes are shared by addresses only ({key} = 0): answers to a large resolver all leave one way"),
                fix,
            );
        }
    }
}

pub(super) fn neighbour_table(case: Case<'_>, report: &mut Report) {
    let (Some(used), Some(limit)) = (case.facts.neighbours, case.number("net/ipv4/neigh/default/gc_thresh3")) else {
        return report.unknown("the neighbour table cannot be read");
    };
    let limit = limit.unsigned_abs();
    if used * 100 >= limit * FULL_PERCENT {
        report.error(
            format!(
                "{used} of {limit} entries of the ARP table are used: when it is full, new neighbours get no packets"
            ),
            format!(
                "sysctl -w net.ipv4.neigh.default.gc_thresh3={} gc_thresh2 and gc_thresh1 likewise, also for net.ipv6",
                limit * 8
            ),
        );
    }
}

pub(super) fn conntrack(case: Case<'_>, report: &mut Report) {
    let Some(table) = case.facts.conntrack else {
        return;
    };
    let untracked = super::firewall::mentions(&case.facts.firewall, "notrack");
    let fix = "exempt the service: nft add table inet raw; nft add chain inet raw pre '{ type filter hook prerouting priority raw; }'; \
               nft add rule inet raw pre udp dport 53 notrack, and the same for answers in an output chain";
    if table.limit > 0 && table.used * 100 >= table.limit * FULL_PERCENT {
        report.error(
            format!(
                "{} of {} tracked connections are used: when the table is full, packets are dropped",
                table.used, table.limit
            ),
            fix,
        );
    } else if table.used > 0 && !untracked {
        report.note(
            format!(
                "connections are tracked ({} of {}): a flood fills the table, and then everybody's packets are dropped",
                table.used, table.limit
            ),
            fix,
        );
    }
}

pub(super) fn socket_queues(case: Case<'_>, report: &mut Report) {
    let counter = |name: &str| case.facts.counters.get(name).copied().unwrap_or(0);
    if case.facts.counters.is_empty() {
        return report.unknown("the counters of the network stack cannot be read");
    }
    let overflows = counter("TcpExt.ListenOverflows");
    if overflows > 0 {
        let limit = case.number("net/core/somaxconn").unwrap_or(0);
        report.warning(
            format!("{overflows} TCP connections were refused since boot because a listener's queue was full (somaxconn {limit})"),
            "sysctl -w net.core.somaxconn=4096, and a longer backlog in the service; `ss -ltn` shows whose queue is full",
        );
    }
    for (name, family) in [("Udp.RcvbufErrors", "UDP"), ("Udp6.RcvbufErrors", "UDP over IPv6")] {
        let errors = counter(name);
        if errors > 0 {
            let limit = case.number("net/core/rmem_max").unwrap_or(0);
            report.warning(
                format!("{errors} {family} packets were dropped since boot because a socket's buffer was full (rmem_max {limit})"),
                "sysctl -w net.core.rmem_max=16777216, a larger receive buffer in the service, or more workers; `ss -lunm` shows drops",
            );
        }
    }
}

/// The interface towards an upstream, when it is known.
pub(super) fn interface_of(case: Case<'_>, address: IpAddr) -> Option<&str> {
    case.facts.paths.get(&address)?.interface.as_deref()
}
