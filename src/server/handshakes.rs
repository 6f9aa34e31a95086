//! Limits the number of client handshakes in progress. Further connections wait in the kernel.
//!
//! With a limit alone, as many silent peers could lock out everybody else until they time out.
//! So when no permit or no memory is left, the oldest handshake is evicted for a new one, once it
//! has had [`UNDISTURBED`]: a peer that completes its handshake within that time is never
//! evicted.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::memory::{MemoryAccount, MemoryExceeded, MemoryReservation, MemoryUse};

/// Maximum number of handshakes in progress. Even if all peers are silent, the kernel's whole
/// queue of [`BACKLOG`](super::listener) connections is then accepted within one
/// [`UNDISTURBED`].
pub(super) const HANDSHAKES_MAX: usize = 4096;

/// Divisor of the number of client sockets that gives the maximum number of handshakes.
const PART_OF_CLIENTS: usize = 4;

/// Time for which a handshake cannot be evicted.
const UNDISTURBED: Duration = Duration::from_secs(1);

/// The handshakes in progress and their limit.
#[derive(Debug)]
pub(super) struct HandshakeLimiter {
    max: usize,
    /// Handshakes by number, which is by age.
    under_way: Mutex<BTreeMap<u64, PendingHandshake>>,
    last: AtomicU64,
    freed: Notify,
}

#[derive(Debug)]
struct PendingHandshake {
    since: Instant,
    evicted: CancellationToken,
    _memory: MemoryReservation,
}

/// The reason why a handshake cannot begin now.
enum HandshakeBlocked {
    /// No other handshake can be evicted before this time.
    Until(Instant),
    NoMemory,
}

/// A permit for a handshake in progress. Dropping it releases the permit and its memory.
#[derive(Debug)]
pub(super) struct HandshakePermit {
    handshakes: Arc<HandshakeLimiter>,
    number: u64,
    evicted: CancellationToken,
}

impl HandshakeLimiter {
    /// Creates a limiter without handshakes, for `clients` client sockets.
    pub(super) fn new(clients: usize) -> Arc<Self> {
        let max = (clients / PART_OF_CLIENTS).clamp(1, HANDSHAKES_MAX);
        Arc::new(Self {
            max,
            under_way: Mutex::default(),
            last: AtomicU64::default(),
            freed: Notify::new(),
        })
    }

    /// Waits for a permit, which holds `bytes` bytes of memory.
    ///
    /// # Errors
    ///
    /// If there is no memory for it, and no other handshake that could be evicted.
    pub(super) async fn acquire_permit(
        self: &Arc<Self>,
        memory: &Arc<MemoryAccount>,
        bytes: usize,
    ) -> Result<HandshakePermit, MemoryExceeded> {
        let evicted = CancellationToken::new();
        let number = loop {
            // Enabled before the attempt, so that a permit released in between is not missed.
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            match self.try_begin(memory, bytes, &evicted) {
                Ok(number) => break number,
                Err(HandshakeBlocked::Until(until)) => drop(timeout_at(until, freed).await),
                Err(HandshakeBlocked::NoMemory) => return Err(MemoryExceeded),
            }
        };
        Ok(HandshakePermit {
            handshakes: Arc::clone(self),
            number,
            evicted,
        })
    }

    /// Registers a new handshake, evicting the oldest ones if necessary. Returns its number.
    fn try_begin(
        &self,
        memory: &Arc<MemoryAccount>,
        bytes: usize,
        evicted: &CancellationToken,
    ) -> Result<u64, HandshakeBlocked> {
        let now = Instant::now();
        let under_way = self.under_way.lock();
        let mut under_way = under_way.unwrap_or_else(PoisonError::into_inner);
        let memory = loop {
            let is_free = under_way.len() < self.max;
            if is_free && let Ok(memory) = memory.reserve(MemoryUse::Handshakes, bytes) {
                break memory;
            }
            let oldest = under_way.first_entry().ok_or(HandshakeBlocked::NoMemory)?;
            let until = oldest.get().since + UNDISTURBED;
            if until > now {
                return Err(HandshakeBlocked::Until(until));
            }
            oldest.remove().evicted.cancel();
        };
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let begun = PendingHandshake {
            since: now,
            evicted: evicted.clone(),
            _memory: memory,
        };
        under_way.insert(number, begun);
        Ok(number)
    }
}

impl HandshakePermit {
    /// Returns a token that is cancelled when the handshake is evicted.
    pub(super) fn eviction_token(&self) -> CancellationToken {
        self.evicted.clone()
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        let under_way = self.handshakes.under_way.lock();
        let mut under_way = under_way.unwrap_or_else(PoisonError::into_inner);
        if under_way.remove(&self.number).is_some() {
            self.handshakes.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;
    use tokio::time::advance;

    use super::*;
    use crate::memory::MemoryLimits;

    /// Memory reserved for each handshake.
    const BYTES: usize = 48 * 1024;

    struct Fixture {
        memory: Arc<MemoryAccount>,
        handshakes: Arc<HandshakeLimiter>,
    }

    impl Fixture {
        /// Creates a limiter of three handshakes.
        fn new() -> Self {
            Self {
                memory: Arc::default(),
                handshakes: HandshakeLimiter::new(3 * PART_OF_CLIENTS),
            }
        }

        async fn permit(&self) -> HandshakePermit {
            let permit = self.handshakes.acquire_permit(&self.memory, BYTES);
            permit.await.unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_free_permit_a_new_peer_waits_until_one_is_released() {
        let fixture = Fixture::new();
        let first = fixture.permit().await;
        let others = [fixture.permit().await, fixture.permit().await];
        let mut waits = pin!(fixture.permit());
        assert!(poll!(&mut waits).is_pending());
        drop(first);
        let began = Instant::now();
        let permit = waits.await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(others.iter().all(|it| !it.eviction_token().is_cancelled()));
        drop((permit, others));
        assert_eq!(fixture.memory.held_bytes(MemoryUse::Handshakes), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_handshake_is_evicted_once_it_has_had_a_second() {
        let fixture = Fixture::new();
        let oldest = fixture.permit().await;
        advance(UNDISTURBED / 2).await;
        let other = fixture.permit().await;
        let another = fixture.permit().await;
        let began = Instant::now();
        let newcomer = fixture.permit().await;
        assert_eq!(began.elapsed(), UNDISTURBED / 2);
        assert!(oldest.eviction_token().is_cancelled());
        // An evicted permit releases nothing.
        drop(oldest);
        let mut waits = pin!(fixture.permit());
        assert!(poll!(&mut waits).is_pending());
        for permit in [&other, &another, &newcomer] {
            assert!(!permit.eviction_token().is_cancelled());
        }
        drop(newcomer);
        waits.await;
    }

    #[tokio::test(start_paused = true)]
    async fn silent_peers_delay_no_other_by_more_than_a_second() {
        let fixture = Fixture::new();
        let mut silent = Vec::new();
        for _ in 0..100 {
            let began = Instant::now();
            silent.push(fixture.permit().await);
            assert!(began.elapsed() <= UNDISTURBED);
        }
        let given_up = silent
            .iter()
            .filter(|it| it.eviction_token().is_cancelled());
        assert_eq!(given_up.count(), 97);
    }

    #[tokio::test(start_paused = true)]
    async fn without_memory_the_oldest_is_evicted_and_without_a_budget_a_peer_is_refused() {
        let fixture = Fixture::new();
        let bytes = BYTES as u64;
        fixture.memory.set_limits(MemoryLimits {
            // A sixteenth for handshakes, and the part that is reserved for no use.
            max: 16 * bytes,
            window: 11 * bytes,
        });
        let room = 16 * bytes - 11 * bytes - 2 * (5 * bytes / 4) - 2 * (5 * bytes / 16);
        assert_eq!(room / bytes, 1);
        let first = fixture.permit().await;
        let began = Instant::now();
        let second = fixture.permit().await;
        assert_eq!(began.elapsed(), UNDISTURBED);
        assert!(first.eviction_token().is_cancelled());
        assert_eq!(fixture.memory.held_bytes(MemoryUse::Handshakes), bytes);
        drop((first, second));
        fixture
            .memory
            .set_limits(MemoryLimits { max: 0, window: 0 });
        let refused = fixture
            .handshakes
            .acquire_permit(&fixture.memory, BYTES)
            .await;
        assert_eq!(refused.unwrap_err(), MemoryExceeded);
    }

    #[test]
    fn handshakes_get_a_part_of_the_permits_of_clients() {
        for (clients, max) in [(0, 1), (184, 46), (952, 238), (1_000_000, HANDSHAKES_MAX)] {
            assert_eq!(HandshakeLimiter::new(clients).max, max);
        }
    }
}
