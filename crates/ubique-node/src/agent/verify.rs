//! The start gate's question: does the service answer on each of its addresses?
//!
//! An address that a check asks has answered `rise` times before this is asked. The others (the service's second family,
//! usually) are asked once here, the way the first check that asks a service address does it. Where no check asks any,
//! there is nothing to go by, and nothing is asked.

use std::net::IpAddr;
use std::time::Duration;

use ubique_model::check::CheckKind;
use ubique_model::service::Service;

use super::detect::Detected;
use super::site::Agent;
use crate::checks;

/// What to ask, whom, and how long to wait for the answer.
struct Question {
    address: IpAddr,
    kind: CheckKind,
    timeout: Duration,
}

/// One question for each address that no check asks.
fn questions(service: &Service) -> Vec<Question> {
    let asked = |address: &IpAddr| {
        let asks = |kind| checks::servers(kind, &service.addresses).iter().any(|(to, _)| to.ip() == *address);
        service.checks.iter().find(|check| asks(&check.kind))
    };
    let Some(model) = service.addresses.iter().find_map(asked) else {
        return vec![];
    };
    let unasked = service.addresses.iter().filter(|address| asked(address).is_none());
    let question = |address: &IpAddr| Question { address: *address, kind: model.kind.clone(), timeout: model.timeout };
    unasked.map(question).collect()
}

async fn ask(questions: Vec<Question>) -> Result<(), String> {
    for Question { address, kind, timeout } in questions {
        if let Some(Err(why)) = checks::verify(&kind, &[address], timeout).await {
            return Err(format!("no answer on {address}: {why}"));
        }
    }
    Ok(())
}

impl Agent {
    /// Asks, and reports to the loop.
    pub(super) fn verify(&self) {
        let (questions, reports) = (questions(&self.service), self.inputs.events.clone());
        tokio::task::spawn_local(async move {
            let result = ask(questions).await;
            // The loop has ended otherwise.
            let _ = reports.send(Detected::Verified { result }).await;
        });
    }
}
