//! Diagnostics: what is wrong in a file, where, why, and how to mend it. Plain data; the binary renders it.

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file can be used, but probably does not do what was meant.
    Warning,
    /// The file cannot be used.
    Error,
}

/// One finding in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Stable code: `E0xxx` for errors, `W0xxx` for warnings; docs/diagnostics.md lists them all.
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// File name as the user gave it.
    pub file: String,
    /// First byte of the place.
    pub start: usize,
    /// Byte after the place.
    pub end: usize,
    /// Line of `start`, from 1.
    pub line: usize,
    /// Column of `start` in characters, from 1.
    pub column: usize,
    /// What is wrong, one line.
    pub message: String,
    /// Why that matters, when it is not obvious.
    pub cause: Option<String>,
    /// How to mend it.
    pub fix: Option<String>,
}
