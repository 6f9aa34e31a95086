//! Writes a window.

use std::{
    collections::HashMap,
    io::{BufWriter, Write},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use sidewire_protocol::{Position, TenantName, Topic, schema::Schema};
use tokio::time::Instant;

use super::{
    SaveError, SaveStop, WindowTime,
    records::{
        EndRecord, EventRecord, MessageIdRecord, RecordKind, RecordWriter, SchemaRecord,
        StartRecord, TenantRecord,
    },
};
use crate::{
    event::Event,
    hub::{TenantRegistry, TenantSnapshot},
};

/// Number of events between two looks at whether to stop.
const EVENTS_PER_CHECK: usize = 1000;

/// What a file holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowSize {
    /// Number of tenants with events or message ids.
    pub tenants: u64,
    /// Number of events.
    pub events: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// What a file is made of.
pub(super) struct WindowContent<'a> {
    /// The number of the run.
    pub(super) run: u64,
    pub(super) registry: &'a TenantRegistry,
    /// The schema in force.
    pub(super) schema: &'a Arc<Schema>,
}

/// Writes the window. Returns the file.
pub(super) fn write_window<W: Write>(
    to: W,
    content: &WindowContent<'_>,
    time: WindowTime,
    stop: &SaveStop,
) -> Result<(W, WindowSize), SaveError> {
    let to = BufWriter::with_capacity(1 << 16, to);
    let mut writer = WindowWriter {
        records: RecordWriter::new(to)?,
        schemas: HashMap::new(),
        size: WindowSize::default(),
        now: time.now,
    };
    writer.records.write(RecordKind::Start(StartRecord {
        run: content.run,
        written_at_ms: milliseconds(time.since_epoch),
        fingerprint_key: content.registry.fingerprint_key().to_bytes().to_vec(),
        envelope: content.schema.envelope_name().to_owned(),
    }))?;
    for tenant in content.registry.snapshots(time.now) {
        stop.check()?;
        writer.write_tenant(&tenant, stop)?;
    }
    // Last, since the clients that leave meanwhile may make a tenant dormant.
    for (name, head) in content.registry.dormant_heads() {
        let dormant = tenant_record(&name, head);
        writer.records.write(RecordKind::Dormant(dormant))?;
    }
    writer.records.write(RecordKind::End(EndRecord {
        tenants: writer.size.tenants,
        events: writer.size.events,
    }))?;
    let (to, bytes) = writer.records.finish()?;
    let file = to.into_inner().map_err(|error| error.into_error())?;
    Ok((
        file,
        WindowSize {
            bytes,
            ..writer.size
        },
    ))
}

struct WindowWriter<W> {
    records: RecordWriter<W>,
    /// The numbers of the schemas that have been written, by their address.
    schemas: HashMap<*const Schema, u32>,
    size: WindowSize,
    now: Instant,
}

impl<W: Write> WindowWriter<W> {
    fn write_tenant(&mut self, tenant: &TenantSnapshot, stop: &SaveStop) -> Result<(), SaveError> {
        let record = tenant_record(&tenant.name, tenant.head);
        self.records.write(RecordKind::Tenant(record))?;
        self.size.tenants += 1;
        for events in tenant.events.chunks(EVENTS_PER_CHECK) {
            stop.check()?;
            for event in events {
                self.write_event(event)?;
            }
        }
        for known in &tenant.message_ids {
            self.records.write(RecordKind::MessageId(MessageIdRecord {
                id: known.fingerprint.id.to_vec(),
                body: known.fingerprint.body.to_vec(),
                offset: known.offset,
                age_ms: self.age_ms(known.since),
            }))?;
        }
        Ok(())
    }

    fn write_event(&mut self, event: &Event) -> Result<(), SaveError> {
        let schema = self.schema_number(event.schema())?;
        let topics = event.topics().iter().map(Topic::to_string).collect();
        self.records.write(RecordKind::Event(EventRecord {
            offset: event.position().offset,
            age_ms: self.age_ms(event.placed_at()),
            schema,
            topics,
            envelope: Bytes::copy_from_slice(event.envelope_without_position()),
        }))?;
        self.size.events += 1;
        Ok(())
    }

    /// Returns the number of the schema, which is written when it occurs first.
    fn schema_number(&mut self, schema: &Arc<Schema>) -> Result<u32, SaveError> {
        let key = Arc::as_ptr(schema);
        if let Some(number) = self.schemas.get(&key) {
            return Ok(*number);
        }
        self.records.write(RecordKind::Schema(SchemaRecord {
            descriptor_set: schema.to_descriptor_set(),
        }))?;
        let number = u32::try_from(self.schemas.len()).unwrap_or(u32::MAX);
        self.schemas.insert(key, number);
        Ok(number)
    }

    fn age_ms(&self, since: Instant) -> u64 {
        milliseconds(self.now.saturating_duration_since(since))
    }
}

fn tenant_record(name: &TenantName, head: Position) -> TenantRecord {
    TenantRecord {
        name: name.as_str().to_owned(),
        epoch: head.epoch.to_string(),
        head: head.offset,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
