//! What is tried.

mod attributes;
mod basic;

use crate::matrix::Section;
use crate::peer::Kind;

/// All rows, as on the page.
pub const SECTIONS: &[Section] = &[
    Section { title: "Sessions and routes", rows: basic::ROWS },
    Section { title: "Attributes", rows: attributes::ROWS },
];

/// What is peculiar to a peer and was met in a run.
pub const NOTES: &[(Kind, &str)] = &[];
