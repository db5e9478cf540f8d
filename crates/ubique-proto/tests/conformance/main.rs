//! Conformance: what a neighbour may send, and whether we do what the RFCs ask for.
//!
//! `cases.txt` has the cases with names, `table` reads it, `oracle` judges any octets without the codec. Each case goes
//! through the oracle, the codec and a live session with a second neighbour that must not notice; the malformed
//! messages of public fuzzing campaigns, recorded UPDATEs and mutations of sound messages go through the same three.
//! `crates/ubique-node/tests/site/conformance.rs` plays a selection against the agent over TCP. Faults of attributes
//! with every detail of the value that remains are in `tests/wire/faults.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agree;
mod cases;
mod corpus;
mod live;
mod oracle;
mod table;
