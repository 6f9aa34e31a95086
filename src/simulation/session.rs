//! A connection of a client: reads frames, acts, and records the end.

use std::{rc::Rc, time::Duration};

use prost::Message;
use tokio::time::{Instant, sleep_until};

use super::{
    client::Client,
    events::{Event, Serial},
    history::{Confirmation, End, Said, Scarce},
    messages::{Envelope, Position},
    pipe::Link,
    schemas::REVISIONS,
    socket::{BINARY, CLOSE, PING, PONG, Read, Socket, TEXT},
    stage::Phase,
};
use crate::connection::wire_testing::Frame;

/// An open connection of a client.
pub(super) struct Session<'a> {
    pub(super) client: &'a mut Client,
    pub(super) socket: Socket,
    pub(super) link: Link,
    pub(super) connection: usize,
    pub(super) requests: usize,
    pub(super) stalled_until: Instant,
    /// Pause after each read.
    pub(super) pause: Duration,
    pub(super) next_act: Instant,
    pub(super) has_closed: bool,
    pub(super) phase: Phase,
}

impl Client {
    /// Checks that the envelope holds the posted event: completely, or as JSON shows it under some
    /// schemas. Returns the first and the last revision of these.
    fn shown_by(&self, serial: Serial, envelope: &Envelope) -> Option<(usize, usize)> {
        let events = self.history.events.borrow();
        let posted = events[serial].envelope.event.as_ref().unwrap();
        let shown = envelope.event.as_ref().unwrap();
        if !self.speaks_json {
            assert_eq!(shown, posted, "an event has changed");
            return None;
        }
        let is_by = |revision: &usize| posted.under(*revision) == *shown;
        let first = (0..REVISIONS).find(is_by);
        let first = first.unwrap_or_else(|| panic!("{posted:?} is shown as {shown:?}"));
        let last = (0..REVISIONS).rev().find(is_by);
        self.note_size(&events[serial]);
        Some((first, last.unwrap_or(first)))
    }

    fn note_size(&self, event: &Event) {
        let (json, bytes) = (event.json_len(), event.envelope.encoded_len());
        let limit = self.world.relay.live().config.limits.outbox_bytes;
        let history = &self.history;
        for (what, occurs) in [
            (
                "an event with three times its bytes in JSON",
                json > bytes * 3,
            ),
            (
                "an event with twenty times its bytes in JSON",
                json > bytes * 20,
            ),
            ("an event whose JSON is larger than an outbox", json > limit),
        ] {
            if occurs {
                history.count(what);
            }
        }
    }
}

impl Session<'_> {
    pub(super) async fn run(mut self) {
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

    /// Handles a read. Returns true if it was the last one.
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
            TEXT if self.client.speaks_json => self.said(&Envelope::from_json(&frame.payload)),
            BINARY if !self.client.speaks_json => {
                self.said(&Envelope::decode(&frame.payload[..]).expect("an envelope"))
            }
            CLOSE => self.closed_by_relay(&frame.payload),
            PING => {
                self.client.history.count("ping");
                self.send(PONG, &frame.payload);
                None
            }
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
                let shown_by = self.client.shown_by(serial, envelope);
                Said::Event {
                    serial,
                    tenant,
                    place,
                    shown_by,
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
            } => {
                let place = pong.position.as_ref().map(Position::place);
                if let Some(place) = place {
                    known.stands_at(place);
                }
                Said::Pong {
                    timestamp: pong.client_timestamp,
                    place,
                }
            }
            Envelope {
                error: Some(error), ..
            } => {
                known.refused(&error.request);
                let is_limited = error.code == "RATE_LIMIT_EXCEEDED";
                assert_eq!(error.retry_after_ms.is_some_and(|it| it > 0), is_limited);
                Said::Refused {
                    code: error.code.clone(),
                    request: error.request.clone(),
                    scarce: is_limited.then(|| match &error.message {
                        message if message.contains("may wait") => Scarce::Waiting,
                        message if message.contains("no memory") => Scarce::Memory,
                        _ => Scarce::Rate,
                    }),
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

    pub(super) fn close(&mut self, code: u16) {
        self.has_closed = true;
        self.send(CLOSE, &code.to_be_bytes());
    }

    pub(super) fn send(&mut self, opcode: u8, payload: &[u8]) {
        let history = &self.client.history;
        let now = history.now().time;
        history.connection(self.connection).signs.push(now);
        self.socket.send(opcode, payload);
    }
}
