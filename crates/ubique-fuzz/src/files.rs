//! Service, scenario and Internet files.

use ubique_model::diagnostic::{Diagnostic, Parsed};
use ubique_model::internet::Internet;
use ubique_model::policy::{Level, Stance, announcements};
use ubique_model::scenario::Scenario;
use ubique_model::service::Service;

/// What holds for the reading of any file.
fn judge<T>(parsed: &Parsed<T>, text: &[u8]) {
    assert_eq!(parsed.value.is_none(), parsed.has_errors(), "no value exactly when there are errors");
    for diagnostic in &parsed.diagnostics {
        let Diagnostic { code, start, end, line, column, message, .. } = diagnostic;
        assert!(start <= end && *end <= text.len(), "{code} at {start}..{end} of {} octets", text.len());
        assert!(*line >= 1 && *column >= 1 && !message.is_empty(), "{diagnostic:?}");
    }
}

/// A service that is sound means the same when it is printed and read again.
pub(crate) fn service(input: &[u8]) {
    let parsed = Service::parse("fuzz.toml", input);
    judge(&parsed, input);
    let Some(service) = parsed.value else { return };
    let printed = service.to_toml();
    let again = Service::parse("printed.toml", printed.as_bytes());
    assert_eq!(again.value.as_ref(), Some(&service), "{:?}\n{printed}", again.diagnostics);
    for upstream in service.sites.iter().flat_map(|site| &site.upstreams) {
        for level in Level::ALL {
            for stance in [Stance::at(level), Stance { shed: u8::MAX, last_resort: true, ..Stance::at(level) }] {
                for announcement in announcements(&service, upstream, &stance) {
                    let own = service.prefixes.iter().any(|prefix| prefix.contains(&announcement.prefix));
                    assert!(own, "announces what is not the service's");
                }
            }
        }
    }
}

/// A scenario file.
pub(crate) fn scenario(input: &[u8]) {
    judge(&Scenario::parse("fuzz.toml", input), input);
}

/// An Internet file.
pub(crate) fn internet(input: &[u8]) {
    judge(&Internet::parse("fuzz.toml", input), input);
}
