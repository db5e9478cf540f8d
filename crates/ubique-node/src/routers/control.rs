//! The control socket of the routers: JSON lines, as `ARCHITECTURE.md` documents them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use ubique_model::{Asn, Prefix};
use ubique_proto::bgp::rib::Candidate;
use ubique_proto::bgp::session::State;

use super::{Router, Shared};
use crate::admin;
use crate::clock::now;

#[derive(Deserialize)]
#[serde(tag = "query", rename_all = "kebab-case", deny_unknown_fields)]
enum Query {
    /// Sessions, and how long it has been quiet.
    Status,
    /// All routes of one router to a prefix.
    Routes { asn: Asn, prefix: Prefix },
    /// The best route of every router to a prefix.
    Best { prefix: Prefix },
}

#[derive(Serialize)]
struct Status {
    established: usize,
    sessions: usize,
    /// Since the last UPDATE in or out, or change of a session.
    quiet_ms: u128,
}

#[derive(Serialize)]
struct Routes {
    candidates: Vec<RouteView>,
}

#[derive(Serialize)]
struct RouteView {
    /// Null: the router's own route.
    peer_asn: Option<Asn>,
    peer_address: Option<IpAddr>,
    local_pref: u32,
    as_path: Vec<Asn>,
    best: bool,
    /// Why it lost against the best; null for the best.
    step: Option<String>,
}

#[derive(Serialize)]
struct BestRoutes {
    routers: Vec<BestView>,
}

#[derive(Serialize)]
struct BestView {
    asn: Asn,
    /// Null: no route.
    best: Option<RouteView>,
}

/// The reply line to a request line.
pub(super) fn answer(routers: &[Shared], line: &str) -> String {
    match serde_json::from_str(line) {
        Ok(Query::Status) => reply(&status(routers)),
        Ok(Query::Routes { asn, prefix }) => match routers.iter().find(|r| r.borrow().spec.asn == asn) {
            Some(router) => reply(&Routes { candidates: candidates(&router.borrow(), prefix) }),
            None => admin::error_line(&format!("no router has AS {asn}")),
        },
        Ok(Query::Best { prefix }) => reply(&BestRoutes {
            routers: routers
                .iter()
                .map(|router| {
                    let router = router.borrow();
                    let best = candidates(&router, prefix).into_iter().find(|route| route.best);
                    BestView { asn: router.spec.asn, best }
                })
                .collect(),
        }),
        Err(error) => admin::error_line(&format!("the request cannot be understood: {error}")),
    }
}

fn reply(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| admin::error_line(&error.to_string()))
}

fn status(routers: &[Shared]) -> Status {
    let now = now();
    let mut status = Status { established: 0, sessions: 0, quiet_ms: u128::MAX };
    for router in routers {
        let router = router.borrow();
        let speaker = router.bgp.speaker();
        for peer in speaker.peers() {
            status.sessions += 1;
            status.established += usize::from(peer.state == State::Established);
        }
        status.quiet_ms = status.quiet_ms.min(now.since(speaker.last_activity()).as_millis());
    }
    status
}

fn candidates(router: &Router, prefix: Prefix) -> Vec<RouteView> {
    router.bgp.speaker().routes(prefix).into_iter().map(|route| view(router, route)).collect()
}

fn view(router: &Router, route: Candidate) -> RouteView {
    let peer = route.peer.and_then(|peer| router.spec.neighbors.get(peer.0 as usize));
    RouteView {
        peer_asn: peer.map(|p| p.asn),
        peer_address: peer.map(|p| p.address),
        local_pref: route.local_pref,
        as_path: route.attributes.as_path.ases().collect(),
        best: route.best,
        step: route.step.map(|step| step.flipped().to_string()),
    }
}
