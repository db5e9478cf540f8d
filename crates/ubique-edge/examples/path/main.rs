//! What a packet waits longer, and how much less gets through, because of the data plane: real TCP through the namespaces of the tests,
//! beside the same without programs, at the same time. `cargo xtask bench sessions` runs it.

#![allow(clippy::unwrap_used, reason = "a measurement that fails says where")]

#[cfg(data_plane)]
#[path = "../../tests/flips/delay.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod delay;
#[cfg(data_plane)]
mod labs;
#[cfg(data_plane)]
mod latency;
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
mod throughput;

#[cfg(not(data_plane))]
fn main() {
    eprintln!("data plane: unavailable: built without the feature bpf, or where there was no clang");
    std::process::exit(3);
}

#[cfg(data_plane)]
fn main() {
    let sandbox = runner::in_sandbox(|| {
        let labs = labs::Labs::new();
        latency::rows(&labs);
        throughput::rows(&labs);
    });
    let code = sandbox.map_or(3, |sandbox| sandbox.wait().unwrap());
    std::process::exit(code);
}
