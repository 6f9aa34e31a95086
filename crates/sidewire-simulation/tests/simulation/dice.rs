//! The randomness of a simulation, derived from its seed.

use std::{ops::Range, time::Duration};

use sidewire_protocol::random::RandomSource;

/// The random numbers of one actor. Each actor has its own, so that a change to one does not
/// change the actions of the others.
pub(super) struct Dice(RandomSource);

impl Dice {
    /// Creates the dice of the actor with this number.
    pub(super) fn new(seed: u64, actor: u64) -> Self {
        // An odd factor: different pairs of small numbers have different products.
        Self(RandomSource::from_seed(
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(actor),
        ))
    }

    pub(super) fn below(&self, bound: usize) -> usize {
        usize::try_from(self.0.below(bound as u64)).unwrap()
    }

    pub(super) fn within(&self, range: Range<usize>) -> usize {
        range.start + self.below(range.end - range.start)
    }

    /// Returns true in `percent` of 100 cases.
    pub(super) fn percent(&self, percent: u64) -> bool {
        self.0.below(100) < percent
    }

    pub(super) fn millis(&self, range: Range<usize>) -> Duration {
        Duration::from_millis(self.within(range) as u64)
    }

    pub(super) fn pick<'a, T>(&self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Returns a random index of `weights`, with probabilities proportional to them.
    pub(super) fn weighted(&self, weights: &[usize]) -> usize {
        let mut rest = self.below(weights.iter().sum());
        weights
            .iter()
            .position(|weight| {
                let is_it = rest < *weight;
                rest = rest.saturating_sub(*weight);
                is_it
            })
            .unwrap()
    }
}
