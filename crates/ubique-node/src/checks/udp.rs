//! The `udp` check: a payload is answered.

use std::net::SocketAddr;

use super::dns::udp;
use super::{Failure, quote, words};

/// Octets of an answer that are looked at.
const ANSWER_BYTES: usize = 4096;

/// A `udp` check.
pub(super) struct Udp {
    target: SocketAddr,
    send: Vec<u8>,
    starts: Vec<u8>,
    contains: Vec<u8>,
    buffer: Vec<u8>,
}

impl Udp {
    pub(super) fn new(target: SocketAddr, send: &[u8], starts: &[u8], contains: &[u8]) -> Udp {
        let (send, starts, contains) = (send.to_vec(), starts.to_vec(), contains.to_vec());
        Udp { target, send, starts, contains, buffer: vec![0; ANSWER_BYTES] }
    }

    pub(super) async fn poll(&mut self) -> Result<(), Failure> {
        let socket = udp(self.target).map_err(|e| words(&e))?;
        socket.send(&self.send).await.map_err(|e| words(&e))?;
        let length = socket.recv(&mut self.buffer).await.map_err(|e| words(&e))?;
        self.judge(&self.buffer[..length]).map_err(Failure::of_answer)
    }

    fn judge(&self, answer: &[u8]) -> Result<(), String> {
        if !answer.starts_with(&self.starts) {
            return Err(format!("answer begins otherwise: {}", quote(answer)));
        }
        let contains = self.contains.is_empty() || answer.windows(self.contains.len()).any(|w| w == self.contains);
        if contains { Ok(()) } else { Err(format!("answer does not contain what is expected: {}", quote(answer))) }
    }
}
