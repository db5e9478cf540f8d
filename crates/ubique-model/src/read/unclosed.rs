//! Lists and inline tables that are opened and never closed.
//!
//! A parser takes the whole rest of the file for elements of such a list and reports every line of it. Here the
//! opening line is recognised instead: the list still stands open where a later line is a `[table]` header or
//! a `key =`. In the text handed to the parser it is replaced by an empty list of the same length, so that every
//! other place stays where it is.

use std::borrow::Cow;

/// The text to parse and what was mended in it.
pub(super) struct Mended<'t> {
    /// As long as the original, byte for byte in place.
    pub text: Cow<'t, str>,
    /// Bytes at which lists were opened that nothing closes.
    pub opened_at: Vec<usize>,
}

/// Where the scan of a line ended.
#[derive(Default)]
struct Open {
    /// Places of the brackets `[` and `{` that are open after the lines so far.
    brackets: Vec<(usize, u8)>,
    /// How many of them are `{`.
    braces: usize,
    /// Inside a multi-line string with this quote.
    quote: Option<u8>,
}

/// Replaces unclosed lists by empty ones.
pub(super) fn mend_lists(text: &str) -> Mended<'_> {
    let mut opened_at = Vec::new();
    let mut bytes = Cow::Borrowed(text.as_bytes());
    let mut open = Open::default();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if open.quote.is_none()
            && let Some(&(first, _)) = open.brackets.first()
            && begins_anew(line, open.braces > 0)
        {
            opened_at.push(first);
            blank(bytes.to_mut(), first, start);
            open = Open::default();
        }
        // Outside a list, brackets at the beginning of a line are a table header.
        if !(open.brackets.is_empty() && open.quote.is_none() && line.trim_start().starts_with('[')) {
            scan(&mut open, line.as_bytes(), start);
        }
        start += line.len();
    }
    let text = match bytes {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        // Whole characters were replaced by ASCII; should that ever fail, the parser sees the original.
        Cow::Owned(bytes) => String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned),
    };
    Mended { text, opened_at }
}

/// Whether a line can only be a header or a key of a table, not an element of a list; inside `{`, keys are elements.
fn begins_anew(line: &str, in_table: bool) -> bool {
    let line = line.trim();
    let is_key = |key: &str| !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_. \t".contains(c));
    if let Some(header) = line.strip_prefix('[') {
        let name = header.trim_start_matches('[').split([']', '#']).next().unwrap_or_default().trim();
        // Nested lists hold strings, numbers or tables; a bare word in brackets is a header.
        return is_key(name)
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name != "true"
            && name != "false";
    }
    !in_table && line.split_once('=').is_some_and(|(key, _)| is_key(key.trim()))
}

/// Turns `[ … ` up to the line break before `end` into `[]` and blanks, keeping line breaks.
fn blank(bytes: &mut [u8], from: usize, end: usize) {
    let close = if bytes.get(from) == Some(&b'{') { b'}' } else { b']' };
    let mut closed = false;
    for byte in bytes.iter_mut().take(end).skip(from + 1) {
        if *byte == b'\n' || *byte == b'\r' {
            continue;
        }
        *byte = if closed { b' ' } else { close };
        closed = true;
    }
}

/// Follows brackets and strings through a line.
fn scan(open: &mut Open, line: &[u8], start: usize) {
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        let triple = line.get(at..at + 3).is_some_and(|q| q == [byte; 3]);
        if let Some(quote) = open.quote {
            if byte == b'\\' && quote == b'"' {
                at += 1;
            } else if byte == quote && triple {
                open.quote = None;
                at += 2;
            }
            at += 1;
            continue;
        }
        match byte {
            b'#' => return,
            b'"' | b'\'' if triple => {
                open.quote = Some(byte);
                at += 2;
            }
            b'"' | b'\'' => at = end_of_string(line, at),
            b'[' | b'{' => {
                open.brackets.push((start + at, byte));
                open.braces += usize::from(byte == b'{');
            }
            b']' | b'}' => {
                let opened = open.brackets.pop();
                open.braces -= usize::from(opened.is_some_and(|(_, byte)| byte == b'{'));
            }
            _ => {}
        }
        at += 1;
    }
}

/// The closing quote of the string that begins at `at`, or the end of the line.
fn end_of_string(line: &[u8], at: usize) -> usize {
    let quote = line[at];
    let mut end = at + 1;
    while let Some(&byte) = line.get(end) {
        if byte == quote {
            return end;
        }
        end += if byte == b'\\' && quote == b'"' { 2 } else { 1 };
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(text: &str) -> Vec<usize> {
        let mended = mend_lists(text);
        assert_eq!(mended.text.len(), text.len());
        mended.opened_at
    }

    #[test]
    fn closed_lists_stay() {
        for text in [
            "a = [1, 2]\nb = 3\n",
            "a = [\n  1,\n  2,\n]\nb = 3\n",
            "a = [\n  { x = 1 },\n  {\n y = 2 },\n]\n[t]\n",
            "a = [\n  [1, 2],\n  [\"x\"],\n]\n[[t]]\n",
            "a = \"[\"\nb = '['\nc = \"\\\"[\"\n",
            "a = \"\"\"\n[\nb = \"\"\"\nc = 1\n",
            "a = [ # [\n 'b = 1',\n]\n",
        ] {
            assert_eq!(opened(text), Vec::<usize>::new(), "{text}");
            assert!(matches!(mend_lists(text).text, Cow::Borrowed(_)));
        }
    }

    #[test]
    fn open_lists_are_found() {
        assert_eq!(opened("a = [1, 2\nb = 3\n"), [4]);
        assert_eq!(mend_lists("a = [1, 2\nb = 3\n").text, "a = []   \nb = 3\n");
        assert_eq!(opened("a = [\n\"ä\",\n[site]\nb = [\nc = 1"), [4, 23]);
        assert_eq!(opened("a = [[1], [2]\n[[t]]\n"), [4]);
        assert_eq!(mend_lists("a = { b = 1\nc = 2\n[t]\n").text, "a = {}     \n     \n[t]\n");
    }
}
