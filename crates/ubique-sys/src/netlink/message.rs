//! Netlink messages as bytes: requests are appended to one buffer, replies are walked without copying.
//!
//! Attributes nobody asked for are skipped, so a newer kernel that adds or lengthens some cannot make a reply unreadable.

const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` share the type field with the type.
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// Requests of one `sendmsg`, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
    message: usize,
}

impl Encoder {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Starts a message; `finish` ends it.
    pub(crate) fn begin(&mut self, kind: u16, flags: u16, sequence: u32) {
        self.message = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
    }

    pub(crate) fn finish(&mut self) {
        let length = (self.bytes.len() - self.message) as u32;
        self.bytes[self.message..self.message + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Fixed part of a message: the family's header.
    pub(crate) fn body(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let nest = self.nest(kind);
        self.bytes.extend_from_slice(value);
        self.end_nest(nest);
    }

    pub(crate) fn attribute_u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// With the closing NUL that the kernel wants.
    pub(crate) fn attribute_str(&mut self, kind: u16, value: &str) {
        let nest = self.nest(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.end_nest(nest);
    }

    /// Opens an attribute that contains what follows, until `end_nest` gets the value returned here.
    pub(crate) fn nest(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    pub(crate) fn end_nest(&mut self, start: usize) {
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }
}

/// One message of a reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// The messages in one datagram; stops at the first one that is cut short.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = read_u32(bytes, 0)? as usize;
        let message = Message {
            kind: read_u16(bytes, 4)?,
            flags: read_u16(bytes, 6)?,
            sequence: read_u32(bytes, 8)?,
            body: bytes.get(HEADER_LEN..length)?,
        };
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// Types and values of the attributes in `bytes`; stops at the first one that is cut short.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        let kind = read_u16(bytes, 2)? & ATTRIBUTE_TYPE_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER_LEN..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A NUL-terminated name.
pub(crate) fn read_str(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_back() {
        let mut encoder = Encoder::default();
        for sequence in 7..9 {
            encoder.begin(16, 5, sequence);
            encoder.body(&[1, 2, 3]);
            encoder.attribute_str(3, "l0");
            let nest = encoder.nest(18);
            encoder.attribute_u32(1, 42);
            encoder.end_nest(nest);
            encoder.finish();
        }
        let read: Vec<_> = messages(encoder.bytes()).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].kind, read[1].flags, read[1].sequence), (16, 5, 8));
        assert_eq!(read[1].body[..4], [1, 2, 3, 0]);
        let found: Vec<_> = attributes(&read[1].body[4..]).collect();
        assert_eq!(read_str(found[0].1), Some("l0"));
        let inner: Vec<_> = attributes(found[1].1).collect();
        assert_eq!(inner[0].0, 1);
        assert_eq!(read_u32(inner[0].1, 0), Some(42));
    }

    #[test]
    fn damaged_replies_end_the_walk() {
        let mut encoder = Encoder::default();
        encoder.begin(16, 0, 1);
        encoder.body(&[0; 16]);
        encoder.attribute(3, b"name");
        encoder.finish();
        let whole = encoder.bytes().to_vec();
        for cut in 0..whole.len() {
            assert_eq!(messages(&whole[..cut]).count(), 0);
        }
        for length in [0u32, 1, 15, 4096, u32::MAX] {
            let mut damaged = whole.clone();
            damaged[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&damaged).count(), 0);
        }
        for length in [0u16, 3, 200] {
            let mut attribute = 5u16.to_ne_bytes().to_vec();
            attribute.extend([1, 0, 9]);
            attribute[..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(attributes(&attribute).count(), 0);
        }
    }
}
