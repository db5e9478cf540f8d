//! What the agent keeps for its successor, and finds of its predecessor: see `crate::state`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use ubique_model::service::Service;
use ubique_proto::Time;
use ubique_proto::bgp::speaker::{In as BgpIn, PeerId};
use ubique_proto::site::Memory;

use super::apply::KEY_RETRY;
use super::setup::Task;
use super::site::Agent;
use super::{Request, neighbours};
use crate::bgp::Endpoint;
use crate::clock::{Jumps, now};
use crate::state::{Keeper, Receipt, State, unix_ms};

/// The state on the disk and what it is to be.
pub(super) struct Remembered {
    pub keeper: Keeper,
    pub kept: State,
    /// What is kept of the site core, and since when.
    site: Option<(Memory, Time)>,
}

impl Remembered {
    /// Reads what the former agent left at `path`; must be called on the runtime.
    pub(super) fn start(path: PathBuf, service: &str, site: &str) -> Remembered {
        let (keeper, kept) = Keeper::start(path, service, site);
        Remembered { keeper, kept, site: None }
    }

    /// What the site core knew, as it is by now. A clock that went back makes nothing younger.
    pub(super) fn site(&self, service: &Service) -> Memory {
        let Some(KeptSite { memory, at_ms }) = self.kept.part(SITE) else { return Memory::default() };
        let elapsed = Duration::from_millis(unix_ms(SystemTime::now()).saturating_sub(at_ms));
        if let Some(reason) = &memory.drain {
            tracing::warn!(reason, "this site was drained before the agent began: it stays so until `ubique undrain`");
        }
        memory.aged(service.flap.as_ref(), elapsed)
    }
}

/// Points of a penalty that rounding may add.
const ROUNDING: u32 = 1;

/// What the site core must know after a restart, and when that was so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KeptSite {
    memory: Memory,
    /// ms since 1970.
    at_ms: u64,
}

/// The name of its part.
const SITE: &str = "site";

/// Upstreams whose key cannot be read, each with the task that tries again.
pub(super) type Waiting = BTreeMap<PeerId, Task>;

/// Has the loop hear of it when the wall clock is set. Must be called on the runtime, which ends it.
pub(super) fn watch_clock(requests: mpsc::Sender<Request>) {
    tokio::task::spawn_local(async move {
        let mut jumps = Jumps::new();
        loop {
            let by_ms = jumps.next().await;
            if requests.send(Request::ClockJumped { by_ms }).await.is_err() {
                return;
            }
        }
    });
}

impl Agent {
    /// Keeps what the site core must know after a restart, when that is worse than what is kept, or another.
    pub(super) fn keep_site(&mut self) -> Receipt {
        let now = now();
        let memory = self.core.memory(now);
        let known = self.memory.site.as_ref().is_some_and(|(known, at)| {
            let expected = known.clone().aged(self.service.flap.as_ref(), now.since(*at));
            memory.penalty <= expected.penalty.saturating_add(ROUNDING)
                && Memory { penalty: 0, ..memory.clone() } == Memory { penalty: 0, ..expected }
        });
        if !known {
            let kept = KeptSite { memory: memory.clone(), at_ms: unix_ms(SystemTime::now()) };
            self.memory.kept.keep(SITE, Some(&kept));
            self.memory.site = Some((memory, now));
        }
        self.keep()
    }

    /// The wall clock was set, or the machine slept. What runs goes by the monotonic clock; only what is kept for a
    /// successor has times of the wall clock, and is written again.
    pub(super) fn clock_jumped(&mut self, by_ms: i64) {
        let by_s = by_ms as f64 / 1e3;
        tracing::warn!(by_s, "the wall clock jumped: sessions, checks and ends of actions do not go by it");
        self.metrics.clock_jumped();
        self.remember("clock jumped".to_owned(), format!("by {by_s:+.1} s"));
        self.memory.site = None;
        self.keep_actions_by(unix_ms(SystemTime::now()));
    }

    /// Has written what changed of what must survive; the receipt tells when it is on the disk.
    pub(super) fn keep(&mut self) -> Receipt {
        let Remembered { keeper, kept, .. } = &self.memory;
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
        self.bgp.listen();
        self.bgp.handle(BgpIn::StartPeer(peer));
    }
}
