//! Who sends: the heaviest source networks of a window, in bounded memory.
//!
//! Space-saving (Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams",
//! 2005): a network that is not among those counted takes the place of the one with the fewest packets and inherits its
//! count. Any network with more than one [`KEPT`]-th of all packets is among them; what a count may be too high by is kept
//! with it, so that a network can be named with a lower bound.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use ubique_model::Prefix;

/// Networks counted at a time.
pub const KEPT: usize = 256;

/// Length of the networks that sources are counted by: the longest prefixes that are routed between networks.
const LENGTHS: (u8, u8) = (24, 48);

/// A source network with its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// It.
    pub prefix: Prefix,
    /// Its packets, or a few more.
    pub packets: u64,
    /// How many of them may be somebody else's.
    pub uncertain: u64,
}

/// Counts of a window: see the module's header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Senders {
    kept: Vec<Sender>,
    total: u64,
}

/// The network a source is counted by.
pub fn network(source: IpAddr) -> Option<Prefix> {
    let source = source.to_canonical();
    let length = if source.is_ipv4() { LENGTHS.0 } else { LENGTHS.1 };
    Some(Prefix::new(source, length).ok()?.trunc())
}

impl Senders {
    /// Counts `packets` of one source.
    pub fn add(&mut self, source: IpAddr, packets: u64) {
        let Some(prefix) = network(source) else { return };
        self.total = self.total.saturating_add(packets);
        if let Some(known) = self.kept.iter_mut().find(|sender| sender.prefix == prefix) {
            known.packets = known.packets.saturating_add(packets);
        } else if self.kept.len() < KEPT {
            self.kept.push(Sender { prefix, packets, uncertain: 0 });
        } else if let Some(least) = self.kept.iter_mut().min_by_key(|sender| sender.packets) {
            let uncertain = least.packets;
            *least = Sender { prefix, packets: uncertain.saturating_add(packets), uncertain };
        }
    }

    /// All packets counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The `count` heaviest, heaviest first, without those that may not have sent anything.
    pub fn heaviest(&self, count: usize) -> Vec<Sender> {
        let mut list: Vec<Sender> = self.kept.iter().filter(|s| s.packets > s.uncertain).copied().collect();
        list.sort_by(|a, b| b.packets.cmp(&a.packets).then(a.prefix.cmp(&b.prefix)));
        list.truncate(count);
        list
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn sources_are_counted_by_network() {
        let mut senders = Senders::default();
        for (source, packets) in
            [("203.0.113.7", 2), ("203.0.113.9", 3), ("2001:db8:7:1::1", 1), ("2001:db8:7:2::1", 1)]
        {
            senders.add(source.parse().expect("an address"), packets);
        }
        let list = senders.heaviest(9);
        let texts: Vec<_> = list.iter().map(|s| (s.prefix.to_string(), s.packets)).collect();
        assert_eq!(texts, [("203.0.113.0/24".to_owned(), 5), ("2001:db8:7::/48".to_owned(), 2)]);
        assert_eq!(senders.total(), 7);
    }

    #[test]
    fn heavy_ones_are_found_among_many() {
        for seed in 1..=3 {
            let mut rng = Rng::new(seed);
            let mut senders = Senders::default();
            let mut exact: BTreeMap<Prefix, u64> = BTreeMap::new();
            for _ in 0..20_000 {
                // A tenth of all packets comes from five networks, the rest from 65,536.
                let third = if rng.below(10) == 0 { rng.below(5) as u32 } else { rng.below(65_536) as u32 };
                let source = IpAddr::from((0x0A00_0000u32 + (third << 8) + 1).to_be_bytes());
                senders.add(source, 1);
                *exact.entry(network(source).expect("a network")).or_default() += 1;
            }
            assert!(senders.kept.len() <= KEPT, "seed {seed}");
            for (prefix, count) in exact.iter().filter(|(_, count)| **count > 20_000 / KEPT as u64) {
                let found = senders.kept.iter().find(|s| s.prefix == *prefix).unwrap_or_else(|| panic!("seed {seed}"));
                assert!(found.packets >= *count && found.packets - found.uncertain <= *count, "seed {seed}: {found:?}");
            }
            let five: Vec<_> = senders.heaviest(5).iter().map(|s| s.prefix.to_string()).collect();
            for third in 0..5 {
                assert!(five.contains(&format!("10.0.{third}.0/24")), "seed {seed}: {five:?}");
            }
        }
    }
}
