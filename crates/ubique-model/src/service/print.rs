//! The service file with every default written out.

use std::fmt::Write;

use super::{
    Action, ApiSettings, NextHop, Records, RehearseSettings, RotatedFile, Service, Sessions, Shed, Site, Upstream,
    UpstreamSelector, site_number,
};
use crate::check::print::{print_check, print_group};
use crate::quantity::{format_bit_rate, format_duration, format_query_rate};

/// A TOML basic string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A TOML array of strings.
pub(crate) fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| quoted(&item)).collect();
    format!("[{}]", items.join(", "))
}

/// Writes `key = value` lines.
pub(crate) struct Page(String);

impl Page {
    pub(crate) fn table(&mut self, header: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(header);
        self.0.push('\n');
    }

    pub(crate) fn key(&mut self, key: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{key} = {value}");
    }

    pub(crate) fn text(&mut self, key: &str, value: impl AsRef<str>) {
        self.key(key, quoted(value.as_ref()));
    }

    pub(crate) fn shown(&mut self, key: &str, value: impl std::fmt::Display) {
        self.text(key, value.to_string());
    }
}

impl Service {
    /// The service file of this service with every default written out; [`Service::parse`] reads it back to an equal
    /// model.
    pub fn to_toml(&self) -> String {
        let mut page = Page(String::new());
        if self.flap.is_none() {
            page.key("flap", false);
        }
        page.table("[service]");
        page.text("name", &self.name);
        page.key("asn", self.asn);
        page.key("prefixes", list(self.prefixes.iter().map(ToString::to_string)));
        page.key("addresses", list(self.addresses.iter().map(ToString::to_string)));
        page.table("[agent]");
        page.text("socket", self.agent.socket.to_string_lossy());
        page.text("state", self.agent.state.to_string_lossy());
        page.text("socket-mode", format!("{:04o}", self.agent.admin.mode));
        if let Some(group) = &self.agent.admin.group {
            page.text("admin-group", group);
        }
        if let Some(metrics) = self.agent.metrics {
            page.shown("metrics", metrics);
        }
        page.text("graceful-shutdown", format_duration(self.agent.graceful_shutdown));
        page.text("drain", format_duration(self.agent.drain));
        if !self.agent.drain_hook.is_empty() {
            page.key("drain-hook", list(self.agent.drain_hook.iter().cloned()));
        }
        page.key("confirm-share", self.agent.confirm_share);
        page.text("watchdog", format_duration(self.agent.watchdog));
        page.key("sandbox", self.agent.sandbox);
        if let Some(api) = &self.agent.admin.api {
            print_api(&mut page, api);
        }
        print_records(&mut page, &self.agent.records);
        if self.rehearse != RehearseSettings::default() {
            page.table("[rehearse]");
            page.text("ask", self.rehearse.ask.as_str());
        }
        let commands = [("command", &self.rehearse.command), ("agent", &self.rehearse.agent)];
        for (key, words) in commands.into_iter().filter(|(_, words)| !words.is_empty()) {
            page.key(key, list(words.iter().cloned()));
        }
        for check in &self.checks {
            print_check(&mut page, check);
        }
        for group in &self.groups {
            print_group(&mut page, group);
        }
        print_rules(&mut page, self);
        if let Some(sessions) = &self.sessions {
            print_sessions(&mut page, sessions);
        }
        for site in &self.sites {
            print_site(&mut page, site, self.sessions.is_some());
        }
        page.0
    }
}

fn print_api(page: &mut Page, api: &ApiSettings) {
    page.table("[agent.api]");
    page.shown("listen", api.listen);
    page.text("certificate", api.certificate.to_string_lossy());
    page.text("key-file", api.key_file.to_string_lossy());
    page.text("client-ca", api.client_ca.to_string_lossy());
    if !api.clients.is_empty() {
        page.key("clients", list(api.clients.iter().cloned()));
    }
}

fn print_records(page: &mut Page, records: &Records) {
    for collector in &records.bmp {
        page.table("[[agent.bmp]]");
        page.shown("collector", collector.collector);
        page.text("statistics", format_duration(collector.statistics));
    }
    if let Some(file) = &records.mrt {
        page.table("[agent.mrt]");
        print_rotated(page, file);
    }
    if let Some(journal) = &records.journal {
        page.table("[agent.journal]");
        print_rotated(page, &journal.file);
        page.text("outputs", if journal.full_outputs { "full" } else { "hash" });
    }
}

fn print_rotated(page: &mut Page, file: &RotatedFile) {
    page.text("path", file.path.to_string_lossy());
    page.key("size-mib", file.size_mib);
    page.key("files", file.files);
}

/// The keys of an action with their values.
fn action_keys(action: &Action) -> Vec<(&'static str, String)> {
    let mut keys = vec![];
    if !action.withdraw {
        keys.push(("prepend", action.prepend.to_string()));
        keys.extend(action.med.map(|med| ("med", med.to_string())));
        keys.push(("communities", list(action.communities.iter().map(ToString::to_string))));
        keys.push(("large-communities", list(action.large_communities.iter().map(ToString::to_string))));
        keys.push(("more-specifics", list(action.more_specifics.iter().map(ToString::to_string))));
        keys.push(("blackhole", action.blackhole.to_string()));
    }
    keys.push(("withdraw", action.withdraw.to_string()));
    keys
}

fn print_rules(page: &mut Page, service: &Service) {
    for (level, action) in [("degraded", &service.levels.degraded), ("failed", &service.levels.failed)] {
        page.table(&format!("[level.{level}]"));
        action_keys(action).into_iter().for_each(|(key, value)| page.key(key, value));
    }
    for Shed { upstreams, action } in &service.shed {
        page.table("[[shed]]");
        let selector = |s: &UpstreamSelector| match s {
            UpstreamSelector::Relation(relation) => quoted(&relation.to_string()),
            UpstreamSelector::Asn(asn) => asn.to_string(),
        };
        if !upstreams.is_empty() {
            let words: Vec<String> = upstreams.iter().map(selector).collect();
            page.key("upstreams", format!("[{}]", words.join(", ")));
        }
        action_keys(action).into_iter().for_each(|(key, value)| page.key(key, value));
    }
    page.table("[guard]");
    page.text("last-site", format_duration(service.guard.last_site));
    page.text("retry", format_duration(service.guard.retry));
    page.key("start", service.guard.start);
    if let Some(flap) = service.flap {
        page.table("[flap]");
        page.text("half-life", format_duration(flap.half_life));
        page.key("suppress", flap.suppress);
        page.key("withdrawal", flap.withdrawal);
        page.key("change", flap.change);
    }
}

fn print_sessions(page: &mut Page, sessions: &Sessions) {
    let ports = |ports: &[u16]| format!("[{}]", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", "));
    page.table("[sessions]");
    page.text("secret-file", sessions.secret_file.to_string_lossy());
    page.text("tcp", sessions.tcp.as_str());
    if !sessions.tcp_ports.is_empty() {
        page.key("tcp-ports", ports(&sessions.tcp_ports));
    }
    page.key("quic-ports", ports(&sessions.quic_ports));
    page.key("port", sessions.port);
    page.text("budget", format_query_rate(sessions.budget_per_s));
    page.text("return", sessions.return_path.as_str());
    page.key("mtu", sessions.mtu_bytes);
    page.key("mptcp", sessions.mptcp);
    if !sessions.interfaces.is_empty() {
        page.key("interfaces", list(sessions.interfaces.iter().cloned()));
    }
}

/// What the other sites need of a site: with `[sessions]`, or when the file says so.
pub(crate) fn owner_keys(site: &Site, sessions: bool) -> Vec<(&'static str, String)> {
    let unicast: Vec<String> = site.unicast.addresses().map(|address| address.to_string()).collect();
    let mut keys = Vec::new();
    if !unicast.is_empty() {
        keys.push(("unicast", list(unicast)));
    }
    if sessions || site.number != site_number(&site.name) {
        keys.push(("number", site.number.to_string()));
    }
    keys
}

fn print_site(page: &mut Page, site: &Site, sessions: bool) {
    page.table("[[site]]");
    page.text("name", &site.name);
    page.text("location", &site.location.name);
    let bits = site.capacity.bits_per_s.map(|b| format!("bits = {}", quoted(&format_bit_rate(b))));
    let queries = site.capacity.queries_per_s.map(|q| format!("queries = {}", quoted(&format_query_rate(q))));
    let capacity: Vec<String> = bits.into_iter().chain(queries).collect();
    if !capacity.is_empty() {
        page.key("capacity", format!("{{ {} }}", capacity.join(", ")));
    }
    if let Some(router_id) = site.router_id {
        page.shown("router-id", router_id);
    }
    owner_keys(site, sessions).into_iter().for_each(|(key, value)| page.key(key, value));
    for upstream in &site.upstreams {
        page.table("[[site.upstream]]");
        print_upstream(page, upstream);
    }
    for dynamic in &site.dynamic {
        page.table("[[site.dynamic]]");
        page.shown("range", dynamic.range);
        let asns: Vec<String> = dynamic.asns.iter().map(ToString::to_string).collect();
        page.key("asns", format!("[{}]", asns.join(", ")));
        page.key("limit", dynamic.limit);
        print_session(page, &dynamic.template);
    }
}

fn print_upstream(page: &mut Page, upstream: &Upstream) {
    page.key("asn", upstream.asn);
    page.shown("address", upstream.address);
    if let Some(local) = upstream.local_address {
        page.shown("local-address", local);
    }
    if let Some(interface) = &upstream.interface {
        page.text("interface", interface);
    }
    page.key("port", upstream.port);
    page.key("passive", upstream.passive);
    print_session(page, upstream);
}

fn print_session(page: &mut Page, session: &Upstream) {
    if let Some(bfd) = session.bfd {
        let [interval, receive] = [bfd.interval, bfd.receive].map(|d| quoted(&format_duration(d)));
        let multiplier = bfd.multiplier;
        page.key("bfd", format!("{{ interval = {interval}, receive = {receive}, multiplier = {multiplier} }}"));
    }
    page.shown("relation", session.relation);
    page.key("families", list(session.families.iter().map(|f| f.word().to_owned())));
    page.text("hold-time", format_duration(session.hold_time));
    print_transport(page, session);
    if let Some(max) = session.max_prefix {
        page.key("max-prefix", max);
    }
    page.key("keep-routes", session.keep_routes);
    if let Some(role) = session.role {
        page.shown("role", role);
    }
    page.key("strict-role", session.strict_role);
    if let Some(restart) = session.graceful_restart {
        let long = restart.long_lived.map(|t| format!(", long-lived = {}", quoted(&format_duration(t))));
        let time = quoted(&format_duration(restart.restart_time));
        page.key("graceful-restart", format!("{{ restart-time = {time}{} }}", long.unwrap_or_default()));
    }
    let NextHop { ipv4, ipv6 } = session.next_hop;
    let hops = [ipv4.map(|a| format!("ipv4 = \"{a}\"")), ipv6.map(|a| format!("ipv6 = \"{a}\""))];
    let hops: Vec<String> = hops.into_iter().flatten().collect();
    if !hops.is_empty() {
        page.key("next-hop", format!("{{ {} }}", hops.join(", ")));
    }
    page.key("next-hop-unchanged", session.next_hop_unchanged);
    page.key("extended-next-hop", session.extended_next_hop);
    page.key("add-path", session.add_path);
    page.key("route-reflector-client", session.route_reflector_client);
    page.key("communities", list(session.communities.iter().map(ToString::to_string)));
    page.key("extended-communities", list(session.extended_communities.iter().map(ToString::to_string)));
    page.key("large-communities", list(session.large_communities.iter().map(ToString::to_string)));
    page.key("prepend", session.prepend);
    if let Some(med) = session.med {
        page.key("med", med);
    }
    for (level, action) in [("degraded", &session.degraded), ("failed", &session.failed)] {
        if let Some(action) = action {
            let keys: Vec<String> =
                action_keys(action).into_iter().map(|(key, value)| format!("{key} = {value}")).collect();
            page.key(level, format!("{{ {} }}", keys.join(", ")));
        }
    }
    if let Some(full_view) = session.full_view {
        page.key("full-view", full_view);
    }
}

fn print_transport(page: &mut Page, session: &Upstream) {
    if let Some(multihop) = session.multihop {
        page.key("multihop", multihop);
    }
    if let Some(hops) = session.ttl_security {
        page.key("ttl-security", hops);
    }
    if let Some(file) = &session.password_file {
        page.text("password-file", file.to_string_lossy());
    }
    if let Some(ao) = &session.tcp_ao {
        let (file, algorithm) = (quoted(&ao.key_file.to_string_lossy()), quoted(&ao.algorithm.to_string()));
        let ids = format!("send-id = {}, receive-id = {}", ao.send_id, ao.receive_id);
        page.key("tcp-ao", format!("{{ key-file = {file}, {ids}, algorithm = {algorithm} }}"));
    }
}
