//! Work that decodes or renders, done on another thread with memory reserved for it. What
//! waits for the thread or for memory holds its input alone.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{MemoryAccount, MemoryExceeded};

/// How often it looks for memory meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What runs on the other thread: the work, which comes back with its outcome.
pub(crate) type Job<T, W> = Box<dyn FnOnce() -> (Result<T, MemoryExceeded>, W) + Send>;

/// Does work for which memory has to be reserved. `work` reserves it from the account, and
/// is tried again where it finds too little, for `timeout` from the first attempt. It runs where `run` has it run,
/// so of all work that has come to a shard's thread only one piece holds memory.
///
/// `None` where the process is ending.
pub(crate) async fn with_memory<T, W>(
    account: &Arc<MemoryAccount>,
    timeout: Duration,
    mut work: W,
    run: impl AsyncFn(Job<T, W>) -> Option<(Result<T, MemoryExceeded>, W)>,
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
        // Not from the beginning: it may have waited for the thread.
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
        Ok(account.held(MemoryUse::Decoding))
    }

    #[tokio::test(start_paused = true)]
    async fn work_waits_for_memory_that_is_held_for_a_moment() {
        let account = Arc::new(MemoryAccount::new(MemoryLimits {
            // 1,312 of it for decoding, at the most.
            max: 3500,
            window: 0,
        }));
        let other = account.reserve(MemoryUse::Decoding, 2 * NEEDED).unwrap();
        let waits = with_memory(&account, TIMEOUT, work, async |job| Some(job()));
        let frees = async {
            sleep(TIMEOUT / 2).await;
            drop(other);
        };
        let (done, ()) = tokio::join!(waits, frees);
        assert_eq!(done, Some(Ok(NEEDED as u64)));
        assert_eq!(account.held(MemoryUse::Decoding), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_finds_no_memory_is_refused_after_its_timeout() {
        let account = account();
        let began = Instant::now();
        let done = with_memory(&account, TIMEOUT, work, async |job| Some(job())).await;
        assert_eq!(done, Some(Err(MemoryExceeded)));
        assert_eq!(began.elapsed(), TIMEOUT);
    }
}
