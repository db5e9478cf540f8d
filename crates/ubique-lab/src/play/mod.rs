//! Plays a scenario: the rehearsal itself.
//!
//! [`rehearse`] builds the world, starts the vantage points, carries out the steps one after the other while everybody
//! asks the service, and turns what was seen into a [`Report`]. It must run inside the sandbox
//! (`ubique_sys::sandbox`), on a thread that lives as long as the rehearsal.
//!
//! Queries that are never answered are known as lost only after a timeout, so steps are judged after the last one.
//! Deliberately absent: rendering; an [`Observer`] is told what happens while it happens.

mod action;
mod judge;
mod outcome;
mod prober;
mod sessions;
mod stage;

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use ubique_model::internet::Internet;
use ubique_model::scenario::{Action, Scenario, Step};
use ubique_model::service::Service;

use crate::measure::MAX_LANE_SAMPLES;
use crate::plan::{Plan, PlanError};
use crate::probe::record::ReadError;
use crate::report::live::LiveState;
use crate::report::{Event, Report, SessionsReport};
use crate::routers::Backend;
use crate::world::WorldError;

/// What to play, on what.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The service.
    pub service: Service,
    /// The text of its file, which the agents are given.
    pub service_text: Vec<u8>,
    /// The directory its file lies in.
    pub service_directory: PathBuf,
    /// The scenario.
    pub scenario: Scenario,
    /// The emulated Internet.
    pub internet: Internet,
    /// What routes it.
    pub backend: Backend,
    /// The `ubique` program, started for agents and parts of the lab.
    pub executable: PathBuf,
    /// Seed of everything random.
    pub seed: u64,
    /// What became of sessions without the data plane, when that was played first; `None`: it was not, or this is it.
    pub control: Option<SessionsReport>,
    /// Whether sites have the data plane of `[sessions]`: the control run is without.
    pub data_plane: bool,
}

/// Is told what happens.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: &Event);
    /// The state, a few times a second.
    fn frame(&mut self, state: &LiveState);
    /// The last step is over and the report is made; the lab still stands. Returning ends it.
    fn finished(&mut self, report: &Report);
}

/// Why a rehearsal could not be played.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The Internet and the service do not fit together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The world could not be built, or a part of it broke.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The lab's directory or the service file in it.
    #[error("cannot write to /run/ubique inside the sandbox")]
    Directory(#[source] std::io::Error),
    /// The vantage points could not be started.
    #[error("cannot start the vantage points")]
    Prober(#[source] std::io::Error),
    /// The clients that hold sessions broke.
    #[error("the clients that hold sessions")]
    Sessions(#[source] std::io::Error),
    /// The vantage points broke.
    #[error("the vantage points' records cannot be read")]
    Records(#[source] ReadError),
    /// The scenario asks for more queries than are kept.
    #[error("the scenario may last {total_s} s, but at this query-every only {most_s} s can be kept: ask less often")]
    TooLong {
        /// How long it may last, s.
        total_s: u64,
        /// How long it may be, s.
        most_s: u64,
    },
    /// The scenario names a site that the service does not have, or a step before any site was chosen.
    #[error("step {step:?}: {problem}")]
    Step {
        /// Label of the step.
        step: String,
        /// What is wrong.
        problem: String,
    },
}

/// Steps are judged at the end, so that every query must still be known then.
fn check_length(scenario: &Scenario) -> Result<(), PlayError> {
    let longest = |step: &Step| match step.action {
        Action::Converge { within } => within + step.observe,
        _ => step.observe,
    };
    let total: Duration = scenario.steps.iter().map(longest).sum();
    let most = scenario.query_every.saturating_mul(MAX_LANE_SAMPLES as u32);
    if total > most {
        return Err(PlayError::TooLong { total_s: total.as_secs(), most_s: most.as_secs() });
    }
    Ok(())
}

/// Plays the scenario from start to end.
pub fn rehearse(setup: &Setup, observer: &mut dyn Observer) -> Result<Report, PlayError> {
    let mut without = setup.service.clone();
    without.sessions = without.sessions.filter(|_| setup.data_plane);
    let plan = Plan::new(&setup.internet, &without)?;
    check_length(&setup.scenario)?;
    // Every link has two sockets, every vantage point one for each address: children inherit the limit.
    let limit = getrlimit(Resource::Nofile);
    // Without the right to it the lab runs as far as the limit goes.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let mut stage = stage::Stage::open(setup, plan, observer)?;
    for step in &setup.scenario.steps {
        stage.play(step)?;
    }
    let report = stage.report()?;
    stage.finished(&report);
    Ok(report)
}
