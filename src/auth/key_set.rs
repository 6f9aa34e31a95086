//! A set of keys that an issuer publishes: what was fetched last, and when it may
//! be fetched again. Fetches nothing: who does takes turns with who asks.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use super::{KeyFingerprint, VerificationKey};
use crate::config::JwksUrl;

/// One address and the keys that it gave last.
#[derive(Debug)]
pub struct KeySet {
    url: JwksUrl,
    keys: ArcSwapOption<Vec<VerificationKey>>,
    pace: Mutex<Pace>,
    /// Told when somebody asks for a fetch.
    asked: Notify,
    /// How many fetches have ended.
    ended: watch::Sender<u64>,
}

/// When there may be a fetch.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// One is asked for or under way.
    is_due: bool,
    /// When the last one ended, and whether it brought keys.
    last: Option<(Instant, bool)>,
    /// When somebody last caused one.
    caused: Option<Instant>,
}

impl Pace {
    /// Whether a token may cause a fetch.
    fn allows(&self, now: Instant, cooldown: Duration) -> bool {
        let failed = self.last.filter(|(_, brought_keys)| !brought_keys);
        let since = [self.caused, failed.map(|(at, _)| at)];
        since
            .into_iter()
            .flatten()
            .all(|at| now.saturating_duration_since(at) >= cooldown)
    }

    /// How long to wait for the next fetch, if nobody causes one before.
    fn rest(&self, now: Instant, refresh: Duration, cooldown: Duration) -> Duration {
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
    /// A set of which nothing is known yet, and which is due.
    #[must_use]
    pub fn new(url: JwksUrl) -> Self {
        Self {
            url,
            keys: ArcSwapOption::empty(),
            pace: Mutex::new(Pace {
                is_due: true,
                last: None,
                caused: None,
            }),
            asked: Notify::new(),
            ended: watch::Sender::new(0),
        }
    }

    /// Where it is fetched from.
    #[must_use]
    pub fn url(&self) -> &JwksUrl {
        &self.url
    }

    /// The keys, where it was fetched before.
    #[must_use]
    pub fn keys(&self) -> Option<Arc<Vec<VerificationKey>>> {
        self.keys.load_full()
    }

    /// Asks for a fetch, on behalf of a token whose key is not known. Gives what
    /// changes when it has ended, or `None` where it is too early for one. Who asks
    /// while one is due or under way waits for that one.
    pub fn ask(&self, now: Instant, cooldown: Duration) -> Option<watch::Receiver<u64>> {
        let mut pace = self.pace();
        let end = self.ended.subscribe();
        if !pace.is_due {
            if !pace.allows(now, cooldown) {
                return None;
            }
            pace.is_due = true;
            pace.caused = Some(now);
            self.asked.notify_one();
        }
        Some(end)
    }

    /// Waits until it is time for a fetch. Whoever waits here fetches, and says
    /// [how it ended](Self::fetched).
    pub async fn due(&self, refresh: Duration, cooldown: Duration) {
        loop {
            let rest = self.pace().rest(Instant::now(), refresh, cooldown);
            if rest.is_zero() {
                break;
            }
            tokio::select! {
                biased;
                () = self.asked.notified() => {}
                () = sleep(rest) => {}
            }
        }
        self.pace().is_due = true;
    }

    /// A fetch has ended; without keys the old ones stay. Whether the keys are other
    /// ones now.
    pub fn fetched(&self, keys: Option<Vec<VerificationKey>>, now: Instant) -> bool {
        let brought_keys = keys.is_some();
        let changed = keys.is_some_and(|keys| {
            let before = self.keys.swap(Some(Arc::new(keys)));
            self.fingerprints() != fingerprints(before.as_deref())
        });
        let mut pace = self.pace();
        pace.is_due = false;
        pace.last = Some((now, brought_keys));
        drop(pace);
        self.ended.send_modify(|count| *count += 1);
        changed
    }

    fn fingerprints(&self) -> Vec<KeyFingerprint> {
        fingerprints(self.keys().as_deref())
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fingerprints(keys: Option<&Vec<VerificationKey>>) -> Vec<KeyFingerprint> {
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
    async fn a_token_causes_one_fetch_for_all_that_ask_and_none_within_the_cooldown() {
        let set = set();
        let asks = |after| set.ask(Instant::now() + after, COOLDOWN);
        let mut first = asks(Duration::ZERO).expect("nothing was fetched yet, so one is due");
        assert!(set.fetched(keys("a"), Instant::now()));
        assert!(first.has_changed().unwrap());
        first.borrow_and_update();

        let second = asks(Duration::ZERO).expect("the first fetch was nobody's fault");
        let third = asks(SECOND).expect("one is due");
        set.due(REFRESH, COOLDOWN).await;
        assert!(
            !set.fetched(keys("a"), Instant::now()),
            "the same key again"
        );
        assert!(second.has_changed().unwrap() && third.has_changed().unwrap());
        assert!(asks(COOLDOWN - SECOND).is_none());
        assert!(asks(COOLDOWN).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_after_the_cooldown_and_changes_nothing() {
        let set = set();
        set.due(REFRESH, COOLDOWN).await;
        assert!(set.fetched(keys("a"), Instant::now()));
        let began = Instant::now();
        set.due(REFRESH, COOLDOWN).await;
        assert_eq!(began.elapsed(), REFRESH);
        assert!(!set.fetched(None, Instant::now()));
        assert_eq!(set.keys().unwrap()[0].kid(), Some("a"));
        assert!(set.ask(Instant::now(), COOLDOWN).is_none());
        let began = Instant::now();
        set.due(REFRESH, COOLDOWN).await;
        assert_eq!(began.elapsed(), COOLDOWN);
        assert!(set.fetched(keys("b"), Instant::now()));
    }
}
