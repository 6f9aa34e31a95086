//! What the process reports about itself: metrics, the log and panics. Knows no
//! routes, nor the path of an event; it reads counters that other modules keep.

mod log_queue;
mod logging;
mod metrics;
mod panics;

pub use logging::{LogFlushGuard, LogLevel, LoggingError, init as init_logging, print_last_line};
pub use metrics::{
    AnswerSource, AuthorizationMetrics, AuthorizationResult, BackendMetrics, BackendResult,
    CloseLabel, ConflictReason, IngestKeyRefusal, KeySetFetchResult, Metrics, SchemaReloadResult,
    ScrapeSources, WindowFileResult, cpu_seconds, resident_bytes,
};
pub use panics::install_panic_hook;
