//! The cost of a shard's work, in one unit and one table.

use std::{
    ops::{Add, AddAssign, Sub},
    time::Duration,
};

/// An amount of work, in nanoseconds of a core.
///
/// The table holds times measured on the machine of docs/performance.md. Other machines are
/// faster or slower for all of it alike, and only the ratios matter: heavy users wait for light
/// ones. A cost that cannot be known in advance is [measured](Self::from_duration) and charged
/// afterwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost(u64);

impl Cost {
    /// A call of a backend, or a write to a client: the switch between tasks and the system
    /// calls, 5 to 8 µs.
    pub const CALL: Self = Self(6_400);
    /// An event that is read, appended or dropped, not counting its topics and bytes.
    pub const EVENT: Self = Self(1_440);
    /// A topic that a connection subscribes to, unsubscribes from or leaves behind when it
    /// closes: with 100 connections of 10,000 topics each, nothing of the index is in the CPU
    /// cache.
    pub const SUBSCRIPTION: Self = Self(1_000);
    /// A frame that is read from a client or queued for one from the log, or an event that is
    /// looked up in the index. A frame that is written costs at most a quarter of it but is
    /// charged in full, so that other flows do not wait for many writes of many frames.
    pub const FRAME: Self = Self(480);
    /// A topic of an event that is read, appended or dropped.
    pub const TOPIC: Self = Self(240);
    /// A field of an event whose JSON is checked before the event is accepted. Measured with
    /// ordinary events; the worst, an empty list in a google.protobuf.Value, has two fields and
    /// takes up to 0.9 µs.
    pub const CHECKED_FIELD: Self = Self(210);
    /// A step of an inner loop: offering an event to one connection, comparing it with one topic
    /// in a replay, or walking over a field or a packed value of an envelope.
    pub const STEP: Self = Self(30);
    /// A byte of JSON or of a query that is read, or of JSON that is written.
    pub const JSON_BYTE: Self = Self(8);
    /// Any other byte that is read, or of a large write.
    pub const BYTE: Self = Self(1);

    /// No cost.
    pub const ZERO: Self = Self(0);

    /// Returns the cost of work that takes this many nanoseconds.
    #[must_use]
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Returns the cost of work that took this long.
    #[must_use]
    pub fn from_duration(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Returns `count` times this cost.
    #[must_use]
    pub const fn times(self, count: usize) -> Self {
        // `usize` has at most 64 bits.
        Self(self.0.saturating_mul(count as u64))
    }

    /// Returns how many times this cost fits into `whole`.
    #[must_use]
    pub fn fits_into(self, whole: Self) -> usize {
        let times = whole.0.checked_div(self.0).unwrap_or(u64::MAX);
        usize::try_from(times).unwrap_or(usize::MAX)
    }

    /// Returns this cost as a change of a deficit.
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

    /// Returns the difference, or zero if `other` is larger.
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
