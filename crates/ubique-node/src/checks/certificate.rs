//! The one thing checks need of a certificate that the TLS library does not tell: when it ends.
//!
//! Walks the DER of RFC 5280 §4.1 up to `validity`; no input panics (fuzz target `certificate`).

/// Seconds of a day.
pub(super) const DAY_S: i64 = 24 * 3600;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, which holds the version.
const VERSION: u8 = 0xa0;

/// Seconds since 1970 of a certificate's `notAfter`; `None`: not a certificate.
pub fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (to_be_signed, _) = element(certificate, SEQUENCE)?;
    let mut rest = to_be_signed;
    if rest.first() == Some(&VERSION) {
        rest = element(rest, VERSION)?.1;
    }
    // serialNumber, signature, issuer
    for _ in 0..3 {
        rest = any(rest)?.2;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, _, rest) = any(validity)?;
    let (tag, time, _) = any(rest)?;
    seconds(tag, time)
}

/// Content of the first element, which must have this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any(der)?;
    (found == tag).then_some((content, rest))
}

/// Tag and content of the first element, and what follows it (X.690 §8.1, with lengths of up to four octets).
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 §4.1.2.5).
fn seconds(tag: u8, time: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(time).ok()?.strip_suffix('Z')?;
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (year, at) = match tag {
        UTC_TIME => match number(0, 2)? {
            year @ 0..50 => (2000 + year, 2),
            year => (1900 + year, 2),
        },
        GENERALIZED_TIME => (number(0, 4)?, 4),
        _ => return None,
    };
    let part = |index: usize| number(at + 2 * index, at + 2 * index + 2);
    let (month, day) = (part(0)?, part(1)?);
    let (hour, minute, second) = (part(2)?, part(3)?, part(4)?);
    if text.len() != at + 10 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01 of a day of the Gregorian calendar: years begin in March, so that leap days come last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (text, expected) in [
            (&b"700101000000Z"[..], Some(0)),
            (b"000229120000Z", Some(951_825_600)),
            (b"491231235959Z", Some(2_524_607_999)),
            (b"500101000000Z", Some(-631_152_000)),
            (b"240230", None),
            (b"241301000000Z", None),
            (b"2401010000000", None),
        ] {
            assert_eq!(seconds(UTC_TIME, text), expected, "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(seconds(GENERALIZED_TIME, b"99991231235959Z"), Some(253_402_300_799));
    }

    #[test]
    fn what_is_no_certificate_has_no_date() {
        for der in [&b""[..], b"\x30", b"\x30\x82", b"\x30\x03\x30\x01\x02", b"\x30\x84\xff\xff\xff\xff"] {
            assert_eq!(not_after(der), None);
        }
    }
}
