//! What is tried.

mod attributes;
mod basic;
mod transport;

use crate::matrix::Section;
use crate::peer::Kind;

/// All rows, as on the page.
pub const SECTIONS: &[Section] = &[
    Section { title: "Sessions and routes", rows: basic::ROWS },
    Section { title: "Attributes", rows: attributes::ROWS },
    Section { title: "Transport and the end of sessions", rows: transport::ROWS },
];

/// What is peculiar to a peer and was met in a run.
pub const NOTES: &[(Kind, &str)] = &[
    (Kind::Bird, "a MED counts only when the export filter sets it: one from a static route is dropped"),
    (
        Kind::Openbgpd,
        "its listeners have no TCP MD5 key under Linux, so that with a key it must be the one who connects: the rows md5 and md5-wrong do that",
    ),
];
