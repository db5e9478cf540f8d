//! Prefixes as a length in bits and as few octets as hold it (RFC 4271 §4.3, RFC 4760 §5), behind a path identifier
//! where ADD-PATH is in use (RFC 7911 §3).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use ubique_model::{Family, Prefix};

use super::super::message::Nlri;
use super::reader::Reader;

/// Octets of a path identifier (RFC 7911 §3).
const PATH_ID: usize = 4;

/// Longest encoding of a prefix of `family`, octets.
pub(super) fn longest(family: Family, add_path: bool) -> usize {
    let path_id = if add_path { PATH_ID } else { 0 };
    path_id
        + match family {
            Family::Ipv4 => 5,
            Family::Ipv6 => 17,
        }
}

/// Reads a field of prefixes to its end; host bits are cleared. `None`: syntactically incorrect, that is, a prefix
/// longer than its family allows or cut off (RFC 7606 §5.3).
pub(super) fn decode(field: &[u8], family: Family, add_path: bool) -> Option<Vec<Nlri>> {
    let mut r = Reader::new(field);
    // Most prefixes of a full table are a /22 to /24, or a /40 to /48.
    let usual = longest(family, add_path).min(7) - 1;
    let mut prefixes = Vec::with_capacity(field.len().div_ceil(usual));
    while !r.is_empty() {
        let path_id = if add_path { r.u32()? } else { 0 };
        let bits = r.u8()?;
        let octets = r.take(usize::from(bits).div_ceil(8))?;
        let prefix = match family {
            Family::Ipv4 => Prefix::V4(Ipv4Net::new(padded(octets)?.into(), bits).ok()?.trunc()),
            Family::Ipv6 => Prefix::V6(Ipv6Net::new(padded(octets)?.into(), bits).ok()?.trunc()),
        };
        prefixes.push(Nlri { prefix, path_id });
    }
    Some(prefixes)
}

fn padded<const N: usize>(octets: &[u8]) -> Option<[u8; N]> {
    let mut full = [0; N];
    full.get_mut(..octets.len())?.copy_from_slice(octets);
    Some(full)
}

/// Octets [`encode`] appends.
pub(super) fn length(nlri: &Nlri, add_path: bool) -> usize {
    let path_id = if add_path { PATH_ID } else { 0 };
    path_id + 1 + usize::from(nlri.prefix.prefix_len()).div_ceil(8)
}

/// Appends one prefix.
pub(super) fn encode(nlri: &Nlri, add_path: bool, out: &mut Vec<u8>) {
    if add_path {
        out.extend_from_slice(&nlri.path_id.to_be_bytes());
    }
    let bits = nlri.prefix.prefix_len();
    let octets = usize::from(bits).div_ceil(8);
    out.push(bits);
    match nlri.prefix.trunc() {
        Prefix::V4(net) => out.extend_from_slice(&net.addr().octets()[..octets]),
        Prefix::V6(net) => out.extend_from_slice(&net.addr().octets()[..octets]),
    }
}

/// A multicast destination has no place among unicast routes (RFC 4271 §6.3: log, ignore the prefix).
pub(super) fn is_multicast(prefix: &Prefix) -> bool {
    // A shorter prefix, the default route above all, merely contains multicast addresses.
    match prefix {
        Prefix::V4(net) => net.prefix_len() >= 4 && net.addr().is_multicast(),
        Prefix::V6(net) => net.prefix_len() >= 8 && net.addr().is_multicast(),
    }
}

/// Whether it can be the address of a host at all (RFC 4271 §6.3, "syntactically correct"). Loopback addresses can:
/// sessions over loopback are normal in labs.
pub(super) fn is_host_v4(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 224..)
}

/// As [`is_host_v4`], for IPv6.
pub(super) fn is_host_v6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}
