//! A core that writes down what it is told and what it answers.

use std::ops::Deref;

use super::{Body, Core, Hash, Record};
use crate::time::Time;

/// Outputs in one record, octets, before another one is begun: one of them is at most a window long.
const OUTPUTS_MAX: usize = 2 << 20;

/// Where records go. One journal, many cores: each has a clone.
pub trait Sink {
    /// Takes a record made for a segment, or says that it is lost.
    fn write(&self, segment: u64, record: Vec<u8>) -> bool;
    /// Number of the present segment: another one than last time asks for an anchor. `None`: nothing can be written now.
    fn segment(&self) -> Option<u64>;
    /// Keep outputs in full.
    fn full_outputs(&self) -> bool;
    /// Longest snapshot of a core, octets: a segment must have room for what follows it. At most [`super::SNAPSHOT_MAX`].
    fn snapshot_max(&self) -> usize;
}

/// A core, with a journal or without. Its views are the core's.
#[derive(Debug)]
pub struct Recorded<C, S> {
    core: C,
    pen: Option<Pen<S>>,
}

/// What is kept for the next record.
#[derive(Debug)]
struct Pen<S> {
    sink: S,
    /// Segment with this core's anchor; `None`: it needs one.
    anchored: Option<u64>,
    time: Time,
    hash: Hash,
    /// Outputs polled since the last record.
    count: u32,
    outputs: Vec<u8>,
    /// All outputs were polled since the last input.
    drained: bool,
}

impl<C: Core, S: Sink> Recorded<C, S> {
    /// A fresh core; with a sink everything is recorded from the beginning.
    pub fn new(now: Time, config: C::Config, sink: Option<S>) -> Recorded<C, S> {
        let pen = sink.map(|sink| {
            let state = postcard::to_stdvec(&config).unwrap_or_default();
            let anchor = Body::Anchor { core: C::ID, fresh: true, state };
            let anchored = sink.segment().filter(|s| sink.write(*s, Record { time: now, body: anchor }.encode()));
            Pen { sink, anchored, time: now, hash: Hash::default(), count: 0, outputs: Vec::new(), drained: true }
        });
        Recorded { core: C::create(config), pen }
    }

    /// [`Core::handle_input`], written down before.
    pub fn handle_input(&mut self, now: Time, input: C::In) {
        if let Some(pen) = &mut self.pen {
            let encode = || postcard::to_stdvec(&input).unwrap_or_default();
            pen.told(now, &self.core, C::is_urgent(&input), |silent| Body::Input {
                core: C::ID,
                silent,
                input: encode(),
            });
        }
        self.core.handle_input(now, input);
    }

    /// [`Core::handle_deadline`], written down before.
    pub fn handle_deadline(&mut self, now: Time) {
        if let Some(pen) = &mut self.pen {
            pen.told(now, &self.core, false, |silent| Body::Deadline { core: C::ID, silent });
        }
        self.core.handle_deadline(now);
    }

    /// [`Core::poll_output`].
    pub fn poll_output(&mut self) -> Option<C::Out> {
        let output = self.core.poll_output();
        if let Some(pen) = &mut self.pen {
            match &output {
                Some(output) => pen.polled::<C>(output),
                None => pen.flush::<C>(true),
            }
        }
        output
    }
}

impl<C, S> Deref for Recorded<C, S> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.core
    }
}

impl<S: Sink> Pen<S> {
    /// Before an input or deadline.
    fn told<C: Core>(&mut self, now: Time, core: &C, urgent: bool, body: impl FnOnce(bool) -> Body) {
        self.flush::<C>(false);
        let silent = std::mem::take(&mut self.drained);
        let segment = self.sink.segment();
        if self.anchored != segment {
            self.anchored = None;
        }
        let Some(segment) = segment else { return };
        if self.anchored.is_none() {
            // Outputs that wait to be polled are no part of a snapshot.
            if !silent {
                return;
            }
            if urgent {
                for body in [Body::Unanchored { core: C::ID }, body(silent)] {
                    if !self.sink.write(segment, Record { time: now, body }.encode()) {
                        return;
                    }
                }
                return;
            }
            self.anchor(now, core, segment);
        }
        self.time = now;
        // Without an anchor, which may just have been lost, nothing is written: it would be misread.
        self.write(Record { time: now, body: body(silent) });
    }

    fn polled<C: Core>(&mut self, output: &C::Out) {
        if self.anchored.is_none() {
            return;
        }
        let octets = postcard::to_stdvec(output).unwrap_or_default();
        self.hash.add(&octets);
        self.count += 1;
        if self.sink.full_outputs() {
            self.outputs.extend_from_slice(&octets);
            if self.outputs.len() > OUTPUTS_MAX {
                self.flush::<C>(false);
            }
        }
    }

    /// Writes down what was polled since the last record.
    fn flush<C: Core>(&mut self, drained: bool) {
        self.drained |= drained;
        if self.count > 0 {
            let outputs = std::mem::take(&mut self.outputs);
            let count = std::mem::take(&mut self.count);
            let body = Body::Outputs { core: C::ID, drained, count, hash: self.hash.0, outputs };
            self.write(Record { time: self.time, body });
        }
    }

    /// The core's state, where a segment or a gap asks for it.
    fn anchor<C: Core>(&mut self, now: Time, core: &C, segment: u64) {
        self.hash = Hash::default();
        let body = match core.snapshot(self.sink.snapshot_max()) {
            Some(state) => Body::Anchor { core: C::ID, fresh: false, state },
            None => Body::Unanchored { core: C::ID },
        };
        self.anchored = Some(segment);
        self.write(Record { time: now, body });
    }

    fn write(&mut self, record: Record) {
        if let Some(segment) = self.anchored
            && !self.sink.write(segment, record.encode())
        {
            self.anchored = None;
        }
    }
}
