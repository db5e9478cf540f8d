//! A TOML table read by its description: every key is known or reported, every value typed or reported.

use std::collections::BTreeSet;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::sink::{At, Finding, Sink, Span};
use super::spec::{Field, Need, Spec, Type, Variant, quoted_list};
use super::value::{Value, hint};
use super::words::{add_key, did_you_mean, did_you_mean_key, later_finding, shorten};
use super::{suggest, text};
use crate::diagnostic as code;
use crate::net::Asn;

/// A number or a text, as written.
#[derive(Clone, Copy)]
pub(crate) enum Scalar<'w> {
    /// Within the bounds of the description.
    Integer(i64),
    /// Plain text.
    Text(&'w str),
}

/// Reads one table.
pub(crate) struct TableReader<'d> {
    sink: &'d Sink<'d>,
    spec: &'static Spec,
    /// `None`: the table is absent, everything has its default.
    table: Option<&'d DeTable<'d>>,
    /// Where the table begins.
    pub span: Span,
    /// As the user calls it: `[agent]`.
    title: String,
    variant: Option<&'static Variant>,
    /// Keys that an unknown key was probably meant to be; their absence is not worth a second finding.
    misspelt: Vec<&'static str>,
}

impl<'d> TableReader<'d> {
    /// The root table of a file.
    pub(crate) fn root(sink: &'d Sink<'d>, spec: &'static Spec, root: &'d Spanned<DeTable<'d>>) -> TableReader<'d> {
        TableReader::open(sink, spec, Some(root.get_ref()), 0..0, "the file".to_owned())
    }

    fn open(
        sink: &'d Sink<'d>,
        spec: &'static Spec,
        table: Option<&'d DeTable<'d>>,
        span: Span,
        title: String,
    ) -> TableReader<'d> {
        let mut reader = TableReader { sink, spec, table, span, title, variant: None, misspelt: Vec::new() };
        reader.misspelt = reader.misspelt_keys();
        reader.variant = reader.read_tag();
        reader.report_unknown_keys();
        reader
    }

    /// The name of the selected variant.
    pub(crate) fn variant(&self) -> Option<&'static str> {
        self.variant.map(|v| v.name)
    }

    /// Whether the key is written in the file.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|t| t.contains_key(key))
    }

    /// How many elements the list under the key has, readable or not.
    pub(crate) fn written(&self, key: &str) -> usize {
        let value = self.table.and_then(|t| t.get(key)).map(Spanned::get_ref);
        value.and_then(|v| v.as_array()).map_or(0, |items| items.len())
    }

    /// Where the key's value is, or the table when it is absent.
    pub(crate) fn span_of(&self, key: &str) -> Span {
        self.table.and_then(|t| t.get(key)).map_or(self.span.clone(), Spanned::span)
    }

    /// The gatherer of findings.
    pub(crate) fn sink(&self) -> &'d Sink<'d> {
        self.sink
    }

    fn misspelt_keys(&self) -> Vec<&'static str> {
        let known: Vec<&'static str> = self.fields().map(|f| f.key).collect();
        let unknown = self.table.into_iter().flat_map(|t| t.keys()).filter(|k| !known.contains(&k.get_ref().as_ref()));
        unknown.filter_map(|key| suggest::nearest(key.get_ref(), known.iter().copied())).collect()
    }

    fn read_tag(&self) -> Option<&'static Variant> {
        let variants = self.spec.variants?;
        let (value, span) = self.value(variants.tag)?;
        let Value::String(word) = value else {
            self.wrong_type(variants.tag, &Type::Tag, &value, &span);
            return None;
        };
        if let Some(variant) = self.spec.variant(word) {
            return Some(variant);
        }
        let names = || variants.list.iter().map(|v| v.name);
        if let Some(later) = variants.later.iter().find(|l| l.word == word) {
            self.sink.report(&span, later_finding(later));
        } else {
            let message = format!("unknown {} \"{word}\"", variants.tag);
            let finding = Finding::new(code::BAD_CHOICE, message).fix(did_you_mean(word, names()));
            self.sink.report(&span, finding);
        }
        None
    }

    /// The fields that may be written here; with an undecided tag, those of every variant.
    fn fields(&self) -> impl Iterator<Item = &'static Field> + '_ {
        let undecided = self.spec.variants.filter(|_| self.variant.is_none()).map_or(&[][..], |v| v.list);
        let decided = self.variant.map_or(&[][..], |v| v.fields);
        self.spec.fields.iter().chain(decided).chain(undecided.iter().flat_map(|v| v.fields))
    }

    fn report_unknown_keys(&self) {
        let Some(table) = self.table else { return };
        for (key, _) in table.iter() {
            let word: &str = key.get_ref();
            if self.fields().any(|f| f.key == word) {
                continue;
            }
            let finding = if let Some(later) = self.spec.later.iter().find(|l| l.word == word) {
                later_finding(later)
            } else if let Some(finding) = self.key_of_other_variant(word) {
                finding
            } else {
                let mut keys: Vec<&str> = self.fields().map(|f| f.key).collect();
                keys.dedup();
                Finding::new(code::UNKNOWN_KEY, format!("unknown key `{}` in {}", shorten(word), self.title))
                    .fix(did_you_mean_key(word, &keys))
            };
            self.sink.report(&key.span(), finding);
        }
    }

    fn key_of_other_variant(&self, word: &str) -> Option<Finding> {
        let (variants, mine) = (self.spec.variants?, self.variant?);
        let owners = variants.list.iter().filter(|v| v.fields.iter().any(|f| f.key == word));
        let owners: Vec<&str> = owners.map(|v| v.name).collect();
        let tag = variants.tag;
        let cause = match owners.len() {
            0 => return None,
            1..=5 => format!("`{word}` belongs to {tag} = {}", quoted_list(owners.iter().copied())),
            _ => format!("`{word}` belongs to other values of `{tag}`"),
        };
        let message = format!("`{word}` does not apply to {tag} = \"{}\"", mine.name);
        let own: Vec<&str> = mine.fields.iter().map(|f| f.key).collect();
        let fix = if own.is_empty() {
            "remove it".to_owned()
        } else {
            format!("remove it; \"{}\" takes `{}`", mine.name, own.join("`, `"))
        };
        Some(Finding::new(code::KEY_OF_OTHER_KIND, message).cause(cause).fix(fix))
    }

    fn field(&self, key: &str) -> Option<&'static Field> {
        let field = self.fields().find(|f| f.key == key);
        debug_assert!(field.is_some(), "{key} is not described in {}", self.spec.doc);
        field
    }

    /// The written or default value of a key; reports a required one that is absent.
    fn value(&self, key: &str) -> Option<(Value<'d>, Span)> {
        let field = self.field(key)?;
        if let Some(value) = self.table.and_then(|t| t.get(key)) {
            return Some((Value::of(value.get_ref()), value.span()));
        }
        match field.need {
            Need::Required if self.misspelt.contains(&key) => None,
            Need::Required => {
                let message = format!("{} lacks `{key}`", self.title);
                let finding = Finding::new(code::MISSING_KEY, message).cause(format!("`{key}`: {}", field.doc));
                self.sink.report_absent(&self.span, finding.fix(add_key(field, self.spec)));
                None
            }
            Need::Optional | Need::Described(_) => None,
            Need::Text(text) => Some((Value::String(text), self.span.clone())),
            Need::Integer(number) => Some((Value::Integer(number.into()), self.span.clone())),
        }
    }

    fn wrong_type(&self, key: &str, ty: &Type, value: &Value<'_>, span: &Span) {
        let message = format!("`{key}` is {}, not {}", value.type_name(), ty.noun());
        let finding = hint(Finding::new(code::WRONG_TYPE, message), key, ty, value);
        // A header that lost a bracket makes a table of a list; the syntax error says so already.
        match ty {
            Type::Tables { .. } => self.sink.report_absent(span, finding),
            _ => self.sink.report(span, finding),
        }
    }

    /// A text, turned into a value by `parse`.
    pub(crate) fn text<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, Finding>) -> Option<At<T>> {
        let (value, span) = self.value(key)?;
        let field = self.field(key)?;
        self.text_value(key, &field.ty, value, span, &parse)
    }

    fn text_value<T>(
        &self,
        key: &str,
        ty: &Type,
        value: Value<'_>,
        span: Span,
        parse: &impl Fn(&str) -> Result<T, Finding>,
    ) -> Option<At<T>> {
        let Value::String(word) = value else {
            self.wrong_type(key, ty, &value, &span);
            return None;
        };
        match text::plain(word).and_then(parse) {
            Ok(value) => Some(At { value, span }),
            Err(finding) => {
                self.sink.report(&span, finding);
                None
            }
        }
    }

    /// A duration within the bounds of its description.
    pub(crate) fn duration(&self, key: &str) -> Option<At<Duration>> {
        let Some(Field { ty: Type::Duration { min, max }, .. }) = self.field(key) else {
            return None;
        };
        self.text(key, |word| text::duration_within(word, *min, *max))
    }

    /// A whole number within the bounds of its description.
    pub(crate) fn integer(&self, key: &str) -> Option<At<i64>> {
        let (value, span) = self.value(key)?;
        self.integer_value(key, &self.field(key)?.ty, value, span)
    }

    fn integer_value(&self, key: &str, ty: &Type, value: Value<'_>, span: Span) -> Option<At<i64>> {
        let (Value::Integer(number), Type::Integer { min, max }) = (value, ty) else {
            self.wrong_type(key, ty, &value, &span);
            return None;
        };
        let value = self.bounded(key, ty, number, (*min, *max), &span)?;
        Some(At { value, span })
    }

    fn bounded(&self, key: &str, ty: &Type, number: i128, (min, max): (i64, i64), span: &Span) -> Option<i64> {
        let value = i64::try_from(number).ok().filter(|n| (min..=max).contains(n));
        if value.is_none() {
            let message = format!("`{key}` is {}, outside {min} to {max}", self.spelled(span, number));
            self.sink.report(span, Finding::new(code::OUT_OF_RANGE, message).fix(ty.describe()));
        }
        value
    }

    fn spelled(&self, _span: &Span, number: i128) -> String {
        match number {
            i128::MAX | i128::MIN => "a number of more than 38 digits".to_owned(),
            number => number.to_string(),
        }
    }

    /// An AS number.
    pub(crate) fn asn(&self, key: &str) -> Option<At<Asn>> {
        let (value, span) = self.value(key)?;
        self.asn_value(key, value, span)
    }

    fn asn_value(&self, key: &str, value: Value<'_>, span: Span) -> Option<At<Asn>> {
        let Value::Integer(number) = value else {
            self.wrong_type(key, &Type::Asn, &value, &span);
            return None;
        };
        match text::asn(number) {
            Ok(value) => Some(At { value, span }),
            Err(finding) => {
                self.sink.report(&span, finding);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self, key: &str) -> Option<At<bool>> {
        let (value, span) = self.value(key)?;
        let Value::Boolean(value) = value else {
            self.wrong_type(key, &Type::Boolean, &value, &span);
            return None;
        };
        Some(At { value, span })
    }

    /// One of the words of its description.
    pub(crate) fn choice(&self, key: &str) -> Option<At<&'static str>> {
        let Some(Field { ty: Type::Choice(words), .. }) = self.field(key) else {
            return None;
        };
        self.text(key, |word| choose(key, words, word))
    }

    /// One or more of the words of its description.
    pub(crate) fn choices(&self, key: &str) -> Vec<At<&'static str>> {
        let Some(Field { ty: Type::OneOrMore { item: Type::Choice(words), .. }, .. }) = self.field(key) else {
            return Vec::new();
        };
        self.texts(key, |word| choose(key, words, word))
    }

    /// A number or a text, turned into a value by `parse`.
    pub(crate) fn scalar<T>(&self, key: &str, parse: impl Fn(Scalar<'_>) -> Result<T, Finding>) -> Option<At<T>> {
        let (value, span) = self.value(key)?;
        let field = self.field(key)?;
        self.scalar_value(key, &field.ty, value, span, &parse)
    }

    /// One or more numbers or texts.
    pub(crate) fn scalars<T>(&self, key: &str, parse: impl Fn(Scalar<'_>) -> Result<T, Finding>) -> Vec<At<T>> {
        self.list(key, |item, value, span| self.scalar_value(key, item, value, span, &parse))
    }

    fn scalar_value<T>(
        &self,
        key: &str,
        ty: &Type,
        value: Value<'_>,
        span: Span,
        parse: &impl Fn(Scalar<'_>) -> Result<T, Finding>,
    ) -> Option<At<T>> {
        let found = match (value, ty) {
            (Value::Integer(number), Type::Scalar { min, max, .. }) => {
                let value = self.bounded(key, ty, number, (*min, *max), &span)?;
                parse(Scalar::Integer(value))
            }
            (Value::String(word), _) => text::plain(word).and_then(|word| parse(Scalar::Text(word))),
            _ => {
                self.wrong_type(key, ty, &value, &span);
                return None;
            }
        };
        match found {
            Ok(value) => Some(At { value, span }),
            Err(finding) => {
                self.sink.report(&span, finding);
                None
            }
        }
    }

    /// The elements of a list, each handed to `read` with its place; bounds are checked.
    fn list<T>(&self, key: &str, read: impl Fn(&Type, Value<'d>, Span) -> Option<T>) -> Vec<T> {
        let Some((value, span)) = self.value(key) else {
            return Vec::new();
        };
        let Some(field) = self.field(key) else {
            return Vec::new();
        };
        let (items, item, min, max) = match (value, &field.ty) {
            (Value::Array(items), Type::List { item, min, max }) => (items, item, min, max),
            (Value::Array(items), Type::OneOrMore { item, max }) => (items, item, &1, max),
            (_, Type::OneOrMore { item, .. }) => return read(item, value, span).into_iter().collect(),
            _ => {
                self.wrong_type(key, &field.ty, &value, &span);
                return Vec::new();
            }
        };
        if items.len() < *min {
            let message = match items.len() {
                0 => format!("`{key}` is empty"),
                n => format!("`{key}` has {n} of at least {min} elements"),
            };
            let finding = Finding::new(code::EMPTY_LIST, message).cause(field.doc).fix(add_key(field, self.spec));
            self.sink.report_absent(&span, finding);
        }
        if items.len() > *max {
            self.too_many(key, items.len(), *max, &span);
        }
        items.iter().take(*max).filter_map(|v| read(item, Value::of(v.get_ref()), v.span())).collect()
    }

    fn too_many(&self, key: &str, count: usize, max: usize, span: &Span) {
        let message = format!("`{key}` has {count} entries, at most {max} are possible");
        self.sink.report(span, Finding::new(code::TOO_MANY, message).fix(format!("keep at most {max}")));
    }

    /// A list of texts.
    pub(crate) fn texts<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, Finding>) -> Vec<At<T>> {
        self.list(key, |item, value, span| self.text_value(key, item, value, span, &parse))
    }

    /// A list of whole numbers, each within the bounds of its description.
    pub(crate) fn integers(&self, key: &str) -> Vec<At<i64>> {
        self.list(key, |item, value, span| self.integer_value(key, item, value, span))
    }

    /// A list of AS numbers.
    pub(crate) fn asns(&self, key: &str) -> Vec<At<Asn>> {
        self.list(key, |_, value, span| self.asn_value(key, value, span))
    }

    /// A list of AS numbers and of words that `known` knows.
    pub(crate) fn asns_or<T>(&self, key: &str, known: impl Fn(&str) -> Option<T>) -> Vec<At<Result<Asn, T>>> {
        self.list(key, |item, value, span| {
            if !matches!(value, Value::String(_)) {
                return self.asn_value(key, value, span).map(|at| At { value: Ok(at.value), span: at.span });
            }
            let Type::AsnOr(words) = item else { return None };
            let parse = |word: &str| {
                known(word).map(Err).ok_or_else(|| {
                    Finding::new(code::BAD_CHOICE, format!("unknown word \"{}\" in `{key}`", shorten(word)))
                        .fix(format!("{}, or an AS number without quotes", did_you_mean(word, words.iter().copied())))
                })
            };
            self.text_value(key, item, value, span, &parse)
        })
    }

    /// A table of texts under keys of the user's choice.
    pub(crate) fn map(&self, key: &str) -> Vec<(At<String>, At<String>)> {
        let Some((value, span)) = self.value(key) else {
            return Vec::new();
        };
        let Some(field) = self.field(key) else {
            return Vec::new();
        };
        let (Value::Table(table), Type::Map { max, value: format }) = (value, &field.ty) else {
            self.wrong_type(key, &field.ty, &value, &span);
            return Vec::new();
        };
        if table.len() > *max {
            self.too_many(key, table.len(), *max, &span);
        }
        let one = |(name, value): (&'d Spanned<_>, &'d Spanned<DeValue<'d>>)| {
            let name: &'d Spanned<std::borrow::Cow<'d, str>> = name;
            let ty = Type::Text(format);
            let value = self
                .text_value(name.get_ref(), &ty, Value::of(value.get_ref()), value.span(), &|w: &str| Ok(w.to_owned()));
            Some((At { value: name.get_ref().to_string(), span: name.span() }, value?))
        };
        table.iter().take(*max).filter_map(one).collect()
    }

    /// A table below this one; absent: all its defaults.
    pub(crate) fn table(&self, key: &str) -> Option<TableReader<'d>> {
        let Some(Field { ty: ty @ Type::Table(spec), .. }) = self.field(key) else {
            return None;
        };
        let title = format!("[{key}]");
        if !self.has(key) {
            // Reports a required table; an optional one has all its defaults.
            let required = matches!(self.field(key)?.need, Need::Required);
            if required {
                self.value(key);
                return None;
            }
            return Some(TableReader::open(self.sink, spec, None, self.span.clone(), title));
        }
        let (value, span) = self.value(key)?;
        let Value::Table(table) = value else {
            self.wrong_type(key, ty, &value, &span);
            return None;
        };
        Some(TableReader::open(self.sink, spec, Some(table), span, title))
    }

    /// The same where absence means on.
    pub(crate) fn switch_on(&self, key: &str) -> Option<TableReader<'d>> {
        match self.field(key) {
            Some(Field { ty: Type::Switch(spec), .. }) if !self.has(key) => {
                Some(TableReader::open(self.sink, spec, None, self.span.clone(), format!("[{key}]")))
            }
            _ => self.switch(key),
        }
    }

    /// What is switched on or off, or set: `None` when it is off.
    pub(crate) fn switch(&self, key: &str) -> Option<TableReader<'d>> {
        let Some(Field { ty: ty @ Type::Switch(spec), .. }) = self.field(key) else {
            return None;
        };
        let (value, span) = self.value(key)?;
        let table = match value {
            Value::Boolean(false) => return None,
            Value::Boolean(true) => None,
            Value::Table(table) => Some(table),
            _ => {
                self.wrong_type(key, ty, &value, &span);
                return None;
            }
        };
        Some(TableReader::open(self.sink, spec, table, span, format!("[{key}]")))
    }

    /// The list of tables below this one.
    pub(crate) fn tables(&self, key: &str) -> Vec<TableReader<'d>> {
        let Some(Field { ty: ty @ Type::Tables { spec, max }, .. }) = self.field(key) else {
            return Vec::new();
        };
        let Some((value, span)) = self.value(key) else {
            return Vec::new();
        };
        let Value::Array(items) = value else {
            self.wrong_type(key, ty, &value, &span);
            return Vec::new();
        };
        if let Some(first_beyond) = items.get(*max) {
            self.too_many(key, items.len(), *max, &first_beyond.span());
        }
        let mut readers = Vec::new();
        for item in items.iter().take(*max) {
            let value = Value::of(item.get_ref());
            let Value::Table(table) = value else {
                self.wrong_type(key, &Type::Table(spec), &value, &item.span());
                continue;
            };
            readers.push(TableReader::open(self.sink, spec, Some(table), item.span(), format!("[[{key}]]")));
        }
        readers
    }
}

fn choose(key: &str, words: &'static [&'static str], word: &str) -> Result<&'static str, Finding> {
    words.iter().copied().find(|w| *w == word).ok_or_else(|| {
        Finding::new(code::BAD_CHOICE, format!("unknown {key} \"{}\"", shorten(word)))
            .fix(did_you_mean(word, words.iter().copied()))
    })
}

/// Reports the second and later ones of equal values.
pub(crate) fn report_duplicates<'v, T: Ord + std::fmt::Display + 'v>(
    sink: &Sink<'_>,
    what: &str,
    values: impl IntoIterator<Item = &'v At<T>>,
) {
    let mut seen = BTreeSet::new();
    for at in values {
        if !seen.insert(&at.value) {
            let finding = Finding::new(code::DUPLICATE, format!("{what} {} is given twice", at.value));
            sink.report(&at.span, finding.fix("remove or rename one of the two"));
        }
    }
}
