//! Takes over the window of the last run at a start, and leaves one at the end of a drain.

use std::sync::Arc;

use sidewire_protocol::clock::Clock;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout_at},
};

use super::StartError;
use crate::{
    hub::{KeptWindow, TenantRegistry},
    relay::{LiveSettings, Relay},
    telemetry::WindowFileResult,
    window_file::{SaveError, SaveStop, TakenWindow, WindowFile, WindowSize},
};

/// What a run has of its predecessor, and for its successor.
#[derive(Debug, Default)]
pub(super) struct RunWindow {
    /// The file for this run's window, if one is configured.
    pub(super) file: Option<WindowFile>,
    /// The window of the last run.
    pub(super) kept: Option<KeptWindow>,
    /// What was found, for the metrics.
    pub(super) found: Option<WindowFileResult>,
}

/// Begins a run, and takes the window of the last one, if the configuration names a file.
///
/// # Errors
///
/// Fails if the file could not be written at the end of the run either.
pub(super) fn take_window(live: &LiveSettings) -> Result<RunWindow, StartError> {
    let replay = &live.config.replay;
    let Some(path) = &replay.keep_file else {
        return Ok(RunWindow::default());
    };
    let file = WindowFile::begin_run(path.clone()).map_err(|source| StartError::WindowFile {
        path: path.clone(),
        source,
    })?;
    let shown = path.display();
    let begun = Instant::now();
    let (kept, found) = match file.take(&live.schema, &Clock::system(), replay.age) {
        TakenWindow::Missing => {
            tracing::info!(path = %shown, "the last run left no window, so no client can resume from before this start");
            (None, WindowFileResult::Missing)
        }
        TakenWindow::Taken(window) => {
            let events: usize = window.tenants.iter().map(|it| it.events.len()).sum();
            tracing::info!(
                path = %shown,
                tenants = window.tenants.len(),
                events,
                duration = ?begun.elapsed(),
                "took over the window of the last run"
            );
            (Some(*window), WindowFileResult::Loaded)
        }
        TakenWindow::Rejected(reason, moved) => {
            let moved_to = moved.map_or_else(
                |error| format!("nowhere: {error}"),
                |path| path.display().to_string(),
            );
            tracing::error!(path = %shown, %reason, %moved_to, "cannot use the window of the last run, so no client can resume from before this start");
            (None, WindowFileResult::Rejected)
        }
    };
    Ok(RunWindow {
        file: Some(file),
        kept,
        found: Some(found),
    })
}

/// A window that is being written.
#[derive(Debug)]
pub(super) struct WindowSaving {
    file: WindowFile,
    begun: Instant,
    stop: SaveStop,
    writing: JoinHandle<Result<WindowSize, SaveError>>,
}

impl WindowSaving {
    /// Begins to write the window, on another thread. Nothing may be appended any more.
    pub(super) fn begin(file: WindowFile, registry: Arc<TenantRegistry>, relay: &Relay) -> Self {
        let (stop, schema) = (SaveStop::default(), Arc::clone(&relay.live().schema));
        let clock = relay.clock.clone();
        let writing = {
            let (file, stop) = (file.clone(), stop.clone());
            spawn_blocking(move || file.save(&registry, &schema, &clock, &stop))
        };
        Self {
            file,
            begun: Instant::now(),
            stop,
            writing,
        }
    }

    /// Waits until the window is written, but not longer than until the deadline.
    pub(super) async fn finish(self, deadline: Instant) {
        let written = timeout_at(deadline, self.writing).await;
        let written = written.unwrap_or_else(|_late| {
            self.stop.stop();
            Ok(Err(SaveError::TooLate))
        });
        let path = self.file.path().display();
        match written {
            Ok(Ok(size)) => tracing::info!(
                %path,
                tenants = size.tenants,
                events = size.events,
                bytes = size.bytes,
                duration = ?self.begun.elapsed(),
                "wrote the window for the next start"
            ),
            Ok(Err(error)) => {
                tracing::error!(%path, %error, "cannot write the window, so no client can resume after the next start");
            }
            Err(error) => tracing::error!(%path, %error, "the window was not written"),
        }
    }
}
