//! Notifications to systemd (`sd_notify(3)`); does nothing elsewhere. Uses only those functions
//! of sd-notify that do not modify the environment.

use std::{convert::Infallible, future::Future, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

/// Notifies systemd that the relay is ready, after its start or a reload.
pub fn notify_ready() {
    notify_systemd(&[NotifyState::Ready]);
}

/// Notifies systemd that the relay is reloading its config. Includes the time, by which systemd
/// tells whether the notification is older than its own request.
pub fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify_systemd(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot read the monotonic clock for systemd"),
    }
}

/// Notifies systemd that the relay is shutting down.
pub fn notify_stopping() {
    notify_systemd(&[NotifyState::Stopping]);
}

/// Number of health checks within systemd's watchdog timeout, so that one check that finds a
/// shard busy for a moment does not end the relay.
const CHECKS_PER_TIMEOUT: u32 = 6;

/// Notifies systemd's watchdog periodically, if it is enabled for this process, while `is_well`
/// returns true. Never returns.
pub async fn feed_watchdog<F: Future<Output = bool>>(is_well: impl Fn() -> F) {
    match sd_notify::watchdog_enabled() {
        Some(timeout) => {
            let _never = feed_while_healthy(timeout, is_well, || {
                notify_systemd(&[NotifyState::Watchdog]);
            })
            .await;
        }
        None => std::future::pending().await,
    }
}

async fn feed_while_healthy<F: Future<Output = bool>>(
    timeout: Duration,
    is_well: impl Fn() -> F,
    mut tell: impl FnMut(),
) -> Infallible {
    let mut ticks = interval(timeout / CHECKS_PER_TIMEOUT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if is_well().await {
            tell();
        } else {
            tracing::error!("a shard does not respond, so systemd's watchdog is not notified");
        }
    }
}

fn notify_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_not_notified_while_the_relay_is_unhealthy() {
        let (well, told) = (Cell::new(true), Cell::new(0));
        let second = Duration::from_secs(1);
        let mut feeding = Box::pin(feed_while_healthy(
            second * CHECKS_PER_TIMEOUT,
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
        let feeding = feed_while_healthy(
            watched,
            // Three of four checks time out.
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
