//! Words of findings that many places share.

use super::sink::Finding;
use super::spec::{Field, Later, Spec, Type, quoted_list};
use super::suggest;
use crate::diagnostic as code;

pub(crate) fn later_finding(later: &Later) -> Finding {
    let message = format!("{} is not available in this version", later.what);
    Finding::new(code::NOT_IN_VERSION, message)
        .cause(format!("`{}` is refused rather than silently ignored", later.word))
        .fix(later.instead)
}

pub(crate) fn add_key(field: &Field, spec: &Spec) -> String {
    let key = field.key;
    match &field.ty {
        Type::Text(format) => format!("add {key} = \"{}\"", format.example),
        Type::Duration { .. } => format!("add {key} = \"1s\""),
        Type::Integer { min, .. } => format!("add {key} = {min}"),
        Type::Asn | Type::AsnOr(_) => format!("add {key} = 64500"),
        Type::Boolean => format!("add {key} = true"),
        Type::Choice(words) => format!("add {key} = \"{}\"", words.first().copied().unwrap_or_default()),
        Type::Tag => {
            let names = spec.variants.iter().flat_map(|v| v.list.iter().map(|v| v.name));
            format!("add {key} = {}", quoted_list(names))
        }
        Type::List { item: Type::Text(format), .. } => format!("add {key} = [\"{}\"]", format.example),
        Type::List { item: Type::Integer { .. }, .. } => format!("write {key} = [NUMBER, …], or remove it"),
        Type::Scalar { format, .. } => format!("add {key} = \"{}\"", format.example),
        Type::OneOrMore { .. } => format!("add {key} = …"),
        Type::List { .. } => format!("add {key} = [64500, 64501]"),
        Type::Map { .. } => format!("add {key} = {{ … }}"),
        Type::Table(_) => format!("add a [{key}] table"),
        Type::Switch(_) => format!("add {key} = true"),
        Type::Tables { .. } => format!("add a [[{key}]] table"),
    }
}

/// Longest part of an unknown word that is repeated in a finding, characters.
const MAX_SHOWN_CHARS: usize = 40;

/// At most so much of what the user wrote as fits in a line.
pub(crate) fn shorten(word: &str) -> String {
    let mut shown: String = word.chars().take(MAX_SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if word.chars().nth(MAX_SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// "did you mean" for a word in quotes.
pub(crate) fn did_you_mean<'w>(word: &str, words: impl Iterator<Item = &'w str> + Clone) -> String {
    match suggest::nearest(word, words.clone()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("use {}", quoted_list(words)),
    }
}

pub(crate) fn did_you_mean_key(word: &str, keys: &[&str]) -> String {
    match suggest::nearest(word, keys.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("possible keys: `{}`", keys.join("`, `")),
    }
}
