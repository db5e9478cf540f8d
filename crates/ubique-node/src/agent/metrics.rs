//! Prometheus metrics in the text format, version 0.0.4.
//!
//! Numbers are read from the cores when a scrape asks; only what they do not keep is counted here.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::SystemTime;

use ubique_model::policy::Level;
use ubique_proto::actions::Kind;
use ubique_proto::actions::drain::Stage;
use ubique_proto::health::{BUCKETS_US, Role};
use ubique_proto::site::State;

use super::site::Agent;
use crate::admin::Announced;
use crate::clock::{now, unix_seconds, wall};

/// What is counted here.
pub(super) struct Metrics {
    transitions: BTreeMap<&'static str, u64>,
    /// Withdrawals that a guard turned around, by guard.
    denied: BTreeMap<&'static str, u64>,
    clock_jumps: u64,
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        Metrics { transitions: BTreeMap::new(), denied: BTreeMap::from([("last-site", 0)]), clock_jumps: 0 }
    }

    /// The site began or ceased to announce.
    pub(super) fn transition(&mut self, reason: &'static str) {
        *self.transitions.entry(reason).or_default() += 1;
    }

    /// The wall clock was set.
    pub(super) fn clock_jumped(&mut self) {
        self.clock_jumps += 1;
    }

    /// A guard kept the site announced.
    pub(super) fn denied(&mut self, guard: &'static str) {
        *self.denied.entry(guard).or_default() += 1;
    }
}

/// One exposition under construction.
pub(super) struct Exposition {
    text: String,
    /// Labels of every sample.
    common: String,
}

impl Exposition {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &dyn fmt::Display)], value: impl fmt::Display) {
        let _ = write!(self.text, "{name}{{{}", self.common);
        for (label, content) in labels {
            let _ = write!(self.text, ",{label}=\"{}\"", escape(&content.to_string()));
        }
        let _ = writeln!(self.text, "}} {value}");
    }
}

/// A label's content as the format wants it.
fn escape(content: &str) -> String {
    content.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

impl Agent {
    /// The answer to a scrape.
    pub(super) fn exposition(&self) -> String {
        let common = format!("service=\"{}\",site=\"{}\"", escape(&self.service.name), escape(&self.spec().name));
        let mut out = Exposition { text: String::with_capacity(8 << 10), common };
        self.site_metrics(&mut out);
        self.announcement_metrics(&mut out);
        self.session_metrics(&mut out);
        self.bfd_metrics(&mut out);
        self.sessions_metrics(&mut out);
        self.check_metrics(&mut out);
        self.verdict_metrics(&mut out);
        self.duration_metrics(&mut out);
        self.operator_metrics(&mut out);
        self.record_metrics(&mut out);
        self.failover_metrics(&mut out);
        self.process_metrics(&mut out);
        out.text
    }

    fn site_metrics(&self, out: &mut Exposition) {
        out.family("ubique_build_info", "gauge", "Version of the program.");
        out.sample("ubique_build_info", &[("version", &self.version)], 1);
        out.family("ubique_agent_start_timestamp_seconds", "gauge", "When the agent started.");
        out.sample("ubique_agent_start_timestamp_seconds", &[], unix_seconds(wall(self.began)));
        let name = "ubique_agent_last_seen_timestamp_seconds";
        out.family(name, "gauge", "When this was written.");
        out.sample(name, &[], unix_seconds(SystemTime::now()));
        let name = "ubique_clock_jumps_total";
        out.family(name, "counter", "Times the wall clock was set by a second or more.");
        out.sample(name, &[], self.metrics.clock_jumps);
        let state = self.core.state();
        out.family("ubique_site_ready", "gauge", "1 while the site is meant to be announced.");
        out.sample("ubique_site_ready", &[], u8::from(state.is_announced()));
        out.family("ubique_site_healthy", "gauge", "1 while the checks say that the site is fit to serve.");
        out.sample("ubique_site_healthy", &[], u8::from(self.health.healthy()));
        out.family("ubique_site_state", "gauge", "1 for the state the site is in.");
        for each in State::ALL {
            out.sample("ubique_site_state", &[("state", &each.word())], u8::from(each == state));
        }
        out.family("ubique_announce_transitions_total", "counter", "Announcements and withdrawals of the site.");
        for (reason, count) in &self.metrics.transitions {
            out.sample("ubique_announce_transitions_total", &[("reason", reason)], count);
        }
        let name = "ubique_withdraw_denied_total";
        out.family(name, "counter", "Withdrawals that a guard turned around.");
        for (guard, count) in &self.metrics.denied {
            out.sample(name, &[("guard", guard)], count);
        }
        let status = self.core.status(now());
        let name = "ubique_site_last_resort";
        out.family(name, "gauge", "1 while the site is announced although it is not healthy: no other is in sight.");
        out.sample(name, &[], u8::from(state == State::LastResort));
        let name = "ubique_site_overloaded";
        out.family(name, "gauge", "1 while the service has more to do than it can.");
        out.sample(name, &[], u8::from(status.overload.is_some()));
        if let Some(flap) = status.flap {
            let name = "ubique_flap_budget_ratio";
            out.family(name, "gauge", "What is left of the penalty that upstreams are assumed to forgive.");
            out.sample(name, &[], flap.left / f64::from(flap.suppress).max(1.0));
        }
        let name = "ubique_shed_steps";
        out.family(name, "gauge", "Steps of shedding load that upstreams are told.");
        out.sample(name, &[], status.stance.map_or(0, |stance| stance.shed));
        let name = "ubique_state_unwritable";
        out.family(name, "gauge", "1 while what must survive a restart is not on the disk.");
        out.sample(name, &[], u8::from(self.memory.keeper.error().is_some()));
        let name = "ubique_bgp_connections_refused_total";
        out.family(name, "counter", "Connections from addresses that are no neighbor's.");
        out.sample(name, &[], self.bgp.refused());
    }

    fn announcement_metrics(&self, out: &mut Exposition) {
        let mut announced = Vec::new();
        for (upstream, peer) in self.peers() {
            for prefix in self.announced(peer.peer) {
                announced.push((Agent::label(upstream), prefix));
            }
        }
        out.family("ubique_prefix_desired", "gauge", "1 while the prefix is meant to be announced to the peer.");
        for (peer, p) in &announced {
            let desired = !matches!(p.announced, Announced::No | Announced::Withdrawing);
            out.sample("ubique_prefix_desired", &[("prefix", &p.prefix), ("peer", peer)], u8::from(desired));
        }
        let help = "1 while the announcement is sent to the peer and acknowledged by its TCP.";
        out.family("ubique_prefix_announced", "gauge", help);
        for (peer, p) in &announced {
            // A withdrawal the peer has not acknowledged leaves the route with it.
            let with_peer = matches!(p.announced, Announced::Acknowledged | Announced::Withdrawing);
            out.sample("ubique_prefix_announced", &[("prefix", &p.prefix), ("peer", peer)], u8::from(with_peer));
        }
    }

    fn session_metrics(&self, out: &mut Exposition) {
        let peers: Vec<_> = self.peers().map(|(u, peer)| (Agent::label(u), u.asn, peer)).collect();
        out.family("ubique_bgp_session_up", "gauge", "1 while the session is Established.");
        for (label, asn, peer) in &peers {
            let up = u8::from(Agent::established(peer));
            out.sample("ubique_bgp_session_up", &[("peer", label), ("asn", asn)], up);
        }
        let name = "ubique_bgp_session_established_timestamp_seconds";
        out.family(name, "gauge", "When the session was established; absent while it is not.");
        for (label, _, peer) in peers.iter().filter(|(.., peer)| Agent::established(peer)) {
            out.sample(name, &[("peer", label)], unix_seconds(wall(peer.since)));
        }
        let name = "ubique_bgp_messages_total";
        out.family(name, "counter", "BGP messages.");
        for (label, _, peer) in &peers {
            let (received, sent) = (peer.counters.messages_in, peer.counters.messages_out);
            out.sample(name, &[("peer", label), ("direction", &"received")], received);
            out.sample(name, &[("peer", label), ("direction", &"sent")], sent);
        }
        let name = "ubique_bgp_prefixes";
        out.family(name, "gauge", "Routes received from the peer and advertised to it.");
        for (label, _, peer) in &peers {
            let (received, advertised) = (peer.routes.received, peer.routes.advertised);
            out.sample(name, &[("peer", label), ("direction", &"received")], received);
            out.sample(name, &[("peer", label), ("direction", &"advertised")], advertised);
        }
        self.negotiated_metrics(out);
    }

    fn negotiated_metrics(&self, out: &mut Exposition) {
        let peers: Vec<_> = self.peers().map(|(u, peer)| (Agent::label(u), peer)).collect();
        let name = "ubique_bgp_family_negotiated";
        out.family(name, "gauge", "1 for each family the session carries.");
        for (label, peer) in &peers {
            for family in peer.negotiated.iter().flat_map(|n| n.families.iter()) {
                out.sample(name, &[("peer", label), ("family", &family.word())], 1);
            }
        }
        let name = "ubique_bgp_graceful_restart_seconds";
        out.family(name, "gauge", "Restart time the peer announced; absent where graceful restart was not agreed on.");
        for (label, peer) in &peers {
            let agreed = peer.config.graceful_restart.is_some();
            if let Some(restart) = peer.negotiated.and_then(|n| n.graceful_restart.as_ref()).filter(|_| agreed) {
                out.sample(name, &[("peer", label)], restart.restart_time.as_secs());
            }
        }
        let name = "ubique_bgp_stale_families";
        out.family(name, "gauge", "Families of which routes are kept while the peer restarts.");
        for (label, peer) in &peers {
            out.sample(name, &[("peer", label)], peer.stale.iter().count());
        }
    }

    fn check_metrics(&self, out: &mut Exposition) {
        let checks: Vec<_> = self.health.checks().collect();
        out.family(
            "ubique_health_check_up",
            "gauge",
            "1 while the check counts as passed; of load: while there is no overload.",
        );
        for check in &checks {
            out.sample("ubique_health_check_up", &[("check", &check.name)], u8::from(check.up));
        }
        out.family("ubique_health_check_polls_total", "counter", "Polls that ended, by result.");
        for check in &checks {
            let counters = check.counters;
            let name = "ubique_health_check_polls_total";
            out.sample(name, &[("check", &check.name), ("result", &"success")], counters.successes);
            out.sample(name, &[("check", &check.name), ("result", &"failure")], counters.failures);
        }
        out.family("ubique_health_check_flaps_total", "counter", "Changes of the check between up and down.");
        for check in &checks {
            out.sample("ubique_health_check_flaps_total", &[("check", &check.name)], check.counters.transitions);
        }
    }

    fn duration_metrics(&self, out: &mut Exposition) {
        let name = "ubique_health_check_duration_seconds";
        out.family(name, "histogram", "How long polls took that were not abandoned.");
        for check in self.health.checks() {
            let mut below = 0;
            for (bound, count) in BUCKETS_US.iter().zip(check.durations.counts()) {
                below += count;
                let seconds = *bound as f64 / 1e6;
                out.sample(&format!("{name}_bucket"), &[("check", &check.name), ("le", &seconds)], below);
            }
            let count = check.durations.count();
            out.sample(&format!("{name}_bucket"), &[("check", &check.name), ("le", &"+Inf")], count);
            out.sample(&format!("{name}_sum"), &[("check", &check.name)], check.durations.sum().as_secs_f64());
            out.sample(&format!("{name}_count"), &[("check", &check.name)], count);
        }
    }

    /// The verdict with what decides it, and load.
    fn verdict_metrics(&self, out: &mut Exposition) {
        out.family("ubique_health_level", "gauge", "1 for the level the checks put the site at.");
        for level in [Level::Healthy, Level::Degraded, Level::Failed] {
            let word = format!("{level:?}").to_ascii_lowercase();
            out.sample("ubique_health_level", &[("level", &word)], u8::from(self.health.level() == level));
        }
        let groups: Vec<_> = self.health.groups().collect();
        if !groups.is_empty() {
            out.family("ubique_health_group_weight_up", "gauge", "Weight of the checks of the group that are up.");
        }
        for group in groups {
            out.sample("ubique_health_group_weight_up", &[("group", &group.config.name)], group.up);
        }
        let loads: Vec<_> = self.health.checks().filter(|c| matches!(c.role, Role::Load { .. })).collect();
        if loads.is_empty() {
            return;
        }
        out.family("ubique_load", "gauge", "What the check of load measured last, in its unit.");
        for check in loads.iter().filter_map(|c| Some((c.name, c.value?))) {
            out.sample("ubique_load", &[("check", &check.0)], check.1 as f64 / 1e3);
        }
        out.family("ubique_overload", "gauge", "1 while the site is overloaded.");
        out.sample("ubique_overload", &[], u8::from(self.health.overload().0));
    }

    /// What operators asked for: actions, and the drain under way or the last one.
    fn operator_metrics(&self, out: &mut Exposition) {
        let name = "ubique_actions_active";
        out.family(name, "gauge", "Timed actions of operators that last, by kind.");
        for kind in Kind::WORDS {
            let count = self.operator.actions.list().filter(|action| action.what.word() == kind).count();
            out.sample(name, &[("kind", &kind)], count);
        }
        let name = "ubique_drain_stage";
        out.family(
            name,
            "gauge",
            "1 for the stage of the watched drain under way; over or abandoned: of the last one.",
        );
        let progress = self.operator.drain.progress();
        for stage in Stage::ALL {
            let here = progress.as_ref().is_some_and(|progress| progress.stage == stage);
            out.sample(name, &[("stage", &stage.word())], u8::from(here));
        }
        let Some(progress) = progress else { return };
        let name = "ubique_drain_packets_per_second";
        out.family(name, "gauge", "Packets to the service addresses before the drain, and by its last sample.");
        for (when, traffic) in [("before", progress.before), ("now", progress.now)] {
            if let Some(traffic) = traffic {
                out.sample(name, &[("when", &when)], traffic.packets_per_s);
            }
        }
    }

    /// What is recorded and exported; absent when nothing is.
    fn record_metrics(&self, out: &mut Exposition) {
        let journal = self.journal.as_ref().map(|journal| ("journal", journal.counters()));
        let mrt = self.monitor.as_ref().and_then(|m| m.mrt()).map(|mrt| ("mrt", mrt.counters()));
        let files: Vec<_> = journal.into_iter().chain(mrt).collect();
        if !files.is_empty() {
            out.family("ubique_recorded_bytes_total", "counter", "Bytes taken for files of the kind.");
            out.family("ubique_records_lost_total", "counter", "Records lost because their file was too slow.");
            out.family("ubique_record_failures_total", "counter", "Times a file could not be written.");
        }
        for (kind, counters) in files {
            out.sample("ubique_recorded_bytes_total", &[("kind", &kind)], counters.octets);
            out.sample("ubique_records_lost_total", &[("kind", &kind)], counters.lost);
            out.sample("ubique_record_failures_total", &[("kind", &kind)], counters.failures);
        }
        let collectors: Vec<_> = self.monitor.iter().flat_map(|m| m.bmp().status()).collect();
        if !collectors.is_empty() {
            out.family("ubique_bmp_connected", "gauge", "1 while the BMP collector is connected.");
            out.family("ubique_bmp_sent_bytes_total", "counter", "Bytes sent to the BMP collector.");
            out.family(
                "ubique_bmp_overflows_total",
                "counter",
                "Connections ended because the collector did not read.",
            );
        }
        for c in collectors {
            let collector: &[(&str, &dyn fmt::Display)] = &[("collector", &c.address)];
            out.sample("ubique_bmp_connected", collector, u8::from(c.connected));
            out.sample("ubique_bmp_sent_bytes_total", collector, c.octets);
            out.sample("ubique_bmp_overflows_total", collector, c.overflows);
        }
    }
}
