//! The `udp` check: a payload is answered.

use std::net::SocketAddr;

use super::asker::Asker;
use super::{Failure, quote, words};

/// Octets of an answer that are looked at.
const ANSWER_BYTES: usize = 4096;

/// A `udp` check.
pub(super) struct Udp {
    asker: Asker,
    send: Vec<u8>,
    expected: Expected,
    buffer: Vec<u8>,
}

/// What passes.
struct Expected {
    starts: Vec<u8>,
    contains: Vec<u8>,
}

impl Udp {
    pub(super) fn new(target: SocketAddr, send: &[u8], starts: &[u8], contains: &[u8]) -> Udp {
        let expected = Expected { starts: starts.to_vec(), contains: contains.to_vec() };
        Udp { asker: Asker::new(target), send: send.to_vec(), expected, buffer: vec![0; ANSWER_BYTES] }
    }

    pub(super) async fn poll(&mut self) -> Result<(), Failure> {
        let Udp { asker, send, expected, buffer } = self;
        let end = asker.ask(send, buffer, |answer| Some(expected.judge(answer))).await;
        end.map_err(|e| words(&e))?.map_err(Failure::of_answer)
    }
}

impl Expected {
    fn judge(&self, answer: &[u8]) -> Result<(), String> {
        if !answer.starts_with(&self.starts) {
            return Err(format!("answer begins otherwise: {}", quote(answer)));
        }
        let contains = self.contains.is_empty() || answer.windows(self.contains.len()).any(|w| w == self.contains);
        if contains { Ok(()) } else { Err(format!("answer does not contain what is expected: {}", quote(answer))) }
    }
}
