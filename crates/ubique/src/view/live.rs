//! The screen of `ubique top`: as much of a status as fits into a window.

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as TerminalLine, Span as TerminalSpan, Text};
use ratatui::widgets::{Block, Clear, Paragraph};
use ubique_node::admin::Status;

use super::screen::{Screen, screen};
use super::time::duration;
use super::{Line, Tone, width};

/// Rows that events keep when there is no room for everything.
const EVENT_ROWS: usize = 3;

/// What the keys do.
const KEYS: &[(&str, &str)] = &[
    ("q", "quit (also Esc and Ctrl-C)"),
    ("r", "ask the agent now"),
    ("?", "this help"),
    ("", ""),
    ("PREFIXES", "acknowledged/all; +n on the way, -n being withdrawn"),
    ("P50, P99", "how long polls of the last minutes took"),
    ("FAILED", "failed polls/all polls"),
    ("BFD up", "with the silence after which the upstream is lost"),
    ("", "Rows that are not well stay when there is no room for all."),
];

/// What is shown.
pub struct View {
    /// The last status.
    pub status: Option<Box<Status>>,
    /// Why there is no newer one.
    pub error: Option<String>,
    /// When the last status came.
    pub fetched: Option<Timestamp>,
    /// The help is shown.
    pub help: bool,
    /// Colours are welcome.
    pub color: bool,
}

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, view: &View, now: Timestamp) {
    let area = frame.area();
    let (room, height) = (usize::from(area.width), usize::from(area.height));
    let mut lines = match &view.status {
        Some(status) => compose(&screen(status, now, room), height.saturating_sub(1)),
        None if view.error.is_none() => vec![Line::of(Tone::Dim, "asking the agent …")],
        None => Vec::new(),
    };
    lines.truncate(height.saturating_sub(1));
    let text: Text<'_> = lines.iter().map(|line| terminal_line(line, view.color)).collect::<Vec<_>>().into();
    frame.render_widget(Paragraph::new(text), area);
    if let Some(bottom) = area.height.checked_sub(1) {
        let footer = footer(view, now, room);
        frame.render_widget(terminal_line(&footer, view.color), Rect { y: area.y + bottom, height: 1, ..area });
    }
    if view.help {
        help(frame, area, view.color);
    }
}

/// The lines of a window of this height: what is not well is never left out for what is.
pub fn compose(screen: &Screen, height: usize) -> Vec<Line> {
    let mut lines = screen.verdict.clone();
    lines.extend(screen.notes.iter().cloned());
    // A blank line and a head each.
    let heads = 2 * 3;
    let room = height.saturating_sub(lines.len() + heads);
    let events = screen.events.rows.len().min(EVENT_ROWS).min(room / 3);
    let (checks, upstreams) = share(room - events, screen.checks.rows.len(), screen.upstreams.rows.len());
    for (panel, rows) in [(&screen.checks, checks), (&screen.upstreams, upstreams)] {
        lines.push(Line::default());
        lines.push(panel.head.clone());
        lines.extend(panel.fit(rows));
    }
    lines.push(Line::default());
    lines.push(screen.events.head.clone());
    let left = height.saturating_sub(lines.len());
    lines.extend(screen.events.last(left));
    lines
}

/// Splits rows between two that want some: half each, and what one does not need is the other's.
fn share(room: usize, first: usize, second: usize) -> (usize, usize) {
    let half = room.div_ceil(2);
    let first_has = first.min(half.max(room.saturating_sub(second)));
    (first_has, second.min(room - first_has))
}

fn footer(view: &View, now: Timestamp, room: usize) -> Line {
    let ago = view.fetched.map(|at| now.as_second() - at.as_second());
    let left = match (&view.error, ago) {
        (Some(error), Some(ago)) => Line::of(Tone::Bad, format!("no answer for {}: {error}", duration(ago))),
        (Some(error), None) => Line::of(Tone::Bad, error),
        (None, _) => Line::of(Tone::Dim, "q quit  r refresh  ? help"),
    };
    let version = view.status.as_ref().map_or(String::new(), |s| format!("ubique {}  ", s.version));
    let clock = now.to_string();
    let right = format!("{version}{} UTC", clock.get(11..19).unwrap_or(&clock));
    let gap = room.saturating_sub(left.width() + width(&right));
    match gap {
        0 => left.cut(room),
        gap => left.and(Tone::Plain, " ".repeat(gap)).and(Tone::Dim, right),
    }
}

fn help(frame: &mut Frame<'_>, area: Rect, color: bool) {
    let lines: Vec<Line> =
        KEYS.iter().map(|(key, what)| Line::of(Tone::Strong, format!(" {key:<9} ")).and(Tone::Plain, what)).collect();
    let wide = lines.iter().map(Line::width).max().unwrap_or(0) + 3;
    let size = |wanted: usize, most: u16| u16::try_from(wanted).unwrap_or(most).min(most);
    let (width, height) = (size(wide, area.width), size(lines.len() + 2, area.height));
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let text: Vec<_> = lines.iter().map(|line| terminal_line(line, color)).collect();
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title(" ubique top ")), place);
}

fn terminal_line(line: &Line, color: bool) -> TerminalLine<'_> {
    let style = |tone: Tone| match tone {
        Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
        _ if !color => Style::new(),
        Tone::Plain => Style::new(),
        Tone::Dim => Style::new().add_modifier(Modifier::DIM),
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Warn => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    };
    line.0.iter().map(|span| TerminalSpan::styled(span.text.as_str(), style(span.tone))).collect()
}
