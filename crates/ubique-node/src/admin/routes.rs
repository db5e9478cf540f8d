//! Routes as the admin socket tells them: a page at a time, so that a million of them neither block the agent nor fill
//! anybody's memory.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ubique_model::{Asn, Prefix};

use super::Announced;

/// Which routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RoutesRequest {
    /// Only this prefix, exactly.
    #[schemars(with = "Option<String>")]
    pub prefix: Option<Prefix>,
    /// Only the longest prefix that holds this address.
    pub address: Option<IpAddr>,
    /// Only routes of this neighbour.
    pub peer: Option<IpAddr>,
    /// Only these; absent: both.
    pub direction: Option<Direction>,
    /// Where the page before ended.
    pub after: Option<Place>,
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From a neighbour: Adj-RIB-In.
    Received,
    /// To a neighbour: Adj-RIB-Out.
    Sent,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// Among which routes; received ones come first.
    pub direction: Direction,
    /// Number of the neighbour, for routes sent.
    pub peer: u32,
    /// The first prefix; absent: from the first.
    #[schemars(with = "Option<String>")]
    pub prefix: Option<Prefix>,
}

/// A page of routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RoutesPage {
    /// [`super::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The routes; there may be none though more pages follow.
    pub routes: Vec<RouteView>,
    /// Where the next page begins; absent: this was the last.
    pub next: Option<Place>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteView {
    /// Whether it was received or sent.
    pub direction: Direction,
    /// The neighbour.
    pub peer: IpAddr,
    /// Its AS.
    #[schemars(with = "u32")]
    pub asn: Asn,
    /// Destination.
    #[schemars(with = "String")]
    pub prefix: Prefix,
    /// Path identifier (RFC 7911); 0: none.
    pub path_id: u32,
    /// Next hop, as received or sent.
    pub next_hop: Option<IpAddr>,
    /// AS_PATH; sets in braces.
    pub as_path: String,
    /// `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF, of an internal neighbour.
    pub local_pref: Option<u32>,
    /// Communities.
    pub communities: Vec<String>,
    /// Large communities.
    pub large_communities: Vec<String>,
    /// Extended communities, in hexadecimal.
    pub extended_communities: Vec<String>,
    /// It is the best of those received.
    pub best: bool,
    /// The step of the decision at which a received route lost, or why it does not take part.
    pub step: Option<String>,
    /// `restart` or `long-lived`: its neighbour has not vouched for it since it went away.
    pub stale: Option<String>,
    /// When it was received, RFC 3339.
    pub since: Option<String>,
    /// And how long ago, s.
    pub age_s: Option<u64>,
    /// How far an announcement of ours got.
    pub announced: Option<Announced>,
}
