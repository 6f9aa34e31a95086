//! One account of the memory that the process holds for others, by what it is held for.
//! Its sum is bounded by `limits.memory_max`. Knows nothing of what it counts.
//!
//! Clients and backends each have a guaranteed share, and so has the replay window; what
//! is beyond the shares is for whoever comes first. So neither many subscriptions nor many
//! requests can take what the others need. Events are never refused here: what they may
//! take is decided by the logs and by closing connections that hold on to old events.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What memory is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryUse {
    /// Events in logs, inboxes and outboxes, with their JSON.
    Events,
    /// Requests of backends, from the first byte of a body until the answer is made.
    Requests,
    /// Topics that clients are subscribed to.
    Subscriptions,
}

impl MemoryUse {
    /// All uses.
    pub const ALL: [Self; 3] = [Self::Events, Self::Requests, Self::Subscriptions];

    /// The value of the label `use`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Requests => "requests",
            Self::Subscriptions => "subscriptions",
        }
    }

    fn holder(self) -> Holder {
        match self {
            Self::Events => Holder::Events,
            Self::Requests => Holder::Backends,
            Self::Subscriptions => Holder::Clients,
        }
    }
}

/// For whom memory is held. Each has a guaranteed share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Events,
    Backends,
    Clients,
}

const HOLDERS: [Holder; 3] = [Holder::Events, Holder::Backends, Holder::Clients];

/// How the memory is divided, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// The most that may be held in all.
    pub max: u64,
    /// What the replay window may take, which nobody else gets.
    pub window: u64,
}

impl MemoryLimits {
    /// Without a bound.
    pub const UNBOUNDED: Self = Self {
        max: u64::MAX,
        window: 0,
    };

    /// The guaranteed share of clients, and that of backends: a quarter each of what the
    /// replay window leaves.
    #[must_use]
    pub fn share(self) -> u64 {
        self.max.saturating_sub(self.window) / 4
    }
}

/// There is no room for what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the relay is at its memory limit")]
pub struct MemoryExceeded;

/// The account.
#[derive(Debug)]
pub struct MemoryAccount {
    max: AtomicU64,
    window: AtomicU64,
    held: [AtomicU64; MemoryUse::ALL.len()],
}

impl Default for MemoryAccount {
    /// An account without a bound.
    fn default() -> Self {
        Self::new(MemoryLimits::UNBOUNDED)
    }
}

impl MemoryAccount {
    /// An account of which nothing is taken.
    #[must_use]
    pub fn new(limits: MemoryLimits) -> Self {
        Self {
            max: limits.max.into(),
            window: limits.window.into(),
            held: Default::default(),
        }
    }

    /// Changes the bounds. What is held stays.
    pub fn set_limits(&self, limits: MemoryLimits) {
        self.max.store(limits.max, Ordering::Relaxed);
        self.window.store(limits.window, Ordering::Relaxed);
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> MemoryLimits {
        MemoryLimits {
            max: self.max.load(Ordering::Relaxed),
            window: self.window.load(Ordering::Relaxed),
        }
    }

    /// The bytes that are held for this use.
    #[must_use]
    pub fn held(&self, what: MemoryUse) -> u64 {
        self.cell(what).load(Ordering::Relaxed)
    }

    /// Returns true if more is held than may be. Only events can bring that about.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        let held = MemoryUse::ALL.map(|what| self.held(what));
        held.iter().sum::<u64>() > self.max.load(Ordering::Relaxed)
    }

    /// Adds bytes of events, which are held whatever the bounds say.
    pub fn add_events(&self, bytes: usize) {
        self.add(MemoryUse::Events, bytes as u64);
    }

    /// Takes bytes of events off.
    pub fn sub_events(&self, bytes: usize) {
        self.sub(MemoryUse::Events, bytes as u64);
    }

    /// Reserves bytes for a use other than events, until the reservation is dropped.
    ///
    /// # Errors
    ///
    /// When the bytes are neither within the share of their holder nor free.
    pub fn reserve(
        self: &Arc<Self>,
        what: MemoryUse,
        bytes: usize,
    ) -> Result<Reservation, MemoryExceeded> {
        let mut reservation = Reservation {
            account: Arc::clone(self),
            what,
            bytes: 0,
        };
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// Reserves bytes without a guard: the caller gives them back with
    /// [`release`](Self::release).
    ///
    /// # Errors
    ///
    /// As [`reserve`](Self::reserve).
    pub fn try_hold(&self, what: MemoryUse, bytes: usize) -> Result<(), MemoryExceeded> {
        let bytes = bytes as u64;
        // Counted first and judged then: of two that ask at once neither sees the other's
        // bytes as free.
        self.add(what, bytes);
        if self.has_room(what.holder()) {
            return Ok(());
        }
        self.sub(what, bytes);
        Err(MemoryExceeded)
    }

    /// Gives bytes back.
    pub fn release(&self, what: MemoryUse, bytes: usize) {
        self.sub(what, bytes as u64);
    }

    /// Returns true if what the holder has is within its share, or everything together
    /// leaves the others their shares.
    fn has_room(&self, holder: Holder) -> bool {
        let limits = self.limits();
        if self.held_by(holder) <= Self::guarantee(limits, holder) {
            return true;
        }
        let mut taken = self.held_by(holder);
        for other in HOLDERS.into_iter().filter(|other| *other != holder) {
            let reserved = self.held_by(other).max(Self::guarantee(limits, other));
            taken = taken.saturating_add(reserved);
        }
        taken <= limits.max
    }

    fn guarantee(limits: MemoryLimits, holder: Holder) -> u64 {
        match holder {
            Holder::Events => limits.window,
            Holder::Backends | Holder::Clients => limits.share(),
        }
    }

    fn held_by(&self, holder: Holder) -> u64 {
        let uses = MemoryUse::ALL.into_iter();
        uses.filter(|what| what.holder() == holder)
            .map(|what| self.held(what))
            .sum()
    }

    fn cell(&self, what: MemoryUse) -> &AtomicU64 {
        let [events, requests, subscriptions] = &self.held;
        match what {
            MemoryUse::Events => events,
            MemoryUse::Requests => requests,
            MemoryUse::Subscriptions => subscriptions,
        }
    }

    fn add(&self, what: MemoryUse, bytes: u64) {
        self.cell(what).fetch_add(bytes, Ordering::Relaxed);
    }

    fn sub(&self, what: MemoryUse, bytes: u64) {
        self.cell(what).fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    account: Arc<MemoryAccount>,
    what: MemoryUse,
    bytes: usize,
}

impl Reservation {
    /// Holds more bytes.
    ///
    /// # Errors
    ///
    /// When there is no room for them; what was held before stays held.
    pub fn grow(&mut self, bytes: usize) -> Result<(), MemoryExceeded> {
        self.account.try_hold(self.what, bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// The bytes that are held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.account.release(self.what, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: MemoryLimits = MemoryLimits {
        max: 1000,
        window: 200,
    };

    fn account() -> Arc<MemoryAccount> {
        Arc::new(MemoryAccount::new(LIMITS))
    }

    #[test]
    fn each_holder_gets_its_share_and_what_the_others_are_not_promised() {
        for (mine, others) in [
            (MemoryUse::Requests, MemoryUse::Subscriptions),
            (MemoryUse::Subscriptions, MemoryUse::Requests),
        ] {
            let account = account();
            // 1,000 without the window's 200 and the other's share of 200.
            let all = account.reserve(mine, 600).unwrap();
            assert_eq!(account.reserve(mine, 1).unwrap_err(), MemoryExceeded);
            assert_eq!(all.bytes(), 600);
            let share = account.reserve(others, 200).unwrap();
            assert!(account.reserve(others, 1).is_err());
            drop((all, share));
            assert_eq!(account.held(mine) + account.held(others), 0);
        }
    }

    #[test]
    fn a_share_stays_guaranteed_while_events_take_all_the_rest() {
        let account = account();
        account.add_events(5_000);
        assert!(account.is_exceeded());
        let share = account.reserve(MemoryUse::Subscriptions, 200).unwrap();
        assert!(account.reserve(MemoryUse::Subscriptions, 1).is_err());
        drop(share);
        account.sub_events(5_000);
        assert!(!account.is_exceeded());
    }

    #[test]
    fn a_reservation_that_cannot_grow_keeps_what_it_has() {
        let account = account();
        let mut request = account.reserve(MemoryUse::Requests, 500).unwrap();
        assert!(request.grow(101).is_err());
        assert!(request.grow(100).is_ok());
        assert_eq!(account.held(MemoryUse::Requests), 600);
        drop(request);
        assert_eq!(account.held(MemoryUse::Requests), 0);
    }

    proptest! {
        #[test]
        fn without_events_beyond_the_window_the_sum_stays_within_the_bound(
            asked in proptest::collection::vec((1_usize..3, 0_usize..400), 1..40),
            events in 0_usize..=200,
        ) {
            let account = account();
            account.add_events(events);
            let mut held: Vec<Reservation> = Vec::new();
            for (what, bytes) in asked {
                let holder = MemoryUse::ALL[what].holder();
                let before = account.held_by(holder);
                match account.reserve(MemoryUse::ALL[what], bytes) {
                    Ok(reservation) => held.push(reservation),
                    Err(MemoryExceeded) => {
                        prop_assert_eq!(account.held_by(holder), before);
                        prop_assert!(before + bytes as u64 > LIMITS.share());
                        if held.len() > 3 {
                            held.remove(0);
                        }
                    }
                }
                prop_assert!(!account.is_exceeded());
            }
            drop(held);
            account.sub_events(events);
            prop_assert!(MemoryUse::ALL.iter().all(|what| account.held(*what) == 0));
        }
    }
}
