//! A key set that an issuer publishes: the keys fetched last, and the time at which the set
//! may be fetched again. Fetches nothing itself; it connects the fetching task with the
//! handshakes that need a key.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use super::jwks_url::JwksUrl;
use super::{KeyFingerprint, VerificationKey};

/// The URL of a key set and the keys fetched from it last.
#[derive(Debug)]
pub struct KeySet {
    url: JwksUrl,
    keys: ArcSwapOption<Vec<VerificationKey>>,
    pace: Mutex<FetchSchedule>,
    /// Notified when a caller requests a fetch.
    asked: Notify,
    /// Number of fetches that have ended.
    ended: watch::Sender<u64>,
}

/// The state that decides when the set may be fetched.
#[derive(Debug, Clone, Copy)]
struct FetchSchedule {
    /// True while a fetch is requested or in progress.
    is_due: bool,
    /// End time of the last fetch, and true if it returned keys.
    last: Option<(Instant, bool)>,
    /// End time of the last fetch that returned keys.
    fetched_at: Option<Instant>,
    /// Time of the last fetch that was requested for a token.
    caused: Option<Instant>,
}

impl FetchSchedule {
    /// Returns true if a token may cause a fetch: the cooldown has passed.
    fn allows_fetch(&self, now: Instant, cooldown: Duration) -> bool {
        let failed = self.last.filter(|(_, brought_keys)| !brought_keys);
        let since = [self.caused, failed.map(|(at, _)| at)];
        since
            .into_iter()
            .flatten()
            .all(|at| now.saturating_duration_since(at) >= cooldown)
    }

    /// Returns the time until the next fetch, unless one is requested earlier.
    fn time_to_next_fetch(&self, now: Instant, refresh: Duration, cooldown: Duration) -> Duration {
        match self.last {
            Some((at, brought_keys)) if !self.is_due => {
                let pause = if brought_keys { refresh } else { cooldown };
                pause.saturating_sub(now.saturating_duration_since(at))
            }
            _ => Duration::ZERO,
        }
    }
}

impl KeySet {
    /// Creates a set without keys, due to be fetched.
    #[must_use]
    pub fn new(url: JwksUrl) -> Self {
        Self {
            url,
            keys: ArcSwapOption::empty(),
            pace: Mutex::new(FetchSchedule {
                is_due: true,
                last: None,
                fetched_at: None,
                caused: None,
            }),
            asked: Notify::new(),
            ended: watch::Sender::new(0),
        }
    }

    /// Returns the URL that the set is fetched from.
    #[must_use]
    pub fn url(&self) -> &JwksUrl {
        &self.url
    }

    /// Returns the keys; `None` before the first successful fetch.
    #[must_use]
    pub fn keys(&self) -> Option<Arc<Vec<VerificationKey>>> {
        self.keys.load_full()
    }

    /// Returns the time of the last successful fetch; `None` before the first.
    #[must_use]
    pub fn fetched_at(&self) -> Option<Instant> {
        self.lock_schedule().fetched_at
    }

    /// Requests a fetch for a token with an unknown key. Returns a receiver that changes when
    /// the fetch has ended, or `None` during the cooldown. A caller that requests one while a
    /// fetch is due or in progress waits for that fetch.
    pub fn request_fetch(&self, now: Instant, cooldown: Duration) -> Option<watch::Receiver<u64>> {
        let mut pace = self.lock_schedule();
        let end = self.ended.subscribe();
        if !pace.is_due {
            if !pace.allows_fetch(now, cooldown) {
                return None;
            }
            pace.is_due = true;
            pace.caused = Some(now);
            self.asked.notify_one();
        }
        Some(end)
    }

    /// Waits until it is time for a fetch. The caller must then fetch the set and
    /// [report the result](Self::finish_fetch).
    pub async fn wait_until_due(&self, refresh: Duration, cooldown: Duration) {
        loop {
            let rest = self
                .lock_schedule()
                .time_to_next_fetch(Instant::now(), refresh, cooldown);
            if rest.is_zero() {
                break;
            }
            tokio::select! {
                biased;
                () = self.asked.notified() => {}
                () = sleep(rest) => {}
            }
        }
        self.lock_schedule().is_due = true;
    }

    /// Records the end of a fetch at `now`. With `keys: None`, for a failed fetch, the old keys
    /// stay. Returns true if the keys have changed.
    pub fn finish_fetch(&self, keys: Option<Vec<VerificationKey>>, now: Instant) -> bool {
        let brought_keys = keys.is_some();
        let changed = keys.is_some_and(|keys| {
            let before = self.keys.swap(Some(Arc::new(keys)));
            self.key_fingerprints() != fingerprints_of(before.as_deref())
        });
        let mut pace = self.lock_schedule();
        pace.is_due = false;
        pace.last = Some((now, brought_keys));
        if brought_keys {
            pace.fetched_at = Some(now);
        }
        drop(pace);
        self.ended.send_modify(|count| *count += 1);
        changed
    }

    fn key_fingerprints(&self) -> Vec<KeyFingerprint> {
        fingerprints_of(self.keys().as_deref())
    }

    fn lock_schedule(&self) -> MutexGuard<'_, FetchSchedule> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fingerprints_of(keys: Option<&Vec<VerificationKey>>) -> Vec<KeyFingerprint> {
    let keys = keys.map(Vec::as_slice).unwrap_or_default();
    keys.iter().map(VerificationKey::fingerprint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Algorithm, Secret};

    const SECOND: Duration = Duration::from_secs(1);
    const COOLDOWN: Duration = Duration::from_secs(30);
    const REFRESH: Duration = Duration::from_mins(15);

    fn set() -> KeySet {
        KeySet::new(JwksUrl::parse("https://issuer.example/keys").unwrap())
    }

    fn keys(kid: &str) -> Option<Vec<VerificationKey>> {
        let secret = Secret::new([b'a'; 32]);
        let key = VerificationKey::from_secret(Algorithm::HS256, Some(kid.to_owned()), &secret);
        Some(vec![key.unwrap()])
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_share_one_fetch_and_the_cooldown_allows_no_other() {
        let set = set();
        let asks = |after| set.request_fetch(Instant::now() + after, COOLDOWN);
        let mut first = asks(Duration::ZERO).expect("nothing was fetched yet, so one is due");
        assert!(set.finish_fetch(keys("a"), Instant::now()));
        assert!(first.has_changed().unwrap());
        first.borrow_and_update();

        let second = asks(Duration::ZERO).expect("the first fetch was nobody's fault");
        let third = asks(SECOND).expect("one is due");
        set.wait_until_due(REFRESH, COOLDOWN).await;
        assert!(
            !set.finish_fetch(keys("a"), Instant::now()),
            "the same key again"
        );
        assert!(second.has_changed().unwrap() && third.has_changed().unwrap());
        assert!(asks(COOLDOWN - SECOND).is_none());
        assert!(asks(COOLDOWN).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_fetch_keeps_the_keys_and_is_retried_after_the_cooldown() {
        let set = set();
        set.wait_until_due(REFRESH, COOLDOWN).await;
        assert!(set.finish_fetch(keys("a"), Instant::now()));
        let began = Instant::now();
        set.wait_until_due(REFRESH, COOLDOWN).await;
        assert_eq!(began.elapsed(), REFRESH);
        assert!(!set.finish_fetch(None, Instant::now()));
        assert_eq!(set.fetched_at(), Some(began));
        assert_eq!(set.keys().unwrap()[0].kid(), Some("a"));
        assert!(set.request_fetch(Instant::now(), COOLDOWN).is_none());
        let began = Instant::now();
        set.wait_until_due(REFRESH, COOLDOWN).await;
        assert_eq!(began.elapsed(), COOLDOWN);
        assert!(set.finish_fetch(keys("b"), Instant::now()));
    }
}
