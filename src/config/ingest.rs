//! `[ingest]`: the listener of the backends and what holds for each of their
//! calls. Names the files of the keys and never reads one.

use std::{net::Ipv4Addr, num::NonZeroU32, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{
    error::Problems,
    listen::{Listen, SocketMode},
    paths::Paths,
    values::{self, GIB, MIB},
};
use crate::protocol::{
    TenantName,
    name::{NAME_BYTES_MAX, has_control_character},
};

/// The most message ids of a tenant: more than arrive in hours.
const MESSAGE_IDS_MAX: usize = 1_000_000_000;

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// Address and port, or a Unix socket; `127.0.0.1:3001`. Port 0 is a free one.
    /// Loopback or a Unix socket unless there is a key.
    pub listen: Listen,
    /// The mode of the Unix socket; `0660`.
    pub socket_mode: SocketMode,
    /// The group that the Unix socket is given to; `None`, the default: the relay's
    /// own.
    pub socket_group: Option<String>,
    /// The most bytes of an event's body; 1 MiB.
    #[serde(deserialize_with = "values::size")]
    pub body_max: usize,
    /// The most bytes of a batch's body; 8 MiB.
    #[serde(deserialize_with = "values::size")]
    pub batch_body_max: usize,
    /// The most events in a batch; 1,000.
    #[serde(deserialize_with = "values::count")]
    pub batch_events_max: usize,
    /// How long a call waits for the shards to queue its event before it answers
    /// 202; 5 s.
    #[serde(deserialize_with = "values::duration")]
    pub ack_timeout: Duration,
    /// How long a call waits for room in the shards' inboxes before it answers
    /// 503; 2 s.
    #[serde(deserialize_with = "values::duration")]
    pub inbox_timeout: Duration,
    /// For how long the message ids that backends give are remembered; 5 min.
    #[serde(deserialize_with = "values::duration")]
    pub message_id_age: Duration,
    /// The most message ids that are remembered of a tenant; 100,000.
    #[serde(deserialize_with = "values::count")]
    pub message_ids_max: usize,
    /// The most bytes that remembered message ids take for all tenants; 64 MiB.
    #[serde(deserialize_with = "values::size")]
    pub message_id_bytes_max: usize,
    /// How many events may be posted for a tenant at once; no bound where `None`, the
    /// default.
    #[serde(deserialize_with = "values::bound")]
    pub tenant_burst: Option<NonZeroU32>,
    /// The time in which as many may be posted again; 1 s.
    #[serde(deserialize_with = "values::duration")]
    pub tenant_period: Duration,
    /// `[[ingest.keys]]`: who may call; none by default, and then whoever can
    /// connect may.
    pub keys: Vec<IngestKey>,
}

/// One `[[ingest.keys]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestKey {
    /// What logs call it: 1 to 128 bytes without control characters, different
    /// for each.
    pub name: String,
    /// The file that holds the key.
    pub key_file: PathBuf,
    /// The tenants that it may be used for; all where `None`, never none.
    #[serde(default, deserialize_with = "values::tenants_if_given")]
    pub tenants: Option<Vec<TenantName>>,
    /// How many events may be posted with it at once; no bound where `None`.
    #[serde(default, deserialize_with = "values::bound")]
    pub burst: Option<NonZeroU32>,
    /// The time in which as many may be posted again; 1 s where `None`.
    #[serde(default, deserialize_with = "values::duration_if_given")]
    pub period: Option<Duration>,
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            listen: Listen::Tcp((Ipv4Addr::LOCALHOST, 3001).into()),
            socket_mode: SocketMode::default(),
            socket_group: None,
            body_max: MIB,
            batch_body_max: 8 * MIB,
            batch_events_max: 1_000,
            ack_timeout: Duration::from_secs(5),
            inbox_timeout: Duration::from_secs(2),
            message_id_age: Duration::from_mins(5),
            message_ids_max: 100_000,
            message_id_bytes_max: 64 * MIB,
            tenant_burst: None,
            tenant_period: Duration::from_secs(1),
            keys: Vec::new(),
        }
    }
}

impl Ingest {
    pub(super) fn check(&self, problems: &mut Problems) {
        problems.check_size("ingest.body_max", self.body_max, 1..=GIB);
        problems.check_size("ingest.batch_body_max", self.batch_body_max, 1..=GIB);
        problems.check_count("ingest.batch_events_max", self.batch_events_max);
        problems.check_duration("ingest.ack_timeout", self.ack_timeout);
        problems.check_duration("ingest.inbox_timeout", self.inbox_timeout);
        problems.check_duration("ingest.message_id_age", self.message_id_age);
        self.check_message_ids(problems);
        problems.check_duration("ingest.tenant_period", self.tenant_period);
        self.listen.check_group(
            "ingest.socket_group",
            self.socket_group.as_deref(),
            problems,
        );
        if self.keys.is_empty() && !self.listen.is_local() {
            problems.refuse(
                "ingest.listen",
                format!(
                    "is {}, which is not loopback, and there is no key: whoever can connect could inject events",
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

    fn check_message_ids(&self, problems: &mut Problems) {
        problems.check_count("ingest.message_ids_max", self.message_ids_max);
        if self.message_ids_max > MESSAGE_IDS_MAX {
            problems.refuse(
                "ingest.message_ids_max",
                format!("is {}", self.message_ids_max),
                format!("the most is {MESSAGE_IDS_MAX}"),
            );
        }
        problems.check_size(
            "ingest.message_id_bytes_max",
            self.message_id_bytes_max,
            MIB..=1024 * GIB,
        );
    }

    pub(super) fn resolve(&mut self, paths: &Paths, problems: &mut Problems) {
        self.listen.resolve("ingest.listen", paths, problems);
        for (index, key) in self.keys.iter_mut().enumerate() {
            let place = format!("ingest.keys[{index}].key_file");
            paths.resolve(place, &mut key.key_file, problems);
        }
    }
}

impl IngestKey {
    fn check<'a>(
        &self,
        place: &str,
        mut earlier: impl Iterator<Item = &'a Self>,
        problems: &mut Problems,
    ) {
        let name = format!("{place}.name");
        if self.name.is_empty()
            || self.name.len() > NAME_BYTES_MAX
            || has_control_character(&self.name)
        {
            let hint = format!("1 to {NAME_BYTES_MAX} bytes without control characters");
            problems.refuse(name, "is no name", hint);
        } else if let Some(namesake) = earlier.position(|key| key.name == self.name) {
            problems.refuse(
                name,
                format!("{:?} is the name of ingest.keys[{namesake}] too", self.name),
                "logs tell keys apart by their names; give each its own",
            );
        }
        if let Some(period) = self.period {
            problems.check_duration(&format!("{place}.period"), period);
            if self.burst.is_none() {
                problems.refuse(
                    format!("{place}.period"),
                    "says how fast a bucket fills that the key does not have",
                    "add burst, the events that may be posted at once, or remove it",
                );
            }
        }
        if self.tenants.as_ref().is_some_and(Vec::is_empty) {
            problems.refuse(
                format!("{place}.tenants"),
                "is empty, so the key could be used for nothing",
                "name a tenant, or leave the key out to allow all",
            );
        }
    }
}
