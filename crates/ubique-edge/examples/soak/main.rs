//! The data plane for a long time: floods, forgeries, route changes, drains and restarts of the programs while connections live, in one
//! lab after the other, and what the kernel keeps of it. `cargo xtask bench sessions-soak --minutes 60` runs it.

#![allow(clippy::unwrap_used, reason = "a measurement that fails says where")]

#[cfg(data_plane)]
#[path = "../../tests/flips/attacker.rs"]
mod attacker;
#[cfg(data_plane)]
#[path = "../../tests/flips/attacks.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod attacks;
#[cfg(data_plane)]
#[path = "../../tests/flips/delay.rs"]
mod delay;
#[cfg(data_plane)]
#[path = "../../tests/vectors/frame.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod frame;
#[cfg(data_plane)]
#[path = "../../tests/flips/lab.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod lab;
#[cfg(data_plane)]
#[path = "../../tests/flips/net.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod net;
#[cfg(data_plane)]
#[path = "../../tests/flips/plane.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod plane;
#[cfg(data_plane)]
#[path = "../../tests/flips/quic.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod quic;
#[cfg(data_plane)]
#[path = "../../tests/flips/runner.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod runner;
#[cfg(data_plane)]
#[path = "../../tests/flips/setup.rs"]
mod setup;
#[cfg(data_plane)]
mod soak;
#[cfg(data_plane)]
#[path = "../../tests/flips/traffic/mod.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod traffic;
#[cfg(data_plane)]
mod watch;

#[cfg(not(data_plane))]
fn main() {
    eprintln!("data plane: unavailable: built without the feature bpf, or where there was no clang");
    std::process::exit(3);
}

#[cfg(data_plane)]
fn main() {
    let minutes = std::env::args().nth(1).map_or(1.0, |text| text.parse().expect("minutes"));
    soak::main(std::time::Duration::from_secs_f64(minutes * 60.0));
}
