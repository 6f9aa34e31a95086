//! Drives one client's conversation over its stream: reads when there is room for
//! answers, writes what is queued, keeps the deadlines, ends the connection with
//! the right code. Knows no topics.

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

/// How long a client may take to answer our Close frame, once that is written.
const CLOSE_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The most bytes that are written whenever the socket takes them; the system call is counted
/// for more than the copy then.
const WRITTEN_AT_ONCE_MAX: usize = 16 * 1024;

/// What becomes of a client's messages. It is the type that says so: the relay
/// pays nothing for it that tests put another in the place of its own.
pub(super) trait Listener: Sized {
    /// Takes a message, text or binary, of a connection that is open.
    fn hear<S: Transport>(connection: &mut Connection<S, Self>, message: Message);
}

/// Takes messages as the relay's protocol has it.
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

/// Speaks with the client until the connection is closed. `read_ahead` is what was
/// read behind the handshake; `held` is held until the end.
pub fn converse<S: Transport, H>(
    shard: Rc<Shard>,
    admitted: Admitted,
    stream: S,
    read_ahead: Bytes,
    held: H,
) -> impl Future<Output = ()> {
    listen::<Relayed, S, H>(shard, admitted, stream, read_ahead, held)
}

/// The same with whatever listener.
pub(super) fn listen<L: Listener, S: Transport, H>(
    shard: Rc<Shard>,
    admitted: Admitted,
    stream: S,
    read_ahead: Bytes,
    held: H,
) -> impl Future<Output = ()> {
    // Not an async function, whose future would hold the connection twice: as
    // what came in and as what is made of it. So would one that awaits this one.
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
    /// Gone as soon as the connection begins to end: nothing more is for it.
    membership: Option<Membership>,
    /// A Subscribe that is not done at once.
    subscribing: Option<Box<Subscribing>>,
    /// Subscribes and Unsubscribes that come after it, in order.
    waiting: WaitingRequests,
    /// While another thread reads what the client said.
    reading_json: Option<Box<ReadingJson>>,
    /// While what was read waits for the tenant's turn.
    place: Option<Place>,
    /// While much waits to be written and it is not the tenant's turn.
    write_place: Option<Place>,
    stream: FrameStream<S>,
    phase: Phase,
    /// The log was read, or as many frames as one connection may have taken in a turn:
    /// others have their turn before anything else is done.
    turn_is_over: bool,
    /// Whether something is read that was not looked at: at first what came
    /// behind the handshake.
    unlooked: bool,
    deadlines: Deadlines,
    /// When the client's last byte was read.
    heard: Instant,
    /// When a client that has been pinged, and not been heard of since, is given up.
    given_up_at: Option<Instant>,
    /// What is late, and is judged once the socket has been looked at once more: where
    /// the process did not run for a while, what makes it good may lie in the kernel.
    last_look: Option<Late>,
    /// Set for the next of the deadlines.
    alarm: Option<Alarm>,
    /// What its token was verified with.
    key: Option<KeyFingerprint>,
    /// When its token ends, by the time of day.
    expires_at: Option<Duration>,
    /// Has the shard and the outbox.
    pub(super) account: Account,
}

/// How far the connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Both sides talk.
    Open,
    /// A Close frame is queued or written. What the client sends is looked at
    /// only for its own.
    Closing,
    /// Both Close frames are known of: what is queued is still written.
    Closed,
    /// After a breach of the protocol: what is queued is still written. What the
    /// client sends is read and forgotten, since to leave it unread would make
    /// the kernel reset the connection, and our Close frame might get lost.
    Lingering {
        /// Whether the client knows that we write no more.
        shut_down: bool,
    },
}

/// What a connection waits for.
enum Step {
    Read,
    /// Nothing: something is read and not looked at.
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
                // Where nobody is charged any more.
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
            // What has come from the client, or what it has made room for, goes before that.
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

    /// Waits until something can be done that the client asks for. What it asked for first
    /// is done first.
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

    /// What is late; else sees to it that an alarm rings when something will be.
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
            // The old one first: it is not to ring.
            self.alarm = None;
            if let Some(late) = self.deadlines.late(Instant::now()) {
                return Some(late);
            }
            self.alarm = next.map(|next| self.account.shard.alarms.set(next, &self.account.outbox));
        }
        None
    }

    /// Whether what is late is judged only after one more look at the socket. That look is
    /// a turn of its own: at the end of a long turn, or of a pause of the process, the
    /// event loop has told nobody yet what is there to be read or written.
    fn looks_once_more(&mut self, late: Late) -> bool {
        let is_first = self.last_look != Some(late);
        if is_first {
            self.last_look = Some(late);
            self.turn_is_over = true;
        }
        is_first
    }

    /// That was the last look, if it was for this; the next time there is another.
    fn has_made_good(&mut self, late: Late) {
        self.last_look.take_if(|looked| *looked == late);
    }

    /// Whether a reload has taken the key away that the token was signed with, and
    /// such connections are to be closed.
    fn is_key_removed(&self) -> bool {
        let live = self.account.shard.relay.live();
        live.config.auth.close_on_key_removal
            && self.key.is_some_and(|key| !live.authenticator.has_key(key))
    }

    /// Whether what waits may be written now. Where it is much, it takes long to copy, and the
    /// connection waits for its tenant's turn: when many clients make room at the same time,
    /// the kernel tells of all of them at once.
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
                // Others need not wait for a client that does not read.
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

    /// Whether more is taken from the client. One that does not take its answers is not
    /// asked for more questions, nor one whose last is not answered yet or waits for its
    /// first turn to read the log.
    fn is_read_from(&self) -> bool {
        let subscribing = self.subscribing.as_ref();
        let is_kept_waiting = self.has_waited()
            || self.reading_json.is_some()
            || subscribing.is_some_and(|subscribing| subscribing.stops_reading());
        !is_kept_waiting && self.account.outbox.is_half_free()
    }

    /// Whether the relay waits for the client, and not the client for its tenant's turn or
    /// for anything else.
    fn is_waited_for(&self) -> bool {
        self.is_read_from() && self.place.is_none()
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        match self.phase {
            Phase::Open | Phase::Closing => {
                if !self.is_read_from() {
                    // Others need not wait for a client that does not read.
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
                        // It may still read: our Close is for it.
                        self.phase = Phase::Closed;
                        Poll::Ready(Step::Read)
                    }
                    Poll::Ready(Err(_)) => Poll::Ready(Step::Over),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    /// Whether work may be done for the client now. Else the connection waits for its tenant's
    /// turn.
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

    /// Takes the messages that are read already, for as long as it is the tenant's turn and there is room for
    /// what they may be answered with. After a ping it pauses for its pong to be
    /// written: were it to wait until a newer one comes, it would have to go.
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
        // Behind the others of the tenant, if there is more.
        self.place = None;
        self.charge_frames();
        self.watch_message(is_another);
        self.reserve_memory(is_another);
    }

    /// Reserves memory for a message that is not complete. Without room the connection is
    /// closed: not to read on would free nothing, neither here nor at the client.
    fn reserve_memory(&mut self, is_another: bool) {
        let messages = self.account.shard.hub.begun_messages();
        if matches!(self.phase, Phase::Open | Phase::Closing)
            && self.stream.reserve_memory(messages, is_another).is_err()
        {
            self.account.shard.relay.metrics.exceeded(Limit::Memory);
            self.end(Ending::NoMemory);
            // It may have been closing before.
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
