//! Sessions in the report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ubique_model::traffic::How;

/// What became of sessions.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct SessionsReport {
    /// The data plane of each site; empty: the service has no `[sessions]`, or this is the control run.
    pub data_plane: Vec<DataPlaneInfo>,
    /// Each vantage point and kind, over the whole rehearsal.
    pub rows: Vec<SessionRow>,
    /// All of them together.
    pub total: SessionFigures,
    /// Each step, from its action to the next one's.
    pub steps: Vec<SessionStep>,
}

/// The data plane of a site, as its agent told at the first convergence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPlaneInfo {
    /// The site.
    pub site: String,
    /// `native`, `generic` or `off`.
    pub state: String,
    /// How TCP says its site: `cookie`, `timestamp` or `off`.
    pub tcp: String,
    /// What does not work.
    pub troubles: Vec<String>,
}

/// Sessions of one kind at one vantage point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The vantage point.
    pub vantage: String,
    /// As scenario files spell it.
    pub kind: String,
    /// What became of them.
    #[serde(flatten)]
    pub figures: SessionFigures,
}

/// Sessions during one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionStep {
    /// Label of the step.
    pub label: String,
    /// What became of those that were open, or began, in it.
    #[serde(flatten)]
    pub figures: SessionFigures,
}

/// What became of some sessions.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct SessionFigures {
    /// How many there were.
    pub sessions: u64,
    /// How many came to their end.
    pub done: u64,
    /// How many were lost.
    pub lost: u64,
    /// How → how many: `reset`, `timeout`, `refused`, `closed`, `wrong-content`, `unreachable`, `failed`.
    pub how: BTreeMap<How, u64>,
    /// The longest that any waited for what was due, ms.
    pub longest_wait_ms: f64,
    /// Octets that were compared with what was sent, and the same.
    pub content_bytes: u64,
    /// Site → sessions that began there.
    pub sites: BTreeMap<String, u64>,
}

impl SessionFigures {
    /// One more was lost.
    pub fn lose(&mut self, how: How) {
        self.lost += 1;
        *self.how.entry(how).or_default() += 1;
    }

    /// `3 reset, 1 timeout`.
    pub fn ways(&self) -> String {
        let way = |(how, count): (&How, &u64)| format!("{count} {}", how.as_str());
        self.how.iter().map(way).collect::<Vec<_>>().join(", ")
    }
}

impl SessionsReport {
    /// During this step.
    pub fn step(&self, label: &str) -> Option<&SessionFigures> {
        self.steps.iter().find(|step| step.label == label).map(|step| &step.figures)
    }

    /// Why there is no data plane, where there should be one.
    pub fn without_data_plane(&self) -> Option<String> {
        let off = self.data_plane.iter().find(|site| site.state == "off")?;
        Some(format!("{}: {}", off.site, off.troubles.join("; ")))
    }
}
