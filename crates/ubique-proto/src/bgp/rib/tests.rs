//! The RIB's four rungs: each rule by name, decision steps, random operations against an oracle, and a network.

mod named;
