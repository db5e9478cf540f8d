//! Sessions of a rehearsal: clients that hold connections over TCP, TLS and QUIC, and the stand-in service of each site.
//!
//! One process has the clients of all vantage points ([`run_clients`]), another one the service of a site ([`serve`]); a session is a task,
//! not a thread. Everything that arrives is compared with what was sent: messages with their numbers, bulk with a sequence that both ends
//! know (`content`). Clients tell each session that is lost, how and when, and for each mark the lab sets what every lane saw since the last
//! one (`ubique_model::traffic`).
//!
//! `protocol` is the pure part. `exchange` runs it over any stream, at either end; `client`, `server`, `tls` and `quic` make the streams.
//! Deliberately absent: what is expected of sessions, and where they run: the lab's. Sockets are made in the vantage points' namespaces.

#![forbid(unsafe_code)]

mod client;
mod exchange;
mod protocol;
#[cfg(feature = "quic")]
mod quic;
#[cfg(not(feature = "quic"))]
#[path = "no_quic.rs"]
mod quic;
mod server;
mod tls;

use std::io;
use std::net::SocketAddr;

pub use client::run_clients;
pub use server::serve;

/// Why there is no traffic.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// A socket of the service.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// More sessions than are held.
    #[error("{0} sessions at once; at most {most} are possible", most = client::MAX_SESSIONS)]
    TooMany(u64),
    /// Certificates and TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// QUIC.
    #[error("QUIC: {0}")]
    Quic(String),
    /// Anything else of the kernel.
    #[error(transparent)]
    Io(#[from] io::Error),
}
