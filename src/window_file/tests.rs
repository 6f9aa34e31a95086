//! Tests of the window file: what a restart keeps, what it refuses, and that no file is used twice.

use std::{os::unix::fs::PermissionsExt, sync::LazyLock};

use proptest::prelude::*;
use sidewire_protocol::{
    MessageId, Position, TenantName, Topic, envelope::key, random::RandomSource,
    schema::BundledSchema,
};
use tempfile::TempDir;

use super::*;
use crate::{
    event::{EventDraft, EventDraftParts, FingerprintKey, tests::schema},
    hub::{
        AppendError, HubParts, PlacedEvent, PublishTimeouts, RegistryLimits, TenantView,
        tests::WIDE,
    },
    log::{LogWindow, MessageIdLimits},
};

const LIMITS: RegistryLimits = RegistryLimits {
    window: LogWindow {
        events: 10,
        ..WIDE.window
    },
    message_ids: MessageIdLimits {
        age: Duration::from_secs(200),
        ..WIDE.message_ids
    },
    ..WIDE
};

/// The time of day at which the tests begin.
const BEGIN: Duration = Duration::from_secs(1_800_000_000);

/// The tenants of one relay.
struct Tenants {
    registry: Arc<TenantRegistry>,
    hub: HubParts,
}

impl Tenants {
    fn new(seed: u64) -> Self {
        Self::restored(seed, None)
    }

    fn restored(seed: u64, window: Option<KeptWindow>) -> Self {
        Self::within(LIMITS, seed, window)
    }

    fn within(limits: RegistryLimits, seed: u64, window: Option<KeptWindow>) -> Self {
        let random = Arc::new(RandomSource::from_seed(seed));
        let mut registry = TenantRegistry::new(limits, random);
        if let Some(window) = window {
            registry.restore(window, Instant::now());
        }
        let registry = Arc::new(registry);
        let timeouts = PublishTimeouts {
            inbox: Duration::from_secs(2),
            ack: Duration::from_secs(5),
        };
        let hub = HubParts::new(&registry, timeouts, 1, &Clock::system());
        Self { registry, hub }
    }

    /// Posts an event with this id and body.
    async fn post(&self, tenant: &str, id: &str, body: &str) -> Result<PlacedEvent, AppendError> {
        self.post_under(&schema(), tenant, id, body).await
    }

    async fn post_under(
        &self,
        schema: &Arc<Schema>,
        tenant: &str,
        id: &str,
        body: &str,
    ) -> Result<PlacedEvent, AppendError> {
        let draft = draft(schema, self.registry.fingerprint_key(), id, body);
        let appended = self
            .hub
            .publisher
            .append(&name(tenant), vec![draft])
            .await?;
        Ok(appended.wait_acknowledged().await.events[0])
    }

    async fn offsets(&self, tenant: &str, count: u64) {
        for offset in 1..=count {
            let placed = self.post(tenant, &format!("{tenant}-{offset}"), "x").await;
            assert_eq!(placed.unwrap().position.offset, offset);
        }
    }

    fn view(&self, tenant: &str) -> Option<TenantView> {
        self.hub.publisher.admin().view_tenant(&name(tenant))
    }

    /// Returns each event of a tenant: its frame, its topics, and its age in seconds.
    fn events(&self, tenant: &str) -> Vec<(Vec<u8>, Vec<String>, u64)> {
        let now = Instant::now();
        let snapshots = self.registry.snapshots(now);
        let mut its = snapshots.filter(|it| it.name.as_str() == tenant);
        let events = its.next().map(|it| it.events).unwrap_or_default();
        let shown = |event: &Arc<crate::event::Event>| {
            let topics = event.topics().iter().map(Topic::to_string).collect();
            let age = now.duration_since(event.placed_at()).as_secs();
            (event.frame().to_vec(), topics, age)
        };
        events.iter().map(shown).collect()
    }
}

fn name(tenant: &str) -> TenantName {
    TenantName::parse(tenant).unwrap()
}

fn draft(schema: &Arc<Schema>, hashes: &FingerprintKey, id: &str, body: &str) -> EventDraft {
    let id = MessageId::parse(id).unwrap();
    let topics = [format!("project:{body}"), "tenant:*".to_owned()];
    let topics: Arc<[Topic]> = topics.iter().map(|it| Topic::parse(it).unwrap()).collect();
    let fingerprint = hashes.fingerprint(&id, &[body.as_bytes()], &topics);
    let parts = EventDraftParts {
        kept: &[&[key::TIMESTAMP, 7]],
        message_id: id,
        append_message_id: true,
        append_timestamp: None,
        topics,
        schema: Arc::clone(schema),
    };
    EventDraft::new(parts).with_fingerprint(Some(fingerprint))
}

/// A file, and the run of a relay.
struct Fixture {
    directory: TempDir,
    file: WindowFile,
    clock: Clock,
}

/// The longest time for which a file is used.
const AGE_MAX: Duration = Duration::from_secs(5_000);

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = WindowFile::begin_run(directory.path().join("window")).unwrap();
        Self {
            directory,
            file,
            clock: Clock::simulated(BEGIN),
        }
    }

    fn save(&self, tenants: &Tenants) -> WindowSize {
        let stop = SaveStop::default();
        let saved = self
            .file
            .save(&tenants.registry, &schema(), &self.clock, &stop);
        saved.unwrap()
    }

    /// Begins the next run, and takes what the last one left.
    fn take(&mut self) -> TakenWindow {
        self.file = WindowFile::begin_run(self.file.path().to_owned()).unwrap();
        self.file.take(&schema(), &self.clock, AGE_MAX)
    }

    fn taken(&mut self) -> KeptWindow {
        match self.take() {
            TakenWindow::Taken(window) => *window,
            other => panic!("{other:?}"),
        }
    }

    fn rejected(&mut self) -> String {
        match self.take() {
            TakenWindow::Rejected(fault, _) => fault.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// Returns the names of the files, sorted.
    fn names(&self) -> Vec<String> {
        let files = fs::read_dir(&self.directory).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }
}

#[tokio::test(start_paused = true)]
async fn logs_heads_and_message_ids_survive() {
    let mut fixture = Fixture::new();
    let before = Tenants::new(1);
    before.offsets("acme", 3).await;
    before.offsets("beta", 12).await;
    let size = fixture.save(&before);
    assert_eq!((size.tenants, size.events), (2, 13), "beta has evicted two");
    assert_eq!(fixture.names(), ["window", "window.run"]);
    let metadata = fs::metadata(fixture.file.path()).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(metadata.len(), size.bytes);

    let after = Tenants::restored(2, Some(fixture.taken()));
    assert_eq!(fixture.names(), ["window.run"]);
    for tenant in ["acme", "beta"] {
        assert_eq!(after.events(tenant), before.events(tenant));
        let [then, now] = [&before, &after].map(|it| it.view(tenant).unwrap());
        assert_eq!((now.head, now.tail), (then.head, then.tail));
    }
    assert_eq!(after.registry.log_bytes(), before.registry.log_bytes());
    // The next event continues the log, and a repeated one is recognized.
    let again = after.post("acme", "acme-2", "x").await.unwrap();
    assert_eq!((again.position.offset, again.duplicate), (2, true));
    let conflict = after.post("acme", "acme-2", "y").await;
    assert!(matches!(conflict, Err(AppendError::Conflicts(_))));
    let next = after.post("acme", "new", "x").await.unwrap();
    let head = before.view("acme").unwrap().head;
    let expected = Position { offset: 4, ..head };
    assert_eq!((next.position, next.duplicate), (expected, false));
}

#[tokio::test(start_paused = true)]
async fn what_has_aged_out_meanwhile_is_dropped_and_the_head_is_kept() {
    let mut fixture = Fixture::new();
    let before = Tenants::new(1);
    before.offsets("acme", 2).await;
    tokio::time::sleep(Duration::from_secs(150)).await;
    before.post("acme", "late", "x").await.unwrap();
    before.offsets("beta", 1).await;
    fixture.save(&before);
    tokio::time::sleep(Duration::from_secs(149)).await;
    let after = Tenants::restored(2, Some(fixture.taken()));
    let ages: Vec<_> = after.events("acme").iter().map(|it| it.2).collect();
    assert_eq!(ages, [299, 299, 149]);
    // The ids are kept for 200 s.
    let early = after.post("acme", "acme-1", "x").await.unwrap();
    assert!(!early.duplicate);
    let late = after.post("acme", "late", "x").await.unwrap();
    assert!(late.duplicate);

    let head = after.view("acme").unwrap().head;
    fixture.save(&after);
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    let last = Tenants::restored(3, Some(fixture.taken()));
    assert!(last.view("acme").is_none(), "it has only a head");
    assert_eq!(last.registry.dormant_len(), 2);
    let next = last.post("acme", "acme-1", "x").await.unwrap();
    let offset = head.offset + 1;
    assert_eq!(next.position, Position { offset, ..head });
    // Heads survive also from one file to the next.
    fixture.save(&last);
    let heads = fixture.taken().dormant;
    assert_eq!(heads.len(), 1);
    assert_eq!(heads[0].0, name("beta"));
}

#[tokio::test(start_paused = true)]
async fn smaller_limits_keep_the_newest() {
    let mut fixture = Fixture::new();
    let before = Tenants::new(1);
    before.offsets("acme", 9).await;
    before.offsets("beta", 1).await;
    fixture.save(&before);
    let mut limits = LIMITS;
    (limits.tenants, limits.window.events) = (1, 4);
    let after = Tenants::within(limits, 2, Some(fixture.taken()));
    let kept = after.registry.snapshots(Instant::now()).next().unwrap();
    let offsets: Vec<_> = kept.events.iter().map(|it| it.position().offset).collect();
    let head = kept.head.offset;
    assert!(
        offsets.len() <= 4 && offsets.last() == Some(&head),
        "{offsets:?}"
    );
    assert_eq!(after.registry.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_next_run_uses_a_file_even_if_somebody_brings_it_back() {
    let mut fixture = Fixture::new();
    assert!(matches!(fixture.take(), TakenWindow::Missing));
    let tenants = Tenants::new(1);
    tenants.offsets("acme", 1).await;
    fixture.save(&tenants);
    let copy = fixture.directory.path().join("copy");
    fs::copy(fixture.file.path(), &copy).unwrap();
    fixture.taken();
    assert!(matches!(fixture.take(), TakenWindow::Missing));
    fs::copy(&copy, fixture.file.path()).unwrap();
    let other_run = WindowFileFault::OtherRun.to_string();
    assert_eq!(fixture.rejected(), other_run);
    assert_eq!(fixture.names(), ["copy", "window.rejected", "window.run"]);
    // Nor is a file that a run could neither use nor move away.
    fixture.save(&tenants);
    let run = fs::read(fixture.directory.path().join("window.run")).unwrap();
    fs::copy(fixture.file.path(), &copy).unwrap();
    fixture.taken();
    fs::copy(&copy, fixture.file.path()).unwrap();
    assert_eq!(fixture.rejected(), other_run);
    // If both files come from a backup, the age of the file counts.
    fs::copy(&copy, fixture.file.path()).unwrap();
    fs::write(fixture.directory.path().join("window.run"), run).unwrap();
    tokio::time::sleep(AGE_MAX + Duration::from_secs(1)).await;
    let reason = fixture.rejected();
    assert!(
        reason.starts_with("it was written 1h 23m 21s ago"),
        "{reason}"
    );
    fixture.save(&tenants);
    fixture.taken();
}

#[tokio::test(start_paused = true)]
async fn other_files_are_set_aside_with_the_reason() {
    let mut fixture = Fixture::new();
    let tenants = Tenants::new(1);
    tenants.offsets("acme", 2).await;
    fixture.save(&tenants);
    let good = fs::read(fixture.file.path()).unwrap();
    let generic = Arc::new(
        BundledSchema::by_name("generic")
            .unwrap()
            .compile()
            .unwrap(),
    );
    let next = WindowFile::begin_run(fixture.file.path().to_owned()).unwrap();
    let foreign = next.take(&generic, &fixture.clock, AGE_MAX);
    let TakenWindow::Rejected(foreign, _) = foreign else {
        panic!("{foreign:?}");
    };
    let reason = foreign.to_string();
    assert!(reason.contains("generic.v1.Envelope"), "{reason}");
    let newer = [b"sidewire-window\x02", &good[16..]].concat();
    let longer = [&good[..], b"x"].concat();
    for (bytes, reason) in [
        (&b""[..], "it is not a window file"),
        (
            b"[replay]\n# a file of somebody else",
            "it is not a window file",
        ),
        (&newer, "version 2, which a newer Sidewire writes"),
        (&good[..good.len() - 1], "it is damaged: it is cut off"),
        (&longer, "it is damaged: something follows its end"),
    ] {
        fs::write(fixture.file.path(), bytes).unwrap();
        // All are of the first run.
        fs::write(fixture.directory.path().join("window.run"), "1").unwrap();
        let rejected = fixture.rejected();
        assert!(rejected.contains(reason), "{rejected}");
        assert_eq!(fixture.names(), ["window.rejected", "window.run"]);
        assert_eq!(
            fs::read(fixture.directory.path().join("window.rejected")).unwrap(),
            bytes
        );
    }
    fs::create_dir(fixture.file.path()).unwrap();
    fs::remove_file(fixture.directory.path().join("window.rejected")).unwrap();
    assert_eq!(fixture.rejected(), "it is not a window file");
}

#[test]
fn a_run_whose_number_cannot_be_written_does_not_begin() {
    let fixture = Fixture::new();
    let path = fixture.file.path().to_owned();
    let run = fixture.directory.path().join("window.run");
    for text in ["", "seven", "18446744073709551615"] {
        fs::write(&run, text).unwrap();
        let error = WindowFile::begin_run(path.clone()).unwrap_err();
        assert!(
            error.to_string().ends_with("window.run has no number"),
            "{error}"
        );
    }
    fs::remove_file(&run).unwrap();
    // Something that no file replaces.
    fs::create_dir_all(run.join("x")).unwrap();
    WindowFile::begin_run(path).unwrap_err();
    let elsewhere = fixture.directory.path().join("missing/window");
    WindowFile::begin_run(elsewhere).unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_told_to_stop_leaves_no_file() {
    let fixture = Fixture::new();
    let tenants = Tenants::new(1);
    tenants.offsets("acme", 1).await;
    let stop = SaveStop::default();
    stop.stop();
    let saved = fixture
        .file
        .save(&tenants.registry, &schema(), &fixture.clock, &stop);
    assert!(matches!(saved, Err(SaveError::TooLate)), "{saved:?}");
    assert_eq!(fixture.names(), ["window.run"]);
}

/// Compiles a schema of another application, with this line in one of its messages.
fn chat_schema(line: &str) -> Arc<Schema> {
    let text = include_str!("../../tests/cli/chat.proto");
    let text = text.replace("  string text = 2;\n", line);
    let schema = Schema::from_texts(&[("chat.proto", &text)], "chat.v1.Envelope");
    Arc::new(schema.unwrap())
}

#[tokio::test(start_paused = true)]
async fn events_keep_the_schema_under_which_they_came_if_the_one_in_force_is_compatible() {
    let old = chat_schema("  string text = 2;\n");
    let extended = chat_schema("  string text = 2;\n  string format = 9;\n");
    let incompatible = chat_schema("  int64 text = 2;\n");
    let fixture = Fixture::new();
    let tenants = Tenants::new(1);
    for (schema, id) in [(&old, "a"), (&extended, "b")] {
        let posted = tenants.post_under(schema, "acme", id, "x").await;
        assert!(posted.is_ok());
    }
    let save = |file: &WindowFile| {
        let stop = SaveStop::default();
        let saved = file.save(&tenants.registry, &extended, &fixture.clock, &stop);
        assert_eq!(saved.unwrap().events, 2);
    };
    save(&fixture.file);
    let path = fixture.file.path();
    let next = WindowFile::begin_run(path.to_owned()).unwrap();
    let TakenWindow::Taken(window) = next.take(&extended, &fixture.clock, AGE_MAX) else {
        panic!("it is not taken");
    };
    let after = Tenants::restored(2, Some(*window));
    let kept = after.registry.snapshots(Instant::now()).next().unwrap();
    assert_eq!(kept.events[0].schema().revision(), old.revision());
    assert!(Arc::ptr_eq(kept.events[1].schema(), &extended));

    save(&next);
    let last = WindowFile::begin_run(path.to_owned()).unwrap();
    let refused = last.take(&incompatible, &fixture.clock, AGE_MAX);
    assert!(
        matches!(
            refused,
            TakenWindow::Rejected(WindowFileFault::Incompatible, Ok(_))
        ),
        "{refused:?}"
    );
}

/// A whole file with three tenants.
static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let fixture = Fixture::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let tenants = Tenants::new(1);
        for (tenant, count) in [("acme", 3), ("beta", 1), ("cosy", 2)] {
            tenants.offsets(tenant, count).await;
        }
        fixture.save(&tenants);
    });
    fs::read(fixture.file.path()).unwrap()
});

proptest! {
    #[test]
    fn a_damaged_file_is_never_used(index in any::<prop::sample::Index>(), bit in 0..8, cut in any::<bool>()) {
        let mut bytes = FILE.clone();
        let index = index.index(bytes.len());
        match cut {
            true => bytes.truncate(index),
            false => bytes[index] ^= 1_u8 << bit,
        }
        let time = WindowTime { now: Instant::now(), since_epoch: BEGIN };
        let expected = ExpectedWindow { run: 1, age_max: AGE_MAX, schema: &schema() };
        let read = read_window(&bytes[..], &expected, time);
        prop_assert!(read.is_err());
    }
}
