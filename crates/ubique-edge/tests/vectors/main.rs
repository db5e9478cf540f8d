//! The programs, run by the kernel on frames made here (BPF_PROG_TEST_RUN): every encoding against its twin, every decision against what
//! it should be. Needs root; says so and passes where there is no data plane.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[cfg(data_plane)]
mod adopt;
#[cfg(data_plane)]
mod attacks;
#[cfg(data_plane)]
mod decisions;
#[cfg(data_plane)]
mod frame;
#[cfg(data_plane)]
mod setup;
#[cfg(data_plane)]
mod twins;

#[cfg(not(data_plane))]
#[test]
fn there_is_no_data_plane_here() {
    eprintln!("skipped: built without the feature bpf, or where there was no clang");
}
