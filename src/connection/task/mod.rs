//! Drives a client's conversation over its stream: reads when there is room for answers, writes
//! what is queued, watches the deadlines, and closes the connection with the right code. Knows no
//! topics.

mod ending;
mod heartbeat;
mod json;
mod requests;

use std::{
    future::poll_fn,
    mem,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use sidewire_protocol::{EnvelopeEncoding, close::CloseReason};
use tokio::{task::yield_now, time::Instant};
use tokio_tungstenite::tungstenite::Message;

use self::json::{DecodedJsonFrame, PendingJsonFrame};
use super::{
    admitted::{AdmittedClient, ConnectionGuard},
    conversation::TopicsAnswer,
    deadlines::{DeadlineKind, Deadlines, FinalCheck},
    pace::MessageBudget,
    stream::{FrameStream, Transport},
    waiting::WaitingRequests,
};
use crate::{
    alarms::Alarm,
    auth::{Grant, KeyFingerprint},
    hub::HubConnection,
    limits::Limit,
    outbox::WriteProgress,
    relay::ShardContext,
    scheduler::{Cost, WorkTicket},
};

/// Time that a client has to answer the relay's Close frame, once that is written.
const CLOSE_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of queued bytes that are written without waiting for the tenant's quantum. Up
/// to this size the system call costs more than the copy.
const WRITTEN_AT_ONCE_MAX: usize = 16 * 1024;

/// Serves the client until the connection is closed. `read_ahead` holds the bytes that were read
/// after the handshake; `held` is dropped at the end.
pub fn run_connection<S: Transport, H>(
    shard: Rc<ShardContext>,
    admitted: AdmittedClient,
    stream: S,
    read_ahead: Bytes,
    held: H,
) -> impl Future<Output = ()> {
    // Not an async function: its future would hold the connection twice, as the arguments and as
    // the value made from them. So would the future of an async function that awaits this one.
    let mut connection = ConnectionTask::new(shard, admitted, stream, &read_ahead);
    async move {
        connection.run().await;
        drop(held);
    }
}

pub(super) struct ConnectionTask<S: Transport> {
    phase: ConnectionPhase,
    stream: FrameStream<S>,
    /// True if the connection has read the log or used up its frames for this turn, and so must
    /// yield before it does anything else.
    turn_is_over: bool,
    /// True while there may be bytes that are read and not parsed yet: initially those that came
    /// after the handshake.
    has_unparsed_input: bool,
    deadlines: Deadlines,
    final_check: FinalCheck,
    /// Set for the earliest deadline.
    alarm: Option<Alarm>,
    /// Also holds the shard and the outbox.
    pub(super) account: ConnectionGuard,
    /// Handles text and binary messages in place of the relay's protocol.
    #[cfg(test)]
    pub(super) test_handler: Option<fn(&mut Self, Message)>,
}

/// The phase of a connection.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all connections are open, so a box would only add an allocation"
)]
enum ConnectionPhase {
    /// Both sides send messages.
    Open(OpenConnection),
    /// A Close frame is queued or written. Of what the client sends, only its own Close frame
    /// matters.
    Closing,
    /// The closing handshake is done, or the client is gone. What is queued is still written.
    Closed,
    /// The protocol was violated, or the rest of a message must be discarded. What is queued is
    /// still written. Input is read and discarded, since the kernel would reset the connection if
    /// it were left unread, and the Close frame might get lost.
    Lingering {
        /// True if the client knows that nothing more will be written.
        shut_down: bool,
    },
}

/// The state of an open connection. It is dropped as soon as the connection begins to close, so
/// that nothing more is queued for it.
struct OpenConnection {
    hub: HubConnection,
    grant: Grant,
    pace: MessageBudget,
    /// What the answer to the Subscribe that is under way needs, until it is answered.
    unanswered: Option<Box<TopicsAnswer>>,
    /// Subscribes and Unsubscribes that wait until no Subscribe is under way, in order.
    waiting: WaitingRequests,
    /// A JSON frame that another thread decodes.
    reading_json: Option<Box<PendingJsonFrame>>,
    /// Slot in the tenant's queue, held while received messages wait for its quantum.
    ticket: Option<WorkTicket>,
    /// Slot in the tenant's queue, held while a large write waits for its quantum.
    write_ticket: Option<WorkTicket>,
    /// Time at which the client's last byte was read.
    last_read_at: Instant,
    /// Time at which a client that was pinged is disconnected, unless it sends something before.
    given_up_at: Option<Instant>,
    /// Fingerprint of the key that verified its token.
    key: Option<KeyFingerprint>,
    /// Time of day at which its token expires, since the Unix epoch.
    expires_at: Option<Duration>,
}

impl OpenConnection {
    /// Returns true if work may be done for the client now. Otherwise the connection queues for
    /// its tenant's quantum.
    fn may_work(&mut self) -> bool {
        self.hub.may_work(&mut self.ticket)
    }

    /// Returns true if a waiting request may be carried out now.
    fn has_ready_request(&self) -> bool {
        !self.waiting.is_empty() && self.hub.is_live()
    }

    /// Returns true if nothing is read from the client: while an earlier request is unanswered,
    /// or until a Subscribe has read the log for the first time.
    fn stops_reading(&self) -> bool {
        self.has_ready_request() || self.reading_json.is_some() || self.hub.stops_reading()
    }

    /// Returns true if a drain has to wait for a Subscribe, a catch-up or a JSON message before
    /// the connection ends. Nothing delays the other endings.
    fn must_finish_before(&self, ending: CloseReason) -> bool {
        let is_owed = !self.hub.is_live() || self.reading_json.is_some();
        is_owed && matches!(ending, CloseReason::Drain { .. })
    }
}

/// The next thing for a connection to do.
enum ConnectionStep {
    Read,
    /// Parse bytes that are read already.
    Parse,
    Wrote(WriteProgress),
    Subscribe,
    Waited,
    ReadJson(DecodedJsonFrame),
    Ending(CloseReason),
    Expired(DeadlineKind),
    Finished,
}

impl<S: Transport> ConnectionTask<S> {
    pub(super) fn new(
        shard: Rc<ShardContext>,
        admitted: AdmittedClient,
        stream: S,
        read_ahead: &[u8],
    ) -> Self {
        let relay = &shard.relay;
        let live = relay.live();
        let client = &live.config.client;
        let message_max = client.message_max;
        let outbox = admitted.outbox;
        let identity = admitted.identity;
        let lifetime = identity
            .expires_at
            .map(|end| end.saturating_sub(relay.clock.since_unix_epoch()));
        let now = Instant::now();
        Self {
            phase: ConnectionPhase::Open(OpenConnection {
                hub: admitted.hub,
                grant: identity.grant,
                pace: MessageBudget::default(),
                unanswered: None,
                waiting: WaitingRequests::default(),
                reading_json: None,
                ticket: None,
                write_ticket: None,
                last_read_at: now,
                given_up_at: None,
                key: identity.key,
                expires_at: identity.expires_at,
            }),
            stream: FrameStream::new(stream, read_ahead, message_max, Rc::clone(&outbox)),
            turn_is_over: false,
            has_unparsed_input: true,
            deadlines: Deadlines {
                token: lifetime.and_then(|lifetime| now.checked_add(lifetime)),
                silence: Some(now + client.ping_interval),
                ..Deadlines::default()
            },
            final_check: FinalCheck::default(),
            alarm: None,
            account: admitted.account,
            #[cfg(test)]
            test_handler: None,
        }
    }

    /// Serves the client until the connection is closed.
    pub(super) async fn run(&mut self) {
        loop {
            if self.has_unparsed_input {
                self.handle_buffered_messages();
                // No tenant is charged any more, so no quantum makes the connection yield.
                self.turn_is_over |= !self.is_open();
            }
            if mem::take(&mut self.turn_is_over) {
                yield_now().await;
            }
            match poll_fn(|context| self.poll_step(context)).await {
                ConnectionStep::Read => {
                    self.account.record_read();
                    self.has_unparsed_input = true;
                    self.on_read();
                }
                ConnectionStep::Parse => {}
                ConnectionStep::Wrote(advanced) => self.on_written(advanced),
                ConnectionStep::Subscribe => self.continue_subscribe(),
                ConnectionStep::Waited => self.carry_out_waiting(),
                ConnectionStep::ReadJson(read) => self.handle_decoded_json(read),
                ConnectionStep::Ending(ending) => self.begin_close(ending),
                ConnectionStep::Expired(DeadlineKind::Token) => {
                    self.begin_close(CloseReason::TokenExpired);
                }
                ConnectionStep::Expired(DeadlineKind::Message) => self.on_message_deadline(),
                ConnectionStep::Expired(DeadlineKind::Silence) => self.check_idle(),
                ConnectionStep::Expired(DeadlineKind::Write)
                    if self.begin_final_check(DeadlineKind::Write) => {}
                ConnectionStep::Expired(DeadlineKind::Write | DeadlineKind::Close) => {
                    self.record_reset();
                    break;
                }
                ConnectionStep::Finished => break,
            }
        }
    }

    /// Waits for the next thing to do. Endings and deadlines come first, so that
    /// a client that never stops sending cannot put them off; then writing, since
    /// a connection stops reading when its outbox fills up.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<ConnectionStep> {
        self.account.outbox.signals().register_waker(context);
        if let ConnectionPhase::Open(open) = &self.phase
            && let Some(ending) = self.account.outbox.signals().ending()
            && !open.must_finish_before(ending)
        {
            return Poll::Ready(ConnectionStep::Ending(ending));
        }
        if let Some(late) = self.check_deadlines() {
            // Input that has arrived, and room that the client has made, take precedence over the
            // deadline.
            let looked = match late {
                DeadlineKind::Silence | DeadlineKind::Message => self.poll_read(context),
                DeadlineKind::Write => self.poll_write(context),
                DeadlineKind::Token | DeadlineKind::Close => Poll::Pending,
            };
            return match looked {
                Poll::Ready(step) => Poll::Ready(step),
                Poll::Pending => Poll::Ready(ConnectionStep::Expired(late)),
            };
        }
        if self.may_write()
            && let Poll::Ready(step) = self.poll_write(context)
        {
            return Poll::Ready(step);
        }
        if let Poll::Ready(step) = self.poll_requests(context) {
            return Poll::Ready(step);
        }
        // Writing may have set a deadline that no alarm is set for yet.
        self.check_deadlines().map_or(Poll::Pending, |late| {
            Poll::Ready(ConnectionStep::Expired(late))
        })
    }

    /// Waits until one of the client's requests can be carried out. They are carried out in the
    /// order in which they came.
    fn poll_requests(&mut self, context: &mut Context<'_>) -> Poll<ConnectionStep> {
        if let ConnectionPhase::Open(open) = &mut self.phase {
            if open.hub.has_reached_head() {
                return Poll::Ready(ConnectionStep::Subscribe);
            }
            if open.has_ready_request() {
                return match open.may_work() {
                    true => Poll::Ready(ConnectionStep::Waited),
                    false => Poll::Pending,
                };
            }
            if let Poll::Ready(read) = open.poll_decoded_json(context) {
                return Poll::Ready(ConnectionStep::ReadJson(read));
            }
        }
        if let Poll::Ready(step) = self.poll_read(context) {
            return Poll::Ready(step);
        }
        if let ConnectionPhase::Open(open) = &mut self.phase
            && open.hub.may_catch_up(context)
        {
            return Poll::Ready(ConnectionStep::Subscribe);
        }
        Poll::Pending
    }

    /// Returns an expired deadline, if there is one. Otherwise sets an alarm for the earliest.
    fn check_deadlines(&mut self) -> Option<DeadlineKind> {
        if self.account.outbox.signals().take_alarm() {
            self.alarm = None;
            self.apply_reload();
        }
        let next = self.deadlines.next_deadline();
        if self.alarm.as_ref().map(Alarm::deadline) != next {
            // The old alarm is dropped first, so that it does not ring.
            self.alarm = None;
            if let Some(late) = self.deadlines.first_expired(Instant::now()) {
                return Some(late);
            }
            self.alarm = next.map(|next| {
                self.account
                    .shard
                    .alarms
                    .set_alarm(next, &self.account.outbox)
            });
        }
        None
    }

    /// Applies settings of which the connection has a copy, in case a reload has changed them: the
    /// hub then rings the alarms of all connections.
    fn apply_reload(&mut self) {
        let message_max = self.account.relay().live().config.client.message_max;
        self.stream.set_message_bytes_max(message_max);
        self.tighten_idle_deadline();
        if self.is_key_removed() {
            self.account
                .outbox
                .signals()
                .request_end(CloseReason::KeyRemoved);
        }
    }

    /// Returns true if the expired deadline takes effect only after a final check of the socket.
    /// The check happens in the next turn: at the end of a long turn, or of a pause of the
    /// process, the event loop has not reported yet what can be read or written.
    fn begin_final_check(&mut self, late: DeadlineKind) -> bool {
        let begins = self.final_check.begin(late);
        self.turn_is_over |= begins;
        begins
    }

    /// Returns true if a reload has removed the key that verified the token, and such connections
    /// are to be closed.
    fn is_key_removed(&self) -> bool {
        let ConnectionPhase::Open(open) = &self.phase else {
            return false;
        };
        let live = self.account.relay().live();
        live.config.auth.close_on_key_removal
            && open.key.is_some_and(|key| !live.authenticator.has_key(key))
    }

    /// Returns true if what is queued may be written now. A large write takes long to copy, so it
    /// waits for the tenant's quantum: if many clients make room at the same time, the kernel
    /// reports all of them at once.
    fn may_write(&mut self) -> bool {
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return true;
        };
        if self.account.outbox.unwritten_bytes() > WRITTEN_AT_ONCE_MAX {
            return open.hub.may_write(&mut open.write_ticket);
        }
        open.write_ticket = None;
        true
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<ConnectionStep> {
        if self.stream.has_unwritten() {
            let before = self.account.outbox.unwritten_bytes();
            let polled = self.stream.poll_write(context);
            if before > WRITTEN_AT_ONCE_MAX
                && let ConnectionPhase::Open(open) = &mut self.phase
            {
                let written = before - self.account.outbox.unwritten_bytes();
                open.hub.charge_write(Cost::BYTE.times(written));
                // Gives up the slot: others need not wait for a client that does not read.
                open.write_ticket = None;
            }
            return match polled {
                Poll::Ready(Ok(advanced)) => Poll::Ready(ConnectionStep::Wrote(advanced)),
                Poll::Ready(Err(_)) => Poll::Ready(self.on_connection_lost()),
                Poll::Pending => {
                    let timeout = self.write_timeout();
                    self.deadlines
                        .write
                        .get_or_insert_with(|| Instant::now() + timeout);
                    Poll::Pending
                }
            };
        }
        match &mut self.phase {
            ConnectionPhase::Open(_)
            | ConnectionPhase::Closing
            | ConnectionPhase::Lingering { shut_down: true } => Poll::Pending,
            ConnectionPhase::Closed => self
                .stream
                .poll_shutdown(context)
                .map(|_| ConnectionStep::Finished),
            ConnectionPhase::Lingering { shut_down } => match self.stream.poll_shutdown(context) {
                Poll::Ready(Ok(())) => {
                    *shut_down = true;
                    Poll::Pending
                }
                Poll::Ready(Err(_)) => Poll::Ready(ConnectionStep::Finished),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, ConnectionPhase::Open(_))
    }

    /// Returns true if more is read from the client. Nothing is read while its outbox is half
    /// full.
    fn accepts_input(&self) -> bool {
        let is_stopped = matches!(&self.phase, ConnectionPhase::Open(open) if open.stops_reading());
        !is_stopped && self.account.outbox.is_half_free()
    }

    /// Returns true if the relay waits for the client, and the client waits neither for its
    /// tenant's quantum nor for anything else.
    fn is_waiting_for_client(&self) -> bool {
        let has_ticket =
            matches!(&self.phase, ConnectionPhase::Open(open) if open.ticket.is_some());
        self.accepts_input() && !has_ticket
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<ConnectionStep> {
        match self.phase {
            ConnectionPhase::Open(_) | ConnectionPhase::Closing => {
                if !self.accepts_input() {
                    // Gives up the slot: others need not wait for a client that does not read.
                    if !self.has_ready_request() {
                        self.leave_queue();
                    }
                    return Poll::Pending;
                }
                if self.has_unparsed_input {
                    return match self.may_work() {
                        true => Poll::Ready(ConnectionStep::Parse),
                        false => Poll::Pending,
                    };
                }
                match self
                    .stream
                    .poll_read(context, &self.account.shard.read_buffer)
                {
                    Poll::Ready(Ok(())) => Poll::Ready(ConnectionStep::Read),
                    Poll::Ready(Err(_)) => Poll::Ready(self.on_connection_lost()),
                    Poll::Pending => Poll::Pending,
                }
            }
            ConnectionPhase::Closed => Poll::Pending,
            ConnectionPhase::Lingering { .. } => {
                match self
                    .stream
                    .poll_discard(context, &self.account.shard.read_buffer)
                {
                    Poll::Ready(Ok(true)) => Poll::Ready(ConnectionStep::Read),
                    Poll::Ready(Ok(false)) => {
                        // The client may still read, so the Close frame is written.
                        self.phase = ConnectionPhase::Closed;
                        Poll::Ready(ConnectionStep::Read)
                    }
                    Poll::Ready(Err(_)) => Poll::Ready(ConnectionStep::Finished),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    /// Returns true if work may be done for the client now. Otherwise the connection queues for
    /// its tenant's quantum.
    fn may_work(&mut self) -> bool {
        match &mut self.phase {
            ConnectionPhase::Open(open) => open.may_work(),
            _ => true,
        }
    }

    fn has_quota(&self) -> bool {
        match &self.phase {
            ConnectionPhase::Open(open) => open.hub.has_quota(),
            _ => true,
        }
    }

    fn has_ready_request(&self) -> bool {
        matches!(&self.phase, ConnectionPhase::Open(open) if open.has_ready_request())
    }

    /// Gives up the slot in the tenant's queue.
    fn leave_queue(&mut self) {
        if let ConnectionPhase::Open(open) = &mut self.phase {
            open.ticket = None;
        }
    }

    /// Handles the messages that are read already, while the tenant's quantum lasts and there is
    /// room for the answers. Stops after a ping, so that its pong is written before that of a
    /// newer ping replaces it.
    fn handle_buffered_messages(&mut self) {
        if self.has_ready_request() || !self.may_work() {
            return;
        }
        let mut is_another = false;
        while matches!(
            self.phase,
            ConnectionPhase::Open(_) | ConnectionPhase::Closing
        ) && !self.turn_is_over
            && self.accepts_input()
            && self.has_quota()
        {
            match self.stream.next_message() {
                Ok(Some(message)) => {
                    is_another |= message.is_binary() || message.is_text();
                    let is_ping = message.is_ping();
                    self.dispatch_message(message);
                    if is_ping {
                        break;
                    }
                }
                Ok(None) if self.stream.begin_turn() => self.turn_is_over = true,
                Ok(None) => {
                    self.has_unparsed_input = false;
                    break;
                }
                Err(error) => self.on_stream_error(&error),
            }
        }
        // If there is more, it queues behind the tenant's other work.
        self.leave_queue();
        self.charge_frames();
        self.update_message_deadline(is_another);
        self.reserve_memory(is_another);
    }

    /// Reserves memory for a message that is not complete. If there is none, the connection is
    /// closed: to stop reading would free nothing, neither here nor at the client.
    fn reserve_memory(&mut self, is_another: bool) {
        let messages = self.account.shard.hub.begun_messages();
        if matches!(
            self.phase,
            ConnectionPhase::Open(_) | ConnectionPhase::Closing
        ) && self.stream.reserve_memory(messages, is_another).is_err()
        {
            self.account.relay().metrics.limit_exceeded(Limit::Memory);
            self.begin_close(CloseReason::NoMemory);
            // It may have been closing already.
            self.drop_partial_message();
        }
    }

    fn dispatch_message(&mut self, message: Message) {
        let spoken = self.account.outbox.encoding();
        match message {
            Message::Close(_) => self.on_client_close(),
            _ if !self.is_open() => {}
            #[cfg(test)]
            Message::Binary(_) | Message::Text(_) if let Some(handle) = self.test_handler => {
                handle(self, message);
            }
            Message::Binary(frame) if spoken == EnvelopeEncoding::Protobuf => {
                self.handle_binary_frame(&frame);
            }
            Message::Text(json) if spoken == EnvelopeEncoding::Json => self.handle_json_frame(json),
            Message::Binary(_) | Message::Text(_) => {
                self.begin_close(CloseReason::WrongFrameType { spoken });
            }
            // tungstenite answers it by itself.
            Message::Ping(_) => self.on_ping(),
            Message::Pong(_) | Message::Frame(_) => {}
        }
    }

    fn on_written(&mut self, advanced: WriteProgress) {
        self.account.record_write(advanced);
        if advanced.frames > 0 {
            self.deadlines.write = None;
            self.final_check.clear(DeadlineKind::Write);
        }
        if !self.is_open() && self.account.outbox.is_empty() {
            let answered = Instant::now() + CLOSE_ANSWER_TIMEOUT;
            let end = self
                .deadlines
                .close
                .map_or(answered, |end| end.min(answered));
            self.deadlines.close = Some(end);
        }
    }
}
