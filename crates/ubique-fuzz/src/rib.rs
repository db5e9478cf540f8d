//! The RIB against the oracle of its random tests, which recomputes everything from scratch after each operation.

#[path = "../../ubique-proto/src/bgp/rib/tests/common.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests of ubique-proto")]
mod common;
#[path = "../../ubique-proto/src/bgp/rib/tests/oracle.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests of ubique-proto")]
mod oracle;

/// Octets: eager or lazy driver, then neighbours and operations.
pub(crate) fn rib(input: &[u8]) {
    let mut rng = crate::rng::feed(input);
    oracle::play(u64::from(rng.octet()));
}

/// What the oracle's tests see from inside.
fn holders(_: &ubique_proto::bgp::rib::Rib) -> Option<usize> {
    None
}

/// As above.
fn unvouched(_: &ubique_proto::bgp::rib::Rib, _: ubique_proto::bgp::speaker::PeerId) -> Option<usize> {
    None
}
