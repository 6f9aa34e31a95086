//! The account of the memory that the process holds for clients and backends, by use. Its
//! sum is bounded by `limits.memory_max`. Knows nothing about the things it counts.
//!
//! Each [use](MemoryUse) belongs to a holder, and each holder has a guaranteed share that
//! no other holder can take: the replay window for events, a quarter each for subscriptions,
//! presence and authorization of clients and for requests of backends, and a sixteenth each for connections of
//! backends, for begun messages, for decoding and for connections of clients. Memory beyond
//! the shares is first come, first served. Events are never refused here: the logs bound
//! them, and connections that hold on to old events are closed.

mod shares;
mod waiting;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use shares::MemoryHolder;
pub use shares::{BODY_COPIES, BODY_GROWTH_BYTES, MemoryLimits, MemoryUse, REQUEST_BYTES};
pub(crate) use waiting::run_with_memory;

/// A request that takes more bytes is a [large](MemoryLimits::large_requests) one.
const SMALL_REQUEST_BYTES: usize = 128 * 1024;

/// A reservation would exceed the memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the relay is at its memory limit")]
pub struct MemoryExceeded;

/// The memory held by the process, by use, with its bounds.
#[derive(Debug)]
pub struct MemoryAccount {
    max: AtomicU64,
    window: AtomicU64,
    held: [AtomicU64; MemoryUse::ALL.len()],
}

impl Default for MemoryAccount {
    /// Creates an account without a bound.
    fn default() -> Self {
        Self::new(MemoryLimits::UNBOUNDED)
    }
}

impl MemoryAccount {
    /// Creates an account with nothing held.
    #[must_use]
    pub fn new(limits: MemoryLimits) -> Self {
        Self {
            max: limits.max.into(),
            window: limits.window.into(),
            held: Default::default(),
        }
    }

    /// Changes the bounds. Memory already held stays held.
    pub fn set_limits(&self, limits: MemoryLimits) {
        self.max.store(limits.max, Ordering::Relaxed);
        self.window.store(limits.window, Ordering::Relaxed);
    }

    /// Returns the bounds.
    #[must_use]
    pub fn limits(&self) -> MemoryLimits {
        MemoryLimits {
            max: self.max.load(Ordering::Relaxed),
            window: self.window.load(Ordering::Relaxed),
        }
    }

    /// Returns the number of bytes held for this use.
    #[must_use]
    pub fn held_bytes(&self, what: MemoryUse) -> u64 {
        self.use_counter(what).load(Ordering::Relaxed)
    }

    /// Returns true if more than the maximum is held. Only events, or lowering the bound, can
    /// cause that.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        let held = MemoryUse::ALL.map(|what| self.held_bytes(what));
        held.iter().sum::<u64>() > self.max.load(Ordering::Relaxed)
    }

    /// Returns true if the holder of this use has more than its share while the holders
    /// together leave no room for the replay window. Only lowering the bound can cause that,
    /// since a reservation beyond a share is granted only if there is room for it.
    #[must_use]
    pub fn is_overdrawn(&self, what: MemoryUse) -> bool {
        let (limits, holder) = (self.limits(), what.holder());
        let taken = self.committed_bytes(limits, |other| other == MemoryHolder::Events);
        self.held_by(holder) > holder.guaranteed_bytes(limits) && taken > limits.max
    }

    /// Adds bytes of events, regardless of the bounds.
    pub fn add_events(&self, bytes: usize) {
        self.add_held(MemoryUse::Events, bytes as u64);
    }

    /// Subtracts bytes of events.
    pub fn sub_events(&self, bytes: usize) {
        self.sub_held(MemoryUse::Events, bytes as u64);
    }

    /// Reserves bytes for a use other than events, until the reservation is dropped.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are neither within the share of their holder nor free.
    pub fn reserve(
        self: &Arc<Self>,
        what: MemoryUse,
        bytes: usize,
    ) -> Result<MemoryReservation, MemoryExceeded> {
        let mut reservation = MemoryReservation {
            account: Arc::clone(self),
            what,
            bytes: 0,
        };
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// Reserves bytes without a guard: the caller must [`release`](Self::release) them.
    ///
    /// # Errors
    ///
    /// Fails as [`reserve`](Self::reserve) does.
    pub fn try_hold(&self, what: MemoryUse, bytes: usize) -> Result<(), MemoryExceeded> {
        self.hold_sized(what, bytes, is_large_request(what, bytes))
    }

    fn hold_sized(
        &self,
        what: MemoryUse,
        bytes: usize,
        is_large: bool,
    ) -> Result<(), MemoryExceeded> {
        let bytes = bytes as u64;
        // Count first, then check: of two concurrent callers, neither sees the other's bytes
        // as free.
        self.add_held(what, bytes);
        let holder = what.holder();
        let has_room = match is_large {
            true => self.held_by(holder) <= self.limits().large_requests(),
            false => self.has_room(holder),
        };
        if has_room {
            return Ok(());
        }
        self.sub_held(what, bytes);
        Err(MemoryExceeded)
    }

    /// Releases bytes.
    pub fn release(&self, what: MemoryUse, bytes: usize) {
        self.sub_held(what, bytes as u64);
    }

    /// Returns true if the holder is within its share, or if the total still leaves the other
    /// holders their shares.
    fn has_room(&self, holder: MemoryHolder) -> bool {
        let limits = self.limits();
        self.held_by(holder) <= holder.guaranteed_bytes(limits)
            || self.committed_bytes(limits, |_| false) <= limits.max
    }

    /// Returns the sum over all holders of the held or guaranteed bytes, whichever is more.
    /// For holders for which `only_guaranteed` returns true, only the guarantee counts.
    fn committed_bytes(
        &self,
        limits: MemoryLimits,
        only_guaranteed: impl Fn(MemoryHolder) -> bool,
    ) -> u64 {
        let taken = MemoryHolder::ALL.into_iter().map(|holder| {
            let guarantee = holder.guaranteed_bytes(limits);
            match only_guaranteed(holder) {
                true => guarantee,
                false => self.held_by(holder).max(guarantee),
            }
        });
        taken.fold(0, u64::saturating_add)
    }

    fn held_by(&self, holder: MemoryHolder) -> u64 {
        let uses = MemoryUse::ALL.into_iter();
        uses.filter(|what| what.holder() == holder)
            .map(|what| self.held_bytes(what))
            .sum()
    }

    fn use_counter(&self, what: MemoryUse) -> &AtomicU64 {
        let [
            events,
            requests,
            subscriptions,
            presence,
            authorization,
            begun_messages,
            decoding,
            client_connections,
            backend_connections,
            tls,
            handshakes,
        ] = &self.held;
        match what {
            MemoryUse::Events => events,
            MemoryUse::Requests => requests,
            MemoryUse::Subscriptions => subscriptions,
            MemoryUse::Presence => presence,
            MemoryUse::Authorization => authorization,
            MemoryUse::BegunMessages => begun_messages,
            MemoryUse::Decoding => decoding,
            MemoryUse::ClientConnections => client_connections,
            MemoryUse::BackendConnections => backend_connections,
            MemoryUse::Tls => tls,
            MemoryUse::Handshakes => handshakes,
        }
    }

    fn add_held(&self, what: MemoryUse, bytes: u64) {
        self.use_counter(what).fetch_add(bytes, Ordering::Relaxed);
    }

    fn sub_held(&self, what: MemoryUse, bytes: u64) {
        self.use_counter(what).fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn is_large_request(what: MemoryUse, bytes: usize) -> bool {
    what == MemoryUse::Requests && bytes > SMALL_REQUEST_BYTES
}

/// Bytes of an account that are held until this guard is dropped.
#[derive(Debug)]
pub struct MemoryReservation {
    account: Arc<MemoryAccount>,
    what: MemoryUse,
    bytes: usize,
}

impl MemoryReservation {
    /// Releases the bytes beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let freed = self.bytes.saturating_sub(bytes);
        self.account.release(self.what, freed);
        self.bytes -= freed;
    }

    /// Reserves more bytes.
    ///
    /// # Errors
    ///
    /// Fails if there is no room for them; the bytes held before stay held.
    pub fn grow(&mut self, bytes: usize) -> Result<(), MemoryExceeded> {
        let is_large = is_large_request(self.what, self.bytes + bytes);
        self.account.hold_sized(self.what, bytes, is_large)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Reserves more bytes for processing an admitted request. Large requests may use the
    /// backends' whole share for that. Under the bound for large requests, newly admitted
    /// requests could keep it full, and no admitted request would ever be processed.
    ///
    /// # Errors
    ///
    /// Fails as [`grow`](Self::grow) does.
    pub fn grow_admitted(&mut self, bytes: usize) -> Result<(), MemoryExceeded> {
        self.account.hold_sized(self.what, bytes, false)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Returns the number of bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for MemoryReservation {
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
    fn each_holder_gets_its_share_and_memory_not_promised_to_others() {
        let shares = [
            (MemoryUse::Requests, 200),
            (MemoryUse::Subscriptions, 200),
            (MemoryUse::BackendConnections, 50),
            (MemoryUse::BegunMessages, 50),
            (MemoryUse::Decoding, 50),
            (MemoryUse::Tls, 50),
        ];
        // 1,000 less the window's 200 and less all shares.
        const FREE: usize = 200;
        for (mine, my_share) in shares {
            let account = account();
            let all = account.reserve(mine, my_share + FREE).unwrap();
            assert_eq!(account.reserve(mine, 1).unwrap_err(), MemoryExceeded);
            assert_eq!(all.bytes(), my_share + FREE);
            let others: Vec<_> = shares
                .into_iter()
                .filter(|(what, _)| *what != mine)
                .map(|(other, share)| {
                    let reservation = account.reserve(other, share).unwrap();
                    assert!(account.reserve(other, 1).is_err());
                    reservation
                })
                .collect();
            account.add_events(200);
            assert!(!account.is_exceeded());
            assert!(
                MemoryUse::ALL
                    .iter()
                    .all(|what| !account.is_overdrawn(*what))
            );
            account.sub_events(200);
            drop((all, others));
            assert!(
                MemoryUse::ALL
                    .iter()
                    .all(|what| account.held_bytes(*what) == 0)
            );
        }
    }

    #[test]
    fn a_share_stays_guaranteed_while_events_take_all_the_rest() {
        let account = account();
        account.add_events(5_000);
        assert!(account.is_exceeded());
        let share = account.reserve(MemoryUse::Subscriptions, 200).unwrap();
        assert!(account.reserve(MemoryUse::Subscriptions, 1).is_err());
        assert!(!account.is_overdrawn(MemoryUse::Subscriptions));
        drop(share);
        account.sub_events(5_000);
        assert!(!account.is_exceeded());
    }

    #[test]
    fn a_lower_limit_overdraws_the_holders_above_their_share() {
        let account = account();
        let _more = account.reserve(MemoryUse::Subscriptions, 400).unwrap();
        let _less = account.reserve(MemoryUse::BegunMessages, 10).unwrap();
        assert!(!account.is_overdrawn(MemoryUse::Subscriptions));
        // The window's share counts as taken even if events do not use it.
        account.set_limits(MemoryLimits {
            max: 650,
            window: 200,
        });
        assert!(!account.is_exceeded());
        assert!(account.is_overdrawn(MemoryUse::Subscriptions));
        assert!(!account.is_overdrawn(MemoryUse::BegunMessages));
    }

    #[test]
    fn a_reservation_that_cannot_grow_keeps_what_it_has() {
        let account = account();
        let mut request = account.reserve(MemoryUse::Requests, 300).unwrap();
        assert!(request.grow(101).is_err());
        assert!(request.grow(100).is_ok());
        assert_eq!(account.held_bytes(MemoryUse::Requests), 400);
        request.shrink_to(500);
        assert_eq!(account.held_bytes(MemoryUse::Requests), 400);
        request.shrink_to(100);
        assert_eq!(account.held_bytes(MemoryUse::Requests), 100);
        drop(request);
        assert_eq!(account.held_bytes(MemoryUse::Requests), 0);
    }

    #[test]
    fn large_requests_leave_a_quarter_of_the_share_to_small_ones() {
        let mib = 1 << 20;
        let account = Arc::new(MemoryAccount::new(MemoryLimits {
            max: 64 * mib as u64,
            window: 0,
        }));
        let mut large = Vec::new();
        while let Ok(request) = account.reserve(MemoryUse::Requests, mib) {
            large.push(request);
        }
        // Growing does not get around the bound.
        let mut growing = account.reserve(MemoryUse::Requests, 1024).unwrap();
        assert!(growing.grow(mib).is_err());
        assert_eq!(
            account.held_bytes(MemoryUse::Requests),
            12 * mib as u64 + 1024
        );
        // 3.75 MiB; together with the growing request, less than 4 MiB.
        let small: Vec<_> = (0..30)
            .map(|_| {
                account
                    .reserve(MemoryUse::Requests, SMALL_REQUEST_BYTES)
                    .unwrap()
            })
            .collect();
        // Processing an admitted request may use that part as well.
        drop(small);
        growing.grow_admitted(mib).unwrap();
        drop((large, growing));
        assert_eq!(account.held_bytes(MemoryUse::Requests), 0);
    }

    proptest! {
        #[test]
        fn without_events_beyond_the_window_the_sum_stays_within_the_limit(
            asked in proptest::collection::vec((1..MemoryUse::ALL.len(), 0_usize..400), 1..40),
            events in 0_usize..=200,
        ) {
            let account = account();
            account.add_events(events);
            let mut held: Vec<MemoryReservation> = Vec::new();
            for (what, bytes) in asked {
                let holder = MemoryUse::ALL[what].holder();
                let before = account.held_by(holder);
                match account.reserve(MemoryUse::ALL[what], bytes) {
                    Ok(reservation) => held.push(reservation),
                    Err(MemoryExceeded) => {
                        prop_assert_eq!(account.held_by(holder), before);
                        prop_assert!(before + bytes as u64 > holder.guaranteed_bytes(LIMITS));
                        if held.len() > 3 {
                            held.remove(0);
                        }
                    }
                }
                prop_assert!(!account.is_exceeded());
            }
            drop(held);
            account.sub_events(events);
            prop_assert!(MemoryUse::ALL.iter().all(|what| account.held_bytes(*what) == 0));
        }
    }
}
