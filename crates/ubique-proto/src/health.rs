//! Health: from results of checks to one verdict.
//!
//! Each check has rise and fall counters; an event (the serving socket or process is gone) turns its check
//! down at once, without waiting for `fall` polls. The verdict is healthy when every check is up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Parameters of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckConfig {
    /// Name, for causes.
    pub name: String,
    /// Interval between the starts of two polls.
    pub every: Duration,
    /// A poll without a result by then has failed.
    pub timeout: Duration,
    /// Failures in a row that turn it down.
    pub fall: u32,
    /// Successes in a row that turn it up.
    pub rise: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum In {
    /// Result of poll number `poll` of a check; a late or repeated one is ignored.
    Result {
        /// Index of the check.
        check: usize,
        /// Number given by [`Out::Poll`].
        poll: u64,
        /// `Err`: why it failed, in words.
        result: Result<(), String>,
    },
    /// The socket or process that serves this check is gone: down at once.
    Gone {
        /// Index of the check.
        check: usize,
        /// What was seen, in words.
        cause: String,
    },
}

/// What the driver must do, or learns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Out {
    /// Start a poll; report its end as [`In::Result`] with this number.
    Poll {
        /// Index of the check.
        check: usize,
        /// Number of the poll.
        poll: u64,
    },
    /// The poll has timed out: abandon it. The core already counts it as failed.
    Abandon {
        /// Index of the check.
        check: usize,
        /// Number of the poll.
        poll: u64,
    },
    /// A check changed state.
    Check {
        /// Index of the check.
        check: usize,
        /// Its new state.
        up: bool,
        /// Why.
        cause: String,
    },
    /// The verdict over all checks changed.
    Verdict {
        /// Fit to serve.
        healthy: bool,
        /// Why.
        cause: String,
    },
}
