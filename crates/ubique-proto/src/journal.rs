//! The journal: every input of every core with its time, so that any incident can be run again.
//!
//! [`Recorded`] wraps a core: it writes each input *before* the core sees it, and after the outputs were polled a running
//! hash of them. [`Replay`] runs the records through fresh cores and says at which record they answer otherwise.
//!
//! A journal is a file of records after [`MAGIC`]; [`parse`] reads one. Each record stands alone:
//!
//! ```text
//! length u32 · CRC-32 u32 · kind u8 · core u8 · flags u8 · time u64 ns · body          integers little-endian
//! ```
//!
//! The body is in the postcard format: small, documented, and stable since its 1.0. An *anchor* gives a core's state: its
//! configuration when it is fresh, else a snapshot. A core is anchored again at its first input after the [`Sink`] has
//! started a new segment or lost a record, so that every segment replays by itself; an input that must not wait for a
//! snapshot is written down without, to be read only, and the next one has it. A snapshot longer than
//! [`Sink::snapshot_max`] is not taken: the records that follow are written without an anchor, to be read, not replayed,
//! and the next segment tries again.
//!
//! Cores hear of each other through inputs alone, so each one replays by itself.
//!
//! Deliberately absent: files, rotation, threads (`ubique-node`), and secrets: keys of sessions are the transport's, no
//! core ever sees one.

mod cores;
mod recorded;
mod replay;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use cores::{Input, Output};
pub use recorded::{Recorded, Sink};
pub use replay::{Difference, Entry, Event, Replay};

use crate::time::Time;

/// What a journal begins with; the last octet is the version of the format. Version 2 has cores that 1 did not know.
pub const MAGIC: [u8; 8] = *b"ubiquej\x02";

/// Versions of the format that are read.
const VERSIONS: RangeInclusive<u8> = 1..=2;

/// Whether a journal that is read here begins with these octets.
pub fn is_magic(octets: &[u8; MAGIC.len()]) -> bool {
    octets[..7] == MAGIC[..7] && VERSIONS.contains(&octets[7])
}

/// Longest record, octets, without length and CRC: a snapshot and its header. More is not a journal.
pub const RECORD_MAX: usize = SNAPSHOT_MAX + 1024;

/// Longest snapshot, octets. Writing one holds up the thread of its core, never an urgent input: at this length some 30 ms.
pub const SNAPSHOT_MAX: usize = 8 << 20;

/// Octets before the body: kind, core, flags, time.
const HEAD: usize = 11;

/// Octets before that: length and CRC.
const FRAME: usize = 8;

/// A core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CoreId {
    /// [`crate::bgp::speaker::Speaker`].
    Bgp,
    /// [`crate::health::Health`].
    Health,
    /// [`crate::site::Site`].
    Site,
    /// [`crate::bfd::Bfd`].
    Bfd,
    /// [`crate::actions::Actions`].
    Actions,
    /// [`crate::actions::drain::Drain`].
    Drain,
}

impl CoreId {
    /// All of them, in the order of their numbers in a record.
    pub const ALL: [CoreId; 6] =
        [CoreId::Bgp, CoreId::Health, CoreId::Site, CoreId::Bfd, CoreId::Actions, CoreId::Drain];

    /// Its name, as `ubique replay` spells it.
    pub fn name(self) -> &'static str {
        match self {
            CoreId::Bgp => "bgp",
            CoreId::Health => "health",
            CoreId::Site => "site",
            CoreId::Bfd => "bfd",
            CoreId::Actions => "actions",
            CoreId::Drain => "drain",
        }
    }
}

/// The shape of every core, as far as it is recorded and replayed.
pub trait Core: Sized {
    /// Which one it is.
    const ID: CoreId;
    /// What it is made from.
    type Config: Serialize + DeserializeOwned;
    /// Its inputs.
    type In: Clone + Serialize + DeserializeOwned + Into<Input>;
    /// Its outputs.
    type Out: Serialize + DeserializeOwned + Into<Output>;

    /// A fresh one.
    fn create(config: Self::Config) -> Self;
    /// Its state, when that can be kept in at most so many octets. Outputs that wait to be polled are no part of it.
    fn snapshot(&self, limit: usize) -> Option<Vec<u8>>;
    /// From a snapshot; `None`: that is not one of this version.
    fn restore(snapshot: &[u8]) -> Option<Self>;
    /// Takes one input.
    fn handle_input(&mut self, now: Time, input: Self::In);
    /// Runs the timers that are due.
    fn handle_deadline(&mut self, now: Time);
    /// The core must see it at once: it does not wait for a snapshot.
    fn is_urgent(input: &Self::In) -> bool;
    /// When to call [`Core::handle_deadline`].
    fn next_deadline(&self) -> Option<Time>;
    /// What to do next.
    fn poll_output(&mut self) -> Option<Self::Out>;
}

/// What a segment begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Version of the program that writes.
    pub version: String,
    /// The service.
    pub service: String,
    /// The site.
    pub site: String,
    /// Wall-clock time at the time of this record, ns since 1970.
    pub wall_ns: u64,
    /// Number of this segment since the agent began.
    pub number: u64,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, as the cores see time.
    pub time: Time,
    /// What.
    pub body: Body,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A segment begins.
    Segment(Segment),
    /// The state of a core at this point.
    Anchor {
        /// Which.
        core: CoreId,
        /// `state` is its configuration, not a snapshot.
        fresh: bool,
        /// The state.
        state: Vec<u8>,
    },
    /// The state of a core was too long to keep, or records were lost and it cannot be kept: what follows of this core
    /// cannot be replayed.
    Unanchored {
        /// Which.
        core: CoreId,
    },
    /// An input.
    Input {
        /// Of which core.
        core: CoreId,
        /// The outputs to what came before were all polled, and there were none.
        silent: bool,
        /// The input.
        input: Vec<u8>,
    },
    /// A deadline.
    Deadline {
        /// Of which core.
        core: CoreId,
        /// As for [`Body::Input`].
        silent: bool,
    },
    /// What was polled since the record of this core before.
    Outputs {
        /// Of which core.
        core: CoreId,
        /// Nothing was left to poll.
        drained: bool,
        /// How many.
        count: u32,
        /// Running hash since the anchor, these included.
        hash: u64,
        /// All of them, one after another, when outputs are kept in full; else empty.
        outputs: Vec<u8>,
    },
}

/// Kinds of records.
mod kind {
    pub(super) const SEGMENT: u8 = 1;
    pub(super) const ANCHOR: u8 = 2;
    pub(super) const UNANCHORED: u8 = 3;
    pub(super) const INPUT: u8 = 4;
    pub(super) const DEADLINE: u8 = 5;
    pub(super) const OUTPUTS: u8 = 6;
}

/// The one flag of a record: fresh, silent or drained.
const FLAG: u8 = 1;

impl Record {
    /// The record as it stands in a journal.
    pub fn encode(&self) -> Vec<u8> {
        match &self.body {
            Body::Segment(segment) => {
                let body = postcard::to_stdvec(segment).unwrap_or_default();
                frame(kind::SEGMENT, 0, false, self.time, &[&body])
            }
            Body::Anchor { core, fresh, state } => frame(kind::ANCHOR, *core as u8, *fresh, self.time, &[state]),
            Body::Unanchored { core } => frame(kind::UNANCHORED, *core as u8, false, self.time, &[]),
            Body::Input { core, silent, input } => frame(kind::INPUT, *core as u8, *silent, self.time, &[input]),
            Body::Deadline { core, silent } => frame(kind::DEADLINE, *core as u8, *silent, self.time, &[]),
            Body::Outputs { core, drained, count, hash, outputs } => {
                let parts: [&[u8]; 3] = [&count.to_le_bytes(), &hash.to_le_bytes(), outputs];
                frame(kind::OUTPUTS, *core as u8, *drained, self.time, &parts)
            }
        }
    }

    fn decode(payload: &[u8]) -> Option<Record> {
        let (&[kind, core], rest) = payload.split_first_chunk()?;
        let (&[flags], rest) = rest.split_first_chunk()?;
        let (time, body) = rest.split_first_chunk()?;
        let time = Time(u64::from_le_bytes(*time));
        let flag = flags & FLAG != 0;
        let core = || CoreId::ALL.get(usize::from(core)).copied();
        let body = match kind {
            kind::SEGMENT => Body::Segment(postcard::from_bytes(body).ok()?),
            kind::ANCHOR => Body::Anchor { core: core()?, fresh: flag, state: body.to_vec() },
            kind::UNANCHORED => Body::Unanchored { core: core()? },
            kind::INPUT => Body::Input { core: core()?, silent: flag, input: body.to_vec() },
            kind::DEADLINE => Body::Deadline { core: core()?, silent: flag },
            kind::OUTPUTS => {
                let (count, rest) = body.split_first_chunk()?;
                let (hash, outputs) = rest.split_first_chunk()?;
                let (count, hash) = (u32::from_le_bytes(*count), u64::from_le_bytes(*hash));
                Body::Outputs { core: core()?, drained: flag, count, hash, outputs: outputs.to_vec() }
            }
            _ => return None,
        };
        Some(Record { time, body })
    }
}

fn frame(kind: u8, core: u8, flag: bool, time: Time, parts: &[&[u8]]) -> Vec<u8> {
    let length = HEAD + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut record = Vec::with_capacity(FRAME + length);
    record.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    record.extend_from_slice(&[0; 4]);
    record.extend_from_slice(&[kind, core, u8::from(flag)]);
    record.extend_from_slice(&time.0.to_le_bytes());
    parts.iter().for_each(|part| record.extend_from_slice(part));
    let crc = crc32fast::hash(&record[FRAME..]);
    record[4..FRAME].copy_from_slice(&crc.to_le_bytes());
    record
}

/// What stands at the beginning of some octets of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A record, and how many octets it takes.
    Record(Box<Record>, usize),
    /// More octets are needed: at least so many in all. At the end of a file: the last record was cut off by a crash.
    Incomplete(usize),
    /// A record of so many octets whose CRC or contents are wrong.
    Damaged(usize),
    /// No record of this format has that length.
    Nonsense,
}

/// Reads the record at the beginning of `octets`, which follow [`MAGIC`] or another record.
pub fn parse(octets: &[u8]) -> Parsed {
    let Some((length, rest)) = octets.split_first_chunk() else {
        return Parsed::Incomplete(FRAME);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if !(HEAD..=RECORD_MAX).contains(&length) {
        return Parsed::Nonsense;
    }
    let Some((crc, payload)) = rest.split_first_chunk() else {
        return Parsed::Incomplete(FRAME);
    };
    let Some(payload) = payload.get(..length) else {
        return Parsed::Incomplete(FRAME + length);
    };
    let sound = crc32fast::hash(payload) == u32::from_le_bytes(*crc);
    match sound.then(|| Record::decode(payload)).flatten() {
        Some(record) => Parsed::Record(Box::new(record), FRAME + length),
        None => Parsed::Damaged(FRAME + length),
    }
}

/// A running hash of outputs, for equality: eight octets at a time, multiply and rotate. No defence against somebody who
/// looks for two outputs of equal hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hash(u64);

impl Hash {
    fn add(&mut self, octets: &[u8]) {
        let (words, rest) = octets.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
        self.word(octets.len() as u64);
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
