//! Sessions of a rehearsal, as the lab sees them: who holds which, where the stand-in service listens, and what came of it.
//!
//! [`Holding`] is made of the scenario, the service and the plan; the processes that carry it out are `ubique-traffic`'s, and [`Log`] keeps
//! what the clients tell. Everything here is pure. Deliberately absent: the streams, and what is expected of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ubique_model::scenario::{DEFAULT_PORT, Scenario, SessionKind, Sessions};
use ubique_model::service::{Service, Site};
use ubique_model::traffic::{ClientsSpec, LaneSpec, LaneWindow, Loss, News, ServerSpec};

use crate::plan::{Plan, VantagePlan};
use crate::report::{SessionFigures, SessionRow, ms};

#[cfg(test)]
mod tests;

/// Who holds which sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Each lane, as the clients are told.
    pub lanes: Vec<LaneSpec>,
    /// Lane → its vantage point's index.
    pub vantages: Vec<usize>,
    /// Ports that the stand-in service has, over TCP and over QUIC.
    tcp: BTreeSet<u16>,
    quic: BTreeSet<u16>,
}

/// The port of these sessions: the scenario's, the service's, or the one that nobody else has.
fn port(sessions: &Sessions, service: &Service) -> u16 {
    let ports = service.sessions.as_ref().map(|s| match sessions.kind {
        SessionKind::Quic => &s.quic_ports,
        _ => &s.tcp_ports,
    });
    sessions.port.or_else(|| ports?.first().copied()).unwrap_or(DEFAULT_PORT)
}

impl Holding {
    /// What the scenario asks for. `service`: as it is written, also where it is played without its data plane, so that ports are the same.
    pub fn new(scenario: &Scenario, service: &Service, plan: &Plan, namespaces: &Path) -> Holding {
        let mut holding = Holding::default();
        for sessions in &scenario.sessions {
            let port = port(sessions, service);
            match sessions.kind {
                SessionKind::Quic => holding.quic.insert(port),
                _ => holding.tcp.insert(port),
            };
            let held = |v: &VantagePlan| sessions.vantages.is_empty() || sessions.vantages.contains(&v.name);
            for (vantage, at) in plan.vantages.iter().enumerate().filter(|(_, at)| held(at)) {
                for &address in &service.addresses {
                    let from = if address.is_ipv4() { IpAddr::V4(at.ipv4) } else { IpAddr::V6(at.ipv6) };
                    holding.vantages.push(vantage);
                    holding.lanes.push(LaneSpec {
                        netns: namespaces.join(&at.netns),
                        from,
                        to: SocketAddr::new(address, port),
                        kind: sessions.kind,
                        exchange: sessions.exchange,
                        count: sessions.count,
                    });
                }
            }
        }
        holding
    }

    /// Nobody holds any.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// What the clients are told.
    pub fn clients(&self) -> ClientsSpec {
        ClientsSpec { lanes: self.lanes.clone() }
    }

    /// What the stand-in service of a site is told. `secret`: that of the data plane.
    pub fn server(&self, site: &Site, addresses: &[IpAddr], secret: Option<&Path>, ready: &Path) -> ServerSpec {
        let at = |ports: &BTreeSet<u16>| {
            let each = |&port: &u16| addresses.iter().map(move |&address| SocketAddr::new(address, port));
            ports.iter().flat_map(each).collect()
        };
        ServerSpec {
            site: site.name.clone(),
            tcp: at(&self.tcp),
            quic: at(&self.quic),
            identifiers: secret.map(|secret| (site.number, secret.to_owned())),
            ready: ready.to_owned(),
        }
    }

    /// UDP ports that clients speak QUIC to and the data plane knows nothing of.
    pub fn unknown_quic(&self, service: &Service) -> Vec<u16> {
        let known = service.sessions.as_ref().map(|s| s.quic_ports.as_slice());
        self.quic.iter().copied().filter(|port| known.is_some_and(|known| !known.contains(port))).collect()
    }
}

/// What the clients told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// All that are to be held at once were open, or lost.
    pub begun: bool,
    /// Each session that was lost, in the order told.
    pub losses: Vec<Loss>,
    /// Number of the mark that ended it → what each lane saw.
    windows: BTreeMap<u32, Vec<LaneWindow>>,
}

impl Log {
    /// Takes a line.
    pub fn take(&mut self, news: News) {
        match news {
            News::Begun => self.begun = true,
            News::Lost(loss) => self.losses.push(loss),
            News::Window { mark, lanes } => _ = self.windows.insert(mark, lanes),
        }
    }

    /// The window that this mark ended is known.
    pub fn has(&self, mark: u32) -> bool {
        self.windows.contains_key(&mark)
    }

    /// What was seen from one mark to the next, over all lanes. `marks`: when each was set, ns.
    pub fn window(&self, mark: u32, marks: &[u64]) -> SessionFigures {
        let mut figures = SessionFigures::default();
        for lane in self.windows.get(&(mark + 1)).into_iter().flatten() {
            figures.sessions += lane.live + lane.begun;
            add(&mut figures, lane);
        }
        for loss in self.losses.iter().filter(|loss| step_of(loss, marks) == mark as usize) {
            figures.lose(loss.how);
        }
        figures
    }

    /// Vantage point and kind → what was seen from the beginning to the end, and all of it together.
    pub fn totals(&self, holding: &Holding, names: &[String]) -> (Vec<SessionRow>, SessionFigures) {
        let mut rows: BTreeMap<(usize, SessionKind), SessionFigures> = BTreeMap::new();
        let mut total = SessionFigures::default();
        let key = |lane: usize| Some((*holding.vantages.get(lane)?, holding.lanes.get(lane)?.kind));
        for (index, lane) in self.windows.values().flat_map(|lanes| lanes.iter().enumerate()) {
            let row = key(index).map(|key| rows.entry(key).or_default());
            for figures in row.into_iter().chain([&mut total]) {
                figures.sessions += lane.begun;
                add(figures, lane);
            }
        }
        for loss in &self.losses {
            let row = key(loss.lane).map(|key| rows.entry(key).or_default());
            row.into_iter().chain([&mut total]).for_each(|figures| figures.lose(loss.how));
        }
        let row = |((vantage, kind), figures): ((usize, SessionKind), SessionFigures)| SessionRow {
            vantage: names.get(vantage).cloned().unwrap_or_default(),
            kind: kind.as_str().to_owned(),
            figures,
        };
        (rows.into_iter().map(row).collect(), total)
    }
}

/// The step in which a session was lost; what was lost before the first one is its.
fn step_of(loss: &Loss, marks: &[u64]) -> usize {
    marks.iter().rposition(|at_ns| *at_ns <= loss.at_ns).unwrap_or(0)
}

fn add(figures: &mut SessionFigures, lane: &LaneWindow) {
    figures.done += lane.done;
    figures.longest_wait_ms = figures.longest_wait_ms.max(ms(lane.longest_wait_ns));
    figures.content_bytes += lane.content_bytes;
    for (site, sessions) in &lane.sites {
        *figures.sites.entry(site.clone()).or_default() += sessions;
    }
}
