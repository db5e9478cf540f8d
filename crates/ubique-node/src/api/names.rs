//! What a certificate calls its owner: common name and alternative names (RFC 5280 §4.1.2.6, §4.2.1.6).
//!
//! Only for certificates that the TLS library has verified: what is odd here is left out, never judged.

/// Longest name that counts, octets.
const NAME_BYTES: usize = 256;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// UTF8String, PrintableString, TeletexString, IA5String.
const TEXTS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];
/// rfc822Name, dNSName, uniformResourceIdentifier of a GeneralName.
const GENERAL_NAMES: [u8; 3] = [0x81, 0x82, 0x86];
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Elements of a constructed value, one after the other, until one is cut off.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if octets.is_empty() || octets.len() > 4 {
                return None;
            }
            (octets.iter().fold(0, |length, &octet| length << 8 | usize::from(octet)), rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}

/// The content of the first element, when it has this tag.
fn inside(der: &[u8], tag: u8) -> Option<&[u8]> {
    Elements(der).next().filter(|(t, _)| *t == tag).map(|(_, content)| content)
}

/// The names of a certificate in DER, its common name first.
pub(super) fn of(certificate: &[u8]) -> Vec<String> {
    let Some(body) = inside(certificate, SEQUENCE).and_then(|c| inside(c, SEQUENCE)) else {
        return Vec::new();
    };
    let mut fields = Elements(body).filter(|(tag, _)| *tag != VERSION);
    // serialNumber, signature, issuer, validity, subject
    let subject = fields.nth(4).map(|(_, content)| content).unwrap_or_default();
    let extensions = fields.find(|(tag, _)| *tag == EXTENSIONS).and_then(|(_, content)| inside(content, SEQUENCE));
    let mut names: Vec<String> = common_names(subject).collect();
    names.extend(extensions.into_iter().flat_map(alternative_names));
    names
}

fn common_names(subject: &[u8]) -> impl Iterator<Item = String> {
    let attributes = Elements(subject).filter(|(tag, _)| *tag == SET).flat_map(|(_, set)| Elements(set));
    attributes.filter_map(|(_, attribute)| {
        let mut parts = Elements(attribute);
        let (_, kind) = parts.next().filter(|(tag, _)| *tag == OID)?;
        let (tag, value) = parts.next()?;
        (kind == COMMON_NAME && TEXTS.contains(&tag)).then(|| text(value)).flatten()
    })
}

fn alternative_names(extensions: &[u8]) -> impl Iterator<Item = String> {
    let values = Elements(extensions).filter_map(|(_, extension)| {
        let mut parts = Elements(extension);
        let (_, kind) = parts.next().filter(|(tag, _)| *tag == OID)?;
        let (_, value) = parts.find(|(tag, _)| *tag == OCTET_STRING)?;
        (kind == SUBJECT_ALT_NAME).then(|| inside(value, SEQUENCE)).flatten()
    });
    values.flat_map(Elements).filter_map(|(tag, value)| GENERAL_NAMES.contains(&tag).then(|| text(value)).flatten())
}

/// A name that can be compared and printed.
fn text(octets: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(octets).ok()?;
    let usable = !text.is_empty() && text.len() <= NAME_BYTES && !text.chars().any(char::is_control);
    usable.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let mut out = vec![tag];
        match length {
            0..0x80 => out.push(length as u8),
            _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        out.extend(content);
        out
    }

    fn certificate(name: &[u8], alternative: &[u8]) -> Vec<u8> {
        let attribute = element(SEQUENCE, &[element(OID, COMMON_NAME), element(0x0c, name)].concat());
        let subject = element(SEQUENCE, &element(SET, &attribute));
        let alternatives = element(SEQUENCE, &element(0x82, alternative));
        let extension =
            element(SEQUENCE, &[element(OID, SUBJECT_ALT_NAME), element(OCTET_STRING, &alternatives)].concat());
        let empty = element(SEQUENCE, b"");
        let parts = [
            element(VERSION, &element(2, &[2])),
            element(2, &[1]),
            empty.clone(),
            empty.clone(),
            empty.clone(),
            subject,
            empty,
            element(EXTENSIONS, &element(SEQUENCE, &extension)),
        ];
        element(SEQUENCE, &element(SEQUENCE, &parts.concat()))
    }

    #[test]
    fn common_and_alternative_names_are_read() {
        assert_eq!(of(&certificate(b"ops", b"ops.example.net")), ["ops", "ops.example.net"]);
        assert_eq!(of(&certificate(&[b'a'; 200], b"b")), ["a".repeat(200), "b".into()]);
        assert_eq!(of(&certificate(b"e\x1bvil", b"b")), ["b"]);
    }

    #[test]
    fn what_is_cut_off_or_turned_over_never_panics() {
        let whole = certificate(b"ops", b"ops.example.net");
        for length in 0..whole.len() {
            of(&whole[..length]);
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut odd = whole.clone();
                odd[at] ^= 1 << bit;
                of(&odd);
            }
        }
    }
}
