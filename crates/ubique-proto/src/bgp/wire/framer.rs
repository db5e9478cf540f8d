//! Cutting the stream of a connection into messages.

use serde::{Deserialize, Serialize};

use super::super::message::{Message, Notification};
use super::{DecodeContext, HEADER_LEN, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, check_header, decode};

/// Octets a [`Framer`] holds at most: a message that is not complete, and room so that a small read rarely moves it.
pub const FRAMER_CAPACITY: usize = 4 * MAX_MESSAGE;

/// The same once extended messages are negotiated (RFC 8654).
pub const EXTENDED_FRAMER_CAPACITY: usize = MAX_EXTENDED_MESSAGE + FRAMER_CAPACITY;

/// Cuts a byte stream, split anywhere, into messages.
///
/// ```text
/// while !bytes.is_empty() {
///     bytes = &bytes[framer.push(bytes)..];
///     while let Some(result) = framer.next(&ctx) { … }      // ctx may change between two messages
/// }
/// ```
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Framer {
    buffer: Vec<u8>,
    start: usize,
    failed: bool,
    extended: bool,
}

impl Framer {
    /// An empty one.
    pub fn new() -> Framer {
        Framer::default()
    }

    /// Takes octets up to [`FRAMER_CAPACITY`], or [`EXTENDED_FRAMER_CAPACITY`] when [`Framer::next`] was last asked for
    /// extended messages, and says how many: all of them or, when it is full, fewer; then call [`Framer::next`] until
    /// it says `None` and push the rest. After an error everything is taken and ignored.
    #[must_use = "octets not taken must be pushed again"]
    pub fn push(&mut self, octets: &[u8]) -> usize {
        if self.failed {
            return octets.len();
        }
        let capacity = if self.extended { EXTENDED_FRAMER_CAPACITY } else { FRAMER_CAPACITY };
        if self.buffer.len() + octets.len() > capacity {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let taken = octets.len().min(capacity.saturating_sub(self.buffer.len()));
        self.buffer.extend_from_slice(&octets[..taken]);
        taken
    }

    /// The next message, or `None` until more octets come. A bad header is reported before its body arrives. After an
    /// error there is nothing to synchronise on: always `None`.
    pub fn next(&mut self, ctx: &DecodeContext) -> Option<Result<Message, Notification>> {
        self.next_with(ctx, |_| ())
    }

    /// As [`Framer::next`]; `seen` is shown a message that is there as a whole before it is read.
    pub fn next_with(
        &mut self,
        ctx: &DecodeContext,
        seen: impl FnOnce(&[u8]),
    ) -> Option<Result<Message, Notification>> {
        if self.failed {
            return None;
        }
        self.extended = ctx.max_message > MAX_MESSAGE;
        let pending = &self.buffer[self.start..];
        let head = pending.first_chunk::<HEADER_LEN>()?;
        let result = match check_header(head, ctx.max_message) {
            Ok((length, _)) => {
                let message = pending.get(..length)?;
                self.start += length;
                seen(message);
                decode(message, ctx)
            }
            Err(notification) => Err(notification),
        };
        if result.is_err() {
            self.failed = true;
            self.buffer = Vec::new();
            self.start = 0;
        } else if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
        Some(result)
    }
}
