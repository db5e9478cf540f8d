//! The BGP codec against tables of the RFCs, generated messages, and data made by others.

mod corpus;
mod faults;
mod header;
mod mrt;
mod neighbours;
mod notification;
mod open;
mod roundtrip;
mod support;
