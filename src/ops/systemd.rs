//! What systemd is told (`sd_notify(3)`); elsewhere this does nothing. Of
//! sd-notify only the functions that leave the environment alone are used.

use sd_notify::NotifyState;

/// The relay takes connections.
pub fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// The relay is shutting down.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be notified");
    }
}
