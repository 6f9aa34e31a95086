//! Simulated clients without a WebSocket: each follows its topics by event streams or by polls, is
//! cut off, goes on from the position that it has, and records what it receives.

use std::{rc::Rc, time::Duration};

use serde_json::Value;
use sidewire_testing::http::{Answer, take_answer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use super::{
    dice::Dice,
    events::SimulatedEvent,
    history::{CompletenessClaim, History, ReceivedEvent, ResponseRecord},
    messages::{EventPlace, WireEnvelope, WirePosition},
    pipe::{LinkKind, PipeStream, link},
    schemas::REVISIONS,
    stage::{PhaseSwitch, StagePhase},
    tokens::{ClientToken, TopicGrant},
    topics::{TopicBits, USERS},
    world::{BEGIN, SHARDS, SimulatedWorld},
};

/// The user of all of them, to whom no event relates. The other users have the lower numbers.
pub(super) const ONLOOKER: usize = USERS;

pub(super) struct ResponseClient {
    pub(super) world: Rc<SimulatedWorld>,
    pub(super) history: Rc<History>,
    pub(super) dice: Dice,
    pub(super) stage: Rc<PhaseSwitch>,
    pub(super) number: usize,
    pub(super) tenant: usize,
    pub(super) topics: TopicBits,
    pub(super) polls: bool,
    /// The position from which it may resume.
    pub(super) at: Option<EventPlace>,
}

/// A connection, with what has arrived on it and is not handled.
struct ResponseSocket {
    wire: PipeStream,
    unparsed: Vec<u8>,
    /// Pause after each read.
    pause: Duration,
}

impl ResponseSocket {
    /// Reads once. Returns false at the end, also if the connection is lost.
    async fn read(&mut self) -> bool {
        sleep(self.pause).await;
        let mut bytes = [0; 1024];
        let count = self.wire.read(&mut bytes).await.unwrap_or(0);
        self.unparsed.extend_from_slice(&bytes[..count]);
        count > 0
    }

    /// Reads a line without its end; `None` at the end.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unparsed.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unparsed.drain(..=end).collect();
                let line = String::from_utf8(line).expect("a line is text");
                return Some(line.trim_end_matches(['\r', '\n']).to_owned());
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// Reads a response that has an end; `None` if it is lost before.
    async fn answer(&mut self) -> Option<Answer> {
        loop {
            let answer = take_answer(&mut self.unparsed, true).expect("an answer");
            if answer.is_some() {
                return answer;
            }
            if !self.read().await {
                return None;
            }
        }
    }
}

impl ResponseClient {
    /// Follows its topics until the simulation ends.
    pub(super) async fn run(mut self) {
        sleep(self.dice.millis(0..2000)).await;
        loop {
            let (stage, history) = (Rc::clone(&self.stage), Rc::clone(&self.history));
            let phase = stage.phase();
            if matches!(phase, StagePhase::Drain | StagePhase::Over) {
                break;
            }
            let first = history.responses.borrow().len();
            let patience = match phase == StagePhase::Chaos && self.dice.percent(60) {
                true => self.dice.millis(100..4000),
                false => Duration::from_secs(3600),
            };
            tokio::select! {
                biased;
                () = stage.left(phase) => {}
                () = sleep(patience) => history.count("a response that is cut off"),
                () = self.connect() => {}
            }
            let now = history.now();
            for response in &mut history.responses.borrow_mut()[first..] {
                if response.client == self.number {
                    response.end.get_or_insert(now);
                }
            }
            tokio::select! {
                biased;
                () = stage.left(phase) => {}
                () = sleep(self.dice.millis(1..1_500)) => {}
            }
        }
    }

    async fn connect(&mut self) {
        let is_quiet = self.stage.phase() != StagePhase::Chaos;
        let (mut wire, theirs, _link) = link(LinkKind::drawn(&self.dice, is_quiet));
        let shard = &self.world.shards[self.dice.below(SHARDS)];
        shard.serve_client(theirs);
        let requests = if self.polls {
            self.dice.within(1..5)
        } else {
            1
        };
        let mut socket = None;
        for _ in 0..requests {
            let (request, max) = self.request();
            if wire.write_all(request.as_bytes()).await.is_err() {
                return;
            }
            let number = self.asked();
            let with = socket.get_or_insert_with(|| ResponseSocket {
                wire,
                unparsed: Vec::new(),
                pause: match self.dice.percent(40) && !is_quiet {
                    true => self.dice.millis(1..120),
                    false => Duration::ZERO,
                },
            });
            let goes_on = match self.polls {
                true => self.read_answer(with, number, max).await,
                false => self.read_events(with, number).await,
            };
            if !goes_on {
                return;
            }
            let now = self.history.now();
            self.history.responses.borrow_mut()[number].end = Some(now);
            let again = socket.take().expect("it was made");
            assert!(again.unparsed.is_empty(), "more than an answer");
            wire = again.wire;
        }
    }

    /// Returns a request, and the most events that its answer may have.
    fn request(&self) -> (String, usize) {
        let token = ClientToken {
            tenant: self.tenant,
            user: ONLOOKER,
            expires_at: BEGIN + Duration::from_secs(100_000),
            grant: TopicGrant::Everything,
            claim: None,
        };
        let token = self.world.token(&token);
        let max = *self.dice.pick(&[1, 3, 100]);
        let topics = self.topics.names().map(|name| format!("topic={name}"));
        let since = self
            .at
            .map(|at| format!("since={:032x}:{}", at.epoch, at.offset));
        let wait = self.dice.pick(&["0", "300ms", "5s"]);
        let bounds = self.polls.then(|| format!("wait={wait}&max={max}"));
        let query: Vec<_> = topics.chain(since).chain(bounds).collect();
        let (path, query) = (if self.polls { "poll" } else { "sse" }, query.join("&"));
        let request = format!(
            "GET /{path}?{query} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        (request, max)
    }

    fn all_topics(&self) -> TopicBits {
        self.topics | TopicBits::implicit(ONLOOKER)
    }

    fn asked(&self) -> usize {
        let asked = self.history.now();
        let mut responses = self.history.responses.borrow_mut();
        responses.push(ResponseRecord {
            client: self.number,
            tenant: self.tenant,
            topics: self.all_topics(),
            asked,
            events: Vec::new(),
            end: None,
        });
        responses.len() - 1
    }

    /// Handles the answer to a poll. Returns true if another request may follow.
    async fn read_answer(
        &mut self,
        socket: &mut ResponseSocket,
        number: usize,
        max: usize,
    ) -> bool {
        let Some(answer) = socket.answer().await else {
            return false;
        };
        self.history.trace(&(self.number, answer.status));
        if answer.status != 200 {
            self.refused(answer.status).await;
            return false;
        }
        let answer = answer.json();
        let position = place_in(&answer["position"]);
        let events = answer["events"].as_array().expect("events");
        assert!(events.len() <= max, "{} of {max} events", events.len());
        match answer["recovered"].as_bool() {
            Some(true) => {
                for event in events {
                    let envelope = WireEnvelope::from_json(event.to_string().as_bytes());
                    self.received(number, &envelope);
                }
                let last = self.at.expect("it resumes");
                assert!(
                    last.offset <= position.offset,
                    "{last:?} is behind {position:?}"
                );
                self.advance(position);
                self.history.count(match events.is_empty() {
                    true => "a poll without events",
                    false => "a poll with events",
                });
            }
            _ => self.restart(events.is_empty(), position),
        }
        true
    }

    /// Follows an event stream until it ends. Returns false: nothing may follow it.
    async fn read_events(&mut self, socket: &mut ResponseSocket, number: usize) -> bool {
        let Some(status) = socket.line().await else {
            return false;
        };
        let status = status.get(9..12).unwrap().parse().unwrap();
        self.history.trace(&(self.number, status));
        if status != 200 {
            self.refused(status).await;
            return false;
        }
        loop {
            match socket.line().await {
                Some(line) if line.is_empty() => break,
                Some(_) => {}
                None => return false,
            }
        }
        let (mut data, mut id, mut is_close) = (String::new(), None, false);
        while let Some(line) = socket.line().await {
            let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
            match name {
                "data" => value.clone_into(&mut data),
                "id" => id = Some(place_of(value)),
                "event" => is_close = true,
                ":" => self.history.count("a comment"),
                "retry" => {}
                "" if is_close => {
                    let close: Value = serde_json::from_str(&data).expect("JSON");
                    let code = close["code"].as_u64().unwrap();
                    self.history.trace(&(self.number, code));
                    match code {
                        4003 => self.history.count("4003 of an event stream"),
                        4002 | 4006 => self.history.count("a stream that a backend has ended"),
                        _ => {}
                    }
                }
                "" => {
                    if !data.is_empty() {
                        let envelope = WireEnvelope::from_json(data.as_bytes());
                        if envelope.unsubscribed.is_some() {
                            // It has lost a topic, and asks for it again.
                            self.history.count("a stream that has lost a topic");
                            return false;
                        }
                        self.heard(number, &envelope);
                    }
                    if let Some(id) = id.take() {
                        self.advance(id);
                    }
                    data.clear();
                }
                _ => panic!("a line is {line}"),
            }
        }
        false
    }

    fn heard(&mut self, number: usize, envelope: &WireEnvelope) {
        if let Some(confirmed) = &envelope.subscribed {
            let position = confirmed.position.as_ref().expect("a position").place();
            match confirmed.recovered {
                true => self.history.count("a stream that resumed"),
                false => self.restart(confirmed.replayed == 0, position),
            }
        } else if envelope.event.is_some() {
            self.received(number, envelope);
        }
    }

    /// Begins anew at this position, because events may be missing, or it had none.
    fn restart(&mut self, has_no_events: bool, position: EventPlace) {
        assert!(has_no_events, "a replay with a gap");
        if self.at.is_some() {
            self.history.count("a gap without a WebSocket");
        }
        self.at = Some(position);
    }

    /// Takes note that it has everything up to this position.
    fn advance(&mut self, position: EventPlace) {
        let from = self.at.replace(position).expect("a position to start from");
        assert!(
            from.epoch == position.epoch && from.offset <= position.offset,
            "{position:?} comes after {from:?}"
        );
        let claim = CompletenessClaim {
            client: self.number,
            tenant: self.tenant,
            topics: self.all_topics(),
            from,
            to: position,
            when: self.history.now(),
        };
        self.history.claims.borrow_mut().push(claim);
    }

    fn received(&self, number: usize, envelope: &WireEnvelope) {
        let place = envelope.position.as_ref().expect("a position").place();
        let (serial, tenant) = SimulatedEvent::recognise(envelope);
        assert_eq!(tenant, self.tenant, "an event of another tenant");
        {
            let events = self.history.events.borrow();
            let posted = events[serial].envelope.event.as_ref();
            let (posted, shown) = (posted.unwrap(), envelope.event.as_ref().unwrap());
            let is_shown = (0..REVISIONS).any(|revision| posted.under(revision) == *shown);
            assert!(is_shown, "{posted:?} is shown as {shown:?}");
        }
        self.history.trace(&(self.number, place));
        let when = self.history.now();
        let mut responses = self.history.responses.borrow_mut();
        let event = ReceivedEvent {
            serial,
            place,
            when,
        };
        responses[number].events.push(event);
    }

    async fn refused(&self, status: u16) {
        assert!([401, 403, 429, 503].contains(&status), "{status}");
        self.history.count("a refusal without a WebSocket");
        sleep(self.dice.millis(1_000..5_000)).await;
    }
}

fn place_in(position: &Value) -> EventPlace {
    // JSON leaves a zero out.
    let offset = position["offset"].as_str().unwrap_or("0");
    WirePosition {
        epoch: position["epoch"].as_str().expect("an epoch").to_owned(),
        offset: offset.parse().unwrap(),
    }
    .place()
}

fn place_of(text: &str) -> EventPlace {
    let (epoch, offset) = text.split_once(':').expect("a position");
    WirePosition {
        epoch: epoch.to_owned(),
        offset: offset.parse().unwrap(),
    }
    .place()
}
