//! The matrix as data: rows, who cannot and why, and how that is proved.

use ubique_model::Family;

use crate::cell::Cell;
use crate::peer::Kind;

/// Something two speakers do together.
pub struct Row {
    /// As in the names of cells: `max-prefix`.
    pub name: &'static str,
    /// What is done and what must come of it, for the page.
    pub what: &'static str,
    /// Over sessions of one family only.
    pub only: Option<Family>,
    /// Does it; a panic is a failed cell.
    pub run: fn(&Cell),
    /// The peers that cannot.
    pub cannot: &'static [Cannot],
}

/// A peer that cannot do what a row asks.
pub struct Cannot {
    pub peer: Kind,
    /// Over one family only; `None`: over neither.
    pub family: Option<Family>,
    /// Why, for the page.
    pub reason: &'static str,
    pub proof: Proof,
}

/// How a run shows that a peer cannot.
pub enum Proof {
    /// Its configuration is accepted without these lines and rejected with them (inside the neighbour).
    Rejects(&'static str),
    /// Done by this function, which panics when the peer can.
    Run(fn(&Cell)),
}

/// A row with a title over it.
pub struct Section {
    pub title: &'static str,
    pub rows: &'static [Row],
}

/// One cell.
pub struct Entry {
    pub row: &'static Row,
    pub kind: Kind,
    pub family: Family,
}

impl Row {
    /// A row every peer can.
    pub const fn new(name: &'static str, what: &'static str, run: fn(&Cell)) -> Row {
        Row { name, what, only: None, run, cannot: &[] }
    }

    /// The same with those who cannot.
    pub const fn but(self, cannot: &'static [Cannot]) -> Row {
        Row { cannot, ..self }
    }

    /// The same over one family.
    pub const fn only(self, family: Family) -> Row {
        Row { only: Some(family), ..self }
    }
}

impl Cannot {
    /// Over both families.
    pub const fn new(peer: Kind, reason: &'static str, proof: Proof) -> Cannot {
        Cannot { peer, family: None, reason, proof }
    }
}

impl Entry {
    /// All cells, row by row.
    pub fn all() -> Vec<Entry> {
        let rows = crate::rows::SECTIONS.iter().flat_map(|section| section.rows);
        rows.flat_map(|row| {
            let families = Family::ALL.into_iter().filter(|&family| row.only.is_none_or(|only| only == family));
            families.flat_map(move |family| Kind::ALL.map(move |kind| Entry { row, kind, family }))
        })
        .collect()
    }

    /// `frr v6 max-prefix`.
    pub fn name(&self) -> String {
        format!("{} {} {}", self.kind.word(), word(self.family), self.row.name)
    }

    /// Why the peer cannot.
    pub fn cannot(&self) -> Option<&'static Cannot> {
        self.row.cannot.iter().find(|c| c.peer == self.kind && c.family.is_none_or(|f| f == self.family))
    }
}

/// As in the names of cells.
pub fn word(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "v4",
        Family::Ipv6 => "v6",
    }
}
