//! A relay that is killed and restarted, and one that is asked to stop under load.

use std::{
    collections::HashSet,
    future::Future,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use prost::Message as _;
use sidewire_client::{
    CallFailure, ClientEvent, EventPublisher, PublishEncoding, ReceiveError, RelayClient,
    RelayConnection, RelayMessage,
};
use sidewire_protocol::wire::Position;
use sidewire_testing::{
    process::{PATIENCE, Signal},
    relay::{ConfigLines, Relay, TOPIC, log_line, subscribe, token},
    setting,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::{
    backend::{Batch, Envelope, envelope},
    site::{assert_unharmed, files, impatient, publisher},
};

const TENANTS: [&str; 2] = ["acme", "globex"];

/// Events published before and after the restart. There are more after it, so that an
/// offset of the old log could be mistaken for one of the new log.
const EVENTS_BEFORE: u64 = 50;
const EVENTS_AFTER: u64 = 200;
const CLIENTS_PER_TENANT: u64 = 10;

/// Load when the relay is asked to stop. The events of one topic fit into an outbox,
/// because they are published faster than clients read, but do not fit into the kernel's
/// buffers.
const CLIENTS: usize = 200;
const TOPICS: usize = 10;
const BACKENDS: usize = 2;
const BATCH_EVENTS: usize = 10;
const EVENTS_BEFORE_THE_SIGNAL: usize = 1_000;
const EVENT_BYTES: usize = 1_500;
/// Of this many clients, one starts to read when the signal is sent.
const LATE: usize = 10;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_every_resume_reports_a_gap_and_old_offsets_are_refused() {
    let relay = Relay::serve(files("", "", ""));
    let mut resuming = Vec::new();
    for tenant in TENANTS {
        let start = post(&publisher(&relay), tenant, TOPIC).await.unwrap();
        for seed in 0..CLIENTS_PER_TENANT {
            resuming.push(Resuming::new(&relay, tenant, &start, seed));
        }
        for _ in 1..EVENTS_BEFORE {
            post(&publisher(&relay), tenant, TOPIC).await.unwrap();
        }
    }
    for client in &mut resuming {
        client.read_up_to(EVENTS_BEFORE).await;
    }
    let old = resuming.iter().map(|it| it.last.clone()).collect();

    // Half of the clients reconnect at once, half when the new log is longer than the old one.
    let late = resuming.split_off(resuming.len() / 2);
    let early: Vec<_> = resuming
        .into_iter()
        .map(|it| tokio::spawn(it.come_back()))
        .collect();
    let relay = kill_and_restart(relay);
    for tenant in TENANTS {
        for _ in 0..EVENTS_AFTER {
            post(&publisher(&relay), tenant, TOPIC).await.unwrap();
        }
    }
    assert_refused(&relay, old).await;
    let late: Vec<_> = late
        .into_iter()
        .map(|it| tokio::spawn(it.come_back()))
        .collect();
    let mut back = Vec::new();
    for client in early.into_iter().chain(late) {
        back.push(client.await.unwrap());
    }
    for tenant in TENANTS {
        post(&publisher(&relay), tenant, TOPIC).await.unwrap();
    }
    for mut client in back {
        client.read_up_to(EVENTS_AFTER + 1).await;
    }
    assert_unharmed(relay).await;
}

/// A client that has followed one topic of a tenant from the start of the log.
struct Resuming {
    tenant: &'static str,
    client: RelayClient,
    last: Position,
}

impl Resuming {
    fn new(relay: &Relay, tenant: &'static str, start: &Position, seed: u64) -> Self {
        let options = impatient(&relay.client_url(), &token(tenant, "ann"), seed);
        let mut client = RelayClient::new(options);
        client.start_from(start.clone());
        client.subscribe([TOPIC]);
        Self {
            tenant,
            client,
            last: start.clone(),
        }
    }

    async fn next(&mut self) -> ClientEvent {
        let next = timeout(PATIENCE, self.client.next_event()).await;
        next.expect("nothing came").unwrap()
    }

    /// Reads events up to `offset`, and checks that none is missing and that all are of one
    /// epoch.
    async fn read_up_to(&mut self, offset: u64) {
        while self.last.offset < offset {
            match self.next().await {
                ClientEvent::Event(event) => self.follow(event.position.unwrap()),
                ClientEvent::Connected => {}
                ClientEvent::Subscribed(confirmed) => assert!(confirmed.recovered),
                other => panic!("{other:?}"),
            }
        }
    }

    fn follow(&mut self, position: Position) {
        assert_eq!(position.epoch, self.last.epoch);
        assert_eq!(position.offset, self.last.offset + 1);
        self.last = position;
    }

    /// Reconnects and expects to learn that the log was restarted before any event of the
    /// new log arrives.
    async fn come_back(mut self) -> Self {
        let mut confirmed_at = None;
        loop {
            match self.next().await {
                ClientEvent::Disconnected { .. } | ClientEvent::Connected => {}
                ClientEvent::Subscribed(confirmed) => {
                    assert!(!confirmed.recovered, "{}: {confirmed:?}", self.tenant);
                    confirmed_at = confirmed.position;
                }
                ClientEvent::Gap {
                    since,
                    topics,
                    implicit,
                } => {
                    assert_eq!(
                        (since, topics, implicit),
                        (self.last, vec![TOPIC.to_owned()], true)
                    );
                    self.last = confirmed_at.unwrap();
                    return self;
                }
                other => panic!("{}: {other:?}", self.tenant),
            }
        }
    }
}

/// Kills the relay with SIGKILL and starts another one at the same addresses.
fn kill_and_restart(relay: Relay) -> Relay {
    let Relay {
        process,
        files,
        client,
        ingest,
        ops,
    } = relay;
    process.signal(Signal::KILL);
    assert!(!process.end().status.success());
    let listeners = [client, ingest, ops].map(|it| it.to_string());
    files.configure(ConfigLines {
        listeners: listeners.each_ref().map(String::as_str),
        log: "format = \"json\"",
        ..ConfigLines::default()
    });
    let restarted = Relay::serve(files);
    assert_eq!(restarted.client, client);
    restarted
}

/// No position of the old log can be resumed from, whatever its offset.
async fn assert_refused(relay: &Relay, old: Vec<Position>) {
    let epochs: HashSet<_> = old.into_iter().map(|it| it.epoch).collect();
    assert_eq!(epochs.len(), TENANTS.len());
    for tenant in TENANTS {
        let options = relay.options(&token(tenant, "bob"));
        let mut client = RelayConnection::open(&options).await.unwrap();
        for epoch in &epochs {
            for offset in [0, 1, EVENTS_BEFORE, EVENTS_AFTER, u64::MAX] {
                let epoch = epoch.clone();
                let from = Position { epoch, offset };
                client.subscribe_from([TOPIC], Some(from)).await.unwrap();
                let RelayMessage::SubscriptionConfirmed(confirmed) =
                    client.receive().await.unwrap()
                else {
                    panic!("no confirmation");
                };
                assert_eq!((confirmed.recovered, confirmed.replayed), (false, 0));
                assert!(!epochs.contains(&confirmed.position.unwrap().epoch));
            }
        }
    }
}

fn post(
    publisher: &EventPublisher,
    tenant: &str,
    topic: &str,
) -> impl Future<Output = Result<Position, CallFailure>> {
    let event = event(topic).encode_to_vec();
    async move {
        let posting = publisher.post(tenant, event, PublishEncoding::Protobuf, &[], false);
        Ok(posting.await?.results.remove(0).position)
    }
}

fn event(topic: &str) -> Envelope {
    let title = "x".repeat(EVENT_BYTES);
    envelope(String::new(), vec![topic.to_owned()], &title)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_stopped_under_load_delivers_every_acknowledged_event() {
    let clients = setting("SIDEWIRE_CLIENTS").unwrap_or(CLIENTS);
    let patient = "write_timeout = \"1m\"\nsend_buffer = \"8KiB\"";
    let relay = Relay::serve(files(patient, "", ""));
    let (signal, given) = watch::channel(false);
    let reading = begin_to_read(&relay, clients, &given).await;
    let posted = watch::channel(0).0;
    let publishing: Vec<_> = (0..BACKENDS).map(|_| publisher(&relay)).collect();
    let publishing = publishing.iter().map(|it| publish_to_the_end(it, &posted));
    let stopping = async {
        let mut count = posted.subscribe();
        count
            .wait_for(|it| *it >= EVENTS_BEFORE_THE_SIGNAL)
            .await
            .unwrap();
        assert!(relay.metric("sidewire_events_queued") > 0.0);
        relay.process.signal(Signal::TERM);
        signal.send_replace(true);
        Instant::now()
    };
    let (acknowledged, stopped_at) = tokio::join!(join_all(publishing), stopping);
    let acknowledged = acknowledged.concat();

    let delays = all_delivered(reading, &acknowledged).await;
    let ended = relay.process.end();
    let took = stopped_at.elapsed();
    println!(
        "{clients} clients, {} events acknowledged, ended {took:.1?} after the signal",
        acknowledged.len()
    );
    assert!(delays.len() > clients / 4, "the delays are few: {delays:?}");
    assert!(took < DRAIN_TIMEOUT);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(log_line(&ended.stderr, "every connection has ended").is_some());
}

type Reading = JoinHandle<(HashSet<u64>, u64)>;

/// Starts the clients' reading; some of them read only after the signal.
async fn begin_to_read(
    relay: &Relay,
    clients: usize,
    signal: &watch::Receiver<bool>,
) -> Vec<Reading> {
    let options = relay.options(&token("acme", "ann"));
    let mut reading = Vec::new();
    for number in 0..clients {
        let mut client = RelayConnection::open(&options).await.unwrap();
        subscribe(&mut client, &topic(number % TOPICS)).await;
        let mut signal = signal.clone();
        reading.push(tokio::spawn(async move {
            if (number / TOPICS).is_multiple_of(LATE) {
                signal.wait_for(|it| *it).await.unwrap();
            }
            read_to_the_end(client).await
        }));
    }
    reading
}

/// Asserts that each client received every acknowledged event of its topic. Returns the
/// delays after which the clients are to reconnect.
async fn all_delivered(reading: Vec<Reading>, acknowledged: &[Acknowledged]) -> HashSet<u64> {
    let mut delays = HashSet::new();
    for (number, client) in reading.into_iter().enumerate() {
        let (received, delay) = client.await.unwrap();
        delays.insert(delay);
        let mut owed = acknowledged.iter().filter(|it| it.topic == number % TOPICS);
        let lost = owed.find(|it| !received.contains(&it.offset));
        assert!(lost.is_none(), "client {number} never got {lost:?}");
    }
    delays
}

fn topic(number: usize) -> String {
    format!("project:p{number}")
}

/// The events that the relay acknowledged to one backend.
#[derive(Debug, Clone)]
struct Acknowledged {
    topic: usize,
    offset: u64,
}

/// Posts batches until the relay stops accepting them.
async fn publish_to_the_end(
    publisher: &EventPublisher,
    posted: &watch::Sender<usize>,
) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    for topic_number in (0..TOPICS).cycle() {
        let messages = vec![event(&topic(topic_number)); BATCH_EVENTS];
        let batch = Batch { messages }.encode_to_vec();
        let posting = publisher.post("acme", batch, PublishEncoding::Protobuf, &[], true);
        match posting.await {
            Ok(answer) => acknowledged.extend(answer.results.iter().map(|it| Acknowledged {
                topic: topic_number,
                offset: it.position.offset,
            })),
            Err(CallFailure::Refused(problem)) if problem.status == 503 => break,
            Err(CallFailure::Unreachable { .. } | CallFailure::Lost(_)) => break,
            Err(error) => panic!("{error}"),
        }
        posted.send_modify(|posted| *posted += BATCH_EVENTS);
    }
    acknowledged
}

/// Reads until the relay closes the connection. Returns the events received, and the delay
/// after which to reconnect.
async fn read_to_the_end(mut client: RelayConnection) -> (HashSet<u64>, u64) {
    let (mut received, mut last) = (HashSet::new(), 0);
    loop {
        match client.receive().await {
            Ok(RelayMessage::Event(event)) => {
                let offset = event.position.unwrap().offset;
                assert!(offset > last);
                last = offset;
                received.insert(offset);
            }
            Err(ReceiveError::Closed { code: 1001, reason }) => {
                let delay = reason.strip_prefix("retry_after_ms=").unwrap();
                return (received, delay.parse().unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
}
