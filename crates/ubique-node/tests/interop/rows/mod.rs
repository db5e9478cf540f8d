//! What is tried.

mod agent;
mod attributes;
mod basic;
mod detection;
mod features;
mod restart;
mod roles;
mod transport;

use crate::matrix::Section;
use crate::peer::Kind;

/// All rows, as on the page.
pub const SECTIONS: &[Section] = &[
    Section { title: "Sessions and routes", rows: basic::ROWS },
    Section { title: "Attributes", rows: attributes::ROWS },
    Section { title: "Capabilities", rows: features::ROWS },
    Section { title: "Roles and limits", rows: roles::ROWS },
    Section { title: "Graceful restart", rows: restart::ROWS },
    Section { title: "Transport and the end of sessions", rows: transport::ROWS },
    Section { title: "BFD", rows: detection::ROWS },
    Section { title: "The agent", rows: agent::ROWS },
];

/// What is peculiar to a peer and was met in a run.
pub const NOTES: &[(Kind, &str)] = &[
    (Kind::Bird, "a MED counts only when the export filter sets it: one from a static route is dropped"),
    (Kind::Frr, "it adds NO_EXPORT to a route with BLACKHOLE"),
    (
        Kind::Frr,
        "it looks at its limit of prefixes before it counts a new one: the session ends with the second route too many",
    ),
    (
        Kind::Frr,
        "with enhanced refresh it refuses a request before it has sent End-of-RIB (\"before EoR\"), and it sends that only to \
         neighbours with the graceful restart capability: the row refresh-ours offers it",
    ),
    (
        Kind::Gobgp,
        "a policy cannot set LOCAL_PREF 0, which it takes for \"leave it\": the row graceful-shutdown sets 1",
    ),
    (
        Kind::Openbgpd,
        "its listeners have no TCP MD5 key under Linux, so that with a key it must be the one who connects: the rows md5 and \
         md5-wrong do that",
    ),
    (
        Kind::Exabgp,
        "4.2.21 now and then fails to end a collision, and every later session with that neighbour (`'NoneType' object has no \
         attribute 'router_id'`): the row collision then starts it again",
    ),
];
