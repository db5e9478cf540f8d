//! The site in connection identifiers of QUIC (RFC 9000 §5.1).
//!
//! In the shape of QUIC-LB (draft-ietf-quic-load-balancers): the first octet tells the rotation of the configuration and the length,
//! so that whoever sees a short header knows where the identifier ends. Then site and check octet, hidden by a hash of the
//! nonce behind them. A client's own choice (its first packet) passes for ours once in 256 times 256 divided by the number of
//! sites; then another site serves it, which is no harm.

use super::siphash::siphash13;
use super::{Key, Site};

/// Octets: first, site, check, nonce.
pub const BYTES: usize = 3 + NONCE_BYTES;

/// Octets of the nonce.
pub const NONCE_BYTES: usize = 7;

/// Rotations there are: three bits, of which the highest value says "no configuration" (QUIC-LB §3.1).
pub const ROTATIONS: u8 = 7;

/// Bits of the length in the first octet.
const LENGTH_BITS: u32 = 5;

/// A key and where it stands in the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    rotation: u8,
    key: Key,
}

impl Config {
    /// `None`: `rotation` is not below [`ROTATIONS`].
    pub fn new(rotation: u8, key: Key) -> Option<Config> {
        (rotation < ROTATIONS).then_some(Config { rotation, key })
    }

    /// An identifier of a connection at `site`. `nonce`: never the same twice at one site, and not to be guessed.
    pub fn encode(&self, site: Site, nonce: [u8; NONCE_BYTES]) -> [u8; BYTES] {
        let [hidden, check] = self.mask(&nonce);
        let mut octets = [0; BYTES];
        // The length of what follows (QUIC-LB §3.1.2).
        octets[0] = self.rotation << LENGTH_BITS | (BYTES - 1) as u8;
        octets[1] = site.code() ^ hidden;
        octets[2] = check;
        octets[3..].copy_from_slice(&nonce);
        octets
    }

    /// The site that chose an identifier; `octets` may go on behind it. `None`: not one of ours.
    pub fn decode(&self, octets: &[u8]) -> Option<Site> {
        let [first, site, check, nonce @ ..] = octets.first_chunk::<BYTES>()?;
        let [hidden, expected] = self.mask(nonce);
        let ours = self.rotation << LENGTH_BITS | (BYTES - 1) as u8;
        if *first != ours || *check != expected {
            return None;
        }
        Site::of_code(site ^ hidden)
    }

    fn mask(&self, nonce: &[u8]) -> [u8; 2] {
        (siphash13(self.key, nonce) as u16).to_le_bytes()
    }
}
