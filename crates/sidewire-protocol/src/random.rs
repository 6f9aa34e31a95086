//! The only source of randomness. It is seeded by the system, or with a fixed seed by tests that
//! need reproducible runs.

use std::sync::{Mutex, PoisonError};

use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::{Builder, Uuid};

use crate::Epoch;
use crate::clock::Clock;

/// A random number generator that threads may share.
#[derive(Debug)]
pub struct RandomSource(Mutex<StdRng>);

impl RandomSource {
    /// Creates an unpredictable generator.
    ///
    /// # Errors
    ///
    /// If the system provides no random numbers.
    pub fn from_system() -> Result<Self, getrandom::Error> {
        let mut seed = <StdRng as SeedableRng>::Seed::default();
        getrandom::fill(&mut seed)?;
        Ok(Self(Mutex::new(StdRng::from_seed(seed))))
    }

    /// Creates a generator that yields the same numbers for the same seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// Fills the slice with random bytes.
    pub fn fill_bytes(&self, bytes: &mut [u8]) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill_bytes(bytes);
    }

    /// Returns a number below `bound`, or 0 if `bound` is 0. It is close enough to uniform for
    /// spreading delays.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes).checked_rem(bound).unwrap_or(0)
    }

    /// Returns an epoch that no log has had, except with negligible probability.
    #[must_use]
    pub fn new_epoch(&self) -> Epoch {
        let mut bytes = [0; 16];
        self.fill_bytes(&mut bytes);
        Epoch::from_bits(u128::from_le_bytes(bytes))
    }

    /// Returns a UUIDv7 with the clock's time (RFC 9562, 5.7).
    #[must_use]
    pub fn uuid_v7(&self, clock: &Clock) -> Uuid {
        let mut bytes = [0; 10];
        self.fill_bytes(&mut bytes);
        let millis = u64::try_from(clock.since_unix_epoch().as_millis()).unwrap_or(u64::MAX);
        Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (a, b) = (RandomSource::from_seed(7), RandomSource::from_seed(7));
        assert_eq!(
            (a.new_epoch(), a.below(1000), a.new_epoch()),
            (b.new_epoch(), b.below(1000), b.new_epoch())
        );
        assert_ne!(a.new_epoch(), RandomSource::from_seed(8).new_epoch());
    }

    #[test]
    fn a_number_below_zero_is_zero() {
        assert_eq!(RandomSource::from_seed(1).below(0), 0);
    }
}
