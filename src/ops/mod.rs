//! The listener for operators, with metrics and health, and notifications to systemd. Knows
//! nothing about the path of an event.

mod health;
mod http;
mod systemd;

pub use health::{Health, ListeningGuard};
pub use http::{OpsService, PATHS, serve};
pub use systemd::{feed_watchdog, notify_ready, notify_reloading, notify_stopping};
