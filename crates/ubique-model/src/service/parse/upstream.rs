//! `[[site.upstream]]` and `[[site.dynamic]]` as they are written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::action::read_action;
use super::{narrow, values};
use crate::diagnostic as code;
use crate::net::{AddressFamily, Asn, Community, ExtendedCommunity, LargeCommunity, Prefix, Relation};
use crate::read::sink::{At, Finding, Span};
use crate::read::table::TableReader;
use crate::read::text;
use crate::read::words::{did_you_mean, shorten};
use crate::service::upstream::{AoAlgorithm, Bfd, Dynamic, GracefulRestart, NextHop, Role, TcpAo, Upstream};
use crate::service::{Action, spec};

/// `[[site.upstream]]` as far as it was readable.
pub(in crate::service) struct UpstreamDraft {
    pub asn: Option<At<Asn>>,
    pub address: Option<At<IpAddr>>,
    pub local_address: Option<At<IpAddr>>,
    pub interface: Option<At<String>>,
    pub port: Option<At<u16>>,
    pub passive: bool,
    pub session: SessionDraft,
}

/// `[[site.dynamic]]` as far as it was readable.
pub(in crate::service) struct DynamicDraft {
    pub range: Option<At<Prefix>>,
    pub asns: Vec<At<Asn>>,
    pub limit: Option<At<u16>>,
    pub session: SessionDraft,
}

/// The keys that every session has, as far as they were readable.
pub(in crate::service) struct SessionDraft {
    pub bfd: Option<At<Bfd>>,
    pub relation: Option<At<Relation>>,
    pub families: Vec<At<AddressFamily>>,
    /// `families` is written, and every element was readable.
    pub families_known: bool,
    pub hold_time: Option<At<Duration>>,
    pub multihop: Option<At<u8>>,
    pub ttl_security: Option<At<u8>>,
    pub password_file: Option<At<PathBuf>>,
    pub tcp_ao: Option<At<TcpAo>>,
    pub role: Option<At<Role>>,
    pub strict_role: Option<At<bool>>,
    pub graceful_restart: Option<At<GracefulRestart>>,
    pub next_hop_ipv4: Option<At<IpAddr>>,
    pub next_hop_ipv6: Option<At<IpAddr>>,
    pub next_hop_unchanged: Option<At<bool>>,
    pub extended_next_hop: Option<At<bool>>,
    pub route_reflector_client: Option<At<bool>>,
    rest: Rest,
}

/// Settings of a session that no rule compares with others.
struct Rest {
    max_prefix: Option<u32>,
    keep_routes: u32,
    add_path: bool,
    communities: Vec<Community>,
    extended_communities: Vec<ExtendedCommunity>,
    large_communities: Vec<LargeCommunity>,
    prepend: u8,
    med: Option<u32>,
    degraded: Option<At<Action>>,
    failed: Option<At<Action>>,
    full_view: Option<bool>,
}

pub(super) fn read_upstream(table: &TableReader<'_>) -> UpstreamDraft {
    UpstreamDraft {
        asn: table.asn("asn"),
        address: table.text("address", text::address),
        local_address: table.text("local-address", text::address),
        interface: table.text("interface", text::interface),
        port: narrow(table.integer("port")),
        passive: table.boolean("passive").is_some_and(|at| at.value),
        session: read_session(table),
    }
}

pub(super) fn read_dynamic(table: &TableReader<'_>) -> DynamicDraft {
    let mut range = table.text("range", text::prefix);
    if let Some(at) = &mut range
        && let Some(finding) = text::host_bits(at.value)
    {
        table.sink().report(&at.span, finding);
        at.value = at.value.trunc();
    }
    DynamicDraft {
        range,
        asns: table.asns("asns"),
        limit: narrow(table.integer("limit")),
        session: read_session(table),
    }
}

fn read_session(table: &TableReader<'_>) -> SessionDraft {
    let families = table.texts("families", family);
    let next_hop = table.table("next-hop");
    let next_hop = |key| next_hop.as_ref().and_then(|t| t.text(key, text::address));
    SessionDraft {
        bfd: table.switch("bfd").and_then(|t| read_bfd(&t)),
        relation: read_relation(table),
        families_known: !families.is_empty() && families.len() == table.written("families"),
        families,
        hold_time: read_hold_time(table),
        multihop: narrow(table.integer("multihop")),
        ttl_security: narrow(table.integer("ttl-security")),
        password_file: table.text("password-file", text::path),
        tcp_ao: read_tcp_ao(table),
        role: read_role(table),
        strict_role: table.boolean("strict-role"),
        graceful_restart: read_graceful_restart(table),
        next_hop_ipv4: next_hop("ipv4"),
        next_hop_ipv6: next_hop("ipv6"),
        next_hop_unchanged: table.boolean("next-hop-unchanged"),
        extended_next_hop: table.boolean("extended-next-hop"),
        route_reflector_client: table.boolean("route-reflector-client"),
        rest: Rest {
            max_prefix: narrow(table.integer("max-prefix")).map(|at| at.value),
            keep_routes: narrow(table.integer("keep-routes")).map_or(spec::KEEP_ROUTES, |at| at.value),
            add_path: table.boolean("add-path").is_some_and(|at| at.value),
            communities: values(table.texts("communities", text::community)),
            extended_communities: values(table.texts("extended-communities", text::extended_community)),
            large_communities: values(table.texts("large-communities", text::large_community)),
            prepend: narrow(table.integer("prepend")).map_or(0, |at| at.value),
            med: narrow(table.integer("med")).map(|at| at.value),
            degraded: written(table, "degraded").map(|(t, _)| read_action(&t)),
            failed: written(table, "failed").map(|(t, _)| read_action(&t)),
            full_view: table.boolean("full-view").map(|at| at.value),
        },
    }
}

fn family(word: &str) -> Result<AddressFamily, Finding> {
    AddressFamily::ALL.into_iter().find(|family| family.word() == word).ok_or_else(|| {
        Finding::new(code::BAD_CHOICE, format!("unknown family \"{}\"", shorten(word)))
            .fix(did_you_mean(word, spec::FAMILIES.iter().copied()))
    })
}

fn read_relation(table: &TableReader<'_>) -> Option<At<Relation>> {
    let word = table.choice("relation")?;
    let value = match word.value {
        "peer" => Relation::Peer,
        "route-server" => Relation::RouteServer,
        "internal" => Relation::Internal,
        _ => Relation::Transit,
    };
    Some(At { value, span: word.span })
}

fn read_role(table: &TableReader<'_>) -> Option<At<Role>> {
    let word = table.choice("role")?;
    let value = Role::ALL.into_iter().find(|role| role.to_string() == word.value)?;
    Some(At { value, span: word.span })
}

fn read_bfd(table: &TableReader<'_>) -> Option<At<Bfd>> {
    let interval = table.duration("interval");
    let receive = table.duration("receive").map(|at| at.value);
    let multiplier = narrow(table.integer("multiplier"));
    let interval = interval?.value;
    let value = Bfd { interval, receive: receive.unwrap_or(interval), multiplier: multiplier?.value };
    Some(At { value, span: table.span.clone() })
}

fn read_hold_time(table: &TableReader<'_>) -> Option<At<Duration>> {
    /// Shortest hold time other than 0 (RFC 4271 §4.2).
    const MIN_HOLD_TIME: Duration = Duration::from_secs(3);
    let at = table.duration("hold-time")?;
    let whole = at.value.subsec_nanos() == 0;
    if whole && (at.value.is_zero() || at.value >= MIN_HOLD_TIME) {
        return Some(at);
    }
    let shown = crate::quantity::format_duration(at.value);
    let finding = Finding::new(code::HOLD_TIME, format!("a hold time of {shown} is not possible"))
        .cause("RFC 4271 §4.2: the hold time is 0 or at least 3 whole seconds");
    let better = at.value.as_secs().max(MIN_HOLD_TIME.as_secs());
    table.sink().report(&at.span, finding.fix(format!("write \"{better}s\"")));
    None
}

/// The table of that key with its place, when it is written.
pub(super) fn written<'d>(table: &TableReader<'d>, key: &str) -> Option<(TableReader<'d>, Span)> {
    if !table.has(key) {
        return None;
    }
    Some((table.table(key)?, table.span_of(key)))
}

fn read_tcp_ao(table: &TableReader<'_>) -> Option<At<TcpAo>> {
    let (table, span) = written(table, "tcp-ao")?;
    let key_file = table.text("key-file", text::path);
    let send_id = narrow(table.integer("send-id"));
    let receive_id = narrow(table.integer("receive-id"));
    let word = table.choice("algorithm")?;
    let algorithm = AoAlgorithm::ALL.into_iter().find(|a| a.to_string() == word.value)?;
    let value = TcpAo { key_file: key_file?.value, send_id: send_id?.value, receive_id: receive_id?.value, algorithm };
    Some(At { value, span })
}

fn read_graceful_restart(table: &TableReader<'_>) -> Option<At<GracefulRestart>> {
    let (table, span) = written(table, "graceful-restart")?;
    let restart_time = whole_seconds(&table, table.duration("restart-time"));
    let long_lived = whole_seconds(&table, table.duration("long-lived"));
    Some(At { value: GracefulRestart { restart_time: restart_time?, long_lived }, span })
}

fn whole_seconds(table: &TableReader<'_>, at: Option<At<Duration>>) -> Option<Duration> {
    let at = at?;
    if at.value.subsec_nanos() != 0 {
        let shown = crate::quantity::format_duration(at.value);
        let finding = Finding::new(code::OUT_OF_RANGE, format!("\"{shown}\" is not a number of whole seconds"))
            .cause("the protocol counts seconds (RFC 4724 §3, RFC 9494 §3.1)");
        table.sink().report(&at.span, finding.fix(format!("write \"{}s\"", at.value.as_secs() + 1)));
        return None;
    }
    Some(at.value)
}

fn v4(at: Option<At<IpAddr>>) -> Option<Ipv4Addr> {
    match at?.value {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn v6(at: Option<At<IpAddr>>) -> Option<Ipv6Addr> {
    match at?.value {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

fn is_on(flag: Option<&At<bool>>) -> bool {
    flag.is_some_and(|at| at.value)
}

impl SessionDraft {
    /// What is said of the levels.
    pub(in crate::service) fn actions(&self) -> impl Iterator<Item = &At<Action>> {
        [&self.rest.degraded, &self.rest.failed].into_iter().flatten()
    }

    /// Everything but who the neighbour is.
    fn finish(self, neighbour: Upstream) -> Option<Upstream> {
        let rest = self.rest;
        let mut families = values(self.families);
        families.sort_unstable();
        families.dedup();
        let next_hop = NextHop { ipv4: v4(self.next_hop_ipv4), ipv6: v6(self.next_hop_ipv6) };
        Some(Upstream {
            bfd: self.bfd.map(|at| at.value),
            relation: self.relation?.value,
            families: if families.is_empty() { neighbour.families } else { families },
            hold_time: self.hold_time?.value,
            multihop: self.multihop.map(|at| at.value),
            ttl_security: self.ttl_security.map(|at| at.value),
            password_file: self.password_file.map(|at| at.value),
            tcp_ao: self.tcp_ao.map(|at| at.value),
            max_prefix: rest.max_prefix,
            keep_routes: rest.keep_routes,
            role: self.role.map(|at| at.value),
            strict_role: is_on(self.strict_role.as_ref()),
            graceful_restart: self.graceful_restart.map(|at| at.value),
            next_hop,
            next_hop_unchanged: is_on(self.next_hop_unchanged.as_ref()),
            extended_next_hop: is_on(self.extended_next_hop.as_ref()),
            add_path: rest.add_path,
            route_reflector_client: is_on(self.route_reflector_client.as_ref()),
            communities: rest.communities,
            extended_communities: rest.extended_communities,
            large_communities: rest.large_communities,
            prepend: rest.prepend,
            med: rest.med,
            degraded: rest.degraded.map(|at| at.value),
            failed: rest.failed.map(|at| at.value),
            full_view: rest.full_view,
            ..neighbour
        })
    }
}

impl UpstreamDraft {
    pub(super) fn finish(self) -> Option<Upstream> {
        let neighbour = Upstream {
            local_address: self.local_address.map(|at| at.value),
            interface: self.interface.map(|at| at.value),
            port: self.port?.value,
            passive: self.passive,
            ..Upstream::new(self.asn?.value, self.address?.value)
        };
        self.session.finish(neighbour)
    }
}

impl DynamicDraft {
    pub(super) fn finish(self) -> Option<Dynamic> {
        let range = self.range?.value;
        let asns = values(self.asns);
        let neighbour = Upstream { passive: true, ..Upstream::new(*asns.first()?, range.addr()) };
        Some(Dynamic { range, asns, limit: self.limit?.value, template: self.session.finish(neighbour)? })
    }
}
