//! Scenarios: timed steps and expectations, for what-ifs, rehearsals and drills.

mod parse;
mod session;
pub mod spec;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::net::Asn;
pub use session::{DEFAULT_PORT, Exchange, SessionKind, Sessions};

/// A scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// The Internet file it plays on, relative to the scenario file; `None`: the embedded one.
    pub internet: Option<PathBuf>,
    /// Interval between two queries of a vantage point.
    pub query_every: Duration,
    /// `[[session]]`: what vantage points hold open meanwhile.
    pub sessions: Vec<Sessions>,
    /// `[[step]]`, in order.
    pub steps: Vec<Step>,
}

/// One step: an action, then a time of observation, then expectations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Unique label; default: the action's name, numbered when repeated.
    pub label: String,
    /// What is done.
    pub action: Action,
    /// How long the vantage points are observed afterwards (`for`).
    pub observe: Duration,
    /// What must hold; a failed expectation makes exit code 1.
    pub expect: Expect,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Action {
    /// Wait until every session is up, routing is quiet and every vantage point is answered.
    Converge {
        /// Give up after this time: the scenario has failed.
        within: Duration,
    },
    /// Only observe.
    Wait,
    /// A network sends what goes to the service by way of another neighbour, as when its preference changes: routes flip, and every
    /// site is well.
    Divert {
        /// Which.
        network: Asn,
        /// The neighbour; `None`: by what BGP says again.
        to: Option<Asn>,
    },
    /// A vantage point asks more often from now on: a flash crowd.
    Crowd {
        /// Which.
        vantage: String,
        /// So many times as often as at first.
        times: u32,
    },
    /// SIGKILL the service's processes.
    KillService {
        /// Where.
        site: SiteSelector,
    },
    /// SIGSTOP the service's processes: it hangs.
    HangService {
        /// Where.
        site: SiteSelector,
    },
    /// A file that checks of rehearsals can look at says that the service is bad, while it is not.
    FailCheck {
        /// Where.
        site: SiteSelector,
    },
    /// The file is gone again.
    PassCheck {
        /// Where.
        site: SiteSelector,
    },
    /// SIGCONT the service's processes.
    ResumeService {
        /// Where.
        site: SiteSelector,
    },
    /// Start the service anew.
    StartService {
        /// Where.
        site: SiteSelector,
    },
    /// SIGKILL the agent.
    KillAgent {
        /// Where.
        site: SiteSelector,
    },
    /// SIGTERM the agent.
    StopAgent {
        /// Where.
        site: SiteSelector,
    },
    /// Start the agent anew.
    StartAgent {
        /// Where.
        site: SiteSelector,
    },
    /// `ubique drain`.
    Drain {
        /// Where.
        site: SiteSelector,
    },
    /// `ubique undrain`.
    Undrain {
        /// Where.
        site: SiteSelector,
    },
    /// SIGSTOP every process of the site, as a machine that hangs.
    FreezeSite {
        /// Where.
        site: SiteSelector,
    },
    /// SIGCONT them.
    ThawSite {
        /// Where.
        site: SiteSelector,
    },
    /// Frames on the links of the site are dropped, both ways, without any link going down.
    CutSite {
        /// Where.
        site: SiteSelector,
    },
    /// The links of the site carry frames again.
    RestoreSite {
        /// Where.
        site: SiteSelector,
    },
}

/// Which site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteSelector {
    /// By name.
    Named(String),
    /// `busiest`: the one with most vantage points among those no earlier step touched.
    Busiest,
    /// `@label`: the one an earlier step chose.
    SameAs(String),
}

/// Expectations of a step; absent ones do not matter.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Expect {
    /// Median outage over the vantage points that landed on the site is at most this.
    pub outage_median: Option<Duration>,
    /// The longest outage of any vantage point is at most this.
    pub outage_worst: Option<Duration>,
    /// At most so many queries are lost over all vantage points.
    pub lost: Option<u64>,
    /// At most so many sessions are lost over all vantage points.
    pub sessions_lost: Option<u64>,
    /// No session waits longer than this for what is due.
    pub sessions_stall: Option<Duration>,
    /// At least so many sessions are lost in the control run, which has no data plane.
    pub control_lost: Option<u64>,
    /// Every vantage point lands somewhere at the end of the step.
    pub answered: Option<bool>,
    /// Nobody lands on the site of the step at its end (`true`), or somebody does (`false`).
    pub evacuated: Option<bool>,
    /// Vantage point → site at the end of the step.
    pub lands: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests;
