//! The BGP codec against tables of the RFCs, generated messages, and data made by others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod captures;
mod corpus;
mod exabgp;
mod extensions;
mod faults;
mod flowspec;
mod header;
mod mrt;
mod neighbours;
mod notification;
mod open;
#[path = "../monitor/pcap.rs"]
#[allow(dead_code, reason = "captures are only read here")]
mod pcap;
mod roundtrip;
mod speed;
mod support;
mod updates;
mod vectors;
