//! SYN cookies of our own (tier 1): the programs run on frames made here, octet for octet, and two real kernels that speak through them.
//! Needs root and Linux 6.9; says so and passes where one is missing.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[cfg(data_plane)]
mod acknowledgements;
#[cfg(data_plane)]
mod connections;
#[cfg(data_plane)]
mod elsewhere;
#[cfg(data_plane)]
#[path = "../vectors/frame.rs"]
#[allow(dead_code, reason = "of another test, too")]
mod frame;
#[cfg(data_plane)]
#[allow(dead_code, reason = "of a measurement, too")]
mod network;
#[cfg(data_plane)]
mod setup;
#[cfg(data_plane)]
mod syns;

#[cfg(not(data_plane))]
#[test]
fn there_is_no_data_plane_here() {
    eprintln!("skipped: built without the feature bpf, or where there was no clang");
}
