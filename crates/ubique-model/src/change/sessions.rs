//! What a difference in `[sessions]`, or in what sites need of each other for it, means for a running site.
//!
//! The table and the site's own `unicast` and `number` wait for a restart; the other sites' come at once, so that a site can
//! be added without restarting all.

use super::tables::Table;
use super::{KeyChange, Sign};
use crate::service::{Service, owner_keys};

/// Header of a site's table.
const SITE: &str = "[[site]]";

/// The other sites as far as this one needs them, where both services have `[sessions]`: who passes on what to whom.
pub(super) fn others(service: &Service, other: &Service, site: &str) -> Vec<Table> {
    if service.sessions.is_none() || other.sessions.is_none() {
        return Vec::new();
    }
    let others = service.sites.iter().filter(|s| s.name != site);
    others.map(|s| Table::named(SITE, &s.name, owner_keys(s, true))).collect()
}

/// Whether it is the table of another site than `site`.
pub(super) fn is_other(table: &Table, site: &str) -> bool {
    table.header == SITE && table.name != site
}

/// What a change at another site means here.
pub(super) fn of_other(sign: Sign, keys: &[KeyChange]) -> &'static str {
    match sign {
        Sign::Added => "packets of its connections are passed on to it at once",
        Sign::Removed => "packets of its connections are passed on no more: where they land here, they are reset",
        Sign::Changed if keys.iter().any(|k| k.key == "number") => {
            "its connections that are open now are not known as its own any more"
        }
        Sign::Changed => "packets of its connections are passed on to there at once",
    }
}

/// Puts back what of `old` runs on until the agent of `site` is restarted.
pub(super) fn keep(old: &Service, runs: &mut Service, site: &str) {
    let gone = runs.sessions.is_none();
    runs.sessions.clone_from(&old.sessions);
    for after in &mut runs.sites {
        // A file without `[sessions]` need not say where its sites are.
        let kept = after.name == site || (gone && old.sessions.is_some());
        if let Some(before) = old.site(&after.name).filter(|_| kept) {
            (after.unicast, after.number) = (before.unicast, before.number);
        }
    }
}
