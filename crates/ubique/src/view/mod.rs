//! What an agent's status looks like to people: one screen of lines, for `ubique status` and `ubique top` alike.
//!
//! [`screen`] turns a [`Status`] into lines of spans with a tone each, and depends on nothing but its arguments. `paint`
//! gives them colours of a terminal, or none; `top` hands them to the terminal library. What comes from elsewhere
//! (a neighbour's last words, an error of a check) loses everything that a terminal would obey.

pub mod live;
mod screen;
mod table;
#[cfg(test)]
mod tests;
mod time;

use unicode_width::UnicodeWidthChar;

pub use screen::screen;

/// What a span says about itself; colours follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    Plain,
    Dim,
    Strong,
    Good,
    Warn,
    Bad,
}

impl Tone {
    /// Select Graphic Rendition (ECMA-48 §8.3.117).
    fn sgr(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Dim => "\x1b[2m",
            Tone::Strong => "\x1b[1m",
            Tone::Good => "\x1b[32m",
            Tone::Warn => "\x1b[33m",
            Tone::Bad => "\x1b[1;31m",
        }
    }
}

/// Text of one tone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub text: String,
    pub tone: Tone,
}

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(pub Vec<Span>);

impl Line {
    /// A line of one span.
    pub fn of(tone: Tone, text: impl AsRef<str>) -> Line {
        Line::default().and(tone, text)
    }

    /// One more span.
    pub fn and(mut self, tone: Tone, text: impl AsRef<str>) -> Line {
        self.0.push(Span { text: clean(text.as_ref()), tone });
        self
    }

    /// Columns it takes.
    pub fn width(&self) -> usize {
        self.0.iter().map(|span| width(&span.text)).sum()
    }

    /// The same in at most `room` columns.
    pub fn cut(mut self, room: usize) -> Line {
        if self.width() <= room {
            return self;
        }
        let mut left = room;
        let mut kept = Vec::new();
        for span in self.0.drain(..) {
            let wide = width(&span.text);
            if wide < left {
                left -= wide;
                kept.push(span);
            } else {
                // At least one more column was wanted: the end says so.
                kept.push(Span { text: shorten(&(span.text + " "), left), tone: span.tone });
                break;
            }
        }
        Line(kept)
    }

    /// The same in lines of at most `room` columns, at most `most` of them, broken between words of the last span; all but
    /// the first begin with `indent` blanks.
    pub fn wrap(mut self, room: usize, indent: usize, most: usize) -> Vec<Line> {
        let Some(last) = self.0.pop() else { return vec![self] };
        let mut lines = Vec::new();
        let mut line = self;
        let mut rest = last.text.as_str();
        while lines.len() + 1 < most && indent < room && line.width() + width(rest) > room {
            let free = room.saturating_sub(line.width());
            let fits = |&(at, _): &(usize, &str)| width(&rest[..at]) <= free;
            let Some((at, _)) = rest.match_indices(' ').take_while(fits).last() else { break };
            lines.push(line.and(last.tone, &rest[..at]));
            rest = rest[at..].trim_start();
            line = Line::of(Tone::Plain, " ".repeat(indent));
        }
        lines.push(line.and(last.tone, rest).cut(room));
        lines
    }

    /// For a terminal, with its colours or without.
    pub fn paint(&self, color: bool) -> String {
        let paint = |span: &Span| match span.tone.sgr() {
            "" => span.text.clone(),
            sgr if color => format!("{sgr}{}\x1b[0m", span.text),
            _ => span.text.clone(),
        };
        let line: String = self.0.iter().map(paint).collect();
        if color { line } else { line.trim_end().to_owned() }
    }
}

/// Columns of a terminal that a text takes.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// At most `room` columns, with an ellipsis where something was cut off.
pub fn shorten(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut left = room.saturating_sub(1);
    let mut kept = String::new();
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if wide > left {
            break;
        }
        left -= wide;
        kept.push(c);
    }
    if room > 0 {
        kept.push('…');
    }
    kept
}

/// Without what a terminal obeys: control characters, and those that turn the direction of writing.
pub fn clean(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(obeyed) {
        return text.to_owned();
    }
    text.chars().map(|c| if obeyed(c) { ' ' } else { c }).collect()
}
