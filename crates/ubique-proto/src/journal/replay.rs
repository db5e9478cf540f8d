//! Records → cores → the same outputs, or the record where they differ.

use serde::Serialize;

use super::{Body, Core, CoreId, Hash, Input, Output, Record, Segment};
use crate::actions::Actions;
use crate::actions::drain::Drain;
use crate::bfd::Bfd;
use crate::bgp::speaker::Speaker;
use crate::health::Health;
use crate::site::Site;
use crate::time::Time;

/// What a record was, and how the replay compares with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Number of the record, from 1.
    pub number: u64,
    /// Its time.
    pub time: Time,
    /// What it says.
    pub event: Event,
    /// The replay does not do what the record says.
    pub difference: Option<Difference>,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A segment begins.
    Segment(Segment),
    /// A core is set to a recorded state.
    Anchor {
        /// Which.
        core: CoreId,
        /// It is fresh.
        fresh: bool,
    },
    /// What follows of a core cannot be replayed until its next anchor.
    Unanchored {
        /// Which.
        core: CoreId,
    },
    /// An input.
    Input(Input),
    /// A deadline.
    Deadline {
        /// Of which core.
        core: CoreId,
    },
    /// Outputs: those of the replay; of a core that is not replayed, those of the journal when it has them.
    Outputs {
        /// Of which core.
        core: CoreId,
        /// How many the journal has.
        count: u32,
        /// They.
        outputs: Vec<Output>,
    },
}

impl Event {
    /// The core it is about.
    pub fn core(&self) -> Option<CoreId> {
        match self {
            Event::Segment(_) => None,
            Event::Anchor { core, .. }
            | Event::Unanchored { core }
            | Event::Deadline { core }
            | Event::Outputs { core, .. } => Some(*core),
            Event::Input(input) => Some(input.core()),
        }
    }
}

/// The replay answers otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Which core.
    pub core: CoreId,
    /// The record of the input or deadline it is the answer to.
    pub record: u64,
    /// That input; `None`: a deadline.
    pub input: Option<Input>,
    /// How many outputs the journal has.
    pub expected_count: u32,
    /// They, when the journal keeps outputs in full.
    pub expected: Option<Vec<Output>>,
    /// Outputs of the replay.
    pub got: Vec<Output>,
}

/// A record that is sound but says nothing this version understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {number}: {what} of the core {} is not of this version", core.name())]
pub struct Foreign {
    /// Number of the record.
    pub number: u64,
    /// Of which core.
    pub core: CoreId,
    /// What cannot be read.
    pub what: &'static str,
}

/// Runs records through cores.
#[derive(Default)]
pub struct Replay {
    number: u64,
    speaker: Run<Speaker>,
    health: Run<Health>,
    site: Run<Site>,
    bfd: Run<Bfd>,
    actions: Run<Actions>,
    drain: Run<Drain>,
}

impl Replay {
    /// The speaker as far as it is replayed; `None`: it has no anchor, or has gone astray.
    pub fn speaker(&self) -> Option<&Speaker> {
        self.speaker.core.as_ref()
    }

    /// Takes the next record. After a difference the core it is about is not replayed until its next anchor.
    ///
    /// # Errors
    /// The record is of another version of the program.
    pub fn record(&mut self, record: Record) -> Result<Entry, Foreign> {
        self.number += 1;
        let (number, time) = (self.number, record.time);
        let core = match &record.body {
            Body::Segment(segment) => {
                return Ok(Entry { number, time, event: Event::Segment(segment.clone()), difference: None });
            }
            Body::Anchor { core, .. }
            | Body::Unanchored { core }
            | Body::Input { core, .. }
            | Body::Deadline { core, .. }
            | Body::Outputs { core, .. } => *core,
        };
        let done = match core {
            CoreId::Bgp => self.speaker.record(number, record),
            CoreId::Health => self.health.record(number, record),
            CoreId::Site => self.site.record(number, record),
            CoreId::Bfd => self.bfd.record(number, record),
            CoreId::Actions => self.actions.record(number, record),
            CoreId::Drain => self.drain.record(number, record),
        };
        let (event, difference) = done.map_err(|what| Foreign { number, core, what })?;
        Ok(Entry { number, time, event, difference })
    }

    /// Whether every core that has records has been replayed from the first of them to the last.
    pub fn complete(&self) -> bool {
        let edge = self.speaker.skipped || self.health.skipped || self.site.skipped || self.bfd.skipped;
        !(edge || self.actions.skipped || self.drain.skipped)
    }
}

/// One core in a replay.
struct Run<C> {
    /// `None`: there is no anchor, or it has gone astray.
    core: Option<C>,
    hash: Hash,
    /// The record outputs are the answer to.
    asked: u64,
    input: Option<Input>,
    /// Some of its records could not be replayed.
    skipped: bool,
}

impl<C> Default for Run<C> {
    fn default() -> Run<C> {
        Run { core: None, hash: Hash::default(), asked: 0, input: None, skipped: false }
    }
}

type Done = Result<(Event, Option<Difference>), &'static str>;

impl<C: Core> Run<C> {
    fn record(&mut self, number: u64, record: Record) -> Done {
        match record.body {
            Body::Anchor { fresh, state, .. } => {
                self.core = Some(if fresh {
                    C::create(postcard::from_bytes(&state).map_err(|_| "the configuration")?)
                } else {
                    C::restore(&state).ok_or("the snapshot")?
                });
                self.hash = Hash::default();
                Ok((Event::Anchor { core: C::ID, fresh }, None))
            }
            Body::Input { silent, input, .. } => {
                let input: C::In = postcard::from_bytes(&input).map_err(|_| "an input")?;
                let difference = self.told(number, silent, Some(input.clone().into()));
                if let Some(core) = &mut self.core {
                    core.handle_input(record.time, input.clone());
                }
                Ok((Event::Input(input.into()), difference))
            }
            Body::Deadline { silent, .. } => {
                let difference = self.told(number, silent, None);
                if let Some(core) = &mut self.core {
                    core.handle_deadline(record.time);
                }
                Ok((Event::Deadline { core: C::ID }, difference))
            }
            Body::Outputs { drained, count, hash, outputs, .. } => self.outputs(drained, count, hash, &outputs),
            // A segment is no core's.
            Body::Unanchored { .. } | Body::Segment(_) => {
                self.core = None;
                self.skipped = true;
                Ok((Event::Unanchored { core: C::ID }, None))
            }
        }
    }

    /// Before an input or deadline: what came before may have answers nobody recorded.
    fn told(&mut self, number: u64, silent: bool, input: Option<Input>) -> Option<Difference> {
        self.skipped |= self.core.is_none();
        let surplus = if silent { self.rest() } else { vec![] };
        let difference = (!surplus.is_empty()).then(|| self.astray(0, Some(vec![]), surplus));
        self.asked = number;
        self.input = input;
        difference
    }

    fn rest(&mut self) -> Vec<Output> {
        let core = self.core.as_mut();
        core.map(|core| std::iter::from_fn(|| core.poll_output()).map(Into::into).collect()).unwrap_or_default()
    }

    fn outputs(&mut self, drained: bool, count: u32, hash: u64, recorded: &[u8]) -> Done {
        let recorded = read_outputs::<C>(count, recorded)?;
        let Some(core) = &mut self.core else {
            let outputs = recorded.unwrap_or_default();
            return Ok((Event::Outputs { core: C::ID, count, outputs }, None));
        };
        let mut got = Vec::new();
        for output in std::iter::from_fn(|| core.poll_output()).take(count as usize) {
            self.hash.add(&postcard::to_stdvec(&output).map_err(|_| "an output")?);
            got.push(output.into());
        }
        let same = got.len() == count as usize && self.hash.0 == hash;
        let surplus = if drained { self.rest() } else { vec![] };
        let event = Event::Outputs { core: C::ID, count, outputs: got.clone() };
        let wrong = !same || !surplus.is_empty();
        got.extend(surplus);
        Ok((event, wrong.then(|| self.astray(count, recorded, got))))
    }

    fn astray(&mut self, expected_count: u32, expected: Option<Vec<Output>>, got: Vec<Output>) -> Difference {
        self.core = None;
        self.skipped = true;
        Difference { core: C::ID, record: self.asked, input: self.input.take(), expected_count, expected, got }
    }
}

/// Outputs kept in full; `None`: only their hash was kept.
fn read_outputs<C: Core>(count: u32, mut octets: &[u8]) -> Result<Option<Vec<Output>>, &'static str> {
    if octets.is_empty() {
        return Ok(None);
    }
    let mut outputs = Vec::new();
    for _ in 0..count {
        let (output, rest) = postcard::take_from_bytes::<C::Out>(octets).map_err(|_| "an output")?;
        outputs.push(output.into());
        octets = rest;
    }
    Ok(Some(outputs))
}
