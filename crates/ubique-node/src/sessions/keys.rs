//! The secret that all sites share, and the keys that are made of it.
//!
//! The file has one line of at least [`SECRET_BYTES_MIN`] octets, the same at all sites: `openssl rand -hex 32` makes one. What the
//! octets are does not matter, white space at the end is not counted, and each key is HKDF-SHA-256 (RFC 5869) of all of them, without a
//! salt, under a label of its own: who learns one key learns neither the others nor the secret. A QUIC server is given only the key
//! of connection identifiers.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ubique_edge::{IdKey, Keys};
use ubique_proto::sessions::Key;

/// Fewest octets of a secret.
pub const SECRET_BYTES_MIN: usize = 32;

/// Most octets of its file.
const FILE_BYTES_MAX: usize = 4096;

/// The only rotation of connection identifiers there is.
pub const ROTATION: u8 = 0;

/// Octets of a key.
const KEY_BYTES: usize = 16;

/// Bits of a file's mode for users who are neither its owner nor of its group.
const OTHERS: u32 = 0o007;

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret file {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Anybody may read it.
    #[error("the secret file {0} is open to all users: chmod o= {0}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
    },
    /// It is too short to be a secret.
    #[error(
        "the secret file {} has {octets} octets, fewer than {SECRET_BYTES_MIN}: make one with `openssl rand -hex 32`, the same for all sites",
        path.display()
    )]
    Short {
        /// Which file.
        path: PathBuf,
        /// What it has.
        octets: usize,
    },
    /// It is no secret but something else.
    #[error("the secret file {} is longer than {FILE_BYTES_MAX} octets", path.display())]
    Long {
        /// Which file.
        path: PathBuf,
    },
}

/// What all sites know, and nobody else. Its value is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a key is for.
#[derive(Clone, Copy)]
enum Label {
    Flow,
    Shim,
    Cookie,
    ConnectionId,
}

impl Label {
    fn octets(self) -> &'static [u8] {
        match self {
            Label::Flow => b"ubique sessions flow",
            Label::Shim => b"ubique sessions shim",
            Label::Cookie => b"ubique sessions cookie",
            Label::ConnectionId => b"ubique sessions connection-id",
        }
    }
}

/// How long a key is.
struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

impl Secret {
    /// The octets of a file without white space at its end.
    ///
    /// # Errors
    /// It cannot be read, others may read it, or it is too short.
    pub fn read(path: &Path) -> Result<Secret, SecretError> {
        let refused = |source| SecretError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(refused)?;
        let mode = file.metadata().map_err(refused)?.permissions().mode();
        let mut octets = Vec::new();
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut octets).map_err(refused)?;
        if mode & OTHERS != 0 {
            return Err(SecretError::Open { path: path.to_owned() });
        }
        if octets.len() > FILE_BYTES_MAX {
            return Err(SecretError::Long { path: path.to_owned() });
        }
        let octets = octets.trim_ascii_end();
        if octets.len() < SECRET_BYTES_MIN {
            return Err(SecretError::Short { path: path.to_owned(), octets: octets.len() });
        }
        Ok(Secret(octets.to_vec()))
    }

    /// All keys of a data plane.
    pub fn keys(&self) -> Keys {
        let ids = vec![IdKey { rotation: ROTATION, key: self.key(Label::ConnectionId) }];
        Keys { flow: self.key(Label::Flow), shim: self.key(Label::Shim), cookie: self.key(Label::Cookie), ids }
    }

    /// The key of connection identifiers in 32 hexadecimal digits, as `ubique-quic` takes it (`key_from_hex`).
    pub fn connection_id_key(&self) -> String {
        self.derive(Label::ConnectionId).iter().map(|octet| format!("{octet:02x}")).collect()
    }

    fn key(&self, label: Label) -> Key {
        let octets = u128::from_le_bytes(self.derive(label));
        Key([octets as u64, (octets >> 64) as u64])
    }

    fn derive(&self, label: Label) -> [u8; KEY_BYTES] {
        let info = [label.octets()];
        let mut key = [0; KEY_BYTES];
        let extracted = Salt::new(HKDF_SHA256, &[]).extract(&self.0);
        let expanded = extracted.expand(&info, Length).and_then(|expanded| expanded.fill(&mut key));
        // Refused are only keys of more than 255 hashes.
        expanded.expect("a key of 16 octets can be derived");
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    const TEXT: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// By Python's hmac and hashlib, after RFC 5869.
    #[test]
    fn keys_are_those_that_others_derive() {
        let secret = Secret(TEXT.into());
        let hex = |label| format!("{:032x}", u128::from_be_bytes(secret.derive(label)));
        assert_eq!(hex(Label::Flow), "1da54a4755ee4f12d4e70c062dcd4aca");
        assert_eq!(hex(Label::Shim), "ec07d7c08c7c670fd7bf91823a7e1267");
        assert_eq!(hex(Label::Cookie), "1ed75098cd4c3beec712fe1883b11991");
        assert_eq!(hex(Label::ConnectionId), "dba0b371ea57f23a5f3d523115034244");
        assert_eq!(secret.connection_id_key(), hex(Label::ConnectionId));
        let keys = secret.keys();
        // The octets in the order of the SipHash paper.
        let [k0, k1] = keys.ids[0].key.0;
        assert_eq!([k0.to_le_bytes(), k1.to_le_bytes()].concat(), secret.derive(Label::ConnectionId));
        assert_eq!(format!("{secret:?} {:?}", keys.flow), "Secret(…) Key(…)");
    }

    #[test]
    fn a_secret_is_long_and_nobody_elses() {
        let path = std::env::temp_dir().join(format!("ubique-secret-{}", std::process::id()));
        let read = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            Secret::read(&path).map_err(|error| error.to_string())
        };
        let good = Secret(TEXT.into());
        assert_eq!(read(TEXT, 0o600), Ok(good.clone()));
        assert_eq!(read(&format!("{TEXT}\r\n"), 0o640), Ok(good), "the end of the line is not counted");
        let named = |refused: Result<Secret, String>, word: &str| {
            let error = refused.unwrap_err();
            assert!(error.contains(word) && error.contains(path.to_str().unwrap()), "{error}");
        };
        named(read(TEXT, 0o644), "chmod o=");
        named(read(&TEXT[..31], 0o600), "openssl rand -hex 32");
        named(read(&format!("{:40}\n", &TEXT[..31]), 0o600), "has 31 octets");
        named(read(&TEXT.repeat(65), 0o600), "longer");
        fs::remove_file(&path).unwrap();
        named(Secret::read(&path).map_err(|error| error.to_string()), "cannot read");
    }
}
