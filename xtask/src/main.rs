//! Development tasks: `cargo xtask ci | setup | tidy | fuzz | dist | bench NAME`.
//!
//! - `setup` installs what the tests need from Debian's packages when it is missing (root only; otherwise it says what to run).
//! - `tidy` checks what the compiler cannot: the dependency table of the architecture, lengths, dead paths.
//! - `ci` is everything that must pass, in the order that fails fastest; `.ci/run` calls it.
//! - `fuzz` runs the fuzz targets for a while; their corpora are replayed by the tests.
//! - `dist` builds the tarball and the Debian package, and tests the latter in a Debian root.
//! - `bench` measures against peers in the same run.

#![forbid(unsafe_code)]

mod bench;
mod command;
mod dist;
mod fuzz;
mod setup;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about = "Development tasks of ubique")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must pass: set-up, tidy, format, lints, tests.
    Ci,
    /// Install the packages the tests need.
    Setup,
    /// Check dependency table, lengths and paths.
    Tidy,
    /// Run the fuzz targets; needs nightly and cargo-fuzz.
    Fuzz(fuzz::Arguments),
    /// Build the static tarball and the Debian package.
    Dist(dist::Arguments),
    /// Measure, beside a peer or a limit in the same run.
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Ci => ci(),
        Task::Setup => setup::run(),
        Task::Tidy => tidy::run(),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Dist(arguments) => dist::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ci() -> Result<(), String> {
    setup::run()?;
    tidy::run()?;
    command::cargo(&["fmt", "--all", "--check"])?;
    let everything = [&["--workspace", "--locked"], setup::data_plane()].concat();
    let cargo = |before: &[&str], after: &[&str]| command::cargo(&[before, &everything, after].concat());
    cargo(&["clippy", "--all-targets"], &["--", "-D", "warnings"])?;
    // The agent without TLS, the data plane without its programs, sessions without QUIC, which nothing else builds.
    command::cargo(&[
        "check",
        "--package",
        "ubique-node",
        "--package",
        "ubique-edge",
        "--package",
        "ubique-traffic",
        "--no-default-features",
        "--locked",
    ])?;
    // Apart, so that the log tells how long each takes.
    cargo(&["test"], &["--no-run"])?;
    cargo(&["test"], &["--no-fail-fast"])
}
