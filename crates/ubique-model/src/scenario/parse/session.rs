//! `[[session]]`.

use super::World;
use crate::read::table::{TableReader, report_duplicates};
use crate::read::text;
use crate::scenario::{Exchange, SessionKind, Sessions};

/// Every `[[session]]`; `None`: one of them is wrong.
pub(super) fn read(root: &TableReader<'_>, world: World<'_>) -> Option<Vec<Sessions>> {
    let read: Vec<Option<Sessions>> = root.tables("session").iter().map(|table| session(table, world)).collect();
    read.into_iter().collect()
}

fn session(table: &TableReader<'_>, world: World<'_>) -> Option<Sessions> {
    let vantages = table.texts("vantages", text::free);
    vantages.iter().for_each(|vantage| world.check_vantage(table, vantage));
    report_duplicates(table.sink(), "vantage point", &vantages);
    let count = table.integer("count");
    let port = table.integer("port");
    let name = table.variant()?;
    let kind = SessionKind::ALL.into_iter().find(|(_, word)| *word == name).map(|(kind, _)| kind)?;
    let exchange = match kind {
        SessionKind::Upload | SessionKind::Download => {
            let size = table.integer("size-kib");
            let rate = table.text("rate", text::bit_rate);
            Exchange::Bulk { size_kib: u32::try_from(size?.value).ok()?, rate_bits_per_s: rate?.value }
        }
        _ => Exchange::Messages { every: table.duration("every")?.value },
    };
    Some(Sessions {
        kind,
        exchange,
        vantages: vantages.into_iter().map(|at| at.value).collect(),
        count: u32::try_from(count?.value).ok()?,
        port: port.and_then(|at| u16::try_from(at.value).ok()),
    })
}
