//! The report as one self-contained HTML page: no network, no fonts, no library.
//!
//! The page carries the report as JSON and draws itself from it; without scripts it shows the text report. Everything
//! a user named reaches the page only as JSON (escaped here) and as text nodes (`page.js`), never as markup.

use std::fmt::Write;

use super::{Report, geo, text};

/// Columns of the text shown where scripts are off.
const TEXT_WIDTH: usize = 100;

/// The page. Its parts are replaced in this order, each once, so that data cannot pose as a placeholder.
const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// SHA-256 of the script element's text in base64: the only script the page's policy lets run. A test compares.
pub(super) const SCRIPT_DIGEST: &str = "jkwEHzQ0aQwmpSJYOkyGiAuwTf4fjkcRAwybDu47XVo=";

/// The page of a report.
pub fn html(report: &Report) -> String {
    let title = format!("{} · {} · ubique rehearsal", report.service.name, report.scenario);
    let map = format!(
        "{{\"width\":{},\"height\":{:.0},\"north\":{},\"land\":\"{}\"}}",
        geo::WIDTH,
        geo::height(),
        geo::NORTH,
        geo::LAND
    );
    let parts = [
        ("{{digest}}", SCRIPT_DIGEST.to_owned()),
        ("{{title}}", escape(&title)),
        ("{{style}}", STYLE.to_owned()),
        ("{{text}}", escape(&text(report, TEXT_WIDTH, false))),
        ("{{map}}", map),
        ("{{report}}", json(report)),
        ("{{script}}", SCRIPT.to_owned()),
    ];
    let mut page = String::with_capacity(PAGE.len() + parts.iter().map(|(_, part)| part.len()).sum::<usize>());
    let mut rest = PAGE;
    for (mark, part) in &parts {
        let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
        page.push_str(before);
        page.push_str(part);
        rest = after;
    }
    page + rest
}

/// The report as JSON that neither ends a script element nor opens a comment in it (HTML, 4.12.1.3), whatever a name says.
fn json(report: &Report) -> String {
    // A tree of maps with string keys, numbers and strings cannot fail; not-a-number becomes null.
    let json = serde_json::to_string(report).unwrap_or_else(|_| "null".to_owned());
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(safe, "\\u{:04x}", u32::from(c));
            }
            _ => safe.push(c),
        }
    }
    safe
}

/// Text as HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
