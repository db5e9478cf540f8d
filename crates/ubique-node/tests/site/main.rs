//! The agent and the embedded routers as processes, in network namespaces, against BIRD and FRR.
//!
//! Each test is a process in a sandbox of its own: whatever it starts ends with it. The binary plays every role itself:
//! called with a role as its first argument it is the agent, the routers, or the service of a site.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod agent;
mod bfd;
mod clock;
mod confine;
mod conformance;
mod daemons;
mod doctor;
#[cfg(feature = "sessions")]
mod drains;
mod faults;
mod features;
#[cfg(feature = "sessions")]
mod flows;
mod interfaces;
#[path = "../jobs/mod.rs"]
mod jobs;
mod kubernetes;
mod lab;
mod last_site;
mod links;
mod load;
mod migration;
mod observability;
mod operator;
mod pages;
mod peers;
#[cfg(feature = "sessions")]
mod planes;
mod records;
mod reload;
mod robust;
mod roles;
mod routers;
mod runner;
mod sessions;
#[cfg(feature = "sessions")]
mod survive;
mod two_sites;
mod upstream;

use runner::Test;

fn main() {
    let mut arguments = std::env::args().skip(1);
    if let (Some("role"), Some(role)) = (arguments.next().as_deref(), arguments.next()) {
        std::process::exit(roles::play(&role, arguments.collect()));
    }
    // What an agent asks of the program that is to replace it.
    match std::env::args().collect::<Vec<_>>().as_slice() {
        [_, version] if version == "--version" => return println!("ubique test"),
        [_, check, file, here] if check == "check" && here == "--here" => {
            let text = std::fs::read(file).unwrap();
            std::process::exit(i32::from(ubique_model::service::Service::parse(file, &text).value.is_none()));
        }
        _ => {}
    }
    let tests: Vec<Test> = [
        agent::TESTS,
        bfd::TESTS,
        confine::TESTS,
        conformance::TESTS,
        doctor::TESTS,
        #[cfg(feature = "sessions")]
        drains::TESTS,
        faults::TESTS,
        features::TESTS,
        interfaces::TESTS,
        kubernetes::TESTS,
        last_site::TESTS,
        links::TESTS,
        migration::TESTS,
        observability::TESTS,
        operator::TESTS,
        peers::TESTS,
        #[cfg(feature = "sessions")]
        planes::TESTS,
        records::TESTS,
        reload::TESTS,
        robust::TESTS,
        routers::TESTS,
        sessions::TESTS,
        #[cfg(feature = "sessions")]
        survive::TESTS,
        upstream::TESTS,
    ]
    .concat();
    match std::env::args().collect::<Vec<_>>().as_slice() {
        [_, play, name] if play == runner::PLAY => {
            let test = tests.iter().find(|test| test.name == name).expect("a test of this name");
            std::process::exit(jobs::play(test.run));
        }
        _ => runner::run(&tests),
    }
}
