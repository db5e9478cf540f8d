//! The prober's output: a stream of small binary records, little-endian, and its reader.
//!
//! ```text
//! stream   = "UBQP" version:u16 vantages:u16 addresses:u16  record*
//! record   = kind:u8 body
//! 1 site     index:u16 length:u8 name             a new site name; index 0 is the empty name (answered, site not told)
//! 2 answered vantage:u16 address:u8 sent_ns:u64 site:u16 rtt_ns:u32
//! 3 lost     vantage:u16 address:u8 sent_ns:u64   no answer within the timeout
//! 4 refused  vantage:u16 address:u8 sent_ns:u64   an ICMP error came back
//! 5 unsent   vantage:u16 address:u8 sent_ns:u64   the kernel had no route or no room
//! 6 late     from_ns:u64 until_ns:u64             the prober itself stood still: doubt outages that overlap
//! 7 quality  at_ns:u64 sent:u64 late_p99_ns:u64 late_max_ns:u64 stalls:u64 dropped:u64   totals since the start
//! ```
//!
//! Times are CLOCK_MONOTONIC of the machine, the same in every namespace. Answered, lost, refused and unsent records
//! come when the outcome is known, so not in the order sent.

use std::io::{self, Read};

/// First bytes of the stream.
const MAGIC: [u8; 4] = *b"UBQP";
/// Version of the format: reader and writer are the same binary, so one suffices.
const VERSION: u16 = 1;
/// Bytes of the stream header.
const HEADER_BYTES: usize = 10;
/// Longest site name carried, bytes.
pub const MAX_SITE_BYTES: usize = 63;
/// Most site names of one stream; later ones count as not told.
pub const MAX_SITES: usize = 1024;
/// Longest record: a site.
const MAX_RECORD_BYTES: usize = 4 + MAX_SITE_BYTES;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// Index of a site name of the stream; 0: the answer did not tell.
pub type SiteIndex = u16;
/// The index of answers that did not tell their site.
pub const UNKNOWN_SITE: SiteIndex = 0;

/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Answered {
        /// By which site.
        site: SiteIndex,
        /// Round-trip time, ns.
        rtt_ns: u32,
    },
    /// Not answered within the timeout.
    Lost,
    /// An ICMP error came back.
    Refused,
    /// It could not be sent.
    Unsent,
}

/// A query and its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Index of the vantage point in the spec.
    pub vantage: u16,
    /// Index of the service address in the spec.
    pub address: u8,
    /// When it was sent, CLOCK_MONOTONIC ns.
    pub sent_ns: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// A span of time, CLOCK_MONOTONIC ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Start.
    pub from_ns: u64,
    /// End.
    pub until_ns: u64,
}

/// How well the prober kept its deadlines, totals since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Quality {
    /// When this was true, CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// Queries sent.
    pub sent: u64,
    /// 99th percentile of lateness, ns.
    pub late_p99_ns: u64,
    /// Greatest lateness, ns.
    pub late_max_ns: u64,
    /// How often it was later than one interval.
    pub stalls: u64,
    /// Records dropped because nobody read them.
    pub dropped: u64,
}

/// One record of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A site name and its index.
    Site {
        /// Index.
        index: SiteIndex,
        /// Name.
        name: String,
    },
    /// A query's outcome.
    Sample(Sample),
    /// The prober stood still.
    Late(Span),
    /// Totals.
    Quality(Quality),
}

/// Appends the stream header.
pub fn encode_header(vantages: u16, addresses: u16, out: &mut Vec<u8>) {
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(vantages.to_le_bytes());
    out.extend(addresses.to_le_bytes());
}

impl Record {
    /// Appends the record; a site name is cut at [`MAX_SITE_BYTES`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Site { index, name } => {
                let mut end = name.len().min(MAX_SITE_BYTES);
                while !name.is_char_boundary(end) {
                    end -= 1;
                }
                out.push(1);
                out.extend(index.to_le_bytes());
                out.push(end as u8);
                out.extend(&name.as_bytes()[..end]);
            }
            Record::Sample(sample) => {
                out.push(match sample.outcome {
                    Outcome::Answered { .. } => 2,
                    Outcome::Lost => 3,
                    Outcome::Refused => 4,
                    Outcome::Unsent => 5,
                });
                out.extend(sample.vantage.to_le_bytes());
                out.push(sample.address);
                out.extend(sample.sent_ns.to_le_bytes());
                if let Outcome::Answered { site, rtt_ns } = sample.outcome {
                    out.extend(site.to_le_bytes());
                    out.extend(rtt_ns.to_le_bytes());
                }
            }
            Record::Late(span) => {
                out.push(6);
                out.extend(span.from_ns.to_le_bytes());
                out.extend(span.until_ns.to_le_bytes());
            }
            Record::Quality(q) => {
                out.push(7);
                for value in [q.at_ns, q.sent, q.late_p99_ns, q.late_max_ns, q.stalls, q.dropped] {
                    out.extend(value.to_le_bytes());
                }
            }
        }
    }

    /// Decodes the record at the start of `bytes` and says how long it is; `None`: more bytes are needed.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Record, usize)>, ReadError> {
        let mut fields = Fields(bytes);
        let Some(record) = decode_fields(&mut fields)? else {
            return Ok(None);
        };
        Ok(Some((record, bytes.len() - fields.0.len())))
    }
}

fn decode_fields(fields: &mut Fields) -> Result<Option<Record>, ReadError> {
    let Some([kind]) = fields.take() else {
        return Ok(None);
    };
    Ok(match kind {
        1 => decode_site(fields)?,
        2..=5 => decode_sample(kind, fields).map(Record::Sample),
        6 => decode_late(fields).map(Record::Late),
        7 => decode_quality(fields).map(Record::Quality),
        _ => return Err(ReadError::Kind(kind)),
    })
}

fn decode_site(fields: &mut Fields) -> Result<Option<Record>, ReadError> {
    let (Some(index), Some([length])) = (fields.u16(), fields.take()) else {
        return Ok(None);
    };
    if usize::from(length) > MAX_SITE_BYTES {
        return Err(ReadError::Site);
    }
    let Some(name) = fields.slice(usize::from(length)) else {
        return Ok(None);
    };
    let name = std::str::from_utf8(name).map_err(|_| ReadError::Site)?.to_owned();
    Ok(Some(Record::Site { index, name }))
}

fn decode_sample(kind: u8, fields: &mut Fields) -> Option<Sample> {
    let vantage = fields.u16()?;
    let [address] = fields.take()?;
    let sent_ns = fields.u64()?;
    let outcome = match kind {
        2 => Outcome::Answered { site: fields.u16()?, rtt_ns: fields.u32()? },
        3 => Outcome::Lost,
        4 => Outcome::Refused,
        _ => Outcome::Unsent,
    };
    Some(Sample { vantage, address, sent_ns, outcome })
}

fn decode_late(fields: &mut Fields) -> Option<Span> {
    Some(Span { from_ns: fields.u64()?, until_ns: fields.u64()? })
}

fn decode_quality(fields: &mut Fields) -> Option<Quality> {
    Some(Quality {
        at_ns: fields.u64()?,
        sent: fields.u64()?,
        late_p99_ns: fields.u64()?,
        late_max_ns: fields.u64()?,
        stalls: fields.u64()?,
        dropped: fields.u64()?,
    })
}

/// Bytes not yet taken.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

/// Why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The pipe failed.
    #[error("reading the prober's records: {0}")]
    Io(#[from] io::Error),
    /// It is not a stream of this version.
    #[error("not a stream of prober records of version {VERSION}")]
    Header,
    /// A record of unknown kind.
    #[error("prober record of unknown kind {0}")]
    Kind(u8),
    /// A site name that is too long or not UTF-8.
    #[error("prober record with a bad site name")]
    Site,
}

/// Reads a stream of records, from a pipe or a file.
///
/// [`Reader::read`] blocks for bytes once and gives every whole record that is there; a record cut at the end of the
/// stream (the prober was killed) is dropped.
pub struct Reader<R> {
    source: R,
    /// Bytes read and not yet decoded lie in `buffer[start..end]`.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    header: Option<(u16, u16)>,
}

impl<R: Read> Reader<R> {
    /// A reader at the start of a stream.
    pub fn new(source: R) -> Reader<R> {
        let buffer = vec![0; READ_BYTES + MAX_RECORD_BYTES].into_boxed_slice();
        Reader { source, buffer, start: 0, end: 0, header: None }
    }

    /// How many vantage points and addresses the stream has, once its header was read.
    pub fn dimensions(&self) -> Option<(u16, u16)> {
        self.header
    }

    /// The source, e.g. to poll its descriptor.
    pub fn source(&self) -> &R {
        &self.source
    }

    /// Reads once and calls `each` for every record completed by it; `false` at the end of the stream.
    pub fn read(&mut self, mut each: impl FnMut(Record)) -> Result<bool, ReadError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let length = match self.source.read(&mut self.buffer[self.end..]) {
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(e) => return Err(e.into()),
        };
        if length == 0 {
            return Ok(false);
        }
        self.end += length;
        if self.header.is_none() && !self.read_header()? {
            return Ok(true);
        }
        while let Some((record, length)) = Record::decode(&self.buffer[self.start..self.end])? {
            self.start += length;
            each(record);
        }
        Ok(true)
    }

    /// Takes the stream header; `false`: more bytes are needed.
    fn read_header(&mut self) -> Result<bool, ReadError> {
        if self.end < HEADER_BYTES {
            return Ok(false);
        }
        let mut fields = Fields(&self.buffer[..HEADER_BYTES]);
        let magic = fields.take::<4>();
        let version = fields.u16();
        if magic != Some(MAGIC) || version != Some(VERSION) {
            return Err(ReadError::Header);
        }
        self.header = fields.u16().zip(fields.u16());
        self.start = HEADER_BYTES;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives its bytes in pieces of the sizes stated, then in ones.
    struct Pieces(Vec<u8>, Vec<usize>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let wanted = self.1.pop().unwrap_or(1).max(1);
            let length = wanted.min(self.0.len()).min(buffer.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0.drain(..length);
            Ok(length)
        }
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            (any::<u16>(), any::<u32>()).prop_map(|(site, rtt_ns)| Outcome::Answered { site, rtt_ns }),
            Just(Outcome::Lost),
            Just(Outcome::Refused),
            Just(Outcome::Unsent),
        ]
    }

    fn record() -> impl Strategy<Value = Record> {
        prop_oneof![
            (any::<u16>(), "[a-z]{0,63}").prop_map(|(index, name)| Record::Site { index, name }),
            (any::<u16>(), any::<u8>(), any::<u64>(), outcome()).prop_map(|(vantage, address, sent_ns, outcome)| {
                Record::Sample(Sample { vantage, address, sent_ns, outcome })
            }),
            (any::<u64>(), any::<u64>()).prop_map(|(from_ns, until_ns)| Record::Late(Span { from_ns, until_ns })),
            any::<[u64; 6]>().prop_map(|[at_ns, sent, late_p99_ns, late_max_ns, stalls, dropped]| {
                Record::Quality(Quality { at_ns, sent, late_p99_ns, late_max_ns, stalls, dropped })
            }),
        ]
    }

    fn read_all(source: impl Read) -> Result<Vec<Record>, ReadError> {
        let mut reader = Reader::new(source);
        let mut records = Vec::new();
        while reader.read(|r| records.push(r))? {}
        Ok(records)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(records in proptest::collection::vec(record(), 0..60),
                                   pieces in proptest::collection::vec(1usize..40, 0..80)) {
            let mut bytes = Vec::new();
            encode_header(16, 2, &mut bytes);
            for record in &records {
                record.encode(&mut bytes);
            }
            prop_assert_eq!(read_all(Pieces(bytes, pieces)).unwrap(), records);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), good_header: bool) {
            let mut stream = Vec::new();
            if good_header {
                encode_header(1, 1, &mut stream);
            }
            stream.extend(bytes);
            let _ = read_all(stream.as_slice());
        }
    }

    #[test]
    fn a_cut_record_ends_the_stream_quietly() {
        let mut bytes = Vec::new();
        encode_header(1, 1, &mut bytes);
        let whole = Record::Late(Span { from_ns: 1, until_ns: 2 });
        whole.encode(&mut bytes);
        whole.encode(&mut bytes);
        bytes.truncate(bytes.len() - 1);
        assert_eq!(read_all(bytes.as_slice()).unwrap(), [whole]);
    }

    #[test]
    fn a_foreign_stream_is_refused() {
        assert!(matches!(read_all(&b"HTTP/1.1 200 OK"[..]), Err(ReadError::Header)));
        let mut bytes = Vec::new();
        encode_header(1, 1, &mut bytes);
        bytes.push(99);
        assert!(matches!(read_all(bytes.as_slice()), Err(ReadError::Kind(99))));
    }

    #[test]
    fn a_long_site_name_is_cut_at_a_character() {
        let mut bytes = Vec::new();
        Record::Site { index: 1, name: "é".repeat(60) }.encode(&mut bytes);
        let Ok(Some((Record::Site { name, .. }, length))) = Record::decode(&bytes) else { panic!("no site") };
        assert_eq!((name, length), ("é".repeat(31), bytes.len()));
    }
}
