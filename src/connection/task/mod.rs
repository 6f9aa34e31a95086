//! Drives a client's conversation over its stream: reads when there is room for answers, writes
//! what is queued, watches the deadlines, and closes the connection with the right code. Knows no
//! topics.

mod ending;
mod heartbeat;
mod json;
mod requests;

use std::{
    future::poll_fn,
    marker::PhantomData,
    mem,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{task::yield_now, time::Instant};
use tokio_tungstenite::tungstenite::Message;

use self::json::{ReadJson, ReadingJson};
use super::{
    admitted::{Account, Admitted},
    alarms::Alarm,
    behind::{Subscribing, WaitingRequests},
    conversation::Conversation,
    deadlines::{Deadlines, Late},
    pace::Pace,
    stream::{FrameStream, Transport},
};
use crate::{
    auth::KeyFingerprint,
    hub::Membership,
    limits::Limit,
    outbox::Advanced,
    protocol::{Encoding, close::Ending},
    relay::Shard,
    scheduler::{Cost, Place},
};

/// Time that a client has to answer the relay's Close frame, once that is written.
const CLOSE_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of queued bytes that are written without waiting for the tenant's quantum. Up
/// to this size the system call costs more than the copy.
const WRITTEN_AT_ONCE_MAX: usize = 16 * 1024;

/// The handler of a client's messages. It is a type parameter, so that tests can use their own at
/// no cost to the relay.
pub(super) trait Listener: Sized {
    /// Handles a text or binary message of an open connection.
    fn hear<S: Transport>(connection: &mut Connection<S, Self>, message: Message);
}

/// Handles messages by the relay's protocol.
pub(super) enum Relayed {}

impl Listener for Relayed {
    fn hear<S: Transport>(connection: &mut Connection<S, Self>, message: Message) {
        let spoken = connection.account.outbox.encoding();
        match (spoken, message) {
            (Encoding::Protobuf, Message::Binary(frame)) => connection.answer(&frame),
            (Encoding::Json, Message::Text(json)) => connection.answer_json(json),
            _ => connection.end(Ending::WrongFrameType { spoken }),
        }
    }
}

/// Serves the client until the connection is closed. `read_ahead` holds the bytes that were read
/// after the handshake; `held` is dropped at the end.
pub fn converse<S: Transport, H>(
    shard: Rc<Shard>,
    admitted: Admitted,
    stream: S,
    read_ahead: Bytes,
    held: H,
) -> impl Future<Output = ()> {
    listen::<Relayed, S, H>(shard, admitted, stream, read_ahead, held)
}

/// Serves the client until the connection is closed, with the message handler `L`.
pub(super) fn listen<L: Listener, S: Transport, H>(
    shard: Rc<Shard>,
    admitted: Admitted,
    stream: S,
    read_ahead: Bytes,
    held: H,
) -> impl Future<Output = ()> {
    // Not an async function: its future would hold the connection twice, as the arguments and as
    // the value made from them. So would the future of an async function that awaits this one.
    let mut connection = Connection::<S, L>::new(shard, admitted, stream, &read_ahead);
    async move {
        connection.run().await;
        drop(held);
    }
}

pub(super) struct Connection<S: Transport, L> {
    listener: PhantomData<L>,
    conversation: Conversation,
    pace: Pace,
    /// `None` as soon as the connection begins to close, so that nothing more is queued for it.
    membership: Option<Membership>,
    /// A Subscribe that is under way.
    subscribing: Option<Box<Subscribing>>,
    /// Subscribes and Unsubscribes that came after it, in order.
    waiting: WaitingRequests,
    /// A JSON frame that another thread decodes.
    reading_json: Option<Box<ReadingJson>>,
    /// Slot in the tenant's queue, held while received messages wait for its quantum.
    place: Option<Place>,
    /// Slot in the tenant's queue, held while a large write waits for its quantum.
    write_place: Option<Place>,
    stream: FrameStream<S>,
    phase: Phase,
    /// True if the connection has read the log or used up its frames for this turn, and so must
    /// yield before it does anything else.
    turn_is_over: bool,
    /// True while there may be bytes that are read and not parsed yet: initially those that came
    /// after the handshake.
    unlooked: bool,
    deadlines: Deadlines,
    /// Time at which the client's last byte was read.
    heard: Instant,
    /// Time at which a client that was pinged is disconnected, unless it sends something before.
    given_up_at: Option<Instant>,
    /// Deadline that has expired and takes effect after a final check of the socket: if the
    /// process did not run for a while, the data that meets the deadline may be in the kernel.
    last_look: Option<Late>,
    /// Set for the earliest deadline.
    alarm: Option<Alarm>,
    /// Fingerprint of the key that verified its token.
    key: Option<KeyFingerprint>,
    /// Time of day at which its token expires, since the Unix epoch.
    expires_at: Option<Duration>,
    /// Also holds the shard and the outbox.
    pub(super) account: Account,
}

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Both sides send messages.
    Open,
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

/// The next thing for a connection to do.
enum Step {
    Read,
    /// Parse bytes that are read already.
    Look,
    Wrote(Advanced),
    CatchUp,
    Reached,
    Waited,
    ReadJson(ReadJson),
    Ending(Ending),
    Late(Late),
    Over,
}

impl<S: Transport, L: Listener> Connection<S, L> {
    fn new(shard: Rc<Shard>, admitted: Admitted, stream: S, read_ahead: &[u8]) -> Self {
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
            listener: PhantomData,
            conversation: Conversation::new(
                identity.grant,
                live.config.limits.topics_per_subscribe,
            ),
            pace: Pace::default(),
            membership: Some(admitted.membership),
            subscribing: None,
            waiting: WaitingRequests::default(),
            reading_json: None,
            place: None,
            write_place: None,
            turn_is_over: false,
            stream: FrameStream::new(stream, read_ahead, message_max, Rc::clone(&outbox)),
            phase: Phase::Open,
            unlooked: true,
            deadlines: Deadlines {
                token: lifetime.and_then(|lifetime| now.checked_add(lifetime)),
                silence: Some(now + client.ping_interval),
                ..Deadlines::default()
            },
            heard: now,
            given_up_at: None,
            last_look: None,
            expires_at: identity.expires_at,
            alarm: None,
            key: identity.key,
            account: admitted.account,
        }
    }

    async fn run(&mut self) {
        loop {
            if self.unlooked {
                self.take_messages();
                // No tenant is charged any more, so no quantum makes the connection yield.
                self.turn_is_over |= self.membership.is_none();
            }
            if mem::take(&mut self.turn_is_over) {
                yield_now().await;
            }
            match poll_fn(|context| self.poll_step(context)).await {
                Step::Read => {
                    self.account.read();
                    self.unlooked = true;
                    self.hears();
                }
                Step::Look => {}
                Step::Wrote(advanced) => self.wrote(advanced),
                Step::CatchUp => self.catch_up(),
                Step::Reached => self.subscribe_awaited(),
                Step::Waited => self.take_waiting(),
                Step::ReadJson(read) => self.answer_read(read),
                Step::Ending(ending) => self.end(ending),
                Step::Late(Late::Token) => self.end(Ending::TokenExpired),
                Step::Late(Late::Message) => self.message_is_late(),
                Step::Late(Late::Silence) => self.look_at_silence(),
                Step::Late(Late::Write) if self.looks_once_more(Late::Write) => {}
                Step::Late(Late::Write | Late::Close) => {
                    self.cut_off();
                    break;
                }
                Step::Over => break,
            }
        }
    }

    /// Waits for the next thing to do. Endings and deadlines come first, so that
    /// a client that never stops sending cannot put them off; then writing, since
    /// a connection stops reading when its outbox fills up.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        self.account.outbox.register(context);
        if self.phase == Phase::Open
            && let Some(ending) = self.account.outbox.ending()
            && !self.is_owed_more(ending)
        {
            return Poll::Ready(Step::Ending(ending));
        }
        if let Some(late) = self.check_deadlines() {
            // Input that has arrived, and room that the client has made, take precedence over the
            // deadline.
            let looked = match late {
                Late::Silence | Late::Message => self.poll_read(context),
                Late::Write => self.poll_write(context),
                Late::Token | Late::Close => Poll::Pending,
            };
            return match looked {
                Poll::Ready(step) => Poll::Ready(step),
                Poll::Pending => Poll::Ready(Step::Late(late)),
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
        self.check_deadlines()
            .map_or(Poll::Pending, |late| Poll::Ready(Step::Late(late)))
    }

    /// Waits until one of the client's requests can be carried out. They are carried out in the
    /// order in which they came.
    fn poll_requests(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if self.has_reached_awaited() {
            return Poll::Ready(Step::Reached);
        }
        if self.has_waited() {
            return match self.may_work() {
                true => Poll::Ready(Step::Waited),
                false => Poll::Pending,
            };
        }
        if let Poll::Ready(read) = self.poll_reading_json(context) {
            return Poll::Ready(Step::ReadJson(read));
        }
        if let Poll::Ready(step) = self.poll_read(context) {
            return Poll::Ready(step);
        }
        match self.may_catch_up(context) {
            true => Poll::Ready(Step::CatchUp),
            false => Poll::Pending,
        }
    }

    /// Returns an expired deadline, if there is one. Otherwise sets an alarm for the earliest.
    fn check_deadlines(&mut self) -> Option<Late> {
        if self.account.outbox.take_rung() {
            self.alarm = None;
            self.hasten_silence();
            if self.phase == Phase::Open && self.is_key_removed() {
                self.account.outbox.end(Ending::KeyRemoved);
            }
        }
        let next = self.deadlines.next();
        if self.alarm.as_ref().map(Alarm::at) != next {
            // The old alarm is dropped first, so that it does not ring.
            self.alarm = None;
            if let Some(late) = self.deadlines.late(Instant::now()) {
                return Some(late);
            }
            self.alarm = next.map(|next| self.account.shard.alarms.set(next, &self.account.outbox));
        }
        None
    }

    /// Returns true if the expired deadline takes effect only after a final check of the socket.
    /// The check happens in the next turn: at the end of a long turn, or of a pause of the
    /// process, the event loop has not reported yet what can be read or written.
    fn looks_once_more(&mut self, late: Late) -> bool {
        let is_first = self.last_look != Some(late);
        if is_first {
            self.last_look = Some(late);
            self.turn_is_over = true;
        }
        is_first
    }

    /// Records that this deadline was met, so that a final check precedes its next expiry again.
    fn has_made_good(&mut self, late: Late) {
        self.last_look.take_if(|looked| *looked == late);
    }

    /// Returns true if a reload has removed the key that verified the token, and such connections
    /// are to be closed.
    fn is_key_removed(&self) -> bool {
        let live = self.account.shard.relay.live();
        live.config.auth.close_on_key_removal
            && self.key.is_some_and(|key| !live.authenticator.has_key(key))
    }

    /// Returns true if what is queued may be written now. A large write takes long to copy, so it
    /// waits for the tenant's quantum: if many clients make room at the same time, the kernel
    /// reports all of them at once.
    fn may_write(&mut self) -> bool {
        match &self.membership {
            Some(membership) if self.account.outbox.unwritten_bytes() > WRITTEN_AT_ONCE_MAX => {
                membership.may_write(&mut self.write_place)
            }
            _ => {
                self.write_place = None;
                true
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if self.stream.has_unwritten() {
            let before = self.account.outbox.unwritten_bytes();
            let polled = self.stream.poll_write(context);
            if before > WRITTEN_AT_ONCE_MAX {
                let written = before - self.account.outbox.unwritten_bytes();
                if let Some(membership) = &self.membership {
                    membership.charge_write(Cost::BYTE.times(written));
                }
                // Gives up the slot: others need not wait for a client that does not read.
                self.write_place = None;
            }
            return match polled {
                Poll::Ready(Ok(advanced)) => Poll::Ready(Step::Wrote(advanced)),
                Poll::Ready(Err(_)) => Poll::Ready(self.lost()),
                Poll::Pending => {
                    let timeout = self.account.shard.relay.live().config.client.write_timeout;
                    self.deadlines
                        .write
                        .get_or_insert_with(|| Instant::now() + timeout);
                    Poll::Pending
                }
            };
        }
        match &mut self.phase {
            Phase::Open | Phase::Closing | Phase::Lingering { shut_down: true } => Poll::Pending,
            Phase::Closed => self.stream.poll_shutdown(context).map(|_| Step::Over),
            Phase::Lingering { shut_down } => match self.stream.poll_shutdown(context) {
                Poll::Ready(Ok(())) => {
                    *shut_down = true;
                    Poll::Pending
                }
                Poll::Ready(Err(_)) => Poll::Ready(Step::Over),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    /// Returns true if more is read from the client. Nothing is read while its outbox is half
    /// full, while an earlier request is unanswered, or until a Subscribe has read the log for
    /// the first time.
    fn is_read_from(&self) -> bool {
        let subscribing = self.subscribing.as_ref();
        let is_kept_waiting = self.has_waited()
            || self.reading_json.is_some()
            || subscribing.is_some_and(|subscribing| subscribing.stops_reading());
        !is_kept_waiting && self.account.outbox.is_half_free()
    }

    /// Returns true if the relay waits for the client, and the client waits neither for its
    /// tenant's quantum nor for anything else.
    fn is_waited_for(&self) -> bool {
        self.is_read_from() && self.place.is_none()
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        match self.phase {
            Phase::Open | Phase::Closing => {
                if !self.is_read_from() {
                    // Gives up the slot: others need not wait for a client that does not read.
                    if !self.has_waited() {
                        self.place = None;
                    }
                    return Poll::Pending;
                }
                if self.unlooked {
                    return match self.may_work() {
                        true => Poll::Ready(Step::Look),
                        false => Poll::Pending,
                    };
                }
                match self
                    .stream
                    .poll_read(context, &self.account.shard.read_buffer)
                {
                    Poll::Ready(Ok(())) => Poll::Ready(Step::Read),
                    Poll::Ready(Err(_)) => Poll::Ready(self.lost()),
                    Poll::Pending => Poll::Pending,
                }
            }
            Phase::Closed => Poll::Pending,
            Phase::Lingering { .. } => {
                match self
                    .stream
                    .poll_discard(context, &self.account.shard.read_buffer)
                {
                    Poll::Ready(Ok(true)) => Poll::Ready(Step::Read),
                    Poll::Ready(Ok(false)) => {
                        // The client may still read, so the Close frame is written.
                        self.phase = Phase::Closed;
                        Poll::Ready(Step::Read)
                    }
                    Poll::Ready(Err(_)) => Poll::Ready(Step::Over),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    /// Returns true if work may be done for the client now. Otherwise the connection queues for
    /// its tenant's quantum.
    fn may_work(&mut self) -> bool {
        let Some(membership) = &self.membership else {
            return true;
        };
        membership.may_work(&mut self.place)
    }

    fn has_quota(&self) -> bool {
        let membership = self.membership.as_ref();
        membership.is_none_or(Membership::has_quota)
    }

    /// Handles the messages that are read already, while the tenant's quantum lasts and there is
    /// room for the answers. Stops after a ping, so that its pong is written before that of a
    /// newer ping replaces it.
    fn take_messages(&mut self) {
        if self.has_waited() || !self.may_work() {
            return;
        }
        let mut is_another = false;
        let message_max = self.account.shard.relay.live().config.client.message_max;
        self.stream.bound_messages(message_max);
        while matches!(self.phase, Phase::Open | Phase::Closing)
            && !self.turn_is_over
            && self.is_read_from()
            && self.has_quota()
        {
            match self.stream.next_message() {
                Ok(Some(message)) => {
                    is_another |= message.is_binary() || message.is_text();
                    let is_ping = message.is_ping();
                    self.take(message);
                    if is_ping {
                        break;
                    }
                }
                Ok(None) if self.stream.begin_turn() => self.turn_is_over = true,
                Ok(None) => {
                    self.unlooked = false;
                    break;
                }
                Err(error) => self.broken(&error),
            }
        }
        // If there is more, it queues behind the tenant's other work.
        self.place = None;
        self.charge_frames();
        self.watch_message(is_another);
        self.reserve_memory(is_another);
    }

    /// Reserves memory for a message that is not complete. If there is none, the connection is
    /// closed: to stop reading would free nothing, neither here nor at the client.
    fn reserve_memory(&mut self, is_another: bool) {
        let messages = self.account.shard.hub.begun_messages();
        if matches!(self.phase, Phase::Open | Phase::Closing)
            && self.stream.reserve_memory(messages, is_another).is_err()
        {
            self.account.shard.relay.metrics.exceeded(Limit::Memory);
            self.end(Ending::NoMemory);
            // It may have been closing already.
            self.drop_begun_message();
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Close(_) => self.closed_by_client(),
            _ if self.phase != Phase::Open => {}
            Message::Binary(_) | Message::Text(_) => L::hear(self, message),
            // tungstenite answers it by itself.
            Message::Ping(_) => self.pinged(),
            Message::Pong(_) | Message::Frame(_) => {}
        }
    }

    fn wrote(&mut self, advanced: Advanced) {
        self.account.wrote(advanced);
        if advanced.frames > 0 {
            self.deadlines.write = None;
            self.has_made_good(Late::Write);
        }
        if self.phase != Phase::Open && self.account.outbox.is_empty() {
            let answered = Instant::now() + CLOSE_ANSWER_TIMEOUT;
            let end = self
                .deadlines
                .close
                .map_or(answered, |end| end.min(answered));
            self.deadlines.close = Some(end);
        }
    }
}
