//! Monitoring: metrics, health, logging and notifications to systemd. Knows nothing about the
//! path of an event; it reads counters that other modules keep.

mod health;
mod http;
mod log_queue;
mod logging;
mod metrics;
mod panics;
mod systemd;

pub use health::{Health, ListeningGuard, SHARD_TIMEOUT};
pub use http::{OpsService, PATHS, serve};
pub use logging::{FlushLog, LogLevel, LoggingError, init as init_logging, print_to_stderr};
pub use metrics::{CloseLabel, ConflictReason, KeySetFetch, Metrics, SchemaReload};
pub use panics::install_panic_hook as watch_panics;
pub use systemd::{feed_watchdog, notify_ready, notify_reloading, notify_stopping};
