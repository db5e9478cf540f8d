//! What is shown of the data plane.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The data plane of a site, which keeps connections alive across route changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionsStatus {
    /// How packets are looked at: `native`, `generic` (slower), `adopting` (a former agent's programs are at work, for seconds), or `off`.
    pub state: String,
    /// How TCP connections carry the number of their site: `cookie`, `timestamp`, or `off`.
    pub tcp: String,
    /// The number of this site.
    pub number: u8,
    /// Interfaces that programs are on.
    pub interfaces: Vec<SessionsInterface>,
    /// The other sites.
    pub sites: Vec<SessionsSite>,
    /// What does not work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<SessionsTrouble>,
    /// The clock of timestamps: what the wall clock said at 0 of the machine's monotonic clock, ms since 1970; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_base_ms: Option<u64>,
    /// Programs of a former agent were gone on with.
    pub adopted: bool,
    /// Who takes new connections while this site is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hands_over_to: Option<String>,
    /// Who an operator wants to take them (`ubique drain --to`), up or not; absent: the nearest that is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hands_over_wanted: Option<String>,
    /// Share of new TCP connections whose client offers no timestamps, 0 to 1; absent: there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_timestamps_ratio: Option<f64>,
    /// Packets by what was decided, for what was decided at all.
    pub decisions: BTreeMap<String, u64>,
}

/// An interface with programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionsInterface {
    /// Its name.
    pub name: String,
    /// `native` or `generic`.
    pub mode: String,
}

/// Another site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionsSite {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u8,
    /// Where it is reached.
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// It answers; absent: not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// Since when.
    pub since: String,
    /// From the last question to its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    /// How far its clock is ahead of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead_ms: Option<i64>,
    /// Why packets for it cannot leave, when that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_way: Option<String>,
}

/// Something that does not work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionsTrouble {
    /// What.
    pub what: String,
    /// Why, and often what to do about it.
    pub why: String,
}
