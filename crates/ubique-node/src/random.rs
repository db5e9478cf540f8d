//! Randomness of the kernel: the seeds of the cores and what others must not guess.

use std::cell::Cell;

use rustix::rand::{GetRandomFlags, getrandom};

fn random<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    // Blocks only before the first 256 bits after boot; so few octets are never cut short.
    let _ = getrandom(&mut octets, GetRandomFlags::empty());
    octets
}

/// A seed for a core.
pub(crate) fn seed() -> u64 {
    u64::from_ne_bytes(random())
}

/// A cookie nobody can guess.
pub(crate) fn query_id64() -> [u8; 8] {
    random()
}

/// Query identifiers taken from the kernel at once.
const QUERY_IDS: usize = 64;

/// A DNS query identifier nobody can guess (RFC 5452 §9.2).
pub(crate) fn query_id() -> u16 {
    thread_local! {
        static IDS: Cell<([u8; 2 * QUERY_IDS], usize)> = const { Cell::new(([0; 2 * QUERY_IDS], 0)) };
    }
    let (mut octets, mut left) = IDS.get();
    if left == 0 {
        (octets, left) = (random(), QUERY_IDS);
    }
    left -= 1;
    IDS.set((octets, left));
    u16::from_ne_bytes([octets[2 * left], octets[2 * left + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_identifiers_are_spread_over_all_there_are() {
        let ids: std::collections::BTreeSet<u16> = (0..1000 * QUERY_IDS).map(|_| query_id()).collect();
        // 64,000 of 65,536 at random meet 40,860 on average, give or take 100.
        assert!((40_000..42_000).contains(&ids.len()), "{}", ids.len());
    }
}
