//! The agent against BIRD.

use crate::daemons::{BIRD, Bird};
use crate::lab::{self, Lab, until_true};
use crate::runner::Test;

pub const TESTS: &[Test] = &[
    Test { name: "site_comes_up_and_a_killed_service_is_withdrawn", needs: &[BIRD], run: up_and_killed },
];

fn up_and_killed() {
    let lab = Lab::new();
    let mut bird = Bird::start(&lab.router, "");
    let mut agent = lab.agent(&lab::service());
    lab.wait_for_addresses();
    let mut dns = lab.dns();
    let up = until_true("both prefixes announced", || bird.has_both());
    println!("healthy to announced: {up:?}");
    let route = bird.route(lab::PREFIX_V4).unwrap();
    for expected in ["BGP.origin: IGP", "BGP.as_path: 64500 64500", "BGP.med: 7", "(64500,100)", "(64500, 1, 2)"] {
        assert!(route.contains(expected), "{expected} not in\n{route}");
    }
    let start = std::time::Instant::now();
    dns.kill();
    until_true("withdrawn", || bird.has_none());
    println!("killed to withdrawn: {:?}", start.elapsed());
    agent.signal(ubique_sys::process::Signal::Term);
    assert_eq!(agent.wait(), 0);
}
