//! `ubique.toml(5)`: the manual's page of the service file as a manual page.
//!
//! It knows the Markdown that `docs/service-file.md` uses and no more: headings, paragraphs, lists, fenced text, tables whose first
//! column is what the others are about, and inline code, bold words and links.

/// What is on the page besides.
const SEE_ALSO: &str = "\
.SH FILES
.TP
.I /etc/ubique/service.toml
the service file of the unit
.I ubique@.service
.SH SEE ALSO
.BR ubique (1),
.BR ubique\\-check (1),
.BR ubique\\-run (1)
";

/// The page, from the text of `docs/service-file.md`.
pub(super) fn service_file(markdown: &str, version: &str) -> String {
    let mut out = format!(".TH UBIQUE.TOML 5 \"\" \"ubique {version}\" ubique\n");
    out.push_str(".SH NAME\nubique.toml \\- service file of the anycast agent\n");
    let mut lines = markdown.lines().peekable();
    let mut columns: Vec<String> = Vec::new();
    // Text that follows is another paragraph; the first one below a heading needs no macro.
    let (mut apart, mut headed) = (false, false);
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("### ") {
            out.push_str(&format!(".SS \"{}\"\n", quoted(heading)));
            headed = true;
        } else if let Some(heading) = line.strip_prefix("## ") {
            out.push_str(&format!(".SH \"{}\"\n", quoted(&heading.to_uppercase())));
            headed = true;
        } else if line.starts_with("# ") {
            out.push_str(".SH DESCRIPTION\n");
            headed = true;
        } else if line.starts_with("```") {
            out.push_str(if headed { ".RS 4\n.nf\n" } else { ".PP\n.RS 4\n.nf\n" });
            for code in lines.by_ref().take_while(|code| !code.starts_with("```")) {
                out.push_str(&format!("\\&{}\n", escaped(code)));
            }
            out.push_str(".fi\n.RE\n");
            (apart, headed) = (true, false);
        } else if line.starts_with('|') {
            let cells = cells(line);
            if lines.peek().is_some_and(|next| next.starts_with("|--")) {
                columns = cells;
            } else if !line.starts_with("|--") {
                row(&mut out, &columns, &cells);
            }
            (apart, headed) = (true, false);
        } else if let Some(item) = line.strip_prefix("- ") {
            out.push_str(&format!(".IP \\(bu 2\n{}\n", text(item)));
            (apart, headed) = (true, false);
        } else if line.is_empty() {
            apart = true;
        } else if !line.starts_with("<!--") {
            // Lines that go on in a list are indented.
            if apart && !headed && !line.starts_with(' ') {
                out.push_str(".PP\n");
            }
            out.push_str(&format!("{}\n", text(line.trim_start())));
            (apart, headed) = (false, false);
        }
    }
    out + SEE_ALSO
}

/// The cells of a line of a table; `\|` is no border.
fn cells(line: &str) -> Vec<String> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\u{0}");
    inner.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

/// A row: the first cell, then what its last says, then the others with their headings.
fn row(out: &mut String, columns: &[String], cells: &[String]) {
    let [first, between @ .., last] = cells else { return };
    out.push_str(&format!(".TP\n{}\n{}\n", text(first), text(last)));
    let known = columns.iter().skip(1).zip(between).filter(|(_, cell)| *cell != "–");
    let known: Vec<String> = known.map(|(column, cell)| format!("{}: {}", escaped(column), inline(cell))).collect();
    if !known.is_empty() {
        out.push_str(&format!(".br\n{}\n", known.join("; ")));
    }
}

/// A line of text: its words with their fonts, and nothing taken for a request.
fn text(line: &str) -> String {
    let line = inline(line);
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

/// The argument of a heading.
fn quoted(heading: &str) -> String {
    escaped(&heading.replace('`', "")).replace('"', "\\(dq")
}

/// `code`, **bold** and [links](target).
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        match index % 2 {
            1 => out.push_str(&format!("\\fB{}\\fR", escaped(part))),
            _ => out.push_str(&bold(&without_links(part))),
        }
    }
    out
}

fn bold(text: &str) -> String {
    let parts = text.split("**").enumerate();
    parts
        .map(|(index, part)| if index % 2 == 1 { format!("\\fB{}\\fR", escaped(part)) } else { escaped(part) })
        .collect()
}

/// The words of links alone: what they point to is beside this page.
fn without_links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, words, after)) = link(rest) {
        out.push_str(before);
        out.push_str(words);
        rest = after;
    }
    out + rest
}

fn link(text: &str) -> Option<(&str, &str, &str)> {
    let (head, tail) = text.split_once("](")?;
    let (before, words) = head.rsplit_once('[')?;
    let (_, after) = tail.split_once(')')?;
    Some((before, words, after))
}

/// What roff would take for its own.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('–', "\\(en").replace('…', "...").replace('×', "\\(mu")
}
