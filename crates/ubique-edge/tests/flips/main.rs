//! Real TCP of the kernel through real route changes: two clients, a router, three sites, each in a network namespace.
//!
//! Each scenario runs in a sandbox of its own (a process, with a fresh set of namespaces that vanish with it) and prints what it
//! saw. The control run without the data plane must lose every connection, else the others prove nothing.
//!
//! Root only; without BPF only the control runs. `cargo test -p ubique-edge --features bpf --test flips [-- PART-OF-A-NAME]`;
//! `UBIQUE_FLIPS_BULK_MB=400` for the size of the bulk transfers that acceptance asks for.
//!
//! - [`net`]: the namespaces and their routes; [`delay`]: a box that delays frames; [`plane`]: the data plane of the sites; [`quic`]: programs, a browser
//! - [`traffic`]: connections and what became of them; [`lab`]: all of that; [`scenarios`]: what is done to them
//! - [`attacker`]: what somebody sends who likes none of it; [`attacks`]: that it does no harm

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod attacker;
mod attacks;
mod delay;
#[path = "../vectors/frame.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod frame;
mod lab;
mod net;
#[cfg_attr(not(data_plane), allow(unused, reason = "nothing can be done with a data plane that cannot be"))]
mod plane;
mod quic;
mod runner;
mod scenarios;
mod setup;
mod traffic;

fn main() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: flips: needs root (namespaces and BPF)");
    }
    runner::run(&scenarios::all());
}
