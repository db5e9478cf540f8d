//! A printed service file as tables of keys and values.

use super::KeyChange;

/// A table with its lines, as [`crate::service::Service::to_toml`] prints them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// `[agent]`, `[[site.upstream]]`.
    pub header: String,
    /// Which of several; see [`tables`].
    pub name: String,
    /// What tells it from others of the same header.
    identity: String,
    /// Keys and values.
    pub lines: Vec<(String, String)>,
}

impl Table {
    /// One of several, by its name.
    pub(super) fn named(header: &str, name: &str, keys: Vec<(&'static str, String)>) -> Table {
        let lines = keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Table { header: header.to_owned(), name: name.to_owned(), identity: name.to_owned(), lines }
    }

    /// Whether it is the same one in another file.
    pub(super) fn is(&self, other: &Table) -> bool {
        (&self.header, &self.identity) == (&other.header, &other.identity)
    }

    /// The value of a key.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The keys that differ from those of `before`; all of them when there was none.
    pub(super) fn keys(&self, before: Option<&Table>) -> Vec<KeyChange> {
        let old = |key: &str| before.and_then(|b| b.value(key)).map(str::to_owned);
        let mut keys: Vec<KeyChange> = Vec::new();
        for (key, value) in &self.lines {
            let old = old(key);
            if old.as_ref() != Some(value) {
                keys.push(KeyChange { key: key.clone(), old, new: Some(value.clone()) });
            }
        }
        for (key, value) in before.iter().flat_map(|b| &b.lines) {
            if self.value(key).is_none() {
                keys.push(KeyChange { key: key.clone(), old: Some(value.clone()), new: None });
            }
        }
        keys
    }
}

/// Reads what our own printer wrote: one key a line. Of tables of which there are several, those with a name, a range or
/// an address are known by it, others by their place.
pub(super) fn tables(text: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            let (header, none) = (line.to_owned(), String::new());
            tables.push(Table { header, name: none.clone(), identity: none, lines: Vec::new() });
        } else if let (Some(table), Some((key, value))) = (tables.last_mut(), line.split_once(" = ")) {
            table.lines.push((key.to_owned(), value.to_owned()));
        }
    }
    for index in 0..tables.len() {
        let header = &tables[index].header;
        if header.starts_with("[[") {
            let before = tables[..index].iter().filter(|t| t.header == *header).count();
            let (name, identity) = identify(&tables[index], before + 1);
            (tables[index].name, tables[index].identity) = (name, identity);
        }
    }
    tables
}

/// What it is called, and what tells it from others.
fn identify(table: &Table, place: usize) -> (String, String) {
    let bare = |key: &str| table.value(key).map(|value| value.trim_matches('"').to_owned());
    if let Some(address) = bare("address") {
        let asn = bare("asn").map(|asn| format!("AS{asn} ")).unwrap_or_default();
        let interface = bare("interface").map(|i| format!("%{i}")).unwrap_or_default();
        let identity = format!("{address}{interface}");
        return (format!("{asn}{identity}"), identity);
    }
    let name = ["name", "range", "collector"].into_iter().find_map(bare).unwrap_or_else(|| format!("#{place}"));
    (name.clone(), name)
}
