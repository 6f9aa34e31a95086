//! How the relay is watched: metrics, health, logging, and what systemd is told.
//! Knows nothing of the path of an event; it reads what others have counted.

mod http;
mod logging;
mod metrics;
mod panics;
mod systemd;

pub use http::{Ops, serve};
pub use logging::{LoggingError, init as init_logging};
pub use metrics::{Closed, Conflict, Metrics};
pub use panics::watch as watch_panics;
pub use systemd::{notify_ready, notify_stopping};
