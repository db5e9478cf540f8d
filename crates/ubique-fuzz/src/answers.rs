//! What servers answer to checks: octets of whoever listens there.

use ubique_node::checks;

/// A DNS message, judged as the answer to a query.
pub(crate) fn dns(input: &[u8]) {
    checks::fuzz_dns_answer(input);
}

/// An NTP packet, judged as the answer to a query.
pub(crate) fn ntp(input: &[u8]) {
    checks::fuzz_ntp_answer(input);
}

/// A certificate in DER: an end is a day of the calendar's 10,000 years.
pub(crate) fn certificate(input: &[u8]) {
    if let Some(end) = checks::certificate_not_after(input) {
        assert!((-62_200_000_000..260_000_000_000).contains(&end), "{end}");
    }
}
