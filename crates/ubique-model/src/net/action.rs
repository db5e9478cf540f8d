//! Action communities of well-known networks: what a customer may ask of them, by name instead of by number.
//!
//! `cogent:no-peers` in a service file is 174:991. The table holds only what a network has published, or what a public
//! collection says it has; each entry names its source and when that was read. Networks change these numbers without
//! telling anybody: what matters is verified with the network (`ubique check` prints the numbers with `--print`).
//!
//! Deliberately absent: networks whose numbers could not be found in a source (Tata 6453, GTT 3257), communities that
//! networks set themselves (where a route was learned), and combinations: one word is one community.

mod networks;

use std::fmt::Write as _;

use super::{Asn, Community};
use crate::read::suggest::nearest;

pub use networks::NETWORKS;

/// A network and what its customers may ask of it.
#[derive(Debug)]
pub struct Network {
    /// Its AS.
    pub asn: Asn,
    /// What comes before the colon: `cogent`; `as174` means the same.
    pub word: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Where the numbers come from.
    pub source: &'static str,
    /// As of when the source stood so, as far as it says.
    pub as_of: &'static str,
    /// What can be asked.
    pub requests: &'static [Request],
    /// What can be asked with regard to one other network: the word ends in `-as` and its number.
    pub towards: &'static [Towards],
}

/// Something a customer may ask.
#[derive(Debug)]
pub struct Request {
    /// What comes after the colon.
    pub word: &'static str,
    /// High and low half.
    pub community: (u16, u16),
    /// What the network does.
    pub effect: &'static str,
}

/// Something a customer may ask with regard to one other network.
#[derive(Debug)]
pub struct Towards {
    /// What comes after the colon and before `-as` and the number: `no`, `prepend-2`.
    pub word: &'static str,
    /// How the community is made.
    pub code: Code,
    /// What the network does.
    pub effect: &'static str,
}

/// How a community that is about another network is made.
#[derive(Debug)]
pub enum Code {
    /// This, and the number of the other network, which must fit in 16 bits.
    High(u16),
    /// The network's own number, and this plus the code of the other network.
    Listed(u16, &'static [(u16, u32)]),
}

/// Why a word of the form `network:request` is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownRequest {
    /// What is wrong, as half a sentence.
    pub reason: String,
    /// What was probably meant.
    pub fix: String,
}

impl Request {
    /// Its value.
    pub fn value(&self) -> Community {
        community(self.community.0, self.community.1)
    }
}

fn community(high: u16, low: u16) -> Community {
    Community(u32::from(high) << 16 | u32::from(low))
}

impl Network {
    /// The one of that AS.
    pub fn of(asn: Asn) -> Option<&'static Network> {
        NETWORKS.iter().find(|network| network.asn == asn)
    }

    /// How its customers have a destination's packets discarded, where it takes another community than RFC 7999's.
    pub fn blackhole(&self) -> Option<Community> {
        self.requests.iter().find(|request| request.word == "blackhole").map(Request::value)
    }

    fn request(&self, word: &str) -> Option<Community> {
        if let Some(request) = self.requests.iter().find(|request| request.word == word) {
            return Some(request.value());
        }
        let (word, other) = word.rsplit_once("-as")?;
        let other: u32 = other.parse().ok()?;
        let towards = self.towards.iter().find(|towards| towards.word == word)?;
        match towards.code {
            Code::High(high) => Some(community(high, u16::try_from(other).ok()?)),
            Code::Listed(base, codes) => {
                let (code, _) = codes.iter().find(|(_, asn)| *asn == other)?;
                Some(community(u16::try_from(self.asn.0).ok()?, base + code))
            }
        }
    }

    fn words(&self) -> Vec<String> {
        let requests = self.requests.iter().map(|request| request.word.to_owned());
        requests.chain(self.towards.iter().map(|towards| format!("{}-asN", towards.word))).collect()
    }
}

/// The community of a word like `cogent:no-peers` or `as2914:prepend-1`; `None`: it has not that form.
///
/// # Errors
/// There is no such network in the table, or it has no such request.
pub fn named(text: &str) -> Option<Result<Community, UnknownRequest>> {
    let (network, request) = text.split_once(':')?;
    if !network.starts_with(|c: char| c.is_ascii_alphabetic()) || request.contains(':') {
        return None;
    }
    let number = network.strip_prefix("as").and_then(|number| number.parse().ok().map(Asn));
    let Some(found) = NETWORKS.iter().find(|n| n.word == network || Some(n.asn) == number) else {
        let words: Vec<&str> = NETWORKS.iter().map(|n| n.word).collect();
        let fix = match nearest(network, words.iter().copied()) {
            Some(near) => format!("did you mean \"{near}:{request}\"?"),
            None => format!("known networks: {}; or write the number the network publishes", words.join(", ")),
        };
        return Some(Err(UnknownRequest { reason: format!("the network {network:?} is not in the table"), fix }));
    };
    Some(found.request(request).ok_or_else(|| {
        let words = found.words();
        let fix = match nearest(request, words.iter().map(String::as_str)) {
            Some(near) if !near.ends_with("-asN") => format!("did you mean \"{network}:{near}\"?"),
            _ => format!("known for {network}: {}", words.join(", ")),
        };
        UnknownRequest { reason: format!("{} has no request {request:?} in the table", found.name), fix }
    }))
}

/// The table as a page of the manual.
pub fn manual() -> String {
    let mut out = String::from(
        "# Action communities of well-known networks\n\n\
         Generated from the table in `crates/ubique-model/src/net/action/networks.rs`. Each word can stand in `communities` of a\n\
         service file: `communities = [\"cogent:no-peers\"]` is `[\"174:991\"]`; `as174:no-peers` means the same. A word with `-asN` is\n\
         completed by the number of the other network: `ntt:prepend-2-as3356`. An unknown word is an error of `ubique check`.\n\n\
         Networks change these numbers without notice: ask yours before you rely on one. Absent are networks for which no source\n\
         was found, among them Tata (6453) and GTT (3257); write their numbers as numbers.\n",
    );
    for network in NETWORKS {
        let _ = write!(out, "\n## {} (AS{}): `{}:`\n\n", network.name, network.asn, network.word);
        let _ = write!(
            out,
            "Source: {} ({}).\n\n| word | community | effect |\n|---|---|---|\n",
            network.source, network.as_of
        );
        for request in network.requests {
            let _ = writeln!(out, "| `{}` | `{}` | {} |", request.word, request.value(), request.effect);
        }
        for towards in network.towards {
            let community = match towards.code {
                Code::High(high) => format!("`{high}:N`"),
                Code::Listed(base, codes) => {
                    let of = |(code, asn): &(u16, u32)| format!("{asn}: {}", base + code);
                    format!("`{}:` and for AS {}", network.asn, codes.iter().map(of).collect::<Vec<_>>().join(", "))
                }
            };
            let _ = writeln!(out, "| `{}-asN` | {community} | {} |", towards.word, towards.effect);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_numbers() {
        for (word, number) in [
            ("cogent:no-peers", "174:991"),
            ("as174:no-peers", "174:991"),
            ("ntt:blackhole", "2914:666"),
            ("ntt:prepend-2-as3356", "65502:3356"),
            ("sparkle:no-as1299", "6762:20007"),
            ("sparkle:prepend-3-as174", "6762:20312"),
            ("arelion:no-peers-europe", "1299:2009"),
            ("he:blackhole", "6939:666"),
        ] {
            let parsed: Community = word.parse().expect(word);
            assert_eq!(parsed.to_string(), number, "{word}");
        }
    }

    #[test]
    fn unknown_words_are_told_with_what_was_meant() {
        let error = |word| named(word).expect("of that form").expect_err("unknown");
        assert!(error("cogant:no-peers").fix.contains("cogent:no-peers"));
        assert!(error("cogent:no-peer").fix.contains("no-peers"));
        assert!(error("nobody:anything").fix.contains("known networks"));
        assert!(error("ntt:prepend-2-as70000").reason.contains("no request"));
        assert!(error("sparkle:no-as65000").reason.contains("no request"));
        assert_eq!(named("174:991"), None);
        assert_eq!(named("rt:1:2"), None);
    }

    #[test]
    fn the_table_is_sound() {
        for (place, network) in NETWORKS.iter().enumerate() {
            let others = &NETWORKS[place + 1..];
            assert!(others.iter().all(|n| n.word != network.word && n.asn != network.asn), "{}", network.word);
            assert!(network.source.contains('.') && !network.as_of.is_empty(), "{}", network.word);
            let words = network.words();
            for (place, word) in words.iter().enumerate() {
                assert!(!words[place + 1..].contains(word), "{}:{word}", network.word);
                assert!(word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == 'N'));
            }
        }
    }

    #[test]
    fn manual_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/communities.md");
        if std::env::var_os("UBIQUE_BLESS").is_some() {
            std::fs::write(path, manual()).expect("written");
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == manual(),
            "docs/communities.md is stale: run UBIQUE_BLESS=1 cargo test -p ubique-model manual"
        );
    }
}
