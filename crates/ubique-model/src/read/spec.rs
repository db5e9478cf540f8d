//! How a table of a user file is described: one description drives the parser, the defaults and the JSON Schema.

use std::time::Duration;

/// A table: its keys, and what varies with one of them.
pub(crate) struct Spec {
    /// What the table is, for the schema.
    pub doc: &'static str,
    /// Keys that are always possible.
    pub fields: &'static [Field],
    /// Keys that depend on the value of another key.
    pub variants: Option<&'static Variants>,
    /// Keys of the design that this version lacks.
    pub later: &'static [Later],
}

/// Keys that depend on the value of `tag`.
pub(crate) struct Variants {
    /// The key that decides.
    pub tag: &'static str,
    /// Its values.
    pub list: &'static [Variant],
    /// Values of the design that this version lacks.
    pub later: &'static [Later],
}

/// One value of the deciding key.
pub(crate) struct Variant {
    /// The value.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// Keys it adds.
    pub fields: &'static [Field],
}

/// A word of the design that this version lacks.
pub(crate) struct Later {
    /// The word.
    pub word: &'static str,
    /// What it would be.
    pub what: &'static str,
    /// What to do instead.
    pub instead: &'static str,
}

/// One key.
pub(crate) struct Field {
    /// The key.
    pub key: &'static str,
    /// What it holds.
    pub ty: Type,
    /// Whether it may be absent, and what holds then.
    pub need: Need,
    /// What it means.
    pub doc: &'static str,
}

/// What holds when a key is absent.
#[derive(Clone, Copy)]
pub(crate) enum Need {
    /// It must be there.
    Required,
    /// Nothing.
    Optional,
    /// This text, as if it had been written.
    Text(&'static str),
    /// This number, as if it had been written.
    Integer(i64),
    /// What the sentence says.
    Described(&'static str),
}

/// What a key holds.
#[derive(Clone, Copy)]
pub(crate) enum Type {
    /// A string of some form.
    Text(&'static Format),
    /// A string with a duration.
    Duration {
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
    /// A whole number.
    Integer {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// An AS number.
    Asn,
    /// An AS number, or one of these words.
    AsnOr(&'static [&'static str]),
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// The deciding key of [`Variants`].
    Tag,
    /// A list.
    List {
        /// What it holds.
        item: &'static Type,
        /// Fewest elements.
        min: usize,
        /// Most elements.
        max: usize,
    },
    /// A whole number, or a string of some form.
    Scalar {
        /// The string.
        format: &'static Format,
        /// Smallest number.
        min: i64,
        /// Largest number.
        max: i64,
    },
    /// One, or a list of them.
    OneOrMore {
        /// What it holds.
        item: &'static Type,
        /// Most elements.
        max: usize,
    },
    /// Keys of the user's choice with a text each.
    Map {
        /// Form of the values.
        value: &'static Format,
        /// Most keys.
        max: usize,
    },
    /// A table.
    Table(&'static Spec),
    /// `true`: a table with all its defaults; `false`, or absent: nothing; or the table.
    Switch(&'static Spec),
    /// A list of tables.
    Tables {
        /// Each of them.
        spec: &'static Spec,
        /// Most of them.
        max: usize,
    },
}

/// Form of a text.
pub(crate) struct Format {
    /// With its article: `an IP address`.
    pub what: &'static str,
    /// Regular expression, for the schema; the parser is at least as strict.
    pub pattern: Option<&'static str>,
    /// A good value.
    pub example: &'static str,
}

impl Spec {
    /// The variant a tag value selects.
    pub(crate) fn variant(&self, name: &str) -> Option<&'static Variant> {
        self.variants.and_then(|v| v.list.iter().find(|variant| variant.name == name))
    }
}

impl Type {
    /// With its article, for "… is not …".
    pub(crate) fn noun(&self) -> &'static str {
        match self {
            Type::Text(format) => format.what,
            Type::Duration { .. } => "a duration in quotes",
            Type::Integer { .. } => "a whole number",
            Type::Asn => "an AS number",
            Type::AsnOr(_) => "an AS number or a word in quotes",
            Type::Boolean => "true or false",
            Type::Choice(_) | Type::Tag => "a word in quotes",
            Type::List { .. } => "a list",
            Type::Scalar { format, .. } => format.what,
            Type::OneOrMore { item, .. } => item.noun(),
            Type::Map { .. } | Type::Table(_) => "a table",
            Type::Switch(_) => "true, false or a table",
            Type::Tables { .. } => "a list of tables",
        }
    }

    /// With its article and an example, for "expected …".
    pub(crate) fn describe(&self) -> String {
        match self {
            Type::Text(format) => format!("{} in quotes, e.g. \"{}\"", format.what, format.example),
            Type::Duration { .. } => "a duration with unit in quotes, e.g. \"100ms\" or \"2s\"".to_owned(),
            Type::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Type::Asn => "an AS number, e.g. 64500".to_owned(),
            Type::AsnOr(words) => format!("an AS number, or {}", quoted_list(words.iter().copied())),
            Type::Boolean => "true or false".to_owned(),
            Type::Choice(words) => quoted_list(words.iter().copied()),
            Type::Tag => "a word in quotes".to_owned(),
            Type::List { item, .. } => {
                format!("a list [ … ] with each element {}", item.describe())
            }
            Type::Scalar { format, min, max } => {
                format!("a whole number from {min} to {max}, or {} in quotes, e.g. \"{}\"", format.what, format.example)
            }
            Type::OneOrMore { item, .. } => format!("{}, or a list of such", item.describe()),
            Type::Map { .. } => "a table { \"name\" = \"value\", … }".to_owned(),
            Type::Table(_) => "a table".to_owned(),
            Type::Switch(_) => "true, or a table { … }".to_owned(),
            Type::Tables { .. } => "a list of tables [[…]]".to_owned(),
        }
    }
}

/// `"a", "b" or "c"`.
pub(crate) fn quoted_list<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}
