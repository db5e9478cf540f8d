//! Diagnostics: what is wrong in a file, where, why, and how to mend it. Plain data; the binary renders it.
//!
//! [`CODES`] lists every kind of finding once; `docs/diagnostics.md` is generated from it by [`markdown`].

mod codes;

use std::fmt::Write;

use serde::{Deserialize, Serialize};

pub use codes::*;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file can be used, but probably does not do what was meant.
    Warning,
    /// The file cannot be used.
    Error,
}

impl Severity {
    /// Errors have codes that start with `E`, warnings with `W`.
    pub fn of(code: &str) -> Severity {
        if code.starts_with('E') { Severity::Error } else { Severity::Warning }
    }
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

/// What reading a file gave: its value when there was no error, and all findings in the order of their places.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed<T> {
    /// The value; `None` exactly when `diagnostics` holds an error.
    pub value: Option<T>,
    /// Errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
}

impl<T> Parsed<T> {
    /// Whether the file cannot be used.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// The manual page of all codes.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Diagnostics\n\n\
         Every finding in a service, scenario or Internet file has a stable code. `E` codes are errors: the file cannot be\n\
         used. `W` codes are warnings: it can, but probably does not do what was meant. This page is generated from the table\n\
         in `ubique-model`.\n",
    );
    for code in CODES {
        let _ = write!(page, "\n## {} {}\n\n{}\n", code.code, code.title, code.explanation);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_sorted() {
        let codes: Vec<&str> = CODES.iter().map(|c| c.code).collect();
        let mut sorted = codes.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(codes, sorted);
        assert!(codes.iter().all(|c| c.len() == 5 && (c.starts_with("E0") || c.starts_with("W0"))));
    }

    #[test]
    fn manual_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/diagnostics.md");
        if std::env::var_os("UBIQUE_BLESS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == markdown(),
            "docs/diagnostics.md is stale: run UBIQUE_BLESS=1 cargo test -p ubique-model manual_page_is_fresh"
        );
    }

    #[test]
    fn json_form() {
        let d = Diagnostic {
            code: "E0101".into(),
            severity: Severity::Error,
            file: "a.toml".into(),
            start: 1,
            end: 2,
            line: 1,
            column: 2,
            message: "m".into(),
            cause: None,
            fix: Some("f".into()),
        };
        let json = serde_json::to_value(&d).unwrap();
        assert_eq!(json["severity"], "error");
        assert_eq!(serde_json::from_value::<Diagnostic>(json).unwrap(), d);
    }
}
