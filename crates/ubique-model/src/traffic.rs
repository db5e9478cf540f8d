//! Sessions of a rehearsal: what the stand-in service of a site and the clients at the vantage points are told, and what the clients tell.
//!
//! JSON between processes of one version, not a user format: one specification each in a file, then [`Order`]s as lines on the clients'
//! standard input and [`News`] as lines on their standard output.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::scenario::{Exchange, SessionKind};

/// A session that waits so long for what is due is lost. Longer than the first retransmissions of a SYN and of a packet on a path around
/// the Earth.
pub const PATIENCE: Duration = Duration::from_secs(4);
/// Longest name of a site on a session, octets.
pub const SITE_NAME_BYTES: usize = 63;

/// The stand-in service of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// Name of the site, told to every client.
    pub site: String,
    /// Where it listens, over TCP; TLS comes to the same port.
    pub tcp: Vec<SocketAddr>,
    /// Where it listens, over QUIC.
    pub quic: Vec<SocketAddr>,
    /// Number of the site in connection identifiers of QUIC, and the file of the secret their key is made of.
    pub identifiers: Option<(u8, PathBuf)>,
    /// A file that appears once it listens everywhere.
    pub ready: PathBuf,
}

/// The clients of all vantage points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientsSpec {
    /// Who asks whom for what; news refer to them by index.
    pub lanes: Vec<LaneSpec>,
}

/// Sessions of one kind from one vantage point to one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneSpec {
    /// Path of the vantage point's network namespace.
    pub netns: PathBuf,
    /// Address it sends from.
    pub from: IpAddr,
    /// Where the service is.
    pub to: SocketAddr,
    /// What kind.
    pub kind: SessionKind,
    /// What runs over them.
    pub exchange: Exchange,
    /// So many at once.
    pub count: u32,
}

/// What clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// A step begins: tell what was seen since the last one, under this number.
    Mark(u32),
}

/// What clients tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum News {
    /// Every session that is to be held at once was open, or lost.
    Begun,
    /// A session was lost.
    Lost(Loss),
    /// What was seen from one mark to the next: one entry for each lane.
    Window {
        /// Number of the mark that ended it.
        mark: u32,
        /// Each lane.
        lanes: Vec<LaneWindow>,
    },
}

/// A session that did not end well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Which lane.
    pub lane: usize,
    /// From when on nothing came that was due, CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
    /// How it ended.
    pub how: How,
    /// The site that served it; `None`: it was never open.
    pub site: Option<String>,
}

/// How a session was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The other end does not know it: RST, or a stateless reset of QUIC.
    Reset,
    /// Nothing came for [`PATIENCE`].
    Timeout,
    /// Nobody listens.
    Refused,
    /// It ended before it was over.
    Closed,
    /// Content was not what was sent.
    WrongContent,
    /// The network said that there is no way.
    Unreachable,
    /// Anything else: a handshake that failed.
    Failed,
}

impl How {
    /// In a word or two.
    pub fn as_str(self) -> &'static str {
        match self {
            How::Reset => "reset",
            How::Timeout => "timeout",
            How::Refused => "refused",
            How::Closed => "closed",
            How::WrongContent => "wrong content",
            How::Unreachable => "unreachable",
            How::Failed => "failed",
        }
    }
}

/// What a lane saw from one mark to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneWindow {
    /// Sessions that were there when it began.
    pub live: u64,
    /// Sessions that began.
    pub begun: u64,
    /// Sessions that ended well.
    pub done: u64,
    /// Longest time that a session waited for what was due, ns; one that was lost until it was given up.
    pub longest_wait_ns: u64,
    /// Octets of content that came, in either direction, all of it as it was sent.
    pub content_bytes: u64,
    /// Site → sessions that began there.
    pub sites: BTreeMap<String, u64>,
}
