//! What the agent keeps for its successor, and finds of its predecessor: see `crate::state`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use ubique_proto::bgp::speaker::{In as BgpIn, PeerId};

use super::apply::KEY_RETRY;
use super::setup::Task;
use super::site::Agent;
use super::{Request, neighbours, reload};
use crate::bgp::Endpoint;
use crate::state::{Expiry, Keeper, Receipt, State};

/// The state on the disk and what it is to be.
pub(super) struct Remembered {
    pub keeper: Keeper,
    pub kept: State,
}

/// A drain that a restart does not end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Drain {
    reason: String,
    /// When it ends by itself; `None`: somebody ends it.
    until: Option<Expiry>,
}

/// The name of its part.
const DRAIN: &str = "drain";

/// Upstreams whose key cannot be read, each with the task that tries again.
pub(super) type Waiting = BTreeMap<PeerId, Task>;

impl Agent {
    /// Why an operator wanted the site empty before this agent began, when that still holds.
    pub(super) fn kept_drain(&self) -> Option<String> {
        let drain: Drain = self.memory.kept.part(DRAIN)?;
        let over = drain.until.is_some_and(|until| until.left(SystemTime::now()).is_zero());
        (!over).then_some(drain.reason)
    }

    /// Keeps a wish of an operator: the site empty because of `reason`, for so long, or not any more.
    pub(super) fn keep_drain(&mut self, reason: Option<String>, lasts: Option<Duration>) -> Receipt {
        let until = lasts.map(|lasts| Expiry::after(SystemTime::now(), lasts));
        let drain = reason.map(|reason| Drain { reason, until });
        self.memory.kept.keep(DRAIN, drain.as_ref());
        self.keep()
    }

    /// Has written what changed of what must survive; the receipt tells when it is on the disk.
    pub(super) fn keep(&mut self) -> Receipt {
        let Remembered { keeper, kept } = &self.memory;
        keeper.keep(kept)
    }

    /// Sessions whose key is missing wait for it; the others run.
    pub(super) fn await_keys(&mut self, unarmed: neighbours::Unarmed) {
        for (peer, why) in unarmed {
            let Some(upstream) = self.upstreams.get(&peer).cloned() else { continue };
            tracing::error!(address = %upstream.address, asn = %upstream.asn, why, "no session without its key: reading it again until it is there");
            self.remember(format!("session {} waits for its key", upstream.address), why.clone());
            self.bgp.disarm(peer, why);
            let internal = upstream.asn == self.service.asn;
            let requests = self.inputs.requests.clone();
            let task = Task::spawn(async move {
                loop {
                    tokio::time::sleep(KEY_RETRY).await;
                    let upstream = upstream.clone();
                    let read = tokio::task::spawn_blocking(move || neighbours::endpoint(&upstream, internal));
                    if let Ok(Ok(endpoint)) = read.await {
                        let _ = requests.send(Request::Armed { peer, endpoint: Box::new(endpoint) }).await;
                        return;
                    }
                }
            });
            self.unarmed.insert(peer, task);
        }
    }

    /// The key of a waiting neighbour could be read.
    pub(super) fn armed(&mut self, peer: PeerId, endpoint: Endpoint) {
        if self.unarmed.remove(&peer).is_none() {
            return;
        }
        tracing::info!(address = %endpoint.remote, "the key of this neighbour is there");
        self.bgp.rekey(peer, endpoint.key);
        if let Err(error) = self.bgp.listen() {
            tracing::error!(error = reload::words(&error), "a neighbour cannot call us, we still call it");
        }
        self.bgp.handle(BgpIn::StartPeer(peer));
    }
}
