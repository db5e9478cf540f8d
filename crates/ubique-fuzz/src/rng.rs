//! Choices from the octets of an input.
//!
//! It has the interface of `ubique_proto::rng::Rng`, whose place it takes in the modules shared with that crate's
//! tests. All generators of a run read the same octets; when these are used up, a seeded one goes on, so that a short
//! input is as valid as a long one and everything stays a function of the input.

use std::cell::RefCell;

thread_local! {
    static INPUT: RefCell<Input> = const { RefCell::new(Input { octets: Vec::new(), at: 0 }) };
}

struct Input {
    octets: Vec<u8>,
    at: usize,
}

impl Input {
    fn next(&mut self) -> Option<u8> {
        let octet = self.octets.get(self.at).copied()?;
        self.at += 1;
        Some(octet)
    }
}

/// Makes `input` what every generator of this thread reads.
pub(crate) fn feed(input: &[u8]) -> Rng {
    INPUT.set(Input { octets: input.to_vec(), at: 0 });
    Rng::new(0)
}

/// See the module's header.
#[derive(Clone, Debug)]
pub(crate) struct Rng(ubique_proto::rng::Rng);

impl Rng {
    /// `seed` decides what comes after the octets.
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(ubique_proto::rng::Rng::new(seed))
    }

    /// Whether any octet is left.
    pub(crate) fn is_empty(&self) -> bool {
        INPUT.with_borrow(|input| input.at == input.octets.len())
    }

    /// Eight octets.
    pub(crate) fn next_u64(&mut self) -> u64 {
        let octets = INPUT.with_borrow_mut(|input| {
            let mut octets = [0; 8];
            for octet in &mut octets {
                *octet = input.next()?;
            }
            Some(u64::from_le_bytes(octets))
        });
        octets.unwrap_or_else(|| self.0.next_u64())
    }

    /// In [0, 1), from one octet.
    pub(crate) fn next_f64(&mut self) -> f64 {
        self.below(256) as f64 / 256.0
    }

    /// In `0..bound`, 0 when `bound` is 0: one octet as long as that suffices.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let width = if bound <= 1 << 8 {
            1
        } else if bound <= 1 << 16 {
            2
        } else {
            8
        };
        let number = INPUT.with_borrow_mut(|input| {
            (0..width).try_fold(0u64, |number, _| Some(number << 8 | u64::from(input.next()?)))
        });
        number.map_or_else(|| self.0.below(bound), |number| number.checked_rem(bound).unwrap_or(0))
    }

    /// One octet.
    pub(crate) fn octet(&mut self) -> u8 {
        self.below(256) as u8
    }

    /// True in one of `n` cases.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A length of at most `most`, then so many octets of what is left.
    pub(crate) fn octets(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most as u64 + 1) as usize;
        INPUT.with_borrow_mut(|input| (0..length).map_while(|_| input.next()).collect())
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        INPUT.with_borrow_mut(|input| std::iter::from_fn(|| input.next()).collect())
    }
}
