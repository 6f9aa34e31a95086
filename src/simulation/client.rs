//! Clients: each connects, subscribes, stalls, is cut off and comes again, resumes
//! by the contract's rule, and notes what it sends and hears.

use std::{cell::Cell, rc::Rc, time::Duration};

use prost::Message;
use tokio::{
    sync::Notify,
    task::spawn_local,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    dice::Dice,
    events::Event,
    history::{Asked, Claim, Confirmation, Connection, End, History, Request, Said, When},
    known::{Group, Known},
    messages::{Envelope, Ping, Place, Topics},
    pipe::{Link, LinkKind, link},
    socket::{BINARY, CLOSE, Read, Socket},
    topics::{TopicSet, USERS},
    world::{SHARDS, World},
};
use crate::connection::wire_testing::Frame;

/// What all do at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Whatever they like.
    Chaos,
    /// All connect and read, and nothing goes wrong any more.
    Quiet,
    /// The relay ends.
    Drain,
    /// All take their leave.
    Over,
}

/// The phase, and who wants to know when it changes. (tokio's `watch` wakes in an order
/// that is drawn.)
pub(super) struct Stage {
    phase: Cell<Phase>,
    changed: Notify,
}

impl Stage {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::Chaos),
            changed: Notify::new(),
        })
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.changed.notify_waiters();
    }

    /// Waits for another phase than this one.
    async fn left(&self, phase: Phase) {
        while self.phase.get() == phase {
            self.changed.notified().await;
        }
    }
}

pub(super) struct Client {
    pub(super) world: Rc<World>,
    pub(super) history: Rc<History>,
    pub(super) dice: Dice,
    pub(super) stage: Rc<Stage>,
    pub(super) number: usize,
    pub(super) tenant: usize,
    /// It goes away and comes back while its shard takes nothing from its inbox.
    pub(super) is_restless: bool,
    /// Where it was last.
    pub(super) shard: usize,
    pub(super) known: Known,
}

/// One connection of a client, while it lasts.
struct Session<'a> {
    client: &'a mut Client,
    socket: Socket,
    link: Link,
    connection: usize,
    requests: usize,
    stalled_until: Instant,
    /// After each read it takes so long until the next.
    pause: Duration,
    next_act: Instant,
    has_closed: bool,
    phase: Phase,
}

impl Client {
    pub(super) fn user(&self) -> usize {
        self.number % USERS
    }

    /// Comes and goes until all is over.
    pub(super) async fn run(mut self) {
        sleep(self.dice.millis(0..2000)).await;
        loop {
            let phase = self.stage.phase();
            match phase {
                Phase::Chaos | Phase::Quiet => self.connect().await,
                Phase::Drain | Phase::Over => break,
            }
            let pause = match self.dice.weighted(&[30, 50, 20]) {
                _ if self.is_restless => self.dice.millis(2..20),
                0 => Duration::ZERO,
                1 => self.dice.millis(1..500),
                _ => self.dice.millis(500..4000),
            };
            tokio::select! {
                biased;
                () = self.stage.left(phase) => {}
                () = sleep(pause) => {}
            }
        }
    }

    async fn connect(&mut self) {
        let phase = self.stage.phase();
        let is_quiet = phase != Phase::Chaos;
        let asked = self.history.now();
        let lifetime = match self.dice.percent(12) && !is_quiet {
            true => self.dice.within(1..5) as u64,
            false => 3600,
        };
        let token_end = asked.time.as_secs() + lifetime;
        let (ours, theirs, link) = link(self.link_kind());
        if self.dice.percent(50) && !self.is_restless {
            self.shard = self.dice.below(SHARDS);
        }
        let shard = self.shard;
        self.history.notice_first_connection(self.tenant, shard);
        self.world.shards[shard].serve_client(theirs);
        let pieces = [64 * 1024, 64 * 1024, 100, 1000];
        let mut socket = Socket::new(ours, *self.dice.pick(&pieces));
        let token = self.world.token(self.tenant, self.user(), token_end);
        let status = timeout(Duration::from_secs(15), socket.shake_hands(&token)).await;
        let status = status.unwrap_or_default();
        self.history.trace(&(self.number, status));
        if status != 101 {
            self.history.count("handshake refused");
            return;
        }
        let connection = self.opened(asked, Duration::from_secs(token_end), shard);
        let session = Session {
            socket,
            link,
            connection,
            requests: 0,
            stalled_until: Instant::now(),
            pause: if self.dice.percent(40) && !is_quiet {
                self.dice.millis(1..120)
            } else {
                Duration::ZERO
            },
            next_act: Instant::now(),
            has_closed: false,
            phase,
            client: self,
        };
        session.run().await;
        self.claim_all();
    }

    fn link_kind(&self) -> LinkKind {
        LinkKind {
            room_bytes: *self.dice.pick(&[150, 600, 4_000, 64 * 1024]),
            latency: match self.dice.percent(50) || self.is_restless {
                true => Duration::ZERO,
                false => self.dice.millis(1..60),
            },
            piece_bytes: *self.dice.pick(&[7, 100, 64 * 1024, 64 * 1024]),
        }
    }

    fn opened(&self, asked: When, token_end: Duration, shard: usize) -> usize {
        let opened = self.history.now();
        let mut connections = self.history.connections.borrow_mut();
        connections.push(Connection {
            client: self.number,
            tenant: self.tenant,
            user: self.user(),
            shard,
            asked,
            opened,
            token_end,
            sent: Vec::new(),
            heard: Vec::new(),
            is_cut: false,
            end: None,
        });
        connections.len() - 1
    }

    /// Whether something waits for it in an inbox from which nobody takes.
    fn is_to_flee(&self) -> bool {
        let shard = &self.world.shards[self.shard];
        shard.inbox_gate.is_closed() && self.history.is_posting(self.tenant)
    }

    fn claim_all(&self) {
        self.claim(self.known.groups.clone());
    }

    /// Notes what it believes to have had.
    fn claim(&self, groups: Vec<Group>) {
        let when = self.history.now();
        let claims = groups.into_iter().map(|group| Claim {
            client: self.number,
            tenant: self.tenant,
            topics: group.topics,
            from: group.from,
            to: group.at,
            when,
        });
        self.history.claims.borrow_mut().extend(claims);
    }
}

impl Session<'_> {
    async fn run(mut self) {
        for (topics, place) in self.client.known.reconnected() {
            self.subscribe(topics, Some(place));
        }
        if self.phase == Phase::Chaos && self.client.dice.percent(50) {
            self.stalled_until = Instant::now() + self.client.dice.millis(200..1500);
        }
        loop {
            let is_stalled = self.stalled_until > Instant::now();
            let stage = Rc::clone(&self.client.stage);
            tokio::select! {
                biased;
                () = stage.left(self.phase) => self.phase_changed(),
                () = sleep_until(self.next_act) => {
                    if self.act() {
                        return;
                    }
                }
                () = sleep_until(self.stalled_until), if is_stalled => {}
                read = self.socket.next(is_stalled) => {
                    if self.has_read(read) {
                        return;
                    }
                }
            }
        }
    }

    fn phase_changed(&mut self) {
        self.link.release();
        self.stalled_until = Instant::now();
        self.pause = Duration::ZERO;
        self.phase = self.client.stage.phase();
        if self.phase == Phase::Over && !self.has_closed {
            self.client.history.end(self.connection, End::Done);
            self.close(1000);
        }
    }

    /// Takes what was read; whether it was the last.
    fn has_read(&mut self, read: Read) -> bool {
        self.stalled_until = Instant::now() + self.pause;
        let (end, is_torn) = match read {
            Read::Frame(frame) => {
                self.heard(&frame);
                return false;
            }
            Read::Part => return false,
            Read::Ended { is_torn } => (End::Ended { is_torn }, is_torn),
            Read::Reset { is_torn } => (End::Reset { is_torn }, is_torn),
        };
        let history = Rc::clone(&self.client.history);
        if is_torn && matches!(end, End::Reset { .. }) {
            history.count("reset in mid-frame");
        }
        if history.connection(self.connection).end.is_none() {
            let end = if self.has_closed { End::Closed } else { end };
            history.end(self.connection, end);
        }
        true
    }

    fn heard(&mut self, frame: &Frame) {
        let said = match frame.opcode {
            BINARY => self.said(&Envelope::decode(&frame.payload[..]).expect("an envelope")),
            CLOSE => self.closed_by_relay(&frame.payload),
            opcode => panic!("a frame with opcode {opcode}"),
        };
        if let Some(said) = said {
            self.client.history.hear(self.connection, said);
        }
    }

    fn said(&mut self, envelope: &Envelope) -> Option<Said> {
        assert!(!envelope.message_id.is_empty() && envelope.timestamp != 0);
        assert!(envelope.topics.is_empty(), "field 18 is delivered");
        let known = &mut self.client.known;
        Some(match envelope {
            Envelope { event: Some(_), .. } => {
                let place = envelope.position.as_ref().expect("a position").place();
                known.got(place);
                let (serial, tenant) = Event::recognise(envelope);
                Said::Event {
                    serial,
                    tenant,
                    place,
                }
            }
            Envelope {
                subscribed: Some(topics),
                ..
            } => {
                let place = topics.position.as_ref().expect("a position").place();
                let (recovered, replayed) = (topics.recovered, topics.replayed);
                let lost = known.subscribed(&topics.request, place, recovered, replayed);
                self.client.claim(lost);
                Said::Subscribed(Confirmation(topics.clone()))
            }
            Envelope {
                unsubscribed: Some(topics),
                ..
            } => Said::Unsubscribed(Confirmation(topics.clone())),
            Envelope {
                pong: Some(pong), ..
            } => Said::Pong(pong.client_timestamp),
            Envelope {
                error: Some(error), ..
            } => {
                known.refused(&error.request);
                Said::Refused {
                    code: error.code.clone(),
                    request: error.request.clone(),
                }
            }
            other => panic!("a client is told {other:?}"),
        })
    }

    fn closed_by_relay(&mut self, payload: &[u8]) -> Option<Said> {
        let (code, reason) = payload.split_first_chunk().expect("a code");
        let code = u16::from_be_bytes(*code);
        let reason = str::from_utf8(reason).unwrap().to_owned();
        if self.has_closed {
            return None;
        }
        self.close(code);
        Some(Said::Close { code, reason })
    }

    fn close(&mut self, code: u16) {
        self.has_closed = true;
        self.socket.send(CLOSE, &code.to_be_bytes());
    }

    /// Does something; whether it was the end of the connection.
    fn act(&mut self) -> bool {
        if self.phase != Phase::Chaos || self.has_closed {
            self.next_act = Instant::now() + Duration::from_hours(1);
            return false;
        }
        if self.client.is_restless {
            self.next_act = Instant::now() + self.client.dice.millis(5..80);
            if self.client.is_to_flee() {
                self.client.history.end(self.connection, End::Left);
                return true;
            }
            if self.client.dice.percent(90) {
                return false;
            }
        } else {
            self.next_act = Instant::now() + self.client.dice.millis(10..1500);
        }
        let dice = &self.client.dice;
        match dice.weighted(&[30, 10, 12, 8, 10, 6, 2, 4, 18]) {
            0 => self.subscribe(TopicSet::drawn(dice, dice.below(4)), None),
            1 => self.resume_from_anywhere(),
            2 => self.unsubscribe(TopicSet::drawn(dice, dice.within(1..4))),
            3 => self.ping(),
            4 => self.stalled_until = Instant::now() + dice.millis(100..5000),
            5 => self.partition(),
            6 => self.burst(),
            7 => self.ask_for_too_much(),
            _ => return self.leave(),
        }
        false
    }

    fn request(&mut self, envelope: Envelope, what: Asked) {
        let history = &self.client.history;
        let sent = Request {
            id: envelope.message_id.clone(),
            sent: history.now(),
            what,
        };
        history.connection(self.connection).sent.push(sent);
        self.socket.send(BINARY, &envelope.encode_to_vec());
    }

    fn next_id(&mut self) -> String {
        self.requests += 1;
        format!("{}.{}", self.connection, self.requests)
    }

    fn subscribe(&mut self, topics: TopicSet, resume_from: Option<Place>) {
        let message_id = self.next_id();
        let known = &mut self.client.known;
        known.subscribing(&message_id, topics, resume_from);
        let mut asked = Topics::drawn(topics, &self.client.dice);
        asked.position = resume_from.map(Into::into);
        let envelope = Envelope {
            message_id,
            subscribe: Some(asked.clone()),
            ..Envelope::default()
        };
        self.request(envelope, Asked::Subscribe(asked));
    }

    /// From where it may never have been.
    fn resume_from_anywhere(&mut self) {
        let dice = &self.client.dice;
        let topics = TopicSet::drawn(dice, dice.below(4));
        let known = self.client.known.groups.first().map(|group| group.at);
        let Some(mut place) = known else {
            return self.subscribe(topics, None);
        };
        match dice.below(6) {
            0 => place.epoch ^= 1,
            1 => place.offset += 1_000_000,
            2 => place.offset = 0,
            _ => place.offset = place.offset.saturating_sub(dice.below(60) as u64),
        }
        self.subscribe(topics, Some(place));
    }

    fn unsubscribe(&mut self, topics: TopicSet) {
        let had = self.client.known.unsubscribing(topics);
        self.client.claim(had);
        let asked = Topics::drawn(topics, &self.client.dice);
        let envelope = Envelope {
            message_id: self.next_id(),
            unsubscribe: Some(asked.clone()),
            ..Envelope::default()
        };
        self.request(envelope, Asked::Unsubscribe(asked));
    }

    fn ping(&mut self) {
        let timestamp = self.client.dice.below(1_000_000) as i64;
        let envelope = Envelope {
            message_id: self.next_id(),
            ping: Some(Ping {
                timestamp,
                client_timestamp: 0,
            }),
            ..Envelope::default()
        };
        self.request(envelope, Asked::Ping(timestamp));
    }

    /// Nothing gets through for a while.
    fn partition(&mut self) {
        self.link.hold();
        let (link, pause) = (self.link.clone(), self.client.dice.millis(100..4000));
        spawn_local(async move {
            sleep(pause).await;
            link.release();
        });
    }

    /// More at once than may wait for a replay.
    fn burst(&mut self) {
        self.resume_from_anywhere();
        for _ in 0..self.client.dice.within(2..24) {
            let dice = &self.client.dice;
            match dice.below(3) {
                0 => self.subscribe(TopicSet::drawn(dice, dice.below(3)), None),
                1 => self.unsubscribe(TopicSet::drawn(dice, 1)),
                _ => self.ping(),
            }
        }
    }

    /// What nobody may subscribe to, among what it may.
    fn ask_for_too_much(&mut self) {
        let dice = &self.client.dice;
        let refused = *dice.pick(&["tenant:*", "user:u1", "project:*", "nothing"]);
        let mut asked = Topics::drawn(TopicSet::drawn(dice, 2), dice);
        asked.topics.push(refused.to_owned());
        let envelope = Envelope {
            message_id: self.next_id(),
            subscribe: Some(asked.clone()),
            ..Envelope::default()
        };
        self.request(envelope, Asked::Subscribe(asked));
    }

    /// Ends the connection, in one way or the other; whether it is over at once.
    fn leave(&mut self) -> bool {
        let client = &self.client;
        match client.dice.weighted(&[20, 50, 15, 15]) {
            0 => {
                client.history.end(self.connection, End::Left);
                self.close(1000);
                return false;
            }
            1 => {
                // What is under way arrives up to some byte, mostly within a frame.
                let under_way = self.link.bytes_back();
                self.link.cut(client.dice.below(under_way + 1));
                self.stalled_until = Instant::now();
                client.history.connection(self.connection).is_cut = true;
                return false;
            }
            2 => {
                client.history.end(self.connection, End::Left);
                self.vanish();
            }
            _ => client.history.end(self.connection, End::Left),
        }
        true
    }

    /// Is there no more, without a word; after a while the relay's kernel notices.
    fn vanish(&mut self) {
        let (wire, _, link) = link(self.client.link_kind());
        drop(link);
        let socket = std::mem::replace(&mut self.socket, Socket::new(wire, 1));
        let (link, pause) = (self.link.clone(), self.client.dice.millis(1000..15_000));
        spawn_local(async move {
            sleep(pause).await;
            link.cut(0);
            drop(socket);
        });
    }
}
