//! Colours and columns on a terminal.

/// Columns per site colour: Okabe and Ito's palette as the nearest of the 256 terminal colours. Vermillion is kept for loss.
const SITE_COLORS: [u8; 6] = [214, 75, 36, 33, 175, 220];
/// Vermillion.
const LOSS_COLOR: u8 = 202;

/// Puts escape sequences around text, or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    fn sgr(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.sgr("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.sgr("2", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.sgr("1;38;5;36", text)
    }

    pub(super) fn loss(self, text: &str) -> String {
        self.sgr(&format!("1;38;5;{LOSS_COLOR}"), text)
    }

    /// In the colour of the site of that index.
    pub(super) fn site(self, index: usize, text: &str) -> String {
        self.sgr(&format!("38;5;{}", SITE_COLORS[index % SITE_COLORS.len()]), text)
    }
}

/// The letter of a site: A to Z, then A1 to Z1 and so on.
pub(super) fn letter(index: usize) -> String {
    let letter = char::from(b'A' + (index % 26) as u8);
    match index / 26 {
        0 => letter.to_string(),
        round => format!("{letter}{round}"),
    }
}

/// Columns a text takes; the names of this program are of scripts with one column a character.
pub(super) fn columns(text: &str) -> usize {
    text.chars().count()
}

/// Cuts to at most `width` columns, with an ellipsis.
pub(super) fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

/// Cuts or fills to exactly `width` columns, text to the left.
pub(super) fn left(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let fill = width - columns(&text);
    text + &" ".repeat(fill)
}

/// Cuts or fills to exactly `width` columns, text to the right.
pub(super) fn right(text: &str, width: usize) -> String {
    let text = cut(text, width);
    " ".repeat(width - columns(&text)) + &text
}

/// A duration for people: `5.0 ms`, `340 ms`, `9.21 s`.
pub(super) fn duration(ms: f64) -> String {
    if ms >= 1000.0 {
        format!("{:.2} s", ms / 1000.0)
    } else if ms >= 100.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{ms:.1} ms")
    }
}

/// A moment since the start: `12.345 s`.
pub(super) fn moment(ms: f64) -> String {
    format!("{:.3} s", ms / 1000.0)
}

/// Breaks at spaces into lines of at most `width` columns; a longer word gets a line of its own.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        match lines.last_mut() {
            Some(line) if columns(line) + 1 + columns(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
