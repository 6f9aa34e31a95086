//! Runs work that takes too long for a shard on another thread.

use std::{panic::resume_unwind, sync::Arc};

use tokio::task::spawn_blocking;

use super::TenantWork;

impl TenantWork {
    /// Runs work that could hold up the shard for longer than about 1 ms on another thread, one
    /// piece at a time for each tenant. Returns `None` if the process is ending.
    pub async fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let permit = Arc::clone(&self.flow.offloaded).lock_owned().await;
        // The thread holds the permit, because it continues even if the caller stops waiting for
        // the result.
        let done = spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        match done.await {
            Ok(done) => Some(done),
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            Err(_) => None,
        }
    }
}
