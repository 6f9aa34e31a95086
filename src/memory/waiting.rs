//! Runs decoding and rendering on another thread, with memory reserved for it. Work that
//! waits for the thread or for memory holds only its input.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{MemoryAccount, MemoryExceeded};

/// Interval between attempts to reserve memory.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A job for the other thread. Returns the result together with the work, for a retry.
pub(crate) type MemoryJob<T, W> = Box<dyn FnOnce() -> (Result<T, MemoryExceeded>, W) + Send>;

/// Runs work that needs reserved memory. `work` reserves the memory from the account and is
/// retried while too little is free, for `timeout` from the end of the first attempt. `run`
/// executes it, so only one piece of the work queued for a shard's thread holds memory.
///
/// Returns `None` if the process is shutting down.
pub(crate) async fn run_with_memory<T, W>(
    account: &Arc<MemoryAccount>,
    timeout: Duration,
    mut work: W,
    run: impl AsyncFn(MemoryJob<T, W>) -> Option<(Result<T, MemoryExceeded>, W)>,
) -> Option<Result<T, MemoryExceeded>>
where
    T: Send + 'static,
    W: FnMut(&Arc<MemoryAccount>) -> Result<T, MemoryExceeded> + Send + 'static,
{
    let mut deadline = None;
    loop {
        let account = Arc::clone(account);
        let job = Box::new(move || (work(&account), work));
        let (done, given_back) = run(job).await?;
        // Starts after the first attempt, since that may have waited for the thread.
        let deadline = deadline.get_or_insert_with(|| Instant::now() + timeout);
        if done.is_ok() || Instant::now() >= *deadline {
            return Some(done);
        }
        work = given_back;
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MemoryLimits, MemoryUse};

    const NEEDED: usize = 500;
    const TIMEOUT: Duration = Duration::from_secs(2);

    fn account() -> Arc<MemoryAccount> {
        Arc::new(MemoryAccount::new(MemoryLimits {
            max: 1000,
            window: 500,
        }))
    }

    fn work(account: &Arc<MemoryAccount>) -> Result<u64, MemoryExceeded> {
        let _memory = account.reserve(MemoryUse::Decoding, NEEDED)?;
        Ok(account.held_bytes(MemoryUse::Decoding))
    }

    #[tokio::test(start_paused = true)]
    async fn work_waits_for_memory_that_is_soon_released() {
        let account = Arc::new(MemoryAccount::new(MemoryLimits {
            // At most 1,312 of it is available for decoding.
            max: 3500,
            window: 0,
        }));
        let other = account.reserve(MemoryUse::Decoding, 2 * NEEDED).unwrap();
        let waits = run_with_memory(&account, TIMEOUT, work, async |job| Some(job()));
        let frees = async {
            sleep(TIMEOUT / 2).await;
            drop(other);
        };
        let (done, ()) = tokio::join!(waits, frees);
        assert_eq!(done, Some(Ok(NEEDED as u64)));
        assert_eq!(account.held_bytes(MemoryUse::Decoding), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn work_without_memory_is_refused_after_its_timeout() {
        let account = account();
        let began = Instant::now();
        let done = run_with_memory(&account, TIMEOUT, work, async |job| Some(job())).await;
        assert_eq!(done, Some(Err(MemoryExceeded)));
        assert_eq!(began.elapsed(), TIMEOUT);
    }
}
