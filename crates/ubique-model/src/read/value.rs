//! TOML values as the readers see them.

use toml::de::{DeArray, DeTable, DeValue};

use super::sink::Finding;
use super::spec::Type;
use super::words::shorten;

/// A TOML value without its borrowed spelling.
#[derive(Clone, Copy)]
pub(crate) enum Value<'d> {
    String(&'d str),
    Integer(i128),
    Float,
    Boolean(bool),
    Datetime,
    Array(&'d DeArray<'d>),
    Table(&'d DeTable<'d>),
}

impl<'d> Value<'d> {
    pub(crate) fn of(value: &'d DeValue<'d>) -> Value<'d> {
        match value {
            DeValue::String(text) => Value::String(text),
            DeValue::Integer(number) => {
                let digits = number.as_str();
                // What does not even fit here is out of range of every key.
                let huge = if digits.starts_with('-') { i128::MIN } else { i128::MAX };
                Value::Integer(i128::from_str_radix(digits, number.radix()).unwrap_or(huge))
            }
            DeValue::Float(_) => Value::Float,
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(items) => Value::Array(items),
            DeValue::Table(table) => Value::Table(table),
        }
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Integer(_) => "a whole number",
            Value::Float => "a number with a fraction",
            Value::Boolean(_) => "a boolean",
            Value::Datetime => "a date or time",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// Adds what was probably meant to a finding about a value of the wrong type.
pub(crate) fn hint(finding: Finding, key: &str, ty: &Type, value: &Value<'_>) -> Finding {
    let usual = format!("write {}", ty.describe());
    let unquoted = |word: &str| format!("write {word}, without quotes");
    match (ty, value) {
        (Type::Duration { .. }, Value::Integer(n)) => finding
            .cause("without a unit, seconds and milliseconds are too easy to confuse")
            .fix(format!("write \"{n}s\" or \"{n}ms\"")),
        (Type::Asn, Value::String(word)) => {
            let digits = word.trim_start_matches(['A', 'S', 'a', 's']);
            if digits.parse::<u32>().is_ok() { finding.fix(unquoted(digits)) } else { finding.fix(usual) }
        }
        (Type::Integer { .. } | Type::Scalar { .. }, Value::String(word)) if word.parse::<i64>().is_ok() => {
            finding.fix(unquoted(word))
        }
        (Type::Boolean, Value::String(word @ ("true" | "false"))) => finding.fix(unquoted(word)),
        (Type::Tables { .. }, Value::Table(_)) => finding.fix(format!("write [[{key}]] with double brackets")),
        (Type::Table(_), Value::Array(_)) => finding.fix(format!("write [{key}] with single brackets")),
        (Type::List { .. }, Value::String(word)) => finding.fix(format!("write [\"{}\"]", shorten(word))),
        _ => finding.fix(usual),
    }
}
