//! The packet path of a site: what keeps sessions alive when a route change takes their packets to another site.
//!
//! Two BPF programs on each interface towards the upstreams. The one for what arrives (XDP) asks each packet which site owns it
//! ([`ubique_proto::sessions`] has the encodings), lets our own pass to the kernel and sends those of other sites on, over UDP, to their
//! unicast addresses. The one for what leaves (tc) writes the site into the timestamps of TCP where the kernel cannot
//! be told to do so by itself.
//!
//! Where the kernel can adopt them ([`Tier::Cookies`]), connections begin by SYN cookies of our own: the first program answers SYNs, and a third
//! one (tc, for what arrives) hands the kernel what returns a cookie. Sequence number and timestamps say the site from then on, and
//! nothing that leaves is changed.
//!
//! State at a site that receives another's packets: none, except a cache for clients that say nothing about the owner.
//!
//! The programs are C (`bpf/`), compiled by `build.rs` and embedded. Without the feature `bpf`, or where there was no clang, everything
//! here exists all the same and [`Edge::load`] says [`Error::Unavailable`].
//!
//! Deliberately absent: who decides which site is up, how it is reached, and when it drains: that is the agent's.

pub mod config;
pub mod counters;
mod error;
mod program;

#[cfg(data_plane)]
mod adopt;
#[cfg(data_plane)]
mod device;
#[cfg(data_plane)]
mod layout;
#[cfg(data_plane)]
mod loader;
#[cfg(data_plane)]
mod notes;
#[cfg(data_plane)]
mod object;

#[cfg(not(data_plane))]
#[path = "absent.rs"]
mod loader;

#[cfg(data_plane)]
#[doc(hidden)]
pub use loader::Flood;
#[cfg(data_plane)]
#[doc(hidden)]
pub use object::Vectors;

#[cfg(data_plane)]
pub use adopt::{Former, attached, detach, is_ours};
#[cfg(data_plane)]
pub use device::device;
#[cfg(data_plane)]
pub use notes::Notes;

#[cfg(not(data_plane))]
pub use loader::{Former, Notes, attached, detach, device, is_ours};

pub use config::{Config, Found, IdKey, Keys, NextHop, Peer, Tier};
pub use counters::{Counter, Counters};
pub use error::Error;
pub use loader::{Attachment, Edge};
pub use program::{Device, Mode, Program, Run};
