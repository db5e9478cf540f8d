//! What is written for others and read again: BMP messages, MRT records, the journal.

use ubique_proto::Time;
use ubique_proto::journal::{self, Body, CoreId, Record, Replay};
use ubique_proto::{bmp, mrt};

use crate::rng::feed;

/// A message that is read can be written, and means the same again.
pub(crate) fn bmp(input: &[u8]) {
    if let Ok(Some(length)) = bmp::length(input) {
        assert!((bmp::HEADER_LEN..=bmp::MAX_LENGTH).contains(&length));
    }
    let Ok(message) = bmp::decode(input) else { return };
    let mut out = Vec::new();
    bmp::encode(&message, &mut out);
    assert_eq!(bmp::decode(&out).as_ref(), Ok(&message), "{out:02x?}");
}

/// Records of a file; those that are read can be written, and mean the same again.
pub(crate) fn mrt(mut input: &[u8]) {
    loop {
        let used = match mrt::decode(input) {
            mrt::Parsed::Record(record, used) => {
                let mut out = Vec::new();
                mrt::encode(&record, &mut out);
                let whole = out.len();
                assert_eq!(mrt::decode(&out), mrt::Parsed::Record(record, whole), "{out:02x?}");
                used
            }
            mrt::Parsed::Other(used) => used,
            mrt::Parsed::Incomplete | mrt::Parsed::Malformed => return,
        };
        assert!(used >= mrt::HEADER_LEN && used <= input.len(), "{used} of {}", input.len());
        input = &input[used..];
    }
}

/// Octets: a journal as it stands in a file; or, behind a first octet of 0, inputs to be replayed by fresh cores.
pub(crate) fn journal(input: &[u8]) {
    match input.split_first() {
        Some((0, inputs)) => inputs_replayed(inputs),
        _ => parsed(input),
    }
}

fn parsed(mut input: &[u8]) {
    let mut replay = Replay::default();
    loop {
        let used = match journal::parse(input) {
            journal::Parsed::Record(record, used) => {
                let written = record.encode();
                let again = journal::parse(&written);
                assert_eq!(again, journal::Parsed::Record(record.clone(), written.len()));
                // A snapshot is believed: it is our own file. A configuration is judged when it is read.
                if !matches!(record.body, Body::Anchor { .. }) {
                    let _ = replay.record(*record);
                }
                used
            }
            journal::Parsed::Damaged(used) => used,
            journal::Parsed::Incomplete(_) | journal::Parsed::Nonsense => return,
        };
        assert!(used > 0 && used <= input.len());
        input = &input[used..];
    }
}

/// Whatever an input says, a core takes it.
fn inputs_replayed(octets: &[u8]) {
    let mut rng = feed(octets);
    let mut replay = Replay::default();
    let mut time = Time(1);
    for (core, state) in crate::speaker::configurations() {
        let anchor = Body::Anchor { core, fresh: true, state };
        assert!(replay.record(Record { time, body: anchor }).is_ok(), "a fresh {}", core.name());
    }
    while !rng.is_empty() {
        let core = CoreId::ALL[rng.below(CoreId::ALL.len() as u64) as usize];
        time = Time(time.0 + (1 << rng.below(40)));
        let body = match rng.below(4) {
            0 => Body::Deadline { core, silent: true },
            _ => Body::Input { core, silent: true, input: rng.octets(64) },
        };
        // Outputs that nobody recorded are a difference, after which a core rests until the next anchor.
        let _ = replay.record(Record { time, body });
    }
}
