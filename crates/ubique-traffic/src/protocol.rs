//! What both ends say: a request, a greeting, messages, content, receipts.
//!
//! The client asks with [`REQUEST_BYTES`] octets for one of [`Request`]; the server greets with the name of its site behind its length. Then
//! messages are echoed, or one side sends content at its pace: of an upload the server acknowledges what it has compared, [`RECEIPT_BYTES`]
//! octets each time, [`WRONG`] when it differed.

/// Begins a request; not what a TLS record begins with ([`TLS_HANDSHAKE`]).
const MAGIC: [u8; 4] = *b"ubqt";
/// First octet of a connection that speaks TLS (RFC 8446 §5.1).
pub const TLS_HANDSHAKE: u8 = 22;
/// Length of a request.
pub const REQUEST_BYTES: usize = 24;
/// Length of a message: its number.
pub const MESSAGE_BYTES: usize = 8;
/// Length of a receipt: the octets compared so far.
pub const RECEIPT_BYTES: usize = 8;
/// The receipt of content that is not what was sent.
pub const WRONG: u64 = u64::MAX;
/// Octets that one number makes.
const WORD: u64 = 8;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Everything it sends, sent back.
    Echo,
    /// To send so many octets.
    Upload {
        /// How many.
        size: u64,
    },
    /// To get so many octets at this pace.
    Download {
        /// How many.
        size: u64,
        /// Octets a second.
        bytes_per_s: u64,
    },
}

impl Request {
    /// As it is sent.
    pub fn encode(self) -> [u8; REQUEST_BYTES] {
        let (kind, size, pace) = match self {
            Request::Echo => (0_u32, 0, 0),
            Request::Upload { size } => (1, size, 0),
            Request::Download { size, bytes_per_s } => (2, size, bytes_per_s),
        };
        let mut octets = [0; REQUEST_BYTES];
        octets[..4].copy_from_slice(&MAGIC);
        octets[4..8].copy_from_slice(&kind.to_be_bytes());
        octets[8..16].copy_from_slice(&u64::to_be_bytes(size));
        octets[16..].copy_from_slice(&u64::to_be_bytes(pace));
        octets
    }

    /// `None`: it is none.
    pub fn decode(octets: &[u8; REQUEST_BYTES]) -> Option<Request> {
        let [magic, kind] = [octets.first_chunk::<4>()?, octets[4..].first_chunk::<4>()?];
        let [size, bytes_per_s] = [8, 16].map(|at| octets[at..].first_chunk().map(|o| u64::from_be_bytes(*o)));
        let (size, bytes_per_s) = (size?, bytes_per_s?);
        match (*magic == MAGIC, u32::from_be_bytes(*kind)) {
            (true, 0) => Some(Request::Echo),
            (true, 1) => Some(Request::Upload { size }),
            (true, 2) => Some(Request::Download { size, bytes_per_s }),
            _ => None,
        }
    }
}

/// Fills a buffer with the content from octet `at` on: no stretch of it is like another, so that what is lost, doubled or moved shows.
pub fn fill(at: u64, buffer: &mut [u8]) {
    let mut place = at;
    let mut rest = buffer;
    while !rest.is_empty() {
        let word = mix(place / WORD).to_le_bytes();
        let from = (place % WORD) as usize;
        let length = rest.len().min(word.len() - from);
        let (now, later) = rest.split_at_mut(length);
        now.copy_from_slice(&word[from..from + length]);
        place += length as u64;
        rest = later;
    }
}

/// Whether these octets are the content from octet `at` on.
pub fn is_content(at: u64, octets: &[u8]) -> bool {
    let mut place = at;
    octets.chunks(256).all(|chunk| {
        let mut wanted = [0; 256];
        fill(place, &mut wanted[..chunk.len()]);
        place += chunk.len() as u64;
        wanted[..chunk.len()] == *chunk
    })
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): different numbers give different words.
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn requests_are_read_as_they_were_sent(size in any::<u64>(), bytes_per_s in any::<u64>(), spoilt in 0usize..8) {
            for request in [Request::Echo, Request::Upload { size }, Request::Download { size, bytes_per_s }] {
                let mut octets = request.encode();
                prop_assert_eq!(Request::decode(&octets), Some(request));
                prop_assert_ne!(octets[0], TLS_HANDSHAKE);
                octets[spoilt] ^= 0x80;
                prop_assert_eq!(Request::decode(&octets), None);
            }
        }

        #[test]
        fn content_is_the_same_in_whatever_pieces(at in 0u64..1 << 40, length in 1usize..2000, cut in 0usize..2000, bit in 0u8..8) {
            let mut whole = vec![0; length];
            fill(at, &mut whole);
            let cut = cut.min(length - 1);
            prop_assert!(is_content(at, &whole[..cut]) && is_content(at + cut as u64, &whole[cut..]));
            prop_assert!(!is_content(at + 1, &whole) || length < 2);
            whole[cut] ^= 1 << bit;
            prop_assert!(!is_content(at, &whole));
        }
    }
}
