//! A route as a peer shows it, in one form for all peers.

use std::collections::BTreeSet;

/// What a peer says about a route of ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub next_hop: String,
    pub as_path: Vec<u32>,
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    /// `64500:100`; well-known ones as numbers, too.
    pub communities: BTreeSet<String>,
    /// `64500:1:2`.
    pub large: BTreeSet<String>,
    /// All the peer printed, where it has no form of its own here.
    pub raw: String,
}

/// Names peers give well-known communities, in lower case without separators → number.
const WELL_KNOWN: &[(&str, &str)] = &[
    ("gracefulshutdown", "65535:0"),
    ("llgrstale", "65535:6"),
    ("blackhole", "65535:666"),
    ("noexport", "65535:65281"),
    ("noadvertise", "65535:65282"),
    ("noexportsubconfed", "65535:65283"),
    ("localas", "65535:65283"),
    ("nopeer", "65535:65284"),
];

/// A community in any of the ways peers print it: `(64500, 1)`, `64500:1`, `NO_EXPORT`.
pub fn community(text: &str) -> String {
    let plain: String = text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == ':' || *c == ',').collect();
    let name = plain.to_ascii_lowercase();
    let known = WELL_KNOWN.iter().find(|(known, _)| *known == name);
    known.map_or_else(|| plain.replace(',', ":"), |(_, number)| (*number).to_owned())
}

/// A community as one number.
pub fn community_of(number: u64) -> String {
    format!("{}:{}", number >> 16, number & 0xffff)
}

/// Numbers of an AS path as printed, brackets of sets ignored.
pub fn as_path(text: &str) -> Vec<u32> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
}
