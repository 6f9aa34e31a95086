//! Drives a client's conversation over its stream: reads when there is room for answers, writes
//! what is queued, watches the deadlines, and closes the connection with the right code. Knows no
//! topics.

mod authorization;
mod client_events;
mod ending;
mod heartbeat;
mod json;
mod offloaded;
mod open;
mod poll;
mod presence;
mod requests;
mod revocation;
mod token_renewal;

use std::{future::poll_fn, mem, rc::Rc, time::Duration};

use bytes::Bytes;
use sidewire_protocol::{EnvelopeEncoding, close::CloseReason};
use tokio::{task::yield_now, time::Instant};
use tokio_tungstenite::tungstenite::Message;

use self::{open::OpenConnection, poll::ConnectionStep, token_renewal::token_deadline};
use super::{
    admitted::{AdmittedClient, ConnectionGuard},
    conversation::{ClientRequest, ConversationAction, TopicsRequest},
    deadlines::{DeadlineKind, Deadlines, FinalCheck},
    http_stream::HttpStream,
    pace::MessageBudget,
    stream::{FrameStream, Transport},
    waiting::WaitingMessages,
};
use crate::{alarms::Alarm, limits::Limit, outbox::WriteProgress, relay::ShardContext};

/// Time that a client has to answer the relay's Close frame, once that is written.
const CLOSE_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

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

/// Serves a client without a WebSocket, beginning with the Subscribe of its request. A poll is answered
/// after `wait` at the latest, or, if a backend is being asked then, when that is settled.
pub(super) fn run_http_stream<H>(
    shard: Rc<ShardContext>,
    admitted: AdmittedClient,
    stream: Box<HttpStream>,
    subscribe: TopicsRequest,
    wait: Option<Duration>,
    held: H,
) -> impl Future<Output = ()> {
    let mut connection = ConnectionTask::new(shard, admitted, stream, &[]);
    if let Some(wait) = wait {
        connection.deadlines.silence = Some(Instant::now() + wait);
    }
    let request = ConversationAction::Request(ClientRequest::Subscribe(subscribe));
    connection.carry_out_or_queue(request, 0);
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
    /// True if the client has reconnected, until it resumes.
    may_resume_reconnect: bool,
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
        let now = Instant::now();
        Self {
            phase: ConnectionPhase::Open(OpenConnection {
                hub: admitted.hub,
                grant: identity.grant,
                pace: MessageBudget::default(),
                unanswered: None,
                waiting: WaitingMessages::default(),
                offloaded: None,
                renewal: None,
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
            may_resume_reconnect: admitted.has_reconnected,
            deadlines: Deadlines {
                token: token_deadline(relay, identity.expires_at),
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
                ConnectionStep::Presence => self.send_presence(),
                ConnectionStep::Waited => self.carry_out_waiting(),
                ConnectionStep::Revocation => self.carry_out_revocation(),
                ConnectionStep::TokenVerified(verified) => self.finish_renewal(*verified),
                ConnectionStep::MessageRead(read) => self.handle_read_message(read),
                ConnectionStep::Ending(ending) => self.begin_close(ending),
                ConnectionStep::Expired(DeadlineKind::Token) => {
                    self.begin_close(CloseReason::TokenExpired);
                }
                ConnectionStep::Expired(DeadlineKind::Message) => self.on_message_deadline(),
                ConnectionStep::Expired(DeadlineKind::Silence) => self.check_idle(),
                ConnectionStep::Expired(DeadlineKind::Presence) => self.deadlines.presence = None,
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

    /// Handles the messages that are read already, while the tenant's quantum lasts and there is
    /// room for the answers. Stops after a ping, so that its pong is written before that of a
    /// newer ping replaces it.
    fn handle_buffered_messages(&mut self) {
        if self.has_ready_request() || !self.may_work() {
            return;
        }
        // A shard that is stuck during a reload does not ring the alarms that would do this.
        self.refresh_message_max();
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
        let spoken = self.account.outbox().encoding();
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
            self.end_waiting_for_client();
            self.final_check.clear(DeadlineKind::Write);
        }
        if !self.is_open() && self.account.outbox().is_empty() {
            let answered = Instant::now() + CLOSE_ANSWER_TIMEOUT;
            let end = self
                .deadlines
                .close
                .map_or(answered, |end| end.min(answered));
            self.deadlines.close = Some(end);
        }
    }

    /// Notes that the kernel does not take what is queued: the client does not read it in time.
    fn begin_waiting_for_client(&mut self) {
        if self.deadlines.write.is_none() {
            let now = Instant::now();
            self.deadlines.write = Some(now + self.write_timeout());
            self.account.record_blocked(Some(now));
        }
    }

    /// Notes that the kernel has taken a frame, or that none will be written any more.
    fn end_waiting_for_client(&mut self) {
        if self.deadlines.write.take().is_some() {
            self.account.record_blocked(None);
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

    fn is_open(&self) -> bool {
        matches!(self.phase, ConnectionPhase::Open(_))
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
}
