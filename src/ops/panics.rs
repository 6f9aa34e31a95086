//! Counts panics: the relay is written so that there is none, and this says
//! whether that holds.

use std::{
    panic,
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
};

static PANICS: AtomicU64 = AtomicU64::new(0);
static HOOK: Once = Once::new();

/// How many there were in this process.
pub(super) fn count() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Has panics counted and logged from here on.
pub fn watch() {
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            tracing::error!(panic = %info, "a task has panicked; this is a bug");
            // Without a log there is only what stands on standard error.
            if !tracing::dispatcher::has_been_set() {
                previous(info);
            }
        }));
    });
}
