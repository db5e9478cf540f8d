//! `[[session]]`: sessions that vantage points hold while the steps are played.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Sessions of one kind, from some vantage points, to every service address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sessions {
    /// What kind.
    pub kind: SessionKind,
    /// What runs over them.
    pub exchange: Exchange,
    /// Names of the vantage points; empty: all.
    pub vantages: Vec<String>,
    /// So many at once, from each of these vantage points to each service address.
    pub count: u32,
    /// Port at the service addresses; `None`: the first that `[sessions]` of the service names, or [`DEFAULT_PORT`].
    pub port: Option<u16>,
}

/// Port of sessions, TCP and UDP, when neither the scenario nor the service names one.
pub const DEFAULT_PORT: u16 = 8480;

/// A kind of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionKind {
    /// Connections over TCP, one after the other: a request, its answer, the end.
    TcpShort,
    /// A connection over TCP with messages both ways.
    Tcp,
    /// Bulk from the client, over TCP.
    Upload,
    /// Bulk to the client, over TCP.
    Download,
    /// As [`SessionKind::Tcp`], inside TLS 1.3.
    Tls,
    /// As [`SessionKind::Tcp`], on a stream of QUIC.
    Quic,
}

impl SessionKind {
    /// Each with its word.
    pub const ALL: [(SessionKind, &'static str); 6] = [
        (SessionKind::TcpShort, "tcp-short"),
        (SessionKind::Tcp, "tcp"),
        (SessionKind::Upload, "upload"),
        (SessionKind::Download, "download"),
        (SessionKind::Tls, "tls"),
        (SessionKind::Quic, "quic"),
    ];

    /// As scenario files spell it.
    pub fn as_str(self) -> &'static str {
        SessionKind::ALL.iter().find(|(kind, _)| *kind == self).map_or("tcp", |(_, word)| word)
    }
}

/// What runs over a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exchange {
    /// A message each `every`, and its echo; of short sessions: a session each `every`.
    Messages {
        /// Interval.
        every: Duration,
    },
    /// A transfer, then the next one.
    Bulk {
        /// Length of a transfer, KiB.
        size_kib: u32,
        /// Pace of the sender, bits of content per second.
        rate_bits_per_s: u64,
    },
}
