//! The `ntp` check: a server that is synchronised and close to this machine's clock.
//!
//! A client query of RFC 5905 whose transmit timestamp is random: the server returns it as the origin, so that nobody
//! else can answer, and learns nothing of our clock. Deliberately absent: extension fields and authentication.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::asker::Asker;
use super::{Failure, words};
use crate::random::query_id64;

/// Octets of a header without extensions (RFC 5905 §7.3).
const HEADER: usize = 48;
/// Largest answer that is looked at: extensions follow the header.
const ANSWER_BYTES: usize = 1024;
/// Leap indicator 0, version 4, mode 3: client.
const CLIENT: u8 = 4 << 3 | 3;
const MODE_SERVER: u8 = 4;
/// Leap indicator: not synchronised.
const ALARM: u8 = 3;
/// Seconds from 1900, the era of NTP, to 1970.
const ERA_S: u64 = 2_208_988_800;

/// An `ntp` check.
pub(super) struct Ntp {
    asker: Asker,
    expected: Expected,
    buffer: Vec<u8>,
}

/// What passes.
pub(super) struct Expected {
    stratum: u8,
    offset: Option<Duration>,
}

impl Ntp {
    pub(super) fn new(target: SocketAddr, stratum: u8, offset: Option<Duration>) -> Ntp {
        Ntp { asker: Asker::new(target), expected: Expected { stratum, offset }, buffer: vec![0; ANSWER_BYTES] }
    }

    pub(super) async fn poll(&mut self) -> Result<(), Failure> {
        let mut query = [0; HEADER];
        let cookie = query_id64();
        query[0] = CLIENT;
        query[40..].copy_from_slice(&cookie);
        let Ntp { asker, expected, buffer } = self;
        let sent = timestamp(SystemTime::now());
        let judge = |answer: &[u8]| expected.judge(answer, cookie, sent, timestamp(SystemTime::now()));
        let end = asker.ask(&query, buffer, judge).await;
        end.map_err(|e| words(&e))?.map_err(Failure::of_answer)
    }
}

impl Expected {
    /// `None`: not the answer to this query.
    fn judge(&self, answer: &[u8], cookie: [u8; 8], sent: u64, received: u64) -> Option<Result<(), String>> {
        let Some(header) = answer.first_chunk::<HEADER>() else {
            return Some(Err(format!("answer of {} octets is not NTP", answer.len())));
        };
        let at = |place: usize| {
            let octets = [0, 1, 2, 3, 4, 5, 6, 7].map(|i| header[place + i]);
            u64::from_be_bytes(octets)
        };
        (header[24..32] == cookie).then(|| self.judge_header(header, at(32), at(40), sent, received))
    }

    fn judge_header(
        &self,
        header: &[u8; HEADER],
        came: u64,
        left: u64,
        sent: u64,
        received: u64,
    ) -> Result<(), String> {
        let (leap, mode, stratum) = (header[0] >> 6, header[0] & 7, header[1]);
        if mode != MODE_SERVER {
            return Err(format!("answer in mode {mode}, expected {MODE_SERVER} (server)"));
        }
        // A kiss-o'-death says why in letters (RFC 5905 §7.4); a server that does not know the time may have stratum 0, too.
        if stratum == 0 && header[12].is_ascii_alphabetic() {
            return Err(format!("the server refuses: {}", super::quote(&header[12..16])));
        }
        if leap == ALARM || stratum == 0 {
            return Err("the server's clock is not synchronised".to_owned());
        }
        if stratum > self.stratum {
            return Err(format!("stratum {stratum}, at most {} allowed", self.stratum));
        }
        if left == 0 {
            return Err("answer without a time".to_owned());
        }
        let Some(allowed) = self.offset else {
            return Ok(());
        };
        // Differences modulo 2^64 are right in every era (RFC 5905 §6).
        let (there, back) = (came.wrapping_sub(sent) as i64, left.wrapping_sub(received) as i64);
        let offset_s = (there as f64 + back as f64) / 2.0 / 2f64.powi(32);
        if offset_s.abs() <= allowed.as_secs_f64() {
            return Ok(());
        }
        Err(format!("offset {:+.3} ms, at most {:.3} ms allowed", offset_s * 1e3, allowed.as_secs_f64() * 1e3))
    }
}

/// Seconds since 1900 modulo 2^32, and 32 bits of fraction (RFC 5905 §6).
fn timestamp(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let fraction = (u64::from(since_1970.subsec_nanos()) << 32) / 1_000_000_000;
    since_1970.as_secs().wrapping_add(ERA_S) << 32 | fraction
}

/// Judges octets as an answer; for fuzzing.
pub fn judge_any(octets: &[u8]) {
    let expected = Expected { stratum: 15, offset: Some(Duration::from_millis(100)) };
    let cookie = octets.get(24..32).and_then(|o| o.first_chunk().copied()).unwrap_or_default();
    if let Some(Err(cause)) = expected.judge(octets, cookie, 1 << 32, 2 << 32) {
        assert!(!cause.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1 << 32;

    fn header(first: u8, stratum: u8, came: u64, left: u64) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        (header[0], header[1]) = (first, stratum);
        header[12..16].copy_from_slice(b"RATE");
        header[32..40].copy_from_slice(&came.to_be_bytes());
        header[40..].copy_from_slice(&left.to_be_bytes());
        header
    }

    #[test]
    fn answers_are_judged_by_alarm_stratum_and_offset() {
        let expected = Expected { stratum: 3, offset: Some(Duration::from_millis(100)) };
        // Sent at 10 s, received at 10.02 s by our clock.
        let (sent, received) = (10 * SECOND, 10 * SECOND + SECOND / 50);
        let middle = sent + SECOND / 100;
        let judge = |header: [u8; HEADER]| expected.judge(&header, [0; 8], sent, received).unwrap();
        assert_eq!(judge(header(0x24, 2, middle, middle)), Ok(()));
        for (first, stratum, shift, error) in [
            (0xe4, 2, 0, "the server's clock is not synchronised"),
            (0xe4, 0, 0, "the server refuses: RATE"),
            (0x24, 4, 0, "stratum 4, at most 3 allowed"),
            (0x24, 0, 0, "the server refuses: RATE"),
            (0x23, 2, 0, "answer in mode 3, expected 4 (server)"),
            (0x24, 2, SECOND / 2, "offset +500.000 ms, at most 100.000 ms allowed"),
            (0x24, 2, 0u64.wrapping_sub(SECOND / 4), "offset -250.000 ms, at most 100.000 ms allowed"),
        ] {
            let time = middle.wrapping_add(shift);
            assert_eq!(judge(header(first, stratum, time, time)), Err(error.to_owned()));
        }
        assert_eq!(expected.judge(&header(0x24, 2, 0, 0), [1; 8], sent, received), None, "somebody else's");
        let mut lost = header(0xe4, 0, middle, middle);
        lost[12..16].fill(0);
        assert_eq!(judge(lost), Err("the server's clock is not synchronised".to_owned()));
    }

    #[test]
    fn the_next_era_is_no_offset() {
        let expected = Expected { stratum: 15, offset: Some(Duration::from_millis(100)) };
        let (sent, received) = (u64::MAX - SECOND / 100, SECOND / 100);
        let answer = header(0x24, 1, u64::MAX, 1);
        assert_eq!(expected.judge(&answer, [0; 8], sent, received), Some(Ok(())));
    }

    #[test]
    fn timestamps_count_from_1900() {
        assert_eq!(timestamp(SystemTime::UNIX_EPOCH) >> 32, ERA_S);
        assert_eq!(timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(500)) as u32, 1 << 31);
    }
}
