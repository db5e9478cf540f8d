//! What a cell asks of a peer, whichever daemon it is.

use std::fmt;

use ubique_model::{Family, Prefix};
use ubique_proto::bgp::family::AddressFamilies;

use crate::lab;
use crate::seen::Seen;

/// The daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Bird,
    Frr,
    Gobgp,
    Openbgpd,
    Exabgp,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Bird, Kind::Frr, Kind::Gobgp, Kind::Openbgpd, Kind::Exabgp];

    /// As in the names of cells.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Bird => "bird",
            Kind::Frr => "frr",
            Kind::Gobgp => "gobgp",
            Kind::Openbgpd => "openbgpd",
            Kind::Exabgp => "exabgp",
        }
    }

    /// Its daemon.
    pub fn program(self) -> &'static str {
        match self {
            Kind::Bird => "/usr/sbin/bird",
            Kind::Frr => "/usr/lib/frr/bgpd",
            Kind::Gobgp => "/usr/bin/gobgpd",
            // Debian gives both daemons the same name in different places.
            Kind::Openbgpd => "/usr/sbin/bgpd",
            Kind::Exabgp => "/usr/sbin/exabgp",
        }
    }
}

/// As the page calls it.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Bird => "BIRD",
            Kind::Frr => "FRR",
            Kind::Gobgp => "GoBGP",
            Kind::Openbgpd => "OpenBGPD",
            Kind::Exabgp => "ExaBGP",
        })
    }
}

/// Who opens the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opens {
    /// We do; the peer listens.
    Us,
    /// The peer does.
    Peer,
    /// Both.
    Both,
}

/// The peer's configuration, in words every generator understands. A row that needs what a daemon lacks says so in its
/// table of those who cannot.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Family of the session's addresses.
    pub family: Family,
    /// Our address, and its.
    pub ours: String,
    pub theirs: String,
    pub local_as: u32,
    pub remote_as: u32,
    /// What the peer activates.
    pub families: AddressFamilies,
    pub hold_time_s: u32,
    pub opens: Opens,
    pub password: Option<&'static str>,
    /// GTSM: only packets with TTL 255.
    pub gtsm: bool,
    /// The capability for 4-octet AS numbers is not offered.
    pub two_octet: bool,
    /// What it announces from the start.
    pub announce: Vec<Theirs>,
    /// It has a second neighbour, [`lab::second`] in [`SECOND_AS`].
    pub second: bool,
    /// FRR's bgpd knows the interfaces, and bfdd runs.
    pub zebra: bool,
    /// It comes back from a restart (RFC 4724).
    pub restarted: bool,
    /// Lines for this daemon alone, inside its neighbour.
    pub extra: String,
    /// Lines for this daemon alone, for each unicast family of its neighbour.
    pub channel: String,
    /// Lines for this daemon alone, outside of it.
    pub global: String,
}

impl Setup {
    pub fn new(family: Family) -> Setup {
        Setup {
            family,
            ours: lab::ours(family).to_owned(),
            theirs: lab::theirs(family).to_owned(),
            local_as: THEIR_AS,
            remote_as: OUR_AS,
            families: AddressFamilies::only(family),
            hold_time_s: 90,
            opens: Opens::Us,
            password: None,
            gtsm: false,
            two_octet: false,
            announce: vec![],
            second: false,
            zebra: false,
            restarted: false,
            extra: String::new(),
            channel: String::new(),
            global: String::new(),
        }
    }

    /// The session is internal.
    pub fn internal(&self) -> bool {
        self.local_as == self.remote_as
    }
}

/// Our AS, unless a row says otherwise.
pub const OUR_AS: u32 = 64500;
/// The peer's.
pub const THEIR_AS: u32 = 65001;

/// That of our second speaker.
pub const SECOND_AS: u32 = 64502;

/// A route the peer announces.
#[derive(Clone, Debug)]
pub struct Theirs {
    pub prefix: Prefix,
    pub med: Option<u32>,
    /// `65001:7`.
    pub communities: Vec<&'static str>,
    /// `65001:1:2`.
    pub large: Vec<&'static str>,
    /// Path identifier (RFC 7911), where the daemon takes what it is told: ExaBGP.
    pub path: Option<u8>,
}

impl Theirs {
    pub fn new(prefix: Prefix) -> Theirs {
        Theirs { prefix, med: None, communities: vec![], large: vec![], path: None }
    }
}

/// A running daemon.
pub trait Peer {
    /// It can be asked; called until true.
    fn ready(&mut self) -> bool;
    /// It says that the session is established.
    fn established(&mut self) -> bool;
    /// The route to a prefix as it shows it, from us.
    fn route(&mut self, prefix: Prefix) -> Option<Seen>;
    /// The FlowSpec rules of our family as it shows them, in its own words.
    fn rules(&mut self, _family: Family) -> String {
        String::new()
    }
    /// Announces a route.
    fn announce(&mut self, route: &Theirs);
    /// Withdraws it.
    fn withdraw(&mut self, prefix: Prefix);
    /// Asks us to send our routes again.
    fn ask_refresh(&mut self);
    /// Shuts the session down with words (RFC 9003); the peer must not come back by itself.
    fn shut_down(&mut self, words: &str);
    /// It says that BFD with us is up.
    fn bfd_up(&mut self) -> bool {
        false
    }
    /// What it says about the session: words of a NOTIFICATION must be found here or in the log.
    fn said(&mut self) -> String;
    /// The daemon.
    fn process(&mut self) -> &mut crate::lab::Process;
    /// Its log, for a report.
    fn log(&mut self) -> String {
        self.process().log()
    }
}
