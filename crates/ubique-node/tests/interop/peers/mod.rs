//! The daemons: how each is configured, started and asked.

mod bird;
mod exabgp;
mod frr;
mod gobgp;
mod openbgpd;

use ubique_sys::netns::NetNs;

use crate::cell::Cell;
use crate::lab;
use crate::peer::{Kind, Peer, Setup};

/// Starts the daemon of a kind in a namespace.
pub fn start(kind: Kind, setup: &Setup, ns: &NetNs) -> Box<dyn Peer> {
    match kind {
        Kind::Bird => Box::new(bird::Bird::start(setup, ns)),
        Kind::Frr => Box::new(frr::Frr::start(setup, ns)),
        Kind::Gobgp => Box::new(gobgp::Gobgp::start(setup, ns)),
        Kind::Openbgpd => Box::new(openbgpd::Openbgpd::start(setup, ns)),
        Kind::Exabgp => Box::new(exabgp::Exabgp::start(setup, ns)),
    }
}

/// Whether a daemon accepts a configuration, and what it says.
fn takes(cell: &Cell, setup: &Setup) -> (bool, String) {
    match cell.kind {
        Kind::Bird => bird::takes(setup, &cell.ns),
        Kind::Frr => frr::takes(setup, &cell.ns),
        Kind::Gobgp => gobgp::takes(setup, &cell.ns),
        Kind::Openbgpd => openbgpd::takes(setup, &cell.ns),
        Kind::Exabgp => exabgp::takes(setup, &cell.ns),
    }
}

/// Shows that a daemon takes a configuration, and not the same with these lines in its neighbour.
pub fn rejects(cell: &Cell, lines: &str) {
    rejects_all(cell, &Setup { extra: lines.to_owned(), ..cell.setup() });
}

/// Shows that a daemon takes a plain configuration, and not this one.
pub fn rejects_all(cell: &Cell, setup: &Setup) {
    let (taken, said) = takes(cell, &cell.setup());
    assert!(taken, "the plain configuration is rejected: {said}");
    let (taken, said) = takes(cell, setup);
    assert!(!taken, "the other one is accepted: {said}");
    println!("{said}");
}

/// The version a daemon tells.
pub fn version(kind: Kind) -> String {
    let here = NetNs::current().unwrap();
    let option = if kind == Kind::Openbgpd { "-V" } else { "--version" };
    let (_, text) = lab::output(&here, kind.program(), &[option]);
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    text.split_whitespace().find(is_version).unwrap_or("?").to_owned()
}
