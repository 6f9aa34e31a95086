//! `[presence]`: what is remembered of the presence messages of clients.

use std::{num::NonZeroU32, time::Duration};

use super::{
    error::ConfigProblems,
    reload::live,
    section::config_section,
    values::{self, GIB, KIB, MIB},
};

config_section! {
    /// The `[presence]` section.
    pub struct PresenceSection("presence") {
        /// Time for which the presence of a connection that has ended is still shown, so that a
        /// client that reconnects is not seen to leave; 5 s.
        #[serde(deserialize_with = "values::duration")]
        live linger: Duration = Duration::from_secs(5), check_duration_or_zero();
        /// Maximum size of a presence message, as its client sends it; 2 KiB.
        #[serde(deserialize_with = "values::size")]
        live message_max: usize = 2 * KIB, check_size(1..=4 * KIB);
        /// Maximum number of presence messages of a user, counted over its connections; 16.
        #[serde(deserialize_with = "values::count")]
        live messages_per_user: usize = 16, check_count();
        /// Maximum number of users that are present on a topic; 1,000.
        #[serde(deserialize_with = "values::count")]
        live users_per_topic: usize = 1_000, check_count();
        /// Maximum size of all presence of a tenant: for each message its size, 400 bytes and its
        /// topics; 16 MiB.
        #[serde(deserialize_with = "values::size")]
        live bytes_per_tenant: usize = 16 * MIB, check_size(KIB..=GIB);
        /// Maximum number of presence messages that a connection may be owed because its client
        /// reads slowly; 1,000. Beyond it, the connection is closed.
        #[serde(deserialize_with = "values::count")]
        live owed: usize = 1_000, check_count();
        /// Maximum number of presence messages that a user is sent within a minute because of new
        /// subscriptions; 1,000. The rest is sent later.
        #[serde(deserialize_with = "values::some")]
        live snapshot_messages_per_minute: NonZeroU32 = SNAPSHOT_MESSAGES;
    }
}

/// The default of `snapshot_messages_per_minute`.
const SNAPSHOT_MESSAGES: NonZeroU32 = match NonZeroU32::new(1_000) {
    Some(messages) => messages,
    None => NonZeroU32::MIN,
};

impl PresenceSection {
    pub(super) fn check(&self, problems: &mut ConfigProblems) {
        self.check_bounds(problems);
    }
}
