//! The reload classes of keys: a running relay takes over a changed value, or keeps its own until
//! it is restarted.

use super::Config;

/// The class of a key that changes with a reload.
pub(super) fn live<T>(_: &mut T, _: &T) -> bool {
    false
}

/// The class of a key that needs a restart: replaces the new value with the running one. Returns
/// true if they differ.
pub(super) fn restart<T: PartialEq + Clone>(new: &mut T, running: &T) -> bool {
    let differs = new != running;
    new.clone_from(running);
    differs
}

impl Config {
    /// Keeps the running value of each key that needs a restart, and returns the keys that the
    /// new configuration would change. The result may contradict itself; the caller must
    /// [check](Self::check) it.
    pub fn keep_fixed(&mut self, running: &Self) -> Vec<&'static str> {
        let auth = self.auth.keep_fixed(&running.auth);
        if !auth.is_empty() {
            // One mode refuses what the other needs.
            self.auth.clone_from(&running.auth);
        }
        let mut schema = self.schema.keep_fixed(&running.schema);
        if !schema.is_empty() {
            // Different envelopes have different files. The rest of the section is not reported.
            self.schema.clone_from(&running.schema);
            schema.truncate(1);
        }
        [
            self.client.keep_fixed(&running.client),
            auth,
            self.auth.subscribe.keep_fixed(&running.auth.subscribe),
            schema,
            self.limits.keep_fixed(&running.limits),
            self.presence.keep_fixed(&running.presence),
            self.replay.keep_fixed(&running.replay),
            self.ingest.keep_fixed(&running.ingest),
            self.ops.keep_fixed(&running.ops),
            self.log.keep_fixed(&running.log),
        ]
        .concat()
    }
}
