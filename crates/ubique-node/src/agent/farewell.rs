//! The end of an agent: upstreams have the withdrawals before their sessions end, and every last word has left.

use std::time::Duration;

use ubique_proto::bgp::speaker::{In as BgpIn, PeerId};

use super::site::Agent;
use crate::bgp::Driver;
use crate::clock::now;
use crate::journal::Journal;

/// Cease subcode: administrative shutdown (RFC 4486 §3).
const ADMINISTRATIVE_SHUTDOWN: u8 = 2;

impl Agent {
    /// Waits until the upstreams have the withdrawals, then ends the sessions and waits until they have the last
    /// NOTIFICATION and the last word of BFD, and collectors and files what is known; none of it for longer than `limit`.
    pub(super) async fn farewell(&mut self, limit: Duration) {
        self.bgp.stop_listening();
        let _ = tokio::time::timeout(limit, self.withdrawn()).await;
        let message = format!("site {}: {}", self.spec().name, self.core.status(now()).cause);
        self.close_sessions(&message);
        let until = tokio::time::Instant::now() + limit;
        let words = async {
            if let Some(bfd) = &mut self.bfd {
                bfd.farewell().await;
            }
            self.bgp.drained().await;
        };
        if tokio::time::timeout_at(until, words).await.is_err() {
            tracing::warn!("an upstream did not take the last message in time");
        }
        if let Some(monitor) = &self.monitor {
            monitor.terminate();
        }
        let monitored = || self.monitor.as_ref().is_none_or(|m| m.is_done());
        let recorded = || self.journal.as_ref().is_none_or(Journal::is_written);
        while !(monitored() && recorded()) && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Every upstream's TCP has acknowledged that nothing is announced any more.
    async fn withdrawn(&mut self) {
        let pending = |bgp: &Driver| {
            bgp.speaker()
                .peers()
                .any(|p| Agent::established(&p) && bgp.speaker().withdrawal_pending(p.peer).next().is_some())
        };
        while pending(&self.bgp) {
            let notice = self.bgp.next().await;
            self.noticed(notice);
        }
    }

    fn close_sessions(&mut self, message: &str) {
        let peers: Vec<PeerId> = self.bgp.speaker().peers().map(|p| p.peer).collect();
        for peer in peers {
            let message = message.to_owned();
            // Where graceful restart was agreed on, the core makes a hard reset of it (RFC 8538): nothing is kept.
            self.bgp.handle(BgpIn::StopPeer { peer, subcode: ADMINISTRATIVE_SHUTDOWN, message });
        }
    }
}
