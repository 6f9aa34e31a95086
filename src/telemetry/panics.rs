//! Counts and logs panics. The relay is written never to panic, so each one is a bug.

use std::{
    panic,
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
};

static PANICS: AtomicU64 = AtomicU64::new(0);
static HOOK: Once = Once::new();

/// Returns the number of panics in this process.
pub(super) fn panic_count() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Counts and logs panics from now on.
pub fn install_panic_hook() {
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            tracing::error!(panic = %info, "a task panicked; this is a bug");
            // Without logging, the previous hook prints the panic to standard error.
            if !tracing::dispatcher::has_been_set() {
                previous(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::connection::testing::{ConnectionFixture, simulate};

    #[test]
    fn a_panic_of_any_thread_is_counted_in_the_metric() {
        const METRIC: &str = "sidewire_panics_total";
        install_panic_hook();
        simulate(async {
            let fixture = ConnectionFixture::new();
            // Other tests of the process may cause panics meanwhile.
            let before = fixture.metric(METRIC);
            let ended = thread::spawn(|| panic!("planted by a test")).join();
            assert!(ended.is_err());
            assert!(fixture.metric(METRIC) > before);
        });
    }
}
