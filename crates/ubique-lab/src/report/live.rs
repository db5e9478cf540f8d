//! The live table of a rehearsal: vantage points × sites with round-trip times; and events as lines above it.
//!
//! [`lines`] is a pure function from a state to lines; redrawing in place is the caller's. The table has as many lines
//! in every frame of one rehearsal, so that moving the cursor up by that number redraws it.

use super::paint::{Paint, columns, cut, duration, left, letter, moment, right};
use super::{Event, EventKind};

/// Columns of a site when there is room, and the fewest that show `123 ms`.
const WIDE_CELL: usize = 9;
const NARROW_CELL: usize = 7;
/// Widest column of vantage points.
const MAX_NAME: usize = 20;
/// Columns of lost queries.
const LOST_WIDTH: usize = 7;
/// A vantage point is marked as moved for so long, ms.
const MOVED_MS: f64 = 2000.0;

/// What the table shows at one moment.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LiveState {
    /// First line: service, scenario, routers.
    pub title: String,
    /// What is going on: the current step in words.
    pub step: String,
    /// Time since the start.
    pub elapsed_ms: f64,
    /// The sites, in the order of the report, and their state.
    pub sites: Vec<LiveSite>,
    /// The vantage points.
    pub rows: Vec<LiveRow>,
}

/// A site.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LiveSite {
    /// Its name.
    pub name: String,
    /// Something was done to it: dimmed.
    pub down: bool,
}

/// A vantage point.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LiveRow {
    /// Its name.
    pub vantage: String,
    /// Index of the site that answers; `None`: nobody does.
    pub site: Option<usize>,
    /// Median round-trip time, ms.
    pub rtt_ms: Option<f64>,
    /// Queries lost so far.
    pub lost: u64,
    /// How long ago it changed its site, ms.
    pub moved_ms: Option<f64>,
}

/// The table as lines of at most `width` columns, with ANSI colours or without.
pub fn lines(state: &LiveState, width: usize, color: bool) -> Vec<String> {
    let paint = Paint(color);
    let mut lines = vec![
        paint.bold(&cut(&state.title, width)),
        cut(&format!("{:>9}  {}", moment(state.elapsed_ms), state.step), width),
        String::new(),
    ];
    let name_width = state.rows.iter().map(|r| columns(&r.vantage)).max().unwrap_or(0).min(MAX_NAME);
    let room = width.saturating_sub(name_width + LOST_WIDTH) / state.sites.len().max(1);
    if room >= NARROW_CELL {
        wide(state, name_width, room.min(WIDE_CELL), paint, &mut lines);
    } else {
        narrow(state, name_width, width, paint, &mut lines);
    }
    lines
}

/// An event as a line of at most `width` columns.
pub fn event_line(event: &Event, width: usize, color: bool) -> String {
    let paint = Paint(color);
    // A warning may quote the end of a log: its first line says what happened.
    let text: String = event.text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    let line = cut(&format!("{:>9}  {text}", moment(event.at_ms)), width);
    match event.kind {
        EventKind::Action => paint.bold(&line),
        EventKind::Warning => paint.loss(&line),
        EventKind::Agent | EventKind::Routing | EventKind::Clients => line,
    }
}

/// One column for each site.
fn wide(state: &LiveState, name_width: usize, cell: usize, paint: Paint, lines: &mut Vec<String>) {
    let mut head = left("", name_width);
    for (index, site) in state.sites.iter().enumerate() {
        let text = right(&format!("{} {}", letter(index), cut(&site.name, cell - 3)), cell);
        head += &if site.down { paint.dim(&text) } else { paint.site(index, &text) };
    }
    lines.push(head + &right("lost", LOST_WIDTH));
    for row in &state.rows {
        let mut line = left(&row.vantage, name_width);
        for index in 0..state.sites.len() {
            line += &match row.site {
                Some(site) if site == index => paint.site(index, &right(&mark(row), cell)),
                None => paint.loss(&right(if index == 0 { "silent" } else { "" }, cell)),
                _ => paint.dim(&right("·", cell)),
            };
        }
        lines.push(line + &lost(row, paint));
    }
    let mut total = paint.dim(&left("clients", name_width));
    for index in 0..state.sites.len() {
        let count = state.rows.iter().filter(|r| r.site == Some(index)).count();
        total += &paint.site(index, &right(&count.to_string(), cell));
    }
    let silent = state.rows.iter().filter(|r| r.site.is_none()).count();
    lines.push(if silent > 0 { total + &paint.loss(&format!("  {silent} silent")) } else { total });
}

/// One site for each vantage point, for narrow terminals or many sites.
fn narrow(state: &LiveState, name_width: usize, width: usize, paint: Paint, lines: &mut Vec<String>) {
    for row in &state.rows {
        let room = width.saturating_sub(name_width + 1 + LOST_WIDTH);
        let site = row.site.and_then(|index| state.sites.get(index).map(|site| (index, site)));
        let landing = match site {
            Some((index, site)) => {
                paint.site(index, &left(&format!("{} {} {}", letter(index), site.name, mark(row)), room))
            }
            None => paint.loss(&left("silent", room)),
        };
        lines.push(format!("{} {landing}{}", left(&row.vantage, name_width), lost(row, paint)));
    }
}

/// The round-trip time, with an arrow for a while after a move.
fn mark(row: &LiveRow) -> String {
    let rtt = row.rtt_ms.map_or_else(
        || "…".to_owned(),
        |ms| {
            if ms >= 10.0 { format!("{ms:.0} ms") } else { duration(ms) }
        },
    );
    let moved = row.moved_ms.is_some_and(|ms| ms < MOVED_MS);
    if moved { format!("→{rtt}") } else { rtt }
}

fn lost(row: &LiveRow, paint: Paint) -> String {
    let text = right(&row.lost.to_string(), LOST_WIDTH);
    if row.lost > 0 { paint.loss(&text) } else { paint.dim(&text) }
}
