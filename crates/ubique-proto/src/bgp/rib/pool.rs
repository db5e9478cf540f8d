//! Interned attributes of what is sent: equal ones are stored once, however many prefixes and neighbours share them.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use crate::bgp::attributes::Attributes;

/// Entries below which no sweep is worth its time.
const SWEEP_FLOOR: usize = 32;

/// The set of attributes in use. Dead entries are swept when the set has doubled since the last sweep.
#[derive(Debug, Default)]
pub(super) struct Pool {
    // Fixed keys: a core draws no randomness of its own.
    set: HashSet<Arc<Attributes>, BuildHasherDefault<DefaultHasher>>,
    sweep_at: usize,
}

impl Pool {
    /// The stored equal of attributes just computed.
    pub(super) fn intern(&mut self, attributes: Attributes) -> Arc<Attributes> {
        match self.set.get(&attributes) {
            Some(known) => Arc::clone(known),
            None => self.insert(Arc::new(attributes)),
        }
    }

    fn insert(&mut self, attributes: Arc<Attributes>) -> Arc<Attributes> {
        if self.set.len() >= self.sweep_at.max(SWEEP_FLOOR) {
            self.set.retain(|a| Arc::strong_count(a) > 1);
            self.set.shrink_to(self.set.len() * 2);
            self.sweep_at = self.set.len() * 2;
        }
        self.set.insert(Arc::clone(&attributes));
        attributes
    }

    /// Distinct attributes stored, swept or not.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }
}
