//! Run: thin tokio drivers around the protocol cores.
//!
//! - [`agent`]: `ubique run`: one site of one service. Addresses, checks, detectors, BGP, admin socket, metrics.
//! - [`routers`]: the embedded routers of the lab, all in one process, each in its own network namespace.
//! - [`bgp`]: the driver of a speaker, which both use.
//! - `monitor`: BMP collectors and MRT files; [`journal`]: what the cores were told.
//! - [`bfd`]: the driver of BFD sessions, in a thread of its own.
//! - [`sessions`]: the driver of the data plane, in a thread of its own.
//! - [`admin`]: the admin socket's protocol and a client for the command line; `api`: the same over HTTPS.
//! - [`checks`]: the polls of the health checks.
//!
//! Everything else runs on one current-thread runtime. Deliberately absent: protocol decisions, which are the cores'
//! (`ubique-proto`), and unsafe code, which is `ubique-sys`'s.

#![forbid(unsafe_code)]

mod accept;
pub mod admin;
pub mod agent;
#[cfg(feature = "tls")]
mod api;
pub mod bfd;
pub mod bgp;
mod bmp;
pub mod checks;
mod clock;
pub mod doctor;
mod fd;
pub mod journal;
mod limits;
mod monitor;
mod mrt;
mod notify;
#[cfg(test)]
mod ports;
mod random;
pub mod routers;
pub mod sessions;
mod spool;
mod state;
