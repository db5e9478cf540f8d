//! Every protocol of ubique as a sans-IO core.
//!
//! A core never reads a clock, opens a socket or draws from global randomness. Its driver passes the
//! time in, feeds inputs, asks for the next deadline and carries out the outputs:
//!
//! ```text
//! handle_input(now, In) · handle_deadline(now) · next_deadline() -> Option<Time> · poll_output() -> Option<Out>
//! ```
//!
//! Inputs and outputs can be serialised, so that any incident can be recorded and replayed.
//!
//! - [`bgp::wire`]: messages ↔ bytes (RFC 4271, 4760, 5492, 6793, 2918, 7606, 1997, 8092, 9003).
//! - [`bgp::session`]: one neighbour: the finite state machine and connection collision (RFC 4271 §6.8, §8).
//! - [`bgp::rib`]: Adj-RIB-In, Loc-RIB, Adj-RIB-Out and the decision process (RFC 4271 §9).
//! - [`bgp::speaker`]: sessions and RIB together: what a driver runs.
//! - [`bfd`]: neighbours lost and found within milliseconds (RFC 5880, 5881, 5883).
//! - [`flap`]: what the damping of upstreams holds against us.
//! - [`health`]: rise, fall and events of one check; the verdict over all checks.
//! - [`actions`]: what an operator asks for, for a while; drains that watch the traffic go.
//! - [`bmp`], [`mrt`]: what collectors and files are told (RFC 7854, 8671, 6396, 8050).
//! - [`journal`]: what the cores were told, to run them again.
//! - [`sessions`]: which site a packet of a client belongs to.
//! - [`site`]: the order that is safety: address, healthy, announce; withdraw, drain, remove.

#![forbid(unsafe_code)]

pub mod actions;
pub mod bfd;
pub mod bgp;
pub mod bmp;
pub mod flap;
pub mod health;
pub mod journal;
pub mod mrt;
pub mod rng;
pub mod sessions;
pub mod site;
pub mod time;

pub use time::Time;
