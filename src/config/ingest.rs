//! `[ingest]`: the listener for backends, and the settings of their calls. Names the key
//! files but never reads one.

use std::{net::Ipv4Addr, num::NonZeroU32, path::PathBuf, time::Duration};

use serde::Deserialize;
use sidewire_protocol::{
    TenantName,
    name::{NAME_BYTES_MAX, has_control_character},
};

use super::{
    error::ConfigProblems,
    listen::{ListenAddress, SocketMode},
    paths::PathResolver,
    reload::{live, restart},
    section::config_section,
    values::{self, GIB, MIB},
};

/// Maximum of `message_ids_max`: more ids than arrive within hours.
const MESSAGE_IDS_MAX: usize = 1_000_000_000;

config_section! {
    /// The `[ingest]` section.
    pub struct IngestSection("ingest") {
        /// Address and port, or a Unix socket; `127.0.0.1:3001`. Port 0 picks a free port. Without
        /// a key it must be loopback or a Unix socket.
        restart listen: ListenAddress = ListenAddress::Tcp((Ipv4Addr::LOCALHOST, 3001).into());
        /// The mode of the Unix socket; `0660`.
        restart socket_mode: SocketMode = SocketMode::default();
        /// The group of the Unix socket; with `None`, the default, the relay's own group.
        restart socket_group: Option<String> = None;
        /// Maximum size of an event's body; 1 MiB.
        #[serde(deserialize_with = "values::size")]
        live body_max: usize = MIB, check_size(1..=GIB);
        /// Maximum size of a batch's body; 8 MiB.
        #[serde(deserialize_with = "values::size")]
        live batch_body_max: usize = 8 * MIB, check_size(1..=GIB);
        /// Maximum number of events in a batch; 1,000.
        #[serde(deserialize_with = "values::count")]
        live batch_events_max: usize = 1_000, check_count();
        /// Maximum time that a call waits for the shards to queue its events before it is answered
        /// with 202; 5 s.
        #[serde(deserialize_with = "values::duration")]
        live ack_timeout: Duration = Duration::from_secs(5), check_duration();
        /// Maximum time that a call waits for room in the shards' inboxes before it is answered
        /// with 503; 2 s.
        #[serde(deserialize_with = "values::duration")]
        live inbox_timeout: Duration = Duration::from_secs(2), check_duration();
        /// Time for which the message ids set by backends are remembered; 5 min.
        #[serde(deserialize_with = "values::duration")]
        restart message_id_age: Duration = Duration::from_mins(5), check_duration();
        /// Maximum number of message ids remembered per tenant; 100,000.
        #[serde(deserialize_with = "values::count")]
        restart message_ids_max: usize = 100_000, check_count();
        /// Maximum bytes of remembered message ids of all tenants; 64 MiB.
        #[serde(deserialize_with = "values::size")]
        restart message_id_bytes_max: usize = 64 * MIB, check_size(MIB..=1024 * GIB);
        /// Number of events that may be posted for a tenant at once; no bound if `None`, the
        /// default.
        #[serde(deserialize_with = "values::bound")]
        live tenant_burst: Option<NonZeroU32> = None;
        /// Time in which `tenant_burst` refills; 1 s.
        #[serde(deserialize_with = "values::duration")]
        live tenant_period: Duration = Duration::from_secs(1), check_duration();
        /// `[[ingest.keys]]`: the keys of the backends; none by default, in which case any process
        /// that can connect may post events.
        live keys: Vec<IngestKeyEntry> = Vec::new();
    }
}

/// An entry of `[[ingest.keys]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestKeyEntry {
    /// Unique name of the key in logs: 1 to 128 bytes without control characters.
    pub name: String,
    /// The file with the key.
    pub key_file: PathBuf,
    /// The tenants that the key may be used for; all if `None`; never empty.
    #[serde(default, deserialize_with = "values::tenants_if_given")]
    pub tenants: Option<Vec<TenantName>>,
    /// Number of events that may be posted with the key at once; no bound if `None`.
    #[serde(default, deserialize_with = "values::bound")]
    pub burst: Option<NonZeroU32>,
    /// Time in which `burst` refills; 1 s if `None`.
    #[serde(default, deserialize_with = "values::duration_if_given")]
    pub period: Option<Duration>,
}

impl IngestSection {
    pub(super) fn check(&self, problems: &mut ConfigProblems) {
        self.check_bounds(problems);
        if self.message_ids_max > MESSAGE_IDS_MAX {
            problems.add_problem(
                "ingest.message_ids_max",
                format!("is {}", self.message_ids_max),
                format!("the maximum is {MESSAGE_IDS_MAX}"),
            );
        }
        self.listen.check_group(
            "ingest.socket_group",
            self.socket_group.as_deref(),
            problems,
        );
        if self.keys.is_empty() && !self.listen.is_local() {
            problems.add_problem(
                "ingest.listen",
                format!(
                    "is {}, which is not loopback, and there is no key: anyone who can connect could inject events",
                    self.listen
                ),
                "add [[ingest.keys]] with a name and a key_file, or listen on 127.0.0.1 or a Unix socket",
            );
        }
        for (index, key) in self.keys.iter().enumerate() {
            let earlier = self.keys.iter().take(index);
            key.check(&format!("ingest.keys[{index}]"), earlier, problems);
        }
    }

    pub(super) fn resolve_paths(&mut self, paths: &PathResolver, problems: &mut ConfigProblems) {
        self.listen.resolve_path("ingest.listen", paths, problems);
        for (index, key) in self.keys.iter_mut().enumerate() {
            let place = format!("ingest.keys[{index}].key_file");
            paths.resolve(place, &mut key.key_file, problems);
        }
    }
}

impl IngestKeyEntry {
    fn check<'a>(
        &self,
        place: &str,
        mut earlier: impl Iterator<Item = &'a Self>,
        problems: &mut ConfigProblems,
    ) {
        let name = format!("{place}.name");
        if self.name.is_empty()
            || self.name.len() > NAME_BYTES_MAX
            || has_control_character(&self.name)
        {
            let hint = format!("1 to {NAME_BYTES_MAX} bytes without control characters");
            problems.add_problem(name, "is not a valid name", hint);
        } else if let Some(namesake) = earlier.position(|key| key.name == self.name) {
            problems.add_problem(
                name,
                format!(
                    "{:?} is also the name of ingest.keys[{namesake}]",
                    self.name
                ),
                "logs identify keys by name; give each key its own name",
            );
        }
        if let Some(period) = self.period {
            problems.check_duration(&format!("{place}.period"), period);
            if self.burst.is_none() {
                problems.add_problem(
                    format!("{place}.period"),
                    "has no effect without burst",
                    "add burst, the number of events that may be posted at once, or remove period",
                );
            }
        }
        if self.tenants.as_ref().is_some_and(Vec::is_empty) {
            problems.add_problem(
                format!("{place}.tenants"),
                "is empty, so the key could not be used for any tenant",
                "name a tenant, or remove `tenants` to allow all tenants",
            );
        }
    }
}
