//! Fuzz targets: what reads octets or lines of others, and what any sequence of inputs must not break.
//!
//! A target is a function of octets that panics when an invariant is broken; absence of panics is the least of them.
//! `fuzz/` (cargo-fuzz, outside the workspace, nightly) wraps each in a binary; `cargo xtask fuzz` runs them. The
//! corpora in `fuzz/corpus` are replayed through the same functions by `tests/replay.rs`, on stable.
//!
//! The targets of the cores share their audits and oracles with the random tests of `ubique-proto`: those files are
//! compiled here once more, with [`rng`] in the place of the seeded generator, so that the octets decide what a seed
//! decides there.
//!
//! Deliberately absent: cases with names (`crates/ubique-proto/tests`), anything that needs a socket.

#![forbid(unsafe_code)]

mod admin;
mod answers;
mod bfd;
mod files;
mod flowspec;
mod health;
mod kernel;
mod operator;
mod records;
mod rib;
mod rng;
mod site;
mod speaker;
mod wire;

#[path = "../../ubique-proto/tests/conformance/agree.rs"]
#[allow(dead_code, reason = "shared with the tests of ubique-proto")]
mod agree;
#[path = "../../ubique-proto/tests/conformance/oracle.rs"]
#[allow(dead_code, missing_docs, reason = "shared with the tests of ubique-proto")]
mod oracle;

// By these names the shared modules know the crate they come from.
use ubique_proto::{Time, bgp, journal, time};

/// Longest input, octets; longer ones are cut. Also the limit for files of the corpus.
pub const MAX_INPUT: usize = 8 << 10;

/// A target: its name, as in `fuzz/fuzz_targets`, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("message", wire::message),
    ("framer", wire::framer),
    ("roundtrip", wire::roundtrip),
    ("notification", wire::notification),
    ("flowspec", flowspec::flowspec),
    ("flowspec_text", flowspec::text),
    ("speaker", speaker::speaker),
    ("replay", speaker::replay),
    ("edge", speaker::edge),
    ("pair", speaker::pair),
    ("rib", rib::rib),
    ("dns_answer", answers::dns),
    ("ntp_answer", answers::ntp),
    ("certificate", answers::certificate),
    ("health", health::health),
    ("site", site::site),
    ("actions", operator::actions),
    ("drain", operator::drain),
    ("bfd", bfd::bfd),
    ("bmp", records::bmp),
    ("mrt", records::mrt),
    ("journal", records::journal),
    ("service", files::service),
    ("scenario", files::scenario),
    ("internet", files::internet),
    ("admin", admin::admin),
    ("kernel", kernel::kernel),
];

/// Runs one input through the target of that name.
///
/// # Panics
/// When there is no such target, or the input breaks one of its invariants.
pub fn run(name: &str, input: &[u8]) {
    let Some((_, target)) = TARGETS.iter().find(|(n, _)| *n == name) else {
        panic!("no target {name}");
    };
    target(&input[..input.len().min(MAX_INPUT)]);
}
