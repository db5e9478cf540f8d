//! The interop matrix: ubique's speaker and agent against BIRD, FRR, GoBGP, OpenBGPD and ExaBGP, IPv4 and IPv6.
//!
//! A *row* is something two speakers do together; a *cell* is a row with one peer over one address family. Every cell is
//! run: with the peer's real daemon in a network namespace of its own, asked through its own command line, or, where the
//! peer cannot, as a proof that it cannot (the daemon rejects the keyword). The results of a whole run are
//! `docs/interop.md`; a run that differs from the committed page fails, `UBIQUE_BLESS=1` writes it anew.
//!
//! `cargo test -p ubique-node --test interop -- 'frr v6 max-prefix'` runs the cells whose names contain these words.
//!
//! Where to start: `rows` (what is tried), `peer` (what a peer must be able to do), `peers` (how each does it), `us` (our
//! side), `runner` (cells as processes, several at a time), `document` (the page).

#![allow(clippy::unwrap_used, reason = "a failed step is a failed cell")]

use ubique_model::service::Service;
use ubique_node::agent::{self, AgentOptions};

mod cell;
mod document;
#[path = "../jobs/mod.rs"]
mod jobs;
mod lab;
mod matrix;
mod peer;
mod peers;
mod rows;
mod runner;
mod seen;
mod us;

/// `ubique run` of the site in a service file.
fn run_agent(file: &str) -> i32 {
    let log = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::DEBUG);
    log.with_writer(std::io::stderr).init();
    let service = Service::parse(file, &std::fs::read(file).unwrap());
    assert!(service.value.is_some(), "{:?}", service.diagnostics);
    match agent::run(service.value.unwrap(), "ams", AgentOptions::default()) {
        Ok(_) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["play-agent", file] => std::process::exit(run_agent(file)),
        [runner::PLAY, name] => std::process::exit(runner::run_cell(name)),
        _ => runner::run(&arguments),
    }
}
