//! The BGP codec against tables of the RFCs, generated messages, and data made by others.

mod roundtrip;
mod support;
