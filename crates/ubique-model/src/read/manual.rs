//! The reference part of the manual: tables of keys made from the descriptions that drive the parser.

use std::fmt::Write;

use super::spec::{Field, Need, Spec, Type, quoted_list};
use crate::quantity::format_duration;

/// Tables of all keys of a file.
pub(crate) fn reference(root: &'static Spec) -> String {
    let mut out = String::new();
    section(&mut out, root, "", "Top level");
    out
}

fn section(out: &mut String, spec: &'static Spec, path: &str, title: &str) {
    let _ = write!(out, "\n### {title}\n\n{}\n", spec.doc);
    rows(out, spec.fields);
    for variant in spec.variants.iter().flat_map(|v| v.list) {
        let tag = spec.variants.map_or("", |v| v.tag);
        let _ = write!(out, "\n`{tag} = \"{}\"`: {}\n", variant.name, variant.doc);
        if !variant.fields.is_empty() {
            rows(out, variant.fields);
        }
    }
    for field in spec.fields {
        let below = if path.is_empty() { field.key.to_owned() } else { format!("{path}.{}", field.key) };
        match field.ty {
            Type::Table(spec) => section(out, spec, &below, &format!("`[{below}]`")),
            Type::Switch(spec) => section(out, spec, &below, &format!("`[{below}]`, or `true` for its defaults")),
            Type::Tables { spec, .. } => section(out, spec, &below, &format!("`[[{below}]]`")),
            _ => {}
        }
    }
}

fn rows(out: &mut String, fields: &[Field]) {
    out.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
    for field in fields {
        let default = match field.need {
            Need::Required => "required".to_owned(),
            Need::Optional => "–".to_owned(),
            Need::Text(text) => format!("`\"{text}\"`"),
            Need::Integer(number) => format!("`{number}`"),
            Need::Described(what) => what.to_owned(),
        };
        let _ = writeln!(out, "| `{}` | {} | {default} | {} |", field.key, value(&field.ty), field.doc);
    }
}

fn value(ty: &Type) -> String {
    match ty {
        Type::Text(format) => format!("{}: `\"{}\"`", format.what, format.example),
        Type::Duration { min, max } => {
            format!("a duration, {} to {}", format_duration(*min), format_duration(*max))
        }
        Type::Integer { min, max: i64::MAX } => format!("a whole number from {min}"),
        Type::Integer { min, max } => format!("{min} to {max}"),
        Type::Asn => "an AS number: `64500`".to_owned(),
        Type::AsnOr(words) => format!("an AS number, {}", quoted_list(words.iter().copied())),
        Type::Boolean => "`true` or `false`".to_owned(),
        Type::Choice(words) => quoted_list(words.iter().copied()),
        Type::Tag => "see below".to_owned(),
        Type::List { item, min, max } => match (min, max) {
            (2, 2) => format!("two of: {}", value(item)),
            (_, max) => format!("a list, at most {max}, each {}", value(item)),
        },
        Type::Scalar { format, min, max } => format!("{min} to {max}, or {}: `\"{}\"`", format.what, format.example),
        Type::OneOrMore { item, max } => format!("{}; or a list of at most {max}", value(item)),
        Type::Map { value: format, max } => {
            format!("a table, at most {max}: text = {}", format.what)
        }
        Type::Table(_) => "a table".to_owned(),
        Type::Switch(_) => "`true`, `false` or a table".to_owned(),
        Type::Tables { max, .. } => format!("tables, at most {max}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "<!-- From here on generated from the parser's description of the file. -->\n";

    fn check(page: &str, generated: &str) {
        let path = format!("{}/../../docs/{page}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap();
        let (written, committed) = text.split_once(MARK).expect("the page holds the mark");
        if std::env::var_os("UBIQUE_BLESS").is_some() {
            std::fs::write(&path, format!("{written}{MARK}{generated}")).unwrap();
            return;
        }
        assert!(committed == generated, "docs/{page} is stale: run UBIQUE_BLESS=1 cargo test -p ubique-model manual");
    }

    #[test]
    fn manual_pages_are_fresh() {
        check("service-file.md", &format!("\n## Service file\n{}", reference(&crate::service::spec::FILE)));
        let scenario = reference(&crate::scenario::spec::FILE);
        let internet = reference(&crate::internet::spec::FILE);
        check("scenario-file.md", &format!("\n## Scenario file\n{scenario}\n## Internet file\n{internet}"));
    }
}
