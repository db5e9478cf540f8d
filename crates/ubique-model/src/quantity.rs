//! Quantities with units, as files spell them: durations, bit rates, query rates, percentages.
//!
//! Parsing is exact (no floating point) except for percentages; `format_*` gives the shortest text that parses back to
//! the same value.

use std::time::Duration;

/// Why a text is not the quantity expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct QuantityError {
    /// What is wrong, as half a sentence.
    pub reason: String,
    /// What was probably meant.
    pub fix: Option<String>,
}

fn error<T>(reason: &str) -> Result<T, QuantityError> {
    Err(QuantityError { reason: reason.to_owned(), fix: None })
}

fn error_fix<T>(reason: &str, fix: String) -> Result<T, QuantityError> {
    Err(QuantityError { reason: reason.to_owned(), fix: Some(fix) })
}

/// Units of durations with their length in ns.
const DURATION_UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
];

/// Decimal multiples of rates.
const MULTIPLES: [(&str, u64); 5] =
    [("", 1), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000)];

/// Most digits after the decimal point.
const MAX_DECIMALS: usize = 12;

/// Number and unit of a text: `1.5ms` → `1.5`, `ms`.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// `digits` × `factor`, exactly.
fn scale(digits: &str, factor: u64) -> Result<u64, QuantityError> {
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || digits.ends_with('.') || decimals.contains('.') {
        return error("it does not begin with a number");
    }
    if decimals.len() > MAX_DECIMALS {
        return error("it has too many decimals");
    }
    let part = |digits: &str, factor: u128| -> Option<u128> {
        if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok()?.checked_mul(factor) }
    };
    let ten = 10_u128.pow(u32::try_from(decimals.len()).unwrap_or_default());
    let factor = u128::from(factor);
    let Some(total) = part(whole, factor * ten).and_then(|w| w.checked_add(part(decimals, factor)?)) else {
        return error("it is too big");
    };
    if total % ten != 0 {
        return error("it is finer than the smallest unit");
    }
    u64::try_from(total / ten).or_else(|_| error("it is too big"))
}

/// Reads a duration such as `100ms`, `1.5s`, `2m`.
///
/// # Errors
/// When there is no number, no unit, or the result does not fit in 64 bits of nanoseconds.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let (digits, unit) = split(text);
    if digits.is_empty() {
        let negative = text.trim_start().starts_with('-');
        return error(if negative { "it is negative" } else { "it does not begin with a number" });
    }
    let unit = if unit == "µs" || unit == "μs" { "us" } else { unit };
    if let Some((_, length)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) {
        return scale(digits, *length).map(Duration::from_nanos);
    }
    let meant = match unit.to_lowercase().as_str() {
        "" => {
            return error_fix("the unit is missing", format!("write \"{digits}s\" or \"{digits}ms\""));
        }
        "sec" | "secs" | "second" | "seconds" => "s",
        "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => "ms",
        "usec" | "micros" | "microseconds" => "us",
        "min" | "mins" | "minute" | "minutes" => "m",
        "hr" | "hour" | "hours" => "h",
        lower => match DURATION_UNITS.iter().find(|(name, _)| *name == lower) {
            Some((name, _)) => name,
            None => return error("the unit is none of ns, us, ms, s, m, h"),
        },
    };
    error_fix("the unit is none of ns, us, ms, s, m, h", format!("write \"{digits}{meant}\""))
}

/// The shortest text that [`parse_duration`] reads back, with a whole number.
pub fn format_duration(duration: Duration) -> String {
    let ns = duration.as_nanos();
    if ns == 0 {
        return "0s".to_owned();
    }
    // `90s` reads better than `1500ms` but `120s` as `2m`: the largest unit that divides.
    let unit = DURATION_UNITS.iter().rev().find(|(_, length)| ns.is_multiple_of(u128::from(*length)));
    let (name, length) = unit.unwrap_or(&DURATION_UNITS[0]);
    format!("{}{name}", ns / u128::from(*length))
}

/// Reads a bit rate such as `40Gbit/s`, as bits per second.
///
/// # Errors
/// When the number or the unit is missing or the result is zero or does not fit.
pub fn parse_bit_rate(text: &str) -> Result<u64, QuantityError> {
    let (digits, unit) = split(text);
    if digits.is_empty() {
        return error("it does not begin with a number");
    }
    if let Some(prefix) = unit.strip_suffix("bit/s") {
        return multiple(digits, prefix, "bit/s");
    }
    let prefix = unit.chars().next().filter(|c| c.is_alphabetic()).map(|c| match c {
        'K' => 'k',
        'm' | 'g' | 't' => c.to_ascii_uppercase(),
        other => other,
    });
    let prefix = prefix.filter(|c| "kMGT".contains(*c)).map(String::from).unwrap_or_default();
    if unit.ends_with("B/s") || unit.ends_with("Bps") || unit.ends_with("byte/s") {
        let bits = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(8));
        let fix = bits.map_or("write bits, e.g. \"40Gbit/s\"".to_owned(), |b| format!("write \"{b}{prefix}bit/s\""));
        return error_fix("it counts bytes, links are counted in bits", fix);
    }
    let reason = if unit.is_empty() { "the unit is missing" } else { "the unit is not bit/s with k, M, G or T" };
    error_fix(reason, format!("write \"{digits}{prefix}bit/s\""))
}

/// Reads a query rate such as `1.2M/s`, per second.
///
/// # Errors
/// When the number or `/s` is missing or the result is zero or does not fit.
pub fn parse_query_rate(text: &str) -> Result<u64, QuantityError> {
    let (digits, unit) = split(text);
    if digits.is_empty() {
        return error("it does not begin with a number");
    }
    match unit.strip_suffix("/s") {
        Some(prefix) => multiple(digits, prefix, "/s"),
        None => {
            let prefix = MULTIPLES.iter().map(|(name, _)| *name).find(|name| *name == unit).unwrap_or_default();
            error_fix("it does not end in \"/s\"", format!("write \"{digits}{prefix}/s\""))
        }
    }
}

fn multiple(digits: &str, prefix: &str, unit: &str) -> Result<u64, QuantityError> {
    let Some((_, factor)) = MULTIPLES.iter().find(|(name, _)| *name == prefix) else {
        let meant = MULTIPLES.iter().find(|(name, _)| !name.is_empty() && name.eq_ignore_ascii_case(prefix));
        let fix = format!("write \"{digits}{}{unit}\"", meant.map_or("G", |(name, _)| name));
        return error_fix("the multiple is none of k, M, G, T", fix);
    };
    match scale(digits, *factor)? {
        0 => error("it is zero"),
        rate => Ok(rate),
    }
}

fn format_multiple(rate: u64, unit: &str) -> String {
    let (name, factor) =
        MULTIPLES.iter().rev().find(|(_, factor)| rate.is_multiple_of(*factor)).unwrap_or(&MULTIPLES[0]);
    format!("{}{name}{unit}", rate / factor)
}

/// The shortest whole number of bits per second that [`parse_bit_rate`] reads back.
pub fn format_bit_rate(bits_per_s: u64) -> String {
    format_multiple(bits_per_s, "bit/s")
}

/// The shortest whole number of queries per second that [`parse_query_rate`] reads back.
pub fn format_query_rate(queries_per_s: u64) -> String {
    format_multiple(queries_per_s, "/s")
}

/// Reads a percentage such as `0.1%` as a fraction of 1.
///
/// # Errors
/// When the number or `%` is missing or it is above 100 %.
pub fn parse_percentage(text: &str) -> Result<f64, QuantityError> {
    let (digits, unit) = split(text);
    if digits.is_empty() {
        let negative = text.trim_start().starts_with('-');
        return error(if negative { "it is negative" } else { "it does not begin with a number" });
    }
    if unit.is_empty() {
        return error_fix("the percent sign is missing", format!("write \"{digits}%\""));
    }
    if unit != "%" {
        return error("it does not end in \"%\"");
    }
    match digits.parse::<f64>() {
        Ok(percent) if percent <= 100.0 => Ok(percent / 100.0),
        Ok(_) => error("it is above 100%"),
        Err(_) => error("it does not begin with a number"),
    }
}

#[cfg(test)]
mod tests;
