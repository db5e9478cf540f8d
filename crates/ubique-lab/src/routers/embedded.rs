//! The embedded routers: one process for all networks, asked over its control socket.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};
use ubique_model::{Asn, Prefix};

use super::{Backend, Candidate, Launch, QUERY_TIMEOUT, RoutersError, START_TIMEOUT, Status, start_failed};
use crate::build::{Built, WIRE};
use crate::child::{self, Process};
use crate::control;
use crate::plan::Plan;

const NAME: &str = "embedded routers";

pub(super) struct Embedded {
    process: Process,
    socket: PathBuf,
}

#[derive(Deserialize)]
struct Routes {
    candidates: Vec<Candidate>,
}

impl Embedded {
    pub(super) fn start(plan: &Plan, built: &Built, launch: &Launch) -> Result<Embedded, RoutersError> {
        if plan.networks.iter().flat_map(|n| &n.sessions).any(|s| s.password_file.is_some()) {
            return Err(RoutersError::Unsupported {
                backend: Backend::Embedded,
                reason: "they know no TCP MD5 secrets (password-file); rehearse with --routers bird or frr".into(),
            });
        }
        let socket = launch.directory.join("routers.sock");
        let file = launch.directory.join("routers.json");
        let spec = plan.routers_spec(&socket, built.directory(), launch.seed);
        let text = serde_json::to_vec(&spec).map_err(|e| start_failed("routers.json")(e.into()))?;
        std::fs::write(&file, text).map_err(start_failed(file.display().to_string()))?;
        let arguments = ["internal".into(), "routers".into(), file.display().to_string()];
        // It enters the networks' namespaces itself; where it starts does not matter.
        let namespace = built.namespace(WIRE).ok_or(RoutersError::NoNetwork(Asn(0)))?;
        let log = launch.logs.join("routers.log");
        let process =
            Process::start(NAME, &launch.executable, &arguments, namespace, log.clone()).map_err(start_failed(NAME))?;
        let mut embedded = Embedded { process, socket };
        let answers = |e: &mut Embedded| e.process.status().is_some() || e.query(&json!({"query": "status"})).is_ok();
        if !child::wait_until(START_TIMEOUT, || answers(&mut embedded)) {
            let log = format!("\n{}", child::tail(&log));
            return Err(RoutersError::NotReady { name: NAME.into(), log });
        }
        match embedded.process.unexpected_exit() {
            Some(exit) => Err(RoutersError::Ended(exit)),
            None => Ok(embedded),
        }
    }

    fn query(&self, question: &Value) -> Result<Value, RoutersError> {
        control::request(&self.socket, question, QUERY_TIMEOUT)
            .map_err(|source| RoutersError::Query { name: NAME.into(), source })
    }

    pub(super) fn status(&mut self) -> Result<Status, RoutersError> {
        understand(self.query(&json!({"query": "status"}))?)
    }

    pub(super) fn candidates(&mut self, asn: Asn, prefix: Prefix) -> Result<Vec<Candidate>, RoutersError> {
        let answer = self.query(&json!({"query": "routes", "asn": asn, "prefix": prefix}))?;
        Ok(understand::<Routes>(answer)?.candidates)
    }

    pub(super) fn processes(&mut self) -> &mut [Process] {
        std::slice::from_mut(&mut self.process)
    }
}

fn understand<T: for<'de> Deserialize<'de>>(answer: Value) -> Result<T, RoutersError> {
    T::deserialize(&answer).map_err(|_| RoutersError::Answer { name: NAME.into(), answer: answer.to_string() })
}
