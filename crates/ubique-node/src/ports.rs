//! Ports for tests which the kernel gives to no other socket: a port that was bound and let go again may meet
//! another test's socket a moment later.

use std::sync::atomic::{AtomicU16, Ordering};

/// Where the kernel's ports for clients begin (`ip_local_port_range`).
const EPHEMERAL: u16 = 32_768;
/// How many ports a process of tests may take.
const RANGE: u16 = 200;

/// A port that no socket has, and nobody else of this process will be given; test processes beside it have others.
pub fn unused() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
    assert!(taken < RANGE, "this process used up its ports");
    let ranges = EPHEMERAL / RANGE / 2;
    let ours = u16::try_from(std::process::id() % u32::from(ranges)).expect("it is less than a 16-bit number");
    EPHEMERAL - (ours + 1) * RANGE + taken
}
