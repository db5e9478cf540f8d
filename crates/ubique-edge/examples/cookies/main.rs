//! What SYN cookies of our own cost, ns, and how they stand a flood of SYNs on one processor, beside those of the kernel.
//! `cargo xtask bench sessions` runs it.

#![allow(clippy::unwrap_used, reason = "a measurement that fails says where")]

#[cfg(data_plane)]
mod costs;
#[cfg(data_plane)]
mod flood;
#[cfg(data_plane)]
#[path = "../../tests/vectors/frame.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod frame;
#[cfg(data_plane)]
#[path = "../../tests/cookies/network.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod network;
#[cfg(data_plane)]
#[path = "../../tests/cookies/setup.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod setup;

#[cfg(not(data_plane))]
fn main() {
    eprintln!("data plane: unavailable: built without the feature bpf, or where there was no clang");
    std::process::exit(3);
}

#[cfg(data_plane)]
fn main() {
    costs::main();
    flood::main();
}
