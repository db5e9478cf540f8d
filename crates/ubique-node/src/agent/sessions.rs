//! The data plane in the agent: what its news mean, and what status and metrics show of it.
//!
//! Nothing of it decides whether the site is announced: a site without its data plane serves as any other one does.

use serde::{Deserialize, Serialize};
use ubique_edge::{Counter, Tier};
use ubique_model::service::TcpMethod;
use ubique_proto::actions::drain::{Client, Stage};
use ubique_proto::site::State;
use ubique_sys::sockdiag;

use super::metrics::Exposition;
use super::site::Agent;
use crate::admin::{ClientView, DrainSessions, SessionsInterface, SessionsSite, SessionsStatus, SessionsTrouble};
use crate::clock::now;
use crate::sessions::{self, Driver, Notice, Setup, Snapshot, Target, mode_word, tier_word};

/// What an operator wants of new connections while the site is drained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct HandingOver {
    /// Who takes them; `None`: the nearest.
    to: Option<String>,
    /// Packets handed over and forwarded when the drain began.
    before: (u64, u64),
    /// The drain began with this agent.
    #[serde(skip)]
    is_ours: bool,
}

/// Of packets handed over, and of those that came by way of other sites.
fn moved(seen: &Snapshot) -> (u64, u64) {
    (count(seen, Counter::ForwardNew), count(seen, Counter::ShimData))
}

fn count(seen: &Snapshot, wanted: Counter) -> u64 {
    seen.counters.iter().find(|(counter, _)| *counter == wanted).map_or(0, |(_, count)| *count)
}

impl Agent {
    /// Whether new connections can be handed to this site.
    pub(super) fn can_hand_over(&self, to: Option<&str>) -> Result<(), String> {
        let Some(to) = to else { return Ok(()) };
        if self.sessions.is_none() {
            return Err("the service has no [sessions]: new connections cannot be handed over".to_owned());
        }
        let others: Vec<&str> =
            self.service.sites.iter().map(|site| site.name.as_str()).filter(|name| *name != self.spec().name).collect();
        match others.contains(&to) {
            true => Ok(()),
            false => Err(format!("there is no other site {to:?}: there are {}", others.join(", "))),
        }
    }

    /// Whether connections outlive a withdrawal: programs are at work, and a site that is up sends their packets back.
    pub(super) fn carries_connections(&self) -> bool {
        let seen = self.sessions.as_ref().map(Driver::snapshot).unwrap_or_default();
        !seen.interfaces.is_empty() && seen.sites.iter().any(|site| site.up == Some(true))
    }

    /// Whether connections are open that other sites send the packets of, whatever becomes of the agent: their kernel needs its address.
    pub(super) fn connections_go_on(&self) -> bool {
        // Where that cannot be told there may be some.
        let open = || sockdiag::connections(&self.service.addresses, drop).unwrap_or(1);
        self.carries_connections() && open() > 0
    }

    /// Indexes of the interfaces where SYNs are answered by cookies, or will be as soon as programs are loaded.
    pub(super) fn interfaces_with_cookies(&self) -> Vec<u32> {
        let wanted = self.service.sessions.as_ref().is_some_and(|sessions| sessions.tcp == TcpMethod::Cookie);
        let tier = self.sessions.as_ref().and_then(|driver| driver.snapshot().tier);
        if !wanted || tier.is_some_and(|tier| tier != Tier::Cookies) {
            return vec![];
        }
        Setup::of(&self.service, self.spec(), self.sessions_life.clone()).map_or(vec![], |setup| setup.interfaces())
    }

    /// A drain begins.
    pub(super) fn begin_handing_over(&mut self, to: Option<String>) {
        let before = self.sessions.as_ref().map(|driver| moved(&driver.snapshot())).unwrap_or_default();
        self.handing_over = HandingOver { to, before, is_ours: true };
    }

    /// What becomes of connections in a drain; `None`: no data plane.
    pub(super) fn drain_sessions(&self) -> Option<DrainSessions> {
        let seen = self.sessions.as_ref()?.snapshot();
        let HandingOver { to: wanted, before, is_ours } = self.handing_over.clone();
        let anew = !is_ours && !seen.counts_on;
        let before = if anew { (0, 0) } else { before };
        let now = moved(&seen);
        let clients = self.operator.drain.progress().map(|progress| progress.clients).unwrap_or_default();
        let client = |client: &Client| ClientView { prefix: client.prefix, connections: client.connections };
        Some(DrainSessions {
            to: seen.hands_over_to,
            wanted,
            handed_over: now.0.saturating_sub(before.0),
            handed_over_per_s: seen.handed_over_per_s,
            forwarded: now.1.saturating_sub(before.1),
            anew,
            clients: clients.iter().map(client).collect(),
        })
    }

    /// The site is wanted back, with what begins there.
    pub(super) fn end_handing_over(&mut self) {
        self.handing_over = HandingOver::default();
        self.operator.unkept = true;
    }

    /// Starts the data plane, or takes off what a former agent left of one.
    pub(super) fn sessions_start(&mut self) {
        let life = self.sessions_life.clone();
        if self.service.sessions.as_ref().is_none_or(|sessions| !sessions.mptcp) {
            self.mptcp_take_back(&life);
        }
        let Some(setup) = Setup::of(&self.service, self.spec(), life.clone()) else {
            return self.sessions_clear(&life);
        };
        match Driver::start(setup) {
            Ok(driver) => self.sessions = Some(driver),
            Err(error) => tracing::error!(%error, "no data plane: connections do not survive a route change"),
        }
    }

    /// Clients are told of the addresses that a former agent had them told of no more.
    fn mptcp_take_back(&mut self, life: &std::path::Path) {
        match sessions::take_back(life) {
            Ok(taken) => {
                for address in taken {
                    tracing::info!(%address, "no `mptcp` any more: clients are not told of it");
                }
            }
            Err(error) => tracing::error!(%error, "clients of MPTCP are still told of addresses"),
        }
    }

    fn sessions_clear(&mut self, life: &std::path::Path) {
        if !life.exists() {
            return;
        }
        if !sessions::is_built() {
            return tracing::warn!("programs of a former agent may be on interfaces, and this one has no data plane");
        }
        match sessions::clear(life) {
            Ok(removed) => {
                for removed in removed {
                    tracing::info!(interface = removed.interface, "no [sessions] any more: data plane taken off");
                    self.remember(format!("data plane off {}", removed.interface), "no [sessions] any more".into());
                }
            }
            Err(error) => tracing::error!(%error, "the data plane of a former agent cannot be taken off"),
        }
    }

    /// The next news; waits for ever without a data plane.
    pub(super) async fn sessions_next(driver: &mut Option<Driver>) -> Notice {
        match driver {
            // The thread ends only with its owner.
            Some(driver) => match driver.next().await {
                Some(notice) => notice,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// News of the data plane.
    pub(super) fn sessions_noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Trouble { what, why } => {
                tracing::error!(what, why, "sessions: trouble, the service goes on");
                self.remember(format!("sessions: {what}"), why);
            }
            Notice::Solved { what } => {
                tracing::info!(what, "sessions: solved");
                self.remember(format!("sessions: {what}"), "solved".to_owned());
            }
            Notice::Site { name, up } => {
                let state = if up { "up" } else { "down" };
                tracing::info!(site = name, state, "sessions: site");
                let why = if up { "it answers" } else { "it does not answer: its connections are reset" };
                self.remember(format!("sessions: site {name} {state}"), why.to_owned());
            }
            Notice::Attached { interface, mode, adopted } => {
                let mode = mode_word(mode);
                tracing::info!(interface, mode, adopted, "sessions: data plane attached");
                let what = if adopted { "in the place of a former agent's" } else { "its first" };
                self.remember(format!("sessions: data plane on {interface}"), format!("{mode}, {what}"));
            }
        }
    }

    /// Whether the thread of the data plane still moves, when that has changed.
    pub(super) fn sessions_watch(&mut self) {
        if let Some(notice) = self.sessions.as_mut().and_then(|driver| driver.look(now())) {
            self.sessions_noticed(notice);
        }
    }

    /// While the site is drained, or about to be, another one takes new connections.
    pub(super) fn sessions_follow(&mut self) {
        let leaving = matches!(self.operator.drain.stage(), Some(Stage::Leaving | Stage::Withdrawn));
        let wanted = leaving || matches!(self.core.state(), State::Drained | State::Stopping);
        let target = || self.handing_over.to.clone().map_or(Target::Nearest, Target::Named);
        let target = wanted.then(target);
        if let Some(driver) = &mut self.sessions {
            driver.hand_over(target);
        }
    }

    /// What `status` shows; `None`: no `[sessions]`.
    pub(super) fn sessions_status(&self) -> Option<SessionsStatus> {
        self.service.sessions.as_ref()?;
        let seen = self.sessions.as_ref().map(Driver::snapshot).unwrap_or_default();
        let mode = |interface: &(String, ubique_edge::Mode)| SessionsInterface {
            name: interface.0.clone(),
            mode: mode_word(interface.1).to_owned(),
        };
        let site = |site: &sessions::Seen| SessionsSite {
            name: site.name.clone(),
            number: site.number,
            address: site.address,
            up: site.up,
            since: self.when(site.since),
            round_trip_ms: site.round_trip.map(|time| time.as_secs_f64() * 1e3),
            clock_ahead_ms: site.clock_ahead_ms,
            no_way: site.no_way.clone(),
        };
        let trouble = |(what, why): &(String, String)| SessionsTrouble { what: what.clone(), why: why.clone() };
        Some(SessionsStatus {
            state: word_of(&seen).to_owned(),
            tcp: seen.tier.map_or("off", tier_word).to_owned(),
            number: self.spec().number,
            interfaces: seen.interfaces.iter().map(mode).collect(),
            sites: seen.sites.iter().map(site).collect(),
            troubles: seen.troubles.iter().map(trouble).collect(),
            clock_base_ms: seen.clock_base_ms,
            adopted: seen.adopted,
            hands_over_to: seen.hands_over_to.clone(),
            hands_over_wanted: self.handing_over.to.clone(),
            without_timestamps_ratio: without_timestamps(&seen),
            decisions: seen.counters.iter().filter(|(_, n)| *n > 0).map(|(c, n)| (c.word().to_owned(), *n)).collect(),
        })
    }

    /// Metrics of the data plane; none without `[sessions]`.
    pub(super) fn sessions_metrics(&self, out: &mut Exposition) {
        if self.service.sessions.is_none() {
            return;
        }
        let seen = self.sessions.as_ref().map(Driver::snapshot).unwrap_or_default();
        let name = "ubique_sessions_state";
        out.family(
            name,
            "gauge",
            "1 for how packets are looked at: native, generic, adopting (by a former agent's programs), off.",
        );
        for word in ["native", "generic", "adopting", "off"] {
            out.sample(name, &[("state", &word)], u8::from(word_of(&seen) == word));
        }
        let name = "ubique_sessions_tcp";
        out.family(name, "gauge", "1 for how TCP connections carry their site: cookie, timestamp, off.");
        for tier in [Tier::Cookies, Tier::Timestamps, Tier::Off] {
            let here = seen.tier.unwrap_or(Tier::Off) == tier;
            out.sample(name, &[("method", &tier_word(tier))], u8::from(here));
        }
        let name = "ubique_sessions_troubles";
        out.family(name, "gauge", "Things that keep connections from surviving a route change: see ubique status.");
        out.sample(name, &[], seen.troubles.len());
        let name = "ubique_sessions_silent_seconds";
        out.family(
            name,
            "gauge",
            "Since the thread of the data plane last moved: about 1 at most, 10 or more when it hangs.",
        );
        out.sample(name, &[], seen.silent.as_secs_f64());
        let name = "ubique_sessions_site_up";
        out.family(name, "gauge", "1 while the other site answers.");
        for site in &seen.sites {
            out.sample(name, &[("to", &site.name)], u8::from(site.up == Some(true)));
        }
        let name = "ubique_sessions_round_trip_seconds";
        out.family(name, "gauge", "From the last question to the other site to its answer.");
        for (site, time) in seen.sites.iter().filter_map(|site| Some((site, site.round_trip?))) {
            out.sample(name, &[("to", &site.name)], time.as_secs_f64());
        }
        let name = "ubique_sessions_clock_ahead_seconds";
        out.family(
            name,
            "gauge",
            "How far the clock of the other site is ahead of ours; beyond 300 s it is not believed.",
        );
        for (site, ahead) in seen.sites.iter().filter_map(|site| Some((site, site.clock_ahead_ms?))) {
            out.sample(name, &[("to", &site.name)], ahead as f64 / 1e3);
        }
        let name = "ubique_sessions_clock_set_seconds";
        out.family(
            name,
            "gauge",
            "How far the clock was set since the data plane began: beyond -300 s or half an hour, other sites have to ask.",
        );
        out.sample(name, &[], seen.clock_ahead_ms as f64 / 1e3);
        let name = "ubique_sessions_without_timestamps_ratio";
        out.family(name, "gauge", "Share of new TCP connections whose client offers no timestamps.");
        if let Some(share) = without_timestamps(&seen) {
            out.sample(name, &[], share);
        }
        let name = "ubique_sessions_found_total";
        out.family(name, "counter", "Connections of ours that another site asked for and was told.");
        out.sample(name, &[], seen.found);
        decisions(out, &seen);
    }
}

/// The programs' own counters.
fn decisions(out: &mut Exposition, seen: &Snapshot) {
    for counter in Counter::ALL {
        let name = format!("ubique_sessions_{}_packets_total", counter.word());
        out.family(&name, "counter", &format!("{}.", counter.help()));
        out.sample(&name, &[], count(seen, *counter));
    }
}

/// The slowest way that a packet is looked at.
fn word_of(seen: &Snapshot) -> &'static str {
    let generic = seen.interfaces.iter().any(|(_, mode)| *mode == ubique_edge::Mode::Generic);
    let refused = seen.troubles.iter().any(|(what, _)| what.starts_with("interface"));
    match seen.interfaces.is_empty() {
        // Its predecessor's programs are at work until it knows which sites are up.
        true if seen.adopted && !refused => "adopting",
        true => "off",
        false if generic => "generic",
        false => "native",
    }
}

/// Of all SYNs; `None`: there were none.
fn without_timestamps(seen: &Snapshot) -> Option<f64> {
    let (all, with) = (count(seen, Counter::Syn), count(seen, Counter::SynTimestamps));
    (all > 0).then(|| all.saturating_sub(with) as f64 / all as f64)
}
