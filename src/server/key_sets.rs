//! Fetches the key sets that the config names by URL: at the start, periodically, and when a
//! token names an unknown key. Runs one task for each set.

use std::sync::Arc;

use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::shards::ShardThreads;
use crate::{
    auth::{KeyError, KeySet, VerificationKey},
    http::{FetchError, fetch_document},
    relay::Relay,
    telemetry::KeySetFetchResult,
};

/// The tasks that fetch key sets.
#[derive(Debug, Default)]
pub(super) struct KeySetTasks(JoinSet<()>);

/// An error of a fetch.
#[derive(Debug, thiserror::Error)]
enum KeySetFetchError {
    #[error("it took longer than auth.jwks_timeout")]
    Timeout,
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Keys(#[from] KeyError),
}

impl KeySetFetchError {
    fn metric_result(&self) -> KeySetFetchResult {
        match self {
            Self::Timeout => KeySetFetchResult::TimedOut,
            Self::Fetch(FetchError::Status(_)) => KeySetFetchResult::Status,
            Self::Fetch(FetchError::TooBig(_)) => KeySetFetchResult::TooBig,
            Self::Fetch(_) => KeySetFetchResult::Unreachable,
            Self::Keys(_) => KeySetFetchResult::Invalid,
        }
    }
}

impl KeySetTasks {
    /// Restarts the tasks for the key sets of the settings in force.
    pub(super) fn restart_tasks(&mut self, relay: &Arc<Relay>, shards: &Arc<ShardThreads>) {
        // Aborts running fetches, which may be for an old address.
        self.0 = JoinSet::new();
        for set in relay.live().authenticator.key_sets() {
            let (set, relay, shards) = (Arc::clone(set), Arc::clone(relay), Arc::clone(shards));
            self.0
                .spawn(async move { refresh_keys(&set, &relay, &shards).await });
        }
    }

    /// Stops all tasks.
    pub(super) async fn stop(&mut self) {
        self.0.shutdown().await;
    }
}

async fn refresh_keys(set: &KeySet, relay: &Relay, shards: &ShardThreads) {
    loop {
        let auth = relay.live().config.auth.clone();
        set.wait_until_due(auth.jwks_refresh, auth.jwks_cooldown)
            .await;
        let fetched = timeout(auth.jwks_timeout, fetch_keys(set, auth.jwks_max)).await;
        let keys = log_fetch(
            set,
            relay,
            fetched.unwrap_or(Err(KeySetFetchError::Timeout)),
        );
        if set.finish_fetch(keys, Instant::now()) {
            shards.notify_reloaded().await;
        }
    }
}

async fn fetch_keys(
    set: &KeySet,
    bytes_max: usize,
) -> Result<(Vec<VerificationKey>, usize), KeySetFetchError> {
    let json = fetch_document(set.url().uri(), bytes_max).await?;
    Ok(VerificationKey::from_fetched_jwks(&json)?)
}

/// Logs and counts the result of a fetch. Returns the keys if it succeeded.
fn log_fetch(
    set: &KeySet,
    relay: &Relay,
    fetched: Result<(Vec<VerificationKey>, usize), KeySetFetchError>,
) -> Option<Vec<VerificationKey>> {
    let url = set.url();
    match fetched {
        Ok((keys, passed_over)) => {
            relay.metrics.key_set_fetched(KeySetFetchResult::Fetched);
            let keys_len = keys.len();
            tracing::debug!(%url, keys = keys_len, passed_over, "fetched a key set; malformed and unsupported keys are ignored");
            Some(keys)
        }
        Err(fault) => {
            relay.metrics.key_set_fetched(fault.metric_result());
            let reason = &fault;
            let has_keys = set.keys().is_some();
            tracing::warn!(%url, %reason, has_keys, "cannot fetch a key set; the keys of the last successful fetch, if any, stay in use");
            None
        }
    }
}
