//! Columns that fit: the least important go first when the terminal is narrow, then the last one is cut.

use super::{Line, Tone, shorten, width};

/// Columns between two columns.
const GAP: usize = 2;

/// Least width at which the last column is worth showing.
const LAST: usize = 12;

/// A column.
pub struct Column {
    pub title: &'static str,
    /// Numbers stand on the right.
    pub right: bool,
    /// Columns of the lowest rank go first when there is no room; 9 stays.
    pub rank: u8,
    /// What it may take at most.
    pub most: usize,
}

/// A column of texts.
pub const fn left(title: &'static str, rank: u8, most: usize) -> Column {
    Column { title, right: false, rank, most }
}

/// A column of numbers.
pub const fn right(title: &'static str, rank: u8, most: usize) -> Column {
    Column { title, right: true, rank, most }
}

/// A cell.
pub type Cell = (Tone, String);

/// The head and the rows, in at most `room` columns. The last column takes what is left.
pub fn lay_out(columns: &[Column], rows: &[Vec<Cell>], room: usize) -> (Line, Vec<Line>) {
    let wanted: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let cells = rows.iter().filter_map(|row| row.get(index)).map(|(_, text)| width(text));
            cells.max().unwrap_or(0).max(width(column.title)).min(column.most)
        })
        .collect();
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let last = columns.len() - 1;
    let need = |shown: &[usize]| -> usize {
        let width = |index: usize| if index == last { wanted[last].min(LAST) } else { wanted[index] };
        shown.iter().map(|&index| width(index) + GAP).sum::<usize>().saturating_sub(GAP)
    };
    while need(&shown) > room {
        let candidates = shown.iter().enumerate().filter(|&(_, &index)| columns[index].rank < 9);
        let Some((place, _)) = candidates.min_by_key(|&(_, &index)| columns[index].rank) else {
            break;
        };
        shown.remove(place);
    }
    let fixed: usize = shown.iter().filter(|&&i| i != last).map(|&i| wanted[i] + GAP).sum();
    let widths = |index: usize| if index == last { room.saturating_sub(fixed) } else { wanted[index] };
    let line = |cell: &dyn Fn(usize) -> Cell| -> Line {
        let mut line = Line::default();
        for (place, &index) in shown.iter().enumerate() {
            let (tone, text) = cell(index);
            let text = shorten(&text, widths(index));
            let pad = if index == last { 0 } else { wanted[index].saturating_sub(width(&text)) };
            let gap = if place + 1 == shown.len() { 0 } else { GAP };
            let (before, after) = if columns[index].right { (pad, gap) } else { (0, pad + gap) };
            line = line.and(Tone::Plain, " ".repeat(before)).and(tone, text).and(Tone::Plain, " ".repeat(after));
        }
        line.cut(room)
    };
    let head = line(&|index| (Tone::Dim, columns[index].title.to_owned()));
    let rows =
        rows.iter().map(|row| line(&|index| row.get(index).cloned().unwrap_or((Tone::Plain, String::new())))).collect();
    (head, rows)
}
