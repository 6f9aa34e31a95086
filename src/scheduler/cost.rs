//! What a shard's work costs: one unit, and one table.

use std::{
    ops::{Add, AddAssign, Sub},
    time::Duration,
};

/// An amount of work, in nanoseconds of a core.
///
/// The table holds what was measured on the machine of docs/performance.md. On another
/// machine all of it takes longer or shorter alike, and only the ratios matter: whoever
/// does much waits for whoever does little. What cannot be known before it is done is
/// [measured](Self::measured) and charged afterwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost(u64);

impl Cost {
    /// A call of a backend, or a write to a client: the change of tasks and the system calls,
    /// 5 to 8 µs.
    pub const CALL: Self = Self(6_400);
    /// An event that is read, appended or dropped, beside its topics and bytes.
    pub const EVENT: Self = Self(1_440);
    /// A topic that a connection subscribes to, unsubscribes from or leaves behind: with
    /// 100 connections of 10,000 topics nothing of the index is in the cache.
    pub const SUBSCRIPTION: Self = Self(1_000);
    /// A frame that is taken from a client or queued for one from the log, or an event that
    /// is looked up in the index. A frame that is written takes a quarter of it at the most
    /// and is charged as much: what others have to say waits for few writes of many frames.
    pub const FRAME: Self = Self(480);
    /// A topic of an event that is read, appended or dropped.
    pub const TOPIC: Self = Self(240);
    /// A step of an inner loop: an event is offered to one connection, or held against one
    /// topic in a replay, or a field of an envelope is walked over.
    pub const STEP: Self = Self(30);
    /// A byte of JSON or of a query that is read, or of JSON that is made.
    pub const JSON_BYTE: Self = Self(8);
    /// Any other byte that is read, or of a large write.
    pub const BYTE: Self = Self(1);

    /// The cost of nothing.
    pub const ZERO: Self = Self(0);

    /// What takes so many nanoseconds.
    #[must_use]
    pub const fn nanoseconds(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// What has taken this long.
    #[must_use]
    pub fn measured(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The same, so many times.
    #[must_use]
    pub const fn times(self, count: usize) -> Self {
        // `usize` has at most 64 bits.
        Self(self.0.saturating_mul(count as u64))
    }

    /// How many times this fits into `whole`.
    #[must_use]
    pub fn fits_into(self, whole: Self) -> usize {
        let times = whole.0.checked_div(self.0).unwrap_or(u64::MAX);
        usize::try_from(times).unwrap_or(usize::MAX)
    }

    /// The same as a change of a deficit.
    pub(super) fn as_deficit(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Cost {
    type Output = Self;

    /// What is left, or nothing.
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
