//! What another service file would change at a running site: the plan of a reload.
//!
//! [`diff`] compares two services as their files would be written with every default ([`Service::to_toml`]), table by table
//! and key by key, so that a key that is new to the file is new here, too. It then says the effect of each difference:
//! on each session ([`Fate`]), on what is announced over it (asked of the one announcement policy), on checks and
//! addresses, and which settings only a restart brings. [`Change`] prints itself like a plan and is JSON with a version.
//!
//! What an operator must say yes to ([`Change::surprises`]): prefixes that a neighbour begins or ceases to see, addresses
//! that go away, and all sessions at once. [`effective`] is the service that runs after a reload: the new one, but for what
//! needs a restart.
//!
//! Deliberately absent: carrying it out, and what only the machine knows (whether the file of a key has another content:
//! see [`Change::rekey`]).

mod effect;
mod print;
mod sessions;
mod tables;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::net::{Asn, Prefix};
use crate::service::{AgentSettings, Dynamic, Service, Site, Upstream};

use tables::{Table, tables};

/// Version of the JSON form; raised when a field changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// What a reload would change at one site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name of the running service.
    pub service: String,
    /// Name of the site.
    pub site: String,
    /// Tables of the file that differ, in the order of the file.
    pub tables: Vec<TableChange>,
    /// Upstreams that something changes for, in the order of the new file, those that go last.
    pub upstreams: Vec<UpstreamChange>,
    /// What stays as it is until the agent is restarted.
    pub needs_restart: Vec<NeedsRestart>,
    /// What an operator must say yes to, in words; empty: nothing.
    pub surprises: Vec<String>,
}

/// What becomes of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sign {
    /// `+`
    Added,
    /// `-`
    Removed,
    /// `~`
    Changed,
}

/// A table of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableChange {
    /// What becomes of it.
    pub sign: Sign,
    /// Its header: `[[site.upstream]]`.
    pub table: String,
    /// Which of several: `AS1299 192.0.2.1`; empty where there is one.
    pub name: String,
    /// Keys that differ, as the file spells them.
    pub keys: Vec<KeyChange>,
    /// What that means, in words; empty where it is told of an upstream or of a restart.
    pub effect: String,
}

/// A key of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The key.
    pub key: String,
    /// Its value as TOML; `None`: it was not there.
    pub old: Option<String>,
    /// Its new value; `None`: it is gone.
    pub new: Option<String>,
}

/// An upstream that something changes for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamChange {
    /// Its AS, as the new file has it.
    pub asn: Asn,
    /// Its address.
    pub address: IpAddr,
    /// The interface of the session.
    pub interface: Option<String>,
    /// What becomes of the session.
    pub fate: Fate,
    /// Keys that reset the session, or `key` when the content of its key's file changed.
    pub because: Vec<String>,
    /// BFD begins, ends, or has other parameters, and the BGP session does not mind.
    pub bfd: bool,
    /// Prefixes that it begins to see.
    pub announces: Vec<Prefix>,
    /// Prefixes that it ceases to see.
    pub withdraws: Vec<Prefix>,
    /// All of it in one sentence.
    pub sentence: String,
}

/// What becomes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Untouched, only announcements differ.
    Stays,
    /// Closed and opened again.
    Resets,
    /// A new one.
    Comes,
    /// Closed for good.
    Goes,
}

/// A setting that only a restart brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedsRestart {
    /// Its table and key: `[agent] socket`.
    pub key: String,
    /// Why.
    pub why: String,
}

/// What the service file `new` would change at `site`, which runs with `old`.
///
/// # Errors
/// The new file does not describe this site any more: in words.
pub fn diff(old: &Service, new: &Service, site: &str) -> Result<Change, String> {
    let place = |service: &Service| service.site(site).cloned();
    let Some(before) = place(old) else { return Err(format!("the running service has no site {site:?}")) };
    let Some(after) = place(new) else {
        let names: Vec<&str> = new.sites.iter().map(|s| s.name.as_str()).collect();
        return Err(format!(
            "the file has no site {site:?} any more (it has {}): drain this one and stop its agent instead",
            names.join(", ")
        ));
    };
    let mut change = Change {
        schema_version: SCHEMA_VERSION,
        service: old.name.clone(),
        site: site.to_owned(),
        tables: Vec::new(),
        upstreams: Vec::new(),
        needs_restart: Vec::new(),
        surprises: Vec::new(),
    };
    let only = |service: &Service, site: &Site| Service { sites: vec![site.clone()], ..service.clone() };
    let (mut old_tables, mut new_tables) =
        (tables(&only(old, &before).to_toml()), tables(&only(new, &after).to_toml()));
    old_tables.extend(sessions::others(old, new, site));
    new_tables.extend(sessions::others(new, old, site));
    change.compare(&old_tables, &new_tables);
    let runs = effective(old, new, site);
    for upstream in &after.upstreams {
        let former = before.upstreams.iter().find(|u| same(u, upstream));
        change.upstreams.extend(effect::of_upstream(old, &runs, former, Some(upstream)));
    }
    for gone in before.upstreams.iter().filter(|u| !after.upstreams.iter().any(|n| same(u, n))) {
        change.upstreams.extend(effect::of_upstream(old, &runs, Some(gone), None));
    }
    change.surprises = effect::surprises(&change, old, new, &after);
    Ok(change)
}

/// The service that runs after a reload: `new`, but for what needs a restart.
pub fn effective(old: &Service, new: &Service, site: &str) -> Service {
    let mut runs = new.clone();
    runs.name.clone_from(&old.name);
    runs.asn = old.asn;
    let AgentSettings { graceful_shutdown, drain, drain_hook, confirm_share, .. } = new.agent.clone();
    runs.agent = AgentSettings { graceful_shutdown, drain, drain_hook, confirm_share, ..old.agent.clone() };
    let before = old.site(site);
    if let (Some(before), Some(after)) = (before, runs.sites.iter_mut().find(|s| s.name == site)) {
        after.router_id = before.router_id;
        after.dynamic = dynamic(&before.dynamic, &after.dynamic);
    }
    sessions::keep(old, &mut runs, site);
    runs
}

/// Whether it is one neighbour in both files: known by its address, on its interface.
pub fn same(one: &Upstream, other: &Upstream) -> bool {
    (one.address, &one.interface) == (other.address, &other.interface)
}

/// Ranges stay as they were set up; what is announced to their neighbours follows the file.
fn dynamic(before: &[Dynamic], after: &[Dynamic]) -> Vec<Dynamic> {
    let one = |old: &Dynamic| {
        let new = after.iter().find(|d| d.range == old.range);
        let template =
            new.map_or_else(|| old.template.clone(), |new| effect::with_attributes(&old.template, &new.template));
        Dynamic { template, ..old.clone() }
    };
    before.iter().map(one).collect()
}

impl Change {
    /// Whether there is nothing to do and nothing to say.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.upstreams.is_empty()
    }

    /// The content of an upstream's key file is another one: its session resets.
    pub fn rekey(&mut self, service: &Service, upstream: &Upstream) {
        const WORD: &str = "content of the key's file";
        let known =
            self.upstreams.iter().position(|u| (u.address, &u.interface) == (upstream.address, &upstream.interface));
        match known.and_then(|index| self.upstreams.get_mut(index)) {
            Some(u) if u.fate == Fate::Stays => {
                let reset = effect::reset(service, upstream, vec![WORD.to_owned()]);
                *u = UpstreamChange { announces: u.announces.clone(), withdraws: u.withdraws.clone(), ..reset };
            }
            Some(_) => {}
            None => self.upstreams.push(effect::reset(service, upstream, vec![WORD.to_owned()])),
        }
    }

    fn compare(&mut self, old: &[Table], new: &[Table]) {
        let partner = |table: &Table, among: &[Table]| among.iter().find(|t| t.is(table)).cloned();
        for table in new {
            match partner(table, old) {
                None => self.table(Sign::Added, table, table.keys(None)),
                Some(before) => {
                    let keys = table.keys(Some(&before));
                    if !keys.is_empty() {
                        self.table(Sign::Changed, table, keys);
                    }
                }
            }
        }
        for table in old.iter().filter(|t| partner(t, new).is_none()) {
            let gone =
                |(key, value): &(String, String)| KeyChange { key: key.clone(), old: Some(value.clone()), new: None };
            self.table(Sign::Removed, table, table.lines.iter().map(gone).collect());
        }
    }

    fn table(&mut self, sign: Sign, table: &Table, keys: Vec<KeyChange>) {
        let other = sessions::is_other(table, &self.site);
        for key in keys.iter().filter(|_| !other) {
            if let Some(why) = effect::needs_restart(&table.header, &key.key) {
                let key = format!("{} {}", table.header, key.key);
                self.needs_restart.push(NeedsRestart { key, why: why.to_owned() });
            }
        }
        let effect =
            if other { sessions::of_other(sign, &keys).to_owned() } else { effect::of_table(sign, table, &keys) };
        self.tables.push(TableChange { sign, table: table.header.clone(), name: table.name.clone(), keys, effect });
    }
}
