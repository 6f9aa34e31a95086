//! What a start needs besides the relay's parts: the numbers of shards and sockets, and log lines
//! about the schema.

use std::thread::available_parallelism;

use rustix::process::{Resource, getrlimit};
use sidewire_protocol::schema::{Schema, SchemaSize, Severity};

use crate::{config::Config, limits::SocketLimits};

/// Logs how large the schema is and how long it took to compile.
pub(super) fn log_schema(schema: &Schema, message: &str) {
    let SchemaSize {
        events,
        messages,
        files,
    } = schema.size();
    tracing::info!(
        revision = %schema.revision(),
        envelope = schema.envelope_name(),
        events,
        messages,
        files,
        milliseconds = u64::try_from(schema.compile_time().as_millis()).unwrap_or(u64::MAX),
        "{message}"
    );
}

/// Logs the schema's warnings. Its notes are shown only by `sidewire check`.
pub(super) fn log_warnings(schema: &Schema) {
    let warnings = schema.diagnostics().iter();
    for warning in warnings.filter(|it| it.severity == Severity::Warning) {
        tracing::warn!(
            file = warning.file.as_deref(),
            line = warning.line,
            hint = warning.hint.as_deref(),
            "schema: {}",
            warning.message
        );
    }
}

/// Returns the configured number of shards: one per core unless the configuration says otherwise.
pub(super) fn shard_count(config: &Config) -> usize {
    match config.limits.shards {
        0 => available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

/// Returns and logs the number of sockets that the process's file descriptor limit allows.
pub(super) fn socket_limits(config: &Config, shards: usize) -> SocketLimits {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let subscribe = &config.auth.subscribe;
    // Each question to a backend takes one.
    let asking = subscribe.url.as_ref().map_or(0, |_| subscribe.concurrency);
    let room = SocketLimits::from_descriptors(count.saturating_sub(asking), shards);
    let clients = room.clients;
    match config.limits.connections {
        Some(connections) if u64::from(connections.get()) > clients as u64 => tracing::warn!(
            descriptors,
            clients,
            connections,
            "the file descriptor limit allows fewer client connections than limits.connections"
        ),
        _ => tracing::info!(
            descriptors,
            clients,
            "the file descriptor limit bounds the number of client connections"
        ),
    }
    room
}
