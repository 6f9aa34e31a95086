//! The event loop: one thread serves the sockets of all clients and backends, reads each
//! as soon as it is readable, and posts calls as the load demands. Knows nothing about
//! scenarios.

mod opening;

use std::{
    io,
    ops::Range,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, event::Event};

use super::{
    BenchError, BenchProgress,
    clients::{BenchClient, BenchState, ClientFailure, ClientScript},
    link::{SourceAddresses, TargetLink},
    publisher::{AnsweredCall, BenchPublisher},
    target::{BenchTarget, PostCall},
    timer::LoopTimer,
};

pub(super) use self::opening::OpenOutcome;
use self::opening::{OPENING_TIMEOUT, OpenProgress};

/// The most sockets handled before new calls are posted.
const EVENTS_PER_TURN: usize = 256;

/// The longest sleep of the loop while nothing is due at a known time.
const NAP: Duration = Duration::from_millis(100);

/// The interval of progress reports.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

const TIMER: Token = Token(usize::MAX - 1);

/// The token of the first publisher; clients have the tokens below it.
const FIRST_PUBLISHER: usize = usize::MAX / 2;

/// The rule by which calls are posted.
#[derive(Debug, Clone, Copy)]
pub(super) enum PostingLoad {
    /// A call per interval, even if previous ones are not answered.
    Paced(Duration),
    /// As many calls as keep this many events under way, which are not yet received by
    /// every client or not yet answered.
    Full(usize),
    /// A call per publisher, as soon as its last one is answered.
    Answered,
}

/// The bytes that clients send, built before the run.
#[derive(Debug)]
pub(super) struct BenchScript {
    /// The channel and the handshake of each connection.
    pub(super) connections: Vec<(usize, Vec<u8>)>,
    /// The Subscribe frame of each channel.
    pub(super) subscribes: Vec<Option<Vec<u8>>>,
}

impl BenchScript {
    fn script_of(&self, connection: usize) -> Option<ClientScript<'_>> {
        let (channel, handshake) = self.connections.get(connection)?;
        Some(ClientScript {
            channel: *channel,
            handshake,
            subscribe: self.subscribes.get(*channel)?.as_deref(),
        })
    }
}

/// The event loop and its sockets.
pub(super) struct BenchEngine<'p> {
    poll: Poll,
    ready: Events,
    timer: LoopTimer,
    pub(super) shared: BenchState,
    target: BenchTarget,
    sources: SourceAddresses,
    script: BenchScript,
    /// The call of each channel.
    calls: Vec<PostCall>,
    clients: Vec<Option<BenchClient>>,
    opening: OpenProgress,
    publishers: Vec<BenchPublisher>,
    answered: Vec<AnsweredCall>,
    /// Number of clients that were disconnected after they had been subscribed.
    pub(super) disconnects: u64,
    /// Number of answered calls.
    pub(super) answers: u64,
    /// The first failure.
    pub(super) first_failure: Option<String>,
    /// The target's answer when it did not accept a token.
    unauthorized: Option<String>,
    progress: &'p mut dyn FnMut(BenchProgress),
    told_at: Instant,
}

impl<'p> BenchEngine<'p> {
    pub(super) fn new(
        target: BenchTarget,
        sources: SourceAddresses,
        script: BenchScript,
        calls: Vec<PostCall>,
        shared: BenchState,
        progress: &'p mut dyn FnMut(BenchProgress),
    ) -> Result<Self, BenchError> {
        let poll = Poll::new()?;
        let timer = LoopTimer::new(poll.registry(), TIMER)?;
        let clients = script.connections.iter().map(|_| None).collect();
        Ok(Self {
            poll,
            ready: Events::with_capacity(EVENTS_PER_TURN),
            timer,
            told_at: shared.epoch,
            shared,
            target,
            sources,
            script,
            calls,
            clients,
            opening: OpenProgress::default(),
            publishers: Vec::new(),
            answered: Vec::new(),
            disconnects: 0,
            answers: 0,
            first_failure: None,
            unauthorized: None,
            progress,
        })
    }

    /// Closes these clients.
    pub(super) fn close_clients(&mut self, connections: Range<usize>) {
        for slot in self.clients.get_mut(connections).unwrap_or_default() {
            if let Some(client) = slot.take()
                && client.is_subscribed()
            {
                self.shared.tally.leave_channel(client.track());
            }
        }
    }

    /// Connects `count` publishers.
    pub(super) fn open_publishers(&mut self, count: usize) -> Result<(), BenchError> {
        for number in 0..count {
            let link = TargetLink::open(&self.target.ingest, self.sources, number);
            let mut link = link.map_err(BenchError::Ingest)?;
            let token = Token(FIRST_PUBLISHER + number);
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            registry.register(&mut link.stream, token, interest)?;
            let publisher = BenchPublisher::new(link, &self.target.speech);
            self.publishers.push(publisher);
        }
        let until = Instant::now() + OPENING_TIMEOUT;
        while self.publishers.iter().any(|it| !it.is_connected) {
            if Instant::now() >= until {
                return Err(BenchError::Ingest(io::ErrorKind::TimedOut.into()));
            }
            self.poll_once(until)?;
        }
        Ok(())
    }

    /// Posts calls as the load demands, for the duration.
    pub(super) fn drive_load(
        &mut self,
        phase: &'static str,
        load: PostingLoad,
        duration: Duration,
    ) -> Result<(), BenchError> {
        let begun = Instant::now();
        let until = begun + duration;
        let mut due = begun;
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            self.report_progress(phase, millis(now - begun), millis(duration));
            self.post_due(load, now, &mut due);
            let wake = match load {
                PostingLoad::Paced(_) => due.min(until),
                PostingLoad::Full(_) | PostingLoad::Answered => until,
            };
            self.poll_once(wake)?;
        }
    }

    /// Posts the calls that are due, and advances `due`.
    fn post_due(&mut self, load: PostingLoad, now: Instant, due: &mut Instant) {
        match load {
            PostingLoad::Paced(interval) => {
                while *due <= now {
                    self.post_call(0);
                    *due += interval;
                }
            }
            PostingLoad::Full(outstanding) => {
                while self.outstanding() < outstanding {
                    self.post_call(0);
                }
            }
            PostingLoad::Answered => {
                for number in 0..self.publishers.len() {
                    if self
                        .publishers
                        .get(number)
                        .is_some_and(BenchPublisher::is_idle)
                    {
                        self.post_call(number);
                    }
                }
            }
        }
    }

    /// Waits until every client has received its events and every call is answered, at most
    /// until `until`.
    pub(super) fn await_outstanding(&mut self, until: Instant) -> Result<(), BenchError> {
        while self.outstanding() > 0 && Instant::now() < until {
            self.poll_once(until.min(Instant::now() + NAP))?;
        }
        Ok(())
    }

    /// Only reads, for the duration.
    pub(super) fn idle_for(
        &mut self,
        phase: &'static str,
        duration: Duration,
    ) -> Result<(), BenchError> {
        let begun = Instant::now();
        let until = begun + duration;
        while Instant::now() < until {
            self.report_progress(phase, millis(begun.elapsed()), millis(duration));
            self.poll_once(until.min(Instant::now() + NAP))?;
        }
        Ok(())
    }

    /// Number of stored events not received by a client that is still connected, summed over
    /// clients.
    pub(super) fn count_lost(&self) -> u64 {
        let subscribed = self
            .clients
            .iter()
            .flatten()
            .filter(|it| it.is_subscribed());
        subscribed
            .map(|it| self.shared.tally.count_lost(it.track()))
            .sum()
    }

    /// Reports progress, if enough time has passed since the last report.
    pub(super) fn report_progress(&mut self, phase: &'static str, done: u64, total: u64) {
        if self.told_at.elapsed() >= PROGRESS_EVERY {
            self.told_at = Instant::now();
            (self.progress)(BenchProgress { phase, done, total });
        }
    }

    fn outstanding(&self) -> usize {
        let tally = &self.shared.tally;
        tally.incomplete().max(tally.unanswered())
    }

    fn post_call(&mut self, publisher: usize) {
        let tally = &mut self.shared.tally;
        let first = tally.next_number();
        let call = self.calls.get(tally.channel_of(first));
        let publisher = self.publishers.get_mut(publisher);
        let (Some(call), Some(publisher)) = (call, publisher) else {
            return;
        };
        let posted_ns = u64::try_from(self.shared.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        for _ in 0..call.event_count() {
            tally.record_post(posted_ns);
        }
        publisher.queue_call(call, first);
    }

    /// Writes queued calls, waits until a socket is ready or until `until`, and handles the
    /// ready sockets.
    fn poll_once(&mut self, until: Instant) -> Result<(), BenchError> {
        for publisher in &mut self.publishers {
            publisher.flush().map_err(BenchError::PublisherLost)?;
        }
        let now = Instant::now();
        self.timer.set(now, until)?;
        let timeout = until.saturating_duration_since(now);
        match self.poll.poll(&mut self.ready, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        let ready = std::mem::replace(&mut self.ready, Events::with_capacity(0));
        let outcome = ready.iter().try_for_each(|event| self.on_ready(event));
        self.ready = ready;
        outcome
    }

    fn on_ready(&mut self, event: &Event) -> Result<(), BenchError> {
        if event.token() == TIMER {
            return Ok(());
        }
        let Token(number) = event.token();
        match number.checked_sub(FIRST_PUBLISHER) {
            Some(publisher) => self.on_publisher(publisher),
            None => {
                self.on_client(number, event);
                Ok(())
            }
        }
    }

    fn on_client(&mut self, connection: usize, event: &Event) {
        let Some(Some(client)) = self.clients.get_mut(connection) else {
            return;
        };
        let Some(lines) = self.script.script_of(connection) else {
            return;
        };
        let was_subscribed = client.is_subscribed();
        let mut outcome = Ok(());
        if event.is_writable() && !was_subscribed {
            outcome = client.on_writable(lines);
        }
        if outcome.is_ok() && event.is_readable() {
            let to_the_end = event.is_read_closed() || event.is_error();
            outcome = client.on_readable(lines, &mut self.shared, to_the_end);
        }
        match outcome {
            Ok(()) if client.is_subscribed() && !was_subscribed => self.on_subscribed(),
            Ok(()) => {}
            Err(error) => self.on_ended(connection, was_subscribed, &error),
        }
    }

    fn on_ended(&mut self, connection: usize, was_subscribed: bool, error: &ClientFailure) {
        self.close_clients(connection..connection + 1);
        if was_subscribed {
            self.disconnects += 1;
            self.note_failure(error);
        } else {
            self.on_failure(error);
        }
    }

    fn note_failure(&mut self, error: &ClientFailure) {
        if let ClientFailure::Handshake(401, body) = error {
            self.unauthorized.get_or_insert_with(|| body.clone());
        }
        self.first_failure.get_or_insert_with(|| error.to_string());
    }

    fn on_publisher(&mut self, number: usize) -> Result<(), BenchError> {
        let Some(publisher) = self.publishers.get_mut(number) else {
            return Ok(());
        };
        if !publisher.is_connected {
            publisher
                .link
                .check_connected()
                .map_err(BenchError::Ingest)?;
            publisher.is_connected = true;
        }
        publisher.read_answers(&mut self.shared.buffer, &mut self.answered)?;
        let now_ns = self.shared.now_ns();
        let mut answered = std::mem::take(&mut self.answered);
        for answer in answered.drain(..) {
            self.on_answer(answer, now_ns)?;
        }
        self.answered = answered;
        Ok(())
    }

    fn on_answer(&mut self, answer: AnsweredCall, now_ns: u64) -> Result<(), BenchError> {
        let is_stored = answer.refusal.is_none();
        if let Some((status, body)) = answer.refusal {
            if !is_passing(status) {
                return Err(BenchError::Refused { status, body });
            }
            let failure = format!("a call was answered with {status}: {body}");
            self.first_failure.get_or_insert(failure);
        }
        let BenchState {
            tally,
            latencies,
            is_measuring,
            ..
        } = &mut self.shared;
        self.answers += 1;
        let mut posted_ns = None;
        for number in answer.events {
            posted_ns = tally.record_answer(number, is_stored);
        }
        if let (Some(posted_ns), true) = (posted_ns, *is_measuring && is_stored) {
            let latency_ns = now_ns.saturating_sub(posted_ns);
            latencies.answer.saturating_record(latency_ns);
        }
        Ok(())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns true for a refusal that may pass, so that later calls may be accepted.
fn is_passing(status: u16) -> bool {
    matches!(status, 429 | 503)
}
