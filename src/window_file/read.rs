//! Reads a window, and checks that it is whole.

use std::{io::Read, sync::Arc, time::Duration};

use sidewire_protocol::{Epoch, Position, TenantName, Topic, schema::Schema};
use tokio::time::Instant;

use super::{
    WindowTime,
    records::{
        EventRecord, MessageIdRecord, RecordKind, RecordReader, SchemaRecord, StartRecord,
        TenantRecord, WindowFileFault,
    },
};
use crate::{
    event::{EventBody, Fingerprint, FingerprintKey},
    hub::{KeptEvent, KeptTenant, KeptWindow},
    log::RememberedId,
};

/// What a file must match.
pub(super) struct ExpectedWindow<'a> {
    /// The number of the run that must have written it.
    pub(super) run: u64,
    /// The longest time since it was written.
    pub(super) age_max: Duration,
    /// The schema in force.
    pub(super) schema: &'a Arc<Schema>,
}

/// Returns the window.
pub(super) fn read_window(
    from: impl Read,
    expected: &ExpectedWindow<'_>,
    time: WindowTime,
) -> Result<KeptWindow, WindowFileFault> {
    let mut records = RecordReader::new(from)?;
    let Some(RecordKind::Start(start)) = records.read()? else {
        return Err(WindowFileFault::Damaged("it does not begin with its start"));
    };
    let mut reader = WindowReader::new(&start, expected, time)?;
    let end = loop {
        match records.read()? {
            Some(RecordKind::Schema(record)) => reader.schema(&record)?,
            Some(RecordKind::Tenant(record)) => reader.tenant(&record)?,
            Some(RecordKind::Event(record)) => reader.event(record)?,
            Some(RecordKind::MessageId(record)) => reader.message_id(&record)?,
            Some(RecordKind::Dormant(record)) => {
                reader.window.dormant.push(name_and_head(&record)?);
            }
            Some(RecordKind::End(end)) => break end,
            Some(RecordKind::Start(_)) => return Err(WindowFileFault::Damaged("it starts twice")),
            // A later version of the same format has written it.
            None => {}
        }
    };
    records.finish()?;
    reader.check_last_tenant()?;
    let window = reader.window;
    let events: usize = window.tenants.iter().map(|it| it.events.len()).sum();
    if (end.tenants, end.events) != (window.tenants.len() as u64, events as u64) {
        return Err(WindowFileFault::Damaged("records are missing"));
    }
    Ok(window)
}

struct WindowReader<'a> {
    /// The schema in force.
    current: &'a Arc<Schema>,
    /// The schemas of the file, by number.
    schemas: Vec<Arc<Schema>>,
    now: Instant,
    /// Time since the file was written.
    down_for: Duration,
    window: KeptWindow,
}

impl<'a> WindowReader<'a> {
    fn new(
        start: &StartRecord,
        expected: &ExpectedWindow<'a>,
        time: WindowTime,
    ) -> Result<Self, WindowFileFault> {
        let current = expected.schema;
        if start.envelope != current.envelope_name() {
            return Err(WindowFileFault::Foreign {
                found: start.envelope.clone(),
                expected: current.envelope_name().to_owned(),
            });
        }
        if start.run != expected.run {
            return Err(WindowFileFault::OtherRun);
        }
        let key = bytes_16(&start.fingerprint_key)?;
        let written_at = Duration::from_millis(start.written_at_ms);
        // Zero if the clock has been set back.
        let down_for = time.since_epoch.saturating_sub(written_at);
        if down_for > expected.age_max {
            return Err(WindowFileFault::TooOld(Duration::from_secs(
                down_for.as_secs(),
            )));
        }
        Ok(Self {
            current,
            schemas: Vec::new(),
            now: time.now,
            down_for,
            window: KeptWindow {
                fingerprint_key: FingerprintKey::from_bytes(key),
                tenants: Vec::new(),
                dormant: Vec::new(),
            },
        })
    }

    fn schema(&mut self, record: &SchemaRecord) -> Result<(), WindowFileFault> {
        let set = &record.descriptor_set;
        let schema = Schema::from_descriptor_set(set, self.current.envelope_name());
        let schema = schema.map_err(|_| WindowFileFault::Damaged("a schema is invalid"))?;
        if !schema.breaking_changes(self.current).is_empty() {
            return Err(WindowFileFault::Incompatible);
        }
        self.schemas
            .push(match schema.revision() == self.current.revision() {
                true => Arc::clone(self.current),
                false => Arc::new(schema),
            });
        Ok(())
    }

    fn tenant(&mut self, record: &TenantRecord) -> Result<(), WindowFileFault> {
        self.check_last_tenant()?;
        let (name, head) = name_and_head(record)?;
        self.window.tenants.push(KeptTenant {
            name,
            head,
            events: Vec::new(),
            message_ids: Vec::new(),
        });
        Ok(())
    }

    fn event(&mut self, record: EventRecord) -> Result<(), WindowFileFault> {
        let schema = usize::try_from(record.schema).ok();
        let schema = schema.and_then(|number| self.schemas.get(number));
        let schema = schema.ok_or(WindowFileFault::Damaged("an event has no schema"))?;
        let topics: Result<Arc<[Topic]>, _> = record
            .topics
            .iter()
            .map(|topic| Topic::parse(topic))
            .collect();
        let topics = topics.map_err(|_| WindowFileFault::Damaged("a topic is invalid"))?;
        let body = EventBody::of_stored(&record.envelope, topics, Arc::clone(schema));
        let placed = self.time_of(record.age_ms)?;
        let tenant = self.last_tenant()?;
        let before = tenant.events.last().map(|event| event.offset);
        if record.offset == 0 || before.is_some_and(|it| it.checked_add(1) != Some(record.offset)) {
            return Err(WindowFileFault::Damaged("a log has a gap"));
        }
        tenant.events.push(KeptEvent {
            body,
            offset: record.offset,
            placed,
        });
        Ok(())
    }

    fn message_id(&mut self, record: &MessageIdRecord) -> Result<(), WindowFileFault> {
        let known = RememberedId {
            fingerprint: Fingerprint {
                id: bytes_16(&record.id)?,
                body: bytes_16(&record.body)?,
            },
            offset: record.offset,
            since: self.time_of(record.age_ms)?,
        };
        self.last_tenant()?.message_ids.push(known);
        Ok(())
    }

    fn last_tenant(&mut self) -> Result<&mut KeptTenant, WindowFileFault> {
        let last = self.window.tenants.last_mut();
        last.ok_or(WindowFileFault::Damaged("there is no tenant"))
    }

    /// Checks that the tenant's events end at the head of its log.
    fn check_last_tenant(&self) -> Result<(), WindowFileFault> {
        let Some(tenant) = self.window.tenants.last() else {
            return Ok(());
        };
        let last = tenant.events.last().map(|event| event.offset);
        match last.is_none_or(|last| last == tenant.head.offset) {
            true => Ok(()),
            false => Err(WindowFileFault::Damaged("a log has a gap")),
        }
    }

    /// Returns the time of what was this old when the file was written.
    fn time_of(&self, age_ms: u64) -> Result<Instant, WindowFileFault> {
        let age = Duration::from_millis(age_ms).saturating_add(self.down_for);
        let time = self.now.checked_sub(age);
        time.ok_or(WindowFileFault::Damaged("an age is too large"))
    }
}

fn name_and_head(record: &TenantRecord) -> Result<(TenantName, Position), WindowFileFault> {
    let name = TenantName::parse(&record.name);
    let name = name.map_err(|_| WindowFileFault::Damaged("the name of a tenant is invalid"))?;
    let epoch: Result<Epoch, _> = record.epoch.parse();
    let epoch = epoch.map_err(|_| WindowFileFault::Damaged("an epoch is invalid"))?;
    let head = Position {
        epoch,
        offset: record.head,
    };
    Ok((name, head))
}

fn bytes_16(bytes: &[u8]) -> Result<[u8; 16], WindowFileFault> {
    let bytes = bytes.try_into();
    bytes.map_err(|_| WindowFileFault::Damaged("a key or fingerprint has not 16 bytes"))
}
