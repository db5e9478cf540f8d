//! The structs of `bpf/config.h`, octet for octet.

use std::net::IpAddr;

use bytemuck::{Pod, Zeroable};
use ipnet::IpNet;
use ubique_proto::sessions::connection_id::ROTATIONS;
use ubique_proto::sessions::{Key, SITES_MAX};

use crate::config::{ID_KEYS_MAX, MTU, PORTS_MAX, PREFIXES_MAX};
use crate::{Config, Error, NextHop, Peer, Tier};

/// Where there is no site.
pub const NO_SITE: u8 = 0xff;

const NS_PER_S: u64 = 1_000_000_000;

/// `struct prefix_v4`, octets as in a packet.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
pub struct PrefixV4 {
    network: [u8; 4],
    mask: [u8; 4],
}

/// `struct prefix_v6`, octets as in a packet.
#[repr(C, align(8))]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
pub struct PrefixV6 {
    network: [u8; 16],
    mask: [u8; 16],
}

/// `struct config`
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
pub struct RawConfig {
    flow_key: [u64; 2],
    shim_key: [u64; 2],
    cookie_key: [u64; 2],
    id_keys: [[u64; 2]; ID_KEYS_MAX],
    /// Stays where it is, whatever comes: a successor reads it.
    pub clock_base_ms: u64,
    budget_interval_ns: u64,
    probe_interval_ns: u64,
    tick_ns: u64,
    prefixes_v6: [PrefixV6; PREFIXES_MAX],
    prefixes_v4: [PrefixV4; PREFIXES_MAX],
    count_v6: u32,
    count_v4: u32,
    unicast_v6: [u8; 16],
    unicast_v4: [u8; 4],
    port: [u8; 2],
    mtu: u16,
    tcp_ports: [[u8; 2]; PORTS_MAX],
    quic_ports: [[u8; 2]; PORTS_MAX],
    count_tcp_ports: u32,
    count_quic_ports: u32,
    id_rotations: [u8; ID_KEYS_MAX],
    count_id_keys: u8,
    site: u8,
    rewrite: u8,
    cookies: u8,
    reply_through: u8,
    padding: u8,
}

/// `struct live`
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Live {
    pub wall_base_ms: u64,
    pub tick_at_0: u64,
    pub up: u64,
    pub drain_to: u8,
    pub no_cookies: u8,
    padding: [u8; 6],
}

/// Octets of [`RawSite::template`].
const TEMPLATE: usize = 56;

/// `struct site`
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct RawSite {
    template: [u64; TEMPLATE / 8],
    address: [u8; 16],
    interface: u32,
    state: u8,
    family: u8,
    padding: [u8; 2],
    due_ns: u64,
}

/// Hop limit of what is sent to another site.
const HOPS: u8 = 64;
/// IANA's number of UDP.
const UDP: u8 = 17;

/// `enum site_state`
const UP: u8 = 1;
const DOWN: u8 = 2;

impl Live {
    /// Nobody is up, nothing drains. `tick_at_0`: the jiffy of 0 of the monotonic clock.
    pub fn new(wall_base_ms: u64, tick_at_0: u64) -> Live {
        Live { wall_base_ms, tick_at_0, up: 0, drain_to: NO_SITE, no_cookies: 0, padding: [0; 6] }
    }
}

impl RawSite {
    pub fn new(peer: &Peer) -> RawSite {
        let (family, address) = address(peer.address);
        let mut site = RawSite { address, family, state: if peer.up { UP } else { DOWN }, ..RawSite::zeroed() };
        if let Some(next_hop) = &peer.next_hop {
            site.interface = next_hop.interface;
            let octets = template(next_hop, peer.address);
            for (word, octets) in site.template.iter_mut().zip(octets.as_chunks().0) {
                *word = u64::from_ne_bytes(*octets);
            }
        }
        site
    }
}

/// Ethernet and IP header without a length; of IPv4, the sum instead of the checksum.
fn template(next_hop: &NextHop, destination: IpAddr) -> [u8; TEMPLATE] {
    let mut octets = Vec::with_capacity(TEMPLATE);
    octets.extend(next_hop.destination_mac);
    octets.extend(next_hop.source_mac);
    match (next_hop.source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            octets.extend([0x08, 0x00]);
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, HOPS, UDP, 0, 0];
            header.extend(source.octets());
            header.extend(destination.octets());
            let mut sum: u32 = header.chunks(2).map(|two| u32::from(u16::from_ne_bytes([two[0], two[1]]))).sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            header[10..12].copy_from_slice(&(sum as u16).to_ne_bytes());
            octets.extend(header);
        }
        (source, destination) => {
            octets.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, UDP, HOPS]);
            octets.extend(self::address(source).1);
            octets.extend(self::address(destination).1);
        }
    }
    octets.resize(TEMPLATE, 0);
    octets.try_into().unwrap_or([0; TEMPLATE])
}

/// Family, and the octets from the first on.
fn address(address: IpAddr) -> (u8, [u8; 16]) {
    match address {
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.octets());
            (4, octets)
        }
        IpAddr::V6(v6) => (6, v6.octets()),
    }
}

/// Time between two of so many a second, ns; of none, for ever.
fn interval(per_s: u32) -> u64 {
    NS_PER_S.checked_div(u64::from(per_s)).unwrap_or(u64::MAX / 2)
}

impl RawConfig {
    /// `tick_ns`: between two of the kernel's jiffies.
    ///
    /// # Errors
    /// [`Error::Config`] where a limit is passed.
    pub fn new(config: &Config, tick_ns: u64) -> Result<RawConfig, Error> {
        let key = |Key(key): Key| key;
        let mut raw = RawConfig {
            flow_key: key(config.keys.flow),
            shim_key: key(config.keys.shim),
            cookie_key: key(config.keys.cookie),
            clock_base_ms: config.clock_base_ms,
            budget_interval_ns: interval(config.budget_per_s),
            probe_interval_ns: interval(config.probes_per_s),
            tick_ns,
            port: config.port.to_be_bytes(),
            mtu: config.mtu,
            site: config.site.number(),
            rewrite: u8::from(config.tier == Tier::Timestamps),
            cookies: u8::from(config.tier == Tier::Cookies),
            reply_through: u8::from(config.reply_through),
            ..RawConfig::default()
        };
        if !MTU.contains(&config.mtu) {
            return Err(Error::Config(format!("MTU {} is not in {}..={}", config.mtu, MTU.start(), MTU.end())));
        }
        raw.set_ids(config)?;
        raw.set_addresses(config)?;
        raw.count_tcp_ports = ports(&mut raw.tcp_ports, &config.tcp_ports, "TCP")?;
        raw.count_quic_ports = ports(&mut raw.quic_ports, &config.quic_ports, "QUIC")?;
        Ok(raw)
    }

    fn set_ids(&mut self, config: &Config) -> Result<(), Error> {
        let ids = &config.keys.ids;
        if ids.len() > ID_KEYS_MAX || ids.iter().any(|id| id.rotation >= ROTATIONS) {
            return Err(Error::Config(format!(
                "at most {ID_KEYS_MAX} keys of connection identifiers, of rotations below {ROTATIONS}"
            )));
        }
        self.count_id_keys = ids.len() as u8;
        for (n, id) in ids.iter().enumerate() {
            self.id_keys[n] = id.key.0;
            self.id_rotations[n] = id.rotation;
        }
        Ok(())
    }

    fn set_addresses(&mut self, config: &Config) -> Result<(), Error> {
        for prefix in &config.prefixes {
            let full = match prefix {
                IpNet::V4(v4) => put(
                    &mut self.prefixes_v4,
                    &mut self.count_v4,
                    PrefixV4 { network: v4.network().octets(), mask: v4.netmask().octets() },
                ),
                IpNet::V6(v6) => put(
                    &mut self.prefixes_v6,
                    &mut self.count_v6,
                    PrefixV6 { network: v6.network().octets(), mask: v6.netmask().octets() },
                ),
            };
            full.ok_or_else(|| Error::Config(format!("more than {PREFIXES_MAX} prefixes of one family")))?;
        }
        for unicast in &config.unicast {
            match unicast {
                IpAddr::V4(v4) => self.unicast_v4 = v4.octets(),
                IpAddr::V6(v6) => self.unicast_v6 = v6.octets(),
            }
        }
        Ok(())
    }
}

fn put<T>(places: &mut [T], count: &mut u32, value: T) -> Option<()> {
    *places.get_mut(*count as usize)? = value;
    *count += 1;
    Some(())
}

fn ports(places: &mut [[u8; 2]; PORTS_MAX], ports: &[u16], what: &str) -> Result<u32, Error> {
    if ports.len() > PORTS_MAX {
        return Err(Error::Config(format!("more than {PORTS_MAX} {what} ports")));
    }
    for (place, port) in places.iter_mut().zip(ports) {
        *place = port.to_be_bytes();
    }
    Ok(ports.len() as u32)
}

/// A bitmap of sites has one bit for each.
const _: () = assert!(SITES_MAX as u32 == u64::BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_padding_the_compiler_chose() {
        // What BTF says of the object: see tests/vectors.rs; here that nothing moved by itself.
        assert_eq!((size_of::<RawConfig>(), size_of::<Live>(), size_of::<RawSite>()), (864, 32, 88));
    }
}
