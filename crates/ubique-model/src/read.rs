//! Reading user files: bytes → TOML with spans → typed values, collecting every finding on the way.
//!
//! [`sink::Sink`] knows the text and gathers findings; [`spec`] describes each table once (keys, types, defaults,
//! limits), and drives both [`table::TableReader`] and the JSON Schemas; [`text`] turns strings into values.
//! Deliberately absent: serde for user files, since `flatten` and `untagged` lose positions.

pub(crate) mod formats;
#[cfg(test)]
mod manual;
pub(crate) mod schema;
pub(crate) mod sink;
pub(crate) mod spec;
pub(crate) mod suggest;
pub(crate) mod table;
pub(crate) mod text;
mod text_check;
mod unclosed;
pub(crate) mod value;
pub(crate) mod words;

/// Largest file that is read, bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Most findings reported for one file.
pub const MAX_DIAGNOSTICS: usize = 100;

/// Longest text value, characters; keeps findings readable and log lines bounded.
pub const MAX_TEXT_CHARS: usize = 1024;

/// Longest name, characters.
pub const MAX_NAME_CHARS: usize = 32;
