//! Randomness of the kernel: the seeds of the cores and what others must not guess.

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

/// A DNS query identifier nobody can guess (RFC 5452 §9.2).
pub(crate) fn query_id() -> u16 {
    u16::from_ne_bytes(random())
}
