//! What `ubique reload` and `ubique upgrade` ask, and what they are told.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ubique_model::Diagnostic;
use ubique_model::change::Change;

/// How a reload is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReloadRequest {
    /// Only say what would change.
    pub dry_run: bool,
    /// Also carry out what would surprise clients: prefixes and addresses that come or go, all sessions at once.
    pub yes: bool,
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReloadReply {
    /// [`super::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// What happened.
    pub outcome: ReloadOutcome,
    /// In words: why it was not carried out.
    pub message: Option<String>,
    /// What is wrong with the file, and what is odd about it.
    #[schemars(with = "Vec<serde_json::Value>")]
    pub diagnostics: Vec<Diagnostic>,
    /// What differs; absent when the file cannot be used.
    #[schemars(with = "Option<serde_json::Value>")]
    pub change: Option<Change>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadOutcome {
    /// It was carried out.
    Applied,
    /// There is nothing to do.
    Unchanged,
    /// It would be carried out.
    DryRun,
    /// A guard refused it: `yes` is needed.
    Refused,
    /// The file cannot be used: what ran before runs on.
    Unusable,
}

/// What became of an upgrade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UpgradeReply {
    /// [`super::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The program that is started.
    pub program: PathBuf,
    /// What it calls itself; absent when it could not be asked.
    pub version: Option<String>,
    /// Whether it is started now, or would be.
    pub accepted: bool,
    /// A guard refused it, and `yes` would help.
    pub guarded: bool,
    /// Why not.
    pub message: Option<String>,
}
