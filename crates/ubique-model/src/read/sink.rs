//! The file being read and what was found in it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeTable;

use super::{MAX_DIAGNOSTICS, MAX_FILE_BYTES, unclosed};
use crate::diagnostic::{self as code, Code, Diagnostic, Parsed, Severity};

/// Bytes of the text a place spans.
pub(crate) type Span = Range<usize>;

/// A value and the place it was written at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct At<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: Span,
}

/// A finding that does not know its place yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    code: &'static str,
    message: String,
    cause: Option<String>,
    fix: Option<String>,
}

impl Finding {
    /// What is wrong.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Finding {
        Finding { code: code.code, message: message.into(), cause: None, fix: None }
    }

    /// Why it matters.
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Finding {
        self.cause = Some(cause.into());
        self
    }

    /// How to mend it.
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Finding {
        self.fix = Some(fix.into());
        self
    }
}

/// Gathers the findings of one file.
pub(crate) struct Sink<'a> {
    file: &'a str,
    text: &'a [u8],
    line_starts: Vec<usize>,
    found: RefCell<Vec<(Span, Finding)>>,
    /// Lines with a syntax error; what the recovering parser made of them is not worth a finding.
    broken_lines: BTreeSet<usize>,
}

impl<'a> Sink<'a> {
    fn new(file: &'a str, text: &'a [u8]) -> Sink<'a> {
        let breaks = text.iter().enumerate().filter(|&(_, &b)| b == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(breaks).collect();
        Sink { file, text, line_starts, found: RefCell::default(), broken_lines: BTreeSet::new() }
    }

    /// Line of a byte, from 0.
    fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= at).saturating_sub(1)
    }

    fn diagnostic(&self, span: &Span, finding: Finding) -> Diagnostic {
        let start = span.start.min(self.text.len());
        let end = span.end.clamp(start, self.text.len());
        let line = self.line(start);
        let before = &self.text[self.line_starts[line]..start];
        Diagnostic {
            code: finding.code.to_owned(),
            severity: Severity::of(finding.code),
            file: self.file.to_owned(),
            start,
            end,
            line: line + 1,
            column: String::from_utf8_lossy(before).chars().count() + 1,
            message: finding.message,
            cause: finding.cause,
            fix: finding.fix,
        }
    }

    /// Records a finding at `span`.
    pub(crate) fn report(&self, span: &Span, finding: Finding) {
        if self.broken_lines.contains(&self.line(span.start)) {
            return;
        }
        self.found.borrow_mut().push((span.clone(), finding));
    }

    /// Records a syntax error; one mistake often breaks the rest of its line for the parser as well, so only the
    /// first of a line counts.
    fn report_syntax(&mut self, span: &Span, finding: Finding) {
        self.report(span, finding);
        self.broken_lines.insert(self.line(span.start));
    }

    /// Records that something is absent; after a syntax error it may just have been lost, so nothing is said then.
    pub(crate) fn report_absent(&self, span: &Span, finding: Finding) {
        if self.broken_lines.is_empty() {
            self.report(span, finding);
        }
    }

    fn finish<T>(self, value: Option<T>) -> Parsed<T> {
        let mut found = self.found.take();
        let order = |(span, finding): &(Span, Finding)| (span.start, finding.code);
        found.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.1.message.cmp(&b.1.message)));
        found.dedup();
        if found.len() > MAX_DIAGNOSTICS {
            let more = found.len() - MAX_DIAGNOSTICS;
            let message = format!("{more} more findings from here on are not shown");
            let rest =
                Finding::new(code::TOO_MANY_FINDINGS, message).fix("mend the ones above first, then check again");
            found.truncate(MAX_DIAGNOSTICS + 1);
            found[MAX_DIAGNOSTICS].1 = rest;
        }
        // Columns are counted only for what is shown: on one long line, counting for each would take the square.
        let diagnostics: Vec<Diagnostic> = found.into_iter().map(|(span, f)| self.diagnostic(&span, f)).collect();
        let failed = diagnostics.iter().any(|d| d.severity == Severity::Error);
        debug_assert!(failed || value.is_some(), "no value and no error");
        Parsed { value: value.filter(|_| !failed), diagnostics }
    }
}

/// Reads a file: `build` gets the root table and reports what it finds.
pub(crate) fn read_file<T>(
    file: &str,
    bytes: &[u8],
    build: impl FnOnce(&Sink<'_>, &Spanned<DeTable<'_>>) -> Option<T>,
) -> Parsed<T> {
    let mut sink = Sink::new(file, if bytes.len() > MAX_FILE_BYTES { &[] } else { bytes });
    let text = match check_bytes(bytes) {
        Ok(text) => text,
        Err((span, finding)) => {
            sink.report(&span, finding);
            return sink.finish(None);
        }
    };
    let mended = unclosed::mend_lists(text);
    for open in &mended.opened_at {
        let (what, close) = if bytes.get(*open) == Some(&b'{') { ("table", '}') } else { ("list", ']') };
        let finding = Finding::new(code::SYNTAX, format!("not valid TOML: this {what} is not closed"))
            .cause("a later line begins with another key or table")
            .fix(format!("close it with `{close}`"));
        sink.report_syntax(&(*open..open + 1), finding);
    }
    let (root, mut errors) = DeTable::parse_recoverable(&mended.text);
    // The first one of a line is the one nearest to the mistake.
    errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        sink.report_syntax(&span, syntax_finding(error.message(), text, &span));
    }
    let blank = |line: &str| line.trim_start().is_empty() || line.trim_start().starts_with('#');
    if sink.broken_lines.is_empty()
        && root.get_ref().is_empty()
        && text.trim_start_matches('\u{feff}').lines().all(blank)
    {
        let finding = Finding::new(code::EMPTY_FILE, "the file is empty")
            .cause("it holds nothing but blanks and comments")
            .fix("start from examples/quickstart.toml, or see `ubique check --schema`");
        sink.report(&(0..0), finding);
        return sink.finish(None);
    }
    let value = build(&sink, &root);
    sink.finish(value)
}

/// The text of a file that can be text at all.
fn check_bytes(bytes: &[u8]) -> Result<&str, (Span, Finding)> {
    if bytes.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes; the limit is {MAX_FILE_BYTES}", bytes.len());
        let finding = Finding::new(code::FILE_TOO_LARGE, message).fix("check the file name");
        return Err((0..0, finding));
    }
    if let Some(at) = bytes.iter().position(|&b| b == 0) {
        let utf16 = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
        let cause = if utf16 { "it looks like UTF-16 text" } else { "it looks like a binary file" };
        let finding = Finding::new(code::NUL_BYTE, "the file contains a NUL byte, so it is not text")
            .cause(cause)
            .fix("save it as UTF-8 text, or check the file name");
        return Err((at..at + 1, finding));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let message = format!("byte 0x{:02x} is not UTF-8", bytes.get(at).copied().unwrap_or_default());
        let finding = Finding::new(code::NOT_UTF8, message)
            .cause("TOML files are UTF-8 text; this one has another encoding or is not text")
            .fix("save it as UTF-8, or check the file name");
        (at..at + error.error_len().unwrap_or(1), finding)
    })
}

/// Puts an error of the TOML parser into our words.
fn syntax_finding(message: &str, text: &str, span: &Span) -> Finding {
    let quoted: String = text.get(span.clone()).unwrap_or_default().trim().chars().take(40).collect();
    if message.contains("duplicate key") {
        return Finding::new(code::DUPLICATE_KEY, format!("`{quoted}` is given twice in this table"))
            .cause("TOML allows each key and each [table] once; only [[double brackets]] may repeat")
            .fix("remove one of the two");
    }
    if message.contains("recurs") {
        return Finding::new(code::TOO_DEEP, "arrays or tables are nested too deeply")
            .fix("no key of ubique nests deeper than four levels: look for unbalanced brackets");
    }
    let bare = message.contains("unexpected key or value").then(|| bare_value(text, span)).flatten();
    if message.contains("must be quoted") || bare.is_some() {
        let word = bare.unwrap_or_else(|| unquoted(text, span));
        if word.is_empty() {
            return Finding::new(code::SYNTAX, "not valid TOML: the value is missing").fix("write `key = value`");
        }
        return Finding::new(code::SYNTAX, "not valid TOML: text needs quotes").fix(format!("write \"{word}\""));
    }
    let fix = if message.contains("unclosed table") || message.contains("unclosed array table") {
        "close the header with the brackets it began with: [table] or [[list-of-tables]]".to_owned()
    } else if message.contains("basic string") || message.contains("literal string") || message.contains("quote") {
        "close the string with the quote it began with, on the same line".to_owned()
    } else if message.contains("array") {
        "separate the elements by commas and close the list with `]`".to_owned()
    } else if message.contains("inline table") {
        "write { key = value, key = value } on one line".to_owned()
    } else if message.contains("missing value") || message.contains("no value") || message.contains("assignment") {
        "write `key = value`".to_owned()
    } else if message.contains("table") {
        "write [table] or [[list-of-tables]] on a line of its own".to_owned()
    } else {
        "see https://toml.io for the grammar".to_owned()
    };
    Finding::new(code::SYNTAX, format!("not valid TOML: {message}")).fix(fix)
}

/// The text that lacks quotes: up to the end of the line, or of the element of a list.
fn unquoted(text: &str, span: &Span) -> String {
    /// Longest text that is repeated, characters.
    const MAX_SHOWN: usize = 60;
    let line_start = text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let in_list = text.get(line_start..span.start).is_some_and(|before| before.contains(['[', '{']));
    let ends: &[char] = if in_list { &['\n', '#', ',', ']', '}'] } else { &['\n', '#'] };
    let rest = text.get(span.start..).unwrap_or_default();
    let word = rest.split(ends).next().unwrap_or_default().trim().trim_matches(['"', '\'']);
    word.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect()
}

/// The value of the line, when it begins like a word although it is not in quotes: `Amsterdam, NL`.
fn bare_value(text: &str, span: &Span) -> Option<String> {
    let before = text.get(..span.start)?;
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let equals = line_start + before.get(line_start..)?.find('=')?;
    let word = unquoted(text, &(equals + 1..span.end));
    word.starts_with(char::is_alphabetic).then_some(word)
}
