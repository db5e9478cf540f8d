//! What one upstream is told of an action.

use serde::{Deserialize, Serialize};
use ubique_model::net::action::Network;
use ubique_model::policy::Announcement;
use ubique_model::service::Upstream;
use ubique_model::{AddressFamily, Community, Family, Prefix};

use super::Kind;
use crate::bgp::flowspec::FlowSpec;

/// What an upstream is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Told {
    /// A route.
    Route(Announcement),
    /// A rule, with what happens to packets (RFC 8955 §7).
    Flow {
        /// Which packets.
        rule: FlowSpec,
        /// Extended communities.
        actions: Vec<[u8; 8]>,
    },
}

impl Told {
    /// The route, when it is one.
    pub fn route(self) -> Option<Announcement> {
        match self {
            Told::Route(route) => Some(route),
            Told::Flow { .. } => None,
        }
    }

    /// The rule and its extended communities, when it is one.
    pub fn rule(self) -> Option<(FlowSpec, Vec<[u8; 8]>)> {
        match self {
            Told::Flow { rule, actions } => Some((rule, actions)),
            Told::Route(_) => None,
        }
    }
}

/// Why an upstream is told nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Unreached {
    /// Nothing around it is announced there.
    #[error("{0} is not announced there")]
    Silent(Prefix),
    /// Its session has not the family.
    #[error("its session has no {0}: add it to `families`")]
    Family(String),
}

/// What `upstream` is told of an action, given all it is told of the service's prefixes now.
///
/// # Errors
/// It is told nothing of it.
pub fn told(what: &Kind, upstream: &Upstream, announced: &[Announcement]) -> Result<Told, Unreached> {
    let destination = match what.destination() {
        Some(destination) => destination,
        None => return Err(Unreached::Family("destination".to_owned())),
    };
    let family = Family::of(&destination);
    let needed = match what {
        Kind::Filter { .. } => AddressFamily::flowspec(family),
        Kind::Attract { .. } | Kind::Blackhole { .. } => AddressFamily::unicast(family),
    };
    if !upstream.families.contains(&needed) {
        return Err(Unreached::Family(needed.word().to_owned()));
    }
    // The service prefix, not another more-specific inside.
    let around = announced.iter().filter(|a| a.prefix.contains(&destination)).min_by_key(|a| a.prefix.prefix_len());
    let around = around.ok_or(Unreached::Silent(destination))?;
    Ok(match what {
        Kind::Attract { prefix } => Told::Route(Announcement { prefix: *prefix, ..around.clone() }),
        Kind::Blackhole { prefix } => {
            // RFC 7999 §3.2: with NO_EXPORT. Some networks know only a community of their own.
            let own = Network::of(upstream.asn).and_then(Network::blackhole);
            let mut communities: Vec<Community> =
                [Community::BLACKHOLE, Community::NO_EXPORT].into_iter().chain(own).collect();
            communities.sort_unstable();
            Told::Route(Announcement { communities, ..Announcement::new(*prefix) })
        }
        Kind::Filter { rule, then } => Told::Flow { rule: rule.clone(), actions: vec![then.community()] },
    })
}
