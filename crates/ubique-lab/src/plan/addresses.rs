//! Pools of prefixes that avoid what the service file already uses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ubique_model::Prefix;

/// Blocks for IPv4 links, tried in order (RFC 1918, RFC 2544).
const LINKS_V4: [(Ipv4Addr, u8); 3] =
    [(Ipv4Addr::new(10, 0, 0, 0), 8), (Ipv4Addr::new(172, 16, 0, 0), 12), (Ipv4Addr::new(198, 18, 0, 0), 15)];
/// Blocks for IPv4 clients, tried in order (RFC 6598, RFC 1918).
const CLIENTS_V4: [(Ipv4Addr, u8); 2] = [(Ipv4Addr::new(100, 64, 0, 0), 10), (Ipv4Addr::new(192, 168, 0, 0), 16)];
/// Block for IPv6 links (RFC 4193).
const LINKS_V6: [(Ipv6Addr, u8); 1] = [(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 48)];
/// Block for IPv6 clients (RFC 4193), beside the one for links.
const CLIENTS_V6: [(Ipv6Addr, u8); 1] = [(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0), 32)];

/// Hands out prefixes of one length from some blocks, leaving out reserved ones.
pub(super) struct Pool {
    /// First and last address of each block, as numbers.
    blocks: Vec<(u128, u128)>,
    /// First and last address of each reserved prefix of the family.
    reserved: Vec<(u128, u128)>,
    next: u128,
    length: u8,
    v4: bool,
}

/// All pools of a plan.
pub(super) struct Pools {
    pub(super) links_v4: Pool,
    pub(super) links_v6: Pool,
    pub(super) clients_v4: Pool,
    pub(super) clients_v6: Pool,
}

impl Pools {
    /// Pools that never touch `reserved`.
    pub(super) fn new(reserved: &[Prefix]) -> Pools {
        let v4 = |blocks: &[(Ipv4Addr, u8)], length| {
            Pool::new(blocks.iter().map(|&(a, l)| (IpAddr::V4(a), l)), length, true, reserved)
        };
        let v6 = |blocks: &[(Ipv6Addr, u8)], length| {
            Pool::new(blocks.iter().map(|&(a, l)| (IpAddr::V6(a), l)), length, false, reserved)
        };
        Pools {
            links_v4: v4(&LINKS_V4, 31),
            links_v6: v6(&LINKS_V6, 127),
            clients_v4: v4(&CLIENTS_V4, 24),
            clients_v6: v6(&CLIENTS_V6, 48),
        }
    }
}

impl Pool {
    fn new(blocks: impl Iterator<Item = (IpAddr, u8)>, length: u8, v4: bool, reserved: &[Prefix]) -> Pool {
        let blocks: Vec<(u128, u128)> = blocks.map(|(a, l)| range(number(a), l, v4)).collect();
        let reserved = reserved
            .iter()
            .filter(|p| matches!(p, Prefix::V4(_)) == v4)
            .map(|p| range(number(p.network()), p.prefix_len(), v4))
            .collect();
        let next = blocks.first().map_or(0, |b| b.0);
        Pool { blocks, reserved, next, length, v4 }
    }

    /// The next free prefix; `None` when the blocks are used up.
    pub(super) fn take(&mut self) -> Option<Prefix> {
        while let Some(&(_, end)) = self.blocks.first() {
            let (first, last) = range(self.next, self.length, self.v4);
            if last > end || first < self.next {
                self.blocks.remove(0);
                self.next = self.blocks.first().map_or(0, |b| b.0);
            } else if let Some(&(_, taken)) = self.reserved.iter().find(|r| r.0 <= last && first <= r.1) {
                self.next = align_up(taken.saturating_add(1), self.length, self.v4);
            } else {
                self.next = last + 1;
                return Prefix::new(address(first, self.v4), self.length).ok();
            }
        }
        None
    }
}

fn bits(v4: bool) -> u8 {
    if v4 { 32 } else { 128 }
}

/// First and last address of the prefix of that length that holds `at`.
fn range(at: u128, length: u8, v4: bool) -> (u128, u128) {
    let host = bits(v4).saturating_sub(length);
    let mask = if host >= 128 { u128::MAX } else { (1u128 << host) - 1 };
    (at & !mask, at | mask)
}

fn align_up(at: u128, length: u8, v4: bool) -> u128 {
    let (first, last) = range(at, length, v4);
    if first == at { at } else { last.saturating_add(1) }
}

/// The address as a number.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

/// The number as an address; an IPv4 one keeps its low 32 bits.
pub(super) fn address(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(n) if v4 => IpAddr::V4(Ipv4Addr::from_bits(n)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

/// The addresses that may stand at the other end of a link to `upstream`, best first: the second host of the /30
/// (/126) around it, then the other host of its /31 (/127, RFC 3021, RFC 6164).
pub(super) fn other_hosts(upstream: IpAddr) -> Vec<IpAddr> {
    let v4 = upstream.is_ipv4();
    let n = number(upstream);
    let mut hosts = Vec::with_capacity(2);
    if matches!(n % 4, 1 | 2) {
        hosts.push(address(n ^ 3, v4));
    }
    hosts.push(address(n ^ 1, v4));
    hosts
}
