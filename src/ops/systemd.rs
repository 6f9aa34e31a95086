//! What systemd is told (`sd_notify(3)`); elsewhere this does nothing. Of
//! sd-notify only the functions that leave the environment alone are used.

use std::{convert::Infallible, future::Future, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

/// The relay takes connections, after its start or a reload.
pub fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// The relay reads its config again. Without the time systemd would not know whether
/// the word is older than its own request.
pub fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "there is no monotonic clock"),
    }
}

/// The relay is shutting down.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

/// How often all is looked at within the time after which systemd acts: one look that
/// finds a shard busy for a moment is not to be the relay's end.
const LOOKS_A_TIMEOUT: u32 = 6;

/// Tells systemd's watchdog, where it watches this process, that all is well: for as
/// long as `is_well` says so. Does not end.
pub async fn feed_watchdog<F: Future<Output = bool>>(is_well: impl Fn() -> F) {
    match sd_notify::watchdog_enabled() {
        Some(timeout) => {
            let _never = feed(timeout, is_well, || notify(&[NotifyState::Watchdog])).await;
        }
        None => std::future::pending().await,
    }
}

async fn feed<F: Future<Output = bool>>(
    timeout: Duration,
    is_well: impl Fn() -> F,
    mut tell: impl FnMut(),
) -> Infallible {
    let mut ticks = interval(timeout / LOOKS_A_TIMEOUT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if is_well().await {
            tell();
        } else {
            tracing::error!(
                "a shard does not answer, and the watchdog is not told that all is well"
            );
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be notified");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_hears_nothing_while_all_is_not_well() {
        let (well, told) = (Cell::new(true), Cell::new(0));
        let second = Duration::from_secs(1);
        let mut feeding = Box::pin(feed(
            second * LOOKS_A_TIMEOUT,
            || std::future::ready(well.get()),
            || told.set(told.get() + 1),
        ));
        assert!(timeout(second * 5 / 2, &mut feeding).await.is_err());
        assert_eq!(told.get(), 3, "at once, and each second");
        well.set(false);
        assert!(timeout(second * 10, &mut feeding).await.is_err());
        assert_eq!(told.get(), 3);
        well.set(true);
        assert!(timeout(second, &mut feeding).await.is_err());
        assert_eq!(told.get(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_is_late_a_few_times_does_not_end_the_relay() {
        let watched = Duration::from_secs(30);
        let late = Duration::from_secs(1);
        let (looks, last, longest) = (Cell::new(0), Cell::new(Instant::now()), Cell::default());
        let feeding = feed(
            watched,
            // Of four looks three wait in vain for as long as they may.
            || async {
                looks.set(looks.get() + 1);
                let is_well = looks.get() % 4 == 1;
                if !is_well {
                    sleep(late).await;
                }
                is_well
            },
            || {
                let gap: Duration = last.replace(Instant::now()).elapsed();
                longest.set(gap.max(longest.get()));
            },
        );
        assert!(timeout(20 * watched, feeding).await.is_err());
        assert!(longest.get() < watched, "{:?}", longest.get());
    }
}
