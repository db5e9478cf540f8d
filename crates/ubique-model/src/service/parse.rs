//! From a service file to a [`Service`].
//!
//! Each table becomes a draft that keeps places; [`super::rules`] compares drafts with each other; when nothing is
//! wrong, the drafts become the model.

mod action;
mod admin;
mod sessions;
mod upstream;

use std::net::{IpAddr, Ipv4Addr};

use toml::Spanned;
use toml::de::DeTable;

pub(super) use action::Rules;
pub(super) use sessions::OwnerDraft;
pub(super) use upstream::{DynamicDraft, SessionDraft, UpstreamDraft};

use super::{
    AgentSettings, Ask, BmpCollector, Capacity, JournalSettings, Records, RehearseSettings, RotatedFile, Service, Site,
    rules, site_number, spec,
};
use crate::check::{self, Check};
use crate::diagnostic::Parsed;
use crate::location::Location;
use crate::net::{Asn, Prefix};
use crate::read::sink::{At, Sink, Span, read_file};
use crate::read::table::TableReader;
use crate::read::text;

/// `[service]` as far as it was readable.
#[derive(Default)]
pub(super) struct Head {
    pub name: Option<At<String>>,
    pub asn: Option<At<Asn>>,
    pub prefixes: Vec<At<Prefix>>,
    pub addresses: Vec<At<IpAddr>>,
    /// Every prefix and address was readable: what lies outside of them is known.
    pub complete: bool,
}

/// `[[site]]` as far as it was readable.
pub(super) struct SiteDraft {
    pub span: Span,
    pub name: Option<At<String>>,
    pub location: Option<Location>,
    pub capacity: Capacity,
    pub router_id: Option<Ipv4Addr>,
    pub owner: OwnerDraft,
    pub upstreams: Vec<UpstreamDraft>,
    pub dynamic: Vec<DynamicDraft>,
}

impl Service {
    /// Reads a service file; `file_name` is repeated in the diagnostics.
    pub fn parse(file_name: &str, text: &[u8]) -> Parsed<Service> {
        read_file(file_name, text, build)
    }
}

fn build(sink: &Sink<'_>, root: &Spanned<DeTable<'_>>) -> Option<Service> {
    let root = TableReader::root(sink, &spec::FILE, root);
    let head = root.table("service").map(|t| read_head(&t)).unwrap_or_default();
    let agent = root.table("agent").and_then(|t| read_agent(&t, &head));
    let rehearse = root.table("rehearse").map(|t| read_rehearse(&t));
    let (checks, groups) = check::parse::read_all(&root);
    let drafts: Vec<SiteDraft> = root.tables("site").iter().map(read_site).collect();
    let rules = action::read_rules(&root);
    let sessions = sessions::read_sessions(&root);
    rules::check(&root, &head, &drafts);
    rules::check_actions(sink, &head, &rules, &drafts);
    let steps: Vec<Span> = rules.shed.iter().map(|step| step.span.clone()).collect();
    let service = Service {
        name: head.name?.value,
        asn: head.asn?.value,
        prefixes: values(head.prefixes),
        addresses: values(head.addresses),
        checks: checks.into_iter().collect::<Option<Vec<Check>>>()?,
        groups: groups?,
        levels: rules.levels(),
        shed: values(rules.shed),
        flap: rules.flap?.map(|at| at.value),
        guard: rules.guard?,
        sessions: sessions?,
        sites: drafts.into_iter().map(SiteDraft::finish).collect::<Option<Vec<Site>>>()?,
        agent: agent?,
        rehearse: rehearse?,
    };
    rules::check_shedding(sink, &service, &steps);
    Some(service)
}

/// The values without their places.
pub(crate) fn values<T>(list: Vec<At<T>>) -> Vec<T> {
    list.into_iter().map(|at| at.value).collect()
}

/// The number in its own type; the description of the key keeps it in range.
pub(crate) fn narrow<T: TryFrom<i64>>(number: Option<At<i64>>) -> Option<At<T>> {
    number.and_then(|at| Some(At { value: T::try_from(at.value).ok()?, span: at.span }))
}

fn read_head(table: &TableReader<'_>) -> Head {
    let mut prefixes = table.texts("prefixes", text::prefix);
    for prefix in &mut prefixes {
        if let Some(finding) = text::host_bits(prefix.value) {
            table.sink().report(&prefix.span, finding);
            prefix.value = prefix.value.trunc();
        }
    }
    let addresses = table.texts("addresses", text::address);
    Head {
        name: table.text("name", text::name),
        asn: table.asn("asn"),
        complete: prefixes.len() == table.written("prefixes") && addresses.len() == table.written("addresses"),
        prefixes,
        addresses,
    }
}

fn read_agent(table: &TableReader<'_>, head: &Head) -> Option<AgentSettings> {
    let socket = table.text("socket", text::path);
    let state = table.text("state", text::path);
    let metrics = table.text("metrics", text::endpoint);
    let graceful_shutdown = table.duration("graceful-shutdown");
    let drain = table.duration("drain");
    let drain_hook = values(table.texts("drain-hook", text::free));
    let confirm_share = narrow(table.integer("confirm-share"));
    let watchdog = table.duration("watchdog");
    let sandbox = table.boolean("sandbox").is_none_or(|at| at.value);
    let records = read_records(table);
    if let Some(state) = &state {
        rules::check_state(table.sink(), state, socket.as_ref().map(|at| &at.value), records.as_ref());
    }
    let admin = admin::read_admin(table, &head.addresses);
    Some(AgentSettings {
        socket: socket?.value,
        state: state?.value,
        metrics: metrics.map(|at| at.value),
        graceful_shutdown: graceful_shutdown?.value,
        drain: drain?.value,
        drain_hook,
        confirm_share: confirm_share?.value,
        watchdog: watchdog?.value,
        sandbox,
        records: records?,
        admin: admin?,
    })
}

fn read_records(table: &TableReader<'_>) -> Option<Records> {
    let written = |key| if table.has(key) { Some(table.table(key)) } else { None };
    let bmp: Vec<_> = table.tables("bmp").iter().map(read_collector).collect();
    let mrt = written("mrt").map(|t| read_rotated(&t?));
    let journal = written("journal").map(|t| read_journal(&t?));
    Some(Records {
        bmp: bmp.into_iter().collect::<Option<Vec<BmpCollector>>>()?,
        mrt: mrt.map_or(Some(None), |file| file.map(Some))?,
        journal: journal.map_or(Some(None), |journal| journal.map(Some))?,
    })
}

fn read_collector(table: &TableReader<'_>) -> Option<BmpCollector> {
    let collector = table.text("collector", text::endpoint);
    let statistics = table.duration("statistics");
    Some(BmpCollector { collector: collector?.value, statistics: statistics?.value })
}

fn read_rotated(table: &TableReader<'_>) -> Option<RotatedFile> {
    let path = table.text("path", text::path);
    let size_mib = narrow(table.integer("size-mib"));
    let files = narrow(table.integer("files"));
    Some(RotatedFile { path: path?.value, size_mib: size_mib?.value, files: files?.value })
}

fn read_journal(table: &TableReader<'_>) -> Option<JournalSettings> {
    let file = read_rotated(table);
    let outputs = table.choice("outputs");
    Some(JournalSettings { file: file?, full_outputs: outputs?.value == "full" })
}

fn read_rehearse(table: &TableReader<'_>) -> RehearseSettings {
    let word = table.choice("ask");
    let ask = |word: &At<&str>| Ask::ALL.into_iter().find(|(_, ask)| *ask == word.value);
    let settings = RehearseSettings {
        command: values(table.texts("command", text::free)),
        ask: word.as_ref().and_then(ask).map(|(ask, _)| ask).unwrap_or_default(),
        agent: values(table.texts("agent", text::free)),
    };
    rules::check_rehearse(table.sink(), &settings, word.as_ref());
    settings
}

fn read_site(table: &TableReader<'_>) -> SiteDraft {
    SiteDraft {
        span: table.span.clone(),
        name: table.text("name", text::name),
        location: table.text("location", text::location).map(|at| at.value),
        capacity: table.table("capacity").map(|t| read_capacity(&t)).unwrap_or_default(),
        router_id: table.text("router-id", text::router_id).map(|at| at.value),
        owner: sessions::read_owner(table),
        upstreams: table.tables("upstream").iter().map(upstream::read_upstream).collect(),
        dynamic: table.tables("dynamic").iter().map(upstream::read_dynamic).collect(),
    }
}

fn read_capacity(table: &TableReader<'_>) -> Capacity {
    Capacity {
        bits_per_s: table.text("bits", text::bit_rate).map(|at| at.value),
        queries_per_s: table.text("queries", text::query_rate).map(|at| at.value),
    }
}

impl SiteDraft {
    fn finish(self) -> Option<Site> {
        let name = self.name?.value;
        Some(Site {
            unicast: self.owner.addresses(),
            number: self.owner.number.map_or_else(|| site_number(&name), |at| at.value),
            name,
            location: self.location?,
            capacity: self.capacity,
            router_id: self.router_id,
            upstreams: self.upstreams.into_iter().map(UpstreamDraft::finish).collect::<Option<_>>()?,
            dynamic: self.dynamic.into_iter().map(DynamicDraft::finish).collect::<Option<_>>()?,
        })
    }
}
